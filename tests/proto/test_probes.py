"""Probes on request, and probes that nobody answers (docs/protocol.md, R-5). Those of timeouts: `test_loss.py`."""

from __future__ import annotations

import pytest

from stt_proto.recovery import Recovery
from stt_proto.recovery.loss import UNANSWERED_PROBES
from tests.proto.lossy import DATAGRAM, acknowledge, packet, path


def test_a_probe_on_request() -> None:
    """R-5: it goes beyond window and pacing, and the timeout of what is on its way does not wait for it."""
    recovery = path([0.0])
    due = recovery.deadline
    recovery.probe()
    assert recovery.probes == 1
    recovery.on_sent(packet(1, due - 0.01))
    assert recovery.probes == 0
    assert recovery.deadline == due
    recovery.on_sent(packet(2, due - 0.005))
    assert recovery.deadline == pytest.approx(2 * due - 0.005), "any other packet is what RFC 9002, 6.2.1 says it is"
    assert recovery.on_timeout(recovery.deadline) == []
    recovery.probe()
    assert recovery.probes == 2, "it is one of those of a timeout, if these are not sent yet"

    alone = path()
    alone.probe()
    alone.on_sent(packet(0, 5.0))
    assert alone.deadline == pytest.approx(5.0 + alone.pto), "of what was sent alone somebody has to take care"
    alone.probe()
    assert acknowledge(alone, [0], 5.1) == ([0], [])
    assert alone.probes == 0, "an answer came: nothing has to be asked any more"
    alone.on_sent(packet(1, 6.0))
    alone.on_sent(packet(2, 6.01))
    assert alone.deadline == pytest.approx(6.01 + alone.pto)


def unanswered(recovery: Recovery, number: int, timeouts: int) -> tuple[int, list[int]]:
    """Let so many timeouts pass and send two probes at each; the next number, and what was declared lost."""
    lost = []
    for _ in range(timeouts):
        now = recovery.deadline
        lost += [packet.number for packet in recovery.on_timeout(now)]
        for _ in range(recovery.probes):
            recovery.on_sent(packet(number, now))
            number += 1
    return number, lost


def test_probes_that_nobody_answers() -> None:
    """R-5: of 32 of them nothing is forgotten, of more as many of the oldest packets as there are too many."""
    recovery = path([0.0] * 10)
    number, lost = unanswered(recovery, 10, UNANSWERED_PROBES // 2)
    assert (number, lost) == (10 + UNANSWERED_PROBES, [])
    flight = recovery.bytes_in_flight
    number, lost = unanswered(recovery, number, 1)
    assert lost == [], "32 are not too many"
    number, lost = unanswered(recovery, number, 500)
    assert lost == list(range(1000))
    assert number == 10 + UNANSWERED_PROBES + 2 + 1000
    assert recovery.bytes_in_flight == flight + 2 * DATAGRAM
    assert recovery.packets_lost == 1000
    assert len(recovery._sent) <= 2 * (number - 1000)
    acked, more = acknowledge(recovery, [number - 2, number - 1], recovery.deadline)
    assert acked == [number - 2, number - 1]
    assert more == list(range(1000, number - 2)), "what is left is settled as ever"
    assert recovery.bytes_in_flight == 0


def test_an_answer_makes_a_new_beginning() -> None:
    """R-5: what counts is how many probes went without any answer between them."""
    recovery = path([0.0])
    number = 1
    for _ in range(20):
        first = number - 1
        number, lost = unanswered(recovery, number, 1 + UNANSWERED_PROBES // 2)
        assert lost == []
        acked, lost = acknowledge(recovery, range(first, number), recovery.deadline - 0.001)
        assert (acked, lost) == (list(range(first, number)), [])
        recovery.on_sent(packet(number, recovery.delivered_time + 1.0))
        number += 1


def test_what_is_discarded_is_not_waited_for() -> None:
    """R-5: nor does it count among the probes that nobody answered."""
    recovery = path([0.0])
    number, _ = unanswered(recovery, 1, 16)
    recovery.probe()
    recovery.discard_all()
    assert recovery.probes == 0
    recovery.on_sent(packet(number, 1000.0))
    recovery.on_sent(packet(number + 1, 1000.5))
    assert recovery.deadline == pytest.approx(1000.5 + recovery.pto), "these two are ordinary packets again"
    _, lost = unanswered(recovery, number + 2, 1 + UNANSWERED_PROBES // 2)
    assert lost == []
