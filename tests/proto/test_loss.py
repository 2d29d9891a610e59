"""Loss detection of a path: R-1 to R-8 of docs/protocol.md; RFC 9002, section 6 and appendix A.

First our code against a second implementation of the RFC, on whatever hypothesis can think of; then each rule alone.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Sequence
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stt_proto.errors import ArgumentError
from stt_proto.recovery import AckTracker, Ranges, Recovery, SentPacket
from tests.proto.rfc9002_model import Model

DATAGRAM = 1200
MAX_ACK_DELAY = 0.025


def to_ranges(numbers: Iterable[int], most: int = 64) -> Ranges:
    """The ranges of an ACK frame, newest first."""
    ranges: list[tuple[int, int]] = []
    for number in sorted(numbers, reverse=True):
        if ranges and ranges[-1][0] == number + 1:
            ranges[-1] = number, ranges[-1][1]
        else:
            ranges.append((number, number))
    return tuple(ranges[:most])


def packet(number: int, now: float, size: int = DATAGRAM, **more: Any) -> SentPacket:
    eliciting = more.pop("eliciting", True)
    return SentPacket(number, now, size, more.pop("segments", 1), eliciting, more.pop("in_flight", True), (), **more)


def path(sent: Sequence[float] = (), **options: Any) -> Recovery:
    """A path on which packets 0, 1, ... were sent at these times."""
    recovery = Recovery(DATAGRAM, max_ack_delay=MAX_ACK_DELAY, **options)
    for number, now in enumerate(sent):
        recovery.on_sent(packet(number, now))
    return recovery


def acknowledge(recovery: Recovery, numbers: Iterable[int], now: float, **options: Any) -> tuple[list[int], list[int]]:
    """What one ACK of these numbers settles: newly acknowledged, lost."""
    acked, lost = recovery.on_ack(to_ranges(numbers), options.pop("delay", 0.0), now, **options)
    return [p.number for p in acked], [p.number for p in lost]


# -- against the RFC -----------------------------------------------------------------------------------------------

SIZES = (40, 300, 1200, 14_400, 65_000)
WAITS = (0.0, 0.000_5, 0.003, 0.02, 0.11, 0.7, 4.0, 30.0)

steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 4), st.integers(0, 15)),
        st.tuples(st.just("send"), st.integers(0, 4), st.just(0)),
        st.tuples(st.just("ack"), st.integers(0, 2**12), st.integers(0, 31)),
        st.tuples(st.just("again"), st.integers(0, 5), st.integers(0, 31)),
        st.tuples(st.just("wait"), st.integers(0, len(WAITS) - 1), st.just(0)),
        st.tuples(st.just("timer"), st.integers(0, len(WAITS) - 1), st.just(0)),
        st.tuples(st.just("refuse"), st.just(0), st.just(0)),
    ),
    min_size=10,
    max_size=120,
)


class Duel:
    """Two implementations on one path of a session whose other packet numbers belong to somebody else."""

    def __init__(self, initial_rtt: float) -> None:
        self.ours = Recovery(DATAGRAM, initial_rtt=initial_rtt, max_ack_delay=MAX_ACK_DELAY)
        self.model = Model(DATAGRAM, initial_rtt, MAX_ACK_DELAY)
        self.now = 10.0
        self.number = 0
        self.sent: list[int] = []
        self.received: set[int] = set()
        self.acks: list[set[int]] = []
        self.ce = 0

    def send(self, size: int, kind: int) -> None:
        for _ in range(kind // 4):  # numbers that were skipped or went elsewhere, where half of them arrive
            if self.number % 2:
                self.received.add(self.number)
            self.number += 1
        eliciting, in_flight, probe = ((True, True, False), (True, True, True), (False, True, False), (False, False, False))[
            kind % 4
        ]
        bytes_ = SIZES[size]
        sent = packet(self.number, self.now, bytes_, eliciting=eliciting, in_flight=in_flight, mtu_probe=probe)
        self.ours.on_sent(sent)
        self.model.on_packet_sent(self.number, self.now, bytes_, eliciting, in_flight, probe)
        self.sent.append(self.number)
        self.number += 1

    def ack(self, mask: int, how: int) -> None:
        """Of the last twelve packets not received yet, those in the mask arrive; the peer says so."""
        missing = [number for number in self.sent if number not in self.received][-12:]
        self.received.update(number for bit, number in enumerate(missing) if mask >> bit & 1)
        ranges = to_ranges(self.received, 32 if how & 1 else 2)
        self.take_ack({n for low, high in ranges for n in range(low, high + 1)}, how)

    def take_ack(self, numbers: set[int], how: int) -> None:
        if not numbers:
            return
        self.acks.append(numbers)
        same_path = how & 2 == 0
        delay = (0.0, 0.004, 0.03)[how % 3]
        self.ce += how & 28 == 28
        acked, lost = self.ours.on_ack(to_ranges(numbers), delay, self.now, same_path, (0, 0, self.ce))
        expected = self.model.on_ack_received(numbers, delay, self.now, same_path, self.ce)
        assert ([p.number for p in acked], [p.number for p in lost]) == expected

    def again(self, back: int, how: int) -> None:
        """An old ACK arrives late or twice."""
        if back < len(self.acks):
            self.take_ack(self.acks[-1 - back], how)

    def timer(self, late: float) -> None:
        """The host wakes up when asked to, or later, and perhaps twice."""
        if self.ours.deadline == inf:
            return
        self.now = max(self.now, self.ours.deadline + late)
        probes = self.ours.probes
        lost = [p.number for p in self.ours.on_timeout(self.now)]
        expected, asked = self.model.on_loss_detection_timeout(self.now)
        assert lost == expected
        assert self.ours.probes == (2 if asked else probes)
        assert self.ours.on_timeout(self.now) == []
        assert self.ours.deadline > self.now

    def refuse(self) -> None:
        assert not self.ours.can_send(1 << 40)
        self.model.on_window_refused()

    def compare(self) -> None:
        ours, model = self.ours, self.model
        assert ours.bytes_in_flight == model.bytes_in_flight
        assert ours.deadline == (inf if model.timer is None else model.timer)
        assert ours.pto_count == model.pto_count
        assert (ours.rtt.smoothed, ours.rtt.rttvar) == (model.smoothed_rtt, model.rttvar)
        if ours.rtt.samples:
            assert (ours.rtt.latest, ours.rtt.minimum) == (model.latest_rtt, model.min_rtt)
        assert (ours.controller.window, ours.controller.ssthresh) == (model.congestion_window, model.ssthresh)

    def run(self, script: list[tuple[str, int, int]]) -> None:
        for step, a, b in script:
            match step:
                case "send":
                    self.send(a, b)
                case "ack":
                    self.ack(a, b)
                case "again":
                    self.again(a, b)
                case "wait":
                    self.now += WAITS[a]
                case "timer":
                    self.timer(WAITS[a])
                case _:
                    self.refuse()
            self.compare()
        left = [p.number for p in self.ours.discard_all()]
        assert left == list(self.model.sent_packets)


@settings(max_examples=300)
@given(st.sampled_from((0.0001, 0.03, 0.1, 0.5)), steps)
def test_against_a_second_implementation(initial_rtt: float, script: list[tuple[str, int, int]]) -> None:
    """R-3 to R-8: the same packets acknowledged and lost, the same RTT, window and timer, to the last bit."""
    Duel(initial_rtt).run(script)


# -- what is recorded ----------------------------------------------------------------------------------------------


def test_what_nothing_answers_is_not_recorded() -> None:
    """R-1: packets that hold only ACK, PADDING, KEEP_ALIVE_ACK. A side that only receives sends no end of them."""
    recovery = path()
    for number in range(1000):
        recovery.on_sent(packet(number, 1.0, eliciting=False, in_flight=False))
    assert (recovery.packets_sent, recovery.bytes_in_flight, recovery.deadline) == (0, 0, inf)
    assert acknowledge(recovery, range(1000), 1.1) == ([], [])


def test_padding_fills_the_window_and_starts_no_timer() -> None:
    """RFC 9002, 2: in flight, though not eliciting."""
    recovery = path()
    recovery.on_sent(packet(0, 1.0, eliciting=False))
    assert recovery.bytes_in_flight == DATAGRAM
    assert recovery.deadline == inf
    assert recovery.oldest_eliciting() is None
    recovery.on_sent(packet(1, 1.0))
    assert recovery.deadline < inf
    oldest = recovery.oldest_eliciting()
    assert oldest is not None
    assert oldest.number == 1
    assert acknowledge(recovery, [0], 1.1) == ([0], [])
    assert recovery.bytes_in_flight == DATAGRAM


def test_what_elicits_is_always_recorded() -> None:
    """Else it could be lost unnoticed."""
    recovery = path()
    recovery.on_sent(packet(0, 1.0, in_flight=False))
    assert recovery.bytes_in_flight == DATAGRAM


def test_a_train_is_in_flight_with_all_its_datagrams_and_lost_as_a_whole() -> None:
    """R-1."""
    recovery = path()
    for number in range(4):
        recovery.on_sent(packet(number, 1.0, 54_000, segments=45))
    assert recovery.bytes_in_flight == 4 * 54_000
    assert acknowledge(recovery, [3], 1.1) == ([3], [0])
    assert recovery.bytes_in_flight == 2 * 54_000
    assert (recovery.delivered, recovery.lost) == (54_000, 54_000)


def test_the_repr_tells_what_matters() -> None:
    assert repr(packet(7, 1.5, 2400, segments=2)) == "<SentPacket 7 at 1.500000: 2400 bytes in 2, eliciting>"
    assert "silent" in repr(packet(7, 1.5, eliciting=False))


# -- several paths, one counter ------------------------------------------------------------------------------------


def test_each_path_takes_its_own() -> None:
    """R-4: only packets of one path are compared, by their place on it and not by number."""
    one, other = path(), path()
    for number in range(0, 12, 2):
        one.on_sent(packet(number, 1.0))
        other.on_sent(packet(number + 1, 1.0))
    # Packets 0 and 2 are 8 and 6 numbers behind, but only 4 and 3 packets; 4 is 4 numbers and 2 packets behind.
    assert acknowledge(one, [8], 1.01) == ([8], [0, 2])
    assert acknowledge(other, [8], 1.01) == ([], [])
    assert acknowledge(other, range(12), 1.02) == ([1, 3, 5, 7, 9, 11], [])
    assert acknowledge(one, range(12), 1.02) == ([4, 6, 10], [])


def test_skipped_numbers_are_no_packets() -> None:
    """P-6 skips numbers; nothing is lost for that."""
    recovery = path()
    for number in (0, 1, 500, 501):
        recovery.on_sent(packet(number, 1.0))
    assert acknowledge(recovery, [501], 1.01) == ([501], [0])


def test_no_rtt_from_another_path() -> None:
    """R-3: only when the ACK came over the path that the packet used, and that packet is the largest."""
    recovery = path([1.0, 1.0, 1.0])
    acknowledge(recovery, [0], 1.3, sample_ok=False)
    acknowledge(recovery, [1, 900], 1.3)
    assert recovery.rtt.samples == 0
    acknowledge(recovery, [2], 1.3)
    assert recovery.rtt.samples == 1


def test_no_rtt_from_what_does_not_elicit_or_is_not_new() -> None:
    """R-3: the peer may acknowledge padding whenever it likes."""
    recovery = path([1.0])
    recovery.on_sent(packet(1, 1.0, eliciting=False))
    acknowledge(recovery, [0, 1], 1.3)
    assert recovery.rtt.samples == 0
    recovery.on_sent(packet(2, 2.0))
    recovery.on_sent(packet(3, 2.0))
    acknowledge(recovery, [3], 2.1)
    acknowledge(recovery, [2, 3], 2.5)
    assert (recovery.rtt.samples, recovery.rtt.smoothed) == (1, pytest.approx(0.1))


def test_the_peers_delay_is_capped() -> None:
    """R-3: by what it promised."""
    recovery = path([1.0, 2.0])
    acknowledge(recovery, [0], 1.1)
    recovery.set_max_ack_delay(0.010)
    acknowledge(recovery, [1], 2.2, delay=5.0)
    assert recovery.rtt.smoothed == pytest.approx(0.875 * 0.1 + 0.125 * 0.190)


# -- what is lost --------------------------------------------------------------------------------------------------


def test_three_behind_is_lost() -> None:
    """R-4: kPacketThreshold."""
    recovery = path([1.0] * 10)
    assert acknowledge(recovery, [2], 1.01) == ([2], [])
    assert acknowledge(recovery, [2, 3], 1.01) == ([3], [0])
    assert acknowledge(recovery, [2, 3, 9], 1.01) == ([9], [1, 4, 5, 6])
    assert acknowledge(recovery, range(10), 1.02) == ([7, 8], [])


def test_older_than_nine_eighths_is_lost() -> None:
    """R-4: by the timer, and by an ACK that comes after it should have fired."""
    recovery = path([1.0, 1.05])
    assert acknowledge(recovery, [1], 1.15) == ([1], [])
    assert recovery.deadline == 1.0 + 9 / 8 * recovery.rtt.smoothed
    assert recovery.on_timeout(recovery.deadline - 1e-6) == []
    assert [p.number for p in recovery.on_timeout(recovery.deadline)] == [0]
    recovery = path([1.0, 1.05, 1.05])
    acknowledge(recovery, [1], 1.15)
    assert acknowledge(recovery, [1, 2], 1.19) == ([2], [0])


def test_nothing_is_lost_before_a_later_packet_arrived() -> None:
    """RFC 9002, 6.1: silence is for the probe timeout."""
    recovery = path([1.0, 1.0, 1.0])
    acknowledge(recovery, [0], 1.1)
    assert recovery.on_timeout(500.0) == []
    assert recovery.probes == 2


def test_the_timer_finds_what_it_was_set_for() -> None:
    """A timer that is on time to the last bit never fires in vain; odd numbers, since those round."""
    for third in range(1, 400):
        recovery = path([third / 3, third / 3 + 0.1, third / 3 + 0.1])
        acknowledge(recovery, [2], third / 3 + 0.1 + third / 7000)
        deadline = recovery.deadline
        if recovery.bytes_in_flight == 2 * DATAGRAM:
            assert [p.number for p in recovery.on_timeout(deadline)][:1] == [0]


# -- the probe timeout ---------------------------------------------------------------------------------------------


def sampled_path(now: float = 1.0) -> Recovery:
    """A path with an RTT of 100 ms, and packet 1 sent at `now`."""
    recovery = path([now - 0.5])
    acknowledge(recovery, [0], now - 0.4)
    recovery.on_sent(packet(1, now))
    return recovery


def test_probe_timeout() -> None:
    """R-5: smoothed + max(4 rttvar, 1 ms) + max_ack_delay after the last eliciting packet."""
    recovery = sampled_path(1.0)
    assert recovery.pto == pytest.approx(0.1 + 4 * 0.05 + 0.025)
    assert recovery.deadline == 1.0 + recovery.pto
    recovery.on_sent(packet(2, 1.2, eliciting=False))
    assert recovery.deadline == 1.0 + recovery.pto
    recovery.on_sent(packet(3, 1.3))
    assert recovery.deadline == 1.3 + recovery.pto


def test_a_timeout_asks_for_two_probes() -> None:
    """R-5: sending eliciting packets counts them down, an acknowledgement calls them off."""
    recovery = sampled_path()
    assert recovery.on_timeout(recovery.deadline) == []
    assert recovery.probes == 2
    recovery.on_sent(packet(2, 1.4, eliciting=False))
    assert recovery.probes == 2
    recovery.on_sent(packet(3, 1.4))
    assert recovery.probes == 1
    recovery.on_sent(packet(4, 1.4))
    recovery.on_sent(packet(5, 1.4))
    assert recovery.probes == 0
    recovery.on_timeout(recovery.deadline)
    assert (recovery.probes, recovery.pto_count) == (2, 2)
    acknowledge(recovery, [1], 2.5)
    assert (recovery.probes, recovery.pto_count) == (0, 0)


def test_a_timeout_is_no_congestion() -> None:
    """RFC 9002, 7.5 and 6.2.4: nothing is declared lost, the window stays."""
    recovery = sampled_path()
    window = recovery.controller.window
    for _ in range(20):
        assert recovery.on_timeout(recovery.deadline) == []
    assert recovery.controller.window == window
    assert recovery.bytes_in_flight == DATAGRAM


def test_the_back_off_ends() -> None:
    """R-5: doubled, at most 6 times and at most 10 s; neither grows for ever when nobody answers or sends."""
    recovery = sampled_path(1.0)
    base, last, waits = recovery.pto, 1.0, []
    for _ in range(12):
        now = recovery.deadline
        recovery.on_timeout(now)
        recovery.on_sent(packet(recovery.packets_sent, now))
        waits.append(now - last)
        last = now
    assert waits[:5] == pytest.approx([base * 2**n for n in range(5)])
    assert waits[5:] == pytest.approx([10.0] * 7)

    recovery = path(initial_rtt=0.001)
    recovery.set_max_ack_delay(0.0)
    recovery.on_sent(packet(0, 1.0))
    for _ in range(2000):
        recovery.on_timeout(recovery.deadline)
    before = recovery.deadline
    recovery.on_timeout(before)
    assert recovery.deadline - before == pytest.approx(64 * recovery.pto)


@pytest.mark.parametrize("late", [0.0, 0.2, 3.0, 3600.0])
def test_one_moment_has_one_timeout(late: float) -> None:
    """Idempotent for the same `now`, also for a host that slept and for one that could not send the probes."""
    recovery = sampled_path()
    now = recovery.deadline + late
    recovery.on_timeout(now)
    assert recovery.pto_count == 1
    for _ in range(5):
        assert recovery.deadline > now
        assert recovery.on_timeout(now) == []
    assert recovery.pto_count == 1


def test_a_late_tick_finds_the_lost_and_leaves_the_probes_for_later() -> None:
    """Both timers have passed: what is lost is sent again, which may well be answered."""
    recovery = path([1.0, 1.05, 1.06])
    acknowledge(recovery, [1], 1.15)
    assert [p.number for p in recovery.on_timeout(60.0)] == [0]
    assert recovery.on_timeout(60.0) == []
    assert (recovery.probes, recovery.pto_count) == (0, 0)
    assert recovery.deadline == 60.0 + recovery.pto


def test_the_oldest_is_probed() -> None:
    """R-5: what is longest in flight."""
    recovery = path([1.0] * 5)
    oldest = recovery.oldest_eliciting()
    assert oldest is not None
    assert oldest.number == 0
    acknowledge(recovery, [0, 1, 3], 1.1)
    oldest = recovery.oldest_eliciting()
    assert oldest is not None
    assert oldest.number == 2


# -- persistent congestion -----------------------------------------------------------------------------------------


def outage(last: float, *, arrived: Sequence[int] = (), sampled: bool = True, **more: Any) -> Recovery:
    """A path with an RTT of 100 ms on which the packets 1 to 4, sent from 1.0 to `last`, are lost."""
    recovery = path([0.5])
    if sampled:
        acknowledge(recovery, [0], 0.6)
    for number, now in enumerate([1.0, 1.1, last - 0.1, last, last + 0.5, last + 0.5, last + 0.5], 1):
        recovery.on_sent(packet(number, now, **(more if number in (1, 4) else {})))
    acknowledge(recovery, [*arrived, 5, 6, 7], last + 0.6)
    return recovery


MINIMUM = 2 * DATAGRAM


def test_persistent_congestion() -> None:
    """R-7: three timeouts without anything delivered; the window goes to its minimum, the minimum RTT anew."""
    duration = 3 * outage(1.2).pto
    assert outage(1.0 + 0.99 * duration).controller.window > MINIMUM
    recovery = outage(1.0 + 1.01 * duration)
    assert recovery.controller.window == MINIMUM
    assert recovery.rtt.minimum == recovery.rtt.latest


@pytest.mark.parametrize("arrived", [2, 3])
def test_not_when_something_arrived_in_between(arrived: int) -> None:
    """R-7."""
    assert outage(2.5, arrived=[arrived]).controller.window > MINIMUM


def test_something_that_arrived_before_or_after_does_not_matter() -> None:
    recovery = path([0.5])
    acknowledge(recovery, [0], 0.6)
    for number, now in enumerate([1.0, 1.1, 1.2, 1.3, 3.0, 3.1, 4.0, 4.0, 4.0], 1):
        recovery.on_sent(packet(number, now))
    acknowledge(recovery, [2, 7, 8, 9], 4.1)  # 1 lost, 2 arrived, 3 to 6 lost
    assert recovery.controller.window == MINIMUM


def test_not_before_the_first_sample() -> None:
    """RFC 9002, 7.6.2: a guess at the RTT proves nothing."""
    assert outage(9.0, sampled=False).controller.window > MINIMUM


@pytest.mark.parametrize("more", [{"eliciting": False}, {"mtu_probe": True}])
def test_only_what_elicits_marks_the_time(more: dict[str, bool]) -> None:
    """R-7: padding and probes of the MTU do not."""
    assert outage(2.2).controller.window == MINIMUM
    assert outage(2.2, **more).controller.window > MINIMUM


# -- the window ----------------------------------------------------------------------------------------------------


def test_the_window_bounds_what_is_in_flight() -> None:
    """R-8; what was discarded or acknowledged makes room."""
    recovery = path()
    window = int(recovery.controller.window)
    assert recovery.can_send(window)
    recovery.on_sent(packet(0, 1.0, window - 100))
    assert recovery.can_send(100)
    assert not recovery.can_send(101)
    acknowledge(recovery, [0], 1.1)
    assert recovery.can_send(window)


def test_a_full_window_grows() -> None:
    """R-8: a refusal shows that it is in use."""
    recovery = path([1.0] * 12)
    assert not recovery.can_send(DATAGRAM)
    acknowledge(recovery, [0, 1], 1.1)
    assert recovery.controller.window == 14_720 + 2 * DATAGRAM


def test_an_unused_window_does_not_grow() -> None:
    """R-8; nor for what was sent after it was last full."""
    recovery = path([1.0] * 10)
    acknowledge(recovery, range(5), 1.1)
    assert recovery.controller.window == 14_720
    assert not recovery.can_send(1 << 20)
    recovery.on_sent(packet(10, 1.1))
    acknowledge(recovery, range(11), 1.2)
    assert recovery.controller.window == 14_720


def test_held_back_by_the_pacer_counts_as_full() -> None:
    """RFC 9002, 7.8: when half of the window is in flight."""
    for size, grown in ((700, 0), (800, 800)):
        recovery = path()
        number = 0
        while recovery.pacing_deadline(1.0, size) == 0.0 and number < 10:
            recovery.on_sent(packet(number, 1.0, size))
            number += 1
        recovery.pacing_deadline(1.0, DATAGRAM * 10)
        acknowledge(recovery, [0], 1.1)
        assert recovery.controller.window == 14_720 + grown


def test_the_loss_of_an_mtu_probe_is_no_congestion() -> None:
    """RFC 9000, 14.4: it is told, and counts for nothing else."""
    recovery = path()
    recovery.on_sent(packet(0, 1.0, 1452, mtu_probe=True))
    for number in range(1, 5):
        recovery.on_sent(packet(number, 1.0))
    window = recovery.controller.window
    assert acknowledge(recovery, [1, 2, 3, 4], 1.1) == ([1, 2, 3, 4], [0])
    assert recovery.controller.window == window
    assert (recovery.bytes_in_flight, recovery.lost, recovery.packets_lost, recovery.datagram_loss) == (0, 0, 0, 0)


def test_marks_count_once_and_only_against_whose_packets_they_came_with() -> None:
    """R-2, RFC 9002, 7.1; the counts are those of the session."""
    one, other = path([1.0, 1.0, 2.0]), Recovery(DATAGRAM, ce_count=0)
    other.on_sent(packet(3, 1.0))
    for recovery in (one, other):
        acknowledge(recovery, [0], 1.1, ecn=(5, 0, 1))
    assert (one.controller.window, other.controller.window) == (7360, 14_720)
    for recovery in (one, other):
        acknowledge(recovery, [0, 3], 1.2, ecn=(5, 0, 1))
    assert (one.controller.window, other.controller.window) == (7360, 14_720)
    acknowledge(one, [0, 1], 1.3, ecn=(5, 0, 2))  # sent before the reduction
    assert one.controller.window == 7360
    acknowledge(one, [0, 1, 2], 2.1, ecn=(5, 0, 3))
    assert one.controller.window == 3680
    late = Recovery(DATAGRAM, ce_count=other.ce_count)
    late.on_sent(packet(4, 3.0))
    acknowledge(late, [4], 3.1, ecn=(5, 0, 1))
    assert late.controller.window == 14_720


# -- what is measured ----------------------------------------------------------------------------------------------


def test_smoothed_loss_of_datagrams() -> None:
    """PROTOCOL section 3: an acknowledged packet counts n delivered, a lost one 1 lost and n - 1 delivered."""
    recovery = path()
    for number in range(8):
        recovery.on_sent(packet(number, 1.0, 48_000, segments=40))
    acknowledge(recovery, [0], 1.1)
    assert recovery.datagram_loss == 0.0
    acknowledge(recovery, [0, 7], 1.1)  # 1 to 4 are lost
    after_loss = 4 / (4 * 40 + 1024)
    assert recovery.datagram_loss == pytest.approx(after_loss * (1 - 40 / (40 + 1024)))


@pytest.mark.parametrize(("share", "segments"), [(0.001, 1), (0.01, 1), (0.01, 8), (0.1, 4)])
def test_smoothed_loss_finds_the_share(share: float, segments: int) -> None:
    """With one datagram in a thousand lost, a train of 45 still pays; so that has to be told from one in a hundred."""
    recovery = path()
    every = round(1 / share / segments)
    seen = []
    received: set[int] = set()
    for number in range(every * (20_000 // every)):
        recovery.on_sent(packet(number, number / 1000, DATAGRAM * segments, segments=segments))
        if number % every:
            received.add(number)
            acknowledge(recovery, [number], number / 1000 + 0.0005)
        if number > 10_000:
            seen.append(recovery.datagram_loss)
    assert sum(seen) / len(seen) == pytest.approx(share, rel=0.1)


def test_a_loss_long_ago_is_forgotten() -> None:
    recovery = path([1.0] * 4)
    acknowledge(recovery, [3], 1.1)
    assert recovery.datagram_loss == pytest.approx(1 / 1026, rel=0.01)
    for number in range(4, 12_000):
        recovery.on_sent(packet(number, float(number)))
        acknowledge(recovery, [number], number + 0.1)
    assert recovery.datagram_loss == 0.0


def test_delivery_rate_samples() -> None:
    """Each packet carries what a controller needs to know the rate at which it was delivered."""
    recovery = path([1.0, 1.01])
    acknowledge(recovery, [0], 1.10)
    recovery.on_sent(packet(2, 1.10))
    recovery.on_sent(packet(3, 1.11))
    (acked, _) = recovery.on_ack(((1, 3),), 0.0, 1.21)
    first, second, third = acked
    assert (first.delivered, first.delivered_time, first.first_sent_time) == (0, 1.0, 1.0)
    assert (second.delivered, second.delivered_time, second.first_sent_time) == (DATAGRAM, 1.10, 1.0)
    assert (third.index, recovery.delivered, recovery.delivered_time) == (3, 4 * DATAGRAM, 1.21)
    recovery.on_sent(packet(4, 9.0))  # nothing was in flight: a new flight begins
    ((only,), _) = recovery.on_ack(((4, 4),), 0.0, 9.1)
    assert (only.delivered, only.delivered_time, only.first_sent_time) == (4 * DATAGRAM, 9.0, 9.0)


def test_packets_know_that_the_application_was_slow() -> None:
    """Until what was in flight when it had nothing more is delivered."""
    recovery = path([1.0, 1.0])
    recovery.on_app_limited()
    for number in (2, 3):
        recovery.on_sent(packet(number, 1.05))
    acked, _ = recovery.on_ack(((0, 2),), 0.0, 1.1)
    assert [p.app_limited for p in acked] == [False, False, True]
    recovery.on_sent(packet(4, 1.1))
    acked, _ = recovery.on_ack(((3, 4),), 0.0, 1.2)
    assert [p.app_limited for p in acked] == [True, False]


def test_stats() -> None:
    recovery = path([1.0] * 6)
    stats = recovery.stats()
    assert (stats.rtt_smoothed, stats.rtt_minimum, stats.rtt_latest) == (None, None, None)
    acknowledge(recovery, [4], 1.1)
    stats = recovery.stats()
    assert (stats.rtt_smoothed, stats.rtt_minimum) == (pytest.approx(0.1), pytest.approx(0.1))
    assert (stats.packets_sent, stats.packets_acked, stats.packets_lost) == (6, 1, 2)
    assert (stats.bytes_in_flight, stats.bytes_delivered, stats.bytes_lost) == (3600, 1200, 2400)
    assert (stats.window, stats.ssthresh, stats.pto_count) == (7360, 7360.0, 0)
    assert stats.pacing_rate == recovery.controller.pacing_rate


# -- the end -------------------------------------------------------------------------------------------------------


def test_discarding_is_no_loss() -> None:
    recovery = path([1.0] * 10)
    acknowledge(recovery, [0, 2], 1.1)
    recovery.on_timeout(recovery.deadline)
    recovery.on_timeout(recovery.deadline)
    window = recovery.controller.window
    assert [p.number for p in recovery.discard_all()] == [3, 4, 5, 6, 7, 8, 9]
    assert (recovery.bytes_in_flight, recovery.deadline, recovery.probes, recovery.pto_count) == (0, inf, 0, 0)
    assert recovery.controller.window == window
    assert recovery.discard_all() == []
    assert acknowledge(recovery, range(10), 5.0) == ([], [])
    recovery.on_sent(packet(10, 6.0))
    assert acknowledge(recovery, [10], 6.1) == ([10], [])


def test_arguments() -> None:
    for delay in (-1.0, inf, nan):
        with pytest.raises(ArgumentError) as caught:
            Recovery(DATAGRAM, max_ack_delay=delay)
        assert caught.value.argument == "max_ack_delay"
    with pytest.raises(ArgumentError) as caught:
        Recovery(DATAGRAM, congestion="vegas")
    assert caught.value.argument == "congestion"


# -- what it costs -------------------------------------------------------------------------------------------------


class Watched(SentPacket):
    """A packet that counts how often somebody looks at its number or its index."""

    looks = 0
    _values: dict[str, int]

    def __init__(self, number: int) -> None:
        self._values = {}
        super().__init__(number, number / 1e5, DATAGRAM, 1, True, True)

    def _get(self, name: str) -> int:
        Watched.looks += 1
        return self._values[name]

    number = property(lambda self: self._get("number"), lambda self, value: self._values.update(number=value))  # type: ignore[assignment]
    index = property(lambda self: self._get("index"), lambda self, value: self._values.update(index=value))  # type: ignore[assignment]


class WatchedRanges(tuple[tuple[int, int], ...]):
    """Ranges that count how often somebody takes one out."""

    __slots__ = ()
    looks = 0

    def __getitem__(self, key: Any) -> Any:
        WatchedRanges.looks += 1
        return super().__getitem__(key)


@pytest.mark.parametrize("in_flight", [10, 1_000, 10_000])
def test_an_ack_costs_what_it_settles(in_flight: int) -> None:
    """Neither what is in flight nor what was acknowledged long ago is looked at again."""
    recovery = path()
    for number in range(in_flight + 400):
        recovery.on_sent(Watched(number))
        if number >= in_flight:
            Watched.looks = WatchedRanges.looks = 0
            newest = number - in_flight
            # Sixty ranges of old, and one with everything that our packets lie in.
            ranges = WatchedRanges([(0, newest), *((-n, -n) for n in range(2, 122, 2))])
            acked, lost = recovery.on_ack(ranges, 0.0, number / 1e5)
            assert len(acked) == 1
            assert not lost
            assert Watched.looks <= 12
            assert WatchedRanges.looks <= 4


def test_losses_are_looked_at_once() -> None:
    """An ACK with a hole below costs the hole, once."""
    recovery = path()
    for number in range(5_000):
        recovery.on_sent(Watched(number))
    acknowledge(recovery, [1_000], 0.02)
    Watched.looks = 0
    for number in range(1_001, 1_101):
        assert acknowledge(recovery, range(1_000, number + 1), 0.021)[1] in ([], [998], [999])
    assert Watched.looks <= 100 * 16


@pytest.mark.parametrize("used", [False, True])
def test_an_idle_path_is_small(used: bool) -> None:
    """Under 2 KiB for both halves, also after a burst."""

    def make(number: int) -> tuple[Recovery, AckTracker]:
        recovery, acks = Recovery(DATAGRAM, initial_rtt=0.03 + number / 1e6), AckTracker(MAX_ACK_DELAY)
        if used:
            for sent in range(300):
                recovery.on_sent(packet(sent, number + sent / 1e4))
                acks.on_packet(sent, 1, True, number + sent / 1e4)
            for acked in range(0, 300, 2):
                recovery.on_ack(((0, acked + 1),), 0.001, number + 0.1 + acked / 1e4)
            acks.take(number + 1.0)
        return recovery, acks

    made = [make(0)]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        made += [make(number) for number in range(1, 101)]
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert (after - before) / 100 < 1.5 * 1024
    assert all(recovery.bytes_in_flight == 0 for recovery, _ in made)
