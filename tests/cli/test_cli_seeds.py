"""Secrets come from a file, the environment or the terminal (I-4), and are never asked for on the command line."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from stt_anyio.cli import seeds
from stt_anyio.cli.app import stt
from stt_anyio.cli.verb import ExitCode, Failure
from stt_proto.identity import Identity, decode_node_key_untrusted


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(seeds.VARIABLE, raising=False)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("raw", "seed"),
    [
        (b"secret", b"secret"),
        (b"secret\n", b"secret"),
        (b"secret\r\n", b"secret"),
        (b"secret\n\n", b"secret\n"),
        (b" \n", b" "),
    ],
)
def test_seed_from_a_file_loses_one_newline(tmp_path: Path, raw: bytes, seed: bytes) -> None:
    """I-4."""
    file = tmp_path / "seed"
    file.write_bytes(raw)
    assert seeds.shared_seed(file) == seed


def test_the_file_comes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(seeds.VARIABLE, "from the environment")
    assert seeds.shared_seed(None) == b"from the environment"
    (tmp_path / "seed").write_bytes(b"from the file")
    assert seeds.shared_seed(tmp_path / "seed") == b"from the file"


def test_text_is_normalised(monkeypatch: pytest.MonkeyPatch) -> None:
    """I-4: it does not matter how an accent was composed."""
    monkeypatch.setenv(seeds.VARIABLE, "cafe\u0301")
    assert seeds.shared_seed(None) == "caf\u00e9".encode()


def test_the_terminal_is_asked_last(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def prompt(text: str, *, hide_input: bool, err: bool) -> str:
        asked.append((text, hide_input, err))
        return "typed"

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(click, "prompt", prompt)
    assert seeds.shared_seed(None) == b"typed"
    assert asked == [("Shared seed", True, True)], "neither shown nor mixed into the results"


def test_without_a_terminal_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("not a terminal"))
    monkeypatch.setenv(seeds.VARIABLE, "")
    with pytest.raises(Failure, match="--seed-file") as caught:
        seeds.shared_seed(None)
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("content", "message", "exit_code"),
    [
        (b"", "is empty", ExitCode.USAGE),
        (b"\n", "is empty", ExitCode.USAGE),
        (b"x" * (seeds.MAX_FILE + 1), "longer than", ExitCode.FILE),
        (None, "No such file", ExitCode.FILE),
    ],
)
def test_bad_seed_files(tmp_path: Path, content: bytes | None, message: str, exit_code: ExitCode) -> None:
    file = tmp_path / "seed"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Failure, match=message) as caught:
        seeds.shared_seed(file)
    assert caught.value.exit_code == exit_code


def test_a_node_without_a_key_file_is_somebody_new() -> None:
    assert seeds.node_seed(None) != seeds.node_seed(None)
    assert len(seeds.node_seed(None)) == 32


def test_no_option_of_any_verb_takes_a_secret() -> None:
    for verb in stt.commands.values():
        for option in verb.params:
            assert "seed" not in option.opts[0] or option.opts[0] == "--seed-file"


# -- keygen --------------------------------------------------------------------------------------------------------


def test_keygen_makes_a_key_and_prints_its_node_id(tmp_path: Path) -> None:
    """I-1, I-2."""
    file = tmp_path / "node.key"
    result = CliRunner().invoke(stt, ["keygen", "--out", str(file)])
    assert result.exit_code == 0
    assert file.stat().st_mode & 0o777 == 0o600
    seed = decode_node_key_untrusted(file.read_text())
    assert result.stdout == Identity.from_seed(seed).node_id.hex() + "\n"
    assert seed.hex() not in result.output
    assert seeds.node_seed(file) == seed


def test_keygen_in_json(tmp_path: Path) -> None:
    file = tmp_path / "node.key"
    result = CliRunner().invoke(stt, ["keygen", "--json", "--out", str(file)])
    told = json.loads(result.stdout)
    assert told == {
        "event": "key",
        "file": str(file),
        "node_id": Identity.from_seed(seeds.node_seed(file)).node_id.hex(),
    }


def test_keygen_never_overwrites(tmp_path: Path) -> None:
    file = tmp_path / "node.key"
    file.write_text("precious")
    result = CliRunner().invoke(stt, ["keygen", "--out", str(file)])
    assert result.exit_code == ExitCode.FILE
    assert "exists already" in result.stderr
    assert file.read_text() == "precious"


def test_keygen_does_not_follow_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert CliRunner().invoke(stt, ["keygen", "--out", str(tmp_path / "link")]).exit_code == ExitCode.FILE
    assert not (tmp_path / "elsewhere").exists()


def test_keygen_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(stt, ["keygen", "--out", str(tmp_path / "nowhere" / "node.key")])
    assert (result.exit_code, result.stdout) == (ExitCode.FILE, "")
    assert "No such file or directory" in result.stderr

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    result = CliRunner().invoke(stt, ["keygen", "--json", "--out", str(tmp_path / "node.key")])
    assert "No space left on device" in result.stderr
    assert json.loads(result.stdout)["exit_code"] == ExitCode.FILE
    assert not (tmp_path / "node.key").exists(), "no half a key"


def test_a_file_that_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "node.key").write_text("stt-node-seed-1 1234\n")
    with pytest.raises(Failure, match="not a node key") as caught:
        seeds.node_seed(tmp_path / "node.key")
    assert caught.value.exit_code == ExitCode.FILE
    assert "1234" not in caught.value.message


def test_keygen_interrupted_leaves_no_half_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    result = CliRunner().invoke(stt, ["keygen", "--out", str(tmp_path / "node.key")])
    assert result.exit_code == ExitCode.INTERRUPTED
    assert not list(tmp_path.iterdir())
