"""The store in a file when things go wrong: damaged, replaced, put back, locked, of another program, or not there."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from stt_anyio.errors import ArgumentError, StateError, StoreDamagedError, StoreUnavailableError, VersionConflictError
from stt_anyio.stores.sqlite import SqliteSessionStore
from stt_anyio.stores.sqlite_file import APPLICATION, PURGED, SCHEMA
from tests.anyio.stores import Clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a store?#%20.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteSessionStore]:
    async with SqliteSessionStore(path, timeout=0.2) as opened:
        yield opened


CALLS: dict[str, Callable[[Any], Any]] = {
    "get": lambda store: store.get("", b"key"),
    "put": lambda store: store.put("", b"key", b"", if_version=0),
    "take_once": lambda store: store.take_once("", b"key", ttl=1),
    "delete": lambda store: store.delete("", b"key"),
    "scan": lambda store: store.scan(""),
}


async def fails(store: SqliteSessionStore, error: type[Exception], *calls: str) -> None:
    """Every call, or these, fail in the same way."""
    for call in calls or CALLS:
        with pytest.raises(error):
            await CALLS[call](store)


def change(path: Path, *statements: str) -> None:
    """Do something to the file past the store."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA ignore_check_constraints = ON")  # as damage does
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def contents(path: Path, new: bytes | None = None) -> bytes:
    """What is in the file; what is to be in it."""
    if new is not None:
        path.write_bytes(new)
    return path.read_bytes()


# -- as it should be -----------------------------------------------------------------------------------------------


async def test_over_restarts(path: Path) -> None:
    """H7: everything is there when the file is opened again, and versions go on."""
    clock = Clock()
    async with SqliteSessionStore(path, clock=clock) as store:
        version = await store.put("a", b"key", b"1", if_version=0, ttl=10)
        await store.put(b"a", b"key", b"2", if_version=0)
        assert await store.take_once("a", b"ticket", ttl=100)
    clock.now += 4
    async with SqliteSessionStore(path, clock=clock) as store:
        entry = await store.get("a", b"key")
        assert entry is not None
        assert (entry.value, entry.version, entry.ttl) == (b"1", version, 6.0)
        assert not await store.take_once("a", b"ticket", ttl=10)
        clock.now += 6
        assert await store.get("a", b"key") is None
    clock.now -= 3
    async with SqliteSessionStore(path, clock=clock) as store:
        assert await store.get("a", b"key") is None, "that it has expired is known over restarts too"
        assert not await store.take_once("a", b"ticket", ttl=10)
        assert [entry.value for entry in await store.scan(b"a")] == [b"2"]


@pytest.mark.parametrize("call", ["put", "delete"])
async def test_who_lost_was_told_that_it_is_over(path: Path, call: str) -> None:
    """S14, H7: that a lifetime is over is kept with a refusal too: a clock that steps back revives nothing."""
    clock = Clock()
    async with SqliteSessionStore(path, clock=clock) as store, SqliteSessionStore(path, clock=clock) as other:
        version = await store.put("", b"key", b"1", if_version=0, ttl=5)
        clock.now += 5
        calls = {
            "put": lambda: store.put("", b"key", b"2", if_version=version),
            "delete": lambda: store.delete("", b"key", if_version=version),
        }
        with pytest.raises(VersionConflictError) as caught:
            await calls[call]()
        assert caught.value.version == 0
        clock.now -= 3
        assert await other.get("", b"key") is None
        await other.put("", b"key", b"3", if_version=0)


