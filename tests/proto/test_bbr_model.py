"""What BBR believes of a path: R-14 of docs/protocol.md; draft-ietf-ccwg-bbr. The numbers are worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_proto.recovery import RttEstimator, SentPacket
from stt_proto.recovery.congestion.bbr_model import MaxFilter, PathModel
from tests.proto.bottleneck import DATAGRAM

RTT = 0.1


class Flow:
    """A model, and the little of `Recovery` that it sees: samples on packets, and what was delivered."""

    def __init__(self) -> None:
        self.model = PathModel(DATAGRAM)
        self.now = 1.0
        self.delivered = self.bytes_in_flight = 0
        self.app_limited = False
        self.rtt = RttEstimator(RTT)
        self._delivered_time = self._first_sent_time = 0.0

    def send(self, count: int = 1, *, segments: int = 1, every: float = 0.0) -> list[SentPacket]:
        """Send so many packets, one each so many seconds."""
        made = []
        for number in range(count):
            self.now += every if number else 0.0
            packet = SentPacket(0, self.now, segments * DATAGRAM, segments, True, True)
            if not self.bytes_in_flight:
                self._delivered_time = self._first_sent_time = self.now
            packet.delivered, packet.delivered_time = self.delivered, self._delivered_time
            packet.first_sent_time, packet.app_limited = self._first_sent_time, self.app_limited
            self.bytes_in_flight += packet.size
            self.model.on_sent(packet, self)  # type: ignore[arg-type]
            made.append(packet)
        return made

    def ack(self, packets: Sequence[SentPacket], at: float | None = None) -> None:
        """Acknowledge packets together, a round trip after the newest if not told when."""
        self.now = packets[-1].time + RTT if at is None else at
        size = sum(packet.size for packet in packets)
        self.delivered += size
        self.bytes_in_flight -= size
        self._delivered_time = self.now
        self._first_sent_time = packets[-1].time
        self.model.on_acked(packets, self.now, self)  # type: ignore[arg-type]
        self.model.advance_latest()
        self.model.bound_bandwidth()

    def lose(self, packet: SentPacket) -> None:
        self.bytes_in_flight -= packet.size
        self.model.on_lost(packet, self)  # type: ignore[arg-type]

    def end_round(self) -> None:
        self.model.end_loss_round(self)  # type: ignore[arg-type]

    def too_much(self) -> bool:
        return self.model.round_lost_too_much(self)  # type: ignore[arg-type]


# -- filters -------------------------------------------------------------------------------------------------------


def test_a_maximum_over_two_periods() -> None:
    kept = MaxFilter()
    kept.update(5.0)
    kept.update(3.0)
    assert kept.value == 5.0
    kept.advance()
    kept.update(3.0)
    kept.update(2.0)
    assert kept.value == 5.0
    kept.advance()
    assert kept.value == 3.0
    kept.advance()
    assert kept.value == 3.0, "a period in which nothing was seen does not count"
    kept.update(1.0)
    kept.advance()
    assert kept.value == 1.0


# -- the delivery rate ---------------------------------------------------------------------------------------------


def test_a_sample() -> None:
    """("GenerateRateSample"): what was delivered since the newest packet was sent, by the time that took."""
    flow = Flow()
    sent = flow.send(10)
    flow.ack(sent)
    assert flow.model.rate == pytest.approx(10 * DATAGRAM / RTT)
    assert flow.model.max_bandwidth == flow.model.bandwidth == flow.model.rate
    assert (flow.model.newly_acked, flow.model.tx_in_flight) == (10 * DATAGRAM, 10 * DATAGRAM)


def test_the_longer_of_both_intervals_counts() -> None:
    """("Compression and Aggregation"): acknowledgements that come together do not make a path fast."""
    flow = Flow()
    sent = flow.send(11, every=0.05)  # over half a second
    for packet in sent[:-1]:
        flow.ack([packet], at=1.6)
    flow.ack(sent[-1:], at=1.6)
    assert flow.model.rate == pytest.approx(11 * DATAGRAM / 0.6)

    flow = Flow()
    first, second = flow.send(2)
    flow.ack([first], at=1.1)
    flow.now = 1.5
    (third,) = flow.send()  # it belongs to a flight that began at 1.0
    flow.ack([second, third], at=1.55)
    assert flow.model.rate == pytest.approx(2 * DATAGRAM / 0.5)


def test_less_than_a_round_trip_is_no_sample() -> None:
    flow = Flow()
    flow.ack(flow.send(), at=1.05)
    assert flow.model.rate == pytest.approx(DATAGRAM / 0.05), "nobody knows yet what a round trip is"
    flow = Flow()
    flow.rtt.update(RTT, 0.0, 1.0)
    flow.ack(flow.send(), at=1.05)
    assert (flow.model.rate, flow.model.max_bandwidth) == (0.0, 0.0)
    flow.ack(flow.send(), at=1.05)
    assert flow.model.rate == 0.0, "nor is no time at all"
    flow.ack(flow.send(), at=1.15)
    assert flow.model.rate == pytest.approx(DATAGRAM / RTT)


def test_what_the_application_limits_raises_the_bandwidth_only() -> None:
    """("BBR.max_bw and Application-limited Delivery Rate Samples")"""
    flow = Flow()
    flow.ack(flow.send(5))
    flow.app_limited = True
    flow.ack(flow.send(8))
    assert flow.model.limited
    assert flow.model.max_bandwidth == pytest.approx(8 * DATAGRAM / RTT)
    flow.model.advance_max_bandwidth()
    flow.ack(flow.send(2))
    flow.model.advance_max_bandwidth()
    assert flow.model.max_bandwidth == pytest.approx(8 * DATAGRAM / RTT)
    flow.app_limited = False
    flow.ack(flow.send(2))
    flow.model.advance_max_bandwidth()
    assert flow.model.max_bandwidth == pytest.approx(2 * DATAGRAM / RTT)


def test_samples_that_are_not_to_count() -> None:
    """("HandleProbeRTT"): what is in flight, and what is sent until that is delivered, is no measure."""
    flow = Flow()
    flow.ack(flow.send(5))
    first = flow.send(3)
    flow.model.ignore_samples(flow)  # type: ignore[arg-type]
    second = flow.send(3)
    flow.ack(first)
    assert flow.model.limited
    between = flow.send(1)
    flow.ack(second)
    assert flow.model.limited
    flow.ack(between)
    assert flow.model.limited
    third = flow.send()
    flow.ack(third)
    assert not flow.model.limited


# -- rounds --------------------------------------------------------------------------------------------------------


def test_rounds() -> None:
    """("Tracking Packet-Timed Round Trips"): one ends with a packet that was sent after it began."""
    flow = Flow()
    first = flow.send(3)
    flow.ack(first[:1])
    assert (flow.model.round_start, flow.model.rounds) == (True, 1)
    second = flow.send(2)
    flow.ack(first[1:])
    assert (flow.model.round_start, flow.model.rounds) == (False, 1)
    flow.ack(second[:1])
    assert (flow.model.round_start, flow.model.rounds) == (True, 2)
    flow.model.start_round(flow)  # type: ignore[arg-type]
    flow.ack(second[1:])
    assert not flow.model.round_start


def test_rounds_of_losses() -> None:
    """("NoteLoss"): the first loss begins one; it ends when something is acknowledged that was sent since."""
    flow = Flow()
    flow.ack(flow.send(3))
    flow.end_round()
    sent = flow.send(10)
    flow.ack(sent[:3])
    flow.end_round()
    flow.lose(sent[3])
    assert flow.model.loss_in_round
    later = flow.send(2)
    flow.lose(sent[4])
    flow.ack(sent[5:])
    assert not flow.model.loss_round_start
    flow.ack(later)
    assert flow.model.loss_round_start
    flow.end_round()
    assert not flow.model.loss_in_round


# -- losses --------------------------------------------------------------------------------------------------------


def test_losses_of_a_probe() -> None:
    """("IsInflightTooHigh"): more than 2 % of what was in flight, counted in datagrams."""
    flow = Flow()
    sent = flow.send(200)
    for packet in sent[:4]:
        flow.lose(packet)
    flow.ack(sent[4:])
    assert not flow.model.probe_lost_too_much
    again = flow.send(200)
    for packet in again[:5]:
        flow.lose(packet)
    flow.ack(again[5:])
    assert flow.model.probe_lost_too_much


def test_a_lost_train_is_one_lost_datagram() -> None:
    """Of 20 trains of 10 datagrams 4 are lost: 20 % of the bytes, and as far as can be told 2 % of the datagrams."""
    flow = Flow()
    sent = flow.send(20, segments=10)
    for packet in sent[:4]:
        flow.lose(packet)
    flow.ack(sent[4:])
    assert not flow.model.probe_lost_too_much


def test_too_many_trains_are_too_many() -> None:
    """An overflowing queue hits every train: when more than half are lost it is too much, however long they are."""
    for lost, too_much in ((10, False), (11, True)):
        flow = Flow()
        sent = flow.send(20, segments=50)
        for packet in sent[:lost]:
            flow.lose(packet)
        flow.ack(sent[lost:])
        assert flow.model.probe_lost_too_much is too_much


def test_losses_by_chance() -> None:
    """Outside of a probe two datagrams more than 2 % may be lost in a round."""
    for lost, too_much in ((6, False), (7, True)):
        flow = Flow()
        flow.ack(flow.send(3))
        flow.end_round()
        sent = flow.send(200)
        for packet in sent[:lost]:
            flow.lose(packet)
        flow.ack(sent[lost:])
        assert flow.too_much() is too_much
        flow.end_round()
        assert not flow.too_much()


def test_a_mark_counts_as_the_loss_of_a_datagram() -> None:
    """R-11."""
    flow = Flow()
    flow.ack(flow.send(3))
    flow.end_round()
    sent = flow.send(50)
    for number in range(3):
        assert not flow.too_much()
        flow.model.on_mark(DATAGRAM, flow)  # type: ignore[arg-type]
        assert flow.model.loss_in_round
        flow.ack([sent[number]])
    assert flow.too_much()


def test_the_volume_at_which_it_was_too_much() -> None:
    """("InflightAtLoss"): 100 datagrams are in flight and the third that is lost of them passes the 2 %.

    Before the last 10, which are lost as one, there were 90, of which 2 % are 1.8, and 1 was lost; of what came then
    0.8 / 0.98 were one too many.
    """
    flow = Flow()
    sent = flow.send(90)
    (train,) = flow.send(1, segments=10)
    flow.lose(sent[0])
    flow.lose(train)
    assert flow.model.tx_in_flight == 100 * DATAGRAM
    assert flow.model.inflight_at_loss(train) == pytest.approx((90 + 0.8 / 0.98) * DATAGRAM)
    flow.lose(sent[1])
    flow.lose(sent[2])
    flow.lose(sent[89])
    assert flow.model.inflight_at_loss(sent[89]) == 89 * DATAGRAM, "too much already before it was sent"


def test_the_short_term_model() -> None:
    """("LossLowerBounds"): what the round delivered, but no less than 0.7 of what was believed before."""
    flow, model = Flow(), None
    model = flow.model
    flow.ack(flow.send(100))
    best = model.max_bandwidth
    flow.end_round()
    flow.ack(flow.send(90))
    model.adapt_shortterm(200.0 * DATAGRAM)
    assert model.bandwidth_shortterm == pytest.approx(0.9 * best)
    assert model.inflight_shortterm == 140 * DATAGRAM
    flow.end_round()
    flow.ack(flow.send(10))
    model.bandwidth_latest = model.inflight_latest = 0.0
    model.adapt_shortterm(1.0)
    assert model.bandwidth_shortterm == pytest.approx(0.63 * best)
    assert model.inflight_shortterm == pytest.approx(98 * DATAGRAM)
    model.bound_bandwidth()
    assert model.bandwidth == pytest.approx(0.63 * best)
    model.reset_shortterm()
    model.bound_bandwidth()
    assert model.bandwidth == best
    model.reset_congestion()
    assert (model.bandwidth_latest, model.inflight_latest, model.loss_in_round) == (0, 0, False)


def test_the_latest_is_the_best_of_a_round() -> None:
    """("UpdateLatestDeliverySignals", "AdvanceLatestDeliverySignals")"""
    flow = Flow()
    flow.ack(flow.send(10))
    assert (flow.model.inflight_latest, flow.model.bandwidth_latest) == (12_000, pytest.approx(120_000))
    flow.end_round()
    sent = flow.send(4)
    for count in (1, 2, 3):
        flow.ack(sent[count - 1 : count])  # the first of them ended a round, and the next one began with it
        assert flow.model.inflight_latest == count * DATAGRAM
        if count == 1:
            flow.end_round()
    later = flow.send(1)
    flow.ack(sent[3:])
    assert flow.model.inflight_latest == 4 * DATAGRAM
    flow.ack(later)
    assert flow.model.inflight_latest == 2 * DATAGRAM, "that which came since it was sent"


def test_the_latest_is_not_the_last() -> None:
    flow = Flow()
    flow.ack(flow.send(10))
    flow.end_round()
    sent = flow.send(6)
    flow.ack(sent[:2])
    late = flow.send(1)
    flow.ack(sent[2:3])
    flow.lose(sent[5])  # a round of losses begins, before which the late one was sent
    flow.ack(sent[3:4])
    assert flow.model.inflight_latest == 4 * DATAGRAM
    fastest = flow.model.bandwidth_latest
    flow.ack(late, at=flow.now + 1.0)
    assert flow.model.rate < fastest
    assert (flow.model.inflight_latest, flow.model.bandwidth_latest) == (4 * DATAGRAM, fastest)


def test_datagrams_of_lost_trains_count_as_delivered_for_the_short_term() -> None:
    """Of 20 trains of 5 one is lost: 96 of 100 datagrams came acknowledged or with it, as far as can be told, and 99
    came; the bandwidth in the long run goes by the 95."""
    flow = Flow()
    sent = flow.send(20, segments=5)
    flow.lose(sent[0])
    flow.ack(sent[1:])
    assert flow.model.inflight_latest == 99 * DATAGRAM
    assert flow.model.bandwidth_latest == pytest.approx(99 * DATAGRAM / RTT)
    assert flow.model.max_bandwidth == pytest.approx(95 * DATAGRAM / RTT)


def test_no_guesses_where_most_trains_are_lost() -> None:
    flow = Flow()
    sent = flow.send(20, segments=5)
    for packet in sent[:11]:
        flow.lose(packet)
    flow.ack(sent[11:])
    assert flow.model.inflight_latest == 45 * DATAGRAM


# -- delay and aggregation -----------------------------------------------------------------------------------------


def test_the_shortest_round_trip() -> None:
    """("UpdateMinRTT"): believed for 10 s, to be confirmed after 5."""
    model = PathModel(DATAGRAM)
    model.update_min_rtt(None, 100.0)
    assert (model.min_rtt, model.rtt_is_old) == (inf, False), "there is none that could be old"
    model = PathModel(DATAGRAM)
    assert model.bdp == inf
    model.update_min_rtt(None, 1.0)
    assert (model.min_rtt, model.rtt_is_old) == (inf, False)
    model.update_min_rtt(0.1, 2.0)
    model.update_min_rtt(0.2, 3.0)
    assert (model.min_rtt, model.rtt_is_old) == (0.1, False)
    model.update_min_rtt(0.3, 7.1)
    assert (model.min_rtt, model.rtt_is_old) == (0.1, True)
    model.update_min_rtt(0.2, 7.2)
    assert (model.min_rtt, model.rtt_is_old) == (0.1, False), "still the old one, for 10 s"
    model.update_min_rtt(0.25, 12.1)
    assert model.min_rtt == 0.2
    model.update_min_rtt(0.05, 12.15)
    assert model.min_rtt == 0.05
    model.update_min_rtt(None, 17.2)
    assert model.rtt_is_old
    model.confirm_min_rtt(17.2)
    model.update_min_rtt(None, 17.3)
    assert not model.rtt_is_old


def test_aggregation() -> None:
    """("UpdateACKAggregation"): what comes together beyond the bandwidth, a window at most."""
    flow = Flow()
    model = flow.model
    flow.ack(flow.send(10))
    assert model.bandwidth == pytest.approx(10 * DATAGRAM / RTT)
    model.restart_aggregation(flow.now)
    model.update_aggregation(1e9, flow.now, 5)
    assert model.extra_acked.value == 10 * DATAGRAM
    flow.now += 0.05
    model.newly_acked = 8 * DATAGRAM
    model.update_aggregation(1e9, flow.now, 5)
    assert model.extra_acked.value == pytest.approx(13 * DATAGRAM)
    flow.now += 1.0  # less than expected: it begins anew
    model.update_aggregation(1e9, flow.now, 5)
    assert model.extra_acked.value == pytest.approx(13 * DATAGRAM)
    model.newly_acked = 100 * DATAGRAM
    model.update_aggregation(20.0 * DATAGRAM, flow.now, 5)
    assert model.extra_acked.value == 20 * DATAGRAM


def test_aggregation_is_forgotten() -> None:
    """After 5 to 10 rounds; in the start after one or two."""
    for rounds in (1, 5):
        flow = Flow()
        model = flow.model
        flow.ack(flow.send(10))
        model.update_aggregation(1e9, flow.now, rounds)
        highest, seen = model.extra_acked.value, 0
        while model.extra_acked.value == highest:
            flow.now += 10.0
            flow.ack(flow.send(1))
            model.update_aggregation(1e9, flow.now, rounds)
            seen += 1
        assert rounds < seen <= 2 * rounds
        assert model.extra_acked.value == DATAGRAM


@given(st.lists(st.floats(0, 1e12), min_size=1, max_size=60), st.sets(st.integers(0, 59)))
def test_the_filter_against_a_plain_one(values: list[float], ends: set[int]) -> None:
    kept = MaxFilter()
    periods: list[list[float]] = [[]]
    for number, value in enumerate(values):
        if number in ends:
            kept.advance()
            if any(periods[-1]):
                periods.append([])
        kept.update(value)
        periods[-1].append(value)
        assert kept.value == max(max(period, default=0.0) for period in periods[-2:])
