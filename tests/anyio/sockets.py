"""Sockets that fail as planned, and what the tests of UDP do with sockets."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from typing import Any, ClassVar

import pytest

from stt_anyio.udp import UdpSocket
from stt_proto import NetworkPath, Transmit

LOOPBACK = ("127.0.0.1", 0)
linux = pytest.mark.skipif(sys.platform != "linux", reason="the system has no such option")


class Faulty(socket.socket):
    """A socket whose calls fail as planned: each takes the next of its `faults`, and works where that is `None`."""

    faults: ClassVar[dict[str, list[Any]]] = {}

    def _fail(self, call: str) -> None:
        planned = self.faults.get(call)
        if planned and (number := planned.pop(0)) is not None:
            raise OSError(number, "as planned")

    def sendmsg(self, *arguments: Any) -> int:
        self._fail("sendmsg")
        return super().sendmsg(*arguments)

    def recvmsg(self, *arguments: Any) -> Any:
        queued = self.faults.get("queue")
        if queued:
            return b"", [queued.pop(0)], socket.MSG_ERRQUEUE, ("127.0.0.1", 0)
        return super().recvmsg(*arguments)

    def recvmsg_into(self, *arguments: Any) -> Any:
        self._fail("recvmsg_into")
        return super().recvmsg_into(*arguments)

    def setsockopt(self, *arguments: Any) -> None:
        if arguments[:2] in self.faults.get("options", ()):
            raise OSError(errno.ENOPROTOOPT, "as planned")
        super().setsockopt(*arguments)


def received(
    sock: UdpSocket, marks: list[int] | None = None, split: list[bytes] | None = None
) -> list[tuple[bytes, NetworkPath, int | None]]:
    """What one wake-up brings; waits for it, so loopback gets the moment that it needs.

    Marks are added to `marks`, and single datagrams to `split`.
    """
    waited = socket.socket(fileno=socket.dup(sock.fileno()))
    waited.settimeout(5)
    waited.recv(1, socket.MSG_PEEK)
    waited.detach()
    found: list[tuple[bytes, NetworkPath, int | None]] = []

    def sink(data: memoryview, path: NetworkPath, size: int | None, ecn: int) -> None:
        found.append((bytes(data), path, size))
        if marks is not None:
            marks.append(ecn)

    sock.receive(sink)
    if split is not None:
        split += datagrams(found)
    return found


def run_of(path: NetworkPath, *sizes: int) -> Transmit:
    """Datagrams of these sizes, all but the last equal; each holds its number."""
    return Transmit(path, tuple(bytes([number]) * size for number, size in enumerate(sizes)), sizes[0])


def datagrams(found: list[tuple[bytes, NetworkPath, int | None]]) -> list[bytes]:
    """Split runs."""
    split = []
    for data, _, size in found:
        split += [data[start : start + (size or len(data))] for start in range(0, len(data), size or len(data))]
    return split


def complaint(number: int, origin: int, info: int) -> tuple[int, int, bytes]:
    """What Linux puts into the queue of errors of a socket (struct sock_extended_err)."""
    return socket.IPPROTO_IP, 11, struct.pack("=IBBBBII", number, origin, 0, 0, 0, info, 0) + bytes(16)


LOCAL, ICMP = 1, 2
