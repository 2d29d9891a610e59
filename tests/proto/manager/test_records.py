"""Records as bytes, metadata, configurations and rates: the values that the manager deals in."""

from __future__ import annotations

from math import inf, nan
from struct import pack
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from stt_proto.errors import ArgumentError, ConfigError
from stt_proto.manager import EndReason, SessionConfig, SessionRecord, TokenBucket
from stt_proto.manager import records as records_module
from stt_proto.manager.checks import MAX_SECONDS, MIN_SECONDS
from stt_proto.manager.metadata import MAX_METADATA_BYTES, MAX_METADATA_ENTRIES, frozen_metadata
from stt_proto.manager.namespaces import MAX_NAMESPACE
from stt_proto.manager.records import MAX_RECORD, check_record
from stt_proto.manager.store import MAX_VALUE
from stt_proto.types import SessionState

times = st.floats(0, 4e9)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(1 << 63), (1 << 63) - 1), st.floats(allow_nan=False, allow_infinity=False),
    text, st.binary(max_size=20),
)  # fmt: skip
configs = st.builds(
    SessionConfig,
    ttl=st.floats(0.001, 1e8),
    sliding=st.booleans(),
    max_requests=st.integers(1, 1 << 20),
    request_rate=st.one_of(st.just(inf), st.floats(0.001, 1e6)),
    request_burst=st.integers(1, 1 << 20),
    priority=st.integers(0, 7),
)
records = st.builds(
    SessionRecord,
    session_id=st.binary(min_size=8, max_size=8),
    peer_node_id=st.binary(min_size=32, max_size=32),
    namespace=st.one_of(st.text(max_size=20), st.binary(max_size=20)),
    state=st.sampled_from((SessionState.ESTABLISHED, SessionState.CLOSING, SessionState.CLOSED)),
    created_at=times,
    last_active=times,
    extended_until=st.one_of(st.none(), times),
    config=configs,
    config_version=st.integers(1, 1 << 60),
    metadata=st.dictionaries(text.filter(bool), scalars, max_size=5).map(frozen_metadata),
    close_reason=st.one_of(st.none(), st.sampled_from(EndReason)),
    closed_at=st.one_of(st.none(), times),
    requests=st.integers(0, 9),
    generation=st.integers(0, 9),
)
RECORD = SessionRecord(
    session_id=bytes(8), peer_node_id=bytes(32), created_at=1.0, last_active=2.0, config=SessionConfig()
)


def resealed(body: bytes) -> bytes:
    """A body with a check that fits: what a bug of ours, or a forger, would write."""
    return body + records_module._check(body)


@given(records)
def test_there_and_back(record: SessionRecord) -> None:
    """H7: all but what means nothing elsewhere."""
    back = SessionRecord.from_bytes(record.to_bytes())
    assert back == evolve(record, requests=0, streams=0, generation=0)
    assert list(back.metadata) == list(record.metadata)
    assert [type(value) for value in back.metadata.values()] == [type(value) for value in record.metadata.values()]


@given(records, st.data())
def test_a_damaged_record_is_refused(record: SessionRecord, data: st.DataObject) -> None:
    """Any flipped bit, any cut, anything behind it: one error, and nothing of it quoted."""
    whole = record.to_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    flipped = whole[:at] + bytes((whole[at] ^ 1 << data.draw(st.integers(0, 7)),)) + whole[at + 1 :]
    for damaged in (flipped, whole[:at], whole + b"\x00"):
        with pytest.raises(ArgumentError) as caught:
            SessionRecord.from_bytes(damaged)
        assert caught.value.argument == "data"


@given(records, st.data())
def test_a_record_with_a_good_check(record: SessionRecord, data: st.DataObject) -> None:
    """Whatever stands there: `ArgumentError`, or a record that could have been written."""
    body = record.to_bytes()[:-8]
    at = data.draw(st.integers(3, len(body) - 1))
    changed = body[:at] + data.draw(st.binary(max_size=3)) + body[at + data.draw(st.integers(0, 3)) :]
    try:
        back = SessionRecord.from_bytes(resealed(changed))
    except ArgumentError as error:
        assert error.argument == "data"
    else:
        assert SessionRecord.from_bytes(back.to_bytes()) == back
        check_record(back)


@pytest.mark.parametrize(
    "data", [None, "text", b"", b"SR\x02" + bytes(100), b"SR\x01", bytes(MAX_RECORD + 1), resealed(b"SR\x01")]
)
def test_no_record(data: Any) -> None:
    with pytest.raises(ArgumentError):
        SessionRecord.from_bytes(data)