async def test_a_relative_path_means_what_it_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """H7: a process that goes to another directory keeps its store."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    store = SqliteSessionStore("store")
    for place in ("elsewhere", ".."):
        async with store:
            monkeypatch.chdir(place)
            assert await store.take_once("", place.encode(), ttl=60)
    assert os.listdir(tmp_path / "elsewhere") == []


async def test_nobody_else_may_read_it(path: Path, store: SqliteSessionStore) -> None:
    await store.put("", b"key", b"secret", if_version=0)
    names = sorted(os.listdir(path.parent))
    assert names == [path.name, f"{path.name}-shm", f"{path.name}-wal"]
    assert {stat.S_IMODE((path.parent / name).stat().st_mode) for name in names} == {0o600}


async def test_the_wall_clock_is_that_of_the_machine(store: SqliteSessionStore) -> None:
    await store.put("", b"long", b"", if_version=0, ttl=3600)
    await store.put("", b"short", b"", if_version=0, ttl=0.001)
    while await store.get("", b"short") is not None:
        await anyio.sleep(0.001)
    entry = await store.get("", b"long")
    assert entry is not None
    assert entry.ttl is not None
    assert 3500 < entry.ttl <= 3600


async def test_each_write_removes_some_of_what_is_over(path: Path) -> None:
    """H7: all of it goes in time, and no call does it all."""
    clock = Clock()
    async with SqliteSessionStore(path, clock=clock) as store:
        for number in range(3 * PURGED):
            await store.take_once("", b"%d" % number, ttl=5)
        clock.now += 5
        left = []
        for number in range(4):
            await store.put("", b"%d" % number, b"", if_version=0)
            connection = sqlite3.connect(path)
            left += connection.execute("SELECT COUNT(*) FROM taken").fetchone()
            connection.close()
    assert left == [2 * PURGED, PURGED, 0, 0]


# -- locked, or not to be had --------------------------------------------------------------------------------------


async def test_somebody_else_is_at_it(path: Path, store: SqliteSessionStore) -> None:
    """H7: writers wait as long as `timeout`, in a thread: the loop goes on. Readers do not wait."""
    version = await store.put("", b"key", b"1", if_version=0)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    ticks, failed = 0, False

    async def write() -> None:
        nonlocal failed
        with pytest.raises(StoreUnavailableError) as caught:
            await store.put("", b"key", b"2", if_version=version)
        assert caught.value.retryable
        failed = True

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        while not failed:
            await anyio.sleep(0.001)
            ticks += 1
    assert ticks > 5
    entry = await store.get("", b"key")
    assert entry is not None
    assert entry.value == b"1"
    await fails(store, StoreUnavailableError, "take_once")
    other.execute("ROLLBACK")
    other.close()
    await store.put("", b"key", b"2", if_version=version)


async def test_opened_while_others_have_it(path: Path) -> None:
    """H7: to begin a log takes the file for itself; who cannot have it waits, and is told in the end."""
    async with SqliteSessionStore(path) as store:
        await store.put("", b"key", b"1", if_version=0)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA journal_mode = DELETE")
    other.execute("BEGIN")
    other.execute("SELECT * FROM entries").fetchall()
    with pytest.raises(StoreUnavailableError):
        await SqliteSessionStore(path, timeout=0.1).open()
    opened = []

    async def open_it() -> None:
        async with SqliteSessionStore(path, timeout=20.0) as store:
            opened.append(await store.get("", b"key"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(open_it)
        await anyio.sleep(0.02)
        assert not opened
        other.execute("COMMIT")
        other.close()
    assert opened[0].value == b"1"


async def test_a_write_that_is_cancelled(path: Path, store: SqliteSessionStore) -> None:
    """H7: it has happened as a whole, or not at all; who got an answer keeps it."""
    for number in range(50):
        took: list[bool] = []

        async def take(key: bytes, took: list[bool]) -> None:
            took.append(await store.take_once("", key, ttl=60))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take, b"%d" % number, took)
            for _ in range(number % 5):
                await checkpoint()
            tasks.cancel_scope.cancel()
        assert await store.take_once("", b"%d" % number, ttl=60) is (took == [])


async def test_many_wait_for_one_who_is_locked_out(path: Path) -> None:
    """H7: calls wait for each other and for other processes, both together no longer than `timeout`.

    Twenty calls, each of which may wait half a second: one after the other they would take ten.
    """
    ended: list[str] = []
    async with SqliteSessionStore(path, timeout=0.5) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        async def take(number: int) -> None:
            try:
                await store.take_once("", b"%d" % number, ttl=60)
            except StoreUnavailableError as error:
                ended.append(str(error))

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(take, number)
        other.execute("ROLLBACK")
        other.close()
        assert len(ended) == 20
        assert sum("nothing was asked" in each for each in ended) == 19
        for number in range(20):
            assert await store.take_once("", b"%d" % number, ttl=60)


async def test_no_such_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none" / "store", tmp_path):
        with pytest.raises(StoreUnavailableError):
            await SqliteSessionStore(path).open()


async def test_the_disk_is_full(store: SqliteSessionStore) -> None:
    """H7: nothing of a write that does not fit is there, and smaller ones still are."""
    version = await store.put("", b"key", b"1", if_version=0)
    assert store._file is not None
    (pages,) = store._file._connection.execute("PRAGMA page_count").fetchone()
    store._file._connection.execute(f"PRAGMA max_page_count = {pages + 4}")
    with pytest.raises(StoreUnavailableError):
        await store.put("", b"key", bytes(65_536), if_version=version)
    assert await store.put("", b"key", b"2", if_version=version) == version + 1


async def test_a_disk_that_takes_no_writes(path: Path) -> None:
    """H7: what is there can be read, nothing is taken or written, and no end of a lifetime is told that is not kept."""
    clock = Clock()
    async with SqliteSessionStore(path, clock=clock) as store:
        await store.put("", b"key", b"1", if_version=0, ttl=5)
        assert store._file is not None
        store._file._connection.execute("PRAGMA query_only = ON")
        assert [entry.value for entry in await store.scan("")] == [b"1"]
        await fails(store, StoreUnavailableError, "put", "take_once")
        clock.now += 5
        await fails(store, StoreUnavailableError)
        clock.now -= 5
        store._file._connection.execute("PRAGMA query_only = OFF")
        entry = await store.get("", b"key")
        assert entry is not None
        assert await store.take_once("", b"key", ttl=1)


# -- damaged -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b"no database, but long enough for a header" * 100),
        lambda path: change(path, "CREATE TABLE things (name TEXT)"),
        lambda path: change(path, "PRAGMA application_id = 7", f"PRAGMA user_version = {SCHEMA}"),
        lambda path: change(path, "PRAGMA user_version = 7"),
        lambda path: change(path, f"PRAGMA application_id = {APPLICATION}", f"PRAGMA user_version = {SCHEMA + 1}"),
    ],
)
async def test_of_another_program_or_a_newer_version(path: Path, make: Callable[[Path], Any]) -> None:
    """H7: it is left as it is."""
    make(path)
    before = contents(path)
    with pytest.raises(StoreDamagedError):
        await SqliteSessionStore(path).open()
    assert contents(path) == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    ("statement", "calls"),
    [
        ("DELETE FROM state", ()),
        ("UPDATE state SET versions = 'many'", ()),
        ("DROP TABLE state", ()),
        ("DROP TABLE taken", ()),
        ("DROP TABLE entries", ()),
        ("ALTER TABLE entries RENAME COLUMN value TO worth", ("get", "put", "scan")),
    ],
)
async def test_tables_that_are_damaged(
    path: Path, store: SqliteSessionStore, statement: str, calls: tuple[str, ...]
) -> None:
    change(path, statement)
    await fails(store, StoreDamagedError, *calls)


async def test_bytes_that_are_damaged(path: Path) -> None:
    """H7: whatever a bad disk did: an answer out of what is whole, or an error of stores."""
    async with SqliteSessionStore(path) as store:
        for number in range(200):
            await store.put("", b"%03d" % number, b"%d" % number * 20, if_version=0)
    whole, damaged = contents(path), 0
    assert len(whole) > 20_000
    for place in range(0, len(whole), 2027):
        contents(path, whole[:place] + b"\xa5" * 200 + whole[place + 200 :])
        try:
            async with SqliteSessionStore(path) as store:
                for number in range(0, 200, 20):
                    entry = await store.get("", b"%03d" % number)
                    assert entry is None or isinstance(entry.value, bytes)
                assert all(isinstance(entry.key, bytes) for entry in await store.scan(""))
                await store.take_once("", b"%d" % place, ttl=5)
        except (StoreDamagedError, StoreUnavailableError):
            damaged += 1
    assert damaged > 5


@pytest.mark.parametrize(
    ("state", "calls"),
    [
        ("versions = 9223372036854775807", ("put", "take_once")),
        ("versions = -1", ()),
        ("entries = -1", ()),
        ("taken = -1", ()),
        ("expired = 9e999", ()),
        ("expired = -1.0", ()),
    ],
)
async def test_counts_that_nobody_wrote(path: Path, state: str, calls: tuple[str, ...]) -> None:
    """H7: nothing is decided by them, and no other error comes out; versions begin nowhere again."""
    async with SqliteSessionStore(path):
        pass
    change(path, f"UPDATE state SET {state}")
    async with SqliteSessionStore(path) as store:
        await fails(store, StoreDamagedError, *calls)


@pytest.mark.parametrize("gone", [True, False])
async def test_a_file_in_its_place(path: Path, store: SqliteSessionStore, gone: bool) -> None:
    """H7: two files cannot both be the store: who has the old one open is told."""
    shutil.copyfile(path, path.with_name("copy"))
    if gone:
        os.unlink(path)
    else:
        os.replace(path.with_name("copy"), path)
    await fails(store, StoreUnavailableError if gone else StoreDamagedError)


async def test_an_older_state_of_it(path: Path, store: SqliteSessionStore) -> None:
    """H7: what has fewer changes than it told of was put back; what was taken once could be taken again."""
    await store.take_once("", b"ticket", ttl=60)
    change(path, "DELETE FROM taken", "UPDATE state SET versions = 0, taken = 0")
    await fails(store, StoreDamagedError)
    async with SqliteSessionStore(path) as anew:
        assert await anew.take_once("", b"ticket", ttl=60)
        version = await anew.put("", b"key", b"", if_version=0)
        await anew.delete("", b"key")
        change(
            path,
            f"INSERT INTO entries VALUES (x'74', x'6b6579', x'', {version}, 1e300)",
            f"UPDATE state SET versions = {version}, entries = 1",
        )
        await fails(anew, StoreDamagedError)


# -- open and closed -----------------------------------------------------------------------------------------------


async def use(store: SqliteSessionStore, version: int) -> None:
    async with store:
        with pytest.raises(VersionConflictError):
            await store.put("", b"key", b"", if_version=version + 1)
        raise KeyError


async def test_opened_and_closed(path: Path) -> None:
    store = SqliteSessionStore(path)
    await fails(store, StateError)
    await store.open()
    await store.open()
    version = await store.put("", b"key", b"", if_version=0)
    await store.aclose()
    await store.aclose()
    await fails(store, StateError)
    with pytest.raises(KeyError):
        await use(store, version)
    assert os.listdir(path.parent) == [path.name]


async def test_closed_though_all_is_cancelled(path: Path) -> None:
    """H7: who is cancelled leaves no file open and no log behind; a store that is closed can be opened again."""
    store = SqliteSessionStore(path)
    for number in range(3):
        with anyio.CancelScope() as scope:
            async with store:
                await store.put("", b"%d" % number, b"", if_version=0)
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        await fails(store, StateError)
        assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("path", {"path": b"bytes"}),
        ("path", {"path": 7}),
        ("path", {"path": ""}),
        ("path", {"path": "a\0b"}),
        ("timeout", {"timeout": 0}),
        ("timeout", {"timeout": 61}),
        ("max_entries", {"max_entries": 0}),
        ("max_taken", {"max_taken": True}),
    ],
)
def test_bad_options(argument: str, options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as caught:
        SqliteSessionStore(**{"path": "store", **options})
    assert caught.value.argument == argument
