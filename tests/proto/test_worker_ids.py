"""Several endpoints behind one address: IDs that name their worker, and what becomes of what goes astray."""

from __future__ import annotations

import pickle
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from stt_proto import Endpoint, WorkerIds
from stt_proto.crypto import hkdf
from stt_proto.errors import ArgumentError, StateError
from stt_proto.packet import ConnectionIdTable
from stt_proto.reception import SHOWN_PER_SECOND, STRAYS
from stt_proto.testing import SeededEntropy, World
from stt_proto.wire import Message, MessageType, encode_datagram
from tests.proto.fleet import SECRET, Client, Fleet, by_kernel
from tests.proto.worlds import PATH, filler, lone_endpoint

connection_ids = st.binary(min_size=8, max_size=8)
secrets = st.binary(min_size=32, max_size=32)


def local_ids(endpoint: Endpoint) -> list[bytes]:
    """Every connection ID that an endpoint routes."""
    return list(endpoint._context.connection_ids._owners)


# -- the hash ------------------------------------------------------------------------------------------------------


@given(secrets, connection_ids, st.integers(1, 64))
def test_the_hash_is_that_of_the_text(secret: bytes, connection_id: bytes, count: int) -> None:
    """C-7, read a second time, word by word."""
    key = hkdf(b"stt1 workers", secret, b"stt1 worker hash", 20)
    total, *multipliers = (int.from_bytes(key[at : at + 4]) for at in range(0, 20, 4))
    for at, multiplier in zip(range(0, 8, 2), multipliers, strict=True):
        total = (total + multiplier * int.from_bytes(connection_id[at : at + 2])) % (1 << 32)
    ids = WorkerIds(secret, 0, count)
    assert ids.worker_of(connection_id) == (total >> 16) * count >> 16
    assert 0 <= ids.worker_of(connection_id) < count
    assert ids.owns(connection_id) == (ids.worker_of(connection_id) == 0)


def test_a_known_answer() -> None:
    """C-7: the workers of a fleet may be of different releases for a while; this does not change by accident."""
    ids = WorkerIds(SECRET, 1, 5)
    assert [ids.worker_of(bytes([number] * 8)) for number in range(10)] == [3, 0, 2, 4, 1, 3, 0, 2, 4, 1]


@pytest.mark.parametrize("count", [2, 3, 4, 7, 64])
def test_ids_are_spread_evenly(count: int) -> None:
    """C-7: also IDs that differ in one place only, as a peer may choose them."""
    ids, draws = WorkerIds(SECRET, 0, count), 16_384
    entropy = SeededEntropy("even")
    for names in (
        [entropy(8) for _ in range(draws)],
        [number.to_bytes(8) for number in range(draws)],
        [(number << 48).to_bytes(8) for number in range(draws)],
    ):
        shares = Counter(map(ids.worker_of, names))
        assert len(shares) == count
        assert max(shares.values()) < 1.5 * draws / count
        assert min(shares.values()) > 0.5 * draws / count


def test_how_even_a_few_sessions_are() -> None:
    """Issue 6: of 8 random IDs one of 2 workers has under a quarter once in 14 times, of 64 practically never."""
    ids, entropy = WorkerIds(SECRET, 0, 2), SeededEntropy("few")

    def least(sessions: int) -> int:
        first = sum(ids.owns(entropy(8)) for _ in range(sessions))
        return min(first, sessions - first)

    rounds = 4000
    uneven = sum(least(8) < 2 for _ in range(rounds)) / rounds
    assert uneven == pytest.approx(18 / 256, abs=0.02)
    assert all(least(64) >= 16 for _ in range(rounds))


def test_another_secret_is_another_hash() -> None:
    """C-7: without the key an ID says nothing; under each of two keys half of a worker's IDs are another's."""
    ours, theirs = WorkerIds(SECRET, 0, 2), WorkerIds(bytes(32), 0, 2)
    entropy = SeededEntropy("two keys")
    own = [name for name in (entropy(8) for _ in range(8000)) if ours.owns(name)]
    assert sum(map(theirs.owns, own)) == pytest.approx(len(own) / 2, rel=0.06)


