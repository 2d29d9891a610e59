"""Answers without an event loop (MISSION J): misdeeds of handlers and of peers, which ask from both kinds of host."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.from_thread import start_blocking_portal

from stt_anyio import (
    AnswerPolicy,
    BlockingNode,
    BlockingRequest,
    BlockingSession,
    BlockingStream,
    OutcomeUnknownError,
    RequestRefused,
    StreamClosedError,
    STTNode,
)
from stt_anyio.blocking.answers import BlockingHandler
from stt_anyio.errors import ArgumentError, StateError
from stt_anyio.requests import (
    REQUEST_FAILED,
    REQUEST_ONE_WAY,
    REQUEST_REFUSED,
    REQUEST_TIMED_OUT,
    REQUEST_TOO_LONG,
)

LOOPBACK = "127.0.0.1"
LIMIT = 10.0
"""Seconds that nothing here needs."""
OPTIONS: dict[str, Any] = {"shared_seed": "x", "host": LOOPBACK}


class Asker:
    """A session of either host, whose calls wait.

    Args:
        session: the session.
        call: makes a call, and waits for what it gives.
    """

    def __init__(self, session: Any, call: Callable[..., Any]) -> None:
        self.session = session
        self.call = call

    def request(self, data: bytes, timeout: float = LIMIT, **options: Any) -> bytes:
        answer: bytes = self.call(self.session.request, data, timeout, **options)
        return answer

    def code_of(self, data: bytes) -> int | None:
        """What a request is refused with."""
        with pytest.raises(StreamClosedError) as caught:
            self.request(data)
        return caught.value.stream_code

    def begin(self, data: bytes, **options: Any) -> Any:
        """A stream with the beginning of a request."""
        stream = self.call(self.session.open_stream, **options)
        self.call(stream.send, data)
        return stream

    def code_on(self, stream: Any) -> int | None:
        """What a stream is reset with."""
        limit = {"timeout": LIMIT} if isinstance(stream, BlockingStream) else {}
        return self.raises(lambda: self.call(stream.receive, **limit))

    def raises(self, act: Callable[[], Any]) -> int | None:
        """The code of the error that something raises, which is done again until it does."""
        give_up = time.monotonic() + LIMIT
        try:
            while time.monotonic() < give_up:
                act()
        except StreamClosedError as error:
            return error.stream_code
        raise AssertionError("nothing was raised")


Connect = Callable[[BlockingNode], Asker]


@pytest.fixture(params=["blocking", "asyncio", "trio"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """`connect(server)`: somebody who asks, from a node of each host."""
    with ExitStack() as stack:
        client: Any
        call: Callable[..., Any]
        if request.param == "blocking":
            client = stack.enter_context(BlockingNode(background=True, **OPTIONS))

            def call(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
                return function(*arguments, **options)
        else:
            portal = stack.enter_context(start_blocking_portal(request.param))

            async def within(call: Callable[[], Any]) -> Any:
                with anyio.fail_after(LIMIT):
                    given = call()
                    return await given if inspect.isawaitable(given) else given

            def call(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
                return portal.call(within, partial(function, *arguments, **options))

            client = stack.enter_context(portal.wrap_async_context_manager(portal.call(partial(STTNode, **OPTIONS))))
        yield lambda server: Asker(call(client.connect, (LOOPBACK, server.port)), call)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


def at_work() -> list[threading.Thread]:
    """The threads of handlers."""
    return [thread for thread in threading.enumerate() if thread.name == "BlockingAnswer"]


def answer_in_thread(
    who: BlockingNode | BlockingSession, handler: BlockingHandler, policy: AnswerPolicy | None = None
) -> Future[None]:
    """`who.answer` in a thread of its own."""
    done: Future[None] = Future()

    def answer() -> None:
        try:
            who.answer(handler, policy)
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=answer, daemon=True).start()
    return done


def waits(done: Future[None]) -> bool:
    """Whether something goes on, and does so for a moment."""
    try:
        done.result(0.2)
    except TimeoutError:
        return not done.done()
    return False


@contextmanager
def answering(handler: BlockingHandler, policy: AnswerPolicy | None = None, **options: Any) -> Iterator[BlockingNode]:
    """A node that answers; no thread is left of it."""
    assert not at_work()
    with BlockingNode(server_mode=True, **OPTIONS, **options) as server:
        done = answer_in_thread(server, handler, policy)
        yield server
    done.result(LIMIT)
    assert not at_work()


def shout(request: BlockingRequest) -> bytes:
    return request.data.upper()


def theirs(server: BlockingNode, asker: Asker) -> BlockingSession:
    """The other end of the session."""
    return server.sessions[asker.session.session_id]


def until(server: BlockingNode, holds: Callable[[], Any]) -> None:
    """Wait until something holds that need be no event of the node; so it looks again and again."""
    give_up = time.monotonic() + LIMIT
    while True:
        with server.lock:
            if holds():
                return
        assert time.monotonic() < give_up
        server.poll(0.01)


class Stuck:
    """A handler that returns when it is told to; `quick` requests at once."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.go = threading.Event()

    def __call__(self, request: BlockingRequest) -> bytes:
        if request.data != b"quick":
            self.began.release()
            assert self.go.wait(LIMIT)
        return b"done"

    def wait(self, count: int = 1) -> None:
        """Until so many have begun."""
        for _ in range(count):
            assert self.began.acquire(timeout=LIMIT)


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    handler = Stuck()
    yield handler
    handler.go.set()


