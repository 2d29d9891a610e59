"""Random interaction: anything that applications, networks and hosts do, in any order, against the plain model.

Hypothesis draws the steps and shrinks what fails to the few that matter. `tests.worlds` does the same from seeds alone,
in more kinds of worlds and a hundred times as many. What is checked is the same for both: see `tests.worlds.runner`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from stt_proto import NetworkPath, Priority
from stt_proto.testing import Conditions, GilbertElliott, Link, LinkTrace, Node
from tests.worlds.actions import NOWHERE, PROCESS_BUFFER, replace_keys
from tests.worlds.player import Player
from tests.worlds.recipe import NodePlan, Recipe
from tests.worlds.runner import RandomWorld
from tests.worlds.seats import LIVES, Line, Manners, Seat

T = TypeVar("T")

SIZES = (0, 1, 100, 1200, 5000, 40_000)
SECONDS = (0.05, 0.5, 3.0, 40.0)
STEP_BACK = 3.0
"""Seconds that a clock runs back at most. Until it has caught up no time passes for that node."""

OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"priority": Priority(0)},
    {"priority": Priority(3, incremental=False)},
    {"max_lifetime": 0.01},
    {"max_lifetime": 2.0, "max_attempts": 2},
)
"""With which streams are opened."""

picks = st.integers(0, 1 << 16)
sizes = st.sampled_from(SIZES)
codes = st.sampled_from((0, 7, (1 << 62) - 1))
seconds = st.sampled_from(SECONDS)
shares = st.sampled_from((0.0, 0.05, 0.3))
early = st.sampled_from((0, 1, 100, 768))
"""Bytes that are to be there before a first round trip."""
pasts = st.sampled_from(("", "moved", "rotated", "cut", "back", "all"))
"""What has become of the first session before anything is drawn: forty steps seldom lead there by themselves."""
pauses = st.sampled_from((0.0, 0.001, 0.05, 0.3))
"""Seconds after a step that begins something."""

changes = st.fixed_dictionaries(
    {},
    optional={
        "max_concurrent_sessions": st.sampled_from((1, 3)),
        "max_concurrent_streams": st.sampled_from((1, 4)),
        "default_max_frame_size": st.sampled_from((10, 1200)),
        "stream_receive_window": st.sampled_from((1024, 5000)),
        "session_receive_window": st.sampled_from((1024, 5000)),
        "stream_send_buffer": st.sampled_from((1024, 5000)),
        "max_datagram_size": st.sampled_from((0, 100)),
        "ack_delay": st.sampled_from((0.0, 0.2)),
        "no_delay": st.just(False),
        "max_early_data": st.sampled_from((0, 768)),
    },
)
manners = st.builds(
    Manners,
    eager=st.booleans(),
    chunk=st.sampled_from((1, 1000, 65_536)),
    answers=st.sampled_from(((0,), (1, 3000))),
    closes=st.booleans(),
)
links = st.builds(
    Conditions,
    delay=st.sampled_from((0.0, 0.005, 0.1)),
    jitter=st.sampled_from((0.0, 0.02)),
    rate=st.sampled_from((None, 1e6)),
    trace=st.sampled_from((None, LinkTrace((0.001, 0.001, 0.002, 0.01, 0.5)))),
    queue=st.just(20_000),
    ecn_threshold=st.sampled_from((None, 3000)),
    loss=shares,
    burst=st.sampled_from((None, GilbertElliott(good=20, bad=3))),
    duplicate=shares,
    reorder=shares,
    reorder_delay=st.sampled_from((0.01, 0.1)),
    corrupt=shares,
    truncate=shares,
    mtu=st.sampled_from((65_535, 1200, 1100)),
)
"""An MTU below the least that a path must carry is a path that is narrow until the faults stop."""


class Interaction(RuleBasedStateMachine):
    """Some nodes, and whatever happens to them."""

    nodes = 2

    def __init__(self) -> None:
        super().__init__()
        self.life: RandomWorld | None = None
        self.wired = False

    @initialize(
        seed=st.integers(0, 1 << 32),
        suites=st.sampled_from(((1, 2), (2,))),
        plans=st.lists(st.tuples(changes, manners, st.booleans(), st.booleans()), min_size=6, max_size=6),
        delay=st.sampled_from((0.0, 0.001, 0.02)),
        size=sizes,
        wired=st.booleans(),
        past=pasts,
    )
    def begin(
        self,
        seed: int,
        suites: tuple[int, ...],
        plans: list[Any],
        delay: float,
        size: int,
        wired: bool,
        past: str,
    ) -> None:
        """Make the nodes, let the first two of them meet and begin to talk, and give them a past.

        Where they are wired there is a carrier that loses nothing, and no host sleeps, which would lose what comes.
        """
        self.wired = wired
        nodes = tuple(
            NodePlan(
                name=name,
                changes={"suites": suites, "extension_frames": (0x80,), "max_early_data": 100, **changes},
                manners=manners,
                batch=0.002 if batches else None,
                marks=0.0,
                stranger=False,
                shuns=(),
                behind_nat=behind_nat and name != "a",
            )
            for name, (changes, manners, batches, behind_nat) in zip("abcdef"[: self.nodes], plans, strict=False)
        )
        recipe = Recipe(
            seed=seed,
            carrier="udp",
            nodes=nodes,
            weather=frozenset({"drawn"}),
            delay=delay,
            mtu=65_535,
            sizes=SIZES,
            steps=(),
            afterwards=0.0,
        )
        life = self.life = RandomWorld(recipe)
        life.players[1].dial(life.players[0].node)
        life.world.run(0.3)
        for player, seat in self.seats():
            line = player.open(seat)
            if line is not None:
                player.write(seat, line, size)
        if past in ("moved", "all"):
            self.move(pick=1, port=2, follows=True, migrate=True, then=0.3)
        if past in ("back", "all"):
            self.come_back(pick=1, again=False, early=100, then=0.3)
        if past in ("rotated", "all"):
            self.replace_keys(pick=1, other=0, then=0.3)
        if past == "cut":
            self.cut_path(pick=1, amount=60.0)
            life.world.run(40.0)

    # -- what there is to choose from ------------------------------------------------------------------------------

    @property
    def players(self) -> list[Player]:
        assert self.life is not None
        return self.life.players

    def awake(self) -> list[Player]:
        return [player for player in self.players if player.node.awake]

    def seats(self) -> list[tuple[Player, Seat]]:
        return [(player, seat) for player in self.awake() for seat in player.seats.values()]

    def lines(self, kind: str) -> list[tuple[Player, Seat, Line]]:
        return [(player, *each) for player in self.awake() for each in player.lines() if getattr(each[1], kind)]

    def link(self, one: int, other: int) -> Link:
        """One direction between two nodes."""
        assert self.life is not None
        source, target = self.pair(one, other)
        return self.life.world.link_between(source.address, target.address)

    def pair(self, one: int, other: int) -> tuple[Node, Node]:
        nodes = [player.node for player in self.players]
        source = nodes[one % len(nodes)]
        nodes.remove(source)
        return source, nodes[other % len(nodes)]

    # -- applications ----------------------------------------------------------------------------------------------

    @precondition(awake)
    @rule(one=picks, other=picks, pinned=st.booleans(), early=early)
    def dial(self, one: int, other: int, pinned: bool, early: int) -> None:
        player = chosen(self.awake(), one)
        others = [each.node for each in self.players if each is not player]
        target = chosen(others, other)
        player.dial(target, early=early, peer_node_id=target.config.identity.node_id if pinned else None)

    @precondition(seats)
    @rule(
        pick=picks,
        bidirectional=st.booleans(),
        purpose=st.sampled_from(("", "talk")),
        size=sizes,
        ends=st.booleans(),
        options=st.sampled_from(OPTIONS),
    )
    def open(
        self, pick: int, bidirectional: bool, purpose: str, size: int, ends: bool, options: dict[str, Any]
    ) -> None:
        player, seat = chosen(self.seats(), pick)
        line = player.open(seat, bidirectional=bidirectional, purpose=purpose, **options)
        if line is not None:
            player.write(seat, line, size, ends=ends)

    @precondition(lambda self: self.lines("out"))
    @rule(
        pick=picks, command=st.sampled_from(("write", "finish", "reset", "watch", "prioritise")), size=sizes, code=codes
    )
    def speak(self, pick: int, command: str, size: int, code: int) -> None:
        player, seat, line = chosen(self.lines("out"), pick)
        match command:
            case "write":
                player.write(seat, line, size)
            case "finish":
                player.write(seat, line, size, ends=True)
            case "reset":
                player.reset(seat, line, code)
            case "prioritise":
                player.prioritise(line, Priority(code % 8, size > 100), asks=size % 3 == 0)
            case _:
                player.watch(seat, line)

    @precondition(lambda self: self.lines("into"))
    @rule(pick=picks, size=st.sampled_from((1 << 20, 1000, 1)), stops=st.booleans(), code=codes)
    def listen(self, pick: int, size: int, stops: bool, code: int) -> None:
        player, seat, line = chosen(self.lines("into"), pick)
        if stops:
            player.stop(seat, line, code)
        elif line.readable:
            player.read(seat, line, size)

    @precondition(seats)
    @rule(pick=picks, size=sizes, count=st.sampled_from((1, 20)))
    def send_datagrams(self, pick: int, size: int, count: int) -> None:
        """And frames of the application's own."""
        player, seat = chosen(self.seats(), pick)
        for _ in range(count):
            player.send_datagram(seat, size)
            player.send_frame(seat, size, reliable=size > 100)

    @precondition(seats)
    @rule(pick=picks, other=st.none() | picks, then=pauses)
    def replace_keys(self, pick: int, other: int | None, then: float) -> None:
        """Perhaps from two sides at once."""
        for each in (pick, other):
            if each is not None and self.seats():
                replace_keys(*chosen(self.seats(), each))
        self.advance(then)

    @precondition(seats)
    @rule(pick=picks, port=st.sampled_from((2, 1, 3)), follows=st.booleans(), migrate=st.booleans(), then=pauses)
    def move(self, pick: int, port: int, follows: bool, migrate: bool, then: float) -> None:
        """Offer another path, or go there: from another port, to another one too, or over a carrier of another kind."""
        player, seat = chosen(self.seats(), pick)
        there = [each for each in self.players if each.node.config.identity.node_id == seat.session.peer_node_id]
        if not there:
            return
        carrier = "ws" if port == 3 and self.wired else "udp"
        remote = there[0].node.name, port if follows or carrier == "ws" else 1
        player.move(seat, NetworkPath(carrier, (player.node.name, port), remote), migrate=migrate)
        self.advance(then)

    @precondition(seats)
    @rule(pick=picks, again=st.booleans(), early=early, then=pauses)
    def come_back(self, pick: int, again: bool, early: int, then: float) -> None:
        """End a session and dial the same node with its ticket, or with the ticket that was used before."""
        player, seat = chosen(self.seats(), pick)
        there = [each.node for each in self.players if each.node.config.identity.node_id == seat.session.peer_node_id]
        if there and seat.session.ticket is not None:
            player.close(seat)
            player.dial(there[0], ticket=seat.session.ticket, early=early)
            if again:
                player.dial(there[0], ticket=seat.session.ticket, early=early)
        self.advance(then)

    @precondition(seats)
    @rule(pick=picks, reason=st.sampled_from(("graceful", "error", "abort")))
    def end_session(self, pick: int, reason: str) -> None:
        player, seat = chosen(self.seats(), pick)
        if reason == "abort":
            player.abort(seat)
        else:
            player.close(seat, reason)

    # -- networks and hosts ----------------------------------------------------------------------------------------

    @rule(amount=st.sampled_from((0.0, 0.001, 0.02, 0.3, 2.0, 15.0, 45.0)))
    def advance(self, amount: float) -> None:
        assert self.life is not None
        self.life.world.run(amount)

    @rule(one=picks, other=picks, conditions=links)
    def change_link(self, one: int, other: int, conditions: Conditions) -> None:
        self.link(one, other).conditions = conditions

    @rule(one=picks, other=picks, amount=seconds, both=st.booleans())
    def lose_network(self, one: int, other: int, amount: float, both: bool) -> None:
        """Lost, and regained."""
        assert self.life is not None
        world = self.life.world
        if both:
            world.outage(*self.pair(one, other), world.now, amount)
        else:
            self.link(one, other).outage(world.now, amount)
        self.life.lasts(amount)

    @precondition(seats)
    @rule(pick=picks, amount=seconds)
    def cut_path(self, pick: int, amount: float) -> None:
        """The path that a session uses leads nowhere for a while; what is reliable ends, and is there no more."""
        assert self.life is not None
        player, seat = chosen(self.seats(), pick)
        path, world = seat.session.path, self.life.world
        if path.carrier != "udp":
            player.lose_path(path, "cut")
            return
        for source, target in ((path.local, path.remote), (path.remote, path.local)):
            world.link_between(source, target).outage(world.now, amount)
        self.life.lasts(amount)

    @rule(pick=picks, how=st.sampled_from(("detour", "port", "host")), amount=seconds)
    def change_address(self, pick: int, how: str, amount: float) -> None:
        """What a node sends comes from another address.

        For a while, and what is sent to the old one still arrives; or for good, and the old one leads nowhere.
        """
        assert self.life is not None
        if how == "detour" or not self.life.nats:
            self.life.detour(chosen(self.players, pick).node.address, amount)
            return
        nat = chosen(self.life.nats, pick)
        if how == "port":
            nat.rebind_port()
        else:
            nat.rebind_address()
        self.life.lasts(self.life.silence)

    @precondition(lambda self: self.life.recorded)
    @rule(pick=picks, where=st.sampled_from(("back", "elsewhere", "to another")), cut=st.sampled_from((None, 20, 500)))
    def replay(self, pick: int, where: str, cut: int | None) -> None:
        """What was on the wire comes again: as it was, cut, from nowhere, to somebody else."""
        assert self.life is not None
        datagram, path = chosen(list(self.life.recorded), pick)
        local, remote = path.local, path.remote
        if where == "elsewhere":
            local = NOWHERE
        elif where == "to another":
            remote = chosen(self.players, pick).node.address
        self.life.inject(datagram[:cut], NetworkPath(path.carrier, local, remote))

    @rule(
        pick=picks,
        what=st.sampled_from(("jump", "step back", "sleep", "stop", "full", "lost", "restart")),
        amount=seconds,
    )
    def befall_host(self, pick: int, what: str, amount: float) -> None:
        assert self.life is not None
        player = chosen(self.players, pick)
        match what:
            case "jump":
                player.node.jump_clock(amount)
            case "step back":
                back = min(amount, STEP_BACK)
                player.node.jump_clock(-back)
                self.life.lasts(back)  # since until then it stands still
            case "sleep" | "stop" if self.wired:
                pass
            case "sleep":
                player.node.pause(amount)
            case "stop":
                player.node.pause(amount, buffer=PROCESS_BUFFER)
            case "restart":
                player.restart(amount if amount < 1.0 else 0.0)
            case _ if player.node.awake and player.seats:
                path = chosen(list(player.seats), pick).path
                if what == "full":
                    self.life.fill(player.node, path, amount)
                else:
                    player.lose_path(path, None)

    # -- what must hold --------------------------------------------------------------------------------------------

    @invariant()
    def bounds(self) -> None:
        """Safety; the model has judged already what the applications got."""
        if self.life is not None:
            self.life.check()

    def teardown(self) -> None:
        """Liveness: the faults stop, everything ends, nothing is left."""
        if self.life is not None:
            self.life.calm_down()
            self.life.settle()
            self.life.rest()
            self.life.end()


