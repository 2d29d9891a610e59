"""What a newcomer gets wrong with worlds and nodes: the mistake is named at once, and nothing has happened."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest

from stt_proto.errors import ArgumentError
from stt_proto.testing import Conditions, Nat, Node, SeededEntropy, Transcript, World, send
from tests.proto.worlds import filler, session_pair

A, B = ("a", 1), ("b", 1)


def two(**more: Any) -> tuple[World, Node, Node]:
    """A world with two nodes."""
    world = World(1, **more)
    return world, world.node("a"), world.node("b")


# -- seconds -------------------------------------------------------------------------------------------------------

CALLS = {
    "at": ("time", lambda world, value: world.at(value, lambda: None)),
    "run": ("seconds", lambda world, value: world.run(value)),
    "run_until": ("timeout", lambda world, value: world.run_until(lambda: True, value)),
    "settle": ("timeout", lambda world, value: world.settle(value)),
    "assert_idle": ("within", lambda world, value: world.assert_idle(value)),
    "outage start": ("start", lambda world, value: world.outage(world.nodes[A], world.nodes[B], value)),
    "outage": ("seconds", lambda world, value: world.outage(world.nodes[A], world.nodes[B], 0.0, value)),
    "pause": ("seconds", lambda world, value: world.nodes[A].pause(value)),
    "restart": ("downtime", lambda world, value: world.nodes[A].restart(value)),
    "jump_clock": ("seconds", lambda world, value: world.nodes[A].jump_clock(value)),
    "Node.at": ("time", lambda world, value: world.nodes[A].at(value, lambda: None)),
    "nat": ("timeout", lambda world, value: world.nat(world.nodes[A], timeout=value)),
}
ENDLESS = {"run_until", "settle", "assert_idle", "outage", "pause", "restart", "nat"}
SIGNED = {"at", "Node.at", "outage start", "jump_clock"}


@pytest.mark.parametrize("call", CALLS)
def test_seconds_are_checked_everywhere(call: str) -> None:
    """Not-a-number would stop the agenda, and less than nothing turn time back; nothing has happened by then."""
    world, node, _ = two(record=True)
    argument, action = CALLS[call]
    bad = [nan, -inf, "1", None, True, 10**400]
    bad += [] if call in ENDLESS else [inf]
    bad += [] if call in SIGNED else [-3]
    for value in bad:
        with pytest.raises(ArgumentError, match=f"^{argument} is .*; it must be seconds, ") as raised:
            action(world, value)
        assert raised.value.argument == argument
    assert (world.now, node.now, node.awake) == (0.0, 0.0, True)
    assert world.transcript == Transcript()
    assert not world.hosts
    assert not world.step()
    for value in [0.0, 1, 2.5] + ([inf] if call in ENDLESS else []) + ([-3] if call in SIGNED else []):
        world, node, _ = two()
        action(world, value)
        world.run(1.0)


def test_a_restart_that_is_refused_leaves_all_as_it_was() -> None:
    pair = session_pair()
    endpoint, config = pair.server.endpoint, pair.server.config
    for changes in ({"downtime": nan}, {"congestion": "none"}):
        with pytest.raises(ArgumentError):
            pair.server.restart(**changes)  # type: ignore[arg-type]
    assert (pair.server.endpoint, pair.server.config) == (endpoint, config)
    assert pair.peer.is_active()


# -- other arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "action"),
    [
        ("action", lambda world, a, b: world.at(1.0, None)),
        ("action", lambda world, a, b: a.at(1.0, None)),
        ("buffer", lambda world, a, b: a.pause(buffer="64k")),
        ("buffer", lambda world, a, b: a.pause(buffer=-1)),
        ("buffer", lambda world, a, b: a.pause(buffer=1.5)),
        ("symmetric", lambda world, a, b: world.nat(a, symmetric="yes")),
        ("filtering", lambda world, a, b: world.nat(a, filtering=None)),
        ("host", lambda world, a, b: world.nat(a, host=7)),
        ("nodes", lambda world, a, b: world.nat(a, B)),
        ("there", lambda world, a, b: world.link(a, b, {})),
        ("back", lambda world, a, b: world.link(a, b, Conditions(), 0)),
        ("back", lambda world, a, b: world.link(a, b, Conditions(), {})),
        ("one", lambda world, a, b: world.link(A, b, Conditions())),
        ("other", lambda world, a, b: world.outage(a, "b", 0.0)),
        ("other", lambda world, a, b: a.connect("b")),
        ("condition", lambda world, a, b: world.run_until(None)),
        ("node", lambda world, a, b: send(None, None, b"")),
        ("session", lambda world, a, b: send(a, None, b"")),
        ("name", lambda world, a, b: world.node(7)),
    ],
)
def test_arguments_of_another_kind(argument: str, action: Any) -> None:
    world, a, b = two()
    with pytest.raises(ArgumentError, match=f"^{argument} is ") as raised:
        action(world, a, b)
    assert raised.value.argument == argument
    assert a.awake
    assert not world.links
    assert not world.hosts
    assert not world._agenda


@pytest.mark.parametrize("conditions", [{}, 0, "", "wifi", Conditions])
def test_conditions_of_a_world_are_conditions(conditions: Any) -> None:
    with pytest.raises(ArgumentError, match="^conditions is "):
        World(1, conditions)


def test_worlds_do_not_mix() -> None:
    """A node of another world is none to dial, to link, to cut off, or to put behind anything."""
    world, a, b = two()
    stranger = World(2).node("a")
    for action in (
        lambda: a.connect(stranger),
        lambda: a.path_to(stranger),
        lambda: world.link(a, stranger, Conditions()),
        lambda: world.link(stranger, b, Conditions()),
        lambda: world.outage(a, stranger, 0.0),
        lambda: world.link_between(stranger, b),
        lambda: world.link_between(a, stranger),
        lambda: world.nat(a, stranger),
    ):
        with pytest.raises(ArgumentError, match="a node of this world"):
            action()
    assert not world.links
    assert a.sessions == []


@pytest.mark.parametrize("seed", [None, -1, True, 1.5, b"1"])
def test_seeds_that_are_none(seed: Any) -> None:
    """`None` would be the randomness of the system, and -1 the same as 1."""
    with pytest.raises(ArgumentError) as raised:
        SeededEntropy(seed)
    assert raised.value.argument == "seed"


def test_seeds_give_what_they_always_gave() -> None:
    """What stands in reports of failures must go on to replay."""
    assert [SeededEntropy(seed)(4).hex() for seed in (0, 1, "1/client")] == ["cd072cd8", "f5b16522", "f05ccfe5"]
    assert repr(SeededEntropy("1/client")) == "SeededEntropy('1/client')"
    assert repr(SeededEntropy(5)) == "SeededEntropy(5)"


# -- names and addresses -------------------------------------------------------------------------------------------


def test_names_and_addresses_are_taken_once() -> None:
    """A second one would take the place of the first, and get what is sent to it."""
    world, a, b = two()
    a.also_at(("a", 2))
    for argument, name, address in (("name", "a", None), ("name", "a", ("c", 1)), ("address", "c", ("a", 2))):
        with pytest.raises(ArgumentError) as raised:
            world.node(name, address=address)
        assert raised.value.argument == argument
    for address in (B, None):
        with pytest.raises(ArgumentError) as raised:
            a.also_at(address)
        assert raised.value.argument == "address"
    assert world.nodes == {A: a, B: b, ("a", 2): a}
    assert a.also_at(("a", 2)) == ("a", 2), "its own is no other's"


def test_links_between_nodes() -> None:
    """A node stands for its first address; it made a link that nobody used."""
    world, a, b = two()
    assert world.link_between(a, b) is world.link_between(A, b) is world.link_between(A, B)
    assert set(world.links) == {(A, B)}
    world.link_between(a, b).up = False
    a.connect(b)
    world.run(1.0)
    assert world.traffic.lost > 0


def test_a_new_link_keeps_the_outages() -> None:
    """Whatever comes first, `outage` or `link`; only the conditions are others."""
    world, a, b = two()
    world.outage(a, b, 0.0, 1.0)
    for link in world.link(a, b, Conditions(delay=0.3), Conditions(delay=0.2)):
        assert link.carry(b"x", 0.9) == []
        assert link.fate == "cut"
        assert link.carry(b"x", 1.0)
    world.link(a, b, Conditions())[0].outage(5.0, 1.0)
    assert world.link_between(b, a).carry(b"x", 5.5), "the other direction has its own"


def test_each_nat_has_a_host_of_its_own() -> None:
    """Two with one public address would take each other's replies."""
    world, a, b = two()
    first, second = world.nat(a), world.nat(b)
    assert [first.host, second.host] == ["nat", "nat2"]
    c, d = world.node("c"), world.node("d")
    sessions = [node.connect(other) for node, other in ((a, c), (b, c), (a, d), (b, d))]
    world.run_until(lambda: all(session.is_active() for session in sessions))
    assert {session.path.remote for session in c.sessions} == {("nat", 40_000), ("nat2", 40_000)}
    third = world.nat(c, host="nat4")
    assert [world.nat(host=None).host for _ in range(2)] == ["nat3", "nat5"]
    first.rebind_address("elsewhere")
    for host in ("nat", "nat2", "elsewhere"):
        for action in (lambda host=host: world.nat(d, host=host), lambda host=host: third.rebind_address(host)):
            with pytest.raises(ArgumentError) as raised:
                action()
            assert raised.value.argument == "host"
    assert (third.host, third.rebindings) == ("nat4", 0), "nothing was forgotten"
    first.rebind_address("nat")
    assert first.host == "nat", "it may come back"


