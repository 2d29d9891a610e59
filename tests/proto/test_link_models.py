"""Links of the simulator: each fault really happens, as often as it should, and to nothing else; G-1."""

from __future__ import annotations

import random
from collections import Counter
from itertools import groupby
from math import inf, nan
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from stt_proto.errors import ArgumentError
from stt_proto.testing import PRESETS, Arrival, Conditions, GilbertElliott, Link, LinkTrace, Traffic
from tests.proto.worlds import filler

DATAGRAM = filler(100)


def link(**conditions: Any) -> Link:
    return Link(Conditions(**conditions), random.Random(1))


def many(line: Link, count: int = 2000, gap: float = 0.001, size: int = 100, ecn: int = 0) -> list[Arrival]:
    """What arrives of many datagrams, each sent a little later than the one before."""
    arrivals = []
    for number in range(count):
        arrivals += line.carry(filler(size, number), number * gap, ecn)
    return arrivals


def when(line: Link, now: float, size: int = 100) -> float | None:
    """When one datagram arrives, if it does."""
    arrivals = line.carry(bytes(size), now)
    return arrivals[0].at if arrivals else None


# -- one by one ----------------------------------------------------------------------------------------------------


def test_a_link_without_faults() -> None:
    line = link(delay=0.05)
    arrivals = many(line)
    assert [at for at, _, _ in arrivals] == [pytest.approx(0.05 + number / 1000) for number in range(2000)]
    assert [data for _, data, _ in arrivals] == [filler(100, number) for number in range(2000)]
    assert line.traffic == Traffic(sent=2000, bytes=200_000, delivered=2000)
    assert line.fate == ""


@pytest.mark.parametrize(
    ("fault", "counter"),
    [
        ("loss", "lost"),
        ("duplicate", "duplicated"),
        ("reorder", "reordered"),
        ("corrupt", "corrupted"),
        ("truncate", "truncated"),
    ],
)
def test_faults_happen_as_often_as_they_should(fault: str, counter: str) -> None:
    line = link(**{fault: 0.2})
    arrivals = many(line)
    assert 340 <= getattr(line.traffic, counter) <= 460
    assert line.traffic.delivered == len(arrivals)
    sound = link()
    assert arrivals != many(sound)
    none = link(**{fault: 0.0})
    many(none)
    assert getattr(none.traffic, counter) == 0


@pytest.mark.parametrize("fault", ["loss", "duplicate", "reorder", "corrupt", "truncate"])
def test_fates_say_what_happened(fault: str) -> None:
    line = link(**{fault: 1.0})
    line.carry(DATAGRAM, 0.0)
    name = {"loss": "lost", "reorder": "reordered"}.get(fault, f"{fault.removesuffix('e')}ed")
    assert line.fate == name
    assert getattr(line.traffic, name) == 1
    line.conditions = Conditions()
    line.carry(DATAGRAM, 0.0)
    assert line.fate == ""


def test_several_faults_at_once() -> None:
    line = link(corrupt=1.0, truncate=1.0, duplicate=1.0, reorder=1.0)
    line.carry(DATAGRAM, 0.0)
    assert line.fate == "reordered, corrupted, truncated, duplicated"


def test_loss() -> None:
    line = link(loss=0.2)
    assert len(many(line)) == 2000 - line.traffic.lost


def test_duplicates_are_whole_and_later() -> None:
    line = link(duplicate=0.2)
    copies = Counter(data for _, data, _ in many(line))
    assert sorted(copies.values()).count(2) == line.traffic.duplicated
    first, second = link(duplicate=1.0, corrupt=1.0).carry(DATAGRAM, 0.0)
    assert second.data == DATAGRAM
    assert first.data != DATAGRAM
    assert second.at >= first.at


def test_reordering() -> None:
    """Held back, so that those behind overtake; nothing is lost."""
    arrivals = many(link(reorder=0.2, reorder_delay=0.01))
    order = [data for _, data, _ in sorted(arrivals, key=lambda arrival: arrival.at)]
    sent = [filler(100, number) for number in range(2000)]
    assert order != sent
    assert sorted(order) == sorted(sent)


def test_jitter_keeps_the_order() -> None:
    times = [at for at, _, _ in many(link(jitter=0.05))]
    assert times == sorted(times)
    assert max(at - number / 1000 for number, at in enumerate(times)) > 0.04
    assert min(at - number / 1000 for number, at in enumerate(times)) < 0.03


