"""Nodes under asyncio and trio: starting and stopping, dialling and accepting, and who is told of what."""

from __future__ import annotations

import contextlib
import gc
import logging
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from stt_anyio import (
    NodeConfig,
    ReceivedPacket,
    Session,
    SessionClosedError,
    SessionState,
    SessionTimeoutError,
    StreamClosedError,
    SttAttribute,
    STTNode,
    TooManySessionsError,
    UdpCarrier,
)
from stt_anyio.errors import (
    ArgumentError,
    AuthenticationError,
    ConnectionRefusedError,
    ConnectionTimeoutError,
    StateError,
    UnreachableError,
)
from stt_anyio.memory import memory_nodes, memory_sessions
from stt_proto.events import HandshakeFailed, HandshakeProgressed, SessionClosed, SessionEstablished

Nodes = Callable[..., AbstractAsyncContextManager[tuple[STTNode, STTNode]]]
Sessions = Callable[..., AbstractAsyncContextManager[tuple[Session, Session]]]
SEED = bytes(range(32))
LOOPBACK = "127.0.0.1"


async def until(condition: Callable[[], Any]) -> None:
    """Wait for something that nobody tells of."""
    with anyio.fail_after(10):
        while not condition():
            await anyio.sleep(0.002)


# -- starting and stopping -----------------------------------------------------------------------------------------


async def test_it_binds_exactly_what_was_asked_for() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((LOOPBACK, 0))
        port = taken.getsockname()[1]
        node = STTNode(shared_seed="x", host=LOOPBACK, port=port)
        with pytest.raises(OSError, match="in use"):
            await node.start()
        assert not node.running
    await node.start()
    assert (node.host, node.port, node.running) == (LOOPBACK, port, True)
    with pytest.raises(StateError):
        await node.start()
    await node.stop()
    await node.stop()
    assert not node.running
    async with STTNode(shared_seed="x", host=LOOPBACK) as other:
        assert other.port not in (0, port)


async def test_it_can_be_started_again() -> None:
    node = STTNode(SEED, "x", host=LOOPBACK)
    for _ in range(2):
        await node.start(server_mode=True)
        async with STTNode(shared_seed="x", host=LOOPBACK) as client:
            session = await client.connect((LOOPBACK, node.port), peer_node_id=node.node_id)
            assert session.is_active()
            await session.close()
        await node.stop()


async def test_start_and_stop_belong_to_no_task() -> None:
    first, second = (STTNode(shared_seed="x", host=LOOPBACK) for _ in range(2))
    async with anyio.create_task_group() as tasks:
        for node in (first, second):
            tasks.start_soon(node.start)
    async with anyio.create_task_group() as tasks:
        for node in (first, second, first):  # not in the reverse order, and one of them twice
            tasks.start_soon(node.stop)
    assert not first.running
    with anyio.CancelScope() as scope:
        async with STTNode(shared_seed="x", host=LOOPBACK) as third:
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert not third.running


async def test_a_start_that_is_cancelled_leaves_nothing() -> None:
    class Cancelling(UdpCarrier):
        async def open(self) -> None:
            await super().open()
            scope.cancel()

    carrier = Cancelling(NodeConfig(bind_address=LOOPBACK))
    node = STTNode(shared_seed="x", carriers=[carrier])
    with anyio.CancelScope() as scope:
        scope.cancel()
        await node.start()  # before the socket is there
    assert not node.running
    with anyio.CancelScope() as scope:
        await node.start()  # and after
    assert scope.cancelled_caught
    assert not node.running
    assert carrier.sockets[0].fileno() == -1


async def test_a_node_that_stops_while_it_dials() -> None:
    class Slow(UdpCarrier):
        async def path_to(self, address: Any) -> Any:
            await node.stop()
            return await super().path_to(address)

    node = STTNode(shared_seed="x", carriers=[Slow(NodeConfig(bind_address=LOOPBACK))])
    await node.start()
    with pytest.raises(StateError):
        await node.connect((LOOPBACK, 9))


async def test_the_log_level_is_set_when_asked_for() -> None:
    before = logging.getLogger("stt").level
    async with STTNode(shared_seed="x", host=LOOPBACK, log_level="error"):
        assert logging.getLogger("stt").level == logging.ERROR
    logging.getLogger("stt").setLevel(before)


async def test_nothing_works_before_start_and_after_stop() -> None:
    node = STTNode(shared_seed="x", host=LOOPBACK, port=0)
    await node.stop()
    assert (node.host, node.port, node.accepting) == (LOOPBACK, 0, False)
    with pytest.raises(StateError):
        await node.connect((LOOPBACK, 1))
    with pytest.raises(StateError):
        node.enable_accept_connections()
    packets, events = node.receive(), node.events()
    for early in (node.accept, packets.__anext__, events.__anext__):
        with pytest.raises(StateError, match="never started"):
            await early()
    await node.start()
    await node.stop()
    with pytest.raises(anyio.ClosedResourceError):
        await node.accept()
    assert [packet async for packet in packets] == []


