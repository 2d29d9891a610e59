"""Connection IDs: how packets find their session (docs/protocol.md, C-1 to C-5, C-7).

An ID is issued by the endpoint that wants to be reached by it. The endpoint's `ConnectionIdTable` is the routing
table; each session adds to it what it issues (`LocalConnectionIds`) and takes back what the peer retires.
`RemoteConnectionIds` are the other direction: the IDs by which a session reaches its peer.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection
from math import inf
from typing import Generic, TypeVar

from stt_proto.errors import InvalidFrameError, ResourcesExhaustedError, StateError
from stt_proto.packet.reset import ExpectedResets, ResetTokens
from stt_proto.wire import NewConnectionId
from stt_proto.wire.header import CONNECTION_ID_SIZE

__all__ = ["ConnectionIdTable", "LocalConnectionIds", "RemoteConnectionIds"]

MAX_LIVE = 4
"""IDs that a session keeps issued, if its peer takes as many (C-2)."""
MAX_RETIRING = 64
"""Of our IDs: retired and still routed. Of the peer's: retired, and the RETIRE_CONNECTION_ID not acknowledged (C-4)."""
MAX_ISSUED = 256
"""IDs issued within `ISSUE_PERIOD` (C-4)."""
ISSUE_PERIOD = 10.0
"""Seconds."""
MAX_RETIRED_OUT_OF_ORDER = 256
"""Numbers remembered as retired while a smaller one was never seen."""

_NONE_RETIRED: frozenset[int] = frozenset()
"""Shared by all sessions: each empty one made anew takes 216 bytes."""
_DRAWS = 8
_DRAWS_OF_ONE_OF_MANY = 8192
"""Where only some IDs will do: among 64 workers none is found in so many draws once in 10^56 times."""

Owner = TypeVar("Owner")


class ConnectionIdTable(Generic[Owner]):
    """The routing table of an endpoint: from each connection ID that it issued to the session that is meant.

    Args:
        entropy: where IDs are drawn from.
        will_do: whether an ID may be issued; all may when `None` (C-7).

    Attributes:
        route: from an ID, 8 bytes, to its owner, or `None`.
    """

    __slots__ = ("_draws", "_entropy", "_owners", "_will_do", "route")

    def __init__(self, entropy: Callable[[int], bytes], will_do: Callable[[bytes], bool] | None = None) -> None:
        self._entropy = entropy
        self._will_do = will_do
        self._draws = _DRAWS if will_do is None else _DRAWS_OF_ONE_OF_MANY
        self._owners: dict[bytes, Owner] = {}
        # The dictionary's own method, since it is asked for every datagram.
        self.route: Callable[[bytes], Owner | None] = self._owners.get

    def __len__(self) -> int:
        return len(self._owners)

    def __contains__(self, connection_id: bytes) -> bool:
        return connection_id in self._owners

    def issue(self, owner: Owner) -> bytes:
        """Draw a fresh ID for an owner.

        Raises:
            StateError: the source of entropy repeats itself.
        """
        will_do = self._will_do
        for _ in range(self._draws):
            connection_id = self._entropy(CONNECTION_ID_SIZE)
            if connection_id not in self._owners and (will_do is None or will_do(connection_id)):
                self._owners[connection_id] = owner
                return connection_id
        raise StateError("the source of entropy repeats itself")

    def rebind(self, connection_id: bytes, owner: Owner) -> None:
        """Give an ID that was issued to another owner: from a handshake to its session."""
        self._owners[connection_id] = owner

    def retire(self, connection_id: bytes) -> None:
        """Route an ID no more; one that is not routed is no mistake."""
        self._owners.pop(connection_id, None)


