"""UDP: batches in, segments out, on a non-blocking socket of our own.

Where the system can, one call sends a run of datagrams of one size (`UDP_SEGMENT`) and one call receives one
(`UDP_GRO`). Both are Linux's; both are asked for when the socket is made and given up when the system changes its
mind. Elsewhere it is one call a datagram, and where there is no `recvmsg` (Windows) `recvfrom_into`.

`UdpSocket` never waits and belongs to no event loop; `UdpCarrier` is the waiting, for asyncio and trio.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from stt_anyio.carrier import Carrier, Port
from stt_anyio.config import NodeConfig
from stt_anyio.errors import ArgumentError
from stt_proto.config import CARRIERS
from stt_proto.types import CarrierTraits, NetworkPath, Transmit

READS_PER_WAKE_UP = 16
"""Reads after which others get their turn, though the socket has more."""
ERRORS_AT_ONCE = 64
"""Complaints of the system that are read in a row."""
MAX_PATHS = 4096
"""Paths that are remembered twice over; forgetting one costs a new object, nothing else."""
_MAX_DATAGRAM = 65_535

# Linux; the standard library names none of these.
_SOL_UDP = 17
_UDP_SEGMENT = 103
_UDP_GRO = 104
_ERRORS_QUEUED = {socket.AF_INET: (socket.IPPROTO_IP, 11), socket.AF_INET6: (socket.IPPROTO_IPV6, 25)}
_LINUX = sys.platform == "linux"

_UNREACHABLE = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "refused",  # what Windows makes of "port unreachable"
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.EADDRNOTAVAIL: "unreachable",
}
"""Hints about one path, which end nothing but an attempt to connect."""
_FATAL = frozenset({errno.EBADF, errno.ENETDOWN, errno.ENOTSOCK})
"""The socket is of no use any more."""
_NO_SEGMENTATION = frozenset({errno.EIO, errno.EINVAL})
"""What Linux says when the way out of the machine cannot segment after all."""

Sink = Callable[[memoryview, NetworkPath, "int | None"], None]
Hint = Callable[[NetworkPath, str], None]
Address = tuple[Any, ...]
Resolved = tuple[socket.AddressFamily, Address]


def check_address(address: Any) -> tuple[str, int]:
    """An address to dial: `(host, port)`, or the longer tuple that sockets give for IPv6.

    Raises:
        ArgumentError: it is none.
    """
    match address:
        case (str(host), int(port)) if host and 1 <= port <= 65_535:
            return host, port
        case (str(host), int(port), int(), int(scope)) if host and 1 <= port <= 65_535:
            return f"{host}%{scope}" if scope else host, port
    raise ArgumentError(f"address is {address!r}; it must be (host, port), the port 1 to 65,535", argument="address")


def any_of(family: socket.AddressFamily) -> Address:
    """Any address and port of a family."""
    return ("::" if family == socket.AF_INET6 else "0.0.0.0", 0)


def resolve_numeric(host: str, port: int) -> Resolved | None:
    """The address that `host` already is, or `None` when it is a name that must be looked up."""
    try:
        return look_up(host, port, socket.AI_NUMERICHOST | socket.AI_NUMERICSERV)[0]
    except OSError:
        return None


def look_up(host: str, port: int, flags: int = 0) -> list[Resolved]:
    """The addresses of a host, by name or number, in the form in which packets come from them. May take seconds.

    Raises:
        OSError: there is no such name.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=flags)
    except ValueError as error:
        raise OSError(f"{host!r} cannot be the name of a host") from error
    return [(entry[0], entry[4]) for entry in found]


