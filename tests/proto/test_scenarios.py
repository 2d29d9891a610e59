"""The cases of the QUIC interop runner, in our terms: what is agreed on, and by whom (docs/testing.md, "Scenarios").

Each asserts from the wire that what it is about really happened, and ends with both sides idle. The link is the
runner's own unless told otherwise: 15 ms, 10 Mbit/s, a queue of 25 packets (`BROADBAND`). The cases that are about bad
links stand in `test_scenarios_links.py`. Migration, resumption and WebSocket join with what they test.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest

from stt_proto import NetworkPath, Session
from stt_proto.config import Limits
from stt_proto.errors import TooManyStreamsError, VersionError
from stt_proto.events import Event, SessionEstablished, StreamReadable, StreamsAvailable
from stt_proto.testing import Conditions, serve_echo
from stt_proto.wire import Hello, Message, MessageType, Piece, Retry, VersionList, decode_datagram_untrusted
from tests.proto.handshake_world import Entropy, spoofed_hello
from tests.proto.scenario import HANDSHAKE, scene
from tests.proto.worlds import filler

MILLISECONDS = 0.001


def message_of(datagram: bytes) -> Message:
    """A handshake message that came whole."""
    message = decode_datagram_untrusted(datagram)
    assert isinstance(message, Message)
    return message


def hello_of(datagram: bytes) -> Hello:
    return Hello.decode_untrusted(message_of(datagram).body)


# -- handshake -----------------------------------------------------------------------------------------------------


def test_handshake() -> None:
    """H: one handshake of four datagrams, no RETRY; 1 KB is there after one and a half round trips."""
    case = scene()
    session = case.client.connect(case.server)
    case.world.run_until(lambda: session.max_datagram_size)  # it has the keys, a round trip before it is confirmed
    stream = session.open_stream()
    stream.write(filler(1024), case.world.now)
    stream.finish(case.world.now)
    case.client.pump()
    case.world.run_until(lambda: case.inbox.complete)
    assert [entry.kind for entry in case.wire.entries[:4]] == [
        "HELLO", "CHALLENGE piece", "CHALLENGE piece", "AUTH_PROOF"
    ]  # fmt: skip
    assert {kind: count for kind, count in case.kinds().items() if kind in HANDSHAKE} == {
        "HELLO": 1, "CHALLENGE": 2, "AUTH_PROOF": 1
    }  # fmt: skip
    assert case.inbox.digests == [sha256(filler(1024)).hexdigest()]
    on_the_way = sum(len(entry.data) for entry in case.wire.entries[:6]) * 8 / 10e6
    assert case.world.now <= 3 * 15 * MILLISECONDS + on_the_way
    assert len(case.server.events(SessionEstablished)) == 1
    case.finish(session)


def test_transfer() -> None:
    """DC: 2, 3 and 5 MB side by side through small windows, which move on; one handshake; a clean close."""
    small: dict[str, Any] = {"stream_receive_window": 64 << 10, "session_receive_window": 160 << 10}
    case = scene(server=small)
    session = case.dial()
    turns: list[int] = []

    def watch(_: Session | None, event: Event) -> None:
        if isinstance(event, StreamReadable) and (not turns or turns[-1] != event.stream_id):
            turns.append(event.stream_id)

    case.server.listeners.append(watch)
    assert session._engines is not None
    credit = session._engines.streams.credit
    assert credit.limit == 160 << 10
    case.upload(session, 2_000_000, 3_000_000, 5_000_000)
    assert credit.limit >= 10_000_000
    assert len(turns) > 300, "the streams take turns"
    assert case.kinds()["AUTH_PROOF"] == 1
    case.finish(session)


@pytest.mark.parametrize("suite", [1, 2])
def test_suite(suite: int) -> None:
    """C20 and its like: 3 MB under each suite, which CHALLENGE names."""
    case = scene(Conditions(delay=0.005), client={"suites": (suite,)})
    session = case.dial()
    (first, _) = case.handshake("CHALLENGE")
    piece = decode_datagram_untrusted(first.data)
    assert isinstance(piece, Piece)
    assert (piece.offset, piece.data[16], piece.data[17]) == (0, 1, suite)
    case.upload(session, 3_000_000)
    case.finish(session)


def test_many_streams() -> None:
    """M: 1,999 streams of 32 bytes, each answered, of which 100 may be open; the limit is raised on the way."""
    case = scene(server={"max_concurrent_streams": 100})
    case.server.listeners.clear()
    serve_echo(case.server)
    session = case.dial()
    opened = most = refusals = 0

    def open_more() -> None:
        nonlocal opened, most, refusals
        while opened < 1999:
            try:
                stream = session.open_stream()
            except TooManyStreamsError:
                refusals += 1
                break
            stream.write(filler(32, stream.stream_id), case.world.now)
            stream.finish(case.world.now)
            opened += 1
            most = max(most, opened - len(case.outbox.complete))

    case.client.listeners.append(lambda _, event: open_more() if isinstance(event, StreamsAvailable) else None)
    open_more()
    case.client.pump()
    case.world.run_until(lambda: len(case.outbox.complete) == 1999)
    arrived = {incoming.stream_id: incoming.digest for incoming in case.outbox.complete}
    assert arrived == {4 * n: sha256(filler(32, 4 * n)).hexdigest() for n in range(1999)}
    assert most == 100
    assert refusals >= 10
    assert case.kinds()["AUTH_PROOF"] == 1
    case.finish(session)


def test_cookie_under_load() -> None:
    """S: a crowd of half-open handshakes makes the server ask for cookies; who shows his is let in, once."""
    case = scene(server={"limits": Limits(half_open_without_cookie=16)})
    for number in range(17):
        path = NetworkPath("udp", case.server.address, (f"192.0.2.{number}", 4433))
        case.server.endpoint.receive(spoofed_hello(Entropy(number)), path, 0.0)
    session = case.dial()
    first, second = case.handshake("HELLO")
    (retry,) = case.handshake("RETRY")
    cookie = Retry.decode_untrusted(message_of(retry.data).body).cookie
    assert len(retry.data) < len(first.data)
    assert (hello_of(first.data).cookie, hello_of(second.data).cookie) == (b"", cookie)
    assert hello_of(first.data).core() == hello_of(second.data).core()
    challenges = [entry for entry in case.handshake("CHALLENGE") if entry.target == case.client.address]
    assert len(challenges) == 2
    assert first.at < retry.at < second.at < challenges[0].at
    case.upload(session, 10_000)
    assert len(case.server.events(SessionEstablished)) == 1
    session.close(case.world.now)
    case.world.assert_idle()


# -- agreement -----------------------------------------------------------------------------------------------------


def test_version_mismatch() -> None:
    """V: nothing in common is said with one VERSION, which starts nothing; the client hears it after its grace."""
    case = scene(client={"suites": (1,)}, server={"suites": (2,)})
    session = case.client.connect(case.server)
    case.world.run_until(lambda: session.is_closed)
    assert isinstance(session.close_error, VersionError)
    assert 0.75 <= case.world.now < 0.85
    hellos, versions = case.handshake("HELLO"), case.handshake("VERSION")
    assert len(hellos) == len(versions) == 2  # asked once more, since the first may have been forged
    for hello, version in zip(hellos, versions, strict=True):
        assert len(version.data) < len(hello.data)
        message, told = message_of(hello.data), VersionList.decode_untrusted(message_of(version.data).body)
        assert (told.versions, told.suites) == ((1,), (2,))
        assert told.hello_hash == hello_of(hello.data).hello_hash(message.dcid, message.scid)
    assert case.kinds() == {"HELLO": 2, "VERSION": 2, "packet": 0}
    case.world.assert_idle()


@pytest.mark.parametrize(("offered", "answer"), [((9,), MessageType.VERSION), ((9, 1), MessageType.CHALLENGE)])
def test_versions_to_come(offered: tuple[int, ...], answer: MessageType) -> None:
    """V, W-8, W-9: a HELLO of a version that is not known yet is understood so far as to be answered."""
    case = scene()
    hello = spoofed_hello(Entropy(offered), versions=offered)
    path = NetworkPath("udp", case.server.address, ("192.0.2.1", 4433))
    case.server.endpoint.receive(hello, path, 0.0)
    answers = [datagram for transmit in case.server.endpoint.transmits(0.0) for datagram in transmit.datagrams()]
    assert {datagram[0] & 0x1F for datagram in answers} == {answer}
    assert sum(map(len, answers)) <= 3 * len(hello)
    case.world.assert_idle()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("2001:db8::1", 50_000), ("2001:db8::2", 4433)),
        (("2001:db8::1", 50_000, 0, 0), ("2001:db8::2", 4433, 0, 0)),
        (("fe80::1%eth0", 50_000, 0, 2), ("fe80::2%eth0", 4433, 0, 2)),
    ],
)
def test_ipv6(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    """6: addresses of IPv6 in each of their forms, with a cookie, which is bound to the address.

    The hosts do the same over real sockets: `test_names_are_looked_up_and_the_other_family_gets_a_socket`.
    """
    case = scene(client={"address": one}, server={"address": other, "limits": Limits(half_open_without_cookie=0)})
    path = NetworkPath("udp", other, ("2001:db8:ffff::1", 9))
    case.server.endpoint.receive(spoofed_hello(Entropy(1)), path, 0.0)
    session = case.dial()
    case.upload(session, 100_000)
    assert {(entry.source, entry.target) for entry in case.wire if entry.source == one} == {(one, other)}
    assert case.kinds(case.server)["RETRY"] == 1
    session.close(case.world.now)
    case.world.assert_idle()


# -- the amplification limit ---------------------------------------------------------------------------------------


def drop(*numbers: int) -> Callable[[bytes, NetworkPath], bytes | None]:
    """A tap that drops these datagrams of the client, counted from 1."""
    count = 0

    def tap(datagram: bytes, path: NetworkPath) -> bytes | None:
        nonlocal count
        if path.local != ("client", 1):
            return datagram
        count += 1
        return None if count in numbers else datagram

    return tap


@pytest.mark.parametrize("lost", ["client", "server"])
def test_amplification_limit(lost: str) -> None:
    """A: the server's first words go to somebody who may not be there: at most three times what came from him.

    Of the client's datagrams the second to the seventh are lost, as in the runner; or all of the server's, so that
    HELLO is repeated. `test_attacks.test_amplification` tries the same with whatever an attacker can send.
    """
    case = scene()
    if lost == "client":
        case.world.taps.append(drop(*range(2, 8)))
    else:
        case.back.outage(0.0, 5.0)
    session = case.client.connect(case.server)
    case.world.run_until(session.is_active)
    proven = next(at for at, _, event in case.server.log if isinstance(event, SessionEstablished))
    from_client = case.wire.between(case.client.address, case.server.address)
    from_server = case.wire.between(case.server.address, case.client.address)
    arrived = sum(len(entry.data) for entry in from_client if entry.arrivals and entry.arrivals[0] < proven)
    sent = sum(len(entry.data) for entry in from_server if entry.at < proven)
    assert len(case.wire.having("taken" if lost == "client" else "cut")) >= 6
    assert 0 < sent <= 3 * arrived
    assert len(case.server.events(SessionEstablished)) == 1
    case.upload(session, 1000)
    case.finish(session)
