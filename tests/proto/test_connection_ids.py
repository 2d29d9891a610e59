"""Connection IDs: the routing table, the IDs that we issue, and those of the peer."""

from __future__ import annotations

import copy
import itertools
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from stt_proto.errors import InvalidFrameError, ResourcesExhaustedError, StateError
from stt_proto.packet import (
    ConnectionIdTable,
    ExpectedResets,
    LocalConnectionIds,
    RemoteConnectionIds,
    ResetTokens,
)
from stt_proto.wire import NewConnectionId

TOKENS = ResetTokens(b"k" * 32)


class Entropy:
    """Counts, so that no two draws are equal."""

    def __init__(self) -> None:
        self.drawn = 0

    def __call__(self, size: int) -> bytes:
        self.drawn += 1
        return self.drawn.to_bytes(size, "big")


def local(peer_limit: int = 4) -> tuple[ConnectionIdTable[object], LocalConnectionIds[object], list[int]]:
    table: ConnectionIdTable[object] = ConnectionIdTable(Entropy())
    ids = LocalConnectionIds(table, TOKENS, "session", table.issue("handshake"))
    return table, ids, ids.announce(peer_limit, 0.0)


# -- the routing table ---------------------------------------------------------------------------------------------


def test_table() -> None:
    """C-1: 8 random bytes, unique at the endpoint; they route, and after retiring they do not."""
    table: ConnectionIdTable[str] = ConnectionIdTable(Entropy())
    first, second = table.issue("alice"), table.issue("bob")
    assert len(first) == len(second) == 8
    assert table.route(first) == "alice"
    assert table.route(b"????????") is None
    table.rebind(first, "carol")
    assert table.route(first) == "carol"
    assert first in table
    assert len(table) == 2
    table.retire(first)
    table.retire(first)
    assert table.route(first) is None
    assert len(table) == 1


def test_a_draw_that_is_taken_is_drawn_again() -> None:
    """C-1: unique, whatever the entropy; when it only repeats itself, that is said."""
    draws = iter([b"a" * 8, b"a" * 8, b"b" * 8])
    table: ConnectionIdTable[str] = ConnectionIdTable(lambda size: next(draws, b"b" * 8))
    assert [table.issue("x"), table.issue("x")] == [b"a" * 8, b"b" * 8]
    with pytest.raises(StateError):
        table.issue("x")


# -- the IDs that we issue -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("peer_limit", "live"), [(2, 2), (3, 3), (4, 4), (16, 4)])
def test_how_many_are_issued(peer_limit: int, live: int) -> None:
    """C-2: the smaller of 4 and the peer's limit; number 0 is announced again, with its token."""
    table, ids, numbers = local(peer_limit)
    assert numbers == list(range(live))
    assert len(table) == len(ids.live) == live
    for number, connection_id in zip(numbers, ids.live, strict=True):
        assert table.route(connection_id) == "session"
        assert ids.frame(number) == (number, 0, connection_id, TOKENS.token(connection_id))


def test_retired_ids_are_replaced_and_linger() -> None:
    """C-4: the replacement comes at once, the old one is routed for the time given."""
    table, ids, _ = local()
    old = ids.live[1]
    assert ids.on_retire(1, now=10.0, linger=3.0) == [4]
    assert ids.frame(1) is None
    assert old not in ids.live
    assert len(ids.live) == 4
    assert table.route(old) == "session"
    assert ids.deadline == 13.0
    ids.expire(12.9)
    assert old in table
    ids.expire(13.0)
    assert old not in table
    assert ids.deadline == inf
    assert ids.on_retire(1, now=14.0, linger=3.0) == []


def test_lingering_never_ends_early() -> None:
    """C-4: an ID retired later, for a shorter time, waits for the one before it."""
    table, ids, _ = local()
    first, second = ids.live[:2]
    ids.on_retire(0, now=0.0, linger=5.0)
    ids.on_retire(1, now=1.0, linger=1.0)
    ids.expire(4.9)
    assert first in table
    assert second in table
    ids.expire(5.0)
    assert first not in table
    assert second not in table


