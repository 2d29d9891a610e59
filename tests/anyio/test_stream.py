"""Streams under asyncio and trio: exactly what each call does, in memory and over UDP."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute
from anyio.streams.buffered import BufferedByteStream

from stt_anyio import DataExpiredError, Priority, Session, SessionClosedError, Stream, StreamClosedError, SttAttribute
from stt_anyio.errors import ArgumentError, StateError, StreamIdConflict, TooManyStreamsError
from stt_anyio.waiting import AsyncioSignal

Sessions = Callable[..., AbstractAsyncContextManager[tuple[Session, Session]]]

KIB = 1 << 10
SMALL: dict[str, Any] = {
    "stream_send_buffer": 64 * KIB,
    "stream_recv_buffer": 64 * KIB,
    "session_recv_buffer": 64 * KIB,
}
"""What a stream holds in all is then 128 KiB: half here, half there."""


async def pair(ours: Session, theirs: Session, **options: Any) -> tuple[Stream, Stream]:
    """Both ends of a new stream."""
    stream = ours.open_stream(**options)
    await stream.send(b"!")
    peer = await theirs.accept_stream()
    assert await peer.receive(1) == b"!"
    return stream, peer


async def read_all(stream: Stream) -> bytes:
    return b"".join([data async for data in stream])


async def receive_until_it_raises(stream: Stream) -> None:
    while True:
        await stream.receive()


async def send_until_it_raises(stream: Stream) -> None:
    while True:
        await stream.send(bytes(KIB))
        await anyio.sleep(0.0001)


async def test_priorities(sessions: Sessions) -> None:
    """D5: chosen when a stream is opened, changed later, or asked for by the other end."""
    async with sessions() as (ours, theirs):
        stream, peer = await pair(ours, theirs, priority=Priority(0, incremental=False))
        assert stream.priority == Priority(0, incremental=False)
        stream.priority = Priority(7)
        assert stream.priority == Priority(7)
        assert peer.priority == Priority()
        assert stream.ask_priority(Priority(1))
        with anyio.fail_after(5):
            while peer.priority != Priority(1):
                await anyio.sleep(0.001)
        for misuse in (lambda: ours.open_stream(priority=1), lambda: setattr(stream, "priority", None)):  # type: ignore[arg-type]
            with pytest.raises(ArgumentError, match="priority"):
                misuse()
        one_way = ours.open_stream(bidirectional=False)
        with pytest.raises(StateError):
            one_way.ask_priority(Priority())


async def stale(ours: Session, theirs: Session) -> tuple[Stream, bytes]:
    """A stream of which the peer has the first part, and the second was given up; what of it will be read."""
    first = b"!" * 64 * KIB
    stream = ours.open_stream(max_lifetime=0.5)
    await stream.send(first, timeout=5)
    await stream.send(b"stale" * 1000)
    while not stream.bytes_given_up:
        await anyio.sleep(0.001)
    assert stream.bytes_given_up == 5000
    await stream.flush(timeout=5)
    return stream, first


async def test_what_is_too_old_is_given_up(sessions: Sessions) -> None:
    """D6: the receiver learns of the gap, once, and goes on behind it; the sender's buffer is free at once."""
    async with sessions(**SMALL) as (ours, theirs):
        assert "expiry" in ours.capabilities
        stream, first = await stale(ours, theirs)
        peer = await theirs.accept_stream()
        received = bytearray()
        while len(received) < len(first):
            received += await peer.receive()
        assert received == first
        with pytest.raises(DataExpiredError) as caught:
            await peer.receive()
        assert caught.value.skipped == 5000
        assert not isinstance(caught.value, anyio.BrokenResourceError)
        await stream.send(b"fresh")
        assert await peer.receive() == b"fresh"
        await stream.send_eof()
        assert await read_all(peer) == b""
        assert peer.bytes_given_up == 0


async def test_gaps_are_left_out_of_what_nobody_claims(udp_nodes: Any) -> None:
    """A8, D6: `node.receive()` gives what there is."""
    async with udp_nodes(**SMALL) as (server, client):
        ours = await client.connect_udp("127.0.0.1", server.port)
        stream, first = await stale(ours, await server.accept())
        await stream.send(b"fresh")
        received = bytearray()
        async for packet in server.receive():
            received += packet.data
            if received.endswith(b"fresh"):
                break
        assert received == first + b"fresh"


