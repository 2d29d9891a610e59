"""A session: keys, streams and a life of its own; paths only carry its packets.

This is the public face, and it only wires. What comes in is taken apart in `inbound`, what goes out is put together in
`outbound`, the engines of both are built in `engines`, when to ask for a sign of life is `liveness`, how it ends is
`ending`, and where a session can go from where it stands is the table in `states`.
"""

from __future__ import annotations

from typing import Any

from stt_proto.crypto import hkdf_expand
from stt_proto.errors import (
    ArgumentError,
    EncryptionError,
    RemoteError,
    SessionClosedError,
    SessionTimeoutError,
    StateError,
    SttError,
    TooManyStreamsError,
)
from stt_proto.events import (
    HandshakeProgressed,
    KeepAliveMissed,
    KeepAliveSent,
    SessionClosed,
    SessionEstablished,
    SessionStateChanged,
)
from stt_proto.handshake import Established, Initiator
from stt_proto.session.context import EventSink, SessionContext
from stt_proto.session.control import CONFIRM, KEEP_ALIVE
from stt_proto.session.ending import (
    FLUSH_TIMEOUT,
    Ending,
    close_frame,
    closed_here,
    error_of,
    failure_frame,
    lost_path,
    reason_of,
)
from stt_proto.session.engines import Engines
from stt_proto.session.inbound import Inbound
from stt_proto.session.liveness import Silence
from stt_proto.session.outbound import Outbound
from stt_proto.session.states import TRANSITIONS, SessionInput
from stt_proto.session.statistics import SessionStats, snapshot
from stt_proto.session.stream import Stream
from stt_proto.streams import Stream as Halves
from stt_proto.types import Buffer, CloseReason, Deadline, HandshakeStep, NetworkPath, SessionState, Transmit
from stt_proto.wire import Message, encode_varint

CONNECTION_IDS = 2
"""Connection IDs that are issued at first: the one in use, and one for the peer to move with (C-2)."""
MAX_EXPORT = 8160
"""Bytes of the longest exported key: 255 blocks (RFC 5869)."""

# The same few values each time, so each is made once.
_PROGRESSED = {step: HandshakeProgressed(step) for step in HandshakeStep}
_CHANGED = {(old, what): SessionStateChanged(old, new) for (old, what), new in TRANSITIONS.items()}