@pytest.mark.parametrize("number", [4, 5, 2**62 - 1])
def test_retiring_what_was_never_issued(number: int) -> None:
    """C-4: closes the session."""
    _, ids, _ = local()
    with pytest.raises(InvalidFrameError):
        ids.on_retire(number, now=0.0, linger=1.0)


def test_retirement_flood() -> None:
    """C-4: at most 256 IDs within any 10 s, and at most 64 retired ones routed."""
    table, ids, _ = local()
    for number in range(253):
        ids.on_retire(number, now=number * 0.01, linger=30.0)
        assert len(table) <= 4 + 64
    with pytest.raises(ResourcesExhaustedError):
        ids.on_retire(253, now=9.99, linger=30.0)
    ids.close()
    assert len(table) == 0
    assert ids.deadline == inf


def test_the_oldest_retired_id_gives_way() -> None:
    """C-4: of those that were retired the 64 newest are routed."""
    table, ids, _ = local()
    retired = []
    for number in range(66):
        retired.append(ids._live[number])
        ids.on_retire(number, now=0.0, linger=30.0)
    assert [connection_id in table for connection_id in retired] == [False] * 2 + [True] * 64


def test_the_flood_is_over_after_ten_seconds() -> None:
    """C-4: what was issued 10 s ago counts no more."""
    _, ids, _ = local()
    for number in range(253):
        ids.on_retire(number, now=0.0, linger=1.0)
    assert ids.on_retire(253, now=10.0, linger=1.0) == [257]


def test_a_peer_that_has_used_up_its_ids_gets_no_more_for_another_path() -> None:
    """C-2, C-4: that is no mistake of who adds the path; those that are missing come with the next retirement."""
    _, ids, _ = local(2)
    for number in range(254):
        ids.on_retire(number, now=0.0, linger=1.0)
    assert ids.widen(4, now=0.0) == [256]
    assert ids.widen(4, now=9.99) == []
    with pytest.raises(ResourcesExhaustedError):
        ids.on_retire(254, now=9.99, linger=1.0)
    assert ids.on_retire(255, now=10.0, linger=1.0) == [257, 258, 259]


def test_retirement_at_a_pace_that_is_allowed() -> None:
    """C-4: 256 in 10 s go on for ever."""
    table, ids, _ = local()
    for number in range(2_000):
        ids.on_retire(number, now=10.0 + number * 0.0392, linger=0.1)
    assert len(ids.live) == 4
    ids.expire(inf)
    assert len(table) == 4


