"""Where each microsecond goes: `python -m tests.bench.profile`.

Two nodes in one process talk over UDP on loopback, under asyncio, so what is shown is the work of both ends: their
core, their host, the event loop and the system. A unit of work is first timed as it is, by the processor's time, so
that it does not matter what else the machine does. Then it runs under `cProfile`, which tells where the time went.
Calls into C that are there whatever the protocol does (the cipher, the system, copies) are taken as measured, the best
of a few rounds: they are the floor. A profiler makes calls of Python dearer than they are, so of the rest only the
shares are taken, and they share what the unit took without it.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import CodeType
from typing import Any

import anyio
from attrs import frozen

from stt_anyio import Session, Stream, STTNode
from stt_anyio.cli.perf.work import HOST
from stt_anyio.cli.perf.yardstick import MESSAGE

DATAGRAM = 1452
BULK = 8 << 20
"""Bytes in a round of bulk."""
PROFILES = 5
"""Rounds under the profiler at most; of each line the shortest counts, for what else runs only makes it longer."""
SINGLE = bytes(1400)
"""What fills a datagram, but for headers."""

AEAD, SYSTEM, COPY = "AEAD and header masks", "system calls", "copies"
FLOOR = (AEAD, SYSTEM, COPY)
ROOMS = (
    ("stt_proto/wire", "headers and frames"),
    ("stt_proto/packet", "packets and trains"),
    ("stt_proto/crypto", "packets and trains"),
    ("stt_proto/recovery", "recovery"),
    ("stt_proto/paths", "recovery"),
    ("stt_proto/streams", "streams"),
    ("stt_proto", "session and endpoint"),
    ("stt_anyio", "host"),
)
"""Where a file belongs; the first that fits."""
LOOP = "event loop and others"
LINES = (*FLOOR, *dict.fromkeys(name for _, name in ROOMS), LOOP)
_IN_C = (
    (AEAD, ("'encrypt' of", "'decrypt' of", "CipherContext")),
    (SYSTEM, ("sendmsg", "recvmsg", "'poll' of", "recvfrom", "getpid")),
    (COPY, ("'join' of 'bytes'", "'unpack_from' of", "'unpack' of")),
)


@frozen
class Unit:
    """Something whose cost is shown.

    Attributes:
        title: as people call it.
        work: a round of it; with the number of units to do, or of bytes.
    """

    title: str
    work: Callable[[Session, Session, int], Awaitable[int]]
    amount: int


def room_of(code: CodeType | str) -> str | None:
    """The line of the table that a function belongs to; `None` for one in C, which belongs to its caller."""
    if isinstance(code, str):
        return next((line for line, words in _IN_C if any(word in code for word in words)), None)
    file = code.co_filename.replace(os.sep, "/")
    return next((line for part, line in ROOMS if f"/{part}" in file), LOOP)


def add_up(entries: Iterable[Any]) -> dict[str, float]:
    """Seconds by line, out of what `cProfile` has in its entries."""
    lines = dict.fromkeys(LINES, 0.0)
    for entry in entries:
        room = room_of(entry.code)
        if isinstance(entry.code, str):
            continue
        assert room is not None
        lines[room] += entry.inlinetime
        for called in entry.calls or ():
            if isinstance(called.code, str):
                lines[room_of(called.code) or room] += called.inlinetime
    return lines


def split(whole: float, profiled: Mapping[str, float]) -> dict[str, float]:
    """What a unit took, by line: the floor as measured, and of what is left to the others their shares."""
    floor = {line: profiled[line] for line in FLOOR}
    left = max(0.0, whole - sum(floor.values()))
    others = {line: seconds for line, seconds in profiled.items() if line not in FLOOR}
    total = sum(others.values()) or 1.0
    return {**floor, **{line: left * seconds / total for line, seconds in others.items()}}


# -- the units -----------------------------------------------------------------------------------------------------


async def _bulk(near: Session, far: Session, amount: int) -> int:
    """Bytes up one stream, in trains as long as they may be; gives the number of packets."""
    before = near.get_stats().packets_sent
    data = bytes(1 << 18)
    async with anyio.create_task_group() as tasks:
        stream = near.open_stream(bidirectional=False)

        async def send() -> None:
            for _ in range(amount // len(data)):
                await stream.send(data)
            await stream.aclose()

        tasks.start_soon(send)
        async for _ in await far.accept_stream():
            pass
    return near.get_stats().packets_sent - before


async def _one_way(near: Session, far: Session, amount: int) -> int:
    """Packets of one datagram, one after the other; each is read before the next one leaves."""
    stream = near.open_stream(bidirectional=False)
    await stream.send(SINGLE)
    peer = await far.accept_stream()
    await _read(peer, len(SINGLE))
    for _ in range(amount - 1):
        await stream.send(SINGLE)
        await _read(peer, len(SINGLE))
    await stream.aclose()
    return amount


async def _read(stream: Stream, missing: int) -> None:
    while missing:
        missing -= len(await stream.receive(missing))


async def _echo(near: Session, far: Session, amount: int) -> int:
    """Round trips of 100 bytes."""

    async def answer() -> None:
        async with await far.accept_stream() as peer:
            async for message in peer:
                await peer.send(message)

    stream = near.open_stream()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer)
        for _ in range(amount):
            await stream.send(MESSAGE)
            await _read(stream, len(MESSAGE))
        await stream.send_eof()
    return amount


UNITS = (
    Unit(f"a packet of 64 KiB (44 datagrams of {DATAGRAM} B)", _bulk, BULK),
    Unit(f"a packet of {DATAGRAM} B", _one_way, 1000),
    Unit("an echo of 100 B, there and back", _echo, 1000),
)


async def measure(unit: Unit, rounds: int, amount: int) -> dict[str, float]:
    """Seconds that one unit takes at both ends, by line."""
    seed = os.urandom(32)
    node = {"shared_seed": seed, "host": HOST, "port": 0, "datagram_size": DATAGRAM}
    async with STTNode(server_mode=True, **node) as listener, STTNode(**node) as dialler:
        near = await dialler.connect((HOST, listener.port))
        far = await listener.accept()
        await unit.work(near, far, amount)  # warms up, and finds out what the path can do
        times = []
        for _ in range(rounds):
            started = time.process_time()
            units = await unit.work(near, far, amount)
            times.append((time.process_time() - started) / units)
        profiles = [await _profile(unit, near, far, amount) for _ in range(min(rounds, PROFILES))]
    return split(statistics.median(times), {line: min(profile[line] for profile in profiles) for line in LINES})


async def _profile(unit: Unit, near: Session, far: Session, amount: int) -> dict[str, float]:
    profiler = cProfile.Profile()
    profiler.enable()
    units = await unit.work(near, far, amount)
    profiler.disable()
    return {line: seconds / units for line, seconds in add_up(profiler.getstats()).items()}


# -- the table -----------------------------------------------------------------------------------------------------


def table(results: Mapping[str, Mapping[str, float]]) -> str:
    """A table for people, and for docs/performance.md: microseconds, and shares of the whole."""
    rows = [["us, both ends together", *results], ["---", *("---:" for _ in results)]]
    wholes = {title: sum(lines.values()) for title, lines in results.items()}
    for line in LINES:
        cells = [f"{lines[line] * 1e6:.1f} ({lines[line] / wholes[title]:.0%})" for title, lines in results.items()]
        rows.append([line, *cells])
    rows.append(["**all**", *(f"**{whole * 1e6:.1f}**" for whole in wholes.values())])
    floors = [sum(lines[line] for line in FLOOR) for lines in results.values()]
    rows.append(["floor: the first three", *(f"{floor * 1e6:.1f}" for floor in floors)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(words: Sequence[str] | None = None) -> int:
    """What to exit with."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.profile", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="how often each unit is timed: 7; the median counts")
    parser.add_argument("--quick", action="store_true", help="little work: shows that it runs, and measures nothing")
    chosen = parser.parse_args(words)
    if chosen.rounds < 1:
        parser.error("--rounds must be at least 1")
    results = {}
    for unit in UNITS:
        amount = max(1, unit.amount // 16) if chosen.quick else unit.amount
        results[unit.title] = anyio.run(measure, unit, 1 if chosen.quick else chosen.rounds, amount)
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
