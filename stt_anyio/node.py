"""The node under asyncio and trio: it owns the carriers, pumps the core, and gives out sessions.

It runs in a task of the event loop rather than in a task group of whoever started it, so `start` and `stop` may be
called from any task and in any order. That task holds a cancel scope and, inside it, the one task group of the node.
"""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import EventLoopToken, checkpoint, current_token

from stt_anyio.broadcasting import Cast
from stt_anyio.calls import Calls
from stt_anyio.carrier import Carrier
from stt_anyio.connections import ConnectionCarrier
from stt_anyio.dial_arguments import check_dial
from stt_anyio.dial_errors import no_answer
from stt_anyio.driver import SENDS_PER_PUMP, Driver
from stt_anyio.early import check_one_way
from stt_anyio.errors import ArgumentError, StateError, SttError, connection_failed
from stt_anyio.links import WebSocketTarget, target_of
from stt_anyio.loops import clock_of, spawn
from stt_anyio.node_base import Callback, ReceivedPacket, logger
from stt_anyio.patterns import Patterns
from stt_anyio.session import Session
from stt_anyio.session_base import SessionBase
from stt_anyio.ticket_store import TicketDesk, who_knows
from stt_anyio.timeouts import check_timeout
from stt_anyio.udp import UdpCarrier, UdpSocket
from stt_anyio.waiting import FAILURES, Bell, Feed, Incoming, finish, up_to
from stt_anyio.watching import Watchers
from stt_proto import NetworkPath, Ticket
from stt_proto.broadcast import BroadcastResult
from stt_proto.events import Event, SessionClosed, TicketOffered
from stt_proto.types import Buffer

STOP_TIMEOUT = 5.0
"""Seconds that `stop` gives its sessions to close."""


