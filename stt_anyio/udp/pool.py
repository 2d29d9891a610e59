"""The UDP sockets of one node, without waiting: where a path begins, and when one is of no use any more."""

from __future__ import annotations

import socket
from typing import Any

from stt_anyio.config import NodeConfig
from stt_anyio.errors import ArgumentError
from stt_anyio.udp.addresses import Address, any_of, check_address, resolve_numeric
from stt_anyio.udp.udpsocket import UdpSocket, owner_of
from stt_proto.types import NetworkPath


class SocketPool:
    """The node's own socket, one more for the other family of addresses, and one for each session that left a port.

    The last go with their last path, unless one has become the node's own.

    Attributes:
        all: those in use, the node's own first.
    """

    def __init__(self, first: UdpSocket) -> None:
        self.all = [first]
        self._owners: dict[Address, UdpSocket] = {}  # as many as there are addresses of this machine
        self._passing: dict[UdpSocket, dict[NetworkPath, int]] = {}  # and how many sessions use each of their paths
        self._dropped = 0

    @property
    def datagrams_dropped(self) -> int:
        """Datagrams that the system refused, on sockets that are gone too."""
        return self._dropped + sum(sock.datagrams_dropped for sock in self.all)

    def owner(self, local: Any) -> UdpSocket | None:
        """The socket of paths that begin at this address; `None` when it is gone."""
        sock = self._owners.get(local)
        if sock is None:
            sock = owner_of(local, self.all)
            if sock is not None:
                self._owners[local] = sock
        return sock

    def check_path(self, path: NetworkPath) -> None:
        """See that a path leads to an address as sockets give it, of the family of the socket where it begins.

        Raises:
            ArgumentError: it does not; `sendto` would look up a name, or raise.
        """
        sock = self.owner(path.local)
        try:
            found = resolve_numeric(*check_address(path.remote))
        except ArgumentError:
            found = None
        if found is None or found[1] != path.remote or (sock is not None and found[0] != sock.family):
            raise ArgumentError(
                f"remote of the path is {path.remote!r}; it must be an address as sockets give it, not a name",
                argument="remote",
            )

    def of_family(self, family: socket.AddressFamily) -> UdpSocket | None:
        """The socket from which addresses of a family are dialled."""
        return next((sock for sock in self.all if sock.family == family and sock not in self._passing), None)

    def add(self, sock: UdpSocket) -> None:
        """Use one more socket, for as long as the node runs."""
        self.all.append(sock)

    def open_beside(self, path: NetworkPath, config: NodeConfig) -> UdpSocket:
        """A socket on a port of its own, from which the peer at the other end of a path can be reached.

        Raises:
            OSError: the address that the node is to be bound to is not ours any more.
        """
        remote: Any = path.remote
        family = socket.AF_INET6 if len(remote) == 4 else socket.AF_INET
        like = self.of_family(family)
        bound = any_of(family) if like is None else like.local
        sock = UdpSocket(family, (bound[0], 0, *bound[2:]), config)
        self.all.append(sock)
        self._passing[sock] = {}
        return sock

    def replace_own(self, path: NetworkPath) -> UdpSocket | None:
        """Make the socket of a path the node's own, if that is of the same family; give the one that was."""
        first, sock = self.all[0], self.owner(path.local)
        if sock is None or sock is first or sock.family != first.family:
            return None
        self._passing.pop(sock, None)
        self.all.remove(sock)
        self.all.insert(0, sock)
        self.remove(first)
        return first

    def remove(self, sock: UdpSocket) -> None:
        """Use a socket no more; who has it closes it."""
        self._dropped += sock.datagrams_dropped
        self.all.remove(sock)
        self._passing.pop(sock, None)
        for local in [local for local, owner in self._owners.items() if owner is sock]:
            del self._owners[local]

    # -- who needs it --------------------------------------------------------------------------------------------------

    def path_used(self, path: NetworkPath) -> None:
        """A session uses a path."""
        users = self._users_of(path)
        if users is not None:
            users[path] = users.get(path, 0) + 1

    def path_unused(self, path: NetworkPath) -> UdpSocket | None:
        """A session, or an attempt to get there, uses it no more; give the socket that went with it, to be closed."""
        users, sock = self._users_of(path), self.owner(path.local)
        if users is None or sock is None:
            return None
        left = users.pop(path, 0) - 1
        if left > 0:
            users[path] = left
        if users:
            return None
        self.remove(sock)
        return sock

    def _users_of(self, path: NetworkPath) -> dict[NetworkPath, int] | None:
        if not self._passing:
            return None
        sock = self.owner(path.local)
        return None if sock is None else self._passing.get(sock)
