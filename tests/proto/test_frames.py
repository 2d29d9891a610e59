"""Frames: docs/protocol.md, section 8."""

from __future__ import annotations

import sys
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stt_proto.errors import ArgumentError, InvalidFrameError, UnknownFrameError
from stt_proto.types import CloseReason
from stt_proto.wire import (
    MAX_EXTENSION,
    MAX_VARINT,
    NON_ELICITING,
    VIEW_SIZE,
    Ack,
    AckFrequency,
    Confirm,
    DataBlocked,
    Datagram,
    Expired,
    Extension,
    Frame,
    FrameType,
    KeepAlive,
    KeepAliveAck,
    MaxData,
    MaxStreamData,
    MaxStreams,
    Move,
    NewConnectionId,
    Padding,
    PathChallenge,
    PathResponse,
    Ping,
    Priority,
    ResetStream,
    RetireConnectionId,
    Rotate,
    SessionClose,
    StopSending,
    Stream,
    StreamDataBlocked,
    StreamOpen,
    StreamsBlocked,
    Ticket,
    datagram_header,
    decode_frames_untrusted,
    decoders_for,
    encode_ack,
    encode_varint,
    is_ack_eliciting,
    stream_header,
    stream_header_size,
)
from tests.proto.strategies import acks, frames, frames_by_type, mutated, varints

TOKEN = bytes(range(8))
RESET_TOKEN = bytes(range(16))
LARGEST = "ff" * 8

# One line for each type of the table in section 8, written by hand.
ENCODINGS: list[tuple[str, Frame]] = [
    ("00 00 00", Padding(3)),
    ("01", Ping()),
    ("02 4400 05 00 00 00", Ack(1024, 5, 0, ((1024, 1024),))),
    ("02 0a 00 02 01 03 00 01", Ack(10, 0, 2, ((7, 10), (4, 5)))),
    ("03 09 00 00 00 09 01 02 03", Ack(9, 0, 0, ((0, 9),), (1, 2, 3))),
    ("04 04 07 4064", ResetStream(4, 7, 100)),
    ("05 04 07", StopSending(4, 7)),
    ("06 0001020304050607", KeepAlive(TOKEN)),
    ("07 0001020304050607", KeepAliveAck(TOKEN)),
    ("0a 04 02 6162", Stream(4, 0, b"ab")),
    ("0b 04 02 6162", Stream(4, 0, b"ab", True)),
    ("0e 04 4040 02 6162", Stream(4, 64, b"ab")),
    ("0f 04 4040 00", Stream(4, 64, b"", True)),
    ("10 4040", MaxData(64)),
    ("11 04 4040", MaxStreamData(4, 64)),
    ("12 d000000000000000", MaxStreams(True, 1 << 60)),
    ("13 00", MaxStreams(False, 0)),
    ("14 4040", DataBlocked(64)),
    ("15 04 4040", StreamDataBlocked(4, 64)),
    ("16 05", StreamsBlocked(True, 5)),
    ("17 05", StreamsBlocked(False, 5)),
    ("18 02 01" + TOKEN.hex() + RESET_TOKEN.hex(), NewConnectionId(2, 1, TOKEN, RESET_TOKEN)),
    ("19 02", RetireConnectionId(2)),
    ("1a 0001020304050607", PathChallenge(TOKEN)),
    ("1b 0001020304050607", PathResponse(TOKEN)),
    ("1c 00 00 00", SessionClose(0, CloseReason.GRACEFUL)),
    ("1c 4401 02 02 c3a4", SessionClose(0x0401, CloseReason.ERROR, "ä")),
    ("1c 4202 01 00", SessionClose(0x0202, CloseReason.TIMEOUT)),
    ("1c 4103 03 00", SessionClose(0x0103, CloseReason.AUTH_FAILURE)),
    ("1d", Confirm()),
    ("1e 04 03 c3a462", StreamOpen(4, "äb")),
    ("31 02 6162", Datagram(b"ab")),
    ("20 01" + 32 * "5a", Rotate(1, b"\x5a" * 32)),
    ("20 4100" + 32 * "5a", Rotate(256, b"\x5a" * 32)),
    ("24 04 03", Priority(4, 3, False)),
    ("24 04 0f", Priority(4, 7, True)),
    ("25 04 4040", Expired(4, 64)),
    ("26 01 08 6000", AckFrequency(1, 8, 0x2000)),
    ("21 80015180" + RESET_TOKEN.hex() + "02 6162", Ticket(86_400, RESET_TOKEN, b"ab")),
    ("22 4040", Move(0x40)),
    ("80 00 00", Extension(0x80, 0, b"")),
    ("ff 4040 02 6162", Extension(0xFF, 64, b"ab")),
]

