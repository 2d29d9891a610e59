"""One half-open handshake at the responder: HELLO came, CHALLENGE went, AUTH_PROOF is awaited (4.3).

It is made in one go from a HELLO that has passed all cheap checks, and then waits. Nothing that arrives changes it
until an AUTH_PROOF opens, which gives the `Established`, or an ABORT does.
"""

from __future__ import annotations

from collections.abc import Callable

from stt_proto.crypto import (
    BLIND_SIZE,
    KEM_SEED_SIZE,
    SCALAR_SIZE,
    SUITES,
    X25519_SIZE,
    CPace,
    KemPrivateKey,
    PrivateKey,
)
from stt_proto.errors import EncryptionError, HandshakeError
from stt_proto.handshake.established import Established, SessionSecrets
from stt_proto.handshake.schedule import agree, open_proof, seal_challenge
from stt_proto.handshake.waiting import Answerer, Offer, Waiting
from stt_proto.wire import Abort, AuthProof, Message, MessageType, encode_pieces

_E_END = X25519_SIZE
_SCALAR_END = _E_END + SCALAR_SIZE
_BLIND_END = _SCALAR_END + BLIND_SIZE
_ENTROPY_SIZE = _BLIND_END + KEM_SEED_SIZE


class HalfOpen(Waiting):
    """A handshake that waits for its AUTH_PROOF; `local_cid` is what that and ABORT name."""

    __slots__ = (
        "_abort",
        "_ephemeral",
        "_kem_key",
        "_kem_seed",
        "_peer_parameters",
        "_state",
        "_suite",
        "_version",
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
        super().__init__(offer, local_cid, answerer, now=now, timeout=timeout)
        self.datagrams = encode_pieces(challenge, max_datagram)

        self._suite = suite
        self._version = offer.version
        self._state = state
        self._ephemeral = ephemeral
        self._kem_seed = kem_seed
        self._kem_key: KemPrivateKey | None = kem_key
        self._peer_parameters = offer.parameters

    def shrink(self) -> None:
        """Keep of the KEM's key only the seed (H-5): kilobytes less, and 0.08 ms more when AUTH_PROOF comes."""
        self._kem_key = None

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
            rtt=self.round_trip(now),
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
