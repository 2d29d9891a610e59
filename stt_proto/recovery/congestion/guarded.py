"""A guard around controllers that others wrote: their mistakes must not stop a session (docs/protocol.md, R-15)."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

from stt_proto.recovery.congestion.base import CongestionController, ControllerFactory, PathState
from stt_proto.recovery.congestion.cubic import Cubic
from stt_proto.recovery.congestion.window import MINIMUM_DATAGRAMS
from stt_proto.recovery.rtt import RttEstimator
from stt_proto.recovery.sent import SentPacket

LARGEST_WINDOW = 1 << 34
"""Bytes; more than any path holds."""
LEAST_RATE = 100
"""Bytes a second; less is standing still, and what stands still is never found to be wrong."""
LARGEST_RATE = 10**15
"""Bytes a second."""
FAULT_LENGTH = 200
"""Characters of a fault that are kept."""


class GuardedController:
    """Lets a controller decide as long as what it says makes sense.

    The first time that it raises, or that its window or rate is none, it is replaced for good by `Cubic`, which goes
    on from the last window that was one. Controllers of this package need no guard, and have none.

    Args:
        factory: makes the controller. One that fails has the default from the beginning.
        max_datagram_size: bytes.
        rtt: the path's estimator.

    Attributes:
        window, ssthresh: what the controller says; two datagrams at least.
        fault: what it did wrong, in a sentence; `None` as long as it decides.
    """

    __slots__ = ("_controller", "_max_datagram_size", "_rtt", "fault", "ssthresh", "window")

    def __init__(self, factory: ControllerFactory, max_datagram_size: int, rtt: RttEstimator) -> None:
        self._max_datagram_size = max_datagram_size
        self._rtt = rtt
        self._controller: CongestionController = Cubic(max_datagram_size, rtt)
        self.fault: str | None = None
        self.window: float = self._controller.window
        self.ssthresh: float = inf
        try:
            self._controller = factory(max_datagram_size, rtt)
            self._take_over()
        except Exception as error:
            self.fault = _told("the factory", error)
            self._controller = Cubic(max_datagram_size, rtt)

    @property
    def pacing_rate(self) -> float | None:
        """Bytes a second, or `None`."""
        try:
            return _rate(self._controller.pacing_rate)
        except Exception as error:
            self._replace("pacing_rate", error)
            return self._controller.pacing_rate

    def on_sent(self, packet: SentPacket, path: PathState) -> None:
        """A packet was sent."""
        self._call("on_sent", packet, path)

    def on_acked(self, packets: Sequence[SentPacket], now: float, sample: float | None, path: PathState) -> None:
        """Packets were acknowledged."""
        self._call("on_acked", packets, now, sample, path)

    def on_lost(self, packets: Sequence[SentPacket], now: float, persistent: bool, path: PathState) -> None:
        """Packets were declared lost."""
        self._call("on_lost", packets, now, persistent, path)

    def on_congestion_mark(self, sent_time: float, now: float, path: PathState) -> None:
        """Routers marked packets."""
        self._call("on_congestion_mark", sent_time, now, path)

    def set_max_datagram_size(self, size: int) -> None:
        """The path was found to carry datagrams of `size` bytes."""
        self._max_datagram_size = size
        self._call("set_max_datagram_size", size)

    def _call(self, name: str, *arguments: Any) -> None:
        """Tell the controller, and if it fails, who takes its place."""
        try:
            getattr(self._controller, name)(*arguments)
            self._take_over()
        except Exception as error:
            self._replace(name, error)
            getattr(self._controller, name)(*arguments)
            self._take_over()

    def _take_over(self) -> None:
        """Read off what the controller says, if it makes sense.

        Raises:
            ValueError: it does not.
        """
        controller = self._controller
        window = _number("window", controller.window, MINIMUM_DATAGRAMS * self._max_datagram_size, LARGEST_WINDOW)
        self.ssthresh = _number("ssthresh", controller.ssthresh, 0, inf)
        self.window = window

    def _replace(self, where: str, error: Exception) -> None:
        """Let the default go on. What it raises is a mistake of ours, which is not to be hidden."""
        if self.fault is not None:
            raise error
        self.fault = _told(where, error)
        controller = Cubic(self._max_datagram_size, self._rtt)
        controller.go_on_from(self.window)
        self._controller = controller


def _number(name: str, value: Any, low: float, high: float) -> float:
    if not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}; it must be from {low:,} to {high:,}")
    return value


def _rate(value: Any) -> float | None:
    return None if value is None else _number("pacing_rate", value, LEAST_RATE, LARGEST_RATE)


def _told(where: str, error: Exception) -> str:
    """A fault in a sentence. Even what it says of itself may fail."""
    try:
        what = str(error)
    except Exception:
        what = "it cannot tell what"
    return f"{where}: {type(error).__name__}: {what}"[:FAULT_LENGTH]
