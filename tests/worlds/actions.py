"""What can happen in a random world: the table of its actions.

Each is given the world and a source of randomness of its own, so that leaving out one changes nothing about the others
but what they find.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from attrs import evolve

from stt_proto import NetworkPath, Priority
from stt_proto.errors import SttError
from stt_proto.testing import Node, SeededEntropy
from tests.worlds.player import Player
from tests.worlds.recipe import conditions
from tests.worlds.seats import Line, Seat

if TYPE_CHECKING:
    from tests.worlds.runner import RandomWorld

Action = Callable[["RandomWorld", random.Random], None]

PROCESS_BUFFER = 212_992
"""Bytes that a system keeps for the socket of a process that is stopped."""
NOWHERE = ("elsewhere", 9)
"""An address at which nobody is."""


SPARE_PORTS = (2, 3)
"""The other addresses of each node."""
SLEEPS = frozenset({"sleep", "stop_process"})
"""Actions in which a host loses what was on its way, whatever the carrier: no reliable one would."""


# -- applications --------------------------------------------------------------------------------------------------


def some_player(world: RandomWorld, rng: random.Random) -> Player | None:
    """An application whose host runs."""
    awake = [player for player in world.players if player.node.awake]
    return rng.choice(awake) if awake else None


def some_seat(world: RandomWorld, rng: random.Random) -> tuple[Player, Seat] | None:
    """An end of a session, rather one that is established."""
    seats = [(player, seat) for player in world.players if player.node.awake for seat in player.seats.values()]
    active = [each for each in seats if each[1].session.is_active()]
    return rng.choice(active if active and rng.random() < 0.9 else seats) if seats else None


def some_line(world: RandomWorld, rng: random.Random, kind: str) -> tuple[Player, Seat, Line] | None:
    """An end of a stream that can write (`out`) or read (`into`), rather one that is not over."""
    awake = (player for player in world.players if player.node.awake)
    lines = [(player, seat, line) for player in awake for seat, line in player.lines() if getattr(line, kind)]
    wanted = "writable" if kind == "out" else "readable"
    useful = [each for each in lines if each[1].session.is_active() and getattr(getattr(each[2], kind), wanted)]
    return rng.choice(useful if useful and rng.random() < 0.95 else lines) if lines else None


def dial(world: RandomWorld, rng: random.Random) -> None:
    """Meet another node, perhaps a certain one."""
    player = some_player(world, rng)
    if player is None:
        return
    others = [each.node for each in world.players if each is not player]
    within_reach = [node for node in others if not world.is_hidden(node)]
    other = rng.choice(within_reach if within_reach and rng.random() < 0.95 else others)
    pinned = rng.choices((None, other.config.identity.node_id, bytes(31) + b"\x09"), (20, 5, 1))[0]
    early = rng.choice((0, 16, 100, 100, 768)) if world.recipe.early else 0
    player.dial(other, world.recipe.carrier, early=early, peer_node_id=pinned)


def storm(world: RandomWorld, rng: random.Random) -> None:
    """Everybody meets at once."""
    for _ in range(rng.choice((5, 12))):
        dial(world, rng)


def open_stream(world: RandomWorld, rng: random.Random) -> None:
    """Open a stream, and perhaps say something on it at once; meet somebody where there is no session."""
    found = some_seat(world, rng)
    if found is None or found[1].session.is_closed:
        dial(world, rng)
    if found is None:
        return
    player, seat = found
    options: dict[str, Any] = {"no_delay": False} if rng.random() < 0.1 else {}
    if rng.random() < 0.2:
        options["priority"] = some_priority(rng)
    if rng.random() < 0.2:
        options |= rng.choice(
            ({"max_lifetime": rng.choice((0.001, 0.05, 1.0, 20.0))}, {"max_attempts": 1}, {"max_attempts": 3})
        )
    purpose = rng.choice(("", "", "talk", "é" * 127))
    line = player.open(seat, bidirectional=rng.random() < 0.6, purpose=purpose, **options)
    if line is not None and rng.random() < 0.7:
        player.write(seat, line, rng.choice(world.recipe.sizes), ends=rng.random() < 0.5)


def write(world: RandomWorld, rng: random.Random) -> None:
    found = some_line(world, rng, "out")
    if found is not None:
        player, seat, line = found
        player.write(seat, line, rng.choice(world.recipe.sizes), ends=rng.random() < 0.1)


def finish(world: RandomWorld, rng: random.Random) -> None:
    found = some_line(world, rng, "out")
    if found is not None:
        player, seat, line = found
        player.finish(seat, line)


def read(world: RandomWorld, rng: random.Random) -> None:
    """Read once from a few streams."""
    for _ in range(rng.choice((1, 1, 3))):
        found = some_line(world, rng, "into")
        if found is not None and found[2].readable:
            player, seat, line = found
            player.read(seat, line, rng.choice((1, 100, 5000, 1 << 20)))


def reset(world: RandomWorld, rng: random.Random) -> None:
    found = some_line(world, rng, "out")
    if found is not None:
        player, seat, line = found
        player.reset(seat, line, rng.choice((0, 7, (1 << 62) - 1)))


def stop(world: RandomWorld, rng: random.Random) -> None:
    found = some_line(world, rng, "into")
    if found is not None:
        player, seat, line = found
        player.stop(seat, line, rng.choice((0, 9, (1 << 62) - 1)))


def watch(world: RandomWorld, rng: random.Random) -> None:
    found = some_line(world, rng, "out")
    if found is not None:
        player, seat, line = found
        player.watch(seat, line)


def datagram(world: RandomWorld, rng: random.Random) -> None:
    """Send a few datagrams."""
    found = some_seat(world, rng)
    if found is not None:
        player, seat = found
        for _ in range(rng.choice((1, 1, 2, 20))):
            player.send_datagram(seat, rng.choice((0, 1, 8, 200, 1100, 60_000)), rng.choice((None, None, 0.005)))


def frame(world: RandomWorld, rng: random.Random) -> None:
    """Send a few frames of the application's own."""
    found = some_seat(world, rng)
    if found is not None:
        player, seat = found
        for _ in range(rng.choice((1, 1, 3, 30))):
            player.send_frame(seat, rng.choice((0, 1, 100, 1000)), reliable=rng.random() < 0.7)


