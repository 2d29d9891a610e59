"""Many worlds, one for each seed: the same test again and again, on another network each time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from attrs import define, field

from stt_proto.testing.checks import check_callable
from stt_proto.testing.conditions import Conditions, GilbertElliott
from stt_proto.testing.link import Traffic
from stt_proto.testing.world import World

Scenario = Callable[[World], object]
"""A test: it is given a world, fills it, and fails by raising."""


@define
class Tally:
    """What was explored.

    Attributes:
        worlds: how many there were.
        datagrams: how many arrived, in all of them.
        seconds: of virtual time, likewise.
        traffic: what their links did: every fault, by kind.
    """

    worlds: int = 0
    datagrams: int = 0
    seconds: float = 0.0
    traffic: Traffic = field(factory=Traffic)

    def add(self, world: World) -> None:
        """Count in a world that is over."""
        self.worlds += 1
        self.datagrams += world.datagrams
        self.seconds += world.now
        self.traffic.add(world.traffic)


def explore(
    scenario: Scenario, seeds: Iterable[int], conditions: Conditions | Callable[[int], Conditions] | None = None
) -> Tally:
    """Run a test in a world of its own for each seed.

    Args:
        scenario: the test; it is given the world, fills it, and fails by raising.
        seeds: such as `range(300)`.
        conditions: of all links, or a function that gives those of a seed, such as `random_conditions`.

    Returns:
        What was explored, so that a test can show that its faults really happened.

    Raises:
        ArgumentError: `scenario` cannot be called, or `conditions` is something else.
        Exception: the first that `scenario` raises, with notes that say in which world, and how to see it again.
    """
    check_callable("scenario", scenario)
    tally = Tally()
    for seed in seeds:
        world = World(seed, conditions(seed) if callable(conditions) else conditions)
        try:
            with world:
                scenario(world)
        except Exception as error:
            error.add_note(f"that is {_name_of(scenario)}({world!r})")
            raise
        tally.add(world)
    return tally


def _name_of(scenario: Scenario) -> str:
    """What calls it; a `functools.partial` or another object has no name of its own."""
    name = getattr(scenario, "__qualname__", None)
    return repr(scenario) if name is None else f"{scenario.__module__}.{name}"


def random_conditions(seed: int) -> Conditions:
    """Draw a network from a seed: most faults are missing from most of them, and those that are there are mild or bad.

    Some links are far worse than what people have. None loses or damages more than a quarter, so that a handshake,
    which has ten seconds, next to never fails on one.
    """
    rng = random.Random(f"{seed}/conditions")

    def sometimes(most: float, share: float = 0.4) -> float:
        """Nothing at all, or something up to `most`, and rather little."""
        return round(most * rng.random() ** 2, 4) if rng.random() < share else 0.0

    rate = round(10 ** rng.uniform(5.5, 8.5), -3) if rng.random() < 0.5 else None
    burst = None
    if rng.random() < 0.4:
        burst = GilbertElliott(good=float(rng.randint(60, 500)), bad=float(rng.randint(1, 4)))
    return Conditions(
        delay=round(10 ** rng.uniform(-4, -0.5), 5),
        jitter=sometimes(0.1),
        rate=rate,
        queue=1 << 20 if rate is None else rng.randint(5, 200) * 1500,
        ecn_threshold=rng.randint(1, 50) * 1500 if rng.random() < 0.3 else None,
        loss=sometimes(0.1),
        burst=burst,
        duplicate=sometimes(0.2),
        reorder=sometimes(0.3),
        reorder_delay=round(10 ** rng.uniform(-3, -0.7), 4),
        corrupt=sometimes(0.05),
        truncate=sometimes(0.03),
    )
