"""The keys of packets: one direction of a session, one key version (docs/protocol.md, H-7)."""

from __future__ import annotations

from stt_proto.crypto import KEY_SIZE, NONCE_SIZE, Secret, Suite, hkdf_expand
from stt_proto.wire.header import EPOCH_BITS

__all__ = ["PacketKeys"]


class PacketKeys(Secret):
    """What seals, or opens, the packets of one direction under one key version.

    The objects are made once and last as long as the keys: making them costs more than using them. Keys rotate, header
    protection does not, so a later version is made from a new traffic secret and keeps the function that masks headers.

    Attributes:
        suite: the cipher suite of the session.
        version: 0 after the handshake, one more with each rotation.
        aead: seals and opens; the library's object.
        iv: 12 bytes as a number; xor the packet number it is the nonce (P-3).
        header_mask: from 16 bytes of ciphertext to the 5 bytes that mask a header (P-4).
    """

    __slots__ = ("aead", "header_mask", "iv", "suite", "version")

    def __init__(self, suite: Suite, traffic_secret: bytes, header_secret: bytes, version: int = 0) -> None:
        self.header_mask = suite.header_mask(header_secret)
        self._derive(suite, traffic_secret, version)

    def _derive(self, suite: Suite, traffic_secret: bytes, version: int) -> None:
        self.suite = suite
        self.version = version
        self.aead = suite.aead(hkdf_expand(traffic_secret, b"stt1 key", KEY_SIZE))
        self.iv = int.from_bytes(hkdf_expand(traffic_secret, b"stt1 iv", NONCE_SIZE), "big")

    def next(self, traffic_secret: bytes) -> PacketKeys:
        """The keys of the next version, with the same header protection (V-8)."""
        keys = PacketKeys.__new__(PacketKeys)
        keys.header_mask = self.header_mask
        keys._derive(self.suite, traffic_secret, self.version + 1)
        return keys

    @property
    def epoch(self) -> int:
        """The key version as far as a packet tells it: mod 4 (P-5)."""
        return self.version & EPOCH_BITS

    def __repr__(self) -> str:
        return f"PacketKeys({self.suite.name}, version={self.version})"
