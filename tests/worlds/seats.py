"""What an application of a random world knows: how it behaves, its ends of sessions, and those of their streams."""

from __future__ import annotations

from attrs import define, field, frozen

from stt_proto import Session, SessionState, Stream, Ticket
from tests.proto.model import Conversation, End, Flow

LIVE = frozenset({SessionState.HANDSHAKING, SessionState.ESTABLISHED})
LIVES = frozenset({"moved", "detached", "reattached", "rotated", "resumed", "refused", "early", "rejected"})
"""What can become of a session: paths, keys, tickets, and data that comes with a ticket."""


@frozen(kw_only=True)
class Manners:
    """How an application behaves.

    Attributes:
        eager: whether it reads as soon as it can; else only when it is told to.
        chunk: bytes that it reads at once.
        answers: sizes from which it draws what it says on a stream that a peer opened both ways.
        closes: whether it ends what it says there, or leaves it open.
    """

    eager: bool = True
    chunk: int = 65_536
    answers: tuple[int, ...] = (0,)
    closes: bool = True


@define(eq=False)
class Line:
    """One end of a stream.

    Attributes:
        stream: the handle.
        out: what is written here, `None` on a stream that is only read.
        into: what is read here, `None` on one that is only written.
        todo: bytes that are to be written yet.
        ends: whether the end is to be told behind them.
        writable: whether a write is worth trying.
        readable: whether a read is.
    """

    stream: Stream
    out: Flow | None
    into: Flow | None
    todo: int = 0
    ends: bool = False
    writable: bool = True
    readable: bool = False


@define(eq=False)
class Seat:
    """One end of a session.

    Attributes:
        session: the core's.
        state: where its events say that it stands.
        talk: what the model knows of it, once it has an id.
        lines: its streams, by id.
        wanted: streams that were refused and are wanted still, by kind; `True` is both ways.
        mail: whether datagrams wait.
        letters: whether frames of the application do.
        cut: whether the host took its path away.
        version: of the keys, as its events say.
        waits_until: when it ends, as it has no path; `None` while it has one.
        ticket: with which it was dialled.
        early: what the first stream begins with, as it was dialled; nothing once that stream is known.
    """

    session: Session
    state: SessionState = SessionState.INIT
    talk: Conversation | None = None
    lines: dict[int, Line] = field(factory=dict)
    wanted: dict[bool, int] = field(factory=lambda: {True: 0, False: 0})
    mail: bool = False
    letters: bool = False
    cut: bool = False
    version: int = 0
    waits_until: float | None = None
    ticket: Ticket | None = None
    early: bytes = b""

    @property
    def live(self) -> bool:
        """Whether streams can be opened and written."""
        return self.session.state in LIVE and self.talk is not None

    @property
    def end(self) -> End:
        assert self.talk is not None
        return self.talk.ends[self.session.initiator]
