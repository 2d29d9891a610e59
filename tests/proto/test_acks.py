"""The receiving side of acknowledgement: R-1, R-2 and F-3 of docs/protocol.md."""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_proto.errors import ArgumentError
from stt_proto.recovery import AckTracker, Ranges
from tests.proto.walks import walks

DELAY = 0.025


def tracker(*numbers: int, now: float = 1.0) -> AckTracker:
    made = AckTracker(DELAY)
    for number in numbers:
        made.on_packet(number, 1, True, now)
    return made


def ranges(acks: AckTracker, now: float = 1.0) -> Ranges:
    taken = acks.take(now)
    return taken[2] if taken else ()


# -- when ----------------------------------------------------------------------------------------------------------


def test_nothing_is_owed_at_first() -> None:
    acks = AckTracker()
    assert (acks.due_at, acks.pending) == (inf, 0)
    assert acks.take(1.0) is None


def test_one_datagram_waits() -> None:
    """R-2: within max_ack_delay, counted from the first."""
    acks = tracker(0, now=1.0)
    assert acks.due_at == 1.0 + DELAY
    assert acks.pending == 1


def test_two_datagrams_are_reported_at_once() -> None:
    """R-2."""
    acks = tracker(0, now=1.0)
    acks.on_packet(1, 1, True, 1.010)
    assert acks.due_at == 1.010
    acks.on_packet(2, 1, True, 1.020)
    assert acks.due_at == 1.010  # It is late already, and stays that.


def test_a_train_is_two_datagrams_by_itself() -> None:
    """R-2: datagrams' worth of data, not packets."""
    acks = AckTracker(DELAY)
    acks.on_packet(0, 2, True, 1.0)
    assert acks.due_at == 1.0


def test_what_does_not_elicit_is_noted_but_owes_nothing() -> None:
    """R-1."""
    acks = AckTracker(DELAY)
    for number in (0, 1, 5, 3, 4):
        acks.on_packet(number, 1, False, 1.0)
    assert acks.due_at == inf
    assert acks.pending == 0
    assert ranges(acks) == ((3, 5), (0, 1))


def test_a_gap_is_reported_at_once() -> None:
    """R-2: a packet out of order."""
    acks = tracker(0)
    acks.take(1.0)
    acks.on_packet(2, 1, True, 2.0)
    assert acks.due_at == 2.0


@pytest.mark.parametrize("late", [1, 3, 5, 7, 8, 9])
def test_a_late_packet_is_reported_at_once(late: int) -> None:
    """R-2: a packet that fills a gap, wholly or in part."""
    acks = tracker(0, 2, 4, 6, 10)
    acks.take(1.0)
    acks.on_packet(late, 1, True, 2.0)
    assert acks.due_at == 2.0


def test_a_ce_mark_is_reported_at_once() -> None:
    """R-2; other marks can wait."""
    acks = AckTracker(DELAY)
    acks.on_packet(0, 1, True, 1.0, 2)
    assert acks.due_at == 1.0 + DELAY
    acks.take(1.0)
    acks.on_packet(1, 1, True, 2.0, 3)
    assert acks.due_at == 2.0


def test_after_it_was_sent_nothing_is_due() -> None:
    acks = tracker(0, 1)
    acks.take(1.0)
    assert (acks.due_at, acks.pending) == (inf, 0)
    acks.on_packet(2, 1, True, 2.0)
    assert acks.due_at == 2.0 + DELAY


def test_a_known_number_changes_nothing() -> None:
    acks = tracker(0, 1, 3, 4, 8)
    acks.take(1.0)
    for number in (0, 1, 3, 4, 8):
        acks.on_packet(number, 1, True, 2.0, 3)
    assert (acks.due_at, acks.pending) == (inf, 0)
    taken = acks.take(2.0)
    assert taken is not None
    assert taken[2:] == (((8, 8), (3, 4), (0, 1)), None)


# -- what ----------------------------------------------------------------------------------------------------------


def test_the_delay_counts_from_the_largest() -> None:
    """RFC 9000, 13.2.5; units of 8 us."""
    acks = tracker(0, 2, now=1.0)
    acks.on_packet(1, 1, True, 1.5)
    taken = acks.take(1.75)
    assert taken is not None
    assert taken[:3] == (2, 93_750, ((0, 2),))


