"""Coming back with a ticket, over real sockets; and the file in which a node remembers which were used."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from stt_anyio import ArgumentError, BlockingNode, SessionResumptionError, STTNode, Ticket, TicketRefusal
from stt_anyio import ticket_file as module
from stt_anyio import ticket_store as store_module
from stt_anyio.errors import ResourcesExhaustedError, StoreUnavailableError
from stt_anyio.stores import MemorySessionStore
from stt_anyio.ticket_file import HEADER, SPARE, TicketFile
from stt_anyio.ticket_store import MAX_ASKED, TicketDesk, in_file, in_store
from stt_proto.events import TicketOffered
from tests.anyio.redis_server import RedisServer
from tests.anyio.stores import KINDS, Clock, Stores

LOOPBACK = "127.0.0.1"
SEED = "a seed for tests"
SERVER_SEED, CLIENT_SEED = b"s" * 32, b"c" * 32
FLEET = b"f" * 32


def server_options(**options: Any) -> dict[str, Any]:
    return {"node_seed": SERVER_SEED, "shared_seed": SEED, "host": LOOPBACK, "server_mode": True, **options}


def client_options(**options: Any) -> dict[str, Any]:
    return {"node_seed": CLIENT_SEED, "shared_seed": SEED, "host": LOOPBACK, **options}


async def ticket_of(client: STTNode, server: STTNode) -> Ticket:
    """A ticket out of a session that has ended."""
    session = await client.connect((LOOPBACK, server.port))
    with anyio.fail_after(10):
        while session.ticket is None:
            await anyio.sleep(0.001)
    ticket = session.ticket
    await session.close()
    return ticket


# -- both kinds of host --------------------------------------------------------------------------------------------


async def test_come_back() -> None:
    """C7: `session.ticket` of one session is what the next `connect` is given."""
    async with STTNode(**server_options()) as server, STTNode(**client_options()) as client:
        ticket = await ticket_of(client, server)
        session = await client.connect((LOOPBACK, server.port), ticket=ticket)
        assert session.resumed
        assert session.resumption_error is None
        assert session.peer_node_id == server.node_id
        with anyio.fail_after(10):
            peer = await server.accept()
            assert peer.resumed
            stream = session.open_stream()
            await stream.send(b"hello again")
            assert await (await peer.accept_stream()).receive() == b"hello again"
        again = await client.connect((LOOPBACK, server.port), ticket=ticket)
        assert not again.resumed
        assert isinstance(again.resumption_error, SessionResumptionError)
        assert again.resumption_error.reason == TicketRefusal.OFFERED
        assert again.is_active()


async def test_come_back_to_a_server_that_restarted() -> None:
    """C7: with the fleet's secret it takes the ticket; without one there is a full handshake, and a reason."""
    async with STTNode(**client_options()) as client:
        for options, resumed in (({"fleet_secret": FLEET}, True), ({}, False)):
            async with STTNode(**server_options(**options)) as server:
                ticket = await ticket_of(client, server)
            async with STTNode(**server_options(**options)) as server:
                session = await client.connect((LOOPBACK, server.port), ticket=ticket)
                assert session.resumed is resumed
                assert (session.resumption_error is None) is resumed


async def test_from_another_process(tmp_path: Path) -> None:
    """C7: kept in a file, and taken up by a program of its own with the same node seed."""
    program = (
        "import sys, pathlib\n"
        "from stt_anyio import BlockingNode, Ticket\n"
        "ticket = Ticket.from_bytes(pathlib.Path(sys.argv[1]).read_bytes())\n"
        f"with BlockingNode({CLIENT_SEED!r}, {SEED!r}, {LOOPBACK!r}) as node:\n"
        f"    print(node.connect(({LOOPBACK!r}, int(sys.argv[2])), ticket=ticket).resumed)\n"
    )
    async with STTNode(**server_options()) as server, STTNode(**client_options()) as client:
        kept = tmp_path / "ticket"
        kept.write_bytes((await ticket_of(client, server)).export())
        with anyio.fail_after(60):
            run = await anyio.run_process(
                [sys.executable, "-c", program, str(kept), str(server.port)], stderr=subprocess.STDOUT, check=False
            )
        assert run.stdout.decode().strip() == "True"


