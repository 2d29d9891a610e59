"""Coming back: when to dial a peer again, with which ticket, and when to give it up.

No socket, no clock and no randomness in here: a host says what happened and when, and asks `next_dial`. It dials when
that is due and tells how it went; `state` is what it can show to the application after each call.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, TypeAlias

from attrs import Attribute, field, frozen

from stt_proto.errors import (
    ArgumentError,
    AuthenticationError,
    RemoteError,
    SessionClosedError,
    SessionError,
    SttError,
)
from stt_proto.tickets import Ticket
from stt_proto.types import CloseReason

LONGEST = 86_400.0
"""Seconds; no parameter of a policy is longer."""
_DRAWN = 4
"""Bytes of entropy for one delay."""

Entropy: TypeAlias = Callable[[int], bytes]


# -- how patient ---------------------------------------------------------------------------------------------------


def _number(low: float, high: float) -> Any:
    def check(_: Any, attribute: Attribute[Any], value: Any) -> None:
        if type(value) not in (int, float) or not low <= value <= high:
            name = attribute.name
            raise ArgumentError(f"{name} is {value!r}; it must be from {low:g} to {high:g}", argument=name)

    return check


def _number_or_none(kind: tuple[type, ...], low: float, high: float) -> Any:
    def check(_: Any, attribute: Attribute[Any], value: Any) -> None:
        if value is not None and (type(value) not in kind or not low <= value <= high):
            name = attribute.name
            raise ArgumentError(f"{name} is {value!r}; it must be None or from {low:g} to {high:g}", argument=name)

    return check


@frozen(kw_only=True)
class ReconnectPolicy:
    """How patiently a peer is dialled again (exponential back-off with jitter).

    The first try after a loss is made at once; after one that fails there is a wait, and a longer one after the next.

    Attributes:
        first: seconds of the first wait, 0.001 to 86,400.
        factor: by which each wait is longer than the one before, 1 to 100.
        most: seconds of the longest wait, `first` to 86,400.
        jitter: the share of each wait that is left to chance, 0 to 1: a wait of `d` takes from `(1 - jitter) d` to `d`,
            so that those who lost a server together do not come back together.
        attempts: tries, 1 to 10^9, without a session that lasted, after which it is given up; `None` for any number.
        give_up_after: seconds without a session, 0 to 86,400, after which no further try begins; `None` for never.
        stable_after: seconds that a session must have lasted, 0 to 86,400, for the waits to begin anew. Who lets
            everybody in and drops them at once is dialled ever more seldom.

    Raises:
        ArgumentError: names what is out of its range.
    """

    first: float = field(default=1.0, validator=_number(0.001, LONGEST))
    factor: float = field(default=2.0, validator=_number(1, 100))
    most: float = field(default=60.0, validator=_number(0.001, LONGEST))
    jitter: float = field(default=0.25, validator=_number(0, 1))
    attempts: int | None = field(default=None, validator=_number_or_none((int,), 1, 1e9))
    give_up_after: float | None = field(default=None, validator=_number_or_none((int, float), 0, LONGEST))
    stable_after: float = field(default=10.0, validator=_number(0, LONGEST))

    def __attrs_post_init__(self) -> None:
        if self.most < self.first:
            raise ArgumentError(f"most is {self.most!r}; it must be at least first, {self.first!r}", argument="most")


class Backoff:
    """The waits of a policy, one after the other.

    Args:
        policy: how long they are.
        entropy: gives random bytes.
    """

    __slots__ = ("_entropy", "_policy", "_wait")

    def __init__(self, policy: ReconnectPolicy, entropy: Entropy) -> None:
        self._policy = policy
        self._entropy = entropy
        self._wait: float = policy.first

    def next(self) -> float:
        """Seconds of the next wait."""
        policy, wait = self._policy, self._wait
        self._wait = min(wait * policy.factor, policy.most)
        drawn = int.from_bytes(self._entropy(_DRAWN)) / (1 << 8 * _DRAWN)
        return wait * (1.0 - policy.jitter * drawn)

    def reset(self) -> None:
        """Begin anew with the shortest."""
        self._wait = self._policy.first


def is_final(error: Exception, *, known: bool = False) -> bool:
    """Whether it is no use to dial again after this.

    An error says that itself (`retryable`): another seed, another peer than the one asked for, a certificate that does
    not verify, a mistake of the caller. A session that was there, and ended before anybody used it, is no reason to
    stop, unless the peer said that we are not to be let in.

    Args:
        error: what a try came to.
        known: whether there was a session with this peer before. Then it is not the seed that is wrong, nor the
            address, but somebody who answers in its place for now, and need not prove anything for that: only a
            mistake of the caller, and what was said in a session, is final.
    """
    if isinstance(error, SessionClosedError) and error.code == SessionClosedError.code:
        return error.reason == CloseReason.AUTH_FAILURE
    if known and isinstance(error, RemoteError) and not isinstance(error, SessionError):
        return False
    return not (isinstance(error, SttError) and error.retryable)


# -- how it stands -------------------------------------------------------------------------------------------------


@frozen
class Waiting:
    """There is no session, and it is not time to dial.

    Attributes:
        until: when it is, in seconds of the host's clock.
        attempt: tries since the last session that lasted.
        error: why the last of them failed; `None` before the first.
    """

    until: float
    attempt: int = 0
    error: Exception | None = None


@frozen
class Dialing:
    """It is being dialled.

    Attributes:
        attempt: the number of this try since the last session that lasted, from 1.
    """

    attempt: int


@frozen
class Connected:
    """There is a session.

    Attributes:
        resumed: whether it began with a ticket.
    """

    resumed: bool = False


@frozen
class Detached:
    """The session has no path, and waits for one; what is on its streams is not lost yet.

    Attributes:
        until: when another way to the peer is tried.
    """

    until: float


@frozen
class Lost:
    """The session has ended.

    Attributes:
        reason: `graceful` (the peer closed it), `timeout` or `error`.
        error: what ended it, if that is known.
        until: when the peer is dialled again.
    """

    reason: str
    error: Exception | None
    until: float


@frozen
class GivenUp:
    """It is over: nobody dials any more.

    Attributes:
        error: why: what cannot change (`is_final`), or what came of the last try.
    """

    error: Exception


@frozen
class Ended:
    """It is over because the application closed it."""


State: TypeAlias = Waiting | Dialing | Connected | Detached | Lost | GivenUp | Ended


class Reconnector:
    """Decides when to dial. Once it is over, nothing that it is told changes that.

    Args:
        policy: how patiently.
        now: seconds on the host's clock.
        entropy: gives random bytes.
        ticket: from an earlier session with this peer.

    Attributes:
        state: how it stands.
    """

    __slots__ = ("_attempt", "_backoff", "_known", "_policy", "_shown", "_since", "_ticket", "_up_since", "state")

    def __init__(self, policy: ReconnectPolicy, *, now: float, entropy: Entropy, ticket: Ticket | None = None) -> None:
        self.state: State = Waiting(now)
        self._policy = policy
        self._backoff = Backoff(policy, entropy)
        self._ticket = ticket
        self._known = False  # whether there was a session with this peer
        self._shown = False  # whether the try that goes on has a ticket
        self._attempt = 0
        self._since = now  # when there was a session last
        self._up_since = now

    @property
    def is_over(self) -> bool:
        """Whether nothing will happen any more."""
        return isinstance(self.state, GivenUp | Ended)

    @property
    def next_dial(self) -> float:
        """When `dial` is due; `inf` when never, or not as things stand."""
        return self.state.until if isinstance(self.state, Waiting | Lost | Detached) else inf

    def dial(self) -> Ticket | None:
        """A try begins: give the ticket to show, if there is one."""
        if self.is_over:
            return None
        self._attempt += 1
        self._shown = self._ticket is not None
        self.state = Dialing(self._attempt)
        return self._ticket

    def connected(self, now: float, *, resumed: bool = False) -> None:
        """There is a session; or the one that was detached goes on."""
        if not self.is_over:
            self._ticket = None
            self._known = True
            self._up_since = now
            self.state = Connected(resumed)

    def keep(self, ticket: Ticket | None) -> None:
        """Take the latest ticket of the session, for the next one."""
        self._ticket = ticket or self._ticket

    def failed(self, error: Exception, now: float) -> None:
        """A try came to nothing."""
        if self.is_over:
            return
        if isinstance(error, AuthenticationError) and self._shown:
            # A ticket is for one node. Whether another may stand there now, a full handshake tells.
            self._ticket = None
            self.state = Waiting(now, self._attempt, error)
            return
        until = now + self._backoff.next()
        if is_final(error, known=self._known) or self._is_enough(until):
            self.state = GivenUp(error)
        else:
            self.state = Waiting(until, self._attempt, error)

    def withdrawn(self, now: float) -> None:
        """A try was called off before it was known what comes of it: it does not count, and the next may begin."""
        if isinstance(self.state, Dialing):
            self._attempt -= 1
            self.state = Waiting(now, self._attempt)

    def detached(self, now: float) -> None:
        """The session has no path any more: it is tried to find it one."""
        if not self.is_over:
            self.state = Detached(self._after_a_session(now))

    def lost(self, reason: str, error: Exception | None, now: float) -> None:
        """The session has ended, and not by the application's wish."""
        if self.is_over:
            return
        if isinstance(self.state, Connected):
            until = self._after_a_session(now)
        else:  # it was detached, and the tries go on as they stand
            until = now if self.next_dial == inf else max(now, self.next_dial)
        if reason == CloseReason.AUTH_FAILURE or self._is_enough(until):
            self.state = GivenUp(error or SessionClosedError(f"the session ended: {reason}", reason=reason))
        else:
            self.state = Lost(reason, error, until)

    def close(self) -> None:
        """The application wants no session any more."""
        if not self.is_over:
            self.state = Ended()

    def _after_a_session(self, now: float) -> float:
        """When to dial after a session: at once if it had lasted, or was the first; else after the wait that is due."""
        self._since = now
        if now - self._up_since >= self._policy.stable_after:
            self._attempt = 0
            self._backoff.reset()
        return now + self._backoff.next() if self._attempt > 1 else now

    def _is_enough(self, until: float) -> bool:
        """Whether no try may begin then."""
        policy = self._policy
        if policy.attempts is not None and self._attempt >= policy.attempts:
            return True
        return policy.give_up_after is not None and until > self._since + policy.give_up_after
