"""Several processes on one port: real workers over loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import evolve

from stt_anyio import ArgumentError, NodeConfig, Session, StateError, SttError, STTNode
from stt_anyio.stores import MemorySessionStore
from stt_anyio.udp import UdpSocket
from stt_anyio.workers import Routing, WorkerFleet, fleet, ports, serve_workers
from stt_anyio.workers.handover import HandOver
from stt_anyio.workers.worker import Place, WorkerNode
from stt_proto import NetworkPath, Stray, Transmit, WorkerIds
from stt_proto.packet import MAX_RESET, ResetTokens
from tests.anyio import worker_apps
from tests.anyio.relay import Address, Faults, Relay
from tests.proto.fleet import SECRET

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="ports are shared so on Linux only"),
]

ON_ONE_LOOP = pytest.mark.parametrize("anyio_backend", ["asyncio"])
"""What is tested is in the workers, whichever loop the parent has."""

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
SEED = "a seed for the tests of workers"
LIMIT = 60.0
"""Seconds that no test needs, with new interpreters on a busy machine."""


@asynccontextmanager
async def serving(
    workers: int = 2, app: Any = "tests.anyio.worker_apps:echo", **options: Any
) -> AsyncIterator[tuple[WorkerFleet, STTNode]]:
    """A fleet, and a client that may dial it."""
    options = {"shared_seed": SEED, "host": HOST, "port": 0, "grace": 1.0, **options}
    with anyio.fail_after(LIMIT):
        async with known(WorkerFleet(app, workers, **options)) as served:
            async with STTNode(shared_seed=SEED, host=HOST) as client:
                yield served, client


def known(served: WorkerFleet) -> WorkerFleet:
    """One whose IDs the tests can read."""
    served._id_secret = SECRET
    return served


async def ask(session: Session, words: str = "are you there") -> int:
    """Have a worker answer; tells which process it was."""
    async with session.open_stream() as stream:
        await stream.send(words.encode())
        await stream.send_eof()
        pid, _, rest = b"".join([piece async for piece in stream]).partition(b" ")
    assert rest.decode() == words.upper()
    return int(pid)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await anyio.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process is there and not waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "attach", lambda sock, lines: False)


class Naming(STTNode):
    """A client whose connection IDs name a worker of the fleet, so that its dials are spread as a test wants."""

    def __init__(self, worker: int, workers: int = 2, node_seed: bytes | None = None) -> None:
        super().__init__(node_seed, SEED, HOST)
        self._core_config = evolve(self._core_config, worker_ids=WorkerIds(SECRET, worker, workers))


# -- where sessions go ---------------------------------------------------------------------------------------------


@ON_ONE_LOOP
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_sessions_go_where_their_ids_say(backend: str) -> None:
    """C-7, C-8: by the initiator's ID; two workers with half of eight sessions each, and nothing is handed over."""
    async with serving(backend=backend) as (served, _), Naming(0) as first, Naming(1) as second:
        assert served.routing is Routing.FILTER
        for client, worker in ((first, 0), (second, 1)) * 4:
            session = await client.connect((HOST, served.port), peer_node_id=served.node_id)
            assert await ask(session) == served.pids[worker]
        stats = await served.stats()
        assert [worker.node.active for worker in stats.workers] == [4, 4]
        assert stats.node.active == stats.node.established == 8
        assert [worker.pid for worker in stats.workers] == list(served.pids)
        assert all((each.hand_over.given, each.hand_over.dropped) == (0, 0) for each in stats.workers)


@ON_ONE_LOOP
async def test_whose_a_session_is_can_be_told_before() -> None:
    """C-8: with whatever ID is drawn; so many dials come as evenly to the workers as chance has it."""
    async with serving(3) as (served, client):
        ids = WorkerIds(SECRET, 0, 3)
        expected: Counter[int | None] = Counter()
        for _ in range(12):
            session = await client.connect((HOST, served.port))
            (own, *_) = session.core._engines.local_ids.live
            assert await ask(session) == served.pids[ids.worker_of(own)]
            expected[ids.worker_of(own)] += 1
        stats = await served.stats()
        assert [worker.node.active for worker in stats.workers] == [expected[index] for index in range(3)]
        assert stats.transport.bytes_received == sum(worker.transport.bytes_received for worker in stats.workers)
        assert stats.transport.rtt is not None
        assert all(worker.cpu_seconds > 0 for worker in stats.workers)


