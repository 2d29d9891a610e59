"""Time inside the core: a clock that never runs backwards, and the queue of deadlines."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf
from typing import Generic, TypeVar

from stt_proto.errors import ArgumentError
from stt_proto.types import Deadline

Owner = TypeVar("Owner")

NEVER = -inf
"""The time of what has not happened. One object: each `-inf` that is written out is another."""

LATEST = 1e15
"""Seconds; the latest time of any clock: there floats are an eighth of a second apart, and farther on more."""

SLACK = 64
"""Entries that count no more and may lie in a queue of deadlines beyond as many as there are owners."""


class Clock:
    """The monotonic clock of an endpoint and the wall clock beside it.

    `now` values are seconds on any monotonic clock. One smaller than the last counts as the last, so a host whose
    clock steps back costs lateness and nothing else.

    Attributes:
        now: the latest time that counts.

    Raises:
        ArgumentError: a time is no number, or none that seconds can be added to.
    """

    __slots__ = ("_offset", "now")

    def __init__(self, now: float, unix_time: float) -> None:
        _check_time("now", now)
        self.now = now
        self.set_unix(unix_time, now)

    def advance(self, now: float) -> float:
        """Take in the host's time and give the time that counts.

        Raises:
            ArgumentError: it is no number, or none that seconds can be added to; the clock stands where it stood.
        """
        try:
            if self.now < now <= LATEST:
                self.now = now
            elif not now <= self.now:
                raise _no_time("now", now)
        except TypeError:
            raise _no_time("now", now) from None
        return self.now

    def unix(self, now: float) -> float:
        """The wall clock at `now`, in seconds since 1970."""
        return now + self._offset

    def set_unix(self, unix_time: float, now: float) -> None:
        """Correct the wall clock; nothing that is timed by `now` moves."""
        _check_time("unix_time", unix_time)
        self._offset = float(unix_time - now)  # a host may have clocks of whole numbers


def _check_time(name: str, value: float) -> None:
    try:
        good = -LATEST <= value <= LATEST
    except TypeError:
        good = False
    if not good:
        raise _no_time(name, value)


def _no_time(name: str, value: object) -> ArgumentError:
    return ArgumentError(f"{name} is {value!r}; it must be a number of seconds, {LATEST:g} at most", argument=name)


class DeadlineQueue(Generic[Owner]):
    """Which of many owners wants to be woken next: O(1) to ask, O(log n) to change, amortised.

    Owners are entered again only when their deadline becomes earlier; one that moved later is found when its old
    entry comes up, and entered anew by whoever handles it. Waking early is harmless. Entries that count no more are
    thrown out once they are in the majority, so they keep nothing alive for long.
    """

    __slots__ = ("_armed", "_heap", "_serial")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Owner, str]] = []
        self._armed: dict[Owner, tuple[float, int, Owner, str]] = {}  # of each, the one that counts
        self._serial = 0

    def arm(self, owner: Owner, at: float, reason: str) -> None:
        """Make sure that `owner` is woken at `at` or before; `inf` asks for nothing."""
        armed = self._armed
        before = armed.get(owner)
        if at < (inf if before is None else before[0]):
            self._serial += 1
            entry = armed[owner] = (at, self._serial, owner, reason)
            heappush(self._heap, entry)
            if len(self._heap) > 2 * len(armed) + SLACK:
                self._heap = list(armed.values())
                heapify(self._heap)

    def forget(self, owner: Owner) -> None:
        """Drop an owner; its entries are skipped when they come up."""
        self._armed.pop(owner, None)

    def next(self) -> Deadline | None:
        """The earliest entry that still counts."""
        return None if self.at == inf else Deadline(self._heap[0][0], self._heap[0][3])

    @property
    def at(self) -> float:
        """When that is; `inf` without one."""
        heap = self._heap
        while heap and self._armed.get(heap[0][2]) is not heap[0]:
            heappop(heap)
        return heap[0][0] if heap else inf

    def pop_due(self, now: float) -> Owner | None:
        """Take out one owner whose entry is due; it must be armed again by the caller."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            entry = heappop(heap)
            if self._armed.get(entry[2]) is entry:
                del self._armed[entry[2]]
                return entry[2]
        return None

    def __contains__(self, owner: object) -> bool:
        return owner in self._armed

    def __len__(self) -> int:
        return len(self._armed)
