"""Frames in: what was opened is taken apart, and each frame goes to the engine that it concerns.

The table at the end is the whole of it: a kind of frame, and who takes it. A rule that is broken raises the
`RemoteError` with its code of docs/protocol.md section 12, which ends the session it came in on and no other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from stt_proto.errors import EncryptionError, ProtocolError, ResourcesExhaustedError
from stt_proto.events import DatagramReceived
from stt_proto.packet import Opened
from stt_proto.session.context import EventSink
from stt_proto.session.control import KEEP_ALIVE_ACK, PATH_RESPONSE
from stt_proto.session.engines import Engines
from stt_proto.types import Buffer, NetworkPath
from stt_proto.wire import (
    Ack,
    Confirm,
    DataBlocked,
    Datagram,
    Frame,
    KeepAlive,
    KeepAliveAck,
    MaxData,
    MaxStreamData,
    MaxStreams,
    NewConnectionId,
    Padding,
    PathChallenge,
    PathResponse,
    Ping,
    ResetStream,
    RetireConnectionId,
    SessionClose,
    StopSending,
    Stream,
    StreamDataBlocked,
    StreamOpen,
    StreamsBlocked,
    decode_frames_untrusted,
)

ACK_DELAY_UNIT = 8e-6
"""Seconds in one unit of the delay in an ACK frame."""
ROUTED_PTOS = 3
"""Probe timeouts for which a retired connection ID is still routed (C-4)."""


class Inbound:
    """The way in of one session.

    Attributes:
        closed_by: the SESSION_CLOSE that arrived, if one did.
        confirmed: whether the responder's CONFIRM arrived.
    """

    __slots__ = ("_engines", "_events", "closed_by", "confirmed")

    def __init__(self, engines: Engines, events: EventSink) -> None:
        self._engines = engines
        self._events = events
        self.closed_by: SessionClose | None = None
        self.confirmed = False

    def receive(
        self,
        data: Buffer,
        start: int,
        end: int,
        segment_size: int | None,
        path: NetworkPath,
        now: float,
        ecn: int,
    ) -> bool:
        """Take in datagrams that name this session; tell whether a packet opened.

        Raises:
            RemoteError: the peer broke a rule; the session ends with that.
        """
        engines = self._engines
        known = engines.path.network_path
        over_it = path is known or path == known
        packets = engines.receiver.receive(data, start, end, segment_size, path, now, over_it, ecn)
        if not packets:
            if engines.receiver.exhausted:
                raise EncryptionError("too many packets did not open")
            return False
        engines.liveness.last_received = now
        counters = engines.counters
        for packet in packets:
            counters.bytes_received += packet.size
            counters.packets_received += 1
            if engines.trace is not None:
                engines.trace.packet_received(engines.session_id, packet.number, packet.size, packet.segments, now)
            self._take_apart(packet, over_it, now)
            if self.closed_by is not None:
                break
        return True

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
        for packet in packets:
            frame = _close_in(packet.plain)
            if frame is not None:
                self.closed_by = frame
                engines.acks.on_packet(packet.number, packet.segments, True, now, packet.ecn)
        return bool(packets)

    def _take_apart(self, packet: Opened, over_it: bool, now: float) -> None:
        engines = self._engines
        eliciting = False
        frames = decode_frames_untrusted(packet.plain)
        for frame in frames:
            kind = frame.__class__
            if kind is Stream:
                engines.streams.on_stream(*frame)
                eliciting = True
            elif kind is Ack:
                self._on_ack(frame, over_it, now)  # type: ignore[arg-type]
            else:
                eliciting |= HANDLERS[kind](self, frame, now)
        if len(frames) == 1 and frames[0].__class__ is Padding:
            self._suspect(1, now)
        engines.acks.on_packet(packet.number, packet.segments, eliciting, now, packet.ecn)
        suspicious = engines.streams.suspicious
        if suspicious:
            engines.streams.suspicious = 0
            self._suspect(suspicious, now)

    def _suspect(self, count: int, now: float) -> None:
        if not self._engines.suspicion.drain(count, now):
            raise ResourcesExhaustedError("too many frames that mean nothing")

    # -- acknowledgements ------------------------------------------------------------------------------------------

    def _on_ack(self, frame: Ack, over_it: bool, now: float) -> None:
        engines = self._engines
        for low, high in frame.ranges:
            engines.numbers.check_acked(low, high)
        if frame.failed_trains:
            engines.path.trains.on_failed(frame.failed_trains, now)
        acked, lost = engines.path.recovery.on_ack(frame.ranges, frame.delay * ACK_DELAY_UNIT, now, over_it)
        reported = engines.fates.acked(acked)
        if reported >= 0:
            engines.acks.on_acked(reported)
        if lost:
            engines.declare_lost(lost, now)

    # -- everything else: each tells whether its frame is to be acknowledged ---------------------------------------

    def _on_padding(self, frame: Padding, now: float) -> bool:
        return False

    def _on_ping(self, frame: Ping, now: float) -> bool:
        self._suspect(1, now)
        return True

    def _on_keep_alive(self, frame: KeepAlive, now: float) -> bool:
        if not self._engines.control.answer(KEEP_ALIVE_ACK, frame.token):
            self._suspect(1, now)
        return True

    def _on_keep_alive_ack(self, frame: KeepAliveAck, now: float) -> bool:
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
        if not self._engines.control.answer(PATH_RESPONSE, frame.data):
            self._suspect(1, now)
        return True

    def _on_path_response(self, frame: PathResponse, now: float) -> bool:
        self._suspect(1, now)
        return True

    def _on_new_connection_id(self, frame: NewConnectionId, now: float) -> bool:
        retired = self._engines.remote_ids.add(frame)
        if retired is None:
            self._suspect(1, now)
        for number in retired or ():
            self._engines.control.put(("retire", number))
        return True

    def _on_retire_connection_id(self, frame: RetireConnectionId, now: float) -> bool:
        engines = self._engines
        linger = ROUTED_PTOS * engines.path.recovery.pto
        issued = engines.local_ids.on_retire(frame.number, now, linger)
        if not issued:
            self._suspect(1, now)
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
        if is_edge:
            self._events.append(DatagramReceived())
        return True


def _close_in(plain: bytes) -> SessionClose | None:
    """The SESSION_CLOSE in a packet, if there is one."""
    try:
        frames = decode_frames_untrusted(plain)
    except ProtocolError:
        return None
    return next((frame for frame in frames if isinstance(frame, SessionClose)), None)


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
    }
)
"""Who takes a frame; STREAM and ACK, which come with every packet, are taken without looking here."""
