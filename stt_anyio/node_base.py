"""What every host's node has in common: the endpoint, its sessions, who is told of them, and what nobody claimed."""

from __future__ import annotations

import logging
import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import inf
from typing import Any, ClassVar, Generic, TypeVar
from weakref import WeakKeyDictionary

from attrs import evolve, field, frozen

from stt_anyio.carrier import Outlet
from stt_anyio.config import NodeConfig
from stt_anyio.dial_errors import spoken
from stt_anyio.driver import Driver
from stt_anyio.errors import (
    ArgumentError,
    DataExpiredError,
    SessionClosedError,
    StateError,
    SttError,
    closed_here,
)
from stt_anyio.judging import contained_admit, contained_namespace_of
from stt_anyio.managed import ManagedSessions
from stt_anyio.moving import Attempt
from stt_anyio.observing import Observers
from stt_anyio.session_base import SessionBase
from stt_anyio.stream_base import StreamBase
from stt_anyio.ticket_file import TicketFile
from stt_proto import CarrierTraits, Endpoint, Identity, NetworkPath
from stt_proto import Session as CoreSession
from stt_proto.broadcast import Broadcaster
from stt_proto.endpoint import Admit
from stt_proto.events import Event, HandshakeFailed, SessionClosed, SessionEstablished, TicketOffered, TraceFailed
from stt_proto.lifecycle import NamespaceOf
from stt_proto.types import CloseReason

logger = logging.getLogger("stt.node")

PACKET_SIZE = 65_536
"""Bytes in the largest `ReceivedPacket`."""


SessionT = TypeVar("SessionT", bound=SessionBase[Any])
Callback = Callable[..., Any]


@frozen
class ReceivedPacket:
    """Data from a stream that a peer opened and nobody claimed.

    A stream has no packets: this is what had arrived, in order, and the next one goes on where it ends.

    Attributes:
        session_id: of the session.
        stream_id: of the stream.
        data: 1 to 65,536 bytes.
    """

    session_id: bytes
    stream_id: int
    data: bytes = field(repr=False)


@frozen(kw_only=True)
class NodeStats:
    """What a node has seen.

    Attributes:
        active: sessions established now.
        established: sessions established so far.
        closed: those that ended, by reason; `active` and these add up to `established`.
        handshakes_failed: attempts of others that came to nothing, as far as they were reported.
        handler_errors: exceptions that came out of handlers and callbacks, `admit` and `namespace_of` among them.
        tickets_in_doubt: tickets refused since `ticket_store` or `ticket_file` could not say whether they were used.
    """

    active: int
    established: int
    closed: Mapping[str, int]
    handshakes_failed: int
    handler_errors: int
    tickets_in_doubt: int = 0


@frozen(kw_only=True)
class TransportStats:
    """What a node's sessions have moved, those that ended included.

    Attributes:
        bytes_sent: bytes of datagrams handed to the carriers.
        bytes_received: bytes of datagrams taken in.
        packets_sent: packets sealed.
        packets_received: packets opened.
        packets_lost: packets declared lost.
        loss_rate: `packets_lost` by `packets_sent`, 0 to 1.
        rtt: mean smoothed round trip of the sessions active now, in seconds; `None` without one.
        datagrams_dropped: datagrams that the system refused to send.
    """

    bytes_sent: int
    bytes_received: int
    packets_sent: int
    packets_received: int
    packets_lost: int
    loss_rate: float
    rtt: float | None
    datagrams_dropped: int


_SUMMED = ("bytes_sent", "bytes_received", "packets_sent", "packets_received", "packets_lost")


# -- what a mistake or a failure is called -------------------------------------------------------------------------


def _of_the_wrong_type(name: str, value: object, allowed: str) -> ArgumentError:
    return ArgumentError(f"{name} is of type {type(value).__name__}; it must be {allowed}", argument=name)


