"""What the targets that fuzz a whole endpoint share: small endpoints, and a peer that holds the keys.

Everything is a function of its arguments: entropy and key encapsulation come from a seed, time is a number. The limits
are small, so that short inputs reach them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from hashlib import sha256
from typing import Any

from attrs import frozen
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from stt_proto.config import Config, Limits
from stt_proto.crypto import Kem, cpace, x25519
from stt_proto.endpoint import OUTBOX, Endpoint
from stt_proto.handshake import Accepted, Challenged, Initiator, PieceCollector, Responder, SessionSecrets, Terms
from stt_proto.identity import Identity
from stt_proto.packet import PacketKeys, PacketReceiver, ResetTokens, Sealer, TrainBudget
from stt_proto.session import Session
from stt_proto.testing import DeterministicKem, SeededEntropy
from stt_proto.types import NetworkPath
from stt_proto.wire import (
    Ack,
    Frame,
    Message,
    NewConnectionId,
    Parameters,
    Piece,
    decode_datagram_untrusted,
    decode_frames_untrusted,
    decoders_for,
)
from stt_proto.wire.header import FORM_BIT

SHARED_SEED = b"the seed that the targets share"
APPLICATION = "fuzz"
RESET_KEY = b"the key of the stateless resets."
OURS, THEIRS, OTHER = (Identity.from_seed(bytes((number,)) * 32) for number in (1, 2, 3))

LIMITS = Limits(
    half_open=8,
    half_open_without_cookie=3,
    unfinished_without_cookie=16,
    challenge_repeats=3,
    failed_guesses_without_cookie=3,
    failed_guesses_burst=6,
    sources=16,
    piece_groups=8,
    held_packets=3,
    held_bytes=4096,
    unsolicited_replies=16,
    resets_per_second=3,
    trains=4,
    train_bytes=1 << 17,
    train_bytes_in_all=1 << 17,
    stream_pieces=16,
    session_pieces=24,
    datagrams=4,
    datagram_bytes=1 << 16,
    extension_frames=4,
    extension_bytes=2048,
    suspicious_burst=40,
    suspicious_per_second=10.0,
    failure_reports=4,
)
CHANGES: dict[str, Any] = {
    "max_concurrent_sessions": 4,
    "max_concurrent_streams": 8,
    "stream_receive_window": 4096,
    "max_stream_receive_window": 8192,
    "stream_send_buffer": 4096,
    "max_stream_send_buffer": 8192,
    "session_receive_window": 8192,
    "max_session_receive_window": 12_288,
    "extension_frames": [0x80, 0xFF],
    "max_datagram_size": 1000,
    "default_max_frame_size": 700,
}
CONFIG = Config(
    identity=OURS,
    shared_seed=SHARED_SEED,
    application=APPLICATION,
    reset_key=RESET_KEY,
    limits=LIMITS,
    **CHANGES,
)
PARAMETERS = Parameters(
    max_data=6000,
    max_stream_data=3000,
    max_streams_bidi=3,
    max_streams_uni=2,
    max_datagram=1000,
    max_packet=65_535,
    max_segments=64,
    connection_id_limit=4,
    extension_frames=[0x20, 0x24, 0x25, 0x26, 0x80],
)
"""What the peer announces."""

DECODERS = decoders_for(PARAMETERS.extension_frames)
"""Those of the peer."""

BEGIN = 1000.0
"""When everything begins, in seconds."""
MAX_TRANSMITS = 5000
"""Packets that an endpoint may want to send at one moment; more is a loop."""
MAX_TICKS = 2000
"""Times that it may want to be woken until it rests; more is a loop."""


def remember_curves() -> None:
    """Compute each multiplication on the curve once a run.

    They are half of the time of a handshake and no part of what is fuzzed here, and in one input after the other they
    are the same. Only for a process that does nothing else: it replaces functions of `stt_proto.crypto`.
    """
    load = lru_cache(1 << 12)(x25519._load_private)

    @lru_cache(1 << 14)
    def multiply(scalar: bytes, point: bytes) -> bytes:
        return load(scalar).exchange(X25519PublicKey.from_public_bytes(point))

    @lru_cache(1 << 12)
    class Scalar:
        def __init__(self, scalar: bytes) -> None:
            self._scalar = scalar
            self.public_key = lru_cache(load(scalar).public_key)

        def exchange(self, point: X25519PublicKey) -> bytes:
            return multiply(self._scalar, point.public_bytes_raw())

    x25519._load_private = Scalar  # type: ignore[assignment]
    cpace.generator = lru_cache(1 << 12)(cpace.generator)


def path_of(host: str = "192.0.2.7", carrier: str = "udp") -> NetworkPath:
    """A path to a peer."""
    return NetworkPath(carrier, ("203.0.113.1", 4433), (host, 5000))


def make_endpoint(config: Config = CONFIG, kem: Kem | None = None) -> Endpoint:
    """A fresh endpoint, always the same."""
    return Endpoint(
        config,
        now=BEGIN,
        unix_time=1.7e9,
        entropy=SeededEntropy("endpoint"),
        kem=kem or DeterministicKem(SeededEntropy("endpoint's KEM")),
    )


def make_initiator(suite: int, carrier: str, name: str = "initiator", **changes: Any) -> Initiator:
    """The other side of an endpoint that is dialled; its first message waits in `take`."""
    entropy = SeededEntropy(name)
    reliable = CONFIG.carriers[carrier].reliable
    options = {
        "identity": THEIRS,
        "shared_seed": SHARED_SEED,
        "application": APPLICATION,
        "versions": (1,),
        "suites": (suite,),
        "parameters": PARAMETERS,
        "local_cid": entropy(8),
        "reliable": reliable,
        "max_datagram": 65_535 if reliable else 1200,
        "entropy": entropy,
        "kem": DeterministicKem(entropy),
        "now": BEGIN,
    }
    return Initiator(**{**options, **changes})


def make_responder(suite: int, name: str = "responder", **changes: Any) -> Responder:
    """The other side of an endpoint that dials."""
    entropy = SeededEntropy(name)
    options = {
        "identity": THEIRS,
        "shared_seed": SHARED_SEED,
        "application": APPLICATION,
        "versions": (1,),
        "suites": (suite,),
        "kem": DeterministicKem(entropy),
        "entropy": entropy,
        "limits": LIMITS,
    }
    return Responder(**{**options, **changes})


def challenge_from(responder: Responder, hello: bytes, path: NetworkPath) -> Challenged:
    """What a responder that stands alone makes of a HELLO."""
    reliable = CONFIG.carriers[path.carrier].reliable
    outcome = responder.on_message(
        message_in([hello]),
        path,
        BEGIN,
        terms=Terms(reliable, 65_535 if reliable else 1200, PARAMETERS.encode()),
        size=len(hello),
        issue=lambda: SeededEntropy(hello.hex())(8),
    )
    assert isinstance(outcome, Challenged), outcome
    return outcome


def message_in(datagrams: Iterable[bytes]) -> Message:
    """The handshake message that these datagrams carry."""
    pieces = PieceCollector()
    for datagram in datagrams:
        decoded = decode_datagram_untrusted(datagram)
        message = pieces.add(decoded, path_of(), True, 0.0) if isinstance(decoded, Piece) else decoded
        if message is not None:
            return message
    raise AssertionError("no message is complete")


def with_check(datagram: bytes) -> bytes:
    """The same handshake datagram with the check that fits (W-1), if it is long enough to have one."""
    if len(datagram) < 9:
        return datagram
    check = sha256(b"stt1 check" + datagram[:1] + datagram[9:]).digest()[:8]
    return datagram[:1] + check + datagram[9:]


# -- an established session, and its peer --------------------------------------------------------------------------


@frozen
class Recording:
    """How an endpoint comes to a session: since all is deterministic, the same inputs give the same keys again.

    Attributes:
        dials: whether the endpoint is the initiator.
        path: of the session, as the endpoint sees it.
        inputs: the datagrams that it takes in on the way.
        secrets: of the session, as the peer has them.
        cid: the endpoint's connection ID.
        peer_cid: the peer's.
    """

    dials: bool
    path: NetworkPath
    inputs: tuple[bytes, ...]
    secrets: SessionSecrets
    cid: bytes
    peer_cid: bytes


def send_all(endpoint: Endpoint, now: float) -> list[bytes]:
    """Take everything that an endpoint wants to send now, as datagrams."""
    sent: list[bytes] = []
    for transmit in endpoint.transmits(now):
        sent += transmit.datagrams()
        assert len(sent) <= MAX_TRANSMITS, "sends without end"
    return sent


@cache
def recorded(dials: bool, suite: int, carrier: str = "udp", host: str = "192.0.2.7") -> Recording:
    """Do a handshake with a fresh endpoint and write it down."""
    return record(make_endpoint(), dials, suite, carrier, host)


def record(endpoint: Endpoint, dials: bool, suite: int, carrier: str, host: str) -> Recording:
    """Do a handshake and write it down. For another endpoint it holds if that has done the same before."""
    path = path_of(host, carrier)
    if dials:
        endpoint.connect(path, now=BEGIN)
        responder = make_responder(suite, f"responder at {host}")
        (hello,) = send_all(endpoint, BEGIN)
        inputs = challenge_from(responder, hello, path).half_open.datagrams
        for datagram in inputs:
            endpoint.receive(datagram, path, BEGIN)
        outcome = responder.on_message(
            message_in(send_all(endpoint, BEGIN)),
            path,
            BEGIN,
            terms=Terms(True, 65_535, b""),
            size=1200,
            issue=bytes,
        )
        assert isinstance(outcome, Accepted), outcome
        established = outcome.established
    else:
        initiator = make_initiator(suite, carrier, f"initiator at {host}")
        first = initiator.take(BEGIN)
        for datagram in first:
            endpoint.receive(datagram, path, BEGIN)
        initiator.on_message(message_in(send_all(endpoint, BEGIN)), BEGIN)
        proof = initiator.take(BEGIN)
        for datagram in proof:
            endpoint.receive(datagram, path, BEGIN)
        inputs = (*first, *proof)
        assert initiator.established is not None
        established = initiator.established
    send_all(endpoint, BEGIN)
    return Recording(dials, path, inputs, established.secrets, established.peer_cid, established.local_cid)


class Peer:
    """An endpoint with a session, and whoever sits at its other end and has the keys.

    Attributes:
        endpoint: under test.
        session: its session. One that it dialled still waits for the first packet (`PING` will do).
        path: of the session.
        cids: connection IDs by which the session can be reached, as far as it has told them, by number.
        next_number: the next packet number that the peer would use in order.
        used: numbers of packets that the peer has made.
        seen: numbers of the packets that the session has sent.
    """

    def __init__(self, recording: Recording, endpoint: Endpoint | None = None) -> None:
        self.endpoint = endpoint = endpoint or make_endpoint()
        self.path = path = recording.path
        before = set(endpoint.sessions)
        dialled = endpoint.connect(path, now=BEGIN) if recording.dials else None
        send_all(endpoint, BEGIN)
        for datagram in recording.inputs:
            endpoint.receive(datagram, path, BEGIN)
        if dialled is None:
            (session_id,) = endpoint.sessions.keys() - before
            dialled = endpoint.sessions[session_id]
        self.session: Session = dialled
        secrets = recording.secrets
        initiator = PacketKeys(secrets.suite, secrets.initiator_traffic, secrets.initiator_header)
        responder = PacketKeys(secrets.suite, secrets.responder_traffic, secrets.responder_header)
        self._keys, keys_of_session = (responder, initiator) if recording.dials else (initiator, responder)
        self._receiver = PacketReceiver(keys_of_session, TrainBudget())
        self._version = 0
        self._peer_cid = recording.peer_cid
        self.cids = {0: recording.cid}
        self.next_number = 0
        self.used: set[int] = set()
        self.seen: list[int] = []

    def seal(self, plain: bytes, number: int | None = None, size: int = 1200, cid: bytes | None = None) -> list[bytes]:
        """The datagrams of a packet of the peer's; with the next number, or any: who has the keys may do that."""
        if number is None:
            number = self.next_number
        self.next_number = max(self.next_number, number + 1)
        self.used.add(number)
        buffers, _, _ = Sealer(self._keys).seal(number, cid or self.cids[min(self.cids)], [plain], size)
        whole = b"".join(buffers)
        return [whole[start : start + size] for start in range(0, len(whole), size)]

    def follow(self) -> None:
        """Use the newest keys of which the session knows. Where they come from is tested with vectors."""
        if self.session._engines is not None:
            openers = self.session._engines.receiver._openers.values()
            self._keys = max((opener.keys for opener in openers), key=lambda keys: keys.version)

    def take(self, now: float) -> list[Frame]:
        """Take what the endpoint sends now and look into what is for the peer; give the frames.

        Raises:
            AssertionError: it does not open, does not parse, or acknowledges what was never sent.
        """
        frames: list[Frame] = []
        engines = self.session._engines
        if engines is not None and engines.sealer.keys.version != self._version:
            self._version = engines.sealer.keys.version
            self._receiver = PacketReceiver(engines.sealer.keys, TrainBudget())
        for datagram in send_all(self.endpoint, now):
            if datagram[0] & FORM_BIT or datagram[1:9] != self._peer_cid:
                continue
            (opened,) = self._receiver.receive(datagram, 0, len(datagram), None, self.path, now, True) or (None,)
            if opened is None:
                assert datagram[0] & 0x20, "the session sent what its peer cannot open"
                continue
            self.seen.append(opened.number)
            for frame in decode_frames_untrusted(opened.plain, DECODERS):
                if isinstance(frame, Ack):
                    self._check_ack(frame)
                elif isinstance(frame, NewConnectionId):
                    self.cids[frame.number] = frame.connection_id
                frames.append(frame)
        return frames

    def _check_ack(self, ack: Ack) -> None:
        for low, high in ack.ranges:
            assert high - low < len(self.used), "the session acknowledges what was never sent"
            assert self.used.issuperset(range(low, high + 1)), "the session acknowledges what was never sent"


