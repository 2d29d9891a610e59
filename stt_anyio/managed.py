"""What every host's managed sessions have in common: lifetimes, work in progress, limits; everything but the waiting.

The rules are the pure manager's (`stt_proto.manager`), and the endpoint sees to it that they are kept. Here they get
the names that an application uses: `node.session_manager`, and what a session says of itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from anyio.lowlevel import checkpoint

from stt_anyio.errors import SessionNotFound, StateError
from stt_proto import Session as CoreSession
from stt_proto.manager import (
    DrainStatus,
    ManagerMetrics,
    ManagerStats,
    Namespace,
    RequestToken,
    SessionManager,
    SessionRecord,
)
from stt_proto.manager.checks import check_session_id
from stt_proto.session.ending import close_frame

if TYPE_CHECKING:
    from stt_anyio.node_base import NodeBase
    from stt_anyio.session_base import SessionBase

DRAIN_TIMEOUT = 30.0
"""Seconds that work in progress gets when a node is drained, if nothing is said."""

SessionT = TypeVar("SessionT", bound="SessionBase[Any]")


class Books:
    """The pure manager of a node's sessions, and what time it is for it.

    A node that was never started has an empty one, and one that was stopped keeps the last.

    Attributes:
        core: the manager.
    """

    def __init__(self, node: NodeBase[Any]) -> None:
        self.node = node
        self.core = SessionManager()

    def open(self, now: float, unix_time: float) -> SessionManager:
        """A fresh one, as the node is started."""
        config = self.node.config
        self.core = SessionManager(now, unix_time, defaults=config.session_config(), limits=config.manager_limits())
        return self.core

    @property
    def now(self) -> float:
        """The time of the node; that of the last call once it has stopped."""
        return self.node.driver.clock() if self.node.running else 0.0

    @property
    def guard(self) -> AbstractContextManager[Any]:
        """What keeps other threads out."""
        return self.node.guard

    def settle(self) -> None:
        """Do at once what the manager says now."""
        if self.node.running:
            self.node.endpoint.settle(self.now)
            self.node.driver.pump()


class ManagedSession(ABC):
    """The half of a session that has a lifetime and work in progress."""

    node: NodeBase[Any]
    core: CoreSession

    @property
    @abstractmethod
    def session_id(self) -> bytes: ...

    @property
    def _books(self) -> Books:
        return self.node.session_manager

    @property
    def record(self) -> SessionRecord | None:
        """How the manager sees it, as a value; `None` once it is over and forgotten."""
        books = self._books
        with books.guard:
            return books.core.inspect(self.session_id, books.now)

    @property
    def remaining_ttl(self) -> float:
        """Seconds until it expires if nobody uses it; 0 once it has expired or is over. Looking is no use."""
        books = self._books
        with books.guard:
            try:
                return books.core.remaining_ttl(self.session_id, books.now)
            except SessionNotFound:
                return 0.0

    @property
    def namespace(self) -> Namespace:
        """What it shares with other sessions; `""` when nobody said anything."""
        record = self.record
        return "" if record is None else record.namespace

    def extend(self, seconds: float) -> float:
        """Let it live for `seconds` from now at least, 0.001 to ten years; give the seconds that are left.

        Asking twice is asking once, and no later use makes it less.

        Raises:
            SessionExpiredError: it has expired.
            SessionNotFound: it is over for another reason.
            ArgumentError: `seconds` is out of range.
        """
        books = self._books
        with books.guard:
            left = books.core.extend(self.session_id, seconds, books.now)
            books.settle()
            return left

    def configure(self, *, if_version: int | None = None, **changes: Any) -> SessionRecord:
        """Change how it is treated, while it goes on: all of the changes, or none.

        Args:
            if_version: the `record.config_version` that the changes are based on; `None` for any.
            changes: `ttl`, `sliding`, `max_requests`, `request_rate`, `request_burst` or `priority`, as in
                `stt_proto.manager.SessionConfig`; `None` for the node's default. Another `ttl` or `sliding` ends an
                extension.

        Raises:
            ConfigError: a parameter is unknown or out of its range; all that are get named.
            VersionConflictError: it was changed meanwhile.
            SessionNotFound: it is over.
        """
        books = self._books
        with books.guard:
            record = books.core.update_config(self.session_id, changes, books.now, if_version=if_version)
            books.settle()
            return record

    def set_namespace(self, namespace: Namespace) -> SessionRecord:
        """Put it into another namespace, as when it is known to which tenant it belongs.

        Raises:
            TooManySessionsError: there are as many in it as may be; nothing changed.
            SessionNotFound: it is over.
        """
        books = self._books
        with books.guard:
            return books.core.set_namespace(self.session_id, namespace, books.now)

    def track_request(self) -> TrackedRequest:
        """`async with session.track_request():` (or `with`): until the end of the block, no clean-up takes the session.

        Entering it raises:
            TooManyRequestsError: there are as many in flight as may be, of the session or in all (`scope`).
            RateLimitedError: they come too fast; `retry_after` seconds from now one is taken.
            ShuttingDownError: the node drains.
            SessionNotFound: the session has expired, or is over.
        """
        return TrackedRequest(self)


class TrackedRequest:
    """Work that a session is at, for as long as the block lasts. Good once."""

    __slots__ = ("_session", "_token")

    def __init__(self, session: ManagedSession) -> None:
        self._session = session
        self._token: RequestToken | None = None

    def __enter__(self) -> Self:
        if self._token is not None:
            raise StateError("this request has been begun before; ask for another one")
        books = self._session._books
        with books.guard:
            self._token = books.core.begin_request(self._session.session_id, books.now)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        books = self._session._books
        with books.guard:
            assert self._token is not None
            books.core.end_request(self._token, books.now, failed=kind is not None)
            if self._session.core.retiring is not None:
                books.settle()

    async def __aenter__(self) -> Self:
        await checkpoint()
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)


class ManagedSessions(Books, Generic[SessionT]):
    """The sessions of a node, by what one wants to know of them. What it gives are the sessions themselves.

    Looking at a session is no use of it: nothing here but `create_session` makes one live longer.
    """

    node: NodeBase[SessionT]

    def get_session(self, session_id: bytes) -> SessionT | None:
        """The session with this id, if it can be used: it has not expired, and is not over or about to be."""
        with self.guard:
            return self.node.sessions.get(session_id) if self.core.has_session(session_id, self.now) else None

    def has_session(self, session_id: bytes) -> bool:
        """Whether there is such a session."""
        return self.get_session(session_id) is not None

    def list_sessions(self) -> list[SessionT]:
        """The sessions that are not over, in the order in which they came; those that are about to be among them."""
        with self.guard:
            return list(self.node.sessions.values())

    def get_active_sessions(self, namespace: Namespace | None = None) -> list[SessionT]:
        """The sessions that can be used; or those of a namespace."""
        with self.guard:
            return self._sessions_of(self.core.get_active_sessions(self.now, namespace=namespace))

    def find_session_by_peer(self, peer_node_id: bytes) -> list[SessionT]:
        """All sessions with a peer that can be used, in the order in which they came."""
        with self.guard:
            return self._sessions_of(self.core.find_session_by_peer(peer_node_id, self.now))

    def get_session_count(self) -> int:
        """How many sessions can be used."""
        with self.guard:
            return self.core.get_session_count(self.now)

    def inspect(self, session_id: bytes) -> SessionRecord | None:
        """What is known of a session, also for five minutes after it is over: how it is treated, why it ended."""
        with self.guard:
            return self.core.inspect(session_id, self.now)

    def cleanup_closed_sessions(self) -> int:
        """Forget the sessions that are over, which happens by itself after five minutes; give how many."""
        with self.guard:
            return self.core.cleanup_closed_sessions(self.now)

    def get_stats(self) -> ManagerStats:
        """How many sessions are held: `total`, `active`, `closing` and `closed`."""
        with self.guard:
            return self.core.get_stats(self.now)

    def metrics(self) -> ManagerMetrics:
        """What happened since the node was started; the numbers always add up."""
        with self.guard:
            return self.core.metrics(self.now)

    def drain_status(self) -> DrainStatus:
        """How far the way to a stop is gone."""
        with self.guard:
            return self.core.drain_status(self.now)

    # -- for the hosts ---------------------------------------------------------------------------------------------

    def _sessions_of(self, records: tuple[SessionRecord, ...]) -> list[SessionT]:
        found = (self.node.sessions.get(record.session_id) for record in records)
        return [session for session in found if session is not None]

    def _check_new(self, namespace: Namespace | None, config: Any, metadata: Any) -> None:
        """Raise at once what `_describe` would raise when the session is there."""
        trial = SessionManager(defaults=self.core.defaults, limits=self.core.limits)
        space = "" if namespace is None else namespace
        trial.create_session(bytes(8), bytes(32), 0.0, namespace=space, config=config, metadata=metadata)

    def _describe(self, session: SessionT, namespace: Namespace | None, config: Any, metadata: Any) -> SessionT:
        """Say what is to be known of a new session; one for which there is no room is ended."""
        session_id = session.session_id
        try:
            if namespace is not None:
                self.core.set_namespace(session_id, namespace, self.now)
            if config is not None:
                self.core.update_config(session_id, config, self.now)
            if metadata is not None:
                self.core.set_metadata(session_id, metadata, self.now)
        except BaseException:
            session.abort()
            raise
        self.settle()
        return session

    def _begin_close(self, session_id: bytes, reason: str, detail: str) -> tuple[SessionT | None, bool]:
        """Begin to close a session; give it, and whether that was news. A mistake is told also if there is none."""
        check_session_id(session_id)
        close_frame(reason, detail)
        session = self.node.sessions.get(session_id)
        if session is None:
            return None, False
        active = session.is_active()
        session.begin_close(reason, detail)
        return session, active

    def _begin_close_all(self, reason: str, detail: str) -> list[tuple[SessionT | None, bool]]:
        """The same for all."""
        close_frame(reason, detail)
        return [self._begin_close(session_id, reason, detail) for session_id in tuple(self.node.sessions)]

    def _begin_rotations(self) -> dict[SessionT, int]:
        """Have the keys of all sessions replaced, the most urgent first; give the versions that they will have."""
        versions: dict[SessionT, int] = {}
        for session_id in self.core.rotate_all_keys(self.now):
            session = self.node.sessions.get(session_id)
            if session is not None and session.is_active() and "rotation" in session.capabilities:
                versions[session] = session._begin_rotation()
        return versions

    def _begin_drain(self, timeout: float) -> None:
        self.core.drain(self.now, timeout)
        self.settle()

    def _end_drain(self) -> None:
        """The time is over: what is left ends now."""
        self.settle()
        for session in tuple(self.node.sessions.values()):
            session.abort()
