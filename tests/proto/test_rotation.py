"""Key rotation: both sides move, nothing is lost, and what was known of the old keys is worth nothing."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from stt_proto import NetworkPath, Session, SessionState, Trace
from stt_proto.errors import ArgumentError, EncryptionError, ResourcesExhaustedError, SessionClosedError, StateError
from stt_proto.events import KeysRotated, SessionClosed
from stt_proto.packet import PacketKeys, PacketReceiver, TrainBudget
from stt_proto.session import engines as engines_module
from stt_proto.session.rotation import (
    FIRST_ROTATION,
    FIRST_SPAN,
    TRANSITIONS,
    KeyRotation,
    RotationInput,
    RotationState,
)
from stt_proto.testing import Conditions, Inbox, Node, World, send
from stt_proto.wire import FrameType, Ping, Rotate, decode_frames_untrusted
from tests.proto.insider import Insider
from tests.proto.worlds import Pair, assert_empty, filler, sealed, serve_echo, session_pair

SETTLED, OFFERED, HEARD, AGREED, MOVED, OVERLAP = RotationState
BAD = Conditions(
    delay=0.01, jitter=0.01, loss=0.05, duplicate=0.05, reorder=0.1, reorder_delay=0.03, corrupt=0.03, truncate=0.01
)
KEY = bytes(range(1, 33))
"""An X25519 public key whose private key nobody has."""


def rotation_of(session: Session) -> KeyRotation:
    assert session._engines is not None
    return session._engines.rotation


def states(pair: Pair) -> tuple[RotationState, RotationState]:
    return rotation_of(pair.session).state, rotation_of(pair.peer).state


def rotate(pair: Pair, *sessions: Session) -> None:
    """Ask these (the initiator, if not told) for new keys, and wait until everything is settled."""
    version = pair.session.key_version + 1
    for session in sessions or (pair.session,):
        assert session.rotate_key(pair.now) == version
    pair.pump()
    pair.world.run_until(lambda: states(pair) == (SETTLED, SETTLED) and pair.session.key_version >= version)
    assert pair.session.key_version == pair.peer.key_version == version


def echo(pair: Pair, size: int = 100_000) -> None:
    """Something goes there and comes back."""
    stream, data, got = pair.session.open_stream(), filler(size, pair.now), b""
    left = memoryview(data)
    while len(got) < size:
        left = left[stream.write(left, pair.now) :]
        pair.settle(0.1)
        while part := stream.read(65_536, pair.now):
            got += part
    assert got == data
    stream.finish(pair.now)
    pair.settle(0.1)


def steps_until(pair: Pair, condition: Any) -> None:
    """Run the world in its smallest steps: so that nothing happens between what is looked for and the return."""
    for _ in range(100_000):
        if condition():
            return
        assert pair.world.step()
    raise AssertionError("it does not happen")


# -- the ordinary course -------------------------------------------------------------------------------------------


def test_the_table_is_the_specification() -> None:
    """V-3: every state and input that stands there, and no other."""
    expected = {
        ("settled", "offer"): "offered",
        ("settled", "take"): "agreed",
        ("offered", "take"): "agreed",
        ("offered", "acked"): "heard",
        ("heard", "take"): "moved",
        ("agreed", "acked"): "moved",
        ("agreed", "opened"): "overlap",
        ("moved", "opened"): "overlap",
        ("overlap", "over"): "settled",
    }
    assert {(old.value, what.value): new.value for (old, what), new in TRANSITIONS.items()} == expected
    assert {state for pair in TRANSITIONS.items() for state in (pair[0][0], pair[1])} == set(RotationState)
    assert {what for _, what in TRANSITIONS} == set(RotationInput)


@pytest.mark.parametrize("who", ["initiator", "responder"])
@pytest.mark.parametrize("options", [{}, {"carrier": "memory"}, {"client": {"suites": (2,)}}])
def test_both_sides_move(options: dict[str, Any], who: str) -> None:
    """V-3, V-8: the version is one more on both sides; what is exported and the session's name stay."""
    pair = session_pair(**options)
    serve_echo(pair.server)
    before = pair.session.export_keying_material("a key", 32)
    created = pair.session.created_at
    for version in range(1, 7):  # round the epochs, and on
        echo(pair)
        rotate(pair, pair.session if who == "initiator" else pair.peer)
        assert pair.client.events(KeysRotated)[-1] == pair.server.events(KeysRotated)[-1] == KeysRotated(version)
        assert created < pair.session.last_key_rotation <= created + pair.now
        created = pair.session.last_key_rotation
    echo(pair)
    assert pair.session.export_keying_material("a key", 32) == before == pair.peer.export_keying_material("a key", 32)
    assert pair.session.stats().receive_errors == pair.peer.stats().receive_errors == 0
    assert pair.session.stats().packets_lost == pair.peer.stats().packets_lost == 0
    pair.session.close(pair.now)
    pair.settle(5.0)
    assert_empty(pair.client, pair.server)


def test_nothing_but_the_rotation_has_to_be_said() -> None:
    """V-4: between two who have nothing to say both are done within three round trips."""
    pair = session_pair(conditions=Conditions(delay=0.05))
    pair.session.rotate_key(pair.now)
    began = pair.now
    pair.pump()
    pair.world.run_until(lambda: pair.session.key_version == 1)
    assert pair.now - began <= 0.3 + 0.06
    assert pair.peer.key_version == 1


