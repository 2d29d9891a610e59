"""Whole handshakes, and the attacks on them (docs/protocol.md, sections 3 and 4)."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stt_proto.config import Limits
from stt_proto.crypto import MLKEM768
from stt_proto.errors import AuthenticationError, ChecksumError, ProtocolError
from stt_proto.handshake import (
    Accepted,
    Challenged,
    Dropped,
    Ended,
    Established,
    Initiator,
    InitiatorState,
    Reason,
    Reply,
)
from stt_proto.identity import Identity
from stt_proto.wire import (
    Challenge,
    Hello,
    Message,
    MessageType,
    Parameters,
    Refused,
    Retry,
    VersionList,
    decode_datagram_untrusted,
    encode_datagram,
    encode_pieces,
)
from tests.proto.handshake_world import (
    ALICE,
    BOB,
    CAROL,
    CLIENT,
    SMALL_ORDER,
    Entropy,
    SteadyEntropy,
    World,
    in_grace,
    message_of,
    path_of,
    spoofed_hello,
    whole,
)

SECRETS = (
    "initiator_traffic",
    "responder_traffic",
    "initiator_header",
    "responder_header",
    "exporter",
    "resumption",
    "rotation",
    "session_id",
)


def secrets_of(established: Established) -> list[bytes]:
    return [getattr(established.secrets, name) for name in SECRETS]


def both_ends(initiator: Initiator, accepted: Accepted) -> tuple[Established, Established]:
    assert initiator.established is not None
    return initiator.established, accepted.established


# -- what a handshake gives ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", [1, 2])
@pytest.mark.parametrize("reliable", [False, True], ids=["udp", "reliable"])
@pytest.mark.parametrize("peer", [None, BOB.node_id], ids=["anybody", "pinned"])
def test_two_strangers_become_a_session(suite: int, reliable: bool, peer: bytes | None) -> None:
    """H-1 to H-6: both ends hold the same secrets, and each knows who the other is and what it announced."""
    world = World(reliable=reliable)
    path = path_of(carrier="ws" if reliable else "udp")
    initiator = world.dial(suites=(suite,), peer_node_id=peer)
    ours, theirs = both_ends(initiator, world.shake(initiator, path=path))
    assert secrets_of(ours) == secrets_of(theirs)
    assert ours.secrets.suite is theirs.secrets.suite
    assert ours.secrets.suite.id == suite
    assert (ours.initiator, theirs.initiator) == (True, False)
    assert (ours.version, theirs.version) == (1, 1)
    assert ours.peer_node_id == BOB.node_id
    assert theirs.peer_node_id == ALICE.node_id
    assert ours.peer_parameters == Parameters(max_data=200, max_packet=9000)
    assert theirs.peer_parameters == Parameters(max_data=100, max_ack_delay=5)
    assert (ours.local_cid, ours.peer_cid) == (theirs.peer_cid, theirs.local_cid)


def test_secrets_are_all_different_and_of_the_right_size() -> None:
    """H-6: 32 bytes, but for the 8 of session_id."""
    world = World()
    secrets = secrets_of(world.shake(world.dial()).established)
    assert [len(secret) for secret in secrets] == [32] * 7 + [8]
    assert len({secret[:8] for secret in secrets}) == 8


def test_every_session_is_its_own() -> None:
    """H-6, H-11: nothing is shared between two sessions of the same two nodes."""
    world = World()
    one, two = (secrets_of(world.shake(world.dial()).established) for _ in range(2))
    assert set(one).isdisjoint(two)


def test_same_entropy_same_bytes() -> None:
    """G-1: the core is a pure function of its inputs; only the KEM draws by itself, after CHALLENGE."""
    one, two = World(), World()
    first, second = one.dial(), two.dial()
    assert first._datagrams == second._datagrams
    assert one.challenge(first).half_open.datagrams == two.challenge(second).half_open.datagrams


def test_an_established_shows_nothing() -> None:
    world = World()
    initiator = world.dial()
    accepted = world.shake(initiator)
    shown = repr(accepted.established) + repr(accepted.established.secrets) + repr(initiator)
    for secret in secrets_of(both_ends(initiator, accepted)[0])[:-1]:
        assert secret.hex() not in shown
        assert repr(secret) not in shown


def test_with_a_loss_at_every_step() -> None:
    """H-18, H-20: only the initiator repeats, and the responder answers from its store."""
    world = World()
    initiator = world.dial(entropy=SteadyEntropy("dial"))
    initiator.take(0.0)  # lost
    initiator.tick(0.25)
    (hello,) = initiator.take(0.25)
    assert isinstance(world.hear(hello, 0.3), Challenged)  # the answer is lost
    initiator.tick(0.625)
    (hello,) = initiator.take(0.625)
    outcome = world.hear(hello, 0.65)
    assert isinstance(outcome, Reply)
    world.tell(initiator, outcome.datagrams[1:], 0.7)  # half of the answer is lost
    initiator.tick(1.2)
    (hello,) = initiator.take(1.2)
    outcome = world.hear(hello, 1.25)
    assert isinstance(outcome, Reply)
    world.tell(initiator, outcome.datagrams[:1], 1.3)  # the other half; the rest is still there
    proof = initiator.take(1.3)  # lost
    initiator.tick(1.55)
    assert initiator.take(1.55) == proof
    accepted = world.hear(proof[0], 1.6)
    assert isinstance(accepted, Accepted)
    assert secrets_of(accepted.established) == secrets_of(both_ends(initiator, accepted)[0])


# -- damage is not attack ------------------------------------------------------------------------------------------


def damaged(datagram: bytes, step: int) -> Iterator[bytes]:
    """Copies with one bit flipped, at every `step`-th byte and at all of the first 40."""
    for position in range(len(datagram)):
        if position < 40 or position % step == 0 or position == len(datagram) - 1:
            copy = bytearray(datagram)
            copy[position] ^= 1 << position % 8
            yield bytes(copy)


def test_one_flipped_bit_in_any_handshake_datagram() -> None:
    """W-1: whatever bit is flipped in whatever datagram, a clean copy succeeds later and nothing was counted."""
    world = World()
    initiator = world.dial()
    (hello,) = initiator.take(0.0)
    for copy in damaged(hello, 7):
        assert isinstance(world.hear(copy), Dropped)
    assert len(world.responder) == 0
    begun = world.hear(hello)
    assert isinstance(begun, Challenged)
    for datagram in begun.half_open.datagrams:
        world.tell(initiator, damaged(datagram, 3), 0.01)
    assert not in_grace(initiator), "no grace has begun"
    world.tell(initiator, begun.half_open.datagrams, 0.02)
    (proof,) = initiator.take(0.02)
    for copy in damaged(proof, 3):
        assert isinstance(world.hear(copy), Dropped)
    assert isinstance(world.hear(proof), Accepted)
    assert initiator.error is None


def test_damage_is_told_from_everything_else() -> None:
    """W-1: a flip is always noticed by the check, or by the form before it."""
    (hello,) = World().dial().take(0.0)
    for copy in damaged(hello, 11):
        with pytest.raises(ProtocolError) as caught:
            decode_datagram_untrusted(copy)
        assert isinstance(caught.value, ChecksumError) or copy[0] != hello[0]


def test_damage_in_transit_never_ends_in_authentication_error() -> None:
    """W-1: where every first copy of every datagram is damaged, the handshake only takes longer."""
    world = World()
    initiator = world.dial()
    now = 0.0
    copies: dict[bytes, int] = {}

    def network(datagrams: tuple[bytes, ...]) -> list[bytes]:
        arrived = []
        for datagram in datagrams:
            copies[datagram] = copies.get(datagram, 0) + 1
            bit = 8 * 30 + copies[datagram]
            damage = (int.from_bytes(datagram) ^ 1 << bit).to_bytes(len(datagram))
            arrived.append(damage if copies[datagram] == 1 else datagram)
        return arrived

    for _ in range(20):
        initiator.tick(now)
        taken = initiator.take(now)
        for datagram in network(taken):
            outcome = world.hear(datagram, now)
            if isinstance(outcome, Accepted):
                assert secrets_of(outcome.established) == secrets_of(both_ends(initiator, outcome)[0])
                return
            if isinstance(outcome, Reply):
                world.tell(initiator, network(outcome.datagrams), now)
            if isinstance(outcome, Challenged):
                world.tell(initiator, network(outcome.half_open.datagrams), now)
        if not taken:
            now = initiator.deadline
    pytest.fail("never established")


# -- a watcher who injects -----------------------------------------------------------------------------------------


def injections(hello: Message, name: bytes) -> list[Message]:
    """All that somebody who saw HELLO can make up."""
    entropy = Entropy("watcher")

    def reply(kind: MessageType, body: bytes) -> Message:
        return Message(kind, hello.scid, hello.dcid, body)

    challenge = Challenge(name, 1, 1, entropy(32), entropy(32), entropy(1200), entropy(48), entropy(30)).encode()
    return [
        reply(MessageType.RETRY, Retry(name, b"nonsense").encode()),
        reply(MessageType.REFUSED, Refused(name, 0x0102).encode()),
        reply(MessageType.REFUSED, Refused(name, 0x0103).encode()),
        reply(MessageType.VERSION, VersionList(name, (2,), (3,)).encode()),
        reply(MessageType.CHALLENGE, challenge),
        Message(MessageType.CHALLENGE, hello.scid, bytes(8), challenge),
        reply(MessageType.CHALLENGE, challenge[:-1]),
        reply(MessageType.ABORT, bytes(18)),
        reply(MessageType.AUTH_PROOF, bytes(1168)),
        reply(MessageType.HELLO, hello.body),
    ]


@pytest.mark.parametrize("first", range(10))
def test_a_watcher_ends_no_handshake(first: int) -> None:
    """H-12 to H-14: whatever he injects, in any order, before the genuine CHALLENGE, that one wins."""
    world = World()
    initiator = world.dial()
    (datagram,) = initiator.take(0.0)
    hello = message_of((datagram,))
    named = Hello.decode_untrusted(hello.body).hello_hash(hello.dcid, hello.scid)
    lies = injections(hello, named)
    for lie in lies[first:] + lies[:first]:
        for forged in encode_pieces(lie, 1200):
            world.tell(initiator, (forged,), 0.01)
    (again,) = initiator.take(0.02) or (datagram,)
    outcome = world.hear(again, 0.1)
    assert isinstance(outcome, Challenged)
    world.tell(initiator, outcome.half_open.datagrams, 0.25)
    assert initiator.state is InitiatorState.PROOF_SENT
    (proof,) = initiator.take(0.25)
    for lie in lies:
        initiator.on_message(lie, 0.26)
    assert isinstance(world.hear(proof, 0.3), Accepted)


def test_a_watcher_ends_no_half_open_handshake() -> None:
    """H-24, H-25: an ABORT or AUTH_PROOF that he makes up, with the right connection IDs, changes nothing."""
    world = World()
    initiator = world.dial()
    half_open = world.challenge(initiator).half_open
    for body, kind in ((bytes(18), MessageType.ABORT), (bytes(1168), MessageType.AUTH_PROOF)):
        forged = encode_datagram(Message(kind, half_open.local_cid, half_open.peer_cid, body))
        assert world.hear(forged) == Dropped(Reason.SHUT)
    world.tell(initiator, half_open.datagrams)
    assert isinstance(world.hear(*initiator.take(0.0)), Accepted)


# -- replayed and reflected ----------------------------------------------------------------------------------------


def test_replayed_messages() -> None:
    """H-20, H-30: what was recorded in one handshake is worth nothing after it, and elsewhere at no time."""
    world = World()
    initiator = world.dial()
    (hello,) = initiator.take(0.0)
    begun = world.hear(hello)
    assert isinstance(begun, Challenged)
    world.tell(initiator, begun.half_open.datagrams)
    (proof,) = initiator.take(0.0)
    assert world.hear(proof, path=path_of(("203.0.113.9", 9))) == Dropped(Reason.UNKNOWN)
    assert isinstance(world.hear(proof), Accepted)
    assert world.hear(proof) == Dropped(Reason.UNKNOWN)
    assert world.hear(hello) == Dropped(Reason.REPEATED)

    # much later HELLO begins a handshake again, but the old proof fits neither it nor its connection ID
    world.responder.expire(20.0)
    again = world.hear(hello, 20.0)
    assert isinstance(again, Challenged)
    assert world.hear(proof, 20.0) == Dropped(Reason.UNKNOWN)
    renamed = encode_datagram(message_of((proof,))._replace(dcid=again.half_open.local_cid))
    assert world.hear(renamed, 20.0) == Dropped(Reason.SHUT)


def test_replayed_challenge() -> None:
    """H-13: the CHALLENGE of an earlier dial names another HELLO."""
    world = World()
    old = world.challenge(world.dial()).half_open
    initiator = world.dial()
    initiator.take(0.0)
    renamed = message_of(old.datagrams)._replace(dcid=initiator.local_cid)
    initiator.on_message(renamed, 0.01)
    assert not in_grace(initiator)


@pytest.mark.parametrize("kind", [MessageType.CHALLENGE, MessageType.AUTH_PROOF])
def test_reflected_messages(kind: MessageType) -> None:
    """H-2: each message is bound to its type and to the order of its connection IDs."""
    world = World()
    initiator = world.dial()
    begun = world.challenge(initiator).half_open
    if kind is MessageType.CHALLENGE:
        assert world.hear(encode_datagram(message_of(begun.datagrams))) == Dropped(Reason.UNKNOWN)
    else:
        world.tell(initiator, begun.datagrams)
        proof = message_of(initiator.take(0.0))
        other = world.dial()
        other.take(0.0)
        other.on_message(proof._replace(dcid=other.local_cid), 0.0)
        assert not in_grace(other)


def test_a_node_cannot_be_made_to_talk_to_itself() -> None:
    """H-16, H-27: every message of a node that is reflected to it ends nowhere."""
    world = World(identity=ALICE)
    initiator = world.dial()
    (hello,) = initiator.take(0.0)
    assert world.hear(hello, live_keys={initiator.ephemeral}) == Dropped(Reason.REFLECTED)
    # and were the HELLO taken for another's: neither side would accept its own identity
    begun = world.hear(hello)
    assert isinstance(begun, Challenged)
    world.tell(initiator, begun.half_open.datagrams, 0.01)
    assert initiator.established is None


# -- downgrade -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change", [{"suites": (2,)}, {"suites": (2, 1)}, {"versions": (1, 7)}, {"parameters": b""}, {"sid": bytes(16)}]
)
def test_what_was_offered_cannot_be_changed_on_the_way(change: dict[str, Any]) -> None:
    """H-2: the whole core of HELLO is in the transcript; a changed one ends in no session."""
    world = World()
    initiator = world.dial()
    hello = message_of(initiator.take(0.0))
    fields = attrs.evolve(Hello.decode_untrusted(hello.body), **change)
    begun = world.hear(encode_datagram(hello._replace(body=fields.encode()), 1200))
    assert isinstance(begun, Challenged)
    challenge = message_of(begun.half_open.datagrams)
    initiator.on_message(challenge, 0.01)
    assert not in_grace(initiator), "it answers another HELLO"
    named = Hello.decode_untrusted(hello.body).hello_hash(hello.dcid, hello.scid)
    initiator.on_message(challenge._replace(body=named + challenge.body[16:]), 0.01)
    assert initiator.established is None, "and with our hello hash it does not open"


@pytest.mark.parametrize("position", [16, 17, 18, 50, 82, 1281, 1282, 1329, 1330])
def test_what_was_chosen_cannot_be_changed_on_the_way(position: int) -> None:
    """H-2, H-17: nor can any part of CHALLENGE, in clear or sealed."""
    world = World()
    initiator = world.dial()
    challenge = message_of(world.challenge(initiator).half_open.datagrams)
    body = bytearray(challenge.body)
    body[position] ^= 3 if position == 17 else 1
    initiator.on_message(challenge._replace(body=bytes(body)), 0.01)
    assert initiator.established is None


def test_connection_ids_cannot_be_changed_on_the_way() -> None:
    """H-2: the source's ID of CHALLENGE is in the transcript, too."""
    world = World()
    initiator = world.dial()
    challenge = message_of(world.challenge(initiator).half_open.datagrams)
    initiator.on_message(challenge._replace(scid=bytes(8)), 0.01)
    assert initiator.established is None


