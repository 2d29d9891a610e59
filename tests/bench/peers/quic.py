"""A QUIC library on the work of `stt perf`: qh3, aioquic or aiopquic, whose modules are laid out alike."""

from __future__ import annotations

import asyncio
import importlib
import socket
import ssl
import time
from multiprocessing.connection import Connection
from typing import Any

from common import HOST, NAME, Options, certificate, main, payload, two_processes, yardstick

WINDOW = 32 << 20
"""Bytes of receive window, of a stream and of a connection: far more than their defaults."""


class Library:
    """The parts of a QUIC library that are needed here, and how it is set up."""

    def __init__(self, options: Options) -> None:
        name = options.library
        self.aio = importlib.import_module(f"{name}.asyncio")
        self.events = importlib.import_module(f"{name}.quic.events")
        self.connection = importlib.import_module(f"{name}.quic.connection").QuicConnection
        self._configuration = importlib.import_module(f"{name}.quic.configuration").QuicConfiguration
        self._certificate = certificate(options.folder)
        self._sizes: dict[str, Any] = {"max_data": WINDOW, "max_stream_data": WINDOW}
        if name != "aiopquic":  # which finds the size of datagrams by itself
            self._sizes |= {"max_datagram_size": options.datagram_size, "max_datagram_frame_size": 65_535}

    def configuration(self, *, client: bool) -> Any:
        made = self._configuration(is_client=client, alpn_protocols=["bench"], **self._sizes)
        if client:
            made.server_name, made.verify_mode = NAME, ssl.CERT_NONE
        else:
            made.load_cert_chain(*self._certificate)
        return made

    def protocol(self) -> type[Any]:
        """The base of both ends."""
        events = self.events

        class Protocol(self.aio.QuicConnectionProtocol):
            def say(self, stream_id: int, data: bytes, end: bool = False) -> None:
                self._quic.send_stream_data(stream_id, data, end_stream=end)
                self.flush()

            def say_datagram(self, data: bytes) -> None:
                self._quic.send_datagram_frame(data)
                self.flush()

            def flush(self) -> None:
                if hasattr(self, "transmit"):  # aiopquic has a thread for it
                    self.transmit()

            def quic_event_received(self, event: Any) -> None:
                if isinstance(event, events.StreamDataReceived):
                    self.heard(event.stream_id, event.data, event.end_stream)
                elif isinstance(event, events.DatagramFrameReceived):
                    self.heard_datagram(event.data)

            def heard(self, stream_id: int, data: bytes, end: bool) -> None: ...

            def heard_datagram(self, data: bytes) -> None: ...

        return Protocol


# -- the far end ---------------------------------------------------------------------------------------------------


def far_end(options: Options, pipe: Connection) -> None:
    asyncio.run(_far_end(options, pipe))


async def _far_end(options: Options, pipe: Connection) -> None:
    library = Library(options)
    answer = b"" if options.mode == "echo" else payload(options.down)

    class Far(library.protocol()):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self.counts: dict[int, int] = {}
            self.tally = yardstick.Tally()

        def heard(self, stream_id: int, data: bytes, end: bool) -> None:
            if options.mode == "echo":
                self.say(stream_id, bytes(data))
                return
            if stream_id not in self.counts:
                self.counts[stream_id] = 0
                if answer:
                    self.say(stream_id, answer)
            self.counts[stream_id] += len(data)
            if end:
                self.say(stream_id, self.counts[stream_id].to_bytes(yardstick.COUNT_BYTES, "big"), end=True)

        def heard_datagram(self, data: bytes) -> None:
            report = self.tally.take(bytes(data))
            if report is not None:
                self.say_datagram(report)

    port = _free_port()
    server = await library.aio.serve(HOST, port, configuration=library.configuration(client=False), create_protocol=Far)
    cpu = time.process_time()
    pipe.send(port)
    await asyncio.to_thread(pipe.recv)
    pipe.send(time.process_time() - cpu)
    server.close()