async def test_a_node_shows_who_and_where_it_is() -> None:
    node = STTNode(SEED, "a secret", host=LOOPBACK)
    name = f"<STTNode {node.node_id.hex()[:16]}"
    assert repr(node) == f"{name}, not running>"
    async with node:
        assert repr(node) == f"{name} at {LOOPBACK}:{node.port}, running>"
    assert node.port == 0
    assert repr(node) == f"{name}, not running>"
    async with memory_nodes() as (one, _):
        assert repr(one) == f"<STTNode {one.node_id.hex()[:16]}, running>"


def test_a_node_that_was_never_stopped_warns(anyio_backend_name: str) -> None:
    async def forget() -> None:
        await STTNode(shared_seed="x", host=LOOPBACK).start()

    def run() -> None:
        anyio.run(forget, backend=anyio_backend_name)
        gc.collect()

    with pytest.warns(ResourceWarning, match="was never stopped"):
        run()


async def test_stopping_closes_sessions_and_wakes_everybody(udp_nodes: Nodes) -> None:
    async with udp_nodes() as (server, client):
        session = await client.connect_udp(LOOPBACK, server.port)
        stream = session.open_stream()
        await stream.send(b"delivered before the end")
        theirs = await server.accept()

        async def expect(kind: type[Exception], call: Callable[[], Any]) -> None:
            with pytest.raises(kind):
                await call()

        async def collect() -> None:
            async for _ in client.events():
                pass

        async with anyio.create_task_group() as tasks:
            for call in (stream.receive, session.accept_stream, session.receive_datagram, client.accept):
                tasks.start_soon(expect, anyio.ClosedResourceError, call)
            tasks.start_soon(client.serve, lambda session: None)
            tasks.start_soon(collect)
            await anyio.wait_all_tasks_blocked()
            await client.stop()
        assert await theirs.wait_closed() == "graceful"
        peer = await theirs.accept_stream()
        assert await peer.receive() == b"delivered before the end"
        with pytest.raises(SessionClosedError):
            await theirs.accept_stream()


async def test_stopping_does_not_wait_for_the_dead(udp_nodes: Nodes) -> None:
    async with udp_nodes() as (server, client):
        session = await client.connect_udp(LOOPBACK, server.port)
        await session.open_stream().send(bytes(1 << 20))  # more than the peer takes without reading
        with anyio.fail_after(2):
            await client.stop(timeout=0.05)
        assert session.is_closed


@pytest.mark.parametrize("body_fails", [False, True])
async def test_what_ends_the_node_is_raised_by_stop(caplog: pytest.LogCaptureFixture, body_fails: bool) -> None:
    """Unwrapped from its group; and where the body has failed too, that goes first and this is logged."""

    class Dying(UdpCarrier):
        async def run(self, port: Any) -> None:
            await death.wait()
            raise OSError("the network is gone")

    async def dial(node: STTNode) -> None:
        with pytest.raises(anyio.ConnectionFailed):
            await node.connect((LOOPBACK, 9))

    async def run() -> None:
        async with STTNode(shared_seed="x", carriers=[Dying(NodeConfig(bind_address=LOOPBACK))]) as node:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(dial, node)
                await anyio.wait_all_tasks_blocked()
                death.set()
            await until(lambda: not node.running)
            if body_fails:
                raise ValueError("the network is gone, says the body")

    death = anyio.Event()
    with pytest.raises(ValueError if body_fails else OSError, match="the network is gone"):
        await run()
    assert "the network is gone" in caplog.text


async def test_a_socket_that_dies_under_a_send_ends_the_node(udp_nodes: Nodes) -> None:
    server = STTNode(shared_seed="x", host=LOOPBACK, server_mode=True)
    await server.start()
    async with STTNode(shared_seed="x", host=LOOPBACK) as client:
        await client.connect_udp(LOOPBACK, server.port)
        session = await server.accept()
        stream = session.open_stream()
        carrier = next(iter(server._carriers.values()))
        assert isinstance(carrier, UdpCarrier)
        carrier.sockets[0].close()
        await stream.send(b"into the void")
        await until(lambda: not server.running)
        with pytest.raises(anyio.BrokenResourceError):
            await stream.receive()
        with pytest.raises(OSError, match="Bad file descriptor"):
            await server.stop()


# -- dialling ------------------------------------------------------------------------------------------------------


