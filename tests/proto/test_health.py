"""Whether a session is well: thresholds with hysteresis, and nothing else (MISSION J)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_proto.errors import ArgumentError
from stt_proto.health import Health, HealthChanged, HealthPolicy, HealthReading


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_rtt", 0),
        ("max_rtt", True),
        ("max_loss", 1.1),
        ("max_loss", float("nan")),
        ("max_silence", "long"),
        ("recovery", 0),
        ("after", 0),
        ("after", 1.5),
        ("interval", float("inf")),
    ],
)
def test_a_policy_out_of_range(name: str, value: object) -> None:
    with pytest.raises(ArgumentError) as caught:
        HealthPolicy(**{name: value})  # type: ignore[arg-type]
    assert caught.value.argument == name


class Watched:
    """A session that is as the test says."""

    def __init__(self, **policy: float) -> None:
        self.health = Health(HealthPolicy(**policy))  # type: ignore[arg-type]
        self.now = 0.0
        self.sent = self.lost = 0

    def look(
        self, rtt: float | None = 0.1, silence: float = 0.0, sent: int = 100, lost: int = 0
    ) -> HealthChanged | None:
        self.now += 100.0
        self.sent += sent
        self.lost += lost
        last_heard = self.now - silence
        return self.health.look(now=self.now, last_heard=last_heard, rtt=rtt, sent=self.sent, lost=self.lost)


def test_each_of_the_three_makes_it_unwell_and_well_again() -> None:
    for name, bad, good in (
        ("rtt", {"rtt": 1.1}, {"rtt": 0.7}),
        ("loss", {"lost": 11}, {"lost": 7}),
        ("silence", {"silence": 21.0}, {"silence": 15.0}),
    ):
        one = Watched()
        assert one.look(**bad) is None  # type: ignore[arg-type]
        change = one.look(**bad)  # type: ignore[arg-type]
        assert change is not None
        assert (change.healthy, change.problems) == (False, {name})
        assert (one.health.healthy, one.health.problems) == (False, {name})
        assert one.look(**good) is None  # type: ignore[arg-type]
        change = one.look(**good)  # type: ignore[arg-type]
        assert change is not None
        assert (change.healthy, change.problems, one.health.problems) == (True, {name}, frozenset())


def test_what_hovers_about_the_bound_makes_one_alarm() -> None:
    one = Watched(after=1)
    changes = [one.look(rtt=1.0 + (0.05 if number % 2 else -0.05)) for number in range(100)]
    assert [change for change in changes if change is not None] == [
        HealthChanged(False, frozenset({"rtt"}), HealthReading(rtt=1.05, loss=0.0, silence=0.0))
    ]


def test_one_bad_reading_is_none() -> None:
    one = Watched(after=3)
    for _ in range(10):
        assert one.look(rtt=2.0) is one.look(rtt=2.0) is one.look() is None
    assert one.health.healthy


def test_few_packets_say_nothing_of_the_loss() -> None:
    """Nor does their silence heal: it takes packets that arrive. They add up until they are enough."""
    one = Watched(after=1)
    assert one.look(sent=9, lost=9) is None
    change = one.look(sent=1, lost=1)
    assert change is not None
    assert change.reading.loss == 1.0
    assert one.look(sent=5) is None
    assert one.health.problems == {"loss"}
    assert one.look(sent=5, rtt=2.0) is None
    assert one.health.problems == {"rtt"}
    assert one.look(sent=0, rtt=None) is not None


def test_few_packets_at_a_time_hide_no_loss() -> None:
    """A reading that cannot tell of the loss speaks neither for nor against: all is lost, and that is found out."""
    one = Watched()
    changes = [one.look(sent=6, lost=6) for _ in range(10)]
    assert [change is not None for change in changes] == [False] * 3 + [True] + [False] * 6
    assert one.health.problems == {"loss"}
    changes = [one.look(sent=6) for _ in range(10)]
    assert [change is not None for change in changes] == [False] * 3 + [True] + [False] * 6
    one = Watched(after=3)
    assert one.look(lost=50) is one.look(sent=1, rtt=5.0) is None
    assert one.look(rtt=0.1) is one.look(lost=50) is one.look(lost=50) is None  # a good one in between
    assert one.health.healthy
    change = one.look(sent=1, rtt=5.0)
    assert change is not None
    assert change.problems == one.health.problems == {"loss", "rtt"}


def test_problems_are_those_of_now() -> None:
    one = Watched(after=1)
    one.look(rtt=5.0, lost=50)
    assert one.health.problems == {"rtt", "loss"}
    one.look(rtt=5.0, sent=2)
    assert one.health.problems == {"rtt", "loss"}
    one.look(silence=100.0)
    assert one.health.problems == {"silence"}


@given(st.integers(1, 4), st.lists(st.floats(0, 3), max_size=40))
def test_whatever_comes_it_changes_after_so_many_in_a_row(after: int, rtts: list[float]) -> None:
    """A plain model: the run of readings that speak against how it stands."""
    one, healthy, run = Watched(after=after), True, 0
    for rtt in rtts:
        against = rtt > 1.0 if healthy else rtt <= 0.8
        run = run + 1 if against else 0
        change = one.look(rtt=rtt)
        if run == after:
            healthy, run = not healthy, 0
            assert change is not None
            assert change.healthy is healthy
        else:
            assert change is None
        assert one.health.healthy is healthy
        assert bool(one.health.problems) is not healthy
