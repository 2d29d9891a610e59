"""Fleets of workers for tests, and clients that choose whose they are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import evolve

from stt_anyio import Session, STTNode
from stt_anyio.workers import WorkerFleet
from stt_proto import WorkerIds
from tests.proto.fleet import SECRET

ON_ONE_LOOP = pytest.mark.parametrize("anyio_backend", ["asyncio"])
"""What is tested is in the workers, whichever loop the parent has."""

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
SEED = "a seed for the tests of workers"
LIMIT = 60.0
"""Seconds that no test needs, with new interpreters on a busy machine."""


@asynccontextmanager
async def serving(
    workers: int = 2, app: Any = "tests.anyio.worker_apps:echo", **options: Any
) -> AsyncIterator[tuple[WorkerFleet, STTNode]]:
    """A fleet, and a client that may dial it."""
    options = {"shared_seed": SEED, "host": HOST, "port": 0, "grace": 1.0, **options}
    with anyio.fail_after(LIMIT):
        async with known(WorkerFleet(app, workers, **options)) as served:
            async with STTNode(shared_seed=SEED, host=HOST) as client:
                yield served, client


def known(served: WorkerFleet) -> WorkerFleet:
    """One whose IDs the tests can read."""
    served._id_secret = SECRET
    return served


async def ask(session: Session, words: str = "are you there") -> int:
    """Have a worker answer; tells which process it was."""
    async with session.open_stream() as stream:
        await stream.send(words.encode())
        await stream.send_eof()
        pid, _, rest = b"".join([piece async for piece in stream]).partition(b" ")
    assert rest.decode() == words.upper()
    return int(pid)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await anyio.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process is there and not waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Naming(STTNode):
    """A client whose connection IDs name a worker of the fleet, so that its dials are spread as a test wants."""

    def __init__(self, worker: int, workers: int = 2, node_seed: bytes | None = None) -> None:
        super().__init__(node_seed, SEED, HOST)
        self._core_config = evolve(self._core_config, worker_ids=WorkerIds(SECRET, worker, workers))