@ON_ONE_LOOP
async def test_four_workers() -> None:
    """Issue 6, C-8: each has what names it, no more and no less; and what they count adds up to what was moved."""
    async with serving(4) as (served, _), AsyncExitStack() as tied:
        assert served.routing is Routing.FILTER
        clients = [await tied.enter_async_context(Naming(worker, 4)) for worker in range(4)]
        sessions = [await client.connect((HOST, served.port)) for client in clients for _ in range(3)]
        assert [await ask(session) for session in sessions] == [pid for pid in served.pids for _ in range(3)]
        for session in sessions[::3]:
            await session.close()
        stats = await served.stats()
        while any(worker.node.active != 2 for worker in stats.workers):
            stats = await served.stats()
        assert [worker.node.established for worker in stats.workers] == [3] * 4
        assert (stats.node.active, stats.node.established, stats.node.closed["graceful"]) == (8, 12, 4)
        for name in ("bytes_sent", "bytes_received", "packets_sent", "packets_received"):
            assert getattr(stats.transport, name) == sum(getattr(each.transport, name) for each in stats.workers)
        assert sum(client.get_transport_stats().packets_sent for client in clients) >= stats.transport.packets_received
        assert sum(each.hand_over.given + each.hand_over.taken for each in stats.workers) == 0


# -- addresses that change -----------------------------------------------------------------------------------------


class Nat(Relay):
    """A translator of addresses that forgets what it knew."""

    def __init__(self, target: Address) -> None:
        super().__init__(target, 0, Faults(drop=0, duplicate=0, reorder=0, corrupt=0))
        self._forgotten: list[socket.socket] = []

    def forget(self) -> None:
        """What is passed on next comes from another port."""
        while self._clients:
            self._forgotten.append(self._clients.popitem()[1])

    def _run(self) -> None:
        try:
            super()._run()
        finally:
            for sock in self._forgotten:
                sock.close()


async def _change_address(served: WorkerFleet, client: STTNode, times: int) -> list[int]:
    """A session under way from one address to the next; tells which processes answered."""
    with Nat((HOST, served.port)) as nat:
        session = await client.connect(nat.address)
        answered = [await ask(session)]
        for turn in range(times):
            nat.forget()
            answered.append(await ask(session, f"turn {turn}"))
        await session.close()
    return answered


async def test_a_hundred_addresses() -> None:
    """Issue 6, C-8: the kernel finds the worker by the ID, from wherever it is; no packet came to the other."""
    async with serving() as (served, client):
        answered = await _change_address(served, client, 100)
        assert len(set(answered)) == 1
        assert len(answered) == 101
        for worker in (await served.stats()).workers:
            assert (worker.hand_over.given, worker.hand_over.taken, worker.hand_over.dropped) == (0, 0, 0)
            assert worker.node.closed["graceful"] == (worker.pid == answered[0])


@ON_ONE_LOOP
@pytest.mark.usefixtures("no_filter")
async def test_a_hundred_addresses_without_a_filter(caplog: pytest.LogCaptureFixture) -> None:
    """C-8: whoever gets it hands it over; none is lost for that, and it is said that this is so."""
    async with serving() as (served, client):
        assert served.routing is Routing.HAND_OVER
        assert "no filter" in caplog.text
        answered = await _change_address(served, client, 100)
        assert len(set(answered)) == 1
        counts = [worker.hand_over for worker in (await served.stats()).workers]
        given, taken = (sum(getattr(each, what) for each in counts) for what in ("given", "taken"))
        assert given == taken > 50
        assert [(each.dropped, each.homeless) for each in counts] == [(0, 0), (0, 0)]


@ON_ONE_LOOP
@pytest.mark.usefixtures("no_filter")
async def test_bulk_without_a_filter() -> None:
    """C-8: whole runs are handed over, whatever the system thinks of the size of an inbox."""
    async with serving(app=worker_apps.sink, bind_address="0.0.0.0", host=None) as (served, _):
        assert served.host == "0.0.0.0"
        async with Naming(0) as first, Naming(1) as second:
            for client in (first, second):
                session = await client.connect((HOST, served.port))
                async with session.open_stream() as stream:
                    await stream.send(bytes(4 << 20))
                    await stream.send_eof()
                    assert await stream.receive() == b"%d" % (4 << 20)


