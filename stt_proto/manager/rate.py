"""A token bucket, as the generic cell rate algorithm has it: one number, and no error that grows."""

from __future__ import annotations

from stt_proto.clock import NEVER

TOLERANCE = 1e-6
"""Seconds that one may come early: who waits just as long as he was told is let in, however floats are rounded."""


class TokenBucket:
    """At most `burst` at once, and `rate` a second in the long run: in `t` seconds no more than `burst + rate * t`.

    Args:
        rate: tokens a second; `inf` for any number.
        burst: tokens that lie in it when nobody came for long, 1 or more.
    """

    __slots__ = ("_empty_until", "_interval", "_tolerance")

    def __init__(self, rate: float, burst: int) -> None:
        self._interval = 1 / rate
        self._tolerance = (burst - 1) * self._interval + TOLERANCE
        self._empty_until = NEVER  # when it would be full again, if nobody came

    def change(self, rate: float, burst: int, now: float) -> None:
        """Go on with another rate and burst; the tokens that are missing are missing still, as many as there can be."""
        missing = min((self._empty_until - now) / self._interval, burst) if self._empty_until > now else 0.0
        self._interval = 1 / rate
        self._tolerance = (burst - 1) * self._interval + TOLERANCE
        self._empty_until = now + missing * self._interval

    def wait(self, now: float) -> float:
        """Seconds until there is a token; 0 when there is one."""
        wait = self._empty_until - self._tolerance - now
        return wait + TOLERANCE if wait > 0 else 0.0

    def take(self, now: float) -> None:
        """Take the token that is there."""
        self._empty_until = max(self._empty_until, now) + self._interval
