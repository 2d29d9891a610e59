"""What each side tells the other about itself in the handshake (docs/protocol.md, section 5)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from attrs import field, frozen

from stt_proto.errors import ArgumentError, HandshakeError, InvalidFrameError
from stt_proto.wire.varint import MAX_VARINT, decode_varint_untrusted, encode_varint

__all__ = ["MAX_PARAMETERS", "Parameters", "decode_parameters_untrusted"]

MAX_PARAMETERS = 1024
"""Bytes of the longest encoding of parameters."""
REMEMBERED = 64
"""Encodings whose value is remembered."""


class _Number(NamedTuple):
    """A parameter whose value is a varint: its id, its name, what it is when absent, and its range."""

    id: int
    name: str
    default: int
    low: int = 0
    high: int = MAX_VARINT


_NUMBERS = (
    _Number(0x01, "max_data", 0),
    _Number(0x02, "max_stream_data", 0),
    _Number(0x03, "max_streams_bidi", 0, 0, 1 << 60),
    _Number(0x04, "max_streams_uni", 0, 0, 1 << 60),
    _Number(0x05, "max_datagram", 0, 0, 65_535),
    _Number(0x06, "max_ack_delay", 25, 0, 16_383),
    _Number(0x07, "max_packet", 1200, 1200, 65_535),
    _Number(0x08, "max_segments", 1, 1, 64),
    _Number(0x09, "idle_timeout", 30_000, 100, 86_400_000),
    _Number(0x0A, "connection_id_limit", 2, 2, 16),
)
_EXTENSION_FRAMES = 0x0B

_BY_ID = {number.id: number for number in _NUMBERS}


def _frame_types(values: Iterable[int]) -> frozenset[int]:
    return frozenset(values)


@frozen
class Parameters:
    """The parameters of one side; what is not given is what an absent parameter means.

    A value outside its range raises `ArgumentError`.

    Attributes:
        max_data: bytes that may be sent on all streams together before credit is given.
        max_stream_data: the same for each stream.
        max_streams_bidi: streams both ways that the peer may open; at most 2^60.
        max_streams_uni: streams one way that the peer may open; at most 2^60.
        max_datagram: bytes of the largest DATAGRAM taken; 0 for none, at most 65,535.
        max_ack_delay: the longest that an acknowledgement is held back, in milliseconds; at most 16,383.
        max_packet: bytes of the largest packet taken, 1,200 to 65,535.
        max_segments: segments of the longest train taken, 1 (no trains) to 64.
        idle_timeout: silence after which the session is given up, in milliseconds; 100 to 86,400,000.
        connection_id_limit: how many live connection IDs of the peer are kept, 2 to 16.
        extension_frames: the frame types understood beyond section 8, each 0 to 255.
    """

    max_data: int = 0
    max_stream_data: int = 0
    max_streams_bidi: int = 0
    max_streams_uni: int = 0
    max_datagram: int = 0
    max_ack_delay: int = 25
    max_packet: int = 1200
    max_segments: int = 1
    idle_timeout: int = 30_000
    connection_id_limit: int = 2
    extension_frames: frozenset[int] = field(default=frozenset(), converter=_frame_types)

    def __attrs_post_init__(self) -> None:
        for number in _NUMBERS:
            value = getattr(self, number.name)
            if not number.low <= value <= number.high:
                raise ArgumentError(
                    f"{number.name} is {value!r}; it must be from {number.low:,} to {number.high:,}",
                    argument=number.name,
                )
        if not all(0 <= kind <= 0xFF for kind in self.extension_frames):
            raise ArgumentError("extension_frames must be from 0 to 255", argument="extension_frames")

    def encode(self) -> bytes:
        """Encode in rising order of ids, without what equals its default; at most 328 bytes."""
        parts: list[bytes] = []
        for number in _NUMBERS:
            value = getattr(self, number.name)
            if value != number.default:
                encoded = encode_varint(value)
                parts += encode_varint(number.id), encode_varint(len(encoded)), encoded
        if self.extension_frames:
            kinds = bytes(sorted(self.extension_frames))
            parts += encode_varint(_EXTENSION_FRAMES), encode_varint(len(kinds)), kinds
        return b"".join(parts)


@lru_cache(maxsize=REMEMBERED)
def decode_parameters_untrusted(data: bytes) -> Parameters:
    """Decode the parameters of the peer; unknown ones are left out (X-1).

    Peers that are configured alike send the same bytes, and share one value.

    Raises:
        HandshakeError: more than 1,024 bytes, one that stands twice, does not parse, or is outside its range.
    """
    if len(data) > MAX_PARAMETERS:
        raise HandshakeError(f"parameters of {len(data)} bytes")
    values: dict[int, bytes] = {}
    try:
        offset = 0
        while offset < len(data):
            parameter, offset = decode_varint_untrusted(data, offset)
            size, offset = decode_varint_untrusted(data, offset)
            end = offset + size
            if end > len(data):
                raise HandshakeError(f"parameter 0x{parameter:x} reaches past the end")
            if parameter in values:
                raise HandshakeError(f"parameter 0x{parameter:x} stands twice")
            values[parameter] = data[offset:end]
            offset = end
        numbers = {number.name: _number(number, values[number.id]) for number in _NUMBERS if number.id in values}
    except InvalidFrameError:
        raise HandshakeError("parameters that do not parse") from None
    return Parameters(**numbers, extension_frames=values.get(_EXTENSION_FRAMES, b""))


def _number(number: _Number, data: bytes) -> int:
    value, end = decode_varint_untrusted(data, 0)
    if end != len(data):
        raise HandshakeError(f"parameter {number.name} has more than one value")
    if not number.low <= value <= number.high:
        raise HandshakeError(f"parameter {number.name} is {value}")
    return value
