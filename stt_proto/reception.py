"""The half of an endpoint that deals with those who are no sessions yet.

Handshake messages, packets that come before their session, refusals and answers to strangers: what is decided about
these is the responder's business (`handshake`), what becomes of it is done here. Sessions are the other half, in
`endpoint`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial

from stt_proto.clock import Clock, DeadlineQueue
from stt_proto.config import Config
from stt_proto.crypto import MLKEM768, Kem, channel_identifier
from stt_proto.errors import (
    ArgumentError,
    ChecksumError,
    ConnectionRefusedError,
    ProtocolError,
    ShuttingDownError,
    TooManySessionsError,
)
from stt_proto.events import Event, HandshakeFailed
from stt_proto.handshake import (
    LEAST_HELLO,
    TICKET_USED,
    Accepted,
    Challenged,
    Ended,
    Established,
    FailureReports,
    Offered,
    Outcome,
    PieceCollector,
    Reply,
    Responder,
    Resuming,
    Terms,
    TicketOffice,
    TicketTerms,
    Waiting,
)
from stt_proto.lifecycle import Lifecycle
from stt_proto.packet import (
    MAX_RESET,
    ConnectionIdTable,
    ExpectedResets,
    PacketKeys,
    PacketReceiver,
    ResetTokens,
    TrainBudget,
    reset_token,
)
from stt_proto.session.context import SessionContext
from stt_proto.session.detached import DetachedSessions
from stt_proto.session.early import EarlyArrival, OnProof
from stt_proto.session.engines import local_parameters
from stt_proto.session.routes import PathIndex
from stt_proto.session.session import Session
from stt_proto.session.sight import Sight
from stt_proto.session.trace import KeyLog, Trace
from stt_proto.streams import GrowthBudget
from stt_proto.types import EndpointCounters, NetworkPath, Stray, Transmit
from stt_proto.wire import FIRST_MESSAGES, MAX_VARINT, Message, MessageType, decode_datagram_untrusted
from stt_proto.wire.header import CONNECTION_ID_SIZE, FORM_BIT, FORM_BITS, PACKET_FORM, PACKET_HEADER

Admit = Callable[[bytes, NetworkPath, float], "int | None"]
"""Decides who may have a session: `(peer_node_id, path, now)` to an error code, or `None` to let in. It is pure."""

HANDSHAKE_DATAGRAM = 1200
"""Bytes of the largest handshake datagram where datagrams can get lost (W-4)."""
OUTBOX = 4096
"""Answers of the handshake that may wait for the host to take them; beyond, the oldest is dropped."""
STRAYS = 1024
"""Datagrams for other workers that may wait for the host; beyond, the oldest is dropped."""
SHOWN_PER_SECOND = 100
"""Datagrams that are shown to all other workers, within any second."""

_TO_INITIATOR = frozenset(
    {MessageType.CHALLENGE, MessageType.RETRY, MessageType.REFUSED, MessageType.VERSION, MessageType.RESUMED}
)


class Reception:
    """How an endpoint receives strangers; `Endpoint` is the only class behind it, and lists the attributes."""

    __slots__ = (
        "_admit",
        "_asked",
        "_callers",
        "_clock",
        "_context",
        "_deadlines",
        "_entropy",
        "_events",
        "_kem",
        "_lifecycle",
        "_outbox",
        "_reports",
        "_responder",
        "_shown",
        "_strays",
        "_terms",
        "_trials",
        "_worker_ids",
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
        admit: Admit | None,
        kem: Kem | None,
        trace: Trace | None,
        keylog: KeyLog | None,
        lifecycle: Lifecycle | None,
    ) -> None:
        self.config = config
        self.accepting = True
        self.counters = EndpointCounters()
        self._admit = admit
        self._lifecycle = lifecycle
        self._kem = kem or MLKEM768()
        self._entropy = entropy
        self._clock = Clock(now, unix_time)
        self._events: deque[tuple[Session | None, Event]] = deque()
        self._outbox: deque[Transmit] = deque()
        self._strays: deque[Stray] = deque()
        self._shown: deque[float] = deque()
        self._worker_ids = config.worker_ids
        self._reports = FailureReports(config.limits.failure_reports)
        self._deadlines: DeadlineQueue[Session | Responder | Lifecycle] = DeadlineQueue()
        self._terms: dict[str, Terms] = {}
        self._trials: dict[bytes, PacketReceiver] = {}  # what would open the first packet of a resumption
        self._asked: dict[bytes, Resuming] = {}  # by ticket: those about which the host was asked
        self._callers: dict[bytes, Session] = {}  # by connection ID: the session that told the host of it
        terms = TicketTerms(
            lifetime=int(config.resumption_timeout),
            fleet_secret=config.fleet_secret,
            previous_fleet_secret=config.previous_fleet_secret,
            channel=channel_identifier(config.application.encode()),
            generation=config.seed_generation,
            suites=config.suites,
            limit=config.limits.used_tickets,
        )
        self._context = SessionContext(
            config=config,
            clock=self._clock,
            entropy=entropy,
            events=self._events,
            ready=OrderedDict(),
            unarmed={},
            connection_ids=ConnectionIdTable(entropy, None if config.worker_ids is None else config.worker_ids.owns),
            reset_tokens=ResetTokens(config.reset_key or entropy(32), config.limits.resets_per_second),
            expected_resets=ExpectedResets(entropy(32)),
            train_budget=TrainBudget(config.limits.train_bytes_in_all),
            window_budget=GrowthBudget(config.limits.grown_windows),
            dial_keys={},
            live={},
            sessions={},
            pieces=PieceCollector(config.limits.piece_groups, config.handshake_timeout),
            by_path=PathIndex(),
            detached=DetachedSessions(config.limits, config.max_concurrent_sessions),
            full={},
            sight=Sight(trace, keylog, self._events, self.counters),
            tickets=TicketOffice(config.identity.node_id, terms, self._clock, entropy),
            ticket_answers={},
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
            tickets=self._context.tickets,
            allow_self=config.allow_self,
            handshake_timeout=config.handshake_timeout,
        )

    # -- packets that are nobody's ---------------------------------------------------------------------------------

    def _receive_datagram(self, datagram: bytes, path: NetworkPath, now: float, ecn: int) -> None:
        """Take in a datagram that is not a packet for a session."""
        form = datagram[0] & FORM_BITS
        if form & FORM_BIT:
            self._receive_handshake(datagram, path, now, ecn)
            return
        if form != PACKET_FORM or len(datagram) < PACKET_HEADER:
            self.counters.malformed += 1
            return
        connection_id = datagram[1 : 1 + CONNECTION_ID_SIZE]
        half_open = self._responder.get(connection_id)
        if half_open is None or half_open.begun:  # or it has been, and is over: its keys are good for one session
            self._receive_misdirected(datagram, connection_id, path, now, ecn)
        elif path not in half_open.paths:
            self.counters.misdirected += 1
        elif isinstance(half_open, Resuming) and self._confirms(half_open, datagram, path, now):
            half_open.held.append(datagram)
            self._accept(self._responder.confirm(half_open, path, now), path, now)
        elif not half_open.hold(datagram):
            self.counters.overtaking += 1

    def _confirms(self, resuming: Resuming, datagram: bytes, path: NetworkPath, now: float) -> bool:
        """Whether this packet opens under the keys of a resumption: then its sender is no echo (H-35)."""
        if resuming.established is None:
            return False
        trial = self._trials.get(resuming.local_cid)
        if trial is None:
            secrets = resuming.established.secrets
            keys = PacketKeys(secrets.suite, secrets.initiator_traffic, secrets.initiator_header)
            trial = self._trials[resuming.local_cid] = PacketReceiver(keys, self._context.train_budget)
        return bool(trial.receive(datagram, 0, len(datagram), None, path, now, False))

    def _receive_misdirected(
        self, datagram: bytes, connection_id: bytes, path: NetworkPath, now: float, ecn: int
    ) -> None:
        """A packet for nobody: a stateless reset of one of our sessions, or worth one itself (P-14)."""
        context = self._context
        session = context.expected_resets.owner_of(datagram)
        if session is not None:
            session.on_stateless_reset(now)
            return
        if self._is_stray(connection_id, datagram, path, ecn):
            return
        self.counters.misdirected += 1
        if self.config.carriers[path.carrier].reliable:
            return
        if self._worker_ids is not None and len(datagram) <= MAX_RESET and reset_token(datagram) is not None:
            self._show_all(datagram, path, now, ecn)
        reset = context.reset_tokens.make_reset(connection_id, len(datagram), now, self._entropy)
        if reset is not None:
            self.counters.resets_sent += 1
            self._post(path, (reset,))

    # -- what is for other workers ---------------------------------------------------------------------------------

    def _is_stray(self, name: bytes, datagram: bytes, path: NetworkPath, ecn: int) -> bool:
        """Whether the ID by which a datagram is routed names another worker; then it is given out (C-8)."""
        ids = self._worker_ids
        if ids is None or self.config.carriers[path.carrier].reliable or ids.owns(name):
            return False  # a connection is of one process, whatever comes on it
        self._give_out(ids.worker_of(name), datagram, path, ecn)
        return True

    def _show_all(self, datagram: bytes, path: NetworkPath, now: float, ecn: int) -> None:
        """Give out what may be a stateless reset: whose session it ends cannot be known, as its ID is random (C-9)."""
        shown = self._shown
        while shown and shown[0] <= now - 1.0:
            shown.popleft()
        if len(shown) < SHOWN_PER_SECOND:
            shown.append(now)
            self._give_out(None, datagram, path, ecn)

    def _give_out(self, worker: int | None, datagram: bytes, path: NetworkPath, ecn: int) -> None:
        if len(self._strays) >= STRAYS:
            self._strays.popleft()
            self.counters.strays_dropped += 1
        self._strays.append(Stray(worker, datagram, path, ecn))

    # -- handshakes ------------------------------------------------------------------------------------------------

    def _receive_handshake(self, datagram: bytes, path: NetworkPath, now: float, ecn: int) -> None:
        try:
            decoded = decode_datagram_untrusted(datagram)
        except ChecksumError:
            self.counters.damaged += 1
            return
        except ProtocolError:
            self.counters.malformed += 1
            return
        name = decoded.scid if decoded.type in FIRST_MESSAGES else decoded.dcid
        if self._is_stray(name, datagram, path, ecn):
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
        if kind in FIRST_MESSAGES:
            return self._responder
        if kind in _TO_INITIATOR:
            owner = self._context.connection_ids.route(connection_id)
            return owner if owner.__class__ is Session and owner.awaits(path) else None
        half_open = self._responder.get(connection_id)
        return self._responder if half_open is not None and path in half_open.paths else None

    def _answer(self, message: Message, path: NetworkPath, size: int, now: float) -> None:
        """A message for the responder's side."""
        context, refusal = self._context, self._refusal()
        if refusal == ShuttingDownError.code and message.type is MessageType.RESUME:
            refusal = ConnectionRefusedError.code  # for a ticket this number means something else (H-37)
        outcome = self._responder.on_message(
            message,
            path,
            now,
            terms=self._terms_of(path.carrier),
            size=size,
            issue=lambda: context.connection_ids.issue(self._responder),
            refusal=refusal,
            live_keys=context.dial_keys,
        )
        self._act(outcome, path, now)

    def _terms_of(self, carrier: str) -> Terms:
        """What the responder needs to know of a carrier, made once."""
        terms = self._terms.get(carrier)
        if terms is None:
            traits = self.config.carriers[carrier]
            largest = traits.max_packet if traits.reliable else HANDSHAKE_DATAGRAM
            parameters = local_parameters(self.config)
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
            case Offered(resuming):
                self._consider(resuming, path, now)
            case Accepted():
                self._accept(outcome, path, now)
            case Ended():
                self._release(outcome, now)
            case _:
                self.counters.refused += 1

    def _accept(self, accepted: Accepted, path: NetworkPath, now: float) -> None:
        """The peer has proven who it is: let it in, or tell it why not (H-29)."""
        established, half_open = accepted.established, accepted.half_open
        resumed = isinstance(half_open, Resuming)
        caller = self._drop(half_open)
        unwanted = caller is not None and caller.is_closed  # the host has ended it before it began
        session = Session(self._context, path, False, now) if caller is None or unwanted else caller
        session.path = path
        self._forget_beside(accepted)
        try:
            code = ConnectionRefusedError.code if unwanted else self._judge(established)
            if code is None and (not resumed or path != half_open.path):  # of the first path it was asked before
                code = self._ask_admit(established.peer_node_id, path, now)
            if code is None:
                code = self._enter(session, established, now)
        except Exception:  # out of `admit`, or `namespace_of`: nobody is let in, and nothing is left of it
            self._context.connection_ids.retire(established.local_cid)
            raise
        if code is None:
            self._context.detached.give_way(len(self._context.live), now)
            among = None
            if isinstance(half_open, Resuming) and len(half_open.paths) > 1:
                among = _arrival(half_open, _no_more)
            session.accept(established, now, resumed, among)
        else:
            session.refuse(established, code, now)
            self._report(path, "too_many_sessions" if code == TooManySessionsError.code else "refused", now)
        for packet in accepted.held_packets:
            session.receive(packet, 0, len(packet), None, path, now, 0)

    def _forget_beside(self, accepted: Accepted) -> None:
        """A full handshake beside a resumption has come to nothing, as it should."""
        if accepted.beside is not None:
            self._context.connection_ids.retire(accepted.beside.local_cid)
            self._drop(accepted.beside)

    def _refusal(self) -> int | None:
        """The code for which nobody at all is let in at the moment, or `None` (H-28)."""
        if self._lifecycle is not None and self._lifecycle.manager.is_draining:
            return ShuttingDownError.code
        if not self.accepting:
            return ConnectionRefusedError.code
        return TooManySessionsError.code if self._is_full() else None

    def _has_room(self, peer_node_id: bytes, now: float) -> bool:
        """Whether the manager of sessions would take one more with this peer."""
        return self._lifecycle is None or self._lifecycle.has_room(peer_node_id, now)

    def _enter(self, session: Session, established: Established, now: float) -> int | None:
        """The code for which the manager of sessions does not take this one, or `None`."""
        if self._lifecycle is None:
            return None
        error = self._lifecycle.begin(session, established.secrets.session_id, established.peer_node_id, now)
        return None if error is None else error.code

    def _judge(self, established: Established) -> int | None:
        """The code to refuse a proven peer with whoever it is, or `None`."""
        code = self._refusal()
        twin = self._context.sessions.get(established.secrets.session_id)
        if code is None and twin is not None and not twin.initiator:
            code = ConnectionRefusedError.code
        return code

    def _ask_admit(self, peer_node_id: bytes, path: NetworkPath, now: float) -> int | None:
        """The code with which the application refuses a peer, or `None`."""
        code = None if self._admit is None else self._admit(peer_node_id, path, now)
        if code is not None and not (type(code) is int and 0 <= code <= MAX_VARINT):
            raise ArgumentError(f"admit gave {code!r}; it must give an error code or None", argument="admit")
        return code

    def _release(self, ended: Ended, now: float) -> None:
        """A half-open handshake has failed."""
        half_open, connection_ids = ended.half_open, self._context.connection_ids
        session = self._drop(half_open)
        if session is not None:
            session.release()
        if not half_open.begun:  # else the host has been told of a session, and the ID is that session's (H-40)
            connection_ids.retire(half_open.local_cid)
            self._report(half_open.path, ended.reason, now)

    def _drop(self, half_open: Waiting) -> Session | None:
        """Forget what is kept here for a half-open handshake; give the session that the host was told of, if any."""
        self._context.pieces.forget(half_open.path, half_open.local_cid)
        if not isinstance(half_open, Resuming):
            return None
        self._trials.pop(half_open.local_cid, None)
        self._asked.pop(half_open.grant.ticket_id, None)
        return self._callers.pop(half_open.local_cid, None)

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

    def _is_full(self) -> bool:
        context = self._context
        return len(context.live) >= self.config.max_concurrent_sessions and not context.detached

    def _arm_half_open(self) -> None:
        """Enter the deadline of what was begun with this endpoint and is no session yet."""
        at = min(self._responder.deadline, self._context.pieces.deadline)
        self._deadlines.arm(self._responder, at, "half_open")

    # -- tickets ---------------------------------------------------------------------------------------------------

    def _consider(self, resuming: Resuming, path: NetworkPath, now: float) -> None:
        """Somebody asks to resume, and is who the ticket was given to: is that wanted, and was it used before?"""
        context, responder = self._context, self._responder
        wanted = self._ask_admit(resuming.peer_node_id, path, now) is None
        if not (wanted and self._has_room(resuming.peer_node_id, now)):  # the full handshake will say why
            self._act(responder.refuse(resuming, ConnectionRefusedError.code, now), path, now)
            return
        ended = responder.enter(resuming, now, lambda: context.connection_ids.issue(responder))
        if ended is not None:
            self._release(ended, now)
        grant = resuming.grant
        if self.config.ticket_check == "memory":
            self._answer_resumption(resuming, now)
            return
        self._asked[grant.ticket_id] = resuming
        session = self._callers[resuming.local_cid] = Session(context, path, False, now)
        session.ask_about_ticket(grant.ticket_id, grant.expires_at)

    def _answer_resumption(self, resuming: Resuming, now: float) -> None:
        """Go on with a resumption whose ticket was used by nobody before."""
        try:
            self._send_resumed(resuming, now)
        except Exception:  # out of `namespace_of`: nobody is let in, and nothing is left of it
            self._release(self._responder.withdraw(resuming, now), now)
            raise

    def _send_resumed(self, resuming: Resuming, now: float) -> None:
        """RESUMED, to all from where its RESUME came: more than one if the host was asked, and somebody copies."""
        take_early = self._takes_early(resuming, now)
        terms, token = self._terms_of(resuming.path.carrier), self._context.reset_tokens.token(resuming.local_cid)
        reply = self._responder.answer(resuming, terms, take_early=take_early, reset_token=token)
        for path in resuming.paths:
            self._post(path, reply.datagrams)
        if take_early:
            self._begin_early(resuming, now)

    def _takes_early(self, resuming: Resuming, now: float) -> bool:
        """Whether early data is taken: a little, and only where the use of its ticket is surely the first (H-39)."""
        config = self.config
        counted = config.ticket_check == "shared" or self._context.tickets.is_ours(resuming.grant)
        wanted = 0 < len(resuming.early_data) <= config.max_early_data and config.max_concurrent_streams > 0
        return wanted and counted and self._refusal() is None and self._has_room(resuming.peer_node_id, now)

    def _begin_early(self, resuming: Resuming, now: float) -> None:
        """Begin the session before the initiator has shown that it is there now, since it has sent early data (H-40).

        The resumption stays in its table, so that a RESUME that is repeated gets the same answer.
        """
        established = resuming.established
        assert established is not None
        path = resuming.paths[0]  # where it began, unless that carrier is gone
        session = self._callers.pop(resuming.local_cid, None) or Session(self._context, path, False, now)
        session.path = path
        code = self._enter(session, established, now)
        resuming.begun = True
        if code is not None:  # there was room a moment ago, so the namespace is another each time it is asked for
            session.refuse(established, code, now)
            return
        self._context.detached.give_way(len(self._context.live), now)
        early = _arrival(resuming, partial(self._on_proof, resuming), resuming.early_data)
        session.accept(established, now, resumed=True, early=early)

    def _on_proof(self, resuming: Resuming, path: NetworkPath, now: float) -> int | None:
        """Who has sent early data is there: what waited for that is over. Gives the code if it is refused there."""
        code = None if path == resuming.path else self._ask_admit(resuming.peer_node_id, path, now)
        if self._responder.get(resuming.local_cid) is resuming:  # it may have had to make room
            self._forget_beside(self._responder.confirm(resuming, path, now))
            self._arm_half_open()
        return code

    def _take_ticket_answers(self, now: float) -> None:
        """The host has said which tickets were used before."""
        answers = self._context.ticket_answers
        while answers:
            ticket_id, fresh = answers.popitem()
            resuming = self._asked.pop(ticket_id, None)
            if resuming is None:  # too late
                continue
            if fresh and not self._callers[resuming.local_cid].is_closed:  # by the host, before it began
                self._answer_resumption(resuming, now)
                continue
            code = ConnectionRefusedError.code if fresh else TICKET_USED
            self._release(self._responder.withdraw(resuming, now), now)
            for path in resuming.paths:
                self._act(self._responder.refuse(resuming, code, now), path, now)


def _arrival(resuming: Resuming, on_proof: OnProof, early_data: bytes = b"") -> EarlyArrival:
    """How a resumption came, for its session."""
    return EarlyArrival(
        data=early_data,
        proven=not early_data or (resuming.proven and resuming.paths[0] == resuming.path),
        received=LEAST_HELLO,
        sent=sum(map(len, resuming.datagrams)),
        until=resuming.deadline,
        copies=resuming.paths,
        on_proof=on_proof,
    )


def _no_more(path: NetworkPath, now: float) -> None:
    """Nothing waits for the proof: it is here."""
