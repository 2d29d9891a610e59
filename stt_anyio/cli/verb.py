"""What all verbs share: exit codes, failures in one line, `--json`, and a graceful end."""

from __future__ import annotations

import io
import json
import signal
import sys
from collections.abc import Callable, Coroutine
from enum import IntEnum
from math import isnan
from typing import Any, TypeVar

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
  130  interrupted (Ctrl-C, SIGTERM, SIGHUP); sessions were closed first
"""


class Failure(Exception):
    """The end of a verb that did not do what it was asked to: one line on stderr, and an exit code."""

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code

    def tell(self, *, as_json: bool) -> None:
        """Say it to people, and with `as_json` to programs as well."""
        click.echo(f"stt: {self.message}", err=True)
        if as_json:
            emit({"event": "failed", "error": self.message, "exit_code": int(self.exit_code)})


_MEANING: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (errors.AuthenticationError, ExitCode.AUTHENTICATION),
    (errors.ConnectionError, ExitCode.CONNECTION),
    (errors.SessionError, ExitCode.VANISHED),
    (errors.StreamError, ExitCode.VANISHED),
    (errors.ArgumentError, ExitCode.USAGE),
    (errors.SttError, ExitCode.FAILED),
    (OSError, ExitCode.FAILED),
)
"""The first row that fits says what an exception means; one that fits none is a bug and keeps its traceback."""


def failure_for(error: BaseException) -> Failure | None:
    """What an exception means to whoever typed the command, or `None` when it is a bug."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, TransferError):
        return transfer_failure(error)
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return Failure("interrupted", ExitCode.INTERRUPTED)
    for kind, exit_code in _MEANING:
        if isinstance(error, kind):
            return Failure(printable(str(error)) or type(error).__name__, exit_code)
    return None


def _unwrapped(error: BaseException) -> BaseException:
    """What a task group wrapped up, if it is one thing."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def connect_failure(error: anyio.ConnectionFailed, address: str) -> Failure:
    """What it means that there is no session."""
    exit_code = ExitCode.AUTHENTICATION if isinstance(error, errors.AuthenticationError) else ExitCode.CONNECTION
    return Failure(f"no session with {address}: {printable(str(error))}", exit_code)


def transfer_failure(error: TransferError) -> Failure:
    """What it means that a file did not get through."""
    gone = error.outcome in (Outcome.VANISHED, Outcome.CANCELLED)
    return Failure(str(error), ExitCode.VANISHED if gone else ExitCode.FILE)


class Verb(click.Command):
    """A command whose failures are one line each, and with `--json` an object too."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"epilog": EXIT_CODES, **options})

    def invoke(self, ctx: click.Context) -> Any:
        _print_anything()
        try:
            return super().invoke(ctx)
        except BaseException as caught:
            error = _unwrapped(caught)
            if isinstance(error, BrokenPipeError):
                raise error from None  # nobody reads what we print; click ends quietly then
            failure = failure_for(error)
            if failure is None:
                raise
            failure.tell(as_json=bool(ctx.params.get("as_json")))
            ctx.exit(failure.exit_code)


class Seconds(click.FloatRange):
    """So many seconds; also not NaN, which is in no range and outside of none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = super().convert(value, param, ctx)
        if isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds


def _print_anything() -> None:
    """What a terminal cannot show, in the name of a file say, is printed as an escape, and ends nothing."""
    for printed in (sys.stdout, sys.stderr):
        if isinstance(printed, io.TextIOWrapper):
            printed.reconfigure(errors="backslashreplace")


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout, for programs.")

qlog_option = click.option(
    "--qlog",
    "qlog_dir",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="A directory for qlog files of every session; viewers such as qvis show them.",
)


def emit(figures: dict[str, Any]) -> None:
    """Print one JSON object on a line of its own, at once."""
    click.echo(json.dumps(figures))


def notice(text: str) -> None:
    """Tell whoever watches; stdout stays free for results."""
    click.echo(text, err=True)


def run(main: Callable[..., Coroutine[Any, Any, T]], *args: Any, backend: str = "asyncio") -> T:
    """Run an async verb. Ctrl-C, SIGTERM and SIGHUP cancel it, so that its sessions are closed, and it exits with 130.

    Event loops turn the first SIGINT into a cancellation of the main task, if Python's own handler is in place. It is
    not where a shell started the command in the background, so it is put there; and the others are passed on as SIGINT,
    SIGHUP (the terminal was closed) where it is not ignored, as `nohup` asks for.
    """
    before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler)}
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and (name == "SIGTERM" or signal.getsignal(number) is not signal.SIG_IGN):
            before[number] = signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        return anyio.run(main, *args, backend=backend)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
