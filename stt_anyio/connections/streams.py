"""Connections over any `anyio.abc.ByteStream`: what anyio, and others, can open."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import ByteStream

from stt_anyio.connections.connection import FAREWELL, Connection
from stt_anyio.links import Link
from stt_anyio.waiting import Bell, as_failure, is_failure
from stt_proto.types import NetworkPath

_logger = logging.getLogger("stt.connections")

READ_SIZE = 256 << 10
"""Bytes that are read at once."""


class TaskConnection(Connection):
    """A connection whose bytes two tasks move, one in each direction."""

    def __init__(self, link: Link, path: NetworkPath, *, stranger: bool) -> None:
        super().__init__(link, path, stranger=stranger)
        self._bell = Bell()

    def flush(self) -> None:
        self._bell.ring()

    def release(self) -> None:
        if self.host is not None:
            self.host.cancel()

    async def run(self) -> None:
        """Move bytes until it ends. Whatever is raised by who moves them ends this connection and nothing else."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write)
                await self._read()
        finally:
            with anyio.move_on_after(FAREWELL, shield=True):
                await close_stream(self.abandon)

    async def _read(self) -> None:
        port = self.port
        while True:
            try:
                data = await self.receive()
            except BaseException as error:
                self._on_failed(error)
                return
            if data is None:
                self.take_end()
                return
            self.take_in(data)
            port.pump()
            if self.link.pending:
                self.flush()

    async def _write(self) -> None:
        while not self.over:
            buffers = self.link.take()
            if not (buffers or self.leaving):
                await self._bell.wait()
                continue
            self.unsent = sum(map(len, buffers))
            try:
                if not buffers:
                    await self.write_end()
                    return
                await self.write(buffers)
            except BaseException as error:
                self._on_failed(error)
                return
            self.unsent = 0
            self.relieve()
            self.port.pump()

    def _on_failed(self, error: BaseException) -> None:
        if not is_failure(error):
            raise error
        self.broke(_told(as_failure(error)))

    @abstractmethod
    async def receive(self) -> bytes | None:
        """Wait for what arrives next; `None` at the end."""

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

    async def receive(self) -> bytes | None:
        try:
            return await self._stream.receive(READ_SIZE)
        except anyio.EndOfStream:
            return None

    async def write(self, buffers: list[bytes | memoryview]) -> None:
        await self._stream.send(b"".join(buffers))

    async def write_end(self) -> None:
        try:
            await self._stream.send_eof()
        except NotImplementedError:  # TLS cannot end one direction alone
            await anyio.aclose_forcefully(self._stream)

    async def abandon(self) -> None:
        await anyio.aclose_forcefully(self._stream)


async def close_stream(close: Callable[[], Awaitable[None]]) -> None:
    """Close what belongs to somebody else; that this fails is logged, and no reason to do anything."""
    try:
        await close()
    except BaseException as error:
        if not is_failure(error):
            raise
        _logger.warning("a stream could not be closed: %s", _told(as_failure(error)))


def _told(error: Exception) -> str:
    """Why it broke, in words."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    return (cause.strerror if isinstance(cause, OSError) else None) or str(cause) or "the connection broke"
