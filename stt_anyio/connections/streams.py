"""Connections over any `anyio.abc.ByteStream`: what anyio, and others, can open."""

from __future__ import annotations

import anyio
from anyio.abc import ByteStream

from stt_anyio.connections.connection import Connection
from stt_anyio.links import Link
from stt_anyio.waiting import Bell
from stt_proto.types import NetworkPath

READ_SIZE = 256 << 10
"""Bytes that are read at once."""


class StreamConnection(Connection):
    """A connection over a byte stream, which belongs to it from now on: one task reads, one writes."""

    def __init__(self, link: Link, path: NetworkPath, stream: ByteStream, *, stranger: bool) -> None:
        super().__init__(link, path, stranger=stranger)
        self.stream = stream
        self._bell = Bell()
        self._writing = 0
        self._ended = False

    @property
    def backlog(self) -> int:
        return self.link.pending + self._writing

    def flush(self) -> None:
        self._bell.ring()

    async def run(self) -> None:
        """Move bytes until it ends."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write)
                await self._read()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.aclose_forcefully(self.stream)

    async def _read(self) -> None:
        stream, port = self.stream, self.port
        try:
            while True:
                self.take_in(await stream.receive(READ_SIZE))
                port.pump()
                if self.link.pending:
                    self.flush()
        except anyio.EndOfStream:
            self.take_end()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as error:
            self.close(_told(error))

    async def _write(self) -> None:
        stream, port = self.stream, self.port
        try:
            while not self._ended:
                buffers = self.link.take()
                if buffers:
                    data = buffers[0] if len(buffers) == 1 else b"".join(buffers)
                    self._writing = len(data)
                    await stream.send(bytes(data))
                    self._writing = 0
                    self.relieve()
                    port.pump()
                elif self.leaving:
                    self._ended = True
                    await stream.send_eof()
                else:
                    await self._bell.wait()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as error:
            self.close(_told(error))

    def release(self) -> None:
        if self.host is not None:
            self.host.cancel()


def _told(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    return (cause.strerror if isinstance(cause, OSError) else None) or str(cause) or "the connection broke"
