"""Handshake datagrams and the bodies of messages: docs/protocol.md, section 3."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from stt_proto.errors import ArgumentError, ChecksumError, HandshakeError
from stt_proto.wire import (
    MAX_BODY,
    MESSAGE_HEADER,
    PIECE_HEADER,
    Abort,
    AuthProof,
    Challenge,
    Hello,
    Message,
    MessageType,
    Parameters,
    Piece,
    Refused,
    Resume,
    Resumed,
    Retry,
    VersionList,
    decode_datagram_untrusted,
    encode_datagram,
    encode_pieces,
)
from tests.proto.strategies import bodies_by_type, hellos, messages, mutated

DCID, SCID = b"destinat", b"sourceid"
HELLO = Hello((1,), (1, 2), b"i" * 16, b"e" * 32, b"y" * 32, Parameters(max_data=5).encode())
CHALLENGE = Challenge(b"h" * 16, 1, 2, b"e" * 32, b"y" * 32, b"k" * 1200, b"s" * 48, b"p" * 16)

BODIES: dict[MessageType, Any] = {
    MessageType.HELLO: Hello,
    MessageType.CHALLENGE: Challenge,
    MessageType.AUTH_PROOF: AuthProof,
    MessageType.RETRY: Retry,
    MessageType.REFUSED: Refused,
    MessageType.VERSION: VersionList,
    MessageType.ABORT: Abort,
    MessageType.RESUME: Resume,
    MessageType.RESUMED: Resumed,
}
TYPES = list(BODIES)


def with_check(datagram: bytes) -> bytes:
    """Put in the check, from the text of W-1."""
    return datagram[:1] + sha256(b"stt1 check" + datagram).digest()[:8] + datagram[1:]


def raw(first: int, rest: bytes, size: int = 0) -> bytes:
    return with_check(bytes((first,)) + DCID + SCID + rest + bytes(size))


def piece(total: int, offset: int, data: bytes, first: int = 0xE2) -> bytes:
    return raw(first, b"messhash" + total.to_bytes(2) + offset.to_bytes(2) + data)


# -- datagrams -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TYPES)
def test_bytes_of_a_datagram(kind: MessageType) -> None:
    """Section 3.1, W-1, W-2."""
    message = Message(kind, DCID, SCID, b"body")
    first = bytes((0xC0 | kind,))
    assert message.prefix == first + DCID + SCID
    assert message.encoded == first + DCID + SCID + b"body"
    assert message.hash8 == sha256(first + DCID + SCID + b"body").digest()[:8]
    datagram = encode_datagram(message)
    check = sha256(b"stt1 check" + first + DCID + SCID + b"body").digest()[:8]
    assert datagram == first + check + DCID + SCID + b"body"
    assert decode_datagram_untrusted(datagram) == message
    assert decode_datagram_untrusted(memoryview(bytearray(datagram))) == message


def test_padding() -> None:
    """W-4: HELLO is padded with zero bytes to 1,200, under the check, and means the same."""
    message = Message(MessageType.HELLO, DCID, SCID, HELLO.encode())
    datagram = encode_datagram(message, padded_to=1200)
    assert len(datagram) == 1200
    assert datagram[25:].rstrip(b"\0") == message.body.rstrip(b"\0")
    received = decode_datagram_untrusted(datagram)
    assert isinstance(received, Message)
    assert Hello.decode_untrusted(received.body) == HELLO
    assert len(encode_datagram(message, padded_to=30)) == MESSAGE_HEADER + len(message.body)
    with pytest.raises(ArgumentError) as error:
        encode_datagram(Message(MessageType.CHALLENGE, DCID, SCID, b""), padded_to=1200)
    assert error.value.argument == "padded_to"


@given(messages)
def test_round_trip_of_datagrams(message: Message) -> None:
    assert decode_datagram_untrusted(encode_datagram(message)) == message


@pytest.mark.parametrize("padded_to", [0, 1200])
def test_one_flipped_bit(padded_to: int) -> None:
    """W-1: damage is told from attack, wherever it hits."""
    datagram = encode_datagram(Message(MessageType.HELLO, DCID, SCID, HELLO.encode()), padded_to)
    for bit in range(len(datagram) * 8):
        damaged = bytearray(datagram)
        damaged[bit // 8] ^= 1 << bit % 8
        # Without one of its two highest bits it is no handshake datagram at all.
        expected = HandshakeError if bit in (6, 7) else ChecksumError
        with pytest.raises(expected):
            decode_datagram_untrusted(damaged)


@pytest.mark.parametrize(
    ("what", "datagram"),
    [
        ("nothing", b""),
        ("no room for a header", encode_datagram(Message(MessageType.ABORT, DCID, SCID, b""))[:-1]),
        ("a packet", b"\x40" + bytes(40)),
        ("the fixed bit clear", b"\x81" + bytes(40)),
        ("type 0", raw(0xC0, b"body")),
        ("type 10", raw(0xCA, b"body")),
        ("type 11, in pieces", piece(10, 0, b"data", 0xEB)),
        ("type 15", raw(0xCF, b"body")),
        ("type 16 and more", raw(0xD1, b"body")),
        ("body too long", raw(0xC1, b"", MAX_BODY + 1)),
        ("datagram too long", raw(0xC1, b"", 65_000)),
        ("a piece without its header", raw(0xE1, b"messhash")),
        ("an empty piece", piece(10, 0, b"")),
        ("a piece of too much", piece(MAX_BODY + 1, 0, b"data")),
        ("a piece over the total", piece(10, 7, b"data")),
        ("a piece behind the total", piece(10, 11, b"data")),
        ("a piece of nothing", piece(0, 0, b"data")),
    ],
)
def test_bad_datagrams(what: str, datagram: bytes) -> None:
    """G-2, W-3: no message, and no damage either."""
    with pytest.raises(HandshakeError):
        decode_datagram_untrusted(datagram)


@given(
    st.binary(max_size=100)
    | st.binary(min_size=25, max_size=100).map(lambda data: b"\xe1" + data)
    | mutated(messages.map(encode_datagram))
    # The same, with a check that fits, so that what stands behind it is reached.
    | st.tuples(st.integers(0xC0, 0xFF), st.binary(max_size=60)).map(lambda parts: raw(*parts))
    | mutated(messages.map(lambda m: m.encoded)).map(lambda data: with_check(b"\xc1" + data))
)
def test_any_datagram(data: bytes) -> None:
    """G-2: a message, a piece, or one of two errors."""
    try:
        received = decode_datagram_untrusted(data)
    except (ChecksumError, HandshakeError):
        return
    assert type(received.type) is MessageType
    assert (len(received.dcid), len(received.scid)) == (8, 8)
    if isinstance(received, Piece):
        assert received.data
        assert received.offset + len(received.data) <= received.total <= MAX_BODY
    else:
        assert encode_datagram(received) == data


@pytest.mark.parametrize(
    ("message", "argument"),
    [
        (Message(MessageType.HELLO, b"short", SCID, b""), "dcid"),
        (Message(MessageType.HELLO, DCID, b"toolongid", b""), "scid"),
        (Message(MessageType.HELLO, DCID, SCID, bytes(MAX_BODY + 1)), "body"),
    ],
)
def test_messages_that_cannot_be_sent(message: Message, argument: str) -> None:
    for encode in (encode_datagram, lambda message: encode_pieces(message, 1200)):
        with pytest.raises(ArgumentError) as error:
            encode(message)
        assert error.value.argument == argument


# -- pieces --------------------------------------------------------------------------------------------------


@given(messages, st.integers(PIECE_HEADER + 1, 5000))
def test_pieces(message: Message, max_datagram: int) -> None:
    """W-3: whole when it fits; else pieces that name hash, total and offset and together are the body."""
    datagrams = encode_pieces(message, max_datagram)
    assert all(len(datagram) <= max_datagram for datagram in datagrams)
    if MESSAGE_HEADER + len(message.body) <= max_datagram:
        assert datagrams == (encode_datagram(message),)
        return
    body = bytearray()
    for datagram in datagrams:
        received = decode_datagram_untrusted(datagram)
        assert isinstance(received, Piece)
        assert received[:3] == message[:3]
        assert received.hash8 == message.hash8
        assert received.total == len(message.body)
        assert received.offset == len(body)
        body += received.data
    assert body == message.body


def test_bytes_of_a_piece() -> None:
    """Section 3.1."""
    message = Message(MessageType.CHALLENGE, DCID, SCID, bytes(range(250)))
    first, second = encode_pieces(message, 237)
    assert first == raw(0xE2, message.hash8 + bytes.fromhex("00fa 0000") + message.body[:200])
    assert second == raw(0xE2, message.hash8 + bytes.fromhex("00fa 00c8") + message.body[200:])


def test_the_largest_body() -> None:
    """W-3: 8,192 bytes, whole or in one piece or in several."""
    message = Message(MessageType.CHALLENGE, DCID, SCID, bytes(MAX_BODY))
    assert decode_datagram_untrusted(encode_datagram(message)) == message
    received = decode_datagram_untrusted(piece(MAX_BODY, 0, message.body))
    assert received == Piece(*message[:3], b"messhash", MAX_BODY, 0, message.body)
    assert len(encode_pieces(message, 1200)) == 8


def test_pieces_need_room() -> None:
    message = Message(MessageType.CHALLENGE, DCID, SCID, bytes(100))
    assert len(encode_pieces(message, PIECE_HEADER + 1)) == 100
    with pytest.raises(ArgumentError) as error:
        encode_pieces(message, PIECE_HEADER)
    assert error.value.argument == "max_datagram"


def test_a_message_hash_does_not_depend_on_the_pieces() -> None:
    """W-2: the type is without the fragment bit; whoever joins pieces can check the hash."""
    message = Message(MessageType.CHALLENGE, DCID, SCID, bytes(range(250)))
    pieces = [decode_datagram_untrusted(datagram) for datagram in encode_pieces(message, 100)]
    joined = Message(pieces[0].type, DCID, SCID, b"".join(p.data for p in pieces if isinstance(p, Piece)))
    assert {p.hash8 for p in pieces} == {joined.hash8}


# -- bodies --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TYPES)
def test_round_trip_of_bodies(kind: MessageType) -> None:
    """Section 3.2; and what was decoded is encoded to the same bytes, which the transcript relies on."""

    @given(bodies_by_type[kind])
    def check(body: Any) -> None:
        encoded = body.encode()
        received = BODIES[kind].decode_untrusted(encoded)
        assert received == body
        assert received.encode() == encoded

    check()


def test_bytes_of_bodies() -> None:
    """Section 3.2, field by field."""
    core = b"\x01\x01" + b"\x02\x01\x02" + b"i" * 16 + b"e" * 32 + b"y" * 32 + b"\0\x03\x01\x01\x05"
    assert HELLO.core() == core
    assert HELLO.encode() == core + b"\0"
    assert evolve(HELLO, cookie=b"cookie").encode() == core + b"\x06cookie"
    clear = b"h" * 16 + b"\x01\x02" + b"e" * 32 + b"y" * 32
    assert CHALLENGE.clear() == clear
    assert CHALLENGE.encode() == clear + b"k" * 1200 + b"s" * 48 + b"p" * 16
    proof = AuthProof(b"c" * 1104, b"s" * 48, b"t" * 16)
    assert proof.encode() == b"c" * 1104 + b"s" * 48 + b"t" * 16
    assert Retry(b"h" * 16, b"cookie").encode() == b"h" * 16 + b"\x06cookie"
    assert Refused(b"h" * 16, 0x0102).encode() == b"h" * 16 + b"\x01\x02"
    assert VersionList(b"h" * 16, (1,), (2, 1)).encode() == b"h" * 16 + b"\x01\x01" + b"\x02\x02\x01"
    assert Abort(b"a" * 18).encode() == b"a" * 18
    resume = Resume(1, b"e" * 32, b"ticket", b"p" * 16)
    core = b"\x01" + b"\0\x06ticket" + b"e" * 32 + b"\0\x10" + b"p" * 16
    assert resume.core() == core
    assert evolve(resume, cookie=b"cookie").encode() == core + b"\x06cookie"
    assert Resumed(b"h" * 16, b"e" * 32, b"p" * 16).encode() == b"h" * 16 + b"e" * 32 + b"p" * 16


def test_auth_proof_fits_into_one_datagram() -> None:
    """W-4: no handshake datagram exceeds 1,200 bytes where addresses can be forged."""
    message = Message(MessageType.AUTH_PROOF, DCID, SCID, AuthProof(bytes(1104), bytes(48), bytes(16)).encode())
    assert len(encode_datagram(message)) == 1193


@given(hellos, st.binary(max_size=64))
def test_hello_hash(hello: Hello, cookie: bytes) -> None:
    """W-6: over the type, both IDs and the core; a cookie and padding change nothing."""
    expected = sha256(b"\xc1" + DCID + SCID + hello.core()).digest()[:16]
    assert hello.hello_hash(DCID, SCID) == expected
    again = Hello.decode_untrusted(evolve(hello, cookie=cookie).encode() + bytes(20))
    assert again.cookie == cookie
    assert again.hello_hash(DCID, SCID) == expected
    assert again.hello_hash(SCID, DCID) != expected


def test_hello_of_another_version() -> None:
    """W-9: versions come first and may be any, so that VERSION can be answered."""
    hello = evolve(HELLO, versions=(7, 255), suites=(9,))
    assert hello.encode()[:3] == b"\x02\x07\xff"
    assert Hello.decode_untrusted(hello.encode()).versions == (7, 255)


@pytest.mark.parametrize("kind", TYPES)
def test_bodies_cut_short(kind: MessageType) -> None:
    """A field that is not all there makes the message bad."""

    @given(bodies_by_type[kind], st.data())
    def check(body: Any, data: st.DataObject) -> None:
        encoded = body.encode()
        if kind is MessageType.CHALLENGE:
            encoded = encoded[: 82 + 1248 + 16]  # what is left of its last field may be any length from 16
        elif kind is MessageType.RESUMED:
            encoded = encoded[: 48 + 16]  # likewise
        with pytest.raises(HandshakeError):
            BODIES[kind].decode_untrusted(encoded[: data.draw(st.integers(0, len(encoded) - 1))])

    check()


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (MessageType.HELLO, b"\0" + HELLO.encode()[2:]),
        (MessageType.HELLO, b"\x11" + bytes(17) + HELLO.encode()[2:]),
        (MessageType.HELLO, b"\x01\x01\0" + HELLO.encode()[5:]),
        (MessageType.HELLO, b"\x01\x01\x11" + bytes(17) + HELLO.encode()[5:]),
        (MessageType.HELLO, HELLO.core()[:85] + (1025).to_bytes(2) + bytes(1025) + b"\0"),
        (MessageType.HELLO, HELLO.core() + b"\x41" + bytes(65)),
        (MessageType.HELLO, HELLO.encode() + b"\0\0\x01\0"),
        (MessageType.CHALLENGE, CHALLENGE.encode() + bytes(1025)),
        (MessageType.AUTH_PROOF, bytes(1104 + 48 + 16 + 1)),
        (MessageType.RETRY, bytes(16) + b"\0"),
        (MessageType.RETRY, bytes(16) + b"\x41" + bytes(65)),
        (MessageType.RETRY, bytes(16) + b"\x01a\0"),
        (MessageType.REFUSED, bytes(19)),
        (MessageType.VERSION, bytes(16) + b"\0\x01\x01"),
        (MessageType.VERSION, bytes(16) + b"\x01\x01\0"),
        (MessageType.VERSION, bytes(16) + b"\x01\x01\x01\x01\0"),
        (MessageType.ABORT, bytes(19)),
    ],
)
def test_bad_bodies(kind: MessageType, body: bytes) -> None:
    """Section 3.2: counts outside their range, padding that is not zero, bytes behind the end."""
    with pytest.raises(HandshakeError) as error:
        BODIES[kind].decode_untrusted(body)
    assert error.value.code == 0x0405


@pytest.mark.parametrize("kind", TYPES)
def test_any_body(kind: MessageType) -> None:
    """G-2: a value that encodes to the same bytes (but for padding), or a bad message."""

    @given(st.binary(max_size=300) | mutated(bodies_by_type[kind].map(lambda body: body.encode())))
    def check(data: bytes) -> None:
        try:
            received = BODIES[kind].decode_untrusted(data)
        except HandshakeError:
            return
        encoded = received.encode()
        assert data.startswith(encoded)
        assert kind is MessageType.HELLO or data == encoded
        assert not any(data[len(encoded) :])

    check()


@pytest.mark.parametrize(
    ("body", "argument"),
    [
        (evolve(HELLO, versions=()), "versions"),
        (evolve(HELLO, versions=(256,)), "versions"),
        (evolve(HELLO, suites=tuple(range(17))), "suites"),
        (evolve(HELLO, sid=b""), "sid"),
        (evolve(HELLO, e=bytes(31)), "e"),
        (evolve(HELLO, share=bytes(33)), "share"),
        (evolve(HELLO, parameters=bytes(1025)), "parameters"),
        (evolve(HELLO, cookie=bytes(65)), "cookie"),
        (evolve(CHALLENGE, hello_hash=bytes(15)), "hello_hash"),
        (evolve(CHALLENGE, version=256), "version"),
        (evolve(CHALLENGE, suite=-1), "suite"),
        (evolve(CHALLENGE, e=bytes(31)), "e"),
        (evolve(CHALLENGE, share=bytes(31)), "share"),
        (evolve(CHALLENGE, sealed_kem_key=bytes(1184)), "sealed_kem_key"),
        (evolve(CHALLENGE, sealed_static=bytes(32)), "sealed_static"),
        (evolve(CHALLENGE, sealed_parameters=bytes(15)), "sealed_parameters"),
        (evolve(CHALLENGE, sealed_parameters=bytes(1041)), "sealed_parameters"),
        (AuthProof(bytes(1088), bytes(48), bytes(16)), "sealed_kem_ciphertext"),
        (AuthProof(bytes(1104), bytes(32), bytes(16)), "sealed_static"),
        (AuthProof(bytes(1104), bytes(48), b""), "sealed_empty"),
        (Retry(bytes(15), b"c"), "hello_hash"),
        (Retry(bytes(16), b""), "cookie"),
        (Refused(bytes(16), 0x10000), "code"),
        (Refused(bytes(17), 0), "hello_hash"),
        (VersionList(bytes(16), (), (1,)), "versions"),
        (VersionList(bytes(16), (1,), (-1,)), "suites"),
        (VersionList(b"", (1,), (1,)), "hello_hash"),
        (Abort(bytes(2)), "sealed_code"),
        (Resume(256, bytes(32), b"t", bytes(16)), "version"),
        (Resume(1, bytes(31), b"t", bytes(16)), "e"),
        (Resume(1, bytes(32), b"", bytes(16)), "ticket"),
        (Resume(1, bytes(32), bytes(513), bytes(16)), "ticket"),
        (Resume(1, bytes(32), b"t", bytes(15)), "sealed_parameters"),
        (Resume(1, bytes(32), b"t", bytes(16), bytes(65)), "cookie"),
        (Resumed(bytes(15), bytes(32), bytes(16)), "hello_hash"),
        (Resumed(bytes(16), bytes(33), bytes(16)), "e"),
        (Resumed(bytes(16), bytes(32), bytes(1041)), "sealed_parameters"),
    ],
)
def test_bodies_that_cannot_be_sent(body: Any, argument: str) -> None:
    with pytest.raises(ArgumentError) as error:
        body.encode()
    assert error.value.argument == argument
