"""A ticket: what its holder needs to take up with a peer again in one round trip (docs/protocol.md, section 4.4).

It is a value that the application keeps: in memory, in a file (`export`, `from_bytes`), or on another device that has
the same node seed. It is good once, for one peer. Whoever finds one can do nothing with it without the node's own key;
all the same it is a secret, and shows none of it.
"""

from __future__ import annotations

from enum import StrEnum
from hashlib import sha256
from hmac import compare_digest
from struct import Struct

from attrs import field, frozen

from stt_proto.errors import ArgumentError

MAX_SEALED = 512
"""Bytes of the longest sealed part."""
SECRET_SIZE = 32
"""Bytes of the secret of a ticket."""
MAX_LIFETIME = 604_800
"""Seconds that a ticket is good for at most."""
MAX_EARLY_DATA = 768
"""Bytes that may go along with one at most."""

LATEST_ISSUE = 1e12
"""The latest `Ticket.issued_at`, seconds since 1970."""

_MAGIC = b"stt-ticket-1"
_CHECK_LABEL = b"stt1 ticket file"
_CHECK_SIZE = 16
_HEAD = Struct(">12sBQIH32s32s32sH")

_NUMBERS = (
    ("suite", int, 255),
    ("issued_at", float, LATEST_ISSUE),
    ("lifetime", int, MAX_LIFETIME),
    ("max_early_data", int, MAX_EARLY_DATA),
)


class TicketRefusal(StrEnum):
    """Why a session began with a full handshake though there was a ticket.

    The first two are found by who has the ticket, the next two while it waits; the others are what the peer says, in a
    message that anybody on the way can write (docs/protocol.md, H-14).
    """

    NOT_OURS = "not ours"
    OFFERED = "offered before"
    SILENCE = "silence"
    SHUT = "an answer that does not open"
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    USED = "used"
    GENERATION = "other seeds"
    PEER = "another peer"
    FULL = "no room"
    REFUSED = "refused"


@frozen(eq=False)
class Ticket:
    """One ticket.

    Attributes:
        sealed: what only the peer can open, 1 to 512 bytes.
        secret: 32 bytes that the peer finds in there.
        node_id: whom it was given to, 32 bytes.
        peer_node_id: who gave it, 32 bytes, and the only one it is good for.
        suite: the cipher suite of the session, as a number.
        issued_at: wall clock, seconds since 1970, when it came.
        lifetime: seconds that it is good for, from 1 to 604,800.
        max_early_data: bytes that the peer takes with it, at most 768; 0 for none.

    Raises:
        ArgumentError: an argument is out of its range.
    """

    sealed: bytes = field(repr=False)
    secret: bytes = field(repr=False)
    node_id: bytes = field(repr=bytes.hex)
    peer_node_id: bytes = field(repr=bytes.hex)
    suite: int
    issued_at: float
    lifetime: int
    max_early_data: int = 0

    def __attrs_post_init__(self) -> None:
        for name in ("secret", "node_id", "peer_node_id"):
            value = getattr(self, name)
            if not (isinstance(value, bytes) and len(value) == SECRET_SIZE):
                raise ArgumentError(f"{name} must be {SECRET_SIZE} bytes", argument=name)
        if not (isinstance(self.sealed, bytes) and 1 <= len(self.sealed) <= MAX_SEALED):
            raise ArgumentError(f"sealed must be 1 to {MAX_SEALED} bytes", argument="sealed")
        for name, kind, high in _NUMBERS:
            value = getattr(self, name)
            if type(value) is not kind or not 0 <= value <= high:
                raise ArgumentError(f"{name} is {value!r}; it must be from 0 to {high:,}", argument=name)

    @property
    def expires_at(self) -> float:
        """Wall clock, seconds since 1970, from which on it is good for nothing."""
        return self.issued_at + self.lifetime

    def export(self) -> bytes:
        """All of it as bytes, to be kept or moved: as secret as a password, since the secret is in there."""
        head = _HEAD.pack(
            _MAGIC,
            self.suite,
            round(self.issued_at * 1000),
            self.lifetime,
            self.max_early_data,
            self.node_id,
            self.peer_node_id,
            self.secret,
            len(self.sealed),
        )
        return _checked(head + self.sealed)

    @classmethod
    def from_bytes(cls, data: bytes) -> Ticket:
        """Take back what `export` gave.

        Raises:
            ArgumentError: this is no ticket, or a damaged one; nothing of it is quoted.
        """
        if not isinstance(data, bytes) or not compare_digest(_checked(data[:-_CHECK_SIZE]), data):
            raise ArgumentError("data is no ticket, or a damaged one", argument="data")
        if len(data) < _HEAD.size + _CHECK_SIZE or not data.startswith(_MAGIC):
            raise ArgumentError("data is no ticket of this version", argument="data")
        _, suite, issued_at, lifetime, early, node_id, peer_node_id, secret, size = _HEAD.unpack_from(data)
        sealed = data[_HEAD.size : -_CHECK_SIZE]
        if size != len(sealed):
            raise ArgumentError("data is a damaged ticket", argument="data")
        return cls(sealed, secret, node_id, peer_node_id, suite, issued_at / 1000, lifetime, early)


def _checked(data: bytes) -> bytes:
    """With a check at its end: against damage, since whoever can write tickets can write checks too."""
    return data + sha256(_CHECK_LABEL + data).digest()[:_CHECK_SIZE]