def test_corruption_is_one_bit() -> None:
    for at, (_, data, _) in enumerate(many(link(corrupt=1.0), 100)):
        flipped = int.from_bytes(data) ^ int.from_bytes(filler(100, at))
        assert flipped.bit_count() == 1


def test_truncation_keeps_the_front() -> None:
    for at, (_, data, _) in enumerate(many(link(truncate=1.0), 100)):
        assert len(data) < 100
        assert filler(100, at).startswith(data)


def test_nothing_can_be_damaged_in_nothing() -> None:
    assert link(corrupt=1.0, truncate=1.0).carry(b"", 0.0) == [(0.01, b"", 0)]


def test_a_black_hole_for_large_datagrams() -> None:
    line = link(mtu=100)
    assert line.carry(filler(101), 0.0) == []
    assert line.fate == "too_large"
    assert len(line.carry(filler(100), 0.0)) == 1
    assert line.traffic.too_large == 1


# -- bursts --------------------------------------------------------------------------------------------------------


def runs(line: Link, count: int = 40_000) -> dict[bool, list[int]]:
    """The lengths of the runs of datagrams that arrived, and of those that did not."""
    fates = [bool(line.carry(DATAGRAM, 0.0)) for _ in range(count)]
    lengths: dict[bool, list[int]] = {True: [], False: []}
    for arrived, run in groupby(fates):
        lengths[arrived].append(len(list(run)))
    return lengths


def test_bursts_are_as_long_and_as_far_apart_as_told() -> None:
    """E. N. Gilbert: the runs of both states are geometric, so their lengths have the means 1/p and 1/r."""
    line = link(burst=GilbertElliott(good=50, bad=4))
    lengths = runs(line)
    assert sum(lengths[True]) / len(lengths[True]) == pytest.approx(50, rel=0.15)
    assert sum(lengths[False]) / len(lengths[False]) == pytest.approx(4, rel=0.15)
    assert min(lengths[False]) == 1
    assert max(lengths[False]) > 12
    assert line.traffic.burst == sum(lengths[False])
    assert line.traffic.lost == 0


def test_a_burst_may_last_one_datagram_each() -> None:
    assert set(runs(link(burst=GilbertElliott(good=20, bad=1)), 2000)[False]) == {1}


def test_loss_within_and_between_bursts() -> None:
    """E. O. Elliott: both states may lose some and keep some."""
    model = GilbertElliott(good=100, bad=100, loss_good=0.1, loss_bad=0.5)
    line = link(burst=model)
    many(line, 20_000, gap=0.0)
    assert model.mean_loss == pytest.approx(0.3)
    assert line.traffic.burst == pytest.approx(6000, rel=0.1)


def test_bursts_go_on_when_something_else_changes() -> None:
    """The state of the model belongs to the link; another model begins in its good state."""
    line = link(burst=GilbertElliott(good=1, bad=1e9))
    assert many(line, 10, gap=0.0) == many(link(), 1)
    line.conditions = evolve(line.conditions, delay=0.5)
    assert many(line, 10) == []
    line.conditions = evolve(line.conditions, burst=GilbertElliott(good=1e9, bad=1))
    assert len(many(line, 10)) == 10
    line.conditions = Conditions()
    assert len(many(line, 10)) == 10


def test_mean_loss() -> None:
    assert GilbertElliott(good=99, bad=1).mean_loss == pytest.approx(0.01)
    assert GilbertElliott(good=1, bad=1, loss_bad=0.0).mean_loss == 0.0


@pytest.mark.parametrize(
    ("name", "loss"),
    [("wifi", 0.01), ("wifi_lossy", 0.05), ("cellular", 0.02), ("satellite", 0.03), ("congested", 0.1)],
)
def test_presets_lose_what_they_say(name: str, loss: float) -> None:
    conditions = PRESETS[name]
    assert conditions.burst is not None
    assert conditions.burst.mean_loss == pytest.approx(loss, rel=0.1)
    line = Link(conditions, random.Random(1))
    many(line, 20_000, gap=0.001)
    assert line.traffic.burst == pytest.approx(20_000 * loss, rel=0.35)
    assert line.traffic.overflowed == 0


def test_presets_are_links_that_could_be() -> None:
    """Queues of 25 packets and more, at least 30 ms long; the interop runner's link loses nothing by itself."""
    assert PRESETS["broadband"] == Conditions(delay=0.015, rate=10e6, queue=25 * 1500)
    for conditions in PRESETS.values():
        assert conditions.rate is not None
        assert conditions.queue >= 25 * 1500
        assert 0.03 <= conditions.queue * 8 / conditions.rate <= 1.0