def test_rotations_that_cross() -> None:
    """V-3: two proposals answer each other, and the version rises by one."""
    pair = session_pair()
    serve_echo(pair.server)
    for _ in range(3):
        pair.session.rotate_key(pair.now)
        pair.peer.rotate_key(pair.now)
        assert states(pair) == (OFFERED, OFFERED)
        rotate(pair, pair.session, pair.peer)
        echo(pair)
    assert pair.client.events(KeysRotated) == pair.server.events(KeysRotated) == [KeysRotated(n) for n in (1, 2, 3)]


def test_who_asks_again_joins_in() -> None:
    """V-3, V-6: while one is under way it is the same one; in its last phase it is the next, which waits its turn."""
    pair = session_pair()
    assert [pair.session.rotate_key(pair.now) for _ in range(3)] == [1, 1, 1]
    pair.pump()
    steps_until(pair, lambda: rotation_of(pair.peer).state is AGREED)
    assert pair.peer.rotate_key(pair.now) == 1
    steps_until(pair, lambda: rotation_of(pair.session).state is OVERLAP)
    assert pair.session.key_version == 1
    assert [pair.session.rotate_key(pair.now) for _ in range(3)] == [2, 2, 2]
    assert rotation_of(pair.session).state is OVERLAP
    pair.world.run(5.0)
    assert (pair.session.key_version, pair.peer.key_version) == (2, 2)
    assert states(pair) == (SETTLED, SETTLED)


def test_before_there_is_a_session_and_after() -> None:
    """V-1: keys are replaced in a session that is established."""
    world = World(1)
    client, server = world.node("client"), world.node("server")
    session = client.connect(server)
    with pytest.raises(StateError):
        session.rotate_key(world.now)
    world.run_until(session.is_active)
    with pytest.raises(ArgumentError):
        session.rotate_key(None)  # type: ignore[arg-type]
    session.close(world.now)
    with pytest.raises(SessionClosedError):
        session.rotate_key(world.now)
    client.pump()
    world.assert_idle()
    with pytest.raises(SessionClosedError):
        session.rotate_key(world.now)


def test_a_peer_that_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    """X-2, V-1: to a peer that has not announced it no ROTATE is sent, by command or by itself."""
    monkeypatch.setattr(engines_module, "EXTENSION_FRAMES", engines_module.EXTENSION_FRAMES - {FrameType.ROTATE})
    pair = session_pair(client={"rotate_after_packets": 256, "rotate_after_seconds": 2.0})
    assert "rotation" not in pair.session.capabilities
    with pytest.raises(StateError):
        pair.session.rotate_key(pair.now)
    for _ in range(300):
        pair.session.send_datagram(b"one", pair.now)
        pair.pump()
    pair.settle(5.0)
    assert pair.session.key_version == 0
    assert pair.session.is_active()
    pair.inject(Rotate(1, KEY))
    assert pair.peer.close_error is not None
    assert pair.peer.close_error.code == 0x0401


# -- bad networks --------------------------------------------------------------------------------------------------


class Storm:
    """Rotates the keys of a session from both sides, as fast as it goes, until there were so many."""

    def __init__(self, pair: Pair, count: int) -> None:
        self.pair, self.count = pair, count
        for node, session in ((pair.client, pair.session), (pair.server, pair.peer)):
            node.listeners.append(lambda about, event, mine=session, at=node: self._on_event(at, mine, event))
            session.rotate_key(pair.now)
        pair.pump()

    def _on_event(self, node: Node, session: Session, event: object) -> None:
        if isinstance(event, KeysRotated) and event.key_version < self.count:
            session.rotate_key(node.now)

    @property
    def over(self) -> bool:
        return states(self.pair) == (SETTLED, SETTLED) and self.pair.session.key_version >= self.count


def storm(conditions: Conditions, count: int, size: int, seed: int = 1, **options: Any) -> Pair:
    """So many rotations from both sides during a transfer each way; everything arrives."""
    pair = session_pair(seed, conditions, **options)
    inboxes = Inbox(pair.client), Inbox(pair.server)
    sent: list[Any] = []

    def more() -> None:
        for node, session in ((pair.client, pair.session), (pair.server, pair.peer)):
            sent.append(send(node, session, filler(size, len(sent))))

    rotations = Storm(pair, count)
    while not rotations.over:
        if all(each.finished for each in sent):
            more()
        pair.world.run(1.0)
        assert pair.session.is_active(), pair.session.close_error
        assert pair.now < 20.0 * count
    pair.world.run_until(lambda: all(each.finished for each in sent), 120.0)
    assert pair.session.key_version == pair.peer.key_version >= count
    arrived = sorted(digest for inbox in inboxes for digest in inbox.digests)
    assert arrived == sorted(each.digest for each in sent)
    for node in (pair.client, pair.server):
        versions = [event.key_version for event in node.events(KeysRotated)]
        assert versions == list(range(1, pair.session.key_version + 1))
    pair.world.run(5.0)
    for session in (pair.session, pair.peer):  # nothing is left to be repeated
        assert session._engines is not None
        assert not [key for key in session._engines.control._awaited if key[0] == "rotate"]
    pair.session.close(pair.now)
    pair.world.assert_idle(within=60.0)
    return pair


