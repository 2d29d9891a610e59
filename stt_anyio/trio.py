"""A stream for programs written against trio itself: `trio.abc.HalfCloseableStream` over ours.

    session = await node.connect_udp(host, port)
    stream = TrioStream(session.open_stream())

It goes wherever a trio stream goes: into `trio.SSLStream`, hypercorn, h11 or a protocol of your own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import trio
from trio.abc import HalfCloseableStream

from stt_anyio.errors import SttError, mixed
from stt_anyio.stream import Stream

RECEIVE_SIZE = 65_536
"""Bytes that `receive_some` gives at most when it is not told."""


class TrioStream(HalfCloseableStream):
    """One of our streams, with trio's names and trio's errors.

    What it raises is trio's `ClosedResourceError`, `BrokenResourceError` or `BusyResourceError`, and, as everywhere,
    also ours: `StreamClosedError` with its `stream_code`, `SessionClosedError` with its `reason`.

    Attributes:
        stream: the stream underneath, for what trio has no name for: `flush`, `reset`, `stop`, timeouts.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send; returns when all is in the send buffer."""
        with _trios_errors():
            await self.stream.send(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room in the send buffer."""
        with _trios_errors():
            await self.stream.wait_writable()

    async def send_eof(self) -> None:
        """End the sending direction."""
        with _trios_errors():
            await self.stream.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive 1 to `max_bytes` bytes; `b""` when the peer has ended its direction."""
        with _trios_errors():
            try:
                return await self.stream.receive(RECEIVE_SIZE if max_bytes is None else max_bytes)
            except anyio.EndOfStream:
                return b""

    async def aclose(self) -> None:
        """End both directions; in a cancelled scope, reset."""
        await self.stream.aclose()


@contextmanager
def _trios_errors() -> Iterator[None]:
    try:
        yield
    except anyio.BusyResourceError as error:
        raise trio.BusyResourceError(*error.args) from None
    except anyio.ClosedResourceError as error:
        raise _also(error, trio.ClosedResourceError) from None
    except anyio.BrokenResourceError as error:
        raise _also(error, trio.BrokenResourceError) from None


def _also(error: Exception, trios: type[Exception]) -> Exception:
    return mixed(error, trios) if isinstance(error, SttError) else trios(*error.args)
