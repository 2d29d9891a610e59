"""The ways on which a node reaches others, and others reach it, beside UDP: TCP, WebSocket, any byte stream."""

from __future__ import annotations

import ssl
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any

import anyio
from anyio.abc import ByteStream, Listener, TaskGroup

from stt_anyio.carrier import ALIASES, HEAD_START, Carrier
from stt_anyio.connectable import StreamConnectable
from stt_anyio.connections import ConnectionCarrier, check_listen, listen_tcp
from stt_anyio.connections.streams import TaskConnection
from stt_anyio.dial_errors import no_answer, no_move, no_way
from stt_anyio.errors import ArgumentError, StateError, SttError, connection_failed
from stt_anyio.links import FramedLink, WebSocketTarget, server_links, target_of
from stt_anyio.managed import DRAIN_TIMEOUT
from stt_anyio.moving import Attempt, is_free, leave, linger, way_of
from stt_anyio.node_base import NodeBase
from stt_anyio.reconnecting import ReconnectingClient
from stt_anyio.reconnecting_base import Peer
from stt_anyio.regaining import regain
from stt_anyio.session import Session
from stt_anyio.session_manager import SessionManager
from stt_anyio.timeouts import check_timeout
from stt_anyio.udp import UdpCarrier
from stt_proto import NetworkPath, ReconnectPolicy, Ticket
from stt_proto.manager import DrainStatus


