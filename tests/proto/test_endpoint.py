"""The endpoint: whose is it, and who may come in."""

from __future__ import annotations

import pytest
from attrs import evolve

from stt_proto import CarrierTraits, Config, NetworkPath, Session
from stt_proto.errors import (
    ArgumentError,
    AuthenticationError,
    ConnectionRefusedError,
    ConnectionTimeoutError,
    TooManySessionsError,
)
from stt_proto.events import HandshakeFailed, SessionEstablished, StreamReadable
from stt_proto.packet import run_end
from stt_proto.testing import World, tables
from stt_proto.wire import Datagram, MessageType, Ping
from tests.proto.worlds import (
    IDENTITY,
    PATH,
    Mover,
    assert_empty,
    back,
    datagrams_of,
    filler,
    lone_endpoint,
    many_sessions,
    sealed,
    serve_echo,
    session_pair,
)
from tests.worlds import bounds

# -- routing -------------------------------------------------------------------------------------------------------


def test_many_sessions_between_two_addresses() -> None:
    """C-1, C10: the connection ID routes, not the address; each session has its own streams and its own end."""
    world, client, _, sessions, peers = many_sessions(5)
    assert len({session.session_id for session in sessions}) == 5
    streams = [session.open_stream() for session in sessions]
    for number, stream in enumerate(streams):
        stream.write(b"%d" % number, world.now)
    client.pump()
    world.run(0.2)
    assert [stream.read(10, world.now) for stream in streams] == [b"%d" % number for number in range(5)]
    sessions[2].abort(world.now)
    client.pump()
    world.run(0.2)
    assert [peer.is_closed for peer in peers] == [False, False, True, False, False]
    assert [session.is_active() for session in sessions] == [True, True, False, True, True]


def test_a_run_of_datagrams_for_several_sessions() -> None:
    """DESIGN 3, "In" (GRO): a run is cut where the connection ID changes, and nothing in it is lost."""
    world, _, server, sessions, peers = many_sessions(3)
    order = [0, 0, 1, 2, 2, 2, 0, 1, 1, 0]
    run = b"".join(sealed(sessions[which], Datagram(b"%03d" % turn))[0] for turn, which in enumerate(order))
    size = len(run) // len(order)
    short = sealed(sessions[0], Ping())[0]
    assert len(short) < size
    server.endpoint.receive(run + short, peers[0].path, world.now, segment_size=size)
    for which, peer in enumerate(peers):
        expected = [b"%03d" % turn for turn, other in enumerate(order) if other == which]
        received = []
        while (data := peer.receive_datagram()) is not None:
            received.append(data)
        assert received == expected


def test_a_run_of_all_sorts() -> None:
    """G-2: packets, handshakes, strangers and rubbish in one run: each is taken for what it is."""
    pair = session_pair()
    dialler = pair.world.node("dialler")
    dialler.endpoint.connect(dialler.path_to(pair.server), now=pair.now)
    (hello,) = datagrams_of(dialler, pair.now)
    (packet,) = sealed(pair.session, Datagram(filler(1200 - 13 - 16 - 3)))
    stranger = b"\x40" + filler(1199)
    rubbish = b"\x00" + filler(1199)
    before = evolve(pair.server.endpoint.counters)
    run = packet + hello + stranger + rubbish + hello[:-1] + b"\x01" + packet + b"\x40"
    pair.server.endpoint.receive(run, pair.peer.path, pair.now, segment_size=1200)
    counters = pair.server.endpoint.counters
    assert pair.peer.receive_datagram() is not None
    assert pair.peer.stats().receive_errors == 1, "the second copy was replayed"
    assert tables(pair.server.endpoint)["half-open"] == 1
    assert counters.damaged - before.damaged == 1
    assert counters.misdirected - before.misdirected == 1
    assert counters.malformed - before.malformed == 2
    assert counters.resets_sent - before.resets_sent == 1


@pytest.mark.parametrize("size", range(1, 30))
@pytest.mark.parametrize("first", [0x00, 0x40, 0x60, 0x80, 0xC1, 0xE2])
def test_runs_of_tiny_datagrams(size: int, first: int) -> None:
    """G-2: a system coalesces what anybody sends, of any size."""
    node = lone_endpoint()
    node.receive((bytes((first,)) + filler(size - 1)) * 7 + b"\x40", PATH, 0.0, segment_size=size)
    node.receive(bytes((first,)) * size, PATH, 0.0, segment_size=size)
    counters = node.counters
    assert counters.malformed + counters.misdirected + counters.damaged == 9
    assert counters.resets_sent == 0


