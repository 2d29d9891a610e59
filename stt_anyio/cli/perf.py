"""`stt perf`: how fast it is, here and now."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from stt_anyio.cli import ends, pair
from stt_anyio.cli.verb import ExitCode, Failure, Verb, emit, json_option
from stt_proto.config import CARRIERS

FIGURES = {
    "mb_per_s": "MB/s, acknowledged",
    "handshake_ms": "ms for a handshake, both ends",
    "echo_p50_us": "us for a round trip of 100 bytes, median",
    "kib_per_session": "KiB for one end of an idle session",
    "cpu_s_sender": "s of CPU, sender",
    "cpu_s_receiver": "s of CPU, receiver",
}
"""What can be measured. Megabytes a second are of 1,000,000 bytes."""


@click.command(cls=Verb, short_help="Measure speed and memory, on this machine.")
@click.option(
    "--mode",
    type=click.Choice(["bulk", "handshake", "echo", "memory"]),
    default="bulk",
    show_default=True,
    help="bulk: one stream, one way. echo: round trips. Both over UDP on loopback, in two processes. handshake: "
    "handshakes in one process, without sockets. memory: likewise; what an idle session holds, and one stream.",
)
@click.option("--mb", type=click.IntRange(1, 1 << 20), default=256, show_default=True, help="MiB to move.")
@click.option(
    "--backend",
    type=click.Choice(["asyncio", "trio", "blocking"]),
    default="asyncio",
    show_default=True,
    help="What both ends run on in bulk and echo.",
)
@click.option(
    "--datagram-size",
    type=click.IntRange(1200, 65_507),
    default=CARRIERS["udp"].max_packet,
    show_default=True,
    help="Bytes in a UDP datagram; 1452 fits Ethernet.",
)
@json_option
def perf(mode: str, mb: int, backend: str, datagram_size: int, as_json: bool) -> None:
    """Measure. Both ends are started here; figures are of this machine at this moment.

    With --json: one object with every figure, null for what the mode does not measure.
    """
    if backend == "trio" and find_spec("trio") is None:
        raise Failure("trio is missing; install it with: pip install 'stt-transport[trio]'", ExitCode.USAGE)
    try:
        measured = _measure(mode, mb, backend, datagram_size)
    except RuntimeError as error:
        raise Failure(str(error), ExitCode.FAILED) from error
    figures = {key: None if measured.get(key) is None else round(measured[key], 4) for key in FIGURES}
    if as_json:
        emit({"mode": mode, "backend": backend, "datagram_size": datagram_size, "mb": mb, **figures})
        return
    table = Table("figure", "", title=f"{mode}, {backend}, datagrams of {datagram_size} bytes")
    table.columns[1].justify = "right"
    for key, meaning in FIGURES.items():
        if figures[key] is not None:
            table.add_row(meaning, f"{figures[key]:,.2f}")
    Console().print(table)


def _measure(mode: str, mb: int, backend: str, datagram_size: int) -> dict[str, Any]:
    if mode == "handshake":
        return {"handshake_ms": pair.handshake_ms(datagram_size)}
    if mode == "memory":
        return {
            "kib_per_session": pair.kib_per_session(datagram_size),
            "mb_per_s": pair.memory_mb_per_s(datagram_size, mb),
        }
    return ends.measure(ends.Work(mode, backend, mb, datagram_size))
