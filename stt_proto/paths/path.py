"""One path: a carrier and two addresses, and what is known of the way between them."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from stt_proto.errors import ArgumentError
from stt_proto.paths.ecn import EcnValidation
from stt_proto.paths.mtu import BASE_SIZE, MtuSearch
from stt_proto.paths.trains import TrainSizer
from stt_proto.paths.validation import Challenge, Patience
from stt_proto.recovery import INITIAL_RTT, LONGEST_RTT, ControllerFactory, Recovery, SentPacket
from stt_proto.types import CarrierTraits, NetworkPath, PathInfo, PathStatus

ORDINARY_SIZE = 1472
"""Bytes of datagrams that every link is made for: those of Ethernet."""
CHALLENGE_DATAGRAM = 1200
"""Bytes of a datagram with a challenge where datagrams get lost: it shows that such ones pass (RFC 9000, 8.2.1)."""
AMPLIFICATION = 3
"""Bytes sent to an address for each that came from there, until it is validated (RFC 9000, 8.1)."""
LEAST_RTT = 0.001
"""Seconds; a shorter round trip of the handshake counts as this, since timers are no finer."""


class Path:
    """Where a session sends, with the loss recovery of that way (RFC 9002: each path has its own).

    Args:
        network_path: the addresses.
        traits: of its carrier.
        max_packet: bytes of the largest packet that the peer takes.
        max_segments: datagrams in which the peer takes a packet.
        congestion: name of the congestion controller, or a factory; carriers that are reliable need none.
        max_ack_delay: seconds that the peer may hold an acknowledgement back.
        rtt: seconds of a round trip as it was measured before, or `None`.
        remote_id: number of the peer's connection ID to which this path sends.
        opened_here: whether this side has chosen to send there; if not, somebody sent from there.

    Attributes:
        network_path: as given.
        traits: of its carrier.
        validated: whether the peer is known to be at the other end. For the first path the handshake shows it, since
            nobody who did not receive a CHALLENGE can answer it.
        remote_id, opened_here: as given.
        borrows: whether that ID is known on another path too, since there was no other one (C-6).
        arrived_by: our connection ID to which the first packet on this path came; `b""` before.
        challenge: the question whether the peer is there, while one is open.
        response: the newest challenge of the peer that is to be answered here, or `None`.
        wish: number of our MOVE that names this path, 0 without one.
        asked_for: whether the peer has asked to move here.
        received: bytes of packets that came this way while it was not the active path.
        sent: bytes sent to an address that was not validated.
        heard_at: when something came this way last, while it was not the active path.
        recovery: what is on its way there.
        max_datagram: bytes of the largest datagram that the path is known to carry.
        mtu: finds out whether there are larger ones.
        trains: how many datagrams the next packet may span.
        ecn: whether datagrams say that congestion may be marked on them.
    """

    __slots__ = (
        "arrived_by",
        "asked_for",
        "borrows",
        "challenge",
        "ecn",
        "heard_at",
        "max_datagram",
        "mtu",
        "network_path",
        "opened_here",
        "received",
        "recovery",
        "remote_id",
        "response",
        "sent",
        "trains",
        "traits",
        "validated",
        "wish",
    )

    def __init__(
        self,
        network_path: NetworkPath,
        traits: CarrierTraits,
        *,
        max_packet: int,
        max_segments: int,
        congestion: str | ControllerFactory,
        max_ack_delay: float,
        rtt: float | None,
        remote_id: int = 0,
        opened_here: bool = True,
        validated: bool = True,
        now: float = 0.0,
    ) -> None:
        self.network_path = network_path
        self.traits = traits
        self.validated = validated
        self.remote_id = remote_id
        self.opened_here = opened_here
        self.borrows = False
        self.arrived_by = b""
        self.challenge: Challenge | None = None
        self.response: bytes | None = None
        self.wish = 0
        self.asked_for = False
        self.received = self.sent = 0
        self.heard_at = now
        size = self.max_datagram = min(traits.max_packet, max_packet)
        self.mtu = MtuSearch(
            size, min(traits.max_probe or size, max_packet), base=size if traits.reliable else min(size, BASE_SIZE)
        )
        self.recovery = Recovery(
            size,
            congestion=congestion,
            initial_rtt=INITIAL_RTT if rtt is None or rtt > LONGEST_RTT else max(rtt, LEAST_RTT),
            max_ack_delay=max_ack_delay,
            reliable=traits.reliable,
        )
        self.trains = TrainSizer(1 if traits.reliable else max_segments, size, max_packet)
        self.ecn = EcnValidation(not traits.reliable)

    def info(self, active: bool) -> PathInfo:
        """A snapshot; `active` tells whether this is where the session sends."""
        stats = self.recovery.stats()
        known = PathStatus.SPARE if self.validated else PathStatus.VALIDATING
        return PathInfo(
            path=self.network_path,
            status=PathStatus.ACTIVE if active else known,
            opened_here=self.opened_here,
            rtt=stats.rtt_smoothed,
            congestion_window=int(stats.window),
            bytes_in_flight=stats.bytes_in_flight,
            packets_lost=stats.packets_lost,
            mtu=self.max_datagram,
        )

    # -- is the peer there? ----------------------------------------------------------------------------------------

    def ask(self, data: bytes, patience: Patience, now: float) -> None:
        """Ask the far end to repeat `data`, instead of what it was asked before."""
        self.challenge = Challenge(data, patience, self.recovery.pto, now)

    def on_answered(self, now: float, over_it: bool) -> bool:
        """The far end repeated the data of `challenge`; tell whether the path was not validated before.

        The round trip is known then, if the question was asked only once, and the answer came the same way.
        """
        challenge, self.challenge = self.challenge, None
        if over_it and challenge is not None and challenge.asked == 1:
            self.recovery.rtt.update(now - challenge.last_at, 0.0, now)
        fresh = not self.validated
        self.validated = True
        return fresh

    @property
    def allowance(self) -> float:
        """Bytes that may be sent now to whoever is there: `inf` once that is known to be the peer, or our own wish."""
        if self.validated or self.opened_here:
            return inf
        return AMPLIFICATION * self.received - self.sent

    @property
    def question_size(self) -> int:
        """Bytes of a datagram with a challenge; 0 where nothing is gained by filling it up, on reliable carriers."""
        return 0 if self.traits.reliable else int(min(CHALLENGE_DATAGRAM, self.allowance))

    # -- sizes -----------------------------------------------------------------------------------------------------

    def wants_mtu_probe(self, now: float) -> bool:
        """Whether it is wise to send a probe of the MTU; to be asked when one is due, and there is something to send.

        Wise is: when a datagram's worth is on its way already, so that a larger one would be of use; not while the
        network does not answer; and when the path is wide enough. A window is never smaller than two datagrams, and
        large ones are as bad for slow links as long trains. If it is not wide enough, that is asked again a round trip
        later.
        """
        recovery, size = self.recovery, self.mtu.candidate
        if recovery.bytes_in_flight < self.max_datagram or recovery.probes or not recovery.rtt.samples:
            return False
        wide = recovery.controller.window >= 2 * size
        if wide and (size <= ORDINARY_SIZE or self.trains.suits(size, recovery)):
            return True
        self.mtu.probe_at = now + recovery.rtt.minimum
        return False

    def datagram_size(self) -> int:
        """Bytes of the largest datagram to send next; of two probes the first is small where large ones may be lost."""
        recovery = self.recovery
        if recovery.probes > 1 and self.mtu.doubts(recovery.pto_count):
            return self.mtu.base
        return self.max_datagram

    def on_acked(self, packets: Sequence[SentPacket], now: float) -> bool:
        """These packets arrived; tell whether `max_datagram` has changed."""
        self.mtu.on_acked(packets, now)
        return self._resize()

    def on_lost(self, packets: Sequence[SentPacket], now: float) -> bool:
        """These packets did not arrive; tell whether `max_datagram` has changed."""
        self.ecn.on_lost(packets)
        self.mtu.on_lost(packets, now)
        return self._resize()

    def on_refused(self, size: int, limit: int | None, now: float) -> bool:
        """The host refused a datagram of `size` bytes (see `MtuSearch.on_refused`); tell whether `max_datagram` did
        change.

        Raises:
            ArgumentError: one of both is no size.
        """
        for name, value in (("size", size), ("limit", 1 if limit is None else limit)):
            if type(value) is not int or value < 1:
                raise ArgumentError(f"{name} is {value!r}; it must be a whole number of at least 1", argument=name)
        self.mtu.on_refused(size, limit, now)
        return self._resize()

    def _resize(self) -> bool:
        size = self.mtu.size
        if size == self.max_datagram:
            return False
        self.max_datagram = size
        self.recovery.set_max_datagram_size(size)
        self.trains.resize(size)
        return True
