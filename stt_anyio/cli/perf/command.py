"""The verb: options in, a table or a JSON object out."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from stt_anyio.cli.perf.modes import FIGURES, MODES, Mode
from stt_anyio.cli.perf.work import Work
from stt_anyio.cli.verb import EXIT_CODES, ExitCode, Failure, Seconds, Verb, emit, json_option, qlog_option

MAX_THREADS = 500
CARRIERS = ("udp", "tcp", "ws", "wss", "memory")
ONLY_UDP = ("datagram_size", "offload")
_NAMES = {"offload": "--no-offload"}
"""Options that are not called like what they set."""


def _spoken(option: str) -> str:
    return _NAMES.get(option, "--" + option.replace("_", "-"))


def _modes() -> str:
    """What the modes are, for `--help`."""
    lines = ["\b", "Modes, and the options that concern each, with their defaults:"]
    for name, mode in MODES.items():
        options = [f"{_spoken(option)} {default:g}" if isinstance(default, float) else
                   _spoken(option) if isinstance(default, bool) else f"{_spoken(option)} {default}"
                   for option, default in mode.options.items()]  # fmt: skip
        lines += [f"  {name}: {mode.help}", f"    {' '.join(options)}"]
    return "\n".join(lines)


@click.command(cls=Verb, short_help="Measure speed and memory, on this machine.", epilog=f"{_modes()}\n\n{EXIT_CODES}")
@click.option("--mode", type=click.Choice(list(MODES)), default="bulk", show_default=True, help="What to measure.")
@click.option("--backend", type=click.Choice(["asyncio", "trio", "blocking"]), help="What both ends run on.")
@click.option("--carrier", type=click.Choice(CARRIERS), help="What lies between them; memory is in one process.")
@click.option("--datagram-size", type=click.IntRange(1200, 65_507), help="Bytes in a datagram; 1452 fits Ethernet.")
@click.option("--search-mtu", is_flag=True, default=None, help="Begin with 1200 bytes and try larger ones.")
@click.option("--no-offload", "offload", flag_value=False, default=None, help="One system call a datagram, each way.")
@click.option("--mb", type=click.IntRange(1, 1 << 20), help="MiB to move in each direction.")
@click.option("--streams", type=click.IntRange(1, 100_000), help="Streams that share the work, or are open.")
@click.option("--direction", type=click.Choice(["up", "down", "both"]), help="up is from who dials.")
@click.option("--count", type=click.IntRange(1, 1 << 30), help="Round trips, messages, handshakes, packets.")
@click.option("--sessions", type=click.IntRange(1, 100_000), help="Sessions that are held at once.")
@click.option("--seconds", type=Seconds(0.1, 3600), help="How long idle sessions are watched.")
@qlog_option
@json_option
def perf(mode: str, as_json: bool, qlog_dir: str | None, **given: Any) -> None:
    """Measure. Both ends are started here; figures are of this machine at this moment.

    Modes without "in one process" use two processes, and UDP on loopback if --carrier does not say otherwise. With
    --json: one object with every option, null where it does not concern the mode, and every figure, null where the mode
    does not measure it.
    """
    chosen = MODES[mode]
    options = _options(mode, chosen, given)
    if qlog_dir is not None and "backend" not in chosen.options:
        raise Failure(f"--qlog does not concern --mode {mode}, which has no nodes", ExitCode.USAGE)
    try:
        measured = chosen.measure(Work(mode=mode, qlog_dir=qlog_dir, **options))
    except RuntimeError as error:
        raise Failure(str(error), ExitCode.FAILED) from error
    figures = {key: None if measured.get(key) is None else round(measured[key], 4) for key in FIGURES}
    if as_json:
        emit({"mode": mode, **{option: options.get(option) for option in given}, **figures})
        return
    title = ", ".join(f"{name.replace('_', ' ')} {_value(value)}" for name, value in options.items())
    table = Table("figure", "", title=f"{mode}: {title}")
    table.columns[1].justify = "right"
    for key, meaning in FIGURES.items():
        if figures[key] is not None:
            table.add_row(meaning, f"{figures[key]:,.2f}")
    Console().print(table)


def _options(name: str, mode: Mode, given: dict[str, Any]) -> dict[str, Any]:
    """What the mode is to know.

    Raises:
        Failure: something was asked for that does not concern it, or that is not installed.
    """
    asked = {option: value for option, value in given.items() if value is not None}
    strange = [_spoken(option) for option in asked if option not in mode.options]
    if strange:
        known = ", ".join(map(_spoken, mode.options))
        raise Failure(f"{strange[0]} does not concern --mode {name}, which has {known}", ExitCode.USAGE)
    options = {**mode.options, **asked}
    if options.get("backend") == "blocking" and options.get("carrier") == "memory":
        raise Failure("--carrier memory needs an event loop; --backend blocking has none", ExitCode.USAGE)
    if options.get("carrier", "udp") != "udp" and (strange := [each for each in ONLY_UDP if each in asked]):
        raise Failure(f"{_spoken(strange[0])} concerns --carrier udp only", ExitCode.USAGE)
    if options.get("backend") == "blocking" and options.get("streams", 1) > MAX_THREADS:
        raise Failure(f"--backend blocking takes a thread for each stream: {MAX_THREADS} at most", ExitCode.USAGE)
    if options.get("backend") == "trio" and find_spec("trio") is None:
        raise Failure("trio is missing; install it with: pip install 'stt-transport[trio]'", ExitCode.USAGE)
    return options


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return value if isinstance(value, str) else f"{value:,g}"
