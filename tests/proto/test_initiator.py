"""The side that dials (docs/protocol.md, 4.2)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import inf
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stt_proto.errors import (
    AuthenticationError,
    ConnectionTimeoutError,
    HandshakeError,
    SttError,
)
from stt_proto.handshake import TRANSITIONS, Challenged, Ended, Initiator, InitiatorState, Input
from stt_proto.types import HandshakeStep
from stt_proto.wire import (
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
)
from tests.proto.handshake_world import (
    ALICE,
    BOB,
    CAROL,
    SMALL_ORDER,
    Entropy,
    SteadyEntropy,
    World,
    in_grace,
    message_of,
    whole,
)

HELLO_SENT, PROOF_SENT = InitiatorState.HELLO_SENT, InitiatorState.PROOF_SENT
CONFIRMED, FAILED = InitiatorState.CONFIRMED, InitiatorState.FAILED


def steady(world: World | None = None, **changes: Any) -> Initiator:
    """A dial whose waits have no jitter."""
    return (world or World()).dial(entropy=SteadyEntropy("dial"), **changes)


def hello_of(initiator: Initiator, now: float = 0.0) -> tuple[Message, bytes]:
    """The HELLO that a dial sends now, and its hash."""
    (datagram,) = initiator.take(now)
    message = whole(decode_datagram_untrusted(datagram))
    return message, Hello.decode_untrusted(message.body).hello_hash(message.dcid, message.scid)


def answer(hello: Message, kind: MessageType, body: bytes) -> Message:
    return Message(kind, hello.scid, hello.dcid, body)


def garbage(hello: Message, name: bytes, number: int) -> Message:
    """What somebody who saw HELLO, and does not have the seed, can make up: no two alike."""
    entropy = Entropy(number)
    challenge = Challenge(name, 1, 1, entropy(32), entropy(32), entropy(1200), entropy(48), entropy(40))
    return Message(MessageType.CHALLENGE, hello.scid, entropy(8), challenge.encode())


def run_until_it_rests(initiator: Initiator, limit: int = 100) -> list[tuple[float, tuple[bytes, ...]]]:
    """Let time pass from deadline to deadline; what was sent, and when."""
    sent = []
    for _ in range(limit):
        if initiator.deadline == inf:
            return sent
        now = initiator.deadline
        initiator.tick(now)
        if datagrams := initiator.take(now):
            sent.append((now, datagrams))
    raise AssertionError("it never rests")


def wait_until(initiator: Initiator, until: float) -> None:
    """Let time pass, and lose what is sent."""
    while (now := initiator.deadline) <= until:
        initiator.tick(now)
        initiator.take(now)


# -- the table -----------------------------------------------------------------------------------------------------


def test_table_is_complete() -> None:
    """4.2: every state that waits has a way out by time; those that have ended have none."""
    assert {state for state, _ in TRANSITIONS} == {HELLO_SENT, PROOF_SENT}
    for state in (HELLO_SENT, PROOF_SENT):
        assert TRANSITIONS[state, Input.TIMEOUT] is FAILED
        assert TRANSITIONS[state, Input.RETRANSMIT] is state
    assert set(TRANSITIONS.values()) == set(InitiatorState)


def deed(name: str, world: World) -> Callable[[Initiator, Message, bytes, float], None]:
    """One thing that can happen to a dial."""

    def challenge(initiator: Initiator, hello: Message, _: bytes, now: float) -> None:
        outcome = world.hear(encode_datagram(hello, 1200), now)
        if isinstance(outcome, Challenged):
            world.tell(initiator, outcome.half_open.datagrams, now)

    def act(initiator: Initiator, hello: Message, named: bytes, now: float) -> None:
        match name:
            case "garbage":
                initiator.on_message(garbage(hello, named, int(now * 1000)), now)
            case "retry":
                initiator.on_message(answer(hello, MessageType.RETRY, Retry(named, b"cookie").encode()), now)
            case "refused":
                initiator.on_message(answer(hello, MessageType.REFUSED, Refused(named, 0x0102).encode()), now)
            case "version":
                body = VersionList(named, (9,), (9,)).encode()
                initiator.on_message(answer(hello, MessageType.VERSION, body), now)
            case "foreign":
                initiator.on_message(answer(hello, MessageType.REFUSED, Refused(bytes(16), 1).encode()), now)
            case "own kind":
                initiator.on_message(answer(hello, MessageType.ABORT, bytes(18)), now)
            case "packet":
                initiator.confirm()
            case "time":
                pass

    return challenge if name == "challenge" else act


DEEDS = ["challenge", "garbage", "retry", "refused", "version", "foreign", "own kind", "packet", "time"]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(DEEDS), st.floats(0.001, 1.0)), max_size=14))
def test_any_history_keeps_to_the_table(history: list[tuple[str, float]]) -> None:
    """4.2: whatever happens in whatever order, every change of state stands in the table."""
    world = World()
    initiator = world.dial()
    hello, named = hello_of(initiator)
    now = 0.0
    edges = {(old, new) for (old, _), new in TRANSITIONS.items()}
    for name, later in history:
        now += later
        before = initiator.state
        initiator.tick(now)
        initiator.take(now)
        deed(name, world)(initiator, hello, named, now)
        after = initiator.state
        assert after is before or (before, after) in edges or before is HELLO_SENT, (before, after)
        assert (after is FAILED) == (initiator.error is not None)
        assert (initiator.deadline == inf) == (after in (CONFIRMED, FAILED))
        assert (initiator.established is not None) >= (after in (PROOF_SENT, CONFIRMED))


def test_the_way_through() -> None:
    """4.2: HELLO_SENT, PROOF_SENT, CONFIRMED; with a word for each step."""
    world = World()
    initiator = world.dial()
    assert initiator.state is HELLO_SENT
    world.shake(initiator, 0.0)
    assert initiator.state is PROOF_SENT
    assert initiator.established is not None
    initiator.confirm()
    assert initiator.state is CONFIRMED
    initiator.confirm()
    assert initiator.steps == list(HandshakeStep)[:4]
    assert initiator.deadline == inf
    assert initiator.take(100.0) == ()


def test_confirm_before_there_are_keys_is_nothing() -> None:
    initiator = World().dial()
    initiator.confirm()
    assert initiator.state is HELLO_SENT


# -- HELLO ---------------------------------------------------------------------------------------------------------


def test_hello() -> None:
    """W-4, W-7: padded to 1,200 bytes, from our connection ID to 8 random bytes."""
    initiator = World().dial(local_cid=b"mine----")
    (datagram,) = initiator.take(0.0)
    assert len(datagram) == 1200
    message = whole(decode_datagram_untrusted(datagram))
    assert message.scid == b"mine----"
    assert message.dcid != bytes(8)
    hello = Hello.decode_untrusted(message.body)
    assert (hello.versions, hello.suites, hello.cookie) == ((1,), (1, 2), b"")
    assert hello.e == initiator.ephemeral


def test_hello_is_not_padded_on_reliable_carriers() -> None:
    """W-4."""
    (datagram,) = World(reliable=True).dial().take(0.0)
    assert len(datagram) < 200


def test_every_dial_is_fresh() -> None:
    """H-11: e, CPace's share, sid and connection IDs of two dials have nothing in common."""
    world = World()
    (one, _), (two, _) = hello_of(world.dial()), hello_of(world.dial())
    first, second = Hello.decode_untrusted(one.body), Hello.decode_untrusted(two.body)
    for name in ("e", "share", "sid"):
        assert getattr(first, name) != getattr(second, name)
    assert {one.dcid, one.scid}.isdisjoint({two.dcid, two.scid})


