"""The configuration of one session: how long it lives, how much it may do at once, how fast, how urgently.

It is checked as a whole: every parameter that is wrong is named by one error, and then nothing of it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from typing import Any

from attrs import asdict, fields_dict, frozen

from stt_proto.errors import ArgumentError, ConfigError
from stt_proto.manager.checks import MAX_SECONDS, MIN_SECONDS, check_flag, check_number, check_whole

LEVELS = 8
"""Levels of priority, 0 the most urgent."""


def _check_rate(name: str, value: Any) -> None:
    if value != inf:
        check_number(name, value, 0.001, 1e6, "a second, or inf")


_CHECKS: Mapping[str, Callable[[str, Any], None]] = {
    "ttl": partial(check_number, low=MIN_SECONDS, high=MAX_SECONDS),
    "sliding": check_flag,
    "max_requests": partial(check_whole, low=1, high=1 << 20),
    "request_rate": _check_rate,
    "request_burst": partial(check_whole, low=1, high=1 << 20),
    "priority": partial(check_whole, low=0, high=LEVELS - 1),
}


@frozen(kw_only=True)
class SessionConfig:
    """How the manager treats one session.

    Attributes:
        ttl: seconds that it lives, 0.001 to ten years: from its last use, or from its beginning.
        sliding: whether each use begins the time anew.
        max_requests: requests that may be in flight at once, 1 to 1,048,576.
        request_rate: requests a second that may begin in the long run, 0.001 to a million; `inf` for any number.
        request_burst: requests that may begin at once after a silence, 1 to 1,048,576.
        priority: 0, the most urgent, to 7. Levels above 3 get less when there is much to do (`ManagerLimits.requests`).

    Raises:
        ConfigError: names every parameter that is wrong.
    """

    ttl: float = 3600.0
    sliding: bool = True
    max_requests: int = 100
    request_rate: float = inf
    request_burst: int = 10
    priority: int = 3

    def __attrs_post_init__(self) -> None:
        _raise_faults(asdict(self))


def overlay(current: SessionConfig, changes: Mapping[str, Any] | None, defaults: SessionConfig) -> SessionConfig:
    """The configuration with some parameters changed; `None` for one of them means: as `defaults` has it.

    Raises:
        ConfigError: names every key that is no parameter and every value that is out of its range.
        ArgumentError: `changes` is no mapping.
    """
    if changes is None:
        return current
    if not isinstance(changes, Mapping):
        raise ArgumentError(f"config is of type {type(changes).__name__}; it must be a mapping", argument="config")
    values = {
        name: getattr(defaults, name) if value is None and name in _CHECKS else value for name, value in changes.items()
    }
    _raise_faults(values)
    return SessionConfig(**{**asdict(current), **values})


def _raise_faults(values: Mapping[str, Any]) -> None:
    faults: dict[str, str] = {}
    for name, value in values.items():
        check = _CHECKS.get(name)
        if check is None:
            faults[str(name)] = f"{name!r} is no parameter of a session"
            continue
        try:
            check(name, value)
        except ArgumentError as error:
            faults[name] = error.message
    if faults:
        raise ConfigError("; ".join(faults.values()), arguments=tuple(faults))


PARAMETERS = tuple(fields_dict(SessionConfig))
"""The names of the parameters."""
