"""The errors that hosts raise: the core's own, each also one that the networking world already knows.

The core says *what* failed (`SessionClosedError`, `AuthenticationError`). A program that was written against anyio
asks something else: did *I* close this (`anyio.ClosedResourceError`), did it *break* (`anyio.BrokenResourceError`), did
a *connect* fail (`anyio.ConnectionFailed`)? An error raised by a host answers both, since its class inherits from both:

    try:
        await stream.send(data)
    except StreamClosedError as error:      # or: except anyio.BrokenResourceError
        log.info("gave up, code %s", error.stream_code)

Every raise makes a new object, so that tasks which fail for one reason do not share a traceback.

`stt_anyio.errors` has every class of `stt_proto.errors`; those whose names shadow builtins stay out of `__all__`.
"""

from __future__ import annotations

from typing import Any

import anyio

from stt_proto.errors import (
    ArgumentError,
    AuthenticationError,
    BufferOverflowError,
    ChecksumError,
    ConfigError,
    ConnectionTimeoutError,
    DataExpiredError,
    EncryptionError,
    FlowControlError,
    HandshakeError,
    InvalidFrameError,
    LocalError,
    PoolMissError,
    ProtocolError,
    RateLimitedError,
    RemoteError,
    ResourceError,
    ResourcesExhaustedError,
    SessionClosedError,
    SessionError,
    SessionExpiredError,
    SessionNotFound,
    SessionResumptionError,
    SessionTimeoutError,
    ShuttingDownError,
    StateError,
    StoreUnavailableError,
    StreamClosedError,
    StreamError,
    StreamIdConflict,
    SttError,
    TooManyRequestsError,
    TooManySessionsError,
    TooManyStreamsError,
    UnknownFrameError,
    UnreachableError,
    VersionConflictError,
    VersionError,
    error_for,
)
from stt_proto.errors import (
    ConnectionError as ConnectionError,
)
from stt_proto.errors import (
    ConnectionRefusedError as ConnectionRefusedError,
)

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
    "NotSentError",
    "OutcomeUnknownError",
    "PoolMissError",
    "ProtocolError",
    "ProxyError",
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
    "StoreDamagedError",
    "StoreUnavailableError",
    "StreamClosedError",
    "StreamError",
    "StreamIdConflict",
    "SttError",
    "TlsError",
    "TooManyRequestsError",
    "TooManySessionsError",
    "TooManyStreamsError",
    "UnknownFrameError",
    "UnreachableError",
    "VersionConflictError",
    "VersionError",
    "WebSocketClosedError",
    "WebSocketHandshakeError",
    "error_for",
    "broken",
    "closed_here",
    "connection_failed",
    "mixed",
]


_PASSING = (408, 429)
"""HTTP statuses below 500 that say: not now."""


# -- of carriers that are connections (0x05..): what no core can know ----------------------------------------------


class WebSocketClosedError(ConnectionError, RemoteError):
    """The WebSocket was closed.

    Attributes:
        close_code: the code of the WebSocket protocol, such as 1001; `None` where there was none.
    """

    code = 0x0502
    retryable = True

    def __init__(self, message: str = "", *, close_code: int | None = None) -> None:
        super().__init__(message)
        self.close_code = close_code


class WebSocketHandshakeError(ConnectionError, RemoteError):
    """Who answered does not speak WebSocket there, or not for STT.

    Attributes:
        status: the HTTP status of the answer; `None` where there was none. With 408, 429 and from 500 on a retry can
            help: a server behind that web server is starting, say.
    """

    code = 0x0503

    def __init__(self, message: str = "", *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        if status is not None and (status in _PASSING or status >= 500):
            self.retryable = True


class ProxyError(WebSocketHandshakeError):
    """The proxy refused, or is none."""

    @classmethod
    def refused(cls, status: int, reason: str) -> ProxyError:
        """The error for an answer that opens no tunnel."""
        if status == 407:
            return cls("the proxy wants other credentials (407)", status=status)
        return cls(f"the proxy refused: {status} {reason}".rstrip(), status=status)


class TlsError(ConnectionError, RemoteError):
    """TLS failed: a certificate that does not verify, say."""

    code = 0x0504


# -- of stores: never on the wire -----------------------------------------------------------------------------------


class StoreDamagedError(ResourceError, RemoteError):
    """What the store of sessions holds cannot be trusted: damaged, lost, of another program, or of a newer version."""

    code = 0x0605


# -- of requests (0x07..): never on the wire -----------------------------------------------------------------------


class NotSentError(SessionError, RemoteError):
    """Nothing of the request has left this machine: it was not done, and it is safe to make it again.

    What stood in the way is its `__cause__`. When that was the `timeout` of the call, it is also a `TimeoutError`.
    """

    code = 0x0702
    retryable = True


class OutcomeUnknownError(SessionError, RemoteError):
    """The request was sent, or a part of it, and no whole answer came: it may have been done, or not.

    When the `timeout` of the call was over, it is also a `TimeoutError`; else its `__cause__` is what ended it.

    Attributes:
        bytes_sent: bytes of the request, from the first, that were put into packets. Of these
        bytes_acknowledged: the peer's node has acknowledged so many, from the first; its application may have them.
        bytes_received: bytes of the answer that came.
    """

    code = 0x0703

    def __init__(
        self, message: str = "", *, bytes_sent: int = 0, bytes_acknowledged: int = 0, bytes_received: int = 0
    ) -> None:
        super().__init__(message)
        self.bytes_sent = bytes_sent
        self.bytes_acknowledged = bytes_acknowledged
        self.bytes_received = bytes_received


def closed_here(error: SttError) -> SttError:
    """The same error, for a call on something that this side closed: also an `anyio.ClosedResourceError`."""
    return mixed(error, anyio.ClosedResourceError)


def broken(error: SttError) -> SttError:
    """The same error, for a call on what the peer or the network ended: also an `anyio.BrokenResourceError`."""
    return mixed(error, anyio.BrokenResourceError)


def connection_failed(error: SttError) -> SttError:
    """The same error, out of a connect: also an `anyio.ConnectionFailed`, which is an `OSError`."""
    return mixed(error, anyio.ConnectionFailed)


def mixed(error: SttError, also: type[Exception]) -> SttError:
    """A new error that is both: of the class of `error`, with all that it holds, and an instance of `also`.

    An error that the caller made himself (a `LocalError`) stays what it is.
    """
    if isinstance(error, LocalError):
        return error
    core_class: type[SttError] = getattr(error, "core_class", type(error))
    return _rebuild(core_class, also, error.args, vars(error))


_classes: dict[tuple[type[SttError], type[Exception]], type[SttError]] = {}
"""Classes made so far: at most one for each class of the core and of those it is mixed with."""


def _make_class(core_class: type[SttError], also: type[Exception]) -> type[SttError]:
    names = {
        "__module__": core_class.__module__,
        "__doc__": core_class.__doc__,
        "__reduce__": _reduce,
        "core_class": core_class,
        "also": also,
    }
    return type(core_class.__name__, (core_class, also), names)


def _rebuild(
    core_class: type[SttError], also: type[Exception], args: tuple[Any, ...], state: dict[str, Any]
) -> SttError:
    cls = _classes.get((core_class, also))
    if cls is None:
        cls = _classes[core_class, also] = _make_class(core_class, also)
    error = cls.__new__(cls, *args)
    error.args = args
    vars(error).update(state)
    return error


def _reduce(error: Any) -> tuple[Any, ...]:
    """Errors travel between processes, where the class is not found by its name but made again."""
    return _rebuild, (error.core_class, error.also, error.args, vars(error))
