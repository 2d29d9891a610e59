"""The key schedule: every token of the handshake, in the one order that both sides walk (H-1 to H-4, H-10).

    HELLO         in clear
    CHALLENGE     its clear part; ee, psk; {KEM key} {s} es {parameters}
    AUTH_PROOF    {KEM ciphertext}, KEM secret; {s} se {}

`{x}` is sealed under everything mixed in before it. So the KEM key, the first thing sealed, opens only to who has the
shared seed; the responder's `s` is seen only by those, and proven by the parameters behind `es`; the initiator's `s` is
covered by the KEM too, and proven by the last, empty seal behind `se`.

Each message has a function that seals it and one that opens it, side by side. None of them decides anything: states,
limits and who is welcome are the business of `initiator` and `half_open`. Opening raises `EncryptionError` and nothing
else; a state that failed to open is thrown away, or was a copy.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

from stt_proto.crypto import SUITES, Kem, PrivateKey, Secret, Suite, SymmetricState, hkdf_expand, is_canonical
from stt_proto.crypto.suite import KEY_SIZE, InvalidTag
from stt_proto.errors import EncryptionError
from stt_proto.wire import Abort, AuthProof, Challenge

_PROTOCOL_NAMES = {
    suite.id: f"STT1_25519+CPace+MLKEM768_{suite.noise_name}_SHA256".encode() for suite in SUITES.values()
}

_HELLO_HASH_SIZE = 16
_CODE_SIZE = 2


def hello_hash(transcript: bytes) -> bytes:
    """The name of a HELLO in the answers to it (W-6), from its type, connection IDs and core."""
    return sha256(transcript).digest()[:_HELLO_HASH_SIZE]


def agree(suite: Suite, hello: bytes, challenge: bytes, ee: bytes, psk: bytes) -> tuple[SymmetricState, AbortKey]:
    """Begin: all that was sent in clear, then the two secrets that make it private (both sides).

    Args:
        suite: the one that CHALLENGE names.
        hello: type, connection IDs and core of HELLO.
        challenge: type, connection IDs and clear part of CHALLENGE.
        ee: what the two ephemeral keys agree on.
        psk: what CPace agrees on; equal on both sides only if the seeds are.
    """
    state = SymmetricState(_PROTOCOL_NAMES[suite.id], suite)
    state.mix_hash(hello)
    state.mix_hash(challenge)
    state.mix_key(ee)
    abort = AbortKey(suite, state.ck, state.h)
    state.mix_key_and_hash(psk)
    return state, abort


# -- CHALLENGE -----------------------------------------------------------------------------------------------------


def seal_challenge(
    state: SymmetricState, kem_key: bytes, static: PrivateKey, initiator_e: bytes, parameters: bytes
) -> tuple[bytes, bytes, bytes]:
    """The sealed parts of CHALLENGE: {KEM key}, {s}, {parameters} (responder)."""
    sealed_kem_key = state.encrypt_and_hash(kem_key)
    sealed_static = state.encrypt_and_hash(static.public_bytes)
    state.mix_key(static.exchange(initiator_e))
    return sealed_kem_key, sealed_static, state.encrypt_and_hash(parameters)


def open_challenge(state: SymmetricState, challenge: Challenge, ephemeral: PrivateKey) -> tuple[bytes, bytes, bytes]:
    """The KEM key, the responder's node id and its parameters (initiator).

    Raises:
        EncryptionError: a part does not open, or `s` is no node id.
    """
    kem_key = state.decrypt_and_hash(challenge.sealed_kem_key)
    static = _node_id(state.decrypt_and_hash(challenge.sealed_static))
    state.mix_key(ephemeral.exchange(static))
    return kem_key, static, state.decrypt_and_hash(challenge.sealed_parameters)


# -- AUTH_PROOF ----------------------------------------------------------------------------------------------------


def seal_proof(
    state: SymmetricState, header: bytes, kem: Kem, kem_key: bytes, static: PrivateKey, responder_e: bytes
) -> AuthProof:
    """AUTH_PROOF, which completes the state (initiator).

    Raises:
        EncryptionError: the responder's KEM key does not parse.
    """
    secret, ciphertext = kem.encapsulate(kem_key)
    state.mix_hash(header)
    sealed_ciphertext = state.encrypt_and_hash(ciphertext)
    state.mix_key(secret)
    sealed_static = state.encrypt_and_hash(static.public_bytes)
    state.mix_key(static.exchange(responder_e))
    return AuthProof(sealed_ciphertext, sealed_static, state.encrypt_and_hash(b""))


def open_proof(
    state: SymmetricState,
    header: bytes,
    proof: AuthProof,
    decapsulate: Callable[[bytes], bytes],
    ephemeral: PrivateKey,
) -> bytes:
    """The initiator's node id, proven; completes the state (responder).

    `decapsulate` is only called for a ciphertext that opened, which takes the seed.

    Raises:
        EncryptionError: a part does not open, or `s` is no node id.
    """
    state.mix_hash(header)
    ciphertext = state.decrypt_and_hash(proof.sealed_kem_ciphertext)
    state.mix_key(decapsulate(ciphertext))
    static = _node_id(state.decrypt_and_hash(proof.sealed_static))
    state.mix_key(ephemeral.exchange(static))
    state.decrypt_and_hash(proof.sealed_empty)
    return static


def _node_id(static: bytes) -> bytes:
    """A public key that may stand as a name: the one canonical spelling of it (I-2)."""
    if not is_canonical(static):
        raise EncryptionError("a node id is not canonical")
    return static


# -- ABORT ---------------------------------------------------------------------------------------------------------


class AbortKey(Secret):
    """What seals ABORT (H-10): taken from the chain after `ee`, so that a wrong seed can still say so.

    Nobody but the two who drew the ephemeral keys has it. The key itself is derived when it is needed, which is seldom.
    """

    __slots__ = ("_ck", "_h", "_suite")

    def __init__(self, suite: Suite, ck: bytes, h: bytes) -> None:
        self._suite, self._ck, self._h = suite, ck, h

    def seal(self, header: bytes, code: int) -> Abort:
        """ABORT's body, bound to its type and connection IDs. May be called once: the nonce is always zero."""
        aead = self._suite.aead(self._key())
        return Abort(aead.encrypt(self._suite.noise_nonce(0), code.to_bytes(_CODE_SIZE), header))

    def open(self, header: bytes, abort: Abort) -> int | None:
        """The code, or `None` when it does not open."""
        aead = self._suite.aead(self._key())
        try:
            return int.from_bytes(aead.decrypt(self._suite.noise_nonce(0), abort.sealed_code, header))
        except InvalidTag:
            return None

    def _key(self) -> bytes:
        return hkdf_expand(self._ck, b"stt1 abort" + self._h, KEY_SIZE)
