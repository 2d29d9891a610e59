"""A QUIC library on the work of `stt perf`: `python quic.py LIBRARY --mode MODE` prints one JSON object.

The library is qh3 or aioquic, whose modules are laid out alike; it runs in an environment of its own, without STT. The
keys mean what they mean in `stt perf --json`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import gc
import importlib
import json
import multiprocessing
import os
import ssl
import statistics
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "127.0.0.1"
NAME = "localhost"
WINDOW = 32 << 20
HANDSHAKES = 100
SESSIONS = 200
ECHOES = 2000


class Library:
    """The parts of a QUIC library that are needed here, and how it is set up."""

    def __init__(self, name: str, datagram_size: int, folder: str) -> None:
        self.aio = importlib.import_module(f"{name}.asyncio")
        self.events = importlib.import_module(f"{name}.quic.events")
        self.connection = importlib.import_module(f"{name}.quic.connection").QuicConnection
        self._configuration = importlib.import_module(f"{name}.quic.configuration").QuicConfiguration
        self._datagram_size = datagram_size
        self._certificate = Path(folder, "certificate.pem")

    def configuration(self, *, client: bool) -> Any:
        made = self._configuration(
            is_client=client,
            alpn_protocols=["bench"],
            max_datagram_size=self._datagram_size,
            max_data=WINDOW,
            max_stream_data=WINDOW,
        )
        if client:
            made.server_name, made.verify_mode = NAME, ssl.CERT_NONE
        else:
            made.load_cert_chain(self._certificate, self._certificate.with_name("key.pem"))
        return made


def write_certificate(folder: str) -> None:
    """A certificate that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    today = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(today - datetime.timedelta(1)).not_valid_after(today + datetime.timedelta(1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
    pem = serialization.Encoding.PEM
    Path(folder, "certificate.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem))
    Path(folder, "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


# -- over sockets --------------------------------------------------------------------------------------------------


def serve(options: tuple[str, int, str], mode: str, pipe: Connection) -> None:
    """The far end, in a process of its own: echoes, or counts and tells the count at the end."""
    library = Library(*options)

    class Far(library.aio.QuicConnectionProtocol):  # type: ignore[name-defined, misc]
        count = 0

        def quic_event_received(self, event: Any) -> None:
            if not isinstance(event, library.events.StreamDataReceived):
                return
            if mode == "echo":
                self._quic.send_stream_data(event.stream_id, event.data)
                self.transmit()
                return
            self.count += len(event.data)
            if event.end_stream:
                self._quic.send_stream_data(event.stream_id, b"%d" % self.count, end_stream=True)
                self.transmit()

    async def main() -> None:
        configuration = library.configuration(client=False)
        server = await library.aio.serve(HOST, 0, configuration=configuration, create_protocol=Far)
        pipe.send(server._transport.get_extra_info("sockname")[1])
        await asyncio.to_thread(pipe.recv)
        pipe.send(time.process_time())

    asyncio.run(main())


async def call(library: Library, port: int, mode: str, megabytes: int) -> dict[str, float]:
    """The near end."""
    arrived: asyncio.Queue[Any] = asyncio.Queue()

    class Near(library.aio.QuicConnectionProtocol):  # type: ignore[name-defined, misc]
        def quic_event_received(self, event: Any) -> None:
            if isinstance(event, library.events.StreamDataReceived):
                arrived.put_nowait(event)

    configuration = library.configuration(client=True)
    async with library.aio.connect(HOST, port, configuration=configuration, create_protocol=Near) as near:
        stream_id = near._quic.get_next_available_stream_id()

        def send(data: bytes, *, end: bool = False) -> None:
            near._quic.send_stream_data(stream_id, data, end_stream=end)
            near.transmit()

        if mode == "echo":
            times = []
            for _ in range(ECHOES):
                started = time.perf_counter()
                send(bytes(100))
                await arrived.get()
                times.append(time.perf_counter() - started)
            return {"echo_p50_us": statistics.median(times) * 1e6}

        data, cpu, started = os.urandom(1 << 20) * megabytes, time.process_time(), time.perf_counter()
        send(data, end=True)
        count = b""
        while not (event := await arrived.get()).end_stream:
            count += event.data
        if int(count + event.data) != len(data):
            raise SystemExit("the far end counted something else")
        return {
            "mb_per_s": len(data) / (time.perf_counter() - started) / 1e6,
            "cpu_s_sender": time.process_time() - cpu,
        }


def over_sockets(options: tuple[str, int, str], mode: str, megabytes: int) -> dict[str, float]:
    spawn = multiprocessing.get_context("spawn")
    pipe, theirs = spawn.Pipe()
    far = spawn.Process(target=serve, args=(options, mode, theirs), daemon=True)
    far.start()
    port = pipe.recv()
    figures = asyncio.run(call(Library(*options), port, mode, megabytes))
    pipe.send(None)
    pipe.recv()
    far.join(10)
    return figures


# -- in memory -----------------------------------------------------------------------------------------------------


class Pair:
    """Two ends and nothing between them."""

    def __init__(self, library: Library) -> None:
        self._data = library.events.StreamDataReceived
        self.client = library.connection(configuration=library.configuration(client=True))
        self.client.connect((HOST, 2), now=time.time())
        self.server = library.connection(
            configuration=library.configuration(client=False),
            original_destination_connection_id=self.client.original_destination_connection_id,
        )

    def move(self) -> int:
        """Carry everything once each way; how many datagrams that were."""
        now, count = time.time(), 0
        for end, other, port in ((self.client, self.server, 1), (self.server, self.client, 2)):
            for data, _ in end.datagrams_to_send(now=now):
                other.receive_datagram(data, (HOST, port), now=now)
                count += 1
        return count

    def settle(self) -> Pair:
        while self.move():
            pass
        self.received(self.client), self.received(self.server)
        return self

    def received(self, end: Any) -> int:
        """Take the events of an end; bytes of stream data in them."""
        return sum(len(event.data) for event in iter(end.next_event, None) if isinstance(event, self._data))

    def wake(self) -> None:
        """Let time pass until a timer of either end is due."""
        for end in (self.client, self.server):
            due = end.get_timer()
            if due is not None and due <= time.time():
                end.handle_timer(now=time.time())


def handshake(library: Library) -> dict[str, float]:
    Pair(library).settle()
    started = time.perf_counter()
    for _ in range(HANDSHAKES):
        Pair(library).settle()
    return {"handshake_ms": (time.perf_counter() - started) / HANDSHAKES * 1e3}


def memory(library: Library, megabytes: int) -> dict[str, float]:
    pairs = [Pair(library).settle()]
    gc.collect()
    before = resident()
    pairs += [Pair(library).settle() for _ in range(SESSIONS)]
    gc.collect()
    kib = (resident() - before) / (2 * SESSIONS) / 1024

    pair, chunk, total = pairs[0], os.urandom(1 << 20), megabytes << 20
    stream_id = pair.client.get_next_available_stream_id()
    sent = received = 0
    started = time.perf_counter()
    while received < total:
        if sent < total and sent - received < 4 << 20:
            pair.client.send_stream_data(stream_id, chunk)
            sent += len(chunk)
        if not pair.move():
            pair.wake()
        received += pair.received(pair.server)
        pair.received(pair.client)
    return {"kib_per_session": kib, "mb_per_s": received / (time.perf_counter() - started) / 1e6}


def resident() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# -- ---------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def set_up(name: str, datagram_size: int) -> Iterator[tuple[str, int, str]]:
    with tempfile.TemporaryDirectory() as folder:
        write_certificate(folder)
        yield name, datagram_size, folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", choices=("aioquic", "qh3"))
    parser.add_argument("--mode", choices=("bulk", "handshake", "echo", "memory"), required=True)
    parser.add_argument("--mb", type=int, default=64)
    parser.add_argument("--datagram-size", type=int, default=1200)
    chosen = parser.parse_args()
    with set_up(chosen.library, chosen.datagram_size) as options:
        if chosen.mode == "handshake":
            figures = handshake(Library(*options))
        elif chosen.mode == "memory":
            figures = memory(Library(*options), chosen.mb)
        else:
            figures = over_sockets(options, chosen.mode, chosen.mb)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
