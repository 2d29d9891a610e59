"""The two ends of `stt perf` over UDP, each in a process of its own: here, and there.

What is said between the processes, in order: the port that the far end listens at, and at last the seconds of CPU that
it spent.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import anyio
from attrs import field, frozen

from stt_anyio.blocking import BlockingNode, BlockingStream
from stt_anyio.node import STTNode
from stt_anyio.stream import Stream

HOST = "127.0.0.1"
CHUNK = 1 << 18
ECHOES = 2000
MESSAGE = bytes(100)
_COUNT_BYTES = 8
_PATIENCE = 30.0
"""Seconds that the far end has to come up, or to tell its figures."""
_GRACE = 5.0
"""Seconds that it has to end by itself."""


@frozen
class Work:
    """What both ends do.

    Attributes:
        mode: `"bulk"` (one stream one way, which the far end counts) or `"echo"` (round trips of 100 bytes).
        backend: `"asyncio"`, `"trio"` or `"blocking"`.
        megabytes: to move in bulk, of 1,048,576 bytes.
        datagram_size: bytes in a UDP datagram.
        shared_seed: of both.
    """

    mode: str
    backend: str
    megabytes: int
    datagram_size: int
    shared_seed: bytes = field(factory=lambda: os.urandom(32), repr=False)

    @property
    def total(self) -> int:
        """Bytes to move in bulk."""
        return self.megabytes << 20

    @property
    def node(self) -> dict[str, Any]:
        """Parameters of either node."""
        return {"shared_seed": self.shared_seed, "host": HOST, "port": 0, "datagram_size": self.datagram_size}


def measure(work: Work) -> dict[str, float]:
    """Start the far end, be the near end, and give the figures of both.

    Raises:
        RuntimeError: the far end did not come up, or broke down.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    far = spawn.Process(target=_far_end, args=(work, theirs), daemon=True)
    far.start()
    theirs.close()
    try:
        with ours:
            figures = _NEAR[work.backend](work, _told(ours))
            return {**figures, "cpu_s_receiver": _told(ours)}
    finally:
        far.join(_GRACE)
        far.terminate()
        far.join()


def _told(pipe: Connection) -> Any:
    try:
        if pipe.poll(_PATIENCE):
            return pipe.recv()
    except EOFError:
        pass
    raise RuntimeError("the far end broke down")


# -- there ---------------------------------------------------------------------------------------------------------


def _far_end(work: Work, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the near end is interrupted, and closes the session
    if work.backend == "blocking":
        _far_blocking(work, pipe)
    else:
        anyio.run(_far_async, work, pipe, backend=work.backend)


async def _far_async(work: Work, pipe: Connection) -> None:
    async with STTNode(server_mode=True, **work.node) as node:
        pipe.send(node.port)
        session = await node.accept()
        stream = await session.accept_stream()
        cpu = time.process_time()
        if work.mode == "echo":
            async for message in stream:
                await stream.send(message)
        else:
            count = 0
            async for piece in stream:
                count += len(piece)
            await stream.send(count.to_bytes(_COUNT_BYTES))
        await stream.aclose()
        pipe.send(time.process_time() - cpu)
        await session.wait_closed()


def _far_blocking(work: Work, pipe: Connection) -> None:
    with BlockingNode(server_mode=True, **work.node) as node:
        pipe.send(node.port)
        session = node.accept()
        stream = session.accept_stream()
        cpu = time.process_time()
        if work.mode == "echo":
            while message := stream.receive():
                stream.send(message)
        else:
            count = 0
            while piece := stream.receive():
                count += len(piece)
            stream.send(count.to_bytes(_COUNT_BYTES))
        stream.close()
        pipe.send(time.process_time() - cpu)
        session.wait_closed()


# -- here ----------------------------------------------------------------------------------------------------------


async def _near_async(work: Work, port: int) -> dict[str, float]:
    async with STTNode(**work.node) as node, await node.connect((HOST, port)) as session:
        stream = session.open_stream()
        return await (_echo(stream) if work.mode == "echo" else _bulk(stream, work.total))


async def _bulk(stream: Stream, total: int) -> dict[str, float]:
    data = os.urandom(CHUNK)
    cpu, started = time.process_time(), time.perf_counter()
    for _ in range(total // CHUNK):
        await stream.send(data)
    await stream.send_eof()
    await stream.flush()
    figures = _bulk_figures(total, started, cpu)
    _check_count(await stream.receive(), total)
    return figures


async def _echo(stream: Stream) -> dict[str, float]:
    times = []
    cpu = time.process_time()
    for _ in range(ECHOES):
        started = time.perf_counter()
        await stream.send(MESSAGE)
        missing = len(MESSAGE)
        while missing:
            missing -= len(await stream.receive(missing))
        times.append(time.perf_counter() - started)
    await stream.send_eof()
    return _echo_figures(times, cpu)


def _near_blocking(work: Work, port: int) -> dict[str, float]:
    with BlockingNode(**work.node) as node, node.connect((HOST, port)) as session:
        stream = session.open_stream()
        return _echo_blocking(stream) if work.mode == "echo" else _bulk_blocking(stream, work.total)


def _bulk_blocking(stream: BlockingStream, total: int) -> dict[str, float]:
    data = os.urandom(CHUNK)
    cpu, started = time.process_time(), time.perf_counter()
    for _ in range(total // CHUNK):
        stream.send(data)
    stream.send_eof()
    stream.flush()
    figures = _bulk_figures(total, started, cpu)
    _check_count(stream.receive(), total)
    return figures


def _echo_blocking(stream: BlockingStream) -> dict[str, float]:
    times = []
    cpu = time.process_time()
    for _ in range(ECHOES):
        started = time.perf_counter()
        stream.send(MESSAGE)
        missing = len(MESSAGE)
        while missing:
            missing -= len(stream.receive(missing))
        times.append(time.perf_counter() - started)
    stream.send_eof()
    return _echo_figures(times, cpu)


def _bulk_figures(total: int, started: float, cpu: float) -> dict[str, float]:
    seconds = time.perf_counter() - started
    return {"mb_per_s": total / seconds / 1e6, "cpu_s_sender": time.process_time() - cpu}


def _echo_figures(times: list[float], cpu: float) -> dict[str, float]:
    return {"echo_p50_us": statistics.median(times) * 1e6, "cpu_s_sender": time.process_time() - cpu}


def _check_count(answer: bytes, total: int) -> None:
    counted = int.from_bytes(answer)
    if counted != total:
        raise RuntimeError(f"the far end counted {counted} bytes of {total}")


_NEAR: dict[str, Callable[[Work, int], dict[str, float]]] = {
    "asyncio": lambda work, port: anyio.run(_near_async, work, port, backend="asyncio"),
    "trio": lambda work, port: anyio.run(_near_async, work, port, backend="trio"),
    "blocking": _near_blocking,
}
