"""Stores of sessions: what every `SessionStore` does. A new store joins by being opened in `tests/anyio/stores.py`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from stt_anyio.errors import ArgumentError, ResourcesExhaustedError, VersionConflictError
from stt_anyio.stores import MemorySessionStore, SessionStore
from stt_proto.manager.store import MemoryStore
from tests.anyio.redis_server import RedisServer
from tests.anyio.stores import KINDS, SHARED, Clock, Stores
from tests.proto.manager.checked import run
from tests.proto.manager.sharing import Sharing


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=KINDS)
def stores(
    request: pytest.FixtureRequest, tmp_path: Path, redis_server: Callable[[], RedisServer], clock: Clock
) -> Callable[..., Stores]:
    """`stores(...)`: stores of one kind; each call makes others."""
    return partial(Stores, request.param, tmp_path, redis_server, clock)


@pytest.fixture
async def store(stores: Callable[..., Stores]) -> AsyncIterator[SessionStore]:
    async with stores().open() as opened:
        yield opened


async def test_it_is_a_store(store: SessionStore) -> None:
    assert isinstance(store, SessionStore)
    await store.aclose()


async def test_versions_and_lifetimes(store: SessionStore, clock: Clock) -> None:
    """H7: nothing is written blindly, and what has expired is gone."""
    version = await store.put("", b"key", b"1", if_version=0)
    with pytest.raises(VersionConflictError):
        await store.put("", b"key", b"2", if_version=0)
    await store.put("", b"key", b"2", if_version=version, ttl=10)
    clock.now += 4
    entry = await store.get("", b"key")
    assert entry is not None
    assert (entry.value, entry.ttl) == (b"2", 6.0)
    with pytest.raises(VersionConflictError):
        await store.delete("", b"key", if_version=version)
    clock.now += 6
    assert await store.get("", b"key") is None
    assert not await store.delete("", b"key")


async def test_scan(store: SessionStore) -> None:
    for key in (b"c", b"a", b"b"):
        await store.put(b"mine", key, b"", if_version=0)
    await store.put("mine", b"d", b"", if_version=0)
    first = await store.scan(b"mine", limit=2)
    rest = await store.scan(b"mine", after=first[-1].key, limit=2)
    assert [entry.key for entry in first + rest] == [b"a", b"b", b"c"]


async def test_everybody_at_once(store: SessionStore) -> None:
    """S14, K6: twenty appends by twenty tasks, none lost; of twenty that take one ticket one gets it."""
    took = []

    async def append(number: int) -> None:
        while True:
            entry = await store.get("", b"list")
            value, version = (b"", 0) if entry is None else (entry.value, entry.version)
            try:
                await store.put("", b"list", value + bytes((number,)), if_version=version)
                break
            except VersionConflictError:
                await anyio.lowlevel.checkpoint()
        if await store.take_once("", b"ticket", ttl=60):
            took.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(append, number)
    entry = await store.get("", b"list")
    assert entry is not None
    assert sorted(entry.value) == list(range(20))
    assert len(took) == 1


async def test_bounds() -> None:
    store = MemorySessionStore(max_entries=1)
    await store.put("", b"1", b"", if_version=0)
    with pytest.raises(ResourcesExhaustedError):
        await store.put("", b"2", b"", if_version=0)
    with pytest.raises(ArgumentError):
        await store.put("", b"", b"", if_version=0)
    assert len(store) == 1


async def test_lifetimes_to_the_end(store: SessionStore, clock: Clock) -> None:
    """H7: from its end on there is nothing, under any call; a write that follows creates."""
    await store.put("", b"a", b"1", if_version=0, ttl=5)
    version = await store.put("", b"b", b"1", if_version=0, ttl=5)
    assert await store.take_once("", b"a", ttl=5)
    clock.now += 4.999
    assert [entry.key for entry in await store.scan("")] == [b"a", b"b"]
    assert not await store.take_once("", b"a", ttl=5)
    clock.now += 0.001
    assert await store.scan("") == ()
    with pytest.raises(VersionConflictError) as caught:
        await store.put("", b"b", b"2", if_version=version)
    assert caught.value.version == 0
    assert await store.put("", b"b", b"2", if_version=0) > version
    assert await store.take_once("", b"a", ttl=5)


async def test_a_clock_that_steps_back_makes_nothing_good_again(store: SessionStore, clock: Clock) -> None:
    """H7, H-36: once somebody was told that it is over, it is."""
    await store.put("", b"a", b"1", if_version=0, ttl=5)
    await store.put("", b"b", b"1", if_version=0, ttl=1000)
    assert await store.take_once("", b"a", ttl=900)
    clock.now += 5
    assert await store.get("", b"a") is None
    clock.now -= 3
    assert await store.get("", b"a") is None
    assert [entry.key for entry in await store.scan("")] == [b"b"]
    assert not await store.take_once("", b"a", ttl=900)
    await store.put("", b"c", b"1", if_version=0, ttl=2)
    entry = await store.get("", b"c")
    assert entry is not None
    assert entry.ttl == 2.0, "what is new is not over"


async def test_what_was_deleted_does_not_come_back(store: SessionStore) -> None:
    """S14, K9: an update of what was read before is refused, also when the key is in use again."""
    old = await store.put("", b"key", b"1", if_version=0)
    assert await store.delete("", b"key", if_version=old)
    with pytest.raises(VersionConflictError) as caught:
        await store.put("", b"key", b"2", if_version=old)
    assert caught.value.version == 0
    new = await store.put("", b"key", b"3", if_version=0)
    with pytest.raises(VersionConflictError) as caught:
        await store.put("", b"key", b"2", if_version=old)
    assert caught.value.version == new > old


async def test_deleted_by_one(stores: Callable[..., Stores]) -> None:
    """H7: of all who delete one version, one is told that he did: so an entry is taken once, with what it holds."""
    shared, did = stores(), []

    async def take(store: SessionStore) -> None:
        entry = await store.get("", b"key")
        if entry is not None:
            try:
                did.append(await store.delete("", b"key", if_version=entry.version))
            except VersionConflictError:
                pass

    async with shared.open() as first, shared.open() as second:
        await first.put("", b"key", b"value", if_version=0)
        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(take, (first, second)[number % 2])
        assert did == [True]
        assert await second.get("", b"key") is None


async def test_names_of_namespaces(store: SessionStore) -> None:
    """G7, K10: no two are one, and no key of one is a key of another."""
    names = ["a", b"a", "A", "a.", "a_", "", b"", "ab", "\u00e9", "e\u0301", "\0", "x" * 1024]
    for number, name in enumerate(names):
        assert await store.put(name, b"b", b"%d" % number, if_version=0)
        assert await store.take_once(name, b"b", ttl=60)
    for number, name in enumerate(names):
        assert [entry.value for entry in await store.scan(name)] == [b"%d" % number]
        assert not await store.take_once(name, b"b", ttl=60)


async def test_every_byte(store: SessionStore) -> None:
    """H7: keys and values are bytes, whichever they are, in their order, up to their bounds."""
    keys = [bytes((byte,)) for byte in range(256)] + [b"\xff" * 255, b" 1 ", b"\n\n", b"\xff\0"]
    values = {key: bytes(range(256)) * (256 if len(key) == 255 else 1) for key in keys}
    for key, value in values.items():
        await store.put("", key, value, if_version=0)
    found = await store.scan("", limit=1000)
    assert [entry.key for entry in found] == sorted(keys)
    assert {entry.key: entry.value for entry in found} == values


async def test_a_page_of_large_entries(store: SessionStore) -> None:
    """H7: an answer that is shorter than asked for is the last, however large the entries are."""
    for number in range(40):
        await store.put("", b"%02d" % number, bytes(65_536), if_version=0)
    assert [len(await store.scan("", limit=limit)) for limit in (20, 39, 40, 41)] == [20, 39, 40, 40]
    assert [entry.key for entry in await store.scan("", after=b"37")] == [b"38", b"39"]


async def test_full(stores: Callable[..., Stores], clock: Clock) -> None:
    """H7: nothing is forgotten to make room, and what has expired makes room."""
    async with stores(max_entries=2, max_taken=2).open() as store:
        version = await store.put("", b"1", b"", if_version=0)
        await store.put("", b"2", b"", if_version=0, ttl=5)
        for name in ("", "other"):
            with pytest.raises(ResourcesExhaustedError):
                await store.put(name, b"3", b"", if_version=0)
        await store.put("", b"1", b"again", if_version=version)
        assert await store.take_once("", b"1", ttl=5)
        assert await store.take_once("", b"2", ttl=50)
        with pytest.raises(ResourcesExhaustedError):
            await store.take_once("", b"3", ttl=5)
        assert not await store.take_once("", b"1", ttl=5)
        clock.now += 5
        await store.put("", b"3", b"", if_version=0)
        assert await store.take_once("", b"3", ttl=5)
        with pytest.raises(ResourcesExhaustedError):
            await store.put("", b"4", b"", if_version=0)


async def test_crowds_that_expire(stores: Callable[..., Stores], clock: Clock) -> None:
    """H7: a call removes a bounded number of what is over, and shows none of it."""
    async with stores(max_entries=250, max_taken=250).open() as store:
        for number in range(250):
            await store.put("", b"%d" % number, b"", if_version=0, ttl=5 + number / 100)
            await store.take_once("", b"%d" % number, ttl=5 + number / 100)
        clock.now += 20
        assert await store.scan("") == ()
        assert await store.get("", b"249") is None
        assert await store.take_once("", b"249", ttl=5)
        assert not await store.delete("", b"248")
        await store.put("", b"247", b"", if_version=0)
        assert [entry.key for entry in await store.scan("")] == [b"247"]


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("key", lambda store: store.get("", b"")),
        ("key", lambda store: store.put("", bytes(256), b"", if_version=0)),
        ("key", lambda store: store.take_once("", "text", ttl=1)),
        ("key", lambda store: store.delete("", None)),
        ("namespace", lambda store: store.get(7, b"key")),
        ("namespace", lambda store: store.scan("x" * 1025)),
        ("value", lambda store: store.put("", b"key", bytes(65_537), if_version=0)),
        ("if_version", lambda store: store.put("", b"key", b"", if_version=-1)),
        ("if_version", lambda store: store.delete("", b"key", if_version=True)),
        ("ttl", lambda store: store.put("", b"key", b"", if_version=0, ttl=0)),
        ("ttl", lambda store: store.put("", b"key", b"", if_version=0, ttl=float("inf"))),
        ("ttl", lambda store: store.take_once("", b"key", ttl=float("nan"))),
        ("limit", lambda store: store.scan("", limit=1001)),
        ("after", lambda store: store.scan("", after=bytes(256))),
    ],
)  # fmt: skip
async def test_a_bad_argument_is_named(store: SessionStore, argument: str, call: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        await call(store)
    assert caught.value.argument == argument
    assert await store.scan("") == ()


# -- against the reference -----------------------------------------------------------------------------------------


class Asked:
    """A store as the machine wants it: it says what time it is, and waits for each answer."""

    def __init__(self, portal: BlockingPortal, store: SessionStore, clock: Clock) -> None:
        self._portal, self._store, self._clock = portal, store, clock

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._store, name)

        def call(*arguments: Any, **options: Any) -> Any:
            *rest, self._clock.now = arguments
            return self._portal.call(partial(method, *rest, **options))

        if name == "put":
            return lambda namespace, key, value, now, **options: call(namespace, key, value, now, **options)
        return call


@pytest.mark.parametrize("kind", SHARED)
def test_three_who_share(
    kind: str, tmp_path: Path, redis_server: Callable[[], RedisServer], anyio_backend: str
) -> None:
    """S14: three stores on one file, or one server, do what the reference does, which the model knows."""
    clock = Clock()
    with start_blocking_portal(anyio_backend) as portal, ExitStack() as stack:

        def opens(_: MemoryStore) -> Callable[[], Any]:
            stack.close()
            shared = Stores(kind, tmp_path, redis_server, clock)
            enter = portal.wrap_async_context_manager
            return lambda: Asked(portal, stack.enter_context(enter(shared.open())), clock)

        run(Sharing, examples=12, steps=40, opens=staticmethod(opens))