@pytest.mark.parametrize(
    "tail",
    [
        b"\x00\x01t" + b"\x00\x01" + b"\x00\x01k" + b"\x07",  # a tag of no value
        b"\x00\x01t" + b"\x00\x02" + 2 * (b"\x00\x01k" + b"\x00"),  # a key that comes twice
        b"\x00\x01t" + b"\x00\x01" + b"\x00\x01\xff" + b"\x00",  # a key that is no UTF-8
        b"\x00\x01t" + b"\x00\x01" + b"\x00\x01k" + b"\x03\x00\x05ab",  # a value that ends early
        b"\x00\x01t" + b"\x00\x01" + b"\x00\x01k" + b"\x06" + b"\x7f\xf8" + bytes(6),  # not a number
        b"\x00\x01x" + b"\x00\x00",  # a namespace of no kind
        b"\x00\x01t" + b"\x00\x00" + b"\x00",  # one byte too many
        b"\x00\x01",  # no end
    ],
)
def test_metadata_that_nobody_wrote(tail: bytes) -> None:
    head = RECORD.to_bytes()[: -8 - 5]
    assert SessionRecord.from_bytes(resealed(head + b"\x00\x01t" + b"\x00\x00")) == RECORD
    with pytest.raises(ArgumentError):
        SessionRecord.from_bytes(resealed(head + tail))


def test_times_that_are_none() -> None:
    body, good = RECORD.to_bytes()[:-8], pack(">d", RECORD.created_at)
    assert body.count(good) >= 1
    for bad in (nan, inf):
        with pytest.raises(ArgumentError):
            SessionRecord.from_bytes(resealed(body.replace(good, pack(">d", bad), 1)))


@pytest.mark.parametrize("version", [0, (1 << 63) + 1, (1 << 64) - 1])
def test_versions_that_none_can_have(version: int) -> None:
    """What is taken back, a manager goes on with. [Found by fuzzing: a forged one was taken, and refused later.]"""
    body, good = RECORD.to_bytes()[:-8], pack(">BQ", RECORD.config.priority, 1)
    assert body.count(good) == 1
    with pytest.raises(ArgumentError) as caught:
        SessionRecord.from_bytes(resealed(body.replace(good, pack(">BQ", RECORD.config.priority, version))))
    assert caught.value.argument == "data"


def test_the_largest_record_fits_into_a_store() -> None:
    keys = {f"{number:0>10}": b"" for number in range(MAX_METADATA_ENTRIES - 1)}
    rest = MAX_METADATA_BYTES - sum(map(len, keys)) - 1
    largest = evolve(RECORD, namespace=bytes(MAX_NAMESPACE), metadata=frozen_metadata({**keys, "x": bytes(rest)}))
    data = largest.to_bytes()
    assert len(data) <= min(MAX_RECORD, MAX_VALUE)
    assert SessionRecord.from_bytes(data) == largest


def test_a_record_shows_no_metadata() -> None:
    assert "secret" not in repr(evolve(RECORD, metadata=frozen_metadata({"token": "secret"})))


