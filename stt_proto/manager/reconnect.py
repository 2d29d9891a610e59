"""A client that comes back: when to dial again, and what has become of each operation when a session was lost.

An operation is what the application asks of the peer, and it is not bound to a session: it has an id of its own, under
which the peer can tell that it was there before. When the session is lost, those that may be repeated wait for the next
one, and go there; the others are given up, and it is told whether they may have happened.

    WAITING --dial()--> DIALLING --connected()--> CONNECTED
       ^                   |                          |
       +-----failed()------+---------- lost() --------+        any --stop()--> STOPPED
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, StrEnum

from attrs import define, field

from stt_proto.clock import Clock
from stt_proto.errors import StateError
from stt_proto.manager.checks import check_flag, check_number, check_session_id
from stt_proto.types import Deadline

FIRST_DELAY = 1.0
"""Seconds before the first dial after a loss, at most; each failure doubles them."""

LONGEST_DELAY = 60.0
"""Seconds between two dials, at most."""

MAX_OPERATIONS = 65_536
"""Operations that can be pending at once."""


class Fate(StrEnum):
    """What has become of an operation.

    `WAITING`: it was not sent. `SENT`: it was, and no answer came yet. `DONE`: the peer has confirmed it. `NOT_SENT`:
    it was given up and never left. `UNKNOWN`: it was given up and may have happened.
    """

    WAITING = "waiting"
    SENT = "sent"
    DONE = "done"
    NOT_SENT = "not_sent"
    UNKNOWN = "unknown"


@define(eq=False)
class Operation:
    """Something that is asked of the peer.

    Attributes:
        operation_id: 16 bytes, the same in each repetition, and no other's.
        repeatable: whether it may be sent again on another session (it is idempotent, or the peer looks at the id).
        fate: what has become of it.
        session_id: the session on which it was sent last, `None` when on none.
    """

    operation_id: bytes = field(repr=bytes.hex)
    repeatable: bool
    fate: Fate = Fate.WAITING
    session_id: bytes | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self.fate not in (Fate.WAITING, Fate.SENT)


class _Standing(Enum):
    WAITING = 1
    DIALLING = 2
    CONNECTED = 3
    STOPPED = 4


class Reconnector:
    """When to dial, and what to send again. One loss leads to one new session, however often it is reported.

    The first dial is due at once. After a loss or a failure, the next is due after a delay drawn from the upper half of
    1 s, 2 s, 4 s and so on to 60 s, so that many clients of one server do not come back together.

    Args:
        now: seconds on any monotonic clock; one smaller than the last counts as the last.
        entropy: gives that many random bytes.
        first_delay: seconds, 0.001 to `longest_delay`.
        longest_delay: seconds, up to 3,600.

    Raises:
        ArgumentError: an argument is out of its range.
    """

    __slots__ = (
        "_clock",
        "_dial_at",
        "_entropy",
        "_failures",
        "_first",
        "_longest",
        "_pending",
        "_standing",
        "session_id",
    )

    def __init__(
        self,
        now: float,
        entropy: Callable[[int], bytes],
        *,
        first_delay: float = FIRST_DELAY,
        longest_delay: float = LONGEST_DELAY,
    ) -> None:
        check_number("longest_delay", longest_delay, 0.001, 3600.0)
        check_number("first_delay", first_delay, 0.001, longest_delay)
        self._clock = Clock(now, 0.0)
        self._entropy = entropy
        self._first = first_delay
        self._longest = longest_delay
        self._failures = 0
        self._standing = _Standing.WAITING
        self._dial_at = now
        self._pending: dict[Operation, None] = {}
        self.session_id: bytes | None = None

    # -- the session -----------------------------------------------------------------------------------------------

    def next_deadline(self) -> Deadline | None:
        """When `dial` is to be asked."""
        return Deadline(self._dial_at, "dial") if self._standing is _Standing.WAITING else None

    def dial(self, now: float) -> bool:
        """Whether to dial now. True once; then say `connected` or `failed`."""
        if self._standing is not _Standing.WAITING or self._clock.advance(now) < self._dial_at:
            return False
        self._standing = _Standing.DIALLING
        return True

    def failed(self, now: float) -> None:
        """The dial failed.

        Raises:
            StateError: none was made.
        """
        self._demand(_Standing.DIALLING)
        self._wait(now)

    def connected(self, session_id: bytes, now: float) -> tuple[Operation, ...]:
        """The dial gave a session; give the operations that wait for one, in the order in which they were begun.

        Raises:
            StateError: none was made: this session is one too many.
        """
        check_session_id(session_id)
        self._demand(_Standing.DIALLING)
        self._clock.advance(now)
        self._standing = _Standing.CONNECTED
        self._failures = 0
        self.session_id = session_id
        return tuple(self._pending)

    def lost(self, session_id: bytes, now: float) -> tuple[Operation, ...]:
        """A session is gone: give the operations that were given up by that. Nothing, if it is not the one in use."""
        if self._standing is not _Standing.CONNECTED or session_id != self.session_id:
            return ()
        self.session_id = None
        self._wait(now)
        return self._give_up([operation for operation in self._pending if not operation.repeatable])

    def stop(self) -> tuple[Operation, ...]:
        """Come back no more: give the operations that were given up by that, which is all that are pending."""
        self._standing = _Standing.STOPPED
        self.session_id = None
        return self._give_up(list(self._pending))

    # -- operations ------------------------------------------------------------------------------------------------

    def begin(self, *, repeatable: bool) -> Operation:
        """Begin an operation; to be sent now, if there is a session.

        Raises:
            StateError: it was stopped, or 65,536 are pending.
        """
        check_flag("repeatable", repeatable)
        if self._standing is _Standing.STOPPED:
            raise StateError("it was stopped")
        if len(self._pending) >= MAX_OPERATIONS:
            raise StateError(f"{MAX_OPERATIONS:,} operations are pending")
        operation = Operation(self._entropy(16), repeatable)
        self._pending[operation] = None
        return operation

    def sent(self, operation: Operation) -> None:
        """It goes out, on the session in use: say so before, not after.

        Raises:
            StateError: there is no session, or nothing is to be sent any more.
        """
        self._demand(_Standing.CONNECTED)
        if operation not in self._pending:
            raise StateError(f"the operation is {operation.fate}")
        operation.fate = Fate.SENT
        operation.session_id = self.session_id

    def acknowledged(self, operation: Operation) -> bool:
        """The peer has confirmed it, on whatever session; False when that is too late, or it was never sent."""
        if operation not in self._pending or operation.session_id is None:
            return False
        operation.fate = Fate.DONE
        del self._pending[operation]
        return True

    # -- inside ----------------------------------------------------------------------------------------------------

    def _demand(self, standing: _Standing) -> None:
        if self._standing is not standing:
            raise StateError(f"it is {self._standing.name.lower()}, not {standing.name.lower()}")

    def _wait(self, now: float) -> None:
        delay = min(self._first * 2.0 ** min(self._failures, 64), self._longest)
        self._failures += 1
        jitter = int.from_bytes(self._entropy(4)) / (1 << 32)
        self._standing = _Standing.WAITING
        self._dial_at = self._clock.advance(now) + delay * (1 + jitter) / 2

    def _give_up(self, operations: list[Operation]) -> tuple[Operation, ...]:
        for operation in operations:
            operation.fate = Fate.NOT_SENT if operation.session_id is None else Fate.UNKNOWN
            del self._pending[operation]
        return tuple(operations)
