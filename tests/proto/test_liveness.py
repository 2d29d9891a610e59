"""Signs of life: when to ask for one, and when to give the peer up (docs/protocol.md, K-4, K-5, R-10)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_proto.session.liveness import GRACE, LATE, Liveness, Silence

TIMEOUT = 30.0


def told(found: list[tuple[float, Silence]]) -> list[tuple[float, Silence]]:
    """What the host is told of: not that the peer was asked again meanwhile."""
    return [(at, silence) for at, silence in found if silence is not Silence.AGAIN]


def run(liveness: Liveness, until: float, answer_at: frozenset[float] = frozenset()) -> list[tuple[float, Silence]]:
    """Tick exactly when it asks for that, and tell what each tick found."""
    found = []
    answers = sorted(answer_at)
    while True:
        at, _ = liveness.deadline()
        if answers and answers[0] <= at:
            liveness.last_received = answers.pop(0)
            continue
        if at > until:
            return found
        found.append((at, liveness.tick(at)))
        if found[-1][1] is Silence.DEAD:
            return found


def test_the_initiator_asks_first() -> None:
    """K-4, K-5: after 10 s, which is told again after each further 10 s; dead after 30 s."""
    assert told(run(Liveness(10.0, 30.0, True, 0.0), 100.0)) == [
        (10.0, Silence.ASK),
        (20.0, Silence.MISSED),
        (30.0, Silence.DEAD),
    ]


def test_the_responder_waits_a_fifth_longer() -> None:
    """K-4: so in most sessions only one side asks."""
    assert told(run(Liveness(10.0, 30.0, False, 0.0), 100.0)) == [
        (12.0, Silence.ASK),
        (22.0, Silence.MISSED),
        (30.0, Silence.DEAD),
    ]


def test_an_answer_starts_it_anew() -> None:
    """K-4: silence is counted from the last packet that opened."""
    found = run(Liveness(10.0, 30.0, True, 0.0), 60.0, frozenset({3.0, 13.5, 40.0}))
    assert told(found) == [
        (13.0, Silence.ASK),
        (23.5, Silence.ASK),
        (33.5, Silence.MISSED),
        (50.0, Silence.ASK),
        (60.0, Silence.MISSED),
    ]


@pytest.mark.parametrize("initiator", [True, False])
@pytest.mark.parametrize("began", [0.0, 1.0234, 86_399.7])
def test_a_silent_peer_is_asked_often(initiator: bool, began: float) -> None:
    """K-4: every second. With 30 % lost each way one question in two is answered; 20 in vain are one in a million."""
    found = run(Liveness(10.0, 30.0, initiator, began), began + 100.0)
    asked = [at - began for at, silence in found if silence is not Silence.DEAD]
    assert len(asked) == (20 if initiator else 18)
    assert asked == pytest.approx([(10.0 if initiator else 12.0) + second for second in range(len(asked))])
    assert (1 - 0.7 * 0.7) ** 20 < 2e-6  # and the probes of recovery come on top
    assert [silence for _, silence in found].count(Silence.MISSED) == 1


@pytest.mark.parametrize(
    ("interval", "timeout", "pauses"), [(0.05, 0.11, 0.05), (1.0, 3.0, 1.0), (3.0, 9.0, 1.0), (60.0, 180.0, 6.0)]
)
def test_how_often_depends_on_the_interval(interval: float, timeout: float, pauses: float) -> None:
    """K-4: ten times in an interval, but not within a second, nor less often than once in an interval."""
    found = run(Liveness(interval, timeout, True, 0.0), 1000.0)
    asked = [at for at, silence in found if silence is not Silence.DEAD]
    assert asked == pytest.approx([interval + number * pauses for number in range(len(asked))])
    assert 0.0 < timeout - asked[-1] <= pauses + 1e-9
    missed = [at for at, silence in found if silence is Silence.MISSED]
    assert missed == pytest.approx([interval * number for number in range(2, 2 + len(missed))])


def test_an_answer_in_the_same_moment() -> None:
    """K-4: where a datagram takes no time, the answer has the time of the question; it is one all the same."""
    liveness = Liveness(10.0, 30.0, True, 0.0)
    assert liveness.tick(10.0) is Silence.ASK
    liveness.last_received = 10.0
    assert liveness.deadline() == (20.0, "keep_alive")
    assert liveness.tick(11.0) is Silence.NONE
    assert liveness.tick(20.0) is Silence.ASK


def test_the_deadline_has_a_name() -> None:
    liveness = Liveness(10.0, 25.0, True, 0.0)
    assert liveness.deadline() == (10.0, "keep_alive")
    for second in range(10, 25):
        liveness.tick(float(second))
    assert liveness.deadline() == (25.0, "idle")


def test_too_early_is_nothing() -> None:
    """Waking early is harmless, and a second tick at one moment changes nothing."""
    liveness = Liveness(10.0, 30.0, True, 0.0)
    assert liveness.tick(9.999) is Silence.NONE
    assert liveness.tick(10.0) is Silence.ASK
    assert liveness.tick(10.0) is Silence.NONE
    assert liveness.deadline() == (11.0, "keep_alive")


@pytest.mark.parametrize("late", [30.0 + LATE + 0.01, 35.0, 3600.0])
def test_a_late_tick_declares_nobody_dead(late: float) -> None:
    """R-10: the process slept, not the peer, which gets another 2 s to show itself."""
    liveness = Liveness(10.0, 30.0, True, 0.0)
    assert liveness.tick(late) is Silence.ASK
    assert liveness.tick(late + GRACE / 2) is Silence.AGAIN
    assert liveness.deadline() == (late + GRACE, "idle")
    assert liveness.tick(late + GRACE - 0.01) is Silence.NONE
    assert liveness.tick(late + GRACE) is Silence.DEAD


@pytest.mark.parametrize("woke", [11.5, 29.9, 30.0, 30.5, 30.9])
def test_who_slept_through_the_asking_has_not_asked(woke: float) -> None:
    """R-10: whoever wakes near the end has given the peer no chance yet, however punctual the last tick looks."""
    liveness = Liveness(10.0, 30.0, True, 0.0)
    assert liveness.tick(woke) is Silence.ASK
    dead = max(TIMEOUT, woke + GRACE)
    found = run(liveness, 100.0)
    assert found[-1] == (pytest.approx(dead), Silence.DEAD)
    liveness = Liveness(10.0, 30.0, True, 0.0)
    assert liveness.tick(woke) is Silence.ASK
    assert liveness.tick(dead - 0.01) is not Silence.DEAD


def test_an_answer_in_the_grace_saves_the_session() -> None:
    """R-10."""
    liveness = Liveness(10.0, 30.0, True, 0.0)
    assert liveness.tick(50.0) is Silence.ASK
    liveness.last_received = 50.1
    assert liveness.tick(52.0) is Silence.NONE
    assert liveness.deadline() == (60.1, "keep_alive")


def test_a_slightly_late_tick_is_on_time() -> None:
    """R-10: up to a second, late is only late."""
    liveness = Liveness(10.0, 30.0, True, 0.0)
    assert liveness.tick(10.9) is Silence.ASK
    for second in range(12, 30):
        assert liveness.tick(second + 0.5) in (Silence.AGAIN, Silence.MISSED)
    assert liveness.tick(30.0 + LATE) is Silence.DEAD


@pytest.mark.parametrize("every", [1.0, 1.7, 2.0, 2.5, 5.0, 7.3, 12.0, 29.0, 31.0, 100.0, 1000.0])
@pytest.mark.parametrize("initiator", [True, False])
def test_a_host_that_is_always_late(every: float, initiator: bool) -> None:
    """R-10: one grace in each silence. Each late tick renewed it, so a host that looks now and then gave nobody up."""
    liveness = Liveness(10.0, 30.0, initiator, 0.0)
    now, found = 3.3, Silence.NONE
    while found is not Silence.DEAD:
        now += every
        assert now < 10_000.0
        found = liveness.tick(now)
    assert 30.0 <= now <= 30.0 + GRACE + 2 * every


def test_another_silence_has_its_own_grace() -> None:
    """R-10: a peer that was heard meanwhile gets another chance when this host sleeps again; without, it does not."""
    liveness = Liveness(10.0, 30.0, True, 0.0)
    assert liveness.tick(40.0) is Silence.ASK
    liveness.last_received = 41.0
    assert liveness.tick(90.0) is Silence.ASK
    assert liveness.tick(140.0) is Silence.DEAD


def test_nobody_dies_unasked_however_short_the_timeout() -> None:
    """R-10: with a timeout below a second no tick within it counts as late; one that comes too late to ask does."""
    liveness = Liveness(0.3, 0.75, True, 0.0)
    assert liveness.tick(0.8) is Silence.ASK
    liveness.last_received = 0.82
    assert liveness.tick(0.9) is Silence.NONE


@given(st.lists(st.floats(0.001, 40.0), min_size=1, max_size=30), st.booleans())
def test_nobody_dies_unasked(gaps: list[float], initiator: bool) -> None:
    """K-5, R-10: dead is only who was asked, and has had at least 2 s to answer; and never before its time."""
    liveness = Liveness(10.0, 30.0, initiator, 0.0)
    now, asked_at = 0.0, None
    for gap in gaps:
        now += gap
        found = liveness.tick(now)
        if found is Silence.DEAD:
            assert now >= 30.0
            assert asked_at is not None
            assert now - asked_at >= GRACE
            return
        if found is not Silence.NONE and asked_at is None:
            asked_at = now