@pytest.mark.parametrize(
    "record",
    [
        None,
        evolve(RECORD, session_id=b""),
        evolve(RECORD, peer_node_id=b""),
        evolve(RECORD, config=None),
        evolve(RECORD, created_at=nan),
        evolve(RECORD, last_active=10**400),
        evolve(RECORD, extended_until=inf),
        evolve(RECORD, config_version=0),
        evolve(RECORD, config_version=(1 << 64) - 1),
        evolve(RECORD, config_version=1.0),
    ],
)
def test_a_record_that_was_made_up(record: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        check_record(record)
    assert caught.value.argument in ("record", "session_id", "peer_node_id")


@pytest.mark.parametrize(
    "made_up",
    [
        {"session_id": b"short"},
        {"peer_node_id": b""},
        {"config": None},
        {"created_at": nan},
        {"closed_at": nan},
        {"extended_until": -inf},
        {"config_version": 0},
        {"config_version": 1 << 64},
        {"state": SessionState.INIT},
        {"close_reason": "tired"},
    ],
)
def test_a_record_that_was_made_up_is_not_written(made_up: dict[str, Any]) -> None:
    """H7: it says so, rather than stand in a store for another session, or for none that comes back."""
    with pytest.raises(ArgumentError):
        evolve(RECORD, **made_up).to_bytes()


@pytest.mark.parametrize("metadata", [{"key": "x" * 70_000}, {"key": 1 << 70}, {"x" * 40_000: 1}, {"key": []}])
def test_a_record_with_metadata_that_was_made_up(metadata: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        evolve(RECORD, metadata=metadata).to_bytes()
    assert caught.value.argument == "metadata"


# -- metadata ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "metadata",
    [
        [("a", 1)], {1: "a"}, {"": 1}, {"x" * 256: 1}, {"\ud800": 1}, {"a": "\ud800"}, {"a": []}, {"a": {}}, {"a": nan},
        {"a": inf}, {"a": 1 << 63}, {"a": -(1 << 63) - 1}, {"a": bytearray(b"x")},
        {"a": "x" * (MAX_METADATA_BYTES + 1)}, {str(number): 0 for number in range(MAX_METADATA_ENTRIES + 1)}, 7,
        "text",
    ],
    ids=range(17),
)  # fmt: skip
def test_metadata_that_is_refused(metadata: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        frozen_metadata(metadata)
    assert caught.value.argument == "metadata"


def test_metadata_as_large_as_may_be() -> None:
    extremes = {"k" * 255: -(1 << 63), "a": (1 << 63) - 1, "b": 1e308}
    assert frozen_metadata(extremes) == extremes
    assert frozen_metadata({"a": "x" * (MAX_METADATA_BYTES - 1)})


def test_no_metadata() -> None:
    assert frozen_metadata(None) == frozen_metadata({}) == {}


# -- configuration -------------------------------------------------------------------------------------------------


def test_every_wrong_parameter_is_named() -> None:
    """G6, S12: all of them, by one error."""
    with pytest.raises(ConfigError) as caught:
        SessionConfig(ttl=0, sliding=1, max_requests=0, request_rate=nan, request_burst=2.5, priority=8)  # type: ignore[arg-type]
    names = ("ttl", "sliding", "max_requests", "request_rate", "request_burst", "priority")
    assert caught.value.arguments == names
    assert caught.value.argument == "ttl"
    assert all(name in caught.value.message for name in names)


def test_the_bounds_are_good() -> None:
    """G2, G6: what is at the edge is allowed, what is beyond it is not, however large."""
    edges = {
        "ttl": (MIN_SECONDS, MAX_SECONDS),
        "max_requests": (1, 1 << 20),
        "request_rate": (0.001, 1e6),
        "request_burst": (1, 1 << 20),
        "priority": (0, 7),
    }
    for name, (low, high) in edges.items():
        for value in (low, high):
            assert getattr(SessionConfig(**{name: value}), name) == value
        for wrong in (low / 2 - 1e-4, high + 1, 10**400, -(10**400), nan, True, None):
            with pytest.raises(ConfigError) as caught:
                SessionConfig(**{name: wrong})
            assert caught.value.arguments == (name,)


# -- rates ---------------------------------------------------------------------------------------------------------


@given(
    rate=st.sampled_from((0.1, 1.0, 3.0, 1000.0)),
    burst=st.integers(1, 10),
    pauses=st.lists(st.floats(0, 5), max_size=60),
    start=st.sampled_from((0.0, 1e6, 1.7e9)),
)
def test_never_more_than_burst_and_rate(rate: float, burst: int, pauses: list[float], start: float) -> None:
    """H8: in any stretch of time; and who waits as long as he is told is let in."""
    bucket, now, taken = TokenBucket(rate, burst), start, list[float]()
    for pause in pauses:
        now += pause
        wait = bucket.wait(now)
        if not wait:
            bucket.take(now)
            taken.append(now)
        elif wait < 1:
            now += wait
            assert bucket.wait(now) == 0
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + rate * (taken[last] - taken[first] + 1e-5)


@given(
    steps=st.lists(
        st.tuples(st.sampled_from((0.0, 0.5, 4.0, 100.0)), st.sampled_from((0.5, 1.0, 4.0, inf)), st.integers(1, 8)),
        min_size=1,
        max_size=20,
    )
)
def test_a_bucket_that_changes(steps: list[tuple[float, float, int]]) -> None:
    """H8: never more than the burst lies in it, and never less than nothing: nobody is locked out by a change."""
    bucket, now, tokens, before = TokenBucket(1.0, 1), 0.0, 1.0, (1.0, 1)
    for pause, rate, burst in steps:
        now += pause
        old_rate, old_burst = before
        tokens = old_burst if old_rate == inf else min(old_burst, tokens + pause * old_rate)
        tokens = burst - min(old_burst - tokens, burst)
        bucket.change(rate, burst, now)
        before = rate, burst
        assert bucket.wait(now) <= 1 / rate + 1e-5
        took = 0
        while took < 20 and not bucket.wait(now):
            bucket.take(now)
            took += 1
        assert took == (20 if rate == inf else int(tokens + 1e-4))
        tokens -= took


def test_a_full_bucket() -> None:
    bucket = TokenBucket(1.0, 3)
    for _ in range(3):
        assert bucket.wait(50.0) == 0
        bucket.take(50.0)
    assert bucket.wait(50.0) == pytest.approx(1.0)
    bucket.change(10.0, 3, 50.0)
    assert bucket.wait(50.0) == pytest.approx(0.1)
    bucket.change(inf, 1, 50.0)
    assert bucket.wait(50.0) == 0
    bucket.take(50.0)
    bucket.change(1.0, 1, 60.0)
    assert bucket.wait(60.0) == 0
