"""Frames of the application's own (docs/protocol.md, X-2, F-6, F-7)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from stt_proto import Config, Session
from stt_proto.config import Limits
from stt_proto.errors import ArgumentError, BufferOverflowError, ResourcesExhaustedError, SessionClosedError, StateError
from stt_proto.events import Event, ExtensionFrameReceived, SessionClosed
from stt_proto.session.engines import local_parameters
from stt_proto.session.extensions import ExtensionFrames
from stt_proto.testing import Conditions, World
from stt_proto.wire import Extension
from tests.proto.worlds import Pair, dialled, sealed, session_pair

KINDS: dict[str, Any] = {"extension_frames": [0x80, 0x81, 0xFF]}


def pair_of(conditions: Conditions | None = None, client: Any = KINDS, server: Any = KINDS) -> Pair:
    return session_pair(conditions=conditions, client=dict(client), server=dict(server))


def taken(session: Session) -> list[tuple[int, bytes]]:
    """Every frame that waits."""
    return list(iter(session.receive_frame, None))


# -- what is understood --------------------------------------------------------------------------------------------


def test_frames_there_and_back() -> None:
    """D8, F-6: any of the types announced, of any size up to the limit, in both directions."""
    pair = pair_of()
    sent = [(0x80, b""), (0x81, b"x"), (0xFF, bytes(range(256)) * 4)]
    for kind, data in sent:
        pair.session.send_frame(kind, data, pair.now)
        pair.peer.send_frame(kind, bytearray(data), pair.now, reliable=False)
    pair.settle()
    assert taken(pair.peer) == sent
    assert taken(pair.session) == sent
    assert pair.session.receive_frame() is None
    assert "frames" in pair.session.capabilities


def test_only_what_the_peer_has_announced_is_sent() -> None:
    """X-2: each side has a list of its own."""
    pair = pair_of(client={"extension_frames": [0x80]}, server={"extension_frames": [0x90]})
    pair.session.send_frame(0x90, b"a", pair.now)
    pair.peer.send_frame(0x80, b"b", pair.now)
    pair.settle()
    assert (taken(pair.peer), taken(pair.session)) == ([(0x90, b"a")], [(0x80, b"b")])
    for kind in (0x80, 0x24, 0x01, 0x7F, 0x190, -1, "0x90", 144.0):
        with pytest.raises(ArgumentError) as caught:
            pair.session.send_frame(kind, b"", pair.now)  # type: ignore[arg-type]
        assert caught.value.argument == "kind"
    none = session_pair()
    assert "frames" not in none.session.capabilities
    with pytest.raises(ArgumentError, match=r"announced \[\]"):
        none.session.send_frame(0x80, b"", none.now)


def test_a_type_that_was_not_announced_closes_the_session() -> None:
    """X-2, F-1: with 0x0404."""
    pair = pair_of(server={"extension_frames": [0x80]})
    pair.inject(Extension(0x80, 0, b"known"))
    assert taken(pair.peer) == [(0x80, b"known")]
    pair.inject(Extension(0x81, 0, b"unknown"))
    assert pair.peer.is_closed
    (closed,) = pair.server.events(SessionClosed)
    assert closed.code == 0x0404


@pytest.mark.parametrize("data", ["text", 5, None])
def test_only_bytes_are_sent(data: Any) -> None:
    pair = pair_of()
    with pytest.raises(ArgumentError) as caught:
        pair.session.send_frame(0x80, data, pair.now)
    assert caught.value.argument == "data"


def test_a_frame_has_a_largest_size() -> None:
    """F-7."""
    pair = pair_of()
    pair.session.send_frame(0x80, bytes(1024), pair.now)
    with pytest.raises(ArgumentError) as caught:
        pair.session.send_frame(0x80, bytes(1025), pair.now)
    assert caught.value.argument == "data"


def test_before_the_keys_and_after_the_end() -> None:
    """DESIGN section 3, errors."""
    _, session = dialled(extension_frames=[0x80])
    with pytest.raises(StateError):
        session.send_frame(0x80, b"", 0.0)
    assert session.receive_frame() is None
    pair = pair_of()
    pair.inject(Extension(0x80, 0, b"last words"))
    pair.peer.abort(pair.now)
    with pytest.raises(SessionClosedError):
        pair.peer.send_frame(0x80, b"", pair.now)
    assert taken(pair.peer) == [(0x80, b"last words")], "what had arrived can still be taken"


# -- events --------------------------------------------------------------------------------------------------------


def test_one_event_until_they_are_taken() -> None:
    """DESIGN section 3, "Events": an edge, not traffic."""
    pair = pair_of()
    for number in range(5):
        pair.session.send_frame(0x80, bytes((number,)), pair.now)
    pair.settle()
    assert len(pair.server.events(ExtensionFrameReceived)) == 1
    assert len(taken(pair.peer)) == 5
    pair.session.send_frame(0x80, b"again", pair.now)
    pair.settle()
    assert len(pair.server.events(ExtensionFrameReceived)) == 2
    taken(pair.peer)
    pair.inject(Extension(0x80, 6, b"again"))
    assert len(pair.server.events(ExtensionFrameReceived)) == 2, "a repetition is nothing new"


def test_repetitions_are_counted() -> None:
    """F-5: up to 64 in a packet as one."""
    pair = pair_of()
    pair.session.send_frame(0x80, b"once", pair.now)
    pair.settle()
    packets = 0
    while pair.peer.is_active() and packets < 2000:
        packets += 1
        for datagram in sealed(pair.session, *[Extension(0x80, 1, b"again")] * 64):
            pair.server.endpoint.receive(datagram, pair.peer.path, pair.now)
    assert 500 <= packets <= 1001
    assert isinstance(pair.peer.close_error, ResourcesExhaustedError)
    assert taken(pair.peer) == [(0x80, b"once")]


# -- what arrives --------------------------------------------------------------------------------------------------


def collect(pair: Pair) -> list[bytes]:
    """What the server's application takes, as it comes."""
    got: list[bytes] = []

    def on_event(session: Session | None, event: Event) -> None:
        if isinstance(event, ExtensionFrameReceived) and session is not None:
            got.extend(data for _, data in taken(session))

    pair.server.on_event = on_event
    return got


