"""A peer that has the keys and no manners, and measures for what it does to the other side."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from stt_proto import NetworkPath
from stt_proto.errors import SttError
from stt_proto.recovery import AckTracker
from stt_proto.wire import Ack, Frame, NewConnectionId, decode_frames_untrusted
from tests.proto.worlds import sealed, session_pair

F = TypeVar("F")


class Insider:
    """Sends the server whatever it likes under the client's keys, reads all answers, and acknowledges when it is told.

    The client itself hears and says nothing any more.

    Attributes:
        pair: the world; `pair.peer` is the session under attack.
        heard: every frame that the server sent since the attack began.
        sent, answered: bytes of datagrams, there and back.
        answers: datagrams of the server, in order.
    """

    def __init__(self, seed: int = 1, **server: Any) -> None:
        self.pair = session_pair(seed, server=server)
        self.victim = self.pair.peer
        self.heard: list[Frame] = []
        self.sent = self.answered = 0
        self.answers: list[bytes] = []
        self.acks = AckTracker()
        assert self.pair.session._engines is not None
        assert self.victim._engines is not None
        self.own, self.engines = self.pair.session._engines, self.victim._engines
        self.pair.world.taps.append(self._overhear)

    def _overhear(self, datagram: bytes, path: NetworkPath) -> None:
        if path.local != self.pair.server.address:
            return
        self.answered += len(datagram)
        self.answers.append(datagram)
        opened = self.own.receiver.receive(datagram, 0, len(datagram), None, self.pair.session.path, 0.0, True)
        for packet in opened:
            self.acks.on_packet(packet.number, packet.segments, True, 0.0)
            self.heard += decode_frames_untrusted(packet.plain)
            for frame in self.heard[-4:]:
                if isinstance(frame, NewConnectionId):
                    self.own.remote_ids.current = frame.connection_id

    def pack(self, *frames: Frame | bytes) -> list[bytes]:
        """Seal a packet, to be sent later."""
        return sealed(self.pair.session, *frames)

    def deliver(self, datagrams: list[bytes]) -> None:
        """Send what was sealed."""
        for datagram in datagrams:
            self.sent += len(datagram)
            self.pair.server.endpoint.receive(datagram, self.victim.path, self.pair.server.now)
        self.pair.server.pump()

    def send(self, *frames: Frame | bytes) -> None:
        """Send a packet with these frames."""
        self.deliver(self.pack(*frames))

    def acknowledge(self) -> None:
        """Acknowledge every packet that came."""
        taken = self.acks.take(0.0)
        if taken is not None:
            largest, delay, ranges, ecn = taken
            self.send(Ack(largest, delay, 0, ranges, ecn))

    def all(self, kind: type[F]) -> list[F]:
        """The frames of one kind that the server sent."""
        return [frame for frame in self.heard if isinstance(frame, kind)]

    @property
    def code(self) -> int | None:
        """The code that the session under attack was closed with, `None` while it lives."""
        error: SttError | None = self.victim.close_error
        return None if error is None else error.code


@contextmanager
def memory() -> Iterator[Callable[[], int]]:
    """Watch the memory of this process: what is yielded gives the bytes that were taken since, and not given back."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield lambda: tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
