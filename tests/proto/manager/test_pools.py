"""The pool that finds the session nearest to a content (I1), beside one that looks at all of them."""

from __future__ import annotations

from hashlib import sha256
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from stt_proto.errors import ArgumentError, PoolMissError
from stt_proto.manager import ContentAffinityPool
from stt_proto.manager.pools import MAX_POOL, RECENT
from tests.proto.manager.checked import Checked, counted_calls, run

# Near each other and far away, and often the same.
hashes = st.one_of(
    st.integers(0, 7).map(lambda number: number.to_bytes(32)),
    st.integers(0, 7).map(lambda number: (number << 253).to_bytes(32)),
    st.binary(min_size=32, max_size=32),
)
names = st.sampled_from("abcdef")
SIZE = 4


def distance(one: bytes, other: bytes) -> int:
    return int.from_bytes(one) ^ int.from_bytes(other)


class Pool(Checked):
    """A pool, and a dictionary of homes."""

    looks_at = frozenset({"I1"})

    def __init__(self) -> None:
        super().__init__()
        self.pool: ContentAffinityPool[str] = ContentAffinityPool(SIZE)
        self.homes: dict[str, bytes] = {}
        self.used: dict[str, tuple[float, int]] = {}
        self.now, self.serial, self.hits, self.misses = 0.0, 0, 0, 0

    def mark(self, name: str) -> None:
        self.serial += 1
        self.used[name] = self.now, self.serial

    @initialize(homes=st.lists(hashes, min_size=SIZE, max_size=SIZE))
    def begin_full(self, homes: list[bytes]) -> None:
        for name, home in zip("abcd", homes, strict=True):
            self.add(name=name, home=home)

    @rule(seconds=st.sampled_from((0.0, 1.0, 30.0)))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(name=names, home=hashes)
    def add(self, name: str, home: bytes) -> None:
        with self.unbroken("I1"):
            evicted = self.pool.add_session(name, home, self.now)
            oldest = min(self.used, key=self.used.__getitem__, default=None)
            full = name not in self.homes and len(self.homes) == SIZE
            self.expect("I1", evicted == (oldest if full else None), f"{evicted} had to go, not {oldest}")
            if evicted is not None:
                del self.homes[evicted], self.used[evicted]
            self.homes[name] = home
            self.mark(name)
            self.expect("I1", len(self.pool) == len(self.homes) <= SIZE, "size")

    @rule(contents=st.lists(hashes, min_size=1, max_size=4))
    def find(self, contents: list[bytes]) -> None:
        for content in contents:
            self.find_one(content)

    def find_one(self, content: bytes) -> None:
        with self.unbroken("I1"):
            try:
                found = self.pool.get_session_for_content(content, self.now)
            except PoolMissError:
                self.misses += 1
                self.expect("I1", not self.homes, "nobody was found")
                return
            self.hits += 1
            nearest = min(distance(home, content) for home in self.homes.values())
            self.expect("I1", distance(self.homes[found], content) == nearest, "somebody is nearer")
            self.expect("I1", self.pool.calculate_affinity(found, content) == nearest, "affinity")
            self.mark(found)

    @precondition(lambda self: len(self.homes) > 2 or self.misses < 2)
    @rule(name=names)
    def remove(self, name: str) -> None:
        with self.unbroken("I1"):
            self.expect("I1", (name in self.pool) == (name in self.homes), "in it")
            self.expect("I1", self.pool.remove_session(name) == (name in self.homes), "removed")
            self.homes.pop(name, None)
            self.used.pop(name, None)

    @rule(name=names, home=hashes)
    def move(self, name: str, home: bytes) -> None:
        if name in self.homes:
            self.pool.update_session_affinity(name, home)
            self.homes[name] = home

    @rule()
    def rebalance(self) -> None:
        """Whoever moves goes where content was asked for; nobody is lost by it."""
        with self.unbroken("I1"):
            moved = self.pool.rebalance(self.now)
            if moved is not None:
                affinity = self.pool.calculate_affinity(moved, bytes(32))
                self.homes[moved] = affinity.to_bytes(32)

    @rule(idle=st.sampled_from((60.0, 200.0, 10.0)))
    def cleanup(self, idle: float) -> None:
        with self.unbroken("I1"):
            gone = self.pool.cleanup_inactive_sessions(self.now, idle)
            wanted = sorted(name for name, (used, _) in self.used.items() if used + idle <= self.now)
            self.expect("I1", sorted(gone) == wanted, f"{gone}, not {wanted}")
            for name in gone:
                del self.homes[name], self.used[name]

    @rule()
    def look(self) -> None:
        stats = self.pool.get_pool_stats(self.now)
        self.expect("I1", (stats.size, stats.hits, stats.misses) == (len(self.homes), self.hits, self.misses), "stats")
        self.expect("I1", list(self.pool) == sorted(self.used, key=self.used.__getitem__), "the order of use")


