"""The error vocabulary: everything that STT raises, stores or reports.

Two questions decide the class of an error. *What failed?* gives its family: a connection, a session, a stream, the
protocol, a resource. *Whose doing is it?* gives its marker, and every concrete class has exactly one:

* `LocalError`: the caller misused the API. Raised at once, out of the call that was wrong.
* `RemoteError`: the peer or the network did it. Never raised out of `receive` or `tick`; it is stored as the reason
  for which something ended, and raised by a later command on that thing.

Anything that is not an `SttError` and escapes from the core is a bug: that is the oracle of the fuzzers.

Classes inherit the matching builtin (`ConnectionRefusedError`, `TimeoutError`, `ValueError`), so `except OSError` or
`except TimeoutError` work as in any other network code. Names that shadow a builtin are left out of `__all__`.
"""

from __future__ import annotations

import builtins

__all__ = [
    "ArgumentError",
    "AuthenticationError",
    "BufferOverflowError",
    "ChecksumError",
    "ConfigError",
    "ConnectionTimeoutError",
    "DataExpiredError",
    "EncryptionError",
    "FlowControlError",
    "HandshakeError",
    "InvalidFrameError",
    "LocalError",
    "PoolMissError",
    "ProtocolError",
    "RateLimitedError",
    "RemoteError",
    "ResourceError",
    "ResourcesExhaustedError",
    "SessionClosedError",
    "SessionError",
    "SessionExpiredError",
    "SessionNotFound",
    "SessionResumptionError",
    "SessionTimeoutError",
    "ShuttingDownError",
    "StateError",
    "StoreUnavailableError",
    "StreamClosedError",
    "StreamError",
    "StreamIdConflict",
    "SttError",
    "TooManyRequestsError",
    "TooManySessionsError",
    "TooManyStreamsError",
    "UnknownFrameError",
    "UnreachableError",
    "VersionConflictError",
    "VersionError",
    "error_for",
]


