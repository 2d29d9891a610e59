"""Moves looked at closely: connection IDs that go, MOVE, what is in flight, what an observer sees (section 11.1)."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from stt_proto import Limits, NetworkPath, PathStatus
from stt_proto.config import CARRIERS
from stt_proto.errors import EncryptionError, SessionTimeoutError
from stt_proto.events import PathLost, PathValidated, SessionClosed, SessionDetached, SessionMoved
from stt_proto.session.rotation import RotationState
from stt_proto.testing import Conditions, send
from stt_proto.wire import Move, NewConnectionId, PathChallenge, PathResponse
from tests.proto.test_moves import MOBILE, Scene, scene
from tests.proto.test_trace import Observer
from tests.proto.worlds import back, filler, many_sessions, sealed

SLOW = Conditions(delay=0.05, rate=20e6)


def with_a_spare(conditions: Conditions | None = None, client: dict[str, Any] | None = None) -> Scene:
    """A session whose client has validated the path from its other interface."""
    case = scene(conditions, client=client)
    case.add(case.mobile)
    case.world.run(1.0)
    return case


# -- connection IDs ------------------------------------------------------------------------------------------------


def retire(case: Scene, before: int) -> None:
    """Let the server ask for all IDs below this number back, as it never does of its own accord."""
    assert case.peer._engines is not None
    known = case.peer._engines.local_ids.frame(3)
    assert known is not None
    frame = NewConnectionId(3, before, known.connection_id, known.token)
    for datagram in sealed(case.peer, frame):
        case.client.receive(datagram, case.path())


def ids_by_address(case: Scene) -> dict[object, list[bytes]]:
    """The connection IDs under which something leaves each address of the client from now on."""
    used: dict[object, list[bytes]] = {}

    def tap(datagram: bytes, path: NetworkPath) -> bytes:
        used.setdefault(path.local, []).append(datagram[1:9])
        return datagram

    case.world.taps.append(tap)
    return used


def test_the_peer_takes_the_id_of_a_spare_back() -> None:
    """C-2, C-6: a session that moves there right then takes another one, that no other path has used."""
    case = with_a_spare()
    used = ids_by_address(case)
    retire(case, 2)
    case.migrate(case.mobile)
    upload = send(case.client, case.session, filler(50_000))
    case.world.run_until(lambda: upload.done)
    case.world.run(15.0)
    assert case.session.path == case.mobile
    assert len(case.session.paths) == 2
    here, there = set(used[MOBILE]), set(used[case.client.address])
    assert here
    assert there
    assert not here & there


def test_the_peer_takes_the_id_in_use_back() -> None:
    """C-6: the one that came in its place goes with the path, and no other path gets it."""
    case = with_a_spare()
    used = ids_by_address(case)
    retire(case, 2)
    case.session.send_datagram(b"here", case.world.now)
    case.client.pump()
    case.world.run(0.5)
    case.migrate(case.mobile)
    case.client.endpoint.path_closed(case.path(), case.world.now)
    third = case.path(local=("client", 3))
    case.add(third)
    case.world.run(1.0)
    assert case.inbox.datagrams == [b"here"]
    assert len(case.session.paths) == 2
    seen = [set(used[address]) for address in (case.client.address, MOBILE, ("client", 3))]
    assert sum(map(len, seen)) == len(set.union(*seen))


def test_an_answer_waits_for_an_id_too() -> None:
    """C-6: the server has left the client one ID, and asks over the spare: nothing leaves before there is another."""
    case = with_a_spare(SLOW)
    used = ids_by_address(case)
    there = case.world.link_between(case.server.address, case.client.address)
    there.up = False  # no NEW_CONNECTION_ID comes
    retire(case, 3)
    for datagram in sealed(case.peer, PathChallenge(b"who's it")):
        case.client.receive(datagram, case.mobile)
    case.world.run(0.2)
    assert used[case.client.address]
    assert MOBILE not in used
    there.up = True
    case.world.run(2.0)
    assert used[MOBILE]
    assert not set(used[MOBILE]) & set(used[case.client.address])


# -- a path that went silent ---------------------------------------------------------------------------------------


def test_the_peer_comes_over_a_spare_after_all() -> None:
    """M-5: the active path is silent and so was the spare; with the first packet over it the session is there."""
    case = with_a_spare(SLOW)
    old = case.peer.path
    case.cut(case.path())
    case.cut(case.mobile)
    case.peer.open_stream().write(b"hello?", case.world.now)
    case.server.pump()
    case.world.run(4.0)
    assert case.peer.path == old
    (datagram,) = sealed(case.session, b"\x01" + bytes(60))
    case.server.receive(datagram, back(case.mobile))
    assert case.peer.path == back(case.mobile)
    assert case.server.events(SessionMoved) == [SessionMoved(old, back(case.mobile), False)]
    assert case.server.events(PathLost) == [PathLost(old, "silent")]


def test_a_spare_answers_after_all() -> None:
    """M-5: the active path is silent and no other was heard: the session goes to the first that answers."""
    case = with_a_spare(SLOW)
    old = case.peer.path
    case.cut(case.path())
    case.cut(case.mobile)
    case.peer.open_stream().write(b"hello?", case.world.now)
    case.server.pump()
    case.world.run(2.0)
    assert case.peer.path == old
    case.cut(case.mobile, up=True)
    case.world.run(3.0)
    assert case.server.events(SessionMoved) == [SessionMoved(old, back(case.mobile), False)]


def test_spares_that_answer_hide_no_dead_path() -> None:
    """M-5: they are heard in turn, so no sign of life is ever asked for; who asks them asks for the active one too."""
    case = with_a_spare()
    case.world.run(4.0)
    case.add(case.path(local=("client", 3)))
    case.world.run(30.0)
    case.cut(case.path())
    case.world.run(22.0)
    assert case.session.path in (case.mobile, case.path(local=("client", 3)))


def test_the_last_path_is_lost_and_others_with_it() -> None:
    """M-9, M-10: spares that were validated long ago go with it; one that is being tried may be the next."""
    case = with_a_spare()
    third = case.path(local=("client", 3))
    for path in (case.path(), case.mobile, third):
        case.cut(path)
    cut = case.world.now
    for count, path in enumerate([case.mobile, case.path()] * 2 + [case.mobile]):  # each move gives both some time
        case.world.run(cut + 12.0 + 4.0 * count - case.world.now)
        case.migrate(path)
    case.add(third)
    assert case.states(case.session)[case.path()] is PathStatus.SPARE
    case.world.run_until(lambda: case.session.is_detached, timeout=6.0)
    assert {event.path for event in case.client.events(PathLost)} == {case.mobile, case.path()}
    case.world.run(20.0)
    assert case.session.is_detached
    case.cut(third, up=True)
    case.world.run(11.0)
    assert case.session.path == third
    assert not case.session.is_detached


def test_a_path_that_is_added_without_any_is_asked_on_and_on() -> None:
    """M-10: on a carrier that is not reliable, after the questions of M-2; on others it is given up."""
    case = scene()
    for path in (case.path(), case.mobile, case.web):
        case.cut(path)
    case.client.endpoint.path_closed(case.path(), case.world.now)
    case.add(case.mobile)
    case.add(case.web)
    case.world.run(40.0)
    assert case.session.is_detached
    assert [event.path for event in case.client.events(PathLost)] == [case.path(), case.web]
    case.cut(case.mobile, up=True)
    case.world.run(11.0)
    assert case.session.path == case.mobile


def test_the_chosen_path_is_still_wanted_after_another_move() -> None:
    """M-7, M-8: the active path ends while the application's choice is being tried: to the spare, and then there."""
    for by_peer in (False, True):
        case = with_a_spare()
        node, session, other = (
            (case.server, case.peer, case.session) if by_peer else (case.client, case.session, case.peer)
        )
        paths = [case.path(), case.mobile, case.web]
        old, spare, chosen = map(back, paths) if by_peer else paths
        case.cut(case.web)
        session.migrate(chosen, case.world.now)
        node.endpoint.path_closed(old, case.world.now)
        node.pump()
        assert session.path == spare
        case.world.run(1.0)
        case.cut(case.web, up=True)
        case.world.run(5.0)
        assert session.path == chosen
        assert other.path == back(chosen)


