"""The 19 faults of two systems that promise what we promise (K1 to K12, M1 to M7), each put into a manager of ours.

Each is made as small as it was there: a check that is missing, a dictionary that is shared, an index that forgets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve, frozen

from stt_proto.clock import NEVER
from stt_proto.errors import ConfigError, SessionNotFound
from stt_proto.manager import (
    MemoryStore,
    RequestToken,
    SessionManager,
    SessionRecord,
)
from stt_proto.manager.entries import Entry, Index
from stt_proto.manager.records import EndReason
from stt_proto.manager.requests import Work
from stt_proto.manager.table import SessionTable
from stt_proto.reconnect import Reconnector
from stt_proto.tickets import Ticket
from stt_proto.types import SessionState
from tests.proto.manager.checked import Checked
from tests.proto.manager.coming_back import ComingBack
from tests.proto.manager.life import Life, Stopping
from tests.proto.manager.sharing import Sharing


class WithTable(SessionManager):
    """A manager with another table."""

    table: type[SessionTable] = SessionTable

    def __init__(self, *arguments: Any, **parameters: Any) -> None:
        super().__init__(*arguments, **parameters)
        self._table = type(self).table(self._clock, self.limits)


class WithIndex(SessionManager):
    """A manager that finds the sessions of a peer in another way."""

    index: type[Index] = Index

    def __init__(self, *arguments: Any, **parameters: Any) -> None:
        super().__init__(*arguments, **parameters)
        self._table.by_peer = type(self).index()


class K1(WithIndex):
    """Deleting any session of a node removes the pointer of the node."""

    class index(Index):
        def remove(self, key: bytes, entry: Entry) -> None:
            self._groups.pop(key, None)


class K2(SessionManager):
    """A configuration that is invalid is dropped without a word."""

    def create_session(self, *arguments: Any, config: Any = None, **parameters: Any) -> SessionRecord:
        try:
            return super().create_session(*arguments, config=config, **parameters)
        except ConfigError:
            return super().create_session(*arguments, **parameters)


class K3(SessionManager):
    """`ttl or default`: a lifetime of 0 is the default."""

    def create_session(self, *arguments: Any, config: Any = None, **parameters: Any) -> SessionRecord:
        kept = {name: value for name, value in (config or {}).items() if name != "ttl" or value}
        return super().create_session(*arguments, config=kept, **parameters)


class K4(SessionManager):
    """Looking at a session extends it."""

    def get_session(self, session_id: bytes, now: float) -> SessionRecord | None:
        self.touch(session_id, now)
        return super().get_session(session_id, now)


class K5(SessionManager):
    """`get` of an expired session deletes it, and the deletion gets it first; in the end that is swallowed."""

    def get_session(self, session_id: bytes, now: float) -> SessionRecord | None:
        try:
            return self._get(session_id, now)
        except RecursionError:
            return None

    def _get(self, session_id: bytes, now: float) -> SessionRecord | None:
        entry = self._table.entries.get(session_id)
        if entry is not None and entry.life.expires_at <= now:
            self._delete(session_id, now)
            return None
        return super().get_session(session_id, now)

    def _delete(self, session_id: bytes, now: float) -> None:
        if self._get(session_id, now) is not None:
            self.close_session(session_id, now)


class K6(MemoryStore):
    """Writers do not say what they have read: the last one wins."""

    def put(self, namespace: Any, key: bytes, value: bytes, now: float, *, if_version: int, ttl: Any = None) -> int:
        entry = self.get(namespace, key, now)
        version = 0 if entry is None else entry.version
        return super().put(namespace, key, value, now, if_version=version, ttl=ttl)


class K7(SessionManager):
    """The next use sets the end to now and the lifetime, also when it was extended beyond that."""

    def touch(self, session_id: bytes, now: float) -> bool:
        used = super().touch(session_id, now)
        if used:
            self._table.entries[session_id].life.extended_until = NEVER
        return used


class K8(SessionManager):
    """Sessions that expired in silence are counted on."""

    def get_session_count(self, now: float) -> int:
        self._clock.advance(now)
        return self._table.counters.active


class K9(SessionManager):
    """An update after the deletion brings the session back."""

    def update_config(self, session_id: bytes, changes: Any, now: float, **parameters: Any) -> SessionRecord:
        try:
            return super().update_config(session_id, changes, now, **parameters)
        except SessionNotFound:
            entry = self._table.entries.get(session_id)
            if entry is None:
                raise
            entry.state = SessionState.ESTABLISHED
            return entry.record(self._clock)


class K10(SessionManager):
    """Characters that do not please are replaced in names of namespaces."""

    def create_session(self, *arguments: Any, namespace: Any = "", **parameters: Any) -> SessionRecord:
        record = super().create_session(*arguments, namespace=self._tidy(namespace), **parameters)
        self._table.entries[record.session_id].namespace = namespace
        return evolve(record, namespace=namespace)

    def get_active_sessions(self, now: float, *, namespace: Any = None) -> tuple[SessionRecord, ...]:
        return super().get_active_sessions(now, namespace=self._tidy(namespace))

    def _tidy(self, name: Any) -> Any:
        return name.replace("-", "_") if isinstance(name, str) else name


class K11(Reconnector):
    """Whoever finds the session gone makes another: nobody remembers that one is being made, and sessions leak."""

    def dial(self) -> Ticket | None:
        before = self.state
        ticket = super().dial()
        self.state = before
        return ticket


def k12(store: MemoryStore) -> Callable[[], MemoryStore]:
    """The shared thing is made when it is first needed: two find nothing there, and each makes its own."""
    made: list[MemoryStore] = []

    def get() -> MemoryStore:
        if len(made) < 2:
            made.append(MemoryStore(0.0))
        return made[-1]

    return get


class M1(SessionManager):
    """The caller's dictionary is kept."""

    def create_session(self, *arguments: Any, metadata: Any = None, **parameters: Any) -> SessionRecord:
        record = super().create_session(*arguments, metadata=metadata, **parameters)
        self._table.entries[record.session_id].metadata = metadata or {}
        return record


