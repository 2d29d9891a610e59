"""What an observer is told, and that it cannot disturb (architecture: sight)."""

from __future__ import annotations

from collections import deque
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from attrs import define, evolve, field, fields
from hypothesis import given
from hypothesis import strategies as st

from stt_proto import Config, Endpoint, NetworkPath, Trace, TracedFrame, TracedSession
from stt_proto.config import CARRIERS
from stt_proto.crypto import SUITES
from stt_proto.errors import ArgumentError
from stt_proto.events import (
    HandshakeProgressed,
    SessionClosed,
    SessionEstablished,
    SessionStateChanged,
    TicketReceived,
    TraceFailed,
)
from stt_proto.packet import PacketCounters, PacketKeys, PacketReceiver, TrainBudget
from stt_proto.paths import EcnState
from stt_proto.recovery import RecoveryStats
from stt_proto.session.sight import DROP_REASONS, MAX_FRAMES, SessionTrace, Sight, traced_frames
from stt_proto.testing import Conditions, SeededEntropy, World
from stt_proto.tickets import Ticket
from stt_proto.types import EndpointCounters
from stt_proto.wire import NewConnectionId, Ping, StreamOpen, decode_frames_untrusted, decoders_for
from tests.proto.strategies import frames
from tests.proto.worlds import IDENTITY, Mover, Pair, filler, serve_echo, session_pair

POINTS = tuple(name for name in vars(Trace) if not name.startswith("_"))
Told = tuple[Any, ...]


@define
class Observer(Trace):
    """Writes down what it is told, and raises where it shall."""

    told: list[Told] = field(factory=list)
    raises: dict[str, BaseException] = field(factory=dict)

    def note(self, point: str, *told: Any) -> None:
        self.told.append((point, *told))
        if point in self.raises:
            raise self.raises[point]

    def at(self, point: str) -> list[Told]:
        """What was told at a point, without the session."""
        return [told[2:] for told in self.told if told[0] == point]

    def events(self, kind: type) -> list[Any]:
        return [event for event, _ in self.at("event") if isinstance(event, kind)]


def _note(point: str) -> Any:
    def method(self: Observer, *told: Any) -> None:
        self.note(point, *told)

    return method


for _point in POINTS:
    setattr(Observer, _point, _note(_point))


def watched(seed: int = 1, conditions: Conditions | None = None, **options: Any) -> tuple[Pair, Observer, Observer]:
    """A session with an observer on either side."""
    ours, theirs = Observer(), Observer()
    pair = session_pair(seed, conditions, client={"trace": ours, **options}, server={"trace": theirs, **options})
    return pair, ours, theirs


def transfer(pair: Pair, size: int = 200_000) -> None:
    """Move something there and back, and end the session."""
    serve_echo(pair.server)
    mover = Mover(pair.client)
    mover.send(pair.session.open_stream(), pair.session, filler(size))
    pair.settle(60.0)
    pair.session.close(pair.now)
    pair.client.pump()
    pair.world.assert_idle()


# -- packets -------------------------------------------------------------------------------------------------------


def test_every_packet_is_told() -> None:
    """Each packet is told once by whoever sealed it, once by whoever opened it, with the same frames on both sides."""
    pair, ours, theirs = watched()
    transfer(pair)
    for sender, receiver in ((ours, theirs), (theirs, ours)):
        sent = [told[:4] for told in sender.at("packet_sent")]
        assert sent == [told[:4] for told in receiver.at("packet_received")]
        assert len({number for number, *_ in sent}) == len(sent)
    assert not ours.at("packet_lost")
    stats = pair.session.stats()
    assert len(ours.at("packet_sent")) == stats.packets_sent
    assert sum(size for _, size, *_ in ours.at("packet_sent")) == stats.bytes_sent
    assert sum(size for _, size, *_ in ours.at("packet_received")) == stats.bytes_received
    assert max(datagrams for _, _, datagrams, *_ in ours.at("packet_sent")) > 1, "trains are one packet"


