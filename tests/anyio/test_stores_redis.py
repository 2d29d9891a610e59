"""The store in Redis when things go wrong: down, slow, forgetful, evicted, full, or no Redis at all."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import anyio
import pytest
from anyio.streams.tls import TLSListener
from hypothesis import given
from hypothesis import strategies as st

from stt_anyio.errors import (
    ArgumentError,
    ResourcesExhaustedError,
    StateError,
    StoreDamagedError,
    StoreUnavailableError,
    VersionConflictError,
)
from stt_anyio.stores import StoredEntry
from tests.anyio.certificates import contexts
from tests.anyio.redis_server import Halted, RedisServer, find_server

redis = pytest.importorskip("stt_anyio.stores.redis", reason="the extra stt-transport[redis] is not installed")

Open = Callable[..., Any]

_numbers = count()


@pytest.fixture
def open_store(redis_server: Callable[[], RedisServer]) -> Open:
    """`async with open_store(...) as store`: a store of its own in the server that all tests share."""
    return lambda **options: redis.RedisSessionStore(
        redis_server().url, **{"prefix": f"own{next(_numbers)}", **options}
    )


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server for one test alone."""
    if find_server() is None:
        pytest.skip("no redis-server or valkey-server here: see .ci/redis.py")
    server = RedisServer()
    server.start()
    yield server
    server.close()


async def fails(store: Any, error: type[Exception]) -> Exception:
    """Every call fails in the same way."""
    calls = (
        lambda: store.get("", b"key"),
        lambda: store.put("", b"key", b"", if_version=0),
        lambda: store.take_once("", b"key", ttl=1),
        lambda: store.delete("", b"key"),
        lambda: store.scan(""),
    )
    for call in calls:
        with pytest.raises(error) as caught:
            await call()
    return caught.value


async def test_the_servers_own_clock(open_store: Open) -> None:
    """H7: no caller's clock decides how long something is kept."""
    async with open_store() as store:
        await store.put("", b"long", b"", if_version=0, ttl=3600)
        await store.put("", b"short", b"", if_version=0, ttl=0.001)
        while await store.get("", b"short") is not None:
            await anyio.sleep(0.001)
        entry = await store.get("", b"long")
        assert 3500 < entry.ttl <= 3600


async def test_prefixes(redis_server: Callable[[], RedisServer], open_store: Open) -> None:
    """Stores with different prefixes do not know each other, and each is five keys with one hash tag."""
    prefix = f"prefix{next(_numbers)}"
    async with open_store(prefix=f"{prefix}.b") as one, open_store(prefix=prefix) as other:
        await one.put("", b"key", b"", if_version=0)
        assert await other.get("", b"key") is None
        assert await one.take_once("", b"key", ttl=60)
        assert await other.take_once("", b"key", ttl=60)
    keys = redis_server().ask("KEYS", f"{{{prefix}.b}}:*").split(b"\r\n")[2::2]
    assert sorted(keys) == [f"{{{prefix}.b}}:{name}".encode() for name in sorted(redis.KEYS)]


# -- down, and slow ------------------------------------------------------------------------------------------------


async def test_nobody_there(tmp_path: Any) -> None:
    """H7: a server that is down is `StoreUnavailableError`, soon; nothing has to be there to open the store."""
    async with redis.RedisSessionStore(f"unix://{tmp_path}/nobody") as store:
        error = await fails(store, StoreUnavailableError)
        assert error.retryable  # type: ignore[attr-defined]
    async with redis.RedisSessionStore("redis://127.0.0.1:1", timeout=5.0) as store:
        await fails(store, StoreUnavailableError)


async def test_a_server_that_goes_and_comes_back_empty(server: RedisServer, open_store: Open) -> None:
    """H7: what it told before it lost everything is not forgotten here: refused until the store is opened anew."""
    store = redis.RedisSessionStore(server.url)
    async with store:
        await store.put("", b"key", b"1", if_version=0)
        assert await store.take_once("", b"ticket", ttl=60)
        server.kill()
        await fails(store, StoreUnavailableError)
        server.start()
        await fails(store, StoreDamagedError)
        assert "1 changes" not in str(await fails(store, StoreDamagedError))
    async with store:
        assert await store.get("", b"key") is None
        await store.put("", b"key", b"1", if_version=0)


