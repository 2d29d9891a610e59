"""One path of a session: its addresses, its recovery, the size of its datagrams, its marks of congestion."""

from __future__ import annotations

from stt_proto.paths.ecn import EcnState
from stt_proto.paths.mtu import MtuState
from stt_proto.paths.path import Path

__all__ = ["EcnState", "MtuState", "Path"]
