"""The plaintext of a packet to its frames (docs/protocol.md, P-12 and F-1): what somebody with the keys can send.

Only the two documented errors; no more frames than bytes and no more data than came; and what was decoded, encoded
and decoded again is the same.
"""

from __future__ import annotations

from fuzz.harness import instrumented, main

with instrumented(__name__):
    from stt_proto.errors import InvalidFrameError, UnknownFrameError
    from stt_proto.wire import (
        MAX_ACK_RANGES,
        MAX_DETAIL,
        MAX_EXTENSION,
        MAX_PURPOSE,
        MAX_VARINT,
        Ack,
        AckFrequency,
        Datagram,
        Extension,
        Frame,
        Padding,
        Priority,
        Rotate,
        SessionClose,
        Stream,
        StreamOpen,
        decode_frames_untrusted,
        decoders_for,
    )

    DECODERS = decoders_for(frozenset(range(0x80, 0xF0)))
    """Those of a side that knows nearly all types that an application may have."""


def fuzz_one(data: bytes) -> None:
    """Decode `data` as the plaintext of a packet."""
    try:
        frames = decode_frames_untrusted(data, DECODERS)
    except (InvalidFrameError, UnknownFrameError):
        return
    assert 0 < len(frames) <= len(data)
    carried = sum(len(frame.data) for frame in frames if isinstance(frame, Stream | Datagram | Extension))
    assert carried < len(data)
    for frame in frames:
        check_range(frame)
        if is_faithful(frame):
            assert decode_frames_untrusted(frame.encode(), DECODERS) == [frame]


def check_range(frame: Frame) -> None:
    """What callers rely on without looking."""
    match frame:
        case Padding(length):
            assert length >= 1
        case Stream(_, offset, data, _):
            assert offset + len(data) <= MAX_VARINT
        case Priority(_, urgency, _):
            assert 0 <= urgency <= 7
        case Rotate(_, key):
            assert len(key) == 32
        case AckFrequency(_, threshold, _):
            assert threshold >= 1
        case Extension(kind, _, data):
            assert 0x80 <= kind < 0xF0
            assert len(data) <= MAX_EXTENSION
        case Ack(largest, _, _, ranges, _):
            assert 1 <= len(ranges) <= MAX_ACK_RANGES
            assert ranges[0][1] == largest
            below = largest + 2
            for low, high in ranges:
                assert 0 <= low <= high <= below - 2
                below = low


def is_faithful(frame: Frame) -> bool:
    """Whether the text in it, where it was no UTF-8 and got longer when it was read (F-4), can be written again."""
    match frame:
        case StreamOpen(_, purpose):
            return len(purpose.encode()) <= MAX_PURPOSE
        case SessionClose(_, _, detail):
            return len(detail.encode()) <= MAX_DETAIL
    return True


if __name__ == "__main__":
    main(fuzz_one)
