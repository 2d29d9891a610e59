"""The small applications of the simulator, and many worlds from many seeds."""

from __future__ import annotations

from functools import partial
from hashlib import sha256
from inspect import signature
from typing import Any

import pytest

from stt_proto import NetworkPath, Session, SessionState
from stt_proto.errors import ArgumentError, SessionClosedError, StreamClosedError, TooManyStreamsError
from stt_proto.events import Event, HandshakeFailed, StreamOpened, StreamReadable, StreamWritable
from stt_proto.testing import (
    CELLULAR,
    PRESETS,
    Conditions,
    GilbertElliott,
    Inbox,
    Scenario,
    Tally,
    Traffic,
    World,
    explore,
    random_conditions,
    send,
    serve_echo,
)
from stt_proto.testing.apps import StreamOptions
from tests.proto.worlds import Pair, filler, session_pair

# -- sending and receiving -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_there_and_back_on_every_network(name: str) -> None:
    """Larger than all buffers, as soon as the session is established, with the end."""
    world = World(1, PRESETS[name])
    client, server = world.node("client", stream_send_buffer=20_000), world.node("server")
    serve_echo(server)
    inbox = Inbox(client)
    session = client.connect(server)
    upload = send(client, session, filler(100_000), purpose="there and back")
    assert upload.stream is None
    assert not upload.done
    world.run_until(lambda: upload.done and inbox.complete)
    assert upload.finished
    assert upload.error is None
    assert inbox.digests == [upload.digest] == [sha256(filler(100_000)).hexdigest()]
    (incoming,) = inbox.complete
    assert incoming.size == 100_000
    assert (incoming.session, incoming.stream_id, incoming.reset_code) == (session, 0, None)
    assert client.listeners == [inbox._on_event]
    session.close(world.now)
    world.assert_idle()


def test_an_echo_that_gets_stuck() -> None:
    """What cannot be written now is kept, and goes before what is read next."""
    pair = session_pair(server={"stream_send_buffer": 2000}, client={"stream_receive_window": 5000})
    serve_echo(pair.server)
    inbox = Inbox(pair.client)
    upload = send(pair.client, pair.session, filler(30_000))
    pair.world.run_until(lambda: inbox.complete)
    assert inbox.digests == [upload.digest]


def test_an_echo_of_nothing() -> None:
    pair = session_pair()
    serve_echo(pair.server)
    inbox = Inbox(pair.client)
    upload = send(pair.client, pair.session, b"")
    pair.world.run_until(lambda: upload.done and inbox.complete)
    assert inbox.complete[0].size == 0


def test_an_echo_knows_what_it_cannot_answer() -> None:
    """One-way streams, streams that are reset, sessions that end: none of it is an error, and others go on."""
    pair = session_pair()
    serve_echo(pair.server)
    one_way = send(pair.client, pair.session, b"one way", bidirectional=False)
    pair.world.run_until(lambda: one_way.done)
    broken = pair.session.open_stream()
    broken.write(b"half of", pair.now)
    pair.settle(0.1)
    broken.reset(7, pair.now)
    broken.stop(8, pair.now)
    pair.settle(0.1)
    inbox = Inbox(pair.client)
    whole = send(pair.client, pair.session, b"whole")
    pair.world.run_until(lambda: inbox.complete)
    assert inbox.digests == [whole.digest]
    open_stream = pair.session.open_stream()
    open_stream.write(b"unfinished", pair.now)
    pair.session.abort(pair.now)
    pair.settle(1.0)
    pair.world.send(b"\xc1" + bytes(1199), NetworkPath("udp", ("nobody", 1), pair.server.address))
    pair.settle(1.0)
    pair.world.assert_idle()


