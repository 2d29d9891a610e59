"""Stateless reset: tokens, what is sent, what is recognised."""

from __future__ import annotations

import hmac

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stt_proto.errors import ArgumentError
from stt_proto.packet import ExpectedResets, ResetTokens
from tests.proto.walks import walks

KEY, CID = b"k" * 32, b"\x01" * 8


def noise(size: int) -> bytes:
    return b"\xff" * size


def make(size: int = 100, now: float = 0.0, tokens: ResetTokens | None = None) -> bytes | None:
    return (tokens or ResetTokens(KEY)).make_reset(CID, size, now, noise)


@given(key=st.binary(min_size=32, max_size=64), cid=st.binary(min_size=8, max_size=8))
def test_token(key: bytes, cid: bytes) -> None:
    """C-5: HMAC(reset key, ID)[:16]."""
    assert ResetTokens(key).token(cid) == hmac.new(key, cid, "sha256").digest()[:16]


def test_a_key_is_long_enough() -> None:
    """C-5: the key is no password."""
    with pytest.raises(ArgumentError) as raised:
        ResetTokens(b"k" * 31)
    assert raised.value.argument == "key"


@given(size=st.integers(0, 2000), fill=st.binary(min_size=26, max_size=26))
def test_form(size: int, fill: bytes) -> None:
    """P-14: smaller than its trigger, at most 42 bytes, like a packet without the train bit, ends in the token."""
    reset = ResetTokens(KEY).make_reset(CID, size, 0.0, lambda n: fill[:n])
    if size < 43:
        assert reset is None
        return
    assert reset is not None
    assert 29 <= len(reset) <= 42
    assert len(reset) < size
    assert reset[0] & 0xE0 == 0x40
    assert reset[0] & 0x1F == fill[0] & 0x1F
    assert reset[1:-16] == fill[1 : len(reset) - 16]
    assert reset.endswith(ResetTokens(KEY).token(CID))


def test_no_endless_answers() -> None:
    """P-14: a reset is never answered by a reset."""
    reset = make()
    assert reset is not None
    assert make(len(reset)) is None


@given(gaps=walks(st.sampled_from([0.0, 0.001, 0.05, 0.1, 0.11, 0.5, 1.0]), 60))
@example([0.0] * 10 + [1.0])
def test_rate(gaps: list[float]) -> None:
    """P-14: at most 10 within any second, and as many as that."""
    tokens, now, sent = ResetTokens(KEY), 100.0, []
    for gap in gaps:
        now += gap
        recent = [at for at in sent if at > now - 1.0]
        reset = make(now=now, tokens=tokens)
        assert (reset is not None) == (len(recent) < 10)
        if reset is not None:
            sent.append(now)


def test_rate_can_be_none() -> None:
    """P-14: an endpoint may be told to send none."""
    assert make(tokens=ResetTokens(KEY, 0)) is None


def test_expected() -> None:
    """P-14, C-5: the owner of a token is found; what is not a reset finds nobody."""
    resets: ExpectedResets[str] = ExpectedResets(b"x" * 32)
    reset = make()
    assert reset is not None
    assert resets.owner_of(reset) is None
    resets.add(ResetTokens(KEY).token(CID), "alice")
    resets.add(b"t" * 16, "bob")
    assert resets.owner_of(reset) == "alice"
    assert resets.owner_of(memoryview(bytearray(reset))) == "alice"
    assert resets.owner_of(b"\x40" + b"." * 500 + b"t" * 16) == "bob"
    assert resets.owner_of(b"\x40" + bytes(12) + b"t" * 16) == "bob"
    assert resets.owner_of(b"\x40" + bytes(11) + b"t" * 16) is None
    for first in (0x60, 0xC0, 0x00, 0x80, 0xE0):
        assert resets.owner_of(bytes([first]) + reset[1:]) is None
    assert resets.owner_of(reset + b"\0") is None
    assert resets.owner_of(b"") is None


def test_expected_is_forgotten() -> None:
    """P-14: with its ID a token goes, but not the same one given by another session."""
    resets: ExpectedResets[object] = ExpectedResets(b"x" * 32)
    first, second = object(), object()
    resets.add(b"t" * 16, first)
    resets.discard(b"t" * 16, second)
    assert len(resets) == 1
    resets.add(b"t" * 16, second)
    resets.discard(b"t" * 16, first)
    assert resets.owner_of(b"\x40" * 29 + b"t" * 16) is second
    resets.discard(b"t" * 16, second)
    resets.discard(b"u" * 16, second)
    assert len(resets) == 0


@given(datagram=st.binary(max_size=60))
def test_any_bytes(datagram: bytes) -> None:
    """G-2: nothing from the network raises."""
    resets: ExpectedResets[str] = ExpectedResets(b"x" * 32)
    resets.add(b"t" * 16, "bob")
    assert resets.owner_of(datagram) is None