# -- what an endpoint holds, and what it must not ------------------------------------------------------------------


def check_bounds(endpoint: Endpoint) -> None:
    """Everything that others can make grow is within its limits (docs/protocol.md, section 13).

    This looks into the endpoint, as the targets do nowhere else.
    """
    context, responder, limits = endpoint._context, endpoint._responder, endpoint.config.limits
    live = len(context.live)
    assert len(endpoint.sessions) <= live <= endpoint.config.max_concurrent_sessions
    assert len(responder) <= limits.half_open
    assert len(responder._by_hello) <= 2 * limits.half_open
    assert len(responder._guesses) <= 2 * limits.sources
    assert all(count <= limits.half_open_per_source for count in responder._places.values())
    assert sum(responder._places.values()) + len(responder._unproven) == len(responder)
    assert len(context.pieces) <= limits.piece_groups
    assert len(endpoint._outbox) <= OUTBOX
    assert len(endpoint._reports) <= limits.failure_reports
    assert len(context.dial_keys) <= live
    assert context.train_budget.cost <= limits.train_bytes_in_all
    trains = 0
    for session in context.live:
        check_session_bounds(session)
        trains += 0 if session._engines is None else session._engines.receiver.trains.cost
    assert trains == context.train_budget.cost, "the bytes of trains do not add up"
    for half_open in responder._by_cid.values():
        assert len(half_open.held) <= limits.held_packets
        assert sum(map(len, half_open.held)) <= limits.held_bytes