def test_a_session_that_was_found_goes_nowhere_else() -> None:
    """M-7, M-9: the server tries a path while it has none; the client comes over another one first, and that is it."""
    case = scene(SLOW)
    third = case.path(local=("client", 3))
    case.cut(third)
    for node, path in ((case.client, case.path()), (case.server, case.peer.path)):
        node.endpoint.path_closed(path, case.world.now)
    case.peer.add_path(back(third), case.world.now)
    case.server.pump()
    case.add(case.mobile)
    case.world.run(1.0)
    assert case.peer.path == back(case.mobile)
    case.cut(third, up=True)
    case.world.run(5.0)
    assert PathValidated(back(third)) in case.server.events(PathValidated)
    assert case.peer.path == back(case.mobile)
    assert case.session.path == case.mobile


# -- what is in flight ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("waited", "resent"), [(0.15, False), (0.175, True)])
def test_what_is_overdue_when_the_session_moves(waited: float, resent: bool) -> None:
    """M-6: round trips of 125 ms at most, 25 ms for delay: sent again at once after 166 ms, and not before."""
    case = with_a_spare(SLOW)
    for _ in range(20):
        send(case.client, case.session, filler(100))
        case.world.run(0.5)
    received = len(case.inbox.digests)
    case.cut(case.path())
    upload = send(case.client, case.session, filler(1000))
    case.world.run(waited)
    case.migrate(case.mobile)
    (old,) = [info for info in case.session.paths if info.path == case.path()]
    assert (old.bytes_in_flight == 0) is resent
    case.world.run(0.053)
    assert (len(case.inbox.digests) > received) is resent
    case.world.run_until(lambda: upload.done, timeout=1.0)