async def test_used_before_and_after_a_restart(tmp_path: Path) -> None:
    """H-36: with a file a ticket is good once, though the server forgot everything else; so for copies of it."""
    options = server_options(fleet_secret=FLEET, ticket_file=tmp_path / "used")
    async with STTNode(**client_options()) as first:
        async with STTNode(**options) as server:
            ticket = await ticket_of(first, server)
            assert (await first.connect((LOOPBACK, server.port), ticket=ticket)).resumed
        for _ in range(2):
            async with STTNode(**options) as server, STTNode(**client_options()) as copy:
                session = await copy.connect((LOOPBACK, server.port), ticket=ticket)
                assert not session.resumed
                assert session.resumption_error is not None
                assert session.resumption_error.reason == TicketRefusal.USED
                other = await ticket_of(copy, server)
                assert (await copy.connect((LOOPBACK, server.port), ticket=other)).resumed
        assert stat.S_IMODE((tmp_path / "used").stat().st_mode) == 0o600


async def test_early_data() -> None:
    """H-38, H-41: taken by a server that says so, and otherwise sent as ever, over the same stream."""
    for most, accepted in ((768, True), (0, None)):
        async with STTNode(**server_options(max_early_data=most)) as server, STTNode(**client_options()) as client:
            ticket = await ticket_of(client, server)
            assert ticket.max_early_data == most
            session = await client.connect((LOOPBACK, server.port), ticket=ticket, early_data=b"early")
            with anyio.fail_after(10):
                peer = await server.accept()
                stream = await peer.accept_stream()
                assert await stream.receive() == b"early"
                await stream.send(b"answer")
                own = session.early_stream
                assert own is not None
                assert own is session.early_stream is session.get_stream(0)
                assert await own.receive() == b"answer"
                await own.send(b" and late")
                assert await stream.receive() == b" and late"
            assert not peer.replayable
            assert session.early_data_accepted is accepted
            plain = await client.connect((LOOPBACK, server.port))
            assert plain.early_stream is None
            assert plain.early_data_accepted is None


async def test_early_data_goes_one_way() -> None:
    """H-38: over two ways that race it would come twice, so that is refused at once."""
    async with STTNode(**client_options()) as client:
        with pytest.raises(ArgumentError) as caught:
            await client.connect((LOOPBACK, 9), websocket="ws://127.0.0.1:9/", early_data=b"early")
        assert caught.value.argument == "early_data"
        with pytest.raises(ArgumentError) as caught:
            await client.connect((LOOPBACK, 9), early_data=bytes(769))
        assert caught.value.argument == "early_data"


def test_early_data_without_an_event_loop() -> None:
    """H-38: the same for the blocking node."""
    options = server_options(max_early_data=768, background=True)
    with BlockingNode(**options) as server, BlockingNode(**client_options(background=True)) as client:
        session = client.connect((LOOPBACK, server.port))
        server.accept(timeout=10)
        deadline = time.monotonic() + 10
        while session.ticket is None:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        again = client.connect((LOOPBACK, server.port), ticket=session.ticket, early_data=b"early")
        peer = server.accept(timeout=10)
        stream = peer.accept_stream(timeout=10)
        assert stream.receive(timeout=10) == b"early"
        stream.send(b"answer")
        own = again.early_stream
        assert own is not None
        assert own.receive(timeout=10) == b"answer"
        assert again.early_data_accepted is True
        with pytest.raises(ArgumentError) as caught:
            client.connect((LOOPBACK, 9), websocket="ws://127.0.0.1:9/", early_data=b"early")
        assert caught.value.argument == "early_data"


async def test_no_ticket() -> None:
    async with STTNode(**server_options()) as server, STTNode(**client_options()) as client:
        with pytest.raises(ArgumentError) as caught:
            await client.connect((LOOPBACK, server.port), ticket=b"ticket")  # type: ignore[arg-type]
        assert caught.value.argument == "ticket"


def test_without_an_event_loop(tmp_path: Path) -> None:
    """C7: the blocking host does the same."""
    options = server_options(fleet_secret=FLEET, ticket_file=str(tmp_path / "used"), background=True)
    with BlockingNode(**options) as server, BlockingNode(**client_options()) as client:
        session = client.connect((LOOPBACK, server.port))
        while session.ticket is None:
            client.poll(1.0)
        ticket = session.ticket
        assert client.connect((LOOPBACK, server.port), ticket=ticket).resumed
    with BlockingNode(**options) as server, BlockingNode(**client_options()) as client:
        session = client.connect((LOOPBACK, server.port), ticket=ticket)
        assert session.resumption_error is not None
        assert session.resumption_error.reason == TicketRefusal.USED


