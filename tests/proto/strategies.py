"""Hypothesis strategies for everything in `stt_proto.wire`: each gives values that can be encoded.

Numbers come from all sizes of varint alike, since the borders between the sizes are where encoders break.
"""

from __future__ import annotations

from itertools import pairwise

from hypothesis import strategies as st

from stt_proto.types import CloseReason
from stt_proto.wire import (
    MAX_ACK_RANGES,
    MAX_DETAIL,
    MAX_EXTENSION,
    MAX_PURPOSE,
    MAX_STREAM_COUNT,
    MAX_VARINT,
    Abort,
    Ack,
    AckFrequency,
    AuthProof,
    Challenge,
    Confirm,
    DataBlocked,
    Datagram,
    Expired,
    Extension,
    Frame,
    Hello,
    KeepAlive,
    KeepAliveAck,
    MaxData,
    MaxStreamData,
    MaxStreams,
    Message,
    MessageType,
    Move,
    NewConnectionId,
    Padding,
    Parameters,
    PathChallenge,
    PathResponse,
    Ping,
    Priority,
    Refused,
    ResetStream,
    Resume,
    Resumed,
    RetireConnectionId,
    Retry,
    Rotate,
    SessionClose,
    StopSending,
    Stream,
    StreamDataBlocked,
    StreamOpen,
    StreamsBlocked,
    Ticket,
    VersionList,
)

__all__ = [
    "acks",
    "bodies",
    "bodies_by_type",
    "eight_bytes",
    "frames",
    "frames_by_type",
    "hellos",
    "long_varint",
    "messages",
    "mutated",
    "parameters",
    "streams",
    "varints",
]


def varints(low: int = 0, high: int = MAX_VARINT) -> st.SearchStrategy[int]:
    """Numbers from `low` to `high`; each of the four sizes is as likely as the others."""
    borders = (0, 0x40, 0x4000, 0x4000_0000, MAX_VARINT + 1)
    sizes = [(max(low, first), min(high, last - 1)) for first, last in pairwise(borders)]
    return st.one_of([st.integers(first, last) for first, last in sizes if first <= last])


def long_varint(value: int, size: int) -> bytes:
    """Encode in `size` bytes (1, 2, 4, 8), whether shorter would do or not."""
    return (value | {1: 0, 2: 1, 4: 2, 8: 3}[size] << 8 * size - 2).to_bytes(size)


