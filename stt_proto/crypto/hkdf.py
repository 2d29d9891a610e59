"""HKDF (RFC 5869), and the form of it that Noise uses.

Measured for this choice, in microseconds (`cryptography` against `hmac.digest` of the standard library):
Noise's two outputs 3.4 against 4.7, three outputs 3.8 against 6.3, expansion to one block 1.6 against 1.6.
One call into the library does all blocks, so it is used wherever there is more than one; extraction alone is
one HMAC.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Protocol

from attrs import field, frozen
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from stt_proto.errors import ArgumentError

HASH_SIZE = 32
"""Bytes of SHA-256 output: of a pseudo-random key, and of one block of expansion."""

MAX_EXPAND = 255 * HASH_SIZE
"""The most bytes that one expansion gives (RFC 5869, 2.3)."""

_SHA256 = hashes.SHA256()


def hkdf_extract(salt: bytes, ikm: bytes) -> bytes:
    """HKDF-Extract with SHA-256 (RFC 5869, 2.2): 32 bytes. An empty salt stands for 32 zero bytes."""
    return hmac.digest(salt, ikm, "sha256")


def hkdf_expand(prk: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand with SHA-256 (RFC 5869, 2.3).

    Args:
        prk: a uniformly random key; the output of `hkdf_extract`, or Noise's chaining key.
        info: what the output is for. Two uses of one key never share an `info`.
        length: bytes wanted, 1 to 8,160.

    Raises:
        ArgumentError: `length` is out of range.
    """
    _check_length(length)
    return HKDFExpand(_SHA256, length, info).derive(prk)


def hkdf(salt: bytes, ikm: bytes, info: bytes, length: int) -> bytes:
    """HKDF with SHA-256, `hkdf_extract` and then `hkdf_expand`, in one call."""
    _check_length(length)
    return HKDF(_SHA256, length, salt, info).derive(ikm)


def _check_length(length: int) -> None:
    if not 1 <= length <= MAX_EXPAND:
        raise ArgumentError(f"length must be 1 to {MAX_EXPAND} bytes, not {length}", argument="length")


class Digest(Protocol):
    """A finished hash computation."""

    def digest(self) -> bytes:
        """The hash of what was put in."""


@frozen(eq=False)
class NoiseHash:
    """A hash function as the Noise framework uses it (revision 34, section 4.3).

    Attributes:
        name: as it stands in a Noise protocol name.
        size: HASHLEN, bytes of output.
        new: `new(data).digest()` is HASH(data).
    """

    name: str
    size: int
    new: Callable[[bytes], Digest]
    _algorithm: hashes.HashAlgorithm = field(repr=False)

    def hkdf2(self, chaining_key: bytes, ikm: bytes) -> tuple[bytes, bytes]:
        """HKDF(chaining_key, ikm, 2): two outputs of `size` bytes."""
        size = self.size
        okm = HKDF(self._algorithm, size + size, chaining_key, None).derive(ikm)
        return okm[:size], okm[size:]

    def hkdf3(self, chaining_key: bytes, ikm: bytes) -> tuple[bytes, bytes, bytes]:
        """HKDF(chaining_key, ikm, 3): three outputs of `size` bytes."""
        size = self.size
        okm = HKDF(self._algorithm, 3 * size, chaining_key, None).derive(ikm)
        return okm[:size], okm[size : 2 * size], okm[2 * size :]


SHA256 = NoiseHash("SHA256", HASH_SIZE, hashlib.sha256, _SHA256)
"""The hash of everything that goes over the wire here."""

SHA512 = NoiseHash("SHA512", 64, hashlib.sha512, hashes.SHA512())
"""Only for checking the engine against the published vectors of both hashes."""
