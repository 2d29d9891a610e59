"""Early data (docs/protocol.md, section 4.5): who gets it, how often, and what becomes of it where it is not taken."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from stt_proto import Limits, Session, SessionState
from stt_proto.errors import ArgumentError
from stt_proto.events import (
    EarlyDataReceived,
    EarlyDataRejected,
    HandshakeFailed,
    ResumptionRefused,
    SessionClosed,
    SessionEstablished,
    StreamOpened,
    StreamReadable,
    TicketOffered,
)
from stt_proto.testing import Conditions, Node, send
from stt_proto.tickets import TicketRefusal
from stt_proto.types import NetworkPath
from stt_proto.wire import MessageType
from tests.proto.comeback import DELAY, FLEET, Stage, answering, assert_resumed, assert_works, copying, stage
from tests.proto.worlds import assert_empty, back, is_handshake

EARLY = b"turn the light on"


def early_stage(seed: int = 1, conditions: Conditions | None = None, carrier: str = "udp", **server: Any) -> Stage:
    """A client with a ticket of a server that takes early data."""
    return stage(seed, conditions, carrier=carrier, server={"max_early_data": 700, **server})


def received(node: Node) -> list[bytes]:
    """What the applications of all sessions of a server can read on the stream of early data, each once."""
    data = []
    for session in [who for _, who, event in node.log if isinstance(event, StreamOpened) and who is not None]:
        stream = session.stream(0)
        assert stream is not None
        data.append(stream.read(5000, node.now))
    return data


def assert_early(there: Stage, session: Session, server: Node | None = None) -> Session:
    """The data was there before the first round trip was over, once, and the session is like any other."""
    server = server or there.server
    assert session.early_data_accepted is True
    peer = server.sessions[-1]
    assert server.events(EarlyDataReceived) == [EarlyDataReceived(0, len(EARLY))]
    there.world.run_until(lambda: not peer.replayable)
    there.world.run(1.0)
    assert received(server) == [EARLY]
    assert_resumed(there, session, server)
    assert there.client.events(EarlyDataRejected) == []
    return peer


def assert_late(there: Stage, session: Session, server: Node | None = None, accepted: bool | None = False) -> None:
    """The data did not go early, or was not taken; it arrives all the same, once."""
    server = server or there.server
    there.world.run(2.0)
    assert session.early_data_accepted is accepted
    assert server.events(EarlyDataReceived) == []
    assert received(server) == [EARLY]
    assert len(there.client.events(EarlyDataRejected)) == (accepted is False)
    assert_works(there.world, session, server.sessions[-1])


# -- taken ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("carrier", ["udp", "ws", "stream", "memory"])
def test_early_data(carrier: str) -> None:
    """H-38 to H-40: it is there after half a round trip, and the answer after one."""
    there = early_stage(carrier=carrier)
    assert there.ticket.max_early_data == 700
    world, began = there.world, there.world.now
    session = there.client.connect(there.server, carrier, ticket=there.ticket, early_data=EARLY)
    assert session.early_stream is None
    assert session.early_data_accepted is None
    world.run_until(lambda: bool(there.server.sessions))
    assert world.now - began == pytest.approx(DELAY, abs=0.001)
    (peer,) = there.server.sessions
    assert peer.replayable
    kinds = [type(event) for _, who, event in there.server.log if who is peer]
    early = [SessionEstablished, EarlyDataReceived, StreamOpened, StreamReadable]
    assert [kind for kind in kinds if kind in early] == early
    stream = peer.stream(0)
    assert stream is not None
    assert stream.read(1000, world.now) == EARLY
    stream.write(b"it is on", world.now)
    there.server.pump()
    world.run_until(session.is_active)
    assert world.now - began == pytest.approx(2 * DELAY, abs=0.001)
    own = session.early_stream
    assert own is not None
    assert own.acked_offset == len(EARLY)
    world.run(0.001)
    assert own.read(1000, world.now) == b"it is on"
    assert session.early_data_accepted is True
    world.run(DELAY)
    assert not peer.replayable
    assert not session.replayable
    own.write(b", and off", world.now)
    own.finish(world.now)
    there.client.pump()
    world.run(1.0)
    assert stream.read(1000, world.now) == b", and off"
    assert stream.at_eof
    stream.write(bytes(50_000), world.now)
    there.server.pump()
    world.run(2.0)
    assert len(own.read(100_000, world.now)) == 50_000, "there is no limit any more"
    stream.finish(world.now)
    there.server.pump()
    world.run(1.0)
    own.read(1, world.now)
    assert_resumed(there, session)
    assert len(there.server.events(SessionEstablished)) == 1
    session.close(world.now)
    there.client.pump()
    world.run(20.0)
    assert_empty(there.client, there.server)


def test_nothing_of_it_in_clear() -> None:
    """H-38: it is sealed, with the ticket's secret and the static keys."""
    there = early_stage()
    assert_early(there, there.resume(early_data=EARLY))
    assert all(EARLY not in datagram for datagram, _ in there.wire)