def test_a_storm_of_rotations() -> None:
    """V-3: 50 rotations from both sides during transfers under 5 % loss: equal versions, equal hashes."""
    storm(Conditions(delay=0.005, loss=0.05), 50, 200_000)


@pytest.mark.long
def test_a_long_storm_of_rotations() -> None:
    """V-3: 1,000 of them."""
    storm(Conditions(delay=0.005, loss=0.05), 1000, 500_000)


@pytest.mark.parametrize("seed", range(8))
def test_rotations_on_a_bad_network(seed: int) -> None:
    """V-3 to V-5: loss, reordering, duplicates, damage."""
    storm(BAD, 12, 50_000, seed)


def test_rotations_over_a_reliable_carrier() -> None:
    """V-3: in whole packets of 64 KiB."""
    storm(Conditions(delay=0.002), 20, 2_000_000, carrier="memory")


@pytest.mark.parametrize("count", range(1, 12))
def test_each_packet_of_a_rotation_may_be_lost(count: int) -> None:
    """V-1, V-3: of what is sent from the beginning on, each datagram alone is lost, in either direction."""
    for lost_of in ("client", "server"):
        pair, sent = session_pair(), [0]

        def tap(datagram: bytes, path: NetworkPath, lost_of: str = lost_of, sent: list[int] = sent) -> bytes | None:
            sent[0] += path.local == (lost_of, 1)
            return None if path.local == (lost_of, 1) and sent[0] == count else datagram

        pair.world.taps.append(tap)
        rotate(pair)
        rotate(pair, pair.peer)


def test_a_rotation_waits_for_the_network() -> None:
    """V-3: without a network nothing is decided; when it is back, the rotation goes on."""
    pair = session_pair()
    pair.world.outage(pair.client, pair.server, pair.now, 15.0)
    pair.session.rotate_key(pair.now)
    pair.settle(14.0)
    assert states(pair) == (OFFERED, SETTLED)
    assert pair.session.key_version == 0
    pair.world.run(15.0)
    assert (pair.session.key_version, pair.peer.key_version) == (1, 1)
    assert states(pair) == (SETTLED, SETTLED)


def test_the_acknowledgement_may_come_first() -> None:
    """V-4: our ROTATE has arrived, the peer's has not: nothing is sealed under keys that cannot be known here."""
    pair = session_pair()
    rotation_of(pair.peer).state = OVERLAP  # so it acknowledges at once and answers later
    rotation_of(pair.peer).deadline = pair.now + 0.5
    pair.session.rotate_key(pair.now)
    pair.settle(0.3)
    assert states(pair) == (HEARD, OVERLAP)
    engines = pair.session._engines
    assert engines is not None
    assert engines.sealer.keys.version == 0
    pair.settle(2.0)
    assert (pair.session.key_version, pair.peer.key_version) == (1, 1)


# -- old keys ------------------------------------------------------------------------------------------------------


def recorded(pair: Pair, source: Node) -> list[bytes]:
    """The datagrams that a node sends from now on."""
    taken: list[bytes] = []

    def tap(datagram: bytes, path: NetworkPath) -> bytes:
        if path.local == source.address:
            taken.append(datagram)
        return datagram

    pair.world.taps.append(tap)
    return taken


def test_packets_of_a_version_that_is_gone() -> None:
    """V-5: neither what was opened before nor what never arrived opens once the keys are gone."""
    pair = session_pair()
    engines = pair.peer._engines
    assert engines is not None
    taken = recorded(pair, pair.client)
    pair.session.send_datagram(b"arrives", pair.now)
    pair.settle()
    (never,) = sealed(pair.session, Ping())
    rotate(pair)
    counters, before = engines.receiver.counters, pair.peer.stats().packets_received
    for datagram in (*taken[:1], never):
        errors = counters.unknown_epoch + counters.replayed
        pair.server.endpoint.receive(datagram, pair.peer.path, pair.now)
        assert counters.unknown_epoch + counters.replayed == errors + 1
    assert counters.unknown_epoch >= 1
    assert pair.peer.stats().packets_received == before


def test_an_old_packet_of_the_same_epoch() -> None:
    """V-5: four versions later the epoch bits are the same again, and the keys are others."""
    pair = session_pair()
    engines = pair.peer._engines
    assert engines is not None
    (never,) = sealed(pair.session, Ping())
    for _ in range(4):
        rotate(pair)
    pair.server.endpoint.receive(never, pair.peer.path, pair.now)
    assert engines.receiver.counters.forged == 1


def test_late_packets_of_the_version_before() -> None:
    """V-5: what was sealed before the next version began opens for as long as its keys are there; what says that it
    was sealed later does not."""
    pair = session_pair(conditions=Conditions(delay=0.05))
    mine, theirs = pair.session._engines, pair.peer._engines
    assert mine is not None
    assert theirs is not None
    (early,) = sealed(pair.session, Ping())
    old = mine.sealer
    pair.session.rotate_key(pair.now)
    pair.pump()
    steps_until(pair, lambda: rotation_of(pair.peer).state is OVERLAP)
    lowest = theirs.receiver._openers[0].end  # type: ignore[attr-defined]
    buffers, _, _ = old.seal(mine.numbers.next(), mine.remote_ids.current, [Ping().encode()], 1200)
    late = b"".join(buffers)
    forged, received = theirs.receiver.counters.forged, pair.peer.stats().packets_received
    pair.server.endpoint.receive(late, pair.peer.path, pair.now)
    assert theirs.receiver.counters.forged == forged + 1
    assert pair.peer.stats().packets_received == received
    pair.server.endpoint.receive(early, pair.peer.path, pair.now)
    assert pair.peer.stats().packets_received == received + 1
    assert theirs.receiver._openers[0].end == lowest  # type: ignore[attr-defined]


