"""Each kind of store, opened for a test, with a clock that is set by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha1
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from stt_anyio.stores import MemorySessionStore, SessionStore
from stt_anyio.stores.sqlite import SqliteSessionStore
from tests.anyio.redis_server import RedisServer

KINDS = ("memory", "sqlite", "redis")
SHARED = ("sqlite", "redis")
"""Those that several processes can have."""

_numbers = count()


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Stores:
    """Opens stores that are one: on the same file, or with the same server and prefix.

    Args:
        kind: of the store.
        folder: where a file may lie.
        server: gives the Redis.
        clock: of all of them.
        options: for each.
    """

    def __init__(
        self, kind: str, folder: Path, server: Callable[[], RedisServer], clock: Clock, **options: Any
    ) -> None:
        self._kind = kind
        self._path = folder / f"{next(_numbers)}.store"
        self._server = server
        self._prefix = f"test{next(_numbers)}"
        self._clock = clock
        self._options = options
        self._memory = MemorySessionStore(clock, **options) if kind == "memory" else None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[SessionStore]:
        """One of them."""
        if self._memory is not None:
            yield self._memory
        elif self._kind == "sqlite":
            async with SqliteSessionStore(self._path, clock=self._clock, **self._options) as file:
                yield file
        else:
            url = self._server().url
            async with clocked_redis(self._clock, url, prefix=self._prefix, **self._options) as remote:
                yield remote


def clocked_redis(clock: Clock, url: str, **options: Any) -> Any:
    """A `RedisSessionStore` whose scripts are told the time, instead of asking the server."""
    module = pytest.importorskip("stt_anyio.stores.redis", reason="the extra stt-transport[redis] is not installed")
    scripts = pytest.importorskip("stt_anyio.stores.redis_scripts")

    class Clocked(module.RedisSessionStore):  # type: ignore[misc, name-defined]
        async def _ask(self, script: Any, place: bytes, *arguments: bytes) -> Any:
            body = script.body.replace(b"redis.call('TIME')", b"{ARGV[#ARGV], 0}")
            assert body != script.body
            told = scripts.Script(body, sha1(body).hexdigest().encode())
            return await super()._ask(told, place, *arguments, repr(clock()).encode())

    return Clocked(url, **options)
