"""Variable-length integers (RFC 9000, section 16).

The two highest bits of the first byte tell the length: 1, 2, 4 or 8 bytes hold 6, 14, 30 or 62 bits,
big-endian. What is encoded here is always of the shortest form; longer forms are accepted, as QUIC does.
"""

from __future__ import annotations

from struct import Struct
from struct import error as StructError

from stt_proto.errors import ArgumentError, InvalidFrameError

__all__ = ["MAX_VARINT", "decode_varint_untrusted", "encode_varint", "varint_size"]

MAX_VARINT = (1 << 62) - 1
"""The largest integer that a varint can hold."""

_four_bytes = Struct(">I").unpack_from
_eight_bytes = Struct(">Q").unpack_from
_ONE_BYTE = tuple(bytes((value,)) for value in range(0x40))


def _refuse(value: int) -> ArgumentError:
    return ArgumentError(f"{value} is no varint; it must be from 0 to 2^62 - 1", argument="value")


def encode_varint(value: int) -> bytes:
    """Give the shortest encoding of `value`, 0 to 2^62 - 1; else raise `ArgumentError`."""
    if value < 0x40:
        if value < 0:
            raise _refuse(value)
        return _ONE_BYTE[value]
    if value < 0x4000:
        return (value | 0x4000).to_bytes(2)
    if value < 0x4000_0000:
        return (value | 0x8000_0000).to_bytes(4)
    if value <= MAX_VARINT:
        return (value | 0xC000_0000_0000_0000).to_bytes(8)
    raise _refuse(value)


def varint_size(value: int) -> int:
    """Give the size of the shortest encoding of `value`, 0 to 2^62 - 1; else raise `ArgumentError`."""
    if value < 0x40:
        if value < 0:
            raise _refuse(value)
        return 1
    if value < 0x4000:
        return 2
    if value < 0x4000_0000:
        return 4
    if value <= MAX_VARINT:
        return 8
    raise _refuse(value)


def decode_varint_untrusted(data: bytes, offset: int) -> tuple[int, int]:
    """Read the varint that begins at `offset`, 0 or more; give its value and the offset behind it.

    Raises:
        InvalidFrameError: it reaches past the end of `data`.
    """
    try:
        first = data[offset]
        if first < 0x40:
            return first, offset + 1
        if first < 0x80:
            return (first & 0x3F) << 8 | data[offset + 1], offset + 2
        if first < 0xC0:
            return _four_bytes(data, offset)[0] & 0x3FFF_FFFF, offset + 4
        return _eight_bytes(data, offset)[0] & MAX_VARINT, offset + 8
    except (IndexError, StructError):
        raise InvalidFrameError("a varint reaches past the end") from None
