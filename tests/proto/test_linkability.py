"""Who sees two networks cannot tell that one session is on both of them: C-6, from an observer's view.

He has a copy of every datagram and no key. What he can compare is the destination connection ID, eight bytes in clear.
A *network* is an address of the client here; all of them lead to the same address of the server.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest

from stt_proto import NetworkPath, PathStatus
from stt_proto.events import SessionMoved
from stt_proto.testing import Conditions, send
from stt_proto.wire import NewConnectionId
from tests.proto.test_moves import MOBILE, Scene, scene
from tests.proto.worlds import back, filler, sealed

THIRD = ("client", 3)


class Observer:
    """Sees all networks.

    Attributes:
        ids: under which something was on its way, there or back, by the address of the client.
    """

    def __init__(self, case: Scene) -> None:
        self._client = case.client.address[0]  # type: ignore[index]
        self.ids: dict[object, set[bytes]] = {}
        case.world.taps.append(self._tap)

    def _tap(self, datagram: bytes, path: NetworkPath) -> bytes:
        at = path.local if path.local[0] == self._client else path.remote  # type: ignore[index]
        self.ids.setdefault(at, set()).add(datagram[1:9])
        return datagram

    def assert_unlinked(self) -> None:
        """No ID was seen on two networks."""
        seen = [(network, one) for network, ids in self.ids.items() for one in ids]
        assert len({one for _, one in seen}) == len(seen), self.ids


def talk(case: Scene) -> None:
    """Something goes there and back, if it can."""
    case.session.send_datagram(b"there", case.world.now)
    case.peer.send_datagram(b"and back", case.world.now)
    case.client.pump()
    case.server.pump()
    case.world.run(1.0)


def lose(case: Scene, path: NetworkPath) -> None:
    """A network is gone, and both sides notice that they have no path any more."""
    case.cut(path)
    case.world.run_until(lambda: case.session.is_detached and case.peer.is_detached, timeout=60.0)


def test_another_network_after_a_silence() -> None:
    """C-6, M-10: the lost path is asked on under the ID that is known there, and the new network sees another one.

    Of the two IDs that the client has, one went to the questions on the path that was lost, and the network to which it
    had moved saw the one that it had had before.
    """
    case = scene()
    observer = Observer(case)
    talk(case)
    lose(case, case.path())
    case.add(case.mobile)
    talk(case)
    assert case.session.path == case.mobile
    talk(case)
    assert len(observer.ids) == 2
    observer.assert_unlinked()


def test_one_network_after_the_other() -> None:
    """C-6, M-9: the ID of a path goes with it when the session was detached, too, and comes back nowhere else."""
    case = scene()
    observer = Observer(case)
    paths = [case.path(), case.mobile, case.path(local=THIRD)]
    for old, new in pairwise(paths):
        lose(case, old)
        case.add(new)
        case.world.run(10.0)
        assert case.session.path == new
        assert case.peer.path == back(new)
        talk(case)
    case.cut(paths[0], up=True)
    case.migrate(paths[0])
    talk(case)
    assert case.session.path == paths[0]
    observer.assert_unlinked()
    for node in (case.session, case.peer):
        assert node._engines is not None
        assert node._engines.remote_ids.id_of(0) is None, "it was retired"


@pytest.mark.parametrize("closed", [True, False])
def test_the_id_of_a_lost_path_is_retired(closed: bool) -> None:
    """C-6, M-9: at both ends, whether the carrier ended or was silent."""
    case = scene()
    local = [session._engines.local_ids.live[0] for session in (case.session, case.peer)]  # type: ignore[union-attr]
    if closed:
        case.client.endpoint.path_closed(case.path(), case.world.now)
        case.server.endpoint.path_closed(back(case.path()), case.world.now)
    else:
        lose(case, case.path())
    case.add(case.mobile)
    case.world.run(20.0)
    assert case.session.path == case.mobile
    for session, one in zip((case.session, case.peer), local, strict=True):
        assert session._engines is not None
        assert one not in session._engines.local_ids.live


def test_an_answer_to_a_network_gets_an_id_of_its_own_when_there_is_one() -> None:
    """C-6: the server had none for a path that the client opened, and borrowed; with the next one it has.

    A path that was only heard kept what it had borrowed for as long as it was there.
    """
    case = scene(Conditions(delay=0.05))
    observer = Observer(case)
    engines = case.peer._engines
    assert engines is not None
    assert engines.remote_ids.retire(1), "nothing but the one in use is left"
    there, _ = case.links(case.path())
    there.up = False  # NEW_CONNECTION_ID is lost
    case.add(case.mobile)
    case.world.run(0.02)
    there.up = True
    case.world.run(0.08)
    assert engines.remote_ids.current in observer.ids[MOBILE], "an answer could not wait"
    talk(case)
    assert not case.server.events(SessionMoved)
    observer.ids.clear()
    case.world.run(30.0)
    case.migrate(case.mobile)
    talk(case)
    case.world.run(30.0)
    assert case.peer.path == back(case.mobile)
    assert len(case.peer.paths) == 2
    assert set(observer.ids) == {MOBILE, case.client.address}
    observer.assert_unlinked()


def test_the_peer_takes_back_the_id_in_use_and_leaves_that_of_a_spare() -> None:
    """C-6: the active path does not go on under the ID of the spare."""
    case = scene()
    case.add(case.mobile)
    case.world.run(1.0)
    observer = Observer(case)
    assert case.peer._engines is not None
    known = case.peer._engines.local_ids.frame(3)
    assert known is not None
    for datagram in sealed(case.peer, NewConnectionId(3, 1, known.connection_id, known.token)):
        case.client.receive(datagram, case.path())
    talk(case)
    case.world.run(30.0)
    assert set(observer.ids) == {MOBILE, case.client.address}
    observer.assert_unlinked()


def test_an_id_that_was_borrowed_is_given_back() -> None:
    """C-6: a session without a path that answers comes back at once, and then goes on under another ID."""
    case = scene()
    mine, theirs = case.session._engines, case.peer._engines
    assert mine is not None
    assert theirs is not None
    assert mine.remote_ids.retire(1)
    (known, *_) = theirs.local_ids.live
    lose(case, case.path())
    case.add(case.mobile)
    case.world.run_until(lambda: case.session.path == case.mobile)
    assert mine.remote_ids.current == known
    case.world.run(20.0)
    assert len(case.session.paths) == 1
    assert mine.remote_ids.current != known
    assert known not in theirs.local_ids.live
    talk(case)
    assert case.inbox.datagrams == [b"there"]


def test_what_was_borrowed_is_given_back_after_the_next_silence() -> None:
    """C-6, M-10: the path is lost again before there is another ID, and the first network knows the one in use."""
    case = scene()
    mine, theirs = case.session._engines, case.peer._engines
    assert mine is not None
    assert theirs is not None
    assert mine.remote_ids.retire(1)
    (known, *_) = theirs.local_ids.live
    lose(case, case.path())
    case.add(case.mobile)
    case.world.run_until(lambda: case.session.path == case.mobile)
    case.cut(case.mobile)  # before there is another ID
    assert mine.remote_ids.current == known
    case.world.run_until(lambda: case.session.is_detached, timeout=60.0)
    case.cut(case.mobile, up=True)
    case.world.run(30.0)
    assert case.session.path == case.mobile
    assert mine.remote_ids.current != known
    assert known not in theirs.local_ids.live


def test_who_waits_for_an_id_gets_none_that_was_used() -> None:
    """C-6: the path in use ends while another one waits; its ID goes with it, and does not become free."""
    case = scene()
    observer = Observer(case)
    mine, third = case.session._engines, case.path(local=THIRD)
    assert mine is not None
    case.add(third)
    case.world.run(1.0)
    assert mine.remote_ids.retire(2)
    assert mine.remote_ids.retire(3)
    case.add(case.mobile)
    case.world.run(0.5)
    assert MOBILE not in observer.ids
    case.client.endpoint.path_closed(case.path(), case.world.now)
    case.server.endpoint.path_closed(back(case.path()), case.world.now)
    case.client.pump()
    case.server.pump()
    case.world.run(20.0)
    assert set(observer.ids) == {case.client.address, THIRD, MOBILE}
    observer.assert_unlinked()


def test_who_waits_for_an_id_asks_the_path_in_use_once() -> None:
    """C-6: the peer has no ID left and the path in use answers, which was asked again each second, for ever."""
    case = scene()
    mine = case.session._engines
    assert mine is not None
    case.add(case.path(local=THIRD))
    case.world.run(1.0)
    assert mine.remote_ids.retire(2)
    assert mine.remote_ids.retire(3)
    observer = Observer(case)
    case.add(case.mobile)
    case.world.run(1.0)
    assert case.client.address in observer.ids, "whether the next ID can come over it"
    observer.ids.clear()
    case.world.run(8.0)
    assert not observer.ids, "it has answered"
    assert case.states(case.session)[case.mobile] is PathStatus.VALIDATING


def test_an_address_that_was_only_heard_and_is_chosen_then() -> None:
    """C-6: it was taken for a translator's doing; who opens it himself has chosen another network."""
    case = scene()
    assert case.session._engines is not None
    known = case.session._engines.remote_ids.current
    for datagram in sealed(case.peer, b"\x01" + bytes(60)):
        case.client.receive(datagram, case.mobile)
    case.world.run(1.0)
    observer = Observer(case)
    case.migrate(case.mobile)
    talk(case)
    assert case.session.path == case.mobile
    case.world.run(20.0)
    assert observer.ids[MOBILE]
    assert known not in observer.ids[MOBILE]


