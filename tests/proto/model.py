"""What must have arrived: a plain model of sessions, against which random interaction is held.

It knows no packet, no loss and no time. It is told what the applications at both ends did, and judges what they were
given: every stream gives exactly the bytes that were written, in order, once; what was acknowledged has arrived; a
datagram comes at most once; a session ends for a reason that somebody gave. Whatever is not explained by what the
applications did is an `AssertionError`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from functools import lru_cache
from math import inf

from attrs import define, field

from stt_proto import CloseReason
from stt_proto.events import SessionClosed

BLOCK = 1024
CLEAN_CODES = frozenset({0x0000, 0x0101, 0x0102, 0x0103, 0x0104, 0x0201, 0x0202, 0x0203})
"""Codes with which a session between two honest peers may end, whatever the network does (docs/protocol.md, 12)."""


@lru_cache(maxsize=2048)
def _block(name: str, number: int) -> bytes:
    return hashlib.shake_128(f"{name}/{number}".encode()).digest(BLOCK)


def content(name: str, start: int, size: int) -> bytes:
    """What stands at `start` in the endless text of a name; a few bytes of it cannot pass for those of another."""
    first = start // BLOCK
    blocks = b"".join(_block(name, number) for number in range(first, -(-(start + size) // BLOCK)))
    return blocks[start - first * BLOCK :][:size]


@define(eq=False)
class Flow:
    """One direction of a stream.

    Attributes:
        name: says whose text it carries: of which session, from which side, on which stream.
        written: bytes that the writer's core took.
        arrived: bytes that are known to have arrived, since their acknowledgement was reported.
        finished: the writer has told the end.
        reset: the code with which the writer gave it up.
        stopped: the code with which the reader asked for that.
        read: bytes that the reader got.
        ended: the reader saw the end.
        reset_seen: the reader was told of the reset.
        stop_seen: the writer was told of the stop.
        finish_seen: the writer was told that all has arrived.
        mortal: its writer may give up what is too old, or was lost too often.
        told: the reader is known to have heard of everything that was given up.
        early: what stands before the text of its name: it was written before there was a session.
    """

    name: str
    early: bytes = b""
    mortal: bool = False
    told: bool = False
    written: int = 0
    arrived: int = 0
    finished: bool = False
    reset: int | None = None
    stopped: int | None = None
    read: int = 0
    ended: bool = False
    reset_seen: bool = False
    stop_seen: bool = False
    finish_seen: bool = False

    @property
    def writable(self) -> bool:
        """Whether its writer can still say something."""
        return not (self.finished or self.reset is not None or self.stop_seen)

    @property
    def readable(self) -> bool:
        """Whether its reader can still get something."""
        return not (self.ended or self.reset_seen or self.stopped is not None)

    @property
    def settled(self) -> bool:
        """Whether both its ends know how it ended."""
        return (self.finish_seen or self.reset is not None or self.stop_seen) and not self.readable

    def text(self, start: int, size: int) -> bytes:
        """What stands at `start`."""
        before = self.early[start : start + size]
        return before + content(self.name, start + len(before), size - len(before))

    def upcoming(self, size: int) -> bytes:
        """The next bytes to write."""
        return self.text(self.written, size)

    def give_up(self, code: int) -> None:
        """The writer resets: to no effect when this is over already."""
        if self.reset is None and not self.finish_seen and not self.stop_seen:
            self.reset = code

    def refuse(self, code: int) -> None:
        """The reader stops: to no effect when it has seen how this ended."""
        if self.readable:
            self.stopped = code

    # -- what the ends are given and told ------------------------------------------------------------------------

    def take(self, data: bytes) -> None:
        """The reader got bytes."""
        assert self.readable, f"{self.name} gives {len(data)} bytes after its end"
        assert self.read + len(data) <= self.written, f"{self.name} gives more than the {self.written} bytes written"
        expected = self.text(self.read, len(data))
        assert data == expected, f"{self.name} gives other bytes than were written, from {self.read} on"
        self.read += len(data)

    def skip(self, size: int) -> None:
        """The reader was told of a gap."""
        assert self.mortal, f"{self.name} leaves out {size} bytes, and was to be reliable"
        assert self.readable, f"{self.name} leaves out {size} bytes after its end"
        assert 0 < size <= self.written - self.read, f"{self.name} leaves out {size}; {self.written} bytes were written"
        self.read += size

    def see_end(self) -> None:
        """The reader saw the end."""
        assert self.finished, f"{self.name} ends, and was not finished"
        assert self.read == self.written, f"{self.name} ends at {self.read}; {self.written} bytes were written"
        self.ended = True

    def see_reset(self, code: int) -> None:
        """The reader was told of a reset."""
        assert self.readable, f"{self.name} is reset after its end"
        assert self.reset is not None or self.stopped is not None, f"{self.name} is reset, and nobody asked for it"
        assert code in (self.reset, self.stopped), f"{self.name} is reset with {code}, not with what was asked for"
        self.reset_seen = True

    def see_stop(self, code: int) -> None:
        """The writer was told that the reader wants no more."""
        assert not self.stop_seen, f"{self.name} is stopped twice"
        assert code == self.stopped, f"{self.name} is stopped with {code}; the reader said {self.stopped}"
        assert self.reset is None, f"{self.name} is stopped after it was reset"
        self.stop_seen = True

    def see_finish(self) -> None:
        """The writer was told that everything has arrived."""
        assert not self.finish_seen, f"{self.name} is acknowledged twice"
        assert self.finished, f"{self.name} is acknowledged to an end that it does not have"
        assert self.reset is None, f"{self.name} is acknowledged after it was reset"
        assert not self.stop_seen, f"{self.name} is acknowledged after it was stopped"
        self.finish_seen = self.told = True
        self.arrived = self.written

    def see_acked(self, offset: int) -> None:
        """The writer was told that everything below `offset` has arrived."""
        assert offset <= self.written, f"{self.name} acknowledges {offset} of {self.written} bytes"
        self.arrived = max(self.arrived, offset)

    def check_drained(self) -> None:
        """The reader has read all there is: everything acknowledged was among it."""
        lost = self.reset is not None or self.reset_seen or self.stop_seen or self.stopped is not None
        lost |= self.mortal and not self.told
        assert lost or self.read >= self.arrived, f"{self.name} acknowledged {self.arrived} bytes and gave {self.read}"
        assert lost or self.ended or not self.finish_seen, f"{self.name} acknowledged its end and did not tell it"


@define(eq=False)
class Post:
    """The unreliable datagrams of one direction of a session, or its frames of the application."""

    name: str
    count: int = 0
    sent: Counter[bytes] = field(factory=Counter)

    def take_back(self, data: bytes) -> None:
        """It was refused."""
        self.sent[data] -= 1

    def upcoming(self, size: int) -> bytes:
        """The next datagram."""
        self.count += 1
        data = content(f"{self.name}/{self.count}", 0, size)
        self.sent[data] += 1
        return data

    def take(self, data: bytes) -> None:
        """A datagram arrived."""
        assert self.sent[data] > 0, f"{self.name} gives a datagram of {len(data)} bytes that was not sent, or twice"
        self.sent[data] -= 1


@define(eq=False)
class End:
    """One end of a session, as its application sees it.

    Attributes:
        node: where it is, by name.
        node_id: who it is, once it is established.
        peer_id: who it was told that the other end is.
        asked: the reasons with which this application ended the session, in order; `"error"` for an abort.
        deliver_by: until when a close that was asked for delivers everything first; never before it was established.
        closed: how the session ended.
        cut: the host took its path away, or it crashed.
    """

    node: str
    node_id: bytes = b""
    peer_id: bytes = b""
    asked: list[str] = field(factory=list)
    deliver_by: float = -inf
    closed: SessionClosed | None = None
    cut: bool = False

    def ask(self, reason: str, deliver_by: float = -inf) -> None:
        """The application ends the session. Of several closes the first counts; an abort ends what closes."""
        if not self.asked:
            self.deliver_by = deliver_by
        self.asked.append(reason)


@define(eq=False)
class Conversation:
    """A session with both its ends.

    Attributes:
        name: its id.
        ends: by whether it is the end that dialled. An end that its application never heard of is missing.
        purposes: of the streams that were opened, by id.
        announced: ids of those that the other end was told of.
        flows: by whether the initiator writes, and stream id.
        posts: by whether the initiator sends.
        frames: the same for frames of the application.
    """

    name: str
    ends: dict[bool, End] = field(factory=dict)
    purposes: dict[int, str] = field(factory=dict)
    announced: set[int] = field(factory=set)
    flows: dict[tuple[bool, int], Flow] = field(factory=dict)
    posts: dict[bool, Post] = field(factory=dict)
    frames: dict[bool, Post] = field(factory=dict)

    def join(self, initiator: bool, node: str) -> None:
        """A node has the keys."""
        end = self.ends.setdefault(initiator, End(node))
        assert end.node == node, f"session {self.name} is at {node} what it was at {end.node}"

    def meet(self, initiator: bool, node_id: bytes, peer_id: bytes) -> None:
        """An end is established, and was told who its peer is."""
        end, other = self.ends[initiator], self.ends.get(not initiator)
        assert not end.node_id, f"session {self.name} is established twice for {end.node}"
        end.node_id, end.peer_id = node_id, peer_id
        if other is not None and other.node_id:
            assert (other.node_id, other.peer_id) == (peer_id, node_id), f"session {self.name} confuses its peers"

    def open(self, initiator: bool, stream_id: int, purpose: str) -> None:
        """An end opened a stream."""
        assert stream_id & 1 != initiator, f"session {self.name}: stream {stream_id} is not its opener's"
        assert stream_id not in self.purposes, f"session {self.name}: stream {stream_id} is opened twice"
        self.purposes[stream_id] = purpose

    def begin_early(self, data: bytes) -> Flow:
        """The first stream begins with what was given when the session was dialled: both ends learn of that alone."""
        flow = self.flow(True, 0)
        if 0 not in self.purposes:
            self.open(True, 0, "")
            flow.early, flow.written = data, len(data)
        assert flow.early == data, (
            f"{flow.name} begins with {len(flow.early)} bytes for one end, {len(data)} for another"
        )
        return flow

    def see_opened(self, stream_id: int, purpose: str) -> None:
        """The other end was told of it."""
        assert stream_id in self.purposes, f"session {self.name}: nobody opened stream {stream_id}"
        assert stream_id not in self.announced, f"session {self.name}: stream {stream_id} is announced twice"
        self.announced.add(stream_id)
        given_up = self.flow(not stream_id & 1, stream_id).reset is not None and not purpose
        assert given_up or purpose == self.purposes[stream_id], f"session {self.name}: stream {stream_id} is {purpose}"

    def flow(self, from_initiator: bool, stream_id: int) -> Flow:
        """One direction of a stream."""
        key = from_initiator, stream_id
        if key not in self.flows:
            self.flows[key] = Flow(f"session {self.name}, {_side(from_initiator)}, stream {stream_id}")
        return self.flows[key]

    def post(self, from_initiator: bool) -> Post:
        """The datagrams of one direction."""
        if from_initiator not in self.posts:
            self.posts[from_initiator] = Post(f"session {self.name}, {_side(from_initiator)}, datagrams")
        return self.posts[from_initiator]

    def letters(self, from_initiator: bool) -> Post:
        """The frames of the application of one direction."""
        if from_initiator not in self.frames:
            self.frames[from_initiator] = Post(f"session {self.name}, {_side(from_initiator)}, frames")
        return self.frames[from_initiator]

    def see_closed(self, initiator: bool, event: SessionClosed, now: float) -> None:
        """An end was told that the session is over. One that closed in time has delivered everything (K-1)."""
        end, other = self.ends[initiator], self.ends.get(not initiator)
        assert end.closed is None, f"session {self.name} ends twice for {end.node}"
        end.closed = event
        assert event.code in CLEAN_CODES, f"session {self.name} ends for {end.node} with {event}"
        if event.by_peer:
            self._judge_peer(end, other, event)
        elif event.reason is not CloseReason.TIMEOUT and not end.cut:
            assert event.reason in end.asked, f"session {self.name} ends for {end.node} with {event}, not {end.asked}"
        if event.reason is CloseReason.GRACEFUL and not event.by_peer and now < end.deliver_by:
            for (writer, _), flow in self.flows.items():
                if writer == initiator and flow.reset is None and not flow.stop_seen:
                    flow.arrived = flow.written
                    flow.told = True

    def _judge_peer(self, end: End, other: End | None, event: SessionClosed) -> None:
        """The peer is said to have ended it: then it did, or has forgotten it, or never knew it."""
        if other is None or other.cut:
            return
        told = f"session {self.name} ends for {end.node} with {event}"
        assert other.asked or other.closed is not None, f"{told}; {other.node} does not know of it"
        reasons = {CloseReason.ERROR, *map(CloseReason, other.asked)}
        if other.closed is not None:
            reasons.add(other.closed.reason)
        assert event.reason in reasons, f"{told}; {other.node} said {other.asked}, {other.closed}"


def _side(initiator: bool) -> str:
    return "from the initiator" if initiator else "from the responder"


@define(eq=False)
class Model:
    """Everything that is going on."""

    conversations: dict[bytes, Conversation] = field(factory=dict)
    tickets_used: set[bytes] = field(factory=set)
    dials: int = 0
    sent_early: set[bytes] = field(factory=set)
    came_early: set[bytes] = field(factory=set)

    def write_early(self, size: int) -> bytes:
        """What a dial is given to be there first; no two are given the same."""
        self.dials += 1
        data = content(f"dial {self.dials}", 0, size)
        self.sent_early.add(data)
        return data

    def see_early(self, data: bytes) -> None:
        """It came with a ticket: once, since a ticket is good once."""
        assert data in self.sent_early, f"{len(data)} bytes come early that nobody sent so"
        assert data not in self.came_early, f"{len(data)} bytes come early twice"
        self.came_early.add(data)

    def resume(self, ticket: bytes) -> None:
        """A session began with a ticket: the only one that does."""
        assert ticket not in self.tickets_used, "a ticket is good twice"
        self.tickets_used.add(ticket)

    def conversation(self, session_id: bytes) -> Conversation:
        """The session with this id, from whichever end."""
        if session_id not in self.conversations:
            self.conversations[session_id] = Conversation(session_id.hex())
        return self.conversations[session_id]

    def check_drained(self) -> None:
        """All readers have read all there is."""
        for conversation in self.conversations.values():
            for (from_initiator, _), flow in conversation.flows.items():
                reader = conversation.ends.get(not from_initiator)
                if reader is None or not reader.cut:
                    flow.check_drained()
