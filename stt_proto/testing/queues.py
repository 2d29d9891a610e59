"""The bottleneck of a link: first in, first out, and what leaves when."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from stt_proto.testing.trace import OPPORTUNITY, LinkTrace


class Queue(Protocol):
    """What a link asks of its bottleneck. It asks for the backlog before it lets a datagram in.

    Attributes:
        free_at: when the last byte of what is in it leaves.
    """

    free_at: float

    def backlog(self, now: float) -> float:
        """Bytes that wait; of the datagram that is leaving, those that are not yet gone."""

    def enter(self, size: int, now: float) -> float:
        """Let a datagram in; give the time at which its last byte leaves."""


class RateQueue:
    """So many bits a second, steadily, from a time on."""

    __slots__ = ("_begins", "_rate", "free_at")

    def __init__(self, rate: float, begins: float = 0.0) -> None:
        self._rate = rate
        self._begins = self.free_at = begins

    def backlog(self, now: float) -> float:
        return max(0.0, self.free_at - max(now, self._begins)) * self._rate / 8

    def enter(self, size: int, now: float) -> float:
        self.free_at = leaves = max(now, self.free_at) + size * 8 / self._rate
        return leaves


class TraceQueue:
    """As a recorded link would have let them through, from a time on."""

    __slots__ = ("_bytes", "_next", "_room", "_trace", "_waiting", "free_at")

    def __init__(self, trace: LinkTrace, begins: float = 0.0) -> None:
        self._trace = trace
        self._next = trace.first_after(begins)
        self._room = OPPORTUNITY
        self._waiting: deque[tuple[float, int]] = deque()
        self._bytes = 0
        self.free_at = begins

    def backlog(self, now: float) -> float:
        waiting = self._waiting
        while waiting and waiting[0][0] <= now:
            self._bytes -= waiting.popleft()[1]
        return self._bytes

    def enter(self, size: int, now: float) -> float:
        first = self._trace.first_after(now)
        if first > self._next:
            self._next, self._room = first, OPPORTUNITY
        left = size
        while left > self._room:
            left -= self._room
            self._next, self._room = self._next + 1, OPPORTUNITY
        self._room -= left
        self.free_at = leaves = self._trace.time_of(self._next)
        self._waiting.append((leaves, size))
        self._bytes += size
        return leaves
