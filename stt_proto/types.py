"""The values that cross the border of the core: paths, carriers, transmits, deadlines, states, counters."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from enum import Enum, StrEnum
from ipaddress import IPv6Address, ip_address

from attrs import define, field, frozen

Buffer = bytes | bytearray | memoryview
"""Anything that holds bytes; borrowed for the call, never kept."""
Source = bytes | str
"""Who counts as one (H-23): an IPv4 address (4 bytes), a /56 of IPv6 (7 bytes), or the text of what is neither."""

_IPV6_PREFIX = 7  # bytes: a /56


class SessionState(Enum):
    """Where a session stands. The transitions are the table in `stt_proto.session.states`."""

    INIT = "init"
    HANDSHAKING = "handshaking"
    ESTABLISHED = "established"
    CLOSING = "closing"
    CLOSED = "closed"


class CloseReason(StrEnum):
    """Why a session ended, in one word; a member equals its word as a string."""

    GRACEFUL = "graceful"
    TIMEOUT = "timeout"
    ERROR = "error"
    AUTH_FAILURE = "auth_failure"


class HandshakeStep(StrEnum):
    """The four messages of the handshake, in order; and the two of a resumption."""

    HELLO = "hello"
    CHALLENGE = "challenge"
    AUTH_PROOF = "auth_proof"
    FINAL = "final"
    RESUME = "resume"
    RESUMED = "resumed"


@frozen(eq=True, cache_hash=True)
class NetworkPath:
    """One way to the peer: a carrier and the two ends of it.

    An opaque value for the core, which compares it and uses it as a key. Hosts intern them: one object per path.

    Attributes:
        carrier: a name in `Config.carriers`, such as `"udp"`.
        local: this end, anything hashable (an address tuple, a number).
        remote: the other end. For carriers whose addresses can be forged it is what cookies and the metering of
            guesses are bound to: a tuple `(host, port, ...)` with the host as text.
    """

    carrier: str
    local: Hashable
    remote: Hashable

    @property
    def remote_host(self) -> str:
        """The host part of `remote`, or its text when it is not an address tuple."""
        remote = self.remote
        return str(remote[0] if isinstance(remote, tuple) and remote else remote)


def source_of(path: NetworkPath) -> Source:
    """The source that what comes in on this path, guesses and strangers' connections, is counted under."""
    host = path.remote_host
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        return address.packed[:_IPV6_PREFIX] if mapped is None else mapped.packed
    return address.packed


class PathStatus(Enum):
    """What is known of a path of a session.

    `VALIDATING`: whether the peer is there is being asked. `SPARE`: it is, and the session could go on there. `ACTIVE`:
    this is where the session sends.
    """

    VALIDATING = "validating"
    SPARE = "spare"
    ACTIVE = "active"


@frozen(kw_only=True)
class PathInfo:
    """One path of a session; a snapshot.

    Attributes:
        path: the addresses.
        status: what is known of it.
        opened_here: whether this side has added it; if not, the peer came from there.
        rtt: smoothed round trip in seconds, `None` before the first sample.
        congestion_window: bytes that may be in flight.
        bytes_in_flight: bytes that are.
        packets_lost: packets declared lost.
        mtu: bytes of the largest datagram.
    """

    path: NetworkPath
    status: PathStatus
    opened_here: bool
    rtt: float | None
    congestion_window: int
    bytes_in_flight: int
    packets_lost: int
    mtu: int

    @property
    def active(self) -> bool:
        """Whether this is where the session sends."""
        return self.status is PathStatus.ACTIVE


@frozen
class CarrierTraits:
    """What the core must know of a kind of carrier.

    Attributes:
        reliable: what is handed over arrives, once and in order, or the carrier ends. No padding, cookie or
            address validation is needed, and no packet is larger than one message.
        framed: the carrier keeps the borders of messages (datagrams, WebSocket messages).
        max_packet: the largest message in bytes, 1,200 to 65,535. Where it is not known, what is always safe.
        overhead: bytes that the carrier adds to each message below this layer; counted in statistics only.
        max_probe: the largest message that may pass, and up to which the core therefore probes; `None` for
            `max_packet`. Give one only where messages are never cut on the way, that is with DF set
            (docs/protocol.md, P-17).
    """

    reliable: bool
    framed: bool
    max_packet: int
    overhead: int
    max_probe: int | None = None


@frozen
class Stray:
    """A datagram that came here and is another worker's (docs/protocol.md, C-8).

    Attributes:
        worker: the index of the worker that it is for; `None` when that cannot be known, and all others are to have it.
        datagram: all of it.
        path: where it came from.
        ecn: the two ECN bits that came with it.
    """

    worker: int | None
    datagram: bytes
    path: NetworkPath
    ecn: int


@frozen(eq=False)
class Transmit:
    """Bytes to be sent on one path, in one system call where the system can segment.

    Attributes:
        path: where to.
        buffers: immutable buffers; their concatenation is the run of datagrams, and none crosses a segment border.
        segment_size: all datagrams but the last have this size; `None` when there is only one.
        ecn: the two ECN bits to set, 0 when not marking.
    """

    path: NetworkPath
    buffers: tuple[bytes | memoryview, ...]
    segment_size: int | None = None
    ecn: int = 0

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(map(len, self.buffers))

    def datagrams(self) -> Iterator[bytes]:
        """Split into single datagrams, for a host without segmentation."""
        if self.segment_size is None:
            yield b"".join(self.buffers)
            return
        whole = b"".join(self.buffers)
        for start in range(0, len(whole), self.segment_size):
            yield whole[start : start + self.segment_size]


@frozen
class Deadline:
    """When `Endpoint.tick` wants to be called next, and why.

    Attributes:
        at: seconds on the clock of `now`; may lie in the past, then the time is now.
        reason: one word for a person: which timer it is (docs/protocol.md, "Timers").
    """

    at: float
    reason: str = field(default="")


@define
class EndpointCounters:
    """What the endpoint dropped, because it concerned nobody or was not fit to be looked at.

    Attributes:
        malformed: neither a packet nor a handshake message.
        damaged: handshake datagrams whose check did not fit.
        misdirected: packets for nobody here.
        overtaking: packets that came before their session had keys, and were too many to be held (H-26).
        refused: handshake messages that led to nothing.
        resets_sent: stateless resets.
        outbox_dropped: answers that the host did not take in time.
        strays_dropped: datagrams for other workers that the host did not take in time.
        trace_faults: observers that raised, and were switched off.
    """

    malformed: int = 0
    damaged: int = 0
    misdirected: int = 0
    overtaking: int = 0
    refused: int = 0
    resets_sent: int = 0
    outbox_dropped: int = 0
    strays_dropped: int = 0
    trace_faults: int = 0