def check_session_bounds(session: Session) -> None:
    """The same for one session; without keys it holds nothing."""
    engines, config = session._engines, session._context.config
    if engines is None:
        return
    limits = config.limits
    assert len(engines.receiver._openers) <= 2
    assert len(engines.receiver.trains) <= limits.trains
    assert engines.receiver.trains.cost <= limits.train_bytes
    assert len(engines.receiver.trains._finished) <= 256
    assert len(engines.receiver.window._older) <= 130
    assert len(engines.acks._older) < 32
    assert len(engines.control.ready) <= 400
    assert len(engines.local_ids.live) <= 4
    assert len(engines.local_ids._retired) <= 64
    over = session.is_closed  # then what was too much may still be there
    assert len(engines.remote_ids._live) <= 4 + over
    assert len(engines.remote_ids._retiring) <= 64 + 4 * over
    assert len(engines.remote_ids._retired) <= 256 + over
    incoming = engines.datagrams._incoming
    if incoming is not None:
        assert len(incoming.items) <= limits.datagrams
        assert incoming.bytes == sum(map(len, incoming.items)) <= limits.datagram_bytes
    streams = engines.streams
    ours = sum(stream.id & 1 == streams._parity for stream in streams)
    assert len(streams) - ours <= 2 * config.max_concurrent_streams
    assert engines.path.recovery.bytes_in_flight >= 0
    window = streams.window
    assert session.is_closed or 0 <= window.consumed <= window.received <= window.limit
    assert window.limit <= window.consumed + window.size
    pieces = 0
    for stream in streams:
        recv = stream.recv
        if recv is None:
            continue
        own = recv.window
        assert session.is_closed or 0 <= own.consumed <= own.received <= own.limit
        assert own.limit <= own.consumed + own.size
        held = sum(map(len, recv._chunks))
        if recv._holes:
            pieces += len(recv._holes)
            held += sum(size + sum(map(len, chunks)) for _, size, chunks in recv._holes)
        if recv._pieces is not None:
            pieces += len(recv._pieces)
            assert len(recv._pieces) <= limits.stream_pieces
            held += sum(len(chunk) for run in recv._pieces._runs for chunk in run)
        assert held <= own.size
    assert over or pieces == streams._hub.pieces <= limits.session_pieces


