"""CUBIC: R-8 and R-12 of docs/protocol.md; RFC 9438.

The numbers are worked out by hand from the equations, in datagrams of 1,200 bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_proto.recovery import Cubic, Recovery, RttEstimator, SentPacket
from tests.proto.bottleneck import DATAGRAM, Bottleneck

RTT = 0.1


class Path:
    """What the controller sees, under the hand of the test."""

    def __init__(self, window_used: bool = True) -> None:
        self.rtt = RttEstimator(RTT)
        self.window_used = window_used
        self.packets_sent = 1 << 30  # so that all is one round, and HyStart++ has nothing to say


def packets(*times: float, size: int = DATAGRAM) -> list[SentPacket]:
    made = [SentPacket(number, time, size, 1, True, True) for number, time in enumerate(times)]
    for index, packet in enumerate(made):
        packet.index = index
    return made


class Flow:
    """A controller at a given window, in datagrams, and a clock."""

    def __init__(self, window: float = 100.0, *, avoiding: bool = True) -> None:
        self.path = Path()
        self.controller = Cubic(DATAGRAM, self.path.rtt)
        self.now = 10.0
        if avoiding:
            self.controller.go_on_from(window * DATAGRAM)
        else:
            self.controller.window = window * DATAGRAM

    @property
    def window(self) -> float:
        """In datagrams."""
        return self.controller.window / DATAGRAM

    def lose(self, *, persistent: bool = False) -> None:
        """Something that was sent just now is lost, a round trip later."""
        self.now += RTT
        self.controller.on_lost(packets(self.now - RTT / 2), self.now, persistent, self.path)  # type: ignore[arg-type]

    def ack(self, after: float = 0.0, count: float = 1.0, *, sent: float | None = None) -> None:
        """After so long, so many datagrams are acknowledged that were sent a round trip ago."""
        self.now += after
        when = self.now - RTT if sent is None else sent
        acked = packets(when, size=round(count * DATAGRAM))
        self.controller.on_acked(acked, self.now, RTT, self.path)  # type: ignore[arg-type]

    def recover(self) -> None:
        """Let what is acknowledged next have been sent after the last reduction."""
        self.now += RTT * 1.001

    def go_on(self, seconds: float, step: float = 0.01) -> None:
        """Acknowledge a window in each round trip, for so long."""
        for _ in range(round(seconds / step)):
            self.ack(step, self.window * step / RTT)


def cubic(t: float, k: float, plateau: float) -> float:
    """RFC 9438, equation 1."""
    return 0.4 * (t - k) ** 3 + plateau


# -- slow start ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("datagram", "window"), [(1200, 14_720), (1452, 14_720), (1500, 15_000), (65_535, 655_350)])
def test_the_window_begins_at_ten_datagrams(datagram: int, window: int) -> None:
    """R-8: and at least 14,720 bytes."""
    controller = Cubic(datagram, RttEstimator(RTT))
    assert (controller.window, controller.ssthresh) == (window, inf)


def test_slow_start() -> None:
    """RFC 9438, 4.10: the window grows by what is acknowledged."""
    flow = Flow(20, avoiding=False)
    flow.ack(count=2)
    assert flow.window == 22


def test_hystart() -> None:
    """R-13: a quarter of that once round trips grow; over after five rounds more, and the window is the plateau."""
    flow = Flow(20, avoiding=False)
    controller, path = flow.controller, flow.path
    index = 0

    def round_trip(sample: float) -> None:
        nonlocal index
        path.packets_sent = index + 10
        for _ in range(10):
            (packet,) = packets(flow.now)
            packet.index = index
            index += 1
            controller.on_acked([packet], flow.now, sample, path)  # type: ignore[arg-type]

    round_trip(0.1)
    assert flow.window == 30
    round_trip(0.2)
    assert flow.window == 30 + 7 + 3 / 4, "from the eighth sample on"
    for _ in range(4):
        round_trip(0.2)
        assert controller.ssthresh == inf
    assert flow.window == 47.75
    round_trip(0.2)
    assert controller.ssthresh == 47.75 * DATAGRAM
    assert 47.75 < flow.window < 48.1, "and grows by the cubic function"


# -- congestion ----------------------------------------------------------------------------------------------------


def test_seven_tenths_are_left() -> None:
    """RFC 9438, 4.6."""
    flow = Flow(100, avoiding=False)
    flow.lose()
    assert flow.window == pytest.approx(70)
    assert flow.controller.ssthresh == flow.controller.window


def test_one_reduction_in_a_round_trip() -> None:
    """R-12: nothing sent before the recovery period began shrinks or grows the window in it; marks count as losses."""
    flow = Flow(100)
    controller, path = flow.controller, flow.path
    controller.on_lost(packets(1.00, 1.01), 1.2, False, path)  # type: ignore[arg-type]
    controller.on_lost(packets(1.05), 1.3, False, path)  # type: ignore[arg-type]
    controller.on_congestion_mark(1.2, 1.3, path)  # type: ignore[arg-type]
    controller.on_acked(packets(1.1, 1.2), 1.3, RTT, path)  # type: ignore[arg-type]
    assert flow.window == pytest.approx(70)
    controller.on_congestion_mark(1.21, 1.4, path)  # type: ignore[arg-type]
    assert flow.window == pytest.approx(49)


def test_fast_convergence() -> None:
    """RFC 9438, 4.7: who did not get back to where he was leaves room: the plateau is at 0.85 of the window."""
    flow = Flow(100)
    flow.lose()
    assert flow.controller._plateau == 100 * DATAGRAM
    flow.lose()
    assert flow.controller._plateau == pytest.approx(70 * 0.85 * DATAGRAM)
    flow.lose()
    assert flow.controller._plateau == pytest.approx(49 * 0.85 * DATAGRAM), "again, as long as it sinks"
    flow.controller.window = 200 * DATAGRAM
    flow.lose()
    assert flow.controller._plateau == 200 * DATAGRAM


def test_the_window_has_a_minimum() -> None:
    """R-8: two datagrams."""
    flow = Flow(3)
    for _ in range(5):
        flow.lose()
    assert flow.window == 2
    assert flow.controller.ssthresh == 2 * DATAGRAM


def test_persistent_congestion() -> None:
    """R-7, RFC 9438, 4.8: the minimum at once, slow start up to 0.7 of what was, and a plateau where that ends."""
    flow = Flow(100)
    flow.lose(persistent=True)
    assert (flow.window, flow.controller.ssthresh) == (2, pytest.approx(70 * DATAGRAM))
    flow.ack(0.2, 68.5)
    assert flow.window == 70.5
    flow.ack()
    assert flow.controller._plateau == 70.5 * DATAGRAM
    assert flow.controller._until_plateau == 0
    flow.controller.on_lost(packets(flow.now - 0.1), flow.now, False, flow.path)  # type: ignore[arg-type]
    assert flow.window < 50, "and a recovery period of its own when it goes on"


# -- growth --------------------------------------------------------------------------------------------------------


def test_concave_growth() -> None:
    """RFC 9438, 4.2 and 4.4: with W_max 100 and cwnd 70, K is the cubic root of 30 / 0.4: 4.217 s."""
    flow = Flow(100)
    flow.lose()
    flow.recover()
    k = 75 ** (1 / 3)
    flow.go_on(0.02)
    assert flow.controller._until_plateau == pytest.approx(k) == pytest.approx(4.217, abs=0.001)
    for _ in range(8):
        flow.go_on(0.5)
        # It follows the curve, a round trip of looking ahead less a round trip of getting there.
        assert flow.window == pytest.approx(cubic(flow.controller._elapsed, k, 100), abs=1.2)
    assert 99 < flow.window < 100.1


def test_convex_growth() -> None:
    """RFC 9438, 4.5: beyond the plateau slowly, then ever faster."""
    flow = Flow(100)
    flow.lose()
    flow.recover()
    flow.go_on(4.22)
    grown = []
    for _ in range(4):
        before = flow.window
        flow.go_on(1.0)
        grown.append(flow.window - before)
    assert grown[0] < 1.5
    assert grown == sorted(grown)
    assert grown[3] > 10


def test_a_step() -> None:
    """RFC 9438, 4.4: of the way to the curve a round trip ahead, the share of the window that was acknowledged."""
    flow = Flow(100)
    flow.lose()
    flow.recover()
    flow.ack(0.0, 1)  # t is 0 with the first packet acknowledged
    target = cubic(0.0 + RTT, 75 ** (1 / 3), 100)
    assert target > 70
    assert flow.window == pytest.approx(70 + (target - 70) / 70)
    before = flow.window
    flow.ack(0.05, 7)
    target = cubic(0.05 + RTT, 75 ** (1 / 3), 100)
    assert flow.window == pytest.approx(before + (target - before) * 7 / before)


def test_half_of_the_window_in_a_round_trip_at_most() -> None:
    """RFC 9438, 4.2: the target is at most 1.5 windows."""
    flow = Flow(10)
    flow.ack()
    flow.controller._elapsed = 100.0
    before = flow.window
    flow.ack(0.0, 1)
    assert flow.window == pytest.approx(before + 0.5)


def test_as_fast_as_reno() -> None:
    """RFC 9438, 4.3: on a short path, 0.529 datagrams a window up to W_max, then one; more than the curve gives."""
    flow = Flow(20)
    flow.path.rtt.update(0.01, 0.0, 1.0)
    flow.lose()
    flow.recover()
    flow.ack(0.0, 0.01)
    for expected in (14 + 9 / 17, 14 + 18 / 17):
        left = flow.window
        while left > 1e-9:  # a window, in datagrams that are acknowledged together, in no time
            flow.ack(0.0, min(left, 1))
            left -= 1
        assert flow.window == pytest.approx(expected, abs=0.05)
    flow.controller._reno = flow.controller.window = 20 * DATAGRAM
    flow.controller._plateau = 0.0  # the curve is far below
    flow.ack(0.0, 20)
    assert flow.window == pytest.approx(21, abs=0.05)


def test_the_curve_is_not_left_for_reno_where_it_is_above() -> None:
    """RFC 9438, 4.3: W_est counts only where the curve itself is below it."""
    flow = Flow(100)
    flow.lose()
    flow.recover()
    flow.ack()
    flow.controller._reno = 80 * DATAGRAM
    flow.controller._elapsed = 4.0  # the curve: nearly 100
    flow.ack(0.0, 0.01)
    assert flow.window == pytest.approx(70, abs=0.5)
    flow.controller._elapsed = 0.0
    flow.ack(0.0, 0.01)
    assert flow.window == pytest.approx(80, abs=0.5)


# -- what is not used ----------------------------------------------------------------------------------------------


def test_a_window_that_is_not_used_stays() -> None:
    """R-8: in slow start and after it; and time does not pass (RFC 9438, 5.8)."""
    flow = Flow(20, avoiding=False)
    flow.path.window_used = False
    flow.ack(count=5)
    assert flow.window == 20
    flow = Flow(100)
    flow.lose()
    flow.recover()
    flow.ack()
    flow.ack(0.1)
    before, elapsed = flow.window, flow.controller._elapsed
    flow.path.window_used = False
    for _ in range(50):
        flow.ack(0.1, 10)
    assert (flow.window, flow.controller._elapsed) == (before, elapsed)
    flow.path.window_used = True
    flow.ack(0.05)
    assert flow.controller._elapsed == pytest.approx(elapsed + 0.05)


def test_a_pause_does_not_count() -> None:
    """RFC 9438, 5.8: after an hour of silence the curve goes on where it was."""
    flow = Flow(100)
    flow.lose()
    flow.recover()
    flow.ack()
    flow.ack(0.1)
    elapsed = flow.controller._elapsed
    flow.ack(3600.0, sent=flow.now + 3600.0 - 0.1)
    assert flow.controller._elapsed == pytest.approx(elapsed + 0.1), "the round trip since it began again"
    assert flow.window < 72


# -- the rest ------------------------------------------------------------------------------------------------------


def test_pacing_rate() -> None:
    """RFC 9002, 7.7: two windows in a round trip in slow start, a window and a quarter after it."""
    flow = Flow(50, avoiding=False)
    assert flow.controller.pacing_rate == pytest.approx(2 * 50 * DATAGRAM / RTT)
    flow.lose()
    assert flow.controller.pacing_rate == pytest.approx(1.25 * 35 * DATAGRAM / RTT)
    assert 0 < Cubic(DATAGRAM, RttEstimator(0.0)).pacing_rate < inf


def test_datagrams_of_another_size() -> None:
    """The window goes on, in larger or smaller steps."""
    flow = Flow(5)
    flow.controller.set_max_datagram_size(9000)
    assert flow.controller.window == 18_000
    flow.controller.set_max_datagram_size(DATAGRAM)
    assert flow.controller.window == 18_000
    flow.lose()
    assert flow.controller.window == pytest.approx(12_600)


def test_taking_the_place_of_another() -> None:
    """R-15: from its window, without slow start."""
    flow = Flow(40)
    assert (flow.window, flow.controller.ssthresh) == (40, 40 * DATAGRAM)
    flow.ack()
    assert 40 < flow.window < 40.1
    assert Flow(0.5).window == 2


@pytest.mark.parametrize(
    ("rate", "delay"), [(1.25e5, 0.05), (1.25e6, 0.02), (1.25e6, 0.1), (1.25e7, 0.001), (6.25e6, 0.04)]
)
def test_a_bottleneck_is_filled(rate: float, delay: float) -> None:
    """With a queue of one round trip, nine tenths of the rate once the start is over."""
    link = Bottleneck(rate, delay, queue=int(max(rate * delay, 20 * DATAGRAM)), congestion="cubic")
    link.run_until(lambda: link.recovery.controller.window >= link.recovery.controller.ssthresh)
    link.run_for(20 * delay)
    seconds = max(100 * delay, 1.0)
    assert link.run_for(seconds) * DATAGRAM > 0.9 * rate * seconds


events = st.lists(
    st.one_of(
        st.tuples(st.just("acked"), st.integers(1, 100), st.booleans()),
        st.tuples(st.just("lost"), st.integers(1, 5), st.booleans()),
        st.tuples(st.just("marked"), st.just(0), st.just(False)),
        st.tuples(st.just("wait"), st.integers(0, 4), st.just(False)),
        st.tuples(st.just("size"), st.integers(1200, 65_507), st.just(False)),
    ),
    max_size=80,
)


@given(st.floats(1e-5, 5.0), events)
def test_any_order_of_events(rtt: float, steps: Sequence[tuple[str, int, bool]]) -> None:
    """R-8: never below two datagrams, and it grows by no more than what was acknowledged."""
    path = Path()
    path.rtt = RttEstimator(rtt)
    controller = Cubic(1200, path.rtt)
    now, size = 1.0, 1200
    most: float = controller.window
    for kind, number, flag in steps:
        before = controller.window
        if kind == "acked":
            path.window_used = flag
            controller.on_acked(packets(*[now - rtt] * number, size=size), now, rtt, path)  # type: ignore[arg-type]
            most += number * size
            assert before <= controller.window <= most
        elif kind == "lost":
            controller.on_lost(packets(*[now] * number), now + rtt, flag, path)  # type: ignore[arg-type]
            assert controller.window <= before or controller.window == 2 * size
        elif kind == "marked":
            controller.on_congestion_mark(now, now + rtt, path)  # type: ignore[arg-type]
        elif kind == "wait":
            now += (0.0, rtt / 10, rtt, 3.0, 10_000.0)[number]
        else:
            size = number
            controller.set_max_datagram_size(size)
        if kind == "size":
            most = max(most, controller.window)
        elif controller.window < before:
            most = controller.window
        assert 2 * size <= controller.window < inf
        assert 0 < controller.pacing_rate < inf


def test_through_recovery() -> None:
    """R-8: the window is used when somebody was refused, and grows then."""
    recovery = Recovery(DATAGRAM, congestion="cubic")
    number = 0
    while recovery.can_send(DATAGRAM):
        recovery.on_sent(SentPacket(number, 1.0, DATAGRAM, 1, True, True))
        number += 1
    recovery.on_ack(((0, number - 1),), 0.0, 1.1)
    assert recovery.controller.window == 14_720 + number * DATAGRAM
