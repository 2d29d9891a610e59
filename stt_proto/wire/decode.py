"""The plaintext of a packet to its frames (docs/protocol.md, section 8).

One step a frame: its first byte chooses a decoder from a table of 256, the decoder appends a frame and
gives the offset behind it. Every step goes forward and looks at no byte twice, so the work for a packet is
bounded by its size; a run of padding is one frame, found in one search.

Reading a byte past the end is an `IndexError` in here, and an `InvalidFrameError` to the outside. Slices do
not raise; so they are taken by `_slice`, or where their end is known.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

from stt_proto.errors import InvalidFrameError, UnknownFrameError
from stt_proto.tickets import MAX_LIFETIME
from stt_proto.wire.extensions import (
    APPLICATION_FRAMES,
    INCREMENTAL,
    MAX_EXTENSION,
    MAX_TICKET,
    ROTATE_KEY,
    TICKET_NONCE,
    AckFrequency,
    Expired,
    Extension,
    Move,
    Priority,
    Rotate,
    Ticket,
)
from stt_proto.wire.frames import (
    CLOSE_REASONS,
    MAX_ACK_RANGES,
    MAX_DETAIL,
    MAX_STREAM_COUNT,
    STREAM_BITS,
    STREAM_FIN,
    STREAM_LENGTH,
    STREAM_OFFSET,
    Ack,
    Confirm,
    DataBlocked,
    Datagram,
    Frame,
    FrameType,
    KeepAlive,
    KeepAliveAck,
    MaxData,
    MaxStreamData,
    MaxStreams,
    NewConnectionId,
    Padding,
    PathChallenge,
    PathResponse,
    Ping,
    ResetStream,
    RetireConnectionId,
    SessionClose,
    StopSending,
    Stream,
    StreamDataBlocked,
    StreamOpen,
    StreamsBlocked,
)
from stt_proto.wire.varint import MAX_VARINT, decode_varint_untrusted

__all__ = ["VIEW_SIZE", "Decoders", "decode_frames_untrusted", "decoders_for"]

VIEW_SIZE = 8192
"""Bytes from which the data of a STREAM frame is a view into the packet, not a copy (see below)."""

_ACK_ECN = int(FrameType.ACK_ECN)

_Decoder: TypeAlias = Callable[[int, bytes, int, list[Frame]], int]
"""`(type, plain, offset behind the type, frames) -> offset behind the frame`."""

Decoders: TypeAlias = tuple[_Decoder, ...]
"""A decoder for each of the 256 types."""

_read = decode_varint_untrusted
_padding_run = re.compile(rb"\0*").match
# A named tuple's constructor is a Python function; the frames of bulk data go around it, at half the cost.
_new = tuple.__new__


def decode_frames_untrusted(plain: bytes, decoders: Decoders | None = None) -> list[Frame]:
    """Decode the frames of one packet, in order; a run of padding is one `Padding`.

    The data of a `Stream` is a view into `plain` when it has at least `VIEW_SIZE` bytes (below, a view
    costs more than a copy) and a quarter of the packet (a small piece must not keep a large packet alive);
    else it is a copy.

    Args:
        plain: the plaintext of the packet.
        decoders: what `decoders_for` gave for the frames of the application; `None` when it has none.

    Raises:
        InvalidFrameError: there is no frame, or one does not parse, has a field outside its range, or reaches
            past the end (P-12, F-1).
        UnknownFrameError: a type that section 8 does not have (F-1), or that the application has not announced (X-2).
    """
    table = decoders or _DECODERS
    if not plain:
        raise InvalidFrameError("a packet without a frame")
    frames: list[Frame] = []
    offset = 0
    end = len(plain)
    try:
        while offset < end:
            kind = plain[offset]
            offset = table[kind](kind, plain, offset + 1, frames)
    except IndexError:
        raise InvalidFrameError(f"a frame of type 0x{kind:02x} reaches past the end") from None
    return frames


# -- frames with a decoder of their own ----------------------------------------------------------------------


def _stream(kind: int, plain: bytes, offset: int, frames: list[Frame]) -> int:
    stream_id = plain[offset]
    if stream_id < 0x40:
        offset += 1
    else:
        stream_id, offset = _read(plain, offset)
    if kind & STREAM_OFFSET:
        position, offset = _read(plain, offset)
    else:
        position = 0
    end = len(plain)
    if kind & STREAM_LENGTH:
        size, offset = _read(plain, offset)
        if size > end - offset:
            raise InvalidFrameError("a STREAM frame reaches past the end")
    else:
        size = end - offset
    if position + size > MAX_VARINT:
        raise InvalidFrameError("a STREAM frame reaches past the largest offset")
    stop = offset + size
    data: bytes | memoryview
    if size < VIEW_SIZE or size * 4 < end:
        data = plain[offset:stop]
    else:
        data = memoryview(plain)[offset:stop]
    frames.append(_new(Stream, (stream_id, position, data, kind & STREAM_FIN != 0)))
    return stop


def _ack(kind: int, plain: bytes, offset: int, frames: list[Frame]) -> int:
    largest, offset = _read(plain, offset)
    delay, offset = _read(plain, offset)
    failed_trains = plain[offset]  # from here on a value is nearly always below 64: one byte
    if failed_trains < 0x40:
        offset += 1
    else:
        failed_trains, offset = _read(plain, offset)
    count = plain[offset]
    if count < 0x40:
        offset += 1
    else:
        count, offset = _read(plain, offset)
    if count >= MAX_ACK_RANGES:
        raise InvalidFrameError(f"an ACK with {count} ranges behind the first")
    size = plain[offset]
    if size < 0x40:
        offset += 1
    else:
        size, offset = _read(plain, offset)
    low = largest - size
    ranges = [(low, largest)]
    for _ in range(count):
        gap = plain[offset]
        if gap < 0x40:
            offset += 1
        else:
            gap, offset = _read(plain, offset)
        size = plain[offset]
        if size < 0x40:
            offset += 1
        else:
            size, offset = _read(plain, offset)
        high = low - gap - 2
        low = high - size
        ranges.append((low, high))
    if low < 0:
        raise InvalidFrameError("an ACK that reaches below 0")
    ecn = None
    if kind == _ACK_ECN:
        ect0, offset = _read(plain, offset)
        ect1, offset = _read(plain, offset)
        ce, offset = _read(plain, offset)
        ecn = (ect0, ect1, ce)
    frames.append(_new(Ack, (largest, delay, failed_trains, tuple(ranges), ecn)))
    return offset


def _padding(_: int, plain: bytes, offset: int, frames: list[Frame]) -> int:
    run = _padding_run(plain, offset)
    assert run is not None  # an empty run matches too
    end = run.end()
    frames.append(Padding(end - offset + 1))
    return end


def _max_streams(kind: int, plain: bytes, offset: int, frames: list[Frame]) -> int:
    value, offset = _read(plain, offset)
    if value > MAX_STREAM_COUNT:
        raise InvalidFrameError("a limit of more than 2^60 streams")
    frames.append(MaxStreams(kind == FrameType.MAX_STREAMS_BIDI, value))
    return offset


def _streams_blocked(kind: int, plain: bytes, offset: int, frames: list[Frame]) -> int:
    limit, offset = _read(plain, offset)
    frames.append(StreamsBlocked(kind == FrameType.STREAMS_BLOCKED_BIDI, limit))
    return offset


def _new_connection_id(_: int, plain: bytes, offset: int, frames: list[Frame]) -> int:
    number, offset = _read(plain, offset)
    retire_prior_to, offset = _read(plain, offset)
    if retire_prior_to > number:
        raise InvalidFrameError("a NEW_CONNECTION_ID that retires itself")
    middle = offset + 8
    end = middle + 16
    frames.append(NewConnectionId(number, retire_prior_to, plain[offset:middle], _slice(plain, middle, end)))
    return end


def _session_close(_: int, plain: bytes, offset: int, frames: list[Frame]) -> int:
    code, offset = _read(plain, offset)
    reason = plain[offset]
    if reason >= len(CLOSE_REASONS):
        raise InvalidFrameError(f"a SESSION_CLOSE with reason {reason}")
    size, offset = _read(plain, offset + 1)
    if size > MAX_DETAIL:
        raise InvalidFrameError(f"a SESSION_CLOSE with a detail of {size} bytes")
    end = offset + size
    detail = _slice(plain, offset, end).decode("utf-8", "replace")
    frames.append(SessionClose(code, CLOSE_REASONS[reason], detail))
    return end


def _stream_open(_: int, plain: bytes, offset: int, frames: list[Frame]) -> int:
    stream_id, offset = _read(plain, offset)
    end = offset + 1 + plain[offset]
    frames.append(StreamOpen(stream_id, _slice(plain, offset + 1, end).decode("utf-8", "replace")))
    return end


def _datagram(kind: int, plain: bytes, offset: int, frames: list[Frame]) -> int:
    end = len(plain)
    if kind == FrameType.DATAGRAM_LENGTH:
        size, offset = _read(plain, offset)
        end = offset + size
    frames.append(Datagram(_slice(plain, offset, end)))
    return end


def _priority(_: int, plain: bytes, offset: int, frames: list[Frame]) -> int:
    stream_id, offset = _read(plain, offset)
    value = plain[offset]
    if value >= 2 * INCREMENTAL:
        raise InvalidFrameError(f"a PRIORITY of 0x{value:02x}")
    frames.append(Priority(stream_id, value % INCREMENTAL, value >= INCREMENTAL))
    return offset + 1


def _ack_frequency(_: int, plain: bytes, offset: int, frames: list[Frame]) -> int:
    number, offset = _read(plain, offset)
    threshold, offset = _read(plain, offset)
    max_delay, offset = _read(plain, offset)
    if not threshold:
        raise InvalidFrameError("an ACK_FREQUENCY with a threshold of 0")
    frames.append(AckFrequency(number, threshold, max_delay))
    return offset


def _rotate(_: int, plain: bytes, offset: int, frames: list[Frame]) -> int:
    version, offset = _read(plain, offset)
    end = offset + ROTATE_KEY
    frames.append(Rotate(version, _slice(plain, offset, end)))
    return end


def _ticket(_: int, plain: bytes, offset: int, frames: list[Frame]) -> int:
    lifetime, offset = _read(plain, offset)
    middle = offset + TICKET_NONCE
    size, start = _read(plain, middle)
    if not 1 <= size <= MAX_TICKET or not 1 <= lifetime <= MAX_LIFETIME:
        raise InvalidFrameError(f"a TICKET of {size} bytes for {lifetime} s")
    end = start + size
    frames.append(Ticket(lifetime, plain[offset:middle], _slice(plain, start, end)))
    return end


def _extension(kind: int, plain: bytes, offset: int, frames: list[Frame]) -> int:
    number, offset = _read(plain, offset)
    size, offset = _read(plain, offset)
    if size > MAX_EXTENSION:
        raise InvalidFrameError(f"a frame of type 0x{kind:02x} of {size} bytes")
    end = offset + size
    frames.append(Extension(kind, number, _slice(plain, offset, end)))
    return end


def _unknown(kind: int, _plain: bytes, _offset: int, _frames: list[Frame]) -> int:
    raise UnknownFrameError(f"a frame of type 0x{kind:02x}, which was not announced")


def _slice(plain: bytes, start: int, end: int) -> bytes:
    """Take a slice that is all there, or raise as an index does."""
    if end > len(plain):
        raise IndexError
    return plain[start:end]


# -- frames of one form --------------------------------------------------------------------------------------


def _constant(frame: Frame) -> _Decoder:
    """A frame that is its type and nothing else."""

    def decode(_kind: int, _plain: bytes, offset: int, frames: list[Frame]) -> int:
        frames.append(frame)
        return offset

    return decode


def _varints(make: Callable[..., Frame], count: int) -> _Decoder:
    """A frame of `count` varints."""

    def decode(_: int, plain: bytes, offset: int, frames: list[Frame]) -> int:
        values = []
        for _ in range(count):
            value, offset = _read(plain, offset)
            values.append(value)
        frames.append(make(*values))
        return offset

    return decode


def _eight_bytes(make: Callable[[bytes], Frame]) -> _Decoder:
    """A frame of 8 bytes."""

    def decode(_: int, plain: bytes, offset: int, frames: list[Frame]) -> int:
        end = offset + 8
        frames.append(make(_slice(plain, offset, end)))
        return end

    return decode


_BY_TYPE: dict[int, _Decoder] = {
    FrameType.PADDING: _padding,
    FrameType.PING: _constant(Ping()),
    FrameType.ACK: _ack,
    FrameType.ACK_ECN: _ack,
    FrameType.RESET_STREAM: _varints(ResetStream, 3),
    FrameType.STOP_SENDING: _varints(StopSending, 2),
    FrameType.KEEP_ALIVE: _eight_bytes(KeepAlive),
    FrameType.KEEP_ALIVE_ACK: _eight_bytes(KeepAliveAck),
    **{FrameType.STREAM | bits: _stream for bits in range(STREAM_BITS + 1)},
    FrameType.MAX_DATA: _varints(MaxData, 1),
    FrameType.MAX_STREAM_DATA: _varints(MaxStreamData, 2),
    FrameType.MAX_STREAMS_BIDI: _max_streams,
    FrameType.MAX_STREAMS_UNI: _max_streams,
    FrameType.DATA_BLOCKED: _varints(DataBlocked, 1),
    FrameType.STREAM_DATA_BLOCKED: _varints(StreamDataBlocked, 2),
    FrameType.STREAMS_BLOCKED_BIDI: _streams_blocked,
    FrameType.STREAMS_BLOCKED_UNI: _streams_blocked,
    FrameType.NEW_CONNECTION_ID: _new_connection_id,
    FrameType.RETIRE_CONNECTION_ID: _varints(RetireConnectionId, 1),
    FrameType.PATH_CHALLENGE: _eight_bytes(PathChallenge),
    FrameType.PATH_RESPONSE: _eight_bytes(PathResponse),
    FrameType.SESSION_CLOSE: _session_close,
    FrameType.CONFIRM: _constant(Confirm()),
    FrameType.STREAM_OPEN: _stream_open,
    FrameType.TICKET: _ticket,
    FrameType.DATAGRAM: _datagram,
    FrameType.DATAGRAM_LENGTH: _datagram,
    FrameType.ROTATE: _rotate,
    FrameType.PRIORITY: _priority,
    FrameType.EXPIRED: _varints(Expired, 2),
    FrameType.ACK_FREQUENCY: _ack_frequency,
    FrameType.MOVE: _varints(Move, 1),
}

_DECODERS: Decoders = tuple(_BY_TYPE.get(kind, _unknown) for kind in range(256))


@lru_cache(16)
def decoders_for(extensions: frozenset[int]) -> Decoders:
    """Give the decoders of a side that has announced these types; those of the application are among them (X-2)."""
    announced = extensions & frozenset(APPLICATION_FRAMES)
    return tuple(_extension if kind in announced else decoder for kind, decoder in enumerate(_DECODERS))