# -- the file ------------------------------------------------------------------------------------------------------


def used(path: Path, limit: int = 100, now: float = 1000.0) -> TicketFile:
    return TicketFile(str(path), limit, lambda: now)


def test_what_is_in_the_file(tmp_path: Path) -> None:
    """H-36: once, also for those that come later; and what has expired is not carried along."""
    path = tmp_path / "used"
    file = used(path)
    assert file.use(b"a" * 16, 2000.0)
    assert file.use(b"b" * 16, 3000.0)
    assert not file.use(b"a" * 16, 2000.0)
    assert not file.use(b"c" * 16, 1000.0)
    file.close()
    file.close()
    lines = path.read_bytes().splitlines()
    assert lines == [HEADER.strip(), b"61" * 16 + b" 2000.001", b"62" * 16 + b" 3000.001"]
    later = used(path, now=2500.0)
    assert not later.use(b"b" * 16, 3000.0)
    assert path.read_bytes().splitlines() == [HEADER.strip(), b"over 2000.002", b"62" * 16 + b" 3000.002"]
    later.close()


def test_a_clock_that_once_stood_later(tmp_path: Path) -> None:
    """H-36: what was dropped because it had expired stays expired, over restarts, when the clock is set back."""
    path = tmp_path / "used"
    now = [1000.0]
    file = TicketFile(str(path), 10_000, lambda: now[0])
    assert file.use(b"a" * 16, 2000.0)
    assert file.use(b"b" * 16, 9000.0)
    file.close()
    used(path, now=5000.0).close()
    assert b"61" * 16 not in path.read_bytes()
    for _ in range(2):
        back = used(path)
        assert not back.use(b"a" * 16, 2000.0), "used, and dropped"
        assert not back.use(b"c" * 16, 2000.0), "nobody can tell it from one that was"
        assert not back.use(b"b" * 16, 9000.0)
        back.close()
    file = TicketFile(str(path), 10_000, lambda: now[0])
    assert file.use(b"d" * 16, 2500.0)
    for number in range(2 * SPARE):  # until the file is written anew, in mid-life
        now[0] += 1.0
        assert file.use(number.to_bytes(16), max(now[0], 2001.0) + 5.0)
    file.close()
    back = used(path, limit=10_000)
    assert not back.use(b"d" * 16, 2500.0)
    assert not back.use(bytes(16), 2001.0 + 5.0)
    assert back.use(b"e" * 16, 4000.0)
    back.close()


def test_a_line_that_was_cut_short(tmp_path: Path) -> None:
    """A crash in the middle of writing: nobody was answered, so nothing was used."""
    path = tmp_path / "used"
    path.write_bytes(HEADER + b"61" * 16 + b" 2000.001\n" + b"62" * 10)
    file = used(path)
    assert not file.use(b"a" * 16, 2000.0)
    assert file.use(b"b" * 16, 2000.0)
    file.close()
    for whole in (b"", HEADER, HEADER[:7]):
        path.write_bytes(whole)
        used(path).close()
        assert path.read_bytes() == HEADER


@pytest.mark.parametrize(
    "content", [b"secrets!\n", b"stt", HEADER + b"rubbish\n", HEADER + b"\n" + b"61" * 16 + b" 1\n", HEADER + b"over\n"]
)
def test_other_files_are_left_alone(tmp_path: Path, content: bytes) -> None:
    """Whoever names the wrong file must not lose it."""
    path = tmp_path / "used"
    path.write_bytes(content + b"more\n")
    with pytest.raises(ArgumentError) as caught:
        used(path)
    assert caught.value.argument == "ticket_file"
    assert path.read_bytes() == content + b"more\n"
    with pytest.raises(ArgumentError), BlockingNode(**server_options(ticket_file=path)):
        pass