# -- time ----------------------------------------------------------------------------------------------------------


def test_hello_is_repeated() -> None:
    """H-18: after 250 ms, then x1.5 each time, at most 1 s apart, the same bytes; after 10 s the dial fails."""
    initiator = steady(now=5.0)
    first = initiator.take(5.0)
    sent = run_until_it_rests(initiator)
    gaps = [later - earlier for earlier, later in pairwise([5.0, *(at for at, _ in sent)])]
    assert gaps[:5] == pytest.approx([0.25, 0.375, 0.5625, 0.84375, 1.0])
    assert gaps[5:] == pytest.approx([1.0] * len(gaps[5:]))
    assert {datagrams for _, datagrams in sent} == {first}
    assert sum(gaps) > 9.0
    assert initiator.state is FAILED
    assert isinstance(initiator.error, ConnectionTimeoutError)


def test_handshake_timeout() -> None:
    """H-18: the handshake timeout is 10 s from the dial, however late something is sent."""
    initiator = World().dial(now=5.0)
    assert initiator.deadline == 15.0
    initiator.tick(14.999)
    assert initiator.state is HELLO_SENT
    initiator.tick(15.0)
    assert initiator.state is FAILED
    assert initiator.take(15.0) == ()


def test_nothing_piles_up_while_the_carrier_is_full() -> None:
    """H-18: the wait begins when a message was taken; what nobody takes is not repeated."""
    initiator = steady()
    for now in (1.0, 2.0, 3.0):
        initiator.tick(now)
    assert len(initiator.take(3.0)) == 1
    assert initiator.take(3.0) == ()
    assert initiator.deadline == 3.25


