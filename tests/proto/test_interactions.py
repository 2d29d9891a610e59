"""Two nodes, two bad links and an application that does anything at any time: nothing breaks, nothing is left."""

from __future__ import annotations

import random
from typing import Any

import pytest

from stt_proto import Session
from stt_proto.errors import LocalError, RemoteError
from stt_proto.events import Event, SessionClosed, StreamWritable
from stt_proto.testing import Conditions, Link, Node, World
from tests.proto.worlds import Mover, assert_empty, filler

FAULTS_OF_THE_OTHER_SIDE = {0x0301, 0x0302, 0x0304, 0x0401, 0x0402, 0x0404, 0x0405, 0x0603}


class Careless(Mover):
    """An application that does not mind what is over already."""

    def _on_event(self, session: Session | None, event: Event) -> None:
        if isinstance(event, StreamWritable) and (session, event.stream_id) not in self._left:
            return
        try:
            super()._on_event(session, event)
        except (RemoteError, LocalError):
            pass


def configuration(rng: random.Random) -> dict[str, Any]:
    """A few parameters far from their defaults."""
    choices: dict[str, list[Any]] = {
        "stream_receive_window": [1024, 5000, 100_000],
        "session_receive_window": [1024, 5000, 100_000],
        "stream_send_buffer": [1024, 5000],
        "max_concurrent_streams": [1, 3, 10],
        "default_max_frame_size": [100, 65_536],
        "ack_delay": [0.0, 0.001, 0.2],
        "no_delay": [False],
        "suites": [(2, 1), (1,)],
    }
    return {name: rng.choice(values) for name, values in choices.items() if rng.random() < 0.3}


def conditions(rng: random.Random, carrier: str) -> Conditions:
    """A link: for a carrier that is reliable one that is slow at most."""
    if carrier == "memory":
        return Conditions(delay=rng.choice([0.0, 0.01, 0.1]))
    return Conditions(
        delay=rng.choice([0.0, 0.0005, 0.01, 0.1, 0.4]),
        jitter=rng.choice([0.0, 0.02]),
        rate=rng.choice([None, 2e5, 1e7]),
        queue=rng.choice([3000, 20_000, 1 << 20]),
        loss=rng.choice([0.0, 0.01, 0.1, 0.3]),
        duplicate=rng.choice([0.0, 0.1]),
        reorder=rng.choice([0.0, 0.1, 0.5]),
        reorder_delay=rng.choice([0.001, 0.05, 0.3]),
        corrupt=rng.choice([0.0, 0.05]),
        truncate=rng.choice([0.0, 0.05]),
    )


def act(rng: random.Random, mover: Mover, other: Node, carrier: str, links: tuple[Link, Link]) -> None:
    """Do one thing, whether it makes sense or not."""
    node, now = mover.node, mover.node.world.now
    session = rng.choice([*node.endpoint.sessions.values(), None])
    what = rng.random()
    if what < 0.03:
        link = rng.choice(links)
        link.up = not link.up
    elif what < 0.1:
        node.endpoint.path_writable(node.path_to(other, carrier), rng.random() < 0.6, now)
    elif what < 0.13:
        node.endpoint.tick(now + rng.uniform(0.0, 3.0))
    elif session is None:
        return
    elif what < 0.16:
        (session.close if rng.random() < 0.5 else session.abort)(now)
    elif what < 0.3:
        session.send_datagram(bytes(rng.randrange(session.max_datagram_size + 1)), now)
        session.receive_datagram()
    elif what < 0.4:
        stream = session.stream(rng.randrange(12))
        if stream is not None:
            (stream.reset if rng.random() < 0.5 else stream.stop)(5, now)
    else:
        stream = session.open_stream(bidirectional=rng.random() < 0.7, purpose=rng.choice(["", "x" * 200]))
        mover.send(stream, session, filler(rng.choice([0, 1, 1164, 5000, 80_000]), now))


@pytest.mark.parametrize("seed", range(16))
def test_anything_at_any_time(seed: int) -> None:
    """G-1 to G-3, 13: no exception, no rule broken by either side, and every table empty in the end."""
    rng = random.Random(seed)
    world, carrier = World(seed), rng.choice(["udp", "udp", "udp", "memory"])
    one, two = world.node("one", **configuration(rng)), world.node("two", **configuration(rng))
    links = world.link(one, two, conditions(rng, carrier), conditions(rng, carrier))
    movers = [Careless(one), Careless(two)]
    for mover in movers:
        mover.answer = lambda _, stream_id: filler(rng.choice([0, 10, 3000, 60_000]), stream_id)
    dials = [one.connect(two, carrier), *([two.connect(one, carrier)] if rng.random() < 0.3 else [])]

    end = rng.uniform(1.0, 30.0)
    while world.now < end:
        world.run(rng.choice([0.0, 0.001, 0.01, 0.1, 1.0]))
        mover = rng.choice(movers)
        try:
            act(rng, mover, two if mover.node is one else one, carrier, links)
        except (RemoteError, LocalError):
            pass
        mover.node.pump()

    for link in links:
        link.up, link.conditions = True, Conditions()
    for node, other in ((one, two), (two, one)):
        node.endpoint.path_writable(node.path_to(other, carrier), True, world.now)
        node.pump()
    world.run(30.0)
    for session in [*one.endpoint.sessions.values(), *two.endpoint.sessions.values()]:
        session.close(world.now)
    one.pump()
    two.pump()
    world.run(60.0)
    assert all(session.is_closed for session in dials)
    assert_empty(one, two)
    codes = {event.code for node in (one, two) for event in node.events(SessionClosed)}
    assert not codes & FAULTS_OF_THE_OTHER_SIDE
