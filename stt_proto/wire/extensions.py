"""Frames that are only sent to a peer that has announced them (docs/protocol.md, X-2 and section 8).

All but the last are this protocol's own. `Extension` is whatever two applications have agreed upon.
"""

from __future__ import annotations

from typing import NamedTuple

from stt_proto.errors import ArgumentError
from stt_proto.wire.varint import encode_varint

__all__ = [
    "APPLICATION_FRAMES",
    "MAX_EXTENSION",
    "AckFrequency",
    "Expired",
    "Extension",
    "Move",
    "Priority",
    "Rotate",
    "Ticket",
]

APPLICATION_FRAMES = range(0x80, 0x100)
"""Types of frames that are the application's."""
MAX_EXTENSION = 1024
"""Bytes of the longest frame of an application: it fits into any datagram, beside an acknowledgement (F-7)."""
ROTATE_KEY = 32
"""Bytes of the key in a ROTATE."""
MAX_TICKET = 512
"""Bytes of the longest ticket."""
TICKET_NONCE = 16
"""Bytes from which, with the secret of the session, that of a ticket is made."""
INCREMENTAL = 0x08
"""The bit of a PRIORITY beside the three of its urgency."""


class Rotate(NamedTuple):
    """This side's half of new keys (V-1).

    Attributes:
        version: of the keys to come, one more than that of the packet that carries this.
        key: an X25519 public key, 32 bytes.
    """

    version: int
    key: bytes

    def encode(self) -> bytes:
        if len(self.key) != ROTATE_KEY:
            raise ArgumentError(f"key has {len(self.key)} bytes; it must have {ROTATE_KEY}", argument="key")
        return b"\x20" + encode_varint(self.version) + self.key


class Priority(NamedTuple):
    """The receiver of a stream asks for a priority (S-15).

    Attributes:
        stream_id: which stream.
        urgency: 0 (the most urgent) to 7.
        incremental: whether it is to share with others of the same urgency.
    """

    stream_id: int
    urgency: int
    incremental: bool

    def encode(self) -> bytes:
        if not 0 <= self.urgency < INCREMENTAL:
            raise ArgumentError(f"urgency is {self.urgency}; it must be from 0 to 7", argument="urgency")
        return b"\x24" + encode_varint(self.stream_id) + bytes((self.urgency | INCREMENTAL * self.incremental,))


class Expired(NamedTuple):
    """The sender of a stream sends nothing of it below `offset` any more (S-17)."""

    stream_id: int
    offset: int

    def encode(self) -> bytes:
        return b"\x25" + encode_varint(self.stream_id) + encode_varint(self.offset)


class AckFrequency(NamedTuple):
    """Asks for acknowledgements as often as this says, and not more often (R-16).

    Attributes:
        number: rises with each of these frames; one that was overtaken says nothing.
        threshold: datagrams' worth of data after which an acknowledgement is due, at least 1.
        max_delay: the longest that one may be held back, in microseconds.
    """

    number: int
    threshold: int
    max_delay: int

    def encode(self) -> bytes:
        if self.threshold < 1:
            raise ArgumentError(f"threshold is {self.threshold}; it must be at least 1", argument="threshold")
        return b"\x26" + b"".join(map(encode_varint, self))


class Ticket(NamedTuple):
    """The responder gives the initiator a ticket (section 4.4).

    Attributes:
        lifetime: seconds that it is good for.
        nonce: 16 bytes, from which its secret is made.
        sealed: what only the responder can open, 1 to 512 bytes.
    """

    lifetime: int
    nonce: bytes
    sealed: bytes

    def encode(self) -> bytes:
        if len(self.nonce) != TICKET_NONCE:
            raise ArgumentError(f"nonce must be {TICKET_NONCE} bytes", argument="nonce")
        if not 1 <= len(self.sealed) <= MAX_TICKET:
            raise ArgumentError(f"sealed must be 1 to {MAX_TICKET} bytes", argument="sealed")
        size = encode_varint(len(self.sealed))
        return b"".join((b"\x21", encode_varint(self.lifetime), self.nonce, size, self.sealed))


class Move(NamedTuple):
    """Asks the peer to send over the path that this comes by (M-7).

    Attributes:
        number: rises with each wish; one that was overtaken says nothing.
    """

    number: int

    def encode(self) -> bytes:
        return b"\x22" + encode_varint(self.number)


class Extension(NamedTuple):
    """A frame of the application's own.

    Attributes:
        kind: its type, 0x80 to 0xff.
        number: rises by one with each that is repeated until it arrives, from 1 on; 0 for those that are not (F-6).
        data: at most 1,024 bytes.
    """

    kind: int
    number: int
    data: bytes

    def encode(self) -> bytes:
        if self.kind not in APPLICATION_FRAMES:
            raise ArgumentError(f"kind is {self.kind}; it must be from 0x80 to 0xff", argument="kind")
        if len(self.data) > MAX_EXTENSION:
            raise ArgumentError(
                f"data has {len(self.data)} bytes; it must have at most {MAX_EXTENSION}", argument="data"
            )
        return bytes((self.kind,)) + encode_varint(self.number) + encode_varint(len(self.data)) + self.data