class LocalConnectionIds(Generic[Owner]):
    """The IDs by which the peer reaches one session.

    Methods that make something to be announced return the sequence numbers concerned; `frame` gives what stands in the
    NEW_CONNECTION_ID of each, at the time when it is sent.
    """

    __slots__ = ("_issued_at", "_limit", "_live", "_next", "_owner", "_retired", "_table", "_tokens")

    def __init__(self, table: ConnectionIdTable[Owner], tokens: ResetTokens, owner: Owner, first: bytes) -> None:
        """Begin with the ID of the handshake, number 0, which is routed to `owner` from now on."""
        self._table = table
        self._tokens = tokens
        self._owner = owner
        self._live = {0: first}
        self._next = 1
        self._limit = 1
        # Short lists: an empty deque costs 600 bytes, and most sessions never need either.
        self._issued_at: list[float] = []
        self._retired: list[tuple[float, bytes]] = []
        table.rebind(first, owner)

    @property
    def live(self) -> tuple[bytes, ...]:
        """The IDs that the peer may use, the oldest first."""
        return tuple(self._live.values())

    def announce(self, peer_limit: int, now: float) -> list[int]:
        """Begin to issue: as many as the peer takes, at most 4, and number 0 again for its reset token (C-2)."""
        self._limit = min(MAX_LIVE, peer_limit)
        return [*self._live, *self._fill(now)]

    def widen(self, peer_limit: int, now: float) -> list[int]:
        """The session has come to more than one path: issue as many as the peer takes, at most 4 (C-2).

        Returns:
            The numbers to announce; fewer than wanted for a peer that has used up what it may ask for.
        """
        self._limit = max(self._limit, min(MAX_LIVE, peer_limit))
        return self._fill(now)

    def frame(self, number: int) -> NewConnectionId | None:
        """What announces an ID, or `None` when it was retired meanwhile."""
        connection_id = self._live.get(number)
        if connection_id is None:
            return None
        return NewConnectionId(number, 0, connection_id, self._tokens.token(connection_id))

    def on_retire(self, number: int, now: float, linger: float) -> list[int]:
        """The peer uses an ID no more; it is replaced.

        Args:
            number: of the RETIRE_CONNECTION_ID.
            now: seconds.
            linger: seconds for which the ID is still routed, for packets on the way (3 PTO).

        Returns:
            The numbers to announce; none when this one was retired before.

        Raises:
            InvalidFrameError: no ID with this number was issued.
            ResourcesExhaustedError: IDs are retired faster than the peer may ask for new ones.
        """
        if number >= self._next:
            raise InvalidFrameError("retires a connection ID that was never issued")
        connection_id = self._live.pop(number, None)
        if connection_id is None:
            return []
        retired = self._retired
        retired.append((now + linger, connection_id))
        if len(retired) > MAX_RETIRING:
            self._table.retire(retired.pop(0)[1])
        numbers = self._fill(now)
        if not numbers:
            raise ResourcesExhaustedError("too many connection IDs asked for")
        return numbers

    @property
    def deadline(self) -> float:
        """When `expire` has something to do, or `inf`. They leave in order; none before its time."""
        return self._retired[0][0] if self._retired else inf

    def expire(self, now: float) -> None:
        """Route retired IDs no more once their time is over."""
        retired = self._retired
        while retired and retired[0][0] <= now:
            self._table.retire(retired.pop(0)[1])

    def close(self) -> None:
        """Route none of them any more."""
        for connection_id in self._live.values():
            self._table.retire(connection_id)
        self._live.clear()
        self.expire(inf)

    def _fill(self, now: float) -> list[int]:
        """Issue until there are as many as there should be, or too many in a short time."""
        numbers = []
        issued_at = self._issued_at
        while len(self._live) < self._limit:
            while issued_at and issued_at[0] <= now - ISSUE_PERIOD:
                issued_at.pop(0)
            if len(issued_at) >= MAX_ISSUED:
                break
            issued_at.append(now)
            self._live[self._next] = self._table.issue(self._owner)
            numbers.append(self._next)
            self._next += 1
        return numbers


