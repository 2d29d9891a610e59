"""A `timeout` that is none is refused at once, by name, in every call that has one."""

from __future__ import annotations

from fractions import Fraction
from math import inf, nan
from typing import Any

import pytest

from stt_anyio.errors import ArgumentError
from stt_anyio.timeouts import check_timeout

WRONG = [nan, "5", b"5", True, 10**400, -(10**400), Fraction(1, 2), 1j, [], object()]
RIGHT = [None, 0, 1, 0.5, -1, -0.5, inf, -inf, 10**300]


@pytest.mark.parametrize("timeout", WRONG, ids=lambda value: type(value).__name__)
def test_what_is_no_time_is_refused_by_name(timeout: Any) -> None:
    """NaN was a ValueError of the loop, a str a TypeError, and both came after half of the work."""
    with pytest.raises(ArgumentError, match="patience is ") as caught:
        check_timeout(timeout, "patience")
    assert caught.value.argument == "patience"


@pytest.mark.parametrize("timeout", RIGHT, ids=repr)
def test_a_number_or_none_is_a_timeout(timeout: Any) -> None:
    """One that is over already is one: who computes what is left of a time gets such."""
    check_timeout(timeout)
