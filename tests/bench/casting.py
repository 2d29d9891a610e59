"""One message to a thousand receivers of which a tenth is dead: `python -m tests.bench casting`.

`python -m tests.bench.casting --living N --dead D` does it once and prints one JSON object. The receivers are
sessions of two other processes; the one that holds those who will be dead is killed before the first message leaves.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time

import anyio

from stt_anyio import STTNode
from tests.bench.environments import ROOT
from tests.bench.rows import OURS, Figure, Row, Subject

NAME = "casting"
ALIVE = "without the dead"
MESSAGES = 10
SIZE = 10_000
NODES = 10
DIALS_AT_ONCE = 50
_HOST, _SEED = "127.0.0.1", "a seed for measurements"
FIGURES = (Figure("all_have_it_s", "s until all living have all"),)


def row(*, quick: bool) -> Row:
    """A thousand with a hundred dead, and nine hundred to compare them with."""
    living, dead = (45, 5) if quick else (900, 100)
    command = (sys.executable, "-m", "tests.bench.casting", "--living", str(living), "--dead")
    subjects = (Subject(OURS, (*command, str(dead))), Subject(ALIVE, (*command, "0")))
    return Row(NAME, f"{MESSAGES} messages of {SIZE:,} B to 1,000 receivers, a tenth of them dead", FIGURES, subjects)


# -- the receivers -------------------------------------------------------------------------------------------------


async def _receive(port: int, count: int) -> None:
    """They say when they are there; the streams are read by nobody, since acknowledging is the core's business."""
    places = anyio.CapacityLimiter(DIALS_AT_ONCE)
    nodes = [STTNode(shared_seed=_SEED, host=_HOST, max_concurrent_sessions=count) for _ in range(NODES)]

    async def dial(node: STTNode) -> None:
        async with places:
            await node.connect((_HOST, port), timeout=None)

    for node in nodes:
        await node.start()
    async with anyio.create_task_group() as tasks:
        for number in range(count):
            tasks.start_soon(dial, nodes[number % NODES])
    print("ready", flush=True)
    await anyio.to_thread.run_sync(sys.stdin.readline)


def _crowd(port: int, count: int) -> subprocess.Popen[str]:
    words = ("--receive", str(port), "--living", str(count))
    return subprocess.Popen(
        [sys.executable, "-m", "tests.bench.casting", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


async def _ready(crowd: subprocess.Popen[str]) -> None:
    assert crowd.stdout is not None
    if (await anyio.to_thread.run_sync(crowd.stdout.readline)).strip() != "ready":
        raise RuntimeError("the receivers failed")


# -- one run -------------------------------------------------------------------------------------------------------


async def _measure(living: int, dead: int) -> dict[str, float]:
    node = STTNode(
        shared_seed=_SEED, host=_HOST, server_mode=True, max_concurrent_sessions=living + dead, handshake_timeout=60.0
    )
    async with node:
        crowds = [_crowd(node.port, living)]
        try:
            await _ready(crowds[0])
            while len(node.sessions) < living:
                await anyio.sleep(0.01)
            alive = tuple(node.sessions)
            if dead:
                crowds.append(_crowd(node.port, dead))
                await _ready(crowds[1])
                while len(node.sessions) < living + dead:
                    await anyio.sleep(0.01)
                crowds[1].send_signal(signal.SIGKILL)
                crowds[1].wait()
            everybody = (*list(node.sessions)[living:], *alive)  # the dead first
            started = time.perf_counter()
            for _ in range(MESSAGES - 1):
                await node.send_to_sessions(everybody, bytes(SIZE), timeout=0)
            if dead:
                await node.send_to_sessions(everybody[:dead], bytes(SIZE), timeout=0)
            got = await node.send_to_sessions(alive, bytes(SIZE), timeout=120)
            seconds = time.perf_counter() - started
            if len(got.acknowledged) != living:
                raise RuntimeError(f"{len(got.acknowledged)} of {living} have it")
            for session in tuple(node.sessions.values()):
                session.abort()
            return {"all_have_it_s": seconds}
        finally:
            for crowd in crowds:
                crowd.kill()
                crowd.communicate()


def main() -> None:
    """One run, or one of the processes that receive in it."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.casting", description=__doc__)
    parser.add_argument("--living", type=int, default=900)
    parser.add_argument("--dead", type=int, default=100)
    parser.add_argument("--receive", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.receive is not None:
        anyio.run(_receive, chosen.receive, chosen.living)
    else:
        print(json.dumps(anyio.run(_measure, chosen.living, chosen.dead)))


if __name__ == "__main__":
    main()
