"""The file behind `SqliteSessionStore`: what is in it, and what is done to it in one transaction. Every call blocks.

Three tables: `entries`, `taken`, and `state`, one row: how many changes there were (`versions`), how much is held, and
`expired`, the last end of a lifetime that any call has seen pass. What ends by then has ended, whatever the wall clock
says afterwards; removing it is a matter of room and is done a little at a time.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path
from typing import Any

from stt_anyio.errors import (
    ResourcesExhaustedError,
    StoreDamagedError,
    StoreUnavailableError,
    VersionConflictError,
)
from stt_proto.manager.store import StoredEntry

APPLICATION = 0x53545453
"""`PRAGMA application_id` of our files: "STTS"."""
SCHEMA = 1
"""`PRAGMA user_version` of our files."""
PURGED = 64
"""Lifetimes that are over and that one write removes, at most, so that none takes long."""

_PASSING = frozenset({
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_PERM,
})  # fmt: skip
"""Results that speak against the disk or the moment, not against what is in the file."""

_MOST = (1 << 63) - 1
"""The largest number that SQLite keeps: nothing is counted that far in a file that is whole."""

_CREATE = (
    """CREATE TABLE entries (
        space BLOB NOT NULL CHECK (typeof(space) = 'blob'),
        key BLOB NOT NULL CHECK (typeof(key) = 'blob'),
        value BLOB NOT NULL CHECK (typeof(value) = 'blob'),
        version INTEGER NOT NULL CHECK (typeof(version) = 'integer'),
        expires REAL NOT NULL CHECK (typeof(expires) = 'real'),
        PRIMARY KEY (space, key)
    ) WITHOUT ROWID""",
    """CREATE TABLE taken (
        space BLOB NOT NULL CHECK (typeof(space) = 'blob'),
        key BLOB NOT NULL CHECK (typeof(key) = 'blob'),
        expires REAL NOT NULL CHECK (typeof(expires) = 'real'),
        PRIMARY KEY (space, key)
    ) WITHOUT ROWID""",
    "CREATE INDEX entries_by_expiry ON entries (expires)",
    "CREATE INDEX taken_by_expiry ON taken (expires)",
    """CREATE TABLE state (
        versions INTEGER NOT NULL CHECK (typeof(versions) = 'integer'),
        entries INTEGER NOT NULL CHECK (typeof(entries) = 'integer'),
        taken INTEGER NOT NULL CHECK (typeof(taken) = 'integer'),
        expired REAL NOT NULL CHECK (typeof(expired) = 'real')
    )""",
    "INSERT INTO state VALUES (0, 0, 0, 0.0)",
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {SCHEMA}",
)

_LAST_END = """SELECT MAX(
    COALESCE((SELECT MAX(expires) FROM entries WHERE expires <= ?1), 0.0),
    COALESCE((SELECT MAX(expires) FROM taken WHERE expires <= ?1), 0.0)
)"""
_DUE = "SELECT space, key FROM {} WHERE expires <= ? ORDER BY expires LIMIT ?"
_DELETE = "DELETE FROM {} WHERE space = ? AND key = ?"


class SqliteFile:
    """One connection to the file. One call at a time, from any thread.

    Args:
        path: of the file; made, for nobody but its owner, if it does not exist.
        max_entries: entries in the file, of all namespaces.
        max_taken: keys of `take_once` in the file, likewise.
        timeout: seconds that a call waits for those of other processes, if `wait_until` says nothing else.
        clock: the wall clock.

    Raises:
        StoreUnavailableError: the file cannot be used, now or for so long; so for all methods.
        StoreDamagedError: it is damaged, of another program or of a newer version; so for all methods.
    """

    def __init__(
        self, path: Path, *, max_entries: int, max_taken: int, timeout: float, clock: Callable[[], float]
    ) -> None:
        self._path = path
        self._limits = {"entries": max_entries, "taken": max_taken}
        self._clock = clock
        self._deadline = time.monotonic() + timeout
        self._seen = 0  # the highest version that this file has told
        self._versions = 0
        self._held = {"entries": 0, "taken": 0}
        with _typed(path):
            _make_file(path)
            self._identity = _identity(path)
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=rw",
                uri=True,
                timeout=timeout,
                isolation_level=None,
                check_same_thread=False,
            )
        try:
            with _typed(path):
                self._prepare()
                self._log_ahead(timeout)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Let go of the file; idempotent."""
        with _typed(self._path):
            self._connection.close()

    def wait_until(self, deadline: float) -> None:
        """Until when the next call waits for those of other processes, on the clock of `time.monotonic`."""
        self._deadline = deadline

    def get(self, space: bytes, key: bytes) -> StoredEntry | None:
        """What is there, if anything."""
        with self._reading() as (now, ended):
            found = self._find(space, key)
            return None if found is None or found[2] <= ended else _entry(key, *found, now)

    def put(self, space: bytes, key: bytes, value: bytes, if_version: int, ttl: float | None) -> int:
        """Write if the version is this one; the new version."""
        with self._writing() as (now, ended):
            found = self._find_alive(space, key, ended)
            _agree(0 if found is None else found[1], if_version)
            if found is None:
                self._make_room("entries", "entries")
            self._versions += 1
            row = (space, key, value, self._versions, inf if ttl is None else now + ttl)
            self._connection.execute("REPLACE INTO entries VALUES (?, ?, ?, ?, ?)", row)
            return self._versions

    def take_once(self, space: bytes, key: bytes, ttl: float) -> bool:
        """Whether nobody has taken it."""
        with self._writing() as (now, ended):
            query = "SELECT expires FROM taken WHERE space = ? AND key = ?"
            found = self._connection.execute(query, (space, key)).fetchone()
            if found is not None:
                if _sound(found, float)[0] > ended:
                    return False
                self._remove("taken", space, key)
            self._make_room("taken", "keys that were taken")
            self._versions += 1
            self._connection.execute("INSERT INTO taken VALUES (?, ?, ?)", (space, key, now + ttl))
            return True

    def delete(self, space: bytes, key: bytes, if_version: int | None) -> bool:
        """Delete if the version is this one; whether there was an entry."""
        with self._writing() as (_, ended):
            found = self._find_alive(space, key, ended)
            if if_version is not None:
                _agree(0 if found is None else found[1], if_version)
            if found is not None:
                self._remove("entries", space, key)
            return found is not None

    def scan(self, space: bytes, after: bytes, limit: int) -> tuple[StoredEntry, ...]:
        """The entries behind a key, in order."""
        query = (
            "SELECT key, value, version, expires FROM entries"
            " WHERE space = ? AND key > ? AND expires > ? ORDER BY key LIMIT ?"
        )
        with self._reading() as (now, ended):
            rows = self._connection.execute(query, (space, after, ended, limit)).fetchall()
            found = (_sound(row, bytes, bytes, int, float) for row in rows)
            return tuple(_entry(key, value, version, expires, now) for key, value, version, expires in found)

    # -- transactions ----------------------------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[tuple[float, float]]:
        """One view of the file. Gives the time, and the time by which what ends has ended.

        That an end has passed is written down before anybody is told.
        """
        with self._transaction("BEGIN") as (now, ended, passed):
            if not passed:
                yield now, ended
                return
        with self._writing() as (now, ended):
            yield now, ended

    @contextmanager
    def _writing(self) -> Iterator[tuple[float, float]]:
        """All or nothing, and on the disk at the end. Gives what `_reading` gives.

        A refusal comes before its call has written anything. It is raised once what is over has been written down: it
        tells of that too.
        """
        refusal: VersionConflictError | ResourcesExhaustedError | None = None
        with self._transaction("BEGIN IMMEDIATE") as (now, ended, _):
            before = self._versions
            self._purge(ended)
            try:
                yield now, ended
            except (VersionConflictError, ResourcesExhaustedError) as error:
                refusal = error
            if self._versions != before:
                self._connection.execute(
                    "UPDATE state SET versions = ?, entries = ?, taken = ?, expired = ?",
                    (self._versions, self._held["entries"], self._held["taken"], ended),
                )
        if refusal is not None:
            raise refusal

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[tuple[float, float, bool]]:
        with _typed(self._path):
            if _identity(self._path) != self._identity:
                raise StoreDamagedError(f"{str(self._path)!r} is not the file any more that was opened")
            patience = max(0, round(1000 * (self._deadline - time.monotonic())))
            self._connection.execute(f"PRAGMA busy_timeout = {patience}")
            self._connection.execute(begin)
            try:
                row = self._connection.execute("SELECT versions, entries, taken, expired FROM state").fetchone()
                self._versions, self._held["entries"], self._held["taken"], expired = _sound(row, int, int, int, float)
                if min(row) < 0 or row[0] > _MOST - 4 * PURGED or expired == inf:
                    raise StoreDamagedError(f"{str(self._path)!r} is damaged: it has counts that nobody wrote")
                if self._versions < self._seen:
                    raise StoreDamagedError(
                        f"{str(self._path)!r} was put back: it tells of {self._versions} changes,"
                        f" and told of {self._seen}"
                    )
                now = max(self._clock(), expired)
                (ended,) = self._connection.execute(_LAST_END, (now,)).fetchone()
                yield now, max(ended, expired), ended > expired
                self._connection.execute("COMMIT")
                self._seen = self._versions
            except BaseException:
                with suppress(sqlite3.Error):
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                raise

    def _find(self, space: bytes, key: bytes) -> tuple[bytes, int, float] | None:
        query = "SELECT value, version, expires FROM entries WHERE space = ? AND key = ?"
        found = self._connection.execute(query, (space, key)).fetchone()
        return None if found is None else _sound(found, bytes, int, float)

    def _find_alive(self, space: bytes, key: bytes, ended: float) -> tuple[bytes, int, float] | None:
        """The entry of a key; one whose lifetime is over is removed."""
        found = self._find(space, key)
        if found is None or found[2] > ended:
            return found
        self._remove("entries", space, key)
        return None

    def _make_room(self, table: str, what: str) -> None:
        limit = self._limits[table]
        if self._held[table] >= limit:
            raise ResourcesExhaustedError(f"the store holds {limit:,} {what}")
        self._held[table] += 1

    def _remove(self, table: str, space: bytes, key: bytes) -> None:
        """A change like any other: so a copy of the file from before it is told from the file."""
        self._connection.execute(_DELETE.format(table), (space, key))
        self._held[table] -= 1
        self._versions += 1

    def _purge(self, ended: float) -> None:
        """Make room of what is over."""
        for table in self._held:
            for place in self._connection.execute(_DUE.format(table), (ended, PURGED)).fetchall():
                self._remove(table, *place)

    # -- the file --------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """See whose file this is, and make it ours if it is nobody's."""
        connection, name = self._connection, str(self._path)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")  # without it macOS leaves what is written in the drive's memory
        connection.execute("PRAGMA checkpoint_fullfsync = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("BEGIN IMMEDIATE")
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (schema,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        if application == schema == tables == 0:
            for statement in _CREATE:
                connection.execute(statement)
        elif application != APPLICATION:
            raise StoreDamagedError(f"{name!r} is a file of another program")
        elif schema != SCHEMA:
            raise StoreDamagedError(f"{name!r} has schema {schema}, and this version knows {SCHEMA} alone")
        connection.execute("COMMIT")

    def _log_ahead(self, timeout: float) -> None:
        """Write ahead (WAL), so that who reads waits for nobody.

        To begin with that a process needs the file for itself, and SQLite does not wait for it.
        """
        patience = time.monotonic() + timeout
        while True:
            try:
                (mode,) = self._connection.execute("PRAGMA journal_mode = WAL").fetchone()
                break
            except sqlite3.OperationalError:
                if time.monotonic() >= patience:
                    raise
                time.sleep(0.005)
        if mode != "wal":
            raise StoreUnavailableError(f"{str(self._path)!r} is where SQLite can have no write-ahead log")


def _sound(row: Any, *types: type) -> Any:
    """A row, if it holds what it should: what is read is not checked by SQLite."""
    if row is None or [type(value) for value in row] != [*types]:
        raise StoreDamagedError("the file is damaged: it holds what was never put there")
    return row


def _entry(key: bytes, value: bytes, version: int, expires: float, now: float) -> StoredEntry:
    return StoredEntry(key, value, version, None if expires == inf else expires - now)


def _agree(version: int, if_version: int) -> None:
    if version != if_version:
        there = f"version {version}" if version else "nothing there"
        wanted = f"version {if_version}" if if_version else "nothing there"
        raise VersionConflictError(f"there should be {wanted}, and there is {there}", version=version)


def _make_file(path: Path) -> None:
    """Only its owner may read it. SQLite gives the log beside it the same rights."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


@contextmanager
def _typed(path: Path) -> Iterator[None]:
    """What SQLite and the system raise, as errors of stores."""
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in _PASSING:
            raise StoreUnavailableError(f"{str(path)!r} cannot be used now: {error}") from error
        raise StoreDamagedError(f"{str(path)!r} is damaged, or of another kind: {error}") from error
    except UnicodeDecodeError as error:  # it quotes what it found
        raise StoreDamagedError(f"{str(path)!r} is damaged: {error}") from error
    except OSError as error:
        raise StoreUnavailableError(f"{str(path)!r} cannot be used now: {error}") from error
