"""What a congestion controller is, and what it is given to decide with.

`Recovery` finds out what was delivered and what was lost; a controller says how much may be in flight, and how fast
it may leave. The interface is wide enough for controllers that count losses (NewReno, CUBIC), that watch delays
(HyStart++), and that model the path (BBR): they see each packet with its samples, and the path that they steer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from stt_proto.recovery.rtt import RttEstimator
from stt_proto.recovery.sent import SentPacket


class PathState(Protocol):
    """What a controller may read of its path. All of it is up to date when a controller is called."""

    @property
    def rtt(self) -> RttEstimator:
        """The round-trip times."""

    @property
    def max_datagram_size(self) -> int:
        """Bytes of the largest datagram that the path carries."""

    @property
    def bytes_in_flight(self) -> int:
        """Bytes sent whose fate is not known."""

    @property
    def packets_sent(self) -> int:
        """Packets recorded so far: the `index` of the next."""

    @property
    def delivered(self) -> int:
        """Bytes acknowledged so far."""

    @property
    def delivered_time(self) -> float:
        """When the last of them were."""

    @property
    def lost(self) -> int:
        """Bytes declared lost so far, probes of the MTU left out."""

    @property
    def app_limited(self) -> bool:
        """Whether what is delivered now was sent by an application that had no more to send."""

    @property
    def window_used(self) -> bool:
        """Whether the window was full while the packets just acknowledged were in flight (R-8)."""


class CongestionController(Protocol):
    """Decides for one path. Packets come in the order of sending; at least one in each call."""

    window: float
    """Bytes that may be in flight; at least two datagrams."""

    ssthresh: float
    """Bytes below which the window grows by slow start; `inf` before the first congestion. For those who look on."""

    @property
    def pacing_rate(self) -> float | None:
        """Bytes in a second, above 0; `None` leaves it to the window."""

    def on_sent(self, packet: SentPacket, path: PathState) -> None:
        """A packet was sent. It is in flight already, and its samples are set."""

    def on_acked(self, packets: Sequence[SentPacket], now: float, sample: float | None, path: PathState) -> None:
        """Packets were acknowledged by one ACK, and are in flight no longer.

        `sample` is the RTT in seconds that this ACK was good for; the estimator has taken it in. Of one ACK, a mark
        is reported first, then losses, then this.
        """

    def on_lost(self, packets: Sequence[SentPacket], now: float, persistent: bool, path: PathState) -> None:
        """Packets were declared lost, and are in flight no longer. Probes of the MTU are not among them.

        `persistent` means persistent congestion (RFC 9002, 7.6): all that was sent for several round trips is lost.
        """

    def on_congestion_mark(self, sent_time: float, now: float, path: PathState) -> None:
        """Routers marked packets; the newest acknowledged with the news was sent at `sent_time`."""

    def set_max_datagram_size(self, size: int) -> None:
        """The path was found to carry datagrams of `size` bytes."""


ControllerFactory = Callable[[int, RttEstimator], CongestionController]
"""Makes the controller of a path: `(max_datagram_size, rtt) -> controller`. The estimator is the path's, and lives."""
