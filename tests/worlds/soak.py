"""New random worlds until the time is up: `python -m tests.worlds.soak --seconds 600`.

A failing world prints the one line that replays it, and the soak goes on. `--shrink SEED` leaves out as many steps of
a failing world as it can do without; `--seed SEED --without 3,5-9` runs what is left, and `--show` all that was on the
wire.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count
from multiprocessing import get_context

from attrs import asdict, define, field

from stt_proto.testing import Traffic, Transcript
from tests.worlds.recipe import APPLICATIONS, draw
from tests.worlds.runner import RandomWorld, failure_of, run, shrink

PROGRAM = "python -m tests.worlds.soak"


@define
class Tally:
    """What was run, all told.

    Attributes:
        worlds: how many.
        failures: by seed, in one line.
        datagrams, seconds, sessions, streams, bytes: as in `Report`.
        actions, lives: as in `Report`.
        faults: of links, by kind.
    """

    worlds: int = 0
    failures: dict[int, str] = field(factory=dict)
    datagrams: int = 0
    seconds: float = 0.0
    sessions: int = 0
    streams: int = 0
    bytes: int = 0
    actions: Counter[str] = field(factory=Counter)
    lives: Counter[str] = field(factory=Counter)
    faults: Counter[str] = field(factory=Counter)

    def add(self, other: Tally) -> None:
        """Count in what was run elsewhere."""
        self.worlds += other.worlds
        self.failures.update(other.failures)
        self.datagrams += other.datagrams
        self.seconds += other.seconds
        self.sessions += other.sessions
        self.streams += other.streams
        self.bytes += other.bytes
        self.actions.update(other.actions)
        self.lives.update(other.lives)
        self.faults.update(other.faults)

    def lines(self) -> Iterator[str]:
        """What to print."""
        yield f"worlds       {self.worlds:,}, {self.seconds / 3600:,.0f} hours of virtual time"
        yield f"sessions     {self.sessions:,}, {self.streams:,} streams, {self.bytes:,} bytes read"
        yield f"datagrams    {self.datagrams:,}"
        yield f"faults       {_table(self.faults)}"
        applications = {name: count for name, count in self.actions.items() if name in APPLICATIONS}
        misfortunes = {name: count for name, count in self.actions.items() if name not in APPLICATIONS}
        yield f"misfortunes  {_table(misfortunes)}"
        yield f"applications {_table(applications)}"
        yield f"lives        {_table(self.lives)}"
        yield f"failures     {len(self.failures)}"
        for seed, failure in self.failures.items():
            yield f"  {PROGRAM} --seed {seed}\n    {failure[:300]}"


def _table(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda each: -each[1])) or "none"


def run_world(seed: int) -> Tally:
    """Run the world of a seed."""
    try:
        report = run(seed)
    except Exception as error:
        return Tally(worlds=1, failures={seed: f"{type(error).__name__}: {error}".split("\n")[0]})
    return Tally(
        worlds=1,
        datagrams=report.datagrams,
        seconds=report.seconds,
        sessions=report.sessions,
        streams=report.streams,
        bytes=report.bytes,
        actions=report.actions,
        lives=report.lives,
        faults=Counter(faults_of(report.traffic)),
    )


def faults_of(traffic: Traffic) -> dict[str, int]:
    """What links did to datagrams, by kind."""
    harmless = ("sent", "bytes", "delivered")
    return {name: count for name, count in asdict(traffic).items() if name not in harmless and count}


def run_worlds(first: int, stride: int, end: float) -> Tally:
    """Run one world after the other until a time on the monotonic clock."""
    total = Tally()
    for seed in count(first, stride):
        if time.monotonic() >= end:
            break
        tally = run_world(seed)
        total.add(tally)
        for failure in tally.failures.values():
            say(f"FAILED  {PROGRAM} --seed {seed}\n    {failure[:300]}")
    return total


def soak(seconds: float, processes: int, first: int) -> Tally:
    """Run new worlds in so many processes until the time is up."""
    end = time.monotonic() + seconds
    total = Tally()
    with get_context("spawn").Pool(processes) as pool:
        for tally in pool.starmap(run_worlds, [(first + number, processes, end) for number in range(processes)]):
            total.add(tally)
    return total


def say(text: str) -> None:
    """Tell whoever watches."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(arguments: list[str] | None = None) -> int:
    """The command; 1 when a world failed."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to run new worlds (60)")
    parser.add_argument("--processes", type=int, default=2, help="how many at once (2)")
    parser.add_argument("--first", type=int, help="the first seed; drawn from the clock when not given")
    parser.add_argument("--seed", type=int, help="run this world only")
    parser.add_argument("--without", type=steps, default=frozenset(), help="steps to leave out, as 3,5-9")
    parser.add_argument("--show", action="store_true", help="with --seed: print all that was on the wire")
    parser.add_argument("--shrink", type=int, metavar="SEED", help="leave out what a failing world can do without")
    options = parser.parse_args(arguments)
    if options.shrink is not None:
        return _shrink(options.shrink)
    if options.seed is not None:
        return _replay(options.seed, options.without, options.show)
    first = int(time.time()) << 20 if options.first is None else options.first
    tally = soak(options.seconds, options.processes, first)
    say(f"seeds        from {first}")
    say("\n".join(tally.lines()))
    return bool(tally.failures)


def steps(text: str) -> frozenset[int]:
    """Indexes of steps, from `3,5-9`."""
    ranges = [part.partition("-") for part in text.split(",") if part]
    return frozenset(index for low, _, high in ranges for index in range(int(low), int(high or low) + 1))


def steps_text(indexes: Iterable[int]) -> str:
    """The same, the other way round."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def _replay(seed: int, without: frozenset[int], show: bool) -> int:
    world = RandomWorld(draw(seed), without)
    if show:
        world.world.transcript = Transcript()
    failed = True
    try:
        say(str(world.run()))
        failed = False
    except Exception:
        traceback.print_exc()
    if show:
        say(str(world.world.transcript))
    return failed


def _shrink(seed: int) -> int:
    if not failure_of(seed):
        say(f"the world of seed {seed} does not fail")
        return 1
    without, failure = shrink(seed)
    for step in draw(seed).steps:
        if step.index not in without:
            say(str(step))
    say(f"{PROGRAM} --seed {seed} --without {steps_text(without)}\n    {failure}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
