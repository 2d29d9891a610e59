"""A bound on what is legal and suspicious (docs/protocol.md, F-5): floods not yet invented."""

from __future__ import annotations


class Suspicion:
    """A bucket that suspicious frames drain.

    Args:
        burst: what the bucket holds.
        rate: what flows back in, a second.
        now: when it is full.
    """

    __slots__ = ("_at", "_burst", "_level", "_rate")

    def __init__(self, burst: int, rate: float, now: float) -> None:
        self._burst = burst
        self._rate = rate
        self._level = float(burst)
        self._at = now

    def drain(self, count: int, now: float) -> bool:
        """Take `count` out; False when the bucket is empty and the session has to go."""
        self._level = min(self._burst, self._level + (now - self._at) * self._rate) - count
        self._at = now
        return self._level >= 0