def test_an_inbox_tells_what_came() -> None:
    pair = session_pair()
    inbox = Inbox(pair.server)
    streams = [pair.session.open_stream(purpose=purpose) for purpose in ("ended", "open", "reset")]
    for stream in streams:
        stream.write(b"data", pair.now)
    streams[0].finish(pair.now)
    pair.settle(0.1)
    streams[2].reset(9, pair.now)
    pair.settle(0.1)
    for datagram in (b"one", b"two"):
        pair.session.send_datagram(datagram, pair.now)
    pair.settle(0.1)
    assert [incoming.purpose for incoming in inbox.streams.values()] == ["ended", "open", "reset"]
    assert [str(incoming) for incoming in inbox.streams.values()] == [
        "<Incoming on stream 0, 4 bytes, ended>",
        "<Incoming on stream 4, 4 bytes, open>",
        "<Incoming on stream 8, 4 bytes, reset with 9>",
    ]
    assert inbox.datagrams == [b"one", b"two"]
    assert inbox.complete == [inbox.streams[pair.peer, 0]]


def test_an_inbox_and_what_is_over() -> None:
    """It hears of the endpoint's own events, of its own side's resets, and of data in a stream that is gone."""
    pair = session_pair()
    inbox = Inbox(pair.client)
    Inbox(pair.server)
    pair.client.listeners[0](None, HandshakeFailed(pair.session.path, "timeout"))
    stream = pair.session.open_stream()
    stream.write(b"x", pair.now)
    pair.settle(0.1)
    heard = pair.peer.stream(0)
    assert heard is not None
    heard.write(b"answer", pair.now)
    heard.reset(5, pair.now)
    pair.settle(0.1)
    assert inbox.streams[pair.session, 0].reset_code == 5
    stream.stop(1, pair.now)
    heard.stop(6, pair.now)
    pair.settle(0.1)
    assert inbox.streams[pair.session, 0].reset_code == 5, "6 is about our own side"
    assert [event.stream_id for event in pair.server.events(StreamOpened)] == [0]


def test_an_inbox_leaves_what_another_has_read() -> None:
    """The application of the node comes first; a stream that it has read to the end is gone."""
    pair = session_pair()
    inbox = Inbox(pair.server)

    def read(session: Session | None, event: Event) -> None:
        if session is not None and isinstance(event, StreamReadable):
            stream = session.stream(event.stream_id)
            assert stream is not None
            assert stream.read(100, pair.now) == b"taken"

    pair.server.on_event = read
    upload = send(pair.client, pair.session, b"taken", bidirectional=False)
    pair.world.run_until(lambda: upload.done)
    assert [(incoming.size, incoming.ended) for incoming in inbox.streams.values()] == [(0, False)]


def ended(pair: Pair, *, closing: bool) -> None:
    if closing:
        pair.session.close(pair.now)
    else:
        pair.session.abort(pair.now)


@pytest.mark.parametrize("closing", [True, False])
def test_sending_over_what_ends(closing: bool) -> None:
    """It is done, with the error, and listens no longer."""
    pair = session_pair(conditions=Conditions(rate=1e6))
    upload = send(pair.client, pair.session, filler(3_000_000))
    pair.world.run(1.0)
    assert not upload.done
    ended(pair, closing=closing)
    pair.settle(30.0)
    assert isinstance(upload.error, SessionClosedError)
    assert upload.done
    assert not upload.finished
    assert pair.client.listeners == []


def test_sending_over_what_ends_in_the_middle_of_an_event() -> None:
    """A listener before it ends the session while the event at hand is on its way to the sender."""
    pair = session_pair()

    def end(session: Session | None, event: Event) -> None:
        if isinstance(event, StreamWritable):
            pair.session.abort(pair.now)
            pair.client.pump()

    pair.client.listeners.append(end)
    Inbox(pair.server)
    upload = send(pair.client, pair.session, filler(3_000_000))
    pair.settle(5.0)
    assert isinstance(upload.error, SessionClosedError)
    assert pair.client.listeners == [end]


def test_sending_over_what_never_begins() -> None:
    world = World(1)
    client, server = world.node("client"), world.node("server", shared_seed="another")
    upload = send(client, client.connect(server), b"in vain")
    world.run_until(lambda: upload.done)
    assert upload.session.state is SessionState.CLOSED
    assert upload.error is upload.session.close_error
    too_late = send(client, upload.session, b"in vain")
    assert too_late.error is upload.error
    assert client.listeners == []