def test_sitting_between_two_is_seen_by_who_pins() -> None:
    """H-15: another holder of the seed, who answers in Bob's place, gets nothing from who asked for Bob."""
    between = World(identity=ALICE)
    initiator = between.dial(identity=CAROL, peer_node_id=BOB.node_id)
    between.tell(initiator, between.challenge(initiator).half_open.datagrams, 0.01)
    while initiator.deadline != inf:
        initiator.tick(initiator.deadline)
    assert isinstance(initiator.error, AuthenticationError)


# -- names ---------------------------------------------------------------------------------------------------------


class SecondSpelling:
    """An identity whose node id has bit 255 set: the same key under another name."""

    def __init__(self, identity: Identity) -> None:
        self._key = identity.static_key
        self.node_id = self.public_bytes = identity.node_id[:31] + bytes((identity.node_id[31] | 0x80,))

    @property
    def static_key(self) -> SecondSpelling:
        return self

    def exchange(self, peer_public: bytes) -> bytes:
        return self._key.exchange(peer_public)


def test_a_responder_has_one_name() -> None:
    """I-2: a node id that is not canonical is a bad message, or a deny list would not hold."""
    world = World(identity=SecondSpelling(BOB))
    initiator = world.dial()
    world.tell(initiator, world.challenge(initiator).half_open.datagrams, 0.01)
    assert initiator.established is None