@pytest.mark.parametrize("size", [1, 700])
def test_sizes_that_are_taken(size: int) -> None:
    """H-38: what the ticket allows, in a datagram that is no larger than ever."""
    there = early_stage()
    session = there.resume(early_data=bytes(size))
    assert session.early_data_accepted is True
    assert [len(resume) for resume in there.sent(MessageType.RESUME)] == [1200]
    assert there.server.events(EarlyDataReceived) == [EarlyDataReceived(0, size)]


def test_a_cookie_has_room_beside_it() -> None:
    """H-21, H-38: RESUME with early data and a cookie is one datagram of 1,200 bytes."""
    there = early_stage(max_early_data=768, limits=Limits(half_open_without_cookie=0))
    stranger = there.world.node("stranger")
    there.world.outage(stranger, there.server, there.world.now + 1.5 * DELAY)
    stranger.connect(there.server)
    there.world.run(2 * DELAY)
    there.ticket = evolve(there.ticket, max_early_data=768)
    session = there.resume(early_data=bytes(768))
    assert len(there.sent(MessageType.RETRY)) == 1
    assert [len(resume) for resume in there.sent(MessageType.RESUME)] == [1200, 1200]
    assert session.early_data_accepted is True


@pytest.mark.parametrize("ticket_check", ["host", "shared"])
def test_the_host_counts(ticket_check: str) -> None:
    """H-39: early data waits for what the host says of the ticket."""
    there = early_stage(ticket_check=ticket_check)
    answering(there.server, [True], after=0.05)
    session = there.client.connect(there.server, ticket=there.ticket, early_data=EARLY)
    there.world.run(2 * DELAY)
    assert there.server.sessions == []
    there.world.run_until(session.is_active)
    peer = assert_early(there, session)
    assert [who for _, who, event in there.server.log if isinstance(event, TicketOffered)] == [peer]


def test_another_server_with_a_shared_store() -> None:
    """H-39: where one memory is asked by all, each of them may take it."""
    there = early_stage(fleet_secret=FLEET, ticket_check="shared")
    second = there.world.node("second", config=there.server.config, address=("second", 1))
    answering(second, [True])
    assert_early(there, there.resume(server=second, early_data=EARLY), second)


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_losses(lost: int) -> None:
    """H-40: RESUME, RESUMED or what comes behind it is lost: it is taken once, and only once."""
    there = early_stage()
    seen: list[bytes] = []

    def lose(datagram: bytes, path: NetworkPath) -> bytes | None:
        kind = MessageType.RESUME if lost == 0 else MessageType.RESUMED
        of_server = path.local == there.server.address
        hit = is_handshake(datagram, kind) if lost < 2 else of_server and not is_handshake(datagram)
        if not hit or seen:
            return datagram
        seen.append(datagram)
        return None

    there.world.taps.append(lose)
    session = there.resume(early_data=EARLY)
    assert seen
    assert_early(there, session)
    assert len(there.server.events(SessionEstablished)) == 1


