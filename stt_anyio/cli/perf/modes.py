"""The table of what can be measured, and of the figures that come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from attrs import field, frozen

from stt_anyio.cli.perf import ends, inside, scaling
from stt_anyio.cli.perf.work import Work

FIGURES: Mapping[str, str] = MappingProxyType(
    {
        "mb_per_s": "MB/s, confirmed by who got them",
        "messages_per_s": "messages of 100 bytes a second, confirmed",
        "datagrams_per_s": "datagrams of 1,000 bytes a second that arrived",
        "datagrams_lost_percent": "% of the datagrams that did not",
        "echo_p50_us": "us for a round trip of 100 bytes, median",
        "echo_p99_us": "us for a round trip of 100 bytes, 99th percentile",
        "handshake_ms": "ms for a handshake, both ends",
        "kib_per_session": "KiB for one end of an idle session",
        "idle_cpu_percent": "% of a core for one end of all idle sessions",
        "us_per_packet_alone": "us of CPU for a packet, one session with one stream",
        "us_per_packet": "us of CPU for a packet on one stream of so many",
        "us_per_packet_turns": "us of CPU for a packet, all streams in turn",
        "times_alone": "times what it costs alone, one stream of so many",
        "times_alone_turns": "times what it costs alone, all streams in turn",
        "cpu_s_near": "s of CPU, the end that dials",
        "cpu_s_far": "s of CPU, the other end",
    }
)
"""What can be measured. Megabytes are of 1,000,000 bytes."""


def _frozen(options: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(options))


@frozen
class Mode:
    """Something to measure.

    Attributes:
        help: what it is.
        measure: does it.
        options: the options that concern it, fields of `Work`, with their defaults.
    """

    help: str
    measure: Callable[[Work], dict[str, float]]
    options: Mapping[str, Any] = field(converter=_frozen)


_OVER_UDP = {"backend": "asyncio", "carrier": "udp", "datagram_size": 1452, "search_mtu": False, "offload": True}

MODES: Mapping[str, Mode] = MappingProxyType(
    {
        "bulk": Mode(
            "as much as goes through streams",
            ends.measure,
            {**_OVER_UDP, "mb": 256, "streams": 1, "direction": "up"},
        ),
        "echo": Mode("round trips of 100 bytes, one after the other", ends.measure, {**_OVER_UDP, "count": 2000}),
        "messages": Mode("100 bytes at a time, one way, on one stream", ends.measure, {**_OVER_UDP, "count": 50_000}),
        "datagrams": Mode("unreliable datagrams of 1,000 bytes", ends.measure, {**_OVER_UDP, "count": 50_000}),
        "idle": Mode(
            "the CPU that sessions take which do nothing but keep themselves alive",
            ends.measure,
            {**_OVER_UDP, "sessions": 1000, "seconds": 20.0},
        ),
        "handshake": Mode(
            "handshakes, in one process without sockets", inside.handshake, {"datagram_size": 1452, "count": 200}
        ),
        "memory": Mode(
            "what an idle session holds, and as much as goes through one stream, in one process without sockets",
            inside.memory,
            {"datagram_size": 1452, "sessions": 400, "mb": 256},
        ),
        "scaling": Mode(
            "what a packet costs beside so many streams in each of so many sessions, in one process without sockets",
            scaling.scaling,
            {"datagram_size": 1452, "sessions": 1, "streams": 1, "count": 10_000},
        ),
    }
)
