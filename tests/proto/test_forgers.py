"""Forgers who see each HELLO and are nearer than the responder; and crowds (docs/protocol.md, section 4)."""

from __future__ import annotations

from functools import partial
from itertools import count

import pytest

from stt_proto import NetworkPath
from stt_proto.config import Limits
from stt_proto.errors import AuthenticationError
from stt_proto.events import HandshakeFailed
from stt_proto.testing import Conditions, Node, World, tables
from stt_proto.wire import Hello, Message, MessageType, Retry, decode_datagram_untrusted, encode_datagram, encode_pieces
from tests.proto.handshake_world import Entropy, spoofed_hello
from tests.proto.test_watchers import forged_challenge, forged_hints, hello_of
from tests.proto.worlds import back, filler, is_handshake, lone_endpoint

LIES = ("REFUSED", "VERSION", "CHALLENGE", "RETRY")
NEEDS_COOKIE = Limits(failed_guesses_without_cookie=0)


class Forger:
    """Answers each HELLO of a node after a millisecond; what a HELLO says, and no more, is known to him.

    Attributes:
        hellos: how many there were.
        lost: how many of these he may keep from the responder.
    """

    def __init__(self, node: Node, lies: tuple[str, ...], *, lost: int = 0, after: float = 0.001) -> None:
        self.node = node
        self.hellos = 0
        self.lost = lost
        self._lies = lies
        self._after = after
        self._cookies = count()
        node.world.taps.append(self._tap)

    def _tap(self, datagram: bytes, path: NetworkPath) -> bytes | None:
        if path.local != self.node.address or not is_handshake(datagram, MessageType.HELLO):
            return datagram
        self.hellos += 1
        for lie in self._lies:
            for forged in self._forge(lie, *hello_of(datagram)):
                self.node.world.at(self.node.world.now + self._after, partial(self.node.receive, forged, path))
        return None if self.hellos <= self.lost else datagram

    def _forge(self, lie: str, hello: Message, name: bytes) -> tuple[bytes, ...]:
        match lie:
            case "CHALLENGE":
                return forged_challenge(hello, name, 0)
            case "RETRY":
                body = Retry(name, b"cookie %d" % next(self._cookies)).encode()
                return (encode_datagram(Message(MessageType.RETRY, hello.scid, hello.dcid, body)),)
        return (forged_hints(hello, name)[lie],)


# -- who waits long enough -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lies", [*((lie,) for lie in LIES), LIES], ids="+".join)
@pytest.mark.parametrize("trip", [0.05, 0.25, 0.6])
@pytest.mark.parametrize("crowded", [False, True], ids=["", "crowded"])
def test_a_forger_who_is_nearer(lies: tuple[str, ...], trip: float, crowded: bool) -> None:
    """H-13, H-14: he answers at once, with each HELLO; the true answer comes one round trip later, and wins.

    [With a grace of 300 ms one forged datagram ended a dial to a responder that was farther than that, and one forged
    RETRY every dial to a responder under load.]
    """
    world = World(1, Conditions(delay=trip / 2))
    client, server = world.node("client"), world.node("server", limits=NEEDS_COOKIE if crowded else Limits())
    forger = Forger(client, lies)
    session = client.connect(server)
    world.run_until(session.is_active, timeout=4.0 + 3 * trip)
    assert session.close_error is None
    assert forger.hellos <= 12


@pytest.mark.parametrize("lie", ["REFUSED", "VERSION", "CHALLENGE"])
@pytest.mark.parametrize("trip", [0.05, 0.25, 0.45])
def test_a_forger_who_is_nearer_and_a_loss(lie: str, trip: float) -> None:
    """H-13: HELLO is repeated soon enough for a responder that far away."""
    world = World(1, Conditions(delay=trip / 2))
    client, server = world.node("client"), world.node("server")
    Forger(client, (lie,), lost=1)
    session = client.connect(server)
    world.run_until(session.is_active, timeout=3.0)


@pytest.mark.parametrize("after", [0.001, 0.2])
def test_a_forger_between_two_with_different_seeds(after: float) -> None:
    """H-13, H-24: the responder is told that the seed is wrong, whether its CHALLENGE came first or last."""
    world = World(1, Conditions(delay=0.05))
    client, server = world.node("client", shared_seed="another"), world.node("server")
    Forger(client, ("CHALLENGE",), after=after)
    session = client.connect(server)
    world.run_until(lambda: session.is_closed)
    assert isinstance(session.close_error, AuthenticationError)
    world.run(0.1)
    assert server.events(HandshakeFailed) == [HandshakeFailed(back(session.path), "auth_failure")]
    assert tables(server.endpoint)["half-open"] == 0


