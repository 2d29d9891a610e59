"""A WebSocket as a link (RFC 6455; docs/protocol.md, P-21): the protocol objects of the `websockets` library.

One binary message is one packet. No extension is offered or accepted, so nothing is compressed: what is sealed does not
shrink, and a decompressor is one thing more that a stranger could feed. What is held of a request or an answer is
bounded (16 KiB; the library alone would take 128 lines of 8 KiB), and so is what comes after: a message of 65,535
bytes, in 64 fragments at most.
"""

from __future__ import annotations

import logging
import os
import re
from abc import abstractmethod
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from attrs import frozen
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import BINARY, CONT, TEXT, CloseCode, Frame
from websockets.http11 import Request, Response
from websockets.protocol import OPEN, Protocol
from websockets.server import ServerProtocol
from websockets.typing import Origin, Subprotocol
from websockets.uri import WebSocketURI

from stt_anyio.errors import ArgumentError, SttError, WebSocketClosedError, WebSocketHandshakeError
from stt_anyio.links.base import Outlink, Sink
from stt_proto.types import Buffer
from stt_proto.wire.framing import MAX_MESSAGE

try:
    from websockets.speedups import apply_mask
except ImportError:  # no C compiler where it was installed: slow, and the same
    from websockets.utils import apply_mask

SUBPROTOCOL = Subprotocol("stt.v1")
"""What is asked for, and must be agreed upon, in the handshake."""
MAX_FRAGMENTS = 64
"""Frames in which a message may come; one sent by us comes in one."""
MAX_HEAD = 16 << 10
"""Bytes of the first line and the headers of a request, or of an answer."""
MAX_PONGS = 64 << 10
"""Bytes that may wait to be written while pings are still answered."""

_END = b"\r\n\r\n"
LIBRARY_FAILED = "the WebSocket library failed"

_logger = logging.getLogger("stt.websocket")


@frozen
class Origins:
    """Web pages that may connect. Who sends no `Origin` is no browser, and may in any case.

    Attributes:
        allowed: origins such as `"https://example.org"`, or compiled patterns.
    """

    allowed: tuple[str | re.Pattern[str], ...] = ()

    @classmethod
    def of(cls, origins: Any) -> Origins:
        """Check a list of origins.

        Raises:
            ArgumentError: it is none.
        """
        allowed = tuple(origins) if isinstance(origins, Iterable) and not isinstance(origins, str | bytes) else (None,)
        if not all(isinstance(each, str | re.Pattern) for each in allowed):
            raise ArgumentError(f"origins is {origins!r}; it must be a list of origins", argument="origins")
        return cls(allowed)

    def allows(self, origin: str | None) -> bool:
        """Whether a request with this `Origin`, or with none, may pass."""
        if origin is None:
            return True
        return any(each == origin if isinstance(each, str) else each.fullmatch(origin) for each in self.allowed)

    def for_protocol(self) -> list[Origin | re.Pattern[str] | None]:
        """In the form that the library takes."""
        return [None, *(Origin(each) if isinstance(each, str) else each for each in self.allowed)]