class NodeBase(Generic[SessionT]):
    """A node, but for the waiting.

    Attributes:
        config: its configuration.
        sessions: the established sessions, by id.
        session_manager: the same, with their lifetimes, their work and their limits.
    """

    session_class: ClassVar[type[Any]]
    manager_class: ClassVar[type[Any]]
    session_manager: ManagedSessions[SessionT]
    guard: AbstractContextManager[Any] = nullcontext()  # what keeps other threads out, where there may be some

    def __init__(
        self,
        node_seed: bytes | None = None,
        shared_seed: bytes | str | None = None,
        host: str | None = None,
        port: int | None = None,
        *,
        config: NodeConfig | None = None,
        server_mode: bool = False,
        admit: Admit | None = None,
        namespace_of: NamespaceOf | None = None,
        **parameters: Any,
    ) -> None:
        if host is not None:
            parameters["bind_address"] = host
        if port is not None:
            parameters["port"] = port
        if not isinstance(config, NodeConfig | None):
            raise _of_the_wrong_type("config", config, "a NodeConfig")
        if not isinstance(server_mode, bool):
            raise _of_the_wrong_type("server_mode", server_mode, "True or False")
        for name, function in (("admit", admit), ("namespace_of", namespace_of)):
            if not (function is None or callable(function)):
                raise _of_the_wrong_type(name, function, "a function")
        if config is None:
            self.config = NodeConfig.from_environment(**parameters)
        else:
            self.config = evolve(config, **parameters)
        if shared_seed is None:
            shared_seed = os.environ.get("STT_SHARED_SEED")
        if shared_seed is None:
            raise ArgumentError("shared_seed is missing; it says who may talk to this node", argument="shared_seed")
        self._identity = Identity.from_seed(os.urandom(32) if node_seed is None else node_seed)
        self._core_config = self.config.core_config(self._identity, shared_seed)
        self._admit = None if admit is None else contained_admit(admit, self.handler_failed)
        self._namespace_of = None if namespace_of is None else contained_namespace_of(namespace_of, self.handler_failed)
        self._server_mode = server_mode
        self._driver: Driver | None = None
        self._observers = Observers()
        self._ticket_file: TicketFile | None = None
        self._tickets_in_doubt = 0
        self._ever_ran = False
        self.sessions: dict[bytes, SessionT] = {}
        self.session_manager = self.manager_class(self)
        self._dialing: dict[SessionT, NetworkPath] = {}
        self.attempts: dict[Attempt, SessionBase[Any]] = {}  # of all sessions
        self._on_established: list[Callback] = []
        self._on_closed: list[Callback] = []
        self.broadcaster = Broadcaster(self.config.broadcast)
        self._collecting = False
        self._ready: dict[StreamBase, None] = {}  # where `receive` may find something
        # Sessions that ended with something unread in there. Nothing but that keeps them.
        self._left_behind: WeakKeyDictionary[SessionT, None] = WeakKeyDictionary()
        self._listening = False
        self._backlog: dict[SessionT, None] = {}  # for `accept`
        self._established = 0
        self._closed = dict.fromkeys(map(str, CloseReason), 0)
        self._totals = dict.fromkeys(_SUMMED, 0)
        self._handshakes_failed = 0
        self._handler_errors = 0

    # -- who it is -------------------------------------------------------------------------------------------------

    @property
    def node_id(self) -> bytes:
        """This node's public key: 32 bytes, the same for the same `node_seed`."""
        return self._identity.node_id

    def __repr__(self) -> str:
        where = f" at {spoken((self.host, self.port))}" if self.port else ""
        return f"<{type(self).__name__} {self.node_id.hex()[:16]}{where}, {'' if self.running else 'not '}running>"

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._driver is not None

    @property
    def host(self) -> str:
        """The address that it is bound to; the one it asks for while it does not run."""
        return str(self._bound()[0])

    @property
    def port(self) -> int:
        """The port that it is bound to; the one it asks for, which may be 0, while it does not run."""
        return int(self._bound()[1])

    @abstractmethod
    def _bound(self) -> Sequence[Any]: ...

    @property
    def driver(self) -> Driver:
        """The pump, while the node runs."""
        if self._driver is None:
            raise StateError("the node is not running")
        return self._driver

    def _ended(self) -> SttError:
        """What who waits gets from a node that does not run."""
        if not self._ever_ran:
            return StateError("the node is not running: it was never started")
        return closed_here(SessionClosedError("the node has been stopped"))

    @property
    def endpoint(self) -> Endpoint:
        """The core, while the node runs."""
        return self.driver.endpoint

    def get_session(self, session_id: bytes) -> SessionT | None:
        """The established session with this id."""
        return self.sessions.get(session_id)

    def get_active_sessions(self) -> list[SessionT]:
        """The established sessions."""
        return [session for session in self.sessions.values() if session.is_active()]

    # -- accepting -------------------------------------------------------------------------------------------------

    def enable_accept_connections(self) -> None:
        """Accept sessions from now on."""
        self.endpoint.accepting = True

    def disable_accept_connections(self) -> None:
        """Refuse new sessions; those that are there go on."""
        self.endpoint.accepting = False

    @property
    def accepting(self) -> bool:
        """Whether new sessions are accepted."""
        return self._driver is not None and self._driver.endpoint.accepting

    def _next_arrival(self) -> SessionT | None:
        """The session that has waited longest to be accepted."""
        for session in self._backlog:
            del self._backlog[session]
            return session
        return None

    @abstractmethod
    def _wake_accept(self) -> None: ...

    # -- being told ------------------------------------------------------------------------------------------------

    def on_session_established(self, callback: Callback) -> Callback:
        """Have `callback(session)` called for each session, dialled or accepted. Usable as a decorator.

        If it raises, its session is closed with reason `error`.
        """
        self._on_established.append(callback)
        return callback

    def on_session_closed(self, callback: Callback) -> Callback:
        """Have `callback(session_id, reason)` called when a session ends. Usable as a decorator.

        The reason is `graceful`, `timeout`, `error` or `auth_failure`. The last is also told of a stranger who could
        not prove himself, with an empty session id, at most once a second for each source.
        """
        self._on_closed.append(callback)
        return callback

    def handler_failed(self, error: BaseException, session: SessionBase[Any] | None) -> None:
        """Contain an exception out of a handler: logged once, counted, its session closed."""
        if session is not None and not session.is_active() and isinstance(error, SttError):
            self.handler_gave_up(error, session)
            return
        self._handler_errors += 1
        logger.error("handler of %r failed", session or self, exc_info=error)
        if session is not None and not session.is_closed:
            session.begin_close("error", "a handler failed")

    def handler_gave_up(self, error: BaseException, session: SessionBase[Any]) -> None:
        """A handler learned that its session, or its stream, is no more, and said so by that."""
        self._handler_errors += 1
        logger.info("handler of %r gave up as the session or the stream ended: %s", session, error)

    @abstractmethod
    def _call(self, callback: Callback, session: SessionBase[Any] | None, *arguments: Any) -> None:
        """Call back, and contain what it raises."""

    # -- what nobody claimed ---------------------------------------------------------------------------------------

    def offer(self, stream: StreamBase) -> None:
        """`receive` may find something here."""
        if self._collecting:
            self._ready[stream] = None
            self._wake_receive()

    def _collect(self) -> None:
        """Someone wants packets: from now on, streams that nobody claims are his."""
        if not self._collecting:
            self._collecting = True
            for session in self.sessions.values():
                self._ready.update(dict.fromkeys(session.incoming.values()))

    def _next_packet(self) -> ReceivedPacket | None:
        """What has arrived on the stream that has waited longest."""
        while self._ready:
            stream = next(iter(self._ready))
            del self._ready[stream]
            session = stream.session
            if not stream.collected:
                if session.claimed or session.incoming.pop(stream.stream_id, None) is None:
                    continue  # somebody else has it
                stream.collected = True
            try:
                data = stream._take(PACKET_SIZE)
            except DataExpiredError:  # what follows the gap is there, or will be
                self._ready[stream] = None
                continue
            except SttError:
                session.forget(stream)
                continue
            if data:
                self._ready[stream] = None
                return ReceivedPacket(session.session_id, stream.stream_id, data)
            if data is not None and not stream.kept:
                stream._close()
        return None

    @abstractmethod
    def _wake_receive(self) -> None: ...

    # -- events ----------------------------------------------------------------------------------------------------

    def _deliver(self, core: CoreSession | None, event: Event) -> None:
        if core is None:
            if isinstance(event, HandshakeFailed):
                self._on_handshake_failed(event)
            elif isinstance(event, TraceFailed):
                logger.warning("the observer failed in %s and is told nothing more: %s", event.point, event.error)
            self._publish(None, event)
            return
        session: SessionT = core.host or self.session_class(self, core)
        session.deliver(event)
        if self.broadcaster and self.broadcaster.on_event(core, event, session.driver.clock()):
            session.driver.pump()
        kind = type(event)
        if kind is SessionEstablished:
            self._on_session_established(session)
        elif kind is SessionClosed:
            self._on_session_closed(session, event)  # type: ignore[arg-type]
        elif isinstance(event, TicketOffered):
            self._on_ticket_offered(session, event)
        self._publish(session, event)

    @abstractmethod
    def _publish(self, session: SessionT | None, event: Event) -> None:
        """Pass an event on to those who iterate."""

    def _on_handshake_failed(self, event: HandshakeFailed) -> None:
        self._handshakes_failed += 1
        logger.info("handshake from %s failed: %s", event.path.remote, event.reason)
        if event.reason == CloseReason.AUTH_FAILURE:
            for callback in self._on_closed:
                self._call(callback, None, b"", event.reason)

    def _on_ticket_offered(self, session: SessionT, event: TicketOffered) -> None:
        """A ticket may be used if nobody has used it; that somebody has is on the disk, or known to all, by then."""
        file, unused = self._ticket_file, False
        try:
            unused = file is not None and file.use(event.ticket_id, event.expires_at)
        except OSError as error:
            self._tickets_in_doubt += 1
            logger.error("tickets are refused, as nobody can say which were used: %s", error)
        self._answer_ticket(session, unused)

    def _answer_ticket(self, session: SessionT, unused: bool) -> None:
        driver = self.driver
        session.core.answer_ticket(unused, driver.clock())
        driver.pump()

    def _on_session_established(self, session: SessionT) -> None:
        self.sessions[session.session_id] = session
        session.driver.path_used(session.core.path)
        self._established += 1
        logger.debug("%r established", session)
        if not session.core.initiator:
            self._backlog[session] = None
            self._wake_accept()
        for callback in self._on_established:
            self._call(callback, session, session)

    def _on_session_closed(self, session: SessionT, event: SessionClosed) -> None:
        if self.sessions.pop(session.session_id, None) is None:
            session.driver.path_unused(session.core.path)
            return  # a dial that failed: `connect` tells
        for info in session.core.paths:
            session.driver.path_unused(info.path)
        reason = str(event.reason)
        self._closed[reason] += 1
        stats = session.get_stats()
        for name in _SUMMED:
            self._totals[name] += getattr(stats, name)
        logger.debug("%r closed: %s, code 0x%04x", session, reason, event.code)
        if not self._listening or len(self._backlog) > self.config.max_concurrent_sessions:
            self._backlog.pop(session, None)
        self._leave_behind(session)
        for callback in self._on_closed:
            self._call(callback, session, session.session_id, reason)

    def _leave_behind(self, session: SessionT) -> None:
        """Keep what an ended session has for `receive`, for as many sessions as may be live, and no more."""
        if self._ready.keys().isdisjoint(session.streams.values()):
            return
        self._left_behind[session] = None
        if len(self._left_behind) > self.config.max_concurrent_sessions:
            oldest = next(iter(self._left_behind))
            del self._left_behind[oldest]
            for stream in oldest.streams.values():
                self._ready.pop(stream, None)

    # -- statistics ------------------------------------------------------------------------------------------------

    def get_stats(self) -> NodeStats:
        """Counts of sessions."""
        return NodeStats(
            active=len(self.sessions),
            established=self._established,
            closed=dict(self._closed),
            handshakes_failed=self._handshakes_failed,
            handler_errors=self._handler_errors,
            tickets_in_doubt=self._tickets_in_doubt,
        )

    def get_transport_stats(self) -> TransportStats:
        """Bytes, packets, loss and round trip."""
        active = [session.get_stats() for session in self.sessions.values()]
        sums = {name: self._totals[name] + sum(getattr(stats, name) for stats in active) for name in _SUMMED}
        rtts = [stats.rtt for stats in active if stats.rtt is not None]
        return TransportStats(
            **sums,
            loss_rate=sums["packets_lost"] / max(1, sums["packets_sent"]),
            rtt=sum(rtts) / len(rtts) if rtts else None,
            datagrams_dropped=self._datagrams_dropped(),
        )

    @abstractmethod
    def _datagrams_dropped(self) -> int: ...

    # -- making the core -------------------------------------------------------------------------------------------

    def set_log_level(self) -> None:
        """Set the level of the logger `stt`, if the configuration names one."""
        if self.config.log_level is not None:
            logging.getLogger("stt").setLevel(self.config.log_level)

    def _make_driver(
        self,
        *,
        clock: Callable[[], float],
        unix_time: float,
        outlets: Mapping[str, Outlet],
        traits: Mapping[str, CarrierTraits],
        granted: Iterable[int],
        arm: Callable[[float], None],
        fail: Callable[[OSError], None],
        sends_per_pump: float = inf,
        gather: Callable[[], None] | None = None,
    ) -> Driver:
        """A fresh endpoint and its pump."""
        window = min([self.config.session_recv_buffer, *(size // 2 for size in granted)])
        config = evolve(
            self._core_config,
            session_receive_window=window,
            carriers={**self._core_config.carriers, **traits},
        )
        observers = Observers.open(self.config, os.environ)
        try:
            if self.config.ticket_file is not None:
                self._ticket_file = TicketFile(self.config.ticket_file, self.config.limits.used_tickets)
            endpoint = Endpoint(
                config,
                now=clock(),
                unix_time=unix_time,
                entropy=os.urandom,
                admit=self._admit,
                manager=self.session_manager.open(clock(), unix_time),
                namespace_of=self._namespace_of,
                trace=observers.trace,
                keylog=observers.keylog,
            )
        except BaseException:
            self._close_ticket_file()
            observers.close()
            raise
        self._observers = observers
        endpoint.accepting = self._server_mode
        self._ever_ran = True
        return Driver(
            endpoint,
            clock=clock,
            outlets=outlets,
            deliver=self._deliver,
            arm=arm,
            fail=fail,
            path_failed=self._path_failed,
            sends_per_pump=sends_per_pump,
            gather=gather,
        )

    def _close_driver(self, driver: Driver) -> None:
        """The core is given up: what watched it writes what is left."""
        driver.close()
        self._observers.close()
        self._close_ticket_file()

    def _close_ticket_file(self) -> None:
        if self._ticket_file is not None:
            self._ticket_file.close()
            self._ticket_file = None

    def _path_failed(self, path: NetworkPath, reason: str) -> None:
        """The system says that nobody is there: a hint, which ends attempts to get there and nothing else."""
        if path in self._dialing.values() and not any(session.core.path == path for session in self.sessions.values()):
            self.driver.path_closed(path, reason)
        for attempt, session in tuple(self.attempts.items()):
            if attempt.path == path and not (attempt.known or attempt.settled):
                session.attempt_failed(attempt, reason)