# -- what is asked and answered --------------------------------------------------------------------------------------


def test_requests_are_answered(connect: Connect) -> None:
    seen: list[BlockingRequest] = []

    def handler(request: BlockingRequest) -> bytes | bytearray:
        seen.append(request)
        return bytearray(request.data.upper())

    with answering(handler) as server:
        asker = connect(server)
        assert asker.request(b"who is there?", purpose="word") == b"WHO IS THERE?"
        assert (seen[0].session, seen[0].purpose) == (theirs(server, asker), "word")
        assert asker.request(b"") == b""
        big = bytes(range(97, 123)) * 30_000
        assert asker.request(big) == big.upper()
        assert "who is there?" not in repr(seen[0])
        until(server, lambda: not theirs(server, asker).streams)


def test_many_ask_at_once(connect: Connect, threads: ThreadPoolExecutor) -> None:
    with answering(shout) as server:
        askers = [connect(server) for _ in range(4)]
        asked = {threads.submit(asker.request, b"%d x" % n): n for n in range(25) for asker in askers}
        assert all(each.result(LIMIT) == b"%d X" % n for each, n in asked.items())
        until(server, lambda: not any(session.streams for session in server.sessions.values()))


def test_both_sides_may_ask() -> None:
    with BlockingNode(server_mode=True, background=True, **OPTIONS) as server, BlockingNode(**OPTIONS) as client:
        ours = client.connect((LOOPBACK, server.port))
        other = server.accept(LIMIT)
        done = [answer_in_thread(ours, shout), answer_in_thread(other, lambda request: request.session.request(b"you"))]
        assert ours.request(b"me", LIMIT) == b"YOU"
        assert other.request(b"two", LIMIT) == b"TWO"
        ours.close(timeout=LIMIT)
        for each in done:
            each.result(LIMIT)
    assert not at_work()


def test_answers_are_work_in_flight(connect: Connect) -> None:
    """H1, H8: each is tracked, and one that comes too fast is refused with a code, without a thread."""
    seen: list[int] = []

    def handler(request: BlockingRequest) -> bytes:
        record = request.session.record
        assert record is not None
        seen.append(record.requests)
        return b"done"

    with answering(handler) as server:
        asker = connect(server)
        assert asker.request(b"") == b"done"
        session = theirs(server, asker)
        assert (seen, session.record.requests) == ([1], 0)  # type: ignore[union-attr]
        session.configure(request_rate=0.001, request_burst=1)
        assert asker.request(b"") == b"done"
        assert asker.code_of(b"") == REQUEST_REFUSED
        assert asker.code_of(b"") == REQUEST_REFUSED
        assert len(seen) == 2


# -- handlers that do what they should not ---------------------------------------------------------------------------


