"""Connections over any `anyio.abc.ByteStream`: what anyio, and others, can open."""

from __future__ import annotations

from abc import abstractmethod

import anyio
from anyio.abc import ByteStream

from stt_anyio.connections.connection import FAREWELL, Connection
from stt_anyio.links import Link
from stt_anyio.waiting import Bell
from stt_proto.types import NetworkPath

READ_SIZE = 256 << 10
"""Bytes that are read at once."""
BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)
"""What a connection that breaks raises."""


class TaskConnection(Connection):
    """A connection whose bytes two tasks move, one in each direction."""

    def __init__(self, link: Link, path: NetworkPath, *, stranger: bool) -> None:
        super().__init__(link, path, stranger=stranger)
        self._bell = Bell()
        self._writing = 0

    @property
    def backlog(self) -> int:
        return self.link.pending + self._writing

    def flush(self) -> None:
        self._bell.ring()

    def release(self) -> None:
        if self.host is not None:
            self.host.cancel()

    async def run(self) -> None:
        """Move bytes until it ends."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write)
                try:
                    await self.read()
                except BROKEN as error:
                    self.close(_told(error))
        finally:
            with anyio.move_on_after(FAREWELL, shield=True):
                await self.abandon()

    async def _write(self) -> None:
        try:
            while True:
                buffers = self.link.take()
                if buffers:
                    self._writing = sum(map(len, buffers))
                    await self.write(buffers)
                    self._writing = 0
                    self.relieve()
                    self.port.pump()
                elif self.leaving:
                    await self.write_end()
                    return
                else:
                    await self._bell.wait()
        except BROKEN as error:
            self.close(_told(error))

    @abstractmethod
    async def read(self) -> None:
        """Take in what arrives, until it ends."""

    @abstractmethod
    async def write(self, buffers: list[bytes | memoryview]) -> None:
        """Write all of this."""

    @abstractmethod
    async def write_end(self) -> None:
        """Tell the other side that nothing more will come."""

    @abstractmethod
    async def abandon(self) -> None:
        """Give back what was opened, without waiting for anybody."""


class StreamConnection(TaskConnection):
    """A connection over a byte stream, which belongs to it from now on."""

    def __init__(self, link: Link, path: NetworkPath, stream: ByteStream, *, stranger: bool) -> None:
        super().__init__(link, path, stranger=stranger)
        self._stream = stream

    async def read(self) -> None:
        receive, port = self._stream.receive, self.port
        try:
            while True:
                self.take_in(await receive(READ_SIZE))
                port.pump()
                if self.link.pending:
                    self.flush()
        except anyio.EndOfStream:
            self.take_end()

    async def write(self, buffers: list[bytes | memoryview]) -> None:
        await self._stream.send(b"".join(buffers))

    async def write_end(self) -> None:
        try:
            await self._stream.send_eof()
        except NotImplementedError:  # TLS cannot end one direction alone
            await anyio.aclose_forcefully(self._stream)

    async def abandon(self) -> None:
        await anyio.aclose_forcefully(self._stream)


def _told(error: Exception) -> str:
    """Why it broke, in words."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    return (cause.strerror if isinstance(cause, OSError) else None) or str(cause) or "the connection broke"
