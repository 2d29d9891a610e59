"""The store in memory, which is what every store does (H7, S14)."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest

from stt_proto.errors import ArgumentError, ResourcesExhaustedError, SttError, VersionConflictError
from stt_proto.manager.checks import MAX_SECONDS
from stt_proto.manager.store import MAX_KEY, MAX_VALUE, MemoryStore, StoredEntry
from tests.proto.manager.checked import run
from tests.proto.manager.sharing import Sharing

BAD_TTLS = (0, -1, nan, inf, "1", True, 10**400)


def test_concurrent_writers() -> None:
    """S14: what is there is some serial order of the accepted commits; nothing is lost, nothing comes back."""
    run(Sharing, examples=150, steps=40)


def test_an_entry() -> None:
    store = MemoryStore()
    assert store.get("", b"key", 0.0) is None
    version = store.put("", b"key", b"value", 0.0, if_version=0, ttl=10)
    assert store.get("", b"key", 4.0) == StoredEntry(b"key", b"value", version, 6.0)
    assert b"value" not in repr(store.get("", b"key", 4.0)).encode()
    assert store.get("", b"key", 10.0) is None


def test_a_write_replaces_the_lifetime() -> None:
    store = MemoryStore()
    version = store.put("", b"key", b"1", 0.0, if_version=0, ttl=10)
    version = store.put("", b"key", b"2", 5.0, if_version=version)
    assert store.get("", b"key", 100.0) == StoredEntry(b"key", b"2", version, None)
    version = store.put("", b"key", b"3", 100.0, if_version=version, ttl=1)
    assert store.get("", b"key", 101.0) is None


def test_what_was_deleted_does_not_come_back() -> None:
    """K9: an update of what was read before the deletion is refused, also when the key is in use again."""
    store = MemoryStore()
    old = store.put("", b"key", b"1", 0.0, if_version=0)
    assert store.delete("", b"key", 0.0, if_version=old)
    with pytest.raises(VersionConflictError) as caught:
        store.put("", b"key", b"2", 0.0, if_version=old)
    assert caught.value.version == 0
    new = store.put("", b"key", b"3", 0.0, if_version=0)
    with pytest.raises(VersionConflictError) as caught:
        store.put("", b"key", b"2", 0.0, if_version=old)
    assert caught.value.version == new > old
    with pytest.raises(VersionConflictError):
        store.delete("", b"key", 0.0, if_version=old)
    assert not store.delete("", b"other", 0.0)


def test_a_full_store_refuses_and_forgets_nothing() -> None:
    store = MemoryStore(max_entries=1, max_taken=1)
    version = store.put("", b"1", b"", 0.0, if_version=0, ttl=5)
    assert store.take_once("", b"1", 0.0, ttl=5)
    with pytest.raises(ResourcesExhaustedError):
        store.put("", b"2", b"", 1.0, if_version=0)
    with pytest.raises(ResourcesExhaustedError):
        store.take_once("", b"2", 1.0, ttl=5)
    assert not store.take_once("", b"1", 1.0, ttl=5)
    store.put("", b"1", b"new", 1.0, if_version=version, ttl=4)
    store.put("", b"2", b"", 5.0, if_version=0)
    assert store.take_once("", b"2", 5.0, ttl=5)
    assert len(store) == 1


def test_the_largest_entry() -> None:
    store = MemoryStore()
    store.put("n" * 1024, b"k" * MAX_KEY, bytes(MAX_VALUE), 0.0, if_version=0, ttl=MAX_SECONDS)
    (entry,) = store.scan("n" * 1024, 0.0, after=b"a" * MAX_KEY, limit=1000)
    assert (len(entry.key), len(entry.value), entry.ttl) == (MAX_KEY, MAX_VALUE, MAX_SECONDS)


def test_what_comes_and_goes_costs_no_memory() -> None:
    """Also while the clock stands, and every entry expires at the same moment."""
    store = MemoryStore()
    for _ in range(1000):
        version = store.put("", b"key", b"", 0.0, if_version=0, ttl=3600)
        assert store.delete("", b"key", 0.0, if_version=version)
    assert len(store._due._heap) < 100
    assert not store._keys


def test_a_page_has_a_hundred_if_nothing_is_said() -> None:
    store = MemoryStore(max_entries=1 << 32, max_taken=1 << 32)
    for number in range(101):
        store.put("", number.to_bytes(1), b"", 0.0, if_version=0)
    assert [entry.key for entry in store.scan("", 0.0)] == [number.to_bytes(1) for number in range(100)]


def test_an_error_says_what_is_there() -> None:
    store = MemoryStore(max_entries=1, max_taken=1)
    version = store.put("", b"1", b"", 0.0, if_version=0)
    store.take_once("", b"1", 0.0, ttl=5)
    for message, call in (
        ("there should be nothing there, and there is version 1", lambda: store.put("", b"1", b"", 0.0, if_version=0)),
        ("there should be version 7, and there is version 1", lambda: store.delete("", b"1", 0.0, if_version=7)),
        (
            "there should be version 1, and there is nothing there",
            lambda: store.delete("", b"2", 0.0, if_version=version),
        ),
        ("the store holds 1 entries", lambda: store.put("", b"2", b"", 0.0, if_version=0)),
        ("the store remembers 1 keys that were taken", lambda: store.take_once("", b"2", 0.0, ttl=5)),
        ("key must be 1 to 255 bytes", lambda: store.get("", b"", 0.0)),
        ("value must be up to 65,536 bytes", lambda: store.put("", b"1", "", 0.0, if_version=1)),  # type: ignore[arg-type]
        ("after must be up to 255 bytes", lambda: store.scan("", 0.0, after=bytes(256))),
        ("limit is 0; it must be a whole number from 1 to 1,000", lambda: store.scan("", 0.0, limit=0)),
    ):
        with pytest.raises(SttError) as caught:
            call()  # type: ignore[no-untyped-call]
        assert caught.value.message == message


def test_rewriting_with_a_lifetime_costs_no_memory() -> None:
    store = MemoryStore()
    version = 0
    for second in range(1000):
        version = store.put("", b"key", b"", float(second), if_version=version, ttl=3600)
    assert len(store._due._heap) < 200


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("key", lambda store: store.get("", b"", 0.0)),
        ("key", lambda store: store.get("", bytes(MAX_KEY + 1), 0.0)),
        ("key", lambda store: store.take_once("", "text", 0.0, ttl=1)),
        ("key", lambda store: store.delete("", None, 0.0)),
        ("namespace", lambda store: store.get(7, b"key", 0.0)),
        ("namespace", lambda store: store.scan("x" * 1025, 0.0)),
        ("value", lambda store: store.put("", b"key", bytes(MAX_VALUE + 1), 0.0, if_version=0)),
        ("value", lambda store: store.put("", b"key", "text", 0.0, if_version=0)),
        ("if_version", lambda store: store.put("", b"key", b"", 0.0, if_version=-1)),
        ("if_version", lambda store: store.put("", b"key", b"", 0.0, if_version=None)),
        ("if_version", lambda store: store.delete("", b"key", 0.0, if_version=True)),
        *(("ttl", lambda store, t=ttl: store.put("", b"key", b"", 0.0, if_version=0, ttl=t)) for ttl in BAD_TTLS),
        *(("ttl", lambda store, t=ttl: store.take_once("", b"key", 0.0, ttl=t)) for ttl in (*BAD_TTLS, None)),
        ("limit", lambda store: store.scan("", 0.0, limit=0)),
        ("limit", lambda store: store.scan("", 0.0, limit=1001)),
        ("after", lambda store: store.scan("", 0.0, after=bytes(256))),
        ("now", lambda store: store.get("", b"key", "soon")),
        ("max_entries", lambda store: MemoryStore(max_entries=0)),
        ("max_taken", lambda store: MemoryStore(max_taken=0.5)),
        ("max_entries", lambda store: MemoryStore(max_entries=(1 << 32) + 1)),
        ("max_taken", lambda store: MemoryStore(max_taken=(1 << 32) + 1)),
    ],
)  # fmt: skip
def test_a_bad_argument_is_named_and_changes_nothing(argument: str, call: Any) -> None:
    store = MemoryStore()
    with pytest.raises(ArgumentError) as caught:
        call(store)
    assert caught.value.argument == argument
    assert len(store) == 0
    assert store.take_once("", b"key", 0.0, ttl=1)