# Section 8, to the end of the packet.
OPEN_ENDED: list[tuple[str, Frame]] = [
    ("08 04 6162", Stream(4, 0, b"ab")),
    ("09 04", Stream(4, 0, b"", True)),
    ("0c 4041 4040 6162", Stream(65, 64, b"ab")),
    ("0d 04 c000000100000000 6162", Stream(4, 1 << 32, b"ab", True)),
    ("30 6162", Datagram(b"ab")),
    ("30", Datagram(b"")),
]

INVALID = [
    ("P-12: no frame", ""),
    ("ACK: 64 ranges behind the first", "02 ffffffffffffffff 00 00 4040 00" + "0000" * 64),
    ("F-2: first range below 0", "02 03 00 00 00 04"),
    ("F-2: gap below 0", "02 03 00 00 01 00 02 00"),
    ("F-2: second range below 0", "02 05 00 00 01 00 01 03"),
    ("S-5: beyond the largest offset", f"0c 04 {LARGEST} 61"),
    ("S-5: beyond the largest offset, with a length", f"0e 04 {LARGEST} 01 61"),
    ("STREAM longer than the packet", "0a 04 03 6162"),
    ("MAX_STREAMS_BIDI over 2^60", "12 d000000000000001"),
    ("MAX_STREAMS_UNI over 2^60", "13 d000000000000001"),
    ("NEW_CONNECTION_ID that retires itself", "18 02 03" + TOKEN.hex() + RESET_TOKEN.hex()),
    ("SESSION_CLOSE with reason 4", "1c 00 04 00"),
    ("SESSION_CLOSE with a detail of 513", "1c 00 00 4201" + "61" * 513),
    ("DATAGRAM longer than the packet", "31 03 6162"),
    ("DATAGRAM of a huge length", f"31 {LARGEST} 61"),
    ("PRIORITY with a reserved bit", "24 04 10"),
    ("ROTATE with half a key", "20 01" + 16 * "5a"),
    ("TICKET for no time", "21 00" + RESET_TOKEN.hex() + "02 6162"),
    ("TICKET for more than a week", "21 80093a81" + RESET_TOKEN.hex() + "02 6162"),
    ("TICKET of nothing", "21 01" + RESET_TOKEN.hex() + "00"),
    ("TICKET of 513 bytes", "21 01" + RESET_TOKEN.hex() + "4201" + "61" * 513),
    ("TICKET longer than the packet", "21 01" + RESET_TOKEN.hex() + "03 6162"),
    ("ACK_FREQUENCY with a threshold of 0", "26 01 00 05"),
    ("F-7: 1,025 bytes", "80 00 4401" + "61" * 1025),
    ("a frame of the application longer than the packet", "80 00 03 6162"),
    ("bad behind good", "01 10"),
]


EVERY = decoders_for(frozenset(range(256)))


def decode(encoded: str) -> list[Frame]:
    return decode_frames_untrusted(bytes.fromhex(encoded), EVERY)