async def test_a_server_that_returns_old_versions(redis_server: Callable[[], RedisServer], open_store: Open) -> None:
    """H7: one that fell behind what it told (a replica that took over, a copy from before) is found out.

    So it is in every kind of call, and though others have written meanwhile.
    """
    server = redis_server()
    for call in range(5):
        prefix = f"old{next(_numbers)}"
        async with open_store(prefix=prefix) as store, open_store(prefix=prefix) as other:
            await store.put("", b"key", b"1", if_version=0)
            for number in range(5):
                await store.take_once("", b"%d" % number, ttl=60)
            version = await store.put("", b"other", b"2", if_version=0)
            server.ask("DEL", *(f"{{{prefix}}}:{name}" for name in redis.KEYS))
            await other.put("", b"other", b"0", if_version=0)
            calls = (
                lambda store, version: store.put("", b"other", b"3", if_version=version),
                lambda store, version: store.take_once("", b"0", ttl=60),
                lambda store, version: store.get("", b"other"),
                lambda store, version: store.delete("", b"other"),
                lambda store, version: store.scan(""),
            )
            with pytest.raises(StoreDamagedError, match="lost"):
                await calls[call](store, version)
            for number in range(10):
                await other.put("", b"%d" % number, b"", if_version=0)
            await fails(store, StoreDamagedError)
            entry = await other.get("", b"other")
            assert entry.value == b"0"


async def test_a_server_that_began_anew(redis_server: Callable[[], RedisServer], open_store: Open) -> None:
    """H7, H-36: one that lost everything is found out however much was written since, and by every kind of call."""
    server, prefix = redis_server(), f"anew{next(_numbers)}"
    async with open_store(prefix=prefix) as store, open_store(prefix=prefix) as reader:
        assert await store.take_once("", b"ticket", ttl=60)
        assert await reader.get("", b"key") is None
        server.ask("DEL", *(f"{{{prefix}}}:{name}" for name in redis.KEYS))
        async with open_store(prefix=prefix) as later:
            for number in range(9):
                await later.put("", b"%d" % number, b"", if_version=0)
            await fails(store, StoreDamagedError)
            await fails(reader, StoreDamagedError)
            assert "began anew" in str(await fails(store, StoreDamagedError))
            assert len(await later.scan("")) == 9


@pytest.fixture
def make_server() -> Iterator[Callable[..., RedisServer]]:
    """`make_server(**options)`: a server for one test alone."""
    if find_server() is None:
        pytest.skip("no redis-server or valkey-server here: see .ci/redis.py")
    made: list[RedisServer] = []

    def make(**options: str) -> RedisServer:
        made.append(RedisServer(**options))
        made[-1].start()
        return made[-1]

    yield make
    for server in made:
        server.close()


AT_ONCE = {"repl-diskless-sync-delay": "0"}


async def again(call: Callable[[], Any]) -> Any:
    """Until the store is there."""
    with anyio.fail_after(20):
        while True:
            try:
                return await call()
            except StoreUnavailableError:
                await anyio.sleep(0.01)


async def test_a_server_that_writes_everything_down(make_server: Callable[..., RedisServer]) -> None:
    """H7, H-36: killed and started again, with `appendfsync always`: nothing that was told is lost, and all goes on."""
    server = make_server(appendonly="yes", appendfsync="always")
    async with redis.RedisSessionStore(server.url) as store:
        version = await store.put("", b"key", b"1", if_version=0)
        for number in range(20):
            assert await store.take_once("", b"%d" % number, ttl=60)
        server.kill()
        await fails(store, StoreUnavailableError)
        server.start()
        entry = await again(lambda: store.get("", b"key"))
        assert (entry.value, entry.version) == (b"1", version)
        for number in range(20):
            assert not await store.take_once("", b"%d" % number, ttl=60)
        assert await store.put("", b"key", b"2", if_version=version) > version


async def until_it_has_all(replica: RedisServer, primary: RedisServer) -> None:
    asked = ("HGET", "{stt}:state", "versions")
    with anyio.fail_after(30):
        while replica.ask(*asked) != primary.ask(*asked):
            await anyio.sleep(0.01)


