"""Requests and answers, each pair on a stream of its own: one direction is the request, the other the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from math import isfinite
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
from attrs import Attribute, field, frozen

from stt_anyio.errors import ArgumentError, BufferOverflowError, SttError, TooManyStreamsError
from stt_anyio.operation import Operation
from stt_anyio.session_base import SessionBase
from stt_anyio.stream_base import StreamBase, single_bytes
from stt_anyio.waiting import is_failure, up_to
from stt_proto.types import Buffer
from stt_proto.wire import MAX_VARINT

if TYPE_CHECKING:
    from stt_anyio.session import Session
    from stt_anyio.stream import Stream

REQUEST_FAILED = 1
"""The code of a reset: the handler raised."""
REQUEST_TIMED_OUT = 2
"""The code of a reset: the request was not there in time, or its answer was not."""
REQUEST_TOO_LONG = 3
"""The code of a reset: the request is longer than it may be."""
REQUEST_ONE_WAY = 4
"""The code of a stop: the stream is one-way, so that it cannot be answered."""
REQUEST_REFUSED = 5
"""The code of a reset: `session.track_request` took no more: too many in flight, too fast, or the node drains."""

SessionT = TypeVar("SessionT", bound=SessionBase[Any])
Handler = Callable[["Request"], Awaitable[Buffer]]


def _whole(high: int) -> Any:
    def check(_: Any, attribute: Attribute[Any], value: Any) -> None:
        if type(value) is not int or not 1 <= value <= high:
            raise ArgumentError(
                f"{attribute.name} is {value!r}; it must be a whole number from 1 to {high:,}", argument=attribute.name
            )

    return check


def _seconds(_: Any, attribute: Attribute[Any], value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not isfinite(value) or not 0.001 <= value <= 86_400:
        raise ArgumentError(
            f"{attribute.name} is {value!r}; it must be from 0.001 to 86,400 seconds", argument=attribute.name
        )


@frozen(kw_only=True)
class AnswerPolicy:
    """How much those who ask may ask for at once.

    A request beyond these waits where it is: on its stream, within flow control.

    Attributes:
        max_requests: requests of one session that are read or answered at once, 1 to 65,536.
        max_in_all: handlers of all sessions that run at once, 1 to 1,048,576.
        max_size: bytes of the longest request, 1 to 2^30; one that is longer is refused with `REQUEST_TOO_LONG`.
        timeout: seconds from the beginning of a request until its answer has been taken, 0.001 to 86,400; then it is
            refused with `REQUEST_TIMED_OUT`, and its handler is cancelled; a thread cannot be, see
            `BlockingNode.answer`.

    Raises:
        ArgumentError: names the attribute, its value and what is allowed.
    """

    max_requests: int = field(default=64, validator=_whole(65_536))
    max_in_all: int = field(default=1024, validator=_whole(1 << 20))
    max_size: int = field(default=1 << 20, validator=_whole(1 << 30))
    timeout: float = field(default=30.0, validator=_seconds)


@frozen
class RequestBase(Generic[SessionT]):
    """What a peer asks, under every host."""

    session: SessionT
    purpose: str
    data: bytes = field(repr=False)


@frozen
class Request(RequestBase["Session"]):
    """What a peer asks.

    Attributes:
        session: whose request it is.
        purpose: the word that the peer gave it, or `""`.
        data: all of it.
    """


class RequestRefused(Exception):  # it is no error of anybody's
    """Raised by a handler: the peer gets a `StreamClosedError` with this `stream_code`.

    Args:
        code: 0 to 2^62 - 1; 1 to 5 have a meaning already.

    Raises:
        ArgumentError: `code` is none.
    """

    def __init__(self, code: int) -> None:
        if type(code) is not int or not 0 <= code <= MAX_VARINT:
            raise ArgumentError(f"code is {code!r}; it must be a whole number from 0 to 2^62 - 1", argument="code")
        super().__init__(code)
        self.code = code

    def __str__(self) -> str:
        return f"refused with code {self.code}"


# -- asking ----------------------------------------------------------------------------------------------------------


async def request(session: Session, data: Buffer, timeout: float | None, purpose: str, max_size: int) -> bytes:
    """See `Session.request`."""
    operation = Operation(data, repeat=False)
    with up_to(timeout):
        try:
            return await exchange(session, operation, purpose, max_size)
        except SttError as error:
            if isinstance(error, ArgumentError | BufferOverflowError):
                raise
            operation.goes_on_after(error, session_is_over=not session.is_active())
            raise operation.failed(f"the session ended: {error}") from error
    raise operation.timed_out(timeout)


async def exchange(session: Session, operation: Operation, purpose: str, max_size: int) -> bytes:
    """One try at a request."""
    while True:
        try:
            stream = session.open_stream(purpose=purpose)
            break
        except TooManyStreamsError:
            await session.wait_streams_available()
    answer = bytearray()
    failure: SttError | None = None
    whole = False

    async def send() -> None:
        nonlocal whole
        with suppress(SttError):  # the peer has read enough; or `receive` tells
            await stream.send(operation.data)
            await stream.send_eof()
            whole = True

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            try:
                await _collect(stream, answer, max_size, "the answer")
            except SttError as error:
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if not whole:  # the answer came first
            stream.reset()
    except BaseException:
        operation.note(stream, len(answer))
        stream.reset()  # so that the peer does not take a part of the request for all of it
        raise
    finally:
        stream._close()
    return bytes(answer)


async def _collect(stream: Stream, data: bytearray, max_size: int, what: str) -> None:
    with suppress(anyio.EndOfStream):
        while True:
            data += await stream.receive()
            if len(data) > max_size:
                raise BufferOverflowError(f"{what} is longer than {max_size:,} bytes")


# -- answering -------------------------------------------------------------------------------------------------------


async def answer(
    session: Session, handler: Handler, policy: AnswerPolicy | None = None, in_all: anyio.Semaphore | None = None
) -> None:
    """Answer the requests of one session until it is over; then what is still at work is cancelled."""
    policy = checked(handler, policy)
    in_all = in_all or anyio.Semaphore(policy.max_in_all)
    places = anyio.Semaphore(policy.max_requests)

    async def one(stream: Stream) -> None:
        try:
            await _answer(stream, handler, policy, in_all)
        finally:
            places.release()

    async with anyio.create_task_group() as tasks:
        with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
            while True:
                await places.acquire()
                tasks.start_soon(one, await session.accept_stream())
        tasks.cancel_scope.cancel()


def checked(handler: Callable[..., Any], policy: AnswerPolicy | None) -> AnswerPolicy:
    if not callable(handler):
        raise ArgumentError(f"handler is {handler!r}; it must be a function", argument="handler")
    if not isinstance(policy, AnswerPolicy | None):
        raise ArgumentError(f"policy is of type {type(policy).__name__}; it must be an AnswerPolicy", argument="policy")
    return policy or AnswerPolicy()


def refuse(stream: StreamBase, code: int) -> None:
    """Give a request no answer, and say why."""
    stream.stop(code)
    stream.reset(code)


def code_of(error: BaseException, session: SessionBase[Any]) -> int:
    """What a request is refused with whose handler raised this; a failure is logged and counted."""
    if isinstance(error, RequestRefused):
        return error.code
    session.node.handler_failed(error, None)  # the session goes on: other requests are none the worse
    return REQUEST_FAILED


async def _answer(stream: Stream, handler: Handler, policy: AnswerPolicy, in_all: anyio.Semaphore) -> None:
    """One request, from its first byte to the last of its answer."""
    code: int | None = REQUEST_TIMED_OUT
    try:
        with anyio.move_on_after(policy.timeout):
            code = await _handle(stream, handler, policy, in_all)
        if code is not None:
            refuse(stream, code)
    except BaseException:
        stream.reset(REQUEST_FAILED)  # so that the peer does not take a part of the answer for all of it
        raise
    finally:
        stream._close()


async def _handle(stream: Stream, handler: Handler, policy: AnswerPolicy, in_all: anyio.Semaphore) -> int | None:
    """Read, ask the handler, send; give the code to refuse with, or `None`."""
    if not stream.can_send:
        return REQUEST_ONE_WAY
    data = bytearray()
    try:
        await _collect(stream, data, policy.max_size, "the request")
    except BufferOverflowError:
        return REQUEST_TOO_LONG
    except SttError:
        return REQUEST_FAILED  # the peer has given it up, or lost a part of it
    session: Any = stream.session
    asked = Request(session, stream.purpose, bytes(data))
    try:
        async with in_all:
            with ExitStack() as work:
                try:
                    work.enter_context(session.track_request())
                except SttError:
                    return REQUEST_REFUSED
                reply = single_bytes(await handler(asked))
    except BaseException as error:
        if not is_failure(error):
            raise
        return code_of(error, session)
    with suppress(SttError):  # the peer does not want it any more
        await stream.send(reply)
        stream._finish()
        await stream.flush()
    return None
