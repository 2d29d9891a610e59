"""The key encapsulation that covers a session against a later quantum computer: ML-KEM-768 (FIPS 203).

Keys are kept as their 64-byte seed (FIPS 203's d and z): that is all a responder holds for a handshake that
is half open, where the expanded key would take kilobytes that an attacker could make it spend. Expanding
costs 76 us and is paid once to publish the key and once to open the answer.

Encapsulation draws its randomness inside the library, which gives no other way; it is the one draw that does
not come from the endpoint's `entropy`. Tests that must be repeatable hand the endpoint another `Kem`.
"""

from __future__ import annotations

from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey

from stt_proto.crypto.secret import Secret
from stt_proto.errors import ArgumentError, EncryptionError

KEM_SEED_SIZE = 64
"""Bytes of the seed that stands for a private key."""

KEM_PUBLIC_SIZE = 1184
"""Bytes of a public key."""

KEM_CIPHERTEXT_SIZE = 1088
"""Bytes of a ciphertext."""

KEM_SECRET_SIZE = 32
"""Bytes of the shared secret."""


class KemPrivateKey(Protocol):
    """A private key, expanded for use."""

    def public_bytes(self) -> bytes:
        """The public key, 1,184 bytes."""

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """The shared secret, 32 bytes. Raises `EncryptionError` when the length is wrong.

        A ciphertext of the right length always gives a secret, and one that was damaged gives another one
        than the sender has (implicit rejection): what is sealed next does not open.
        """


class Kem(Protocol):
    """A key encapsulation mechanism of ML-KEM-768's sizes; what `Endpoint(..., kem=)` takes."""

    def private_key(self, seed: bytes) -> KemPrivateKey:
        """The private key of a 64-byte seed. Raises `ArgumentError` for another length."""

    def public_bytes(self, seed: bytes) -> bytes:
        """The public key of a 64-byte seed: `private_key(seed).public_bytes()`."""

    def encapsulate(self, public_bytes: bytes) -> tuple[bytes, bytes]:
        """Make a shared secret for the holder of a public key: (secret, ciphertext), 32 and 1,088 bytes.

        Raises `EncryptionError` when the key does not parse.
        """

    def decapsulate(self, seed: bytes, ciphertext: bytes) -> bytes:
        """`private_key(seed).decapsulate(ciphertext)`."""


class MLKEM768Key(Secret):
    """An expanded ML-KEM-768 private key."""

    __slots__ = ("_key",)

    def __init__(self, seed: bytes) -> None:
        if len(seed) != KEM_SEED_SIZE:
            raise ArgumentError(f"an ML-KEM seed has {KEM_SEED_SIZE} bytes, not {len(seed)}", argument="seed")
        self._key = MLKEM768PrivateKey.from_seed_bytes(seed)

    def public_bytes(self) -> bytes:
        """The public key, 1,184 bytes."""
        return self._key.public_key().public_bytes_raw()

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """The shared secret, 32 bytes. Raises `EncryptionError` when the length is wrong."""
        try:
            return self._key.decapsulate(ciphertext)
        except ValueError:
            raise EncryptionError("a KEM ciphertext does not parse") from None


class MLKEM768:
    """ML-KEM-768 of FIPS 203; a `Kem`. Holds nothing."""

    __slots__ = ()

    def private_key(self, seed: bytes) -> MLKEM768Key:
        """The private key of a 64-byte seed. Raises `ArgumentError` for another length."""
        return MLKEM768Key(seed)

    def public_bytes(self, seed: bytes) -> bytes:
        """The public key, 1,184 bytes, of a 64-byte seed."""
        return MLKEM768Key(seed).public_bytes()

    def encapsulate(self, public_bytes: bytes) -> tuple[bytes, bytes]:
        """Make a shared secret and the ciphertext that carries it: 32 and 1,088 bytes.

        Raises:
            EncryptionError: the key does not parse: wrong length, or a coefficient not below the modulus.
        """
        try:
            return MLKEM768PublicKey.from_public_bytes(public_bytes).encapsulate()
        except ValueError:
            raise EncryptionError("a KEM public key does not parse") from None

    def decapsulate(self, seed: bytes, ciphertext: bytes) -> bytes:
        """The shared secret, 32 bytes, that `ciphertext` carries to the holder of `seed`.

        Raises:
            EncryptionError: the ciphertext does not have 1,088 bytes.
        """
        return MLKEM768Key(seed).decapsulate(ciphertext)
