"""Randomness and key encapsulation from a seed, for tests only: equal streams repeat keys."""

from __future__ import annotations

import random
from collections.abc import Callable

from stt_proto.crypto import hkdf_expand, hkdf_extract
from stt_proto.testing.checks import refusal

PUBLIC_SIZE = 1184
CIPHERTEXT_SIZE = 1088


class SeededEntropy:
    """Stands for `os.urandom`, from a seed.

    Args:
        seed: a whole number, at least 0, or a name.

    Raises:
        ArgumentError: `seed` is neither. `None` would be the randomness of the system, and -1 the same as 1.
    """

    __slots__ = ("_random", "_seed")

    def __init__(self, seed: int | str) -> None:
        if not isinstance(seed, str) and (type(seed) is not int or seed < 0):
            raise refusal("seed", seed, "a name or a whole number, at least 0")
        self._seed = seed
        self._random = random.Random(seed)

    def __call__(self, size: int) -> bytes:
        return self._random.randbytes(size)

    def __repr__(self) -> str:
        return f"SeededEntropy({self._seed!r})"


class DeterministicKey:
    """The private key of a `DeterministicKem`."""

    __slots__ = ("_public",)

    def __init__(self, seed: bytes) -> None:
        self._public = hkdf_expand(hkdf_extract(b"", seed), b"public", PUBLIC_SIZE)

    def public_bytes(self) -> bytes:
        """The public key."""
        return self._public

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """The secret; another one than the sender's when the ciphertext was damaged, as with the real thing."""
        return hkdf_extract(self._public, ciphertext)


class DeterministicKem:
    """A stand-in for ML-KEM-768 with its sizes and none of its security, whose every byte comes from `entropy`.

    The library's encapsulation draws its own randomness; with this in its place a run repeats byte for byte.
    """

    __slots__ = ("_entropy",)

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy

    def private_key(self, seed: bytes) -> DeterministicKey:
        """The key of a seed."""
        return DeterministicKey(seed)

    def public_bytes(self, seed: bytes) -> bytes:
        """The public key of a seed."""
        return DeterministicKey(seed).public_bytes()

    def encapsulate(self, public_bytes: bytes) -> tuple[bytes, bytes]:
        """A secret and the ciphertext that carries it."""
        ciphertext = self._entropy(CIPHERTEXT_SIZE)
        return hkdf_extract(public_bytes, ciphertext), ciphertext

    def decapsulate(self, seed: bytes, ciphertext: bytes) -> bytes:
        """The secret that a ciphertext carries."""
        return DeterministicKey(seed).decapsulate(ciphertext)