def some_priority(rng: random.Random) -> Priority:
    return Priority(rng.choice((0, 3, 3, 5, 7)), rng.random() < 0.6)


def prioritise(world: RandomWorld, rng: random.Random) -> None:
    """Let some streams matter more or less, or ask for that."""
    for _ in range(rng.choice((1, 1, 5))):
        found = some_line(world, rng, rng.choice(("out", "into")))
        if found is not None:
            player, _, line = found
            player.prioritise(line, some_priority(rng), asks=rng.random() < 0.5)


def rotate(world: RandomWorld, rng: random.Random) -> None:
    """Replace the keys of a session, perhaps from both sides at once."""
    found = some_seat(world, rng)
    if found is None:
        return
    player, seat = found
    replace_keys(player, seat)
    if rng.random() < 0.3:
        for other in world.players:
            for theirs in tuple(other.seats.values()) if other.node.awake else ():
                if theirs is not seat and theirs.session.session_id == seat.session.session_id:
                    replace_keys(other, theirs)


def replace_keys(player: Player, seat: Seat) -> None:
    """What `rotate_key` promises: one more version, also if it is asked for twice; an error without a session."""
    session, now = seat.session, player.now
    try:
        version = session.rotate_key(now)
    except SttError as error:
        assert not session.is_active(), f"{player.node.name} cannot replace keys: {error!r}"
        return
    assert session.is_active()
    assert version == session.rotate_key(now) == session.key_version + 1
    player.node.pump()


def move(world: RandomWorld, rng: random.Random) -> None:
    """Offer another path, or go there at once."""
    found = some_seat(world, rng)
    if found is None:
        return
    player, seat = found
    others = [each.node for each in world.players if each.node.config.identity.node_id == seat.session.peer_node_id]
    if not others:
        return
    port, carrier = rng.choice((1, *SPARE_PORTS)), world.recipe.carrier
    if port == 3 and carrier == "udp" and SLEEPS.isdisjoint(step.action for step in world.recipe.steps):
        carrier = "ws"
    local = (player.node.name, port)
    remote = (others[0].name, rng.choice((1, 2)) if port == 2 else port)
    player.move(seat, NetworkPath(carrier, local, remote), migrate=rng.random() < 0.7)


