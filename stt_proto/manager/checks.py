"""What arguments of the manager may be: each check names the argument, the value and the allowed range."""

from __future__ import annotations

from math import inf, nextafter
from typing import Any

from stt_proto.errors import ArgumentError

SESSION_ID_SIZE = 8
"""Bytes of a session id."""

NODE_ID_SIZE = 32
"""Bytes of a node id."""

MAX_SECONDS = 10 * 366 * 86_400.0
"""Ten years: the longest lifetime. What is meant to be without end is renewed."""

FLOAT_MAX = nextafter(inf, 0.0)
"""Whole numbers may be larger, and are no floats then."""

MIN_SECONDS = 0.001
"""The shortest lifetime."""


def refusal(name: str, value: object, allowed: str) -> ArgumentError:
    """The error for a value that is not allowed."""
    return ArgumentError(f"{name} is {value!r}; it must be {allowed}", argument=name)


def is_number(value: object) -> bool:
    """Whether this is a number that a finite float can be; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -FLOAT_MAX <= value <= FLOAT_MAX


def check_whole(name: str, value: Any, low: int, high: int) -> None:
    """A whole number from `low` to `high`."""
    if type(value) is not int or not low <= value <= high:
        raise refusal(name, value, f"a whole number from {low:,} to {high:,}")


def check_number(name: str, value: Any, low: float, high: float, unit: str = "seconds") -> None:
    """A finite number from `low` to `high`."""
    if not is_number(value) or not low <= value <= high:
        raise refusal(name, value, f"from {low:,} to {high:,} {unit}")


def check_kind(name: str, value: Any, kind: type) -> None:
    """A value of this class."""
    if not isinstance(value, kind):
        raise ArgumentError(f"{name} is of type {type(value).__name__}; it must be a {kind.__name__}", argument=name)


def check_flag(name: str, value: Any) -> None:
    """True or False."""
    if not isinstance(value, bool):
        raise refusal(name, value, "True or False")


def check_bytes(name: str, value: Any, size: int) -> None:
    """Just so many bytes."""
    if not isinstance(value, bytes) or len(value) != size:
        raise ArgumentError(f"{name} must be {size} bytes", argument=name)


def check_session_id(value: Any) -> None:
    """8 bytes."""
    check_bytes("session_id", value, SESSION_ID_SIZE)


def check_node_id(value: Any) -> None:
    """32 bytes."""
    check_bytes("peer_node_id", value, NODE_ID_SIZE)