def held_for_sessions(endpoint: Endpoint) -> dict[str, int]:
    """What an endpoint still holds for sessions and handshakes, by table; nothing once they are over."""
    context = endpoint._context
    held = {
        "connection IDs": len(context.connection_ids),
        "sessions begun": len(context.live),
        "sessions": len(context.sessions),
        "sessions to be armed": len(context.unarmed),
        "dials": len(context.dial_keys),
        "reset tokens": len(context.expected_resets),
        "trains": len(context.train_budget),
        "bytes of trains": context.train_budget.cost,
        "half-open": len(endpoint._responder),
        "pieces": len(context.pieces),
    }
    return {name: count for name, count in held.items() if count}


def live_reset_tokens(endpoint: Endpoint) -> Iterator[bytes]:
    """The tokens that would reset a session of the endpoint: nobody but the peer is ever told one."""
    tokens = ResetTokens(RESET_KEY)
    for connection_id, owner in endpoint._context.connection_ids._owners.items():
        if isinstance(owner, Session):
            yield tokens.token(connection_id)


def let_time_pass(endpoint: Endpoint, now: float, until: float) -> float:
    """Do what a host does until a time: tick when that is asked for, send, take events. Gives that time.

    Raises:
        AssertionError: the endpoint wants to be woken for ever at one moment, or without end.
    """
    for _ in range(MAX_TICKS):
        deadline = endpoint.next_deadline()
        if deadline is None or deadline.at > until:
            break
        now = max(now, deadline.at)
        endpoint.tick(now)
        send_all(endpoint, now)
        for _ in endpoint.events():
            pass
    else:
        raise AssertionError(f"wants to be woken for ever: {endpoint.next_deadline()}")
    endpoint.tick(until)
    return until