class SttError(Exception):
    """The root of every error.

    Attributes:
        code: the number that stands for this error on the wire and in logs (docs/protocol.md, "Error codes").
        message: one sentence for a person; never holds a secret.
        retryable: whether the same call can succeed later without anything being changed.
    """

    code: int = 0x0000
    retryable: bool = False

    def __init__(self, message: str = "", *, code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return self.message


class LocalError(SttError):
    """Marker: the caller misused the API; raised at once."""


class RemoteError(SttError):
    """Marker: the peer or the network did it; stored as a close reason, raised by later commands."""


class ArgumentError(LocalError, ValueError):
    """An argument is outside its range.

    Attributes:
        argument: the name of the argument.
    """

    code = 0x0001

    def __init__(self, message: str = "", *, argument: str = "") -> None:
        super().__init__(message)
        self.argument = argument


class StateError(LocalError, RuntimeError):
    """The call does not fit the state of what it was made on (a stream opened before the handshake ended, say)."""

    code = 0x0002


class ConfigError(ArgumentError):
    """Parts of a configuration are wrong; nothing of it took effect.

    Attributes:
        arguments: the names of all that are; `argument` is the first.
    """

    code = 0x0003

    def __init__(self, message: str = "", *, arguments: tuple[str, ...] = ()) -> None:
        super().__init__(message, argument=arguments[0] if arguments else "")
        self.arguments = arguments


class VersionConflictError(LocalError):
    """What was to be changed is no longer what it was when it was read; nothing changed. Read it again.

    Attributes:
        version: the version that it has now; 0 where there is nothing.
    """

    code = 0x0004

    def __init__(self, message: str = "", *, version: int = 0) -> None:
        super().__init__(message)
        self.version = version


# -- connections: what can go wrong before there is a session ------------------------------------------------------


class ConnectionError(SttError, builtins.ConnectionError):
    """Family: no session came to be."""

    code = 0x0100


class ConnectionTimeoutError(ConnectionError, RemoteError, builtins.TimeoutError):
    """The handshake did not finish within its timeout."""

    code = 0x0101
    retryable = True


class ConnectionRefusedError(ConnectionError, RemoteError, builtins.ConnectionRefusedError):
    """The other side does not accept sessions, or nobody listens there."""

    code = 0x0102
    retryable = True


class AuthenticationError(ConnectionError, RemoteError):
    """The other side has another shared seed, or is not the peer that was asked for."""

    code = 0x0103


class UnreachableError(ConnectionError, RemoteError):
    """No path leads there."""

    code = 0x0104
    retryable = True


# -- sessions ------------------------------------------------------------------------------------------------------


class SessionError(SttError):
    """Family: an established session failed or ended."""

    code = 0x0200


class SessionClosedError(SessionError, RemoteError):
    """The session has ended.

    Attributes:
        reason: `graceful`, `timeout`, `error` or `auth_failure`.
    """

    code = 0x0201

    def __init__(self, message: str = "", *, reason: str = "graceful", code: int | None = None) -> None:
        super().__init__(message, code=code)
        self.reason = reason


class SessionTimeoutError(SessionClosedError, builtins.TimeoutError):
    """The peer fell silent and the session was given up."""

    code = 0x0202
    retryable = True

    def __init__(self, message: str = "", *, reason: str = "timeout", code: int | None = None) -> None:
        super().__init__(message, reason=reason, code=code)


class TooManySessionsError(SessionError, RemoteError, builtins.ConnectionError):
    """The other side, or this one, holds as many sessions as it may.

    Attributes:
        scope: of which there are too many: of `all`, of the `peer`, or of the `namespace`.
    """

    code = 0x0203
    retryable = True

    def __init__(self, message: str = "", *, scope: str = "all") -> None:
        super().__init__(message)
        self.scope = scope


class SessionNotFound(SessionError, LocalError, LookupError):
    """No session has this id, or it is closed.

    Attributes:
        reason: why a session that is still remembered was closed, in a word; empty when nothing is known of it.
    """

    code = 0x0204

    def __init__(self, message: str = "", *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class SessionExpiredError(SessionNotFound):
    """The session has outlived its time."""

    code = 0x0206

    def __init__(self, message: str = "", *, reason: str = "expired") -> None:
        super().__init__(message, reason=reason)


class SessionResumptionError(SessionError, RemoteError):
    """The ticket was refused; a full handshake can still succeed.

    Attributes:
        reason: in a word or two; a `TicketRefusal`.
    """

    code = 0x0205
    retryable = True

    def __init__(self, message: str = "", *, reason: str = "unknown", code: int | None = None) -> None:
        super().__init__(message, code=code)
        self.reason = reason


class TooManyRequestsError(SessionError, RemoteError):
    """The other side, or this one, works at as many requests as it may.

    Attributes:
        scope: of which there are too many: of the `session`, or of `all`.
    """

    code = 0x0207
    retryable = True

    def __init__(self, message: str = "", *, scope: str = "session") -> None:
        super().__init__(message)
        self.scope = scope


class RateLimitedError(SessionError, RemoteError):
    """Requests of this session come faster than they may.

    Attributes:
        retry_after: seconds after which one will be taken, if none comes before it.
    """

    code = 0x0208
    retryable = True

    def __init__(self, message: str = "", *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ShuttingDownError(SessionError, RemoteError, builtins.ConnectionError):
    """The other side, or this one, is about to stop and takes nothing new. Another server may."""

    code = 0x0209
    retryable = True


# -- streams -------------------------------------------------------------------------------------------------------


class StreamError(SttError):
    """Family: one stream failed; its session goes on."""

    code = 0x0300


class StreamClosedError(StreamError, RemoteError):
    """The stream was reset or stopped by the peer, or ended with its session.

    Attributes:
        stream_code: the application's number given with the reset, or `None`.
    """

    code = 0x0301

    def __init__(self, message: str = "", *, stream_code: int | None = None) -> None:
        super().__init__(message)
        self.stream_code = stream_code


class TooManyStreamsError(StreamError, LocalError):
    """The peer allows no further stream of this kind at the moment."""

    code = 0x0302
    retryable = True


class StreamIdConflict(StreamError, LocalError):
    """The stream id asked for is taken, or belongs to the other side or another kind."""

    code = 0x0303


class DataExpiredError(StreamError, RemoteError):
    """The sender gave up bytes that were to come here; what follows them can be read.

    Attributes:
        skipped: how many they are.
    """

    code = 0x0305
    retryable = True

    def __init__(self, message: str = "", *, skipped: int = 0) -> None:
        super().__init__(message)
        self.skipped = skipped


class FlowControlError(StreamError, RemoteError):
    """The peer sent more than it was allowed to."""

    code = 0x0304


# -- protocol ------------------------------------------------------------------------------------------------------


class ProtocolError(SttError):
    """Family: what the peer sent breaks a rule of docs/protocol.md."""

    code = 0x0400


class InvalidFrameError(ProtocolError, RemoteError):
    """A frame, parameter or message does not parse, or stands where it may not."""

    code = 0x0401


class EncryptionError(ProtocolError, RemoteError):
    """Something did not open, or a key does not parse."""

    code = 0x0402


class ChecksumError(ProtocolError, RemoteError):
    """A handshake datagram was damaged on the way."""

    code = 0x0403


class UnknownFrameError(ProtocolError, RemoteError):
    """A frame type that was never announced."""

    code = 0x0404


class HandshakeError(ProtocolError, RemoteError):
    """A handshake message breaks a rule."""

    code = 0x0405


class VersionError(ProtocolError, RemoteError):
    """The two sides share no version or no suite."""

    code = 0x0105


# -- resources -----------------------------------------------------------------------------------------------------


class ResourceError(SttError):
    """Family: a limit was met."""

    code = 0x0600


class BufferOverflowError(ResourceError, LocalError):
    """What was handed over does not fit into the buffer."""

    code = 0x0602


class ResourcesExhaustedError(ResourceError, RemoteError):
    """The peer made this side hold more than a limit allows."""

    code = 0x0603


class StoreUnavailableError(ResourceError, RemoteError):
    """The store of sessions is down, or too slow; whether it did what it was asked is not known."""

    code = 0x0604
    retryable = True


class PoolMissError(LocalError, LookupError):
    """The pool holds no session for this content."""

    code = 0x0701
    retryable = True


_BY_CODE: dict[int, type[SttError]] = {
    cls.code: cls
    for cls in (
        ConnectionTimeoutError,
        ConnectionRefusedError,
        AuthenticationError,
        UnreachableError,
        VersionError,
        SessionTimeoutError,
        TooManySessionsError,
        SessionResumptionError,
        TooManyRequestsError,
        RateLimitedError,
        ShuttingDownError,
        FlowControlError,
        InvalidFrameError,
        EncryptionError,
        UnknownFrameError,
        HandshakeError,
        ResourcesExhaustedError,
    )
}


def error_for(code: int, message: str = "") -> SttError:
    """Give the error that a code received from a peer stands for.

    A code that this side does not know is a `SessionClosedError` with that code and the reason `error`.
    """
    cls = _BY_CODE.get(code)
    if cls is None:
        return SessionClosedError(message, reason="error", code=code)
    return cls(message)
