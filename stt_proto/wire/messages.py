"""Handshake messages and the datagrams that carry them (docs/protocol.md, section 3).

Two layers. A *datagram* has a check and holds a whole `Message` or a `Piece` of one: `encode_datagram`,
`encode_pieces`, `decode_datagram_untrusted`. A *body* is what a message of one type says;
`stt_proto.wire.bodies` has a class for each. Nothing here has a key; what is sealed passes through as bytes.

The check is no defence against an attacker, who can compute it too. It tells damage from attack, so that a
bit flipped on the way is never taken for a wrong seed; it is looked at before anything else.
"""

from __future__ import annotations

from enum import IntEnum
from hashlib import sha256
from typing import NamedTuple

from stt_proto.errors import ArgumentError, ChecksumError, HandshakeError
from stt_proto.types import Buffer
from stt_proto.wire.header import CONNECTION_ID_SIZE, FORM_BITS, FRAGMENT_BIT, HANDSHAKE_FORM

__all__ = [
    "FIRST_MESSAGES",
    "HASH_SIZE",
    "MAX_BODY",
    "MESSAGE_HEADER",
    "PIECE_HEADER",
    "Message",
    "MessageType",
    "Piece",
    "decode_datagram_untrusted",
    "encode_datagram",
    "encode_pieces",
]

MESSAGE_HEADER = 25
"""Bytes before the body in a datagram that holds a whole message."""
PIECE_HEADER = 37
"""Bytes before the piece in a datagram that holds a piece of a message."""
MAX_BODY = 8192
"""Bytes of the longest body."""
HASH_SIZE = 8
"""Bytes of a message hash, and of a check."""

_CHECK_LABEL = b"stt1 check"
_CHECK_END = 1 + HASH_SIZE


class MessageType(IntEnum):
    """The messages."""

    HELLO = 1
    CHALLENGE = 2
    AUTH_PROOF = 3
    RETRY = 4
    REFUSED = 5
    VERSION = 6
    ABORT = 7
    RESUME = 8
    RESUMED = 9

    @property
    def first_byte(self) -> bytes:
        """How a message of this type begins."""
        return _FIRST_BYTES[self]


FIRST_MESSAGES = frozenset({MessageType.HELLO, MessageType.RESUME})
"""What a stranger begins with: there is no handshake yet that it belongs to, and no address that was shown."""

_FIRST_BYTES = {kind: bytes((HANDSHAKE_FORM | kind,)) for kind in MessageType}
_TYPES = {int(kind): kind for kind in MessageType}


class Message(NamedTuple):
    """One handshake message, whole (W-2).

    Attributes:
        type: which.
        dcid: the destination's connection ID, 8 bytes.
        scid: the source's connection ID, 8 bytes.
        body: what it says; of a HELLO or RESUME that arrived, with its padding.
    """

    type: MessageType
    dcid: bytes
    scid: bytes
    body: bytes

    @property
    def prefix(self) -> bytes:
        """`type || dcid || scid`: what the handshake authenticates of the header."""
        return self.type.first_byte + self.dcid + self.scid

    @property
    def encoded(self) -> bytes:
        """`type || dcid || scid || body`."""
        return b"".join((self.type.first_byte, self.dcid, self.scid, self.body))

    @property
    def hash8(self) -> bytes:
        """The message hash, by which its pieces are told from others."""
        return sha256(self.encoded).digest()[:HASH_SIZE]


class Piece(NamedTuple):
    """A piece of a message that did not fit into one datagram (W-3).

    Attributes:
        type, dcid, scid: of the message.
        hash8: the hash of the whole message.
        total: bytes of the whole body, 1 to 8,192.
        offset: where in the body the piece begins.
        data: the piece, at least 1 byte; it ends within `total`.
    """

    type: MessageType
    dcid: bytes
    scid: bytes
    hash8: bytes
    total: int
    offset: int
    data: bytes


