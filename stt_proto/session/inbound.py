"""Frames in: what was opened is taken apart, and each frame goes to the engine that it concerns.

The table at the end is the whole of it: a kind of frame, and who takes it. A rule that is broken raises the
`RemoteError` with its code of docs/protocol.md section 12, which ends the session it came in on and no other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from types import MappingProxyType
from typing import Any

from stt_proto.errors import EncryptionError, ProtocolError, ResourcesExhaustedError
from stt_proto.events import DatagramReceived, ExtensionFrameReceived, TicketReceived
from stt_proto.packet import Opened
from stt_proto.paths import Path
from stt_proto.session.context import EventSink
from stt_proto.session.control import ACK_FREQUENCY
from stt_proto.session.engines import Engines
from stt_proto.session.moves import Moves
from stt_proto.types import Buffer, NetworkPath
from stt_proto.wire import (
    Ack,
    AckFrequency,
    Confirm,
    DataBlocked,
    Datagram,
    Expired,
    Extension,
    Frame,
    KeepAlive,
    KeepAliveAck,
    MaxData,
    MaxStreamData,
    MaxStreams,
    Move,
    NewConnectionId,
    Padding,
    PathChallenge,
    PathResponse,
    Ping,
    Priority,
    ResetStream,
    RetireConnectionId,
    Rotate,
    SessionClose,
    StopSending,
    Stream,
    StreamDataBlocked,
    StreamOpen,
    StreamsBlocked,
    Ticket,
    decode_frames_untrusted,
    decoders_for,
)
from stt_proto.wire.header import CONNECTION_ID_SIZE

ACK_DELAY_UNIT = 8e-6
"""Seconds in one unit of the delay in an ACK frame."""
EMPTY_DATAGRAMS = 64
"""Datagrams without data that are suspicious once (F-5): an application may send them, by the thousand in a second."""
REPEATED_TOGETHER = 64
"""Frames of one packet that say what is known and are suspicious once (F-5): without an answer packets are repeated."""
ROUTED_PTOS = 3
"""Probe timeouts for which a retired connection ID is still routed (C-4)."""


class Inbound:
    """The way in of one session.

    Attributes:
        closed_by: the SESSION_CLOSE that arrived, if one did.
        confirmed: whether the responder's CONFIRM arrived.
    """

    __slots__ = (
        "_arrived_by",
        "_decoders",
        "_empty",
        "_engines",
        "_events",
        "_moves",
        "_over",
        "_repeated",
        "_silent",
        "closed_by",
        "confirmed",
    )

    def __init__(self, engines: Engines, moves: Moves, events: EventSink, extensions: frozenset[int]) -> None:
        self._engines = engines
        self._moves = moves
        self._events = events
        self._decoders = decoders_for(extensions)
        self._silent = 0  # packets that asked for no acknowledgement
        self._empty = 0  # datagrams without data, and frames of the application
        self._repeated = 0  # frames of the packet that is being taken in which say what is known
        self._arrived_by = b""  # the connection ID of packets that came over another path than the active one
        self._over: Path | None = None  # that path; `None` for the active one
        self.closed_by: SessionClose | None = None
        self.confirmed = False

    def open(
        self,
        data: Buffer,
        start: int,
        end: int,
        segment_size: int | None,
        path: NetworkPath,
        now: float,
        ecn: int,
    ) -> list[Opened]:
        """Take in datagrams that name this session; give the packets that opened, in order.

        Raises:
            RemoteError: too much did not open; the session ends with that.
        """
        engines = self._engines
        known = engines.path.network_path
        if path is known or path == known:
            trusted = engines.path.validated
        else:
            other = self._moves.table.others.get(path)
            trusted = other is not None and other.validated
            self._arrived_by = bytes(data[start + 1 : start + 1 + CONNECTION_ID_SIZE])
        packets = engines.receiver.receive(data, start, end, segment_size, path, now, trusted, ecn)
        if engines.trace is not None:
            engines.trace.received(packets, engines.receiver.counters, now)
        if packets:
            engines.liveness.last_received = now
        elif engines.receiver.exhausted:
            raise EncryptionError("too many packets did not open")
        return packets

    def read(self, packet: Opened) -> list[Frame]:
        """Give the frames of a packet, which changes nothing.

        Raises:
            RemoteError: it does not parse; the session ends with that.
        """
        return decode_frames_untrusted(packet.plain, self._decoders)

    def take(self, packet: Opened, frames: list[Frame], path: NetworkPath, now: float) -> None:
        """Hand the frames of a packet to whom they concern.

        Raises:
            RemoteError: the peer broke a rule; the session ends with that.
        """
        engines = self._engines
        active = engines.path
        known = active.network_path
        over_it = path is known or path == known
        counters = engines.counters
        counters.bytes_received += packet.size
        counters.packets_received += 1
        self._over = None if over_it else self._moves.heard(path, self._arrived_by, packet, frames, now)
        if over_it and not active.validated:
            self._moves.on_unproven(packet.size, now)
        eliciting = False
        acks = 0
        for frame in frames:
            kind = frame.__class__
            if kind is Stream:
                engines.streams.on_stream(*frame)
                eliciting = True
            elif kind is Ack:
                self._on_ack(frame, over_it, now)  # type: ignore[arg-type]
                acks += 1
            elif kind is Rotate:
                self._on_rotate(frame, packet.epoch, now)  # type: ignore[arg-type]
                eliciting = True
            else:
                eliciting |= HANDLERS[kind](self, frame, now)
        if not eliciting or acks > 1:
            self._weigh(frames, eliciting, acks, now)
        engines.acks.on_packet(packet.number, packet.segments, eliciting, now, packet.ecn)
        suspicious = engines.streams.suspicious
        if suspicious or self._repeated:
            self._weigh_repeated(suspicious, now)

    def receive_closed(
        self,
        data: Buffer,
        start: int,
        end: int,
        segment_size: int | None,
        path: NetworkPath,
        now: float,
        ecn: int,
    ) -> bool:
        """Take in datagrams for a session that is over; tell whether a packet opened.

        Of what was in it nothing counts but the peer's own SESSION_CLOSE (`closed_by`). Only that is acknowledged:
        everything else is thrown away, and a peer that is told otherwise takes its data for delivered.
        """
        engines = self._engines
        packets = engines.receiver.receive(data, start, end, segment_size, path, now, False, ecn)
        if engines.trace is not None:
            engines.trace.received(packets, engines.receiver.counters, now)
        for packet in packets:
            frame = self._close_in(packet)
            if frame is not None:
                self.closed_by = frame
                engines.acks.on_packet(packet.number, packet.segments, True, now, packet.ecn)
        return bool(packets)

    def _close_in(self, packet: Opened) -> SessionClose | None:
        """The SESSION_CLOSE in a packet, if there is one."""
        try:
            frames = self.read(packet)
        except ProtocolError:
            return None
        return next((frame for frame in frames if isinstance(frame, SessionClose)), None)

    def _weigh(self, frames: list[Frame], eliciting: bool, acks: int, now: float) -> None:
        """Look at a packet that is unusual: what in it did nobody ask for (F-5)?

        A packet has one ACK. One that asks for no acknowledgement answers one that did: so there are no more of these,
        in whatever order they arrive, than packets of ours.
        """
        suspicious = max(0, acks - 1)
        if not eliciting:
            self._silent += 1
            only_padding = len(frames) == 1 and frames[0].__class__ is Padding
            suspicious += only_padding or self._silent > self._engines.eliciting_sent
        if suspicious:
            self._suspect(suspicious, now)

    def _weigh_repeated(self, suspicious: int, now: float) -> None:
        """What a packet says that is known counts once, or once for each 64 of it (F-5).

        Its sender may have repeated it many times while this side did not answer; and each time all that is in it.
        """
        streams = self._engines.streams
        repeated = streams.repeated + self._repeated
        suspicious -= streams.repeated
        streams.suspicious = streams.repeated = self._repeated = 0
        self._suspect(suspicious + ceil(repeated / REPEATED_TOGETHER), now)

    def _suspect(self, count: int, now: float) -> None:
        if not self._engines.suspicion.drain(count, now):
            raise ResourcesExhaustedError("too many frames that mean nothing")

    # -- acknowledgements ------------------------------------------------------------------------------------------

    def _on_ack(self, frame: Ack, over_it: bool, now: float) -> None:
        engines = self._engines
        path = engines.path
        for low, high in frame.ranges:
            engines.numbers.check_acked(low, high)
        if frame.failed_trains:
            path.trains.on_failed(frame.failed_trains, now)
        marking = path.ecn.active
        counts = frame.ecn if marking else None
        acked, lost = path.recovery.on_ack(frame.ranges, frame.delay * ACK_DELAY_UNIT, now, over_it, counts)
        if marking and acked:
            path.ecn.on_acked(acked, frame.largest, counts, engines.numbers.next_number)
        if path.mtu.watching and path.on_acked(acked, now):
            engines.limit_datagrams()
        if acked and engines.ack_rate.able and not path.recovery.reliable:
            self._ask_for_acks(path)
        reported = engines.fates.acked(acked)
        if reported >= 0:
            engines.acks.on_acked(reported)
        if lost:
            engines.declare_lost(lost, now)
        if self._moves.table.others:
            self._on_ack_elsewhere(frame, now)
        if engines.trace is not None:
            engines.trace.look(engines.path, now)

    def _on_ack_elsewhere(self, frame: Ack, now: float) -> None:
        """It may be for packets that were sent over other paths before."""
        engines = self._engines
        for path in self._moves.table:
            acked, lost = path.recovery.on_ack(frame.ranges, frame.delay * ACK_DELAY_UNIT, now, path is self._over)
            if acked:
                if path.mtu.watching:
                    path.on_acked(acked, now)
                reported = engines.fates.acked(acked)
                if reported >= 0:
                    engines.acks.on_acked(reported)
            if lost:
                engines.declare_lost(lost, now, path)

    def _ask_for_acks(self, path: Path) -> None:
        """The window may be another now, and with it the number of acknowledgements that are worth their price."""
        engines, recovery = self._engines, path.recovery
        if recovery.rtt.samples and engines.ack_rate.update(
            recovery.controller.window, path.max_datagram, recovery.rtt.smoothed
        ):
            engines.control.put(ACK_FREQUENCY)

    def _on_rotate(self, frame: Rotate, epoch: int, now: float) -> None:
        if not self._engines.rotation.on_rotate(frame, epoch):
            self._suspect(1, now)

    # -- everything else: each tells whether its frame is to be acknowledged ---------------------------------------

    def _on_padding(self, frame: Padding, now: float) -> bool:
        return False

    def _on_ping(self, frame: Ping, now: float) -> bool:
        self._suspect(1, now)
        return True

    def _on_keep_alive(self, frame: KeepAlive, now: float) -> bool:
        self._engines.rest()  # the peer has heard nothing for long
        self._engines.control.answer(frame.token)
        self._suspect(1, now)
        return True

    def _on_keep_alive_ack(self, frame: KeepAliveAck, now: float) -> bool:
        if not self._engines.control.on_asked():
            self._suspect(1, now)
        return False

    def _on_confirm(self, frame: Confirm, now: float) -> bool:
        if self.confirmed:
            self._suspect(1, now)
        self.confirmed = True
        return True

    def _on_session_close(self, frame: SessionClose, now: float) -> bool:
        self.closed_by = frame
        return True

    def _on_path_challenge(self, frame: PathChallenge, now: float) -> bool:
        self._moves.on_challenge(self._over, frame.data)
        self._suspect(1, now)
        return True

    def _on_path_response(self, frame: PathResponse, now: float) -> bool:
        if not self._moves.on_response(frame.data, self._over, now):
            self._suspect(1, now)
        return True

    def _on_move(self, frame: Move, now: float) -> bool:
        if not self._moves.on_move(frame.number, self._over, now):
            self._suspect(1, now)
        return True

    def _on_new_connection_id(self, frame: NewConnectionId, now: float) -> bool:
        retired = self._engines.remote_ids.add(frame)
        if retired is None:
            self._repeated += 1
        for number in retired or ():
            self._engines.control.put(("retire", number))
        self._moves.on_new_id(now)
        return True

    def _on_retire_connection_id(self, frame: RetireConnectionId, now: float) -> bool:
        engines = self._engines
        linger = ROUTED_PTOS * engines.path.recovery.pto
        issued = engines.local_ids.on_retire(frame.number, now, linger)
        if not issued:
            self._repeated += 1
        for number in issued:
            engines.control.put(("new_id", number))
        return True

    def _on_reset_stream(self, frame: ResetStream, now: float) -> bool:
        self._engines.streams.on_reset(*frame)
        return True

    def _on_stop_sending(self, frame: StopSending, now: float) -> bool:
        self._engines.streams.on_stop(*frame)
        return True

    def _on_stream_open(self, frame: StreamOpen, now: float) -> bool:
        self._engines.streams.on_stream_open(*frame)
        return True

    def _on_max_data(self, frame: MaxData, now: float) -> bool:
        self._engines.streams.on_max_data(frame.value)
        return True

    def _on_max_stream_data(self, frame: MaxStreamData, now: float) -> bool:
        self._engines.streams.on_max_stream_data(*frame)
        return True

    def _on_max_streams(self, frame: MaxStreams, now: float) -> bool:
        self._engines.streams.on_max_streams(*frame)
        return True

    def _on_expired(self, frame: Expired, now: float) -> bool:
        self._engines.streams.on_expired(*frame)
        return True

    def _on_ack_frequency(self, frame: AckFrequency, now: float) -> bool:
        self._suspect(1, now)  # a window does not change that often
        self._engines.acks.ask(frame.number, frame.threshold, frame.max_delay / 1e6)
        return True

    def _on_ticket(self, frame: Ticket, now: float) -> bool:
        engines = self._engines
        if engines.tickets.latest is not None:
            self._suspect(1, now)  # one is enough
        ticket = engines.tickets.add(frame, now)
        event = TicketReceived(ticket, ticket.expires_at)
        self._events.append(event)
        if engines.trace is not None:
            engines.trace.event(event, now)
        return True

    def _on_priority(self, frame: Priority, now: float) -> bool:
        self._engines.streams.on_priority(*frame)
        return True

    def _on_data_blocked(self, frame: DataBlocked, now: float) -> bool:
        self._engines.streams.on_data_blocked(frame.limit)
        return True

    def _on_stream_data_blocked(self, frame: StreamDataBlocked, now: float) -> bool:
        self._engines.streams.on_stream_data_blocked(*frame)
        return True

    def _on_streams_blocked(self, frame: StreamsBlocked, now: float) -> bool:
        self._engines.streams.on_streams_blocked(*frame)
        return True

    def _on_datagram(self, frame: Datagram, now: float) -> bool:
        datagrams = self._engines.datagrams
        is_edge = not datagrams.has_arrived
        datagrams.on_datagram(frame.data)
        self._engines.used_at = now
        if not frame.data:
            self._on_empty(now)
        if is_edge:
            self._events.append(DatagramReceived())
        return True

    def _on_extension(self, frame: Extension, now: float) -> bool:
        frames = self._engines.control.frames
        is_edge = not frames.has_arrived
        self._repeated += not frames.on_frame(frame)
        self._engines.used_at = now
        if not frame.data:
            self._on_empty(now)
        if is_edge and frames.has_arrived:
            self._events.append(ExtensionFrameReceived())
        return True

    def _on_empty(self, now: float) -> None:
        """A datagram, or a frame of the application, with nothing in it."""
        self._empty += 1
        if not self._empty % EMPTY_DATAGRAMS:
            self._suspect(1, now)


def is_refusal(frames: list[Frame]) -> bool:
    """Whether the first packet of a responder refuses the session (H-29): it closes what it never confirmed."""
    kinds = {frame.__class__ for frame in frames}
    return SessionClose in kinds and Confirm not in kinds


HANDLERS: Mapping[type[Frame], Callable[[Inbound, Any, float], bool]] = MappingProxyType(
    {
        Padding: Inbound._on_padding,
        Ping: Inbound._on_ping,
        KeepAlive: Inbound._on_keep_alive,
        KeepAliveAck: Inbound._on_keep_alive_ack,
        Confirm: Inbound._on_confirm,
        SessionClose: Inbound._on_session_close,
        PathChallenge: Inbound._on_path_challenge,
        PathResponse: Inbound._on_path_response,
        Move: Inbound._on_move,
        NewConnectionId: Inbound._on_new_connection_id,
        RetireConnectionId: Inbound._on_retire_connection_id,
        ResetStream: Inbound._on_reset_stream,
        StopSending: Inbound._on_stop_sending,
        StreamOpen: Inbound._on_stream_open,
        MaxData: Inbound._on_max_data,
        MaxStreamData: Inbound._on_max_stream_data,
        MaxStreams: Inbound._on_max_streams,
        DataBlocked: Inbound._on_data_blocked,
        StreamDataBlocked: Inbound._on_stream_data_blocked,
        StreamsBlocked: Inbound._on_streams_blocked,
        Datagram: Inbound._on_datagram,
        Priority: Inbound._on_priority,
        Expired: Inbound._on_expired,
        Extension: Inbound._on_extension,
        AckFrequency: Inbound._on_ack_frequency,
        Ticket: Inbound._on_ticket,
    }
)
"""Who takes a frame; STREAM, ACK and ROTATE are taken without looking here."""