class RoutingTable(RuleBasedStateMachine):
    """C-1 to C-4, and the probe for leaks: the table holds what sessions hold, after every step."""

    sessions = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.names = itertools.count()
        self.table: ConnectionIdTable[object] = ConnectionIdTable(Entropy())
        self.routed: dict[LocalConnectionIds[object], dict[int, bytes]] = {}
        self.lingering: dict[bytes, float] = {}

    @rule(target=sessions, peer_limit=st.integers(2, 6))
    def begin(self, peer_limit: int) -> LocalConnectionIds[object]:
        owner = f"session {next(self.names)}"
        first = self.table.issue("handshake")
        ids = LocalConnectionIds(self.table, TOKENS, owner, first)
        numbers = ids.announce(peer_limit, self.now)
        self.routed[ids] = {number: ids.frame(number).connection_id for number in numbers}
        assert len(numbers) == min(4, peer_limit)
        assert all(self.table.route(connection_id) == owner for connection_id in ids.live)
        return ids

    @rule(ids=sessions, number=st.integers(0, 12), linger=st.sampled_from([0.0, 0.3, 2.0]))
    def retire(self, ids: LocalConnectionIds[object], number: int, linger: float) -> None:
        held = self.routed[ids]
        if number > max(held):
            with pytest.raises(InvalidFrameError):
                ids.on_retire(number, self.now, linger)
            return
        gone = held.pop(number, None)
        new = ids.on_retire(number, self.now, linger)
        assert len(new) == (gone is not None)
        held |= {number: ids.frame(number).connection_id for number in new}
        if gone is not None:
            self.lingering[gone] = self.now + linger

    @rule(seconds=st.sampled_from([0.1, 0.5, 3.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for ids in self.routed:
            ids.expire(self.now)
            assert ids.deadline > self.now

    @rule(ids=consumes(sessions))
    def end(self, ids: LocalConnectionIds[object]) -> None:
        ids.close()
        assert ids.deadline == inf
        del self.routed[ids]

    @invariant()
    def table_is_exact(self) -> None:
        live = {connection_id for held in self.routed.values() for connection_id in held.values()}
        late = {connection_id for ids in self.routed for _, connection_id in ids._retired}
        assert {connection_id for ids in self.routed for connection_id in ids.live} == live
        assert set(self.table._owners) == live | late
        assert not live & late
        assert late <= self.lingering.keys()


RoutingTable.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestRoutingTable = RoutingTable.TestCase


# -- the peer's IDs ------------------------------------------------------------------------------------------------


def cid(number: int) -> bytes:
    return b"peer" + number.to_bytes(4, "big")


def announcing(number: int, prior: int = 0, token: bytes | None = None) -> NewConnectionId:
    return NewConnectionId(number, prior, cid(number), token or (b"token" + number.to_bytes(11, "big")))


def remote(count: int = 4, limit: int = 4) -> tuple[ExpectedResets[str], RemoteConnectionIds[str]]:
    resets: ExpectedResets[str] = ExpectedResets(b"x" * 32)
    ids = RemoteConnectionIds(resets, "session", cid(0), limit)
    for number in range(count):
        assert ids.add(announcing(number)) == []
    return resets, ids


def spare(ids: RemoteConnectionIds[str]) -> int:
    """How many IDs there are besides the current one."""
    return sum(ids.id_of(number) is not None for number in range(1000) if number != ids.number)


def use_next(ids: RemoteConnectionIds[str]) -> int | None:
    """Change to another ID, as a session does that moves, and retire the one used so far."""
    old, other = ids.number, ids.unused([ids.number])
    if other is None:
        return None
    ids.use(other)
    if ids.retire(old):
        return old
    ids.use(old)
    return None


def resets_whom(resets: ExpectedResets[str], number: int) -> str | None:
    return resets.owner_of(b"\x40" * 20 + announcing(number).token)


def test_new_ids_are_spares() -> None:
    """C-2, P-14: the ID of the handshake stays in use; tokens are expected once they are known."""
    resets, ids = remote(0)
    assert resets_whom(resets, 0) is None
    assert ids.current == cid(0)
    assert spare(ids) == 0
    assert ids.add(announcing(0)) == []
    assert ids.add(announcing(2)) == []
    assert ids.add(announcing(1)) == []
    assert ids.current == cid(0)
    assert spare(ids) == 2
    assert [resets_whom(resets, number) for number in range(4)] == ["session", "session", "session", None]


def test_repeated() -> None:
    """C-3, F-5: the same again is nothing new, another ID or token closes the session."""
    _, ids = remote()
    for number in range(4):
        assert ids.add(announcing(number)) is None
        with pytest.raises(InvalidFrameError):
            ids.add(announcing(number, token=b"another token..."))
        with pytest.raises(InvalidFrameError):
            ids.add(announcing(number)._replace(connection_id=b"elsewher"))


def test_one_id_under_two_numbers() -> None:
    """C-1: an ID is unique."""
    _, ids = remote(2)
    with pytest.raises(InvalidFrameError):
        ids.add(announcing(2)._replace(connection_id=cid(1)))


def test_too_many() -> None:
    """C-3: more than the limit that we announced, after retiring."""
    _, ids = remote(4)
    with pytest.raises(InvalidFrameError):
        ids.add(announcing(4))
    _, ids = remote(4)
    assert ids.add(announcing(4, prior=1)) == [0]
    with pytest.raises(InvalidFrameError):
        ids.add(announcing(5, prior=1))


@pytest.mark.parametrize(
    "frame",
    [
        announcing(4),
        announcing(2, token=b"another token..."),
        announcing(3, prior=3, token=b"another token..."),
        announcing(6, prior=2)._replace(connection_id=cid(3)),
        announcing(70, prior=70),
        announcing(3, prior=3)._replace(connection_id=b"elsewher"),
    ],
)
def test_what_is_refused_changes_nothing(frame: NewConnectionId) -> None:
    """C-3, C-4: one ID more than is allowed, or 65 retirements, were in the book before it was closed."""
    resets, ids = remote(4)
    for number in range(100, 162):
        ids._retiring[number] = None  # 62 on their way

    def book() -> object:
        held = (ids._live, ids._retiring, ids._retired, ids._floor, ids.number, ids.current)
        return copy.deepcopy(held), [resets_whom(resets, number) for number in range(8)], len(resets)

    before = book()
    with pytest.raises((InvalidFrameError, ResourcesExhaustedError)):
        ids.add(frame)
    assert book() == before


def test_retire_prior_to() -> None:
    """C-3: numbers below are retired, the current one is replaced by the smallest left, tokens go."""
    resets, ids = remote()
    assert ids.add(announcing(4, prior=2)) == [0, 1]
    assert ids.current == cid(2)
    assert spare(ids) == 2
    assert [resets_whom(resets, number) is not None for number in range(5)] == [False, False, True, True, True]
    assert ids.add(announcing(4, prior=2)) is None
    assert ids.add(announcing(4, prior=1)) is None


def test_late_frames_are_retired_at_once() -> None:
    """C-3: an ID below what was retired is retired when it arrives, once as long as that is not acknowledged."""
    resets, ids = remote(1)
    assert ids.add(announcing(9, prior=9)) == [0]
    assert ids.add(announcing(3, prior=1)) == [3]
    assert ids.add(announcing(3, prior=1)) is None
    assert ids.add(announcing(0)) is None
    assert resets_whom(resets, 3) is None
    assert ids.current == cid(9)
    ids.on_retire_acked(3)
    assert ids.add(announcing(3)) == [3]


def test_retirement_flood_by_the_peer() -> None:
    """C-4: at most 64 retirements are unacknowledged, more closes the session."""
    _, ids = remote(1)
    for number in range(1, 65):
        assert ids.add(announcing(number, prior=number)) == [number - 1]
    with pytest.raises(ResourcesExhaustedError):
        ids.add(announcing(65, prior=65))
    _, ids = remote(1)
    for number in range(1, 500):
        assert ids.add(announcing(number, prior=number)) == [number - 1]
        ids.on_retire_acked(number - 1)


def test_moving_on() -> None:
    """C-4: whoever changes to another ID retires the old one, and its number stays retired."""
    resets, ids = remote(3)
    assert use_next(ids) == 0
    assert ids.current == cid(1)
    assert resets_whom(resets, 0) is None
    assert use_next(ids) == 1
    assert ids.current == cid(2)
    assert spare(ids) == 0
    assert use_next(ids) is None
    assert ids.add(announcing(1)) is None
    ids.on_retire_acked(1)
    assert ids.add(announcing(1)) == [1]
    assert ids.current == cid(2)
    assert ids.add(announcing(3)) == []
    assert use_next(ids) == 2


def test_moving_on_out_of_order() -> None:
    """C-3: an ID that we retired ourselves does not come to life again, whatever was missing before it."""
    _, ids = remote(1)
    ids.add(announcing(2))
    assert use_next(ids) == 0
    ids.add(announcing(3))
    assert use_next(ids) == 2
    ids.on_retire_acked(2)
    assert ids.add(announcing(2)) == [2]
    assert ids.add(announcing(1)) == []
    assert ids.current == cid(3)
    assert spare(ids) == 1


def test_nothing_left_to_use() -> None:
    """C-3: a peer that retires everything is still reached by the last ID, until it announces another."""
    _, ids = remote(1)
    ids.add(announcing(2))
    assert use_next(ids) == 0
    ids.add(announcing(1))
    assert use_next(ids) == 2
    assert ids.current == cid(1)
    assert ids.add(announcing(2, prior=2)) == [1]
    assert ids.current == cid(1)
    assert spare(ids) == 0
    assert use_next(ids) is None
    assert ids.add(announcing(3)) == []
    assert ids.current == cid(3)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_id_that_we_gave_up_does_not_come_back(number: int) -> None:
    """C-4: announced again, as by a copy of the packet that did so first, it is retired once more, and not taken."""
    resets, ids = remote(4)
    ids.use(3)
    assert ids.retire(number)
    assert ids.add(announcing(number)) is None
    ids.on_retire_acked(number)
    assert ids.add(announcing(number)) == [number]
    assert ids.id_of(number) is None
    assert resets_whom(resets, number) is None


def test_an_id_that_is_retired_is_not_used() -> None:
    """C-4: neither one that we gave up, nor one that the peer took back, nor one that never was."""
    _, ids = remote(4)
    ids.use(1)
    assert ids.retire(0)
    assert ids.add(announcing(3, prior=2)) == [1]
    assert (ids.number, ids.current) == (2, cid(2))
    for number in (0, 1, 9):
        ids.use(number)
        assert (ids.number, ids.current) == (2, cid(2))


def test_moving_waits_for_acknowledgements() -> None:
    """C-4: we do not run into the limit by ourselves."""
    _, ids = remote(1)
    for number in range(1, 65):
        ids.add(announcing(number))
        assert use_next(ids) == number - 1
    ids.add(announcing(65))
    assert use_next(ids) is None
    ids.on_retire_acked(7)
    assert use_next(ids) == 64


def test_a_gap_that_is_never_filled() -> None:
    """C-4: what is remembered beyond a gap is bounded."""
    _, ids = remote(1)
    for number in range(2, 260):
        assert ids.add(announcing(number)) == []
        retired = use_next(ids)
        assert retired is not None
        ids.on_retire_acked(retired)
    with pytest.raises(ResourcesExhaustedError):
        ids.add(announcing(260))
    assert len(ids._retired) == 257


def test_closed() -> None:
    """P-14: a session that is over expects no reset."""
    resets, ids = remote()
    assert len(resets) == 4
    ids.close()
    assert len(resets) == 0
    resets, ids = remote(0)
    ids.close()
    assert len(resets) == 0


@given(
    limit=st.integers(2, 6),
    steps=st.lists(
        st.tuples(st.sampled_from(["add", "add", "move", "acked"]), st.integers(0, 12), st.integers(0, 12)), max_size=40
    ),
)
def test_any_peer(limit: int, steps: list[tuple[str, int, int]]) -> None:
    """C-3, G-2: whatever it announces, one ID is in use, no more than the limit are known, tokens are those of live
    IDs, and what is retired is retired once and stays so until it was acknowledged."""
    resets, ids = remote(0, limit)
    retiring: set[int] = set()
    for action, number, prior in steps:
        if action == "move":
            moved = use_next(ids)
            fresh = [] if moved is None else [moved]
        elif action == "acked":
            ids.on_retire_acked(number)
            retiring.discard(number)
            fresh = []
        else:
            try:
                fresh = ids.add(announcing(number, min(prior, number))) or []
            except (InvalidFrameError, ResourcesExhaustedError):
                break
        assert not retiring.intersection(fresh)
        retiring.update(fresh)
        assert retiring == set(ids._retiring)
        assert len(ids._live) <= limit
        assert not ids._live or ids.current in [connection_id for connection_id, _ in ids._live.values()]
        assert len(resets) == sum(token is not None for _, token in ids._live.values())
    ids.close()
    assert len(resets) == 0