def test_an_initiator_has_one_name() -> None:
    """I-2."""
    world = World()
    initiator = world.dial(identity=SecondSpelling(ALICE))
    world.tell(initiator, world.challenge(initiator).half_open.datagrams)
    assert world.hear(*initiator.take(0.0)) == Dropped(Reason.SHUT)


# -- peers that have the seed and mean ill -----------------------------------------------------------------------


class Nobody:
    """An identity that is a point of small order: what it agrees on is zero, whoever asks."""

    node_id = public_bytes = SMALL_ORDER[1]

    @property
    def static_key(self) -> Nobody:
        return self

    def exchange(self, _: bytes) -> bytes:
        return bytes(32)


class BrokenKem(MLKEM768):
    """Hands out a key whose coefficients are not below the modulus."""

    def private_key(self, seed: bytes) -> Any:
        return self

    def public_bytes(self, seed: bytes = b"") -> bytes:
        return b"\xff" * 1184


@pytest.mark.parametrize("evil", [{"identity": Nobody()}, {"kem": BrokenKem()}], ids=["small order", "KEM key"])
def test_a_responder_with_keys_that_must_be_refused(evil: dict[str, Any]) -> None:
    """H-4: keys behind the seal are no better; they are a CHALLENGE that does not open."""
    world = World(**evil)
    initiator = world.dial()
    world.tell(initiator, world.challenge(initiator).half_open.datagrams, 0.01)
    assert initiator.established is None
    assert in_grace(initiator)