def close(world: RandomWorld, rng: random.Random) -> None:
    found = some_seat(world, rng)
    if found is not None:
        player, seat = found
        player.close(seat, rng.choice(("graceful", "graceful", "graceful", "error", "timeout")))


def abort(world: RandomWorld, rng: random.Random) -> None:
    found = some_seat(world, rng)
    if found is not None:
        player, seat = found
        player.abort(seat)


# -- networks ------------------------------------------------------------------------------------------------------


def two_nodes(world: RandomWorld, rng: random.Random) -> tuple[Node, Node]:
    one, other = rng.sample([player.node for player in world.players], 2)
    return one, other


def some_seconds(rng: random.Random) -> float:
    """From what nobody notices to what nobody survives."""
    return rng.choice((0.05, 0.3, 1.0, 3.0, 12.0, 45.0)) * (0.5 + rng.random())


def weather(world: RandomWorld, rng: random.Random) -> None:
    """One direction of a link changes."""
    one, other = two_nodes(world, rng)
    world.world.link_between(one.address, other.address).conditions = conditions(rng, world.recipe)


def outage(world: RandomWorld, rng: random.Random) -> None:
    """Two nodes are cut off from each other."""
    one, other = two_nodes(world, rng)
    seconds = some_seconds(rng)
    world.world.outage(one, other, world.world.now, seconds)
    world.lasts(seconds)


def one_way(world: RandomWorld, rng: random.Random) -> None:
    """Nothing gets through in one direction."""
    one, other = two_nodes(world, rng)
    seconds = some_seconds(rng)
    world.world.link_between(one.address, other.address).outage(world.world.now, seconds)
    world.lasts(seconds)


def narrow(world: RandomWorld, rng: random.Random) -> None:
    """From now on a link carries no more than this, and says nothing about what it swallows."""
    one, other = two_nodes(world, rng)
    link = world.world.link_between(one.address, other.address)
    link.conditions = evolve(link.conditions, mtu=rng.choice((1200, 1200, 1300, 1472)))


def cut(world: RandomWorld, rng: random.Random) -> None:
    """The path that a session uses now leads nowhere for a while."""
    found = some_seat(world, rng)
    if found is None:
        return
    path, seconds = found[1].session.path, some_seconds(rng)
    if path.carrier != "udp":
        found[0].lose_path(path, "cut")  # what is reliable loses nothing as long as it is there
    else:
        for source, target in ((path.local, path.remote), (path.remote, path.local)):
            world.world.link_between(source, target).outage(world.world.now, seconds)
        world.lasts(seconds)


def rebind(world: RandomWorld, rng: random.Random) -> None:
    """A translator of addresses forgets everything: who is behind it comes from another address now."""
    if world.nats:
        nat = rng.choice(world.nats)
        rng.choice((nat.rebind_port, nat.rebind_address))()
        world.lasts(world.silence)  # what it carried is cut off for good


def _recorded(world: RandomWorld, rng: random.Random) -> tuple[bytes, NetworkPath] | None:
    return rng.choice(world.recorded) if world.recorded else None


def _send(world: RandomWorld, rng: random.Random, datagram: bytes, path: NetworkPath) -> None:
    """Put something on the wire now or a little later, which nobody's core sent."""
    world.world.at(world.world.now + rng.choice((0.0, 0.01, 1.0)) * rng.random(), lambda: world.inject(datagram, path))


def replay(world: RandomWorld, rng: random.Random) -> None:
    """What was on the wire comes once more."""
    for _ in range(rng.choice((1, 5, 30))):
        found = _recorded(world, rng)
        if found is not None:
            _send(world, rng, *found)


def misdeliver(world: RandomWorld, rng: random.Random) -> None:
    """What was on the wire comes to somebody else."""
    for _ in range(rng.choice((1, 5))):
        found = _recorded(world, rng)
        if found is not None:
            data, path = found
            _send(world, rng, data, NetworkPath(path.carrier, path.local, rng.choice(world.players).node.address))


def elsewhere(world: RandomWorld, rng: random.Random) -> None:
    """What was on the wire comes from another address; for a while, perhaps, all of it."""
    if rng.random() < 0.3:
        world.detour(rng.choice(world.players).node.address, some_seconds(rng))
        return
    for _ in range(rng.choice((1, 5))):
        found = _recorded(world, rng)
        if found is not None:
            data, path = found
            _send(world, rng, data, NetworkPath(path.carrier, rng.choice((NOWHERE, path.remote)), path.remote))


