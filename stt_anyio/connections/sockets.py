"""Connections over non-blocking sockets, or a pair of files: the same for every host, which only waits for them."""

from __future__ import annotations

import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO

from stt_anyio.connections.connection import Connection
from stt_anyio.links import Link
from stt_proto.types import NetworkPath

READ_SIZE = 512 << 10
"""Bytes that are read at once."""
READS_PER_WAKE_UP = 4
"""Reads after which others get their turn, though there is more."""
MAX_BUFFERS = 512
"""Buffers that are written by one call; Linux takes 1,024."""


class Medium(ABC):
    """What moves bytes without waiting: `BlockingIOError` where it would have to."""

    @abstractmethod
    def read_into(self, view: memoryview) -> int:
        """Read; 0 at the end. Raises `OSError`."""

    @abstractmethod
    def write(self, buffers: list[bytes | memoryview]) -> int:
        """Write what fits of some buffers; give how many bytes that were. Raises `OSError`."""

    @abstractmethod
    def end(self) -> None:
        """Tell the other side that nothing more will come."""

    @abstractmethod
    def close(self) -> None:
        """Close it."""

    @property
    @abstractmethod
    def reads(self) -> Any:
        """What to wait for before reading: it has a `fileno`, or is one."""

    @property
    @abstractmethod
    def writes(self) -> Any:
        """What to wait for before writing, until `end`."""

    @property
    def waited(self) -> set[Any]:
        """All that may be waited for and is open still: numbers of what was closed belong to somebody else soon."""
        return {self.reads, self.writes}


class SocketMedium(Medium):
    """A connected stream socket; it belongs to this object from now on."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = sock
        self._sendmsg = getattr(sock, "sendmsg", None)

    @property
    def reads(self) -> socket.socket:
        return self.socket

    writes = reads

    def read_into(self, view: memoryview) -> int:
        return self.socket.recv_into(view)

    def write(self, buffers: list[bytes | memoryview]) -> int:
        if self._sendmsg is not None and len(buffers) > 1:
            written: int = self._sendmsg(buffers)
            return written
        return self.socket.send(buffers[0])

    def end(self) -> None:
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()


class FileMedium(Medium):
    """Two files that can be waited for, as pipes and serial lines can: to read and to write, or twice the same.

    They belong to this object from now on, and do not block any more.

    Raises:
        OSError: one cannot be made not to block.
    """

    def __init__(self, reads: BinaryIO, writes: BinaryIO) -> None:
        self._files = [reads] if writes is reads else [reads, writes]
        self._reads, self._writes = reads.fileno(), writes.fileno()
        os.set_blocking(self._reads, False)
        os.set_blocking(self._writes, False)

    @property
    def reads(self) -> int:
        return self._reads

    @property
    def writes(self) -> int:
        return self._writes

    @property
    def waited(self) -> set[int]:
        return {self._reads, self._writes} if self._writes >= 0 else {self._reads}

    def read_into(self, view: memoryview) -> int:
        return os.readv(self._reads, [view])

    def write(self, buffers: list[bytes | memoryview]) -> int:
        return os.writev(self._writes, buffers)

    def end(self) -> None:
        if self._writes not in (self._reads, -1):
            self._writes = -1  # the system gives the number to who opens the next file
            with suppress(OSError):
                self._files.pop().close()

    def close(self) -> None:
        while self._files:
            with suppress(OSError):
                self._files.pop().close()


class SocketConnection(Connection):
    """A connection whose bytes a `Medium` moves.

    Attributes:
        medium: the socket, or the files.
        blocked: whether it waits until the medium can be written to again.
        on_blocked: called when it begins to wait for that; then `go_on` is to be called, until that is True.
        on_written: called when it will not write any more, before the medium is told so.
        on_released: called before the medium is closed.
    """

    def __init__(self, link: Link, path: NetworkPath, medium: Medium, *, stranger: bool) -> None:
        super().__init__(link, path, stranger=stranger)
        self.medium = medium
        self.blocked = False
        self.on_blocked: Callable[[SocketConnection], None] = lambda connection: None
        self.on_written: Callable[[SocketConnection], None] = lambda connection: None
        self.on_released: Callable[[SocketConnection], None] = lambda connection: None
        self._unsent: list[bytes | memoryview] = []
        self._ended = False

    def read(self, view: memoryview) -> None:
        """Take in what has arrived, a bounded amount; `view` is only used meanwhile."""
        size = len(view)
        for _ in range(READS_PER_WAKE_UP):
            if self.over:
                return
            try:
                size = self.medium.read_into(view)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                self.broke(error.strerror or str(error))
                return
            if not size:
                self.take_end()
                return
            self.take_in(view[:size])
            if size < len(view):
                break
        if self.link.pending:
            self.flush()

    def flush(self) -> None:
        if not self.blocked and not self._write_out():
            self.on_blocked(self)

    def go_on(self) -> bool:
        """The medium can be written to again; whether that was enough for all that waited."""
        self.blocked = False
        return self._write_out()

    def _write_out(self) -> bool:
        """Write as much as the medium takes; whether that was all, or the connection is over.

        When room is reported the node may call `flush` again, in the middle of this; so all is in order by then.
        """
        while not self.over:
            if not self._unsent:
                self._unsent = self.link.take()
                self.unsent = sum(map(len, self._unsent))
            if not self._unsent:
                break
            try:
                self._advance(self.medium.write(self._unsent[:MAX_BUFFERS]))
            except (BlockingIOError, InterruptedError):
                self.blocked = True
                self.relieve()
                return self.over
            except OSError as error:
                self.broke(error.strerror or str(error))
        if not self.over:
            self.relieve()
            if self.leaving and not self._ended and not self.backlog:
                self._ended = True
                self.on_written(self)
                self.medium.end()
        return True

    def _advance(self, written: int) -> None:
        """So many bytes are gone."""
        self.unsent -= written
        unsent = self._unsent
        if not self.unsent:
            unsent.clear()
            return
        for index, buffer in enumerate(unsent):
            if written < len(buffer):
                if written:
                    unsent[index] = memoryview(buffer)[written:]
                del unsent[:index]
                return
            written -= len(buffer)

    def release(self) -> None:
        self.on_released(self)
        self.medium.close()
