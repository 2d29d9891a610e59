"""X25519 (RFC 7748), thinly: the library's objects with the two checks that every use here needs.

A result of zero means that the other side sent a point of small order and so fixed the result whatever our
key; it is refused everywhere (RFC 7748, section 6.1). An encoding that is not canonical is harmless in a
handshake, since the transcript holds the bytes that were sent; only where a public key is a *name*, as a node
id is, must there be exactly one spelling of it: `is_canonical`.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from stt_proto.crypto.secret import Secret
from stt_proto.errors import ArgumentError, EncryptionError

X25519_SIZE = 32
"""Bytes of a private key, of a public key and of what they agree on."""

FIELD_PRIME = 2**255 - 19
"""The prime of the field that public keys live in."""

_load_private = X25519PrivateKey.from_private_bytes
_load_public = X25519PublicKey.from_public_bytes


def scalar_mult(key: X25519PrivateKey, point: bytes) -> bytes:
    """Multiply a point by a scalar that the library already holds.

    Raises:
        EncryptionError: `point` is not 32 bytes, or the result is zero.
    """
    try:
        return key.exchange(_load_public(point))
    except ValueError:
        raise EncryptionError("an X25519 public key is malformed or of small order") from None


def load_scalar(private_bytes: bytes) -> X25519PrivateKey:
    """Make the library's object from 32 random bytes, which it clamps.

    This computes the public key too, whether it is wanted or not: it costs as much as a multiplication, so
    keep what it gives.

    Raises:
        ArgumentError: not 32 bytes; `argument` is `private_bytes`.
    """
    if len(private_bytes) != X25519_SIZE:
        raise ArgumentError(f"a private key has 32 bytes, not {len(private_bytes)}", argument="private_bytes")
    return _load_private(private_bytes)


class PrivateKey(Secret):
    """A private key together with its public key, which is derived once.

    Attributes:
        public_bytes: the public key, 32 bytes, canonical.
    """

    __slots__ = ("_key", "public_bytes")

    def __init__(self, private_bytes: bytes) -> None:
        """Take 32 random bytes.

        Raises:
            ArgumentError: not 32 bytes; `argument` is `private_bytes`.
        """
        self._key = load_scalar(private_bytes)
        self.public_bytes = self._key.public_key().public_bytes_raw()

    def exchange(self, peer_public: bytes) -> bytes:
        """Agree on 32 bytes with the holder of `peer_public`'s private key.

        Raises:
            EncryptionError: `peer_public` is not 32 bytes, or the result is zero.
        """
        return scalar_mult(self._key, peer_public)

    def __repr__(self) -> str:
        return f"<PrivateKey of {self.public_bytes.hex()}>"


def exchange(private: PrivateKey, public_bytes: bytes) -> bytes:
    """`private.exchange(public_bytes)`, as a function."""
    return private.exchange(public_bytes)


def public_key(private_bytes: bytes) -> bytes:
    """The public key of 32 private bytes."""
    return PrivateKey(private_bytes).public_bytes


def is_canonical(public_bytes: bytes) -> bool:
    """Whether this is the canonical encoding of a field element: 32 bytes, bit 255 clear, below the prime."""
    return len(public_bytes) == X25519_SIZE and int.from_bytes(public_bytes, "little") < FIELD_PRIME
