"""How fast a network in virtual time is: `python -m tests.bench.simulator`.

Two nodes of `stt_proto.testing` send each other as much as they can. What counts is every datagram that was put on the
wire, whatever became of it, and seconds of the processor, so that it does not matter what else the machine does: the
median of a few rounds. In *the network alone* nobody is at either end: a datagram is sent, takes its way, and is there.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Final

from attrs import evolve, frozen

from stt_proto import NetworkPath
from stt_proto.config import CARRIERS
from stt_proto.testing import Conditions, GilbertElliott, Inbox, World, send
from tests.worlds.soak import faults_of

DATAGRAMS = 40_000
"""Sent in a round."""
GOAL = 20_000
"""Datagrams a second that a world with sound links is to manage."""
STEP = 0.05
"""Seconds of virtual time between two looks at how many there were."""

SEARCHING = {"udp": evolve(CARRIERS["udp"], max_probe=1472)}
"""Nodes that look for larger datagrams than the least: up to what an Ethernet carries."""
SOUND: Final = Conditions(delay=0.01, rate=100e6, mtu=1500)
FAULTS: Final = evolve(
    SOUND,
    mtu=1400,
    rate=2e6,
    jitter=0.005,
    queue=6000,
    ecn_threshold=3000,
    loss=0.01,
    burst=GilbertElliott(good=500, bad=3),
    duplicate=0.02,
    reorder=0.02,
    corrupt=0.01,
    truncate=0.01,
)
"""All that a link can do to a datagram, at once, and an MTU that some do not fit through."""


@frozen
class Measured:
    """What a round has shown.

    Attributes:
        datagrams: that were put on the wire.
        seconds: of the processor.
        faults: what befell them, by kind.
    """

    datagrams: int
    seconds: float
    faults: dict[str, int]


def transfers(conditions: Conditions, datagrams: int) -> Measured:
    """A stream in each direction, sealed, opened, acknowledged and read, until so many were sent."""
    world = World(1, conditions)
    client, server = world.node("client", carriers=SEARCHING), world.node("server", carriers=SEARCHING)
    session = client.connect(server)
    world.run_until(session.is_active)
    world.run(1.0)
    for node, end in ((client, session), (server, server.sessions[0])):
        Inbox(node)
        send(node, end, bytes(datagrams * SOUND.mtu))  # more than will get there
    began, before = time.process_time(), world.traffic.sent
    while world.traffic.sent - before < datagrams:
        world.run(STEP)
    return Measured(world.traffic.sent - before, time.process_time() - began, faults_of(world.traffic))


def network(datagrams: int) -> Measured:
    """Datagrams that nobody made and nobody opens."""
    world = World(1, evolve(SOUND, rate=None))
    there = world.node("there")
    arrived = count()
    there.receive = lambda *_: next(arrived)  # type: ignore[assignment, method-assign]
    path = NetworkPath("udp", ("here", 1), there.address)
    datagram = bytes(1200)
    began = time.process_time()
    for _ in range(datagrams // 100):
        for _ in range(100):
            world.send(datagram, path)
        world.run(STEP)
    seconds = time.process_time() - began
    assert next(arrived) == world.traffic.sent
    return Measured(world.traffic.sent, seconds, faults_of(world.traffic))


SOUNDLY = "sound links"
KINDS: dict[str, Callable[[int], Measured]] = {
    SOUNDLY: lambda datagrams: transfers(SOUND, datagrams),
    "all faults at once": lambda datagrams: transfers(FAULTS, datagrams),
    "the network alone": network,
}


def main(words: Sequence[str] | None = None) -> int:
    """What to exit with: 1 when sound links are too slow."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.simulator", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is timed: 5; the median counts")
    parser.add_argument("--datagrams", type=int, default=DATAGRAMS, help=f"in a round: {DATAGRAMS:,}")
    chosen = parser.parse_args(words)
    if chosen.rounds < 1 or chosen.datagrams < 100:
        parser.error("--rounds must be at least 1, --datagrams at least 100")
    speeds = {}
    for name, measure in KINDS.items():
        rounds = [measure(chosen.datagrams) for _ in range(chosen.rounds)]
        each = statistics.median(one.seconds / one.datagrams for one in rounds)
        speeds[name] = 1 / each
        befell = ", ".join(f"{kind} {number:,}" for kind, number in sorted(rounds[0].faults.items())) or "nothing"
        print(f"{name:20}{speeds[name]:10,.0f} datagrams a second of the processor, {each * 1e6:.1f} us each; {befell}")
    return int(speeds[SOUNDLY] < GOAL)


if __name__ == "__main__":
    sys.exit(main())