# -- the queue -----------------------------------------------------------------------------------------------------


def test_rate_and_queue() -> None:
    """100 bytes at 80,000 bits a second take 10 ms each; what does not fit into the queue is dropped."""
    line = link(delay=0.0, rate=80_000, queue=1000)
    arrivals = many(line, 50, gap=0.0)
    assert [at for at, _, _ in arrivals] == [pytest.approx(0.01 * (number + 1)) for number in range(10)]
    assert line.traffic.overflowed == 40
    assert line.fate == "overflowed"
    assert when(line, 5.0) == pytest.approx(5.01)
    assert len(many(link(rate=None), 50, gap=0.0)) == 50


def test_a_queue_keeps_its_place_when_the_rate_changes() -> None:
    line = link(delay=0.0, rate=8000)
    assert when(line, 0.0) == pytest.approx(0.1)
    line.conditions = Conditions(delay=0.0, rate=80_000)
    assert when(line, 0.0) == pytest.approx(0.11)
    line.conditions = Conditions(delay=0.0, rate=80_000, queue=5000)
    assert when(line, 0.0) == pytest.approx(0.12)
    line.conditions = Conditions(delay=0.0)
    assert when(line, 0.0) == pytest.approx(0.12), "nothing overtakes"
    line.conditions = Conditions(delay=0.0, rate=80_000)
    assert when(line, 1.0) == pytest.approx(1.01)


def test_a_queue_stays_full_when_something_else_changes() -> None:
    line = link(rate=8000, queue=250)
    assert len(many(line, 3, gap=0.0)) == 2
    line.conditions = evolve(line.conditions, delay=0.5)
    assert many(line, 1) == []
    assert line.fate == "overflowed"


@pytest.mark.parametrize(("ecn", "marked"), [(0, 0), (1, 3), (2, 3), (3, 3)])
def test_a_full_queue_marks(ecn: int, marked: int) -> None:
    """RFC 3168: from the threshold on, datagrams that know ECN are marked instead of dropped; others are left alone."""
    line = link(delay=0.0, rate=80_000, queue=1000, ecn_threshold=500)
    arrivals = many(line, 10, gap=0.0, ecn=ecn)
    assert [arrival.ecn for arrival in arrivals] == [ecn] * 5 + [marked] * 5
    assert line.traffic.marked == (5 if ecn else 0)
    assert line.fate == ("marked" if ecn else "")
    assert many(line, 1, gap=0.0, ecn=ecn) == []
    assert line.traffic.overflowed == 1


def test_copies_keep_their_mark() -> None:
    line = link(rate=80_000, ecn_threshold=0, duplicate=1.0)
    assert [arrival.ecn for arrival in line.carry(DATAGRAM, 0.0, 2)] == [3, 3]
    assert line.fate == "marked, duplicated"


# -- recordings ----------------------------------------------------------------------------------------------------


def test_a_recording_is_a_line_for_each_opportunity() -> None:
    trace = LinkTrace.parse("1\n1\n  5 \n10\n")
    assert trace.times == (0.001, 0.001, 0.005, 0.010)
    assert trace.period == 0.010
    assert trace.rate == pytest.approx(4 * 1500 * 8 / 0.010)
    assert [trace.time_of(number) for number in (0, 3, 4, 7, 9)] == pytest.approx([0.001, 0.01, 0.011, 0.02, 0.021])
    assert [trace.first_after(now) for now in (0.0, 0.001, 0.0099, 0.010, 0.011, 0.0301)] == [0, 2, 3, 4, 6, 12]
    assert repr(trace) == f"LinkTrace({trace.times})"
    assert repr(LinkTrace(number / 100 for number in range(1001))) == "<LinkTrace of 1001 opportunities in 10 s>"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "empty"),
        ("0\n0", "must last"),
        ("1\n\n2", "line 2 is ''"),
        ("1\n2.5", "line 2 is '2.5'"),
        ("1\n-3", "line 2"),
        ("1\n\u0663", "line 2"),
        ("5\n4", "line 2 is '4'; it lies before"),
    ],
)
def test_a_recording_that_is_none(text: str, complaint: str) -> None:
    with pytest.raises(ArgumentError, match=complaint):
        LinkTrace.parse(text)