async def test_a_session_tells_about_itself(udp_nodes: Nodes) -> None:
    async with udp_nodes() as (server, client):
        session = await client.connect_udp("localhost", server.port, peer_node_id=server.node_id)
        theirs = await server.accept()
        assert session.session_id == theirs.session_id
        assert len(session.session_id) == 8
        assert (session.peer_node_id, theirs.peer_node_id) == (server.node_id, client.node_id)
        assert (session.state, session.is_active(), session.is_closed) == (SessionState.ESTABLISHED, True, False)
        assert (session.transport_type, session.peer_addr) == ("udp", (LOOPBACK, server.port))
        assert theirs.peer_addr == (LOOPBACK, client.port)
        assert theirs.local_addr == (LOOPBACK, server.port)
        assert session.key_version == 0
        assert abs(session.created_at - theirs.created_at) < 10
        assert session.last_active >= session.created_at
        assert session.last_key_rotation >= session.created_at
        assert "datagrams" in session.capabilities
        session.metadata["mine"] = 1
        assert session.metadata == {"mine": 1}
        assert theirs.metadata == {}
        keys = [each.export_keying_material("test", 32) for each in (session, theirs)]
        assert keys[0] == keys[1]
        assert session.close_reason is None
        assert session.extra(SttAttribute.session_id) == session.session_id
        assert client.get_session(session.session_id) is session
        assert client.get_active_sessions() == [session]


async def test_a_wrong_seed_fails_on_both_sides_and_leaves_nothing(udp_nodes: Nodes) -> None:
    told: list[tuple[bytes, str]] = []
    async with udp_nodes() as (server, _):
        server.on_session_closed(lambda session_id, reason: told.append((session_id, reason)))
        async with STTNode(shared_seed="another seed", host=LOOPBACK) as stranger:
            with pytest.raises(AuthenticationError) as caught:
                await stranger.connect_udp(LOOPBACK, server.port)
            assert isinstance(caught.value, anyio.ConnectionFailed)
            await until(lambda: told)
            assert told == [(b"", "auth_failure")]
            assert not stranger.sessions
            assert not server.sessions
        assert server.get_stats().handshakes_failed == 1
        assert server.get_stats().established == 0


async def test_nobody_but_the_one_asked_for(udp_nodes: Nodes) -> None:
    async with udp_nodes() as (server, client):
        with pytest.raises(AuthenticationError):
            await client.connect_udp(LOOPBACK, server.port, peer_node_id=client.node_id[:31] + b"\0")
        with pytest.raises(ArgumentError):
            await client.connect_udp(LOOPBACK, server.port, peer_node_id=b"short")
        assert not client.sessions


async def test_nobody_answers(udp_nodes: Nodes) -> None:
    async with udp_nodes() as (_, client):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind((LOOPBACK, 0))
            with pytest.raises(
                ConnectionTimeoutError, match=rf"127\.0\.0\.1:{silent.getsockname()[1]} within 0\.1"
            ) as caught:
                await client.connect(silent.getsockname(), timeout=0.1)
            for kind in (TimeoutError, anyio.ConnectionFailed, OSError):
                assert isinstance(caught.value, kind)
            with anyio.move_on_after(0.05) as scope:
                await client.connect(silent.getsockname())
            assert scope.cancelled_caught
        assert not client.endpoint._context.live  # nothing is left behind


async def test_nobody_listens_there(udp_nodes: Nodes) -> None:
    async with udp_nodes() as (server, client):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
            gone.bind((LOOPBACK, 0))
            address = gone.getsockname()
        with pytest.raises((ConnectionRefusedError, ConnectionTimeoutError)) as caught:
            await client.connect(address, timeout=1)
        if socket.MSG_ERRQUEUE:
            assert isinstance(caught.value, ConnectionRefusedError)
        with pytest.raises(UnreachableError, match=r"no way to no\.such\.name\.invalid:1: \w"):
            await client.connect(("no.such.name.invalid", 1))
        with pytest.raises(ArgumentError):
            await client.connect((LOOPBACK, server.port), transport="smoke")


async def test_a_hint_ends_no_session(udp_nodes: Nodes) -> None:
    """Whoever forges "port unreachable" ends nothing that is established."""
    async with udp_nodes() as (server, client):
        session = await client.connect_udp(LOOPBACK, server.port)
        server.disable_accept_connections()
        async with anyio.create_task_group() as tasks:

            async def dial() -> None:
                with pytest.raises(ConnectionRefusedError):
                    await client.connect_udp(LOOPBACK, server.port)

            tasks.start_soon(dial)
            await until(lambda: client._dialing)
            client.driver.path_failed(session.core.path, "refused")
        stream = session.open_stream()
        await stream.send(b"still here", timeout=5)