def test_an_initiator_with_a_key_that_must_be_refused() -> None:
    """H-4."""
    world = World()
    initiator = world.dial(identity=Nobody())
    world.tell(initiator, world.challenge(initiator).half_open.datagrams)
    assert world.hear(*initiator.take(0.0)) == Dropped(Reason.SHUT)


# -- anything at all -----------------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(
    kind=st.sampled_from(MessageType),
    cids=st.lists(st.sampled_from(["initiator", "hello", "responder", "nobody"]), min_size=2, max_size=2),
    body=st.binary(max_size=1400)
    | st.tuples(st.sampled_from(MessageType), st.integers(0, 1500), st.binary(max_size=9)),
)
def test_no_message_raises(kind: MessageType, cids: list[str], body: bytes | tuple[MessageType, int, bytes]) -> None:
    """G-2, H-12, H-25: any message, made up or made of genuine ones, to either side; the handshake goes on."""
    world = World()
    initiator = world.dial()
    hello = message_of(initiator.take(0.0))
    begun = world.hear(encode_datagram(hello, 1200))
    assert isinstance(begun, Challenged)
    challenge = message_of(begun.half_open.datagrams)
    ids = {"initiator": hello.scid, "hello": hello.dcid, "responder": challenge.scid, "nobody": bytes(8)}
    if isinstance(body, tuple):
        genuine = {MessageType.HELLO: hello.body, MessageType.CHALLENGE: challenge.body}.get(body[0], bytes(1168))
        body = genuine[: body[1]] + body[2] + genuine[body[1] + len(body[2]) :]
    message = Message(kind, ids[cids[0]], ids[cids[1]], body)
    initiator.on_message(message, 0.01)
    world.hear(encode_datagram(message), 0.01)
    world.tell(initiator, begun.half_open.datagrams, 0.02)
    (proof,) = initiator.take(0.02)[-1:]
    assert isinstance(world.hear(proof, 0.02), Accepted)


