"""`make bench`: run every row, ours and the peers' in turn; show tables, and keep all figures in `build/`."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Collection, Sequence

from rich.console import Console

from tests.bench import casting, chart, goals, live, report, simulated, workers
from tests.bench.environments import PEERS, ROOT, install
from tests.bench.measure import Result, measure, run
from tests.bench.rows import PLANS

BUILD = ROOT / "build"
PAGE = ROOT / "docs" / "performance.md"
ROUNDS = 5
WHOLE = (workers, live, casting)
"""Rows that are programs of their own."""
WIDTH = 140
"""Columns of the tables where there is no terminal."""


def main(words: Sequence[str] | None = None) -> int:
    """What to exit with."""
    chosen = _parse(words)
    console = Console(stderr=True)
    about = {
        "started": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": report.machine(),
        "rounds": chosen.rounds,
        "quick": chosen.quick,
    }
    results = _measure(chosen, lambda text: console.print(text, style="dim", markup=False, highlight=False))
    verdicts = goals.judge(goals.GOALS, [] if chosen.quick else results)

    screen = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    screen.print(report.table(results, quick=chosen.quick))
    screen.print(report.goal_table(verdicts))
    BUILD.mkdir(exist_ok=True)
    (BUILD / "bench.json").write_text(json.dumps(report.as_json(results, verdicts, about), indent=1) + "\n")
    text = report.markdown(results, verdicts, about)
    (BUILD / "bench.md").write_text(text + "\n", encoding="utf-8")
    try:
        chart.draw(results, BUILD / "bench.png")
    except (ImportError, ValueError) as error:
        console.print(f"no chart{', and nothing published' if chosen.publish else ''}: {error}", markup=False)
    else:
        if chosen.publish:
            report.publish(PAGE, text)
            shutil.copyfile(BUILD / "bench.png", PAGE.with_name("bench.png"))
    missed = any(verdict.state is goals.State.MISSED for verdict in verdicts)
    return int(chosen.check_floors and missed)


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, help=f"how often each subject of a row runs: {ROUNDS}, with --quick 1")
    parser.add_argument("--quick", action="store_true", help="little work: shows that all runs, and measures nothing")
    parser.add_argument("--check-floors", action="store_true", help="exit with 1 when a floor is missed")
    parser.add_argument("--publish", action="store_true", help="put tables and chart into docs/; for a full, quiet run")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="names of rows; all when none is given")
    chosen = parser.parse_args(words)
    names = [*(plan.name for plan in PLANS), *(each.NAME for each in WHOLE), simulated.NAME]
    for name in chosen.rows:
        if name not in names:
            parser.error(f"no row {name!r}; there are {', '.join(names)}")
    if chosen.rounds is None:
        chosen.rounds = 1 if chosen.quick else ROUNDS
    if chosen.rounds < 1:
        parser.error("--rounds must be at least 1")
    if chosen.check_floors and chosen.quick:
        parser.error("--check-floors needs a run without --quick")
    if chosen.publish and (chosen.quick or chosen.rows or chosen.rounds < ROUNDS):
        parser.error(f"--publish needs all rows, at least {ROUNDS} rounds, and no --quick")
    return chosen


def _measure(chosen: argparse.Namespace, tell: Callable[[str], None]) -> list[Result]:
    """Run what was chosen; when it is interrupted, what is there so far."""
    rows = [plan.row(quick=chosen.quick) for plan in PLANS if not chosen.rows or plan.name in chosen.rows]
    results: list[Result] = []
    try:
        missing = _install({peer for row in rows for peer in row.peers}, tell)
        results.extend(measure(row, chosen.rounds, run, missing=missing, tell=tell) for row in rows)
        whole = [each.row(quick=chosen.quick) for each in WHOLE if not chosen.rows or each.NAME in chosen.rows]
        results.extend(measure(row, chosen.rounds, run, tell=tell) for row in whole)
        if not chosen.rows or simulated.NAME in chosen.rows:
            tell("simulated links")
            results += simulated.results(lambda subject: run(subject, simulated.SECONDS), quick=chosen.quick)
    except KeyboardInterrupt:
        tell("interrupted")
    return results


def _install(peers: Collection[str], tell: Callable[[str], None]) -> dict[str, str]:
    """Install those that are needed; why some could not be."""
    missing = {}
    for peer in PEERS:
        if peer in peers:
            problem = install(peer)
            if problem is not None:
                missing[peer] = problem
                tell(f"{peer}: {problem}")
    return missing


if __name__ == "__main__":
    sys.exit(main())
