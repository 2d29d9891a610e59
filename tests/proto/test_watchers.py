"""Whoever watches and injects, replays or reflects ends no handshake and no session (docs/protocol.md, 2 to 4)."""

from __future__ import annotations

import pytest

from stt_proto import NetworkPath
from stt_proto.errors import ConnectionRefusedError
from stt_proto.events import HandshakeFailed, SessionEstablished
from stt_proto.testing import Conditions, World, tables
from stt_proto.wire import (
    Abort,
    AuthProof,
    Challenge,
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
from tests.proto.handshake_world import Entropy
from tests.proto.worlds import (
    assert_empty,
    back,
    filler,
    is_handshake,
    serve_echo,
)

Datagram = tuple[bytes, NetworkPath]


# -- watchers who inject -------------------------------------------------------------------------------------------


def hello_of(datagram: bytes) -> tuple[Message, bytes]:
    """A HELLO, and its hash by which the answers name it."""
    message = decode_datagram_untrusted(datagram)
    assert isinstance(message, Message)
    return message, Hello.decode_untrusted(message.body).hello_hash(message.dcid, message.scid)


def forged_challenge(hello: Message, name: bytes, number: int) -> tuple[bytes, ...]:
    """A CHALLENGE to a HELLO that everybody can see, from somebody who does not have the seed."""
    entropy = Entropy(("forged", number))
    challenge = Challenge(name, 1, 1, entropy(32), entropy(32), entropy(1200), entropy(48), entropy(40))
    return encode_pieces(Message(MessageType.CHALLENGE, hello.scid, entropy(8), challenge.encode()), 1200)


def forged_hints(hello: Message, name: bytes) -> dict[str, bytes]:
    """Everything that needs no key and could end a dial."""
    bodies = {
        "RETRY": (MessageType.RETRY, Retry(name, b"a cookie that nobody made").encode()),
        "REFUSED": (MessageType.REFUSED, Refused(name, ConnectionRefusedError.code).encode()),
        "VERSION": (MessageType.VERSION, VersionList(name, (9,), (9,)).encode()),
    }
    return {word: encode_datagram(Message(kind, hello.scid, hello.dcid, body)) for word, (kind, body) in bodies.items()}


@pytest.mark.parametrize("words", [["RETRY"], ["REFUSED"], ["VERSION"], ["RETRY", "REFUSED", "VERSION"]])
@pytest.mark.parametrize("challenges", [0, 3])
def test_a_watcher_does_not_end_a_dial(words: list[str], challenges: int) -> None:
    """H-14 [nobody who merely watches can end a handshake]: hints, three CHALLENGEs and junk, before every answer."""
    world = World(1, Conditions(delay=0.05))
    client, server = world.node("client"), world.node("server")
    injected: list[bytes] = []

    def watch(datagram: bytes, path: NetworkPath) -> bytes:
        if path.local == client.address and is_handshake(datagram, MessageType.HELLO):
            hello, name = hello_of(datagram)
            injected.extend(forged_hints(hello, name)[word] for word in words)
            if len(injected) == len(words):
                for number in range(challenges):
                    injected.extend(forged_challenge(hello, name, number))
            injected.append(b"\x40" + hello.scid + filler(60))
            for forged in injected:
                client.endpoint.receive(forged, path, world.now)
        return datagram

    world.taps.append(watch)
    session = client.connect(server)
    world.run_until(session.is_active, timeout=2.0)
    assert len(injected) > len(words)
    assert session.close_error is None


def test_what_a_hint_says_becomes_the_error_when_nothing_better_comes() -> None:
    """H-14: after the grace, if the server does not answer, the first hint is what the user hears."""
    world = World(1)
    client, server = world.node("client"), world.node("server")
    there, _ = world.link(client, server, Conditions(loss=1.0))

    def watch(datagram: bytes, path: NetworkPath) -> bytes:
        if is_handshake(datagram, MessageType.HELLO):
            client.endpoint.receive(forged_hints(*hello_of(datagram))["REFUSED"], path, world.now)
        return datagram

    world.taps.append(watch)
    session = client.connect(server)
    world.run_until(lambda: session.is_closed)
    assert isinstance(session.close_error, ConnectionRefusedError)
    assert 0.75 <= world.now < 0.85
    assert there.traffic.sent == 2
    assert_empty(client)


def test_hints_to_another_hello_mean_nothing() -> None:
    """H-14, H-30: without the hello hash, from another path, or for another connection ID they are not even heard."""
    world = World(1)
    client, server = world.node("client"), world.node("server")
    there, _ = world.link(client, server, Conditions(loss=1.0))
    seen: list[Datagram] = []
    world.taps.append(lambda datagram, path: seen.append((datagram, path)) or datagram)
    session = client.connect(server)
    hello, name = hello_of(seen[0][0])
    refused = Message(MessageType.REFUSED, hello.scid, hello.dcid, Refused(bytes(16), 0x0102).encode())
    genuine = encode_datagram(refused._replace(body=Refused(name, 0x0102).encode()))
    elsewhere = NetworkPath("udp", session.path.local, ("elsewhere", 1))
    client.endpoint.receive(encode_datagram(refused), session.path, 0.0)
    client.endpoint.receive(genuine, elsewhere, 0.0)
    client.endpoint.receive(encode_datagram(refused._replace(dcid=bytes(8))), session.path, 0.0)
    client.endpoint.receive(encode_datagram(refused._replace(scid=bytes(8))), session.path, 0.0)
    client.pump()
    world.run(1.0)
    assert not session.is_closed
    assert client.endpoint.counters.refused == 2
    client.endpoint.receive(genuine, session.path, world.now)
    client.pump()
    world.run(3.1)
    assert isinstance(session.close_error, ConnectionRefusedError)
    assert there.traffic.sent >= 2


def test_a_watcher_does_not_end_a_half_open_handshake() -> None:
    """H-24, H-25: AUTH_PROOF and ABORT that do not open change nothing; from elsewhere they are not looked at."""
    world = World(1, Conditions(delay=0.05))
    client, server = world.node("client"), world.node("server")

    def watch(datagram: bytes, path: NetworkPath) -> bytes:
        if path.local == client.address and is_handshake(datagram, MessageType.AUTH_PROOF):
            proof = decode_datagram_untrusted(datagram)
            body = AuthProof(filler(1104, 1), filler(48, 2), filler(16, 3)).encode()
            forgeries = [
                proof._replace(body=body),
                proof._replace(body=b""),
                proof._replace(scid=bytes(8)),
                Message(MessageType.ABORT, proof.dcid, proof.scid, Abort(filler(18)).encode()),
                Message(MessageType.ABORT, proof.dcid, proof.scid, b""),
                Message(MessageType.ABORT, proof.dcid, bytes(8), Abort(filler(18)).encode()),
                Message(MessageType.CHALLENGE, proof.dcid, proof.scid, filler(40)),
            ]
            for forged in forgeries:
                server.endpoint.receive(encode_datagram(forged), back(path), world.now)
                server.endpoint.receive(encode_datagram(forged), server.path_to(server), world.now)
            assert tables(server.endpoint)["half-open"] == 1
        return datagram

    world.taps.append(watch)
    session = client.connect(server)
    world.run_until(session.is_active, timeout=1.0)
    assert server.events(HandshakeFailed) == []
    assert server.endpoint.counters.refused >= 14


@pytest.mark.parametrize("kind", [MessageType.CHALLENGE, MessageType.AUTH_PROOF, MessageType.HELLO])
def test_pieces_of_nothing(kind: MessageType) -> None:
    """W-3, H-30: pieces are only kept for who waits for them, on its path; and are gone when the handshake is."""
    world = World(1)
    client, server = world.node("client"), world.node("server")
    seen: list[Datagram] = []
    world.taps.append(lambda datagram, path: seen.append((datagram, path)) or datagram)
    session = client.connect(server)
    world.run_until(lambda: tables(server.endpoint)["half-open"])
    hello, _ = hello_of(seen[0][0])
    server_cid = seen[1][0][17:25]
    for node, cid, path in ((client, hello.scid, session.path), (server, server_cid, back(session.path))):
        for number in range(20):
            message = Message(kind, cid, filler(8, number), filler(4000, number))
            for piece in encode_pieces(message, 1200)[:2]:
                node.endpoint.receive(piece, path, world.now)
                node.endpoint.receive(piece, NetworkPath("udp", path.local, ("elsewhere", number)), world.now)
        assert tables(node.endpoint)["pieces"] <= 4
    world.run_until(session.is_active)
    for node in (client, server):
        assert tables(node.endpoint)["pieces"] == 0
        for number in range(20):
            message = Message(kind, hello.scid, filler(8, number), filler(4000, number))
            node.endpoint.receive(encode_pieces(message, 1200)[0], session.path, world.now)
        assert tables(node.endpoint)["pieces"] == 0


# -- replayed and reflected ----------------------------------------------------------------------------------------


def test_replayed_messages() -> None:
    """H-20, P-7: everything once more, to whom it went, in any order, at once and later: nothing comes of it.

    Streams bear repetition by themselves; that packets are opened once shows in what is counted, and in datagrams.
    """
    seen: list[Datagram] = []
    world = World(1)
    client, server = world.node("client"), world.node("server")
    serve_echo(server)
    world.taps.append(lambda datagram, path: seen.append((datagram, path)) or datagram)
    session = client.connect(server)
    world.run_until(session.is_active)
    stream = session.open_stream()
    stream.write(b"once", world.now)
    client.pump()
    world.run(1.0)
    assert stream.read(100, world.now) == b"once"
    (peer,) = server.endpoint.sessions.values()
    session.send_datagram(b"once, too", world.now)
    client.pump()
    world.run(1.0)
    assert peer.receive_datagram() == b"once, too"
    recorded, events = list(seen), (len(client.log), len(server.log))
    before = {node: tables(node.endpoint) for node in (client, server)}
    opened = [side.stats().packets_received for side in (session, peer)]
    for wait in (0.0, 1.0):
        world.run(wait)
        for order in (1, -1):
            for datagram, path in recorded[::order]:
                world.nodes[path.remote].endpoint.receive(datagram, back(path), world.now)  # type: ignore[index]
        client.pump()
        server.pump()
        world.run(0.2)
        assert {node: tables(node.endpoint) for node in (client, server)} == before
        assert (len(client.log), len(server.log)) == events
        assert peer.receive_datagram() is None
        assert [side.stats().packets_received for side in (session, peer)] == opened
    assert session.is_active()
    assert stream.read(100, world.now) == b""


def test_a_replayed_dial_from_elsewhere() -> None:
    """H-30: whoever replays a whole dial from an address of his own gets a CHALLENGE that he cannot answer."""
    seen: list[Datagram] = []
    world = World(1)
    client, server = world.node("client"), world.node("server", handshake_timeout=3.0)
    world.taps.append(lambda datagram, path: seen.append((datagram, path)) or datagram)
    session = client.connect(server)
    world.run_until(session.is_active)
    thief = NetworkPath("udp", server.address, ("thief", 1))
    for datagram, path in seen:
        if path.remote == server.address:
            server.endpoint.receive(datagram, thief, world.now)
    server.pump()
    assert tables(server.endpoint)["half-open"] == 1
    world.run(5.0)
    assert len(server.endpoint.sessions) == 1
    assert server.events(HandshakeFailed) == [HandshakeFailed(thief, "timeout")]
    assert session.is_active()


def test_reflected_messages() -> None:
    """H-27 [reflection]: everything sent back to its sender, as if the peer had sent it."""
    world = World(1)
    client, server = world.node("client"), world.node("server")

    def reflect(datagram: bytes, path: NetworkPath) -> bytes:
        world.nodes[path.local].endpoint.receive(datagram, path, world.now)  # type: ignore[index]
        return datagram

    world.taps.append(reflect)
    session = client.connect(server)
    world.run_until(session.is_active, timeout=2.0)
    stream = session.open_stream()
    stream.write(b"and back", world.now)
    client.pump()
    world.run(1.0)
    assert session.is_active()
    assert len(client.endpoint.sessions) == len(server.endpoint.sessions) == 1
    assert len(client.events(SessionEstablished)) == len(server.events(SessionEstablished)) == 1
    assert tables(client.endpoint)["half-open"] == 0
