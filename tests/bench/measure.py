"""Running the subjects of a row in turn, and what comes of it.

Machines swing by a factor of two within minutes, so nothing is compared but what was measured in turn: medians, with
the spread, and the ratios of runs that followed one another. What could not be measured is told as that, never as a
number from elsewhere.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence

from attrs import field, frozen

from tests.bench.environments import ROOT
from tests.bench.rows import OURS, Figure, Row, Subject

SECONDS_PER_RUN = 300.0

Runner = Callable[[Subject], Mapping[str, object]]


class RunFailed(Exception):
    """A run gave no figures; the message says why."""


@frozen
class Spread:
    """Several measurements of one thing.

    Attributes:
        values: in the order in which they were measured; at least one.
    """

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)


@frozen
class Result:
    """What came of a row.

    Attributes:
        row: the row.
        figures: by key of figure, then by subject; a subject that failed is in none.
        failures: why, by subject.
    """

    row: Row
    figures: Mapping[str, Mapping[str, Spread]]
    failures: Mapping[str, str] = field(factory=dict)

    def ratios(self, figure: Figure, peer: str) -> Spread | None:
        """Ours by theirs, round by round; `None` when one of them was not measured, or theirs was nothing."""
        ours, theirs = self.figures[figure.key].get(OURS), self.figures[figure.key].get(peer)
        if ours is None or theirs is None or not all(theirs.values):
            return None
        return Spread(tuple(our / their for our, their in zip(ours.values, theirs.values, strict=True)))

    def times(self, figure: Figure, peer: str) -> float | None:
        """Our median by theirs; `None` as for `ratios`."""
        ours, theirs = self.figures[figure.key].get(OURS), self.figures[figure.key].get(peer)
        return ours.median / theirs.median if ours and theirs and theirs.median else None


def measure(
    row: Row,
    rounds: int,
    run: Runner,
    *,
    missing: Mapping[str, str] | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Result:
    """Run the subjects of a row in turn, so many times. Who fails once is not asked again, and has no figures.

    Args:
        row: the row.
        rounds: how often each subject runs.
        run: one run.
        missing: why subjects cannot run, by name.
        tell: told what is going on.
    """
    failures = {subject.name: missing[subject.name] for subject in row.subjects if subject.name in (missing or {})}
    measured: dict[str, list[dict[str, float]]] = {subject.name: [] for subject in row.subjects}
    for number in range(rounds):
        for subject in row.subjects:
            if subject.name in failures:
                continue
            tell(f"{row.name}: {subject.name}, round {number + 1} of {rounds}")
            try:
                measured[subject.name].append(_numbers(row.figures, run(subject)))
            except RunFailed as error:
                failures[subject.name] = str(error)
                tell(f"{row.name}: {subject.name} failed: {error}")
    figures = {
        figure.key: {
            name: Spread(tuple(run[figure.key] for run in runs))
            for name, runs in measured.items()
            if runs and name not in failures
        }
        for figure in row.figures
    }
    return Result(row, figures, failures)


def _numbers(figures: Sequence[Figure], printed: Mapping[str, object]) -> dict[str, float]:
    numbers = {}
    for figure in figures:
        value = printed.get(figure.key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RunFailed(f"{figure.key} is {value!r}")
        numbers[figure.key] = float(value)
    return numbers


def run(subject: Subject, seconds: float = SECONDS_PER_RUN) -> Mapping[str, object]:
    """What one process prints last. When it takes too long it is ended, with all that it started.

    Raises:
        RunFailed: there is no such program, it failed, took too long, or printed something else.
    """
    try:
        process = subprocess.Popen(
            subject.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
    except OSError as error:
        raise RunFailed(str(error)) from error
    try:
        printed, complaints = process.communicate(timeout=seconds)
    except BaseException as error:
        _kill(process)
        if isinstance(error, subprocess.TimeoutExpired):
            raise RunFailed(f"not done within {seconds:g} seconds") from None
        raise
    if process.returncode:
        raise RunFailed((complaints.strip().splitlines() or [f"exit code {process.returncode}"])[-1])
    try:
        figures = json.loads(printed.strip().splitlines()[-1])
    except (IndexError, ValueError):
        raise RunFailed("it printed no figures") from None
    if not isinstance(figures, dict):
        raise RunFailed("it printed no figures")
    return figures


def _kill(process: subprocess.Popen[str]) -> None:
    """End a process that runs, and those that it started: they are a group."""
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.communicate()
