"""What a manager knows of sessions, in a store: over a restart, and between servers that pass sessions on (H7)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import define, field

from stt_anyio import VersionConflictError
from stt_anyio.stores import SessionStore
from stt_proto.errors import SessionExpiredError, SessionNotFound
from stt_proto.manager import SessionManager, SessionRecord
from tests.anyio.redis_server import RedisServer
from tests.anyio.stores import SHARED, Clock, Stores

PEER = b"p" * 32
SESSIONS = "sessions"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=SHARED)
def stores(
    request: pytest.FixtureRequest, tmp_path: Path, redis_server: Callable[[], RedisServer], clock: Clock
) -> Stores:
    return Stores(request.param, tmp_path, redis_server, clock)


@define
class Server:
    """A manager whose records are kept in a store; its clock begins at zero with it.

    Attributes:
        versions: of each record, as this one wrote or read it.
    """

    store: SessionStore
    clock: Clock
    manager: SessionManager = field(init=False)
    began: float = field(init=False)
    versions: dict[bytes, int] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.began = self.clock.now
        self.manager = SessionManager(0.0, self.clock.now)

    @property
    def now(self) -> float:
        return self.clock.now - self.began

    async def keep(self, session_id: bytes) -> None:
        """Write what is known of a session, over what this one wrote or read last."""
        record = self.manager.get_session(session_id, self.now)
        assert record is not None
        self.versions[session_id] = await self.store.put(
            SESSIONS,
            session_id,
            record.to_bytes(),
            if_version=self.versions.get(session_id, 0),
            ttl=self.manager.remaining_ttl(session_id, self.now),
        )

    async def go_on(self) -> list[SessionRecord]:
        """Go on with all that is there, as a server does that begins."""
        restored = []
        for entry in await self.store.scan(SESSIONS):
            restored.append(self.manager.restore_session(SessionRecord.from_bytes(entry.value), self.now))
            self.versions[entry.key] = entry.version
        return restored

    async def end(self, session_id: bytes) -> None:
        """A session is over, for all."""
        self.manager.close_session(session_id, self.now, "error")
        assert await self.store.delete(SESSIONS, session_id, if_version=self.versions.pop(session_id))


async def test_over_a_restart(stores: Stores, clock: Clock) -> None:
    """H7, G6: what was kept goes on with its time, its configuration, its version; what is over does not."""
    async with stores.open() as store:
        server = Server(store, clock)
        for number, ttl in enumerate((600, 60, 20)):
            session_id = b"session%d" % number
            server.manager.create_session(
                session_id, PEER, server.now, namespace=b"\xff", config={"ttl": ttl}, metadata={"number": number}
            )
            await server.keep(session_id)
        clock.now += 10
        server.manager.update_config(b"session0", {"max_requests": 7}, server.now)
        server.manager.extend(b"session0", 900, server.now)
        await server.keep(b"session0")
        await server.end(b"session1")
    clock.now += 30
    async with stores.open() as store:
        server = Server(store, clock)
        (record,) = await server.go_on()
        assert (record.session_id, record.namespace, record.metadata) == (b"session0", b"\xff", {"number": 0})
        assert (record.config.ttl, record.config.max_requests, record.config_version) == (600, 7, 2)
        assert server.manager.remaining_ttl(b"session0", server.now) == pytest.approx(870)
        server.manager.update_config(b"session0", {"priority": 1}, server.now, if_version=2)
        await server.keep(b"session0")
        entry = await store.get(SESSIONS, b"session0")
        assert entry is not None
        assert SessionRecord.from_bytes(entry.value).config_version == 3


async def test_no_update_is_lost(stores: Stores, clock: Clock) -> None:
    """H7, S14: of two who change one record the later one is told, reads again, and both changes are there."""
    async with stores.open() as store, stores.open() as same:
        one, other = Server(store, clock), Server(same, clock)
        one.manager.create_session(b"session0", PEER, one.now)
        await one.keep(b"session0")
        await other.go_on()
        one.manager.set_metadata(b"session0", {"by": "one"}, one.now)
        await one.keep(b"session0")
        other.manager.update_config(b"session0", {"max_requests": 7}, other.now)
        with pytest.raises(VersionConflictError) as caught:
            await other.keep(b"session0")
        assert caught.value.version == one.versions[b"session0"]
        again = Server(same, clock)
        await again.go_on()
        again.manager.update_config(b"session0", {"max_requests": 7}, again.now)
        await again.keep(b"session0")
        (record,) = await Server(store, clock).go_on()
        assert (record.metadata, record.config.max_requests) == ({"by": "one"}, 7)


@pytest.mark.parametrize("how", ["ended", "expired"])
async def test_no_session_is_revived(how: str, stores: Stores, clock: Clock) -> None:
    """H7, S11, K6: not by a server that has not heard that it is over, and comes late with what it knows."""
    async with stores.open() as store, stores.open() as same:
        one, late = Server(store, clock), Server(same, clock)
        one.manager.create_session(b"session0", PEER, one.now, config={"ttl": 60})
        await one.keep(b"session0")
        entry = await store.get(SESSIONS, b"session0")
        assert entry is not None
        await late.go_on()
        late.manager.extend(b"session0", 600, late.now)
        if how == "ended":
            await one.end(b"session0")
        else:
            clock.now += 61
        with pytest.raises(VersionConflictError) as caught:
            await late.keep(b"session0")
        assert caught.value.version == 0
        with pytest.raises(VersionConflictError):
            await late.end(b"session0")
        assert await Server(store, clock).go_on() == []
        if how == "expired":  # nor with what somebody read when it was not over
            with pytest.raises(SessionExpiredError):
                Server(store, clock).manager.restore_session(SessionRecord.from_bytes(entry.value), 0.0)


async def test_a_session_has_one_owner(stores: Stores, clock: Clock) -> None:
    """H7: of two who take a session over from a third one does; who had it is told at its next write, and lets go."""
    async with stores.open() as store, stores.open() as same:
        old, new, slow = Server(store, clock), Server(same, clock), Server(same, clock)
        old.manager.create_session(b"session0", PEER, old.now, metadata={"owner": "old"})
        await old.keep(b"session0")
        for server, name in ((new, "new"), (slow, "slow")):
            await server.go_on()
            server.manager.set_metadata(b"session0", {"owner": name}, server.now)
        await new.keep(b"session0")
        for server in (slow, old):
            with pytest.raises(VersionConflictError):
                await server.keep(b"session0")
            server.manager.close_session(b"session0", server.now, "moved")
            server.manager.sweep(server.now)
            record = server.manager.inspect(b"session0", server.now)
            assert record is not None
            assert record.is_closed
            with pytest.raises(SessionNotFound):  # what was passed on is no session to begin with, anywhere
                Server(store, clock).manager.restore_session(SessionRecord.from_bytes(record.to_bytes()), 0.0)
        (record,) = await Server(store, clock).go_on()
        assert record.metadata == {"owner": "new"}
