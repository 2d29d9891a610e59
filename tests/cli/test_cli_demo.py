"""`stt demo`: ends with "demo: ok", or in time with a message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner

from stt_anyio.cli import demo
from stt_anyio.cli.app import stt
from stt_anyio.cli.verb import ExitCode
from stt_anyio.node import STTNode
from stt_anyio.session import Session


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "FILE_SIZE", 2 << 20)
    monkeypatch.setattr(demo, "VIDEO", 1 << 20)
    monkeypatch.setattr(demo, "MESSAGES", 20)
    monkeypatch.setattr(demo, "PART", 4 << 20)
    monkeypatch.setattr(demo, "CUT", 0.05)


def test_demo() -> None:
    result = CliRunner().invoke(stt, ["demo"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[-1] == "demo: ok"
    steps = [
        line.split()[2] for line in lines if line.startswith(("  client sends", "  client opens", "  server opens"))
    ]
    assert steps == ["HELLO", "CHALLENGE", "AUTH_PROOF", "FINAL"], "B1: four messages, each an event"
    hashes = [line.split()[-1] for line in lines if "sha256" in line]
    assert len(hashes) == 4
    assert hashes[0] == hashes[1]
    assert hashes[2] == hashes[3]
    journey = [line.split("session", 1)[1].strip() for line in lines if line.startswith("  session ")]
    for line, what in zip(
        journey,
        [
            "moves from udp to ws",
            "moves from ws to udp",
            "replaces its keys: version 1 now",
            "is cut off for 0.05 s, and goes on by itself",
        ],
        strict=True,
    ):
        assert line.startswith(what), "C8, C4"
    assert "refused after" in result.stdout
    assert "closed: graceful here, graceful there" in result.stdout


def test_it_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(*_: Any) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr(demo, "TIME_LIMIT", 0.05)
    monkeypatch.setattr(demo, "_stranger", sleep)
    result = CliRunner().invoke(stt, ["demo"])
    assert result.exit_code == ExitCode.FAILED
    assert "did not end within 0.05 s" in result.stderr
    assert "demo: ok" not in result.stdout


def test_a_file_that_is_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_sha256", lambda path: str(path))
    result = CliRunner().invoke(stt, ["demo"])
    assert (result.exit_code, result.stderr) == (ExitCode.FAILED, "stt: the file was damaged\n")


def test_a_transfer_that_is_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    class Damaged(demo._Sums):
        async def receive(self, answered: Session) -> None:
            await super().receive(answered)
            self.received.update(b"!")

    monkeypatch.setattr(demo, "_Sums", Damaged)
    result = CliRunner().invoke(stt, ["demo"])
    assert (result.exit_code, result.stderr) == (ExitCode.FAILED, "stt: the transfer was damaged\n")


def test_a_stranger_who_gets_in(monkeypatch: pytest.MonkeyPatch) -> None:
    make = STTNode.__init__

    def let_in(node: STTNode, *args: Any, **parameters: Any) -> None:
        make(node, *args, **{**parameters, "shared_seed": "everybody's"})

    monkeypatch.setattr(STTNode, "__init__", let_in)
    result = CliRunner().invoke(stt, ["demo"])
    assert (result.exit_code, result.stderr) == (ExitCode.FAILED, "stt: the stranger got in\n")


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert CliRunner().invoke(stt, ["demo"]).exit_code == 0
    assert not list(tmp_path.iterdir())
