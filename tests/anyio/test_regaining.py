"""A session that began on a WebSocket goes back to UDP by itself, in virtual time (MISSION E6)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from math import inf
from typing import Any

import anyio
import pytest

from stt_anyio import STTNode
from stt_anyio.links import target_of
from stt_anyio.memory import MemoryCarrier, MemoryNetwork
from stt_anyio.regaining import PATIENCE
from stt_proto import NetworkPath, Transmit
from stt_proto.config import CARRIERS
from tests.anyio.virtual import LOOPS, Radio, tasks_alive, virtual


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual(request.param)


class Udp(Radio):
    """Tells when it sent something, to the second."""

    def __init__(self, network: MemoryNetwork, address: str) -> None:
        super().__init__(network, address, "udp")
        self.sent_at: list[float] = []

    def send(self, transmit: Transmit) -> Transmit | None:
        self.sent_at.append(anyio.current_time())
        return super().send(transmit)

    def tries(self) -> list[float]:
        """When it sent again after it had sent nothing for longer than one try takes."""
        pairs = zip([-inf, *self.sent_at], self.sent_at, strict=False)
        return [now for before, now in pairs if now - before > PATIENCE]


class Web(MemoryCarrier):
    """Stands in for the carrier of WebSockets."""

    name = "ws"
    traits = CARRIERS["ws"]

    async def path_to(self, address: Any) -> NetworkPath:
        return await super().path_to(target_of(address).next_hop[0])


class Pair:
    """Two nodes between which UDP may pass or not."""

    def __init__(self, client: STTNode, ours: Udp, theirs: Udp) -> None:
        self.client, self.ours, self._theirs = client, ours, theirs

    def block(self, blocked: bool) -> None:
        self._theirs.silent = blocked

    async def connect(self) -> Any:
        return await self.client.connect("server", websocket="ws://web-server/")


@asynccontextmanager
async def pairs(**options: Any) -> AsyncIterator[Pair]:
    network = MemoryNetwork()
    ours, theirs = Udp(network, "client"), Udp(network, "server")
    options |= {"shared_seed": "x", "session_ttl": 100_000}  # nothing is said for hours
    server = STTNode(
        shared_seed="x", carriers=[theirs, Web(network, "web-server")], server_mode=True, session_ttl=100_000
    )
    client = STTNode(carriers=[ours, Web(network, "web-client")], **options)
    async with server, client:
        with anyio.fail_after(100_000):
            yield Pair(client, ours, theirs)


async def test_udp_begins_to_pass() -> None:
    """E6, M-8: tried after 10 s, doubling to 10 minutes, each wait at most a quarter less; then it is there."""
    async with pairs() as pair:
        pair.block(True)
        session = await pair.connect()
        assert session.transport_type == "ws"
        await anyio.sleep(4000)
        assert session.transport_type == "ws"
        tries = pair.ours.tries()[1:]  # without the race
        waits = [later - earlier for earlier, later in pairwise(tries)]
        assert len(waits) >= 10
        for wait, full in zip(waits, [20, 40, 80, 160, 320, *[600] * 20], strict=False):
            assert 0.75 * full <= wait <= full + PATIENCE
        pair.block(False)
        await anyio.sleep(600 + PATIENCE)
        assert session.transport_type == "udp"
        pair.block(True)
        await anyio.sleep(60)
        assert session.transport_type == "ws", "M-5: back in reserve"
        pair.block(False)
        await anyio.sleep(60)
        assert session.transport_type == "udp", "and looked for again, from 10 s on"


async def test_nothing_is_asked_on_udp() -> None:
    """E6: a session that is on UDP is left alone, and opens no other path."""
    async with pairs() as pair:
        session = await pair.connect()
        assert session.transport_type == "udp"
        await anyio.sleep(2000)
        assert len(session.paths) == 1


async def test_where_it_was_put_it_stays() -> None:
    """E6: a session that was told to be on the WebSocket is not asked away from there."""
    async with pairs() as pair:
        session = await pair.connect()
        await session.migrate("ws://web-server/", "websocket")
        pair.block(True)
        session.remove_path(session.paths[1].path)
        await anyio.sleep(10)
        sent = len(pair.ours.sent_at)
        await anyio.sleep(2000)
        assert session.transport_type == "ws"
        assert len(pair.ours.sent_at) == sent


async def test_not_wanted() -> None:
    """E6: `probe_udp=False`."""
    async with pairs(probe_udp=False) as pair:
        pair.block(True)
        session = await pair.connect()
        pair.block(False)
        await anyio.sleep(2000)
        assert session.transport_type == "ws"


@pytest.mark.parametrize("blocked", [True, False])
async def test_it_ends_with_the_session(blocked: bool) -> None:
    async with pairs() as pair:
        before = tasks_alive()
        pair.block(blocked)
        session = await pair.connect()
        await anyio.sleep(12)
        assert tasks_alive() == before + 1
        await session.close()
        await anyio.sleep(1)
        assert tasks_alive() == before
        sent = len(pair.ours.sent_at)
        await anyio.sleep(2000)
        assert len(pair.ours.sent_at) == sent


async def test_a_client_that_comes_back() -> None:
    """E6, G9: where UDP begins to fail the session goes on over the WebSocket, which nobody had dialled, and back."""
    async with pairs() as pair:
        async with pair.client.reconnecting("server", websocket="ws://web-server/") as client:
            session = await client.session()
            assert session.transport_type == "udp"
            pair.block(True)
            await anyio.sleep(60)
            assert await client.session() is session
            assert session.transport_type == "ws"
            pair.block(False)
            await anyio.sleep(60)
            assert session.transport_type == "udp"
            assert client.sessions == 1
