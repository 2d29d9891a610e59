"""The endpoint: many sessions behind the addresses of one node.

It routes what comes in by connection ID, answers strangers, accepts or refuses, keeps the limits, and hands out what
the sessions want to send, one transmit at a time and in turn. It holds no stream and opens no packet: a datagram is
looked at here as far as its owner, and no further.

Like everything in this package it is pure: bytes, time and commands in; bytes, events and the next deadline out. See
docs/integrating.md for the four steps that a host repeats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from hashlib import sha256
from math import inf
from types import MappingProxyType

from stt_proto.config import Config
from stt_proto.crypto import Kem
from stt_proto.errors import ArgumentError, EncryptionError, ShuttingDownError, TooManySessionsError
from stt_proto.events import Event
from stt_proto.handshake import Initiator, Resumer, UsedTickets
from stt_proto.lifecycle import TRAFFIC, Lifecycle, NamespaceOf
from stt_proto.manager import SessionManager
from stt_proto.packet import bytes_view, run_end
from stt_proto.reception import HANDSHAKE_DATAGRAM, OUTBOX, Admit, Reception
from stt_proto.recovery import CONTROLLERS
from stt_proto.session.engines import local_parameters
from stt_proto.session.routes import check_path
from stt_proto.session.session import Session
from stt_proto.session.trace import KeyLog, Trace
from stt_proto.tickets import MAX_EARLY_DATA, Ticket, TicketRefusal
from stt_proto.types import Buffer, Deadline, NetworkPath, Stray, Transmit
from stt_proto.wire.header import CONNECTION_ID_SIZE, FORM_BIT, PACKET_HEADER

__all__ = ["OUTBOX", "Admit", "Endpoint"]

TICKET_NAME = 16
"""Bytes of the hash by which an endpoint knows a ticket again that it has offered."""


class Endpoint(Reception):
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
        manager: counts its sessions, limits them and lets them expire; without one they live until somebody ends them.
            After calls on it that may end a session, call `settle`.
        namespace_of: to which of the manager's namespaces the sessions of a peer belong, by its node id.

    Attributes:
        config: as given.
        accepting: set to False to refuse new sessions.
        counters: what was dropped here.

    Raises:
        ArgumentError: the configuration names a congestion controller that does not exist; or `trace` is no `Trace`, or
            `keylog` no function.
    """

    __slots__ = ("_lingering", "_offered", "_settle_at", "_stirs", "_unsettled")

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
        manager: SessionManager | None = None,
        namespace_of: NamespaceOf | None = None,
    ) -> None:
        if isinstance(config.congestion, str) and config.congestion not in CONTROLLERS:
            raise ArgumentError(
                f"congestion is {config.congestion!r}; it must be one of {sorted(CONTROLLERS)}", argument="congestion"
            )
        super().__init__(
            config,
            now=now,
            unix_time=unix_time,
            entropy=entropy,
            admit=admit,
            kem=kem,
            trace=trace,
            keylog=keylog,
            lifecycle=None if manager is None else Lifecycle(manager, namespace_of),
        )
        self._settle_at = inf  # when the manager has something to do
        self._unsettled = False  # it may be earlier than that
        self._stirs = 0
        self._lingering: dict[Session, None] = {}
        self._offered = UsedTickets(config.limits.used_tickets)

    # -- sessions --------------------------------------------------------------------------------------------------

    @property
    def sessions(self) -> Mapping[bytes, Session]:
        """The established sessions by their id; a live view."""
        return MappingProxyType(self._context.sessions)

    def connect(
        self,
        path: NetworkPath,
        peer_node_id: bytes | None = None,
        ticket: Ticket | None = None,
        early_data: bytes = b"",
        *,
        now: float,
    ) -> Session:
        """Dial. The session is in `HANDSHAKING`; its events tell what becomes of it.

        Args:
            path: the way there; its carrier must be one of `config.carriers`.
            peer_node_id: who must answer, 32 bytes; `None` for anybody with the shared seed, or for whoever gave the
                ticket.
            ticket: of an earlier session with that peer: saves a round trip. It is good once. Where it is good for
                nothing there is a full handshake, and `ResumptionRefused`.
            early_data: the beginning of the first stream (`session.early_stream`), at most 768 bytes. With a ticket
                whose `max_early_data` allows it, it goes out at once: **replayable**, and without forward secrecy.
                Else, or where the peer does not take it (`EarlyDataRejected`), it goes in the ordinary way.
            now: seconds.

        Raises:
            ArgumentError: an argument is out of range.
            TooManySessionsError: this endpoint holds as many sessions as it may.
            ShuttingDownError: its manager drains.
        """
        now = self._clock.advance(now)
        check_path(path, self.config)
        if peer_node_id is not None and not (isinstance(peer_node_id, bytes) and len(peer_node_id) == 32):
            raise ArgumentError(f"peer_node_id is {peer_node_id!r}; it must be 32 bytes", argument="peer_node_id")
        if not isinstance(ticket, Ticket | None):
            raise ArgumentError(f"ticket is of type {type(ticket).__name__}; it must be a Ticket", argument="ticket")
        if not isinstance(early_data, bytes) or len(early_data) > MAX_EARLY_DATA:
            raise ArgumentError(f"early_data must be bytes, at most {MAX_EARLY_DATA}", argument="early_data")
        if self._lifecycle is not None and self._lifecycle.manager.is_draining:
            raise ShuttingDownError("no session is begun any more")
        if self._is_full():
            raise TooManySessionsError(f"this endpoint holds {self.config.max_concurrent_sessions} sessions")
        self._context.detached.give_way(len(self._context.live), now)
        session = Session(self._context, path, True, now)
        local_cid = self._context.connection_ids.issue(session)
        pinned = ticket.peer_node_id if ticket is not None and peer_node_id is None else peer_node_id
        until = now + self.config.handshake_timeout
        begin_full = partial(self._begin_full, path.carrier, pinned, local_cid, until)
        if ticket is None:
            session.dial(begin_full(now), now, early_data)
        else:
            resumer = self._resume(ticket, pinned, path.carrier, local_cid, begin_full, early_data, now)
            session.dial(resumer, now, early_data)
        return session

    def _begin_full(
        self, carrier: str, peer_node_id: bytes | None, local_cid: bytes, until: float, now: float
    ) -> Initiator:
        """A full handshake, which may last `until` then."""
        config = self.config
        traits = config.carriers[carrier]
        return Initiator(
            identity=config.identity,
            shared_seed=config.shared_seed,
            application=config.application,
            versions=config.versions,
            suites=config.suites,
            parameters=local_parameters(config),
            local_cid=local_cid,
            reliable=traits.reliable,
            max_datagram=traits.max_packet if traits.reliable else HANDSHAKE_DATAGRAM,
            peer_node_id=peer_node_id,
            allow_self=config.allow_self,
            handshake_timeout=until - now,
            max_challenges=config.limits.challenges_tried,
            entropy=self._entropy,
            kem=self._kem,
            now=now,
        )

    def _resume(
        self,
        ticket: Ticket,
        pinned: bytes | None,
        carrier: str,
        local_cid: bytes,
        begin_full: Callable[[float], Initiator],
        early_data: bytes,
        now: float,
    ) -> Initiator | Resumer:
        """A dial with a ticket, or without it where it is good for nothing; it counts as offered."""
        config = self.config
        traits = config.carriers[carrier]
        refusal = self._look_at(ticket, pinned, now)
        if refusal is None:
            try:
                return Resumer(
                    ticket,
                    identity=config.identity,
                    application=config.application,
                    parameters=local_parameters(config),
                    local_cid=local_cid,
                    reliable=traits.reliable,
                    max_datagram=traits.max_packet if traits.reliable else HANDSHAKE_DATAGRAM,
                    entropy=self._entropy,
                    now=now,
                    handshake_timeout=config.handshake_timeout,
                    begin_full=begin_full,
                    early_data=early_data,
                )
            except EncryptionError:  # the peer has no such node id
                refusal = TicketRefusal.NOT_OURS
        initiator = begin_full(now)
        initiator.refusal = refusal
        return initiator

    def _look_at(self, ticket: Ticket, pinned: bytes | None, now: float) -> TicketRefusal | None:
        """What speaks against a ticket that is to be offered, as far as that can be seen from here (H-37)."""
        config, offered, unix_time = self.config, self._offered, self._clock.unix(now)
        if ticket.node_id != config.identity.node_id or ticket.suite not in config.suites:
            return TicketRefusal.NOT_OURS
        if ticket.peer_node_id != pinned:
            return TicketRefusal.PEER
        if offered.is_over(ticket.expires_at, unix_time):
            return TicketRefusal.EXPIRED
        name = sha256(ticket.sealed).digest()[:TICKET_NAME]
        if name in offered:
            return TicketRefusal.OFFERED
        return None if offered.add(name, ticket.expires_at, unix_time) else TicketRefusal.FULL

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
        if now >= self._settle_at:
            self.settle(now)
        if path.__class__ is not NetworkPath or path.carrier not in self.config.carriers:
            check_path(path, self.config)
        if ecn not in (0, 1, 2, 3):
            raise ArgumentError(f"ecn is {ecn!r}; it must be from 0 to 3", argument="ecn")
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
        step = segment_size or end - start
        for at in range(start, end, step):
            if not view[at] & FORM_BIT:
                connection_id = bytes(view[at + 1 : at + 1 + CONNECTION_ID_SIZE])
                owner = self._context.connection_ids.route(connection_id)
                if owner.__class__ is Session:  # since before, or since the datagram before (H-35)
                    owner.receive(view, at, end, segment_size, path, now, ecn)
                    return
            self._receive_datagram(bytes(view[at : min(at + step, end)]), path, now, ecn)

    # -- bytes out -------------------------------------------------------------------------------------------------

    def next_transmit(self, now: float) -> Transmit | None:
        """Take the next thing to send; `None` when nothing is to be sent now. What was taken counts as sent."""
        now = self._clock.advance(now)
        if now >= self._settle_at:
            self.settle(now)
        full = self._context.full
        if self._context.ticket_answers:
            self._take_ticket_answers(now)
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
                transmit = session.next_transmit(now, True)
            else:
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
        news = context.ready or context.unarmed or context.ticket_answers or self._unsettled
        return not (news or self._events or self._outbox)

    def transmits(self, now: float) -> Iterator[Transmit]:
        """Take everything there is to send now, one by one."""
        while (transmit := self.next_transmit(now)) is not None:
            yield transmit

    def events(self) -> Iterator[tuple[Session | None, Event]]:
        """Take what happened, in order; the session is `None` when it concerns the endpoint itself."""
        events, lifecycle = self._events, self._lifecycle
        while events:
            session, event = events.popleft()
            if lifecycle is None or event.__class__ in TRAFFIC or lifecycle.on_event(session, event, self._clock.now):
                yield session, event

    @property
    def has_strays(self) -> bool:
        """Whether `strays` has something to give: one look after each `receive` is cheap."""
        return bool(self._strays)

    def strays(self) -> Iterator[Stray]:
        """Take what came here for other workers of the address (`Config.worker_ids`), after `receive`; in order."""
        strays = self._strays
        while strays:
            yield strays.popleft()

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
        unarmed, now, lifecycle = self._context.unarmed, self._clock.now, self._lifecycle
        while unarmed:
            session, _ = unarmed.popitem()
            if lifecycle is not None and session in lifecycle.leaving:
                lifecycle.look(session, now)
            closed = session.is_closed
            if closed and session.is_over(now):
                self._forget(session)
                continue
            self._deadlines.arm(session, *session.due())
            if closed:
                self._linger(session)
        if lifecycle is not None and (self._unsettled or lifecycle.manager.stirs != self._stirs):
            self._stirs = lifecycle.manager.stirs
            self._settle_at, reason = lifecycle.manager.due()
            self._deadlines.arm(lifecycle, self._settle_at, reason)
            self._unsettled = False

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
            elif owner is self._lifecycle:
                self.settle(now)
            else:
                self._context.pieces.expire(now)
                for ended in self._responder.expire(now):
                    self._release(ended, now)
        self._arm()
        self._arm_half_open()

    def settle(self, now: float) -> None:
        """Do what the manager of sessions says: close those that have expired, or are to be let go of, by now.

        It happens by itself when it is due. Call it after calls on the manager that may end a session or make it end
        sooner, such as `close_session`, `update_config` and `drain`.
        """
        if self._lifecycle is not None:
            self._lifecycle.settle(self._clock.advance(now))
            self._settle_at = self._lifecycle.due
            self._unsettled = True

    def set_unix_time(self, unix_time: float, now: float) -> None:
        """Correct the wall clock, and that of the manager."""
        self._clock.set_unix(unix_time, self._clock.advance(now))
        if self._lifecycle is not None:
            self._lifecycle.manager.set_unix_time(unix_time, now)

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
        for session in context.by_path.sessions(path):
            session.path_closed(path, now, reason)
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
        for session in self._context.by_path.sessions(path):
            session.datagram_refused(path, size, limit, now)
