"""Requests and answers (MISSION J, H1 to H4) come to an end on every path, and leave nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
import sniffio

from stt_anyio import AnswerPolicy, Request, RequestRefused, Session, StreamClosedError, SttError, STTNode
from stt_anyio.errors import ArgumentError, OutcomeUnknownError
from stt_anyio.requests import REQUEST_FAILED, Handler
from tests.anyio.virtual import LOOPS, Town, virtual


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual(request.param)


@asynccontextmanager
async def answering(handler: Handler, policy: AnswerPolicy | None = None) -> AsyncIterator[tuple[STTNode, STTNode]]:
    town = Town()
    async with town.node("server") as server, town.node("client") as client, anyio.create_task_group() as tasks:
        tasks.start_soon(server.answer, handler, policy)
        yield server, client
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("code", [-1, 1 << 62, 1.5, None, True])
async def test_a_code_that_is_none(code: Any) -> None:
    """A handler's mistake refuses that request, and costs no session."""

    async def handler(request: Request) -> bytes:
        if request.data:
            raise RequestRefused(code)
        return b"done"

    with pytest.raises(ArgumentError) as mistake:
        RequestRefused(code)
    assert mistake.value.argument == "code"
    async with answering(handler) as (server, client):
        session = await client.connect("server")
        with pytest.raises(StreamClosedError) as caught:
            await session.request(b"x")
        assert caught.value.stream_code == REQUEST_FAILED
        assert await session.request(b"") == b"done"
        assert server.get_stats().handler_errors == 1


async def wait_for_what_is_cancelled() -> None:
    """Under asyncio who waits for a task that somebody cancels gets a `CancelledError`; trio knows no such thing."""
    if sniffio.current_async_library() == "trio":
        raise ValueError
    task = asyncio.ensure_future(asyncio.sleep(100))
    task.cancel()
    await task


async def test_a_handler_that_waits_for_what_is_cancelled() -> None:
    """That request fails, and nobody else's."""

    async def handler(request: Request) -> bytes:
        if request.data:
            await wait_for_what_is_cancelled()
        return b"done"

    async with answering(handler) as (server, client):
        session = await client.connect("server")
        with pytest.raises(StreamClosedError) as caught:
            await session.request(b"x")
        assert caught.value.stream_code == REQUEST_FAILED
        assert await session.request(b"", timeout=5) == b"done"
        assert server.get_stats().handler_errors == 1


async def test_serving_outlives_what_a_handler_waits_for() -> None:
    """The same for who serves sessions: the session of that handler ends, and no other."""
    town = Town()

    async def handler(session: Session) -> None:
        stream = await session.accept_stream()
        if await stream.receive() == b"x":
            await wait_for_what_is_cancelled()
        await stream.send(b"done")
        await anyio.sleep_forever()

    async with town.node("server") as server, town.node("client") as client, anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, handler)
        sessions = [await client.connect("server") for _ in range(3)]
        streams = [session.open_stream() for session in sessions]
        for stream, data in zip(streams, (b"a", b"x", b"c"), strict=True):
            await stream.send(data)
        assert await streams[0].receive(timeout=5) == await streams[2].receive(timeout=5) == b"done"
        with anyio.fail_after(5.0):
            assert await sessions[1].wait_closed() == "error"
        await anyio.sleep(1.0)
        assert [session.is_active() for session in sessions] == [True, False, True]
        assert (await client.connect("server")).is_active()
        tasks.cancel_scope.cancel()


# -- whatever happens --------------------------------------------------------------------------------------------------


async def answers(request: Request) -> bytes:
    await anyio.sleep(0.1)
    return request.data


async def raises(request: Request) -> bytes:
    await anyio.sleep(0.1)
    raise ValueError


async def refuses(request: Request) -> bytes:
    raise RequestRefused(77)


async def sleeps(request: Request) -> bytes:
    await anyio.sleep_forever()
    return b""


async def pours(request: Request) -> bytes:
    return bytes(4 << 20)