def check(frame: Frame) -> None:
    """A decoded frame holds to the ranges of section 8."""
    match frame:
        case Padding(length):
            assert length > 0
        case Ack(largest, _, _, ranges):
            assert 1 <= len(ranges) <= 64
            assert ranges[0][1] == largest
            assert ranges[-1][0] >= 0
            assert all(low <= high for low, high in ranges)
            assert all(newer[0] - older[1] >= 2 for newer, older in pairwise(ranges))
        case Stream(_, offset, data):
            assert offset + len(data) <= MAX_VARINT
        case MaxStreams(_, value):
            assert value <= 1 << 60
        case NewConnectionId(number, retire_prior_to, connection_id, token):
            assert retire_prior_to <= number
            assert (len(connection_id), len(token)) == (8, 16)
        case Priority(_, urgency, _):
            assert 0 <= urgency <= 7
        case Rotate(_, key):
            assert len(key) == 32
        case AckFrequency(_, threshold, _):
            assert threshold >= 1
        case Ticket(lifetime, nonce, sealed):
            assert 1 <= lifetime <= 604_800
            assert (len(nonce), 1 <= len(sealed) <= 512) == (16, True)
        case Extension(kind, _, data):
            assert 0x80 <= kind <= 0xFF
            assert len(data) <= MAX_EXTENSION
        case KeepAlive(data) | KeepAliveAck(data) | PathChallenge(data) | PathResponse(data):
            assert len(data) == 8
        case _:
            pass


# -- every byte of section 8 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 512])
@pytest.mark.parametrize("lifetime", [1, 604_800])
def test_tickets_at_their_limits(lifetime: int, size: int) -> None:
    """Section 4.4: the shortest and the longest."""
    frame = Ticket(lifetime, RESET_TOKEN, bytes(size))
    assert decode_frames_untrusted(frame.encode()) == [frame]


@pytest.mark.parametrize(("encoded", "frame"), ENCODINGS, ids=lambda value: str(value)[:40])
def test_bytes_of_each_frame(encoded: str, frame: Frame) -> None:
    assert frame.encode() == bytes.fromhex(encoded)
    assert decode(encoded) == [frame]
    assert type(decode(encoded)[0]) is type(frame)


@pytest.mark.parametrize(("encoded", "frame"), OPEN_ENDED)
def test_bytes_of_frames_to_the_end_of_the_packet(encoded: str, frame: Frame) -> None:
    assert decode("01" + encoded) == [Ping(), frame]


def test_every_frame_type_is_covered() -> None:
    """The table above, the enumeration and the decoder know the same types."""
    written = {bytes.fromhex(encoded)[0] for encoded, _ in ENCODINGS + OPEN_ENDED}
    streams = set(range(FrameType.STREAM, FrameType.STREAM + 8))
    assert {kind for kind in written if kind < 0x80} == {int(kind) for kind in FrameType} | streams
    assert {type(frame) for _, frame in ENCODINGS} == set(frames_by_type)


@pytest.mark.parametrize("kind", sorted({0x1F, 0x23, *range(0x27, 0x30), *range(0x32, 0x100)}))
def test_unknown_types(kind: int) -> None:
    """F-1: reserved, custom and unassigned types alike, as long as nobody announced them."""
    with pytest.raises(UnknownFrameError) as error:
        decode_frames_untrusted(b"\x01" + bytes((kind,)) + bytes(20))
    assert error.value.code == 0x0404


def test_types_of_the_application_are_known_one_by_one() -> None:
    """X-2: those that were announced, and no others; none of section 8 becomes another by being announced."""
    decoders = decoders_for(frozenset({0x02, 0x23, 0x80, 0x90}))
    assert decode_frames_untrusted(bytes.fromhex("80 05 01 61 90 00 00 01"), decoders) == [
        Extension(0x80, 5, b"a"),
        Extension(0x90, 0, b""),
        Ping(),
    ]
    for kind in (0x23, 0x81, 0xFF):
        with pytest.raises(UnknownFrameError):
            decode_frames_untrusted(bytes((kind, 0)), decoders)
    assert decode_frames_untrusted(bytes.fromhex("02 4400 05 00 00 00"), decoders) == [Ack(1024, 5, 0, ((1024, 1024),))]


