"""The configuration of an endpoint: every parameter and every limit, validated when made.

One error names the parameter, the value and the allowed range. Configurations are frozen values: change one with
`attrs.evolve`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from hmac import compare_digest
from math import isfinite
from types import MappingProxyType
from typing import Any

from attrs import Attribute, field, frozen

from stt_proto.errors import ArgumentError
from stt_proto.identity import Identity, shared_seed_bytes
from stt_proto.tickets import MAX_EARLY_DATA
from stt_proto.types import CarrierTraits
from stt_proto.workers import WorkerIds

KIB = 1 << 10
MIB = 1 << 20

_Validator = Callable[[Any, "Attribute[Any]", Any], None]


def _refuse(name: str, value: object, allowed: str) -> ArgumentError:
    return ArgumentError(f"{name} is {value!r}; it must be {allowed}", argument=name)


def _whole(low: int, high: int) -> _Validator:
    """A whole number from `low` to `high`."""

    def check(_: Any, attribute: Attribute[Any], value: Any) -> None:
        if type(value) is not int or not low <= value <= high:
            raise _refuse(attribute.name, value, f"a whole number from {low:,} to {high:,}")

    return check


def _number(low: float, high: float, unit: str) -> _Validator:
    """A finite number from `low` to `high`."""

    def check(_: Any, attribute: Attribute[Any], value: Any) -> None:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not isfinite(value) or not low <= value <= high:
            raise _refuse(attribute.name, value, f"from {low:,} to {high:,} {unit}")

    return check


def _seconds(low: float, high: float) -> _Validator:
    return _number(low, high, "seconds")


def _per_second(low: float, high: float) -> _Validator:
    return _number(low, high, "a second")


def _flag(_: Any, attribute: Attribute[Any], value: Any) -> None:
    if not isinstance(value, bool):
        raise _refuse(attribute.name, value, "True or False")


@frozen
class Limits:
    """Everything that a peer, or anybody on the network, can make an endpoint hold or do (docs/protocol.md, 13).

    The numbers in the comments name the requirement that sets the default.
    """

    half_open: int = field(default=1024, validator=_whole(1, 1 << 20))  # H-21
    half_open_per_source: int = field(default=256, validator=_whole(1, 1 << 20))  # H-21, of those with a cookie
    half_open_without_cookie: int = field(default=128, validator=_whole(0, 1 << 20))  # H-21
    unfinished_without_cookie: int = field(default=1000, validator=_whole(0, 1 << 20))  # H-21, in 10 s
    challenge_repeats: int = field(default=32, validator=_whole(1, 1000))  # H-20
    challenges_tried: int = field(default=4, validator=_whole(1, 16))  # H-12
    failed_guesses_without_cookie: int = field(default=8, validator=_whole(0, 1000))  # H-23, a minute
    failed_guesses_burst: int = field(default=64, validator=_whole(1, 10_000))  # H-23
    failed_guesses_per_second: float = field(default=1.0, validator=_per_second(0.001, 1000))  # H-23
    sources: int = field(default=4096, validator=_whole(16, 1 << 20))  # H-23, in each of two tables
    piece_groups: int = field(default=64, validator=_whole(4, 1024))  # W-3
    held_packets: int = field(default=10, validator=_whole(0, 100))  # H-26
    held_bytes: int = field(default=16 * KIB, validator=_whole(0, MIB))  # H-26
    unsolicited_replies: int = field(default=100, validator=_whole(0, 10_000))  # H-28, of a kind, in 100 ms
    resets_per_second: int = field(default=10, validator=_whole(0, 10_000))  # P-14
    trains: int = field(default=32, validator=_whole(1, 1024))  # P-9
    train_bytes: int = field(default=2 * MIB, validator=_whole(128 * KIB, 256 * MIB))  # P-9
    train_bytes_in_all: int = field(default=64 * MIB, validator=_whole(128 * KIB, 4096 * MIB))  # P-9
    stream_pieces: int = field(default=1024, validator=_whole(16, 65_536))  # S-8
    session_pieces: int = field(default=16_384, validator=_whole(16, 1 << 20))  # S-8
    grown_windows: int = field(default=256 * MIB, validator=_whole(0, 1 << 40))  # S-13, of all sessions
    datagrams: int = field(default=256, validator=_whole(1, 65_536))  # S-11
    extension_frames: int = field(default=256, validator=_whole(1, 65_536))  # F-7, each way
    extension_bytes: int = field(default=256 * KIB, validator=_whole(2 * KIB, 256 * MIB))  # F-7, each way
    datagram_bytes: int = field(default=MIB, validator=_whole(64 * KIB, 256 * MIB))  # S-11
    detached_per_peer: int = field(default=4, validator=_whole(0, 1 << 20))  # M-11
    detached_bytes: int = field(default=64 * MIB, validator=_whole(0, 1 << 40))  # M-11, buffered in all of them
    suspicious_burst: int = field(default=1000, validator=_whole(10, 1 << 20))  # F-5
    suspicious_per_second: float = field(default=100.0, validator=_per_second(0.1, 1_000_000))  # F-5
    used_tickets: int = field(default=65_536, validator=_whole(0, 1 << 24))  # H-36
    failure_reports: int = field(default=1024, validator=_whole(1, 1 << 20))  # H-32, sources remembered


CARRIERS: Mapping[str, CarrierTraits] = MappingProxyType(
    {
        "udp": CarrierTraits(reliable=False, framed=True, max_packet=1200, overhead=28),
        "ws": CarrierTraits(reliable=True, framed=True, max_packet=65_535, overhead=14),
        "stream": CarrierTraits(reliable=True, framed=False, max_packet=65_535, overhead=2),
        "memory": CarrierTraits(reliable=True, framed=True, max_packet=65_535, overhead=0),
    }
)
"""The carriers that every configuration knows."""


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, Iterable) else value


def _carriers(value: Any) -> Any:
    return MappingProxyType({**CARRIERS, **value}) if isinstance(value, Mapping) else value


def _check_carriers(_: Any, attribute: Attribute[Any], value: Any) -> None:
    if not isinstance(value, Mapping):
        raise _refuse(attribute.name, value, "a mapping from names to CarrierTraits")
    for name, traits in value.items():
        entry = f"{attribute.name}[{name!r}]"
        if not isinstance(name, str) or not isinstance(traits, CarrierTraits):
            raise _refuse(entry, traits, "CarrierTraits, under a name that is text")
        if type(traits.max_packet) is not int or not 1200 <= traits.max_packet <= 65_535:
            raise _refuse(f"{entry}.max_packet", traits.max_packet, "a whole number from 1,200 to 65,535")
        probe = traits.max_probe
        if probe is not None and not (type(probe) is int and traits.max_packet <= probe <= 65_535):
            raise _refuse(f"{entry}.max_probe", probe, "None or a whole number from max_packet to 65,535")


def _check_numbers(*known: int) -> _Validator:
    def check(_: Any, attribute: Attribute[Any], value: Any) -> None:
        fits = isinstance(value, tuple) and all(type(number) is int and number in known for number in value)
        if not fits or not value or len(set(value)) != len(value):
            raise _refuse(attribute.name, value, f"some of {list(known)}, each once, the preferred first")

    return check


def _frozenset(value: Any) -> Any:
    try:
        return frozenset(value)
    except TypeError:
        return value


def _check_extension_frames(_: Any, attribute: Attribute[Any], value: Any) -> None:
    if not isinstance(value, frozenset) or not all(type(kind) is int and 0x80 <= kind <= 0xFF for kind in value):
        raise _refuse(attribute.name, value, "a set of types from 0x80 to 0xff")


def _check_application(_: Any, attribute: Attribute[Any], value: Any) -> None:
    try:
        fits = isinstance(value, str) and len(value.encode()) <= 255
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise _refuse(attribute.name, value, "text of at most 255 bytes in UTF-8")


def _check_reset_key(_: Any, attribute: Attribute[Any], value: Any) -> None:
    if value is not None and not (isinstance(value, bytes) and len(value) >= 32):
        raise ArgumentError(f"{attribute.name} must be None or at least 32 bytes", argument=attribute.name)


def _check_fleet_secret(_: Any, attribute: Attribute[Any], value: Any) -> None:
    if value is not None and not (isinstance(value, bytes) and len(value) == 32):
        raise ArgumentError(f"{attribute.name} must be None or 32 random bytes", argument=attribute.name)


def _one_of(*words: str) -> _Validator:
    def check(_: Any, attribute: Attribute[Any], value: Any) -> None:
        if value not in words:
            raise _refuse(attribute.name, value, " or ".join(map(repr, words)))

    return check


def _check_is(kind: type[Any], allowed: str) -> _Validator:
    """An object of one class. What it is instead is not quoted: it may be a secret in the wrong place."""

    def check(_: Any, attribute: Attribute[Any], value: Any) -> None:
        if not isinstance(value, kind):
            raise ArgumentError(
                f"{attribute.name} is of type {type(value).__name__}; it must be {allowed}", argument=attribute.name
            )

    return check


def _check_worker_ids(_: Any, attribute: Attribute[Any], value: Any) -> None:
    if value is not None and not isinstance(value, WorkerIds):
        kind = type(value).__name__
        raise ArgumentError(
            f"{attribute.name} is of type {kind}; it must be WorkerIds or None", argument=attribute.name
        )


def _check_congestion(_: Any, attribute: Attribute[Any], value: Any) -> None:
    if not isinstance(value, str) and not callable(value):
        raise ArgumentError(
            f"{attribute.name} is of type {type(value).__name__}; it must be the name of a congestion controller, or a "
            "factory of them",
            argument=attribute.name,
        )


@frozen(kw_only=True)
class Config:
    """What an endpoint is and how it behaves.

    Attributes:
        identity: who this node is; `Identity.from_seed`.
        shared_seed: who may talk to it: bytes, or text of any strength (a passphrase is safe).
        application: a name that both sides must share, up to 255 bytes; separates applications with one seed.
        versions: protocol versions spoken, the preferred first.
        suites: cipher suites spoken, the preferred first: 1 AES-256-GCM, 2 ChaCha20-Poly1305.
        keep_alive_interval: seconds of silence after which a sign of life is asked for.
        keep_alive_timeout: seconds of silence after which a path is lost, and the session with it, or detached, when
            it was the last (`detach_timeout`); more than twice the interval.
        handshake_timeout: seconds that a handshake may take.
        max_concurrent_sessions: sessions that this endpoint holds at once.
        max_concurrent_streams: streams of each kind that a peer may have open at once.
        default_max_frame_size: bytes that a stream puts into a packet while another stream waits.
        stream_receive_window: bytes of one stream that may lie unread here at first.
        max_stream_receive_window: bytes to which that grows when the application reads faster than the way can refill
            it (S-13); not at all when this is no more than `stream_receive_window`. So for the next two.
        stream_send_buffer: bytes of one stream that may wait here to be acknowledged at first.
        max_stream_send_buffer: bytes to which that grows when all of it is on its way and the peer takes more.
        session_receive_window: bytes of all streams together that may lie unread here at first. Rather more than
            `stream_receive_window`, so that one stream that is not read does not stall all others.
        max_session_receive_window: bytes to which that grows.
        max_datagram_size: the largest unreliable datagram taken, 0 for none.
        ack_delay: seconds that an acknowledgement may wait for company.
        no_delay: send small writes at once; False gathers them while earlier ones are unacknowledged.
        detach_timeout: seconds that a session without a path waits for one; with 0 it ends when its last path does.
        resumption_timeout: seconds that a ticket is good for; with less than 1 none is given, wanted or taken.
        fleet_secret: 32 random bytes that servers share which stand for one node (one node seed), so that each takes
            the tickets of all, and takes them after a restart; random for each endpoint when `None`. Never a seed.
        previous_fleet_secret: the one before, whose tickets are still taken.
        seed_generation: a number that goes into tickets; tickets with another are refused. Raise it when
            `shared_seed` changes, so that nobody comes in with a ticket from before.
        ticket_check: who remembers which tickets were used: `"memory"`, this endpoint for as long as it lives; or
            `"host"`, which is asked too (`TicketOffered`) and can remember for longer; or `"shared"`, which says that
            the host does so for all servers that take these tickets, and forgets none of them.
        max_early_data: bytes that may come with a ticket, before a first round trip, 0 (none) to 768. They are
            **replayable**: take what does no harm when it is done twice, and nothing else (`EarlyDataReceived`).
        rotate_after_seconds: age of a key at which it is replaced.
        rotate_after_bytes: bytes under a key at which it is replaced.
        rotate_after_packets: packets under a key at which it is replaced.
        congestion: the congestion controller: `"cubic"`, `"newreno"` or `"bbr"`, or a factory of one's own, called for
            each path with `(max_datagram_size, rtt)`; see docs/congestion.md.
        carriers: traits of carriers beyond, or instead of, "udp", "ws", "stream" and "memory".
        reset_key: secret of the stateless reset, at least 32 bytes; random for each endpoint when `None`. Give one
            so that a restarted server can tell its old peers at once.
        allow_self: whether a node may hold a session with itself.
        extension_frames: the application's own types of frames that are understood here, 0x80 to 0xff.
        worker_ids: which connection IDs are this endpoint's, where several stand behind one address; what comes for
            another is then given out as a `Stray`. `None` where it has the address for itself.
        limits: bounds on what peers can make this endpoint hold.

    Raises:
        ArgumentError: names the parameter, the value and the allowed range.
    """

    identity: Identity = field(validator=_check_is(Identity, "an Identity"))
    shared_seed: bytes = field(converter=shared_seed_bytes, repr=False)
    application: str = field(default="", validator=_check_application)
    versions: tuple[int, ...] = field(default=(1,), converter=_tuple, validator=_check_numbers(1))
    suites: tuple[int, ...] = field(default=(1, 2), converter=_tuple, validator=_check_numbers(1, 2))
    keep_alive_interval: float = field(default=10.0, validator=_seconds(0.05, 3600))
    keep_alive_timeout: float = field(default=30.0, validator=_seconds(0.1, 86_400))
    handshake_timeout: float = field(default=10.0, validator=_seconds(0.1, 600))
    max_concurrent_sessions: int = field(default=100, validator=_whole(1, 1 << 20))
    max_concurrent_streams: int = field(default=256, validator=_whole(0, 1 << 20))
    default_max_frame_size: int = field(default=16 * KIB, validator=_whole(1, 65_536))
    stream_receive_window: int = field(default=MIB, validator=_whole(1024, 1 << 30))
    max_stream_receive_window: int = field(default=10 * MIB, validator=_whole(0, 1 << 30))
    stream_send_buffer: int = field(default=MIB, validator=_whole(1024, 1 << 30))
    max_stream_send_buffer: int = field(default=10 * MIB, validator=_whole(0, 1 << 30))
    session_receive_window: int = field(default=MIB + MIB // 2, validator=_whole(1024, 1 << 30))
    max_session_receive_window: int = field(default=16 * MIB, validator=_whole(0, 1 << 30))
    max_datagram_size: int = field(default=65_535, validator=_whole(0, 65_535))
    ack_delay: float = field(default=0.025, validator=_seconds(0.0, 1.0))
    no_delay: bool = field(default=True, validator=_flag)
    detach_timeout: float = field(default=120.0, validator=_seconds(0.0, 86_400))
    resumption_timeout: float = field(default=86_400.0, validator=_seconds(0.0, 604_800))
    fleet_secret: bytes | None = field(default=None, repr=False, validator=_check_fleet_secret)
    previous_fleet_secret: bytes | None = field(default=None, repr=False, validator=_check_fleet_secret)
    seed_generation: int = field(default=0, validator=_whole(0, (1 << 32) - 1))
    ticket_check: str = field(default="memory", validator=_one_of("memory", "host", "shared"))
    max_early_data: int = field(default=0, validator=_whole(0, MAX_EARLY_DATA))
    rotate_after_seconds: float = field(default=3600.0, validator=_seconds(1.0, 86_400))
    rotate_after_bytes: int = field(default=1 << 30, validator=_whole(1 << 16, 1 << 40))
    rotate_after_packets: int = field(default=1 << 20, validator=_whole(1 << 8, 1 << 22))
    congestion: str | Callable[[int, Any], Any] = field(default="cubic", validator=_check_congestion)
    carriers: Mapping[str, CarrierTraits] = field(
        factory=dict, converter=_carriers, validator=_check_carriers, repr=False
    )
    reset_key: bytes | None = field(default=None, repr=False, validator=_check_reset_key)
    allow_self: bool = field(default=False, validator=_flag)
    extension_frames: frozenset[int] = field(
        default=frozenset(), converter=_frozenset, validator=_check_extension_frames
    )
    worker_ids: WorkerIds | None = field(default=None, repr=False, validator=_check_worker_ids)
    limits: Limits = field(factory=Limits, validator=_check_is(Limits, "a Limits"))

    def __attrs_post_init__(self) -> None:
        if self.identity.made_from(self.shared_seed):
            raise ArgumentError("node_seed and shared_seed must differ", argument="node_seed")
        for name in ("fleet_secret", "previous_fleet_secret"):
            secret = getattr(self, name)
            if secret is not None and (compare_digest(secret, self.shared_seed) or self.identity.made_from(secret)):
                raise ArgumentError(f"{name} must be neither of the seeds", argument=name)
        if self.keep_alive_timeout <= 2 * self.keep_alive_interval:
            allowed = f"more than twice keep_alive_interval, which is {self.keep_alive_interval:g} seconds"
            raise _refuse("keep_alive_timeout", self.keep_alive_timeout, allowed)
