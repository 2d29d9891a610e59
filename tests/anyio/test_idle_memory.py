"""What a live session that does nothing holds at one end, its host included, and that it holds nothing once it is over
(docs/performance.md, "What an idle session holds").

Counted is what Python allocates, so the figures are the same on every machine. The ciphers, which are the library's and
not among it, are counted by tests/proto/test_rest.py.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
import weakref
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

import stt_anyio
import stt_proto
from stt_anyio import NodeConfig, STTNode
from stt_anyio.memory import MemoryNetwork
from tests.anyio.virtual import LOOPS, Radio, virtual

SESSIONS = 32
BYTES = 11 << 10
"""That STT may ask Python for, for one end of an idle session: 10,870 it does."""
BLOCKS = 150
"""In how many pieces: 145 they are."""
FORGOTTEN = 400.0
"""Seconds after which nobody knows of a session that is over, five minutes of them the manager's."""
OURS = [tracemalloc.Filter(True, f"{Path(package.__file__).parent}/*") for package in (stt_proto, stt_anyio)]
"""Where that was asked for: an event loop keeps timers that were cancelled for a while, now more and now fewer."""
LEFT = 100
"""Bytes an end, less than an entry in any table: caches of the interpreter grow a little, and dictionaries at times."""
CONTAINERS = (dict, set, list, deque)
SMALL = sys.getsizeof({})


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual(request.param)


@pytest.fixture
def traced() -> Iterator[Callable[[], tuple[int, int]]]:
    """Tells the bytes and the blocks in use that STT has asked for since the beginning."""

    def look() -> tuple[int, int]:
        gc.collect()
        files = tracemalloc.take_snapshot().filter_traces(OURS).statistics("filename")
        return sum(file.size for file in files), sum(file.count for file in files)

    tracemalloc.start()
    try:
        yield look
    finally:
        tracemalloc.stop()


@asynccontextmanager
async def nodes() -> AsyncIterator[tuple[STTNode, STTNode]]:
    """A client and a server, and a radio between them: it takes the same as UDP does."""
    network = MemoryNetwork()
    config = NodeConfig(max_concurrent_sessions=1000, max_sessions_per_peer=1000)
    async with (
        STTNode(shared_seed="x", config=config, carriers=[Radio(network, "client")]) as client,
        STTNode(shared_seed="x", config=config, carriers=[Radio(network, "server")], server_mode=True) as server,
    ):
        yield client, server


async def begin(client: STTNode, server: STTNode, count: int) -> None:
    """So many sessions more, of which the server's application knows; then there is silence."""
    for _ in range(count):
        await client.connect("server")
        await server.accept()
    await anyio.sleep(3 * client.config.keep_alive_interval)


def own() -> Iterator[Any]:
    """The objects of STT's own classes."""
    return (each for each in gc.get_objects() if str(type(each).__module__).startswith(("stt_proto", "stt_anyio")))


def empty_containers() -> Counter[str]:
    """Those that take more room than an empty dictionary, by whose they are and what. Shared ones count once."""
    found = {
        id(held): f"{type(owner).__name__}: {type(held).__name__} of {sys.getsizeof(held)} bytes"
        for owner in own()
        for held in gc.get_referents(owner)
        if isinstance(held, CONTAINERS) and not held and sys.getsizeof(held) > SMALL
    }
    return Counter(found.values())


async def test_an_idle_session_is_small(traced: Callable[[], tuple[int, int]]) -> None:
    """As many bytes as are promised and no more, in as many pieces."""
    async with nodes() as (client, server):
        await begin(client, server, 4)
        bytes_before, blocks_before = traced()
        await begin(client, server, SESSIONS)
        bytes_after, blocks_after = traced()
        assert len(client.sessions) == len(server.sessions) == SESSIONS + 4
        assert (bytes_after - bytes_before) / (2 * SESSIONS) < BYTES
        assert (blocks_after - blocks_before) / (2 * SESSIONS) < BLOCKS


async def test_what_is_empty_takes_no_room() -> None:
    """No idle session holds an empty set or deque, nor a dictionary that has room for more: 200 to 760 bytes each."""
    async with nodes() as (client, server):
        await begin(client, server, 4)
        gc.collect()
        before = empty_containers()
        await begin(client, server, SESSIONS)
        gc.collect()
        more = empty_containers() - before
        assert not {what: count for what, count in more.items() if count >= SESSIONS}


async def test_nothing_is_left_of_what_is_over(traced: Callable[[], tuple[int, int]]) -> None:
    """Sessions that begin, are used and end again leave what those before them left, and not one object of theirs."""
    async with nodes() as (client, server):
        held = []
        for _ in range(3):
            await begin(client, server, SESSIONS)
            ends = [*client.sessions.values(), *server.sessions.values()]
            assert len(ends) == 2 * SESSIONS
            kept = [weakref.ref(each) for each in ends]
            for session in list(client.sessions.values()):
                await session.close()
            del session, ends
            await anyio.sleep(FORGOTTEN)
            held.append(traced()[0])
            assert not [each for each in kept if each() is not None]
            assert not client.sessions
            assert not server.sessions
        _, before, after = held
        assert after - before < 2 * SESSIONS * LEFT


async def test_an_ended_session_is_kept_for_what_it_left_and_no_longer() -> None:
    """`receive` gives what came before the end, also long after it; then the session is gone."""
    async with nodes() as (client, server):
        packets = server.receive()
        session = await client.connect("server")
        await session.open_stream().send(b"unread", timeout=5.0)
        kept = [weakref.ref(each) for each in server.sessions.values()]
        await session.close()
        await anyio.sleep(FORGOTTEN)
        gc.collect()
        assert kept[0]() is not None
        assert (await anext(packets)).data == b"unread"
        with anyio.move_on_after(1.0):
            await anext(packets)
        gc.collect()
        assert kept[0]() is None
