"""The ways on which a blocking node reaches others, and others reach it, beside UDP."""

from __future__ import annotations

import queue
import socket
import ssl
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from stt_anyio.blocking.connections import Connections, medium_of
from stt_anyio.blocking.reconnecting import BlockingReconnectingClient
from stt_anyio.blocking.session import BlockingSession
from stt_anyio.blocking.session_manager import BlockingSessionManager
from stt_anyio.blocking.sockets import LONG
from stt_anyio.carrier import ALIASES, HEAD_START
from stt_anyio.connections import Medium, SocketMedium, check_listen, listen_tcp
from stt_anyio.dial_arguments import check_dial
from stt_anyio.dial_errors import no_answer, no_move, no_way
from stt_anyio.early import check_one_way
from stt_anyio.errors import ArgumentError, SttError, connection_failed
from stt_anyio.links import FramedLink, Link, WebSocketTarget, server_links, target_of
from stt_anyio.moving import Attempt, is_free, leave, linger, way_of
from stt_anyio.node_base import NodeBase
from stt_anyio.reconnecting_base import Peer
from stt_anyio.regaining import PATIENCE, backoff, is_elsewhere
from stt_anyio.timeouts import check_timeout
from stt_anyio.udp import check_address
from stt_proto import NetworkPath, ReconnectPolicy, SessionState, Ticket

T = TypeVar("T")


class Race:
    """Attempts at one session of which one may win.

    Attributes:
        over: whether one has, or nobody waits for it any more.
        winner: the session of the one that has.
    """

    over = False
    winner: BlockingSession | None = None


