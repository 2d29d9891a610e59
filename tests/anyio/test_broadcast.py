"""One message to many sessions of a node (A6), over every host."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, ExitStack

import anyio
import pytest

from stt_anyio import (
    ArgumentError,
    BlockingNode,
    BroadcastPolicy,
    Fate,
    SessionClosedError,
    StateError,
    StreamIdConflict,
    STTNode,
)
from stt_anyio.errors import SessionNotFound, StreamClosedError
from tests.figures import RecordProperty, tell

LOOPBACK = "127.0.0.1"
SMALL = {"stream_recv_buffer": 65_536, "session_recv_buffer": 65_536}
Nodes = Callable[..., AbstractAsyncContextManager[tuple[STTNode, STTNode]]]


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await anyio.sleep(0.005)


async def test_everybody_gets_it_and_is_named(udp_nodes: Nodes) -> None:
    async with udp_nodes() as (server, client):
        dialled = [await client.connect_udp(LOOPBACK, server.port) for _ in range(5)]
        await until(lambda: len(server.sessions) == 5)
        ids = tuple(session.session_id for session in dialled)
        got = await server.send_to_sessions([ids[2], b"nobody..", ids[0], ids[2]], memoryview(b"to two"))
        assert list(got.receipts) == [ids[2], b"nobody..", ids[0]]
        assert (got.acknowledged, got.queued, got.dropped) == ((ids[2], ids[0]), (), ())
        assert isinstance(got.failed[b"nobody.."], SessionNotFound)
        assert set((await server.send_to_all(bytearray(b"to all"))).acknowledged) == set(ids)
        for number, texts in enumerate(([b"to two", b"to all"], [b"to all"], [b"to two", b"to all"])):
            for text in texts:
                stream = await dialled[number].accept_stream()
                assert (stream.purpose, stream.can_send, await stream.receive()) == ("broadcast", False, text)
                with pytest.raises(anyio.EndOfStream):
                    await stream.receive()


async def test_messages_wait_in_order_for_who_is_slow(udp_nodes: Nodes) -> None:
    """Without waiting here; when the receiver reads again it has all of them, in order, and whole."""
    async with udp_nodes(**SMALL, stream_send_buffer=65_536, max_stream_send_buffer=65_536) as (server, client):
        slow = await client.connect_udp(LOOPBACK, server.port)
        await until(lambda: server.sessions)
        ours = server.sessions[slow.session_id]
        texts = [bytes([number]) * 100_000 for number in range(8)]
        for text in texts:
            assert (await server.send_to_all(text, stream_id=1, timeout=0)).queued == (slow.session_id,)
        stream = ours.get_stream(1)
        assert stream is not None
        with pytest.raises(StateError):  # in the middle of a message nobody else writes
            await stream.send(b"x")
        theirs = await slow.accept_stream()
        whole = b""
        while len(whole) < 800_000:
            whole += await theirs.receive()
        assert whole == b"".join(texts)
        await until(lambda: not server.broadcaster)
        await stream.send(b"and now", timeout=5)
        assert await theirs.receive() == b"and now"
        await theirs.send(b"thanks")
        assert await stream.receive() == b"thanks"


async def test_who_writes_on_the_stream_is_not_written_over(udp_nodes: Nodes) -> None:
    async with udp_nodes(**SMALL) as (server, client):
        session = await client.connect_udp(LOOPBACK, server.port)
        await until(lambda: server.sessions)
        stream = server.sessions[session.session_id].open_stream()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.send, bytes(3 << 20))
            await anyio.sleep(0.05)
            got = await server.send_to_all(b"x", stream_id=stream.stream_id)
            assert isinstance(got.failed[session.session_id], StateError)
            tasks.cancel_scope.cancel()
        await stream.aclose()
        got = await server.send_to_all(b"x", stream_id=stream.stream_id)  # it is over, and its id is used up
        assert isinstance(got.failed[session.session_id], StreamIdConflict | StreamClosedError)


async def test_a_reset_takes_what_waits_with_it(udp_nodes: Nodes) -> None:
    async with udp_nodes(**SMALL) as (server, client):
        session = await client.connect_udp(LOOPBACK, server.port)
        await until(lambda: server.sessions)
        stream = server.sessions[session.session_id].open_stream()
        async with anyio.create_task_group() as tasks:

            async def cast() -> None:
                got = await server.send_to_all(bytes(3 << 20), stream_id=stream.stream_id)
                assert isinstance(got.failed[session.session_id], StreamClosedError)
                assert isinstance(got.failed[session.session_id], anyio.BrokenResourceError)

            tasks.start_soon(cast)
            await anyio.sleep(0.05)
            stream.reset()


async def test_cancelled_what_has_not_begun_is_withdrawn(udp_nodes: Nodes) -> None:
    policy = BroadcastPolicy(max_messages=2)
    async with udp_nodes(**SMALL, broadcast=policy) as (server, client):
        session = await client.connect_udp(LOOPBACK, server.port)
        await until(lambda: server.sessions)
        first = await server.send_to_all(bytes(3 << 20), timeout=0)
        with anyio.move_on_after(0.05):
            await server.send_to_all(b"never")
        stream = await session.accept_stream()
        assert len([piece async for piece in stream]) > 0
        assert first.queued == (session.session_id,)
        await until(lambda: not server.broadcaster)
        with anyio.move_on_after(0.05) as waited:
            await session.accept_stream()
        assert waited.cancelled_caught


async def test_called_in_a_cancelled_scope_it_sends_nothing(udp_nodes: Nodes) -> None:
    async with udp_nodes() as (server, client):
        session = await client.connect_udp(LOOPBACK, server.port)
        await until(lambda: server.sessions)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await server.send_to_all(b"never")
        await server.send_to_all(b"this")
        stream = await session.accept_stream()
        assert await stream.receive() == b"this"


async def test_the_end_of_a_stream_does_not_cut_a_message(udp_nodes: Nodes) -> None:
    """While a broadcast leaves on it, its end is nobody else's to say, as little as other bytes are."""
    async with udp_nodes(**SMALL, stream_send_buffer=65_536, max_stream_send_buffer=65_536) as (server, client):
        session = await client.connect_udp(LOOPBACK, server.port)
        await until(lambda: server.sessions)
        stream = server.sessions[session.session_id].open_stream(1)
        await server.send_to_all(bytes(300_000), stream_id=1, timeout=0)
        with pytest.raises(StateError):
            await stream.send_eof()
        theirs = await session.accept_stream()
        whole = 0
        while whole < 300_000:
            whole += len(await theirs.receive())
        await until(lambda: not server.broadcaster)
        await stream.send_eof()
        with pytest.raises(anyio.EndOfStream):
            await theirs.receive()


