"""The cryptography: key derivation, cipher suites, X25519, Noise, CPace and the KEM.

Primitives are the `cryptography` library's; what is written here is what it does not have. Nothing in this
room knows a message of the protocol, and nothing draws randomness but the KEM's encapsulation (see `kem`).
The functions of CPace, which are called by names as general as `share`, stay in their module.
"""

from __future__ import annotations

from stt_proto.crypto.cpace import BLIND_SIZE, SCALAR_SIZE, CPace, channel_identifier
from stt_proto.crypto.hkdf import SHA256, SHA512, NoiseHash, hkdf, hkdf_expand, hkdf_extract
from stt_proto.crypto.kem import (
    KEM_CIPHERTEXT_SIZE,
    KEM_PUBLIC_SIZE,
    KEM_SECRET_SIZE,
    KEM_SEED_SIZE,
    MLKEM768,
    Kem,
    KemPrivateKey,
)
from stt_proto.crypto.noise import PATTERNS, CipherState, HandshakePattern, HandshakeState, SymmetricState
from stt_proto.crypto.secret import Secret
from stt_proto.crypto.suite import (
    AEAD,
    AES_256_GCM,
    CHACHA20_POLY1305,
    KEY_SIZE,
    MASK_SIZE,
    NONCE_SIZE,
    SAMPLE_SIZE,
    SUITES,
    TAG_SIZE,
    HeaderMask,
    InvalidTag,
    Suite,
)
from stt_proto.crypto.x25519 import X25519_SIZE, PrivateKey, exchange, is_canonical, public_key

__all__ = [
    "AEAD",
    "AES_256_GCM",
    "BLIND_SIZE",
    "CHACHA20_POLY1305",
    "CPace",
    "CipherState",
    "HandshakePattern",
    "HandshakeState",
    "HeaderMask",
    "InvalidTag",
    "KEM_CIPHERTEXT_SIZE",
    "KEM_PUBLIC_SIZE",
    "KEM_SECRET_SIZE",
    "KEM_SEED_SIZE",
    "KEY_SIZE",
    "Kem",
    "KemPrivateKey",
    "MASK_SIZE",
    "MLKEM768",
    "NONCE_SIZE",
    "NoiseHash",
    "PATTERNS",
    "PrivateKey",
    "SAMPLE_SIZE",
    "SCALAR_SIZE",
    "SHA256",
    "SHA512",
    "SUITES",
    "Secret",
    "Suite",
    "SymmetricState",
    "TAG_SIZE",
    "X25519_SIZE",
    "channel_identifier",
    "exchange",
    "hkdf",
    "hkdf_expand",
    "hkdf_extract",
    "is_canonical",
    "public_key",
]
