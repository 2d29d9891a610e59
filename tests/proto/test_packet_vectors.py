"""Worked packets (`tests/vectors/packets.json`): keys, numbers and frames in, exact datagrams out.

They are checked twice: by the engine, and by a second, plain reading of docs/protocol.md section 7 in this file that
shares no code with it. `python -m tests.proto.test_packet_vectors` writes them anew.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from stt_proto import NetworkPath
from stt_proto.crypto import SUITES
from stt_proto.packet import PacketKeys, PacketReceiver, Sealer, TrainBudget

PAGE = Path(__file__).parents[1] / "vectors" / "packets.json"

CASES = (  # name, packet number, bytes of plaintext, bytes of a datagram
    ("the shortest", 0, 1, 1200),
    ("a full datagram", 1, 1171, 1200),
    ("a number of more than four bytes", 0x1_2345_6789, 40, 1200),
    ("a train of two", 500, 1300, 1200),
    ("a train of five, the last short", 501, 5000, 1100),
)


def filler(label: str, size: int) -> bytes:
    return b"".join(sha256(f"{label} {n}".encode()).digest() for n in range(-(-size // 32)))[:size]


def material(suite: int) -> tuple[bytes, bytes, bytes]:
    return filler(f"traffic {suite}", 32), filler(f"header {suite}", 32), filler("connection id", 8)


def expand(secret: bytes, label: bytes, size: int) -> bytes:
    return HKDFExpand(SHA256(), size, label).derive(secret)


def plainly(suite: int, number: int, plain: bytes, size: int) -> list[bytes]:
    """Section 7, step by step (P-1 to P-5)."""
    traffic, header_key, dcid = material(suite)
    key, iv = expand(traffic, b"stt1 key", 32), expand(traffic, b"stt1 iv", 12)
    single = len(plain) + 13 + 16 <= size
    room = size - (13 if single else 15)
    last = -(-(len(plain) + 16) // room) - 1
    flags = 0x40 if single else 0x60
    low = (number & 0xFFFF_FFFF).to_bytes(4)
    aad = bytes((flags,)) + dcid + low + (b"" if single else bytes((last,)))
    nonce = bytes(a ^ b for a, b in zip(iv, number.to_bytes(12), strict=True))
    aead: Any = AESGCM(key) if suite == 1 else ChaCha20Poly1305(key)
    sealed = aead.encrypt(nonce, plain, aad)
    sample = sealed[:16]
    if suite == 1:
        mask = Cipher(algorithms.AES(header_key), modes.ECB()).encryptor().update(sample)[:5]
    else:
        mask = Cipher(algorithms.ChaCha20(header_key, sample), None).encryptor().update(bytes(5))
    masked = bytes((flags ^ mask[0] & 0x1F,)) + dcid + bytes(a ^ b for a, b in zip(low, mask[1:], strict=True))
    pieces = [sealed[start : start + room] for start in range(0, len(sealed), room)]
    if single:
        return [masked + sealed]
    return [masked + bytes((index, last)) + piece for index, piece in enumerate(pieces)]


def by_the_engine(suite: int, number: int, plain: bytes, size: int) -> list[bytes]:
    traffic, header_key, dcid = material(suite)
    buffers, _, _ = Sealer(PacketKeys(SUITES[suite], traffic, header_key)).seal(number, dcid, [plain], size)
    whole = b"".join(buffers)
    return [whole[start : start + size] for start in range(0, len(whole), size)]


def worked() -> list[dict[str, Any]]:
    vectors = []
    for suite in (1, 2):
        traffic, header_key, dcid = material(suite)
        for name, number, length, size in CASES:
            plain = filler(name, length)
            vectors.append(
                {
                    "name": name,
                    "suite": suite,
                    "traffic_secret": traffic.hex(),
                    "header_secret": header_key.hex(),
                    "connection_id": dcid.hex(),
                    "packet_number": number,
                    "plaintext": plain.hex(),
                    "datagram_size": size,
                    "datagrams": [datagram.hex() for datagram in plainly(suite, number, plain, size)],
                }
            )
    return vectors


def load() -> list[dict[str, Any]]:
    return json.loads(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else []


def test_the_page_is_what_the_text_says() -> None:
    """P-1 to P-5: the second reading gives the page, byte for byte."""
    assert load() == worked()


@pytest.mark.parametrize("vector", load(), ids=lambda vector: f"{vector['suite']}, {vector['name']}")
def test_the_engine_gives_these_bytes(vector: dict[str, Any]) -> None:
    """P-1 to P-5, H-7: sealed to the page's bytes, and opened from them."""
    suite, number, size = vector["suite"], vector["packet_number"], vector["datagram_size"]
    plain = bytes.fromhex(vector["plaintext"])
    datagrams = by_the_engine(suite, number, plain, size)
    assert [datagram.hex() for datagram in datagrams] == vector["datagrams"]

    traffic, header_key, _ = material(suite)
    receiver = PacketReceiver(PacketKeys(SUITES[suite], traffic, header_key), TrainBudget())
    receiver.window.mark(number - 1 if number else 0) if number > 1 << 31 else None
    path = NetworkPath("udp", ("here", 1), ("there", 2))
    opened = [
        packet
        for datagram in datagrams
        for packet in receiver.receive(datagram, 0, len(datagram), None, path, 0.0, True)
    ]
    assert [(packet.number, packet.plain) for packet in opened] == [(number, plain)]


if __name__ == "__main__":
    PAGE.write_text(json.dumps(worked(), indent=1) + "\n", encoding="utf-8")
