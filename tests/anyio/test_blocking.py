"""The blocking host: no event loop, one lock, whoever waits pumps for all."""

from __future__ import annotations

import gc
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import anyio
import pytest

from stt_anyio import BlockingNode, BlockingSession, BlockingStream, SessionClosedError, StreamClosedError, STTNode
from stt_anyio.errors import (
    ArgumentError,
    AuthenticationError,
    BufferOverflowError,
    ConnectionRefusedError,
    ConnectionTimeoutError,
    NotSentError,
    OutcomeUnknownError,
    StateError,
    SttError,
    TooManyStreamsError,
    UnreachableError,
)

LOOPBACK = "127.0.0.1"
SMALL: dict[str, Any] = {
    "stream_send_buffer": 65_536,
    "stream_recv_buffer": 65_536,
    "session_recv_buffer": 65_536,
}


@contextmanager
def nodes(**options: Any) -> Iterator[tuple[BlockingNode, BlockingNode]]:
    """A server that a thread of its own pumps, and a client that nobody pumps but its calls."""
    options = {"shared_seed": "x", "host": LOOPBACK, **options}
    with BlockingNode(server_mode=True, background=True, **options) as server, BlockingNode(**options) as client:
        yield server, client


@contextmanager
def sessions(**options: Any) -> Iterator[tuple[BlockingSession, BlockingSession]]:
    with nodes(**options) as (server, client):
        session = client.connect((LOOPBACK, server.port), peer_node_id=server.node_id)
        yield session, server.accept(timeout=5)


def pair(ours: BlockingSession, theirs: BlockingSession, **options: Any) -> tuple[BlockingStream, BlockingStream]:
    stream = ours.open_stream(**options)
    stream.send(b"!")
    peer = theirs.accept_stream(timeout=5)
    assert peer.receive(1, timeout=5) == b"!"
    return stream, peer


def read_all(stream: BlockingStream) -> bytes:
    data = bytearray()
    while piece := stream.receive(timeout=10):
        data += piece
    return bytes(data)


def echo(session: BlockingSession) -> None:
    stream = session.accept_stream(timeout=10)
    for piece in stream:
        stream.send(piece)
    stream.close()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


# -- streams -------------------------------------------------------------------------------------------------------


def test_one_thread_asks_and_is_answered(threads: ThreadPoolExecutor) -> None:
    with sessions() as (ours, theirs):
        done = threads.submit(echo, theirs)
        assert ours.exchange(ours.open_stream(), b"hello", timeout=5) == b"hello"
        done.result(5)


def test_an_exchange_of_more_than_all_buffers_is_no_deadlock(threads: ThreadPoolExecutor) -> None:
    data = os.urandom(1 << 20)
    with sessions(**SMALL) as (ours, theirs):
        done = threads.submit(echo, theirs)
        assert ours.exchange(ours.open_stream(), data, timeout=10) == data
        done.result(5)


def test_wait_writable_waits_for_room(threads: ThreadPoolExecutor) -> None:
    with sessions(**SMALL) as (ours, theirs):
        stream, peer = pair(ours, theirs)
        stream.wait_writable(5)
        with pytest.raises(TimeoutError):
            stream.send(bytes(1 << 20), timeout=0.2)
        with pytest.raises(TimeoutError):
            stream.wait_writable(0.05)
        done = threads.submit(read_all, peer)
        stream.wait_writable(5)
        stream.send_eof()
        assert stream.bytes_accepted == 1 + len(done.result(5))
        with pytest.raises(StreamClosedError):
            stream.wait_writable(5)


def test_an_exchange_has_bounds(threads: ThreadPoolExecutor) -> None:
    with sessions() as (ours, theirs):
        done = threads.submit(echo, theirs)
        stream = ours.open_stream()
        with pytest.raises(BufferOverflowError):
            ours.exchange(stream, bytes(1000), timeout=5, max_size=999)
        done.result(5)
        with pytest.raises(TimeoutError):
            ours.exchange(ours.open_stream(), b"to nobody", timeout=0.02)