async def test_a_message_that_a_close_cuts_is_no_whole_one(udp_nodes: Nodes) -> None:
    """Closing does not wait, so it resets: the peer must not take a part for all of it (and who sent it is told)."""
    async with udp_nodes(**SMALL, stream_send_buffer=65_536, max_stream_send_buffer=65_536) as (server, client):
        session = await client.connect_udp(LOOPBACK, server.port)
        await until(lambda: server.sessions)
        stream = server.sessions[session.session_id].open_stream(1)
        results = []

        async def cast() -> None:
            results.append(await server.send_to_all(bytes(300_000), stream_id=1))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cast)
            theirs = await session.accept_stream()
            await stream.aclose()
        with pytest.raises(StreamClosedError):
            _ = [piece async for piece in theirs]
        assert list(results[0].failed) == [session.session_id]
        assert not server.broadcaster


async def test_what_has_begun_is_told_as_it_ends_when_the_session_closes(udp_nodes: Nodes) -> None:
    async with udp_nodes() as (server, client):
        session = await client.connect_udp(LOOPBACK, server.port)
        await until(lambda: server.sessions)
        ours = server.sessions[session.session_id]
        results = []

        async def cast(data: bytes) -> None:
            results.append(await server.send_to_all(data))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cast, b"first")
            await session.accept_stream()  # it has begun, and more
            ours.begin_close()
            await cast(b"late")
        late, first = results
        assert isinstance(late.failed[ours.session_id], SessionClosedError)
        assert first.acknowledged == (ours.session_id,)


async def test_who_is_too_slow_is_closed(udp_nodes: Nodes) -> None:
    policy = BroadcastPolicy(max_messages=3, slow="close")  # type: ignore[arg-type]
    async with udp_nodes(**SMALL, broadcast=policy) as (server, client):
        slow = await client.connect_udp(LOOPBACK, server.port)
        quick = await client.connect_udp(LOOPBACK, server.port)
        await until(lambda: len(server.sessions) == 2)

        async def read() -> None:
            while True:
                async for _ in await quick.accept_stream():
                    pass

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            for _ in range(3):
                got = await server.send_to_all(bytes(200_000), timeout=0.2)
                assert got.receipts[quick.session_id].fate is Fate.ACKNOWLEDGED
            got = await server.send_to_all(bytes(200_000))
            assert (got.acknowledged, got.dropped) == ((quick.session_id,), (slow.session_id,))
            assert await slow.wait_closed() == "error"
            assert list(server.sessions) == [quick.session_id]
            tasks.cancel_scope.cancel()


async def test_the_node_stops_in_the_middle(udp_nodes: Nodes) -> None:
    async with udp_nodes(**SMALL) as (server, client):
        session = await client.connect_udp(LOOPBACK, server.port)
        await until(lambda: server.sessions)
        async with anyio.create_task_group() as tasks:

            async def cast() -> None:
                got = await server.send_to_all(bytes(3 << 20), timeout=None)
                assert isinstance(got.failed[session.session_id], SessionClosedError)
                assert isinstance(got.failed[session.session_id], anyio.ClosedResourceError)

            tasks.start_soon(cast)
            await anyio.sleep(0.05)
            await server.stop(timeout=0.05)
        with pytest.raises(StateError):
            await server.send_to_all(b"x")


