"""Sight: what an observer of an endpoint is told. Log formats, key logs and metrics hang here.

This is the vocabulary; `sight` is what tells it, and keeps an observer that fails away from the protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from stt_proto.events import Event
from stt_proto.recovery import RecoveryStats
from stt_proto.types import NetworkPath
from stt_proto.wire import Parameters

KeyLog = Callable[[str, bytes, bytes], None]
"""Is given the secrets of sessions: `(label, session_id, secret)`; what `Endpoint(..., keylog=)` takes.

The labels are `STT_INITIATOR_TRAFFIC_0` and `STT_RESPONDER_TRAFFIC_0`, where 0 is the key version (those of later ones
follow when keys rotate), and
`STT_INITIATOR_HEADER` and `STT_RESPONDER_HEADER`; each secret has 32 bytes (H-6, H-7).
"""


class TracedSession:
    """A session as an observer knows it: what it is, and nothing that can be called.

    Attributes:
        number: counts the sessions of the endpoint from 1; dials that fail are among them.
        initiator: whether this side dialled.
        path: the addresses with which it began.
        began: seconds on the clock of `now`.
        created_at: the same moment on the wall clock, seconds since 1970.
        session_id: 8 bytes, equal on both sides; `b""` until the keys are derived.
    """

    __slots__ = ("began", "created_at", "initiator", "number", "path", "session_id")

    def __init__(self, number: int, initiator: bool, path: NetworkPath, began: float, created_at: float) -> None:
        self.number = number
        self.initiator = initiator
        self.path = path
        self.began = began
        self.created_at = created_at
        self.session_id = b""

    def __repr__(self) -> str:
        role = "initiator" if self.initiator else "responder"
        return f"<TracedSession {self.number}, {role}, {self.session_id.hex() or '?'}>"


class TracedFrame(NamedTuple):
    """A frame of a packet: its numbers, and of what it carries no more than the length.

    Attributes:
        kind: the name of docs/protocol.md, section 8, in small letters: `"stream"`, `"ack"`, `"max_data"`.
            `"malformed"` stands for all frames of a packet that do not parse, `"more"` for the `count` frames that
            came behind the first 256.
        fields: the attributes of the class in `stt_proto.wire` that are numbers, flags and words out of a list;
            `length` is that of `data`, and `token_length` of `token`.
    """

    kind: str
    fields: Mapping[str, object]


class Trace:
    """One method for each trace point; what `Endpoint(..., trace=)` takes. Override those that you want.

    An observer is told what happened and changes nothing. It is called in the middle of things, so it must not call
    the core. One that raises is switched off, and the event `TraceFailed` tells so. Without one, a packet costs a test
    for `None`. Nothing that it is told has a key, a token or the application's data in it. Sizes are bytes of
    datagrams, times are `now`.
    """

    __slots__ = ()

    def session_began(self, session: TracedSession, now: float) -> None:
        """A session was dialled, or a peer that has proven who it is begins one."""

    def event(self, session: TracedSession, event: Event, now: float) -> None:
        """An event about the session as a whole happened, which the host is going to get: states, steps, the end."""

    def message_sent(self, session: TracedSession, message: str, size: int, now: float) -> None:
        """A dial handed out a datagram with a handshake message, or a piece of one: `"hello"`, `"auth_proof"`."""

    def message_received(self, session: TracedSession, message: str, size: int, now: float) -> None:
        """A dial got a whole handshake message: `"challenge"`, `"retry"`; nothing is known of its truth yet.

        A responder keeps nothing of strangers, and so tells nothing of their messages.
        """

    def keys_derived(self, session: TracedSession, version: int, suite: str, now: float) -> None:
        """The keys of the handshake are there, and `session.session_id` is known; later versions are `KeysRotated`."""

    def parameters_set(self, session: TracedSession, local: Parameters, remote: Parameters, now: float) -> None:
        """Both sides know what the other announces about itself."""

    def packet_sent(
        self,
        session: TracedSession,
        number: int,
        size: int,
        datagrams: int,
        frames: Sequence[TracedFrame],
        mtu_probe: bool,
        now: float,
    ) -> None:
        """A packet was sealed and handed out; `mtu_probe` tells whether only its size is of interest."""

    def packet_received(
        self,
        session: TracedSession,
        number: int,
        size: int,
        datagrams: int,
        frames: Sequence[TracedFrame],
        now: float,
    ) -> None:
        """A packet has opened."""

    def packet_dropped(self, session: TracedSession, reason: str, count: int, now: float) -> None:
        """So many datagrams, or trains, gave no packet; the reason is an attribute of `PacketCounters` (P-8)."""

    def packet_lost(
        self, session: TracedSession, number: int, size: int, datagrams: int, mtu_probe: bool, now: float
    ) -> None:
        """A packet of ours was declared lost."""

    def metrics_updated(self, session: TracedSession, metrics: RecoveryStats, now: float) -> None:
        """Something that recovery or congestion control counts has changed."""

    def congestion_state_updated(self, session: TracedSession, old: str, new: str, now: float) -> None:
        """Congestion control does something else: `"slow_start"`, `"congestion_avoidance"`, `"recovery"`."""

    def ecn_state_updated(self, session: TracedSession, old: str, new: str, now: float) -> None:
        """More is known of marks of congestion on the path; the words are those of `EcnState`."""

    def mtu_updated(self, session: TracedSession, old: int, new: int, now: float) -> None:
        """Datagrams may have so many bytes now."""

    def path_updated(self, session: TracedSession, old: NetworkPath, new: NetworkPath, now: float) -> None:
        """The session sends between other addresses now."""

    def session_over(self, session: TracedSession, now: float) -> None:
        """Nothing more will be told of it: it has ended, and answers its peer no more."""
