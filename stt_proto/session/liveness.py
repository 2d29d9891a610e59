"""Signs of life: when to ask a silent peer for one, and when to give it up (docs/protocol.md, K-4, K-5, R-10).

A peer that is silent is asked often, since on a bad network most questions and answers are lost: with 30 % of them lost
each way one in two fails. Twenty in the last 20 s of the default timeout leave one in a million, and the probes of
recovery less; these alone, which double their distance, are six to eight by then.

A tick that comes late does not end a session at once. It was this process that slept, perhaps through the moment when
it should have asked, so the peer gets its chance first; but once in each silence, or a host that is always late would
never give anybody up.

Nothing is re-armed when a packet arrives. The deadline is computed from the time of the last one when somebody asks,
so a busy session pays one assignment a packet for all of this.
"""

from __future__ import annotations

from enum import Enum, auto

from stt_proto.clock import NEVER

LATE = 1.0
"""Seconds after which a tick counts as late: the process slept, not the peer."""
GRACE = 2.0
"""Seconds that the peer gets after such a sleep."""
QUESTIONS = 10
"""Times that a silent peer is asked in an interval."""
LEAST_PAUSE = 1.0
"""Seconds between two of these at least, if the interval is not shorter still: recovery asks again sooner than that."""


class Silence(Enum):
    """What a tick found: nothing to do; to ask for the first time; to ask again; the same after a whole interval in
    which no answer came; or that the peer is to be given up."""

    NONE = auto()
    ASK = auto()
    AGAIN = auto()
    MISSED = auto()
    DEAD = auto()


class Liveness:
    """Watches one session.

    Args:
        interval: seconds of silence before the peer is asked for a sign of life. It has as long to answer before the
            host is told that it did not; meanwhile it is asked again.
        timeout: seconds of silence after which it is given up.
        initiator: the initiator asks first; the responder waits a fifth of the interval longer.
        now: when the session began.
    """

    __slots__ = (
        "_asked_at",
        "_asked_in",
        "_first_delay",
        "_grace_until",
        "_graced_in",
        "_pause",
        "_told_at",
        "interval",
        "last_received",
        "timeout",
    )

    def __init__(self, interval: float, timeout: float, initiator: bool, now: float) -> None:
        self.interval = interval
        self._pause = min(interval, max(interval / QUESTIONS, LEAST_PAUSE))
        self._first_delay = interval if initiator else interval * 1.2
        self.timeout = timeout
        self.last_received = now
        # A silence goes by the time at which it began: an answer may come in the same moment as the question.
        self._asked_in = NEVER
        self._asked_at = NEVER
        self._told_at = NEVER  # when the host was last told of a question
        self._graced_in = NEVER
        self._grace_until = NEVER

    def _dead_at(self) -> float:
        return max(self.last_received + self.timeout, self._grace_until)

    def deadline(self) -> tuple[float, str]:
        """The next time to tick, and its name."""
        last, dead_at = self.last_received, self._dead_at()
        ask_at = self._asked_at + self._pause if self._asked_in == last else last + self._first_delay
        return (ask_at, "keep_alive") if ask_at < dead_at else (dead_at, "idle")

    def tick(self, now: float) -> Silence:
        """Say what the silence, if there is one, calls for.

        The peer had no chance when it is about to be given up and was not asked; asking late is no better.
        """
        due, _ = self.deadline()
        if now < due:
            return Silence.NONE
        asked = self._asked_in == self.last_received
        dead_at = self._dead_at()
        no_chance = now + GRACE > dead_at if now > due + LATE else not asked and now >= dead_at
        if no_chance and self._graced_in != self.last_received:
            self._graced_in = self.last_received
            self._grace_until = now + GRACE
        elif now >= dead_at:
            return Silence.DEAD
        self._asked_in, self._asked_at = self.last_received, now
        if asked and now - self._told_at <= self.interval - self._pause / 2:
            return Silence.AGAIN
        self._told_at = now
        return Silence.MISSED if asked else Silence.ASK