@ON_ONE_LOOP
async def test_what_is_handed_over_to_the_wrong_worker() -> None:
    """C-8: at most once; what a worker was handed and is not its own goes nowhere from there, not even a reset."""
    async with serving() as (served, _), Naming(1) as client:
        session = await client.connect((HOST, served.port))
        assert await ask(session) == served.pids[1]
        assert served._port is not None
        (name, *_) = (name for name in (bytes([n] * 8) for n in range(99)) if WorkerIds(SECRET, 1, 2).owns(name))
        path = NetworkPath("udp", served._port.local, (HOST, client.port))
        inbox, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        outbox = served._port.outboxes[0].dup()
        parent = HandOver(socket.AF_INET, served._port.local, inbox, [outbox, None])
        parent.give([Stray(0, b"\x40" + name + bytes(size), path, 0) for size in (30, 60, 1200)])
        parent.close()
        _.close()
        while (counts := [worker.hand_over for worker in (await served.stats()).workers])[0].taken < 3:
            await anyio.sleep(0.01)
        assert (counts[0].homeless, counts[0].given, counts[1].taken) == (3, 0, 0)
        assert await ask(session) == served.pids[1]


@ON_ONE_LOOP
async def test_a_run_for_two_workers() -> None:
    """C-8: the kernel looks at the first datagram of a run (GRO); what is another's in it is handed over."""
    async with serving() as (served, _):
        names = [
            next(n for n in (bytes([n] * 8) for n in range(99)) if WorkerIds(SECRET, w, 2).owns(n)) for w in (0, 1)
        ]
        sock = UdpSocket(socket.AF_INET, (HOST, 0), NodeConfig())
        try:
            if not (sock.segmentation and sock.coalescing):
                pytest.skip("no runs here")
            run = tuple(b"\x40" + name + bytes(91) for name in names for _ in range(3))
            sock.send(Transmit(sock.path((HOST, served.port)), run, 100))
            while (counts := [worker.hand_over for worker in (await served.stats()).workers])[1].taken < 3:
                await anyio.sleep(0.01)
            answers: list[bytes] = []
            while sum(map(len, answers)) < 6 * MAX_RESET:  # P-14: each worker has answered what was its own
                sock.receive(lambda data, *_: answers.append(bytes(data)))
                await anyio.sleep(0.01)
        finally:
            sock.close()
        assert (counts[0].given, counts[1].given) == (3, 0)
        tokens = ResetTokens(served.config.reset_key or b"")
        resets = b"".join(answers)
        found = [resets[at + MAX_RESET - 16 : at + MAX_RESET] for at in range(0, len(resets), MAX_RESET)]
        assert sorted(found) == sorted(map(tokens.token, names * 3))


async def test_a_worker_does_not_leave_the_port() -> None:
    """A node that nobody needs there may; a worker shares it. A session of its may go elsewhere, though."""
    port = ports.SharedPort(socket.AF_INET, (HOST, 0), WorkerIds(SECRET, 0, 2))
    place = Place(WorkerIds(SECRET, 0, 2), port.sockets[0], port.inboxes[0], [None, port.outboxes[1].dup()])
    config = NodeConfig(bind_address=HOST)
    try:
        async with WorkerNode(place, config, shared_seed=SEED, server_mode=True) as node, Naming(0) as client:
            (here, there), bound = await _both(client, node, port.local), node.port
            assert bound == port.local[1]
            node.disable_accept_connections()
            await here.migrate()
            assert here.local_addr != port.local
            await until(lambda: there.peer_addr == here.local_addr)
            node.udp.replace_own(here.paths[0].path)
            assert node.port == bound
            assert node.udp.sockets[0].fileno() >= 0
    finally:
        port.close()


