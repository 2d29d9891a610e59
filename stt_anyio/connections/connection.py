"""One connection as a path: its link, what waits to be written, and when it counts as full.

Nothing in here waits or knows an event loop. What moves the bytes is a subclass: `sockets.py` for sockets and pairs of
files, `streams.py` for any `anyio.abc.ByteStream`, `stt_anyio.asgi` for the WebSockets of a web server.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import count
from math import inf
from typing import Any

from attrs import evolve

from stt_anyio.carrier import Port
from stt_anyio.links import Link
from stt_proto.config import Limits
from stt_proto.types import Buffer, NetworkPath, Source, Transmit, source_of

HIGH = 512 << 10
"""Bytes that wait to be written at which a connection counts as full; one packet more may be queued."""
LOW = 256 << 10
"""Bytes below which it has room again."""
FAREWELL = 5.0
"""Seconds that the other side has to end its direction, once this side has."""

_NUMBERS = count(1)


class Connection(ABC):
    """One connection.

    Args:
        link: what is spoken on it.
        path: what it is called in the core.
        stranger: whether somebody else opened it, who has yet to prove who he is.

    Attributes:
        sessions: sessions that use it now.
        unsent: bytes that were taken from the link and are not written yet.
        gathered: whether `flush` will be called when the node has no more to send.
        full: whether the core was told that there is no room.
        leaving: whether it ends as soon as what is queued was written.
        told: whether the core was told that the path has ended.
        over: whether everything was given back.
        deadline: when it is to be closed, on the clock of the registry; `inf` for never.
        registry: where it is registered.
        waiter: called once, when packets can pass or it is certain that they never will.
        host: a free slot for who waits for its bytes.
    """

    def __init__(self, link: Link, path: NetworkPath, *, stranger: bool) -> None:
        self.link = link
        self.path = path
        self.stranger = stranger
        self.sessions = 0
        self.unsent = 0
        self.gathered = False
        self.full = False
        self.leaving = False
        self.told = False
        self.over = False
        self.deadline = inf
        self.registry: Registry | None = None
        self.waiter: Callable[[], None] | None = None
        self.host: Any = None

    @property
    def port(self) -> Port:
        """The node."""
        assert self.registry is not None
        return self.registry.port

    # -- out -------------------------------------------------------------------------------------------------------

    @property
    def backlog(self) -> int:
        """Bytes that wait to be written."""
        return self.link.pending + self.unsent

    def send(self, transmit: Transmit) -> Transmit | None:
        """Queue a packet; `flush` writes it. What is given back did not fit."""
        link = self.link
        if not link.open:
            return None  # lost with its path
        if link.pending + self.unsent >= HIGH:
            self.flush()
            if self.over:  # writing has shown that it is broken: its path is closed, and will not have room again
                return None
            if link.pending + self.unsent >= HIGH:
                self.full = True
                return transmit
        if transmit.segment_size is None:
            link.send(transmit.buffers)
        else:
            for datagram in transmit.datagrams():
                link.send((datagram,))
        return None

    @abstractmethod
    def flush(self) -> None:
        """Write what is queued, as far as that goes without waiting."""

    def relieve(self) -> None:
        """Something was written: tell the core if there is room again."""
        if self.full and self.backlog <= LOW:
            self.full = False
            if not self.told:
                self.port.writable(self.path)
            if self.leaving:
                self.link.close()

    # -- in --------------------------------------------------------------------------------------------------------

    def take_in(self, data: Buffer) -> None:
        """Bytes arrived."""
        if not self.told:
            self.link.receive(data, self.deliver)
            if self.link.over:
                self.tell(None)
                self.leave()
            self.look()

    def look(self) -> None:
        """See whether what the waiter waits for has come."""
        if self.waiter is not None and (self.link.open or self.told):
            waiter, self.waiter = self.waiter, None
            waiter()

    def deliver(self, message: Buffer) -> None:
        """A message arrived."""
        if not self.told:
            self.port.receive(message, self.path)

    def take_end(self) -> None:
        """The other side sends no more, which ends the connection: nobody could acknowledge anything."""
        self.link.end()
        self.close("the other side ended the connection")

    def broke(self, reason: str) -> None:
        """The connection is gone. While packets could not pass yet, the link says what that means."""
        if not self.link.open:
            self.link.end()
        self.close(reason)

    # -- ending ----------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Nothing more will be sent: end when what is queued was written, and the other side has ended too."""
        if self.leaving or self.over:
            return
        self.leaving = True
        if not self.full:
            self.link.close()
        assert self.registry is not None
        self.registry.give(self, FAREWELL)
        self.flush()

    def tell(self, reason: str | None) -> None:
        """Tell the core that the path has ended, with the link's own reason if it has one."""
        if not self.told:
            self.told = True
            failure = self.link.failure
            self.port.path_closed(self.path, reason if failure is None else str(failure))

    def close(self, reason: str | None = None) -> None:
        """End now."""
        if not self.over:
            self.over = True
            self.release()
            assert self.registry is not None
            self.registry.remove(self)
            self.tell(reason)
            self.look()

    @abstractmethod
    def release(self) -> None:
        """Give back what was opened."""


