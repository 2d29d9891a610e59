"""The same core for programs without an event loop: plain sockets, `select`, and threads if you like.

    with BlockingNode(node_seed=..., shared_seed=...) as node:
        session = node.connect(("192.0.2.1", 4433))
        stream = session.open_stream()
        print(session.exchange(stream, b"hello"))

There is one lock for each node. Whoever waits pumps for everybody until he has what he waited for, so one thread can
send while another receives, and a `send` that waits for room still takes in, acknowledges and delivers. When he is
done, another of those who wait takes over.

A program with one thread makes progress inside its calls. One that calls seldom should say `node.poll()` now and then,
or make the node with `background=True`, which keeps a thread for it.

`timeout` is in seconds everywhere; `None` waits for as long as it takes, and `TimeoutError` says that it was over.
"""

from __future__ import annotations

from stt_anyio.blocking.answers import BlockingRequest
from stt_anyio.blocking.node import BlockingNode
from stt_anyio.blocking.reconnecting import BlockingReconnectingClient
from stt_anyio.blocking.session import BlockingSession
from stt_anyio.blocking.session_manager import BlockingSessionManager
from stt_anyio.blocking.stream import BlockingStream

__all__ = [
    "BlockingNode",
    "BlockingReconnectingClient",
    "BlockingRequest",
    "BlockingSession",
    "BlockingSessionManager",
    "BlockingStream",
]
