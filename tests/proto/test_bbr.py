"""The phases of BBR: R-8 and R-14 of docs/protocol.md; draft-ietf-ccwg-bbr, "BBR Example Test Cases" above all.

`Flow` plays single flights by hand, with numbers that can be worked out; `Bottleneck` is a link. What is believed of
the path is tested in `test_bbr_model.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stt_proto.recovery import Bbr, Recovery, RttEstimator, SentPacket
from stt_proto.recovery.congestion.bbr import CRUISE, DOWN, DRAIN, PROBE_RTT, REFILL, STARTUP, UP
from tests.proto.bottleneck import DATAGRAM, Bottleneck
from tests.proto.lossy import to_ranges

RTT = 0.1
RATE = 1.25e6
"""Bytes a second of the links: with their delay 125,000 bytes, a hundred datagrams and a few."""


class Flow:
    """BBR on a `Recovery` to which everything happens by hand."""

    def __init__(self, initial_rtt: float = RTT, rtt: float = RTT) -> None:
        self.rtt = rtt
        self.recovery = Recovery(DATAGRAM, congestion="bbr", initial_rtt=initial_rtt, max_ack_delay=0.025)
        assert isinstance(self.recovery.controller, Bbr)
        self.bbr: Bbr = self.recovery.controller
        self.now = 1.0
        self.number = 0

    def send(self, count: int, *, segments: int = 1) -> range:
        """Send so many packets now."""
        numbers = range(self.number, self.number + count)
        for number in numbers:
            self.recovery.on_sent(SentPacket(number, self.now, segments * DATAGRAM, segments, True, True))
        self.number += count
        return numbers

    def ack(self, numbers: Iterable[int], ce: int = 0) -> None:
        self.recovery.on_ack(to_ranges(numbers), 0.0, self.now, True, (0, 0, ce) if ce else None)

    def flight(self, count: int, *, lost: int = 0, rtt: float | None = None) -> None:
        """Send so many packets and acknowledge them together, but for some that are lost, before the last three."""
        sent = [*self.send(count)]
        self.now += rtt or self.rtt
        self.ack(sent[: -3 - lost] + sent[-3:])

    def fill(self, count: int = 100) -> None:
        """Find the bandwidth: so many datagrams in a round trip; the phase after that is DRAIN."""
        for _ in range(4):
            assert self.bbr.phase is STARTUP
            self.flight(count)
        assert self.bbr.phase is DRAIN

    def cruise(self, count: int = 100) -> None:
        self.fill(count)
        while self.bbr.phase is not CRUISE:
            self.flight(count)

    def go_up(self, count: int = 100) -> None:
        """Until more bandwidth is looked for."""
        if self.bbr.phase is STARTUP:
            self.cruise(count)
        while self.bbr.phase is not UP:
            self.flight(count)

    @property
    def window(self) -> float:
        """In datagrams."""
        return self.bbr.window / DATAGRAM


def link(**options: float) -> Bottleneck:
    """A link whose queue holds one round trip, with BBR on it."""
    return Bottleneck(RATE, RTT, queue=125_000, congestion="bbr", **options)  # type: ignore[arg-type]


def bbr(made: Bottleneck) -> Bbr:
    assert isinstance(made.recovery.controller, Bbr)
    return made.recovery.controller


def phases(made: Bottleneck) -> list[str]:
    """The names of the phases from now on, as they come."""
    seen = [bbr(made).phase.name]

    def look() -> None:
        if bbr(made).phase.name != seen[-1]:
            seen.append(bbr(made).phase.name)

    made.on_ack = look
    return seen


# -- the table -----------------------------------------------------------------------------------------------------


def test_gains() -> None:
    """("Summary of Control Behavior in the State Machine")"""
    assert [(each.name, each.pacing_gain, each.window_gain) for each in (STARTUP, DRAIN, DOWN, CRUISE)] == [
        ("startup", 2.77, 2.0),
        ("drain", 0.5, 2.0),
        ("down", 0.9, 2.0),
        ("cruise", 1.0, 2.0),
    ]
    assert [(each.name, each.pacing_gain, each.window_gain) for each in (REFILL, UP, PROBE_RTT)] == [
        ("refill", 1.0, 2.0),
        ("up", 1.25, 2.25),
        ("probe_rtt", 1.0, 0.5),
    ]
    assert [each.name for each in (STARTUP, DRAIN, DOWN, CRUISE, REFILL, UP, PROBE_RTT) if each.probing] == [
        "startup",
        "refill",
        "up",
    ]


def test_the_phases_come_in_order() -> None:
    """("State Transition Diagram")"""
    made = link()
    seen = phases(made)
    made.run_for(12.0)
    assert seen[:6] == ["startup", "drain", "down", "cruise", "refill", "up"]
    cycle = [name for name in seen[5:] if name != "probe_rtt"]
    following = {("up", "down"), ("down", "cruise"), ("down", "refill"), ("cruise", "refill"), ("refill", "up")}
    assert set(pairwise(cycle)) <= following | {("up", "cruise"), ("cruise", "cruise")}
    assert "probe_rtt" in seen


# -- the start -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("datagram", "window"), [(1200, 14_720), (1452, 14_720), (1500, 15_000), (65_535, 655_350)])
def test_it_begins_with_ten_datagrams(datagram: int, window: int) -> None:
    """R-8: and at least 14,720 bytes; at 2.77 windows a round trip ("InitPacingRate")."""
    controller = Bbr(datagram, RttEstimator(RTT))
    assert (controller.window, controller.ssthresh) == (window, inf)
    assert controller.pacing_rate == pytest.approx(2.77 * window / RTT)
    assert 0 < Bbr(datagram, RttEstimator(0.0)).pacing_rate < inf


def test_the_first_round_trip_sets_the_pace() -> None:
    flow = Flow(initial_rtt=0.05)
    flow.flight(10, rtt=0.2)
    assert flow.bbr.pacing_rate == pytest.approx(2.77 * 14_720 / 0.2)
    flow.flight(10, rtt=0.4)
    assert flow.bbr.pacing_rate == pytest.approx(2.77 * 14_720 / 0.2), "and is not taken back in the start"


def test_the_start_doubles() -> None:
    flow = Flow()
    for count in (12, 24, 48, 96):
        before = flow.window
        flow.flight(count)
        assert flow.window == pytest.approx(before + count)
    assert flow.bbr.pacing_rate == pytest.approx(2.77 * 0.99 * 96 * DATAGRAM / RTT)
    assert flow.bbr.phase is STARTUP


def test_the_start_ends_when_the_bandwidth_grows_no_more() -> None:
    """("Exiting STARTUP on Bandwidth Plateau"): three rounds in which it grew by less than a quarter."""
    flow = Flow()
    for count in (100, 124, 110, 124):
        assert flow.bbr.phase is STARTUP
        assert not flow.bbr.filled_pipe
        flow.flight(count)
    assert flow.bbr.phase is DRAIN
    assert flow.bbr.filled_pipe
    assert flow.bbr.ssthresh == 0

    flow = Flow()
    for count in (100, 124, 124, 125, 150, 150):
        flow.flight(count)
    assert flow.bbr.phase is STARTUP, "a quarter more counts as growth, and the rounds are counted anew"
    flow.flight(150)
    assert flow.bbr.phase is DRAIN


def test_the_start_finds_the_bandwidth_of_a_link() -> None:
    """("Exiting STARTUP on Bandwidth Plateau"): within 2 %."""
    made = link()
    made.run_until(lambda: bbr(made).phase is not STARTUP)
    assert bbr(made).phase is DRAIN
    assert bbr(made).model.max_bandwidth == pytest.approx(RATE, rel=0.02)
    assert made.now < 1.6


def test_losses_end_the_start() -> None:
    """("Exiting Startup Based on Packet Loss"): six times something, and too much."""
    flow = Flow()
    flow.flight(100)
    sent = flow.send(100)
    flow.now += RTT
    acked: list[int] = []
    for low in range(0, 60, 10):  # six gaps of two
        acked += sent[low + 2 : low + 10]
        flow.ack(acked)
        assert flow.bbr.phase is STARTUP
    flow.ack([*acked, *sent[60:]])
    assert flow.recovery.packets_lost == 12
    assert flow.bbr.phase is STARTUP, "not before a round trip has passed"
    flow.flight(10)
    assert flow.bbr.phase is DRAIN
    model = flow.bbr.model
    assert model.inflight_longterm == pytest.approx(max(model.bdp, 88 * DATAGRAM), rel=0.01)


def test_losses_end_the_start_of_a_slow_application_too() -> None:
    """("Exiting STARTUP on Loss When Application-Limited")"""
    for slow in (False, True):
        made = link(loss=0.1)
        if slow:
            made.run_until(lambda made=made: made.now > 0.0)  # type: ignore[misc]
        made.run_until(lambda made=made: bbr(made).phase is not STARTUP)  # type: ignore[misc]
        assert bbr(made).model.inflight_longterm < inf


@pytest.mark.parametrize("lost", [1, 4])
def test_few_losses_do_not_end_the_start(lost: int) -> None:
    flow = Flow()
    for count in (100, 130, 170, 220, 290):
        flow.flight(count, lost=lost)
    assert flow.bbr.phase is STARTUP
    assert flow.bbr.model.inflight_longterm == inf
    assert flow.bbr.model.bandwidth_shortterm == inf, "nor do they count where more is looked for anyway"


def test_many_losses_at_once_do_not_end_the_start() -> None:
    """One gap is no sign that the path is full, however wide."""
    flow = Flow()
    for count in (100, 130, 170, 220):
        flow.flight(count, lost=30)
    assert flow.bbr.phase is STARTUP


def test_a_slow_application_does_not_end_the_start() -> None:
    """("Never Exiting PROBE_UP (or STARTUP) When Application-Limited With No Loss")"""
    flow = Flow()
    flow.flight(4)
    for _ in range(20):
        flow.recovery.on_app_limited()
        flow.flight(4)
    assert flow.bbr.phase is STARTUP
    assert 12 <= flow.window < 30, "nor does the window grow for ever"


def test_acknowledgements_on_another_path_do_not_end_the_start() -> None:
    """R-3: what comes back sooner than anything can is no sample."""
    flow = Flow()
    flow.flight(100)
    for _ in range(6):
        sent = flow.send(100)
        flow.now += RTT / 2
        flow.recovery.on_ack(to_ranges(sent), 0.0, flow.now, False)
    assert flow.bbr.phase is STARTUP
    assert flow.bbr.model.max_bandwidth == pytest.approx(100 * DATAGRAM / RTT)


# -- drain ---------------------------------------------------------------------------------------------------------


def test_drain_ends_when_no_queue_is_left() -> None:
    """("Exiting DRAIN Based on Inflight")"""
    made = link()
    made.run_until(lambda: bbr(made).phase is DRAIN)
    assert bbr(made).pacing_rate == pytest.approx(0.5 * 0.99 * bbr(made).model.max_bandwidth)
    assert made.recovery.bytes_in_flight > 1.5 * RATE * RTT
    made.run_until(lambda: bbr(made).phase is not DRAIN)
    assert bbr(made).phase is DOWN
    assert made.recovery.bytes_in_flight <= bbr(made).model.bdp * 1.01


def test_drain_ends_after_three_rounds() -> None:
    """("Exiting DRAIN Based on Time"): though there is too much in flight."""
    flow = Flow()
    flow.fill()
    flow.send(500)
    oldest = flow.number
    for _ in range(3):
        flow.send(500)
        flow.now += RTT / 100
        flow.ack([oldest])
        oldest = flow.number
        assert flow.bbr.phase is DRAIN
    flow.send(500)
    flow.now += RTT / 100
    flow.ack([oldest])
    assert flow.bbr.phase is DOWN


# -- the cycle -----------------------------------------------------------------------------------------------------


def test_going_down_ends_when_there_is_room_for_others() -> None:
    """("Exiting PROBE_DOWN on Inflight"): no queue, and 0.85 of what was too much."""
    flow = Flow()
    flow.fill()
    flow.flight(100)
    assert flow.bbr.phase is DOWN
    flow.bbr.model.inflight_longterm = 80.0 * DATAGRAM
    sent = flow.send(80)
    flow.now += RTT
    flow.ack(sent[:10])
    assert flow.bbr.phase is DOWN, "70 are more than 0.85 of 80"
    flow.ack(sent[:13])
    assert flow.bbr.phase is CRUISE

    flow = Flow()
    flow.fill()
    flow.flight(100)
    sent = flow.send(110)
    flow.now += RTT
    flow.ack(sent[:9])
    assert flow.bbr.phase is DOWN, "101 are a queue of one"
    flow.ack(sent[:11])
    assert flow.bbr.phase is CRUISE


def test_going_down_ends_in_time() -> None:
    """("Exiting PROBE_DOWN After Max Time"): when it is time to look for more again, however much is in flight."""
    flow = Flow()
    flow.fill()
    flow.flight(100)
    sent = flow.send(1000)
    start = flow.now
    for number in sent:
        assert flow.bbr.phase is DOWN
        flow.now += 0.01
        flow.ack([number])
        if flow.bbr.phase is not DOWN:
            break
    assert flow.bbr.phase is REFILL
    assert 2.0 <= flow.now - start <= 3.1


def test_more_is_looked_for_every_two_or_three_seconds() -> None:
    """("PickProbeWait"): and never twice after the same time, so that flows do not march in step."""
    flow = Flow(rtt=0.2)
    flow.cruise()
    waits: list[float] = []
    began = None
    while len(waits) < 12:
        flow.rtt -= 1e-5  # so that the round trip need not be looked for
        before = flow.bbr.phase
        flow.flight(100)
        if before is UP is not flow.bbr.phase:
            began = flow.now
        elif flow.bbr.phase is REFILL and began is not None:
            waits.append(flow.now - began)
            began = None
    assert all(2.0 < wait < 3.0 + 0.2 for wait in waits)
    assert len({round(wait, 2) for wait in waits}) > 3


def test_a_small_flow_looks_as_often_as_a_reno_would() -> None:
    """("IsRenoCoexistenceProbeTime"): after as many rounds as the window has datagrams, 63 at most."""
    for count, rounds in ((8, 8), (40, 40), (200, 63)):
        flow = Flow(rtt=0.01)
        flow.cruise(count)
        before = flow.bbr.model.rounds
        while flow.bbr.phase is CRUISE:
            flow.flight(count)
        assert rounds - 3 <= flow.bbr.model.rounds - before <= rounds + 1


def test_no_chance_is_involved() -> None:
    one, other = link(loss=0.01), link(loss=0.01)
    for made in (one, other):
        made.run_for(6.0)
    assert one.number == other.number
    assert bbr(one).window == bbr(other).window


def test_refill_is_a_round_with_what_was_believed_before() -> None:
    """("ProbeBW_REFILL")"""
    flow = Flow()
    flow.cruise()
    for _ in range(4):
        flow.flight(100, lost=10)
    model = flow.bbr.model
    assert model.bandwidth < model.max_bandwidth
    while flow.bbr.phase is CRUISE:
        flow.flight(80)
    assert flow.bbr.phase is REFILL
    assert (model.bandwidth_shortterm, model.inflight_shortterm) == (inf, inf)
    assert model.bandwidth == model.max_bandwidth
    first, second = flow.send(10), flow.send(10)
    flow.now += RTT
    flow.ack(first)
    assert flow.bbr.phase is UP
    assert flow.bbr.pacing_rate == pytest.approx(1.25 * 0.99 * model.max_bandwidth)
    flow.ack(second)


def test_going_up_ends_when_the_bandwidth_does_not_grow() -> None:
    """("Exiting PROBE_UP on Bandwidth Plateau")"""
    flow = Flow()
    flow.go_up()
    for count in (100, 105, 110):
        assert flow.bbr.phase is UP
        flow.flight(count)
    assert flow.bbr.phase is DOWN
    assert flow.bbr.pacing_rate == pytest.approx(0.9 * 0.99 * 110 * DATAGRAM / RTT)


def test_going_up_goes_on_as_long_as_the_bandwidth_grows() -> None:
    flow = Flow()
    flow.go_up()
    for count in (100, 130, 165, 210, 265, 340):
        flow.flight(count)
        assert flow.bbr.phase is UP
    assert flow.bbr.model.max_bandwidth == pytest.approx(340 * DATAGRAM / RTT)
    assert flow.window >= 340


def test_going_up_never_ends_for_a_slow_application() -> None:
    """("Never Exiting PROBE_UP (or STARTUP) When Application-Limited With No Loss")"""
    flow = Flow()
    flow.go_up()
    for _ in range(20):
        flow.recovery.on_app_limited()
        flow.flight(10)
    assert flow.bbr.phase is UP


def test_a_slow_application_does_not_lower_the_bandwidth() -> None:
    """("Handling Application-Limited Sending During PROBE_REFILL")"""
    flow = Flow()
    flow.cruise()
    while flow.bbr.phase is not REFILL:
        flow.flight(100)
    flow.recovery.on_app_limited()
    flow.flight(5)
    assert flow.bbr.phase is UP
    assert flow.bbr.model.max_bandwidth == pytest.approx(100 * DATAGRAM / RTT)


def test_losses_end_going_up() -> None:
    """("Exiting PROBE_UP on Loss"): the volume that was too much is remembered, 0.7 of what is wanted or more."""
    flow = Flow()
    flow.go_up()
    first = [*flow.send(150)]
    flow.send(150)
    flow.now += RTT
    flow.ack(first[:140] + first[145:])
    model = flow.bbr.model
    assert flow.bbr.phase is DOWN
    assert 140 * DATAGRAM < model.inflight_longterm < 145 * DATAGRAM
    assert model.bandwidth_shortterm == inf, "that is enough for this round"

    flow = Flow()
    flow.go_up()
    sent = flow.send(40)
    flow.now += RTT
    flow.ack(sent[5:])
    assert flow.bbr.model.inflight_longterm == pytest.approx(0.7 * 100 * DATAGRAM, rel=0.01)


def test_losses_end_going_up_of_a_slow_application_too() -> None:
    """("Exiting PROBE_UP on Loss When Application-Limited"): and nothing is learned of the volume."""
    flow = Flow()
    flow.go_up()
    flow.recovery.on_app_limited()
    sent = flow.send(50)
    flow.send(150)
    flow.now += RTT
    flow.ack(sent[5:])
    assert flow.bbr.phase is DOWN
    assert flow.bbr.model.inflight_longterm == inf


def test_a_loss_or_two_do_not_end_going_up() -> None:
    flow = Flow()
    flow.go_up()
    flow.flight(150, lost=2)
    assert flow.bbr.phase is UP


def test_one_probe_counts_once() -> None:
    """("HandleInflightTooHigh"): what comes of the same probe afterwards changes the volume no more."""
    flow = Flow()
    flow.go_up()
    first, second = flow.send(150), flow.send(150)
    flow.now += RTT
    flow.ack(first[5:])
    longterm = flow.bbr.model.inflight_longterm
    flow.ack(second[20:])
    assert flow.bbr.model.inflight_longterm == longterm


def test_losses_while_refilling() -> None:
    """What was sent to fill the pipe is a probe as well, as soon as it is acknowledged."""
    flow = Flow()
    flow.cruise()
    while flow.bbr.phase is not REFILL:
        flow.flight(100)
    sent = flow.send(100)
    flow.now += RTT
    flow.ack(sent[10:])
    assert flow.bbr.phase is UP, "the losses came first"
    assert flow.bbr.model.inflight_longterm == inf

    flow = Flow()
    flow.cruise()
    sent = flow.send(100)
    while flow.bbr.phase is not REFILL:
        flow.now += 0.3
        flow.ack(sent[:1])
        sent = sent[1:]
    for number in range(8):
        flow.ack(sent[2:5])
        sent = sent[5:]
        if number == 0:
            later = flow.send(10)
    assert flow.recovery.packets_lost == 16
    assert flow.bbr.phase is REFILL
    flow.ack(sent)
    flow.ack(later)
    assert flow.bbr.phase is UP
    assert flow.bbr.model.inflight_longterm == inf, "only the start ends so"


def caught() -> Flow:
    """A flow that went up too high a moment ago, at a hundred datagrams."""
    flow = Flow()
    flow.go_up()
    sent = [*flow.send(150)]
    flow.now += RTT
    flow.ack(sent[:90] + sent[95:])
    assert not flow.bbr.phase.probing
    flow.bbr.model.inflight_longterm = 100.0 * DATAGRAM
    return flow


def test_cruising_leaves_room_for_others() -> None:
    """("Bounding cwnd Based on Recent Congestion"): 0.85 of what was too much."""
    flow = caught()
    while flow.bbr.phase is not CRUISE:
        flow.flight(60)
    flow.flight(60)
    assert flow.window == pytest.approx(85)
    flow.bbr.model.inflight_longterm = 5.0 * DATAGRAM
    flow.flight(5)
    assert flow.window == pytest.approx(4), "a datagram at least, and four are left"


def test_the_next_probe_is_a_careful_one() -> None:
    """("Precautionary Bandwidth Probing"): it turns round at the volume; if that was well, it goes up again at once."""
    flow = caught()
    while flow.bbr.phase is not UP:
        flow.flight(60)
    sent = flow.send(101)
    flow.now += RTT
    flow.ack(sent[:1])
    assert flow.bbr.phase is DOWN
    flow.ack(sent[1:])
    flow.flight(60)
    assert flow.bbr.phase is REFILL
    flow.flight(60)
    assert flow.bbr.phase is UP
    sent = flow.send(120)
    flow.now += RTT
    flow.ack(sent[:1])
    assert flow.recovery.bytes_in_flight > flow.bbr.model.inflight_longterm
    assert flow.bbr.phase is UP, "and stays there this time"


def test_a_careful_probe_that_fails_is_the_end_of_it() -> None:
    flow = caught()
    while flow.bbr.phase is not UP:
        flow.flight(60)
    sent = flow.send(101)
    flow.now += RTT
    flow.ack(sent[:1])
    assert flow.bbr.phase is DOWN
    flow.ack([*sent[1:90], *sent[98:]])
    assert flow.bbr.model.inflight_longterm == pytest.approx(91 * DATAGRAM, rel=0.03)
    flow.flight(60)
    assert flow.bbr.phase in (DOWN, CRUISE)


def test_the_bound_is_raised_by_ever_more() -> None:
    """("Increasing Bandwidth 10x"): as long as it is in use and nothing is lost, by 1, 2, 4, ... datagrams a round."""
    flow = caught()
    model = flow.bbr.model
    while flow.bbr.phase is not UP:
        flow.flight(60)
    flow.bbr._too_high = False
    raised = []
    for _ in range(7):
        before = model.inflight_longterm
        count = int((flow.bbr.window - flow.recovery.bytes_in_flight) // DATAGRAM)
        sent = flow.send(count)
        flow.now += RTT
        for number in range(0, count, 4):
            flow.ack(sent[number : number + 4])
        assert flow.bbr.phase is UP, "the bound is in the way, so that is no plateau"
        raised.append(round((model.inflight_longterm - before) / DATAGRAM))
    assert raised[0] <= 2
    assert raised[-1] >= 16
    assert raised == sorted(raised)


def test_a_bound_that_is_not_in_use_is_not_raised() -> None:
    """("ProbeInflightLongtermUpward"): and excuses no plateau."""
    flow = Flow()
    flow.go_up()
    flow.bbr.model.inflight_longterm = 50.0 * DATAGRAM
    for _ in range(3):
        assert flow.bbr.phase is UP
        flow.flight(40)
    assert flow.bbr.phase is not UP
    assert flow.bbr.model.inflight_longterm == 50 * DATAGRAM


def test_the_bound_is_raised_in_one_phase_only() -> None:
    flow = caught()
    flow.bbr.model.inflight_longterm = 60.0 * DATAGRAM
    while flow.bbr.phase is not REFILL:
        flow.flight(40)
    sent = flow.send(60)
    assert flow.bbr._filled == sent[-1]
    flow.now += RTT
    flow.bbr.model.start_round(flow.recovery)
    flow.bbr._up_per_step = 1.0
    flow.ack(sent[:30])
    assert flow.bbr.model.inflight_longterm == 60 * DATAGRAM


def test_losses_long_after_a_probe_say_nothing_of_its_volume() -> None:
    flow = Flow()
    flow.go_up()
    while flow.bbr.phase is not CRUISE:
        flow.flight(100)
    flow.flight(100)
    flow.flight(100, lost=30)
    assert flow.bbr.model.inflight_longterm == inf


def test_the_volume_while_going_up() -> None:
    """("QuantizationBudget"): 2.25 times what fits, what is gathered, and two datagrams."""
    flow = Flow()
    flow.go_up()
    flow.flight(150)
    flow.flight(150)
    model = flow.bbr.model
    wanted = 2.25 * model.bdp + model.extra_acked.value + 2 * DATAGRAM
    assert flow.bbr.phase is UP
    assert flow.bbr.window == pytest.approx(wanted)


@pytest.mark.parametrize(("count", "quantum"), [(4, 48_000), (10, 65_536)])
def test_the_volume_on_very_short_paths(count: int, quantum: int) -> None:
    """("SetSendQuantum"): what leaves in a millisecond, a packet at most, since no host does less at once."""
    flow = Flow(rtt=0.0001)
    flow.cruise(count)
    for _ in range(30):
        flow.flight(count)
    assert flow.bbr.phase is CRUISE
    assert flow.bbr.window == pytest.approx(quantum, rel=0.02)


def test_aggregation_is_remembered_for_longer_after_the_start() -> None:
    """("UpdateACKAggregation"): a round or two in it, then five to ten."""
    kept = []
    for filled in (False, True):
        flow = Flow()
        if filled:
            flow.cruise()
        else:
            flow.flight(100)
        highest = flow.bbr.model.extra_acked.value
        before = flow.bbr.model.rounds
        while flow.bbr.model.extra_acked.value == highest:
            flow.recovery.on_app_limited()
            flow.flight(2)
        kept.append(flow.bbr.model.rounds - before)
    assert kept[0] <= 3 < 5 <= kept[1] <= 11


def test_what_passed_is_not_too_much() -> None:
    """("AdaptLongTermModel"): the bound rises to what was in flight and arrived."""
    flow = Flow()
    flow.cruise()
    flow.bbr.model.inflight_longterm = 50.0 * DATAGRAM
    flow.flight(90)
    assert flow.bbr.model.inflight_longterm == 90 * DATAGRAM


# -- losses in between ---------------------------------------------------------------------------------------------


def test_losses_slow_it_down_until_it_looks_again() -> None:
    """("When not Probing for Bandwidth"): it keeps to what the last round delivered."""
    flow = Flow()
    flow.cruise()
    for _ in range(4):
        flow.flight(100, lost=20)
    model = flow.bbr.model
    assert model.bandwidth == pytest.approx(0.8 * model.max_bandwidth, rel=0.01)
    assert flow.bbr.pacing_rate == pytest.approx(model.bandwidth), "no margin below that"
    assert flow.bbr.window <= model.inflight_shortterm


def test_a_few_losses_do_not() -> None:
    """R-14: a path that loses 1 % of all datagrams loses something in every round."""
    flow = Flow()
    flow.cruise()
    for _ in range(5):
        flow.flight(100, lost=2)
    assert flow.bbr.model.bandwidth == flow.bbr.model.max_bandwidth


def test_it_is_never_slower_than_a_datagram_a_round_trip() -> None:
    flow = Flow()
    flow.cruise()
    model = flow.bbr.model
    model.bandwidth_shortterm = 1.0
    flow.ack(flow.send(1))
    assert flow.bbr.pacing_rate == pytest.approx(DATAGRAM / flow.recovery.rtt.smoothed)


def test_marks_are_losses() -> None:
    """R-11, R-14: marks slow it down, and end a probe."""
    flow = Flow()
    flow.cruise()
    for marks in (0, 10, 20, 30):
        sent = flow.send(80)
        flow.now += RTT
        for number in range(10):
            flow.ack(sent[number : number + 1], ce=marks + number + 1)
        flow.ack(sent[10:])
    flow.flight(80)
    assert flow.bbr.model.bandwidth == pytest.approx(0.8 * flow.bbr.model.max_bandwidth, rel=0.01)

    flow = Flow()
    flow.go_up()
    sent = flow.send(150)
    flow.send(150)
    flow.now += RTT
    flow.ack(sent[:140])
    for marks in (1, 2, 3):
        assert flow.bbr.phase is UP
        flow.ack(sent[139 + marks : 140 + marks], ce=marks)
    assert flow.bbr.phase is DOWN


def test_persistent_congestion() -> None:
    """R-7: four datagrams at once, and then as fast as what arrives allows."""
    flow = Flow()
    flow.cruise()
    sent = flow.send(50)
    flow.now += 10.0
    later = flow.send(50)
    flow.now += RTT
    flow.ack(later[-1:])
    del sent
    assert flow.window == 5
    flow.flight(5)
    assert flow.window == 10


# -- the shortest round trip ---------------------------------------------------------------------------------------


def test_the_round_trip_is_looked_for_every_five_seconds() -> None:
    """("Entering and Exiting PROBE_RTT"): half of what fits, for 200 ms and a round, then on with the old window."""
    made = link()
    begun: list[float] = []
    ended: list[float] = []
    least: list[int] = []

    def look() -> None:
        if bbr(made).phase is PROBE_RTT:
            if len(begun) == len(ended):
                begun.append(made.now)
                least.append(1 << 30)
            least[-1] = min(least[-1], made.recovery.bytes_in_flight)
        elif len(begun) > len(ended):
            ended.append(made.now)
            assert bbr(made).phase is CRUISE

    made.on_ack = look
    made.run_for(22.0)
    assert len(ended) >= 3
    assert all(0.2 < end - begin < 0.2 + 5 * RTT for begin, end in zip(begun, ended, strict=False))
    assert all(low <= 0.51 * RATE * RTT for low in least)
    assert all(4.9 < later - sooner < 5.8 for sooner, later in pairwise(begun))
    assert bbr(made).model.min_rtt == pytest.approx(RTT, rel=0.02)


def test_the_time_for_it_begins_when_little_is_in_flight() -> None:
    flow = Flow()
    flow.cruise()
    sent = flow.send(100)
    flow.now += 5.2
    flow.ack(sent[:1])
    assert flow.bbr.phase is PROBE_RTT
    for number in range(1, 40):
        flow.now += 0.01
        flow.ack(sent[number : number + 1])
        assert flow.bbr.phase is PROBE_RTT
    flow.ack(sent[40:60])
    flow.now += 0.15
    flow.flight(10, rtt=0.01)
    assert flow.bbr.phase is PROBE_RTT
    flow.now += 0.15
    flow.flight(10)
    flow.flight(10)
    assert flow.bbr.phase is CRUISE


def test_looking_for_it_in_the_start() -> None:
    """("Entering and Exiting PROBE_RTT During STARTUP"): the start goes on afterwards."""
    flow = Flow()
    flow.flight(4)
    flow.flight(4, rtt=5.5)
    assert flow.bbr.phase is PROBE_RTT
    assert flow.window == 4
    flow.flight(2)
    assert flow.bbr.phase is PROBE_RTT
    flow.flight(2)
    assert flow.bbr.phase is PROBE_RTT
    flow.flight(2)
    assert flow.bbr.phase is PROBE_RTT, "exactly 200 ms"
    flow.flight(2)
    assert flow.bbr.phase is STARTUP
    assert flow.window > 12, "the window is back"


def test_a_path_without_samples_is_not_held_up() -> None:
    """Every ACK comes over another path, so that none says how long this one is (R-3)."""
    flow = Flow()
    for _ in range(100):
        sent = flow.send(10)
        flow.now += RTT
        flow.recovery.on_ack(to_ranges(sent), 0.0, flow.now, False)
        assert flow.bbr.phase is not PROBE_RTT
    assert flow.bbr.model.min_rtt == inf
    assert flow.bbr.model.max_bandwidth > 0
    assert flow.window >= 10
    while flow.bbr.phase is not CRUISE:
        sent = flow.send(10)
        flow.now += RTT
        flow.recovery.on_ack(to_ranges(sent), 0.0, flow.now, False)


def test_a_pause_spares_it() -> None:
    """("Skipping PROBE_RTT Due to Application-Limited Sending"): silence has drained the queue as well."""
    flow = Flow()
    flow.cruise()
    flow.recovery.on_app_limited()
    flow.now += 6.0
    sent = flow.send(20)
    assert flow.bbr.pacing_rate == pytest.approx(0.99 * flow.bbr.model.bandwidth)
    flow.now += RTT
    flow.ack(sent[:10])
    assert flow.bbr.phase is not PROBE_RTT
    flow.ack(sent[10:])
    assert flow.bbr.phase is not PROBE_RTT


def test_a_pause_while_going_up() -> None:
    """("Actions when Restarting from Idle"): at exactly the bandwidth."""
    flow = Flow()
    flow.go_up()
    assert flow.bbr.pacing_rate == pytest.approx(1.25 * 0.99 * flow.bbr.model.bandwidth)
    flow.recovery.on_app_limited()
    flow.now += 1.0
    flow.send(1)
    assert flow.bbr.pacing_rate == pytest.approx(0.99 * flow.bbr.model.bandwidth)


def test_a_pause_in_the_start() -> None:
    flow = Flow()
    flow.flight(20)
    rate = flow.bbr.pacing_rate
    flow.recovery.on_app_limited()
    flow.now += 1.0
    flow.send(1)
    assert flow.bbr.pacing_rate == rate


def test_a_pause_while_looking_for_the_round_trip() -> None:
    """("HandleRestartFromIdle"): its time passes in the pause, so that the window is back when it is over."""
    flow = Flow()
    flow.cruise()
    flow.flight(20, rtt=5.5)
    assert flow.bbr.phase is PROBE_RTT
    flow.flight(20)
    before = flow.window
    flow.recovery.on_app_limited()
    flow.now += 0.1
    sent = flow.send(1)
    assert flow.bbr.phase is PROBE_RTT, "not yet"
    flow.now += RTT
    flow.ack(sent)
    if flow.bbr.phase is PROBE_RTT:
        flow.recovery.on_app_limited()
        flow.now += 1.0
        flow.send(1)
    assert flow.bbr.phase is CRUISE
    assert flow.window > before


# -- links ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "delay"), [(1.25e5, 0.05), (1.25e6, 0.02), (1.25e6, 0.1), (6.25e6, 0.04)])
def test_a_bottleneck_is_filled(rate: float, delay: float) -> None:
    """With a queue of one round trip nine tenths of the rate, most of the time without a queue."""
    made = Bottleneck(rate, delay, queue=int(max(rate * delay, 20 * DATAGRAM)), congestion="bbr")
    made.run_until(lambda: bbr(made).phase is CRUISE)
    trips: list[float] = []
    made.on_ack = lambda: trips.append(made.recovery.rtt.latest)
    assert made.run_for(12.0) * DATAGRAM > 0.9 * rate * 12.0
    if rate * delay > 10 * DATAGRAM:  # what is always in flight is no queue
        assert sorted(trips)[len(trips) // 2] < 1.3 * delay


def test_random_loss_does_not_slow_it_down() -> None:
    """R-14: 1 % of loss, trains of five datagrams, of which one in twenty is lost."""
    goodput: dict[str, float] = {}
    for name in ("cubic", "bbr"):
        made = Bottleneck(12.5e6, 0.02, queue=250_000, congestion=name, loss=0.01, segments=5)
        made.run_for(1.0)
        goodput[name] = made.run_for(8.0) * 5 * DATAGRAM / (12.5e6 * 8.0)
    assert goodput["bbr"] > 0.85
    assert goodput["cubic"] < 0.5 * goodput["bbr"]


def test_ten_times_the_bandwidth() -> None:
    """("Increasing Bandwidth 10x and Ensuring Full Bandwidth is Reached")"""
    made = Bottleneck(RATE / 10, RTT, queue=125_000, congestion="bbr")
    made.run_for(4.0)
    assert bbr(made).model.max_bandwidth == pytest.approx(RATE / 10, rel=0.05)
    made.rate = RATE
    made.run_until(lambda: bbr(made).model.max_bandwidth > 0.9 * RATE, made.now + 12.0)


def test_a_tenth_of_the_bandwidth() -> None:
    """("Decreasing Bandwidth 10x and Ensuring Max Bandwidth Adapts Down"): after two cycles at the latest."""
    made = link()
    made.run_for(4.0)
    assert bbr(made).model.max_bandwidth == pytest.approx(RATE, rel=0.05)
    made.rate = RATE / 10
    made.run_until(lambda: bbr(made).model.max_bandwidth < 1.5 * RATE / 10, made.now + 12.0)
    made.run_for(3.0)
    assert made.run_for(6.0) * DATAGRAM > 0.85 * RATE / 10 * 6.0


def test_a_path_that_gathers_acknowledgements() -> None:
    """("Achieving Expected Cruise Bandwidth on a Link With Aggregation"): 60 ms of them at a time."""
    made = link(gather=0.06)
    made.run_until(lambda: bbr(made).phase is CRUISE)
    made.run_for(1.0)
    assert bbr(made).model.extra_acked.value > 0.3 * RATE * 0.06
    assert bbr(made).window > 2 * RATE * RTT
    assert made.run_for(4.0) * DATAGRAM > 0.9 * RATE * 4.0


def test_a_path_that_holds_less_than_a_packet() -> None:
    """("Correctly Managing Sub-Packet BDPs"): four datagrams, at the pace of the path."""
    made = Bottleneck(20_000, 0.02, queue=20 * DATAGRAM, congestion="bbr")
    made.run_until(lambda: bbr(made).phase is CRUISE)
    assert made.run_for(10.0) * DATAGRAM > 0.85 * 20_000 * 10.0
    assert bbr(made).window >= 4 * DATAGRAM


# -- whatever comes ------------------------------------------------------------------------------------------------


def test_datagrams_of_another_size() -> None:
    flow = Flow()
    flow.cruise(20)
    flow.recovery.set_max_datagram_size(60_000)
    assert flow.bbr.window == 240_000
    flow.recovery.set_max_datagram_size(DATAGRAM)
    assert flow.bbr.window == 240_000
    flow.flight(20)
    assert flow.window < 200, "the model decides again"


actions = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 40), st.sampled_from([1, 1, 5, 54])),
        st.tuples(st.just("ack"), st.integers(0, 40), st.integers(0, 6)),
        st.tuples(st.just("mark"), st.integers(0, 40), st.just(0)),
        st.tuples(st.just("wait"), st.sampled_from([0, 1, 2, 3, 4, 5, 6]), st.just(0)),
        st.tuples(st.just("timer"), st.just(0), st.just(0)),
        st.tuples(st.just("idle"), st.just(0), st.just(0)),
        st.tuples(st.just("size"), st.integers(1200, 65_507), st.just(0)),
    ),
    max_size=120,
)
WAITS = (0.0, 1e-6, 0.001, 0.02, 0.3, 6.0, 100.0)


@settings(deadline=None)
@given(st.floats(0.0, 1.0), actions)
def test_any_order_of_events(initial_rtt: float, steps: Sequence[tuple[str, int, int]]) -> None:
    """R-8: never below four datagrams, never without an end, and no exception."""
    flow = Flow(initial_rtt)
    recovery = flow.recovery
    waiting: list[int] = []
    ce = 0
    for kind, number, more in steps:
        if kind == "send":
            waiting += flow.send(number, segments=more)
        elif kind in ("ack", "mark"):
            ce += kind == "mark"
            chosen = waiting[more : more + number]  # the first few are lost, or late
            if chosen:
                waiting = waiting[:more] + waiting[more + number :]
                flow.ack(chosen, ce=ce)
        elif kind == "wait":
            flow.now += WAITS[number]
        elif kind == "timer":
            flow.now = max(flow.now, min(recovery.deadline, 1e6))
            recovery.on_timeout(flow.now)
        elif kind == "idle":
            recovery.on_app_limited()
        else:
            recovery.set_max_datagram_size(number)
        controller = flow.bbr
        assert 4 * recovery.max_datagram_size <= controller.window < inf
        assert 0 < controller.pacing_rate < inf
        assert recovery.stats().pacing_rate == controller.pacing_rate
        assert controller.model.inflight_longterm > 0