def test_a_nat_makes_up_a_host_that_is_free() -> None:
    world = World(1)
    nat = world.nat(host="x")
    world.nat(host="x'")
    nat.rebind_address()
    assert nat.host == "x''"
    assert [Nat("x").host, Nat("x").host] == ["x", "x"], "worlds know nothing of each other"
    assert repr(nat) == "<Nat x'', 0 mappings>"


# -- conditions that are never met -----------------------------------------------------------------------------


def test_a_condition_that_is_not_called() -> None:
    """A bound method is true whatever it would give."""
    world, a, b = two()
    session = a.connect(b)
    with pytest.raises(ArgumentError, match="^condition gives .*is_active.*; call it") as raised:
        world.run_until(lambda: session.is_active)
    assert raised.value.argument == "condition"
    world.run_until(lambda: session.is_active())


def test_a_refused_handshake_is_named() -> None:
    """Nothing is left to wait for, and the session says why it is closed."""
    world = World(3)
    a, b = world.node("a"), world.node("b", shared_seed="another")
    session = a.connect(b)
    told = r"not reached, and nothing is left to happen at [0-9.]+ s in World\(seed=3\); a has <Session \? closed .*>: "
    with pytest.raises(AssertionError, match=told) as failed:
        world.run_until(session.is_active, timeout=inf)
    assert world.now < 60.0
    assert repr(session.close_error) in str(failed.value)


