"""An application on one node of a world: it does what it is told, and holds what it gets against the model.

It lives by the rules that hosts live by. It reads a stream only after `StreamReadable` and until there is nothing,
writes after a short write only after `StreamWritable`, and opens a stream that was refused only after
`StreamsAvailable`. So an edge that never comes is noticed: what hangs on it is never done.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from math import inf
from typing import Any

from attrs import evolve

from stt_proto import NetworkPath, Priority, Session, SessionState, Ticket
from stt_proto.errors import (
    BufferOverflowError,
    DataExpiredError,
    LocalError,
    RemoteError,
    SessionTimeoutError,
    StateError,
    StreamClosedError,
    SttError,
    TooManySessionsError,
    TooManyStreamsError,
)
from stt_proto.events import (
    DatagramReceived,
    EarlyDataReceived,
    EarlyDataRejected,
    Event,
    ExtensionFrameReceived,
    HandshakeFailed,
    KeysRotated,
    ResumptionRefused,
    SessionClosed,
    SessionDetached,
    SessionEstablished,
    SessionMoved,
    SessionReattached,
    SessionStateChanged,
    StreamAcked,
    StreamFinished,
    StreamOpened,
    StreamReadable,
    StreamReset,
    StreamsAvailable,
    StreamWritable,
)
from stt_proto.session.ending import FLUSH_TIMEOUT
from stt_proto.session.states import TRANSITIONS
from stt_proto.testing import Node
from tests.proto.model import CLEAN_CODES, Conversation, Flow, Model
from tests.worlds.bounds import engines_of
from tests.worlds.seats import LIVE, Line, Manners, Seat

FRAME = 0x80
"""The type of the frames that applications send."""
LATENESS = 1.0
"""Seconds; a tick that comes later than that gives no peer up (R-10)."""
_STEPS = {(old, new) for (old, _), new in TRANSITIONS.items()}


class Player:
    """The application of one node.

    Args:
        node: where it plays.
        model: holds what it does and gets against each other; shared by all players of a world.
        manners: how it behaves.

    Attributes:
        seats: its ends of sessions, by session, in the order in which they came to be.
        refused: attempts of strangers that its node reported.
        lives: how often its sessions moved, lost and found their way, came back, got other keys.
    """

    def __init__(self, node: Node, model: Model, manners: Manners | None = None) -> None:
        self.node = node
        self.model = model
        self.manners = manners or Manners()
        self.seats: dict[Session, Seat] = {}
        self.refused = 0
        self.lives: Counter[str] = Counter()
        self._random = random.Random(f"{node.world.seed}/{node.name}/answers")
        self._latest = 0.0
        self._told = False  # an event is being handled, and others may wait behind it
        node.on_event = self._on_event

    @property
    def now(self) -> float:
        """The time of this node."""
        return self.node.now

    def lines(self) -> Iterator[tuple[Seat, Line]]:
        """All ends of streams."""
        for seat in self.seats.values():
            for line in seat.lines.values():
                yield seat, line

    # -- commands ------------------------------------------------------------------------------------------------

    def dial(self, other: Node, carrier: str = "udp", *, early: int = 0, **options: Any) -> Seat | None:
        """Dial a node, with the last ticket that it gave; `None` when this one holds as many sessions as it may.

        `early` bytes are to be there first.
        """
        endpoint = self.node.endpoint
        options.setdefault("ticket", self._ticket_of(other))
        if early:
            options["early_data"] = self.model.write_early(early)
        try:
            session = self.node.connect(other, carrier, **options)
        except TooManySessionsError:
            living = sum(not seat.session.is_closed for seat in self.seats.values())
            assert living >= endpoint.config.max_concurrent_sessions, f"{self.node.name} refuses with {living} sessions"
            return None
        seat = self._seat(session)
        seat.ticket = options["ticket"]
        seat.early = options.get("early_data", b"")
        return seat

    def _ticket_of(self, other: Node) -> Ticket | None:
        """The last ticket that a node gave to this one; it may have been offered before."""
        known = [seat.session for seat in self.seats.values() if seat.session.ticket is not None]
        there = other.config.identity.node_id
        return next((session.ticket for session in reversed(known) if session.peer_node_id == there), None)

    def open(self, seat: Seat, *, bidirectional: bool = True, purpose: str = "", **options: Any) -> Line | None:
        """Open a stream; one that is refused is opened later, with neither purpose nor options."""
        talk, session = self._meet(seat), seat.session
        try:
            stream = session.open_stream(bidirectional=bidirectional, purpose=purpose, **options)
        except TooManyStreamsError:
            assert seat.live
            seat.wanted[bidirectional] += 1
            self._pump()
            return None
        except (RemoteError, LocalError) as error:
            early = isinstance(error, LocalError) and not session.session_id
            assert early or session.state not in LIVE, f"{self.node.name} cannot open a stream: {error!r}"
            return None
        assert talk is not None
        talk.open(session.initiator, stream.stream_id, purpose)
        into = talk.flow(not session.initiator, stream.stream_id) if bidirectional else None
        line = Line(stream, talk.flow(session.initiator, stream.stream_id), into)
        assert line.out is not None
        line.out.mortal = "max_lifetime" in options or "max_attempts" in options
        seat.lines[stream.stream_id] = line
        return line

    def write(self, seat: Seat, line: Line, size: int, *, ends: bool = False) -> None:
        """Write so many bytes, as soon as there is room for them, and then perhaps the end."""
        assert line.out is not None
        if line.out.writable and not line.ends:
            line.todo += size
            line.ends = ends
            self._push(seat, line)
        else:
            self._refused_write(seat, line)
        self._pump()

    def finish(self, seat: Seat, line: Line) -> None:
        """End what is written, behind all that is to be written yet."""
        self.write(seat, line, 0, ends=True)

    def reset(self, seat: Seat, line: Line, code: int) -> None:
        """Give up what is written."""
        assert line.out is not None
        if not seat.session.is_closed:
            line.out.give_up(code)
        line.todo, line.ends = 0, False
        line.stream.reset(code, self.now)
        self._pump()

    def stop(self, seat: Seat, line: Line, code: int) -> None:
        """Read no more."""
        assert line.into is not None
        if seat.session.is_closed:
            return
        line.into.refuse(code)
        line.stream.stop(code, self.now)
        line.readable = False
        self._pump()

    def read(self, seat: Seat, line: Line, size: int) -> None:
        """Read once."""
        self._read(seat, line, size)
        self._pump()

    def watch(self, seat: Seat, line: Line) -> None:
        """Ask to be told when all that was written so far is acknowledged."""
        if line.out is not None and line.out.writable and not seat.session.is_closed:
            line.stream.watch_acked(line.out.written)
            self._pump()

    def send_datagram(self, seat: Seat, size: int, max_lifetime: float | None = None) -> None:
        """Send a datagram of at most this size."""
        talk = self._meet(seat)
        largest = seat.session.max_datagram_size
        if talk is None or not seat.live or not largest:
            return
        data = talk.post(seat.session.initiator).upcoming(min(size, largest))
        seat.session.send_datagram(data, self.now, max_lifetime)
        self._pump()

    def send_frame(self, seat: Seat, size: int, *, reliable: bool) -> None:
        """Send a frame of the application's, if the peer understands it and not too many are on their way."""
        talk, session = self._meet(seat), seat.session
        if talk is None or not seat.live or "frames" not in session.capabilities:
            return
        post = talk.letters(session.initiator)
        data = post.upcoming(8 + min(size, 1000))
        try:
            session.send_frame(FRAME, data, self.now, reliable=reliable)
        except BufferOverflowError:
            post.take_back(data)
        self._pump()

    def prioritise(self, line: Line, priority: Priority, *, asks: bool) -> None:
        """Let a stream matter more or less, or ask the peer for that."""
        if asks and line.into is not None:
            line.stream.ask_priority(priority, self.now)
        elif line.out is not None:
            line.stream.priority = priority
        self._pump()

    def close(self, seat: Seat, reason: str = "graceful") -> None:
        """End a session, what was written first."""
        if seat.session.state not in LIVE:
            return
        established = seat.session.is_active()
        if self._meet(seat) is not None and not seat.end.asked:
            seat.end.ask(reason, self._time() + FLUSH_TIMEOUT if established else -inf)
        seat.session.close(self.now, reason)
        self._pump()

    def abort(self, seat: Seat) -> None:
        """End a session at once."""
        if seat.session.is_closed:
            return
        if self._meet(seat) is not None:
            seat.end.ask("error")
        seat.session.abort(self.now)
        self._pump()

    def read_all(self) -> None:
        """Read everything there is to read."""
        for seat, line in self.lines():
            self._drain(seat, line)
        for seat in self.seats.values():
            self._take_mail(seat)
            self._take_letters(seat)
        self._pump()

    def behave(self) -> None:
        """Become an application that reads all, writes what it promised, ends what it began."""
        self.manners = evolve(self.manners, eager=True, closes=True)
        for seat, line in list(self.lines()):
            if line.out is not None and line.out.writable and not line.ends and seat.live:
                self.finish(seat, line)
        self.read_all()

    def unsettled(self, seat: Seat) -> str:
        """What of a session is neither done nor failed."""
        for bidirectional, wanted in seat.wanted.items():
            if wanted and self._allowed(seat, bidirectional):
                return f"{wanted} streams are wanted"
        engines = engines_of(seat.session)
        if engines is not None and seat.live and engines.control.frames.reliable:
            return f"{len(engines.control.frames.reliable)} frames are on their way"
        for line in seat.lines.values():
            for flow in (line.out, line.into):
                if flow is not None and not flow.settled:
                    return f"{flow}, {line}"
        return ""

    def _allowed(self, seat: Seat, bidirectional: bool) -> int:
        """Streams of a kind that the peer allows at once."""
        engines = engines_of(seat.session)
        assert engines is not None
        return engines.peer.max_streams_bidi if bidirectional else engines.peer.max_streams_uni

    def move(self, seat: Seat, path: NetworkPath, *, migrate: bool) -> None:
        """Offer another path, or go there."""
        try:
            (seat.session.migrate if migrate else seat.session.add_path)(path, self.now)
        except StateError:
            assert seat.session.state is not SessionState.ESTABLISHED or len(seat.session.paths) > 3
        except RemoteError:
            assert seat.session.state in (SessionState.CLOSING, SessionState.CLOSED)
        self._pump()

    def lose_path(self, path: NetworkPath, reason: str | None) -> None:
        """The host finds that a carrier is gone."""
        for seat in self.seats.values():
            if seat.session.path == path and not seat.session.is_closed:
                seat.cut = True
                if self._meet(seat) is not None:
                    seat.end.cut = True
        self.node.endpoint.path_closed(path, self.now, reason)
        self._pump()

    def restart(self, downtime: float) -> None:
        """The process dies, and knows nothing of its sessions when it begins anew."""
        for seat in self.seats.values():
            if self._meet(seat) is not None:
                seat.end.cut = True
        self.seats.clear()
        self.node.restart(downtime)
        self._latest = self.now

    def _pump(self) -> None:
        """Do what a host does after a command. Those that an event led to are followed by it anyway."""
        if not self._told:
            self.node.pump()

    def _time(self) -> float:
        """The time that counts for the core: it never runs backwards."""
        self._latest = max(self._latest, self.now)
        return self._latest

    # -- what comes of them ----------------------------------------------------------------------------------------

    def _seat(self, session: Session) -> Seat:
        seat = self.seats.get(session)
        if seat is None:
            seat = self.seats[session] = Seat(session)
        return seat

    def _meet(self, seat: Seat) -> Conversation | None:
        """What the model knows of a session, as soon as it has an id."""
        session = seat.session
        if seat.talk is None and session.session_id:
            seat.talk = self.model.conversation(session.session_id)
            seat.talk.join(session.initiator, self.node.name)
        return seat.talk

    def _push(self, seat: Seat, line: Line) -> None:
        """Write what is to be written, as far as there is room."""
        flow = line.out
        assert flow is not None
        if not line.writable:
            return
        try:
            if line.todo:
                data = bytearray(flow.upcoming(line.todo))
                taken = line.stream.write(data, self.now)
                data[:] = bytes(len(data))  # what is no `bytes` was only borrowed
                flow.written += taken
                line.todo -= taken
                line.writable = not line.todo
            if line.ends and not line.todo:
                line.stream.finish(self.now)
                flow.finished = True
        except SttError as error:
            self._excuse_write(seat, flow, error)
            line.todo, line.ends = 0, False

    def _refused_write(self, seat: Seat, line: Line) -> None:
        """A write to what has ended must be refused."""
        assert line.out is not None
        if line.ends and line.todo:
            return
        try:
            taken = line.stream.write(b"too late", self.now)
        except SttError as error:
            self._excuse_write(seat, line.out, error)
        else:
            raise AssertionError(f"{line.out.name} takes {taken} bytes after its end")

    def _excuse_write(self, seat: Seat, flow: Flow, error: SttError) -> None:
        """Hold a refusal against what is known of the stream."""
        if seat.session.state not in LIVE:
            expected: type[SttError] = RemoteError
        elif flow.stop_seen or (self._told and flow.stopped is not None):
            expected = StreamClosedError
        else:
            assert not flow.writable, f"{flow.name} refuses to be written: {error!r}"
            expected = LocalError
        assert isinstance(error, expected), f"{flow.name} refuses to be written: {error!r}, not {expected.__name__}"

    def _read(self, seat: Seat, line: Line, size: int) -> bool:
        """Read once; tell whether there may be more."""
        flow = line.into
        assert flow is not None
        try:
            data = line.stream.read(size, self.now)
        except DataExpiredError as error:
            flow.skip(error.skipped)
            return True
        except StreamClosedError as error:
            assert flow.reset is not None, f"{flow.name}: {error!r}"
            assert flow.reset_seen or self._told, f"{flow.name}: {error!r}"
            data = b""
        except LocalError as error:
            assert flow.stopped is not None, f"{flow.name}: {error!r}"
            data = b""
        except RemoteError as error:
            assert seat.session.is_closed, f"{flow.name}: {error!r}"
            data = b""
        else:
            if data:
                flow.take(data)
            elif line.stream.at_eof and not flow.ended:
                flow.see_end()
        line.readable = bool(data)
        return line.readable

    def _drain(self, seat: Seat, line: Line) -> None:
        while line.readable and self._read(seat, line, self.manners.chunk):
            pass

    def _take_mail(self, seat: Seat) -> None:
        if seat.mail:
            seat.mail = False
            assert seat.talk is not None
            while (data := seat.session.receive_datagram()) is not None:
                seat.talk.post(not seat.session.initiator).take(data)

    def _take_letters(self, seat: Seat) -> None:
        if seat.letters:
            seat.letters = False
            assert seat.talk is not None
            while (frame := seat.session.receive_frame()) is not None:
                kind, data = frame
                assert kind == FRAME
                seat.talk.letters(not seat.session.initiator).take(data)

    def _on_event(self, session: Session | None, event: Event) -> None:
        if session is None:
            assert isinstance(event, HandshakeFailed)
            self.refused += 1
            return
        seat = self._seat(session)
        assert seat.state is not SessionState.CLOSED or isinstance(event, SessionClosed), f"{event} after the end"
        self._told = True
        try:
            self._hear(seat, event)
        finally:
            self._told = False

    def _hear(self, seat: Seat, event: Event) -> None:
        session, talk = seat.session, self._meet(seat)
        if seat.early and session.early_stream is not None and talk is not None:
            out, seat.early = talk.begin_early(seat.early), b""
            seat.lines[0] = Line(session.early_stream, out, talk.flow(False, 0))
        match event:
            case SessionStateChanged(old, new):
                assert old is seat.state, f"{session} leaves {old}, and was in {seat.state}"
                assert (old, new) in _STEPS, f"{session} goes from {old} to {new}"
                seat.state = new
            case SessionEstablished(session_id, peer_node_id):
                assert seat.state is SessionState.ESTABLISHED
                assert session_id == session.session_id
                assert talk is not None
                talk.meet(session.initiator, self.node.config.identity.node_id, peer_node_id)
                if session.resumed and session.initiator:
                    assert seat.ticket is not None
                    self.model.resume(seat.ticket.sealed)
                    self.lives["resumed"] += 1
            case ResumptionRefused():
                assert seat.ticket is not None
                assert not session.resumed
                self.lives["refused"] += 1
            case EarlyDataReceived(stream_id, size):
                assert talk is not None
                data = self._early_of(session, stream_id)
                assert len(data) == size <= self.node.config.max_early_data
                self.model.see_early(data)
                talk.begin_early(data)
                self.lives["early"] += 1
            case EarlyDataRejected():
                assert session.early_data_accepted is False
                self.lives["rejected"] += 1
            case SessionMoved(old, new):
                assert old != new
                self.lives["moved"] += 1
            case SessionDetached(deadline):
                assert session.is_detached or session.is_closed
                if not seat.cut:
                    self._check_silence(seat)
                seat.waits_until = deadline
                self.lives["detached"] += 1
            case SessionReattached():
                assert seat.waits_until is not None
                seat.waits_until = None
                self.lives["reattached"] += 1
            case SessionClosed():
                assert seat.state is SessionState.CLOSED
                self._on_closed(seat, event)
            case KeysRotated(version):
                seat.version += 1
                assert seat.version == version <= session.key_version
                self.lives["rotated"] += 1
            case DatagramReceived():
                seat.mail = True
                if self.manners.eager:
                    self._take_mail(seat)
            case ExtensionFrameReceived():
                seat.letters = True
                if self.manners.eager:
                    self._take_letters(seat)
            case StreamsAvailable(bidirectional):
                for _ in range(seat.wanted[bidirectional]):
                    seat.wanted[bidirectional] -= 1
                    line = self.open(seat, bidirectional=bidirectional)
                    if line is None:
                        break
                    self._say(seat, line)
            case StreamOpened(stream_id, bidirectional, purpose):
                self._on_opened(seat, stream_id, bidirectional, purpose)
            case (
                StreamReadable(stream_id)
                | StreamWritable(stream_id)
                | StreamFinished(stream_id)
                | StreamReset(stream_id)
                | StreamAcked(stream_id)
            ):
                self._on_stream(seat, seat.lines[stream_id], event)

    @staticmethod
    def _early_of(session: Session, stream_id: int) -> bytes:
        """What came early, which nobody has read yet."""
        engines = engines_of(session)
        assert engines is not None
        stream = next(stream for stream in engines.streams if stream.id == stream_id)
        assert stream.recv is not None
        return b"".join(stream.recv._chunks)

    def _on_opened(self, seat: Seat, stream_id: int, bidirectional: bool, purpose: str) -> None:
        session, talk = seat.session, seat.talk
        assert talk is not None
        talk.see_opened(stream_id, purpose)
        assert bidirectional == (not stream_id & 2)
        assert stream_id not in seat.lines, f"{session}: stream {stream_id} is opened twice"
        stream = session.stream(stream_id)
        assert stream is not None, f"{session}: stream {stream_id} is opened and not there"
        out = talk.flow(session.initiator, stream_id) if bidirectional else None
        line = seat.lines[stream_id] = Line(stream, out, talk.flow(not session.initiator, stream_id))
        if bidirectional:
            self._say(seat, line)

    def _say(self, seat: Seat, line: Line) -> None:
        """Say something on a stream, as this application does."""
        line.todo = self._random.choice(self.manners.answers)
        line.ends = self.manners.closes
        self._push(seat, line)

    def _on_stream(self, seat: Seat, line: Line, event: Event) -> None:
        match event:
            case StreamReadable():
                assert line.into is not None
                assert not line.readable, f"{line.into.name} is told to be readable twice"
                line.readable = True
                if self.manners.eager:
                    self._drain(seat, line)
            case StreamWritable():
                assert line.out is not None
                assert not line.writable, f"{line.out.name} is told to be writable, and was"
                line.writable = True
                if line.out.writable and (line.todo or line.ends):
                    self._push(seat, line)
            case StreamFinished():
                assert line.out is not None
                line.out.see_finish()
            case StreamAcked(_, offset):
                assert line.out is not None
                line.out.see_acked(offset)
            case StreamReset(_, code, stopped):
                if stopped:
                    assert line.out is not None
                    line.out.see_stop(code)
                    line.todo, line.ends = 0, False
                else:
                    assert line.into is not None
                    line.into.see_reset(code)

    def _check_silence(self, seat: Seat) -> None:
        """The peer was given up: it was silent for long enough, and this host did not sleep through that (R-10).

        Unless it did so twice: there is one grace in each silence.
        """
        engines = engines_of(seat.session)
        assert engines is not None
        liveness, now = engines.liveness, self._time()
        patience = liveness.last_received + self.node.config.keep_alive_timeout
        assert now >= patience, f"{seat.session} gives its peer up {patience - now:g} s too early"
        late_by = now - liveness._dead_at()
        graced = liveness._graced_in == liveness.last_received
        assert graced or late_by <= LATENESS, f"{seat.session} gives its peer up in a tick that came {late_by:g} s late"

    def _on_closed(self, seat: Seat, event: SessionClosed) -> None:
        """Everybody who waits is woken by this: what had arrived can still be read, and nothing else."""
        assert seat.session.close_reason is event.reason
        if type(seat.session.close_error) is SessionTimeoutError and not event.by_peer:
            if seat.waits_until is None:
                self._check_silence(seat)
            else:
                crowded = self.node.config.limits.detached_per_peer < 4 or "others" in event.detail
                assert crowded or self._time() >= seat.waits_until, f"{seat.session} does not wait for its path"
        seat.wanted = {True: 0, False: 0}
        for line in seat.lines.values():
            line.todo, line.ends = 0, False
            line.readable = line.into is not None and line.into.readable
        if seat.talk is not None:
            seat.talk.see_closed(seat.session.initiator, event, self._time())
        else:
            assert event.code in CLEAN_CODES, f"a dial of {self.node.name} ends with {event}"
        if self.manners.eager:
            for line in seat.lines.values():
                self._drain(seat, line)
            seat.mail = seat.talk is not None
            self._take_mail(seat)