class UdpSocket:
    """One socket: no waiting, no event loop.

    Args:
        family: IPv4 or IPv6; an IPv6 socket carries IPv6 only.
        address: where to bind.
        config: its `reuse_port` and sizes of buffers, of which the system may grant less.

    Attributes:
        local: the address it is bound to.
        segmentation: whether runs of datagrams are sent in one call.
        coalescing: whether runs of datagrams are received in one call.
        granted: bytes of receive buffer that the system granted.
        datagrams_dropped: datagrams that the system refused; to the protocol they are lost.
        hint: called with a path and `"refused"` or `"unreachable"` when the system says so.

    Raises:
        OSError: the address is taken, or not ours.
    """

    def __init__(self, family: socket.AddressFamily, address: Address, config: NodeConfig) -> None:
        self._paths: dict[Address, NetworkPath] = {}
        self._old_paths: dict[Address, NetworkPath] = {}
        self._segment_options: dict[int, list[tuple[int, int, bytes]]] = {}
        self._view = memoryview(bytearray(_MAX_DATAGRAM))
        self._buffers = [self._view]
        self.datagrams_dropped = 0
        self.hint: Hint = lambda path, reason: None
        self.family = family
        self._socket = sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            if config.reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, config.recv_buffer_size)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, config.send_buffer_size)
            self.segmentation = self._probe(_SOL_UDP, _UDP_SEGMENT, 1200, 0)
            self.coalescing = self._probe(_SOL_UDP, _UDP_GRO, 1)
            self._errors_queued = self._probe(*_ERRORS_QUEUED[family], 1)
            sock.bind(address)
        except BaseException:
            sock.close()
            raise
        self.local: Address = sock.getsockname()
        self.granted = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        self._recvmsg_into = getattr(sock, "recvmsg_into", None)
        self._sendmsg = getattr(sock, "sendmsg", None)

    def _probe(self, level: int, option: int, *values: int) -> bool:
        """Whether this system knows an option, which is set to each value in turn."""
        if not _LINUX:
            return False
        try:
            for value in values:
                self._socket.setsockopt(level, option, value)
        except OSError:
            return False
        return True

    def fileno(self) -> int:
        """The descriptor, or -1 when closed; so the socket can be waited for."""
        return self._socket.fileno()

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    # -- paths -----------------------------------------------------------------------------------------------------

    def path(self, remote: Address) -> NetworkPath:
        """The path to an address: one object for one address, as long as it is in use.

        Two generations of a table stand in for a list of what was used last: what is looked up in the old one moves
        to the new one, and when that is full the old one goes.
        """
        path = self._paths.get(remote)
        if path is None:
            path = self._old_paths.get(remote) or NetworkPath("udp", self.local, remote)
            if len(self._paths) >= MAX_PATHS:
                self._old_paths, self._paths = self._paths, {}
            self._paths[remote] = path
        return path

    # -- in --------------------------------------------------------------------------------------------------------

    def receive(self, sink: Sink) -> int:
        """Hand what has arrived to `sink`, at most `READS_PER_WAKE_UP` reads of it; the memory is used again at once.

        Returns:
            how many reads brought something.

        Raises:
            OSError: the socket is dead.
        """
        view, paths = self._view, self._paths
        for reads in range(READS_PER_WAKE_UP):
            segment_size = None
            try:
                if self._recvmsg_into is not None:
                    size, ancillary, _, remote = self._recvmsg_into(self._buffers, 64)
                    if ancillary:
                        segment_size = _segment_size(ancillary)
                else:
                    size, remote = self._socket.recvfrom_into(view)
            except BlockingIOError:
                if not reads:
                    self._drain_errors()  # which is what woke us
                return reads
            except OSError as error:
                self._on_error(error)
                continue
            sink(view[:size], paths.get(remote) or self.path(remote), segment_size)
        return READS_PER_WAKE_UP

    # -- out -------------------------------------------------------------------------------------------------------

    def send(self, transmit: Transmit) -> Transmit | None:
        """Send at once.

        Returns:
            `None`, or what is left because the socket is full.

        Raises:
            OSError: the socket is dead. What the system refuses for any other reason is dropped: that is loss, and
                recovery knows what to do.
        """
        segment_size = transmit.segment_size
        if segment_size is None:
            return self._send(transmit, ())
        if self.segmentation:
            return self._send(transmit, self._segment_option(segment_size))
        return self._send_singly(transmit)

    def _send(self, transmit: Transmit, options: Sequence[tuple[int, int, bytes]]) -> Transmit | None:
        """One call for all of it, and a second one when the first only brought news of some other path."""
        remote: Any = transmit.path.remote
        for _ in range(2):
            try:
                if self._sendmsg is not None:
                    self._sendmsg(transmit.buffers, options, 0, remote)
                else:
                    self._socket.sendto(b"".join(transmit.buffers), remote)
                return None
            except BlockingIOError:
                return transmit
            except OSError as error:
                if options and error.errno in _NO_SEGMENTATION:
                    self.segmentation = False
                    return self._send_singly(transmit)
                if not self._on_error(error, transmit.path):
                    break
        self.datagrams_dropped += 1
        return None

    def _segment_option(self, segment_size: int) -> list[tuple[int, int, bytes]]:
        option = self._segment_options.get(segment_size)
        if option is None:
            if len(self._segment_options) > 64:
                self._segment_options.clear()
            option = self._segment_options[segment_size] = [(_SOL_UDP, _UDP_SEGMENT, struct.pack("H", segment_size))]
        return option

    def _send_singly(self, transmit: Transmit) -> Transmit | None:
        """One call a datagram."""
        path, datagrams = transmit.path, tuple(transmit.datagrams())
        for index, datagram in enumerate(datagrams):
            if self._send(Transmit(path, (datagram,), None, transmit.ecn), ()) is not None:
                return Transmit(path, datagrams[index:], transmit.segment_size, transmit.ecn)
        return None

    # -- what the system complains about ---------------------------------------------------------------------------

    def _on_error(self, error: OSError, path: NetworkPath | None = None) -> bool:
        """Take in an error of a call, which was about `path` if that is known; raise it again if the socket is dead.

        Returns:
            whether it was news that had waited here, so that the call itself was not even tried.
        """
        if error.errno in _FATAL:
            raise error
        reason = _UNREACHABLE.get(error.errno or 0)
        if reason is None:
            return False
        if self._drain_errors():
            return True
        if path is not None:
            self.hint(path, reason)
        return False

    def _drain_errors(self) -> bool:
        """Read what ICMP told the system, each with the address that it is about (Linux); False when it was nothing."""
        if not self._errors_queued:
            return False
        for number in range(ERRORS_AT_ONCE):
            try:
                _, ancillary, _, remote = self._socket.recvmsg(0, 512, socket.MSG_ERRQUEUE)
            except OSError:
                return number > 0
            for _, _, data in ancillary:
                reason = _UNREACHABLE.get(int.from_bytes(data[:4], sys.byteorder))
                if reason is not None and remote:
                    self.hint(self.path(remote), reason)
        return True