def test_no_room_and_no_place(tmp_path: Path) -> None:
    """H-36: refused rather than forgotten; what is in the file always has room."""
    path = tmp_path / "used"
    file = used(path, limit=2)
    assert [file.use(bytes((number,)) * 16, 2000.0) for number in range(3)] == [True, True, False]
    file.close()
    small = used(path, limit=1)
    assert [small.use(bytes((number,)) * 16, 2000.0) for number in range(3)] == [False, False, False]
    small.close()
    now = [1000.0]
    path.write_bytes(HEADER + b"61" * 16 + b" 2000.001\n" + b"62" * 16 + b" 3000.001\n")
    small = TicketFile(str(path), 1, lambda: now[0])
    now[0] = 2500.0
    assert not small.use(b"b" * 16, 3000.0)
    small.close()
    with pytest.raises(OSError):
        used(tmp_path / "nowhere" / "used")


def test_a_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """H-36: as long as nothing can be remembered nothing may be used; afterwards all is well again."""
    path = tmp_path / "used"
    file = used(path)
    assert file.use(b"a" * 16, 2000.0)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as broken:
        broken.setattr(module.os, "fsync", full)
        for letter in (b"b", b"c"):
            with pytest.raises(OSError, match="no space"):
                file.use(letter * 16, 2000.0)
            assert not file.use(letter * 16, 2000.0), "nobody knows whether it is written"
    assert file.use(b"d" * 16, 2000.0)
    file.close()
    with pytest.raises(OSError):
        file.use(b"e" * 16, 2000.0)
    again = used(path)
    assert [again.use(bytes((letter,)) * 16, 2000.0) for letter in b"abcd"] == [False] * 4
    again.close()


def test_the_file_does_not_grow_for_ever(tmp_path: Path) -> None:
    """What has expired leaves the file while the node runs, too."""
    now = [1000.0]
    file = TicketFile(str(tmp_path / "used"), 10_000, lambda: now[0])
    for number in range(2 * SPARE):
        now[0] += 1.0
        assert file.use(number.to_bytes(16), now[0] + 5.0)
    assert (tmp_path / "used").stat().st_size < 60 * (SPARE + 20)
    file.close()


@pytest.mark.skipif(sys.platform == "win32", reason="links and modes of POSIX")
def test_what_stands_where_the_file_is_written_anew(tmp_path: Path) -> None:
    """Whoever may write into the directory does not choose what is overwritten, nor who may read the new file."""
    mine, beside = tmp_path / "mine", tmp_path / "used.new"
    mine.write_text("precious")
    beside.symlink_to(mine)
    used(tmp_path / "used").close()
    assert mine.read_text() == "precious"
    beside.write_bytes(HEADER)
    beside.chmod(0o666)
    used(tmp_path / "used").close()
    assert (tmp_path / "used").stat().st_mode & 0o777 == 0o600
    assert not beside.exists()


