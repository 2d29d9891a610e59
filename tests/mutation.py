"""How many small faults the tests see: `python -m tests.mutation wire` (`make mutate ROOM=wire`).

mutmut makes the mutants of one room of the core in a copy of the tree, `build/mutation/<room>`. A random sample of them
is run, each against the tests that reach the changed function, until one fails. What survives is printed with its
change and kept in `build/mutation/<room>.json`; a mutant is named `module.function__mutmut_number`, and
`--only NAME` runs it again.

The score is that of the sample: caught (failed, hung, crashed) of all that were run. A mutant that no test reaches
survives. What was caught by a time-out alone is listed: on a busy machine it may only have been slow, and `--only` with
`--processes 1` tells.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "mutation"

ROOMS = {
    "wire": ("extension_frames", "frames", "framing", "messages", "parameters", "varint"),
    "recovery": (
        "ack_frequency",
        "acks",
        "bbr",
        "bbr_model",
        "controllers",
        "cubic",
        "hystart",
        "loss",
        "newreno",
        "pacer",
        "probes",
        "recovery_cost",
        "rfc9002",
        "rtt",
        "session",
        "train_size",
    ),
    "streams": (
        "datagrams",
        "flow",
        "partial_reliability",
        "priorities",
        "receive_stream",
        "receive_windows",
        "send_stream",
        "session_streams",
        "stream_table",
    ),
    "packet": (
        "connection_ids",
        "ecn",
        "endpoint_input",
        "packet_numbers",
        "packet_vectors",
        "protection",
        "receiver",
        "replay",
        "reset",
        "rotation",
        "session_keys",
        "trains",
        "types",
        "worker_ids",
    ),
    "handshake": (
        "attacks",
        "cookies",
        "forgers",
        "guesses",
        "half_open",
        "handshake",
        "hints",
        "initiator",
        "pieces",
        "responder",
        "resumption",
        "rotation",
        "rotation_vectors",
        "session_keys",
        "tickets",
        "vectors",
    ),
    "manager": (
        "clock",
        "manager/input",
        "manager/manager",
        "manager/namespaces",
        "manager/pools",
        "manager/properties",
        "manager/records",
        "manager/speaking",
        "manager/store",
    ),
}
"""The rooms, and the test files of each, named by what differs: `wire` is `tests/proto/test_wire.py`."""

TIMED_OUT = {24, -24, 36, 152, 255}
"""Exit codes of mutmut for a time-out: a test that hangs, or a machine that was busy. They are told apart."""

CAUGHT = {1, 3, -9, -11, -14} | TIMED_OUT
"""Exit codes of mutmut for a test that failed, an error inside pytest, a crash, a time-out."""

SURVIVED, NOT_REACHED = 0, 33

CONFIGURATION = """
[tool.mutmut]
source_paths = ["stt_proto"]
only_mutate = ["stt_proto/{room}/*"]
also_copy = ["stt_anyio", "fuzz", "no_shrinking.py"]
pytest_add_cli_args = ["-p", "no_shrinking", "-p", "no:cacheprovider"]
pytest_add_cli_args_test_selection = [{tests}]
timeout_constant = 5.0
timeout_multiplier = 5.0
use_setproctitle = false
track_dependencies = false
use_git_change_detection = false
"""

LAUNCHER = """
import os, sys
from mutmut.__main__ import cli
from mutmut.runners.harness import PytestRunner

given = PytestRunner._pytest_args_regular_run

def by_test(runner, tests):  # not by case: the name of a case may hold what pytest cannot find again
    return given(runner, sorted({test.partition("[")[0] for test in tests}))

