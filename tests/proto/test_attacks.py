"""The attacks that the handshake was made against, each tried on whole endpoints (docs/protocol.md, 1 to 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

import pytest

from stt_proto import CloseReason, Config, Endpoint, Identity, NetworkPath, Session
from stt_proto.errors import AuthenticationError, ConnectionTimeoutError
from stt_proto.events import HandshakeFailed, SessionClosed, SessionEstablished
from stt_proto.handshake import initiator
from stt_proto.testing import Conditions, Node, SeededEntropy, World, tables
from stt_proto.wire import (
    Hello,
    Message,
    MessageType,
    decode_datagram_untrusted,
    encode_datagram,
    encode_pieces,
)
from tests.proto.handshake_world import Entropy, spoofed_hello
from tests.proto.worlds import (
    Mover,
    answers,
    assert_empty,
    back,
    filler,
    is_handshake,
    serve_echo,
    session_pair,
)

Datagram = tuple[bytes, NetworkPath]


def impostor(number: int, **changes: Any) -> Endpoint:
    """An endpoint that guesses at the shared seed."""
    identity = Identity.from_seed(SeededEntropy(f"impostor {number}")(32))
    config = Config(identity=identity, shared_seed=f"guess {number}", **changes)
    return Endpoint(config, now=0.0, unix_time=0.0, entropy=SeededEntropy(f"impostor {number}"))


# -- guessing ------------------------------------------------------------------------------------------------------


def dial_and_guess(monkeypatch: pytest.MonkeyPatch, guesses: int, *, honest: bool) -> tuple[Session, int]:
    """Somebody in the middle answers a HELLO with CHALLENGEs of his own; how many of them were tried."""
    world = World(1)
    client = world.node("client")
    server = world.node("server")
    answered: list[bytes] = []
    attempts = 0
    genuine = initiator.open_challenge

    def open_challenge(*arguments: Any) -> Any:
        nonlocal attempts
        attempts += 1
        return genuine(*arguments)

    def intercept(datagram: bytes, path: NetworkPath) -> bytes | None:
        if path.local != client.address:
            return datagram
        if is_handshake(datagram, MessageType.HELLO) and not answered:
            for number in range(guesses):
                answered.extend(answers(impostor(number), datagram, back(path), world.now))
            for answer in answered:
                world.at(world.now + 0.005, partial(client.endpoint.receive, answer, path, world.now))
        return datagram if honest else None

    world.taps.append(intercept)
    monkeypatch.setattr(initiator, "open_challenge", open_challenge)
    session = client.connect(server)
    world.run(3.0)
    return session, attempts


def test_guessing_through_one_dial(monkeypatch: pytest.MonkeyPatch) -> None:
    """H-12 [a PIN fell to 3,142 CHALLENGEs against one HELLO]: four guesses, then the dial is over."""
    session, attempts = dial_and_guess(monkeypatch, 12, honest=False)
    assert attempts == 4
    assert isinstance(session.close_error, AuthenticationError)


def test_guesses_do_not_help_when_the_real_answer_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """H-12, H-13: up to three wrong CHALLENGEs change nothing; the one that opens wins."""
    session, attempts = dial_and_guess(monkeypatch, 3, honest=True)
    assert attempts == 4
    assert session.is_active()


def test_each_dial_is_a_fresh_guess() -> None:
    """H-11: what was learned from one dial says nothing about the next: other keys, other sid, other connection ID."""
    world = World(1)
    client, server = world.node("client"), world.node("server")
    seen: list[bytes] = []
    world.taps.append(lambda datagram, _: seen.append(datagram) if is_handshake(datagram) else None)
    for _ in range(3):
        client.connect(server)
    messages = [decode_datagram_untrusted(datagram) for datagram in seen]
    hellos = [Hello.decode_untrusted(message.body) for message in messages if isinstance(message, Message)]
    for values in zip(*[(hello.sid, hello.e, hello.share) for hello in hellos], strict=True):
        assert len(set(values)) == 3
    assert len({message.scid for message in messages}) == 3


class Guesser:
    """Dials from one address with wrong seeds, as fast as it can, and counts the CHALLENGEs that it gets."""

    def __init__(self, world: World, name: str, server: Node) -> None:
        self.node = world.node(name, shared_seed="a guess", max_concurrent_sessions=10_000)
        self.server = server
        self.challenged: set[bytes] = set()
        world.taps.append(self._tap)

    def _tap(self, datagram: bytes, path: NetworkPath) -> bytes:
        if path.remote == self.node.address and is_handshake(datagram, MessageType.CHALLENGE):
            self.challenged.add(datagram[17:25])
        return datagram

    def dial(self, times: int) -> None:
        for _ in range(times):
            self.node.connect(self.server)


def test_guessing_at_a_responder() -> None:
    """H-23 [k addresses buy k guesses a second]: a source that failed often is not heard; others are."""
    world = World(1, Conditions(delay=0.005))
    server, honest = world.node("server"), world.node("honest")
    guesser = Guesser(world, "guesser", server)
    guesser.dial(100)
    world.run(2.0)  # until they have given up
    first = len(guesser.challenged)
    assert first <= 100
    for _ in range(16):
        guesser.dial(6)
        world.run(1.0)
    assert len(guesser.challenged) == first, "the debt is worked off at one a second, and nothing is answered meanwhile"
    session = honest.connect(server)
    world.run_until(session.is_active, timeout=1.0)
    assert server.endpoint.counters.refused > 100
    world.run(90.0)
    guesser.dial(1)
    world.run(1.0)
    assert len(guesser.challenged) == first + 1, "and in the end it is heard again"


def test_the_ninth_failure_needs_a_cookie() -> None:
    """H-23: after 8 failures in a minute the HELLOs of that source need one."""
    world = World(1, Conditions(delay=0.005))
    server = world.node("server")
    guesser = Guesser(world, "guesser", server)
    retries: list[bytes] = []
    world.taps.append(
        lambda datagram, _: (is_handshake(datagram, MessageType.RETRY) and retries.append(datagram)) or datagram
    )
    for attempt in range(10):
        guesser.dial(1)
        world.run(2.0)
        assert bool(retries) == (attempt >= 8)


# -- damage --------------------------------------------------------------------------------------------------------


def handshake_datagrams() -> list[int]:
    """The sizes of the datagrams of an undisturbed handshake, up to the first packet that confirms it."""
    sizes: list[int] = []
    world = World(1)
    world.taps.append(lambda datagram, _: sizes.append(len(datagram)) or datagram)
    session = world.node("client").connect(world.node("server"))
    world.run_until(session.is_active)
    return sizes


SIZES = handshake_datagrams()


def positions() -> Iterator[tuple[int, int]]:
    """Which datagram, and which of its bits: every field of every header, and places all over the rest."""
    for index, size in enumerate(SIZES):
        places = {0, 1, 5, 8, 9, 16, 17, 24, 25, 26, 33, 35, 37, 42, size // 2, size - 17, size - 1}
        places.update(range(60, size, 97))
        for place in sorted(place for place in places if 0 <= place < size):
            yield index, place * 8 + place % 8


@pytest.mark.parametrize("index", range(len(SIZES)))
def test_one_flipped_bit(index: int) -> None:
    """W-1 [damage is not attack]: never `AuthenticationError`; the handshake comes up from retransmissions."""
    for which, bit in positions():
        if which != index:
            continue
        world = World(1)
        client, server = world.node("client"), world.node("server")
        numbers = count()

        def damage(datagram: bytes, _: NetworkPath, numbers: Iterator[int] = numbers, bit: int = bit) -> bytes:
            if next(numbers) != index:
                return datagram
            damaged = bytearray(datagram)
            damaged[bit >> 3] ^= 1 << (bit & 7)
            return bytes(damaged)

        world.taps.append(damage)
        session = client.connect(server)
        world.run_until(session.is_active, timeout=3.0)
        for node in (client, server):
            assert not [event for event in node.events(HandshakeFailed) if event.reason == "auth_failure"]
        world.run(1.0)
        (peer,) = server.endpoint.sessions.values()
        counters = [node.endpoint.counters for node in (client, server)]
        dropped = sum(each.damaged + each.malformed + each.misdirected + each.refused for each in counters)
        assert dropped + session.stats().receive_errors + peer.stats().receive_errors >= 1


# -- the wrong seed, the wrong peer --------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [0.01, 0.2])
@pytest.mark.parametrize("how", ["seed", "pin", "application"])
@pytest.mark.parametrize("carrier", ["udp", "memory"])
def test_a_wrong_seed_and_a_wrong_peer(how: str, delay: float, carrier: str) -> None:
    """H-13, H-15, H-3: `AuthenticationError` within 2 round trips and the grace; the acceptor hears within one more."""
    world = World(1, Conditions(delay=delay))
    changes = {"seed": {"shared_seed": "another"}, "pin": {}, "application": {"application": "another"}}[how]
    client, server = world.node("client", **changes), world.node("server")
    sent: list[bytes] = []

    def tap(datagram: bytes, path: NetworkPath) -> bytes:
        if path.local == client.address:
            sent.append(datagram)
        return datagram

    world.taps.append(tap)
    options = {"peer_node_id": Identity.from_seed(b"s" * 32).node_id} if how == "pin" else {}
    session = client.connect(server, carrier, **options)
    world.run_until(lambda: session.is_closed)
    trip = 2 * delay
    grace = max(1.5 if carrier == "udp" else 0.3, 3 * trip)
    assert world.now <= 2 * trip + grace + 1e-6
    assert isinstance(session.close_error, AuthenticationError)
    assert session.close_error.code == 0x0103
    (closed,) = client.events(SessionClosed)
    assert closed.reason is CloseReason.AUTH_FAILURE
    assert not any(is_handshake(datagram, MessageType.AUTH_PROOF) for datagram in sent), "its identity is never shown"
    assert sum(is_handshake(datagram, MessageType.ABORT) for datagram in sent) == 1
    world.run(trip)
    assert server.events(HandshakeFailed) == [HandshakeFailed(back(session.path), "auth_failure")]
    assert server.events(SessionEstablished) == []
    assert_empty(client, server)


def test_a_pinned_peer() -> None:
    """H-15: the right one is let in."""
    world = World(1)
    client, server = world.node("client"), world.node("server")
    session = client.connect(server, peer_node_id=server.config.identity.node_id)
    world.run_until(session.is_active)


def test_the_abort_is_lost() -> None:
    """H-13, H-21: then the acceptor notices by its own timeout; nothing is left either way."""
    world = World(1)
    client, server = world.node("client", shared_seed="another"), world.node("server", handshake_timeout=3.0)
    session = client.connect(server)
    world.taps.append(lambda datagram, _: None if is_handshake(datagram, MessageType.ABORT) else datagram)
    world.run_until(lambda: session.is_closed)
    world.run(5.0)
    assert [event.reason for event in server.events(HandshakeFailed)] == ["timeout"]
    assert_empty(client, server)


# -- floods --------------------------------------------------------------------------------------------------------


def test_twenty_thousand_spoofed_hellos() -> None:
    """H-21 to H-23 [spoofed HELLOs]: within the half-open limit, and genuine clients still get in."""
    world = World(1)
    server = world.node("server")
    serve_echo(server)
    template = decode_datagram_untrusted(spoofed_hello(Entropy("flood")))
    assert isinstance(template, Message)
    entropy = SeededEntropy("flood")
    clients = [world.node(f"client {number}") for number in range(8)]
    sessions: list[Session] = []
    most = 0
    for number in range(20_000):
        body = template.body[:20] + entropy(16) + template.body[36:]  # another sid, so another HELLO
        hello = encode_datagram(template._replace(dcid=entropy(8), scid=entropy(8), body=body))
        host = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        server.endpoint.receive(hello, NetworkPath("udp", server.address, (host, 5000)), world.now)
        if number % 100 == 0:
            most = max(most, tables(server.endpoint)["half-open"])
            server.pump()
            world.run(0.01)
        if number % 2500 == 1000:
            sessions.append(clients[len(sessions)].connect(server))
    assert len(sessions) == 8
    world.run_until(lambda: all(session.is_active() for session in sessions), timeout=10.0)
    assert 128 <= most <= 1024
    assert tables(server.endpoint)["half-open"] <= 1024
    assert tables(server.endpoint)["connection IDs"] <= 1024 + 8 * 4
    assert tables(server.endpoint)["answers"] == 0
    world.run(40.0)
    assert tables(server.endpoint)["half-open"] == 0
    assert all(session.is_active() for session in sessions)


def test_amplification() -> None:
    """4.3, H-20, H-28: nobody who did not answer a CHALLENGE gets more than three times what he sent."""
    world = World(1)
    client, server = world.node("client"), world.node("server")
    there, returned = world.link(client, server, Conditions())
    seen: list[Datagram] = []
    world.taps.append(lambda datagram, path: seen.append((datagram, path)) or datagram)
    client.connect(server)
    hello = seen[0][0]
    path, sent, received = server.path_to(client), 0, 0
    genuine = len(seen)
    stream: list[Callable[[], bytes]] = [
        lambda: hello,
        lambda: hello[:1199],
        lambda: b"\x40" + filler(42),
        lambda: spoofed_hello(Entropy(sent), versions=(9,)),
        lambda: spoofed_hello(Entropy(sent)),
        lambda: encode_pieces(Message(MessageType.HELLO, bytes(8), bytes(8), filler(3000)), 1200)[0],
    ]
    for number in range(300):
        datagram = stream[number % len(stream)]()
        sent += len(datagram)
        received += sum(map(len, answers(server.endpoint, datagram, path, number / 10)))
        assert received <= 3 * sent
    assert received > 0
    assert genuine == 1
    assert there.traffic.sent == 1
    assert returned.traffic.sent == 0


def test_a_thousand_sessions_from_ten_nodes() -> None:
    """B5: all at once, with the server's limit raised to 2,000; each gets its echo within 15 s."""
    world = World(1, Conditions(delay=0.02, jitter=0.01))
    server = world.node("server", max_concurrent_sessions=2000)
    serve_echo(server)
    echoed: set[bytes] = set()
    sessions: list[Session] = []
    for number in range(10):
        client = world.node(f"client {number}", max_concurrent_sessions=200)

        def on_event(session: Session | None, event: object, client: Node = client) -> None:
            assert session is not None
            if isinstance(event, SessionEstablished):
                session.open_stream().write(session.session_id, world.now)
            elif (stream := session.stream(0)) is not None and stream.read(100, world.now) == session.session_id:
                echoed.add(session.session_id)

        client.on_event = on_event
        sessions += [client.endpoint.connect(client.path_to(server), now=world.now) for _ in range(100)]
    for node in world.nodes.values():
        node.pump()
    world.run_until(lambda: len(echoed) == 1000, timeout=15.0)
    assert all(session.is_active() for session in sessions)
    assert len(server.endpoint.sessions) == 1000