@pytest.mark.parametrize(("rule", "encoded"), INVALID)
def test_fields_outside_their_range(rule: str, encoded: str) -> None:
    """F-1, and the rule named."""
    with pytest.raises(InvalidFrameError) as error:
        decode(encoded)
    assert error.value.code == 0x0401


@pytest.mark.parametrize("encoded", [encoded for encoded, _ in ENCODINGS[3:]])
def test_frames_cut_short(encoded: str) -> None:
    """F-1: a frame with a length of its own does not parse without its last byte, whichever one that is."""
    data = bytes.fromhex(encoded)
    for end in range(1, len(data)):
        with pytest.raises(InvalidFrameError):
            decode_frames_untrusted(data[:end], EVERY)


# -- any bytes -----------------------------------------------------------------------------------------------


@given(frames)
def test_round_trip(frame: Frame) -> None:
    assert decode_frames_untrusted(frame.encode(), EVERY) == [frame]


@given(st.lists(frames, min_size=1, max_size=8))
def test_round_trip_of_packets(sent: list[Frame]) -> None:
    """P-15: frames come in their order, whatever stands beside them."""
    expected: list[Frame] = []
    for frame in sent:
        if isinstance(frame, Padding) and expected and isinstance(expected[-1], Padding):
            expected[-1] = Padding(expected[-1].length + frame.length)
        else:
            expected.append(frame)
    assert decode_frames_untrusted(b"".join(frame.encode() for frame in sent), EVERY) == expected


@given(
    st.binary(max_size=200)
    | st.tuples(st.sampled_from([*FrameType, *range(0x08, 0x10), 0x80]), st.binary(max_size=60)).map(
        lambda parts: bytes((parts[0],)) + parts[1]
    )
    | mutated(st.lists(frames, min_size=1, max_size=4).map(lambda sent: b"".join(f.encode() for f in sent)))
)
@example(b"")
def test_any_bytes(plain: bytes) -> None:
    """G-2, F-1: frames within their ranges, or one of two errors."""
    try:
        decoded = decode_frames_untrusted(plain, EVERY)
    except (InvalidFrameError, UnknownFrameError):
        return
    assert decoded
    for frame in decoded:
        check(frame)
    if any("\ufffd" in field for frame in decoded for field in frame if isinstance(field, str)):
        return  # F-4: the replacements may be longer than what they replaced, too long even
    # What was accepted means the same when it is encoded again, in the shortest form.
    assert decode_frames_untrusted(b"".join(frame.encode() for frame in decoded), EVERY) == decoded


# -- streams -------------------------------------------------------------------------------------------------


@given(varints(), varints(0, MAX_VARINT - 64), st.binary(max_size=64), st.booleans(), st.booleans())
@example(0, 0x3FFF, b"", False, False)
@example(0x3F, 0x4000, b"", True, False)
@example(0x40, 0x4000, b"", True, False)
@example(4, 0x3FFF_FFFF, b"", False, False)
@example(4, 0x4000_0000, b"a", False, False)
@example(4, MAX_VARINT - 1, b"a", True, False)
def test_stream_header(stream_id: int, offset: int, data: bytes, fin: bool, with_length: bool) -> None:
    """The header written without an object is that of the frame, in the shortest form."""
    length = len(data) if with_length else None
    header = stream_header(stream_id, offset, length, fin)
    assert len(header) == stream_header_size(stream_id, offset, length)
    assert decode_frames_untrusted(header + data) == [Stream(stream_id, offset, data, fin)]
    parts = [bytes((0x08 | (offset > 0) << 2 | with_length << 1 | fin,)), encode_varint(stream_id)]
    if offset:
        parts.append(encode_varint(offset))
    if length is not None:
        parts.append(encode_varint(length))
    assert header == b"".join(parts)


@pytest.mark.parametrize("length", [None, 5])
@pytest.mark.parametrize(("stream_id", "offset"), [(-1, 0x4000), (1 << 62, 0), (0, -1), (0, 1 << 62), (64, -5)])
def test_stream_header_refuses(stream_id: int, offset: int, length: int | None) -> None:
    with pytest.raises(ArgumentError):
        stream_header(stream_id, offset, length, False)
    with pytest.raises(ArgumentError):
        stream_header_size(stream_id, offset, length)