# -- floods --------------------------------------------------------------------------------------------------------


def test_amplification() -> None:
    """An address that was not shown never gets 3 times what came from it: not at once, not by repetition."""
    world = World()
    (hello,) = world.dial().take(0.0)
    received = sent = 0
    for _ in range(50):
        received += len(hello)
        outcome = world.hear(hello)
        if isinstance(outcome, Challenged):
            sent += sum(map(len, outcome.half_open.datagrams))
        elif isinstance(outcome, Reply):
            sent += sum(map(len, outcome.datagrams))
        assert sent <= 1.5 * received


def test_twenty_thousand_spoofed_hellos() -> None:
    """H-21 to H-23: they stay within the limits, cost few keys, and a genuine client gets in all the while."""
    world = World()
    template = whole(decode_datagram_untrusted(spoofed_hello(Entropy(0))))
    made_up = []
    for number in range(500):
        scid = number.to_bytes(8)
        made_up.append(encode_datagram(template._replace(scid=scid), 1200))
    connected = 0
    for number in range(20_000):
        now = number / 2000  # ten seconds
        path = path_of((f"10.{number >> 8}.{number & 255}.1", 1000 + number % 7))
        world.hear(made_up[number % 500], now, path)
        assert len(world.responder) <= 1024
        if number % 2000 == 1999:
            world.responder.expire(now)
            connected += knock(world, now, (CLIENT[0], 40_000 + number))
    assert connected == 10
    assert len(world.issued) < 300, "handshakes begun, with a key each"
    assert len(world.responder._guesses) <= 4096


