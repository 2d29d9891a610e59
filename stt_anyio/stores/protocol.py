"""What a store of sessions does, as an asynchronous protocol."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from stt_proto.manager.namespaces import Namespace
from stt_proto.manager.store import StoredEntry


@runtime_checkable
class SessionStore(Protocol):
    """A store of sessions: small values with versions and lifetimes, and keys that can be taken once.

    `stt_proto.manager.store` tells the rules; any class with these methods is a store. Every method may be called by
    many tasks at once, is a checkpoint, and can be cancelled: then a write has happened as a whole, or not at all.

    Raises:
        ArgumentError: an argument is out of its range; before anything is done.
        StoreUnavailableError: the store is down or too slow; a write may have happened.
    """

    async def get(self, namespace: Namespace, key: bytes) -> StoredEntry | None:
        """What is there, if anything."""
        ...

    async def put(
        self, namespace: Namespace, key: bytes, value: bytes, *, if_version: int, ttl: float | None = None
    ) -> int:
        """Write, if the entry still has this version (0: if there is none); give the new version.

        Raises:
            VersionConflictError: it has another, or is gone, or is there already; nothing changed.
            ResourcesExhaustedError: the store is full; nothing changed.
        """
        ...

    async def take_once(self, namespace: Namespace, key: bytes, *, ttl: float) -> bool:
        """Take a key that nobody has taken: True once, then False, for `ttl` seconds.

        Raises:
            ResourcesExhaustedError: no room to remember it; it must not be honoured.
        """
        ...

    async def delete(self, namespace: Namespace, key: bytes, *, if_version: int | None = None) -> bool:
        """Delete an entry; False when there was none.

        Raises:
            VersionConflictError: it has another version, or is gone; nothing changed.
        """
        ...

    async def scan(self, namespace: Namespace, *, after: bytes = b"", limit: int = 100) -> tuple[StoredEntry, ...]:
        """The entries behind the key `after`, in the order of their keys, at most `limit`, from 1 to 1,000."""
        ...

    async def aclose(self) -> None:
        """Let go of connections and files; what was written stays where the store keeps it."""
        ...
