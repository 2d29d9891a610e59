"""Messages on a byte stream, each behind its length (docs/protocol.md, P-13)."""

from __future__ import annotations

from stt_anyio.links.base import Outlink, Sink
from stt_proto.types import Buffer
from stt_proto.wire.framing import Deframer, encode_length


class FramedLink(Outlink):
    """TCP, Unix sockets, pipes, serial lines."""

    def __init__(self) -> None:
        super().__init__()
        self._deframer = Deframer()

    def start(self) -> None:
        self.open = True

    def receive(self, data: Buffer, sink: Sink) -> None:
        deframer = self._deframer
        for message in deframer.feed(data):
            sink(message)
        if deframer.failure is not None:
            self.fail(deframer.failure)

    def end(self) -> None:
        self._deframer.end()
        if self._deframer.failure is not None:
            self.fail(self._deframer.failure)
        self.over, self.open = True, False

    def send(self, buffers: tuple[bytes | memoryview, ...]) -> None:
        size = sum(map(len, buffers))
        first, *rest = buffers
        if len(first) < 64:  # a header: one short buffer is cheaper to write than two
            self._out.append(encode_length(size) + first)
        else:
            self._out += encode_length(size), first
        self._out += rest
        self._pending += size

    def close(self) -> None:
        """The end of the stream says it."""
        self.open = False
