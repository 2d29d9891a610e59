"""`stt perf`: every figure comes from a run, and what a mode does not measure is null."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from stt_anyio.cli import ends, pair
from stt_anyio.cli.app import stt
from stt_anyio.cli.perf import FIGURES
from stt_anyio.cli.verb import ExitCode

MEASURED = {
    "bulk": {"mb_per_s", "cpu_s_sender", "cpu_s_receiver"},
    "echo": {"echo_p50_us", "cpu_s_sender", "cpu_s_receiver"},
    "handshake": {"handshake_ms"},
    "memory": {"kib_per_session", "mb_per_s"},
}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "ECHOES", 20)
    monkeypatch.setattr(pair, "HANDSHAKES", 3)
    monkeypatch.setattr(pair, "SESSIONS", 30)


def perf(*words: str) -> Result:
    return CliRunner().invoke(stt, ["perf", *words])


def check(result: Result, mode: str) -> dict[str, float | None]:
    assert result.exit_code == 0, result.output
    figures: dict[str, float | None] = json.loads(result.stdout)
    assert set(FIGURES) <= set(figures)
    measured = {key for key in FIGURES if figures[key] is not None}
    assert measured == MEASURED[mode]
    assert all(figures[key] > 0 for key in measured)  # type: ignore[operator]
    return figures


@pytest.mark.parametrize("backend", ["asyncio", "trio", "blocking"])
@pytest.mark.parametrize("mode", ["bulk", "echo"])
def test_over_udp(mode: str, backend: str) -> None:
    words = ("--json", "--mode", mode, "--mb", "2", "--backend", backend, "--datagram-size", "1452")
    figures = check(perf(*words), mode)
    assert figures["datagram_size"] == 1452


def test_handshake() -> None:
    check(perf("--json", "--mode", "handshake"), "handshake")


def test_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What 30 sessions take is divided among their 60 ends."""
    resident = iter([1 << 20, (1 << 20) + 60 * 7 * 1024])
    monkeypatch.setattr(pair, "_resident", lambda: next(resident))
    assert check(perf("--json", "--mode", "memory", "--mb", "1"), "memory")["kib_per_session"] == 7


def test_resident_memory_is_this_process_s(monkeypatch: pytest.MonkeyPatch) -> None:
    told = pair._resident()
    assert 10 << 20 < told < 10 << 30
    monkeypatch.setattr(pair.Path, "exists", lambda _: False)
    monkeypatch.setattr(pair.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=b" 1234\n"))
    assert pair._resident() == 1234 << 10
    monkeypatch.setattr(pair.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=b""))
    result = perf("--mode", "memory")
    assert (result.exit_code, "does not tell" in result.stderr) == (ExitCode.FAILED, True)


def test_for_people() -> None:
    result = perf("--mode", "handshake")
    assert result.exit_code == 0
    assert "ms for a handshake" in result.stdout
    assert "MB/s" not in result.stdout, "which was not measured"


def test_a_far_end_that_breaks_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "_far_end", sys.exit)
    result = perf("--json")
    assert result.exit_code == ExitCode.FAILED
    assert result.stderr == "stt: the far end broke down\n"
    assert json.loads(result.stdout)["event"] == "failed"


def test_a_far_end_that_never_comes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "_PATIENCE", 0.01)
    monkeypatch.setattr(ends, "_GRACE", 0.01)
    assert perf().exit_code == ExitCode.FAILED


def test_a_far_end_that_counts_something_else() -> None:
    with pytest.raises(RuntimeError, match="counted 1 bytes of 2"):
        ends._check_count(b"\1", 2)


def test_without_trio_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stt_anyio.cli.perf.find_spec", lambda name: None)
    result = perf("--backend", "trio")
    assert result.exit_code == ExitCode.USAGE
    assert "stt-transport[trio]" in result.stderr


def test_bad_options() -> None:
    for words in (("--mode", "x"), ("--backend", "x"), ("--mb", "0"), ("--datagram-size", "1199")):
        assert perf(*words).exit_code == ExitCode.USAGE
