"""What `send` and `recv` share: options about sessions, and how a file that got through is reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from rich import filesize

from stt_anyio.cli.outcome import printable
from stt_anyio.cli.transfer import Transferred
from stt_anyio.cli.verb import Seconds, emit

F = TypeVar("F", bound=Callable[..., Any])

LASTING = (30.0, 120.0)
"""Seconds of silence after which a session over UDP looks for its peer, and for which it does then: as of any node."""


def session_options(command: F) -> F:
    """Add `--silence` and `--no-progress` to a verb."""
    command = click.option(
        "--no-progress", "hide_progress", is_flag=True, help="No progress bar, not even on a terminal."
    )(command)
    return click.option(
        "--silence",
        type=Seconds(0.5, 3600),
        default=sum(LASTING),
        show_default=True,
        metavar="SECONDS",
        help="Give the other side up when nothing comes from it for so long.",
    )(command)


def keep_alive(silence: float, transport: str) -> dict[str, float]:
    """The parameters of a node that gives a silent peer up after so many seconds.

    Over UDP both sides find each other again after an outage that was shorter. A connection that ended is not opened
    anew, so nobody waits for that.
    """
    path = min(silence, LASTING[0]) if transport == "udp" else silence
    return {"keep_alive_interval": path / 3, "keep_alive_timeout": path, "detach_timeout": silence - path}


def report(event: str, file: Transferred, peer_node_id: bytes, seconds: float, *, as_json: bool) -> None:
    """Say on stdout that a file was `"sent"` or `"received"`."""
    rate = file.size / seconds / 1e6
    if as_json:
        emit(
            {
                "event": event,
                "name": printable(file.name),
                "path": str(file.path),
                "size": file.size,
                "sha256": file.sha256.hex(),
                "peer_node_id": peer_node_id.hex(),
                "seconds": round(seconds, 3),
                "mb_per_s": round(rate, 1),
            }
        )
    else:
        size, name = filesize.decimal(file.size), printable(file.name)
        click.echo(f"{event} {name}: {size}, {rate:.1f} MB/s, sha256 {file.sha256.hex()}")
