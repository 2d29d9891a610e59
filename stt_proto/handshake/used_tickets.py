"""Which tickets were used: remembered until they expire, and never forgotten to make room (docs/protocol.md, H-36)."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush

__all__ = ["UsedTickets"]


class UsedTickets:
    """The ids of tickets that were used, as long as they could be used again.

    A wall clock that steps back makes nothing good again: what was forgotten because it had expired stays expired.

    Args:
        limit: ids that are remembered at once.
    """

    __slots__ = ("_by_expiry", "_expires_at", "_forgotten_until", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._expires_at: dict[bytes, float] = {}
        self._by_expiry: list[tuple[float, bytes]] = []
        self._forgotten_until = float("-inf")

    def __len__(self) -> int:
        return len(self._expires_at)

    def __contains__(self, ticket_id: bytes) -> bool:
        return ticket_id in self._expires_at

    def is_over(self, expires_at: float, unix_time: float) -> bool:
        """Whether a ticket has expired, or might have been forgotten for that."""
        return expires_at <= max(unix_time, self._forgotten_until)

    def is_full(self, unix_time: float) -> bool:
        """Whether there is no room for another."""
        self._forget(unix_time)
        return len(self._expires_at) >= self._limit

    def add(self, ticket_id: bytes, expires_at: float, unix_time: float) -> bool:
        """Remember one; False when it is known already, has expired, or there is no room."""
        if self.is_full(unix_time) or ticket_id in self._expires_at or self.is_over(expires_at, unix_time):
            return False
        self._expires_at[ticket_id] = expires_at
        heappush(self._by_expiry, (expires_at, ticket_id))
        return True

    @property
    def forgotten_until(self) -> float:
        """The latest expiry of those that were forgotten, in seconds since 1970; minus infinity without one."""
        return self._forgotten_until

    def snapshot(self) -> tuple[tuple[bytes, float], ...]:
        """Every id with its expiry, the first to expire first: what `restore` takes back."""
        return tuple((ticket_id, expires_at) for expires_at, ticket_id in sorted(self._by_expiry))

    def restore(
        self, used: Iterable[tuple[bytes, float]], unix_time: float, forgotten_until: float = float("-inf")
    ) -> bool:
        """Remember what a snapshot held and has not expired; False when there was no room for all of it.

        Args:
            used: the snapshot.
            unix_time: seconds since 1970.
            forgotten_until: what that was when the snapshot was taken; what has expired now is forgotten too.
        """
        complete = True
        for ticket_id, expires_at in used:
            if self.is_over(expires_at, unix_time):
                forgotten_until = max(forgotten_until, expires_at)
            elif ticket_id not in self:
                complete &= self.add(ticket_id, expires_at, unix_time)
        self._forgotten_until = max(self._forgotten_until, forgotten_until)
        return complete

    def _forget(self, unix_time: float) -> None:
        by_expiry = self._by_expiry
        while by_expiry and by_expiry[0][0] <= unix_time:
            expires_at, ticket_id = heappop(by_expiry)
            self._forgotten_until = max(self._forgotten_until, expires_at)
            del self._expires_at[ticket_id]