# -- crowds --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MessageType.HELLO, MessageType.AUTH_PROOF])
def test_a_crowd_does_not_keep_step(kind: MessageType) -> None:
    """H-18: two hundred that lost their server in one moment dial it at once, and repeat themselves spread out."""
    world = World(1, Conditions(delay=0.05))
    server = world.node("server", limits=Limits(half_open_without_cookie=1000))
    sent: dict[object, list[float]] = {}

    def tap(datagram: bytes, path: NetworkPath) -> bytes | None:
        if is_handshake(datagram, kind):
            sent.setdefault(path.local, []).append(world.now)
            return None
        return datagram

    world.taps.append(tap)
    for number in range(200):
        world.node(f"client {number}").connect(server)
    world.run(5.0)
    assert len(sent) == 200
    assert len({times[0] for times in sent.values()}) == 1
    for repetition in (1, 2, 3):
        times = sorted(times[repetition] for times in sent.values())
        busiest = max(sum(start <= time < start + 0.01 for time in times) for start in times)
        assert busiest <= 60, "of 200 in a hundredth of a second"
        assert times[-1] - times[0] > 0.04


def knock(server: Node, number: int, host: str, hello: Message) -> None:
    """Begin a handshake behind a cookie, from an address that receives, and say no more."""
    entropy = Entropy((host, number))
    body = hello.body[:20] + entropy(16) + hello.body[36:]  # another sid, so another HELLO
    message = hello._replace(dcid=entropy(8), scid=entropy(8), body=body)
    path = NetworkPath("udp", server.address, (host, 1024 + number))
    for _ in range(2):
        server.endpoint.receive(encode_datagram(message, 1200), path, server.world.now)
        for transmit in server.endpoint.transmits(server.world.now):
            answer = decode_datagram_untrusted(b"".join(transmit.buffers))
            if isinstance(answer, Message) and answer.type is MessageType.RETRY:
                fields = Hello.decode_untrusted(message.body)
                cookie = Retry.decode_untrusted(answer.body).cookie
                shown = Hello(fields.versions, fields.suites, fields.sid, fields.e, fields.share, b"", cookie)
                message = message._replace(body=shown.encode())


@pytest.mark.parametrize(("hosts", "places", "soon"), [(1, 5 + 16, 0.1), (3, 5 + 3 * 16, 0.1), (5, 64, 3.0)])
def test_addresses_that_can_show_cookies_keep_nobody_out(hosts: int, places: int, soon: float) -> None:
    """H-21: as many handshakes as they like, behind cookies; a quarter of the places is theirs, each.

    [One address filled all 1,024 places, each for 10 s, and nobody else came in.]
    """
    world = World(1, Conditions(delay=0.005))
    server = world.node("server", limits=Limits(half_open=64, half_open_per_source=16, half_open_without_cookie=4))
    hello = decode_datagram_untrusted(spoofed_hello(Entropy("crowd")))
    assert isinstance(hello, Message)
    for number in range(80):
        for host in range(hosts):
            knock(server, number, f"198.51.100.{host}", hello)
    assert tables(server.endpoint)["half-open"] == places
    world.run(0.2)  # there are RETRYs again
    session = world.node("client").connect(server)
    world.run_until(session.is_active, timeout=soon)
    assert tables(server.endpoint)["half-open"] <= 64


# -- pieces --------------------------------------------------------------------------------------------------------


def first_piece(number: int) -> bytes:
    """Of a HELLO of which nothing more comes."""
    message = Message(MessageType.HELLO, filler(8, number), filler(8, -number), filler(3000, number))
    return encode_pieces(message, 1200)[0]


def test_pieces_of_a_hello_go_in_time() -> None:
    """W-3: after the handshake timeout, though nothing else happens; then the endpoint wants nothing any more."""
    path = NetworkPath("memory", "here", "there")
    node = lone_endpoint(handshake_timeout=3.0)
    node.receive(first_piece(1), path, 1.0)
    node.receive(first_piece(2), path, 2.0)
    deadline = node.next_deadline()
    assert deadline is not None
    assert (deadline.at, deadline.reason) == (4.0, "half_open")
    assert tables(node)["pieces"] == 2
    node.tick(4.0)
    assert tables(node)["pieces"] == 1
    node.tick(5.0)
    assert tables(node)["pieces"] == 0
    assert node.next_deadline() is None


def test_pieces_of_a_hello_go_with_their_path() -> None:
    """W-3: when the carrier ends, whatever had begun on it is forgotten."""
    node = lone_endpoint()
    one, other = (NetworkPath("memory", "here", there) for there in ("there", "elsewhere"))
    for number, path in enumerate((one, one, other)):
        node.receive(first_piece(number), path, 0.0)
    node.path_closed(one, 1.0)
    assert tables(node)["pieces"] == 1
    node.path_closed(other, 1.0)
    assert tables(node)["pieces"] == 0