def test_lost_packets_are_told_as_sent() -> None:
    pair, ours, _ = watched(3, Conditions(delay=0.01, loss=0.05))
    transfer(pair)
    lost = ours.at("packet_lost")
    assert len(lost) == pair.session.stats().packets_lost > 0
    sent = {number: (size, datagrams) for number, size, datagrams, *_ in ours.at("packet_sent")}
    assert all(sent[number] == (size, datagrams) for number, size, datagrams, *_ in lost)


def test_frames_cover_the_stream() -> None:
    """The frames that were told say which bytes of which stream were in which packet."""
    pair, ours, _ = watched()
    transfer(pair, 50_000)
    found = [
        (frame.fields["offset"], frame.fields["length"])
        for _, _, _, frames, *_ in ours.at("packet_sent")
        for frame in frames
        if frame.kind == "stream" and frame.fields["stream_id"] == 0
    ]
    position = 0
    for offset, length in found:
        assert offset == position
        position += length
    assert position == 50_000
    acks = [frame for _, _, _, frames, *_ in ours.at("packet_sent") for frame in frames if frame.kind == "ack"]
    assert all(low <= high for frame in acks for low, high in frame.fields["ranges"])


@given(st.lists(frames, min_size=1, max_size=8))
def test_a_frame_is_told_without_what_it_carries(some: list[Any]) -> None:
    """Numbers, flags and lengths; no bytes, no text, no token."""
    plain = b"".join(frame.encode() for frame in some)
    told = traced_frames(plain)
    assert len(told) == len(decode_frames_untrusted(plain, decoders_for(frozenset(range(256)))))
    assert len(repr(told)) < 400 * len(told) + sum(60 * len(getattr(frame, "ranges", ())) for frame in some)
    for frame in told:
        assert frame.kind == frame.kind.lower()
        for value in frame.fields.values():
            assert isinstance(value, int | str | tuple), value
            assert (
                value is True or not isinstance(value, str) or value in ("graceful", "timeout", "error", "auth_failure")
            )


def test_the_words_for_frames() -> None:
    plain = b"".join((Ping().encode(), NewConnectionId(7, 3, b"connect!", b"token of 16 byte").encode()))
    assert traced_frames(plain) == (
        TracedFrame("ping", {}),
        TracedFrame(
            "new_connection_id",
            {"number": 7, "retire_prior_to": 3, "connection_id_length": 8, "token_length": 16},
        ),
    )
    assert traced_frames(StreamOpen(4, "private").encode()) == (TracedFrame("stream_open", {"stream_id": 4}),)


def test_a_packet_of_many_frames_is_told_in_part() -> None:
    told = traced_frames(Ping().encode() * 60_000)
    assert len(told) == MAX_FRAMES + 1
    assert told[-1] == TracedFrame("more", {"count": 60_000 - MAX_FRAMES})


def test_frames_that_do_not_parse() -> None:
    """P-12: what ends the session with an error is told before."""
    assert traced_frames(b"\xff\xff") == (TracedFrame("malformed", {"length": 2}),)
    pair, _, theirs = watched()
    pair.inject(b"\x7f" + bytes(40))
    assert theirs.at("packet_received")[-1][3] == (TracedFrame("malformed", {"length": 41}),)
    assert pair.peer.is_closed


def test_what_gives_no_packet_is_told() -> None:
    """P-8: what was dropped is told by its counter, also after the session has ended."""
    pair, _, theirs = watched()
    datagrams: list[bytes] = []
    pair.world.taps.append(lambda data, path: datagrams.append(data) or data if path.remote[0] == "server" else data)
    pair.session.open_stream().write(b"hello", pair.now)
    pair.settle()
    path = pair.peer.path
    pair.server.endpoint.receive(datagrams[0], path, pair.now)
    pair.server.endpoint.receive(datagrams[0][:-1] + b"?", path, pair.now)
    forged = datagrams[0][:9] + bytes(40)
    pair.server.endpoint.receive(forged + forged, path, pair.now, len(forged))
    dropped = [told[:2] for told in theirs.at("packet_dropped")]
    assert dropped[:2] == [("replayed", 1), ("replayed", 1)]
    assert sum(count for _, count in dropped) == pair.peer.stats().receive_errors == 4
    pair.peer.abort(pair.now)
    pair.server.endpoint.receive(datagrams[0], path, pair.now)
    assert theirs.at("packet_dropped")[-1][:2] == ("replayed", 1)


