"""Variable-length integers: RFC 9000, section 16, and its examples in appendix A.1."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stt_proto.errors import ArgumentError, InvalidFrameError
from stt_proto.wire import MAX_VARINT, decode_varint_untrusted, encode_varint, varint_size
from tests.proto.strategies import long_varint, varints

RFC_9000_A_1 = [
    ("c2197c5eff14e88c", 151_288_809_941_952_652),
    ("9d7f3e7d", 494_878_333),
    ("7bbd", 15_293),
    ("25", 37),
]


@pytest.mark.parametrize(("encoded", "value"), RFC_9000_A_1)
def test_examples_of_the_rfc(encoded: str, value: int) -> None:
    data = bytes.fromhex(encoded)
    assert encode_varint(value) == data
    assert decode_varint_untrusted(data, 0) == (value, len(data))


def test_a_longer_form_is_accepted() -> None:
    """RFC 9000, A.1: `4025` is 37 too."""
    assert decode_varint_untrusted(bytes.fromhex("4025"), 0) == (37, 2)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (0, 1),
        (0x3F, 1),
        (0x40, 2),
        (0x3FFF, 2),
        (0x4000, 4),
        (0x3FFF_FFFF, 4),
        (0x4000_0000, 8),
        (MAX_VARINT, 8),
    ],
)
def test_the_shortest_form_is_written(value: int, size: int) -> None:
    assert len(encode_varint(value)) == varint_size(value) == size


@given(varints(), st.binary(max_size=9), st.binary(max_size=9))
def test_round_trip_anywhere(value: int, before: bytes, behind: bytes) -> None:
    encoded = encode_varint(value)
    assert len(encoded) == varint_size(value)
    data = before + encoded + behind
    assert decode_varint_untrusted(data, len(before)) == (value, len(before) + len(encoded))


@given(varints(), st.sampled_from([1, 2, 4, 8]))
def test_every_form_that_holds_the_value_means_the_value(value: int, size: int) -> None:
    if size >= varint_size(value):
        assert decode_varint_untrusted(long_varint(value, size), 0) == (value, size)


@given(varints(), st.integers(1, 8))
def test_past_the_end(value: int, cut: int) -> None:
    encoded = encode_varint(value)
    with pytest.raises(InvalidFrameError):
        decode_varint_untrusted(encoded[: max(0, len(encoded) - cut)], 0)
    with pytest.raises(InvalidFrameError):
        decode_varint_untrusted(encoded, len(encoded) + cut)


@given(st.binary(max_size=10), st.integers(0, 12))
@example(b"", 0)
def test_any_bytes(data: bytes, offset: int) -> None:
    """G-2: nothing but the documented error."""
    try:
        value, end = decode_varint_untrusted(data, offset)
    except InvalidFrameError:
        return
    assert 0 <= value <= MAX_VARINT
    assert offset < end <= len(data)


@pytest.mark.parametrize("value", [-1, -(1 << 70), MAX_VARINT + 1, 1 << 64])
def test_no_varint(value: int) -> None:
    for function in (encode_varint, varint_size):
        with pytest.raises(ArgumentError) as error:
            function(value)
        assert error.value.argument == "value"
