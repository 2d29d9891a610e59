"""The same core for programs without an event loop: plain sockets, `select`, threads if you like.

    with BlockingNode(node_seed=..., shared_seed=...) as node:
        session = node.connect(("192.0.2.1", 4433))
        stream = session.open_stream()
        print(session.exchange(stream, b"hello"))

There is one lock for each node. Whoever waits for something pumps for everybody until he has it, so one thread can
send while another receives, and a `send` that waits for room still takes in, acknowledges and delivers. When he has
what he waited for, another of those who wait takes over.

A program with one thread makes progress inside its calls. One that calls seldom should say `node.poll()` now and then,
or make the node with `background=True`, which keeps a thread for it.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from math import inf
from types import TracebackType
from typing import Any

from stt_anyio.base import SessionBase, StreamBase
from stt_anyio.errors import (
    ArgumentError,
    ConnectionTimeoutError,
    SessionClosedError,
    StateError,
    SttError,
    UnreachableError,
    closed_here,
    connection_failed,
)
from stt_anyio.node_base import Callback, NodeBase, ReceivedPacket, logger
from stt_anyio.udp import UdpSocket, resolve_numeric
from stt_proto import NetworkPath, SessionState
from stt_proto import Session as CoreSession
from stt_proto import Stream as CoreStream
from stt_proto.events import Event, SessionClosed
from stt_proto.types import CarrierTraits, Transmit

STOP_TIMEOUT = 5.0
"""Seconds that `stop` gives its sessions to close."""


class BlockingStream(StreamBase):
    """A stream whose calls wait.

    `timeout` is in seconds everywhere; `None` waits for as long as it takes, and `TimeoutError` says that it was over.
    Two threads may use one stream, one in each direction.
    """

    session: BlockingSession

    def __init__(self, session: BlockingSession, core: CoreStream) -> None:
        super().__init__(session, core)
        self._node = session.node
        self._readable = self._node.signal()
        self._writable = self._node.signal()
        self._acknowledged = self._node.signal()

    def receive(self, max_bytes: int = 65536, timeout: float | None = None) -> bytes:
        """Receive what has arrived, 1 to `max_bytes` bytes; `b""` when the peer has ended its direction.

        Raises:
            StreamClosedError: the peer reset it (`stream_code` tells why), or this side closed it.
            SessionClosedError: the session is over.
            TimeoutError: nothing came in time; nothing was taken.
        """
        self._check_receive(max_bytes)
        with self._node.waiting(timeout) as wait:
            while (data := self._take(max_bytes)) is None:
                wait(self._readable)
            return data

    def send(self, data: bytes | bytearray | memoryview, timeout: float | None = None) -> None:
        """Send bytes; returns when all are in the send buffer, or with a `timeout` when the peer acknowledged them.

        After a `TimeoutError` what was taken (`bytes_accepted` tells how much) goes out all the same; `reset()`
        withdraws it.

        Raises:
            StreamClosedError: the peer refuses more, or this side has ended the stream.
            SessionClosedError: the session is over.
        """
        with self._node.waiting(timeout) as wait:
            self._check_send()
            rest = data if type(data) is bytes else memoryview(data).cast("B")
            while True:
                taken = self._put(rest)
                if taken == len(rest):
                    break
                self._writable.clear()
                rest = memoryview(rest)[taken:]
                self._driver.pump()
                wait(self._writable)
            self._driver.pump()
            if timeout is not None:
                self._flush(wait)

    def send_all(self, data: bytes | bytearray | memoryview, timeout: float | None = None) -> None:
        """The same as `send`."""
        self.send(data, timeout)
