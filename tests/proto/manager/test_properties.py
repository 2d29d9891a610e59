"""S1 to S13 and S16 on the pure manager, all at once and in any order; S15 on the client; S17, what it costs.

S14 is in test_store.py. That these can fail is shown in test_faults.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stt_proto.manager import ManagerLimits, SessionManager
from tests.proto.manager.checked import counted_calls, run
from tests.proto.manager.coming_back import ComingBack
from tests.proto.manager.life import Life

PEER = bytes(32)


def test_whatever_happens() -> None:
    """S1 to S13, S16: the manager does what the plain model does."""
    run(Life, examples=250, steps=50)


def test_coming_back() -> None:
    """S15, G9: one new session for a loss, however often that is told; waits that are bounded; and an end to it."""
    run(ComingBack, examples=150, steps=50)


def ids(count: int) -> list[bytes]:
    return [number.to_bytes(8) for number in range(1, count + 1)]


def crowd(count: int) -> SessionManager:
    """Sessions of many peers, that expire one each second from second 1,000 on."""
    manager = SessionManager(limits=ManagerLimits(sessions=1 << 20, closed_sessions=1 << 20))
    for number, session_id in enumerate(ids(count)):
        config = {"ttl": 1000.0 + number, "sliding": False}
        manager.create_session(session_id, number.to_bytes(32), 0.0, config=config)
    return manager


def one_request(manager: SessionManager, session_id: bytes) -> None:
    manager.end_request(manager.begin_request(session_id, 1.0), 1.0)


OPERATIONS: dict[str, Callable[[SessionManager, bytes], Any]] = {
    "create": lambda manager, _: manager.create_session(b"another!", PEER, 1.0),
    "get": lambda manager, session_id: manager.get_session(session_id, 1.0),
    "get_late": lambda manager, session_id: manager.get_session(session_id, 1e9),
    "inspect": lambda manager, session_id: manager.inspect(session_id, 1.0),
    "touch": lambda manager, session_id: manager.touch(session_id, 1.0),
    "extend": lambda manager, session_id: manager.extend(session_id, 5.0, 1.0),
    "configure": lambda manager, session_id: manager.update_config(session_id, {"ttl": 3.0}, 1.0),
    "request": one_request,
    "stream": lambda manager, session_id: manager.stream_opened(session_id, 1.0),
    "close": lambda manager, session_id: manager.close_session(session_id, 1.0),
    "find": lambda manager, _: manager.find_session_by_peer((7).to_bytes(32), 1.0),
    "count": lambda manager, _: manager.get_session_count(1.0),
    "metrics": lambda manager, _: manager.metrics(1.0),
    "sweep_one": lambda manager, _: manager.sweep(1000.5),
    "deadline": lambda manager, _: manager.next_deadline(),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_costs_the_same_in_a_crowd(name: str) -> None:
    """S17: functions called, ours and built-in, do not grow with sixty-four times as many sessions."""
    calls = []
    for count in (64, 4096):
        manager, session_id = crowd(count), ids(count)[count // 2]
        with counted_calls() as counted:
            OPERATIONS[name](manager, session_id)
        calls.append(counted[0])
    assert calls[1] <= calls[0] + 8
    assert calls[0] < 200


def test_a_sweep_costs_what_it_removes() -> None:
    """S17: in proportion to what expires, also when that is all at once; and nothing when it has been done."""
    calls = []
    for count in (500, 4000):
        manager = crowd(8000)
        with counted_calls() as counted:
            assert len(manager.sweep(999.0 + count)) == count
        calls.append(counted[0] / count)
        with counted_calls() as counted:
            assert not manager.sweep(999.0 + count)
        assert counted[0] < 50
    assert calls[1] <= 1.1 * calls[0]
    assert calls[0] < 60
