"""An endpoint that dials, and answers of whom some come from somebody who knows the seed (docs/protocol.md, 4.2).

Genuine CHALLENGEs are taken apart and changed, before they are sealed and after; RETRY, REFUSED and VERSION are made
up, as anybody who watches could. Nothing raises; a dial goes on only with a CHALLENGE that nobody changed, and always
does, as long as it is not over; it fails as a wrong seed only if a CHALLENGE to its own HELLO did not open; what fails
changes nothing; and when the time is over every dial has ended with a documented error and left nothing behind.
"""

from __future__ import annotations

from enum import Enum
from functools import cache

from fuzz.harness import Choices, instrumented, main

with instrumented(__name__):
    from fuzz.peers import (
        APPLICATION,
        BEGIN,
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
        send_all,
        with_check,
    )
    from stt_proto.crypto import SUITES, CPace, PrivateKey, SymmetricState, channel_identifier
    from stt_proto.errors import (
        AuthenticationError,
        ConnectionError,
        ConnectionRefusedError,
        ConnectionTimeoutError,
        EncryptionError,
        HandshakeError,
        SessionClosedError,
        TooManySessionsError,
        VersionError,
    )
    from stt_proto.handshake.schedule import agree, open_proof
    from stt_proto.session import Session
    from stt_proto.testing import DeterministicKem, SeededEntropy
    from stt_proto.types import NetworkPath, SessionState
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
        decode_parameters_untrusted,
        encode_pieces,
    )
    from stt_proto.wire.header import FORM_BIT

PATHS = path_of(), path_of("2001:db8:1:2::3"), path_of(carrier="memory")
SMALL_ORDER = bytes(32), (1).to_bytes(32, "little"), (2**255 - 20).to_bytes(32, "little")
SECONDS = (0.0, 0.001, 0.1, 0.25, 0.31, 1.0, 3.0, 11.0)
MAX_DIALS = 3
MAX_SENT = 64
"""Handshake datagrams that one dial may send in all."""
BAD_KEY = b"\xff\xff"
"""How a KEM key begins that the KEM refuses: the first coefficient is not below the modulus."""


class StrictKem(DeterministicKem):
    """Refuses a public key as the real one does: deterministic keys would all do."""

    __slots__ = ()

    def encapsulate(self, public_bytes: bytes) -> tuple[bytes, bytes]:
        if public_bytes.startswith(BAD_KEY):
            raise EncryptionError("a KEM public key does not parse")
        return super().encapsulate(public_bytes)


KEM_KEY = DeterministicKem(SeededEntropy("KEM")).private_key(b"responder")
EPHEMERAL = PrivateKey(b"e" * 32)


@cache
def cpace_for(sid: bytes, seed: bytes) -> CPace:
    """The responder's side of CPace; dials of different inputs have the same sids."""
    entropy = SeededEntropy("responder")
    return CPace(seed, channel_identifier(APPLICATION.encode()), sid, scalar=entropy(32), blind=entropy(64))


class Dial:
    """One dial, as whoever answers knows it.

    Attributes:
        session: the session that is to be.
        path: on which it dials.
        pinned: who must answer, or `None`.
        hello: its HELLO.
        blamed: whether a CHALLENGE was sent that it may take for a wrong seed.
        hinted: whether REFUSED or VERSION were sent.
        sent: datagrams that it has sent.
    """

    def __init__(self, session: Session, path: NetworkPath, pinned: bytes | None, hello: Message) -> None:
        self.session = session
        self.path = path
        self.pinned = pinned
        self.hello = hello
        self.blamed = 0
        self.hinted = False
        self.sent = 0

    @property
    def waits(self) -> bool:
        """Whether a CHALLENGE is waited for."""
        return not self.session.peer_node_id and self.session.state is SessionState.HANDSHAKING


