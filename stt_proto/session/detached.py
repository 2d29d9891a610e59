"""The sessions of one endpoint that have no path, and how many of them it keeps (docs/protocol.md, M-11).

They cost memory and a place each, and their peers may never come back. So there are bounds, and beyond one of them the
longest detached goes, since its peer is the least likely to return.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stt_proto.config import Limits

if TYPE_CHECKING:
    from stt_proto.session.session import Session

SHARE = 4
"""Of the places for sessions one in so many may be taken by a detached one."""


class DetachedSessions:
    """The book of them.

    Args:
        limits: of the endpoint.
        places: sessions that the endpoint may hold.
    """

    __slots__ = ("_bytes", "_by_peer", "_limits", "_places", "_sessions")

    def __init__(self, limits: Limits, places: int) -> None:
        self._limits = limits
        self._places = places
        self._sessions: dict[Session, int] = {}  # the longest detached first; bytes that each holds
        self._by_peer: dict[bytes, dict[Session, None]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def add(self, session: Session, size: int, now: float) -> None:
        """A session has lost its last path, and holds so many bytes. Perhaps some have to go for that."""
        self._sessions[session] = 0
        self._by_peer.setdefault(session.peer_node_id, {})[session] = None
        self.weigh(session, size, now)

    def weigh(self, session: Session, size: int, now: float) -> None:
        """It holds so many bytes now: applications go on writing, and reading."""
        self._bytes += size - self._sessions[session]
        self._sessions[session] = size
        while (excess := self.excess(session.peer_node_id)) is not None:
            excess.give_up(now)

    def remove(self, session: Session) -> None:
        """It has a path again, or has ended; one that is not here is no mistake."""
        size = self._sessions.pop(session, None)
        if size is not None:
            self._bytes -= size
            of_peer = self._by_peer[session.peer_node_id]
            del of_peer[session]
            if not of_peer:
                del self._by_peer[session.peer_node_id]

    def excess(self, peer_node_id: bytes) -> Session | None:
        """Which one has to go for a bound to hold, after one of this peer was added or weighed; `None` when all do."""
        of_peer = self._by_peer.get(peer_node_id, {})
        if len(of_peer) > self._limits.detached_per_peer:
            return next(iter(of_peer))
        if len(self._sessions) > max(1, self._places // SHARE) or self._bytes > self._limits.detached_bytes:
            return self.oldest()
        return None

    def give_way(self, live: int, now: float) -> None:
        """There is to be one more session beside `live` others: the longest detached goes if no place is free."""
        oldest = self.oldest()
        if oldest is not None and live >= self._places:
            oldest.give_up(now)

    def oldest(self) -> Session | None:
        """The longest detached."""
        return next(iter(self._sessions), None)
