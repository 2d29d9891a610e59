"""`TrioStream` behaves as trio's own streams do: trio's suites for streams pass, and its errors are trio's and ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

trio = pytest.importorskip("trio")

from trio.testing import check_half_closeable_stream, check_two_way_stream  # noqa: E402

from stt_anyio import Session, SessionClosedError, StreamClosedError, STTNode  # noqa: E402
from stt_anyio.memory import memory_sessions  # noqa: E402
from stt_anyio.trio import TrioStream  # noqa: E402

Maker = Callable[[], Awaitable[tuple[TrioStream, TrioStream]]]
SMALL = {"stream_send_buffer": 65_536, "stream_recv_buffer": 65_536, "session_recv_buffer": 65_536}


@pytest.fixture(scope="module", params=["trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@asynccontextmanager
async def udp_sessions(**parameters: Any) -> AsyncIterator[tuple[Session, Session]]:
    """The two ends of a session over UDP on loopback."""
    async with STTNode(shared_seed="x", host="127.0.0.1", server_mode=True, **parameters) as server:
        async with STTNode(shared_seed="x", host="127.0.0.1", **parameters) as client:
            session = await client.connect_udp("127.0.0.1", server.port)
            yield session, await server.accept()


def maker_of(ours: Session, theirs: Session) -> Maker:
    """Makes pairs of streams; the byte that tells the peer of the stream is read here."""

    async def make() -> tuple[TrioStream, TrioStream]:
        stream = ours.open_stream()
        await stream.send(b"!")
        peer = await theirs.accept_stream()
        assert await peer.receive(1) == b"!"
        return TrioStream(stream), TrioStream(peer)

    return make


async def fill(stream: TrioStream) -> None:
    """Send until there is no room, neither here nor at the peer."""
    before = None
    while before != (before := (stream.stream.bytes_accepted, stream.stream.bytes_acknowledged)):
        with trio.move_on_after(0.03):
            while True:
                await stream.send_all(bytes(16_384))


def clogged(make: Maker) -> Maker:
    """Makes pairs that are full in both directions."""

    async def make_clogged() -> tuple[TrioStream, TrioStream]:
        one, other = await make()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fill, one)
            nursery.start_soon(fill, other)
        return one, other

    return make_clogged


@pytest.mark.parametrize(
    ("check", "sessions"),
    [(check_two_way_stream, udp_sessions), (check_half_closeable_stream, memory_sessions)],
    ids=lambda value: value.__name__,
)
async def test_trios_own_suites_pass(check: Callable[..., Awaitable[None]], sessions: Callable[..., Any]) -> None:
    with trio.fail_after(30):
        async with sessions(max_concurrent_streams=64, **SMALL) as (ours, theirs):
            make = maker_of(ours, theirs)
            await check(make, clogged(make))


async def test_errors_are_trios_and_ours() -> None:
    async with memory_sessions() as (ours, theirs):
        one, other = await maker_of(ours, theirs)()
        other.stream.reset(7)
        with pytest.raises(trio.BrokenResourceError) as broken:
            await one.receive_some()
        assert isinstance(broken.value, StreamClosedError)
        assert broken.value.stream_code == 7
        await one.aclose()
        with pytest.raises(trio.ClosedResourceError) as closed:
            await one.send_all(b"x")
        assert isinstance(closed.value, StreamClosedError)
        one, other = await maker_of(ours, theirs)()
        ours.abort()
        with pytest.raises(trio.BrokenResourceError) as broken:
            await other.receive_some(1)
        assert isinstance(broken.value, SessionClosedError)


async def test_what_takes_trio_streams_takes_ours() -> None:
    async with memory_sessions() as (ours, theirs):
        one, other = await maker_of(ours, theirs)()
        joined = trio.StapledStream(one, one)
        await joined.send_all(b"x")
        assert await other.receive_some() == b"x"
        await joined.send_eof()
        assert await other.receive_some() == b""
