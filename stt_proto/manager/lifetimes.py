"""How long a session lives: for a time after its last use, or after its beginning, or as it was extended."""

from __future__ import annotations

from stt_proto.clock import NEVER


class Lifetime:
    """The time of one session; seconds on the clock of `now`.

    It ends at `max(begin + ttl, extended_until)`, where `begin` is the last use when it slides and the beginning when
    not. So looking changes nothing, a use never shortens what `extend` gave, and only `change` can.

    Attributes:
        created_at: when it began.
        last_used: when it was used last.
        extended_until: until when it lives at least; `NEVER` when it was not extended.
    """

    __slots__ = ("created_at", "extended_until", "last_used", "sliding", "ttl")

    def __init__(self, created_at: float, ttl: float, sliding: bool) -> None:
        self.created_at = self.last_used = created_at
        self.ttl = ttl
        self.sliding = sliding
        self.extended_until = NEVER

    @property
    def expires_at(self) -> float:
        """From when on it is over."""
        end = (self.last_used if self.sliding else self.created_at) + self.ttl
        return end if end > self.extended_until else self.extended_until

    def extend(self, seconds: float, now: float) -> None:
        """Let it live for `seconds` from now at least."""
        self.extended_until = max(self.extended_until, now + seconds)

    def change(self, ttl: float, sliding: bool) -> None:
        """Let it live by other rules; what `extend` gave is over."""
        if (ttl, sliding) != (self.ttl, self.sliding):
            self.ttl, self.sliding = ttl, sliding
            self.extended_until = NEVER
