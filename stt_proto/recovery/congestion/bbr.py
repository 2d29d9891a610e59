"""A model-based controller after BBRv3 (draft-ietf-ccwg-bbr; docs/protocol.md, R-14).

It sends at the rate that the path has shown to carry, with about twice in flight of what fits the path without a queue.
To learn both it goes through phases, each with a gain for the rate and one for the volume. What it believes stands in
`PathModel`; here is what it does about it. Sections and names of the draft stand in brackets.

It departs from the draft in four things. Losses are counted in datagrams (see `PathModel`). A round of losses that are
not too many leaves the short-term model alone: a path with 1 % of random loss loses something in every round, and would
be paced down by as much each time. The pacing margin is taken from the long-term bandwidth only, for the same reason.
And no random numbers are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from attrs import frozen

from stt_proto.recovery.congestion.base import PathState
from stt_proto.recovery.congestion.bbr_model import BETA, PathModel
from stt_proto.recovery.congestion.window import SHORTEST_RTT, initial_window
from stt_proto.recovery.rtt import RttEstimator
from stt_proto.recovery.sent import SentPacket

LEAST_DATAGRAMS = 4
"""In flight at least, so that acknowledgements of every other one keep it going (MinPipeCwnd)."""
QUANTUM = 65_536
QUANTUM_TIME = 0.001
"""Bytes and seconds that leave and are acknowledged as one, at most: those of a train (SetSendQuantum)."""
PACING_MARGIN = 0.99
"""The rate, in bandwidths: a little less than one, so that queues drain (PacingMarginPercent)."""
HEADROOM = 0.15
"""Share of the volume that was too much which is left to others (Headroom)."""
FULL_GROWTH = 1.25
FULL_ROUNDS = 3
"""The pipe is full when the bandwidth did not grow to so much of itself in so many rounds."""
STARTUP_LOSSES = 6
"""Losses in a round that end the start, if they are too many besides (BBRStartupFullLossCnt)."""
DRAIN_ROUNDS = 3
"""Rounds after which draining is over, however much is in flight."""
AGGREGATION_ROUNDS = 5
"""Half of the rounds for which aggregation is remembered after the start (ExtraAckedFilterLen)."""
PROBE_RTT_TIME = 0.2
"""Seconds with little in flight (ProbeRTTDuration)."""
RENO_ROUNDS = 63
"""Rounds after which more bandwidth is looked for at the latest, so that a Reno beside us gets along."""
PROBE_WAIT = 2.0
"""Seconds after which it is, and up to one more."""
MAX_UP_ROUNDS = 30
"""Doublings of the speed at which `inflight_longterm` is raised."""


@frozen(eq=False)
class Phase:
    """A state of the machine.

    Attributes:
        name: for those who look on.
        pacing_gain: the rate, in bandwidths.
        window_gain: the volume, in bandwidth-delay products.
        probing: whether it looks for more bandwidth, so that a loss is no news.
        cycling: whether it belongs to the cycle of probing (ProbeBW).
    """

    name: str
    pacing_gain: float
    window_gain: float
    probing: bool = False
    cycling: bool = False


# "Summary of Control Behavior in the State Machine"
STARTUP = Phase("startup", 2.77, 2.0, probing=True)
DRAIN = Phase("drain", 0.5, 2.0)
DOWN = Phase("down", 0.9, 2.0, cycling=True)
CRUISE = Phase("cruise", 1.0, 2.0, cycling=True)
REFILL = Phase("refill", 1.0, 2.0, probing=True, cycling=True)
UP = Phase("up", 1.25, 2.25, probing=True, cycling=True)
PROBE_RTT = Phase("probe_rtt", 1.0, 0.5)


class Bbr:
    """The controller.

    Args:
        max_datagram_size: bytes.
        rtt: the path's estimator, for the rate before anything was measured.

    Attributes:
        window: bytes that may be in flight.
        pacing_rate: bytes a second.
        ssthresh: `inf` in the start, then 0; for those who look on.
        phase: of the state machine.
        filled_pipe: whether the bandwidth was ever found (full_bw_reached).
        model: what is believed of the path.
    """

    __slots__ = (
        "_cycle_began", "_drain_ends", "_filled", "_full_bandwidth", "_full_now", "_full_rounds", "_idle_restart",
        "_initial_window", "_losses", "_marked", "_max_datagram_size", "_prior_window", "_probe_rtt_ends",
        "_probe_rtt_round", "_probe_wait", "_probed_at", "_rtt", "_sampled_probe", "_sampled_rtt", "_stopping",
        "_too_high", "_up_acked", "_up_per_step", "_up_rounds", "_was_careful", "filled_pipe", "model", "pacing_rate",
        "phase", "ssthresh", "window",
    )  # fmt: skip

    def __init__(self, max_datagram_size: int, rtt: RttEstimator) -> None:
        self._max_datagram_size = max_datagram_size
        self._rtt = rtt
        self.model = PathModel(max_datagram_size)
        self.phase = STARTUP
        self.filled_pipe = False
        self.window: float = initial_window(max_datagram_size)
        self.ssthresh = inf
        self.pacing_rate = 0.0
        self._initial_window = self.window
        self._start_pacing()
        self._sampled_rtt = False  # whether the pacing began with a measured round trip
        self._filled = -1  # the index of the last packet that filled the window (is_cwnd_limited)
        self._full_bandwidth = 0.0
        self._full_rounds = 0
        self._full_now = False
        self._losses = 0  # times that something was lost in this round
        self._marked = False  # whether something was since the last acknowledgement
        self._drain_ends = 0  # a round
        self._sampled_probe = False  # is_bw_probe_sample: samples are of packets that probed
        self._stopping = False  # ACKS_PROBE_STOPPING: the last of these samples are coming
        self._too_high = False  # prev_probe_too_high
        self._was_careful = False  # prev_probe_precautionary
        self._up_acked = 0.0
        self._up_per_step = inf
        self._up_rounds = 0
        self._cycle_began = 0.0
        self._probe_wait = 0.0
        self._probed_at = 0  # the round of the last probe
        self._prior_window = 0.0  # before the round trip was looked for
        self._probe_rtt_ends = 0.0  # 0 while there is still too much in flight
        self._probe_rtt_round = False  # whether a round has passed with little in flight
        self._idle_restart = False

    # -- events ----------------------------------------------------------------------------------------------------

    def on_sent(self, packet: SentPacket, path: PathState) -> None:
        """Remember how things stand ("Per-Transmit Steps")."""
        in_flight = path.bytes_in_flight
        if in_flight == packet.size and path.app_limited:
            self._restart(packet.time, path)
        if in_flight + self._max_datagram_size > self.window:
            self._filled = packet.index
        self.model.on_sent(packet, path)

    def on_acked(self, packets: Sequence[SentPacket], now: float, sample: float | None, path: PathState) -> None:
        """Bring the model, the phase, and what follows from them up to date ("Per-ACK Steps")."""
        model = self.model
        model.on_acked(packets, now, path)
        if self._marked:
            self._marked = False
            if self._sampled_probe and model.probe_lost_too_much:
                self._on_too_high(model.tx_in_flight, now, path)
        if model.loss_round_start:
            self._end_loss_round(path)
        model.update_aggregation(self.window, now, AGGREGATION_ROUNDS if self.filled_pipe else 1)
        if model.round_start:
            self._check_full_pipe()
        if not self._adapt_longterm(packets[-1].index, path):
            self._advance(packets[-1].index, now, path)
        model.update_min_rtt(sample, now)
        self._check_probe_rtt(now, path)
        model.advance_latest()
        model.bound_bandwidth()
        if sample is not None and not self._sampled_rtt:
            self._sampled_rtt = True
            self._start_pacing()
        self._pace(self.phase.pacing_gain)
        self._set_window(path)

    def on_lost(self, packets: Sequence[SentPacket], now: float, persistent: bool, path: PathState) -> None:
        """Count, and end a probe that cost too much ("Per-Loss Steps")."""
        self._losses += 1
        model = self.model
        for packet in packets:
            model.on_lost(packet, path)
            if self._sampled_probe and model.probe_lost_too_much:
                self._on_too_high(model.inflight_at_loss(packet), now, path)
        if persistent:
            self.window = LEAST_DATAGRAMS * self._max_datagram_size

    def on_congestion_mark(self, sent_time: float, now: float, path: PathState) -> None:
        """A mark counts as the loss of a datagram."""
        self._losses += 1
        self._marked = True
        self.model.on_mark(self._max_datagram_size, path)

    def set_max_datagram_size(self, size: int) -> None:
        """Count in other datagrams from now on; the window only keeps its minimum."""
        self._max_datagram_size = size
        self.model.set_max_datagram_size(size)
        self.window = max(self.window, LEAST_DATAGRAMS * size)

    # -- the start ("Startup", "Drain") ----------------------------------------------------------------------------

    def _check_full_pipe(self) -> None:
        """At the start of a round: does the bandwidth still grow? (CheckFullBWReached)"""
        model = self.model
        if self._full_now or model.limited or not model.rate:
            return
        if model.rate >= self._full_bandwidth * FULL_GROWTH:
            self._reset_full_pipe()
            return
        self._full_rounds += 1
        if self._full_rounds == FULL_ROUNDS:
            self._full_now = self.filled_pipe = True

    def _reset_full_pipe(self) -> None:
        """Ask that anew, from the bandwidth of now (ResetFullBW)."""
        self._full_bandwidth = self.model.rate
        self._full_rounds = 0
        self._full_now = False

    def _end_loss_round(self, path: PathState) -> None:
        """A round trip has passed since the first loss (UpdateCongestionSignals, CheckStartupHighLoss)."""
        model = self.model
        if model.loss_in_round and model.round_lost_too_much(path):
            if not self.phase.probing:
                model.adapt_shortterm(self.window)
            elif self.phase is STARTUP and self._losses >= STARTUP_LOSSES:
                self.filled_pipe = True
                model.inflight_longterm = max(model.inflight_latest, 0.0 if model.bdp == inf else model.bdp)
        model.end_loss_round(path)
        self._losses = 0

    def _drain(self) -> None:
        """EnterDrain."""
        self.phase = DRAIN
        self.ssthresh = 0.0
        self._drain_ends = self.model.rounds + DRAIN_ROUNDS

    # -- the phases ("ProbeBW Algorithm Details") ------------------------------------------------------------------

    def _advance(self, newest: int, now: float, path: PathState) -> None:
        """Go on to the next phase, if it is time (CheckStartupDone, CheckDrainDone, UpdateProbeBWCyclePhase)."""
        phase, model = self.phase, self.model
        if phase is DOWN or phase is CRUISE:
            if self._is_time_to_probe(now):
                self._refill(path)
            elif phase is DOWN and path.bytes_in_flight <= min(self._with_headroom(), self._inflight()):
                self.phase = CRUISE
        elif phase is REFILL:
            if model.round_start:
                self._go_up(path)
        elif phase is UP:
            if self._is_time_to_go_down(newest, path):
                self._too_high = False
                self._go_down(now, path)
        elif phase is STARTUP:
            if self.filled_pipe:
                self._drain()
        elif phase is DRAIN and (path.bytes_in_flight <= self._inflight() or model.rounds > self._drain_ends):
            self._go_down(now, path)

    def _is_time_to_probe(self, now: float) -> bool:
        """IsTimeToProbeBW: after some seconds, or as often as a Reno of our size would lose something."""
        rounds = min(min(self.model.bdp, self.window) / self._max_datagram_size, RENO_ROUNDS)
        return now > self._cycle_began + self._probe_wait or self.model.rounds >= self._probed_at + rounds

    def _is_time_to_go_down(self, newest: int, path: PathState) -> bool:
        """IsTimeToGoDown."""
        longterm = self.model.inflight_longterm
        if self._too_high and path.bytes_in_flight >= longterm:
            self._was_careful = True
            return True
        if newest <= self._filled and self.window >= longterm:
            self._reset_full_pipe()  # the bound is in the way, so this says nothing of the bandwidth
        return self._full_now

    def _go_down(self, now: float, path: PathState) -> None:
        """StartProbeBW_DOWN."""
        self.model.reset_congestion()
        self.model.start_round(path)
        self._stopping = True
        self._pick_wait(path)
        self._cycle_began = now
        self.phase = DOWN

    def _pick_wait(self, path: PathState) -> None:
        """PickProbeWait. Flows must not march in step, so chance decides: a hash of what this one has sent so far."""
        drawn = (path.packets_sent * 0x9E3779B97F4A7C15 ^ path.delivered * 0xC2B2AE3D27D4EB4F) >> 32 & 0xFFFF
        self._probed_at = self.model.rounds - (drawn & 1)
        self._probe_wait = PROBE_WAIT + drawn / 0x10000

    def _refill(self, path: PathState) -> None:
        """StartProbeBW_REFILL."""
        self.model.reset_shortterm()
        self.model.start_round(path)
        self._up_rounds = 0
        self._up_acked = 0.0
        self._was_careful = False
        self._stopping = False
        self.phase = REFILL

    def _go_up(self, path: PathState) -> None:
        """StartProbeBW_UP."""
        self.model.start_round(path)
        self._sampled_probe = True
        self._reset_full_pipe()
        self._raise_slope()
        self.phase = UP

    def _raise_slope(self) -> None:
        """RaiseInflightLongtermSlope: by twice as much as in the round before."""
        self._up_per_step = max(self.window / (1 << self._up_rounds), self._max_datagram_size)
        self._up_rounds = min(self._up_rounds + 1, MAX_UP_ROUNDS)

    def _adapt_longterm(self, newest: int, path: PathState) -> bool:
        """AdaptLongTermModel; tell whether that decided the phase."""
        model = self.model
        if self._stopping and model.round_start:
            self._stopping = self._sampled_probe = False
            if self.phase.cycling:
                if not model.limited:
                    model.advance_max_bandwidth()
                if self._was_careful and not self._too_high:
                    self._refill(path)
                    return True
        if model.inflight_longterm != inf and not model.probe_lost_too_much:
            if model.tx_in_flight > model.inflight_longterm:
                model.inflight_longterm = model.tx_in_flight
            if self.phase is UP and newest <= self._filled and self.window >= model.inflight_longterm:
                self._raise_longterm()
        return False

    def _raise_longterm(self) -> None:
        """ProbeInflightLongtermUpward: the bound is in use, and nothing is lost at it."""
        model = self.model
        self._up_acked += model.newly_acked
        steps = self._up_acked // self._up_per_step
        self._up_acked -= steps * self._up_per_step
        model.inflight_longterm += steps * self._max_datagram_size
        if model.round_start:
            self._raise_slope()

    def _on_too_high(self, inflight: float, now: float, path: PathState) -> None:
        """HandleInflightTooHigh: remember the volume, once for each probe."""
        model = self.model
        self._too_high = True
        self._sampled_probe = False
        if not model.limited:
            model.inflight_longterm = max(inflight, BETA * min(model.bdp, self.window))
        if self.phase is UP:
            self._go_down(now, path)

    # -- the shortest round trip ("ProbeRTT Logic", "Restarting From Idle") ----------------------------------------

    def _check_probe_rtt(self, now: float, path: PathState) -> None:
        """CheckProbeRTT."""
        model = self.model
        if self.phase is PROBE_RTT:
            self._probe_rtt(now, path)
        elif model.rtt_is_old and not self._idle_restart:
            self.phase = PROBE_RTT
            self._prior_window = self.window
            self._probe_rtt_ends = 0.0
            self._stopping = True
            model.start_round(path)
            model.ignore_samples(path)
        self._idle_restart = False

    def _probe_rtt(self, now: float, path: PathState) -> None:
        """HandleProbeRTT: wait until little is in flight, then for a while, and a round."""
        model = self.model
        model.ignore_samples(path)
        if not self._probe_rtt_ends:
            if path.bytes_in_flight <= self._probe_rtt_window():
                self._probe_rtt_ends = now + PROBE_RTT_TIME
                self._probe_rtt_round = False
                model.start_round(path)
        elif model.round_start or self._probe_rtt_round:
            self._probe_rtt_round = True
            self._check_probe_rtt_done(now, path)

    def _check_probe_rtt_done(self, now: float, path: PathState) -> None:
        """CheckProbeRTTDone, ExitProbeRTT."""
        if not self._probe_rtt_ends or now <= self._probe_rtt_ends:
            return
        self.model.confirm_min_rtt(now)
        self.model.reset_shortterm()
        self.window = max(self.window, self._prior_window)
        if self.filled_pipe:
            self._go_down(now, path)
            self.phase = CRUISE
        else:
            self.phase = STARTUP

    def _restart(self, now: float, path: PathState) -> None:
        """HandleRestartFromIdle."""
        self._idle_restart = True
        self.model.restart_aggregation(now)
        if self.phase.cycling:
            self._pace(1.0)
        elif self.phase is PROBE_RTT:
            self._check_probe_rtt_done(now, path)

    # -- what comes of it ("Updating Control Parameters") ----------------------------------------------------------

    def _start_pacing(self) -> None:
        """InitPacingRate."""
        self.pacing_rate = STARTUP.pacing_gain * self._initial_window / max(self._rtt.smoothed, SHORTEST_RTT)

    def _pace(self, gain: float) -> None:
        """SetPacingRateWithGain; never slower than what the smallest window gives."""
        model = self.model
        rate = gain * min(PACING_MARGIN * model.max_bandwidth, model.bandwidth_shortterm)
        if rate > self.pacing_rate:
            self.pacing_rate = rate
        elif self.filled_pipe:
            self.pacing_rate = max(rate, self._max_datagram_size / max(self._rtt.smoothed, SHORTEST_RTT))

    def _quantize(self, volume: float) -> float:
        """QuantizationBudget: what lies with those who gather on the way, and the floor."""
        size = self._max_datagram_size
        quantum = min(QUANTUM_TIME * self.pacing_rate, QUANTUM)
        volume = max(volume, quantum, LEAST_DATAGRAMS * size)
        return volume + 2 * size if self.phase is UP else volume

    def _inflight(self) -> float:
        """Inflight(1.0): what fits the path without a queue."""
        bdp = self.model.bdp
        return self._quantize(bdp if bdp != inf else self._initial_window)

    def _with_headroom(self) -> float:
        """InflightWithHeadroom."""
        longterm, size = self.model.inflight_longterm, self._max_datagram_size
        return longterm if longterm == inf else max(longterm - max(HEADROOM * longterm, size), LEAST_DATAGRAMS * size)

    def _probe_rtt_window(self) -> float:
        """ProbeRTTCwnd."""
        bdp = self.model.bdp
        return max(PROBE_RTT.window_gain * (bdp if bdp != inf else 0.0), LEAST_DATAGRAMS * self._max_datagram_size)

    def _set_window(self, path: PathState) -> None:
        """SetCwnd, with what bounds it (BoundCwndForProbeRTT, BoundCwndForModel)."""
        model, phase, window = self.model, self.phase, self.window
        bdp = model.bdp
        volume = phase.window_gain * bdp if bdp != inf else self._initial_window
        most = self._quantize(volume + model.extra_acked.value)
        if self.filled_pipe:
            window = min(window + model.newly_acked, most)
        elif window < most or path.delivered < self._initial_window:
            window += model.newly_acked
        bound = model.inflight_shortterm
        if phase is CRUISE:
            bound = min(bound, self._with_headroom())
        elif phase.cycling:
            bound = min(bound, model.inflight_longterm)
        elif phase is PROBE_RTT:
            bound = min(bound, self._with_headroom(), self._probe_rtt_window())
        self.window = max(min(window, bound), LEAST_DATAGRAMS * self._max_datagram_size)
