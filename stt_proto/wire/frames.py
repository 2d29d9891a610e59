"""The vocabulary of frames (docs/protocol.md, section 8): one class a frame, each able to encode itself.

Frames are made and dropped for each packet, so they are named tuples: making one costs a third of what a
frozen attrs class does. `encode` gives a frame that ends by itself, so that frames can be joined in any
order; a value outside its range raises `ArgumentError`. `stt_proto.wire.decode` is the way back.

What a sender writes with every packet needs no object: `stream_header`, `datagram_header` and `encode_ack`
give the bytes from plain values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from struct import Struct
from typing import NamedTuple, TypeAlias

from stt_proto.errors import ArgumentError
from stt_proto.types import CloseReason
from stt_proto.wire.extensions import AckFrequency, Expired, Extension, Move, Priority, Rotate, Ticket
from stt_proto.wire.varint import MAX_VARINT, encode_varint, varint_size

__all__ = [
    "MAX_ACK_RANGES",
    "MAX_DETAIL",
    "MAX_PURPOSE",
    "MAX_STREAM_COUNT",
    "NON_ELICITING",
    "Ack",
    "Confirm",
    "DataBlocked",
    "Datagram",
    "Frame",
    "FrameType",
    "KeepAlive",
    "KeepAliveAck",
    "MaxData",
    "MaxStreamData",
    "MaxStreams",
    "NewConnectionId",
    "Padding",
    "PathChallenge",
    "PathResponse",
    "Ping",
    "ResetStream",
    "RetireConnectionId",
    "SessionClose",
    "StopSending",
    "Stream",
    "StreamDataBlocked",
    "StreamOpen",
    "StreamsBlocked",
    "datagram_header",
    "encode_ack",
    "is_ack_eliciting",
    "stream_header",
    "stream_header_size",
]

MAX_ACK_RANGES = 64
"""Ranges in the longest ACK that is accepted (F-3)."""
MAX_DETAIL = 512
"""Bytes of the longest detail of a SESSION_CLOSE."""
MAX_PURPOSE = 255
"""Bytes of the longest purpose of a stream (F-4)."""
MAX_STREAM_COUNT = 1 << 60
"""The highest limit of streams: there are no more stream ids of one kind."""


class FrameType(IntEnum):
    """The first byte of each frame. STREAM is eight types: the bits of `STREAM_BITS` may be added.

    Types from 0x80 on are the application's.
    """

    PADDING = 0x00
    PING = 0x01
    ACK = 0x02
    ACK_ECN = 0x03
    RESET_STREAM = 0x04
    STOP_SENDING = 0x05
    KEEP_ALIVE = 0x06
    KEEP_ALIVE_ACK = 0x07
    STREAM = 0x08
    MAX_DATA = 0x10
    MAX_STREAM_DATA = 0x11
    MAX_STREAMS_BIDI = 0x12
    MAX_STREAMS_UNI = 0x13
    DATA_BLOCKED = 0x14
    STREAM_DATA_BLOCKED = 0x15
    STREAMS_BLOCKED_BIDI = 0x16
    STREAMS_BLOCKED_UNI = 0x17
    NEW_CONNECTION_ID = 0x18
    RETIRE_CONNECTION_ID = 0x19
    PATH_CHALLENGE = 0x1A
    PATH_RESPONSE = 0x1B
    SESSION_CLOSE = 0x1C
    CONFIRM = 0x1D
    STREAM_OPEN = 0x1E
    ROTATE = 0x20
    TICKET = 0x21
    MOVE = 0x22
    PRIORITY = 0x24
    EXPIRED = 0x25
    ACK_FREQUENCY = 0x26
    DATAGRAM = 0x30
    DATAGRAM_LENGTH = 0x31


STREAM_FIN = 0x01
STREAM_LENGTH = 0x02
STREAM_OFFSET = 0x04
STREAM_BITS = STREAM_FIN | STREAM_LENGTH | STREAM_OFFSET

CLOSE_REASONS = (CloseReason.GRACEFUL, CloseReason.TIMEOUT, CloseReason.ERROR, CloseReason.AUTH_FAILURE)
"""The reason of a SESSION_CLOSE is an index of these."""

_TYPE = tuple(bytes((number,)) for number in range(256))
_SHORT_STREAM = Struct(">BBI").pack
_LONG_STREAM = Struct(">BBQ").pack


def _exactly(data: bytes, size: int, argument: str) -> bytes:
    if len(data) != size:
        raise ArgumentError(f"{argument} has {len(data)} bytes; it must have {size}", argument=argument)
    return data


def _stream_count(value: int) -> bytes:
    if value > MAX_STREAM_COUNT:
        raise ArgumentError(f"value is {value}; it must be at most 2^60", argument="value")
    return encode_varint(value)


# -- encoders without objects --------------------------------------------------------------------------------


def stream_header(stream_id: int, offset: int, length: int | None, fin: bool) -> bytes:
    """Give what precedes the data of a STREAM frame; with `length` `None` the data ends with the packet."""
    kind = 0x09 if fin else 0x08
    if length is None:
        if 0 <= stream_id < 0x40:  # a bulk transfer, in one step; this is all there is to a full packet
            if 0x4000 <= offset < 0x4000_0000:
                return _SHORT_STREAM(kind | STREAM_OFFSET, stream_id, offset | 0x8000_0000)
            if 0x4000_0000 <= offset <= MAX_VARINT:
                return _LONG_STREAM(kind | STREAM_OFFSET, stream_id, offset | 0xC000_0000_0000_0000)
        if offset:
            return _TYPE[kind | STREAM_OFFSET] + encode_varint(stream_id) + encode_varint(offset)
        return _TYPE[kind] + encode_varint(stream_id)
    kind |= STREAM_LENGTH
    if offset:
        head = _TYPE[kind | STREAM_OFFSET] + encode_varint(stream_id) + encode_varint(offset)
    else:
        head = _TYPE[kind] + encode_varint(stream_id)
    return head + encode_varint(length)


def stream_header_size(stream_id: int, offset: int, length: int | None) -> int:
    """Give the size of `stream_header`; an upper bound of `length` gives an upper bound of the size."""
    size = 1 + varint_size(stream_id)
    if offset:
        size += varint_size(offset)
    return size if length is None else size + varint_size(length)


def datagram_header(length: int | None) -> bytes:
    """Give what precedes the data of a DATAGRAM frame; with `None` the data ends with the packet."""
    return b"\x30" if length is None else b"\x31" + encode_varint(length)


def encode_ack(
    largest: int,
    delay: int,
    failed_trains: int,
    ranges: Sequence[tuple[int, int]],
    ecn: tuple[int, int, int] | None = None,
) -> bytes:
    """Encode an ACK, or an ACK_ECN when there are counts.

    Args:
        largest: the highest number acknowledged; the upper end of the first range.
        delay: since `largest` arrived, in units of 8 microseconds.
        failed_trains: how many trains did not open, or were pushed out by others (P-10).
        ranges: 1 to 64 pairs `(lowest, highest)`, both included, the newest first, never touching.
        ecn: the counts ect0, ect1 and ce.
    """
    if not 0 < len(ranges) <= MAX_ACK_RANGES:
        raise ArgumentError(f"{len(ranges)} ranges; there must be 1 to {MAX_ACK_RANGES}", argument="ranges")
    lowest = ranges[0][0]
    span = largest - lowest
    parts = [
        b"\x02" if ecn is None else b"\x03",
        encode_varint(largest),
        encode_varint(delay),
        b"\x00" if failed_trains == 0 else encode_varint(failed_trains),
        _TYPE[len(ranges) - 1],  # below 64, a varint of one byte
        _TYPE[span] if 0 <= span < 0x40 else encode_varint(span),
    ]
    for low, high in ranges[1:]:
        parts += encode_varint(lowest - high - 2), encode_varint(high - low)
        lowest = low
    if ecn is not None:
        parts += map(encode_varint, ecn)
    return b"".join(parts)


# -- nothing, and signs of life ------------------------------------------------------------------------------


class Padding(NamedTuple):
    """A run of PADDING: `length` bytes, 1 or more, that mean nothing."""

    length: int

    def encode(self) -> bytes:
        if self.length < 1:
            raise ArgumentError(f"length is {self.length}; it must be at least 1", argument="length")
        return bytes(self.length)


class Ping(NamedTuple):
    """Asks for an acknowledgement and nothing else."""

    def encode(self) -> bytes:
        return b"\x01"


class KeepAlive(NamedTuple):
    """Asks for a KEEP_ALIVE_ACK with the same 8 bytes (K-4)."""

    token: bytes

    def encode(self) -> bytes:
        return b"\x06" + _exactly(self.token, 8, "token")


class KeepAliveAck(NamedTuple):
    """Answers a KEEP_ALIVE with its 8 bytes."""

    token: bytes

    def encode(self) -> bytes:
        return b"\x07" + _exactly(self.token, 8, "token")


class Confirm(NamedTuple):
    """The responder is established (H-31)."""

    def encode(self) -> bytes:
        return b"\x1d"


# -- acknowledgement -----------------------------------------------------------------------------------------


class Ack(NamedTuple):
    """What has arrived.

    Attributes:
        largest: the highest number acknowledged; the upper end of the first range.
        delay: from its arrival to this frame, in units of 8 microseconds.
        failed_trains: how many trains did not open, or were pushed out by others.
        ranges: 1 to 64 pairs `(lowest, highest)`, both included, the newest first; between two of them at
            least one number is missing.
        ecn: the counts of packets marked ect0, ect1 and ce, or `None`.
    """

    largest: int
    delay: int
    failed_trains: int
    ranges: tuple[tuple[int, int], ...]
    ecn: tuple[int, int, int] | None = None

    def encode(self) -> bytes:
        return encode_ack(self.largest, self.delay, self.failed_trains, self.ranges, self.ecn)


# -- streams -------------------------------------------------------------------------------------------------


class Stream(NamedTuple):
    """Bytes of a stream.

    Attributes:
        stream_id: which stream.
        offset: where in the stream the data begins; offset and length together are at most 2^62 - 1.
        data: immutable; a view into the packet when it is large (see `decode_frames_untrusted`).
        fin: the stream ends behind the data.
    """

    stream_id: int
    offset: int
    data: bytes | memoryview
    fin: bool = False

    def encode(self) -> bytes:
        header = stream_header(self.stream_id, self.offset, len(self.data), self.fin)
        return b"".join((header, self.data))


class StreamOpen(NamedTuple):
    """Tells what a stream is for: text of at most 255 bytes in UTF-8 (S-4)."""

    stream_id: int
    purpose: str

    def encode(self) -> bytes:
        try:
            purpose = self.purpose.encode()
        except UnicodeEncodeError:
            raise ArgumentError("purpose cannot be written in UTF-8", argument="purpose") from None
        if len(purpose) > MAX_PURPOSE:
            raise ArgumentError(
                f"purpose has {len(purpose)} bytes; it must have at most {MAX_PURPOSE}", argument="purpose"
            )
        return b"\x1e" + encode_varint(self.stream_id) + _TYPE[len(purpose)] + purpose


class ResetStream(NamedTuple):
    """The sender gives the stream up: it ends at `final_size`, and `code` is the application's (S-9)."""

    stream_id: int
    code: int
    final_size: int

    def encode(self) -> bytes:
        return b"\x04" + b"".join(map(encode_varint, self))


