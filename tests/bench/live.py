"""Very many live sessions in one process: `python -m tests.bench live`.

`python -m tests.bench.live --sessions N --seconds S` does it once and prints one JSON object. This process dials N
sessions, all from one node, to one other process, and then does nothing for S seconds but keep them alive, at the
usual intervals. A keep-alive is late by what has passed between the moment when it was due and that when it left.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time

import anyio

from stt_anyio import Session, STTNode
from stt_anyio.cli.perf.yardstick import Watch, resident
from stt_proto.events import KeepAliveSent
from tests.bench.environments import ROOT
from tests.bench.rows import OURS, Figure, Row, Subject
from tests.figures import kept_waiting

NAME = "live"
DIALS_AT_ONCE = 50
_HOST, _SEED = "127.0.0.1", "a seed for measurements"
FIGURES = (
    Figure("established_s", "s until all are established"),
    Figure("keep_alive_late_p99_s", "s, keep-alives late, p99"),
    Figure("cpu_percent", "% of a core, one end"),
    Figure("kib_per_session", "KiB/session, one end"),
)


def row(*, quick: bool) -> Row:
    """Ten thousand, for three intervals."""
    words = ("100", "--seconds", "11") if quick else ("10000", "--seconds", "30")
    subject = Subject(OURS, (sys.executable, "-m", "tests.bench.live", "--sessions", *words))
    return Row(NAME, "10,000 live sessions in one process", FIGURES, (subject,))


def _node(sessions: int, **options: object) -> STTNode:
    return STTNode(
        shared_seed=_SEED,
        host=_HOST,
        max_concurrent_sessions=sessions + 1,
        max_sessions_per_peer=sessions + 1,
        handshake_timeout=60.0,
        **options,
    )


async def _accept(sessions: int) -> None:
    """The other process: it says its port, and stays until it is ended."""
    async with _node(sessions, server_mode=True) as node:
        print(node.port, flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)


def _other(sessions: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.bench.live", "--accept", "--sessions", str(sessions)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


async def _measure(sessions: int, seconds: float) -> dict[str, float]:
    other = _other(sessions)
    try:
        assert other.stdout is not None
        port = int(await anyio.to_thread.run_sync(other.stdout.readline))
        async with _node(sessions) as node:
            figures = await _watch(node, port, sessions, seconds)
            other.kill()
            for session in tuple(node.sessions.values()):
                session.abort()
            return figures
    finally:
        other.kill()
        other.communicate()


async def _watch(node: STTNode, port: int, count: int, seconds: float) -> dict[str, float]:
    places, late = anyio.CapacityLimiter(DIALS_AT_ONCE), []
    await node.connect((_HOST, port), timeout=None)  # the first one also warms up
    gc.collect()
    before, started, starved = resident(), time.perf_counter(), kept_waiting()

    async def dial() -> None:
        async with places:
            await node.connect((_HOST, port), timeout=None)

    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(dial)
    established, starved = time.perf_counter() - started, kept_waiting() - starved
    await anyio.sleep(1.0)
    gc.collect()
    kept = resident() - before
    async with anyio.create_task_group() as tasks:

        async def listen() -> None:
            async for session, event in node.events():
                if isinstance(event, KeepAliveSent) and session is not None:
                    late.append(lateness(session))

        tasks.start_soon(listen)
        watch = Watch()
        await anyio.sleep(seconds)
        cpu = watch.cpu() / watch.seconds() * 100
        tasks.cancel_scope.cancel()
    if len(node.sessions) != count + 1:
        raise RuntimeError(f"of {count + 1} sessions {len(node.sessions)} are left")
    if len(late) < count * int(seconds / 12):
        raise RuntimeError(f"only {len(late)} keep-alives of {count} sessions in {seconds:g} seconds")
    late.sort()
    return {
        "established_s": established,
        "without_processor_s": starved,
        "keep_alive_late_p50_s": late[len(late) // 2],
        "keep_alive_late_p99_s": late[-(-99 * len(late) // 100) - 1],
        "keep_alives": float(len(late)),
        "cpu_percent": cpu,
        "kib_per_session": kept / count / 1024,
    }


def lateness(session: Session) -> float:
    """Seconds between the moment when this session, which has just asked, was to ask, and now."""
    stats = session.get_stats()
    silent = stats.created_at + stats.uptime - session.last_active
    return max(0.0, silent - session.node.config.keep_alive_interval)


def main() -> None:
    """One run, or the other process in it."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.live", description=__doc__)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=30.0, help="for which they are kept alive, from 11 on")
    parser.add_argument("--accept", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.accept:
        anyio.run(_accept, chosen.sessions)
    else:
        print(json.dumps(anyio.run(_measure, chosen.sessions, chosen.seconds)))


if __name__ == "__main__":
    main()