def test_the_smallest_number_of_a_version_counts() -> None:
    """V-5: packets of the next version that overtook each other move the border back, not forth."""
    pair = session_pair()
    engines = pair.peer._engines
    assert engines is not None
    receiver, mine = engines.receiver, pair.session._engines
    assert mine is not None
    told: list[str] = []
    keys = mine.sealer.keys
    receiver.overlap(filler(32), lambda: told.append("opened"))
    following = type(mine.sealer)(keys.next(filler(32)))

    def give(sealer: Any, number: int) -> int:
        buffers, _, _ = sealer.seal(number, mine.remote_ids.current, [Ping().encode()], 1200)
        data = b"".join(buffers)
        return len(receiver.receive(data, 0, len(data), None, pair.peer.path, pair.now, True))

    first = mine.numbers.next()
    assert give(type(mine.sealer)(following.keys), first + 20) == 1
    assert give(type(mine.sealer)(keys), first + 15) == 1
    assert give(following, first + 10) == 1
    assert give(type(mine.sealer)(keys), first + 16) == 0
    assert give(type(mine.sealer)(keys), first + 9) == 1
    assert give(following, first + 30) == 1
    assert told == ["opened"]
    receiver.settle()
    assert give(type(mine.sealer)(keys), first + 8) == 0
    assert give(following, first + 31) == 1


def test_the_keys_of_the_version_before_go() -> None:
    """V-5: after three probe timeouts, and 20 ms at least, on either side."""
    for delay, ack_delay in ((0.05, 0.025), (0.0, 0.0)):
        pair = session_pair(
            conditions=Conditions(delay=delay), client={"ack_delay": ack_delay}, server={"ack_delay": 0.0}
        )
        serve_echo(pair.server)
        echo(pair, 1000)
        engines = pair.peer._engines
        assert engines is not None
        pair.session.rotate_key(pair.now)
        pair.pump()
        while engines.rotation.state is not OVERLAP:
            lifetime = max(3 * engines.path.recovery.pto, 0.02)
            pair.world.step()
        assert engines.rotation.deadline == pytest.approx(pair.now + lifetime)
        assert len(engines.receiver._openers) == 2
        pair.world.run(lifetime - 0.001)
        assert len(engines.receiver._openers) == 2
        pair.world.run(0.002)
        assert len(engines.receiver._openers) == 1


def test_the_keys_of_the_version_before_go_soon_whatever_the_round_trip_was_taken_for() -> None:
    """V-5: a process that slept measured nine seconds, and kept them for more than a minute."""
    pair = session_pair()
    for engines in (pair.session._engines, pair.peer._engines):
        assert engines is not None
        engines.path.recovery.rtt.update(9.0, 0.0, pair.now)
        assert engines.path.recovery.pto > 10.0
    began = pair.now
    rotate(pair)
    pair.world.run(began + 10.5 - pair.now)
    for engines in (pair.session._engines, pair.peer._engines):
        assert engines is not None
        assert (engines.rotation.state, engines.rotation.version) == (RotationState.SETTLED, 1)


# -- a thief -------------------------------------------------------------------------------------------------------


def test_a_thief_is_out_after_one_rotation() -> None:
    """V-2: who has every secret of a version, and sees every packet, opens nothing of the next one.

    What he can do with what he has is in `test_rotation_vectors.py::test_a_thief_in_the_middle`.
    """
    lines: dict[str, bytes] = {}
    pair = session_pair(
        client={"keylog": lambda label, _, secret: lines.__setitem__(label, secret)},
        conditions=Conditions(delay=0.01),
    )
    serve_echo(pair.server)
    engines = pair.session._engines
    assert engines is not None
    suite, taken = engines.sealer.keys.suite, recorded(pair, pair.client)
    echo(pair, 1000)
    rotate(pair)
    there = len(taken)
    echo(pair, 1000)

    def opened(version: int, header: str = "STT_INITIATOR_HEADER") -> list[Any]:
        keys = PacketKeys(suite, lines[f"STT_INITIATOR_TRAFFIC_{version}"], lines[header], version)
        receiver = PacketReceiver(keys, TrainBudget())
        frames: list[Any] = []
        for place, datagram in enumerate(taken):
            for packet in receiver.receive(datagram, 0, len(datagram), None, pair.peer.path, 0.0, True):
                frames += [(place, frame) for frame in decode_frames_untrusted(packet.plain)]
        return frames

    old, new = opened(0), opened(1)
    assert any(isinstance(frame, Rotate) for _, frame in old)  # he has seen it
    assert all(place < there for place, _ in old)
    assert {place for place, _ in new} >= set(range(there, len(taken)))
    names = {f"STT_{side}_TRAFFIC_{version}" for side in ("INITIATOR", "RESPONDER") for version in (0, 1)}
    assert set(lines) == names | {"STT_INITIATOR_HEADER", "STT_RESPONDER_HEADER"}
    assert len(set(lines.values())) == 6


