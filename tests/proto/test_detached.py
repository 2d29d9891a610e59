"""A session without a path waits for one, within limits (section 11.1): M-9 to M-11."""

from __future__ import annotations

import pytest
from attrs import evolve

from stt_proto import CloseReason, Config, NetworkPath, Session, SessionState
from stt_proto.errors import SessionTimeoutError, StateError
from stt_proto.events import (
    KeepAliveSent,
    PathLost,
    SessionClosed,
    SessionDetached,
    SessionReattached,
    StreamWritable,
)
from stt_proto.testing import Conditions, Inbox, Node, World, send, tables
from tests.proto.test_moves import scene
from tests.proto.worlds import IDENTITY, assert_empty, back, filler, many_sessions

SLOW = Conditions(delay=0.05, rate=20e6)


@pytest.mark.parametrize("seconds", [35.0, 60.0, 140.0])
def test_the_cable_is_out_for_long(seconds: float) -> None:
    """C9, M-9, M-10: nothing is lost or repeated, and both sides go on by themselves over the path that they had."""
    case = scene(SLOW)
    old = case.session.path
    upload = send(case.client, case.session, filler(3_000_000))
    download = send(case.server, case.peer, filler(3_000_000, 1))
    inbox = Inbox(case.client)
    case.world.run(0.3)
    case.cut(old)
    case.world.run(seconds)
    assert case.session.is_detached
    assert case.peer.is_detached
    assert case.session.paths[0].active is False
    assert case.peer.paths == ()
    assert not upload.done
    case.cut(old, up=True)
    case.world.run(11.0)
    assert not case.session.is_detached
    case.world.run_until(lambda: upload.done and download.done, timeout=10.0)
    assert case.inbox.digests == [upload.digest]
    assert inbox.digests == [download.digest]
    assert case.client.events(SessionReattached) == [SessionReattached(old)]
    assert case.server.events(SessionReattached) == [SessionReattached(back(old))]
    case.session.close(case.world.now)
    case.client.pump()
    case.world.assert_idle()


@pytest.mark.parametrize("carrier", ["udp", "ws"])
def test_reattached_over_another_path(carrier: str) -> None:
    """C9, M-9: whatever the client finds, the streams go on there."""
    case = scene(SLOW)
    old, new = case.session.path, case.mobile if carrier == "udp" else case.web
    upload = send(case.client, case.session, filler(3_000_000))
    case.world.run(0.3)
    case.cut(old)
    case.world.run(60.0)
    case.add(new)
    opened = case.world.now
    case.world.run(0.31)
    assert case.session.path == new
    assert case.peer.path == back(new)
    case.world.run_until(lambda: upload.done, timeout=10.0)
    assert case.world.now - opened < 5.0
    assert case.inbox.digests == [upload.digest]
    assert case.client.events(SessionReattached) == [SessionReattached(new)]


def test_the_lost_path_is_not_asked_for_ever() -> None:
    """M-10: as long as the session is detached; once it is elsewhere, as any other that does not answer."""
    case = scene()
    case.cut(case.path())
    case.world.run(60.0)
    case.add(case.mobile)
    case.world.run(15.0)
    assert case.session.path == case.mobile
    assert [info.path for info in case.session.paths] == [case.mobile]
    lost = case.links(case.path())[0].traffic.sent
    case.world.run(60.0)
    assert case.links(case.path())[0].traffic.sent == lost


def test_only_one_side_has_noticed() -> None:
    """M-7, M-9: the server still believes in the old path when the client comes back over another one."""
    case = scene(SLOW)
    case.cut(case.session.path)
    case.client.endpoint.path_closed(case.session.path, case.world.now, "no link")
    case.client.pump()
    assert case.session.is_detached
    assert not case.peer.is_detached
    case.world.run(2.0)
    case.add(case.mobile)
    case.world.run(0.5)
    assert not case.session.is_detached
    assert case.peer.path == back(case.mobile)