def test_a_handler_that_raises_or_refuses(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """That one request is refused with a code; the session, and all other requests, go on."""

    def handler(request: BlockingRequest) -> Any:
        match request.data:
            case b"raise":
                raise ValueError(f"one of {len(request.data)} bytes")
            case b"exit":
                raise SystemExit
            case b"refuse":
                raise RequestRefused(77)
            case b"refuse badly":
                raise RequestRefused(-1)
            case b"text":
                return "no bytes"
        return request.purpose.encode()

    with answering(handler) as server:
        asker = connect(server)
        for data, code in (
            (b"raise", REQUEST_FAILED),
            (b"exit", REQUEST_FAILED),
            (b"refuse", 77),
            (b"refuse badly", REQUEST_FAILED),
            (b"text", REQUEST_FAILED),
        ):
            assert asker.code_of(data) == code
        assert asker.request(b"", purpose="word") == b"word"
        assert server.get_stats().handler_errors == 4
        assert server.session_manager.metrics().requests_failed == 5
    assert caplog.text.count("one of 5 bytes") == 1


def test_a_handler_that_does_not_return_in_time(connect: Connect, stuck: Stuck, threads: ThreadPoolExecutor) -> None:
    """Its request is refused at the timeout, its place is taken until it returns, and no other session is delayed."""
    with answering(stuck, AnswerPolicy(timeout=0.2, max_requests=1)) as server:
        asker, other = connect(server), connect(server)
        assert asker.code_of(b"stuck") == REQUEST_TIMED_OUT
        assert theirs(server, asker).record.requests == 1  # type: ignore[union-attr]
        assert other.request(b"quick") == b"done"
        with pytest.raises(OutcomeUnknownError) as unknown:
            asker.request(b"quick", timeout=0.3)
        assert isinstance(unknown.value, TimeoutError)
        until(server, lambda: len(at_work()) == 1)
        waiting = threads.submit(asker.request, b"quick")
        stuck.go.set()
        assert waiting.result(LIMIT) == b"done"
        assert theirs(server, asker).record.requests == 0  # type: ignore[union-attr]


def test_places_of_all_that_never_come_free(connect: Connect, stuck: Stuck) -> None:
    """Then all are refused when their time is over, until one returns."""
    with answering(stuck, AnswerPolicy(timeout=0.2, max_in_all=2)) as server:
        asker, other = connect(server), connect(server)
        assert asker.code_of(b"stuck") == REQUEST_TIMED_OUT
        assert asker.code_of(b"stuck") == REQUEST_TIMED_OUT
        assert other.code_of(b"quick") == REQUEST_TIMED_OUT
        assert len(at_work()) == 2
        stuck.go.set()
        assert other.request(b"quick") == b"done"
        until(server, lambda: not at_work())


def test_the_system_has_no_more_threads(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start
    left = [False]

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "BlockingAnswer" and not left[0]:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with answering(shout) as server:
        asker = connect(server)
        assert asker.code_of(b"hello") == REQUEST_FAILED
        assert (server.get_stats().handler_errors, server.session_manager.metrics().requests_failed) == (1, 1)
        assert theirs(server, asker).record.requests == 0  # type: ignore[union-attr]
        left[0] = True
        assert asker.request(b"hello") == b"HELLO"


# -- peers that do what they should not ------------------------------------------------------------------------------


def test_requests_that_are_too_long_or_one_way(connect: Connect) -> None:
    with answering(shout, AnswerPolicy(max_size=1000)) as server:
        asker = connect(server)
        assert asker.request(b"x" * 1000) == b"X" * 1000
        assert asker.code_of(b"x" * 1001) == REQUEST_TOO_LONG
        assert asker.code_on(asker.begin(b"x" * 1001)) == REQUEST_TOO_LONG
        stream = asker.begin(bytes(100), bidirectional=False)
        assert asker.raises(lambda: asker.call(stream.send, bytes(100))) == REQUEST_ONE_WAY
        asker.call(asker.begin(b"half").reset, 5)
        until(server, lambda: not theirs(server, asker).streams)
        assert asker.request(b"good") == b"GOOD"


def test_a_request_whose_end_does_not_come(connect: Connect) -> None:
    with answering(shout, AnswerPolicy(timeout=0.2, max_requests=1)) as server:
        asker = connect(server)
        assert asker.code_on(asker.begin(b"half")) == REQUEST_TIMED_OUT
        assert asker.request(b"whole") == b"WHOLE"


@pytest.mark.parametrize("buffer", [1 << 20, 32 << 20], ids=["waits for room", "waits to be taken"])
def test_an_answer_that_nobody_takes(connect: Connect, buffer: int) -> None:
    """It costs no thread, and is withdrawn when its time is over: then there is a place for the next."""
    policy = AnswerPolicy(timeout=1.0, max_requests=1)
    with answering(lambda request: bytes(int(request.data)), policy, stream_send_buffer=buffer) as server:
        asker, other = connect(server), connect(server)
        stream = asker.begin(b"%d" % (20 << 20))
        asker.call(stream.send_eof)
        until(server, lambda: (stream := theirs(server, asker).streams.get(0)) and stream.bytes_sent)
        until(server, lambda: not at_work())
        assert other.request(b"3") == bytes(3)
        assert asker.request(b"3") == bytes(3)  # in the place of the first
        assert asker.code_on(stream) == REQUEST_TIMED_OUT


def test_who_wants_no_answer_any_more(connect: Connect, stuck: Stuck) -> None:
    """The handler is not disturbed; what it gives is for nobody."""
    with answering(stuck) as server:
        asker = connect(server)
        stream = asker.begin(b"slow")
        asker.call(stream.send_eof)
        stuck.wait()
        asker.call(stream.stop, 9)
        assert asker.request(b"quick") == b"done"
        stuck.go.set()
        until(server, lambda: not theirs(server, asker).streams)
        assert server.get_stats().handler_errors == 0


def test_who_wants_no_answer_while_there_is_no_place_for_it(connect: Connect, stuck: Stuck) -> None:
    with answering(stuck, AnswerPolicy(max_in_all=1)) as server:
        asker = connect(server)
        asker.call(asker.begin(b"slow").send_eof)
        stuck.wait()
        stream = asker.begin(b"quick")
        asker.call(stream.send_eof)
        until(server, lambda: len(theirs(server, asker).streams) == 2)
        there = theirs(server, asker).streams[stream.stream_id]
        until(server, lambda: there._core.at_eof)
        asker.call(stream.stop, 9)
        until(server, lambda: there._stopped == 9)
        stuck.go.set()
        until(server, lambda: not theirs(server, asker).streams)
        assert server.get_stats().handler_errors == 0


def test_one_session_is_answered_so_many_at_once_and_all_so_many(
    connect: Connect, stuck: Stuck, threads: ThreadPoolExecutor
) -> None:
    """The rest waits on its streams: a session that asks too much delays itself, and no other."""
    with answering(stuck, AnswerPolicy(max_requests=4, max_in_all=6)) as server:
        greedy, modest = connect(server), connect(server)
        asked = [threads.submit(greedy.request, b"slow") for _ in range(12)]
        stuck.wait(4)
        assert modest.request(b"quick") == b"done"
        until(server, lambda: len(at_work()) == 4)
        asked += [threads.submit(modest.request, b"slow") for _ in range(4)]
        stuck.wait(2)
        # Places of its own are left to the second session, but those of all are taken: its next two wait.
        until(server, lambda: len(theirs(server, modest).streams) == 4)
        assert not stuck.began.acquire(timeout=0.05)
        assert len(at_work()) == 6
        stuck.go.set()
        assert [each.result(LIMIT) for each in asked] == [b"done"] * 16


def test_open_requests_cost_nothing_while_others_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing per packet grows with those that wait for the rest of theirs."""
    taken = 0
    take = BlockingStream._take

    def counted(stream: BlockingStream, max_bytes: int) -> bytes | None:
        nonlocal taken
        taken += stream.session.node is server
        return take(stream, max_bytes)

    monkeypatch.setattr(BlockingStream, "_take", counted)
    with answering(shout) as server, BlockingNode(**OPTIONS) as client:
        session = client.connect((LOOPBACK, server.port))
        for _ in range(50):
            session.open_stream().send(b"half", timeout=LIMIT)
        before = taken
        assert session.request(b"whole", LIMIT) == b"WHOLE"
        assert taken - before < 10


# -- the end ---------------------------------------------------------------------------------------------------------


def test_a_node_that_drains(connect: Connect, stuck: Stuck, threads: ThreadPoolExecutor) -> None:
    """H8: what is at work is answered; what is whole only now is refused."""
    with answering(stuck) as server:
        asker = connect(server)
        late = asker.begin(b"half")
        working = threads.submit(asker.request, b"slow")
        stuck.wait()
        until(server, lambda: len(theirs(server, asker).streams) == 2)
        draining = threads.submit(server.drain, LIMIT)
        until(server, lambda: server.session_manager.drain_status().is_draining)
        asker.call(late.send_eof)
        assert asker.code_on(late) == REQUEST_REFUSED
        stuck.go.set()
        assert working.result(LIMIT) == b"done"
        assert draining.result(LIMIT).sessions == 0


@pytest.mark.parametrize("who", ["ours", "theirs"])
def test_a_session_ends_while_a_handler_works(
    connect: Connect, stuck: Stuck, threads: ThreadPoolExecutor, who: str
) -> None:
    """The answer is for nobody; whoever answers waits for the handler, and the node goes on."""
    with BlockingNode(server_mode=True, background=True, **OPTIONS) as server:
        asker, other = connect(server), connect(server)
        session = next(each for each in (server.accept(LIMIT), server.accept(LIMIT)) if each is theirs(server, asker))
        done = answer_in_thread(session, stuck, AnswerPolicy(max_requests=2, max_in_all=1))
        asked = threads.submit(asker.request, b"slow")
        stuck.wait()
        queued = threads.submit(asker.request, b"slow")
        until(server, lambda: len(session.streams) == 2)
        if who == "ours":
            asker.call(asker.session.abort)
        else:
            session.close(timeout=LIMIT)
        for each in (asked, queued):
            with pytest.raises(OutcomeUnknownError):
                each.result(LIMIT)
        session.wait_closed(LIMIT)
        assert waits(done)
        stuck.go.set()
        done.result(LIMIT)
        assert not at_work()
        assert server.get_stats().handler_errors == 0
        assert other.session.is_active()
        session.answer(stuck)  # of one that is over: returns at once


def test_stop_does_not_wait_for_handlers_and_answer_does(connect: Connect, stuck: Stuck) -> None:
    with BlockingNode(server_mode=True, **OPTIONS) as server:
        done = answer_in_thread(server, stuck)
        asker = connect(server)
        asker.call(asker.begin(b"slow").send_eof)
        stuck.wait()
        server.stop()
        assert not server.running
        assert waits(done)
        stuck.go.set()
        done.result(LIMIT)
        assert not at_work()


def test_answer_waits_for_no_handler_longer_than_it_may_take(connect: Connect, stuck: Stuck) -> None:
    """What never returns is left to itself, in a thread that keeps no process from its end."""
    with BlockingNode(server_mode=True, **OPTIONS) as server:
        done = answer_in_thread(server, stuck, AnswerPolicy(timeout=0.5))
        asker = connect(server)
        asker.call(asker.begin(b"stuck").send_eof)
        stuck.wait()
        server.stop()
        done.result(LIMIT)
        (left,) = at_work()
        assert left.daemon
        stuck.go.set()
        left.join(LIMIT)
        assert not at_work()


def test_whoever_answers_is_interrupted(connect: Connect, stuck: Stuck, threads: ThreadPoolExecutor) -> None:
    """Ctrl-C: what is open is refused, nobody is waited for, and somebody else may go on."""
    with BlockingNode(server_mode=True, background=True, **OPTIONS) as server:
        asker = connect(server)
        session = server.accept(LIMIT)
        real, interrupt = server.until, threading.Event()

        def interrupted(attempt: Callable[[], Any], timeout: float | None = None) -> Any:
            def look() -> Any:
                if interrupt.is_set():
                    interrupt.clear()
                    raise KeyboardInterrupt
                return attempt()

            return real(look, timeout)

        server.until = interrupted  # type: ignore[method-assign]
        done = answer_in_thread(session, stuck, AnswerPolicy(max_in_all=1))
        asked = [threads.submit(asker.code_of, b"slow") for _ in range(2)]
        half = asker.begin(b"half")
        stuck.wait()
        until(server, lambda: len(session.streams) == 3 and not session.incoming)
        interrupt.set()
        with server.lock:
            server._stir()
        with pytest.raises(KeyboardInterrupt):
            done.result(LIMIT)
        assert [each.result(LIMIT) for each in asked] == [REQUEST_FAILED] * 2
        assert asker.code_on(half) == REQUEST_FAILED
        again = answer_in_thread(session, stuck)
        assert asker.request(b"quick") == b"done"
        stuck.go.set()
        session.close(timeout=LIMIT)
        again.result(LIMIT)
        for thread in at_work():  # that of the first, which nobody has waited for
            thread.join(LIMIT)


def test_interrupted_before_the_handler_has_a_thread(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is no work in flight, either."""
    start = threading.Thread.start

    def interrupt(thread: threading.Thread) -> None:
        if thread.name == "BlockingAnswer":
            raise KeyboardInterrupt
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupt)
    with BlockingNode(server_mode=True, background=True, **OPTIONS) as server:
        asker = connect(server)
        done = answer_in_thread(server, shout)
        assert asker.code_of(b"hello") == REQUEST_FAILED
        with pytest.raises(KeyboardInterrupt):
            done.result(LIMIT)
        assert theirs(server, asker).record.requests == 0  # type: ignore[union-attr]


def test_a_thread_that_is_slow_to_end_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is left, though its answer is there already."""
    run, never = threading.Thread.run, threading.Event()

    def slow(thread: threading.Thread) -> None:
        run(thread)
        if thread.name == "BlockingAnswer":
            never.wait(0.2)

    monkeypatch.setattr(threading.Thread, "run", slow)
    with answering(shout) as server, BlockingNode(**OPTIONS) as client:
        assert client.connect((LOOPBACK, server.port)).request(b"hello", LIMIT) == b"HELLO"


def test_what_ends_the_node_is_told_to_who_answers(connect: Connect, stuck: Stuck) -> None:
    """Also where it is a `TimeoutError`, as of a network that is gone; the handlers are waited for."""
    server = BlockingNode(server_mode=True, **OPTIONS)
    server.start()
    done = answer_in_thread(server, stuck)
    asker = connect(server)
    asker.begin(b"half")
    asker.call(asker.begin(b"slow").send_eof)
    stuck.wait()
    until(server, lambda: len(theirs(server, asker).streams) == 2)
    failure = TimeoutError("the network is gone")
    with server.lock:
        server._fail(failure)
        server._stir()
    assert waits(done)
    stuck.go.set()
    assert done.exception(LIMIT) is failure
    assert not at_work()
    with pytest.raises(TimeoutError, match="the network is gone"):
        server.stop()
    asker.call(asker.session.abort)


# -- arguments -------------------------------------------------------------------------------------------------------


def test_arguments_of_answers() -> None:
    async def handler(request: BlockingRequest) -> bytes:
        return b""

    node = BlockingNode(server_mode=True, **OPTIONS)
    for wrong in (5, None, handler):
        with pytest.raises(ArgumentError) as caught:
            node.answer(wrong)  # type: ignore[arg-type]
        assert caught.value.argument == "handler"
    with pytest.raises(ArgumentError) as caught:
        node.answer(shout, 5)  # type: ignore[arg-type]
    assert caught.value.argument == "policy"
    with pytest.raises(StateError):
        node.answer(shout)
    with node:
        pass
    node.answer(shout)  # it was stopped: there is nothing to answer


@pytest.mark.parametrize("code", [-1, 1 << 62, True, 1.0, "one"])
def test_codes_of_refusals(code: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        raise RequestRefused(code)
    assert caught.value.argument == "code"


def test_one_answers_a_session_at_a_time() -> None:
    """Who answers all sessions leaves one alone that somebody answers already."""
    with BlockingNode(server_mode=True, background=True, **OPTIONS) as server, BlockingNode(**OPTIONS) as client:
        session = client.connect((LOOPBACK, server.port))
        until(server, lambda: server.sessions)
        other = server.sessions[session.session_id]
        done = answer_in_thread(other, lambda request: b"one")
        assert session.request(b"", LIMIT) == b"one"
        with pytest.raises(StateError):
            other.answer(shout)
        all_done = answer_in_thread(server, lambda request: b"all")
        assert client.connect((LOOPBACK, server.port)).request(b"", LIMIT) == b"all"
        assert session.request(b"", LIMIT) == b"one"
        session.close(timeout=LIMIT)
        done.result(LIMIT)
    all_done.result(LIMIT)
