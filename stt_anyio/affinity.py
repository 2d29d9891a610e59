"""The pool of `stt_proto.manager` that finds sessions by nearness to contents, with sessions and a clock in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stt_anyio.errors import ArgumentError
from stt_anyio.session import Session
from stt_proto.manager import ContentAffinityPool as Pool
from stt_proto.manager import PoolStats

if TYPE_CHECKING:
    from stt_anyio.node_base import NodeBase


class ContentAffinityPool:
    """Sessions by nearness to contents, so that one content meets the same caches. Made by `STTNode.affinity_pool`.

    A content is a hash of 32 bytes, and so is the home of each session; near is what Kademlia calls near, the exclusive
    or as a number. Sessions that have ended leave the pool by themselves.

    Args:
        node: whose clock counts.
        max_pool_size: sessions that it holds, 1 to 65,536; for one more, the one used longest ago goes.
        half_life: seconds after which traffic counts half in `rebalance`.

    Raises:
        ArgumentError: an argument is out of its range; so for all methods.
    """

    def __init__(self, node: NodeBase[Session], max_pool_size: int = 100, *, half_life: float = 60.0) -> None:
        self._node = node
        self._pool: Pool[Session] = Pool(max_pool_size, half_life=half_life)
        self._max = max_pool_size

    def _now(self) -> float:
        return self._node.driver.clock()

    def _swept(self) -> float:
        """Take out those that have ended; gives the time."""
        for session in [each for each in self._pool if not each.is_active()]:
            self._pool.remove_session(session)
        return self._now()

    def __len__(self) -> int:
        self._swept()
        return len(self._pool)

    def __contains__(self, session: Session) -> bool:
        return session in self._pool and session.is_active()

    def add_session(self, session: Session, content_hash: bytes) -> Session | None:
        """Take one in, at home at a hash; give the one that had to go for it, if one had. It is not closed.

        Raises:
            SessionClosedError: it has ended, or is about to.
        """
        if not isinstance(session, Session):
            raise ArgumentError(f"session is of type {type(session).__name__}", argument="session")
        if not session.is_active():
            raise session.ended()
        now = self._swept() if len(self._pool) >= self._max else self._now()  # one that has ended is no loss
        return self._pool.add_session(session, content_hash, now)

    def remove_session(self, session: Session) -> bool:
        """Take one out; False when it is not there. It is not closed."""
        return self._pool.remove_session(session)

    def get_session_for_content(self, content_hash: bytes) -> Session:
        """The session whose home is nearest to this hash; of several at one home, the least busy.

        Raises:
            PoolMissError: the pool is empty.
        """
        now = self._now()
        while (session := self._pool.nearest(content_hash, now)) is not None and not session.is_active():
            self._pool.remove_session(session)
        return self._pool.get_session_for_content(content_hash, now)

    def calculate_affinity(self, session: Session, content_hash: bytes) -> int:
        """The distance of a session to a content: 0 the nearest, 2^256 - 1 the farthest.

        Raises:
            PoolMissError: it is not in the pool.
        """
        return self._pool.calculate_affinity(session, content_hash)

    def update_session_affinity(self, session: Session, content_hash: bytes) -> None:
        """Move a session to another home.

        Raises:
            PoolMissError: it is not in the pool.
        """
        self._pool.update_session_affinity(session, content_hash)

    def rebalance(self) -> Session | None:
        """Let the idlest session help the busiest, if they differ much; give the one that moved."""
        return self._pool.rebalance(self._swept())

    def cleanup_inactive_sessions(self, idle: float) -> tuple[Session, ...]:
        """Take out, and give, those that nobody was sent to for `idle` seconds. They are not closed."""
        return self._pool.cleanup_inactive_sessions(self._swept(), idle)

    def get_pool_stats(self) -> PoolStats:
        """What it did so far, and how evenly."""
        return self._pool.get_pool_stats(self._swept())
