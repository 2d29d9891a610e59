"""A received file is whole under its name, or it is not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from stt_anyio.cli.outcome import Outcome, TransferError, printable
from stt_anyio.cli.storage import PartFile, check_name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "/etc/passwd",
        "../a",
        "a\\b",
        "a\0b",
        "a\nb",
        "\x1b[2J",
        "\u202egpj.exe",
        "a\u2028b",
        "\udc80",
    ],
)
def test_names_that_lead_elsewhere_or_deceive(name: str, tmp_path: Path) -> None:
    with pytest.raises(TransferError) as caught:
        PartFile(tmp_path, name, 1)
    assert caught.value.outcome is Outcome.BAD_NAME
    assert str(caught.value).isascii()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["a", "...", ".profile", "größe 1.txt", "a:b", "1\u202fPM.png", "👩‍🚀", "~", "-rf", "CON"]
)
def test_plain_names(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    "name", ["a:b", "NUL", "con.txt", "COM1 .x", "a.", "a ", "a?", "a|b", "lpt²", "COM¹.txt", "ConIn$"]
)
def test_names_that_windows_takes_for_something_else(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stt_anyio.cli.storage._WINDOWS", True)
    with pytest.raises(TransferError):
        check_name(name)
    check_name("plain.txt")


def test_printable() -> None:
    assert printable("größe \x1b[31m\u202e\n") == "größe ?[31m??"


def stored(directory: Path, name: str = "file", data: bytes = b"data", *, overwrite: bool = False) -> Path:
    with PartFile(directory, name, len(data), overwrite=overwrite) as part:
        part.write(data)
        assert not (directory / name).exists() or overwrite
        return part.store()


def test_stored_whole(tmp_path: Path) -> None:
    path = stored(tmp_path)
    assert path == tmp_path / "file"
    assert path.read_bytes() == b"data"
    assert list(tmp_path.iterdir()) == [path]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_left_early_nothing_stays(tmp_path: Path) -> None:
    with PartFile(tmp_path, "file", 9) as part:
        part.write(b"half")
        assert len(list(tmp_path.iterdir())) == 1
    assert not list(tmp_path.iterdir())


def test_never_overwritten_unless_asked(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(TransferError) as caught:
        stored(tmp_path)
    assert caught.value.outcome is Outcome.EXISTS
    assert (tmp_path / "file").read_bytes() == b"old"
    assert stored(tmp_path, overwrite=True).read_bytes() == b"data"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_dangling_link_is_something_that_exists(tmp_path: Path) -> None:
    (tmp_path / "file").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TransferError) as caught:
        stored(tmp_path)
    assert caught.value.outcome is Outcome.EXISTS
    stored(tmp_path, overwrite=True)
    assert not (tmp_path / "elsewhere").exists(), "the link was replaced, not followed"


def test_a_directory_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(TransferError) as caught:
        stored(tmp_path, overwrite=True)
    assert caught.value.outcome is Outcome.EXISTS


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    with PartFile(tmp_path, "file", 4) as part:
        part.write(b"data")
        (tmp_path / "file").write_bytes(b"quicker")
        with pytest.raises(TransferError) as caught:
            part.store()
    assert caught.value.outcome is Outcome.EXISTS
    assert (tmp_path / "file").read_bytes() == b"quicker"
    assert len(list(tmp_path.iterdir())) == 1


class TestWithoutHardLinks:
    @pytest.fixture(autouse=True)
    def _no_links(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def link(*_: Any) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", link)

    def test_stored(self, tmp_path: Path) -> None:
        assert stored(tmp_path).read_bytes() == b"data"
        assert len(list(tmp_path.iterdir())) == 1

    def test_not_overwritten(self, tmp_path: Path) -> None:
        with PartFile(tmp_path, "file", 4) as part:
            (tmp_path / "file").write_bytes(b"quicker")
            with pytest.raises(TransferError) as caught:
                part.store()
        assert caught.value.outcome is Outcome.EXISTS


def test_where_renaming_never_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stt_anyio.cli.storage._WINDOWS", True)
    assert stored(tmp_path).read_bytes() == b"data"


def test_no_room_is_known_before_the_first_byte(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="no room") as caught:
        PartFile(tmp_path, "file", 1 << 62)
    assert caught.value.outcome is Outcome.NO_SPACE
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("number", "outcome"),
    [(errno.ENOSPC, Outcome.NO_SPACE), (errno.EDQUOT, Outcome.NO_SPACE), (errno.EIO, Outcome.STORAGE)],
)
def test_a_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, outcome: Outcome) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(TransferError, match=os.strerror(number)) as caught:
        stored(tmp_path)
    assert caught.value.outcome is outcome
    assert not list(tmp_path.iterdir())


def test_a_write_that_takes_only_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, data: bytes) -> int:
            return int(self.file.write(data[:3]))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    with PartFile(tmp_path, "file", 10) as part:
        part._file = Slow(part._file)  # type: ignore[assignment]
        part.write(b"0123456789")
        assert part.store().read_bytes() == b"0123456789"


def test_names_too_long_for_the_system(tmp_path: Path) -> None:
    with pytest.raises(TransferError) as caught:
        PartFile(tmp_path, "x" * 300, 1)
    assert caught.value.outcome is Outcome.STORAGE


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="No such file") as caught:
        PartFile(tmp_path / "nowhere", "file", 1)
    assert caught.value.outcome is Outcome.STORAGE


def test_systems_on_which_directories_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_open(*_: Any) -> int:
        raise PermissionError

    with PartFile(tmp_path, "file", 0) as part:
        monkeypatch.setattr(os, "open", no_open)
        assert part.store().exists()


def test_names_that_the_file_system_cannot_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where names of files are not in UTF-8, one that comes in it is refused, and ends nothing."""
    monkeypatch.setattr("os.fsencode", lambda name: name.encode("latin-1"))
    check_name("gr\N{LATIN SMALL LETTER O WITH DIAERESIS}\N{LATIN SMALL LETTER SHARP S}e")
    with pytest.raises(TransferError) as caught:
        check_name("\N{EURO SIGN}")
    assert caught.value.outcome is Outcome.BAD_NAME


def test_a_disk_that_is_gone_at_the_end(tmp_path: Path) -> None:
    """What ended the transfer is told, and not that nothing could be tidied up."""
    part = PartFile(tmp_path, "file", 1)
    part._part.unlink()
    part._part.mkdir()
    part.__exit__(None, None, None)
