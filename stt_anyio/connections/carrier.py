"""Carriers under asyncio and trio whose paths are connections: one task for each that reads, and one more while it is
full. `"stream"` speaks length frames on TCP and any byte stream, `"ws"` speaks WebSocket.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable
from itertools import count
from typing import Any, ClassVar

import anyio
from anyio.abc import ByteStream, Listener, SocketAttribute, TaskGroup
from attrs import evolve

from stt_anyio.carrier import Carrier, Port
from stt_anyio.config import NodeConfig
from stt_anyio.connections.connection import Connection, Registry
from stt_anyio.connections.dialing import ACCEPT_PAUSE, is_lost, open_tcp
from stt_anyio.connections.sockets import READ_SIZE, SocketConnection, SocketMedium
from stt_anyio.connections.streams import StreamConnection, TaskConnection, close_stream
from stt_anyio.errors import StateError, SttError
from stt_anyio.links import FramedLink, Link, target_of
from stt_anyio.udp.addresses import check_address
from stt_anyio.waiting import Bell
from stt_proto.config import CARRIERS
from stt_proto.types import NetworkPath, Transmit

_logger = logging.getLogger("stt.connections")
_NUMBERS = count(1)


class ConnectionCarrier(Carrier):
    """Connections of one kind.

    Args:
        name: `"stream"` or `"ws"`.
        config: of the node.
    """

    per_path: ClassVar[bool] = True

    def __init__(self, name: str, config: NodeConfig) -> None:
        self.name = name
        self._config = config
        self.traits = CARRIERS[name]
        self.connections = Registry(config.limits, config.handshake_timeout, anyio.current_time, _rearm)
        self._tasks: TaskGroup | None = None
        self._up = Bell()
        self._closed = False
        self._listening: list[socket.socket] = []
        self._view = memoryview(bytearray(READ_SIZE))

    # -- as a carrier ----------------------------------------------------------------------------------------------

    async def run(self, port: Port) -> None:
        self.connections.port, self._closed = port, False
        async with anyio.create_task_group() as self._tasks:
            self._up.ring()
            await anyio.sleep_forever()

    async def ready(self) -> None:
        """Wait until connections can be taken; soon after the node was started they can.

        Raises:
            StateError: the node was stopped.
        """
        while self._tasks is None:
            if self._closed:
                raise StateError("the node was stopped meanwhile")
            await self._up.wait()

    async def path_to(self, address: Any) -> NetworkPath:
        """Open a connection, and wait until what is spoken on it lets packets through.

        Args:
            address: `(host, port)`, or an `anyio.abc.ByteStream`; on `"ws"` a URL or a `WebSocketTarget`.

        Raises:
            ArgumentError: it is none of these.
            OSError: there is no way.
            SttError: whoever answered does not speak this; the class says what.
        """
        if self.name == "ws":
            target = target_of(address)
            if target.proxy is None and self._config.proxy is not None:
                target = evolve(target, proxy=self._config.proxy, proxy_auth=self._config.proxy_auth)
            return await self._dial(*target.next_hop, target.make_link())
        if isinstance(address, ByteStream):
            return await self._open(self._over(address, FramedLink(), stranger=False))
        return await self._dial(*check_address(address), FramedLink())

    async def _dial(self, host: str, port: int, link: Link) -> NetworkPath:
        medium = SocketMedium(await open_tcp(host, port))
        try:
            sock = medium.socket
            path = NetworkPath(self.name, sock.getsockname(), sock.getpeername())
        except BaseException:
            medium.close()
            raise
        return await self._open(SocketConnection(link, path, medium, stranger=False))

    async def _open(self, connection: SocketConnection | TaskConnection) -> NetworkPath:
        """Begin, and wait until packets can pass."""
        opened = anyio.Event()
        connection.waiter = opened.set
        try:
            await self.ready()
            self.begin(connection)
            await opened.wait()
        except BaseException:
            connection.close() if connection.registry is not None else connection.release()
            raise
        if connection.over or not connection.link.open:
            failure = connection.link.failure
            raise failure if failure is not None else OSError(errno.ECONNRESET, "the connection was closed")
        return connection.path

    def path_used(self, path: NetworkPath) -> None:
        self.connections.path_used(path)

    def path_unused(self, path: NetworkPath) -> None:
        self.connections.path_unused(path)

    def send(self, transmit: Transmit) -> Transmit | None:
        return self.connections.send(transmit)

    def close(self) -> None:
        self.connections.close()
        for sock in self._listening:
            if sock.fileno() >= 0:
                anyio.notify_closing(sock)
                sock.close()
        self._listening.clear()
        self._tasks, self._closed = None, True
        self._up.ring()

    # -- connections -----------------------------------------------------------------------------------------------

    def begin(self, connection: SocketConnection | TaskConnection) -> bool:
        """Take a connection into service.

        Returns:
            whether there was room for it; if not, it is closed.
        """
        if self._tasks is None:
            raise StateError("the node is not running")
        if not self.connections.add(connection):
            connection.over = True
            connection.release()
            return False
        connection.link.start()
        self._tasks.start_soon(self._serve, connection)
        return True

    async def _serve(self, connection: SocketConnection | TaskConnection) -> None:
        """Move the bytes of a connection until it has ended, or its time is over."""
        try:
            with anyio.CancelScope(deadline=connection.deadline) as connection.host:
                connection.look()
                if isinstance(connection, SocketConnection):
                    await self._read(connection)
                else:
                    await connection.run()
        finally:
            connection.close("the connection was given up")

    async def _read(self, connection: SocketConnection) -> None:
        medium, view, pump = connection.medium, self._view, self.connections.port.pump
        connection.on_blocked = self._on_blocked
        connection.on_released = _notify
        connection.flush()
        try:
            while not connection.over:
                await anyio.wait_readable(medium.reads)
                connection.read(view)
                pump()
        except (anyio.ClosedResourceError, anyio.BusyResourceError):
            pass

    def _on_blocked(self, connection: SocketConnection) -> None:
        if self._tasks is not None:
            self._tasks.start_soon(self._await_room, connection)

    async def _await_room(self, connection: SocketConnection) -> None:
        """Go on writing when there is room, until nothing waits any more."""
        try:
            while not connection.over:
                await anyio.wait_writable(connection.medium.writes)
                if connection.go_on():
                    return
        except anyio.ClosedResourceError:
            pass

    # -- what others open ------------------------------------------------------------------------------------------

    def _over(self, stream: ByteStream, link: Link, *, stranger: bool) -> StreamConnection:
        """A byte stream as a connection."""
        return StreamConnection(link, _path_of(self.name, stream), stream, stranger=stranger)

    async def serve_stream(self, stream: ByteStream, make_link: Callable[[], Link]) -> None:
        """Be dialled on a byte stream; returns when it has ended."""
        if not await self.serve(self._over(stream, make_link(), stranger=True)):
            await close_stream(lambda: anyio.aclose_forcefully(stream))

    async def serve(self, connection: TaskConnection) -> bool:
        """Be dialled on a connection, in this task; returns when it has ended.

        Returns:
            whether there was room for it.
        """
        if self._tasks is None or not self.connections.add(connection):
            return False
        connection.link.start()
        await self._serve(connection)
        return True

    async def serve_listener(self, listener: Listener[Any], make_link: Callable[[], Link]) -> None:
        """Take what a listener accepts, until it ends."""
        async with listener:
            await listener.serve(lambda stream: self.serve_stream(stream, make_link))

    def listen(self, sock: socket.socket, make_link: Callable[[], Link]) -> None:
        """Take what a listening socket accepts, until the node stops."""
        if self._tasks is None:
            sock.close()
            raise StateError("the node is not running")
        self._listening.append(sock)
        self._tasks.start_soon(self._accept, sock, make_link)

    async def _accept(self, sock: socket.socket, make_link: Callable[[], Link]) -> None:
        local = sock.getsockname()
        while True:
            try:
                await anyio.wait_readable(sock)
                accepted, remote = sock.accept()
            except BlockingIOError:
                continue
            except anyio.ClosedResourceError:
                return
            except OSError as error:  # too many open files, or one that was gone before it was accepted
                if sock.fileno() < 0:
                    return
                _logger.warning("cannot accept: %s", error)
                if not is_lost(error):
                    await anyio.sleep(ACCEPT_PAUSE)
                continue
            try:
                medium = SocketMedium(accepted)
                path = NetworkPath(self.name, accepted.getsockname() or local, remote or ("local", next(_NUMBERS)))
                self.begin(SocketConnection(make_link(), path, medium, stranger=True))
            except (OSError, SttError) as error:
                accepted.close()
                _logger.info("a connection was not taken: %s", error)


def _rearm(connection: Connection) -> None:
    if connection.host is not None:
        connection.host.deadline = connection.deadline


def _notify(connection: SocketConnection) -> None:
    """Wake who waits for a socket that is being closed."""
    for waited in connection.medium.waited:
        anyio.notify_closing(waited)


def _path_of(carrier: str, stream: ByteStream) -> NetworkPath:
    """A path for a byte stream; where it does not tell addresses, with a number in their place."""
    local = stream.extra(SocketAttribute.local_address, None)
    remote = stream.extra(SocketAttribute.remote_address, None)
    if not (isinstance(remote, tuple) and isinstance(local, tuple)):
        number = next(_NUMBERS)
        local, remote = ("local", number), ("local", number)
    return NetworkPath(carrier, local, remote)
