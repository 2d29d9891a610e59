"""NewReno and the interface of controllers: R-7 and R-8 of docs/protocol.md; RFC 9002, section 7 and appendix B.

`test_rfc9002.py` compares it with a second implementation; here each rule stands alone, and a simulated link shows that
the parts together fill a bottleneck and survive a bad one.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import pytest

from stt_proto.recovery import (
    CONTROLLERS,
    CongestionController,
    NewReno,
    PathState,
    Recovery,
    RttEstimator,
    SentPacket,
    make_controller,
)
from tests.proto.bottleneck import DATAGRAM, Bottleneck

RTT = 0.1


class Path:
    """What a controller sees, under the hand of the test."""

    def __init__(self, window_used: bool = True) -> None:
        self.rtt = RttEstimator(RTT)
        self.window_used = window_used


def packets(*times: float, size: int = DATAGRAM) -> list[SentPacket]:
    return [SentPacket(number, time, size, 1, True, True) for number, time in enumerate(times)]


def newreno(max_datagram_size: int = DATAGRAM) -> NewReno:
    return NewReno(max_datagram_size, RttEstimator(RTT))


@pytest.mark.parametrize(("datagram", "window"), [(1200, 14_720), (1452, 14_720), (1500, 15_000), (65_535, 655_350)])
def test_the_window_begins_at_ten_datagrams(datagram: int, window: int) -> None:
    """R-8: and at least 14,720 bytes."""
    assert newreno(datagram).window == window
    assert newreno(datagram).ssthresh == inf


def test_slow_start() -> None:
    """RFC 9002, 7.3.1: the window grows by what is acknowledged."""
    controller, path = newreno(), Path()
    controller.on_acked(packets(1.0, 1.0), 1.1, RTT, path)
    assert controller.window == 14_720 + 2 * DATAGRAM


def test_congestion_avoidance() -> None:
    """RFC 9002, 7.3.3: one datagram for each window acknowledged, whatever size the packets have."""
    for size in (40, DATAGRAM, 12 * DATAGRAM):
        controller, path = newreno(), Path()
        controller.on_lost(packets(1.0), 1.1, False, path)
        start = controller.window
        assert start == controller.ssthresh == 7360
        for _ in range(int(start / size) + 1):
            controller.on_acked(packets(2.0, size=size), 2.1, RTT, path)
        assert controller.window == pytest.approx(start + DATAGRAM, abs=max(size, 100))


def test_a_window_that_is_not_used_stays() -> None:
    """R-8."""
    controller, path = newreno(), Path(window_used=False)
    controller.on_acked(packets(1.0, 1.0), 1.1, RTT, path)
    controller.on_lost(packets(1.0), 1.1, False, path)
    controller.on_acked(packets(2.0, 2.0), 2.1, RTT, path)
    assert controller.window == 7360


def test_one_reduction_in_a_round_trip() -> None:
    """RFC 9002, 7.3.2: nothing sent before the recovery period began shrinks or grows the window in it."""
    controller, path = newreno(), Path()
    controller.on_lost(packets(1.00, 1.01), 1.2, False, path)
    controller.on_lost(packets(1.05), 1.3, False, path)
    controller.on_congestion_mark(1.2, 1.3, path)
    controller.on_acked(packets(1.1, 1.2), 1.3, RTT, path)
    assert controller.window == 7360
    controller.on_acked(packets(1.1, 1.21), 1.3, RTT, path)
    assert controller.window == 7360 + DATAGRAM * DATAGRAM / 7360
    controller.on_congestion_mark(1.21, 1.4, path)
    assert controller.window == pytest.approx(7360 / 2, rel=0.03)


def test_the_newest_loss_decides() -> None:
    """RFC 9002, B.8: one ACK may declare packets of two flights lost."""
    controller, path = newreno(), Path()
    controller.on_lost(packets(1.0), 1.2, False, path)
    controller.on_lost(packets(1.1, 1.3), 1.4, False, path)
    assert controller.window == 3680


def test_the_window_has_a_minimum() -> None:
    """R-8: two datagrams."""
    controller, path = newreno(), Path()
    for second in range(1, 10):
        controller.on_lost(packets(float(second)), second + 0.1, False, path)
    assert controller.window == 2 * DATAGRAM


def test_persistent_congestion() -> None:
    """R-7: the minimum at once, slow start up to half of what was, and a new recovery period when it goes on."""
    controller, path = newreno(), Path()
    controller.on_lost(packets(1.0, 9.0), 9.1, True, path)
    assert (controller.window, controller.ssthresh) == (2 * DATAGRAM, 7360)
    controller.on_acked(packets(9.05), 9.15, RTT, path)
    assert controller.window == 3 * DATAGRAM
    controller.on_lost(packets(9.06), 9.2, False, path)
    assert controller.window == 2 * DATAGRAM


def test_pacing_rate() -> None:
    """RFC 9002, 7.7: two windows in a round trip in slow start, a window and a quarter after it."""
    rtt, path = RttEstimator(RTT), Path()
    controller = NewReno(DATAGRAM, rtt)
    assert controller.pacing_rate == pytest.approx(2 * 14_720 / RTT)
    controller.on_lost(packets(1.0), 1.1, False, path)
    assert controller.pacing_rate == pytest.approx(1.25 * 7360 / RTT)
    rtt.update(0.05, 0.0, 1.0)
    assert controller.pacing_rate == pytest.approx(1.25 * 7360 / 0.05)
    rtt = RttEstimator(0.0)
    assert 0 < NewReno(DATAGRAM, rtt).pacing_rate < inf


def test_larger_datagrams() -> None:
    """The path was found to carry more: the window goes on, in larger steps."""
    recovery = Recovery(DATAGRAM)
    recovery.set_max_datagram_size(9000)
    controller = recovery.controller
    assert (recovery.max_datagram_size, controller.window) == (9000, 18_000)
    controller.on_lost(packets(1.0), 1.1, False, recovery)
    assert controller.window == 18_000
    controller.on_acked(packets(2.0, size=9000), 2.1, RTT, Path())  # type: ignore[arg-type]
    assert controller.window == 18_000 + 9000 * 9000 / 18_000


# -- the interface -------------------------------------------------------------------------------------------------


def test_controllers_have_names() -> None:
    assert list(CONTROLLERS) == ["newreno", "cubic", "bbr"]
    assert isinstance(make_controller("newreno", DATAGRAM, RttEstimator()), NewReno)


class Recorder:
    """A controller of a user: all that the interface asks for, and nothing else."""

    ssthresh = inf
    pacing_rate: float | None = 1e6

    def __init__(self, max_datagram_size: int, rtt: RttEstimator) -> None:
        self.window: float = 100 * max_datagram_size
        self.rtt = rtt
        self.calls: list[tuple[object, ...]] = []

    def on_sent(self, packet: SentPacket, path: PathState) -> None:
        packet.memo = path.bytes_in_flight
        self.calls.append(("sent", packet.number, path.bytes_in_flight))

    def on_acked(self, packets: Sequence[SentPacket], now: float, sample: float | None, path: PathState) -> None:
        newest = packets[-1]
        elapsed = max(newest.time - newest.first_sent_time, path.delivered_time - newest.delivered_time)
        rate = (path.delivered - newest.delivered) / elapsed
        self.calls.append(
            ("acked", [p.number for p in packets], sample, path.rtt is self.rtt, round(rate), newest.memo)
        )

    def on_lost(self, packets: Sequence[SentPacket], now: float, persistent: bool, path: PathState) -> None:
        self.calls.append(("lost", [p.number for p in packets], persistent, path.lost, path.bytes_in_flight))

    def on_congestion_mark(self, sent_time: float, now: float, path: PathState) -> None:
        self.calls.append(("mark", sent_time))

    def set_max_datagram_size(self, size: int) -> None:
        self.calls.append(("size", size))


def test_a_controller_of_a_user() -> None:
    """It hears of everything, in the order mark, losses, acknowledgements, with all that BBR needs."""
    made: list[Recorder] = []

    def factory(max_datagram_size: int, rtt: RttEstimator) -> CongestionController:
        made.append(Recorder(max_datagram_size, rtt))
        return made[0]

    recovery = Recovery(DATAGRAM, congestion=factory)
    (controller,) = made
    for number in range(5):
        recovery.on_sent(SentPacket(number, 1.0 + number / 1000, DATAGRAM, 1, True, True, mtu_probe=number == 1))
    recovery.on_ack(((3, 4),), 0.0, 1.104, True, (0, 0, 1))
    recovery.set_max_datagram_size(1452)
    assert controller.calls == [
        *(("sent", number, (number + 1) * DATAGRAM) for number in range(5)),
        ("mark", 1.004),
        ("lost", [0], False, DATAGRAM, DATAGRAM),
        ("acked", [3, 4], pytest.approx(0.1), True, round(2 * DATAGRAM / 0.104), 5 * DATAGRAM),
        ("size", 1452),
    ]


# -- a link --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "delay"), [(1.25e5, 0.05), (1.25e6, 0.02), (1.25e6, 0.1), (1.25e7, 0.001), (6.25e6, 0.04)]
)
def test_a_bottleneck_is_filled(rate: float, delay: float) -> None:
    """With a queue of one round trip, three quarters of the rate from the first packet to the last acknowledgement."""
    link = Bottleneck(rate, delay, queue=int(max(rate * delay, 20 * DATAGRAM)))
    amount = int(rate * max(60 * delay, 1.0) / DATAGRAM)
    took = link.run(range(amount), until=1000.0)
    assert link.delivered == set(range(amount))
    assert amount * DATAGRAM / took > 0.75 * rate
    assert link.recovery.rtt.minimum >= delay
    # The only losses are those of a queue that ran over, but for the few that timers resent.
    assert link.overflows <= link.recovery.packets_lost <= link.overflows + 5


def test_pacing_spares_short_queues() -> None:
    """In congestion avoidance a window leaves over the whole round trip: a queue of a tenth of it suffices."""
    link = Bottleneck(1.25e6, 0.1, queue=int(1.25e6 * 0.1 / 8))
    took = link.run(range(10_000), until=1000.0)
    assert 10_000 * DATAGRAM / took > 0.6 * 1.25e6


@pytest.mark.parametrize(("loss", "reorder"), [(0.05, 0.0), (0.3, 0.0), (0.02, 0.05), (0.6, 0.1)])
def test_a_bad_link_is_survived(loss: float, reorder: float) -> None:
    """Everything arrives, and the sender never has more timers than one or probes than two."""
    link = Bottleneck(1.25e6, 0.02, queue=100_000, loss=loss, reorder=reorder)
    link.run(range(500), until=2000.0)
    assert link.delivered == set(range(500))
    assert link.recovery.bytes_in_flight >= 0
    assert link.recovery.controller.window >= 2 * DATAGRAM
