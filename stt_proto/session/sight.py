"""How observers are told: each call is contained, so that none can disturb the protocol.

A session asks for its `SessionTrace` when it begins, and has `None` without an observer; that is what is tested once a
packet. All work for an observer is done in here, behind that test: frames are taken apart again, and what changed is
found by comparing with what was told last. So the engines tell where they are, and not what is new.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum
from re import sub
from typing import Any

from attrs import evolve

from stt_proto.clock import NEVER
from stt_proto.errors import ArgumentError, ProtocolError
from stt_proto.events import Event, TicketReceived, TraceFailed
from stt_proto.handshake import SessionSecrets, VersionSecrets
from stt_proto.packet import Opened, PacketCounters
from stt_proto.paths import EcnState, Path
from stt_proto.recovery import RecoveryStats, SentPacket
from stt_proto.session.trace import KeyLog, Trace, TracedFrame, TracedSession
from stt_proto.types import Buffer, EndpointCounters, NetworkPath
from stt_proto.wire import (
    APPLICATION_FRAMES,
    Frame,
    Message,
    MessageType,
    Parameters,
    decode_frames_untrusted,
    decoders_for,
)
from stt_proto.wire.header import FORM_BITS, FRAGMENT_BIT

MAX_FRAMES = 256
"""Frames of one packet that an observer is told of; a packet of pings would have 65,000."""
MAX_COMPLAINT = 200
"""Characters of what is passed on of an observer's exception."""

DROP_REASONS = (
    "malformed", "unknown_epoch", "replayed", "forged", "trains_expired", "trains_evicted", "segments_refused",
    "segments_repeated",
)  # fmt: skip
"""The counters of what gave no packet; a train that failed is among the forged too."""

KEY_LOG_LABELS = (
    ("STT_INITIATOR_TRAFFIC_0", "initiator_traffic"),
    ("STT_RESPONDER_TRAFFIC_0", "responder_traffic"),
    ("STT_INITIATOR_HEADER", "initiator_header"),
    ("STT_RESPONDER_HEADER", "responder_header"),
)
"""What a key log names the secrets of a handshake."""


class Sight:
    """The observers of one endpoint.

    Args:
        trace: is told what happens, or `None`.
        keylog: is given the secrets of each session, or `None`.
        events: of the endpoint; what became of an observer that raised is told there.
        counters: of the endpoint.

    Attributes:
        trace: as given; `None` once it has failed.

    Raises:
        ArgumentError: one of the observers is none.
    """

    __slots__ = ("_counters", "_events", "_keylog", "_sessions", "trace")

    def __init__(
        self,
        trace: Trace | None,
        keylog: KeyLog | None,
        events: deque[tuple[Any, Event]],
        counters: EndpointCounters,
    ) -> None:
        if not isinstance(trace, Trace | None):
            raise ArgumentError(f"trace is of type {type(trace).__name__}; it must be a Trace", argument="trace")
        if not (keylog is None or callable(keylog)):
            raise ArgumentError(f"keylog is of type {type(keylog).__name__}; it must be a function", argument="keylog")
        self.trace = trace
        self._keylog = keylog
        self._events = events
        self._counters = counters
        self._sessions = 0

    def begin(self, initiator: bool, path: NetworkPath, now: float, created_at: float) -> SessionTrace | None:
        """A session begins: what it is to tell from now on, or `None` when nobody looks."""
        if self.trace is None:
            return None
        self._sessions += 1
        trace = SessionTrace(self, TracedSession(self._sessions, initiator, path, now, created_at))
        trace.tell("session_began", now)
        return trace

    def log_keys(self, secrets: SessionSecrets) -> None:
        """Hand out the secrets of a handshake, if somebody has asked for that."""
        if self._keylog is not None:
            self._log(secrets.session_id, [(label, getattr(secrets, name)) for label, name in KEY_LOG_LABELS])

    def log_version(self, session_id: bytes, version: int, secrets: VersionSecrets) -> None:
        """Hand out those of a later key version."""
        if self._keylog is not None:
            initiator, responder = secrets.initiator_traffic, secrets.responder_traffic
            labels = f"STT_INITIATOR_TRAFFIC_{version}", f"STT_RESPONDER_TRAFFIC_{version}"
            self._log(session_id, list(zip(labels, (initiator, responder), strict=True)))

    def _log(self, session_id: bytes, secrets: list[tuple[str, bytes]]) -> None:
        assert self._keylog is not None
        try:
            for label, secret in secrets:
                self._keylog(label, session_id, secret)
        except Exception as error:
            self._keylog = None
            self._failed("keylog", type(error).__name__)  # and not what it says: that may be the secret

    def trace_failed(self, point: str, error: Exception) -> None:
        """The observer raised: that was the last it was told."""
        self.trace = None
        self._failed(point, _complaint(error))

    def _failed(self, point: str, error: str) -> None:
        self._counters.trace_faults += 1
        self._events.append((None, TraceFailed(point, error)))


