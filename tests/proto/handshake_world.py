"""One responder, any number of initiators, and between them a network that the tests are."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from hashlib import shake_256
from math import inf
from typing import Any

from stt_proto.config import Limits
from stt_proto.crypto import MLKEM768
from stt_proto.errors import ProtocolError
from stt_proto.handshake import (
    Accepted,
    Challenged,
    Dropped,
    Initiator,
    Outcome,
    PieceCollector,
    Reason,
    Reply,
    Responder,
    Terms,
)
from stt_proto.identity import Identity
from stt_proto.types import NetworkPath
from stt_proto.wire import Hello, Message, MessageType, Parameters, Piece, decode_datagram_untrusted, encode_datagram

SEED = b"correct horse battery staple"
SERVER = ("192.0.2.1", 4433)
CLIENT = ("198.51.100.7", 50000)
ALICE, BOB, CAROL = (Identity.from_seed(bytes((number,)) * 32) for number in (1, 2, 3))

SMALL_ORDER = tuple(
    bytes.fromhex(point)
    for point in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
)
"""Points whose multiple by any clamped scalar is zero (H-4)."""


def path_of(remote: Any = CLIENT, carrier: str = "udp") -> NetworkPath:
    """The path on which the responder sees an initiator."""
    return NetworkPath(carrier, SERVER, remote)


class Entropy:
    """Random bytes that are the same in every run."""

    def __init__(self, seed: object) -> None:
        self._seed = repr(seed).encode()
        self._drawn = 0

    def __call__(self, size: int) -> bytes:
        self._drawn += 1
        return shake_256(self._seed + b"|%d" % self._drawn).digest(size)


class SteadyEntropy(Entropy):
    """The same for dials whose waits are to be as they are without jitter (H-18): it comes from sid, drawn first."""

    def __call__(self, size: int) -> bytes:
        return b"\x80" * 16 + super().__call__(size)[16:]


class World:
    """A responder (Bob, unless told otherwise) and what an endpoint would do around it."""

    def __init__(self, *, limits: Limits | None = None, reliable: bool = False, **changes: Any) -> None:
        self.entropy = Entropy("world")
        self.reliable = reliable
        self.max_datagram = 65_535 if reliable else 1200
        self.issued: list[bytes] = []
        self.parameters = Parameters(max_data=200, max_packet=9000)
        self.terms = Terms(reliable, self.max_datagram, self.parameters.encode())
        self.pieces = PieceCollector()
        self.responder = Responder(
            **{
                "identity": BOB,
                "shared_seed": SEED,
                "application": "test",
                "versions": (1,),
                "suites": (1, 2),
                "kem": MLKEM768(),
                "entropy": self.entropy,
                "limits": limits or Limits(),
                **changes,
            }
        )

    def dial(self, now: float = 0.0, **changes: Any) -> Initiator:
        """Alice dials; its HELLO is yet to be taken."""
        return Initiator(
            **{
                "identity": ALICE,
                "shared_seed": SEED,
                "application": "test",
                "versions": (1,),
                "suites": (1, 2),
                "parameters": Parameters(max_data=100, max_ack_delay=5),
                "local_cid": self.entropy(8),
                "reliable": self.reliable,
                "max_datagram": self.max_datagram,
                "entropy": self.entropy,
                "kem": MLKEM768(),
                "now": now,
                **changes,
            }
        )

    def issue(self) -> bytes:
        self.issued.append(self.entropy(8))
        return self.issued[-1]

    def hear(
        self,
        datagram: bytes,
        now: float = 0.0,
        path: NetworkPath | None = None,
        refusal: int | None = None,
        live_keys: Container[bytes] = (),
    ) -> Outcome:
        """The responder's endpoint receives a datagram."""
        try:
            message = decode_datagram_untrusted(datagram)
        except ProtocolError:
            return Dropped(Reason.MALFORMED)
        return self.responder.on_message(
            whole(message),
            path or path_of(),
            now,
            terms=self.terms,
            size=len(datagram),
            issue=self.issue,
            refusal=refusal,
            live_keys=live_keys,
        )

    def tell(self, initiator: Initiator, datagrams: Iterable[bytes], now: float = 0.0) -> None:
        """The initiator's endpoint receives datagrams."""
        for datagram in datagrams:
            try:
                received: Message | Piece | None = decode_datagram_untrusted(datagram)
            except ProtocolError:
                continue
            if isinstance(received, Piece):
                received = self.pieces.add(received, path_of(), self.reliable, now)
            if received is not None:
                initiator.on_message(received, now)

    def challenge(self, initiator: Initiator, now: float = 0.0, path: NetworkPath | None = None) -> Challenged:
        """HELLO goes out and begins a handshake."""
        (hello,) = initiator.take(now)
        outcome = self.hear(hello, now, path)
        assert isinstance(outcome, Challenged), outcome
        return outcome

    def shake(self, initiator: Initiator, now: float = 0.0, path: NetworkPath | None = None) -> Accepted:
        """A whole handshake, asked for a cookie or not, over a network that loses nothing."""
        (hello,) = initiator.take(now)
        outcome = self.hear(hello, now, path)
        if isinstance(outcome, Reply):
            self.tell(initiator, outcome.datagrams, now)
            (hello,) = initiator.take(now)
            outcome = self.hear(hello, now, path)
        assert isinstance(outcome, Challenged), outcome
        self.tell(initiator, outcome.half_open.datagrams, now)
        (proof,) = initiator.take(now)
        accepted = self.hear(proof, now, path)
        assert isinstance(accepted, Accepted), accepted
        return accepted


def in_grace(initiator: Initiator) -> bool:
    """Whether a dial has heard something that speaks against it (H-13). This looks into it."""
    return initiator._grace_at < inf


def whole(message: Message | Piece) -> Message:
    assert isinstance(message, Message)
    return message


def message_of(datagrams: Sequence[bytes]) -> Message:
    """The message that these datagrams carry."""
    pieces = PieceCollector()
    for datagram in datagrams:
        received = decode_datagram_untrusted(datagram)
        message = received if isinstance(received, Message) else pieces.add(received, path_of(), True, 0.0)
    assert message is not None
    return message


def spoofed_hello(entropy: Entropy, **changes: Any) -> bytes:
    """A HELLO that anybody can make up: its keys are random points, nobody waits for the answer."""
    fields = {
        "versions": (1,),
        "suites": (1, 2),
        "sid": entropy(16),
        "e": entropy(32),
        "share": entropy(32),
        "parameters": b"",
        **changes,
    }
    return encode_datagram(Message(MessageType.HELLO, entropy(8), entropy(8), Hello(**fields).encode()), 1200)
