"""Time inside the core: a clock that never runs backwards, timers by name, and the queue of deadlines."""

from __future__ import annotations

from enum import IntEnum
from heapq import heappop, heappush
from math import inf
from typing import Generic, TypeVar

from stt_proto.types import Deadline

Owner = TypeVar("Owner")


class Timer(IntEnum):
    """Every timer that a session can have (docs/protocol.md, "Timers")."""

    HANDSHAKE = 0
    RETRANSMIT = 1
    LOSS = 2
    ACK = 3
    PACING = 4
    KEEP_ALIVE = 5
    IDLE = 6
    CLOSE = 7
    PATH = 8


class Clock:
    """The monotonic clock of an endpoint and the wall clock beside it.

    `now` values are seconds on any monotonic clock. One smaller than the last counts as the last, so a host whose
    clock steps back costs lateness and nothing else.
    """

    __slots__ = ("_offset", "now")

    def __init__(self, now: float, unix_time: float) -> None:
        self.now = now
        self._offset = unix_time - now

    def advance(self, now: float) -> float:
        """Take in the host's time and give the time that counts."""
        if now > self.now:
            self.now = now
        return self.now

    def unix(self, now: float) -> float:
        """The wall clock at `now`, in seconds since 1970."""
        return now + self._offset

    def set_unix(self, unix_time: float, now: float) -> None:
        """Correct the wall clock; nothing that is timed by `now` moves."""
        self._offset = unix_time - now


class Timers:
    """One deadline per `Timer`, `inf` where it is not armed."""

    __slots__ = ("_at",)

    def __init__(self) -> None:
        self._at = [inf] * len(Timer)

    def __getitem__(self, timer: Timer) -> float:
        return self._at[timer]

    def set(self, timer: Timer, at: float) -> None:
        """Arm or move a timer; `inf` disarms."""
        self._at[timer] = at

    def clear(self, timer: Timer) -> None:
        """Disarm a timer."""
        self._at[timer] = inf

    def clear_all(self) -> None:
        """Disarm every timer."""
        self._at = [inf] * len(Timer)

    def next_at(self) -> float:
        """The earliest deadline, or `inf`."""
        return min(self._at)

    def next(self) -> Deadline | None:
        """The earliest deadline with its name."""
        at = min(self._at)
        return None if at == inf else Deadline(at, Timer(self._at.index(at)).name.lower())

    def expired(self, now: float) -> list[Timer]:
        """Disarm and give the timers that are due, in the order of `Timer`."""
        due = [timer for timer in Timer if self._at[timer] <= now]
        for timer in due:
            self._at[timer] = inf
        return due


class DeadlineQueue(Generic[Owner]):
    """Which of many owners wants to be woken next: O(1) to ask, O(log n) to change.

    Owners are entered again only when their deadline becomes earlier; one that moved later is found when its old
    entry comes up, and entered anew by whoever handles it. Waking early is harmless.
    """

    __slots__ = ("_armed", "_heap", "_serial")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Owner, str]] = []
        self._armed: dict[Owner, float] = {}
        self._serial = 0

    def arm(self, owner: Owner, at: float, reason: str) -> None:
        """Make sure that `owner` is woken at `at` or before."""
        if at < self._armed.get(owner, inf):
            self._armed[owner] = at
            self._serial += 1
            heappush(self._heap, (at, self._serial, owner, reason))

    def forget(self, owner: Owner) -> None:
        """Drop an owner; its entry is skipped when it comes up."""
        self._armed.pop(owner, None)

    def next(self) -> Deadline | None:
        """The earliest entry that still counts."""
        heap = self._heap
        while heap and self._armed.get(heap[0][2], inf) != heap[0][0]:
            heappop(heap)
        return Deadline(heap[0][0], heap[0][3]) if heap else None

    def pop_due(self, now: float) -> Owner | None:
        """Take out one owner whose entry is due; it must be armed again by the caller."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            at, _, owner, _ = heappop(heap)
            if self._armed.get(owner, inf) == at:
                del self._armed[owner]
                return owner
        return None

    def __len__(self) -> int:
        return len(self._armed)
