"""What a `timeout` may be, for the calls of every host."""

from __future__ import annotations

from math import isnan
from typing import Any

from stt_anyio.errors import ArgumentError
from stt_proto.manager.checks import FLOAT_MAX


def check_timeout(timeout: Any, name: str = "timeout") -> None:
    """Seconds, or `None` for as many as it takes; infinity is the same, and below 0 the time is over already.

    Args:
        timeout: what the caller gave.
        name: of the argument.

    Raises:
        ArgumentError: it is no number, or not one that can be added to a time: NaN, `True`, a whole number beyond
            all floats.
    """
    if timeout is None or (isinstance(timeout, float) and not isnan(timeout)):
        return
    if not isinstance(timeout, int) or isinstance(timeout, bool) or abs(timeout) > FLOAT_MAX:
        raise ArgumentError(f"{name} is {timeout!r}; it must be a number of seconds, or None", argument=name)
