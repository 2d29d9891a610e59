"""The engines of a session that has keys, made from the evidence that its handshake succeeded.

Nothing here acts. It is the place where what both `inbound` and `outbound` need is held, each part once.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from attrs import define, field

from stt_proto.clock import NEVER
from stt_proto.config import Config
from stt_proto.handshake import Established, KeyChain
from stt_proto.packet import (
    LocalConnectionIds,
    PacketKeys,
    PacketNumbers,
    PacketReceiver,
    RemoteConnectionIds,
    Sealer,
    capacity,
)
from stt_proto.paths import Path
from stt_proto.recovery import AckRate, AckTracker, SentPacket
from stt_proto.session.context import EventSink, SessionContext
from stt_proto.session.control import ControlQueue
from stt_proto.session.ending import LINGER_PTOS, MAX_LINGER
from stt_proto.session.extensions import ExtensionFrames
from stt_proto.session.fates import Fates
from stt_proto.session.liveness import Liveness
from stt_proto.session.rotation import KeyRotation, Wear
from stt_proto.session.sight import SessionTrace
from stt_proto.session.suspicion import Suspicion
from stt_proto.session.tickets import TicketBook
from stt_proto.streams import DatagramQueues, StreamTable
from stt_proto.types import NetworkPath
from stt_proto.wire import FrameType, NewConnectionId, Parameters

if TYPE_CHECKING:
    from stt_proto.session.session import Session

MAX_SEGMENTS = 64
"""Datagrams that a packet may come in on a carrier that loses some; elsewhere one."""
CONNECTION_ID_LIMIT = 4
"""Connection IDs of the peer that are kept."""
DATAGRAM_HEADER = 5
"""Bytes that a DATAGRAM frame adds to its data at most."""
EXTENSION_FRAMES = frozenset(
    {
        FrameType.ROTATE,
        FrameType.TICKET,
        FrameType.MOVE,
        FrameType.PRIORITY,
        FrameType.EXPIRED,
        FrameType.ACK_FREQUENCY,
    }
)
"""Frames beyond version 1 that are understood here (X-2)."""
TRAIN_PTOS = 3
"""Probe timeouts for which an incomplete train is kept (P-9)."""


def local_parameters(config: Config) -> Parameters:
    """What this side announces about itself, on every carrier, since a session may go on over another one."""
    return Parameters(
        max_data=config.session_receive_window,
        max_stream_data=config.stream_receive_window,
        max_streams_bidi=config.max_concurrent_streams,
        max_streams_uni=config.max_concurrent_streams,
        max_datagram=config.max_datagram_size,
        max_ack_delay=round(config.ack_delay * 1000),
        max_packet=65_535,
        max_segments=MAX_SEGMENTS,
        idle_timeout=round(config.keep_alive_timeout * 1000),
        connection_id_limit=CONNECTION_ID_LIMIT,
        extension_frames=_understood(config),
        max_early_data=config.max_early_data,
    )


def _understood(config: Config) -> frozenset[int]:
    """The types of the frames that are understood beyond those of section 8 (X-2)."""
    unwanted = {FrameType.TICKET} if config.resumption_timeout < 1 else set()
    return EXTENSION_FRAMES - unwanted | config.extension_frames


@define
class Counters:
    """What went through, all told; bytes are those of datagrams."""

    bytes_sent: int = 0
    bytes_received: int = 0
    packets_sent: int = 0
    packets_received: int = 0
    datagrams_sent: int = 0


@define(eq=False)
class Engines:
    """Everything that works on the packets of one session.

    Attributes:
        path: the way that is used.
        sealer, numbers: make packets.
        receiver: opens packets.
        acks: what arrived and is to be acknowledged.
        ack_rate: how often the peer is asked to do so.
        streams, datagrams: what the application reads and writes.
        local_ids, remote_ids: the connection IDs of both sides.
        control: frames about the session as a whole.
        liveness: signs of life.
        suspicion: a bound on what is legal and suspicious.
        fates: tells what was sent what became of it.
        tickets: what the peer gave, to come back with.
        peer: what the peer announced.
        trace: tells an observer, or `None`.
        counters: what went through.
        sent_elsewhere: packets that recovery recorded on other paths than this one.
        rotation: replaces the keys.
        used_at: when a datagram or frame of the application came or went last.
    """

    path: Path
    sealer: Sealer
    numbers: PacketNumbers
    receiver: PacketReceiver
    acks: AckTracker
    ack_rate: AckRate
    streams: StreamTable
    datagrams: DatagramQueues
    local_ids: LocalConnectionIds[Any]
    remote_ids: RemoteConnectionIds[Session]
    control: ControlQueue
    liveness: Liveness
    suspicion: Suspicion
    fates: Fates
    tickets: TicketBook
    peer: Parameters
    trace: SessionTrace | None
    counters: Counters = field(factory=Counters)
    rotation: KeyRotation = field(init=False)
    sent_elsewhere: int = 0
    used_at: float = NEVER

    @property
    def last_used(self) -> float:
        """When a stream was open last, or a datagram or frame of the application came or went; `NEVER` if none did."""
        return max(self.used_at, self.streams.emptied_at)

    @property
    def eliciting_sent(self) -> int:
        """Packets sent that ask for an acknowledgement, over all paths."""
        return self.path.recovery.packets_sent + self.sent_elsewhere

    @property
    def is_confirmed(self) -> bool:
        """Whether the peer has acknowledged anything."""
        return self.path.recovery.packets_acked > 0 or self.sent_elsewhere > 0

    @property
    def buffered(self) -> int:
        """Bytes of streams that wait here, to be sent or acknowledged, or to be read."""
        streams = self.streams
        return streams.undelivered + streams.window.received - streams.window.consumed

    @property
    def linger(self) -> float:
        """Seconds for which a close is awaited, a session that is over answers, and old keys open (K-1, K-3, V-5)."""
        return min(LINGER_PTOS * self.path.recovery.pto, MAX_LINGER)

    def rest(self) -> None:
        """Hold less: it is so quiet that somebody asks for a sign of life."""
        self.sealer.rest()
        self.receiver.rest()

    def declare_lost(self, packets: list[SentPacket], now: float, path: Path | None = None) -> None:
        """These packets did not arrive; `path` is where they were sent, if that is not the active one."""
        self.fates.lost(packets)
        if packets and (path or self.path).on_lost(packets, now):
            self.limit_datagrams()
        if self.trace is not None:
            self.trace.lost(packets, self.path, now)

    def settle(self, path: Path, now: float) -> None:
        """What was sent over a path before the session moved arrives soon, or is sent again where the session is."""
        recovery = path.recovery
        lost = recovery.on_timeout(now)
        if recovery.settled_by <= now:
            lost += recovery.discard_all()
        if lost:
            self.declare_lost(lost, now, path)

    def limit_datagrams(self) -> None:
        """Fit the unreliable datagrams of the application to those that the path carries."""
        self.datagrams.peer_max = min(self.peer.max_datagram, capacity(self.path.max_datagram, 1) - DATAGRAM_HEADER)

    def due(self, at: float, reason: str, paced_until: float, acks_too: bool) -> tuple[float, str]:
        """The first of these deadlines and `at`. Asked after each packet: one by one they cost a third of `min`."""
        due = self.path.recovery.deadline
        if due < at:
            at, reason = due, "loss"
        if paced_until < at:
            at, reason = paced_until, "pacing"
        due = self.acks.due_at
        if acks_too and due < at:
            at, reason = due, "ack"
        due = self.trains_deadline
        if due < at:
            at, reason = due, "path"
        due = self.local_ids.deadline
        if due < at:
            at, reason = due, "path"
        due = self.streams.deadline
        if due < at:
            at, reason = due, "stream"
        due = self.rotation.deadline
        if due < at:
            at, reason = due, "rotation"
        return at, reason

    @property
    def due_without_path(self) -> float:
        """When a detached session has something to do, its paths and its end apart."""
        return min(self.local_ids.deadline, self.streams.deadline, self.trains_deadline, self.rotation.overlaps_until)

    @property
    def trains_deadline(self) -> float:
        """When an incomplete train is given up: after 3 PTO as they are now, 1 s before the first RTT sample (P-9)."""
        trains = self.receiver.trains
        if not trains:
            return inf
        recovery = self.path.recovery
        if recovery.rtt.samples:
            trains.lifetime = TRAIN_PTOS * recovery.pto
        return trains.deadline

    @classmethod
    def make(
        cls, established: Established, path: NetworkPath, session: Session, context: SessionContext, now: float
    ) -> Engines:
        """Build and wire everything for one session."""
        config, peer, secrets = context.config, established.peer_parameters, established.secrets
        traits = config.carriers[path.carrier]
        ours, theirs = (
            (secrets.initiator_traffic, secrets.initiator_header),
            (secrets.responder_traffic, secrets.responder_header),
        )
        if not established.initiator:
            ours, theirs = theirs, ours
        context.sight.log_keys(secrets)
        if session.trace is not None:
            session.trace.keys_derived(secrets.session_id, secrets.suite.name, local_parameters(config), peer, now)
        events = EventSink(session, context.events)
        streams = StreamTable(established.initiator, config, events, context.window_budget, context.clock)
        streams.set_peer_parameters(peer)
        limits = config.limits
        receiver = PacketReceiver(
            PacketKeys(secrets.suite, *theirs),
            context.train_budget,
            max_trains=limits.trains,
            max_train_bytes=limits.train_bytes,
        )
        local_ids = LocalConnectionIds(context.connection_ids, context.reset_tokens, session, established.local_cid)
        remote_ids = RemoteConnectionIds(context.expected_resets, session, established.peer_cid, CONNECTION_ID_LIMIT)
        if established.peer_reset_token:
            remote_ids.add(NewConnectionId(0, 0, established.peer_cid, established.peer_reset_token))
        ack_rate = AckRate(FrameType.ACK_FREQUENCY in peer.extension_frames, peer.max_ack_delay / 1000)
        frames = ExtensionFrames(limits, peer.extension_frames)
        control = ControlQueue(local_ids, remote_ids, frames, ack_rate)
        engines = cls(
            path=Path(
                path,
                traits,
                max_packet=peer.max_packet,
                max_segments=peer.max_segments,
                congestion=config.congestion,
                max_ack_delay=peer.max_ack_delay / 1000,
                rtt=established.rtt,
            ),
            sealer=Sealer(PacketKeys(secrets.suite, *ours)),
            numbers=PacketNumbers(context.entropy),
            receiver=receiver,
            acks=AckTracker(config.ack_delay),
            ack_rate=ack_rate,
            streams=streams,
            datagrams=DatagramQueues(config),
            local_ids=local_ids,
            remote_ids=remote_ids,
            control=control,
            liveness=Liveness(
                min(config.keep_alive_interval, peer.idle_timeout / 3000),
                config.keep_alive_timeout,
                established.initiator,
                now,
            ),
            suspicion=Suspicion(limits.suspicious_burst, limits.suspicious_per_second, now),
            fates=Fates(streams, control),
            tickets=TicketBook(config.identity.node_id, established, context.clock),
            peer=peer,
            trace=session.trace,
        )
        chain = KeyChain(established, config.identity.static_key, context.entropy)
        wear = Wear(config, context.entropy)
        engines.rotation = control.rotation = KeyRotation(engines, chain, wear, context, events, secrets.session_id)
        engines.limit_datagrams()
        return engines
