"""S14 as a machine: several managers, one store, and whatever they read and write in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import rule

from stt_proto.errors import VersionConflictError
from stt_proto.manager.store import MemoryStore
from tests.proto.manager.checked import Checked

SPACES = ("", "tenant-a", "tenant_a", b"tenant-a")
KEYS = (b"a", b"b", b"ab")

managers = st.sampled_from(range(3))
places = st.tuples(st.sampled_from(SPACES), st.sampled_from(KEYS))


class Sharing(Checked):
    """Managers that append to lists they share, and a model that knows what was accepted."""

    opens: ClassVar[Callable[[MemoryStore], Callable[[], MemoryStore]]] = staticmethod(lambda store: lambda: store)
    """How managers get at the store: all at the same one."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        get_store = type(self).opens(MemoryStore(0.0))
        self.stores = [get_store() for _ in range(3)]
        self.read: dict[tuple[int, object], tuple[bytes, int]] = {}
        self.model: dict[object, tuple[bytes, int, float | None]] = {}
        self.taken: dict[object, float] = {}
        self.last_version = 0

    def there(self, place: object) -> tuple[bytes, int, float | None]:
        value, version, expires_at = self.model.get(place, (b"", 0, None))
        return (b"", 0, None) if expires_at is not None and expires_at <= self.now else (value, version, expires_at)

    @rule(seconds=st.sampled_from((0.0, 0.5, 1.0, 5.0)), back=st.booleans())
    def time_passes(self, seconds: float, back: bool) -> None:
        """Each manager's clock is the store's; one that steps back counts as standing still."""
        self.now += seconds
        if back:
            self.expect("S14", self.stores[0].get("", b"none", self.now - 100.0) is None)

    def refused(self, place: tuple[str | bytes, bytes], at: int) -> None:
        """Who was told that there is nothing was told so for good, whatever the clock does."""
        if at == 0:
            self.expect("S14", self.stores[0].get(*place, self.now - 100.0) is None, "revived by a clock")

    @rule(manager=managers, place=places)
    def get(self, manager: int, place: tuple[str | bytes, bytes]) -> None:
        with self.unbroken("S14"):
            entry = self.stores[manager].get(*place, self.now)
            value, version, expires_at = self.there(place)
            self.read[manager, place] = (b"", 0) if entry is None else (entry.value, entry.version)
            self.expect("S14", self.read[manager, place] == (value, version), f"{entry} is not what was accepted last")
            if entry is not None:
                self.expect("S14", entry.ttl == (None if expires_at is None else expires_at - self.now), "time left")

    @rule(manager=managers, place=places, ttl=st.sampled_from((None, None, 0.5, 2.0)))
    def append(self, manager: int, place: tuple[str | bytes, bytes], ttl: float | None) -> None:
        """Write what was read, however long ago, and one byte more."""
        value, version = self.read.get((manager, place), (b"", 0))
        before, at, _ = self.there(place)
        new = value + bytes((manager,))
        with self.unbroken("S14"):
            try:
                given = self.stores[manager].put(*place, new, self.now, if_version=version, ttl=ttl)
            except VersionConflictError as error:
                self.expect("S14", version != at and error.version == at, f"{version} was refused, and it is {at}")
                self.refused(place, at)
                return
            self.expect("S14", version == at and new[:-1] == before, "an update was lost")
            self.expect("S14", given > self.last_version, "a version was given twice")
            self.last_version = given
            self.model[place] = new, given, None if ttl is None else self.now + ttl
            self.read[manager, place] = new, given

    @rule(manager=managers, place=places)
    def come_too_late(self, manager: int, place: tuple[str | bytes, bytes]) -> None:
        """A lifetime passes while nobody looks, and then somebody writes over what he has."""
        self.get(manager, place)
        self.append(manager, place, 0.5)
        self.now += 0.5
        self.append(manager, place, None)

    @rule(manager=managers, place=places, blindly=st.booleans())
    def delete(self, manager: int, place: tuple[str | bytes, bytes], blindly: bool) -> None:
        version = None if blindly else self.read.get((manager, place), (b"", 0))[1]
        at = self.there(place)[1]
        with self.unbroken("S14"):
            try:
                deleted = self.stores[manager].delete(*place, self.now, if_version=version)
            except VersionConflictError as error:
                self.expect("S14", version != at and error.version == at)
                self.refused(place, at)
                return
            self.expect("S14", version in (None, at) and deleted == bool(at), "what was deleted")
            self.model.pop(place, None)

    @rule(manager=managers, place=places, ttl=st.sampled_from((0.5, 2.0)))
    def take_once(self, manager: int, place: tuple[str | bytes, bytes], ttl: float) -> None:
        free = self.taken.get(place, 0.0) <= self.now
        self.expect("S14", self.stores[manager].take_once(*place, self.now, ttl=ttl) == free, "taken once")
        if free:
            self.taken[place] = self.now + ttl

    @rule(manager=managers, space=st.sampled_from(SPACES), limit=st.sampled_from((1, 2, 100)))
    def scan(self, manager: int, space: str | bytes, limit: int) -> None:
        found: list[bytes] = []
        while True:
            page = self.stores[manager].scan(space, self.now, after=found[-1] if found else b"", limit=limit)
            found += [entry.key for entry in page]
            if len(page) < limit:
                break
        there = sorted(key for name, key in self.model if name == space and self.there((name, key))[1])
        self.expect("S14", found == there, f"{found} instead of {there}")
