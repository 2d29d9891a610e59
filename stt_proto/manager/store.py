"""What a store of sessions does: the rules, and the store in memory that all others are compared with.

A store keeps small values under a namespace and a key, for a time or for ever. It may be shared by several processes on
several machines, so nothing is ever written blindly:

* **Versions.** Every write gives the entry a version, a whole number from 1 on. A store never gives a version twice,
  not even after the entry was deleted or has expired. `put` says which version it was made of, and loses against
  whoever was faster (`VersionConflictError`): read again, and decide again. 0 stands for "there is nothing", so
  `if_version=0` creates, and nothing else does: an entry that was deleted does not come back by a late update.
* **Time** is the store's own. A lifetime is given as seconds from now (`ttl`) and an entry tells how many are left, so
  it does not matter what the clocks of its users say. From `ttl` seconds after the write on, there is no entry. A
  write replaces the lifetime too.
* **Taken once.** `take_once` is for tickets: of all who call it with one key, the first gets True and everybody after
  him False, until `ttl` is over. What was taken is nobody's to list or to delete, and never forgotten to make room.
* **Bounds.** Keys have 1 to 255 bytes, values up to 65,536. A store that is full refuses (`ResourcesExhaustedError`).

A write that fails with another error than those here (`StoreUnavailableError`, a timeout) may have happened or not.

`MemoryStore` is the reference, with time as an argument; `stt_anyio.stores.SessionStore` is the same as an asynchronous
protocol, which stores that do I/O follow.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from math import inf

from attrs import field, frozen

from stt_proto.clock import Clock, DeadlineQueue
from stt_proto.errors import ArgumentError, ResourcesExhaustedError, VersionConflictError
from stt_proto.manager.checks import MAX_SECONDS, MIN_SECONDS, check_number, check_whole
from stt_proto.manager.namespaces import Namespace, namespace_bytes

MAX_KEY = 255
"""Bytes of the longest key."""

MAX_VALUE = 65_536
"""Bytes of the largest value."""

MAX_SCAN = 1000
"""Entries that `scan` gives at once, at most."""

MAX_VERSION = (1 << 63) - 1


@frozen
class StoredEntry:
    """What a store holds under a key; a snapshot.

    Attributes:
        key: 1 to 255 bytes.
        value: up to 65,536 bytes.
        version: what `put` and `delete` want to hear, 1 or more.
        ttl: seconds that it is kept from now on, `None` when for ever.
    """

    key: bytes
    value: bytes = field(repr=False)
    version: int
    ttl: float | None = None


def check_key(key: bytes) -> None:
    """Raise `ArgumentError` unless it is 1 to 255 bytes."""
    if not isinstance(key, bytes) or not 1 <= len(key) <= MAX_KEY:
        raise ArgumentError(f"key must be 1 to {MAX_KEY} bytes", argument="key")


def check_value(value: bytes) -> None:
    """Raise `ArgumentError` unless it is up to 65,536 bytes."""
    if not isinstance(value, bytes) or len(value) > MAX_VALUE:
        raise ArgumentError(f"value must be up to {MAX_VALUE:,} bytes", argument="value")


def check_version(if_version: int) -> None:
    """Raise `ArgumentError` unless it can be a version, or 0."""
    check_whole("if_version", if_version, 0, MAX_VERSION)


def check_ttl(ttl: float | None) -> None:
    """Raise `ArgumentError` unless it is `None` or 0.001 seconds to ten years."""
    if ttl is not None:
        check_number("ttl", ttl, MIN_SECONDS, MAX_SECONDS)


def check_page(after: bytes, limit: int) -> None:
    """Raise `ArgumentError` unless `after` is up to 255 bytes and `limit` from 1 to 1,000."""
    if not isinstance(after, bytes) or len(after) > MAX_KEY:
        raise ArgumentError(f"after must be up to {MAX_KEY} bytes", argument="after")
    check_whole("limit", limit, 1, MAX_SCAN)


_Place = tuple[bytes, bytes]
"""A namespace and a key."""


class MemoryStore:
    """The store in memory, and the reference of what a store does. For one process: it is gone when that ends.

    `now` is seconds on any monotonic clock; one smaller than the last counts as the last, so what has expired stays so.
    Writing costs O(n) moves of a pointer in the worst case (a sorted list), everything else O(log n), amortised.

    Args:
        now: the time.
        max_entries: entries that it holds at once.
        max_taken: keys of `take_once` that it holds at once.
    """

    __slots__ = ("_clock", "_due", "_entries", "_keys", "_max_entries", "_max_taken", "_serial", "_taken")

    def __init__(self, now: float = 0.0, *, max_entries: int = 1 << 20, max_taken: int = 1 << 20) -> None:
        check_whole("max_entries", max_entries, 1, 1 << 32)
        check_whole("max_taken", max_taken, 1, 1 << 32)
        self._clock = Clock(now, 0.0)
        self._max_entries = max_entries
        self._max_taken = max_taken
        self._serial = 0
        self._entries: dict[_Place, tuple[bytes, int, float]] = {}  # value, version, expires at
        self._keys: dict[bytes, list[bytes]] = {}  # of each namespace, sorted
        self._due: DeadlineQueue[_Place] = DeadlineQueue()
        self._taken: DeadlineQueue[_Place] = DeadlineQueue()

    def __len__(self) -> int:
        """How many entries are held; those that have expired since the last call are among them."""
        return len(self._entries)

    def get(self, namespace: Namespace, key: bytes, now: float) -> StoredEntry | None:
        """What is there, if anything.

        Raises:
            ArgumentError: an argument is out of its range; so for all other methods.
        """
        check_key(key)
        place = namespace_bytes(namespace), key
        now = self._advance(now)
        return self._look(place, now) if place in self._entries else None

    def put(
        self, namespace: Namespace, key: bytes, value: bytes, now: float, *, if_version: int, ttl: float | None = None
    ) -> int:
        """Write, if the entry still has the version that the caller has read; 0 to create. Gives the new version.

        Args:
            namespace: its name.
            key: 1 to 255 bytes.
            value: up to 65,536 bytes.
            now: the time.
            if_version: the version that the entry must have; 0 when there must be none.
            ttl: seconds that the entry is kept, 0.001 to ten years; `None` for ever.

        Raises:
            VersionConflictError: it has another, or is gone, or is there already; nothing changed.
            ResourcesExhaustedError: the store is full; nothing changed.
        """
        check_key(key)
        check_value(value)
        check_version(if_version)
        check_ttl(ttl)
        place = namespace_bytes(namespace), key
        now = self._advance(now)
        self._agree(place, if_version)
        if if_version == 0:
            if len(self._entries) >= self._max_entries:
                raise ResourcesExhaustedError(f"the store holds {self._max_entries:,} entries")
            insort(self._keys.setdefault(place[0], []), key)
        self._serial += 1
        expires_at = inf if ttl is None else now + ttl
        self._entries[place] = bytes(value), self._serial, expires_at
        self._due.arm(place, expires_at, "expiry")
        return self._serial

    def take_once(self, namespace: Namespace, key: bytes, now: float, *, ttl: float) -> bool:
        """Take a key that nobody has taken: True, and False for everybody who comes later, for `ttl` seconds.

        Raises:
            ResourcesExhaustedError: no room to remember it; it counts as not taken, and must not be honoured.
        """
        check_key(key)
        check_number("ttl", ttl, MIN_SECONDS, MAX_SECONDS)
        place = namespace_bytes(namespace), key
        now = self._advance(now)
        if place in self._taken:
            return False
        if len(self._taken) >= self._max_taken:
            raise ResourcesExhaustedError(f"the store remembers {self._max_taken:,} keys that were taken")
        self._taken.arm(place, now + ttl, "taken")
        return True

    def delete(self, namespace: Namespace, key: bytes, now: float, *, if_version: int | None = None) -> bool:
        """Delete an entry; False when there was none.

        Args:
            namespace: its name.
            key: 1 to 255 bytes.
            now: the time.
            if_version: the version that it must have, 1 or more; `None` for any.

        Raises:
            VersionConflictError: it has another, or is gone; nothing changed.
        """
        check_key(key)
        if if_version is not None:
            check_version(if_version)
        place = namespace_bytes(namespace), key
        self._advance(now)
        if if_version is not None:
            self._agree(place, if_version)
        if place not in self._entries:
            return False
        self._drop(place)
        return True

    def scan(
        self, namespace: Namespace, now: float, *, after: bytes = b"", limit: int = 100
    ) -> tuple[StoredEntry, ...]:
        """The entries of a namespace in the order of their keys: those behind `after`, at most `limit`.

        The last key of one answer is `after` of the next; an answer of less than `limit` entries is the last.
        An entry that is there all the time comes once, whatever is written meanwhile.
        """
        check_page(after, limit)
        name = namespace_bytes(namespace)
        now = self._advance(now)
        keys = self._keys.get(name, [])
        start = bisect_right(keys, after)
        return tuple(self._look((name, key), now) for key in keys[start : start + limit])

    # -- inside ----------------------------------------------------------------------------------------------------

    def _advance(self, now: float) -> float:
        """Take in the time, and drop what has expired: after this, what is there is good."""
        now = self._clock.advance(now)
        while (place := self._due.pop_due(now)) is not None:
            expires_at = self._entries[place][2]
            if expires_at <= now:
                self._drop(place)
            else:
                self._due.arm(place, expires_at, "expiry")
        while self._taken.pop_due(now) is not None:
            pass
        return now

    def _look(self, place: _Place, now: float) -> StoredEntry:
        value, version, expires_at = self._entries[place]
        return StoredEntry(place[1], value, version, None if expires_at == inf else expires_at - now)

    def _agree(self, place: _Place, if_version: int) -> None:
        entry = self._entries.get(place)
        version = 0 if entry is None else entry[1]
        if version != if_version:
            there = f"version {version}" if version else "nothing there"
            wanted = f"version {if_version}" if if_version else "nothing there"
            raise VersionConflictError(f"there should be {wanted}, and there is {there}", version=version)

    def _drop(self, place: _Place) -> None:
        del self._entries[place]
        self._due.forget(place)
        name, key = place
        keys = self._keys[name]
        del keys[bisect_right(keys, key) - 1]
        if not keys:
            del self._keys[name]
