"""The paths of one session beside the active one: validated spares, and candidates (docs/protocol.md, M-1, M-3).

The active path is not in here, so whoever handles a packet that came over it need not look anything up.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from stt_proto.paths.path import Path
from stt_proto.types import NetworkPath

MAX_HEARD = 4
"""Paths that are kept because somebody sent from there (M-3)."""
MEETING_PAUSE = 0.05
"""Seconds between two that take the place of another one."""
MAX_OPENED = 3
"""Paths beside the active one that the application may add (M-2): the peer has issued no more IDs (C-2)."""

_NONE: dict[NetworkPath, Path] = {}
"""What nearly all sessions have; an empty dictionary for each would cost an endpoint 64 bytes a session."""


class PathTable:
    """Holds them, and bounds how many there are.

    Attributes:
        others: all of them, the oldest first.
    """

    __slots__ = ("_met_at", "others")

    def __init__(self) -> None:
        self.others = _NONE
        self._met_at = -inf

    def __iter__(self) -> Iterator[Path]:
        """A walk during which the table may change."""
        return iter(tuple(self.others.values()))

    def add(self, path: Path) -> None:
        """Take in a path for which there is a place."""
        if self.others is _NONE:
            self.others = {}
        self.others[path.network_path] = path

    def remove(self, path: Path) -> None:
        """Forget a path; one that is not here is no mistake."""
        self.others.pop(path.network_path, None)
        if not self.others:
            self.others = _NONE

    @property
    def opened(self) -> int:
        """How many of them this side has opened."""
        return sum(path.opened_here for path in self.others.values())

    def admits(self, now: float) -> bool:
        """Whether somebody is met who is heard now from an address that was not known (M-3)."""
        if now < self._met_at + MEETING_PAUSE and self.in_the_way() is not None:
            return False
        self._met_at = now
        return True

    def in_the_way(self) -> Path | None:
        """Which one has to go before somebody is heard from yet another address; `None` when there is a place.

        The oldest that is not validated: a validated one was really the peer's.
        """
        heard = [path for path in self.others.values() if not path.opened_here]
        if len(heard) < MAX_HEARD:
            return None
        return next((path for path in heard if not path.validated), heard[0])