async def test_a_stream_with_a_limited_life_says_what_is_wrong(sessions: Sessions) -> None:
    async with sessions() as (ours, _):
        for options in ({"max_lifetime": 0}, {"max_attempts": 0}):
            with pytest.raises(ArgumentError) as caught:
                ours.open_stream(**options)  # type: ignore[arg-type]
            assert caught.value.argument in options
        assert ours.open_stream(max_attempts=2).stream_id == 0


# -- receiving -----------------------------------------------------------------------------------------------------


async def test_receive_gives_what_has_arrived_up_to_max_bytes(sessions: Sessions) -> None:
    async with sessions() as (ours, theirs):
        stream, peer = await pair(ours, theirs)
        await stream.send(b"abcdef")
        assert await peer.receive(2) == b"ab"
        assert await peer.receive(100) == b"cdef"
        for wrong in (0, -1):
            with pytest.raises(ArgumentError, match="max_bytes"):
                await peer.receive(wrong)
        with pytest.raises(TypeError):
            await peer.receive(1.5)  # type: ignore[arg-type]


async def test_the_end_is_end_of_stream_every_time(sessions: Sessions) -> None:
    async with sessions() as (ours, theirs):
        stream, peer = await pair(ours, theirs)
        await stream.send(b"last words")
        await stream.send_eof()
        await stream.send_eof()
        assert await read_all(peer) == b"last words"
        for _ in range(2):
            with pytest.raises(anyio.EndOfStream):
                await peer.receive()
        await peer.send(b"the other direction goes on")
        assert await stream.receive() == b"the other direction goes on"
        with pytest.raises(anyio.ClosedResourceError):
            await stream.send(b"x")


async def test_an_end_that_comes_with_the_acknowledgement_of_ours_wakes_who_waits_for_it(sessions: Sessions) -> None:
    async with sessions() as (ours, theirs), anyio.create_task_group() as tasks:

        async def answer_the_end(peer: Stream) -> None:
            assert await read_all(peer) == b""
            await peer.send_eof()

        for _ in range(5):
            stream, peer = await pair(ours, theirs)
            await stream.flush()
            tasks.start_soon(answer_the_end, peer)
            tasks.start_soon(stream.send_eof)
            with anyio.fail_after(2), pytest.raises(anyio.EndOfStream):
                await stream.receive()


async def test_a_reset_tells_its_code(sessions: Sessions) -> None:
    async with sessions() as (ours, theirs):
        stream, peer = await pair(ours, theirs)
        stream.reset(7)
        for _ in range(2):
            with pytest.raises(StreamClosedError) as caught:
                await peer.receive()
            assert caught.value.stream_code == 7
            assert isinstance(caught.value, anyio.BrokenResourceError)
        with pytest.raises(anyio.ClosedResourceError):
            await stream.send(b"x")
        with pytest.raises(anyio.ClosedResourceError):
            await stream.flush()
        await peer.send(b"y")
        assert await stream.receive() == b"y"


async def test_a_receiver_that_stops_breaks_the_sender(sessions: Sessions) -> None:
    async with sessions(**SMALL) as (ours, theirs):
        stream, peer = await pair(ours, theirs)
        peer.stop(9)
        with pytest.raises(anyio.ClosedResourceError):
            await peer.receive()
        with pytest.raises(StreamClosedError) as caught:
            await send_until_it_raises(stream)
        assert caught.value.stream_code == 9
        assert isinstance(caught.value, anyio.BrokenResourceError)
        with pytest.raises(StreamClosedError):
            await stream.wait_writable()


async def test_a_timeout_takes_nothing(sessions: Sessions) -> None:
    async with sessions() as (ours, theirs):
        stream, peer = await pair(ours, theirs)
        with pytest.raises(TimeoutError, match=r"within 0\.01 seconds"):
            await peer.receive(timeout=0.01)
        for wrong in ("text", 5, memoryview(b"abcdef")[::2]):
            with pytest.raises(ArgumentError, match="data is"):
                await stream.send(wrong)  # type: ignore[arg-type]
        with anyio.move_on_after(0.01):
            await peer.receive()
        with anyio.CancelScope() as scope:
            await stream.send(b"kept")
            await stream.flush()
            scope.cancel()
            await peer.receive()
        assert await peer.receive() == b"kept"


# -- sending -------------------------------------------------------------------------------------------------------