def test_a_forged_rotation() -> None:
    """V-1, P-8: without the keys there is no ROTATE, and what does not open changes nothing."""
    pair = session_pair()
    engines = pair.peer._engines
    assert engines is not None
    (genuine,) = sealed(pair.session, Rotate(1, KEY))
    for position in range(9, len(genuine)):
        forged = bytearray(genuine)
        forged[position] ^= 0x40
        pair.server.endpoint.receive(bytes(forged), pair.peer.path, pair.now)
    assert rotation_of(pair.peer).state is SETTLED
    assert pair.peer.is_active()
    pair.server.endpoint.receive(genuine, pair.peer.path, pair.now)
    assert rotation_of(pair.peer).state is AGREED


# -- peers without manners -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [0, 2, 3, 5, 1 << 40, (1 << 62) - 1])
def test_a_rotation_to_another_version(version: int) -> None:
    """V-1, V-9: ROTATE is for the version behind that of its packet."""
    pair = session_pair()
    pair.inject(Rotate(version, KEY))
    assert pair.peer.close_error is not None
    assert pair.peer.close_error.code == 0x0401


def test_the_next_but_one() -> None:
    """V-6, V-9: while one side has not moved, a rotation beyond that is a broken rule."""
    pair = session_pair()
    pair.inject(Rotate(1, KEY))
    assert rotation_of(pair.peer).state is AGREED
    pair.inject(Rotate(2, KEY))
    assert pair.peer.close_error is not None
    assert pair.peer.close_error.code == 0x0401


def test_a_second_key_for_one_version() -> None:
    """V-9: the same ROTATE again is a repetition, and suspicious; another key is a broken rule."""
    pair = session_pair()
    pair.inject(Rotate(1, KEY), Rotate(1, KEY))
    pair.inject(Rotate(1, KEY))
    assert pair.peer.is_active()
    assert rotation_of(pair.peer).state is AGREED
    pair.inject(Rotate(1, KEY[::-1]))
    assert pair.peer.close_error is not None
    assert pair.peer.close_error.code == 0x0401


def test_repetitions_without_end() -> None:
    """V-9, F-5."""
    pair = session_pair()
    for _ in range(12):
        pair.inject(*[Rotate(1, KEY)] * 100)
    assert isinstance(pair.peer.close_error, ResourcesExhaustedError)


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31)])
def test_a_key_of_small_order(point: bytes) -> None:
    """V-9: the result would be known to everybody."""
    pair = session_pair()
    pair.inject(Rotate(1, point))
    assert isinstance(pair.peer.close_error, EncryptionError)
    assert pair.peer.close_error.code == 0x0402


def overlapping(delay: float = 0.02) -> Pair:
    """Both sides use version 1, and the server still opens packets of version 0."""
    pair = session_pair(conditions=Conditions(delay=delay))
    pair.session.rotate_key(pair.now)
    pair.pump()
    steps_until(pair, lambda: states(pair) == (OVERLAP, OVERLAP))
    return pair


def test_a_rotation_that_comes_too_early_waits() -> None:
    """V-6: the peer was done with the version before sooner; it gets its answer when that is gone here too."""
    pair = overlapping()
    pair.world.links[pair.client.address, pair.server.address].up = False
    pair.inject(Rotate(2, KEY))
    rotation = rotation_of(pair.peer)
    assert (rotation.state, rotation.version) == (OVERLAP, 1)
    pair.inject(Rotate(2, KEY))
    assert pair.peer.is_active()
    pair.world.run(rotation.deadline - pair.now + 0.001)
    assert (rotation.state, rotation.version) == (AGREED, 1)
    assert pair.peer.is_active()


def test_a_second_one_that_waits() -> None:
    """V-9: as for one that does not."""
    pair = overlapping()
    pair.inject(Rotate(2, KEY))
    pair.inject(Rotate(2, KEY[::-1]))
    assert pair.peer.close_error is not None
    assert pair.peer.close_error.code == 0x0401


def test_a_key_of_small_order_that_waits() -> None:
    """V-9: it is found when its turn comes."""
    pair = overlapping()
    pair.inject(Rotate(2, bytes(32)))
    assert pair.peer.is_active()
    pair.world.run(5.0)
    assert isinstance(pair.peer.close_error, EncryptionError)
    assert pair.server.events(SessionClosed)[-1].code == 0x0402


def test_a_thief_of_old_keys_cannot_rotate() -> None:
    """V-1: a packet of the version before that still opens carries no ROTATE to the next version."""
    pair = session_pair(conditions=Conditions(delay=0.02))
    mine = pair.session._engines
    assert mine is not None
    (stolen,) = sealed(pair.session, Rotate(2, KEY))
    (repeated,) = sealed(pair.session, Rotate(1, KEY))
    pair.session.rotate_key(pair.now)
    pair.pump()
    steps_until(pair, lambda: rotation_of(pair.peer).state is OVERLAP)
    pair.server.endpoint.receive(repeated, pair.peer.path, pair.now)  # late, and means nothing any more
    assert pair.peer.is_active()
    pair.server.endpoint.receive(stolen, pair.peer.path, pair.now)
    assert pair.peer.close_error is not None
    assert pair.peer.close_error.code == 0x0401


