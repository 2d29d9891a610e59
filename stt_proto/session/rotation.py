"""Keys that are replaced while the session goes on (docs/protocol.md, 7.1).

Each side sends a ROTATE with a fresh key, and it does not matter who begins: an answer and a proposal that crosses
another one are the same thing. What has to come in order is told by the table.

    SETTLED    one key version is in use
    OFFERED    our ROTATE is out
    HEARD      ... and has arrived
    AGREED     both are known here: packets of the next version open, ours are still sealed under the one before
    MOVED      ... and ours are of the next version
    OVERLAP    the peer's are too: the next version is *the* version, and what is late of the one before still opens

Nobody seals under a version of which he does not know that the peer can open it. The peer can from the moment on at
which it has both keys: so when our ROTATE was acknowledged, after its own came; or when a packet of that version came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING

from stt_proto.config import Config
from stt_proto.errors import EncryptionError, InvalidFrameError
from stt_proto.events import KeysRotated
from stt_proto.handshake import KeyChain
from stt_proto.packet import Sealer
from stt_proto.session.context import EventSink, SessionContext
from stt_proto.session.control import PING, ROTATE
from stt_proto.session.liveness import LATE
from stt_proto.wire import FrameType, Rotate
from stt_proto.wire.header import EPOCH_BITS, MAX_PACKET

if TYPE_CHECKING:
    from stt_proto.session.engines import Engines

LEAST_OVERLAP = 0.02
"""Seconds for which packets of the version before still open, at least (V-5): so no peer makes us rotate more than 50
times a second (V-6)."""
LEAST_PATIENCE = 10.0
"""Seconds in which a peer that can be heard has to move on, at least; usually it has as long as silence may last."""
MAX_DELAYS = 6
DEAF = 3
"""How often in a row it may fail to do so, and for how many times one counts in which it hears us too (V-10)."""
MAX_LEAPS = 5
"""Looks in a row that do not count because they are late; one that always looks late counts the next all the same."""
FIRST_ROTATION = 1024
FIRST_SPAN = 8192
"""The first rotation begins after so many packets, and up to so many more, at random (V-7)."""


class Wear:
    """How much a key has been used, and how much of that is enough (V-7).

    Args:
        config: of the endpoint.
        entropy: where the moment of the first rotation comes from.

    Attributes:
        seconds: age at which a key is replaced.
    """

    __slots__ = ("_begin", "_bytes", "_every", "_packets", "seconds")

    def __init__(self, config: Config, entropy: Callable[[int], bytes]) -> None:
        self._every = config.rotate_after_packets
        first = FIRST_ROTATION + int.from_bytes(entropy(4)) % FIRST_SPAN
        self._packets = min(first, self._every)
        self._bytes = config.rotate_after_bytes
        self.seconds = config.rotate_after_seconds
        self._begin = 0

    def begin(self, bytes_sent: int) -> None:
        """Another key is in use from here on."""
        self._packets = self._every
        self._begin = bytes_sent

    def packets_left(self, sealed: int, bytes_sent: int) -> int:
        """Packets, of any size, that may be sealed before the next look; 0 when the key is to be replaced."""
        packets, size = self._packets - sealed, self._bytes - (bytes_sent - self._begin)
        return max(min(packets, -(-size // MAX_PACKET)), 0)


class RotationState(Enum):
    """Where a rotation stands; see above."""

    SETTLED = "settled"
    OFFERED = "offered"
    HEARD = "heard"
    AGREED = "agreed"
    MOVED = "moved"
    OVERLAP = "overlap"


class RotationInput(Enum):
    """What can happen to it: we send ROTATE; the peer's is taken; ours is acknowledged; a packet of the next version
    opens; the time of the version before is over."""

    OFFER = "offer"
    TAKE = "take"
    ACKED = "acked"
    OPENED = "opened"
    OVER = "over"


_S, _I = RotationState, RotationInput

TRANSITIONS: Mapping[tuple[RotationState, RotationInput], RotationState] = MappingProxyType(
    {
        (_S.SETTLED, _I.OFFER): _S.OFFERED,
        (_S.SETTLED, _I.TAKE): _S.AGREED,
        (_S.OFFERED, _I.TAKE): _S.AGREED,
        (_S.OFFERED, _I.ACKED): _S.HEARD,
        (_S.HEARD, _I.TAKE): _S.MOVED,
        (_S.AGREED, _I.ACKED): _S.MOVED,
        (_S.AGREED, _I.OPENED): _S.OVERLAP,
        (_S.MOVED, _I.OPENED): _S.OVERLAP,
        (_S.OVERLAP, _I.OVER): _S.SETTLED,
    }
)
"""Every transition there is."""


class KeyRotation:
    """The key versions of one session.

    Args:
        engines: of the session; packets are sealed and opened with what they hold.
        chain: makes the keys.
        wear: says when a key is to be replaced.
        context: of the endpoint.
        events: of the session.
        session_id: for the key log.

    Attributes:
        state: where the rotation stands.
        version: of the keys that both sides use, or used before one of them began to move.
        rotated_at: since when.
        able: whether keys can be replaced: the session is established, and the peer knows ROTATE.
        deadline: when `expire` has something to do, or `inf`.
    """

    __slots__ = (
        "_chain",
        "_context",
        "_acked",
        "_delays",
        "_engines",
        "_events",
        "_leaps",
        "_looked_at",
        "_patience",
        "_peer_key",
        "_sealer",
        "_session_id",
        "_wanted",
        "_wear",
        "able",
        "deadline",
        "rotated_at",
        "state",
        "version",
    )

    def __init__(
        self,
        engines: Engines,
        chain: KeyChain,
        wear: Wear,
        context: SessionContext,
        events: EventSink,
        session_id: bytes,
    ) -> None:
        self._engines = engines
        self._chain = chain
        self._wear = wear
        self._context = context
        self._events: EventSink | None = events
        self._session_id = session_id
        self._sealer = engines.sealer  # once the next version is known, the one of that
        self._peer_key = b""  # for the next version
        self._patience = max(context.config.keep_alive_timeout, engines.peer.idle_timeout / 1000, LEAST_PATIENCE)
        self._looked_at = inf
        self._acked: tuple[object, int] = (None, 0)
        self._delays = 0
        self._leaps = 0
        self._wanted = False
        self.able = False
        self.deadline = inf
        self.state = RotationState.SETTLED
        self.version = 0
        self.rotated_at = inf

    # -- what others ask for ---------------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """The session is established."""
        self.able = FrameType.ROTATE in self._engines.peer.extension_frames
        self.rotated_at = now
        if self.able:
            self.deadline = now + self._wear.seconds
            self.review()

    def stop(self) -> None:
        """The session is over: nobody is told any more."""
        self._events = None

    def request(self) -> int:
        """Replace the keys, or join in if that is being done; give the version that will be in use then."""
        if self.state is RotationState.SETTLED:
            self._offer()
        elif self.state is RotationState.OVERLAP:
            self._wanted = True  # as soon as that is over
        return self.version + 1

    def review(self) -> None:
        """The key in use has sealed as many packets as were to be sealed before somebody looked (V-7).

        Raises:
            EncryptionError: it has sealed as many as it may (P-11).
        """
        sealer = self._engines.sealer
        if sealer.exhausted:
            raise EncryptionError("the key has sealed as many packets as it may")
        sealer.review_at = sealer.limit
        if self.state is RotationState.SETTLED and self.able:
            packets = self._wear.packets_left(sealer.sealed, self._engines.counters.bytes_sent)
            if packets:
                sealer.review_at = min(sealer.limit, sealer.sealed + packets)
            else:
                self._offer()

    def expire(self, now: float) -> None:
        """Let time pass: the keys of the version before go, those in use are old, or a rotation makes no progress.

        Raises:
            RemoteError: the peer's key for the next version, which had come too early, is none; or the peer can be
                heard, and does not move on.
        """
        if now < self.deadline:
            return
        if self.state is RotationState.SETTLED:
            self._offer()
        elif self.state is RotationState.OVERLAP:
            self._settle()
        else:
            self._look(now)

    @property
    def overlaps_until(self) -> float:
        """When the keys of the version before go, `inf` when there are none: all that is done without a path, too."""
        return self.deadline if self.state is RotationState.OVERLAP else inf

    def _look(self, now: float) -> None:
        """Does the peer do its part? While nothing is heard of it, it is not to blame, and less while it is deaf.

        Nor is it when the clock leapt or this process slept: then it did not have its time (as in R-10).
        """
        if now > self.deadline + LATE and self._leaps < MAX_LEAPS:
            self._leaps += 1
            self._watch(now)
            return
        self._leaps = 0
        path, acked = self._engines.path, self._engines.path.recovery.packets_acked
        if self._engines.liveness.last_received <= self._looked_at:
            self._delays = 0
        else:
            hears = path is self._acked[0] and acked > self._acked[1]
            self._delays += DEAF if hears else 1
        if self._delays >= MAX_DELAYS:
            raise EncryptionError("the peer is there, and does not replace its keys")
        self._watch(now)

    def _watch(self, now: float) -> None:
        """Look again when the peer had its time."""
        self._acked = self._engines.path, self._engines.path.recovery.packets_acked
        self._looked_at, self.deadline = now, now + self._patience

    def _settle(self) -> None:
        """The keys of the version before go."""
        self._engines.receiver.settle()
        self._move(RotationInput.OVER)
        wanted, self._wanted = self._wanted, False
        if self._peer_key:
            self._agree()
        elif wanted:
            self._offer()
        else:
            self.review()

    # -- ROTATE ----------------------------------------------------------------------------------------------------

    def encode(self, version: int) -> bytes | None:
        """Our ROTATE, for as long as the peer may not have it: it may be in packets of the version before only."""
        return Rotate(version, self._chain.key).encode() if version > self.version else None

    def on_acked(self, version: int) -> None:
        """Our ROTATE has arrived; the first acknowledgement of it."""
        if version == self.version + 1:
            self._move(RotationInput.ACKED)
            if self.state is RotationState.MOVED:
                self._seal_next()

    def on_rotate(self, frame: Rotate, epoch: int) -> bool:
        """The peer's ROTATE came, in a packet of this epoch; tell whether there is anything new in it.

        Raises:
            RemoteError: it is for another version than the one after that of its packet, or the second for one, with
                another key; its key is none; or the peer has not announced that it knows ROTATE.
        """
        if not self.able:
            raise InvalidFrameError("a ROTATE from who has not announced it")
        if (frame.version - 1) & EPOCH_BITS != epoch or not 0 <= frame.version - self.version <= 1:
            raise InvalidFrameError(f"a ROTATE to key version {frame.version}, where {self.version} is in use")
        if frame.version == self.version:
            return False  # late, in a packet of the version before
        if self._peer_key:
            if frame.key != self._peer_key:
                raise InvalidFrameError("a second ROTATE, with another key")
            return False
        self._peer_key = frame.key
        if self.state is not RotationState.OVERLAP:  # else the peer was done with the version before sooner (V-6)
            self._agree()
        return True

    def _offer(self) -> None:
        """Begin, unless nothing but SESSION_CLOSE is sent any more."""
        if self._engines.control.closing:
            self.deadline = inf
        else:
            self._draw()
            self._move(RotationInput.OFFER)

    def _draw(self) -> None:
        self._chain.draw()
        self._engines.control.put((ROTATE, self.version + 1))

    def _agree(self) -> None:
        """The peer's key is here: answer with ours, if it did not go before, and derive the next version."""
        engines, chain = self._engines, self._chain
        if self.state is RotationState.SETTLED:
            if engines.control.closing:
                return
            self._draw()
        secrets = chain.advance(self._peer_key)
        ours, theirs = secrets.initiator_traffic, secrets.responder_traffic
        if not chain.initiator:
            ours, theirs = theirs, ours
        self._sealer = Sealer(engines.sealer.keys.next(ours))
        engines.receiver.overlap(theirs, self._on_opened)
        self._context.sight.log_version(self._session_id, chain.version, secrets)
        self._move(RotationInput.TAKE)
        if self.state is RotationState.MOVED:
            self._seal_next()

    # -- moving on -------------------------------------------------------------------------------------------------

    def _seal_next(self) -> None:
        """The peer can open the next version; it moves too, at the latest when a packet of it comes."""
        self._use_next()
        self._engines.control.put(PING)

    def _use_next(self) -> None:
        self._engines.sealer = self._sealer
        self._wear.begin(self._engines.counters.bytes_sent)

    def _on_opened(self) -> None:
        """The first packet of the next version has opened: both sides use it."""
        if self.state is RotationState.AGREED:
            self._use_next()
        now = self._context.clock.now
        self._move(RotationInput.OPENED)
        self.version = self._chain.version
        self.rotated_at = now
        self._peer_key = b""
        self.deadline = now + max(self._engines.linger, LEAST_OVERLAP)
        if self._events is not None:
            event = KeysRotated(self.version)
            self._events.append(event)
            if self._engines.trace is not None:
                self._engines.trace.event(event, now)

    def _move(self, what: RotationInput) -> None:
        if self.state is RotationState.SETTLED:
            self._delays = self._leaps = 0
            self._watch(self._context.clock.now)
        self.state = TRANSITIONS[self.state, what]
        if self.state is RotationState.SETTLED:
            self.deadline = self.rotated_at + self._wear.seconds
