"""What is spoken on connections, in memory: any cut of the bytes, any bytes at all (docs/protocol.md, P-13, P-21)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.uri import parse_uri

from stt_anyio.errors import InvalidFrameError, ProxyError, TlsError, WebSocketClosedError, WebSocketHandshakeError
from stt_anyio.links import (
    FramedLink,
    Link,
    MessageLink,
    Origins,
    ProxyLink,
    TlsLink,
    WebSocketClientLink,
    WebSocketServerLink,
    proxy_of,
)
from stt_anyio.links.websocket import MAX_HEAD
from tests.anyio.certificates import contexts

URI = parse_uri("ws://localhost/stt")
KINDS = ["framed", "websocket", "tls", "websocket in tls"]


def both(kind: str) -> tuple[Link, Link]:
    """The two ends of a connection: who dials, and who is dialled."""
    plain = "websocket" in kind
    client: Link = WebSocketClientLink(URI) if plain else FramedLink()
    server: Link = WebSocketServerLink(Origins(), None) if plain else FramedLink()
    if "tls" in kind:
        theirs, ours = contexts()
        client, server = TlsLink(client, ours, "localhost"), TlsLink(server, theirs, None)
    return client, server


def written(link: Link) -> bytes:
    return b"".join(link.take())


class Wire:
    """Carries bytes between two links, cut into pieces."""

    def __init__(self, kind: str, cut: Callable[[int], int] = lambda left: left) -> None:
        self.client, self.server = self.ends = both(kind)
        self.got: tuple[list[bytes], list[bytes]] = ([], [])
        self._cut = cut
        for link in self.ends:
            link.start()
        self.carry()

    def carry(self) -> None:
        """Until nobody has anything to say."""
        moved = True
        while moved:
            moved = False
            for source, target, got in ((0, 1, self.got[1]), (1, 0, self.got[0])):
                data = bytearray(written(self.ends[source]))
                moved |= bool(data)
                while data:
                    size = max(1, min(self._cut(len(data)), len(data)))
                    piece = bytearray(data[:size])
                    self.ends[target].receive(piece, lambda message, got=got: got.append(bytes(message)))
                    piece[:] = bytes(size)  # it was only borrowed
                    del data[:size]


@pytest.mark.parametrize("kind", KINDS)
def test_messages_both_ways(kind: str) -> None:
    sizes = [1, 63, 64, 125, 126, 127, 1000, 16_384, 65_535]
    wire = Wire(kind)
    assert wire.client.open
    assert wire.server.open
    for end in (0, 1):
        for size in sizes:
            head = bytes(range(min(13, size)))
            wire.ends[end].send((head, bytes(size - len(head))))
        assert wire.ends[end].pending >= sum(sizes)
    wire.carry()
    assert [len(message) for message in wire.got[0]] == [len(message) for message in wire.got[1]] == sizes
    assert wire.got[0][-1][:13] == bytes(range(13))
    assert wire.client.pending == wire.server.pending == 0


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20)
@given(st.data())
def test_any_cut(kind: str, data: st.DataObject) -> None:
    """Messages come out whole and in order however the bytes are cut, and from memory that is used again."""
    sizes = data.draw(st.lists(st.integers(1, 400), min_size=1, max_size=8))
    steps = data.draw(st.lists(st.integers(1, 300), min_size=1, max_size=20))
    turn = iter(range(1 << 30))
    wire = Wire(kind, lambda left: steps[next(turn) % len(steps)])
    sent = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    for message in sent:
        wire.client.send((message,))
        wire.server.send((message[:1], message[1:]))
    wire.carry()
    assert wire.got == (sent, sent)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30)
@given(st.lists(st.binary(max_size=300), max_size=6), st.booleans(), st.booleans())
def test_any_bytes(kind: str, pieces: list[bytes], begun: bool, end: bool) -> None:
    """G-3: nothing raises; what fails has a reason, and says no more than it must."""
    for number in (0, 1):
        wire = Wire(kind) if begun else None
        link = wire.ends[number] if wire is not None else both(kind)[number]
        if wire is None:
            link.start()
        for piece in pieces:
            link.receive(piece, lambda message: None)
            link.take()
        if end:
            link.end()
            assert link.over
        assert link.over or link.failure is None
        if link.over:
            assert not link.open
        link.receive(b"more", lambda message: None)
        link.close()
        link.take()


@pytest.mark.parametrize("kind", KINDS)
def test_goodbye(kind: str) -> None:
    """What is spoken has a way to say it, or the end of the stream does."""
    wire = Wire(kind)
    wire.client.close()
    assert not wire.client.open
    wire.carry()
    if "websocket" in kind:
        assert wire.server.over
        failure = wire.server.failure
        assert isinstance(failure, WebSocketClosedError)
        assert failure.close_code == 1000
    wire.server.end()
    assert wire.server.over


def test_an_end_in_the_middle() -> None:
    client, server = both("framed")
    client.start()
    server.start()
    client.send((b"x" * 100,))
    server.receive(written(client)[:50], lambda message: None)
    server.end()
    assert isinstance(server.failure, InvalidFrameError)


@pytest.mark.parametrize("kind", ["tls", "websocket", "websocket in tls"])
def test_an_end_in_the_handshake(kind: str) -> None:
    for link in both(kind):
        link.start()
        link.take()
        link.end()
        assert isinstance(link.failure, TlsError if "tls" in kind else WebSocketHandshakeError)


@pytest.mark.parametrize("origin", ["https://app.example", "https://evil.example"])
def test_what_stands_behind_a_request_that_is_refused(origin: str) -> None:
    """P-21: a web page that may not connect cannot send its messages along with the request."""
    client, got = WebSocketClientLink(URI, origin=origin), []
    client.start()
    request = written(client)
    client.send((b"message",))
    server = WebSocketServerLink(Origins(("https://app.example",)), None)
    server.receive(request + written(client), got.append)
    assert got == ([b"message"] if "app" in origin else [])
    assert server.over == ("evil" in origin)
    assert written(server).startswith(b"HTTP/1.1 403" if "evil" in origin else b"HTTP/1.1 101")


def test_headers_of_many_lines() -> None:
    """P-21: the library would hold 1 MiB of a stranger's headers, for as long as he likes; 16 KiB are enough."""
    server = WebSocketServerLink(Origins(), None)
    server.receive(b"GET / HTTP/1.1\r\nHost: here\r\n", lambda message: None)
    for number in range(100):
        server.receive(b"X-%d: " % number + bytes(4000).replace(b"\0", b"a") + b"\r\n", lambda message: None)
        if server.over:
            break
    assert number == 4
    assert len(server._protocol.reader.buffer) <= MAX_HEAD
    assert isinstance(server.failure, WebSocketHandshakeError)
    assert server.failure.status == 431
    assert written(server).startswith(b"HTTP/1.1 431 ")
    server.receive(b"more" * 10_000 + b"\r\n\r\n", lambda message: None)
    assert not written(server)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("spare", [0, -1])
