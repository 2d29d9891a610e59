"""Runs: datagrams of one size for one path, gathered so that they leave by one system call.

The core makes a packet at a time. Where a packet is one datagram (on slow, lossy or long ways, and for small messages)
one call for each is most of the cost. With segmentation offload a run costs little more than a single one, if all
datagrams but the last have one size. So what a pump takes from the core is put together here, and sent at its end:
nothing waits longer than that, and what is for one path stays in order.
"""

from __future__ import annotations

from collections import deque

from stt_proto.types import NetworkPath, Transmit

MAX_RUN = 65_507
"""Bytes that one call may take."""
MAX_SEGMENTS = 64
"""Datagrams that one call may take (Linux: UDP_MAX_SEGMENTS)."""
MAX_SIZE = MAX_RUN // 2
"""Bytes of the largest datagram of which two fit into a run."""


class _Run:
    """What has been gathered for one path; all of it as large as the first."""

    __slots__ = ("bytes", "first", "rest", "size")

    def __init__(self, first: Transmit, size: int) -> None:
        self.first = first
        self.size = self.bytes = size
        self.rest: list[Transmit] = []

    def takes(self, transmit: Transmit, size: int) -> bool:
        """Whether this one may come behind the others."""
        return (
            size <= self.size
            and transmit.ecn == self.first.ecn
            and self.bytes + size <= MAX_RUN
            and len(self.rest) < MAX_SEGMENTS - 1
        )

    def joined(self) -> Transmit:
        """One transmit of all."""
        first, rest = self.first, self.rest
        if not rest:
            return first
        buffers = [*first.buffers]
        for transmit in rest:
            buffers += transmit.buffers
        return Transmit(first.path, tuple(buffers), self.size, first.ecn)


class Runs:
    """What was taken from the core and not handed on yet."""

    __slots__ = ("_complete", "_open")

    def __init__(self) -> None:
        self._open: dict[NetworkPath, _Run] = {}
        self._complete: deque[Transmit] = deque()

    def __bool__(self) -> bool:
        return bool(self._open or self._complete)

    def put(self, transmit: Transmit) -> None:
        """Take what is to be sent; it goes behind everything that was put in for its path before."""
        path = transmit.path
        run = self._open.get(path)
        if transmit.segment_size is not None or (size := transmit.size) > MAX_SIZE:
            if run is not None:
                self._close(path)
            self._complete.append(transmit)
        elif run is not None and run.takes(transmit, size):
            run.rest.append(transmit)
            run.bytes += size
            if size < run.size:
                self._close(path)
        else:
            if run is not None:
                self._close(path)
            self._open[path] = _Run(transmit, size)

    def finish(self) -> None:
        """There is nothing more to gather for now: all runs are complete as they are."""
        for path in tuple(self._open):
            self._close(path)

    def take(self) -> Transmit | None:
        """Give the oldest run that is complete, and `None` when there is none."""
        return self._complete.popleft() if self._complete else None

    def forget(self, path: NetworkPath) -> None:
        """Nothing can be sent on this path any more."""
        self._open.pop(path, None)
        if self._complete:
            self._complete = deque(transmit for transmit in self._complete if transmit.path != path)

    def _close(self, path: NetworkPath) -> None:
        self._complete.append(self._open.pop(path).joined())
