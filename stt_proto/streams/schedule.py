"""Whose turn it is: the sending halves of a session that have something to send (docs/protocol.md, S-10, S-14).

The most urgent go first, strictly. Within one urgency those that are incremental take turns, while of the others only
the first counts, in the order of their ids: it goes on until it has nothing more. Who has something to send that needs
no credit (lost data, the end alone) is known apart, so that credit which is used up, or comes, moves nobody.

Nothing is ever searched, and nothing costs more because there are many streams: a half knows the line in which it
stands, an urgency is two lines that take turns, and there are eight of those. (Only to join the sequence takes time
that grows with the logarithm of its length.)
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import heappop, heappush
from operator import attrgetter
from typing import TYPE_CHECKING, Protocol, cast

from attrs import frozen

from stt_proto.errors import ArgumentError
from stt_proto.streams.flow import SendCredit

if TYPE_CHECKING:
    from stt_proto.streams.buffer import Out
    from stt_proto.streams.hub import Token
    from stt_proto.streams.send import SendStream

__all__ = ["Line", "Priority", "Schedule", "checked_priority"]

LEAST_URGENT = 7
STALE = 16
"""Places of those who left early that a sequence keeps at least, before it is put in order."""


@frozen
class Priority:
    """How much a stream matters beside the others of its session, as in RFC 9218.

    Attributes:
        urgency: 0 (the most urgent) to 7. As long as a stream has something to send, none that is less urgent sends.
        incremental: whether it shares with others of the same urgency, turn by turn, since its receiver has a use for
            parts of it. Of the others one is sent after the other, in the order of their ids.

    Raises:
        ArgumentError: one of them is something else.
    """

    urgency: int = 3
    incremental: bool = True

    def __attrs_post_init__(self) -> None:
        if type(self.urgency) is not int or not 0 <= self.urgency <= LEAST_URGENT:
            raise ArgumentError(f"urgency is {self.urgency!r}; it must be from 0 to 7", argument="urgency")
        if not isinstance(self.incremental, bool):
            raise ArgumentError(
                f"incremental is {self.incremental!r}; it must be True or False", argument="incremental"
            )


def checked_priority(value: object) -> Priority:
    """Give what was handed over if it is a priority, else raise `ArgumentError`."""
    if not isinstance(value, Priority):
        raise ArgumentError(f"priority is {value!r}; it must be a Priority", argument="priority")
    return value


class Line(Protocol):
    """Where halves of one urgency stand.

    Attributes:
        unpaid: those of the same urgency, here or in the other line, whose next frame needs no credit.
    """

    unpaid: OrderedDict[SendStream, None]

    def join(self, send: SendStream) -> None:
        """Stand at the end, or where one belongs."""

    def leave(self, send: SendStream) -> None:
        """Go away from wherever one stands."""


class _Turns:
    """Who had a turn goes behind the others."""

    __slots__ = ("members", "unpaid")

    def __init__(self, unpaid: OrderedDict[SendStream, None]) -> None:
        self.members: OrderedDict[SendStream, None] = OrderedDict()
        self.unpaid = unpaid

    def join(self, send: SendStream) -> None:
        self.members[send] = None

    def leave(self, send: SendStream) -> None:
        del self.members[send]

    def first(self) -> SendStream:
        return next(iter(self.members))


class _Sequence:
    """One after the other, by id. Who leaves early keeps a place in the heap until it comes to the front."""

    __slots__ = ("_heap", "members", "unpaid")

    def __init__(self, unpaid: OrderedDict[SendStream, None]) -> None:
        self.members: dict[int, SendStream] = {}
        self.unpaid = unpaid
        self._heap: list[int] = []

    def join(self, send: SendStream) -> None:
        self.members[send.id] = send
        heappush(self._heap, send.id)

    def leave(self, send: SendStream) -> None:
        members = self.members
        del members[send.id]
        if len(self._heap) > 2 * len(members) + STALE:
            self._heap = sorted(members)

    def first(self) -> SendStream:
        heap, members = self._heap, self.members
        while heap[0] not in members:
            heappop(heap)
        return members[heap[0]]


class _Level:
    """Those of one urgency.

    Attributes:
        urgency: 0 to 7.
        turns: who is incremental.
        sequence: who is not.
        unpaid: who of both has something to send that needs no credit.
    """

    __slots__ = ("_turn", "sequence", "turns", "unpaid", "urgency")

    def __init__(self, urgency: int) -> None:
        self.urgency = urgency
        self.unpaid: OrderedDict[SendStream, None] = OrderedDict()
        self.turns = _Turns(self.unpaid)
        self.sequence = _Sequence(self.unpaid)
        self._turn = False

    def rivals(self, credit: bool) -> int:
        """How many take turns here; without credit only those who need none."""
        return len(self.turns.members) + (len(self.sequence.members) > 0) if credit else len(self.unpaid)

    def first(self, credit: bool) -> SendStream:
        """Whose turn it is: the first of the sequence has every other. There must be rivals."""
        if not credit:
            return next(iter(self.unpaid))
        if self.sequence.members:
            self._turn = not self._turn
            if self._turn or not self.turns.members:
                return self.sequence.first()
        return self.turns.first()

    def pass_on(self, send: SendStream) -> None:
        """It had a turn, and has more."""
        if send in self.turns.members:
            self.turns.members.move_to_end(send)
        if send in self.unpaid:
            self.unpaid.move_to_end(send)


_URGENCY = attrgetter("urgency")


class Schedule:
    """All halves of a session that have something to send.

    Attributes:
        count: how many they are.
        unpaid: how many of them have something that needs no credit.
    """

    __slots__ = ("_levels", "count", "unpaid")

    def __init__(self) -> None:
        self._levels: tuple[_Level, ...] = ()  # of the urgencies that were ever used, the most urgent first
        self.count = 0
        self.unpaid = 0

    def put(self, send: SendStream, *, unpaid: bool) -> None:
        """Let a half stand where it belongs, if it does not stand there already.

        Args:
            send: the half; it has something to send.
            unpaid: whether its next frame needs no credit.
        """
        line = send.line
        if line is None:
            line = send.line = self._line(send.priority)
        if not send.stands:
            send.stands = True
            line.join(send)
            self.count += 1
        if unpaid is not (send in line.unpaid):
            if unpaid:
                line.unpaid[send] = None
                self.unpaid += 1
            else:
                del line.unpaid[send]
                self.unpaid -= 1

    def drop(self, send: SendStream) -> None:
        """Let a half leave, if it stands anywhere."""
        if send.stands:
            line = cast(Line, send.line)
            send.stands = False
            line.leave(send)
            self.count -= 1
            if send in line.unpaid:
                del line.unpaid[send]
                self.unpaid -= 1

    def move(self, send: SendStream) -> None:
        """The priority of a half is another one now."""
        stands, unpaid = send.stands, send.line is not None and send in send.line.unpaid
        self.drop(send)
        send.line = None
        if stands:
            self.put(send, unpaid=unpaid)

    def fill(self, out: Out, tokens: list[Token], room: int, credit: SendCredit) -> int:
        """Fill a packet with data of those whose turn it is; see `StreamTable.write_frames`."""
        left = room
        if self.count == 1:  # nearly every packet of a transfer ends here
            for level in self._levels:
                if level.turns.members or level.sequence.members:
                    left -= level.first(True).write_frame(out, tokens, room, room)
            if not left or not self.count:
                return room - left
        for level in self._levels:
            turns = rivals = level.rivals(credit.used < credit.limit)
            while rivals and left > 0:
                if not turns and rivals > 1:
                    return room - left
                turns -= turns > 0
                send = level.first(credit.used < credit.limit)
                before = left
                most = left if rivals == 1 else send.max_frame_size
                while most > 0 and send.stands:  # once, but for lost data
                    used = send.write_frame(out, tokens, left, most)
                    if not used:
                        break
                    left -= used
                    most -= used
                if send.stands:
                    if left == before:  # nothing fitted
                        return room - left
                    level.pass_on(send)
                rivals = level.rivals(credit.used < credit.limit)
        return room - left

    def clear(self) -> None:
        """Nobody stands here any more: give back the memory."""
        self._levels = ()

    def _line(self, priority: Priority) -> Line:
        """Where halves of this priority stand."""
        for level in self._levels:
            if level.urgency == priority.urgency:
                break
        else:
            level = _Level(priority.urgency)
            self._levels = tuple(sorted((*self._levels, level), key=_URGENCY))
        return level.turns if priority.incremental else level.sequence

    def __bool__(self) -> bool:
        return self.count > 0