def test_every_counter_of_what_gave_no_packet_is_told() -> None:
    """P-8, P-10: a train that failed is a forged packet, and told as that; a counter to come needs its word here."""
    assert {counter.name for counter in fields(PacketCounters)} == {*DROP_REASONS, "trains_failed"}


# -- a session's life ----------------------------------------------------------------------------------------------


def test_the_life_of_a_session_is_told_on_both_sides() -> None:
    """In order: it begins, its messages, its keys, its packets and states, its end; each with the time of its cause."""
    pair, ours, theirs = watched()
    transfer(pair)
    assert ours.at("session_began") == [(0.0,)]
    assert [told[:2] for told in ours.at("message_sent")][:1] == [("hello", 1200)]
    assert {message for message, *_ in ours.at("message_sent")} == {"hello", "auth_proof"}
    assert [message for message, *_ in ours.at("message_received")] == ["challenge"]
    assert not theirs.at("message_sent")
    for observer in (ours, theirs):
        points = [told[0] for told in observer.told]
        assert points[0] == "session_began"
        assert points[-1] == "session_over"
        assert points.count("session_over") == points.count("keys_derived") == points.count("parameters_set") == 1
        assert points.index("keys_derived") < points.index("packet_sent")
        assert [told[:2] for told in observer.at("keys_derived")] == [(0, "AES-256-GCM")]
        times = [told[-1] for told in observer.told]
        assert times == sorted(times)
        states = [(event.old.value, event.new.value) for event in observer.events(SessionStateChanged)]
        assert [new for _, new in states][:2] == ["handshaking", "established"]
        assert [new for _, new in states][-1] == "closed"
        assert len(observer.events(HandshakeProgressed)) == 4
        assert observer.events(SessionEstablished)[0].session_id == pair.session.session_id
        (closed,) = observer.events(SessionClosed)
        assert closed.reason == "graceful"
        (session,) = {told[1] for told in observer.told}
        assert session.session_id == pair.session.session_id
        assert session.number == 1
    (local, remote, _), (mirrored_local, mirrored_remote, _) = ours.at("parameters_set") + theirs.at("parameters_set")
    assert (local, remote) == (mirrored_remote, mirrored_local)
    one, two = ours.told[0][1], theirs.told[0][1]
    assert (one.initiator, two.initiator) == (True, False)
    assert one.created_at == 1.7e9
    assert two.began > one.began
    assert two.path == NetworkPath("udp", one.path.remote, one.path.local)
    assert repr(one) == f"<TracedSession 1, initiator, {pair.session.session_id.hex()}>"
    assert repr(TracedSession(2, False, two.path, 0.0, 0.0)) == "<TracedSession 2, responder, ?>"


def test_a_dial_that_fails_is_told() -> None:
    observer, world = Observer(), World(1)
    client, server = world.node("client", trace=observer), world.node("server", shared_seed=b"another")
    session = client.connect(server)
    world.run_until(lambda: session.is_closed)
    world.assert_idle()
    assert [message for message, *_ in observer.at("message_sent")] == ["hello", "hello", "abort"]
    assert observer.events(SessionClosed)[0].reason == "auth_failure"
    assert observer.told[-1][0] == "session_over"
    assert observer.told[-1][1].session_id == b""
    assert not observer.at("keys_derived")


def test_each_session_is_told_apart() -> None:
    observer, world = Observer(), World(1)
    server, clients = world.node("server", trace=observer), [world.node(f"client {number}") for number in range(3)]
    sessions = [client.connect(server) for client in clients]
    world.run(1.0)
    found = {told[1].number: told[1].session_id for told in observer.told}
    assert found == {number + 1: session.session_id for number, session in enumerate(sessions)}


