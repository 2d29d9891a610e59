"""Workers that share a store of used tickets: a ticket is good once for all of them. Real workers over loopback."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stt_anyio import ArgumentError, Session, StateError, STTNode, Ticket, TicketRefusal
from stt_anyio.stores import MemorySessionStore
from stt_anyio.stores.sqlite import SqliteSessionStore
from stt_anyio.workers import WorkerFleet, fleet
from tests.anyio import worker_apps
from tests.anyio.redis_server import RedisServer
from tests.anyio.stores import SHARED
from tests.anyio.test_workers import HOST, SEED, Naming, ask, serving, until
from tests.proto.fleet import SECRET

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="ports are shared so on Linux only"),
]

ON_ONE_LOOP = pytest.mark.parametrize("anyio_backend", ["asyncio"])
CLIENT_SEED = b"the client that comes back"
CLIENT_SEED += bytes(32 - len(CLIENT_SEED))


@pytest.fixture(params=SHARED)
def store(request: pytest.FixtureRequest, tmp_path: Path, redis_server: Callable[[], RedisServer]) -> Any:
    """A store that several processes can have, not open."""
    if request.param == "sqlite":
        return SqliteSessionStore(tmp_path / "used")
    module = pytest.importorskip("stt_anyio.stores.redis", reason="the extra stt-transport[redis] is not installed")
    return module.RedisSessionStore(redis_server().url, prefix=f"workers{os.getpid()}.{tmp_path.name[:40]}")


async def come(served: WorkerFleet, worker: int, ticket: Ticket | None = None) -> tuple[Session, Ticket]:
    """Dial one of the workers, and be answered by it; the session, and a ticket for the next time."""
    async with Naming(worker, node_seed=CLIENT_SEED) as client:
        session = await client.connect((HOST, served.port), peer_node_id=served.node_id, ticket=ticket)
        assert await ask(session) == served.pids[worker]
        await until(lambda: session.ticket is not None)
        assert session.ticket is not None
        return session, session.ticket


def assert_used(session: Session) -> None:
    assert not session.resumed
    assert session.resumption_error is not None
    assert session.resumption_error.reason == TicketRefusal.USED  # type: ignore[attr-defined]


@ON_ONE_LOOP
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_used_at_any_worker(store: Any, backend: str) -> None:
    """H7, H-36: what was used at one worker is refused at the other, and by one that was started anew."""
    async with serving(backend=backend, ticket_store=store) as (served, _):
        _, ticket = await come(served, 0)
        session, another = await come(served, 1, ticket)
        assert session.resumed
        for worker in (0, 1):
            assert_used((await come(served, worker, ticket))[0])
        assert (await come(served, 0, another))[0].resumed, "it is that ticket that was used"
        old = served.pids[1]
        assert old is not None
        os.kill(old, signal.SIGKILL)
        await until(lambda: served.pids[1] not in (None, old))
        for used in (ticket, another):
            assert_used((await come(served, 1, used))[0])
        stats = await served.stats()
        assert stats.node.tickets_in_doubt == 0


@ON_ONE_LOOP
async def test_over_a_restart_of_the_fleet(tmp_path: Path) -> None:
    """H7, H-36: with one `node_seed` and one `fleet_secret` tickets are good at the next fleet, if they were not used.

    The file is the same though the store was made of a relative path, and is open in the parent too.
    """
    here = Path.cwd()
    options: dict[str, Any] = {"node_seed": bytes(32), "fleet_secret": SECRET}
    os.chdir(tmp_path)
    try:
        options["ticket_store"] = SqliteSessionStore("used")
    finally:
        os.chdir(here)
    async with options["ticket_store"]:
        async with serving(**options) as (served, _):
            ticket, unused = (await come(served, 0))[1], (await come(served, 1))[1]
            assert (await come(served, 1, ticket))[0].resumed
        async with serving(**options) as (served, _):
            assert_used((await come(served, 0, ticket))[0])
            assert (await come(served, 0, unused))[0].resumed
    assert (tmp_path / "used").exists()


@ON_ONE_LOOP
async def test_a_store_that_cannot_be_opened(tmp_path: Path) -> None:
    """H7: the fleet does not start, and says why."""
    with pytest.raises(StateError, match="cannot be used now"):
        async with serving(ticket_store=SqliteSessionStore(tmp_path / "nowhere" / "used")):
            pass


@ON_ONE_LOOP
async def test_a_store_that_goes_away_is_counted_in_the_sums(tmp_path: Path) -> None:
    """H7: no ticket is good then, at any worker; who comes is let in by the full handshake."""
    async with serving(ticket_store=SqliteSessionStore(tmp_path / "used")) as (served, _):
        tickets = [(await come(served, worker))[1] for worker in (0, 1)]
        (tmp_path / "used").unlink()
        for worker, ticket in enumerate(tickets):
            assert not (await come(served, worker, ticket))[0].resumed
        stats = await served.stats()
        assert [worker.node.tickets_in_doubt for worker in stats.workers] == [1, 1]
        assert stats.node.tickets_in_doubt == 2


@ON_ONE_LOOP
async def test_where_ports_cannot_be_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """H7: the one process opens it as a worker would, whatever became of the caller's own."""
    monkeypatch.setattr(fleet, "can_share", lambda: False)
    store = SqliteSessionStore(tmp_path / "used")
    async with serving(2, worker_apps.echo, ticket_store=store) as (served, _):
        async with STTNode(CLIENT_SEED, SEED, HOST) as client:
            session = await client.connect((HOST, served.port))
            await until(lambda: session.ticket is not None)
            ticket = session.ticket
        for resumed in (True, False):
            async with STTNode(CLIENT_SEED, SEED, HOST) as client:
                session = await client.connect((HOST, served.port), ticket=ticket)
                assert session.resumed == resumed
    with pytest.raises(StateError):
        await store.get("", b"key")