def encode_datagram(message: Message, padded_to: int = 0) -> bytes:
    """Give the datagram that holds the whole message, with its check (W-1).

    Args:
        message: body of at most 8,192 bytes.
        padded_to: zero bytes are added up to this size of the datagram; only HELLO and RESUME may be padded (W-4).
    """
    _check_message(message)
    if padded_to and message.type not in FIRST_MESSAGES:
        raise ArgumentError(f"{message.type.name} cannot be padded", argument="padded_to")
    return _with_check(message.encoded.ljust(padded_to - HASH_SIZE, b"\0"))


def encode_pieces(message: Message, max_datagram: int) -> tuple[bytes, ...]:
    """Give the datagrams that carry the message, each of at most `max_datagram` bytes (W-3).

    It is one datagram when the message fits; `max_datagram` is at least 38 bytes.
    """
    _check_message(message)
    body = message.body
    if MESSAGE_HEADER + len(body) <= max_datagram:
        return (_with_check(message.encoded),)
    room = max_datagram - PIECE_HEADER
    if room < 1:
        raise ArgumentError(
            f"max_datagram is {max_datagram}; it must be at least {PIECE_HEADER + 1}", argument="max_datagram"
        )
    first = bytes((message.type.first_byte[0] | FRAGMENT_BIT,))
    group = b"".join((first, message.dcid, message.scid, message.hash8, len(body).to_bytes(2)))
    return tuple(
        _with_check(b"".join((group, start.to_bytes(2), body[start : start + room])))
        for start in range(0, len(body), room)
    )


def decode_datagram_untrusted(data: Buffer) -> Message | Piece:
    """Decode one handshake datagram.

    Raises:
        ChecksumError: it was damaged.
        HandshakeError: it is no handshake datagram, is of an unknown type, or has a field outside its range.
    """
    data = bytes(data)
    size = len(data)
    if size < MESSAGE_HEADER or data[0] & FORM_BITS != HANDSHAKE_FORM:
        raise HandshakeError("no handshake datagram")
    if size > PIECE_HEADER + MAX_BODY:
        raise HandshakeError(f"a handshake datagram of {size} bytes")
    if data[1:_CHECK_END] != _check(data[:1] + data[_CHECK_END:]):
        raise ChecksumError("a handshake datagram was damaged on the way")
    first = data[0]
    kind = _TYPES.get(first & ~(FORM_BITS | FRAGMENT_BIT))
    if kind is None:
        raise HandshakeError(f"a handshake datagram of type 0x{first:02x}")
    dcid = data[9:17]
    scid = data[17:25]
    if not first & FRAGMENT_BIT:
        return Message(kind, dcid, scid, _within(data[MESSAGE_HEADER:], MAX_BODY))
    if size <= PIECE_HEADER:
        raise HandshakeError("an empty piece of a message")
    total = int.from_bytes(data[33:35])
    offset = int.from_bytes(data[35:37])
    if total > MAX_BODY:
        raise HandshakeError(f"a piece of a message of {total} bytes")
    piece = _within(data[PIECE_HEADER:], total - offset)
    return Piece(kind, dcid, scid, data[25:33], total, offset, piece)


def _check(datagram_without_check: bytes) -> bytes:
    return sha256(_CHECK_LABEL + datagram_without_check).digest()[:HASH_SIZE]


def _with_check(datagram: bytes) -> bytes:
    return b"".join((datagram[:1], _check(datagram), datagram[1:]))


def _within(data: bytes, room: int) -> bytes:
    if len(data) > room:
        raise HandshakeError("a message, or a piece of one, reaches over its end")
    return data


def _check_message(message: Message) -> None:
    if len(message.body) > MAX_BODY:
        raise ArgumentError(f"body has {len(message.body)} bytes; it must have at most {MAX_BODY}", argument="body")
    for argument, value in (("dcid", message.dcid), ("scid", message.scid)):
        if len(value) != CONNECTION_ID_SIZE:
            raise ArgumentError(f"{argument} must have {CONNECTION_ID_SIZE} bytes", argument=argument)
