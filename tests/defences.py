"""Take one defence after the other out of a copy, and see the tests named for it fail: `python -m tests.defences`.

A defence that no test misses is one that the next change may lose. `make defences` tries all those in
`tests/defences.txt`, in a copy of the tree below `build`; `--only WORD` those whose name has the word. A row that no
longer fits the code is found by `tests/test_defences.py`, in every run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

ROOT = Path(__file__).parents[1]
COPY = ROOT / "build" / "defences"
LIST = Path(__file__).with_suffix(".txt")
PATIENCE = 120.0
"""Seconds for the tests of one defence; a run that hangs without it has noticed that it is gone."""

OK, FAILED = 0, 1
"""Exit codes of pytest when the tests were run."""


@frozen
class Defence:
    """One defence, and how it is taken out.

    Attributes:
        name: what it is.
        file: below `stt_proto/`, or one that begins with `stt_anyio/`.
        standing: the lines that stand there, once.
        removed: what stands there without it.
        tests: each of them fails then; `file::test`, below `tests/proto/test_`, or `anyio/test_file::test` for another
            folder of tests.
    """

    name: str
    file: str
    standing: str
    removed: str
    tests: tuple[str, ...]

    @property
    def node_ids(self) -> tuple[str, ...]:
        """The tests, as pytest calls them."""
        places = (test if "/" in test else f"proto/test_{test}" for test in self.tests)
        return tuple(f"tests/{place.replace('::', '.py::')}" for place in places)

    @property
    def path(self) -> str:
        """The file, in the tree."""
        return self.file if self.file.startswith("stt_anyio/") else f"stt_proto/{self.file}"


def defences() -> tuple[Defence, ...]:
    """All of them, out of `tests/defences.txt`: a name, a file, lines to take out, lines in their place, tests."""
    return tuple(_read(row.split("\n")) for row in LIST.read_text(encoding="utf-8").strip().split("\n\n"))


def _read(lines: list[str]) -> Defence:
    name, file, *rest = lines
    standing, removed = ("".join(f"{line[1:]}\n" for line in rest if line[0] == mark) for mark in "-+")
    tests = tuple(line for line in rest if line[0] not in "-+")
    return Defence(name.removeprefix("# "), file, standing, removed, tests)


def prepare() -> None:
    """A copy of the tree."""
    shutil.rmtree(COPY, ignore_errors=True)
    COPY.mkdir(parents=True)
    for name in ("stt_proto", "stt_anyio", "tests", "fuzz"):
        shutil.copytree(ROOT / name, COPY / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", COPY)


def failed(node_ids: Sequence[str], patience: float = PATIENCE) -> set[str] | None:
    """Which of these tests fail in the copy; `None` when they do not come to an end."""
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", "--no-cov", *node_ids]
    environment = os.environ | {
        "PYTHONPATH": str(COPY),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HYPOTHESIS_PROFILE": "default",
    }
    try:
        done = subprocess.run(
            command,
            cwd=COPY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=patience,
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode not in (OK, FAILED):
        raise RuntimeError(f"pytest could not run {' '.join(node_ids)}\n{done.stdout[-2000:]}")
    told = [line for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return {node_id for node_id in node_ids if any(f" {node_id}" in line for line in told)}


def unnoticed(defence: Defence) -> set[str]:
    """Which of its tests do not notice that it is gone."""
    file = COPY / defence.path
    text = file.read_text()
    file.write_text(text.replace(defence.standing, defence.removed))
    try:
        noticed = failed(defence.node_ids)
    finally:
        file.write_text(text)
    return set() if noticed is None else {*defence.node_ids} - noticed


def try_all(chosen: Sequence[Defence]) -> bool:
    """Take each of them out; tell whether each was missed, and all tests pass with everything in place."""
    prepare()
    everything = sorted({node_id for defence in chosen for node_id in defence.node_ids})
    broken = failed(everything, PATIENCE * len(everything))
    if broken or broken is None:
        say(f"with everything in place: {broken or 'no end'}")
        return False
    well = True
    for defence in chosen:
        tests = unnoticed(defence)
        well &= not tests
        say(
            f"{'NOT MISSED' if tests else 'missed    '}  {defence.name}{''.join(f', {test}' for test in sorted(tests))}"
        )
    return well


def say(text: str) -> None:
    """Tell whoever watches."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(arguments: list[str] | None = None) -> int:
    """The command; 1 when a defence is not missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.defences", description=__doc__)
    parser.add_argument("--only", default="", metavar="WORD", help="those whose name has it")
    options = parser.parse_args(arguments)
    return not try_all([defence for defence in defences() if options.only in defence.name])


if __name__ == "__main__":
    sys.exit(main())