def test_whatever_happens() -> None:
    """I1: the nearest by exclusive or, always; bounded; the one used longest ago goes first."""
    run(Pool, examples=200, steps=50)


def content(number: int) -> bytes:
    return sha256(str(number).encode()).digest()


def test_an_empty_pool() -> None:
    pool: ContentAffinityPool[str] = ContentAffinityPool()
    with pytest.raises(PoolMissError):
        pool.get_session_for_content(content(1), 0.0)
    with pytest.raises(PoolMissError):
        pool.calculate_affinity("a", content(1))
    stats = pool.get_pool_stats(0.0)
    assert (stats.size, stats.max_pool_size, stats.hits, stats.misses, stats.imbalance) == (0, 100, 0, 1, 0)
    assert pool.rebalance(0.0) is None


def test_who_was_used_longest_ago_goes_first() -> None:
    """I1: used is who was found, or came."""
    pool: ContentAffinityPool[str] = ContentAffinityPool(2)
    pool.add_session("a", content(1), 0.0)
    pool.add_session("b", content(2), 1.0)
    assert pool.get_session_for_content(content(1), 2.0) == "a"
    assert pool.add_session("c", content(3), 3.0) == "b"
    assert pool.get_pool_stats(3.0).evicted == 1
    assert pool.add_session("d", content(4), 3.0) == "a"
    assert pool.get_pool_stats(3.0).evicted == 2
    assert pool.get_session_for_content(content(4), 3.0) == "d"
    assert list(pool) == ["c", "d"]
    assert pool.cleanup_inactive_sessions(12.9, 10.0) == ()
    pool.get_session_for_content(content(4), 4.0)
    assert pool.cleanup_inactive_sessions(13.0, 10.0) == ("c",)


def test_homes_move_where_the_traffic_is() -> None:
    """I1: eight sessions and contents that all are near to one of them: in the end, all have something to do."""
    pool: ContentAffinityPool[int] = ContentAffinityPool()
    for number in range(8):
        pool.add_session(number, (number << 253).to_bytes(32), 0.0)
    contents = [b"\x00" + content(number)[1:] for number in range(200)]
    now, before = 0.0, 0.0
    for round_ in range(40):
        for each in contents:
            now += 0.01
            pool.get_session_for_content(each, now)
        before = before or pool.get_pool_stats(now).imbalance
        moved = pool.rebalance(now)
        assert round_ or moved is not None
    stats = pool.get_pool_stats(now)
    assert before == 8
    assert stats.imbalance < 4
    assert 1 <= stats.moved <= 20
    assert len({pool.get_session_for_content(each, now) for each in contents}) >= 6


def shares(*numbers: int) -> ContentAffinityPool[str]:
    """A busy session at home at 0, an idle one far away, and what was asked of the busy one lately."""
    pool: ContentAffinityPool[str] = ContentAffinityPool()
    pool.add_session("busy", bytes(32), 0.0)
    pool.add_session("idle", b"\xff" * 32, 0.0)
    for number in numbers:
        assert pool.get_session_for_content(number.to_bytes(32), 0.0) == "busy"
    return pool


def test_the_helper_takes_what_is_nearest_to_half() -> None:
    """I1: of what was asked for, whatever came first or last."""
    for numbers in ([1] * 4 + [2] * 2 + [4] * 2, [2] * 2 + [1] * 4 + [4] * 2, [2] * 2 + [4] * 2 + [1] * 4):
        pool = shares(*numbers)
        assert pool.rebalance(0.0) == "idle"
        assert pool.calculate_affinity("idle", (1).to_bytes(32)) == 0
        stats = pool.get_pool_stats(0.0)
        assert (stats.imbalance, stats.moved) == (1.0, 1)
        assert sorted(pool._members["idle"].recent) == [1] * 4
        assert sorted(pool._members["busy"].recent) == [2, 2, 4, 4]


def test_who_moved_remembers_no_more_than_others() -> None:
    """I1: sixteen contents, however many are asked for, before and after."""
    pool = shares(*[1, 2] * 20)
    assert pool.rebalance(0.0) == "idle"
    for number in (1, 2) * 200:
        pool.get_session_for_content(number.to_bytes(32), 1.0)
    assert [len(member.recent) for member in pool._members.values()] == [RECENT, RECENT]


