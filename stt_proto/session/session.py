"""A session: keys, streams and a life of its own; paths only carry its packets.

This is its life, as the endpoint drives it, and it only wires; what the application sees and asks is its base class, in
`facade`. What comes in is taken apart in `inbound`, what goes out is put together in `outbound`, the engines of both
are built in `engines`, when to ask for a sign of life is `liveness`, how it ends is `ending`, and where a session can
go from where it stands is the table in `states`.
"""

from __future__ import annotations

from math import inf
from typing import Any

from stt_proto.errors import (
    ConnectionTimeoutError,
    EncryptionError,
    RemoteError,
    SessionClosedError,
    SessionResumptionError,
    SessionTimeoutError,
    SttError,
)
from stt_proto.events import (
    KeepAliveMissed,
    KeepAliveSent,
    ResumptionRefused,
    SessionClosed,
    SessionDetached,
    SessionEstablished,
    TicketOffered,
)
from stt_proto.handshake import Established, Initiator, InitiatorState, Resumer
from stt_proto.packet import Opened
from stt_proto.session.context import EventSink, SessionContext
from stt_proto.session.control import CONFIRM
from stt_proto.session.early import EARLY_STREAM, Beginning, EarlyArrival, EarlyData
from stt_proto.session.ending import GONE, Ending, close_frame, closed_here, code_of, error_of, failure_frame, reason_of
from stt_proto.session.engines import Engines
from stt_proto.session.facade import SessionFacade
from stt_proto.session.inbound import Inbound, is_refusal
from stt_proto.session.liveness import Silence
from stt_proto.session.moves import Moves
from stt_proto.session.outbound import Outbound
from stt_proto.session.path_ids import CONNECTION_IDS
from stt_proto.session.repeats import ProofRepeats
from stt_proto.session.routes import SILENT
from stt_proto.session.states import CHANGED, FULL, PROGRESSED, SHORT, TRANSITIONS, SessionInput
from stt_proto.session.tickets import give_ticket
from stt_proto.types import Buffer, CloseReason, Deadline, NetworkPath, SessionState, Transmit
from stt_proto.wire import Message


