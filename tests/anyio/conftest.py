"""What the tests of the hosts share: pairs of nodes and sessions, and a bound on the time of each test."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import pytest

from stt_anyio import NodeConfig, Session, STTNode
from stt_anyio.memory import memory_sessions
from stt_anyio.udp import UdpSocket
from tests.anyio.redis_server import RedisServer, find_server
from tests.anyio.sockets import LOOPBACK, Faulty

LIMIT = 20.0
"""Seconds that no test needs."""

Sessions = Callable[..., AbstractAsyncContextManager[tuple[Session, Session]]]


@asynccontextmanager
async def _udp_nodes(**parameters: Any) -> AsyncIterator[tuple[STTNode, STTNode]]:
    parameters = {"shared_seed": "a seed for tests", "host": "127.0.0.1", **parameters}
    async with STTNode(server_mode=True, **parameters) as server, STTNode(**parameters) as client:
        with anyio.fail_after(LIMIT):
            yield server, client


@asynccontextmanager
async def _udp_sessions(**parameters: Any) -> AsyncIterator[tuple[Session, Session]]:
    async with _udp_nodes(**parameters) as (server, client):
        session = await client.connect_udp("127.0.0.1", server.port)
        yield session, await server.accept()


@asynccontextmanager
async def _memory_sessions(**parameters: Any) -> AsyncIterator[tuple[Session, Session]]:
    async with memory_sessions(**parameters) as sessions:
        with anyio.fail_after(LIMIT):
            yield sessions


@pytest.fixture(scope="session")
def udp_nodes() -> Callable[..., AbstractAsyncContextManager[tuple[STTNode, STTNode]]]:
    """`async with udp_nodes(...) as (server, client)`: two running nodes on loopback."""
    return _udp_nodes


@pytest.fixture(scope="session")
def udp_sessions() -> Sessions:
    """`async with udp_sessions(...) as (ours, theirs)`: a session on loopback."""
    return _udp_sessions


@pytest.fixture(params=["memory", "udp"], scope="session")
def sessions(request: pytest.FixtureRequest) -> Sessions:
    """`async with sessions(...) as (ours, theirs)`: a session in memory, and one on loopback."""
    return {"memory": _memory_sessions, "udp": _udp_sessions}[request.param]


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Callable[[], RedisServer]]:
    """`redis_server()`: a Redis of the tests' own, started when it is first asked for; skips where there is none."""
    servers: list[RedisServer] = []

    def get() -> RedisServer:
        if not servers:
            if find_server() is None:
                pytest.skip("no redis-server or valkey-server here: see .ci/redis.py")
            servers.append(RedisServer())
            servers[0].start()
        return servers[0]

    yield get
    for server in servers:
        server.close()


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Sockets made from now on fail as this says."""
    monkeypatch.setattr(socket, "socket", Faulty)
    monkeypatch.setattr(Faulty, "faults", {})
    return Faulty.faults


@pytest.fixture
def make_socket() -> Iterator[Callable[..., UdpSocket]]:
    """Makes UDP sockets, on loopback if not told otherwise, that are closed after the test."""
    made: list[UdpSocket] = []

    def make(address: tuple[str, int] = LOOPBACK, **options: Any) -> UdpSocket:
        made.append(UdpSocket(socket.AF_INET, address, NodeConfig(**options)))
        return made[-1]

    yield make
    for sock in made:
        sock.close()
