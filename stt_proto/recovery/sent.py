"""What the sender remembers of a packet until its fate is known."""

from __future__ import annotations

from typing import Any


class SentPacket:
    """A packet on its way. A plain class with slots, since one is made for each packet.

    Args:
        number: the packet number; rises over all paths of the session.
        time: when it was sent, in seconds.
        size: bytes of all its datagrams, headers and tag included.
        segments: datagrams that it spans.
        eliciting: whether the peer is asked to acknowledge it.
        in_flight: whether it counts against the congestion window. What elicits always does; beyond that only
            padding.
        tokens: what to do when it is acknowledged or lost. Opaque: nothing in this room looks inside.
        mtu_probe: whether its loss says something about its size and nothing about congestion (RFC 9000, 14.4).

    Attributes:
        index: its place among the packets recorded on its path, from 0. Distances between packets are measured in
            it: the numbers of one path have holes, where other paths sent or numbers were skipped.
        delivered: bytes delivered on the path when it was sent.
        delivered_time: when the last of these were acknowledged.
        first_sent_time: when the packet was sent that these acknowledgements answered: the start of the flight.
        app_limited: whether the application, not the network, was what limited sending.
        memo: for the congestion controller's own use. Unset until the controller sets it.

    The four in between are what a sample of the delivery rate is made of (draft-ietf-ccwg-bbr). All but the
    arguments is set by `Recovery.on_sent`.
    """

    __slots__ = (
        "number",
        "time",
        "size",
        "segments",
        "eliciting",
        "in_flight",
        "tokens",
        "mtu_probe",
        "index",
        "delivered",
        "delivered_time",
        "first_sent_time",
        "app_limited",
        "memo",
    )

    index: int
    delivered: int
    delivered_time: float
    first_sent_time: float
    app_limited: bool
    memo: Any

    def __init__(
        self,
        number: int,
        time: float,
        size: int,
        segments: int,
        eliciting: bool,
        in_flight: bool,
        tokens: Any = (),
        mtu_probe: bool = False,
    ) -> None:
        self.number = number
        self.time = time
        self.size = size
        self.segments = segments
        self.eliciting = eliciting
        self.in_flight = in_flight
        self.tokens = tokens
        self.mtu_probe = mtu_probe

    def __repr__(self) -> str:
        kind = "eliciting" if self.eliciting else "silent"
        return f"<SentPacket {self.number} at {self.time:.6f}: {self.size} bytes in {self.segments}, {kind}>"
