"""Steps for tests against a model: enough of them, in most examples, that something can come of them."""

from __future__ import annotations

from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

T = TypeVar("T")


def walks(step: SearchStrategy[T], most: int) -> SearchStrategy[list[T]]:
    """Up to `most` steps, a third of that or more in half of the examples.

    A list that may be as short as it likes has eight elements on average, whatever the most is: too few for most
    states of what is more than a counter.
    """
    return st.lists(step, max_size=most) | st.lists(step, min_size=most // 3, max_size=most)
