"""The key log: a file with the secrets of sessions, so that what was captured on the wire can be read afterwards.

It is what SSLKEYLOGFILE is for TLS (RFC 9850), with the same shape: a line is `LABEL SESSION_ID SECRET`, the last two
in hexadecimal digits. Whoever has the file reads everything that these sessions carried, for ever: that is its purpose.
See docs/tracing.md.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable

logger = logging.getLogger("stt.keylog")

_FLAGS = (
    os.O_WRONLY
    | os.O_CREAT
    | os.O_APPEND
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)  # so that opening a pipe does not wait for its reader
)


class KeyLogFile:
    """Appends each secret to a file: `Endpoint(..., keylog=KeyLogFile("keys.log"))`. Warns loudly that it does.

    A new file can be read by its owner only, and one that is there is made so. It must be an ordinary file of this
    user, and no link to one: else somebody else might have laid it there to get at the secrets. What cannot be written
    ends the log with a warning, and nothing else.

    Args:
        path: the file.

    Raises:
        OSError: it cannot be opened, or is not fit for secrets.
    """

    __slots__ = ("_descriptor", "_path")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._descriptor: int | None = os.open(self._path, _FLAGS, 0o600)
        try:
            _make_private(self._descriptor, self._path)
        except BaseException:
            self.close()
            raise
        logger.warning("the SECRETS OF ALL SESSIONS are written to %s; whoever reads it can read them", self._path)

    def __call__(self, label: str, session_id: bytes, secret: bytes) -> None:
        """Append a line."""
        if self._descriptor is None:
            return
        line = f"{label} {session_id.hex()} {secret.hex()}\n".encode("ascii")
        try:
            if os.write(self._descriptor, line) != len(line):
                raise OSError("no room for a whole line")
        except OSError as error:
            logger.warning("the key log %s stops, and is incomplete: %s", self._path, error)
            self.close()

    def close(self) -> None:
        """Write nothing more. May be called again."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _make_private(descriptor: int, path: str) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise PermissionError(f"{path} is no ordinary file, and gets no secrets")
    if not hasattr(os, "geteuid"):  # where files have no such owners
        return
    if status.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to somebody else, and gets no secrets")
    if stat.S_IMODE(status.st_mode) & 0o077:
        os.fchmod(descriptor, 0o600)


def read_keylog(lines: Iterable[str]) -> dict[bytes, dict[str, bytes]]:
    """The secrets in the lines of a key log: `{session_id: {label: secret}}`. Lines of another shape are passed over.

    with open("keys.log") as lines:
        secrets = read_keylog(lines)
    """
    found: dict[bytes, dict[str, bytes]] = {}
    for line in lines:
        match line.split():
            case [label, session_id, secret] if label.startswith("STT_"):
                try:
                    name, value = bytes.fromhex(session_id), bytes.fromhex(secret)
                except ValueError:
                    continue
                found.setdefault(name, {})[label] = value
    return found
