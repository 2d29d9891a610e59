"""What a message leads to at the responder, as values that the endpoint acts on."""

from __future__ import annotations

from enum import StrEnum

from attrs import frozen

from stt_proto.handshake.established import Established
from stt_proto.handshake.half_open import HalfOpen
from stt_proto.handshake.resumption import Resuming
from stt_proto.handshake.waiting import Waiting


class Reason(StrEnum):
    """Why a message was dropped."""

    SMALL = "HELLO in a datagram of less than 1,200 bytes"
    MALFORMED = "does not parse, or holds a key that must be refused"
    REPEATED = "a HELLO repeated too often, or after its handshake has ended well"
    GUESSING = "its source has failed too often"
    FULL = "no room for another handshake, or for another of its source"
    REPLIES = "enough replies were sent already"
    REFLECTED = "our own HELLO"
    UNKNOWN = "no handshake of this path has these connection IDs"
    SHUT = "does not open, or is from ourselves"
    UNEXPECTED = "a message that a responder does not get"


@frozen
class Dropped:
    """Nothing is to be done."""

    reason: Reason


@frozen
class Reply:
    """Send these datagrams back: a CHALLENGE again, or RETRY, REFUSED or VERSION."""

    datagrams: tuple[bytes, ...]


@frozen
class Ended:
    """A handshake has failed; its connection ID can be released.

    Attributes:
        half_open: which; it is in no table any more.
        reason: `timeout` (silence, until its time or its place was needed) or `auth_failure` (ABORT).
    """

    half_open: Waiting
    reason: str


@frozen
class Challenged:
    """A handshake has begun: its connection ID is routed here, and its datagrams are to be sent back.

    Attributes:
        half_open: which; its `datagrams` are CHALLENGE.
        ended: the one that had to make room, if any.
    """

    half_open: HalfOpen
    ended: Ended | None


@frozen
class Offered:
    """A RESUME has opened: whether it is answered is the endpoint's to decide, with `enter` or `refuse`.

    Attributes:
        resuming: which; it is in no table yet.
    """

    resuming: Resuming


@frozen
class Accepted:
    """The initiator has proven itself; what becomes of it is the endpoint's to decide (H-29).

    Attributes:
        established: the evidence, with the keys.
        half_open: which; it is in no table any more.
        held_packets: packets that overtook AUTH_PROOF, in order.
        beside: the full handshake that the same dial had begun beside its resumption, if any; likewise.
    """

    established: Established
    half_open: Waiting
    held_packets: tuple[bytes, ...]
    beside: HalfOpen | None = None


Outcome = Dropped | Reply | Challenged | Offered | Accepted | Ended
"""The closed union of what a message leads to."""


@frozen
class Terms:
    """What is the same for all handshakes over one carrier; make it once.

    Attributes:
        reliable: whether the carrier is: no padding, no cookies.
        max_datagram: bytes of its largest datagram; 1,200 where it is not reliable (W-4).
        parameters: ours, encoded.
    """

    reliable: bool
    max_datagram: int
    parameters: bytes
