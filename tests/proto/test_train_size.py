"""How many datagrams a packet may span (P-16)."""

from __future__ import annotations

import hashlib

import pytest

from stt_proto.paths.trains import FORGERY_PAUSE, TrainSizer
from stt_proto.recovery import Recovery, SentPacket
from stt_proto.testing import Conditions
from tests.proto.worlds import Mover, filler, session_pair

SIZE = 1200


def recovery(window: int = 8 << 20, rtt: float = 0.0005) -> Recovery:
    """A path with one RTT sample and a given window, nothing in flight."""
    made = Recovery(SIZE)
    made.on_sent(SentPacket(0, 0.0, SIZE, 1, True, True))
    made.on_ack(((0, 0),), 0.0, rtt)
    made.controller.window = window  # type: ignore[misc]
    return made


@pytest.mark.parametrize(
    ("window", "rtt", "most"),
    [
        (8 << 20, 0.0005, 54),  # nothing but the 65,507 bytes of a train is in the way
        (8 * 10 * SIZE, 0.0005, 10),  # an eighth of the window
        (8 * SIZE, 0.0005, 1),
        (100 * SIZE, 0.050, 4),  # 2 ms at a window a round trip
        (20 * SIZE, 0.100, 1),  # a slow link: plain datagrams
    ],
)
def test_window_and_rate(window: int, rtt: float, most: int) -> None:
    assert TrainSizer(64, SIZE).segments(recovery(window, rtt), 1.0) == most


def test_what_the_peer_takes() -> None:
    assert TrainSizer(1, SIZE).segments(recovery(), 1.0) == 1
    assert TrainSizer(7, SIZE).segments(recovery(), 1.0) == 7


def test_no_more_than_the_window_has_room_for() -> None:
    path = recovery(80 * SIZE)
    path.on_sent(SentPacket(1, 1.0, 77 * SIZE, 64, True, True))
    assert TrainSizer(64, SIZE).segments(path, 1.0) == 3


def test_the_first_packets_are_single() -> None:
    assert TrainSizer(64, SIZE).segments(Recovery(SIZE), 0.0) == 1


def test_probes_are_single() -> None:
    path = recovery()
    path.on_sent(SentPacket(1, 1.0, SIZE, 1, True, True))
    path.on_timeout(path.deadline)
    assert path.probes
    assert TrainSizer(64, SIZE).segments(path, 2.0) == 1


def test_loss_makes_trains_short() -> None:
    path = recovery()
    path.datagram_loss = 0.01
    assert TrainSizer(64, SIZE).segments(path, 1.0) == 5
    path.datagram_loss = 0.2
    assert TrainSizer(64, SIZE).segments(path, 1.0) == 1


def test_forged_segments_cost_speed_for_a_second() -> None:
    sizer, path = TrainSizer(64, SIZE), recovery()
    sizer.on_failed(1, 5.0)
    assert sizer.segments(path, 5.0) == 1
    sizer.on_failed(1, 5.9)  # the same count again says nothing new
    assert sizer.segments(path, 5.0 + FORGERY_PAUSE) == 54


def test_a_session_uses_them() -> None:
    """P-1: bulk data goes in trains once the path is known, and arrives; a lost segment costs the whole packet."""
    pair = session_pair(3, Conditions(delay=0.0002, loss=0.0005))
    data = filler(4 << 20)
    mover = Mover(pair.server)
    stream = pair.session.open_stream()
    Mover(pair.client).send(stream, pair.session, data)
    pair.world.run_until(lambda: mover.ended)
    assert list(mover.ended.values()) == [hashlib.sha256(data).digest()]
    stats = pair.session.stats()
    assert stats.datagrams_sent > 3 * stats.packets_sent
    assert stats.packets_lost > 0