def test_who_stops_listening_may_still_answer(threads: ThreadPoolExecutor) -> None:
    with sessions(**SMALL) as (ours, theirs):

        def enough() -> None:
            peer = theirs.accept_stream(timeout=5)
            peer.stop(1)
            peer.send(b"enough")
            peer.close()

        done = threads.submit(enough)
        assert ours.exchange(ours.open_stream(), bytes(1 << 20), timeout=5) == b"enough"
        done.result(5)


def test_one_thread_sends_while_another_receives(threads: ThreadPoolExecutor) -> None:
    data = os.urandom(1 << 20)
    with sessions(**SMALL) as (ours, theirs):
        done = threads.submit(echo, theirs)
        stream = ours.open_stream()

        def send() -> None:
            for start in range(0, len(data), 50_000):
                stream.send(memoryview(data)[start : start + 50_000])
            stream.send_eof()

        sent = threads.submit(send)
        assert read_all(stream) == data
        sent.result(5)
        done.result(5)


def test_a_blocked_send_takes_in_and_delivers(threads: ThreadPoolExecutor) -> None:
    """While one stream waits for room, its thread pumps for everybody."""
    with sessions(**SMALL) as (ours, theirs):
        full, peer = pair(ours, theirs)
        other, their_other = pair(ours, theirs)
        sending = threads.submit(full.send, bytes(512 * 1024), 5)
        while not full.bytes_acknowledged:
            time.sleep(0.001)
        answer = threads.submit(other.receive, 100, 5)
        their_other.send(b"through")
        assert peer.receive(timeout=5)
        assert answer.result(5) == b"through"
        while theirs.get_stats().stream_bytes_received < 512 * 1024 + 2:
            peer.receive(timeout=5)
        sending.result(5)


def test_who_waits_for_the_sockets_learns_of_an_earlier_deadline(threads: ThreadPoolExecutor) -> None:
    """One thread waits in the system for as long as nothing is due; another then sends something that gets lost."""
    with sessions() as (ours, theirs):
        stream, _ = pair(ours, theirs)
        with theirs.lock:  # from here on nobody answers
            waiting = threads.submit(stream.receive)
            time.sleep(0.1)
            sent = ours.get_stats().packets_sent
            stream.send(b"x")
            until = time.monotonic() + 5
            while ours.get_stats().packets_sent < sent + 3:
                assert time.monotonic() < until, "nobody woke up to send it again"
                time.sleep(0.01)
        ours.abort()
        assert isinstance(waiting.exception(5), anyio.ClosedResourceError)


def test_timeouts_and_ends() -> None:
    with sessions(**SMALL) as (ours, theirs):
        stream, peer = pair(ours, theirs)
        with pytest.raises(TimeoutError):
            stream.receive(timeout=0.01)
        stream.send(b"acknowledged", timeout=5)
        assert stream.bytes_acknowledged == stream.bytes_accepted
        with pytest.raises(TimeoutError):
            stream.send(bytes(100_000), timeout=0.05)
        with pytest.raises(TimeoutError):
            stream.flush(timeout=0.01)
        for wrong in (0, -1):
            with pytest.raises(ArgumentError):
                stream.receive(wrong)
        for call in (stream.send, ours.send_datagram, lambda data: ours.exchange(stream, data)):
            with pytest.raises(ArgumentError):
                call("text")  # type: ignore[arg-type]
        while stream.bytes_acknowledged < stream.bytes_accepted:
            peer.receive(timeout=5)
            ours.node.poll(0.01)
        stream.send_all(b"last")
        stream.send_eof()
        with pytest.raises(anyio.ClosedResourceError):
            stream.send(b"x")
        while piece := peer.receive(timeout=5):
            assert piece
        assert peer.receive(timeout=5) == b""
        peer.send(b"back")
        assert stream.receive(timeout=5) == b"back"
        stream.close()
        stream.close()
        with pytest.raises(anyio.ClosedResourceError):
            stream.receive()


def test_resets_and_stops() -> None:
    with sessions() as (ours, theirs):
        stream, peer = pair(ours, theirs)
        stream.reset(7)
        with pytest.raises(StreamClosedError) as caught:
            peer.receive(timeout=5)
        assert caught.value.stream_code == 7
        assert isinstance(caught.value, anyio.BrokenResourceError)
        with stream:
            pass
        with pytest.raises(StreamClosedError):
            peer.send(bytes(4 << 20), timeout=5)
        failing, peer = pair(ours, theirs)
        with pytest.raises(RuntimeError), failing:
            raise RuntimeError("a bug")
        with pytest.raises(StreamClosedError):
            peer.receive(timeout=5)


