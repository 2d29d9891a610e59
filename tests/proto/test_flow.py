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
    assert not window.on_blocked(99)
    assert not window.on_blocked(101)
    assert window.on_blocked(100)
    assert not window.on_blocked(100)
    window.consume(20)
    assert not window.on_blocked(120)
    assert window.on_blocked(window.announce())


def test_limits_that_cannot_have_been_announced() -> None:
    """S-7, S-12, F-5: there are no more of them than were announced; one that rises by a byte each time is made up."""
    window = CreditWindow(1000)
    assert [limit for limit in range(1002) if window.on_blocked(limit)] == [1000]
    for _ in range(3):
        window.consume(500)
        window.announce()
        window.announce()
    assert window.limit == 2500
    assert [limit for limit in range(2502) if window.on_blocked(limit)] == [1001, 1002, 1003]


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


def test_what_others_hold_of_a_window_does_not_count() -> None:
    """S-7: an update is wanted at half of what is free; at half of the window, where nobody holds any of it."""
    window = CreditWindow(1000)
    window.received = 499
    window.consumed = 499
    assert not window.wanted
    window.received = window.consumed = 500
    assert window.wanted
    window.announce()
    window.received += 600
    window.consumed += 199  # 401 are held, of 599 free ones 199 came back
    assert not window.wanted
    window.consumed += 101
    window.received += 1  # 301 are held
    assert not window.wanted
    window.received += 99
    assert window.wanted, "it doubles what is left"


def test_an_update_is_not_wanted_for_little() -> None:
    """S-7, F-5: the silly window; below a quarter only a peer that waits is told, and once for each time it says so."""
    window = CreditWindow(1000)
    window.received = 1000
    window.consumed = 249
    assert not window.wanted
    window.consumed = 250
    assert window.wanted
    window.announce()
    window.received = 1250
    window.consumed = 251
    assert not window.wanted
    assert window.on_blocked(1250)
    assert window.wanted
    assert window.announce() == 1251
    window.consumed = 252
    assert not window.wanted
    assert window.on_blocked(1251)
    assert window.wanted
    window.announce()
    assert window.on_blocked(1252)
    assert not window.wanted, "there is nothing to tell"


@given(st.integers(4, 10_000), st.data())
def test_a_peer_that_waits_is_always_answered(size: int, data: st.DataObject) -> None:
    """S-7, S-12: whatever the streams hold, and however little comes back; and it makes sense to whoever gets it."""
    window = CreditWindow(size)
    credit = SendCredit()
    credit.raise_limit(size)
    for _ in range(data.draw(st.integers(1, 30))):
        credit.used = window.received = data.draw(st.integers(window.received, credit.limit))
        window.consumed = data.draw(st.integers(window.consumed, window.received))
        if credit.exhausted and credit.report_blocked():
            assert window.on_blocked(credit.limit)
        if window.wanted:
            limit = window.announce()
            assert is_due(credit.limit, limit, credit.used, credit.window, credit.reported == credit.limit)
            assert credit.raise_limit(limit)
        assert not credit.exhausted or window.consumed + size == window.limit, "blocked, though there is more"


def test_credit_that_nobody_needs() -> None:
    """F-5: raised by little, unless it was asked for, or far beyond what was used."""
    assert is_due(1000, 1001, 1000, 1000, True)
    assert not is_due(1000, 1000, 1000, 1000, True)
    assert not is_due(1 << 30, 1 << 31, 0, 1000, True)
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