def test_what_happens_meanwhile() -> None:
    """M-9: nothing is sent but questions, writers feel the buffer and no error, no sign of life is asked for."""
    case = scene(SLOW)
    stream = case.session.open_stream()
    case.cut(case.session.path)
    case.client.endpoint.path_closed(case.session.path, case.world.now, "no link")
    case.client.pump()
    assert [type(event) for _, _, event in case.client.log[-2:]] == [PathLost, SessionDetached]
    assert case.client.events(SessionDetached) == [SessionDetached(case.world.now + 120.0)]
    sent = case.world.link_between(case.session.path.local, case.session.path.remote).traffic.sent
    asked = len(case.client.events(KeepAliveSent))
    taken = stream.write(filler(3 << 20), case.world.now)
    assert 1 << 20 <= taken < 3 << 20
    assert case.session.is_active()
    case.session.send_datagram(b"later", case.world.now)
    case.client.pump()
    case.world.run(20.0)
    assert case.world.link_between(case.session.path.local, case.session.path.remote).traffic.sent == sent
    assert len(case.client.events(KeepAliveSent)) == asked
    case.add(case.mobile)
    case.world.run(0.3)
    assert case.inbox.datagrams == [b"later"]
    case.world.run(10.0)
    assert case.client.events(StreamWritable)


def test_nobody_comes_back() -> None:
    """M-9: after the time for it each side ends by itself, with `timeout`, and nothing is left."""
    case = scene(detach_timeout=50.0)
    case.cut(case.session.path)
    heard = case.world.now
    case.world.run(200.0)
    for node, waited in ((case.client, 120.0), (case.server, 50.0)):
        (detached,) = node.events(SessionDetached)
        (closed,) = node.events(SessionClosed)
        assert (closed.reason, closed.code, closed.by_peer) == (CloseReason.TIMEOUT, 0x0202, False)
        at = next(at for at, _, event in node.log if event is closed)
        assert at == pytest.approx(detached.deadline)
        assert at - heard == pytest.approx(30.0 + waited, abs=1.0)
    assert isinstance(case.session.close_error, SessionTimeoutError)
    assert_empty(case.client, case.server)


def test_no_time_to_wait() -> None:
    """M-9: with 0 seconds a session ends with its last path, for the reason for which that ended."""
    case = scene(detach_timeout=0.0)
    case.server.endpoint.path_closed(case.peer.path, case.world.now, "the cable was cut")
    case.server.pump()
    assert case.peer.is_closed
    assert [event.detail for event in case.server.events(SessionClosed)] == ["the cable was cut"]


def test_closing_without_a_path() -> None:
    """M-9, K-1: a close waits for a path as long as for data, and says goodbye to nobody."""
    case = scene()
    upload = send(case.client, case.session, filler(100_000))
    case.client.endpoint.path_closed(case.session.path, case.world.now)
    case.session.close(case.world.now)
    case.client.pump()
    assert case.session.state is SessionState.CLOSING
    case.world.run(30.0)
    assert case.session.is_closed
    assert case.session.close_reason is CloseReason.GRACEFUL
    assert upload.done
    assert_empty(case.client)


def test_closing_and_the_path_comes_back() -> None:
    """K-1, M-9: what was written is delivered, if a path is there in time."""
    case = scene()
    case.cut(case.session.path)
    upload = send(case.client, case.session, filler(100_000))
    case.world.run(31.0)
    assert case.session.is_detached
    case.session.close(case.world.now)
    case.client.pump()
    case.cut(case.session.path, up=True)
    case.world.run(10.0)
    assert case.inbox.digests == [upload.digest]
    assert [event.reason for event in case.server.events(SessionClosed)] == [CloseReason.GRACEFUL]
    case.world.assert_idle()


def test_aborted_without_a_path() -> None:
    """M-9: nothing is sent to nowhere."""
    case = scene()
    case.client.endpoint.path_closed(case.session.path, case.world.now)
    case.session.abort(case.world.now)
    assert list(case.client.endpoint.transmits(case.world.now)) == []
    case.client.pump()
    assert_empty(case.client)


def test_a_dial_does_not_detach() -> None:
    """M-9: only who has a session can wait for it to go on."""
    world = World(1)
    client, server = world.node("client"), world.node("server")
    session = client.connect(server)
    with pytest.raises(StateError):
        session.add_path(NetworkPath("udp", ("client", 2), ("server", 1)), world.now)
    client.endpoint.path_closed(session.path, world.now)
    assert session.is_closed
    assert not session.is_detached


