"""Storms: a session that moves from carrier to carrier while both sides replace its keys as fast as it goes."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import pytest

from stt_proto.events import KeysRotated, PathLost, SessionDetached, SessionMoved
from stt_proto.testing import Conditions, Inbox, send
from tests.proto.test_moves import Scene, scene
from tests.proto.test_rotation import SETTLED, Storm, states
from tests.proto.worlds import Pair, back, filler

LOSSY = Conditions(delay=0.005, loss=0.05)
CLEAN = Conditions(delay=0.005)


def storm(case: Scene, rotations: int, every: float, size: int) -> int:
    """So many rotations from both sides, and a move every so many seconds, during transfers each way.

    Returns:
        how often it moved.
    """
    pair = Pair(case.world, case.client, case.server, case.session, case.peer)
    inboxes = case.inbox, Inbox(case.client)
    sent: list[Any] = []
    ways = cycle([case.web, case.mobile, case.path()])
    moves = 0
    rotating = Storm(pair, rotations)
    while not rotating.over or moves < 6:
        if all(each.finished for each in sent):
            for node, session in ((pair.client, pair.session), (pair.server, pair.peer)):
                sent.append(send(node, session, filler(size, len(sent))))
        there = next(ways)
        case.migrate(there)
        moves += 1
        case.world.run_until(lambda: case.session.path == there and case.peer.path == back(there), 5.0)  # noqa: B023
        case.world.run(every)
        assert pair.now < 20.0 * rotations
    case.world.run_until(lambda: all(each.finished for each in sent) and states(pair) == (SETTLED, SETTLED), 120.0)
    assert pair.session.key_version == pair.peer.key_version >= rotations
    arrived = sorted(digest for inbox in inboxes for digest in inbox.digests)
    assert arrived == sorted(each.digest for each in sent)
    for node, peer_moves in ((pair.client, False), (pair.server, True)):
        versions = [event.key_version for event in node.events(KeysRotated)]
        assert versions == list(range(1, pair.session.key_version + 1))
        assert [event.by_peer for event in node.events(SessionMoved)] == [peer_moves] * moves
        assert not node.events(SessionDetached)
        assert not node.events(PathLost)
    return moves


def stage(seed: int = 1) -> Scene:
    """UDP loses 5 %, the WebSocket nothing."""
    case = scene(LOSSY, seed)
    for link in case.links(case.web):
        link.conditions = CLEAN
    return case


@pytest.mark.parametrize(
    ("rotations", "every", "size"), [(50, 0.2, 1_000_000), pytest.param(1000, 2.0, 5_000_000, marks=pytest.mark.long)]
)
def test_rotations_and_moves_at_once(rotations: int, every: float, size: int) -> None:
    """V-3, M-7, C8: under 5 % of loss, between UDP and a carrier that loses nothing: equal versions, equal hashes."""
    case = stage()
    moves = storm(case, rotations, every, size)
    assert moves >= 6
    for path in (case.path(), case.mobile):
        assert min(link.traffic.lost for link in case.links(path)) > 0
    for path in (case.path(), case.mobile, case.web):
        assert min(link.traffic.sent for link in case.links(path)) > 0
    case.session.close(case.world.now)
    case.client.pump()
    case.world.assert_idle(within=60.0)
