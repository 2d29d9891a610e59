"""A session moves: over other addresses, other carriers, on demand and without being asked (section 11.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from attrs import define

from stt_proto import Endpoint, NetworkPath, PathStatus, Session
from stt_proto.errors import ArgumentError, SessionClosedError, StateError
from stt_proto.events import (
    PathLost,
    PathValidated,
    SessionDetached,
    SessionMoved,
    StreamReadable,
)
from stt_proto.session import engines
from stt_proto.testing import Conditions, Inbox, Link, Node, World, send, tables
from stt_proto.types import Transmit
from stt_proto.wire import FrameType
from tests.proto.worlds import back, filler

MOBILE, WEB = ("client", 2), ("server", 443)


@define
class Scene:
    """A client with two addresses, and a server with two, and a session between the first of each."""

    world: World
    client: Node
    server: Node
    session: Session
    peer: Session
    inbox: Inbox

    def path(self, carrier: str = "udp", local: object = None, remote: object = None) -> NetworkPath:
        return self.client.path_to(self.server, carrier, local=local, remote=remote)  # type: ignore[arg-type]

    @property
    def mobile(self) -> NetworkPath:
        """From the other interface of the client."""
        return self.path(local=MOBILE)

    @property
    def web(self) -> NetworkPath:
        """Over a carrier that loses nothing."""
        return self.path("ws", local=("client", 3), remote=WEB)

    def links(self, path: NetworkPath) -> tuple[Link, Link]:
        return self.world.link_between(path.local, path.remote), self.world.link_between(path.remote, path.local)

    def cut(self, path: NetworkPath, up: bool = False) -> None:
        for link in self.links(path):
            link.up = up

    def migrate(self, path: NetworkPath) -> None:
        self.session.migrate(path, self.world.now)
        self.client.pump()

    def add(self, path: NetworkPath) -> None:
        self.session.add_path(path, self.world.now)
        self.client.pump()

    def states(self, session: Session) -> dict[NetworkPath, PathStatus]:
        return {info.path: info.status for info in session.paths}


def scene(
    conditions: Conditions | None = None, seed: int = 1, client: dict[str, Any] | None = None, **server: Any
) -> Scene:
    """`client` and all that is not named here are changes to the `Config` of the two."""
    world = World(seed, conditions)
    dialler, server_node = world.node("client", **(client or {})), world.node("server", **server)
    dialler.also_at(MOBILE)
    dialler.also_at(("client", 3))
    server_node.also_at(WEB)
    inbox = Inbox(server_node)
    session = dialler.connect(server_node)
    world.run_until(session.is_active)
    world.run(1.0)
    (peer,) = server_node.sessions
    return Scene(world, dialler, server_node, session, peer, inbox)


def on_the_web(conditions: Conditions | None = None, **server: object) -> Scene:
    """As `scene`, but dialled over a carrier that loses nothing."""
    world = World(1, conditions)
    client, server_node = world.node("client"), world.node("server", **server)
    client.also_at(MOBILE)
    client.also_at(("client", 3))
    server_node.also_at(WEB)
    inbox = Inbox(server_node)
    path = client.path_to(server_node, "ws", local=("client", 3), remote=WEB)
    session = client.endpoint.connect(path, now=0.0)
    client.pump()
    world.run_until(session.is_active)
    world.run(1.0)
    (peer,) = server_node.sessions
    return Scene(world, client, server_node, session, peer, inbox)


def test_a_session_moves_when_it_is_told_to() -> None:
    """M-2, M-7: both sides send over the new path, each after the other has answered there; the old one is a spare."""
    case = scene()
    old, new = case.session.path, case.mobile
    case.migrate(new)
    case.world.run(0.1)
    assert case.session.path == new
    assert case.peer.path == back(new)
    assert case.states(case.session) == {new: PathStatus.ACTIVE, old: PathStatus.SPARE}
    assert case.states(case.peer) == {back(new): PathStatus.ACTIVE, back(old): PathStatus.SPARE}
    assert case.client.events(PathValidated) == [PathValidated(new)]
    assert case.server.events(PathValidated) == [PathValidated(back(new))]
    assert case.client.events(SessionMoved) == [SessionMoved(old, new, False)]
    assert case.server.events(SessionMoved) == [SessionMoved(back(old), back(new), True)]
    upload = send(case.client, case.session, filler(300_000))
    case.world.run_until(lambda: upload.done)
    assert case.inbox.digests == [upload.digest]
    case.session.close(case.world.now)
    case.client.pump()
    case.world.assert_idle()


def test_every_packet_of_the_old_path_is_lost_after_the_move() -> None:
    """C8, M-7: what was on its way there is sent again over the new one."""
    case = scene(Conditions(delay=0.02, rate=20e6))
    old = case.session.path
    upload = send(case.client, case.session, filler(2_000_000))
    download = send(case.server, case.peer, filler(2_000_000, 1))
    inbox = Inbox(case.client)
    case.world.run(0.3)
    assert not upload.done
    case.migrate(case.mobile)
    case.cut(old)
    case.world.run_until(lambda: upload.done and download.done, timeout=5.0)
    assert case.inbox.digests == [upload.digest]
    assert inbox.digests == [download.digest]
    case.world.run(40.0)
    assert [event.path for event in case.client.events(PathLost)] == [old]
    assert [event.path for event in case.server.events(PathLost)] == [back(old)]
    assert not case.client.events(SessionDetached)


def test_three_moves_between_kinds_of_carriers() -> None:
    """C8: UDP to a carrier that loses nothing, to UDP, and back again, in mid-transfer."""
    case = scene(Conditions(delay=0.02, rate=20e6))
    first = case.session.path
    upload = send(case.client, case.session, filler(6_000_000))
    for path in (case.web, first, case.web):
        case.world.run(0.4)
        case.migrate(path)
        case.world.run(0.2)
        assert case.session.path == path
        assert case.peer.path == back(path)
        assert not upload.done
    case.world.run_until(lambda: upload.done, timeout=10.0)
    assert case.inbox.digests == [upload.digest]
    assert len(case.client.events(SessionMoved)) == 3


class Deliveries:
    """When bytes of streams were delivered to a node."""

    def __init__(self, node: Node) -> None:
        self.times: list[float] = []
        node.listeners.append(self._on_event)
        self._node = node

    def _on_event(self, session: Session | None, event: object) -> None:
        if isinstance(event, StreamReadable):
            self.times.append(self._node.world.now)

    def first_after(self, time: float) -> float:
        return min(at for at in self.times if at > time)


@pytest.mark.parametrize("upwards", [True, False])
def test_trains_after_a_move_to_datagrams(upwards: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """P-16, M-1: what a side takes it says whatever carrier it begins on; none are sent on one that is reliable."""
    longest = {"udp": 0, "ws": 0}
    transmits = Endpoint.transmits

    def spy(self: Endpoint, now: float) -> Iterator[Transmit]:
        for transmit in transmits(self, now):
            first, *_ = transmit.datagrams()
            if first[0] & 0xE0 == 0x60:
                longest[transmit.path.carrier] = max(longest[transmit.path.carrier], first[14] + 1)
            yield transmit

    monkeypatch.setattr(Endpoint, "transmits", spy)
    case = on_the_web(Conditions(delay=0.0005))
    inbox, uploads = case.inbox if upwards else Inbox(case.client), []
    for _ in range(2):
        assert "trains" in case.session.capabilities & case.peer.capabilities
        assert longest == {"udp": 0, "ws": 0}
        ends = (case.client, case.session) if upwards else (case.server, case.peer)
        uploads.append(send(*ends, filler(2_000_000)))
        case.world.run_until(lambda: uploads[-1].done)
        assert inbox.digests == [upload.digest for upload in uploads]
        case.migrate(case.mobile)
        case.world.run(0.1)
    assert longest["udp"] > 8
    assert longest["ws"] == 0


@pytest.mark.parametrize("carrier", ["udp", "ws"])
@pytest.mark.parametrize("upwards", [True, False])
def test_delivery_resumes_within_two_round_trips(carrier: str, upwards: bool) -> None:
    """M-6, M-7: 50 ms each way, and the old path gone in the moment in which the new one is there."""
    case = scene(Conditions(delay=0.05, rate=20e6))
    old, new = case.session.path, case.web if carrier == "ws" else case.mobile
    sender, session, receiver = (
        (case.client, case.session, case.server) if upwards else (case.server, case.peer, case.client)
    )
    inbox = case.inbox if upwards else Inbox(receiver)
    upload = send(sender, session, filler(20_000_000))
    case.world.run(2.0)
    deliveries = Deliveries(receiver)
    case.cut(old)
    case.migrate(new)
    opened = case.world.now
    case.world.run(1.0)
    late = deliveries.first_after(opened + 0.0501)  # what was under way then still arrives
    assert late <= opened + 0.2 + 0.005
    case.world.run_until(lambda: upload.done, timeout=30.0)
    assert inbox.digests == [upload.digest]


def test_a_reliable_carrier_that_died_without_a_word() -> None:
    """M-5, M-6, R-17: no timer of recovery speaks for what it still holds; all the same it is left, and sent again."""
    for told in (True, False):
        case = on_the_web(Conditions(delay=0.02, rate=20e6, queue=1 << 26))
        case.migrate(case.web)
        case.add(case.path())
        case.world.run(1.0)
        upload = send(case.client, case.session, filler(2_000_000))
        case.world.run(0.3)
        case.cut(case.web)
        if told:
            case.migrate(case.path())
        case.world.run_until(lambda upload=upload: upload.done, timeout=15.0)  # type: ignore[misc]
        assert case.inbox.digests == [upload.digest]
        assert case.session.path == case.path()


def test_who_waits_for_an_id_asks_whether_it_can_come() -> None:
    """C-6, M-5: a reliable carrier has died, and with it the next ID of the peer.

    [A busy machine had made its round trips so long that two timeouts, and four questions, took all of ten seconds.]
    """
    case = on_the_web()
    case.migrate(case.web)
    case.world.run(1.0)
    mine = case.session._engines
    assert mine is not None
    remote_ids = mine.remote_ids
    while (number := remote_ids.unused([remote_ids.number])) is not None:
        remote_ids.retire(number)
    case.cut(case.web)
    case.migrate(case.mobile)
    case.world.run(0.6)
    assert case.session.path == case.mobile


# -- which path is used --------------------------------------------------------------------------------------------


def test_a_better_kind_of_path_is_used_at_once() -> None:
    """M-8: a session that fell back to a reliable carrier goes on over UDP as soon as that works; both sides do."""
    case = on_the_web()
    case.add(case.path())
    case.world.run(0.2)
    assert case.session.path == case.path()
    assert case.peer.path == back(case.path())
    case.add(case.web)
    case.world.run(30.0)
    assert case.session.path == case.path(), "and not back again"


def test_what_the_application_chose_stays() -> None:
    """M-8: `migrate` counts for more than the kind, until that path is lost."""
    case = scene()
    case.migrate(case.web)
    case.world.run(1.0)
    case.add(case.mobile)
    case.world.run(60.0)
    assert case.session.path == case.web
    assert len(case.session.paths) == 3
    case.cut(case.web)
    case.session.open_stream().write(b"hello?", case.world.now)
    case.client.pump()
    case.world.run(5.0)
    assert case.session.path.carrier == "udp"
    assert case.peer.path == back(case.session.path)


def test_the_path_in_use_may_be_chosen_too() -> None:
    """M-8: then nothing moves by itself; offering it again changes nothing."""
    case = on_the_web()
    case.add(case.session.path)
    case.migrate(case.session.path)
    case.add(case.path())
    case.world.run(1.0)
    assert case.session.path == case.web
    assert len(case.client.events(PathValidated)) == 1


def test_a_clearly_shorter_way() -> None:
    """M-8: of the same kind; not soon after a move, and not for a few milliseconds."""
    case = scene()
    for path, delay in ((case.path(), 0.05), (case.mobile, 0.02)):
        for link in case.links(path):
            link.conditions = Conditions(delay=delay)
    case.session.open_stream().write(filler(100_000), case.world.now)
    case.client.pump()
    case.world.run(0.5)
    case.add(case.mobile)
    case.world.run(5.0)
    assert case.session.path == case.path()
    case.world.run(20.0)
    assert case.session.path == case.mobile
    for link in case.links(case.path()):
        link.conditions = Conditions(delay=0.018)
    case.world.run(60.0)
    assert case.session.path == case.mobile


def test_a_spare_takes_over() -> None:
    """M-5: timeouts in a row, and a spare that answers: the session goes on there long before 30 s are over."""
    for upwards in (True, False):
        case = scene(Conditions(delay=0.02, rate=20e6))
        case.add(case.web)
        case.world.run(1.0)
        inbox = case.inbox if upwards else Inbox(case.client)
        node, session = (case.client, case.session) if upwards else (case.server, case.peer)
        upload = send(node, session, filler(3_000_000))
        case.world.run(0.3)
        case.cut(case.path())
        case.world.run_until(lambda upload=upload: upload.done, timeout=8.0)  # type: ignore[misc]
        assert inbox.digests == [upload.digest]
        assert case.session.path == case.web
        assert case.peer.path == back(case.web)
        assert not case.client.events(SessionDetached)


def test_an_idle_session_finds_its_path_dead() -> None:
    """M-2, M-5: whoever asks a spare asks for the active path too, when nothing came there."""
    case = scene()
    case.add(case.mobile)
    case.world.run(1.0)
    case.cut(case.path())
    case.world.run(25.0)
    assert case.session.path == case.mobile
    assert case.session.is_active()


def test_the_carrier_of_the_path_in_use_ends() -> None:
    """M-6: with a spare the session is there at once, on either side; the carrier of a spare is just gone."""
    case = scene()
    case.add(case.web)
    case.world.run(1.0)
    case.client.endpoint.path_closed(case.path(), case.world.now, "unplugged")
    case.client.pump()
    assert case.session.path == case.web
    assert case.client.events(PathLost) == [PathLost(case.path(), "unplugged")]
    case.world.run(0.5)
    assert case.peer.path == back(case.web), "it was asked to follow"
    case.server.endpoint.path_closed(back(case.path()), case.world.now)
    case.server.pump()
    assert case.server.events(PathLost) == [PathLost(back(case.path()), "the path is gone")]
    assert len(case.peer.paths) == 1
    assert case.session.is_active()


def test_a_spare_that_is_lost() -> None:
    """M-2: each side finds out by itself: who opened it asks, and the other one waits for that."""
    case = scene()
    case.add(case.mobile)
    case.world.run(1.0)
    case.cut(case.mobile)
    case.world.run(45.0)
    assert case.client.events(PathLost) == [PathLost(case.mobile, "silent")]
    assert case.server.events(PathLost) == [PathLost(back(case.mobile), "silent")]
    assert case.session.path == case.path()


def test_a_path_that_leads_nowhere() -> None:
    """M-2: asked for six times within seconds, then given up; it may be tried anew."""
    case = scene()
    case.cut(case.mobile)
    asked = case.links(case.mobile)[0]
    case.migrate(case.mobile)
    case.world.run(10.0)
    assert asked.traffic.sent == 6
    assert case.client.events(PathLost) == [PathLost(case.mobile, "silent")]
    assert case.session.path == case.path()
    case.cut(case.mobile, up=True)
    case.add(case.mobile)
    case.world.run(1.0)
    assert case.states(case.session)[case.mobile] is PathStatus.SPARE


# -- bounds and mistakes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_move_that_is_given_up(side: str) -> None:
    """M-7: whoever gives up a path to which it wanted to move stays, and so does the peer, also when the answer comes
    late: a MOVE over the path in use takes the wish back."""
    case = scene(Conditions(delay=0.02, rate=20e6))
    first, new = case.session.path, case.mobile
    there, back_again = case.links(new)
    node, session, path = (case.client, case.session, new) if side == "client" else (case.server, case.peer, back(new))
    (back_again if side == "client" else there).up = False
    session.migrate(path, case.world.now)
    node.pump()
    case.world.run(0.05)  # the question is there, the answer is lost
    session.remove_path(path, case.world.now)
    session.remove_path(path, case.world.now)
    node.pump()
    assert node.events(PathLost) == [PathLost(path, "removed")]
    assert [info.path for info in session.paths] == [first if side == "client" else back(first)]
    case.cut(new, up=True)
    upload = send(case.client, case.session, filler(300_000))
    case.world.run_until(lambda: upload.done)
    case.world.run(1.0)
    assert case.inbox.digests == [upload.digest]
    assert case.session.path == first
    assert case.peer.path == back(first)
    assert not case.client.events(SessionMoved)
    assert not case.server.events(SessionMoved)


def test_paths_that_cannot_be_given_up() -> None:
    """The path in use, one that is unknown, and those of a session that is over; a wrong one is a mistake."""
    case = scene()
    case.session.remove_path(case.session.path, case.world.now)
    case.session.remove_path(case.mobile, case.world.now)
    assert len(case.session.paths) == 1
    with pytest.raises(ArgumentError):
        case.session.remove_path(NetworkPath("pigeon", 1, 2), case.world.now)
    case.add(case.mobile)
    case.world.run(1.0)
    case.session.remove_path(case.mobile, case.world.now)
    case.client.pump()
    assert case.client.events(PathLost) == [PathLost(case.mobile, "removed")]
    case.session.abort(case.world.now)
    case.session.remove_path(case.mobile, case.world.now)
    assert len(case.client.events(PathLost)) == 1


def test_three_paths_beside_the_one_in_use() -> None:
    """M-2: one more is refused, unless another is only being tried, which it replaces."""
    case = scene()
    for port in range(10, 13):
        case.client.also_at(("client", port))
        case.add(case.path(local=("client", port)))
        case.world.run(0.5)
    assert [info.status for info in case.session.paths] == [PathStatus.ACTIVE] + [PathStatus.SPARE] * 3
    with pytest.raises(StateError, match="3 paths"):
        case.add(case.mobile)
    assert len(case.session.paths) == 4
    case.client.endpoint.path_closed(case.path(local=("client", 10)), case.world.now)
    case.add(case.path(local=("nowhere", 1)))
    case.add(case.mobile)
    assert [info.path.local for info in case.session.paths][-1] == MOBILE
    case.world.run(1.0)
    assert case.states(case.session)[case.mobile] is PathStatus.SPARE


def test_mistakes_with_paths() -> None:
    """A11: what is no path, or no carrier of ours, or no session any more."""
    case = scene()
    for wrong in ("there", NetworkPath("pigeon", 1, 2)):
        with pytest.raises(ArgumentError) as caught:
            case.session.add_path(wrong, case.world.now)  # type: ignore[arg-type]
        assert caught.value.argument == "path"
    case.session.abort(case.world.now)
    with pytest.raises(SessionClosedError):
        case.session.migrate(case.mobile, case.world.now)


def test_a_path_of_which_the_peer_is_known_already() -> None:
    """M-3: the server adds the path over which it has heard the client: now it is its own, and asked by it."""
    case = scene()
    case.add(case.mobile)
    case.world.run(1.0)
    case.peer.migrate(back(case.mobile), case.world.now)
    case.server.pump()
    assert case.peer.path == back(case.mobile)
    case.world.run(1.0)
    assert case.session.path == case.mobile, "the responder may ask, too"
    assert [event.by_peer for event in case.client.events(SessionMoved)] == [True]


def test_a_peer_that_does_not_know_how_to_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    """X-2, M-7: no MOVE is sent; the peer stays where it is as long as that works, and is found when it does not."""
    monkeypatch.setattr(engines, "EXTENSION_FRAMES", engines.EXTENSION_FRAMES - {FrameType.MOVE})
    case = scene()
    case.migrate(case.mobile)
    case.world.run(1.0)
    assert case.session.path == case.mobile
    assert case.peer.path == back(case.path())
    upload = send(case.client, case.session, filler(500_000))
    case.world.run_until(lambda: upload.done)
    assert case.peer.path == back(case.path())
    case.cut(case.path())
    upload = send(case.client, case.session, filler(500_000))
    case.world.run_until(lambda: upload.done, timeout=10.0)
    assert case.peer.path == back(case.mobile)


def test_a_full_carrier_holds_up_no_other_path() -> None:
    """M-4: questions go over paths that have room; a carrier that takes nothing any more is left behind."""
    case = on_the_web()
    case.client.endpoint.path_writable(case.web, False, case.world.now)
    upload = send(case.client, case.session, filler(100_000))
    case.migrate(case.path())
    case.world.run_until(lambda: upload.done, timeout=3.0)
    assert case.session.path == case.path()
    case.client.endpoint.path_writable(case.path(), False, case.world.now)
    case.add(case.mobile)
    case.client.endpoint.path_writable(case.mobile, False, case.world.now)
    case.world.run(3.0)
    case.client.endpoint.path_writable(case.mobile, True, case.world.now)
    case.client.pump()
    case.world.run(6.0)
    assert case.states(case.session)[case.mobile] is PathStatus.SPARE


def test_a_session_that_waits_at_a_full_carrier_and_goes_on_elsewhere() -> None:
    """M-4, K-6: detached where the carrier is full, and back over another: it waits there no more."""
    impatient = {"keep_alive_interval": 1.0, "keep_alive_timeout": 3.0}
    case = scene(client=impatient, **impatient)
    old, endpoint = case.session.path, case.client.endpoint
    case.world.outage(case.client, case.server, case.world.now, 8.0)
    case.world.run(4.0)
    assert case.session.is_detached
    endpoint.path_writable(old, False, case.world.now)
    case.session.open_stream().write(b"x", case.world.now)
    case.client.pump()
    case.migrate(case.path(local=MOBILE))
    case.world.run(8.0)
    assert case.session.path == case.path(local=MOBILE)
    assert endpoint._context.full == {old: {}}


def test_a_path_that_is_added_again_and_again() -> None:
    """M-2, F-5: it is asked anew once a wait for the answer is over, and not with each call."""
    case = scene()
    path = case.path(local=MOBILE)
    for _ in range(2000):
        case.add(path)
        case.world.run(0.005)
    assert case.session.is_active()
    assert case.peer.is_active()
    assert case.states(case.session)[path] is PathStatus.SPARE


def test_a_path_waits_for_a_connection_id_of_its_own() -> None:
    """C-6: where the peer has given none, and not the one that another path uses."""
    case = scene()
    there = case.world.link_between(case.server.address, case.client.address)
    there.up = False  # no NEW_CONNECTION_ID comes any more
    ids: dict[object, set[bytes]] = {}

    def tap(datagram: bytes, path: NetworkPath) -> bytes:
        if datagram[0] < 0x80:
            ids.setdefault((path.local, path.remote), set()).add(datagram[1:9])
        return datagram

    case.world.taps.append(tap)
    dead = case.path(local=("client", 9))
    case.client.also_at(("client", 9))
    case.cut(dead)
    case.add(dead)
    case.client.pump()
    case.add(case.mobile)
    case.world.run(0.15)
    assert (MOBILE, case.server.address) not in ids, "there were two"
    there.up = True
    case.world.run(3.0)
    assert case.states(case.session)[case.mobile] is PathStatus.SPARE
    used = [ids[local, case.server.address] for local in (case.client.address, ("client", 9), MOBILE)]
    assert not used[0] & used[1]
    assert not used[0] & used[2]
    assert not used[1] & used[2]


def test_moves_without_end() -> None:
    """C-2, C-4, M-7: IDs are retired and replaced; nothing grows."""
    case = scene()
    held = None
    for number in range(40):
        case.client.also_at(("client", 100 + number))
        path = case.path(local=("client", 100 + number))
        old = case.session.path
        case.migrate(path)
        case.world.run(0.3)
        assert case.session.path == path
        assert case.peer.path == back(path)
        case.client.endpoint.path_closed(old, case.world.now)
        case.server.endpoint.path_closed(back(old), case.world.now)
        case.client.pump()
        case.server.pump()
        case.world.run(1.0)
        now = tables(case.client.endpoint), tables(case.server.endpoint)
        assert number < 4 or now == held
        held = now