class RemoteConnectionIds(Generic[Owner]):
    """The IDs by which one session reaches its peer.

    Methods that retire IDs return the numbers for which a RETIRE_CONNECTION_ID is to be sent.

    Attributes:
        current: the ID to send to on the active path.
        number: its sequence number.
    """

    __slots__ = (
        "_floor",
        "_limit",
        "_live",
        "_owner",
        "_resets",
        "_retired",
        "_retiring",
        "current",
        "number",
    )

    def __init__(self, resets: ExpectedResets[Owner], owner: Owner, first: bytes, limit: int) -> None:
        """Begin with the peer's ID of the handshake, number 0.

        Args:
            resets: where the tokens of live IDs are expected.
            owner: whose session they would reset.
            first: the peer's ID, 8 bytes.
            limit: the connection_id_limit that we announced.
        """
        self._resets = resets
        self._owner = owner
        self._limit = limit
        self._live: dict[int, tuple[bytes, bytes | None]] = {0: (first, None)}
        self.number = 0
        self.current = first
        # All numbers below the floor are retired; above it those in the set.
        self._floor = 0
        self._retired = _NONE_RETIRED
        self._retiring: dict[int, None] = {}

    def add(self, frame: NewConnectionId) -> list[int] | None:
        """Take in a NEW_CONNECTION_ID.

        Returns:
            The numbers to retire; `None` when the frame told nothing new (F-5).

        Raises:
            InvalidFrameError: it contradicts an earlier one, or announces more than we take (C-3).
            ResourcesExhaustedError: it makes us retire more than 64 IDs that are not acknowledged (C-4).
        """
        number, retire_prior_to, connection_id, token = frame
        floor = max(self._floor, retire_prior_to)
        retiring = [live for live in self._live if live < floor]
        gaps = self._retired and frozenset(retired for retired in self._retired if retired >= floor)
        learned = False
        if number >= floor and number not in self._retired:
            learned = self._is_news(number, connection_id, token)
        elif number not in self._retiring and number not in retiring:
            retiring.append(number)
        kept = sum(live >= floor for live in self._live)
        if kept + (learned and number not in self._live) > self._limit:
            raise InvalidFrameError("announces more connection IDs than allowed")
        if len(self._retiring) + len(retiring) > MAX_RETIRING or len(gaps) > MAX_RETIRED_OUT_OF_ORDER:
            raise ResourcesExhaustedError("retires too many connection IDs")

        self._floor, self._retired = floor, gaps
        for retired in retiring:
            self._retire(retired)
        if learned:
            self._live[number] = connection_id, token
            self._resets.add(token, self._owner)
        if self.number not in self._live and self._live:
            self._use(min(self._live))
        return retiring if retiring or learned else None

    def unused(self, taken: Collection[int]) -> int | None:
        """The number of an ID that no path uses yet, `None` when there is none; `taken` are those that one does."""
        free = self._live.keys() - taken
        return min(free) if free else None

    def __len__(self) -> int:
        return len(self._live)

    def id_of(self, number: int) -> bytes | None:
        """The ID with this number; `None` when it is retired."""
        known = self._live.get(number)
        return None if known is None else known[0]

    def use(self, number: int) -> None:
        """Send to this ID from now on; one that is retired changes nothing."""
        if number in self._live:
            self._use(number)

    def retire(self, number: int) -> bool:
        """Give up an ID that is not the current one; tell whether a RETIRE_CONNECTION_ID is to be sent.

        It is kept when 64 retirements are not acknowledged yet (C-4).
        """
        if number == self.number or number not in self._live or len(self._retiring) >= MAX_RETIRING:
            return False
        self._retire(number)
        return True

    def on_retire_acked(self, number: int) -> None:
        """A RETIRE_CONNECTION_ID arrived."""
        self._retiring.pop(number, None)

    def close(self) -> None:
        """Expect no reset any more."""
        for _, token in self._live.values():
            if token is not None:
                self._resets.discard(token, self._owner)
        self._live.clear()

    def _use(self, number: int) -> None:
        self.number = number
        self.current = self._live[number][0]

    def _is_news(self, number: int, connection_id: bytes, token: bytes) -> bool:
        """Whether an ID that can be used, or its token, was not known yet."""
        known = self._live.get(number)
        if known is None:
            if any(connection_id == other for other, _ in self._live.values()):
                raise InvalidFrameError("announces one connection ID under two numbers")
        else:
            known_id, known_token = known
            if known_id != connection_id or not hmac.compare_digest(known_token or token, token):
                raise InvalidFrameError("announces another connection ID or token under a number")
            if known_token is not None:
                return False
        return True

    def _retire(self, number: int) -> None:
        _, token = self._live.pop(number, (b"", None))
        if token is not None:
            self._resets.discard(token, self._owner)
        self._retiring[number] = None
        if number >= self._floor:
            gaps = {*self._retired, number}
            while self._floor in gaps:
                gaps.remove(self._floor)
                self._floor += 1
            self._retired = frozenset(gaps)
