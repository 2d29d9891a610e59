"""The table of sessions: how one comes in, how it expires, how it ends, and how it is forgotten.

Each of these is decided in one place, and none calls back: settling the time ends what is due, once for each session.
"""

from __future__ import annotations

from collections import OrderedDict
from math import inf

from stt_proto.clock import Clock, DeadlineQueue
from stt_proto.errors import (
    ArgumentError,
    SessionExpiredError,
    SessionNotFound,
    ShuttingDownError,
    SttError,
    TooManySessionsError,
)
from stt_proto.manager.checks import check_session_id
from stt_proto.manager.entries import Entry, Index
from stt_proto.manager.limits import ManagerLimits
from stt_proto.manager.metrics import Counters
from stt_proto.manager.namespaces import Namespace
from stt_proto.manager.records import EndReason
from stt_proto.types import Deadline, SessionState


class SessionTable:
    """Sessions by id, by peer and by namespace, with what is due and when.

    Attributes:
        clock: the time.
        limits: how much there may be.
        entries: all sessions that are known, in the order in which they came.
        by_peer: those that have a place, by peer.
        by_namespace: those that have a place, by namespace.
        ready: those that are closing and have no work left.
        speaking: those that say of themselves how they are, and are not over.
        leaving: of these, those that were closed, or began to be, since the host asked for them last.
        closed: those that are over and free to be forgotten, the oldest first, and when they will be.
        counters: what happened.
        stirs: how often something happened by which `due` may have become earlier.
        drain_at: when all is to be ended; `None` while there is no drain.
    """

    __slots__ = (
        "_deadlines", "_serial", "by_namespace", "by_peer", "clock", "closed", "counters", "drain_at", "entries",
        "leaving", "limits", "ready", "speaking", "stirs",
    )  # fmt: skip

    def __init__(self, clock: Clock, limits: ManagerLimits) -> None:
        self.clock = clock
        self.limits = limits
        self.entries: dict[bytes, Entry] = {}
        self.by_peer = Index()
        self.by_namespace = Index()
        self.ready: dict[bytes, Entry] = {}
        self.speaking: dict[bytes, Entry] = {}
        self.leaving: dict[bytes, Entry] = {}
        self.closed: OrderedDict[bytes, float] = OrderedDict()  # a dict is slow to find its first key
        self.counters = Counters()
        self.drain_at: float | None = None
        self.stirs = 0
        self._deadlines: DeadlineQueue[bytes] = DeadlineQueue()  # of those that can expire
        self._serial = 0

    # -- who comes in --------------------------------------------------------------------------------------

    def admit(self, entry: Entry) -> None:
        """Take one in, or refuse it and change nothing."""
        session_id = entry.session_id
        self._check_open()
        if session_id in self.entries:
            raise ArgumentError(f"session_id {session_id.hex()} is that of another session", argument="session_id")
        self.check_room(entry.peer_node_id, entry.name)
        self._serial += 1
        entry.generation = self._serial
        self.entries[session_id] = entry
        if entry.speaks:
            self.speaking[session_id] = entry
        self.by_peer.add(entry.peer_node_id, entry)
        self.by_namespace.add(entry.name, entry)
        self._deadlines.arm(session_id, entry.life.expires_at, "expiry")
        self.stirs += 1
        self.counters.created += 1
        self.counters.active += 1

    def _check_open(self) -> None:
        if self.drain_at is not None:
            raise self.refuse("shutdown", ShuttingDownError("no session is taken any more"))

    def place(self, entry: Entry, namespace: Namespace, name: bytes) -> None:
        """Put one into another namespace, or refuse that and change nothing."""
        if name == entry.name:
            return
        held = self.by_namespace.count(name)
        if held >= self.limits.sessions_per_namespace:
            error = TooManySessionsError(f"{held:,} sessions are held (namespace)", scope="namespace")
            raise self.refuse("namespace", error)
        self.by_namespace.remove(entry.name, entry)
        entry.namespace, entry.name = namespace, name
        self.by_namespace.add(name, entry)

    def check_room(self, peer_node_id: bytes, name: bytes) -> None:
        """Refuse one of this peer and namespace, if there is no room for it."""
        self._check_open()
        limits = self.limits
        for scope, held, most in (
            ("all", self._held, limits.sessions),
            ("peer", self.by_peer.count(peer_node_id), limits.sessions_per_peer),
            ("namespace", self.by_namespace.count(name), limits.sessions_per_namespace),
        ):
            if held >= most:
                error = TooManySessionsError(f"{held:,} sessions are held ({scope})", scope=scope)
                raise self.refuse("sessions" if scope == "all" else scope, error)

    @property
    def _held(self) -> int:
        """Sessions that have a place: all but those that are free to be forgotten."""
        return len(self.entries) - len(self.closed)

    def refuse(self, what: str, error: SttError) -> SttError:
        """Count a refusal (`REFUSALS`), and give the error back."""
        self.counters.refused[what] += 1
        return error

    # -- who is there --------------------------------------------------------------------------------------

    def usable(self, session_id: bytes, now: float) -> Entry | None:
        """The session, if it can be used now. Asks for this one only, however many are due."""
        check_session_id(session_id)
        entry = self.entries.get(session_id)
        self.expire(entry, self.clock.advance(now))
        return entry if entry is not None and entry.is_active else None

    def need(self, session_id: bytes, now: float) -> Entry:
        """The same; else the error that tells why there is none."""
        entry = self.usable(session_id, now)
        if entry is None:
            known = self.entries.get(session_id)
            raise not_found(session_id, None if known is None else known.close_reason)
        return entry

    # -- how it ends ---------------------------------------------------------------------------------------

    def settle(self, now: float) -> float:
        """Take in the time, and let everything expire that is due; each session costs O(log n) once."""
        now = self.clock.advance(now)
        deadlines, closed = self._deadlines, self.closed
        while (session_id := deadlines.pop_due(now)) is not None:
            entry = self.entries[session_id]
            if not self.expire(entry, now):
                deadlines.arm(session_id, entry.life.expires_at, "expiry")
        while closed and closed[oldest := next(iter(closed))] <= now:
            self.forget(oldest)
        return now

    def config_changed(self, entry: Entry) -> None:
        """It may expire earlier now, or have expired."""
        self.stirs += 1
        self._deadlines.arm(entry.session_id, entry.life.expires_at, "expiry")
        self.expire(entry, self.clock.now)

    def due(self) -> tuple[float, str]:
        """When `settle` or a sweep has something to do, at the earliest, and what; a host asks after every batch."""
        if self.ready or self.leaving:
            return self.clock.now, "sweep"
        at, reason = self._deadlines.at, "expiry"
        if self.drain_at is not None and self.counters.closing and self.drain_at < at:
            at, reason = self.drain_at, "drain"
        if self.closed and (forgotten := self.closed[next(iter(self.closed))]) < at:
            at, reason = forgotten, "forget"
        return at, reason

    def next_deadline(self) -> Deadline | None:
        """The same, or `None`."""
        at, reason = self.due()
        return None if at == inf else Deadline(at, reason)

    @property
    def streams(self) -> int:
        """Streams that are open, in all."""
        return self.counters.streams + sum([entry.work.said for entry in self.speaking.values()])

    def expire(self, entry: Entry | None, now: float) -> bool:
        """The one place where it is decided that a session has expired."""
        if entry is None or not entry.is_active or entry.life.expires_at > now:
            return False
        return self.close(entry, EndReason.EXPIRED)

    def close(self, entry: Entry, reason: EndReason, *, over: bool = False) -> bool:
        """Begin to end one, or end it, which it is when that is a fact or it is `over`; False when nothing changes."""
        waits = reason.waits and not over
        if entry.is_closed or (waits and not entry.is_active):
            return False
        if entry.is_active:
            entry.state = SessionState.CLOSING
            entry.close_reason = reason
            self._deadlines.forget(entry.session_id)
            self.counters.active -= 1
            self.counters.closing += 1
        speaks = entry.speaks
        if waits:
            self.rest(entry)
        else:
            self.finish(entry)
        if speaks and not over:
            self.leaving[entry.session_id] = entry
        return True

    def used(self, entry: Entry, now: float) -> None:
        """Some work has ended."""
        self.expire(entry, now)
        if entry.is_active:
            entry.life.last_used = now
        else:
            self.rest(entry)

    def rest(self, entry: Entry) -> None:
        """It is no longer to be used: if it has no work either, it is to be swept, or to be forgotten."""
        self.stirs += 1
        if entry.work.is_idle:
            if entry.is_closed:
                self._leave(entry)
            else:
                self.ready[entry.session_id] = entry

    def finish(self, entry: Entry) -> None:
        """It is over."""
        for group in (self.ready, self.leaving, self.speaking):
            group.pop(entry.session_id, None)
        entry.state = SessionState.CLOSED
        entry.closed_at = self.clock.now
        self.counters.streams -= entry.work.counted
        entry.hush()
        self.counters.closing -= 1
        self.counters.ended[entry.close_reason] += 1
        self.rest(entry)

    def _leave(self, entry: Entry) -> None:
        """It gives its place away; for a while it is remembered why."""
        self.by_peer.remove(entry.peer_node_id, entry)
        self.by_namespace.remove(entry.name, entry)
        self.closed[entry.session_id] = self.clock.now + self.limits.closed_retention
        if len(self.closed) > self.limits.closed_sessions:
            self.forget(next(iter(self.closed)))

    def forget(self, session_id: bytes) -> None:
        """Nothing is known of it any more."""
        del self.entries[session_id]
        del self.closed[session_id]
        self.counters.forgotten += 1


def not_found(session_id: bytes, reason: EndReason | None) -> SessionNotFound:
    """The error for a session that cannot be used, for this reason; `None` when nothing is known of it."""
    if reason is EndReason.EXPIRED:
        return SessionExpiredError(f"session {session_id.hex()} has expired")
    if reason is None:
        return SessionNotFound(f"there is no session {session_id.hex()}")
    return SessionNotFound(f"session {session_id.hex()} is closed: {reason}", reason=reason)
