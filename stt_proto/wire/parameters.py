"""What each side tells the other about itself in the handshake (docs/protocol.md, section 5)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from attrs import field, frozen

from stt_proto.errors import ArgumentError, HandshakeError, InvalidFrameError
from stt_proto.wire.header import RESET_TOKEN_SIZE
from stt_proto.wire.varint import MAX_VARINT, decode_varint_untrusted, encode_varint

__all__ = [
    "MAX_EARLY_DATA",
    "MAX_PARAMETERS",
    "Parameters",
    "add_early_data",
    "add_early_data_taken",
    "add_reset_token",
    "decode_parameters_untrusted",
    "take_early_data_untrusted",
    "take_reset_token_untrusted",
]

MAX_PARAMETERS = 1024
"""Bytes of the longest encoding of parameters."""
MAX_EARLY_DATA = 768
"""Bytes of early data that RESUME has room for, in one datagram of 1,200 bytes with everything else."""
REMEMBERED = 64
"""Encodings whose value is remembered."""


class _Number(NamedTuple):
    """A parameter whose value is a varint: its id, its name, what it is when absent, and its range."""

    id: int
    name: str
    default: int
    low: int = 0
    high: int = MAX_VARINT


_EXTENSION_FRAMES = 0x0B
_EARLY_DATA_TAKEN = 0x0D
_EARLY_DATA = 0x0E
_RESET_TOKEN = 0x0F

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
    _Number(0x0C, "max_early_data", 0, 0, MAX_EARLY_DATA),
    _Number(_EARLY_DATA_TAKEN, "early_data_taken", 0, 0, MAX_EARLY_DATA),
)


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
        max_early_data: bytes that a responder takes with a RESUME, at most 768; 0 for none.
        early_data_taken: bytes that it has taken, in RESUMED.
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
    max_early_data: int = 0
    early_data_taken: int = 0

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
        """Encode in rising order of ids, without what equals its default; at most 336 bytes."""
        values: dict[int, bytes] = {}
        for number in _NUMBERS:
            value = getattr(self, number.name)
            if value != number.default:
                values[number.id] = encode_varint(value)
        if self.extension_frames:
            values[_EXTENSION_FRAMES] = bytes(sorted(self.extension_frames))
        return b"".join(_encoded(parameter, values[parameter]) for parameter in sorted(values))


@lru_cache(maxsize=REMEMBERED)
def decode_parameters_untrusted(data: bytes) -> Parameters:
    """Decode the parameters of the peer; unknown ones are left out (X-1).

    Peers that are configured alike send the same bytes, and share one value.

    Raises:
        HandshakeError: more than 1,024 bytes, one that stands twice, does not parse, or is outside its range.
    """
    if len(data) > MAX_PARAMETERS:
        raise HandshakeError(f"parameters of {len(data)} bytes")
    values = _values_untrusted(data)
    try:
        numbers = {number.name: _number(number, values[number.id]) for number in _NUMBERS if number.id in values}
    except InvalidFrameError:
        raise HandshakeError("parameters that do not parse") from None
    return Parameters(**numbers, extension_frames=values.get(_EXTENSION_FRAMES, b""))


def add_early_data(parameters: bytes, data: bytes) -> bytes:
    """Parameters, encoded, with early data behind them; for RESUME only (H-38)."""
    return parameters + _encoded(_EARLY_DATA, data)


def add_early_data_taken(parameters: bytes, size: int) -> bytes:
    """Parameters, encoded, that say how much early data was taken; for RESUMED only (H-39)."""
    return parameters + _encoded(_EARLY_DATA_TAKEN, encode_varint(size))


def take_early_data_untrusted(parameters: bytes) -> tuple[bytes, bytes]:
    """Take early data out of the parameters of a RESUME: these without it, and the data, empty when there is none.

    Raises:
        HandshakeError: the parameters do not parse.
    """
    return _take_untrusted(parameters, _EARLY_DATA)


def add_reset_token(parameters: bytes, token: bytes) -> bytes:
    """Parameters, encoded, with the reset token of the connection ID of a RESUMED behind them (H-42)."""
    return parameters + _encoded(_RESET_TOKEN, token)


def take_reset_token_untrusted(parameters: bytes) -> tuple[bytes, bytes]:
    """Take that token out of the parameters of a RESUMED: these without it, and 16 bytes, or none.

    Raises:
        HandshakeError: the parameters do not parse, or it has another length.
    """
    rest, token = _take_untrusted(parameters, _RESET_TOKEN)
    if len(token) not in (0, RESET_TOKEN_SIZE):
        raise HandshakeError(f"a reset token of {len(token)} bytes")
    return rest, token


def _take_untrusted(parameters: bytes, parameter: int) -> tuple[bytes, bytes]:
    """Take one parameter out that is different each time, so that what is left is a value that others have too."""
    values = _values_untrusted(parameters)
    value = values.pop(parameter, b"")
    if not value:
        return parameters, b""
    return b"".join(_encoded(other, data) for other, data in values.items()), value


def _encoded(parameter: int, value: bytes) -> bytes:
    return encode_varint(parameter) + encode_varint(len(value)) + value


def _values_untrusted(data: bytes) -> dict[int, bytes]:
    """What stands under each id."""
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
    except InvalidFrameError:
        raise HandshakeError("parameters that do not parse") from None
    return values


def _number(number: _Number, data: bytes) -> int:
    value, end = decode_varint_untrusted(data, 0)
    if end != len(data):
        raise HandshakeError(f"parameter {number.name} has more than one value")
    if not number.low <= value <= number.high:
        raise HandshakeError(f"parameter {number.name} is {value}")
    return value
