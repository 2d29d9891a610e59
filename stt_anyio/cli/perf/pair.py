"""Two endpoints in one process and no socket between them: the core itself, with its real KEM and entropy."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from stt_proto import CarrierTraits, Config, Endpoint, Identity, NetworkPath, Session, Stream
from stt_proto.config import CARRIERS
from stt_proto.events import Event, SessionEstablished, StreamOpened, StreamReadable
from stt_proto.identity import generate_node_seed

Watcher = Callable[[Session, Event], None]


class Pair:
    """A client and a server endpoint, and what carries datagrams between them.

    Runs of datagrams are handed over as runs, as UDP does it where the system can segment and coalesce.

    Args:
        datagram_size: bytes in a datagram.
        parameters: of both configurations.
    """

    def __init__(self, datagram_size: int, **parameters: Any) -> None:
        self._ahead = 0.0
        seed, udp = os.urandom(32), CARRIERS["udp"]
        carriers = {"udp": CarrierTraits(udp.reliable, udp.framed, datagram_size, udp.overhead)}
        near, far = ("127.0.0.1", 1), ("127.0.0.1", 2)
        self._path, self._path_back = NetworkPath("udp", near, far), NetworkPath("udp", far, near)
        self.client, self.server = (
            Endpoint(
                Config(
                    identity=Identity.from_seed(generate_node_seed(os.urandom)),
                    shared_seed=seed,
                    carriers=carriers,
                    **parameters,
                ),
                now=time.monotonic(),
                unix_time=time.time(),
                entropy=os.urandom,
            )
            for _ in range(2)
        )

    def now(self) -> float:
        """Seconds, by the clock of both ends."""
        return time.monotonic() + self._ahead

    def move(self) -> bool:
        """Carry all that either end wants to send, once; whether there was anything."""
        now, moved = self.now(), False
        for end, other, path in (
            (self.client, self.server, self._path_back),
            (self.server, self.client, self._path),
        ):
            while (transmit := end.next_transmit(now)) is not None:
                other.receive(b"".join(transmit.buffers), path, now, transmit.segment_size)
                moved = True
        return moved

    def tick(self) -> None:
        """Call the timer of each end that is due, as a host does."""
        now = self.now()
        for end in (self.client, self.server):
            deadline = end.next_deadline()
            if deadline is not None and deadline.at <= now:
                end.tick(now)

    def settle(self) -> None:
        """Carry until both ends have nothing to say, what they put off (acknowledgements) included."""
        while self.move():
            pass
        self._pass(0.1)

    def idle(self) -> None:
        """Let so much time pass in silence that signs of life are asked for, and given."""
        self.settle()
        self._pass(1.1 * self.client.config.keep_alive_interval)
        self.settle()

    def _pass(self, seconds: float) -> None:
        """Let both ends believe that so much time has passed."""
        self._ahead += seconds
        now = self.now()
        for end in (self.client, self.server):
            end.tick(now)
        while self.move():
            pass

    def connect(self) -> tuple[Session, Session]:
        """A handshake: the session of the client and that of the server.

        Raises:
            RuntimeError: the two did not come together, which is a bug.
        """
        session = self.client.connect(self._path, now=self.now())
        while self.move():
            pass
        established = [found for found, event in self.server.events() if isinstance(event, SessionEstablished)]
        here = [found for found, event in self.client.events() if isinstance(event, SessionEstablished)]
        if here != [session] or len(established) != 1 or established[0] is None:
            raise RuntimeError("the handshake in memory failed")
        return session, established[0]


class Reader:
    """Reads at the server whatever arrives there on streams.

    Attributes:
        received: bytes so far.
    """

    def __init__(self, pair: Pair) -> None:
        self.received = 0
        self._pair = pair
        self._streams: dict[tuple[Session, int], Stream] = {}

    def read(self, max_bytes: int, now: float) -> None:
        """Take the events of both ends, and what has arrived."""
        for _ in self._pair.client.events():
            pass
        for session, event in self._pair.server.events():
            if session is None or not isinstance(event, StreamOpened | StreamReadable):
                continue
            stream = self._streams.get((session, event.stream_id)) or self._opened(session, event.stream_id)
            while piece := stream.read(max_bytes, now):
                self.received += len(piece)

    def _opened(self, session: Session, stream_id: int) -> Stream:
        stream = session.stream(stream_id)
        if stream is None:
            raise RuntimeError(f"stream {stream_id} is gone")
        self._streams[session, stream_id] = stream
        return stream
