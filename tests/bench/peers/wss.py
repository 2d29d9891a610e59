"""The `websockets` library with TLS, on the work of `stt perf`: one connection, which stands for one stream."""

from __future__ import annotations

import asyncio
import ssl
import time
from multiprocessing.connection import Connection
from typing import Any

import websockets
from common import HOST, NAME, Options, certificate, main, payload, two_processes, yardstick

MESSAGE = 1 << 16
"""Bytes in a message of bulk."""
SETTINGS: dict[str, Any] = {"max_size": None, "compression": None}


def far_end(options: Options, pipe: Connection) -> None:
    asyncio.run(_far_end(options, pipe))


async def _far_end(options: Options, pipe: Connection) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(options.folder))
    piece = payload(MESSAGE)

    async def serve(socket: Any) -> None:
        if options.mode == "echo":
            async for data in socket:
                await socket.send(data)
            return
        sending = asyncio.create_task(_send(socket, options.down, piece))
        count = await _receive(socket, options.up)
        await sending
        await socket.send(count.to_bytes(yardstick.COUNT_BYTES, "big"))

    async with websockets.serve(serve, HOST, 0, ssl=context, **SETTINGS) as server:
        cpu = time.process_time()
        pipe.send(next(iter(server.sockets)).getsockname()[1])
        await asyncio.to_thread(pipe.recv)
        pipe.send(time.process_time() - cpu)


def near_end(options: Options, port: int) -> dict[str, float]:
    return asyncio.run(_near_end(options, port))


async def _near_end(options: Options, port: int) -> dict[str, float]:
    context = ssl.create_default_context(cafile=certificate(options.folder)[0])
    async with websockets.connect(f"wss://{NAME}:{port}", host=HOST, ssl=context, proxy=None, **SETTINGS) as socket:
        return await (_echo if options.mode == "echo" else _move)(options, socket)


async def _move(options: Options, socket: Any) -> dict[str, float]:
    piece = yardstick.MESSAGE if options.mode == "messages" else payload(MESSAGE)
    answer, watch = yardstick.Answer(options.down), yardstick.Watch()
    sending = asyncio.create_task(_send(socket, options.up, piece))
    await _receive(socket, options.down + yardstick.COUNT_BYTES, answer)
    await sending
    answer.check(options.up)
    return options.figures(watch)


async def _send(socket: Any, total: int, piece: bytes) -> None:
    for at in range(0, total, len(piece)):
        await socket.send(piece if total - at >= len(piece) else piece[: total - at])


async def _receive(socket: Any, total: int, answer: yardstick.Answer | None = None) -> int:
    count = 0
    while count < total:
        data = await socket.recv()
        count += len(data)
        if answer is not None:
            answer.take(data)
    return count


async def _echo(options: Options, socket: Any) -> dict[str, float]:
    times, watch = [], yardstick.Watch()
    for _ in range(options.count):
        started = time.perf_counter()
        await socket.send(yardstick.MESSAGE)
        await socket.recv()
        times.append(time.perf_counter() - started)
    return yardstick.echo_figures(times, watch)


def over_sockets(options: Options) -> dict[str, float]:
    if options.streams != 1:
        raise SystemExit("a WebSocket is one stream")
    return two_processes(options, far_end, near_end)


if __name__ == "__main__":
    main(("wss",), dict.fromkeys(("bulk", "echo", "messages"), over_sockets))