def mutated(encodings: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Valid encodings, damaged: bytes changed, cut out, put in, or the end cut off."""

    @st.composite
    def damage(draw: st.DrawFn) -> bytes:
        data = bytearray(draw(encodings))
        for _ in range(draw(st.integers(1, 4))):
            at = draw(st.integers(0, len(data)))
            data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
        return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)

    return damage()


eight_bytes = st.binary(min_size=8, max_size=8)


def _text(max_bytes: int) -> st.SearchStrategy[str]:
    text = st.text(st.characters(codec="utf-8"), max_size=max_bytes)
    return text.filter(lambda value: len(value.encode()) <= max_bytes)


# -- frames --------------------------------------------------------------------------------------------------


@st.composite
def _acks(draw: st.DrawFn) -> Ack:
    """ACKs as a correct peer sends them: ranges that go down, with at least one number missing between them."""
    count = draw(st.integers(1, MAX_ACK_RANGES))
    low = draw(varints())
    ranges: list[tuple[int, int]] = []
    for _ in range(count):
        high = low
        low = high - draw(varints(0, min(high, 1 << 20)))
        ranges.append((low, high))
        if low < 2:
            break
        low -= draw(varints(2, min(low, 1 << 20)))
    counts = st.none() | st.tuples(varints(), varints(), varints())
    return Ack(ranges[0][1], draw(varints()), draw(varints()), tuple(ranges), draw(counts))


def _bytes(size: int) -> st.SearchStrategy[bytes]:
    """`size` bytes that are cheap to draw: what they are is of no concern here."""
    return st.binary(min_size=4, max_size=4).map(lambda seed: (seed * (size // 4 + 1))[:size])


@st.composite
def _new_connection_ids(draw: st.DrawFn) -> NewConnectionId:
    number = draw(varints())
    token = draw(st.binary(min_size=16, max_size=16))
    return NewConnectionId(number, draw(varints(0, number)), draw(eight_bytes), token)


acks = _acks()
streams = st.builds(Stream, varints(), varints(0, MAX_VARINT - 2000), st.binary(max_size=2000), st.booleans())

frames_by_type: dict[type, st.SearchStrategy[Frame]] = {
    Padding: st.builds(Padding, st.integers(1, 2000)),
    Ping: st.just(Ping()),
    Ack: acks,
    ResetStream: st.builds(ResetStream, varints(), varints(), varints()),
    StopSending: st.builds(StopSending, varints(), varints()),
    KeepAlive: st.builds(KeepAlive, eight_bytes),
    KeepAliveAck: st.builds(KeepAliveAck, eight_bytes),
    Stream: streams,
    MaxData: st.builds(MaxData, varints()),
    MaxStreamData: st.builds(MaxStreamData, varints(), varints()),
    MaxStreams: st.builds(MaxStreams, st.booleans(), varints(0, MAX_STREAM_COUNT)),
    Move: st.builds(Move, varints()),
    DataBlocked: st.builds(DataBlocked, varints()),
    StreamDataBlocked: st.builds(StreamDataBlocked, varints(), varints()),
    StreamsBlocked: st.builds(StreamsBlocked, st.booleans(), varints()),
    NewConnectionId: _new_connection_ids(),
    RetireConnectionId: st.builds(RetireConnectionId, varints()),
    PathChallenge: st.builds(PathChallenge, eight_bytes),
    PathResponse: st.builds(PathResponse, eight_bytes),
    SessionClose: st.builds(SessionClose, varints(), st.sampled_from(CloseReason), _text(MAX_DETAIL)),
    Confirm: st.just(Confirm()),
    StreamOpen: st.builds(StreamOpen, varints(), _text(MAX_PURPOSE)),
    Datagram: st.builds(Datagram, st.binary(max_size=2000)),
    Priority: st.builds(Priority, varints(), st.integers(0, 7), st.booleans()),
    Expired: st.builds(Expired, varints(), varints()),
    Rotate: st.builds(Rotate, varints(), st.binary(min_size=32, max_size=32)),
    Ticket: st.builds(Ticket, varints(1, 604_800), _bytes(16), st.binary(min_size=1, max_size=512)),
    AckFrequency: st.builds(AckFrequency, varints(), varints(1), varints()),
    Extension: st.builds(Extension, st.integers(0x80, 0xFF), varints(), st.binary(max_size=MAX_EXTENSION)),
}

frames: st.SearchStrategy[Frame] = st.one_of(list(frames_by_type.values()))

# -- handshake messages --------------------------------------------------------------------------------------


_hashes = _bytes(16)
_keys = _bytes(32)
_choices = st.lists(st.integers(0, 255), min_size=1, max_size=16).map(tuple)

hellos = st.builds(
    Hello,
    _choices,
    _choices,
    _bytes(16),
    _keys,
    _keys,
    st.integers(0, 1024).flatmap(_bytes),
    st.binary(max_size=64),
)

bodies_by_type: dict[MessageType, st.SearchStrategy[object]] = {
    MessageType.HELLO: hellos,
    MessageType.CHALLENGE: st.builds(
        Challenge,
        _hashes,
        st.integers(0, 255),
        st.integers(0, 255),
        _keys,
        _keys,
        _bytes(1200),
        _bytes(48),
        st.integers(16, 1040).flatmap(_bytes),
    ),
    MessageType.AUTH_PROOF: st.builds(AuthProof, _bytes(1104), _bytes(48), _bytes(16)),
    MessageType.RETRY: st.builds(Retry, _hashes, st.binary(min_size=1, max_size=64)),
    MessageType.REFUSED: st.builds(Refused, _hashes, st.integers(0, 0xFFFF)),
    MessageType.VERSION: st.builds(VersionList, _hashes, _choices, _choices),
    MessageType.ABORT: st.builds(Abort, _bytes(18)),
    MessageType.RESUME: st.builds(
        Resume,
        st.integers(0, 255),
        _keys,
        st.integers(1, 512).flatmap(_bytes),
        st.integers(16, 1040).flatmap(_bytes),
        st.binary(max_size=64),
    ),
    MessageType.RESUMED: st.builds(Resumed, _hashes, _keys, st.integers(16, 1040).flatmap(_bytes)),
}

bodies = st.one_of(list(bodies_by_type.values()))

messages = st.builds(
    Message, st.sampled_from(MessageType), eight_bytes, eight_bytes, st.integers(0, 4000).flatmap(_bytes)
)

# -- parameters ----------------------------------------------------------------------------------------------

_count = varints(0, MAX_STREAM_COUNT)


parameters = st.builds(
    Parameters,
    max_data=varints(),
    max_stream_data=varints(),
    max_streams_bidi=_count,
    max_streams_uni=_count,
    max_datagram=varints(0, 65_535),
    max_ack_delay=varints(0, 16_383),
    max_packet=varints(1200, 65_535),
    max_segments=st.integers(1, 64),
    idle_timeout=varints(100, 86_400_000),
    connection_id_limit=st.integers(2, 16),
    extension_frames=st.frozensets(st.integers(0, 255)),
    max_early_data=varints(0, 768),
    early_data_taken=varints(0, 768),
)
