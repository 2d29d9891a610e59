"""The ends of a measurement under asyncio and trio. `without_loop.py` is the same for programs that block."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping

import anyio

from stt_anyio.cli.perf.reach import listening, where
from stt_anyio.cli.perf.work import Work
from stt_anyio.cli.perf.yardstick import (
    COUNT_BYTES,
    MESSAGE,
    Answer,
    Flight,
    Tally,
    Watch,
    echo_figures,
    idle_figures,
)
from stt_anyio.errors import SessionClosedError
from stt_anyio.memory import MemoryNetwork
from stt_anyio.node import STTNode
from stt_anyio.session import Session
from stt_anyio.stream import Stream

DIALS_AT_ONCE = 16


def near(work: Work, port: int) -> dict[str, float]:
    """Dial, do the work, and give the figures."""
    return anyio.run(_near, work, port, backend=work.backend)


def far(work: Work, tell: Callable[[object], None]) -> None:
    """Wait for who dials, and do the work; tell the port, and at last the seconds of CPU that it took."""
    anyio.run(_far, work, tell, backend=work.backend)


async def _near(work: Work, port: int) -> dict[str, float]:
    async with STTNode(**work.node) as node, await _dial(work, node, port) as session:
        return await _NEAR[work.mode](work, node, session)


async def _dial(work: Work, node: STTNode, port: int) -> Session:
    address, transport = where(work, port)
    return await node.connect(address, transport=transport)


async def _far(work: Work, tell: Callable[[object], None]) -> None:
    async with STTNode(server_mode=True, **work.node) as node:
        bound = listening(work, node.listen_tcp, node.listen_websocket)
        tell(node.port if bound is None else (await bound)[1])
        session, watch = await node.accept(), Watch()
        await _FAR[work.mode](work, session, watch)
        tell(watch.cpu())
        await session.wait_closed()


def both(work: Work) -> dict[str, float]:
    """Both ends in this process, with nothing but memory between them; all of the CPU counts as the near end's."""
    figures = anyio.run(_both, work, backend=work.backend)
    return {**figures, "cpu_s_far": 0.0}


async def _both(work: Work) -> dict[str, float]:
    network, figures = MemoryNetwork(), {}
    far_end, near_end = network.carrier("far"), network.carrier("near")

    async def far(node: STTNode) -> None:
        session = await node.accept()
        await _FAR[work.mode](work, session, Watch())
        await session.wait_closed()

    async with (
        STTNode(server_mode=True, carriers=[far_end], **work.node) as there,
        STTNode(carriers=[near_end], **work.node) as here,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(far, there)
        async with await here.connect("far") as session:
            figures = await _NEAR[work.mode](work, here, session)
    return figures


# -- bulk and messages: streams that are written, read and counted -------------------------------------------------


async def _near_moving(work: Work, node: STTNode, session: Session) -> dict[str, float]:
    data, watch = work.piece(), Watch()
    async with anyio.create_task_group() as tasks:
        for _ in range(work.streams):
            tasks.start_soon(_ask, work, session.open_stream(), data)
    return work.figures(watch)


async def _ask(work: Work, stream: Stream, data: bytes) -> None:
    answer = Answer(work.down)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_send, stream, data, work.up, True)
        async for piece in stream:
            answer.take(piece)
    answer.check(work.up)


async def _far_moving(work: Work, session: Session, watch: Watch) -> None:
    data = work.piece()
    async with anyio.create_task_group() as tasks:
        for _ in range(work.streams):
            tasks.start_soon(_answer, work, await session.accept_stream(), data)


async def _answer(work: Work, stream: Stream, data: bytes) -> None:
    count = 0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_send, stream, data, work.down, False)
        async for piece in stream:
            count += len(piece)
    await stream.send(count.to_bytes(COUNT_BYTES))
    await stream.aclose()


async def _send(stream: Stream, data: bytes, total: int, end: bool) -> None:
    for _ in range(total // len(data)):
        await stream.send(data)
    if total % len(data):
        await stream.send(data[: total % len(data)])
    if end:
        await stream.send_eof()


# -- echo ----------------------------------------------------------------------------------------------------------


async def _near_echo(work: Work, node: STTNode, session: Session) -> dict[str, float]:
    stream, times, watch = session.open_stream(), [], Watch()
    for _ in range(work.count):
        started = time.perf_counter()
        await stream.send(MESSAGE)
        missing = len(MESSAGE)
        while missing:
            missing -= len(await stream.receive(missing))
        times.append(time.perf_counter() - started)
    await stream.send_eof()
    return echo_figures(times, watch)


async def _far_echo(work: Work, session: Session, watch: Watch) -> None:
    async with await session.accept_stream() as stream:
        async for message in stream:
            await stream.send(message)


# -- datagrams -----------------------------------------------------------------------------------------------------


async def _near_datagrams(work: Work, node: STTNode, session: Session) -> dict[str, float]:
    flight, watch = Flight(work.count), Watch()
    while flight.arrived is None:
        while (data := flight.next()) is not None:
            session.send_datagram(data)
        report = None
        with anyio.move_on_after(Flight.PATIENCE):
            report = await session.receive_datagram()
        flight.take(report)
    return flight.figures(watch)


async def _far_datagrams(work: Work, session: Session, watch: Watch) -> None:
    tally = Tally()
    try:
        while True:
            report = tally.take(await session.receive_datagram())
            if report is not None:
                session.send_datagram(report)
    except SessionClosedError:
        pass


# -- idle ----------------------------------------------------------------------------------------------------------


async def _near_idle(work: Work, node: STTNode, session: Session) -> dict[str, float]:
    sessions, places = [session], anyio.CapacityLimiter(DIALS_AT_ONCE)

    async def dial() -> None:
        async with places:
            if work.carrier == "memory":
                sessions.append(await node.connect(session.peer_addr))
            else:
                sessions.append(await _dial(work, node, session.peer_addr[1]))

    async with anyio.create_task_group() as tasks:
        for _ in range(work.sessions - 1):
            tasks.start_soon(dial)
    stream = session.open_stream()
    await stream.send(b"now")
    watch = Watch()
    await anyio.sleep(work.seconds)
    figures = idle_figures(sum(each.is_active() for each in sessions), work.sessions, watch)
    await stream.send_eof()
    return figures


async def _far_idle(work: Work, session: Session, watch: Watch) -> None:
    async for _ in await session.accept_stream():
        watch.restart()


_NEAR: Mapping[str, Callable[[Work, STTNode, Session], Awaitable[dict[str, float]]]] = {
    "bulk": _near_moving,
    "messages": _near_moving,
    "echo": _near_echo,
    "datagrams": _near_datagrams,
    "idle": _near_idle,
}
_FAR: Mapping[str, Callable[[Work, Session, Watch], Awaitable[None]]] = {
    "bulk": _far_moving,
    "messages": _far_moving,
    "echo": _far_echo,
    "datagrams": _far_datagrams,
    "idle": _far_idle,
}