class StopSending(NamedTuple):
    """The receiver wants no more of the stream and asks for a RESET_STREAM with `code` (S-9)."""

    stream_id: int
    code: int

    def encode(self) -> bytes:
        return b"\x05" + encode_varint(self.stream_id) + encode_varint(self.code)


# -- credit --------------------------------------------------------------------------------------------------


class MaxData(NamedTuple):
    """The sum of all streams' bytes may reach `value` (S-6)."""

    value: int

    def encode(self) -> bytes:
        return b"\x10" + encode_varint(self.value)


class MaxStreamData(NamedTuple):
    """The bytes of one stream may reach `value` (S-6)."""

    stream_id: int
    value: int

    def encode(self) -> bytes:
        return b"\x11" + encode_varint(self.stream_id) + encode_varint(self.value)


class MaxStreams(NamedTuple):
    """The index of a stream of this kind must stay below `value`, at most 2^60 (S-2)."""

    bidirectional: bool
    value: int

    def encode(self) -> bytes:
        return (b"\x12" if self.bidirectional else b"\x13") + _stream_count(self.value)


class DataBlocked(NamedTuple):
    """The sender has more, but the session's credit ends at `limit` (S-12)."""

    limit: int

    def encode(self) -> bytes:
        return b"\x14" + encode_varint(self.limit)


