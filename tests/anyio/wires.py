"""What tests put between two nodes, or in the place of one: pipes, cables that can be cut, proxies, HTTP servers."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import ByteStream, SocketAttribute, SocketStream

LOOPBACK = "127.0.0.1"


class PipeStream(ByteStream):
    """One end of two pipes."""

    def __init__(self, reads: int, writes: int) -> None:
        self._reads, self._writes = reads, writes
        os.set_blocking(reads, False)
        os.set_blocking(writes, False)

    @classmethod
    def pair(cls) -> tuple[PipeStream, PipeStream]:
        (r1, w1), (r2, w2) = os.pipe(), os.pipe()
        return cls(r1, w2), cls(r2, w1)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await anyio.wait_readable(self._reads)
        data = os.read(self._reads, max_bytes)
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(self, item: bytes) -> None:
        rest = memoryview(item)
        while rest:
            await anyio.wait_writable(self._writes)
            try:
                rest = rest[os.write(self._writes, rest) :]
            except BrokenPipeError as error:
                raise anyio.BrokenResourceError from error

    async def send_eof(self) -> None:
        if self._writes >= 0:
            anyio.notify_closing(self._writes)
            os.close(self._writes)
            self._writes = -1

    async def aclose(self) -> None:
        await self.send_eof()
        if self._reads >= 0:
            anyio.notify_closing(self._reads)
            os.close(self._reads)
            self._reads = -1


@asynccontextmanager
async def serving(handle: Callable[[SocketStream], Any]) -> AsyncIterator[int]:
    """A TCP server on loopback, for as long as the block lasts; the port."""
    listener = await anyio.create_tcp_listener(local_host=LOOPBACK)

    async def contained(stream: SocketStream) -> None:
        async with stream:
            try:
                await handle(stream)
            except* (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, contained)
        yield listener.extra(SocketAttribute.local_port)
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[int]:
    """A server that gives everybody the same answer once they have asked for something; the port."""

    async def handle(stream: SocketStream) -> None:
        await stream.receive()
        await stream.send(answer)

    async with serving(handle) as port:
        yield port


async def pump(source: ByteStream, target: ByteStream, taps: list[bytes] | None = None) -> None:
    async for data in source:
        if taps is not None:
            taps.append(data)
        await target.send(data)
    await target.send_eof()


class Cable:
    """A TCP relay that can stall, or be cut."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._scopes: list[anyio.CancelScope] = []
        self._running = anyio.Event()
        self._running.set()

    async def handle(self, stream: SocketStream) -> None:
        with anyio.CancelScope() as scope:
            self._scopes.append(scope)
            async with await anyio.connect_tcp(LOOPBACK, self._to) as other, anyio.create_task_group() as tasks:
                tasks.start_soon(self._pump, stream, other)
                tasks.start_soon(self._pump, other, stream)

    async def _pump(self, source: ByteStream, target: ByteStream) -> None:
        async for data in source:
            await self._running.wait()
            await target.send(data)
        await target.send_eof()

    def stall(self) -> None:
        self._running = anyio.Event()

    def go_on(self) -> None:
        self._running.set()

    def cut(self) -> None:
        for scope in self._scopes:
            scope.cancel()


class HttpProxy:
    """A proxy that knows CONNECT and, if it was given one, a password."""

    def __init__(self, credentials: str | None = None, refusal: bytes | None = None) -> None:
        self._credentials = credentials
        self._refusal = refusal
        self.asked: list[bytes] = []

    async def handle(self, stream: SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive()
        self.asked.append(head)
        line, *headers = head.split(b"\r\n")
        if self._refusal is not None:
            await stream.send(self._refusal)
            return
        if self._credentials is not None:
            wanted = b"Proxy-Authorization: Basic " + base64.b64encode(self._credentials.encode())
            if wanted not in headers:
                await stream.send(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
        host, _, port = line.split(b" ")[1].decode().rpartition(":")
        async with await anyio.connect_tcp(host, int(port)) as other, anyio.create_task_group() as tasks:
            await stream.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            tasks.start_soon(pump, stream, other)
            tasks.start_soon(pump, other, stream)
