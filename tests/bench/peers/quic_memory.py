"""A QUIC library without sockets: both ends in one process, and nothing between them (qh3 and aioquic)."""

from __future__ import annotations

import gc
import os
import time
from typing import Any

from common import HOST, Options, yardstick

CHUNK = 1 << 20
QUEUED = 4 << 20
"""Bytes that wait to be sent at most: they queue without end."""


class Pair:
    """Two connections."""

    def __init__(self, library: Any) -> None:
        self._data = library.events.StreamDataReceived
        self.client = library.connection(configuration=library.configuration(client=True))
        self.client.connect((HOST, 2), now=time.time())
        self.server = library.connection(
            configuration=library.configuration(client=False),
            original_destination_connection_id=self.client.original_destination_connection_id,
        )

    def move(self) -> int:
        """Carry everything once each way; how many datagrams that were."""
        now, count = time.time(), 0
        for end, other, port in ((self.client, self.server, 1), (self.server, self.client, 2)):
            for data, _ in end.datagrams_to_send(now=now):
                other.receive_datagram(data, (HOST, port), now=now)
                count += 1
        return count

    def settle(self) -> Pair:
        """Carry until both are silent."""
        while self.move():
            pass
        self.received(self.client), self.received(self.server)
        return self

    def received(self, end: Any) -> int:
        """Take the events of an end; bytes of stream data in them."""
        return sum(len(event.data) for event in iter(end.next_event, None) if isinstance(event, self._data))

    def wake(self) -> None:
        """Call the timers that are due."""
        for end in (self.client, self.server):
            due = end.get_timer()
            if due is not None and due <= time.time():
                end.handle_timer(now=time.time())


def handshake(library: Any, options: Options) -> dict[str, float]:
    Pair(library).settle()
    started = time.perf_counter()
    for _ in range(options.count):
        Pair(library).settle()
    return {"handshake_ms": (time.perf_counter() - started) / options.count * 1e3}


def memory(library: Any, options: Options) -> dict[str, float]:
    pairs = [Pair(library).settle()]
    gc.collect()
    before = yardstick.resident()
    pairs += [Pair(library).settle() for _ in range(options.sessions)]
    gc.collect()
    kib = (yardstick.resident() - before) / (2 * options.sessions) / 1024
    return {"kib_per_session": kib, "mb_per_s": _mb_per_s(Pair(library).settle(), options.mb << 20)}


def _mb_per_s(pair: Pair, total: int) -> float:
    chunk, stream_id = os.urandom(CHUNK), pair.client.get_next_available_stream_id()
    sent = received = 0
    started = time.perf_counter()
    while received < total:
        if sent < total and sent - received < QUEUED:
            pair.client.send_stream_data(stream_id, chunk)
            sent += len(chunk)
        if not pair.move():
            pair.wake()
        received += pair.received(pair.server)
        pair.received(pair.client)
    return received / (time.perf_counter() - started) / 1e6
