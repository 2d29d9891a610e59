"""The pool under races (MISSION J): what is handed out can be used, and nobody pays for another's haste or end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from stt_anyio import Session, SessionClosedError, SessionPool, STTNode, TooManySessionsError
from stt_anyio.errors import ArgumentError, ConnectionTimeoutError, StateError
from tests.anyio.virtual import LOOPS, Town, virtual


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual(request.param)


@asynccontextmanager
async def a_pool_of_one() -> AsyncIterator[tuple[Town, STTNode, SessionPool]]:
    """Two servers, `a` and `b`, and a client that has a session with one of them at the most."""
    town = Town()
    async with (
        town.node("a"),
        town.node("b"),
        town.node("client") as client,
        client.pool(max_sessions=1) as pool,
    ):
        yield town, client, pool


async def test_what_is_handed_out_was_not_closed_to_make_room() -> None:
    """Two who ask at once of a pool of one: whoever gets a session gets one that goes on."""
    async with a_pool_of_one() as (_, _, pool):
        await pool.get_or_create("a")
        got: dict[str, bool] = {}

        async def lease(name: str) -> None:
            try:
                async with pool.lease(name) as session:
                    await anyio.sleep(1.0)
                    got[name] = session.is_active()
            except TooManySessionsError:
                pass

        async with anyio.create_task_group() as tasks:
            for name in ("a", "b", "a", "b"):
                tasks.start_soon(lease, name)
        assert got
        assert all(got.values())


async def test_who_waits_for_a_dial_gets_it() -> None:
    """One that was dialled is in use by those who wait for it: it is not closed before they have seen it."""
    async with a_pool_of_one() as (_, client, pool):
        got: list[Session] = []

        async def ask() -> None:
            got.append(await pool.get_or_create("a"))
            assert got[-1].is_active()

        def established(session: Session) -> None:
            tasks.start_soon(intrude)

        async def intrude() -> None:
            for _ in range(20):
                with suppress(TooManySessionsError):
                    await pool.get_or_create("b")
                if got:
                    return

        client.on_session_established(established)
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(ask)
        assert len(got) == 3


async def test_the_hasty_do_not_fail_the_patient() -> None:
    """A dial goes on as long as the most patient of those who wait for it would."""
    town = Town()
    async with town.node("server"), town.node("client") as client, client.pool() as pool:
        town.radios["server"].silent = True
        late: list[float] = []
        dials: list[Any] = []
        connect = client.connect

        async def counted(*arguments: Any) -> Session:
            dials.append(arguments)
            return await connect(*arguments)

        client.connect = counted  # type: ignore[method-assign, assignment]
        began = anyio.current_time()

        async def hasty(timeout: float) -> None:
            with pytest.raises(ConnectionTimeoutError):
                await pool.get_or_create("server", timeout=timeout)
            late.append(anyio.current_time() - began)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hasty, 0.5)
            await anyio.sleep(0.1)
            tasks.start_soon(hasty, 0.5)
            tasks.start_soon(pool.get_or_create, "server", None, 5.0)
            await anyio.sleep(2.0)
            town.radios["server"].silent = False
        assert late == pytest.approx([0.5, 0.6], abs=0.001)
        assert len(pool) == len(client.sessions) == len(dials) == 1


async def test_a_dial_ends_with_the_last_who_waits() -> None:
    """Not before, not after; and who comes then begins another."""
    town = Town()
    async with town.node("server"), town.node("client") as client, client.pool() as pool:
        town.radios["server"].silent = True
        for _ in range(3):
            began = anyio.current_time()
            with pytest.raises(ConnectionTimeoutError):
                await pool.get_or_create("server", timeout=1.0)
            assert anyio.current_time() - began == pytest.approx(1.0, abs=0.001)
        await anyio.sleep(0.1)
        assert len(pool) == 0
        assert not client._dialing


async def test_who_comes_as_the_time_of_a_dial_is_over() -> None:
    """His own is not: he dials again, and does not fail for another one's haste."""
    town = Town()
    async with town.node("server"), town.node("client") as client, client.pool() as pool:
        town.radios["server"].silent = True
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pool.get_or_create, "server")
            await anyio.sleep(0.1)
            (entry,) = pool._entries.values()
            entry.scope.cancel()
            town.radios["server"].silent = False
        assert len(pool) == 1


@pytest.mark.parametrize("turns", range(6))
async def test_a_session_that_dies_as_it_is_asked_for(turns: int) -> None:
    """Whenever that is: who asks gets one that is active."""
    town = Town()
    async with town.node("server"), town.node("client") as client, client.pool() as pool:
        session = await pool.get_or_create("server")

        async def ask() -> None:
            assert (await pool.get_or_create("server")).is_active()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            for _ in range(turns):
                await checkpoint()
            session.abort()


