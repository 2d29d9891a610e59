"""A file that is whole or not there: written under a temporary name beside its place, then moved into it at once."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from stt_anyio.cli.outcome import Outcome, TransferError, deceives

_FULL = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
_NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV})
"""What file systems without hard links say."""
_WINDOWS = os.name == "nt"
_WINDOWS_DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | {
    f"{port}{number}" for port in ("COM", "LPT") for number in "0123456789¹²³"
}
"""What Windows never takes for a file; it takes raised digits for digits."""


def check_name(name: str) -> None:
    """Refuse a name that is no plain name of a file in one directory.

    Raises:
        TransferError: it is empty, leads elsewhere, or holds characters that deceive whoever reads it.
    """
    bad = name in ("", ".", "..") or any(character in "/\\" or deceives(character) for character in name)
    try:
        os.fsencode(name)
    except UnicodeEncodeError:  # file names here are not in UTF-8
        bad = True
    if _WINDOWS and not bad:
        bad = (
            any(character in '<>:"|?*' for character in name)
            or name.endswith((" ", "."))
            or name.partition(".")[0].rstrip().upper() in _WINDOWS_DEVICES
        )
    if bad:
        raise TransferError(Outcome.BAD_NAME, f"{name!a} cannot be the name of a file here")


class PartFile:
    """What is being received. A context manager: what was not stored when the block ends is removed.

    Args:
        directory: where the file will be.
        name: what it will be called; see `check_name`.
        size: bytes that it will have; refused at once when there is no room for them.
        overwrite: whether it may replace a file of that name.

    Raises:
        TransferError: out of any method: the name is bad or taken, there is no room, or the system refuses.
    """

    def __init__(self, directory: Path, name: str, size: int, *, overwrite: bool = False) -> None:
        check_name(name)
        self.path = directory / name
        self._overwrite = overwrite
        with self._trouble():
            self._check_place(directory, size)
            self._part = directory / f".stt-{secrets.token_hex(8)}.part"
            self._file = open(self._part, "xb", buffering=0)  # noqa: SIM115 # closed by `__exit__`

    def _check_place(self, directory: Path, size: int) -> None:
        try:
            there = os.lstat(self.path)
        except FileNotFoundError:
            there = None
        if there is not None and (not self._overwrite or stat.S_ISDIR(there.st_mode)):
            raise self._exists()
        free = shutil.disk_usage(directory).free
        if size > free:
            raise TransferError(Outcome.NO_SPACE, f"no room for {self.path.name}: {size} bytes, {free} are free")

    def write(self, data: bytes) -> None:
        """Append to the file."""
        with self._trouble():
            written = self._file.write(data)
            while written < len(data):  # a disk that fills up takes a part first
                data = data[written:]
                written = self._file.write(data)

    def store(self) -> Path:
        """Bring what was written to the disk, and the file to its place; this may take a while."""
        with self._trouble():
            os.fsync(self._file.fileno())
            self._file.close()
            self._publish()
            self._sync_directory()
        return self.path

    def _publish(self) -> None:
        if self._overwrite:
            os.replace(self._part, self.path)
            return
        if _WINDOWS:  # where renaming never replaces
            os.rename(self._part, self.path)
            return
        try:
            os.link(self._part, self.path)  # which, other than renaming, never replaces
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if os.path.lexists(self.path):
                raise self._exists() from None
            os.rename(self._part, self.path)

    def _sync_directory(self) -> None:
        """Make the new name last; there are systems on which directories cannot be opened, and need not be."""
        try:
            descriptor = os.open(self.path.parent, os.O_RDONLY)
        except OSError:
            return
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def __enter__(self) -> PartFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(OSError):  # of a disk that is gone; what ended the transfer is told, and not this
            self._file.close()
        with suppress(OSError):
            self._part.unlink()

    # -- trouble ---------------------------------------------------------------------------------------------------

    def _exists(self) -> TransferError:
        return TransferError(Outcome.EXISTS, f"{self.path.name} exists already and is not overwritten")

    @contextmanager
    def _trouble(self) -> Iterator[None]:
        try:
            yield
        except FileExistsError:
            raise self._exists() from None
        except OSError as error:
            outcome = Outcome.NO_SPACE if error.errno in _FULL else Outcome.STORAGE
            raise TransferError(outcome, f"cannot store {self.path.name}: {error.strerror or error}") from error