class Session:
    """One session with one peer. Made by `Endpoint.connect`, or by the endpoint when a peer dials.

    Attributes:
        state: where it stands.
        initiator: whether this side dialled.
        session_id: 8 bytes, equal on both sides; `b""` until the handshake has derived it.
        peer_node_id: 32 bytes, proven; `b""` until then.
        key_version: of the keys in use; rises by one with each rotation.
        path: the addresses in use.
        created_at: wall clock, seconds since 1970.
        metadata: a free mapping for the application.
        host: a free slot for the host's own object.
        close_error: what ended it, once it has ended; later commands raise it.
    """

    __slots__ = (
        "_context",
        "_created",
        "_datagrams_out",
        "_ending",
        "_engines",
        "_exporter",
        "_inbound",
        "_initiator",
        "_outbound",
        "close_error",
        "created_at",
        "host",
        "initiator",
        "key_version",
        "metadata",
        "path",
        "peer_node_id",
        "session_id",
        "state",
    )

    def __init__(self, context: SessionContext, path: NetworkPath, initiator: bool, now: float) -> None:
        self._context = context
        self._created = now
        self._ending = Ending()
        self._engines: Engines | None = None
        self._exporter = b""
        self._initiator: Initiator | None = None
        self._datagrams_out: list[bytes] = []
        self.state = SessionState.INIT
        self.initiator = initiator
        self.session_id = b""
        self.peer_node_id = b""
        self.key_version = 0
        self.path = path
        self.created_at = context.clock.unix(now)
        self.metadata: dict[str, Any] = {}
        self.host: Any = None
        self.close_error: SttError | None = None

    # -- what the application asks ---------------------------------------------------------------------------------

    def is_active(self) -> bool:
        """Whether streams can be opened and written."""
        return self.state is SessionState.ESTABLISHED

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""
        return self.state is SessionState.CLOSED

    @property
    def close_reason(self) -> CloseReason | None:
        """Why it ended, in one word; `None` while it lives."""
        return None if self.close_error is None else reason_of(self.close_error)

    @property
    def capabilities(self) -> frozenset[str]:
        """What the peer can do beyond streams: `datagrams`, `trains`."""
        if self._engines is None:
            return frozenset()
        peer = self._engines.peer
        return frozenset(
            name for name, able in (("datagrams", peer.max_datagram > 0), ("trains", peer.max_segments > 1)) if able
        )

    @property
    def last_active(self) -> float:
        """Wall clock of the last authentic packet, seconds since 1970."""
        if self._engines is None:
            return self.created_at
        return self._context.clock.unix(self._engines.liveness.last_received)

    @property
    def last_key_rotation(self) -> float:
        """Wall clock of the last rotation of keys; the creation when there was none."""
        return self.created_at

    @property
    def max_datagram_size(self) -> int:
        """Bytes of the largest unreliable datagram that can be sent now; 0 when the peer takes none."""
        return 0 if self._engines is None else self._engines.datagrams.peer_max

    def stats(self) -> SessionStats:
        """What it has done so far."""
        return snapshot(self, self._engines, self._created, self._context.clock.now)

    def export_keying_material(self, label: str, length: int) -> bytes:
        """Derive a key that both sides and nobody else can derive (H-8).

        Args:
            label: what it is for, at most 255 bytes.
            length: bytes wanted, 1 to 8,160.

        Raises:
            ArgumentError: an argument is out of range.
            StateError: there are no keys yet.
        """
        try:
            name = label.encode()
        except (AttributeError, UnicodeEncodeError):
            raise ArgumentError("label must be text", argument="label") from None
        if len(name) > 255:
            raise ArgumentError(f"label has {len(name)} bytes; it must have at most 255", argument="label")
        if type(length) is not int or not 1 <= length <= MAX_EXPORT:
            raise ArgumentError(f"length is {length!r}; it must be from 1 to {MAX_EXPORT:,}", argument="length")
        if not self._exporter:
            raise StateError("the session has no keys yet")
        info = b"stt1 export " + encode_varint(len(name)) + name + length.to_bytes(2)
        return hkdf_expand(self._exporter, info, length)

    # -- streams and datagrams -------------------------------------------------------------------------------------

    def open_stream(
        self,
        *,
        bidirectional: bool = True,
        stream_id: int | None = None,
        purpose: str = "",
        max_frame_size: int | None = None,
        no_delay: bool | None = None,
    ) -> Stream:
        """Open a stream. The peer hears of it with the first data, the end, or a reset.

        Args:
            bidirectional: whether the peer may write to it too.
            stream_id: one of this side's and of this kind that was never used; `None` picks the smallest.
            purpose: a word for the peer, at most 255 bytes.
            max_frame_size: bytes put into a packet while another stream waits, 1 to 65,536.
            no_delay: whether small writes go at once; `None` as configured.

        Raises:
            ArgumentError: an argument is out of range.
            StateError: the handshake has not got as far as the keys.
            StreamIdConflict: the id is taken, or not this side's, or of the other kind.
            TooManyStreamsError: the peer allows no more now; `StreamsAvailable` tells when it does.
            RemoteError: the session has ended.
        """
        self.check_open()
        if self._engines is None:
            raise StateError("the handshake has not got as far as the keys")
        try:
            halves = self._engines.streams.open(bidirectional, stream_id, purpose, max_frame_size, no_delay)
        except TooManyStreamsError:
            self.touch(self._context.clock.now)  # the peer is told that its limit is in the way (S-12)
            raise
        return self._handle(halves)

    def stream(self, stream_id: int) -> Stream | None:
        """Give a stream by its id; `None` when there is none, or it is over."""
        halves = None if self._engines is None else self._engines.streams.get(stream_id)
        return None if halves is None else self._handle(halves)

    def _handle(self, halves: Halves) -> Stream:
        if halves.handle is None:
            halves.handle = Stream(self, halves)
        return halves.handle  # type: ignore[return-value]

    def send_datagram(self, data: Buffer, now: float) -> None:
        """Send an unreliable datagram, at most `max_datagram_size` bytes; when too many wait, the oldest is dropped.

        Raises:
            ArgumentError: it is too large, or no bytes.
            StateError: the handshake has not got as far as the keys.
            RemoteError: the session has ended.
        """
        self.check_open()
        if self._engines is None:
            raise StateError("the handshake has not got as far as the keys")
        self._engines.datagrams.send(data)
        self.touch(now)

    def receive_datagram(self) -> bytes | None:
        """Take the oldest datagram that arrived; `None` when there is none: `DatagramReceived` tells of the next."""
        return None if self._engines is None else self._engines.datagrams.receive()

    def check_open(self) -> None:
        """Raise what ended the session, if it has ended or is closing."""
        if self.state is SessionState.CLOSING:
            raise SessionClosedError("the session is closing")
        if self.close_error is not None:
            raise self.close_error.with_traceback(None)

    # -- ending ----------------------------------------------------------------------------------------------------

    def close(self, now: float, reason: str = "graceful", detail: str = "") -> None:
        """End the session once everything that its streams had accepted is delivered; idempotent (K-1).

        Args:
            now: seconds.
            reason: `graceful`, `timeout`, `error` or `auth_failure`.
            detail: a sentence for the peer, at most 512 bytes.
        """
        now = self._context.clock.advance(now)
        frame = close_frame(reason, detail)
        if self.state is SessionState.ESTABLISHED:
            self._ending.say(frame)
            self._ending.at = now + FLUSH_TIMEOUT
            self._move(SessionInput.CLOSE)
            self._advance_closing(now)
        elif self.state is SessionState.HANDSHAKING:
            self._ending.say(frame)
            self._end(closed_here(frame), now)
        self.touch(now)

    def abort(self, now: float) -> None:
        """End the session at once; what was not delivered is lost. Idempotent."""
        now = self._context.clock.advance(now)
        if self.state is not SessionState.CLOSED:
            self._fail(SessionClosedError("aborted by this side", reason=CloseReason.ERROR), now)

    def _advance_closing(self, now: float) -> None:
        """Go on to the next stage of closing, if its time has come."""
        engines, ending = self._engines, self._ending
        assert engines is not None
        assert ending.frame is not None
        if not engines.control.closing:
            if engines.streams.undelivered and now < ending.at:
                return
            engines.path.recovery.discard_all()  # nobody waits for the rest, and it must not slow down the repetitions
            engines.control.close(ending.frame)
            ending.at = now + engines.linger
        elif engines.fates.close_acked or now >= ending.at:
            self._end(closed_here(ending.frame), now)

    def _fail(self, error: SttError, now: float) -> None:
        """End with an error of which the peer is told once."""
        self._ending.say(failure_frame(error))
        self._ending.answer_due = True
        self._end(error, now)

    def _end(self, error: SttError, now: float, *, by_peer: bool = False, linger: bool = True) -> None:
        """The one place where a session ends."""
        context, engines, ending = self._context, self._engines, self._ending
        self.close_error = error
        if ending.frame is None:
            ending.say(failure_frame(error), unasked=not by_peer)
        if self._initiator is not None:
            self._end_dial(self._initiator, now, by_peer)
        ending.at = now
        if not linger:  # there is nobody to answer
            ending.answer_due = False
            self._datagrams_out.clear()
        elif engines is not None:
            ending.at += engines.linger
        if engines is not None:
            engines.receiver.close()
            engines.streams.fail_all(error)
        context.live.pop(self, None)
        if context.sessions.get(self.session_id) is self:
            del context.sessions[self.session_id]
        if self.state is SessionState.INIT:
            self.state = SessionState.CLOSED  # refused: it never was (H-29)
        else:
            self._move(SessionInput.END)
            reason = reason_of(error)
            code = 0 if reason is CloseReason.GRACEFUL else error.code
            self._emit(SessionClosed(reason, code, error.message, by_peer))
        self.touch(now)

    def _end_dial(self, initiator: Initiator, now: float, by_peer: bool) -> None:
        """The session ends while it is being dialled: the peer is told, as far as that is possible."""
        if self._engines is not None and not by_peer:
            self._ending.answer_due = True  # behind AUTH_PROOF, without which it could not be opened
            self._datagrams_out.extend(initiator.take(now))
        elif initiator.error is not None:
            self._datagrams_out.extend(initiator.take(now))  # ABORT
        self._finish_dial(initiator)

    # -- the handshake ---------------------------------------------------------------------------------------------

    def dial(self, initiator: Initiator, now: float) -> None:
        """Begin as the side that dials."""
        self._initiator = initiator
        self._context.live[self] = None
        self._context.dial_keys[initiator.ephemeral] = None
        self._move(SessionInput.DIAL)
        self._take_steps(initiator)
        self.touch(now)

    def accept(self, established: Established, now: float) -> None:
        """Begin as the side that was dialled, with the proof in hand."""
        self._context.live[self] = None
        self._move(SessionInput.ACCEPT)
        for step in HandshakeStep:
            self._emit(_PROGRESSED[step])
        self._build(established, now)
        assert self._engines is not None
        self._engines.control.put(CONFIRM)
        self._establish(now)

    def refuse(self, established: Established, code: int, now: float) -> None:
        """Tell a peer, under the session's keys, that it is not wanted. The session never was (H-29)."""
        self._build(established, now)
        self._fail(SessionClosedError("refused", reason=CloseReason.ERROR, code=code), now)

    def awaits(self, path: NetworkPath) -> bool:
        """Whether this is a dial to which messages that came over this path can matter (H-30)."""
        return self._initiator is not None and path == self.path

    def on_message(self, message: Message, now: float) -> None:
        """Take in a handshake message for a dial that `awaits` it."""
        assert self._initiator is not None
        self._initiator.on_message(message, now)
        self._follow(self._initiator, now)

    def _follow(self, initiator: Initiator, now: float) -> None:
        """Do what the state of the dial calls for."""
        if initiator.established is not None and self._engines is None:
            self._build(initiator.established, now)
        self._take_steps(initiator)
        if initiator.error is not None:
            self._end(initiator.error, now)
        self.touch(now)

    def _take_steps(self, initiator: Initiator) -> None:
        for step in initiator.steps:
            self._emit(_PROGRESSED[step])
        initiator.steps.clear()

    def _finish_dial(self, initiator: Initiator) -> None:
        """Nothing of the handshake is waited for any more."""
        context = self._context
        self._initiator = None
        context.dial_keys.pop(initiator.ephemeral, None)
        context.pieces.forget(self.path, initiator.local_cid)
        if self._engines is None:
            context.connection_ids.retire(initiator.local_cid)

    def _build(self, established: Established, now: float) -> None:
        """The keys are there: build everything that works on packets."""
        engines = self._engines = Engines.make(established, self.path, self, self._context, now)
        self._inbound = Inbound(engines, EventSink(self, self._context.events))
        self._outbound = Outbound(engines)
        self._exporter = established.secrets.exporter
        self.session_id = established.secrets.session_id
        self.peer_node_id = established.peer_node_id

    def _establish(self, now: float) -> None:
        """Both sides are known to hold the keys."""
        assert self._engines is not None
        self._move(SessionInput.CONFIRM)
        self._context.sessions.setdefault(self.session_id, self)
        for number in self._engines.local_ids.announce(CONNECTION_IDS, now):
            self._engines.control.put(("new_id", number))
        self._emit(SessionEstablished(self.session_id, self.peer_node_id))
        self.touch(now)

    # -- packets in and out, time ----------------------------------------------------------------------------------

    def receive(
        self,
        data: Buffer,
        start: int,
        end: int,
        segment_size: int | None,
        path: NetworkPath,
        now: float,
        ecn: int,
    ) -> None:
        """Take in datagrams that carry one of this session's connection IDs."""
        if self._engines is None:
            return
        if self.state is SessionState.CLOSED:
            if self._inbound.receive_closed(data, start, end, segment_size, path, now, ecn):
                self._ending.ask_answer(self._inbound.closed_by is not None)
        else:
            try:
                opened = self._inbound.receive(data, start, end, segment_size, path, now, ecn)
            except RemoteError as error:
                self._fail(error, now)
            else:
                if opened:
                    self._on_opened(now)
        self.touch(now)

    def _on_opened(self, now: float) -> None:
        """A packet of the peer has opened: move on as far as that leads."""
        closed_by = self._inbound.closed_by
        if self.state is SessionState.CLOSING:
            self._advance_closing(now)
        elif self._initiator is not None and (closed_by is None or self._inbound.confirmed):
            self._confirm(self._initiator, now)
        if closed_by is not None and not self.is_closed:
            self._ending.answer_due = True
            established = self.state is not SessionState.HANDSHAKING
            self._end(error_of(closed_by, established), now, by_peer=True)

    def _confirm(self, initiator: Initiator, now: float) -> None:
        """The peer has the keys too: the dial has succeeded."""
        initiator.confirm()
        self._take_steps(initiator)
        self._finish_dial(initiator)
        twin = self._context.sessions.get(self.session_id)
        if twin is not None and twin.initiator:
            self._fail(SessionClosedError("a session with this id is live", reason=CloseReason.ERROR), now)
        else:
            self._establish(now)

    def on_stateless_reset(self, now: float) -> None:
        """The peer has forgotten the session (P-14)."""
        if self.state is not SessionState.CLOSED:
            error = SessionClosedError("the peer has forgotten the session", reason=CloseReason.ERROR)
            self._end(error, now, by_peer=True, linger=False)

    def next_transmit(self, now: float) -> Transmit | None:
        """The next thing to send, or `None`."""
        if self._initiator is not None:
            self._datagrams_out.extend(self._initiator.take(now))
        if self._datagrams_out:
            return Transmit(self.path, (self._datagrams_out.pop(0),))
        if self._engines is None:
            return None
        try:
            if self.state is SessionState.CLOSED:
                frame = self._ending.take_answer()
                return None if frame is None else self._outbound.closing_transmit(frame, now)
            return self._outbound.next_transmit(now)
        except EncryptionError as error:  # the key is used up: there are no last words either
            if self.state is not SessionState.CLOSED:
                self._end(error, now)
            return None

    def deadline(self) -> Deadline:
        """When `tick` wants to be called next, and why."""
        engines, initiator = self._engines, self._initiator
        at, reason = self._ending.at, "close"
        if self.state is SessionState.CLOSED:
            return Deadline(at, reason)
        if initiator is not None and initiator.deadline < at:
            at, reason = initiator.deadline, "handshake"
        if engines is not None:
            deadlines = [
                (engines.path.recovery.deadline, "loss"),
                (engines.trains_deadline, "path"),
                (engines.local_ids.deadline, "path"),
            ]
            if initiator is None:
                deadlines.append(engines.liveness.deadline())
            full = self._context.full
            if not full or self.path not in full:
                deadlines += (engines.acks.due_at, "ack"), (self._outbound.paced_until, "pacing")
            at, reason = min((at, reason), *deadlines)
        return Deadline(at, reason)

    def tick(self, now: float) -> None:
        """Let time pass; idempotent for the same `now`."""
        initiator, engines = self._initiator, self._engines
        if self.state is SessionState.CLOSED:
            self.touch(now)
            return
        if initiator is not None:
            initiator.tick(now)
            self._follow(initiator, now)
        if engines is not None and not self.is_closed:
            engines.declare_lost(engines.path.recovery.on_timeout(now), now)
            engines.receiver.expire(now)
            engines.local_ids.expire(now)
            if self._initiator is None:
                self._check_liveness(engines, now)
            if self.state is SessionState.CLOSING:
                self._advance_closing(now)
        self.touch(now)

    def _check_liveness(self, engines: Engines, now: float) -> None:
        silence = engines.liveness.tick(now)
        if silence is Silence.DEAD:
            self._fail(SessionTimeoutError(f"nothing was heard for {engines.liveness.timeout:g} s"), now)
        elif silence is not Silence.NONE:
            if silence is Silence.MISSED:
                self._emit(KeepAliveMissed(now - engines.liveness.last_received))
            engines.control.answer(KEEP_ALIVE, self._context.entropy(8))
            self._emit(KeepAliveSent())

    def path_closed(self, now: float, reason: str | None) -> None:
        """The carrier of the only path is gone."""
        self._end(lost_path(reason, self.state is SessionState.HANDSHAKING), now, linger=False)

    # -- the endpoint's book ---------------------------------------------------------------------------------------

    def is_over(self, now: float) -> bool:
        """Whether nothing will come of it any more, so that the endpoint can forget it.

        The last words of a dial are waited for, but not behind a carrier that is full: that could last for ever.
        """
        if self.state is not SessionState.CLOSED or now < self._ending.at:
            return False
        return not self._datagrams_out or self.path in self._context.full

    def release(self) -> None:
        """Give back everything that the endpoint holds for it."""
        engines = self._engines
        if engines is not None:
            engines.local_ids.close()
            engines.remote_ids.close()

    def touch(self, now: float) -> None:
        """Something changed: there may be something to send, and the deadline may have moved."""
        context = self._context
        context.clock.advance(now)
        context.ready[self] = None
        context.unarmed[self] = None

    def _move(self, what: SessionInput) -> None:
        old = self.state
        self.state = TRANSITIONS[old, what]
        self._emit(_CHANGED[old, what])

    def _emit(self, event: Any) -> None:
        self._context.events.append((self, event))

    def __repr__(self) -> str:
        return f"<Session {self.session_id.hex() or '?'} {self.state.value} with {self.peer_node_id.hex()[:16] or '?'}>"