@pytest.mark.parametrize("seed", range(20))
def test_bad_weather(seed: int) -> None:
    """H-41: 30 % loss, duplicates, damage: it arrives in the session that comes to be, exactly once there."""
    there = early_stage(seed)
    there.world.conditions = Conditions(delay=DELAY, loss=0.3, duplicate=0.1, corrupt=0.1, reorder=0.1)
    there.world.links.clear()
    session = there.resume(early_data=EARLY)
    assert session.is_active()
    there.world.run_until(lambda: session.session_id in there.server.endpoint.sessions, timeout=20.0)
    peer = there.server.endpoint.sessions[session.session_id]
    there.world.run_until(lambda: peer.stream(0) is not None, timeout=20.0)
    stream = peer.stream(0)
    assert stream is not None
    assert stream.read(1000, there.world.now) == EARLY
    there.world.run(5.0)
    assert stream.read(1000, there.world.now) == b""
    assert peer.resumed == session.resumed
    if session.early_data_accepted:
        assert len(there.server.events(EarlyDataReceived)) == 1


# -- not taken -----------------------------------------------------------------------------------------------------


def test_a_server_that_takes_none() -> None:
    """H-38: 0 is the default; who has such a ticket sends nothing early, and nothing is rejected."""
    there = stage()
    assert there.ticket.max_early_data == 0
    session = there.resume(early_data=EARLY)
    assert session.resumed
    assert_late(there, session, accepted=None)


def test_more_than_the_ticket_allows() -> None:
    """H-38: it goes in the ordinary way, all of it."""
    there = early_stage(max_early_data=len(EARLY) - 1)
    assert_late(there, there.resume(early_data=EARLY), accepted=None)


def test_no_room_in_the_datagram() -> None:
    """H-38: the same where other things fill RESUME."""
    there = stage(client={"extension_frames": frozenset(range(0x80, 0x100))}, server={"max_early_data": 768})
    session = there.resume(early_data=bytes(768))
    assert session.resumed
    assert session.early_data_accepted is None
    assert [len(resume) for resume in there.sent(MessageType.RESUME)] == [1200]


@pytest.mark.parametrize("changes", [{"max_early_data": 0}, {"max_early_data": 5}])
def test_a_server_that_takes_less_now(changes: dict[str, Any]) -> None:
    """H-39: what the server takes now counts, and not what it said when it gave the ticket."""
    there = early_stage()
    there.server.endpoint.config = evolve(there.server.config, **changes)
    session = there.resume(early_data=EARLY)
    assert session.resumed
    assert_late(there, session)


def test_a_server_without_streams() -> None:
    """H-39: neither early nor later, if there are none."""
    there = early_stage(fleet_secret=FLEET, ticket_check="shared")
    there.server.restart(max_concurrent_streams=0)
    answering(there.server, [True])
    session = there.resume(early_data=EARLY)
    assert session.resumed
    assert session.early_data_accepted is False
    assert session.early_stream is None
    there.world.run(1.0)
    assert there.server.events(StreamOpened) == []


def test_without_a_ticket() -> None:
    """H-41: the same call, the same stream: only later."""
    there = early_stage()
    session = there.client.connect(there.server, early_data=EARLY)
    there.world.run_until(session.is_active)
    assert session.early_stream is session.stream(0)
    assert_late(there, session, accepted=None)


def test_a_ticket_that_is_refused() -> None:
    """H-41: sent again after the full handshake, with its first packet."""
    there = early_stage()
    there.server.restart()
    session = there.resume(early_data=EARLY)
    assert not session.resumed
    assert there.client.events(ResumptionRefused) == [ResumptionRefused(TicketRefusal.UNKNOWN)]
    assert_late(there, session)


