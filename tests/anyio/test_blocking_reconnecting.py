"""A client that comes back, and a session that goes back to UDP, without an event loop (MISSION G9, E6).

See `test_reconnecting.py` and `test_regaining.py`; the policies here have short waits, since the clock is the real one.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import anyio
import pytest

from stt_anyio import (
    AuthenticationError,
    BlockingNode,
    BlockingSession,
    BlockingStream,
    NotSentError,
    OutcomeUnknownError,
    ReconnectPolicy,
    StreamClosedError,
    regaining,
)
from stt_anyio.blocking import BlockingReconnectingClient, ways
from stt_anyio.errors import ArgumentError, BufferOverflowError, SessionClosedError, StateError
from stt_proto.reconnect import Connected, Ended, GivenUp, Waiting

HERE = "127.0.0.1"
QUICK = ReconnectPolicy(first=0.01, most=0.05)


class Server:
    """A node on one port that can crash and come back, and answers as it is told."""

    def __init__(self, **options: Any) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind((HERE, 0))
            self.port = free.getsockname()[1]
        self._options = {"node_seed": b"s" * 32, "reset_key": b"r" * 32, **options}
        self.answer: Callable[[BlockingStream, bytes], object] = lambda stream, data: stream.send(data.upper())
        self.done: list[bytes] = []

    @contextmanager
    def up(self) -> Iterator[BlockingNode]:
        node = BlockingNode(
            shared_seed="x", host=HERE, port=self.port, server_mode=True, background=True, **self._options
        )
        with node:
            threads = [threading.Thread(target=self._accept, args=(node,))]
            threads[0].start()
            yield node
        threads[0].join(10)

    def _accept(self, node: BlockingNode) -> None:
        try:
            while True:
                threading.Thread(target=self._serve, args=(node.accept(),), daemon=True).start()
        except (SessionClosedError, OSError):
            return

    def _serve(self, session: BlockingSession) -> None:
        try:
            while True:
                stream = session.accept_stream()
                data = b"".join(stream)
                self.done.append(data)
                self.answer(stream, data)
                stream.close()
        except (SessionClosedError, StreamClosedError):
            return


@contextmanager
def clients(server: Server, **options: Any) -> Iterator[BlockingReconnectingClient]:
    seed = options.pop("shared_seed", "x")
    with BlockingNode(shared_seed=seed, host=HERE) as node:
        with node.reconnecting((HERE, server.port), **{"policy": QUICK, **options}) as client:
            yield client


def test_a_server_that_restarts() -> None:
    """G9: the next call dials; what may be done twice is done again."""
    server = Server()
    with clients(server) as client:
        with server.up():
            assert client.request(b"one") == b"ONE"
            first = client.session()
            assert client.session() is first
        with server.up():
            assert client.request(b"two", repeat=True, timeout=10) == b"TWO"
            assert client.session() is not first
            assert client.sessions == 2
            assert isinstance(client.state, Connected)


@pytest.mark.parametrize("word", [True, False])
def test_another_address(word: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """G9: where one server is gone, with or without a word, the next one is dialled; see `test_addresses.py`."""
    one, other = Server(), Server()
    with other.up() as second, BlockingNode(shared_seed="x", host=HERE, background=True) as node:
        with one.up() as first:
            addresses = [first.listen_tcp(), second.listen_tcp()]
            connect, dialled = node.connect, []
            monkeypatch.setattr(node, "connect", lambda *whom, **how: dialled.append(whom[0]) or connect(*whom, **how))
            client = node.reconnecting(addresses[0], transport="tcp", policy=QUICK, addresses=addresses[1:])
            assert client.request(b"one", timeout=10) == b"ONE"
            if not word:
                cut(node, client.session())
        assert client.request(b"two", timeout=10, repeat=True) == b"TWO"
        assert dialled == addresses
        client.close()
        with pytest.raises(ArgumentError):
            node.reconnecting((HERE, 1), addresses=(HERE, 2))
    assert (one.done, other.done) == ([b"one"], [b"two"])


def cut(node: BlockingNode, session: BlockingSession) -> None:
    """Its connections break, and it has no path."""
    with node.lock:
        for connection in tuple(node._connections["stream"].registry.by_path.values()):
            connection.close("cut")
    node.until(lambda: session.is_detached or None, 5)


def test_nobody_is_there() -> None:
    """G9: not sent, whether the time is over or the tries are; a session that is asked for is a plain timeout."""
    server = Server()
    with clients(server) as client:
        with pytest.raises(NotSentError) as caught:
            client.request(b"hello", timeout=0.1)
        assert isinstance(caught.value, TimeoutError)
        with pytest.raises(TimeoutError):
            client.session(timeout=0.1)
        assert isinstance(client.state, Waiting)
    with clients(server, policy=ReconnectPolicy(first=0.01, attempts=2), timeout=0.05) as client:
        with pytest.raises(NotSentError) as caught:
            client.request(b"hello")
        assert not isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value.__cause__, anyio.ConnectionFailed)


def test_a_wrong_seed() -> None:
    server = Server()
    with server.up(), clients(server, shared_seed="y") as client:
        for _ in range(2):
            with pytest.raises(AuthenticationError):
                client.session(timeout=10)
        assert isinstance(client.state, GivenUp)


def test_cut_after_it_was_sent() -> None:
    """G9: unknown, with what was acknowledged, and what came of the answer."""
    server = Server()

    def cut(stream: BlockingStream, data: bytes) -> None:
        stream.send(b"HE", timeout=5)
        stream.session.abort()

    server.answer = cut
    with server.up(), clients(server) as client:
        with pytest.raises(OutcomeUnknownError) as caught:
            client.request(b"hello", timeout=10)
        error = caught.value
        assert (error.bytes_sent, error.bytes_acknowledged, error.bytes_received) == (5, 5, 2)
        assert isinstance(error.__cause__, SessionClosedError)
        assert server.done == [b"hello"]


def test_no_answer_in_time() -> None:
    server, over = Server(), threading.Event()
    server.answer = lambda stream, data: bool(over.wait(10))
    with server.up(), clients(server) as client:
        client.session()
        with pytest.raises(OutcomeUnknownError) as caught:
            client.request(b"hello", timeout=0.2)
        assert isinstance(caught.value, TimeoutError)
        over.set()


def test_answers_that_are_no_answers() -> None:
    server = Server()
    with server.up(), clients(server) as client:
        with pytest.raises(BufferOverflowError):
            client.request(b"hello", max_size=4)
        with pytest.raises(ArgumentError):
            client.request(b"hello", purpose="x" * 256)
        server.answer = lambda stream, data: stream.reset(7)
        with pytest.raises(StreamClosedError) as caught:
            client.request(b"hello")
        assert caught.value.stream_code == 7
        assert client.sessions == 1


def test_no_place_for_a_stream() -> None:
    """It waits for one, and nothing has been sent as long as it does."""
    server = Server(max_concurrent_streams=1)
    with server.up(), clients(server) as client:
        stream = client.session().open_stream()
        stream.send(b"x")
        with pytest.raises(NotSentError):
            client.request(b"hello", timeout=0.2)


def test_each_session_is_prepared() -> None:
    """G9: and who fails at that ends it."""
    server = Server()

    def prepare(session: BlockingSession) -> None:
        assert session.exchange(session.open_stream(), b"settings", 5) == b"SETTINGS"

    with clients(server, prepare=prepare) as client:
        for number in (1, 2):
            with server.up():
                client.session(timeout=10)
                assert server.done == [b"settings"] * number

    def lose(session: BlockingSession) -> None:
        nonlocal lost
        lost += 1
        if lost < 3:
            for other in node.until(lambda: node.get_active_sessions() or None, 5):
                other.abort()
            session.exchange(session.open_stream(), b"settings", 5)

    lost = 0
    with server.up() as node, clients(server, prepare=lose) as client:
        client.session(timeout=10)
        assert (lost, client.sessions) == (3, 1)

    def fail(session: BlockingSession) -> None:
        raise RuntimeError("a bug")

    with server.up(), clients(server, prepare=fail) as client:
        with pytest.raises(RuntimeError):
            client.session(timeout=10)
        assert not client.node.sessions


def test_what_prepare_must_not_wait_for() -> None:
    """A11: a session of the client, for which everybody waits, `prepare` included; it says so."""
    server = Server()
    tries: list[StateError] = []

    def prepare(session: BlockingSession) -> None:
        for call in (client.session, lambda: client.request(b"hello")):
            with pytest.raises(StateError, match="prepare") as caught:
                call()
            tries.append(caught.value)

    with server.up(), clients(server, prepare=prepare) as client:
        client.session(timeout=10)
        assert len(tries) == 2


def test_interrupted_while_it_is_dialled() -> None:
    """Ctrl-C ends the call; the next one dials."""
    server, calls = Server(), list[BlockingSession]()

    def prepare(session: BlockingSession) -> None:
        calls.append(session)
        if len(calls) == 1:
            raise KeyboardInterrupt

    with server.up(), clients(server, prepare=prepare) as client:
        with pytest.raises(KeyboardInterrupt):
            client.session()
        assert calls[0].is_closed
        assert client.session(timeout=10) is calls[1]


def test_answered_before_it_was_sent() -> None:
    """G9: the answer stands, and the peer does not take what it has of the request for all of it."""
    server, heard = Server(), threading.Event()

    def serve(session: BlockingSession) -> None:
        stream = session.accept_stream()
        stream.receive(10)
        stream.send(b"enough")
        stream.send_eof()
        try:
            for _ in stream:
                time.sleep(0.001)  # slower than who sends
        except StreamClosedError:
            heard.set()

    server._serve = serve  # type: ignore[method-assign]
    with server.up(), clients(server) as client:
        assert client.request(bytes(50_000_000), timeout=30) == b"enough"
        give_up = time.monotonic() + 10
        while not heard.is_set():  # which is no event of this node, so it looks again and again
            assert time.monotonic() < give_up
            with suppress(TimeoutError):
                client.node.until(lambda: heard.is_set() or None, 0.01)


def test_threads() -> None:
    """One dials, the others wait for that, each as long as it wants; closing wakes them."""
    server = Server()
    with clients(server, policy=ReconnectPolicy(first=60, most=60), timeout=0.1) as client:
        errors: list[Exception] = []

        def ask() -> None:
            try:
                client.session()
            except SessionClosedError as error:
                errors.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        while not client._dialling.locked():
            time.sleep(0.001)
        with pytest.raises(TimeoutError):
            client.session(timeout=0.01)
        client.close()
        thread.join(10)
        assert len(errors) == 1
        assert isinstance(errors[0], anyio.ClosedResourceError)
        assert client.state == Ended()


def test_closed_while_it_is_dialled() -> None:
    """What comes of that is ended, and it stays closed."""
    server, asked, closed = Server(), threading.Event(), threading.Event()

    def prepare(session: BlockingSession) -> None:
        asked.set()
        closed.wait(10)

    with server.up() as node, clients(server, prepare=prepare) as client:
        errors: list[Exception] = []

        def ask() -> None:
            try:
                client.session()
            except SessionClosedError as error:
                errors.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        assert asked.wait(10)
        client.close()
        closed.set()
        thread.join(10)
        assert len(errors) == 1
        assert (client.state, client.sessions) == (Ended(), 0)
        assert not client.node.sessions
        node.until(lambda: not node.sessions or None, 5)


@pytest.mark.parametrize("known", [True, False])
def test_a_session_without_a_path(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """C9, G9: it is found again, and nothing is lost; where the peer knows it no longer there is a new one."""
    monkeypatch.setattr("stt_anyio.reconnecting_base.REATTACHING", 5.0 if known else 0.1)
    server = Server()
    with server.up() as node, BlockingNode(shared_seed="x", host=HERE, background=True) as ours:
        address = node.listen_tcp()
        with ours.reconnecting(address, transport="tcp", policy=QUICK) as client:
            session = client.session()
            cut(ours, session)
            if not known:
                node.until(lambda: node.get_active_sessions() or None, 5)[0].abort()
            assert client.request(b"hello", timeout=10) == b"HELLO"
            assert (client.session() is session) is known
            assert client.sessions == (1 if known else 2)


# -- E6 ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [True, False])
def test_udp_passes_again(wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """E6: looked for by itself, if that is wanted; nothing is asked on UDP; the thread ends with the session."""
    monkeypatch.setattr(regaining, "PROBES", ReconnectPolicy(first=0.05, most=0.1))
    monkeypatch.setattr(ways, "PATIENCE", 0.1)
    before, looks = threads(), list[bool]()

    def is_elsewhere(session: BlockingSession, carrier: str) -> bool:
        looks.append(regaining.is_elsewhere(session, carrier))
        return looks[-1]

    monkeypatch.setattr(ways, "is_elsewhere", is_elsewhere)
    server = Server()
    with (
        server.up() as node,
        BlockingNode(shared_seed="x", host=HERE, background=True, probe_udp=wanted) as client,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute,
    ):
        mute.bind((HERE, 0))
        real, calls = client._udp_path, list[Any]()

        def blocked(address: Any) -> Any:
            calls.append(address)
            return real(mute.getsockname() if len(calls) < 3 else address)

        monkeypatch.setattr(client, "_udp_path", blocked)
        _, port = node.listen_websocket()
        session = client.connect((HERE, server.port), websocket=f"ws://{HERE}:{port}/")
        assert session.transport_type == "ws"
        if wanted:
            client.until(lambda: session.transport_type == "udp" or None, 10)
            soon(lambda: looks[-2:] == [False, False])
            assert len(calls) == 3
            session.close()
        soon(lambda: threads() <= before)
        assert bool(looks) is wanted


def threads() -> set[int | None]:
    """Those that dial, or look for UDP."""
    return {thread.ident for thread in threading.enumerate() if thread.name == "BlockingNode.connect"}


def soon(look: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 10
    while not look():
        assert time.monotonic() < give_up
        time.sleep(0.001)
