"""The client that comes back, call by call; the machine is in coming_back.py (G9, S15)."""

from __future__ import annotations

from math import nan
from typing import Any

import pytest

from stt_proto.errors import ArgumentError, StateError
from stt_proto.manager import Fate, Operation, Reconnector, reconnect
from stt_proto.types import Deadline

FIRST, SECOND = b"\x01" * 8, b"\x02" * 8


class Entropy:
    """Counts up; and says what a number between 0 and 1 is made of."""

    def __init__(self, fraction: float = 0.0) -> None:
        self.fraction = fraction
        self.count = 0

    def __call__(self, size: int) -> bytes:
        self.count += 1
        return int(self.fraction * (1 << 32)).to_bytes(4) if size == 4 else self.count.to_bytes(size)


def connected(**parameters: Any) -> Reconnector:
    client = Reconnector(0.0, Entropy(), **parameters)
    assert client.dial(0.0)
    assert client.connected(FIRST, 0.0) == ()
    return client


@pytest.mark.parametrize(("fraction", "share"), [(0.0, 0.5), (0.5, 0.75), (0.9999, 1.0)])
def test_delays(fraction: float, share: float) -> None:
    """G9: 1 s doubling to 60 s with jitter, and 1 s again after a success."""
    client = Reconnector(0.0, Entropy(fraction))
    assert client.next_deadline() == Deadline(0.0, "dial")
    now = 0.0
    for seconds in (1, 2, 4, 8, 16, 32, 60, 60, 60):
        assert client.dial(now)
        assert not client.dial(now)
        assert client.next_deadline() is None
        client.failed(now)
        deadline = client.next_deadline()
        assert deadline is not None
        assert deadline.at - now == pytest.approx(seconds * share, rel=1e-3)
        assert not client.dial(deadline.at - 0.001)
        now = deadline.at
    assert client.dial(now)
    client.connected(FIRST, now)
    client.lost(FIRST, now)
    deadline = client.next_deadline()
    assert deadline is not None
    assert deadline.at - now == pytest.approx(share, rel=1e-3)


def test_fates() -> None:
    """G9: each operation says whether it was sent, acknowledged or unknown."""
    client = connected()
    again, done, sent, waiting = (client.begin(repeatable=repeatable) for repeatable in (True, False, False, False))
    for operation in (again, done, sent):
        client.sent(operation)
    assert client.acknowledged(done)
    assert not client.acknowledged(done)
    assert client.lost(FIRST, 1.0) == (sent, waiting)
    fates = [operation.fate for operation in (again, done, sent, waiting)]
    assert fates == [Fate.SENT, Fate.DONE, Fate.UNKNOWN, Fate.NOT_SENT]
    assert [operation.is_over for operation in (again, done, sent, waiting)] == [False, True, True, True]
    assert client.dial(2.0)
    assert client.connected(SECOND, 2.0) == (again,)
    client.sent(again)
    assert again.session_id == SECOND
    assert client.stop() == (again,)
    assert again.fate is Fate.UNKNOWN
    assert client.next_deadline() is None


def test_what_was_never_sent_cannot_be_confirmed() -> None:
    client = connected()
    operation = client.begin(repeatable=False)
    assert not client.acknowledged(operation)
    assert operation.fate is Fate.WAITING


def test_calls_that_do_not_fit() -> None:
    client = Reconnector(0.0, Entropy())
    operation = client.begin(repeatable=True)
    for call in (
        lambda: client.failed(0.0),
        lambda: client.connected(FIRST, 0.0),
        lambda: client.sent(operation),
    ):
        with pytest.raises(StateError):
            call()
    assert client.dial(0.0)
    assert client.connected(FIRST, 0.0) == (operation,)
    with pytest.raises(StateError):
        client.connected(SECOND, 0.0)
    with pytest.raises(StateError, match="done"):
        client.sent(Operation(bytes(16), True, Fate.DONE))
    client.stop()
    with pytest.raises(StateError):
        client.begin(repeatable=True)
    assert not client.dial(100.0)


def test_pending_operations_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnect, "MAX_OPERATIONS", 2)
    client = connected()
    client.begin(repeatable=True)
    client.begin(repeatable=True)
    with pytest.raises(StateError):
        client.begin(repeatable=True)


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("first_delay", lambda: Reconnector(0.0, Entropy(), first_delay=0)),
        ("first_delay", lambda: Reconnector(0.0, Entropy(), first_delay=2, longest_delay=1)),
        ("longest_delay", lambda: Reconnector(0.0, Entropy(), longest_delay=nan)),
        ("session_id", lambda: Reconnector(0.0, Entropy()).connected(b"", 0.0)),
        ("repeatable", lambda: Reconnector(0.0, Entropy()).begin(repeatable=1)),  # type: ignore[arg-type]
    ],
)
def test_a_bad_argument_is_named(argument: str, call: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        call()
    assert caught.value.argument == argument
