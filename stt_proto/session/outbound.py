"""Packets out: what should the next one hold?

In this order: an acknowledgement that is due, what is about the session, what is about streams, datagrams, stream
data. An acknowledgement that is not due travels with whatever goes anyway. Everything that elicits an answer is held
back by the congestion window and the pacer, but for the probes that recovery asks for.
"""

from __future__ import annotations

from math import inf

from stt_proto.packet import MAX_RESET, capacity
from stt_proto.paths import Path
from stt_proto.recovery import SentPacket
from stt_proto.session.control import NON_ELICITING, PING
from stt_proto.session.engines import Engines
from stt_proto.session.fates import PacketContents
from stt_proto.types import Transmit
from stt_proto.wire import Ping, SessionClose, encode_ack

LEAST_FRAMES = capacity(MAX_RESET + 1, 1)
"""Bytes of frames in the smallest packet that is to be acknowledged; a stateless reset can answer even that (P-14)."""

LITTLE = 512
"""Bytes of stream data, frames not counted, that are no reason to ask how long a train may be."""

Parts = list[bytes | memoryview]


class Outbound:
    """The way out of one session.

    Attributes:
        paced_until: when the pacer lets the next packet go; `inf` when it holds nothing back.
    """

    __slots__ = ("_engines", "paced_until")

    def __init__(self, engines: Engines) -> None:
        self._engines = engines
        self.paced_until = inf

    def next_transmit(self, now: float) -> Transmit | None:
        """Make the next packet, or give `None` when nothing can or need be sent now.

        Raises:
            EncryptionError: the key is used up; the session ends with that (P-11).
        """
        engines = self._engines
        path, acks = engines.path, engines.acks
        self.paced_until = inf
        if self.withheld:
            return None
        if self._has_work():
            sending = self._may_send(now)
        else:
            sending = False
            path.recovery.on_app_limited()
        if sending and path.mtu.probe_at <= now and path.wants_mtu_probe(now):
            if path.recovery.can_send(path.mtu.candidate):
                return self._mtu_probe(path.mtu.candidate, now)
            sending = False  # until the window has room for it: with all that waits there never would be
        if not sending and acks.due_at > now:
            return None
        size = self._probe_size(path) if path.recovery.probes else path.max_datagram
        streams = engines.streams
        if sending and streams.undelivered > LITTLE and streams.has_pending:
            segments = path.trains.segments(path.recovery, now)
        else:
            segments = 1  # what all streams hold fits into a datagram
        room = capacity(size, segments)
        parts: Parts = []
        closing = engines.control.closing  # then an ACK that was lost gets no other chance to be repeated
        acking = acks.pending or acks.due_at <= now or closing
        contents = PacketContents([], [], self._write_ack(parts, now) if acking else -1)
        left = room - len(parts[0]) if parts else room
        if parts and not closing and engines.datagrams.waits_for(room) and not engines.datagrams.waits_for(left):
            sending = False  # the acknowledgement goes alone, or there would be one in each packet (S-14)
        eliciting = self._fill(parts, contents, left, room, now) if sending else False
        return self._seal(parts, contents, eliciting, now, size) if parts else None

    @property
    def withheld(self) -> bool:
        """Whether nothing may go now, since nobody has shown to be there and enough was sent (H-40)."""
        path = self._engines.path
        return not path.validated and path.allowance < path.max_datagram

    def has_more(self, now: float) -> bool:
        """Whether there may be a packet to send. If not, what was sent so far is all that the application had."""
        engines = self._engines
        control, recovery = engines.control, engines.path.recovery
        if control.ready or recovery.probes or engines.acks.due_at <= now:
            return True
        if engines.streams.has_pending or engines.datagrams.has_pending:
            return True
        recovery.on_app_limited()
        return False

    def _mtu_probe(self, size: int, now: float) -> Transmit:
        """Make a packet of exactly `size` bytes, of which only the size is of interest (P-17)."""
        path = self._engines.path
        ping = Ping().encode()
        parts: Parts = [ping, bytes(capacity(size, 1) - len(ping))]
        transmit = self._seal(parts, PacketContents([], [], -1), True, now, size, True)
        path.mtu.on_probe()
        return transmit

    def path_transmit(self, path: Path, connection_id: bytes, parts: Parts, size: int, now: float) -> Transmit:
        """Make a packet about a path, which recovery takes no notice of: whoever asks there has timers of his own.

        Args:
            path: where it goes.
            connection_id: of the peer, for this path.
            parts: its frames.
            size: bytes of its datagram at most.
            now: seconds.

        Raises:
            EncryptionError: the key is used up.
        """
        engines = self._engines
        if engines.sealer.sealed >= engines.sealer.review_at:
            engines.rotation.review()
        short = LEAST_FRAMES - sum(map(len, parts))
        if short > 0 and not path.traits.reliable:
            parts.append(bytes(short))
        number = engines.numbers.next()
        buffers, segments, sealed = engines.sealer.seal(number, connection_id, parts, size)
        path.sent += sealed
        counters = engines.counters
        counters.bytes_sent += sealed
        counters.datagrams_sent += segments
        counters.packets_sent += 1
        if engines.trace is not None:
            engines.trace.sent(engines.path, number, sealed, segments, parts, False, now)
        return Transmit(path.network_path, buffers)

    def closing_transmit(self, frame: SessionClose, now: float) -> Transmit | None:
        """Make a packet with an acknowledgement and SESSION_CLOSE whose fate nobody awaits (K-3), if it may go.

        Raises:
            EncryptionError: the key is used up.
        """
        if self.withheld:
            return None
        parts: Parts = []
        self._write_ack(parts, now)
        parts.append(frame.encode())
        return self._seal(parts, PacketContents([], [], -1), False, now, self._engines.path.max_datagram)

    def _has_work(self) -> bool:
        """Whether there is anything to send that elicits an answer; a probe finds something."""
        engines = self._engines
        control = engines.control
        if control.ready or (not control.closing and (engines.streams.has_pending or engines.datagrams.has_pending)):
            return True
        return engines.path.recovery.probes > 0 and self._find_probe()

    def _find_probe(self) -> bool:
        """Repeat what is longest on its way, or ask for a bare sign of life."""
        engines = self._engines
        oldest = engines.path.recovery.oldest_eliciting()
        engines.fates.lost([] if oldest is None else [oldest])
        if not engines.control.ready and not engines.streams.has_pending:
            engines.control.put(PING)
        return True

    def _may_send(self, now: float) -> bool:
        """Whether the congestion window and the pacer let a packet go now."""
        path = self._engines.path
        recovery, size = path.recovery, path.max_datagram
        if recovery.probes:
            return True
        if not recovery.can_send(size):
            return False
        paced_until = recovery.pacing_deadline(now, size)
        if paced_until > now:
            self.paced_until = paced_until
            return False
        return True

    def _probe_size(self, path: Path) -> int:
        """Bytes of the datagram of a probe, after a timeout for which its size or its marks may be the reason."""
        path.ecn.on_timeout(path.recovery.pto_count, self._engines.numbers.next_number)
        return path.datagram_size()

    def _write_ack(self, parts: Parts, now: float) -> int:
        """Add an ACK frame if there is something to acknowledge; give the largest number in it, or -1."""
        engines = self._engines
        taken = engines.acks.take(now)
        if taken is None:
            return -1
        largest, delay, ranges, ecn = taken
        parts.append(encode_ack(largest, delay, engines.receiver.failed_trains, ranges, ecn))
        return largest

    def _fill(self, parts: Parts, contents: PacketContents, left: int, room: int, now: float) -> bool:
        """Add frames as long as there are any and they fit; tell whether one of them elicits an answer."""
        engines = self._engines
        before = len(parts)
        silent = 0
        control = engines.control
        for key in list(control.ready) if control.ready else ():
            frame = control.encode(key)
            if frame is not None:
                if len(frame) > left:
                    break
                left -= len(frame)
                parts.append(frame)
                contents.controls.append(key)
                silent += key[0] in NON_ELICITING
            control.take(key)
        if not control.closing:
            streams, datagrams = engines.streams, engines.datagrams
            if streams.control_ready:
                rtt = engines.path.recovery.rtt
                shortest = rtt.minimum if rtt.samples else 0.0
                left -= streams.write_control(parts, contents.streams, left, now, shortest)
            if datagrams.has_pending:
                left -= datagrams.write_frames(parts, left, max(room, capacity(engines.path.max_datagram, 1)), now)
            if streams.has_pending and left > 0:
                left -= streams.write_frames(parts, contents.streams, left)
        eliciting = len(parts) - before > silent
        if not eliciting and engines.path.recovery.probes:  # what was to be repeated means nothing any more
            parts.append(Ping().encode())
            left -= 1
            eliciting = True
        if eliciting and room - left < LEAST_FRAMES:
            parts.append(bytes(LEAST_FRAMES - room + left))
        return eliciting

    def _seal(
        self, parts: Parts, contents: PacketContents, eliciting: bool, now: float, limit: int, mtu_probe: bool = False
    ) -> Transmit:
        """Make a packet of these frames, in datagrams of at most `limit` bytes."""
        engines = self._engines
        if engines.sealer.sealed >= engines.sealer.review_at:
            engines.rotation.review()
        path = engines.path
        number = engines.numbers.next()
        buffers, segments, size = engines.sealer.seal(number, engines.remote_ids.current, parts, limit)
        if not path.validated:
            path.sent += size
        path.recovery.on_sent(SentPacket(number, now, size, segments, eliciting, eliciting, contents, mtu_probe))
        counters = engines.counters
        counters.bytes_sent += size
        counters.datagrams_sent += segments
        counters.packets_sent += 1
        if engines.trace is not None:
            engines.trace.sent(path, number, size, segments, parts, mtu_probe, now)
        ecn = path.ecn
        codepoint = (ecn.test(number) if ecn.testing else ecn.codepoint) if eliciting else 0
        return Transmit(path.network_path, buffers, limit if segments > 1 else None, codepoint)