def test_what_an_acknowledgement_leaves_out_is_lost_on_the_path_that_was_left() -> None:
    """M-1, M-6: the old path's recovery sees the gap, long before its timeout, and what fell into it is sent again."""
    case = with_a_spare(SLOW)
    upload = send(case.client, case.session, filler(2_000_000))
    case.world.run(0.4)
    dropped: list[bytes] = []

    def tap(datagram: bytes, path: NetworkPath) -> bytes | None:
        if path.local == case.client.address and not dropped:
            dropped.append(datagram)
            return None
        return datagram

    case.world.taps.append(tap)
    case.world.run_until(lambda: dropped, timeout=1.0)
    case.world.run(0.02)
    case.migrate(case.mobile)
    case.world.run(0.15)
    (old,) = [info for info in case.session.paths if info.path == case.path()]
    assert old.packets_lost > 0
    case.world.run_until(lambda: upload.done, timeout=10.0)
    assert case.inbox.digests == [upload.digest]


def test_a_probe_that_arrives_after_the_move() -> None:
    """M-1, P-17: what is known of the size of datagrams belongs to the path over which the probe went."""
    searching = {"udp": evolve(CARRIERS["udp"], max_probe=65_507)}
    case = scene(evolve(SLOW, queue=1 << 24), client={"carriers": searching}, carriers=searching)
    case.add(case.mobile)
    case.world.run(1.0)
    send(case.client, case.session, filler(20_000_000))
    case.world.run_until(lambda: case.session.paths[0].mtu > 1200, timeout=5.0)
    case.migrate(case.mobile)
    known = {info.path: info.mtu for info in case.session.paths}
    assert known[case.mobile] == 1200
    case.world.run(0.25)
    now = {info.path: info.mtu for info in case.session.paths}
    assert now[case.path()] > known[case.path()]


# -- MOVE ----------------------------------------------------------------------------------------------------------


def sent_with(observer: Observer, kind: str) -> list[list[tuple[str, object]]]:
    """The packets of an observed session that had a frame of this kind: kinds and numbers of what was in each."""
    packets = [[(frame.kind, frame.fields.get("number")) for frame in told[3]] for told in observer.at("packet_sent")]
    return [packet for packet in packets if kind in dict(packet)]


def test_move_stands_beside_each_challenge() -> None:
    """M-7: the peer is to follow as soon as it has found the path good, though what comes later be lost."""
    observer = Observer()
    case = scene(SLOW, client={"trace": observer})
    case.add(case.mobile)
    case.world.run(1.0)
    assert sent_with(observer, "path_challenge")
    assert not sent_with(observer, "move"), "a spare is not where it wants to be"
    observer.told.clear()
    third = case.path(local=("client", 3))
    answers = case.links(third)[1]
    answers.up = False
    case.migrate(third)
    case.world.run(1.0)
    questions = sent_with(observer, "path_challenge")
    assert len(questions) > 1
    assert all(("move", 1) in question for question in questions)


def test_an_answer_and_a_wish_in_one_packet() -> None:
    """M-7: both sides want to be there; the answer moves this one, and MOVE behind it finds nothing left to do.

    It moved from the path to itself: which was a spare beside itself from then on, and asked for no more.
    """
    case = scene(SLOW)
    new = back(case.mobile)
    case.peer.migrate(new, case.world.now)
    case.server.pump()
    assert case.peer._moves is not None
    (path,) = case.peer._moves.table
    assert path.challenge is not None
    for datagram in sealed(case.session, PathResponse(path.challenge.data), Move(1)):
        case.server.receive(datagram, new)
    assert [event.new for event in case.server.events(SessionMoved)] == [new]
    assert case.states(case.peer) == {new: PathStatus.ACTIVE, back(case.path()): PathStatus.SPARE}
    assert len(case.peer.paths) == 2
    case.world.run(5.0)
    assert case.session.path == case.mobile


