"""Tickets by themselves: the value, what is sealed, who remembers which were used; and a second reading of 4.4."""

from __future__ import annotations

import hashlib
import hmac
import pickle
from copy import copy
from math import inf
from typing import Any

import pytest
from attrs import evolve
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from stt_proto import Ticket
from stt_proto.clock import Clock
from stt_proto.config import Limits
from stt_proto.crypto import SUITES, PrivateKey
from stt_proto.errors import ArgumentError, AuthenticationError, HandshakeError
from stt_proto.handshake import (
    Dropped,
    Initiator,
    InitiatorState,
    Offered,
    Reason,
    Reply,
    Resumer,
    SessionSecrets,
    TicketOffice,
    TicketTerms,
    UsedTickets,
)
from stt_proto.handshake.resumer import ANSWERS_TRIED
from stt_proto.handshake.resumption import Resuming
from stt_proto.handshake.schedule import hello_hash
from stt_proto.handshake.tickets import TICKET_SIZE, Grant
from stt_proto.identity import Identity
from stt_proto.tickets import TicketRefusal
from stt_proto.wire import (
    Challenge,
    Hello,
    Message,
    MessageType,
    Parameters,
    Piece,
    Refused,
    Resume,
    Resumed,
    decode_datagram_untrusted,
    encode_datagram,
    encode_pieces,
)
from tests.proto.handshake_world import ALICE, BOB, CAROL, Entropy, World, path_of

TICKET = Ticket(b"sealed", b"s" * 32, b"n" * 32, b"p" * 32, 1, 1_700_000_000.25, 86_400)
CHANNEL = b"\x04stt1\x04test"
UNIX = 1_700_000_000.0


# -- the value -----------------------------------------------------------------------------------------------------


@given(
    st.binary(min_size=1, max_size=512),
    st.binary(min_size=32, max_size=32),
    st.sampled_from([1, 2]),
    st.integers(0, 10**12),
    st.integers(0, 604_800),
    st.integers(0, 768),
)
def test_export(sealed: bytes, secret: bytes, suite: int, issued_at: int, lifetime: int, early: int) -> None:
    """C7: what was exported is taken back as it was, to the millisecond."""
    ticket = Ticket(sealed, secret, b"n" * 32, b"p" * 32, suite, issued_at / 1000, lifetime, early)
    again = Ticket.from_bytes(ticket.export())
    assert again.export() == ticket.export()
    assert (again.sealed, again.secret, again.suite, again.lifetime) == (sealed, secret, suite, lifetime)
    assert again.max_early_data == early
    assert again.expires_at == issued_at / 1000 + lifetime


@given(st.integers(0, len(TICKET.export()) - 1), st.integers(1, 255))
def test_damaged_exports(at: int, difference: int) -> None:
    """No damage goes unnoticed, and nothing of the ticket is quoted."""
    data = bytearray(TICKET.export())
    data[at] ^= difference
    with pytest.raises(ArgumentError) as caught:
        Ticket.from_bytes(bytes(data))
    assert caught.value.argument == "data"
    assert "ss" not in str(caught.value)


