"""Reliable carriers lose nothing, so nothing is repeated that they may still hold (docs/protocol.md, R-17)."""

from __future__ import annotations

from math import inf

import pytest

from stt_proto.config import CARRIERS
from stt_proto.recovery import Recovery
from stt_proto.recovery.congestion import Uncongested
from stt_proto.session.session import Session
from stt_proto.testing import Conditions, World
from tests.proto.lossy import DATAGRAM, acknowledge, packet, path


def reliable(count: int = 0, congestion: str = "cubic") -> Recovery:
    return path([1.0] * count, reliable=True, congestion=congestion)


def test_time_loses_nothing() -> None:
    """A queue that is slow for an hour still holds it all. It is asked, and not soon."""
    recovery = reliable(5)
    assert recovery.deadline >= 1.0 + max(1.0, 4 * recovery.pto)
    asked = 0
    while recovery.deadline < 3600.0:
        assert recovery.on_timeout(recovery.deadline) == []
        asked += 1
    assert recovery.probes == 2
    assert asked < 400
    assert acknowledge(recovery, [0], 3600.0) == ([0], [])
    assert recovery.bytes_in_flight == 4 * DATAGRAM


def test_the_last_one_was_thrown_away() -> None:
    """Nothing comes behind it that would tell: so something is sent that does."""
    recovery = reliable(1)
    for number in range(1, 4):
        recovery.on_timeout(recovery.deadline)
        recovery.on_sent(packet(number, 10.0))
    assert acknowledge(recovery, [1, 2, 3], 11.0) == ([1, 2, 3], [0])
    assert recovery.deadline == inf


def test_what_was_overtaken_was_thrown_away() -> None:
    """The order is kept, so three that arrived behind it say that the receiver dropped it; two say nothing yet."""
    recovery = reliable(6)
    assert acknowledge(recovery, [3], 1.1) == ([3], [0])
    assert recovery.deadline >= 2.0, "no timer by age"
    assert acknowledge(recovery, [5], 1.2) == ([5], [1, 2])


def test_a_probe_repeats_nothing() -> None:
    """K-4 asks, beyond the window; what is on its way is only slow."""
    recovery = reliable(3)
    assert recovery.oldest_eliciting() is None
    recovery.probe()
    assert recovery.probes == 1
    assert path([1.0]).oldest_eliciting() is not None


@pytest.mark.parametrize("congestion", ["newreno", "cubic", "bbr"])
def test_the_window_stands_still(congestion: str) -> None:
    """And there is no pacing, whatever the configuration says."""
    recovery = reliable(congestion=congestion)
    window = recovery.controller.window
    assert (window, recovery.controller.pacing_rate, recovery.controller.ssthresh) == (32 << 20, None, inf)
    recovery.on_sent(packet(0, 1.0))
    recovery.on_ack(((0, 0),), 0.0, 1.5, True, (0, 0, 5))
    for number in range(1, 6):
        recovery.on_sent(packet(number, 2.0))
    assert acknowledge(recovery, [5], 2.5)[1] == [1, 2]
    recovery.set_max_datagram_size(60_000)
    assert recovery.controller.window == window
    assert recovery.pacing_deadline(2.5, 60_000) == 0.0


def test_there_is_a_bound_all_the_same() -> None:
    """A peer that acknowledges nothing does not make us hold everything."""
    recovery = reliable()
    number = 0
    while recovery.can_send(65_535):
        recovery.on_sent(packet(number, 1.0, 65_535))
        number += 1
    assert Uncongested().window - 65_535 < recovery.bytes_in_flight <= Uncongested().window


def test_what_a_path_held_when_it_ended_is_to_be_sent_elsewhere() -> None:
    recovery = reliable(3)
    assert [each.number for each in recovery.discard_all()] == [0, 1, 2]
    assert recovery.bytes_in_flight == 0


def transfer(carrier: str, size: int, stalls: float) -> tuple[Session, int]:
    """Move `size` bytes; in the middle of it the receiver does nothing for `stalls` seconds, and loses nothing."""
    world = World(1, Conditions(delay=0.005))
    client, server = world.node("client"), world.node("server")
    session = client.connect(server, carrier)
    world.run_until(lambda: session.is_active() and server.sessions)
    (peer,) = server.sessions
    stream = session.open_stream()
    sent = received = 0

    def move() -> int:
        nonlocal sent, received
        sent += stream.write(bytes(size - sent), world.now)
        client.pump()
        theirs = peer.stream(stream.stream_id)
        while server.awake and theirs is not None and (data := theirs.read(1 << 20, world.now)):
            received += len(data)
        server.pump()
        return received

    world.run_until(lambda: move() > size // 2)
    server.pause(stalls, buffer=1 << 30)
    world.run_until(lambda: move() == size)
    world.settle()
    return session, session.stats().bytes_sent


@pytest.mark.parametrize("carrier", ["ws", "stream", "memory"])
def test_nothing_is_sent_twice(carrier: str) -> None:
    """However long the other side takes: it has all of it, and is not told again."""
    size = 2 << 20
    session, sent = transfer(carrier, size, 9.0)
    assert session.stats().packets_lost == 0
    assert sent < size * 1.002 + 4096
    assert CARRIERS[carrier].max_packet == 65_535
    assert session.stats().packets_sent < size / 65_000 + 100, "packets are as large as the carrier takes"


def test_the_same_where_things_get_lost() -> None:
    """So that the test above means something: UDP asks by repeating."""
    size = 2 << 20
    _, sent = transfer("udp", size, 9.0)
    assert sent > size * 1.002 + 4096
