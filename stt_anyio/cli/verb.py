"""What all verbs share: exit codes, failures in one line, `--json`, and a graceful end."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Coroutine
from enum import IntEnum
from typing import IO, Any, TypeVar

import anyio
import click

from stt_anyio import errors
from stt_anyio.cli.outcome import Outcome, TransferError, printable

T = TypeVar("T")


class ExitCode(IntEnum):
    """What the process says at its end; the names' meanings are in `EXIT_CODES`."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    CONNECTION = 3
    AUTHENTICATION = 4
    FILE = 5
    VANISHED = 6
    INTERRUPTED = 130


EXIT_CODES = """\
\b
Exit codes:
    0  done
    1  failed for a reason not listed here
    2  the command line is wrong
    3  could not listen, or not connect: refused, unreachable, no answer
    4  the other side has another shared seed, or is not the --peer asked for
    5  a file was refused, could not be read, or could not be stored whole
    6  the other side vanished or gave up before the end
  130  interrupted (Ctrl-C, SIGTERM); sessions were closed first
"""


class Failure(click.ClickException):
    """The end of a verb that did not do what it was asked to: one line on stderr, and an exit code."""

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        super().__init__(message)
        self.exit_code = exit_code

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"stt: {self.message}", file=file, err=True)


_MEANING: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (KeyboardInterrupt, ExitCode.INTERRUPTED),
    (errors.AuthenticationError, ExitCode.AUTHENTICATION),
    (errors.ConnectionError, ExitCode.CONNECTION),
    (errors.TooManySessionsError, ExitCode.CONNECTION),
    (errors.VersionError, ExitCode.CONNECTION),
    (errors.SessionError, ExitCode.VANISHED),
    (errors.StreamError, ExitCode.VANISHED),
    (errors.ArgumentError, ExitCode.USAGE),
    (errors.SttError, ExitCode.FAILED),
    (OSError, ExitCode.FAILED),
)
"""The first row that fits says what an exception means; one that fits none is a bug and keeps its traceback."""


def failure_for(error: BaseException) -> Failure | None:
    """What an exception means to whoever typed the command, or `None` when it is a bug."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, TransferError):
        gone = error.outcome in (Outcome.VANISHED, Outcome.CANCELLED)
        return Failure(str(error), ExitCode.VANISHED if gone else ExitCode.FILE)
    for kind, exit_code in _MEANING:
        if isinstance(error, kind):
            interrupted = exit_code is ExitCode.INTERRUPTED
            return Failure("interrupted" if interrupted else printable(str(error)) or type(error).__name__, exit_code)
    return None


class Verb(click.Command):
    """A command whose failures are one line each, and with `--json` an object too."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"epilog": EXIT_CODES, **options})

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, BrokenPipeError) as known:
            self._tell(ctx, known)
            raise
        except BaseException as error:
            failure = failure_for(error)
            if failure is None:
                raise
            self._tell(ctx, failure)
            raise failure from error

    @staticmethod
    def _tell(ctx: click.Context, failure: BaseException) -> None:
        if ctx.params.get("as_json") and isinstance(failure, Failure):
            emit({"event": "failed", "error": failure.message, "exit_code": failure.exit_code})


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout, for programs.")


def emit(figures: dict[str, Any]) -> None:
    """Print one JSON object on a line of its own, at once."""
    click.echo(json.dumps(figures))


def notice(text: str) -> None:
    """Tell whoever watches; stdout stays free for results."""
    click.echo(text, err=True)


def run(main: Callable[..., Coroutine[Any, Any, T]], *args: Any, backend: str = "asyncio") -> T:
    """Run an async verb. Ctrl-C and SIGTERM cancel it, so that its sessions are closed, and then exit with 130.

    Event loops turn the first Ctrl-C into a cancellation of the main task; SIGTERM is made to look like one.
    """
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        return anyio.run(main, *args, backend=backend)
    finally:
        signal.signal(signal.SIGTERM, before)
