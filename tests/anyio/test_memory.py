"""The carrier in memory. One of one's own stands in docs/carriers.md, which tests/test_docs.py runs."""

from __future__ import annotations

import os
from typing import Any

import anyio
import pytest

from stt_anyio import (
    ArgumentError,
    NetworkPath,
    NodeConfig,
    Port,
    Session,
    STTNode,
    Transmit,
    UdpCarrier,
)
from stt_anyio.errors import ConnectionRefusedError, SessionClosedError
from stt_anyio.memory import CAPACITY, MemoryCarrier, MemoryNetwork, memory_nodes, memory_sessions


async def exchange(ours: Session, theirs: Session, data: bytes) -> bytes:
    """Send one way while the peer sends it back."""

    async def send_back() -> None:
        stream = await theirs.accept_stream()
        async for piece in stream:
            await stream.send(piece)
        await stream.aclose()

    async def send() -> None:
        await stream.send(data)
        await stream.send_eof()

    stream = ours.open_stream()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send_back)
        tasks.start_soon(send)
        return b"".join([piece async for piece in stream])


async def test_a_pair_of_sessions() -> None:
    async with memory_sessions() as (ours, theirs):
        assert ours.session_id == theirs.session_id
        assert ours.transport_type == "memory"
        assert (ours.peer_addr, theirs.peer_addr) == ("two", "one")
        data = os.urandom(3 * CAPACITY)
        assert await exchange(ours, theirs, data) == data


class Choked(MemoryCarrier):
    """Takes nothing for some of its peers, until it is told to."""

    def __init__(self, network: MemoryNetwork, address: str) -> None:
        super().__init__(network, address)
        self.choked: set[object] = set()

    async def run(self, port: Port) -> None:
        self.port = port
        await super().run(port)

    def send(self, transmit: Transmit) -> Transmit | None:
        return transmit if transmit.path.remote in self.choked else super().send(transmit)

    async def release(self, remote: str) -> None:
        self.choked.clear()
        self.port.writable(await self.path_to(remote))


async def test_a_full_path_holds_up_no_other() -> None:
    network = MemoryNetwork()
    choked = Choked(network, "sender")
    options: dict[str, Any] = {"shared_seed": "x", "server_mode": True}
    with anyio.fail_after(20):
        async with (
            STTNode(carriers=[network.carrier("slow")], **options) as slow,
            STTNode(carriers=[network.carrier("quick")], **options) as quick,
            STTNode(carriers=[choked], **options) as sender,
        ):
            to_slow, to_quick = await sender.connect("slow"), await sender.connect("quick")
            choked.choked.add("slow")
            stream = to_slow.open_stream()
            await stream.send(b"in the end")
            assert await exchange(to_quick, await quick.accept(), bytes(100_000)) == bytes(100_000)
            with pytest.raises(TimeoutError):
                await stream.flush(timeout=0.05)
            await choked.release("slow")
            peer = await (await slow.accept()).accept_stream()
            assert await peer.receive() == b"in the end"
            await choked.release("nobody")


class Recorder:
    """What a carrier sees of a node."""

    def __init__(self) -> None:
        self.received = 0
        self.room: list[NetworkPath | None] = []

    def receive(self, data: Any, path: NetworkPath, segment_size: int | None = None) -> None:
        self.received += len(data)

    def pump(self) -> None: ...

    def writable(self, path: NetworkPath | None = None) -> None:
        self.room.append(path)

    def path_closed(self, path: NetworkPath, reason: str | None = None) -> None: ...

    def path_failed(self, path: NetworkPath, reason: str) -> None: ...


async def test_what_is_under_way_is_bounded() -> None:
    network = MemoryNetwork()
    one, two = network.carrier("one"), network.carrier("two")
    await one.open()
    await two.open()
    here, there = Recorder(), Recorder()
    path = await one.path_to("two")
    transmit = Transmit(path, (bytes(65_536),))
    taken = 0
    while one.send(transmit) is None:
        taken += 65_536
        assert taken <= CAPACITY
    assert taken == CAPACITY
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.run, here)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(two.run, there)
        await anyio.wait_all_tasks_blocked()
        assert there.received == CAPACITY
        assert here.room == [path]
        assert one.send(transmit) is None
        tasks.cancel_scope.cancel()
    one.close()
    two.close()


async def test_nobody_has_that_name() -> None:
    async with memory_nodes() as (one, _):
        with pytest.raises(ConnectionRefusedError) as caught:
            await one.connect("three")
        assert isinstance(caught.value, anyio.ConnectionFailed)
        assert not one.endpoint.sessions


async def test_a_name_is_taken_once() -> None:
    network = MemoryNetwork()
    async with STTNode(carriers=[network.carrier("one")], shared_seed="x"):
        second = STTNode(carriers=[network.carrier("one")], shared_seed="x")
        with pytest.raises(OSError, match="taken"):
            await second.start()
        await second.stop()
    async with STTNode(carriers=[network.carrier("one")], shared_seed="x"):
        pass  # it was given back


async def test_the_other_end_goes_away() -> None:
    network = MemoryNetwork()
    gone = STTNode(carriers=[network.carrier("gone")], shared_seed="x", server_mode=True)
    await gone.start()
    async with STTNode(carriers=[network.carrier("one")], shared_seed="x", detach_timeout=0.0) as one:
        session = await one.connect("gone")
        stream = session.open_stream()
        network.carriers["gone"].close()
        with anyio.fail_after(5):
            with pytest.raises(SessionClosedError):
                await stream.receive()
            assert await session.wait_closed() == "error"
        gone.get_active_sessions()[0].abort()
        await gone.stop()


async def test_a_node_with_several_carriers() -> None:
    network = MemoryNetwork()
    async with (
        STTNode(carriers=[network.carrier("one")], shared_seed="x", server_mode=True) as server,
        STTNode(carriers=[network.carrier("two"), UdpCarrier(NodeConfig())], shared_seed="x") as client,
    ):
        session = await client.connect("one", peer_node_id=server.node_id)
        assert (session.transport_type, session.peer_addr) == ("memory", "one")
        assert client.port > 0
        assert server.port == 0
        with pytest.raises(ArgumentError) as caught:
            await client.connect("one", transport="pigeon")
        assert caught.value.argument == "transport"
        assert "memory, udp" in str(caught.value)
        with pytest.raises(ArgumentError):
            await client.connect("one", transport="udp")