def test_a_peer_that_rotates_as_fast_as_it_can() -> None:
    """V-5, V-6: no more than 50 rotations a second, however short the way."""
    pair = session_pair(conditions=Conditions(delay=0.0), client={"ack_delay": 0.0}, server={"ack_delay": 0.0})
    pair.client.listeners.append(
        lambda _, event: pair.session.rotate_key(pair.now) and None if isinstance(event, KeysRotated) else None
    )
    pair.session.rotate_key(pair.now)
    began = pair.now
    pair.settle(10.0)
    assert 100 < pair.peer.key_version <= 50 * (pair.now - began) + 1
    assert pair.peer.is_active()


def test_a_peer_that_offers_and_never_moves() -> None:
    """V-4: it costs one agreement, and the session goes on under the old keys."""
    insider = Insider()
    insider.send(Rotate(1, KEY))
    stream = insider.victim.open_stream()
    stream.write(b"still here", insider.pair.now)
    insider.pair.server.pump()
    assert [frame.version for frame in insider.all(Rotate)] == [1]
    assert rotation_of(insider.victim).state is AGREED
    insider.acknowledge()
    assert rotation_of(insider.victim).state is MOVED  # and what it sends now cannot be read by who has no keys
    assert insider.code is None


@pytest.mark.parametrize("acks", [0, 1])
@pytest.mark.parametrize("moves", [False, True])
def test_a_thief_who_holds_the_rotation_up(moves: bool, acks: int) -> None:
    """V-10: somebody who has the old keys speaks in the peer's name, and lets nothing of the new ones through."""
    pair = session_pair(conditions=Conditions(delay=0.01))
    mine = pair.session._engines
    assert mine is not None
    keys = mine.sealer.keys

    def tap(datagram: bytes, path: NetworkPath) -> bytes | None:
        if path.local == pair.client.address and (mine.sealer.keys is not keys or not moves):
            return None
        return datagram

    pair.world.taps.append(tap)
    thief = type(mine.sealer)(keys)
    pair.peer.rotate_key(pair.now)
    pair.pump()
    began, number = pair.now, 10_000
    recovery = pair.peer._engines.path.recovery  # type: ignore[union-attr]
    while not pair.peer.is_closed and pair.now < began + 300.0:
        pair.world.run(1.0)
        number += 1
        recovery.packets_acked += acks  # of what he lets be acknowledged, in the peer's name, and not the ROTATE
        buffers, _, _ = thief.seal(number, mine.remote_ids.current, [Ping().encode()], 1200)
        pair.server.endpoint.receive(b"".join(buffers), pair.peer.path, pair.now)
        pair.server.pump()
    assert isinstance(pair.peer.close_error, EncryptionError)
    looks = 2 if acks else 4 if moves else 6  # where it moves, the ROTATE was acknowledged before the first
    assert began + 30 * looks - 1.0 < pair.now < began + 30 * looks + 2.0
    assert (rotation_of(pair.peer).state is MOVED) == moves


def test_who_cannot_be_heard_is_not_to_blame() -> None:
    """V-10: an outage that a session survives is no reason to end it for a rotation that waits."""
    timers = {"keep_alive_interval": 30.0, "keep_alive_timeout": 100.0}
    pair = session_pair(client=timers, server=timers)
    rotation = rotation_of(pair.session)
    assert rotation._patience == 100.0
    rotation._patience = 5.0
    pair.session.rotate_key(pair.now)
    pair.world.outage(pair.client, pair.server, pair.now, 90.0)
    pair.client.pump()
    for _ in range(89):
        pair.world.run(1.0)
        assert rotation._delays == 0
    pair.world.run(15.0)
    assert pair.session.key_version == pair.peer.key_version == 1
    assert pair.session.is_active()


def speak(pair: Pair, seconds: float) -> None:
    """Both sides are heard, and hear, once a second."""
    for _ in range(round(seconds)):
        for session in (pair.session, pair.peer):
            session.send_datagram(b"here", pair.now)
        pair.settle(1.0)


def test_a_clock_that_leaps_is_no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """V-10: what comes late is no look, so the peer has its time again; a host that is always late looks all the same.

    [World 9500768: a clock leapt twice by a day while a rotation waited, and that was as good as two looks.]
    """
    monkeypatch.setattr(KeyRotation, "on_rotate", lambda *_: True)  # the client acknowledges it, and does no more
    pair = session_pair()
    rotation = rotation_of(pair.peer)
    pair.peer.rotate_key(pair.now)
    pair.pump()
    for leap in (600.0, 86_400.0, 86_400.0, 600.0):
        speak(pair, 5.0)
        pair.server.jump_clock(leap)
        assert rotation._delays == 0
    speak(pair, 29.0)
    assert rotation._delays == 0
    assert pair.peer.is_active()
    speak(pair, 2.0)
    assert rotation._delays == 3, "nothing leapt"
    for _ in range(6):
        assert pair.peer.is_active()
        speak(pair, 5.0)
        pair.server.jump_clock(600.0)
    assert isinstance(pair.peer.close_error, EncryptionError)


def test_old_keys_go_without_a_path_too() -> None:
    """V-5, V-7: a session that is detached keeps no keys that somebody may steal, and offers none meanwhile."""
    pair = session_pair(conditions=Conditions(delay=0.01), server={"keep_alive_interval": 10.0})
    rotation = rotation_of(pair.session)
    pair.session.rotate_key(pair.now)
    pair.pump()
    steps_until(pair, lambda: rotation.state is OVERLAP)
    engines = pair.session._engines
    assert engines is not None
    receiver = engines.receiver
    pair.client.endpoint.path_closed(pair.session.path, pair.now)
    pair.pump()
    assert pair.session.is_detached
    assert len(receiver._openers) == 2
    deadline = pair.client.endpoint.next_deadline()
    assert deadline is not None
    assert deadline.at < pair.now + 1.0
    pair.world.run(1.0)
    assert len(receiver._openers) == 1
    assert rotation.state is SETTLED
    rotation.deadline = pair.now
    pair.session.tick(pair.now)
    assert rotation.state is SETTLED, "without a path a rotation waits"


