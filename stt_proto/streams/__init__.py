"""Streams, credit and datagrams (docs/protocol.md, section 9).

Knows no packet, no recovery and no session: frames come in taken apart, go out as bytes, and what a packet has to
remember of them is a token that means nothing elsewhere.
"""

from __future__ import annotations

from stt_proto.streams.control import CONTROL_KINDS
from stt_proto.streams.datagrams import DatagramQueues
from stt_proto.streams.expiry import ExpiringSendStream, Expiry
from stt_proto.streams.flow import CreditWindow, GrowthBudget, SendCredit
from stt_proto.streams.hub import ControlKey, EventQueue, Hub, StreamToken, Token
from stt_proto.streams.ids import is_bidirectional
from stt_proto.streams.intervals import IntervalSet
from stt_proto.streams.receive import ReceiveState, ReceiveStream
from stt_proto.streams.schedule import Priority
from stt_proto.streams.send import SendState, SendStream
from stt_proto.streams.stream import Stream
from stt_proto.streams.table import MIN_ROOM, StreamTable

__all__ = [
    "CONTROL_KINDS",
    "MIN_ROOM",
    "ControlKey",
    "CreditWindow",
    "DatagramQueues",
    "EventQueue",
    "ExpiringSendStream",
    "Expiry",
    "GrowthBudget",
    "Hub",
    "IntervalSet",
    "Priority",
    "ReceiveState",
    "ReceiveStream",
    "SendCredit",
    "SendState",
    "SendStream",
    "Stream",
    "StreamTable",
    "StreamToken",
    "Token",
    "is_bidirectional",
]
