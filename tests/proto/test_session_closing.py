"""How a session ends: delivered, told, acknowledged, and with a reason (docs/protocol.md, K-1 to K-3 and K-6)."""

from __future__ import annotations

import hashlib

import pytest

from stt_proto import CloseReason, NetworkPath, SessionState
from stt_proto.errors import (
    ArgumentError,
    SessionClosedError,
    SessionTimeoutError,
    StreamClosedError,
    SttError,
)
from stt_proto.events import SessionClosed, SessionStateChanged
from stt_proto.session.ending import MAX_ANSWERS
from stt_proto.testing import Conditions
from stt_proto.wire import MAX_DETAIL, Padding, Ping, SessionClose
from tests.proto.worlds import Mover, Pair, assert_empty, filler, sealed, session_pair

CLOSING, CLOSED = SessionState.CLOSING, SessionState.CLOSED


def closed(pair: Pair) -> tuple[SessionClosed, SessionClosed]:
    """What each side was told, exactly once: the client, the server."""
    (one,), (other,) = pair.client.events(SessionClosed), pair.server.events(SessionClosed)
    return one, other


def watch(pair: Pair) -> list[NetworkPath]:
    """The paths of all datagrams sent from now on."""
    seen: list[NetworkPath] = []

    def tap(datagram: bytes, path: NetworkPath) -> bytes:
        seen.append(path)
        return datagram

    pair.world.taps.append(tap)
    return seen


# -- close ---------------------------------------------------------------------------------------------------------


def test_close() -> None:
    """K-1, K-2: told, acknowledged, over on both sides within a round trip and a half; nothing is left after 3 PTO."""
    pair = session_pair(conditions=Conditions(delay=0.05))
    seen = watch(pair)
    began = pair.now
    pair.session.close(pair.now, detail="done")
    assert pair.session.state is CLOSING
    assert not pair.session.is_active()
    pair.client.pump()
    pair.world.run_until(lambda: pair.session.is_closed)
    assert pair.now - began == pytest.approx(0.1)
    one, other = closed(pair)
    assert (one.reason, one.code, one.detail, one.by_peer) == (CloseReason.GRACEFUL, 0, "done", False)
    assert (other.reason, other.code, other.detail, other.by_peer) == (CloseReason.GRACEFUL, 0, "done", True)
    assert pair.session.close_reason == pair.peer.close_reason == "graceful"
    pair.world.run(5.0)
    assert len(seen) == 2, "SESSION_CLOSE and its acknowledgement"
    assert_empty(pair.client, pair.server)


@pytest.mark.parametrize(
    ("reason", "code", "theirs"),
    [
        ("graceful", 0x0000, SessionClosedError),
        ("timeout", 0x0202, SessionTimeoutError),
        ("error", 0x0201, SessionClosedError),
        ("auth_failure", 0x0103, SessionClosedError),
    ],
)
def test_reasons(reason: str, code: int, theirs: type[SttError]) -> None:
    """K-2, K-6, C6: the reason that one side gives is the one that both sides have."""
    pair = session_pair()
    pair.session.close(pair.now, reason, "because")
    pair.settle()
    for event in closed(pair):
        assert (event.reason, event.code, event.detail) == (reason, code, "because")
    assert type(pair.session.close_error) is SessionClosedError
    assert type(pair.peer.close_error) is theirs
    for session in (pair.session, pair.peer):
        assert session.close_reason == reason
        with pytest.raises(SessionClosedError) as caught:
            session.open_stream()
        assert caught.value.reason == reason
        assert caught.value.code == (code or 0x0201)


def test_without_a_detail_there_is_a_sentence() -> None:
    pair = session_pair()
    pair.session.close(pair.now)
    pair.settle()
    assert [event.detail for event in closed(pair)] == ["closed by this side", "the peer closed the session (graceful)"]