class STTNode(Patterns):
    """A node: it dials and accepts sessions.

    Use it as `async with STTNode(...) as node:`, or call `start` and `stop`.

    Args:
        node_seed: who it is: 32 random bytes or more (`stt keygen`). Without one the node is somebody new each time.
        shared_seed: who may talk to it: bytes or text, a passphrase is safe. `STT_SHARED_SEED` when not given.
        host: the address to bind, `0.0.0.0` by default; the `bind_address` of the configuration.
        port: the port to bind, 0 for any; `node.port` tells which.
        config: the other parameters, as a `NodeConfig`.
        server_mode: whether it accepts sessions from the start.
        admit: decides, once a peer has proven who it is: `(peer_node_id, path, now)` to `None`, which lets it in, or to
            the error code that its `connect` raises: `AuthenticationError.code`, say.
        namespace_of: to which namespace the sessions of a peer belong, by its node id; all to `""` when not given.
        carriers: how it moves packets: UDP, as `config` says, when not given; else exactly these, and the first is
            the one that `connect` uses when it is not told.
        parameters: fields of `NodeConfig`, which come before those of `config`.

    Attributes:
        asyncio_loop: the loop that it runs in, where that is asyncio's.

    Raises:
        ArgumentError: names the parameter, the value and what is allowed.
    """

    session_class = Session

    def __init__(
        self,
        node_seed: bytes | None = None,
        shared_seed: bytes | str | None = None,
        host: str | None = None,
        port: int | None = None,
        *,
        carriers: Iterable[Carrier] | None = None,
        **options: Any,
    ) -> None:
        self._left_running = False  # so that a warning is due
        super().__init__(node_seed, shared_seed, host, port, **options)
        self._given_carriers = None if carriers is None else _checked(carriers)
        self._carriers: dict[str, Carrier] = {}
        self._listens_at: tuple[str, int] | None = None
        self._scope: anyio.CancelScope | None = None
        self._timer: anyio.CancelScope | None = None
        self._loop: EventLoopToken | None = None
        self.asyncio_loop: asyncio.AbstractEventLoop | None = None
        self._task: object = None
        self._tasks: TaskGroup | None = None
        self._calls = Calls(self.handler_failed)
        self._starting: anyio.CancelScope | None = None
        self._finished: anyio.Event | None = None
        self._stopping = False
        self._desk: TicketDesk  # of a node that runs, if anybody else knows of tickets
        self._failure: BaseException | None = None
        self._arrived = Bell()
        self._packet = Bell()
        self._gathering = Bell()
        self._watchers = Watchers()

    # -- starting and stopping -------------------------------------------------------------------------------------

    def _bound(self) -> Sequence[Any]:
        for sock in self._udp_sockets() if self.running else ():
            return sock.local
        return self._listens_at or (self.config.bind_address, self.config.port)

    def _udp_sockets(self) -> Iterator[UdpSocket]:
        for carrier in self._carriers.values():
            if isinstance(carrier, UdpCarrier):
                yield from carrier.sockets

    async def start(self, server_mode: bool | None = None) -> None:
        """Bind, and run in the background until `stop`.

        Args:
            server_mode: whether to accept sessions; what the constructor was told when `None`.

        Raises:
            OSError: the address is taken, or not ours.
            StateError: it is running already; or `stop` was called meanwhile.
        """
        if self._starting is not None or (self._finished is not None and not self._finished.is_set()):
            raise StateError("the node is running already")
        if server_mode is not None:
            self._server_mode = server_mode
        self._finished = anyio.Event()
        with anyio.CancelScope() as starting:
            self._starting = starting
            try:
                await self._open()
                await self._begin()
            finally:
                self._starting = None
        if starting.cancel_called:
            raise StateError("the node was stopped while it started")

    async def _open(self) -> None:
        """Bind, and make the core; or leave nothing behind."""
        carriers: list[Carrier] = []
        if self._given_carriers is not None:
            carriers += self._given_carriers
        elif self.config.transport == "udp":
            carriers.append(UdpCarrier(self.config))
        given = {carrier.name for carrier in carriers}
        carriers += [ConnectionCarrier(name, self.config) for name in ("stream", "ws") if name not in given]
        self._carriers = {carrier.name: carrier for carrier in carriers}
        self._loop = loop = current_token()
        native = loop.native_token
        self.asyncio_loop = native if isinstance(native, asyncio.AbstractEventLoop) else None
        try:
            for carrier in carriers:
                await carrier.open()
            self._driver = self._make_driver(
                clock=clock_of(loop),
                unix_time=time.time(),
                outlets=self._carriers,
                traits={carrier.name: carrier.traits for carrier in carriers},
                granted=[sock.granted for sock in self._udp_sockets()],
                arm=self._arm,
                fail=self._fail,
                sends_per_pump=SENDS_PER_PUMP,
                gather=self._gathering.ring,
            )
        except BaseException:
            self._close_carriers()
            assert self._finished is not None
            self._finished.set()
            raise

    async def _begin(self) -> None:
        """Run, and be reached where the configuration says."""
        assert self._loop is not None
        self.set_log_level()
        self._scope, self._timer = anyio.CancelScope(), None
        self._stopping, self._left_running, self._failure = False, True, None
        up = anyio.Event()
        self._task = spawn(self._loop, self._run, up)
        try:
            await up.wait()
            if self._server_mode and self._given_carriers is None:
                await self._listen_as_configured()
        except BaseException:
            self._starting = None  # it ends by itself
            await self.stop()
            raise

    async def _run(self, up: anyio.Event) -> None:
        scope = self._scope
        assert scope is not None
        try:
            with scope:
                async with anyio.create_task_group() as tasks:
                    self._tasks = tasks
                    tasks.start_soon(self._run_timer)
                    tasks.start_soon(self._run_gathering)
                    if (ask := who_knows(self.config.ticket_store, self._ticket_file, self.node_id)) is not None:
                        self._desk = TicketDesk(ask, self.config.handshake_timeout, self._ticket_in_doubt)
                        tasks.start_soon(self._desk.run)
                    for carrier in self._carriers.values():
                        tasks.start_soon(carrier.run, self.driver)
                    tasks.start_soon(_set, up)
            if not scope.cancel_called:
                raise RuntimeError("a task of the node ended in a cancellation that was not the node's")
        except Exception as error:
            self._fail(_unwrapped(error))
        finally:
            self._end()
            up.set()

    def _ticket_in_doubt(self) -> None:
        self._tickets_in_doubt += 1

    def _on_ticket_offered(self, session: Session, event: TicketOffered) -> None:
        self._desk.offered(event, lambda unused: self._answer_ticket(session, unused))

    async def _run_timer(self) -> None:
        driver = self.driver
        while True:
            with anyio.CancelScope(deadline=driver.armed) as self._timer:
                await anyio.sleep_forever()
            driver.tick()

    async def _run_gathering(self) -> None:
        """Let small writes leave that were gathered, in the first turn of the loop that brings no more of them."""
        driver, signal = self.driver, self._gathering.arm()
        while True:
            await signal.wait()
            seen = -1
            while driver.written != seen:
                seen = driver.written
                await checkpoint()
            signal = self._gathering.arm()  # who is told of an event writes in the middle of that
            driver.pump_gathered()

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.deadline = at

    def _fail(self, error: BaseException) -> None:
        """Something without which the node cannot go on."""
        if self._failure is None and self._scope is not None:
            logger.error("%r failed: %s", self, error)
            self._failure = error
            self._scope.cancel()

    def _end(self) -> None:
        """Nothing waits any more: end what is left, wake everybody, give everything back."""
        assert self._finished is not None
        driver = self.driver
        try:
            self._end_sessions(driver)
            self._close_driver(driver)
            self._close_carriers()
        finally:
            self._driver = self._listens_at = self._tasks = None
            self._backlog.clear()
            self._calls.cancel()
            for bell in (self._arrived, self._packet, self._calls.changed, self._watchers):
                bell.ring()
            self._finished.set()

    def _end_sessions(self, driver: Driver) -> None:
        try:
            for session in (*self.sessions.values(), *self._dialing):
                session.ended_here = self._failure is None
                session.core.abort(driver.clock())
            driver.pump()
        except FAILURES:  # out of a carrier; who waits for a session learns of its end all the same
            logger.exception("a carrier of %r failed at the end", self)
            for core, event in driver.endpoint.events():
                self._deliver(core, event)

    def _close_carriers(self) -> None:
        for carrier in self._carriers.values():
            try:
                carrier.close()
            except FAILURES:  # the others are to be given back too
                logger.exception("carrier %r of %r could not be closed", carrier.name, self)

    async def stop(self, timeout: float | None = STOP_TIMEOUT) -> None:
        """Refuse new sessions, close those that are there, and end. May be called from any task, and again.

        A `start` that is under way ends with a `StateError`.

        Args:
            timeout: seconds that sessions get to deliver what they accepted and callbacks to finish; then both are
                cut off.

        Raises:
            OSError: what ended the node, if it did not end because of this.
            ArgumentError: `timeout` is none.
        """
        check_timeout(timeout)
        if self._finished is None:
            await checkpoint()
            return
        self._left_running = False
        if self._starting is not None:
            self._starting.cancel()
        if not self._stopping and self._driver is not None:
            self._stopping = True
            assert self._scope is not None
            try:
                with anyio.CancelScope(shield=True):
                    await self._close_sessions(timeout)
            finally:  # also of a task that asyncio cancels, which nothing shields
                self._scope.cancel()
        await finish(self._finished, self)
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    async def _close_sessions(self, timeout: float | None) -> None:
        """Give sessions and callbacks the time to end by themselves."""
        self.driver.endpoint.accepting = False
        for session in (*self.sessions.values(), *self._dialing):
            session.begin_close()
        caller = anyio.get_current_task().id
        with anyio.move_on_after(timeout):
            while self.sessions or self._calls.besides(caller):
                await self._calls.changed.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.stop()
        except Exception as failure:
            if error is None:
                raise
            logger.error("the node had failed: %s", failure)

    def __del__(self) -> None:
        if self._left_running:
            warnings.warn(f"{self!r} was never stopped", ResourceWarning, source=self, stacklevel=2)

    # -- dialling --------------------------------------------------------------------------------------------------

    async def connect(
        self,
        address: Any,
        peer_node_id: bytes | None = None,
        timeout: float | None = 10.0,
        transport: str | None = None,
        *,
        websocket: str | WebSocketTarget | None = None,
        ticket: Ticket | None = None,
        early_data: bytes = b"",
    ) -> Session:
        """Dial, and return the established session.

        Args:
            address: `(host, port)` on UDP and TCP, a URL or `WebSocketTarget` on WebSocket, a byte stream on
                `"stream"`; what the carrier understands on others.
            peer_node_id: accept nobody but the node with this id.
            timeout: seconds in all, looking up the name included; `None` leaves it to `handshake_timeout`.
            transport: the carrier to use, by name: `"udp"`, `"tcp"`, `"websocket"`, or one of your own.
            websocket: where the same node can be reached by WebSocket. When `address` has not led to a session within
                250 ms, both are tried, and the first session wins: UDP is blocked in many places.
            ticket: of an earlier session with that peer (`session.ticket`): saves a round trip. Good once, so of two
                ways only the first is tried with it; `resumption_error` of the session says why it was no use.
            early_data: the beginning of `session.early_stream`, at most 768 bytes. With a ticket that allows it
                (`ticket.max_early_data`) it is there half a round trip after the dial, but **replayable** and without
                forward secrecy; else it goes in the ordinary way. Not together with `websocket`.

        Raises:
            ConnectionTimeoutError: no answer in time; also a `TimeoutError`.
            ConnectionRefusedError: nobody listens there, or it does not accept sessions; also the builtin one.
            AuthenticationError: the shared seeds differ, or the peer is not `peer_node_id`.
            TooManySessionsError: one side holds as many as it may.
            UnreachableError: the name is unknown, or no way leads there.
            WebSocketHandshakeError, ProxyError, TlsError: as `connect_websocket` says.
            VersionError: no version or suite in common.
            ArgumentError: `peer_node_id`, `timeout`, `transport`, `ticket` or `early_data` is none.

        All but the last are also an `anyio.ConnectionFailed`. Cancelled, it leaves nothing behind.
        """
        check_dial(peer_node_id, timeout, ticket, early_data)
        if websocket is not None:
            check_one_way(early_data)
            return await self._race(address, target_of(websocket), peer_node_id, timeout, transport, ticket)
        driver = self.driver
        carrier = self.carrier_for(transport)
        with up_to(timeout):
            path = await self._find_path(carrier, address)
            return await self._dial(driver, path, peer_node_id, ticket, early_data)
        raise no_answer(address, timeout)

    async def _dial(
        self, driver: Driver, path: NetworkPath, peer_node_id: bytes | None, ticket: Ticket | None, early_data: bytes
    ) -> Session:
        if self._driver is not driver:
            raise StateError("the node was stopped meanwhile")
        try:
            core = driver.endpoint.connect(path, peer_node_id, ticket, early_data, now=driver.clock())
        except SttError as error:
            driver.path_unused(path)
            raise connection_failed(error) from None
        session = Session(self, core)
        self._dialing[session] = path
        try:
            driver.pump()
            await session.wait_established()
        except BaseException:
            session.abort()
            raise
        finally:
            del self._dialing[session]
        if session.is_closed:
            raise connection_failed(session.ended())
        return session

    # -- accepting -------------------------------------------------------------------------------------------------

    async def accept(self) -> Session:
        """Wait for the next session that a peer has established with this node.

        Raises:
            SessionClosedError: the node was stopped; also an `anyio.ClosedResourceError`.
            StateError: it was never started.
        """
        self._listening = True
        await checkpoint()
        while (session := self._next_arrival()) is None:
            if self._driver is None or self._stopping:
                raise self._ended()
            await self._arrived.wait()
        return session

    def listener(self) -> Incoming[Session]:
        """The sessions that peers establish, as an `anyio.abc.Listener`."""
        return Incoming(self.accept, lambda session, error: self.handler_failed(error, session))

    async def serve(self, handler: Callable[[Session], Awaitable[Any]], task_group: TaskGroup | None = None) -> None:
        """Call `await handler(session)` for each that a peer establishes, in a task of its own, until the node stops.

        A handler that raises ends its session with reason `error`, and nothing else.
        """
        await self.listener().serve(handler, task_group)

    # -- what comes in ---------------------------------------------------------------------------------------------

    def receive(self) -> Feed[ReceivedPacket]:
        """`async for packet in node.receive()`: data on streams that peers open and nobody claims.

        A session on which `accept_stream` was called keeps its streams, and one fetched with `get_stream` is answered
        on by whoever fetched it; the others are closed when the peer has ended them. Ends when the node stops.
        """
        self._collect()
        return Feed(self._next_packet, self._packet, self._is_over)

    def events(self) -> Feed[tuple[Session | None, Event]]:
        """`async for session, event in node.events()`: what happens from now on, except on streams.

        Their classes are in `stt_proto.events`. The session is `None` for what concerns the node itself, such as
        `HandshakeFailed`. Events that nobody takes are dropped when there are 10,000, the oldest first.
        """
        return self._watchers.feed(self._is_over)

    def _is_over(self) -> bool:
        """Whether nothing more will come in; of a node that was never started nobody can tell."""
        if not self._ever_ran:
            raise self._ended()
        return self._driver is None

    # -- broadcast -------------------------------------------------------------------------------------------------

    async def send_to_all(
        self, data: Buffer, stream_id: int | None = None, timeout: float | None = 10.0
    ) -> BroadcastResult:
        """Send the same to every session, to all at once; see `send_to_sessions`."""
        return await self.send_to_sessions(self.sessions.keys(), data, stream_id, timeout)

    async def send_to_sessions(
        self, session_ids: Iterable[bytes], data: Buffer, stream_id: int | None = None, timeout: float | None = 10.0
    ) -> BroadcastResult:
        """Send the same to several sessions, to all at once: one that is slow or dead delays no other.

        What a receiver does not take now waits for it, within the bounds of the node's `broadcast`, and leaves when it
        can, also after this has returned. So does what the application sends next, behind it.

        Args:
            session_ids: who.
            data: what; all receivers share one copy.
            stream_id: on which open stream, and opened where it is not; a stream of its own for each when `None`.
            timeout: seconds to wait until it is known what became of it for each; 0 does not wait.

        Returns:
            what had become of it for each by then, in the order asked for.

        Raises:
            ArgumentError: `data` is not bytes-like or longer than `broadcast.max_bytes`, or `session_ids` is something
                else than ids: a single one, say.

        Cancelled, what had not begun to leave is withdrawn; in a cancelled scope nothing is sent.
        """
        check_timeout(timeout)
        await checkpoint()
        settled = Bell(self.asyncio_loop)
        cast = Cast(self, session_ids, data, stream_id, settled.ring)
        try:
            with up_to(timeout):
                while not cast.settled:
                    await settled.wait()
        except BaseException:
            cast.withdraw()
            raise
        return cast.result()

    # -- what the base asks for ------------------------------------------------------------------------------------

    def _call(self, callback: Callback, session: SessionBase[Any] | None, *arguments: Any) -> None:
        assert self._loop is not None
        self._calls.begin(self._loop, callback, session, *arguments)

    def _publish(self, session: Session | None, event: Event) -> None:
        self._watchers.put(session, event)

    def _wake_accept(self) -> None:
        self._arrived.ring()

    def _wake_receive(self) -> None:
        self._packet.ring()

    def _datagrams_dropped(self) -> int:
        return sum(each.datagrams_dropped for each in self._carriers.values() if isinstance(each, UdpCarrier))

    def _on_session_established(self, session: Session) -> None:
        super()._on_session_established(session)
        session.on_established()

    def _on_session_closed(self, session: Session, event: SessionClosed) -> None:
        super()._on_session_closed(session, event)
        if not self.sessions:
            self._calls.changed.ring()


def _checked(carriers: Iterable[Carrier]) -> tuple[Carrier, ...]:
    """The carriers of a node: one at least, each of its own name."""
    given = tuple(carriers) if isinstance(carriers, Iterable) else ()
    fit = all(isinstance(carrier, Carrier) for carrier in given)
    if not given or not fit or len({carrier.name for carrier in given}) < len(given):
        raise ArgumentError(
            f"carriers is {carriers!r}; it must be one Carrier or more, each of its own name", argument="carriers"
        )
    return given


async def _set(event: anyio.Event) -> None:
    event.set()


def _unwrapped(error: Exception) -> Exception:
    """What a task group was ended by, if it is one thing."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