def test_a_session_of_which_the_peer_never_heard_does_not_detach() -> None:
    """M-9: AUTH_PROOF, and then nothing: such a session is not kept for two minutes."""
    world = World(1)
    client, server = world.node("client"), world.node("server")
    client.connect(server)
    world.run_until(lambda: server.sessions)
    world.link_between(client.address, server.address).up = False
    world.link_between(server.address, client.address).up = False
    world.run(31.0)
    assert not server.events(SessionDetached)
    assert [event.reason for event in server.events(SessionClosed)] == [CloseReason.TIMEOUT]


# -- limits --------------------------------------------------------------------------------------------------------


def lose(node: Node, session: Session, reason: str = "gone") -> None:
    """Let one session lose its path, though others have the same."""
    session.path_closed(session.path, node.world.now, reason)
    node.pump()


def test_four_of_a_peer() -> None:
    """M-11: the fifth detached session of a peer pushes out its longest detached."""
    world, _, server, _, peers = many_sessions(6)
    for count, peer in enumerate(peers):
        lose(server, peer)
        assert sum(one.is_detached for one in peers) == min(count + 1, 4)
    assert [one.is_closed for one in peers] == [True, True, False, False, False, False]
    assert {event.reason for event in server.events(SessionClosed)} == {CloseReason.TIMEOUT}
    assert isinstance(peers[0].close_error, SessionTimeoutError)
    assert tables(server.endpoint)["sessions without a path"] == 4
    world.run(130.0)
    assert tables(server.endpoint)["sessions without a path"] == 0


def test_a_quarter_of_all() -> None:
    """M-11: places that others could have."""
    limits = evolve(Config(identity=IDENTITY, shared_seed="x").limits, detached_per_peer=100)
    _, _, server, _, peers = many_sessions(12, max_concurrent_sessions=12, limits=limits)
    for peer in peers:
        lose(server, peer)
    assert [one.is_detached for one in peers] == [False] * 9 + [True] * 3


def test_bytes_in_all() -> None:
    """M-11: what was written when the path was lost, and what is written afterwards."""
    limits = evolve(Config(identity=IDENTITY, shared_seed="x").limits, detached_bytes=1_500_000)
    world, _, server, _, peers = many_sessions(3, limits=limits)
    streams = [peer.open_stream() for peer in peers]
    for peer, stream in zip(peers, streams, strict=True):
        stream.write(filler(400_000), world.now)
        lose(server, peer)
    assert [one.is_detached for one in peers] == [True, True, True]
    streams[2].write(filler(400_000), world.now)
    server.pump()
    assert [one.is_detached for one in peers] == [False, True, True]


def test_a_new_session_gets_the_place() -> None:
    """M-11: detached sessions lock nobody out, neither who dials nor who is dialled."""
    world, client, server, sessions, peers = many_sessions(4, max_concurrent_sessions=4)
    lose(server, peers[2])
    assert len(server.sessions) == 4
    late = client.connect(server)
    world.run_until(late.is_active)
    assert peers[2].is_closed
    assert len(server.sessions) == 4
    lose(server, peers[1])
    own = server.connect(world.node("other"))
    assert peers[1].is_closed
    assert own.state is SessionState.HANDSHAKING
    assert sessions[0].is_active()


def test_detached_sessions_that_end_are_no_longer_counted() -> None:
    """M-11: by being aborted, or reattached."""
    world, client, server, _, peers = many_sessions(2)
    for peer in peers:
        lose(server, peer)
    peers[0].abort(world.now)
    assert tables(server.endpoint)["sessions without a path"] == 1
    client.also_at(("client", 7))
    peers[1].add_path(NetworkPath("udp", server.address, ("client", 7)), world.now)
    server.pump()
    world.run(0.5)
    assert not peers[1].is_detached
    assert tables(server.endpoint)["sessions without a path"] == 0
    assert peers[1].path.remote == ("client", 7)
