"""One half-open handshake at the responder: HELLO came, CHALLENGE went, AUTH_PROOF is awaited (4.3).

It is made in one go from a HELLO that has passed all cheap checks, and then waits. Nothing that arrives changes it
until an AUTH_PROOF opens, which gives the `Established`, or an ABORT does.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import field, frozen

from stt_proto.crypto import (
    BLIND_SIZE,
    KEM_SEED_SIZE,
    SCALAR_SIZE,
    SUITES,
    X25519_SIZE,
    CPace,
    Kem,
    KemPrivateKey,
    PrivateKey,
    Secret,
)
from stt_proto.errors import EncryptionError, HandshakeError
from stt_proto.handshake.established import Established, SessionSecrets
from stt_proto.handshake.guesses import Source
from stt_proto.handshake.schedule import agree, open_proof, seal_challenge
from stt_proto.identity import Identity
from stt_proto.types import NetworkPath
from stt_proto.wire import Abort, AuthProof, Hello, Message, MessageType, Parameters, encode_pieces

LONGEST_SAMPLE = 0.333
"""Seconds; a longer round trip is not believed. AUTH_PROOF may have been repeated, which cannot be seen from here, and
a session that begins with a round trip of seconds repeats its first packets too late. (RFC 9002, 6.2.2: this is what
is assumed where nothing is known.)"""

_E_END = X25519_SIZE
_SCALAR_END = _E_END + SCALAR_SIZE
_BLIND_END = _SCALAR_END + BLIND_SIZE
_ENTROPY_SIZE = _BLIND_END + KEM_SEED_SIZE


@frozen(kw_only=True, eq=False)
class Answerer:
    """What a responder brings into every handshake.

    Attributes:
        identity: who it is.
        shared_seed: PRS of CPace.
        channel: CI of CPace.
        kem: the key encapsulation.
        allow_self: whether a peer may have our own node id.
        challenge_repeats: how often a stored CHALLENGE is sent again.
        held_packets: packets that may overtake AUTH_PROOF.
        held_bytes: bytes of these.
    """

    identity: Identity
    shared_seed: bytes = field(repr=False)
    channel: bytes
    kem: Kem
    allow_self: bool
    challenge_repeats: int
    held_packets: int
    held_bytes: int


@frozen(kw_only=True)
class Offer:
    """A HELLO that is worth an answer, and what was decided about it.

    Attributes:
        hello: decoded.
        transcript: its type, connection IDs and core, as both sides hash them.
        hello_hash: of these.
        scid: the initiator's connection ID.
        parameters: the initiator's.
        path: where it came from.
        source: what its guesses are counted under.
        proven: whether that address was shown: by a cookie, or by a reliable carrier.
        version: chosen from those offered.
        suite: chosen from those offered.
    """

    hello: Hello
    transcript: bytes
    hello_hash: bytes
    scid: bytes
    parameters: Parameters
    path: NetworkPath
    source: Source
    proven: bool
    version: int
    suite: int


class HalfOpen(Secret):
    """A handshake that waits for its AUTH_PROOF.

    Attributes:
        path: the one path it uses (H-30).
        local_cid: our connection ID, which AUTH_PROOF and ABORT name.
        peer_cid: the initiator's.
        hello_hash: of the HELLO that began it.
        source: what its guess is counted under.
        proven: whether it came with a cookie or over a reliable carrier.
        began_at: seconds; when HELLO came.
        deadline: seconds; when it is given up.
        datagrams: CHALLENGE, as it was and will be sent (W-5).
        held: packets that overtook AUTH_PROOF, in order (H-26).
    """

    __slots__ = (
        "_abort",
        "_answerer",
        "_ephemeral",
        "_held_bytes",
        "_kem_key",
        "_kem_seed",
        "_peer_parameters",
        "_repeats",
        "_state",
        "_suite",
        "_version",
        "began_at",
        "datagrams",
        "deadline",
        "held",
        "hello_hash",
        "local_cid",
        "path",
        "peer_cid",
        "proven",
        "source",
    )

    def __init__(
        self,
        answerer: Answerer,
        offer: Offer,
        parameters: bytes,
        max_datagram: int,
        *,
        now: float,
        timeout: float,
        entropy: Callable[[int], bytes],
        issue: Callable[[], bytes],
    ) -> None:
        """Compute the answer to a HELLO: a third of a millisecond.

        Args:
            answerer: what is ours in it.
            offer: what is the peer's.
            parameters: ours, encoded.
            max_datagram: bytes of the largest datagram on this path.
            now: seconds.
            timeout: seconds until it is given up.
            entropy: gives random bytes.
            issue: gives a connection ID of ours; called once, and only when nothing can fail any more.

        Raises:
            EncryptionError: a key in HELLO is of small order (H-4).
        """
        hello = offer.hello
        random = entropy(_ENTROPY_SIZE)
        ephemeral = PrivateKey(random[:_E_END])
        ee = ephemeral.exchange(hello.e)
        cpace = CPace(
            answerer.shared_seed,
            answerer.channel,
            hello.sid,
            scalar=random[_E_END:_SCALAR_END],
            blind=random[_SCALAR_END:_BLIND_END],
        )
        psk = cpace.psk_as_responder(hello.share)
        kem_seed = random[_BLIND_END:]
        kem_key = answerer.kem.private_key(kem_seed)
        suite = SUITES[offer.suite]

        local_cid = issue()
        clear = b"".join((offer.hello_hash, bytes((offer.version, offer.suite)), ephemeral.public_bytes, cpace.share))
        header = b"".join((MessageType.CHALLENGE.first_byte, offer.scid, local_cid))
        state, self._abort = agree(suite, offer.transcript, header + clear, ee, psk)
        sealed = seal_challenge(state, kem_key.public_bytes(), answerer.identity.static_key, hello.e, parameters)
        challenge = Message(MessageType.CHALLENGE, offer.scid, local_cid, b"".join((clear, *sealed)))
        self.datagrams = encode_pieces(challenge, max_datagram)

        self._answerer = answerer
        self._suite = suite
        self._version = offer.version
        self._state = state
        self._ephemeral = ephemeral
        self._kem_seed = kem_seed
        self._kem_key: KemPrivateKey | None = kem_key
        self._peer_parameters = offer.parameters
        self._repeats = 0
        self._held_bytes = 0
        self.held: list[bytes] = []
        self.path = offer.path
        self.source = offer.source
        self.proven = offer.proven
        self.hello_hash = offer.hello_hash
        self.peer_cid = offer.scid
        self.local_cid = local_cid
        self.began_at = now
        self.deadline = now + timeout

    def repeat(self) -> tuple[bytes, ...]:
        """CHALLENGE for a repeated HELLO: the stored bytes, or nothing when that was asked too often (H-20)."""
        if self._repeats >= self._answerer.challenge_repeats:
            return ()
        self._repeats += 1
        return self.datagrams

    def shrink(self) -> None:
        """Keep of the KEM's key only the seed (H-5): kilobytes less, and 0.08 ms more when AUTH_PROOF comes."""
        self._kem_key = None

    def hold(self, packet: bytes) -> bool:
        """Keep a packet of this path that came before its keys; False when there is no room for it (H-26)."""
        size = self._held_bytes + len(packet)
        if len(self.held) >= self._answerer.held_packets or size > self._answerer.held_bytes:
            return False
        self.held.append(packet)
        self._held_bytes = size
        return True

    def on_auth_proof(self, message: Message, now: float) -> Established | None:
        """What an AUTH_PROOF of this path establishes; `None` if it does not open, and nothing has changed (H-25)."""
        answerer = self._answerer
        if message.scid != self.peer_cid:
            return None
        state = self._state.copy()
        try:
            proof = AuthProof.decode_untrusted(message.body)
            peer = open_proof(state, message.prefix, proof, self._decapsulate, self._ephemeral)
        except (EncryptionError, HandshakeError):
            return None
        if peer == answerer.identity.node_id and not answerer.allow_self:
            return None
        return Established(
            initiator=False,
            secrets=SessionSecrets.derive(self._suite, state),
            peer_node_id=peer,
            peer_parameters=self._peer_parameters,
            local_cid=self.local_cid,
            peer_cid=self.peer_cid,
            version=self._version,
            rtt=None if self._repeats else min(now - self.began_at, LONGEST_SAMPLE),
        )

    def _decapsulate(self, ciphertext: bytes) -> bytes:
        key = self._kem_key or self._answerer.kem.private_key(self._kem_seed)
        return key.decapsulate(ciphertext)

    def on_abort(self, message: Message) -> bool:
        """Whether this ABORT is the initiator's own (H-24)."""
        if message.scid != self.peer_cid:
            return False
        try:
            abort = Abort.decode_untrusted(message.body)
        except HandshakeError:
            return False
        return self._abort.open(message.prefix, abort) is not None
