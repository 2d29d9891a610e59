"""Parameters: docs/protocol.md, section 5."""

from __future__ import annotations

import pytest
from attrs import evolve, fields
from hypothesis import example, given
from hypothesis import strategies as st

from stt_proto.errors import ArgumentError, HandshakeError
from stt_proto.wire import (
    MAX_VARINT,
    Parameters,
    add_early_data,
    add_early_data_taken,
    add_reset_token,
    decode_parameters_untrusted,
    encode_varint,
    take_early_data_untrusted,
    take_reset_token_untrusted,
)
from tests.proto.strategies import mutated, parameters, varints

# The table of section 5: id, name, default, lowest, highest.
TABLE = [
    (0x01, "max_data", 0, 0, MAX_VARINT),
    (0x02, "max_stream_data", 0, 0, MAX_VARINT),
    (0x03, "max_streams_bidi", 0, 0, 1 << 60),
    (0x04, "max_streams_uni", 0, 0, 1 << 60),
    (0x05, "max_datagram", 0, 0, 65_535),
    (0x06, "max_ack_delay", 25, 0, 16_383),
    (0x07, "max_packet", 1200, 1200, 65_535),
    (0x08, "max_segments", 1, 1, 64),
    (0x09, "idle_timeout", 30_000, 100, 86_400_000),
    (0x0A, "connection_id_limit", 2, 2, 16),
    (0x0C, "max_early_data", 0, 0, 768),
    (0x0D, "early_data_taken", 0, 0, 768),
]


def one(number: int, value: bytes) -> bytes:
    return encode_varint(number) + encode_varint(len(value)) + value


def test_absent_parameters() -> None:
    """Section 5, "default when absent": nothing is sent for a default, and nothing means the defaults."""
    assert Parameters().encode() == b""
    assert decode_parameters_untrusted(b"") == Parameters()
    defaults = {name: default for _, name, default, _, _ in TABLE} | {"extension_frames": frozenset()}
    assert {field.name: field.default for field in fields(Parameters)} == defaults


@pytest.mark.parametrize(("number", "name", "default", "low", "high"), TABLE)
def test_each_number(number: int, name: str, default: int, low: int, high: int) -> None:
    """X-1: the range of each, from both sides."""
    for value in {low, high} - {default}:
        sent = evolve(Parameters(), **{name: value})
        assert sent.encode() == one(number, encode_varint(value))
        assert decode_parameters_untrusted(sent.encode()) == sent
    for value in (low - 1, high + 1):
        with pytest.raises(ArgumentError) as error:
            evolve(Parameters(), **{name: value})
        assert error.value.argument == name
        if 0 <= value <= MAX_VARINT:
            with pytest.raises(HandshakeError):
                decode_parameters_untrusted(one(number, encode_varint(value)))


def test_bytes() -> None:
    sent = Parameters(max_data=1 << 20, max_ack_delay=0, extension_frames=[0x81, 0x80])
    assert sent.encode() == bytes.fromhex("01 04 80100000  06 01 00  0b 02 8081")
    assert decode_parameters_untrusted(sent.encode()) == sent
    assert 0x81 in sent.extension_frames


@given(parameters)
def test_round_trip(sent: Parameters) -> None:
    encoded = sent.encode()
    assert len(encoded) <= 1024
    assert decode_parameters_untrusted(encoded) == sent


def test_the_longest_encoding() -> None:
    """All of them fit into the 1,024 bytes of section 5."""
    highest = {name: high for _, name, _, _, high in TABLE}
    sent = Parameters(**highest, extension_frames=range(256))
    assert len(sent.encode()) == 336
    assert decode_parameters_untrusted(sent.encode()) == sent


@given(parameters, varints(0x0E), st.binary(max_size=40), st.booleans())
def test_unknown_parameters_are_ignored(sent: Parameters, number: int, value: bytes, first: bool) -> None:
    """X-1, X-3."""
    unknown, known = one(number, value), sent.encode()
    assert decode_parameters_untrusted(unknown + known if first else known + unknown) == sent


@pytest.mark.parametrize(
    ("what", "encoded"),
    [
        ("a number twice", "01 01 05  01 01 05"),
        ("an unknown one twice", "4fff 00  4fff 00"),
        ("the extension frames twice", "0b 01 80  0b 01 81"),
        ("twice, with ids of two lengths", "01 01 05  4001 01 05"),
        ("an empty number", "01 00"),
        ("half a number", "01 01 40"),
        ("two numbers", "01 02 0505"),
        ("no length", "01"),
        ("a value past the end", "01 02 05"),
        ("a huge length", "0c ffffffffffffffff"),
        ("half an id", "40"),
        ("extension frames past the end", "0b 02 80"),
    ],
)
def test_bad_parameters(what: str, encoded: str) -> None:
    """X-1: twice, outside its range, or not to be parsed."""
    with pytest.raises(HandshakeError) as error:
        decode_parameters_untrusted(bytes.fromhex(encoded))
    assert error.value.code == 0x0405


def test_too_many_bytes() -> None:
    """Section 5: at most 1,024 bytes in all."""
    assert decode_parameters_untrusted(one(0x7F, bytes(1024 - 4))) == Parameters()
    with pytest.raises(HandshakeError):
        decode_parameters_untrusted(one(0x7F, bytes(1024 - 3)))


@given(st.binary(max_size=80) | mutated(parameters.map(Parameters.encode)))
@example(b"\x06\x02\x40\x05")  # a number in a longer form
def test_any_bytes(data: bytes) -> None:
    """G-2: parameters within their ranges, or a bad message."""
    try:
        received = decode_parameters_untrusted(data)
    except HandshakeError:
        return
    assert decode_parameters_untrusted(received.encode()) == received


@pytest.mark.parametrize("kind", [-1, 256])
def test_extension_frames_are_bytes(kind: int) -> None:
    with pytest.raises(ArgumentError) as error:
        Parameters(extension_frames=[kind])
    assert error.value.argument == "extension_frames"


def test_what_is_different_each_time_is_taken_out() -> None:
    """H-38, H-42: early data and the reset token leave behind what others have too; bad ones are bad parameters."""
    plain = Parameters(max_data=7, max_early_data=700).encode()
    assert take_early_data_untrusted(add_early_data(plain, b"early")) == (plain, b"early")
    assert take_early_data_untrusted(plain) == (plain, b"")
    taken = add_reset_token(add_early_data_taken(plain, 5), bytes(range(16)))
    rest, token = take_reset_token_untrusted(taken)
    assert token == bytes(range(16))
    assert decode_parameters_untrusted(rest) == Parameters(max_data=7, max_early_data=700, early_data_taken=5)
    for bad in (bytes(15), bytes(17)):
        with pytest.raises(HandshakeError):
            take_reset_token_untrusted(add_reset_token(plain, bad))
    for take in (take_early_data_untrusted, take_reset_token_untrusted):
        for broken in (b"\x0e", b"\x0f\x02x", b"\x0e\x01x\x0e\x01x", b"\x40"):
            with pytest.raises(HandshakeError):
                take(broken)