def test_reliable_frames_arrive_once() -> None:
    """F-6: on a network that loses a third and repeats a tenth; in whatever order."""
    pair = pair_of(Conditions(delay=0.01, loss=0.3, duplicate=0.1, reorder=0.1))
    got = collect(pair)
    sent = [number.to_bytes(2) * 100 for number in range(200)]
    for data in sent:
        pair.session.send_frame(0x80, data, pair.now)
        pair.client.pump()
        pair.world.run(0.01)
    pair.world.run_until(lambda: set(got) == set(sent), timeout=120.0)
    pair.world.settle()
    assert sorted(got) == sent
    assert got != sent, "there is no order"
    assert pair.session._engines is not None
    assert pair.session._engines.control.frames.reliable == {}


def test_unreliable_frames_arrive_at_most_once() -> None:
    """F-6: what is lost is not repeated, and makes room all the same."""
    pair = pair_of(Conditions(delay=0.01, loss=0.3))
    got = collect(pair)
    sent = [number.to_bytes(2) for number in range(2000)]
    for data in sent:
        pair.session.send_frame(0x80, data, pair.now, reliable=False)
        pair.client.pump()
        pair.world.run(0.005)
    pair.world.settle()
    assert len(got) == len(set(got))
    assert 1000 < len(got) < 1800
    assert pair.session._engines is not None
    assert pair.session._engines.control.frames._outgoing == {}


def test_a_close_waits_for_reliable_frames() -> None:
    """K-1, F-6."""
    pair = pair_of(Conditions(delay=0.02))
    got = collect(pair)
    for link in pair.world.links.values():
        link.up = False
    pair.session.send_frame(0x80, b"before the end", pair.now)
    pair.session.close(pair.now)
    pair.client.pump()
    pair.world.run(0.05)
    for link in pair.world.links.values():
        link.up = True
    pair.world.run_until(lambda: pair.session.is_closed and pair.peer.is_closed)
    assert got == [b"before the end"]


def test_they_go_before_the_data_of_streams() -> None:
    """F-6, S-14: a frame waits for no stream."""
    pair = pair_of()
    pair.session.open_stream().write(bytes(500_000), pair.now)
    pair.session.send_frame(0x80, b"first", pair.now)
    pair.client.pump()
    pair.world.run_until(lambda: pair.server.events(ExtensionFrameReceived))
    assert pair.peer.stats().stream_bytes_received == 0
    assert taken(pair.peer) == [(0x80, b"first")]


# -- bounds --------------------------------------------------------------------------------------------------------


def frames_of(**limits: int) -> ExtensionFrames:
    return ExtensionFrames(Limits(**limits), frozenset({0x80}))


def test_what_is_on_its_way_is_bounded_in_count() -> None:
    """F-7: the one too many is refused, and there is room again when the fate of one is known."""
    frames = frames_of(extension_frames=3)
    numbers = [frames.add(0x80, b"x", reliable) for reliable in (True, False, True)]
    with pytest.raises(BufferOverflowError):
        frames.add(0x80, b"x", True)
    for number in numbers[:2]:
        frames.release(number)
        frames.release(number)
    assert frames.encode(numbers[0]) is None
    assert frames.encode(numbers[2]) == b"\x80\x02\x01x"
    assert frames.reliable == {numbers[2]: 2}
    assert frames.add(0x80, b"x", True) not in numbers


