"""The paths of a session: addresses, validation, recovery, the size of datagrams, marks of congestion; and a choice."""

from __future__ import annotations

from stt_proto.paths.doubt import Doubt
from stt_proto.paths.ecn import EcnState, EcnValidation
from stt_proto.paths.mtu import MtuState
from stt_proto.paths.path import Path
from stt_proto.paths.selector import best, better
from stt_proto.paths.table import MAX_HEARD, MAX_OPENED, PathTable
from stt_proto.paths.validation import CHALLENGE_SIZE, DOUBTED, NEW, REGAIN

__all__ = [
    "CHALLENGE_SIZE",
    "DOUBTED",
    "MAX_HEARD",
    "MAX_OPENED",
    "NEW",
    "REGAIN",
    "Doubt",
    "EcnState",
    "EcnValidation",
    "MtuState",
    "Path",
    "PathTable",
    "best",
    "better",
]
