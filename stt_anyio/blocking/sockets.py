"""The sockets of a blocking node: what the pump sends through, and what waiting waits for."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable
from typing import Any

from stt_anyio.udp import SocketPool, UdpSocket
from stt_proto.types import NetworkPath, Transmit

LONG = 86_400.0
"""Seconds that the system is asked to wait at most: it refuses what does not fit into its clocks. Who waits for longer
asks again."""


class Sockets:
    """The UDP sockets, what else is waited for, and a bell that ends the waiting.

    Attributes:
        pool: the sockets.
        blocked: the one that was full when it was last sent to.
    """

    per_path = False

    def __init__(self, first: UdpSocket) -> None:
        self.pool = SocketPool(first)
        self._gone: list[UdpSocket] = []
        self.blocked: UdpSocket | None = None
        self._selector = selectors.DefaultSelector()
        try:
            self._bell, self._ear = socket.socketpair()
        except BaseException:
            self._selector.close()
            raise
        self._bell.setblocking(False)
        self._ear.setblocking(False)
        self._selector.register(first, selectors.EVENT_READ, first)
        self._selector.register(self._ear, selectors.EVENT_READ, None)
        self._watched: dict[int, dict[int, Callable[[], None]]] = {}

    @property
    def all(self) -> list[UdpSocket]:
        """The UDP sockets, the node's own first."""
        return self.pool.all

    @property
    def joins_runs(self) -> bool:
        """Whether runs of datagrams go out in one call."""
        return self.pool.all[0].segmentation

    def listen_to(self, sock: UdpSocket) -> None:
        """Wait for what comes in on one more socket of the pool."""
        self._selector.register(sock, selectors.EVENT_READ, sock)
        self.ring()

    def drop(self, sock: UdpSocket | None) -> None:
        """Nobody needs a socket: wait for nothing on it. It is closed by `sweep`, since a thread may be using it."""
        if sock is not None:
            self._selector.unregister(sock)
            self._gone.append(sock)
            self.ring()

    def sweep(self) -> None:
        """Close what was dropped."""
        while self._gone:
            self._gone.pop().close()

    def send(self, transmit: Transmit) -> Transmit | None:
        """See `Carrier.send`."""
        sock = self.pool.owner(transmit.path.local)
        if sock is None:
            return None  # lost with its socket
        left = sock.send(transmit)
        if left is not None:
            self.blocked = sock
            self._selector.modify(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, sock)
            self.ring()
        return left

    def check_path(self, path: NetworkPath) -> None:
        """See that an address can be sent to."""
        self.pool.check_path(path)

    def path_used(self, path: NetworkPath) -> None:
        """A session uses a path."""
        self.pool.path_used(path)

    def path_unused(self, path: NetworkPath) -> None:
        """A session, or an attempt to get there, uses it no more."""
        self.drop(self.pool.path_unused(path))

    def watch(self, file: Any, event: int, call: Callable[[], None]) -> None:
        """Have something done when a file, or a descriptor, can be read or written."""
        number = file if isinstance(file, int) else file.fileno()
        calls = self._watched.get(number)
        if calls is None:
            calls = self._watched[number] = {event: call}
            self._selector.register(number, event, calls)
        else:
            calls[event] = call
            self._selector.modify(number, sum(calls), calls)
        self.ring()

    def unwatch(self, file: Any, event: int) -> None:
        """Do so no more, if it was."""
        number = file if isinstance(file, int) else file.fileno()
        calls = self._watched.get(number, {})
        if calls.pop(event, None) is None:
            return
        if calls:
            self._selector.modify(number, sum(calls), calls)
        else:
            del self._watched[number]
            self._selector.unregister(number)

    def forget(self, file: Any) -> None:
        """Wait for nothing of a file any more, which is about to be closed."""
        number = file if isinstance(file, int) else file.fileno()
        if self._watched.pop(number, None) is not None:
            self._selector.unregister(number)

    def unblock(self, writable: bool) -> bool:
        """Whether what was kept can be offered again: the socket that was full has room, or is gone."""
        sock = self.blocked
        if sock is None:
            return False
        if sock in self.pool.all:
            if not writable:
                return False
            self._selector.modify(sock, selectors.EVENT_READ, sock)
        self.blocked = None
        return True

    def wait(self, seconds: float) -> tuple[list[UdpSocket], bool, list[Callable[[], None]]]:
        """Wait for something to read, for room where it was missing, for a ring, or for so long.

        Returns:
            the sockets that can be read, whether there is room, and what is to be done for what else is watched.
        """
        readable: list[UdpSocket] = []
        writable = False
        calls: list[Callable[[], None]] = []
        for key, events in self._selector.select(min(max(0.0, seconds), LONG)):
            if key.data is None:
                self._drain()
            elif isinstance(key.data, dict):
                watched = key.data
                calls += [call for event, call in tuple(watched.items()) if event & events]
            else:
                if events & selectors.EVENT_READ:
                    readable.append(key.data)
                if events & selectors.EVENT_WRITE:
                    writable = True
        return readable, writable, calls

    def ring(self) -> None:
        """End a `wait` in another thread."""
        try:
            self._bell.send(b"\0")
        except BlockingIOError:
            pass  # it has rung already, very often

    def _drain(self) -> None:
        try:
            while self._ear.recv(4096):
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Give everything back."""
        self._selector.close()
        self._bell.close()
        self._ear.close()
        self.sweep()
        for sock in self.all:
            sock.close()
