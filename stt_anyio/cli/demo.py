"""`stt demo`: two nodes on this machine meet, prove who they are, talk, move a file, and change the network."""

from __future__ import annotations

import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import click
from rich import filesize

from stt_anyio.cli.transfer import receive_offer, send_file
from stt_anyio.cli.verb import ExitCode, Failure, Verb, qlog_option, run
from stt_anyio.config import NodeConfig
from stt_anyio.errors import AuthenticationError
from stt_anyio.node import STTNode
from stt_anyio.session import Session
from stt_anyio.stream import Stream
from stt_anyio.udp import UdpCarrier
from stt_proto.events import Event, HandshakeProgressed
from stt_proto.types import CloseReason, HandshakeStep, Transmit

HOST = "127.0.0.1"
TIME_LIMIT = 30.0
"""Seconds after which something is wrong."""
FILE_SIZE = 64 << 20
MESSAGES = 200
VIDEO = 16 << 20
PART = 24 << 20
"""Bytes of the transfer that are sent while one thing happens to the network."""
CUT = 0.5
"""Seconds for which the cable is out."""


@click.command(cls=Verb, short_help="Two nodes meet, talk and move a file, on this machine.")
@qlog_option
def demo(qlog_dir: str | None) -> None:
    """Show a session from its first packet to its last: two nodes, real sockets on loopback, about four seconds.

    Ends with the line "demo: ok", or with a message and exit code 1, at the latest after 30 seconds.
    """
    run(_demo, qlog_dir)
    click.echo("\ndemo: ok")


def say(title: str, text: str) -> None:
    """Begin a chapter."""
    click.echo(f"\n{click.style(title, bold=True)} {text}")


def show(who: str, text: str) -> None:
    """Tell what somebody did."""
    click.echo(f"  {who:14}{text}")


async def _demo(qlog_dir: str | None) -> None:
    with anyio.move_on_after(TIME_LIMIT) as limit:
        await _tell(qlog_dir)
    if limit.cancelled_caught:
        raise Failure(f"the demo did not end within {TIME_LIMIT:g} s", ExitCode.FAILED)


async def _tell(qlog_dir: str | None) -> None:
    passphrase = "-".join(os.urandom(2).hex() for _ in range(3))
    say("Two nodes", f"share the passphrase {passphrase}; each has an identity of its own.")
    server = Watched(shared_seed=passphrase, server_mode=True, qlog_dir=qlog_dir)
    client = Watched(shared_seed=passphrase, qlog_dir=qlog_dir)
    async with server, client:
        for who, node in (("server", server), ("client", client)):
            show(who, f"udp://{HOST}:{node.port}, node id {name(node)}...")
        session, answered = await _handshake(client, server)
        await _stranger(server)
        await _streams(session, answered)
        await _file(session, answered)
        await _journey(client, server, session, answered)
        await _close(session, answered)


class Cable(UdpCarrier):
    """UDP on a cable that can be pulled out: then all that is sent is lost.

    Attributes:
        plugged: whether it is in.
    """

    plugged = True

    def send(self, transmit: Transmit) -> Transmit | None:
        return super().send(transmit) if self.plugged else None


class Watched(STTNode):
    """A node that notes when each step of its handshake happened: at once, where `events()` tells a turn later.

    Attributes:
        cable: its network.
    """

    def __init__(self, **parameters: Any) -> None:
        self.cable = Cable(NodeConfig.from_environment(bind_address=HOST, port=0))
        super().__init__(host=HOST, port=0, carriers=[self.cable], **parameters)
        self._steps: dict[HandshakeStep, float] = {}

    def _publish(self, session: Session | None, event: Event) -> None:
        if isinstance(event, HandshakeProgressed):
            self._steps.setdefault(event.step, time.perf_counter())
        super()._publish(session, event)

    def when(self, step: HandshakeStep, started: float) -> str:
        """The name of a step, and when it happened."""
        return f"{step.name:11}{(self._steps[step] - started) * 1e3:6.2f} ms  "


def name(node: STTNode) -> str:
    """Enough of a node id to tell it from others."""
    return node.node_id.hex()[:16]


# -- what is shown, in order ---------------------------------------------------------------------------------------


