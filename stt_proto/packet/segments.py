"""The segments of trains: cutting a packet, reading a run of datagrams (docs/protocol.md, P-1 and P-4).

Where the system segments and coalesces (UDP_SEGMENT, UDP_GRO) a whole train leaves and arrives in one buffer. It is cut
and read by a few calls that run in C, with next to no work in Python for each segment: a `struct.Struct` that repeats
one layout takes all segments apart at once (45 of 1,452 bytes: 3 us; a loop over slices takes 7).
"""

from __future__ import annotations

from functools import lru_cache
from itertools import takewhile
from operator import eq
from struct import Struct

from stt_proto.errors import ArgumentError
from stt_proto.types import Buffer
from stt_proto.wire.header import TRAIN_HEADER

__all__ = ["PREFIX", "bytes_view", "cut_train", "read_run", "segment_layout"]

PREFIX = Struct(">13sBB")
"""What all segments of a train have in common, masked as it is; the segment index; the last index."""


@lru_cache(maxsize=64)
def _row_layout(count: int, size: int) -> Struct:
    """So many pieces of one size, one after the other."""
    return Struct(f"{size}s" * count)


@lru_cache(maxsize=64)
def _run_layout(count: int, size: int) -> Struct:
    """So many segments of one size: header and piece of each."""
    return Struct(f"{TRAIN_HEADER}s{size - TRAIN_HEADER}s" * count)


@lru_cache(maxsize=64)
def segment_layout(size: int) -> Struct:
    """One segment: prefix, index, last index, piece."""
    return Struct(f">13sBB{size - TRAIN_HEADER}s")


@lru_cache(maxsize=64)
def _header_ends(last: int, start: int, stop: int) -> tuple[bytes, ...]:
    """Segment index and last index of some segments of a train, and nothing before the first: put the prefix between
    these, and there are their headers in a row."""
    return (b"", *(bytes((index, last)) for index in range(start, stop)))


def bytes_view(data: Buffer) -> memoryview:
    """A view of the single bytes of a buffer that holds datagrams.

    Raises:
        ArgumentError: it is no buffer, or one with holes.
    """
    try:
        view = memoryview(data)
        return view if view.format == "B" and view.ndim == 1 and view.contiguous else view.cast("B")
    except TypeError:
        kind = type(data).__name__
        raise ArgumentError(f"data is {kind}; it must be bytes-like and contiguous", argument="data") from None


def cut_train(prefix: bytes, sealed: bytes, room: int, segments: int) -> tuple[bytes, ...]:
    """Cut a packet into segments.

    Args:
        prefix: the masked header, 13 bytes.
        sealed: the ciphertext.
        room: bytes of it in each segment but the last.
        segments: how many there will be, 2 to 64.

    Returns:
        The header and the piece of each segment, in order.
    """
    last = segments - 1
    headers = prefix.join(_header_ends(last, 0, segments))
    buffers = [b""] * (2 * segments)
    buffers[::2] = _row_layout(segments, TRAIN_HEADER).unpack(headers)
    buffers[1:-1:2] = _row_layout(last, room).unpack_from(sealed)
    buffers[-1] = sealed[last * room :]
    return tuple(buffers)


def read_run(view: memoryview, start: int, end: int, size: int) -> tuple[bytes, int, int, tuple[bytes, ...], int]:
    """Read the segments of one train that lie one after the other, in order.

    Args:
        view: where the datagrams lie.
        start: the first segment.
        end: where the run of datagrams ends, at least `size` behind `start`.
        size: bytes of each datagram but perhaps the last of the run, at least 16.

    Returns:
        What the segments have in common, the index of the first, the last index of the train, their pieces, at least
        one and all of one length but perhaps that of the last index, and where they end.
    """
    prefix, index, last = PREFIX.unpack_from(view, start)
    count = (end - start) // size
    if index + count > last:
        count = last + 1 - index if index < last else 1
    fields = _run_layout(count, size).unpack_from(view, start)
    headers, pieces = fields[::2], fields[1::2]
    ends = _header_ends(last, index, index + count)
    if b"".join(headers) != prefix.join(ends):
        expected = (prefix + end for end in ends[1:])
        count = sum(takewhile(bool, map(eq, headers, expected)))
        pieces = pieces[:count]
    stop = start + count * size
    if index + count == last and stop + TRAIN_HEADER < end and PREFIX.unpack_from(view, stop) == (prefix, last, last):
        # Had it the length of the others it would be among them, so it is the end of the run.
        return prefix, index, last, (*pieces, bytes(view[stop + TRAIN_HEADER : end])), end
    return prefix, index, last, pieces, stop