def test_ticks_are_idempotent() -> None:
    initiator = steady()
    initiator.take(0.0)
    initiator.tick(0.25)
    initiator.tick(0.25)
    assert len(initiator.take(0.25)) == 1
    initiator.tick(0.25)
    assert initiator.take(0.25) == ()


@pytest.mark.parametrize("state", [HELLO_SENT, PROOF_SENT])
def test_jitter(state: InitiatorState) -> None:
    """H-18: each wait is longer or shorter by up to an eighth, by its own draw; the same entropy gives the same."""
    factors = []
    for seed in [*range(100), 0]:
        world = World()
        initiator = world.dial(entropy=Entropy(seed))
        if state is PROOF_SENT:
            world.tell(initiator, world.challenge(initiator).half_open.datagrams, 0.125)
        assert initiator.state is state
        now, waits = 0.125, []
        initiator.take(now)
        for wait in (0.25, 0.375, 0.5625, 0.84375, 1.0):
            waits.append((initiator.deadline - now) / wait)
            now = initiator.deadline
            initiator.tick(now)
            assert initiator.take(now)
        factors.append(waits)
    assert factors.pop() == factors[0]
    every = [factor for waits in factors for factor in waits]
    assert 0.875 <= min(every) < 0.88
    assert 1.12 < max(every) <= 1.125
    assert len({round(waits[0], 9) for waits in factors}) > 60
    assert len({round(factor, 9) for factor in factors[0]}) > 1
    for low in (0.875, 0.9375, 1.0, 1.0625):
        assert 75 <= sum(low <= factor < low + 0.0625 for factor in every) <= 175, "of 500, evenly"


@pytest.mark.parametrize(("rtt", "wait"), [(0.04, 0.08), (0.4, 0.8), (0.001, 0.01), (0.0, 0.01)])
def test_proof_is_repeated_after_two_round_trips(rtt: float, wait: float) -> None:
    """H-18: twice the round trip once it is known, then x1.5, at most 1 s; the same bytes (W-5)."""
    world = World()
    initiator = steady(world)
    hello = initiator.take(0.0)
    outcome = world.hear(hello[0])
    assert isinstance(outcome, Challenged)
    world.tell(initiator, outcome.half_open.datagrams, rtt)
    assert initiator.established is not None
    assert initiator.established.rtt == rtt
    first = initiator.take(rtt)
    sent = run_until_it_rests(initiator)
    gaps = [later - earlier for earlier, later in pairwise([rtt, *(at for at, _ in sent)])]
    assert gaps[0] == pytest.approx(wait)
    assert gaps[1] == pytest.approx(min(1.5 * wait, 1.0))
    assert max(gaps) <= 1.0 + 1e-9
    assert {datagrams for _, datagrams in sent} == {first}
    assert isinstance(initiator.error, ConnectionTimeoutError)


