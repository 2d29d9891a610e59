"""The endpoint: many sessions behind the addresses of one node.

It routes what comes in by connection ID, answers strangers, accepts or refuses, keeps the limits, and hands out what
the sessions want to send, one transmit at a time and in turn. It holds no stream and opens no packet: a datagram is
looked at here as far as its owner, and no further.

Like everything in this package it is pure: bytes, time and commands in; bytes, events and the next deadline out. See
docs/integrating.md for the four steps that a host repeats.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from stt_proto.clock import Clock, DeadlineQueue
from stt_proto.config import Config
from stt_proto.crypto import MLKEM768, Kem
from stt_proto.errors import (
    ArgumentError,
    ChecksumError,
    ConnectionRefusedError,
    ProtocolError,
    TooManySessionsError,
)
from stt_proto.events import Event, HandshakeFailed
from stt_proto.handshake import (
    Accepted,
    Challenged,
    Ended,
    Established,
    FailureReports,
    Initiator,
    Outcome,
    PieceCollector,
    Reply,
    Responder,
    Terms,
)
from stt_proto.packet import ConnectionIdTable, ExpectedResets, ResetTokens, TrainBudget, bytes_view, run_end
from stt_proto.recovery import CONTROLLERS
from stt_proto.session.context import SessionContext
from stt_proto.session.engines import local_parameters
from stt_proto.session.session import Session
from stt_proto.session.sight import Sight
from stt_proto.session.trace import KeyLog, Trace
from stt_proto.streams import GrowthBudget
from stt_proto.types import Buffer, Deadline, EndpointCounters, NetworkPath, Transmit
from stt_proto.wire import MAX_VARINT, Message, MessageType, decode_datagram_untrusted
from stt_proto.wire.header import CONNECTION_ID_SIZE, FORM_BIT, FORM_BITS, PACKET_FORM, PACKET_HEADER

Admit = Callable[[bytes, NetworkPath, float], "int | None"]
"""Decides who may have a session: `(peer_node_id, path, now)` to an error code, or `None` to let in. It is pure."""

HANDSHAKE_DATAGRAM = 1200
"""Bytes of the largest handshake datagram where datagrams can get lost (W-4)."""
OUTBOX = 4096
"""Answers of the handshake that may wait for the host to take them; beyond, the oldest is dropped."""

_TO_INITIATOR = frozenset({MessageType.CHALLENGE, MessageType.RETRY, MessageType.REFUSED, MessageType.VERSION})


class Endpoint:
    """One node, as the network sees it.

    Args:
        config: who it is and how it behaves.
        now: seconds on any monotonic clock; so are all other `now`.
        unix_time: the wall clock at the same moment, seconds since 1970.
        entropy: `entropy(n)` gives n random bytes; the only randomness. Anything but the system's is for tests.
        admit: asked once for each peer, after it has proven who it is and before its session exists.
        kem: replaces the key encapsulation in tests, since the library's draws its own randomness.
        trace: is told of every packet, and of what else happens.
        keylog: is given the secrets of every session, as `(label, session_id, secret)`; whoever has them reads all.

    Attributes:
        config: as given.
        accepting: set to False to refuse new sessions.
        counters: what was dropped here.

    Raises:
        ArgumentError: the configuration names a congestion controller that does not exist; or `trace` is no `Trace`, or
            `keylog` no function.
    """

    __slots__ = (
        "_admit",
        "_clock",
        "_context",
        "_deadlines",
        "_entropy",
        "_events",
        "_kem",
        "_lingering",
        "_outbox",
        "_reports",
        "_responder",
        "_terms",
        "accepting",
        "config",
        "counters",
    )

    def __init__(
        self,
        config: Config,
        *,
        now: float,
        unix_time: float,
        entropy: Callable[[int], bytes],
        admit: Admit | None = None,
        kem: Kem | None = None,
        trace: Trace | None = None,
        keylog: KeyLog | None = None,
    ) -> None:
        if isinstance(config.congestion, str) and config.congestion not in CONTROLLERS:
            raise ArgumentError(
                f"congestion is {config.congestion!r}; it must be one of {sorted(CONTROLLERS)}", argument="congestion"
            )
        self.config = config
        self.accepting = True
        self.counters = EndpointCounters()
        self._admit = admit
        self._kem = kem or MLKEM768()
        self._entropy = entropy
        self._clock = Clock(now, unix_time)
        self._events: deque[tuple[Session | None, Event]] = deque()
        self._outbox: deque[Transmit] = deque()
        self._reports = FailureReports(config.limits.failure_reports)
        self._deadlines: DeadlineQueue[Session | Responder] = DeadlineQueue()
        self._lingering: dict[Session, None] = {}
        self._terms: dict[str, Terms] = {}
        self._context = SessionContext(
            config=config,
            clock=self._clock,
            entropy=entropy,
            events=self._events,
            ready=OrderedDict(),
            unarmed={},
            connection_ids=ConnectionIdTable(entropy),
            reset_tokens=ResetTokens(config.reset_key or entropy(32), config.limits.resets_per_second),
            expected_resets=ExpectedResets(entropy(32)),
            train_budget=TrainBudget(config.limits.train_bytes_in_all),
            window_budget=GrowthBudget(config.limits.grown_windows),
            dial_keys={},
            live={},
            sessions={},
            pieces=PieceCollector(config.limits.piece_groups, config.handshake_timeout),
            full={},
            sight=Sight(trace, keylog, self._events, self.counters),
        )
        self._responder = Responder(
            identity=config.identity,
            shared_seed=config.shared_seed,
            application=config.application,
            versions=config.versions,
            suites=config.suites,
            kem=self._kem,
            entropy=entropy,
            limits=config.limits,
            allow_self=config.allow_self,
            handshake_timeout=config.handshake_timeout,
        )

    # -- sessions --------------------------------------------------------------------------------------------------

    @property
    def sessions(self) -> Mapping[bytes, Session]:
        """The established sessions by their id; a live view."""
        return MappingProxyType(self._context.sessions)

    def connect(
        self, path: NetworkPath, peer_node_id: bytes | None = None, ticket: bytes | None = None, *, now: float
    ) -> Session:
        """Dial. The session is in `HANDSHAKING`; its events tell what becomes of it.

        Args:
            path: the way there; its carrier must be one of `config.carriers`.
            peer_node_id: who must answer, 32 bytes; `None` for anybody with the shared seed.
            ticket: reserved for resumption.
            now: seconds.

        Raises:
            ArgumentError: an argument is out of range.
            TooManySessionsError: this endpoint holds as many sessions as it may.
        """
        now = self._clock.advance(now)
        self._check_path(path)
        if peer_node_id is not None and not (isinstance(peer_node_id, bytes) and len(peer_node_id) == 32):
            raise ArgumentError(f"peer_node_id is {peer_node_id!r}; it must be 32 bytes", argument="peer_node_id")
        if ticket is not None:
            raise ArgumentError("ticket is given; this version cannot resume sessions", argument="ticket")
        if self._is_full():
            raise TooManySessionsError(f"this endpoint holds {self.config.max_concurrent_sessions} sessions")
        config, context = self.config, self._context
        traits = config.carriers[path.carrier]
        session = Session(context, path, True, now)
        initiator = Initiator(
            identity=config.identity,
            shared_seed=config.shared_seed,
            application=config.application,
            versions=config.versions,
            suites=config.suites,
            parameters=local_parameters(config, traits),
            local_cid=context.connection_ids.issue(session),
            reliable=traits.reliable,
            max_datagram=traits.max_packet if traits.reliable else HANDSHAKE_DATAGRAM,
            peer_node_id=peer_node_id,
            allow_self=config.allow_self,
            handshake_timeout=config.handshake_timeout,
            max_challenges=config.limits.challenges_tried,
            entropy=self._entropy,
            kem=self._kem,
            now=now,
        )
        session.dial(initiator, now)
        return session

    def _check_path(self, path: NetworkPath) -> None:
        if not isinstance(path, NetworkPath):
            raise ArgumentError(f"path is {path!r}; it must be a NetworkPath", argument="path")
        if path.carrier not in self.config.carriers:
            raise ArgumentError(
                f"path has the carrier {path.carrier!r}; the configuration knows {sorted(self.config.carriers)}",
                argument="path",
            )

    def _is_full(self) -> bool:
        return len(self._context.live) >= self.config.max_concurrent_sessions

    # -- bytes in --------------------------------------------------------------------------------------------------

    def receive(
        self, data: Buffer, path: NetworkPath, now: float, segment_size: int | None = None, ecn: int = 0
    ) -> None:
        """Take in what arrived. Never raises on what is in it.

        Args:
            data: one datagram, or with `segment_size` a run of them; borrowed for the call.
            path: where it came from.
            now: seconds.
            segment_size: bytes of each datagram of the run but perhaps the last.
            ecn: the two ECN bits of the IP header, 0 when they are not known.

        Raises:
            ArgumentError: an argument is out of range, and nothing was taken in; or what `admit` gave is.
        """
        now = self._clock.advance(now)
        if path.__class__ is not NetworkPath or path.carrier not in self.config.carriers:
            self._check_path(path)
        if not 0 <= ecn <= 3:
            raise ArgumentError(f"ecn is {ecn}; it must be from 0 to 3", argument="ecn")
        view = memoryview(data) if data.__class__ is bytes else bytes_view(data)
        size = len(view)
        if segment_size is not None and (type(segment_size) is not int or segment_size < 1):
            raise ArgumentError(f"segment_size is {segment_size!r}; it must be at least 1", argument="segment_size")
        if segment_size is None or size <= segment_size:
            self._receive_run(view, 0, size, None, path, now, ecn)
            return
        if segment_size < PACKET_HEADER:
            self.counters.malformed += -(-size // segment_size)
            return
        start = 0
        while start < size:
            if view[start] & FORM_BIT:  # alone: what stands where a packet has its connection ID is the check
                end = min(start + segment_size, size)
            else:
                end = run_end(view, start, size, segment_size)
            self._receive_run(view, start, end, segment_size, path, now, ecn)
            start = end

    def _receive_run(
        self, view: memoryview, start: int, end: int, segment_size: int | None, path: NetworkPath, now: float, ecn: int
    ) -> None:
        """Take in datagrams that carry one connection ID, if they are packets at all."""
        if end - start < PACKET_HEADER:
            self.counters.malformed += 1
            return
        if not view[start] & FORM_BIT:
            connection_id = bytes(view[start + 1 : start + 1 + CONNECTION_ID_SIZE])
            owner = self._context.connection_ids.route(connection_id)
            if owner.__class__ is Session:
                owner.receive(view, start, end, segment_size, path, now, ecn)
                return
        step = segment_size or end - start
        for at in range(start, end, step):
            self._receive_datagram(bytes(view[at : min(at + step, end)]), path, now)

    def _receive_datagram(self, datagram: bytes, path: NetworkPath, now: float) -> None:
        """Take in a datagram that is not a packet for a session."""
        form = datagram[0] & FORM_BITS
        if form & FORM_BIT:
            self._receive_handshake(datagram, path, now)
            return
        if form != PACKET_FORM or len(datagram) < PACKET_HEADER:
            self.counters.malformed += 1
            return
        connection_id = datagram[1 : 1 + CONNECTION_ID_SIZE]
        half_open = self._responder.get(connection_id)
        if half_open is None:
            self._receive_misdirected(datagram, connection_id, path, now)
        elif half_open.path != path:
            self.counters.misdirected += 1
        elif not half_open.hold(datagram):
            self.counters.overtaking += 1

    def _receive_misdirected(self, datagram: bytes, connection_id: bytes, path: NetworkPath, now: float) -> None:
        """A packet for nobody: a stateless reset of one of our sessions, or worth one itself (P-14)."""
        context = self._context
        session = context.expected_resets.owner_of(datagram)
        if session is not None:
            session.on_stateless_reset(now)
            return
        self.counters.misdirected += 1
        if self.config.carriers[path.carrier].reliable:
            return
        reset = context.reset_tokens.make_reset(connection_id, len(datagram), now, self._entropy)
        if reset is not None:
            self.counters.resets_sent += 1
            self._post(path, (reset,))

    # -- handshakes ------------------------------------------------------------------------------------------------

    def _receive_handshake(self, datagram: bytes, path: NetworkPath, now: float) -> None:
        try:
            decoded = decode_datagram_untrusted(datagram)
        except ChecksumError:
            self.counters.damaged += 1
            return
        except ProtocolError:
            self.counters.malformed += 1
            return
        recipient = self._recipient(decoded.type, decoded.dcid, path)
        if recipient is None:
            if not (isinstance(decoded, Message) and self._is_repeated_proof(decoded, path, now)):
                self.counters.refused += 1
            return
        reliable = self.config.carriers[path.carrier].reliable
        message = decoded if isinstance(decoded, Message) else self._context.pieces.add(decoded, path, reliable, now)
        if isinstance(recipient, Session):
            if message is not None:
                recipient.on_message(message, now)
            return
        if message is not None:
            self._answer(message, path, len(datagram), now)
        self._arm_half_open()

    def _is_repeated_proof(self, message: Message, path: NetworkPath, now: float) -> bool:
        """Whether this is the AUTH_PROOF of a session that has begun, whose peer has not heard of it yet (K-7)."""
        if message.type is not MessageType.AUTH_PROOF:
            return False
        owner = self._context.connection_ids.route(message.dcid)
        return owner.__class__ is Session and owner.on_repeated_proof(path, now)

    def _recipient(self, kind: MessageType, connection_id: bytes, path: NetworkPath) -> Session | Responder | None:
        """Who waits for a message of this kind, on this path, under this connection ID (H-30)."""
        if kind is MessageType.HELLO:
            return self._responder
        if kind in _TO_INITIATOR:
            owner = self._context.connection_ids.route(connection_id)
            return owner if owner.__class__ is Session and owner.awaits(path) else None
        half_open = self._responder.get(connection_id)
        return self._responder if half_open is not None and half_open.path == path else None

    def _answer(self, message: Message, path: NetworkPath, size: int, now: float) -> None:
        """A message for the responder's side."""
        context = self._context
        outcome = self._responder.on_message(
            message,
            path,
            now,
            terms=self._terms_of(path.carrier),
            size=size,
            issue=lambda: context.connection_ids.issue(self._responder),
            refusal=self._refusal(),
            live_keys=context.dial_keys,
        )
        self._act(outcome, path, now)

    def _terms_of(self, carrier: str) -> Terms:
        """What the responder needs to know of a carrier, made once."""
        terms = self._terms.get(carrier)
        if terms is None:
            traits = self.config.carriers[carrier]
            largest = traits.max_packet if traits.reliable else HANDSHAKE_DATAGRAM
            parameters = local_parameters(self.config, traits)
            terms = self._terms[carrier] = Terms(traits.reliable, largest, parameters.encode())
        return terms

    def _act(self, outcome: Outcome, path: NetworkPath, now: float) -> None:
        """Do what the responder decided."""
        match outcome:
            case Reply(datagrams):
                self._post(path, datagrams)
            case Challenged(half_open, ended):
                self._post(path, half_open.datagrams)
                if ended is not None:
                    self._release(ended, now)
            case Accepted():
                self._accept(outcome, path, now)
            case Ended():
                self._release(outcome, now)
            case _:
                self.counters.refused += 1

    def _accept(self, accepted: Accepted, path: NetworkPath, now: float) -> None:
        """The peer has proven who it is: let it in, or tell it why not (H-29)."""
        established = accepted.established
        self._context.pieces.forget(path, established.local_cid)
        try:
            code = self._judge(established, path, now)
        except Exception:  # out of `admit`: nobody is let in, and nothing is left of it
            self._context.connection_ids.retire(established.local_cid)
            raise
        session = Session(self._context, path, False, now)
        if code is None:
            session.accept(established, now)
        else:
            session.refuse(established, code, now)
            self._report(path, "too_many_sessions" if code == TooManySessionsError.code else "refused", now)
        for packet in accepted.held_packets:
            session.receive(packet, 0, len(packet), None, path, now, 0)

    def _refusal(self) -> int | None:
        """The code for which nobody at all is let in at the moment, or `None` (H-28)."""
        if not self.accepting:
            return ConnectionRefusedError.code
        return TooManySessionsError.code if self._is_full() else None

    def _judge(self, established: Established, path: NetworkPath, now: float) -> int | None:
        """The code to refuse a proven peer with, or `None`."""
        code = self._refusal()
        if code is not None:
            return code
        twin = self._context.sessions.get(established.secrets.session_id)
        if twin is not None and not twin.initiator:
            return ConnectionRefusedError.code
        code = None if self._admit is None else self._admit(established.peer_node_id, path, now)
        if code is not None and not (type(code) is int and 0 <= code <= MAX_VARINT):
            raise ArgumentError(f"admit gave {code!r}; it must give an error code or None", argument="admit")
        return code

    def _release(self, ended: Ended, now: float) -> None:
        """A half-open handshake has failed."""
        half_open = ended.half_open
        self._context.connection_ids.retire(half_open.local_cid)
        self._context.pieces.forget(half_open.path, half_open.local_cid)
        self._report(half_open.path, ended.reason, now)

    def _report(self, path: NetworkPath, reason: str, now: float) -> None:
        """Tell the host of a failed attempt, at most once a second and source (H-32)."""
        if self._reports.is_due(path, now):
            self._events.append((None, HandshakeFailed(path, reason)))

    def _post(self, path: NetworkPath, datagrams: tuple[bytes, ...]) -> None:
        """Queue answers that belong to no session."""
        for datagram in datagrams:
            if len(self._outbox) >= OUTBOX:
                self._outbox.popleft()
                self.counters.outbox_dropped += 1
            self._outbox.append(Transmit(path, (datagram,)))

    # -- bytes out -------------------------------------------------------------------------------------------------

    def next_transmit(self, now: float) -> Transmit | None:
        """Take the next thing to send; `None` when nothing is to be sent now. What was taken counts as sent."""
        now = self._clock.advance(now)
        full = self._context.full
        while self._outbox:
            answer = self._outbox.popleft()
            if answer.path not in full:
                return answer
            self.counters.outbox_dropped += 1
        ready = self._context.ready
        while ready:
            session, _ = ready.popitem(last=False)
            if full and session.path in full:
                full[session.path][session] = None
                continue
            transmit = session.next_transmit(now)
            self._context.unarmed[session] = None  # even if it was nothing: the pacer may have said when
            if transmit is not None:
                if session.has_more(now):
                    ready[session] = None
                return transmit
        return None

    @property
    def has_more(self) -> bool:
        """Whether `next_transmit`, which has just given something, is worth another call."""
        return bool(self._context.ready or self._outbox)

    @property
    def is_idle(self) -> bool:
        """Whether nothing has happened since the last transmit, event and deadline were asked for: there is no news."""
        context = self._context
        return not (context.ready or context.unarmed or self._events or self._outbox)

    def transmits(self, now: float) -> Iterator[Transmit]:
        """Take everything there is to send now, one by one."""
        while (transmit := self.next_transmit(now)) is not None:
            yield transmit

    def events(self) -> Iterator[tuple[Session | None, Event]]:
        """Take what happened, in order; the session is `None` when it concerns the endpoint itself."""
        events = self._events
        while events:
            yield events.popleft()

    # -- time ------------------------------------------------------------------------------------------------------

    def next_deadline(self) -> Deadline | None:
        """When `tick` wants to be called next; `None` when never. Calling it early is harmless."""
        self._arm()
        return self._deadlines.next()

    def next_tick(self) -> float:
        """The time of `next_deadline` alone; `inf` when never. A host asks this after every batch."""
        self._arm()
        return self._deadlines.at

    def _arm(self) -> None:
        """Enter the deadlines of the sessions that were touched, and forget those that are over."""
        unarmed, now = self._context.unarmed, self._clock.now
        while unarmed:
            session, _ = unarmed.popitem()
            closed = session.is_closed
            if closed and session.is_over(now):
                self._forget(session)
                continue
            self._deadlines.arm(session, *session.due())
            if closed:
                self._linger(session)

    def _arm_half_open(self) -> None:
        """Enter the deadline of what was begun with this endpoint and is no session yet."""
        at = min(self._responder.deadline, self._context.pieces.deadline)
        self._deadlines.arm(self._responder, at, "half_open")

    def _linger(self, session: Session) -> None:
        """Keep a session that is over to answer its peer; as many as there may be live ones, the oldest goes first."""
        self._lingering[session] = None
        if len(self._lingering) > self.config.max_concurrent_sessions:
            self._forget(next(iter(self._lingering)))

    def _forget(self, session: Session) -> None:
        """Nothing will come of a session any more."""
        context = self._context
        self._lingering.pop(session, None)
        context.ready.pop(session, None)
        if session.path in context.full:
            context.full[session.path].pop(session, None)
        self._deadlines.forget(session)
        session.release()

    def tick(self, now: float) -> None:
        """Let time pass; idempotent for the same `now`."""
        now = self._clock.advance(now)
        full = self._context.full
        self._arm()
        while (owner := self._deadlines.pop_due(now)) is not None:
            if owner.__class__ is Session:
                due = owner.deadline()
                # Most have moved, since what was waited for has come. Behind a full carrier it may just not count now.
                if due.at > now and not full:
                    self._deadlines.arm(owner, due.at, due.reason)
                else:
                    owner.tick(now)
            else:
                self._context.pieces.expire(now)
                for ended in self._responder.expire(now):
                    self._release(ended, now)
        self._arm()
        self._arm_half_open()

    def set_unix_time(self, unix_time: float, now: float) -> None:
        """Correct the wall clock."""
        self._clock.set_unix(unix_time, self._clock.advance(now))

    # -- paths -----------------------------------------------------------------------------------------------------

    def path_closed(self, path: NetworkPath, now: float, reason: str | None = None) -> None:
        """The carrier of a path ended, failed or was refused.

        Args:
            path: the path.
            now: seconds.
            reason: a sentence; `"refused"` and `"unreachable"` tell a dial that nobody is there, or no way leads there.
        """
        now = self._clock.advance(now)
        context = self._context
        context.full.pop(path, None)
        context.pieces.path_closed(path)
        for session in [session for session in context.live if session.path == path]:
            session.path_closed(now, reason)
        for ended in self._responder.path_closed(path, now):
            self._release(ended, now)

    def path_writable(self, path: NetworkPath, writable: bool, now: float) -> None:
        """A carrier that queues is full (`False`), or has room again.

        While it is full nothing is handed out for its paths; answers to strangers are dropped, who will ask again.
        """
        self._clock.advance(now)
        context = self._context
        if not writable:
            context.full.setdefault(path, {})
        else:
            waiting = context.full.pop(path, {})
            context.ready.update(waiting)
            context.unarmed.update(waiting)

    def datagram_refused(self, path: NetworkPath, size: int, now: float, limit: int | None = None) -> None:
        """The host itself could not send a datagram because of its size (EMSGSIZE); it counts as lost (P-20).

        Args:
            path, now: as ever; the path is the very object in the transmit.
            size, limit: bytes of its largest datagram, and of the largest that the host takes, if it says so.
        """
        now = self._clock.advance(now)
        for session in [session for session in self._context.live if session.path is path]:
            session.datagram_refused(size, limit, now)