def test_an_old_move_is_no_news() -> None:
    """M-7: a MOVE that comes late, or again, over a path that was left since, calls nobody back; a new one does."""
    case = scene()
    old, new = case.peer.path, back(case.mobile)
    case.migrate(case.mobile)
    case.world.run(1.0)
    assert case.peer.path == new
    for number, goes in ((0, new), (1, new), (2, old)):
        for datagram in sealed(case.session, Move(number)):
            case.server.receive(datagram, old)
        assert case.peer.path == goes


def test_an_old_move_makes_no_candidate_wanted() -> None:
    """M-7: nor does the session go where it came from once that is validated."""
    case = scene(SLOW)
    case.migrate(case.mobile)
    case.world.run(1.0)
    third = back(case.path(local=("client", 3)))
    for datagram in sealed(case.session, Move(1), bytes(400)):
        case.server.receive(datagram, third)
    case.world.run(1.0)
    assert PathValidated(third) in case.server.events(PathValidated)
    assert case.peer.path == back(case.mobile)


def quiet(case: Scene, seconds: float = 60.0) -> int:
    """Datagrams on the wire while nothing happens for so long."""
    before = case.world.datagrams
    case.world.run(seconds)
    return case.world.datagrams - before


def test_two_moves_at_once() -> None:
    """M-7: each side follows the other, to where that was no more; the initiator notices, and asks again.

    [World 9504833: they never agreed, and asked whether their paths work ten times in each interval, for ever.]
    """
    case = with_a_spare(SLOW)
    third = case.path(local=("client", 3))
    case.add(third)
    case.world.run(1.0)
    case.session.migrate(case.mobile, case.world.now)
    case.peer.migrate(back(third), case.world.now)
    case.client.pump()
    case.server.pump()
    case.world.run(0.06)
    assert (case.session.path, case.peer.path) == (third, back(case.mobile)), "they have swapped"
    case.world.run(25.0)
    assert case.peer.path == back(case.session.path)
    moved = len(case.client.events(SessionMoved)), len(case.server.events(SessionMoved))
    assert quiet(case) <= 80
    assert (len(case.client.events(SessionMoved)), len(case.server.events(SessionMoved))) == moved


def apart(case: Scene) -> None:
    """The server went elsewhere since nothing came to it for a while, of which the client noticed nothing."""
    case.migrate(case.mobile)
    case.world.run(1.0)
    case.cut(case.mobile)
    case.peer.open_stream().write(b"hello?", case.world.now)
    case.server.pump()
    case.world.run_until(lambda: case.peer.path == back(case.path()), timeout=5.0)
    case.cut(case.mobile, up=True)
    assert case.session.path == case.mobile


def test_the_peer_went_elsewhere_of_its_own_accord() -> None:
    """M-7: its MOVE was acknowledged long ago, and so nothing was said; now the initiator says it again.

    [Worlds 9503061 and 9504338.]
    """
    observer = Observer()
    case = scene(SLOW, client={"trace": observer})
    apart(case)
    observer.told.clear()
    case.world.run(15.0)
    assert case.session.path == case.mobile
    assert case.peer.path == back(case.mobile)
    assert [("move", 2) in packet for packet in sent_with(observer, "move")] == [True], "once was enough"
    assert case.server.events(SessionMoved)[-1] == SessionMoved(back(case.path()), back(case.mobile), True)
    assert quiet(case) <= 60


def test_the_responder_calls_nobody_back() -> None:
    """M-7: where both sides insisted, they would follow each other; one of them has to give way."""
    observer = Observer()
    case = scene(SLOW, trace=observer)
    apart(case)
    case.cut(case.mobile)
    observer.told.clear()
    case.world.run(30.0)
    assert case.session.path == case.path()
    assert not sent_with(observer, "move")


def test_a_faster_copy_is_no_peer_elsewhere() -> None:
    """M-7: all that the server sends comes over the spare first, as a copy; its answers too, so nothing is said."""
    observer = Observer()
    case = scene(SLOW, client={"trace": observer})
    case.add(case.mobile)
    case.world.run(1.0)

    def copy(datagram: bytes, path: NetworkPath) -> bytes:
        if path == back(case.path()):
            case.world.at(case.world.now + 0.01, lambda: case.client.receive(datagram, case.mobile))
        return datagram

    case.world.taps.append(copy)
    upload = send(case.client, case.session, filler(10_000_000))
    case.world.run_until(lambda: upload.done, timeout=20.0)
    assert case.session.path == case.path()
    assert not sent_with(observer, "move")


