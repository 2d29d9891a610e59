"""What is to be measured."""

from __future__ import annotations

import os
from typing import Any

from attrs import field, frozen

from stt_anyio.cli.perf.yardstick import CHUNK, MESSAGE, Watch, bulk_figures, message_figures

HOST = "127.0.0.1"


@frozen(kw_only=True)
class Work:
    """What both ends do; a mode looks at what concerns it.

    Attributes:
        mode: one of `modes.MODES`.
        backend: `"asyncio"`, `"trio"` or `"blocking"`: what both ends run on.
        carrier: `"udp"`, `"tcp"`, `"ws"`, `"wss"`, or `"memory"`, which is both ends in one process.
        datagram_size: bytes in a UDP datagram.
        search_mtu: whether both ends find that out instead, from 1,200 bytes on.
        offload: whether the system may cut and gather runs of datagrams.
        mb: MiB to move in each direction that is used, all streams together.
        streams: that share the work, or are open.
        direction: `"up"` (from who dials), `"down"` or `"both"`.
        count: round trips, messages, datagrams, handshakes or packets.
        sessions: that are held.
        seconds: for which they are.
        qlog_dir: where both ends leave qlog files, or `None`.
        shared_seed: of both.
    """

    mode: str
    backend: str = "asyncio"
    carrier: str = "udp"
    datagram_size: int = 1200
    search_mtu: bool = False
    offload: bool = True
    mb: int = 1
    streams: int = 1
    direction: str = "up"
    count: int = 1
    sessions: int = 1
    seconds: float = 1.0
    qlog_dir: str | None = None
    shared_seed: bytes = field(factory=lambda: os.urandom(32), repr=False)

    @property
    def up(self) -> int:
        """Bytes that one stream carries from who dials."""
        if self.mode == "messages":
            return self.count * len(MESSAGE)
        return 0 if self.direction == "down" else self._share

    @property
    def down(self) -> int:
        """Bytes that one stream carries the other way."""
        return 0 if self.mode == "messages" or self.direction == "up" else self._share

    def piece(self) -> bytes:
        """What is handed over at once; the payload is repetitions of it."""
        return MESSAGE if self.mode == "messages" else os.urandom(CHUNK)

    def figures(self, watch: Watch) -> dict[str, float]:
        """What has been moved, when whoever got it has confirmed it."""
        if self.mode == "messages":
            return message_figures(self.count, watch)
        return bulk_figures((self.up + self.down) * self.streams, watch)

    @property
    def _share(self) -> int:
        return (self.mb << 20) // self.streams

    @property
    def node(self) -> dict[str, Any]:
        """Parameters of either node: the defaults, but for what was asked for and the room that it needs."""
        return {
            "shared_seed": self.shared_seed,
            "host": HOST,
            "port": 0,
            "datagram_size": None if self.search_mtu else self.datagram_size,
            "offload": self.offload,
            "max_concurrent_sessions": max(100, self.sessions),
            "max_concurrent_streams": max(256, self.streams),
            "qlog_dir": self.qlog_dir,
        }
