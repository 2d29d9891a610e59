"""The simulated links (`links.py`) as rows: what each congestion controller makes of them, in virtual time.

`python -m tests.bench.simulated [--quick]` plays them and prints one JSON object, in a process that can be ended.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import asdict

from tests.bench.measure import Result, RunFailed, Runner, Spread
from tests.bench.rows import Figure, Row, Subject

NAME = "links"
SECONDS = 1800.0
GOODPUT = Figure("goodput_percent", "% of the link", "higher")
QUEUE = Figure("queue_ms", "ms in the queue, p95")
FAIRNESS = Figure("fairness", "Jain's index of two flows", "higher")


def subject(*, quick: bool) -> Subject:
    """Who plays them."""
    return Subject(NAME, (sys.executable, "-m", "tests.bench.simulated", *(["--quick"] if quick else [])))


def name(rate: float, rtt: float, loss: float, flows: int = 1) -> str:
    """What the row of a link is called: bits a second, seconds, probability."""
    shared = "" if flows == 1 else f", {flows} flows"
    return f"link, {rate / 1e6:g} Mbit/s, {rtt * 1e3:g} ms, loss {loss * 100:g} %{shared}"


def results(run: Runner, *, quick: bool) -> list[Result]:
    """Play them all, once: in virtual time every run is the same."""
    try:
        played = run(subject(quick=quick)).get("outcomes")
        if not isinstance(played, list):
            raise RunFailed("it printed no outcomes")
    except RunFailed as error:
        row = Row(NAME, "simulated links", (GOODPUT,), (Subject(NAME, ()),))
        return [Result(row, {GOODPUT.key: {}}, {NAME: str(error)})]
    return rows(played)


def rows(outcomes: Iterable[Mapping[str, Any]]) -> list[Result]:
    """A row for each link; its subjects are the controllers, and nobody is compared with anybody."""
    by_link: dict[str, dict[str, Mapping[str, Any]]] = {}
    for outcome in outcomes:
        case = outcome["case"]
        link = name(case["rate"], case["rtt"], case["loss"], len(case["controllers"]))
        by_link.setdefault(link, {})[" and ".join(case["controllers"])] = outcome
    return [_row(link, played) for link, played in by_link.items()]


def _row(link: str, played: Mapping[str, Mapping[str, Any]]) -> Result:
    figures = {
        GOODPUT: {who: outcome["goodput"] * 100 for who, outcome in played.items()},
        QUEUE: {who: outcome["queue_p95"] * 1e3 for who, outcome in played.items()},
        FAIRNESS: {who: outcome["jain"] for who, outcome in played.items() if outcome["jain"] is not None},
    }
    told = {figure: values for figure, values in figures.items() if values}
    row = Row(link, link, tuple(told), tuple(Subject(who, ()) for who in played))
    return Result(row, {figure.key: {who: Spread((value,)) for who, value in values.items()}
                        for figure, values in told.items()})  # fmt: skip


def main() -> None:
    """Play them all, and print."""
    from tests.bench import links

    print(json.dumps({"outcomes": [asdict(outcome) for outcome in links.measure(quick="--quick" in sys.argv[1:])]}))


if __name__ == "__main__":
    main()
