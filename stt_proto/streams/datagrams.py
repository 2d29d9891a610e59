"""Unreliable datagrams: two short queues that drop the oldest (docs/protocol.md, S-11).

A datagram that has waited too long is worth less than the one behind it, so a full queue loses its head, not its
tail. Both queues are bounded in count and in bytes; what was dropped is counted. One that has a limited life and comes
to the head of its queue too late is dropped too; no timer is needed for that.
"""

from __future__ import annotations

from collections import deque
from math import inf

from stt_proto.config import Config
from stt_proto.errors import ArgumentError, InvalidFrameError
from stt_proto.streams.expiry import checked_lifetime
from stt_proto.types import Buffer
from stt_proto.wire import datagram_header, varint_size

__all__ = ["DatagramQueues"]


class _Queue:
    """A queue bounded in count and in bytes."""

    __slots__ = ("_deadlines", "bytes", "dropped", "items")

    def __init__(self) -> None:
        self.items: deque[bytes] = deque()
        self._deadlines: deque[float] = deque()
        self.bytes = 0
        self.dropped = 0

    def put(self, data: bytes, config: Config, deadline: float = inf) -> None:
        """Put in at the end; what is too much goes at the front."""
        limits, items = config.limits, self.items
        items.append(data)
        self._deadlines.append(deadline)
        self.bytes += len(data)
        while len(items) > limits.datagrams or self.bytes > limits.datagram_bytes:
            self.take()
            self.dropped += 1

    def take(self) -> bytes:
        """Take out the oldest."""
        data = self.items.popleft()
        self._deadlines.popleft()
        self.bytes -= len(data)
        return data

    def expire(self, now: float) -> None:
        """Take out what is too old, as far as it stands at the front."""
        deadlines = self._deadlines
        while deadlines and deadlines[0] <= now:
            self.take()
            self.dropped += 1


class DatagramQueues:
    """The datagrams of one session, both ways.

    Args:
        config: limits of this side.

    Attributes:
        peer_max: the largest datagram that the peer takes; 0 for none, and before the handshake told.
        dropped_too_large: datagrams that no packet had room for.
    """

    __slots__ = ("_config", "_incoming", "_outgoing", "dropped_too_large", "peer_max")

    def __init__(self, config: Config) -> None:
        self._config = config
        self._incoming: _Queue | None = None  # an empty queue takes as much memory as a stream
        self._outgoing: _Queue | None = None
        self.peer_max = 0
        self.dropped_too_large = 0

    # -- sending ---------------------------------------------------------------------------------------------------

    def send(self, data: Buffer, max_lifetime: float | None = None, now: float = 0.0) -> None:
        """Queue a datagram (`bytes` are kept); the oldest is dropped when the queue is full.

        Args:
            data: the datagram.
            max_lifetime: seconds after which it is not sent any more, 0.001 to 86,400; `None` for no such limit.
            now: seconds.

        Raises:
            ArgumentError: `data` is no bytes-like object, or larger than the peer takes; or `max_lifetime` is no time.
        """
        deadline = inf if max_lifetime is None else now + checked_lifetime(max_lifetime)
        if data.__class__ is not bytes:
            try:
                data = memoryview(data).tobytes()
            except TypeError:
                name = type(data).__name__
                raise ArgumentError(f"data is {name}; it must be bytes-like", argument="data") from None
        if len(data) > self.peer_max or not self.peer_max:
            raise ArgumentError(
                f"data has {len(data)} bytes; the peer takes datagrams of at most {self.peer_max}", argument="data"
            )
        if self._outgoing is None:
            self._outgoing = _Queue()
        self._outgoing.put(data, self._config, deadline)

    @property
    def has_pending(self) -> bool:
        """Whether a datagram waits to be sent."""
        return self._outgoing is not None and bool(self._outgoing.items)

    @property
    def dropped_sending(self) -> int:
        """Datagrams that were pushed out of the queue, or grew too old in it, before they were sent."""
        return 0 if self._outgoing is None else self._outgoing.dropped

    def waits_for(self, room: int) -> bool:
        """Whether the oldest datagram would fit into `room` bytes: there it goes, if not where there is less."""
        queue = self._outgoing
        return queue is not None and bool(queue.items) and _framed(queue.items[0]) <= room

    def pop_fitting(self, room: int, largest: int | None = None, now: float = 0.0) -> bytes | None:
        """Take out the oldest datagram if its frame, with a length, fits into `room` bytes.

        `largest` is what a whole packet has room for: what fits into no packet is dropped here and counted, as is what
        is too old by `now`.
        """
        queue = self._outgoing
        if queue is None:
            return None
        queue.expire(now)
        while queue.items:
            size = _framed(queue.items[0])
            if size <= room:
                return queue.take()
            if largest is None or size <= largest:
                break
            queue.take()
            self.dropped_too_large += 1
            queue.expire(now)
        return None

    def write_frames(
        self, out: list[bytes | memoryview], room: int, largest: int | None = None, now: float = 0.0
    ) -> int:
        """Write the frames of all datagrams that fit, oldest first; give the bytes used."""
        left = room
        while (data := self.pop_fitting(left, largest, now)) is not None:
            header = datagram_header(len(data))
            out.append(header)
            out.append(data)
            left -= len(header) + len(data)
        return room - left

    # -- receiving -------------------------------------------------------------------------------------------------

    def on_datagram(self, data: bytes | memoryview) -> None:
        """Take in a DATAGRAM frame; the oldest is dropped when the queue is full.

        Raises:
            InvalidFrameError: it is larger than this side announced.
        """
        if len(data) > self._config.max_datagram_size or not self._config.max_datagram_size:
            raise InvalidFrameError(f"a datagram of {len(data)} bytes; {self._config.max_datagram_size} were announced")
        if self._incoming is None:
            self._incoming = _Queue()
        self._incoming.put(bytes(data), self._config)

    @property
    def has_arrived(self) -> bool:
        """Whether a datagram waits for the application."""
        return self._incoming is not None and bool(self._incoming.items)

    def receive(self) -> bytes | None:
        """Give the oldest datagram that arrived, or `None`."""
        queue = self._incoming
        return queue.take() if queue is not None and queue.items else None

    @property
    def dropped_receiving(self) -> int:
        """Datagrams that were pushed out of the queue before the application took them."""
        return 0 if self._incoming is None else self._incoming.dropped


def _framed(data: bytes) -> int:
    """Bytes of the frame of a datagram, with its length."""
    return 1 + varint_size(len(data)) + len(data)