def test_an_older_responder(monkeypatch: pytest.MonkeyPatch) -> None:
    """X-1, H-39: one that knows nothing of early data ignores it."""
    there = early_stage()
    monkeypatch.setattr("stt_proto.handshake.resumption.take_early_data_untrusted", lambda payload: (payload, b""))
    session = there.resume(early_data=EARLY)
    assert session.resumed
    assert_late(there, session)


@pytest.mark.parametrize("data", [bytes(769), bytearray(b"x"), "text", None])
def test_no_early_data_at_all(data: Any) -> None:
    """G: a caller's mistake is told at once."""
    there = early_stage()
    with pytest.raises(ArgumentError) as caught:
        there.client.endpoint.connect(there.client.path_to(there.server), early_data=data, now=there.world.now)
    assert caught.value.argument == "early_data"


# -- counted once for all ------------------------------------------------------------------------------------------


def test_another_server_of_the_fleet() -> None:
    """H-39: that it sees a ticket for the first time says nothing there; resumed, and then in the ordinary way."""
    there = early_stage(fleet_secret=FLEET)
    second = there.world.node("second", config=there.server.config, address=("second", 1))
    session = there.resume(server=second, early_data=EARLY)
    assert_resumed(there, session, second)
    assert session.early_data_accepted is False
    assert second.events(EarlyDataReceived) == []


@pytest.mark.parametrize("check", ["memory", "host"])
def test_after_a_restart(check: str) -> None:
    """H-39: what it has forgotten it cannot count; nor does the memory of a host say what other servers have seen."""
    there = early_stage(fleet_secret=FLEET, ticket_check=check)
    there.server.restart()
    answering(there.server, [True])
    session = there.resume(early_data=EARLY)
    assert_resumed(there, session)
    assert session.early_data_accepted is False
    assert there.server.events(EarlyDataReceived) == []


@pytest.mark.parametrize("when", ["at once", "later", "after a restart"])
def test_replayed(when: str) -> None:
    """H-36, H-39: whoever sends a RESUME again, from wherever, has nothing delivered a second time."""
    there = early_stage(fleet_secret=FLEET, ticket_check="shared" if when == "after a restart" else "memory")
    answering(there.server, [True, False, False])
    session = there.resume(early_data=EARLY)
    assert_early(there, session)
    (resume,) = there.sent(MessageType.RESUME)
    if when == "later":
        there.world.run(60.0)
    elif when == "after a restart":
        there.server.restart()
    there.server.log.clear()
    there.wire.clear()
    for remote in (("watcher", 1), session.path.local):
        there.server.receive(resume, NetworkPath("udp", there.server.address, remote))
    there.world.run(15.0)
    assert there.server.events(EarlyDataReceived) == []
    assert there.server.events(StreamOpened) == []
    assert not there.sent(MessageType.RESUMED)


def test_replayed_before_it_is_confirmed() -> None:
    """H-35, H-39: copies of one RESUME, however many and from wherever, are one handshake and one delivery."""
    there = early_stage()
    session = there.client.connect(there.server, ticket=there.ticket, early_data=EARLY)
    ((resume, _),) = there.wire
    for number in range(6):
        there.server.receive(resume, NetworkPath("udp", there.server.address, (f"watcher {number % 3}", 1)))
    there.world.run_until(session.is_active)
    there.world.run(10.0)
    assert there.server.events(EarlyDataReceived) == [EarlyDataReceived(0, len(EARLY))]
    assert received(there.server) == [EARLY]
    assert session.early_data_accepted is True


def test_a_faster_copy() -> None:
    """H-35, H-40: the session that a watcher's copy has begun is the true one's, wherever the copy came from."""
    there = early_stage()
    copying(there, 0.0)
    session = there.resume(early_data=EARLY)
    assert session.early_data_accepted is True
    (peer,) = there.server.sessions
    assert peer.path.remote == ("watcher", 1)
    stream = peer.stream(0)
    assert stream is not None
    stream.write(bytes(20_000), there.world.now)
    there.server.pump()
    there.world.run_until(lambda: not peer.replayable)
    assert peer.path == back(session.path), "at once, and without asking"
    there.world.run(5.0)
    own = session.early_stream
    assert own is not None
    assert len(own.read(50_000, there.world.now)) == 20_000
    sent = [len(datagram) for datagram, path in there.wire if path.remote == ("watcher", 1)]
    assert sum(sent) <= 3 * 1200
    assert there.server.events(HandshakeFailed) == []


