"""Packet numbers: counting, skipping, decoding, and what a peer may acknowledge."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stt_proto.errors import EncryptionError, InvalidFrameError
from stt_proto.packet import MAX_PACKET_NUMBER, PacketNumbers, decode_number


class Entropy:
    """A stream of bytes made from a seed, which counts how often it is asked."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.draws = 0

    def __call__(self, size: int) -> bytes:
        self.draws += 1
        return hashlib.shake_128(f"{self.seed} {self.draws}".encode()).digest(size)


def constant(byte: int) -> Callable[[int], bytes]:
    return lambda size: bytes([byte]) * size


@given(largest=st.integers(-1, 2**62 - 2), distance=st.integers(-(2**31) + 1, 2**31))
@example(-1, 1)
@example(2**32 - 1, 1)
@example(2**40, -(2**31) + 1)
@example(2**40, 2**31)
def test_decodes_whatever_is_near(largest: int, distance: int) -> None:
    """P-6: the number nearest to the largest opened plus one."""
    number = largest + 1 + distance
    if 0 <= number <= MAX_PACKET_NUMBER:
        assert decode_number(number % 2**32, largest) == number


@given(largest=st.integers(-1, 2**62 - 1), low=st.integers(0, 2**32 - 1))
@example(-1, 2**32 - 1)
@example(-1, 2**31 + 1)
def test_decodes_anything(largest: int, low: int) -> None:
    """P-6: of all numbers with these low bytes there is none nearer, and none is negative."""
    number = decode_number(low, largest)
    assert number >= 0
    assert number % 2**32 == low
    others = [other for other in (number - 2**32, number + 2**32) if other >= 0]
    assert all(abs(number - largest - 1) <= abs(other - largest - 1) for other in others)


@pytest.mark.parametrize("seed", range(3))
def test_numbers_rise_and_skip(seed: int) -> None:
    """P-6: they rise from 0, and one is left out every 500 to 5,000; randomness is drawn as rarely."""
    entropy = Entropy(seed)
    numbers = PacketNumbers(entropy)
    handed_out = [numbers.next() for _ in range(200_000)]
    assert handed_out[0] == 0
    assert numbers.next_number == handed_out[-1] + 1
    skipped = sorted(set(range(handed_out[-1])) - set(handed_out))
    assert all(later - earlier in (1, 2) for earlier, later in pairwise(handed_out))
    between = [later - earlier - 1 for earlier, later in pairwise([-1, *skipped])]
    assert all(500 <= distance <= 5_000 for distance in between)
    assert len(set(between)) > 30
    assert entropy.draws == len(skipped) + 1


@pytest.mark.parametrize(("byte", "distance"), [(0, 500), (0xFF, 500 + (2**32 - 1) % 4501)])
def test_distance_follows_entropy(byte: int, distance: int) -> None:
    """P-6, G-1: the same entropy, the same skips."""
    numbers = PacketNumbers(constant(byte))
    handed_out = [numbers.next() for _ in range(distance + 1)]
    assert handed_out == [*range(distance), distance + 1]


@given(seed=st.integers(0, 50), data=st.data())
def test_acknowledgements_are_checked(seed: int, data: st.DataObject) -> None:
    """F-2: an ACK of a number never sent, or skipped, is an invalid frame; any other is not."""
    numbers = PacketNumbers(Entropy(seed))
    sent = {numbers.next() for _ in range(12_000)}
    skipped = sorted(set(range(max(sent))) - sent)
    around = [number + off for number in (0, *skipped, max(sent)) for off in (-1, 0, 1) if number + off >= 0]
    low = data.draw(st.sampled_from(around) | st.integers(0, 16_000))
    high = low + data.draw(st.integers(0, 3) | st.integers(0, 6_000))
    if sent.issuperset(range(low, high + 1)):
        numbers.check_acked(low, high)
    else:
        with pytest.raises(InvalidFrameError) as raised:
            numbers.check_acked(low, high)
        assert raised.value.code == 0x0401


def test_nothing_was_sent() -> None:
    """F-2: before the first packet nothing can be acknowledged."""
    with pytest.raises(InvalidFrameError):
        PacketNumbers(Entropy(0)).check_acked(0, 0)


def test_memory_of_skips_is_bounded() -> None:
    """F-2: the newest skips are remembered, and only so many."""
    numbers = PacketNumbers(constant(0))
    while numbers.next_number < 501 * 400:
        numbers.next()
    assert len(numbers._skipped) == 256
    with pytest.raises(InvalidFrameError):
        numbers.check_acked(501 * 399, 501 * 400 - 1)
    with pytest.raises(InvalidFrameError):
        numbers.check_acked(501 * 200 + 500, 501 * 200 + 500)
    first, second = numbers._skipped[:2]
    assert (first, second - first) == (501 * 145 - 1, 501)


def test_the_last_number() -> None:
    """P-6: a packet number is at most 2^62 - 1."""
    numbers = PacketNumbers(constant(0))
    numbers.next_number = MAX_PACKET_NUMBER
    assert numbers.next() == MAX_PACKET_NUMBER
    with pytest.raises(EncryptionError):
        numbers.next()