async def test_who_does_not_accept_refuses(udp_nodes: Nodes) -> None:
    async with udp_nodes() as (server, client):
        first = await client.connect_udp(LOOPBACK, server.port)
        server.disable_accept_connections()
        with pytest.raises(ConnectionRefusedError):
            await client.connect_udp(LOOPBACK, server.port)
        assert first.is_active()
        server.enable_accept_connections()
        assert server.accepting
        assert (await client.connect_udp(LOOPBACK, server.port)).is_active()
        with pytest.raises(ConnectionRefusedError):
            await server.connect_udp(LOOPBACK, client.port)  # a client accepts nobody


async def test_admission_decides_by_who_it_is(udp_nodes: Nodes) -> None:
    known = STTNode(SEED, "x").node_id

    def admit(peer_node_id: bytes, path: Any, now: float) -> int | None:
        return None if peer_node_id == known else ConnectionRefusedError.code

    async with (
        STTNode(
            shared_seed="x",
            host=LOOPBACK,
            server_mode=True,
            admit=lambda peer, path, now: None if peer == known else 0x102,
        ) as server,
        STTNode(SEED, "x", host=LOOPBACK) as friend,
        STTNode(shared_seed="x", host=LOOPBACK) as other,
    ):
        assert (await friend.connect_udp(LOOPBACK, server.port)).is_active()
        with pytest.raises(ConnectionRefusedError):
            await other.connect_udp(LOOPBACK, server.port)


async def test_one_session_too_many(udp_nodes: Nodes) -> None:
    async with udp_nodes(max_concurrent_sessions=2) as (server, client):
        sessions = [await client.connect_udp(LOOPBACK, server.port) for _ in range(2)]
        with pytest.raises(TooManySessionsError) as caught:
            await client.connect_udp(LOOPBACK, server.port)
        assert isinstance(caught.value, anyio.ConnectionFailed)
        async with STTNode(shared_seed="a seed for tests", host=LOOPBACK) as other:
            with pytest.raises(TooManySessionsError):
                await other.connect_udp(LOOPBACK, server.port)
        assert all(session.is_active() for session in sessions)
        await sessions[0].close()
        assert (await client.connect_udp(LOOPBACK, server.port)).is_active()


async def test_both_dial_at_once(udp_nodes: Nodes) -> None:
    """Crossing calls give two usable sessions."""
    async with udp_nodes() as (one, other):
        other.enable_accept_connections()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.connect_udp, LOOPBACK, other.port)
            tasks.start_soon(other.connect_udp, LOOPBACK, one.port)
        await until(lambda: len(one.sessions) == len(other.sessions) == 2)
        for session in one.sessions.values():
            await session.open_stream().send(b"x", timeout=5)


# -- accepting -----------------------------------------------------------------------------------------------------


async def test_many_clients_are_served_at_once(udp_nodes: Nodes) -> None:
    async def echo(session: Session) -> None:
        stream = await session.accept_stream()
        await stream.send(await stream.receive())
        await stream.aclose()

    async with udp_nodes() as (server, client), anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, echo)

        async def call(number: int) -> None:
            async with await client.connect_udp(LOOPBACK, server.port) as session:
                stream = session.open_stream()
                await stream.send(b"%d" % number)
                assert await stream.receive() == b"%d" % number

        async with anyio.create_task_group() as calls:
            for number in range(20):
                calls.start_soon(call, number)
        await until(lambda: not server.sessions)
        assert server.get_stats().closed["graceful"] == 20
        tasks.cancel_scope.cancel()


