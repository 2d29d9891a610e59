"""Random worlds: safe while everything befalls them, and live once it stops. `make soak` runs new ones."""

from __future__ import annotations

import pytest

from tests.worlds.recipe import APPLICATIONS, MISFORTUNES
from tests.worlds.seats import LIVES
from tests.worlds.soak import Tally, run_world

WORLDS = 320
CHUNK = 16
FOUND = (9_500_443, 9_500_768, 9_503_061, 9_503_187, 9_504_338, 9_504_833, 20_003_538, 40_001_867)
"""Worlds that failed once, and cheap enough to be looked at again each time; each cause has a small test of its own."""
RARE = {"rejected"}
"""What can become of a session, and does not in every dozen worlds."""
COUNTED = range(WORLDS, WORLDS + 3 * CHUNK)
"""Worlds beside those, run in one test: so what befell them can be summed up, however the tests are spread."""


@pytest.mark.parametrize("first", range(0, WORLDS, CHUNK))
def test_worlds(first: int) -> None:
    """G-1, G-2, S-5, S-6, K-6, 13: every byte once and in order, every table bounded, every end reached."""
    for seed in range(first, first + CHUNK):
        one = run_world(seed)
        assert not one.failures, f"python -m tests.worlds.soak --seed {seed}\n{one.failures[seed]}"


@pytest.mark.parametrize("seed", FOUND)
def test_worlds_that_failed(seed: int) -> None:
    """C-6, F-5, R-5, V-10, M-7: sleep, a clock that leapt, two sides on different paths, a path without an ID."""
    one = run_world(seed)
    assert not one.failures, one.failures


def test_the_faults_really_happened() -> None:
    """A world without faults proves nothing."""
    tally = Tally()
    for seed in COUNTED:
        tally.add(run_world(seed))
    assert not tally.failures, tally.failures
    kinds = {
        "lost",
        "burst",
        "cut",
        "overflowed",
        "too_large",
        "duplicated",
        "reordered",
        "corrupted",
        "truncated",
        "marked",
    }
    assert kinds <= {kind for kind, count in tally.faults.items() if count >= tally.worlds / 8}, tally.faults
    assert set(tally.actions) == {*APPLICATIONS, *MISFORTUNES}
    assert not {name: count for name, count in tally.actions.items() if count < tally.worlds / 20}
    assert {kind for kind, count in tally.lives.items() if count >= tally.worlds / 20} >= LIVES - RARE, tally.lives
    assert tally.sessions > 2 * tally.worlds
    assert tally.streams > 5 * tally.worlds
