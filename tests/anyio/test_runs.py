"""Runs: what a pump takes from the core leaves by few calls, whole, and in order for each path."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stt_anyio.runs import MAX_RUN, MAX_SEGMENTS, MAX_SIZE, Runs
from stt_proto import NetworkPath, Transmit

PATHS = [NetworkPath("udp", "here", number) for number in range(3)]


def single(size: int, path: NetworkPath = PATHS[0], ecn: int = 0, fill: int = 0) -> Transmit:
    """A packet of one datagram, in two buffers as the core makes them."""
    return Transmit(path, (bytes([fill]) * (size // 2), bytes([fill]) * (size - size // 2)), None, ecn)


def joined(*transmits: Transmit) -> list[Transmit]:
    runs = Runs()
    for transmit in transmits:
        runs.put(transmit)
    runs.finish()
    found = []
    while (run := runs.take()) is not None:
        found.append(run)
    assert not runs
    return found


def shapes(*transmits: Transmit) -> list[tuple[int, int | None]]:
    return [(run.size, run.segment_size) for run in joined(*transmits)]


def test_datagrams_of_one_size_leave_together() -> None:
    assert shapes(*[single(1452)] * 10) == [(14_520, 1452)]


def test_one_alone_is_itself() -> None:
    transmit = single(1200)
    assert joined(transmit) == [transmit]


def test_a_smaller_one_is_the_last_of_its_run() -> None:
    """As `UDP_SEGMENT` has it: all but the last are equal."""
    assert shapes(single(1200), single(1200), single(60), single(1200)) == [(2460, 1200), (1200, None)]


def test_a_larger_one_begins_a_run() -> None:
    assert shapes(single(60), single(1200), single(1200)) == [(60, None), (2400, 1200)]


def test_the_bounds_of_a_call() -> None:
    """64 datagrams, and 65,507 bytes."""
    assert shapes(*[single(60)] * (MAX_SEGMENTS + 1)) == [(60 * MAX_SEGMENTS, 60), (60, None)]
    assert shapes(*[single(1452)] * 46) == [(45 * 1452, 1452), (1452, None)]
    assert shapes(single(MAX_SIZE), single(MAX_SIZE)) == [(MAX_RUN - 1, MAX_SIZE)]
    assert shapes(single(MAX_SIZE + 1), single(MAX_SIZE + 1)) == [(MAX_SIZE + 1, None)] * 2


def test_trains_stay_as_they_are() -> None:
    train = Transmit(PATHS[0], (b"a" * 1200, b"b" * 7), 1200)
    assert shapes(single(1200), train, single(1200)) == [(1200, None), (1207, 1200), (1200, None)]
    assert shapes(train, train) == [(1207, 1200)] * 2


def test_marks_are_not_mixed() -> None:
    assert [(run.size, run.ecn) for run in joined(single(100), single(100, ecn=2), single(100, ecn=2))] == [
        (100, 0),
        (200, 2),
    ]


def test_paths_take_turns_and_are_not_mixed() -> None:
    """Sessions take turns in the core, so what is for one path comes with others in between."""
    found = joined(*[single(1200, path) for _ in range(5) for path in PATHS])
    assert [(run.path, run.size) for run in found] == [(path, 6000) for path in PATHS]


def test_a_path_that_is_gone() -> None:
    runs = Runs()
    runs.put(single(1200, PATHS[0]))
    runs.put(single(1200, PATHS[1]))
    runs.put(single(60, PATHS[1]))
    runs.put(single(60, PATHS[2]))
    runs.forget(PATHS[0])
    runs.forget(PATHS[1])
    runs.forget(PATHS[1])
    runs.finish()
    run = runs.take()
    assert run is not None
    assert run.path is PATHS[2]
    assert runs.take() is None


sizes = st.sampled_from([43, 43, 60, 1200, 1200, 1200, 1452, 9000, 40_000])


@given(st.lists(st.tuples(sizes, st.integers(0, 2), st.sampled_from([0, 2]), st.booleans()), max_size=150))
def test_nothing_is_lost_or_overtaken(plan: list[tuple[int, int, int, bool]]) -> None:
    """Whatever comes: the datagrams of a path are the same, in the same order, and each run fits into a call."""
    put = []
    for number, (size, path, ecn, train) in enumerate(plan):
        transmit = single(size, PATHS[path], ecn, number % 256)
        put.append(Transmit(transmit.path, transmit.buffers, -(-size // 2), ecn) if train else transmit)
    found = joined(*put)
    for path in PATHS:
        expected = [(each, one.ecn) for one in put if one.path is path for each in one.datagrams()]
        assert [(each, run.ecn) for run in found if run.path is path for each in run.datagrams()] == expected
    for run in found:
        cut = list(run.datagrams())
        assert len(cut) <= MAX_SEGMENTS
        assert run.size <= MAX_RUN
        if run.segment_size is not None:
            assert {len(each) for each in cut[:-1]} <= {run.segment_size}
            assert len(cut[-1]) <= run.segment_size


def test_nothing_to_take() -> None:
    runs = Runs()
    runs.finish()
    assert runs.take() is None
    runs.put(single(100))
    assert runs
