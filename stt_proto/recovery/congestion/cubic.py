"""CUBIC (RFC 9438; docs/protocol.md, R-8 and R-12), with HyStart++ in its first slow start."""

from __future__ import annotations

from collections.abc import Sequence
from math import cbrt, inf

from stt_proto.clock import NEVER
from stt_proto.recovery.congestion.base import PathState
from stt_proto.recovery.congestion.hystart import HyStart
from stt_proto.recovery.congestion.window import MINIMUM_DATAGRAMS, initial_window, window_rate
from stt_proto.recovery.rtt import RttEstimator
from stt_proto.recovery.sent import SentPacket

BETA = 0.7
"""What is left of the window after congestion (beta_cubic)."""
STEEPNESS = 0.4
"""Datagrams in a cubic second: how fast the window grows away from the plateau (C)."""
RENO_SHARE = 3 * (1 - BETA) / (1 + BETA)
"""Datagrams in a round trip by which a Reno with our reduction must grow to get what Reno gets (alpha_cubic)."""
STEEPEST = 1.5
"""The window grows at most to so much of itself within a round trip."""


class Cubic:
    """Grows with the time since the last congestion: fast up to the window of then, slowly past it, then fast again.

    Time counts only while the window is in use (RFC 9438, 5.8), and begins with the first packet acknowledged that was
    sent after the congestion. Everything that the RFC has in segments is in bytes here.

    Args:
        max_datagram_size: bytes.
        rtt: the path's estimator.

    Attributes:
        window: bytes that may be in flight; a fraction, as in `NewReno`.
        ssthresh: bytes; below it is slow start.
    """

    __slots__ = (
        "_acked_at",
        "_elapsed",
        "_hystart",
        "_max_datagram_size",
        "_plateau",
        "_prior",
        "_recovery_start",
        "_reno",
        "_rtt",
        "_until_plateau",
        "ssthresh",
        "window",
    )

    def __init__(self, max_datagram_size: int, rtt: RttEstimator) -> None:
        self._max_datagram_size = max_datagram_size
        self._rtt = rtt
        self._hystart: HyStart | None = HyStart()
        self._recovery_start = NEVER
        self._plateau = 0.0  # W_max
        self._prior = 0.0  # cwnd_prior: the window before the last reduction
        self._until_plateau = 0.0  # K, seconds
        self._reno = 0.0  # W_est: the window that Reno would have by now
        self._elapsed = -1.0  # t, seconds of growth; below 0 while the epoch has not begun
        self._acked_at = 0.0
        self.window: float = initial_window(max_datagram_size)
        self.ssthresh = inf

    @property
    def pacing_rate(self) -> float:
        """The window in a round trip, and some more; bytes in a second."""
        return window_rate(self.window, self.window < self.ssthresh, self._rtt.smoothed)

    def on_sent(self, packet: SentPacket, path: PathState) -> None:
        """Sending changes nothing."""

    def on_acked(self, packets: Sequence[SentPacket], now: float, sample: float | None, path: PathState) -> None:
        """Grow for what was sent since the last reduction, if the window was in use."""
        acked = 0
        start = self._recovery_start
        for packet in packets:
            if packet.time > start:
                acked += packet.size
        hystart = self._hystart
        if hystart is not None and hystart.on_acked(packets[-1].index, path.packets_sent, sample):
            self._leave_slow_start()
        if acked and path.window_used:
            if self.window >= self.ssthresh:
                self._avoid_congestion(acked, packets[0].time, now)
            elif hystart is not None:
                self.window += acked / hystart.divisor
            else:
                self.window += acked
        self._acked_at = now

    def go_on_from(self, window: float) -> None:
        """Take the place of another controller, with its window: there is no slow start any more."""
        self.window = max(window, MINIMUM_DATAGRAMS * self._max_datagram_size)
        self._leave_slow_start()

    def _leave_slow_start(self) -> None:
        """Go on by the cubic function, from a plateau at the window as it is (RFC 9438, 4.8)."""
        self._hystart = None
        self.ssthresh = self.window

    def _avoid_congestion(self, acked: int, sent: float, now: float) -> None:
        """Grow for `acked` bytes, the oldest of which were sent at a time (RFC 9438, 4.2 to 4.5)."""
        window, size = self.window, self._max_datagram_size
        if self._elapsed < 0:
            self._begin_epoch()
        else:  # nothing was on its way before the packet was sent: a pause, which does not count
            since = self._acked_at
            self._elapsed += now - (since if since > sent else sent)
        plateau = self._plateau
        past = self._elapsed - self._until_plateau
        target = plateau + STEEPNESS * size * (past + self._rtt.smoothed) ** 3
        if target > window:
            window += (min(target, STEEPEST * window) - window) * acked / window
        # As fast as Reno at least, where that is faster: on short and slow paths.
        share = RENO_SHARE if self._reno < self._prior else 1.0
        reno = self._reno = self._reno + share * size * acked / self.window
        if window < reno > plateau + STEEPNESS * size * past**3:
            window = reno
        self.window = window

    def _begin_epoch(self) -> None:
        """Congestion avoidance begins: how far is it to the plateau?"""
        self._elapsed = 0.0
        self._reno = self.window
        if self.window < self._plateau:
            self._until_plateau = cbrt((self._plateau - self.window) / (STEEPNESS * self._max_datagram_size))
        else:
            self._plateau = self.window
            self._until_plateau = 0.0

    def on_lost(self, packets: Sequence[SentPacket], now: float, persistent: bool, path: PathState) -> None:
        """Reduce the window, or go down to the minimum and start anew."""
        self._reduce(packets[-1].time, now)
        if persistent:
            self.window = MINIMUM_DATAGRAMS * self._max_datagram_size
            self._recovery_start = NEVER
            self._plateau = 0.0  # what was is no measure any more (RFC 9438, 4.8)

    def on_congestion_mark(self, sent_time: float, now: float, path: PathState) -> None:
        """A mark counts as a loss."""
        self._reduce(sent_time, now)

    def set_max_datagram_size(self, size: int) -> None:
        """Count in other datagrams from now on; the window only keeps its minimum."""
        self._max_datagram_size = size
        self.window = max(self.window, MINIMUM_DATAGRAMS * size)

    def _reduce(self, sent_time: float, now: float) -> None:
        """Begin a recovery period, unless the packet was sent before the present one began (RFC 9438, 4.6, 4.7)."""
        if sent_time <= self._recovery_start:
            return
        window = self.window
        self._recovery_start = now
        # Not even what was before: somebody else needs room, so leave some at once (fast convergence).
        self._plateau = window * (1 + BETA) / 2 if window < self._plateau else window
        self._prior = window
        self._elapsed = -1.0
        self._hystart = None
        self.ssthresh = self.window = max(window * BETA, MINIMUM_DATAGRAMS * self._max_datagram_size)
