"""A random world: made from its recipe, run through what befalls it, and then held to its promises.

*Safety.* While the steps of the recipe happen, the model judges all that applications get (`tests.proto.model`), and
every endpoint is looked at from inside again and again (`tests.worlds.bounds`).

*Liveness.* Then the faults stop and the applications become well-behaved: everything has to finish, or to have failed
for a reason, within a bounded virtual time. What lives falls silent but for signs of life; what is then closed is
closed at both ends; and nothing is left in any table.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Container
from functools import partial
from hashlib import sha256
from itertools import permutations

from attrs import define, field

from stt_proto import Config, Endpoint, Identity, NetworkPath, SessionState
from stt_proto.errors import ConnectionRefusedError, ConnectionTimeoutError
from stt_proto.session.ending import FLUSH_TIMEOUT, MAX_LINGER
from stt_proto.session.liveness import GRACE, LATE
from stt_proto.session.rotation import RotationState
from stt_proto.testing import Conditions, Node, SeededEntropy, Traffic, World
from stt_proto.testing.world import SHARED_SEED
from tests.proto.model import Model
from tests.worlds import bounds
from tests.worlds.actions import ACTIONS, SPARE_PORTS, wrong_seed
from tests.worlds.host import BatchingHost
from tests.worlds.player import Player
from tests.worlds.recipe import NodePlan, Recipe, conditions, draw
from tests.worlds.seats import Seat

REMEMBERED = 200
"""Datagrams of which some may come once more."""
SLICE = 0.25
"""Virtual seconds between two looks at everything, once the faults have stopped."""
SLOWEST = 500
"""Bytes a second that the smallest window, the smallest buffer and the laziest acknowledgement still carry."""
CLOSING = 5.0
"""Seconds within which a close is through where nothing gets lost."""


@define
class Report:
    """What happened in a world.

    Attributes:
        seed: of the world.
        datagrams: that arrived.
        seconds: of virtual time.
        sessions: that were established, at both ends.
        streams: of which both ends knew.
        bytes: that applications read.
        actions: that happened, by name.
        lives: what became of sessions, as `Player` counts it.
        traffic: what the links did.
        digest: of everything on the wire.
    """

    seed: int
    datagrams: int = 0
    seconds: float = 0.0
    sessions: int = 0
    streams: int = 0
    bytes: int = 0
    actions: Counter[str] = field(factory=Counter)
    lives: Counter[str] = field(factory=Counter)
    traffic: Traffic = field(factory=Traffic)
    digest: str = ""


class RandomWorld:
    """One world.

    Args:
        recipe: what it is made from.
        without: indexes of steps that are left out.

    Attributes:
        recipe: as given.
        world: the simulator's.
        model: what must have arrived.
        players: the applications, one on each node.
        nats: the translators of addresses.
        recorded: what was lately on the wire.
    """

    def __init__(self, recipe: Recipe, without: Container[int] = ()) -> None:
        self.recipe = recipe
        self.world = World(recipe.seed, Conditions(delay=recipe.delay, mtu=recipe.mtu))
        self.model = Model()
        self.recorded: deque[tuple[bytes, NetworkPath]] = deque(maxlen=REMEMBERED)
        self.report = Report(recipe.seed)
        self._without = without
        self._digest = sha256()
        self._injecting = False
        self._quiet_at = 0.0
        self._detours: dict[object, float] = {}
        self._filled: dict[tuple[Node, NetworkPath], Endpoint] = {}
        self.players = [Player(self._node(plan), self.model, plan.manners) for plan in recipe.nodes]
        hosts = [BatchingHost(self.world.nodes[plan.name, 1], plan.batch, plan.marks) for plan in recipe.nodes]
        assert len(hosts) == len(self.players)
        plans = zip(recipe.nodes, self.players, strict=True)
        self._hidden = [player.node for plan, player in plans if plan.behind_nat and recipe.carrier == "udp"]
        self.nats = [self.world.nat(node, host=f"nat-{node.name}") for node in self._hidden]
        names = [plan.name for plan in recipe.nodes]
        rng = random.Random(f"{recipe.seed}/links")
        for one in self.players:
            for other in self.players:
                if one is not other and rng.random() < 0.8:
                    link = self.world.link_between(one.node.address, other.node.address)
                    link.conditions = conditions(rng, recipe)
        self._streams = {((one, 3), (two, 3)) for one, two in permutations(names, 2)}
        for source, target in self._streams:  # where a reliable carrier is, which takes messages of any size
            self.world.link_between(source, target).conditions = Conditions(delay=recipe.delay)
        self.world.taps.append(self._tap)

    def _node(self, plan: NodePlan) -> Node:
        seed = self.recipe.seed
        identity = Identity.from_seed(SeededEntropy(f"{seed}/{plan.name}/identity")(32))
        shared = wrong_seed(seed, plan.name) if plan.stranger else SHARED_SEED
        shunned = {Identity.from_seed(SeededEntropy(f"{seed}/{name}/identity")(32)).node_id for name in plan.shuns}

        def admit(peer_node_id: bytes, path: NetworkPath, now: float) -> int | None:
            return ConnectionRefusedError.code if peer_node_id in shunned else None

        config = Config(identity=identity, shared_seed=shared, **plan.changes)
        node = self.world.node(plan.name, config=config, admit=admit if shunned else None)
        for port in SPARE_PORTS:
            node.also_at((plan.name, port))
        return node

    # -- the wire ------------------------------------------------------------------------------------------------

    def _tap(self, datagram: bytes, path: NetworkPath) -> bytes | None:
        """Remember what is on the wire, and let some of it come from another address."""
        if self._injecting:
            return datagram
        self._digest.update(b"%r %r " % (self.world.now, len(datagram)) + datagram)
        self.recorded.append((datagram, path))
        if self._detours.get(path.local, 0.0) > self.world.now:
            host, port = path.local  # type: ignore[misc]
            self.inject(datagram, NetworkPath(path.carrier, (f"{host}'", port), path.remote))
            return None
        return datagram

    def inject(self, datagram: bytes, path: NetworkPath) -> None:
        """Put something on the wire that nobody's core sends there."""
        self._injecting = True
        try:
            self.world.send(datagram, path)
        finally:
            self._injecting = False

    def is_hidden(self, node: Node) -> bool:
        """Whether nobody can dial a node, since it is behind a translator of addresses."""
        return node in self._hidden

    # -- what actions need -----------------------------------------------------------------------------------------

    def lasts(self, seconds: float) -> None:
        """Something that cannot be called off goes on for so long."""
        self._quiet_at = max(self._quiet_at, self.world.now + seconds)

    def detour(self, address: object, seconds: float) -> None:
        """What is sent from an address comes from another one for so long."""
        self._detours[address] = self.world.now + seconds

    def fill(self, node: Node, path: NetworkPath, seconds: float) -> None:
        """A carrier takes nothing for so long."""
        key = node, path
        if key not in self._filled:
            self._filled[key] = node.endpoint
            node.endpoint.path_writable(path, False, node.now)
            node.pump()
            self.world.at(self.world.now + seconds, partial(self._empty, key))

    def _empty(self, key: tuple[Node, NetworkPath]) -> None:
        node, path = key
        if self._filled.pop(key, None) is node.endpoint:
            node.endpoint.path_writable(path, True, node.now)
            node.pump()

    def shut(self, node: Node, seconds: float) -> None:
        """A node lets nobody in for so long."""
        endpoint = node.endpoint
        endpoint.accepting = False
        self.world.at(self.world.now + seconds, lambda: setattr(endpoint, "accepting", True))

    # -- safety ----------------------------------------------------------------------------------------------------

    def run(self) -> Report:
        """Live through all of it.

        Raises:
            AssertionError: a promise was broken.
        """
        for step in self.recipe.steps:
            self.world.run(step.gap)
            if step.index not in self._without:
                ACTIONS[step.action](self, random.Random(f"{self.recipe.seed}/step {step.index}"))
                self.report.actions[step.action] += 1
                self.check()
        self.world.run(self.recipe.afterwards)
        self.check()
        self.calm_down()
        self.settle()
        self.rest()
        self.end()
        return self._finish_report()

    def check(self) -> None:
        """Look at everything."""
        for player in self.players:
            if player.node.awake:
                bounds.check(player.node.endpoint)
        for seat, other in self._pairs():
            one, two = bounds.engines_of(seat.session), bounds.engines_of(other.session)
            if one is not None and two is not None:
                bounds.check_pair(one, two)

    def _pairs(self) -> list[tuple[Seat, Seat]]:
        """Both ends of all sessions that live at both."""
        known: dict[bytes, Seat] = {}
        pairs = []
        for player in self.players:
            for session, seat in player.seats.items():
                if session.session_id and not session.is_closed:
                    other = known.setdefault(session.session_id, seat)
                    if other is not seat:
                        pairs.append((other, seat))
        return pairs

    # -- liveness ----------------------------------------------------------------------------------------------------

    def calm_down(self) -> None:
        """All faults stop: what is on its way arrives, hosts run, carriers take what they are given."""
        for (source, target), link in self.world.links.items():
            if (source, target) not in self._streams:
                link.conditions = self.world.conditions
        self._detours.clear()
        for key in list(self._filled):
            self._empty(key)
        for player in self.players:
            player.node.endpoint.accepting = True
            player.node.resume()
        self.world.run(max(0.0, self._quiet_at - self.world.now))

    @property
    def silence(self) -> float:
        """Virtual seconds after which every session notices that its peer is gone."""
        configs = [player.node.config for player in self.players]
        silence = max(config.keep_alive_timeout + config.keep_alive_interval for config in configs)
        return silence + max(config.detach_timeout for config in configs) + LATE + GRACE

    @property
    def _patience(self) -> float:
        """Virtual seconds within which everything must have ended somehow."""
        dial = max(player.node.config.handshake_timeout for player in self.players)
        unread = sum(
            flow.written - flow.read for talk in self.model.conversations.values() for flow in talk.flows.values()
        )
        unwritten = sum(line.todo for player in self.players for _, line in player.lines())
        return self.silence + dial + FLUSH_TIMEOUT + 2 * MAX_LINGER + (unread + unwritten) / SLOWEST

    def settle(self) -> None:
        """Everything finishes, or fails for a reason, and both ends agree on which."""
        self._wait_for(self._unstopped, Player.read_all)
        self._wait_for(self._unsettled, Player.behave)
        self.model.check_drained()
        if self.recipe.calm:
            self._check_calm()

    def _wait_for(self, problem: Callable[[], str], occupation: Callable[[Player], None]) -> None:
        """Let applications do something until there is no problem."""
        end = self.world.now + self._patience
        pause = CLOSING
        while True:
            for player in self.players:
                occupation(player)
            self.world.run(pause)
            self.check()
            told = problem()
            if not told:
                return
            assert self.world.now < end, f"not settled: {told}"
            pause = SLICE

    def _unstopped(self) -> str:
        """A stream that is written still, though its reader stopped it, or read still, though its writer reset it."""
        for seat, other in self._pairs():
            assert seat.talk is not None
            for (from_initiator, stream_id), flow in seat.talk.flows.items():
                known = from_initiator != stream_id & 1 or stream_id in seat.talk.announced
                if flow.stopped is not None and flow.writable and known:
                    return f"{flow} does not know that it is stopped, {seat.session}, {other.session}"
                if flow.reset is not None and flow.readable:
                    return f"{flow} does not know that it is reset, {seat.session}, {other.session}"
        return ""

    def _unsettled(self) -> str:
        """What is still going on."""
        for player in self.players:
            if len(player.node.endpoint._responder):
                return f"{player.node.name} has half-open handshakes"
        for seat, other in self._pairs():
            one, two = (bounds.engines_of(each.session) for each in (seat, other))
            assert one is not None
            assert two is not None
            states = {one.rotation.state, two.rotation.state}
            if states != {RotationState.SETTLED} or one.rotation.version != two.rotation.version:
                return f"the keys of {seat.session} are being replaced: {states}"
        paired = {id(seat) for pair in self._pairs() for seat in pair}
        for player in self.players:
            for session, seat in player.seats.items():
                if session.is_closed:
                    continue
                if session.state is not SessionState.ESTABLISHED:
                    return f"{player.node.name} has {session}"
                if session.is_detached:
                    return f"{player.node.name} has {session}, which has no path"
                if id(seat) not in paired:
                    return f"{player.node.name} has {session}, and its peer has not"
                if problem := player.unsettled(seat):
                    return f"{player.node.name} has {session}: {problem}"
        return ""

    def _check_calm(self) -> None:
        """Where nothing befell them, sessions ended because an application wanted it, or not at all."""
        for talk in self.model.conversations.values():
            for end in talk.ends.values():
                asked = any(other.asked for other in talk.ends.values())
                closed = [other.closed.code for other in talk.ends.values() if other.closed is not None]
                asked |= ConnectionTimeoutError.code in closed  # a dial took too long: there never was a session
                assert asked or end.closed is None or len(talk.ends) == 1, f"{end.node}: {end.closed}"

    def rest(self) -> None:
        """What lives is silent but for signs of life."""
        self.world.run(CLOSING)
        living = [(player, seat) for player in self.players for seat in player.seats.values() if seat.live]
        for player, seat in living:
            engines = bounds.engines_of(seat.session)
            assert engines is not None
            name = f"{player.node.name}, {seat.session}"
            assert not len(engines.streams), f"{name} still has streams: {[stream.id for stream in engines.streams]}"
            assert not engines.streams.undelivered, f"{name} has {engines.streams.undelivered} undelivered"
            assert not engines.streams.has_pending, f"{name} has streams with something to send"
            assert not engines.datagrams.has_pending, f"{name} has datagrams to send"
        for one, other in self._pairs():
            bounds.check_announced(one.session, other.session)
        before = self.world.datagrams
        interval = min(player.node.config.keep_alive_interval for player in self.players)
        self.world.run(3 * interval)
        signs = self.world.datagrams - before
        paths = sum(len(seat.session.paths) for _, seat in living)
        most = 3 * 5 * max(paths, len(living))
        assert signs <= most, f"{signs} datagrams in {3 * interval:g} s, in which nothing happened"
        self.check()

    def end(self) -> None:
        """All sessions end, at both ends, and nothing is left."""
        rng = random.Random(f"{self.recipe.seed}/end")
        for seat, other in self._pairs():
            for each in rng.choice(((seat,), (other,), (seat, other))):
                player = next(player for player in self.players if each.session in player.seats)
                player.close(each)
        self.world.run(CLOSING)
        for player in self.players:
            for session in player.seats:
                assert session.is_closed, f"{player.node.name} has {session}, {CLOSING:g} s after it was closed"
        configs = [player.node.config for player in self.players]
        self.world.assert_idle(MAX_LINGER + max(config.handshake_timeout for config in configs))
        self.model.check_drained()
        before = self.world.datagrams
        self.world.run(1000.0)
        assert self.world.datagrams == before, "nobody has a session, and something is sent"

    def _finish_report(self) -> Report:
        report, talks = self.report, self.model.conversations.values()
        report.datagrams = self.world.datagrams
        report.seconds = self.world.now
        report.sessions = sum(all(end.node_id for end in talk.ends.values()) and len(talk.ends) == 2 for talk in talks)
        report.streams = sum(len(talk.announced) for talk in talks)
        report.bytes = sum(flow.read for talk in talks for flow in talk.flows.values())
        report.lives = sum((player.lives for player in self.players), Counter())
        report.traffic = self.world.traffic
        report.digest = self._digest.hexdigest()
        return report


