"""`python -m tests.bench.links`: what each congestion controller makes of a link, in virtual time.

A sender with data without end, a receiver that reads at once, and a bottleneck between them, with a queue of one
bandwidth-delay product. For each link: goodput as a share of what the link could have carried from the first byte on,
so that the start counts, and how long datagrams stood in the queue. Every run gives the same figures. `measure` gives
them as values.
"""

from __future__ import annotations

import argparse
import sys
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from random import Random

from attrs import frozen

from stt_proto import Session
from stt_proto.events import Event, StreamOpened, StreamReadable, StreamWritable
from stt_proto.testing import Arrival, Conditions, Link, Node, World

MBIT = 1e6
MIB = 1 << 20
WINDOW = 64 * MIB
"""Bytes; windows and buffers of the streams, so large that they never are what limits."""
CHUNK = bytes(256 * 1024)
CONTROLLERS = ("newreno", "cubic", "bbr")
SEED = 1


@frozen(kw_only=True)
class Case:
    """A link and who shares it.

    Attributes:
        controllers: of the flows; the second begins when a tenth of the time is over.
        rate: bits a second.
        rtt: seconds, without the queue.
        loss: probability, for each datagram on its way there.
        seconds: virtual time for which it is watched.
    """

    controllers: tuple[str, ...]
    rate: float
    rtt: float
    loss: float = 0.0
    seconds: float = 10.0


@frozen(kw_only=True)
class Outcome:
    """What came of a case.

    Attributes:
        case: which.
        goodput: stream bytes read by the application, of all flows, as a share of what the link could carry.
        queue_mean, queue_p95: seconds that datagrams stood in the queue.
        dropped: share of the datagrams sent that found it full.
        shares: of the link, what each flow got in the second half of the time.
        jain: Jain's index of these, 1 when all are equal; `None` for one flow.
        took: seconds of real time.
    """

    case: Case
    goodput: float
    queue_mean: float
    queue_p95: float
    dropped: float
    shares: tuple[float, ...]
    jain: float | None
    took: float


def cases(*, quick: bool = False) -> Iterator[Case]:
    """All of them, or with `quick` those that promises were made about, and a few others."""
    if quick:
        for loss in (0.0, 0.01):
            yield from (Case(controllers=(each,), rate=100 * MBIT, rtt=0.02, loss=loss) for each in CONTROLLERS)
        yield from (Case(controllers=(each, each), rate=10 * MBIT, rtt=0.02) for each in CONTROLLERS)
        return
    for rtt, seconds in ((0.02, 10.0), (0.2, 30.0)):
        for rate in (10 * MBIT, 100 * MBIT):
            for loss in (0.0, 0.001, 0.01, 0.03):
                for each in CONTROLLERS:
                    yield Case(controllers=(each,), rate=rate, rtt=rtt, loss=loss, seconds=seconds)
    pairs = [*((each, each) for each in CONTROLLERS), ("cubic", "newreno"), ("cubic", "bbr"), ("bbr", "cubic")]
    for rate in (10 * MBIT, 100 * MBIT):
        yield from (Case(controllers=pair, rate=rate, rtt=0.02, seconds=20.0) for pair in pairs)


def measure(*, quick: bool = False) -> list[Outcome]:
    """Play all cases, one after the other."""
    return [play(case) for case in cases(quick=quick)]


# -- a case --------------------------------------------------------------------------------------------------------


class MeteredLink(Link):
    """A link that remembers how long each datagram stood in its queue."""

    __slots__ = ("waits",)

    def __init__(self, conditions: Conditions, rng: Random) -> None:
        super().__init__(conditions, rng)
        self.waits = array("d")

    def carry(self, datagram: bytes, now: float, ecn: int = 0) -> list[Arrival]:
        arrivals = super().carry(datagram, now, ecn)
        if arrivals:
            conditions = self.conditions
            assert conditions.rate is not None
            self.waits.append(arrivals[0].at - now - conditions.delay - len(datagram) * 8 / conditions.rate)
        return arrivals