def test_what_is_on_its_way_is_bounded_in_bytes() -> None:
    """F-7."""
    frames = frames_of(extension_bytes=2048)
    frames.add(0x80, bytes(1000), True)
    frames.add(0x80, bytes(1000), True)
    with pytest.raises(BufferOverflowError):
        frames.add(0x80, bytes(100), True)
    frames.add(0x80, bytes(30), True)


def test_numbers_stay_close_together() -> None:
    """F-6: a sender waits for the one that is missing; a receiver closes the session of one that does not.

    [Every other number, for ever: an interval each to be remembered.]
    """
    frames = frames_of(extension_frames=65_536, extension_bytes=256 << 20)
    first = frames.add(0x80, b"x", True)
    others = [frames.add(0x80, b"x", True) for _ in range(4095)]
    assert frames.reliable[others[-1]] == 4096
    for number in others:
        frames.release(number)
    with pytest.raises(BufferOverflowError):
        frames.add(0x80, b"x", True)
    unreliable = frames.add(0x80, b"x", False)
    assert frames.encode(unreliable) == b"\x80\x00\x01x"
    frames.release(first)
    assert frames.reliable[frames.add(0x80, b"x", True)] == 4097

    frames = frames_of()
    for number in range(2, 4097, 2):
        frames.on_frame(Extension(0x80, number, b"x"))
    with pytest.raises(ResourcesExhaustedError):
        frames.on_frame(Extension(0x80, 4097, b"x"))
    frames.on_frame(Extension(0x80, 1, b"x"))
    frames.on_frame(Extension(0x80, 4098, b"x"))
    with pytest.raises(ResourcesExhaustedError):
        frames.on_frame(Extension(0x80, 4099, b"x"))


def test_a_repetition_is_ignored() -> None:
    """F-6: whatever came in between, and however often."""
    frames = frames_of()
    for number in (3, 1, 3, 2, 1, 2, 3, 4, 4):
        frames.on_frame(Extension(0x80, number, bytes((number,))))
    assert [data[0] for _, data in iter(frames.take, None)] == [3, 1, 2, 4]
    frames.on_frame(Extension(0x80, 4, b"again"))
    assert not frames.has_arrived


def test_what_nobody_takes_is_bounded_in_count_and_bytes() -> None:
    """F-7: the oldest goes, and is counted. [A peer that sends frames to an application that does not look.]"""
    frames = frames_of(extension_frames=3)
    for number in range(5):
        frames.on_frame(Extension(0x80, 0, bytes((number,))))
    assert frames.dropped == 2
    assert list(iter(frames.take, None)) == [(0x80, bytes((number,))) for number in (2, 3, 4)]
    frames = frames_of(extension_bytes=2048)
    for number in range(3):
        frames.on_frame(Extension(0x80, 0, bytes((number,)) * 1000))
    assert frames.dropped == 1
    assert [data[0] for _, data in iter(frames.take, None)] == [1, 2]
    frames.on_frame(Extension(0x80, 0, bytes(1024)))
    frames.on_frame(Extension(0x80, 0, bytes(1024)))
    assert frames.dropped == 1


def test_the_limits_hold_from_end_to_end() -> None:
    """F-7, and what was dropped is among the statistics."""
    limits = {"limits": Limits(extension_frames=4)}
    pair = pair_of(client=KINDS | {"limits": Limits()}, server=KINDS | limits)
    for number in range(10):
        pair.session.send_frame(0x80, bytes((number,)), pair.now)
    pair.settle()
    assert pair.peer.stats().receive_errors == 6
    assert [data[0] for _, data in taken(pair.peer)] == [6, 7, 8, 9]
    for _ in range(4):
        pair.peer.send_frame(0x80, b"", pair.now)
    with pytest.raises(BufferOverflowError):
        pair.peer.send_frame(0x80, b"", pair.now)
    pair.settle()
    pair.peer.send_frame(0x80, b"", pair.now)


def test_a_flood_of_empty_frames_closes_the_session() -> None:
    """F-5: a packet of 32,000 of them costs a fiftieth of a second. [Floods not yet invented.]"""
    pair = pair_of()
    flood = [Extension(0x80, 0, b"").encode() * 500 for _ in range(60)]
    for _ in range(100):
        for frames in flood:
            pair.inject(frames)
            if pair.peer.is_closed:
                break
        if pair.peer.is_closed:
            break
    assert pair.peer.is_closed
    (closed,) = pair.server.events(SessionClosed)
    assert closed.code == 0x0603


@pytest.fixture
def world() -> Iterator[World]:
    with World(1) as world:
        yield world


def test_the_parameter_lists_what_is_understood(world: World) -> None:
    """X-2: the application's types beside this version's own."""
    config: Config = world.node("node", extension_frames=[0x80, 0xFF]).config
    announced = local_parameters(config).extension_frames
    assert announced >= {0x80, 0xFF, 0x24, 0x25}
    assert {kind for kind in announced if kind >= 0x80} == {0x80, 0xFF}