def test_marks_are_counted() -> None:
    """ACK_ECN carries ECT(0), ECT(1), CE; without a mark there are no counts."""
    acks = tracker(0)
    assert acks.take(1.0) == (0, 0, ((0, 0),), None)
    for number, ecn in enumerate([2, 2, 2, 1, 1, 3, 0], 1):
        acks.on_packet(number, 1, True, 1.0, ecn)
    assert acks.take(1.0) == (7, 0, ((0, 7),), (3, 2, 1))


def test_at_most_32_ranges_the_newest() -> None:
    """F-3."""
    acks = tracker(*range(0, 200, 2))
    expected = tuple((number, number) for number in range(198, 198 - 64, -2))
    assert ranges(acks) == expected
    acks.on_packet(1, 1, True, 1.0)  # older than all that is kept
    assert ranges(acks) == expected
    acks.on_packet(151, 1, True, 1.0)  # joins two of them
    acks.on_packet(133, 1, True, 1.0)  # takes the place that this made
    acks.on_packet(100, 1, True, 1.0)  # comes too late
    assert ranges(acks) == (*expected[:23], (150, 152), *expected[25:], (133, 133))


# -- forgetting ----------------------------------------------------------------------------------------------------


def test_what_the_peer_knows_is_forgotten() -> None:
    """RFC 9000, 13.2.4."""
    acks = tracker(0, 1, 2, 5, 6, 7, 9, 10)
    acks.on_acked(0)
    assert ranges(acks) == ((9, 10), (5, 7), (1, 2))
    acks.on_acked(2)
    assert ranges(acks) == ((9, 10), (5, 7))
    acks.on_acked(6)
    assert ranges(acks) == ((9, 10), (7, 7))
    acks.on_acked(9)
    assert ranges(acks) == ((10, 10),)
    acks.on_acked(10)
    assert acks.take(1.0) is None
    acks.on_acked(3)  # an acknowledgement out of order
    assert acks.take(1.0) is None
    acks.on_packet(11, 1, True, 1.0)
    assert acks.due_at == 1.0 + DELAY
    assert ranges(acks) == ((11, 11),)


def test_all_forgotten_then_a_gap() -> None:
    acks = tracker(0, 1)
    acks.take(1.0)
    acks.on_acked(1)
    acks.on_packet(4, 1, True, 2.0)
    assert acks.due_at == 2.0
    assert ranges(acks) == ((4, 4),)


def test_all_forgotten_then_a_straggler() -> None:
    """It is older than what the peer knows that we know; the newest number is named with it, for the delay."""
    acks = tracker(0, 1, 5)
    acks.take(1.0)
    acks.on_acked(5)
    acks.on_packet(3, 1, True, 2.0)
    assert acks.due_at == 2.0
    assert ranges(acks) == ((5, 5), (3, 3))


@pytest.mark.parametrize("delay", [-0.001, inf, nan])
def test_a_delay_is_a_time(delay: float) -> None:
    with pytest.raises(ArgumentError) as caught:
        AckTracker(delay)
    assert caught.value.argument == "max_ack_delay"


numbers = st.integers(0, 40)
step = st.one_of(
    st.tuples(st.just("packet"), numbers),
    st.tuples(st.just("packet"), numbers),
    st.tuples(st.just("packet"), numbers),
    st.tuples(st.just("next"), st.integers(1, 3)),
    st.tuples(st.just("acked"), st.integers(0, 20)),
)


@given(walks(step, 120))
def test_against_a_set(steps: list[tuple[str, int]]) -> None:
    """R-1, F-3: at any time the ranges are the numbers received and not known to be known, no fewer, no more.

    Three things are free: the newest number may be repeated, what came in again after the peer knew of it as well,
    and beyond 32 ranges the oldest are left out.
    """
    acks = AckTracker(DELAY)
    wanted: set[int] = set()
    allowed: set[int] = set()
    largest = -1
    for step, value in steps:
        if step == "acked":
            value = min(value, largest)
            acks.on_acked(value)
            wanted = {number for number in wanted if number > value}
        else:
            number = largest + value if step == "next" else value
            if number not in allowed:
                wanted.add(number)
            allowed.add(number)
            largest = max(largest, number)
            acks.on_packet(number, 1, True, 1.0)
        taken = acks.take(1.0)
        if taken is None:
            assert not wanted
            continue
        assert taken[0] == taken[2][0][1] == largest
        named = [number for low, high in taken[2] for number in range(high, low - 1, -1)]
        assert named == sorted(set(named), reverse=True)
        assert len(taken[2]) <= 32
        for (newer, _), (_, older) in zip(taken[2], taken[2][1:], strict=False):
            assert newer > older + 1
        if len(taken[2]) < 32:
            assert wanted <= set(named) <= allowed