def test_a_ticket_is_told_without_itself() -> None:
    observer = Observer()
    trace = session_trace(observer)
    ticket = Ticket(b"sealed", bytes(32), bytes(32), bytes(32), 1, 2.0, 3)
    trace.event(TicketReceived(ticket, 5.0), 1.0)
    assert observer.at("event") == [(TicketReceived(None, 5.0), 1.0)]


# -- recovery and paths --------------------------------------------------------------------------------------------


def test_metrics_are_told_when_they_change() -> None:
    pair, ours, _ = watched(2, Conditions(delay=0.01, loss=0.02))
    transfer(pair, 500_000)
    metrics: list[RecoveryStats] = [told for told, _ in ours.at("metrics_updated")]
    assert all(one != another for one, another in pairwise(metrics))
    assert max(each.packets_lost for each in metrics) == pair.session.stats().packets_lost > 0
    assert metrics[-1].bytes_in_flight == 0
    assert max(each.bytes_in_flight for each in metrics) > 20_000
    assert {each.rtt_smoothed is None for each in metrics} == {True, False}


def test_congestion_states_are_told() -> None:
    """RFC 9002, 7.3: slow start ends with the first loss, and recovery lasts for a round trip."""
    pair, ours, _ = watched(2, Conditions(delay=0.01, loss=0.02))
    transfer(pair, 500_000)
    states = ours.at("congestion_state_updated")
    assert states[0][:2] == ("slow_start", "recovery")
    assert all(after[0] == before[1] for before, after in pairwise(states))
    assert "congestion_avoidance" in {new for _, new, _ in states}
    for before, after in pairwise(states):
        if before[1] == "recovery":
            assert after[2] - before[2] >= 0.02


def session_trace(observer: Trace, path: NetworkPath | None = None) -> SessionTrace:
    sight = Sight(observer, None, deque(), EndpointCounters())
    trace = sight.begin(True, path or NetworkPath("udp", 1, 2), 0.0, 1.7e9)
    assert trace is not None
    return trace


def test_probes_of_the_mtu_are_told_as_such() -> None:
    """P-17: sent and lost, they say nothing of congestion; what they find is told."""
    carriers = {"udp": evolve(CARRIERS["udp"], max_probe=9000)}
    pair, ours, _ = watched(1, Conditions(delay=0.01, mtu=1452), carriers=carriers)
    transfer(pair, 500_000)
    probes = {number: size for number, size, _, _, probe, _ in ours.at("packet_sent") if probe}
    lost = {number: size for number, size, _, probe, _ in ours.at("packet_lost") if probe}
    assert lost
    assert lost.items() < probes.items()
    assert min(probes.values()) > 1200
    (sizes, *_) = zip(*ours.at("mtu_updated"), strict=True)
    assert sizes[:2] == (0, 1200)
    assert 1200 < ours.at("mtu_updated")[-1][1] <= 1452


def test_what_becomes_of_a_path_is_told_once() -> None:
    """A larger datagram, marks of congestion, another address; who moves them need not say so."""
    observer, first, second = Observer(), NetworkPath("udp", 1, 2), NetworkPath("udp", 3, 2)
    engines = session_pair().session._engines
    assert engines is not None
    trace, path = session_trace(observer, first), engines.path
    path.network_path, path.max_datagram, path.ecn.state = first, 1200, EcnState.TESTING
    trace.look(path, 1.0)
    trace.look(path, 2.0)
    path.network_path, path.max_datagram, path.ecn.state = second, 1452, EcnState.CAPABLE
    trace.look(path, 3.0)
    trace.look(path, 4.0)
    assert observer.at("mtu_updated") == [(0, 1200, 1.0), (1200, 1452, 3.0)]
    assert observer.at("ecn_state_updated") == [("testing", "capable", 3.0)]
    assert observer.at("path_updated") == [(first, second, 3.0)]
    assert len(observer.at("metrics_updated")) == 1


# -- it cannot disturb ---------------------------------------------------------------------------------------------


