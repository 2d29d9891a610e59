"""The benchmark compares medians of runs in turn, and says so where there is nothing to compare."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tests.bench.__main__ import measure, run, table
from tests.bench.peers import PYTHON
from tests.bench.rows import ROWS, Row, Subject

QUIET = Console(quiet=True)


def subject(name: str, code: str) -> Subject:
    return Subject(name, (sys.executable, "-c", code))


def counting(folder: Path, name: str, *figures: float) -> Subject:
    """Prints one figure after the other, and notes when it ran."""
    code = f"""
import json, pathlib
log = pathlib.Path({str(folder / "log")!r})
before = log.read_text().split() if log.exists() else []
log.write_text(" ".join([*before, {name!r}]))
print(json.dumps({{"figure": {list(figures)!r}[before.count({name!r})]}}))
"""
    return subject(name, code)


@pytest.mark.parametrize(("better", "ratio"), [("higher", 2.0), ("lower", 0.5)])
def test_medians_of_runs_in_turn(tmp_path: Path, better: str, ratio: float) -> None:
    subjects = (counting(tmp_path, "stt", 1, 9, 6), counting(tmp_path, "peer", 3, 100, 2))
    result = measure(Row("x", "u", better, "figure", subjects), 3, QUIET)
    assert (tmp_path / "log").read_text().split() == ["stt", "peer"] * 3
    assert result["medians"] == {"stt": 6, "peer": 3}
    assert result["ratios"] == {"peer": ratio}


def test_without_its_peer_a_ratio_is_not_measured() -> None:
    subjects = (
        subject("stt", "print('{\"figure\": 2}')"),
        Subject("missing", ("/nowhere/python",)),
        subject("broken", "raise SystemExit('it broke')"),
        subject("silent", "print('{\"figure\": null}')"),
    )
    result = measure(Row("x", "u", "higher", "figure", subjects), 2, QUIET)
    assert result["ratios"] == {"missing": None, "broken": None, "silent": None}
    assert result["failures"]["broken"] == "it broke"
    assert set(result["failures"]) == {"missing", "broken", "silent"}
    console = Console(record=True, width=200, file=io.StringIO())
    console.print(table([result]))
    assert console.export_text().count("not measured") == 6
    json.dumps(result)


def test_rows_compare_ours_with_others() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert row.subjects[0].name == "stt"
        assert len(row.subjects) > 1
        assert all(peer.command[0] == str(PYTHON) for peer in row.subjects[1:])


def test_our_handshake_is_measured() -> None:
    row = ROWS[0]
    assert 0 < run(row.subjects[0], row.key) < 1000
