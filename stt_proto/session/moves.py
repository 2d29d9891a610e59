"""The paths of one session: which there are, which one is used, and when it moves (docs/protocol.md, section 11.1).

The active path is `Engines.path`; everything about ordinary packets happens there and knows of no other. This is about
the others, and about a change. Without any path a session is *detached*: its active path leads nowhere, and only
questions leave, on paths that may become the next one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf
from typing import TYPE_CHECKING, Any

from stt_proto.errors import StateError
from stt_proto.events import PathLost, PathValidated, SessionMoved, SessionReattached
from stt_proto.packet import Opened, capacity
from stt_proto.paths import CHALLENGE_SIZE, DOUBTED, MAX_OPENED, NEW, REGAIN, Doubt, Path, PathTable, best, better
from stt_proto.paths.doubt import TIMEOUTS, Signs
from stt_proto.paths.validation import PROBING, Challenge, Patience
from stt_proto.session.context import EventSink, SessionContext
from stt_proto.session.control import MOVE
from stt_proto.session.engines import Engines
from stt_proto.session.path_ids import CONNECTION_IDS, give_id, id_of, issue_more, retire_id, stop_borrowing, use_id
from stt_proto.session.routes import NOWHERE, REMOVED, SILENT
from stt_proto.types import NetworkPath, PathInfo
from stt_proto.wire import Frame, FrameType, Move, PathChallenge, PathResponse

if TYPE_CHECKING:
    from stt_proto.session.session import Session


class Moves:
    """Finds, tries and changes the paths of one session.

    Args:
        session: whose they are.
        engines, context: of it.
        events: where it tells of what happens.
        connection_id: ours, to which the packets of the first path come.
        now: seconds.

    Attributes:
        table: the paths beside the active one.
        detached: whether there is no path.
        busy: whether `next_question` wants to be asked.
    """

    __slots__ = (
        "_chosen",
        "_context",
        "_copied",
        "_doubts",
        "_elsewhere",
        "_engines",
        "_events",
        "_last_wish",
        "_moved_at",
        "_peer_wish",
        "_session",
        "_strays",
        "busy",
        "detached",
        "table",
    )

    def __init__(
        self,
        session: Session,
        engines: Engines,
        context: SessionContext,
        events: EventSink,
        connection_id: bytes,
        now: float,
    ) -> None:
        self._session = session
        self._engines = engines
        self._context = context
        self._events = events
        engines.path.arrived_by = connection_id
        self.table = PathTable()
        self.detached = self.busy = False
        self._chosen: Path | None = None  # where the application wants to be
        self._last_wish = self._peer_wish = 0  # the numbers of our last MOVE, and of the peer's
        self._moved_at = now
        self._copied = False  # whether a copy of our answer went to an address that may be another's (H-35)
        self._elsewhere = 0  # packets that came over other paths than the active one
        self._strays = False  # whether the peer is heard over another path, and not over the active one
        self._doubts = Doubt()

    @property
    def _over_active(self) -> int:
        """Packets that came over the active path, and those before it: only that it changes is of interest."""
        return self._engines.counters.packets_received - self._elsewhere

    @property
    def _is_silent(self) -> bool:
        """Whether the active path did not answer when it was doubted, and nothing came over it since."""
        return self._doubts.is_silent(self._over_active)

    def infos(self) -> Iterator[PathInfo]:
        """Snapshots of all paths, the active one first."""
        return (path.info(path is self._engines.path) for path in self._all())

    def _all(self) -> Iterator[Path]:
        """All paths there are, while the table may change."""
        if not self.detached:
            yield self._engines.path
        yield from self.table

    # -- the application -------------------------------------------------------------------------------------------

    def add(self, network_path: NetworkPath, now: float, *, migrate: bool) -> None:
        """Take in a path, or try one again; with `migrate` go on there as soon as the peer has answered.

        Raises:
            StateError: there are as many as may be.
        """
        if network_path == self._engines.path.network_path:
            self._chosen = self._engines.path if migrate else self._chosen
            return
        path = self.table.others.get(network_path)
        if path is None or not path.opened_here:
            self._make_place()
        if path is None:
            path = self._make(network_path, now, opened_here=True)
        elif not path.opened_here and path.remote_id == self._engines.remote_ids.number:
            path.borrows = True
        path.opened_here = True
        if migrate:
            self._chosen = path
        if migrate or self.detached:
            self._wish(path)
        if migrate and path.validated:
            self._activate(path, now)
        elif path.challenge is None or path.challenge.asked > 1:  # else it has just been asked
            self._ask(path, NEW, now)

    def remove(self, network_path: NetworkPath, now: float) -> None:
        """Give up a path that is not in use; if it was to move there, the session stays where it is (M-7)."""
        path = self.table.others.get(network_path)
        if path is not None:
            self._drop(path, REMOVED, now)
            if path is self._chosen and not self.detached:
                self._wish(self._engines.path)
                self._ask_to_follow(self._engines.path, by_peer=False)

    def _make_place(self) -> None:
        """See that one more path can be opened here."""
        if self.table.opened >= MAX_OPENED:
            tried = next((path for path in self.table if path.opened_here and not path.validated), None)
            if tried is None:
                raise StateError(f"the session has {MAX_OPENED} paths beside the one in use")
            self._drop(tried, SILENT, self._context.clock.now)

    def _make(
        self,
        network_path: NetworkPath,
        now: float,
        *,
        opened_here: bool,
        remote_id: int | None = None,
        rtt: float | None = None,
    ) -> Path:
        """Enter a path of which nothing is known, not even an ID to send to, if none is given."""
        engines, config = self._engines, self._context.config
        path = Path(
            network_path,
            config.carriers[network_path.carrier],
            max_packet=engines.peer.max_packet,
            max_segments=engines.peer.max_segments,
            congestion=config.congestion,
            max_ack_delay=engines.peer.max_ack_delay / 1000,
            rtt=rtt,
            remote_id=remote_id or 0,
            opened_here=opened_here,
            validated=False,
            now=now,
        )
        if remote_id is None:
            give_id(path, engines, self.table)
        self.table.add(path)
        self._context.by_path.add(network_path, self._session)
        issue_more(self._engines, now)
        return path

    def on_new_id(self, now: float) -> None:
        """The peer has issued an ID: a path may have waited for it."""
        self.busy = True
        stop_borrowing(self._engines, self.table)
        if len(self._engines.remote_ids) > CONNECTION_IDS:
            issue_more(self._engines, now)

    def _wish(self, path: Path) -> None:
        """Ask the peer, with everything that goes there, to send there too (M-7)."""
        for other in self.table:
            other.wish = 0
        self._last_wish += 1
        path.wish = self._last_wish

    # -- what arrives ----------------------------------------------------------------------------------------------

    def heard(
        self, network_path: NetworkPath, connection_id: bytes, packet: Opened, frames: list[Frame], now: float
    ) -> Path | None:
        """A packet that opened came over another path than the active one: give that path (M-3).

        Whoever sent it from there may have a copy. So nothing follows but a question, and where there are many not even
        that: no path is given, and MOVE is taken out.
        """
        self._elsewhere += 1
        path = self.table.others.get(network_path)
        fresh = path is None
        if path is None:
            if not self.table.admits(now):
                frames[:] = [frame for frame in frames if frame.__class__ is not Move]
                return None
            path = self._meet(network_path, connection_id, now)
            self._ask(path, NEW, now)
        path.received += packet.size
        path.heard_at = now
        if not path.arrived_by:
            path.arrived_by = connection_id
        if not self.detached and not PROBING.issuperset(map(type, frames)):
            self._on_used(path, fresh, now)
        return path

    def _meet(self, network_path: NetworkPath, connection_id: bytes, now: float) -> Path:
        """Somebody is heard from an address that was not known."""
        old = self.table.in_the_way()
        if old is not None:
            self._drop(old, SILENT, now)
        active = self._engines.path
        if connection_id != active.arrived_by:  # the peer has chosen to send from there
            return self._make(network_path, now, opened_here=False)
        rtt = active.recovery.rtt  # a translator on the way has given it another address
        known = rtt.smoothed if rtt.samples and network_path.carrier == active.network_path.carrier else None
        path = self._make(network_path, now, opened_here=False, remote_id=self._engines.remote_ids.number, rtt=known)
        path.arrived_by = connection_id
        return path

    def _on_used(self, path: Path, fresh: bool, now: float) -> None:
        """The peer, or somebody with copies, uses another path than the active one (M-5)."""
        if path.validated and self._is_silent:
            self._activate(path, now, gone=SILENT)
            return
        quiet = self._doubts.is_quiet(self._over_active)
        self._strays = quiet and path.validated
        if fresh or (quiet and self._doubts.may_begin(now)):
            self._doubt(now)

    def on_challenge(self, path: Path | None, data: bytes) -> None:
        """The peer asks whether we are there; `None` is the active path."""
        (path or self._engines.path).response = data
        self.busy = True

    def on_response(self, data: bytes, over: Path | None, now: float) -> bool:
        """The peer repeats the data of a challenge: whichever way that came, the way there is open (M-4).

        Gives whether it was asked for.
        """
        for path in self._all():
            if path.challenge is not None and path.challenge.data == data:
                self._on_answered(path, now, path is (over or self._engines.path))
                return True
        return False

    def _on_answered(self, path: Path, now: float, over_it: bool) -> None:
        """The peer is at the other end of a path."""
        path.heard_at = now
        if path.on_answered(now, over_it):
            self._tell(PathValidated(path.network_path), now)
            if path is self._chosen and not path.wish:  # the session had to move elsewhere meanwhile
                self._wish(path)
        active = self._engines.path
        if path is active:
            self._doubts.dispel()
            if over_it and self._strays:
                self._call_back(active)
        elif self.detached or path.wish:
            self._activate(path, now)
        elif not active.validated:
            self._activate(path, now, gone=SILENT)
        elif path.asked_for:
            self._activate(path, now, by_peer=True)
        elif self._is_silent:
            self._activate(path, now, gone=SILENT)
        elif self._session.initiator and active is not self._chosen:
            chosen = better(active, self.table, moved_for=now - self._moved_at)
            if chosen is not None:
                self._activate(chosen, now)

    def _call_back(self, active: Path) -> None:
        """The active path works both ways, and the peer uses another one: the initiator asks it to come (M-7)."""
        self._strays = False
        control = self._engines.control
        wishes = control.awaits((MOVE, control.wish)) or any(path.wish for path in self.table)
        if self._session.initiator and not wishes:
            self._wish(active)
            self._ask_to_follow(active, by_peer=False)

    def on_move(self, number: int, path: Path | None, now: float) -> bool:
        """The peer asks to move to the path over which this came; `None` is the active one (M-7).

        Returns:
            Whether this is news.
        """
        if number <= self._peer_wish:
            return False
        self._peer_wish = number
        for other in self.table:
            other.asked_for = False
        if path is not None and path is not self._engines.path:  # to which the frame before may have led
            path.asked_for = True
            if path.validated:
                self._activate(path, now, by_peer=True)
        return True

    # -- questions -------------------------------------------------------------------------------------------------

    def _ask(self, path: Path, patience: Patience, now: float) -> None:
        path.ask(self._context.entropy(CHALLENGE_SIZE), patience, now)
        self.busy = True

    def _doubt(self, now: float) -> None:
        """Ask whether the active path still leads to the peer."""
        active = self._engines.path
        if active.challenge is None:
            self._doubts.begin(self._signs_of_life, now)
            self._ask(active, DOUBTED, now)

    def suspect(self, now: float) -> None:
        """Acknowledgements stay away from the active path, or all signs of life; perhaps another is better (M-5)."""
        if self.table.others and not self.detached and self._doubts.may_begin(now) and not self._is_silent:
            self._doubt(now)
            for path in self.table:
                if path.validated and path.challenge is None:
                    self._ask(path, NEW, now)

    def next_question(self, now: float) -> tuple[Path, bytes, list[bytes | memoryview], int] | None:
        """What is to be sent now on one path or another: the path, the ID, frames, and the size of the datagram."""
        waiting = False
        for path in self._all():
            challenge = path.challenge
            asking = challenge is not None and challenge.wants_to_ask(now)
            if path.response is None and not asking:
                continue
            connection_id = id_of(path, self._engines, self.table, at_once=self.detached or self._is_silent)
            if connection_id is None:
                if challenge is not None:
                    waiting |= challenge.put_off(now)
                continue
            parts: list[bytes | memoryview] = []
            if path.response is not None:
                parts.append(PathResponse(path.response).encode())
                path.response = None
            size = path.max_datagram
            if asking and challenge is not None:
                challenge.on_asked(now)
                parts.append(PathChallenge(challenge.data).encode())
                size = path.question_size or size
            if path.wish and FrameType.MOVE in self._engines.peer.extension_frames:
                parts.append(Move(path.wish).encode())
            size = int(min(size, path.allowance))
            room = capacity(size, 1) - sum(map(len, parts))
            if room < 0 or path.network_path in self._context.full:
                continue
            if asking and path.question_size:
                parts.append(bytes(room))
            return path, connection_id, parts, size
        self.busy = False
        if waiting:
            self.suspect(now)  # what it waits for may be on its way over a path that leads nowhere
        return None

    # -- time ------------------------------------------------------------------------------------------------------

    @property
    def watches(self) -> bool:
        """Whether there is anything for which `deadline` need be asked."""
        return bool(self.table.others) or self.detached or self._engines.path.challenge is not None

    @property
    def deadline(self) -> float:
        """When `tick` has something to do; `inf` with nothing but an active path."""
        challenge = self._engines.path.challenge
        at = self._stuck_at if challenge is None else challenge.due_at
        for path in self.table.others.values():
            if path.challenge is not None:
                at = min(at, path.challenge.due_at)
            else:  # it is validated: any other is being asked, or gone
                at = min(at, path.heard_at + self._patience_with(path))
            at = min(at, path.recovery.deadline, path.recovery.settled_by)
        return at

    @property
    def _stuck_at(self) -> float:
        """When a carrier for which recovery has no timer is to be doubted; `inf` when there is no other path."""
        recovery = self._engines.path.recovery
        if not recovery.reliable or not self.table.others or self._is_silent:
            return inf
        return max(recovery.settled_by + TIMEOUTS * recovery.pto, self._doubts.pause_until)

    def _is_kept(self, path: Path) -> bool:
        """Whether this side sees to it that a path stays open."""
        return path.opened_here or self._session.initiator

    def _patience_with(self, path: Path) -> float:
        """Seconds of silence on a spare path after which something is done."""
        liveness = self._engines.liveness
        return liveness.interval if self._is_kept(path) else liveness.timeout

    def tick(self, now: float) -> None:
        """Let time pass; idempotent for the same `now`."""
        for path in self.table:
            self._engines.settle(path, now)
            if path.challenge is None:
                if now >= path.heard_at + self._patience_with(path):
                    self._on_quiet(path, now)
            elif path.challenge.is_over(now):
                if self.detached and path.opened_here and not path.traits.reliable:
                    self._ask(path, REGAIN, now)
                else:
                    self._drop(path, SILENT, now)
            else:
                self.busy |= path.challenge.due_at <= now
        active = self._engines.path
        if active.challenge is not None:
            if active.challenge.due_at <= now:
                self._weigh_silence(active, active.challenge, now)
        elif active.recovery.pto_count >= TIMEOUTS or self._stuck_at <= now:
            self.suspect(now)

    def _on_quiet(self, path: Path, now: float) -> None:
        """Nothing came over a spare path for long."""
        if not self._is_kept(path):
            self._drop(path, SILENT, now)
            return
        self._ask(path, NEW, now)
        if not self.detached and self._doubts.is_quiet(self._over_active):
            self._doubt(now)

    @property
    def _signs_of_life(self) -> Signs:
        """What speaks for the active path: something came over it, or something arrived that was sent over it."""
        return self._over_active, self._engines.path.recovery.packets_acked

    def _weigh_silence(self, active: Path, challenge: Challenge, now: float) -> None:
        """It is time to ask the active path again, or to believe that it leads nowhere (M-5)."""
        if self._doubts.has_signs(self._signs_of_life):
            challenge.go_on()
        if not challenge.is_over(now):
            self.busy = True
            return
        active.challenge = None
        self._doubts.confirm(self._over_active)
        other = best(path for path in self.table if path.heard_at >= self._doubts.since)
        if other is not None:
            self._activate(other, now, gone=SILENT)

    # -- changes ---------------------------------------------------------------------------------------------------

    def _activate(self, path: Path, now: float, *, by_peer: bool = False, gone: str = "") -> None:
        """Go on over a validated path; `gone` tells why the one so far is not to be kept."""
        engines, session = self._engines, self._session
        old = engines.path
        self.table.remove(path)
        path.ecn = old.ecn.on_moved(not path.traits.reliable, engines.numbers.next_number)
        path.recovery.ce_count = old.recovery.ce_count
        path.asked_for = False
        engines.sent_elsewhere += old.recovery.packets_sent - path.recovery.packets_sent
        engines.path = path
        use_id(path, engines, self.table)
        engines.limit_datagrams()
        self._context.full.get(session.path, {}).pop(session, None)
        session.path = path.network_path
        self._moved_at = now
        self._strays = False
        self._doubts.on_moved(self._over_active)
        old.challenge = None
        for other in self.table:
            other.wish = 0
        if self.detached:
            self.detached = False
            retire_id(old, engines, self.table)
            for other in self.table:  # whose questions had no end so far
                self._ask(other, NEW, now)
            self._context.detached.remove(session)
            self._tell(SessionReattached(path.network_path), now)
        else:
            self._leave(old, now, gone)
            self._tell(SessionMoved(old.network_path, path.network_path, by_peer), now)
        engines.acks.repeat(now)
        self._ask_to_follow(path, by_peer)

    def begin_among(
        self, network_path: NetworkPath, copies: Sequence[NetworkPath], received: int, sent: int, now: float
    ) -> None:
        """The first packet of a resumption came this way, and RESUMED (of so many bytes `sent`) went to several
        addresses. Any may be forged, that of the packet too: all are asked, and get little before one answers (H-35).
        """
        self._copied = True
        engines = self._engines
        active, number = engines.path, engines.remote_ids.number
        active.received, active.sent = received, max(active.sent, sent)
        active.validated = active.opened_here = False
        for copy in copies:
            if copy != active.network_path and copy not in self.table.others:
                path = self._make(copy, now, opened_here=False, remote_id=number)
                path.arrived_by, path.received, path.sent = active.arrived_by, received, sent
        first = self.table.others.get(network_path)
        if first is not None:
            self._activate(first, now, by_peer=True)
        for path in self.table:
            self._ask(path, NEW, now)

    def on_unproven(self, size: int, now: float) -> None:
        """Something came over the active path, which nobody has been shown to be at (H-40)."""
        active = self._engines.path
        active.received += size
        active.validated = active.opened_here = not self._copied  # if not, nobody elsewhere can know the keys
        if self._copied:
            self._doubt(now)

    def _leave(self, old: Path, now: float, gone: str) -> None:
        """The session moves on from a path; what is on its way there may still arrive."""
        engines = self._engines
        if gone:
            self._drop(old, gone, now)
            return
        old.heard_at = now
        self.table.add(old)
        if old.recovery.is_overdue(now):  # perhaps that is why it moves
            engines.declare_lost(old.recovery.discard_all(), now, old)

    def _ask_to_follow(self, path: Path, by_peer: bool) -> None:
        """Ask the peer to send here too, unless it is there already."""
        engines = self._engines
        engines.control.wish = 0
        if by_peer or not (self._session.initiator or path.wish):
            return
        if FrameType.MOVE in engines.peer.extension_frames:
            if not path.wish:
                self._wish(path)
            engines.control.wish = path.wish
            engines.control.put((MOVE, path.wish))
        path.wish = 0

    def _drop(self, path: Path, reason: str, now: float) -> None:
        """Forget a path that is not the active one any more, or never was."""
        self.table.remove(path)
        self._engines.declare_lost(path.recovery.discard_all(), now, path)
        retire_id(path, self._engines, self.table)
        self._context.by_path.remove(path.network_path, self._session)
        if path.validated or path.opened_here:
            self._tell(PathLost(path.network_path, reason), now)

    def closed(self, network_path: NetworkPath, reason: str, now: float) -> bool:
        """The carrier of one of its paths is gone; tell whether the session still has one."""
        path = self.table.others.get(network_path)
        if path is not None:
            self._drop(path, reason, now)
            return True
        other = best(self.table)
        if other is None and not self._engines.path.validated:  # which may have been another's all the time (H-35)
            self._copied, other = True, next(iter(self.table), None)
        if other is not None:
            self._activate(other, now, gone=reason)
        return other is not None

    def detach(self, reason: str, now: float, *, closed: bool) -> None:
        """No path is left; with `closed` its carrier is gone too, so there is no asking on it any more (M-10)."""
        session, old = self._session, self._engines.path
        where = old.network_path
        for path in self.table:
            if path.validated:
                self._drop(path, reason, now)
        self._context.full.get(where, {}).pop(session, None)
        self._engines.declare_lost(old.recovery.discard_all(), now, old)
        self._context.by_path.remove(where, session)
        self._tell(PathLost(where, reason), now)
        old.network_path = NOWHERE
        old.challenge = old.response = None
        self.detached = True
        self._chosen = None
        if session.initiator and not closed and not old.traits.reliable:
            path = self._make(where, now, opened_here=True, remote_id=old.remote_id)  # who is there knows it already
            path.borrows = old.borrows
            self._wish(path)
            self._ask(path, REGAIN, now)

    def close(self) -> None:
        """The session is over: it has no path any more."""
        by_path, session = self._context.by_path, self._session
        by_path.remove(session.path, session)
        for path in self.table:
            by_path.remove(path.network_path, session)
        self._context.detached.remove(session)

    def _tell(self, event: Any, now: float) -> None:
        self._events.append(event)
        if self._engines.trace is not None:
            self._engines.trace.event(event, now)
