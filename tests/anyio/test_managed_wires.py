"""Managed sessions over real sockets, and without an event loop (F, G, H; S8, S9, S16 from end to end)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest

from stt_anyio import (
    BlockingNode,
    BlockingSession,
    ConfigError,
    Session,
    SessionClosedError,
    SessionExpiredError,
    ShuttingDownError,
    STTNode,
    TooManySessionsError,
)

pytestmark = pytest.mark.anyio
LIMIT = 20.0


async def dial(client: STTNode, server: STTNode, carrier: str, port: int) -> Session:
    if carrier == "udp":
        return await client.connect_udp("127.0.0.1", port)
    if carrier == "tcp":
        return await client.connect_tcp("127.0.0.1", port)
    return await client.connect_websocket(f"ws://127.0.0.1:{port}")


async def listen(server: STTNode, carrier: str) -> int:
    if carrier == "udp":
        return server.port
    listening = server.listen_tcp if carrier == "tcp" else server.listen_websocket
    return (await listening())[1]


async def echo(session: Session) -> None:
    async def answer(stream: Any) -> None:
        async with stream:
            async for piece in stream:
                await stream.send(piece)

    try:
        await session.serve(answer)
    except SessionClosedError:
        pass


async def say(session: Session, data: bytes) -> None:
    async with session.open_stream() as stream, anyio.create_task_group() as tasks:

        async def send() -> None:
            await stream.send(data)
            await stream.send_eof()

        tasks.start_soon(send)
        assert b"".join([piece async for piece in stream]) == data


@pytest.mark.parametrize("carrier", ["udp", "tcp", "websocket"])
async def test_lifetimes_limits_and_a_stop_over_real_sockets(carrier: str) -> None:
    """G2, G5, H3, H6, S9, S16: typed at the peer, whatever the carrier."""
    options: dict[str, Any] = {"shared_seed": "a seed", "host": "127.0.0.1"}
    with anyio.fail_after(LIMIT):
        async with (
            STTNode(server_mode=True, max_sessions_per_peer=2, **options) as server,
            STTNode(**options) as client,
            anyio.create_task_group() as tasks,
        ):
            port = await listen(server, carrier)
            tasks.start_soon(server.serve, echo)
            short = await dial(client, server, carrier, port)
            await say(short, b"a word")
            long = await dial(client, server, carrier, port)
            await say(long, bytes(200_000))
            with pytest.raises(TooManySessionsError):
                await dial(client, server, carrier, port)
            theirs = server.session_manager.get_session(short.session_id)
            assert theirs is not None
            theirs.configure(ttl=0.01)
            assert await short.wait_closed() == "timeout"
            assert short.ended().code == SessionExpiredError.code
            await say(long, bytes(200_000))
            assert server.session_manager.find_session_by_peer(client.node_id) == [server.sessions[long.session_id]]

            with server.sessions[long.session_id].track_request():
                with anyio.move_on_after(0.01):
                    await server.drain(60.0)
                with pytest.raises(ShuttingDownError):
                    await dial(client, server, carrier, port)
                assert long.is_active()
            assert await long.wait_closed() == "graceful"
            assert long.ended().code == ShuttingDownError.code
            assert (await server.drain(0.0)).is_over
            metrics = server.session_manager.metrics()
            assert (metrics.created, metrics.ended["expired"], metrics.ended["shutdown"]) == (2, 1, 1)
            tasks.cancel_scope.cancel()


# -- without an event loop -----------------------------------------------------------------------------------------


@contextmanager
def pair(**server: Any) -> Iterator[tuple[BlockingNode, BlockingSession, BlockingSession]]:
    """A client, its session, and the server's end of it; both nodes pump by themselves."""
    options: dict[str, Any] = {"shared_seed": "a seed", "host": "127.0.0.1", "background": True}
    with BlockingNode(server_mode=True, **server, **options) as two, BlockingNode(**options) as one:
        ours = one.session_manager.create_session(("127.0.0.1", two.port), two.node_id, metadata={"user": "ann"})
        yield one, ours, two.accept(LIMIT)


def test_every_call_without_an_event_loop() -> None:
    """F, G, H: the same names, and they wait."""
    with pair() as (client, ours, theirs):
        manager = client.session_manager
        assert manager.get_session(ours.session_id) is ours
        assert manager.list_sessions() == manager.get_active_sessions() == [ours]
        assert manager.find_session_by_peer(theirs.node.node_id) == [ours]
        assert ours.record is not None
        assert ours.record.metadata == {"user": "ann"}
        assert 3590 < ours.remaining_ttl <= 3600
        assert ours.extend(7200.0) == pytest.approx(7200.0)
        assert ours.configure(priority=1).config_version == 2
        assert ours.set_namespace("tenant").namespace == ours.namespace == "tenant"
        with pytest.raises(ConfigError):
            manager.create_session(("127.0.0.1", 9), config={"colour": "red"})
        with ours.track_request():
            assert manager.metrics().requests_in_flight == 1
        assert manager.rotate_all_keys(LIMIT) == [ours.session_id]
        assert ours.key_version == 1
        other = client.connect(("127.0.0.1", theirs.node.port))
        assert manager.get_session_count() == 2
        assert manager.close_session(ours.session_id, timeout=LIMIT)
        assert not manager.close_session(ours.session_id)
        assert manager.close_all_sessions(timeout=LIMIT) == 1
        assert other.is_closed
        assert (manager.get_stats().closed, manager.cleanup_closed_sessions(), manager.get_stats().total) == (2, 2, 0)
        assert manager.rotate_all_keys() == []


def test_expiry_without_an_event_loop() -> None:
    """G5: the thread that pumps sees to it."""
    with pair() as (_, ours, theirs):
        theirs.configure(ttl=0.01)
        assert ours.wait_closed(LIMIT) == theirs.wait_closed(LIMIT) == "timeout"
        assert ours.ended().code == SessionExpiredError.code  # type: ignore[attr-defined]


@pytest.mark.parametrize("work", ["ends", "goes on"])
def test_drained_without_an_event_loop(work: str) -> None:
    """H6, S16."""
    with pair() as (client, ours, theirs):
        server, began, done = theirs.node, threading.Event(), threading.Event()

        def request() -> None:
            with theirs.track_request():
                began.set()
                done.wait(LIMIT)

        worker = threading.Thread(target=request)
        worker.start()
        assert began.wait(LIMIT)
        drained = []
        draining = threading.Thread(target=lambda: drained.append(server.drain(LIMIT if work == "ends" else 0.05)))
        draining.start()
        while not server.session_manager.drain_status().is_draining:
            client.poll(0.001)
        with pytest.raises(ShuttingDownError):
            client.connect(("127.0.0.1", server.port))
        if work == "ends":
            assert ours.is_active()
            done.set()
        draining.join(LIMIT)
        assert ours.wait_closed(LIMIT) == "graceful"
        assert ours.ended().code == ShuttingDownError.code  # type: ignore[attr-defined]
        done.set()
        worker.join(LIMIT)
        assert (drained[0].sessions, server.session_manager.drain_status().is_over) == (0, True)