class Registry:
    """The connections of one carrier, by path, and a bound on those of strangers.

    Args:
        limits: how many strangers there may be, in all and from one source (docs/protocol.md, P-22).
        patience: seconds that a stranger has to prove who he is.
        clock: seconds, on any monotonic clock.
        rearm: called when the deadline of a connection has changed.
    """

    def __init__(
        self,
        limits: Limits,
        patience: float,
        clock: Callable[[], float],
        rearm: Callable[[Connection], None],
    ) -> None:
        self._limits = limits
        self._patience = patience
        self._clock = clock
        self._rearm = rearm
        self._port: Port | None = None
        self._strangers: dict[Source, int] = {}
        self._strange = 0
        self._gathered: list[Connection] = []
        self.by_path: dict[NetworkPath, Connection] = {}
        self.timed: dict[Connection, None] = {}

    @property
    def port(self) -> Port:
        """The node, while it runs."""
        assert self._port is not None
        return self._port

    @port.setter
    def port(self, port: Port) -> None:
        self._port = port

    def add(self, connection: Connection) -> bool:
        """Take a connection in, unless it is a stranger too many.

        Its path is another one if there is such a path: an old connection from the same port that has ended, which
        nobody has read yet. That one keeps what has arrived on it, and its end is not that of the new one.
        """
        connection.registry = self
        if connection.stranger:
            source = source_of(connection.path)
            of_source = self._strangers.get(source, 0)
            if self._strange >= self._limits.half_open or of_source >= self._limits.half_open_per_source:
                connection.stranger = False
                return False
            self._strangers[source] = of_source + 1
            self._strange += 1
            self.give(connection, self._patience)
        path = connection.path
        while connection.path in self.by_path:
            local = path.local if isinstance(path.local, tuple) else (path.local,)
            connection.path = evolve(path, local=(*local, next(_NUMBERS)))
        self.by_path[connection.path] = connection
        return True

    def give(self, connection: Connection, seconds: float) -> None:
        """Give a connection so many seconds from now."""
        connection.deadline = self._clock() + seconds
        if seconds == inf:
            self.timed.pop(connection, None)
        else:
            self.timed[connection] = None
        self._rearm(connection)

    def path_used(self, path: NetworkPath) -> None:
        """A session uses a path."""
        connection = self.by_path.get(path)
        if connection is not None:
            self._prove(connection)
            connection.sessions += 1
            if not connection.leaving:
                self.give(connection, inf)

    def path_unused(self, path: NetworkPath) -> None:
        """A session uses it no more; a connection without one ends."""
        connection = self.by_path.get(path)
        if connection is not None:
            connection.sessions = max(0, connection.sessions - 1)
            if not connection.sessions:
                connection.leave()

    def send(self, transmit: Transmit) -> Transmit | None:
        """See `Carrier.send`. What is queued is written when the node has no more to send for now."""
        connection = self.by_path.get(transmit.path)
        if connection is None:
            return None
        if not connection.gathered:
            connection.gathered = True
            if not self._gathered:
                self.port.at_end(self.flush)
            self._gathered.append(connection)
        return connection.send(transmit)

    def flush(self) -> None:
        """Write what was queued since the last time."""
        gathered, self._gathered = self._gathered, []
        for connection in gathered:
            connection.gathered = False
            connection.flush()

    def remove(self, connection: Connection) -> None:
        """A connection has ended."""
        self._prove(connection)
        self.timed.pop(connection, None)
        if self.by_path.get(connection.path) is connection:
            del self.by_path[connection.path]

    def _prove(self, connection: Connection) -> None:
        """It is no stranger's any more, if it was."""
        if connection.stranger:
            connection.stranger = False
            source = source_of(connection.path)
            self._strange -= 1
            self._strangers[source] -= 1
            if not self._strangers[source]:
                del self._strangers[source]

    def expire(self) -> None:
        """Close those whose time is over."""
        now = self._clock()
        for connection in [connection for connection in self.timed if connection.deadline <= now]:
            connection.close("not in time")

    def close(self) -> None:
        """End all of them at once; what is queued is written as far as that goes."""
        for connection in tuple(self.by_path.values()):
            connection.told = True
            connection.leave()
            connection.close()
