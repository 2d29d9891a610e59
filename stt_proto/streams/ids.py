"""Stream ids: what they say, who may use which, and which were used (docs/protocol.md, S-1 to S-3).

An id says who opened the stream (bit 0: 0 the initiator) and of which kind it is (bit 1: 0 both ways, 1 one way from
the opener); what is left, `id >> 2`, is its index. Indexes may be used in any order below a limit that the other
side sets, so it takes a set to know which were used. That set holds the ended ones alone (the live ones are in the
table anyway), as intervals, and S-3 bounds how sparse a peer can make it.
"""

from __future__ import annotations

from collections.abc import Container

from stt_proto.errors import ArgumentError, StreamIdConflict, TooManyStreamsError
from stt_proto.streams.intervals import IntervalSet
from stt_proto.wire import MAX_STREAM_COUNT

__all__ = ["ID_SPAN", "OwnIds", "PeerIds", "is_bidirectional"]

ID_SPAN = 4096
"""How far the limit of stream indexes may lie above the smallest that has not ended (S-3)."""
LIMIT_STEP = 16
"""Streams that must have ended before a higher limit is announced; an eighth of the limit when that is less."""


def is_bidirectional(stream_id: int) -> bool:
    """Whether both sides send on the stream."""
    return not stream_id & 2


class OwnIds:
    """Ids of one kind that this side opens.

    Attributes:
        limit: indexes that the peer allows; only below it.
        ended: indexes of streams that are over.
        refused: an `allocate` or `claim` failed on the limit since it was last raised.
    """

    __slots__ = ("_first", "_next", "ended", "limit", "refused", "reported")

    def __init__(self, first: int) -> None:
        self._first = first
        self._next = 0
        self.limit = 0
        self.ended = IntervalSet()
        self.refused = False
        self.reported = -1

    def allocate(self, live: Container[int]) -> int:
        """Give the smallest id never used.

        Raises:
            TooManyStreamsError: it lies beyond the limit.
        """
        index, ended = self._next, self.ended
        while (index << 2 | self._first) in live or index in ended:
            index += 1
        self._next = index
        return self._below_limit(index << 2 | self._first)

    def claim(self, stream_id: int, live: Container[int]) -> int:
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
        if stream_id in live or stream_id >> 2 in self.ended:
            raise StreamIdConflict(f"stream id {stream_id} was used already")
        return self._below_limit(stream_id)

    def _below_limit(self, stream_id: int) -> int:
        if stream_id >> 2 >= self.limit:
            self.refused = True
            raise TooManyStreamsError(f"the peer allows stream indexes below {self.limit} of this kind")
        return stream_id

    def is_due(self, limit: int) -> bool:
        """Whether a limit of the peer is one that makes sense to tell (S-3, F-5): higher than one within reach."""
        return limit > self.limit and self.limit < max(self._next, self.ended.first_gap) + ID_SPAN

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
        ended: indexes of streams that are over.
        blocked_at: the highest limit that the peer said was in its way.
    """

    __slots__ = ("_allowed", "_step", "blocked_at", "ended", "limit")

    def __init__(self, allowed: int) -> None:
        self.limit = allowed
        self._allowed = allowed
        self._step = max(1, min(LIMIT_STEP, allowed // 8))
        self.ended = IntervalSet()
        self.blocked_at = -1

    def end(self, index: int) -> bool:
        """A stream is over; tell whether it is time to announce a higher limit."""
        self._allowed += 1
        self.ended.add(index, index + 1)
        return self._attainable() - self.limit >= self._step

    def announce(self) -> int:
        """Give the limit to announce, which counts from now on."""
        self.limit = max(self.limit, self._attainable())
        return self.limit

    def on_blocked(self, limit: int) -> bool:
        """The peer says that `limit` is in its way; False when that is nothing new, or was never announced."""
        fresh = self.blocked_at < limit <= self.limit
        if fresh:
            self.blocked_at = limit
        return fresh

    def _attainable(self) -> int:
        return min(self._allowed, self.ended.first_gap + ID_SPAN - 1, MAX_STREAM_COUNT)