async def test_a_handler_that_raises_ends_its_session_and_no_other(
    udp_nodes: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    async def handle(session: Session) -> None:
        stream = await session.accept_stream()
        if await stream.receive() == b"fail":
            raise RuntimeError("a bug in the handler")
        await stream.send(b"fine")

    async with udp_nodes() as (server, client), anyio.create_task_group() as tasks:
        listener = server.listener()
        tasks.start_soon(listener.serve, handle, tasks)
        good, bad, gone = [await client.connect_udp(LOOPBACK, server.port) for _ in range(3)]
        with caplog.at_level(logging.INFO, logger="stt"):
            await bad.open_stream().send(b"fail")
            assert await bad.wait_closed() == "error"
            gone.abort()  # whose handler waits in accept_stream
            stream = good.open_stream()
            await stream.send(b"ok")
            assert await stream.receive() == b"fine"
        assert [record.exc_info is not None for record in caplog.records].count(True) == 1
        assert "a bug in the handler" in caplog.text
        await until(lambda: server.get_stats().handler_errors == 2)
        assert server.get_stats().closed["error"] == 2
        await listener.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await listener.accept()


async def test_streams_are_served_until_the_session_is_over(sessions: Sessions) -> None:
    async def shout(stream: Any) -> None:
        async for piece in stream:
            await stream.send(piece.upper())
        await stream.aclose()

    async with sessions() as (ours, theirs):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(theirs.serve, shout)
            for word in (b"one", b"two"):
                stream = ours.open_stream()
                await stream.send(word)
                assert await stream.receive() == word.upper()
                await stream.aclose()
            listener = theirs.listener()
            assert listener.extra(SttAttribute.session) is theirs
            await ours.close()


async def test_a_handler_at_work_when_its_session_is_closed_is_no_fault(
    sessions: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    """It learns of the closing when it goes on, as of an end; nobody is told of a bug."""
    begun = anyio.Event()

    async def handle(stream: Any) -> None:
        await stream.send(b"one")
        begun.set()
        while theirs.is_active():
            await checkpoint()
        await stream.send(b"two")

    async with sessions() as (ours, theirs), anyio.create_task_group() as tasks:
        tasks.start_soon(theirs.serve, handle)
        await ours.open_stream().send(b"x")
        await begun.wait()
        with caplog.at_level(logging.INFO, logger="stt"):
            await theirs.close()
            await until(lambda: theirs.node.get_stats().handler_errors)
        assert "gave up as the session" in caplog.text
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert await ours.wait_closed() == "graceful"


async def test_a_peer_that_wants_no_answer_ends_no_session(
    sessions: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    """One request that is given up must not end those beside it; a stream that the handler closed itself is a bug."""
    given_up = anyio.Event()

    async def answer(stream: Any) -> None:
        request = b"".join([piece async for piece in stream])
        if request == b"bug":
            await stream.aclose()
        elif request == b"slow":
            await given_up.wait()
            await anyio.sleep(0.05)
        await stream.send(request.upper())
        await stream.aclose()

    async def ask(request: bytes) -> Any:
        stream = ours.open_stream()
        await stream.send(request)
        await stream.send_eof()
        return stream

    async with sessions() as (ours, theirs), anyio.create_task_group() as tasks:
        tasks.start_soon(theirs.serve, answer)
        (await ask(b"slow")).stop(7)
        given_up.set()
        with caplog.at_level(logging.INFO, logger="stt"):
            await until(lambda: theirs.node.get_stats().handler_errors)
        assert "gave up" in caplog.text
        assert await (await ask(b"fine")).receive() == b"FINE"
        await until(lambda: not theirs.streams)
        await ask(b"bug")
        assert await ours.wait_closed() == "error"


async def test_a_stream_handler_that_raises_ends_the_session(sessions: Sessions) -> None:
    async def fail(stream: Any) -> None:
        raise RuntimeError("a bug in the handler")

    async with sessions() as (ours, theirs), anyio.create_task_group() as tasks:
        tasks.start_soon(theirs.serve, fail)
        await ours.open_stream().send(b"x")
        assert await ours.wait_closed() == "error"


# -- being told ----------------------------------------------------------------------------------------------------


async def test_callbacks(udp_nodes: Nodes) -> None:
    told: list[Any] = []
    async with udp_nodes() as (server, client):

        @server.on_session_established
        def established(session: Session) -> None:
            told.append(session.session_id)
            session.open_stream(bidirectional=False)

        @server.on_session_closed
        async def closed(session_id: bytes, reason: str) -> None:
            await anyio.sleep(0.001)
            told.append((session_id, reason))

        session = await client.connect_udp(LOOPBACK, server.port)
        await until(lambda: told)
        await session.close()
        await until(lambda: len(told) == 2)
        assert told == [session.session_id, (session.session_id, "graceful")]


async def test_stop_waits_for_callbacks_and_may_be_called_by_one(udp_nodes: Nodes) -> None:
    told: list[str] = []
    go_on = anyio.Event()
    async with udp_nodes() as (server, client):

        @server.on_session_established
        async def established(session: Session) -> None:
            await go_on.wait()
            await server.stop()
            told.append("stopped")

        @client.on_session_closed
        async def closed(session_id: bytes, reason: str) -> None:
            await anyio.sleep(0.01)
            told.append(reason)

        @client.on_session_closed
        async def forever(session_id: bytes, reason: str) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                told.append("cut off")

        session = await client.connect_udp(LOOPBACK, server.port)
        go_on.set()
        assert await session.wait_closed() == "graceful"
        await client.stop(timeout=0.1)
        await until(lambda: len(told) == 3)
        assert set(told) == {"stopped", "graceful", "cut off"}
        assert not server.running


async def test_callbacks_that_raise_are_contained(udp_nodes: Nodes, caplog: pytest.LogCaptureFixture) -> None:
    go_on = anyio.Event()
    async with udp_nodes() as (server, client):

        @server.on_session_established
        async def established(session: Session) -> None:
            await go_on.wait()
            raise RuntimeError("a bug in the callback")

        @client.on_session_closed
        def closed(session_id: bytes, reason: str) -> None:
            raise RuntimeError("another bug")

        session = await client.connect_udp(LOOPBACK, server.port)
        go_on.set()
        assert await session.wait_closed() == "error"
        await until(lambda: client.get_stats().handler_errors)
        assert server.get_stats().handler_errors == client.get_stats().handler_errors == 1
        assert "a bug in the callback" in caplog.text
        assert "another bug" in caplog.text


async def test_events_can_be_iterated_over(udp_nodes: Nodes) -> None:
    async with udp_nodes() as (server, client):
        ours, theirs = client.events(), server.events()
        session = await client.connect_udp(LOOPBACK, server.port)
        await session.open_stream().send(b"not an event here")
        await session.close()
        steps: list[Any] = []
        async for each, event in ours:
            assert each is session
            steps.append(event)
            if isinstance(event, SessionClosed):
                break
        assert [event.step for event in steps if isinstance(event, HandshakeProgressed)] == [
            "hello",
            "challenge",
            "auth_proof",
            "final",
        ]
        assert [event for event in steps if isinstance(event, SessionEstablished)]
        async with STTNode(shared_seed="another seed", host=LOOPBACK) as stranger:
            with pytest.raises(AuthenticationError):
                await stranger.connect_udp(LOOPBACK, server.port)
        async for each, event in theirs:
            if isinstance(event, HandshakeFailed):
                assert (each, event.reason) == (None, "auth_failure")
                break


async def test_a_peer_that_vanishes_is_noticed(udp_nodes: Nodes) -> None:
    """K-5, M-9."""
    quick = {"keep_alive_interval": 0.05, "keep_alive_timeout": 0.2, "detach_timeout": 0.1}
    async with STTNode(shared_seed="x", host=LOOPBACK, **quick) as client:
        server = STTNode(shared_seed="x", host=LOOPBACK, server_mode=True, **quick)
        await server.start()
        session = await client.connect_udp(LOOPBACK, server.port)
        stream = session.open_stream()
        server.driver.close()  # it says nothing any more
        with pytest.raises(SessionTimeoutError) as caught:
            await stream.receive()
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value, anyio.BrokenResourceError)
        assert session.close_reason == "timeout"
        assert client.get_stats().closed["timeout"] == 1
        await server.stop(timeout=0.01)


# -- what nobody claims --------------------------------------------------------------------------------------------


async def test_receive_takes_what_nobody_claims(udp_nodes: Nodes) -> None:
    async with udp_nodes() as (server, client):
        early = await client.connect_udp(LOOPBACK, server.port)
        stream = early.open_stream()
        await stream.send(b"before anybody asked", timeout=5)
        packets = server.receive()
        assert await anext(packets) == ReceivedPacket(early.session_id, 0, b"before anybody asked")

        claiming = await client.connect_udp(LOOPBACK, server.port)
        theirs = server.sessions[claiming.session_id]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(theirs.accept_stream)
            await anyio.wait_all_tasks_blocked()
            await claiming.open_stream().send(b"claimed", timeout=5)
        await claiming.open_stream().send(b"claimed too", timeout=5)

        answer = server.sessions[early.session_id].open_stream()  # one's own are never taken
        await answer.send(b"x")
        await (await early.accept_stream()).send(b"to the one who opened it", timeout=5)

        await stream.send(bytes(100_000))
        await stream.send_eof()
        size = 0
        while size < 100_000:
            packet = await anext(packets)
            assert packet.session_id == early.session_id
            size += len(packet.data)
        await early.open_stream().send(b"on another")
        assert (await anext(packets)).stream_id == 4
        assert await answer.receive() == b"to the one who opened it"
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()  # which was closed when it ended, since nobody wanted to answer


async def test_what_receive_took_can_be_answered(udp_nodes: Nodes) -> None:
    async with udp_nodes() as (server, client), anyio.create_task_group() as tasks:

        async def answer() -> None:
            async for packet in server.receive():
                session = server.get_session(packet.session_id)
                stream = session.get_stream(packet.stream_id) if session is not None else None
                if stream is not None:
                    await stream.send(packet.data.upper())
                    await stream.send_eof()

        tasks.start_soon(answer)
        session = await client.connect_udp(LOOPBACK, server.port)
        stream = session.open_stream()
        await stream.send(b"question")
        await stream.send_eof()
        assert b"".join([piece async for piece in stream]) == b"QUESTION"
        broken = session.open_stream()
        await broken.send(b"x")
        assert await broken.receive() == b"X"
        broken.reset(1)
        await session.open_stream().send(b"y")
        session.abort()
        tasks.cancel_scope.cancel()


async def test_what_ended_sessions_left_is_bounded(udp_nodes: Nodes) -> None:
    async with udp_nodes(max_concurrent_sessions=2) as (server, client):
        packets = server.receive()
        for number in range(4):
            async with await client.connect_udp(LOOPBACK, server.port) as session:
                await session.open_stream().send(b"%d" % number, timeout=5)
            await until(lambda: not server.sessions)
        assert [(await anext(packets)).data for _ in range(2)] == [b"2", b"3"]
        resetting = await client.connect_udp(LOOPBACK, server.port)
        stream = resetting.open_stream()
        await stream.send(b"x")
        assert (await anext(packets)).data == b"x"
        stream.reset(1)
        await resetting.open_stream().send(b"y")
        assert (await anext(packets)).data == b"y"
        claimed = server.sessions[resetting.session_id]
        await resetting.open_stream().send(b"not for receive")
        await until(lambda: claimed.incoming)
        assert await (await claimed.accept_stream()).receive() == b"not for receive"
        await (await client.connect_udp(LOOPBACK, server.port)).open_stream().send(b"z")
        assert (await anext(packets)).data == b"z"


async def test_sessions_that_nobody_accepts_are_forgotten(udp_nodes: Nodes) -> None:
    async with udp_nodes(max_concurrent_sessions=2) as (server, client):
        for listening in (False, True):
            for _ in range(4):
                await (await client.connect_udp(LOOPBACK, server.port)).close()
                await until(lambda: not server.sessions)
            assert len(server._backlog) == (2 if listening else 0)
            if not listening:
                with anyio.move_on_after(0.01):
                    await server.accept()
        assert (await server.accept()).is_closed


async def test_streams_that_are_over_are_forgotten(sessions: Sessions) -> None:
    async with sessions() as (ours, theirs):
        for finish_first in (True, False):
            stream = ours.open_stream()
            await stream.send(b"x")
            peer = await theirs.accept_stream()
            for each in (peer, stream) if finish_first else (stream, peer):
                await each.send_eof()
                await each.flush()
            assert await peer.receive() == b"x"
            for each in (stream, peer):
                with pytest.raises(anyio.EndOfStream):
                    await each.receive()
        await until(lambda: not ours.streams and not theirs.streams)


async def test_what_nobody_receives_is_bounded(udp_nodes: Nodes) -> None:
    """Flow control holds the sender up, whoever does not read."""
    async with udp_nodes(stream_recv_buffer=65_536, session_recv_buffer=65_536) as (server, client):
        session = await client.connect_udp(LOOPBACK, server.port)
        stream = session.open_stream()
        server.receive()
        with pytest.raises(TimeoutError):
            await stream.send(bytes(1 << 20), timeout=0.1)
        assert stream.bytes_acknowledged <= 65_536
        session.abort()


async def test_no_more_is_taken_than_half_of_what_the_socket_holds(udp_nodes: Nodes) -> None:
    """S-13: however large the window is that was asked for, the one announced fits into the buffer that was granted."""
    async with udp_nodes(recv_buffer_size=65_536) as (server, client):
        session = await client.connect_udp(LOOPBACK, server.port)
        stream = session.open_stream()
        with pytest.raises(TimeoutError):
            await stream.send(bytes(1 << 19), timeout=0.1)
        assert 32_768 <= stream.bytes_acknowledged <= next(server._udp_sockets()).granted // 2
        session.abort()


# -- broadcast -----------------------------------------------------------------------------------------------------


async def test_broadcast_tells_who_got_it(udp_nodes: Nodes) -> None:
    small = {"stream_recv_buffer": 65_536, "session_recv_buffer": 65_536}
    async with udp_nodes(**small) as (server, client):
        quick, stuck, closed = [await client.connect_udp(LOOPBACK, server.port) for _ in range(3)]
        await until(lambda: len(server.sessions) == 3)
        with anyio.move_on_after(0.1):
            await server.sessions[stuck.session_id].open_stream().send(bytes(1 << 22))
        await closed.close()

        async def hear() -> bytes:
            stream = await quick.accept_stream()
            return b"".join([piece async for piece in stream])

        async def check() -> None:
            assert await hear() == bytes(100_000)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(check)
            got = await server.send_to_all(bytes(100_000), timeout=0.5)
        assert got.acknowledged == (quick.session_id,)
        assert got.queued == (stuck.session_id,)
        assert list((await server.send_to_sessions([b"nobody.."], b"x")).failed) == [b"nobody.."]
        with pytest.raises(ArgumentError):
            await server.send_to_sessions(quick.session_id, b"x")  # type: ignore[arg-type]
        with pytest.raises(ArgumentError):
            await server.send_to_all("text")  # type: ignore[arg-type]
        for text in (b"one", b"two"):
            got = await server.send_to_sessions([quick.session_id], text, stream_id=9)
            assert got.acknowledged == (quick.session_id,)
        stream = await quick.accept_stream()
        assert (stream.stream_id, await stream.receive(6)) == (9, b"onetwo")
        stuck.abort()


# -- statistics, datagrams, streams to a peer ----------------------------------------------------------------------


async def test_statistics_are_true_without_anybody_recording(udp_nodes: Nodes) -> None:
    async with udp_nodes() as (server, client):
        session = await client.connect_udp(LOOPBACK, server.port)
        stream = session.open_stream()
        await stream.send(bytes(50_000), timeout=5)
        stats = session.get_stats()
        assert stats.stream_bytes_sent == 50_000 < stats.bytes_sent
        assert stats.packets_sent > 0
        assert stats.rtt is not None
        names = ("session_id", "peer_node_id", "state", "created_at", "uptime", "bytes_sent", "bytes_received")
        names += ("packets_sent", "packets_received", "send_errors", "receive_errors", "rtt", "loss_rate")
        assert set(names) <= set(session.get_statistics())
        before = client.get_transport_stats()
        assert before.bytes_sent >= stats.bytes_sent
        assert before.rtt is not None
        assert 0 <= before.loss_rate <= 1
        await session.close()
        after = client.get_transport_stats()
        assert after.bytes_sent >= before.bytes_sent
        assert after.rtt is None
        node = client.get_stats()
        assert (node.active, node.established, node.closed["graceful"]) == (0, 1, 1)


async def test_datagrams(sessions: Sessions) -> None:
    async with sessions() as (ours, theirs):
        ours.send_datagram(b"one")
        assert await theirs.receive_datagram() == b"one"
        for wrong in (bytes(70_000), "text", 5):
            with pytest.raises(ArgumentError):
                ours.send_datagram(wrong)  # type: ignore[arg-type]
        assert 1000 < ours.max_datagram_size < 65_536
        here, there = ours.datagrams, theirs.datagrams
        await here.send(b"two")
        assert await there.receive() == b"two"
        assert here.extra(SttAttribute.session) is ours
        await here.aclose()
        for call in (lambda: here.send(b"x"), here.receive):
            with pytest.raises(anyio.ClosedResourceError):
                await call()
        await ours.close()
        with pytest.raises(anyio.EndOfStream):
            await there.receive()
        with pytest.raises(SessionClosedError):
            await theirs.receive_datagram()
        with pytest.raises(anyio.ClosedResourceError):
            ours.send_datagram(b"x")
        with pytest.raises(anyio.ClosedResourceError):
            await ours.datagrams.receive()


async def test_a_broken_session_breaks_its_datagrams() -> None:
    async with memory_sessions() as (ours, theirs):
        ours.abort()
        with pytest.raises(anyio.BrokenResourceError):
            await theirs.datagrams.receive()


async def test_a_peer_can_be_dialled_as_anyio_dials(udp_nodes: Nodes) -> None:
    async with udp_nodes() as (server, client):
        target = client.connectable((LOOPBACK, server.port), server.node_id, purpose="web")
        await target.aclose()
        streams = [await target.connect() for _ in range(2)]
        assert streams[0].session is streams[1].session
        await streams[0].send(b"x")
        assert (await (await server.accept()).accept_stream()).purpose == "web"
        await streams[0].session.close()
        again = await target.connect()
        assert again.session is not streams[0].session
        await target.aclose()
        assert again.session.is_closed
        with pytest.raises(anyio.ConnectionFailed):
            await client.connectable((LOOPBACK, server.port), client.node_id).connect()


# -- the end of a session ------------------------------------------------------------------------------------------


async def test_close_delivers_first_and_is_idempotent(sessions: Sessions) -> None:
    async with sessions() as (ours, theirs):
        stream = ours.open_stream()
        await stream.send(bytes(200_000))
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(ours.close)
            peer = await theirs.accept_stream()
            size = 0
            with contextlib.suppress(SessionClosedError):
                while True:
                    size += len(await peer.receive())
        assert size == 200_000
        assert (ours.close_reason, theirs.close_reason) == ("graceful", "graceful")
        await ours.close()


async def test_a_block_that_fails_closes_with_error(sessions: Sessions) -> None:
    async with sessions() as (ours, theirs):
        with pytest.raises(RuntimeError):
            async with ours:
                raise RuntimeError("a bug")
        assert await theirs.wait_closed() == "error"


async def test_a_cancelled_close_aborts(sessions: Sessions) -> None:
    async with sessions() as (ours, theirs):
        with anyio.CancelScope() as scope:
            async with ours:
                scope.cancel()
                await anyio.sleep_forever()
        assert ours.is_closed
        assert await theirs.wait_closed() == "error"


async def test_a_reset_reaches_through_a_closing_session() -> None:
    async with memory_nodes() as (one, two):
        session = await one.connect("two")
        stream = session.open_stream()
        await stream.send(b"x")
        peer = await (await two.accept()).accept_stream()
        stream.reset(3)
        await session.close()
        with pytest.raises(StreamClosedError):  # a reset takes what was not read with it
            await peer.receive()
