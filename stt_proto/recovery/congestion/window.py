"""What controllers have in common that steer by a window: where it begins, where it ends, how fast it leaves (R-8)."""

from __future__ import annotations

INITIAL_DATAGRAMS = 10
INITIAL_BYTES = 14_720
MINIMUM_DATAGRAMS = 2

SLOW_START_GAIN = 2.0
"""Windows in a round trip, the rate in slow start: the window doubles in that time."""

AVOIDANCE_GAIN = 1.25
"""Windows in a round trip, the rate after that: somewhat more, so that the window and not the rate is what limits."""

SHORTEST_RTT = 1e-6
"""Seconds; keeps the rate finite where there is no distance at all, as in a simulated network."""


def initial_window(max_datagram_size: int) -> float:
    """The first window, in bytes (RFC 9002, 7.2)."""
    return max(INITIAL_DATAGRAMS * max_datagram_size, INITIAL_BYTES)


def window_rate(window: float, slow_start: bool, rtt: float) -> float:
    """Bytes a second that send a window in a round trip, and some more (RFC 9002, 7.7)."""
    gain = SLOW_START_GAIN if slow_start else AVOIDANCE_GAIN
    return gain * window / (rtt if rtt > SHORTEST_RTT else SHORTEST_RTT)
