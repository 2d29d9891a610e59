"""Trains: cutting and reading them, and the table of those that are incomplete with its bounds."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from math import inf

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stt_proto.packet import PacketCounters, TrainBudget, TrainReassembler
from stt_proto.packet.segments import cut_train, read_run
from stt_proto.packet.trains import FINISHED_KEPT, PIECE_COST
from stt_proto.types import NetworkPath

PREFIX = b"\x65" + b"\x01" * 12
PATH, OTHER = NetworkPath("udp", 1, ("a", 1)), NetworkPath("udp", 1, ("b", 2))


def prefix(number: int) -> bytes:
    return b"\x65" + number.to_bytes(12, "big")


def flip(datagram: bytes, bit: int) -> bytes:
    at = bit // 8
    return datagram[:at] + bytes([datagram[at] ^ 1 << bit % 8]) + datagram[at + 1 :]


def table(budget: TrainBudget | None = None, **limits: int) -> TrainReassembler:
    return TrainReassembler(TrainBudget() if budget is None else budget, PacketCounters(), **limits)


# -- cutting and reading -------------------------------------------------------------------------------------------


@given(size=st.integers(31, 120), length=st.integers(17, 4000), before=st.integers(0, 5), after=st.binary(max_size=30))
@example(1452, 64_000, 0, b"")
def test_what_is_cut_can_be_read(size: int, length: int, before: int, after: bytes) -> None:
    """P-1: a train in one run is read as a whole, wherever it lies, whatever comes after it."""
    room = size - 15
    segments = -(-length // room)
    if not 2 <= segments <= 64:
        return
    sealed = bytes(i * 7 % 251 for i in range(length))
    buffers = cut_train(PREFIX, sealed, room, segments)
    assert len(buffers) == 2 * segments
    run = b"".join(buffers)
    tail_is_short = length % room
    view = memoryview(bytes(before) + run + (b"" if tail_is_short else after))
    got, index, last, pieces, stop = read_run(view, before, len(view), size)
    assert (got, index, last) == (PREFIX, 0, segments - 1)
    assert b"".join(pieces) == sealed
    assert stop == before + len(run)


@given(data=st.data())
def test_a_run_ends_where_the_order_ends(data: st.DataObject) -> None:
    """P-4: segments are read as long as they follow each other with equal headers, and never more."""
    size, segments = 40, data.draw(st.integers(2, 8))
    buffers = cut_train(PREFIX, bytes(range(25)) * (segments - 1) + b"end", 25, segments)
    train = [header + piece for header, piece in zip(buffers[::2], buffers[1::2], strict=True)]
    full = st.sampled_from(train[:-1])
    damaged = st.builds(flip, full, st.integers(0, 8 * 15 - 1))
    run = data.draw(st.lists(full | damaged, min_size=1, max_size=12)) + data.draw(st.sampled_from([[], [train[-1]]]))
    view = memoryview(b"".join(run))
    got, index, last, pieces, stop = read_run(view, 0, len(view), size)
    count = len(pieces)
    assert run[0].startswith(got)
    expected = [got + bytes([index + i, last]) for i in range(count)]
    assert [datagram[:15] for datagram in run[:count]] == expected
    assert list(pieces) == [datagram[15:] for datagram in run[:count]]
    assert stop == sum(map(len, run[:count]))
    follows = len(run) > count and run[count][:15] == got + bytes([(index + count) % 256, last])
    assert not follows or index + count > last


# -- collecting ----------------------------------------------------------------------------------------------------


@given(order=st.permutations(range(6)), cuts=st.sets(st.integers(1, 5)))
def test_any_order(order: list[int], cuts: set[int]) -> None:
    """P-1, P-9: complete with the last missing segment and not before; joined in the order of the indices."""
    trains = table()
    pieces = [bytes([65 + i]) * 20 for i in range(5)] + [b"F"]
    done = []
    for index in order:
        train = trains.find(PREFIX, 5, PATH, 0.0, 0)
        assert train is not None
        done.append(trains.add(train, index, pieces[index], 0))
        assert trains.cost == sum(len(pieces[i]) + PIECE_COST for i in order[: len(done)])
    assert done == [False] * 5 + [True]
    assert train.join() == b"".join(pieces)
    trains.finish(train.key)
    assert (len(trains), trains.cost) == (0, 0)

    trains = table()
    borders = sorted({0, 6, *cuts})
    for start, end in pairwise(borders):
        train = trains.find(PREFIX, 5, PATH, 0.0, 0)
        assert train is not None
        run = tuple(pieces[start:end])
        complete = trains.add(train, start, run[0], 0) if len(run) == 1 else trains.add_run(train, start, run, 0)
        assert complete == (end == 6)
    assert train.join() == b"".join(pieces)


def test_what_belongs_together() -> None:
    """P-4: the masked header, the last index and the path."""
    trains = table()
    same = trains.find(PREFIX, 5, PATH, 0.0, 0)
    assert trains.find(PREFIX, 5, NetworkPath("udp", 1, ("a", 1)), 1.0, 0) is same
    others = [trains.find(*key, 0.0, 0) for key in ((prefix(2), 5, PATH), (PREFIX, 6, PATH), (PREFIX, 5, OTHER))]
    assert len({id(train) for train in (same, *others)}) == 4
    assert trains.find(PREFIX, 5, PATH, 0.0, 0) is same


def test_congestion_marks() -> None:
    """R-1: a train is marked when any segment was; else it has the bits of its first."""
    for marks, expected in (((2, 2, 2), 2), ((2, 3, 2), 3), ((1, 0, 0), 1), ((0, 0, 3), 3)):
        trains = table()
        for index, ecn in enumerate(marks):
            train = trains.find(PREFIX, 5, PATH, 0.0, ecn)
            assert train is not None
            trains.add(train, index, bytes(20), ecn)
        assert train.ecn == expected


def test_the_newest_copy_counts() -> None:
    """P-9 [forged segments]: what is held gives way to what comes, and is charged for as it is."""
    trains = table()
    train = trains.find(PREFIX, 2, PATH, 0.0, 0)
    assert train is not None
    for index, piece in ((0, b"0" * 20), (2, b"tail"), (0, b"zero" * 5), (2, b"t"), (2, b"t")):
        assert not trains.add(train, index, piece, 0)
    assert trains.counters.segments_repeated == 3
    assert trains.cost == train.cost == 21 + 2 * PIECE_COST
    assert trains.add(train, 1, b"1" * 20, 0)
    assert not trains.add(train, 1, b"1" * 20, 0), "nothing changed since it was tried"
    assert trains.add(train, 1, b"one!" * 5, 0)
    assert train.join() == b"zero" * 5 + b"one!" * 5 + b"t"
    assert trains.add_run(train, 0, (b"a" * 20, b"b" * 20, b"cc"), 0)
    assert train.join() == b"a" * 20 + b"b" * 20 + b"cc"
    assert trains.cost == train.cost == 42 + 3 * PIECE_COST
    assert trains.counters.segments_repeated == 8


def test_another_length() -> None:
    """P-1, P-9: segments but the last have one length; what contradicts the newest is forgotten, what fits stays."""
    trains = table()
    train = trains.find(PREFIX, 3, PATH, 0.0, 0)
    assert train is not None
    trains.add(train, 3, b"t" * 25, 0)
    trains.add(train, 0, b"0" * 30, 0)
    assert sorted(train.pieces) == [0, 3]
    trains.add(train, 1, b"1" * 40, 0)
    assert sorted(train.pieces) == [1, 3]
    assert trains.cost == train.cost == 65 + 2 * PIECE_COST
    trains.add(train, 2, b"2" * 20, 0)
    assert sorted(train.pieces) == [2]
    trains.add(train, 3, b"t" * 21, 0)
    assert sorted(train.pieces) == [3]
    trains.add(train, 0, b"0" * 20, 0)
    assert sorted(train.pieces) == [0]
    trains.add_run(train, 1, (b"1" * 22, b"2" * 22, b"t"), 0)
    assert sorted(train.pieces) == [1, 2, 3]
    assert trains.cost == train.cost == 45 + 3 * PIECE_COST


# -- bounds --------------------------------------------------------------------------------------------------------


def test_at_most_so_many() -> None:
    """P-9: 32 incomplete trains a session, the oldest goes first."""
    trains = table()
    for number in range(40):
        train = trains.find(prefix(number), 63, PATH, float(number), 0)
        assert train is not None
        trains.add(train, 0, bytes(16), 0)
    assert len(trains) == 32
    assert trains.counters.trains_evicted == 8
    assert trains.deadline == 8.0 + trains.lifetime


def test_at_most_so_many_bytes() -> None:
    """P-9: 2 MiB a session, whatever the segments cost beyond their bytes included; the oldest goes first."""
    trains = table(max_trains=1000)
    for number in range(60):
        train = trains.find(prefix(number), 46, PATH, float(number), 0)
        assert train is not None
        for index in range(45):
            assert not trains.add(train, index, bytes(1400), 0)
            assert trains.cost <= 2 << 20
    assert 28 <= len(trains) <= 31
    assert trains.counters.trains_evicted == 60 - len(trains)


def test_the_last_segment_may_be_too_much() -> None:
    """P-9: also a train that would be complete goes when it is the oldest and there is no room."""
    trains = table(max_bytes=1000)
    train = trains.find(PREFIX, 1, PATH, 0.0, 0)
    assert train is not None
    trains.add(train, 0, bytes(800), 0)
    assert not trains.add(train, 1, bytes(800), 0)
    assert (len(trains), trains.cost, trains.counters.trains_evicted) == (0, 0, 1)


def test_the_endpoint_has_a_bound_too() -> None:
    """P-9: 64 MiB an endpoint; the oldest train of any session goes first."""
    assert TrainBudget().limit == 64 << 20
    budget = TrainBudget(10_000)
    sessions = [table(budget) for _ in range(5)]
    held = []
    for number in range(20):
        trains = sessions[number % 5]
        train = trains.find(prefix(number), 63, PATH, 0.0, 0)
        assert train is not None
        trains.add(train, 0, bytes(900), 0)
        held.append(train)
        assert budget.cost == sum(trains.cost for trains in sessions) <= 10_000
        assert len(budget) == sum(map(len, sessions)) == min(number + 1, 10)
    assert [bool(train.pieces) for train in held] == [False] * 10 + [True] * 10
    for trains in sessions:
        trains.close()
    assert (budget.cost, len(budget)) == (0, 0)


def test_nothing_is_reserved() -> None:
    """P-9: who announces 64 segments and sends one pays for one, in the account and in memory."""
    trains = table()
    piece = bytes(16)
    tracemalloc.start()
    try:
        for number in range(32):
            train = trains.find(prefix(number), 63, PATH, 0.0, 0)
            assert train is not None
            trains.add(train, 0, piece, 0)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert trains.cost == 32 * (16 + PIECE_COST)
    assert used < 32 * 1024


def test_expiry() -> None:
    """P-9: an incomplete train goes after its time, counted from its first segment."""
    trains = table()
    assert trains.deadline == inf
    trains.lifetime = 0.3
    for at, number in ((1.0, 1), (1.1, 2), (1.2, 1)):
        train = trains.find(prefix(number), 9, PATH, at, 0)
        assert train is not None
        trains.add(train, int(at * 10) - 10, bytes(20), 0)
    assert trains.deadline == pytest.approx(1.3)
    trains.expire(1.29)
    assert len(trains) == 2
    trains.expire(1.3)
    assert len(trains) == 1
    assert trains.deadline == pytest.approx(1.4)
    trains.expire(5.0)
    assert (len(trains), trains.cost, trains.deadline) == (0, 0, inf)
    assert trains.counters.trains_expired == 2


def test_ghosts() -> None:
    """P-9: the last 256 finished trains are recognised, and forgotten after that."""
    trains = table()
    for number in range(FINISHED_KEPT + 1):
        train = trains.find(prefix(number), 1, PATH, 0.0, 0)
        assert train is not None
        trains.add(train, 0, bytes(20), 0)
        assert trains.add(train, 1, b"x", 0)
        trains.finish(train.key)
    assert len(trains) == 0
    assert trains.find(prefix(1), 1, PATH, 0.0, 0) is None
    assert trains.find(prefix(FINISHED_KEPT), 1, PATH, 0.0, 0) is None
    assert trains.counters.segments_repeated == 2
    assert trains.find(prefix(0), 1, PATH, 0.0, 0) is not None
    trains.finish((prefix(7), 1, OTHER))
    assert trains.find(prefix(7), 1, OTHER, 0.0, 0) is None


def test_closed() -> None:
    """P-9: a session that is over holds nothing and takes nothing."""
    budget = TrainBudget()
    trains = table(budget)
    for number in range(3):
        train = trains.find(prefix(number), 1, PATH, 0.0, 0)
        assert train is not None
        trains.add(train, 0, bytes(20), 0)
    trains.close()
    assert trains.find(prefix(5), 1, PATH, 0.0, 0) is None
    assert trains.counters.segments_refused == 1
    assert (len(trains), trains.cost, len(budget), budget.cost) == (0, 0, 0, 0)
