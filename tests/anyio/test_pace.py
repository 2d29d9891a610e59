"""What makes small things fast, and must not be noticed: writes that leave together, turns of the loop saved."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from stt_anyio import Session, STTNode
from stt_anyio.driver import GATHERED, SMALL
from stt_anyio.loops import when_readable
from stt_anyio.stream import Stream
from stt_anyio.udp import UdpSocket
from stt_anyio.udp.udpsocket import LONE
from stt_proto import Limits, Transmit
from tests.anyio.conftest import Sessions


async def pair(ours: Session, theirs: Session) -> tuple[Stream, Stream]:
    """Both ends of a stream, and nothing on its way."""
    stream = ours.open_stream()
    await stream.send(b"!")
    peer = await theirs.accept_stream()
    assert await peer.receive() == b"!"
    await stream.flush()
    return stream, peer


def sent(session: Session) -> int:
    return session.get_stats().packets_sent


async def take(stream: Stream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await stream.receive()
    return data


# -- small writes --------------------------------------------------------------------------------------------------


async def test_small_writes_in_a_row_share_packets(sessions: Sessions) -> None:
    """The first leaves at once, those behind it together, and the last ones need no further call."""
    async with sessions() as (ours, theirs):
        stream, peer = await pair(ours, theirs)
        before, count = sent(ours), 2 * GATHERED
        for number in range(count):
            await stream.send(bytes([number]) * 100)
        assert await take(peer, 100 * count) == b"".join(bytes([number]) * 100 for number in range(count))
        assert sent(ours) - before < count * 3 / 4  # acknowledgements that arrive take with them what waits


async def test_an_answer_leaves_at_once(sessions: Sessions) -> None:
    """What is written right after something was received is sent within the call."""
    async with sessions() as (ours, theirs):
        stream, peer = await pair(ours, theirs)
        for _ in range(3):
            await stream.send(b"question")
            assert await peer.receive() == b"question"
            before = sent(theirs)
            await peer.send(b"answer")
            assert sent(theirs) == before + 1
            assert await stream.receive() == b"answer"


async def test_a_large_write_waits_for_nothing(sessions: Sessions) -> None:
    async with sessions() as (ours, theirs):
        stream, peer = await pair(ours, theirs)
        await stream.send(b"first")
        before = sent(ours)
        await stream.send(bytes(SMALL + 1))
        assert sent(ours) > before
        await take(peer, 5 + SMALL + 1)


async def test_as_many_as_may_be_gathered_leave_though_more_come(sessions: Sessions) -> None:
    """Nobody else gets a turn while these are written."""
    async with sessions() as (ours, theirs):
        await pair(ours, theirs)
        before = ours.get_stats().bytes_sent
        for _ in range(1 + GATHERED):
            ours.send_datagram(bytes(100))
        assert ours.get_stats().bytes_sent - before > 100 * (1 + GATHERED)
        for _ in range(1 + GATHERED):
            assert await theirs.receive_datagram() == bytes(100)


async def test_datagrams_are_gathered_and_none_is_lost_by_it(sessions: Sessions) -> None:
    async with sessions() as (ours, theirs):
        await pair(ours, theirs)
        before = sent(ours)
        for number in range(20):
            ours.send_datagram(bytes([number]) * 100)
        assert sent(ours) <= before + 1
        assert [await theirs.receive_datagram() for _ in range(20)] == [bytes([number]) * 100 for number in range(20)]


async def test_a_short_queue_of_datagrams_gathers_nothing(sessions: Sessions) -> None:
    """S-11: what is too much for the queue is dropped, so nothing may wait in it that could leave."""
    async with sessions(limits=Limits(datagrams=2)) as (ours, theirs):
        await pair(ours, theirs)
        before = sent(ours)
        for _ in range(10):
            ours.send_datagram(bytes(100))
        assert sent(ours) == before + 10


async def test_who_writes_when_the_gathered_leave_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event is delivered then, and who is told of it writes: also that leaves, though nobody waits for the bell."""
    node = STTNode(shared_seed="a seed for tests")
    pumped = []

    class Pump:
        written = 2

        def pump_gathered(self) -> None:
            pumped.append(self.written)
            if len(pumped) == 1:
                node._gathering.ring()

    monkeypatch.setattr(node, "_driver", Pump())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node._run_gathering)
        await anyio.wait_all_tasks_blocked()
        assert pumped == []
        node._gathering.ring()
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert pumped == [2, 2]


