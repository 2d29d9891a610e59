"""Credit, both ways."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stt_proto.streams import CreditWindow, SendCredit
from stt_proto.streams.flow import SMALL_WINDOW, SPARE_WINDOWS, is_due
from tests.proto.walks import walks


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


@given(st.integers(1, 10_000), walks(st.integers(0, 500), 60))
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


def test_limits_that_cannot_have_been_announced() -> None:
    """S-7, S-12, F-5: announced limits lie half a window apart; one that rises by a byte each time is made up."""
    window = CreditWindow(1000)
    assert not window.on_blocked(0)
    assert [limit for limit in range(1, 1001) if window.on_blocked(limit)] == [249, 499, 749, 999]
    window.consume(500)
    assert window.on_blocked(window.announce())
    tiny = CreditWindow(3)
    assert [limit for limit in (0, 1, 1, 2, 3, 3, 4) if tiny.on_blocked(limit)] == [0, 1, 2, 3]


@given(st.integers(1, 1 << 30), st.lists(st.integers(1, 1 << 20), max_size=50), st.integers(0, 3))
def test_what_an_honest_peer_announces_is_due(size: int, reads: list[int], ahead: int) -> None:
    """S-7, F-5: also when the reader stops between two updates, or its window has grown to a multiple."""
    window, limit, sent = CreditWindow(size), size, 0
    for number, read in enumerate(reads):
        sent = min(limit, sent + read)
        if number == len(reads) // 2:
            window.size <<= ahead
        if window.consume(min(read, sent - window.consumed)):
            assert is_due(limit, window.announce(), sent, size)
            limit = window.limit
            assert window.on_blocked(limit)


def test_credit_that_nobody_needs() -> None:
    """F-5: raised by little, or far beyond what was used."""
    assert is_due(1000, 1250, 1000, 1000)
    assert not is_due(1000, 1249, 1000, 1000)
    assert not is_due(1000, 1000, 1000, 1000)
    assert not is_due(1000, 999, 1000, 1000)
    assert is_due(0, 1, 0, 0)
    most = SPARE_WINDOWS * (1 << 20)
    assert is_due(most, most * 2, 0, 1 << 20)
    assert not is_due(most + 1, most * 2, 0, 1 << 20)
    assert is_due(most + 1, most * 2, 1, 1 << 20)
    assert is_due(SPARE_WINDOWS * SMALL_WINDOW, 1 << 30, 0, 1)
    assert not is_due(SPARE_WINDOWS * SMALL_WINDOW + 1, 1 << 30, 0, 1)


def test_send_credit_only_rises() -> None:
    """S-6: a MAX_DATA that was overtaken by a later one changes nothing."""
    credit = SendCredit()
    assert credit.exhausted
    assert credit.raise_limit(10)
    assert credit.window == 10
    assert not credit.exhausted
    assert not credit.raise_limit(10)
    assert not credit.raise_limit(9)
    credit.used = 10
    assert credit.exhausted
    assert credit.limit == 10
    assert credit.raise_limit(30)
    assert credit.window == 10, "what it was in the beginning"


def test_being_blocked_is_reported_once_for_a_limit() -> None:
    """S-12."""
    credit = SendCredit()
    assert credit.report_blocked()
    assert not credit.report_blocked()
    credit.raise_limit(5)
    assert credit.report_blocked()
    assert not credit.report_blocked()