@pytest.mark.parametrize(("host", "elsewhere"), [(HOST, "::1"), (HOST, HOST)])
async def test_what_comes_to_a_socket_of_ones_own(host: str, elsewhere: str) -> None:
    """C-8: a worker that dials has sockets beside the port; what is another's there is nobody's, and harms nobody."""
    port = ports.SharedPort(socket.AF_INET, (host, 0), WorkerIds(SECRET, 0, 2))
    config = NodeConfig(bind_address=host)
    first, second = (
        WorkerNode(
            Place(
                WorkerIds(SECRET, index, 2),
                port.sockets[index],
                port.inboxes[index],
                [None if other == index else port.outboxes[other].dup() for other in range(2)],
            ),
            config,
            shared_seed=SEED,
            server_mode=True,
        )
        for index in range(2)
    )
    names = [next(n for n in (bytes([n] * 8) for n in range(99)) if WorkerIds(SECRET, w, 2).owns(n)) for w in (0, 1)]
    try:
        async with first, second, Naming(1) as client:
            try:
                own = await first.udp.path_to((elsewhere, 9))
            except OSError:
                pytest.skip(f"no {elsewhere} here")
            if elsewhere == host:
                own = first.udp.path_beside(own)
            target: Any = own.local
            with socket.socket(first.udp.sockets[-1].family, socket.SOCK_DGRAM) as stranger:
                for size in (30, 60):
                    stranger.sendto(b"\x40" + names[1] + bytes(size), (elsewhere, target[1]))
                stranger.sendto(b"\x40" + names[0] + bytes(30), (elsewhere, target[1]))  # for all, or so it looks
            with anyio.fail_after(LIMIT):
                await until(lambda: first.udp.hand_over.counts.homeless == 3)
                there = await client.connect(port.local)
                here = await second.accept()
                assert here.peer_addr == there.local_addr
            assert first.udp.hand_over.counts.given == second.udp.hand_over.counts.taken == 0
    finally:
        port.close()


async def _both(client: STTNode, node: STTNode, address: Any) -> tuple[Session, Session]:
    """A session as the node sees it, and as the client does."""
    there = await client.connect(address)
    return await node.accept(), there


async def test_many_ask_at_once() -> None:
    """Statistics: each gets an answer, and nobody waits for the patience to end."""
    async with serving(1) as (served, _):
        with anyio.fail_after(fleet.ANSWER_TIMEOUT / 2):
            async with anyio.create_task_group() as tasks:
                for _ in range(10):
                    tasks.start_soon(served.stats)


