"""Control frames of streams: a key waits, and the frame is made when it is sent (docs/protocol.md, R-9).

So nothing stale is repeated, a frame that means nothing any more is not sent at all, and what waits is bounded by the
number of streams. Credit is the one thing that is also *decided* here: when an update is about to be sent, it is
known how fast the last one was used up.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, cast

from stt_proto.streams.expiry import ExpiringSendStream
from stt_proto.streams.hub import ControlKey, Hub, Token
from stt_proto.streams.ids import OwnIds, PeerIds
from stt_proto.wire import (
    DataBlocked,
    Expired,
    MaxData,
    MaxStreamData,
    MaxStreams,
    Priority,
    ResetStream,
    StopSending,
    StreamDataBlocked,
    StreamsBlocked,
)

if TYPE_CHECKING:
    from stt_proto.streams.receive import ReceiveStream
    from stt_proto.streams.send import SendStream
    from stt_proto.streams.stream import Stream

__all__ = ["CONTROL_KINDS", "KEPT", "ControlFrames"]


class ControlFrames:
    """What makes the control frames of a `StreamTable`.

    Args:
        hub: what the streams share; keys wait in `hub.control`.
        own: the ids that this side opens, both ways and one way.
        peer: those that the peer opens.
    """

    __slots__ = ("_hub", "_own", "_peer", "_streams")

    def __init__(self, hub: Hub, own: tuple[OwnIds, OwnIds], peer: tuple[PeerIds, PeerIds]) -> None:
        self._hub = hub
        self._streams: dict[int, Stream] = {}
        self._own = own
        self._peer = peer

    def write_control(
        self, out: list[bytes | memoryview], tokens: list[Token], room: int, now: float = 0.0, rtt: float = 0.0
    ) -> int:
        """Write control frames that wait, in order, as far as they fit; give the bytes used.

        Args:
            out: takes the bytes of the frames.
            tokens: takes one token for each frame.
            room: bytes left in the packet.
            now: seconds.
            rtt: the shortest round trip, seconds; with 0, which is unknown, no window grows (S-13).
        """
        left, waiting = room, self._hub.control
        for key in tuple(islice(waiting, room)):
            if key[0] in _UPDATES:
                self._tune(key, now, rtt)
            frame = self.encode_control(key)
            if frame is not None:
                if len(frame) > left:
                    break
                left -= len(frame)
                out.append(frame)
                tokens.append(key if key[0] != "expired" else (*key, self._told(key[1])))
            del waiting[key]
        return room - left

    def encode_control(self, key: ControlKey) -> bytes | None:
        """Make the frame for a key as things stand now; `None` when it means nothing any more.

        The key stays in `control_ready`; whoever sends the frame takes it out and keeps it as the token.
        """
        kind, number = key
        return _ENCODERS[kind](self, number)

    def _tune(self, key: ControlKey, now: float, rtt: float) -> None:
        """An update of credit is about to be sent: let the window grow first, if it is too small for the way (S-13)."""
        if key[0] == "max_data":
            window = self._hub.window
            if window.is_short(now, rtt):
                self._hub.grow(2 * window.size)
        else:
            recv = self._receiving_of(key[1])
            if recv is not None and recv.window.is_short(now, rtt):
                recv.grow()

    def _max_data(self, _: int) -> bytes:
        return MaxData(self._hub.window.announce()).encode()

    def _max_stream_data(self, stream_id: int) -> bytes | None:
        recv = self._receiving_of(stream_id)
        if recv is None or not recv.wants_credit:
            return None
        return MaxStreamData(stream_id, recv.window.announce()).encode()

    def _max_streams(self, bidirectional: int) -> bytes:
        return MaxStreams(bool(bidirectional), self._peer[1 - bidirectional].announce()).encode()

    def _data_blocked(self, _: int) -> bytes | None:
        credit = self._hub.credit
        if not credit.exhausted:
            return None
        credit.reported = credit.limit
        return DataBlocked(credit.limit).encode()

    def _stream_data_blocked(self, stream_id: int) -> bytes | None:
        send = self._sending_of(stream_id)
        return StreamDataBlocked(stream_id, send.limit).encode() if send is not None and send.blocked else None

    def _streams_blocked(self, bidirectional: int) -> bytes | None:
        ids = self._own[1 - bidirectional]
        return StreamsBlocked(bool(bidirectional), ids.limit).encode() if ids.refused else None

    def _reset(self, stream_id: int) -> bytes | None:
        send = self._sending_of(stream_id)
        if send is None or not send.resetting:
            return None
        return ResetStream(stream_id, send.code, send.sent_offset).encode()

    def _stop(self, stream_id: int) -> bytes | None:
        recv = self._receiving_of(stream_id)
        return StopSending(stream_id, recv.stop_code).encode() if recv is not None and recv.stopping else None

    def _priority(self, stream_id: int) -> bytes | None:
        recv = self._receiving_of(stream_id)
        if recv is None or recv.asked is None or not recv.wants_credit:
            return None
        return Priority(stream_id, recv.asked.urgency, recv.asked.incremental).encode()

    def _expired(self, stream_id: int) -> bytes | None:
        send = self._expiring(stream_id)
        if send is None or not send.announce():
            return None
        return send.opener + Expired(stream_id, send.told).encode()

    def _told(self, stream_id: int) -> int:
        """The offset of the EXPIRED that was just made."""
        return cast(ExpiringSendStream, self._sending_of(stream_id)).told

    def _expiring(self, stream_id: int) -> ExpiringSendStream | None:
        send = self._sending_of(stream_id)
        return send if isinstance(send, ExpiringSendStream) else None

    def _sending_of(self, stream_id: int) -> SendStream | None:
        stream = self._streams.get(stream_id)
        return None if stream is None else stream.send

    def _receiving_of(self, stream_id: int) -> ReceiveStream | None:
        stream = self._streams.get(stream_id)
        return None if stream is None else stream.recv


_ENCODERS: dict[str, Callable[[ControlFrames, int], bytes | None]] = {
    "max_data": ControlFrames._max_data,
    "max_stream_data": ControlFrames._max_stream_data,
    "max_streams": ControlFrames._max_streams,
    "data_blocked": ControlFrames._data_blocked,
    "stream_data_blocked": ControlFrames._stream_data_blocked,
    "streams_blocked": ControlFrames._streams_blocked,
    "reset": ControlFrames._reset,
    "stop": ControlFrames._stop,
    "priority": ControlFrames._priority,
    "expired": ControlFrames._expired,
}

CONTROL_KINDS = frozenset(_ENCODERS)
"""The first halves of all control keys of this room."""

_UPDATES = frozenset({"max_data", "max_stream_data"})
"""Kinds that return credit."""

KEPT = CONTROL_KINDS - {"stream_data_blocked"}
"""Kinds that are sent again when they are lost; the other is for diagnosis."""