class Run:
    """An endpoint, its dials, and what was said to it."""

    def __init__(self) -> None:
        self.endpoint = make_endpoint(kem=StrictKem(SeededEntropy("endpoint's KEM")))
        self.now = BEGIN
        self.dials: list[Dial] = []
        self.said: list[tuple[bytes, NetworkPath]] = []
        self.proofs: list[Message] = []

    def say(self, datagram: bytes, path: NetworkPath) -> None:
        """Let the endpoint take in a datagram, and see what it sends."""
        if len(self.said) < 64:
            self.said.append((datagram, path))
        self.endpoint.receive(datagram, path, self.now)
        self.listen()
        check_bounds(self.endpoint)

    def listen(self) -> None:
        """Take what is sent."""
        for datagram in send_all(self.endpoint, self.now):
            if not datagram[0] & FORM_BIT:
                continue
            message = decode_datagram_untrusted(datagram)
            for dial in self.dials:
                dial.sent += dial.hello.scid == message.scid
                assert dial.sent <= MAX_SENT, "a dial that does not stop sending"
            if isinstance(message, Message) and message.type is MessageType.AUTH_PROOF:
                self.proofs.append(message)

    def state(self) -> list[object]:
        """What a message that fails must leave as it was."""
        sessions = [dial.session for dial in self.dials]
        return [(session.state, session.close_error, session.peer_node_id) for session in sessions]


def fuzz_one(data: bytes) -> None:
    """Dial, and answer."""
    choices = Choices(data)
    run = Run()
    begin_dial(run, choices)
    while choices:
        STEPS[choices.below(len(STEPS))](run, choices)
        assert not run.endpoint.sessions, "a session without a single packet"
    let_time_pass(run.endpoint, run.now, run.now + 100.0)
    for dial in run.dials:
        check_end(dial)
    held = held_for_sessions(run.endpoint)
    assert not held, held


def check_end(dial: Dial) -> None:
    """Every dial has ended, with an error that is deserved."""
    error = dial.session.close_error
    assert dial.session.is_closed
    assert isinstance(
        error, ConnectionError | SessionClosedError | TooManySessionsError | VersionError | HandshakeError
    )
    if isinstance(error, AuthenticationError | HandshakeError):
        assert dial.blamed, "a wrong seed that nobody showed"
    if isinstance(error, VersionError | TooManySessionsError | ConnectionRefusedError):
        assert dial.hinted
    if dial.session.peer_node_id:
        assert isinstance(error, ConnectionTimeoutError | SessionClosedError), "a good answer did not win"


def begin_dial(run: Run, choices: Choices) -> None:
    """Dial."""
    if len(run.dials) >= MAX_DIALS:
        return
    path = choices.pick(PATHS)
    pinned = choices.pick((None, None, THEIRS.node_id, OTHER.node_id))
    session = run.endpoint.connect(path, pinned, now=run.now)
    (hello,) = send_all(run.endpoint, run.now)
    run.dials.append(Dial(session, path, pinned, message_in([hello])))


# -- CHALLENGE -----------------------------------------------------------------------------------------------------


class Change(Enum):
    """What is wrong with a CHALLENGE; first what is in clear, then what is sealed, then what is around it."""

    NOTHING = 0
    HELLO_HASH = 1
    VERSION = 2
    SUITE = 3
    EPHEMERAL = 4
    SHARE = 5
    SEED = 6
    KEM_KEY = 7
    STATIC = 8
    OURSELVES = 9
    PARAMETERS = 10
    BODY = 11
    DCID = 12


def challenge(run: Run, choices: Choices) -> None:
    """Send a CHALLENGE: a good one is taken, and a bad one changes nothing (H-12)."""
    dial = choices.pick(run.dials)
    how = choices.byte()
    change = Change(how & 15) if how & 15 < len(Change) else Change.NOTHING
    path = choices.pick(PATHS) if how & 0x30 == 0x30 else dial.path
    message, state, good = make_challenge(dial, change, choices)
    addressed = path == dial.path and message.dcid == dial.hello.scid
    expected = good and addressed and dial.waits and dial.pinned in (None, THEIRS.node_id)
    before, proofs = run.state(), len(run.proofs)
    dial.blamed += not expected
    pieces = encode_pieces(message, 100 + choices.below(1100) if how & 0x40 else 1200)
    for datagram in pieces[:: -1 if how & 0x80 else 1]:
        run.say(datagram, path)
    if expected and len(run.proofs) == proofs:  # a piece of somebody else's spoils one repetition, and no more (W-3)
        for datagram in pieces:
            run.say(datagram, path)
    if not expected:
        if not dial.session.is_closed:
            assert run.state() == before, "a CHALLENGE that is not good was taken"
        return
    assert len(run.proofs) == proofs + 1, "a good CHALLENGE was not taken"
    check_proof(run.proofs[-1], state)


