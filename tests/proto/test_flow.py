"""Credit, both ways."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stt_proto.streams import CreditWindow, SendCredit


def test_credit_returns_as_it_is_consumed() -> None:
    """S-7: an update is due when half of the window was consumed since the last, not before."""
    window = CreditWindow(100)
    assert window.limit == 100
    assert not window.consume(49)
    assert window.consume(1)
    assert window.announce() == 150
    assert window.limit == 150
    assert not window.consume(49)
    assert window.consume(30)
    assert window.announce() == 229


@given(st.integers(1, 10_000), st.lists(st.integers(0, 500)))
def test_the_window_is_never_exceeded(size: int, steps: list[int]) -> None:
    """S-6: what may still arrive, and what lies unconsumed, are together at most the window."""
    window = CreditWindow(size)
    for step in steps:
        count = min(step, window.limit - window.received)
        window.received += count
        if window.consume(min(step, window.received - window.consumed)):
            window.announce()
        assert window.limit - window.consumed <= window.size
        assert window.limit - window.consumed > size // 2 - 1


def test_a_peer_that_is_blocked_says_so_once_for_a_limit() -> None:
    """S-12, F-5: the same limit again, a lower one, and one never announced tell nothing."""
    window = CreditWindow(100)
    assert window.on_blocked(50)
    assert not window.on_blocked(50)
    assert window.on_blocked(100)
    assert not window.on_blocked(99)
    assert not window.on_blocked(101)


def test_send_credit_only_rises() -> None:
    """S-6: a MAX_DATA that was overtaken by a later one changes nothing."""
    credit = SendCredit()
    assert credit.exhausted
    assert credit.raise_limit(10)
    assert not credit.exhausted
    assert not credit.raise_limit(10)
    assert not credit.raise_limit(9)
    credit.used = 10
    assert credit.exhausted
    assert credit.limit == 10


def test_being_blocked_is_reported_once_for_a_limit() -> None:
    """S-12."""
    credit = SendCredit()
    assert credit.report_blocked()
    assert not credit.report_blocked()
    credit.raise_limit(5)
    assert credit.report_blocked()
    assert not credit.report_blocked()
