"""Keys and sealing, checked against a second implementation made from docs/protocol.md with the library alone."""

from __future__ import annotations

import hashlib
import hmac

import attrs
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hypothesis import example, given
from hypothesis import strategies as st

from stt_proto.crypto import AES_256_GCM, CHACHA20_POLY1305, SUITES
from stt_proto.errors import ArgumentError, LocalError, StateError
from stt_proto.packet import Opener, PacketKeys, Sealer, capacity

TRAFFIC, HEADER, DCID = b"\x11" * 32, b"\x22" * 32, bytes(range(8))
suites = st.sampled_from(list(SUITES.values()))


def expand(secret: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand of RFC 5869 for at most 32 bytes."""
    return hmac.digest(secret, info + b"\x01", hashlib.sha256)[:length]


def reference(
    suite: int, version: int, number: int, dcid: bytes, plain: bytes, segments: int, room: int
) -> list[bytes]:
    """The datagrams of a packet, byte by byte as in sections 4.1 and 7 of docs/protocol.md."""
    key, iv = expand(TRAFFIC, b"stt1 key", 32), expand(TRAFFIC, b"stt1 iv", 12)
    flags = 0x40 | (0x20 if segments > 1 else 0) | version % 4
    low = number.to_bytes(8, "big")[-4:]
    associated = bytes([flags]) + dcid + low + (bytes([segments - 1]) if segments > 1 else b"")
    nonce = bytes(a ^ b for a, b in zip(iv, number.to_bytes(12, "big"), strict=True))
    sealed = (AESGCM if suite == 1 else ChaCha20Poly1305)(key).encrypt(nonce, plain, associated)
    if suite == 1:
        mask = Cipher(algorithms.AES(HEADER), modes.ECB()).encryptor().update(sealed[:16])[:5]
    else:
        mask = Cipher(algorithms.ChaCha20(HEADER, sealed[:16]), None).encryptor().update(bytes(5))
    masked = bytes([flags ^ (mask[0] & 0x1F)]) + dcid + bytes(a ^ b for a, b in zip(low, mask[1:], strict=True))
    if segments == 1:
        return [masked + sealed]
    return [masked + bytes([i, segments - 1]) + sealed[i * room : (i + 1) * room] for i in range(segments)]


def datagrams(buffers: tuple[bytes, ...]) -> list[bytes]:
    return [header + piece for header, piece in zip(buffers[::2], buffers[1::2], strict=True)]


@given(
    suite=suites,
    version=st.integers(0, 9),
    number=st.integers(0, 2**62 - 1),
    dcid=st.binary(min_size=8, max_size=8),
    parts=st.lists(st.binary(max_size=40), max_size=4),
)
def test_one_datagram(suite, version, number, dcid, parts) -> None:
    """H-7, P-1 to P-5: keys, nonce, associated data, header protection, epoch, in one datagram."""
    sealer = Sealer(PacketKeys(suite, TRAFFIC, HEADER, version))
    plain = b"".join(parts)
    buffers, segments, size = sealer.seal(number, dcid, [memoryview(part) for part in parts], 1200)
    assert datagrams(buffers) == reference(suite.id, version, number, dcid, plain, 1, 0)
    assert (segments, size) == (1, 29 + len(plain))


@given(
    suite=suites,
    number=st.integers(0, 2**62 - 1),
    size=st.integers(31, 200),
    length=st.integers(200, 3000),
    version=st.integers(0, 4),
)
@example(AES_256_GCM, 7, 1452, 64_000, 0)
@example(AES_256_GCM, 7, 1023, 64_500, 0)
def test_train(suite, number, size, length, version) -> None:
    """P-1, P-2, P-4: the segments of a train, all but the last of equal length, none empty."""
    plain = hashlib.shake_128(b"plain").digest(length)
    sealer = Sealer(PacketKeys(suite, TRAFFIC, HEADER, version))
    room = size - 15
    expected = -(-(length + 16) // room)
    if expected > 64:
        with pytest.raises(ArgumentError):
            sealer.seal(number, DCID, [plain], size)
        return
    buffers, segments, total = sealer.seal(number, DCID, [plain[:7], plain[7:]], size)
    train = datagrams(buffers)
    assert train == reference(suite.id, version, number, DCID, plain, expected, room)
    assert segments == len(train) == expected
    assert total == sum(map(len, train)) == sum(map(len, buffers))
    assert {len(segment) for segment in train[:-1]} == {size}
    assert 15 < len(train[-1]) <= size


@given(size=st.integers(31, 2000), segments=st.integers(1, 64))
@example(1452, 45)
@example(1200, 54)
@example(65_535, 1)
@example(1452, 64)
def test_capacity(size, segments) -> None:
    """P-1: what capacity promises fits into so many datagrams, and not a byte more."""
    room = capacity(size, segments)
    sealer = Sealer(PacketKeys(AES_256_GCM, TRAFFIC, HEADER))
    if room < 0:
        return  # a segment must hold more than its header
    _, used, total = sealer.seal(0, DCID, [bytes(room)], size)
    assert used <= segments
    if segments * size <= 65_507:
        assert (used, total) == (segments, segments * size)
        if segments < 64 and (segments + 1) * size <= 65_507:
            assert sealer.seal(1, DCID, [bytes(room + 1)], size)[1] == segments + 1
    else:
        assert total <= 65_535 if segments == 1 else total <= 65_507


def test_largest_packets() -> None:
    """P-1: a packet is at most 65,535 bytes, a train 65,507 with its headers, in at most 64 segments."""
    sealer = Sealer(PacketKeys(AES_256_GCM, TRAFFIC, HEADER))
    assert sealer.seal(0, DCID, [bytes(65_506)], 65_535)[1:] == (1, 65_535)
    assert sealer.seal(1, DCID, [bytes(65_507 - 45 * 15 - 16)], 1456)[1:] == (45, 65_507)
    assert sealer.seal(2, DCID, [bytes(64 * 85 - 16)], 100)[1:] == (64, 6400)
    for plain, size in ((65_507, 65_535), (65_507 - 45 * 15 - 15, 1456), (64 * 85 - 15, 100), (65_507, 65_536)):
        with pytest.raises(ArgumentError) as raised:
            sealer.seal(3, DCID, [bytes(plain)], size)
        assert raised.value.argument == "plain_parts"
    assert sealer.sealed == 3


@pytest.mark.parametrize("size", [0, 15, 28, 30])
def test_datagrams_too_small_for_a_train(size) -> None:
    """P-1: segment 0 holds at least 16 bytes of ciphertext."""
    with pytest.raises(ArgumentError):
        Sealer(PacketKeys(AES_256_GCM, TRAFFIC, HEADER)).seal(0, DCID, [bytes(40)], size)


def test_a_number_is_used_once() -> None:
    """P-3, P-6: a nonce never repeats; numbers rise."""
    sealer = Sealer(PacketKeys(AES_256_GCM, TRAFFIC, HEADER))
    sealer.seal(5, DCID, [b"x"], 1200)
    sealer.seal(7, DCID, [bytes(2000)], 1200)
    for number in (5, 6, 7):
        with pytest.raises(ArgumentError) as raised:
            sealer.seal(number, DCID, [b"y"], 1200)
        assert raised.value.argument == "number"
    assert sealer.sealed == 2


def test_a_key_wears_out() -> None:
    """P-11: after so many packets under one key, sending stops."""
    assert AES_256_GCM.confidentiality_limit == CHACHA20_POLY1305.confidentiality_limit == 2**23
    sealer = Sealer(PacketKeys(attrs.evolve(AES_256_GCM, confidentiality_limit=2), TRAFFIC, HEADER))
    sealer.seal(0, DCID, [b"x"], 1200)
    assert not sealer.exhausted
    sealer.seal(1, DCID, [bytes(2000)], 1200)
    assert sealer.exhausted
    with pytest.raises(StateError) as raised:
        sealer.seal(2, DCID, [b"x"], 1200)
    assert isinstance(raised.value, LocalError)


@given(suite=suites, plain=st.binary(max_size=50), bit=st.integers(0), number=st.integers(0, 2**62 - 1))
def test_only_what_was_sealed_opens(suite, plain, bit, number) -> None:
    """P-2, P-3, P-8: a bit changed in the ciphertext, the header or the number, and nothing opens."""
    keys = PacketKeys(suite, TRAFFIC, HEADER)
    opener = Opener(keys)
    associated = b"header"
    sealed = keys.aead.encrypt((keys.iv ^ number).to_bytes(12, "big"), plain, associated)
    assert opener.open_untrusted(number, memoryview(sealed), associated) == plain
    bit %= 8 * len(sealed)
    flipped = bytearray(sealed)
    flipped[bit // 8] ^= 1 << bit % 8
    assert opener.open_untrusted(number, flipped, associated) is None
    assert opener.open_untrusted(number, sealed, b"other") is None
    assert opener.open_untrusted(number ^ 1 << bit % 62, sealed, associated) is None
    for cut in (0, 15, len(sealed) - 1):
        assert opener.open_untrusted(number, sealed[:cut], associated) is None


def test_keys() -> None:
    """H-7, P-5: one object per key; later versions differ in the epoch only; no secret is shown."""
    for suite in SUITES.values():
        keys = PacketKeys(suite, TRAFFIC, HEADER, 6)
        assert keys.epoch == 2
        assert keys.iv == int.from_bytes(expand(TRAFFIC, b"stt1 iv", 12), "big")
        assert repr(keys) == f"PacketKeys({suite.name}, version=6)"