def make_challenge(dial: Dial, change: Change, choices: Choices) -> tuple[Message, SymmetricState, bool]:
    """A CHALLENGE with something changed, our state after it, and whether it is good all the same."""
    hello = Hello.decode_untrusted(dial.hello.body)
    hello_hash, version, suite = hello.hello_hash(dial.hello.dcid, dial.hello.scid), 1, 1 + choices.below(2)
    named = suite
    ephemeral, cpace = EPHEMERAL.public_bytes, cpace_for(hello.sid, SHARED_SEED)
    share, good = cpace.share, True
    if change is Change.HELLO_HASH:
        changed = choices.take(16).ljust(16, b"\0")
        good, hello_hash = changed == hello_hash, changed
    elif change is Change.VERSION:
        version = choices.byte()
        good = version == 1
    elif change is Change.SUITE:
        named = choices.byte()
        good = named in SUITES
        suite = named if good else suite
    elif change is Change.EPHEMERAL:
        ephemeral = choices.pick((*SMALL_ORDER, choices.take(32).ljust(32, b"\xff")))
        good = same_point(ephemeral, EPHEMERAL.public_bytes)
    elif change is Change.SHARE:
        share = choices.pick((*SMALL_ORDER, choices.take(32).ljust(32, b"\xff")))
        good = share == cpace.share
    elif change is Change.SEED:
        cpace, good = cpace_for(hello.sid, b"another seed"), False
        share = cpace.share
    scid = choices.take(1).ljust(8, b"s")
    prefix = MessageType.CHALLENGE.first_byte + dial.hello.scid + scid
    clear = b"".join((hello_hash, bytes((version, named)), ephemeral, share))
    transcript = MessageType.HELLO.first_byte + dial.hello.dcid + dial.hello.scid + hello.core()
    state, _ = agree(
        SUITES[suite], transcript, prefix + clear, EPHEMERAL.exchange(hello.e), cpace.psk_as_responder(hello.share)
    )
    sealed, also_good = seal(state, hello, change, choices)
    message = Message(MessageType.CHALLENGE, dial.hello.scid, scid, clear + sealed)
    if change is Change.BODY:
        damaged = message._replace(body=choices.damage(message.body)[:8192])
        return damaged, state, damaged == message
    if change is Change.DCID:
        message = message._replace(dcid=choices.take(8).ljust(8, b"d"))
    return message, state, good and also_good


def same_point(one: bytes, other: bytes) -> bool:
    """Whether X25519 takes these for the same: bit 255 is ignored, and the rest taken modulo p (RFC 7748)."""
    masked = (int.from_bytes(key, "little") & (1 << 255) - 1 for key in (one, other))
    return len({key % (2**255 - 19) for key in masked}) == 1


def seal(state: SymmetricState, hello: Hello, change: Change, choices: Choices) -> tuple[bytes, bool]:
    """The sealed part, with something changed inside, and whether it is good."""
    kem_key, static, parameters, good = KEM_KEY.public_bytes(), THEIRS, PARAMETERS.encode(), True
    claimed = static.node_id
    if change is Change.KEM_KEY:
        kem_key, good = BAD_KEY + kem_key[2:], False
    elif change is Change.STATIC:
        claimed = choices.pick((OTHER.node_id, b"\xff" * 32, *SMALL_ORDER, choices.take(32).ljust(32, b"\0")))
        good = claimed == THEIRS.node_id
    elif change is Change.OURSELVES:
        static, claimed, good = OURS, OURS.node_id, False
    elif change is Change.PARAMETERS:
        parameters = choices.damage(parameters)[:1040]
        try:
            decode_parameters_untrusted(parameters)
        except HandshakeError:
            good = False
    parts = [state.encrypt_and_hash(kem_key), state.encrypt_and_hash(claimed)]
    state.mix_key(static.exchange(hello.e))
    return b"".join((*parts, state.encrypt_and_hash(parameters))), good


