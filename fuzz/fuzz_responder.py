"""An endpoint that is dialled, and callers of whom some know the seed (docs/protocol.md, 4.3).

Genuine HELLO, AUTH_PROOF and ABORT are taken apart and changed, before they are sealed and after, and sent in any
order, from any address, at any time. Nothing raises; nobody is let in but who has sent a proof that nobody changed,
and he always is; a message that fails changes nothing; no answer amplifies; all tables keep to their bounds, and are
empty when the time is over.
"""

from __future__ import annotations

from enum import Enum
from functools import cache

from fuzz.harness import Choices, instrumented, main

with instrumented(__name__):
    import attrs

    from fuzz.peers import (
        APPLICATION,
        BEGIN,
        CONFIG,
        OTHER,
        OURS,
        PARAMETERS,
        SHARED_SEED,
        THEIRS,
        check_bounds,
        held_for_sessions,
        let_time_pass,
        make_endpoint,
        message_in,
        path_of,
        remember_curves,
        with_check,
    )
    from stt_proto.crypto import SUITES, CPace, PrivateKey, SymmetricState, channel_identifier
    from stt_proto.errors import ProtocolError
    from stt_proto.handshake import HalfOpen
    from stt_proto.handshake.schedule import AbortKey, agree, open_challenge
    from stt_proto.testing import DeterministicKem, SeededEntropy
    from stt_proto.types import NetworkPath
    from stt_proto.wire import (
        AuthProof,
        Challenge,
        Hello,
        Message,
        MessageType,
        Retry,
        encode_datagram,
        encode_pieces,
    )
    from stt_proto.wire.header import FORM_BIT

PATHS = (
    path_of(),
    path_of("198.51.100.9"),
    path_of("2001:db8:1:2::3"),
    path_of("no address"),
    path_of(carrier="memory"),
)
SMALL_ORDER = bytes(32), (1).to_bytes(32, "little"), (2**255 - 20).to_bytes(32, "little")
CHOICES_OF_SUITES = ((1,), (2,), (1, 2), (2, 1))
AMPLIFICATION = 3
SECONDS = (0.0, 0.01, 0.1, 1.0, 5.0, 11.0, 61.0)


class Caller:
    """Somebody who knows the seed; made once, since all of it is a function of the index."""

    def __init__(self, index: int) -> None:
        entropy = SeededEntropy(f"caller {index}")
        self.dcid, self.scid, sid = entropy(8), entropy(8), entropy(16)
        self.ephemeral = PrivateKey(entropy(32))
        seed = SHARED_SEED if index < 4 else b"another seed"
        channel = channel_identifier(APPLICATION.encode())
        self.cpace = CPace(seed, channel, sid, scalar=entropy(32), blind=entropy(64))
        self.kem = DeterministicKem(entropy)
        self.hello = Hello(
            (1,),
            CHOICES_OF_SUITES[index % 4],
            sid,
            self.ephemeral.public_bytes,
            self.cpace.share,
            PARAMETERS.encode(),
        )


@cache
def caller(index: int) -> Caller:
    """One of the callers; the last has another seed."""
    return Caller(index)


CALLERS = 5


@attrs.frozen(eq=False)
class Answered:
    """A CHALLENGE that came for a HELLO."""

    caller: Caller
    hello: Hello
    path: NetworkPath
    message: Message


