"""`node.session_manager`, and what a session says of itself: on both loops, in virtual time (F, G, H)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stt_anyio import (
    ArgumentError,
    ConfigError,
    RateLimitedError,
    Session,
    SessionClosedError,
    SessionExpiredError,
    SessionNotFound,
    SessionState,
    SessionTimeoutError,
    ShuttingDownError,
    StateError,
    StreamClosedError,
    STTNode,
    TooManyRequestsError,
    TooManySessionsError,
    VersionConflictError,
)
from stt_anyio.memory import MemoryNetwork
from stt_proto.events import SessionEstablished
from tests.anyio.virtual import LOOPS, tasks_alive, virtual


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual(request.param)


SEED = b"s" * 16
EXPIRED, SHUTDOWN = SessionExpiredError.code, ShuttingDownError.code


@asynccontextmanager
async def nodes(client: dict[str, Any] | None = None, **server: Any) -> AsyncIterator[tuple[STTNode, STTNode]]:
    """A client, and a server that it reaches as "server"; the parameters are theirs."""
    network = MemoryNetwork()
    async with (
        STTNode(shared_seed=SEED, carriers=[network.carrier("server")], server_mode=True, **server) as two,
        STTNode(shared_seed=SEED, carriers=[network.carrier("client")], server_mode=True, **(client or {})) as one,
    ):
        yield one, two


@asynccontextmanager
async def sessions(client: dict[str, Any] | None = None, **server: Any) -> AsyncIterator[tuple[Session, Session]]:
    """The two ends of a session; the second is that of the server."""
    async with nodes(client, **server) as (one, two):
        ours = await one.connect("server")
        yield ours, await two.accept()


async def say(session: Session, data: bytes = b"hello") -> None:
    """Use a session: a stream of its own, there and back, to its end."""
    async with session.open_stream() as stream:
        await stream.send(data)
        await stream.send_eof()
        assert b"".join([piece async for piece in stream]) == data


async def echo(session: Session) -> None:
    async def answer(stream: Any) -> None:
        async with stream:
            async for piece in stream:
                await stream.send(piece)

    try:
        await session.serve(answer)
    except SessionClosedError:
        pass


# -- F: by their names ---------------------------------------------------------------------------------------------


async def test_every_call_of_the_manual() -> None:
    """F, G8, H5: they give the sessions themselves."""
    async with nodes() as (client, server):
        manager = client.session_manager
        assert (manager.list_sessions(), manager.get_session_count(), manager.get_stats().total) == ([], 0, 0)
        one = await manager.create_session("server", server.node_id, metadata={"user": "ann"}, config={"ttl": 60})
        two = await client.connect("server")
        assert manager.get_session(one.session_id) is one
        assert manager.has_session(two.session_id)
        assert not manager.has_session(b"unknown!")
        assert manager.get_session(b"unknown!") is None
        assert manager.list_sessions() == manager.get_active_sessions() == [one, two]
        assert manager.find_session_by_peer(server.node_id) == [one, two]
        assert manager.find_session_by_peer(client.node_id) == []
        assert manager.get_session_count() == 2
        assert one.record is not None
        assert (one.record.metadata, one.record.config.ttl, one.record.config_version) == ({"user": "ann"}, 60, 2)
        assert await manager.rotate_all_keys() == [one.session_id, two.session_id]
        assert (one.key_version, two.key_version) == (1, 1)

        assert await manager.close_session(one.session_id)
        assert not await manager.close_session(one.session_id)
        assert one.is_closed
        record = manager.inspect(one.session_id)
        assert record is not None
        assert record.close_reason == "graceful"
        stats = manager.get_stats()
        assert (stats.total, stats.active, stats.closing, stats.closed) == (2, 1, 0, 1)
        assert manager.cleanup_closed_sessions() == 1
        assert manager.inspect(one.session_id) is None
        assert (one.record, one.namespace, one.remaining_ttl) == (None, "", 0.0)

        assert await manager.close_all_sessions("error", "enough") == 1
        assert await manager.close_all_sessions() == 0
        assert server.session_manager.metrics().ended["error"] == 1
        metrics = manager.metrics()
        assert metrics.created == metrics.active + metrics.closing + sum(metrics.ended.values()) == 2


async def test_of_a_node_that_does_not_run() -> None:
    """F: before it was started there is nothing; after it was stopped, what was."""
    network = MemoryNetwork()
    server = STTNode(shared_seed=SEED, carriers=[network.carrier("server")], server_mode=True)
    client = STTNode(shared_seed=SEED, carriers=[network.carrier("client")])
    assert client.session_manager.get_stats().total == 0
    with pytest.raises(StateError):
        await client.drain()
    async with server, client:
        session = await client.connect("server")
    assert client.session_manager.get_stats().closed == 1
    assert session.remaining_ttl == 0.0
    with pytest.raises(SessionNotFound):
        session.extend(60.0)


async def test_nothing_is_dialled_with_a_configuration_that_is_none() -> None:
    """G6."""
    async with nodes() as (client, server):
        for wrong in ({"config": {"ttl": 0, "colour": "red"}}, {"namespace": 7}, {"metadata": {"key": object()}}):
            with pytest.raises(ArgumentError):
                await client.session_manager.create_session("server", **wrong)  # type: ignore[arg-type]
        assert server.session_manager.metrics().created == 0


async def test_clean_up_happens_by_itself() -> None:
    """F: what is over is forgotten after five minutes."""
    async with sessions() as (ours, theirs):
        await ours.close()
        await theirs.wait_closed()
        await anyio.sleep(299.0)
        assert ours.node.session_manager.get_stats().closed == 1
        await anyio.sleep(2.0)
        assert ours.node.session_manager.core.next_deadline() is None


# -- G: lifetimes --------------------------------------------------------------------------------------------------


async def test_a_session_lives_for_an_hour_after_its_last_use() -> None:
    """G1, G2: signs of life are no use, and nothing that looks is."""
    async with sessions() as (ours, theirs), anyio.create_task_group() as tasks:
        tasks.start_soon(echo, theirs)
        assert ours.remaining_ttl == pytest.approx(3600.0, abs=1.0)
        await anyio.sleep(3000.0)
        await say(ours)
        used = anyio.current_time()
        assert ours.remaining_ttl == theirs.remaining_ttl == 3600.0
        await anyio.sleep(3599.0)
        for look in ("list_sessions", "get_active_sessions", "get_stats", "metrics", "drain_status"):
            getattr(ours.node.session_manager, look)()
        assert ours.record is not None
        assert ours.remaining_ttl == pytest.approx(1.0)
        assert await ours.wait_closed() == await theirs.wait_closed() == "timeout"
        assert anyio.current_time() == pytest.approx(used + 3600.0, abs=0.1)


async def test_expiry_is_typed_on_both_sides() -> None:
    """G5: the code says that it expired, and so do the records; nothing works on it any more."""
    async with sessions(session_ttl=10.0, session_sliding=False) as (ours, theirs):
        assert await ours.wait_closed() == await theirs.wait_closed() == "timeout"
        for session in (ours, theirs):
            with pytest.raises(SessionClosedError) as caught:
                session.open_stream()
            assert (caught.value.code, caught.value.reason) == (EXPIRED, "timeout")
            for late in (lambda s=session: s.extend(60.0), lambda s=session: s.configure(ttl=60.0)):
                with pytest.raises(SessionExpiredError):
                    late()
            with pytest.raises(SessionExpiredError):
                async with session.track_request():
                    raise AssertionError("never")
            assert session.record is not None
            assert session.record.close_reason == "expired"
            assert not session.node.session_manager.has_session(session.session_id)
        with pytest.raises(SessionTimeoutError):
            ours.open_stream()


async def test_extended() -> None:
    """G4: no later use makes it less."""
    async with sessions(session_ttl=10.0) as (ours, theirs), anyio.create_task_group() as tasks:
        tasks.start_soon(echo, theirs)
        begun = anyio.current_time()
        assert theirs.extend(100.0) == pytest.approx(100.0)
        await say(ours)
        assert theirs.remaining_ttl == pytest.approx(100.0, abs=0.1)
        assert theirs.extend(5.0) == pytest.approx(100.0, abs=0.1)
        with pytest.raises(ArgumentError):
            theirs.extend(0)
        await ours.wait_closed()
        assert anyio.current_time() == pytest.approx(begun + 100.0, abs=0.1)


async def test_configured_while_it_goes_on() -> None:
    """G6: all of it or nothing, every wrong parameter named, and by version."""
    async with sessions() as (_, theirs):
        record = theirs.configure(ttl=60.0, max_requests=1, priority=0)
        assert (record.config.ttl, record.config.max_requests, record.config_version) == (60.0, 1, 2)
        with pytest.raises(ConfigError) as caught:
            theirs.configure(ttl=-1, colour="red", max_requests=5)
        assert set(caught.value.arguments) == {"ttl", "colour"}
        with pytest.raises(VersionConflictError):
            theirs.configure(if_version=1, ttl=10.0)
        assert theirs.record is not None
        assert (theirs.record.config, theirs.record.config_version) == (record.config, 2)
        await anyio.sleep(25.0)
        theirs.configure(if_version=2, ttl=28.0)  # and the timer knows
        expires = anyio.current_time() + theirs.remaining_ttl
        await theirs.wait_closed()
        assert anyio.current_time() == pytest.approx(expires, abs=0.1)


async def test_namespaces() -> None:
    """G7, H3: told from the peer, by `create_session`, or later; apart whatever they are called."""
    network = MemoryNetwork()
    seeds = {name: name.encode() * 32 for name in "ab"}
    async with (
        STTNode(
            shared_seed=SEED,
            carriers=[network.carrier("server")],
            server_mode=True,
            namespace_of=lambda peer: f"tenant-{peer.hex()}",
            max_sessions_per_namespace=1,
        ) as server,
        STTNode(seeds["a"], SEED, carriers=[network.carrier("a")], max_sessions_per_namespace=1) as one,
        STTNode(seeds["b"], SEED, carriers=[network.carrier("b")]) as two,
    ):
        first = await one.session_manager.create_session("server", namespace="x-y")
        second = await two.connect("server")
        theirs = [await server.accept(), await server.accept()]
        assert (first.namespace, second.namespace) == ("x-y", "")
        assert theirs[0].namespace == f"tenant-{one.node_id.hex()}"
        with pytest.raises(TooManySessionsError):
            await one.connect("server")
        assert server.session_manager.get_active_sessions(theirs[0].namespace) == [theirs[0]]
        with pytest.raises(TooManySessionsError) as caught:
            theirs[1].set_namespace(theirs[0].namespace)
        assert caught.value.scope == "namespace"
        theirs[1].set_namespace("x_y")
        assert server.session_manager.get_active_sessions("x_y") == [theirs[1]]
        assert server.session_manager.get_active_sessions("x-y") == []


async def test_no_room_in_the_namespace_of_a_new_session() -> None:
    """G7, H3: it is ended, and the caller told."""
    async with nodes({"max_sessions_per_namespace": 1}) as (client, server):
        await client.session_manager.create_session("server", namespace="tenant")
        with pytest.raises(TooManySessionsError):
            await client.session_manager.create_session("server", namespace="tenant")
        await anyio.sleep(1.0)
        assert client.session_manager.get_session_count() == server.session_manager.get_session_count() == 1


# -- H: work in progress -------------------------------------------------------------------------------------------


async def test_a_request_holds_a_session() -> None:
    """H1, H2: however it ends; with a stream just so; and then it is over."""
    async with sessions(session_ttl=10.0, session_sliding=False) as (ours, theirs):
        async with theirs.track_request():
            await anyio.sleep(20.0)
            assert theirs.record is not None
            assert (theirs.record.requests, str(theirs.record.close_reason)) == (1, "expired")
            assert ours.is_active()
            manager = theirs.node.session_manager
            assert (manager.get_session(theirs.session_id), manager.list_sessions()) == (None, [theirs])
            with pytest.raises(SessionExpiredError):
                theirs.open_stream()
        assert theirs.state is SessionState.CLOSING  # at once
        assert await ours.wait_closed() == "timeout"

    async with sessions(session_ttl=10.0) as (ours, theirs):
        stream = ours.open_stream()
        await stream.send(b"long")
        await anyio.sleep(1000.0)
        assert theirs.record is not None
        assert (theirs.record.streams, theirs.is_active()) == (1, True)
        peer = await theirs.accept_stream()
        assert await peer.receive() == b"long"
        await peer.aclose()
        await stream.send_eof()
        assert [piece async for piece in stream] == []
        ended = anyio.current_time()
        await ours.wait_closed()
        assert anyio.current_time() == pytest.approx(ended + 10.0, abs=0.1)


async def test_requests_end_once_however_they_end() -> None:
    """H1, S6."""
    async with sessions() as (ours, _):
        manager = ours.node.session_manager
        with pytest.raises(ZeroDivisionError):
            async with ours.track_request():
                raise ZeroDivisionError
        with anyio.move_on_after(1.0):
            async with ours.track_request():
                await anyio.sleep(10.0)
        with ours.track_request() as request:
            await ours.close()
            assert manager.metrics().requests_in_flight == 1
        with pytest.raises(StateError), request:
            raise AssertionError("never")
        metrics = manager.metrics()
        assert (metrics.requests_begun, metrics.requests_ended, metrics.requests_failed) == (3, 3, 2)


async def test_limits() -> None:
    """H3: the one too many gets a typed error, and nothing else changes."""
    async with sessions(max_requests_per_session=1, max_sessions_per_peer=1) as (ours, theirs):
        async with theirs.track_request():
            with pytest.raises(TooManyRequestsError) as caught:
                theirs.track_request().__enter__()
            assert caught.value.scope == "session"
        async with theirs.track_request():
            pass
        with pytest.raises(TooManySessionsError):
            await ours.node.connect("server")
        assert theirs.node.session_manager.metrics().refused == {
            "sessions": 0,
            "peer": 1,
            "namespace": 0,
            "shutdown": 0,
            "requests": 1,
            "requests_in_all": 0,
            "rate": 0,
        }
        assert (ours.is_active(), theirs.is_active()) == (True, True)


async def test_a_limit_of_the_own_node() -> None:
    """H3: `connect` raises, nobody is told of a session, and nothing is left of it."""
    async with nodes({"max_sessions_per_peer": 1}) as (client, server):
        told: list[Session] = []
        client.on_session_established(told.append)
        events = client.events()
        session = await client.connect("server")
        with pytest.raises(TooManySessionsError):
            await client.connect("server")
        await anyio.sleep(1.0)
        assert told == client.session_manager.list_sessions() == [session]
        assert len(server.sessions) == 1
        await client.stop()
        established = [each async for each, event in events if isinstance(event, SessionEstablished)]
        assert established == [session]


async def test_rate_and_priority() -> None:
    """H8, H9: requests that come too fast are told when to come; the urgent find room when there is much to do."""
    async with sessions(max_requests=8) as (ours, theirs):
        theirs.configure(request_rate=2.0, request_burst=1)
        with theirs.track_request():
            pass
        with pytest.raises(RateLimitedError) as caught:
            theirs.track_request().__enter__()
        assert caught.value.retry_after == pytest.approx(0.5, abs=0.01)
        await anyio.sleep(caught.value.retry_after)
        with theirs.track_request():
            pass

        theirs.configure(request_rate=None, priority=7)
        manager = theirs.node.session_manager
        held = [manager.core.begin_request(theirs.session_id, manager.now) for _ in range(4)]
        with pytest.raises(TooManyRequestsError) as refused:
            theirs.track_request().__enter__()
        assert refused.value.scope == "all"
        theirs.configure(priority=0)
        with theirs.track_request():
            pass
        for token in held:
            manager.core.end_request(token, manager.now)
        assert ours.is_active()


async def test_keys_are_replaced_in_time_or_later() -> None:
    """F, C4: a session that ends meanwhile is left out."""
    async with sessions() as (ours, _):
        manager = ours.node.session_manager
        with pytest.raises(TimeoutError):
            await manager.rotate_all_keys(timeout=0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ours.close)
            assert await manager.rotate_all_keys() in ([], [ours.session_id])
        assert await manager.rotate_all_keys() == []


# -- S9: others are not concerned ----------------------------------------------------------------------------------


def seen(session: Session) -> Any:
    """What is to be seen of a session, but for its clocks and its traffic."""
    record = session.record
    assert record is not None
    return (record.peer_node_id, record.namespace, record.state, record.config, record.config_version, record.metadata)


@given(
    st.lists(st.sampled_from(["live", "graceful", "timeout", "error", "auth_failure", "expired", "abort"]), max_size=6)
)
@settings(max_examples=15, deadline=None)
async def test_the_end_of_some_is_nothing_to_the_others(ends: list[str]) -> None:
    """H4, S9: what ends in any way leaves the others as they were, found by all names, and at work."""
    async with nodes(max_sessions_per_peer=6) as (client, server), anyio.create_task_group() as tasks:
        pairs = []
        for number, _ in enumerate(ends):
            ours = await client.session_manager.create_session("server", metadata={"number": number})
            pairs.append((ours, await server.accept()))
            tasks.start_soon(echo, pairs[-1][1])
        before = {pair: tuple(map(seen, pair)) for pair in pairs}
        live = [pair for pair, end in zip(pairs, ends, strict=True) if end == "live"]
        for (ours, theirs), end in zip(pairs, ends, strict=True):
            match end:
                case "live":
                    continue
                case "expired":
                    theirs.configure(ttl=0.001)
                case "abort":
                    ours.abort()
                case _:
                    theirs.begin_close(end)
        await anyio.sleep(5.0)
        for pair in live:
            assert tuple(map(seen, pair)) == before[pair]
            await say(pair[0], os.urandom(100_000))
        for node, end in ((client, 0), (server, 1)):
            manager = node.session_manager
            assert manager.list_sessions() == [pair[end] for pair in live]
            assert manager.find_session_by_peer((server, client)[end].node_id) == [pair[end] for pair in live]
            assert all(manager.get_session(pair[end].session_id) is pair[end] for pair in live)
            metrics = manager.metrics()
            assert metrics.created == len(ends) == metrics.active + sum(metrics.ended.values())
            assert metrics.ended["expired"] == ends.count("expired")
            for pair, what in zip(pairs, ends, strict=True):
                if what != "live":
                    assert not await manager.close_session(pair[end].session_id)
                    assert (pair[end].core.open_streams, len(pair[end].streams)) == (0, 0)
            assert manager.metrics() == metrics
        tasks.cancel_scope.cancel()


# -- S16: to a stop ------------------------------------------------------------------------------------------------


async def test_drained() -> None:
    """H6, S16: refused at once, waited for until the deadline, and nothing is left."""
    async with nodes() as (client, server):
        before = tasks_alive()
        idle, quick, slow = [await client.connect("server") for _ in range(3)]
        theirs = {each.session_id: each for each in [await server.accept() for _ in range(3)]}
        stream = slow.open_stream()
        await stream.send(b"work")
        begun = anyio.current_time()

        async def work() -> None:
            async with theirs[quick.session_id].track_request():
                await anyio.sleep(10.0)

        async def drain() -> None:
            status = await server.drain(60.0)
            assert (status.is_over, status.sessions, status.requests) == (True, 0, 0)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            await anyio.sleep(1.0)
            tasks.start_soon(drain)
            await anyio.sleep(1.0)
            assert (idle.is_closed, quick.is_active(), slow.is_active()) == (True, True, True)
            assert server.session_manager.drain_status().is_draining
            with pytest.raises(ShuttingDownError):
                await client.connect("server")
            with pytest.raises(ShuttingDownError):
                await server.connect("client")
            with pytest.raises(ShuttingDownError), theirs[quick.session_id].track_request():
                raise AssertionError("never")
            with pytest.raises(ShuttingDownError):
                theirs[slow.session_id].open_stream()
            late = slow.open_stream()
            await late.send(b"late")
            with pytest.raises(StreamClosedError) as caught:
                await late.receive()
            assert caught.value.stream_code == SHUTDOWN
            await quick.wait_closed()
            assert anyio.current_time() == pytest.approx(begun + 10.0, abs=1.0)
            assert slow.is_active()
        assert anyio.current_time() == pytest.approx(begun + 61.0, abs=1.0)
        await slow.wait_closed()
        for session in (idle, quick, slow):
            assert session.close_reason == "graceful"
            assert session.ended().code == SHUTDOWN
        assert server.session_manager.metrics().ended["shutdown"] == 3
        assert client.session_manager.metrics().ended["shutdown"] == 3
        await anyio.sleep(20.0)
        assert tasks_alive() == before
        with pytest.raises(ShuttingDownError):
            await client.connect("server")
        await server.stop()
        await server.start()
        await client.connect("server")


async def test_a_drain_that_is_asked_for_again_only_comes_nearer() -> None:
    """H6."""
    async with sessions() as (ours, theirs):
        await ours.open_stream().send(b"work")
        await anyio.sleep(1.0)
        begun = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(theirs.node.drain, 60.0)
            await anyio.sleep(1.0)
            await theirs.node.drain(5.0)
        assert anyio.current_time() == pytest.approx(begun + 6.0, abs=0.5)
        with pytest.raises(ArgumentError):
            await theirs.node.drain(-1)


# -- S15: a client that comes back ---------------------------------------------------------------------------------


async def test_a_client_whose_session_expires_comes_back_as_it_was() -> None:
    """G9, S15: at most one new session for each that expired, prepared anew; each request is done once, or told of."""
    async with nodes(session_ttl=5.0) as (client, server), anyio.create_task_group() as tasks:
        done: list[bytes] = []
        prepared: list[Session] = []

        async def answer(stream: Any) -> None:
            async with stream:
                request = b"".join([piece async for piece in stream])
                done.append(request)
                await stream.send(request.upper())

        async def welcome(session: Session) -> None:
            await session.serve(answer)

        async def prepare(session: Session) -> None:
            session.configure(priority=1)
            prepared.append(session)

        tasks.start_soon(server.serve, welcome)
        async with client.reconnecting("server", prepare=prepare) as back:
            for number in range(4):
                word = f"word {number}".encode()
                assert await back.request(word) == word.upper()
                assert len(prepared) == number + 1
                assert prepared[-1].record is not None
                assert prepared[-1].record.config.priority == 1
                await prepared[-1].wait_closed()
                assert prepared[-1].ended().code == EXPIRED
        assert done == [b"word 0", b"word 1", b"word 2", b"word 3"]
        assert server.session_manager.metrics().created <= 5
        tasks.cancel_scope.cancel()
