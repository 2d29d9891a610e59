"""What every host's streams have in common: everything but the waiting.

A stream here stands before one of the core's. It makes the calls, pumps after them, turns the core's errors into the
host's, and takes in the events. Where a call cannot be answered yet it says so (`None`, a short count, `False`), and
the host's own class waits: `stream.py` for asyncio and trio, `blocking/stream.py` for threads.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from operator import index
from typing import TYPE_CHECKING, Any

from stt_anyio.errors import (
    ArgumentError,
    DataExpiredError,
    RemoteError,
    StateError,
    StreamClosedError,
    SttError,
    broken,
    closed_here,
)
from stt_proto import Priority
from stt_proto import Stream as CoreStream
from stt_proto.events import StreamReset
from stt_proto.types import Buffer

if TYPE_CHECKING:
    from stt_anyio.driver import Driver
    from stt_anyio.session_base import SessionBase
    from stt_proto.broadcast import StreamOutbox


def single_bytes(data: Buffer) -> bytes | memoryview:
    """What is to be sent, as something whose length and slices are in bytes.

    Raises:
        ArgumentError: it is not bytes-like (text has to be encoded first), or not contiguous.
    """
    if type(data) is bytes:
        return data
    try:
        return memoryview(data).cast("B")
    except TypeError:
        name = type(data).__name__
        raise ArgumentError(f"data is {name}; it must be bytes-like and contiguous", argument="data") from None


class StreamBase:
    """A stream, but for the waiting.

    Attributes:
        session: the session it belongs to.
        can_send: whether this side may send on it at all; False on a one-way stream of the peer.
        can_receive: whether this side may receive; False on a one-way stream of our own.
    """

    __slots__ = (
        "_closed",
        "_core",
        "_cut",
        "_driver",
        "_receive_ended",
        "_send_ended",
        "_send_over",
        "_sending",
        "_stopped",
        "_withdrawn",
        "can_receive",
        "can_send",
        "collected",
        "fed",
        "kept",
        "session",
    )

    def __init__(self, session: SessionBase[Any], core: CoreStream) -> None:
        self.session = session
        self.can_send = core.can_write
        self.can_receive = core.can_read
        self.collected = False  # by `node.receive()`
        self.kept = False  # by an application that asked for it by its id
        self.fed: StreamOutbox | None = None  # broadcasts on it
        self._core = core
        self._driver: Driver = session.driver
        self._sending = False  # a call that has more to send waits for room
        self._cut = False  # it has sent a part so far, or nothing
        self._send_ended = False  # finished or reset
        self._withdrawn = False  # reset
        self._receive_ended = False
        self._closed = False
        self._send_over = not core.can_write  # acknowledged to the end, or given up
        self._stopped: int | None = None  # the code with which the peer refused to receive more

    @property
    def stream_id(self) -> int:
        """Its number in the session, the same on both sides."""
        return self._core.stream_id

    @property
    def purpose(self) -> str:
        """The word given by whoever opened it, or `""`."""
        return self._core.purpose

    @property
    def bytes_accepted(self) -> int:
        """How many bytes `send` has taken so far: after a cancelled one, the prefix that goes out."""
        return self._core.bytes_accepted

    @property
    def bytes_sent(self) -> int:
        """How many of them, from the first, were put into packets; none of those behind them has left this machine."""
        return self._core.bytes_sent

    @property
    def bytes_acknowledged(self) -> int:
        """How many of them, from the first, the peer's core has acknowledged, or are given up."""
        return self._core.acked_offset

    @property
    def bytes_given_up(self) -> int:
        """How many of them grew too old or were lost too often, of which some may have arrived all the same."""
        return self._core.bytes_given_up

    @property
    def priority(self) -> Priority:
        """How much what is sent here matters beside the other streams of the session; may be set at any time.

        Raises:
            ArgumentError: it is set to something else.
            StateError: the stream is one-way, from the peer to here.
        """
        return self._core.priority

    @priority.setter
    def priority(self, priority: Priority) -> None:
        self._core.priority = priority

    def ask_priority(self, priority: Priority) -> bool:
        """Ask the peer to send this stream with a priority; what its application chose itself counts for more.

        Returns:
            False when the peer does not understand that.

        Raises:
            ArgumentError: `priority` is none.
            StateError: the stream is one-way, from here to the peer.
        """
        understood = self._core.ask_priority(priority, self._driver.clock())
        self._driver.pump()
        return understood

    @property
    def is_closed(self) -> bool:
        """Whether this side has closed it, or its session is over."""
        return self._closed or self.session.is_closed

    def __repr__(self) -> str:
        purpose = f" {self.purpose!r}" if self.purpose else ""
        return f"<{type(self).__name__} {self.stream_id}{purpose} of session {self.session.session_id.hex()}>"

    # -- receiving -------------------------------------------------------------------------------------------------

    def _has_something(self) -> bool:
        """Whether `_take` will give or raise something."""
        return self._receive_ended or self._core.readable

    def _take(self, max_bytes: int) -> bytes | None:
        """Read what is there: at least a byte, `b""` at the end, `None` when there is nothing yet."""
        if self._receive_ended:
            raise closed_here(StreamClosedError("this side has closed the stream"))
        driver, core = self._driver, self._core
        try:
            data = core.read(max_bytes, driver.clock())
        except DataExpiredError:
            driver.pump()  # which returns the credit of what will never come
            raise
        except SttError as error:
            raise self.session.raised(error) from None
        if data:
            driver.written = 0
            driver.pump()  # which returns the credit
            return data
        if not core.at_eof:
            return None
        if self._send_over:
            self.session.forget(self)
        return b""

    def _check_receive(self, max_bytes: int) -> None:
        if index(max_bytes) < 1:
            raise ArgumentError(f"max_bytes is {max_bytes}; it must be at least 1", argument="max_bytes")
        if not self.can_receive:
            raise StateError(f"stream {self.stream_id} is one-way, from here to the peer")

    # -- sending ---------------------------------------------------------------------------------------------------

    def _put(self, data: bytes | memoryview) -> int:
        """Write as much as there is room for; the caller pumps."""
        if self._send_ended:
            raise closed_here(StreamClosedError("this side has ended the stream"))
        try:
            taken = self._core.write(data, self._driver.clock())
        except SttError as error:
            raise self.session.raised(error) from None
        self._cut = taken < len(data)
        return taken

    def _check_send(self) -> None:
        if not self.can_send:
            raise StateError(f"stream {self.stream_id} is one-way, from the peer to here")
        if self._send_ended:
            raise closed_here(StreamClosedError("this side has ended the stream"))
        if self._stopped is not None:
            raise self._refused(self._stopped)
        if self.session.is_closed:
            raise self.session.ended()
        self._check_not_fed()

    def _check_not_fed(self) -> None:
        """Nothing, its end neither, comes between broadcasts that are on their way."""
        if self.fed is not None and self.fed.is_writing:
            raise StateError(f"a broadcast on stream {self.stream_id} has not left yet")

    def feed(self) -> CoreStream:
        """The core's stream, for a broadcast.

        Raises:
            SttError: nothing can be sent here, or the application is in the middle of something.
        """
        if self.fed is None or not self.fed.is_writing:
            self._check_send()
        if self._sending:
            raise StateError(f"the application is sending on stream {self.stream_id}")
        return self._core

    def _is_acknowledged(self, offset: int) -> bool:
        """Whether everything below `offset` is; if not, this asks to be woken when it is."""
        if self._closed or self._withdrawn:
            raise closed_here(StreamClosedError("this side has closed the stream"))
        if self._core.acked_offset >= offset:
            return True
        if self._stopped is not None:
            raise self._refused(self._stopped)
        if self.session.is_closed:
            raise self.session.ended()
        self._core.watch_acked(offset)
        return False

    def _refused(self, code: int) -> SttError:
        return broken(StreamClosedError(f"the peer wants no more of this stream (code {code})", stream_code=code))

    # -- ending ----------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """End the sending direction after all that was accepted."""
        if self.can_send and not self._send_ended:
            self._command(self._core.finish)
            self._send_ended = True
            self._wake_writer()

    def reset(self, code: int = 0) -> None:
        """Give up sending: what is not delivered yet is withdrawn, and the peer's receiver is told.

        Args:
            code: a number that means something to the application.
        """
        if self.can_send and not self._withdrawn:
            self._command(self._core.reset, code)
            self._send_ended = self._send_over = self._withdrawn = True
            if self.fed is not None:
                error = StreamClosedError("this side has reset the stream")
                self.session.node.broadcaster.fail(self.session.core, self.stream_id, error)
            self._wake_writer()
            self._wake_flusher()

    def stop(self, code: int = 0) -> None:
        """Refuse to receive more; the peer's sender is told.

        Args:
            code: a number that means something to the application.
        """
        if self.can_receive and not self._receive_ended:
            self._command(self._core.stop, code)
            self._receive_ended = True
            self._wake_reader()

    def _close(self) -> None:
        """Finish sending and refuse to receive."""
        self._closed = True
        if (self._sending and self._cut) or (self.fed is not None and self.fed.is_inside):
            self.reset()  # the peer must not take a part of a message for all of it
        self._finish()
        self.stop()
        self._wake_flusher()
        self.session.forget(self)

    def _command(self, command: Callable[..., None], *arguments: Any) -> None:
        """Make a call that ends something; where the peer or the network was first, it means nothing any more."""
        try:
            command(*arguments, now=self._driver.clock())
        except RemoteError:
            return
        self._driver.pump()

    # -- being woken -----------------------------------------------------------------------------------------------

    @abstractmethod
    def _wake_reader(self) -> None: ...

    @abstractmethod
    def _wake_writer(self) -> None: ...

    @abstractmethod
    def _wake_flusher(self) -> None: ...

    def on_finished(self) -> None:
        """The peer has acknowledged everything, the end included."""
        self._send_over = True
        if self._core.at_eof:  # both directions are over; the event that tells of the end will find no stream any more
            self.session.forget(self)
            self._wake_reader()
        self._wake_flusher()

    def on_reset(self, event: StreamReset) -> None:
        """The peer reset its direction, or stopped ours."""
        if event.stopped:
            self._send_over = True
            self._stopped = event.code
            self._wake_writer()
            self._wake_flusher()
        else:
            self._wake_reader()

    def on_session_closed(self) -> None:
        """Nothing more will come."""
        self._wake_reader()
        self._wake_writer()
        self._wake_flusher()