class StreamDataBlocked(NamedTuple):
    """The sender has more, but the stream's credit ends at `limit` (S-12)."""

    stream_id: int
    limit: int

    def encode(self) -> bytes:
        return b"\x15" + encode_varint(self.stream_id) + encode_varint(self.limit)


class StreamsBlocked(NamedTuple):
    """The sender would open another stream of this kind, but may not beyond `limit` (S-12)."""

    bidirectional: bool
    limit: int

    def encode(self) -> bytes:
        return (b"\x16" if self.bidirectional else b"\x17") + encode_varint(self.limit)


# -- connection IDs and paths --------------------------------------------------------------------------------


class NewConnectionId(NamedTuple):
    """Another connection ID to reach the sender by (C-2).

    Attributes:
        number: its sequence number.
        retire_prior_to: IDs with smaller numbers are to be retired; at most `number`.
        connection_id: 8 bytes.
        token: its reset token, 16 bytes; secret, so it is no part of the repr.
    """

    number: int
    retire_prior_to: int
    connection_id: bytes
    token: bytes

    def __repr__(self) -> str:
        return (
            f"NewConnectionId(number={self.number}, retire_prior_to={self.retire_prior_to}, "
            f"connection_id={self.connection_id!r})"
        )

    def encode(self) -> bytes:
        if self.retire_prior_to > self.number:
            raise ArgumentError("retire_prior_to is above number", argument="retire_prior_to")
        return b"".join(
            (
                b"\x18",
                encode_varint(self.number),
                encode_varint(self.retire_prior_to),
                _exactly(self.connection_id, 8, "connection_id"),
                _exactly(self.token, 16, "token"),
            )
        )


