"""What BBR believes of a path: its bandwidth, its delay, and how much of late was too much (docs/protocol.md, R-14).

The path model of draft-ietf-ccwg-bbr, whose sections and names stand in brackets. Rates are bytes a second, volumes
bytes, times seconds.

A packet here may be a train of many datagrams, that is lost as a whole when one of them is. Loss is a property of the
path, so it is counted in datagrams: of a lost train one is taken for lost, and the others (`spared`) for delivered as
far as the *short-term* model goes, which asks what the path carries now. That guess is good as long as few trains are
lost. Where many are (an overflowing queue hits every train), it is not made, and that so many are is itself too much.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from stt_proto.recovery.congestion.base import PathState
from stt_proto.recovery.sent import SentPacket

LOSS_THRESHOLD = 0.02
"""Share of datagrams that may be lost in a round trip (LossThresh)."""
CHANCE = 2
"""Datagrams that may be lost besides, where no probe is the reason: of round trips with 200 datagrams and 1 % of random
loss every sixteenth loses 5."""
TRAIN_LOSS_THRESHOLD = 0.5
"""Share of bytes in lost packets, whole trains: four times what the choice of their length aims at (P-16)."""
BETA = 0.7
"""What the models keep at least from one reduction to the next (Beta)."""
MIN_RTT_WINDOW = 10.0
"""Seconds for which a shortest round trip is believed (MinRTTFilterLen)."""
PROBE_RTT_INTERVAL = 5.0
"""Seconds after which it is to be confirmed (ProbeRTTInterval)."""
ROUNDING = 1e-6
"""Seconds; no interval is more exact."""


def is_too_much(lost: float, spared: float, volume: float) -> bool:
    """Whether so many bytes in lost datagrams, and in others that were lost with them, are too many of a volume."""
    return lost > LOSS_THRESHOLD * volume or lost + spared > TRAIN_LOSS_THRESHOLD * volume


class MaxFilter:
    """The maximum over this period and the one before; whoever owns it says when a period is over."""

    __slots__ = ("_this_period", "value")

    def __init__(self) -> None:
        self.value = self._this_period = 0.0

    def update(self, value: float) -> None:
        """Take in a value, at least 0."""
        if value > self._this_period:
            self._this_period = value
            if value > self.value:
                self.value = value

    def advance(self) -> None:
        """Begin another period. One in which nothing was seen does not count."""
        if self._this_period:
            self.value = self._this_period
            self._this_period = 0.0


class PathModel:
    """The model, and the sample that the latest acknowledgement, or loss, gave.

    Attributes:
        bandwidth: what the path is believed to carry now: `max_bandwidth`, bounded by `bandwidth_shortterm`.
        max_bandwidth: the most that it carried in this cycle of probing and the one before.
        min_rtt: the round trip without queues; `inf` before the first sample.
        bandwidth_shortterm, inflight_shortterm: what losses of this cycle left of rate and volume; `inf` without.
        inflight_longterm: the volume at which probing lost too much; `inf` if it never did.
        bandwidth_latest, inflight_latest: the best sample of this round.
        extra_acked: a filter over what was acknowledged beyond the bandwidth, since somebody gathers.
        rounds: packet-timed round trips so far.
        round_start: whether the latest acknowledgement began one.
        loss_in_round: whether something was lost in the present round of losses, which the first of them begins.
        loss_round_start: whether the latest acknowledgement ended one.
        rtt_is_old: whether the shortest round trip is to be confirmed.
        newly_acked: by the latest acknowledgement.
        rate: of the sample; 0 if it has none.
        limited: whether it was the application that limited it.
        tx_in_flight: what was in flight when its packet was sent.
    """

    __slots__ = (
        "_aggregate", "_aggregate_since", "_bandwidths", "_chance", "_delivered_now", "_ignored_until",
        "_loss_round_began", "_loss_round_ends", "_lost", "_min_rtt_at", "_period_ends", "_rate_now", "_recent_rtt",
        "_recent_rtt_at", "_round_ends", "_sample_lost", "_sample_spared", "_spared", "bandwidth", "bandwidth_latest",
        "bandwidth_shortterm", "extra_acked", "inflight_latest", "inflight_longterm", "inflight_shortterm", "limited",
        "loss_in_round", "loss_round_start", "max_bandwidth", "min_rtt", "newly_acked", "rate", "round_start", "rounds",
        "rtt_is_old", "tx_in_flight",
    )  # fmt: skip

    def __init__(self, max_datagram_size: int) -> None:
        self.set_max_datagram_size(max_datagram_size)
        self.bandwidth = self.max_bandwidth = 0.0
        self.min_rtt = inf
        self.bandwidth_shortterm = self.inflight_shortterm = self.inflight_longterm = inf
        self.bandwidth_latest = self.inflight_latest = 0.0
        self.extra_acked = MaxFilter()
        self.rounds = 0
        self.round_start = self.loss_in_round = self.loss_round_start = self.rtt_is_old = self.limited = False
        self.newly_acked = self.tx_in_flight = 0
        self.rate = 0.0
        self._bandwidths = MaxFilter()
        self._lost = self._spared = 0.0  # all told
        self._sample_lost = self._sample_spared = 0.0  # of these, since the sample's packet was sent
        self._rate_now = self._delivered_now = 0.0  # of the sample, with what is spared
        self._round_ends = self._loss_round_ends = 0  # bytes delivered
        self._loss_round_began = 0.0, 0.0, 0  # lost, spared and delivered by then
        self._ignored_until = -1  # bytes delivered
        self._recent_rtt = inf
        self._recent_rtt_at = self._min_rtt_at = 0.0
        self._aggregate = 0
        self._aggregate_since = 0.0
        self._period_ends = 0  # a round

    def set_max_datagram_size(self, size: int) -> None:
        """Datagrams have so many bytes from now on."""
        self._chance = CHANCE * size

    @property
    def bdp(self) -> float:
        """The bandwidth-delay product; `inf` before there is a round trip."""
        return self.bandwidth * self.min_rtt if self.min_rtt != inf else inf

    # -- samples ("Delivery Rate Samples") -------------------------------------------------------------------------

    def on_sent(self, packet: SentPacket, path: PathState) -> None:
        """Remember how things stand."""
        packet.memo = path.bytes_in_flight, self._lost, self._spared

    def on_acked(self, packets: Sequence[SentPacket], now: float, path: PathState) -> None:
        """Make a sample of the delivery rate, and take it in."""
        newest = packets[-1]
        self._look_back(newest)
        if newest.delivered <= self._ignored_until:
            self.limited = True
        self.newly_acked = sum([packet.size for packet in packets]) if len(packets) > 1 else newest.size
        delivered = path.delivered - newest.delivered
        interval = max(now - newest.delivered_time, newest.time - newest.first_sent_time)
        # What took less than a round trip is a mirage of acknowledgements that came together.
        if not interval or (path.rtt.samples and interval + ROUNDING < path.rtt.minimum):
            interval = inf
        rate = self.rate = delivered / interval
        if rate and (rate >= self.max_bandwidth or not self.limited):
            self._bandwidths.update(rate)
            self.max_bandwidth = self._bandwidths.value
        lost = self._sample_lost + self._sample_spared
        believed = lost <= TRAIN_LOSS_THRESHOLD * (lost + delivered)
        self._delivered_now = delivered + self._sample_spared if believed else delivered
        self._rate_now = self._delivered_now / interval
        self._update_rounds(newest, path)

    def on_lost(self, packet: SentPacket, path: PathState) -> None:
        """Count a lost packet (NoteLoss), and take the sample that its loss is (HandleLostPacket)."""
        self._note_loss(path)
        datagram = packet.size / packet.segments
        self._lost += datagram
        self._spared += packet.size - datagram
        self._look_back(packet)

    def on_mark(self, size: int, path: PathState) -> None:
        """Count a congestion mark as the loss of a datagram."""
        self._note_loss(path)
        self._lost += size

    def _note_loss(self, path: PathState) -> None:
        if not self.loss_in_round:
            self.loss_in_round = True
            self._start_loss_round(path)

    def _look_back(self, packet: SentPacket) -> None:
        """What has happened since a packet was sent?"""
        self.tx_in_flight, lost, spared = packet.memo
        self._sample_lost = self._lost - lost
        self._sample_spared = self._spared - spared
        self.limited = packet.app_limited

    def ignore_samples(self, path: PathState) -> None:
        """What is in flight now was not sent to measure anything (MarkConnectionAppLimited)."""
        self._ignored_until = path.delivered + path.bytes_in_flight

    # -- rounds ("Tracking Packet-Timed Round Trips") --------------------------------------------------------------

    def start_round(self, path: PathState) -> None:
        """Let a round begin now."""
        self._round_ends = path.delivered

    def _start_loss_round(self, path: PathState) -> None:
        self._loss_round_ends = path.delivered
        self._loss_round_began = self._lost, self._spared, path.delivered

    def _update_rounds(self, newest: SentPacket, path: PathState) -> None:
        """UpdateRound, UpdateLatestDeliverySignals."""
        self.round_start = newest.delivered >= self._round_ends
        if self.round_start:
            self.start_round(path)
            self.rounds += 1
        if self._rate_now > self.bandwidth_latest:
            self.bandwidth_latest = self._rate_now
        if self._delivered_now > self.inflight_latest:
            self.inflight_latest = self._delivered_now
        self.loss_round_start = newest.delivered >= self._loss_round_ends

    def end_loss_round(self, path: PathState) -> None:
        """What was to be learned from the losses of a round has been."""
        self.loss_in_round = False
        self._start_loss_round(path)

    def advance_latest(self) -> None:
        """At the end of an acknowledgement: a new round begins with what it said (AdvanceLatestDeliverySignals)."""
        if self.loss_round_start:
            self.bandwidth_latest = self._rate_now
            self.inflight_latest = self._delivered_now

    # -- bandwidth and volume --------------------------------------------------------------------------------------

    def advance_max_bandwidth(self) -> None:
        """A cycle of probing is over (AdvanceMaxBwFilter)."""
        self._bandwidths.advance()
        self.max_bandwidth = self._bandwidths.value

    def bound_bandwidth(self) -> None:
        """BoundBWForModel."""
        self.bandwidth = min(self.max_bandwidth, self.bandwidth_shortterm)

    @property
    def probe_lost_too_much(self) -> bool:
        """Whether more was lost since the sample's packet was sent than probing may cost (IsInflightTooHigh)."""
        return is_too_much(self._sample_lost, self._sample_spared, self.tx_in_flight)

    def round_lost_too_much(self, path: PathState) -> bool:
        """The same, over the round of losses that is ending, and not by chance."""
        lost, spared, delivered = self._loss_round_began
        lost, spared = self._lost - lost, self._spared - spared
        return is_too_much(lost - self._chance, spared, lost + spared + path.delivered - delivered)

    def inflight_at_loss(self, packet: SentPacket) -> float:
        """The volume at which the losses passed the threshold, as the packet just lost tells (InflightAtLoss)."""
        before = self.tx_in_flight - packet.size
        lost_before = self._sample_lost - packet.size / packet.segments
        return before + max((LOSS_THRESHOLD * before - lost_before) / (1 - LOSS_THRESHOLD), 0.0)

    def adapt_shortterm(self, window: float) -> None:
        """Keep to what the round delivered, but do not give up more than a part (InitLowerBounds, LossLowerBounds)."""
        if self.bandwidth_shortterm == inf:
            self.bandwidth_shortterm = self.max_bandwidth
        if self.inflight_shortterm == inf:
            self.inflight_shortterm = window
        self.bandwidth_shortterm = max(self.bandwidth_latest, BETA * self.bandwidth_shortterm)
        self.inflight_shortterm = max(self.inflight_latest, BETA * self.inflight_shortterm)

    def reset_shortterm(self) -> None:
        """ResetShortTermModel."""
        self.bandwidth_shortterm = self.inflight_shortterm = inf

    def reset_congestion(self) -> None:
        """ResetCongestionSignals."""
        self.loss_in_round = False
        self.bandwidth_latest = self.inflight_latest = 0.0

    # -- delay ("ProbeRTT Logic") and aggregation ("BBR.extra_acked") ----------------------------------------------

    def update_min_rtt(self, sample: float | None, now: float) -> None:
        """Two filters; the shorter one decides when to look again (UpdateMinRTT)."""
        recent = self._recent_rtt
        self.rtt_is_old = recent != inf and now > self._recent_rtt_at + PROBE_RTT_INTERVAL
        if sample is not None and (sample < recent or self.rtt_is_old):
            recent = self._recent_rtt = sample
            self._recent_rtt_at = now
        if recent < self.min_rtt or now > self._min_rtt_at + MIN_RTT_WINDOW:
            self.min_rtt = recent
            self._min_rtt_at = self._recent_rtt_at

    def confirm_min_rtt(self, now: float) -> None:
        """It was just looked for."""
        self._recent_rtt_at = now

    def update_aggregation(self, window: float, now: float, rounds: int) -> None:
        """UpdateACKAggregation; a maximum is remembered for `rounds` rounds, and at most twice that."""
        expected = self.bandwidth * (now - self._aggregate_since)
        if self._aggregate <= expected:
            self.restart_aggregation(now)
            expected = 0.0
        self._aggregate += self.newly_acked
        if self.rounds >= self._period_ends:
            self._period_ends = self.rounds + rounds
            self.extra_acked.advance()
        self.extra_acked.update(min(self._aggregate - expected, window))

    def restart_aggregation(self, now: float) -> None:
        """After a pause nothing is expected."""
        self._aggregate = 0
        self._aggregate_since = now
