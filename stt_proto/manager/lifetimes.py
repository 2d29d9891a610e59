"""How long a session lives: for a time after its last use, or after its beginning, or as it was extended."""

from __future__ import annotations

from math import inf, nextafter

from stt_proto.clock import NEVER
from stt_proto.manager.use import Use


class Lifetime:
    """The time of one session; seconds on the clock of `now`.

    It ends at `max(begin + ttl, extended_until)`, where `begin` is the last use when it slides and the beginning when
    not. So looking changes nothing, a use never shortens what `extend` gave, and only `change` can.

    Attributes:
        created_at: when it began.
        use: what the session says of itself; `None` when it says nothing.
        extended_until: until when it lives at least; `NEVER` when it was not extended.
    """

    __slots__ = ("_told", "created_at", "extended_until", "sliding", "ttl", "use")

    def __init__(self, created_at: float, ttl: float, sliding: bool, use: Use | None = None) -> None:
        self.created_at = self._told = created_at
        self.use = use
        self.ttl = ttl
        self.sliding = sliding
        self.extended_until = NEVER

    @property
    def last_used(self) -> float:
        """When it was used last: as the manager was told, or as the session says."""
        use = self.use
        return self._told if use is None else max(self._told, use.last_used)

    @last_used.setter
    def last_used(self, now: float) -> None:
        self._told = now

    @property
    def expires_at(self) -> float:
        """From when on it is over."""
        end = (self.last_used if self.sliding else self.created_at) + self.ttl
        return end if end > self.extended_until else self.extended_until

    def extend(self, seconds: float, now: float) -> None:
        """Let it live for `seconds` from now at least."""
        until = now + seconds
        if until - now < seconds:  # what rounding took from it
            until = nextafter(until, inf)
        self.extended_until = max(self.extended_until, until)

    def change(self, ttl: float, sliding: bool) -> None:
        """Let it live by other rules; what `extend` gave is over."""
        if (ttl, sliding) != (self.ttl, self.sliding):
            self.ttl, self.sliding = ttl, sliding
            self.extended_until = NEVER
