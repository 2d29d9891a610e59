"""The side that dials: HELLO out, CHALLENGE in, AUTH_PROOF out, and the first packet that opens ends it (4.2).

The table below is the protocol; what is not in it changes nothing. Its spirit is patience. Everything that can arrive
before the session has keys could come from somebody who merely watches, so nothing but a CHALLENGE that opens is
believed at once. Whatever speaks against success only starts a *grace*, in which the real answer can still arrive and
win; what was heard first becomes the error when it is over.

Nor is a cookie believed: of those that came the newest are shown in turn, since anybody can make one up.

Two things limit patience. CPace allows one guess for each CHALLENGE that is tried, so only a few are (H-12). And the
handshake timeout ends everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from hashlib import sha256
from math import inf
from types import MappingProxyType

import attrs

from stt_proto.crypto import (
    BLIND_SIZE,
    SCALAR_SIZE,
    SUITES,
    X25519_SIZE,
    CPace,
    Kem,
    PrivateKey,
    Secret,
    channel_identifier,
)
from stt_proto.errors import (
    AuthenticationError,
    ConnectionRefusedError,
    ConnectionTimeoutError,
    EncryptionError,
    HandshakeError,
    ShuttingDownError,
    SttError,
    TooManySessionsError,
    VersionError,
)
from stt_proto.handshake.cookies import CookiePurse
from stt_proto.handshake.established import Established, SessionSecrets
from stt_proto.handshake.schedule import AbortKey, agree, hello_hash, open_challenge, seal_proof
from stt_proto.identity import Identity
from stt_proto.tickets import TicketRefusal
from stt_proto.types import HandshakeStep
from stt_proto.wire import (
    Challenge,
    Hello,
    Message,
    MessageType,
    Parameters,
    Refused,
    Retry,
    VersionList,
    decode_parameters_untrusted,
    encode_datagram,
    encode_pieces,
)

FIRST_RETRANSMISSION = 0.25
"""Seconds until a message is repeated while the round trip is not known (H-18)."""

LEAST_RETRANSMISSION = 0.01
"""Seconds; twice a round trip counts as at least this, since the answer takes time to compute."""

RETRANSMISSION_GROWTH = 1.5
"""Each wait for an answer is longer than the one before by this factor."""

LONGEST_RETRANSMISSION = 1.0
"""Seconds; no wait is longer, but for its jitter."""

JITTER = 0.125
"""The part of a wait by which it may be longer or shorter, so that many who begin together do not go on together."""

GRACE_ROUND_TRIPS = 3
"""Round trips for which a better answer is awaited after a bad one (H-13)."""

SHORTEST_GRACE = 0.75
"""Seconds; no grace is shorter where addresses can be forged: so far may the responder be, and a forger next door."""

SHORTEST_GRACE_RELIABLE = 0.3
"""Seconds; likewise on carriers that are reliable, where nobody else can answer."""

PADDED_HELLO = 1200
"""Bytes of the datagram of HELLO where addresses can be forged (W-4)."""

_SID_END = 16
_DCID_END = _SID_END + 8
_E_END = _DCID_END + X25519_SIZE
_SCALAR_END = _E_END + SCALAR_SIZE
_ENTROPY_SIZE = _SCALAR_END + BLIND_SIZE


class InitiatorState(Enum):
    """Where a dial stands."""

    HELLO_SENT = "hello sent"
    PROOF_SENT = "proof sent"
    CONFIRMED = "confirmed"
    FAILED = "failed"


class Input(Enum):
    """What can happen to a dial."""

    CHALLENGE_OPENED = "a CHALLENGE that opens"
    CHALLENGE_SHUT = "a CHALLENGE to our HELLO that does not open"
    LAST_CHALLENGE_SHUT = "the last one that is tried"
    RETRY = "a RETRY to our HELLO, with another cookie"
    HINT = "REFUSED or VERSION to our HELLO"
    GRACE_OVER = "the grace is over"
    RETRANSMIT = "the retransmission timer"
    PACKET_OPENED = "a packet that opens under the session's keys"
    TIMEOUT = "the handshake timeout"


_HELLO_SENT, _PROOF_SENT = InitiatorState.HELLO_SENT, InitiatorState.PROOF_SENT
_CONFIRMED, _FAILED = InitiatorState.CONFIRMED, InitiatorState.FAILED

TRANSITIONS: Mapping[tuple[InitiatorState, Input], InitiatorState] = MappingProxyType(
    {
        (_HELLO_SENT, Input.CHALLENGE_OPENED): _PROOF_SENT,
        (_HELLO_SENT, Input.CHALLENGE_SHUT): _HELLO_SENT,
        (_HELLO_SENT, Input.LAST_CHALLENGE_SHUT): _FAILED,
        (_HELLO_SENT, Input.RETRY): _HELLO_SENT,
        (_HELLO_SENT, Input.HINT): _HELLO_SENT,
        (_HELLO_SENT, Input.GRACE_OVER): _FAILED,
        (_HELLO_SENT, Input.RETRANSMIT): _HELLO_SENT,
        (_HELLO_SENT, Input.TIMEOUT): _FAILED,
        (_PROOF_SENT, Input.PACKET_OPENED): _CONFIRMED,
        (_PROOF_SENT, Input.RETRANSMIT): _PROOF_SENT,
        (_PROOF_SENT, Input.TIMEOUT): _FAILED,
    }
)
"""The table of docs/protocol.md, section 4.2."""


class Initiator(Secret):
    """One dial.

    The endpoint hands over the messages that name `local_cid` and came in on the dial's path (H-30), calls `tick` when
    `deadline` is reached, and after either sends what `take` gives. From `established` on the session's keys are
    usable; the first packet that opens under them is reported with `confirm`.

    Attributes:
        state: where it stands.
        local_cid: our connection ID, 8 bytes.
        ephemeral: our ephemeral public key; a HELLO that carries it is our own, reflected (H-27).
        established: set when CHALLENGE opened.
        error: why it failed, once `state` is `FAILED`.
        refusal: why it does without a ticket, if there was one.
        steps: what was sent and accepted, in order; whoever reports it empties the list.
    """

    __slots__ = (
        "_aborts",
        "_allow_self",
        "_cookies",
        "_cpace",
        "_datagrams",
        "_dcid",
        "_due",
        "_ephemeral",
        "_grace_at",
        "_handshake_at",
        "_hello",
        "_hello_hash",
        "_hint",
        "_identity",
        "_kem",
        "_max_challenges",
        "_max_datagram",
        "_peer_node_id",
        "_reliable",
        "_retransmit_at",
        "_sent",
        "_sent_at",
        "_shut",
        "_transcript",
        "_tried",
        "_wait",
        "ephemeral",
        "error",
        "established",
        "local_cid",
        "refusal",
        "state",
        "steps",
    )

    def __init__(
        self,
        *,
        identity: Identity,
        shared_seed: bytes,
        application: str,
        versions: Sequence[int],
        suites: Sequence[int],
        parameters: Parameters,
        local_cid: bytes,
        reliable: bool,
        max_datagram: int,
        entropy: Callable[[int], bytes],
        kem: Kem,
        now: float,
        peer_node_id: bytes | None = None,
        allow_self: bool = False,
        handshake_timeout: float = 10.0,
        max_challenges: int = 4,
    ) -> None:
        """Begin a dial; HELLO waits in `take`.

        Args:
            identity: who we are.
            shared_seed: PRS of CPace.
            application: the name that both sides must share.
            versions: offered, the preferred first.
            suites: offered, the preferred first.
            parameters: ours.
            local_cid: our connection ID, fresh, 8 bytes.
            reliable: whether the path's carrier is; if not, HELLO is padded.
            max_datagram: bytes of the largest datagram on the path.
            entropy: gives random bytes; drawn from once, here.
            kem: the key encapsulation.
            now: seconds.
            peer_node_id: who must answer, or `None` for anybody with the seed.
            allow_self: whether it may be ourselves.
            handshake_timeout: seconds.
            max_challenges: how many different CHALLENGEs are tried.
        """
        random = entropy(_ENTROPY_SIZE)
        sid, self._dcid = random[:_SID_END], random[_SID_END:_DCID_END]
        self._ephemeral = PrivateKey(random[_DCID_END:_E_END])
        self._cpace = CPace(
            shared_seed,
            channel_identifier(application.encode()),
            sid,
            scalar=random[_E_END:_SCALAR_END],
            blind=random[_SCALAR_END:],
        )
        self._identity = identity
        self._kem = kem
        self._peer_node_id = peer_node_id
        self._allow_self = allow_self
        self._max_challenges = max_challenges
        self._reliable = reliable
        self._max_datagram = max_datagram
        self.local_cid = local_cid
        self.ephemeral = self._ephemeral.public_bytes

        self._hello = Hello(tuple(versions), tuple(suites), sid, self.ephemeral, self._cpace.share, parameters.encode())
        self._transcript = MessageType.HELLO.first_byte + self._dcid + local_cid + self._hello.core()
        self._hello_hash = hello_hash(self._transcript)
        self._datagrams = self._encode_hello()

        self.state = InitiatorState.HELLO_SENT
        self.established: Established | None = None
        self.error: SttError | None = None
        self.refusal: TicketRefusal | None = None
        self.steps: list[HandshakeStep] = [HandshakeStep.HELLO]

        self._due = 1
        self._sent = 0
        self._sent_at = now
        self._wait = FIRST_RETRANSMISSION
        self._retransmit_at = inf
        self._grace_at = inf
        self._handshake_at = now + handshake_timeout
        self._tried: list[bytes] = []
        self._cookies = CookiePurse()
        self._shut: SttError | None = None
        self._hint: SttError | None = None
        self._aborts: list[tuple[AbortKey, bytes]] = []

    # -- out and time ----------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """When `tick` wants to be called; `inf` when never."""
        return min(self._retransmit_at, self._grace_at, self._handshake_at)

    def take(self, now: float) -> tuple[bytes, ...]:
        """The datagrams of a message to send now, often none; ask until there are none.

        What was taken counts as sent, and is waited for from now on.
        """
        if not self._due:
            return ()
        self._due -= 1
        if self.state is InitiatorState.HELLO_SENT:
            self._show_cookie()
        if self.state is not InitiatorState.FAILED:
            if not self._sent:
                self._sent_at = now
            self._sent += 1
            if self._grace_at == inf:
                self._retransmit_at = now + self._varied(self._wait)
        return self._datagrams

    def tick(self, now: float) -> None:
        """Let time pass: repeat a message, end the grace, or give up. Idempotent for one `now`."""
        if now >= self._grace_at:
            self._fail(Input.GRACE_OVER, self._shut or self._hint)
        elif now >= self._handshake_at:
            self._fail(Input.TIMEOUT, ConnectionTimeoutError("the handshake did not finish in time"))
        elif now >= self._retransmit_at:
            self._move(Input.RETRANSMIT)
            self._wait = min(self._wait * RETRANSMISSION_GROWTH, LONGEST_RETRANSMISSION)
            self._retransmit_at = inf
            self._due = max(self._due, 1)

    def confirm(self) -> None:
        """A packet opened under the session's keys: the peer has them too. Anything after the first changes nothing."""
        if self.state is InitiatorState.PROOF_SENT:
            self._move(Input.PACKET_OPENED)
            self.steps.append(HandshakeStep.FINAL)
            self._rest()

    # -- in --------------------------------------------------------------------------------------------------------

    def on_message(self, message: Message, now: float) -> None:
        """Take in a message that came undamaged over the dial's path; a bad one changes nothing (H-12)."""
        if self.state is not InitiatorState.HELLO_SENT or message.dcid != self.local_cid:
            return
        try:
            if message.type is MessageType.CHALLENGE:
                self._on_challenge(message, Challenge.decode_untrusted(message.body), now)
            elif message.scid == self._dcid:
                self._on_hint(message, now)
        except HandshakeError:
            return

    def _on_challenge(self, message: Message, challenge: Challenge, now: float) -> None:
        hello = self._hello
        offered = challenge.version in hello.versions and challenge.suite in hello.suites
        if challenge.hello_hash != self._hello_hash or not offered:
            return
        digest = sha256(message.encoded).digest()
        if digest in self._tried:
            return
        try:
            ee = self._ephemeral.exchange(challenge.e)
            psk = self._cpace.psk_as_initiator(challenge.share)
        except EncryptionError:
            return  # H-4: nobody's guess, so none is used up
        self._tried.append(digest)
        suite = SUITES[challenge.suite]
        state, abort = agree(suite, self._transcript, message.prefix + challenge.clear(), ee, psk)
        try:
            kem_key, peer, encoded = open_challenge(state, challenge, self._ephemeral)
            self._check_peer(peer)
            parameters = decode_parameters_untrusted(encoded)
            header = MessageType.AUTH_PROOF.first_byte + message.scid + self.local_cid
            static = self._identity.static_key
            proof = seal_proof(state, header, self._kem, kem_key, static, challenge.e)
        except EncryptionError:
            wrong_seed = AuthenticationError("the other side has another shared seed or application name")
            self._on_shut(wrong_seed, abort, message.scid, now)
        except (AuthenticationError, HandshakeError) as error:
            self._on_shut(error, abort, message.scid, now)
        else:
            secrets = SessionSecrets.derive(suite, state)
            rtt = now - self._sent_at if self._sent == 1 else None
            self.established = Established(
                initiator=True,
                secrets=secrets,
                peer_node_id=peer,
                peer_parameters=parameters,
                local_cid=self.local_cid,
                peer_cid=message.scid,
                version=challenge.version,
                rtt=rtt,
            )
            reply = Message(MessageType.AUTH_PROOF, message.scid, self.local_cid, proof.encode())
            self._prove(encode_pieces(reply, self._max_datagram), rtt)

    def _check_peer(self, peer: bytes) -> None:
        """Before our own identity is shown: is it the one who was asked for (H-15), and not ourselves (H-16)?"""
        if self._peer_node_id is not None and peer != self._peer_node_id:
            raise AuthenticationError("the other side is not the peer that was asked for")
        if peer == self._identity.node_id and not self._allow_self:
            raise AuthenticationError("the other side has this node's own identity")

    def _prove(self, datagrams: tuple[bytes, ...], rtt: float | None) -> None:
        self._move(Input.CHALLENGE_OPENED)
        self.steps += HandshakeStep.CHALLENGE, HandshakeStep.AUTH_PROOF
        self._datagrams = datagrams
        self._due = 1
        self._aborts.clear()
        self._retransmit_at = self._grace_at = inf
        if rtt is None:
            self._wait = FIRST_RETRANSMISSION
        else:
            self._wait = min(max(2 * rtt, LEAST_RETRANSMISSION), LONGEST_RETRANSMISSION)

    def _on_shut(self, error: SttError, abort: AbortKey, peer_cid: bytes, now: float) -> None:
        """A CHALLENGE to our HELLO did not open: it may be a wrong seed, or somebody's guess."""
        self._shut = self._shut or error
        self._aborts.append((abort, peer_cid))
        if len(self._tried) >= self._max_challenges:
            self._fail(Input.LAST_CHALLENGE_SHUT, self._shut)
        else:
            self._move(Input.CHALLENGE_SHUT)
            if self._grace_at == inf:
                self._begin_grace(now)

    def _on_hint(self, message: Message, now: float) -> None:
        """RETRY, REFUSED and VERSION: from the responder, or from whoever can watch (H-14)."""
        if message.type is MessageType.RETRY:
            self._on_retry(Retry.decode_untrusted(message.body), now)
            return
        error = self._refusal(message)
        if error is not None:
            self._move(Input.HINT)
            self._hint = self._hint or error
            if self._grace_at == inf:
                self._begin_grace(now)

    def _on_retry(self, retry: Retry, now: float) -> None:
        """Keep the cookie, and show it at once if there were few; it may be somebody else's (H-14)."""
        if retry.hello_hash != self._hello_hash or not self._cookies.add(retry.cookie):
            return
        self._move(Input.RETRY)
        self._due = max(self._due, self._cookies.urgent)
        if self._grace_at < inf:
            self._begin_grace(now)  # the answer takes another round trip

    def _refusal(self, message: Message) -> SttError | None:
        """What REFUSED or VERSION stands for, if it is an answer to our HELLO that makes sense."""
        if message.type is MessageType.REFUSED:
            refused = Refused.decode_untrusted(message.body)
            if refused.hello_hash != self._hello_hash:
                return None
            if refused.code == TooManySessionsError.code:
                return TooManySessionsError("the other side holds as many sessions as it may")
            if refused.code == ShuttingDownError.code:
                return ShuttingDownError("the other side is about to stop")
            return ConnectionRefusedError("the other side does not accept sessions", code=refused.code)
        if message.type is MessageType.VERSION:
            theirs = VersionList.decode_untrusted(message.body)
            hello = self._hello
            shared = set(theirs.versions) & set(hello.versions) and set(theirs.suites) & set(hello.suites)
            if theirs.hello_hash == self._hello_hash and not shared:
                return VersionError("the other side speaks none of the versions or suites offered")
        return None

    # -- the machine -----------------------------------------------------------------------------------------------

    def _begin_grace(self, now: float) -> None:
        """Wait for a better answer, from now on; HELLO is repeated once, early enough for an answer to that (H-13)."""
        shortest = SHORTEST_GRACE_RELIABLE if self._reliable else SHORTEST_GRACE
        grace = max(GRACE_ROUND_TRIPS * (now - self._sent_at), shortest)
        self._grace_at = min(now + grace, self._handshake_at)
        self._retransmit_at = min(self._retransmit_at, now + self._varied(grace / GRACE_ROUND_TRIPS))

    def _varied(self, wait: float) -> float:
        """A wait with its jitter (H-18). It comes from `sid`, which is random and no secret."""
        sid = self._hello.sid
        return wait * (1 + JITTER * (sid[self._sent % len(sid)] / 128 - 1))

    def _show_cookie(self) -> None:
        """Put the cookie into HELLO whose turn it is."""
        cookie = self._cookies.show()
        if cookie != self._hello.cookie:
            self._hello = attrs.evolve(self._hello, cookie=cookie)
            self._datagrams = self._encode_hello()

    def _fail(self, reason: Input, error: SttError | None) -> None:
        self._move(reason)
        self.error = error
        self._due = 0
        if self._aborts:
            self._due = 1
            self._datagrams = tuple(self._encode_abort(key, peer_cid) for key, peer_cid in self._aborts)
        self._rest()

    def _encode_abort(self, key: AbortKey, peer_cid: bytes) -> bytes:
        header = MessageType.ABORT.first_byte + peer_cid + self.local_cid
        abort = key.seal(header, AuthenticationError.code)
        return encode_datagram(Message(MessageType.ABORT, peer_cid, self.local_cid, abort.encode()))

    def _rest(self) -> None:
        """No timer runs any more."""
        self._retransmit_at = self._grace_at = self._handshake_at = inf

    def _move(self, reason: Input) -> None:
        self.state = TRANSITIONS[self.state, reason]

    def _encode_hello(self) -> tuple[bytes, ...]:
        message = Message(MessageType.HELLO, self._dcid, self.local_cid, self._hello.encode())
        if self._reliable:
            return encode_pieces(message, self._max_datagram)
        return (encode_datagram(message, PADDED_HELLO),)
