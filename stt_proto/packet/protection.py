"""Packet protection: sealing and opening (docs/protocol.md, P-1 to P-4 and P-11).

A packet is sealed once, however many datagrams it fills. Its header is its associated data; then the header itself is
masked with five bytes made from the first ciphertext, so that nobody on the way sees packet numbers count. The two
highest bits of the first byte, the train bit and the connection ID stay in clear: they are needed to find the key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from struct import Struct

from stt_proto.crypto import SAMPLE_SIZE, TAG_SIZE, HeaderMask, InvalidTag, Secret
from stt_proto.errors import ArgumentError, StateError
from stt_proto.packet.keys import PacketKeys
from stt_proto.packet.segments import cut_train
from stt_proto.types import Buffer
from stt_proto.wire.header import (
    FIXED_BIT,
    MASKED_BITS,
    MAX_PACKET,
    MAX_SEGMENTS,
    MAX_TRAIN,
    PACKET_HEADER,
    TRAIN_BIT,
    TRAIN_HEADER,
)

__all__ = [
    "FRUGAL",
    "HEADER",
    "LOW_BITS",
    "MASK",
    "TRAIN_DATA",
    "FirstOpener",
    "LastOpener",
    "Opener",
    "Sealed",
    "Sealer",
    "capacity",
]

HEADER = Struct(">B8sI")
"""Flags, connection ID, the low four bytes of the packet number."""
TRAIN_DATA = Struct(">B8sIB")
"""The associated data of a train: its header without the segment index (P-2)."""
MASK = Struct(">BI")
"""What is laid over the flags and over the packet number."""

LOW_BITS = 0xFFFF_FFFF
"""Of a packet number: those that travel."""

_PACKET_OVERHEAD = PACKET_HEADER + TAG_SIZE

FRUGAL = 4
"""Packets that a direction seals, or opens, with objects made for each, before it keeps some: at first, and after rest.
What a handshake, a ticket and signs of life take is no more than that."""

Cipher = Callable[[Buffer, Buffer, Buffer | None], bytes]
"""Seals or opens under one key: nonce, data, associated data."""

Sealed = tuple[tuple[bytes, ...], int, int]
"""The buffers of the datagrams in order, none crossing a border; how many datagrams; how many bytes in all."""


def capacity(segment_size: int, segments: int) -> int:
    """Bytes of plaintext that fit into a packet of so many datagrams of this size.

    Args:
        segment_size: bytes of a datagram, at least 31.
        segments: 1 to 64. A train holds no more than 65,507 bytes in all, so fewer may be needed in the end.
    """
    if segments == 1:
        return segment_size - _PACKET_OVERHEAD
    return min(segments * segment_size, MAX_TRAIN) - segments * TRAIN_HEADER - TAG_SIZE


class Sealer(Secret):
    """Seals the packets of one direction under one key version. It begins at rest.

    Attributes:
        keys: what it seals with.
        sealed: packets sealed so far.
        limit: how many it may seal (P-11).
        review_at: how many of them there are to be before somebody looks whether the key is to be replaced, or has
            sealed as many as it may; whoever seals asks, at the price of one comparison.
    """

    __slots__ = ("_flags", "_frugal", "_iv", "_last", "_tools", "keys", "limit", "review_at", "sealed")

    _tools: tuple[Cipher, HeaderMask] | None

    def __init__(self, keys: PacketKeys) -> None:
        self.keys = keys
        self.sealed = 0
        self.rest()
        self._iv = keys.iv
        self._flags = FIXED_BIT | keys.epoch
        self.limit = self.review_at = keys.suite.confidentiality_limit
        self._last = -1

    @property
    def exhausted(self) -> bool:
        """Whether the key has sealed as many packets as it may (P-11)."""
        return self.sealed >= self.limit

    def rest(self) -> None:
        """Hold none of the library's objects, some 4 KiB: there was nothing to seal for long.

        The next `FRUGAL` packets do without them, since they may be signs of life and the only ones; one more brings
        them back. Neither costs more than a few microseconds.
        """
        self._frugal = FRUGAL
        self._tools = None

    def _make_tools(self) -> tuple[Cipher, HeaderMask]:
        """What seals and masks the next packet."""
        tools = self.keys.aead.encrypt, self.keys.header_mask
        if self._frugal:
            self._frugal -= 1
        else:
            self._tools = tools
        return tools

    def seal(self, number: int, dcid: bytes, plain_parts: Sequence[Buffer], segment_size: int) -> Sealed:
        """Seal one packet, in one datagram if it fits into one, else as a train.

        Args:
            number: the full packet number, larger than every number sealed before: one nonce used twice gives the
                key away.
            dcid: the connection ID to send to, 8 bytes.
            plain_parts: the frames; joined here.
            segment_size: bytes of a datagram, at most 65,535. Of a train all but the last are this long.

        Returns:
            The buffers in order (a header and its piece of ciphertext for each datagram), the number of datagrams, and
            the bytes in all.

        Raises:
            ArgumentError: the number does not rise, or the packet is larger than 64 datagrams or 65,507 bytes.
            StateError: the key is used up.
        """
        if number <= self._last:
            raise ArgumentError(f"packet number {number} does not follow {self._last}", argument="number")
        if self.sealed >= self.limit:
            raise StateError("the key has sealed as many packets as it may")
        plain = b"".join(plain_parts)
        if len(plain) + _PACKET_OVERHEAD > segment_size or segment_size > MAX_PACKET:
            return self._seal_train(number, dcid, plain, segment_size)
        self._last = number
        self.sealed += 1
        flags, low = self._flags, number & LOW_BITS
        encrypt, mask = self._tools or self._make_tools()
        sealed = encrypt((self._iv ^ number).to_bytes(12, "big"), plain, HEADER.pack(flags, dcid, low))
        flags_mask, low_mask = MASK.unpack(mask(sealed[:SAMPLE_SIZE]))
        header = HEADER.pack(flags ^ (flags_mask & MASKED_BITS), dcid, low ^ low_mask)
        return (header, sealed), 1, PACKET_HEADER + len(sealed)

    def _seal_train(self, number: int, dcid: bytes, plain: bytes, segment_size: int) -> Sealed:
        room = segment_size - TRAIN_HEADER
        size = len(plain) + TAG_SIZE
        segments = -(-size // room) if room >= SAMPLE_SIZE else MAX_SEGMENTS + 1
        total = size + segments * TRAIN_HEADER
        if segments > MAX_SEGMENTS or total > MAX_TRAIN or segment_size > MAX_PACKET:
            raise ArgumentError(f"{size} bytes are too many for datagrams of {segment_size}", argument="plain_parts")
        self._last = number
        self.sealed += 1
        flags, low = self._flags | TRAIN_BIT, number & LOW_BITS
        nonce = (self._iv ^ number).to_bytes(12, "big")
        encrypt, mask = self._tools or self._make_tools()
        sealed = encrypt(nonce, plain, TRAIN_DATA.pack(flags, dcid, low, segments - 1))
        flags_mask, low_mask = MASK.unpack(mask(sealed[:SAMPLE_SIZE]))
        prefix = HEADER.pack(flags ^ (flags_mask & MASKED_BITS), dcid, low ^ low_mask)
        return cut_train(prefix, sealed, room, segments), segments, total


class Opener(Secret):
    """Opens the packets of one direction under one key version. It begins at rest."""

    __slots__ = ("_decrypt", "_iv", "keys")

    _decrypt: Cipher | None

    def __init__(self, keys: PacketKeys) -> None:
        self.keys = keys
        self.rest()
        self._iv = keys.iv

    def wake(self) -> None:
        """Keep what opening takes."""
        self._decrypt = self.keys.aead.decrypt

    def rest(self) -> None:
        """Make it for each packet, until `wake`."""
        self._decrypt = None

    def open_untrusted(self, number: int, sealed: Buffer, associated: bytes) -> bytes | None:
        """Give the plaintext of a packet, or `None` when it does not open. Raises nothing.

        Args:
            number: the full packet number, 0 to 2^62 - 1.
            sealed: all of its ciphertext, the tag at the end.
            associated: its unmasked header (P-2).
        """
        decrypt = self._decrypt or self.keys.aead.decrypt
        try:
            return decrypt((self._iv ^ number).to_bytes(12, "big"), sealed, associated)
        except InvalidTag:
            return None


class LastOpener(Opener):
    """Opens the packets of a version that goes: none that was sealed after the next version began (V-5).

    Attributes:
        end: the smallest number of the next version that has opened.
    """

    __slots__ = ("end",)

    def __init__(self, keys: PacketKeys) -> None:
        super().__init__(keys)
        self.end: float = inf

    def open_untrusted(self, number: int, sealed: Buffer, associated: bytes) -> bytes | None:
        """As `Opener.open_untrusted`; what comes too late does not open."""
        return None if number > self.end else super().open_untrusted(number, sealed, associated)


class FirstOpener(Opener):
    """Opens the packets of a version that begins.

    Args:
        keys: of that version.
        before: what opens those of the version before.
        told: called when the first one has opened.
    """

    __slots__ = ("_before", "_told")

    def __init__(self, keys: PacketKeys, before: LastOpener, told: Callable[[], None]) -> None:
        super().__init__(keys)
        self._before = before
        self._told = told

    def open_untrusted(self, number: int, sealed: Buffer, associated: bytes) -> bytes | None:
        """As `Opener.open_untrusted`."""
        plain = super().open_untrusted(number, sealed, associated)
        before = self._before
        if plain is not None and number < before.end:
            first = before.end == inf
            before.end = number
            if first:
                self._told()
        return plain