# -- turns of the event loop ---------------------------------------------------------------------------------------


async def turns_in(times: int, call: Any) -> int:
    """In how many turns others ran while this was called so many times; trio runs tasks in no certain order."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await checkpoint()
            turns += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count)
        await checkpoint()
        turns = 0
        for _ in range(times):
            await call()
        seen = turns
        tasks.cancel_scope.cancel()
    return seen


async def test_an_answer_takes_no_turn_but_every_other_send_does(sessions: Sessions) -> None:
    """Others had theirs while `receive` waited. It is one `send` that is spared it, not all that follow."""
    async with sessions() as (ours, theirs):
        stream, peer = await pair(ours, theirs)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.receive)
            await anyio.wait_all_tasks_blocked()
            await peer.send(b"question")
        assert await turns_in(1, lambda: stream.send(b"answer")) == 0
        assert await turns_in(20, lambda: stream.send(b"and more")) > 0


async def test_an_answer_that_is_cancelled_is_not_sent(sessions: Sessions) -> None:
    async with sessions() as (ours, theirs):
        stream, peer = await pair(ours, theirs)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.receive)
            await anyio.wait_all_tasks_blocked()
            await peer.send(b"question")
        accepted = stream.bytes_accepted
        with anyio.CancelScope() as scope:
            scope.cancel()
            await stream.send(b"answer")
        assert scope.cancelled_caught
        assert stream.bytes_accepted == accepted


async def test_receiving_what_is_there_lets_others_run(sessions: Sessions) -> None:
    async with sessions() as (ours, theirs):
        stream, peer = await pair(ours, theirs)
        await peer.send(bytes(20))
        await peer.flush()
        assert await turns_in(20, lambda: stream.receive(1)) > 0


# -- sockets -------------------------------------------------------------------------------------------------------


async def test_what_is_called_for_a_socket_may_fail() -> None:
    """It is not called again, and what it raised comes out."""
    here, there = socket.socketpair()
    here.setblocking(False)
    calls = []

    def fail() -> None:
        calls.append(here.recv(1))
        if len(calls) == 2:
            raise OSError("the socket is dead")

    with here, there:
        there.send(b"abc")
        with anyio.fail_after(10), pytest.raises(OSError, match="dead"):
            await when_readable(here, fail)
        await checkpoint()
        assert calls == [b"a", b"b"]


async def test_a_socket_is_let_go_when_cancelled() -> None:
    here, there = socket.socketpair()
    here.setblocking(False)
    calls: list[bytes] = []
    with here, there:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(when_readable, here, lambda: calls.append(here.recv(1)))
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        there.send(b"a")
        for _ in range(3):
            await checkpoint()
        assert calls == []
        with anyio.fail_after(10):
            await anyio.wait_readable(here)


def test_where_the_loop_cannot_watch_sockets_a_task_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under the proactor loop of Windows."""

    async def main() -> list[bytes]:
        loop, calls = asyncio.get_running_loop(), []

        def refuse(*_: object) -> None:
            raise NotImplementedError

        async def wait(sock: socket.socket) -> None:
            await asyncio.sleep(0)

        def read() -> None:
            calls.append(here.recv(1))
            if len(calls) == 2:
                raise OSError("enough")

        monkeypatch.setattr(loop, "add_reader", refuse)
        monkeypatch.setattr(anyio, "wait_readable", wait)
        here, there = socket.socketpair()
        with here, there:
            there.send(b"ab")
            with pytest.raises(OSError, match="enough"):
                await when_readable(here, read)
        return calls

    assert asyncio.run(main()) == [b"a", b"b"]


