"""The benchmark compares medians of runs in turn, and says so where there is nothing to compare."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from stt_anyio.cli.perf import perf
from tests.bench import __main__ as bench
from tests.bench import chart, environments, report, simulated
from tests.bench.environments import PEERS, ROOT, SCRIPTS, command, install
from tests.bench.goals import GOALS, Goal, State, judge
from tests.bench.measure import Result, RunFailed, Spread, measure, run
from tests.bench.rows import ALL, OURS, PLANS, Figure, Plan, Row, Subject

SPEED = Figure("speed", "MB/s", "higher")
TIME = Figure("time", "ms")


def row_of(*names: str, figures: tuple[Figure, ...] = (SPEED,)) -> Row:
    return Row("row", "a row", figures, tuple(Subject(name, ()) for name in names))


class Runs:
    """Stands in for processes: each run of a subject prints what comes next, or fails with what comes next."""

    def __init__(self, **printed: list[Any]) -> None:
        self.order: list[str] = []
        self._printed = {name: iter(values) for name, values in printed.items()}

    def __call__(self, subject: Subject) -> Mapping[str, object]:
        self.order.append(subject.name)
        printed = next(self._printed[subject.name])
        if isinstance(printed, str):
            raise RunFailed(printed)
        return printed if isinstance(printed, dict) else {"speed": printed, "time": printed}


def shown(table: Any) -> str:
    console = Console(record=True, width=250, file=io.StringIO())
    console.print(table)
    return console.export_text()


# -- medians, spread, ratios ---------------------------------------------------------------------------------------


def test_medians_and_ratios_of_runs_in_turn() -> None:
    runs = Runs(stt=[1, 9, 6], qh3=[4, 100, 2])
    result = measure(row_of("stt", "qh3"), 3, runs)
    assert runs.order == ["stt", "qh3"] * 3
    ours, theirs = result.figures["speed"]["stt"], result.figures["speed"]["qh3"]
    assert (ours.median, ours.low, ours.high) == (6, 1, 9)
    assert theirs.values == (4, 100, 2)
    assert result.times(SPEED, "qh3") == 6 / 4
    assert result.ratios(SPEED, "qh3") == Spread((1 / 4, 9 / 100, 3))
    text = shown(report.table([result], quick=False))
    assert "6.00 (1.00 to 9.00)" in text
    assert "1.50 (0.0900 to 3.00)" in text


def test_without_its_peer_a_ratio_is_not_measured() -> None:
    """Who fails once, though it ran before, has no figures; who is not installed is never run."""
    runs = Runs(stt=[2, 2], qh3=[3, "it broke"], aioquic=[{"speed": None}], zmq=[{"speed": True}], tls=[{}])
    result = measure(
        row_of("stt", "qh3", "aioquic", "zmq", "tls", "aiopquic"), 2, runs, missing={"aiopquic": "no wheel"}
    )
    assert runs.order == ["stt", "qh3", "aioquic", "zmq", "tls", "stt", "qh3"]
    assert dict(result.failures) == {
        "qh3": "it broke",
        "aioquic": "speed is None",
        "zmq": "speed is True",
        "tls": "speed is None",
        "aiopquic": "no wheel",
    }
    assert set(result.figures["speed"]) == {"stt"}
    assert all(result.times(SPEED, peer) is result.ratios(SPEED, peer) is None for peer in result.row.peers)
    text = shown(report.table([result], quick=False))
    assert text.count("not measured") == 10
    assert "not measured: no wheel" in text
    told = report.as_json([result], judge(GOALS, [result]), {})
    assert told["rows"][0]["figures"][0]["stt_by"]["qh3"] == {"medians": None, "rounds": None}
    json.dumps(told)


def test_nothing_is_divided_by_nothing() -> None:
    result = measure(row_of("stt", "qh3"), 1, Runs(stt=[2], qh3=[0]))
    assert result.times(SPEED, "qh3") is result.ratios(SPEED, "qh3") is None
    assert "not measured" not in shown(report.table([result], quick=False))


def test_a_quick_run_says_that_it_means_nothing() -> None:
    result = measure(row_of("stt"), 1, Runs(stt=[2]))
    assert "mean nothing" in shown(report.table([result], quick=True))


# -- one run -------------------------------------------------------------------------------------------------------


def python(code: str) -> Subject:
    return Subject("x", (sys.executable, "-c", code))


def test_a_run_gives_what_was_printed_last() -> None:
    assert run(python("print('noise'); print('{\"speed\": 2}')")) == {"speed": 2}


@pytest.mark.parametrize(
    ("subject", "why"),
    [
        (Subject("x", ("/nowhere/python",)), "No such file"),
        (python("import sys; sys.exit('noise\\nit broke')"), "^it broke$"),
        (python("raise SystemExit(3)"), "exit code 3"),
        (python("print('7')"), "printed no figures"),
        (python("pass"), "printed no figures"),
        (python("print('oops')"), "printed no figures"),
    ],
)
def test_a_run_that_gives_nothing(subject: Subject, why: str) -> None:
    with pytest.raises(RunFailed, match=why):
        run(subject)


def test_what_takes_too_long_is_ended_with_all_that_it_started() -> None:
    """The child of the child holds the pipe, so that what is left of it would hold this up."""
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    started = time.monotonic()
    with pytest.raises(RunFailed, match="not done within 1 seconds"):
        run(python(child), 1.0)
    assert time.monotonic() - started < 45


# -- floors and aims -----------------------------------------------------------------------------------------------

MORE = Goal("more", "row", "speed", "qh3", 2.0, 4.0)
LESS = Goal("less", "row", "time", "qh3", 1.5, 1.0)
ALONE = Goal("alone", "row", "time", None, 16.0, 10.0)


@pytest.mark.parametrize(
    ("goal", "ours", "state", "text"),
    [
        (MORE, 40, State.AIM, "aim met"),
        (MORE, 39, State.FLOOR, "floor met, aim missed by 2.5 %"),
        (MORE, 20, State.FLOOR, "floor met, aim missed by 50 %"),
        (MORE, 19, State.MISSED, "floor missed by 5 %"),
        (LESS, 10, State.AIM, "aim met"),
        (LESS, 15, State.FLOOR, "floor met, aim missed by 50 %"),
        (LESS, 18, State.MISSED, "floor missed by 20 %"),
        (ALONE, 10, State.AIM, "aim met"),
        (ALONE, 12, State.FLOOR, "floor met, aim missed by 20 %"),
        (ALONE, 20, State.MISSED, "floor missed by 25 %"),
        (Goal("no aim", "row", "speed", "qh3", 2.0), 20, State.FLOOR, "floor met"),
        (Goal("no floor", "row", "speed", "qh3", None, 1.0), 5, State.FLOOR, "no floor, aim missed by 50 %"),
        (Goal("no floor", "row", "speed", "qh3", None, 1.0), 10, State.AIM, "aim met"),
    ],
)
def test_a_floor_and_an_aim(goal: Goal, ours: float, state: State, text: str) -> None:
    result = measure(row_of("stt", "qh3", figures=(SPEED, TIME)), 1, Runs(stt=[ours], qh3=[10]))
    (verdict,) = judge([goal], [result])
    assert (verdict.state, verdict.text) == (state, text)
    assert verdict.value == (ours if goal.peer is None else ours / 10)
    assert text in shown(report.goal_table([verdict]))


def test_a_line_that_was_not_measured() -> None:
    """A missing peer leaves it open, our own failure does not."""
    row = row_of("stt", "qh3", figures=(SPEED, TIME))
    (verdict,) = judge([MORE], [measure(row, 1, Runs(stt=[5]), missing={"qh3": "no wheel"})])
    assert (verdict.state, verdict.text) == (State.UNKNOWN, "not measured: no wheel")
    (verdict,) = judge([MORE], [measure(row, 1, Runs(stt=["it broke"], qh3=[5]))])
    assert (verdict.state, verdict.text) == (State.MISSED, "failed: it broke")
    (verdict,) = judge([MORE], [measure(row, 1, Runs(stt=[5], qh3=[0]))])
    assert (verdict.state, verdict.text) == (State.UNKNOWN, "not measured: no figure")
    for results in ([], [measure(row_of("stt", "qh3", figures=(TIME,)), 1, Runs(stt=[5], qh3=[5]))]):
        (verdict,) = judge([MORE], results)
        assert (verdict.state, verdict.text) == (State.UNKNOWN, "not measured in this run")


def test_every_line_is_about_a_row_that_there_is() -> None:
    rows = {plan.name: plan.row(quick=False) for plan in PLANS} | {
        each.NAME: each.row(quick=False) for each in bench.WHOLE
    }
    for goal in GOALS:
        if goal.key == simulated.GOODPUT.key:
            assert goal.row == "link, 100 Mbit/s, 20 ms, loss " + ("0 %" if goal.who == "cubic" else "1 %")
            continue
        row = rows[goal.row]
        assert goal.key in {figure.key for figure in row.figures}
        assert goal.peer is None or goal.peer in row.peers
        assert goal.floor is not None or goal.aim is not None


def test_the_page_has_the_same_floors_and_aims() -> None:
    """`docs/performance.md` tells them to people."""
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    must_show = page.partition("## What must be shown")[2].partition("## ")[0]
    for goal in GOALS:
        for bound in (goal.floor, goal.aim):
            assert bound is None or any(f"{bound:{form}}" in must_show for form in ("g", ".1f")) or goal.peer == "tls"
    assert report.BEGIN in page
    assert report.END in page


# -- simulated links -----------------------------------------------------------------------------------------------


def outcome(*controllers: str, loss: float = 0.0, goodput: float = 0.9, jain: float | None = None) -> dict[str, Any]:
    case = {"controllers": list(controllers), "rate": 100e6, "rtt": 0.02, "loss": loss, "seconds": 10.0}
    return {"case": case, "goodput": goodput, "queue_mean": 0.001, "queue_p95": 0.002, "dropped": 0.0, "jain": jain}


def test_simulated_links_are_rows_whose_subjects_are_controllers() -> None:
    played = [
        outcome("newreno", goodput=0.8),
        outcome("cubic", goodput=0.96),
        outcome("bbr", loss=0.01, goodput=0.7),
        outcome("cubic", "cubic", jain=0.99),
    ]
    results = simulated.results(lambda subject: {"outcomes": played}, quick=True)
    assert [result.row.name for result in results] == [
        "link, 100 Mbit/s, 20 ms, loss 0 %",
        "link, 100 Mbit/s, 20 ms, loss 1 %",
        "link, 100 Mbit/s, 20 ms, loss 0 %, 2 flows",
    ]
    assert results[0].figures["goodput_percent"]["newreno"].median == pytest.approx(80)
    assert results[2].figures["fairness"]["cubic and cubic"].median == 0.99
    assert "fairness" not in results[0].figures
    assert not any(result.row.peers for result in results), "nobody is compared with anybody"
    states = {verdict.goal.who: verdict.state for verdict in judge(GOALS, results) if verdict.value is not None}
    assert states == {"cubic": State.AIM, "bbr": State.FLOOR}
    assert "queue" in shown(report.table(results, quick=True))


@pytest.mark.parametrize("printed", ["it broke", {"outcomes": 7}])
def test_simulated_links_that_fail_miss_their_floors(printed: Any) -> None:
    results = simulated.results(Runs(links=[printed]), quick=True)
    verdicts = [verdict for verdict in judge(GOALS, results) if verdict.state is not State.UNKNOWN]
    assert [(verdict.goal.who, verdict.state) for verdict in verdicts] == [
        ("cubic", State.MISSED),
        ("bbr", State.MISSED),
    ]
    assert "not measured: it " in shown(report.table(results, quick=True))


# -- rows and peers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
@pytest.mark.parametrize("quick", [True, False])
def test_our_commands_are_understood(plan: Plan, quick: bool) -> None:
    ours, *peers = plan.row(quick=quick).subjects
    assert ours.name == OURS
    assert ours.command[:5] == (sys.executable, "-m", "stt_anyio.cli", "perf", "--json")
    perf.make_context("perf", list(ours.command[4:]))
    for peer in peers:
        assert peer.command[: len(command(peer.name))] == command(peer.name)
        assert not {"--backend", "--carrier", "--no-offload"} & set(peer.command)


def test_everybody_gets_the_same_work() -> None:
    for plan in PLANS:
        row = plan.row(quick=False)
        options = [subject.command[subject.command.index("--mode") :] for subject in row.subjects]
        work = [{(name, words[at + 1]) for at, name in enumerate(words) if name in ("--mb", "--count", "--sessions")}
                for words in options]  # fmt: skip
        assert all(each == work[0] for each in work)


def test_rows_have_names_of_their_own() -> None:
    names = [*(plan.name for plan in PLANS), *(each.NAME for each in bench.WHOLE), simulated.NAME]
    assert len(set(names)) == len(names)
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in names)


@pytest.mark.parametrize("mode", ["bulk", "echo", "messages"])
@pytest.mark.parametrize("peer", ["tls", "wss"])
def test_a_peer_s_script_needs_no_stt(peer: str, mode: str) -> None:
    """Those that need nothing but what is installed anyway, on the yardstick of `stt perf`."""
    words = ("--mode", mode, "--mb", "1", "--count", "5", "--direction", "both" if mode == "bulk" else "up")
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / f"{peer}.py"), peer, *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    assert {"cpu_s_near", "cpu_s_far"} < set(json.loads(done.stdout))


class Steps:
    """Stands in for the commands that make environments: those of some Pythons fail."""

    def __init__(self, *failing: str) -> None:
        self.tried: list[str] = []
        self._failing = failing
        self._python = ""

    def __call__(self, step: tuple[str, ...], **_: Any) -> subprocess.CompletedProcess[str]:
        if step[1:3] == ("-m", "venv"):
            self._python = step[0]
            self.tried.append(step[0])
            Path(step[-1]).mkdir(parents=True, exist_ok=True)
        elif self._python in self._failing:
            return subprocess.CompletedProcess(step, 1, "", f"noise\nERROR: no wheel for {self._python}\n")
        return subprocess.CompletedProcess(step, 0, "", "")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(environments, "FOLDER", tmp_path)
    return tmp_path


def test_a_peer_gets_the_first_python_that_fits_and_is_installed_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps("old")
    monkeypatch.setattr(environments.subprocess, "run", steps)
    assert install("aiopquic", ("old", "new", "newer")) is None
    assert steps.tried == ["old", "new"]
    assert install("aiopquic", ("old", "new")) is None
    assert steps.tried == ["old", "new"]


def test_a_peer_that_cannot_be_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why is what the first Python says, which is the one that runs the benchmark; nothing half made is left."""
    monkeypatch.setattr(environments.subprocess, "run", Steps("old", "new"))
    assert install("qh3", ("old", "new")) == "not installed: no wheel for old"
    assert list(folder.iterdir()) == []
    assert install("qh3", ()) == "not installed: no Python to try"