def test_run_end_of_the_packet_room_is_only_asked_about_packets() -> None:
    """Its contract is a first datagram of at least 13 bytes; the endpoint keeps to that."""
    assert run_end(memoryview(bytes(13) * 3), 0, 39, 13) == 39


def test_nothing_at_all() -> None:
    node = lone_endpoint()
    for segment_size in (None, 1, 100):
        node.receive(b"", PATH, 0.0, segment_size)
    assert node.counters.malformed == 3


# -- accepting and refusing ----------------------------------------------------------------------------------------


def test_not_accepting() -> None:
    """H-28: REFUSED 0x0102; `ConnectionRefusedError`, after the grace."""
    world = World(1)
    client, server = world.node("client"), world.node("server")
    server.endpoint.accepting = False
    session = client.connect(server)
    world.run_until(lambda: session.is_closed)
    assert isinstance(session.close_error, ConnectionRefusedError)
    assert session.close_error.code == 0x0102
    assert world.now < 2.0
    assert_empty(client, server)
    server.endpoint.accepting = True
    again = client.connect(server)
    world.run_until(again.is_active)


def test_not_accepting_any_more() -> None:
    """H-29: who has begun already is refused after AUTH_PROOF, by SESSION_CLOSE."""
    world = World(1)
    client, server = world.node("client"), world.node("server")
    session = client.connect(server)
    world.run_until(lambda: tables(server.endpoint)["half-open"])
    server.endpoint.accepting = False
    world.run_until(lambda: session.is_closed)
    assert isinstance(session.close_error, ConnectionRefusedError)
    assert server.events(HandshakeFailed) == [HandshakeFailed(back(session.path), "refused")]
    world.run(3.0)
    assert_empty(client, server)


def test_the_session_limit() -> None:
    """H-28: the 101st gets `TooManySessionsError`, and the first 100 do not notice."""
    world = World(1)
    server = world.node("server")
    serve_echo(server)
    clients = [world.node(f"client {number}") for number in range(101)]
    sessions = [client.connect(server) for client in clients[:100]]
    world.run_until(lambda: len(server.endpoint.sessions) == 100)
    first_bytes: list[int] = []
    world.taps.append(lambda datagram, _: first_bytes.append(datagram[0]) or datagram)
    last = clients[100].connect(server)
    world.run_until(lambda: last.is_closed)
    assert isinstance(last.close_error, TooManySessionsError)
    handshakes = {first for first in first_bytes if first & 0x80}
    assert handshakes == {0xC0 | MessageType.HELLO, 0xC0 | MessageType.REFUSED}
    assert all(session.is_active() for session in sessions)
    streams = [session.open_stream() for session in sessions]
    for client, stream in zip(clients, streams, strict=False):
        stream.write(b"still here", world.now)
        client.pump()
    world.run(1.0)
    assert all(stream.read(100, world.now) == b"still here" for stream in streams)
    sessions[0].close(world.now)
    clients[0].pump()
    world.run(1.0)
    again = clients[100].connect(server)
    world.run_until(again.is_active)


def test_the_limit_counts_when_it_matters() -> None:
    """H-29: of those who passed HELLO together, only as many get in as there is room for."""
    world = World(1)
    server = world.node("server", max_concurrent_sessions=2)
    clients = [world.node(f"client {number}") for number in range(4)]
    sessions = [client.connect(server) for client in clients]
    world.run(3.0)
    assert sorted(type(session.close_error).__name__ for session in sessions) == [
        "NoneType",
        "NoneType",
        "TooManySessionsError",
        "TooManySessionsError",
    ]
    assert {event.reason for event in server.events(HandshakeFailed)} == {"too_many_sessions"}
    assert len(server.endpoint.sessions) == 2


def test_dials_count_too() -> None:
    """H-28: an endpoint that is full does not dial."""
    world = World(1)
    client, server = world.node("client", max_concurrent_sessions=2), world.node("server")
    for _ in range(2):
        client.connect(server)
    with pytest.raises(TooManySessionsError):
        client.connect(server)


