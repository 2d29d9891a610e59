"""Stores between processes: what one takes the others do not get, and nobody writes over what he has not read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from stt_anyio.stores.sqlite import SqliteSessionStore
from tests.anyio.redis_server import RedisServer
from tests.anyio.stores import SHARED

ROOT = Path(__file__).parents[2]
PROCESSES = 4
TICKETS = 1000

PROGRAM = """
import random, sys
import anyio
from stt_anyio.errors import VersionConflictError

kind, where, number, backend = sys.argv[1:]
if kind == "sqlite":
    from stt_anyio.stores.sqlite import SqliteSessionStore
    store = SqliteSessionStore(where, timeout=60.0)
else:
    from stt_anyio.stores.redis import RedisSessionStore
    store = RedisSessionStore(where, timeout=60.0)

async def take(tickets, took):
    for ticket in tickets:
        if await store.take_once("tickets", b"%d" % ticket, ttl=3600):
            took.append(ticket)

async def append():
    while True:
        entry = await store.get("", b"list")
        value, version = (b"", 0) if entry is None else (entry.value, entry.version)
        try:
            return await store.put("", b"list", value + number.encode(), if_version=version)
        except VersionConflictError:
            pass

async def main():
    async with store:
        print("ready", flush=True)
        sys.stdin.readline()
        tickets, took = list(range(1000)), []
        random.Random(int(number)).shuffle(tickets)
        async with anyio.create_task_group() as tasks:
            for first in range(10):
                tasks.start_soon(take, tickets[first::10], took)
        print(*took)
        for _ in range(15):
            await append()

anyio.run(main, backend=backend)
"""


def at_once(kind: str, where: str) -> list[str]:
    """Run it in several processes, which begin when all are ready; what each of them says. On either loop."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, kind, where, str(number), ("asyncio", "trio")[number % 2]],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        return [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.fixture(params=SHARED)
def where(request: pytest.FixtureRequest, tmp_path: Path, redis_server: Callable[[], RedisServer]) -> tuple[str, str]:
    """A kind of store, and where it is."""
    if request.param == "sqlite":
        return "sqlite", str(tmp_path / "store")
    pytest.importorskip("coredis", reason="the extra stt-transport[redis] is not installed")
    redis_server().ask("FLUSHALL")
    return "redis", redis_server().url


def test_tickets_and_a_list_for_all_at_once(where: tuple[str, str]) -> None:
    """H7, H-36: 4 processes, 1,000 tickets, each offered to every one of them: each is taken exactly once.

    S14, K6: and of a list that all append to, what is there is some order of all that was written.
    """
    took = [int(ticket) for said in at_once(*where) for ticket in said.split()]
    assert sorted(took) == list(range(TICKETS))
    kind, at = where
    if kind == "sqlite":
        shared: Any = SqliteSessionStore(at)
    else:
        shared = pytest.importorskip("stt_anyio.stores.redis").RedisSessionStore(at)

    async def read() -> bytes:
        async with shared as store:
            entry = await store.get("", b"list")
            assert entry is not None
            return entry.value

    assert sorted(anyio.run(read)) == sorted(b"0123" * 15)


CRASHING = """
import sys
import anyio
from stt_anyio.stores.sqlite import SqliteSessionStore

async def main():
    async with SqliteSessionStore(sys.argv[1]) as store:
        for ticket in range(900):
            await store.put("list", b"%06d" % ticket, b"", if_version=0)
            assert await store.take_once("tickets", b"%d" % ticket, ttl=3600)
            print(ticket, flush=True)

anyio.run(main)
"""


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the processes are what is tested
async def test_killed_in_the_middle(tmp_path: Path) -> None:
    """H7: what was confirmed is in the file, whatever became of the process; and the file is whole."""
    for run in range(2):
        path = str(tmp_path / f"store{run}")
        told = killed_after(50 + 17 * run, path)
        assert len(told) >= 50 + 17 * run
        async with SqliteSessionStore(path) as store:
            confirmed = [await store.take_once("tickets", b"%d" % ticket, ttl=3600) for ticket in told]
            assert confirmed == [False] * len(told)
            keys = [entry.key for entry in await store.scan("list", limit=1000)]
            assert keys[: len(told)] == [b"%06d" % ticket for ticket in told]


def killed_after(lines: int, path: str) -> list[int]:
    """Kill it after so many lines; what it had said by then."""
    process = subprocess.Popen([sys.executable, "-c", CRASHING, path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(lines)]
    process.kill()
    said += process.communicate()[0].splitlines(keepends=True)
    return [int(line) for line in said if line.endswith("\n")]
