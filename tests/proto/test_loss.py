"""Loss detection of a path, rule by rule: R-1 to R-8 of docs/protocol.md; RFC 9002, section 6 and appendix A.

`test_rfc9002.py` compares it with a second implementation, `test_recovery_cost.py` counts what it costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, nan
from typing import Any

import pytest

from stt_proto.errors import ArgumentError
from stt_proto.recovery import Recovery
from tests.proto.lossy import DATAGRAM, acknowledge, packet, path

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
    recovery = path([1.0, 1.005])
    assert acknowledge(recovery, [1], 1.105) == ([1], [])
    assert recovery.deadline == 1.0 + 9 / 8 * recovery.rtt.smoothed
    assert recovery.on_timeout(recovery.deadline - 1e-6) == []
    assert [p.number for p in recovery.on_timeout(recovery.deadline)] == [0]
    recovery = path([1.0, 1.005, 1.005])
    assert acknowledge(recovery, [1], 1.105) == ([1], [])
    assert acknowledge(recovery, [1, 2], 1.15, sample_ok=False) == ([2], [0])


def test_an_ack_of_an_older_packet_does_not_hide_a_newer_one() -> None:
    """R-4: what was the largest acknowledged stays it."""
    recovery = path([1.0, 1.0, 1.0])
    acknowledge(recovery, [2], 1.1)
    deadline = recovery.deadline
    acknowledge(recovery, [0, 2], 1.101)
    assert recovery.deadline == deadline
    assert [p.number for p in recovery.on_timeout(deadline)] == [1]


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


def test_answers_that_take_a_longer_way() -> None:
    """R-5: an answer over another path measures nothing (R-3), so it ends the back-off only if it came within a PTO.

    Else each answer made the next timeout as short, and two PINGs went out for each, a thousand times a second.
    """
    recovery = path(initial_rtt=0.0)
    recovery.set_max_ack_delay(0.0)
    now, longest, number, probes = 1.0, 0.0014, 0, 0
    recovery.on_sent(packet(number, now))
    while (at := recovery.deadline) < 2.0:
        if at > now + longest:
            acknowledge(recovery, range(number + 1), now + longest, sample_ok=False)
            continue
        now = at
        assert recovery.on_timeout(now) == []
        for _ in range(recovery.probes):
            number += 1
            probes += 1
            recovery.on_sent(packet(number, now))
    assert probes == 2
    assert recovery.pto_count == 1

    recovery.on_sent(packet(number + 1, 3.0))
    acknowledge(recovery, [number + 1], 3.0 + recovery.pto, sample_ok=False)
    assert recovery.pto_count == 0


def test_the_back_off_ends() -> None:
    """R-5: doubled, at most 6 times, or up to 1 s where that is more, and at most 10 s.

    It does not grow for ever when nobody answers or sends; nor does anybody ask ten times a second for ever where the
    round trip is short. [A process that slept 20 s found 400 probes.]
    """
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

    for rtt, longest in ((0.0001, 1.0), (0.001, 1.0), (0.01, 64 * 0.03)):
        recovery = path(initial_rtt=rtt)
        recovery.set_max_ack_delay(0.0)
        last, waits = 1.0, []
        for number in range(2000):
            recovery.on_sent(packet(number, last))
            waits.append(recovery.deadline - last)
            last = recovery.deadline
            recovery.on_timeout(last)
        assert waits == pytest.approx([min(recovery.pto * 2 ** min(n, 20), longest) for n in range(2000)])


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
    recovery = path([1.0, 1.005, 1.006])
    acknowledge(recovery, [1], 1.105)
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
    for newly, left in (([0], 1), ([0, 1, 3], 2)):
        acknowledge(recovery, newly, 1.1)
        oldest = recovery.oldest_eliciting()
        assert oldest is not None
        assert oldest.number == left


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
    assert outage(1.95).controller.window == MINIMUM
    assert outage(1.95, **more).controller.window > MINIMUM


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


@pytest.mark.parametrize(("share", "segments"), [(0.001, 1), (0.01, 1), (0.01, 8), (0.1, 2)])
def test_smoothed_loss_finds_the_share(share: float, segments: int) -> None:
    """With one datagram in a thousand lost, a train of 45 still pays; so that has to be told from one in a hundred."""
    recovery = path()
    every = round(1 / share / segments)
    seen = []
    for number in range(every * (20_000 // every)):
        recovery.on_sent(packet(number, number / 1000, DATAGRAM * segments, segments=segments))
        if number % every:
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
    recovery = path([1.0, 1.01, 1.02, 1.03])
    acknowledge(recovery, [0, 2], 1.11)
    recovery.on_sent(packet(4, 1.11))
    acknowledge(recovery, [0, 1, 2], 1.12)  # older: the flight that is measured began with packet 2 all the same
    recovery.on_sent(packet(5, 1.12))
    (acked, _) = recovery.on_ack(((0, 5),), 0.0, 1.21)
    samples = [(p.index, p.delivered, p.delivered_time, p.first_sent_time) for p in acked]
    assert samples == [
        (3, 0, 1.0, 1.0),
        (4, 2 * DATAGRAM, 1.11, 1.02),
        (5, 3 * DATAGRAM, 1.12, 1.02),
    ]
    assert (recovery.delivered, recovery.delivered_time) == (6 * DATAGRAM, 1.21)
    recovery.on_sent(packet(6, 9.0))  # nothing was in flight: a new flight begins
    ((only,), _) = recovery.on_ack(((6, 6),), 0.0, 9.1)
    assert (only.delivered, only.delivered_time, only.first_sent_time) == (6 * DATAGRAM, 9.0, 9.0)


def test_packets_know_that_the_application_was_slow() -> None:
    """Until what was in flight when it had nothing more is delivered."""
    recovery = path([1.0, 1.0])
    recovery.on_app_limited()
    recovery.on_sent(packet(2, 1.05))
    recovery.on_ack(((0, 1),), 0.0, 1.1)
    recovery.on_sent(packet(3, 1.1))
    acked, _ = recovery.on_ack(((0, 2),), 0.0, 1.15)
    assert [p.app_limited for p in acked] == [True]
    recovery.on_sent(packet(4, 1.15))
    acked, _ = recovery.on_ack(((3, 4),), 0.0, 1.25)
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
    assert (stats.rttvar, stats.datagram_loss) == (recovery.rtt.rttvar, recovery.datagram_loss)
    assert recovery.datagram_loss > 0.0
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
