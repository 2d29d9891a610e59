"""Signs of life: when to ask a silent peer for one, and when to give it up (docs/protocol.md, K-4, K-5, R-10).

A tick that comes late never ends a session. It was this process that slept, perhaps through the moment when it should
have asked, so the peer gets its chance first.

Nothing is re-armed when a packet arrives. The deadline is computed from the time of the last one when somebody asks,
so a busy session pays one assignment a packet for all of this.
"""

from __future__ import annotations

from enum import Enum, auto
from math import inf

LATE = 1.0
"""Seconds after which a tick counts as late: the process slept, not the peer."""
GRACE = 2.0
"""Seconds that the peer gets after such a sleep."""


class Silence(Enum):
    """What a tick found."""

    NONE = auto()
    ASK = auto()
    MISSED = auto()
    DEAD = auto()


class Liveness:
    """Watches one session.

    Args:
        interval: seconds of silence before the peer is asked for a sign of life, and between two askings.
        timeout: seconds of silence after which it is given up.
        initiator: the initiator asks first; the responder waits a fifth of the interval longer.
        now: when the session began.
    """

    __slots__ = ("_asked_at", "_first_delay", "_grace_until", "_interval", "last_received", "timeout")

    def __init__(self, interval: float, timeout: float, initiator: bool, now: float) -> None:
        self._interval = interval
        self._first_delay = interval if initiator else interval * 1.2
        self.timeout = timeout
        self.last_received = now
        self._asked_at = -inf
        self._grace_until = -inf

    def _ask_at(self) -> float:
        if self._asked_at < self.last_received:
            return self.last_received + self._first_delay
        return self._asked_at + self._interval

    def _dead_at(self) -> float:
        return max(self.last_received + self.timeout, self._grace_until)

    def deadline(self) -> tuple[float, str]:
        """The next time to tick, and its name."""
        ask_at, dead_at = self._ask_at(), self._dead_at()
        return (ask_at, "keep_alive") if ask_at < dead_at else (dead_at, "idle")

    def tick(self, now: float) -> Silence:
        """Say what the silence, if there is one, calls for."""
        due, _ = self.deadline()
        if now < due:
            return Silence.NONE
        if now > due + LATE:  # asking late is no better than not asking: either way the peer had no chance
            self._grace_until = now + GRACE
        elif now >= self._dead_at():
            return Silence.DEAD
        missed = self._asked_at >= self.last_received
        self._asked_at = now
        return Silence.MISSED if missed else Silence.ASK
