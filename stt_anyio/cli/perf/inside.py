"""What the core costs when there is no socket: a handshake, a session that does nothing, bytes through a stream."""

from __future__ import annotations

import gc
import os
import time

from stt_anyio.cli.perf.pair import Pair, Reader
from stt_anyio.cli.perf.work import Work
from stt_anyio.cli.perf.yardstick import CHUNK, resident
from stt_proto import Session

BATCH = 20
"""Sessions that are made at once, before they are left alone."""


def handshake(work: Work) -> dict[str, float]:
    """Milliseconds for a full handshake, the work of both ends together."""
    pair, seconds = Pair(work.datagram_size), 0.0
    for number in range(work.count + 1):
        started = time.perf_counter()
        session, _ = pair.connect()
        if number:  # the first one also warms up
            seconds += time.perf_counter() - started
        session.abort(time.monotonic())
        while pair.move():
            pass
    return {"handshake_ms": seconds / work.count * 1e3}


def memory(work: Work) -> dict[str, float]:
    """What one end of an idle session holds, and how fast one stream is from end to end."""
    return {
        "kib_per_session": _kib_per_session(work.datagram_size, work.sessions),
        "mb_per_s": _mb_per_s(work.datagram_size, work.mb << 20),
    }


def _kib_per_session(datagram_size: int, sessions: int) -> float:
    pair = Pair(datagram_size, max_concurrent_sessions=sessions + BATCH)
    kept = idle_sessions(pair, BATCH)
    gc.collect()
    before = resident()
    kept += idle_sessions(pair, sessions)
    gc.collect()
    return (resident() - before) / (2 * sessions) / 1024


def idle_sessions(pair: Pair, count: int) -> list[tuple[Session, Session]]:
    """Sessions that have nothing to do, made a few at a time: the system is never given back what many let go of."""
    kept = []
    for number in range(count):
        kept.append(pair.connect())
        if number % BATCH == BATCH - 1:
            pair.idle()
    pair.idle()
    return kept


def _mb_per_s(datagram_size: int, total: int) -> float:
    pair = Pair(datagram_size)
    session, _ = pair.connect()
    stream, data, reader = session.open_stream(), os.urandom(CHUNK), Reader(pair)
    sent = 0
    started = time.perf_counter()
    while reader.received < total:
        now = time.monotonic()
        if sent < total:
            sent += stream.write(data[: total - sent], now)
        if not pair.move():
            pair.tick()
        reader.read(CHUNK, now)
    return reader.received / (time.perf_counter() - started) / 1e6
