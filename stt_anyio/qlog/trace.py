"""The observer that writes qlog."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from stt_anyio.qlog import vocabulary as words
from stt_anyio.qlog.files import Opener, SessionFiles, open_private
from stt_anyio.qlog.vocabulary import Data, Name
from stt_proto import NetworkPath, Trace, TracedFrame, TracedSession
from stt_proto.events import Event
from stt_proto.recovery import RecoveryStats
from stt_proto.wire import Parameters

logger = logging.getLogger("stt.qlog")

MAX_SESSIONS = 256
"""Sessions that are written at once, with two files open for each; others are not written."""
MAX_BYTES = 1 << 28
"""Bytes of a file, about; the rest of the session is not in it."""


class QlogTrace(Trace):
    """Writes two files for each session: `Endpoint(..., trace=QlogTrace("traces"))`.

    They are `TIME_ROLE_ID.sqlog` and `.qlog`, readable for their owner only. Events are gathered, and written 64 KiB at
    a time or when a second has passed, in the midst of whatever the program does: a write goes to the system's cache,
    so it is short unless the disk is very busy. What cannot be written ends it all with a warning, and nothing else.

    It is not thread-safe, no more than an endpoint is; endpoints that share one must be called from one thread.

    Args:
        directory: where the files go; made if it is not there.
        max_sessions: that are written at once; those that begin beyond are not.
        max_bytes: of a file, about.
        opener: makes a file that must not exist yet; for tests.

    Attributes:
        skipped: sessions that were not written, since there were too many.

    Raises:
        OSError: the directory cannot be made.
    """

    __slots__ = ("_directory", "_last", "_max_bytes", "_max_sessions", "_opener", "_sessions", "_stopped", "skipped")

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        max_sessions: int = MAX_SESSIONS,
        max_bytes: int = MAX_BYTES,
        opener: Opener = open_private,
    ) -> None:
        self._directory = Path(directory)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._max_sessions = max_sessions
        self._max_bytes = max_bytes
        self._opener = opener
        self._sessions: dict[TracedSession, SessionFiles] = {}
        self._last: dict[TracedSession, Data] = {}
        self._stopped = False
        self.skipped = 0

    def close(self) -> None:
        """Write what is left of the sessions that are not over, and close all files; nothing is written after that."""
        while self._sessions and not self._stopped:
            session = next(iter(self._sessions))
            self._finish(session)
        self._stopped = True

    # -- writing ---------------------------------------------------------------------------------------------------

    def _write(self, session: TracedSession, name: Name, data: Data, now: float) -> None:
        files = self._sessions.get(session)
        if files is not None:
            try:
                files.add(name, data, now)
            except OSError as error:
                self._stop(error)

    def _finish(self, session: TracedSession) -> None:
        self._last.pop(session, None)
        files = self._sessions.pop(session, None)
        if files is not None:
            try:
                files.close()
            except OSError as error:
                files.discard()
                self._stop(error)

    def _stop(self, error: OSError) -> None:
        """The disk is full, or gone: give everything back, and say so once."""
        logger.warning("qlog stops, and is incomplete: %s", error)
        self._stopped = True
        for files in self._sessions.values():
            files.discard()
        self._sessions.clear()
        self._last.clear()

    # -- what the core tells ---------------------------------------------------------------------------------------

    def session_began(self, session: TracedSession, now: float) -> None:
        """Begin its files."""
        if self._stopped:
            return
        if len(self._sessions) >= self._max_sessions:
            if not self.skipped:
                logger.warning("qlog writes %d sessions at once, and skips others", self._max_sessions)
            self.skipped += 1
            return
        self._sessions[session] = SessionFiles(session, self._directory, self._max_bytes, self._opener)
        self._write(session, words.CONNECTION_STARTED, words.started(session.path), now)

    def event(self, session: TracedSession, event: Event, now: float) -> None:
        """States, steps, signs of life, the end."""
        for name, data in words.of_event(event):
            self._write(session, name, data, now)

    def message_sent(self, session: TracedSession, message: str, size: int, now: float) -> None:
        """A message of the handshake."""
        self._write(session, words.MESSAGE_SENT, {"message": message, "raw": {"length": size}}, now)

    def message_received(self, session: TracedSession, message: str, size: int, now: float) -> None:
        """A message of the handshake."""
        self._write(session, words.MESSAGE_RECEIVED, {"message": message, "raw": {"length": size}}, now)

    def keys_derived(self, session: TracedSession, version: int, suite: str, now: float) -> None:
        """There are keys."""
        for name, data in words.keys(version, suite):
            self._write(session, name, data, now)

    def parameters_set(self, session: TracedSession, local: Parameters, remote: Parameters, now: float) -> None:
        """What both announced."""
        self._write(session, words.PARAMETERS_SET, words.parameters("local", local), now)
        self._write(session, words.PARAMETERS_SET, words.parameters("remote", remote), now)

    def packet_sent(
        self,
        session: TracedSession,
        number: int,
        size: int,
        datagrams: int,
        frames: Sequence[TracedFrame],
        mtu_probe: bool,
        now: float,
    ) -> None:
        """A packet out."""
        self._write(session, words.PACKET_SENT, words.packet(number, size, datagrams, frames, mtu_probe), now)

    def packet_received(
        self,
        session: TracedSession,
        number: int,
        size: int,
        datagrams: int,
        frames: Sequence[TracedFrame],
        now: float,
    ) -> None:
        """A packet in."""
        self._write(session, words.PACKET_RECEIVED, words.packet(number, size, datagrams, frames), now)

    def packet_dropped(self, session: TracedSession, reason: str, count: int, now: float) -> None:
        """Datagrams that gave no packet."""
        self._write(session, words.PACKET_DROPPED, words.dropped(reason, count), now)

    def packet_lost(
        self, session: TracedSession, number: int, size: int, datagrams: int, mtu_probe: bool, now: float
    ) -> None:
        """A packet that is lost."""
        self._write(session, words.PACKET_LOST, words.packet(number, size, datagrams, None, mtu_probe), now)

    def metrics_updated(self, session: TracedSession, metrics: RecoveryStats, now: float) -> None:
        """What has changed since the last time, and only that."""
        if session in self._sessions:
            data, last = words.metrics(metrics), self._last.get(session, {})
            self._last[session] = data
            changed = {name: value for name, value in data.items() if last.get(name) != value}
            if changed:
                self._write(session, words.METRICS_UPDATED, changed, now)

    def congestion_state_updated(self, session: TracedSession, old: str, new: str, now: float) -> None:
        """Another state of congestion control."""
        self._write(session, words.CONGESTION_STATE_UPDATED, {"old": old, "new": new}, now)

    def ecn_state_updated(self, session: TracedSession, old: str, new: str, now: float) -> None:
        """What is known of marks of congestion."""
        self._write(session, words.ECN_STATE_UPDATED, {"old": old, "new": new}, now)

    def mtu_updated(self, session: TracedSession, old: int, new: int, now: float) -> None:
        """Datagrams of another size."""
        self._write(session, words.MTU_UPDATED, {"old": old, "new": new}, now)

    def path_updated(self, session: TracedSession, old: NetworkPath, new: NetworkPath, now: float) -> None:
        """Other addresses."""
        self._write(session, words.PATH_UPDATED, words.another_path(new), now)

    def session_over(self, session: TracedSession, now: float) -> None:
        """The end of its files."""
        self._write(session, words.SESSION_OVER, {}, now)
        self._finish(session)
