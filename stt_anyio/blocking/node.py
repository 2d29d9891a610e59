"""The node without an event loop."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from math import inf
from socket import AddressFamily
from types import TracebackType
from typing import Any, Self, TypeVar

from stt_anyio.blocking.answers import BlockingHandler, answer
from stt_anyio.blocking.connections import Connections
from stt_anyio.blocking.locked import locked
from stt_anyio.blocking.session import BlockingSession
from stt_anyio.blocking.sockets import LONG, Sockets
from stt_anyio.blocking.ways import BlockingWays
from stt_anyio.broadcasting import Cast
from stt_anyio.dial_errors import no_way
from stt_anyio.driver import Driver
from stt_anyio.errors import ArgumentError, SessionClosedError, StateError
from stt_anyio.managed import DRAIN_TIMEOUT
from stt_anyio.node_base import Callback, NodeBase, ReceivedPacket
from stt_anyio.requests import AnswerPolicy
from stt_anyio.session_base import SessionBase
from stt_anyio.timeouts import check_timeout
from stt_anyio.udp import Address, UdpSocket, any_of, check_address, look_up
from stt_proto import NetworkPath
from stt_proto import Session as CoreSession
from stt_proto.broadcast import BroadcastResult
from stt_proto.events import Event
from stt_proto.manager import DrainStatus
from stt_proto.types import Buffer

STOP_TIMEOUT = 5.0
"""Seconds that `stop` gives its sessions to close."""

T = TypeVar("T")


class BlockingNode(BlockingWays):
    """A node without an event loop. Use it as `with BlockingNode(...) as node:`, or call `start` and `stop`.

    Args:
        node_seed, shared_seed, host, port, config, server_mode, admit, parameters: as for `STTNode`.
        background: keep a thread that pumps, so that sessions live on while the program does something else. A
            callback that ends it, by `sys.exit` say, ends the node, and all who wait get a `StateError`.
    """

    session_class = BlockingSession

    def __init__(
        self,
        node_seed: bytes | None = None,
        shared_seed: bytes | str | None = None,
        host: str | None = None,
        port: int | None = None,
        *,
        background: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(node_seed, shared_seed, host, port, **options)
        if self.config.transport != "udp":
            raise ArgumentError(
                f"transport is {self.config.transport!r}; a blocking node has 'udp', and `listen_tcp` and "
                "`listen_websocket` beside it",
                argument="transport",
            )
        if self.config.ticket_store is not None:
            raise ArgumentError(
                "ticket_store waits in an event loop; a blocking node has ticket_file", argument="ticket_store"
            )
        self.lock = self.guard = threading.RLock()
        self._turn = threading.Condition(self.lock)
        self._background = background
        self._thread: threading.Thread | None = None
        self._sockets: Sockets | None = None
        self._connections: dict[str, Connections] = {}
        self._pumper: int | None = None  # the thread that waits for the sockets, and until when
        self._pumps_until = inf
        self._happened = 0  # events so far: whoever waits looks again when it has changed
        self._calls: list[tuple[Callback, SessionBase[Any] | None, tuple[Any, ...]]] = []
        self._failure: OSError | StateError | None = None

    # -- starting and stopping -------------------------------------------------------------------------------------

    def _bound(self) -> Sequence[Any]:
        if self._sockets is None:
            return self.config.bind_address, self.config.port
        return self._sockets.all[0].local

    def start(self, server_mode: bool | None = None) -> None:
        """Bind.

        Args:
            server_mode: whether to accept sessions; what the constructor was told when `None`.

        Raises:
            OSError: the address is taken, or not ours.
            StateError: it is running already.
        """
        with self.lock:
            if self._driver is not None:
                raise StateError("the node is running already")
            if server_mode is not None:
                self._server_mode = server_mode
            family, address = look_up(self.config.bind_address, self.config.port)[0]
            first = UdpSocket(family, address, self.config)
            try:
                sockets = Sockets(first)
            except BaseException:
                first.close()
                raise
            try:
                self._connections = {name: Connections(name, self.config, sockets) for name in ("stream", "ws")}
                self._driver = self._make_driver(
                    clock=time.monotonic,
                    unix_time=time.time(),
                    outlets={"udp": sockets, **self._connections},
                    traits={"udp": self.config.udp_traits(never_cut=first.never_cut)},
                    granted=[first.granted],
                    arm=self._arm,
                    fail=self._fail,
                )
            except BaseException:
                sockets.close()
                raise
            for connections in self._connections.values():
                connections.registry.port = self._driver
            first.hint, first.too_large = self._driver.path_failed, self._driver.datagram_refused
            self._sockets, self._failure = sockets, None
            self.set_log_level()
            if self._background:
                thread = threading.Thread(
                    target=self._pump_in_background, args=[self._driver], name="BlockingNode", daemon=True
                )
                try:
                    thread.start()
                except BaseException:  # the system has no more threads
                    self._end()
                    raise
                self._thread = thread

    def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """Refuse new sessions, close those that are there, and end. May be called again.

        Args:
            timeout: seconds that the sessions get to deliver what they accepted; then they are aborted.

        Raises:
            OSError, StateError: what ended the node, if it did not end because of this.
        """
        check_timeout(timeout)
        with self.lock:
            if self._driver is None:
                return
            self._driver.endpoint.accepting = False
            for session in tuple(self.sessions.values()):
                session.begin_close()
        try:
            self.until(lambda: True if not self.sessions else None, timeout)
        except TimeoutError:
            if self._failure is not None:  # which may be one, of a network that is gone
                raise
        finally:
            self._end()
            thread, self._thread = self._thread, None
            if thread is not None and thread is not threading.current_thread():  # it may be a callback that stops it
                thread.join()

    def _end(self) -> None:
        with self.lock:
            driver, sockets = self._driver, self._sockets
            if driver is None or sockets is None:
                return  # another thread was quicker
            for session in (*self.sessions.values(), *self._dialing):
                session.ended_here = self._failure is None
                session.core.abort(driver.clock())
            driver.pump()
            self._close_driver(driver)
            self._driver = None
            self._happened += 1
            sockets.ring()
            while self._pumper is not None:  # he must be out of the sockets before they go
                self._turn.wait()
            self._sockets = None
            self._turn.notify_all()
            for connections in self._connections.values():
                connections.close()
            sockets.close()
            self._call_back()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __del__(self) -> None:
        if getattr(self, "_driver", None) is not None:
            warnings.warn(f"{self!r} was never stopped", ResourceWarning, source=self, stacklevel=2)
            if self._sockets is not None:
                self._sockets.close()

    def drain(self, timeout: float = DRAIN_TIMEOUT) -> DrainStatus:
        """Come to rest before a `stop`; see `STTNode.drain`."""
        self.driver  # noqa: B018  # raises when the node is not running
        return self.session_manager.drain(timeout)

    # -- waiting ---------------------------------------------------------------------------------------------------

    def until(self, attempt: Callable[[], T | None], timeout: float | None = None) -> T:
        """Try, and pump until it succeeds.

        Args:
            attempt: called with the lock held; `None` means not yet.
            timeout: seconds.

        Raises:
            TimeoutError: it did not succeed in time.
            OSError, StateError: what ended the node.
        """
        check_timeout(timeout)
        give_up = inf if timeout is None else time.monotonic() + timeout
        with self.lock:
            while True:
                seen = self._happened
                result = attempt()
                if result is not None:
                    return result
                self._wait(seen, give_up)

    def poll(self, timeout: float = 0.0) -> bool:
        """Let the node work for `timeout` seconds, or until something happens; at least once.

        Returns:
            whether something happened.
        """
        check_timeout(timeout)
        with self.lock:
            seen = self._happened
            try:
                self._wait(seen, time.monotonic() + timeout)
            except TimeoutError:
                return False
            return True

    def _wait(self, seen: int, give_up: float) -> None:
        """Wait until an event was delivered after the `seen`th; pump meanwhile, unless another thread does."""
        tried = False
        try:
            while self._happened == seen:
                self._check_alive()
                left = give_up - time.monotonic()
                if left <= 0 and tried:
                    raise TimeoutError("timed out")
                if self._pumper is None:
                    self._pump(left)
                else:
                    self._turn.wait(min(max(left, 0.0), LONG))
                tried = True
        finally:
            self._turn.notify_all()  # who waits on must look again, and one of them pump

    def _check_alive(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._driver is None:
            raise self._ended()

    def _pump(self, seconds: float) -> None:
        """One round: wait for the sockets without the lock, then take in, send, deliver."""
        driver, sockets = self.driver, self._sockets
        assert sockets is not None
        sockets.sweep()
        self._pumper = threading.get_ident()
        now = time.monotonic()
        timed = [connections.deadline for connections in self._connections.values()]
        self._pumps_until = min(driver.armed, now + seconds, *timed)
        self.lock.release()
        try:
            readable, writable, calls = sockets.wait(self._pumps_until - now)
        finally:
            self.lock.acquire()
            self._pumper = None
        if self._driver is not driver:
            return  # stopped meanwhile
        try:
            for sock in readable:
                sock.receive(driver.receive)
        except OSError as error:
            self._fail(error)
        for call in calls:
            call()
        for connections in self._connections.values():
            connections.expire()
        if driver.armed <= time.monotonic():
            driver.tick()
        if sockets.unblock(writable):
            driver.writable()
        driver.pump()
        self._call_back()

    def _arm(self, at: float) -> None:
        if self._pumper is not None and at < self._pumps_until and self._sockets is not None:
            self._sockets.ring()

    def _stir(self) -> None:
        self._happened += 1
        self._turn.notify_all()
        if self._sockets is not None:
            self._sockets.ring()

    def _fail(self, error: OSError | StateError) -> None:
        """The node cannot go on: whoever waits for something is told why."""
        with self.lock:
            self._failure = self._failure or error
            self._stir()

    def _pump_in_background(self, driver: Driver) -> None:
        """Pump until the node is stopped, also when it is started again in that moment, with a thread of its own."""
        try:
            while self._driver is driver:
                self.poll(inf)
        except BaseException as error:
            with self.lock:
                if self._driver is not driver or self._failure is not None:
                    return  # stopped, or whoever waits has been told
                ended = error if isinstance(error, OSError) else StateError(f"what pumped the node ended: {error!r}")
                ended.__cause__ = None if ended is error else error
                self._fail(ended)
            if not isinstance(error, OSError | SystemExit):
                raise  # for `threading.excepthook`

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._driver is not None and self._failure is None

    # -- dialling and accepting ------------------------------------------------------------------------------------

    def _udp_path(self, address: Any) -> NetworkPath:
        host, port = check_address(address)
        try:
            found = look_up(host, port)
        except OSError as error:
            raise no_way(address, error) from error
        with self.lock:
            self.driver  # noqa: B018  # raises when the node is not running
            return self._path_to(found)

    def _path_to(self, found: list[tuple[AddressFamily, Address]]) -> NetworkPath:
        sockets = self._sockets
        assert sockets is not None
        own = sockets.all[0].family
        family, remote = min(found, key=lambda entry: entry[0] != own)
        sock = sockets.pool.of_family(family)
        if sock is None:
            sock = UdpSocket(family, any_of(family), self.config)
            sockets.pool.add(sock)
            self._begin_on(sock)
        return sock.path(remote)

    def _path_beside(self, way: NetworkPath) -> NetworkPath:
        self.driver  # noqa: B018  # raises when the node is not running
        assert self._sockets is not None
        sock = self._sockets.pool.open_beside(way, self.config)
        self._begin_on(sock)
        return sock.path(way.remote)  # type: ignore[arg-type]  # an address, as all of this carrier

    def _replace_own(self, path: NetworkPath) -> None:
        assert self._sockets is not None
        self._sockets.drop(self._sockets.pool.replace_own(path))

    def _begin_on(self, sock: UdpSocket) -> None:
        assert self._sockets is not None
        sock.hint, sock.too_large = self.driver.path_failed, self.driver.datagram_refused
        self._sockets.listen_to(sock)

    def accept(self, timeout: float | None = None) -> BlockingSession:
        """Wait for the next session that a peer has established with this node; see `STTNode.accept`."""
        check_timeout(timeout)
        self._listening = True
        return self.until(self._next_arrival, timeout)

    def answer(self, handler: BlockingHandler, policy: AnswerPolicy | None = None) -> None:
        """Answer the requests of all sessions that peers establish, until the node stops; see `STTNode.answer`.

        The thread that calls this reads requests, sends answers and keeps their time. Each handler has a thread for as
        long as it works, so there are as many as the policy lets handlers run: `max_requests` of a session,
        `max_in_all` of all.

        A thread cannot be cancelled. A handler that does not return in time has its request refused all the same, with
        `REQUEST_TIMED_OUT`, but it keeps its thread, and its places in the policy and in `track_request`, until it
        returns. Where that never is, so many requests fewer are answered at once. So let it wait for nothing without a
        timeout.

        When the node has stopped, or the session is over, this waits for the handlers that are at work, for each no
        longer than is left of the policy's `timeout`; one that takes longer is left to itself, in a daemon thread.
        `stop` and `close` do not wait for handlers.

        Args:
            handler: `handler(request)` gives the answer to a `BlockingRequest`, in any thread. What it raises is logged
                and counted, and refuses that request with `REQUEST_FAILED`; `RequestRefused(code)` refuses it with
                another code.
            policy: the bounds; an `AnswerPolicy()` when not given.

        Raises:
            ArgumentError: an argument is none.
            StateError: the node was never started.
            OSError: what ended the node.

        Interrupted, by Ctrl-C for one, it refuses what is open with `REQUEST_FAILED`, and waits for nobody.
        """
        answer(self, handler, policy)

    def receive(self, timeout: float | None = None) -> ReceivedPacket:
        """Wait for data on a stream that a peer opened and nobody claimed; see `STTNode.receive`."""
        with self.lock:
            self._collect()
        return self.until(self._next_packet, timeout)

    def __iter__(self) -> Iterator[ReceivedPacket]:
        """`for packet in node:`: `receive` until the node is stopped."""
        try:
            while True:
                yield self.receive()
        except SessionClosedError:
            return

    # -- broadcast -------------------------------------------------------------------------------------------------

    def send_to_all(self, data: Buffer, stream_id: int | None = None, timeout: float | None = 10.0) -> BroadcastResult:
        """Send the same to every session, to all at once; see `STTNode.send_to_sessions`."""
        with self.lock:
            everybody = list(self.sessions)
        return self.send_to_sessions(everybody, data, stream_id, timeout)

    def send_to_sessions(
        self, session_ids: Iterable[bytes], data: Buffer, stream_id: int | None = None, timeout: float | None = 10.0
    ) -> BroadcastResult:
        """Send the same to several sessions, to all at once; see `STTNode.send_to_sessions`.

        What waits for a receiver leaves while something pumps the node.
        """
        check_timeout(timeout)
        with self.lock:
            cast = Cast(self, session_ids, data, stream_id)
        with suppress(TimeoutError):
            self.until(lambda: cast.settled or None, timeout)
        with self.lock:
            return cast.result()

    # -- what the base asks for ------------------------------------------------------------------------------------

    enable_accept_connections = locked(NodeBase.enable_accept_connections)
    disable_accept_connections = locked(NodeBase.disable_accept_connections)
    get_stats = locked(NodeBase.get_stats)
    get_transport_stats = locked(NodeBase.get_transport_stats)

    def _deliver(self, core: CoreSession | None, event: Event) -> None:
        self._happened += 1
        super()._deliver(core, event)

    def _call(self, callback: Callback, session: SessionBase[Any] | None, *arguments: Any) -> None:
        self._calls.append((callback, session, arguments))

    def _call_back(self) -> None:
        """Make the calls that events asked for, in this thread and without the lock, so that they may wait."""
        while self._calls:
            calls, self._calls = self._calls, []
            self.lock.release()
            try:
                for callback, session, arguments in calls:
                    try:
                        callback(*arguments)
                    except Exception as error:
                        with self.lock:
                            self.handler_failed(error, session)
            finally:
                self.lock.acquire()

    def _publish(self, session: BlockingSession | None, event: Event) -> None:
        """Nobody iterates over events here; there are callbacks."""

    def _wake(self) -> None:
        """Nothing to do: whoever waits looks again after every event."""

    _wake_receive = _wake_accept = _wake

    def _datagrams_dropped(self) -> int:
        return self._sockets.pool.datagrams_dropped if self._sockets is not None else 0
