"""The replay window against a model that remembers everything."""

from __future__ import annotations

import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stt_proto.packet import REPLAY_WINDOW, ReplayWindow
from tests.proto.walks import walks


class Model:
    """P-7, in the words of the rule."""

    def __init__(self) -> None:
        self.opened: set[int] = set()
        self.largest = -1

    def seen(self, number: int) -> bool:
        return number in self.opened or number < self.largest - 65_536

    def mark(self, number: int) -> None:
        self.opened.add(number)
        self.largest = max(self.largest, number)


steps = st.one_of(
    st.integers(0, 3),
    st.integers(-700, 700),
    st.integers(-70_000, 70_000),
    st.sampled_from([-65_537, -65_536, -65_535, 65_535, 65_536, 65_537, 131_072, 2**31, 2**45, -512, 512]),
)


@given(first=st.integers(0, 200_000), walk=walks(steps, 60))
@example(0, [])
@example(70_000, [-65_536, 1, -1, 65_537, -1])
def test_agrees_with_the_model(first: int, walk: list[int]) -> None:
    """P-7: whatever the order of arrival."""
    window, model = ReplayWindow(), Model()
    number = first
    for step in [0, *walk]:
        number = max(0, number + step)
        assert window.seen(number) == model.seen(number)
        if not model.seen(number):
            window.mark(number)
            model.mark(number)
        assert window.seen(number)
        assert window.largest == model.largest
        for near in (number - 1, number + 1, model.largest - 65_536, model.largest - 65_537):
            assert near < 0 or window.seen(near) == model.seen(near)


def test_the_edge() -> None:
    """P-7: 65,536 numbers behind the largest, no more and no fewer."""
    assert REPLAY_WINDOW == 65_536
    window = ReplayWindow()
    window.mark(100_000)
    assert window.seen(100_000)
    assert not window.seen(100_000 - 65_536)
    assert window.seen(100_000 - 65_537)
    assert not window.seen(100_001)


@pytest.mark.parametrize("order", ["rising", "swapped"])
def test_every_number_of_a_long_flow(order: str) -> None:
    """P-7: over three windows, each number passes once."""
    window = ReplayWindow()
    numbers = range(3 * 65_536)
    if order == "swapped":
        numbers = [number ^ 0x1FF for number in numbers]
    for number in numbers:
        assert not window.seen(number)
        window.mark(number)
    low = window.largest - 65_536
    assert all(window.seen(number) for number in range(low - 10, window.largest + 1))


def footprint(window: ReplayWindow) -> int:
    older = window._older
    return sum(map(sys.getsizeof, (window, window._bits, older, *older, *older.values())))


def test_memory() -> None:
    """P-7: an idle session pays next to nothing, a busy one for the window and no more."""
    window = ReplayWindow()
    for number in range(20):
        window.mark(number)
    assert footprint(window) < 300
    for number in range(0, 65_536 * 4, 3):
        window.mark(number)
    assert footprint(window) < 32_768
    window.mark(2**40)
    assert footprint(window) < 16_384
    for block in range(300):
        window.mark(2**40 + block * 65_536 * 10)
        window.mark(2**40 + block * 65_536 * 10 - 65_536)
    assert footprint(window) < 16_384
