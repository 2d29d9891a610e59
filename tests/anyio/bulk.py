"""The same work on each of the three hosts: bytes both ways at once over one stream, and their hashes.

`run_server` and `run_client` are whole programs that end by themselves; `End` runs either in a process of its own, and
so does `python -m tests.anyio.bulk` wherever a test starts it.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from random import Random
from types import TracebackType
from typing import Any

import anyio
from attrs import asdict, frozen

from stt_anyio import BlockingNode, BlockingSession, BlockingStream, Session, Stream, STTNode

HOSTS = ("asyncio", "trio", "blocking")
LOOPBACK = "127.0.0.1"
CHUNK = 1 << 16

Address = tuple[str, int]


@frozen
class Job:
    """What both ends do.

    Attributes:
        size: bytes each way.
        seconds: that all of it may take.
        seed: of the data.
        bind: the address that either binds.
        datagram_size: as of a `NodeConfig`; on loopback, if it is not told, up to 65,507 bytes are found to work.
    """

    size: int
    seconds: float
    seed: int = 1
    bind: str = LOOPBACK
    datagram_size: int | None = None

    @property
    def node(self) -> dict[str, Any]:
        """Parameters of either node: as patient as the job is long, since a shared machine may stand still a while."""
        return {
            "shared_seed": "a seed for tests",
            "host": self.bind,
            "handshake_timeout": min(60.0, self.seconds),
            "datagram_size": self.datagram_size,
        }

    def data(self, role: str) -> bytes:
        """What one side sends."""
        return Random(f"{self.seed} {role}").randbytes(self.size)

    def sha256(self, role: str) -> str:
        """Of what one side sends."""
        return hashlib.sha256(self.data(role)).hexdigest()


@frozen
class Result:
    """What one end saw.

    Attributes:
        sha256: of what it received.
        seconds: from the first byte sent to the last received.
        packets_sent: packets sealed.
        packets_lost: those of them that it declared lost.
        receive_errors: datagrams that it dropped: damaged, replayed, forged.
        mtu: bytes of the largest datagram that it sent, when a quarter had come and when all had.
        black_holes: how often large ones had vanished.
        reason: why the session ended.
    """

    sha256: str
    seconds: float
    packets_sent: int
    packets_lost: int
    receive_errors: int
    mtu: tuple[int, int]
    black_holes: int
    reason: str


class Taking:
    """What comes to one end, and what it has to tell of that.

    Args:
        session: over which it comes.
        job: of which it is a part.
    """

    def __init__(self, session: Session | BlockingSession, job: Job) -> None:
        self._session = session
        self._quarter = job.size // 4
        self._started, self._digest = time.perf_counter(), hashlib.sha256()
        self._size = 0
        self._mtu = self._black_holes = self._late_mtu = 0
        self._seconds = 0.0

    def take(self, piece: bytes) -> None:
        self._digest.update(piece)
        self._size += len(piece)
        if not self._mtu and self._size >= self._quarter:
            self._mtu = self._session.get_stats().mtu

    def end(self) -> None:
        """All of it has come."""
        self._seconds = time.perf_counter() - self._started
        stats = self._session.get_stats()
        self._late_mtu, self._black_holes = stats.mtu, stats.mtu_black_holes

    def result(self) -> Result:
        """What is to be told once the session is over."""
        stats, reason = self._session.get_stats(), self._session.close_reason
        assert reason is not None
        return Result(
            sha256=self._digest.hexdigest(),
            seconds=self._seconds,
            packets_sent=stats.packets_sent,
            packets_lost=stats.packets_lost,
            receive_errors=stats.receive_errors,
            mtu=(self._mtu, self._late_mtu),
            black_holes=self._black_holes,
            reason=reason,
        )


# -- asyncio and trio ----------------------------------------------------------------------------------------------


async def serve(job: Job, announce: Callable[[int], None]) -> Result:
    """Be the side that is dialled; its port goes to `announce`."""
    with anyio.fail_after(job.seconds):
        async with STTNode(server_mode=True, **job.node) as node:
            announce(node.port)
            session = await node.accept()
            taking = Taking(session, job)
            await _exchange(await session.accept_stream(), job.data("server"), taking)
            await session.wait_closed()
            return taking.result()


async def dial(job: Job, address: Address) -> Result:
    """Be the side that dials, and that closes when everything is delivered both ways."""
    with anyio.fail_after(job.seconds):
        async with STTNode(**job.node) as node:
            session = await node.connect(address, timeout=None)
            stream, taking = session.open_stream(), Taking(session, job)
            await _exchange(stream, job.data("client"), taking)
            await stream.flush()
            await session.close()
            return taking.result()


async def _exchange(stream: Stream, data: bytes, taking: Taking) -> None:
    async def send() -> None:
        for at in range(0, len(data), CHUNK):
            await stream.send(data[at : at + CHUNK])
        await stream.send_eof()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        async for piece in stream:
            taking.take(piece)
    taking.end()


# -- blocking ------------------------------------------------------------------------------------------------------


def serve_blocking(job: Job, announce: Callable[[int], None]) -> Result:
    """`serve` without an event loop: a thread for each direction."""
    with BlockingNode(server_mode=True, **job.node) as node:
        announce(node.port)
        session = node.accept(timeout=job.seconds)
        stream, taking = session.accept_stream(timeout=job.seconds), Taking(session, job)
        _exchange_blocking(session, stream, job, "server", taking)
        session.wait_closed(timeout=job.seconds)
        return taking.result()


def dial_blocking(job: Job, address: Address) -> Result:
    """`dial` without an event loop: a thread for each direction."""
    with BlockingNode(**job.node) as node:
        session = node.connect(address, timeout=job.seconds)
        stream, taking = session.open_stream(), Taking(session, job)
        _exchange_blocking(session, stream, job, "client", taking)
        stream.flush(timeout=job.seconds)
        session.close(timeout=job.seconds)
        return taking.result()


def _exchange_blocking(session: BlockingSession, stream: BlockingStream, job: Job, role: str, taking: Taking) -> None:
    data = job.data(role)

    def send() -> None:
        for at in range(0, len(data), CHUNK):
            stream.send(data[at : at + CHUNK])
        stream.send_eof()

    with ThreadPoolExecutor(1) as threads:
        sending = threads.submit(send)
        try:
            while piece := stream.receive(timeout=job.seconds):
                taking.take(piece)
            taking.end()
            sending.result(job.seconds)
        except BaseException:
            session.abort()  # so that the other thread ends too
            raise


# -- any host ------------------------------------------------------------------------------------------------------


def run_server(host: str, job: Job, announce: Callable[[int], None]) -> Result:
    """`serve` on one of `HOSTS`."""
    if host == "blocking":
        return serve_blocking(job, announce)
    return anyio.run(serve, job, announce, backend=host)


def run_client(host: str, job: Job, address: Address) -> Result:
    """`dial` on one of `HOSTS`."""
    if host == "blocking":
        return dial_blocking(job, address)
    return anyio.run(dial, job, address, backend=host)


class End:
    """One side, in a process of its own that does not outlive the block.

    Args:
        host: one of `HOSTS`.
        job: what to do.
        address: whom to dial; the side that is dialled when `None`.
    """

    def __init__(self, host: str, job: Job, address: Address | None = None) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._patience = 2 * job.seconds
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_run_end, args=(host, job, address, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def told(self) -> Any:
        """The next thing that it has to tell: its port if it is dialled, at last its `Result`."""
        assert self._pipe.poll(self._patience), "it had nothing to tell"
        told = self._pipe.recv()
        if isinstance(told, BaseException):
            raise told
        return told

    def __enter__(self) -> End:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pipe.close()
        if kind is None:
            self._process.join(10)
        self._process.kill()
        self._process.join()
        self._process.close()


def _run_end(host: str, job: Job, address: Address | None, pipe: Connection) -> None:
    try:
        pipe.send(run_server(host, job, pipe.send) if address is None else run_client(host, job, address))
    except Exception as error:
        pipe.send(RuntimeError(f"{'server' if address is None else 'client'} on {host}: {error!r}"))


def main(text: str) -> None:
    """One end, told by JSON what to do; it prints its port if it is dialled, and then its result, a line each."""
    words = json.loads(text)
    host, job, address = words["host"], Job(**words["job"]), words["address"]

    def say(value: Any) -> None:
        sys.stdout.write(json.dumps(value) + "\n")
        sys.stdout.flush()

    say(asdict(run_server(host, job, say) if address is None else run_client(host, job, tuple(address))))


if __name__ == "__main__":
    main(sys.argv[1])