def test_large_data_is_a_view_and_small_data_a_copy() -> None:
    """Whoever keeps the data of a frame never keeps more than four times as much alive."""
    data = bytes(range(256)) * 128
    small, large = data[: VIEW_SIZE - 1], data[:VIEW_SIZE]
    for piece, kind in ((small, bytes), (large, memoryview)):
        plain = Stream(4, 9, piece).encode()
        (frame,) = decode_frames_untrusted(plain)
        assert isinstance(frame, Stream)
        assert type(frame.data) is kind
        assert frame == Stream(4, 9, piece)
        assert not isinstance(frame.data, memoryview) or frame.data.obj is plain
        assert frame.encode() == plain
    stream = Stream(4, 9, large).encode()
    for size, kind in ((VIEW_SIZE * 4, memoryview), (VIEW_SIZE * 4 + 1, bytes)):
        (frame, _) = decode_frames_untrusted(stream + bytes(size - len(stream)))
        assert isinstance(frame, Stream)
        assert frame == Stream(4, 9, large)
        assert type(frame.data) is kind


def test_end_of_the_largest_stream() -> None:
    """S-5: the last byte that a stream can have."""
    frame = Stream(4, MAX_VARINT - 1, b"a", True)
    assert decode_frames_untrusted(frame.encode()) == [frame]


def test_datagram_header() -> None:
    assert decode_frames_untrusted(datagram_header(None) + b"ab") == [Datagram(b"ab")]
    assert decode_frames_untrusted(datagram_header(2) + b"ab\x01") == [Datagram(b"ab"), Ping()]


# -- acknowledgement -----------------------------------------------------------------------------------------


@given(acks)
def test_ack_without_an_object(ack: Ack) -> None:
    """F-3: up to 64 ranges are taken."""
    encoded = encode_ack(*ack)
    assert encoded == ack.encode()
    assert decode_frames_untrusted(encoded) == [ack]


def test_as_many_ranges_as_are_accepted() -> None:
    """F-3: 64 ranges are taken, with gaps and sizes of every width; 65 are neither taken nor sent."""
    ranges = tuple((number - (i % 3) * 100, number) for i, number in enumerate(range(100_000, 100, -1000)))[:65]
    ack = Ack(100_000, 0, 0, ranges[:64])
    assert len(ack.ranges) == 64
    assert decode_frames_untrusted(ack.encode()) == [ack]
    with pytest.raises(ArgumentError) as error:
        encode_ack(100_000, 0, 0, ranges)
    assert error.value.argument == "ranges"
    with pytest.raises(ArgumentError):
        encode_ack(100_000, 0, 0, ())


@pytest.mark.parametrize("ranges", [((5, 9), (0, 4)), ((5, 9), (6, 7)), ((9, 5),), ((5, 9), (3, 2))])
def test_ranges_that_touch_or_rise(ranges: tuple[tuple[int, int], ...]) -> None:
    """Two ranges have a missing number between them."""
    with pytest.raises(ArgumentError):
        encode_ack(ranges[0][1], 0, 0, ranges)


@given(st.lists(frames, min_size=1, max_size=4))
def test_eliciting(sent: list[Frame]) -> None:
    """R-1: all but ACK, PADDING and KEEP_ALIVE_ACK."""
    assert {Ack, Padding, KeepAliveAck} == NON_ELICITING
    expected = any(not isinstance(frame, Ack | Padding | KeepAliveAck) for frame in sent)
    assert is_ack_eliciting(sent) is expected


# -- work is bounded by bytes --------------------------------------------------------------------------------


def lines_run(plain: bytes) -> int:
    """How many lines of Python it takes to decode `plain`."""
    count = 0

    def trace(*_: object) -> object:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        decode_frames_untrusted(plain)
    finally:
        sys.settrace(before)
    return count


