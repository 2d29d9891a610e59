"""Everything about a random world that is decided before it begins, drawn from its seed.

Worlds in which everything happens at once are all alike, and some failures need that one thing does *not* happen: a
queue only fills where nothing is dropped. So each world knows only some of the faults, some of the actions, and some
odd values of the configuration (swarm testing: A. Groce et al., ISSTA 2012).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, TypeVar

from attrs import evolve, frozen

from stt_proto.config import CARRIERS, Limits
from stt_proto.testing import Conditions, GilbertElliott, LinkTrace
from tests.worlds.seats import Manners

T = TypeVar("T")

LARGEST_DATAGRAM = 65_507
"""Bytes that fit into a UDP datagram at most."""

WEATHER = ("loss", "burst", "duplicate", "reorder", "corrupt", "truncate", "jitter", "rate", "mtu", "trace", "ecn")
"""Faults that a link may have for a while."""

APPLICATIONS: Mapping[str, float] = {
    "dial": 3, "storm": 0.3, "open": 8, "write": 10, "finish": 4, "read": 6, "reset": 2, "stop": 2, "watch": 1,
    "datagram": 4, "frame": 2, "prioritise": 2, "rotate": 1.5, "move": 2, "close": 1, "abort": 0.5,
}  # fmt: skip
"""What applications do, and how often."""

MISFORTUNES: Mapping[str, float] = {
    "weather": 4, "outage": 2, "one_way": 2, "cut": 1, "rebind": 1, "replay": 2, "misdeliver": 2, "elsewhere": 2,
    "forge": 2, "garbage": 1, "jump": 1, "step_back": 1, "sleep": 1.5, "stop_process": 1, "full": 1.5,
    "path_closed": 0.5, "restart": 0.5, "refuse": 0.7, "narrow": 1.5,
}  # fmt: skip
"""What befalls networks and hosts, and how often."""

ALWAYS = frozenset({"dial", "open", "write"})
"""Actions without which nothing would happen in a world."""


@frozen(kw_only=True)
class NodePlan:
    """One node.

    Attributes:
        name: of it.
        changes: to its `Config`.
        manners: of its application.
        batch: seconds for which its host gathers datagrams before it hands them in, `None` for each at once.
        marks: the share of datagrams that arrive with some ECN bits.
        stranger: whether it has another shared seed.
        shuns: names of nodes that it lets in never.
        behind_nat: whether it is behind a translator of addresses.
    """

    name: str
    changes: dict[str, Any]
    manners: Manners
    batch: float | None
    marks: float
    stranger: bool
    shuns: tuple[str, ...]
    behind_nat: bool


@frozen
class Step:
    """One thing that happens.

    Attributes:
        index: its place; also draws all that is left open about it.
        gap: seconds after the one before.
        action: a name of `APPLICATIONS` or `MISFORTUNES`.
    """

    index: int
    gap: float
    action: str


@frozen(kw_only=True)
class Recipe:
    """A world, before it begins.

    Attributes:
        seed: from which all of it was drawn.
        carrier: on which its nodes meet.
        nodes: two to six.
        weather: the faults that its links may have.
        delay: seconds that its links take in good weather.
        mtu: bytes of the largest datagram that they carry then.
        sizes: bytes from which applications draw what they write at once.
        steps: what happens, in order.
        afterwards: seconds for which the faults go on when nothing new happens any more.
        early: whether applications give dials something that is to be there first.
    """

    seed: int
    carrier: str
    nodes: tuple[NodePlan, ...]
    weather: frozenset[str]
    delay: float
    mtu: int
    sizes: tuple[int, ...]
    steps: tuple[Step, ...]
    afterwards: float
    early: bool = False

    @property
    def calm(self) -> bool:
        """Whether nothing but its applications can end its sessions."""
        return not self.weather and not any(step.action in MISFORTUNES for step in self.steps)


def draw(seed: int) -> Recipe:
    """The world of a seed."""
    rng = random.Random(f"{seed}/recipe")
    carrier = _mostly(rng, "udp", ("memory", "ws", "stream"), 0.15)
    weather = frozenset(_some(rng, WEATHER, rng.choice((0.0, 0.2, 0.5, 0.9)))) if carrier == "udp" else frozenset()
    steps = _steps(rng, carrier)
    suites = rng.choice(((1, 2), (2, 1), (1,), (2,)))
    timers = _timers(rng)
    names = tuple("abcdef"[: rng.choice((2, 2, 2, 3, 4, 6))])
    nodes = tuple(_node(rng, name, names, {"suites": suites, **timers}) for name in names)
    nodes = tuple(evolve(node, changes=node.changes | _speed(f"{seed}/{node.name}/speed")) for node in nodes)
    early = random.Random(f"{seed}/early")
    nodes = tuple(
        evolve(node, changes=node.changes | {"max_early_data": early.choice((0, 100, 768))}) for node in nodes
    )
    small = any(node.changes.get("default_max_frame_size", 1200) < 1000 for node in nodes)
    most = 3000 if small else rng.choice((3000, 10_000, 50_000, 100_000))
    return Recipe(
        seed=seed,
        carrier=carrier,
        nodes=nodes,
        weather=weather,
        delay=rng.choice((0.0, 0.0002, 0.001, 0.005, 0.02)),
        mtu=_mtu(random.Random(f"{seed}/mtu")) if carrier == "udp" else 65_535,
        sizes=tuple(size for size in (0, 1, 7, 100, 1000, 1199, 2500, 10_000, 50_000, 100_000) if size <= most),
        steps=steps,
        afterwards=rng.choice((0.0, 1.0, 5.0, 20.0)),
        early=early.random() < 0.8,
    )


def _steps(rng: random.Random, carrier: str) -> tuple[Step, ...]:
    """What happens, and when: in bursts, and with pauses."""
    chosen = {name for name in APPLICATIONS if name in ALWAYS or rng.random() < 0.7}
    if carrier == "udp":
        chosen |= set(_some(rng, tuple(MISFORTUNES), rng.choice((0.0, 0.15, 0.3, 0.6))))
    else:
        chosen |= set(_some(rng, ("full", "path_closed", "jump", "step_back", "refuse"), 0.3))
    weights = {name: weight for name, weight in {**APPLICATIONS, **MISFORTUNES}.items() if name in chosen}
    count = rng.choice((20, 40, 80, 160))
    pace = rng.choice((0.001, 0.01, 0.1, 0.5))
    dials = rng.choice((1, 2, 4, 6))
    actions = [*["dial"] * dials, *rng.choices(list(weights), list(weights.values()), k=count)]
    gaps = [rng.choice((0.0, 0.0, pace / 10, pace, pace * 3)) * rng.random() for _ in actions]
    if rng.random() < 0.8:
        gaps[dials] = rng.choice((0.3, 1.0))  # the first sessions come to be before the rest happens
    return tuple(Step(index, gap, action) for index, (gap, action) in enumerate(zip(gaps, actions, strict=True)))


def _timers(rng: random.Random) -> dict[str, Any]:
    """Timers that all nodes of a world share, so that what is late for one is late for all."""
    interval = _mostly(rng, 10.0, (0.3, 1.0, 3.0), 0.4)
    waits = _mostly(rng, 20.0, (0.0, 0.5, 120.0), 0.5)
    return {
        "keep_alive_interval": interval,
        "keep_alive_timeout": interval * rng.choice((2.5, 3.0, 6.0)),
        "detach_timeout": waits,
        "handshake_timeout": _mostly(rng, 10.0, (2.0, 3.0), 0.3),
    }


def _node(rng: random.Random, name: str, names: Sequence[str], shared: dict[str, Any]) -> NodePlan:
    odd = rng.choice((0.0, 0.15, 0.4))
    changes = dict(shared)
    if rng.random() < 0.8:
        changes["extension_frames"] = (0x80, 0x90)
    for parameter, values in _PARAMETERS.items():
        if rng.random() < odd:
            changes[parameter] = rng.choice(values)
    limits = {limit: rng.choice(values) for limit, values in _LIMITS.items() if rng.random() < odd}
    if limits:
        changes["limits"] = Limits(**limits)
    if rng.random() < 0.5:
        changes["reset_key"] = rng.randbytes(32)
    return NodePlan(
        name=name,
        changes=changes,
        manners=Manners(
            eager=rng.random() < 0.6,
            chunk=_mostly(rng, 65_536, (1, 100, 1000, 5000), 0.4),
            answers=rng.choice(((0,), (0, 1, 100), (0, 10, 2000), (5000, 20_000))),
            closes=rng.random() < 0.8,
        ),
        batch=_mostly(rng, None, (0.0, 0.001, 0.01), 0.4),
        marks=_mostly(rng, 0.0, (0.05, 0.5), 0.15),
        stranger=rng.random() < 0.04,
        shuns=tuple(other for other in names if other != name and rng.random() < 0.04),
        behind_nat=rng.random() < 0.25,
    )


def _mtu(rng: random.Random) -> int:
    """What links carry in good weather: as little as may be, a tunnel, Ethernet, jumbo frames, or everything."""
    return rng.choice((1200, 1207, 1472, 9000, 65_535, 65_535))


def _speed(seed: str) -> dict[str, Any]:
    """What a node does about speed: its congestion controller, and how large the datagrams are that it tries."""
    rng = random.Random(seed)
    changes: dict[str, Any] = {"congestion": rng.choice(("cubic", "newreno", "bbr"))}
    if rng.random() < 0.5:
        udp = evolve(CARRIERS["udp"], max_probe=rng.choice((1452, 9000, LARGEST_DATAGRAM)))
        changes["carriers"] = {"udp": udp}
    return changes


_PARAMETERS: Mapping[str, tuple[Any, ...]] = {
    "max_concurrent_sessions": (1, 2, 5),
    "max_concurrent_streams": (0, 1, 3, 16),
    "default_max_frame_size": (1, 100, 1200),
    "stream_receive_window": (1024, 4096, 65_536),
    "session_receive_window": (1024, 5000, 65_536),
    "stream_send_buffer": (1024, 10_000, 65_536),
    "max_stream_receive_window": (0, 50_000),
    "max_stream_send_buffer": (0, 50_000),
    "max_session_receive_window": (0, 100_000),
    "max_datagram_size": (0, 10, 1000, 1200),
    "ack_delay": (0.0, 0.1, 1.0),
    "no_delay": (False,),
    "rotate_after_packets": (256,),
    "rotate_after_bytes": (65_536,),
    "rotate_after_seconds": (60.0, 600.0),
}

_LIMITS: Mapping[str, tuple[Any, ...]] = {
    "half_open": (1, 4),
    "half_open_without_cookie": (0, 1),
    "unfinished_without_cookie": (0, 1),
    "challenge_repeats": (1, 3),
    "failed_guesses_without_cookie": (0, 1),
    "sources": (16,),
    "piece_groups": (4,),
    "held_packets": (0, 1),
    "held_bytes": (0, 2000),
    "unsolicited_replies": (0, 1),
    "resets_per_second": (0, 1),
    "trains": (1, 3),
    "train_bytes": (131_072,),
    "train_bytes_in_all": (131_072,),
    "datagrams": (1, 5),
    "detached_per_peer": (0, 1),
    "detached_bytes": (0, 5000),
    "grown_windows": (0, 10_000),
    "extension_frames": (1, 5),
    "datagram_bytes": (65_536,),
    "failure_reports": (1,),
}


def conditions(rng: random.Random, recipe: Recipe) -> Conditions:
    """Draw the conditions of a link: some of the faults that this world knows."""
    kinds = {kind for kind in sorted(recipe.weather) if rng.random() < 0.7}
    bad = rng.choice((0.02, 0.1, 0.3))

    def share(kind: str) -> float:
        return bad * rng.random() if kind in kinds else 0.0

    bursts = GilbertElliott(good=rng.choice((5.0, 20.0, 100.0)), bad=rng.choice((1.0, 3.0, 10.0)))
    slow = "rate" in kinds or "trace" in kinds
    return Conditions(
        delay=recipe.delay * rng.choice((1, 1, 2, 10)),
        jitter=rng.choice((0.001, 0.02, 0.1)) if "jitter" in kinds else 0.0,
        rate=rng.choice((3e5, 2e6, 2e7)) if "rate" in kinds else None,
        trace=_trace(rng) if "trace" in kinds and rng.random() < 0.5 else None,
        queue=rng.choice((3000, 20_000, 200_000)),
        ecn_threshold=rng.choice((0, 3000, 20_000)) if "ecn" in kinds and slow else None,
        loss=share("loss"),
        burst=bursts if "burst" in kinds else None,
        duplicate=share("duplicate"),
        reorder=share("reorder"),
        reorder_delay=rng.choice((0.001, 0.01, 0.2)),
        corrupt=share("corrupt"),
        truncate=share("truncate"),
        mtu=min(rng.choice((100, 1100, 1199, 1200, 1300)), recipe.mtu)
        if "mtu" in kinds and rng.random() < 0.3
        else recipe.mtu,
    )


def _trace(rng: random.Random) -> LinkTrace:
    """A recording as of a mobile network: it delivers in bursts, and now and then not at all."""
    gaps = rng.choices((0, 1, 4, 30, 300), (20, 20, 10, 5, 1), k=100)
    return LinkTrace(tuple(time / 1000 for time in accumulate((1, *gaps))))


def _mostly(rng: random.Random, usual: T, odd: Sequence[T], share: float) -> T:
    return rng.choice(odd) if rng.random() < share else usual


def _some(rng: random.Random, items: Sequence[str], share: float) -> list[str]:
    return [item for item in items if rng.random() < share]
