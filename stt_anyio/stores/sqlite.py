"""A store in a file of SQLite: for the processes of one machine, over restarts."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from anyio import CancelScope, CapacityLimiter, current_time, to_thread

from stt_anyio.errors import ArgumentError, StateError, StoreUnavailableError
from stt_anyio.stores.sqlite_file import SqliteFile
from stt_proto.manager.checks import MAX_SECONDS, MIN_SECONDS, check_number, check_whole
from stt_proto.manager.namespaces import Namespace, namespace_bytes
from stt_proto.manager.store import StoredEntry, check_key, check_page, check_ttl, check_value, check_version

T = TypeVar("T")


class SqliteSessionStore:
    """A `SessionStore` in one file, for as many processes of one machine as open it.

    Everything is on the disk before a call returns. Time is the machine's wall clock; one that steps back makes nothing
    good again that was over. Calls work in threads, one at a time, and none of them blocks the event loop. A call that
    has begun is not cancelled, so that the caller learns what became of it.

    The file is made for its owner alone (0600); one that is there keeps its rights. SQLite keeps two more beside it
    (`-wal`, `-shm`). It must be on a local disk. Whoever puts a file in its place, or an older copy of it, is noticed
    by those who have it open, and by them alone.

    Used as `async with SqliteSessionStore(path) as store:`, or with `open` and `aclose`.

    Args:
        path: of the file; made if it does not exist.
        timeout: seconds that a call waits for others, of this process and of other processes.
        max_entries: entries in the file.
        max_taken: keys of `take_once` in the file.
        clock: the wall clock, in seconds since 1970.

    Raises:
        ArgumentError: an argument is out of its range.
    """

    __slots__ = ("_file", "_limiter", "_options", "_path")

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        timeout: float = 2.0,
        max_entries: int = 1 << 20,
        max_taken: int = 1 << 20,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_number("timeout", timeout, 0.001, 60.0)
        check_whole("max_entries", max_entries, 1, 1 << 32)
        check_whole("max_taken", max_taken, 1, 1 << 32)
        name = fspath(path) if isinstance(path, str | PathLike) else ""
        if not isinstance(name, str) or not name or "\0" in name:
            raise ArgumentError(f"path is {path!r}; it must name a file", argument="path")
        self._path = Path(path).absolute()  # whatever directory the process goes to
        self._options: dict[str, Any] = {
            "timeout": timeout,
            "max_entries": max_entries,
            "max_taken": max_taken,
            "clock": clock,
        }
        self._file: SqliteFile | None = None
        self._limiter = CapacityLimiter(1)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path]]:
        """Its address: what comes out of a pickle is the same store, not open, also in another process."""
        return partial(type(self), **self._options), (self._path,)

    async def open(self) -> None:
        """Open the file, and make it if there is none; nothing when it is open.

        Raises:
            StoreUnavailableError: it cannot be opened.
            StoreDamagedError: it is damaged, of another program, or of a newer version.
        """

        def open_file() -> None:
            if self._file is None:
                self._file = SqliteFile(self._path, **self._options)

        await to_thread.run_sync(open_file, limiter=self._limiter)

    async def aclose(self) -> None:
        """Let go of the file; what was written stays in it."""

        def close_file() -> None:
            file, self._file = self._file, None
            if file is not None:
                file.close()

        with CancelScope(shield=True):  # waits for a call that has begun, as that does for the disk
            await to_thread.run_sync(close_file, limiter=self._limiter)

    async def __aenter__(self) -> SqliteSessionStore:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def get(self, namespace: Namespace, key: bytes) -> StoredEntry | None:
        """What is there, if anything."""
        check_key(key)
        return await self._call(SqliteFile.get, namespace_bytes(namespace), key)

    async def put(
        self, namespace: Namespace, key: bytes, value: bytes, *, if_version: int, ttl: float | None = None
    ) -> int:
        """Write, if the entry still has this version (0: if there is none); give the new version."""
        check_key(key)
        check_value(value)
        check_version(if_version)
        check_ttl(ttl)
        return await self._call(SqliteFile.put, namespace_bytes(namespace), key, value, if_version, ttl)

    async def take_once(self, namespace: Namespace, key: bytes, *, ttl: float) -> bool:
        """Take a key that nobody has taken: True once, then False, for `ttl` seconds."""
        check_key(key)
        check_number("ttl", ttl, MIN_SECONDS, MAX_SECONDS)
        return await self._call(SqliteFile.take_once, namespace_bytes(namespace), key, ttl)

    async def delete(self, namespace: Namespace, key: bytes, *, if_version: int | None = None) -> bool:
        """Delete an entry; False when there was none."""
        check_key(key)
        if if_version is not None:
            check_version(if_version)
        return await self._call(SqliteFile.delete, namespace_bytes(namespace), key, if_version)

    async def scan(self, namespace: Namespace, *, after: bytes = b"", limit: int = 100) -> tuple[StoredEntry, ...]:
        """The entries behind the key `after`, in the order of their keys, at most `limit`."""
        check_page(after, limit)
        return await self._call(SqliteFile.scan, namespace_bytes(namespace), after, limit)

    async def _call(self, method: Callable[..., T], *arguments: Any) -> T:
        """Do it in a thread. The wait for a turn can be cancelled; what follows cannot."""
        timeout = self._options["timeout"]
        patience = time.monotonic() + timeout

        def call() -> T:
            if self._file is None:
                raise StateError("the store is not open")
            self._file.wait_until(patience)
            return method(self._file, *arguments)

        with CancelScope(deadline=current_time() + timeout):
            return await to_thread.run_sync(call, limiter=self._limiter)
        raise StoreUnavailableError(f"other calls kept the file for {timeout:g} s; nothing was asked")
