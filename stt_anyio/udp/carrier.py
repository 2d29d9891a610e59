"""UDP as a carrier under asyncio and trio."""

from __future__ import annotations

from typing import Any

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from stt_anyio.carrier import Carrier, Port
from stt_anyio.config import NodeConfig
from stt_anyio.errors import StateError
from stt_anyio.loops import when_readable
from stt_anyio.udp.addresses import Resolved, any_of, check_address, look_up, resolve_numeric
from stt_anyio.udp.pool import SocketPool
from stt_anyio.udp.udpsocket import UdpSocket
from stt_proto.types import NetworkPath, Transmit


class UdpCarrier(Carrier):
    """UDP under asyncio and trio: one task that reads and one that waits for room, for each socket.

    A node has one socket. It gets a second, on any port, when it dials an address of the other family, and one more
    for a session that is to go on from another port.

    Attributes:
        pool: the sockets, while there are any.
    """

    name = "udp"

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self.traits = config.udp_traits(never_cut=False)
        self.pool: SocketPool | None = None
        self._closed = False
        self._blocked: dict[UdpSocket, anyio.Event] = {}
        self._scopes: dict[UdpSocket, anyio.CancelScope] = {}
        self._tasks: TaskGroup | None = None
        self._node: Port | None = None

    @property
    def sockets(self) -> list[UdpSocket]:
        """The sockets in use, the node's own first."""
        return [] if self.pool is None else list(self.pool.all)

    @property
    def datagrams_dropped(self) -> int:
        """Datagrams that the system refused to send."""
        return 0 if self.pool is None else self.pool.datagrams_dropped

    @property
    def joins_runs(self) -> bool:
        return self.pool is not None and self.pool.all[0].segmentation

    async def open(self) -> None:
        """Bind exactly the host and port asked for."""
        found = await _look_up(self._config.bind_address, self._config.port)
        self._begin_with(UdpSocket(*found[0], self._config))

    def _begin_with(self, first: UdpSocket) -> None:
        self.pool, self._closed = SocketPool(first), False
        self.traits = self._config.udp_traits(never_cut=first.never_cut)

    def _pool(self) -> SocketPool:
        if self.pool is None:
            raise StateError("the node is not running")
        return self.pool

    def _open_pool(self) -> SocketPool:
        """The sockets, to which one may be added."""
        if self._closed:
            raise StateError("the node was stopped meanwhile")
        return self._pool()

    async def run(self, port: Port) -> None:
        async with anyio.create_task_group() as self._tasks:
            self._node = port
            for sock in self.sockets:
                self._start(sock)

    def _start(self, sock: UdpSocket) -> None:
        if self._tasks is None or self._node is None:
            return  # `run` does
        sock.hint = self._node.path_failed
        sock.too_large = self._node.datagram_refused
        self._blocked[sock] = anyio.Event()
        self._scopes[sock] = anyio.CancelScope()
        self._tasks.start_soon(self._serve, sock, self._node)

    async def _serve(self, sock: UdpSocket, port: Port) -> None:
        """Move what comes in and goes out, until the node stops or the socket is not needed any more."""
        try:
            with self._scopes[sock]:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._wait_for_room, sock, port)
                    await self._read(sock, port)
        finally:
            del self._scopes[sock], self._blocked[sock]
            if sock not in self.sockets:
                sock.close()

    async def _read(self, sock: UdpSocket, port: Port) -> None:
        receive, sink, pump = sock.receive, port.receive, port.pump

        def read() -> None:
            receive(sink)
            pump()

        await when_readable(sock, read)

    async def _wait_for_room(self, sock: UdpSocket, port: Port) -> None:
        while True:
            await self._blocked[sock].wait()
            await anyio.wait_writable(sock)
            self._blocked[sock] = anyio.Event()
            port.writable()

    def send(self, transmit: Transmit) -> Transmit | None:
        sock = self._pool().owner(transmit.path.local)
        if sock is None:
            return None  # lost with its socket
        left = sock.send(transmit)
        if left is not None:
            self._blocked[sock].set()
        return left

    async def path_to(self, address: Any) -> NetworkPath:
        """The path to `(host, port)`; where a name has several addresses, one of the node's own family.

        Raises:
            ArgumentError: `address` is no such pair.
            OSError: the name is unknown.
            StateError: the node was stopped.
        """
        found = await _look_up(*check_address(address))
        pool = self._open_pool()
        family, remote = min(found, key=lambda entry: entry[0] != pool.all[0].family)
        sock = pool.of_family(family)
        if sock is None:
            sock = UdpSocket(family, any_of(family), self._config)
            pool.add(sock)
            self._start(sock)
        return sock.path(remote)

    def path_beside(self, path: NetworkPath) -> NetworkPath:
        """A path to the same peer from a port of its own, which is closed when no session has it any more.

        Raises:
            OSError: the address that the node is bound to is not this machine's any more.
        """
        sock = self._open_pool().open_beside(path, self._config)
        self._start(sock)
        return sock.path(path.remote)  # type: ignore[arg-type]  # an address, as all of this carrier

    def replace_own(self, path: NetworkPath) -> None:
        """Close the socket of the node's own for that of this path, which is the node's own from now on."""
        self._drop(self._pool().replace_own(path))

    def check_path(self, path: NetworkPath) -> None:
        self._pool().check_path(path)

    def path_used(self, path: NetworkPath) -> None:
        self._pool().path_used(path)

    def path_unused(self, path: NetworkPath) -> None:
        if self.pool is not None:
            self._drop(self.pool.path_unused(path))

    def _drop(self, sock: UdpSocket | None) -> None:
        """Nobody needs a socket: its tasks end, and then it is closed."""
        if sock is None:
            return
        blocked = sock in self._blocked and self._blocked[sock].is_set()
        if sock in self._scopes:
            self._scopes[sock].cancel()
        else:
            sock.close()
        if blocked and self._node is not None:
            self._node.writable()  # what was kept for it is lost

    def close(self) -> None:
        self._closed = True
        self._tasks = self._node = None
        for sock in self.sockets:
            if sock.fileno() >= 0:
                anyio.notify_closing(sock)
                sock.close()


async def _look_up(host: str, port: int) -> list[Resolved]:
    """`look_up` without holding up the event loop."""
    numeric = resolve_numeric(host, port)
    if numeric is not None:
        await checkpoint()
        return [numeric]
    return await anyio.to_thread.run_sync(look_up, host, port, abandon_on_cancel=True)
