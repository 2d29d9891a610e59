"""How many datagrams the next packet may span (docs/protocol.md, P-16).

A packet train spreads the cost of a packet (the AEAD call, the bookkeeping, the system call) over up to 64 datagrams.
The price is that it is lost as a whole when any of them is. So a train is only as long as the path has shown to be able
to carry: short where datagrams get lost, where the link is slow, where the congestion window is small, and a single
datagram where somebody on the path forges segments.
"""

from __future__ import annotations

from stt_proto.clock import NEVER
from stt_proto.recovery import Recovery
from stt_proto.wire.header import MAX_SEGMENTS, MAX_TRAIN

LONGEST = 0.002
"""Seconds that a train may take at the current rate: what comes behind it waits no longer."""
LOSS_BUDGET = 0.05
"""Share of trains that may be lost: with a datagram loss of p, a train of n is lost with about n p."""
WINDOW_SHARE = 8
"""A train is at most this part of the congestion window, so that three packets after a lost one are soon sent."""
FORGERY_PAUSE = 1.0
"""Seconds without trains after the peer has counted more of them that did not open."""


class TrainSizer:
    """Chooses the length of trains on one path.

    Args:
        max_segments: the most that the peer takes.
        datagram_size: bytes of a datagram.
        max_packet: bytes of the largest packet that the peer takes.

    Attributes:
        most: datagrams of the longest train, at least 1. Datagrams of more than 32 KiB travel alone.
    """

    __slots__ = ("_failed", "_max_bytes", "_max_segments", "_paused_until", "_size", "most")

    def __init__(self, max_segments: int, datagram_size: int, max_packet: int = MAX_TRAIN) -> None:
        self._max_segments = min(max_segments, MAX_SEGMENTS)
        self._max_bytes = min(max_packet, MAX_TRAIN)
        self._failed = 0
        self._paused_until = NEVER
        self.resize(datagram_size)

    def resize(self, datagram_size: int) -> None:
        """Datagrams have so many bytes from now on."""
        self._size = datagram_size
        self.most = max(1, min(self._max_segments, self._max_bytes // datagram_size))

    @staticmethod
    def suits(size: int, recovery: Recovery) -> bool:
        """Whether the path is wide and fast enough for packets of so many bytes, in one datagram or in several."""
        window, rtt = recovery.controller.window, recovery.rtt.smoothed
        return size * WINDOW_SHARE <= window and size * rtt <= window * LONGEST

    def on_failed(self, failed: int, now: float) -> None:
        """The peer reports, in an ACK, how many trains did not open so far (P-10)."""
        if failed > self._failed:
            self._failed = failed
            self._paused_until = now + FORGERY_PAUSE

    def segments(self, recovery: Recovery, now: float) -> int:
        """How many datagrams the next packet may span, at least 1; its data may fill fewer."""
        most = self.most
        rtt = recovery.rtt
        if most == 1 or recovery.probes or not rtt.samples or now < self._paused_until:
            return 1
        window, size = recovery.controller.window, self._size
        most = min(
            most,
            int(window / WINDOW_SHARE) // size,
            int(window * LONGEST / rtt.smoothed) // size if rtt.smoothed > LONGEST else most,
            int(window - recovery.bytes_in_flight) // size,
        )
        loss = recovery.datagram_loss
        if loss:
            most = min(most, int(LOSS_BUDGET / loss))
        return max(most, 1)
