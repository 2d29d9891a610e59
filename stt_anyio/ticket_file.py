"""Which tickets were used, over restarts: a file of lines, each on the disk before its ticket is answered."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from math import inf
from pathlib import Path

from stt_anyio.errors import ArgumentError
from stt_proto import UsedTickets

HEADER = b"stt-used-tickets-1\n"
SPARE = 1024
"""Lines that may be there beyond twice those that count; then the file is written anew."""

_WINDOWS: bool = os.name == "nt"
"""It has no `flock`, and replaces no file that somebody has open."""
_LINE = re.compile(rb"([0-9a-f]{32}|over) (\d{1,12}\.\d{3})\n")
_BINARY = getattr(os, "O_BINARY", 0)
"""Windows writes other ends of lines without it."""
_OVER = b"over"
"""Stands where a line has no id but tells until when tickets have expired that were dropped."""


class TicketFile:
    """The used tickets of one node. Nobody else can use the file at the same time: it is locked.

    With the tickets it holds the latest expiry of those that have left it: a wall clock that once stood later, and was
    set back, makes none of them good again.

    A last line that was cut short, by a crash or a full disk, was never answered for, and is dropped.

    Args:
        path: of the file; made if it does not exist.
        limit: tickets that are remembered at once.
        clock: the wall clock.

    Raises:
        ArgumentError: this is another kind of file, or a damaged one, or another node has it.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: str, limit: int, clock: Callable[[], float] = time.time) -> None:
        self._path = Path(path)
        self._clock = clock
        self._lines = 0
        self._torn = False  # writing failed, perhaps in the middle of a line
        self._descriptor = _open_alone(self._path)
        try:
            entries, forgotten_until = _read(self._path)
            self._used = UsedTickets(max(limit, len(entries)))
            self._used.restore(entries, clock(), forgotten_until)
            self._rewrite()
        except BaseException:
            self.close()
            raise

    def use(self, ticket_id: bytes, expires_at: float) -> bool:
        """Whether a ticket may be used: nobody has, and from now on it is known that somebody has.

        Raises:
            OSError: it cannot be written; then nothing may be used, since nothing can be remembered.
        """
        if not self._used.add(ticket_id, expires_at, self._clock()):
            return False
        try:
            if self._torn or self._lines > 2 * len(self._used) + SPARE:
                self._rewrite()
            else:
                _write(self._descriptor, _line(ticket_id, expires_at))
                self._lines += 1
        except OSError:
            self._torn = True
            raise
        return True

    def close(self) -> None:
        """Give the file back; idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _rewrite(self) -> None:
        """Write the file anew with what still counts, in one step: there is the old one or the new one.

        Somebody has a lock all the time: on the old one until the new one, which has its own, is in its place.
        """
        used = self._used.snapshot()
        over = self._used.forgotten_until
        forgotten = b"" if over == -inf else _named(_OVER, over)
        beside = self._path.with_name(self._path.name + ".new")
        beside.unlink(missing_ok=True)  # of a crash; or of somebody who would have us write elsewhere
        descriptor = os.open(beside, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | _BINARY, 0o600)
        try:
            _lock(descriptor)
            _write(descriptor, HEADER + forgotten + b"".join(_line(*entry) for entry in used))
            if _WINDOWS:
                self.close()
                os.close(descriptor)
                descriptor = -1
            os.replace(beside, self._path)
            if _WINDOWS:
                descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | _BINARY)
        except BaseException:
            if descriptor >= 0:
                os.close(descriptor)
            raise
        self.close()
        self._descriptor = descriptor
        self._lines, self._torn = len(used), False
        _sync_directory(self._path.parent)


def _open_alone(path: Path) -> int:
    """Have the file for oneself, as long as the descriptor is open; one that does not exist is made.

    Raises:
        ArgumentError: somebody else has it.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _BINARY, 0o600)
        try:
            _lock(descriptor)
            if _is_at(descriptor, path):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise ArgumentError(
                f"ticket_file is {str(path)!r}, which another node has; each needs its own, or a ticket_store",
                argument="ticket_file",
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # whoever had it has replaced it meanwhile


def _lock(descriptor: int) -> None:
    """Raises `BlockingIOError` if somebody has locked it. The lock ends with the descriptor, also in a crash."""
    with suppress(ImportError):  # Windows
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether this open file is the one that has the name now."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _line(ticket_id: bytes, expires_at: float) -> bytes:
    return _named(ticket_id.hex().encode(), expires_at)


def _named(name: bytes, expires_at: float) -> bytes:
    """A line, its time rounded upwards."""
    return b"%b %.3f\n" % (name, expires_at + 0.001)


def _read(path: Path) -> tuple[list[tuple[bytes, float]], float]:
    """What is in a file, and until when what was dropped had expired; nothing if it does not exist."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], -inf
    lines = data.splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        del lines[-1]
    found = [_LINE.fullmatch(line) for line in lines[1:]]
    if not HEADER.startswith(data[: len(HEADER)]) or None in found:
        raise ArgumentError(
            f"ticket_file is {str(path)!r}, which is another kind of file or damaged", argument="ticket_file"
        )
    told = [(match[1], float(match[2])) for match in found if match is not None]
    entries = [(bytes.fromhex(name.decode()), expires_at) for name, expires_at in told if name != _OVER]
    return entries, max((expires_at for name, expires_at in told if name == _OVER), default=-inf)


def _write(descriptor: int, data: bytes) -> None:
    """Write, and wait until it is on the disk."""
    while data:
        data = data[os.write(descriptor, data) :]
    os.fsync(descriptor)


def _sync_directory(path: Path) -> None:
    """Wait until the name of a file is on the disk, where the system can."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # Windows
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