def _segment_size(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    for level, kind, data in ancillary:
        if level == _SOL_UDP and kind == _UDP_GRO:
            return int.from_bytes(data[:2], sys.byteorder)
    return None


class UdpCarrier(Carrier):
    """UDP under asyncio and trio: one task that reads and one that waits for room, for each socket.

    A node has one socket. It gets a second, on any port, when it dials an address of the other family.
    """

    name = "udp"

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        udp = CARRIERS["udp"]
        self.traits = CarrierTraits(udp.reliable, udp.framed, config.datagram_size, udp.overhead)
        self._sockets: dict[Address, UdpSocket] = {}
        self._blocked: dict[UdpSocket, anyio.Event] = {}
        self._tasks: TaskGroup | None = None
        self._node: Port | None = None

    @property
    def sockets(self) -> list[UdpSocket]:
        """The sockets in use, the node's own first."""
        return list(self._sockets.values())

    async def open(self) -> None:
        """Bind exactly the host and port asked for."""
        found = await _look_up(self._config.bind_address, self._config.port)
        self._sockets = {}
        self._open(*found[0])

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
        self._blocked[sock] = anyio.Event()
        self._tasks.start_soon(self._read, sock, self._node)
        self._tasks.start_soon(self._wait_for_room, sock, self._node)

    async def _read(self, sock: UdpSocket, port: Port) -> None:
        receive, sink, pump = sock.receive, port.receive, port.pump
        while True:
            await anyio.wait_readable(sock)
            receive(sink)
            pump()

    async def _wait_for_room(self, sock: UdpSocket, port: Port) -> None:
        while True:
            await self._blocked[sock].wait()
            await anyio.wait_writable(sock)
            self._blocked[sock] = anyio.Event()
            port.writable()

    def send(self, transmit: Transmit) -> Transmit | None:
        sock = self._sockets[transmit.path.local]  # type: ignore[index]
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
