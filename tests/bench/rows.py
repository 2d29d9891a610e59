"""What is measured: each row a piece of work, and who does it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from attrs import field, frozen

from tests.bench.environments import command

OURS = "stt"
_COMMAND = (sys.executable, "-m", "stt_anyio.cli", "perf", "--json")
_ONLY_OURS = ("backend", "carrier", "offload", "search_mtu", "seconds")
"""Options that peers do not have."""
_QUICK = {"mb": 4, "streams": 100, "count": 200, "sessions": 50, "seconds": 1.0}
"""What options are cut down to with `--quick`, which shows that everything runs."""


@frozen
class Figure:
    """A figure of a row.

    Attributes:
        key: its name in what the subjects print.
        unit: as people read it.
        better: `"higher"` or `"lower"`.
    """

    key: str
    unit: str
    better: str = field(default="lower")


MB = Figure("mb_per_s", "MB/s", "higher")
_FIGURES: Mapping[str, tuple[Figure, ...]] = MappingProxyType(
    {
        "bulk": (MB,),
        "echo": (Figure("echo_p50_us", "us, p50"), Figure("echo_p99_us", "us, p99")),
        "messages": (Figure("messages_per_s", "messages/s", "higher"),),
        "datagrams": (Figure("datagrams_per_s", "datagrams/s", "higher"), Figure("datagrams_lost_percent", "% lost")),
        "handshake": (Figure("handshake_ms", "ms"),),
        "memory": (MB, Figure("kib_per_session", "KiB/session")),
        "idle": (Figure("idle_cpu_percent", "% of a core"),),
        "scaling": (
            Figure("us_per_packet", "us/packet, one busy"),
            Figure("times_alone", "x alone, one busy"),
            Figure("us_per_packet_turns", "us/packet, in turn"),
            Figure("times_alone_turns", "x alone, in turn"),
        ),
    }
)


@frozen
class Subject:
    """Who is measured: a command that prints one JSON object."""

    name: str
    command: tuple[str, ...]


@frozen
class Row:
    """A piece of work that subjects do in turn.

    Attributes:
        name: of the row.
        title: what it is, for people.
        figures: what comes out.
        subjects: who does it.
    """

    name: str
    title: str
    figures: tuple[Figure, ...]
    subjects: tuple[Subject, ...]

    @property
    def peers(self) -> tuple[str, ...]:
        """Who is to be compared with us; nobody where we are not among the subjects."""
        names = [subject.name for subject in self.subjects]
        return tuple(name for name in names if name != OURS) if OURS in names else ()


@frozen
class Plan:
    """A row before it is known how much is to be done.

    Attributes:
        mode: of `stt perf`.
        peers: who else does it, names in `environments.PEERS`.
        options: of `stt perf`.
    """

    name: str
    title: str
    mode: str
    peers: tuple[str, ...]
    options: Mapping[str, Any] = field(converter=MappingProxyType)

    def row(self, *, quick: bool) -> Row:
        """The row; everybody gets the same options, as far as they have them."""
        options = {name: min(value, _QUICK.get(name, value)) if quick and name in _QUICK else value
                   for name, value in self.options.items()}  # fmt: skip
        theirs = _words({name: value for name, value in options.items() if name not in _ONLY_OURS})
        subjects = (
            Subject(OURS, (*_COMMAND, "--mode", self.mode, *_words(options))),
            *(Subject(peer, (*command(peer), "--mode", self.mode, *theirs)) for peer in self.peers),
        )
        return Row(self.name, self.title, _FIGURES[self.mode], subjects)


def _words(options: Mapping[str, Any]) -> tuple[str, ...]:
    words: list[str] = []
    for name, value in options.items():
        option = "--" + name.replace("_", "-")
        words += ["--no-offload"] if value is False else [option] if value is True else [option, str(value)]
    return tuple(words)


def _bulk(name: str, title: str, *peers: str, **options: Any) -> Plan:
    """Bulk over UDP; where nothing else is said, 256 MiB up one stream, in datagrams of 1,452 bytes, under asyncio."""
    return Plan(name, f"bulk, UDP, {title}", "bulk", peers, {"mb": 256, "datagram_size": 1452, **options})


def _over(carrier: str, title: str, *peers: str) -> Plan:
    """Bulk over a connection, 256 MiB up one stream, under asyncio."""
    return Plan(f"bulk-{carrier}", f"bulk, {title}", "bulk", peers, {"mb": 256, "carrier": carrier})


def _scaling(name: str, title: str, **options: int) -> Plan:
    return Plan(name, title, "scaling", (), {"count": 10_000, **options})


ALL = ("qh3", "aioquic", "aiopquic", "tls", "zmq")
_IN_MEMORY = {"datagram_size": 1452, "mb": 64, "sessions": 400}
PLANS: tuple[Plan, ...] = (
    _bulk("bulk-asyncio", "1452 B, asyncio", *ALL, backend="asyncio"),
    _bulk("bulk-trio", "1452 B, trio", *ALL, backend="trio"),
    _bulk("bulk-blocking", "1452 B, blocking", *ALL, backend="blocking"),
    _bulk("bulk-no-offload", "1452 B, segmentation off", "qh3", offload=False),
    _bulk("bulk-1200", "1200 B", "qh3", "aioquic", datagram_size=1200),
    _bulk("bulk-8900", "8900 B", "qh3", "aioquic", datagram_size=8900),
    _bulk("bulk-largest", "as large as the way carries", "qh3", datagram_size=65_507, search_mtu=True),
    _bulk("bulk-down", "down", "qh3", "aioquic", "tls", direction="down"),
    _bulk("bulk-both", "both ways", "qh3", "aioquic", "tls", mb=128, direction="both"),
    _bulk("bulk-10-streams", "10 streams", "qh3", "aioquic", streams=10),
    _bulk("bulk-100-streams", "100 streams", "qh3", "aioquic", streams=100),
    _over("tcp", "TCP", "wss", "tls"),
    _over("ws", "WebSocket", "wss"),
    _over("wss", "WebSocket in TLS", "wss"),
    Plan("memory", "in memory, both ends in one process", "memory", ("qh3", "aioquic"), _IN_MEMORY),
    Plan("handshake", "full handshake, both ends", "handshake", ("qh3", "aioquic"), {"count": 200}),
    Plan("echo-asyncio", "echo, 100 B, asyncio", "echo", ALL, {"count": 2000, "backend": "asyncio"}),
    Plan("echo-trio", "echo, 100 B, trio", "echo", ALL, {"count": 2000, "backend": "trio"}),
    Plan("echo-blocking", "echo, 100 B, blocking", "echo", ALL, {"count": 2000, "backend": "blocking"}),
    Plan("messages", "messages of 100 B", "messages", ALL, {"count": 50_000}),
    Plan("datagrams", "datagrams of 1,000 B", "datagrams", ("qh3", "aioquic", "aiopquic"), {"count": 50_000}),
    Plan("idle", "1,000 idle sessions, one end", "idle", (), {"sessions": 1000, "seconds": 20.0}),
    _scaling("streams-100", "a packet beside 100 open streams", streams=100),
    _scaling("streams-10000", "a packet beside 10,000 open streams", streams=10_000),
    _scaling("sessions-100", "a packet beside 100 sessions", sessions=100),
    _scaling("sessions-10000", "a packet beside 10,000 sessions", sessions=10_000),
)
"""In the order in which they run; the simulated links (`links.py`) come last."""
