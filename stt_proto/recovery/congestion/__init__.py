"""Congestion control: the interface, the controllers, and the one place where one is made for a path."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from stt_proto.errors import ArgumentError
from stt_proto.recovery.congestion.base import CongestionController, ControllerFactory, PathState
from stt_proto.recovery.congestion.bbr import Bbr
from stt_proto.recovery.congestion.cubic import Cubic
from stt_proto.recovery.congestion.guarded import GuardedController
from stt_proto.recovery.congestion.newreno import NewReno
from stt_proto.recovery.congestion.uncongested import Uncongested
from stt_proto.recovery.rtt import RttEstimator

__all__ = [
    "CONTROLLERS",
    "Bbr",
    "CongestionController",
    "ControllerFactory",
    "Cubic",
    "GuardedController",
    "NewReno",
    "PathState",
    "Uncongested",
    "make_controller",
]

CONTROLLERS: Mapping[str, ControllerFactory] = MappingProxyType({"newreno": NewReno, "cubic": Cubic, "bbr": Bbr})
"""The controllers that a configuration can name."""


def make_controller(
    congestion: str | ControllerFactory, max_datagram_size: int, rtt: RttEstimator
) -> CongestionController:
    """Make the controller of a path. Every controller comes from here, ours and those that users write.

    Args:
        congestion: a name in `CONTROLLERS`, or a factory. What a user's factory makes is guarded.
        max_datagram_size: bytes.
        rtt: the path's estimator.

    Raises:
        ArgumentError: there is no controller of that name.
    """
    if not isinstance(congestion, str):
        if congestion in CONTROLLERS.values():
            return congestion(max_datagram_size, rtt)
        return GuardedController(congestion, max_datagram_size, rtt)
    factory = CONTROLLERS.get(congestion)
    if factory is None:
        names = ", ".join(CONTROLLERS)
        raise ArgumentError(f"congestion must be one of {names}, not {congestion!r}", argument="congestion")
    return factory(max_datagram_size, rtt)