# -- by itself -----------------------------------------------------------------------------------------------------


def chatter(pair: Pair, packets: int, size: int = 1) -> None:
    """So many packets go from the client to the server."""
    for _ in range(packets):
        pair.session.send_datagram(bytes(size), pair.now)
        pair.settle(0.001)


def test_after_so_many_packets() -> None:
    """V-7: packets sealed under one key, on the side that sealed them; and again for each key."""
    pair = session_pair(client={"rotate_after_packets": 256})
    engines = pair.session._engines
    assert engines is not None
    for version in (1, 2, 3):
        before = engines.sealer.sealed
        chatter(pair, 256 - before - 1)
        assert pair.session.key_version == version - 1
        assert rotation_of(pair.session).state is SETTLED
        chatter(pair, 100)
        assert pair.session.key_version == pair.peer.key_version == version
        pair.settle(1.0)
        assert states(pair) == (SETTLED, SETTLED)


def test_after_so_many_bytes() -> None:
    """V-7: bytes under one key, counted in datagrams; never much more."""
    pair = session_pair(client={"rotate_after_bytes": 1 << 16})
    engines = pair.session._engines
    assert engines is not None
    begin = 0
    for version in (1, 2, 3):
        while engines.sealer.keys.version < version:
            chatter(pair, 1, 900)
        used, begin = engines.counters.bytes_sent - begin, engines.counters.bytes_sent
        assert 1 << 16 <= used <= (1 << 16) + 50_000  # while it was agreed upon, 20 ms each way, more went
        pair.settle(1.0)


