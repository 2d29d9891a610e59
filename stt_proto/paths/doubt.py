"""Does the active path still lead to the peer? What speaks for it, and when to ask (docs/protocol.md, M-5).

Nothing is noted when a packet comes over the active path, since that is all that ever happens on most sessions. Whoever
is in doubt compares counts: packets that came over it, and packets sent over it that were acknowledged.
"""

from __future__ import annotations

from math import inf

PAUSE = 1.0
"""Seconds between two doubts in a path that answers each time."""
TIMEOUTS = 2
"""Timeouts of recovery in a row after which an active path is doubted, if there is another (M-5)."""

Signs = tuple[int, int]
"""Packets that came over the active path so far, and packets sent over it that were acknowledged."""


class Doubt:
    """The state of it, for one session.

    Attributes:
        since: when it was doubted last.
        pause_until: until when it is not doubted again.
    """

    __slots__ = ("_heard", "_signs", "_silent", "pause_until", "since")

    def __init__(self) -> None:
        self.since = -inf
        self.pause_until = -inf
        self._heard = 0  # packets over the active path, when the peer was last heard elsewhere
        self._signs = (0, 0)  # what spoke for it when it was asked last
        self._silent = -1  # packets over it when it was found to be silent

    def on_moved(self, heard: int) -> None:
        """Another path is the active one now; `heard` is the count of packets over it to begin with."""
        self._heard = heard
        self._silent = -1
        self.pause_until = -inf

    def is_silent(self, heard: int) -> bool:
        """Whether it did not answer, and nothing came over it since."""
        return self._silent == heard

    def may_begin(self, now: float) -> bool:
        """Whether it is long enough ago."""
        return now >= self.pause_until

    def is_quiet(self, heard: int) -> bool:
        """Whether nothing came over it since this was asked last."""
        quiet = heard == self._heard
        self._heard = heard
        return quiet

    def begin(self, signs: Signs, now: float) -> None:
        """It is asked, as the first of four times."""
        self.since = now
        self.pause_until = now + PAUSE
        self._signs = signs

    def has_signs(self, signs: Signs) -> bool:
        """Whether anything has spoken for it since this was asked last."""
        changed = signs != self._signs
        self._signs = signs
        return changed

    def confirm(self, heard: int) -> None:
        """It did not answer."""
        self._silent = heard

    def dispel(self) -> None:
        """It did."""
        self._silent = -1
