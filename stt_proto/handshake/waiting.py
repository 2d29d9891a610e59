"""What waits in the responder's table: a full handshake for its AUTH_PROOF, or a resumption for its first packet.

The two have in common how they came here, how long they stay, that their answer is repeated from store, and that they
hold what overtakes the message for which they wait.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import field, frozen

from stt_proto.crypto import Kem, Secret
from stt_proto.identity import Identity
from stt_proto.types import NetworkPath, Source
from stt_proto.wire import Hello, Parameters

LONGEST_SAMPLE = 0.333
"""Seconds; a longer round trip is not believed. AUTH_PROOF may have been repeated, which cannot be seen from here, and
a session that begins with a round trip of seconds repeats its first packets too late. (RFC 9002, 6.2.2: this is what
is assumed where nothing is known.)"""


@frozen(kw_only=True, eq=False)
class Answerer:
    """What a responder brings into every handshake.

    Attributes:
        identity: who it is.
        shared_seed: PRS of CPace.
        channel: CI of CPace.
        kem: the key encapsulation.
        allow_self: whether a peer may have our own node id.
        challenge_repeats: how often a stored CHALLENGE is sent again.
        held_packets: packets that may overtake AUTH_PROOF.
        held_bytes: bytes of these.
    """

    identity: Identity
    shared_seed: bytes = field(repr=False)
    channel: bytes
    kem: Kem
    allow_self: bool
    challenge_repeats: int
    held_packets: int
    held_bytes: int


@frozen(kw_only=True)
class Caller:
    """Who asks, as far as that is known.

    Attributes:
        hello_hash: the name of the first message.
        scid: the initiator's connection ID.
        path: where it came from.
        source: what its guesses are counted under.
        proven: whether that address was shown: by a cookie, or by a reliable carrier.
    """

    hello_hash: bytes
    scid: bytes
    path: NetworkPath
    source: Source
    proven: bool


@frozen(kw_only=True)
class Offer(Caller):
    """A HELLO that is worth an answer, and what was decided about it.

    Attributes:
        hello: decoded.
        transcript: its type, connection IDs and core, as both sides hash them.
        parameters: the initiator's.
        version: chosen from those offered.
        suite: chosen from those offered.
    """

    hello: Hello
    transcript: bytes
    parameters: Parameters
    version: int
    suite: int


class Waiting(Secret):
    """One entry of the table.

    Attributes:
        path: the path on which it began.
        local_cid: our connection ID.
        peer_cid: the initiator's.
        hello_hash: of the message that began it.
        source: what its guess is counted under.
        proven: whether it came with a cookie or over a reliable carrier.
        began_at: seconds; when the message came.
        deadline: seconds; when it is given up.
        datagrams: the answer, as it was and will be sent (W-5); none as long as there is none.
        held: packets that came too early, in order (H-26).
        begun: whether its session has begun before the proof, since early data came (H-40); it begins no other.
    """

    __slots__ = (
        "_answerer",
        "_held_bytes",
        "_repeats",
        "began_at",
        "begun",
        "datagrams",
        "deadline",
        "held",
        "hello_hash",
        "local_cid",
        "path",
        "peer_cid",
        "proven",
        "source",
    )

    def __init__(self, caller: Caller, local_cid: bytes, answerer: Answerer, *, now: float, timeout: float) -> None:
        self._answerer = answerer
        self._repeats = 0
        self._held_bytes = 0
        self.datagrams: tuple[bytes, ...] = ()
        self.held: list[bytes] = []
        self.begun = False
        self.path = caller.path
        self.source = caller.source
        self.proven = caller.proven
        self.hello_hash = caller.hello_hash
        self.peer_cid = caller.scid
        self.local_cid = local_cid
        self.began_at = now
        self.deadline = now + timeout

    @property
    def paths(self) -> Sequence[NetworkPath]:
        """All paths on which it may be heard: the one that it uses (H-30), unless it is a resumption (H-35)."""
        return (self.path,)

    def leave(self, path: NetworkPath) -> bool:
        """The carrier of one of its paths is gone; whether it has another."""
        return False

    def repeat(self) -> tuple[bytes, ...]:
        """The answer for a repeated message: the stored bytes, or nothing when that was asked too often (H-20)."""
        if self._repeats >= self._answerer.challenge_repeats:
            return ()
        self._repeats += 1
        return self.datagrams

    def hold(self, packet: bytes) -> bool:
        """Keep a packet of this path that came before its keys; False when there is no room for it (H-26)."""
        size = self._held_bytes + len(packet)
        if len(self.held) >= self._answerer.held_packets or size > self._answerer.held_bytes:
            return False
        self.held.append(packet)
        self._held_bytes = size
        return True

    def round_trip(self, now: float) -> float | None:
        """Seconds between the answer and what came upon it; `None` when a repetition makes that ambiguous."""
        return None if self._repeats else min(now - self.began_at, LONGEST_SAMPLE)
