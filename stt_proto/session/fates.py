"""What a packet held, and what becomes of it once the packet's fate is known."""

from __future__ import annotations

from typing import NamedTuple

from stt_proto.recovery import SentPacket
from stt_proto.session.control import CLOSE, ControlKey, ControlQueue
from stt_proto.streams import StreamTable, Token


class PacketContents(NamedTuple):
    """The content of a packet, as far as somebody wants to know of its fate.

    Attributes:
        streams: what the streams put in.
        controls: what the session put in.
        reported: the largest packet number that the ACK in it reports, -1 without one.
    """

    streams: list[Token]
    controls: list[ControlKey]
    reported: int


class Fates:
    """Tells the engines which of what they sent arrived, and which was lost.

    Attributes:
        close_acked: whether our SESSION_CLOSE arrived.
    """

    __slots__ = ("_control", "_streams", "close_acked")

    def __init__(self, streams: StreamTable, control: ControlQueue) -> None:
        self._streams = streams
        self._control = control
        self.close_acked = False

    def acked(self, packets: list[SentPacket]) -> int:
        """These packets arrived; give the largest number that an ACK in them reported, -1 if there was none."""
        on_acked = self._streams.on_token_acked
        reported = -1
        for packet in packets:
            contents: PacketContents = packet.tokens
            for token in contents.streams:
                on_acked(token)
            for key in contents.controls:
                self._control.on_acked(key)
                self.close_acked |= key == CLOSE
            if contents.reported > reported:
                reported = contents.reported
        return reported

    def lost(self, packets: list[SentPacket]) -> None:
        """These packets did not arrive: what still means something is sent again."""
        for packet in packets:
            contents: PacketContents = packet.tokens
            for token in contents.streams:
                self._streams.on_token_lost(token)
            for key in contents.controls:
                self._control.on_lost(key)
