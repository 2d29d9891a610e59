"""Answering without an event loop; see `stt_anyio/requests.py`.

The thread that calls `answer` sees to all requests: it reads them, sends what is answered, and keeps their time. It
calls no handler. Each of these has a thread of its own for as long as it works, so one that never returns delays
nobody; and only they have, so a peer that is slow to ask, or to read, costs no thread.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from math import inf
from typing import TYPE_CHECKING, TypeVar

from attrs import frozen

from stt_anyio.errors import ArgumentError, SessionClosedError, StateError, SttError
from stt_anyio.requests import (
    REQUEST_FAILED,
    REQUEST_ONE_WAY,
    REQUEST_REFUSED,
    REQUEST_TIMED_OUT,
    REQUEST_TOO_LONG,
    AnswerPolicy,
    RequestBase,
    checked,
    code_of,
    refuse,
)
from stt_anyio.stream_base import single_bytes
from stt_proto.types import Buffer

if TYPE_CHECKING:
    from stt_anyio.blocking.node import BlockingNode
    from stt_anyio.blocking.session import BlockingSession
    from stt_anyio.blocking.stream import BlockingStream

BlockingHandler = Callable[["BlockingRequest"], Buffer]

_PIECE = 65536

Key = TypeVar("Key")


@frozen
class BlockingRequest(RequestBase["BlockingSession"]):
    """What a peer asks; see `Request`.

    Attributes:
        session: whose request it is.
        purpose: the word that the peer gave it, or `""`.
        data: all of it.
    """


def answer(
    node: BlockingNode,
    handler: BlockingHandler,
    policy: AnswerPolicy | None = None,
    session: BlockingSession | None = None,
) -> None:
    """Answer the requests of one session until it is over, or of all that peers establish until the node stops."""
    policy = checked(handler, policy)
    if inspect.iscoroutinefunction(handler):
        raise ArgumentError("handler is a coroutine function; nobody awaits it here", argument="handler")
    answering = _Answering(node, handler, policy, takes_all=session is None)
    if session is None:
        node._listening = True
    else:
        with node.lock:
            if session._waiter is not None:
                raise StateError("somebody answers the requests of this session already")
            answering.add(session)
    answering.run()


class _Exchange:
    """One request, from its first byte to the last of its answer.

    But for `work` all of it is done by the thread that answers, with the node's lock held.

    Attributes:
        session: whose it is.
        deadline: when its time is over.
        step: what to do when something has happened on its stream.
        thread: that of its handler, once that works.
    """

    __slots__ = ("_answering", "_data", "_result", "_stream", "_tracked", "deadline", "session", "step", "thread")

    def __init__(self, answering: _Answering, stream: BlockingStream, deadline: float) -> None:
        self._answering = answering
        self._stream = stream
        self.session = stream.session
        self.deadline = deadline
        self.thread: threading.Thread | None = None
        self._data: bytearray | bytes | memoryview = bytearray()  # of the request; then what is left of the answer
        self._result: bytes | memoryview | int = REQUEST_FAILED  # what the handler gave, or the code to refuse with
        self._tracked = ExitStack()
        self.step: Callable[[], None] = self._read

    def begin(self) -> None:
        """Read what is there already."""
        self._stream._waiter = lambda: self._answering.wake(self)
        if self._stream.can_send:
            self._read()
        else:
            self.end(REQUEST_ONE_WAY)

    def _read(self) -> None:
        data = self._data
        assert isinstance(data, bytearray)
        try:
            while (piece := self._stream._take(_PIECE)) is not None:
                data += piece
                if len(data) > self._answering.policy.max_size:
                    self.end(REQUEST_TOO_LONG)
                    return
                if not piece:
                    self._data, self.step = bytes(data), self._wait
                    self._answering.enqueue(self)
                    return
        except SttError:
            self.end(REQUEST_FAILED)  # the peer has given it up, or lost a part of it

    def _wait(self) -> None:
        """There is no place for its handler yet."""
        if self.session.is_closed:
            self.end(None)

    def track(self) -> bool:
        """Whether its handler may begin: the request is in flight from now on, until that returns."""
        try:
            self._tracked.enter_context(self.session.track_request())
        except SttError:
            self.end(REQUEST_REFUSED)
            return False
        self.step = _nothing
        return True

    def work(self, handler: BlockingHandler) -> None:
        """Call the handler, in a thread of its own."""
        assert isinstance(self._data, bytes)
        try:
            with self._tracked:
                self._result = single_bytes(handler(BlockingRequest(self.session, self._stream.purpose, self._data)))
        except BaseException as error:  # whatever it is, it ends this thread and nothing else
            self.failed(error)
        else:
            self._answering.returned(self)

    def failed(self, error: BaseException) -> None:
        """The handler raised, or could not be called."""
        self._tracked.__exit__(type(error), error, error.__traceback__)
        with self.session.lock:
            self._result = code_of(error, self.session)
        self._answering.returned(self)

    def withdraw(self) -> None:
        """It is no work in flight any more."""
        self._tracked.close()

    def reply(self) -> None:
        """Send what the handler gave."""
        if isinstance(self._result, int):
            self.end(self._result)
        else:
            self._data, self.step = self._result, self._send
            self._send()

    def _send(self) -> None:
        stream = self._stream
        try:
            if self._data:
                stream._check_send()
                taken = stream._put(self._data)  # type: ignore[arg-type]  # no bytearray by now
                stream._driver.pump()
                self._data = memoryview(self._data)[taken:]
            stream._sending = bool(self._data)
            if self._data:
                return
            stream._finish()
            if not stream._is_acknowledged(stream.bytes_accepted):
                return
        except SttError:
            pass  # the peer does not want it any more
        self.end(None)

    def end(self, code: int | None) -> None:
        """It has been answered, or is refused with a code."""
        self._stream._waiter = None
        if code is not None:
            refuse(self._stream, code)
        self._stream._close()
        self._answering.ended(self)


def _nothing() -> None:
    """Nothing on the stream concerns a handler that works."""


class _Answering:
    """The requests of one session, or of all that peers establish, and the thread that sees to them in `run`.

    But for `run`, all is called with the node's lock held.
    """

    def __init__(self, node: BlockingNode, handler: BlockingHandler, policy: AnswerPolicy, *, takes_all: bool) -> None:
        self.policy = policy
        self._node = node
        self._handler = handler
        self._takes_all = takes_all
        self._places: dict[BlockingSession, set[_Exchange]] = {}  # the requests that have one of its session
        self._open: dict[_Exchange, None] = {}  # those whose time is not over, the oldest first
        self._calling: dict[BlockingSession, None] = {}  # may have a stream that there is a place for, or have ended
        self._ready: dict[_Exchange, None] = {}  # something has happened on their streams
        self._queue: dict[_Exchange, None] = {}  # whole, and nobody works on them yet
        self._working: set[_Exchange] = set()
        self._returned: list[_Exchange] = []
        self._starting: deque[_Exchange] = deque()
        self._finished: list[threading.Thread] = []
        self._due = inf  # until when `_round` waits: the end of the time of the oldest

    # -- what happens ----------------------------------------------------------------------------------------------

    def add(self, session: BlockingSession) -> None:
        """Answer a session."""
        session.claimed = True
        session._waiter = lambda: self._calling.setdefault(session)
        self._places[session] = set()
        self._calling[session] = None

    def wake(self, exchange: _Exchange) -> None:
        """Something has happened on the stream of a request."""
        self._ready[exchange] = None

    def enqueue(self, exchange: _Exchange) -> None:
        """A request is there, and may be worked on."""
        self._queue[exchange] = None

    def returned(self, exchange: _Exchange) -> None:
        """A handler has returned; told by its thread, without the lock."""
        with self._node.lock:
            self._returned.append(exchange)
            self._node._stir()

    def ended(self, exchange: _Exchange) -> None:
        """A request is over; its place is free, unless its handler does not return."""
        for those in (self._open, self._ready, self._queue):
            those.pop(exchange, None)
        if exchange not in self._working:
            self._free(exchange)

    def _free(self, exchange: _Exchange) -> None:
        places = self._places.get(exchange.session)
        if places is not None:
            places.discard(exchange)
            self._calling[exchange.session] = None

    # -- seeing to it ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """See to all requests until there will be no more."""
        try:
            while self._round():
                pass
        except SessionClosedError:  # the node was stopped
            self._join()
        except OSError:  # it failed
            self._join()
            raise
        finally:
            with self._node.lock:
                self._leave()

    def _round(self) -> bool:
        """Wait until something is to be done for which the lock must be free, and do it; False when all is over."""
        self._due = next((exchange.deadline for exchange in self._open), inf)
        try:
            self._node.until(self._look, None if self._due == inf else self._due - time.monotonic())
        except TimeoutError:
            if time.monotonic() < self._due:
                raise  # it is what ended the node
            return True
        while self._finished:
            self._finished.pop().join()
        while self._starting:
            self._start(self._starting[0])
            self._starting.popleft()
        return self._takes_all or bool(self._places or self._open)

    def _start(self, exchange: _Exchange) -> None:
        # A daemon, since nobody can end it: else a handler that never returns would keep the process from its end.
        thread = threading.Thread(target=exchange.work, args=(self._handler,), name="BlockingAnswer", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no more threads
            exchange.failed(error)
        else:
            exchange.thread = thread

    def _look(self) -> bool | None:
        """Go on with whatever can go on; `None` when there is nothing for `_round` to do then."""
        self._expire()
        while self._takes_all and (session := self._node._next_arrival()) is not None:
            if session._waiter is None:
                self.add(session)
        while self._returned:
            self._take_back(self._returned.pop())
        while self._goes_on():
            pass
        over = not (self._takes_all or self._places or self._open)
        must_look_sooner = self._due == inf and self._open
        return True if self._starting or self._finished or must_look_sooner or over else None

    def _goes_on(self) -> bool:
        """Do one of the things that can be done; False when there is none."""
        if self._ready:
            _first(self._ready).step()
        elif self._calling:
            self._accept(_first(self._calling))
        elif self._queue and len(self._working) < self.policy.max_in_all:
            exchange = _first(self._queue)
            if exchange.track():
                self._working.add(exchange)
                self._starting.append(exchange)
        else:
            return False
        return True

    def _expire(self) -> None:
        now = time.monotonic()
        while self._open and (oldest := next(iter(self._open))).deadline <= now:
            oldest.end(REQUEST_TIMED_OUT)

    def _accept(self, session: BlockingSession) -> None:
        """Begin with as many requests of a session as there are places for."""
        places = self._places[session]
        if session.is_closed:
            del self._places[session]
            session._waiter = None
            return
        while session.incoming and len(places) < self.policy.max_requests:
            stream = session.incoming.pop(next(iter(session.incoming)))
            exchange = _Exchange(self, stream, time.monotonic() + self.policy.timeout)
            places.add(exchange)
            self._open[exchange] = None
            exchange.begin()

    def _take_back(self, exchange: _Exchange) -> None:
        self._working.discard(exchange)
        if exchange.thread is not None:
            self._finished.append(exchange.thread)
        if exchange in self._open:
            exchange.reply()
        else:
            self._free(exchange)

    # -- the end ---------------------------------------------------------------------------------------------------

    def _join(self) -> None:
        """Wait for the handlers, each for what is left of its time."""
        for exchange in self._open:
            if exchange.thread is not None:
                exchange.thread.join(max(0.0, exchange.deadline - time.monotonic()))

    def _leave(self) -> None:
        """Refuse what is open still, and let go of everything."""
        for exchange in tuple(self._open):
            exchange.end(REQUEST_FAILED)
        for exchange in self._starting:
            exchange.withdraw()
        for session in self._places:
            session._waiter = None


def _first(things: dict[Key, None]) -> Key:
    """Take the oldest."""
    thing = next(iter(things))
    del things[thing]
    return thing
