"""Both sides move, links break and come back, clocks leap: in the end both are on one path, whatever it was (M-7)."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest

from stt_proto.errors import StateError
from stt_proto.testing import Conditions, send
from tests.proto.test_moves import Scene, scene
from tests.proto.worlds import back, filler

STEPS = ("migrate", "migrate", "add", "cut", "mend", "mend", "one way", "upload", "download", "leap")
PAUSES = (0.001, 0.05, 0.5, 3.0, 12.0)
SEEDS = (*range(8), 82, 93, 99, 150, 167, 245, 290)
"""The last ones are those of 400 in which they did not agree, once."""


def step(case: Scene, rng: random.Random, what: str) -> None:
    """One thing happens, on one path or side."""
    path = rng.choice([case.path(), case.mobile, case.path(local=("client", 3)), case.web])
    ours, now = rng.random() < 0.5, case.world.now
    session, there = (case.session, path) if ours else (case.peer, back(path))
    match what:
        case "migrate" | "add":
            with suppress(StateError):  # there are as many paths as may be
                (session.migrate if what == "migrate" else session.add_path)(there, now)
        case "cut" | "mend":
            case.cut(path, up=what == "mend")
        case "one way":
            case.links(path)[ours].up = False
        case "upload":
            send(case.client, case.session, filler(20_000))
        case "download":
            send(case.server, case.peer, filler(20_000))
        case _:
            (case.client if ours else case.server).jump_clock(rng.choice((2.0, 20.0)))
    case.client.pump()
    case.server.pump()
    case.world.run(rng.choice(PAUSES))


@pytest.mark.parametrize("delay", [0.001, 0.05])
@pytest.mark.parametrize("seed", SEEDS)
def test_both_ends_agree_in_the_end(seed: int, delay: float) -> None:
    """M-7, M-9: within 90 s of peace, in which they have nothing to say; and then they stay, and ask no more than that.

    Each path-end is asked and asks once in an interval of 10 s at most, with two datagrams and an acknowledgement.
    """
    rng = random.Random(seed)
    case = scene(Conditions(delay=delay), seed=seed)
    for _ in range(rng.randrange(5, 25)):
        step(case, rng, rng.choice(STEPS))
    for path in (case.path(), case.mobile, case.path(local=("client", 3)), case.web):
        case.cut(path, up=True)
    case.world.run(90.0)
    assert case.session.is_active()
    assert case.peer.is_active()
    agreed = case.session.path
    assert case.peer.path == back(agreed)
    before, paths = case.world.datagrams, len(case.session.paths) + len(case.peer.paths)
    case.world.run(60.0)
    assert case.world.datagrams - before <= 6 * 3 * 2 * paths
    assert (case.session.path, case.peer.path) == (agreed, back(agreed))