@pytest.mark.parametrize("behind", [False, True])
async def test_a_replica_that_takes_over(make_server: Callable[..., RedisServer], behind: bool) -> None:
    """H7, H-36: one that has everything goes on; one that was behind is refused, and no ticket is good twice."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    primary, replica = make_server(port=port, bind="127.0.0.1", **AT_ONCE), make_server()
    replica.ask("REPLICAOF", "127.0.0.1", port)
    async with redis.RedisSessionStore(primary.url) as store:
        assert await store.take_once("", b"0", ttl=60)
        await until_it_has_all(replica, primary)
        if behind:
            replica.ask("REPLICAOF", "NO", "ONE")
        assert await store.take_once("", b"1", ttl=60)
        if not behind:
            await until_it_has_all(replica, primary)
            replica.ask("REPLICAOF", "NO", "ONE")
        primary.kill()
        os.rename(replica.socket, primary.socket)
        if behind:
            with pytest.raises(StoreDamagedError, match="lost"):
                await again(lambda: store.take_once("", b"1", ttl=60))
            await fails(store, StoreDamagedError)
        else:
            assert not await again(lambda: store.take_once("", b"1", ttl=60))
            assert not await store.take_once("", b"0", ttl=60)
            assert await store.take_once("", b"2", ttl=60)


async def test_a_store_in_which_nothing_was_written(open_store: Open) -> None:
    """H7: two who find nothing, and then both write, mean the same store."""
    prefix = f"nothing{next(_numbers)}"
    async with open_store(prefix=prefix) as one, open_store(prefix=prefix) as other:
        for store in (one, other, one):
            assert await store.get("", b"key") is None
        assert await one.take_once("", b"1", ttl=60)
        assert await other.take_once("", b"2", ttl=60)
        assert not await one.take_once("", b"2", ttl=60)
        assert not await other.delete("", b"key")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("versions", "9007199254740992"),
        ("versions", "-1"),
        ("versions", "many"),
        ("expired", "inf"),
        ("expired", "nan"),
        ("entries", "-1"),
    ],
)
async def test_counts_that_nobody_wrote(
    redis_server: Callable[[], RedisServer], open_store: Open, field: str, value: str
) -> None:
    """H7: nothing is decided by them; beyond 2**53 numbers of a script are not exact, and versions would repeat."""
    prefix = f"counts{next(_numbers)}"
    async with open_store(prefix=prefix) as store:
        await store.take_once("", b"ticket", ttl=60)
    redis_server().ask("HSET", f"{{{prefix}}}:state", field, value)
    async with open_store(prefix=prefix) as store:
        await fails(store, StoreDamagedError)


async def test_a_server_that_is_slow(server: RedisServer) -> None:
    """H7: `StoreUnavailableError` after `timeout`; afterwards all is well, and no answer is taken for another's."""
    async with redis.RedisSessionStore(server.url, timeout=0.5) as store:
        version = await store.put("", b"key", b"1", if_version=0)
        with Halted(server):
            began = time.monotonic()
            with pytest.raises(StoreUnavailableError, match=r"0\.5 s"):
                await store.put("", b"key", b"2", if_version=version)
            assert 0.45 < time.monotonic() - began < 10
            with pytest.raises(StoreUnavailableError):
                await store.get("", b"key")
        for _ in range(1000):
            try:
                entry = await store.get("", b"key")
                break
            except StoreUnavailableError:  # it is only just awake
                await anyio.sleep(0.01)
        assert (entry.version, entry.value) in ((version, b"1"), (version + 1, b"2"))
        with pytest.raises(VersionConflictError):
            await store.put("", b"key", b"3", if_version=version + (entry.version == version))
        assert await store.take_once("", b"ticket", ttl=60)
        assert not await store.take_once("", b"ticket", ttl=60)


async def test_many_wait_for_a_slow_server(server: RedisServer) -> None:
    """H7: calls beyond what may be under way wait for their turn, and no longer than `timeout`; the loop goes on."""
    failed, ticks = [], 0

    async def ask() -> None:
        try:
            await store.get("", b"key")
        except StoreUnavailableError:
            failed.append(True)

    async with redis.RedisSessionStore(server.url, timeout=0.5) as store:
        await store.get("", b"key")
        with Halted(server):
            async with anyio.create_task_group() as tasks:
                for _ in range(3 * redis.MAX_WAITING):
                    tasks.start_soon(ask)
                while len(failed) < 3 * redis.MAX_WAITING:
                    await anyio.sleep(0.001)
                    ticks += 1
        assert ticks > 10
        assert len(store._connection._requests if store._connection else ()) <= redis.MAX_WAITING