def check_proof(proof: Message, state: SymmetricState) -> None:
    """The AUTH_PROOF that answers proves who the endpoint is."""
    body = AuthProof.decode_untrusted(proof.body)
    assert open_proof(state.copy(), proof.prefix, body, KEM_KEY.decapsulate, EPHEMERAL) == OURS.node_id


# -- everything else -----------------------------------------------------------------------------------------------


def hint(run: Run, choices: Choices) -> None:
    """RETRY, REFUSED, VERSION or ABORT, true or false: none of them ends a dial at once (H-14)."""
    dial = choices.pick(run.dials)
    hello = Hello.decode_untrusted(dial.hello.body)
    hello_hash = hello.hello_hash(dial.hello.dcid, dial.hello.scid)
    how = choices.byte()
    if how & 7 == 7:
        hello_hash = choices.damage(hello_hash)[:16].ljust(16, b"\0")
    kind, encoded = choices.pick(
        (
            (MessageType.RETRY, Retry(hello_hash, choices.chunk()[:64] or b"c").encode()),
            (MessageType.REFUSED, Refused(hello_hash, choices.below(65_536)).encode()),
            (
                MessageType.VERSION,
                VersionList(
                    hello_hash, tuple(choices.chunk()[:16]) or (2,), tuple(choices.chunk()[:16]) or (3,)
                ).encode(),
            ),
            (MessageType.ABORT, Abort(choices.take(18).ljust(18, b"\0")).encode()),
        )
    )
    if how & 0x18 == 0x18:
        encoded = choices.damage(encoded)
    dial.hinted |= kind in (MessageType.REFUSED, MessageType.VERSION)
    before = run.state()
    for datagram in encode_pieces(Message(kind, dial.hello.scid, dial.hello.dcid, encoded[:8192]), 200):
        run.say(datagram, choices.pick(PATHS) if how & 0x60 == 0x60 else dial.path)
    assert run.state() == before


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
            for dial in run.dials:
                dial.blamed, dial.hinted = dial.blamed + 1, True
        elif changed != datagram:
            before = run.state()
            run.say(changed, path)
            assert run.state() == before, "a damaged datagram has changed something"
            return
        datagram = changed
    run.say(datagram, path)


def other_message(run: Run, choices: Choices) -> None:
    """A message of any type and content, or a packet, to a dial."""
    dial = choices.pick(run.dials)
    if choices.flag():
        run.say(bytes((0x40 | choices.below(64),)) + dial.hello.scid + choices.chunk(), choices.pick(PATHS))
        return
    message = Message(
        MessageType(1 + choices.below(7)), dial.hello.scid, choices.take(1).ljust(8, b"s"), choices.chunk()[:8192]
    )
    before = run.state()
    for datagram in encode_pieces(message, 38 + choices.below(1163)):
        run.say(datagram, choices.pick(PATHS))
    assert run.state() == before


def raw(run: Run, choices: Choices) -> None:
    """Bytes, with a check that fits or not."""
    datagram = choices.chunk()
    run.say(with_check(datagram) if choices.flag() else datagram, choices.pick(PATHS))


def wait(run: Run, choices: Choices) -> None:
    """Let time pass."""
    until = run.now + choices.pick(SECONDS)
    while True:
        deadline = run.endpoint.next_deadline()
        if deadline is None or deadline.at > until:
            break
        run.now = max(run.now, deadline.at)
        run.endpoint.tick(run.now)
        run.listen()
    run.now = until
    check_bounds(run.endpoint)


def end_dial(run: Run, choices: Choices) -> None:
    """The application, or the carrier, gives up."""
    dial = choices.pick(run.dials)
    match choices.below(3):
        case 0:
            dial.session.close(run.now)
        case 1:
            dial.session.abort(run.now)
        case _:
            run.endpoint.path_closed(dial.path, run.now)
    run.listen()


STEPS = (challenge, challenge, challenge, hint, repeat, other_message, raw, wait, begin_dial, end_dial)


if __name__ == "__main__":
    remember_curves()
    main(fuzz_one)