async def test_much_more_than_the_buffers_arrives_intact(sessions: Sessions) -> None:
    data = os.urandom(1 << 20)
    async with sessions(**SMALL) as (ours, theirs):
        stream, peer = await pair(ours, theirs)

        async def send(item: bytes | bytearray | memoryview) -> None:
            await stream.send(item)
            await stream.send_all(b"")
            await stream.send_eof()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send, memoryview(bytearray(data)))
            assert await read_all(peer) == data
        assert stream.bytes_accepted == len(data) + 1


async def test_a_cancelled_send_sent_a_prefix(sessions: Sessions) -> None:
    data = os.urandom(512 * KIB)
    async with sessions(**SMALL) as (ours, theirs):
        stream, peer = await pair(ours, theirs)
        with anyio.move_on_after(0.05) as scope:
            await stream.send(data)
        assert scope.cancelled_caught
        sent = stream.bytes_accepted - 1
        assert 64 * KIB <= sent <= 128 * KIB
        await stream.send_eof()
        assert await read_all(peer) == data[:sent]


async def test_with_a_timeout_send_waits_for_acknowledgement(sessions: Sessions) -> None:
    async with sessions(**SMALL) as (ours, theirs):
        stream, peer = await pair(ours, theirs)
        await stream.send(b"quick", timeout=5)
        assert stream.bytes_acknowledged == stream.bytes_accepted == 6
        with pytest.raises(TimeoutError):
            await stream.send(bytes(100 * KIB), timeout=0.05)
        taken = stream.bytes_accepted
        assert stream.bytes_acknowledged < taken
        received = len(await peer.receive(5))
        while received < taken - 1:  # what was taken stays on its way
            received += len(await peer.receive())
        await stream.flush(timeout=5)


async def test_flush_times_out_and_reset_withdraws(sessions: Sessions) -> None:
    async with sessions(**SMALL) as (ours, theirs):
        stream, peer = await pair(ours, theirs)
        await stream.send(bytes(100 * KIB))
        with pytest.raises(TimeoutError):
            await stream.flush(timeout=0.05)
        async with anyio.create_task_group() as tasks:

            async def expect_closed() -> None:
                with pytest.raises(anyio.ClosedResourceError):
                    await stream.flush()

            tasks.start_soon(expect_closed)
            await anyio.wait_all_tasks_blocked()
            stream.reset(1)
        with pytest.raises(StreamClosedError):
            await receive_until_it_raises(peer)


async def test_wait_writable_waits_for_room(sessions: Sessions) -> None:
    async with sessions(**SMALL) as (ours, theirs):
        stream, peer = await pair(ours, theirs)
        await stream.wait_writable()
        full = False
        with anyio.fail_after(20):
            while not full:  # on a slow machine there is room again, as long as something is on its way
                with anyio.move_on_after(0.05):
                    await stream.send(bytes(256 * KIB))
                with anyio.move_on_after(0.02) as scope:
                    await stream.wait_writable()
                full = scope.cancelled_caught
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read_all, peer)
            await stream.wait_writable()
            await stream.send_eof()


async def test_two_tasks_in_one_direction_are_busy(sessions: Sessions) -> None:
    async with sessions(**SMALL) as (ours, theirs):
        stream, _ = await pair(ours, theirs)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.receive)
            tasks.start_soon(stream.send, bytes(256 * KIB))
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await stream.receive()
            for call in (lambda: stream.send(b"x"), stream.send_eof, stream.wait_writable):
                with pytest.raises(anyio.BusyResourceError):
                    await call()
            tasks.cancel_scope.cancel()
        ours.abort()


@pytest.mark.parametrize("call", ["receive", "send", "flush", "send_eof", "wait_writable", "aclose"])
async def test_every_call_is_a_checkpoint(sessions: Sessions, call: str) -> None:
    async with sessions() as (ours, theirs):
        stream, peer = await pair(ours, theirs)
        await peer.send(b"there")
        await peer.flush()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await getattr(stream, call)(*[b"x"] * (call == "send"))
        assert scope.cancelled_caught
        if call != "aclose":
            assert stream.bytes_accepted == 1
            assert await stream.receive() == b"there"


# -- closing -------------------------------------------------------------------------------------------------------


