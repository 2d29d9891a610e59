"""The first bytes of a datagram: sizes, offsets and bits (docs/protocol.md, sections 3 and 7).

The first byte tells the form. Its two highest bits are never masked, so without a key any datagram can be
told apart by them, and its destination connection ID found. The masking of the others is the packet room's.
"""

from __future__ import annotations

__all__ = [
    "CONNECTION_ID_SIZE",
    "EPOCH_BITS",
    "FIXED_BIT",
    "FORM_BIT",
    "FORM_BITS",
    "FRAGMENT_BIT",
    "HANDSHAKE_DCID",
    "HANDSHAKE_FORM",
    "MASKED_BITS",
    "MAX_PACKET",
    "MAX_SEGMENTS",
    "MAX_TRAIN",
    "MIN_DATAGRAM",
    "PACKET_DCID",
    "PACKET_FORM",
    "PACKET_HEADER",
    "PACKET_NUMBER_OFFSET",
    "PACKET_NUMBER_SIZE",
    "RESERVED_BITS",
    "RESET_TOKEN_SIZE",
    "SEGMENT_INDEX_OFFSET",
    "TAG_SIZE",
    "TRAIN_BIT",
    "TRAIN_HEADER",
]

# -- the first byte ------------------------------------------------------------------------------------------

FORM_BIT = 0x80
"""Set: a handshake datagram; clear: a packet."""
FIXED_BIT = 0x40
"""Always set; a datagram without it is dropped."""
FORM_BITS = FORM_BIT | FIXED_BIT
"""The bits to look at: `first & FORM_BITS` is `HANDSHAKE_FORM`, `PACKET_FORM`, or the datagram is dropped."""
HANDSHAKE_FORM = FORM_BIT | FIXED_BIT
PACKET_FORM = FIXED_BIT

FRAGMENT_BIT = 0x20
"""Of a handshake datagram: it holds a piece of a message."""
TRAIN_BIT = 0x20
"""Of a packet: it is one segment of a train. Never masked."""
MASKED_BITS = 0x1F
"""Of a packet: the bits under header protection (P-4)."""
RESERVED_BITS = 0x1C
"""Of a packet, unmasked: must be zero (P-5)."""
EPOCH_BITS = 0x03
"""Of a packet, unmasked: the key version mod 4."""

# -- the rest of the header ----------------------------------------------------------------------------------

CONNECTION_ID_SIZE = 8
"""Bytes of a connection ID (C-1)."""
PACKET_DCID = slice(1, 9)
"""Where a packet names its destination."""
HANDSHAKE_DCID = slice(9, 17)
"""Where a handshake datagram names its destination."""
PACKET_NUMBER_OFFSET = 9
PACKET_NUMBER_SIZE = 4
"""The low bytes of the packet number that a packet carries."""
PACKET_HEADER = 13
"""Bytes before the ciphertext of a packet in one datagram."""
SEGMENT_INDEX_OFFSET = 13
"""Where a segment of a train has its index; the last index follows."""
TRAIN_HEADER = 15
"""Bytes before the ciphertext in each segment of a train."""

# -- sizes ---------------------------------------------------------------------------------------------------

TAG_SIZE = 16
"""Bytes of the tag at the end of a packet."""
RESET_TOKEN_SIZE = 16
"""Bytes of a stateless reset token (C-5)."""
MIN_DATAGRAM = 1200
"""Bytes that every path carries at once; larger ones wait until the path is known to take them."""
MAX_PACKET = 65_535
"""Bytes of the largest packet, header and tag included (P-1)."""
MAX_TRAIN = 65_507
"""Bytes of the datagrams of a train together (P-1): what one segmented send takes."""
MAX_SEGMENTS = 64
"""Segments of the longest train (P-1)."""