# -- a bad network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_handshakes_on_a_bad_network(seed: int) -> None:
    """B3, B6: loss, duplicates, disorder and damage only delay, also when both sides call at once."""
    world = World(seed, Conditions(loss=0.2, duplicate=0.1, reorder=0.2, corrupt=0.1, truncate=0.05))
    one, two = world.node("one"), world.node("two")
    movers = {node: Mover(node) for node in (one, two)}
    dials = {one: one.connect(two), two: two.connect(one)}
    world.run_until(lambda: all(session.is_active() for session in dials.values()), timeout=10.0)
    for node, session in dials.items():
        movers[node].send(session.open_stream(), session, filler(20_000, node.name))
    world.run_until(lambda: all(len(mover.ended) == 1 for mover in movers.values()))
    assert all(not node.events(HandshakeFailed) for node in (one, two))
    for node, session in dials.items():
        session.close(world.now)
        node.pump()
    world.run(60.0)
    assert_empty(one, two)


def test_nobody_answers_an_established_session_s_handshake() -> None:
    """H-30: handshake messages for a session that has keys mean nothing to it."""
    pair = session_pair()
    ids = pair.session._engines.local_ids.live  # type: ignore[union-attr]
    for kind in MessageType:
        for cid in ids:
            message = Message(kind, cid, bytes(8), filler(100))
            pair.client.endpoint.receive(encode_datagram(message), pair.session.path, pair.now)
    assert pair.session.is_active()
    assert list(pair.client.endpoint.transmits(pair.now)) == []