async def _handshake(client: Watched, server: Watched) -> tuple[Session, Session]:
    say("Handshake", "CPace for the passphrase, X25519 and ML-KEM-768 for the keys, in four messages:")
    started = time.perf_counter()
    session = await client.connect((HOST, server.port), peer_node_id=server.node_id)
    took = time.perf_counter() - started
    answered = await server.accept()
    sent, here, there = "client sends", "client opens", "server opens"
    show(sent, client.when(HandshakeStep.HELLO, started) + "fresh key shares, and nothing that names anybody")
    show(here, client.when(HandshakeStep.CHALLENGE, started) + f"its peer holds the passphrase and is {name(server)}")
    show(there, server.when(HandshakeStep.AUTH_PROOF, started) + f"its peer holds the passphrase and is {name(client)}")
    show(here, client.when(HandshakeStep.FINAL, started) + "both have the same keys")
    if session.session_id != answered.session_id or answered.peer_node_id != client.node_id:
        raise Failure("the two sides disagree about who they are", ExitCode.FAILED)
    show("both", f"session {session.session_id.hex()}, established in {took * 1e3:.1f} ms")
    return session, answered


async def _stranger(server: STTNode) -> None:
    say("A stranger", "with another passphrase knocks, and learns nothing.")
    async with STTNode(shared_seed="a guess", host=HOST, port=0) as stranger:
        started = time.perf_counter()
        try:
            await stranger.connect((HOST, server.port))
        except AuthenticationError as error:
            show("stranger", f"refused after {(time.perf_counter() - started) * 1e3:.0f} ms: {error}")
        else:
            raise Failure("the stranger got in", ExitCode.FAILED)


async def _streams(session: Session, answered: Session) -> None:
    say("Streams", "of one session talk at once, and none waits for another.")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_chat, session)
        tasks.start_soon(_video, session)
        tasks.start_soon(_news, answered)
        tasks.start_soon(_hear_news, session)
        for _ in range(2):
            stream = await answered.accept_stream()
            tasks.start_soon(_echo if stream.purpose == "chat" else _watch, stream)


async def _chat(session: Session) -> None:
    stream, times = session.open_stream(purpose="chat"), []
    for number in range(MESSAGES):
        started = time.perf_counter()
        await stream.send(b"message %4d" % number)
        if await stream.receive() != b"MESSAGE %4d" % number:
            raise Failure("the chat was garbled", ExitCode.FAILED)
        times.append(time.perf_counter() - started)
    await stream.aclose()
    show("chat", f"{MESSAGES} messages, each answered, in {statistics.median(times) * 1e3:.2f} ms (median)")


async def _echo(stream: Stream) -> None:
    async for message in stream:
        await stream.send(message.upper())
    await stream.aclose()