def test_how_much_busier_is_too_much() -> None:
    """I1: four times the idlest and twice the mean of the others; each content counts one."""
    pool = shares(1, 1, 1)
    pool.get_session_for_content(b"\xff" * 32, 0.0)
    assert pool.get_pool_stats(0.0).imbalance == pytest.approx(3 / 2)
    assert pool.rebalance(0.0) is None
    pool.get_session_for_content((1).to_bytes(32), 0.0)
    for name, home in (("other", b"\x80"), ("another", b"\xc0")):
        pool.add_session(name, home.ljust(32, b"\x00"), 0.0)
        for _ in range(3):
            assert pool.get_session_for_content(home.ljust(32, b"\x00"), 0.0) == name
    assert pool.get_pool_stats(0.0).imbalance == pytest.approx(16 / 11)
    assert pool.rebalance(0.0) is None
    pool.get_session_for_content((1).to_bytes(32), 0.0)
    assert pool.rebalance(0.0) == "idle"


def test_the_second_helper_takes_another_half() -> None:
    """I1: what the first one took is the busiest's no more."""
    pool: ContentAffinityPool[str] = ContentAffinityPool()
    for name, home in (("busy", 0), ("first", 1 << 255), ("second", (1 << 255) + 1), ("third", (1 << 255) + 2)):
        pool.add_session(name, home.to_bytes(32), 0.0)
    contents = [number.to_bytes(32) for number in (1, 2, 4, 8)]
    for each in contents * 4:
        assert pool.get_session_for_content(each, 0.0) == "busy"
    assert (pool.rebalance(0.0), pool.rebalance(0.0)) == ("first", "second")
    assert len({pool.get_session_for_content(each, 0.0) for each in contents}) == 3


def test_one_content_that_everybody_wants() -> None:
    """I1: who cannot be told apart share a home, and take turns."""
    pool: ContentAffinityPool[str] = ContentAffinityPool()
    pool.add_session("a", content(1), 0.0)
    pool.add_session("b", content(2), 0.0)
    for _ in range(50):
        pool.get_session_for_content(content(1), 1.0)
    assert pool.rebalance(1.0) == "b"
    assert pool.rebalance(1.0) is None
    found = [pool.get_session_for_content(content(1), 1.0) for _ in range(10)]
    assert found.count("a") == found.count("b") == 5
    for _ in range(200):
        pool.remove_session("b")
        pool.add_session("b", content(1), 2.0)
        pool.get_session_for_content(content(1), 2.0)
    assert pool.rebalance(2.0) is None  # nobody has nothing to do
    pool.remove_session("b")
    pool.add_session("b", content(1), 3.0)
    assert pool.get_pool_stats(3.0).imbalance == 2
    assert pool.rebalance(3.0) is None  # at one home already


def test_of_two_one_helps_the_other() -> None:
    """I1: also if it had a little to do itself; and not when the one has but twice the work of the other."""
    for little, moves in ((1, True), (250, True), (251, False)):
        pool: ContentAffinityPool[str] = ContentAffinityPool()
        pool.add_session("a", bytes(32), 0.0)
        pool.add_session("b", b"\xff" * 32, 0.0)
        for home, often in ((bytes(32), 1000), (b"\xff" * 32, little)):
            for _ in range(often):
                pool.get_session_for_content(home, 0.0)
        assert (pool.rebalance(0.0) == "b") is moves


@given(
    st.integers(2, 6),
    st.lists(st.tuples(st.binary(min_size=1, max_size=1), st.integers(1, 100)), min_size=1, max_size=12),
)
def test_moving_comes_to_an_end(sessions: int, traffic: list[tuple[bytes, int]]) -> None:
    """I1: without new traffic all is in its place after a few moves a session; nobody goes to and fro."""
    pool: ContentAffinityPool[int] = ContentAffinityPool()
    for number in range(sessions):
        pool.add_session(number, content(number), 0.0)
    for byte, often in traffic:
        for _ in range(often):
            pool.get_session_for_content(byte * 32, 1.0)
    for _ in range(4 * sessions):
        if pool.rebalance(1.0) is None:
            break
    assert pool.rebalance(1.0) is None
    assert len(pool) == sessions


