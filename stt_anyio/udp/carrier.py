"""UDP as a carrier under asyncio and trio."""

from __future__ import annotations

import socket
from typing import Any

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from stt_anyio.carrier import Carrier, Port
from stt_anyio.config import NodeConfig
from stt_anyio.loops import when_readable
from stt_anyio.udp.addresses import Address, Resolved, any_of, check_address, look_up, resolve_numeric
from stt_anyio.udp.udpsocket import UdpSocket, owner_of
from stt_proto.types import NetworkPath, Transmit


class UdpCarrier(Carrier):
    """UDP under asyncio and trio: one task that reads and one that waits for room, for each socket.

    A node has one socket. It gets a second, on any port, when it dials an address of the other family.
    """

    name = "udp"

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self.traits = config.udp_traits(never_cut=False)
        self._sockets: dict[Address, UdpSocket] = {}
        self._first: UdpSocket | None = None
        self._owners: dict[Address, UdpSocket] = {}  # as many as there are addresses of this machine
        self._blocked: dict[UdpSocket, anyio.Event] = {}
        self._tasks: TaskGroup | None = None
        self._node: Port | None = None

    @property
    def sockets(self) -> list[UdpSocket]:
        """The sockets in use, the node's own first."""
        return list(self._sockets.values())

    @property
    def joins_runs(self) -> bool:
        return self._first is not None and self._first.segmentation

    async def open(self) -> None:
        """Bind exactly the host and port asked for."""
        found = await _look_up(self._config.bind_address, self._config.port)
        self._sockets, self._owners = {}, {}
        self._first = first = self._open(*found[0])
        self.traits = self._config.udp_traits(never_cut=first.never_cut)

    def _open(self, family: socket.AddressFamily, address: Address) -> UdpSocket:
        sock = UdpSocket(family, address, self._config)
        self._sockets[sock.local] = sock
        if self._node is not None:
            self._start(sock)
        return sock

    async def run(self, port: Port) -> None:
        async with anyio.create_task_group() as self._tasks:
            self._node = port
            for sock in self.sockets:
                self._start(sock)

    def _start(self, sock: UdpSocket) -> None:
        assert self._tasks is not None
        assert self._node is not None
        sock.hint = self._node.path_failed
        sock.too_large = self._node.datagram_refused
        self._blocked[sock] = anyio.Event()
        self._tasks.start_soon(self._read, sock, self._node)
        self._tasks.start_soon(self._wait_for_room, sock, self._node)

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
        local: Any = transmit.path.local
        sock = self._owners.get(local)
        if sock is None:
            sock = self._owners[local] = owner_of(local, self._sockets.values())
        left = sock.send(transmit)
        if left is not None:
            self._blocked[sock].set()
        return left

    async def path_to(self, address: Any) -> NetworkPath:
        """The path to `(host, port)`; where a name has several addresses, one of the node's own family.

        Raises:
            ArgumentError: `address` is no such pair.
            OSError: the name is unknown.
        """
        found = await _look_up(*check_address(address))
        first = self.sockets[0]
        family, remote = min(found, key=lambda entry: entry[0] != first.family)
        return self._socket_for(family).path(remote)

    def _socket_for(self, family: socket.AddressFamily) -> UdpSocket:
        for sock in self._sockets.values():
            if sock.family == family:
                return sock
        return self._open(family, any_of(family))

    def close(self) -> None:
        self._tasks = self._node = None
        for sock in self._sockets.values():
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
