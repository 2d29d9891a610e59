"""`python -m tests.bench`: run every row, show the table, keep all figures in build/bench.json.

Machines swing by a factor of two within minutes, so a row runs its subjects in turn, several times over, and compares
medians. A peer that cannot be installed or does not run leaves "not measured" behind, never a number from elsewhere.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.peers import ROOT, install
from tests.bench.rows import ROWS, Row, Subject

SECONDS_PER_RUN = 180


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each subject of a row runs (5)")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="names of rows; all when none is given")
    arguments = parser.parse_args()
    unknown = set(arguments.rows) - {row.name for row in ROWS}
    if unknown:
        parser.error(f"no row {unknown.pop()!r}; there are {', '.join(row.name for row in ROWS)}")

    console = Console(stderr=True)
    problem = install()
    if problem:
        console.print(f"the peers could not be installed: {problem}", markup=False)
    started = time.time()
    chosen = [row for row in ROWS if not arguments.rows or row.name in arguments.rows]
    results = [measure(row, arguments.rounds, console) for row in chosen]
    Console().print(table(results))
    report = {
        "machine": {"system": platform.platform(), "python": platform.python_version(), "started": round(started)},
        "rounds": arguments.rounds,
        "rows": results,
    }
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "bench.json").write_text(json.dumps(report, indent=1) + "\n")


def measure(row: Row, rounds: int, console: Console) -> dict[str, Any]:
    """Run the subjects of a row in turn."""
    figures: dict[str, list[float]] = {subject.name: [] for subject in row.subjects}
    failures: dict[str, str] = {}
    for number in range(rounds):
        for subject in row.subjects:
            if subject.name in failures:
                continue
            console.print(f"{row.name}: {subject.name}, round {number + 1} of {rounds}", style="dim")
            try:
                figures[subject.name].append(run(subject, row.key))
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                failures[subject.name] = str(error)
    medians = {name: statistics.median(values) for name, values in figures.items() if name not in failures}
    ours = medians.get("stt")
    return {
        "row": row.name,
        "unit": row.unit,
        "better": row.better,
        "figures": figures,
        "medians": medians,
        "ratios": {
            subject.name: ratio(row, ours, medians.get(subject.name))
            for subject in row.subjects
            if subject.name != "stt"
        },
        "failures": failures,
    }


def run(subject: Subject, key: str) -> float:
    """One figure out of one process.

    Raises:
        ValueError: the process failed, or did not give the figure.
        OSError: there is no such program.
        subprocess.TimeoutExpired: it did not end in time.
    """
    done = subprocess.run(subject.command, capture_output=True, text=True, timeout=SECONDS_PER_RUN, cwd=ROOT)
    if done.returncode:
        raise ValueError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    figure = json.loads(done.stdout.strip().splitlines()[-1])[key]
    if not isinstance(figure, int | float):
        raise ValueError(f"{key} is {figure!r}")
    return float(figure)


def ratio(row: Row, ours: float | None, theirs: float | None) -> float | None:
    """How many times better ours is; below 1 it is worse."""
    if not ours or not theirs:
        return None
    return ours / theirs if row.better == "higher" else theirs / ours


def table(results: list[Mapping[str, Any]]) -> Table:
    """The medians, and how ours compares with each peer's."""
    shown = Table("row", "unit", "better", "stt", "peer", "the peer's", "stt is better by")
    for result in results:
        medians = result["medians"]
        for peer, times in result["ratios"].items():
            shown.add_row(
                result["row"],
                result["unit"],
                result["better"],
                figure(medians.get("stt")),
                peer,
                figure(medians.get(peer)),
                "not measured" if times is None else f"x {times:.2f}",
            )
    return shown


def figure(value: float | None) -> str:
    return "not measured" if value is None else f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


if __name__ == "__main__":
    main()