def test_admit() -> None:
    """DESIGN 3, "Accepting": asked once, after AUTH_PROOF, before there is a session; a pure function."""
    world = World(1)
    friends: set[bytes] = set()
    asked: list[bytes] = []

    def admit(peer_node_id: bytes, path: NetworkPath, now: float) -> int | None:
        asked.append(peer_node_id)
        assert path.remote in (("friend", 1), ("foe", 1))
        return None if peer_node_id in friends else ConnectionRefusedError.code

    server = world.node("server", admit=admit)
    friend, foe = world.node("friend"), world.node("foe")
    friends.add(friend.config.identity.node_id)
    good, bad = friend.connect(server), foe.connect(server)
    world.run(3.0)
    assert good.is_active()
    assert isinstance(bad.close_error, ConnectionRefusedError)
    assert sorted(asked) == sorted(node.config.identity.node_id for node in (friend, foe))
    assert [type(event) for _, session, event in server.log if session is None] == [HandshakeFailed]
    assert len(server.events(SessionEstablished)) == 1
    assert_empty(foe)


@pytest.mark.parametrize("answer", [-1, 1 << 62, "no", True, 1.0])
def test_admit_that_gives_nonsense(answer: object) -> None:
    """Whoever does not answer properly lets nobody in, and hears of it; nothing is left of the peer."""
    world = World(1)
    client, server = world.node("client"), world.node("server", admit=lambda *_: answer)  # type: ignore[arg-type,return-value]
    client.connect(server)
    with pytest.raises(ArgumentError) as caught:
        world.run(1.0)
    assert caught.value.argument == "admit"
    assert_empty(server)


def test_admit_that_fails() -> None:
    """It is the host's own function: what it raises is not hidden."""
    world = World(1)

    def admit(*_: object) -> int | None:
        raise LookupError("no such table")

    client, server = world.node("client"), world.node("server", admit=admit)
    client.connect(server)
    with pytest.raises(LookupError):
        world.run(1.0)
    assert_empty(server)


def test_one_report_a_second_and_source() -> None:
    """H-32: `HandshakeFailed` at most once a second and source, and the memory for that is bounded."""
    world = World(1)
    server = world.node("server", admit=lambda *_: 0x0102)
    clients = [world.node(f"client {number}") for number in range(4)]
    for _ in range(3):
        for client in clients:
            client.connect(server)
    world.run(1.1)
    assert len(server.events(HandshakeFailed)) == 4
    clients[0].connect(server)
    world.run(1.5)
    assert len(server.events(HandshakeFailed)) == 5


def test_reports_are_remembered_for_few_sources() -> None:
    """H-32, 13: the longest unheard source goes first."""
    world = World(1)
    limits = evolve(Config(identity=IDENTITY, shared_seed="x").limits, failure_reports=2)
    server = world.node("server", admit=lambda *_: 0x0102, limits=limits)
    for number in range(5):
        world.node(f"client {number}").connect(server)
    world.run(3.0)
    assert len(server.endpoint._reports) == 2


def test_a_full_table_of_half_open_handshakes() -> None:
    """H-21: a HELLO with a cookie pushes out the oldest that came without; that one is reported, and leaves nothing."""
    world = World(1)
    limits = evolve(Config(identity=IDENTITY, shared_seed="x").limits, half_open=1, half_open_without_cookie=0)
    client, server = world.node("client"), world.node("server", limits=limits)
    ghost = NetworkPath("udp", server.address, ("ghost", 1))
    dialler = world.node("dialler")
    dialler.endpoint.connect(dialler.path_to(server), now=0.0)
    server.endpoint.receive(datagrams_of(dialler, 0.0)[0], ghost, 0.0)
    assert tables(server.endpoint)["half-open"] == 1
    session = client.connect(server)
    world.run_until(session.is_active)
    assert server.events(HandshakeFailed) == [HandshakeFailed(ghost, "timeout")]
    assert tables(server.endpoint)["half-open"] == 0


def test_a_live_session_id_is_refused() -> None:
    """H-9, H-29: a session id that is live already."""
    world = World(1)
    client, server = world.node("client"), world.node("server")
    session = client.connect(server)
    world.run_until(lambda: session.max_datagram_size)
    server.endpoint._context.sessions[session.session_id] = server.endpoint.connect(
        server.path_to(client), now=world.now
    )
    server.endpoint._context.sessions[session.session_id].initiator = False
    world.run_until(lambda: session.is_closed)
    assert isinstance(session.close_error, ConnectionRefusedError)


# -- ourselves -----------------------------------------------------------------------------------------------------