def test_round_trip_is_unknown_after_a_repetition() -> None:
    """H-18: it is known only when HELLO was sent once."""
    world = World()
    initiator = steady(world)
    (hello,) = initiator.take(0.0)
    initiator.tick(0.25)
    initiator.take(0.25)
    outcome = world.hear(hello, 0.3)
    assert isinstance(outcome, Challenged)
    world.tell(initiator, outcome.half_open.datagrams, 0.4)
    assert initiator.established is not None
    assert initiator.established.rtt is None
    initiator.take(0.4)
    assert initiator.deadline == pytest.approx(0.65)


# -- a wrong seed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heard", "repeated", "over"), [(0.2, 0.25, 0.95), (0.001, 0.25, 0.751), (0.6, 0.625, 2.4), (0.65, 1.1875, 2.6)]
)
def test_wrong_seed(heard: float, repeated: float, over: float) -> None:
    """H-13: a grace of 3 round trips, at least 0.75 s, HELLO repeated once in it; then AuthenticationError and ABORT.

    The round trip is counted from the first HELLO: which one was answered is not known.
    """
    world = World()
    initiator = steady(world, shared_seed=b"another")
    begun = world.challenge(initiator)
    wait_until(initiator, heard)
    world.tell(initiator, begun.half_open.datagrams, heard)
    assert initiator.state is HELLO_SENT
    sent = run_until_it_rests(initiator)
    assert [at for at, _ in sent] == pytest.approx([repeated, over])
    assert sent[0][1] == (encode_datagram(message_of(sent[0][1]), 1200),)
    assert message_of(sent[0][1]).type is MessageType.HELLO
    assert isinstance(initiator.error, AuthenticationError)
    assert initiator.established is None

    assert world.hear(sent[1][1][0], over) == Ended(begun.half_open, "auth_failure")
    assert len(world.responder) == 0


def test_repeated_challenge_is_one_challenge() -> None:
    """H-12: different CHALLENGEs are counted; the stored one, sent again, is not another."""
    world = World()
    initiator = world.dial(shared_seed=b"another")
    begun = world.challenge(initiator)
    for _ in range(20):
        world.tell(initiator, begun.half_open.datagrams, 0.01)
    assert initiator.state is HELLO_SENT


def test_other_application_is_a_wrong_seed() -> None:
    """H-3: the application's name is CPace's channel identifier."""
    world = World()
    initiator = world.dial(application="other")
    world.tell(initiator, world.challenge(initiator).half_open.datagrams, 0.01)
    run_until_it_rests(initiator)
    assert isinstance(initiator.error, AuthenticationError)


def test_genuine_challenge_wins_in_the_grace() -> None:
    """H-13: any CHALLENGE that opens still wins, up to the last moment."""
    world = World()
    initiator = world.dial()
    hello, named = hello_of(initiator)
    begun = world.hear(encode_datagram(hello, 1200))
    assert isinstance(begun, Challenged)
    for number in range(3):
        initiator.on_message(garbage(hello, named, number), 0.01)
    initiator.tick(0.75)
    world.tell(initiator, begun.half_open.datagrams, 0.759)
    assert initiator.state is PROOF_SENT
    assert initiator.deadline == 10.0
    initiator.take(0.759)
    for at, datagrams in run_until_it_rests(initiator):
        assert message_of(datagrams).type is MessageType.AUTH_PROOF, at
    assert isinstance(initiator.error, ConnectionTimeoutError), "the guesses of others are forgotten"


