"""Very many sessions at once on one server, over UDP: all get in, or are told why not (H-21, H-23, H-28)."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

import anyio
import pytest

from stt_anyio import NodeConfig, Session, Stream, STTNode, TooManySessionsError
from tests.figures import RecordProperty, kept_waiting, tell

LOOPBACK = "127.0.0.1"
ROOT = Path(__file__).parents[2]
SEED = "a seed for tests"
PROMISED = 15.0
"""Seconds in which every one of a thousand sessions has its echo, on a machine that is there for nothing else."""
LIMIT = 180.0
"""Seconds that no test needs, on the slowest machine."""
DEFAULT_BUFFER = NodeConfig().recv_buffer_size
STOCK_BUFFER = 212_992 // 2
"""Bytes to ask for so that Linux, which doubles it, grants what it grants everybody."""


async def echo(session: Session) -> None:
    """What the server does with a session."""
    stream = await session.accept_stream()
    async for piece in stream:
        await stream.send(piece)
    await stream.aclose()


@asynccontextmanager
async def crowd(clients: int, **of_server: Any) -> AsyncIterator[tuple[STTNode, list[STTNode]]]:
    """A server that echoes, and client nodes."""
    async with AsyncExitStack() as stack:
        nodes = [STTNode(shared_seed=SEED, host=LOOPBACK, handshake_timeout=60.0) for _ in range(clients)]
        server = STTNode(shared_seed=SEED, host=LOOPBACK, server_mode=True, handshake_timeout=60.0, **of_server)
        for node in (server, *nodes):
            await stack.enter_async_context(node)
        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(server.serve, echo)
                yield server, nodes
                tasks.cancel_scope.cancel()


async def ask(stream: Stream, question: bytes) -> None:
    """Send something, and have it back."""
    await stream.send(question)
    answer = b""
    while len(answer) < len(question):
        answer += await stream.receive()
    assert answer == question


async def connect(node: STTNode, server: STTNode) -> Stream:
    """A session, and a stream on it which the server echoes."""
    return (await node.connect_udp(LOOPBACK, server.port, timeout=None)).open_stream()


@pytest.mark.parametrize(
    ("sessions", "buffer"),
    [
        (100, DEFAULT_BUFFER),
        pytest.param(1000, DEFAULT_BUFFER, marks=pytest.mark.long),
        pytest.param(1000, STOCK_BUFFER, marks=pytest.mark.long),
    ],
)
async def test_all_connect_at_once(sessions: int, buffer: int, record_property: RecordProperty) -> None:
    """From ten nodes behind one address, which is asked for cookies after the first few (H-23).

    A thousand HELLOs are more than a socket's buffer holds, and many more than a server answers in 100 ms (H-28): the
    others come again.
    """
    waited: dict[int, tuple[float, float]] = {}
    async with crowd(10, max_concurrent_sessions=2000, recv_buffer_size=buffer) as (server, nodes):
        started, others = time.perf_counter(), kept_waiting()

        async def call(number: int) -> None:
            stream = await connect(nodes[number % len(nodes)], server)
            connected = time.perf_counter() - started
            await ask(stream, b"this is number %d" % number)
            waited[number] = connected, time.perf_counter() - started

        async with anyio.create_task_group() as calls:
            for number in range(sessions):
                calls.start_soon(call, number)
        others = kept_waiting() - others
        assert len(server.sessions) == sum(len(node.sessions) for node in nodes) == sessions
        assert server.get_stats().established == sessions
        counters = server.endpoint.counters
        tell(
            record_property,
            sessions=sessions,
            buffer_kib=buffer // 1024,
            connected_median_s=median(connected for connected, _ in waited.values()),
            last_connected_s=max(connected for connected, _ in waited.values()),
            last_echo_s=max(echoed for _, echoed in waited.values()),
            without_processor_s=others,
            handshake_messages_refused=counters.refused,
        )
        assert max(echoed for _, echoed in waited.values()) - others < PROMISED


async def test_the_hundred_and_first_is_told_and_the_others_do_not_notice(record_property: RecordProperty) -> None:
    async with crowd(4) as (server, nodes):
        streams: list[Stream] = []

        async def call(node: STTNode) -> None:
            streams.append(await connect(node, server))

        async with anyio.create_task_group() as calls:
            for number in range(100):
                calls.start_soon(call, nodes[number % len(nodes)])
        for number, stream in enumerate(streams):
            await ask(stream, b"%d, before" % number)

        started = time.perf_counter()
        for node in nodes:  # each of which may hold 75 more
            with pytest.raises(TooManySessionsError) as caught:
                await connect(node, server)
            assert isinstance(caught.value, anyio.ConnectionFailed)
        tell(record_property, refused_after_s=(time.perf_counter() - started) / len(nodes))

        for number, stream in enumerate(streams):
            await ask(stream, b"%d, after" % number)
        assert len(server.sessions) == sum(len(node.sessions) for node in nodes) == 100
        assert not any(server.get_stats().closed.values())


async def test_of_a_crowd_too_large_a_hundred_get_in() -> None:
    """However their handshakes interleave: nobody gets in beyond the limit, and nobody else is left without a word."""
    streams: list[Stream] = []
    refused: list[STTNode] = []
    async with crowd(4) as (server, nodes):

        async def call(node: STTNode) -> None:
            try:
                streams.append(await connect(node, server))
            except TooManySessionsError:
                refused.append(node)

        async with anyio.create_task_group() as calls:
            for number in range(140):
                calls.start_soon(call, nodes[number % len(nodes)])
        assert (len(streams), len(refused)) == (100, 40)
        for number, stream in enumerate(streams):
            await ask(stream, b"%d" % number)
        assert len(server.sessions) == sum(len(node.sessions) for node in nodes) == 100


@pytest.mark.long
def test_ten_thousand_live_in_one_process(record_property: RecordProperty) -> None:
    """Established in a minute; from then on keep-alives leave in time (K-4), and take little of a processor."""
    command = [sys.executable, "-m", "tests.bench.live", "--sessions", "10000", "--seconds", "30"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    told = json.loads(done.stdout)
    tell(record_property, **told)
    assert told["established_s"] - told["without_processor_s"] < 60.0
    assert told["keep_alive_late_p99_s"] < 1.0
    assert told["cpu_percent"] < 50.0
