"""Two ends in one process and no socket between them: what the core itself costs, with its real KEM and entropy."""

from __future__ import annotations

import gc
import os
import subprocess
import time
from pathlib import Path

from stt_proto import CarrierTraits, Config, Endpoint, Identity, NetworkPath, Session
from stt_proto.config import CARRIERS
from stt_proto.events import SessionEstablished, StreamOpened
from stt_proto.identity import generate_node_seed

MAX_SESSIONS = 4096
HANDSHAKES = 200
SESSIONS = 400
_CHUNK = 1 << 18


class Pair:
    """A client and a server endpoint, and what carries datagrams between them.

    Runs of datagrams are handed over as runs, as UDP does it where the system can segment and coalesce.
    """

    def __init__(self, datagram_size: int) -> None:
        seed = os.urandom(32)
        udp = CARRIERS["udp"]
        carriers = {"udp": CarrierTraits(udp.reliable, udp.framed, datagram_size, udp.overhead)}
        near, far = ("127.0.0.1", 1), ("127.0.0.1", 2)
        self._path, self._path_back = NetworkPath("udp", near, far), NetworkPath("udp", far, near)
        self.client, self.server = (
            Endpoint(
                Config(
                    identity=Identity.from_seed(generate_node_seed(os.urandom)),
                    shared_seed=seed,
                    max_concurrent_sessions=MAX_SESSIONS,
                    carriers=carriers,
                ),
                now=time.monotonic(),
                unix_time=time.time(),
                entropy=os.urandom,
            )
            for _ in range(2)
        )

    def move(self) -> bool:
        """Carry all that either end wants to send, once; whether there was anything."""
        now, moved = time.monotonic(), False
        for end, other, path in (
            (self.client, self.server, self._path_back),
            (self.server, self.client, self._path),
        ):
            while (transmit := end.next_transmit(now)) is not None:
                other.receive(b"".join(transmit.buffers), path, now, transmit.segment_size)
                moved = True
        return moved

    def settle(self) -> None:
        """Carry until both ends have nothing to say, what they put off (acknowledgements) included."""
        while self.move():
            pass
        later = time.monotonic() + 0.1
        for end in (self.client, self.server):
            end.tick(later)
        while self.move():
            pass

    def connect(self) -> tuple[Session, Session]:
        """A handshake: the session of the client and that of the server.

        Raises:
            RuntimeError: the two did not come together, which is a bug.
        """
        session = self.client.connect(self._path, now=time.monotonic())
        while self.move():
            pass
        established = [found for found, event in self.server.events() if isinstance(event, SessionEstablished)]
        here = [found for found, event in self.client.events() if isinstance(event, SessionEstablished)]
        if here != [session] or len(established) != 1 or established[0] is None:
            raise RuntimeError("the handshake in memory failed")
        return session, established[0]


def handshake_ms(datagram_size: int) -> float:
    """Milliseconds for a full handshake, the work of both ends together."""
    pair, seconds = Pair(datagram_size), 0.0
    for number in range(HANDSHAKES + 1):
        started = time.perf_counter()
        session, _ = pair.connect()
        if number:  # the first one also warms up
            seconds += time.perf_counter() - started
        session.abort(time.monotonic())
        while pair.move():
            pass
    return seconds / HANDSHAKES * 1e3


def kib_per_session(datagram_size: int) -> float:
    """KiB of resident memory that one end of an idle session holds."""
    pair = Pair(datagram_size)
    kept = [pair.connect()]
    pair.settle()
    gc.collect()
    before = _resident()
    kept += [pair.connect() for _ in range(SESSIONS)]
    pair.settle()
    gc.collect()
    return (_resident() - before) / (2 * (len(kept) - 1)) / 1024


def memory_mb_per_s(datagram_size: int, megabytes: int) -> float:
    """Megabytes a second through one stream, the work of both ends together."""
    pair = Pair(datagram_size)
    ours, theirs = pair.connect()
    stream, data, total = ours.open_stream(), os.urandom(_CHUNK), megabytes << 20
    sent = received = 0
    incoming = None
    started = time.perf_counter()
    while received < total:
        now = time.monotonic()
        if sent < total:
            sent += stream.write(data[: total - sent], now)
        if not pair.move():
            pair.client.tick(now)
            pair.server.tick(now)
        if incoming is None:
            opened = [event for _, event in pair.server.events() if isinstance(event, StreamOpened)]
            incoming = theirs.stream(opened[0].stream_id) if opened else None
        else:
            while piece := incoming.read(_CHUNK, now):
                received += len(piece)
    return received / (time.perf_counter() - started) / 1e6


def _resident() -> int:
    """Bytes of memory that this process has in use, as the system counts them.

    Raises:
        RuntimeError: this system does not tell.
    """
    try:
        statm = Path("/proc/self/statm")
        if statm.exists():
            return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        told = subprocess.run(["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, check=True)
        return int(told.stdout) * 1024
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise RuntimeError(f"this system does not tell how much memory is in use: {error}") from error