class Run:
    """An endpoint and what was said to it."""

    def __init__(self) -> None:
        self.endpoint = make_endpoint()
        self.now = BEGIN
        self.said: list[tuple[bytes, NetworkPath]] = []
        self.answered: list[Answered] = []
        self.cookies: dict[tuple[Caller, NetworkPath], bytes] = {}

    def say(self, datagram: bytes, path: NetworkPath) -> list[bytes]:
        """Let the endpoint take in a datagram; give its answers."""
        if len(self.said) < 64:
            self.said.append((datagram, path))
        self.endpoint.receive(datagram, path, self.now)
        answers: list[bytes] = []
        for transmit in self.endpoint.transmits(self.now):
            if transmit.path == path and transmit.buffers[0][0] & FORM_BIT:
                answers += transmit.datagrams()
        if not CONFIG.carriers[path.carrier].reliable:
            assert sum(map(len, answers)) <= AMPLIFICATION * len(datagram), "an answer that amplifies"
        check_bounds(self.endpoint)
        return answers

    def half_open(self, answered: Answered) -> HalfOpen | None:
        """The handshake of that CHALLENGE, if the endpoint still waits for its proof."""
        half_open = self.endpoint._responder.get(answered.message.scid)
        return half_open if half_open is not None and half_open.path == answered.path else None

    def state(self) -> tuple[object, ...]:
        """What a message that fails must leave as it was."""
        endpoint = self.endpoint
        return (
            [*endpoint.sessions],
            [*endpoint._responder._by_cid],
            [(key, half and half._repeats) for key, half in endpoint._responder._by_hello.items()],
            [*endpoint._context.connection_ids._owners],
            [*endpoint._context.live],
        )


def fuzz_one(data: bytes) -> None:
    """Call, and answer to what comes."""
    choices = Choices(data)
    run = Run()
    while choices:
        STEPS[choices.below(len(STEPS))](run, choices)
    for session in [*run.endpoint._context.live]:
        session.abort(run.now)
    let_time_pass(run.endpoint, run.now, run.now + 100.0)
    held = held_for_sessions(run.endpoint)
    assert not held, held


# -- HELLO ---------------------------------------------------------------------------------------------------------


def say_hello(run: Run, choices: Choices) -> None:
    """A HELLO, most of them good ones."""
    who, path = caller(choices.below(CALLERS)), choices.pick(PATHS)
    hello = who.hello
    how = choices.byte()
    if how & 1:
        hello = attrs.evolve(hello, cookie=run.cookies.get((who, path), b""))
    if how & 2:
        hello = change_hello(hello, choices)
    message = Message(MessageType.HELLO, who.dcid, who.scid, hello.encode())
    reliable = CONFIG.carriers[path.carrier].reliable
    if how & 12 == 4:
        message = message._replace(body=choices.damage(message.body)[:8192])
    if how & 48 == 16:
        datagrams = encode_pieces(message, 60 + choices.below(1000))
    else:
        datagrams = (encode_datagram(message, choices.pick((0, 1199, 1300)) if how & 64 else 0 if reliable else 1200),)
    answers = [answer for datagram in datagrams for answer in run.say(datagram, path)]
    if answers:  # with its padding a damaged HELLO may be another one
        take_answers(run, who, Hello.decode_untrusted(message_in(datagrams).body), path, answers)


def change_hello(hello: Hello, choices: Choices) -> Hello:
    """Change one field, within what can be encoded."""
    match choices.below(8):
        case 0:
            return attrs.evolve(hello, versions=tuple(choices.chunk()[:16]) or (2,))
        case 1:
            return attrs.evolve(hello, suites=tuple(choices.chunk()[:16]) or (3,))
        case 2:
            return attrs.evolve(
                hello, e=choices.pick((*SMALL_ORDER, OURS.node_id, choices.take(32).ljust(32, b"\xff")))
            )
        case 3:
            return attrs.evolve(hello, share=choices.pick((*SMALL_ORDER, choices.take(32).ljust(32, b"\xff"))))
        case 4:
            return attrs.evolve(hello, sid=choices.take(16).ljust(16, b"\0"))
        case 5:
            return attrs.evolve(hello, cookie=choices.chunk()[:64])
        case 6:
            return attrs.evolve(hello, cookie=choices.damage(hello.cookie)[:64])
        case _:
            return attrs.evolve(hello, parameters=choices.damage(hello.parameters)[:1024])