async def test_calls_that_are_cancelled(server: RedisServer) -> None:
    """H7: one that has begun comes to its end: who gets an answer keeps it. Nothing is used up by it."""
    async with redis.RedisSessionStore(server.url, timeout=5.0) as store:
        for number in range(200):
            took = None
            with anyio.CancelScope() as scope:
                scope.cancel()
                took = await store.take_once("", b"%d" % number, ttl=60)
            assert took is None
            assert await store.take_once("", b"%d" % number, ttl=60), "it had not begun"
        async with anyio.create_task_group() as tasks:

            async def take(number: int) -> None:
                taken.append(await store.take_once("", b"x%d" % number, ttl=60))

            taken: list[bool] = []
            with Halted(server):
                for number in range(20):
                    tasks.start_soon(take, number)
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
        assert taken == [True] * 20


async def test_connections_that_break(server: RedisServer) -> None:
    """H7: the next call makes a new one, however often that happens."""
    async with redis.RedisSessionStore(server.url) as store:
        for number in range(100):
            while True:
                try:
                    await store.put("", b"%d" % number, b"", if_version=0)
                    break
                except StoreUnavailableError:  # the end of the connection was not seen yet
                    continue
                except VersionConflictError:
                    break
            server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert len(await store.scan("", limit=100)) == 100


