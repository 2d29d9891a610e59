"""The way to a stop: nothing new is taken, work goes on until a deadline, and then everything ends."""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class DrainStatus:
    """How far the way to a stop is gone; a snapshot.

    Attributes:
        deadline: when what is left will be ended, on the clock of `now`; `None` while there is no drain.
        sessions: sessions that are not over.
        requests: requests in flight in them.
        streams: streams that are open in them.
    """

    deadline: float | None
    sessions: int
    requests: int
    streams: int

    @property
    def is_draining(self) -> bool:
        """Whether nothing new is taken."""
        return self.deadline is not None

    @property
    def is_over(self) -> bool:
        """Whether nothing is left and nothing will come."""
        return self.is_draining and not self.sessions