def test_padding_costs_the_same_however_long() -> None:
    assert decode_frames_untrusted(bytes(65_519)) == [Padding(65_519)]
    assert lines_run(bytes(65_519)) == lines_run(b"\0")


def test_frames_are_bounded_by_the_size_of_the_packet() -> None:
    """Padding and PING in turn: each byte is looked at once, not once for each run."""
    assert lines_run(b"\0\1" * 1000) < 11 * lines_run(b"\0\1" * 100)
    assert decode_frames_untrusted(b"\0\1" * 1000) == [Padding(1), Ping()] * 1000


# -- text, secrets, arguments --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        StreamOpen(4, "x" * 255),
        SessionClose(0, CloseReason.ERROR, "x" * 512),
        NewConnectionId(7, 7, TOKEN, RESET_TOKEN),
        MaxStreams(False, 1 << 60),
        Extension(0x80, MAX_VARINT, bytes(1024)),
    ],
)
def test_as_much_as_a_field_may_hold(frame: Frame) -> None:
    assert decode_frames_untrusted(frame.encode(), EVERY) == [frame]


def test_text_that_is_not_utf8() -> None:
    """F-4: it is read with replacement characters."""
    assert decode("1c 00 02 02 61ff") == [SessionClose(0, CloseReason.ERROR, "a\ufffd")]
    assert decode("1e 04 01 ff") == [StreamOpen(4, "\ufffd")]


@pytest.mark.parametrize(
    ("detail", "sent"),
    [
        ("x" * 512, "x" * 512),
        ("x" * 513, "x" * 512),
        ("x" * 511 + "ä", "x" * 511),
        ("\ud800 lone", "? lone"),
        ("\ufffd" * 512, "\ufffd" * 170),
    ],
)
def test_a_detail_that_is_too_long_is_cut(detail: str, sent: str) -> None:
    """Section 8: at most 512 bytes; nothing keeps a session from being closed."""
    encoded = SessionClose(0, CloseReason.ERROR, detail).encode()
    assert decode_frames_untrusted(encoded) == [SessionClose(0, CloseReason.ERROR, sent)]


def test_reset_tokens_are_not_shown() -> None:
    frame = NewConnectionId(1, 0, b"identity", b"secret secret se")
    assert repr(frame) == "NewConnectionId(number=1, retire_prior_to=0, connection_id=b'identity')"


@pytest.mark.parametrize(
    ("frame", "argument"),
    [
        (StreamOpen(4, "x" * 256), "purpose"),
        (StreamOpen(4, "\ud800"), "purpose"),
        (KeepAlive(b"1234567"), "token"),
        (KeepAliveAck(b"123456789"), "token"),
        (PathChallenge(b""), "data"),
        (PathResponse(b"1234567"), "data"),
        (NewConnectionId(1, 2, TOKEN, RESET_TOKEN), "retire_prior_to"),
        (NewConnectionId(1, 0, b"short", RESET_TOKEN), "connection_id"),
        (NewConnectionId(1, 0, TOKEN, b"short"), "token"),
        (MaxStreams(True, (1 << 60) + 1), "value"),
        (MaxData(-1), "value"),
        (Padding(0), "length"),
        (ResetStream(4, 1 << 62, 0), "value"),
        (Priority(4, 8, False), "urgency"),
        (Priority(4, -1, False), "urgency"),
        (Rotate(1, bytes(31)), "key"),
        (AckFrequency(1, 0, 5), "threshold"),
        (Ticket(1, bytes(15), b"ab"), "nonce"),
        (Ticket(1, bytes(16), b""), "sealed"),
        (Ticket(1, bytes(16), bytes(513)), "sealed"),
        (Extension(0x7F, 0, b""), "kind"),
        (Extension(0x100, 0, b""), "kind"),
        (Extension(0x80, 0, bytes(1025)), "data"),
    ],
)
def test_frames_that_cannot_be_sent(frame: Frame, argument: str) -> None:
    with pytest.raises(ArgumentError) as error:
        frame.encode()
    assert error.value.argument == argument