def test_a_node_does_not_talk_to_itself() -> None:
    """H-16, H-27: unless the configuration allows it."""
    world = World(1)
    node = world.node("node", handshake_timeout=2.0)
    session = node.connect(node)
    world.run_until(lambda: session.is_closed)
    assert isinstance(session.close_error, ConnectionTimeoutError), "its own HELLO is not answered"
    assert_empty(node)


def test_another_node_of_the_same_identity() -> None:
    """H-16: our own node id at the other end is refused in the same way as a wrong seed."""
    world = World(1)
    one = world.node("one", node_seed=bytes(range(32)))
    other = world.node("other", node_seed=bytes(range(32)))
    session = one.connect(other)
    world.run_until(lambda: session.is_closed)
    assert isinstance(session.close_error, AuthenticationError)


def test_allow_self() -> None:
    """H-16, H-27: with it, both ends live in one endpoint under one id."""
    world = World(1)
    node = world.node("node", allow_self=True)
    session = node.connect(node)
    world.run_until(session.is_active)
    peer = node.endpoint.sessions[session.session_id]
    assert peer is not session
    assert peer.peer_node_id == session.peer_node_id == node.config.identity.node_id
    stream = session.open_stream()
    stream.write(b"note to self", world.now)
    node.pump()
    world.run(0.5)
    heard = peer.stream(stream.stream_id)
    assert heard is not None
    assert heard.read(100, world.now) == b"note to self"
    session.close(world.now)
    node.pump()
    world.run(5.0)
    assert_empty(node)


def test_crossing_calls() -> None:
    """B6: both sides dial at once; both sessions come up and work."""
    world = World(1)
    one, two = world.node("one"), world.node("two")
    movers = {node: Mover(node) for node in (one, two)}
    dials = {one: one.connect(two), two: two.connect(one)}
    world.run_until(lambda: all(session.is_active() for session in dials.values()))
    for node, session in dials.items():
        movers[node].send(session.open_stream(), session, filler(5000, node.name))
    world.run(2.0)
    assert len(one.endpoint.sessions) == len(two.endpoint.sessions) == 2
    assert [len(movers[node].ended) for node in (one, two)] == [1, 1]


def test_carriers_of_our_own() -> None:
    """E5: a carrier is a name and its traits."""
    pigeon = CarrierTraits(reliable=False, framed=True, max_packet=1300, overhead=0)
    changes = {"carriers": {"pigeon": pigeon}}
    pair = session_pair(carrier="pigeon", client=changes, server=changes)
    stream = pair.session.open_stream()
    stream.write(filler(5000), pair.now)
    sizes: list[int] = []
    pair.world.taps.append(lambda datagram, _: sizes.append(len(datagram)) or datagram)
    pair.settle(0.5)
    assert max(sizes) == 1300
    assert len(pair.server.events(StreamReadable)) == 1


def test_what_became_due_behind_a_full_carrier_is_sent_when_it_has_room() -> None:
    """R-1: an acknowledgement whose time came meanwhile is not forgotten, though nothing touches its session."""
    pair = session_pair(carrier="ws")
    recovery = bounds.engines_of(pair.session).path.recovery  # type: ignore[union-attr]
    before = recovery.packets_acked
    pair.session.open_stream().write(bytes(100), pair.now)
    pair.settle(0.015)  # it has arrived, and its acknowledgement is put off
    pair.world.link_between(pair.client.address, pair.server.address).up = False
    endpoint, path = pair.server.endpoint, pair.peer.path
    endpoint.path_writable(path, False, pair.now)
    pair.world.run(0.5)
    assert recovery.packets_acked == before
    endpoint.path_writable(path, True, pair.now)
    pair.server.pump()
    pair.world.run(0.015)
    assert recovery.packets_acked == before + 1


def test_a_deadline_that_has_moved_wakes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each packet leaves a probe timeout behind that means nothing once it is acknowledged: the session that it was
    for is only entered again, at its new time. With many sessions in turn that is much of the work."""
    pair = session_pair()
    ticked: list[Session] = []
    tick = Session.tick
    monkeypatch.setattr(Session, "tick", lambda session, now: (ticked.append(session), tick(session, now)))
    stream = pair.session.open_stream()
    for _ in range(20):
        stream.write(bytes(100), pair.now)
        pair.settle()
    assert ticked.count(pair.session) == 0
    assert ticked.count(pair.peer) == 20, "for the acknowledgements that it had put off"
    pair.world.run(20.0)
    assert ticked.count(pair.session) >= 1, "to ask for a sign of life"