PytestRunner._pytest_args_regular_run = by_test
cli()
"""

PLUGIN = '''
"""A mutant needs to fail only once: no shrinking, and fewer examples. What mutmut puts around a call costs nothing."""

import sys

import hypothesis
import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    hypothesis.settings.register_profile(
        "mutation",
        hypothesis.settings.get_profile("default"),
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )
    hypothesis.settings.load_profile("mutation")
    if (life := sys.modules.get("tests.proto.manager.life")) is not None:
        life.MOST_CALLS *= 10
    items[:] = [item for item in items if "_costs_" not in item.name]
'''


def prepare(room: str) -> Path:
    """A copy of the tree in which mutmut is set up for a room."""
    place = BUILD / room
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for name in ("stt_proto", "stt_anyio", "tests", "fuzz"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    folders = [name.rpartition("/") for name in ROOMS[room]]
    tests = ", ".join(f'"tests/proto/{folder}{slash}test_{name}.py"' for folder, slash, name in folders)
    project = (ROOT / "pyproject.toml").read_text()
    (place / "pyproject.toml").write_text(project + CONFIGURATION.format(room=room, tests=tests))
    (place / "no_shrinking.py").write_text(PLUGIN)
    return place


def mutmut(place: Path, *arguments: str) -> str:
    """What a command of mutmut prints."""
    return subprocess.run(
        [sys.executable, "-c", LAUNCHER, *arguments],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(place / "mutants")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ).stdout


def results(place: Path) -> dict[str, int | None]:
    """The exit code of each mutant that was made; `None` when it was not run."""
    codes: dict[str, int | None] = {}
    for meta in sorted((place / "mutants" / "stt_proto").rglob("*.meta")):
        codes |= json.loads(meta.read_text())["exit_code_by_key"]
    return codes


def run(room: str, names: Iterable[str] | None, sample: int, seed: int, processes: int) -> int:
    """Make the mutants of a room, run some, and tell; 1 when they cannot be run."""
    place = prepare(room)
    made = mutmut(place, "run", "none of these")
    everything = sorted(results(place))
    if not everything:
        say(made)
        return 1
    chosen = list(names or random.Random(seed).sample(everything, min(sample, len(everything))))
    say(f"{room}: {len(chosen)} of {len(everything)} mutants, seed {seed}")
    output = mutmut(place, "run", "--max-children", str(processes), *chosen)
    codes = results(place)
    unfinished = [name for name in chosen if codes[name] is None]
    if unfinished:
        say(output[-4000:])
        return 1
    alive = {name: codes[name] for name in chosen if codes[name] in (SURVIVED, NOT_REACHED)}
    odd = {name: codes[name] for name in chosen if name not in alive and codes[name] not in CAUGHT}
    caught = len(chosen) - len(alive) - len(odd)
    late = [name for name in chosen if codes[name] in TIMED_OUT]
    changes = {name: mutmut(place, "show", name) for name in alive}
    for name, change in changes.items():
        say(f"\n{'NOT REACHED' if alive[name] == NOT_REACHED else 'SURVIVED'} {name}\n{change}")
    for name, code in odd.items():
        say(f"UNCLEAR ({code}) {name}")
    for name in late:
        say(f"TIMED OUT {name}")
    score = 100 * caught / len(chosen)
    say(
        f"{room}: {caught} of {len(chosen)} caught, {score:.1f} %, {len(late)} of them by a time-out;"
        f" {len(alive)} survived (seed {seed})"
    )
    report = {"room": room, "seed": seed, "made": len(everything), "run": len(chosen), "caught": caught, "late": late}
    (BUILD / f"{room}.json").write_text(json.dumps(report | {"survived": changes, "unclear": odd}, indent=1))
    return 0


def say(text: str) -> None:
    """Tell whoever watches."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("room", choices=sorted(ROOMS))
    parser.add_argument("--sample", type=int, default=400, help="how many mutants to run (400)")
    parser.add_argument("--seed", type=int, default=1, help="which ones (1)")
    parser.add_argument("--processes", type=int, default=2, help="how many at once (2)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="run these")
    options = parser.parse_args(arguments)
    return run(options.room, options.only, options.sample, options.seed, options.processes)


if __name__ == "__main__":
    sys.exit(main())