class Unspeakable(Exception):
    """Cannot even be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def wire(trace: Trace | None) -> tuple[list[str], Any, list[Any]]:
    """All that is on the wire of a world whose server has this observer, its endpoint, and its events."""
    world = World(5, Conditions(delay=0.01, loss=0.03, duplicate=0.02), record=True)
    client, server = world.node("client"), world.node("server", trace=trace)
    serve_echo(server)
    for node in (client, server):
        node.endpoint.accepting = True
    session = client.connect(server)
    back = server.connect(client)
    world.run_until(lambda: session.is_active() and back.is_active())
    Mover(client).send(session.open_stream(), session, filler(60_000))
    world.run(20.0)
    session.close(world.now)
    client.pump()
    world.run(20.0)
    assert world.transcript is not None
    return [str(entry) for entry in world.transcript], server.endpoint, server.log


@cache
def undisturbed() -> tuple[list[str], list[str]]:
    """What is on that wire, and which events there are, when nobody looks."""
    lines, _, log = wire(None)
    return lines, [repr(event) for *_, event in log]


def test_an_observer_changes_nothing() -> None:
    observer = Observer()
    lines, endpoint, log = wire(observer)
    assert lines == undisturbed()[0]
    assert len(observer.told) > 100
    assert endpoint.counters.trace_faults == 0
    assert [repr(event) for *_, event in log] == undisturbed()[1]


@pytest.mark.parametrize("point", sorted(set(POINTS) - {"path_updated"}))
def test_an_observer_that_raises_is_switched_off(point: str) -> None:
    """Whatever it raises and wherever: once, and nothing else is different, on the wire or in the events."""
    observer = Observer(raises={point: ValueError("cannot write")})
    lines, endpoint, log = wire(observer)
    assert lines == undisturbed()[0]
    failed = [event for _, session, event in log if session is None and isinstance(event, TraceFailed)]
    assert failed == [TraceFailed(point, "ValueError: cannot write")]
    assert endpoint.counters.trace_faults == 1
    assert observer.told[-1][0] == point
    assert [told[0] for told in observer.told].count(point) == 1
    others = [repr(event) for *_, event in log if not isinstance(event, TraceFailed)]
    assert others == undisturbed()[1]


@pytest.mark.parametrize(
    ("error", "text"),
    [(Unspeakable(), "Unspeakable"), (KeyError("x" * 10_000), ("KeyError: '" + "x" * 10_000)[:200])],
    ids=["without words", "too long"],
)
def test_what_an_exception_says_is_bounded(error: Exception, text: str) -> None:
    _, _, log = wire(Observer(raises={"packet_sent": error}))
    assert [event for *_, event in log if isinstance(event, TraceFailed)] == [TraceFailed("packet_sent", text)]


def test_a_fault_in_one_session_ends_it_for_all() -> None:
    observer = Observer(raises={"keys_derived": OSError(28, "disk full")})
    world = World(1)
    server, one, two = world.node("server", trace=observer), world.node("one"), world.node("two")
    sessions = [one.connect(server), two.connect(server)]
    world.run(1.0)
    told = len(observer.told)
    sessions.append(one.connect(server))
    for session in sessions:
        if session.is_active():
            session.open_stream().write(b"hello", world.now)
    one.pump()
    two.pump()
    world.run(1.0)
    assert len(server.sessions) == 3
    assert len(observer.told) == told
    assert server.events(TraceFailed) == [TraceFailed("keys_derived", "OSError: [Errno 28] disk full")]


def test_an_interrupt_is_nobodys_to_contain() -> None:
    world = World(1)
    client = world.node("client", trace=Observer(raises={"session_began": KeyboardInterrupt()}))
    with pytest.raises(KeyboardInterrupt):
        client.connect(world.node("server"))


def test_without_an_observer_there_is_nothing_to_tell() -> None:
    pair = session_pair()
    assert pair.session.trace is None
    assert pair.session._engines is not None
    assert pair.session._engines.trace is None


@pytest.mark.parametrize("name", ["trace", "keylog"])
def test_observers_are_checked_at_once(name: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        Endpoint(
            Config(identity=IDENTITY, shared_seed="x"),
            now=0.0,
            unix_time=1.7e9,
            entropy=SeededEntropy(0),
            **{name: object()},  # type: ignore[arg-type]
        )
    assert caught.value.argument == name
    assert "must be" in str(caught.value)


def test_the_methods_of_the_base_do_nothing() -> None:
    """An observer overrides what it wants: the others may be called and do nothing."""
    lines, endpoint, _ = wire(Trace())
    assert lines == undisturbed()[0]
    assert endpoint.counters.trace_faults == 0
    pair = session_pair()
    path = pair.session.path
    assert Trace().path_updated(TracedSession(1, True, path, 0.0, 0.0), path, path, 0.0) is None  # type: ignore[func-returns-value]


# -- secrets -------------------------------------------------------------------------------------------------------


def test_a_key_log_has_the_secrets_of_both_directions() -> None:
    """H-6, H-7: both sides give the same four lines, and they open what is on the wire."""
    ours: list[tuple[str, bytes, bytes]] = []
    theirs: list[tuple[str, bytes, bytes]] = []
    world = World(1, record=True)
    client = world.node("client", keylog=lambda *line: ours.append(line))
    server = world.node("server", keylog=lambda *line: theirs.append(line), suites=(2,))
    session = client.connect(server)
    world.run_until(session.is_active)
    session.open_stream().write(b"nobody else reads this", world.now)
    client.pump()
    world.run(1.0)
    assert ours == theirs
    assert [label for label, _, _ in ours] == [
        "STT_INITIATOR_TRAFFIC_0",
        "STT_RESPONDER_TRAFFIC_0",
        "STT_INITIATOR_HEADER",
        "STT_RESPONDER_HEADER",
    ]
    assert {session_id for _, session_id, _ in ours} == {session.session_id}
    assert {len(secret) for _, _, secret in ours} == {32}
    secrets = {label: secret for label, _, secret in ours}
    keys = PacketKeys(SUITES[2], secrets["STT_INITIATOR_TRAFFIC_0"], secrets["STT_INITIATOR_HEADER"])
    receiver = PacketReceiver(keys, TrainBudget(1 << 20))
    assert world.transcript is not None
    plain = b""
    for entry in world.transcript.between(client.address, server.address):
        if entry.data[0] < 0x80:
            (packet,) = receiver.receive(entry.data, 0, len(entry.data), None, session.path, entry.at, True)
            plain += packet.plain
    assert b"nobody else reads this" in plain


def test_a_key_log_that_raises_is_switched_off() -> None:
    """Contained as a trace is; and what it raised is not repeated, since that may be the secret."""
    calls: list[bytes] = []

    def keylog(label: str, session_id: bytes, secret: bytes) -> None:
        calls.append(secret)
        raise ValueError(secret)

    world = World(1)
    client, server = world.node("client", keylog=keylog), world.node("server")
    one = client.connect(server)
    two = client.connect(server)
    world.run(1.0)
    assert one.is_active()
    assert two.is_active()
    assert client.events(TraceFailed) == [TraceFailed("keylog", "ValueError")]
    assert client.endpoint.counters.trace_faults == 1
    assert len(calls) == 1


def test_no_secret_goes_through_the_trace() -> None:
    """What an observer was told, written out in full, has none of the secrets of the key log in it, nor the data."""
    secrets: list[bytes] = []
    observer = Observer()
    pair = session_pair(client={"trace": observer, "keylog": lambda *line: secrets.append(line[2])})
    pair.session.open_stream(purpose="confidential").write(b"the application's data", pair.now)
    pair.settle()
    exported = pair.session.export_keying_material("x", 32)
    told = repr([(*each[2:], [getattr(each[1], name) for name in TracedSession.__slots__]) for each in observer.told])
    assert len(secrets) == 4
    for secret in (*secrets, exported, b"the application's data", b"confidential", b"between us"):
        assert secret.hex() not in told
        assert repr(secret)[2:-1] not in told
