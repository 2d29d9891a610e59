"""Acknowledgements as often as they are needed, and not more often (docs/protocol.md, R-2, R-16)."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_proto.errors import ArgumentError
from stt_proto.events import SessionClosed
from stt_proto.recovery import AckRate, AckTracker
from stt_proto.session import engines
from stt_proto.testing import Conditions
from stt_proto.wire import AckFrequency, FrameType, KeepAlive
from tests.proto.test_receive_windows import LONG_FAT, Bulk
from tests.proto.worlds import Pair, session_pair

DELAY = 0.025
SIZE = 1200

# -- what is asked for ---------------------------------------------------------------------------------------------


def test_a_sixteenth_of_the_window() -> None:
    """R-16: in datagrams; from 2, which is what happens anyway, to 256."""
    rate = AckRate(True, DELAY)
    assert (rate.threshold, rate.delay, rate.number) == (2, DELAY, 0)
    assert not rate.update(16 * 3 * SIZE, SIZE, 0.1)
    assert rate.update(16 * 4 * SIZE, SIZE, 0.1)
    assert (rate.threshold, rate.number) == (4, 1)
    assert rate.update(16 * 100 * SIZE + 5, SIZE, 0.1)
    assert (rate.threshold, rate.number) == (100, 2)
    assert rate.update(1 << 40, SIZE, 0.1)
    assert (rate.threshold, rate.number) == (256, 3)


def test_not_more_often_than_the_window_doubles() -> None:
    """R-16: nobody is asked for every other datagram more."""
    rate = AckRate(True, DELAY)
    asked = [rate.update(16 * count * SIZE, SIZE, 0.04) for count in range(2, 200)]
    assert sum(asked) == 6
    assert not rate.update(16 * 65 * SIZE, SIZE, 0.04)
    assert rate.update(16 * 64 * SIZE, SIZE, 0.04)
    assert rate.update(2 * SIZE, SIZE, 0.04)
    assert (rate.threshold, rate.delay) == (2, DELAY), "as if nothing had been asked for"
    assert not rate.update(2 * SIZE, SIZE, 0.04)


@pytest.mark.parametrize(("rtt", "delay"), [(1.0, DELAY), (0.04, 0.01), (0.004, 0.001), (0.0001, 0.001)])
def test_a_quarter_of_a_round_trip(rtt: float, delay: float) -> None:
    """R-16: never longer than the peer promised, R-5 counts on that; never shorter than timers are."""
    rate = AckRate(True, DELAY)
    rate.update(1 << 30, SIZE, rtt)
    assert rate.delay == pytest.approx(delay)


# -- what is done --------------------------------------------------------------------------------------------------


def asked(threshold: int = 10, delay: float = 0.01) -> AckTracker:
    acks = AckTracker(DELAY)
    acks.ask(1, threshold, delay)
    return acks


def test_an_acknowledgement_is_due_after_so_many_datagrams() -> None:
    """R-16: and no later than after so long, counted from the first."""
    acks = asked()
    for number in range(9):
        acks.on_packet(number, 1, True, 1.0 + number / 1000)
        assert acks.due_at == 1.01
    acks.on_packet(9, 1, True, 1.009)
    assert acks.due_at == 1.009
    acks.take(1.009)
    acks.on_packet(10, 9, True, 2.0)
    assert acks.due_at == 2.01
    acks.on_packet(11, 1, False, 2.0)
    assert acks.due_at == 2.01
    acks.on_packet(12, 1, True, 2.005)
    assert acks.due_at == 2.005


def test_trouble_is_told_at_once() -> None:
    """R-2: a gap, what fills it, and a mark of congestion."""
    acks = asked()
    acks.on_packet(0, 1, True, 1.0)
    acks.on_packet(2, 1, True, 1.001)
    assert acks.due_at == 1.001
    acks.take(1.001)
    acks.on_packet(1, 1, True, 1.002)
    assert acks.due_at == 1.002
    acks.take(1.002)
    for number in (3, 4, 5):
        acks.on_packet(number, 1, True, 1.003)
        acks.take(1.003)
    acks.on_packet(6, 1, True, 1.004, 3)
    assert acks.due_at == 1.004


def test_behind_a_gap_everything_is_as_usual_for_three_packets() -> None:
    """R-4, R-16: by then the sender knows what is lost, as soon as without any request."""
    lazy, usual = asked(100), AckTracker(DELAY)
    for acks in (lazy, usual):
        acks.on_packet(0, 1, True, 1.0)
        acks.take(1.0)
    for number in (2, 3, 4):
        dues = []
        for acks in (lazy, usual):
            now = 1.0 + number / 1000
            acks.on_packet(number, 1, True, now)
            dues.append(acks.due_at <= now)
            if dues[-1]:
                acks.take(now)
        assert dues == [dues[0]] * 2
    for number in range(5, 50):
        lazy.on_packet(number, 1, True, 10.0)
    assert lazy.due_at > 10.0


def test_what_a_peer_may_ask_for_is_bounded() -> None:
    """R-16: neither an acknowledgement of everything, nor none at all; never later than our parameters promise.

    [A peer that makes this side answer each of its packets; or wait for ever.]
    """
    greedy = AckTracker(DELAY)
    greedy.ask(1, 1, 0.0)
    greedy.on_packet(0, 1, True, 1.0)
    assert greedy.due_at == pytest.approx(1.001)
    greedy.on_packet(1, 1, True, 1.0)
    assert greedy.due_at == 1.0
    lazy = AckTracker(DELAY)
    lazy.ask(1, 1 << 61, 1e50)
    lazy.on_packet(0, 1023, True, 1.0)
    assert lazy.due_at == 1.0 + DELAY
    lazy.on_packet(1, 1, True, 1.0)
    assert lazy.due_at == 1.0
    prompt = AckTracker(0.0)
    prompt.ask(1, 100, 1.0)
    prompt.on_packet(0, 1, True, 1.0)
    assert prompt.due_at == 1.0


def test_the_newest_request_counts() -> None:
    """R-16: whatever overtook it."""
    acks = AckTracker(DELAY)
    acks.ask(5, 10, 0.01)
    acks.ask(5, 20, 0.02)
    acks.ask(4, 20, 0.02)
    acks.on_packet(0, 9, True, 1.0)
    assert acks.due_at == 1.01
    acks.on_packet(1, 1, True, 1.0)
    assert acks.due_at == 1.0
    acks.take(1.0)
    acks.ask(6, 2, DELAY)
    acks.on_packet(2, 2, True, 1.0)
    assert acks.due_at == 1.0


@given(
    st.integers(0, 1 << 62),
    st.floats(0, 1e12),
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 45), st.sampled_from([0.0, 0.0005, 0.01, 0.1])), max_size=60),
)
def test_something_is_always_due(threshold: int, delay: float, packets: list[tuple[int, int, float]]) -> None:
    """R-2, R-16: as long as something waits to be acknowledged, it will be, within what our parameters promise."""
    acks = AckTracker(DELAY)
    acks.ask(1, threshold, delay)
    number, now, oldest = 0, 0.0, inf
    for step, datagrams, pause in packets:
        now += pause
        if acks.due_at <= now:
            acks.take(now)
            oldest = inf
        number += step
        acks.on_packet(number, datagrams, True, now)
        oldest = min(oldest, now)
        assert now <= acks.due_at <= oldest + DELAY
        assert acks.pending < 1024 or acks.due_at == now


# -- between two sessions ------------------------------------------------------------------------------------------


def ask_of(pair: Pair) -> Any:
    assert pair.session._engines is not None
    return pair.session._engines.ack_rate


def test_nobody_is_asked_who_did_not_announce_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """X-2."""
    monkeypatch.setattr(engines, "EXTENSION_FRAMES", engines.EXTENSION_FRAMES - {FrameType.ACK_FREQUENCY})
    pair = session_pair(conditions=Conditions(delay=0.02))
    stream = pair.session.open_stream()
    stream.write(bytes(1_000_000), pair.now)
    pair.settle()
    assert not ask_of(pair).able
    assert ask_of(pair).number == 0


def test_a_window_that_grows_asks_for_fewer() -> None:
    """R-16: the peer is told, reliably, and does it."""
    pair = session_pair(conditions=Conditions(delay=0.02))
    assert ask_of(pair).number == 0
    pair.session.open_stream().write(bytes(1_000_000), pair.now)
    pair.settle()
    rate = ask_of(pair)
    assert rate.number > 1
    assert pair.peer._engines is not None
    acks = pair.peer._engines.acks
    assert acks._asked == rate.number
    assert acks._threshold == rate.threshold > 4
    assert acks._delay == pytest.approx(0.01, rel=0.1)
    assert not pair.session._engines.control.ready  # type: ignore[union-attr]


def test_a_request_that_is_lost_is_repeated_as_it_is_then() -> None:
    """R-9, R-16."""
    pair = session_pair()
    assert pair.session._engines is not None
    engines_of, rate = pair.session._engines, ask_of(pair)
    for window in (1 << 20, 1 << 22):
        rate.update(window, SIZE, 0.04)
    engines_of.control.put(("ack_frequency", 0))
    pair.session.touch(pair.now)
    for link in pair.world.links.values():
        link.up = False
    pair.client.pump()
    rate.update(1 << 10, SIZE, 0.04)
    for link in pair.world.links.values():
        link.up = True
    pair.world.run(2.0)
    assert pair.peer._engines is not None
    assert pair.peer._engines.acks._asked == 3
    assert pair.peer._engines.acks._threshold == 2


def test_a_flood_of_requests_closes_the_session() -> None:
    """F-5, R-16: a window changes a few times a second, not a thousand times."""
    pair = session_pair()
    for number in range(1, 1001):
        pair.inject(AckFrequency(number, 2 + 1022 * (number % 2), 1000))
    assert not pair.peer.is_closed
    pair.inject(AckFrequency(1001, 2, 1000))
    assert pair.peer.is_closed
    (closed,) = pair.server.events(SessionClosed)
    assert closed.code == 0x0603


def test_a_bulk_transfer_needs_a_tenth_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-16: on a long fat link, and no less arrives for it."""

    def measure() -> tuple[int, int]:
        bulk = Bulk(LONG_FAT)
        bulk.world.run(5.0)
        return bulk.peer.stats().packets_sent, bulk.read

    few, with_few = measure()
    monkeypatch.setattr(engines, "EXTENSION_FRAMES", engines.EXTENSION_FRAMES - {FrameType.ACK_FREQUENCY})
    many, with_many = measure()
    assert few < many / 8
    assert with_few > 0.98 * with_many


def test_a_question_is_answered_as_soon_as_ever() -> None:
    """R-2, K-4: what is not acknowledged is answered at once all the same."""
    pair = session_pair()
    pair.inject(AckFrequency(1, 1000, 1_000_000), KeepAlive(bytes(8)))
    pair.settle(0.5)
    assert pair.peer.is_active()


def test_no_frame_asks_for_nothing() -> None:
    with pytest.raises(ArgumentError):
        AckFrequency(1, 0, 0).encode()