def test_the_count_of_bytes_is_looked_at_in_time() -> None:
    """V-7: looks are as far apart as packets of 64 KiB could use up what is left."""
    pair = session_pair(client={"rotate_after_bytes": 1 << 20})
    engines = pair.session._engines
    assert engines is not None
    looks = 0
    while rotation_of(pair.session).state is SETTLED and not pair.session.key_version:
        left = (1 << 20) - engines.counters.bytes_sent
        assert left > -1200  # the packet that uses it up is still sealed
        ahead = engines.sealer.review_at - engines.sealer.sealed
        assert ahead <= max(left // 65_535, 0) + 1
        looks += 1
        chatter(pair, 1, 1000)
    assert looks > 500


def test_after_so_many_seconds() -> None:
    """V-7: also when nothing else happens."""
    pair = session_pair(client={"rotate_after_seconds": 100.0})
    began = rotation_of(pair.session).rotated_at
    assert pair.session.deadline().at <= began + 100.0
    pair.world.run(began + 99.9 - pair.now)
    assert pair.session.key_version == 0
    pair.world.run(2.0)
    assert pair.session.key_version == pair.peer.key_version == 1
    pair.world.run(101.0)
    assert pair.session.key_version == 2


def test_both_sides_count() -> None:
    """V-7: whoever's key is worn first begins, and what both do at once crosses."""
    pair = session_pair(client={"rotate_after_seconds": 50.0}, server={"rotate_after_seconds": 50.0})
    pair.world.run(160.0)
    assert pair.session.key_version == pair.peer.key_version == 3
    pair = session_pair(server={"rotate_after_seconds": 50.0})
    pair.world.run(60.0)
    assert pair.session.key_version == pair.peer.key_version == 1


def test_the_first_one_comes_early_and_at_random() -> None:
    """V-7: between the 1,024th and the 9,215th packet, wherever; and once."""
    first = []
    for seed in range(40):
        pair = session_pair(seed)
        first += [rotation_of(session)._wear._packets for session in (pair.session, pair.peer)]
    assert all(FIRST_ROTATION <= packets < FIRST_ROTATION + FIRST_SPAN for packets in first)
    assert len(set(first)) > 70
    assert min(first) < FIRST_ROTATION + FIRST_SPAN // 8
    assert max(first) > FIRST_ROTATION + 7 * FIRST_SPAN // 8


def test_a_transfer_meets_its_first_rotation() -> None:
    """V-7: as every session does that sends a little more; and then not for a long time."""
    pair = session_pair(conditions=Conditions(delay=0.001))
    serve_echo(pair.server)
    stream, point = pair.session.open_stream(), rotation_of(pair.session)._wear._packets
    rotation_of(pair.peer)._wear._packets = point + 5000
    rotation_of(pair.peer).review()
    written = got = 0
    for _ in range(point + 300):
        sent = pair.session.stats().packets_sent
        assert (rotation_of(pair.session).state is SETTLED and not pair.session.key_version) == (sent <= point)
        written += stream.write(bytes(1000), pair.now)
        pair.settle(0.002)
        got += len(stream.read(65_536, pair.now))
    pair.settle(1.0)
    got += len(stream.read(65_536, pair.now))
    assert got == written
    assert pair.session.key_version == pair.peer.key_version == 1
    assert rotation_of(pair.session)._wear._packets == 1 << 20


def test_no_rotation_lets_a_key_live_too_long() -> None:
    """P-11, V-7: when the peer never answers, the session ends where the key is used up, and not later."""
    pair = session_pair(client={"rotate_after_packets": 256})
    engines = pair.session._engines
    assert engines is not None
    pair.world.links[pair.client.address, pair.server.address].up = False
    engines.sealer.limit = 400
    chatter(pair, 300)
    assert rotation_of(pair.session).state in (OFFERED, HEARD)
    while not engines.sealer.exhausted:
        sealed(pair.session, Ping())
    pair.session.send_datagram(b"one too many", pair.now)
    pair.world.run(3.0)
    assert isinstance(pair.session.close_error, EncryptionError)


def test_a_key_that_is_worn_while_it_is_replaced() -> None:
    """V-7: nothing more begins then, and nothing is sealed twice for it."""
    pair = session_pair(client={"rotate_after_packets": 256})
    engines = pair.session._engines
    assert engines is not None
    pair.session.rotate_key(pair.now)
    while engines.sealer.sealed < 300:
        sealed(pair.session, Ping())
    pair.settle(1.0)
    assert pair.session.key_version == pair.peer.key_version == 1
    assert engines.sealer.keys.version == 1
    assert states(pair) == (SETTLED, SETTLED)


# -- closing, watching ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "abort", "busy", "the other", "both"])
@pytest.mark.parametrize("steps", range(14))
def test_closing_while_keys_are_replaced(steps: int, how: str) -> None:
    """K-1, V-3: whatever has been agreed upon by then, both sides end, gracefully unless it was an abort."""
    pair = session_pair(conditions=Conditions(delay=0.01))
    pair.session.rotate_key(pair.now)
    pair.peer.rotate_key(pair.now) if steps % 2 else None
    pair.pump()
    for _ in range(steps):
        pair.world.step()
    if how == "busy":
        pair.session.open_stream().write(bytes(500_000), pair.now)
    began = pair.now
    if how == "abort":
        pair.session.abort(pair.now)
    elif how == "the other":
        pair.peer.close(pair.now)
    else:
        pair.session.close(pair.now)
        if how == "both":
            pair.peer.close(pair.now)
    pair.pump()
    rotated = {node.name: len(node.events(KeysRotated)) for node in (pair.client, pair.server)}
    pair.world.run_until(lambda: pair.session.is_closed and pair.peer.is_closed)
    if how != "busy":
        assert pair.now - began < 0.2
    reasons = {event.reason for node in (pair.client, pair.server) for event in node.events(SessionClosed)}
    assert reasons == ({"error"} if how == "abort" else {"graceful"})
    for node in (pair.client, pair.server):
        kinds = [type(event) for _, session, event in node.log if session is not None]
        assert KeysRotated not in kinds[kinds.index(SessionClosed) :]
        assert len(node.events(KeysRotated)) <= rotated[node.name] + 1
    pair.world.run(5.0)
    assert_empty(pair.client, pair.server)


def test_a_session_that_closes_begins_no_rotation() -> None:
    """K-1, V-3: once nothing but SESSION_CLOSE is sent, no ROTATE is, be it time for one or not."""
    pair = session_pair(client={"rotate_after_seconds": 3.0, "rotate_after_packets": 256})
    pair.world.outage(pair.client, pair.server, pair.now, 60.0)
    pair.session.close(pair.now)
    pair.client.pump()
    engines = pair.session._engines
    assert engines is not None
    engines.sealer.sealed = 300
    engines.sealer.review_at = 0
    pair.inject(Rotate(1, KEY), to=pair.session)
    assert rotation_of(pair.session).state is SETTLED
    pair.world.run(12.0)
    assert pair.session.state is SessionState.CLOSED
    assert rotation_of(pair.session).state is SETTLED
    assert rotation_of(pair.session).deadline == inf


def test_an_answer_to_who_closes() -> None:
    """V-3: who has offered and closes still takes the answer, or could not read what the other side says then."""
    pair = session_pair(conditions=Conditions(delay=0.05))
    pair.session.rotate_key(pair.now)
    pair.pump()
    steps_until(pair, lambda: rotation_of(pair.peer).state is AGREED)
    pair.session.close(pair.now)
    pair.client.pump()
    pair.world.run_until(lambda: pair.session.is_closed and pair.peer.is_closed)
    errors = pair.session.stats().receive_errors + pair.peer.stats().receive_errors
    assert errors == 0


def test_an_observer_sees_the_versions() -> None:
    """V-3: one event on either side; nothing secret in what is told of the frame."""

    class Watching(Trace):
        def __init__(self) -> None:
            self.events: list[Any] = []
            self.frames: list[Any] = []

        def event(self, session: Any, event: Any, now: float) -> None:
            self.events.append(event)

        def packet_sent(self, session: Any, number: int, size: int, datagrams: int, frames: Any, *rest: Any) -> None:
            self.frames += frames

    ours, theirs = Watching(), Watching()
    pair = session_pair(client={"trace": ours}, server={"trace": theirs})
    rotate(pair)
    for observer in (ours, theirs):
        assert [event for event in observer.events if isinstance(event, KeysRotated)] == [KeysRotated(1)]
        fields = [frame.fields for frame in observer.frames if frame.kind == "rotate"]
        assert fields[0] == {"version": 1, "key_length": 32}
