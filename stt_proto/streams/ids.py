"""Stream ids: what they say, who may use which, and which were used (docs/protocol.md, S-1 to S-3).

An id says who opened the stream (bit 0: 0 the initiator) and of which kind it is (bit 1: 0 both ways, 1 one way from
the opener); what is left, `id >> 2`, is its index. Indexes may be used in any order below a limit that the other
side sets, so it takes a set to know which were used: as intervals, whose gaps are as few as the places that a peer has
(S-3). The live ones are in it too; the table knows them from those that are over.
"""

from __future__ import annotations

from stt_proto.errors import ArgumentError, StreamIdConflict, TooManyStreamsError
from stt_proto.streams.intervals import IntervalSet
from stt_proto.wire import MAX_STREAM_COUNT

__all__ = ["SPARE_STREAMS", "OwnIds", "PeerIds", "is_bidirectional"]

SPARE_STREAMS = 4096
"""Streams that a peer may allow beyond those opened; as many as it allowed at first, when that is more (F-5)."""
LIMIT_STEP = 16
"""Streams that must have ended before a higher limit is announced; an eighth of the limit when that is less, and one
when the peer waits for it."""


def is_bidirectional(stream_id: int) -> bool:
    """Whether both sides send on the stream."""
    return not stream_id & 2


class OwnIds:
    """Ids of one kind that this side opens.

    Attributes:
        limit: indexes that the peer allows; only below it.
        used: indexes of streams that there are or were.
        refused: an `allocate` or `claim` failed on the limit since it was last raised.
    """

    __slots__ = ("_first", "_opened", "_spare", "limit", "refused", "reported", "used")

    def __init__(self, first: int) -> None:
        self._first = first
        self._opened = 0
        self._spare = SPARE_STREAMS
        self.limit = 0
        self.used = IntervalSet()
        self.refused = False
        self.reported = -1

    def allocate(self) -> int:
        """Give the smallest id never used.

        Raises:
            TooManyStreamsError: it lies beyond the limit.
        """
        return self._below_limit(self.used.first_gap << 2 | self._first)

    def claim(self, stream_id: int) -> int:
        """Check an id that the application chose.

        Raises:
            ArgumentError: it is no number.
            StreamIdConflict: it belongs to the peer or another kind, or was used.
            TooManyStreamsError: it lies beyond the limit.
        """
        if type(stream_id) is not int:
            raise ArgumentError(f"stream_id is {stream_id!r}; it must be a whole number", argument="stream_id")
        if stream_id < 0 or stream_id & 3 != self._first:
            raise StreamIdConflict(
                f"stream id {stream_id} is not one for this call: its two lowest bits must be {self._first:#04b}"
            )
        if stream_id >> 2 in self.used:
            raise StreamIdConflict(f"stream id {stream_id} was used already")
        return self._below_limit(stream_id)

    def _below_limit(self, stream_id: int) -> int:
        if stream_id >> 2 >= self.limit:
            self.refused = True
            raise TooManyStreamsError(f"the peer allows stream indexes below {self.limit} of this kind")
        return stream_id

    def use(self, stream_id: int) -> None:
        """There is a stream with this id now."""
        index = stream_id >> 2
        self.used.add(index, index + 1)
        self._opened += 1

    def is_due(self, limit: int) -> bool:
        """Whether a limit of the peer is one that makes sense to tell (S-3, F-5): higher than one within reach."""
        return self.limit < limit and self.limit < self._opened + self._spare

    def begin(self, limit: int) -> None:
        """Take in the limit that the peer's parameters gave."""
        self._spare = max(self._spare, limit)
        self.raise_limit(limit)

    def raise_limit(self, limit: int) -> bool:
        """Take in the peer's limit; False when it is no higher than before."""
        if limit <= self.limit:
            return False
        self.limit = limit
        return True

    def report_blocked(self) -> bool:
        """Whether the peer is to be told that the limit is in the way: once for each (S-12)."""
        fresh = self.reported != self.limit
        self.reported = self.limit
        return fresh


class PeerIds:
    """Ids of one kind that the peer opens.

    Attributes:
        limit: indexes that were announced as allowed; only below it.
        used: indexes of streams that there are or were.
        blocked_at: the highest limit that the peer said was in its way.
    """

    __slots__ = ("_allowed", "_step", "blocked_at", "limit", "used")

    def __init__(self, allowed: int) -> None:
        self.limit = allowed
        self._allowed = allowed
        self._step = max(1, min(LIMIT_STEP, allowed // 8))
        self.used = IntervalSet()
        self.blocked_at = -1

    def use(self, stream_id: int) -> None:
        """There is a stream with this id now."""
        index = stream_id >> 2
        self.used.add(index, index + 1)

    def end(self) -> bool:
        """A stream is over; tell whether it is time to announce a higher limit."""
        self._allowed += 1
        return self.due

    @property
    def due(self) -> bool:
        """Whether to announce a higher limit: it is worth it, or the peer has said that it waits for one (S-3)."""
        return self._allowed - self.limit >= (1 if self.blocked_at == self.limit else self._step)

    def announce(self) -> int:
        """Give the limit to announce, which counts from now on."""
        self.limit = min(self._allowed, MAX_STREAM_COUNT)
        return self.limit

    def on_blocked(self, limit: int) -> bool:
        """The peer says that `limit` is in its way; False when that is nothing new, or was never announced."""
        fresh = self.blocked_at < limit <= self.limit
        if fresh:
            self.blocked_at = limit
        return fresh