@pytest.mark.parametrize(
    ("secret", "index", "count", "wrong"),
    [
        (b"short", 0, 2, "secret"),
        ("x" * 32, 0, 2, "secret"),
        (SECRET, 0, 0, "count"),
        (SECRET, 0, 65, "count"),
        (SECRET, 0, 2.0, "count"),
        (SECRET, 2, 2, "index"),
        (SECRET, -1, 2, "index"),
        (SECRET, True, 2, "index"),
    ],
)
def test_what_it_takes(secret: Any, index: Any, count: Any, wrong: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        WorkerIds(secret, index, count)
    assert caught.value.argument == wrong


def test_the_key_is_a_secret() -> None:
    """C-7: it is not shown, and does not leave the process by accident."""
    ids = WorkerIds(SECRET, 0, 2)
    assert all(str(word) not in repr(ids) for word in ids.words)
    with pytest.raises(TypeError):
        pickle.dumps(ids)
    with pytest.raises(ArgumentError, match="worker_ids"):
        lone_endpoint(worker_ids="0 of 2")


@pytest.mark.parametrize("count", [2, 7])
def test_ids_of_one_worker_look_like_any(count: int) -> None:
    """C-7, C-6: no bit of an ID, and of no two IDs of a session, tells those without the key which worker it names."""
    entropy, draws = SeededEntropy("look"), 4000
    for secret in (SECRET, bytes(31) + b"1", bytes(32)):
        ids = WorkerIds(secret, 0, count)
        table: ConnectionIdTable[str] = ConnectionIdTable(entropy, ids.owns)
        issued = [int.from_bytes(table.issue("x")) for _ in range(draws)]
        pairs = [one ^ other for one, other in pairwise(issued)]
        for numbers in (issued, pairs):
            for bit in range(64):
                assert sum(number >> bit & 1 for number in numbers) == pytest.approx(draws / 2, rel=0.09)


# -- the IDs that are issued ---------------------------------------------------------------------------------------


@given(st.integers(2, 64), st.integers(0, 1 << 32), st.data())
@settings(max_examples=50)
def test_a_table_issues_what_will_do_only(count: int, seed: int, data: st.DataObject) -> None:
    """C-7: whatever is drawn."""
    ids = WorkerIds(SECRET, data.draw(st.integers(0, count - 1)), count)
    table: ConnectionIdTable[str] = ConnectionIdTable(SeededEntropy(str(seed)), ids.owns)
    issued = [table.issue("x") for _ in range(8)]
    assert all(map(ids.owns, issued))
    assert len(set(issued)) == 8


def test_a_source_that_repeats_itself_is_found_out() -> None:
    """C-7: draws are bounded."""
    ids, drawn = WorkerIds(SECRET, 0, 2), []
    name = next(name for name in (bytes([n] * 8) for n in range(99)) if not ids.owns(name))

    def entropy(size: int) -> bytes:
        drawn.append(size)
        return name

    with pytest.raises(StateError):
        ConnectionIdTable(entropy, ids.owns).issue("x")
    assert len(drawn) == 8192


def test_every_id_of_a_session_is_the_workers() -> None:
    """C-7: of handshakes, those that follow, those that replace retired ones, of dials, of resumptions."""
    fleet = Fleet(3)
    client = fleet.client("client")
    sessions = [fleet.dial(client) for _ in range(12)]
    fleet.wait(1.0)
    assert all(fleet.served_by())
    session = sessions[0]
    seen = [set(local_ids(worker)) for worker in fleet.workers]
    for turn in range(6):  # each address makes the peer use another ID, and retire one
        fleet.move(client, ("client", turn + 2), session)
        for ids, worker in zip(seen, fleet.workers, strict=True):
            ids.update(local_ids(worker))
    resumed = fleet.dial(client, ticket=session.ticket)
    assert resumed.resumed
    for ids, worker in zip(seen, fleet.workers, strict=True):
        ids.update(local_ids(worker))
        worker.connect(PATH, now=fleet.now)
        ids.update(local_ids(worker))
    assert sum(map(len, seen)) > 3 * len(sessions)
    for index, ids in enumerate(seen):
        assert all(map(fleet.ids[index].owns, ids))


def test_the_draws_are_those_of_the_entropy() -> None:
    """G-1: same inputs, same outputs."""
    first, second = ([local_ids(worker) for worker in made().workers] for _ in range(2))
    assert first == second


def made() -> Fleet:
    fleet = Fleet(2)
    client = fleet.client("client")
    for _ in range(4):
        fleet.dial(client)
    return fleet


# -- where things arrive -------------------------------------------------------------------------------------------


def test_a_router_with_the_key_leaves_nothing_to_be_handed_over() -> None:
    """C-8: handshakes, packets and new addresses, with no word between workers."""
    fleet = Fleet(4)
    client = fleet.client("client")
    sessions = [fleet.dial(client) for _ in range(8)]
    for turn in range(5):
        fleet.move(client, ("client", turn + 2), *sessions)
    assert all(session.is_active() for session in sessions)
    assert fleet.handed == []
    assert sum(fleet.served_by()) == 8


@pytest.mark.parametrize("count", [2, 5])
def test_what_goes_astray_is_served_all_the_same(count: int) -> None:
    """C-8: whoever gets a datagram first: the worker whose it is has the session, and nobody answers in its place."""
    fleet = Fleet(count)
    client = fleet.client("client")
    turn = iter(range(10**6))
    fleet.router = lambda datagram: next(turn) % count
    sessions = [fleet.dial(client) for _ in range(12)]
    fleet.wait(1.0)
    for number, session in enumerate(sessions):
        session.open_stream().write(b"%d" % number, fleet.now)
    fleet.wait(1.0)
    assert all(session.is_active() for session in sessions)
    assert sum(fleet.served_by()) == 12
    assert {stray.worker for stray in fleet.handed} == {index for index, n in enumerate(fleet.served_by()) if n}
    for index, worker in enumerate(fleet.workers):
        assert worker.counters.resets_sent == worker.counters.refused == worker.counters.misdirected == 0
        assert all(fleet.ids[index].owns(name) for name in local_ids(worker))


def test_marks_and_addresses_are_handed_over_too() -> None:
    """C-8, R-11: what is given out is all that arrived."""
    fleet = Fleet(2)
    name = next(name for name in (bytes([n] * 8) for n in range(99)) if fleet.ids[1].owns(name))
    packet = b"\x40" + name + filler(91)
    assert not fleet.workers[0].has_strays
    fleet.workers[0].receive(packet, PATH, 0.0, None, 2)
    assert fleet.workers[0].has_strays
    (stray,) = fleet.workers[0].strays()
    assert (stray.worker, stray.datagram, stray.path, stray.ecn) == (1, packet, PATH, 2)
    assert not fleet.workers[0].has_strays


@pytest.mark.parametrize("kind", MessageType)
def test_by_what_a_handshake_message_goes(kind: MessageType) -> None:
    """C-8: HELLO and RESUME by whom they are from, all others by whom they are to."""
    fleet = Fleet(2)
    ours, theirs = (next(n for n in (bytes([n] * 8) for n in range(99)) if ids.owns(n)) for ids in fleet.ids)
    first = kind in (MessageType.HELLO, MessageType.RESUME)
    dcid, scid = (ours, theirs) if first else (theirs, ours)
    for one, other, strays in ((dcid, scid, 1), (scid, dcid, 0)):
        fleet.workers[0].receive(encode_datagram(Message(kind, one, other, b"body")), PATH, 0.0)
        assert [stray.worker for stray in fleet.workers[0].strays()] == [1] * strays


def test_what_is_damaged_or_no_datagram_of_ours_is_not_handed_over() -> None:
    """C-8, W-1: workers do not trouble each other with rubbish."""
    fleet = Fleet(2)
    theirs = next(name for name in (bytes([n] * 8) for n in range(99)) if fleet.ids[1].owns(name))
    hello = encode_datagram(Message(MessageType.HELLO, bytes(8), theirs, b"body"))
    for rubbish in (hello[:-1] + b"\1", b"\x00" + theirs + filler(50), b"\x40" + theirs, b""):
        fleet.workers[0].receive(rubbish, PATH, 0.0)
    assert list(fleet.workers[0].strays()) == []


anything = st.builds(
    lambda first, rest: bytes((first,)) + rest,
    st.one_of(st.integers(0, 255), st.sampled_from([0x40, 0x60, 0xC1, 0xC3, 0xE8])),
    st.binary(max_size=60),
)


@given(st.lists(anything, max_size=20), st.integers(0, 3), st.integers(1, 61))
def test_nothing_that_arrives_raises(datagrams: list[bytes], worker: int, segment_size: int) -> None:
    """G-2, C-8: singly or in runs; what is given out as another's is, and came whole."""
    fleet = Fleet(4)
    endpoint = fleet.workers[worker]
    for datagram in datagrams:
        endpoint.receive(datagram, PATH, 0.0)
    for stray in endpoint.strays():
        assert stray.datagram in datagrams
        assert stray.worker is None or stray.worker == by_kernel(fleet.ids[0], stray.datagram) != worker
    endpoint.receive(b"".join(datagrams), PATH, 0.0, segment_size)
    assert all(stray.worker != worker for stray in endpoint.strays())


def test_strays_are_bounded() -> None:
    """C-8, 13: a host that does not take them loses the oldest."""
    fleet = Fleet(2)
    names = [name for name in (n.to_bytes(8) for n in range(4 * STRAYS)) if fleet.ids[1].owns(name)][: STRAYS + 5]
    worker = fleet.workers[0]
    for name in names:
        worker.receive(b"\x40" + name + filler(40), PATH, 0.0)
    strays = list(worker.strays())
    assert [stray.datagram[1:9] for stray in strays] == names[5:]
    assert worker.counters.strays_dropped == 5


# -- resets --------------------------------------------------------------------------------------------------------


def sole_session(fleet: Fleet, client: Client, worker: int) -> Any:
    """Dial until a worker has a session."""
    while not fleet.workers[worker].sessions:
        session = fleet.dial(client)
    fleet.wait(1.0)
    return session


def test_the_successor_of_a_worker_tells_its_sessions() -> None:
    """P-14, C-5: the reset key outlives the worker; the sessions of the others do not notice."""
    fleet = Fleet(2)
    client = fleet.client("client")
    sessions = [fleet.dial(client) for _ in range(8)]
    fleet.wait(1.0)
    before = fleet.served_by()
    assert min(before) > 0
    fleet.restart(0)
    for session in sessions:
        session.open_stream().write(b"are you there?", fleet.now)
    fleet.wait(2.0)
    ended = [session for session in sessions if session.is_closed]
    assert len(ended) == before[0]
    assert {session.close_error.code for session in ended} == {0x0201}
    assert fleet.served_by() == [0, before[1]]
    again = fleet.dial(client, ticket=ended[0].ticket)  # at either of them
    assert again.resumed


def test_a_packet_astray_resets_nothing() -> None:
    """C-8: all workers have the reset key; the one that got it by mistake must not use it."""
    fleet = Fleet(2)
    client = fleet.client("client")
    session = sole_session(fleet, client, 1)
    fleet.router = lambda datagram: 0
    session.open_stream().write(filler(5000), fleet.now)
    fleet.wait(1.0)
    assert session.is_active()
    assert fleet.workers[0].counters.resets_sent == 0


@pytest.mark.parametrize(("first", "named"), [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2)])
def test_a_reset_finds_its_session_wherever_it_arrives(first: int, named: int) -> None:
    """C-9: its ID is random, so it may name any worker; and it may be astray beside."""
    fleet = Fleet(3)
    client = fleet.client("client", reset_key=bytes(range(64)))
    sole_session(fleet, client, 1)
    peer = next(iter(fleet.workers[1].sessions.values()))
    before = [worker.sessions.copy() for worker in fleet.workers]
    name = next(name for name in (bytes([n] * 8) for n in range(99)) if fleet.ids[named].owns(name))
    fleet.router = lambda datagram: first
    to_client = next(iter(peer._engines.remote_ids._live.values()))[0]
    token = client.endpoint._context.reset_tokens.token(to_client)
    fleet.to_server(b"\x40" + name + filler(17) + token, PATH)
    assert peer.is_closed
    assert peer.close_error.code == 0x0201
    assert [len(had) - len(worker.sessions) for had, worker in zip(before, fleet.workers, strict=True)] == [0, 1, 0]