def test_only_the_last_closed_sessions_are_named() -> None:
    world, a, b = two()
    for _ in range(10):
        session = a.connect(b)
        world.run_until(session.is_active)
        session.close(world.now)
        a.pump()
        world.settle()
    with pytest.raises(AssertionError) as failed:
        world.run_until(lambda: False, timeout=0.5)
    assert str(failed.value).count(" has <Session") == 4
    assert str(failed.value).startswith("not reached within 0.5 s of virtual time in World(seed=1); b has ")


# -- timers of an application --------------------------------------------------------------------------------------


def timers() -> tuple[World, Node, list[tuple[str, float]]]:
    """A node with timers at 3, 1 and 2 s of its clock, and what they have written, with the time of the world."""
    world = World(1)
    node = world.node("node")
    fired: list[tuple[str, float]] = []
    for name, at in (("c", 3.0), ("a", 1.0), ("b", 2.0)):
        node.at(at, lambda name=name: fired.append((name, world.now)))  # type: ignore[misc]
    return world, node, fired


def test_timers_go_by_the_clock_of_the_host() -> None:
    world, node, fired = timers()
    world.run(1.5)
    node.jump_clock(-0.1 - 1e-9)
    world.run(10.0)
    assert fired == [("a", 1.0), ("b", pytest.approx(2.1)), ("c", pytest.approx(3.1))]
    world, node, fired = timers()
    node.jump_clock(2.5)
    assert fired == [("a", 0.0), ("b", 0.0)]
    world.run(10.0)
    assert fired[2:] == [("c", 0.5)]


def test_timers_of_a_sleeper_wait() -> None:
    world, node, fired = timers()
    node.pause(2.5)
    node.at(0.5, lambda: node.pause(1.0))
    world.run(10.0)
    assert fired == [("a", 3.5), ("b", 3.5), ("c", 3.5)], "the earliest of them sent it to sleep again"


def test_timers_are_forgotten_by_a_restart() -> None:
    world, node, fired = timers()
    world.run(1.0)
    node.restart()
    world.run(10.0)
    assert [name for name, _ in fired] == ["a"]


def test_a_timer_in_the_past_goes_off_next() -> None:
    """What it starts is pumped; one that begins itself anew for ever is found."""
    pair = session_pair()
    pair.client.at(-5.0, lambda: pair.session.send_datagram(filler(10), pair.client.now))
    pair.world.run(0.02)
    assert pair.peer.receive_datagram() == filler(10)

    def again() -> None:
        pair.client.at(0.0, again)

    again()
    with pytest.raises(AssertionError, match="client wants to be woken for ever"):
        pair.world.run(1.0)


def test_a_thousand_timers_at_once() -> None:
    world = World(1)
    node = world.node("node")
    fired: list[int] = []
    for number in range(5000):
        node.at(1.0, lambda number=number: fired.append(number))  # type: ignore[misc]
    world.run(2.0)
    assert fired == list(range(5000))