@ON_ONE_LOOP
async def test_a_worker_that_hears_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Supervision: who asks it again and again is kept no longer for that, and the others are still told to stop."""
    async with serving() as (served, _), Naming(1) as client:
        session = await client.connect((HOST, served.port))
        pid = served.pids[0]
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        monkeypatch.setattr(fleet, "ANSWER_TIMEOUT", 0.0001)
        for _ in range(1000):
            await served.stats()
        assert (await served.stats()).workers[0].pid == pid
        await served.__aexit__(None, None, None)
        assert await session.wait_closed() == "graceful"
        assert not alive(pid)


@ON_ONE_LOOP
async def test_who_asks_and_does_not_wait() -> None:
    """Statistics: others get an answer all the same."""
    async with serving(1) as (served, _):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await served.stats()
        assert (await served.stats()).workers[0].cpu_seconds > 0


# -- ends ----------------------------------------------------------------------------------------------------------


async def test_a_worker_is_killed() -> None:
    """P-14, H-36: its sessions are told and resume, those of the other do not notice; another takes its place."""
    seed = bytes(range(32))
    async with serving() as (served, _), Naming(0, node_seed=seed) as first, Naming(1, node_seed=seed) as second:
        doomed, spared = [[await client.connect((HOST, served.port)) for _ in range(3)] for client in (first, second)]
        before = served.pids
        assert [await ask(session) for session in (*doomed, *spared)] == [before[0]] * 3 + [before[1]] * 3
        tickets = [session.ticket for session in doomed]
        assert before[0] is not None
        os.kill(before[0], signal.SIGKILL)
        elsewhere = await second.connect((HOST, served.port), ticket=tickets[2])  # the other goes on at once
        assert elsewhere.resumed
        assert await ask(elsewhere) == before[1]
        for session in doomed:
            with pytest.raises(SttError):
                await ask(session)
            assert session.is_closed
        for session in spared:
            assert await ask(session) == before[1]
        assert served.pids[1] == before[1]
        for ticket in tickets[:2]:
            again = await first.connect((HOST, served.port), ticket=ticket)
            assert again.resumed
            assert await ask(again) == served.pids[0] != before[0]
        assert [worker.restarts for worker in (await served.stats()).workers] == [1, 0]


async def test_the_end() -> None:
    """The peers are told, and no process is left."""
    async with serving() as (served, client):
        sessions = [await client.connect((HOST, served.port)) for _ in range(4)]
        pids = [pid for pid in served.pids if pid is not None]
        assert len(pids) == 2
        await served.__aexit__(None, None, None)
        assert not any(map(alive, pids))
        for session in sessions:
            assert await session.wait_closed() == "graceful"
        assert served.pids == (None, None)
        with pytest.raises(StateError):
            await served.__aenter__()


async def test_the_end_by_cancellation() -> None:
    """The peers are told then too: whoever cancels `serve_workers` leaves its block, and no more."""
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    probe.bind((HOST, 0))
    port = probe.getsockname()[1]
    probe.close()
    with anyio.fail_after(LIMIT):
        async with STTNode(shared_seed=SEED, host=HOST) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(
                partial(serve_workers, worker_apps.echo, 2, shared_seed=SEED, host=HOST, port=port, grace=1.0)
            )
            session = None
            while session is None:
                with suppress(SttError):  # nobody is there yet
                    session = await client.connect((HOST, port))
            await ask(session)
            tasks.cancel_scope.cancel()
            with anyio.fail_after(LIMIT / 4, shield=True):
                assert await session.wait_closed() == "graceful"


@ON_ONE_LOOP
async def test_the_end_of_one_is_not_that_of_the_others_sessions() -> None:
    """When the fleet gives up, the workers that work close their sessions as ever."""
    with anyio.fail_after(LIMIT):
        async with Naming(1) as client:
            sessions: list[Session] = []
            with pytest.raises(StateError, match="worker 0 died 1 times"):
                await _lose_a_worker(client, sessions)
            assert await sessions[0].wait_closed() == "graceful"


async def _lose_a_worker(client: STTNode, sessions: list[Session]) -> None:
    async with known(WorkerFleet(worker_apps.echo, 2, shared_seed=SEED, host=HOST, port=0, restarts=0)) as served:
        sessions.append(await client.connect((HOST, served.port)))
        pid = served.pids[0]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await anyio.sleep_forever()


@ON_ONE_LOOP
async def test_a_worker_is_asked_to_end() -> None:
    """SIGTERM closes its sessions first; and as nobody told the fleet, another takes its place."""
    async with serving() as (served, _), Naming(0) as client:
        session = await client.connect((HOST, served.port))
        pid = served.pids[0]
        assert pid is not None
        os.kill(pid, signal.SIGTERM)
        assert await session.wait_closed() == "graceful"
        await until(lambda: served.pids[0] not in (None, pid))


@ON_ONE_LOOP
async def test_one_after_the_other() -> None:
    """Supervision: a rolling restart, as for a new release. Who is asked to end has not failed, however often it is;
    each has its place again, and nobody else's sessions notice."""
    async with serving(3, restarts=0) as (served, _), AsyncExitStack() as tied:
        clients = [await tied.enter_async_context(Naming(worker, 3)) for worker in range(3)]
        session = [await each.connect((HOST, served.port)) for each in clients]
        descriptors = len(os.listdir("/proc/self/fd"))
        for worker in (0, 1, 2, 0):
            before = served.pids
            pid = before[worker]
            assert pid is not None
            os.kill(pid, signal.SIGTERM)
            assert await session[worker].wait_closed() == "graceful"
            await until(lambda: served.pids[worker] not in (None, pid))  # noqa: B023  # awaited at once
            assert [new == old for new, old in zip(served.pids, before, strict=True)].count(False) == 1
            session[worker] = await clients[worker].connect((HOST, served.port))
            assert [await ask(each) for each in session] == list(served.pids)
        assert len(os.listdir("/proc/self/fd")) == descriptors
        assert [each.restarts for each in (await served.stats()).workers] == [2, 1, 1]


