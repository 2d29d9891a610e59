"""Patterns around a node: pool, health, requests, affinity, in virtual time (MISSION J, H4, I1)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from stt_anyio import (
    AnswerPolicy,
    HealthPolicy,
    NotSentError,
    OutcomeUnknownError,
    PoolMissError,
    Request,
    RequestRefused,
    Session,
    SessionClosedError,
    SessionPool,
    StreamClosedError,
    STTNode,
    TooManySessionsError,
)
from stt_anyio.errors import ArgumentError, BufferOverflowError, ConnectionTimeoutError, StateError
from stt_anyio.requests import (
    REQUEST_FAILED,
    REQUEST_ONE_WAY,
    REQUEST_REFUSED,
    REQUEST_TIMED_OUT,
    REQUEST_TOO_LONG,
    Handler,
)
from tests.anyio.virtual import LOOPS, Town, virtual


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual(request.param)


@asynccontextmanager
async def answering(
    handler: Handler, policy: AnswerPolicy | None = None, **options: Any
) -> AsyncIterator[tuple[STTNode, STTNode]]:
    town = Town()
    async with (
        town.node("server", **options) as server,
        town.node("client") as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(server.answer, handler, policy)
        yield server, client
        tasks.cancel_scope.cancel()


# -- requests ----------------------------------------------------------------------------------------------------------


async def shout(request: Request) -> bytes:
    return request.data.upper()


async def test_requests_are_answered() -> None:
    async with answering(shout) as (server, client):
        session = await client.connect("server")
        assert await session.request(b"who is there?") == b"WHO IS THERE?"
        assert await session.request(b"") == b""
        big = bytes(range(97, 123)) * 30_000
        assert await session.request(big, timeout=60) == big.upper()
        with pytest.raises(BufferOverflowError):
            await session.request(big, max_size=100)
        with pytest.raises(ArgumentError):
            await session.request("text")  # type: ignore[arg-type]
        await anyio.sleep(1)
        assert not server.sessions[session.session_id].streams


async def test_both_sides_may_ask() -> None:
    town = Town()
    async with town.node("a") as one, town.node("b") as other, anyio.create_task_group() as tasks:
        ours = await one.connect("b")
        theirs = await other.accept()
        tasks.start_soon(ours.answer, shout)
        tasks.start_soon(theirs.answer, shout)
        assert (await ours.request(b"one"), await theirs.request(b"two")) == (b"ONE", b"TWO")
        tasks.cancel_scope.cancel()


async def test_a_handler_that_raises_or_refuses() -> None:
    """That one request is refused with a code; the session, and all other requests, go on."""

    async def handler(request: Request) -> Any:
        match request.data:
            case b"raise":
                raise ValueError("secret")
            case b"refuse":
                raise RequestRefused(77)
            case b"text":
                return "no bytes"
        return request.purpose.encode()

    async with answering(handler) as (server, client):
        session = await client.connect("server")
        for data, code in ((b"raise", REQUEST_FAILED), (b"refuse", 77), (b"text", REQUEST_FAILED)):
            with pytest.raises(StreamClosedError) as caught:
                await session.request(data)
            assert caught.value.stream_code == code
        assert await session.request(b"", purpose="word") == b"word"
        assert server.get_stats().handler_errors == 2


async def test_answers_are_work_in_flight() -> None:
    """H1, H8: each is tracked, and one that comes too fast is refused with a code."""
    seen: list[int] = []

    async def handler(request: Request) -> bytes:
        seen.append(request.session.record.requests)
        await anyio.sleep(1.0)
        return b"done"

    async with answering(handler) as (server, client):
        session = await client.connect("server")
        assert await session.request(b"") == b"done"
        theirs = server.sessions[session.session_id]
        assert (seen, theirs.record.requests) == ([1], 0)
        theirs.configure(request_rate=0.1, request_burst=1)
        assert await session.request(b"") == b"done"
        with pytest.raises(StreamClosedError) as caught:
            await session.request(b"")
        assert caught.value.stream_code == REQUEST_REFUSED
        assert len(seen) == 2


async def test_a_handler_that_never_returns_is_cancelled_in_time() -> None:
    cancelled: list[bytes] = []

    async def handler(request: Request) -> bytes:
        if request.data == b"quick":
            return b"done"
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(request.data)

    async with answering(handler, AnswerPolicy(timeout=5.0)) as (server, client):
        session = await client.connect("server")
        began = anyio.current_time()
        with pytest.raises(StreamClosedError) as caught:
            await session.request(b"stuck")
        assert caught.value.stream_code == REQUEST_TIMED_OUT
        assert 5.0 <= anyio.current_time() - began < 6.0
        with pytest.raises(OutcomeUnknownError) as unknown:
            await session.request(b"impatient", timeout=1.0)
        assert isinstance(unknown.value, TimeoutError)
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                with pytest.raises(OutcomeUnknownError):
                    await session.request(b"lost")

            tasks.start_soon(ask)
            await anyio.sleep(1.0)
            server.sessions[session.session_id].abort()
        await anyio.sleep(1.0)  # long before their time is over: who would have the answer?
        assert set(cancelled) == {b"stuck", b"impatient", b"lost"}
        with pytest.raises(NotSentError):
            await session.request(b"late")


async def test_who_stops_answering_in_the_middle_says_so() -> None:
    """Nobody takes the half of an answer, or none, for the whole."""

    async def handler(request: Request) -> bytes:
        if request.data == b"much":
            return bytes(20 << 20)
        await anyio.sleep_forever()
        return b""

    town = Town()
    async with town.node("server") as server, town.node("client") as client, anyio.create_task_group() as tasks:
        answers = anyio.CancelScope()

        async def answer() -> None:
            with answers:
                await server.answer(handler)

        tasks.start_soon(answer)
        session = await client.connect("server")
        lost: list[bytes] = []

        async def ask(data: bytes) -> None:
            with pytest.raises(StreamClosedError) as caught:
                await session.request(data)
            assert caught.value.stream_code == REQUEST_FAILED
            lost.append(data)

        stream = session.open_stream()
        await stream.send(b"much")
        await stream.send_eof()
        tasks.start_soon(ask, b"nothing")
        await anyio.sleep(1.0)
        answers.cancel()
        with pytest.raises(StreamClosedError):
            _ = [piece async for piece in stream]
        await anyio.sleep(1.0)
        assert lost == [b"nothing"]


async def test_requests_that_are_too_long_or_one_way() -> None:
    async with answering(shout, AnswerPolicy(max_size=1000)) as (server, client):
        session = await client.connect("server")
        assert await session.request(b"x" * 1000) == b"X" * 1000
        with pytest.raises(StreamClosedError) as caught:
            await session.request(b"x" * 1001)
        assert caught.value.stream_code == REQUEST_TOO_LONG
        stream = session.open_stream(bidirectional=False)
        await stream.send(bytes(100))
        await anyio.sleep(1.0)
        with pytest.raises(StreamClosedError) as caught:
            await stream.send(bytes(100))
        assert caught.value.stream_code == REQUEST_ONE_WAY
        stream = session.open_stream()
        await stream.send(b"half")
        stream.reset(5)
        await anyio.sleep(1.0)
        assert not server.sessions[session.session_id].streams


async def test_one_session_is_answered_so_many_at_once_and_all_so_many() -> None:
    """The rest waits on its streams: a session that asks too much delays itself, and no other."""
    running: list[bytes] = []
    most = 0

    async def handler(request: Request) -> bytes:
        nonlocal most
        running.append(request.data)
        most = max(most, len(running))
        await anyio.sleep(1.0)
        running.remove(request.data)
        return request.data

    async with answering(handler, AnswerPolicy(max_requests=4, max_in_all=6)) as (_, client):
        greedy, modest = await client.connect("server"), await client.connect("server")
        began = anyio.current_time()
        done: list[float] = []

        async def ask() -> None:
            await greedy.request(b"greedy")
            done.append(anyio.current_time() - began)

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(ask)
            await anyio.sleep(0.5)
            assert running == [b"greedy"] * 4
            assert await modest.request(b"modest") == b"modest"
            assert 1.5 <= anyio.current_time() - began < 1.7
        assert most == 5
        assert [round(each) for each in done] == [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4 + [5] * 4


async def test_not_more_in_all() -> None:
    running = most = 0

    async def handler(request: Request) -> bytes:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.sleep(1.0)
        running -= 1
        return b""

    async with answering(handler, AnswerPolicy(max_in_all=3)) as (_, client):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                session = await client.connect("server")
                for _ in range(3):
                    tasks.start_soon(session.request, b"")
        assert most == 3


@pytest.mark.parametrize("deed", ["raises", "never returns", "resets", "reads nothing"])
async def test_what_a_session_does_delays_no_other(deed: str) -> None:
    """H4: the times of the others, in virtual time, are what they are without it, within a millisecond."""

    async def handler(request: Request) -> bytes:
        await anyio.sleep(0.05)
        if request.data == b"raises":
            raise ValueError
        if request.data == b"never returns":
            await anyio.sleep_forever()
        return bytes(200_000)

    async def times(hostile: bool) -> list[float]:
        done: list[float] = []
        async with answering(handler) as (_, client):
            sessions = [await client.connect("server") for _ in range(5)]
            began = anyio.current_time()

            async def work(session: Session) -> None:
                for _ in range(10):
                    assert len(await session.request(b"work")) == 200_000
                done.append(anyio.current_time() - began)

            async def harm(session: Session) -> None:
                for _ in range(50):
                    stream = session.open_stream()
                    await stream.send(deed.encode())
                    if deed == "resets":
                        stream.reset()
                    else:
                        await stream.send_eof()

            async with anyio.create_task_group() as tasks:
                for session in sessions[1:]:
                    tasks.start_soon(work, session)
                if hostile:
                    tasks.start_soon(harm, sessions[0])
        return sorted(done)

    assert await times(True) == pytest.approx(await times(False), abs=0.001, rel=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_requests", 0), ("max_in_all", True), ("max_size", 1.5), ("timeout", 0), ("timeout", float("nan"))],
)
async def test_arguments_of_answers(name: str, value: object) -> None:
    with pytest.raises(ArgumentError) as caught:
        AnswerPolicy(**{name: value})  # type: ignore[arg-type]
    assert caught.value.argument == name
    async with Town().node("a") as node:
        with pytest.raises(ArgumentError):
            await node.answer(5)  # type: ignore[arg-type]
        with pytest.raises(ArgumentError):
            await node.answer(shout, 5)  # type: ignore[arg-type]


# -- the pool ----------------------------------------------------------------------------------------------------------


async def test_a_hundred_who_ask_share_one_dial() -> None:
    town = Town()
    async with town.node("server") as server, town.node("client") as client, client.pool() as pool:
        got: list[Session] = []

        async def ask() -> None:
            got.append(await pool.get_or_create("server"))

        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(ask)
        assert len(got) == 100
        assert len(set(got)) == len(pool) == len(client.sessions) == len(server.sessions) == 1
        assert await pool.get_or_create("server") is got[0]
        by_id = await pool.get_or_create("server", server.node_id)
        assert await pool.get_or_create("elsewhere", server.node_id) is by_id
    assert not client.sessions


async def test_a_session_that_ended_is_replaced() -> None:
    town = Town()
    async with town.node("server"), town.node("client") as client, client.pool() as pool:
        first = await pool.get_or_create("server")
        first.abort()
        assert len(pool) == 0
        second = await pool.get_or_create("server")
        assert second is not first
        assert second.is_active()


async def test_one_who_gives_up_takes_nothing_from_the_others() -> None:
    town = Town()
    async with town.node("server"), town.node("client") as client, client.pool() as pool:
        town.radios["server"].silent = True
        got: list[Session] = []

        async def ask() -> None:
            got.append(await pool.get_or_create("server"))

        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as first:
                first.cancel()
                await pool.get_or_create("server")
            tasks.start_soon(ask)
            await anyio.sleep(0.1)
            with pytest.raises(ConnectionTimeoutError):
                await pool.get_or_create("server", timeout=0.5)
            town.radios["server"].silent = False
        assert len(got) == len(pool) == 1


async def test_a_dial_that_fails_fails_for_all_and_is_made_again() -> None:
    town = Town()
    async with town.node("server") as server, town.node("client") as client, client.pool() as pool:
        town.radios["server"].silent = True
        errors: list[Exception] = []

        async def ask() -> None:
            with pytest.raises(ConnectionTimeoutError) as caught:
                await pool.get_or_create("server", timeout=3.0)
            errors.append(caught.value)

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(ask)
        assert len(set(map(id, errors))) == 5
        assert len(pool) == 0
        town.radios["server"].silent = False
        assert (await pool.get_or_create("server")).peer_node_id == server.node_id
        with pytest.raises(ArgumentError):
            await pool.get_or_create("server", b"short")
        with pytest.raises(ArgumentError):
            await pool.get_or_create(["server"])


async def test_the_pool_is_bounded() -> None:
    """The idle one asked for longest ago goes; one in use, or leased, does not."""
    town = Town()
    async with (
        town.node("a"),
        town.node("b"),
        town.node("c"),
        town.node("client") as client,
        client.pool(max_sessions=2) as pool,
    ):
        a, b = await pool.get_or_create("a"), await pool.get_or_create("b")
        assert await pool.get_or_create("a") is a
        c = await pool.get_or_create("c")
        await b.wait_closed()
        assert (len(pool), a.is_active(), c.is_active()) == (2, True, True)
        stream = a.open_stream()
        async with pool.lease("c") as leased:
            assert leased is c
            with pytest.raises(TooManySessionsError):
                await pool.get_or_create("b")
            await stream.aclose()
            await pool.get_or_create("b")
            assert not a.is_active()
        c.abort()
        await pool.get_or_create("a")
        assert len(pool) == 2
        for wrong in (0, 65_537, True):
            with pytest.raises(ArgumentError):
                client.pool(wrong)


async def test_a_pool_that_is_closed() -> None:
    town = Town()
    async with town.node("server"), town.node("other"), town.node("client") as client:
        pool = client.pool()
        session = await pool.get_or_create("server")
        town.radios["other"].silent = True
        began = anyio.current_time()
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                with pytest.raises(SessionClosedError):
                    await pool.get_or_create("other", timeout=60)

            tasks.start_soon(ask)
            await anyio.sleep(0.1)
            await pool.close()
        assert session.is_closed
        assert anyio.current_time() - began < 1.0  # nobody dials for it any more
        town.radios["other"].silent = False
        await anyio.sleep(5.0)
        assert not client.sessions
        with pytest.raises(SessionClosedError):
            await pool.get_or_create("server")


async def test_the_node_stops_under_a_pool() -> None:
    town = Town()
    async with town.node("server"), town.node("client") as client:
        pool = client.pool()
        town.radios["server"].silent = True
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                with pytest.raises((SessionClosedError, OSError)):
                    await pool.get_or_create("server", timeout=60)

            tasks.start_soon(ask)
            await anyio.sleep(0.1)
            await client.stop(timeout=0.1)
        with pytest.raises(StateError):
            await SessionPool(client).get_or_create("server")


# -- health ------------------------------------------------------------------------------------------------------------


async def test_who_falls_silent_is_told_and_who_is_back() -> None:
    town = Town()
    policy = HealthPolicy(max_silence=14.0, interval=1.0)
    async with (
        town.node("a"),
        town.node("b"),
        town.node("client") as client,
        client.monitor_health(policy) as monitor,
    ):
        a, b = await client.connect("a"), await client.connect("b")
        await anyio.sleep(100.0)  # keep-alive every 10 s is no silence
        assert monitor.unhealthy == []
        town.radios["a"].silent = True
        events = monitor.events()
        began = anyio.current_time()
        session, change = await anext(events)
        assert (session, change.healthy, change.problems) == (a, False, {"silence"})
        assert 3.0 < anyio.current_time() - began < 17.0
        assert monitor.unhealthy == [a]
        assert (monitor.problems(a), monitor.problems(b)) == ({"silence"}, frozenset())
        town.radios["a"].silent = False
        session, change = await anext(events)
        assert (session, change.healthy) == (a, True)
        a.abort()
        await anyio.sleep(2.0)
        assert monitor.problems(a) == frozenset()
    with pytest.raises(StopAsyncIteration):
        await anext(events)


async def test_arguments_of_the_monitor() -> None:
    async with Town().node("a") as node:
        with pytest.raises(ArgumentError):
            node.monitor_health(5)  # type: ignore[arg-type]
    with pytest.raises(StateError):
        node.monitor_health()


async def test_a_monitor_ends_with_its_node() -> None:
    async with Town().node("a") as node:
        monitor = node.monitor_health()
    assert [each async for each in monitor.events()] == []
    await monitor.close()


# -- affinity ----------------------------------------------------------------------------------------------------------


async def test_sessions_by_nearness_to_contents() -> None:
    """I1: the nearest by exclusive or; one that has ended is not given, and leaves."""
    town = Town()
    async with town.node("server"), town.node("client") as client:
        pool = client.affinity_pool(max_pool_size=2)
        low, high = bytes(32), b"\xff" * 32
        with pytest.raises(PoolMissError):
            pool.get_session_for_content(low)
        a, b, c = [await client.connect("server") for _ in range(3)]
        assert pool.add_session(a, low) is pool.add_session(b, high) is None
        assert (pool.get_session_for_content(b"\x01" * 32), pool.get_session_for_content(b"\xf0" * 32)) == (a, b)
        assert (pool.calculate_affinity(a, low), a in pool, len(pool)) == (0, True, 2)
        pool.update_session_affinity(a, b"\x0f" * 32)
        assert pool.calculate_affinity(a, low) == int.from_bytes(b"\x0f" * 32)
        assert pool.rebalance() is None
        assert pool.add_session(c, low) is a
        assert a.is_active()
        b.abort()
        assert pool.get_session_for_content(high) is c
        assert (b in pool, len(pool)) == (False, 1)
        assert pool.get_pool_stats().size == 1
        await anyio.sleep(10.0)
        assert pool.cleanup_inactive_sessions(5.0) == (c,)
        assert not pool.remove_session(c)
        pool.add_session(c, low)
        c.abort()
        assert pool.get_pool_stats().size == 0