class Source:
    """Writes to a stream of its own whenever there is room."""

    def __init__(self, node: Node, session: Session) -> None:
        self._node = node
        self._stream = session.open_stream(bidirectional=False)
        node.listeners.append(self._on_event)
        self._write()
        node.pump()

    def _on_event(self, _: Session | None, event: Event) -> None:
        if isinstance(event, StreamWritable):
            self._write()

    def _write(self) -> None:
        while self._stream.write(CHUNK, self._node.now):
            pass


class Sink:
    """Reads everything at once, and counts it by session id."""

    def __init__(self, node: Node) -> None:
        self.counts: dict[bytes, int] = {}
        self._node = node
        node.listeners.append(self._on_event)

    def _on_event(self, session: Session | None, event: Event) -> None:
        if session is None or not isinstance(event, StreamOpened | StreamReadable):
            return
        stream = session.stream(event.stream_id)
        assert stream is not None
        name = session.session_id
        while data := stream.read(MIB, self._node.now):
            self.counts[name] = self.counts.get(name, 0) + len(data)


def play(case: Case, seed: int = SEED) -> Outcome:
    """Play one case."""
    began = time.perf_counter()
    world = World(seed)
    windows = dict.fromkeys(("session_receive_window", "stream_receive_window", "stream_send_buffer"), WINDOW)
    server = world.node("server", **windows)
    sink = Sink(server)
    way = Conditions(delay=case.rtt / 2)
    queue = int(case.rate * case.rtt / 8)
    bottleneck = MeteredLink(Conditions(delay=case.rtt / 2, rate=case.rate, queue=queue, loss=case.loss), world.random)
    names: list[bytes] = []
    start = 0.0
    for number, controller in enumerate(case.controllers):
        client = world.node(f"client {number}", congestion=controller, **windows)
        world.link(client, server, way)
        world.links[client.address, server.address] = bottleneck
        session = client.connect(server)
        world.run_until(session.is_active)
        start = start or world.now
        Source(client, session)
        names.append(session.session_id)
        world.run(case.seconds / 10)
    world.run(start + case.seconds / 2 - world.now)
    halves = [sink.counts[name] for name in names]
    world.run(start + case.seconds - world.now)
    totals = [sink.counts[name] for name in names]
    capacity = case.rate * case.seconds / 8
    shares = tuple((total - half) / (capacity / 2) for total, half in zip(totals, halves, strict=True))
    waits, traffic = sorted(bottleneck.waits), bottleneck.traffic
    return Outcome(
        case=case,
        goodput=sum(totals) / capacity,
        queue_mean=sum(waits) / len(waits),
        queue_p95=waits[int(0.95 * len(waits))],
        dropped=traffic.overflowed / traffic.sent,
        shares=shares,
        jain=sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares)) if len(shares) > 1 else None,
        took=time.perf_counter() - began,
    )


# -- for people ----------------------------------------------------------------------------------------------------

HEADINGS = ("Mbit/s", "RTT, ms", "loss, %", "controllers", "goodput, %", "queue, ms", "p95", "dropped, %", "shares, %")


def cells(outcome: Outcome) -> tuple[str, ...]:
    """A line of the table."""
    case = outcome.case
    shares = " : ".join(f"{share * 100:.0f}" for share in outcome.shares)
    return (
        f"{case.rate / MBIT:g}",
        f"{case.rtt * 1e3:g}",
        f"{case.loss * 100:g}",
        ", ".join(case.controllers),
        f"{outcome.goodput * 100:.1f}",
        f"{outcome.queue_mean * 1e3:.1f}",
        f"{outcome.queue_p95 * 1e3:.1f}",
        f"{outcome.dropped * 100:.2f}",
        "" if outcome.jain is None else f"{shares}, Jain {outcome.jain:.2f}",
    )


def show(outcomes: Iterable[Outcome]) -> None:
    """Print a table, as soon and as nicely as can be."""
    rows = [cells(outcome) for outcome in outcomes]
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        widths = [max(map(len, column)) for column in zip(HEADINGS, *rows, strict=True)]
        for row in (HEADINGS, *rows):
            print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
        return
    table = Table(*HEADINGS)
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def main(words: Sequence[str] | None = None) -> None:
    """Play, and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.links", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer links, less than a minute")
    show(measure(quick=parser.parse_args(words).quick))


if __name__ == "__main__":
    main()