def test_from_elsewhere_before_it_is_confirmed() -> None:
    """H-40, M-3: an address to which no RESUMED went is met like any other that is new; nothing spins meanwhile."""
    there = early_stage()
    nat = there.world.nat(there.client)
    session = there.client.connect(there.server, ticket=there.ticket, early_data=EARLY)
    there.world.run_until(lambda: bool(there.server.sessions))
    (peer,) = there.server.sessions
    stream = peer.stream(0)
    assert stream is not None
    stream.write(bytes(20_000), there.world.now)
    there.server.pump()
    before = peer.path
    held: list[bytes] = []

    def hold(datagram: bytes, path: NetworkPath) -> bytes | None:
        if path.local != there.client.address or is_handshake(datagram) or len(held) > 1:
            return datagram
        held.append(datagram)
        return None

    there.world.taps.append(hold)
    there.world.run_until(session.is_active)
    nat.rebind_port()
    there.world.run(0.02)
    assert peer.replayable
    there.world.run(10.0)
    assert len(held) == 2
    assert not peer.replayable
    own = session.early_stream
    assert own is not None
    assert len(own.read(50_000, there.world.now)) == 20_000
    assert peer.path != before


# -- before the proof ----------------------------------------------------------------------------------------------


def test_no_amplification() -> None:
    """H-40: an address that may be forged gets three times what came from there, and not a byte more, close and all."""
    for end in (False, True):
        there = early_stage()
        session = there.client.connect(there.server, ticket=there.ticket, early_data=EARLY)
        ((resume, path),) = there.wire
        there.world.outage(there.client, there.server, 0.0)
        there.wire.clear()
        there.server.receive(resume, back(path))
        (peer,) = there.server.sessions
        stream = peer.stream(0)
        assert stream is not None
        stream.write(bytes(100_000), there.world.now)
        there.server.pump()
        there.world.run(5.0)
        sizes = [len(datagram) for datagram, way in there.wire if way.local == there.server.address]
        assert 2400 < sum(sizes) <= 3600
        if end:
            peer.abort(there.world.now)
            there.server.pump()
        there.world.run(15.0)
        later = [len(datagram) for datagram, way in there.wire if way.local == there.server.address]
        assert later == sizes, "no last words either"
        assert peer.is_closed
        assert session.is_closed
        assert_empty(there.client, there.server)


@pytest.mark.parametrize("carrier", ["udp", "memory"])
def test_an_address_that_was_shown(carrier: str) -> None:
    """H-40: behind a cookie, or on a reliable carrier, there is no such limit."""
    there = early_stage(carrier=carrier, limits=Limits(failed_guesses_without_cookie=0))
    session = there.client.connect(there.server, carrier, ticket=there.ticket, early_data=EARLY)
    there.world.run_until(lambda: bool(there.server.sessions))
    assert bool(there.sent(MessageType.RETRY)) == (carrier == "udp")
    stream = there.server.sessions[0].stream(0)
    assert stream is not None
    stream.write(bytes(8000), there.world.now)
    there.server.pump()
    there.world.run_until(session.is_active)
    there.world.run(0.01)
    own = session.early_stream
    assert own is not None
    assert len(own.read(10_000, there.world.now)) == 8000


