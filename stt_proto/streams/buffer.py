"""What a sending half keeps until it is acknowledged: chunks, as the application gave them.

Large `bytes` are kept and cut as views, so bulk data is never copied here. New data is cut where a cursor stands, with
no search; data to be sent again is found by bisection over the offsets of the chunks. Small writes are joined while
they wait, so that a byte at a time does not cost an object each, neither here nor in the packet.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TypeAlias

from stt_proto.errors import ArgumentError
from stt_proto.types import Buffer

__all__ = ["Out", "SendBuffer", "bytes_of"]

Out: TypeAlias = list[bytes | memoryview]
"""The plaintext of a packet, in pieces that are not changed afterwards."""

VIEWED = 4096
"""Bytes from which a chunk is cut as views; below, a view costs more than a copy."""
SMALL = 512
"""Writes below this size are joined to an unsent chunk before them, up to `VIEWED` bytes."""
COMPACT = 64
"""Chunks that are over before their places are given back."""


class SendBuffer:
    """Bytes from the first that is not acknowledged to the last that was accepted, by offset.

    Attributes:
        end: offset behind the last byte.
    """

    __slots__ = ("_chunks", "_cursor", "_first", "_starts", "end")

    def __init__(self) -> None:
        self.end = 0
        self._chunks: list[bytes | bytearray | memoryview] = []
        self._starts: list[int] = []  # the offset of each chunk
        self._first = 0  # index of the first chunk that is not acknowledged
        self._cursor = 0  # index of the chunk that is cut next

    def append(self, data: bytes | memoryview, sent: int, *, kept: bool) -> None:
        """Put `data` at the end.

        Args:
            data: not empty.
            sent: offset below which everything was cut.
            kept: whether `data`, or what it is a view of, never changes.
        """
        chunks, starts = self._chunks, self._starts
        size = len(data)
        start = self.end
        self.end = start + size
        if size < SMALL and starts and starts[-1] >= sent and len(chunks[-1]) + size <= VIEWED:
            last = chunks[-1]
            if not isinstance(last, bytearray):
                chunks[-1] = last = bytearray(last)
            last += data
            return
        if not kept or (size < VIEWED and data.__class__ is memoryview):
            data = bytes(data)
        chunks.append(memoryview(data) if size >= VIEWED else data)
        starts.append(start)

    def cut(self, out: Out, start: int, size: int) -> None:
        """Append new bytes to `out`: `size` from `start` on, where the last cut ended."""
        index = self._cursor
        chunk = self._chunks[index]
        begin = start - self._starts[index]
        if chunk.__class__ is memoryview and begin + size < len(chunk):
            out.append(chunk[begin : begin + size])
        else:
            self._cursor = self._gather(out, index, begin, size)

    def cut_again(self, out: Out, start: int, size: int) -> None:
        """Append bytes to `out` that were cut before, and not freed."""
        index = bisect_right(self._starts, start, self._first) - 1
        self._gather(out, index, start - self._starts[index], size)

    def _gather(self, out: Out, index: int, begin: int, size: int) -> int:
        """Append bytes from place `begin` of chunk `index` on; give the chunk in which the next byte lies."""
        chunks = self._chunks
        while True:
            chunk = chunks[index]
            if isinstance(chunk, bytearray):  # it was being filled; only what never changes goes out
                chunks[index] = chunk = bytes(chunk)
            rest = len(chunk) - begin
            if size < rest:
                out.append(chunk[begin : begin + size])
                return index
            out.append(chunk[begin:] if begin else chunk)
            index += 1
            size -= rest
            if not size:
                return index
            begin = 0

    def free(self, acked: int) -> None:
        """Let go of the chunks that lie below `acked` from end to end."""
        if acked == self.end:
            self.clear()
            return
        chunks, starts, first = self._chunks, self._starts, self._first
        while first + 1 < len(starts) and starts[first + 1] <= acked:
            chunks[first] = b""
            first += 1
        if first >= COMPACT and first * 2 >= len(starts):
            del chunks[:first], starts[:first]
            self._cursor -= first
            first = 0
        self._first = first
        if self._cursor < first:  # what lies between was never cut, and is not wanted any more
            self._cursor = first

    def clear(self) -> None:
        """Let go of everything."""
        self._chunks.clear()
        self._starts.clear()
        self._first = self._cursor = 0


def bytes_of(data: Buffer) -> memoryview:
    """A view of single bytes on any bytes-like object."""
    try:
        view = memoryview(data)
    except TypeError:
        raise ArgumentError(f"data is {type(data).__name__}; it must be bytes-like", argument="data") from None
    if view.format == "B" and view.ndim == 1 and view.contiguous:
        return view
    return memoryview(view.tobytes())