class Ways(NodeBase[Session]):
    """Part of `STTNode`."""

    _carriers: dict[str, Carrier]
    _given_carriers: tuple[Carrier, ...] | None
    _listens_at: tuple[str, int] | None
    _tasks: TaskGroup | None
    manager_class = SessionManager
    session_manager: SessionManager

    @abstractmethod
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
    ) -> Session: ...

    # -- the way to a stop -----------------------------------------------------------------------------------------

    async def drain(self, timeout: float = DRAIN_TIMEOUT) -> DrainStatus:
        """Come to rest before a `stop`: nothing new is taken, work goes on until it is done, then everything ends.

        From now on new sessions, streams and requests are refused with a `ShuttingDownError`, at the peer too. Sessions
        without requests (`Session.track_request`) and open streams end at once, the others when their last ends, and
        after `timeout` all that are left. Calling it again can only bring that nearer. A node that was drained takes
        nothing until it is stopped, and started again.

        Args:
            timeout: seconds that the work may take, 0 to ten years.

        Raises:
            StateError: the node is not running.
            ArgumentError: `timeout` is out of range.
        """
        self.driver  # noqa: B018  # raises when the node is not running
        return await self.session_manager.drain(timeout)

    # -- dialling --------------------------------------------------------------------------------------------------

    async def connect_udp(
        self, host: str, port: int, peer_node_id: bytes | None = None, timeout: float | None = 10.0
    ) -> Session:
        """`connect` over UDP."""
        return await self.connect((host, port), peer_node_id, timeout, "udp")

    async def connect_tcp(
        self, host: str, port: int, peer_node_id: bytes | None = None, timeout: float | None = 10.0
    ) -> Session:
        """`connect` over TCP."""
        return await self.connect((host, port), peer_node_id, timeout, "tcp")

    async def connect_websocket(
        self, url: str, peer_node_id: bytes | None = None, timeout: float | None = 10.0, **options: Any
    ) -> Session:
        """`connect` over a WebSocket.

        Args:
            url: `ws://HOST[:PORT][/PATH]` or `wss://...`; a user and password in it are sent as `Authorization`.
            peer_node_id: accept nobody but the node with this id.
            timeout: seconds in all.
            options: `headers`, `ssl_context`, `proxy`, `proxy_auth` and `origin`, as for `WebSocketTarget`. The proxy
                of the configuration is used when none is given.

        Raises:
            WebSocketHandshakeError: who answered does not speak WebSocket there, or not for STT.
            ProxyError: the proxy refused, or is none.
            TlsError: TLS failed, or the certificate does not verify.
            ArgumentError: the URL or an option is none.
            SttError: all that `connect` raises.
        """
        return await self.connect(WebSocketTarget(url=url, **options), peer_node_id, timeout, "ws")

    async def connect_stream(
        self, stream: ByteStream, peer_node_id: bytes | None = None, timeout: float | None = 10.0
    ) -> Session:
        """`connect` over an open byte stream, which belongs to the session from now on and is closed with it.

        The other side hands its end to `serve_stream`.
        """
        return await self.connect(stream, peer_node_id, timeout, "stream")

    def connectable(
        self, address: Any, peer_node_id: bytes | None = None, *, transport: str | None = None, purpose: str = ""
    ) -> StreamConnectable:
        """A peer as an `anyio.abc.ByteStreamConnectable`: each `connect` opens a stream of one shared session."""
        return StreamConnectable(self, address, peer_node_id, transport, purpose)

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
        prepare: Callable[[Session], Awaitable[Any]] | None = None,
        addresses: Sequence[Any] = (),
    ) -> ReconnectingClient:
        """A peer that is dialled, and dialled again whenever its session is lost, until that is closed.

        Args:
            address, peer_node_id, timeout, transport, websocket: of each try, as for `connect`.
            ticket: of an earlier session with that peer, for the first try; later ones use the latest that came.
            policy: how patiently; the defaults of `ReconnectPolicy` when `None`.
            prepare: `await prepare(session)` is called with each new session before anybody else gets it: to set up
                again what it is to have. When it raises, the session is ended; it is dialled again if the session was
                lost, and otherwise given up.
            addresses: where else the same node is, servers with one `fleet_secret` say. When a session is lost, or a
                try fails, the next of them is dialled, and after the last `address` again; the waits are the same. A
                session without a path is looked for where it was, and nowhere else, for as long as the first wait.

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
        return ReconnectingClient(self, peer, policy, ticket, prepare)

    def start_task(self, run: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
        """Have something done beside everything else until the node stops; what it raises ends the node."""
        if self._tasks is None:
            raise StateError("the node is not running")
        self._tasks.start_soon(run, *arguments)

    async def _race(
        self,
        address: Any,
        websocket: WebSocketTarget,
        peer_node_id: bytes | None,
        timeout: float | None,
        transport: str | None,
        ticket: Ticket | None,
    ) -> Session:
        """Dial both ways; the first session wins, and what came of the other is ended."""
        won: list[Session] = []
        errors: dict[str, Exception] = {}
        failed = anyio.Event()

        async def dial(where: Any, how: str | None, ticket: Ticket | None) -> None:
            try:
                session = await self.connect(where, peer_node_id, timeout, how, ticket=ticket)
            except (SttError, OSError) as error:
                errors[how or ""] = error
                failed.set()
                return
            if won:
                session.abort()  # both in one moment
            else:
                won.append(session)
                tasks.cancel_scope.cancel()

        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(dial, address, transport, ticket)
                with anyio.move_on_after(HEAD_START):
                    await failed.wait()
                tasks.start_soon(dial, websocket, "ws", None)  # a ticket is shown once
        except BaseException:
            for session in won:
                session.abort()
            raise
        if won:
            carrier = self.carrier_for(transport)
            if self.config.probe_udp and not carrier.traits.reliable:
                self.start_task(regain, won[0], address, transport, carrier.name)
            return won[0]
        first, *others = errors.values()
        raise first from (others[0] if others else None)

    async def take(
        self, session: Session, address: Any, transport: str | None, timeout: float | None, *, migrate: bool
    ) -> None:
        """`Session.add_path`, and with `migrate` that; without an address from another port."""
        check_timeout(timeout)
        if session.is_closed:
            raise session.ended()
        attempt: Attempt | None = None
        way = way_of(session, transport) if migrate and address is None else None
        with anyio.move_on_after(timeout):
            if way is None:
                attempt = await self._try_path(session, address, transport, migrate=migrate)
            else:
                address, attempt = way.remote, self._try_beside(session, way)
            try:
                await session.wait_settled(attempt)
            except BaseException:
                if way is not None and attempt.done:  # cancelled in that moment
                    self._left(session, way, attempt.path)
                raise
            finally:
                session.end_attempt(attempt)
        if attempt is None or not (attempt.settled or session.is_closed):
            raise no_answer(address, timeout)
        if attempt.reason is not None:
            raise no_move(attempt)
        if not attempt.done:
            raise session.ended()
        if way is not None:
            await self._leave(session, way, attempt.path)

    def _try_beside(self, session: Session, way: NetworkPath) -> Attempt:
        """Have a session move to a path to the same peer from a port of its own."""
        carrier = self._udp()
        try:
            path = carrier.path_beside(way)
        except OSError as error:
            raise no_way(way, error) from error
        return self._try_opened(session, carrier, path, migrate=True)

    def _udp(self) -> UdpCarrier:
        carrier = self._carriers.get("udp")
        if not isinstance(carrier, UdpCarrier):
            raise StateError("carrier 'udp' is not the node's own: say an address")
        return carrier

    async def _leave(self, session: Session, way: NetworkPath, path: NetworkPath) -> None:
        """The session has moved away from a port: when the peer has followed, nothing is said or heard there."""
        try:
            with anyio.move_on_after(linger(session)):
                await session.wait_closed()
        finally:
            self._left(session, way, path)

    def _left(self, session: Session, way: NetworkPath, path: NetworkPath) -> None:
        """Give up the way that a session has left, and the port if that is free now."""
        if self.running:
            if not session.is_closed:
                leave(session, way)
            if is_free(self):
                self._udp().replace_own(path)

    async def _try_path(self, session: Session, address: Any, transport: str | None, *, migrate: bool) -> Attempt:
        if isinstance(address, NetworkPath):
            return session.try_path(address, migrate=migrate)
        carrier = self.carrier_for(transport)
        return self._try_opened(session, carrier, await self._find_path(carrier, address), migrate=migrate)

    def _try_opened(self, session: Session, carrier: Carrier, path: NetworkPath, *, migrate: bool) -> Attempt:
        try:
            return session.try_path(path, migrate=migrate)
        except BaseException:
            if all(info.path != path for info in session.core.paths):
                carrier.path_unused(path)
            raise

    def carrier_for(self, transport: str | None) -> Carrier:
        """The carrier of that name, or the usual one of the node."""
        if transport is None:
            transport = self.config.transport if self._given_carriers is None else next(iter(self._carriers))
        carrier = self._carriers.get(ALIASES.get(transport, transport))
        if carrier is None:
            known = ", ".join(self._carriers)
            raise ArgumentError(f"transport is {transport!r}; this node has {known}", argument="transport")
        return carrier

    async def _find_path(self, carrier: Carrier, address: Any) -> NetworkPath:
        """Have a carrier open what must be opened; whatever goes wrong with that is an error of `connect`."""
        try:
            return await carrier.path_to(address)
        except SttError as error:
            raise connection_failed(error) from error.__cause__
        except OSError as error:
            where = target_of(address).next_hop if carrier.name == "ws" else address
            raise no_way(where, error) from error

    # -- being dialled ---------------------------------------------------------------------------------------------

    async def listen_tcp(self, host: str | None = None, port: int = 0) -> tuple[str, int]:
        """Accept sessions over TCP too, until the node stops.

        Args:
            host: the address to bind; the node's `bind_address` when `None`.
            port: the port to bind, 0 for any.

        Returns:
            the address that it is bound to.

        Raises:
            OSError: the address is taken, or not ours.
            StateError: the node is not running.
            ArgumentError: `host` or `port` is none.
        """
        return await self._listen("stream", host, port, FramedLink)

    async def listen_websocket(
        self,
        host: str | None = None,
        port: int = 0,
        *,
        ssl_context: ssl.SSLContext | None = None,
        path: str | None = None,
        origins: Iterable[Any] = (),
    ) -> tuple[str, int]:
        """Accept sessions over WebSocket too, until the node stops.

        Args:
            host: the address to bind; the node's `bind_address` when `None`.
            port: the port to bind, 0 for any.
            ssl_context: with one it is `wss://`, and the context must hold a certificate and its key.
            path: the path of the URL, `"/stt"` say, that must be asked for; any when `None`.
            origins: web pages that may connect: `"https://example.org"`, or compiled patterns. Whoever sends no
                `Origin` is no browser, and may.

        Returns:
            the address that it is bound to.

        Raises:
            OSError: the address is taken, or not ours.
            StateError: the node is not running.
            ArgumentError: an argument is none.
        """
        return await self._listen("ws", host, port, server_links(ssl_context, path, origins))

    async def _listen_as_configured(self) -> None:
        """Bind what the configuration says, where that is not UDP."""
        config = self.config
        if config.transport == "tcp":
            self._listens_at = await self.listen_tcp(config.bind_address, config.port)
        elif config.transport == "websocket":
            context = None
            if config.tls_cert is not None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(config.tls_cert, config.tls_key)
            self._listens_at = await self.listen_websocket(config.bind_address, config.port, ssl_context=context)

    async def _listen(self, name: str, host: str | None, port: int, make_link: Any) -> tuple[str, int]:
        check_listen(host, port)
        carrier = self._connections(name)
        await carrier.ready()
        found = await anyio.getaddrinfo(host or self.config.bind_address, port, type=1)
        sock = listen_tcp(found[0][0], found[0][4], self.config.reuse_port)
        bound = sock.getsockname()
        carrier.listen(sock, make_link)
        return bound[0], bound[1]

    async def serve_stream(self, stream: ByteStream) -> None:
        """Be dialled over an open byte stream, which belongs to the node from now on; returns when it has ended."""
        await self._connections("stream").serve_stream(stream, FramedLink)

    async def serve_listener(self, listener: Listener[ByteStream]) -> None:
        """Be dialled over whatever a listener of anyio accepts (TCP, Unix sockets, TLS); until it is closed."""
        await self._connections("stream").serve_listener(listener, FramedLink)

    async def take_websocket(self, connection: TaskConnection) -> bool:
        """Be dialled on a WebSocket that somebody else speaks (see `stt_anyio.asgi`); returns when it has ended.

        Returns:
            whether there was room for it.
        """
        return await self._connections("ws").serve(connection)

    def _connections(self, name: str) -> ConnectionCarrier:
        """One of the carriers that every node has.

        Raises:
            StateError: the node is not running, or has a carrier of that name which is somebody else's.
        """
        carrier = self._carriers.get(name) if self.running else None
        if not isinstance(carrier, ConnectionCarrier):
            raise StateError(
                "the node is not running" if carrier is None else f"carrier {name!r} is not the node's own"
            )
        return carrier
