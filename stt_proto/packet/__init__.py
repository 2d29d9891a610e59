"""Packets: keys, protection, replay, trains, connection IDs, stateless reset.

From the datagram to the frames and back. Nothing in this room knows what a frame means, or that bytes get lost.
"""

from __future__ import annotations

from stt_proto.packet.connection_ids import ConnectionIdTable, LocalConnectionIds, RemoteConnectionIds
from stt_proto.packet.counters import PacketCounters
from stt_proto.packet.keys import PacketKeys
from stt_proto.packet.numbers import MAX_PACKET_NUMBER, PacketNumbers, decode_number
from stt_proto.packet.protection import Opener, Sealed, Sealer, capacity
from stt_proto.packet.receiver import Opened, PacketReceiver, run_end
from stt_proto.packet.replay import REPLAY_WINDOW, ReplayWindow
from stt_proto.packet.reset import MAX_RESET, ExpectedResets, ResetTokens, reset_token
from stt_proto.packet.segments import bytes_view
from stt_proto.packet.trains import TrainBudget, TrainReassembler

__all__ = [
    "MAX_PACKET_NUMBER",
    "MAX_RESET",
    "REPLAY_WINDOW",
    "ConnectionIdTable",
    "ExpectedResets",
    "LocalConnectionIds",
    "Opened",
    "Opener",
    "PacketCounters",
    "PacketKeys",
    "PacketNumbers",
    "PacketReceiver",
    "RemoteConnectionIds",
    "ReplayWindow",
    "ResetTokens",
    "Sealed",
    "Sealer",
    "TrainBudget",
    "TrainReassembler",
    "bytes_view",
    "capacity",
    "decode_number",
    "run_end",
    "reset_token",
]
