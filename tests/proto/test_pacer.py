"""The pacer: docs/protocol.md, section 10 ("pacing" among the timers); RFC 9002, 7.7."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_proto.recovery import Pacer, Recovery, SentPacket

DATAGRAM = 1200
MILLISECOND = 0.001


def burst(pacer: Pacer, now: float, size: int, rate: float) -> int:
    """Send until the pacer holds back; the bytes that left."""
    sent = 0
    while pacer.deadline(now, size, rate, DATAGRAM) == 0.0:
        pacer.on_sent(size)
        sent += size
    return sent


def test_the_bucket_begins_full() -> None:
    """Ten datagrams may leave at once, however slow the path."""
    assert burst(Pacer(), 5.0, DATAGRAM, rate=1e5) == 10 * DATAGRAM


def test_the_bucket_holds_four_milliseconds() -> None:
    """Where that is more than ten datagrams."""
    assert burst(Pacer(), 5.0, DATAGRAM, rate=1e8) == pytest.approx(4e5, abs=DATAGRAM)


def test_the_bucket_does_not_overflow() -> None:
    pacer = Pacer()
    burst(pacer, 5.0, DATAGRAM, 1e5)
    assert burst(pacer, 500.0, DATAGRAM, 1e5) == 10 * DATAGRAM


def test_it_tells_when() -> None:
    """The bucket fills at the rate; the deadline is when the packet fits."""
    pacer = Pacer()
    burst(pacer, 5.0, DATAGRAM, 1e5)
    at = pacer.deadline(5.0, DATAGRAM, 1e5, DATAGRAM)
    assert at == pytest.approx(5.0 + DATAGRAM / 1e5)
    assert pacer.deadline(at - 0.004, DATAGRAM, 1e5, DATAGRAM) > at - 0.004
    assert pacer.deadline(at + 1e-9, DATAGRAM, 1e5, DATAGRAM) == 0.0


def test_a_deadline_is_a_millisecond_ahead() -> None:
    """A host that woke for every packet would do little else."""
    pacer = Pacer()
    burst(pacer, 5.0, DATAGRAM, 1e8)
    assert pacer.deadline(5.0, DATAGRAM, 1e8, DATAGRAM) == 5.0 + MILLISECOND
    assert burst(pacer, 5.0 + MILLISECOND, DATAGRAM, 1e8) == pytest.approx(1e5, abs=2 * DATAGRAM)


def test_a_packet_larger_than_the_bucket_leaves_when_it_is_full() -> None:
    """And what it took too much is waited for afterwards."""
    pacer = Pacer()
    assert pacer.deadline(5.0, 60_000, 1e5, DATAGRAM) == 0.0
    pacer.on_sent(60_000)
    assert pacer.tokens == -48_000
    assert pacer.deadline(5.0, DATAGRAM, 1e5, DATAGRAM) == pytest.approx(5.0 + 0.48 + 0.012)


def test_debt_is_forgiven_beyond_one_packet() -> None:
    """What left while nobody asked (probes; the time when the path was too short to be paced) is not waited for."""
    pacer = Pacer()
    pacer.deadline(5.0, DATAGRAM, 1e5, DATAGRAM)
    for _ in range(10_000):
        pacer.on_sent(60_000)
    assert pacer.deadline(5.0, DATAGRAM, 1e6, DATAGRAM) < 5.1


@given(
    st.floats(1e4, 1e8),
    st.lists(st.tuples(st.floats(0, 0.05), st.integers(600, 65_507)), min_size=1, max_size=20),
)
def test_the_rate_is_kept(rate: float, steps: list[tuple[float, int]]) -> None:
    """Over any time no more leaves than the rate allows, a bucket and one packet. Hosts wake when they like."""
    pacer = Pacer()
    start = now = 3.0
    sent = 0
    for wait, size in steps:
        now += wait
        while (at := pacer.deadline(now, size, rate, DATAGRAM)) == 0.0 and sent < 1e6:
            pacer.on_sent(size)
            sent += size
        capacity = max(10 * DATAGRAM, 0.004 * rate)
        assert sent <= (rate * (now - start) + capacity + 65_507) * (1 + 1e-9)
        if at:
            assert at >= now + MILLISECOND
            assert pacer.deadline(at + 1e-6, size, rate, DATAGRAM) == 0.0
            now = at + 1e-6


# -- as part of recovery -------------------------------------------------------------------------------------------


def send(recovery: Recovery, number: int, now: float, size: int = DATAGRAM) -> None:
    recovery.on_sent(SentPacket(number, now, size, 1, True, True))


def test_a_short_path_is_not_paced() -> None:
    """Below 2 ms of round trip."""
    for initial, paced in ((0.0019, False), (0.0021, True)):
        recovery = Recovery(DATAGRAM, initial_rtt=initial)
        now, number = 1.0, 0
        while number < 1000 and recovery.pacing_deadline(now, 65_000) == 0.0:
            send(recovery, number, now, 65_000)
            number += 1
        assert (number < 1000) is paced


def test_what_was_sent_unpaced_is_no_debt() -> None:
    """A path whose round trip grows over 2 ms goes on at once."""
    recovery = Recovery(DATAGRAM, initial_rtt=0.001)
    for number in range(1000):
        send(recovery, number, 1.0, 60_000)
    recovery.rtt.update(0.003, 0.0, 1.003)
    assert recovery.pacing_deadline(1.003, DATAGRAM) == 0.0


def test_a_controller_without_a_rate_is_not_paced() -> None:
    class Unpaced:
        window = 20_000.0
        ssthresh = 0.0
        pacing_rate = None

        def on_sent(self, packet: object, path: object) -> None: ...

    recovery = Recovery(DATAGRAM, congestion=lambda size, rtt: Unpaced())  # type: ignore[arg-type,return-value]
    for number in range(100):
        send(recovery, number, 1.0)
    assert recovery.pacing_deadline(1.0, DATAGRAM) == 0.0


def test_the_first_window_is_spread() -> None:
    """RFC 9002, 7.7: ten datagrams, then at two windows in a round trip."""
    recovery = Recovery(DATAGRAM)
    for number in range(10):
        assert recovery.pacing_deadline(1.0, DATAGRAM) == 0.0
        send(recovery, number, 1.0)
    at = recovery.pacing_deadline(1.0, DATAGRAM)
    assert at == pytest.approx(1.0 + DATAGRAM / (2 * 14_720 / 0.1))
