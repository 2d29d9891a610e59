"""Stores of sessions: what every `SessionStore` does. A new store joins by being opened in `tests/anyio/stores.py`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import anyio
import pytest

from stt_anyio.errors import ArgumentError, ResourcesExhaustedError, VersionConflictError
from stt_anyio.stores import MemorySessionStore, SessionStore
from tests.anyio.redis_server import RedisServer
from tests.anyio.stores import KINDS, Clock, Stores


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