async def _video(session: Session) -> None:
    stream, frame = session.open_stream(purpose="video"), os.urandom(1 << 16)
    started = time.perf_counter()
    for _ in range(VIDEO // len(frame)):
        await stream.send(frame)
    await stream.send_eof()
    await stream.flush()
    seconds = time.perf_counter() - started
    show("video", f"{filesize.decimal(VIDEO)} one way in {seconds * 1e3:.0f} ms ({VIDEO / seconds / 1e6:.0f} MB/s)")
    await stream.aclose()


async def _watch(stream: Stream) -> None:
    seen = 0
    async for frames in stream:
        seen += len(frames)
    await stream.aclose()
    if seen != VIDEO:
        raise Failure(f"{seen} bytes of {VIDEO} arrived", ExitCode.FAILED)


async def _news(answered: Session) -> None:
    stream = answered.open_stream(purpose="news", bidirectional=False)
    await stream.send(b"either side may open streams")
    await stream.aclose()


async def _hear_news(session: Session) -> None:
    stream = await session.accept_stream()
    heard = b"".join([piece async for piece in stream])
    await stream.aclose()
    show("news", f"the server opened a stream too, and said: {heard.decode()}")


async def _file(session: Session, answered: Session) -> None:
    say("A file", f"of {filesize.decimal(FILE_SIZE)} moves from one directory to another.")
    with _folders() as (original, inbox):

        async def receive() -> None:
            await (await receive_offer(await answered.accept_stream())).store(inbox)

        started = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await send_file(session, original)
        seconds = time.perf_counter() - started
        sent, received = _sha256(original), _sha256(inbox / original.name)
    show("client", f"sent      sha256 {sent}")
    show("server", f"received  sha256 {received}")
    if sent != received:
        raise Failure("the file was damaged", ExitCode.FAILED)
    show("both", f"the same, in {seconds * 1e3:.0f} ms ({FILE_SIZE / seconds / 1e6:.0f} MB/s, disk included)")


@contextmanager
def _folders() -> Iterator[tuple[Path, Path]]:
    """A file of random bytes, and a directory to receive it in."""
    with tempfile.TemporaryDirectory(prefix="stt-demo-") as folder:
        original, inbox = Path(folder, "big.bin"), Path(folder, "inbox")
        inbox.mkdir()
        with original.open("wb") as file:
            for _ in range(FILE_SIZE >> 20):
                file.write(os.urandom(1 << 20))
        yield original, inbox


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def _journey(client: Watched, server: Watched, session: Session, answered: Session) -> None:
    say("A network", "that changes under a transfer. The session stays, and so does every byte.")
    _, port = await server.listen_websocket(HOST)
    told = _Sums()

    async def to_websocket() -> None:
        await session.migrate(f"ws://{HOST}:{port}/", transport="websocket")

    async def to_udp() -> None:
        await session.migrate((HOST, server.port), transport="udp")
        for info in session.paths[1:]:
            session.remove_path(info.path)

    async def rotate() -> None:
        await session.rotate_key()

    async def cut() -> None:
        client.cable.plugged = server.cable.plugged = False
        await anyio.sleep(CUT)
        client.cable.plugged = server.cable.plugged = True

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(told.receive, answered)
        stream = session.open_stream(purpose="journey")
        await _leg(stream, told, to_websocket, lambda: f"moves from udp to {session.transport_type}")
        await _leg(stream, told, to_udp, lambda: f"moves from ws to {session.transport_type}")
        await _leg(stream, told, rotate, lambda: f"replaces its keys: version {session.key_version} now")
        await _leg(stream, told, cut, lambda: f"is cut off for {CUT:g} s, and goes on by itself")
        await stream.send_eof()
    await stream.aclose()
    show("client", f"sent      sha256 {told.sent.hexdigest()}")
    show("server", f"received  sha256 {told.received.hexdigest()}")
    if told.sent.digest() != told.received.digest():
        raise Failure("the transfer was damaged", ExitCode.FAILED)
    show("both", f"the same {filesize.decimal(told.size)}, in one session: {session.session_id.hex()}")


class _Sums:
    """What was sent and what arrived."""

    def __init__(self) -> None:
        self.sent, self.received = hashlib.sha256(), hashlib.sha256()
        self.size = 0

    async def receive(self, answered: Session) -> None:
        stream = await answered.accept_stream()
        async for piece in stream:
            self.received.update(piece)
            self.size += len(piece)
        await stream.aclose()


async def _leg(stream: Stream, told: _Sums, happen: Callable[[], Awaitable[None]], what: Callable[[], str]) -> None:
    """Send a part while something happens to the session."""
    part = os.urandom(PART)
    told.sent.update(part)
    started = time.perf_counter()
    happened = started

    async def watch() -> None:
        nonlocal happened
        await happen()
        happened = time.perf_counter()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await stream.send(part)
    took = (time.perf_counter() - started) * 1e3
    show("session", f"{what()} ({(happened - started) * 1e3:.1f} ms, {filesize.decimal(PART)} in {took:.0f} ms)")


async def _close(session: Session, answered: Session) -> None:
    say("The end", "is said, and acknowledged.")
    await session.close()
    reasons = session.close_reason, await answered.wait_closed()
    stats = session.get_stats()
    show("client", f"{stats.packets_sent} packets sent, {stats.packets_received} received, {stats.packets_lost} lost")
    show("both", f"closed: {reasons[0]} here, {reasons[1]} there")
    if set(reasons) != {CloseReason.GRACEFUL}:
        raise Failure("the session did not end gracefully", ExitCode.FAILED)
