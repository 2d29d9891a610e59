"""Whether a session is well: by round trip, loss and silence, with hysteresis. Readings go in, changes come out."""

from __future__ import annotations

from math import isfinite
from typing import Any

from attrs import Attribute, field, frozen

from stt_proto.errors import ArgumentError

MIN_PACKETS = 10
"""Packets sent since the last reading, below which they say nothing of the loss."""


def _from(low: float, high: float, unit: str) -> Any:
    def check(_: Any, attribute: Attribute[Any], value: Any) -> None:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not isfinite(value) or not low <= value <= high:
            raise ArgumentError(
                f"{attribute.name} is {value!r}; it must be from {low:,} to {high:,} {unit}", argument=attribute.name
            )

    return check


def _times(_: Any, attribute: Attribute[Any], value: Any) -> None:
    if type(value) is not int or not 1 <= value <= 1000:
        raise ArgumentError(f"after is {value!r}; it must be a whole number from 1 to 1,000", argument="after")


@frozen(kw_only=True)
class HealthPolicy:
    """When a session is unwell, and when it is well again.

    Attributes:
        max_rtt: seconds of smoothed round trip, 0.001 to 3,600.
        max_loss: share of the packets since the last reading that was lost, 0 to 1.
        max_silence: seconds since something authentic came, 0.001 to 86,400. A session that has nothing to say is
            silent for the keep-alive interval, and a fifth of it more; so it should be well above that.
        recovery: a value counts as good again at this share of its bound, 0.01 to 1: what hovers about the bound makes
            no alarm after the other.
        after: readings in a row that it takes, to become unwell and to become well, 1 to 1,000. One that cannot tell of
            the loss breaks no row of those that told of it.
        interval: seconds between two readings, 0.01 to 86,400; for hosts.

    Raises:
        ArgumentError: names the attribute, its value and what is allowed.
    """

    max_rtt: float = field(default=1.0, validator=_from(0.001, 3600, "seconds"))
    max_loss: float = field(default=0.1, validator=_from(0, 1, "of all"))
    max_silence: float = field(default=20.0, validator=_from(0.001, 86_400, "seconds"))
    recovery: float = field(default=0.8, validator=_from(0.01, 1, "of a bound"))
    after: int = field(default=2, validator=_times)
    interval: float = field(default=5.0, validator=_from(0.01, 86_400, "seconds"))


@frozen(kw_only=True)
class HealthReading:
    """How a session is at one moment.

    Attributes:
        rtt: smoothed round trip in seconds, `None` before the first sample.
        loss: share of the packets since the last reading that was lost, `None` when they were too few to tell.
        silence: seconds since something authentic came.
    """

    rtt: float | None
    loss: float | None
    silence: float


@frozen
class HealthChanged:
    """A session has become unwell, or well again.

    Attributes:
        healthy: which.
        problems: `rtt`, `loss`, `silence`: what was beyond its bound; of one that is well again, what had been.
        reading: the last.
    """

    healthy: bool
    problems: frozenset[str]
    reading: HealthReading


class Health:
    """Watches one session.

    Args:
        policy: the bounds.

    Attributes:
        healthy: whether it is well; it is from the start.
        problems: why not.
    """

    __slots__ = ("_lost", "_run", "_sent", "_suspected", "healthy", "policy", "problems")

    def __init__(self, policy: HealthPolicy) -> None:
        self.policy = policy
        self.healthy = True
        self.problems: frozenset[str] = frozenset()
        self._run = 0  # readings in a row that speak against how it stands
        self._suspected: frozenset[str] = frozenset()  # what is wrong by the last of those, while it is well
        self._lost = self._sent = 0

    def look(self, *, now: float, last_heard: float, rtt: float | None, sent: int, lost: int) -> HealthChanged | None:
        """Take a reading, and give what changed with it.

        Args:
            now: seconds, on the clock of `last_heard`.
            last_heard: when something authentic last came.
            rtt: smoothed round trip in seconds, if there is one.
            sent: packets sent so far.
            lost: packets lost so far.
        """
        fresh, gone = sent - self._sent, lost - self._lost
        loss = None
        if fresh >= MIN_PACKETS:
            self._sent, self._lost = sent, lost
            loss = min(1.0, gone / fresh)
        reading = HealthReading(rtt=rtt, loss=loss, silence=max(0.0, now - last_heard))
        beyond = self._beyond(reading, 1.0 if self.healthy else self.policy.recovery)
        lossy = (self._suspected if self.healthy else self.problems) & {"loss"}
        if loss is None and lossy:
            if not beyond:
                return None  # nothing was sent that could show that it is better
            beyond |= lossy
        if bool(beyond) is not self.healthy:
            self._run, self._suspected = 0, frozenset()
            if not self.healthy:
                self.problems = beyond
            return None
        self._run += 1
        self._suspected = beyond
        if self._run < self.policy.after:
            return None
        self._run, self.healthy, self._suspected = 0, not self.healthy, frozenset()
        told = beyond if beyond else self.problems
        self.problems = beyond
        return HealthChanged(self.healthy, told, reading)

    def _beyond(self, reading: HealthReading, share: float) -> frozenset[str]:
        policy = self.policy
        found = []
        for name, value, bound in (
            ("rtt", reading.rtt, policy.max_rtt),
            ("loss", reading.loss, policy.max_loss),
            ("silence", reading.silence, policy.max_silence),
        ):
            if value is not None and value > bound * share:
                found.append(name)
        return frozenset(found)