def take_answers(run: Run, who: Caller, hello: Hello, path: NetworkPath, answers: list[bytes]) -> None:
    """Keep what came for a HELLO."""
    message = message_in(answers)
    assert message.dcid == who.scid
    if message.type is MessageType.RETRY:
        run.cookies[who, path] = Retry.decode_untrusted(message.body).cookie
    elif message.type is MessageType.CHALLENGE:
        if len(run.answered) < 32 and all(message != other.message for other in run.answered):
            run.answered.append(Answered(who, hello, path, message))
    else:
        assert message.type in (MessageType.REFUSED, MessageType.VERSION)


# -- AUTH_PROOF and ABORT ------------------------------------------------------------------------------------------


class Change(Enum):
    """What is wrong with an AUTH_PROOF."""

    NOTHING = 0
    CIPHERTEXT = 1
    STATIC = 2
    OURSELVES = 3
    BODY = 4
    SCID = 5


def agreed(answered: Answered) -> tuple[SymmetricState, AbortKey, Challenge]:
    """Where a caller stands after the clear part of a CHALLENGE."""
    who, message = answered.caller, answered.message
    challenge = Challenge.decode_untrusted(message.body)
    transcript = MessageType.HELLO.first_byte + who.dcid + who.scid + answered.hello.core()
    ee = who.ephemeral.exchange(challenge.e)
    psk = who.cpace.psk_as_initiator(challenge.share)
    state, abort = agree(SUITES[challenge.suite], transcript, message.prefix + challenge.clear(), ee, psk)
    return state, abort, challenge


def make_proof(answered: Answered, change: Change, choices: Choices) -> tuple[Message, bool]:
    """An AUTH_PROOF with something changed inside a seal or around it, and whether it is good all the same.

    Raises:
        ProtocolError: the CHALLENGE does not open: HELLO had fields that are not this caller's, or he has another seed.
    """
    who = answered.caller
    state, _, challenge = agreed(answered)
    kem_key, _, _ = open_challenge(state, challenge, who.ephemeral)
    secret, ciphertext = who.kem.encapsulate(kem_key)
    static, claimed = THEIRS, THEIRS.node_id
    good = True
    if change is Change.CIPHERTEXT:
        changed = choices.damage(ciphertext)[:1088].ljust(1088, b"\0")
        good, ciphertext = changed == ciphertext, changed
    elif change is Change.STATIC:
        claimed = choices.pick((OTHER.node_id, b"\xff" * 32, *SMALL_ORDER, choices.take(32).ljust(32, b"\0")))
        good = claimed == THEIRS.node_id
    elif change is Change.OURSELVES:
        static, claimed, good = OURS, OURS.node_id, False
    state.mix_hash(MessageType.AUTH_PROOF.first_byte + answered.message.scid + who.scid)
    sealed_ciphertext = state.encrypt_and_hash(ciphertext)
    state.mix_key(secret)
    sealed_static = state.encrypt_and_hash(claimed)
    state.mix_key(static.exchange(challenge.e))
    proof = AuthProof(sealed_ciphertext, sealed_static, state.encrypt_and_hash(b""))
    return change_message(
        Message(MessageType.AUTH_PROOF, answered.message.scid, who.scid, proof.encode()), change, choices, good
    )


def change_message(message: Message, change: Change, choices: Choices, good: bool) -> tuple[Message, bool]:
    """Change a message from outside."""
    if change is Change.BODY:
        changed = message._replace(body=choices.damage(message.body)[:8192])
    elif change is Change.SCID:
        changed = message._replace(scid=choices.take(8).ljust(8, b"x"))
    else:
        return message, good
    return changed, good and changed == message


