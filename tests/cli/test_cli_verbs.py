"""What all verbs share: help, exit codes, one line for a failure, and nothing on the screen where nobody watches."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import click
import pytest
from click.testing import CliRunner

from stt_anyio import NodeConfig, errors
from stt_anyio.cli.app import stt
from stt_anyio.cli.exchange import LASTING, keep_alive
from stt_anyio.cli.outcome import Outcome, TransferError
from stt_anyio.cli.progress import bars
from stt_anyio.cli.verb import ExitCode, Failure, Verb, connect_failure, failure_for, transfer_failure

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("words", [[], *([verb] for verb in stt.commands)])
def test_help_tells_the_exit_codes(words: list[str]) -> None:
    result = CliRunner().invoke(stt, [*words, "--help"])
    assert result.exit_code == 0
    for code in ExitCode:
        assert f"  {code.value}  " in result.output


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_one_line_says_how_to_get_it(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from stt_anyio.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == ExitCode.FAILED
    assert done.stderr == f"stt: {missing} is missing; install the command with: pip install 'stt-transport[cli]'\n"


def test_another_missing_module_is_a_bug() -> None:
    code = "import sys; sys.modules['cryptography'] = None; from stt_anyio.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (errors.AuthenticationError("no"), ExitCode.AUTHENTICATION),
        (errors.ConnectionTimeoutError("no"), ExitCode.CONNECTION),
        (errors.SessionTimeoutError("no"), ExitCode.VANISHED),
        (errors.StreamClosedError("no"), ExitCode.VANISHED),
        (errors.ArgumentError("no", argument="x"), ExitCode.USAGE),
        (errors.StateError("no"), ExitCode.FAILED),
        (OSError(5, "no"), ExitCode.FAILED),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
        (click.Abort(), ExitCode.INTERRUPTED),
        (TransferError(Outcome.EXISTS, "no"), ExitCode.FILE),
        (Failure("no", ExitCode.FILE), ExitCode.FILE),
    ],
)
def test_what_an_error_means(error: BaseException, exit_code: ExitCode) -> None:
    failure = failure_for(error)
    assert failure is not None
    assert failure.exit_code == exit_code


def test_a_bug_keeps_its_traceback() -> None:
    assert failure_for(ZeroDivisionError()) is None


@pytest.mark.parametrize("outcome", Outcome)
def test_what_a_failed_transfer_means(outcome: Outcome) -> None:
    gone = outcome in (Outcome.VANISHED, Outcome.CANCELLED)
    assert transfer_failure(TransferError(outcome, "x")).exit_code == (ExitCode.VANISHED if gone else ExitCode.FILE)


def test_what_a_failed_connect_means() -> None:
    for error, exit_code in (
        (errors.AuthenticationError("no"), ExitCode.AUTHENTICATION),
        (errors.TooManySessionsError("no"), ExitCode.CONNECTION),
    ):
        failed = errors.connection_failed(error)
        assert isinstance(failed, anyio.ConnectionFailed)
        failure = connect_failure(failed, "udp://host:1")
        assert (failure.exit_code, failure.message) == (exit_code, "no session with udp://host:1: no")


def verb(main: Callable[[], None]) -> click.Command:
    return click.command(cls=Verb)(main)


def test_errors_out_of_task_groups_are_unwrapped() -> None:
    def main() -> None:
        raise BaseExceptionGroup("", [BaseExceptionGroup("", [KeyboardInterrupt()])])

    result = CliRunner().invoke(verb(main), [])
    assert (result.exit_code, result.stderr) == (ExitCode.INTERRUPTED, "stt: interrupted\n")


def test_several_at_once_are_a_bug() -> None:
    def main() -> None:
        raise ExceptionGroup("two", [errors.StateError("1"), errors.StateError("2")])

    assert isinstance(CliRunner().invoke(verb(main), []).exception, ExceptionGroup)


def test_a_reader_who_went_away_ends_it_quietly() -> None:
    def main() -> None:
        raise ExceptionGroup("", [BrokenPipeError(32, "Broken pipe")])

    result = CliRunner().invoke(verb(main), [])
    assert (result.exit_code, result.output) == (ExitCode.FAILED, "")


# -- progress ------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("terminal", "wanted", "drawn"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_bars_only_where_somebody_watches(
    terminal: bool, wanted: bool, drawn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stderr, stdout = Terminal() if terminal else io.StringIO(), Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setenv("TERM", "xterm")
    with bars(wanted=wanted) as shown, shown.track("big [bold]file") as on_progress:
        on_progress(0, 10)
        on_progress(10, 10)
    assert ("big [bold]file" in stderr.getvalue()) is drawn
    assert bool(stderr.getvalue()) is drawn
    assert not stdout.getvalue()


@pytest.mark.parametrize("silence", [0.5, 30.0, 150.0, 3600.0])
@pytest.mark.parametrize("transport", ["udp", "tcp", "websocket"])
def test_how_long_a_silent_peer_is_waited_for(transport: str, silence: float) -> None:
    """C9: over UDP an outage is survived that is shorter; by default as long as by any node, a minute in any case."""
    config = NodeConfig(**keep_alive(silence, transport))
    assert config.keep_alive_timeout + config.detach_timeout == silence
    assert config.keep_alive_interval * 3 == pytest.approx(config.keep_alive_timeout)
    if transport != "udp":
        assert config.detach_timeout == 0, "nobody opens the connection anew"
    elif silence == sum(LASTING):
        assert config == NodeConfig()
        assert config.detach_timeout > 60
    for verb in ("send", "recv"):
        option = next(each for each in stt.commands[verb].params if each.name == "silence")
        assert option.default == sum(LASTING)


@pytest.mark.parametrize(
    "words",
    [
        ["perf", "--mode", "idle", "--seconds", "nan"],
        ["send", "file", "udp://127.0.0.1:9", "--timeout", "nan"],
        ["send", "file", "udp://127.0.0.1:9", "--silence", "nan"],
        ["recv", "--listen", "udp://127.0.0.1:0", "--silence", "nan"],
    ],
)
def test_not_a_number_of_seconds(words: list[str]) -> None:
    """NaN is in no range, and not outside of one either."""
    result = CliRunner().invoke(stt, words)
    assert result.exit_code == ExitCode.USAGE
    assert f"Invalid value for '{words[-2]}': 'nan' is not a number of seconds." in result.stderr
