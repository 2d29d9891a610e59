"""The manager, call by call: what the machine does not say by name (F, G1 to G8, H1 to H6, H8, H9)."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st

from stt_proto.errors import (
    ArgumentError,
    ConfigError,
    RateLimitedError,
    SessionExpiredError,
    SessionNotFound,
    ShuttingDownError,
    TooManyRequestsError,
    TooManySessionsError,
    VersionConflictError,
)
from stt_proto.manager import (
    EndReason,
    ManagerLimits,
    ManagerStats,
    SessionConfig,
    SessionManager,
    SessionRecord,
)
from stt_proto.manager.checks import MAX_SECONDS, MIN_SECONDS
from stt_proto.types import CloseReason, Deadline, SessionState
from tests.proto.manager.model import Said

ID, OTHER, THIRD = b"\x01" * 8, b"\x02" * 8, b"\x03" * 8
PEER, STRANGER = b"\x0a" * 32, b"\x0b" * 32


def managed(**config: Any) -> SessionManager:
    """A manager with one session."""
    manager = SessionManager()
    manager.create_session(ID, PEER, 0.0, config=config)
    return manager


# -- F: by their names ---------------------------------------------------------------------------------------------


def test_every_call_of_the_manual() -> None:
    """F: created, found, listed, counted, closed, cleaned up."""
    manager = SessionManager(0.0, 1.7e9)
    record = manager.create_session(ID, PEER, 5.0, metadata={"user": "ann"})
    manager.create_session(OTHER, PEER, 5.0)
    manager.create_session(THIRD, STRANGER, 5.0)
    assert record.created_at == 1.7e9 + 5
    assert (record.state, record.is_active, record.is_closed) == (SessionState.ESTABLISHED, True, False)
    assert manager.get_session(ID, 6.0) == record
    assert record.closed_at is record.close_reason is record.extended_until is None
    assert manager.inspect(b"unknown!", 6.0) is None
    assert [each.generation for each in manager.list_sessions(6.0)] == [1, 2, 3]
    assert manager.has_session(ID, 6.0)
    assert not manager.has_session(b"unknown!", 6.0)
    assert [each.session_id for each in manager.find_session_by_peer(PEER, 6.0)] == [ID, OTHER]
    assert manager.find_session_by_peer(b"\x0c" * 32, 6.0) == ()
    assert manager.get_session_count(6.0) == 3
    assert manager.rotate_all_keys(6.0) == (ID, OTHER, THIRD)
    assert manager.close_session(ID, 7.0)
    assert not manager.close_session(ID, 7.0)
    assert not manager.close_session(b"unknown!", 7.0)
    assert manager.get_stats(7.0) == ManagerStats(total=3, active=2, closing=1, closed=0)
    (closed,) = manager.sweep(7.0)
    assert (closed.session_id, closed.close_reason, closed.closed_at) == (ID, EndReason.GRACEFUL, 1.7e9 + 7)
    assert len(manager.list_sessions(8.0)) == 3
    assert len(manager.get_active_sessions(8.0)) == 2
    assert manager.cleanup_closed_sessions(8.0) == 1
    assert manager.close_all_sessions(8.0, "error") == 2
    assert manager.get_stats(8.0) == ManagerStats(total=2, active=0, closing=0, closed=2)


def test_closed_sessions_are_cleaned_up_without_being_asked() -> None:
    """F: after `closed_retention` seconds, and the oldest first when there are too many."""
    manager = SessionManager(limits=ManagerLimits(closed_retention=10, closed_sessions=1))
    for session_id in (ID, OTHER):
        manager.create_session(session_id, PEER, 0.0)
        manager.close_session(session_id, 0.0, "error")
    assert [record.session_id for record in manager.list_sessions(0.0)] == [OTHER]
    assert manager.next_deadline() == Deadline(10.0, "forget")
    assert manager.list_sessions(10.0) == ()
    assert manager.next_deadline() is None
    with pytest.raises(SessionNotFound) as caught:
        manager.remaining_ttl(OTHER, 10.0)
    assert caught.value.reason == ""


def test_reasons_are_those_of_the_sessions() -> None:
    """A7: what a session says of its end is understood here."""
    assert {EndReason(str(reason)) for reason in CloseReason} < set(EndReason)


def test_the_wall_clock_is_corrected() -> None:
    """Times in records move, lifetimes do not."""
    manager = managed(ttl=10)
    manager.set_unix_time(1000.0, 5.0)
    record = manager.inspect(ID, 5.0)
    assert record is not None
    assert (record.created_at, record.expires_at) == (995.0, 1005.0)
    assert manager.remaining_ttl(ID, 5.0) == 5.0


# -- G: lifetimes --------------------------------------------------------------------------------------------------


def test_expiry_is_exact_and_final() -> None:
    """G5: whatever the sweep does; with a reason; and no clock that steps back undoes it."""
    manager = managed(ttl=10)
    assert manager.next_deadline() == Deadline(10.0, "expiry")
    assert manager.has_session(ID, 9.999)
    assert manager.get_session(ID, 10.0) is None
    assert not manager.touch(ID, 9.0)
    assert manager.get_session(ID, 9.0) is None
    assert manager.remaining_ttl(ID, 9.0) == 0.0
    for late in (
        lambda: manager.extend(ID, 5.0, 10.0),
        lambda: manager.begin_request(ID, 10.0),
        lambda: manager.update_config(ID, {"ttl": 60}, 10.0),
        lambda: manager.set_metadata(ID, {}, 10.0),
    ):
        with pytest.raises(SessionExpiredError) as caught:
            late()
        assert caught.value.reason == "expired"
    assert not manager.stream_opened(ID, 10.0)
    assert manager.next_deadline() == Deadline(10.0, "sweep")
    assert [record.close_reason for record in manager.sweep(10.0)] == ["expired"]
    record = manager.inspect(ID, 11.0)
    assert record is not None
    assert record.close_reason is EndReason.EXPIRED


def test_a_closed_session_says_why() -> None:
    manager = managed()
    manager.close_session(ID, 1.0, "auth_failure")
    with pytest.raises(SessionNotFound) as caught:
        manager.begin_request(ID, 1.0)
    assert (type(caught.value), caught.value.reason) == (SessionNotFound, "auth_failure")


@pytest.mark.parametrize("work", ["request", "stream"])
def test_what_ends_too_late_revives_nothing(work: str) -> None:
    """G5, S2: the end of work is a use, unless it comes after the session expired, though nobody had noticed."""
    manager = managed(ttl=10)
    token = manager.begin_request(ID, 0.0)
    manager.stream_opened(ID, 0.0)
    assert manager.end_request(token, 10.0) if work == "request" else manager.stream_closed(ID, 10.0)
    record = manager.inspect(ID, 10.0)
    assert record is not None
    assert (record.state, record.close_reason, record.last_active) == (SessionState.CLOSING, EndReason.EXPIRED, 0.0)


@pytest.mark.parametrize(("sliding", "left"), [(True, 10.0), (False, 4.0)])
def test_use_and_time(sliding: bool, left: float) -> None:
    """G1 to G3: a sliding lifetime begins anew with each use, an absolute one does not, and looking is no use."""
    manager = managed(ttl=10, sliding=sliding)
    assert manager.touch(ID, 6.0)
    assert manager.remaining_ttl(ID, 6.0) == left
    for now in (6.5, 7.0, 7.5):
        manager.get_session(ID, now)
        manager.inspect(ID, now)
        manager.has_session(ID, now)
        manager.list_sessions(now)
        manager.metrics(now)
    assert manager.remaining_ttl(ID, 8.0) == left - 2.0


@pytest.mark.parametrize("start", [-1e15, -5.0, 0.0, 0.1, 1.7e9, 1e12])
def test_lifetimes_on_any_clock(start: float) -> None:
    """S3: one that begins anywhere, leaps, and steps back; what is left is what was given, as floats have it."""
    manager = SessionManager(start, 1.7e9)
    manager.create_session(ID, PEER, start, config={"ttl": 8.0})
    assert manager.remaining_ttl(ID, start - 1e6) == 8.0
    manager.touch(ID, start + 4.0)
    assert manager.get_session(ID, start + 11.5) is not None
    assert manager.remaining_ttl(ID, start) == pytest.approx(0.5, abs=0.25)
    manager.create_session(OTHER, PEER, start, config={"ttl": MAX_SECONDS})
    assert manager.get_session(ID, start + 1e8) is None
    assert manager.has_session(OTHER, start + 1e8)
    assert [record.session_id for record in manager.sweep(1e15)] == [ID, OTHER]
    assert manager.next_deadline() == Deadline(1e15 + 300.0, "forget")


@given(now=st.floats(-1e15, 1e15), seconds=st.floats(MIN_SECONDS, MAX_SECONDS))
@example(now=1.7e9, seconds=0.001)
def test_an_extension_is_never_less_than_was_asked_for(now: float, seconds: float) -> None:
    """S4, G4: however floats are rounded."""
    manager = SessionManager(now)
    manager.create_session(ID, PEER, now, config={"ttl": MIN_SECONDS})
    if manager.has_session(ID, now):  # far from zero, so short a life is none
        assert manager.extend(ID, seconds, now) >= seconds
        assert manager.remaining_ttl(ID, now) >= seconds


def test_nothing_is_piled_up() -> None:
    """H3: neither by what is extended, used and configured without end, nor by sessions that come and go."""
    manager = managed(ttl=1000)
    heap = manager._table._deadlines
    for step in range(2000):
        now = step / 100
        manager.extend(ID, 1000.0, now)
        manager.touch(ID, now)
        manager.update_config(ID, {"ttl": 1000.0 - step % 2}, now)
        manager.create_session(OTHER, STRANGER, 0.0, config={"ttl": 500})
        manager.close_session(OTHER, 0.0, "error")
        manager.cleanup_closed_sessions(0.0)
        assert len(heap._heap) <= 2 * 2 + 64
    assert manager.get_stats(20.0).total == 1


def test_of_what_is_forgotten_nothing_is_left() -> None:
    """S9, S17: no index, no deadline and no list knows of a session any more."""
    manager = SessionManager()
    for number in range(200):
        session_id = number.to_bytes(8)
        manager.create_session(session_id, number.to_bytes(32), 0.0, namespace=str(number), use=Said(0.0))
        manager.end_request(manager.begin_request(session_id, 0.0), 0.0)
        manager.set_namespace(session_id, f"of {number}", 0.0)
        if number % 3:
            manager.close_session(session_id, 0.0, ("graceful", "error")[number % 2])
    manager.sweep(3600.0)
    manager.take_leaving()
    assert manager.get_stats(3600.0).total > 0
    assert manager.get_stats(3900.0).total == 0
    table = manager._table
    held = (table.entries, table.ready, table.speaking, table.leaving, table.closed, table._deadlines)
    assert not any(map(len, (*held, table.by_peer._groups, table.by_namespace._groups)))
    assert manager.next_deadline() is None
    metrics = manager.metrics(3900.0)
    assert metrics.created == metrics.forgotten == sum(metrics.ended.values()) == 200


def test_extend() -> None:
    """G4: as long as that at least; twice is once; a use shortens nothing, another `ttl` does."""
    manager = managed(ttl=5)
    assert manager.extend(ID, 3600, 1.0) == 3600
    assert manager.extend(ID, 3600, 1.0) == 3600
    assert manager.extend(ID, 60, 2.0) == 3599
    manager.touch(ID, 3.0)
    assert manager.remaining_ttl(ID, 3.0) == 3598
    manager.update_config(ID, {"max_requests": 7}, 3.0)
    assert manager.remaining_ttl(ID, 3.0) == 3598
    manager.update_config(ID, {"ttl": 4}, 3.0)
    assert manager.remaining_ttl(ID, 3.0) == 4


def test_a_shorter_lifetime_counts_at_once() -> None:
    """G5, G6: also when by that it is over."""
    manager = managed(ttl=100)
    manager.update_config(ID, {"ttl": 50}, 1.0)
    assert manager.next_deadline() == Deadline(50.0, "expiry")
    record = manager.update_config(ID, {"sliding": False, "ttl": 2}, 2.0)
    assert (record.state, record.close_reason) == (SessionState.CLOSING, EndReason.EXPIRED)


def test_configuration_by_version() -> None:
    """G6: compare and set; nothing changed is no new version; all or nothing."""
    manager = managed(ttl=100)
    assert manager.update_config(ID, {"priority": 1}, 0.0, if_version=1).config_version == 2
    with pytest.raises(VersionConflictError) as caught:
        manager.update_config(ID, {"priority": 2}, 0.0, if_version=1)
    assert caught.value.version == 2
    with pytest.raises(ConfigError) as wrong:
        manager.update_config(ID, {"priority": 2, "ttl": nan, "colour": "red"}, 0.0)
    assert wrong.value.arguments == ("ttl", "colour")
    record = manager.update_config(ID, {"priority": 1}, 0.0)
    assert (record.config_version, record.config) == (2, SessionConfig(ttl=100, priority=1))
    assert manager.update_config(ID, {"ttl": None}, 0.0).config.ttl == 3600


def test_namespaces_are_apart() -> None:
    """G7: what differs in anything is another."""
    manager = SessionManager()
    names = ("tenant-a.bot", "tenant_a_bot", b"tenant_a_bot", "TENANT_A_BOT", "")
    for number, name in enumerate(names):
        manager.create_session(bytes((number,)) * 8, PEER, 0.0, namespace=name)
    for number, name in enumerate(names):
        (record,) = manager.get_active_sessions(0.0, namespace=name)
        assert (record.session_id, record.namespace) == (bytes((number,)) * 8, name)
        assert manager.list_sessions(0.0, namespace=name) == (record,)


def test_metadata_belongs_to_one() -> None:
    """H4, M1: one dictionary for two sessions; what is given out cannot be changed."""
    manager, shared = SessionManager(), {"user": "ann"}
    manager.create_session(ID, PEER, 0.0, metadata=shared)
    manager.create_session(OTHER, PEER, 0.0, metadata=shared)
    shared["user"] = "bob"
    assert manager.set_metadata(ID, {"user": "eve"}, 0.0).metadata == {"user": "eve"}
    other = manager.get_session(OTHER, 0.0)
    assert other is not None
    assert other.metadata == {"user": "ann"}
    with pytest.raises(TypeError):
        other.metadata["user"] = "eve"  # type: ignore[index]


# -- H: work in progress -------------------------------------------------------------------------------------------


def test_clean_up_never_takes_a_busy_session() -> None:
    """H1, H2: neither the sweep, nor a graceful end; not even when it is over is it forgotten."""
    manager = managed(ttl=10)
    with manager.track_request(ID, 1.0):
        manager.stream_opened(ID, 2.0)
        assert manager.sweep(100.0) == ()
        assert manager.get_stats(100.0).closing == 1
        manager.close_session(ID, 100.0, "error")
        assert manager.cleanup_closed_sessions(100.0) == 0
        record = manager.inspect(ID, 100.0)
        assert record is not None
        assert (record.requests, record.streams) == (1, 0)
    assert not manager.stream_closed(ID, 100.0)
    assert manager.cleanup_closed_sessions(100.0) == 1


def test_the_last_stream_lets_it_go() -> None:
    """H1: every open stream counts."""
    manager = managed(ttl=10)
    assert manager.stream_opened(ID, 1.0)
    assert manager.sweep(20.0) == ()
    assert manager.stream_closed(ID, 20.0)
    assert len(manager.sweep(20.0)) == 1
    assert not manager.stream_closed(ID, 20.0)
    assert not manager.stream_closed(OTHER, 20.0)


def test_a_request_that_fails_ends() -> None:
    """H1, H5: it is counted, and its exception goes on."""
    manager = managed()
    with pytest.raises(ZeroDivisionError), manager.track_request(ID, 0.0):
        _ = 1 / 0
    metrics = manager.metrics(0.0)
    assert (metrics.requests_begun, metrics.requests_ended, metrics.requests_failed) == (1, 1, 1)


def test_a_token_is_good_once_and_here() -> None:
    """H1: it ends one request, of the manager that gave it."""
    manager, other = managed(), managed()
    token = manager.begin_request(ID, 0.0)
    assert not other.end_request(token, 0.0)
    assert manager.end_request(token, 0.0)
    assert not manager.end_request(token, 0.0)
    assert ID.hex() in repr(token)
    with pytest.raises(ArgumentError) as caught:
        manager.end_request(ID, 0.0)  # type: ignore[arg-type]
    assert caught.value.argument == "token"
    token = manager.begin_request(ID, 0.0)
    with pytest.raises(ArgumentError) as caught:
        manager.end_request(token, 0.0, failed="no")  # type: ignore[arg-type]
    assert caught.value.argument == "failed"
    assert manager.end_request(token, 0.0, failed=True)
    metrics = manager.metrics(0.0)
    assert (metrics.requests_begun, metrics.requests_ended, metrics.requests_failed) == (2, 2, 1)


def test_limits_of_sessions() -> None:
    """H3: of a peer, of a namespace, in all; refused is not counted as created, and changes nothing."""
    limits = ManagerLimits(sessions=3, sessions_per_peer=2, sessions_per_namespace=2)
    manager = SessionManager(limits=limits)
    manager.create_session(b"\x01" * 8, PEER, 0.0)
    manager.create_session(b"\x02" * 8, PEER, 0.0, namespace="x")
    for peer, namespace, scope in ((PEER, "y", "peer"),):
        with pytest.raises(TooManySessionsError) as caught:
            manager.create_session(b"\x09" * 8, peer, 0.0, namespace=namespace)
        assert (caught.value.scope, caught.value.code, caught.value.retryable) == (scope, 0x0203, True)
    manager.create_session(b"\x03" * 8, STRANGER, 0.0)
    with pytest.raises(TooManySessionsError) as caught:
        manager.create_session(b"\x09" * 8, b"\x0c" * 32, 0.0, namespace="z")
    assert caught.value.scope == "all"
    manager.close_session(b"\x02" * 8, 0.0, "error")
    with pytest.raises(TooManySessionsError) as caught:
        manager.create_session(b"\x09" * 8, STRANGER, 0.0)
    assert caught.value.scope == "namespace"
    metrics = manager.metrics(0.0)
    assert (metrics.created, metrics.refused["peer"], metrics.refused["namespace"]) == (3, 1, 1)
    assert metrics.refused["sessions"] == 1


def test_who_is_over_and_still_at_work_has_a_place() -> None:
    """H3: so a peer that makes sessions and drops them in the middle of a request is stopped by the limit."""
    manager = SessionManager(limits=ManagerLimits(sessions_per_peer=2))
    for session_id in (ID, OTHER):
        manager.create_session(session_id, PEER, 0.0)
        token = manager.begin_request(session_id, 0.0)
        manager.close_session(session_id, 0.0, "timeout")
    with pytest.raises(TooManySessionsError):
        manager.create_session(THIRD, PEER, 0.0)
    manager.end_request(token, 0.0)
    manager.create_session(THIRD, PEER, 0.0)


def test_requests_in_all_and_priorities() -> None:
    """H3, H9: the last places are for the urgent ones."""
    manager = SessionManager(limits=ManagerLimits(requests=8))
    for number in range(8):
        manager.create_session(bytes((number,)) * 8, PEER, 0.0, config={"priority": number})
    begun = {}
    for number in reversed(range(8)):
        count = 0
        while True:
            try:
                manager.begin_request(bytes((number,)) * 8, 0.0)
            except TooManyRequestsError as error:
                assert error.scope == "all"
                break
            count += 1
        begun[number] = count
    assert begun == {7: 4, 6: 1, 5: 1, 4: 1, 3: 1, 2: 0, 1: 0, 0: 0}
    assert manager.metrics(0.0).refused["requests_in_all"] == 8
    assert ManagerLimits(requests=1).requests_at(7) == 1


def test_the_urgent_come_first() -> None:
    """H9: in the order in which keys are to be replaced."""
    manager = SessionManager()
    for session_id, priority in ((ID, 3), (OTHER, 0), (THIRD, 7)):
        manager.create_session(session_id, PEER, 0.0, config={"priority": priority})
    assert manager.rotate_all_keys(0.0) == (OTHER, ID, THIRD)


def test_a_rate() -> None:
    """H8: a burst, then one in each interval; who waits as long as he is told is let in."""
    manager = managed(request_rate=2.0, request_burst=3)
    for _ in range(3):
        manager.begin_request(ID, 100.0)
    with pytest.raises(RateLimitedError) as caught:
        manager.begin_request(ID, 100.0)
    assert caught.value.retry_after == pytest.approx(0.5)
    assert (caught.value.code, caught.value.retryable) == (0x0208, True)
    manager.begin_request(ID, 100.0 + caught.value.retry_after)
    assert manager.metrics(101.0).refused["rate"] == 1
    manager.update_config(ID, {"request_rate": inf}, 101.0)
    manager.begin_request(ID, 101.0)


def test_drain() -> None:
    """H6: refuse what is new, end what is idle, wait for what is not, and end that at the deadline."""
    manager = SessionManager()
    for session_id in (ID, OTHER, THIRD):
        manager.create_session(session_id, PEER, 0.0)
    quick, slow = manager.begin_request(OTHER, 0.0), manager.begin_request(THIRD, 0.0)
    assert not manager.drain_status(0.0).is_draining
    assert not manager.is_draining
    status = manager.drain(1.0, 30.0)
    assert (status.deadline, status.sessions, status.requests, status.is_over) == (31.0, 3, 2, False)
    assert manager.is_draining
    with pytest.raises(ShuttingDownError):
        manager.create_session(b"\x04" * 8, PEER, 1.0)
    with pytest.raises(ShuttingDownError):
        manager.begin_request(OTHER, 1.0)
    assert [record.session_id for record in manager.sweep(1.0)] == [ID]
    assert manager.next_deadline() == Deadline(31.0, "drain")
    manager.end_request(quick, 5.0)
    assert [record.session_id for record in manager.sweep(5.0)] == [OTHER]
    assert manager.sweep(30.9) == ()
    (record,) = manager.sweep(31.0)
    assert (record.session_id, record.close_reason, record.requests) == (THIRD, EndReason.SHUTDOWN, 1)
    assert manager.drain_status(31.0).is_over
    assert manager.end_request(slow, 40.0)
    with pytest.raises(ShuttingDownError):
        manager.create_session(b"\x04" * 8, PEER, 50.0)
    assert manager.metrics(50.0).ended[EndReason.SHUTDOWN] == 3


def test_the_deadline_of_a_drain_only_comes_nearer() -> None:
    manager = managed()
    manager.begin_request(ID, 0.0)
    assert manager.drain(0.0, 10.0).deadline == 10.0
    assert manager.drain(1.0, 60.0).deadline == 10.0
    assert manager.drain(2.0, 0.0).deadline == 2.0
    assert len(manager.sweep(2.0)) == 1


# -- moving and restarting -----------------------------------------------------------------------------------------


def test_a_session_goes_on_elsewhere() -> None:
    """H7: from bytes, by the wall clock, with its configuration, its version and what it was promised."""
    here, there = SessionManager(100.0, 1.7e9), SessionManager(5.0, 1.7e9 + 20)
    here.create_session(ID, PEER, 100.0, namespace=b"\xff", config={"ttl": 60}, metadata={"n": 1})
    here.update_config(ID, {"max_requests": 1}, 100.0)
    here.extend(ID, 90, 100.0)
    record = here.get_session(ID, 110.0)
    assert record is not None
    here.close_session(ID, 110.0, "moved")
    restored = there.restore_session(SessionRecord.from_bytes(record.to_bytes()), 5.0)
    assert restored.config_version == 2
    assert restored.metadata == {"n": 1}
    assert there.remaining_ttl(ID, 5.0) == pytest.approx(70)
    assert there.get_active_sessions(5.0, namespace=b"\xff") == (restored,)
    assert there.metrics(5.0).restored == 1


def test_what_is_over_is_not_restored() -> None:
    """S11: neither expired nor closed; nor one that is here."""
    manager = managed(ttl=10)
    record = manager.get_session(ID, 0.0)
    assert record is not None
    with pytest.raises(ArgumentError):
        manager.restore_session(record, 0.0)
    later = SessionManager(0.0, 10.0)
    with pytest.raises(SessionExpiredError):
        later.restore_session(record, 0.0)
    manager.close_session(ID, 1.0, "error")
    closed = manager.inspect(ID, 1.0)
    assert closed is not None
    with pytest.raises(SessionNotFound) as caught:
        SessionManager(0.0, 0.0).restore_session(closed, 0.0)
    assert caught.value.reason == "error"


def test_a_record_from_the_future() -> None:
    """A clock that is ahead gives no more time than the lifetime."""
    record = SessionManager(0.0, 1000.0).create_session(ID, PEER, 0.0, config={"ttl": 10})
    behind = SessionManager(0.0, 0.0)
    behind.restore_session(record, 0.0)
    assert behind.remaining_ttl(ID, 0.0) == 10


def test_a_record_that_promises_too_much() -> None:
    """S11: no lifetime is longer than ten years; after the last version there is one that a record may have, too."""
    record = SessionManager(0.0, 1.7e9).create_session(ID, PEER, 0.0)
    manager = SessionManager(5.0, 1.7e9)
    manager.restore_session(evolve(record, extended_until=1e300), 5.0)
    assert manager.remaining_ttl(ID, 5.0) == MAX_SECONDS
    for version in (0, (1 << 64) - 1):
        with pytest.raises(ArgumentError) as caught:
            SessionManager(0.0, 1.7e9).restore_session(evolve(record, config_version=version), 0.0)
        assert caught.value.argument == "record"
    manager = SessionManager(0.0, 1.7e9)
    manager.restore_session(evolve(record, config_version=1 << 63), 0.0)
    changed = manager.update_config(ID, {"ttl": 5.0}, 0.0)
    assert SessionRecord.from_bytes(changed.to_bytes()) == evolve(changed, generation=0)
    assert manager.update_config(ID, {"ttl": 6.0}, 0.0, if_version=changed.config_version).config_version == 2


# -- room and namespaces -----------------------------------------------------------------------------------------------


def test_room() -> None:
    """H3: asked for beforehand, one too many counts as refused."""
    manager = SessionManager(limits=ManagerLimits(sessions_per_peer=1, sessions_per_namespace=1))
    manager.check_room(PEER, 0.0)
    manager.create_session(ID, PEER, 0.0, namespace="a")
    manager.create_session(THIRD, b"\x0c" * 32, 0.0)
    with pytest.raises(TooManySessionsError):
        manager.check_room(STRANGER, 0.0)  # of the namespace without a name
    manager.end_session(THIRD, 0.0)
    for peer, namespace, scope in ((PEER, "b", "peer"), (STRANGER, "a", "namespace")):
        with pytest.raises(TooManySessionsError) as caught:
            manager.check_room(peer, 0.0, namespace=namespace)
        assert caught.value.scope == scope
    assert (manager.metrics(0.0).refused["peer"], manager.metrics(0.0).refused["namespace"]) == (1, 2)
    manager.drain(1.0, 0.0)
    with pytest.raises(ShuttingDownError):
        manager.check_room(STRANGER, 1.0)


def test_from_one_namespace_into_another() -> None:
    """G7, H3."""
    manager = SessionManager(limits=ManagerLimits(sessions_per_namespace=1))
    manager.create_session(ID, PEER, 0.0)
    manager.create_session(OTHER, PEER, 0.0, namespace="a")
    with pytest.raises(TooManySessionsError) as caught:
        manager.set_namespace(ID, "a", 1.0)
    assert caught.value.scope == "namespace"
    assert manager.metrics(1.0).refused["namespace"] == 1
    assert manager.set_namespace(OTHER, "a", 1.0).namespace == "a"
    assert manager.set_namespace(OTHER, b"a", 1.0).namespace == b"a"
    assert manager.set_namespace(ID, "a", 1.0).namespace == "a"
    assert [record.session_id for record in manager.get_active_sessions(1.0, namespace="a")] == [ID]
    manager.create_session(THIRD, PEER, 2.0)
    manager.close_session(THIRD, 2.0)
    with pytest.raises(SessionNotFound):
        manager.set_namespace(THIRD, "b", 3.0)
    with pytest.raises(ArgumentError):
        manager.set_namespace(ID, 7, 3.0)  # type: ignore[arg-type]
