"""Nodes behind a translator of addresses: mappings, filters, and what a rebinding does to a session (RFC 4787)."""

from __future__ import annotations

from itertools import pairwise

import pytest

from stt_proto import NetworkPath
from stt_proto.testing import Conditions, Inbox, Nat, World, send
from tests.proto.worlds import filler

INSIDE, SERVER, OTHER = ("client", 1), ("server", 1), ("other", 1)


def translated(**traits: object) -> tuple[World, Nat]:
    """A world with a client behind a nat, and two servers outside."""
    world = World(1, record=True)
    client = world.node("client")
    world.node("server")
    world.node("other")
    return world, world.nat(client, **traits)


# -- mappings ------------------------------------------------------------------------------------------------------


def test_one_mapping_for_all_who_are_sent_something() -> None:
    """RFC 4787, 4.1: endpoint-independent mapping."""
    nat = Nat("nat")
    assert nat.public_address(INSIDE) is None
    assert nat.outbound(INSIDE, SERVER, 0.0) == ("nat", 40_000)
    assert nat.outbound(INSIDE, OTHER, 1.0) == ("nat", 40_000)
    assert nat.outbound(("second", 1), SERVER, 1.0) == ("nat", 40_001)
    assert nat.public_address(INSIDE) == ("nat", 40_000)
    assert nat.owner(("nat", 40_001)) == ("second", 1)
    assert nat.owner(("nat", 40_002)) is None


def test_symmetric() -> None:
    """RFC 4787, 4.1: address and port-dependent mapping."""
    nat = Nat("nat", symmetric=True)
    assert nat.outbound(INSIDE, SERVER, 0.0) == ("nat", 40_000)
    assert nat.outbound(INSIDE, OTHER, 0.0) == ("nat", 40_001)
    assert nat.outbound(INSIDE, SERVER, 0.0) == ("nat", 40_000)
    assert nat.public_address(INSIDE, OTHER) == ("nat", 40_001)
    assert nat.public_address(INSIDE) is None
    assert nat.inbound(("nat", 40_000), SERVER, 0.0) == INSIDE
    assert nat.inbound(("nat", 40_000), OTHER, 0.0) is None


def test_only_who_was_sent_something_is_let_in() -> None:
    """RFC 4787, 5: address and port-dependent filtering, or none."""
    nat, open_nat = Nat("nat"), Nat("nat", filtering=False)
    for each in (nat, open_nat):
        each.outbound(INSIDE, SERVER, 0.0)
        assert each.inbound(("nat", 40_000), SERVER, 1e6) == INSIDE
    assert nat.inbound(("nat", 40_000), OTHER, 0.0) is None
    assert open_nat.inbound(("nat", 40_000), OTHER, 0.0) == INSIDE
    assert open_nat.inbound(("nat", 40_001), OTHER, 0.0) is None
    assert (nat.dropped, open_nat.dropped) == (1, 1)


def test_mappings_expire_unless_something_is_sent() -> None:
    """RFC 4787, 4.3: sending refreshes; receiving does not."""
    nat = Nat("nat", timeout=30.0)
    nat.outbound(INSIDE, SERVER, 0.0)
    assert nat.inbound(("nat", 40_000), SERVER, 30.0) == INSIDE
    assert nat.outbound(INSIDE, SERVER, 30.0) == ("nat", 40_000)
    assert nat.inbound(("nat", 40_000), SERVER, 60.0) == INSIDE
    assert nat.inbound(("nat", 40_000), SERVER, 60.1) is None
    assert nat.outbound(INSIDE, SERVER, 60.1) == ("nat", 40_001), "a new one"
    assert nat.inbound(("nat", 40_000), SERVER, 60.1) is None
    assert nat.inbound(("nat", 40_001), SERVER, 60.1) == INSIDE
    assert nat.owner(("nat", 40_000)) == INSIDE


def test_without_a_filter_mappings_expire_too() -> None:
    nat = Nat("nat", timeout=30.0, filtering=False)
    nat.outbound(INSIDE, SERVER, 0.0)
    assert nat.inbound(("nat", 40_000), OTHER, 30.0) == INSIDE
    assert nat.inbound(("nat", 40_000), OTHER, 30.1) is None


def test_filters_expire_each_for_itself() -> None:
    """The mapping lives on by what is sent to others, and who was sent nothing for too long is not let in any more."""
    nat = Nat("nat", timeout=30.0)
    for now in (0.0, 20.0, 40.0, 60.0):
        nat.outbound(INSIDE, OTHER, now)
    for now in (0.0, 20.0):
        nat.outbound(INSIDE, SERVER, now)
    assert nat.inbound(("nat", 40_000), SERVER, 50.0) == INSIDE
    assert nat.inbound(("nat", 40_000), SERVER, 60.0) is None
    assert nat.inbound(("nat", 40_000), OTHER, 60.0) == INSIDE


def test_rebinding() -> None:
    nat = Nat("nat")
    nat.outbound(INSIDE, SERVER, 0.0)
    nat.rebind_port()
    assert nat.public_address(INSIDE) is None
    assert nat.inbound(("nat", 40_000), SERVER, 0.0) is None
    assert nat.outbound(INSIDE, SERVER, 0.0) == ("nat", 40_001)
    nat.rebind_address()
    assert nat.outbound(INSIDE, SERVER, 0.0) == ("nat'", 40_002)
    assert nat.inbound(("nat", 40_001), SERVER, 0.0) is None
    nat.rebind_address("203.0.113.7")
    assert nat.outbound(INSIDE, SERVER, 0.0) == ("203.0.113.7", 40_003)
    assert (nat.rebindings, nat.dropped) == (3, 2)


