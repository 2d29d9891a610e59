"""Congestion controllers that others wrote, and what they may do wrong (docs/protocol.md, R-15)."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan
from typing import Any

import pytest

from stt_proto.errors import ArgumentError
from stt_proto.recovery import RttEstimator
from stt_proto.recovery.congestion import CONTROLLERS, Cubic, GuardedController, NewReno, make_controller
from stt_proto.testing import Conditions
from tests.proto.worlds import session_pair

SIZE = 1200
PATH: Any = None


class Users:
    """A controller of a user's: a window that never changes, and no rate."""

    def __init__(self, size: int, rtt: RttEstimator) -> None:
        self.window: Any = 50 * SIZE
        self.ssthresh: Any = inf
        self.pacing_rate: Any = None
        self.told: list[str] = []

    def on_sent(self, packet: Any, path: Any) -> None:
        self.told.append("sent")

    def on_acked(self, packets: Any, now: float, sample: float | None, path: Any) -> None:
        self.told.append("acked")

    def on_lost(self, packets: Any, now: float, persistent: bool, path: Any) -> None:
        self.told.append("lost")

    def on_congestion_mark(self, sent_time: float, now: float, path: Any) -> None:
        self.told.append("mark")

    def set_max_datagram_size(self, size: int) -> None:
        self.told.append("size")


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def guarded(change: Callable[[Users], None] = lambda _: None) -> tuple[GuardedController, Users]:
    made: list[Users] = []

    def factory(size: int, rtt: RttEstimator) -> Any:
        made.append(Users(size, rtt))
        change(made[0])
        return made[0]

    guard = GuardedController(factory, SIZE, RttEstimator())
    return guard, made[0]


def test_ours_run_bare() -> None:
    """R-15: by name or by factory."""
    for name, factory in CONTROLLERS.items():
        assert type(make_controller(name, SIZE, RttEstimator())) is factory
        assert type(make_controller(factory, SIZE, RttEstimator())) is factory
    assert type(make_controller(Users, SIZE, RttEstimator())) is GuardedController
    with pytest.raises(ArgumentError) as caught:
        make_controller("vegas", SIZE, RttEstimator())
    assert caught.value.argument == "congestion"


def test_one_that_behaves_decides() -> None:
    """R-15: it is told everything, and what it says counts."""
    guard, users = guarded()
    guard.on_sent(PATH, PATH)
    guard.on_acked([], 1.0, None, PATH)
    guard.on_lost([], 1.0, False, PATH)
    guard.on_congestion_mark(1.0, 1.0, PATH)
    guard.set_max_datagram_size(1400)
    assert users.told == ["sent", "acked", "lost", "mark", "size"]
    assert guard.window == 50 * SIZE
    assert guard.pacing_rate is None
    users.window, users.ssthresh, users.pacing_rate = 77_000.5, 60_000, 1e6
    guard.on_sent(PATH, PATH)
    assert (guard.window, guard.ssthresh, guard.pacing_rate) == (77_000.5, 60_000, 1e6)
    assert guard.fault is None


@pytest.mark.parametrize("window", [nan, inf, -1.0, 0, 2 * SIZE - 1, 1 << 60, "much", None])
def test_a_window_that_is_none(window: object) -> None:
    """R-15: the default goes on from the last one that was."""
    guard, users = guarded()
    users.window = window
    guard.set_max_datagram_size(SIZE)
    assert guard.fault is not None
    assert guard.fault.startswith("set_max_datagram_size: ValueError: window is ")
    assert guard.window == 50 * SIZE
    assert guard.pacing_rate is not None
    users.window = 60 * SIZE
    guard.set_max_datagram_size(SIZE)
    assert guard.window == 50 * SIZE, "replaced for good"


@pytest.mark.parametrize("rate", [0.0, -1.0, nan, inf, 99.0, "fast"])
def test_a_rate_that_is_none(rate: object) -> None:
    """R-15."""
    guard, users = guarded()
    users.pacing_rate = rate
    assert 100 <= (guard.pacing_rate or 0) < inf
    assert guard.fault is not None
    assert guard.fault.startswith("pacing_rate: ValueError: pacing_rate is ")


@pytest.mark.parametrize("error", [ZeroDivisionError("by zero"), Unspeakable(), ValueError("x" * 1000)])
def test_one_that_raises(error: Exception) -> None:
    """R-15: the first fault is kept, in a sentence."""
    guard, users = guarded()

    def fail(size: int) -> None:
        raise error

    users.set_max_datagram_size = fail  # type: ignore[method-assign]
    guard.set_max_datagram_size(1300)
    first = guard.fault
    assert first is not None
    assert first.startswith(f"set_max_datagram_size: {type(error).__name__}: ")
    assert len(first) <= 200
    guard.set_max_datagram_size(1400)
    assert guard.fault == first


def test_a_factory_that_fails() -> None:
    """R-15: the default from the beginning."""

    def factory(size: int, rtt: RttEstimator) -> Any:
        raise OSError("no file")

    guard = GuardedController(factory, SIZE, RttEstimator())
    assert guard.fault == "the factory: OSError: no file"
    assert guard.window == Cubic(SIZE, RttEstimator()).window


def test_a_fault_of_the_default_is_not_hidden() -> None:
    """What our own controller raises is a mistake of ours."""
    guard, users = guarded()
    users.window = nan
    guard.set_max_datagram_size(SIZE)
    guard._controller.window = nan
    with pytest.raises(ValueError, match="window is nan"):
        guard.set_max_datagram_size(SIZE)
    assert isinstance(guard._controller, Cubic)
    guard._controller = object()  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        _ = guard.pacing_rate


def test_a_session_outlives_its_controller() -> None:
    """R-15: data goes on, and the statistics tell why it is slower."""

    class Failing(NewReno):
        def on_acked(self, packets: Any, now: float, sample: float | None, path: Any) -> None:
            if path.delivered > 100_000:
                raise RuntimeError("I have had enough")
            super().on_acked(packets, now, sample, path)

    pair = session_pair(conditions=Conditions(delay=0.02), client={"congestion": Failing})
    stream = pair.session.open_stream()
    stream.write(bytes(500_000), pair.now)
    stream.finish(pair.now)
    pair.settle(3.0)
    theirs = pair.peer.stream(stream.stream_id)
    assert theirs is not None
    assert len(theirs.read(1 << 20, pair.now)) == 500_000
    assert pair.session.stats().congestion_fault == "on_acked: RuntimeError: I have had enough"