def test_sending_over_what_is_not_the_node_s() -> None:
    """It would wait for ever; nor is it the node's any more after a restart."""
    pair = session_pair()
    for node, session in ((pair.server, pair.session), (pair.client, pair.peer)):
        with pytest.raises(ArgumentError, match="one of <Node") as raised:
            send(node, session, b"not its session")
        assert raised.value.argument == "session"
    pair.client.restart()
    with pytest.raises(ArgumentError, match="in its present life"):
        send(pair.client, pair.session, b"of another life")
    assert pair.client.listeners == pair.server.listeners == []


def test_sending_with_options_that_cannot_be() -> None:
    """The mistake is raised, out of `send` or, where the session comes later, out of what lets time pass."""
    pair = session_pair()
    with pytest.raises(ArgumentError) as raised:
        send(pair.client, pair.session, b"x", max_attempts=99)
    assert raised.value.argument == "max_attempts"
    early = pair.client.connect(pair.server)
    for session in (pair.session, early):
        with pytest.raises(ArgumentError, match="attempts is no option") as raised:
            send(pair.client, session, b"x", attempts=9)  # type: ignore[call-arg]
        assert raised.value.argument == "attempts"
    upload = send(pair.client, early, b"x", max_attempts=99)
    with pytest.raises(ArgumentError):
        pair.world.run(1.0)
    assert isinstance(upload.error, ArgumentError)
    assert pair.client.listeners == []
    assert early.open_streams == 0


def test_sending_takes_all_options_of_a_stream() -> None:
    options = signature(Session.open_stream).parameters.keys() - {"self"}
    assert StreamOptions.__annotations__.keys() == options


def test_an_inbox_that_keeps_says_where_it_differs() -> None:
    """With `keep` the first byte that is another; without, at least that there is one."""
    pair = session_pair()
    kept, hashed = Inbox(pair.server, keep=True), Inbox(pair.client)
    serve_echo(pair.server)
    send(pair.client, pair.session, b"one way", bidirectional=False)
    pair.client.on_event = lambda *_: None
    send(pair.server, pair.peer, b"and back")
    pair.world.settle()
    incoming, answer = (next(iter(inbox.streams.values())) for inbox in (kept, hashed))
    assert incoming.kept == b"one way"
    incoming.assert_is(b"one way")
    for expected, at in ((b"one day", 4), (b"one way out", 7), (b"one", 3), (b"", 0)):
        with pytest.raises(
            AssertionError, match=rf"differs from the {len(expected)} bytes expected, from byte {at} on$"
        ):
            incoming.assert_is(expected)
    assert answer.kept is None
    answer.assert_is(b"and back")
    with pytest.raises(AssertionError, match="bytes expected$"):
        answer.assert_is(b"and bark")


def test_applications_print_briefly() -> None:
    pair = session_pair()
    inbox = Inbox(pair.server)
    upload = send(pair.client, pair.session, b"x", purpose="work")
    assert repr(upload) == "<Outgoing on <Stream 0 work>, under way>"
    pair.session.send_datagram(b"y", pair.now)
    pair.settle()
    assert repr(upload) == "<Outgoing on <Stream 0 work>, finished>"
    assert repr(inbox) == "<Inbox of server, 1 of 1 streams complete, 1 datagrams>"
    early = send(pair.client, pair.client.connect(pair.server), b"x")
    assert repr(early) == "<Outgoing on no stream yet, under way>"
    early.session.abort(pair.now)
    pair.settle()
    assert repr(early).startswith("<Outgoing on no stream yet, failed: SessionClosedError(")


def test_sending_what_the_peer_does_not_want() -> None:
    pair = session_pair()
    first = send(pair.client, pair.session, filler(2_000_000))
    second = send(pair.client, pair.session, filler(2_000_000))
    pair.settle(1.0)
    heard = pair.peer.stream(0)
    assert heard is not None
    heard.stop(77, pair.now)
    pair.settle(1.0)
    assert isinstance(first.error, StreamClosedError)
    assert first.error.stream_code == 77
    assert not second.done


