"""The sockets of a fleet: all bound by the parent, in order, to one port, and kept open over every restart.

The filter names a socket by its place in the group, and the places are those in which the sockets were bound. As the
parent keeps a copy of each, no place changes when a worker dies, and what comes for it waits until its successor reads.
"""

from __future__ import annotations

import socket
from enum import StrEnum

from stt_anyio.udp import Address
from stt_anyio.workers.filter import attach, program
from stt_proto import WorkerIds


class Routing(StrEnum):
    """How a datagram gets to the worker whose it is.

    `FILTER`: the kernel computes whose it is. `HAND_OVER`: the kernel gives it to any, who hands it over if it is
    another's. `SINGLE`: there is one worker.
    """

    FILTER = "filter"
    HAND_OVER = "hand-over"
    SINGLE = "single"


def can_share() -> bool:
    """Whether processes can share a port here, and hand over what is another's."""
    return hasattr(socket, "SO_REUSEPORT") and hasattr(socket, "AF_UNIX")


class SharedPort:
    """The sockets that workers are given.

    Args:
        family, address: where to bind.
        ids: of any of the workers; says how many there are.

    Attributes:
        local: the address that all are bound to.
        routing: how a datagram gets to its worker.
        sockets: one for each worker.
        inboxes: where each reads what was handed over.
        outboxes: the other ends.

    Raises:
        OSError: the address is taken, or not ours.
    """

    def __init__(self, family: socket.AddressFamily, address: Address, ids: WorkerIds) -> None:
        self.sockets: list[socket.socket] = []
        self.inboxes: list[socket.socket] = []
        self.outboxes: list[socket.socket] = []
        self.routing = Routing.SINGLE
        try:
            for _ in range(ids.count):
                sock = socket.socket(family, socket.SOCK_DGRAM)
                self.sockets.append(sock)
                self._bind(sock, address, ids)
                address = sock.getsockname()
                inbox, outbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
                self.inboxes.append(inbox)
                self.outboxes.append(outbox)
        except BaseException:
            self.close()
            raise
        self.local: Address = address

    def _bind(self, sock: socket.socket, address: Address, ids: WorkerIds) -> None:
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if ids.count > 1:
            if len(self.sockets) == 1:
                _refuse_taken(sock.family, address)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        if ids.count > 1 and len(self.sockets) == 1:  # before there is a second, to which something could go astray
            self.routing = Routing.FILTER if attach(sock, program(ids)) else Routing.HAND_OVER

    def close(self) -> None:
        """Give all of them back."""
        for sock in (*self.sockets, *self.inboxes, *self.outboxes):
            sock.close()


def _refuse_taken(family: socket.AddressFamily, address: Address) -> None:
    """Fail where somebody else of ours has the port, shared or not: he would have the first places of the group."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        probe.bind(address)
