"""Two servers which stand for one node and share a store: one is killed, and nobody is told more than is true."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from stt_anyio import NotSentError, OutcomeUnknownError, ReconnectingClient, ReconnectPolicy, STTNode
from stt_anyio.stores import SessionStore
from stt_proto.reconnect import Connected, Detached, Lost, State, Waiting
from tests.anyio.redis_server import RedisServer

redis = pytest.importorskip("stt_anyio.stores.redis", reason="the extra stt-transport[redis] is not installed")

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
SEED = "a seed for the tests of servers"
POLICY = ReconnectPolicy()
LIMIT = 60.0
"""Seconds that no test needs, with new interpreters on a busy machine."""
KINDS = ("late", "lost", "slow")
"""What one who is stuck does with a request: does it and says nothing; reads it and does nothing; does not read it."""

PROGRAM = """
import sys
import anyio
from stt_anyio import STTNode, SttError, VersionConflictError
from stt_anyio.stores.redis import RedisSessionStore

url, prefix, transport, seed, stuck, backend = sys.argv[1:]
store = RedisSessionStore(url, prefix=prefix, timeout=30.0)

async def do(name):
    try:
        await store.put("done", name, b"", if_version=0)
    except VersionConflictError:
        await store.put("twice", name, b"", if_version=0)

async def answer(stream):
    async with stream:
        data = await stream.receive()
        while b"\\n" not in data:
            data += await stream.receive()
        name = data.partition(b"\\n")[0]
        kind = name.partition(b" ")[0] if stuck == "stuck" else b"quick"
        if kind != b"slow":
            async for piece in stream:
                data += piece
        if kind in (b"quick", b"late"):
            await do(name)
        if kind != b"quick":
            await store.put("stuck", name, b"", if_version=0)
            await anyio.sleep_forever()
        await stream.send(b"%d" % len(data))

async def attend(session):
    try:
        await session.serve(answer)
    except* SttError:
        pass

async def main():
    window = {"stream_recv_buffer": 65_536, "max_stream_recv_buffer": 65_536}
    async with store, STTNode(
        b"n" * 32, seed, fleet_secret=b"f" * 32, ticket_store=store, host="127.0.0.1", server_mode=True, **window
    ) as node:
        port = node.port if transport == "udp" else (await node.listen_tcp())[1]
        print(port, flush=True)
        await node.serve(attend)

anyio.run(main, backend=backend)
"""


class Server:
    """One of the servers, in a process of its own.

    Args:
        url: of the Redis.
        prefix: of the store in it.
        transport: what it is dialled over.
        stuck: whether it gets stuck in requests of some `KINDS`.
        backend: its event loop.
    """

    def __init__(self, url: str, prefix: str, transport: str, *, stuck: bool, backend: str) -> None:
        words = [url, prefix, transport, SEED, "stuck" if stuck else "prompt", backend]
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )

    def ready(self) -> tuple[str, int]:
        """Wait until it can be dialled; where."""
        assert self._process.stdout is not None
        return HOST, int(self._process.stdout.readline())

    def kill(self) -> None:
        """End it without a word."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def servers(*arguments: str) -> Iterator[tuple[Server, Server]]:
    """One that gets stuck, and one that does not."""
    one = Server(*arguments, stuck=True, backend="asyncio")
    other = Server(*arguments, stuck=False, backend="trio")
    try:
        yield one, other
    finally:
        one.kill()
        other.kill()


class User:
    """One client, what it asked for, and what it was told.

    Attributes:
        told: what became of each request, by its name: the answer, or the class of the error.
        states: what happened to its session, and when.
    """

    def __init__(self, number: int, client: ReconnectingClient) -> None:
        self.number = number
        self.client = client
        self.told: dict[str, Any] = {}
        self.states: list[tuple[float, State]] = []

    async def watch(self) -> None:
        async for state in self.client.events():
            self.states.append((anyio.current_time(), state))
            if isinstance(state, Lost | Detached):
                await self.ask("unsent", len(self.states), 10, timeout=0.0)

    async def ask(self, kind: str, number: int, size: int, timeout: float | None = None) -> bool:
        """Make a request that nobody else makes, and take down what is said of it; whether that it was done."""
        name = f"{kind} {self.number} {number}"
        data = name.encode().ljust(size, b"\n")
        try:
            answer = await self.client.request(data, timeout=timeout)
        except OutcomeUnknownError:
            self.told[name] = OutcomeUnknownError
        except NotSentError:
            self.told[name] = NotSentError
        else:
            assert int(answer) == len(data)
            self.told[name] = int
        return self.told[name] is int

    async def work(self, until_sessions: int) -> None:
        """One request after the other, until five are done in the last session."""
        more, number = 5, 0
        while more:
            was_done = await self.ask("quick", number, 20_000)
            number += 1
            more -= was_done and self.client.sessions >= until_sessions