def test_looking_is_no_use() -> None:
    """I1: who would be found is told without a hit, a miss, or a load."""
    pool: ContentAffinityPool[str] = ContentAffinityPool()
    assert pool.nearest(content(1), 0.0) is None
    pool.add_session("a", content(1), 0.0)
    pool.add_session("b", content(1), 0.0)
    assert pool.nearest(content(1), 0.0) == pool.nearest(content(1), 0.0) == "a"
    assert pool.get_session_for_content(content(1), 0.0) == "a"
    assert pool.nearest(content(1), 0.0) == "b"
    stats = pool.get_pool_stats(0.0)
    assert (stats.hits, stats.misses) == (1, 0)


def test_an_even_load_moves_nobody() -> None:
    pool: ContentAffinityPool[str] = ContentAffinityPool()
    pool.add_session("a", bytes(32), 0.0)
    pool.add_session("b", b"\xff" * 32, 0.0)
    assert pool.rebalance(0.0) is None
    for home in (bytes(32), b"\xff" * 32) * 10:
        pool.get_session_for_content(home, 1.0)
    assert pool.rebalance(1.0) is None
    assert pool.get_pool_stats(1.0).imbalance == 1


def test_traffic_is_forgotten() -> None:
    """I1: what was an hour ago moves nobody today; what was one half-life ago counts half."""
    pool: ContentAffinityPool[str] = ContentAffinityPool(half_life=10.0)
    pool.add_session("a", bytes(32), 0.0)
    pool.add_session("b", b"\xff" * 32, 0.0)
    for home, count, now in ((bytes(32), 8, 0.0), (b"\xff" * 32, 4, 10.0)):
        for _ in range(count):
            pool.get_session_for_content(home, now)
    assert pool.get_pool_stats(10.0).imbalance == pytest.approx(1.0)
    assert pool.get_pool_stats(30.0).imbalance == pytest.approx(1.0)


def test_traffic_of_an_hour_ago() -> None:
    """I1: moves nobody today."""
    pool: ContentAffinityPool[str] = ContentAffinityPool(half_life=10.0)
    pool.add_session("a", bytes(32), 0.0)
    pool.add_session("b", b"\xff" * 32, 0.0)
    for _ in range(1000):
        pool.get_session_for_content(bytes(32), 1.0)
    for _ in range(4):
        pool.get_session_for_content(b"\xff" * 32, 200.0)
    assert pool.get_pool_stats(200.0).imbalance == pytest.approx(2.0, abs=0.01)
    for _ in range(4):
        pool.get_session_for_content(bytes(32), 200.0)
    assert pool.rebalance(200.0) is None
    assert pool.get_pool_stats(200.0).imbalance == pytest.approx(1.0, abs=0.01)


def test_a_search_costs_the_same_in_a_large_pool() -> None:
    calls = []
    for size in (16, 4096):
        pool: ContentAffinityPool[int] = ContentAffinityPool(size)
        for number in range(size):
            pool.add_session(number, content(number), 0.0)
        with counted_calls() as counted:
            pool.get_session_for_content(content(-1), 1.0)
        calls.append(counted[0])
    assert calls[1] < calls[0] + 60


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        *(("max_pool_size", lambda pool, bad=bad: ContentAffinityPool(bad)) for bad in (0, MAX_POOL + 1, 1.5, True)),
        *(("half_life", lambda pool, bad=bad: ContentAffinityPool(half_life=bad)) for bad in (0, nan, inf)),
        *(("content_hash", lambda pool, bad=bad: pool.add_session("b", bad, 0.0)) for bad in (b"", bytes(31), "x")),
        ("content_hash", lambda pool: pool.get_session_for_content(bytes(33), 0.0)),
        ("content_hash", lambda pool: pool.calculate_affinity("a", b"")),
        ("content_hash", lambda pool: pool.update_session_affinity("a", None)),
        *(("now", lambda pool, bad=bad: pool.add_session("b", bytes(32), bad)) for bad in (nan, inf, None)),
        *(("now", lambda pool, bad=bad: pool.get_session_for_content(bytes(32), bad)) for bad in (nan, inf, "1")),
        *(("now", lambda pool, bad=bad: pool.rebalance(bad)) for bad in (nan, inf, "1")),
        *(("idle", lambda pool, bad=bad: pool.cleanup_inactive_sessions(0.0, bad)) for bad in (-1, nan, inf)),
    ],
)  # fmt: skip
def test_a_bad_argument_is_named(argument: str, call: Any) -> None:
    pool: ContentAffinityPool[str] = ContentAffinityPool()
    pool.add_session("a", bytes(32), 0.0)
    with pytest.raises(ArgumentError) as caught:
        call(pool)
    assert caught.value.argument == argument
    assert len(pool) == 1
