"""How a session ends: what is said, for how long it lingers, and which error its users get (K-1 to K-3, K-6)."""

from __future__ import annotations

from math import inf

from stt_proto.errors import (
    ArgumentError,
    AuthenticationError,
    ConnectionRefusedError,
    ConnectionTimeoutError,
    SessionClosedError,
    SessionExpiredError,
    SessionTimeoutError,
    SttError,
    UnreachableError,
    error_for,
)
from stt_proto.types import CloseReason
from stt_proto.wire import MAX_DETAIL, MAX_VARINT, SessionClose

FLUSH_TIMEOUT = 10.0
"""Seconds that a closing session takes to deliver what its streams had accepted (K-1)."""
LINGER_PTOS = 3
"""Probe timeouts for which a close is awaited, and for which a session that is over still answers (K-1, K-3)."""
MAX_LINGER = 10.0
"""Seconds; neither takes longer, since who answers slowly could make us hold what is over for ever."""
GONE = "the path is gone"
"""What is said of a path whose carrier ended without a word."""
MAX_ANSWERS = 16
"""Packets with which a session that is over answers (K-3)."""

_CODES = {
    CloseReason.GRACEFUL: 0x0000,
    CloseReason.TIMEOUT: SessionTimeoutError.code,
    CloseReason.ERROR: SessionClosedError.code,
    CloseReason.AUTH_FAILURE: AuthenticationError.code,
}


def close_frame(reason: str, detail: str, code: int | None = None) -> SessionClose:
    """The frame for what the application said.

    Raises:
        ArgumentError: the reason is not one of the four, the detail is longer than 512 bytes, or the code is none.
    """
    try:
        word = CloseReason(reason)
    except ValueError:
        raise ArgumentError(
            f"reason is {reason!r}; it must be graceful, timeout, error or auth_failure", argument="reason"
        ) from None
    if not isinstance(detail, str) or len(detail.encode(errors="replace")) > MAX_DETAIL:
        raise ArgumentError(f"detail must be text of at most {MAX_DETAIL} bytes", argument="detail")
    if code is not None and not (type(code) is int and 0 <= code <= MAX_VARINT):
        raise ArgumentError(f"code is {code!r}; it must be from 0 to 2^62 - 1", argument="code")
    return SessionClose(_CODES[word] if code in (None, SessionClosedError.code) else code, word, detail)


def failure_frame(error: SttError) -> SessionClose:
    """The frame that tells the peer what went wrong here."""
    return SessionClose(error.code, reason_of(error), error.message)


def closed_here(frame: SessionClose) -> SessionClosedError:
    """The error for commands on a session that this side closed with this frame."""
    return SessionClosedError(frame.detail or "closed by this side", reason=frame.reason, code=frame.code or None)


def reason_of(error: SttError) -> CloseReason:
    """The one word for an error."""
    if isinstance(error, SessionClosedError):
        return CloseReason(error.reason)
    if isinstance(error, AuthenticationError):
        return CloseReason.AUTH_FAILURE
    return CloseReason.TIMEOUT if isinstance(error, ConnectionTimeoutError) else CloseReason.ERROR


def error_of(frame: SessionClose, established: bool) -> SttError:
    """The error that a SESSION_CLOSE of the peer means for this side.

    Before the session was established it is a refusal, if its code says so.
    """
    detail = frame.detail or f"the peer closed the session ({frame.reason})"
    if not established:
        refusal = error_for(frame.code, detail)
        if type(refusal) is not SessionClosedError:
            return refusal
    if frame.reason is CloseReason.TIMEOUT:
        return SessionTimeoutError(detail, code=frame.code if frame.code == SessionExpiredError.code else None)
    return SessionClosedError(detail, reason=frame.reason, code=frame.code or None)


def code_of(error: SttError) -> int:
    """The number for an error, as the application is told; none for a session that was closed, and nothing else."""
    return 0 if reason_of(error) is CloseReason.GRACEFUL and error.code == SessionClosedError.code else error.code


class Ending:
    """The last words of one session.

    Attributes:
        frame: SESSION_CLOSE as it is sent, once there is one.
        at: when the next stage comes: waiting for delivery, for the acknowledgement, or for the peer's last packets.
        answer_due: whether a packet with our last words is to be sent.
    """

    __slots__ = ("_answers", "_said", "answer_due", "at", "frame")

    def __init__(self) -> None:
        self.frame: SessionClose | None = None
        self.at = inf
        self.answer_due = False
        self._answers = 0
        self._said = False

    def flush(self, frame: SessionClose, now: float) -> None:
        """Say this, once everything is delivered or the time for that is over."""
        self.say(frame)
        self.at = now + FLUSH_TIMEOUT

    def say(self, frame: SessionClose, *, unasked: bool = True) -> None:
        """These are the last words; `unasked` unless they only repeat the peer's."""
        self.frame = frame
        self._said = unasked

    def error_of_loss(self, reason: str | None, *, dialling: bool, closing: bool) -> SttError:
        """The error when the last path is gone: a dial learns whether somebody is there at all.

        Once SESSION_CLOSE was said, that is how a peer that heard it goes.
        """
        if closing and self.frame is not None:
            return closed_here(self.frame)
        if dialling and reason == "refused":
            return ConnectionRefusedError("nobody listens there")
        if dialling and reason == "unreachable":
            return UnreachableError("no way leads there")
        return SessionClosedError(reason or GONE, reason=CloseReason.ERROR)

    def ask_answer(self, peer_said: bool) -> None:
        """A packet came for a session that is over; `peer_said` tells whether its SESSION_CLOSE came too.

        Where both sides have said it unasked, neither answers: they would answer each other's answers.
        """
        if self._answers < MAX_ANSWERS and not (peer_said and self._said):
            self.answer_due = True

    def take_answer(self) -> SessionClose | None:
        """The last words, if they are due."""
        if not self.answer_due:
            return None
        self.answer_due = False
        self._answers += 1
        return self.frame