@pytest.mark.parametrize("call", ["replace", "open"])
def test_systems_that_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Nothing is left open when the file cannot be put in its place; a directory that cannot be synced is no fault."""
    real: Callable[..., Any] = getattr(os, call)

    def refuse(path: Any, *rest: Any, **named: Any) -> Any:
        if call == "replace" or Path(path) == tmp_path:
            raise OSError(errno.EACCES, "no")
        return real(path, *rest, **named)

    monkeypatch.setattr(module.os, call, refuse)
    if call == "replace":
        with pytest.raises(OSError):
            used(tmp_path / "used")
    else:
        used(tmp_path / "used").close()


def test_a_file_that_another_node_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """H-36: two who write one file would each forget what the other knows; so the second is refused, at any time."""
    path = tmp_path / "used"
    file = used(path)
    for _ in range(2):
        with pytest.raises(ArgumentError, match="another node") as caught:
            used(path)
        assert caught.value.argument == "ticket_file"
        file._torn = True  # so that it is written anew
        assert file.use(os.urandom(16), 2000.0)
    file.close()
    used(path).close()
    real = module._lock

    def somebody_was_faster(descriptor: int) -> None:
        """Who had the file has replaced it, and ended, just before it was locked here."""
        monkeypatch.setattr(module, "_lock", real)
        other = used(path)
        assert other.use(b"a" * 16, 2000.0)
        other.close()
        real(descriptor)

    monkeypatch.setattr(module, "_lock", somebody_was_faster)
    file = used(path)
    assert not file.use(b"a" * 16, 2000.0)
    file.close()


async def test_the_loop_goes_on_while_the_disk_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """H-36: one who shows a ticket makes nobody else wait; of two who show the same at once one is let in."""
    path, begun, go_on = tmp_path / "used", threading.Event(), threading.Event()
    real, waited = os.fsync, []

    def fsync(descriptor: int) -> None:
        begun.set()
        waited.append(go_on.wait(10.0))
        real(descriptor)

    file, answers = used(path), []
    desk = TicketDesk(in_file(file), 10.0, lambda: None)
    monkeypatch.setattr(module.os, "fsync", fsync)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.run)
        await anyio.wait_all_tasks_blocked()
        for _ in range(2):
            desk.offered(TicketOffered(b"a" * 16, 2000.0), answers.append)
        while not begun.is_set():
            await anyio.sleep(0.001)
        assert answers == []
        go_on.set()
        while len(answers) < 2:
            await anyio.sleep(0.001)
        tasks.cancel_scope.cancel()
    assert waited == [True]
    assert sorted(answers) == [False, True]
    file.close()
    assert b"61" * 16 in path.read_bytes()


async def test_a_disk_that_fails_is_told_by_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """H-36, H7: a full handshake, and a count; also where there is no loop."""
    options = server_options(fleet_secret=FLEET)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    async with STTNode(**options, ticket_file=str(tmp_path / "used")) as server, STTNode(**client_options()) as client:
        ticket = await ticket_of(client, server)
        monkeypatch.setattr(module.os, "fsync", full)
        session = await client.connect((LOOPBACK, server.port), ticket=ticket)
        assert not session.resumed
        assert server.get_stats().tickets_in_doubt == 1
    monkeypatch.undo()
    blocking = {**options, "ticket_file": str(tmp_path / "other"), "background": True}
    with BlockingNode(**blocking) as waiting, BlockingNode(**client_options()) as client:
        before = client.connect((LOOPBACK, waiting.port))
        while before.ticket is None:
            client.poll(1.0)
        monkeypatch.setattr(module.os, "fsync", full)
        assert not client.connect((LOOPBACK, waiting.port), ticket=before.ticket).resumed
        assert waiting.get_stats().tickets_in_doubt == 1


# -- a store that several servers share ----------------------------------------------------------------------------


class Broken(MemorySessionStore):
    """A store that fails, or never answers."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__()
        self.error = error
        self.asked = 0

    async def take_once(self, namespace: str | bytes, key: bytes, *, ttl: float) -> bool:
        self.asked += 1
        if self.error is not None:
            raise self.error
        await anyio.sleep_forever()
        return True


@pytest.fixture(params=KINDS)
def stores(request: pytest.FixtureRequest, tmp_path: Path, redis_server: Callable[[], RedisServer]) -> Stores:
    return Stores(request.param, tmp_path, redis_server, Clock())


async def test_used_at_any_server_of_a_fleet(stores: Stores) -> None:
    """H7, H-36: with a store that they share, a ticket is good once for all of them; so for copies of it."""
    async with stores.open() as one, stores.open() as other:
        options = server_options(fleet_secret=FLEET)
        async with (
            STTNode(**options, ticket_store=one) as first,
            STTNode(**options, ticket_store=other) as second,
            STTNode(**client_options()) as client,
        ):
            ticket = await ticket_of(client, first)
            assert (await client.connect((LOOPBACK, second.port), ticket=ticket)).resumed
            for server in (first, second):
                async with STTNode(**client_options()) as copy:
                    session = await copy.connect((LOOPBACK, server.port), ticket=ticket)
                    assert not session.resumed
                    assert session.resumption_error is not None
                    assert session.resumption_error.reason == TicketRefusal.USED
            assert (await copy_and_come_back(first)).resumed


async def copy_and_come_back(server: STTNode) -> Any:
    async with STTNode(**client_options()) as client:
        return await client.connect((LOOPBACK, server.port), ticket=await ticket_of(client, server))


