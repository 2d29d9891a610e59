"""Everything that was on the wire of a world, to be read and compared."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from hashlib import sha256
from typing import NamedTuple

from stt_proto.testing.checks import is_whole, refusal
from stt_proto.testing.node import Node
from stt_proto.wire import MessageType
from stt_proto.wire.header import (
    FORM_BITS,
    FRAGMENT_BIT,
    HANDSHAKE_FORM,
    PACKET_FORM,
    SEGMENT_INDEX_OFFSET,
    TRAIN_BIT,
    TRAIN_HEADER,
)

CONTEXT = 3
"""Lines shown before, and on each side after, the place where two transcripts part."""
MESSAGES = {message.value: message.name for message in MessageType}
ECN_NAMES = ("", "ECT(1)", "ECT(0)", "CE")


class Entry(NamedTuple):
    """One datagram, or a remark.

    Attributes:
        at: when it was sent, or when it came to nothing at its destination.
        source: the address that it comes from, as the wire sees it.
        target: the address that it goes to.
        data: its bytes as they were sent.
        ecn: its two ECN bits.
        fate: what became of it: "" when it is simply delivered, words of `Traffic`, or why nobody got it; with "kept"
            its node finds it when it wakes.
        arrivals: when it arrives: never, once, or twice.
        remark: text, for an entry that is no datagram.
    """

    at: float
    source: Hashable
    target: Hashable
    data: bytes
    ecn: int = 0
    fate: str = ""
    arrivals: tuple[float, ...] = ()
    remark: str = ""

    @property
    def kind(self) -> str:
        """What can be seen of it without a key: a message of the handshake, a packet, a segment of a train."""
        return kind_of(self.data)

    def __str__(self) -> str:
        if self.remark:
            return f"{self.at:12.6f}  -- {self.remark}"
        way = f"{label(self.source)} > {label(self.target)}"
        told = [self.fate] if self.fate else []
        told += [f"arrives {at:.6f}" for at in self.arrivals]
        kind = " ".join((self.kind, ECN_NAMES[self.ecn])).strip()
        digest = sha256(self.data).hexdigest()[:8]
        return f"{self.at:12.6f}  {way:24} {len(self.data):5}  {kind:16} {digest}  {', '.join(told)}".rstrip()


class Transcript:
    """Everything that was on the wire, in the order of sending. `str` of it is one line for each datagram."""

    __slots__ = ("entries",)

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def remark(self, at: float, text: str) -> None:
        """Put a line of text between the datagrams."""
        self.entries.append(Entry(at, "", "", b"", remark=text))

    def between(self, source: Node | Hashable, target: Node | Hashable) -> list[Entry]:
        """What was sent one way; a node stands for its first address.

        On the wire a node behind a translator of addresses is at `Nat.public_address`.
        """
        source, target = (each.address if isinstance(each, Node) else each for each in (source, target))
        return [entry for entry in self if entry.source == source and entry.target == target]

    def having(self, fate: str) -> list[Entry]:
        """What met this fate, perhaps among others."""
        return [entry for entry in self if fate in entry.fate.split(", ")]

    def diff(self, other: Transcript, context: int = CONTEXT) -> str:
        """Show where two transcripts part, with so many lines before and after; "" when they are equal.

        What a deterministic world does after it has parted from its twin says nothing, so it is only counted.
        """
        ours, theirs = self.entries, other.entries
        if ours == theirs:
            return ""
        pairs = enumerate(zip(ours, theirs, strict=False))
        same = next((at for at, (one, another) in pairs if one != another), min(len(ours), len(theirs)))
        lines = [f"the same for {same} lines"]
        lines += [f"  {entry}" for entry in ours[max(0, same - context) : same]]
        for sign, entries in (("-", ours), ("+", theirs)):
            lines += [f"{sign} {entry}" for entry in entries[same : same + context]]
            lines += [f"{sign} {more}"] if (more := _rest(entries, same + context)) else []
        if same < min(len(ours), len(theirs)) and str(ours[same]) == str(theirs[same]):
            lines.append(_difference(ours[same], theirs[same]))
        return "\n".join(lines)

    def tail(self, lines: int) -> str:
        """The last lines."""
        if not is_whole(lines):
            raise refusal("lines", lines, "a whole number, at least 0")
        return "\n".join(map(str, self.entries[max(0, len(self) - lines) :]))

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Transcript) and self.entries == other.entries

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return "\n".join(map(str, self.entries))

    def __repr__(self) -> str:
        return f"<Transcript of {len(self)} lines>"


def _difference(one: Entry, other: Entry) -> str:
    """Where two entries differ that look the same, being rounded."""
    fields = zip(Entry._fields, one, other, strict=True)
    name, ours, theirs = next((name, ours, theirs) for name, ours, theirs in fields if ours != theirs)
    return f"they differ in {name}: {ours!r} and {theirs!r}"


def _rest(entries: Sequence[Entry], shown: int) -> str:
    left = len(entries) - shown
    return f"... and {left} more" if left > 0 else ""


def kind_of(datagram: bytes) -> str:
    """What can be seen of a datagram without a key."""
    first = datagram[0] if datagram else 0
    form = first & FORM_BITS
    if form == PACKET_FORM and first & TRAIN_BIT and len(datagram) >= TRAIN_HEADER:
        index, last = datagram[SEGMENT_INDEX_OFFSET:TRAIN_HEADER]
        return f"segment {index}/{last}"
    if form == PACKET_FORM:
        return "packet"
    message = MESSAGES.get(first & ~(FORM_BITS | FRAGMENT_BIT), "?") if form == HANDSHAKE_FORM else "?"
    return f"{message} piece" if first & FRAGMENT_BIT and message != "?" else message


def label(address: Hashable) -> str:
    """An address, short: the name of a node where that is all there is to tell."""
    if isinstance(address, tuple) and len(address) == 2:
        host, port = address
        return f"{host}" if port == 1 else f"{host}:{port}"
    return str(address)
