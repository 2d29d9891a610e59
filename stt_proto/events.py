"""The event vocabulary: what the core tells its host.

Events are frozen values that hold ids and plain data, never objects of the core. They are *edges*, not traffic: a bulk
transfer makes no event per packet. `Event` is the closed union of all of them; a consumer ignores the kinds that it
does not know, since later versions add some.
"""

from __future__ import annotations

from attrs import field, frozen

from stt_proto.tickets import Ticket, TicketRefusal
from stt_proto.types import CloseReason, HandshakeStep, NetworkPath, SessionState

# -- life of a session ---------------------------------------------------------------------------------------------


@frozen
class HandshakeProgressed:
    """A message of the handshake was sent or accepted."""

    step: HandshakeStep


@frozen
class SessionStateChanged:
    """The session moved in its table of states."""

    old: SessionState
    new: SessionState


@frozen
class SessionEstablished:
    """Both sides hold the keys; streams can be used.

    Attributes:
        session_id: 8 bytes, equal on both sides.
        peer_node_id: 32 bytes, proven.
    """

    session_id: bytes
    peer_node_id: bytes


@frozen
class SessionClosed:
    """The session is over: nothing more will come of it.

    Attributes:
        reason: in one word.
        code: of docs/protocol.md "Error codes", or the application's.
        detail: a sentence from whoever closed it; untrusted text when it came from the peer.
        by_peer: whether the peer closed it.
    """

    reason: CloseReason
    code: int
    detail: str
    by_peer: bool = False


@frozen
class KeepAliveSent:
    """Nothing was heard for the keep-alive interval; the peer was asked for a sign of life."""


@frozen
class KeepAliveMissed:
    """The peer did not answer: `silent_for` seconds without anything authentic from it."""

    silent_for: float


@frozen
class KeysRotated:
    """Both directions use keys of this version now."""

    key_version: int


@frozen
class TicketReceived:
    """The peer handed out a ticket for resumption; it is good once.

    Attributes:
        ticket: what to keep; `None` where an observer is told of it.
        expires_at: wall clock, seconds since 1970.
    """

    ticket: Ticket | None = field(repr=False)
    expires_at: float


@frozen
class ResumptionRefused:
    """There was a ticket, and yet a full handshake was necessary.

    Attributes:
        reason: what spoke against the ticket first; where the peer said so, anybody on the way could have.
    """

    reason: TicketRefusal


@frozen
class TicketOffered:
    """Asks the host whether this ticket was used before; see `session.answer_ticket`.

    Attributes:
        ticket_id: 16 bytes.
        expires_at: wall clock, seconds since 1970; from then on nobody needs to remember it.
    """

    ticket_id: bytes
    expires_at: float


@frozen
class EarlyDataReceived:
    """The beginning of a stream came with RESUME, before the peer has shown that it is there now: **replayable**.

    Somebody may have held it back until now; and if its sender hears no answer, the same comes once more in a session
    of its own. `session.replayable` tells when that cannot be any more.

    Attributes:
        stream_id: of the stream; `StreamOpened` and `StreamReadable` follow.
        size: bytes.
    """

    stream_id: int
    size: int


@frozen
class EarlyDataRejected:
    """The peer did not take what was sent with the ticket; it is sent again now, in the ordinary way."""


# -- paths ---------------------------------------------------------------------------------------------------------


@frozen
class PathValidated:
    """The peer was shown to be at the other end of this path; the session may go on there, now or later.

    The path of the handshake is validated by it, without this event.
    """

    path: NetworkPath


@frozen
class PathLost:
    """This path carries the session no longer; `add_path` may bring it back.

    Attributes:
        path: which.
        reason: the host's, when its carrier ended; `"removed"` after `remove_path`; else `"silent"`: nobody answered
            there. Of an address from which the peer never answered nothing is told.
    """

    path: NetworkPath
    reason: str


@frozen
class SessionMoved:
    """The session sends over another path from now on.

    Attributes:
        old: where it was.
        new: where it goes on, `session.path`.
        by_peer: whether the peer asked for it, or was only found there.
    """

    old: NetworkPath
    new: NetworkPath
    by_peer: bool


@frozen
class SessionDetached:
    """No path is left. The session lives on: what is written waits, nothing is sent, and streams go on at their byte
    once a path is there again; if none is by the `deadline` (on the clock of `now`), it ends with `timeout`.
    """

    deadline: float


@frozen
class SessionReattached:
    """The session goes on over this path."""

    path: NetworkPath


# -- streams and datagrams -----------------------------------------------------------------------------------------


@frozen
class StreamOpened:
    """The peer opened a stream.

    Attributes:
        stream_id: its id.
        bidirectional: whether this side can write to it.
        purpose: the word that the peer gave it, or "".
    """

    stream_id: int
    bidirectional: bool
    purpose: str = ""


@frozen
class StreamReadable:
    """There is something to read (data, the end, or a reset) after a `read` had returned nothing."""

    stream_id: int


@frozen
class StreamWritable:
    """There is room again after a `write` took less than it was given."""

    stream_id: int


@frozen
class StreamFinished:
    """The peer has acknowledged everything, the end included."""

    stream_id: int


@frozen
class StreamReset:
    """The peer ended its side of the stream without finishing it.

    Attributes:
        code: the application's number.
        stopped: True when the peer asked us to stop sending (our sending side ended), False when it reset its own.
    """

    stream_id: int
    code: int
    stopped: bool = False


@frozen
class StreamAcked:
    """Everything below `offset`, which `watch_acked` had asked for, is acknowledged."""

    stream_id: int
    offset: int


@frozen
class StreamsAvailable:
    """The peer allows more streams of this kind after an `open_stream` had been refused."""

    bidirectional: bool


@frozen
class DatagramReceived:
    """An unreliable datagram came where there was none; `session.receive_datagram` gives it, and those behind it."""


@frozen
class ExtensionFrameReceived:
    """A frame of the application's own came where none was; `session.receive_frame` gives it, and those behind it."""


# -- the endpoint itself -------------------------------------------------------------------------------------------


@frozen
class HandshakeFailed:
    """Somebody tried and failed; at most one a second and source.

    Attributes:
        path: where it came from; the address may be forged.
        reason: `auth_failure`, `timeout`, `too_many_sessions` or `refused`.
    """

    path: NetworkPath
    reason: str


@frozen
class TraceFailed:
    """An observer raised; it is told nothing more. The protocol is not disturbed.

    Attributes:
        point: the trace point, or `keylog`.
        error: the exception, of the key log only its class.
    """

    point: str
    error: str


Event = (
    HandshakeProgressed
    | SessionStateChanged
    | SessionEstablished
    | SessionClosed
    | KeepAliveSent
    | KeepAliveMissed
    | KeysRotated
    | TicketReceived
    | TicketOffered
    | ResumptionRefused
    | EarlyDataReceived
    | EarlyDataRejected
    | PathValidated
    | PathLost
    | SessionMoved
    | SessionDetached
    | SessionReattached
    | StreamOpened
    | StreamReadable
    | StreamWritable
    | StreamFinished
    | StreamReset
    | StreamAcked
    | StreamsAvailable
    | DatagramReceived
    | ExtensionFrameReceived
    | HandshakeFailed
    | TraceFailed
)
"""The closed union of every event."""
