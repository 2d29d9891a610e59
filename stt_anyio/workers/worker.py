"""What is different about a node that shares its port with others: its socket is given to it, and it has an inbox."""

from __future__ import annotations

import socket
from typing import Any

from anyio import create_task_group, notify_closing
from anyio.lowlevel import checkpoint
from attrs import evolve, frozen

from stt_anyio.carrier import Port
from stt_anyio.config import NodeConfig
from stt_anyio.driver import Driver
from stt_anyio.loops import when_readable
from stt_anyio.node import STTNode
from stt_anyio.udp import Address, UdpCarrier, UdpSocket
from stt_anyio.workers.handover import HandOver
from stt_proto import NetworkPath, WorkerIds


@frozen(eq=False)
class Place:
    """Where a worker stands among the others.

    Attributes:
        ids: which connection IDs are its own.
        sock: its socket, bound to the port that all share.
        inbox: where others hand over what is its own.
        outboxes: the inboxes of all workers, by index; `None` in its own place.
    """

    ids: WorkerIds
    sock: socket.socket
    inbox: socket.socket
    outboxes: list[socket.socket | None]


class SharedUdpCarrier(UdpCarrier):
    """UDP on a port that several processes share.

    Attributes:
        hand_over: what is exchanged with the others.
    """

    def __init__(self, config: NodeConfig, place: Place) -> None:
        super().__init__(config)
        self._place = place
        self.hand_over = HandOver(place.sock.family, place.sock.getsockname(), place.inbox, place.outboxes)

    async def open(self) -> None:
        """Take the socket that was given."""
        sock = self._place.sock
        await checkpoint()
        self._begin_with(UdpSocket(sock.family, sock.getsockname(), self._config, sock))

    async def run(self, port: Port) -> None:
        assert isinstance(port, Driver)
        async with create_task_group() as tasks:
            tasks.start_soon(self._read_inbox, self.sockets[0], port)
            tasks.start_soon(super().run, port)

    async def _read(self, sock: UdpSocket, port: Port) -> None:
        assert isinstance(port, Driver)
        receive, sink, pump, endpoint = sock.receive, port.receive, port.pump, port.endpoint
        give = self.hand_over.give if sock is self.sockets[0] else self.hand_over.drop

        def read() -> None:
            receive(sink)
            if endpoint.has_strays:
                give(endpoint.strays())
            pump()

        await when_readable(sock, read)

    async def _read_inbox(self, sock: UdpSocket, port: Driver) -> None:
        hand_over, endpoint = self.hand_over, port.endpoint

        def sink(datagram: bytes, here: bytes, remote: Address, ecn: int) -> None:
            port.receive(datagram, sock.path_between(here, remote) if here else sock.path(remote), None, ecn)

        def read() -> None:
            hand_over.take(sink)
            hand_over.drop(endpoint.strays())  # never handed over a second time
            port.pump()

        await when_readable(hand_over, read)

    def replace_own(self, path: NetworkPath) -> None:
        """Nothing: the port is not this worker's to leave."""

    def close(self) -> None:
        super().close()
        if self.hand_over.fileno() >= 0:
            notify_closing(self.hand_over)
            self.hand_over.close()


class WorkerNode(STTNode):
    """A node that shares its port with other processes.

    Attributes:
        place: where it stands among them.
        udp: its carrier.
    """

    def __init__(self, place: Place, config: NodeConfig, **options: Any) -> None:
        self.place = place
        self.udp = SharedUdpCarrier(config, place)
        super().__init__(config=config, carriers=[self.udp], **options)
        self._core_config = evolve(self._core_config, worker_ids=place.ids)