def forge(world: RandomWorld, rng: random.Random) -> None:
    """Something comes that was never sent, but nearly."""
    for _ in range(rng.choice((1, 5, 20))):
        found = _recorded(world, rng)
        if found is not None:
            data, path = found
            _send(world, rng, mutate(data, rng), path)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Change a datagram somewhere."""
    changed = bytearray(data)
    match rng.randrange(5):
        case 0 if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        case 1:
            del changed[rng.randrange(len(changed) + 1) :]
        case 2:
            changed += rng.randbytes(rng.choice((1, 16, 200)))
        case 3 if len(changed) > 15:  # where a segment has its index, and what follows
            changed[rng.randrange(9, 15)] ^= 1 << rng.randrange(8)
        case _ if changed:
            changed[0] ^= 1 << rng.randrange(8)
    return bytes(changed)


def garbage(world: RandomWorld, rng: random.Random) -> None:
    """Something comes that never was anything; its first bytes may be good."""
    for _ in range(rng.choice((1, 10))):
        found = _recorded(world, rng)
        data, path = found or (b"", NetworkPath(world.recipe.carrier, NOWHERE, world.players[0].node.address))
        head = data[: rng.choice((0, 1, 9, 13, 25))]
        _send(world, rng, head + rng.randbytes(rng.choice((0, 1, 30, 60, 1200, 1500))), path)


# -- hosts ---------------------------------------------------------------------------------------------------------


def jump(world: RandomWorld, rng: random.Random) -> None:
    """A clock leaps forward."""
    rng.choice(world.players).node.jump_clock(rng.choice((0.1, 2.0, 20.0, 600.0, 86_400.0)))


def step_back(world: RandomWorld, rng: random.Random) -> None:
    """A clock runs backwards for a moment."""
    seconds = rng.choice((0.001, 0.1, 2.0))
    rng.choice(world.players).node.jump_clock(-seconds)
    world.lasts(seconds)


def sleep(world: RandomWorld, rng: random.Random) -> None:
    """A computer is suspended."""
    rng.choice(world.players).node.pause(some_seconds(rng))


def stop_process(world: RandomWorld, rng: random.Random) -> None:
    """A process is stopped, while its system goes on to take in datagrams for it."""
    rng.choice(world.players).node.pause(some_seconds(rng), buffer=PROCESS_BUFFER)


def full(world: RandomWorld, rng: random.Random) -> None:
    """A carrier takes nothing for a while."""
    found = some_seat(world, rng)
    if found is not None:
        player, seat = found
        world.fill(player.node, seat.session.path, some_seconds(rng))


def path_closed(world: RandomWorld, rng: random.Random) -> None:
    """A carrier ends."""
    found = some_seat(world, rng)
    if found is not None:
        player, seat = found
        player.lose_path(seat.session.path, rng.choice((None, "refused", "unreachable", "the socket broke")))


def restart(world: RandomWorld, rng: random.Random) -> None:
    """A process dies and begins anew."""
    rng.choice(world.players).restart(rng.choice((0.0, 0.1, 5.0)))


def refuse(world: RandomWorld, rng: random.Random) -> None:
    """A node lets nobody in for a while."""
    world.shut(rng.choice(world.players).node, some_seconds(rng))


ACTIONS: Mapping[str, Action] = MappingProxyType(
    {
        "dial": dial, "storm": storm, "open": open_stream, "write": write, "finish": finish, "read": read,
        "reset": reset, "stop": stop, "watch": watch, "datagram": datagram, "frame": frame,
        "prioritise": prioritise, "rotate": rotate, "move": move, "close": close, "abort": abort,
        "weather": weather, "outage": outage, "one_way": one_way, "cut": cut, "rebind": rebind, "replay": replay,
        "misdeliver": misdeliver, "elsewhere": elsewhere, "forge": forge, "garbage": garbage, "jump": jump,
        "step_back": step_back, "sleep": sleep, "stop_process": stop_process, "full": full,
        "path_closed": path_closed, "restart": restart, "refuse": refuse, "narrow": narrow,
    }
)  # fmt: skip
"""Every action by its name."""


def wrong_seed(seed: int, name: str) -> bytes:
    """The shared seed of a stranger."""
    return SeededEntropy(f"{seed}/{name}/stranger")(16)
