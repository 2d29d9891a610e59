"""S1 to S13 and S16 on the pure manager, all at once and in any order; S15 on the client; S17, what it costs.

S14 is in test_store.py. That these can fail is shown in test_faults.py.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log2
from typing import Any, ClassVar

import pytest

from stt_proto.manager import ManagerLimits, SessionManager
from tests.proto.manager.checked import counted_calls, run
from tests.proto.manager.coming_back import ComingBack
from tests.proto.manager.life import Life, Stopping

PEER = bytes(32)


def test_whatever_happens() -> None:
    """S1 to S13, S16: the manager does what the plain model does."""
    run(Life, examples=250, steps=50)


def test_whatever_happens_on_the_way_to_a_stop() -> None:
    """S16: nothing new, nothing that is at work is taken away before the deadline, and everything then."""
    run(Stopping, examples=100, steps=30)


def test_coming_back() -> None:
    """S15, G9: one new session for a loss, however often that is told; waits that are bounded; and an end to it."""
    run(ComingBack, examples=150, steps=50)


def ids(count: int) -> list[bytes]:
    return [number.to_bytes(8) for number in range(1, count + 1)]


class Compared(float):
    """A time that tells how often it was compared, which no profiler sees inside a heap; and so do sums of it."""

    count: ClassVar[int] = 0

    def __add__(self, other: float) -> Compared:
        return Compared(float(self) + other)

    def __lt__(self, other: float) -> bool:
        Compared.count += 1
        return float(self) < other

    def __le__(self, other: float) -> bool:
        Compared.count += 1
        return float(self) <= other

    def __gt__(self, other: float) -> bool:
        Compared.count += 1
        return float(self) > other

    def __eq__(self, other: object) -> bool:
        Compared.count += 1
        return float(self) == other

    __hash__ = float.__hash__


def crowd(count: int, now: float = 0.0) -> SessionManager:
    """Sessions of many peers, that expire one each second from second 1,000 on."""
    limits = ManagerLimits(sessions=1 << 20, sessions_per_namespace=1 << 20, closed_sessions=1 << 20)
    manager = SessionManager(now, limits=limits)
    for number, session_id in enumerate(ids(count)):
        config = {"ttl": 1000.0 + number, "sliding": False}
        manager.create_session(session_id, number.to_bytes(32), now, config=config)
    return manager


def one_request(manager: SessionManager, session_id: bytes) -> None:
    manager.end_request(manager.begin_request(session_id, 1.0), 1.0)


OPERATIONS: dict[str, Callable[[SessionManager, bytes], Any]] = {
    "create": lambda manager, _: manager.create_session(b"another!", PEER, 1.0),
    "get": lambda manager, session_id: manager.get_session(session_id, 1.0),
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
LATE: dict[str, Callable[[SessionManager, bytes], Any]] = {
    "get_late": lambda manager, session_id: manager.get_session(session_id, 1e9),
}


@pytest.fixture(scope="module")
def crowds() -> dict[int, SessionManager]:
    return {count: crowd(count, Compared(0.0)) for count in (1_000, 100_000)}


def test_an_operation_costs_the_same_among_a_hundred_thousand(crowds: dict[int, SessionManager]) -> None:
    """S17: of each kind, one; functions called, and times compared, for which there is a heap."""
    costs: dict[str, list[tuple[int, int]]] = {}
    for count, manager in crowds.items():
        picked = iter(ids(count)[count // 2 :])
        for name, operation in OPERATIONS.items():
            Compared.count = 0
            with counted_calls() as counted:
                operation(manager, next(picked))
            costs.setdefault(name, []).append((counted[0] - Compared.count, Compared.count))
            assert Compared.count <= 8 * log2(count) + 20, name
    for name, ((few, _), (many, _)) in costs.items():
        assert many <= few + 8, name
        assert few < 200, name


def test_a_sweep_of_fifty_thousand_costs_what_it_removes(crowds: dict[int, SessionManager]) -> None:
    """S17: of 100,000 half are removed; for each, times are compared four times as often as the heap is high."""
    for count, manager in crowds.items():
        manager.sweep(1000.5)
        Compared.count = 0
        swept = len(manager.sweep(1000.0 + count / 2))
        assert abs(swept - count / 2) <= len(OPERATIONS)
        assert Compared.count <= (4 * log2(count) + 10) * swept


@pytest.mark.parametrize("name", OPERATIONS | LATE)
def test_an_operation_costs_the_same_in_a_crowd(name: str) -> None:
    """S17: functions called, ours and built-in, do not grow with sixty-four times as many sessions."""
    calls = []
    for count in (64, 4096):
        manager, session_id = crowd(count), ids(count)[count // 2]
        with counted_calls() as counted:
            (OPERATIONS | LATE)[name](manager, session_id)
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
