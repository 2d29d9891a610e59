"""The cipher suites: what seals packets, and what masks their headers.

A suite is a value that never changes. What it makes from a key is long-lived: one AEAD object and one mask
function per key, since making them costs more than using them (0.9 us to make an AES-256-GCM object, 0.6 us
to seal 32 bytes).

The limits are those of RFC 9001, 6.6 and appendix B, for packets of at most 64 KiB. Confidentiality: with
2^23 packets of 2^12 AES blocks each under one key, an attacker's advantage against AES-GCM stays below 2^-59;
ChaCha20-Poly1305 has no such limit below the 2^62 packets of a session, but keeps to the same figure, so that
one rule serves both. Integrity: the number of packets that failed to open, over the life of a session, after
which it must close.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

from attrs import field, frozen
from cryptography.exceptions import InvalidTag as InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from stt_proto.types import Buffer

KEY_SIZE = 32
"""Bytes of every key: of the AEAD and of header protection, in both suites."""

NONCE_SIZE = 12
"""Bytes of every AEAD nonce."""

TAG_SIZE = 16
"""Bytes by which sealing lengthens what is sealed."""

SAMPLE_SIZE = 16
"""Bytes of ciphertext from which a header mask is made."""

MASK_SIZE = 5
"""Bytes of a header mask: one for the flags, four for the packet number."""


class AEAD(Protocol):
    """Authenticated encryption under one key (RFC 5116)."""

    def encrypt(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, /) -> bytes:
        """Seal: the ciphertext with its 16-byte tag at the end."""

    def decrypt(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, /) -> bytes:
        """Open. Raises `InvalidTag`, and nothing else, whatever the data."""


HeaderMask = Callable[[Buffer], bytes]
"""From a sample of 16 bytes to a mask of 5."""


@frozen(eq=False)
class Suite:
    """One way to seal packets and mask headers.

    Attributes:
        id: the number on the wire.
        name: for people.
        noise_name: as it stands in a Noise protocol name.
        aead: from a key of 32 bytes to the object that seals and opens under it.
        noise_nonce: from Noise's 64-bit counter to the nonce of 12 bytes (Noise revision 34, section 12).
        header_mask: from a key of 32 bytes to the function that makes masks under it.
        confidentiality_limit: packets that may be sealed under one key.
        integrity_limit: packets that may fail to open over the life of a session.
    """

    id: int
    name: str
    noise_name: str
    aead: Callable[[bytes], AEAD] = field(repr=False)
    noise_nonce: Callable[[int], bytes] = field(repr=False)
    header_mask: Callable[[bytes], HeaderMask] = field(repr=False)
    confidentiality_limit: int
    integrity_limit: int


def _aes_noise_nonce(n: int) -> bytes:
    """Four zero bytes, then the counter, big-endian."""
    return n.to_bytes(NONCE_SIZE, "big")


def _chacha_noise_nonce(n: int) -> bytes:
    """Four zero bytes, then the counter, little-endian."""
    return b"\0\0\0\0" + n.to_bytes(8, "little")


def _aes_header_mask(key: bytes) -> HeaderMask:
    """AES-256 of the sample (RFC 9001, 5.4.3). ECB keeps no state, so one context serves for ever."""
    encrypt = Cipher(algorithms.AES256(key), modes.ECB()).encryptor().update

    def mask(sample: Buffer) -> bytes:
        return encrypt(sample)[:MASK_SIZE]

    return mask


def _chacha_header_mask(key: bytes) -> HeaderMask:
    """ChaCha20 keystream, its block counter and nonce taken from the sample (RFC 9001, 5.4.4).

    The library's 16-byte nonce is that very pair: the counter, 4 bytes little-endian, then the nonce of 12
    bytes. A mask takes 5 bytes of one block, so a counter of 2^32 - 1 does not overflow. Setting a new nonce
    on one context costs 0.6 us, a new context 3.3 us.
    """
    context = Cipher(algorithms.ChaCha20(key, bytes(SAMPLE_SIZE)), None).encryptor()
    reset, encrypt = context.reset_nonce, context.update
    zeros = bytes(MASK_SIZE)

    def mask(sample: Buffer) -> bytes:
        reset(sample)  # type: ignore[arg-type]  # any buffer is taken, the declaration says bytes
        return encrypt(zeros)

    return mask


AES_256_GCM = Suite(
    id=1,
    name="AES-256-GCM",
    noise_name="AESGCM",
    aead=AESGCM,
    noise_nonce=_aes_noise_nonce,
    header_mask=_aes_header_mask,
    confidentiality_limit=2**23,
    integrity_limit=2**52,
)
"""The default: fastest wherever the processor has AES instructions."""

CHACHA20_POLY1305 = Suite(
    id=2,
    name="ChaCha20-Poly1305",
    noise_name="ChaChaPoly",
    aead=ChaCha20Poly1305,
    noise_nonce=_chacha_noise_nonce,
    header_mask=_chacha_header_mask,
    confidentiality_limit=2**23,
    integrity_limit=2**36,
)
"""For machines without AES instructions."""

SUITES: Mapping[int, Suite] = MappingProxyType({1: AES_256_GCM, 2: CHACHA20_POLY1305})
"""Every suite by its number, the preferred one first."""
