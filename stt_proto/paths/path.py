"""One path: a carrier and two addresses, and what is known of the way between them."""

from __future__ import annotations

from stt_proto.paths.trains import TrainSizer
from stt_proto.recovery import INITIAL_RTT, LONGEST_RTT, Recovery
from stt_proto.types import CarrierTraits, NetworkPath

LEAST_RTT = 0.001
"""Seconds; a shorter round trip of the handshake counts as this, since timers are no finer."""


class Path:
    """Where a session sends, with the loss recovery of that way (RFC 9002: each path has its own).

    Args:
        network_path: the addresses.
        traits: of its carrier.
        max_datagram: bytes of the largest datagram that both the carrier and the peer take.
        max_segments: datagrams that one packet may span.
        congestion: name of the congestion controller.
        max_ack_delay: seconds that the peer may hold an acknowledgement back.
        rtt: seconds of a round trip as the handshake measured it, or `None`.

    Attributes:
        validated: whether the peer is known to be at the other end. The handshake shows it, since nobody who did not
            receive a CHALLENGE can answer it.
        recovery: what is on its way there.
        trains: how many datagrams the next packet may span.
    """

    __slots__ = ("max_datagram", "network_path", "recovery", "trains", "traits", "validated")

    def __init__(
        self,
        network_path: NetworkPath,
        traits: CarrierTraits,
        *,
        max_datagram: int,
        max_segments: int,
        congestion: str,
        max_ack_delay: float,
        rtt: float | None,
    ) -> None:
        self.network_path = network_path
        self.traits = traits
        self.max_datagram = max_datagram
        self.validated = True
        self.recovery = Recovery(
            max_datagram,
            congestion=congestion,
            initial_rtt=INITIAL_RTT if rtt is None or rtt > LONGEST_RTT else max(rtt, LEAST_RTT),
            max_ack_delay=max_ack_delay,
        )
        self.trains = TrainSizer(max_segments, max_datagram)