def test_one_way_streams_and_datagrams() -> None:
    with sessions() as (ours, theirs):
        stream, peer = pair(ours, theirs, bidirectional=False, purpose="news")
        assert peer.purpose == "news"
        with pytest.raises(StateError):
            stream.receive()
        with pytest.raises(StateError):
            peer.send(b"x")
        ours.send_datagram(b"quick")
        assert theirs.receive_datagram(timeout=5) == b"quick"
        assert ours.get_stream(stream.stream_id) is stream
        assert ours.get_stats().datagrams_sent > 0
        assert ours.get_statistics()["session_id"] == ours.session_id
        assert ours.export_keying_material("x", 16) == theirs.export_keying_material("x", 16)


def test_the_limit_on_streams_passes(threads: ThreadPoolExecutor) -> None:
    with sessions(max_concurrent_streams=1) as (ours, theirs):
        ours.wait_streams_available(timeout=1)
        first, peer = pair(ours, theirs)
        with pytest.raises(TooManyStreamsError):
            ours.open_stream()
        with pytest.raises(TimeoutError):
            ours.wait_streams_available(timeout=0.01)
        waiting = threads.submit(ours.wait_streams_available, 5)
        first.close()
        peer.close()
        waiting.result(5)
        pair(ours, theirs)
        ours.close()
        with pytest.raises(SessionClosedError):
            ours.wait_streams_available()


# -- sessions ------------------------------------------------------------------------------------------------------


def test_closing_delivers_and_wakes_everybody(threads: ThreadPoolExecutor) -> None:
    with sessions() as (ours, theirs):
        stream, peer = pair(ours, theirs)
        waiting = [
            threads.submit(call)
            for call in (stream.receive, ours.accept_stream, ours.receive_datagram, ours.wait_closed)
        ]
        stream.send(b"the last thing")
        with ours:
            pass
        for each in waiting[:3]:
            assert isinstance(each.exception(5), anyio.ClosedResourceError)
        assert waiting[3].result(5) == "graceful"
        assert theirs.wait_closed(timeout=5) == "graceful"
        assert peer.receive() == b"the last thing"
        with pytest.raises(SessionClosedError) as caught:
            peer.receive()
        assert isinstance(caught.value, anyio.BrokenResourceError)
        for call in (theirs.accept_stream, theirs.receive_datagram):
            with pytest.raises(anyio.BrokenResourceError):
                call()
        ours.close()


def test_a_block_that_fails_closes_with_error() -> None:
    with sessions() as (ours, theirs):
        with pytest.raises(RuntimeError), ours:
            raise RuntimeError("a bug")
        assert theirs.wait_closed(timeout=5) == "error"
    with sessions() as (ours, theirs):
        ours.abort()
        assert theirs.wait_closed(timeout=5) == "error"


# -- nodes ---------------------------------------------------------------------------------------------------------


def test_it_binds_what_was_asked_for_and_can_start_again() -> None:
    node = BlockingNode(shared_seed="x", host=LOOPBACK)
    assert (node.host, node.port, node.running) == (LOOPBACK, 0, False)
    for early in (node.accept, node.receive, node.poll, node.__iter__().__next__):
        with pytest.raises(StateError, match="never started"):
            early()
    for _ in range(2):
        node.start(server_mode=True)
        assert node.port
        assert node.accepting
        with pytest.raises(StateError):
            node.start()
        with pytest.raises(OSError, match="in use"):
            BlockingNode(shared_seed="x", host=LOOPBACK, port=node.port).start()
        assert not node.poll()
        node.stop()
        node.stop()
    with pytest.raises(StateError):
        node.connect((LOOPBACK, 1))
    with pytest.raises(SessionClosedError):
        node.accept()


def test_a_node_that_was_never_stopped_warns() -> None:
    def forget() -> None:
        gc.disable()  # a collection in the middle of `start` would have the node outlive its sockets
        try:
            BlockingNode(shared_seed="x", host=LOOPBACK).start()
            gc.collect()
        finally:
            gc.enable()

    with pytest.warns(ResourceWarning, match="was never stopped"):
        forget()