def test_a_python_that_is_not_there(folder: Path) -> None:
    problem = install("qh3", ("/nowhere/python",))
    assert problem is not None
    assert "No such file" in problem


def test_the_python_that_runs_this_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    minor = 12 if sys.version_info.minor != 12 else 13
    for name in (f"3.{minor}.1", f"3.{minor}.2"):
        (tmp_path / "versions" / name / "bin").mkdir(parents=True)
        (tmp_path / "versions" / name / "bin" / "python").touch()
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setattr(
        environments.shutil, "which", lambda name: f"/bin/{name}" if name.endswith(str(minor)) else None
    )
    installed = str(tmp_path / "versions" / f"3.{minor}.2" / "bin" / "python")
    assert list(environments._pythons()) == [sys._base_executable, f"/bin/python3.{minor}", installed]  # type: ignore[attr-defined]


# -- all of it -----------------------------------------------------------------------------------------------------


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page and a build folder of our own, no simulated links, and nothing that is installed."""
    found = tmp_path / "performance.md"
    found.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    monkeypatch.setattr(bench, "PAGE", found)
    monkeypatch.setattr(bench, "BUILD", tmp_path / "build")
    monkeypatch.setattr(bench, "install", lambda peer: f"{peer} is not here")
    return found


def fake(monkeypatch: pytest.MonkeyPatch, figure: float) -> None:
    """Every process prints the same for everything."""
    keys = {figure.key for plan in PLANS for figure in plan.row(quick=True).figures}
    keys |= {figure.key for each in bench.WHOLE for figure in each.FIGURES}
    monkeypatch.setattr(
        bench, "run", lambda subject, *_: {**dict.fromkeys(keys, figure), "outcomes": [outcome("cubic")]}
    )


def test_a_row_for_real(page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--quick", "handshake"]) == 0
    told = json.loads((page.parent / "build" / "bench.json").read_text())
    (row,) = told["rows"]
    assert row["figures"][0]["measured"]["stt"]["median"] > 0
    assert row["failures"] == {peer: f"{peer} is not here" for peer in ("qh3", "aioquic")}
    assert {goal["state"] for goal in told["goals"]} == {"not measured"}
    assert "full handshake" in capsys.readouterr().out
    assert "full handshake" in (page.parent / "build" / "bench.md").read_text()


@pytest.mark.parametrize(("kib", "exit_code"), [(16.0, 0), (17.0, 1)])
def test_a_missed_floor_is_an_exit_code_if_asked_for(
    page: Path, monkeypatch: pytest.MonkeyPatch, kib: float, exit_code: int
) -> None:
    fake(monkeypatch, kib)
    assert bench.main(["memory", "--check-floors", "--rounds", "2"]) == exit_code
    assert bench.main(["memory", "--rounds", "1"]) == 0


def test_a_quick_run_judges_nothing(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, 2.0)
    assert bench.main(["--quick"]) == 0
    told = json.loads((page.parent / "build" / "bench.json").read_text())
    assert told["quick"] is True
    assert {goal["state"] for goal in told["goals"]} == {"not measured"}


def test_interrupted_it_shows_what_is_there(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = iter([{"handshake_ms": 3.0}])

    def interrupt(subject: Subject) -> Mapping[str, object]:
        try:
            return next(runs)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(bench, "run", interrupt)
    assert bench.main(["--rounds", "1", "handshake", "idle"]) == 0
    assert [row["row"] for row in json.loads((page.parent / "build" / "bench.json").read_text())["rows"]] == [
        "handshake"
    ]


def test_publishing(page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake(monkeypatch, 2.0)
    monkeypatch.setattr(bench.chart, "draw", lambda results, file: file.write_bytes(b"PNG"))
    assert bench.main(["--publish"]) == 0
    text = page.read_text()
    assert text.startswith(f"before\n{report.BEGIN}\n")
    assert text.endswith(f"{report.END}\nafter\n")
    assert "old" not in text
    assert "| full handshake, both ends | qh3 (Rust) |" in text
    assert (page.parent / "bench.png").read_bytes() == b"PNG"

    def no_chart(results: object, file: object) -> None:
        raise ImportError("no matplotlib")

    page.write_text("nothing")
    monkeypatch.setattr(bench.chart, "draw", no_chart)
    assert bench.main(["--publish"]) == 0
    assert page.read_text() == "nothing"
    assert "nothing published: no matplotlib" in capsys.readouterr().err.replace("\n", " ")


def test_a_page_without_a_place_for_tables(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{report.END} {report.BEGIN}")
    with pytest.raises(ValueError, match=r"page\.md has no"):
        report.publish(page, "text")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["nothing"], "no row 'nothing'; there are bulk-asyncio"),
        (["--rounds", "0"], "--rounds must be"),
        (["--publish", "--quick"], "--publish needs"),
        (["--publish", "memory"], "--publish needs"),
        (["--publish", "--rounds", "4"], "--publish needs"),
        (["--check-floors", "--quick"], "--check-floors needs"),
    ],
)
def test_bad_arguments(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        bench.main(words)
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


# -- the chart -----------------------------------------------------------------------------------------------------


def everything() -> list[Result]:
    keys = {figure.key for plan in PLANS for figure in plan.row(quick=True).figures}
    return [measure(plan.row(quick=True), 2, lambda _: dict.fromkeys(keys, 3.0)) for plan in PLANS]


def test_the_chart_has_ours_once_for_each_row_and_each_peer_once() -> None:
    shown = chart.bars(chart.PANELS[0], everything())
    assert [name for name, _, ours in shown if ours] == [name for _, name in chart.PANELS[0].rows]
    assert [name for name, _, ours in shown if not ours] == [PEERS[peer].title for peer in ALL]
    assert {peer for plan in PLANS for peer in plan.peers} == set(PEERS)
    assert chart.bars(chart.PANELS[0], []) == []
    assert all(chart.bars(panel, everything()) for panel in chart.PANELS)


def test_the_chart_is_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="it comes with `make bench`")
    chart.draw(everything(), tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="no row"):
        chart.draw([], tmp_path / "bench.png")
