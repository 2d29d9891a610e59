"""NewReno (RFC 9002, section 7 and appendix B; docs/protocol.md, R-8)."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from stt_proto.clock import NEVER
from stt_proto.recovery.congestion.base import PathState
from stt_proto.recovery.congestion.window import MINIMUM_DATAGRAMS, initial_window, window_rate
from stt_proto.recovery.rtt import RttEstimator
from stt_proto.recovery.sent import SentPacket

LOSS_REDUCTION = 0.5
"""What is left of the window after congestion (kLossReductionFactor)."""


class NewReno:
    """Slow start, then one datagram more in each round trip; halved once for each round trip with a loss.

    Args:
        max_datagram_size: bytes.
        rtt: the path's estimator, for the rate.

    Attributes:
        window: bytes that may be in flight. A fraction, since in congestion avoidance a small packet adds less than
            a byte to a large window.
        ssthresh: bytes; below it is slow start.
    """

    __slots__ = ("_max_datagram_size", "_recovery_start", "_rtt", "ssthresh", "window")

    def __init__(self, max_datagram_size: int, rtt: RttEstimator) -> None:
        self._max_datagram_size = max_datagram_size
        self._rtt = rtt
        self._recovery_start = NEVER
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
        if path.window_used:
            window = self.window
            for packet in packets:
                if packet.time <= self._recovery_start:
                    continue
                if window < self.ssthresh:
                    window += packet.size
                else:
                    window += self._max_datagram_size * packet.size / window
            self.window = window

    def on_lost(self, packets: Sequence[SentPacket], now: float, persistent: bool, path: PathState) -> None:
        """Halve the window, or go down to the minimum and start anew."""
        self._reduce(packets[-1].time, now)
        if persistent:
            self.window = MINIMUM_DATAGRAMS * self._max_datagram_size
            self._recovery_start = NEVER

    def on_congestion_mark(self, sent_time: float, now: float, path: PathState) -> None:
        """A mark counts as a loss."""
        self._reduce(sent_time, now)

    def set_max_datagram_size(self, size: int) -> None:
        """Count in other datagrams from now on; the window only keeps its minimum."""
        self._max_datagram_size = size
        self.window = max(self.window, MINIMUM_DATAGRAMS * size)

    def _reduce(self, sent_time: float, now: float) -> None:
        """Begin a recovery period, unless the packet was sent before the present one began."""
        if sent_time > self._recovery_start:
            self._recovery_start = now
            self.ssthresh = self.window * LOSS_REDUCTION
            self.window = max(self.ssthresh, MINIMUM_DATAGRAMS * self._max_datagram_size)
