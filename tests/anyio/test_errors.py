"""What hosts raise is the core's error and anyio's at once."""

from __future__ import annotations

import builtins
import pickle

import anyio
import pytest

import stt_anyio
from stt_anyio import errors
from stt_anyio.errors import (
    ArgumentError,
    AuthenticationError,
    LocalError,
    RemoteError,
    SessionClosedError,
    SessionTimeoutError,
    StateError,
    StreamClosedError,
    SttError,
    broken,
    closed_here,
    connection_failed,
    mixed,
)

CONCRETE = sorted(
    (
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, RemoteError) and value is not RemoteError
    ),
    key=lambda cls: cls.__name__,
)


@pytest.mark.parametrize("cls", CONCRETE)
@pytest.mark.parametrize(
    ("mix", "also"),
    [
        (closed_here, anyio.ClosedResourceError),
        (broken, anyio.BrokenResourceError),
        (connection_failed, anyio.ConnectionFailed),
    ],
)
def test_every_error_of_the_network_can_be_anyios_too(cls, mix, also) -> None:
    original = cls("it is gone")
    original.code = 0x1234
    error = mix(original)
    assert isinstance(error, cls)
    assert isinstance(error, also)
    assert (str(error), error.message, error.code) == ("it is gone", "it is gone", 0x1234)
    assert error.retryable is cls.retryable
    assert type(error).__name__ == cls.__name__
    assert type(mix(cls("another"))) is type(error)


def test_matching_builtins_stay() -> None:
    assert isinstance(connection_failed(errors.ConnectionRefusedError("")), builtins.ConnectionRefusedError)
    assert isinstance(connection_failed(errors.ConnectionTimeoutError("")), builtins.TimeoutError)
    assert isinstance(connection_failed(AuthenticationError("")), builtins.OSError)
    assert isinstance(broken(SessionTimeoutError("")), builtins.TimeoutError)


def test_what_an_error_holds_stays() -> None:
    stream = broken(StreamClosedError("reset", stream_code=7))
    assert isinstance(stream, StreamClosedError)
    assert stream.stream_code == 7
    session = closed_here(SessionClosedError("done", reason="graceful"))
    assert isinstance(session, SessionClosedError)
    assert session.reason == "graceful"


def test_the_same_error_is_raised_anew() -> None:
    error = SessionClosedError("done")
    assert broken(error) is not broken(error)
    again = closed_here(broken(error))
    assert isinstance(again, anyio.ClosedResourceError)
    assert not isinstance(again, anyio.BrokenResourceError)


def test_mistakes_of_the_caller_stay_what_they_are() -> None:
    for error in (ArgumentError("no", argument="x"), StateError("not now")):
        assert isinstance(error, LocalError)
        assert mixed(error, anyio.BrokenResourceError) is error


def test_errors_travel_between_processes() -> None:
    error = broken(StreamClosedError("reset", stream_code=7))
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (copy.message, copy.stream_code, copy.args) == ("reset", 7, ("reset",))


def test_nothing_that_is_exported_shadows_a_builtin() -> None:
    for module in (errors, stt_anyio):
        assert not [name for name in module.__all__ if hasattr(builtins, name)]
        assert all(hasattr(module, name) for name in module.__all__)
    for name in ("ConnectionError", "ConnectionRefusedError"):
        assert getattr(stt_anyio, name) is getattr(errors, name)
    assert issubclass(errors.ConnectionError, SttError)
    assert issubclass(errors.ConnectionRefusedError, errors.ConnectionError)