async def names(store: SessionStore, namespace: str) -> set[str]:
    """All that is there."""
    found: set[str] = set()
    after = b""
    while page := await store.scan(namespace, after=after):
        found |= {entry.key.decode() for entry in page}
        after = page[-1].key
    return found


async def ready(store: SessionStore, users: list[User]) -> None:
    """Wait until each has been told of some, has a ticket, and is stuck in three more."""
    while len(await names(store, "stuck")) < len(KINDS) * len(users):
        await anyio.sleep(0.01)
    for user in users:
        while len(user.told) < 3 or (await user.client.session()).ticket is None:
            await anyio.sleep(0.01)


def check_way(user: User, killed: float) -> None:
    """From the loss to the next session: at once or after one wait of the policy, and by ticket."""
    after = [(when, state) for when, state in user.states if when >= killed]
    lost, first = next((when, state) for when, state in after if isinstance(state, Lost | Detached))
    again, state = next((when, state) for when, state in after if when >= lost and isinstance(state, Connected))
    assert first.until <= lost
    assert state == Connected(resumed=True)
    assert [type(state) for when, state in after if lost <= when <= again].count(Waiting) <= 1
    assert again - lost < POLICY.first + 1.5  # round trips, on a busy machine
    assert user.client.sessions == 2


@pytest.mark.parametrize(
    ("anyio_backend", "transport", "count"),
    [
        ("asyncio", "udp", 8),
        ("trio", "tcp", 8),
        pytest.param("asyncio", "tcp", 50, marks=pytest.mark.long),
        pytest.param("trio", "udp", 50, marks=pytest.mark.long),
    ],
)
async def test_a_server_that_is_killed(transport: str, count: int, redis_server: Callable[[], RedisServer]) -> None:
    """H7, G9, H-36: its clients go on at the other within one back-off, by ticket; what was confirmed is there, once;
    of all else that it was sent they are told that nobody knows, and of what was not sent, that it was not."""
    place = (redis_server().url, f"failover-{transport}-{count}")
    options: dict[str, Any] = {"shared_seed": SEED, "host": HOST}
    patience = {"keep_alive_interval": 0.3, "keep_alive_timeout": 1.5}
    users: list[User] = []
    with servers(*place, transport) as (one, other), anyio.fail_after(LIMIT):
        addresses = [one.ready(), other.ready()]
        async with redis.RedisSessionStore(place[0], prefix=place[1], timeout=30.0) as store:
            async with anyio.create_task_group() as nodes:
                for number in range(count):
                    node = STTNode(**options, **patience)
                    await nodes.start(run, node)
                    client = node.reconnecting(
                        addresses[0], transport=transport, policy=POLICY, addresses=addresses[1:]
                    )
                    users.append(User(number, client))
                async with anyio.create_task_group() as tasks:
                    for user in users:
                        nodes.start_soon(user.watch)
                        tasks.start_soon(user.work, 2)
                        for kind in KINDS:
                            tasks.start_soon(user.ask, kind, 0, 200_000)
                    await ready(store, users)
                    one.kill()
                    killed = anyio.current_time()
                for user in users:
                    check_way(user, killed)
                nodes.cancel_scope.cancel()
            check_truth(users, await names(store, "done"), await names(store, "twice"))


async def run(node: STTNode, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    """A node, until it is cancelled."""
    async with node:
        task_status.started()
        await anyio.sleep_forever()


def check_truth(users: list[User], done: set[str], twice: set[str]) -> None:
    """What users were told, beside what is in the store."""
    told: dict[str, Any] = {}
    for user in users:
        told |= user.told
    confirmed = {name for name, outcome in told.items() if outcome is int}
    unknown = {name for name, outcome in told.items() if outcome is OutcomeUnknownError}
    unsent = {name for name, outcome in told.items() if outcome is NotSentError}
    assert confirmed <= done <= confirmed | unknown
    assert twice == set()
    assert len(unsent) >= len(users)
    assert all(name.startswith("unsent") for name in unsent)
    for user in users:
        assert {f"{kind} {user.number} 0" for kind in KINDS} <= unknown
        assert f"late {user.number} 0" in done
        assert not {f"lost {user.number} 0", f"slow {user.number} 0"} & done
    kinds = Counter(name.split()[0] for name in confirmed)
    assert kinds["quick"] >= 8 * len(users)