class WebSocketLink(Outlink):
    """What both sides have in common, once the handshake is over."""

    def __init__(self, protocol: Protocol) -> None:
        super().__init__()
        self._protocol = protocol
        self._fragments: list[bytes | bytearray | memoryview] = []
        self._tail: bytes | None = b""  # the last bytes of the head so far; `None` when all of it was read
        self._head = 0  # bytes of it that have come

    def receive(self, data: Buffer, sink: Sink) -> None:
        """What stands behind the request, or the answer, is only looked at when it is known what comes of that."""
        if self._tail is not None:
            tail, view = self._tail, memoryview(data)
            seen = tail + view
            end = seen.find(_END)
            size = len(view) if end < 0 else end + len(_END) - len(tail)
            self._head += size
            if self._head > MAX_HEAD:
                if not self.over:
                    self._refuse_head()
                return
            if end >= 0:
                self._tail = None
                self._take_in(view[:size], sink)
                data = view[size:]
            else:
                self._tail = seen[1 - len(_END) :]
        self._take_in(data, sink)

    @abstractmethod
    def _refuse_head(self) -> None:
        """The headers are too long: nothing more is read."""

    def _take_in(self, data: Buffer, sink: Sink) -> None:
        if len(data) and not self.over:
            self._receive(data, sink)

    def _receive(self, data: Buffer, sink: Sink) -> None:
        protocol = self._protocol
        try:
            protocol.receive_data(data)  # type: ignore[arg-type]  # any buffer will do
        except Exception:  # which would be the library's mistake; it must cost this connection and no more
            _logger.exception("the WebSocket library failed")
            self.fail(WebSocketClosedError(LIBRARY_FAILED))
            return
        for event in protocol.events_received():
            if self.over:
                break
            if isinstance(event, Frame):
                self._on_frame(event, sink)
            else:
                self._on_handshake(event)
        self._collect()

    def _on_frame(self, frame: Frame, sink: Sink) -> None:
        opcode = frame.opcode
        if opcode is BINARY and frame.fin:
            if frame.data:
                sink(frame.data)
        elif opcode is BINARY or (opcode is CONT and self._fragments):
            self._on_fragment(frame, sink)
        elif opcode is TEXT or opcode is CONT:
            self._refuse(CloseCode.UNSUPPORTED_DATA, "only binary messages are understood")

    def _on_fragment(self, frame: Frame, sink: Sink) -> None:
        self._fragments.append(frame.data)
        if len(self._fragments) > MAX_FRAGMENTS:
            self._refuse(CloseCode.MESSAGE_TOO_BIG, "too many fragments")
        elif frame.fin:
            message = b"".join(self._fragments)
            self._fragments.clear()
            if message:
                sink(message)

    @abstractmethod
    def _on_handshake(self, event: object) -> None:
        """Take what came before packets can pass: a request, or the answer to one."""

    def _refuse(self, code: CloseCode, reason: str) -> None:
        """End it because of what the other side sent."""
        self._protocol.fail(code, reason)
        self.fail(WebSocketClosedError(f"the WebSocket was closed: {int(code)} {reason}", close_code=int(code)))

    def _collect(self) -> None:
        """Queue what the library wants to say, and see where it stands."""
        protocol = self._protocol
        writes = protocol.data_to_send()
        if protocol.state is OPEN:
            if writes and self.open and self.pending > MAX_PONGS:
                return  # who does not read gets no pongs: the last ping is the only one that matters (RFC 6455, 5.5.3)
            self.open = True
        elif self.open or protocol.close_expected():
            self._end(protocol)
        self.put(*filter(None, writes))

    def _end(self, protocol: Protocol) -> None:
        """The WebSocket is being closed, or was."""
        if not self.over:
            self.fail(_closed(protocol))

    def end(self) -> None:
        if not self.over:
            self._protocol.receive_eof()
            self._collect()
            self.fail(self._failed_handshake() or _closed(self._protocol))

    def _failed_handshake(self) -> SttError | None:
        """Why the handshake failed, if it did."""
        return None

    def close(self) -> None:
        if self._protocol.state is OPEN:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
            self.put(*filter(None, self._protocol.data_to_send()))
            self.over = True
            self.open = False


class WebSocketServerLink(WebSocketLink):
    """The side that is dialled.

    Args:
        origins: web pages that may connect.
        path: the path that must be asked for; `None` for any.
    """

    def __init__(self, origins: Origins, path: str | None) -> None:
        self._server = ServerProtocol(
            origins=origins.for_protocol(), subprotocols=[SUBPROTOCOL], max_size=MAX_MESSAGE, logger=_logger
        )
        super().__init__(self._server)
        self._path = path

    def start(self) -> None:
        """The client begins."""

    def _on_handshake(self, event: object) -> None:
        assert isinstance(event, Request)
        server = self._server
        if self._path is not None and event.path.partition("?")[0] != self._path:
            response = server.reject(HTTPStatus.NOT_FOUND, "There is nothing here.\n")
        else:
            response = server.accept(event)
        self._answer(response)

    def _answer(self, response: Response) -> None:
        self._server.send_response(response)
        if response.status_code != 101:  # and what the client has sent behind its request means nothing
            status = f"{response.status_code} {response.reason_phrase}"
            self.fail(WebSocketHandshakeError(f"refused: {status}", status=response.status_code))

    def _refuse_head(self) -> None:
        self._answer(self._server.reject(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "Too many headers.\n"))
        self.put(*filter(None, self._server.data_to_send()))

    def _failed_handshake(self) -> SttError | None:
        return WebSocketHandshakeError("the connection ended in the handshake") if not self.open else None

    def send(self, buffers: tuple[bytes | memoryview, ...]) -> None:
        """Queue the buffers as they are behind a header: a server does not mask."""
        size = sum(map(len, buffers))
        self._out.append(_header(size, 0) + buffers[0] if len(buffers[0]) < 64 else _header(size, 0))
        self._out += buffers[1:] if len(buffers[0]) < 64 else buffers
        self.pending += size


