"""The search for the largest datagram, and black holes: the engine alone (P-17 to P-20)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, repeat
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_proto.paths.mtu import BASE_SIZE, MAX_PROBES, RAISE_AFTER, STEP, MtuSearch, MtuState
from stt_proto.recovery import SentPacket

LARGEST = 65_507


def packet(size: int, at: float = 0.0, segments: int = 1) -> SentPacket:
    return SentPacket(0, at, size, segments, True, True)


def probe_of(search: MtuSearch, now: float = 0.0) -> SentPacket:
    """Send the probe that is due."""
    assert search.probe_at <= now
    sent = SentPacket(0, now, search.candidate, 1, True, True, (), True)
    search.on_probe()
    assert search.probe_at == inf  # one at a time
    assert search.watching
    return sent


def step(search: MtuSearch, passes: bool, now: float = 0.0) -> None:
    """Send a probe and let it arrive, or not."""
    sent = probe_of(search, now)
    if passes:
        search.on_acked([sent], now)
    else:
        search.on_lost([sent], now)


def run(search: MtuSearch, mtu: int, lost: Iterator[bool] | None = None, now: float = 0.0) -> list[int]:
    """Search to the end on a path that carries `mtu` bytes and loses some of the probes; give the sizes tried."""
    tried = []
    lost = repeat(False) if lost is None else lost
    while search.state is MtuState.SEARCHING:
        tried.append(search.candidate)
        step(search, search.candidate <= mtu and not next(lost), now)
        assert search.size <= mtu
    return tried


def found(mtu: int, ceiling: int = LARGEST) -> MtuSearch:
    search = MtuSearch(BASE_SIZE, ceiling)
    run(search, mtu)
    return search


sizes = st.one_of(st.integers(1200, 1600), st.integers(1200, 65_535))


@given(mtu=sizes, start=sizes, ceiling=sizes, lost=st.lists(st.booleans()))
def test_it_ends_at_the_largest_size_that_passes(mtu: int, start: int, ceiling: int, lost: list[bool]) -> None:
    """P-17, P-18: for any path, though up to two probes of each size get lost by chance."""
    start = min(start, mtu)
    ceiling = max(start, ceiling)
    search = MtuSearch(start, ceiling)
    chance = chain(lost, repeat(False))
    forgiving = (next(chance) if number % MAX_PROBES else False for number in range(1_000_000))
    tried = run(search, mtu, forgiving)
    assert search.state is MtuState.COMPLETE
    assert all(start < size <= ceiling for size in tried)
    best = min(mtu, ceiling)
    assert best - max(STEP, best // 100) <= search.size <= best
    assert len(tried) <= MAX_PROBES * 20


@given(mtu=sizes, lost=st.lists(st.booleans(), max_size=200))
def test_it_always_ends(mtu: int, lost: list[bool]) -> None:
    """P-18: whatever gets lost by chance, it ends, at a size that passes, and tries none more than three times."""
    search = MtuSearch(BASE_SIZE, LARGEST)
    tried = run(search, mtu, chain(lost, repeat(True)))
    assert search.state is MtuState.COMPLETE
    assert search.size <= mtu
    assert all(tried.count(size) <= MAX_PROBES for size in tried)


def test_the_sizes_of_common_networks_come_first() -> None:
    """P-17."""
    assert run(MtuSearch(1200, LARGEST), LARGEST) == [1452, 1472, 4048, 8952, 8972, 16_336, LARGEST]
    assert run(MtuSearch(1200, 1400), 1400) == [1400]
    assert run(MtuSearch(1200, 9000), 8972) == [1452, 1472, 4048, 8952, 8972, *[9000] * MAX_PROBES]
    assert run(MtuSearch(1200, LARGEST), 1452) == [1452, 1472, 1472, 1472, 1462, 1462, 1462]


@pytest.mark.parametrize(("size", "ceiling"), [(1200, 1200), (1452, 1452), (1452, 1000), (65_535, 65_535)])
def test_nothing_to_search(size: int, ceiling: int) -> None:
    """P-17: where the carrier takes no more than it vouches for, or the peer takes no more."""
    search = MtuSearch(size, ceiling, min(size, BASE_SIZE))
    assert (search.state, search.size, search.candidate) == (MtuState.COMPLETE, size, 0)
    assert search.probe_at == inf
    assert not search.watching


def test_it_begins_again_after_ten_minutes() -> None:
    """P-17: the path may have become better; what is in use stays in use until it is known."""
    search = found(1300)
    size = search.size
    assert search.probe_at == RAISE_AFTER
    step(search, True, RAISE_AFTER)
    assert search.size == 1452 > size
    run(search, 1472, now=RAISE_AFTER)
    assert (search.size, search.probe_at) == (1472, 2 * RAISE_AFTER)
    for _ in range(MAX_PROBES):
        step(search, False, 2 * RAISE_AFTER)
    assert search.size == 1472


def test_a_probe_that_is_late_means_nothing() -> None:
    """P-18: only the one under way counts, and an ordinary packet of its size is none."""
    search = MtuSearch(1200, LARGEST)
    sent = probe_of(search)
    search.on_lost([sent], 0.0)
    assert search.probe_at == 0.0
    search.on_acked([sent], 0.0)
    search.on_lost([sent], 0.0)
    assert (search.size, search.candidate) == (1200, 1452)
    probe_of(search)
    search.on_refused(1452, None, 0.0)
    assert search.candidate == 1326
    search.on_acked([sent], 0.0)
    search.on_lost([sent], 0.0)
    assert (search.size, search.candidate) == (1200, 1326)


# -- black holes ---------------------------------------------------------------------------------------------------


def lose(search: MtuSearch, *sizes: int, start: float = 1.0, segments: int = 1) -> None:
    """Lose datagrams of these sizes, each sent after the loss of the one before was noticed."""
    for number, size in enumerate(sizes):
        search.on_lost([packet(size * segments, start + number, segments)], start + number + 0.5)


def test_three_losses_in_a_row_are_a_black_hole() -> None:
    """P-19: back to the base, and when that is seen to pass, a new search below what was lost."""
    search = found(1472)
    lose(search, 1472, 1472)
    assert (search.size, search.black_holes, search.watching) == (1472, 0, True)
    lose(search, 1400, start=3.0)
    assert (search.size, search.black_holes, search.state) == (BASE_SIZE, 1, MtuState.BASE)
    assert search.probe_at == inf
    search.on_acked([packet(1472, 3.2), packet(800, 3.6)], 3.7)  # the first was sent before, the second is small
    assert search.state is MtuState.BASE
    search.on_acked([packet(1200, 3.6)], 3.8)
    assert search.state is MtuState.SEARCHING
    run(search, 1300, now=4.0)
    assert 1284 <= search.size <= 1300
    assert not search.watching


def test_trains_are_as_large_as_their_datagrams() -> None:
    """P-19: a packet of several datagrams speaks of the size of these, whatever its own."""
    search = found(1472)
    lose(search, 300, 300, 300, segments=2)
    assert search.black_holes == 1
    search = found(1472)
    lose(search, 1472, 1472)
    search.on_acked([packet(1500, 2.9, 2)], 3.0)
    lose(search, 1472, 1472, start=4.0)
    assert search.black_holes == 0


def test_one_burst_is_one_loss() -> None:
    """P-19: a queue that overflows loses hundreds at once; only what is sent later tells whether it is the size."""
    search = found(1472)
    for number in range(100):
        search.on_lost([packet(1472, 1.0 + number / 1000)] * 3, 2.0 + number / 1000)
    assert search.black_holes == 0


def test_small_losses_and_losses_at_the_base_say_nothing() -> None:
    """P-19."""
    search = found(1472)
    lose(search, *[1200] * 10)
    search.on_lost([], 20.0)
    assert not search.watching
    search = MtuSearch(1200, 1200)
    lose(search, *[1200] * 10)
    assert (search.state, search.watching) == (MtuState.COMPLETE, False)
    search = MtuSearch(65_535, 65_535, 65_535)
    lose(search, *[65_535] * 10)
    assert search.black_holes == 0


def test_what_arrives_refutes_what_is_not_larger() -> None:
    """P-19: a path that carries 1,300 bytes does not thereby carry 1,400."""
    search = found(1472)
    lose(search, 1400, 1472)
    search.on_acked([packet(1300, 3.0)], 3.1)
    assert search.watching
    search.on_acked([packet(1400, 3.0)], 3.2)
    assert not search.watching
    lose(search, 1472, 1472, start=4.0)
    assert search.black_holes == 0
    lose(search, 1472, start=6.0)
    assert search.black_holes == 1


def test_a_larger_size_forgets_losses() -> None:
    """P-19: what was sent before it was in use says nothing of it."""
    search = MtuSearch(1452, LARGEST)
    lose(search, 1452, 1452)
    sent = probe_of(search, 3.0)
    search.on_acked([sent, packet(1452, 2.9)], 3.5)
    lose(search, 1452, start=3.2)
    assert (search.size, search.black_holes) == (1472, 0)


def test_not_even_the_base() -> None:
    """P-19: that is reported, and over when one arrives."""
    search = found(1472)
    lose(search, 1472, 1472, 1472)
    lose(search, *[1200] * 3, start=5.0)
    assert (search.state, search.size) == (MtuState.ERROR, BASE_SIZE)
    lose(search, *[1200] * 3, start=9.0)
    assert search.state is MtuState.ERROR
    search.on_acked([packet(1200, 13.0)], 13.1)
    assert search.state is MtuState.SEARCHING
    assert search.black_holes == 1


def test_a_black_hole_ends_the_probe_under_way() -> None:
    """P-19."""
    search = MtuSearch(1452, LARGEST)
    sent = probe_of(search)
    lose(search, 1452, 1452, 1452)
    search.on_acked([sent], 4.0)
    assert (search.size, search.state) == (BASE_SIZE, MtuState.BASE)
    search.on_acked([packet(1200, 4.0)], 4.1)
    assert BASE_SIZE < search.candidate < 1452


def test_doubts() -> None:
    """P-19: after the second timeout, or a loss, the first of two probes is small."""
    search = found(1472)
    assert not search.doubts(0)
    assert not search.doubts(1)
    assert search.doubts(2)
    lose(search, 1472)
    assert search.doubts(1)
    assert not MtuSearch(1200, 1200).doubts(9)


# -- the host's word -----------------------------------------------------------------------------------------------


def test_a_probe_that_the_host_refuses() -> None:
    """P-20: at once, and no fourth try of anything larger; if the host names a limit, that is tried next."""
    search = MtuSearch(1200, LARGEST)
    step(search, True)
    probe_of(search)
    search.on_refused(1472, 1460, 0.0)
    assert (search.size, search.candidate, search.probe_at) == (1452, 1460, 0.0)
    step(search, True)
    assert (search.size, search.state, search.probe_at) == (1460, MtuState.COMPLETE, RAISE_AFTER)
    search = MtuSearch(1200, LARGEST)
    probe_of(search)
    search.on_refused(1452, None, 0.0)
    assert (search.candidate, search.size) == (1326, 1200)
    assert not search.watching or search.candidate
    search.on_refused(4000, None, 0.0)  # which was clear
    assert search.candidate == 1326


def test_what_is_in_use_is_refused() -> None:
    """P-20: down to what the host takes; to the base when it does not say, or that is all."""
    search = found(8972)
    search.on_refused(8972, 1472, 1.0)
    assert (search.size, search.state) == (1472, MtuState.COMPLETE)
    search = found(8972)
    search.on_refused(8972, None, 1.0)
    assert (search.size, search.state, search.watching) == (BASE_SIZE, MtuState.BASE, True)
    search.on_acked([packet(1200, 1.0)], 1.1)
    run(search, 4048, now=2.0)
    assert search.size == 4048
    search.on_refused(4048, 300, 3.0)
    assert (search.size, search.state) == (BASE_SIZE, MtuState.BASE)
    search.on_refused(1200, None, 4.0)  # nothing smaller can help
    assert search.size == BASE_SIZE
    assert search.black_holes == 0


def test_the_host_may_change_its_mind() -> None:
    """P-17, P-20: after ten minutes everything is tried again."""
    search = MtuSearch(1200, 9000)
    probe_of(search)
    search.on_refused(1452, 1300, 0.0)
    run(search, 1300)
    assert search.size == 1300
    again = search.probe_at
    step(search, True, again)
    run(search, 9000, now=again)
    assert search.size == 9000
