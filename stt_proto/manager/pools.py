"""A pool that finds, for a content, the session that is nearest to it, so that one content meets the same caches.

Near is what Kademlia calls near (Maymounkov and Mazieres, 2002): every session has a home among the hashes, and the
distance of two hashes is their exclusive or, read as a number. Homes move when traffic does (`rebalance`).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from attrs import frozen

from stt_proto.clock import LATEST, Clock
from stt_proto.errors import PoolMissError
from stt_proto.manager.checks import MAX_SECONDS, MIN_SECONDS, check_bytes, check_number, check_whole

HASH_SIZE = 32
"""Bytes of a content hash."""

MAX_POOL = 65_536
"""Sessions of the largest pool."""

RECENT = 16
"""Contents that a session remembers, to be shared by them."""

IMBALANCE = 2.0
"""How much busier than the mean of the others the busiest must be before homes move; and the square of it than the
idlest, so that who takes half of its work has clearly less to do then than it had."""

V = TypeVar("V", bound=Hashable)


@frozen(kw_only=True)
class PoolStats:
    """What a pool did; a snapshot.

    Attributes:
        size: sessions in it.
        max_pool_size: how many there may be.
        hits: contents for which a session was found.
        misses: contents for which there was none.
        evicted: sessions that went to make room.
        moved: homes that were moved by `rebalance`.
        imbalance: the load of the busiest session over the mean, 1 when all are as busy; 0 without load.
    """

    size: int
    max_pool_size: int
    hits: int
    misses: int
    evicted: int
    moved: int
    imbalance: float


class _Member:
    """A session of the pool: where it is at home, and how busy."""

    __slots__ = ("_load", "_load_at", "home", "last_used", "recent")

    def __init__(self, home: int, now: float) -> None:
        self.home = home
        self.last_used = self._load_at = now
        self._load = 0.0
        self.recent: deque[int] = deque(maxlen=RECENT)

    def load(self, now: float, half_life: float) -> float:
        """Contents asked for, those of one half-life ago counting half."""
        return float(self._load * 0.5 ** ((now - self._load_at) / half_life))

    def set_load(self, load: float, now: float) -> None:
        self._load, self._load_at = load, now

    def remember(self, contents: Iterable[int]) -> None:
        """These, and nothing of before."""
        self.recent.clear()
        self.recent.extend(contents)


class ContentAffinityPool(Generic[V]):
    """Sessions, or whatever stands for them, by nearness to contents.

    Finding one costs O(log n), and a look at each of those that share its home.

    `now` is seconds on any monotonic clock; one smaller than the last counts as the last.

    Args:
        max_pool_size: sessions that it holds, 1 to 65,536; for one more, the one used longest ago goes.
        half_life: seconds after which traffic counts half in `rebalance`.

    Raises:
        ArgumentError: an argument is out of its range; so for all methods.
    """

    __slots__ = (
        "_by_home",
        "_clock",
        "_evicted",
        "_half_life",
        "_hits",
        "_homes",
        "_max",
        "_members",
        "_misses",
        "_moved",
    )

    def __init__(self, max_pool_size: int = 100, *, half_life: float = 60.0) -> None:
        check_whole("max_pool_size", max_pool_size, 1, MAX_POOL)
        check_number("half_life", half_life, MIN_SECONDS, MAX_SECONDS)
        self._max = max_pool_size
        self._half_life = half_life
        self._clock = Clock(-LATEST, 0.0)
        self._members: OrderedDict[V, _Member] = OrderedDict()  # the one used longest ago first
        self._by_home: dict[int, dict[V, _Member]] = {}
        self._homes: list[int] = []  # sorted
        self._hits = self._misses = self._evicted = self._moved = 0

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, session: V) -> bool:
        return session in self._members

    def __iter__(self) -> Iterator[V]:
        """The sessions in it, the one used longest ago first."""
        return iter(self._members)

    def add_session(self, session: V, content_hash: bytes, now: float) -> V | None:
        """Take one in, at home at a hash of 32 bytes; give the one that had to go for it, if one had.

        One that is there already moves.
        """
        home = _number(content_hash)
        now = self._clock.advance(now)
        evicted = None
        if session in self._members:
            self.remove_session(session)
        elif len(self._members) >= self._max:
            evicted = next(iter(self._members))
            self.remove_session(evicted)
            self._evicted += 1
        member = self._members[session] = _Member(home, now)
        self._settle(session, member)
        return evicted

    def remove_session(self, session: V) -> bool:
        """Take one out; False when it is not there."""
        member = self._members.pop(session, None)
        if member is None:
            return False
        self._unsettle(session, member)
        return True

    def get_session_for_content(self, content_hash: bytes, now: float) -> V:
        """The session whose home is nearest to this hash; of several at one home, the least busy.

        Raises:
            PoolMissError: the pool is empty.
        """
        content = _number(content_hash)
        now = self._clock.advance(now)
        if not self._homes:
            self._misses += 1
            raise PoolMissError("the pool is empty")
        self._hits += 1
        session = self._found(content, now)
        member = self._members[session]
        member.set_load(member.load(now, self._half_life) + 1.0, now)
        member.last_used = now
        member.recent.append(content)
        self._members.move_to_end(session)
        return session

    def nearest(self, content_hash: bytes, now: float) -> V | None:
        """Whom `get_session_for_content` would give, or `None`; nothing is counted, and nobody used."""
        content = _number(content_hash)
        return self._found(content, self._clock.advance(now)) if self._homes else None

    def calculate_affinity(self, session: V, content_hash: bytes) -> int:
        """The distance of a session to a content: 0 the nearest, 2^256 - 1 the farthest.

        Raises:
            PoolMissError: it is not in the pool.
        """
        return self._member(session).home ^ _number(content_hash)

    def update_session_affinity(self, session: V, content_hash: bytes) -> None:
        """Move a session to another home.

        Raises:
            PoolMissError: it is not in the pool.
        """
        self._move(session, self._member(session), _number(content_hash))

    def rebalance(self, now: float) -> V | None:
        """Let the idlest session help the busiest, if they differ much; give the one that moved.

        It moves to a content that was asked of the busiest lately, such that about half of those contents are nearer
        to it. Where they cannot be told apart, both are at one home, and take turns. Call it now and then.
        """
        now = self._clock.advance(now)
        loads = {session: member.load(now, self._half_life) for session, member in self._members.items()}
        if len(loads) < 2:
            return None
        busiest, idlest = max(loads, key=loads.__getitem__), min(loads, key=loads.__getitem__)
        most, least = loads[busiest], loads[idlest]
        others = (sum(loads.values()) - most) / (len(loads) - 1)
        if not most or most < IMBALANCE * others or most < IMBALANCE**2 * least:
            return None
        busy, idle = self._members[busiest], self._members[idlest]
        home, share = _halfway(busy)
        if home == idle.home:
            return None
        self._move(idlest, idle, home)
        idle.set_load(least + share * most, now)
        busy.set_load((1 - share) * most, now)
        recent = tuple(busy.recent)
        idle.remember(each for each in recent if each ^ home < each ^ busy.home)
        busy.remember(each for each in recent if each ^ home >= each ^ busy.home)
        self._moved += 1
        return idlest

    def cleanup_inactive_sessions(self, now: float, idle: float) -> tuple[V, ...]:
        """Take out, and give, the sessions that nobody was sent to for `idle` seconds, 0 to ten years."""
        check_number("idle", idle, 0.0, MAX_SECONDS)
        now = self._clock.advance(now)
        removed = []
        while self._members:
            session, member = next(iter(self._members.items()))
            if member.last_used + idle > now:
                break
            self.remove_session(session)
            removed.append(session)
        return tuple(removed)

    def get_pool_stats(self, now: float) -> PoolStats:
        """What it did so far, and how evenly."""
        now = self._clock.advance(now)
        loads = [member.load(now, self._half_life) for member in self._members.values()]
        total = sum(loads)
        return PoolStats(
            size=len(self._members),
            max_pool_size=self._max,
            hits=self._hits,
            misses=self._misses,
            evicted=self._evicted,
            moved=self._moved,
            imbalance=max(loads) * len(loads) / total if total else 0.0,
        )

    # -- inside ----------------------------------------------------------------------------------------------------

    def _found(self, content: int, now: float) -> V:
        """Of those at the home at the least distance, the least busy."""
        there = self._by_home[self._nearest(content)]
        return min(there, key=lambda each: there[each].load(now, self._half_life))

    def _nearest(self, content: int) -> int:
        """The home at the least distance. A walk down the tree of prefixes, which the sorted list is."""
        homes = self._homes
        low, high = 0, len(homes)
        while high - low > 1:
            bit = (homes[low] ^ homes[high - 1]).bit_length() - 1  # the first in which they differ
            middle = bisect_left(homes, homes[high - 1] >> bit << bit, low, high)
            if content >> bit & 1:
                low = middle
            else:
                high = middle
        return homes[low]

    def _member(self, session: V) -> _Member:
        member = self._members.get(session)
        if member is None:
            raise PoolMissError("this session is not in the pool")
        return member

    def _move(self, session: V, member: _Member, home: int) -> None:
        self._unsettle(session, member)
        member.home = home
        self._settle(session, member)

    def _settle(self, session: V, member: _Member) -> None:
        there = self._by_home.get(member.home)
        if there is None:
            there = self._by_home[member.home] = {}
            insort(self._homes, member.home)
        there[session] = member

    def _unsettle(self, session: V, member: _Member) -> None:
        there = self._by_home[member.home]
        del there[session]
        if not there:
            del self._by_home[member.home]
            del self._homes[bisect_left(self._homes, member.home)]


def _halfway(busy: _Member) -> tuple[int, float]:
    """Where somebody has to be to take about half of what is asked of one, and what share that is."""
    best, share = busy.home, 0.5
    off = 0.5
    for candidate in dict.fromkeys(busy.recent):
        taken = sum(content ^ candidate < content ^ busy.home for content in busy.recent) / len(busy.recent)
        if 0 < taken < 1 and abs(taken - 0.5) < off:
            best, share, off = candidate, taken, abs(taken - 0.5)
    return best, share


def _number(content_hash: Any) -> int:
    check_bytes("content_hash", content_hash, HASH_SIZE)
    return int.from_bytes(content_hash)