class WebSocketClientLink(WebSocketLink):
    """The side that dials.

    Args:
        uri: what to ask for, and where.
        headers: more headers for the request.
        origin: an `Origin` to send; none when `None`.
    """

    def __init__(self, uri: WebSocketURI, headers: Iterable[tuple[str, str]] = (), origin: str | None = None) -> None:
        self._client = ClientProtocol(
            uri,
            origin=None if origin is None else Origin(origin),
            subprotocols=[SUBPROTOCOL],
            max_size=MAX_MESSAGE,
            logger=_logger,
        )
        super().__init__(self._client)
        self._headers = headers

    def start(self) -> None:
        request = self._client.connect()
        for name, value in self._headers:
            request.headers[name] = value
        self._client.send_request(request)
        self.put(*self._client.data_to_send())

    def _on_handshake(self, event: object) -> None:
        if self._client.state is OPEN and self._client.subprotocol != SUBPROTOCOL:
            self._client.fail(CloseCode.PROTOCOL_ERROR, f"the subprotocol must be {SUBPROTOCOL}")
            self.fail(WebSocketHandshakeError(f"the server does not speak {SUBPROTOCOL}", status=101))

    def _refuse_head(self) -> None:
        self.fail(WebSocketHandshakeError(f"the headers of the server are longer than {MAX_HEAD:,} bytes"))

    def _end(self, protocol: Protocol) -> None:
        self.fail(self._failed_handshake() or _closed(protocol))

    def _failed_handshake(self) -> SttError | None:
        error = self._client.handshake_exc
        if isinstance(error, InvalidStatus):
            response: Response = error.response
            status = f"{response.status_code} {response.reason_phrase}".rstrip()
            return WebSocketHandshakeError(f"the server does not upgrade: {status}", status=response.status_code)
        if error is not None and not isinstance(error.__cause__, EOFError):
            return WebSocketHandshakeError(f"the WebSocket handshake failed: {error}")
        if self._client.state is not OPEN and not self.open and self._client.close_sent is None:
            return WebSocketHandshakeError("the server closed the connection in the handshake")
        return None

    def send(self, buffers: tuple[bytes | memoryview, ...]) -> None:
        """Mask, with the library's C code, and queue."""
        data = b"".join(buffers)
        mask = os.urandom(4)
        self._out += _header(len(data), 0x80) + mask, apply_mask(data, mask)
        self.pending += len(data)


def _header(size: int, mask_bit: int) -> bytes:
    """What stands before a binary message in one frame (RFC 6455, section 5.2)."""
    if size < 126:
        return bytes((0x82, mask_bit | size))
    if size < 65_536:
        return bytes((0x82, mask_bit | 126)) + size.to_bytes(2)
    return bytes((0x82, mask_bit | 127)) + size.to_bytes(8)


def _closed(protocol: Protocol) -> WebSocketClosedError:
    """The error for a WebSocket that was closed, by whom and why."""
    received, sent = protocol.close_rcvd, protocol.close_sent
    by_peer = received is not None and protocol.close_rcvd_then_sent is not False
    close = received if by_peer else sent
    if close is None:
        return WebSocketClosedError("the connection of the WebSocket ended")
    who = "by the peer" if by_peer else "here"
    told = f"{int(close.code)} {close.reason}".rstrip()
    return WebSocketClosedError(f"the WebSocket was closed {who}: {told}", close_code=int(close.code))
