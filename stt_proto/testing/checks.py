"""What a test hands in, looked at before anything comes of it: a mistake is named at once, with its argument."""

from __future__ import annotations

from math import inf
from types import UnionType

from stt_proto.errors import ArgumentError

AGES = 1e12
"""Seconds, 30 thousand years: nothing is further away than that, in the past or to come."""
MAX_WHOLE = 1 << 40


def refusal(name: str, value: object, allowed: str) -> ArgumentError:
    """The error that names an argument, its value and what it must be."""
    return ArgumentError(f"{name} is {value!r}; it must be {allowed}", argument=name)


def is_number(value: object, least: float, most: float) -> bool:
    """Whether this is a number (`True` is none) from `least` to `most`; not-a-number never is."""
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def is_whole(value: object, least: int = 0, most: int = MAX_WHOLE) -> bool:
    """Whether this is a whole number from `least` to `most`."""
    return type(value) is int and least <= value <= most


def check_seconds(name: str, value: object, least: float = 0.0, *, endless: bool = False) -> None:
    """Refuse what is no time in seconds.

    Args:
        name: of the argument.
        value: what it is.
        least: the smallest allowed; `-AGES` for a time that may lie in the past.
        endless: whether `inf` is allowed.
    """
    if not is_number(value, least, AGES) and not (endless and value == inf):
        bound = "a finite number of them" if least < 0.0 else f"at least {least:g}"
        raise refusal(name, value, f"seconds, {bound}{' or inf' if endless else ''}")


def check_type(name: str, value: object, kind: type | UnionType) -> None:
    """Refuse what is of another type."""
    if not isinstance(value, kind):
        raise refusal(name, value, f"of type {getattr(kind, '__name__', kind)}")


def check_callable(name: str, value: object) -> None:
    """Refuse what cannot be called."""
    if not callable(value):
        raise refusal(name, value, "something that can be called")