def _free_port() -> int:
    """A port of the system's choice, picked beforehand: aiopquic does not tell which it got."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind((HOST, 0))
        port: int = free.getsockname()[1]
        return port


# -- the near end --------------------------------------------------------------------------------------------------


def near_end(options: Options, port: int) -> dict[str, float]:
    return asyncio.run(_near_end(options, port))


async def _near_end(options: Options, port: int) -> dict[str, float]:
    library = Library(options)

    class Near(library.protocol()):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self.answers: dict[int, tuple[Any, asyncio.Future[None]]] = {}
            self.pieces: asyncio.Queue[bytes] = asyncio.Queue()

        def heard(self, stream_id: int, data: bytes, end: bool) -> None:
            if stream_id not in self.answers:
                self.pieces.put_nowait(data)
                return
            answer, done = self.answers[stream_id]
            answer.take(bytes(data))
            if end:
                done.set_result(None)

        def heard_datagram(self, data: bytes) -> None:
            self.pieces.put_nowait(bytes(data))

    configuration = library.configuration(client=True)
    create = lambda quic, **named: Near(quic, **named)  # noqa: E731
    async with library.aio.connect(HOST, port, configuration=configuration, create_protocol=create) as near:
        return await _NEAR[options.mode](options, near)


async def _bulk(options: Options, near: Any) -> dict[str, float]:
    data = payload(options.up)
    watch, loop = yardstick.Watch(), asyncio.get_running_loop()
    for _ in range(options.streams):
        stream_id = near._quic.get_next_available_stream_id()
        near.answers[stream_id] = yardstick.Answer(options.down), loop.create_future()
        await _send(options, near, stream_id, data)
    for answer, done in near.answers.values():
        await done
        answer.check(options.up)
    return options.figures(watch)


async def _send(options: Options, near: Any, stream_id: int, data: bytes) -> None:
    """All at once, which suits them best; aiopquic takes no more than it has room for."""
    if options.library != "aiopquic":
        near.say(stream_id, data, end=True)
        return
    pieces = [data[at : at + yardstick.CHUNK] for at in range(0, len(data), yardstick.CHUNK)]
    while pieces:
        try:
            near.say(stream_id, pieces[0], end=len(pieces) == 1)
            del pieces[0]
        except BufferError:
            await asyncio.sleep(0.0005)


async def _messages(options: Options, near: Any) -> dict[str, float]:
    watch, stream_id = yardstick.Watch(), near._quic.get_next_available_stream_id()
    answer, done = near.answers[stream_id] = yardstick.Answer(0), asyncio.get_running_loop().create_future()
    for number in range(options.count):
        near.say(stream_id, yardstick.MESSAGE, end=number == options.count - 1)
        await asyncio.sleep(0)
    await done
    answer.check(options.up)
    return options.figures(watch)


async def _echo(options: Options, near: Any) -> dict[str, float]:
    stream_id, times, watch = near._quic.get_next_available_stream_id(), [], yardstick.Watch()
    for _ in range(options.count):
        started = time.perf_counter()
        near.say(stream_id, yardstick.MESSAGE)
        missing = len(yardstick.MESSAGE)
        while missing:
            missing -= len(await near.pieces.get())
        times.append(time.perf_counter() - started)
    return yardstick.echo_figures(times, watch)


async def _datagrams(options: Options, near: Any) -> dict[str, float]:
    flight, watch = yardstick.Flight(options.count), yardstick.Watch()
    while flight.arrived is None:
        while (data := flight.next()) is not None:
            near.say_datagram(data)
        try:
            flight.take(await asyncio.wait_for(near.pieces.get(), flight.PATIENCE))
        except TimeoutError:
            flight.take(None)
    return flight.figures(watch)


_NEAR = {"bulk": _bulk, "messages": _messages, "echo": _echo, "datagrams": _datagrams}


def over_sockets(options: Options) -> dict[str, float]:
    return two_processes(options, far_end, near_end)


if __name__ == "__main__":
    import quic_memory

    main(
        ("qh3", "aioquic", "aiopquic"),
        {
            **dict.fromkeys(_NEAR, over_sockets),
            "handshake": lambda options: quic_memory.handshake(Library(options), options),
            "memory": lambda options: quic_memory.memory(Library(options), options),
        },
    )