def test_the_longest_headers(spare: int, whole: bool) -> None:
    """P-21: exactly 16 KiB pass, in one piece or in many; one byte more does not."""
    client = WebSocketClientLink(URI, headers=[("W", "a" * 4000), ("X", "a" * 8000)])
    client.start()
    request = written(client)[: -len(b"\r\n")] + b"Y: "
    request += b"b" * (MAX_HEAD - len(request) - 4 - spare) + b"\r\n\r\n"
    server, got = WebSocketServerLink(Origins(), None), []
    client.send((b"message",))
    request += written(client)
    for at in range(0, len(request), len(request) if whole else 1000):
        server.receive(request[at : at + (len(request) if whole else 1000)], got.append)
    assert server.open == (spare == 0)
    assert got == ([b"message"] if spare == 0 else [])
    assert written(server).startswith(b"HTTP/1.1 101" if spare == 0 else b"HTTP/1.1 431")


def test_an_answer_with_headers_of_many_lines() -> None:
    """P-21: who dials a server that never stops talking learns that it is none."""
    client = WebSocketClientLink(URI)
    client.start()
    written(client)
    client.receive(b"HTTP/1.1 101 Switching Protocols\r\n" + b"X: y\r\n" * 3000, lambda message: None)
    assert isinstance(client.failure, WebSocketHandshakeError)
    assert "16,384 bytes" in str(client.failure)
    assert len(client._protocol.reader.buffer) <= MAX_HEAD