class Session(SessionFacade):
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
        resumed: whether it began with a ticket.
        resumption_error: why it did not, though there was one; told as `ResumptionRefused` too.
        close_error: what ended it, once it has ended; later commands raise it.
        retiring: what commands raise that would begin something new, where nothing new is to be begun.
        trace: tells an observer, or `None`.
    """

    __slots__ = (
        "_datagrams_out",
        "_detached_until",
        "_ending",
        "_inbound",
        "_initiator",
        "_outbound",
        "_repeats",
        "trace",
    )

    def __init__(self, context: SessionContext, path: NetworkPath, initiator: bool, now: float) -> None:
        super().__init__(context, path, initiator, now)
        self._ending = Ending()
        self._initiator: Initiator | Resumer | None = None
        self._datagrams_out: list[bytes] = []
        self._detached_until = inf
        self._repeats = ProofRepeats(now)
        self.trace = context.sight.begin(initiator, path, now, self.created_at)

    # -- ending ----------------------------------------------------------------------------------------------------

    def close(self, now: float, reason: str = "graceful", detail: str = "", code: int | None = None) -> None:
        """End the session once everything that its streams had accepted is delivered; idempotent (K-1).

        Args:
            now: seconds.
            reason: `graceful`, `timeout`, `error` or `auth_failure`.
            detail: a sentence for the peer, at most 512 bytes.
            code: what it is told beside that, 0 to 2^62 - 1; the number of the reason when `None`.
        """
        now, frame = self._context.clock.advance(now), close_frame(reason, detail, code)
        if self.state is SessionState.ESTABLISHED:
            self._ending.flush(frame, now)
            self._move(SessionInput.CLOSE)
            self._advance_closing(now)
        elif self.state in (SessionState.INIT, SessionState.HANDSHAKING):
            self._ending.say(frame)
            self._end(closed_here(frame), now)
        self.touch(now)

    def abort(self, now: float, error: SttError | None = None) -> None:
        """End the session at once, because of this error or of none; what was not delivered is lost. Idempotent."""
        now = self._context.clock.advance(now)
        if self.state is not SessionState.CLOSED:
            self._fail(error or SessionClosedError("aborted by this side", reason=CloseReason.ERROR), now)

    def _advance_closing(self, now: float) -> None:
        """Go on to the next stage of closing, if its time has come."""
        engines, ending = self._engines, self._ending
        assert engines is not None
        assert ending.frame is not None
        if not engines.control.closing:
            if (engines.streams.undelivered or engines.control.frames.reliable) and now < ending.at:
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
        if not linger or self.is_detached:  # there is nobody to answer
            ending.answer_due = False
            self._datagrams_out.clear()
        elif engines is not None:
            ending.at += engines.linger
        if self._moves is not None:
            self._moves.close()
        else:
            context.by_path.remove(self.path, self)
        if engines is not None:
            engines.receiver.close()
            engines.streams.fail_all(error)
            engines.rotation.stop()
        context.live.pop(self, None)
        if context.sessions.get(self.session_id) is self:
            del context.sessions[self.session_id]
        if self.state is SessionState.INIT:
            self.state = SessionState.CLOSED  # refused: it never was (H-29)
        else:
            self._move(SessionInput.END)
            self._emit(SessionClosed(reason_of(error), code_of(error), error.message, by_peer))
        self.touch(now)

    def _end_dial(self, initiator: Initiator | Resumer, now: float, by_peer: bool) -> None:
        """The session ends while it is being dialled: the peer is told, as far as that is possible."""
        if self._engines is not None and not by_peer:
            self._ending.answer_due = True  # behind AUTH_PROOF, without which it could not be opened
            self._datagrams_out.extend(initiator.take(now))
        elif initiator.error is not None:
            self._datagrams_out.extend(initiator.take(now))  # ABORT
        self._finish_dial(initiator)

    # -- the handshake ---------------------------------------------------------------------------------------------

    def dial(self, initiator: Initiator | Resumer, now: float, early_data: bytes = b"") -> None:
        """Begin as the side that dials."""
        self._initiator = initiator
        self._early = EarlyData(early_data) if early_data else None
        self._begin()
        self._move(SessionInput.DIAL)
        self._take_steps(initiator)
        self.touch(now)

    def _begin(self) -> None:
        self._context.live[self] = None
        self._context.by_path.add(self.path, self)

    def accept(self, established: Established, now: float, resumed: bool, early: EarlyArrival | None = None) -> None:
        """Begin as the side that was dialled, with the proof in hand; with `early` some of it is still to come."""
        self._begin()
        self._move(SessionInput.ACCEPT)
        for step in SHORT if resumed else FULL:
            self._emit(PROGRESSED[step])
        self._build(established, now)
        assert self._engines is not None
        self.resumed = resumed
        if early is not None:
            self.beginning = early.begin(self._engines.path)
        self._engines.control.put(CONFIRM)
        self._establish(now)
        give_ticket(self._engines.control, self._context.tickets, established, now)
        if early is not None and early.data:
            self._emit(early.news)
            self._engines.streams.on_stream(EARLY_STREAM, 0, early.data, False)

    def ask_about_ticket(self, ticket_id: bytes, expires_at: float) -> None:
        """Have the host say whether this ticket was used before; the session may come to be, or not."""
        self._asked_about = ticket_id
        self._emit(TicketOffered(ticket_id, expires_at))

    def refuse(self, established: Established, code: int, now: float) -> None:
        """Tell a peer, under the session's keys, that it is not wanted. The session never was (H-29)."""
        self._build(established, now)
        self._fail(SessionClosedError("refused", reason=CloseReason.ERROR, code=code), now)

    def on_repeated_proof(self, path: NetworkPath, now: float) -> bool:
        """The peer's AUTH_PROOF came again. While it has acknowledged nothing, our answer may be lost: repeat it (K-7).

        Returns:
            Whether something is sent.
        """
        if self.initiator or path != self.path:
            return False
        engines = self._engines
        assert engines is not None
        if engines.is_confirmed or not self._repeats.take(now):
            return False
        if self.state is SessionState.CLOSED:
            self._ending.ask_answer(False)
        else:
            engines.path.recovery.probe()
        self.touch(now)
        return True

    def awaits(self, path: NetworkPath) -> bool:
        """Whether this is a dial to which messages that came over this path can matter (H-30)."""
        return self._initiator is not None and path == self.path

    def on_message(self, message: Message, now: float) -> None:
        """Take in a handshake message for a dial that `awaits` it."""
        assert self._initiator is not None
        if self.trace is not None:
            self.trace.message_received(message, now)
        self._initiator.on_message(message, now)
        self._follow(self._initiator, now)

    def _follow(self, initiator: Initiator | Resumer, now: float) -> None:
        """Do what the state of the dial calls for."""
        if initiator.established is not None and self._engines is None:
            self._build(initiator.established, now)
            self.resumed = initiator.state is InitiatorState.CONFIRMED
        self._take_steps(initiator)
        if self.resumed:
            assert self._engines is not None
            self._engines.control.put(CONFIRM)  # with which the peer knows that this is no echo (H-35)
            self.beginning = Beginning(now + self._context.config.handshake_timeout)
            self._confirm(initiator, now)
        elif initiator.refusal is not None and (self._engines is not None or initiator.error is not None):
            self._tell_refusal(initiator)
        if initiator.error is not None:
            self._end(initiator.error, now)
        self.touch(now)

    def _tell_refusal(self, initiator: Initiator | Resumer) -> None:
        """The ticket was good for nothing, once and for all."""
        if self.resumption_error is None and initiator.refusal is not None:
            reason = initiator.refusal
            self.resumption_error = SessionResumptionError(f"resumption was refused: {reason}", reason=reason)
            self._emit(ResumptionRefused(reason))

    def _take_steps(self, initiator: Initiator | Resumer) -> None:
        for step in initiator.steps:
            self._emit(PROGRESSED[step])
        initiator.steps.clear()
        if initiator.ephemeral:  # a dial with a ticket has none, unless it comes to a full handshake
            self._context.dial_keys[initiator.ephemeral] = None

    def _finish_dial(self, initiator: Initiator | Resumer) -> None:
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
        sink = EventSink(self, self._context.events)
        self._moves = Moves(self, engines, self._context, sink, established.local_cid, now)
        self._inbound = Inbound(engines, self._moves, sink, self._context.config.extension_frames)
        self._outbound = Outbound(engines)
        self._exporter = established.secrets.exporter
        self.session_id = established.secrets.session_id
        self.peer_node_id = established.peer_node_id
        if self._early is not None and self._initiator is not None:
            for event in self._early.on_keys(engines, self._initiator):
                self._emit(event)

    def _establish(self, now: float) -> None:
        """Both sides are known to hold the keys."""
        assert self._engines is not None
        self._move(SessionInput.CONFIRM)
        self._context.sessions.setdefault(self.session_id, self)
        self._engines.rotation.start(now)
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
                if self.beginning is not None:
                    self.beginning.end(self, None, path, now)
                self._ending.ask_answer(self._inbound.closed_by is not None)
        else:
            try:
                for packet in self._inbound.open(data, start, end, segment_size, path, now, ecn):
                    self._on_packet(packet, path, now)
                    if self.is_closed:
                        break
            except RemoteError as error:
                self._fail(error, now)
        context = self._context
        context.unarmed[self] = None
        if context.full or self.has_more(now):  # most of what comes in calls for nothing at once
            context.ready[self] = None  # and behind a full carrier it is here that the session is remembered

    def _on_packet(self, packet: Opened, path: NetworkPath, now: float) -> None:
        """A packet of the peer has opened: move on as far as that leads."""
        inbound = self._inbound
        if self.beginning is not None:
            self.beginning.end(self, self._moves, path, now)
        frames = inbound.read(packet)
        if self._initiator is not None and not is_refusal(frames):
            self._confirm(self._initiator, now)  # before anything that is in it happens
            if self.is_closed:
                return
        inbound.take(packet, frames, path, now)
        if self.state is SessionState.CLOSING:
            self._advance_closing(now)
        closed_by = inbound.closed_by
        if closed_by is not None and not self.is_closed:
            self._ending.answer_due = True
            established = self.state is not SessionState.HANDSHAKING
            self._end(error_of(closed_by, established), now, by_peer=True)

    def _confirm(self, initiator: Initiator | Resumer, now: float) -> None:
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

    def next_transmit(self, now: float, held: bool = False) -> Transmit | None:
        """The next thing to send, or `None`; `held` tells that the active path takes nothing now, so only what is about
        another one may go.
        """
        moves = self._moves
        if self._initiator is not None and not held:
            self._datagrams_out.extend(self._initiator.take(now))
        if self._datagrams_out and not held:
            datagram = self._datagrams_out.pop(0)
            if self.trace is not None:
                self.trace.message_sent(datagram, now)
            return Transmit(self.path, (datagram,))
        if moves is None:
            return None
        try:
            if self.state is SessionState.CLOSED:
                frame = None if held or moves.detached else self._ending.take_answer()
                return None if frame is None else self._outbound.closing_transmit(frame, now)
            question = moves.next_question(now) if moves.busy else None
            if question is not None:
                return self._outbound.path_transmit(*question, now)
            if not moves.detached:
                return None if held else self._outbound.next_transmit(now)
            assert self._engines is not None
            self._context.detached.weigh(self, self._engines.buffered, now)
            return None
        except EncryptionError as error:  # the key is used up: there are no last words either
            if self.state is not SessionState.CLOSED:
                self._end(error, now)
            return None

    def has_more(self, now: float) -> bool:
        """Whether `next_transmit` may have something to give."""
        if self._initiator is not None or self._datagrams_out or self.state is SessionState.CLOSED:
            return True
        moves = self._moves
        return moves is not None and (moves.busy or (not moves.detached and self._outbound.has_more(now)))

    def deadline(self) -> Deadline:
        """When `tick` wants to be called next, and why."""
        return Deadline(*self.due())

    def due(self) -> tuple[float, str]:
        """The same without an object: it is asked after every packet."""
        engines, initiator = self._engines, self._initiator
        at, reason = self._ending.at, "close"
        if self.state is SessionState.CLOSED:
            return at, reason
        if initiator is not None and initiator.deadline < at:
            at, reason = initiator.deadline, "handshake"
        if self.beginning is not None and self.beginning.until < at:
            at, reason = self.beginning.until, "handshake"
        moves = self._moves
        if engines is not None and moves is not None and moves.watches:
            due = moves.deadline
            if due < at:
                at, reason = due, "path"
            if moves.detached:
                due = self._detached_until
                if due < at:
                    at, reason = due, "detach"
                due = engines.due_without_path
                return (due, "path") if due < at else (at, reason)
        if engines is not None:
            full = self._context.full
            held = (full and self.path in full) or self._outbound.withheld
            at, reason = engines.due(at, reason, inf if held else self._outbound.paced_until, not held)
            if initiator is None:
                due, why = engines.liveness.deadline()
                if due < at:
                    at, reason = due, why
        return at, reason

    def tick(self, now: float) -> None:
        """Let time pass; idempotent for the same `now`."""
        initiator, engines = self._initiator, self._engines
        if self.state is SessionState.CLOSED:
            self.touch(now)
            return
        if initiator is not None:
            initiator.tick(now)
            self._follow(initiator, now)
        if self.beginning is not None and now >= self.beginning.until and not self.is_closed:
            self._fail(ConnectionTimeoutError("the peer did not go on after the resumption"), now)
        moves = self._moves
        if engines is not None and moves is not None and not self.is_closed:
            engines.declare_lost(engines.path.recovery.on_timeout(now), now)
            engines.receiver.expire(now)
            engines.local_ids.expire(now)
            engines.streams.expire(now)
            moves.tick(now)
            if moves.detached:
                self._check_detached(engines, now)
            elif self._initiator is None:
                self._check_liveness(engines, moves, now)
            if not self.is_closed and (not moves.detached or engines.rotation.overlaps_until <= now):
                self._replace_keys(engines, now)
            if self.state is SessionState.CLOSING:
                self._advance_closing(now)
        self.touch(now)

    def _check_liveness(self, engines: Engines, moves: Moves, now: float) -> None:
        silence = engines.liveness.tick(now)
        if silence is Silence.DEAD:
            if self._may_detach(engines):
                self._detach(engines, moves, SILENT, now, closed=False)
            else:
                self._fail(SessionTimeoutError(f"nothing was heard for {engines.liveness.timeout:g} s"), now)
        elif silence is not Silence.NONE:
            if silence is Silence.MISSED:
                self._emit(KeepAliveMissed(now - engines.liveness.last_received))
            engines.rest()
            engines.control.ask(self._context.entropy(8))
            engines.path.recovery.probe()  # a full window is no reason to be silent
            moves.suspect(now)
            if silence is not Silence.AGAIN:
                self._emit(KeepAliveSent())

    def _replace_keys(self, engines: Engines, now: float) -> None:
        try:
            engines.rotation.expire(now)
        except RemoteError as error:
            self._fail(error, now)

    # -- paths -----------------------------------------------------------------------------------------------------

    def path_closed(self, path: NetworkPath, now: float, reason: str | None) -> None:
        """The carrier of one of its paths is gone."""
        if self.is_closed:  # it has given way to another one that was on the same path (M-11)
            return
        engines, moves, why = self._engines, self._moves, reason or GONE
        if self.beginning is not None and moves is not None and path == self.path:
            self.beginning.path_closed(moves, path, now)
        if engines is None or moves is None or not moves.closed(path, why, now):
            if engines is not None and moves is not None and self._may_detach(engines):
                self._detach(engines, moves, why, now, closed=True)
            else:
                closing = engines is not None and engines.control.closing
                dialling = self.state is SessionState.HANDSHAKING
                self._end(self._ending.error_of_loss(reason, dialling=dialling, closing=closing), now, linger=False)
        self.touch(now)

    def _may_detach(self, engines: Engines) -> bool:
        """Whether it waits for another path when it has none: not before the peer knows of it, nor when it ends."""
        known = (self.initiator and self.beginning is None) or engines.is_confirmed
        return known and self.state is SessionState.ESTABLISHED and self._context.config.detach_timeout > 0

    def _detach(self, engines: Engines, moves: Moves, why: str, now: float, *, closed: bool) -> None:
        """No path is left (M-9)."""
        self._detached_until = now + self._context.config.detach_timeout
        moves.detach(why, now, closed=closed)
        self._emit(SessionDetached(self._detached_until))
        self._context.detached.add(self, engines.buffered, now)

    def _check_detached(self, engines: Engines, now: float) -> None:
        if now >= self._detached_until:
            self._end(SessionTimeoutError(f"no path was found in {self._context.config.detach_timeout:g} s"), now)
        else:
            self._context.detached.weigh(self, engines.buffered, now)

    def give_up(self, now: float) -> None:
        """End, detached, since others need the place or the memory."""
        self._end(SessionTimeoutError("detached, and others needed the place"), now)

    def datagram_refused(self, path: NetworkPath, size: int, limit: int | None, now: float) -> None:
        """The host could not send a datagram of `size` bytes (see `Endpoint.datagram_refused`)."""
        engines, moves = self._engines, self._moves
        if engines is not None and moves is not None:
            for refused in (engines.path, *moves.table):
                if refused.network_path is path and refused.on_refused(size, limit, now):
                    engines.limit_datagrams()
        self.touch(now)

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
        if self.trace is not None:
            self.trace.over(self._context.clock.now)

    def touch(self, now: float) -> float:
        """Something changed: there may be something to send, and the deadline may have moved. Gives the time."""
        context = self._context
        now = context.clock.advance(now)
        context.ready[self] = None
        context.unarmed[self] = None
        return now

    def _move(self, what: SessionInput) -> None:
        old = self.state
        self.state = TRANSITIONS[old, what]
        self._emit(CHANGED[old, what])

    def _emit(self, event: Any) -> None:
        self._context.events.append((self, event))
        if self.trace is not None:
            self.trace.event(event, self._context.clock.now)