@pytest.mark.parametrize("position", [0, 1])
def test_everybody_who_was_tried_is_told(position: int) -> None:
    """H-13: ABORT goes to each CHALLENGE that was tried; the responder hears it, whoever else has answered."""
    world = World()
    initiator = steady(world, shared_seed=b"another")
    hello, named = hello_of(initiator)
    begun = world.hear(encode_datagram(hello, 1200))
    assert isinstance(begun, Challenged)
    for number in range(2):
        if number == position:
            world.tell(initiator, begun.half_open.datagrams, 0.01)
        else:
            initiator.on_message(garbage(hello, named, 1), 0.01)
    (_, (repeated,)), (_, aborts) = run_until_it_rests(initiator)
    assert whole(decode_datagram_untrusted(repeated)).type is MessageType.HELLO
    assert len(aborts) == 2
    assert world.hear(aborts[position], 0.76) == Ended(begun.half_open, "auth_failure")


def test_grace_ends_with_the_handshake() -> None:
    """H-13: a grace does not outlast the handshake timeout, and what was remembered is the error."""
    world = World()
    initiator = world.dial(shared_seed=b"another", handshake_timeout=0.2)
    world.tell(initiator, world.challenge(initiator).half_open.datagrams, 0.1)
    run_until_it_rests(initiator)
    assert isinstance(initiator.error, AuthenticationError)


# -- guessing through one dial -------------------------------------------------------------------------------------


def test_four_challenges_a_dial() -> None:
    """H-12: after the fourth that does not open the dial fails at once. [A PIN fell to 3,142 CHALLENGEs.]"""
    initiator = World().dial()
    hello, named = hello_of(initiator)
    for number in range(4):
        assert initiator.state is HELLO_SENT
        initiator.on_message(garbage(hello, named, number), 0.01)
    assert initiator.state is FAILED
    assert isinstance(initiator.error, AuthenticationError)
    aborts = [whole(decode_datagram_untrusted(abort)) for abort in initiator.take(0.01)]
    assert [abort.type for abort in aborts] == [MessageType.ABORT] * 4
    assert [abort.dcid for abort in aborts] == [garbage(hello, named, number).scid for number in range(4)]
    assert initiator.take(0.02) == ()


def test_a_pin_does_not_fall_to_3142_challenges() -> None:
    """H-12: only 4 of them are tried, so the right guess among the rest does not help."""
    victim = World().dial(shared_seed=b"0004")
    (hello,) = victim.take(0.0)
    tried = 0
    for pin in range(3142):
        before = victim.state
        if pin < 8:  # an impostor for each guess
            impostor = World(shared_seed=b"%04d" % pin)
            impostor.entropy = Entropy(pin)
            outcome = impostor.hear(hello)
            assert isinstance(outcome, Challenged)
            impostor.tell(victim, outcome.half_open.datagrams, 0.0)
        else:
            message = whole(decode_datagram_untrusted(hello))
            named = Hello.decode_untrusted(message.body).hello_hash(message.dcid, message.scid)
            victim.on_message(garbage(message, named, pin), 0.0)
        tried += before is HELLO_SENT
    assert tried == 4
    assert victim.established is None
    assert isinstance(victim.error, AuthenticationError)


@pytest.mark.parametrize("field", ["e", "share"])
@pytest.mark.parametrize("point", SMALL_ORDER)
def test_small_order_points_are_bad_messages(field: str, point: bytes) -> None:
    """H-4, H-12: they are nobody's guess and change nothing, however many come."""
    initiator = World().dial()
    hello, named = hello_of(initiator)
    for number in range(10):
        bad = attrs.evolve(Challenge.decode_untrusted(garbage(hello, named, number).body), **{field: point})
        initiator.on_message(Message(MessageType.CHALLENGE, hello.scid, bytes(8), bad.encode()), 0.01)
    assert initiator.state is HELLO_SENT
    assert not in_grace(initiator)


@pytest.mark.parametrize(
    "change",
    [{"hello_hash": bytes(16)}, {"version": 2}, {"suite": 2}, {"suite": 0}],
    ids=["to another HELLO", "version", "suite that we do not offer", "no suite"],
)
def test_not_an_answer_to_our_hello(change: dict[str, object]) -> None:
    """H-13, H-17: what does not answer our own HELLO with what it offered is a bad message."""
    initiator = World().dial(suites=(1,))
    hello, named = hello_of(initiator)
    for number in range(10):
        bad = attrs.evolve(Challenge.decode_untrusted(garbage(hello, named, number).body), **change)
        initiator.on_message(Message(MessageType.CHALLENGE, hello.scid, bytes(8), bad.encode()), 0.01)
    assert initiator.state is HELLO_SENT
    assert not in_grace(initiator)