def test_sending_more_than_the_peer_allows() -> None:
    pair = session_pair(server={"max_concurrent_streams": 1})
    first, second = (send(pair.client, pair.session, b"x") for _ in range(2))
    assert isinstance(second.error, TooManyStreamsError)
    pair.world.run_until(lambda: first.done)
    assert first.finished


# -- many worlds ---------------------------------------------------------------------------------------------------


def echo(world: World) -> None:
    """What must hold on every network: what was sent comes back, and nothing is left."""
    client, server = world.node("client"), world.node("server")
    serve_echo(server)
    inbox = Inbox(client)
    session = client.connect(server)
    upload = send(client, session, filler(20_000, world.seed))
    world.run_until(lambda: inbox.complete and upload.done, timeout=120.0)
    assert inbox.digests == [upload.digest]
    session.close(world.now)
    world.assert_idle(within=60.0)


def test_exploring() -> None:
    """Each world is another network; all faults that the links know have happened somewhere."""
    tally = explore(echo, range(60), random_conditions)
    assert tally.worlds == 60
    assert tally.datagrams > 3000
    assert tally.seconds > 60
    happened = {name for name in Traffic.__slots__ if getattr(tally.traffic, name, 0)}  # type: ignore[attr-defined]
    assert happened >= {"lost", "burst", "duplicated", "reordered", "corrupted", "truncated"}


def test_exploring_one_network() -> None:
    assert explore(echo, [1, 2], CELLULAR).worlds == 2
    assert explore(echo, []) == Tally()


def test_exploring_finds_and_tells() -> None:
    """The exception is the scenario's own; its notes say which world, and the call that makes it again."""

    def unlucky(world: World) -> None:
        world.run(1.0)
        if world.seed == 13:
            raise LookupError("found")

    with pytest.raises(LookupError, match="found") as failed:
        explore(unlucky, range(100), Conditions(delay=0.5))
    world = "World(seed=13, conditions=Conditions(delay=0.5))"
    assert failed.value.__notes__ == [
        f"the same again: {world}, at 1.000000 s",
        f"that is {__name__}.{unlucky.__qualname__}({world})",
    ]


class Named:
    """A scenario that is no function."""

    def __call__(self, world: World) -> None:
        raise LookupError("found")

    def method(self, world: World) -> None:
        self(world)

    def __repr__(self) -> str:
        return "Named()"


@pytest.mark.parametrize(
    ("scenario", "name"),
    [
        (Named(), "Named()"),
        (partial(Named()), "functools.partial(Named())"),
        (Named().method, f"{__name__}.Named.method"),
    ],
)
def test_exploring_with_what_is_no_function(scenario: Scenario, name: str) -> None:
    """A callable object and a `functools.partial` have no name; their failure is theirs all the same."""
    with pytest.raises(LookupError, match="found") as failed:
        explore(scenario, [7])
    assert failed.value.__notes__[-1] == f"that is {name}(World(seed=7))"


@pytest.mark.parametrize(
    ("scenario", "conditions", "argument"),
    [(None, None, "scenario"), (echo, {}, "conditions"), (echo, lambda _: 0, "conditions")],
)
def test_exploring_nothing(scenario: Any, conditions: Any, argument: str) -> None:
    with pytest.raises(ArgumentError) as raised:
        explore(scenario, [1], conditions)
    assert raised.value.argument == argument


def test_random_conditions() -> None:
    """The same for the same seed; every kind of fault is there somewhere and missing somewhere."""
    drawn = [random_conditions(seed) for seed in range(300)]
    assert drawn == [random_conditions(seed) for seed in range(300)]
    for name in ("jitter", "loss", "duplicate", "reorder", "corrupt", "truncate"):
        values = [getattr(conditions, name) for conditions in drawn]
        assert 0.2 < sum(value > 0 for value in values) / 300 < 0.6
    for name in ("rate", "burst", "ecn_threshold"):
        values = [getattr(conditions, name) for conditions in drawn]
        assert None in values
        assert sum(value is not None for value in values) > 50
    assert all(eval(repr(one), {"Conditions": Conditions, "GilbertElliott": GilbertElliott}) == one for one in drawn)
