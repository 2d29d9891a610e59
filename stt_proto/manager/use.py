"""What a session can say of itself, so that nobody has to tell the manager of it packet by packet."""

from __future__ import annotations

from typing import Protocol


class Use(Protocol):
    """What is looked at when it matters: when a session would expire, or somebody asks for it.

    What it says must not depend on when it is asked, but for `last_used` of a session that is in use right now.
    """

    @property
    def last_used(self) -> float:
        """When the session was used last, on the clock of `now`."""

    @property
    def open_streams(self) -> int:
        """How many of its streams are open."""