def prove(run: Run, choices: Choices) -> None:
    """Send an AUTH_PROOF: whoever has sent a good one is let in, and a bad one changes nothing (H-25)."""
    if not run.answered:
        return
    answered = choices.pick(run.answered)
    how = choices.byte()
    change = Change(how & 7) if how & 7 < len(Change) else Change.NOTHING
    path = choices.pick(PATHS) if how & 0x18 == 0x18 else answered.path
    try:
        message, good = make_proof(answered, change, choices)
    except ProtocolError:
        return
    endpoint = run.endpoint
    expected = good and path == answered.path and run.half_open(answered) is not None
    full = len(endpoint._context.live) >= CONFIG.max_concurrent_sessions
    before, sessions = run.state(), len(endpoint.sessions)
    assert not run.say(encode_datagram(message), path), "an answer to AUTH_PROOF that is no packet"
    if expected:
        assert run.half_open(answered) is None
        assert len(endpoint.sessions) == sessions + (endpoint.accepting and not full)
    else:
        assert run.state() == before


def abort(run: Run, choices: Choices) -> None:
    """Send an ABORT: it frees the handshake if it is the caller's own (H-24)."""
    if not run.answered:
        return
    answered = choices.pick(run.answered)
    how = choices.byte()
    path = choices.pick(PATHS) if how & 0x18 == 0x18 else answered.path
    try:
        _, key, _ = agreed(answered)
    except ProtocolError:
        return
    who, opens = answered.caller, answered.hello.e == answered.caller.ephemeral.public_bytes
    body = key.seal(MessageType.ABORT.first_byte + answered.message.scid + who.scid, choices.below(65_536)).encode()
    message = Message(MessageType.ABORT, answered.message.scid, who.scid, body)
    message, good = change_message(message, choices.pick((Change.NOTHING, Change.BODY, Change.SCID)), choices, opens)
    expected = good and path == answered.path and run.half_open(answered) is not None
    before = run.state()
    assert not run.say(encode_datagram(message), path)
    assert (run.half_open(answered) is None) if expected else (run.state() == before)


# -- everything else -----------------------------------------------------------------------------------------------


def repeat(run: Run, choices: Choices) -> None:
    """Say again what was said, perhaps damaged, perhaps from elsewhere."""
    if not run.said:
        return
    datagram, path = choices.pick(run.said)
    how = choices.byte()
    if how & 4:
        path = choices.pick(PATHS)
    if how & 1:
        changed = choices.damage(datagram)
        if how & 2:
            changed = with_check(changed)
        elif changed != datagram and changed[:1] and changed[0] & FORM_BIT:
            before = run.state()
            assert not run.say(changed, path)
            assert run.state() == before, "a damaged datagram has changed something"
            return
        datagram = changed
    run.say(datagram, path)


def other_message(run: Run, choices: Choices) -> None:
    """A message of any type and content."""
    dcid = choices.pick(run.answered).message.scid if run.answered else bytes(8)
    scid = caller(choices.below(CALLERS)).scid
    message = Message(MessageType(1 + choices.below(7)), dcid, scid, choices.chunk()[:8192])
    for datagram in encode_pieces(message, 38 + choices.below(1163)):
        run.say(datagram, choices.pick(PATHS))


def packet(run: Run, choices: Choices) -> None:
    """A packet, to a handshake that waits or to nobody."""
    cid = choices.pick(run.answered).message.scid if run.answered and choices.flag() else choices.take(8).ljust(8, b"n")
    datagram = bytes((0x40 | choices.below(64),)) + cid + choices.chunk()
    before = run.state()
    run.say(datagram, choices.pick(PATHS))
    assert run.state() == before


def wait(run: Run, choices: Choices) -> None:
    """Let time pass."""
    run.now = let_time_pass(run.endpoint, run.now, run.now + choices.pick(SECONDS))
    check_bounds(run.endpoint)


def change_terms(run: Run, choices: Choices) -> None:
    """Accept sessions or not, or lose a carrier."""
    if choices.flag():
        run.endpoint.accepting = choices.flag()
    else:
        run.endpoint.path_closed(choices.pick(PATHS), run.now)


def raw(run: Run, choices: Choices) -> None:
    """Bytes."""
    run.say(choices.chunk(), choices.pick(PATHS))


STEPS = (say_hello, prove, say_hello, prove, abort, repeat, other_message, packet, wait, change_terms, raw)


if __name__ == "__main__":
    remember_curves()
    main(fuzz_one)
