"""Handing over: datagrams that came to one worker and are another's, over Unix sockets that have no names.

Each worker has an inbox, one end of a pair of datagram sockets, and all others the other end. Nobody but the workers of
one port has either. What is handed over is handed over once: what a worker gets so and is not its own, it drops.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from attrs import define

from stt_anyio.udp import Address, options
from stt_proto.types import Stray

MAX_MESSAGE = 66_000
"""Bytes of one message between workers; one datagram of the largest kind fits."""
BUFFER = 4 << 20
"""Bytes asked for, for what waits in an inbox; systems grant less, Linux `net.core.wmem_max`, and count their own."""
READS_PER_WAKE_UP = 16
"""Messages after which others get their turn."""

_HEAD = struct.Struct(">BBBHIIH")
"""ECN bits, lengths of the address here and of the one there, port, flow and scope of IPv6, length of the datagram."""

Sink = Callable[[bytes, bytes, Address, int], None]
"""Takes a datagram, the address of ours that it came to (packed; empty where the socket has one), where it came from,
and its ECN bits."""


@define
class HandOverCounts:
    """What one worker handed over and was handed.

    Attributes:
        given: datagrams handed to others, one that all were shown counted once for each.
        taken: datagrams that came so.
        dropped: those that were not handed over, the other's inbox being full.
        homeless: those that came so and were not this worker's either, or came to a socket that it has beside the port.
    """

    given: int = 0
    taken: int = 0
    dropped: int = 0
    homeless: int = 0


class HandOver:
    """One worker's end of it: no waiting, no event loop.

    Args:
        family: of the socket that datagrams come from.
        bound: the address that it is bound to.
        inbox: where others put what is this worker's.
        outboxes: the inboxes of all workers, by index; `None` in the place of this one.

    Attributes:
        counts: how much of it there was.
    """

    def __init__(
        self,
        family: socket.AddressFamily,
        bound: Address,
        inbox: socket.socket,
        outboxes: list[socket.socket | None],
    ) -> None:
        self._family = family
        self._bound = bound
        self._inbox = inbox
        self._outboxes = outboxes
        self.counts = HandOverCounts()
        inbox.setblocking(False)
        _enlarge(inbox, socket.SO_RCVBUF)
        for outbox in outboxes:
            if outbox is not None:
                outbox.setblocking(False)
                _enlarge(outbox, socket.SO_SNDBUF)

    def fileno(self) -> int:
        """The descriptor of the inbox."""
        return self._inbox.fileno()

    def close(self) -> None:
        """Give the sockets back."""
        self._inbox.close()
        for outbox in self._outboxes:
            if outbox is not None:
                outbox.close()

    def give(self, strays: Iterable[Stray]) -> None:
        """Hand over what is others', several datagrams in a message; what does not fit into an inbox is lost."""
        waiting: dict[int, list[bytes]] = {}
        for stray in strays:
            record = self._record(stray)
            for index in range(len(self._outboxes)) if stray.worker is None else (stray.worker,):
                if self._outboxes[index] is not None:
                    waiting.setdefault(index, []).append(record)
        for index, records in waiting.items():
            self._send(self._outboxes[index], records)

    def drop(self, strays: Iterable[Stray]) -> None:
        """Forget what is nobody's: it was handed over already, or did not come to the port that all share."""
        self.counts.homeless += sum(1 for _ in strays)

    def _record(self, stray: Stray) -> bytes:
        local: Any = stray.path.local
        remote: Any = stray.path.remote
        here = b"" if local == self._bound else local[0].encode()
        there = remote[0].encode()
        flow, scope = remote[2:] if len(remote) > 2 else (0, 0)
        head = _HEAD.pack(stray.ecn, len(here), len(there), remote[1], flow, scope, len(stray.datagram))
        return b"".join((head, here, there, stray.datagram))

    def _send(self, outbox: Any, records: list[bytes]) -> None:
        for message in _gathered(records):
            try:
                outbox.send(b"".join(message))
            except OSError:  # full; or the machine has no memory for it
                self.counts.dropped += len(message)
            else:
                self.counts.given += len(message)

    def take(self, sink: Sink) -> None:
        """Give what others have handed over to `sink`."""
        for _ in range(READS_PER_WAKE_UP):
            try:
                message = self._inbox.recv(MAX_MESSAGE)
            except BlockingIOError:
                return
            at = 0
            while at < len(message):
                ecn, here_size, there_size, port, flow, scope, size = _HEAD.unpack_from(message, at)
                at += _HEAD.size
                here, at = message[at : at + here_size].decode(), at + here_size
                there, at = message[at : at + there_size].decode(), at + there_size
                remote = (there, port, flow, scope) if self._family == socket.AF_INET6 else (there, port)
                self.counts.taken += 1
                packed = socket.inet_pton(self._family, here) if here else b""
                sink(message[at : at + size], packed, remote, ecn)
                at += size


def _enlarge(sock: socket.socket, option: int) -> None:
    """Ask for a buffer, at both ends: Linux counts at the sender's, BSD and macOS at the reader's, 4 KiB as it is."""
    size = BUFFER
    while not options.try_option(sock, socket.SOL_SOCKET, option, size) and size > MAX_MESSAGE:
        size //= 2  # macOS refuses what is too much


def _gathered(records: list[bytes]) -> Iterator[list[bytes]]:
    """As few messages as will do."""
    message: list[bytes] = []
    size = 0
    for record in records:
        if message and size + len(record) > MAX_MESSAGE:
            yield message
            message, size = [], 0
        message.append(record)
        size += len(record)
    if message:
        yield message
