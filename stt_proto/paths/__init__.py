"""One path of a session: its addresses, its recovery and the size of its datagrams."""

from __future__ import annotations

from stt_proto.paths.path import Path

__all__ = ["Path"]