# -- in a world ----------------------------------------------------------------------------------------------------


def test_a_session_through_a_nat() -> None:
    """The server sees the public address; the client knows nothing of it."""
    world, nat = translated(host="198.51.100.1")
    client, server = world.nodes[INSIDE], world.nodes[SERVER]
    inbox = Inbox(server)
    session = client.connect(server)
    upload = send(client, session, filler(50_000))
    world.run_until(lambda: upload.done)
    assert inbox.digests == [upload.digest]
    (peer,) = server.sessions
    assert peer.path == NetworkPath("udp", SERVER, ("198.51.100.1", 40_000))
    assert session.path == NetworkPath("udp", INSIDE, SERVER)
    assert nat.dropped == 0
    session.close(world.now)
    world.assert_idle()


def test_the_wire_behind_a_nat_is_the_node_s() -> None:
    """What is set up between two nodes holds in both directions, whatever the public address is."""
    world, _ = translated()
    client, server = world.nodes[INSIDE], world.nodes[SERVER]
    there, returned = world.link(client, server, Conditions(delay=0.2), Conditions(delay=0.3))
    session = client.connect(server)
    world.run_until(session.is_active)
    assert world.now == pytest.approx(1.0)
    assert there.traffic.sent >= 2
    assert returned.traffic.sent >= 2
    assert set(world.links) == {(INSIDE, SERVER), (SERVER, INSIDE)}


@pytest.mark.parametrize("kind", ["port", "address"])
def test_replies_to_an_old_mapping_vanish(kind: str) -> None:
    """What was under way at the moment of the rebinding does not get through either."""
    world, nat = translated()
    client, server = world.nodes[INSIDE], world.nodes[SERVER]
    session = client.connect(server)
    world.run_until(session.is_active)
    world.settle()
    old = nat.public_address(INSIDE)
    (peer,) = server.sessions
    peer.send_datagram(b"too late", world.now)
    server.pump()
    getattr(nat, f"rebind_{kind}")()
    world.run(0.02)
    assert session.receive_datagram() is None
    assert nat.dropped == 1
    assert world.transcript is not None
    last = world.transcript.entries[-1]
    assert (last.source, last.target, last.fate) == (SERVER, old, "not let in by the nat")
    session.send_datagram(b"from a new address", world.now)
    client.pump()
    world.run(0.02)
    assert peer.receive_datagram() == b"from a new address"
    sources = {entry.source for entry in world.transcript if entry.target == SERVER}
    assert sources == {old, nat.public_address(INSIDE)}
    assert len(sources) == 2
    assert len(world.links) == 2, "the wire is the same"
    assert nat.public_address(INSIDE) == (("nat", 40_001) if kind == "port" else ("nat'", 40_001))


def test_a_private_address_leads_nowhere_from_outside() -> None:
    world, _ = translated()
    client, other = world.nodes[INSIDE], world.nodes[OTHER]
    other.connect(client)
    world.run(1.0)
    assert client.endpoint.counters.refused == client.endpoint.counters.malformed == 0
    assert not client.log
    assert world.transcript is not None
    assert world.transcript.having("not let in by the nat")


def test_neighbours_need_no_translation() -> None:
    world = World(1)
    client, neighbour = world.node("client"), world.node("neighbour")
    nat = world.nat(client, neighbour)
    session = client.connect(neighbour)
    world.run_until(session.is_active)
    assert neighbour.sessions[0].path.remote == client.address
    assert nat.public_address(client.address) is None


def test_two_nats() -> None:
    """Both ends behind one: it takes a third party to tell the addresses, and both to send (hole punching)."""
    world = World(1)
    here, there = world.node("here"), world.node("there")
    nats = world.nat(here, host="nat here"), world.nat(there, host="nat there")
    for node, nat in zip((here, there), nats, strict=True):
        world.send(b"who am I?", NetworkPath("udp", node.address, ("directory", 1)))
        assert nat.public_address(node.address) == (nat.host, 40_000)
    paths = [
        NetworkPath("udp", node.address, nat.public_address(other.address))
        for node, other, nat in ((here, there, nats[1]), (there, here, nats[0]))
    ]
    world.send(b"a hole", paths[1])
    world.run(1.0)
    assert nats[0].dropped == 1
    session = here.endpoint.connect(paths[0], now=world.now)
    here.pump()
    world.run_until(session.is_active)
    assert there.sessions[0].path.remote == ("nat here", 40_000)


def test_rebinding_every_second_leaves_nothing_behind() -> None:
    """Rebound every second, for as long as it lasts: no table grows, and in the end all are empty."""
    world, nat = translated()
    client, server = world.nodes[INSIDE], world.nodes[SERVER]
    inbox = Inbox(server)
    session = client.connect(server)
    upload = send(client, session, filler(200_000))
    for second in range(1, 40):
        world.at(float(second), nat.rebind_address if second % 2 else nat.rebind_port)
    world.run(60.0)
    assert nat.rebindings == 39
    assert inbox.digests == ([upload.digest] if upload.finished else [])
    session.abort(world.now)
    for peer in server.sessions:
        peer.abort(world.now)
    world.assert_idle()
    assert world.transcript is not None
    assert all(one.at <= other.at for one, other in pairwise(world.transcript))
