"""A session: what comes in, what goes out, and the states between."""

from __future__ import annotations

from stt_proto.session.session import Session
from stt_proto.session.statistics import SessionStats
from stt_proto.session.stream import Stream
from stt_proto.session.trace import KeyLog, Trace, TracedFrame, TracedSession

__all__ = ["KeyLog", "Session", "SessionStats", "Stream", "Trace", "TracedFrame", "TracedSession"]
