"""The manager of sessions: which there are, until when, what they are at, and how many there may be.

It knows ids and times and no session. A host tells it what happens (a session was established, was used, ended) and
does what it says (close those that `sweep` gives). Everything is a plain call with the time as an argument: nothing can
come in between the question and the deed, so a clean-up never meets a request that has just begun.

    ESTABLISHED ----------------------------> CLOSED ---> forgotten
         |      close_session(.., "error")       ^
         |                                       |
         +-----------> CLOSING ------------------+
          expired, closed      no work left, and swept; or the deadline of drain()
          with work to do

A session expires at `expires_at`, whenever anybody looks: `get_session` asks the time and not the sweep. What begins to
end never comes back: a use, an extension or a change that comes too late is an error and changes nothing. Each
session ends once, for one reason: the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from stt_proto.clock import Clock
from stt_proto.errors import (
    ArgumentError,
    RateLimitedError,
    ShuttingDownError,
    TooManyRequestsError,
    VersionConflictError,
)
from stt_proto.manager.checks import (
    MAX_SECONDS,
    MIN_SECONDS,
    check_flag,
    check_kind,
    check_node_id,
    check_number,
    check_session_id,
    check_whole,
)
from stt_proto.manager.config import SessionConfig, overlay
from stt_proto.manager.drain import DrainStatus
from stt_proto.manager.entries import Entry
from stt_proto.manager.limits import ManagerLimits
from stt_proto.manager.metadata import Scalar, frozen_metadata
from stt_proto.manager.metrics import ManagerMetrics, ManagerStats
from stt_proto.manager.namespaces import Namespace, namespace_bytes
from stt_proto.manager.records import MAX_VERSION, EndReason, SessionRecord, check_record
from stt_proto.manager.requests import RequestToken
from stt_proto.manager.table import SessionTable, not_found
from stt_proto.manager.use import Use
from stt_proto.types import Deadline


class SessionManager:
    """Sessions by id, by peer and by namespace, their lifetimes, their work, their limits.

    `now` is seconds on any monotonic clock; one smaller than the last counts as the last. Every call raises
    `ArgumentError` for an argument that is out of its range, before anything is changed.

    Args:
        now: the time.
        unix_time: the wall clock at `now`, in which records tell times.
        defaults: the configuration of sessions that say nothing else.
        limits: how much there may be.
    """

    __slots__ = ("_clock", "_table", "defaults", "limits")

    def __init__(
        self,
        now: float = 0.0,
        unix_time: float = 0.0,
        *,
        defaults: SessionConfig | None = None,
        limits: ManagerLimits | None = None,
    ) -> None:
        self.defaults = SessionConfig() if defaults is None else defaults
        self.limits = ManagerLimits() if limits is None else limits
        check_kind("defaults", self.defaults, SessionConfig)
        check_kind("limits", self.limits, ManagerLimits)
        self._clock = Clock(now, unix_time)
        self._table = SessionTable(self._clock, self.limits)

    def set_unix_time(self, unix_time: float, now: float) -> None:
        """Correct the wall clock; no lifetime changes by that."""
        self._clock.set_unix(unix_time, self._clock.advance(now))

    # -- beginning -------------------------------------------------------------------------------------------------

    def create_session(
        self,
        session_id: bytes,
        peer_node_id: bytes,
        now: float,
        *,
        namespace: Namespace = "",
        config: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Scalar] | None = None,
        use: Use | None = None,
    ) -> SessionRecord:
        """Take in a session that was established.

        Args:
            session_id: 8 bytes, which no session has that is still known.
            peer_node_id: who is at the other end, 32 bytes.
            now: the time.
            namespace: what it shares with others, under any name up to 1,024 bytes.
            config: parameters of `SessionConfig` that differ from the manager's defaults.
            metadata: what the application wants to remember with it; copied.
            use: what the session says of itself: when it was used, how many streams it has. Then nobody has to call
                `touch`, `stream_opened` and `stream_closed`; but `work_changed` when it may have come to rest, and
                `take_leaving` with each `sweep`.

        Raises:
            ConfigError: a parameter is unknown or out of its range; all that are get named.
            ShuttingDownError: the manager drains.
            TooManySessionsError: of this peer, of this namespace, or in all (`scope`). Nothing changed.
        """
        check_session_id(session_id)
        check_node_id(peer_node_id)
        name = namespace_bytes(namespace)
        effective = overlay(self.defaults, config, self.defaults)
        kept = frozen_metadata(metadata, self.limits.metadata_entries, self.limits.metadata_bytes)
        now = self._table.settle(now)
        entry = Entry(session_id, peer_node_id, namespace, name, effective, kept, now, use)
        self._table.admit(entry)
        return entry.record(self._clock)

    def check_room(self, peer_node_id: bytes, now: float, *, namespace: Namespace = "") -> None:
        """Say beforehand whether there is room for a session; one for which there is none counts as refused.

        Raises:
            ShuttingDownError, TooManySessionsError: as for `create_session`.
        """
        check_node_id(peer_node_id)
        name = namespace_bytes(namespace)
        self._table.settle(now)
        self._table.check_room(peer_node_id, name)

    def restore_session(self, record: SessionRecord, now: float) -> SessionRecord:
        """Go on with a session from a record: after a restart, or from another server.

        Its time goes on by the wall clock; ten years are left to it at most, whatever that says. It begins without
        work, and with its place in the limits of this manager.

        Raises:
            SessionNotFound: the record is of a session that is no longer to be used, with the reason.
            SessionExpiredError: it has expired meanwhile.
            ShuttingDownError, TooManySessionsError: as for `create_session`.
        """
        check_record(record)
        name = namespace_bytes(record.namespace)
        kept = frozen_metadata(record.metadata, self.limits.metadata_entries, self.limits.metadata_bytes)
        now = self._table.settle(now)
        if not record.is_active:
            raise not_found(record.session_id, record.close_reason)
        since = self._clock.unix(now) - now
        entry = Entry(record.session_id, record.peer_node_id, record.namespace, name, record.config, kept, now)
        entry.config_version = record.config_version
        life = entry.life
        life.created_at = min(now, record.created_at - since)
        life.last_used = min(now, record.last_active - since)
        if record.extended_until is not None:
            life.extended_until = min(now + MAX_SECONDS, record.extended_until - since)
        if life.expires_at <= now:
            raise not_found(record.session_id, EndReason.EXPIRED)
        self._table.admit(entry)
        self._table.counters.restored += 1
        return entry.record(self._clock)

    # -- looking: nothing of this extends anything -----------------------------------------------------------------

    def get_session(self, session_id: bytes, now: float) -> SessionRecord | None:
        """A session that can be used; `None` for one that has expired, is being closed, is closed, or is not known."""
        entry = self._table.usable(session_id, now)
        return None if entry is None else entry.record(self._clock)

    def has_session(self, session_id: bytes, now: float) -> bool:
        """Whether there is a session that can be used."""
        return self._table.usable(session_id, now) is not None

    def inspect(self, session_id: bytes, now: float) -> SessionRecord | None:
        """What is known of a session, also when it is over and not forgotten."""
        check_session_id(session_id)
        entry = self._table.entries.get(session_id)
        self._table.expire(entry, self._clock.advance(now))
        return None if entry is None else entry.record(self._clock)

    def remaining_ttl(self, session_id: bytes, now: float) -> float:
        """Seconds until it expires, if nothing happens to it; 0 when it can no longer be used.

        Raises:
            SessionNotFound: nothing is known of it.
        """
        entry = self._table.usable(session_id, now)
        if entry is not None:
            return entry.life.expires_at - self._clock.now
        if session_id not in self._table.entries:
            raise not_found(session_id, None)
        return 0.0

    def list_sessions(self, now: float, *, namespace: Namespace | None = None) -> tuple[SessionRecord, ...]:
        """All sessions that are known, also those that are over, in the order in which they came; or of a namespace."""
        name = None if namespace is None else namespace_bytes(namespace)
        self._table.settle(now)
        entries = self._table.entries.values()
        return tuple(entry.record(self._clock) for entry in entries if name in (None, entry.name))

    def get_active_sessions(self, now: float, *, namespace: Namespace | None = None) -> tuple[SessionRecord, ...]:
        """The sessions that can be used, in the order in which they came; or those of a namespace."""
        name = None if namespace is None else namespace_bytes(namespace)
        self._table.settle(now)
        return self._active(self._table.entries.values() if name is None else self._table.by_namespace.of(name))

    def find_session_by_peer(self, peer_node_id: bytes, now: float) -> tuple[SessionRecord, ...]:
        """All sessions with a peer that can be used, in the order in which they came."""
        check_node_id(peer_node_id)
        self._table.settle(now)
        return self._active(self._table.by_peer.of(peer_node_id))

    def get_session_count(self, now: float) -> int:
        """How many sessions can be used."""
        self._table.settle(now)
        return self._table.counters.active

    def get_stats(self, now: float) -> ManagerStats:
        """How many sessions are held."""
        self._table.settle(now)
        active, closing = self._table.counters.active, self._table.counters.closing
        total = len(self._table.entries)
        return ManagerStats(total=total, active=active, closing=closing, closed=total - active - closing)

    def metrics(self, now: float) -> ManagerMetrics:
        """What happened so far. Each session that says of itself how it is gets asked for its streams."""
        self._table.settle(now)
        return self._table.counters.metrics(self._table.streams)

    # -- using and changing ----------------------------------------------------------------------------------------

    def touch(self, session_id: bytes, now: float) -> bool:
        """Say that the peer used a session: something authentic came. False when it can no longer be used."""
        entry = self._table.usable(session_id, now)
        if entry is None:
            return False
        entry.life.last_used = self._clock.now
        return True

    def extend(self, session_id: bytes, seconds: float, now: float) -> float:
        """Let a session live for `seconds` from now at least, 0.001 to ten years; give the seconds that are left.

        It never makes them fewer, so asking twice is asking once; and no later use does.

        Raises:
            SessionNotFound: it can no longer be used, with the reason; `SessionExpiredError` when that is its age.
        """
        check_number("seconds", seconds, MIN_SECONDS, MAX_SECONDS)
        entry = self._table.need(session_id, now)
        entry.life.extend(seconds, self._clock.now)
        return entry.life.expires_at - self._clock.now

    def update_config(
        self, session_id: bytes, changes: Mapping[str, Any], now: float, *, if_version: int | None = None
    ) -> SessionRecord:
        """Change parameters of a session while it goes on: all of them, or none.

        Another `ttl` or `sliding` counts from its beginning or last use, and is what ends an extension.

        Args:
            session_id: of which.
            changes: parameters of `SessionConfig` by name; `None` for the manager's default.
            now: the time.
            if_version: the `config_version` that the changes are based on; `None` for any.

        Raises:
            ConfigError: a parameter is unknown or out of its range; all that are get named.
            VersionConflictError: somebody else was faster.
            SessionNotFound: it can no longer be used, with the reason.
        """
        if if_version is not None:
            check_whole("if_version", if_version, 1, MAX_VERSION)
        entry = self._table.need(session_id, now)
        config = overlay(entry.config, changes, self.defaults)
        if if_version not in (None, entry.config_version):
            raise VersionConflictError(
                f"the configuration has version {entry.config_version}, not {if_version}", version=entry.config_version
            )
        if config != entry.config:
            entry.change_config(config, self._clock.now)
            self._table.config_changed(entry)
        return entry.record(self._clock)

    def set_namespace(self, session_id: bytes, namespace: Namespace, now: float) -> SessionRecord:
        """Put a session into another namespace.

        Raises:
            TooManySessionsError: it holds as many as it may; nothing changed.
            SessionNotFound: it can no longer be used, with the reason.
        """
        name = namespace_bytes(namespace)
        entry = self._table.need(session_id, now)
        self._table.place(entry, namespace, name)
        return entry.record(self._clock)

    def set_metadata(self, session_id: bytes, metadata: Mapping[str, Scalar], now: float) -> SessionRecord:
        """Replace the metadata of a session by a copy of this.

        Raises:
            SessionNotFound: it can no longer be used, with the reason.
        """
        kept = frozen_metadata(metadata, self.limits.metadata_entries, self.limits.metadata_bytes)
        entry = self._table.need(session_id, now)
        entry.metadata = kept
        return entry.record(self._clock)

    def rotate_all_keys(self, now: float) -> tuple[bytes, ...]:
        """The ids of all sessions that can be used, the most urgent first: whose keys the host is to replace."""
        self._table.settle(now)
        active = [entry for entry in self._table.entries.values() if entry.is_active]
        active.sort(key=lambda entry: entry.config.priority)
        return tuple(entry.session_id for entry in active)

    # -- work in progress ------------------------------------------------------------------------------------------

    def begin_request(self, session_id: bytes, now: float) -> RequestToken:
        """Begin a request: until it has ended, no clean-up takes its session. It is a use of the session.

        Raises:
            SessionNotFound: the session can no longer be used, with the reason.
            ShuttingDownError: the manager drains.
            TooManyRequestsError: of this session or in all (`scope`).
            RateLimitedError: they come too fast.
        """
        check_session_id(session_id)
        if self._table.drain_at is not None:
            raise self._table.refuse("shutdown", ShuttingDownError("no request is taken any more"))
        entry = self._table.need(session_id, now)
        now = self._clock.now
        config, work = entry.config, entry.work
        if work.requests >= config.max_requests:
            message = f"requests of this session in flight: {config.max_requests:,}, the most there may be"
            raise self._table.refuse("requests", TooManyRequestsError(message))
        if self._table.counters.requests_in_flight >= self.limits.requests_at(config.priority):
            message = f"requests in flight: {self._table.counters.requests_in_flight:,}, the most there may be"
            raise self._table.refuse("requests_in_all", TooManyRequestsError(message, scope="all"))
        wait = entry.bucket.wait(now)
        if wait:
            message = f"the next request may come in {wait:.3f} seconds"
            raise self._table.refuse("rate", RateLimitedError(message, retry_after=wait))
        entry.bucket.take(now)
        entry.life.last_used = now
        self._table.counters.requests_begun += 1
        return work.begin(session_id)

    def end_request(self, token: RequestToken, now: float, *, failed: bool = False) -> bool:
        """End a request, whatever has become of its session; False when it has ended before. It is a use, too."""
        check_kind("token", token, RequestToken)
        check_flag("failed", failed)
        now = self._clock.advance(now)
        entry = self._table.entries.get(token.session_id)
        if entry is None or not entry.work.end(token):
            return False
        self._table.counters.requests_ended += 1
        self._table.counters.requests_failed += failed
        self._table.used(entry, now)
        return True

    @contextmanager
    def track_request(self, session_id: bytes, now: float) -> Iterator[RequestToken]:
        """A request that ends with the block, however that ends; at the latest time that the manager was told.

        Raises:
            SessionNotFound, ShuttingDownError, TooManyRequestsError, RateLimitedError: as for `begin_request`.
        """
        token = self.begin_request(session_id, now)
        failed = True
        try:
            yield token
            failed = False
        finally:
            self.end_request(token, self._clock.now, failed=failed)

    def stream_opened(self, session_id: bytes, now: float) -> bool:
        """Count a stream: until it is closed, no clean-up takes its session. False when it can no longer be used."""
        entry = self._table.usable(session_id, now)
        if entry is None:
            return False
        entry.work.counted += 1
        entry.life.last_used = self._clock.now
        self._table.counters.streams += 1
        return True

    def stream_closed(self, session_id: bytes, now: float) -> bool:
        """Count a stream out; False when none is open. The streams of a session are over when it is."""
        check_session_id(session_id)
        now = self._clock.advance(now)
        entry = self._table.entries.get(session_id)
        if entry is None or not entry.work.counted:
            return False
        entry.work.counted -= 1
        self._table.counters.streams -= 1
        self._table.used(entry, now)
        return True

    def work_changed(self, session_id: bytes, now: float) -> None:
        """Say that a session which says of itself what it is at (`use`) may have come to rest."""
        check_session_id(session_id)
        self._clock.advance(now)
        entry = self._table.entries.get(session_id)
        if entry is not None and not (entry.is_active or entry.is_closed):
            self._table.rest(entry)

    # -- ending ----------------------------------------------------------------------------------------------------

    def close_session(self, session_id: bytes, now: float, reason: str = EndReason.GRACEFUL) -> bool:
        """Close a session; False when that changes nothing.

        From now on it cannot be used. For `graceful`, `shutdown` and `moved` it is over when its work is, and then
        `sweep` gives it; for `timeout`, `error` and `auth_failure` it is over, and requests still in flight end when
        they do.

        Args:
            session_id: of which.
            now: the time.
            reason: an `EndReason`.
        """
        check_session_id(session_id)
        why = _reason(reason)
        entry = self._table.entries.get(session_id)
        self._table.expire(entry, self._clock.advance(now))
        return entry is not None and self._table.close(entry, why)

    def end_session(self, session_id: bytes, now: float, reason: str = EndReason.GRACEFUL) -> bool:
        """Say that a session is over, whatever it was at; False when that is known.

        Its streams are, too; requests still in flight end when they do. If it was being closed, it keeps that reason.
        """
        check_session_id(session_id)
        why = _reason(reason)
        entry = self._table.entries.get(session_id)
        self._table.expire(entry, self._clock.advance(now))
        return entry is not None and self._table.close(entry, why, over=True)

    def close_all_sessions(self, now: float, reason: str = EndReason.GRACEFUL) -> int:
        """Close all sessions, as `close_session` does; give how many that changed."""
        why = _reason(reason)
        self._table.settle(now)
        return sum([self._table.close(entry, why) for entry in list(self._table.entries.values())])

    def cleanup_closed_sessions(self, now: float) -> int:
        """Forget the sessions that are over and have no request in flight; give how many."""
        self._table.settle(now)
        forgotten = len(self._table.closed)
        for session_id in list(self._table.closed):
            self._table.forget(session_id)
        return forgotten

    def sweep(self, now: float) -> tuple[SessionRecord, ...]:
        """End what is due: give the sessions that are over by this, which the host is to close.

        Those that have expired or were closed, and have no work left; once the deadline of `drain` has come, all.
        """
        now = self._table.settle(now)
        due = list(self._table.ready.values())
        if self._table.drain_at is not None and self._table.drain_at <= now and self._table.counters.closing:
            due = [entry for entry in self._table.entries.values() if not entry.is_closed]
        for entry in due:
            self._table.finish(entry)
        return tuple(entry.record(self._clock) for entry in due)

    def take_leaving(self) -> tuple[SessionRecord, ...]:
        """Give those that were closed, or began to be, since this was asked last, and were not given by `sweep`.

        Only sessions that say of themselves how they are (`use`). What those that are not closed yet are at may go on
        until `sweep` gives them, but nothing new is to be begun there.
        """
        leaving = tuple(entry.record(self._clock) for entry in self._table.leaving.values())
        self._table.leaving.clear()
        return leaving

    def due(self) -> tuple[float, str]:
        """The same as `next_deadline` without an object; the time is `inf` when nothing is to come."""
        return self._table.due()

    @property
    def stirs(self) -> int:
        """How often something happened by which `due` may have become earlier; it has not while this is the same."""
        return self._table.stirs

    @property
    def is_draining(self) -> bool:
        """Whether nothing new is taken."""
        return self._table.drain_at is not None

    def next_deadline(self) -> Deadline | None:
        """When `sweep` wants to be called; it may find nothing to do then. `None` when nothing is to come."""
        return self._table.next_deadline()

    def drain(self, now: float, timeout: float) -> DrainStatus:
        """Begin to stop: nothing new is taken, sessions without work end with the next sweep, the others when their
        work is done, and after `timeout` seconds, 0 to ten years, all that is left.

        Asking again can only bring the deadline nearer.
        """
        check_number("timeout", timeout, 0.0, MAX_SECONDS)
        now = self._table.settle(now)
        deadline = now + timeout
        if self._table.drain_at is None:
            self._table.drain_at = deadline
            self.close_all_sessions(now, EndReason.SHUTDOWN)
        self._table.drain_at = min(self._table.drain_at, deadline)
        self._table.stirs += 1
        return self.drain_status(now)

    def drain_status(self, now: float) -> DrainStatus:
        """How far that is; the same sessions are asked."""
        self._table.settle(now)
        counters = self._table.counters
        return DrainStatus(
            deadline=self._table.drain_at,
            sessions=counters.active + counters.closing,
            requests=counters.requests_in_flight,
            streams=self._table.streams,
        )

    # -- inside ---------------------------------------------------------------------------------------------------

    def _active(self, entries: Iterable[Entry]) -> tuple[SessionRecord, ...]:
        return tuple(entry.record(self._clock) for entry in entries if entry.is_active)


def _reason(reason: str) -> EndReason:
    try:
        return EndReason(reason)
    except ValueError:
        words = ", ".join(EndReason)
        raise ArgumentError(f"reason is {reason!r}; it must be one of {words}", argument="reason") from None