@ON_ONE_LOOP
async def test_stopping_while_workers_import(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What does not serve yet has nothing to close, and nobody waits for it: Ctrl-C is heard at once."""
    (tmp_path / "slow.py").write_text(
        f"import pathlib, time\npathlib.Path({str(tmp_path / 'here')!r}).touch()\ntime.sleep(3600)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(serve_workers, "slow:serve", 2, shared_seed=SEED, host=HOST, grace=3600))
            await until((tmp_path / "here").exists)
            tasks.cancel_scope.cancel()


@ON_ONE_LOOP
async def test_one_that_never_serves_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Supervision: it hangs while it starts, waiting for a database say; that is a death like any other."""
    (tmp_path / "moody.py").write_text(
        "import os, time\n"
        f"while os.path.exists({str(tmp_path / 'down')!r}):\n"
        "    time.sleep(0.01)\n"
        "from tests.anyio.worker_apps import echo\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    async with serving(1, "moody:echo") as (served, client):
        pid = served.pids[0]
        assert pid is not None
        (tmp_path / "down").touch()
        monkeypatch.setattr(fleet, "START_TIMEOUT", 0.1)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: served._slots[0].restarts > 1)
        monkeypatch.setattr(fleet, "START_TIMEOUT", LIMIT)
        (tmp_path / "down").unlink()
        await until(lambda: served.pids[0] is not None)
        assert await ask(await client.connect((HOST, served.port))) == served.pids[0]


@ON_ONE_LOOP
async def test_what_a_worker_has_started() -> None:
    """It inherits no socket of the port; and a fork that has all of them does not hide that its parent is dead."""
    async with serving(1, worker_apps.parents) as (served, client):
        session = await client.connect((HOST, served.port))
        pid = served.pids[0]
        async with session.open_stream() as stream:
            await stream.send(b"?")
            inherited, _, child = (await stream.receive()).partition(b" ")
            try:
                assert int(inherited) == 0
                await until(lambda: served.pids[0] not in (None, pid))
            finally:
                os.kill(int(child), signal.SIGKILL)


@ON_ONE_LOOP
async def test_the_system_has_no_room_for_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Supervision: when a worker is started again that counts as one that died young; at the beginning it is told."""
    real, refused = anyio.open_process, 0

    async def open_process(*arguments: Any, **options: Any) -> Any:
        nonlocal refused
        if refused:
            refused -= 1
            raise BlockingIOError("no room")
        return await real(*arguments, **options)

    monkeypatch.setattr(anyio, "open_process", open_process)
    monkeypatch.setattr(fleet, "FIRST_PAUSE", 0.001)
    async with serving() as (served, client):
        before, refused = served.pids, 3
        assert before[0] is not None
        os.kill(before[0], signal.SIGKILL)
        await until(lambda: served.pids[0] not in (None, before[0]))
        assert served.pids[1] == before[1]
        session = await client.connect((HOST, served.port))
        assert await ask(session) in served.pids
    refused = 1
    with pytest.raises(StateError, match=r"did not start: .*no room") as caught:
        async with serving():
            pass
    assert isinstance(caught.value.__cause__, BlockingIOError)


@ON_ONE_LOOP
async def test_stopping_while_a_worker_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for one that has not been told to stop, and none is started after that."""
    real, starting, go_on, pids = anyio.open_process, anyio.Event(), anyio.Event(), list[int]()

    async def open_process(*arguments: Any, **options: Any) -> Any:
        if pids:
            starting.set()
            await go_on.wait()
        process = await real(*arguments, **options)
        pids.append(process.pid)
        return process

    async def release() -> None:
        await until(lambda: served._stopping)
        go_on.set()

    monkeypatch.setattr(anyio, "open_process", open_process)
    async with anyio.create_task_group() as tasks:
        async with serving(1, grace=LIMIT) as (served, _):
            os.kill(pids[0], signal.SIGKILL)
            await starting.wait()
            tasks.start_soon(release)
            began = anyio.current_time()
        assert anyio.current_time() - began < LIMIT / 2
    assert len(pids) == 2
    assert not any(map(alive, pids))


@ON_ONE_LOOP
@pytest.mark.parametrize("app", ["echo", "hangs"])
async def test_an_orphan_ends(app: str) -> None:
    """Workers whose parent was killed do not stay behind, not even those that hang: they would keep the port."""
    code = (
        "import anyio, sys\n"
        "from stt_anyio.workers import WorkerFleet\n"
        "async def main():\n"
        f"    app = 'tests.anyio.worker_apps:{app}'\n"
        f"    async with WorkerFleet(app, 2, shared_seed='x', host='{HOST}', grace=0.1) as fleet:\n"
        "        print(*fleet.pids, flush=True)\n"
        "        await anyio.sleep_forever()\n"
        "anyio.run(main)\n"
    )
    with anyio.fail_after(LIMIT):
        process = await anyio.open_process([sys.executable, "-c", code], cwd=ROOT, stderr=None)
        async with process:
            assert process.stdout is not None
            pids = [int(pid) for pid in (await process.stdout.receive()).split()]
            assert all(map(alive, pids))
            process.kill()
        try:
            await until(lambda: not any(map(alive, pids)))
        finally:
            for pid in filter(alive, pids):
                os.kill(pid, signal.SIGKILL)


# -- what goes wrong -----------------------------------------------------------------------------------------------


@ON_ONE_LOOP
async def test_an_application_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Supervision: it is started again, after longer and longer pauses, but not for ever."""
    monkeypatch.setattr(fleet, "FIRST_PAUSE", 0.001)
    for app in (worker_apps.raises, worker_apps.counts):
        with pytest.raises(StateError, match="worker 0 died 2 times"):
            async with serving(1, app, restarts=1):
                await anyio.sleep_forever()


@ON_ONE_LOOP
async def test_what_comes_out_of_the_body() -> None:
    """It is what went in: with its cause, and a group of one too."""
    for raised in (KeyError("a"), ExceptionGroup("of the application's own", [KeyError("a")])):
        raised.__cause__ = ValueError("why")
        with pytest.raises((KeyError, ExceptionGroup)) as caught:
            async with WorkerFleet(worker_apps.echo, 1, shared_seed=SEED, host=HOST):
                raise raised
        assert caught.value is raised
        assert isinstance(raised.__cause__, ValueError)


async def test_a_port_that_is_taken() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((HOST, 0))
        with pytest.raises(OSError, match="in use"):
            async with serving(port=other.getsockname()[1]):
                pass


@ON_ONE_LOOP
@pytest.mark.parametrize("app", ["tests.nowhere:echo", "tests.anyio.worker_apps:nothing"])
async def test_an_application_that_is_not_there(app: str) -> None:
    with pytest.raises(StateError, match="did not start: app is 'tests.* cannot be imported"):
        async with serving(1, app):
            pass


@ON_ONE_LOOP
async def test_an_application_whose_module_fails() -> None:
    """It is said how, and not only about what."""
    with pytest.raises(StateError, match="KeyError: 'DATABASE_URL'"):
        async with serving(1, "tests.anyio.no_worker_app:serve"):
            pass


@ON_ONE_LOOP
async def test_an_application_that_returns(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Then nothing serves, and it is said why the worker ends."""
    with pytest.raises(StateError, match="died"):
        async with serving(1, worker_apps.counts, restarts=0):
            await anyio.sleep_forever()
    assert "the application of worker 0 has returned" in capfd.readouterr().err


@ON_ONE_LOOP
async def test_an_application_that_is_none() -> None:
    with pytest.raises(StateError, match="which is no function"):
        async with serving(1, "tests.anyio.worker_apps:not_a_function"):
            pass


@pytest.mark.parametrize(
    ("wrong", "options"),
    [
        ("workers", {"workers": 0}),
        ("workers", {"workers": 65}),
        ("workers", {"workers": True}),
        ("app", {"app": lambda node: None}),
        ("app", {"app": "module"}),
        ("app", {"app": "a module:function"}),
        ("app", {"app": ":function"}),
        ("app", {"app": 5}),
        ("backend", {"backend": "curio"}),
        ("shared_seed", {"shared_seed": ""}),
        ("shared_seed", {"shared_seed": None}),
        ("node_seed", {"node_seed": b"short"}),
        ("transport", {"transport": "tcp"}),
        ("reuse_port", {"reuse_port": True}),
        ("ticket_file", {"ticket_file": "used"}),
        ("ticket_store", {"ticket_store": MemorySessionStore()}),
        ("port", {"port": -1}),
        ("restarts", {"restarts": -1}),
        ("restarts", {"restarts": 1.0}),
        ("grace", {"grace": -1.0}),
        ("grace", {"grace": float("nan")}),
        ("grace", {"grace": True}),
        ("config", {"config": NodeConfig(congestion=lambda size, rtt: None)}),
    ],
)
async def test_mistakes(wrong: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STT_SHARED_SEED", raising=False)
    arguments = {"app": worker_apps.echo, "workers": 2, "shared_seed": SEED, "host": HOST, **options}
    with pytest.raises(ArgumentError) as caught:
        await serve_workers(**arguments)
    assert caught.value.argument == wrong


# -- secrets -------------------------------------------------------------------------------------------------------


@ON_ONE_LOOP
async def test_seeds_are_told_to_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys: a fresh interpreter, and no seed in its arguments or its environment, which others can read."""
    monkeypatch.setenv("STT_SHARED_SEED", SEED)
    async with serving(shared_seed=None, node_seed=b"a node seed of the tests, 32 bytes.") as (served, client):
        session = await client.connect((HOST, served.port), peer_node_id=served.node_id)
        assert await ask(session) in served.pids
        for pid in served.pids:
            for file in ("cmdline", "environ"):
                told = _read(f"/proc/{pid}/{file}")
                assert told
                for secret in (SEED.encode(), b"a node seed", SECRET, SECRET.hex().encode()):
                    assert secret not in told
            assert b"workers.child" in _read(f"/proc/{pid}/cmdline"), "not a copy of this process"


def _read(file: str) -> bytes:
    return Path(file).read_bytes()


def test_ctrl_c_while_a_worker_imports(tmp_path: Path) -> None:
    """Signals: it goes to all processes of a terminal. The parent tells them what to do, and programs that a worker
    starts end of it as ever."""
    package = tmp_path / "stt_anyio" / "workers"
    package.mkdir(parents=True)
    (tmp_path / "stt_anyio" / "__init__.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    (package / "__init__.py").touch()
    (package / "child.py").write_text(
        "import subprocess, sys\n"
        "def main():\n"
        "    code = 'import os, signal; os.kill(os.getpid(), signal.SIGINT)'\n"
        "    print(subprocess.run([sys.executable, '-c', code], stderr=subprocess.DEVNULL).returncode)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", fleet._COMMAND],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert (done.stdout, done.stderr) == (f"{-signal.SIGINT}\n", "")


def test_nothing_of_it_is_shown() -> None:
    served = known(WorkerFleet(worker_apps.echo, 2, shared_seed=SEED, fleet_secret=SECRET))
    message, _ = _told(served)
    assert SEED not in repr(message)
    assert repr(SECRET) not in repr(message)
    assert SEED not in repr(served)


def test_ids_have_a_key_of_their_own() -> None:
    """C-7: a `fleet_secret` may be as old as its tickets, and several servers'; the key of IDs is neither."""
    one, other = (WorkerFleet(worker_apps.echo, 2, shared_seed=SEED, fleet_secret=SECRET) for _ in range(2))
    (first, _), (second, _) = _told(one), _told(other)
    assert len({first.secret, second.secret, SECRET}) == 3
    assert first.config.fleet_secret == second.config.fleet_secret == SECRET
    assert _told(one)[0].secret == first.secret


def _told(served: WorkerFleet) -> tuple[Any, Any]:
    port = ports.SharedPort(socket.AF_INET, (HOST, 0), WorkerIds(SECRET, 0, 2))
    try:
        served._port = port
        return served.setup(0)
    finally:
        port.close()


async def test_what_a_guesser_may_is_divided() -> None:
    """C-10, H-23: who chooses his connection ID chooses his worker; all of them together allow what one does."""
    one, four = (WorkerFleet(worker_apps.echo, count, shared_seed=SEED).config.limits for count in (1, 4))
    assert four.failed_guesses_per_second == one.failed_guesses_per_second / 4
    assert four.failed_guesses_burst == one.failed_guesses_burst // 4
    assert four.failed_guesses_without_cookie == one.failed_guesses_without_cookie // 4
    many = WorkerFleet(worker_apps.echo, 64, shared_seed=SEED, limits=evolve(one, failed_guesses_burst=1)).config
    assert many.limits.failed_guesses_burst == 1


# -- where a port cannot be shared ---------------------------------------------------------------------------------


async def test_one_process_where_there_can_be_no_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The fall-back of the fall-back: one node, in this process; and it is said that this is so."""
    monkeypatch.setattr(fleet, "can_share", lambda: False)
    async with serving(4) as (served, client):
        assert "one process instead of 4" in caplog.text
        assert (served.routing, served.workers) == (Routing.SINGLE, 1)
        session = await client.connect((HOST, served.port), peer_node_id=served.node_id)
        assert await ask(session) == os.getpid()
        stats = await served.stats()
        assert stats.node.active == 1
        assert [worker.pid for worker in stats.workers] == [None]


@pytest.mark.parametrize(("app", "why"), [(worker_apps.counts, "has returned"), (worker_apps.raises, "on purpose")])
async def test_one_process_whose_application_ends(monkeypatch: pytest.MonkeyPatch, app: Any, why: str) -> None:
    """There is nobody to start it again; so it is told, and nothing is left that looks as if it served."""
    monkeypatch.setattr(fleet, "can_share", lambda: False)
    with pytest.raises((StateError, RuntimeError), match=why):
        async with serving(2, app):
            await anyio.sleep_forever()


def test_the_module_is_lazy() -> None:
    """Who has no workers does not pay for them."""
    code = "import stt_anyio, sys; print('stt_anyio.workers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "False\n"
