"""The store in memory."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import NoReturn

from anyio.lowlevel import checkpoint

from stt_proto.manager.namespaces import Namespace
from stt_proto.manager.store import MemoryStore, StoredEntry


class MemorySessionStore:
    """A `SessionStore` for the nodes of one process; `stt_proto.manager.store.MemoryStore` with a clock.

    Args:
        clock: gives seconds that never run backwards.
        max_entries: entries that it holds at once.
        max_taken: keys of `take_once` that it holds at once.
    """

    __slots__ = ("_clock", "_store")

    def __init__(
        self, clock: Callable[[], float] = monotonic, *, max_entries: int = 1 << 20, max_taken: int = 1 << 20
    ) -> None:
        self._clock = clock
        self._store = MemoryStore(clock(), max_entries=max_entries, max_taken=max_taken)

    def __reduce__(self) -> NoReturn:
        raise TypeError("what is in the memory of one process cannot be given to another")

    def __len__(self) -> int:
        """How many entries are held."""
        return len(self._store)

    async def get(self, namespace: Namespace, key: bytes) -> StoredEntry | None:
        """What is there, if anything."""
        await checkpoint()
        return self._store.get(namespace, key, self._clock())

    async def put(
        self, namespace: Namespace, key: bytes, value: bytes, *, if_version: int, ttl: float | None = None
    ) -> int:
        """Write, if the entry still has this version (0: if there is none); give the new version."""
        await checkpoint()
        return self._store.put(namespace, key, value, self._clock(), if_version=if_version, ttl=ttl)

    async def take_once(self, namespace: Namespace, key: bytes, *, ttl: float) -> bool:
        """Take a key that nobody has taken: True once, then False, for `ttl` seconds."""
        await checkpoint()
        return self._store.take_once(namespace, key, self._clock(), ttl=ttl)

    async def delete(self, namespace: Namespace, key: bytes, *, if_version: int | None = None) -> bool:
        """Delete an entry; False when there was none."""
        await checkpoint()
        return self._store.delete(namespace, key, self._clock(), if_version=if_version)

    async def scan(self, namespace: Namespace, *, after: bytes = b"", limit: int = 100) -> tuple[StoredEntry, ...]:
        """The entries behind the key `after`, in the order of their keys, at most `limit`."""
        await checkpoint()
        return self._store.scan(namespace, self._clock(), after=after, limit=limit)

    async def aclose(self) -> None:
        """Nothing is to be let go of; the entries stay."""
        await checkpoint()
