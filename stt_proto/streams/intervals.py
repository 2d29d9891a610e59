"""Sets of whole numbers that are mostly runs: lost and acknowledged bytes, stream ids that have ended.

An `IntervalSet` is the sorted list of its bounds: `[3, 5, 9, 12]` holds 3, 4, 9, 10 and 11. A number lies inside
when an odd number of bounds is not above it, so every question is one bisection and a look at a parity, and no
change needs a case for each way in which two intervals can touch.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import cast

__all__ = ["IntervalSet"]

_NOTHING = cast(list[int], ())
"""The bounds of all empty sets: there are many, and most stay so. Nothing can change it."""


class IntervalSet:
    """Disjoint half-open intervals `[start, stop)`; those that touch are one.

    Attributes:
        bounds: start and stop of each interval, rising. For reading, and for asking cheaply whether it is empty.
    """

    __slots__ = ("bounds",)

    bounds: list[int]

    def __init__(self) -> None:
        self.clear()

    def add(self, start: int, stop: int) -> None:
        """Put in `start` to `stop - 1`; `start` must be below `stop`."""
        bounds = self.bounds
        if not bounds:
            self.bounds = [start, stop]
            return
        low = bisect_left(bounds, start)
        high = bisect_right(bounds, stop)
        bounds[low:high] = ([] if low & 1 else [start]) + ([] if high & 1 else [stop])

    def remove(self, start: int, stop: int) -> None:
        """Take out `start` to `stop - 1`, wherever they are in; `start` must be below `stop`."""
        bounds = self.bounds
        if not bounds:
            return
        low = bisect_left(bounds, start)
        high = bisect_right(bounds, stop)
        bounds[low:high] = ([start] if low & 1 else []) + ([stop] if high & 1 else [])

    def absorb(self, offset: int) -> int:
        """Forget everything below `offset` and the interval that reaches or holds it.

        Returns:
            The end of that interval, or `offset` when there is none.
        """
        bounds = self.bounds
        if not bounds:
            return offset
        place = bisect_right(bounds, offset)
        if place & 1:
            offset = bounds[place]
            place += 1
        del bounds[:place]
        return offset

    def clear(self) -> None:
        """Take out everything."""
        self.bounds = _NOTHING

    def overlaps(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Give the parts of `[start, stop)` that are in, in order."""
        bounds = self.bounds
        low = bisect_right(bounds, start)
        high = bisect_left(bounds, stop)
        inside = [start] * (low & 1) + list(bounds[low:high]) + [stop] * (high & 1)
        return list(zip(inside[::2], inside[1::2], strict=True))

    @property
    def first_gap(self) -> int:
        """The smallest number from 0 on that is not in."""
        bounds = self.bounds
        return bounds[1] if bounds and bounds[0] == 0 else 0

    def __contains__(self, number: int) -> bool:
        return bisect_right(self.bounds, number) & 1 == 1

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self.bounds[::2], self.bounds[1::2], strict=True)

    def __bool__(self) -> bool:
        return bool(self.bounds)

    def __repr__(self) -> str:
        return f"IntervalSet({list(self)})"