@pytest.mark.parametrize("code", [-1, 1 << 62, "0", True])
def test_codes(code: object) -> None:
    """Section 8: a varint. K-9: a code of one's own is the one that both sides have."""
    pair = session_pair()
    with pytest.raises(ArgumentError) as caught:
        pair.session.close(pair.now, code=code)  # type: ignore[arg-type]
    assert caught.value.argument == "code"
    assert pair.session.is_active()
    pair.session.close(pair.now, code=0x1234)
    pair.settle()
    assert [(event.reason, event.code) for event in closed(pair)] == [("graceful", 0x1234)] * 2


@pytest.mark.parametrize("detail", ["é" * (MAX_DETAIL // 2 + 1), b"bytes", None])
def test_details(detail: object) -> None:
    """Section 8: at most 512 bytes."""
    pair = session_pair()
    with pytest.raises(ArgumentError) as caught:
        pair.session.close(pair.now, detail=detail)  # type: ignore[arg-type]
    assert caught.value.argument == "detail"
    assert pair.session.is_active()
    pair.session.close(pair.now, detail="é" * (MAX_DETAIL // 2))
    pair.settle()
    assert closed(pair)[1].detail == "é" * (MAX_DETAIL // 2)


def test_an_unknown_reason() -> None:
    pair = session_pair()
    with pytest.raises(ArgumentError, match="graceful, timeout, error or auth_failure") as caught:
        pair.session.close(pair.now, "bored")
    assert caught.value.argument == "reason"


def test_close_is_idempotent() -> None:
    """C6: the second close changes nothing, whenever it comes."""
    pair = session_pair()
    pair.session.close(pair.now)
    pair.session.close(pair.now, "error")
    pair.client.pump()
    pair.session.close(pair.now)
    pair.settle()
    pair.session.close(pair.now)
    pair.session.abort(pair.now)
    pair.peer.close(pair.now)
    pair.settle()
    assert [event.reason for event in closed(pair)] == ["graceful", "graceful"]
    assert len(pair.client.events(SessionStateChanged)) == 4


def test_what_streams_had_accepted_is_delivered_first() -> None:
    """K-1, C6: a close waits for bytes, ends and resets, over a network that loses a fifth."""
    pair = session_pair(3, Conditions(loss=0.2))
    mover = Mover(pair.server)
    data = filler(300_000)
    stream = pair.session.open_stream()
    assert stream.write(data, pair.now) == len(data)
    stream.finish(pair.now)
    pair.session.close(pair.now)
    pair.client.pump()
    assert pair.session.state is CLOSING
    pair.world.run_until(lambda: pair.session.is_closed and pair.peer.is_closed)
    assert mover.ended == {(pair.peer, 0): hashlib.sha256(data).digest()}
    assert closed(pair)[0].reason == "graceful"


def test_what_arrived_stays_readable() -> None:
    """K-2: reading goes on after the end, then the error that ended the session is raised."""
    pair = session_pair()
    stream = pair.session.open_stream()
    stream.write(b"last words", pair.now)
    pair.settle(0.1)
    pair.session.abort(pair.now)
    pair.settle()
    heard = pair.peer.stream(0)
    assert heard is not None
    assert heard.read(4, pair.now) == b"last"
    assert heard.read(100, pair.now) == b" words"
    with pytest.raises(SessionClosedError):
        heard.read(100, pair.now)
    with pytest.raises(SessionClosedError):
        heard.write(b"x", pair.now)
    with pytest.raises(SessionClosedError):
        heard.finish(pair.now)
    with pytest.raises(SessionClosedError):
        heard.watch_acked(1)
    heard.reset(0, pair.now)
    heard.stop(0, pair.now)
    with pytest.raises(SessionClosedError):
        pair.peer.send_datagram(b"x", pair.now)
    pair.settle()
    assert_empty(pair.client, pair.server)


def test_while_closing() -> None:
    """11: a session that closes still delivers and hears, but opens and writes nothing new."""
    pair = session_pair()
    stream, other = pair.session.open_stream(), pair.session.open_stream()
    other.write(b"x" * 100, pair.now)
    stream.write(b"question", pair.now)
    pair.settle(0.1)
    stream.write(b"!" * 200_000, pair.now)
    pair.session.close(pair.now)
    for command in (
        lambda: stream.write(b"x", pair.now),
        lambda: pair.session.open_stream(),
        lambda: pair.session.send_datagram(b"x", pair.now),
    ):
        with pytest.raises(SessionClosedError, match="closing"):
            command()
    heard = pair.peer.stream(0)
    assert heard is not None
    heard.write(b"answer", pair.now)
    pair.server.pump()
    pair.client.pump()
    pair.world.run(0.02)
    assert pair.session.state is CLOSING
    assert stream.read(100, pair.now) == b"answer"
    stream.finish(pair.now)
    other.reset(3, pair.now)
    pair.settle()
    assert closed(pair)[0].reason == "graceful"


def test_a_reader_that_does_not_read_delays_a_close_by_ten_seconds() -> None:
    """K-1: then SESSION_CLOSE is sent, whatever is undelivered."""
    pair = session_pair(server={"stream_receive_window": 1024})
    stream = pair.session.open_stream()
    stream.write(filler(50_000), pair.now)
    began = pair.now
    pair.session.close(pair.now)
    pair.client.pump()
    pair.world.run(9.9)
    assert pair.session.state is CLOSING
    assert pair.peer.is_active()
    pair.world.run_until(lambda: pair.session.is_closed)
    assert pair.now - began == pytest.approx(10.02, abs=0.05)
    assert pair.peer.close_reason == "graceful"


def test_nobody_hears_the_close() -> None:
    """K-1: SESSION_CLOSE is repeated with each PTO, for 3 PTO; then the session is closed all the same."""
    pair = session_pair(conditions=Conditions(delay=0.02))
    pto = pair.session._engines.path.recovery.pto  # type: ignore[union-attr]
    for link in pair.world.links.values():
        link.up = False
    seen = watch(pair)
    began = pair.now
    pair.session.close(pair.now)
    pair.client.pump()
    pair.world.run_until(lambda: pair.session.is_closed)
    assert pair.now - began == pytest.approx(3 * pto)
    assert len(seen) == 3, "once, and two probes after one PTO"
    assert pair.session.close_reason == "graceful"


def test_a_close_behind_lost_data_is_repeated() -> None:
    """K-1: after the wait for delivery the probes repeat SESSION_CLOSE, not the data that nobody waits for any more."""
    pair = session_pair(conditions=Conditions(delay=0.02))
    stream = pair.session.open_stream()
    there = pair.world.links[pair.client.address, pair.server.address]
    there.up = False
    stream.write(filler(5000), pair.now)
    pair.session.close(pair.now)
    pair.client.pump()
    pair.world.run_until(lambda: pair.session._engines.control.closing)  # type: ignore[union-attr]
    pair.world.run(0.001)
    assert pair.session.state is CLOSING
    there.up = True
    pair.world.run_until(lambda: pair.peer.is_closed, timeout=1.0)
    assert pair.peer.close_reason == "graceful"


@pytest.mark.parametrize("seed", range(8))
def test_close_on_a_bad_network(seed: int) -> None:
    """K-1 to K-3: with a third lost, both sides end for the same reason, and nothing is left."""
    pair = session_pair(seed, Conditions(loss=0.3, duplicate=0.1, reorder=0.2))
    pair.session.close(pair.now, "error", "enough")
    pair.settle(45.0)
    one, other = closed(pair)
    assert one.reason == "error"
    assert other.reason in ("error", "timeout")  # timeout: every copy of SESSION_CLOSE was lost
    assert_empty(pair.client, pair.server)


# -- both at once --------------------------------------------------------------------------------------------------


def test_crossing_closes() -> None:
    """K-1, K-2: each is closed by the other's frame, once, and neither answers the other's answers."""
    pair = session_pair(conditions=Conditions(delay=0.05))
    seen = watch(pair)
    pair.session.close(pair.now, detail="client")
    pair.peer.close(pair.now, detail="server")
    pair.settle(5.0)
    one, other = closed(pair)
    assert (one.detail, one.by_peer) == ("server", True)
    assert (other.detail, other.by_peer) == ("client", True)
    assert len(seen) == 4, "two SESSION_CLOSE, two acknowledgements"
    assert_empty(pair.client, pair.server)


def test_crossing_aborts() -> None:
    """K-3: both have said it: silence."""
    pair = session_pair(conditions=Conditions(delay=0.05))
    seen = watch(pair)
    pair.session.abort(pair.now)
    pair.peer.abort(pair.now)
    pair.settle(5.0)
    assert [event.by_peer for event in closed(pair)] == [False, False]
    assert len(seen) == 2
    assert_empty(pair.client, pair.server)


def test_a_close_crosses_an_abort() -> None:
    """K-1, K-3."""
    pair = session_pair(conditions=Conditions(delay=0.05))
    seen = watch(pair)
    pair.session.close(pair.now)
    pair.peer.abort(pair.now)
    pair.settle(5.0)
    assert [event.reason for event in closed(pair)] == ["error", "error"]
    assert len(seen) <= 4
    assert_empty(pair.client, pair.server)


def test_a_close_while_the_other_side_still_flushes() -> None:
    """K-2: whoever receives SESSION_CLOSE is closed at once, also while it delivers."""
    pair = session_pair(server={"stream_receive_window": 1024})
    stream = pair.session.open_stream()
    stream.write(filler(50_000), pair.now)
    pair.session.close(pair.now)
    pair.client.pump()
    pair.world.run(0.5)
    assert pair.session.state is CLOSING
    pair.peer.close(pair.now, detail="I will not read that")
    pair.settle()
    one, other = closed(pair)
    assert (one.detail, one.by_peer) == ("I will not read that", True)
    assert other.by_peer is False


# -- abort ---------------------------------------------------------------------------------------------------------


def test_abort() -> None:
    """K-1: SESSION_CLOSE once, and closed at once; what was not delivered is lost."""
    pair = session_pair()
    seen = watch(pair)
    stream = pair.session.open_stream()
    stream.write(filler(100_000), pair.now)
    pair.session.abort(pair.now)
    assert pair.session.is_closed
    pair.client.pump()
    assert len(seen) == 1
    pair.settle(5.0)
    one, other = closed(pair)
    assert (one.reason, one.code, one.detail, one.by_peer) == ("error", 0x0201, "aborted by this side", False)
    assert (other.reason, other.code, other.by_peer) == ("error", 0x0201, True)
    assert len(seen) == 2, "SESSION_CLOSE and its acknowledgement"
    with pytest.raises(SessionClosedError):
        stream.write(b"x", pair.now)
    assert_empty(pair.client, pair.server)


def test_abort_while_closing() -> None:
    pair = session_pair()
    stream = pair.session.open_stream()
    stream.write(filler(100_000), pair.now)
    pair.session.close(pair.now)
    pair.session.abort(pair.now)
    assert pair.session.is_closed
    pair.settle()
    assert [event.reason for event in closed(pair)] == ["error", "error"]


def test_what_comes_afterwards_is_answered() -> None:
    """K-3: a peer that missed SESSION_CLOSE hears it as soon as it speaks; at most once for each packet."""
    pair = session_pair()
    there = pair.world.links[pair.client.address, pair.server.address]
    there.up = False
    pair.session.abort(pair.now)
    pair.client.pump()
    there.up = True
    assert pair.peer.is_active()
    pair.peer.send_datagram(b"anybody?", pair.now)
    pair.settle()
    assert pair.peer.close_reason == "error"
    assert closed(pair)[1].by_peer


def test_answers_are_few() -> None:
    """K-3: 16 in all, for 3 PTO; each for a packet that opened."""
    pair = session_pair()
    pair.session.abort(pair.now)
    answers = len(list(pair.client.endpoint.transmits(pair.now)))
    assert answers == 1
    pair.client.endpoint.receive(bytes((0x40,)) + filler(40), pair.session.path, pair.now)
    assert list(pair.client.endpoint.transmits(pair.now)) == []
    for _ in range(2 * MAX_ANSWERS):
        for datagram in sealed(pair.peer, Ping()):
            pair.client.endpoint.receive(datagram, pair.session.path, pair.now)
        taken = list(pair.client.endpoint.transmits(pair.now))
        assert len(taken) <= 1
        answers += len(taken)
    assert answers == MAX_ANSWERS


@pytest.mark.parametrize("plain", [b"\xff", Padding(1).encode(), b"\x06"])
def test_what_packets_hold_after_the_end_does_not_matter(plain: bytes) -> None:
    """K-3: they open, so they are answered; they change nothing, and break nothing."""
    pair = session_pair()
    pair.session.abort(pair.now)
    list(pair.client.endpoint.transmits(pair.now))
    for datagram in sealed(pair.peer, plain):
        pair.client.endpoint.receive(datagram, pair.session.path, pair.now)
    assert len(list(pair.client.endpoint.transmits(pair.now))) == 1
    assert closed_once(pair)


def closed_once(pair: Pair) -> bool:
    events = [event for _, event in pair.client.endpoint.events() if isinstance(event, SessionClosed)]
    return len(events) == 1


def test_after_three_probe_timeouts_there_is_nothing_to_answer() -> None:
    """K-3: the session is forgotten; a packet for it is a packet for nobody."""
    pair = session_pair()
    pair.session.abort(pair.now)
    pair.client.pump()
    pto = pair.session._engines.path.recovery.pto  # type: ignore[union-attr]
    late = sealed(pair.peer, SessionClose(0, CloseReason.GRACEFUL, ""))
    pair.world.run(3 * pto + 0.01)
    assert_empty(pair.client)
    pair.client.endpoint.receive(late[0], pair.session.path, pair.now)
    assert pair.client.endpoint.counters.misdirected == 1


def test_a_slow_peer_is_not_answered_for_ever() -> None:
    """K-1, K-3: 3 PTO, but at most 10 s: what a peer makes us hold does not grow with the time that it takes."""
    patient = {"handshake_timeout": 60.0}
    pair = session_pair(conditions=Conditions(delay=4.0), client=patient, server=patient)
    pair.world.run(20.0)
    assert pair.session._engines.path.recovery.pto > 4.0  # type: ignore[union-attr]
    pair.session.abort(pair.now)
    pair.client.pump()
    pair.world.run(10.1)
    assert_empty(pair.client)


# -- everything wakes ----------------------------------------------------------------------------------------------


def test_every_command_tells_why() -> None:
    """K-6: every waiter is woken, and every later command raises what ended the session."""
    pair = session_pair()
    stream = pair.session.open_stream()
    stream.write(b"x", pair.now)
    pair.settle(0.1)
    pair.peer.close(pair.now, "error", "out of cheese")
    pair.settle()
    for command in (
        lambda: stream.write(b"x", pair.now),
        lambda: stream.read(1, pair.now),
        lambda: stream.finish(pair.now),
        lambda: pair.session.open_stream(),
        lambda: pair.session.send_datagram(b"x", pair.now),
    ):
        with pytest.raises(SessionClosedError, match="out of cheese") as caught:
            command()
        assert caught.value is pair.session.close_error
    assert pair.session.stream(0) is not None
    assert pair.session.stats().state is CLOSED


def test_streams_that_the_peer_reset_keep_their_own_error() -> None:
    """K-6: the first thing that ended a stream is what its user hears."""
    pair = session_pair()
    stream = pair.session.open_stream()
    stream.write(b"x", pair.now)
    pair.settle(0.1)
    heard = pair.peer.stream(0)
    assert heard is not None
    heard.reset(7, pair.now)
    pair.settle(0.1)
    pair.session.abort(pair.now)
    with pytest.raises(StreamClosedError) as caught:
        stream.read(1, pair.now)
    assert caught.value.stream_code == 7
