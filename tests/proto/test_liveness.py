"""Signs of life: when to ask for one, and when to give the peer up (docs/protocol.md, K-4, K-5, R-10)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_proto.session.liveness import GRACE, LATE, Liveness, Silence


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
    """K-4, K-5: after 10 s, again after each further 10 s, dead after 30 s."""
    assert run(Liveness(10.0, 30.0, True, 0.0), 100.0) == [
        (10.0, Silence.ASK),
        (20.0, Silence.MISSED),
        (30.0, Silence.DEAD),
    ]


def test_the_responder_waits_a_fifth_longer() -> None:
    """K-4: so in most sessions only one side asks."""
    assert run(Liveness(10.0, 30.0, False, 0.0), 100.0) == [
        (12.0, Silence.ASK),
        (22.0, Silence.MISSED),
        (30.0, Silence.DEAD),
    ]


def test_an_answer_starts_it_anew() -> None:
    """K-4: silence is counted from the last packet that opened."""
    found = run(Liveness(10.0, 30.0, True, 0.0), 60.0, frozenset({3.0, 13.5, 40.0}))
    assert found == [
        (13.0, Silence.ASK),
        (23.5, Silence.ASK),
        (33.5, Silence.MISSED),
        (50.0, Silence.ASK),
        (60.0, Silence.MISSED),
    ]


def test_the_deadline_has_a_name() -> None:
    liveness = Liveness(10.0, 25.0, True, 0.0)
    assert liveness.deadline() == (10.0, "keep_alive")
    liveness.tick(10.0)
    liveness.tick(20.0)
    assert liveness.deadline() == (25.0, "idle")


def test_too_early_is_nothing() -> None:
    """Waking early is harmless, and a second tick at one moment changes nothing."""
    liveness = Liveness(10.0, 30.0, True, 0.0)
    assert liveness.tick(9.999) is Silence.NONE
    assert liveness.tick(10.0) is Silence.ASK
    assert liveness.tick(10.0) is Silence.NONE
    assert liveness.deadline() == (20.0, "keep_alive")


@pytest.mark.parametrize("late", [30.0 + LATE + 0.01, 35.0, 3600.0])
def test_a_late_tick_declares_nobody_dead(late: float) -> None:
    """R-10: the process slept, not the peer, which gets another 2 s to show itself."""
    liveness = Liveness(10.0, 30.0, True, 0.0)
    assert liveness.tick(late) is Silence.ASK
    assert liveness.deadline() == (late + GRACE, "idle")
    assert liveness.tick(late + GRACE - 0.01) is Silence.NONE
    assert liveness.tick(late + GRACE) is Silence.DEAD


@pytest.mark.parametrize("woke", [11.5, 29.9, 30.0, 30.5, 30.9])
def test_who_slept_through_the_asking_has_not_asked(woke: float) -> None:
    """R-10: whoever wakes near the end has given the peer no chance yet, however punctual the last tick looks."""
    liveness = Liveness(10.0, 30.0, True, 0.0)
    assert liveness.tick(woke) is Silence.ASK
    assert liveness.deadline()[0] >= woke + GRACE
    assert liveness.tick(max(30.0, woke + GRACE) - 0.01) is not Silence.DEAD


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
    assert liveness.tick(21.0) is Silence.MISSED
    assert liveness.tick(30.0 + LATE) is Silence.DEAD


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