def test_nobody_goes_on() -> None:
    """H-40: a session that early data has begun ends with the time of a handshake, and says so."""
    there = early_stage()
    session = there.client.connect(there.server, ticket=there.ticket, early_data=EARLY)
    ((resume, path),) = there.wire
    session.abort(there.world.now)
    there.client.pump()
    there.server.receive(resume, back(path))
    began = there.world.now
    (peer,) = there.server.sessions
    there.world.run_until(lambda: peer.is_closed, timeout=20.0)
    assert there.world.now - began == pytest.approx(10.0, abs=0.1)
    assert peer.replayable
    assert [event.reason for event in there.server.events(SessionClosed)] == ["timeout"]
    assert there.server.events(HandshakeFailed) == []
    there.world.run(20.0)
    assert_empty(there.client, there.server)


def test_nobody_goes_on_and_the_server_has_ended_it() -> None:
    """H-32: a session that the host was told of is no handshake that failed, also where it is over before the proof."""
    there = early_stage()
    session = there.client.connect(there.server, ticket=there.ticket, early_data=EARLY)
    ((resume, path),) = there.wire
    session.abort(there.world.now)
    there.client.pump()
    there.server.receive(resume, back(path))
    there.server.sessions[0].close(there.world.now)
    there.server.pump()
    there.world.run(20.0)
    assert len(there.server.events(SessionEstablished)) == len(there.server.events(SessionClosed)) == 1
    assert there.server.events(HandshakeFailed) == []
    assert_empty(there.client, there.server)


def test_a_server_that_is_full() -> None:
    """H-28: early data is no right to a place."""
    there = early_stage(max_concurrent_sessions=1)
    there.world.node("other").connect(there.server)
    there.world.run(1.0)
    session = there.resume(early_data=EARLY)
    assert session.is_closed
    assert there.server.events(EarlyDataReceived) == []


def test_a_server_that_fills_up_while_the_host_thinks() -> None:
    """H-28, H-39: then it is not taken."""
    there = early_stage(ticket_check="host")
    answering(there.server, [True], after=0.05)
    session = there.client.connect(there.server, ticket=there.ticket, early_data=EARLY)
    there.world.run(2 * DELAY)
    there.server.endpoint.accepting = False
    there.world.run(2.0)
    assert session.is_closed
    assert there.server.events(EarlyDataReceived) == []


def test_the_place_in_the_table_is_needed() -> None:
    """H-21, H-40: a half-open place may go to another; the session lives on."""
    there = early_stage(limits=Limits(half_open=1))
    session = there.client.connect(there.server, ticket=there.ticket, early_data=EARLY)
    there.world.run_until(lambda: bool(there.server.sessions))
    other = there.world.node("other")
    other.connect(there.server, "memory")
    there.world.run(2.0)
    assert len(there.server.sessions) == 2
    assert session.is_active()
    assert there.server.events(HandshakeFailed) == []
    assert_works(there.world, session, there.server.sessions[0])


def test_the_carrier_ends() -> None:
    """Section 11: with the last path of what nobody has confirmed goes all of it."""
    there = early_stage(carrier="ws")
    session = there.client.connect(there.server, "ws", ticket=there.ticket, early_data=EARLY)
    there.world.run_until(lambda: bool(there.server.sessions))
    there.server.endpoint.path_closed(back(session.path), there.world.now)
    there.client.endpoint.path_closed(session.path, there.world.now)
    there.server.pump()
    there.client.pump()
    assert [event.by_peer for event in there.server.events(SessionClosed)] == [False]
    there.world.run(1.0)
    assert_empty(there.client, there.server)


@pytest.mark.parametrize("end", ["close", "abort"])
def test_the_server_ends_it_at_once(end: str) -> None:
    """H-40, K-1: what the application ends before the proof is ended for the peer too."""
    there = early_stage()
    session = there.client.connect(there.server, ticket=there.ticket, early_data=EARLY)
    there.world.run_until(lambda: bool(there.server.sessions))
    getattr(there.server.sessions[0], end)(there.world.now)
    there.server.pump()
    there.world.run(3.0)
    assert session.is_closed
    assert session.early_data_accepted is True
    assert len(there.server.endpoint._responder) == 0
    there.world.run(20.0)
    assert_empty(there.client, there.server)