def test_a_network_that_never_answered() -> None:
    """C-6: the questions were seen there. What they were sent to is used nowhere else."""
    case = scene()
    observer = Observer(case)
    case.cut(case.mobile)
    case.migrate(case.mobile)
    case.world.run(15.0)
    assert len(case.session.paths) == 1
    case.migrate(case.path(local=THIRD))
    case.world.run(2.0)
    assert case.session.path == case.path(local=THIRD)
    talk(case)
    assert len(observer.ids) == 3
    observer.assert_unlinked()


@pytest.mark.parametrize("seed", range(12))
def test_moves_at_random(seed: int) -> None:
    """C-6: as long as there is a path that answers, or one network at a time is tried without one."""
    rng = random.Random(seed)
    case = scene(seed=seed)
    observer = Observer(case)
    paths = [case.path(), case.mobile, case.path(local=THIRD)]

    def closed(path: NetworkPath) -> None:
        node, there = rng.choice(((case.client, path), (case.server, back(path))))
        if node.sessions[0].path == there and len(node.sessions[0].paths) > 1:
            node.endpoint.path_closed(there, case.world.now)
            node.pump()

    def uploaded(path: NetworkPath) -> None:
        send(case.client, case.session, filler(20_000))

    def lost(path: NetworkPath) -> None:
        for each in paths:
            case.cut(each)
        case.world.run(60.0)

    def added(path: NetworkPath) -> None:
        if not case.session.is_detached:
            case.add(path)

    def migrated(path: NetworkPath) -> None:
        if not case.session.is_detached:
            case.migrate(path)

    steps: list[Callable[[NetworkPath], None]] = [
        added, migrated, migrated, closed, uploaded, lost, case.cut, partial(case.cut, up=True)
    ]  # fmt: skip
    for _ in range(30):
        rng.choice(steps)(rng.choice(paths))
        case.world.run(rng.choice((0.05, 1.0, 15.0)))
        if case.session.is_detached or case.peer.is_detached:
            for path in paths:
                case.cut(path, up=True)
            case.world.run(12.0)
        assert case.session.is_active()
        observer.assert_unlinked()
