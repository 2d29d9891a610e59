"""Several processes on one port: real workers over loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import evolve

from stt_anyio import NodeConfig, Session, StateError, STTNode
from stt_anyio.udp import UdpSocket
from stt_anyio.workers import Routing, WorkerFleet, fleet, ports
from stt_anyio.workers.handover import HandOver
from stt_anyio.workers.worker import Place, WorkerNode
from stt_proto import NetworkPath, Stray, Transmit, WorkerIds
from stt_proto.packet import MAX_RESET, ResetTokens
from tests.anyio import worker_apps
from tests.anyio.fleets import HOST, LIMIT, ON_ONE_LOOP, ROOT, SEED, Naming, alive, ask, known, serving, until
from tests.anyio.relay import Address, Faults, Relay
from tests.proto.fleet import SECRET

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="ports are shared so on Linux only"),
]


@pytest.fixture
def no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "attach", lambda sock, lines: False)


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