def run(seed: int, without: Container[int] = ()) -> Report:
    """Run the world of a seed, perhaps without some of its steps."""
    world = RandomWorld(draw(seed), without)
    try:
        return world.run()
    except Exception as error:
        error.add_note(f"at {world.world.now:.6f} s in the world of seed {seed}")
        raise


def shrink(seed: int) -> tuple[frozenset[int], str]:
    """Leave out as many steps of a failing world as can be done without; give those, and how it fails then."""
    without: frozenset[int] = frozenset()
    failure = failure_of(seed, without)
    left = [step.index for step in draw(seed).steps]
    size = len(left)
    while size:
        for start in range(0, len(left), size):
            fewer = without | frozenset(left[start : start + size])
            now = failure_of(seed, fewer)
            if now and now.split(":")[0] == failure.split(":")[0]:
                without, failure = fewer, now
        left = [index for index in left if index not in without]
        size = min(size // 2, len(left))
    return without, failure


def failure_of(seed: int, without: Container[int] = ()) -> str:
    """How a world fails, in one line; "" when it does not."""
    try:
        run(seed, without)
    except Exception as error:
        return f"{type(error).__name__}: {error}".split("\n")[0]
    return ""


__all__ = ["RandomWorld", "Report", "failure_of", "run", "shrink"]
