"""What has happened to others, continued: incidents that anybody on the network can cause, and those of time.

The table of all of them stands in `test_incidents.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import pytest
from attrs import evolve

from stt_proto import Deadline, Endpoint, NetworkPath
from stt_proto.config import Limits
from stt_proto.errors import ConnectionTimeoutError
from stt_proto.events import HandshakeFailed, SessionClosed, SessionDetached, SessionEstablished
from stt_proto.testing import BROADBAND, Conditions, Entry, Inbox, World, send, tables
from stt_proto.wire import (
    Hello,
    Message,
    MessageType,
    Refused,
    Retry,
    VersionList,
    decode_datagram_untrusted,
    encode_datagram,
    encode_pieces,
)
from tests.proto.handshake_world import Entropy, spoofed_hello
from tests.proto.insider import memory
from tests.proto.scenario import scene
from tests.proto.worlds import assert_empty, back, filler, sealed, session_pair

# -- empty datagrams -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("datagram", "segment_size", "counted"), [(b"", None, 1), (b"", 1, 1), (b"\0" * 50, 1, 50)])
def test_zero_length_datagrams(datagram: bytes, segment_size: int | None, counted: int) -> None:
    """CVE-2026-11352 [they cost nothing, so they were not counted]. G-3: dropped, and each one is counted.

    That each counts against what a host reads at once: `test_one_wake_up_reads_so_much_and_no_more`.
    """
    pair = session_pair()
    endpoint = pair.server.endpoint
    before, log = tables(endpoint), len(pair.server.log)
    for _ in range(2000):
        endpoint.receive(datagram, pair.peer.path, pair.now, segment_size)
    assert endpoint.counters.malformed == 2000 * counted
    assert list(endpoint.transmits(pair.now)) == []
    pair.server.pump()
    assert (tables(endpoint), len(pair.server.log)) == (before, log)


# -- reply loops ---------------------------------------------------------------------------------------------------


def strangers_words() -> dict[str, bytes]:
    """One datagram of each kind that takes no key."""
    entropy = Entropy("stranger")
    bodies = {
        MessageType.CHALLENGE: filler(1100, 1),
        MessageType.AUTH_PROOF: filler(1168, 2),
        MessageType.RETRY: Retry(entropy(16), entropy(17)).encode(),
        MessageType.REFUSED: Refused(entropy(16), 0x0102).encode(),
        MessageType.VERSION: VersionList(entropy(16), (9,), (9,)).encode(),
        MessageType.ABORT: filler(18, 3),
    }
    words = {kind.name: encode_datagram(Message(kind, entropy(8), entropy(8), body)) for kind, body in bodies.items()}
    words["HELLO"] = spoofed_hello(Entropy("one"))
    words["HELLO of another version"] = spoofed_hello(Entropy("two"), versions=(9,))
    words["HELLO of another suite"] = spoofed_hello(Entropy("three"), suites=(9,))
    words["piece"] = encode_pieces(Message(MessageType.CHALLENGE, entropy(8), entropy(8), filler(3000)), 1200)[0]
    words |= {f"packet of {size}": b"\x40" + filler(size - 1, size) for size in (14, 29, 42, 43, 44, 1200)}
    words |= {"segment": b"\x60" + filler(1199), "empty": b"", "noise": b"\x3f" + filler(1199)}
    return words


WORDS = strangers_words()


@pytest.mark.parametrize("name", WORDS)
def test_nothing_that_answers_is_answered(name: str) -> None:
    """aioquic 635 [a negotiation answered by a negotiation]. H-28, P-14: a forged address sets off no conversation."""
    world = World(1, record=True)
    one, two = world.node("one"), world.node("two")
    world.send(WORDS[name], one.path_to(two))  # as if `one` had sent it
    world.run(60.0)
    assert world.transcript is not None
    answers = world.transcript.between(two.address, one.address)
    assert len(world.transcript.between(one.address, two.address)) == 1
    assert len(answers) <= 2
    assert sum(len(entry.data) for entry in answers) <= 3 * len(WORDS[name])
    assert_empty(one, two)


def test_two_that_have_forgotten_each_other() -> None:
    """P-14 [resets for resets]: two nodes that have restarted get packets of the old session: one reset each."""
    pair = session_pair()
    old = {node: sealed(side, b"\x01") for node, side in ((pair.server, pair.session), (pair.client, pair.peer))}
    packet = sealed(pair.session, filler(0) + bytes(60))[0]
    pair.client.restart()
    pair.server.restart()
    seen: list[bytes] = []
    pair.world.taps.append(lambda datagram, _: seen.append(datagram) or datagram)
    for node, path in ((pair.server, pair.peer.path), (pair.client, pair.session.path)):
        node.receive(old[node][0], path)
        node.receive(packet, path)
    pair.world.run(60.0)
    assert len(seen) == 2
    assert all(len(datagram) <= 42 for datagram in seen)
    assert_empty(pair.client, pair.server)


@pytest.mark.parametrize("how", ["close", "abort"])
def test_two_that_close(how: str) -> None:
    """K-3 [last words about last words]: both end at once, and all arrives twice: few answers, then silence."""
    pair = session_pair(1, Conditions(duplicate=1.0, delay=0.02))
    seen: list[float] = []
    pair.world.taps.append(lambda datagram, _: seen.append(pair.now) or datagram)
    for side in (pair.session, pair.peer):
        side.close(pair.now) if how == "close" else side.abort(pair.now)
    pair.settle(60.0)
    assert 2 <= len(seen) <= 2 * 16
    assert seen[-1] < pair.now - 50.0
    assert_empty(pair.client, pair.server)


def test_acknowledgements_of_acknowledgements() -> None:
    """R-1: a pair that has nothing to say says nothing until it is time for a sign of life; that is four datagrams."""
    pair = session_pair(1, Conditions(duplicate=1.0))
    pair.session.open_stream().write(b"something", pair.now)
    pair.settle(1.0)
    seen: list[float] = []
    pair.world.taps.append(lambda datagram, _: seen.append(pair.now) or datagram)
    pair.settle(8.0)
    assert seen == []
    pair.settle(5.0)
    assert 2 <= len(seen) <= 4


def test_a_peer_with_the_shortest_patience() -> None:
    """K-4: who announces to give up after 110 ms is asked every 37 ms, and no oftener."""
    impatient = {"keep_alive_interval": 0.05, "keep_alive_timeout": 0.11}
    pair = session_pair(1, Conditions(delay=0.005), server=impatient)
    seen: list[bytes] = []
    pair.world.taps.append(lambda datagram, path: (path == pair.session.path and seen.append(datagram)) or datagram)
    pair.settle(10.0)
    assert pair.session.is_active()
    assert pair.peer.is_active()
    assert 200 < len(seen) <= 10.0 / 0.036


# -- handshakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["dialling", "half-open", "established"])
def test_handshake_bytes_without_end(stage: str) -> None:
    """CVE-2024-1765, aioquic 501 [100 GB in 90 s]. W-3, H-30: four groups of pieces a handshake, none for a session."""
    world = World(1)
    client, server = world.node("client"), world.node("server")
    session = client.connect(server)
    cid, path, node = session._initiator.local_cid, session.path, client  # type: ignore[union-attr]
    if stage != "dialling":
        world.run_until(lambda: tables(server.endpoint)["half-open"])
        cid, path, node = next(iter(server.endpoint._responder._by_cid)), back(path), server
    if stage == "established":
        world.run_until(session.is_active)
        world.run(1.0)
    kind = MessageType.CHALLENGE if stage == "dialling" else MessageType.AUTH_PROOF
    pieces = [
        piece
        for number in range(500)
        for piece in encode_pieces(Message(kind, cid, filler(8, number), filler(8192, number)), 1200)[1:]
    ]
    with memory() as taken:
        for piece in pieces:
            node.endpoint.receive(piece, path, world.now)
            assert tables(node.endpoint)["pieces"] <= (0 if stage == "established" else 4)
        assert taken() < 2 * 4 * 8192
    node.pump()
    world.run_until(session.is_active)


@pytest.mark.parametrize("run", [False, True])
def test_packets_without_end_before_the_keys(run: bool) -> None:
    """CVE-2025-54939 [junk before the handshake was kept]. H-26: ten packets and 16 KiB, in runs as one by one."""
    world = World(1)
    client, server = world.node("client"), world.node("server")
    client.connect(server)
    world.run_until(lambda: tables(server.endpoint)["half-open"])
    cid = next(iter(server.endpoint._responder._by_cid))
    path = server.path_to(client)
    junk = [b"\x40" + cid + filler(1191, number) for number in range(640)]
    runs = [b"".join(junk[start : start + 64]) for start in range(0, 640, 64)] if run else junk
    with memory() as taken:
        for datagrams in runs:
            server.endpoint.receive(datagrams, path, world.now, 1200)
        assert taken() < 40_000
    assert server.endpoint.counters.overtaking == 640 - 10


def with_cookies(server: Endpoint, count: int, now: float) -> Iterator[int]:
    """Somebody who has many addresses sends HELLOs from all of them, and shows the cookies that he is sent."""
    for number in range(count):
        entropy, path = Entropy(number), NetworkPath("udp", ("server", 1), (f"10.0.{number >> 8}.{number & 255}", 9))
        first = spoofed_hello(entropy)
        server.receive(first, path, now)
        for transmit in list(server.transmits(now)):
            answer = decode_datagram_untrusted(b"".join(transmit.buffers))
            if isinstance(answer, Message) and answer.type is MessageType.RETRY:
                message = decode_datagram_untrusted(first)
                assert isinstance(message, Message)
                shown = evolve(Hello.decode_untrusted(message.body), cookie=Retry.decode_untrusted(answer.body).cookie)
                server.receive(encode_datagram(message._replace(body=shown.encode()), 1200), path, now)
        yield number


def test_half_open_handshakes_with_true_addresses() -> None:
    """CVE-2026-14456 [a queue of newcomers without a bound]. H-21: also who can show a cookie is one of so many."""
    limits = Limits(half_open=64, half_open_without_cookie=8)
    world = World(1)
    server = world.node("server", limits=limits, handshake_timeout=3.0)
    with memory() as taken:
        for number in with_cookies(server.endpoint, 400, 0.0):
            held = tables(server.endpoint)
            assert held["half-open"] <= 64
            assert held["connection IDs"] <= 64
            assert held["answers"] <= 2
            if number % 100 == 99:
                world.run(0.1)
        assert taken() < 64 * 20_000
    assert tables(server.endpoint)["half-open"] == 64
    world.run(4.0)
    session = world.node("honest").connect(server)
    world.run_until(session.is_active, timeout=2.0)


def test_replies_forged_blindly() -> None:
    """tailscale-rs 334 [a forged reply made the client forget its handshake]. H-12, H-14: who cannot see cannot end.

    Not even when he has guessed the connection IDs: he does not know the hash of the HELLO.
    `test_watchers.test_a_watcher_does_not_end_a_dial` is the same with somebody who sees every datagram.
    """
    world = World(1, Conditions(delay=0.05), record=True)
    client, server = world.node("client"), world.node("server")
    session = client.connect(server)
    world.run(0.02)
    entropy = Entropy("blind")
    assert world.transcript is not None
    hello = world.transcript.entries[0].data
    for number in range(500):
        name = entropy(16)
        to, from_ = (hello[17:25], hello[9:17]) if number % 2 else (entropy(8), entropy(8))
        for kind, body in (
            (MessageType.RETRY, Retry(name, entropy(17)).encode()),
            (MessageType.REFUSED, Refused(name, 0x0102).encode()),
            (MessageType.VERSION, VersionList(name, (9,), (9,)).encode()),
            (MessageType.CHALLENGE, name + bytes((1, 1)) + entropy(32 + 32 + 1200 + 48 + 40)),
            (MessageType.ABORT, entropy(18)),
        ):
            for datagram in encode_pieces(Message(kind, to, from_, body), 1200):
                client.receive(datagram, session.path)
        client.receive(b"\x40" + to + entropy(90), session.path)
    world.run_until(session.is_active, timeout=0.2)
    assert client.events(HandshakeFailed) == []
    assert tables(client.endpoint)["pieces"] == 0
    said = [entry.kind for entry in world.transcript.between(client.address, server.address)]
    assert [kind for kind in said if kind != "packet"] == ["HELLO", "AUTH_PROOF"]


# -- trains --------------------------------------------------------------------------------------------------------

FAST = Conditions(delay=0.002, rate=200e6)


def longest_train(entries: list[Entry]) -> int:
    """Datagrams of the longest train that was sent."""
    return max((int(entry.kind.rpartition("/")[2]) + 1 for entry in entries if "segment" in entry.kind), default=1)


def test_a_forged_segment_in_every_train() -> None:
    """P-9, P-10, P-16 [forged segments]: a watcher who spoils each train makes it slower, as long as he goes on.

    CVE-2026-40898 and CVE-2026-44433: what was spoilt is forgotten in time.
    """
    case = scene(FAST)
    session = case.dial()
    spoiling = True
    forged = 0

    def spoil(datagram: bytes, path: NetworkPath) -> bytes:
        """Just before the last segment of a train, send another one in place of the one before it."""
        nonlocal forged
        is_segment = path.local == case.client.address and datagram[0] & 0xE0 == 0x60
        if spoiling and is_segment and datagram[13] == datagram[14]:
            forged += 1
            bad = datagram[:13] + bytes((datagram[13] - 1, datagram[14])) + filler(1185, forged)
            for arrival in case.there.carry(bad, case.world.now):
                case.world.at(arrival.at, partial(case.server.receive, bad, back(path)))
        return datagram

    case.upload(session, 3_000_000)
    quiet = len(case.wire)
    assert longest_train(case.wire.entries) >= 8
    case.world.taps.append(spoil)
    case.upload(session, 3_000_000)
    attacked = case.wire.entries[quiet:]
    (peer,) = case.server.sessions
    assert peer._engines is not None
    assert forged >= 1
    assert peer._engines.receiver.counters.trains_failed >= 1
    trains = [entry.at for entry in attacked if entry.kind.startswith("segment 0/")]
    assert 0 < len(trains) <= 40, "after the first of them had failed it went on without"
    assert attacked[-1].at - trains[-1] > 0.1
    spoiling = False
    case.world.run(3.0)
    assert len(peer._engines.receiver.trains) == 0
    rest = len(case.wire)
    case.upload(session, 3_000_000)
    assert longest_train(case.wire.entries[rest:]) >= 8, "and then trains go again"
    case.finish(session)


def test_segments_that_push_out_every_train() -> None:
    """P-9, P-10, P-16: a watcher who floods the places of incomplete trains makes a session slower, as long as he does.

    Trains that were pushed out counted nowhere. None of them was ever complete, so the sender took all of that for
    losses of the network and went on with trains, of which not one arrived.
    """
    case = scene(FAST)
    session = case.dial()
    flooding, junk = True, 0

    def flood(datagram: bytes, path: NetworkPath) -> bytes:
        """Before the last segment of a train, send one segment of each of 32 others."""
        nonlocal junk
        is_segment = path.local == case.client.address and datagram[0] & 0xE0 == 0x60
        if flooding and is_segment and datagram[13] == datagram[14]:
            for _ in range(32):
                junk += 1
                other = datagram[:9] + filler(4, junk) + bytes((1, 63)) + filler(60, junk)
                for arrival in case.there.carry(other, case.world.now):
                    case.world.at(arrival.at, partial(case.server.receive, other, back(path)))
        return datagram

    case.upload(session, 3_000_000)
    quiet = len(case.wire)
    assert longest_train(case.wire.entries) >= 8
    case.world.taps.append(flood)
    case.upload(session, 3_000_000)
    (peer,) = case.server.sessions
    assert peer._engines is not None
    counters = peer._engines.receiver.counters
    assert counters.trains_evicted >= 32
    assert counters.trains_failed == 0
    attacked = case.wire.entries[quiet:]
    trains = [entry.at for entry in attacked if entry.kind.startswith("segment 0/")]
    assert 0 < len(trains) <= 40, "after the first of them had been pushed out it went on without"
    flooding = False
    case.world.run(3.0)
    rest = len(case.wire)
    case.upload(session, 3_000_000)
    assert longest_train(case.wire.entries[rest:]) >= 8, "and then trains go again"
    case.finish(session)


@pytest.mark.parametrize(
    ("sessions", "trains", "segments", "limits", "held"),
    [
        (1, 100, 1, Limits(), 32),
        (1, 32, 63, Limits(), 31),
        (6, 30, 2, Limits(train_bytes_in_all=128 << 10), 60),
    ],
    ids=["trains of a session", "bytes of a session", "bytes of all sessions"],
)
def test_segments_without_end(sessions: int, trains: int, segments: int, limits: Limits, held: int) -> None:
    """CVE-2026-44434 [reassembly without a bound]. P-9: 32 trains, 2 MiB a session, and so many bytes an endpoint."""
    world = World(1)
    client, server = world.node("client"), world.node("server", limits=limits)
    dials = [client.connect(server) for _ in range(sessions)]
    world.run_until(lambda: all(session.is_active() for session in dials))
    world.run(1.0)
    path = back(dials[0].path)
    cids = [session._engines.remote_ids.current for session in dials]  # type: ignore[union-attr]
    flood = [
        b"\x60" + cid + filler(4, (cid, number)) + bytes((index, 63)) + filler(985, (cid, number, index))
        for number in range(trains)
        for cid in cids
        for index in range(1, 1 + segments)
    ]
    budget = server.endpoint._context.train_budget
    most = min(limits.train_bytes * sessions, limits.train_bytes_in_all)
    with memory() as taken:
        for segment in flood:
            server.endpoint.receive(segment, path, world.now)
            assert budget.cost <= most
        assert taken() < 1.5 * min(most, len(flood) * 1085)
    assert len(budget) <= held
    assert all(session.is_active() for session in dials)
    server.pump()
    world.run(5.0)
    assert len(budget) == budget.cost == 0


# -- time ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["client", "server"])
@pytest.mark.parametrize("jump", [-1.0, 3.0, 86_400.0])
def test_a_clock_that_jumps(who: str, jump: float) -> None:
    """R-10, DESIGN 3 "Time": clocks that step back cost as much lateness; one that leaps a day costs a question."""
    case = scene(evolve(BROADBAND, loss=0.01))
    session = case.dial()
    node = case.client if who == "client" else case.server
    for at in (0.5, 1.1, 1.7):
        case.world.at(at, partial(node.jump_clock, jump))
    taken = case.upload(session, 2_000_000)
    assert case.world.now > 1.7
    assert taken < 12.0
    case.world.run(30.0)
    for at in (1.0, 15.0):
        case.world.at(case.world.now + at, partial(node.jump_clock, jump))
    case.world.run(60.0)
    assert session.is_active()
    for side in (case.client, case.server):
        assert not side.events(SessionDetached), "it would come back from that, too"
    case.upload(session, 1000)
    session.abort(case.client.now)
    case.world.assert_idle()


@pytest.mark.parametrize("jump", [-1.0, 86_400.0])
def test_a_clock_that_jumps_in_a_handshake(jump: float) -> None:
    """The same while dialling: it comes up, or it fails for the time; nothing is left half done."""
    for at in (0.005, 0.02, 0.035, 0.05):
        for which in range(2):
            case = scene()
            node = (case.client, case.server)[which]
            case.world.at(at, partial(node.jump_clock, jump))
            session = case.client.connect(case.server)
            case.world.run_until(lambda session=session: session.is_active() or session.is_closed)
            assert session.is_active() or isinstance(session.close_error, ConnectionTimeoutError)
            session.abort(case.client.now)
            case.world.assert_idle(within=60.0)


def test_timers_that_fire_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """websockets 625, 1128 [keep-alive against a busy loop]. R-10: a transfer gets slower, and nobody is given up."""
    deadline = Endpoint.next_deadline
    late = 0.4

    def next_deadline(self: Endpoint) -> Deadline | None:
        due = deadline(self)
        return None if due is None else Deadline(due.at + late, due.reason)

    monkeypatch.setattr(Endpoint, "next_deadline", next_deadline)
    case = scene(evolve(BROADBAND, loss=0.02))
    session = case.dial()
    assert case.upload(session, 500_000) < 30.0
    assert case.there.traffic.lost > 0
    late = 25.0
    case.world.run(300.0)
    assert session.is_active()
    for side in (case.client, case.server):
        assert not side.events(SessionDetached)
    late = 0.4
    case.finish(session)


@pytest.mark.parametrize("sends", [True, False])
def test_ticks_by_the_thousand(sends: bool) -> None:
    """hypercorn 201 [a timer handled without end: back-off beyond all numbers]. R-5: a tick too early is nothing.

    Also where nothing is taken to be sent meanwhile, so that what the timer asks for never happens.
    """
    case = scene()
    session = case.dial()
    send(case.client, session, filler(100_000))
    case.world.run(0.05)
    case.world.outage(case.client, case.server, case.world.now, 20.0)
    before = case.there.traffic.sent
    recovery = session._engines.path.recovery  # type: ignore[union-attr]
    if not sends:
        case.client.awake = False
    for _ in range(20_000):
        case.world.run(0.001)
        case.client.endpoint.tick(case.client.now)
        case.client.endpoint.tick(case.client.now)
        case.client.pump()
        case.client.endpoint.next_deadline()
    assert recovery.pto_count <= 12
    assert case.there.traffic.sent - before <= (2 * 12 + 25 if sends else 0)
    case.client.resume()
    case.world.run_until(lambda: case.inbox.complete, timeout=15.0)
    case.finish(session)


@pytest.mark.parametrize(("delay", "outage"), [(0.015, 60.0), (0.3, 600.0), (0.015, 4 * 3600.0)])
def test_a_long_outage_is_over_soon_after_it_ends(delay: float, outage: float) -> None:
    """R-5: the back-off ends after six doublings and at 10 s; so far does a transfer lag behind a network that is back.

    A thousand doublings, as in four hours, are beyond what a float can hold.
    """
    patient = {"keep_alive_interval": 3600.0, "keep_alive_timeout": 86_400.0}
    case = scene(evolve(BROADBAND, delay=delay), client=patient, server=patient)
    session = case.dial()
    case.world.outage(case.client, case.server, 2.0, outage)
    case.upload(session, 4_000_000, timeout=outage + 120.0)
    answers = case.wire.between(case.server.address, case.client.address)
    again = next(entry.arrivals[0] for entry in answers if entry.at >= 2.0 + outage)
    assert again <= 2.0 + outage + 10.0 + 4 * delay
    probes = [entry.at for entry in case.wire.having("cut") if entry.source == case.client.address and entry.at > 5.0]
    waits = [late - early for early, late in pairwise(probes) if late > early]
    assert max(waits) <= 10.0 + 1e-9
    assert len(probes) >= 2 * (outage / 10.0 - 3)
    case.finish(session)


def test_a_world_of_incidents_leaves_nothing() -> None:
    """CVE-2024-45311 [an index that outlived its session]: all tables agree with the sessions there are, always."""
    world = World(1, Conditions(loss=0.1, duplicate=0.1, reorder=0.2, corrupt=0.05))
    server = world.node("server", limits=Limits(half_open_without_cookie=2), max_concurrent_sessions=6)
    clients = [world.node(f"client {number}") for number in range(4)]
    Inbox(server)
    for turn in range(60):
        client = clients[turn % 4]
        session = client.connect(server)
        send(client, session, filler(3000, turn))
        world.run(world.random.uniform(0.0, 0.3))
        if turn % 3 == 0:
            session.abort(world.now)
        elif turn % 3 == 1:
            session.close(world.now)
        if turn % 10 == 9:
            server.restart()
            Inbox(server)
        for node in (server, *clients):
            held = tables(node.endpoint)
            ours = held["sessions begun"] + held["sessions that linger"]
            assert held["sessions"] <= held["sessions begun"]
            assert held["connection IDs"] <= 5 * ours + held["half-open"]
            assert held["reset tokens"] <= 4 * ours
    for client in clients:
        for session in list(client.endpoint._context.live):
            session.abort(world.now)
    world.assert_idle(within=60.0)
    assert server.events(SessionEstablished)
    assert server.events(SessionClosed)
