"""What binds the sessions of an endpoint to their manager: each becomes a record, and what the manager says is done.

The manager knows ids and times, the sessions know nothing of it. Here a session that begins is taken in or refused, one
that ends is told of, and those whose time is over, or that are to be let go of for another reason, are closed. Nothing
of this happens packet by packet. When a session was used, and how many streams it has, the manager asks the session
itself, at the moment when it would expire; `due` is never later than that moment, so an endpoint compares it with the
time before it takes in or hands out anything, and what has expired is closed first.

A session that is let go of in the middle of its work may finish it, and begins nothing new: its commands say so, and
streams that the peer opens after that are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from stt_proto.errors import (
    AuthenticationError,
    ConnectionRefusedError,
    SessionClosedError,
    SessionExpiredError,
    SessionTimeoutError,
    ShuttingDownError,
    SttError,
    TooManySessionsError,
)
from stt_proto.events import (
    DatagramReceived,
    Event,
    SessionClosed,
    SessionEstablished,
    StreamAcked,
    StreamFinished,
    StreamOpened,
    StreamReadable,
    StreamWritable,
)
from stt_proto.manager import EndReason, Namespace, SessionManager, SessionRecord
from stt_proto.session.session import Session
from stt_proto.types import CloseReason

NamespaceOf = Callable[[bytes], Namespace]
"""Says to which namespace the sessions of a peer belong, by its node id. It is pure. With a `ConnectionRefusedError` it
refuses the peer; whatever else it raises is the host's."""

TRAFFIC = frozenset((DatagramReceived, StreamAcked, StreamFinished, StreamReadable, StreamWritable))
"""Events that are nothing to `on_event`, and most of all; who looks here first saves a call."""

_LAST_WORDS: dict[EndReason, SessionClosedError] = {
    EndReason.GRACEFUL: SessionClosedError("closed by this side"),
    EndReason.TIMEOUT: SessionTimeoutError("closed by this side"),
    EndReason.ERROR: SessionClosedError("closed by this side", reason=CloseReason.ERROR),
    EndReason.AUTH_FAILURE: SessionClosedError(
        "closed by this side", reason=CloseReason.AUTH_FAILURE, code=AuthenticationError.code
    ),
    EndReason.EXPIRED: SessionTimeoutError("the session has expired", code=SessionExpiredError.code),
    EndReason.SHUTDOWN: SessionClosedError("about to stop", code=ShuttingDownError.code),
    EndReason.MOVED: SessionClosedError("the session goes on elsewhere"),
}
"""What is said to the peer."""


def end_reason_of(event: SessionClosed) -> EndReason:
    """Why a session ended that the manager did not end: as the peer's manager says, or in one of the four words."""
    if event.code == SessionExpiredError.code:
        return EndReason.EXPIRED
    if event.code == ShuttingDownError.code:
        return EndReason.SHUTDOWN
    return EndReason(event.reason)


class Lifecycle:
    """Keeps the sessions of one endpoint and their manager in step.

    Args:
        manager: of these sessions and no others.
        namespace_of: where they belong; all to `""` when `None`.

    Attributes:
        manager: as given.
        due: when `settle` is to be called at the latest.
        leaving: sessions that are at their last work.
    """

    __slots__ = ("_namespace_of", "_sessions", "due", "leaving", "manager")

    def __init__(self, manager: SessionManager, namespace_of: NamespaceOf | None) -> None:
        self.manager = manager
        self.due = inf
        self.leaving: dict[Session, None] = {}
        self._namespace_of = namespace_of
        self._sessions: dict[bytes, Session] = {}  # those with a record

    def begin(self, session: Session, session_id: bytes, peer_node_id: bytes, now: float) -> SttError | None:
        """Take a session in, or say why not. The other end of one that this endpoint has with itself has no record."""
        if session_id in self._sessions:
            return None
        try:
            namespace = self._namespace(peer_node_id)
            self.manager.create_session(session_id, peer_node_id, now, namespace=namespace, use=session)
        except (ConnectionRefusedError, ShuttingDownError, TooManySessionsError) as error:
            return error
        self._sessions[session_id] = session
        return None

    def has_room(self, peer_node_id: bytes, now: float) -> bool:
        """Whether a session with this peer would be taken in now."""
        try:
            self.manager.check_room(peer_node_id, now, namespace=self._namespace(peer_node_id))
        except (ConnectionRefusedError, ShuttingDownError, TooManySessionsError):
            return False
        return True

    def _namespace(self, peer_node_id: bytes) -> Namespace:
        return "" if self._namespace_of is None else self._namespace_of(peer_node_id)

    def on_event(self, session: Session | None, event: Event, now: float) -> bool:
        """Something happened; False when that is nothing for the application any more."""
        if session is None:
            return True
        match event:
            case SessionEstablished():
                return not session.initiator or self._on_dialled(session, now)
            case StreamOpened():
                return not self._turns_away(session, event.stream_id, now)
            case SessionClosed():
                self._on_closed(session, event, now)
        return True

    def _on_dialled(self, session: Session, now: float) -> bool:
        """A dial has succeeded; the limits may say that it did not."""
        error = self.begin(session, session.session_id, session.peer_node_id, now)
        if error is not None:
            session.abort(now, error)
        return error is None

    def _on_closed(self, session: Session, event: SessionClosed, now: float) -> None:
        """It is over; that is news for the manager, unless it ended it."""
        self.leaving.pop(session, None)
        if self._sessions.get(session.session_id) is session:
            del self._sessions[session.session_id]
            self.manager.end_session(session.session_id, now, end_reason_of(event))

    def _turns_away(self, session: Session, stream_id: int, now: float) -> bool:
        """Whether a stream that the peer opens is refused, since the session is being let go of."""
        if session not in self.leaving:
            return False
        stream, refusal = session.stream(stream_id), session.retiring
        if stream is not None and refusal is not None and session.is_active():
            if stream.can_write:
                stream.reset(refusal.code, now)
            stream.stop(refusal.code, now)
        return True

    def look(self, session: Session, now: float) -> None:
        """A session that is at its last work may be done with it."""
        if not session.open_streams:
            self.manager.work_changed(session.session_id, now)

    def settle(self, now: float) -> None:
        """Close what is to be closed by now, and tell the others that are to be let go of."""
        manager = self.manager
        for record in manager.sweep(now):
            self._end(record, now)
        for record in manager.take_leaving():
            session = self._sessions.get(record.session_id)
            if record.is_closed:
                self._end(record, now)
            elif session is not None:
                session.retiring = _retiring(record)
                self.leaving[session] = None
        self.due = manager.due()[0]

    def _end(self, record: SessionRecord, now: float) -> None:
        """The manager has closed a session: what it has sent is delivered first, unless it was cut off at its work."""
        session = self._sessions.pop(record.session_id, None)
        reason = record.close_reason
        if session is None or session.is_closed or reason is None:
            return
        self.leaving[session] = None  # until it is closed: what the peer opens meanwhile is nothing any more
        words = _LAST_WORDS[reason]
        if record.requests or session.open_streams:
            session.abort(now, type(words)(words.message, reason=words.reason, code=words.code))
        else:
            session.close(now, words.reason, words.message, words.code)


def _retiring(record: SessionRecord) -> SttError:
    """What commands raise that would begin something new on a session that is being let go of."""
    if record.close_reason is EndReason.EXPIRED:
        return SessionExpiredError("the session has expired; what it is at goes on until it is done")
    if record.close_reason is EndReason.SHUTDOWN:
        return ShuttingDownError("nothing new is begun any more")
    return SessionClosedError("the session is closing")
