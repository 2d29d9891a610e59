"""S1 to S12 and S16 on the pure manager, all at once and in any order; S17, what it costs."""

from __future__ import annotations

from tests.proto.manager.checked import run
from tests.proto.manager.life import Life


def test_whatever_happens() -> None:
    """S1 to S12, S16: the manager does what the plain model does."""
    run(Life, examples=200, steps=50)
