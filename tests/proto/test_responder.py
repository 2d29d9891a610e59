"""The side that is dialled (docs/protocol.md, 4.3)."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from stt_proto.config import Limits
from stt_proto.crypto import MLKEM768
from stt_proto.handshake import (
    Accepted,
    Challenged,
    Dropped,
    Ended,
    HalfOpen,
    Initiator,
    Outcome,
    Reason,
    Reply,
)
from stt_proto.wire import (
    Abort,
    AuthProof,
    Hello,
    Message,
    MessageType,
    Refused,
    Retry,
    VersionList,
    decode_datagram_untrusted,
    encode_datagram,
)
from tests.proto.handshake_world import (
    ALICE,
    BOB,
    CLIENT,
    SMALL_ORDER,
    Entropy,
    World,
    message_of,
    path_of,
    spoofed_hello,
    whole,
)


def source(number: int) -> Any:
    """The path of one of many hosts."""
    return path_of((f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", 5000))


def begin(world: World, count: int, now: float = 0.0, first: int = 0) -> list[HalfOpen]:
    """Half-open handshakes from as many hosts, none of them asked for a cookie."""
    opened = []
    for number in range(first, first + count):
        outcome = world.hear(spoofed_hello(world.entropy), now, source(number))
        assert isinstance(outcome, Challenged), outcome
        opened.append(outcome.half_open)
    return opened


def begin_proven(world: World, now: float = 0.0, path: Any = None, **options: Any) -> Outcome:
    """What the HELLO of a client with a cookie leads to."""
    hello = whole(decode_datagram_untrusted(spoofed_hello(world.entropy)))
    fields = Hello.decode_untrusted(hello.body)
    path = path or path_of()
    cookie = world.responder._cookies.make(path, fields.hello_hash(hello.dcid, hello.scid), now)
    body = Hello(fields.versions, fields.suites, fields.sid, fields.e, fields.share, b"", cookie).encode()
    return world.hear(encode_datagram(hello._replace(body=body), 1200), now, path, **options)


def kind_of(outcome: Outcome) -> MessageType | Reason | type[object]:
    """A word for what a message led to."""
    if isinstance(outcome, Reply):
        return message_of(outcome.datagrams).type
    return outcome.reason if isinstance(outcome, Dropped) else type(outcome)


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any key that is computed fails the test."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a key was computed")

    for name in ("PrivateKey", "CPace"):
        monkeypatch.setattr(f"stt_proto.handshake.half_open.{name}", refuse)


# -- the order of cost ---------------------------------------------------------------------------------------------


def good_hello(**changes: Any) -> bytes:
    return spoofed_hello(Entropy(1), **changes)


@pytest.mark.usefixtures("no_keys")
@pytest.mark.parametrize(
    ("datagram", "kwargs", "expected"),
    [
        (encode_datagram(message_of((good_hello(),))._replace(body=bytes(1100))), {}, Reason.SMALL),
        (encode_datagram(Message(MessageType.HELLO, bytes(8), bytes(8), b"\1\1"), 1200), {}, Reason.MALFORMED),
        (good_hello(versions=(9,)), {}, MessageType.VERSION),
        (good_hello(suites=(9,)), {}, MessageType.VERSION),
        (good_hello(), {"refusal": 0x0102}, MessageType.REFUSED),
        (good_hello(e=bytes(32)), {"live_keys": {bytes(32)}}, Reason.REFLECTED),
        (good_hello(parameters=b"\xff"), {}, Reason.MALFORMED),
    ],
)
def test_cheap_questions_come_first(datagram: bytes, kwargs: dict[str, Any], expected: object) -> None:
    """H-19: size; check; form and version; cookie; limits; and only then keys, and a connection ID, are made."""
    world = World()
    assert kind_of(world.hear(datagram, **kwargs)) is expected
    assert not world.issued
    assert len(world.responder) == 0


@pytest.mark.usefixtures("no_keys")
@pytest.mark.parametrize(
    "limits", [{"half_open_without_cookie": 0}, {"unfinished_without_cookie": 0}, {"failed_guesses_without_cookie": 0}]
)
def test_no_keys_without_a_cookie(limits: dict[str, int]) -> None:
    """H-19: a HELLO that needs a cookie costs a hash."""
    world = World(limits=Limits(**limits))
    if "half_open_without_cookie" in limits:
        world.responder._by_cid[bytes(8)] = None  # type: ignore[assignment]
    assert kind_of(world.hear(good_hello())) is MessageType.RETRY
    assert not world.issued


@pytest.mark.parametrize("field", ["e", "share"])
@pytest.mark.parametrize("point", SMALL_ORDER)
def test_small_order_points(field: str, point: bytes) -> None:
    """H-4: a bad message; no connection ID was spent on it."""
    world = World()
    assert world.hear(good_hello(**{field: point})) == Dropped(Reason.MALFORMED)
    assert not world.issued
    assert len(world.responder) == 0


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_small_order_points_make_no_room(point: bytes) -> None:
    """H-21: nobody is pushed out for a message that is bad."""
    world = World(limits=Limits(half_open=1))
    begin(world, 1)
    hello = whole(decode_datagram_untrusted(good_hello(e=point)))
    fields = Hello.decode_untrusted(hello.body)
    cookie = world.responder._cookies.make(path_of(), fields.hello_hash(hello.dcid, hello.scid), 0.0)
    body = Hello(fields.versions, fields.suites, fields.sid, point, fields.share, b"", cookie).encode()
    assert world.hear(encode_datagram(hello._replace(body=body), 1200)) == Dropped(Reason.MALFORMED)
    assert len(world.responder) == 1


def test_small_hello_on_a_reliable_carrier() -> None:
    """W-4: there it is not padded."""
    world = World(reliable=True)
    accepted = world.shake(world.dial(), path=path_of(carrier="ws"))
    assert accepted.half_open.proven


# -- repetitions ---------------------------------------------------------------------------------------------------


def test_repeated_hello() -> None:
    """H-20, W-5: the stored CHALLENGE, byte for byte, at most 32 times."""
    world = World()
    (hello,) = world.dial().take(0.0)
    begun = world.hear(hello)
    assert isinstance(begun, Challenged)
    for _ in range(32):
        assert world.hear(hello, 1.0) == Reply(begun.half_open.datagrams)
    assert world.hear(hello, 1.0) == Dropped(Reason.REPEATED)
    assert len(world.issued) == 1


def test_hello_with_a_cookie_is_the_same_hello() -> None:
    """W-6: hello hash does not cover the cookie, so no second handshake begins."""
    world = World()
    initiator = world.dial()
    begun = world.challenge(initiator)
    hello = message_of(initiator._datagrams)
    named = begun.half_open.hello_hash
    retry = Message(MessageType.RETRY, hello.scid, hello.dcid, Retry(named, b"forged").encode())
    initiator.on_message(retry, 0.1)
    (again,) = initiator.take(0.1)
    assert world.hear(again, 0.1) == Reply(begun.half_open.datagrams)


def test_hello_from_elsewhere_is_another_handshake() -> None:
    """H-20, H-30: the same HELLO on another path gets an answer of its own, with other keys."""
    world = World()
    initiator = world.dial()
    (hello,) = initiator.take(0.0)
    here, there = world.hear(hello), world.hear(hello, path=source(1))
    assert isinstance(here, Challenged)
    assert isinstance(there, Challenged)
    assert here.half_open.local_cid != there.half_open.local_cid
    assert set(here.half_open.datagrams).isdisjoint(there.half_open.datagrams)


def test_hello_after_its_handshake_ended_well() -> None:
    """A late copy, or a replay, begins no new handshake, which would fail and count as a guess."""
    world = World()
    initiator = world.dial()
    (hello,) = initiator.take(0.0)
    begun = world.hear(hello)
    assert isinstance(begun, Challenged)
    world.tell(initiator, begun.half_open.datagrams)
    (proof,) = initiator.take(0.0)
    assert isinstance(world.hear(proof), Accepted)
    assert world.hear(hello, 9.9) == Dropped(Reason.REPEATED)
    assert world.hear(proof, 9.9) == Dropped(Reason.UNKNOWN)
    world.responder.expire(10.0)
    assert isinstance(world.hear(hello, 10.0), Challenged)


def test_memory_of_finished_handshakes_is_bounded() -> None:
    world = World(limits=Limits(half_open=2))
    for number in range(6):
        world.shake(world.dial(), 0.1 * number)
    assert len(world.responder._by_hello) == 2
    world.shake(world.dial(), 20.0)
    assert len(world.responder._by_hello) == 1


# -- cookies -------------------------------------------------------------------------------------------------------


def crowded_world() -> World:
    world = World(limits=Limits(half_open_without_cookie=0))
    begin(world, 1)
    return world


def test_cookie_opens_the_door() -> None:
    """H-22: RETRY, the same HELLO with the cookie, and the handshake goes on."""
    world = crowded_world()
    accepted = world.shake(world.dial())
    assert accepted.half_open.proven


def test_cookie_is_for_one_address_and_time() -> None:
    """H-22: elsewhere, or 20 s later, it is asked for again."""
    world = crowded_world()
    initiator = world.dial()
    (hello,) = initiator.take(0.0)
    retry = world.hear(hello)
    assert isinstance(retry, Reply)
    world.tell(initiator, retry.datagrams)
    (hello,) = initiator.take(0.0)
    for path, now in ((path_of((CLIENT[0], 1)), 0.0), (source(7), 0.0), (path_of(), 20.0)):
        assert kind_of(world.hear(hello, now, path)) is MessageType.RETRY
    assert kind_of(world.hear(hello, 19.0)) is Challenged


def test_reliable_carriers_need_no_cookie() -> None:
    """H-22; and they push out like who has one (H-21)."""
    world = World(limits=Limits(half_open=1, half_open_without_cookie=0))
    (spoofed,) = begin(world, 1)
    world.reliable, world.terms = True, World(reliable=True).terms
    outcome = world.hear(spoofed_hello(world.entropy), path=path_of(carrier="ws"))
    assert isinstance(outcome, Challenged)
    assert outcome.ended == Ended(spoofed, "timeout")


# -- AUTH_PROOF ----------------------------------------------------------------------------------------------------


def proven(world: World, initiator: Initiator, now: float = 0.0) -> tuple[HalfOpen, bytes]:
    """A half-open handshake, and the AUTH_PROOF for it."""
    begun = world.challenge(initiator, now)
    world.tell(initiator, begun.half_open.datagrams, now)
    (proof,) = initiator.take(now)
    return begun.half_open, proof


def test_accepted() -> None:
    """4.3: the half-open handshake becomes an `Established` and leaves the table."""
    world = World()
    half_open, proof = proven(world, world.dial())
    outcome = world.hear(proof, 0.25)
    assert isinstance(outcome, Accepted)
    assert outcome.half_open is half_open
    assert outcome.established.peer_node_id == ALICE.node_id
    assert outcome.established.local_cid == half_open.local_cid == world.issued[0]
    assert outcome.established.rtt == 0.25
    assert len(world.responder) == 0
    assert world.responder.deadline == inf


def test_round_trip_is_unknown_after_a_repetition() -> None:
    world = World()
    initiator = world.dial()
    (hello,) = initiator.take(0.0)
    begun = world.hear(hello)
    assert isinstance(begun, Challenged)
    world.hear(hello)
    world.tell(initiator, begun.half_open.datagrams)
    outcome = world.hear(*initiator.take(0.0))
    assert isinstance(outcome, Accepted)
    assert outcome.established.rtt is None


def evil(proof: Message, change: Callable[[bytearray], None]) -> bytes:
    """An AUTH_PROOF that somebody made from a genuine one."""
    body = bytearray(proof.body)
    change(body)
    return encode_datagram(proof._replace(body=bytes(body)))


@pytest.mark.parametrize("position", [0, 500, 1103, 1104, 1130, 1151, 1152, 1167])
def test_proof_that_does_not_open_changes_nothing(position: int) -> None:
    """H-25: not even a counter; the genuine one still opens."""
    world = World()
    _, datagram = proven(world, world.dial())

    def flip(body: bytearray) -> None:
        body[position] ^= 1

    for _ in range(10):
        assert world.hear(evil(message_of((datagram,)), flip)) == Dropped(Reason.SHUT)
    assert len(world.responder._guesses) == 1  # the one under way
    assert isinstance(world.hear(datagram), Accepted)


def test_no_kem_key_is_expanded_for_who_lacks_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """H-19: a made-up AUTH_PROOF costs one failed opening."""
    world = World()
    half_open, datagram = proven(world, world.dial())
    half_open.shrink()
    with monkeypatch.context() as patch:
        patch.setattr(MLKEM768, "private_key", lambda *_: pytest.fail("expanded"))
        made_up = message_of((datagram,))._replace(body=bytes(1168))
        assert world.hear(encode_datagram(made_up)) == Dropped(Reason.SHUT)
    assert isinstance(world.hear(datagram), Accepted)


def test_proof_of_the_wrong_form_or_id() -> None:
    world = World()
    _, datagram = proven(world, world.dial())
    proof = message_of((datagram,))
    assert world.hear(encode_datagram(proof._replace(body=proof.body[:-1]))) == Dropped(Reason.SHUT)
    assert world.hear(encode_datagram(proof._replace(scid=bytes(8)))) == Dropped(Reason.SHUT)
    assert world.hear(encode_datagram(proof._replace(dcid=bytes(8)))) == Dropped(Reason.UNKNOWN)


def test_one_path() -> None:
    """H-30: a copy of AUTH_PROOF or ABORT from elsewhere is dropped."""
    world = World()
    _, datagram = proven(world, world.dial())
    assert world.hear(datagram, path=path_of((CLIENT[0], 1))) == Dropped(Reason.UNKNOWN)
    assert isinstance(world.hear(datagram), Accepted)


def test_peer_with_our_own_identity() -> None:
    """H-27: refused; the half-open handshake stays as it was, until its time is over."""
    world = World()
    half_open, datagram = proven(world, world.dial(identity=BOB, allow_self=True))
    assert world.hear(datagram) == Dropped(Reason.SHUT)
    assert world.responder.expire(10.0) == [Ended(half_open, "timeout")]


def test_reflected_hello() -> None:
    """H-27: a HELLO with the ephemeral key of one of our own dials is refused, unless that is allowed."""
    for allow_self, expected in ((False, Reason.REFLECTED), (True, Challenged)):
        world = World(allow_self=allow_self)
        initiator = world.dial()
        (hello,) = initiator.take(0.0)
        assert kind_of(world.hear(hello, live_keys={initiator.ephemeral})) is expected


@pytest.mark.parametrize("kind", [MessageType.CHALLENGE, MessageType.RETRY, MessageType.REFUSED, MessageType.VERSION])
def test_messages_that_responders_do_not_get(kind: MessageType) -> None:
    """A message in the wrong direction is dropped, whatever it names; none is answered (H-28)."""
    world = World()
    (half_open,) = begin(world, 1)
    for dcid, reason in ((half_open.local_cid, Reason.UNEXPECTED), (bytes(8), Reason.UNKNOWN)):
        datagram = encode_datagram(Message(kind, dcid, half_open.peer_cid, bytes(100)))
        assert world.hear(datagram, path=source(0)) == Dropped(reason)


# -- ABORT ---------------------------------------------------------------------------------------------------------


def test_abort_frees_only_if_it_opens() -> None:
    """H-24: it is sealed for two connection IDs, by whoever drew the ephemeral key."""
    world = World()
    initiator = world.dial(shared_seed=b"another")
    begun = world.challenge(initiator)
    world.tell(initiator, begun.half_open.datagrams, 0.01)
    initiator.tick(1.51)
    (datagram,) = initiator.take(1.51)
    abort = message_of((datagram,))
    for bad in (
        abort._replace(scid=bytes(8)),
        abort._replace(body=bytes(18)),
        abort._replace(body=abort.body[:17]),
        Message(MessageType.ABORT, abort.dcid, abort.scid, Abort(b"\1" + abort.body[1:]).encode()),
    ):
        assert world.hear(encode_datagram(bad), 1.51) == Dropped(Reason.SHUT)
    assert world.hear(datagram, 1.51, source(1)) == Dropped(Reason.UNKNOWN)
    assert world.hear(datagram, 1.51) == Ended(begun.half_open, "auth_failure")
    assert world.hear(datagram, 1.51) == Dropped(Reason.UNKNOWN)
    assert len(world.responder) == 0


def test_abort_is_a_failed_guess() -> None:
    """H-24: who says that he guessed wrong has guessed."""
    world = World()
    for number in range(8):
        now = float(number)
        initiator = world.dial(now, shared_seed=b"another")
        world.tell(initiator, world.challenge(initiator, now).half_open.datagrams, now)
        initiator.tick(now + 1.5)
        assert isinstance(world.hear(*initiator.take(now + 1.5), now + 1.5), Ended)
    assert kind_of(world.hear(spoofed_hello(world.entropy), 8.5)) is MessageType.RETRY


# -- packets that overtake -----------------------------------------------------------------------------------------


def test_held_packets() -> None:
    """H-26: at most 10 packets and 16 KiB; they come with what AUTH_PROOF establishes, in order."""
    world = World()
    half_open, proof = proven(world, world.dial())
    held = world.responder.get(half_open.local_cid)
    assert held is half_open
    assert [held.hold(bytes((number,)) * 100) for number in range(11)] == [True] * 10 + [False]
    outcome = world.hear(proof)
    assert isinstance(outcome, Accepted)
    assert outcome.held_packets == tuple(bytes((number,)) * 100 for number in range(10))


def test_held_bytes() -> None:
    """H-26: whichever limit comes first."""
    (half_open,) = begin(World(), 1)
    assert half_open.hold(bytes(16 * 1024 - 100))
    assert not half_open.hold(bytes(101))
    assert half_open.hold(bytes(100))
    assert not half_open.hold(b"x")


# -- replies -------------------------------------------------------------------------------------------------------


def test_refused() -> None:
    """H-28: the code that the endpoint gives, to the HELLO that was refused."""
    world = World()
    (datagram,) = world.dial().take(0.0)
    hello = message_of((datagram,))
    outcome = world.hear(datagram, refusal=0x0203)
    assert isinstance(outcome, Reply)
    reply = message_of(outcome.datagrams)
    assert (reply.dcid, reply.scid) == (hello.scid, hello.dcid)
    named = Hello.decode_untrusted(hello.body).hello_hash(hello.dcid, hello.scid)
    assert Refused.decode_untrusted(reply.body) == Refused(named, 0x0203)


def test_version() -> None:
    """H-28, W-9: what we speak, to a HELLO with which we share no version or no suite."""
    world = World(suites=(2,))
    outcome = world.hear(good_hello(suites=(1,)))
    assert isinstance(outcome, Reply)
    version = VersionList.decode_untrusted(message_of(outcome.datagrams).body)
    assert (version.versions, version.suites) == ((1,), (2,))


def test_a_handshake_under_way_is_not_refused() -> None:
    """H-20 before H-28: limits are asked again when AUTH_PROOF comes (H-29), by the endpoint."""
    world = World()
    (hello,) = world.dial().take(0.0)
    assert kind_of(world.hear(hello)) is Challenged
    assert kind_of(world.hear(hello, refusal=0x0102)) is MessageType.CHALLENGE


@pytest.mark.parametrize("kind", [MessageType.RETRY, MessageType.REFUSED, MessageType.VERSION])
def test_replies_are_few_and_small(kind: MessageType) -> None:
    """H-28: at most 100 of a kind in 100 ms, each smaller than the HELLO it answers."""
    world = crowded_world() if kind is MessageType.RETRY else World()
    changes: dict[str, Any] = {"versions": (3, 4)} if kind is MessageType.VERSION else {}
    refusal = 0x0102 if kind is MessageType.REFUSED else None

    def replies(count: int, now: float) -> int:
        sent = 0
        for number in range(count):
            hello = spoofed_hello(world.entropy, **changes)
            outcome = world.hear(hello, now, source(number), refusal=refusal)
            if isinstance(outcome, Reply):
                assert kind_of(outcome) is kind
                assert sum(map(len, outcome.datagrams)) < 100
                sent += 1
            else:
                assert outcome == Dropped(Reason.REPLIES)
        return sent

    assert replies(60, 5.0) == 60
    assert replies(60, 5.05) == 40
    assert replies(60, 5.0999) == 0
    assert replies(100, 5.11) == 60
    assert replies(100, 5.16) == 40


KINDS: dict[MessageType, tuple[dict[str, Any], int | None]] = {
    MessageType.RETRY: ({}, None),
    MessageType.REFUSED: ({}, 0x0102),
    MessageType.VERSION: ({"versions": (3, 4)}, None),
}


@pytest.mark.parametrize("flood", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_a_flood_of_one_kind_silences_no_other(flood: MessageType, other: MessageType) -> None:
    """H-28: RETRY, REFUSED and VERSION are counted each by itself."""
    needs_cookie = MessageType.RETRY in (flood, other)
    world = World(limits=Limits(failed_guesses_without_cookie=0 if needs_cookie else 8))

    def hear(kind: MessageType, number: int) -> Outcome:
        changes, refusal = KINDS[kind]
        if kind is MessageType.REFUSED and needs_cookie:
            return begin_proven(world, 5.0, source(number), refusal=refusal)
        return world.hear(spoofed_hello(world.entropy, **changes), 5.0, source(number), refusal=refusal)

    assert [kind_of(hear(flood, number)) for number in range(101)] == [flood] * 100 + [Reason.REPLIES]
    assert kind_of(hear(other, 500)) is (Reason.REPLIES if other is flood else other)


def test_no_replies_at_all() -> None:
    """A limit of zero is kept, too."""
    world = World(limits=Limits(unsolicited_replies=0))
    assert world.hear(good_hello(), refusal=0x0102) == Dropped(Reason.REPLIES)


# -- choices -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "ours", "chosen"), [((1, 2), (2, 1), 1), ((2, 1), (1, 2), 2), ((1, 2), (2,), 2), ((9, 2, 1), (1,), 1)]
)
def test_suite(offered: tuple[int, ...], ours: tuple[int, ...], chosen: int) -> None:
    """The first that the initiator offers and we have."""
    outcome = World(suites=ours).hear(good_hello(suites=offered))
    assert isinstance(outcome, Challenged)
    assert message_of(outcome.half_open.datagrams).body[17] == chosen


def test_challenge_is_cut_where_datagrams_are_small() -> None:
    """W-4: no handshake datagram exceeds 1,200 bytes; a large datagram takes it whole."""
    small = World().hear(good_hello())
    large = World(reliable=True).hear(good_hello(), path=path_of(carrier="ws"))
    assert isinstance(small, Challenged)
    assert isinstance(large, Challenged)
    assert [len(datagram) <= 1200 for datagram in small.half_open.datagrams] == [True, True]
    assert len(large.half_open.datagrams) == 1


def test_secrets_do_not_show() -> None:
    """No seed or key in a representation, and no way to pickle."""
    world = World()
    (half_open,) = begin(world, 1)
    shown = repr(world.responder) + repr(half_open) + repr(half_open._answerer)
    assert "correct horse" not in shown
    with pytest.raises(TypeError):
        half_open.__reduce__()


def test_proof_bodies_are_exact() -> None:
    """3.2: AUTH_PROOF is one datagram of 1,193 bytes."""
    world = World()
    _, datagram = proven(world, world.dial())
    assert len(datagram) == 1193
    assert len(AuthProof.decode_untrusted(message_of((datagram,)).body).sealed_empty) == 16