class M2(WithTable):
    """Only the sweep knows of expiry: until then, a session is found, and used again."""

    class table(SessionTable):
        def usable(self, session_id: bytes, now: float) -> Entry | None:
            self.clock.advance(now)
            entry = self.entries.get(session_id)
            return entry if entry is not None and entry.is_active else None


class M3(WithIndex):
    """The last session of a user stands for all: when it is deleted, the older ones cannot be found."""

    class index(Index):
        def remove(self, key: bytes, entry: Entry) -> None:
            group = self._groups.get(key, {})
            if entry.session_id == next(reversed(group), None):
                group.clear()
            group.pop(entry.session_id, None)


class M4(WithTable):
    """Deleting a session that is at work deletes it, and its handlers go on for nobody."""

    class table(SessionTable):
        def close(self, entry: Entry, reason: EndReason, *, over: bool = False) -> bool:
            entry.work = Work()
            return super().close(entry, reason, over=over)


class M5Drops(SessionManager):
    """`stop` says that it waits for what is in flight, and drops it."""

    def sweep(self, now: float) -> tuple[SessionRecord, ...]:
        if self.is_draining:
            self._table.drain_at, kept = now, self._table.drain_at
            try:
                return super().sweep(now)
            finally:
                self._table.drain_at = kept
        return super().sweep(now)


class M5Takes(SessionManager):
    """After `stop`, sessions are taken as before."""

    def create_session(self, *arguments: Any, **parameters: Any) -> SessionRecord:
        kept, self._table.drain_at = self._table.drain_at, None
        try:
            return super().create_session(*arguments, **parameters)
        finally:
            self._table.drain_at = kept


class M6(SessionManager):
    """The limit on requests is stored, and told, and never applied."""

    def begin_request(self, session_id: bytes, now: float) -> RequestToken:
        entry = self._table.entries.get(session_id)
        if entry is not None:
            config, entry.config = entry.config, evolve(entry.config, max_requests=1 << 20)
        try:
            return super().begin_request(session_id, now)
        finally:
            if entry is not None:
                entry.config = config


class M7(SessionManager):
    """What is to go is found first and removed later, whatever has begun in between."""

    def sweep(self, now: float) -> tuple[SessionRecord, ...]:
        self._table.settle(now)
        found = [entry for entry in self._table.entries.values() if entry.state is SessionState.CLOSING]
        for entry in found:
            self._table.finish(entry)
        return tuple(entry.record(self._clock) for entry in found)


@frozen
class Fault:
    """A fault, and which property sees it.

    Attributes:
        name: as the research has it.
        caught_by: the name of the property.
        machine: in which it is.
        attributes: what is put into it.
    """

    name: str
    caught_by: str
    machine: type[Checked]
    attributes: dict[str, Any]


def of_store(store: type[MemoryStore]) -> Callable[[MemoryStore], Callable[[], MemoryStore]]:
    """All managers share one store of this kind."""

    def opens(_: MemoryStore) -> Callable[[], MemoryStore]:
        shared = store(0.0)
        return lambda: shared

    return opens


FAULTS = (
    Fault("K1", "S9", Life, {"make": K1}),
    Fault("K2", "S12", Life, {"make": K2}),
    Fault("K3", "S12", Life, {"make": K3}),
    Fault("K4", "S3", Life, {"make": K4}),
    Fault("K5", "S17", Life, {"make": K5}),
    Fault("K6", "S14", Sharing, {"opens": staticmethod(of_store(K6))}),
    Fault("K7", "S4", Life, {"make": K7}),
    Fault("K8", "S10", Life, {"make": K8}),
    Fault("K9", "S11", Life, {"make": K9}),
    Fault("K10", "S13", Life, {"make": K10}),
    Fault("K11", "S15", ComingBack, {"make": K11}),
    Fault("K12", "S14", Sharing, {"opens": staticmethod(k12)}),
    Fault("M1", "S8", Life, {"make": M1}),
    Fault("M2", "S2", Life, {"make": M2}),
    Fault("M3", "S9", Life, {"make": M3}),
    Fault("M4", "S6", Stopping, {"make": M4}),
    Fault("M5", "S16", Stopping, {"make": M5Drops}),
    Fault("M5", "S16", Stopping, {"make": M5Takes}),
    Fault("M6", "S7", Life, {"make": M6}),
    Fault("M7", "S5", Life, {"make": M7}),
)
