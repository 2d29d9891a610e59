"""The Noise Protocol Framework (revision 34): its objects, and nine of its patterns.

**A handshake is a walk over one hash and one key.** `SymmetricState` holds both. The transcript hash `h`
takes in every byte that the two sides see, in order, sealed or not; every seal is bound to it, so two sides
that saw anything different can no longer open what the other sends. The chaining key `ck` takes in every
secret that the two sides agree on: a Diffie-Hellman result, a pre-shared key, the secret of a KEM. Each one
mixed in gives a new sealing key that needs *all* so far; so it does no harm that one of them is weak, and
what is sealed is secured by everything mixed in before it.

**Order is the design.** Whatever is sealed under a key is proven by the next thing that opens: who opens a
seal made after `es` knows that the peer holds the static key, who opens one made after a pre-shared key knows
that the peer holds that. An identity sealed after the pre-shared key is shown to those only who have it.
Patterns write this order down in tokens: `e` and `s` send a key, `ee`, `es`, `se`, `ss` mix in an exchange
(first letter the initiator's key, second the responder's), `psk` mixes in the pre-shared key.

The full handshake of this project is no pattern of the framework, since it carries CPace and a KEM; it drives
a `SymmetricState` itself, token by token. Resumption is the pattern KKpsk0, run by `HandshakeState`, which
exists also to check the one engine against published vectors.

**A message that does not open changes nothing.** Opening fails before anything is mixed in; and `copy` gives
a checkpoint, from which several candidates for one message can be tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from attrs import frozen

from stt_proto.crypto.hkdf import SHA256, NoiseHash
from stt_proto.crypto.secret import Secret
from stt_proto.crypto.suite import KEY_SIZE, TAG_SIZE, InvalidTag, Suite
from stt_proto.crypto.x25519 import X25519_SIZE, PrivateKey
from stt_proto.errors import ArgumentError, EncryptionError, StateError

MAX_MESSAGE = 65535
"""Bytes of the largest Noise message."""

PSK_SIZE = 32
"""Bytes of a pre-shared key."""

_LAST_NONCE = 2**64 - 2


class CipherState(Secret):
    """A key and the count of what was sealed or opened under it.

    Attributes:
        n: the next nonce, from 0; 2^64 - 1 is never used.
    """

    __slots__ = ("_aead", "_nonce", "n")

    def __init__(self, suite: Suite, key: bytes) -> None:
        self._aead = suite.aead(key)
        self._nonce = suite.noise_nonce
        self.n = 0

    def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
        """Seal under the next nonce. Raises `StateError` when there is none left."""
        n = self.n
        if n > _LAST_NONCE:
            raise StateError("the nonces of this key are used up")
        ciphertext = self._aead.encrypt(self._nonce(n), plaintext, associated_data)
        self.n = n + 1
        return ciphertext

    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        """Open under the next nonce.

        Raises:
            EncryptionError: it does not open, or no nonce is left; the nonce then is not used up.
        """
        n = self.n
        if n > _LAST_NONCE:
            raise EncryptionError("the nonces of this key are used up")
        try:
            plaintext = self._aead.decrypt(self._nonce(n), ciphertext, associated_data)
        except InvalidTag:
            raise EncryptionError("a sealed part of a handshake message does not open") from None
        self.n = n + 1
        return plaintext

    def copy(self) -> CipherState:
        """A checkpoint. Of the original and the copy only one may seal."""
        other = CipherState.__new__(CipherState)
        other._aead, other._nonce, other.n = self._aead, self._nonce, self.n
        return other


class SymmetricState(Secret):
    """The transcript hash, the chaining key, and the key that seals at this point of the handshake.

    Attributes:
        h: the transcript hash.
        ck: the chaining key.
        cipher: what seals now; `None` until the first key was mixed in, and then nothing is sealed.
    """

    __slots__ = ("_hash", "_new_hash", "_suite", "ck", "cipher", "h")

    def __init__(self, protocol_name: bytes, suite: Suite, hash: NoiseHash = SHA256) -> None:
        """Start from the name of the protocol, which both sides must share to the letter."""
        self._suite = suite
        self._hash = hash
        self._new_hash = hash.new
        short = len(protocol_name) <= hash.size
        self.h = protocol_name.ljust(hash.size, b"\0") if short else hash.new(protocol_name).digest()
        self.ck = self.h
        self.cipher: CipherState | None = None

    @property
    def has_key(self) -> bool:
        """Whether what is encrypted now is really sealed."""
        return self.cipher is not None

    def mix_hash(self, data: bytes) -> None:
        """Take bytes into the transcript."""
        self.h = self._new_hash(self.h + data).digest()

    def mix_key(self, secret: bytes) -> None:
        """Take a secret into the chain; what is sealed next needs it."""
        self.ck, key = self._hash.hkdf2(self.ck, secret)
        self.cipher = CipherState(self._suite, key[:KEY_SIZE])

    def mix_key_and_hash(self, secret: bytes) -> None:
        """Take a pre-shared key into the chain, and a trace of it into the transcript."""
        self.ck, trace, key = self._hash.hkdf3(self.ck, secret)
        self.h = self._new_hash(self.h + trace).digest()
        self.cipher = CipherState(self._suite, key[:KEY_SIZE])

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        """Seal, bound to the transcript so far, and take the ciphertext into the transcript."""
        cipher = self.cipher
        ciphertext = plaintext if cipher is None else cipher.encrypt(plaintext, self.h)
        self.h = self._new_hash(self.h + ciphertext).digest()
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        """Open what the peer sealed at this point of the same transcript.

        Raises:
            EncryptionError: it does not open; nothing has changed.
        """
        cipher = self.cipher
        plaintext = ciphertext if cipher is None else cipher.decrypt(ciphertext, self.h)
        self.h = self._new_hash(self.h + ciphertext).digest()
        return plaintext

    def split(self) -> tuple[CipherState, CipherState]:
        """The keys after the handshake: for what the initiator sends, and for what the responder sends."""
        first, second = self._hash.hkdf2(self.ck, b"")
        return CipherState(self._suite, first[:KEY_SIZE]), CipherState(self._suite, second[:KEY_SIZE])

    def copy(self) -> SymmetricState:
        """A checkpoint, to try a message on. Of the original and the copy only one may seal."""
        other = SymmetricState.__new__(SymmetricState)
        other._suite, other._hash, other._new_hash = self._suite, self._hash, self._new_hash
        other.h, other.ck = self.h, self.ck
        other.cipher = self.cipher and self.cipher.copy()
        return other


@frozen(eq=False)
class HandshakePattern:
    """The order of one handshake.

    Attributes:
        name: as it stands in a Noise protocol name.
        messages: the tokens of each message; the initiator sends the first, and they take turns.
        initiator_known: the responder knows the initiator's static key beforehand.
        responder_known: the initiator knows the responder's static key beforehand.
    """

    name: str
    messages: tuple[tuple[str, ...], ...]
    initiator_known: bool = False
    responder_known: bool = False

    @property
    def needs_psk(self) -> bool:
        """Whether a pre-shared key is mixed in."""
        return any("psk" in tokens for tokens in self.messages)

    def needs_static(self, initiator: bool) -> bool:
        """Whether this side must have a static key."""
        known = self.initiator_known if initiator else self.responder_known
        return known or any("s" in tokens for tokens in self.messages[0 if initiator else 1 :: 2])


_NN1, _NN2 = ("e",), ("e", "ee")
_KK1, _KK2 = ("e", "es", "ss"), ("e", "ee", "se")
_IK1, _IK2 = ("e", "es", "s", "ss"), ("e", "ee", "se")
_XX1, _XX2, _XX3 = ("e",), ("e", "ee", "s", "es"), ("s", "se")
_PSK = ("psk",)

PATTERNS: Mapping[str, HandshakePattern] = MappingProxyType(
    {
        pattern.name: pattern
        for pattern in (
            HandshakePattern("NNpsk0", (_PSK + _NN1, _NN2)),
            HandshakePattern("NNpsk2", (_NN1, _NN2 + _PSK)),
            HandshakePattern("KK", (_KK1, _KK2), initiator_known=True, responder_known=True),
            HandshakePattern("KKpsk0", (_PSK + _KK1, _KK2), initiator_known=True, responder_known=True),
            HandshakePattern("KKpsk2", (_KK1, _KK2 + _PSK), initiator_known=True, responder_known=True),
            HandshakePattern("IK", (_IK1, _IK2), responder_known=True),
            HandshakePattern("IKpsk2", (_IK1, _IK2 + _PSK), responder_known=True),
            HandshakePattern("XX", (_XX1, _XX2, _XX3)),
            HandshakePattern("XXpsk3", (_XX1, _XX2, _XX3 + _PSK)),
        )
    }
)
"""The patterns by name."""


class HandshakeState(Secret):
    """One side of a handshake by one of the `PATTERNS`.

    Neither writing nor reading changes anything when it fails.

    Attributes:
        pattern: which one.
        initiator: whether this side sends the first message.
        symmetric: hash and keys; `symmetric.h` is the handshake hash once `finished`.
    """

    __slots__ = ("_done", "_local", "_psk", "_remote", "initiator", "pattern", "symmetric")

    def __init__(
        self,
        pattern: HandshakePattern,
        suite: Suite,
        *,
        initiator: bool,
        prologue: bytes = b"",
        static: PrivateKey | None = None,
        remote_static: bytes | None = None,
        psk: bytes | None = None,
        hash: NoiseHash = SHA256,
    ) -> None:
        """Begin.

        Args:
            pattern: one of `PATTERNS`.
            suite: the AEAD to seal with.
            initiator: whether this side sends the first message.
            prologue: what both sides already agree on; a difference makes the handshake fail.
            static: our static key, where the pattern has one.
            remote_static: the peer's, where the pattern knows it beforehand.
            psk: 32 bytes, where the pattern has a pre-shared key.
            hash: SHA-256, except for checking against published vectors.

        Raises:
            ArgumentError: a key that the pattern needs is missing or malformed, or one is given that it does
                not need.
        """
        remote_known = pattern.responder_known if initiator else pattern.initiator_known
        _check("static", static is not None, pattern.needs_static(initiator))
        _check("remote_static", remote_static is not None and len(remote_static) == X25519_SIZE, remote_known)
        _check("psk", psk is not None and len(psk) == PSK_SIZE, pattern.needs_psk)
        self.pattern = pattern
        self.initiator = initiator
        self._local = {} if static is None else {"s": static}
        self._remote = {} if remote_static is None else {"s": remote_static}
        self._psk = psk or b""
        self._done = 0
        name = f"Noise_{pattern.name}_25519_{suite.noise_name}_{hash.name}"
        self.symmetric = SymmetricState(name.encode(), suite, hash)
        self.symmetric.mix_hash(prologue)
        ours = static.public_bytes if static is not None else b""
        theirs = remote_static or b""
        if pattern.initiator_known:
            self.symmetric.mix_hash(ours if initiator else theirs)
        if pattern.responder_known:
            self.symmetric.mix_hash(theirs if initiator else ours)

    @property
    def finished(self) -> bool:
        """Whether all messages are through."""
        return self._done == len(self.pattern.messages)

    @property
    def remote_static(self) -> bytes | None:
        """The peer's static key, as soon as it is known; proven once a later message opened."""
        return self._remote.get("s")

    def write_message(self, payload: bytes = b"", ephemeral: PrivateKey | None = None) -> bytes:
        """The next message, with a payload in it.

        Args:
            payload: sealed under what the two sides agree on by then, which in a first message can be
            nothing.
            ephemeral: a fresh key, when this message is the first that we send.

        Raises:
            StateError: it is the peer's turn, or all messages are through.
            ArgumentError: the ephemeral key is missing or not wanted, or the payload makes the message too
            long.
            EncryptionError: a key that the peer sent is of small order.
        """
        tokens = self._turn(ours=True)
        _check("ephemeral", ephemeral is not None, "e" in tokens)
        local = self._local if ephemeral is None else self._local | {"e": ephemeral}
        symmetric = self.symmetric.copy()
        message = b""
        for token in tokens:
            if token == "e":
                public = local["e"].public_bytes
                message += public
                symmetric.mix_hash(public)
                self._mix_ephemeral(symmetric, public)
            elif token == "s":
                message += symmetric.encrypt_and_hash(local["s"].public_bytes)
            else:
                self._mix_secret(symmetric, token, local, self._remote)
        message += symmetric.encrypt_and_hash(payload)
        if len(message) > MAX_MESSAGE:
            raise ArgumentError(f"payload makes a message of {len(message)} bytes", argument="payload")
        self.symmetric, self._local, self._done = symmetric, local, self._done + 1
        return message

    def read_message_untrusted(self, message: bytes) -> bytes:
        """Read the peer's next message and give its payload.

        Raises:
            StateError: it is our turn, or all messages are through.
            EncryptionError: it is too short or too long, holds a key of small order, or does not open.
        """
        tokens = self._turn(ours=False)
        if len(message) > MAX_MESSAGE:
            raise EncryptionError("a handshake message is too long")
        remote = dict(self._remote)
        symmetric = self.symmetric.copy()
        at = 0
        for token in tokens:
            if token in ("e", "s"):
                size = X25519_SIZE + (TAG_SIZE if token == "s" and symmetric.has_key else 0)
                part = message[at : at + size]
                if len(part) < size:
                    raise EncryptionError("a handshake message is too short")
                at += size
                if token == "e":
                    symmetric.mix_hash(part)
                    self._mix_ephemeral(symmetric, part)
                    remote["e"] = part
                else:
                    remote["s"] = symmetric.decrypt_and_hash(part)
            else:
                self._mix_secret(symmetric, token, self._local, remote)
        payload = symmetric.decrypt_and_hash(message[at:])
        self.symmetric, self._remote, self._done = symmetric, remote, self._done + 1
        return payload

    def split(self) -> tuple[CipherState, CipherState]:
        """The keys after the handshake: what we send under, and what we receive under.

        Raises:
            StateError: the handshake is not finished.
        """
        if not self.finished:
            raise StateError("the handshake is not finished")
        first, second = self.symmetric.split()
        return (first, second) if self.initiator else (second, first)

    def _turn(self, *, ours: bool) -> tuple[str, ...]:
        """The tokens of the next message, if it is the turn of the side that asks."""
        if self.finished:
            raise StateError("the handshake is finished")
        if (self._done % 2 == 0) != (self.initiator == ours):
            raise StateError("it is the other side's turn")
        return self.pattern.messages[self._done]

    def _mix_ephemeral(self, symmetric: SymmetricState, public: bytes) -> None:
        """With a pre-shared key, mix ephemeral keys into the chain too, so that no two runs have one key."""
        if self._psk:
            symmetric.mix_key(public)

    def _mix_secret(
        self, symmetric: SymmetricState, token: str, local: dict[str, PrivateKey], remote: dict[str, bytes]
    ) -> None:
        """Carry out `psk`, `ee`, `es`, `se` or `ss`."""
        if token == "psk":
            symmetric.mix_key_and_hash(self._psk)
            return
        mine, theirs = (token[0], token[1]) if self.initiator else (token[1], token[0])
        symmetric.mix_key(local[mine].exchange(remote[theirs]))


def _check(argument: str, given: bool, needed: bool) -> None:
    if given != needed:
        rule = "needed here" if needed else "not used here"
        raise ArgumentError(f"{argument} is {rule}", argument=argument)