async def ends_the_session(request: Request) -> bytes:
    request.session.abort()
    return b""


async def closes_the_session(request: Request) -> bytes:
    request.session.begin_close()
    await anyio.sleep(0.1)
    return request.data


async def waits(session: Session, server: STTNode) -> None:
    await session.request(b"x" * 1000, timeout=20)


async def gives_up(session: Session, server: STTNode) -> None:
    with anyio.move_on_after(0.05):
        await session.request(b"x" * 1000)


async def is_impatient(session: Session, server: STTNode) -> None:
    await session.request(b"x" * 1000, timeout=0.05)


async def reads_little(session: Session, server: STTNode) -> None:
    await session.request(b"x" * 1000, max_size=1)


async def asks_by_half(session: Session, server: STTNode) -> None:
    stream = session.open_stream()
    await stream.send(b"half")
    await anyio.sleep(0.05)
    stream.reset(5)
    await stream.aclose()


async def wants_no_answer(session: Session, server: STTNode) -> None:
    stream = session.open_stream()
    await stream.send(b"x")
    stream.stop(5)
    await stream.aclose()


async def leaves(session: Session, server: STTNode) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waits, session, server)
        await anyio.sleep(0.05)
        session.abort()


async def is_turned_out(session: Session, server: STTNode) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waits, session, server)
        await anyio.sleep(0.05)
        server.sessions[session.session_id].begin_close()


HANDLERS = [answers, raises, refuses, sleeps, pours, ends_the_session, closes_the_session]
ASKERS = [waits, gives_up, is_impatient, reads_little, asks_by_half, wants_no_answer, leaves, is_turned_out]


@pytest.mark.parametrize("ask", ASKERS)
async def test_every_request_ends_once(ask: Callable[[Session, STTNode], Any]) -> None:
    """Whatever the handler does, and whatever the one who asks: what was begun has ended, and its place is free."""
    deed: Handler = answers

    async def handler(request: Request) -> bytes:
        return await (answers if request.purpose == "after" else deed)(request)  # type: ignore[return-value]

    async with answering(handler, AnswerPolicy(max_requests=2, max_in_all=3, timeout=3.0)) as (server, client):
        for each in HANDLERS:
            deed = each
            session = await client.connect("server")
            theirs = server.sessions[session.session_id]
            async with anyio.create_task_group() as tasks:

                async def one(session: Session) -> None:
                    with suppress(SttError, ExceptionGroup):
                        await ask(session, server)

                for _ in range(5):
                    tasks.start_soon(one, session)
            await anyio.sleep(10.0)  # five, two at a time, of 3 s
            metrics = server.session_manager.metrics()
            assert metrics.requests_in_flight == 0
            assert metrics.requests_begun == metrics.requests_ended
            assert not theirs.streams
            assert not session.streams
            if session.is_closed:
                session = await client.connect("server")
            began = anyio.current_time()
            assert await session.request(b"still there?", purpose="after") == b"still there?"
            assert anyio.current_time() - began < 0.3
            await session.close()


async def test_the_node_stops_in_the_middle_of_requests() -> None:
    """It does not wait for those that would never end, and who asked is told what is known."""
    town = Town()
    cancelled: list[bytes] = []

    async def handler(request: Request) -> bytes:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(request.data)
        return b""

    async with town.node("client") as client:
        async with town.node("server") as server, anyio.create_task_group() as tasks:
            tasks.start_soon(server.answer, handler)
            session = await client.connect("server")

            async def ask(data: bytes) -> None:
                with pytest.raises(OutcomeUnknownError):
                    await session.request(data)

            for data in (b"a", b"b"):
                tasks.start_soon(ask, data)
            await anyio.sleep(0.1)
            began = anyio.current_time()
            await server.stop()
            assert anyio.current_time() - began < 5.5
        assert sorted(cancelled) == [b"a", b"b"]
        metrics = server.session_manager.metrics()
        assert metrics.requests_begun == metrics.requests_ended == 2
