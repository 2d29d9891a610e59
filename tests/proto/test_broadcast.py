"""One message to many (A6): bounded for each receiver, the slow delay nobody, and each one's fate is told."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_proto import Session
from stt_proto.broadcast import (
    Broadcast,
    Broadcaster,
    BroadcastPolicy,
    BroadcastResult,
    Delivery,
    Fate,
    Receipt,
    SlowReceiver,
)
from stt_proto.broadcast.backlog import Backlog
from stt_proto.errors import ArgumentError, SessionClosedError, StateError, StreamClosedError
from stt_proto.events import Event, StreamOpened
from stt_proto.testing import Conditions, Inbox, Node, World
from tests.proto.walks import walks
from tests.proto.worlds import session_pair


class Caster:
    """A node that sends to many: what a host does around a `Broadcaster`."""

    def __init__(self, node: Node, **policy: Any) -> None:
        self.node = node
        self.engine = Broadcaster(BroadcastPolicy(**policy))
        node.listeners.append(self._on_event)

    def _on_event(self, session: Session | None, event: Event) -> None:
        if session is not None and self.engine:
            self.engine.on_event(session, event, self.node.now)

    def send(self, data: bytes, *sessions: Session, stream: Any = None) -> list[Delivery]:
        broadcast = Broadcast(data)
        made = [self.engine.send(broadcast, each, stream, self.node.now) for each in sessions]
        self.node.pump()
        return made


def fates(deliveries: list[Delivery]) -> list[str]:
    return [delivery.fate.value for delivery in deliveries]


# -- values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_messages", 0),
        ("max_messages", 65_537),
        ("max_messages", True),
        ("max_bytes", 0),
        ("max_bytes", 1.5),
        ("max_bytes", (1 << 30) + 1),
        ("slow", "wait"),
    ],
)
def test_a_policy_out_of_range(name: str, value: object) -> None:
    with pytest.raises(ArgumentError) as caught:
        BroadcastPolicy(**{name: value})  # type: ignore[arg-type]
    assert caught.value.argument == name


def test_a_result_tells_who_got_it() -> None:
    error = SessionClosedError("gone")
    receipts = {b"a": Receipt(Fate.ACKNOWLEDGED), b"b": Receipt(Fate.FAILED, error), b"c": Receipt(Fate.QUEUED)}
    result = BroadcastResult({**receipts, b"d": Receipt(Fate.DROPPED), b"e": Receipt(Fate.ACKNOWLEDGED)})
    assert (result.acknowledged, result.queued, result.dropped) == ((b"a", b"e"), (b"c",), (b"d",))
    assert result.failed == {b"b": error}


# -- the backlog ---------------------------------------------------------------------------------------------------


@given(
    st.integers(1, 6),
    st.integers(1, 40),
    st.sampled_from(SlowReceiver),
    walks(st.tuples(st.sampled_from(["put", "begin", "end", "withdraw"]), st.integers(0, 30)), 60),
)
def test_a_backlog_is_bounded_and_loses_nothing_silently(
    messages: int, size: int, slow: SlowReceiver, steps: list[tuple[str, int]]
) -> None:
    """Whatever happens: never more than the policy says; all that went in is inside, came out, or was named as gone."""
    backlog = Backlog(BroadcastPolicy(max_messages=messages, max_bytes=size, slow=slow))
    waiting: list[Delivery] = []
    begun: list[Delivery] = []
    for step, number in steps:
        if step == "put":
            delivery = Broadcast(bytes(number)).to_one()
            gone = backlog.put(delivery)
            if slow is SlowReceiver.DROP_OLDEST and delivery not in gone:
                assert gone == waiting[: len(gone)]
            else:
                assert gone in ([], [delivery])
            waiting = [each for each in [*waiting, delivery] if each not in gone]
        elif step == "begin" and (next_one := backlog.peek()) is not None:
            assert next_one is backlog.begin() is waiting.pop(0)
            begun.append(next_one)
        elif step == "end" and begun:
            backlog.end(begun.pop(0))
        elif step == "withdraw" and waiting:
            assert backlog.withdraw(waiting.pop(number % len(waiting)))
        assert len(backlog) == len(waiting) + len(begun) <= messages
        assert backlog.size == sum(each.size for each in waiting + begun) <= size
        assert (backlog.waits, list(backlog.begun)) == (bool(waiting), begun)
        assert len(begun) <= max(1, messages // 2)
        assert len(begun) == 1 or sum(each.size for each in begun) <= size // 2
    assert backlog.clear() == begun + waiting
    assert (len(backlog), backlog.size, backlog.peek()) == (0, 0, None)
    assert not backlog.withdraw(Broadcast(b"").to_one())


def test_what_is_dropped_makes_room_or_is_not_dropped() -> None:
    """With what has begun, the new one would never fit: so nobody goes for it in vain."""
    backlog = Backlog(BroadcastPolicy(max_messages=10, max_bytes=10))
    first, second, new = (Broadcast(bytes(size)).to_one() for size in (6, 4, 5))
    assert backlog.put(first) == backlog.put(second) == []
    backlog.begin()
    assert backlog.put(new) == [new]
    assert (len(backlog), backlog.size) == (2, 10)


def test_half_of_the_bytes_may_be_on_their_way() -> None:
    """The other half can be dropped; a single message may be longer than half of all."""
    backlog = Backlog(BroadcastPolicy(max_bytes=100))
    for size in (30, 20, 1, 40):
        assert backlog.put(Broadcast(bytes(size)).to_one()) == []
    began = []
    while backlog.peek() is not None:
        began.append(backlog.begin())
    assert [each.size for each in began] == [30, 20]
    for each in began:
        backlog.end(each)
    backlog.begin()
    backlog.end(next(iter(backlog.begun)))
    assert backlog.put(Broadcast(bytes(60)).to_one()) == []
    assert backlog.begin().size == 40
    assert backlog.peek() is None
    backlog.end(next(iter(backlog.begun)))
    assert backlog.begin().size == 60


# -- streams of their own ------------------------------------------------------------------------------------------


def test_each_message_on_a_stream_of_its_own() -> None:
    pair = session_pair()
    caster, inbox = Caster(pair.client), Inbox(pair.server)
    opened: list[str] = []

    def on_event(_: Session | None, event: Event) -> None:
        if isinstance(event, StreamOpened):
            opened.append(event.purpose)
            assert not event.bidirectional

    pair.server.listeners.append(on_event)
    told: list[bool] = []
    broadcast = Broadcast(bytes(3 << 20), lambda: told.append(True))  # more than a stream's buffer holds
    delivery = caster.engine.send(broadcast, pair.session, None, pair.now)
    empty = caster.send(b"", pair.session)
    assert (delivery.fate, broadcast.settled, caster.engine.held, told) == (Fate.QUEUED, False, 3 << 20, [])
    pair.settle(30.0)
    assert fates([delivery, *empty]) == ["acknowledged"] * 2
    assert (broadcast.settled, told, opened) == (True, [True], ["broadcast"] * 2)
    assert sorted(each.size for each in inbox.complete) == [0, 3 << 20]
    assert not caster.engine
    delivery.settle(Fate.FAILED)  # the first word is the last
    assert (delivery.fate, broadcast.unsettled) == (Fate.ACKNOWLEDGED, 0)


def test_a_session_that_closes_in_the_middle() -> None:
    """What its stream had not taken yet is lost, and told as that."""
    pair = session_pair()
    caster = Caster(pair.client)
    (delivery,) = caster.send(bytes(3 << 20), pair.session)
    stream = pair.session.stream(2)  # the first that is one-way, from who dialled
    assert stream is not None
    stream.watch_acked(1)  # somebody else does, and that is no news for the broadcast
    pair.settle(0.001)
    pair.session.close(pair.now)
    Inbox(pair.server)
    pair.settle(20.0)
    assert delivery.fate is Fate.FAILED
    assert isinstance(delivery.error, SessionClosedError)
    assert not caster.engine


def test_more_messages_than_streams_are_allowed() -> None:
    """Those for which there is no stream wait until there is one (S-12), and come to their turn."""
    pair = session_pair(server={"max_concurrent_streams": 4})
    caster, inbox = Caster(pair.client), Inbox(pair.server)
    deliveries = [caster.send(b"%d" % number, pair.session)[0] for number in range(50)]
    pair.settle(30.0)
    assert fates(deliveries) == ["acknowledged"] * 50
    assert len(inbox.complete) == 50


def test_a_peer_that_wants_none_of_it() -> None:
    """It stops the stream: that one failed, with its number, and what comes after goes on."""
    pair = session_pair()
    caster = Caster(pair.client)

    def refuse(session: Session | None, event: Event) -> None:
        if isinstance(event, StreamOpened) and session is not None:
            stream = session.stream(event.stream_id)
            if stream is not None:
                stream.stop(7, pair.now)

    pair.server.listeners.append(refuse)
    (delivery,) = caster.send(bytes(3 << 20), pair.session)
    pair.settle(5.0)
    pair.server.listeners.remove(refuse)
    assert delivery.fate is Fate.FAILED
    assert isinstance(delivery.error, StreamClosedError)
    assert delivery.error.stream_code == 7
    (other,) = caster.send(b"again", pair.session)
    pair.settle(5.0)
    assert other.fate is Fate.ACKNOWLEDGED


def test_a_session_that_is_over_or_ends() -> None:
    pair = session_pair()
    caster = Caster(pair.client)
    pair.world.outage(pair.client, pair.server, pair.now)
    deliveries = [caster.send(bytes(100_000), pair.session)[0] for _ in range(300)]
    assert deliveries[-1].fate is Fate.QUEUED
    pair.session.abort(pair.now)
    pair.settle()
    left = [each for each in deliveries if each.fate is not Fate.DROPPED]
    assert left
    assert {each.fate for each in left} == {Fate.FAILED}
    assert all(isinstance(each.error, SessionClosedError) for each in left)
    assert not caster.engine
    (late,) = caster.send(b"x", pair.session)
    assert late.fate is Fate.FAILED
    assert not caster.engine


def test_the_next_is_sent_when_one_is_settled() -> None:
    """Also to a session that has just ended: it fails like any other, and nothing is left."""
    pair = session_pair()
    engine = Broadcaster()
    left = iter(range(3))
    sent: list[Delivery] = []

    def send() -> None:
        if next(left, None) is not None:
            sent.append(engine.send(Broadcast(b"next", send), pair.session, None, pair.now))

    def on_event(session: Session | None, event: Event) -> None:
        if session is not None:
            engine.on_event(session, event, pair.now)

    pair.client.listeners.append(on_event)
    send()
    pair.session.abort(pair.now)
    pair.settle()
    assert fates(sent) == ["failed"] * 3
    assert not engine


@pytest.mark.parametrize("slow", SlowReceiver)
def test_a_receiver_that_is_dead_costs_no_more_than_its_bound(slow: SlowReceiver) -> None:
    """Of 100 messages to a dead receiver those stay that the policy says, and the others are told as dropped."""
    pair = session_pair()
    caster = Caster(pair.client, max_messages=10, max_bytes=10_000, slow=slow)
    pair.world.outage(pair.client, pair.server, pair.now)
    deliveries = []
    for _ in range(100):
        deliveries += caster.send(bytes(1000), pair.session)
        assert caster.engine.held <= 10_000
    pair.pump()
    queued = [number for number, each in enumerate(deliveries) if each.fate is Fate.QUEUED]
    match slow:
        case SlowReceiver.DROP_OLDEST:  # five have begun to leave; of the others the last
            assert queued == [*range(5), *range(95, 100)]
        case SlowReceiver.DROP_NEWEST:
            assert queued == [*range(10)]
        case SlowReceiver.CLOSE:
            assert queued == []
            assert pair.session.is_closed
            assert fates(deliveries) == ["failed"] * 10 + ["dropped"] + ["failed"] * 89
            return
    assert {each.fate for each in deliveries} == {Fate.QUEUED, Fate.DROPPED}


def test_what_was_not_dropped_arrives_when_the_receiver_is_back() -> None:
    pair = session_pair()
    caster, inbox = Caster(pair.client, max_messages=10), Inbox(pair.server)
    pair.world.outage(pair.client, pair.server, pair.now, 3.0)
    deliveries = [caster.send(b"%d" % number, pair.session)[0] for number in range(100)]
    pair.settle(20.0)
    assert fates(deliveries) == ["acknowledged"] * 5 + ["dropped"] * 90 + ["acknowledged"] * 5
    assert len(inbox.complete) == 10


def test_withdrawing() -> None:
    """What has not begun to leave does not; what has does."""
    pair = session_pair()
    caster, inbox = Caster(pair.client, max_messages=2), Inbox(pair.server)
    first, second = caster.send(b"1", pair.session) + caster.send(b"2", pair.session)
    for delivery in (first, second):
        caster.engine.withdraw(delivery, pair.session, None)
    assert fates([first, second]) == ["queued", "dropped"]
    pair.settle()
    assert first.fate is Fate.ACKNOWLEDGED
    assert len(inbox.complete) == 1
    caster.engine.withdraw(first, pair.session, None)
    assert first.fate is Fate.ACKNOWLEDGED


def test_a_message_longer_than_any_backlog() -> None:
    engine = Broadcaster(BroadcastPolicy(max_bytes=10))
    engine.check(bytes(10))
    with pytest.raises(ArgumentError) as caught:
        engine.check(bytes(11))
    assert caught.value.argument == "data"


# -- one stream for all --------------------------------------------------------------------------------------------


def test_one_after_the_other_on_one_stream() -> None:
    """Messages follow each other whole, also when the stream has no room for them, and each is told for itself."""
    pair = session_pair(client={"stream_send_buffer": 65_536, "max_stream_send_buffer": 65_536})
    caster, inbox = Caster(pair.client), Inbox(pair.server)
    stream = pair.session.open_stream()
    texts = [bytes([number]) * size for number, size in enumerate((10, 200_000, 0, 100_000, 5))]
    deliveries = [caster.send(text, pair.session, stream=stream)[0] for text in texts]
    assert caster.engine.outbox(pair.session, stream.stream_id).is_writing  # type: ignore[union-attr]
    pair.settle(20.0)
    assert fates(deliveries) == ["acknowledged"] * 5
    (incoming,) = inbox.streams.values()
    assert incoming.size == sum(map(len, texts))
    assert incoming.digest == sha256(b"".join(texts)).hexdigest()
    assert not caster.engine
    assert caster.engine.outbox(pair.session, stream.stream_id) is None


def test_a_stream_that_is_refused_or_ended() -> None:
    pair = session_pair(client={"stream_send_buffer": 65_536, "max_stream_send_buffer": 65_536})
    caster = Caster(pair.client)
    stream, other = pair.session.open_stream(), pair.session.open_stream()
    refused = caster.send(bytes(3 << 20), pair.session, stream=stream)
    pair.settle()
    reader = pair.peer.stream(stream.stream_id)
    assert reader is not None
    reader.reset(3, pair.now)  # its own direction: that concerns nobody here
    pair.settle()
    assert fates(refused) == ["queued"]
    reader.stop(7, pair.now)
    pair.settle()
    assert fates(refused) == ["failed"]
    assert isinstance(refused[0].error, StreamClosedError)
    ended = caster.send(bytes(3 << 20), pair.session, stream=other)
    other.finish(pair.now)
    Inbox(pair.server)
    pair.settle(5.0)
    assert fates(ended) == ["failed"]
    assert isinstance(ended[0].error, StateError)
    assert not caster.engine


def test_what_a_stream_gave_up_is_not_told_as_delivered() -> None:
    """On a stream of partial reliability: acknowledged or given up look alike there, and are not told alike."""
    pair = session_pair()
    caster = Caster(pair.client)
    stream = pair.session.open_stream(max_lifetime=0.5)
    pair.world.outage(pair.client, pair.server, pair.now, 2.0)
    deliveries = caster.send(bytes(5000), pair.session, stream=stream)
    pair.settle(5.0)
    deliveries += caster.send(b"later", pair.session, stream=stream)
    pair.settle(5.0)
    assert fates(deliveries) == ["dropped", "acknowledged"]


def test_events_of_others_change_nothing() -> None:
    """Those of streams on which there is no broadcast, and of sessions without any."""
    pair = session_pair(server={"stream_receive_window": 65_536, "session_receive_window": 65_536})
    caster = Caster(pair.client)
    stream, other = pair.session.open_stream(), pair.session.open_stream()
    caster.send(bytes(200_000), pair.session, stream=stream)
    other.write(b"x", pair.now)
    other.finish(pair.now)
    pair.settle(5.0)
    assert caster.engine
    assert not Broadcaster().on_event(pair.session, StreamOpened(0, True), 0.0)


# -- a thousand ----------------------------------------------------------------------------------------------------


def cast_to(receivers: int, dead: int, seed: int = 1) -> tuple[list[float], Caster, World]:
    """When each of the living receivers had all of five messages, in virtual time; the dead have no link."""
    world = World(seed, Conditions(delay=0.02, rate=20e6))
    hub = world.node("hub", max_concurrent_sessions=receivers)
    nodes = [world.node(f"n{number}") for number in range(receivers)]
    sessions = []
    for node in nodes:
        sessions.append(hub.connect(node))
        world.run(0.002)
    world.run_until(lambda: all(session.is_active() for session in sessions))
    world.run(1.0)
    for node in nodes[:dead]:
        world.outage(hub, node, world.now)
    inboxes = [Inbox(node) for node in nodes[dead:]]
    done: list[float] = []
    began = world.now
    caster = Caster(hub)
    for _ in range(5):
        caster.send(bytes(20_000), *sessions)
    while len(done) < len(inboxes):
        world.step()
        done += [world.now - began] * (sum(len(inbox.complete) == 5 for inbox in inboxes) - len(done))
        assert world.now < began + 60.0
    return done, caster, world


@pytest.mark.parametrize("receivers", [50, pytest.param(1000, marks=pytest.mark.long)])
def test_the_dead_delay_nobody(receivers: int) -> None:
    """A tenth of them are dead: the others have all of it as soon as without the dead."""
    dead = receivers // 10
    with_dead, caster, world = cast_to(receivers, dead)
    alone, _, _ = cast_to(receivers - dead, dead=0)
    assert len(with_dead) == len(alone) == receivers - dead
    assert with_dead[-1] <= alone[-1] * 1.2
    world.run(0.5)
    assert caster.engine.held == dead * 5 * 20_000  # what the dead still wait for, and nothing else
    if receivers == 50:  # they are detached in time, and then over
        world.run(200.0)
        assert not caster.engine
