"""One session that is slow or hostile is nothing to the others of its node (H4; S8 of the manager's properties).

Each session has a link of its own. All runs are one world up to a moment; then one of its clients misbehaves, or it
does not. What every other session does ends at the same virtual time, within the granularity of the timers.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from attrs import define

from stt_proto import Session
from stt_proto.recovery.rtt import GRANULARITY
from stt_proto.testing import Conditions, Inbox, Node, World, send, serve_echo
from stt_proto.wire import Ack, MaxData, Padding, Ping
from tests.proto.worlds import sealed

OTHERS = 6
SIZE = 150_000


@define
class Scene:
    """A server that echoes, clients at work, and one that is about to misbehave."""

    world: World
    server: Node
    villain: Node
    session: Session
    victim: Session
    inboxes: list[Inbox]

    def hurl(self, *frames: object, datagrams: int = 1) -> None:
        """Packets under the villain's own keys."""
        for _ in range(datagrams):
            for datagram in sealed(self.session, *frames):  # type: ignore[arg-type]
                self.server.endpoint.receive(datagram, self.victim.path, self.world.now)
        self.server.pump()

    def keep_at_it(self, deed: Callable[[], None], every: float = 0.001) -> None:
        """Misbehave again and again, as long as there is somebody to do it to."""

        def again() -> None:
            if not self.victim.is_closed:
                deed()
                self.world.at(self.world.now + every, again)

        again()


def scene() -> Scene:
    world = World(1)
    server = world.node("server")
    villain = world.node("villain")
    others = [world.node(f"n{number}") for number in range(OTHERS)]
    for number, node in enumerate([villain, *others]):
        world.link(node, server, Conditions(delay=0.005 + number * 0.003, rate=10e6 + number * 1e6))
    sessions = []
    for node in [villain, *others]:
        sessions.append(node.connect(server))
        world.run(0.1)
    world.run(2.0)
    (victim,) = [each for each in server.sessions if each.session_id == sessions[0].session_id]
    serve_echo(server)
    inboxes = [Inbox(node) for node in others]
    for node, session in zip(others, sessions[1:], strict=True):
        for number in range(3):
            send(node, session, bytes([number]) * SIZE)
    return Scene(world, server, villain, sessions[0], victim, inboxes)


# -- what one of them does ---------------------------------------------------------------------------------------------


def is_good(scene: Scene) -> None:
    """Nothing."""


def reads_nothing(scene: Scene) -> None:
    """It asks for megabytes back, and reads none of them."""
    for _ in range(20):
        send(scene.villain, scene.session, bytes(1 << 20))


def floods_with_tiny_frames(scene: Scene) -> None:
    """Twenty packets a millisecond, of frames of a byte or two that mean nothing: that ends it."""
    frames = [Ping(), Padding(1), MaxData(1), Ping()] * 50
    scene.keep_at_it(lambda: scene.hurl(*frames, datagrams=20))


def floods_with_tiny_pieces(scene: Scene) -> None:
    """Two thousand packets a second with a byte of a stream in each, all of which is echoed: that is allowed."""
    stream = scene.session.open_stream()
    Inbox(scene.villain)

    def deed() -> None:
        for _ in range(2):
            stream.write(b"x", scene.world.now)
            scene.villain.pump()

    scene.keep_at_it(deed)


def never_acknowledges(scene: Scene) -> None:
    """It is sent megabytes, says that it lives, and acknowledges nothing."""

    def deaf(datagram: bytes, path: object) -> bytes | None:
        return None if getattr(path, "remote", None) == scene.villain.address else datagram

    scene.world.taps.append(deaf)
    for _ in range(10):
        send(scene.server, scene.victim, bytes(1 << 20))
    scene.keep_at_it(lambda: scene.hurl(Ping()), every=0.01)


def acknowledges_what_was_never_sent(scene: Scene) -> None:
    scene.hurl(Ack(1 << 30, 0, 0, ((1 << 30, 1 << 30),)))


def sends_nonsense(scene: Scene) -> None:
    """Under valid keys: that ends its session, and no other."""
    scene.hurl(b"\x3f\xff\xff\xff\x00")


def sends_nonsense_for_ever(scene: Scene) -> None:
    """And goes on, though nobody listens any more."""

    def again() -> None:
        for datagram in sealed(scene.session, b"\x3f\xff\xff\xff\x00"):
            scene.server.endpoint.receive(datagram, scene.victim.path, scene.world.now)
            scene.server.endpoint.receive(bytes(reversed(datagram)), scene.victim.path, scene.world.now)
        scene.server.pump()
        if scene.world.now < 5.0:
            scene.world.at(scene.world.now + 0.001, again)

    again()


def vanishes(scene: Scene) -> None:
    """In the middle of what it is sent."""
    for _ in range(10):
        send(scene.server, scene.victim, bytes(1 << 20))
    scene.world.outage(scene.server, scene.villain, scene.world.now)


def opens_all_streams_and_resets_them(scene: Scene) -> None:
    def deed() -> None:
        streams = []
        try:
            while True:
                streams.append(scene.session.open_stream())
        except Exception:
            for stream in streams:
                stream.write(b"x", scene.world.now)
                stream.reset(1, scene.world.now)
        scene.villain.pump()

    scene.keep_at_it(deed, every=0.01)


def times(deed: Callable[[Scene], None]) -> tuple[list[list[float]], Scene]:
    """When each stream of each of the others was through, in virtual time."""
    one = scene()
    began = one.world.now
    deed(one)
    done: list[list[float]] = [[] for _ in one.inboxes]
    while any(len(each) < 3 for each in done):
        one.world.step()
        for inbox, each in zip(one.inboxes, done, strict=True):
            each += [one.world.now - began] * (len(inbox.complete) - len(each))
        assert one.world.now < began + 60.0
    one.world.run(1.0)
    for inbox in one.inboxes:
        assert {incoming.size for incoming in inbox.complete} == {SIZE}
    return done, one


@pytest.fixture(scope="module")
def undisturbed() -> list[list[float]]:
    return times(is_good)[0]


@pytest.mark.parametrize(
    ("deed", "ends"),
    [
        (reads_nothing, False),
        (floods_with_tiny_frames, True),
        (floods_with_tiny_pieces, False),
        (never_acknowledges, False),
        (acknowledges_what_was_never_sent, True),
        (sends_nonsense, True),
        (sends_nonsense_for_ever, True),
        (vanishes, False),
        (opens_all_streams_and_resets_them, False),
    ],
)
def test_the_others_do_not_notice(deed: Callable[[Scene], None], ends: bool, undisturbed: list[list[float]]) -> None:
    done, after = times(deed)
    for mine, alone in zip(done, undisturbed, strict=True):
        assert mine == pytest.approx(alone, abs=GRANULARITY, rel=0)
    assert (after.victim.close_error is not None) is ends, after.victim.close_error
    assert len(after.server.sessions) == OTHERS + (not ends)


def test_the_measure_is_none_by_chance(undisturbed: list[list[float]]) -> None:
    """A link that is a little slower is seen: so would be a session that another holds up."""

    def slower(one: Scene) -> None:
        link = one.world.link_between(one.server.address, ("n0", 1))
        link.outage(one.world.now + 0.1, 0.02)

    done, _ = times(slower)
    assert done[0] != pytest.approx(undisturbed[0], abs=GRANULARITY, rel=0)
    assert done[1:] == [pytest.approx(each, abs=GRANULARITY, rel=0) for each in undisturbed[1:]]