class BlockingWays(NodeBase[BlockingSession]):
    """Part of `BlockingNode`."""

    lock: threading.RLock
    _connections: dict[str, Connections]
    manager_class = BlockingSessionManager
    session_manager: BlockingSessionManager
    _opening = 0
    """Threads that have a path in their hands which nobody else knows of."""

    @abstractmethod
    def until(self, attempt: Callable[[], T | None], timeout: float | None = None) -> T: ...

    @abstractmethod
    def poll(self, timeout: float = 0.0) -> bool: ...

    @abstractmethod
    def _udp_path(self, address: Any) -> NetworkPath: ...

    @abstractmethod
    def _path_beside(self, way: NetworkPath) -> NetworkPath:
        """A path to the same peer from a port of its own. Raises `OSError`."""

    @abstractmethod
    def _replace_own(self, path: NetworkPath) -> None:
        """Close the UDP socket of the node's own for that of this path."""

    @contextmanager
    def _path_in_hand(self) -> Iterator[None]:
        """Until this ends, the node's own UDP socket stays."""
        with self.lock:
            self._opening += 1
        try:
            yield
        finally:
            with self.lock:
                self._opening -= 1

    # -- dialling --------------------------------------------------------------------------------------------------

    def connect(
        self,
        address: Any,
        peer_node_id: bytes | None = None,
        timeout: float | None = 10.0,
        transport: str | None = None,
        *,
        websocket: str | WebSocketTarget | None = None,
        ticket: Ticket | None = None,
        early_data: bytes = b"",
    ) -> BlockingSession:
        """Dial, and return the established session; see `STTNode.connect`.

        Args:
            address: `(host, port)` on UDP and TCP, a URL or `WebSocketTarget` on WebSocket; on `"stream"` what
                `connect_stream` takes.
            peer_node_id: accept nobody but the node with this id.
            timeout: seconds in all.
            transport: `"udp"`, `"tcp"`, `"websocket"` or `"stream"`.
            websocket: where the same node can be reached by WebSocket, which is tried too after 250 ms.
            ticket: of an earlier session with that peer, good once; it is shown on the first way only.
            early_data: the beginning of `session.early_stream`, **replayable**; not together with `websocket`.
        """
        check_dial(peer_node_id, timeout, ticket, early_data)
        if websocket is None:
            return self._connect(address, peer_node_id, timeout, transport, Race(), ticket, early_data)
        check_one_way(early_data)
        return self._race(address, target_of(websocket), peer_node_id, timeout, transport, ticket)

    def connect_udp(
        self, host: str, port: int, peer_node_id: bytes | None = None, timeout: float | None = 10.0
    ) -> BlockingSession:
        """`connect` over UDP."""
        return self.connect((host, port), peer_node_id, timeout, "udp")

    def connect_tcp(
        self, host: str, port: int, peer_node_id: bytes | None = None, timeout: float | None = 10.0
    ) -> BlockingSession:
        """`connect` over TCP."""
        return self.connect((host, port), peer_node_id, timeout, "tcp")

    def connect_websocket(
        self, url: str, peer_node_id: bytes | None = None, timeout: float | None = 10.0, **options: Any
    ) -> BlockingSession:
        """`connect` over a WebSocket; see `STTNode.connect_websocket`."""
        return self.connect(WebSocketTarget(url=url, **options), peer_node_id, timeout, "websocket")

    def connect_stream(
        self, stream: Any, peer_node_id: bytes | None = None, timeout: float | None = 10.0
    ) -> BlockingSession:
        """`connect` over what the program has opened, which belongs to the session from now on.

        Args:
            stream: a connected socket, or a pair of files (pipes, a serial line): to read from, and to write to.
            peer_node_id: accept nobody but the node with this id.
            timeout: seconds in all.

        Raises:
            ArgumentError: `stream` is something else.
            SttError: all that `connect` raises.
        """
        return self.connect(stream, peer_node_id, timeout, "stream")

    def reconnecting(
        self,
        address: Any,
        peer_node_id: bytes | None = None,
        timeout: float | None = 10.0,
        transport: str | None = None,
        *,
        websocket: str | WebSocketTarget | None = None,
        ticket: Ticket | None = None,
        policy: ReconnectPolicy | None = None,
        prepare: Callable[[BlockingSession], Any] | None = None,
        addresses: Sequence[Any] = (),
    ) -> BlockingReconnectingClient:
        """A peer that is dialled when a session with it is asked for and there is none; see `STTNode.reconnecting`.

        Raises:
            StateError: the node is not running.
            ArgumentError: `policy`, `ticket`, `prepare`, `websocket` or `addresses` is none. What `connect` would not
                take ends it.
        """
        peer = Peer(
            address=address,
            others=addresses,
            peer_node_id=peer_node_id,
            transport=transport,
            websocket=websocket,
            timeout=timeout,
        )
        return BlockingReconnectingClient(self, peer, policy, ticket, prepare)

    def _connect(
        self,
        address: Any,
        peer_node_id: bytes | None,
        timeout: float | None,
        transport: str | None,
        race: Race,
        ticket: Ticket | None,
        early_data: bytes = b"",
    ) -> BlockingSession:
        give_up = None if timeout is None else time.monotonic() + timeout
        with self._path_in_hand():
            path = self._open_path(address, transport, timeout, race)
            return self._dial(path, address, peer_node_id, _left(give_up), race, ticket, early_data)

    def _open_path(self, address: Any, transport: str | None, timeout: float | None, race: Race) -> NetworkPath:
        """Open what must be opened for a path to an address."""
        match ALIASES.get(transport or "udp", transport or "udp"):
            case "udp":
                return self._udp_path(address)
            case "stream" if transport == "tcp":
                return self._open("stream", check_address(address), FramedLink(), timeout, race)
            case "stream":
                return self._open("stream", medium_of(address), FramedLink(), timeout, race)
            case "ws":
                target = target_of(address)
                return self._open("ws", target.next_hop, target.make_link(), timeout, race)
        raise ArgumentError(
            f"transport is {transport!r}; it must be udp, tcp, websocket or stream", argument="transport"
        )

    def take(
        self, session: BlockingSession, address: Any, transport: str | None, timeout: float | None, *, migrate: bool
    ) -> None:
        """`BlockingSession.add_path`, and with `migrate` that; without an address from another port."""
        check_timeout(timeout)
        if session.is_closed:
            raise session.ended()
        give_up = None if timeout is None else time.monotonic() + timeout
        way = None
        if isinstance(address, NetworkPath):
            with self.lock:
                attempt = session.try_path(address, migrate=migrate)
        elif migrate and address is None:
            with self.lock:
                way = way_of(session, transport)
                address = way.remote
                try:
                    path = self._path_beside(way)
                except OSError as error:
                    raise no_way(way, error) from error
                attempt = self._try_opened(session, path, migrate=True)
        else:
            with self._path_in_hand():
                path = self._open_path(address, transport, timeout, Race())
                with self.lock:
                    attempt = self._try_opened(session, path, migrate=migrate)
        self._await(session, attempt, address, timeout, _left(give_up))
        if way is not None:
            self._leave(session, way, attempt.path)

    def _try_opened(self, session: BlockingSession, path: NetworkPath, *, migrate: bool) -> Attempt:
        try:
            return session.try_path(path, migrate=migrate)
        except BaseException:
            if all(info.path != path for info in session.core.paths):
                session.driver.path_unused(path)
            raise

    def _leave(self, session: BlockingSession, way: NetworkPath, path: NetworkPath) -> None:
        """The session has moved away from a port: when the peer has followed, nothing is said or heard there."""
        try:
            with suppress(TimeoutError):
                self.until(lambda: session.is_closed or None, linger(session))
        finally:
            with self.lock:
                if self.running:
                    if not session.is_closed:
                        leave(session, way)
                    if not self._opening and is_free(self):
                        self._replace_own(path)

    def _await(
        self, session: BlockingSession, attempt: Attempt, address: Any, timeout: float | None, left: float | None
    ) -> None:
        """Wait until it is known what becomes of a path, and raise what it is."""
        try:
            self.until(lambda: attempt.settled or session.is_closed or None, left)
        except TimeoutError:
            raise no_answer(address, timeout) from None
        finally:
            with self.lock:
                session.end_attempt(attempt)
        if attempt.reason is not None:
            raise no_move(attempt)
        if not attempt.done:
            raise session.ended()

    def _open(
        self, name: str, hop: tuple[str, int] | Medium, link: Link, timeout: float | None, race: Race
    ) -> NetworkPath:
        """Open a connection, and wait until packets can pass."""
        give_up = None if timeout is None else time.monotonic() + timeout
        medium = hop if isinstance(hop, Medium) else _connected(hop, timeout)
        try:
            with self.lock:
                connections = self._connections_of(name)
                connection = connections.begin(medium, link, stranger=False, waiter=self._stir)
        except OSError as error:  # the peer, or whoever opened the stream, has ended it already
            medium.close()
            raise no_way(_named(hop), error) from error
        except BaseException:
            medium.close()
            raise
        try:
            self.until(lambda: link.open or connection.told or race.over or None, _left(give_up))
        except TimeoutError:
            self._give_up(connection)
            raise no_answer(_named(hop), timeout) from None
        except BaseException:
            self._give_up(connection)
            raise
        if not link.open:
            if link.failure is not None:
                raise connection_failed(link.failure)
            self._give_up(connection)
            raise no_way(_named(hop), OSError("the connection was closed"))
        path: NetworkPath = connection.path
        return path

    def _give_up(self, connection: Any) -> None:
        with self.lock:
            connection.close()

    @abstractmethod
    def _stir(self) -> None:
        """Something happened that is no event: whoever waits looks again."""

    def _dial(
        self,
        path: NetworkPath,
        address: Any,
        peer_node_id: bytes | None,
        timeout: float | None,
        race: Race,
        ticket: Ticket | None,
        early_data: bytes,
    ) -> BlockingSession:
        """Dial on a path, and wait for the session."""
        with self.lock:
            driver = self.driver
            try:
                core = driver.endpoint.connect(path, peer_node_id, ticket, early_data, now=driver.clock())
            except SttError as error:
                driver.path_unused(path)
                raise connection_failed(error) from None
            session = BlockingSession(self, core)
            self._dialing[session] = path
            driver.pump()
        try:
            waiting = (SessionState.INIT, SessionState.HANDSHAKING)
            self.until(lambda: session.state not in waiting or race.over or None, timeout)
        except TimeoutError:
            session.abort()
            raise no_answer(address, timeout) from None
        except BaseException:
            session.abort()
            raise
        finally:
            with self.lock:
                del self._dialing[session]
        if race.over:
            session.abort()
        if session.is_closed:
            raise connection_failed(session.ended())
        return session

    def _race(
        self,
        address: Any,
        websocket: WebSocketTarget,
        peer_node_id: bytes | None,
        timeout: float | None,
        transport: str | None,
        ticket: Ticket | None,
    ) -> BlockingSession:
        """Dial both ways, each in a thread of its own; the first session wins, and the other attempt is given up."""
        race, outcomes = Race(), queue.SimpleQueue[BlockingSession | BaseException]()

        def dial(where: Any, how: str | None, ticket: Ticket | None) -> None:
            try:
                session = self._connect(where, peer_node_id, timeout, how, race, ticket)
            except BaseException as error:  # whatever it is, somebody waits for it
                outcomes.put(error)
                return
            with self.lock:
                lost, race.over = race.over, True
                if not lost:
                    race.winner = session
                self._stir()
            session.abort() if lost else outcomes.put(session)

        try:
            won = self._first([(address, transport, ticket), (websocket, "websocket", None)], dial, outcomes)
            if self.config.probe_udp and transport in (None, "udp"):
                self._start_thread(self._regain, won, address)
        except BaseException:  # Ctrl-C too: what goes on in the threads is given up, and nobody else has the winner
            with self.lock:
                race.over = True
                self._stir()
            if race.winner is not None:
                race.winner.abort()
            raise
        return won

    def _first(
        self,
        ways: list[tuple[Any, str | None, Ticket | None]],
        dial: Callable[..., None],
        outcomes: queue.SimpleQueue[BlockingSession | BaseException],
    ) -> BlockingSession:
        """Start each attempt when the one before has failed, or has had its head start; the first session."""
        errors: list[BaseException] = []
        for number, way in enumerate(ways):
            self._start_thread(dial, *way)
            last = number == len(ways) - 1
            while (last and len(errors) < len(ways)) or (not last and not errors):
                try:
                    outcome = outcomes.get(timeout=None if last else HEAD_START)
                except queue.Empty:
                    break
                if isinstance(outcome, BlockingSession):
                    return outcome
                errors.append(outcome)
        raise errors[0] from errors[1]

    def _start_thread(self, run: Callable[..., None], *arguments: Any) -> None:
        threading.Thread(target=run, args=arguments, name="BlockingNode.connect", daemon=True).start()

    def _regain(self, session: BlockingSession, address: Any) -> None:
        """Look for UDP now and then while a session is not on it, until that is over; see `stt_anyio/regaining.py`."""
        waits, over = backoff(), threading.Event()
        with self.lock:
            session.over = over
            if session.is_closed:
                return
        while not over.wait(waits.next()):
            if not is_elsewhere(session, "udp"):
                waits.reset()
                continue
            with suppress(SttError, OSError):
                session.add_path(address, "udp", PATIENCE)

    # -- being dialled ---------------------------------------------------------------------------------------------

    def listen_tcp(self, host: str | None = None, port: int = 0) -> tuple[str, int]:
        """Accept sessions over TCP too, until the node stops; see `STTNode.listen_tcp`."""
        return self._listen("stream", host, port, FramedLink)

    def listen_websocket(
        self,
        host: str | None = None,
        port: int = 0,
        *,
        ssl_context: ssl.SSLContext | None = None,
        path: str | None = None,
        origins: Iterable[Any] = (),
    ) -> tuple[str, int]:
        """Accept sessions over WebSocket too, until the node stops; see `STTNode.listen_websocket`."""
        return self._listen("ws", host, port, server_links(ssl_context, path, origins))

    def _listen(self, name: str, host: str | None, port: int, make_link: Callable[[], Link]) -> tuple[str, int]:
        check_listen(host, port)
        found = socket.getaddrinfo(host or self.config.bind_address, port, type=socket.SOCK_STREAM)
        with self.lock:
            connections = self._connections_of(name)
            sock = listen_tcp(found[0][0], found[0][4], self.config.reuse_port)
            connections.listen(sock, make_link)
            bound = sock.getsockname()
        return bound[0], bound[1]

    def serve_stream(self, stream: Any) -> None:
        """Be dialled over what the program has opened (see `connect_stream`); returns at once."""
        medium = medium_of(stream)
        with self.lock:
            self._connections_of("stream").begin(medium, FramedLink(), stranger=True)

    def _connections_of(self, name: str) -> Connections:
        self.driver  # noqa: B018  # raises when the node is not running
        return self._connections[name]


def _connected(hop: tuple[str, int], timeout: float | None) -> SocketMedium:
    """A TCP connection to that address."""
    if timeout is not None and timeout <= 0:
        raise no_answer(hop, timeout)
    try:
        sock = socket.create_connection(hop, None if timeout is None else min(timeout, LONG))
    except TimeoutError:
        raise no_answer(hop, timeout) from None
    except OSError as error:
        raise no_way(hop, error) from error
    except ValueError as error:
        raise no_way(hop, OSError("this cannot be the name of a host")) from error
    try:
        return SocketMedium(sock)
    except OSError as error:  # reset already
        sock.close()
        raise no_way(hop, error) from error


def _named(hop: tuple[str, int] | Medium) -> Any:
    """What an error calls it."""
    return "the stream" if isinstance(hop, Medium) else hop


def _left(give_up: float | None) -> float | None:
    """Seconds until then."""
    return None if give_up is None else max(0.0, give_up - time.monotonic())
