"""The sockets of a blocking node: what the pump sends through, and what waiting waits for."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable
from math import inf
from typing import Any

from stt_anyio.udp import UdpSocket, owner_of
from stt_proto.types import NetworkPath, Transmit


class Sockets:
    """One or two UDP sockets, what else is waited for, and a bell that ends the waiting.

    Attributes:
        all: the sockets, the node's own first.
        blocked: the one that was full when it was last sent to.
    """

    per_path = False

    def __init__(self, first: UdpSocket) -> None:
        self.all = [first]
        self.blocked: UdpSocket | None = None
        self._by_address: dict[Any, UdpSocket] = {first.local: first}
        self._selector = selectors.DefaultSelector()
        self._selector.register(first, selectors.EVENT_READ, first)
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._ear.setblocking(False)
        self._selector.register(self._ear, selectors.EVENT_READ, None)
        self._watched: dict[int, dict[int, Callable[[], None]]] = {}

    @property
    def joins_runs(self) -> bool:
        """Whether runs of datagrams go out in one call."""
        return self.all[0].segmentation

    def add(self, sock: UdpSocket) -> None:
        """Use one more socket."""
        self.all.append(sock)
        self._by_address[sock.local] = sock
        self._selector.register(sock, selectors.EVENT_READ, sock)
        self.ring()

    def send(self, transmit: Transmit) -> Transmit | None:
        """See `Carrier.send`."""
        local: Any = transmit.path.local
        sock = self._by_address.get(local)
        if sock is None:
            sock = self._by_address[local] = owner_of(local, self.all)
        left = sock.send(transmit)
        if left is not None:
            self.blocked = sock
            self._selector.modify(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, sock)
            self.ring()
        return left

    def path_used(self, path: NetworkPath) -> None:
        """Nothing is opened for one path."""

    path_unused = path_used

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

    def unblock(self) -> None:
        """The socket that was full has room again."""
        assert self.blocked is not None
        self._selector.modify(self.blocked, selectors.EVENT_READ, self.blocked)
        self.blocked = None

    def wait(self, seconds: float) -> tuple[list[UdpSocket], bool, list[Callable[[], None]]]:
        """Wait for something to read, for room where it was missing, for a ring, or for so long.

        Returns:
            the sockets that can be read, whether there is room, and what is to be done for what else is watched.
        """
        readable: list[UdpSocket] = []
        writable = False
        calls: list[Callable[[], None]] = []
        for key, events in self._selector.select(None if seconds == inf else max(0.0, seconds)):
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
        for sock in self.all:
            sock.close()
