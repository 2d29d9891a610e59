"""Time inside the core: the clock, and the queue of deadlines against a model."""

from __future__ import annotations

import gc
import weakref
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from stt_proto import Config, Endpoint, Identity
from stt_proto.clock import LATEST, SLACK, Clock, DeadlineQueue
from stt_proto.errors import ArgumentError
from stt_proto.testing import SeededEntropy
from stt_proto.tickets import Ticket
from stt_proto.types import Deadline, NetworkPath
from tests.proto.walks import walks


@given(st.lists(st.floats(-1e6, 1e6), min_size=1))
def test_the_clock_never_runs_backwards(times: list[float]) -> None:
    """DESIGN 3, "Time": a `now` smaller than the last counts as the last."""
    clock = Clock(times[0], 0.0)
    latest = times[0]
    for now in times:
        latest = max(latest, now)
        assert clock.advance(now) == clock.now == latest


@pytest.mark.parametrize("now", ["1.0", None, b"1", [1.0], object(), nan, inf, 2 * LATEST, 10**400])
def test_time_is_a_number(now: object) -> None:
    """A mistake of the host names the argument, at once, and the clock stands where it stood."""
    clock = Clock(5.0, 0.0)
    with pytest.raises(ArgumentError, match="seconds") as caught:
        clock.advance(now)  # type: ignore[arg-type]
    assert caught.value.argument == "now"
    assert clock.now == 5.0


@pytest.mark.parametrize("wrong", ["1.0", None, nan, inf, -inf, 2 * LATEST, -2 * LATEST, 10**400])
def test_a_clock_begins_at_a_time(wrong: Any) -> None:
    """One that began at no time at all would stand there for ever, and nothing would ever be due, or all at once."""
    for argument, call in (
        ("now", lambda: Clock(wrong, 0.0)),
        ("unix_time", lambda: Clock(0.0, wrong)),
        ("unix_time", lambda: Clock(0.0, 0.0).set_unix(wrong, 0.0)),
    ):
        with pytest.raises(ArgumentError, match="seconds") as caught:
            call()
        assert caught.value.argument == argument


@pytest.mark.parametrize("unix_time", [1_700_000_000, 1.7e12, LATEST, -5])
def test_clocks_of_whole_numbers_or_in_other_units(unix_time: float) -> None:
    """A host's wall clock may be any: there is a session and a ticket all the same."""
    a, b = (
        Endpoint(
            Config(identity=Identity.from_seed(bytes([seed]) * 32), shared_seed="between us"),
            now=0,
            unix_time=unix_time,
            entropy=SeededEntropy(seed),
        )
        for seed in (1, 2)
    )
    there, back = NetworkPath("udp", "a", "b"), NetworkPath("udp", "b", "a")
    session = a.connect(there, now=0)
    for _ in range(5):
        for sender, receiver, path in ((a, b, back), (b, a, there)):
            for transmit in list(sender.transmits(0)):
                for datagram in transmit.datagrams():
                    receiver.receive(datagram, path, 0)
    assert session.is_active()
    assert session.ticket is not None
    assert Ticket.from_bytes(session.ticket.export()).issued_at == min(max(unix_time, 0.0), 1e12)


def test_the_latest_time() -> None:
    """Of a clock that leaps there is an end; below it, deadlines are not lost in the rounding of floats."""
    clock = Clock(-LATEST, LATEST)
    assert clock.advance(-inf) == -LATEST
    assert clock.advance(LATEST) == LATEST
    assert LATEST + 0.5 > LATEST


def test_the_wall_clock() -> None:
    """`unix_time + (now - start)`, and a correction moves it without moving anything else."""
    clock = Clock(100.0, 1.7e9)
    assert clock.unix(100.0) == 1.7e9
    assert clock.unix(130.0) == 1.7e9 + 30
    clock.set_unix(2e9, 130.0)
    assert clock.unix(131.0) == 2e9 + 1
    assert clock.now == 100.0


