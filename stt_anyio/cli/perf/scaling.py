"""What a packet costs when there are many streams, or many sessions, beside what it costs when there is one.

The crowd and the loner live in one process and are measured in turn, a slice of packets at a time, so a machine whose
speed changes changes both.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from itertools import cycle, repeat

from stt_anyio.cli.perf.pair import Pair, Reader
from stt_anyio.cli.perf.work import Work
from stt_proto import Stream

PAYLOAD = bytes(1000)
SLICE = 200
"""Packets that are measured in one go."""
REST = 0.03
"""Seconds after which acknowledgements that were put off are due."""


class Crowd:
    """Sessions between two endpoints, each with streams that have carried something and stay open."""

    def __init__(self, work: Work, sessions: int, streams: int) -> None:
        self._pair = Pair(
            work.datagram_size,
            max_concurrent_sessions=sessions,
            max_concurrent_streams=max(256, streams),
            keep_alive_interval=3600.0,  # or what is measured is signs of life
            keep_alive_timeout=7201.0,
        )
        self._reader = Reader(self._pair)
        self._streams = [
            session.open_stream()
            for session in [self._pair.connect()[0] for _ in range(sessions)]
            for _ in range(streams)
        ]
        for stream in self._streams:
            self._send(stream)
        self._rest()

    def one(self) -> Iterator[Stream]:
        """The same stream for every packet."""
        return repeat(self._streams[0])

    def turns(self) -> Iterator[Stream]:
        """Two packets on each stream in turn: as many as one acknowledgement is for, as it is with one stream."""
        return (stream for each in cycle(self._streams) for stream in (each, each))

    def cost(self, streams: Iterator[Stream]) -> float:
        """Microseconds of CPU for a packet with 1,000 bytes, both ends and the acknowledgements together.

        Raises:
            RuntimeError: not all of it arrived, which is a bug.
        """
        before, started = self._reader.received, time.process_time()
        for _ in range(SLICE):
            self._send(next(streams))
        self._rest()
        seconds = time.process_time() - started
        if self._reader.received - before != SLICE * len(PAYLOAD):
            raise RuntimeError("the pair in memory lost something")
        return seconds / SLICE * 1e6

    def _send(self, stream: Stream) -> None:
        stream.write(PAYLOAD, time.monotonic())
        self._carry()

    def _rest(self) -> None:
        time.sleep(REST)
        while self._carry():
            pass

    def _carry(self) -> bool:
        self._pair.tick()
        moved = self._pair.move()
        self._reader.read(len(PAYLOAD), time.monotonic())
        return moved


def scaling(work: Work) -> dict[str, float]:
    """Medians over slices, and of the ratios between slices that were measured one after the other."""
    loner, crowd = Crowd(work, 1, 1), Crowd(work, work.sessions, work.streams)
    alone, busy, turns = loner.one(), crowd.one(), crowd.turns()
    slices = [(loner.cost(alone), crowd.cost(busy), crowd.cost(turns)) for _ in range(max(1, work.count // SLICE))]
    return {
        "us_per_packet_alone": statistics.median(one for one, _, _ in slices),
        "us_per_packet": statistics.median(many for _, many, _ in slices),
        "us_per_packet_turns": statistics.median(many for _, _, many in slices),
        "times_alone": statistics.median(many / one for one, many, _ in slices),
        "times_alone_turns": statistics.median(many / one for one, _, many in slices),
    }