def test_callbacks_may_use_anyio_under_asyncio_itself() -> None:
    """They run outside of every task there, where anyio does not see by itself which loop it is."""

    async def main() -> list[str]:
        told: list[str] = []
        parameters: dict[str, Any] = {"shared_seed": "a seed for tests", "host": "127.0.0.1"}
        async with STTNode(server_mode=True, **parameters) as server, STTNode(**parameters) as client:
            both = anyio.Event()

            @server.on_session_established
            def at_once(session: Session) -> None:
                anyio.CancelScope()
                anyio.current_time()
                told.append("at once")

            @server.on_session_established
            async def in_a_task(session: Session) -> None:
                await checkpoint()
                told.append("in a task")
                both.set()

            await client.connect_udp("127.0.0.1", server.port)
            with anyio.fail_after(10):
                await both.wait()
        return told

    assert asyncio.run(main()) == ["at once", "in a task"]


def test_where_datagrams_come_one_by_one_nothing_is_not_read(make_socket: Callable[..., UdpSocket]) -> None:
    """One read a wake-up instead of two; now and then it looks for more, and a crowd is read at once."""
    sock, got, reads = make_socket(), [], 0
    read = sock._recvmsg_into
    assert read is not None

    def counted(*arguments: Any) -> Any:
        nonlocal reads
        reads += 1
        return read(*arguments)

    def wake_up(*datagrams: bytes) -> int:
        nonlocal reads
        reads = 0
        for datagram in datagrams:
            sender.sendto(datagram, sock.local)
        sock.receive(lambda data, *_: got.append(bytes(data)))
        return reads

    sock._recvmsg_into = counted
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        assert [wake_up(b"alone") for _ in range(LONE + 1)] == [2] * (LONE + 1)
        assert [wake_up(b"alone") for _ in range(LONE - 1)] == [1] * (LONE - 1)
        assert wake_up(b"alone") == 2
        assert wake_up(b"1", b"2", b"3") == 1
        for _ in range(3 * LONE):
            wake_up(b"two", b"each time")
        assert wake_up(b"1", b"2", b"3") == 4
        assert got[-3:] == [b"1", b"2", b"3"]


def test_runs_of_datagrams_are_no_lone_ones(make_socket: Callable[..., UdpSocket]) -> None:
    """What comes in runs comes fast: each time it is looked for another one."""
    sock, sender = make_socket(), make_socket()
    if not (sock.coalescing and sender.segmentation):
        pytest.skip("the system does not gather datagrams")
    run = Transmit(sender.path(sock.local), (bytes(100),) * 4, 100)
    for _ in range(LONE + 1):
        assert sender.send(run) is None
        assert sock.receive(lambda *_: None) == 1
    assert sender.send(run) is sender.send(run) is None
    assert sock.receive(lambda *_: None) == 2


async def test_a_bell_wakes_all_who_wait_and_nobody_is_missed(sessions: Sessions) -> None:
    """Those of sessions are of a lighter kind under asyncio: one who waits may be cancelled and harms no other."""
    async with sessions() as (ours, _):
        bell = ours._frame
        woken: list[int] = []

        async def wait(number: int) -> None:
            await bell.wait()
            woken.append(number)

        async with anyio.create_task_group() as tasks:
            for number in range(2):
                tasks.start_soon(wait, number)
            async with anyio.create_task_group() as given_up:
                given_up.start_soon(wait, 2)
                await anyio.wait_all_tasks_blocked()
                given_up.cancel_scope.cancel()
            signal = bell.arm()
            bell.ring()
            with anyio.fail_after(10):
                await signal.wait()  # it was set before anybody waited for it
        assert sorted(woken) == [0, 1]
        later = bell.arm()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await later.wait()
        assert scope.cancelled_caught
