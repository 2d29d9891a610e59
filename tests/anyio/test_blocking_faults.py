"""A blocking node when things go wrong beside the network: Ctrl-C, callbacks that end it, arguments that are none."""

from __future__ import annotations

import errno
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import inf, nan
from typing import Any

import pytest

from stt_anyio import BlockingNode, BlockingSession, STTNode
from stt_anyio.blocking.connections import Connections
from stt_anyio.errors import ArgumentError, ConnectionTimeoutError, StateError, UnreachableError
from tests.anyio.test_blocking import LOOPBACK, nodes, sessions

NO_TIMES = [nan, "5", True]
LONG = 600.0


@pytest.fixture
def silent() -> Iterator[tuple[str, int]]:
    """Where somebody is who never answers, over UDP and TCP."""
    with socket.create_server((LOOPBACK, 0)) as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(tcp.getsockname())
        yield tcp.getsockname()


def dialling_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "BlockingNode.connect"]


class Interrupted:
    """A queue on which waiting ends with Ctrl-C: at once, or when there would have been something."""

    def __init__(self, *, late: bool) -> None:
        self._late = late
        self._there = threading.Event()

    def put(self, item: object) -> None:
        self._there.set()

    def get(self, timeout: float | None = None) -> Any:
        if self._late:
            assert self._there.wait(10)
        raise KeyboardInterrupt

    @classmethod
    def __class_getitem__(cls, item: object) -> Any:
        return cls


# -- dialling both ways --------------------------------------------------------------------------------------------


def test_interrupted_while_it_dials_both_ways(monkeypatch: pytest.MonkeyPatch, silent: tuple[str, int]) -> None:
    """The attempt that goes on in a thread is given up, and comes to no session that nobody has."""
    monkeypatch.setattr("stt_anyio.blocking.ways.queue.SimpleQueue", _queue(late=False))
    with BlockingNode(shared_seed="x", host=LOOPBACK, background=True) as node:
        with pytest.raises(KeyboardInterrupt):
            node.connect(silent, timeout=LONG, websocket=f"ws://{LOOPBACK}:{silent[1]}/")
        for thread in dialling_threads():
            thread.join(10)
        assert not dialling_threads()
        assert not node._dialing
        assert not node.sessions


def test_interrupted_when_a_session_has_come(monkeypatch: pytest.MonkeyPatch, silent: tuple[str, int]) -> None:
    """One that has won, and is not handed to anybody, is ended."""
    monkeypatch.setattr("stt_anyio.blocking.ways.queue.SimpleQueue", _queue(late=True))
    with nodes() as (server, client):
        with pytest.raises(KeyboardInterrupt):
            client.connect((LOOPBACK, server.port), timeout=LONG, websocket=f"ws://{LOOPBACK}:{silent[1]}/")
        assert not client.sessions


def _queue(*, late: bool) -> Any:
    class Queue(Interrupted):
        def __init__(self) -> None:
            super().__init__(late=late)

    return Queue


def test_whatever_ends_an_attempt_is_told(monkeypatch: pytest.MonkeyPatch, threads: ThreadPoolExecutor) -> None:
    """A bug in a thread was waited for without end."""
    with BlockingNode(shared_seed="x", host=LOOPBACK) as node:
        monkeypatch.setattr(node, "_connect", lambda *_: (_ for _ in ()).throw(ZeroDivisionError))
        waiting = threads.submit(node.connect, (LOOPBACK, 9), timeout=1, websocket=f"ws://{LOOPBACK}:9/")
        assert isinstance(waiting.exception(10), ZeroDivisionError)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(2)
    yield pool
    pool.shutdown(wait=False)


def test_what_is_dialled_changes_under_the_lock(silent: tuple[str, int]) -> None:
    """The pump of another thread walks it when the system says that nobody listens."""

    class Watched(dict[Any, Any]):
        def __setitem__(self, key: object, value: object) -> None:
            assert node.lock._is_owned()  # type: ignore[attr-defined]
            super().__setitem__(key, value)

        def __delitem__(self, key: object) -> None:
            assert node.lock._is_owned()  # type: ignore[attr-defined]
            super().__delitem__(key)

    with BlockingNode(shared_seed="x", host=LOOPBACK) as node:
        node._dialing = Watched()
        with pytest.raises(ConnectionTimeoutError):
            node.connect(silent, timeout=0.01)


def test_a_peer_that_is_gone_before_the_first_byte(monkeypatch: pytest.MonkeyPatch, silent: tuple[str, int]) -> None:
    """The system knows no address of the other end any more."""
    gone = OSError(errno.ENOTCONN, "Transport endpoint is not connected")
    with BlockingNode(shared_seed="x", host=LOOPBACK) as node:
        for name, where in (("_path_of", Connections), ("setblocking", socket.socket)):
            with monkeypatch.context() as patched:
                patched.setattr(where, name, lambda *_: (_ for _ in ()).throw(gone))
                with pytest.raises(UnreachableError, match="not connected"):
                    node.connect_tcp(*silent)


