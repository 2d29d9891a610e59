"""The connections of a blocking node: TCP, WebSocket, sockets and pairs of files that the program opened itself."""

from __future__ import annotations

import logging
import selectors
import socket
import time
from collections.abc import Callable
from itertools import count
from math import inf
from typing import Any

from stt_anyio.blocking.sockets import Sockets
from stt_anyio.config import NodeConfig
from stt_anyio.connections import (
    ACCEPT_PAUSE,
    FileMedium,
    Medium,
    Registry,
    SocketConnection,
    SocketMedium,
    is_lost,
)
from stt_anyio.connections.sockets import READ_SIZE
from stt_anyio.errors import ArgumentError, SttError
from stt_anyio.links import Link
from stt_proto.types import NetworkPath, Transmit

_logger = logging.getLogger("stt.connections")
_NUMBERS = count(1)
_ACCEPTS_AT_ONCE = 64
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Connections:
    """Connections of one kind, an outlet of the pump; every call is made with the node's lock held.

    Args:
        name: `"stream"` or `"ws"`.
        config: of the node.
        sockets: where it is waited for them.
    """

    per_path = True
    joins_runs = False

    def __init__(self, name: str, config: NodeConfig, sockets: Sockets) -> None:
        self.name = name
        self.registry = Registry(config.limits, config.handshake_timeout, time.monotonic, lambda _: sockets.ring())
        self.send: Callable[[Transmit], Transmit | None] = self.registry.send
        self.path_used = self.registry.path_used
        self.path_unused = self.registry.path_unused
        self._sockets = sockets
        self._listening: dict[socket.socket, Callable[[], Link]] = {}
        self._paused: dict[socket.socket, float] = {}  # those that cannot accept now, and when to try again
        self._view = memoryview(bytearray(READ_SIZE))

    def check_path(self, path: NetworkPath) -> None:
        """What goes where there is no connection is lost, whatever that is."""

    def begin(self, medium: Medium, link: Link, *, stranger: bool, waiter: Callable[[], None] | None = None) -> Any:
        """Take a connection into service; give it, or `None` when there are too many of strangers."""
        connection = SocketConnection(link, self._path_of(medium), medium, stranger=stranger)
        connection.waiter = waiter
        if not self.registry.add(connection):
            medium.close()
            return None
        connection.on_blocked = self._on_blocked
        connection.on_written = self._on_written
        connection.on_released = self._on_released
        self._sockets.watch(medium.reads, _READ, lambda: connection.read(self._view))
        link.start()
        connection.flush()
        connection.look()
        return connection

    def _path_of(self, medium: Medium) -> NetworkPath:
        local: Any = None
        remote: Any = None
        if isinstance(medium, SocketMedium):
            local, remote = medium.socket.getsockname(), medium.socket.getpeername()
        if not (isinstance(local, tuple) and isinstance(remote, tuple)):
            local = remote = ("local", next(_NUMBERS))
        return NetworkPath(self.name, local, remote)

    def _on_blocked(self, connection: SocketConnection) -> None:
        def go_on() -> None:
            if connection.go_on() and not (connection.blocked or connection.over):
                self._on_written(connection)

        self._sockets.watch(connection.medium.writes, _WRITE, go_on)

    def _on_written(self, connection: SocketConnection) -> None:
        if connection.medium.writes in connection.medium.waited:
            self._sockets.unwatch(connection.medium.writes, _WRITE)

    def _on_released(self, connection: SocketConnection) -> None:
        for waited in connection.medium.waited:
            self._sockets.forget(waited)

    def listen(self, sock: socket.socket, make_link: Callable[[], Link]) -> None:
        """Take what a listening socket accepts, until the node stops."""
        self._listening[sock] = make_link
        self._sockets.watch(sock, _READ, lambda: self._accept(sock))

    def _accept(self, sock: socket.socket) -> None:
        make_link = self._listening[sock]
        for _ in range(_ACCEPTS_AT_ONCE):
            try:
                accepted, _ = sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                _logger.warning("cannot accept: %s", error)
                if is_lost(error):
                    continue
                self._sockets.unwatch(sock, _READ)  # who waits is still there, and would wake us without end
                self._paused[sock] = time.monotonic() + ACCEPT_PAUSE
                return
            try:
                self.begin(SocketMedium(accepted), make_link(), stranger=True)
            except (OSError, SttError) as error:
                accepted.close()
                _logger.info("a connection was not taken: %s", error)

    @property
    def deadline(self) -> float:
        """When `expire` wants to be called."""
        return min((*(connection.deadline for connection in self.registry.timed), *self._paused.values()), default=inf)

    def expire(self) -> None:
        """Do what is due."""
        self.registry.expire()
        if self._paused:
            now = time.monotonic()
            for sock in [sock for sock, until in self._paused.items() if until <= now]:
                del self._paused[sock]
                self.listen(sock, self._listening[sock])

    def close(self) -> None:
        """End everything."""
        self.registry.close()
        for sock in self._listening:
            self._sockets.forget(sock)
            sock.close()
        self._listening.clear()
        self._paused.clear()


def medium_of(stream: Any) -> Medium:
    """What the program has opened: a connected socket, or a pair of files to read from and to write to.

    Raises:
        ArgumentError: it is none of these.
        OSError: it cannot be made not to block.
    """
    if isinstance(stream, socket.socket):
        return SocketMedium(stream)
    match stream:
        case (reads, writes) if hasattr(reads, "fileno") and hasattr(writes, "fileno"):
            return FileMedium(reads, writes)
    raise ArgumentError(f"stream is {stream!r}; it must be a socket or a pair of files", argument="stream")