def test_connect_fails_as_documented() -> None:
    with nodes() as (server, client):
        with pytest.raises(AuthenticationError):
            client.connect_udp(LOOPBACK, server.port, peer_node_id=client.node_id)
        with pytest.raises(ArgumentError):
            client.connect((LOOPBACK, server.port), peer_node_id=b"short")
        with pytest.raises(UnreachableError):
            client.connect(("no.such.name.invalid", 1))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind((LOOPBACK, 0))
            address = silent.getsockname()
            with pytest.raises(ConnectionTimeoutError) as caught:
                client.connect(address, timeout=0.05)
            assert isinstance(caught.value, anyio.ConnectionFailed)
        with pytest.raises((ConnectionRefusedError, ConnectionTimeoutError)):
            client.connect(address, timeout=1)
        server.disable_accept_connections()
        with pytest.raises(ConnectionRefusedError):
            client.connect(("localhost", server.port))
        server.enable_accept_connections()
        assert client.connect(("localhost", server.port)).is_active()
        assert client.get_stats().active == server.get_stats().active == 1
        assert client.get_transport_stats().datagrams_dropped == 0


def test_interrupted_connect_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with nodes() as (server, client):
        monkeypatch.setattr(client, "until", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            client.connect((LOOPBACK, server.port))
        monkeypatch.undo()
        assert not client._dialing
        assert client.connect((LOOPBACK, server.port)).is_active()


def test_callbacks_may_wait(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Any] = []
    happened = threading.Event()
    with nodes() as (server, client):

        @server.on_session_established
        def greet(session: BlockingSession) -> None:
            session.open_stream().send(b"welcome", timeout=5)

        @client.on_session_closed
        def closed(session_id: bytes, reason: str) -> None:
            told.append((session_id, reason))
            raise RuntimeError("a bug in the callback")

        @server.on_session_closed
        def closed_there(session_id: bytes, reason: str) -> None:
            happened.set()

        session = client.connect((LOOPBACK, server.port))
        assert session.accept_stream(timeout=5).receive(timeout=5) == b"welcome"
        with caplog.at_level(logging.ERROR, logger="stt"):
            session.close()
        assert told == [(session.session_id, "graceful")]
        assert happened.wait(5)
        assert "a bug in the callback" in caplog.text
        assert client.get_stats().handler_errors == 1


def test_receive_takes_what_nobody_claims(threads: ThreadPoolExecutor) -> None:
    with nodes() as (server, client):
        collected: list[bytes] = []

        def collect() -> None:
            collected.extend(packet.data for packet in server)

        done = threads.submit(collect)
        session = client.connect((LOOPBACK, server.port))
        stream = session.open_stream()
        stream.send(b"data", timeout=5)
        stream.send_eof()
        assert stream.receive(timeout=5) == b""
        session.close()
        server.stop()
        done.result(5)
        assert collected == [b"data"]


def test_a_session_that_accepts_keeps_its_streams() -> None:
    with sessions() as (ours, theirs):
        pair(ours, theirs)
        ours.open_stream().send(b"for accept_stream", timeout=5)
        with pytest.raises(TimeoutError):
            theirs.node.receive(timeout=0.02)
        assert theirs.accept_stream(timeout=5).receive(timeout=5) == b"for accept_stream"


def test_stop_does_not_wait_for_the_dead() -> None:
    with sessions(**SMALL) as (ours, theirs):
        stream, _ = pair(ours, theirs)
        with pytest.raises(TimeoutError):
            stream.send(bytes(1 << 20), timeout=0.02)
        started = time.monotonic()
        ours.node.stop(timeout=0.05)
        assert time.monotonic() - started < 2
        assert ours.is_closed
        theirs.abort()


def test_what_ends_the_node_is_told_to_who_waits(threads: ThreadPoolExecutor) -> None:
    with sessions() as (ours, theirs):
        stream, _ = pair(ours, theirs)
        waiting = threads.submit(stream.receive)
        while ours.node._pumper is None:
            time.sleep(0.001)
        sockets = ours.node._sockets
        assert sockets is not None
        error = OSError("the network is gone")
        sockets.send = lambda transmit: (_ for _ in ()).throw(error)  # type: ignore[method-assign]
        theirs.open_stream().send(b"x")  # to be acknowledged
        assert waiting.exception(5) is error
        with pytest.raises(OSError, match="the network is gone"):
            stream.receive()
        with pytest.raises(OSError, match="the network is gone"):
            ours.node.stop()
        assert not ours.node.running
        theirs.abort()


def test_a_socket_that_dies_ends_the_node(threads: ThreadPoolExecutor) -> None:
    with sessions() as (ours, theirs):
        stream, _ = pair(ours, theirs)
        sockets = ours.node._sockets
        assert sockets is not None
        error = OSError("the socket is gone")
        sockets.all[0].receive = lambda sink: (_ for _ in ()).throw(error)  # type: ignore[method-assign]
        waiting = threads.submit(stream.receive)
        theirs.open_stream().send(b"x")
        assert waiting.exception(5) is error
        with pytest.raises(OSError, match="the socket is gone"):
            ours.node.stop()
        theirs.abort()


def test_threads_may_stop_it_together(threads: ThreadPoolExecutor) -> None:
    with nodes() as (_, client):
        for each in [threads.submit(client.stop) for _ in range(4)]:
            each.result(5)
        assert not client.running


def test_a_start_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    node = BlockingNode(shared_seed="x", host=LOOPBACK)
    monkeypatch.setattr(node, "_make_driver", lambda **_: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(MemoryError):
        node.start()
    assert not node.running


def test_a_full_socket_is_waited_for() -> None:
    with sessions() as (ours, theirs):
        stream, peer = pair(ours, theirs)
        sockets = ours.node._sockets
        assert sockets is not None
        first = sockets.all[0]
        send, full = first.send, [True]
        first.send = lambda transmit: transmit if full and full.pop() else send(transmit)  # type: ignore[method-assign]
        stream.send(b"after a while", timeout=5)
        assert peer.receive(timeout=5) == b"after a while"


def test_the_other_family_gets_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    with BlockingNode(shared_seed="x", host=LOOPBACK) as client:
        try:
            server = BlockingNode(shared_seed="x", host="::1", server_mode=True, background=True)
            server.start()
        except OSError:
            return  # no IPv6 here
        with client.connect(("::1", server.port)), client.connect(("::1", server.port)):
            assert len(client._sockets.all) == 2  # type: ignore[union-attr]
        server.stop()


# -- with the other hosts ------------------------------------------------------------------------------------------


async def test_it_talks_to_a_node_under_an_event_loop() -> None:
    data = os.urandom(1 << 20)

    def ask(port: int) -> bytes:
        with BlockingNode(shared_seed="x", host=LOOPBACK) as client:
            session = client.connect((LOOPBACK, port))
            return session.exchange(session.open_stream(), data, timeout=10)

    async def answer(session: Any) -> None:
        stream = await session.accept_stream()
        async for piece in stream:
            await stream.send(piece)
        await stream.aclose()

    async with STTNode(shared_seed="x", host=LOOPBACK, server_mode=True) as server:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, answer)
            assert await anyio.to_thread.run_sync(ask, server.port) == data
            tasks.cancel_scope.cancel()


def test_requests() -> None:
    """Of a session without an event loop; the answer is told as it is, and what is not known as that."""
    with sessions() as (ours, theirs):
        deeds = {b"hello": b"HELLO", b"stop": 7, b"wait": None}

        def answer() -> None:
            while True:
                try:
                    stream = theirs.accept_stream()
                    deed = deeds[b"".join(stream)]
                    if isinstance(deed, bytes):
                        stream.send(deed)
                        stream.close()
                    elif deed is not None:
                        stream.reset(deed)
                except SttError:
                    return

        thread = threading.Thread(target=answer)
        thread.start()
        assert ours.request(b"hello", purpose="greeting") == b"HELLO"
        with pytest.raises(BufferOverflowError):
            ours.request(b"hello", max_size=2)
        with pytest.raises(StreamClosedError) as caught:
            ours.request(b"stop")
        assert caught.value.stream_code == 7
        with pytest.raises(OutcomeUnknownError) as unknown:
            ours.request(b"wait", timeout=0.1)
        assert isinstance(unknown.value, TimeoutError)
        ours.abort()
        with pytest.raises(NotSentError):
            ours.request(b"hello")
        thread.join()
