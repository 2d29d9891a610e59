"""The pump, step by step, on an endpoint that plays back what a test planned."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from math import inf
from typing import Any

import pytest

from stt_anyio.driver import Driver
from stt_proto import NetworkPath, Transmit

UDP = NetworkPath("udp", "here", "there")
WIRES = [NetworkPath("wire", "here", number) for number in range(2)]


class Outlet:
    """Records what it takes, and is full when told to be."""

    def __init__(self, log: list[Any], *, per_path: bool) -> None:
        self.log = log
        self.per_path = per_path
        self.joins_runs = False
        self.full: set[NetworkPath] = set()
        self.error: OSError | None = None

    def send(self, transmit: Transmit) -> Transmit | None:
        if self.error is not None:
            raise self.error
        if transmit.path in self.full:
            return transmit
        self.log.append(transmit.buffers[0] if len(transmit.buffers) == 1 else b"+".join(transmit.buffers))
        return None


class Pumped:
    """A driver, what it drives, and what came of it."""

    def __init__(self, **options: Any) -> None:
        self.log: list[Any] = []
        self.now = 0.0
        self.waiting: deque[Transmit] = deque()
        self.happened: deque[tuple[None, Any]] = deque()
        self.deadline = inf
        self.asked = 0
        self.idle = False
        self.blocked: set[NetworkPath] = set()
        self.udp = Outlet(self.log, per_path=False)
        self.wire = Outlet(self.log, per_path=True)
        self.armed: list[float] = []
        self.failures: list[OSError] = []
        self.on_event: Any = None
        self.driver = Driver(
            self,  # type: ignore[arg-type]
            clock=lambda: self.now,
            outlets={"udp": self.udp, "wire": self.wire},
            deliver=self.deliver,
            arm=self.armed.append,
            fail=self.failures.append,
            path_failed=lambda path, reason: None,
            **options,
        )

    def put(self, path: NetworkPath, *names: bytes) -> None:
        self.waiting.extend(Transmit(path, (name,)) for name in names)

    def deliver(self, session: None, event: Any) -> None:
        self.log.append(event)
        if self.on_event is not None:
            self.on_event(event)

    # -- what the driver asks of an endpoint

    def next_transmit(self, now: float) -> Transmit | None:
        for transmit in self.waiting:
            if transmit.path not in self.blocked:
                self.waiting.remove(transmit)
                return transmit
        return None

    def events(self) -> Iterator[tuple[None, Any]]:
        while self.happened:
            yield self.happened.popleft()

    def next_tick(self) -> float:
        self.asked += 1
        return self.deadline

    @property
    def has_more(self) -> bool:
        return bool(self.waiting)

    @property
    def is_idle(self) -> bool:
        return self.idle

    def tick(self, now: float) -> None:
        self.log.append("tick")

    def datagram_refused(self, path: NetworkPath, size: int, now: float, limit: int | None) -> None:
        self.log.append(("refused", path, size, now, limit))

    def path_writable(self, path: NetworkPath, writable: bool, now: float) -> None:
        (self.blocked.discard if writable else self.blocked.add)(path)

    def path_closed(self, path: NetworkPath, now: float, reason: str | None) -> None:
        self.log.append(("closed", path, reason))

    def receive(self, data: bytes, path: NetworkPath, now: float, segment_size: int | None, ecn: int) -> None:
        self.log.append((bytes(data), path, now, segment_size, ecn))


def test_it_sends_then_delivers_then_arms() -> None:
    pumped = Pumped()
    pumped.put(UDP, b"1", b"2")
    pumped.happened.append((None, "event"))
    pumped.deadline = 5.0
    pumped.driver.pump()
    assert pumped.log == [b"1", b"2", "event"]
    assert pumped.armed == [5.0]


def test_where_nothing_is_new_nothing_is_asked() -> None:
    """Most pumps follow a call that changed nothing; but a timer that has gone off is armed again."""
    pumped = Pumped()
    pumped.deadline = 5.0
    pumped.driver.pump()
    pumped.idle = True
    pumped.driver.pump()
    assert (pumped.asked, pumped.armed) == (1, [5.0])
    pumped.driver.tick()
    assert (pumped.asked, pumped.armed) == (2, [5.0, 5.0])


def test_it_goes_round_again_when_an_event_sets_something_off() -> None:
    pumped = Pumped()

    def answer(event: str) -> None:
        if event == "first":
            pumped.put(UDP, b"answer")
            pumped.happened.append((None, "second"))
            pumped.driver.pump()  # in the middle of itself

    pumped.on_event = answer
    pumped.happened.append((None, "first"))
    pumped.driver.pump()
    assert pumped.log == ["first", "second", b"answer"]


def test_the_timer_is_only_armed_to_go_off_earlier() -> None:
    pumped = Pumped()
    for at in (5.0, 7.0, 3.0):
        pumped.deadline = at
        pumped.driver.pump()
    assert pumped.armed == [5.0, 3.0]
    pumped.deadline = 9.0
    pumped.driver.tick()
    assert pumped.armed == [5.0, 3.0, 9.0]
    assert pumped.log == ["tick"]
    pumped.deadline = inf
    pumped.driver.tick()
    assert pumped.driver.armed == inf


def test_others_get_their_turn_after_so_many_sends() -> None:
    pumped = Pumped(sends_per_pump=2)
    pumped.put(UDP, b"1", b"2", b"3")
    pumped.happened.append((None, "event"))
    pumped.now = 4.0
    pumped.driver.pump()
    assert pumped.log == [b"1", b"2", "event"]
    assert pumped.armed == [4.0]  # at once
    pumped.driver.tick()
    assert pumped.log[3:] == ["tick", b"3"]


def test_a_full_socket_stops_the_sending_and_nothing_else() -> None:
    pumped = Pumped()
    pumped.put(UDP, b"1", b"2")
    pumped.udp.full.add(UDP)
    pumped.happened.append((None, "event"))
    pumped.deadline = -1.0  # which a node that cannot send must not be woken for all the time
    pumped.driver.pump()
    assert pumped.log == ["event"]
    assert pumped.armed == [0.001]
    assert len(pumped.waiting) == 1
    pumped.driver.writable()
    assert len(pumped.waiting) == 1  # it was full again
    pumped.udp.full.clear()
    pumped.driver.writable()
    assert pumped.log == ["event", b"1", b"2"]
    pumped.driver.writable()


def test_a_full_path_stops_itself_and_no_other() -> None:
    pumped = Pumped()
    pumped.put(WIRES[0], b"1", b"2")
    pumped.put(WIRES[1], b"3")
    pumped.wire.full.add(WIRES[0])
    pumped.driver.pump()
    assert pumped.log == [b"3"]
    assert pumped.blocked == {WIRES[0]}
    pumped.wire.full.clear()
    pumped.driver.writable(WIRES[1])  # which never was full
    assert pumped.log == [b"3"]
    pumped.driver.writable(WIRES[0])
    assert pumped.log == [b"3", b"1", b"2"]
    assert not pumped.blocked


def test_datagrams_for_one_path_leave_together_where_that_is_cheap() -> None:
    other = NetworkPath("udp", "here", "elsewhere")
    pumped = Pumped()
    pumped.udp.joins_runs = True
    pumped.put(UDP, b"1", b"2")
    pumped.put(other, b"3")
    pumped.put(UDP, b"4")
    pumped.put(WIRES[0], b"5")
    pumped.happened.append((None, "event"))
    pumped.driver.pump()
    assert pumped.log == [b"5", b"1+2+4", b"3", "event"]
    train = Transmit(UDP, (b"first", b"second"), 5)
    pumped.waiting.append(train)
    pumped.driver.pump()
    assert pumped.log[4:] == [b"first+second"]
    pumped.put(UDP, b"1")
    pumped.waiting.append(train)
    pumped.driver.pump()
    assert pumped.log[5:] == [b"1", b"first+second"]


def test_runs_wait_for_a_full_socket_in_order() -> None:
    """Nothing is lost and nothing overtakes, though the socket becomes full in the middle of sending runs."""
    other = NetworkPath("udp", "here", "elsewhere")
    pumped = Pumped()
    pumped.udp.joins_runs = True
    pumped.put(UDP, b"1", b"2")
    pumped.put(other, b"3", b"4")
    pumped.udp.full.add(UDP)
    pumped.driver.pump()
    pumped.put(UDP, b"5")
    pumped.driver.pump()
    assert pumped.log == []
    pumped.udp.full.clear()
    pumped.driver.writable()
    assert pumped.log == [b"1+2", b"3+4", b"5"]


def test_runs_go_with_their_path() -> None:
    pumped = Pumped()
    pumped.udp.joins_runs = True
    other = NetworkPath("udp", "here", "elsewhere")
    pumped.put(UDP, b"1")
    pumped.put(other, b"2")
    pumped.udp.full.add(UDP)
    pumped.driver.pump()
    pumped.driver.path_closed(other)
    pumped.udp.full.clear()
    pumped.driver.writable()
    assert pumped.log == [("closed", other, None), b"1"]


def test_what_is_too_large_is_passed_on_and_answered_at_once() -> None:
    pumped = Pumped()
    pumped.now = 3.0
    pumped.put(UDP, b"1")
    pumped.driver.datagram_refused(UDP, 9000, 1472)
    assert pumped.log == [("refused", UDP, 9000, 3.0, 1472), b"1"]


def test_what_waited_for_a_path_goes_with_it() -> None:
    pumped = Pumped()
    pumped.put(WIRES[0], b"1")
    pumped.wire.full.add(WIRES[0])
    pumped.driver.pump()
    pumped.driver.path_closed(WIRES[0], "gone")
    pumped.wire.full.clear()
    pumped.driver.writable(WIRES[0])
    assert pumped.log == [("closed", WIRES[0], "gone")]


def test_a_carrier_that_dies_ends_the_sending() -> None:
    pumped = Pumped()
    pumped.udp.error = OSError("dead")
    pumped.put(UDP, b"1", b"2")
    for _ in range(2):
        pumped.driver.pump()
    assert pumped.failures == [pumped.udp.error]
    assert len(pumped.waiting) == 1


def test_what_is_received_is_handed_on_and_pumped_once() -> None:
    pumped = Pumped()
    pumped.now = 2.0
    pumped.driver.receive(memoryview(b"data"), UDP, 1200, 3)
    assert pumped.log == [(b"data", UDP, 2.0, 1200, 3)]


def test_after_close_nothing_is_sent() -> None:
    pumped = Pumped()
    pumped.driver.close()
    pumped.put(UDP, b"1")
    pumped.driver.pump()
    assert pumped.log == []


def test_an_exception_out_of_a_callback_does_not_jam_it() -> None:
    pumped = Pumped()
    pumped.on_event = lambda event: (_ for _ in ()).throw(KeyboardInterrupt)
    pumped.happened.extend([(None, "first"), (None, "second")])
    with pytest.raises(KeyboardInterrupt):
        pumped.driver.pump()
    pumped.on_event = None
    pumped.driver.pump()
    assert pumped.log == ["first", "second"]