def test_a_copy_from_nowhere_is_no_peer_elsewhere() -> None:
    """M-7: who is heard from an address that does not answer is not where the peer is."""
    observer = Observer()
    case = scene(SLOW, client={"trace": observer})
    nowhere = NetworkPath("udp", case.client.address, ("nowhere", 1))
    for _ in range(10):
        for datagram in sealed(case.peer, b"\x01" + bytes(60)):
            case.client.receive(datagram, nowhere)
        case.world.run(0.7)
    assert sent_with(observer, "path_challenge")
    assert not sent_with(observer, "move")


def test_a_move_that_is_tried_goes_first() -> None:
    """M-7: the peer is elsewhere, and so is soon to be this side: every question there says so."""
    observer = Observer()
    case = scene(SLOW, client={"trace": observer})
    apart(case)
    third = case.path(local=("client", 3))
    case.cut(third)
    observer.told.clear()
    case.migrate(third)
    for _ in range(10):
        case.peer.send_datagram(b"over here", case.world.now)
        case.server.pump()
        case.world.run(0.4)
    moves = [dict(packet) for packet in sent_with(observer, "move")]
    assert len(moves) >= 4
    assert all("path_challenge" in packet and packet["move"] == 2 for packet in moves)
    case.cut(third, up=True)
    case.world.run(5.0)
    assert case.session.path == third
    assert case.peer.path == back(third)


def test_a_move_that_is_under_way_is_not_asked_for_again() -> None:
    """M-7: what the peer sent over the old path meanwhile is no reason."""
    observer = Observer()
    case = scene(SLOW, client={"trace": observer})
    case.add(case.mobile)
    case.world.run(1.0)
    send(case.server, case.peer, filler(2_000_000))
    case.world.run(0.3)
    case.migrate(case.mobile)
    case.world.run(3.0)
    assert case.peer.path == back(case.mobile)
    assert {number for packet in sent_with(observer, "move") for kind, number in packet if kind == "move"} == {1}


# -- what an observer sees -----------------------------------------------------------------------------------------


def test_an_observer_sees_the_move() -> None:
    """Architecture, sight: questions and answers are packets like others; the events, and the new addresses once."""
    observer = Observer()
    case = scene(client={"trace": observer})
    old, new = case.session.path, case.mobile
    case.migrate(new)
    case.world.run(1.0)
    assert sent_with(observer, "path_challenge")
    assert sent_with(observer, "path_response")
    assert observer.events(PathValidated) == [PathValidated(new)]
    assert observer.events(SessionMoved) == [SessionMoved(old, new, False)]
    assert [told[:2] for told in observer.at("path_updated")] == [(old, new)]


# -- keys ----------------------------------------------------------------------------------------------------------


def test_answers_on_another_path_wear_the_key_out_too() -> None:
    """P-11, V-7: such a packet counts like any other; new keys are offered in time, and no limit is passed."""
    for sealed_so_far, limit, offered in ((255, 1000, False), (256, 1000, True), (1000, 1000, False)):
        case = with_a_spare(client={"rotate_after_packets": 256})
        engines, link = case.session._engines, case.links(case.mobile)[0]
        assert engines is not None
        sealer, sent = engines.sealer, link.traffic.sent
        sealer.sealed, sealer.limit, sealer.review_at = sealed_so_far, limit, 256
        for datagram in sealed(case.peer, PathChallenge(b"and now?")):
            case.client.receive(datagram, case.mobile)
        used_up = sealed_so_far >= limit
        assert isinstance(case.session.close_error, EncryptionError) is used_up
        assert link.traffic.sent - sent == (not used_up)
        assert (engines.rotation.state is RotationState.OFFERED) is offered


# -- many sessions on one path -------------------------------------------------------------------------------------


def test_nothing_is_told_of_a_session_that_had_to_go() -> None:
    """M-11: the path of several ends; the one that was detached already, and asks there, gives way and says no more."""
    world, client, server, sessions, _ = many_sessions(2, client={"limits": Limits(detached_per_peer=1)})
    lonely, other = sessions
    link = world.link_between(server.address, client.address)
    link.up = False
    world.run(15.0)
    for datagram in sealed(server.endpoint.sessions[other.session_id], b"\x01" + bytes(60)):
        client.receive(datagram, other.path)
    world.run_until(lambda: lonely.is_detached, timeout=30.0)
    assert not other.is_detached
    client.endpoint.path_closed(other.path, world.now, "unplugged")
    client.pump()
    assert other.is_detached
    assert isinstance(lonely.close_error, SessionTimeoutError)
    told = [type(event) for _, session, event in client.log if session is lonely]
    assert told[-1] is SessionClosed
    assert client.events(SessionDetached)