class Crowd(Interaction):
    """The same with many nodes."""

    nodes = 5


def chosen(items: list[T], pick: int) -> T:
    """One of some things; 0 gives the first, to which examples shrink."""
    return items[pick % len(items)]


def run(machine: type[Interaction]) -> None:
    share = settings.default.max_examples // 2  # type: ignore[union-attr]
    run_state_machine_as_test(machine, settings=settings(max_examples=share, stateful_step_count=40))  # type: ignore[no-untyped-call]


def test_two_nodes() -> None:
    """G-1, G-2, S-5, S-6, K-6, 13: every byte once and in order, every table bounded, every end reached."""
    run(Interaction)


def test_many_nodes() -> None:
    """The same, and no session sees another's bytes."""
    run(Crowd)


def test_what_can_become_of_a_session() -> None:
    """The rules really move sessions, cut them off, bring them back, and replace their keys: these are such steps."""
    machine = Interaction()
    plans = [({}, Manners(), False, False)] * 6
    machine.begin(seed=1, suites=(1, 2), plans=plans, delay=0.001, size=100, wired=True, past="")
    for port in (2, 3, 1):
        machine.move(pick=0, port=port, follows=True, migrate=True, then=0.3)
    machine.replace_keys(pick=0, other=1, then=0.3)
    for player, seat in machine.seats():  # spare paths, to which it would go
        for info in seat.session.paths:
            if not info.active:
                seat.session.remove_path(info.path, player.now)
    machine.cut_path(pick=0, amount=40.0)
    machine.advance(amount=45.0)
    machine.advance(amount=15.0)
    machine.come_back(pick=1, again=True, early=100, then=2.0)
    machine.befall_host(pick=0, what="restart", amount=0.0)
    machine.come_back(pick=1, again=False, early=100, then=2.0)
    machine.teardown()
    lives = sum((player.lives for player in machine.players), Counter[str]())
    assert set(lives) == LIVES, lives