@pytest.mark.parametrize("error", [StoreUnavailableError("down"), ResourcesExhaustedError("full"), KeyError("a bug")])
async def test_a_store_that_fails(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """H7, H-36: nobody can say that a ticket was not used, so it was; a full handshake, and a line in the log."""
    store = Broken(error)
    async with STTNode(**server_options(ticket_store=store)) as server:
        for _ in range(2):
            session = await copy_and_come_back(server)
            assert not session.resumed
            assert session.resumption_error is not None
            assert session.resumption_error.reason == TicketRefusal.USED
        assert server.running
        assert server.get_stats().tickets_in_doubt == 2
    assert store.asked == 2
    assert [record.message for record in caplog.records if "tickets are refused" in record.message] == [
        f"tickets are refused, as nobody can say which were used: {error}"
    ]


async def test_a_store_that_does_not_answer() -> None:
    """H7, H-37: a full handshake wins meanwhile, and the node stops all the same."""
    store = Broken(None)
    with anyio.fail_after(15):
        async with STTNode(**server_options(ticket_store=store)) as server:
            session = await copy_and_come_back(server)
            assert not session.resumed
            assert store.asked == 1


async def test_a_store_that_is_slow_is_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    """H7: that tickets are refused for it is told: each counted, the first of a row logged."""
    doubts: list[None] = []
    answers: list[bool] = []
    slow = anyio.Event()

    async def ask(ticket_id: bytes, expires_at: float) -> bool:
        if ticket_id != bytes(16):
            await slow.wait()
        return True

    desk = TicketDesk(ask, 0.01, lambda: doubts.append(None))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.run)
        await anyio.wait_all_tasks_blocked()
        for row in (1, 2, 2):
            for number in range(1, 4):
                desk.offered(TicketOffered(bytes((number,)) * 16, 0.0), answers.append)
            while len(answers) % 4 < 3:
                await anyio.sleep(0.001)
            if row == 1:
                desk.offered(TicketOffered(bytes(16), 0.0), answers.append)
            else:
                desk.offered(TicketOffered(bytes(15) + b"x", 0.0), answers.append)
            while len(answers) % 4:
                await anyio.sleep(0.001)
        tasks.cancel_scope.cancel()
    assert answers == [False] * 3 + [True] + [False] * 8
    assert len(doubts) == 11
    assert [record.message for record in caplog.records] == [
        "tickets are refused, as nobody can say which were used: there was no answer within 0.01 s"
    ] * 2, "and again after it had answered"


async def test_a_store_that_is_asked_too_much() -> None:
    """H-36: what nobody can be asked about is refused at once, and waits for nobody; in time all are answered."""
    store = Broken(None)
    answers: list[bool] = []
    doubts: list[None] = []
    desk = TicketDesk(in_store(store, bytes(32)), 0.05, lambda: doubts.append(None))
    desk.offered(TicketOffered(bytes(16), 0.0), answers.append)
    assert answers == [False], "the node does not run"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.run)
        await anyio.wait_all_tasks_blocked()
        for number in range(MAX_ASKED + 10):
            desk.offered(TicketOffered(number.to_bytes(16), 0.0), answers.append)
        assert len(answers) == 11
        while len(answers) < MAX_ASKED + 11:
            await anyio.sleep(0.001)
        assert store.asked == MAX_ASKED
        assert not any(answers)
        assert len(doubts) == MAX_ASKED + 10
        tasks.cancel_scope.cancel()


async def test_how_long_the_store_remembers() -> None:
    """H-36: beyond the end of the ticket by more than clocks may differ; and it asks for a lifetime that there is."""
    clock, answers = Clock(), []
    store = MemorySessionStore(clock)
    desk = TicketDesk(in_store(store, bytes(32), lambda: 1_000_000.0), 5.0, lambda: None)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.run)
        await anyio.wait_all_tasks_blocked()
        for after in (0.0, 100.0 + store_module.SPARE - 1, 2.0):
            clock.now += after
            desk.offered(TicketOffered(bytes(16), 1_000_100.0), answers.append)
            await anyio.wait_all_tasks_blocked()
        desk.offered(TicketOffered(bytes(15) + b"x", 0.0), answers.append)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert answers == [True, False, True, True]


def test_a_store_has_to_be_one(tmp_path: Path) -> None:
    for node, options in (
        (STTNode, {"ticket_store": "redis://localhost"}),
        (STTNode, {"ticket_store": MemorySessionStore(), "ticket_file": tmp_path / "used"}),
        (BlockingNode, {"ticket_store": MemorySessionStore()}),
    ):
        with pytest.raises(ArgumentError) as caught:
            node(**server_options(**options))
        assert caught.value.argument == "ticket_store"
