"""Sessions that say of themselves how they are: what they say counts as if the manager was told."""

from __future__ import annotations

from typing import Any

import pytest

from stt_proto.manager import EndReason, SessionManager
from stt_proto.types import Deadline, SessionState
from tests.proto.manager.test_manager import ID, OTHER, PEER, THIRD, managed


class Said:
    """What a session says of itself."""

    def __init__(self) -> None:
        self.last_used = 0.0
        self.open_streams = 0


def speaking(**config: Any) -> tuple[SessionManager, Said]:
    """A manager with one session that says of itself how it is."""
    manager, said = SessionManager(), Said()
    manager.create_session(ID, PEER, 0.0, config=config, use=said)
    return manager, said


def test_what_a_session_says_counts_as_if_the_manager_was_told() -> None:
    """G2, G3, H1: when it was used last, and how many streams it has; the later of both counts."""
    manager, said = speaking(ttl=10.0)
    said.last_used = 8.0
    assert manager.remaining_ttl(ID, 9.0) == 9.0
    assert manager.sweep(12.0) == ()
    manager.touch(ID, 13.0)
    said.open_streams = 2
    assert manager.stream_opened(ID, 14.0)
    record = manager.inspect(ID, 14.0)
    assert record is not None
    assert (record.last_active, record.streams) == (14.0, 3)
    assert manager.metrics(14.0).streams == manager.drain_status(14.0).streams == 3
    assert manager.next_deadline() == Deadline(18.0, "expiry")  # early is harmless
    assert manager.sweep(18.0) == ()
    assert manager.next_deadline() == Deadline(24.0, "expiry")


def test_whatever_may_be_due_earlier_stirs() -> None:
    """Who has seen `due` need not look again as long as `stirs` is the same."""
    manager, said = speaking(ttl=10.0)

    def due_after(stirring: bool, call: Any) -> float:
        before = manager.stirs
        call()
        assert (manager.stirs > before) is stirring
        return manager.due()[0]

    assert due_after(True, lambda: manager.create_session(OTHER, PEER, 1.0, config={"ttl": 5.0})) == 6.0
    assert due_after(False, lambda: manager.touch(OTHER, 2.0)) == 6.0
    assert due_after(False, lambda: manager.extend(OTHER, 20.0, 2.0)) == 6.0
    assert due_after(True, lambda: manager.update_config(OTHER, {"ttl": 3.0}, 2.0)) == 5.0
    said.open_streams = 1
    manager.close_session(OTHER, 2.0)
    assert [record.session_id for record in manager.sweep(2.0)] == [OTHER]
    assert due_after(True, lambda: manager.close_session(ID, 3.0)) == 3.0
    manager.take_leaving()
    said.open_streams = 0
    assert due_after(True, lambda: manager.work_changed(ID, 4.0)) == 4.0
    assert len(manager.sweep(4.0)) == 1
    manager.create_session(THIRD, PEER, 5.0)
    said.open_streams = 1
    assert due_after(True, lambda: manager.drain(6.0, 1.0)) == 6.0


def test_the_host_is_told_whom_to_let_go_of() -> None:
    """H2: once; and of one that is idle by the sweep alone."""
    manager, said = speaking(ttl=10.0)
    said.open_streams = 1
    assert not manager.has_session(ID, 10.0)
    assert manager.next_deadline() == Deadline(10.0, "sweep")
    assert manager.sweep(10.0) == ()
    (record,) = manager.take_leaving()
    assert (record.session_id, record.state, record.close_reason) == (ID, SessionState.CLOSING, EndReason.EXPIRED)
    assert manager.take_leaving() == ()
    manager.work_changed(ID, 11.0)
    assert manager.sweep(11.0) == ()
    said.open_streams = 0
    manager.work_changed(ID, 12.0)
    assert [each.session_id for each in manager.sweep(12.0)] == [ID]
    assert manager.take_leaving() == ()
    manager.work_changed(ID, 13.0)
    manager.work_changed(OTHER, 13.0)
    said.last_used = 14.0  # nobody listens any more
    said.open_streams = 5
    over = manager.inspect(ID, 14.0)
    assert over is not None
    assert (over.last_active, over.streams) == (0.0, 0)


@pytest.mark.parametrize("reason", ["timeout", "error", "auth_failure"])
def test_the_host_is_told_what_was_closed_without_a_sweep(reason: str) -> None:
    manager, _ = speaking()
    assert manager.close_session(ID, 1.0, reason)
    (record,) = manager.take_leaving()
    assert (record.is_closed, record.close_reason) == (True, reason)
    managed().close_session(ID, 1.0, reason)
    assert manager.sweep(1.0) == manager.take_leaving() == ()


def test_what_is_over_is_over() -> None:
    """S6, S10: whatever it was at; a request ends when it does, and a reason that there was stays."""
    manager, said = speaking()
    said.open_streams = 1
    token = manager.begin_request(ID, 1.0)
    assert manager.close_session(ID, 2.0, "moved")
    assert manager.end_session(ID, 3.0)
    assert not manager.end_session(ID, 4.0, "error")
    assert not manager.end_session(OTHER, 4.0)
    record = manager.inspect(ID, 4.0)
    assert record is not None
    assert (record.is_closed, record.close_reason, record.requests) == (True, EndReason.MOVED, 1)
    assert manager.take_leaving() == ()
    assert manager.end_request(token, 5.0)
    metrics = manager.metrics(5.0)
    assert (metrics.created, metrics.ended[EndReason.MOVED], metrics.streams) == (1, 1, 0)