def test_packets_that_overtake_auth_proof() -> None:
    """H-26: at most 10 are held, and delivered in order when the keys are there; the rest is counted."""
    world = World(1)
    client, server = world.node("client"), world.node("server")
    session = client.connect(server)
    late: list[Datagram] = []

    def hold_back(datagram: bytes, path: NetworkPath) -> bytes | None:
        if path.local == client.address and is_handshake(datagram, MessageType.AUTH_PROOF):
            late.append((datagram, path))
            return None
        return datagram

    world.taps.append(hold_back)
    world.run_until(lambda: session.max_datagram_size)
    for number in range(13):
        session.send_datagram(b"%d" % number, world.now)
        client.pump()
    world.run(0.05)
    assert server.endpoint.counters.overtaking >= 3
    elsewhere = NetworkPath("udp", server.address, ("elsewhere", 1))
    server.endpoint.receive(b"\x40" + session._engines.remote_ids.current + filler(40), elsewhere, world.now)  # type: ignore[union-attr]
    assert server.endpoint.counters.misdirected == 1
    server.endpoint.receive(late[0][0], back(late[0][1]), world.now)
    (peer,) = server.endpoint.sessions.values()
    received = []
    while (data := peer.receive_datagram()) is not None:
        received.append(data)
    assert received == [b"%d" % number for number in range(10)]


def test_a_dial_without_anybody_leaves_nothing() -> None:
    """H-18: its connection ID, its keys, its pieces: all are given back."""
    world = World(1)
    client = world.node("client", handshake_timeout=1.0)
    server = world.node("server")
    world.link(client, server, Conditions(loss=1.0))
    sessions = [client.connect(server) for _ in range(5)]
    world.run(2.0)
    assert all(isinstance(session.close_error, ConnectionTimeoutError) for session in sessions)
    assert_empty(client)
