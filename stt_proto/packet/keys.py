"""The keys of packets: one direction of a session, one key version (docs/protocol.md, H-7)."""

from __future__ import annotations

from stt_proto.crypto import AEAD, KEY_SIZE, NONCE_SIZE, HeaderMask, Secret, Suite, hkdf_expand
from stt_proto.wire.header import EPOCH_BITS

__all__ = ["PacketKeys"]


class PacketKeys(Secret):
    """What seals, or opens, the packets of one direction under one key version.

    Keys rotate, header protection does not, so a later version is made from a new traffic secret and the same header
    secret.

    Attributes:
        suite: the cipher suite of the session.
        version: 0 after the handshake, one more with each rotation.
        iv: 12 bytes as a number; xor the packet number it is the nonce (P-3).
    """

    __slots__ = ("_header_key", "_key", "iv", "suite", "version")

    def __init__(self, suite: Suite, traffic_secret: bytes, header_secret: bytes, version: int = 0) -> None:
        self.suite = suite
        self.version = version
        self._header_key = header_secret
        self._key = hkdf_expand(traffic_secret, b"stt1 key", KEY_SIZE)
        self.iv = int.from_bytes(hkdf_expand(traffic_secret, b"stt1 iv", NONCE_SIZE), "big")

    # The library's objects are 2.5 KiB and 1 KiB large and cost about 1 and 3 us to make, more than to use. So who
    # moves packets keeps them, and lets go of them when there are none (`Sealer.rest`).

    @property
    def aead(self) -> AEAD:
        """What seals and opens: a new object each time, to be kept while there are packets."""
        return self.suite.aead(self._key)

    @property
    def header_mask(self) -> HeaderMask:
        """From 16 bytes of ciphertext to the 5 bytes that mask a header (P-4): a new function each time, likewise."""
        return self.suite.header_mask(self._header_key)

    def next(self, traffic_secret: bytes) -> PacketKeys:
        """The keys of the next version, with the same header protection (V-8)."""
        return PacketKeys(self.suite, traffic_secret, self._header_key, self.version + 1)

    @property
    def epoch(self) -> int:
        """The key version as far as a packet tells it: mod 4 (P-5)."""
        return self.version & EPOCH_BITS

    def __repr__(self) -> str:
        return f"PacketKeys({self.suite.name}, version={self.version})"