def checked(data: bytes) -> bytes:
    return data + hashlib.sha256(b"stt1 ticket file" + data).digest()[:16]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(16),
        TICKET.export()[:-1],
        TICKET.export() + b"\0",
        bytearray(TICKET.export()),
        "ticket",
        None,
        checked(b""),
        checked(b"stt-ticket-1"),
        checked(b"stt-ticket-2" + TICKET.export()[12:-16]),
        checked(TICKET.export()[:-17]),
        checked(TICKET.export()[:-16] + b"\0"),
        checked(TICKET.export()[:-22] + bytes(600)),
    ],
)
def test_no_tickets(data: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        Ticket.from_bytes(data)
    assert caught.value.argument == "data"


@pytest.mark.parametrize(
    ("changes", "argument"),
    [
        ({"sealed": b""}, "sealed"),
        ({"sealed": bytes(513)}, "sealed"),
        ({"sealed": "sealed"}, "sealed"),
        ({"secret": bytes(31)}, "secret"),
        ({"node_id": bytes(33)}, "node_id"),
        ({"peer_node_id": "p" * 32}, "peer_node_id"),
        ({"suite": 256}, "suite"),
        ({"suite": 1.0}, "suite"),
        ({"issued_at": -1.0}, "issued_at"),
        ({"issued_at": float("nan")}, "issued_at"),
        ({"issued_at": inf}, "issued_at"),
        ({"lifetime": 604_801}, "lifetime"),
        ({"lifetime": -1}, "lifetime"),
        ({"max_early_data": 769}, "max_early_data"),
        ({"max_early_data": -1}, "max_early_data"),
    ],
)
def test_tickets_that_cannot_be(changes: dict[str, Any], argument: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        evolve(TICKET, **changes)
    assert caught.value.argument == argument
    assert "sss" not in str(caught.value)


# -- which were used -----------------------------------------------------------------------------------------------


class Memory(RuleBasedStateMachine):
    """H-36: against a model that never forgets: what it has seen used is never good again."""

    def __init__(self) -> None:
        super().__init__()
        self.used = UsedTickets(4)
        self.model: dict[bytes, float] = {}
        self.expiries: dict[bytes, float] = {}
        self.now = 100.0

    @rule(number=st.integers(0, 9), life=st.integers(-5, 30))
    def use(self, number: int, life: int) -> None:
        name = b"%d" % number
        expires_at = self.expiries.setdefault(name, self.now + life)  # a ticket has one
        good = name not in self.used and not self.used.is_over(expires_at, self.now)
        added = self.used.add(name, expires_at, self.now)
        assert not (added and not good)
        if added:
            assert self.model.get(name, -inf) < expires_at
            self.model[name] = expires_at
        elif good:
            assert self.used.is_full(self.now)

    @rule(seconds=st.integers(-20, 20))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def restart(self) -> None:
        again = UsedTickets(4)
        assert again.restore(self.used.snapshot(), self.now, self.used.forgotten_until)
        assert set(again.snapshot()) == {entry for entry in self.used.snapshot() if entry[1] > self.now}
        assert again.forgotten_until >= self.used.forgotten_until
        self.used = again

    @invariant()
    def nothing_is_good_twice(self) -> None:
        assert len(self.used) <= 4
        for name, expires_at in self.model.items():
            assert name in self.used or self.used.is_over(expires_at, self.now)


TestMemory = Memory.TestCase


def test_a_snapshot_that_is_too_large() -> None:
    """H-36: what there is no room for is said, not dropped in silence."""
    used = UsedTickets(3)
    for number in range(3):
        assert used.add(b"%d" % number, 10.0 + number, 0.0)
    assert used.snapshot() == ((b"0", 10.0), (b"1", 11.0), (b"2", 12.0))
    assert not UsedTickets(2).restore(used.snapshot(), 0.0)
    assert UsedTickets(2).restore(used.snapshot(), 10.0)
    assert UsedTickets(3).restore([*used.snapshot(), *used.snapshot()], 0.0)


# -- what is sealed ------------------------------------------------------------------------------------------------


def office(identity: Identity = BOB, clock: Clock | None = None, **changes: Any) -> TicketOffice:
    terms = {
        "lifetime": 86_400,
        "fleet_secret": b"f" * 32,
        "previous_fleet_secret": None,
        "channel": CHANNEL,
        "generation": 7,
        "suites": (1, 2),
        "limit": 16,
        **changes,
    }
    return TicketOffice(identity.node_id, TicketTerms(**terms), clock or Clock(0.0, UNIX), Entropy("office"))


def secrets_of(suite: int = 1) -> SessionSecrets:
    drawn = [bytes((number,)) * 32 for number in range(7)]
    return SessionSecrets(SUITES[suite], *drawn, b"session!")


def given_ticket(there: TicketOffice, suite: int = 1, initiator: Identity = ALICE, responder: Identity = BOB) -> Ticket:
    """A ticket as the initiator keeps it."""
    frame = there.issue(secrets_of(suite), initiator.node_id, 0.0)
    assert frame is not None
    secret = expand(secrets_of(suite).resumption, b"stt1 ticket secret" + frame.nonce, 32)
    return Ticket(frame.sealed, secret, initiator.node_id, responder.node_id, suite, UNIX, frame.lifetime)


def expand(prk: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand with SHA-256, from RFC 5869."""
    done = block = b""
    while len(done) < length:
        block = hmac.digest(prk, block + info + bytes((len(done) // 32 + 1,)), "sha256")
        done += block
    return done[:length]


def test_what_is_sealed() -> None:
    """H-33, H-34, by a second reading of the text."""
    ticket = given_ticket(office())
    key_id, salt, sealed = ticket.sealed[:4], ticket.sealed[4:20], ticket.sealed[20:]
    ring = expand(hmac.digest(b"stt1 fleet", b"f" * 32, "sha256"), b"stt1 ticket ring" + CHANNEL, 32)
    assert key_id == expand(ring, b"stt1 ticket key id", 4)
    drawn = expand(ring, b"stt1 ticket key" + salt, 44)
    plain = AESGCM(drawn[:32]).decrypt(drawn[32:], sealed, b"stt1 ticket" + key_id + salt)
    fields = [plain[:1], plain[1:2], plain[2:6], plain[6:14], plain[14:18], plain[18:34], plain[34:66], plain[66:98]]
    numbers = [int.from_bytes(field) for field in fields[:5]]
    assert numbers == [1, 1, 7, int(UNIX * 1000), 86_400]
    assert fields[6:] == [ALICE.node_id, BOB.node_id]
    assert plain[98:] == ticket.secret
    assert len(ticket.sealed) == TICKET_SIZE
    with pytest.raises(InvalidTag):
        AESGCM(drawn[:32]).decrypt(drawn[32:], sealed, b"stt1 ticket" + key_id + bytes(16))


def test_no_two_tickets_have_anything_in_common() -> None:
    """H-34: each has a salt, an id and a nonce of its own."""
    there = office()
    frames = [there.issue(secrets_of(), ALICE.node_id, 0.0) for _ in range(50)]
    grants = [there.examine(frame.sealed, 0.0) for frame in frames if frame is not None]
    assert len({frame.nonce for frame in frames if frame is not None}) == 50
    assert len({frame.sealed[4:20] for frame in frames if frame is not None}) == 50
    assert len({grant.ticket_id for grant in grants if isinstance(grant, Grant)}) == 50
    assert len({grant.secret for grant in grants if isinstance(grant, Grant)}) == 50


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, None),
        ({"generation": 8}, TicketRefusal.GENERATION),
        ({"suites": (2,)}, TicketRefusal.REFUSED),
        ({"lifetime": 0}, TicketRefusal.UNKNOWN),
        ({"identity": CAROL}, TicketRefusal.PEER),
        ({"fleet_secret": b"g" * 32}, TicketRefusal.UNKNOWN),
        ({"fleet_secret": b"g" * 32, "previous_fleet_secret": b"f" * 32}, None),
        ({"fleet_secret": None, "previous_fleet_secret": b"f" * 32}, None),
        ({"channel": b"\x04stt1\x05other"}, TicketRefusal.UNKNOWN),
        ({"clock": Clock(0.0, UNIX - 60.0)}, None),
        ({"clock": Clock(0.0, UNIX - 60.1)}, TicketRefusal.UNKNOWN),
        ({"clock": Clock(0.0, UNIX + 86_399)}, None),
        ({"clock": Clock(0.0, UNIX + 86_400)}, TicketRefusal.EXPIRED),
    ],
)
def test_what_another_office_says(changes: dict[str, Any], verdict: TicketRefusal | None) -> None:
    """H-34: what is asked of a ticket that opens, and what is as if there were none."""
    ticket = given_ticket(office())
    found = office(**changes).examine(ticket.sealed, 0.0)
    if verdict is None:
        assert isinstance(found, Grant)
        assert found.secret == ticket.secret
        assert ticket.secret.hex() not in repr(found)
    else:
        assert found is verdict


@given(st.integers(0, TICKET_SIZE - 1), st.integers(1, 255))
def test_no_bit_of_a_ticket_can_be_changed(at: int, difference: int) -> None:
    """H-34: forged, as if there were none."""
    there = office()
    sealed = bytearray(given_ticket(there).sealed)
    sealed[at] ^= difference
    assert there.examine(bytes(sealed), 0.0) is TicketRefusal.UNKNOWN


@given(st.binary(max_size=TICKET_SIZE + 20))
def test_tickets_of_nobody(ticket: bytes) -> None:
    """H-34: any bytes."""
    assert office().examine(ticket, 0.0) is TicketRefusal.UNKNOWN


def test_a_format_to_come() -> None:
    """H-34: sealed by a later version that shares the fleet's secret."""
    there = office()
    key = there._current_key(0.0)
    found = there.examine(given_ticket(there).sealed, 0.0)
    assert isinstance(found, Grant)
    ticket = key.seal(b"\x02" + found.encode()[1:], b"salt" * 4)
    assert there.examine(ticket, 0.0) is TicketRefusal.UNKNOWN


@pytest.mark.parametrize(
    ("changes", "is_good"),
    [
        ({}, True),
        ({"lifetime": 604_800}, True),
        ({"lifetime": 604_801}, False),
        ({"initiator": ALICE.node_id[:31] + bytes([ALICE.node_id[31] | 0x80])}, False),
    ],
)
def test_what_a_thief_of_the_key_seals(changes: dict[str, Any], is_good: bool) -> None:
    """H-35: no ticket for years, whose use would be remembered for as long; and nobody under another spelling."""
    there = office()
    found = there.examine(given_ticket(there).sealed, 0.0)
    assert isinstance(found, Grant)
    ticket = there._current_key(0.0).seal(evolve(found, **changes).encode(), b"salt" * 4)
    assert isinstance(there.examine(ticket, 0.0), Grant) == is_good


def test_a_clock_before_1970() -> None:
    """A host that says so raises nothing."""
    there = office(clock=Clock(0.0, -100.0))
    frame = there.issue(secrets_of(), ALICE.node_id, 0.0)
    assert frame is not None
    assert there.examine(frame.sealed, 0.0) is TicketRefusal.UNKNOWN


def test_offices_and_grants_keep_their_secrets() -> None:
    """MISSION, security: nothing to be seen, nothing to be pickled."""
    there = office()
    found = there.examine(given_ticket(there).sealed, 0.0)
    for holder in (there, found, there._current_key(0.0)):
        with pytest.raises(TypeError):
            pickle.dumps(holder)
        with pytest.raises(TypeError):
            copy(holder)
    terms = there._terms
    assert "ffff" not in repr(terms)


# -- the handshake, by a second reading ----------------------------------------------------------------------------


class Reference:
    """Noise KKpsk0 and what 4.4 adds to it, from the two texts alone."""

    def __init__(self, suite: int, prologue: bytes, initiator: bytes, responder: bytes, psk: bytes) -> None:
        self.suite = suite
        name = b"Noise_KKpsk0_25519_%b_SHA256" % (b"AESGCM" if suite == 1 else b"ChaChaPoly")
        self.h = name.ljust(32, b"\0") if len(name) <= 32 else hashlib.sha256(name).digest()
        self.ck = self.h
        self.key, self.n = b"", 0
        for part in (prologue, initiator, responder):
            self.mix_hash(part)
        self.ck, trace, self.key = self.hkdf(psk, 3)
        self.mix_hash(trace)

    def hkdf(self, secret: bytes, count: int) -> list[bytes]:
        outputs = expand(hmac.digest(self.ck, secret, "sha256"), b"", 32 * count)
        return [outputs[start : start + 32] for start in range(0, 32 * count, 32)]

    def mix_hash(self, data: bytes) -> None:
        self.h = hashlib.sha256(self.h + data).digest()

    def mix_key(self, secret: bytes) -> None:
        (self.ck, self.key), self.n = self.hkdf(secret, 2), 0

    def mix_e(self, e: bytes) -> None:
        self.mix_hash(e)
        self.mix_key(e)

    def open(self, sealed: bytes) -> bytes:
        nonce = bytes(4) + self.n.to_bytes(8, "big" if self.suite == 1 else "little")
        aead = AESGCM(self.key) if self.suite == 1 else ChaCha20Poly1305(self.key)
        plain = aead.decrypt(nonce, sealed, self.h)
        self.n += 1
        self.mix_hash(sealed)
        return plain


def dh(private: bytes, public: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))


def private_key(node_seed: bytes) -> bytes:
    """I-2."""
    return expand(hmac.digest(b"stt1 node", node_seed, "sha256"), b"stt1 node key", 32)


def resumer(world: World, ticket: Ticket, identity: Identity = ALICE, **changes: Any) -> Resumer:
    """Alice dials with a ticket."""
    cid = world.entropy(8)
    return Resumer(
        ticket,
        **{
            "identity": identity,
            "application": "test",
            "parameters": Parameters(max_data=100, max_ack_delay=5),
            "local_cid": cid,
            "reliable": world.reliable,
            "max_datagram": world.max_datagram,
            "entropy": world.entropy,
            "now": 0.0,
            "handshake_timeout": 10.0,
            "begin_full": lambda now: world.dial(now, local_cid=cid),
            **changes,
        },
    )


def answered(world: World, datagram: bytes, now: float = 0.0) -> tuple[bytes, ...]:
    """The responder's answer to a RESUME."""
    offered = world.hear(datagram, now)
    assert isinstance(offered, Offered)
    assert world.responder.enter(offered.resuming, now, world.issue) is None
    return world.responder.answer(offered.resuming, world.terms).datagrams


@pytest.mark.parametrize("suite", [1, 2])
def test_every_key_of_a_resumption(suite: int) -> None:
    """H-35, H-6: RESUME and RESUMED open to somebody who has read the text, with the responder's keys and the psk.

    All that differs from the pattern is what is mixed in between: the header of RESUMED, and the hash of RESUME.
    """
    there = office()
    world = World(tickets=there)
    ticket = given_ticket(there, suite)
    alice = resumer(world, ticket)
    (datagram,) = alice.take(0.0)
    message = decode_datagram_untrusted(datagram)
    assert isinstance(message, Message)
    body = message.body
    size = int.from_bytes(body[1:3])
    clear, e, rest = body[: 3 + size], body[3 + size : 35 + size], body[35 + size :]
    assert clear == b"\x01" + len(ticket.sealed).to_bytes(2) + ticket.sealed
    sealed = rest[2 : 2 + int.from_bytes(rest[:2])]
    header = b"\xc8" + message.dcid + message.scid
    bob, psk = private_key(b"\x02" * 32), ticket.secret
    mine = Reference(suite, b"stt1 resume" + CHANNEL + header + clear, ALICE.node_id, BOB.node_id, psk)
    mine.mix_e(e)
    mine.mix_key(dh(bob, e))
    mine.mix_key(dh(bob, ALICE.node_id))
    assert mine.open(sealed) == Parameters(max_data=100, max_ack_delay=5).encode()

    name = hashlib.sha256(header + clear + e + rest[: 2 + len(sealed)]).digest()[:16]
    before = world.entropy._drawn
    (answer,) = answered(world, datagram)
    drawn = Entropy("world")
    drawn._drawn = before + 1  # the connection ID, then the ephemeral key
    e_private = drawn(32)
    reply = decode_datagram_untrusted(answer)
    assert isinstance(reply, Message)
    assert reply.body[:16] == name
    mine.mix_hash(b"\xc9" + reply.dcid + reply.scid + name)
    mine.mix_e(reply.body[16:48])
    mine.mix_key(dh(e_private, e))
    mine.mix_key(dh(e_private, ALICE.node_id))
    assert mine.open(reply.body[48:]) == world.parameters.encode()

    alice.on_message(reply, 0.1)
    established = alice.established
    assert established is not None
    assert alice.state is InitiatorState.CONFIRMED
    assert established.rtt == 0.1
    secrets = established.secrets
    drawn_secrets = expand(mine.ck, b"stt1 secrets" + mine.h, 232)
    assert drawn_secrets == b"".join(
        (
            secrets.initiator_traffic,
            secrets.responder_traffic,
            secrets.initiator_header,
            secrets.responder_header,
            secrets.exporter,
            secrets.resumption,
            secrets.rotation,
            secrets.session_id,
        )
    )


# -- the initiator -------------------------------------------------------------------------------------------------


def forged_answer(name: bytes, dcid: bytes, number: int = 0) -> Message:
    e = (9 + number).to_bytes(32, "little")
    return Message(MessageType.RESUMED, dcid, b"whatever", Resumed(name, e, bytes(40)).encode())


def name_of(datagram: bytes) -> bytes:
    message = decode_datagram_untrusted(datagram)
    assert isinstance(message, Message)
    return hashlib.sha256(message.prefix + Resume.decode_untrusted(message.body).core()).digest()[:16]


def test_so_many_answers_are_tried() -> None:
    """H-37: 64, and after that not even the true one; by then there is a full handshake."""
    there = office()
    for tried in (ANSWERS_TRIED - 1, ANSWERS_TRIED):
        world = World(tickets=there)
        alice = resumer(world, given_ticket(there))
        (datagram,) = alice.take(0.0)
        for number in range(tried):
            alice.on_message(forged_answer(name_of(datagram), alice.local_cid, number), 0.0)
        assert alice.refusal is TicketRefusal.SHUT
        world.tell(alice, answered(world, datagram))  # type: ignore[arg-type]
        assert (alice.established is not None) == (tried < ANSWERS_TRIED)


def test_answers_to_others() -> None:
    """H-12: what names another RESUME or another connection ID, or does not parse, is not even a hint."""
    there = office()
    world = World(tickets=there)
    alice = resumer(world, given_ticket(there))
    (datagram,) = alice.take(0.0)
    name, cid = name_of(datagram), alice.local_cid
    message = decode_datagram_untrusted(datagram)
    for kind, body in (
        (MessageType.RESUMED, forged_answer(bytes(16), cid).body),
        (MessageType.RESUMED, b"short"),
        (MessageType.REFUSED, Refused(bytes(16), 0x0205).encode()),
        (MessageType.REFUSED, b"short"),
        (MessageType.RETRY, bytes(16) + b"\x01c"),
        (MessageType.VERSION, name + b"\x01\x07\x01\x07"),
        (MessageType.CHALLENGE, bytes(2000)),
    ):
        alice.on_message(Message(kind, cid, message.dcid, body), 0.0)
    alice.on_message(forged_answer(name, b"somebody"), 0.0)
    alice.on_message(Message(MessageType.REFUSED, cid, b"somebody", Refused(name, 0x0205).encode()), 0.0)
    assert alice.refusal is None
    assert alice.take(0.0) == ()
    world.tell(alice, answered(world, datagram))  # type: ignore[arg-type]
    assert alice.established is not None


@pytest.mark.parametrize("code", [*range(0x0205, 0x020B), 0x0102, 0x0203, 0xFFFF])
def test_what_a_refusal_says(code: int) -> None:
    """H-37: the table of codes; all others say that nobody is wanted."""
    there = office()
    alice = resumer(World(), given_ticket(there))
    (datagram,) = alice.take(0.0)
    message = decode_datagram_untrusted(datagram)
    body = Refused(name_of(datagram), code).encode()
    alice.on_message(Message(MessageType.REFUSED, alice.local_cid, message.dcid, body), 0.0)
    words = ["unknown", "expired", "used", "other seeds", "another peer", "no room"]
    assert alice.refusal == (words[code - 0x0205] if 0x0205 <= code <= 0x020A else "refused")
    assert len(alice.take(0.0)) == 1, "HELLO"


def test_parameters_that_are_bad_behind_a_seal_that_opens() -> None:
    """X-1: the peer's own fault; then there will be no better answer."""
    there = office()
    world = World(tickets=there)
    alice = resumer(world, given_ticket(there))
    (datagram,) = alice.take(0.0)
    offered = world.hear(datagram)
    assert isinstance(offered, Offered)
    world.responder.enter(offered.resuming, 0.0, world.issue)
    (bad,) = offered.resuming.answer(b"\x01", 1200, world.entropy)
    world.tell(alice, [bad])  # type: ignore[arg-type]
    world.tell(alice, [bad])  # type: ignore[arg-type]
    assert alice.established is None
    assert alice.refusal is TicketRefusal.SHUT
    hello = alice.take(0.0)
    assert hello


def test_waits() -> None:
    """H-37: one repetition, then the full handshake beside it; the waits have the jitter of H-18."""
    there = office()
    begun: list[float] = []
    world = World()

    def begin_full(now: float) -> Initiator:
        begun.append(now)
        return world.dial(now)

    shifts = set()
    for _ in range(20):
        alice = resumer(world, given_ticket(there), begin_full=begin_full)
        assert alice.ephemeral == b""
        (first,) = alice.take(0.0)
        shift = alice.deadline / 0.25
        shifts.add(shift)
        assert 0.875 <= shift <= 1.125
        alice.tick(alice.deadline - 1e-6)
        assert alice.take(0.0) == ()
        alice.tick(alice.deadline)
        alice.tick(alice.deadline - 0.1)
        assert alice.take(0.3) == (first,)
        assert alice.deadline == pytest.approx(0.75 * shift)
        alice.tick(alice.deadline)
        assert alice.refusal is TicketRefusal.SILENCE
        (hello,) = alice.take(0.8)
        assert hello[0] == 0xC1
        assert alice.ephemeral != b""
        assert alice.deadline == pytest.approx(0.8 + 0.25, abs=0.04)
    assert len(shifts) > 10
    assert len(begun) == 20
    quick = resumer(world, given_ticket(there), handshake_timeout=0.2)
    quick.take(0.0)
    assert 0.0875 <= quick.deadline <= 0.1125


def test_a_full_handshake_that_fails_early() -> None:
    """H-12, H-37: who is nearer than the responder can have it fail at once; the resumption has its time all the same.

    RESUME is repeated as ever, so one that was lost is made good.
    """
    there = office()
    world = World(tickets=there)
    alice = resumer(world, given_ticket(there))
    (resume,) = alice.take(0.0)
    refused = Message(MessageType.REFUSED, alice.local_cid, resume[9:17], Refused(name_of(resume), 0x0205).encode())
    alice.on_message(refused, 0.01)
    (hello,) = alice.take(0.01)
    for number in range(4):
        alice.on_message(shut_challenge(world, alice, hello, number), 0.02)
    aborts = alice.take(0.02)
    assert len(aborts) == 4
    assert alice.error is None
    assert alice.state is InitiatorState.HELLO_SENT
    assert alice.deadline < 0.3
    alice.tick(alice.deadline)
    assert alice.take(0.3) == (resume,)
    over = alice.deadline
    assert 0.6 < over < 0.85
    alice.tick(over - 1e-6)
    assert alice.error is None
    world.tell(alice, answered(world, resume), 0.6)
    assert alice.established is not None
    assert alice.state is InitiatorState.CONFIRMED
    late = resumer(world, given_ticket(there))
    (resume,) = late.take(0.0)
    late.on_message(Message(MessageType.REFUSED, late.local_cid, resume[9:17], refused.body), 0.01)
    assert late.refusal is None, "an answer to another RESUME"
    late.tick(1.0)
    (hello,) = late.take(1.0)
    for number in range(4):
        late.on_message(shut_challenge(world, late, hello, number), 1.0)
    assert isinstance(late.error, AuthenticationError)
    assert late.state is InitiatorState.FAILED
    assert late.deadline == inf


def shut_challenge(world: World, dial: Resumer, hello: bytes, number: int) -> Message:
    """A CHALLENGE by somebody who has only seen the HELLO."""
    message = decode_datagram_untrusted(hello)
    assert isinstance(message, Message)
    seen = hello_hash(message.prefix + Hello.decode_untrusted(message.body).core())
    points = PrivateKey(bytes((number + 1,)) * 32).public_bytes
    forged = Challenge(seen, 1, 1, points, points, bytes(1200), bytes(48), bytes(40))
    return Message(MessageType.CHALLENGE, dial.local_cid, b"somebody", forged.encode())


def test_a_carrier_that_is_full_for_longer_than_patience() -> None:
    """H-37: RESUME goes out late, and is repeated once all the same; then only the full handshake has a timer."""
    there = office()
    alice = resumer(World(tickets=there), given_ticket(there))
    alice.tick(1.0)
    assert alice.refusal is TicketRefusal.SILENCE
    (resume,) = alice.take(1.0)
    (hello,) = alice.take(1.0)
    assert (resume[0], hello[0]) == (0xC8, 0xC1)
    repeated = []
    now = 1.0
    for _ in range(6):
        now = alice.deadline
        alice.tick(now)
        assert alice.deadline > now
        while datagrams := alice.take(now):
            repeated += datagrams
    assert repeated.count(resume) == 1
    assert repeated.count(hello) > 2


def test_once_it_is_over() -> None:
    """Nothing that comes later changes anything, or makes it send."""
    there = office()
    world = World(tickets=there)
    alice = resumer(world, given_ticket(there))
    (datagram,) = alice.take(0.0)
    answer = answered(world, datagram)
    world.tell(alice, answer)  # type: ignore[arg-type]
    established = alice.established
    world.tell(alice, answer)  # type: ignore[arg-type]
    alice.confirm()
    assert alice.established is established
    assert alice.deadline == inf
    assert alice.error is None
    assert alice.take(1.0) == ()


# -- the responder -------------------------------------------------------------------------------------------------


def test_a_responder_without_tickets() -> None:
    """H-35: it refuses, in few words."""
    alice = resumer(world := World(), given_ticket(office()))
    (datagram,) = alice.take(0.0)
    reply = world.hear(datagram)
    assert isinstance(reply, Reply)
    world.tell(alice, reply.datagrams)  # type: ignore[arg-type]
    assert alice.refusal is TicketRefusal.UNKNOWN


def test_a_version_to_come() -> None:
    """H-35."""
    world = World(tickets=office())
    resume = Resume(2, bytes(32), b"ticket", bytes(16))
    reply = world.hear(encode_datagram(Message(MessageType.RESUME, bytes(8), bytes(8), resume.encode()), 1200))
    assert isinstance(reply, Reply)
    refused = decode_datagram_untrusted(reply.datagrams[0])
    assert isinstance(refused, Message)
    assert Refused.decode_untrusted(refused.body).code == 0x0205


def test_what_costs_nothing() -> None:
    """H-19: size and form come before everything."""
    world = World(tickets=office())
    body = Resume(1, bytes(32), b"ticket", bytes(16)).encode()
    small = encode_datagram(Message(MessageType.RESUME, bytes(8), bytes(8), body), 1199)
    assert world.hear(small) == Dropped(Reason.SMALL)
    for bad in (body[:-1], body + b"x"):
        malformed = encode_datagram(Message(MessageType.RESUME, bytes(8), bytes(8), bad))
        assert world.hear(malformed.ljust(1200, b"\0")) != Dropped(Reason.SMALL)
        (whole,) = [encode_datagram(Message(MessageType.RESUME, bytes(8), bytes(8), bad.ljust(1200, b"x")))]
        assert world.hear(whole) == Dropped(Reason.MALFORMED)


def test_nobody_else_can_use_a_ticket() -> None:
    """H-35: with the secret and without the static key nothing opens; with a stolen ring key neither."""
    there = office()
    world = World(tickets=there)
    ticket = given_ticket(there)
    (datagram,) = resumer(world, ticket, CAROL).take(0.0)
    assert world.hear(datagram) == Dropped(Reason.SHUT)
    # The thief of the ring key makes a ticket that says what he likes, of anybody but himself.
    grant = there.examine(ticket.sealed, 0.0)
    assert isinstance(grant, Grant)
    forged = there._current_key(0.0).seal(evolve(grant, secret=b"k" * 32).encode(), b"salt" * 4)
    (datagram,) = resumer(world, evolve(ticket, sealed=forged, secret=b"k" * 32), CAROL).take(0.0)
    assert world.hear(datagram) == Dropped(Reason.SHUT)
    assert len(there.used) == 0, "and nothing is used up"
    # Nor can he stand for the responder.
    (datagram,) = (alice := resumer(world, ticket)).take(0.0)
    assert World(identity=CAROL, tickets=there).hear(datagram) == Dropped(Reason.SHUT)
    assert alice.established is None


def test_our_own_ticket() -> None:
    """H-16: with oneself only where that is allowed."""
    there = office()
    ticket = given_ticket(there, initiator=BOB)
    (datagram,) = resumer(World(), ticket, BOB).take(0.0)
    assert World(tickets=there).hear(datagram) == Dropped(Reason.SHUT)
    assert isinstance(World(tickets=there, allow_self=True).hear(datagram), Offered)


def test_parameters_of_an_initiator_that_are_bad() -> None:
    """X-1."""
    there = office()
    world = World(tickets=there)
    alice = resumer(world, given_ticket(there), parameters=Twisted())
    (datagram,) = alice.take(0.0)
    assert world.hear(datagram) == Dropped(Reason.SHUT)


class Twisted(Parameters):
    def encode(self) -> bytes:
        return b"\x01"


def test_many_that_do_not_open_make_it_ask_for_cookies() -> None:
    """H-21: each costs two multiplications, so they count as handshakes that came to nothing."""
    there = office()
    world = World(tickets=there)
    ticket = given_ticket(there)
    for number in range(1000):
        (datagram,) = resumer(world, ticket, CAROL).take(0.0)
        assert world.hear(datagram, path=path_of((f"host {number}", 1))) == Dropped(Reason.SHUT)
    (datagram,) = (alice := resumer(world, ticket)).take(0.0)
    reply = world.hear(datagram)
    assert isinstance(reply, Reply)
    assert reply.datagrams[0][0] == 0xC4
    world.tell(alice, reply.datagrams)  # type: ignore[arg-type]
    (again,) = alice.take(0.0)
    assert isinstance(world.hear(again), Offered)


@pytest.mark.parametrize("reliable", [False, True])
def test_one_source_with_many_that_do_not_open(reliable: bool) -> None:
    """H-23, H-35: 8 in a minute without a cookie, 64 and one a second behind one; and then nothing is computed."""
    there = office()
    world = World(tickets=there, reliable=reliable)
    ticket = given_ticket(there)
    opened = []
    for _ in range(200):
        (datagram,) = (carol := resumer(world, ticket, CAROL)).take(0.0)
        outcome = world.hear(datagram)
        if isinstance(outcome, Reply):
            world.tell(carol, outcome.datagrams)  # type: ignore[arg-type]
            (datagram,) = carol.take(0.0)
            outcome = world.hear(datagram)
        opened.append(outcome == Dropped(Reason.SHUT))
        assert opened[-1] or outcome == Dropped(Reason.GUESSING)
    assert sum(opened) == (64 if reliable else 8 + 64)
    (datagram,) = resumer(world, ticket).take(0.0)
    assert world.hear(datagram) == Dropped(Reason.GUESSING)
    assert isinstance(world.hear(datagram, path=path_of(("198.51.100.8", 1))), Offered)
    world.issued.clear()
    assert isinstance(world.hear(datagram, 2.0), Offered if reliable else Reply)


def test_pieces_of_a_resume() -> None:
    """W-3: only where datagrams are not lost; and what is kept of them goes in time."""
    there = office()
    world = World(tickets=there, reliable=True)
    alice = resumer(world, given_ticket(there), max_datagram=120)
    datagrams = alice.take(0.0)
    assert len(datagrams) > 2
    pieces = [decode_datagram_untrusted(datagram) for datagram in datagrams]
    collected: list[Message | None] = []
    for piece in pieces:
        assert isinstance(piece, Piece)
        assert world.pieces.add(piece, path_of(), False, 0.0) is None
        collected.append(world.pieces.add(piece, path_of(), True, 0.0))
    assert [message is None for message in collected] == [True] * (len(pieces) - 1) + [False]
    first = pieces[0]
    assert isinstance(first, Piece)
    world.pieces.add(first, path_of(), True, 0.0)
    assert len(world.pieces) == 1
    world.pieces.expire(10.0)
    assert len(world.pieces) == 0


def test_a_proof_for_a_resumption() -> None:
    """H-30: AUTH_PROOF and ABORT mean nothing to a half-open resumption."""
    there = office()
    world = World(tickets=there)
    (datagram,) = resumer(world, given_ticket(there)).take(0.0)
    answered(world, datagram)
    for kind in (MessageType.AUTH_PROOF, MessageType.ABORT):
        message = Message(kind, world.issued[-1], bytes(8), bytes(18))
        assert world.hear(encode_datagram(message)) == Dropped(Reason.UNEXPECTED)
    assert len(world.responder) == 1


def test_resumptions_have_their_share_of_the_table() -> None:
    """H-21: half-open resumptions count, and make room for others in their turn."""
    there = office()
    world = World(tickets=there, limits=Limits(half_open=2, half_open_without_cookie=1, half_open_per_source=9))
    world.reliable = True
    world.max_datagram = 65_535
    world.terms = evolve(world.terms, reliable=True, max_datagram=65_535)
    datagrams = [resumer(world, given_ticket(there)).take(0.0)[0] for _ in range(3)]
    answered(world, datagrams[0], 0.0)
    answered(world, datagrams[1], 0.5)
    assert world.hear(datagrams[2], 0.9) == Dropped(Reason.FULL)
    offered = world.hear(datagrams[2], 1.1)
    assert isinstance(offered, Offered)
    ended = world.responder.enter(offered.resuming, 1.1, world.issue)
    assert ended is not None
    assert isinstance(ended.half_open, Resuming)
    assert ended.reason == "timeout"
    assert len(world.responder) == 2


def test_small_bodies() -> None:
    """Section 3.2: both bodies end where they end."""
    with pytest.raises(HandshakeError):
        Resumed.decode_untrusted(bytes(63))
    with pytest.raises(HandshakeError):
        Resume.decode_untrusted(Resume(1, bytes(32), b"t", bytes(16)).encode() + b"x")
    (one,) = encode_pieces(Message(MessageType.RESUMED, bytes(8), bytes(8), bytes(64)), 1200)
    assert len(one) == 89