def test_what_is_shown_to_all_is_bounded() -> None:
    """C-9: a flood of what might be resets costs the other workers no more than so much."""
    fleet = Fleet(3)
    worker = fleet.workers[0]
    names = [name for name in (n.to_bytes(8) for n in range(9999)) if fleet.ids[0].owns(name)][:300]
    for name in names:
        worker.receive(b"\x40" + name + filler(30), PATH, 0.0)
    assert [stray.worker for stray in worker.strays()] == [None] * SHOWN_PER_SECOND
    worker.receive(b"\x40" + names[0] + filler(30), PATH, 1.0)
    assert len(list(worker.strays())) == 1
    for size in (19, 34):  # too short for one, too long
        worker.receive(b"\x40" + names[1] + filler(size), PATH, 9.0)
    worker.receive(b"\x60" + names[2] + filler(30), PATH, 9.0)  # part of a train
    assert list(worker.strays()) == []


def test_connections_are_of_one_worker() -> None:
    """C-8: what comes on a carrier that is reliable came to its end; there is nobody else to whom it could go."""
    world = World(1)
    server = world.node("server", worker_ids=WorkerIds(SECRET, 1, 4), max_concurrent_sessions=100)
    client = world.node("client")
    sessions = [client.connect(server, "stream") for _ in range(8)]
    world.run_until(lambda: all(session.is_active() for session in sessions))
    theirs = next(name for name in (bytes([n] * 8) for n in range(99)) if WorkerIds(SECRET, 0, 4).owns(name))
    for size in (30, 50):
        server.endpoint.receive(b"\x40" + theirs + filler(size), evolve(PATH, carrier="stream"), world.now)
    assert not server.endpoint.has_strays
    assert server.endpoint.counters.misdirected == 2


def test_an_endpoint_of_its_own_gives_out_nothing() -> None:
    """C-8: where there are no workers, what is unknown is answered as ever."""
    endpoint = lone_endpoint()
    for size in (30, 50):
        endpoint.receive(b"\x40" + filler(8 + size), PATH, 0.0)
    assert not endpoint.has_strays
    assert (endpoint.counters.misdirected, endpoint.counters.resets_sent) == (2, 1)
