"""The ends of a measurement in programs that block. `with_loop.py` is the same under asyncio and trio."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from stt_anyio.blocking import BlockingNode, BlockingSession, BlockingStream
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


def near(work: Work, port: int) -> dict[str, float]:
    """Dial, do the work, and give the figures."""
    with BlockingNode(**work.node) as node, _dial(work, node, port) as session:
        return _NEAR[work.mode](work, node, session)


def _dial(work: Work, node: BlockingNode, port: int) -> BlockingSession:
    address, transport = where(work, port)
    return node.connect(address, transport=transport)


def far(work: Work, tell: Callable[[object], None]) -> None:
    """Wait for who dials, and do the work; tell the port, and at last the seconds of CPU that it took."""
    with BlockingNode(server_mode=True, **work.node) as node:
        bound = listening(work, node.listen_tcp, node.listen_websocket)
        tell(node.port if bound is None else bound[1])
        session, watch = node.accept(), Watch()
        _FAR[work.mode](work, session, watch)
        tell(watch.cpu())
        session.wait_closed()


def _at_once(calls: Iterable[Callable[[], None]]) -> None:
    """Make each call in a thread of its own, or the only one in this; what one raises is raised."""
    first, *others = calls
    if not others:
        first()
        return
    with ThreadPoolExecutor(len(others) + 1) as threads:
        for done in [threads.submit(call) for call in (first, *others)]:
            done.result()


# -- bulk and messages: streams that are written, read and counted -------------------------------------------------


def _near_moving(work: Work, node: BlockingNode, session: BlockingSession) -> dict[str, float]:
    data, watch = work.piece(), Watch()
    streams = [session.open_stream() for _ in range(work.streams)]
    _at_once([partial(_ask, work, stream, data) for stream in streams])
    return work.figures(watch)


def _ask(work: Work, stream: BlockingStream, data: bytes) -> None:
    answer = Answer(work.down)

    def send() -> None:
        _send(stream, data, work.up)
        stream.send_eof()

    def receive() -> None:
        for piece in stream:
            answer.take(piece)

    _send_and_receive(work, send, receive)
    answer.check(work.up)


def _far_moving(work: Work, session: BlockingSession, watch: Watch) -> None:
    data = work.piece()
    streams = [session.accept_stream() for _ in range(work.streams)]
    _at_once([partial(_answer, work, stream, data) for stream in streams])


def _answer(work: Work, stream: BlockingStream, data: bytes) -> None:
    count = 0

    def receive() -> None:
        nonlocal count
        for piece in stream:
            count += len(piece)

    _send_and_receive(work, lambda: _send(stream, data, work.down), receive)
    stream.send(count.to_bytes(COUNT_BYTES))
    stream.close()


def _send_and_receive(work: Work, send: Callable[[], None], receive: Callable[[], None]) -> None:
    """Both at once if there is much in both directions, else one after the other."""
    if work.up and work.down:
        _at_once((send, receive))
    else:
        send()
        receive()


def _send(stream: BlockingStream, data: bytes, total: int) -> None:
    for _ in range(total // len(data)):
        stream.send(data)
    if total % len(data):
        stream.send(data[: total % len(data)])


# -- echo ----------------------------------------------------------------------------------------------------------


def _near_echo(work: Work, node: BlockingNode, session: BlockingSession) -> dict[str, float]:
    stream, times, watch = session.open_stream(), [], Watch()
    for _ in range(work.count):
        started = time.perf_counter()
        stream.send(MESSAGE)
        missing = len(MESSAGE)
        while missing:
            missing -= len(stream.receive(missing))
        times.append(time.perf_counter() - started)
    stream.send_eof()
    return echo_figures(times, watch)


def _far_echo(work: Work, session: BlockingSession, watch: Watch) -> None:
    with session.accept_stream() as stream:
        for message in stream:
            stream.send(message)


# -- datagrams -----------------------------------------------------------------------------------------------------


def _near_datagrams(work: Work, node: BlockingNode, session: BlockingSession) -> dict[str, float]:
    flight, watch = Flight(work.count), Watch()
    while flight.arrived is None:
        while (data := flight.next()) is not None:
            session.send_datagram(data)
        try:
            flight.take(session.receive_datagram(Flight.PATIENCE))
        except TimeoutError:
            flight.take(None)
    return flight.figures(watch)


def _far_datagrams(work: Work, session: BlockingSession, watch: Watch) -> None:
    tally = Tally()
    try:
        while True:
            report = tally.take(session.receive_datagram())
            if report is not None:
                session.send_datagram(report)
    except SessionClosedError:
        pass


# -- idle ----------------------------------------------------------------------------------------------------------


def _near_idle(work: Work, node: BlockingNode, session: BlockingSession) -> dict[str, float]:
    sessions = [session, *(_dial(work, node, session.peer_addr[1]) for _ in range(work.sessions - 1))]
    stream = session.open_stream()
    stream.send(b"now")
    watch = Watch()
    while (left := work.seconds - watch.seconds()) > 0:
        node.poll(left)
    figures = idle_figures(sum(each.is_active() for each in sessions), work.sessions, watch)
    stream.send_eof()
    return figures


def _far_idle(work: Work, session: BlockingSession, watch: Watch) -> None:
    for _ in session.accept_stream():
        watch.restart()


_NEAR: Mapping[str, Callable[[Work, BlockingNode, BlockingSession], dict[str, float]]] = {
    "bulk": _near_moving,
    "messages": _near_moving,
    "echo": _near_echo,
    "datagrams": _near_datagrams,
    "idle": _near_idle,
}
_FAR: Mapping[str, Callable[[Work, BlockingSession, Watch], None]] = {
    "bulk": _far_moving,
    "messages": _far_moving,
    "echo": _far_echo,
    "datagrams": _far_datagrams,
    "idle": _far_idle,
}
