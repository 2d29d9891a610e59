"""The error vocabulary (docs/protocol.md, section 12)."""

from __future__ import annotations

import builtins
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_proto import errors
from stt_proto.errors import LocalError, RemoteError, SessionClosedError, SttError, error_for

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, SttError)]
MARKERS = {LocalError, RemoteError}
FAMILIES = {
    SttError,
    errors.ConnectionError,
    errors.SessionError,
    errors.StreamError,
    errors.ProtocolError,
    errors.ResourceError,
}
CONCRETE = [cls for cls in CLASSES if cls not in MARKERS | FAMILIES]

# Section 12: which class stands for which code. The codes of hosts (0x05..) have no class in the core.
CODES = {
    0x0101: errors.ConnectionTimeoutError,
    0x0102: errors.ConnectionRefusedError,
    0x0103: errors.AuthenticationError,
    0x0104: errors.UnreachableError,
    0x0105: errors.VersionError,
    0x0201: errors.SessionClosedError,
    0x0202: errors.SessionTimeoutError,
    0x0203: errors.TooManySessionsError,
    0x0204: errors.SessionNotFound,
    0x0205: errors.SessionResumptionError,
    0x0206: errors.SessionExpiredError,
    0x0207: errors.TooManyRequestsError,
    0x0208: errors.RateLimitedError,
    0x0209: errors.ShuttingDownError,
    0x0301: errors.StreamClosedError,
    0x0302: errors.TooManyStreamsError,
    0x0303: errors.StreamIdConflict,
    0x0304: errors.FlowControlError,
    0x0305: errors.DataExpiredError,
    0x0401: errors.InvalidFrameError,
    0x0402: errors.EncryptionError,
    0x0403: errors.ChecksumError,
    0x0404: errors.UnknownFrameError,
    0x0405: errors.HandshakeError,
    0x0602: errors.BufferOverflowError,
    0x0603: errors.ResourcesExhaustedError,
    0x0604: errors.StoreUnavailableError,
}
LOCAL_ONLY = {
    errors.ArgumentError: 0x0001,
    errors.StateError: 0x0002,
    errors.ConfigError: 0x0003,
    errors.VersionConflictError: 0x0004,
    errors.PoolMissError: 0x0701,
}
HOSTS_CODES = {0x0000, 0x0501, 0x0502, 0x0503, 0x0504, 0x0601, 0x0605}


def make(cls: type[SttError], message: str = "a sentence") -> SttError:
    return cls(message, argument="port") if cls is errors.ArgumentError else cls(message)


@pytest.mark.parametrize("cls", CONCRETE, ids=lambda cls: cls.__name__)
def test_a_concrete_class_has_exactly_one_marker(cls: type[SttError]) -> None:
    """DESIGN 3, "Errors": whose doing it is, told by the class."""
    assert len([marker for marker in MARKERS if issubclass(cls, marker)]) == 1


@pytest.mark.parametrize("cls", sorted(FAMILIES, key=lambda cls: cls.__name__), ids=lambda cls: cls.__name__)
def test_a_family_has_none(cls: type[SttError]) -> None:
    """Families say what failed and leave open whose doing it is."""
    assert not any(issubclass(cls, marker) for marker in MARKERS)


def test_codes() -> None:
    """Section 12: each code has one class, and each class of the core its code."""
    assert {cls.code: cls for cls in CONCRETE if cls not in LOCAL_ONLY} == CODES
    assert {cls: cls.code for cls in LOCAL_ONLY} == LOCAL_ONLY
    assert len({cls.code for cls in CONCRETE}) == len(CONCRETE)


def test_codes_are_those_of_the_text() -> None:
    """Section 12, as it is printed."""
    text = Path(__file__).parents[2].joinpath("docs/protocol.md").read_text(encoding="utf-8")
    section = text[text.index("## 12. Error codes") : text.index("## 13.")]
    printed = {int(code, 16) for code in re.findall(r"\| (0x\w{4}) \|", section)}
    assert printed == CODES.keys() | HOSTS_CODES


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_what_every_error_has(cls: type[SttError]) -> None:
    """A11: `.code`, `.message`, and whether the same call may succeed later."""
    error = make(cls)
    assert str(error) == error.message == "a sentence"
    assert error.code == cls.code
    assert isinstance(error.retryable, bool)
    assert error.__doc__


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (errors.ArgumentError, ValueError),
        (errors.StateError, RuntimeError),
        (errors.ConnectionTimeoutError, TimeoutError),
        (errors.ConnectionTimeoutError, ConnectionError),
        (errors.ConnectionRefusedError, ConnectionRefusedError),
        (errors.AuthenticationError, ConnectionError),
        (errors.UnreachableError, OSError),
        (errors.SessionTimeoutError, TimeoutError),
        (errors.TooManySessionsError, ConnectionError),
        (errors.SessionNotFound, LookupError),
        (errors.SessionExpiredError, LookupError),
        (errors.ShuttingDownError, ConnectionError),
        (errors.ConfigError, ValueError),
        (errors.PoolMissError, LookupError),
    ],
)
def test_the_matching_builtin(cls: type[SttError], builtin: type[Exception]) -> None:
    """A11: `except TimeoutError` works as in any other network code."""
    assert issubclass(cls, builtin)


def test_names_that_shadow_a_builtin_stay_out() -> None:
    """A11: `from stt_proto.errors import *` changes the meaning of no builtin."""
    names = {cls.__name__ for cls in CLASSES}
    shadows = {name for name in names if hasattr(builtins, name)}
    assert shadows == {"ConnectionError", "ConnectionRefusedError"}
    assert set(errors.__all__) == names - shadows | {"error_for"}


def test_what_some_have_beyond_that() -> None:
    assert errors.ArgumentError("port is 0", argument="port").argument == "port"
    assert errors.SessionClosedError().reason == "graceful"
    assert errors.SessionTimeoutError().reason == "timeout"
    assert errors.StreamClosedError("", stream_code=7).stream_code == 7
    assert errors.StreamClosedError().stream_code is None
    assert errors.DataExpiredError("", skipped=7).skipped == 7
    assert errors.InvalidFrameError("", code=0x0302).code == 0x0302
    assert (errors.SessionNotFound().reason, errors.SessionExpiredError().reason) == ("", "expired")
    assert errors.TooManySessionsError("", scope="peer").scope == "peer"
    assert (errors.TooManySessionsError().scope, errors.TooManyRequestsError().scope) == ("all", "session")
    assert errors.RateLimitedError("", retry_after=0.5).retry_after == 0.5
    assert errors.VersionConflictError("", version=3).version == 3
    assert errors.ConfigError("", arguments=("ttl", "sliding")).argument == "ttl"
    assert errors.ConfigError().arguments == ()


@pytest.mark.parametrize("code", sorted(CODES))
def test_error_for_a_code(code: int) -> None:
    """A code of the peer becomes the class that it stands for, if a peer can mean that at all."""
    error = error_for(code, "why")
    assert isinstance(error, RemoteError)
    assert error.code == code
    assert error.message == "why"
    meant_by_a_peer = issubclass(CODES[code], RemoteError) and code not in (0x0301, 0x0305, 0x0403, 0x0604)
    assert type(error) is (CODES[code] if meant_by_a_peer else SessionClosedError)


@given(st.integers(0, 2**62 - 1))
def test_error_for_any_code(code: int) -> None:
    """A code that nobody knows is a closed session, never an exception of another kind."""
    error = error_for(code)
    assert isinstance(error, RemoteError)
    assert error.code == code
    if code not in CODES:
        assert type(error) is SessionClosedError
        assert error.reason == "error"
