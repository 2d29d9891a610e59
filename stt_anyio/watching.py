"""Iterations over what happens at a node under asyncio and trio, each with what it has not taken yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from weakref import WeakSet

from stt_anyio.session import Session
from stt_anyio.waiting import Bell, Feed
from stt_proto.events import (
    DatagramReceived,
    Event,
    ExtensionFrameReceived,
    StreamAcked,
    StreamFinished,
    StreamOpened,
    StreamReadable,
    StreamReset,
    StreamsAvailable,
    StreamWritable,
)

MAX_EVENTS = 10_000
"""Events that wait for one who iterates over them; the oldest goes first."""

_OF_STREAMS = (
    DatagramReceived,
    ExtensionFrameReceived,
    StreamAcked,
    StreamFinished,
    StreamOpened,
    StreamReadable,
    StreamReset,
    StreamsAvailable,
    StreamWritable,
)


class Watchers:
    """All who iterate over the events of a node."""

    def __init__(self) -> None:
        self._all: WeakSet[_Watcher] = WeakSet()

    def feed(self, over: Callable[[], bool]) -> Feed[tuple[Session | None, Event]]:
        """What happens from now on, until it is `over`."""
        watcher = _Watcher()
        self._all.add(watcher)
        return Feed(watcher.take, watcher.bell, over)

    def put(self, session: Session | None, event: Event) -> None:
        """Something happened."""
        if self._all and not isinstance(event, _OF_STREAMS):
            for watcher in self._all:
                watcher.put(session, event)

    def ring(self) -> None:
        """Have everybody see whether it is over."""
        for watcher in self._all:
            watcher.bell.ring()


class _Watcher:
    """What one iteration over events has before it."""

    __slots__ = ("__weakref__", "_waiting", "bell")

    def __init__(self) -> None:
        self.bell = Bell()
        self._waiting: deque[tuple[Session | None, Event]] = deque(maxlen=MAX_EVENTS)

    def put(self, session: Session | None, event: Event) -> None:
        self._waiting.append((session, event))
        self.bell.ring()

    def take(self) -> tuple[Session | None, Event] | None:
        return self._waiting.popleft() if self._waiting else None
