"""The ways on which a blocking node reaches others, and others reach it, beside UDP."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from stt_anyio.blocking.connections import Connections, medium_of
from stt_anyio.blocking.session import BlockingSession
from stt_anyio.connections import Medium, SocketMedium, listen_tcp
from stt_anyio.errors import SttError, connection_failed
from stt_anyio.links import FramedLink, Link, WebSocketTarget, server_links
from stt_anyio.node_base import NodeBase, no_answer, no_way
from stt_anyio.udp import check_address
from stt_proto import NetworkPath, SessionState

T = TypeVar("T")


class BlockingWays(NodeBase[BlockingSession]):
    """Part of `BlockingNode`."""

    lock: threading.RLock
    _connections: dict[str, Connections]
    _happened: int

    @abstractmethod
    def until(self, attempt: Callable[[], T | None], timeout: float | None = None) -> T: ...

    # -- dialling --------------------------------------------------------------------------------------------------

    def connect_tcp(
        self, host: str, port: int, peer_node_id: bytes | None = None, timeout: float | None = 10.0
    ) -> BlockingSession:
        """`connect` over TCP."""
        host, port = check_address((host, port))
        return self._connect_over("stream", (host, port), FramedLink(), (host, port), peer_node_id, timeout)

    def connect_websocket(
        self, url: str, peer_node_id: bytes | None = None, timeout: float | None = 10.0, **options: Any
    ) -> BlockingSession:
        """`connect` over a WebSocket; see `STTNode.connect_websocket`."""
        target = WebSocketTarget(url=url, **options)
        return self._connect_over("ws", target.next_hop, target.make_link(), url, peer_node_id, timeout)

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
        return self._connect_over("stream", medium_of(stream), FramedLink(), "the stream", peer_node_id, timeout)

    def _connect_over(
        self,
        name: str,
        hop: tuple[str, int] | Medium,
        link: Link,
        address: Any,
        peer_node_id: bytes | None,
        timeout: float | None,
    ) -> BlockingSession:
        """Open a connection, wait until packets can pass, and dial on it."""
        give_up = None if timeout is None else time.monotonic() + timeout
        try:
            medium = hop if isinstance(hop, Medium) else SocketMedium(socket.create_connection(hop, timeout))
        except TimeoutError:
            raise no_answer(hop, timeout) from None
        except OSError as error:
            raise no_way(hop, error) from error
        with self.lock:
            connection = self._connections_of(name).begin(medium, link, stranger=False, waiter=self._stir)
        try:
            self.until(lambda: link.open or connection.told or None, _left(give_up))
        except TimeoutError:
            with self.lock:
                connection.close()
            raise no_answer(address, timeout) from None
        except BaseException:
            with self.lock:
                connection.close()
            raise
        if not link.open:
            if link.failure is not None:
                raise connection_failed(link.failure)
            raise no_way(hop if isinstance(hop, tuple) else address, OSError("the connection was closed"))
        return self._dial(connection.path, address, peer_node_id, _left(give_up))

    def _stir(self) -> None:
        """Something happened that is no event: whoever waits looks again."""
        self._happened += 1

    def _dial(
        self, path: NetworkPath, address: Any, peer_node_id: bytes | None, timeout: float | None
    ) -> BlockingSession:
        """Dial on a path, and wait for the session."""
        with self.lock:
            driver = self.driver
            try:
                core = driver.endpoint.connect(path, peer_node_id=peer_node_id, now=driver.clock())
            except SttError as error:
                driver.path_unused(path)
                raise connection_failed(error) from None
            session = BlockingSession(self, core)
            self._dialing[session] = path
            driver.pump()
        try:
            self.until(lambda: session.state not in (SessionState.INIT, SessionState.HANDSHAKING) or None, timeout)
        except TimeoutError:
            session.abort()
            raise no_answer(address, timeout) from None
        except BaseException:
            session.abort()
            raise
        finally:
            del self._dialing[session]
        if session.is_closed:
            raise connection_failed(session.ended())
        return session

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


def _left(give_up: float | None) -> float | None:
    """Seconds until then."""
    return None if give_up is None else max(0.0, give_up - time.monotonic())
