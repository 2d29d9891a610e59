"""A carrier inside one event loop, and pairs made of it: for tests, yours and ours, without a socket.

    async with memory_sessions() as (client, server):
        stream = client.open_stream()
        await stream.send(b"hello")
        peer = await server.accept_stream()
        assert await peer.receive() == b"hello"

It is also the page to look at for who writes a carrier of his own.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from anyio.lowlevel import checkpoint

from stt_anyio.carrier import Carrier, Port
from stt_anyio.node import STTNode
from stt_anyio.session import Session
from stt_anyio.waiting import Bell
from stt_proto.config import CARRIERS
from stt_proto.types import NetworkPath, Transmit

CAPACITY = 1 << 20
"""Bytes that may be under way from one carrier to another before its path counts as full."""


class MemoryNetwork:
    """Names, and the carriers behind them."""

    def __init__(self) -> None:
        self.carriers: dict[Hashable, MemoryCarrier] = {}

    def carrier(self, name: Hashable) -> MemoryCarrier:
        """A carrier for one node, which others reach by `connect(name)`."""
        return MemoryCarrier(self, name)


class MemoryCarrier(Carrier):
    """Reliable, ordered and framed; full when its receiver is slow."""

    name = "memory"
    traits = CARRIERS["memory"]
    per_path: ClassVar[bool] = True

    def __init__(self, network: MemoryNetwork, address: Hashable) -> None:
        self.address = address
        self._network = network
        self._paths: dict[Hashable, NetworkPath] = {}
        self._inbox: deque[tuple[MemoryCarrier, bytes]] = deque()
        self._under_way: dict[MemoryCarrier, int] = {}
        self._full: set[MemoryCarrier] = set()
        self._mail = Bell()
        self._port: Port | None = None

    def _path(self, remote: Hashable) -> NetworkPath:
        path = self._paths.get(remote)
        if path is None:
            path = self._paths[remote] = NetworkPath(self.name, self.address, remote)
        return path

    async def open(self) -> None:
        await checkpoint()
        if self.address in self._network.carriers:
            raise OSError(f"the name {self.address!r} is taken")
        self._network.carriers[self.address] = self

    async def path_to(self, address: Any) -> NetworkPath:
        await checkpoint()
        return self._path(address)

    def send(self, transmit: Transmit) -> Transmit | None:
        peer = self._network.carriers.get(transmit.path.remote)
        if peer is None:
            if self._port is not None:
                self._port.path_closed(transmit.path, "refused")
            return None
        under_way = peer._under_way.get(self, 0)
        if under_way >= CAPACITY:
            peer._full.add(self)
            return transmit
        peer._under_way[self] = under_way + transmit.size
        for message in transmit.datagrams():
            peer._inbox.append((self, message))
        peer._mail.ring()
        return None

    async def run(self, port: Port) -> None:
        self._port = port
        while True:
            while not self._inbox:
                await self._mail.wait()
            for _ in range(len(self._inbox)):
                sender, message = self._inbox.popleft()
                self._under_way[sender] -= len(message)
                port.receive(message, self._path(sender.address))
            port.pump()
            while self._full:
                sender = self._full.pop()
                if sender._port is not None:
                    sender._port.writable(sender._path(self.address))
            await checkpoint()

    def close(self) -> None:
        if self._network.carriers.get(self.address) is self:
            del self._network.carriers[self.address]
        self._port = None
        self._inbox.clear()
        self._under_way.clear()
        for peer in self._network.carriers.values():
            if self.address in peer._paths and peer._port is not None:
                peer._port.path_closed(peer._paths.pop(self.address), "the other end is gone")


@asynccontextmanager
async def memory_nodes(**parameters: Any) -> AsyncIterator[tuple[STTNode, STTNode]]:
    """Two running nodes, each with the other in reach: `await one.connect("two")`, and the other way round.

    Args:
        parameters: of both nodes, as for `STTNode`; seeds are made up when not given.
    """
    network = MemoryNetwork()
    parameters.setdefault("shared_seed", os.urandom(16))
    async with STTNode(carriers=[network.carrier("one")], server_mode=True, **parameters) as one:
        async with STTNode(carriers=[network.carrier("two")], server_mode=True, **parameters) as two:
            yield one, two


@asynccontextmanager
async def memory_sessions(**parameters: Any) -> AsyncIterator[tuple[Session, Session]]:
    """The two ends of an established session between two nodes in memory."""
    async with memory_nodes(**parameters) as (one, two):
        dialled = await one.connect("two")
        yield dialled, await two.accept()
