"""Two workers on one port against one, at the same work: `python -m tests.bench workers`.

`python -m tests.bench.workers --workers N --mb M` does it once and prints one JSON object. Eight sessions, four from
each of two other processes, send so many MiB each, all at once. Their connection IDs are chosen so that four are each
worker's; left to chance, one run in fourteen would have one or none at one of them, and measure that.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import anyio
from attrs import evolve

from stt_anyio import Session, Stream, SttError, STTNode
from stt_anyio.workers import FleetStats, WorkerFleet
from stt_proto import WorkerIds
from tests.bench.environments import ROOT
from tests.bench.rows import OURS, Figure, Row, Subject

NAME = "workers"
ONE = "one worker"
SESSIONS = 8
PIECE = bytes(1 << 20)
DATAGRAM = 1452
_HOST, _SEED, _SECRET = "127.0.0.1", "a seed for measurements", bytes(range(200, 232))
FIGURES = (
    Figure("mb_per_s", "MB/s", "higher"),
    Figure("cpu_s_per_gb", "CPU s/GB, all workers"),
    Figure("least_share_percent", "% of sessions, the worker with fewest", "higher"),
    Figure("handed_over", "datagrams handed over"),
)


def row(*, quick: bool) -> Row:
    """Two workers, and one to compare them with."""
    command = (sys.executable, "-m", "tests.bench.workers", "--mb", "2" if quick else "64", "--workers")
    subjects = (Subject(OURS, (*command, "2")), Subject(ONE, (*command, "1")))
    return Row(NAME, "bulk, UDP, 8 sessions, two workers on one port", FIGURES, subjects)


# -- the workers ---------------------------------------------------------------------------------------------------


async def swallow(node: STTNode) -> None:
    """Read every stream, and say at its end that all of it is here."""
    async with anyio.create_task_group() as tasks:
        while True:
            tasks.start_soon(_attend, await node.accept())


async def _attend(session: Session) -> None:
    try:
        async with anyio.create_task_group() as tasks:
            while True:
                tasks.start_soon(_read, await session.accept_stream())
    except* SttError:
        pass


async def _read(stream: Stream) -> None:
    async for _ in stream:
        pass
    await stream.send(b"all")
    await stream.aclose()


# -- those who send ------------------------------------------------------------------------------------------------


async def _send(port: int, worker: int, mb: int) -> None:
    """Half of the sessions, in this process: says when they are there, and waits for a line to begin."""
    node = STTNode(shared_seed=_SEED, host=_HOST, datagram_size=DATAGRAM)
    node._core_config = evolve(node._core_config, worker_ids=WorkerIds(_SECRET, worker, 2))
    async with node:
        sessions = [await node.connect((_HOST, port)) for _ in range(SESSIONS // 2)]
        print("ready", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)
        async with anyio.create_task_group() as tasks:
            for session in sessions:
                tasks.start_soon(_upload, session, mb)
        print("done", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)


async def _upload(session: Session, mb: int) -> None:
    stream = session.open_stream()
    for _ in range(mb):
        await stream.send(PIECE)
    await stream.send_eof()
    if await stream.receive() != b"all":
        raise RuntimeError("it did not arrive")
    await stream.aclose()


# -- one run -------------------------------------------------------------------------------------------------------


async def _measure(workers: int, mb: int) -> dict[str, object]:
    fleet = WorkerFleet(
        "tests.bench.workers:swallow", workers, shared_seed=_SEED, host=_HOST, port=0, datagram_size=DATAGRAM
    )
    fleet._id_secret = _SECRET
    async with fleet:
        senders = [_Sender(fleet.port, worker, mb) for worker in range(2)]
        try:
            await _all(senders, "ready")
            before, started = await fleet.stats(), time.perf_counter()
            for sender in senders:
                sender.go_on()
            await _all(senders, "done")
            seconds, after = time.perf_counter() - started, await fleet.stats()
        finally:
            for sender in senders:
                sender.end()
    size = mb * SESSIONS * len(PIECE)
    shares = [worker.node.established for worker in after.workers]
    return {
        "mb_per_s": size / seconds / 1e6,
        "cpu_s_per_gb": (_cpu(after) - _cpu(before)) / size * 1e9,
        "least_share_percent": 100 * min(shares) / sum(shares),
        "handed_over": sum(worker.hand_over.given for worker in after.workers),
        "routing": str(fleet.routing),
    }


def _cpu(stats: FleetStats) -> float:
    return sum(worker.cpu_seconds for worker in stats.workers)


class _Sender:
    """One of the processes that send."""

    def __init__(self, port: int, worker: int, mb: int) -> None:
        words = ("--send", str(port), "--worker", str(worker), "--mb", str(mb))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.workers", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    async def hear(self, word: str) -> None:
        assert self._process.stdout is not None
        line = await anyio.to_thread.run_sync(self._process.stdout.readline)
        if line.strip() != word:
            raise RuntimeError("a sender failed")

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


async def _all(senders: list[_Sender], word: str) -> None:
    async with anyio.create_task_group() as tasks:
        for sender in senders:
            tasks.start_soon(sender.hear, word)


def main() -> None:
    """One run, or one of the processes that send in it."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.workers", description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--mb", type=int, default=64, help="MiB that each of the eight sessions sends")
    parser.add_argument("--send", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.send is not None:
        anyio.run(_send, chosen.send, chosen.worker, chosen.mb)
    else:
        print(json.dumps(anyio.run(_measure, chosen.workers, chosen.mb)))


if __name__ == "__main__":
    main()