@pytest.mark.parametrize(
    "times",
    [
        (),
        (0.0,),
        (2.0, 1.0),
        (-1.0, 1.0),
        (1.0, inf),
        (1.0, nan),
        (nan, 0.01),
        (0.1, nan, 1.0),
        (True, 2.0),
        ("1", "2"),
        (10**400,),
        None,
        1.0,
    ],
)
def test_times_that_are_no_recording(times: Any) -> None:
    with pytest.raises(ArgumentError) as raised:
        LinkTrace(times)
    assert raised.value.argument == "times"


@pytest.mark.parametrize("text", [None, b"1", ["1"]])
def test_only_text_can_be_read_as_a_recording(text: Any) -> None:
    with pytest.raises(ArgumentError) as raised:
        LinkTrace.parse(text)
    assert raised.value.argument == "text"


def test_opportunities_carry_bytes() -> None:
    """mm-link: 1,500 bytes each, of a part of a datagram or of several; what finds nothing to carry is wasted."""
    line = link(delay=0.0, trace=LinkTrace.parse("10\n20\n30\n100"))
    assert when(line, 0.0, 700) == 0.010
    assert when(line, 0.0, 800) == 0.010, "both fit into one"
    assert when(line, 0.0, 1600) == 0.030, "it needs two, and leaves room in the second"
    assert when(line, 0.0, 1400) == 0.030
    assert when(line, 0.0, 1) == 0.100
    assert when(line, 0.100, 1) == pytest.approx(0.110), "over again; the rest of the one at 100 is wasted"
    assert when(line, 1.015, 0) == pytest.approx(1.020)


def test_a_recording_has_a_queue() -> None:
    trace = LinkTrace.parse("10\n20\n1000")
    line = link(delay=0.0, trace=trace, queue=3000, ecn_threshold=1500)
    assert [arrival.at for arrival in many(line, 3, gap=0.0, size=1500, ecn=2)] == [0.010, 0.020]
    assert (line.traffic.overflowed, line.traffic.marked) == (1, 1)
    assert when(line, 0.015, 1500) == 1.000, "one has left"
    line.conditions = Conditions(delay=0.0, trace=trace, mtu=1500)
    assert when(line, 0.5, 1500) == pytest.approx(1.010), "nobody overtakes"
    line.conditions = Conditions(delay=0.0, trace=LinkTrace.parse("1500"))
    assert when(line, 0.5, 1500) == pytest.approx(1.5)
    line.conditions = Conditions(delay=0.0, rate=1e9)
    assert when(line, 0.5, 1500) == pytest.approx(1.5, abs=0.001)


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=20).map(sorted).filter(lambda times: times[-1] > 0),
    st.lists(st.tuples(st.floats(0, 0.1), st.integers(1, 4000)), max_size=30),
)
def test_a_recording_never_carries_more_than_it_did(times: list[int], sendings: list[tuple[float, int]]) -> None:
    """Up to any moment no more bytes arrive than there were opportunities for; in order, and each after it was sent."""
    trace = LinkTrace.parse("\n".join(map(str, times)))
    line = link(delay=0.0, trace=trace)
    now, carried, last = 0.0, 0, 0.0
    for gap, size in sendings:
        now += gap
        arrives = when(line, now, size)
        assert arrives is not None
        assert arrives >= max(now, last)
        last = arrives
        carried += size
        assert carried <= 1500 * trace.first_after(arrives + 1e-9)


# -- up and down ---------------------------------------------------------------------------------------------------


def test_a_link_that_is_down() -> None:
    line = link()
    line.up = False
    assert many(line, 10) == []
    line.up = True
    assert len(many(line, 10)) == 10
    assert line.traffic.lost == 10


def test_outages_are_windows() -> None:
    """What is handed in meanwhile is lost; what was under way arrives."""
    line = link(delay=0.5)
    line.outage(5.0, 1.0)
    line.outage(1.0, 2.0)
    line.outage(2.5, 1.0)
    assert [now for now in range(8) if when(line, now) is not None] == [0, 4, 6, 7]
    assert line.traffic == Traffic(sent=8, bytes=800, delivered=4, cut=4)
    line.outage(10.0)
    assert when(line, 9.9) == pytest.approx(10.4)
    assert when(line, 1e6) is None
    assert line.fate == "cut"


