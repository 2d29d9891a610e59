"""Messages on a byte stream, each behind its length (docs/protocol.md, P-13)."""

from __future__ import annotations

from stt_anyio.links.base import Outlink, Sink
from stt_proto.types import Buffer
from stt_proto.wire.framing import Deframer, encode_length

SHORT = 64
"""Bytes of a buffer that is cheaper to copy than to write by itself."""


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
        first = buffers[0]
        if len(first) < SHORT and len(buffers) == 2:  # header and ciphertext, as the core gives them
            self._out += encode_length(size) + first, buffers[1]
        else:
            self._out += encode_length(size), *buffers
        self.pending += size

    def close(self) -> None:
        """The end of the stream says it."""
        self.open = False
