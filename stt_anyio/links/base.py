"""What a link is: the bytes of one connection on one side, whole messages on the other, and no waiting in between.

A link is told what arrived and says what is to be written; whoever has the connection moves the bytes. So sockets under
asyncio, trio and without an event loop, and any `anyio.abc.ByteStream`, share one implementation of what is spoken on
them. Links stand on each other: a WebSocket in TLS through a proxy is `ProxyLink(TlsLink(WebSocketLink(...)))`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from stt_anyio.errors import SttError
from stt_proto.types import Buffer

Sink = Callable[[Buffer], None]
"""Takes a message; what it is given is only borrowed."""


class Link(ABC):
    """One end of a connection.

    Attributes:
        open: whether messages can be sent.
        failure: what went wrong, or `None`.
        over: whether nothing more will come in or should be sent, but for what `take` still gives.
        pending: bytes that wait for `take`, more or less.
    """

    open = False
    over = False
    pending = 0
    failure: SttError | None = None

    @abstractmethod
    def start(self) -> None:
        """The connection is there: begin."""

    @abstractmethod
    def receive(self, data: Buffer, sink: Sink) -> None:
        """Take in bytes (borrowed); give the messages in them to `sink`. Never raises on what is in them."""

    @abstractmethod
    def end(self) -> None:
        """The other side sends no more."""

    @abstractmethod
    def send(self, buffers: tuple[bytes | memoryview, ...]) -> None:
        """Queue one message, made of these buffers, which nobody changes."""

    @abstractmethod
    def close(self) -> None:
        """Say goodbye, if what is spoken here has a way to."""

    @abstractmethod
    def take(self) -> list[bytes | memoryview]:
        """What is to be written now, in order."""

    def fail(self, failure: SttError) -> None:
        """Nothing will come of it any more."""
        self.failure = self.failure or failure
        self.over = True
        self.open = False


class Outlink(Link):
    """A link that writes what it says as it is.

    It queues buffers as they come; nothing is joined here.
    """

    def __init__(self) -> None:
        self._out: list[bytes | memoryview] = []

    def put(self, *buffers: bytes | memoryview) -> None:
        """Queue bytes."""
        self._out += buffers
        self.pending += sum(map(len, buffers))

    def take(self) -> list[bytes | memoryview]:
        out, self._out = self._out, []
        self.pending = 0
        return out


class MessageLink(Outlink):
    """What carries whole messages anyway: each buffer, in and out, is one."""

    def start(self) -> None:
        self.open = True

    def receive(self, data: Buffer, sink: Sink) -> None:
        if not self.over:
            sink(data)

    def end(self) -> None:
        self.over, self.open = True, False

    def send(self, buffers: tuple[bytes | memoryview, ...]) -> None:
        self.put(b"".join(buffers))

    def close(self) -> None:
        self.open = False


class Layer(Link):
    """A link around another one, which speaks inside of it."""

    def __init__(self, inner: Link) -> None:
        self.inner = inner

    @property
    def open(self) -> bool:  # type: ignore[override]
        return self.inner.open

    @property
    def over(self) -> bool:  # type: ignore[override]
        return self.inner.over

    @property
    def failure(self) -> SttError | None:  # type: ignore[override]
        return self.inner.failure

    @property
    def pending(self) -> int:  # type: ignore[override]
        return self.inner.pending

    def send(self, buffers: tuple[bytes | memoryview, ...]) -> None:
        self.inner.send(buffers)

    def fail(self, failure: SttError) -> None:
        self.inner.fail(failure)