class RetireConnectionId(NamedTuple):
    """The ID with this number will not be used again (C-4)."""

    number: int

    def encode(self) -> bytes:
        return b"\x19" + encode_varint(self.number)


class PathChallenge(NamedTuple):
    """Asks whoever is at the end of a path to repeat 8 bytes."""

    data: bytes

    def encode(self) -> bytes:
        return b"\x1a" + _exactly(self.data, 8, "data")


class PathResponse(NamedTuple):
    """Repeats the 8 bytes of a PATH_CHALLENGE."""

    data: bytes

    def encode(self) -> bytes:
        return b"\x1b" + _exactly(self.data, 8, "data")


# -- the end, and datagrams ----------------------------------------------------------------------------------


class SessionClose(NamedTuple):
    """The session ends (K-1).

    Attributes:
        code: of docs/protocol.md section 12.
        reason: in one word.
        detail: a sentence for a person. What is longer than 512 bytes in UTF-8 is cut at the border of a
            character, since it must never keep a session from being closed.
    """

    code: int
    reason: CloseReason
    detail: str = ""

    def encode(self) -> bytes:
        detail = self.detail.encode("utf-8", "replace")
        if len(detail) > MAX_DETAIL:
            detail = detail[:MAX_DETAIL].decode("utf-8", "ignore").encode()
        reason = _TYPE[CLOSE_REASONS.index(self.reason)]
        return b"\x1c" + encode_varint(self.code) + reason + encode_varint(len(detail)) + detail


class Datagram(NamedTuple):
    """An unreliable datagram."""

    data: bytes

    def encode(self) -> bytes:
        return datagram_header(len(self.data)) + self.data


Frame: TypeAlias = (
    Padding
    | Ping
    | Ack
    | ResetStream
    | StopSending
    | KeepAlive
    | KeepAliveAck
    | Stream
    | MaxData
    | MaxStreamData
    | MaxStreams
    | DataBlocked
    | StreamDataBlocked
    | StreamsBlocked
    | NewConnectionId
    | RetireConnectionId
    | PathChallenge
    | PathResponse
    | SessionClose
    | Confirm
    | StreamOpen
    | Datagram
    | Priority
    | Expired
    | AckFrequency
    | Rotate
    | Ticket
    | Move
    | Extension
)
"""Any frame. `type(frame)` is what to dispatch on."""

NON_ELICITING: frozenset[type] = frozenset({Padding, Ack, KeepAliveAck})
"""The frames that ask for no acknowledgement (R-1)."""


def is_ack_eliciting(frames: Iterable[Frame]) -> bool:
    """Tell whether a packet with these frames is to be acknowledged."""
    return not NON_ELICITING.issuperset(map(type, frames))