async def test_arguments(udp_nodes: Nodes) -> None:
    with pytest.raises(ArgumentError):
        STTNode(shared_seed="x", broadcast={"max_messages": 3})
    async with udp_nodes(broadcast=BroadcastPolicy(max_bytes=1000)) as (server, client):
        session = await client.connect_udp(LOOPBACK, server.port)
        await until(lambda: server.sessions)
        for ids, data, stream_id in (
            (session.session_id, b"x", None),
            ([session], b"x", None),
            ([session.session_id], "text", None),
            ([session.session_id], bytes(1001), None),
            ([session.session_id], b"x", "one"),
            ([session.session_id], b"x", [1]),
            ([session.session_id], b"x", True),
            ([], b"x", "one"),
            (5, b"x", None),
            (None, b"x", None),
            (b"", b"x", None),
        ):
            with pytest.raises(ArgumentError):
                await server.send_to_sessions(ids, data, stream_id)  # type: ignore[arg-type]
        got = await server.send_to_all(b"x", stream_id=0)  # the peer's
        assert isinstance(got.failed[session.session_id], StreamIdConflict)
        assert (await server.send_to_all(bytes(1000))).acknowledged == (session.session_id,)


def test_without_an_event_loop() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(BlockingNode(shared_seed="x", host=LOOPBACK, server_mode=True, **SMALL))
        client = stack.enter_context(BlockingNode(shared_seed="x", host=LOOPBACK, background=True, **SMALL))
        sessions = []
        for _ in range(3):
            thread = threading.Thread(target=client.connect, args=((LOOPBACK, server.port),))
            thread.start()
            sessions.append(server.accept(5.0))
            thread.join()
        ids = tuple(session.session_id for session in sessions)
        assert server.send_to_all(b"to all").acknowledged == ids
        began = time.monotonic()
        got = server.send_to_sessions(ids[:1], bytes(3 << 20), timeout=0.2)
        assert time.monotonic() - began < 5.0
        assert got.queued == ids[:1]  # nobody reads it
        assert server.send_to_sessions(ids[1:], b"to two", stream_id=1).acknowledged == ids[1:]
        server.send_to_sessions(ids[:1], bytes(3 << 20), stream_id=1, timeout=0)
        with pytest.raises(StateError):  # in the middle of a message
            server.sessions[ids[0]].streams[1].send_eof()


# -- how long it takes -----------------------------------------------------------------------------------------------


async def all_have_it(receivers: int, dead: int, rounds: int, size: int) -> float:
    """Seconds of real time until all living receivers have all messages; the dead are nodes that stopped listening."""
    options = {"shared_seed": "a seed for tests", "host": LOOPBACK, "handshake_timeout": 60.0}
    hub = STTNode(server_mode=True, max_concurrent_sessions=2000, **options)
    homes = [STTNode(max_concurrent_sessions=2000, **options) for _ in range(10)]  # the last ones will be dead
    async with hub:
        for home in homes:
            await home.start()
        try:
            alive = dict.fromkeys(homes, receivers // 10)
            for home, share in alive.items():
                for _ in range(share):
                    await home.connect_udp(LOOPBACK, hub.port, timeout=None)
            await until(lambda: len(hub.sessions) == receivers)
            buried = homes[len(homes) - 10 * dead // receivers :] if dead else []
            for home in buried:
                home.driver.close()  # it neither sends nor hears any more, and says nothing
            living = [s.session_id for home in homes if home not in buried for s in home.sessions.values()]
            wanted = list(hub.sessions) if dead else living
            began = time.perf_counter()
            for _ in range(rounds):
                await hub.send_to_sessions(wanted, bytes(size), timeout=0)
            last = await hub.send_to_sessions(living, bytes(size), timeout=60)
            took = time.perf_counter() - began
            assert set(last.acknowledged) == set(living)
            return took
        finally:
            with anyio.CancelScope(shield=True):
                for home in homes:
                    if home._scope is not None:
                        home._scope.cancel()
                    await home.stop(timeout=0.1)
                for session in tuple(hub.sessions.values()):
                    session.abort()


@pytest.mark.parametrize("receivers", [pytest.param(1000, marks=pytest.mark.long)])
async def test_the_dead_delay_nobody(receivers: int, record_property: RecordProperty) -> None:
    """Over loopback: 1,000 receivers of which a tenth is dead; the same run without the dead is its measure."""
    ratios = []
    for _ in range(3):
        with_dead = await all_have_it(receivers, receivers // 10, rounds=4, size=10_000)
        alone = await all_have_it(receivers - receivers // 10, 0, rounds=4, size=10_000)
        ratios.append(with_dead / alone)
    tell(record_property, receivers=receivers, with_dead_s=with_dead, without_s=alone, ratio=sorted(ratios)[1])
    assert sorted(ratios)[1] <= 1.2