def test_conditions_may_change_at_any_time() -> None:
    line = link(delay=0.5)
    line.carry(DATAGRAM, 0.0)
    line.conditions = Conditions(delay=0.0)
    assert line.conditions == Conditions(delay=0.0)
    assert when(line, 0.1) == 0.5, "what was sent earlier is not overtaken"
    assert when(line, 0.6) == 0.6


@pytest.mark.parametrize("new", [None, {}, 0, ""])
def test_conditions_that_are_none_change_nothing(new: Any) -> None:
    line = link(delay=0.5)
    with pytest.raises(ArgumentError) as raised:
        line.conditions = new
    assert raised.value.argument == "conditions"
    assert line.conditions == Conditions(delay=0.5)
    assert when(line, 0.0) == 0.5
    with pytest.raises(ArgumentError, match="^conditions is "):
        Link(new, random.Random(1))


@pytest.mark.parametrize("rng", [None, 1, random])
def test_a_link_needs_randomness(rng: Any) -> None:
    with pytest.raises(ArgumentError, match="^rng is "):
        Link(Conditions(), rng)


@pytest.mark.parametrize(
    ("start", "seconds", "argument"),
    [(nan, 1.0, "start"), (inf, 1.0, "start"), ("0", 1.0, "start"), (0.0, nan, "seconds"), (0.0, -1.0, "seconds")],
)
def test_outages_that_cannot_be(start: Any, seconds: Any, argument: str) -> None:
    line = link()
    with pytest.raises(ArgumentError) as raised:
        line.outage(start, seconds)
    assert raised.value.argument == argument
    assert when(line, 0.5) is not None


def test_a_link_prints_briefly() -> None:
    line = link(loss=1.0)
    line.carry(DATAGRAM, 0.0)
    assert repr(line) == "<Link with Conditions(loss=1.0), 0 of 1 delivered>"


@given(st.integers(), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_the_same_seed_gives_the_same_link(seed: int, loss: float, reorder: float, corrupt: float) -> None:
    burst = GilbertElliott(good=5, bad=2, loss_good=0.1, loss_bad=0.9)
    conditions = Conditions(
        loss=loss, reorder=reorder, corrupt=corrupt, jitter=0.01, duplicate=0.1, truncate=0.1, burst=burst
    )
    one, other = (Link(conditions, random.Random(seed)) for _ in range(2))
    assert many(one, 30) == many(other, 30)


def test_traffic_adds_up() -> None:
    total = Traffic(sent=1, lost=2)
    total.add(Traffic(sent=3, cut=4))
    assert total == Traffic(sent=4, lost=2, cut=4)


# -- values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("delay", -0.1),
        ("delay", inf),
        ("jitter", "1"),
        ("rate", 0),
        ("queue", -1),
        ("ecn_threshold", -1),
        ("loss", 1.1),
        ("loss", nan),
        ("duplicate", -0.5),
        ("mtu", None),
        ("loss", True),
        ("delay", False),
        ("rate", True),
        ("rate", nan),
        ("rate", 10**400),
        ("queue", 1.5),
        ("queue", True),
        ("ecn_threshold", 1500.5),
        ("ecn_threshold", "1"),
        ("mtu", 1200.7),
        ("mtu", 1200.0),
        ("burst", 0.1),
        ("burst", {}),
        ("trace", "1\n2"),
        ("trace", 0),
    ],
)
def test_conditions_that_cannot_be(field: str, bad: Any) -> None:
    with pytest.raises(ArgumentError, match=f"^{field} is ") as raised:
        Conditions(**{field: bad})
    assert raised.value.argument == field


def test_bursts_that_cannot_be() -> None:
    with pytest.raises(ArgumentError, match="^bad is 0.5; it must be a number of datagrams"):
        GilbertElliott(good=10, bad=0.5)
    with pytest.raises(ArgumentError, match="^good is True"):
        GilbertElliott(good=True, bad=1)


@pytest.mark.parametrize(
    "conditions",
    [
        Conditions(),
        Conditions(delay=0.5, loss=0.1),
        Conditions(trace=LinkTrace((0.001, 1 / 3))),
        Conditions(trace=LinkTrace(number / 7 for number in range(1000))),
        *PRESETS.values(),
    ],
)
def test_conditions_print_as_what_makes_them(conditions: Conditions) -> None:
    names = {"Conditions": Conditions, "GilbertElliott": GilbertElliott, "LinkTrace": LinkTrace}
    assert eval(repr(conditions), names) == conditions
    assert "duplicate" not in repr(conditions)
