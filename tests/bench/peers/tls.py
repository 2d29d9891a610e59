"""asyncio's streams with TLS over TCP, on the work of `stt perf`: one connection, which stands for one stream."""

from __future__ import annotations

import asyncio
import ssl
import time
from multiprocessing.connection import Connection

from common import HOST, NAME, Options, certificate, main, payload, two_processes, yardstick

READ = 1 << 18


def far_end(options: Options, pipe: Connection) -> None:
    asyncio.run(_far_end(options, pipe))


async def _far_end(options: Options, pipe: Connection) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(options.folder))
    piece = payload(yardstick.CHUNK)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if options.mode == "echo":
            while data := await reader.read(READ):
                writer.write(data)
                await writer.drain()
        else:
            sending = asyncio.create_task(_send(writer, options.down, piece))
            count = await _receive(reader, options.up)
            await sending
            writer.write(count.to_bytes(yardstick.COUNT_BYTES, "big"))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0, ssl=context, limit=READ)
    cpu = time.process_time()
    pipe.send(server.sockets[0].getsockname()[1])
    await asyncio.to_thread(pipe.recv)
    pipe.send(time.process_time() - cpu)


def near_end(options: Options, port: int) -> dict[str, float]:
    return asyncio.run(_near_end(options, port))


async def _near_end(options: Options, port: int) -> dict[str, float]:
    context = ssl.create_default_context(cafile=certificate(options.folder)[0])
    reader, writer = await asyncio.open_connection(HOST, port, ssl=context, server_hostname=NAME, limit=READ)
    try:
        return await (_echo if options.mode == "echo" else _move)(options, reader, writer)
    finally:
        writer.close()


async def _move(options: Options, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> dict[str, float]:
    piece = yardstick.MESSAGE if options.mode == "messages" else payload(yardstick.CHUNK)
    answer, watch = yardstick.Answer(options.down), yardstick.Watch()
    sending = asyncio.create_task(_send(writer, options.up, piece))
    await _receive(reader, options.down + yardstick.COUNT_BYTES, answer)
    await sending
    answer.check(options.up)
    return options.figures(watch)


async def _send(writer: asyncio.StreamWriter, total: int, piece: bytes) -> None:
    for at in range(0, total, len(piece)):
        writer.write(piece if total - at >= len(piece) else piece[: total - at])
        await writer.drain()


async def _receive(reader: asyncio.StreamReader, total: int, answer: yardstick.Answer | None = None) -> int:
    count = 0
    while count < total and (data := await reader.read(READ)):
        count += len(data)
        if answer is not None:
            answer.take(data)
    return count


async def _echo(options: Options, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> dict[str, float]:
    times, watch = [], yardstick.Watch()
    for _ in range(options.count):
        started = time.perf_counter()
        writer.write(yardstick.MESSAGE)
        await reader.readexactly(len(yardstick.MESSAGE))
        times.append(time.perf_counter() - started)
    return yardstick.echo_figures(times, watch)


def over_sockets(options: Options) -> dict[str, float]:
    if options.streams != 1:
        raise SystemExit("a TCP connection is one stream")
    return two_processes(options, far_end, near_end)


if __name__ == "__main__":
    main(("tls",), dict.fromkeys(("bulk", "echo", "messages"), over_sockets))
