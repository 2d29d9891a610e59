"""What an endpoint is handed by its host and sent by strangers: arguments, buffers, stateless resets."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve

from stt_proto.errors import (
    ArgumentError,
    SessionClosedError,
)
from stt_proto.events import SessionClosed
from stt_proto.testing import Node, tables
from stt_proto.wire import Datagram
from tests.proto.worlds import (
    PATH,
    Pair,
    assert_empty,
    back,
    datagrams_of,
    filler,
    lone_endpoint,
    sealed,
    session_pair,
)

# -- arguments -----------------------------------------------------------------------------------------------------


def test_an_unknown_congestion_controller() -> None:
    with pytest.raises(ArgumentError, match="newreno") as caught:
        lone_endpoint(congestion="magic")
    assert caught.value.argument == "congestion"


@pytest.mark.parametrize(
    ("argument", "arguments"),
    [
        ("path", {"path": evolve(PATH, carrier="pigeon")}),
        ("path", {"path": ("udp", 1, 2)}),
        ("peer_node_id", {"peer_node_id": b"x" * 31}),
        ("peer_node_id", {"peer_node_id": "x" * 32}),
        ("peer_node_id", {"peer_node_id": 32}),
        ("ticket", {"ticket": b"later"}),
    ],
)
def test_connect_checks_its_arguments(argument: str, arguments: dict[str, Any]) -> None:
    """A11: a `LocalError` that names the argument, and nothing is left behind."""
    node = lone_endpoint()
    with pytest.raises(ArgumentError) as caught:
        node.connect(**{"path": PATH, "now": 0.0, **arguments})
    assert caught.value.argument == argument
    assert set(tables(node).values()) == {0}


@pytest.mark.parametrize(
    ("argument", "arguments"),
    [
        ("path", {"path": evolve(PATH, carrier="pigeon")}),
        ("path", {"path": None}),
        ("data", {"data": "text"}),
        ("data", {"data": None}),
        ("data", {"data": memoryview(bytes(100))[::2]}),
        ("segment_size", {"segment_size": 0}),
        ("segment_size", {"segment_size": -5}),
        ("segment_size", {"segment_size": 10.0}),
        ("ecn", {"ecn": 4}),
        ("ecn", {"ecn": -1}),
        ("ecn", {"ecn": "x"}),
        ("ecn", {"ecn": None}),
        ("ecn", {"ecn": []}),
    ],
)
def test_receive_checks_its_arguments(argument: str, arguments: dict[str, Any]) -> None:
    """A11: what the network sends never raises; what the host gets wrong does, and nothing is taken in."""
    node = lone_endpoint()
    with pytest.raises(ArgumentError) as caught:
        node.receive(**{"data": b"x" * 100, "path": PATH, "now": 0.0, **arguments})
    assert caught.value.argument == argument
    assert node.counters == lone_endpoint().counters


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda data: memoryview(array("I", data))])
def test_any_buffer_is_borrowed(wrap: Callable[[bytes], Any]) -> None:
    """DESIGN 3, "In": any buffer; the host may use it again at once."""
    pair = session_pair()
    (datagram,) = sealed(pair.session, Datagram(filler(104 - 13 - 16 - 3)))
    assert len(datagram) % 4 == 0
    buffer = wrap(datagram)
    pair.server.endpoint.receive(buffer, pair.peer.path, pair.now)
    if isinstance(buffer, bytearray):
        buffer[:] = bytes(len(buffer))
    assert pair.peer.receive_datagram() == filler(104 - 13 - 16 - 3)


# -- stateless reset -----------------------------------------------------------------------------------------------


def restarted(pair: Pair, **changes: Any) -> Node:
    """The server comes up again under its old address and has forgotten everything but its configuration."""
    node = Node(pair.world, "server, restarted", evolve(pair.server.config, **changes))
    node.address = pair.server.address
    pair.world.nodes[node.address] = node
    return node


def test_stateless_reset() -> None:
    """P-14, C-5: a restarted server with its old reset key tells its old peers at once."""
    key = b"k" * 32
    pair = session_pair(server={"reset_key": key})
    server = restarted(pair)
    pair.session.send_datagram(filler(100), pair.now)
    pair.settle(0.1)
    assert isinstance(pair.session.close_error, SessionClosedError)
    (closed,) = pair.client.events(SessionClosed)
    assert (closed.reason, closed.code, closed.by_peer) == ("error", 0x0201, True)
    assert closed.detail == "the peer has forgotten the session"
    assert server.endpoint.counters.resets_sent == 1
    assert_empty(pair.client, server)


def test_a_reset_with_another_key_means_nothing() -> None:
    """P-14, C-5: without a configured key a restarted server cannot tell, and whoever else sends resets neither."""
    pair = session_pair()
    server = restarted(pair)
    pair.session.send_datagram(filler(100), pair.now)
    pair.settle(0.1)
    assert server.endpoint.counters.resets_sent >= 1
    assert pair.session.is_active()
    assert pair.client.endpoint.counters.misdirected >= 1


def test_a_reset_ends_a_session_once() -> None:
    """P-14: one that comes for a session that is over changes nothing."""
    pair = session_pair(server={"reset_key": b"k" * 32})
    server = restarted(pair)
    packets = [sealed(pair.session, Datagram(filler(100)))[0] for _ in range(2)]
    for packet in packets:
        server.endpoint.receive(packet, back(pair.session.path), pair.now)
    resets = datagrams_of(server, pair.now)
    assert len(resets) == 2
    pair.session.abort(pair.now)
    for reset in resets:
        pair.client.endpoint.receive(reset, pair.session.path, pair.now)
    pair.client.pump()
    assert [event.detail for event in pair.client.events(SessionClosed)] == ["aborted by this side"]


def test_what_is_answered_with_a_reset() -> None:
    """P-14: packets of at least 43 bytes for an unknown ID, with something shorter; nothing that is no packet."""
    node = lone_endpoint()
    for size, first, sent in [(42, 0x40, 0), (43, 0x40, 1), (1200, 0x60, 1), (1200, 0x00, 0), (1200, 0x80, 0)]:
        node.receive(bytes((first,)) + filler(size - 1, size), PATH, 0.0)
        answers = list(node.transmits(0.0))
        assert len(answers) == sent
        assert all(answer.size < size for answer in answers)
    assert node.counters.misdirected == 3
    assert node.counters.malformed == 2


def test_runs_do_not_buy_larger_resets() -> None:
    """P-14: each datagram of a run is a trigger of its own, or two endpoints could answer each other for ever."""
    node = lone_endpoint()
    node.receive((b"\x40" + filler(41)) * 20, PATH, 0.0, segment_size=42)
    assert node.counters.misdirected == 20
    assert list(node.transmits(0.0)) == []


def test_resets_are_few_and_only_where_datagrams_get_lost() -> None:
    """P-14: 10 a second; none on carriers that are reliable."""
    node = lone_endpoint()
    for number in range(50):
        node.receive(b"\x40" + filler(99, number), PATH, 0.0)
    assert len(list(node.transmits(0.0))) == 10
    node.receive(b"\x40" + filler(99), evolve(PATH, carrier="ws"), 5.0)
    assert list(node.transmits(5.0)) == []


def test_a_reset_is_found_in_any_datagram_of_a_run() -> None:
    """P-14."""
    pair = session_pair(server={"reset_key": b"k" * 32})
    server = restarted(pair)
    server.endpoint.receive(sealed(pair.session, Datagram(filler(100)))[0], back(pair.session.path), pair.now)
    (reset,) = datagrams_of(server, pair.now)
    run = reset + b"\x40" + filler(len(reset) - 1)
    pair.client.endpoint.receive(run, pair.session.path, pair.now, segment_size=len(reset))
    assert pair.session.is_closed
