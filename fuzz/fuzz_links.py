"""What comes in on a connection: length frames, WebSockets, a proxy's answer (docs/protocol.md, P-13 and P-21).

Whoever can reach a port can send anything, and cut it anywhere. Nothing raises; the messages are those of the whole;
what is held, and what is said in answer, is bounded; after a failure nothing comes out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from fuzz.harness import Choices, instrumented, main

with instrumented(__name__, "stt_anyio.links", "stt_proto.wire.framing", "websockets"):
    from websockets.uri import parse_uri

    from stt_anyio.links import FramedLink, Link, Origins, ProxyLink, WebSocketClientLink, WebSocketServerLink, proxy_of
    from stt_anyio.links.websocket import LIBRARY_FAILED

MAX_MESSAGE = 65_535
MAX_ANSWER = 4096
KEY = "AAAAAAAAAAAAAAAAAAAAAA=="
"""What the client asks with in every run, so that a seed can hold the answer."""
URI = parse_uri("ws://here/stt")

logging.getLogger("stt.websocket").disabled = True


def client() -> Link:
    """A client that has asked."""
    link = WebSocketClientLink(URI)
    link._client.key = KEY
    link.start()
    link.take()
    return link


def tunnel() -> Link:
    """A proxy was asked."""
    link = ProxyLink(FramedLink(), proxy_of("http://proxy"), URI)
    link.start()
    link.take()
    return link


def server() -> Link:
    """A server that waits."""
    link = WebSocketServerLink(Origins(("https://here",)), "/stt")
    link.start()
    return link


def framed() -> Link:
    """A byte stream."""
    link = FramedLink()
    link.start()
    return link


KINDS: tuple[Callable[[], Link], ...] = (framed, server, client, tunnel)


def fuzz_one(data: bytes) -> None:
    """The same bytes at once, and in pieces."""
    choices = Choices(data)
    make, step, end = choices.pick(KINDS), 1 + choices.byte(), choices.flag()
    whole = choices.rest()
    assert take(make(), whole, len(whole) or 1, end) == take(make(), whole, step, end)


def take(link: Link, data: bytes, step: int, end: bool) -> tuple[list[bytes], bool, str]:
    """What a link makes of some bytes: messages, whether it is over, and why."""
    got: list[bytes] = []
    for at in range(0, len(data), step):
        before, over = len(got), link.over
        piece = bytearray(data[at : at + step])
        link.receive(piece, lambda message: got.append(bytes(message)))
        piece[:] = bytes(len(piece))
        assert len(got) == before or not over, "a message after the end"
        assert sum(map(len, link.take())) <= MAX_ANSWER + len(data)
    if end:
        link.end()
        assert link.over
    assert link.over or link.failure is None
    assert str(link.failure) != LIBRARY_FAILED
    assert not (link.over and link.open)
    assert all(0 < len(message) <= MAX_MESSAGE for message in got)
    return got, link.over, str(link.failure)


if __name__ == "__main__":
    main(fuzz_one)