def test_the_server_ends_it_with_its_allowance_used_up() -> None:
    """H-40, K-3: its last words go once the proof has come, though nothing more went before."""
    there = early_stage()
    session = there.client.connect(there.server, ticket=there.ticket, early_data=EARLY)
    there.world.run_until(lambda: bool(there.server.sessions))
    (peer,) = there.server.sessions
    send(there.server, peer, bytes(10_000))
    assert peer.paths[0].bytes_in_flight > 0
    peer.abort(there.world.now)
    there.server.pump()
    there.world.run_until(lambda: session.is_closed, timeout=1.0)
    assert session.close_error is not None
    assert session.close_error.message == "aborted by this side"
    there.world.run(20.0)
    assert_empty(there.client, there.server)


@pytest.mark.parametrize("end", ["close", "abort"])
@pytest.mark.parametrize("copied", [False, True])
def test_a_session_that_is_over_begins_no_other(end: str, copied: bool) -> None:
    """H-40: the proof comes when the session has been ended and forgotten, and its RESUME is still known.

    It began another session under the same keys, whose packets were numbered from 0 once more: nonces used twice.
    """
    there = early_stage()
    world, late = there.world, list[tuple[bytes, NetworkPath]]()

    def delay(datagram: bytes, path: NetworkPath) -> bytes | None:
        if is_handshake(datagram):
            return datagram
        if path.remote == there.server.address:
            late.append((datagram, path))
        return None

    session = there.client.connect(there.server, ticket=there.ticket, early_data=EARLY)
    world.run_until(lambda: bool(there.server.sessions))
    world.taps.append(delay)
    getattr(there.server.sessions[0], end)(world.now)
    there.server.pump()
    world.run_until(lambda: not there.server.endpoint._lingering and not there.server.endpoint._context.live)
    assert len(there.server.endpoint._responder) == 1
    assert session.is_active()
    world.taps.remove(delay)
    if copied:
        world.send(there.sent(MessageType.RESUME)[0], session.path)
    for datagram, path in late:
        world.send(datagram, path)
    world.run(1.0)
    assert len(there.server.events(SessionEstablished)) == 1
    assert session.is_closed, "it is told by a stateless reset (P-14)"
    world.run(20.0)
    assert_empty(there.client, there.server)


# -- nobody goes on after RESUMED ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["silent", "restarted", "carrier gone"])
def test_a_responder_that_has_forgotten(how: str) -> None:
    """H-42: the initiator waits as long as a handshake may take, and not until a session is given up or lost."""
    carrier = "ws" if how == "carrier gone" else "udp"
    there = stage(carrier=carrier)
    session = there.resume(carrier=carrier)
    assert session.resumed
    began = there.world.now
    if how == "silent":
        there.world.outage(there.client, there.server, began)
    elif how == "restarted":
        there.server.restart()
    else:
        there.client.endpoint.path_closed(session.path, began)
    there.world.run_until(lambda: session.is_closed, timeout=60.0)
    assert there.world.now - began <= 10.1
    assert session.state is SessionState.CLOSED


@pytest.mark.parametrize("why", ["restarted", "pushed out"])
def test_a_responder_that_says_that_it_has_forgotten(why: str) -> None:
    """H-42, P-14: with the reset token in RESUMED the initiator believes it, after a round trip."""
    there = stage(server={"reset_key": b"r" * 32, "limits": Limits(half_open=1)})
    session = there.client.connect(there.server, ticket=there.ticket)
    there.world.run_until(lambda: there.sent(MessageType.RESUMED))
    if why == "restarted":
        there.server.restart()
    else:
        there.world.node("other").connect(there.server, "memory")
    there.world.run_until(session.is_active)
    assert session.resumed
    began = there.world.now
    there.world.run_until(lambda: session.is_closed)
    assert there.world.now - began == pytest.approx(2 * DELAY, abs=0.001)
    assert session.close_error is not None
    assert "forgotten" in str(session.close_error)
