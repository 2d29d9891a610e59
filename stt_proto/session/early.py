"""The beginning of a session that has a ticket: data before its first round trip, and the wait for the first packet.

Two things are the same on both sides (docs/protocol.md, section 4.5). The beginning of one stream may travel in RESUME
itself: then it is for the initiator as if a packet with it had been sent and acknowledged, and for the responder as if
one had come. And neither side has heard the other under the new keys yet, so neither waits for long, nor does a
responder send much to an address that may be forged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from stt_proto.crypto import Secret
from stt_proto.errors import SessionClosedError, TooManyStreamsError
from stt_proto.events import EarlyDataReceived, EarlyDataRejected, Event
from stt_proto.handshake import Initiator, InitiatorState, Resumer
from stt_proto.paths import Path
from stt_proto.session.engines import Engines
from stt_proto.types import CloseReason, NetworkPath

if TYPE_CHECKING:
    from stt_proto.session.moves import Moves
    from stt_proto.session.session import Session

__all__ = ["EARLY_STREAM", "Beginning", "EarlyArrival", "EarlyData"]

OnProof = Callable[[NetworkPath, float], "int | None"]
EARLY_STREAM = 0
"""The stream of early data: the first both ways that the initiator opens."""
ROOM = 4096
"""Bytes in which a frame with any early data has room."""


class EarlyData(Secret):
    """What an initiator wants to be there first (H-38).

    Args:
        data: the beginning of its first stream.

    Attributes:
        accepted: whether the responder took it with RESUME; `None` when it was not sent there, or nobody knows yet.
        stream_id: of its stream; -1 as long as there is none, or when the peer takes none.
    """

    __slots__ = ("_data", "accepted", "stream_id")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.accepted: bool | None = None
        self.stream_id = -1

    def on_keys(self, engines: Engines, initiator: Initiator | Resumer) -> list[Event]:
        """The session has keys: send everything in the ordinary way, unless the responder has it already."""
        events: list[Event] = []
        if isinstance(initiator, Resumer) and initiator.sent_early:
            resumed = initiator.state is InitiatorState.CONFIRMED
            self.accepted = resumed and engines.peer.early_data_taken == len(self._data)
            events += [] if self.accepted else [EarlyDataRejected()]
        try:
            stream = engines.streams.open()
        except TooManyStreamsError:
            return events
        self.stream_id = stream.id
        stream.write(self._data, 0.0)
        self._data = b""
        if self.accepted:  # as if a packet with it had gone out and been acknowledged
            tokens: list[Any] = []
            engines.streams.write_frames([], tokens, ROOM)
            for token in tokens:
                engines.streams.on_token_acked(token)
        return events


@frozen(eq=False, kw_only=True)
class EarlyArrival(Secret):
    """What came to a responder with RESUME, and how it came.

    Attributes:
        data: the beginning of the stream.
        proven: whether the address was shown: by a cookie, or by a reliable carrier.
        received, sent: bytes of RESUME and of RESUMED.
        until: seconds; when the initiator is given up that confirms nothing.
        copies: where RESUMED went: all that are still there when they are asked for.
        on_proof: called when it has confirmed, with its path and the time; gives the code if it is refused for that.
    """

    data: bytes = field(repr=False)
    proven: bool
    received: int
    sent: int
    until: float
    copies: Sequence[NetworkPath]
    on_proof: OnProof

    def begin(self, path: Path) -> Beginning:
        """See that an address which may be forged gets no more than three times what came from there (H-40)."""
        if not self.proven:
            path.validated = path.opened_here = False
            path.received, path.sent = self.received, self.sent
        return Beginning(self.until, path, self)

    @property
    def news(self) -> EarlyDataReceived:
        """What the application is told before it is given the data."""
        return EarlyDataReceived(EARLY_STREAM, len(self.data))


class Beginning:
    """From the first keys to the first packet of the peer, in a session that began with a ticket.

    Args:
        until: seconds; then the peer is given up.
        path: where the session began.
        arrival: what came there early, if anything did.

    Attributes:
        until: as given.
    """

    __slots__ = ("_arrival", "_path", "until")

    def __init__(self, until: float, path: Path | None = None, arrival: EarlyArrival | None = None) -> None:
        self.until = until
        self._path = path
        self._arrival = arrival

    def end(self, session: Session, moves: Moves | None, path: NetworkPath, now: float) -> None:
        """The first packet of the peer has come this way; `moves` of a session that is not over yet.

        Raises:
            SessionClosedError: it is not let in from there.
        """
        began, arrival = self._path, self._arrival
        if began is None or arrival is None:
            session.beginning = None
            return
        code = arrival.on_proof(path, now)
        session.beginning = None
        copies = arrival.copies
        if len(copies) == 1 and began.network_path == path:
            began.validated = began.opened_here = True
        elif len(copies) > 1 and moves is not None:
            moves.begin_among(path, copies, arrival.received, arrival.sent, now)
        if code is not None and moves is not None:
            raise SessionClosedError("refused", reason=CloseReason.ERROR, code=code)

    def path_closed(self, moves: Moves, path: NetworkPath, now: float) -> None:
        """The carrier is gone over which the session began: it may have been that of a copy, so go on elsewhere."""
        arrival = self._arrival
        others = [] if arrival is None else [copy for copy in arrival.copies if copy != path]
        if arrival is not None and others:
            moves.begin_among(others[0], others, arrival.received, arrival.sent, now)
