"""What is measured: each row a figure, and who gives it."""

from __future__ import annotations

import sys

from attrs import frozen

from tests.bench.peers import peer_command

OURS = (sys.executable, "-m", "stt_anyio.cli", "perf", "--json")
DATAGRAM_SIZE = "1452"


@frozen
class Subject:
    """Who is measured: a command that prints one JSON object."""

    name: str
    command: tuple[str, ...]


@frozen
class Row:
    """A figure to compare.

    Attributes:
        name: of the row.
        unit: of the figure.
        better: `"higher"` or `"lower"`.
        key: where the figure is in what the subjects print.
        subjects: who is measured; one is `stt`.
    """

    name: str
    unit: str
    better: str
    key: str
    subjects: tuple[Subject, ...]


def _row(name: str, unit: str, better: str, key: str, mode: str, *peers: str, mb: tuple[int, int] = (1, 1)) -> Row:
    """A row; `mb` is what ours moves and what the peers move, enough for about a second each."""
    common = ("--mode", mode, "--datagram-size", DATAGRAM_SIZE, "--mb")
    ours = Subject("stt", (*OURS, *common, str(mb[0])))
    theirs = (Subject(peer, (*peer_command(peer), *common, str(mb[1]))) for peer in peers)
    return Row(name, unit, better, key, (ours, *theirs))


ROWS = (
    _row("handshake", "ms", "lower", "handshake_ms", "handshake", "qh3"),
    _row("bulk-udp", "MB/s", "higher", "mb_per_s", "bulk", "qh3", "aioquic", mb=(256, 64)),
    _row("bulk-memory", "MB/s", "higher", "mb_per_s", "memory", "qh3", "aioquic", mb=(256, 32)),
    _row("echo", "us", "lower", "echo_p50_us", "echo", "qh3", "aioquic"),
    _row("idle-session", "KiB", "lower", "kib_per_session", "memory", "qh3", "aioquic"),
)