def test_who_pings_and_does_not_read() -> None:
    """P-21: pongs do not pile up; who reads gets them."""
    wire = Wire("websocket")
    ping = b"\x89\xfd" + bytes(4 + 125)
    for _ in range(10_000):
        wire.server.receive(ping, lambda message: None)
    assert 64 << 10 <= wire.server.pending <= (64 << 10) + 256
    written(wire.server)
    wire.server.receive(ping, lambda message: None)
    assert written(wire.server) == b"\x8a\x7d" + bytes(125)


def test_frames_that_do_not_wait_for_the_answer() -> None:
    """All of it in one piece: a request that is refused, and a close frame."""
    client = WebSocketClientLink(URI, origin="https://evil.example")
    client.start()
    server = WebSocketServerLink(Origins(), None)
    server.receive(written(client) + b"\x88\x80\0\0\0\0", lambda message: None)
    assert isinstance(server.failure, WebSocketHandshakeError)


def test_a_mistake_of_the_library_costs_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire("websocket")
    monkeypatch.setattr("websockets.protocol.Protocol.receive_data", lambda *_: 1 / 0)
    wire.client.send((b"x",))
    wire.carry()
    assert isinstance(wire.server.failure, WebSocketClosedError)
    assert not wire.server.open


@pytest.mark.parametrize("kind", ["tls", "websocket in tls"])
def test_what_is_written_at_once_shares_records(kind: str) -> None:
    """A record of its own for each header of a few bytes would cost as much as 16 KiB of data."""
    wire = Wire(kind)
    for link in wire.ends:
        for _ in range(3):
            link.send((b"h" * 70, b"x" * 5000))
        data, sizes = written(link), []
        while data:
            size = 5 + int.from_bytes(data[3:5])
            sizes.append(size)
            data = data[size:]
        assert len(sizes) == 1


def test_a_damaged_record_ends_tls() -> None:
    wire = Wire("tls")
    wire.client.send((bytes(100),))
    sealed = bytearray(written(wire.client))
    sealed[-1] ^= 1
    wire.server.receive(sealed, lambda message: None)
    assert isinstance(wire.server.failure, TlsError)
    wire.server.receive(sealed, lambda message: None)


def test_tls_that_is_ended() -> None:
    """`close_notify` is the end of the stream, and is answered with nothing more."""
    wire = Wire("tls")
    wire.client.fail(TlsError("enough"))
    wire.carry()
    assert wire.server.over
    assert wire.server.failure is None


def test_much_at_once_in_tls() -> None:
    """More than one buffer of plaintext."""
    wire = Wire("tls")
    for _ in range(12):
        wire.client.send((bytes(60_000),))
    wire.carry()
    assert [len(message) for message in wire.got[1]] == [60_000] * 12


def test_in_a_tunnel() -> None:
    """What comes behind the proxy's answer belongs to what is spoken in the tunnel."""
    link = ProxyLink(FramedLink(), proxy_of("http://proxy:3128"), URI)
    link.start()
    assert written(link).startswith(b"CONNECT localhost:80 HTTP/1.1\r\n")
    assert not link.open
    got: list[bytes] = []
    answer = b"HTTP/1.1 200 OK\r\nVia: proxy\r\n\r\n\0\5hello"
    for at in range(len(answer)):
        link.receive(answer[at : at + 1], lambda message: got.append(bytes(message)))
    assert got == [b"hello"]
    assert link.open
    link.close()
    link.end()
    assert link.over


@given(st.lists(st.binary(max_size=100), max_size=8))
def test_any_answer_of_a_proxy(pieces: list[bytes]) -> None:
    link = ProxyLink(FramedLink(), proxy_of("http://proxy:3128"), URI)
    link.start()
    for piece in pieces:
        link.receive(piece, lambda message: None)
    link.end()
    assert isinstance(link.failure, ProxyError)


def test_messages_of_others() -> None:
    """Where somebody else keeps the borders of messages."""
    link, got = MessageLink(), []
    link.start()
    link.send((b"a", b"b"))
    assert link.take() == [b"ab"]
    link.receive(b"in", got.append)
    link.end()
    link.receive(b"late", got.append)
    assert got == [b"in"]