def knock(world: World, now: float, remote: tuple[str, int]) -> bool:
    """A genuine client in the flood: HELLO until it gets an answer; then a whole handshake."""
    path = path_of(remote)
    initiator = world.dial(now)
    for wait in (0.0, 0.25, 0.6):
        initiator.tick(now + wait)
        for hello in initiator.take(now + wait):
            outcome = world.hear(hello, now + wait, path)
            if isinstance(outcome, Reply):
                world.tell(initiator, outcome.datagrams, now + wait)
                (hello,) = initiator.take(now + wait)
                outcome = world.hear(hello, now + wait, path)
            if isinstance(outcome, Challenged):
                world.tell(initiator, outcome.half_open.datagrams, now + wait)
                (proof,) = initiator.take(now + wait)
                return isinstance(world.hear(proof, now + wait, path), Accepted)
    return False


def test_a_full_table_lets_in_who_shows_his_address() -> None:
    """H-21: even with every place taken."""
    world = World(limits=Limits(half_open=20, half_open_without_cookie=20, failed_guesses_without_cookie=1000))
    for _ in range(20):
        assert isinstance(world.hear(spoofed_hello(world.entropy)), Challenged)
    (hello,) = world.dial().take(0.0)
    assert world.hear(hello) == Dropped(Reason.FULL)
    world = World(limits=Limits(half_open=20, half_open_without_cookie=19, failed_guesses_without_cookie=1000))
    for _ in range(20):
        assert isinstance(world.hear(spoofed_hello(world.entropy)), Challenged)
    assert world.shake(world.dial()).half_open.proven


# -- a wrong seed, in time -----------------------------------------------------------------------------------------


def test_wrong_seed_in_time() -> None:
    """H-13, H-24: the initiator knows within two round trips and the grace, the responder within one more."""
    rtt = 0.05
    world = World()
    initiator = world.dial(shared_seed=b"another")
    (hello,) = initiator.take(0.0)
    begun = world.hear(hello, rtt / 2)
    assert isinstance(begun, Challenged)
    world.tell(initiator, begun.half_open.datagrams, rtt)
    now = rtt
    outcome = None
    while initiator.error is None:
        now = initiator.deadline
        initiator.tick(now)
        for datagram in initiator.take(now):
            outcome = world.hear(datagram, now + rtt / 2)
            if isinstance(outcome, Reply):
                world.tell(initiator, outcome.datagrams, now + rtt)
    assert isinstance(initiator.error, AuthenticationError)
    assert now <= 2 * rtt + 1.5
    assert outcome == Ended(begun.half_open, "auth_failure")
    assert len(world.responder) == 0
