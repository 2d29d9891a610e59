"""Congestion controllers in sessions, ours and those of users: R-8, R-14 and R-15 of docs/protocol.md."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import inf, nan
from typing import Any, ClassVar

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

import stt_proto
from stt_proto import CongestionController, ControllerFactory, PathState, RttEstimator, SentPacket
from stt_proto.config import Config
from stt_proto.errors import ArgumentError
from stt_proto.identity import Identity
from stt_proto.recovery import CONTROLLERS, Bbr, Cubic, GuardedController, NewReno, Recovery, make_controller
from stt_proto.testing import BROADBAND, Conditions, Inbox, World, send
from tests.proto.bottleneck import DATAGRAM, Bottleneck
from tests.proto.lossy import acknowledge, packet
from tests.proto.walks import walks
from tests.proto.worlds import Mover, Pair, filler, session_pair

LARGEST = 1 << 34


class Fixed:
    """A controller of a user: so much, and no thought about it. Tests make it fail."""

    def __init__(self, max_datagram_size: int, rtt: RttEstimator) -> None:
        self.window: Any = 50 * max_datagram_size
        self.ssthresh: Any = 0.0
        self.rate: Any = 1e6
        self.wrong = ""

    @property
    def pacing_rate(self) -> Any:
        self._do("pacing_rate")
        return self.rate

    def _do(self, what: str) -> None:
        if what == self.wrong:
            raise ZeroDivisionError("I divided")

    def on_sent(self, packet: SentPacket, path: PathState) -> None:
        self._do("on_sent")

    def on_acked(self, packets: Sequence[SentPacket], now: float, sample: float | None, path: PathState) -> None:
        self._do("on_acked")

    def on_lost(self, packets: Sequence[SentPacket], now: float, persistent: bool, path: PathState) -> None:
        self._do("on_lost")

    def on_congestion_mark(self, sent_time: float, now: float, path: PathState) -> None:
        self._do("on_congestion_mark")

    def set_max_datagram_size(self, size: int) -> None:
        self._do("set_max_datagram_size")


class Guarded:
    """A path whose controller is a `Fixed`, behind the guard."""

    def __init__(self) -> None:
        self.made: list[Fixed] = []
        self.recovery = Recovery(DATAGRAM, congestion=self.factory)
        assert isinstance(self.recovery.controller, GuardedController)
        self.guard: GuardedController = self.recovery.controller
        (self.theirs,) = self.made

    def factory(self, max_datagram_size: int, rtt: RttEstimator) -> CongestionController:
        self.made.append(Fixed(max_datagram_size, rtt))
        return self.made[-1]

    @property
    def fault(self) -> str | None:
        return self.recovery.stats().congestion_fault

    def play(self) -> None:
        """Let every method be called."""
        for number in range(8):
            self.recovery.on_sent(packet(number, 1.0))
        acknowledge(self.recovery, [5], 1.1)
        self.recovery.on_ack(((5, 6),), 0.0, 1.1, True, (0, 0, 1))
        self.recovery.set_max_datagram_size(1300)
        assert self.recovery.controller.pacing_rate


# -- which controller ----------------------------------------------------------------------------------------------


def test_ours_by_name_and_by_class() -> None:
    """R-15: they need no guard, and have none."""
    assert dict(CONTROLLERS) == {"newreno": NewReno, "cubic": Cubic, "bbr": Bbr}
    for name, kind in CONTROLLERS.items():
        assert type(make_controller(name, DATAGRAM, RttEstimator())) is kind
        assert type(make_controller(kind, DATAGRAM, RttEstimator())) is kind


def config(**changes: Any) -> Config:
    return Config(identity=Identity.from_seed(bytes(range(32))), shared_seed="shared", **changes)


def test_the_default() -> None:
    """R-12."""
    assert config().congestion == "cubic"
    assert isinstance(controller_of(session_pair()), Cubic)


def test_what_a_configuration_can_name() -> None:
    assert config(congestion=Fixed).congestion is Fixed
    for bad in (7, None, b"cubic"):
        with pytest.raises(ArgumentError) as caught:
            config(congestion=bad)
        assert caught.value.argument == "congestion"


def test_everything_for_a_controller_of_ones_own_is_public() -> None:
    needed = {"CongestionController", "ControllerFactory", "PathState", "RttEstimator", "SentPacket"}
    assert needed <= set(stt_proto.__all__)
    factory: ControllerFactory = Fixed
    assert isinstance(make_controller(factory, DATAGRAM, RttEstimator()), GuardedController)


# -- the guard -----------------------------------------------------------------------------------------------------


def test_a_controller_that_makes_sense_decides() -> None:
    path = Guarded()
    path.play()
    assert path.fault is None
    assert (path.guard.window, path.guard.ssthresh, path.guard.pacing_rate) == (60_000, 0, 1e6)
    path.theirs.rate = None
    path.theirs.window = 70_000
    path.recovery.on_sent(packet(9, 2.0))
    assert (path.guard.window, path.guard.pacing_rate) == (70_000, None)


def test_the_edges_of_what_makes_sense() -> None:
    path = Guarded()
    for window, ssthresh, rate in ((2400, inf, 100.0), (LARGEST, 0, 1e15), (2400.5, 1, 101)):
        path.theirs.window, path.theirs.ssthresh, path.theirs.rate = window, ssthresh, rate
        path.recovery.on_sent(packet(path.recovery.packets_sent, 1.0))
        assert (path.guard.window, path.guard.ssthresh, path.guard.pacing_rate) == (window, ssthresh, rate)
    assert path.fault is None


METHODS = ["on_sent", "on_acked", "on_lost", "on_congestion_mark", "set_max_datagram_size", "pacing_rate"]


@pytest.mark.parametrize("method", METHODS)
def test_a_controller_that_raises(method: str) -> None:
    """R-15: it is replaced by CUBIC, which goes on from the window as it was; what was to be told is told to that."""
    path = Guarded()
    path.theirs.wrong = method
    path.play()
    assert path.fault == f"{method}: ZeroDivisionError: I divided"
    path.theirs.window = nan  # nobody asks it any more
    path.theirs.wrong = "on_sent"
    path.recovery.on_sent(packet(20, 2.0))
    assert path.fault == f"{method}: ZeroDivisionError: I divided"
    hears_of_the_mark = method not in ("set_max_datagram_size", "pacing_rate")  # which come later
    assert path.guard.window == pytest.approx(42_000 if hears_of_the_mark else 60_000)
    assert path.guard.window == path.guard.ssthresh


NONSENSE = [nan, inf, -inf, -1, 0, 2399, LARGEST + 1, 10**400, "much", None, 1j, [], True]


@pytest.mark.parametrize("window", NONSENSE)
def test_a_window_that_is_none(window: Any) -> None:
    """R-15: from two datagrams to 16 GiB."""
    path = Guarded()
    path.recovery.on_sent(packet(0, 1.0))
    path.theirs.window = window
    path.recovery.on_sent(packet(1, 1.0))
    assert path.fault is not None
    assert path.fault.startswith("on_sent: ValueError: window is ")
    assert path.guard.window == 60_000, "the last that was one"


@pytest.mark.parametrize("ssthresh", [nan, -1, None])
def test_a_threshold_that_is_none(ssthresh: Any) -> None:
    path = Guarded()
    path.theirs.ssthresh = ssthresh
    path.recovery.on_sent(packet(0, 1.0))
    assert path.fault is not None
    assert "ssthresh" in path.fault


@pytest.mark.parametrize("rate", [nan, inf, -1.0, 0, 99.9, 1.1e15, "fast", 1j])
def test_a_rate_that_is_none(rate: Any) -> None:
    """R-15: nothing, or from 100 bytes a second on: with less nothing would ever be sent again."""
    path = Guarded()
    path.theirs.rate = rate
    paced = path.guard.pacing_rate
    assert paced is not None
    assert paced == pytest.approx(1.25 * 60_000 / 0.1)
    assert path.fault is not None
    assert path.fault.startswith("pacing_rate: ValueError: pacing_rate is ")


def test_datagrams_that_outgrow_the_window() -> None:
    """R-8: a window is two datagrams at least, of the size that they have now."""
    path = Guarded()
    path.theirs.window = 2400
    path.recovery.on_sent(packet(0, 1.0))
    path.recovery.set_max_datagram_size(1500)
    assert path.fault is not None
    assert path.guard.window == 3000


def broken(*_: Any) -> CongestionController:
    raise RuntimeError("not today")


@pytest.mark.parametrize(
    ("factory", "told"),
    [
        (broken, "the factory: RuntimeError: not today"),
        (lambda size, rtt: None, "the factory: AttributeError: "),
        (lambda size: None, "the factory: TypeError: "),
        (lambda size, rtt: evolve_window(size, rtt, 0), "the factory: ValueError: window is 0"),
    ],
)
def test_a_factory_that_fails(factory: Any, told: str) -> None:
    """R-15: the path has the default from the beginning, slow start and all."""
    recovery = Recovery(DATAGRAM, congestion=factory)
    fault = recovery.stats().congestion_fault
    assert fault is not None
    assert fault.startswith(told)
    assert (recovery.controller.window, recovery.controller.ssthresh) == (14_720, inf)
    assert recovery.controller.pacing_rate == pytest.approx(2 * 14_720 / 0.1)


def evolve_window(size: int, rtt: RttEstimator, window: Any) -> CongestionController:
    made = Fixed(size, rtt)
    made.window = window
    return made


class Mute(Exception):
    def __str__(self) -> str:
        raise OSError("I cannot say")


@pytest.mark.parametrize(
    ("error", "told"),
    [(Mute(), "on_sent: Mute: it cannot tell what"), (ValueError("x" * 10_000), "on_sent: ValueError: " + "x" * 179)],
)
def test_what_is_told_of_a_fault_is_short(error: Exception, told: str) -> None:
    class Loud(Fixed):
        def on_sent(self, packet: SentPacket, path: PathState) -> None:
            raise error

    recovery = Recovery(DATAGRAM, congestion=Loud)
    recovery.on_sent(packet(0, 1.0))
    fault = recovery.stats().congestion_fault
    assert fault == told
    assert len(told) <= 200


def test_what_is_no_mistake_of_the_controller_is_not_kept_back() -> None:
    """Ctrl+C is for whoever runs the program; and what the default raises is a mistake of ours."""

    class Interrupted(Fixed):
        def on_sent(self, packet: SentPacket, path: PathState) -> None:
            raise KeyboardInterrupt

    recovery = Recovery(DATAGRAM, congestion=Interrupted)
    with pytest.raises(KeyboardInterrupt):
        recovery.on_sent(packet(0, 1.0))

    path = Guarded()
    path.theirs.wrong = "on_sent"
    path.recovery.on_sent(packet(0, 1.0))
    with pytest.raises(AttributeError):
        path.guard.on_acked([object()], 1.0, None, path.recovery)  # type: ignore[list-item]


class Erratic(Fixed):
    """Does what a list of numbers says: raises, or gives any window and any rate."""

    moods: ClassVar[list[Any]] = []

    def _do(self, what: str) -> None:
        if self.moods:
            mood = self.moods.pop()
            if mood == "raise":
                raise ArithmeticError(what)
            self.window = self.rate = mood


moods = st.one_of(
    st.just("raise"), st.none(), st.text(max_size=2), st.floats(), st.integers(), st.floats(3000, 1e6), st.booleans()
)


@settings(deadline=None)
@given(walks(moods, 60), st.integers(0, 1000))
def test_no_controller_stops_a_path(told: list[Any], seed: int) -> None:
    """R-15: whatever it does, everything is delivered, and the window is one all the time."""
    Erratic.moods = [*told]
    link = Bottleneck(1.25e6, 0.02, queue=100_000, congestion=Erratic, loss=0.05)
    link.random.seed(seed)

    def look() -> None:
        controller = link.recovery.controller
        assert 2 * DATAGRAM <= controller.window <= LARGEST
        rate = controller.pacing_rate
        assert rate is None or 100 <= rate <= 1e15

    link.on_ack = look
    link.run(range(100), until=1000.0)
    assert link.delivered == set(range(100))


# -- in sessions ---------------------------------------------------------------------------------------------------


def recovery_of(pair: Pair) -> Recovery:
    engines = pair.session._engines
    assert engines is not None
    return engines.path.recovery


def controller_of(pair: Pair) -> CongestionController:
    return recovery_of(pair).controller


@pytest.mark.parametrize("congestion", [*CONTROLLERS, Fixed], ids=[*CONTROLLERS, "a user's"])
def test_transfers(congestion: Any) -> None:
    """Each controller moves 2 MB over a bottleneck that loses some."""
    pair = session_pair(2, evolve(BROADBAND, loss=0.02), client={"congestion": congestion})
    data = filler(2 << 20)
    mover = Mover(pair.server)
    Mover(pair.client).send(pair.session.open_stream(), pair.session, data)
    pair.world.run_until(lambda: mover.ended)
    assert list(mover.ended.values()) == [hashlib.sha256(data).digest()]
    assert pair.session.stats().packets_lost > 0
    assert pair.session.stats().congestion_fault is None


def test_a_session_goes_on_when_its_controller_fails() -> None:
    """R-15: and its statistics tell why."""
    made: list[Fixed] = []

    def factory(max_datagram_size: int, rtt: RttEstimator) -> CongestionController:
        made.append(Fixed(max_datagram_size, rtt))
        return made[-1]

    world = World(1, BROADBAND)
    client, server = world.node("client", congestion=factory), world.node("server")
    inbox = Inbox(server)
    session = client.connect(server)
    assert session.stats().congestion_fault is None
    world.run_until(session.is_active)
    sent = send(client, session, filler(1_000_000))
    world.run(0.2)
    assert session.stats().congestion_window == 50 * 1200
    made[0].wrong = "on_acked"
    world.run_until(lambda: inbox.complete)
    assert inbox.digests == [sent.digest]
    assert session.stats().congestion_fault == "on_acked: ZeroDivisionError: I divided"
    assert len(made) == 1


# -- applications that are slow ------------------------------------------------------------------------------------


def test_a_path_knows_that_there_is_nothing_to_send() -> None:
    """R-14: an application with less to send than the window allows limits the rate; one with more does not."""
    pair = session_pair(1, BROADBAND)
    recovery = recovery_of(pair)
    assert recovery.app_limited
    stream = pair.session.open_stream()
    stream.write(bytes(1000), pair.now)
    pair.pump()
    assert recovery.app_limited
    pair.settle(1.0)
    stream.write(bytes(900_000), pair.now)
    pair.pump()
    pair.world.run(0.3)
    assert not recovery.app_limited, "what is delivered now was sent since there is more than the window holds"
    pair.settle(3.0)
    assert recovery.app_limited


def test_a_full_window_is_no_slow_application() -> None:
    """What is in flight fills the window: more could not be sent anyway."""
    recovery = Recovery(DATAGRAM)
    number = 0
    while recovery.can_send(DATAGRAM):
        recovery.on_sent(packet(number, 1.0))
        number += 1
    recovery.on_app_limited()
    assert not recovery.app_limited
    acknowledge(recovery, [0], 1.1)
    recovery.on_app_limited()
    assert recovery.app_limited


def test_bbr_finds_the_bandwidth_behind_a_slow_application() -> None:
    """R-14: minutes of a few bytes a second do not make it believe that the path carries no more."""
    pair = session_pair(1, BROADBAND, client={"congestion": "bbr"})
    controller = controller_of(pair)
    assert isinstance(controller, Bbr)
    mover = Mover(pair.server)
    stream = pair.session.open_stream()
    for _ in range(100):
        stream.write(bytes(100), pair.now)
        pair.settle(0.3)
    assert not controller.filled_pipe
    Mover(pair.client).send(pair.session.open_stream(), pair.session, filler(5_000_000))
    pair.world.run(3.0)
    assert controller.filled_pipe
    assert controller.model.max_bandwidth == pytest.approx(10e6 / 8, rel=0.05)
    pair.world.run_until(lambda: mover.ended, 60.0)


def test_bbr_with_credit_in_its_way() -> None:
    """What the peer's window holds back is no measure of the path, and no reason to send less."""
    pair = session_pair(
        1,
        Conditions(delay=0.05, rate=100e6, queue=1 << 20),
        client={"congestion": "bbr"},
        server={
            "stream_receive_window": 100_000,
            "session_receive_window": 100_000,
            "max_stream_receive_window": 0,
            "max_session_receive_window": 0,
        },
    )
    controller = controller_of(pair)
    assert isinstance(controller, Bbr)
    mover = Mover(pair.server)
    Mover(pair.client).send(pair.session.open_stream(), pair.session, filler(1_000_000))
    began = pair.now
    pair.world.run_until(lambda: mover.ended)
    assert pair.now - began < 15 * 0.1 * 1.5, "about ten windows, each a round trip"
    assert pair.session.stats().packets_lost == 0