async def test_what_comes_out_of_a_pickle(store: Any) -> None:
    """H7: the same store with the same options, not open, whether or not the other is; no password in sight."""
    async with store:
        version = await store.put("", b"key", b"value", if_version=0)
        copy = pickle.loads(pickle.dumps(store))
        with pytest.raises(StateError):
            await copy.get("", b"key")
        async with copy:
            entry = await copy.get("", b"key")
            assert (entry.value, entry.version) == (b"value", version)


def test_options_are_those_of_the_other(tmp_path: Path) -> None:
    options: dict[str, Any] = {"timeout": 7.0, "max_entries": 3, "max_taken": 4}
    assert (
        pickle.loads(pickle.dumps(SqliteSessionStore(tmp_path / "used", **options)))._options.items() >= options.items()
    )
    redis = pytest.importorskip("stt_anyio.stores.redis", reason="the extra stt-transport[redis] is not installed")
    url = "rediss://ann:hush@example.net:1234/5"
    store = redis.RedisSessionStore(url, prefix="p", **options)
    copy = pickle.loads(pickle.dumps(store))
    assert copy._given == store._given == {**options, "prefix": "p", "ssl_context": None}
    assert (copy._url, copy._keys, copy._location) == (url, store._keys, store._location)
    assert "hush" not in repr(store) + repr(copy)


def test_what_has_no_address(tmp_path: Path) -> None:
    """H7: a store in memory would be another one in each worker, and a ticket good at each; so it is refused."""
    stores: list[Any] = [MemorySessionStore(), SqliteSessionStore(tmp_path / "used", clock=lambda: 0.0)]
    for store in stores:
        with pytest.raises(ArgumentError, match="by its address") as caught:
            WorkerFleet("tests.anyio.worker_apps:echo", 2, shared_seed=SEED, ticket_store=store)
        assert caught.value.argument == "ticket_store"
