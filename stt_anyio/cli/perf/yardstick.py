"""How things are measured: clocks, percentiles, and what both ends must agree on before a figure counts.

Nothing but the standard library is needed here: `tests/bench` loads this file to measure others in just the same way,
in environments without STT.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

CHUNK = 1 << 18
"""Bytes that bulk hands over at once."""
MESSAGE = bytes(100)
DATAGRAM_BYTES = 1000
COUNT_BYTES = 8
"""Bytes of a number in an answer."""


class Watch:
    """Seconds on the wall, and of this process's processor, since it was made."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self._started, self._cpu = time.perf_counter(), time.process_time()

    def seconds(self) -> float:
        return time.perf_counter() - self._started

    def cpu(self) -> float:
        return time.process_time() - self._cpu


def bulk_figures(total: int, watch: Watch) -> dict[str, float]:
    """Of `total` bytes, at the moment when whoever got them has confirmed it. Megabytes are of 1,000,000 bytes."""
    return {"mb_per_s": total / watch.seconds() / 1e6, "cpu_s_near": watch.cpu()}


def message_figures(count: int, watch: Watch) -> dict[str, float]:
    """Of messages of 100 bytes, at the moment when whoever got them has confirmed it."""
    return {"messages_per_s": count / watch.seconds(), "cpu_s_near": watch.cpu()}


def echo_figures(seconds: Sequence[float], watch: Watch) -> dict[str, float]:
    """Of round trips; the 99th percentile is the smallest that is no less than 99 % of them."""
    ordered = sorted(seconds)
    p99 = ordered[-(-99 * len(ordered) // 100) - 1]
    return {
        "echo_p50_us": statistics.median(ordered) * 1e6,
        "echo_p99_us": p99 * 1e6,
        "cpu_s_near": watch.cpu(),
    }


def idle_figures(alive: int, sessions: int, watch: Watch) -> dict[str, float]:
    """Of sessions that did nothing; 100 % is one core.

    Raises:
        RuntimeError: not all of them are still there.
    """
    if alive != sessions:
        raise RuntimeError(f"of {sessions} idle sessions {sessions - alive} ended")
    return {"idle_cpu_percent": watch.cpu() / watch.seconds() * 100, "cpu_s_near": watch.cpu()}


def check_count(counted: int, sent: int) -> None:
    """That the other end got what was sent.

    Raises:
        RuntimeError: it did not.
    """
    if counted != sent:
        raise RuntimeError(f"the far end counted {counted} bytes of {sent}")


class Answer:
    """What comes back on a stream: `expected` bytes of payload, and then the count of what the other end got."""

    def __init__(self, expected: int) -> None:
        self._size = expected + COUNT_BYTES
        self._received = 0
        self._tail = b""

    def take(self, piece: bytes) -> None:
        self._received += len(piece)
        self._tail = piece[-COUNT_BYTES:] if len(piece) >= COUNT_BYTES else (self._tail + piece)[-COUNT_BYTES:]

    def check(self, sent: int) -> None:
        """That all came, both ways.

        Raises:
            RuntimeError: it did not.
        """
        if self._received != self._size:
            raise RuntimeError(f"{self._received} bytes came back of {self._size}")
        check_count(int.from_bytes(self._tail, "big"), sent)


def resident() -> int:
    """Bytes of memory that this process has in use, as the system counts them.

    Raises:
        RuntimeError: this system does not tell.
    """
    try:
        statm = Path("/proc/self/statm")
        if statm.exists():
            return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        told = subprocess.run(["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, check=True)
        return int(told.stdout) * 1024
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise RuntimeError(f"this system does not tell how much memory is in use: {error}") from error


# -- unreliable datagrams ------------------------------------------------------------------------------------------


class Flight:
    """Numbered datagrams on their way, never more than `WINDOW` of them beyond what was reported.

    The other end (`Tally`) reports the highest number that it saw, and at the end how many arrived. What is lost is
    not sent again, and does not count.

    Attributes:
        arrived: how many did, once the other end has told.
    """

    WINDOW = 128
    PATIENCE = 0.1
    """Seconds without a word after which it goes on, as if all that is on its way had arrived or been lost."""

    def __init__(self, count: int) -> None:
        self.arrived: int | None = None
        self._count = count
        self._sent = self._reported = 0
        self._asked = False
        self._padding = bytes(DATAGRAM_BYTES - COUNT_BYTES)

    def next(self) -> bytes | None:
        """What to send now: a datagram if the window has room, and after the last one the question."""
        if self._sent == self._count:
            asked, self._asked = self._asked, True
            return None if asked else Tally.QUESTION
        if self._sent - self._reported >= self.WINDOW:
            return None
        self._sent += 1
        return (self._sent - 1).to_bytes(COUNT_BYTES, "big") + self._padding

    def take(self, report: bytes | None) -> None:
        """What came from the other end; `None` when nothing did for `PATIENCE`."""
        if report is None:
            self._reported, self._asked = self._sent, False
        elif report.startswith(Tally.ANSWER):
            self.arrived = int.from_bytes(report[len(Tally.ANSWER) :], "big")
        else:
            self._reported = max(self._reported, int.from_bytes(report, "big") + 1)

    def figures(self, watch: Watch) -> dict[str, float]:
        """Of those that arrived, when `arrived` is known."""
        arrived = self.arrived or 0
        return {
            "datagrams_per_s": arrived / watch.seconds(),
            "datagrams_lost_percent": (self._count - arrived) / self._count * 100,
            "cpu_s_near": watch.cpu(),
        }


class Tally:
    """Counts the datagrams of a `Flight`."""

    EVERY = 32
    QUESTION = b"how many?"
    ANSWER = b"so many: "

    def __init__(self) -> None:
        self._arrived = self._highest = 0

    def take(self, data: bytes) -> bytes | None:
        """Count one; what to send back, if anything."""
        if data == self.QUESTION:
            return self.ANSWER + self._arrived.to_bytes(COUNT_BYTES, "big")
        self._arrived += 1
        self._highest = max(self._highest, int.from_bytes(data[:COUNT_BYTES], "big"))
        return None if self._arrived % self.EVERY else self._highest.to_bytes(COUNT_BYTES, "big")