class SessionTrace:
    """What one session tells its observer."""

    __slots__ = (
        "_congestion",
        "_dropped",
        "_ecn",
        "_max_datagram",
        "_metrics",
        "_path",
        "_recovering_until",
        "_sight",
        "about",
    )

    def __init__(self, sight: Sight, about: TracedSession) -> None:
        self.about = about
        self._sight = sight
        self._path = about.path
        self._max_datagram = 0
        self._ecn: EcnState | None = None
        self._metrics: RecoveryStats | None = None
        self._congestion = "slow_start"
        self._recovering_until = NEVER
        self._dropped = dict.fromkeys(DROP_REASONS, 0)

    def tell(self, point: str, *told: object) -> None:
        """Call a method of the observer, and let nothing out of it."""
        observer = self._sight.trace
        if observer is None:
            return
        try:
            getattr(observer, point)(self.about, *told)
        except Exception as error:
            self._sight.trace_failed(point, error)

    # -- the session as a whole ------------------------------------------------------------------------------------

    def event(self, event: Event, now: float) -> None:
        """An event was queued for the host; what is secret in it is left out."""
        if isinstance(event, TicketReceived):
            event = evolve(event, ticket=None)
        self.tell("event", event, now)

    def message_sent(self, datagram: bytes, now: float) -> None:
        """A datagram of a dial was handed out."""
        self.tell("message_sent", _message(datagram[0] & ~(FORM_BITS | FRAGMENT_BIT)), len(datagram), now)

    def message_received(self, message: Message, now: float) -> None:
        """A handshake message came for a dial."""
        self.tell("message_received", _message(message.type), len(message.encoded), now)

    def keys_derived(self, session_id: bytes, suite: str, local: Parameters, remote: Parameters, now: float) -> None:
        """The handshake has given keys, and what both sides announce."""
        self.about.session_id = session_id
        self.tell("keys_derived", 0, suite, now)
        self.tell("parameters_set", local, remote, now)

    def over(self, now: float) -> None:
        """The endpoint forgets the session."""
        self.tell("session_over", now)

    # -- packets ---------------------------------------------------------------------------------------------------

    def sent(
        self,
        path: Path,
        number: int,
        size: int,
        segments: int,
        parts: Sequence[Buffer],
        mtu_probe: bool,
        now: float,
    ) -> None:
        """A packet was sealed; `parts` is its plaintext."""
        if self._sight.trace is not None:
            self.tell("packet_sent", number, size, segments, traced_frames(b"".join(parts)), mtu_probe, now)
            self.look(path, now)

    def received(self, packets: Sequence[Opened], counters: PacketCounters, now: float) -> None:
        """Datagrams were taken in: some gave packets, and some made the counters rise."""
        if self._sight.trace is None:
            return
        for reason, told in self._dropped.items():
            count = getattr(counters, reason)
            if count != told:
                self._dropped[reason] = count
                self.tell("packet_dropped", reason, count - told, now)
        for packet in packets:
            frames = traced_frames(packet.plain)
            self.tell("packet_received", packet.number, packet.size, packet.segments, frames, now)

    def lost(self, packets: Sequence[SentPacket], path: Path, now: float) -> None:
        """Loss detection has run, and these packets are lost."""
        for packet in packets:
            self.tell("packet_lost", packet.number, packet.size, packet.segments, packet.mtu_probe, now)
        self.look(path, now)

    def look(self, path: Path, now: float) -> None:
        """Something may have changed on the path: tell what has."""
        if self._sight.trace is None:
            return
        metrics, before = path.recovery.stats(), self._metrics
        if metrics != before:
            self._metrics = metrics
            self.tell("metrics_updated", metrics, now)
        self._look_at_congestion(metrics, before, now)
        if path.max_datagram != self._max_datagram:
            old, self._max_datagram = self._max_datagram, path.max_datagram
            self.tell("mtu_updated", old, path.max_datagram, now)
        if path.ecn.state is not self._ecn:
            known, self._ecn = self._ecn, path.ecn.state
            if known is not None:
                self.tell("ecn_state_updated", known.value, path.ecn.state.value, now)
        if path.network_path != self._path and path.network_path.carrier:  # a detached session is nowhere
            before_path, self._path = self._path, path.network_path
            self.tell("path_updated", before_path, path.network_path, now)

    def _look_at_congestion(self, metrics: RecoveryStats, before: RecoveryStats | None, now: float) -> None:
        """Controllers have no names for what they do, so it is read off the window: a smaller one is recovery, which
        lasts for a round trip (RFC 9002, 7.3.2)."""
        if before is not None and metrics.window < before.window:
            self._recovering_until = now + (metrics.rtt_smoothed or 0.0)
        if now < self._recovering_until:
            state = "recovery"
        else:
            state = "slow_start" if metrics.window < metrics.ssthresh else "congestion_avoidance"
        if state != self._congestion:
            old, self._congestion = self._congestion, state
            self.tell("congestion_state_updated", old, state, now)


