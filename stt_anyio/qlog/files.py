"""The files of one session: what is to be written is gathered, and written in large pieces.

Each session has two, which say the same. `.sqlog` is JSON text sequences (RFC 7464) in the form of
draft-ietf-quic-qlog-main-schema-14: it is good to read while it grows, and when its writer crashed. `.qlog` is one JSON
document of qlog 0.3, and whole when the session is over: qvis reads it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from errno import EEXIST
from pathlib import Path
from typing import Any, BinaryIO

from attrs import frozen

from stt_anyio.qlog.vocabulary import TRUNCATED, Data, Name, milliseconds
from stt_proto import TracedSession

Opener = Callable[[Path], BinaryIO]
"""Opens a file that must not exist yet."""

BUFFER = 1 << 16
"""Bytes that are gathered before they are written, and so the most that a crash costs."""
FLUSH_AFTER = 1.0
"""Seconds after which less is written, once there is something new."""
TRIES = 100
"""Names that are tried for sessions that began in one millisecond."""
EVENT_SCHEMAS = ("urn:ietf:params:qlog:events:quic-13", "urn:x-stt:qlog:events:stt")

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def open_private(path: Path) -> BinaryIO:
    """Make a file that only its owner can read; whoever reads it knows who talked to whom, when, and how much.

    Raises:
        FileExistsError: there is something of that name.
        OSError: it cannot be made.
    """
    return open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600))


@frozen
class Form:
    """One form of qlog.

    Attributes:
        suffix: of the file's name.
        old: whether events have the names of qlog 0.3.
        header: makes what precedes the first event.
        separator: between two events.
        start: of an event.
        end: of an event.
        footer: behind the last.
    """

    suffix: str
    old: bool
    header: Callable[[TracedSession], str]
    separator: str
    start: str
    end: str
    footer: str


def name_of(session: TracedSession) -> str:
    """The session's id, or what stands for it while there is none."""
    return session.session_id.hex() or f"dial-{session.number}"


def _trace_of(session: TracedSession, common_fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "title": f"STT session {name_of(session)}",
        "vantage_point": {"type": "client" if session.initiator else "server"},
        "common_fields": {"group_id": name_of(session), **common_fields},
    }


def _header(session: TracedSession) -> str:
    """The first record of a `.sqlog`. Times are since the session began, on a clock that does not jump."""
    wall_clock = datetime.fromtimestamp(session.created_at, UTC).isoformat(timespec="milliseconds")
    reference = {"clock_type": "monotonic", "epoch": "unknown", "wall_clock_time": wall_clock.replace("+00:00", "Z")}
    trace = _trace_of(session, {"time_format": "relative_to_epoch", "reference_time": reference})
    trace["event_schemas"] = EVENT_SCHEMAS
    schema = {
        "file_schema": "urn:ietf:params:qlog:file:sequential",
        "serialization_format": "application/qlog+json-seq",
        "trace": trace,
    }
    return f"\x1e{_encode(schema)}\n"


def _old_header(session: TracedSession) -> str:
    """How a `.qlog` begins: with everything but the events."""
    reference = round(session.created_at * 1000, 3)
    common_fields = {"time_format": "relative", "reference_time": reference, "protocol_type": ["STT"]}
    trace = _encode({**_trace_of(session, common_fields), "events": []})
    return f'{{"qlog_version":"0.3","qlog_format":"JSON","traces":[{trace.removesuffix("]}")}\n'


FORMS = (
    Form(".sqlog", False, _header, "", '\x1e{"time":', "}\n", ""),
    Form(".qlog", True, _old_header, ",\n", '{"time":', "}", "\n]}]}\n"),
)


class SessionFiles:
    """What is written of one session. Any method may raise `OSError`; after that only `discard` is of use.

    Args:
        session: which.
        directory: where.
        max_bytes: of each file, about; then it is closed, and the rest of the session is not in it.
        opener: opens a file.

    Attributes:
        full: whether nothing more is written.
    """

    __slots__ = (
        "_directory",
        "_files",
        "_flushed_at",
        "_gathered",
        "_lines",
        "_max_bytes",
        "_opener",
        "_session",
        "_written",
        "full",
    )

    def __init__(self, session: TracedSession, directory: Path, max_bytes: int, opener: Opener = open_private) -> None:
        self._session = session
        self._directory = directory
        self._max_bytes = max_bytes
        self._opener = opener
        self._files: list[BinaryIO] = []
        self._lines: list[list[str]] = [[] for _ in FORMS]
        self._gathered = 0
        self._written = 0
        self._flushed_at = session.began
        self.full = False

    def add(self, name: Name, data: Data, now: float) -> None:
        """Write an event, now or soon."""
        if self.full:
            return
        self._gather(name, data, now)
        if self._written + self._gathered >= self._max_bytes:
            self._gather(TRUNCATED, {}, now)
            self.close()
        elif self._gathered >= BUFFER or (self._session.session_id and now - self._flushed_at >= FLUSH_AFTER):
            self._flushed_at = now
            self._flush()

    def _gather(self, name: Name, data: Data, now: float) -> None:
        time, body = milliseconds(now - self._session.began), _encode(data)
        for form, lines in zip(FORMS, self._lines, strict=True):
            called = name.old if form.old else name.draft
            lines.append(f'{form.separator}{form.start}{time},"name":"{called}","data":{body}{form.end}')
        self._gathered += len(lines[-1])

    def _flush(self) -> None:
        """Write what was gathered; the first time into new files."""
        fresh = not self._files
        if fresh:
            self._open()
        for form, file, lines in zip(FORMS, self._files, self._lines, strict=True):
            text = "".join(lines)
            if fresh:
                text = form.header(self._session) + text.removeprefix(form.separator)
            file.write(text.encode("ascii"))
            file.flush()
            lines.clear()
        self._written += self._gathered
        self._gathered = 0

    def _open(self) -> None:
        began = datetime.fromtimestamp(self._session.created_at, UTC)
        role = "initiator" if self._session.initiator else "responder"
        stem = f"{began:%Y%m%dT%H%M%S}.{began.microsecond // 1000:03}Z_{role}_{name_of(self._session)}"
        for name in (stem, *(f"{stem}-{again}" for again in range(2, TRIES))):
            try:
                for form in FORMS:
                    self._files.append(self._opener(self._directory / f"{name}{form.suffix}"))
            except FileExistsError:
                self.discard()
            else:
                return
        raise FileExistsError(EEXIST, "so many files are there already", stem)

    def close(self) -> None:
        """Write what is left, and the end."""
        if self.full:
            return
        self.full = True
        self._flush()
        for form, file in zip(FORMS, self._files, strict=True):
            file.write(form.footer.encode("ascii"))
            file.close()
        self._files.clear()

    def discard(self) -> None:
        """Give the files back as they are, whatever state that is."""
        while self._files:
            try:
                self._files.pop().close()
            except OSError:  # what it had buffered cannot be written either; it is closed nevertheless
                pass
