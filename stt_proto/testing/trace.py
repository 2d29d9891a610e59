"""Recorded links: when each could have carried a datagram."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from itertools import pairwise
from math import floor

from attrs import field, frozen

from stt_proto.errors import ArgumentError
from stt_proto.testing.checks import check_seconds, check_type

OPPORTUNITY = 1500
"""Bytes that one opportunity carries, of one datagram or of several."""
PRINTED = 1000
"""Opportunities up to which a trace prints as what makes it again."""


def _times(given: Iterable[float]) -> tuple[float, ...]:
    check_type("times", given, Iterable)
    times = tuple(given)
    for time in times:
        check_seconds("times", time)
    if not times or times[-1] <= 0.0:
        raise ArgumentError("times is empty or ends at 0; a recording must last", argument="times")
    if any(one > other for one, other in pairwise(times)):
        raise ArgumentError("times must not fall", argument="times")
    return times


@frozen(repr=False)
class LinkTrace:
    """A recorded link, in the terms of mahimahi's `mm-link`: the moments at which 1,500 bytes can be delivered.

    What an opportunity finds waiting goes; what it does not find is wasted. The recording begins with the world, and
    over again when it is over, at its last moment.

    Attributes:
        times: seconds from the beginning, not falling.

    Raises:
        ArgumentError: the recording lasts no time, goes backwards, or has in it what is no time.
    """

    times: tuple[float, ...] = field(converter=_times)

    @classmethod
    def parse(cls, text: str) -> LinkTrace:
        """Read a recording: a whole number of milliseconds a line; one line for each opportunity.

        Raises:
            ArgumentError: a line, which is named, is no such number or smaller than the one before it.
        """
        check_type("text", text, str)
        times: list[float] = []
        for number, line in enumerate(text.splitlines(), 1):
            word = line.strip()
            if not (word.isascii() and word.isdigit()):
                raise ArgumentError(f"line {number} is {line!r}; it must be whole milliseconds", argument="text")
            time = int(word) / 1000
            if times and time < times[-1]:
                raise ArgumentError(f"line {number} is {line!r}; it lies before the line above", argument="text")
            times.append(time)
        return cls(tuple(times))

    @property
    def period(self) -> float:
        """Seconds until it begins again."""
        return self.times[-1]

    @property
    def rate(self) -> float:
        """Bits a second, on average."""
        return len(self.times) * OPPORTUNITY * 8 / self.period

    def time_of(self, opportunity: int) -> float:
        """When an opportunity comes, counted from 0 and on through the repetitions."""
        turn, index = divmod(opportunity, len(self.times))
        return turn * self.period + self.times[index]

    def first_after(self, now: float) -> int:
        """The first opportunity that is still to come."""
        turn = floor(now / self.period)
        opportunity = turn * len(self.times) + bisect_right(self.times, now - turn * self.period)
        while self.time_of(opportunity) <= now:  # by a rounding error
            opportunity += 1
        return opportunity

    def __repr__(self) -> str:
        if len(self.times) <= PRINTED:
            return f"LinkTrace({self.times})"
        return f"<LinkTrace of {len(self.times)} opportunities in {self.period:g} s>"