# -- words ---------------------------------------------------------------------------------------------------------


def _message(kind: int) -> str:
    return MessageType(kind).name.lower()


def _complaint(error: Exception) -> str:
    """What an exception says, though it may be unable to."""
    name = type(error).__name__
    try:
        return f"{name}: {error}"[:MAX_COMPLAINT]
    except Exception:
        return name


def traced_frames(plain: bytes) -> tuple[TracedFrame, ...]:
    """The frames of a packet as an observer may know them."""
    try:
        frames = decode_frames_untrusted(plain, _DECODERS)
    except ProtocolError:
        return (TracedFrame("malformed", {"length": len(plain)}),)
    told = [TracedFrame(_kind(frame), _fields(frame)) for frame in frames[:MAX_FRAMES]]
    if len(frames) > MAX_FRAMES:
        told.append(TracedFrame("more", {"count": len(frames) - MAX_FRAMES}))
    return tuple(told)


_KINDS: dict[type, str] = {}
_DECODERS = decoders_for(frozenset(APPLICATION_FRAMES))


def _kind(frame: Frame) -> str:
    """The name of a kind of frame, made once: `NewConnectionId` is `"new_connection_id"`."""
    kind = _KINDS.get(type(frame))
    if kind is None:
        kind = _KINDS[type(frame)] = sub(r"(?<=.)(?=[A-Z])", "_", type(frame).__name__).lower()
    return kind


def _fields(frame: Frame) -> dict[str, object]:
    """Numbers, flags and words out of a list as they are; of bytes their length; of text nothing."""
    fields: dict[str, object] = {}
    for name, value in zip(frame._fields, frame, strict=True):
        if isinstance(value, int | Enum | tuple):  # a tuple is the ranges or the counts of an ACK
            fields[name] = value
        elif isinstance(value, bytes | memoryview):
            fields["length" if name == "data" else f"{name}_length"] = len(value)
    return fields
