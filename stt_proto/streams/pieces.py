"""Bytes of a stream that arrived ahead of a gap (docs/protocol.md, S-8).

Runs that do not touch are counted and bounded by the caller; within a run, small pieces are joined, so that what a
received byte costs in memory stays bounded too. [A peer that sends a stream byte by byte, backwards, would otherwise
make this side keep an object for each.] Large pieces are kept as they came.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TypeAlias

__all__ = ["Chunks", "Pieces", "append_chunk", "extend_chunks"]

Chunks: TypeAlias = list[bytes | bytearray | memoryview]
"""Bytes in order, in pieces. A `bytearray` belongs to the list and has no view on it."""

SMALL = 512
"""Pieces below this size are copied into what precedes them."""
JOINED = 8192
"""Bytes at which a joined piece is full."""


def append_chunk(chunks: Chunks, data: bytes | bytearray | memoryview) -> None:
    """Put `data` behind `chunks`: joined to the last when both are small, else as it is."""
    if len(data) < SMALL and chunks:
        last = chunks[-1]
        if len(last) < (JOINED if isinstance(last, bytearray) else SMALL):
            if not isinstance(last, bytearray):
                chunks[-1] = last = bytearray(last)
            last += data
            return
    chunks.append(data)


def extend_chunks(chunks: Chunks, more: Chunks) -> None:
    """Put all of `more` behind `chunks`, joining where the two meet; `more` must not be used again."""
    if chunks:
        append_chunk(chunks, more[0])
        chunks += more[1:]
    else:
        chunks += more


class Pieces:
    """Runs of bytes with gaps between them, by offset."""

    __slots__ = ("_runs", "_starts", "_stops")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        self._runs: list[Chunks] = []

    def __len__(self) -> int:
        return len(self._starts)

    @property
    def start(self) -> int:
        """The offset of the first run; there must be one."""
        return self._starts[0]

    def add(self, start: int, data: bytes | memoryview) -> None:
        """Keep what of `data`, which begins at `start` and is not empty, is not here yet."""
        starts, stops, runs = self._starts, self._stops, self._runs
        offset, stop = start, start + len(data)
        place = bisect_right(starts, offset) - 1
        if place >= 0 and stops[place] >= offset:
            offset = stops[place]
            if offset >= stop:
                return
        else:
            place += 1
            starts.insert(place, offset)
            stops.insert(place, offset)
            runs.insert(place, [])
        run = runs[place]
        after = place + 1
        while after < len(starts) and starts[after] <= stop:
            append_chunk(run, _cut(data, offset - start, starts[after] - start))
            extend_chunks(run, runs[after])
            offset = stops[after]
            after += 1
        if offset < stop:
            append_chunk(run, _cut(data, offset - start, stop - start))
            offset = stop
        stops[place] = offset
        if after > place + 1:
            del starts[place + 1 : after], stops[place + 1 : after], runs[place + 1 : after]

    def pop(self) -> tuple[int, Chunks]:
        """Take out the first run; give the offset behind it and its bytes."""
        del self._starts[0]
        return self._stops.pop(0), self._runs.pop(0)


def _cut(data: bytes | memoryview, low: int, high: int) -> bytes | memoryview:
    """A part of a piece; copied unless it is the whole, so that it does not keep alive what it was cut from."""
    return data if high - low == len(data) else bytes(data[low:high])