class Queue(RuleBasedStateMachine):
    """A `DeadlineQueue` and a dict that says what it should know."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: DeadlineQueue[str] = DeadlineQueue()
        self.model: dict[str, float] = {}
        self.entered: list[tuple[str, float, str]] = []

    @rule(owner=st.sampled_from("abcde"), at=st.integers(0, 20), reason=st.sampled_from(["loss", "ack"]))
    def arm(self, owner: str, at: int, reason: str) -> None:
        self.queue.arm(owner, at, reason)
        if at < self.model.get(owner, inf):
            self.model[owner] = at
            self.entered.append((owner, at, reason))

    @rule(owner=st.sampled_from("abcde"))
    def ask_for_nothing(self, owner: str) -> None:
        self.queue.arm(owner, inf, "never")

    @rule(owner=st.sampled_from("abcdef"))
    def forget(self, owner: str) -> None:
        self.queue.forget(owner)
        self.model.pop(owner, None)

    @rule(now=st.integers(0, 20))
    def pop(self, now: int) -> None:
        owner = self.queue.pop_due(now)
        if owner is None:
            assert not self.model or min(self.model.values()) > now
        else:
            assert self.model[owner] == min(self.model.values())
            assert self.model.pop(owner) <= now

    @invariant()
    def agrees(self) -> None:
        assert len(self.queue) == len(self.model)
        deadline = self.queue.next()
        if not self.model:
            assert deadline is None
        else:
            assert deadline is not None
            at = min(self.model.values())
            assert deadline.at == at
            assert any((owner, at, deadline.reason) in self.entered for owner in self.model)


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=60, stateful_step_count=40)


@given(walks(st.tuples(st.integers(0, 9), st.integers(0, 50)), 60), st.integers(0, 60))
def test_all_that_is_due_comes_out_in_order(entries: list[tuple[int, int]], now: int) -> None:
    queue: DeadlineQueue[int] = DeadlineQueue()
    model: dict[int, int] = {}
    for owner, at in entries:
        queue.arm(owner, at, "loss")
        model[owner] = min(at, model.get(owner, at))
    popped = []
    while (owner := queue.pop_due(now)) is not None:
        popped.append(owner)
    assert sorted(popped) == sorted(owner for owner, at in model.items() if at <= now)
    assert [model[owner] for owner in popped] == sorted(model[owner] for owner in popped)


def test_an_owner_that_moved_later_is_woken_early_once() -> None:
    """Waking early is harmless: it is what makes re-arming cost nothing."""
    queue: DeadlineQueue[str] = DeadlineQueue()
    queue.arm("a", 5.0, "ack")
    queue.arm("a", 9.0, "idle")
    assert queue.next() == Deadline(5.0, "ack")
    assert queue.pop_due(4.9) is None
    assert queue.pop_due(5.0) == "a"
    assert queue.next() is None
    queue.arm("a", 9.0, "idle")
    assert queue.next() == Deadline(9.0, "idle")


def test_equal_deadlines_come_in_the_order_of_arming() -> None:
    """G-1: nothing is left to chance or to the hash of an owner."""
    queue: DeadlineQueue[str] = DeadlineQueue()
    for owner in "zaq":
        queue.arm(owner, 1.0, "loss")
    assert [queue.pop_due(1.0) for _ in range(4)] == ["z", "a", "q", None]


def test_the_queue_is_bounded_by_its_owners() -> None:
    """A limit on everything: an owner that is armed and woken all the time leaves nothing behind."""
    queue: DeadlineQueue[str] = DeadlineQueue()
    for step in range(10_000):
        queue.arm("a", 1e6 + step, "idle")
        queue.arm("a", step, "ack")
        assert queue.pop_due(step) == "a"
        assert len(queue._heap) <= 2 + SLACK


def test_the_queue_is_bounded_when_the_clock_stands() -> None:
    """An owner that is forgotten and comes back for the same moment has one entry, the newer; so has its reason."""
    queue: DeadlineQueue[str] = DeadlineQueue()
    for step in range(1000):
        queue.arm("a", 5.0, f"reason {step}")
        assert len(queue._heap) <= 2 + SLACK
        assert queue.next() == Deadline(5.0, f"reason {step}")
        queue.forget("a")
    queue.arm("a", 5.0, "ack")
    assert queue.pop_due(5.0) == "a"
    assert queue.pop_due(5.0) is None


@pytest.mark.parametrize("how", ["forget", "pop"])
def test_the_queue_keeps_no_owner_alive_for_long(how: str) -> None:
    class Owner:
        pass

    queue: DeadlineQueue[object] = DeadlineQueue()
    owner = Owner()
    gone = weakref.ref(owner)
    queue.arm(owner, 1e6, "idle")
    queue.arm(owner, 1.0, "ack")
    if how == "forget":
        queue.forget(owner)
    else:
        queue.pop_due(1.0)
    del owner
    for number in range(SLACK + 2):
        other = Owner()
        queue.arm(other, 2e6 + number, "idle")
        queue.forget(other)
    del other
    gc.collect()
    assert gone() is None