def test_messages_for_others_or_without_sense() -> None:
    """H-12: another connection ID, or a body that does not parse, changes nothing."""
    initiator = World().dial()
    hello, named = hello_of(initiator)
    for number in range(10):
        bad = garbage(hello, named, number)
        initiator.on_message(bad._replace(dcid=b"somebody"), 0.01)
        initiator.on_message(bad._replace(body=bad.body[:100]), 0.01)
        for kind in MessageType:
            initiator.on_message(Message(kind, hello.scid, hello.dcid, b"\0" * number), 0.01)
    assert initiator.state is HELLO_SENT
    assert not in_grace(initiator)


# -- who answers ---------------------------------------------------------------------------------------------------


def test_pinned_peer() -> None:
    """H-15."""
    world = World()
    initiator = world.dial(peer_node_id=BOB.node_id)
    world.shake(initiator)
    assert initiator.established is not None
    assert initiator.established.peer_node_id == BOB.node_id


def test_pinned_peer_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """H-15: AuthenticationError like a wrong seed, and our identity is never sent, sealed or not."""
    world = World()
    sealed: list[bytes] = []
    monkeypatch.setattr(AuthProof, "encode", lambda proof: sealed.append(proof))
    initiator = world.dial(peer_node_id=CAROL.node_id)
    begun = world.challenge(initiator)
    world.tell(initiator, begun.half_open.datagrams, 0.01)
    sent = run_until_it_rests(initiator)
    assert [message_of(datagrams).type for _, datagrams in sent] == [MessageType.HELLO, MessageType.ABORT]
    assert isinstance(initiator.error, AuthenticationError)
    assert "not the peer" in str(initiator.error)
    assert not sealed
    assert world.hear(sent[1][1][0], 0.4) == Ended(begun.half_open, "auth_failure")


def test_ourselves() -> None:
    """H-16: a responder with our own node id is refused in the same way."""
    world = World(identity=ALICE, allow_self=True)
    initiator = world.dial()
    world.tell(initiator, world.challenge(initiator).half_open.datagrams, 0.01)
    run_until_it_rests(initiator)
    assert isinstance(initiator.error, AuthenticationError)
    assert "own identity" in str(initiator.error)


def test_ourselves_when_allowed() -> None:
    """H-16, H-27: unless the configuration allows it."""
    world = World(identity=ALICE, allow_self=True)
    accepted = world.shake(world.dial(allow_self=True))
    assert accepted.established.peer_node_id == ALICE.node_id


@pytest.mark.parametrize(
    ("parameters", "error"), [(b"\x01\x01\x05\x01\x01\x05", HandshakeError), (b"\xff", HandshakeError)]
)
def test_parameters_that_do_not_parse(parameters: bytes, error: type[SttError]) -> None:
    """H-13, X-1: the message is bad, though it is genuine; the error tells so after the grace."""
    world = World()
    world.terms = attrs.evolve(world.terms, parameters=parameters)
    initiator = world.dial()
    world.tell(initiator, world.challenge(initiator).half_open.datagrams, 0.01)
    assert initiator.established is None
    run_until_it_rests(initiator)
    assert isinstance(initiator.error, error)


# -- the end ------------------------------------------------------------------------------------------------------


def test_after_the_end_nothing_counts() -> None:
    world = World()
    initiator = world.dial()
    hello, named = hello_of(initiator)
    initiator.tick(10.0)
    error = initiator.error
    initiator.on_message(garbage(hello, named, 1), 10.0)
    initiator.tick(11.0)
    initiator.confirm()
    assert initiator.state is FAILED
    assert initiator.error is error
    assert initiator.take(11.0) == ()