async def test_closing_delivers_the_rest_without_waiting(sessions: Sessions) -> None:
    data = os.urandom(60 * KIB)
    async with sessions(**SMALL) as (ours, theirs):
        stream, peer = await pair(ours, theirs)
        await stream.send(data)
        for _ in range(2):
            await stream.close()
        assert stream.is_closed
        for call in (lambda: stream.send(b""), stream.receive, stream.flush, stream.wait_writable):
            with pytest.raises(anyio.ClosedResourceError):
                await call()
        assert await read_all(peer) == data
        with pytest.raises(anyio.BrokenResourceError):
            await send_until_it_raises(peer)
        await peer.send_eof()  # means nothing any more, and is no error


async def test_a_block_that_fails_resets(sessions: Sessions) -> None:
    async with sessions() as (ours, theirs):
        stream, peer = await pair(ours, theirs)

        async def fail() -> None:
            async with stream:
                await stream.send(b"half of it")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        assert stream.is_closed
        with pytest.raises(StreamClosedError):
            await receive_until_it_raises(peer)
        stream, peer = await pair(ours, theirs)
        async with stream:
            await stream.send(b"all of it")
        assert await read_all(peer) == b"all of it"


async def test_a_cancelled_close_resets(sessions: Sessions) -> None:
    async with sessions(**SMALL) as (ours, theirs):
        stream, peer = await pair(ours, theirs)
        await stream.send(bytes(100 * KIB))
        with anyio.CancelScope() as scope:
            scope.cancel()
            await stream.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await stream.send(b"x")
        with pytest.raises(StreamClosedError) as caught:
            await receive_until_it_raises(peer)
        assert caught.value.stream_code == 0


async def test_closing_wakes_those_who_wait_in_it(sessions: Sessions) -> None:
    async with sessions(**SMALL) as (ours, theirs):
        stream, _ = await pair(ours, theirs)

        async def expect_closed(call: Callable[[], Any]) -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await call()

        async with anyio.create_task_group() as tasks:
            for call in (stream.receive, lambda: stream.send(bytes(256 * KIB)), stream.flush):
                tasks.start_soon(expect_closed, call)
                await anyio.wait_all_tasks_blocked()
            await stream.aclose()
        ours.abort()


async def test_the_end_of_the_session_wakes_everybody(sessions: Sessions) -> None:
    """K-6."""
    async with sessions(**SMALL) as (ours, theirs):
        full, peer = await pair(ours, theirs)
        empty, other = await pair(ours, theirs)
        outcomes: list[BaseException] = []

        async def record(call: Callable[[], Any]) -> None:
            try:
                await call()
            except SessionClosedError as error:
                outcomes.append(error)

        calls = [end.receive for end in (empty, other)]
        for end in (full, peer):
            calls += [lambda end=end: end.send(bytes(256 * KIB)), end.flush]
        async with anyio.create_task_group() as tasks:
            for call in calls:
                tasks.start_soon(record, call)
                await anyio.wait_all_tasks_blocked()
            ours.abort()
        kinds = [anyio.ClosedResourceError, anyio.BrokenResourceError]
        assert [sum(isinstance(error, kind) for error in outcomes) for kind in kinds] == [3, 3]
        for call in (lambda: empty.send(b"x"), empty.receive, full.flush):
            with pytest.raises(SessionClosedError):
                await call()
        full.reset()
        await full.aclose()
        await peer.aclose()


async def test_what_had_arrived_can_be_read_after_the_end(sessions: Sessions) -> None:
    async with sessions() as (ours, theirs):
        stream, peer = await pair(ours, theirs)
        await stream.send(b"the last thing")
        await ours.close()
        assert await theirs.wait_closed() == "graceful"
        assert await peer.receive() == b"the last thing"
        with pytest.raises(SessionClosedError) as caught:
            await peer.receive()
        assert caught.value.reason == "graceful"
        assert isinstance(caught.value, anyio.BrokenResourceError)


# -- kinds and ids -------------------------------------------------------------------------------------------------


async def test_one_way_streams(sessions: Sessions) -> None:
    async with sessions() as (ours, theirs):
        stream, peer = await pair(ours, theirs, bidirectional=False, purpose="news")
        assert (stream.can_send, stream.can_receive) == (True, False)
        assert (peer.can_send, peer.can_receive) == (False, True)
        assert peer.purpose == "news"
        with pytest.raises(StateError):
            await stream.receive()
        with pytest.raises(StateError):
            await peer.send(b"x")
        await stream.send(b"read this")
        await stream.aclose()
        assert await read_all(peer) == b"read this"
        await peer.aclose()