async def test_a_hundred_of_whom_the_first_are_cancelled_in_the_middle() -> None:
    """Who asked first made the dial, and takes it with him no more than anybody else does."""
    town = Town()
    async with town.node("server") as server, town.node("client") as client, client.pool() as pool:
        town.radios["server"].silent = True
        got: list[Session] = []
        scopes = [anyio.CancelScope() for _ in range(100)]

        async def ask(scope: anyio.CancelScope) -> None:
            with scope:
                got.append(await pool.get_or_create("server"))

        async with anyio.create_task_group() as tasks:
            for scope in scopes:
                tasks.start_soon(ask, scope)
            await anyio.sleep(0.1)
            for scope in scopes[:50]:
                scope.cancel()
            town.radios["server"].silent = False
        assert len(got) == 50
        assert len(set(got)) == len(server.sessions) == 1


async def test_a_session_that_dies_as_it_is_made() -> None:
    """Who waited for it is told so, and the next one dials."""
    town = Town()
    async with town.node("server"), town.node("client") as client, client.pool() as pool:

        @client.on_session_established
        def end(session: Session) -> None:
            session.begin_close()

        errors: list[Exception] = []

        async def ask() -> None:
            try:
                await pool.get_or_create("server")
            except SessionClosedError as error:
                errors.append(error)

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(ask)
        assert len(set(map(id, errors))) == 5
        assert all(isinstance(error, OSError) for error in errors)  # as if the dial had failed
        client._on_established.clear()
        assert (await pool.get_or_create("server")).is_active()


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("turns", range(8))
async def test_a_pool_that_is_closed_as_a_dial_succeeds(turns: int, cancelled: bool) -> None:
    """In whatever order: no session is left behind, and nobody gets one that is to be used."""
    town = Town()
    async with town.node("server"), town.node("client") as client, anyio.create_task_group() as tasks:
        pool = client.pool()

        async def close() -> None:
            for _ in range(turns):
                await checkpoint()
            with anyio.CancelScope() as scope:
                if cancelled:
                    scope.cancel()
                await pool.close()
                assert not client.sessions

        client.on_session_established(lambda _: tasks.start_soon(close))
        with suppress(SessionClosedError):
            await pool.get_or_create("server")
        await anyio.sleep(1.0)
        assert not client.sessions


async def test_a_pool_that_is_aborted_in_the_moment_of_success() -> None:
    """Nobody waits for the dial any more: it ends itself what came of it."""
    town = Town()
    async with town.node("server"), town.node("client") as client, anyio.create_task_group() as tasks:
        pool = client.pool()
        connect = client.connect
        closed = anyio.Event()

        async def close() -> None:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await pool.close()
            closed.set()

        async def connected(*arguments: Any) -> Session:
            session = await connect(*arguments)
            with anyio.CancelScope(shield=True):
                tasks.start_soon(close)
                await closed.wait()
            return session

        client.connect = connected  # type: ignore[method-assign, assignment]
        with pytest.raises(SessionClosedError):
            await pool.get_or_create("server")
        await anyio.sleep(1.0)
        assert not client.sessions


async def test_work_in_flight_is_not_closed_to_make_room() -> None:
    """H2: a tracked request, or a broadcast that has not arrived, is work like an open stream."""
    async with a_pool_of_one() as (town, client, pool):
        a = await pool.get_or_create("a")
        async with a.track_request():
            with pytest.raises(TooManySessionsError):
                await pool.get_or_create("b")
        town.radios["a"].silent = True
        await client.send_to_all(b"news", timeout=0)
        with pytest.raises(TooManySessionsError):
            await pool.get_or_create("b")
        town.radios["a"].silent = False
        await anyio.sleep(5.0)
        assert (await pool.get_or_create("b")).is_active()
        assert not a.is_active()


async def test_a_carrier_by_any_of_its_names() -> None:
    """One who answers at an address is one peer, also where the carrier is the usual one and named all the same."""
    town = Town()
    async with town.node("server"), town.node("client") as client, client.pool() as pool:
        session = await pool.get_or_create("server")
        assert await pool.get_or_create("server", transport="radio") is session


async def test_a_mistake_costs_nobody_a_session() -> None:
    """It is told before room is made for it, and by its name."""
    town = Town()
    async with town.node("a"), town.node("client") as client, client.pool(max_sessions=1) as pool:
        a = await pool.get_or_create("a")
        for arguments, name in (
            ({"peer_node_id": b"short"}, "peer_node_id"),
            ({"peer_node_id": [1]}, "peer_node_id"),
            ({"transport": "pigeon"}, "transport"),
            ({"address": ["b"]}, "address"),
        ):
            with pytest.raises(ArgumentError) as caught:
                await pool.get_or_create(**{"address": "b", **arguments})  # type: ignore[arg-type]
            assert caught.value.argument == name
        assert a.is_active()
        assert len(pool) == 1


async def test_a_node_that_is_started_again() -> None:
    """Its pool goes on with it: what ended is dialled again."""
    town = Town()
    async with town.node("server"):
        client = STTNode(carriers=[town.radio("client")], shared_seed="x")
        pool = client.pool()
        with pytest.raises(StateError):
            await pool.get_or_create("server")
        for _ in range(2):
            async with client:
                assert (await pool.get_or_create("server")).is_active()
                assert len(pool) == 1
            assert len(pool) == 0
