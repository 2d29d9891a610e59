"""Several processes on one port: how they end, are started again, and what goes wrong."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from stt_anyio import ArgumentError, NodeConfig, Session, StateError, SttError, STTNode
from stt_anyio.stores import MemorySessionStore
from stt_anyio.workers import WorkerFleet, fleet, serve_workers
from stt_anyio.workers.setup import MAX_LINE, Control
from tests.anyio import worker_apps
from tests.anyio.fleets import HOST, LIMIT, ON_ONE_LOOP, ROOT, SEED, Naming, alive, ask, known, serving, until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="ports are shared so on Linux only"),
]


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
    async with serving(2, restarts=0) as (served, _), AsyncExitStack() as tied:
        clients = [await tied.enter_async_context(Naming(worker)) for worker in range(2)]
        session = [await each.connect((HOST, served.port)) for each in clients]
        descriptors = len(os.listdir("/proc/self/fd"))
        for worker in (0, 1, 0):
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
        assert [each.restarts for each in (await served.stats()).workers] == [2, 1]


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


@ON_ONE_LOOP
async def test_a_worker_that_babbles() -> None:
    """A worker that is not itself any more ends, and not the fleet."""
    async with serving(1, worker_apps.babbles) as (served, client):
        before = served.pids
        session = await client.connect((HOST, served.port))
        async with session.open_stream() as stream:
            await stream.send(b"nonsense\n")
        await until(lambda: served.pids[0] not in (None, before[0]))


@pytest.mark.parametrize("words", [b"nonsense\n", b"[]\n", b"\xff\n", bytes(MAX_LINE + 1)])
async def test_what_is_no_line(words: bytes) -> None:
    """Supervision: what is said is bounded, and an object in JSON."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.setblocking(False)
        control = Control(await anyio.abc.UNIXSocketStream.from_socket(ours))
        left = memoryview(words)
        async with anyio.create_task_group() as tasks:

            async def write() -> None:
                nonlocal left
                while left:
                    await anyio.wait_writable(theirs)
                    left = left[theirs.send(left) :]

            tasks.start_soon(write)
            with pytest.raises(ValueError, match=r"Expecting|no object|decode|delimiter"):
                await control.hear()
            tasks.cancel_scope.cancel()
        await control.aclose()


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


# -- signals -----------------------------------------------------------------------------------------------------


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