async def test_a_connection_that_fails_in_its_end(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """H7: whatever the library raises when a connection is over ends that connection, and nothing of the caller's."""

    class Failing(redis._Connection):  # type: ignore[misc, name-defined]
        async def run(self, *, task_status: Any) -> None:
            await super().run(task_status=task_status)
            raise RuntimeError("a bug")

    monkeypatch.setattr(redis, "_Connection", Failing)
    async with redis.RedisSessionStore(server.url) as store:
        for number in range(3):
            await store.put("", b"%d" % number, b"", if_version=0)
            await store.aclose()
            await anyio.wait_all_tasks_blocked()
        assert len(await store.scan("")) == 3


async def test_a_connection_that_comes_too_late(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """H7: one that stands when the time is up is not left open, though nobody has begun to read from it."""
    made = []

    class Stopped:
        """Starts nothing."""

        async def start(self, *_: Any) -> None:
            raise KeyError("stopped")

    async def connect(*arguments: Any) -> Any:
        made.append(await real(*arguments))
        return made[0]

    real = redis._connect
    monkeypatch.setattr(redis, "_connect", connect)
    async with redis.RedisSessionStore(server.url) as store:
        tasks, store._tasks = store._tasks, Stopped()
        with pytest.raises(StoreUnavailableError):
            await store.get("", b"key")
        store._tasks = tasks
        with pytest.raises(anyio.ClosedResourceError):
            await made[0].send(b"x")


async def test_scripts_that_the_server_forgot(redis_server: Callable[[], RedisServer], open_store: Open) -> None:
    async with open_store() as store:
        await store.put("", b"key", b"1", if_version=0)
        redis_server().ask("SCRIPT", "FLUSH")
        entry = await store.get("", b"key")
        assert entry.value == b"1"


# -- damaged, full, refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", ["entries", "places", "expiry", "taken", "state"])
async def test_parts_that_are_evicted(redis_server: Callable[[], RedisServer], open_store: Open, gone: str) -> None:
    """H7: a part that is gone shows, also to those who come later, and nothing is answered out of the rest."""
    prefix = f"evicted-{gone}-{next(_numbers)}"
    async with open_store(prefix=prefix) as store:
        await store.put("", b"key", b"", if_version=0)
        await store.take_once("", b"ticket", ttl=60)
    redis_server().ask("DEL", f"{{{prefix}}}:{gone}")
    async with open_store(prefix=prefix) as store:
        await fails(store, StoreDamagedError)


@pytest.mark.parametrize(
    "command",
    [
        ("SET", "{%s}:entries", "x"),
        ("SET", "{%s}:state", "x"),
        ("HSET", "{%s}:state", "format", "2"),
    ],
)
async def test_of_another_program_or_version(
    redis_server: Callable[[], RedisServer], open_store: Open, command: tuple[str, ...]
) -> None:
    prefix = f"other{next(_numbers)}"
    redis_server().ask(*(word.replace("%s", prefix) for word in command))
    async with open_store(prefix=prefix) as store:
        await fails(store, StoreDamagedError)


async def test_an_entry_that_is_damaged(redis_server: Callable[[], RedisServer], open_store: Open) -> None:
    prefix = f"damaged{next(_numbers)}"
    async with open_store(prefix=prefix) as store:
        await store.put("", b"key", b"", if_version=0)
        place = redis_server().ask("HKEYS", f"{{{prefix}}}:entries").split(b"\r\n", 2)[2][:-2]
        assert len(place) == 32 + len(b"key")
        script = "local e = redis.call('HKEYS', KEYS[1]) return redis.call('HSET', KEYS[1], e[1], 'junk')"
        assert redis_server().ask("EVAL", script, "1", f"{{{prefix}}}:entries") == b":0\r\n"
        with pytest.raises(StoreDamagedError):
            await store.get("", b"key")
        with pytest.raises(StoreDamagedError):
            await store.scan("")


async def test_no_memory(server: RedisServer) -> None:
    """H7: it refuses rather than forgets (`noeviction`), and reading goes on."""
    async with redis.RedisSessionStore(server.url) as store:
        await store.put("", b"key", b"1", if_version=0)
        server.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(ResourcesExhaustedError):
            await store.put("", b"other", b"1", if_version=0)
        server.ask("CONFIG", "SET", "maxmemory", "0")
        assert await store.get("", b"other") is None


async def test_a_server_that_is_a_replica_now(server: RedisServer) -> None:
    """H7: it takes no writes; `StoreUnavailableError`, and well again when the address leads to a primary."""
    async with redis.RedisSessionStore(server.url) as store:
        await store.put("", b"key", b"1", if_version=0)
        server.ask("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(StoreUnavailableError):
            await store.put("", b"other", b"1", if_version=0)
        with anyio.fail_after(20):
            while b"connected_clients:1\r" not in server.ask("INFO", "clients"):  # it connects anew, perhaps elsewhere
                await anyio.sleep(0.001)
        server.ask("REPLICAOF", "NO", "ONE")
        await store.put("", b"other", b"1", if_version=0)


async def test_a_password(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """H7: it goes with the address, and is told to nobody else."""
    caplog.set_level(logging.DEBUG)
    server.ask("CONFIG", "SET", "requirepass", "hush%")
    right = f"unix://:hush%25@{server.socket}"
    async with redis.RedisSessionStore(right) as store:
        await store.put("", b"key", b"1", if_version=0)
        assert "hush" not in repr(store)
    for wrong in (server.url, right.replace("hush", "shush")):
        async with redis.RedisSessionStore(wrong) as store:
            error = await fails(store, StoreUnavailableError)
            assert "hush" not in f"{error!r} {error.__cause__!r}"
    assert "hush" not in caplog.text


# -- what is no Redis ----------------------------------------------------------------------------------------------

HELLO = b"%3\r\n$5\r\nproto\r\n:3\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n$2\r\nid\r\n:1\r\n"


@asynccontextmanager
async def pretending(*answers: bytes, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Somebody who answers each thing that is sent with the next of these, and closes behind the last."""

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            for answer in answers:
                try:
                    await stream.receive()
                except anyio.EndOfStream:
                    return
                await stream.send(answer)

    listener: Any = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    if context is not None:
        listener = TLSListener(listener, context, standard_compatible=False)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield f"redis://127.0.0.1:{port}"
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"+OK\r\n", StoreDamagedError),
        (b":5\r\n", StoreDamagedError),
        (b"*0\r\n", StoreDamagedError),
        (b"*1\r\n*1\r\n:1\r\n", StoreDamagedError),
        (b"_\r\n", StoreDamagedError),
        (b"*2\r\n$4\r\ndone\r\n$3\r\nmany\r\n", StoreDamagedError),
        (b"*3\r\n$4\r\ndone\r\n$1\r\n5\r\n$1\r\n5\r\n", StoreDamagedError),
        (b"*4\r\n$4\r\ndone\r\n$1\r\n5\r\n$1\r\n5\r\n$1\r\n5\r\n", StoreDamagedError),
        (b"*2\r\n$8\r\nconflict\r\n$1\r\n-\r\n", StoreDamagedError),
        (b"-ERR what?\r\n", StoreUnavailableError),
        (b"-MOVED 1234 127.0.0.1:1\r\n", StoreUnavailableError),
        (b"-LOADING Redis is loading the dataset in memory\r\n", StoreUnavailableError),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", StoreUnavailableError),
        (b"", StoreUnavailableError),
    ],
)
async def test_answers_that_make_no_sense(answer: bytes, error: type[Exception]) -> None:
    """H7: whatever answers there, it is one of the errors of stores."""
    async with pretending(HELLO, answer) as url, redis.RedisSessionStore(url, timeout=5.0) as store:
        with pytest.raises(error):
            await store.get("", b"key")


@pytest.mark.parametrize("greeting", [b"", b"220 mail.example ESMTP\r\n", b"-ERR unknown command 'HELLO'\r\n"])
async def test_no_redis_at_all(greeting: bytes) -> None:
    async with pretending(greeting) as url, redis.RedisSessionStore(url, timeout=0.5) as store:
        await fails(store, StoreUnavailableError)


OF_6_2 = f"Error running script (call to f_{0:040x}): @user_script:56: @user_script: 56: "
"""What Redis 6.2 writes before an error of a command in a script; Redis 7 writes the error alone."""


@pytest.mark.parametrize(
    ("refusal", "error", "stays"),
    [
        ("-OOM command not allowed when used memory > 'maxmemory'.", ResourcesExhaustedError, True),
        ("-WRONGTYPE Operation against a key holding the wrong kind of value", StoreDamagedError, True),
        ("-READONLY You can't write against a read only replica.", StoreUnavailableError, False),
        ("-NOREPLICAS Not enough good replicas to write.", StoreUnavailableError, True),
        ("attempt to get length of local 'entry' (a boolean value)", StoreDamagedError, True),
    ],
)
async def test_refusals_of_redis_6(refusal: str, error: type[Exception], stays: bool) -> None:
    """H7: they mean what they mean in Redis 7; a replica is left, so that the primary is looked for."""
    line = f"-ERR {OF_6_2}{refusal} \r\n".encode()
    async with pretending(HELLO, line, line) as url, redis.RedisSessionStore(url, timeout=5.0) as store:
        with pytest.raises(error):
            await store.put("", b"key", b"", if_version=0)
        assert (store._connection is not None) is stays


PARTS = (
    b"done",
    b"conflict",
    b"full",
    b"lost",
    b"damaged",
    b"format",
    b"0",
    b"5",
    b"1 inf value",
    b"1 2",
    b"nan",
    b"1e999",
)
answers = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=40) | st.sampled_from(PARTS),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(PARTS), inner, max_size=2),
    max_leaves=12,
)


@given(st.lists(st.sampled_from(PARTS[:6]), min_size=1, max_size=1), st.lists(answers, max_size=5))
def test_any_answer(status: list[Any], rest: list[Any]) -> None:
    """H7: whatever an answer is, a call gives what it promises, or one of the errors of stores."""

    async def ask() -> None:
        async with redis.RedisSessionStore("redis://localhost") as store:
            store._exchange = answer
            for call, kinds in (
                (lambda: store.get("", b"key"), (StoredEntry, type(None))),
                (lambda: store.put("", b"key", b"", if_version=0), (int,)),
                (lambda: store.take_once("", b"key", ttl=1), (bool,)),
                (lambda: store.delete("", b"key"), (bool,)),
                (lambda: store.scan("", limit=5), (tuple,)),
            ):
                try:
                    assert isinstance(await call(), kinds)
                except (StoreDamagedError, ResourcesExhaustedError, VersionConflictError):
                    pass

    async def answer(*_: Any) -> object:
        return [*status, *rest]

    anyio.run(ask)


async def test_a_scan_without_end() -> None:
    """H7: pages that say that there is more, and never bring it, come to an end."""
    async with redis.RedisSessionStore("redis://localhost") as store:
        for page in ([], [bytes(32) + b"key", b"1 0.5 value"]):

            async def answer(*_: Any, page: list[bytes] = page) -> object:
                return [b"done", b"1", b"1", b"1", b"1", page]

            store._exchange = answer
            with anyio.fail_after(5):
                if page:
                    with pytest.raises(StoreDamagedError):
                        await store.scan("")
                else:
                    assert await store.scan("") == ()


async def test_tls() -> None:
    """H7: with `rediss://` the certificate must be good, and for this name, unless a context says otherwise."""
    server, client = contexts()
    nothing = b"*4\r\n$4\r\ndone\r\n$1\r\n5\r\n$1\r\n5\r\n_\r\n"
    async with pretending(HELLO, nothing, context=server) as url:
        secure = url.replace("redis:", "rediss:")
        async with redis.RedisSessionStore(secure, ssl_context=client) as store:
            assert await store.get("", b"key") is None
        async with redis.RedisSessionStore(secure) as store:
            await fails(store, StoreUnavailableError)
    async with pretending(HELLO, nothing, context=server) as url:
        async with redis.RedisSessionStore(url.replace("redis:", "rediss:"), ssl_context=contexts("b")[1]) as store:
            await fails(store, StoreUnavailableError)


# -- open and closed -----------------------------------------------------------------------------------------------


async def use(store: Any) -> None:
    async with store:
        await store.put("", b"key", b"", if_version=0)
        await store.aclose()
        assert await store.get("", b"key") is not None
        with pytest.raises(StateError):
            await store.__aenter__()
        raise KeyError


async def test_opened_and_closed(open_store: Open) -> None:
    """H7: what the caller raises comes out as it is, and a store that is not open says so."""
    store = open_store()
    await fails(store, StateError)
    with pytest.raises(KeyError):
        await use(store)
    await fails(store, StateError)


async def test_cancelled_while_it_is_open(open_store: Open) -> None:
    """H7: a cancellation around it comes through, and it can be opened again."""
    store = open_store()
    for number in range(3):
        with anyio.CancelScope() as scope:
            async with store:
                await store.put("", b"%d" % number, b"", if_version=0)
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
    with pytest.raises(ExceptionGroup) as caught:
        await use_in_group(store)
    assert caught.group_contains(KeyError, depth=1)


async def test_an_error_while_others_wait(server: RedisServer) -> None:
    """H7: they are told that the connection ended, and what the caller raised is not lost over it."""

    async def raises(store: Any) -> None:
        async with anyio.create_task_group() as tasks, store:
            await store.get("", b"0")
            with Halted(server):
                tasks.start_soon(store.get, "", b"0")
                await anyio.wait_all_tasks_blocked()
                raise KeyError

    with pytest.raises(ExceptionGroup) as caught:
        await raises(redis.RedisSessionStore(server.url))
    assert caught.group_contains(KeyError, depth=1)
    assert caught.group_contains(StoreUnavailableError, depth=1)


async def use_in_group(store: Any) -> None:
    async with anyio.create_task_group() as tasks, store:
        tasks.start_soon(store.get, "", b"0")
        await store.get("", b"0")
        raise KeyError


async def test_too_many_wait(open_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """H7: who gets no turn within `timeout` is told so, and that nothing was asked."""
    monkeypatch.setattr(redis, "MAX_WAITING", 1)
    async with open_store(timeout=0.05) as store:
        await store._room.acquire()
        with pytest.raises(StoreUnavailableError, match="nothing was asked"):
            await store.put("", b"key", b"", if_version=0)
        store._room.release()


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("url", {"url": "http://localhost"}),
        ("url", {"url": "localhost:6379"}),
        ("url", {"url": "redis:///0"}),
        ("url", {"url": "redis://localhost:port"}),
        ("url", {"url": None}),
        ("prefix", {"prefix": None}),
        ("prefix", {"prefix": "\udc80"}),
        ("prefix", {"prefix": ""}),
        ("prefix", {"prefix": "a}b"}),
        ("prefix", {"prefix": "x" * 65}),
        ("timeout", {"timeout": 0}),
        ("timeout", {"timeout": float("inf")}),
        ("max_entries", {"max_entries": 0}),
        ("max_taken", {"max_taken": 1.5}),
    ],
)
def test_bad_options(argument: str, options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as caught:
        redis.RedisSessionStore(**{"url": "redis://localhost", **options})
    assert caught.value.argument == argument