async def test_ids_are_of_each_side_and_kind(sessions: Sessions) -> None:
    """S-1, S-2."""
    async with sessions() as (ours, theirs):
        stream, peer = await pair(ours, theirs, stream_id=8)
        assert stream.stream_id == peer.stream_id == 8
        assert (await theirs.open_stream()).stream_id == 1
        assert ours.open_stream().stream_id == 0
        assert ours.open_stream(bidirectional=False).stream_id == 2
        for taken in (8, 1):
            with pytest.raises(StreamIdConflict):
                ours.open_stream(stream_id=taken)
        assert ours.get_stream(8) is stream
        assert ours.get_stream(400) is None


async def test_the_limit_on_streams_is_an_error_and_passes(sessions: Sessions) -> None:
    """S-3."""
    async with sessions(max_concurrent_streams=2) as (ours, theirs):
        first, peer = await pair(ours, theirs)
        await pair(ours, theirs)
        with pytest.raises(TooManyStreamsError):
            ours.open_stream()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ours.wait_streams_available)
            await anyio.wait_all_tasks_blocked()
            await first.aclose()
            with pytest.raises(anyio.EndOfStream):
                await peer.receive()
            await peer.aclose()
        await pair(ours, theirs)
        await ours.close()
        with pytest.raises(SessionClosedError):
            await ours.wait_streams_available()
        with pytest.raises(SessionClosedError):
            ours.open_stream()


async def test_attributes_and_anyio_wrappers(sessions: Sessions) -> None:
    async with sessions() as (ours, theirs):
        stream, peer = await pair(ours, theirs, purpose="talk")
        assert stream.extra(SttAttribute.session) is ours
        assert stream.extra(SttAttribute.session_id) == theirs.session_id
        assert stream.extra(SttAttribute.peer_node_id) == peer.extra(SttAttribute.node_id)
        assert (peer.extra(SttAttribute.stream_id), peer.extra(SttAttribute.purpose)) == (0, "talk")
        assert stream.extra(SocketAttribute.remote_address) == ours.peer_addr
        if stream.extra(SttAttribute.transport_type) == "udp":
            assert stream.extra(SocketAttribute.remote_port) == ours.node.sessions[ours.session_id].peer_addr[1]
            assert peer.extra(SocketAttribute.local_port) == ours.peer_addr[1]
            assert stream.extra(SocketAttribute.family).name == "AF_INET"
        assert "talk" in repr(peer)
        assert ours.session_id.hex() in repr(ours)
        await stream.send(b"length\nrest")
        assert await BufferedByteStream(peer).receive_until(b"\n", 100) == b"length"


async def test_closing_in_the_middle_of_a_send_is_no_clean_end(sessions: Sessions) -> None:
    """The sender learns that not all was taken, and the receiver that what it got is not the whole."""
    async with sessions(**SMALL) as (ours, theirs):
        stream, peer = await pair(ours, theirs)

        async def send() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await stream.send(bytes(1024 * KIB))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            await peer.receive()
            await stream.aclose()
            with pytest.raises(StreamClosedError) as caught:
                await receive_until_it_raises(peer)
            assert isinstance(caught.value, anyio.BrokenResourceError)


async def test_closing_after_a_send_that_was_cut_short_delivers_what_was_taken(sessions: Sessions) -> None:
    """As `send` says: cancelled, what was taken goes out all the same, unless it is reset. Nor does waiting count."""
    async with sessions(**SMALL) as (ours, theirs):
        stream, peer = await pair(ours, theirs)
        with anyio.move_on_after(0.01):
            await stream.send(bytes(1024 * KIB))
        taken = stream.bytes_accepted - 1
        assert 0 < taken < 1024 * KIB

        async def wait() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await stream.wait_writable()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            await stream.aclose()
            assert len(await read_all(peer)) == taken


async def test_looking_again_and_again_leaves_nothing_behind(sessions: Sessions) -> None:
    """Each look with a timeout left a future in the signal for as long as nothing came."""
    async with sessions() as (ours, theirs):
        _, peer = await pair(ours, theirs)
        for _ in range(50):
            with pytest.raises(TimeoutError):
                await peer.receive(timeout=0)
            with anyio.move_on_after(0.0001):
                await theirs.accept_stream()
        for bell in (peer._readable, theirs._accepted):
            signal = bell._signal
            if isinstance(signal, AsyncioSignal):
                assert signal._waiters == []