# -- a thread in the background ------------------------------------------------------------------------------------


def test_a_callback_may_stop_the_node() -> None:
    """In the thread that pumps, which ends by that, and not another that was started meanwhile."""
    told: list[object] = []
    done = threading.Event()
    with nodes() as (server, client):
        first = server._thread
        assert first is not None

        @server.on_session_closed
        def closed(session_id: bytes, reason: str) -> None:
            try:
                server.stop(timeout=1)
                server.start()
                told.append("started again")
            except BaseException as error:
                told.append(error)
            done.set()

        client.connect((LOOPBACK, server.port)).close()
        assert done.wait(10)
        assert told == ["started again"]
        first.join(10)
        assert not first.is_alive()
        assert server._thread is not first
        assert client.connect((LOOPBACK, server.port)).is_active()


@pytest.mark.parametrize("error", [SystemExit("config missing"), ZeroDivisionError("a bug")], ids=repr)
def test_what_ends_the_thread_ends_the_node(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits hears of it, and it does not run any more."""
    printed: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: printed.append(args.exc_value))
    with ThreadPoolExecutor(1) as threads, sessions() as (ours, theirs):
        server = theirs.node
        call_back, pump, thread = server._call_back, server._pump, server._thread
        assert thread is not None

        def pump_in_the_background(seconds: float) -> None:
            if threading.current_thread() is thread:
                pump(seconds)
            else:
                server._turn.wait(0.01)

        monkeypatch.setattr(server, "_pump", pump_in_the_background)
        waiting = threads.submit(server.accept)

        def end() -> None:
            if threading.current_thread() is thread:
                raise error
            call_back()

        monkeypatch.setattr(server, "_call_back", end)
        ours.open_stream().send(b"x")
        failure = waiting.exception(10)
        assert isinstance(failure, StateError)
        assert repr(error) in str(failure)
        assert failure.__cause__ is error
        assert not server.running
        thread.join(10)
        monkeypatch.setattr(server, "_call_back", call_back)
        with pytest.raises(StateError, match="what pumped the node ended"):
            server.stop()
        assert server._thread is None
        server.start()
        assert server.running
        ours.abort()
    assert printed == ([] if isinstance(error, SystemExit) else [error])


def test_sys_exit_in_a_callback() -> None:
    with nodes() as (server, client):
        thread = server._thread
        assert thread is not None
        server.on_session_established(lambda session: sys.exit("config missing"))
        client.connect((LOOPBACK, server.port)).abort()
        thread.join(10)
        assert not server.running
        with pytest.raises(StateError, match="config missing"):
            server.poll(LONG)
        with pytest.raises(StateError, match="config missing"):
            server.stop()


@pytest.mark.parametrize("what", ["socketpair", "thread"])
def test_a_start_that_fails_gives_everything_back(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((LOOPBACK, 0))
        port = sock.getsockname()[1]
    node = BlockingNode(shared_seed="x", host=LOOPBACK, port=port, background=True)

    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(*(("socket.socketpair", fail) if what == "socketpair" else (threading.Thread, "start", fail)))
        with pytest.raises(OSError, match="Too many open files") as caught:
            node.start()
    assert not node.running
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((LOOPBACK, port))
    assert caught.value.errno == errno.EMFILE
    node.start()
    node.stop()


# -- arguments that are none ---------------------------------------------------------------------------------------

CALLS: dict[str, Callable[[BlockingNode, BlockingSession, Any], Any]] = {
    "udp": lambda node, session, t: node.connect((LOOPBACK, 9), timeout=t),
    "tcp": lambda node, session, t: node.connect_tcp(LOOPBACK, 9, timeout=t),
    "ws": lambda node, session, t: node.connect_websocket(f"ws://{LOOPBACK}:9/", timeout=t),
    "both": lambda node, session, t: node.connect((LOOPBACK, 9), timeout=t, websocket=f"ws://{LOOPBACK}:9/"),
    "accept": lambda node, session, t: node.accept(t),
    "receive": lambda node, session, t: node.receive(t),
    "poll": lambda node, session, t: node.poll(t),
    "stop": lambda node, session, t: node.stop(t),
    "drain": lambda node, session, t: node.drain(t),
    "send_to_all": lambda node, session, t: node.send_to_all(b"x", timeout=t),
    "close_session": lambda node, session, t: node.session_manager.close_session(session.session_id, timeout=t),
    "close_all": lambda node, session, t: node.session_manager.close_all_sessions(timeout=t),
    "rotate_all": lambda node, session, t: node.session_manager.rotate_all_keys(t),
    "request": lambda node, session, t: session.request(b"x", t),
    "accept_stream": lambda node, session, t: session.accept_stream(t),
    "rotate_key": lambda node, session, t: session.rotate_key(t),
    "add_path": lambda node, session, t: session.add_path((LOOPBACK, 9), timeout=t),
    "migrate": lambda node, session, t: session.migrate(timeout=t),
    "close": lambda node, session, t: session.close(timeout=t),
    "wait_closed": lambda node, session, t: session.wait_closed(t),
    "reconnecting": lambda node, session, t: node.reconnecting((LOOPBACK, 9)).session(t),
}


@pytest.mark.parametrize("timeout", NO_TIMES, ids=repr)
def test_a_timeout_that_is_none_is_refused_at_once(timeout: Any) -> None:
    """By its name, and before anything is done: no session closes, no key is replaced, no stop begins."""
    with sessions() as (ours, theirs):
        before = ours.key_version
        for name, call in CALLS.items():
            with pytest.raises(ArgumentError, match="timeout is ") as caught:
                call(ours.node, ours, timeout)
            assert caught.value.argument == "timeout", name
        assert ours.is_active()
        assert ours.key_version == before
        assert ours.node.connect((LOOPBACK, theirs.node.port)).is_active()


@pytest.mark.parametrize(
    ("argument", "value"),
    [("peer_node_id", b"x"), ("peer_node_id", "ab" * 32), ("ticket", b"x"), ("early_data", "text"), ("timeout", "5")],
)
@pytest.mark.parametrize("both", [False, True])
def test_what_a_dial_cannot_be_asked_for_opens_nothing(
    silent: tuple[str, int], argument: str, value: Any, both: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was refused when the connection was there, which was left."""
    opened: list[object] = []
    monkeypatch.setattr("stt_anyio.blocking.ways.socket.create_connection", lambda *given: opened.append(given))
    options: dict[str, Any] = {"websocket": f"ws://{LOOPBACK}:{silent[1]}/"} if both else {}
    with BlockingNode(shared_seed="x", host=LOOPBACK) as node:
        with pytest.raises(ArgumentError) as caught:
            node.connect(silent, transport="tcp", **{argument: value}, **options)
    assert caught.value.argument == argument
    assert not opened


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("timeout", [-1, 0, -inf])
def test_a_time_that_is_over_already(silent: tuple[str, int], transport: str, timeout: float) -> None:
    with BlockingNode(shared_seed="x", host=LOOPBACK) as node:
        with pytest.raises(ConnectionTimeoutError, match=f"no answer from {LOOPBACK}"):
            node.connect(silent, timeout=timeout, transport=transport)


@pytest.mark.parametrize("timeout", [inf, 1e300, 10**300])
def test_all_the_time_in_the_world(timeout: float) -> None:
    """More than the clocks of the system hold is no error."""
    with nodes() as (server, client):
        session = client.connect_tcp(*server.listen_tcp(), timeout=timeout)
        theirs = server.accept(timeout)
        theirs.open_stream().send(b"x")
        assert session.accept_stream(timeout).receive(timeout=timeout) == b"x"
        with client.reconnecting((LOOPBACK, server.port)) as peer:
            assert peer.session(timeout).is_active()


@pytest.mark.parametrize("port", [-1, 65_536, 70_000, 73_979, "80", 80.0, True, None])
@pytest.mark.parametrize("listen", ["listen_tcp", "listen_websocket"])
async def test_ports_to_listen_at_that_are_none(listen: str, port: Any) -> None:
    """The system would bind another one: 4,464 for 70,000."""
    with BlockingNode(shared_seed="x", host=LOOPBACK) as blocking, pytest.raises(ArgumentError) as caught:
        getattr(blocking, listen)(port=port)
    assert caught.value.argument == "port"
    async with STTNode(shared_seed="x", host=LOOPBACK) as node:
        with pytest.raises(ArgumentError, match="from 0 to 65,535") as caught:
            await getattr(node, listen)(port=port)
    assert caught.value.argument == "port"


@pytest.mark.parametrize("host", [5, b"127.0.0.1", "x" * 64, "a\0b", "\udcff"], ids=ascii)
@pytest.mark.parametrize("listen", ["listen_tcp", "listen_websocket"])
async def test_hosts_to_listen_at_that_are_none(listen: str, host: Any) -> None:
    with BlockingNode(shared_seed="x", host=LOOPBACK) as blocking, pytest.raises(ArgumentError) as caught:
        getattr(blocking, listen)(host)
    assert caught.value.argument == "host"
    async with STTNode(shared_seed="x", host=LOOPBACK) as node:
        with pytest.raises(ArgumentError, match="the name of a host") as caught:
            await getattr(node, listen)(host)
    assert caught.value.argument == "host"
