"""The same results three times: a table in the terminal, JSON, and Markdown for the documentation."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from tests.bench.environments import PEERS
from tests.bench.goals import State, Verdict
from tests.bench.measure import Result, Spread
from tests.bench.rows import OURS, Figure

_STYLES = {State.AIM: "green", State.FLOOR: "yellow", State.MISSED: "red", State.UNKNOWN: "dim"}


def title(subject: str) -> str:
    """What people call a subject."""
    return PEERS[subject].title if subject in PEERS else subject


def number(value: float) -> str:
    """Three digits or more."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def spread(measured: Spread) -> str:
    """The median, and in brackets the lowest and the highest."""
    if len(measured.values) == 1:
        return number(measured.median)
    return f"{number(measured.median)} ({number(measured.low)} to {number(measured.high)})"


Line = tuple[str, str, str, str, str]


def lines(results: Sequence[Result]) -> Iterator[Line]:
    """For each figure of each subject: row, figure, subject, what was measured, and ours by that."""
    for result in results:
        for figure in result.row.figures:
            for subject in result.row.subjects:
                measured = result.figures[figure.key].get(subject.name)
                why = result.failures.get(subject.name, "no figure")
                text = f"not measured: {why}" if measured is None else spread(measured)
                yield result.row.title, _figure(figure), title(subject.name), text, _times(result, figure, subject.name)


def _figure(figure: Figure) -> str:
    return f"{figure.unit}{' ↑' if figure.better == 'higher' else ' ↓'}"


def _times(result: Result, figure: Figure, subject: str) -> str:
    if subject not in result.row.peers:
        return ""
    times, ratios = result.times(figure, subject), result.ratios(figure, subject)
    if times is None:
        measured = result.figures[figure.key]
        return "-" if OURS in measured and subject in measured else "not measured"  # "-": theirs is 0
    low_high = f" ({number(ratios.low)} to {number(ratios.high)})" if ratios and len(ratios.values) > 1 else ""
    return f"{number(times)}{low_high}"


_HEADS = ("row", "figure, ↑ more or ↓ less is better", "who", "median (low to high)", "stt by theirs")
_GOAL_HEADS = ("must show", "against", "measured", "floor", "aim", "")


def table(results: Sequence[Result], *, quick: bool) -> Table:
    """The results, for the terminal."""
    shown = Table(*_HEADS, caption="--quick: everything ran, and the figures mean nothing" if quick else None)
    before: tuple[str, str] | None = None
    for row, figure, who, measured, times in lines(results):
        if before is not None and before[0] != row:
            shown.add_section()
        shown.add_row(row if before != (row, figure) else "", figure if before != (row, figure) else "",
                      who, measured, times, style="bold" if who == OURS else None)  # fmt: skip
        before = row, figure
    return shown


def goal_lines(verdicts: Sequence[Verdict]) -> Iterator[tuple[str, str, str, str, str, str]]:
    """For each line of what must be shown: what, against whom, measured, floor, aim, and what became of it."""
    for verdict in verdicts:
        goal = verdict.goal
        bounds = ("" if bound is None else number(bound) for bound in (goal.floor, goal.aim))
        against = "" if goal.peer is None else title(goal.peer)
        yield goal.line, against, "" if verdict.value is None else number(verdict.value), *bounds, verdict.text


def goal_table(verdicts: Sequence[Verdict]) -> Table:
    """What must be shown, for the terminal."""
    shown = Table(*_GOAL_HEADS)
    for cells, verdict in zip(goal_lines(verdicts), verdicts, strict=True):
        shown.add_row(*cells, style=_STYLES[verdict.state])
    return shown


# -- for programs --------------------------------------------------------------------------------------------------


def as_json(results: Sequence[Result], verdicts: Sequence[Verdict], run: dict[str, Any]) -> dict[str, Any]:
    """Everything; `run` says what run it was."""
    return {**run, "rows": [_row(result) for result in results], "goals": [_goal(verdict) for verdict in verdicts]}


def _row(result: Result) -> dict[str, Any]:
    return {
        "row": result.row.name,
        "title": result.row.title,
        "figures": [
            {
                "key": figure.key,
                "unit": figure.unit,
                "better": figure.better,
                "measured": {name: _spread(each) for name, each in result.figures[figure.key].items()},
                "stt_by": {
                    peer: {"medians": result.times(figure, peer), "rounds": _spread(result.ratios(figure, peer))}
                    for peer in result.row.peers
                },
            }
            for figure in result.row.figures
        ],
        "failures": dict(result.failures),
    }


def _spread(measured: Spread | None) -> dict[str, Any] | None:
    if measured is None:
        return None
    return {"median": measured.median, "low": measured.low, "high": measured.high, "values": list(measured.values)}


def _goal(verdict: Verdict) -> dict[str, Any]:
    goal = verdict.goal
    return {
        "line": goal.line,
        "row": goal.row,
        "against": goal.peer,
        "floor": goal.floor,
        "aim": goal.aim,
        "measured": verdict.value,
        "state": verdict.state.value,
        "text": verdict.text,
    }


def machine() -> dict[str, Any]:
    """What it ran on, without a name of it."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        told = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in told if line.startswith("model name")]
    return models[0] if models else platform.machine()


# -- for the documentation -----------------------------------------------------------------------------------------

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


def markdown(results: Sequence[Result], verdicts: Sequence[Verdict], run: dict[str, Any]) -> str:
    """The tables of `docs/performance.md`."""
    where = run["machine"]
    told = (
        f"{run['started']}, {run['rounds']} rounds, Python {where['python']}, {where['system']}, "
        f"{where['processor']}, {where['cores']} cores."
    )
    return "\n\n".join(
        (
            told,
            _markdown_table(_GOAL_HEADS, list(goal_lines(verdicts))),
            "![Throughput and latency of STT and its peers](bench.png)",
            _markdown_table(_HEADS, list(lines(results))),
        )
    )


def _markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [heads, ["---"] * len(heads), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def publish(page: Path, text: str) -> None:
    """Put the tables in their place on a page.

    Raises:
        ValueError: it has no place for them.
    """
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page.name} has no {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
