"""How a transfer can end, and how to say so."""

from __future__ import annotations

import unicodedata
from enum import IntEnum

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that make a terminal show others in another order."""
_UNSHOWN = frozenset({"Cc", "Cs", "Zl", "Zp"})


class Outcome(IntEnum):
    """How a transfer stands or what ended it: the first byte of an answer, and the code of a reset or stop."""

    READY = 0
    STORED = 1
    EXISTS = 2
    BAD_NAME = 3
    NO_SPACE = 4
    STORAGE = 5
    DAMAGED = 6
    MALFORMED = 7
    CANCELLED = 8
    VANISHED = 9
    UNREADABLE = 10


class TransferError(Exception):
    """The file did not get through; the receiver has nothing under its name that it did not have before.

    One case is open: with `VANISHED` on the sending side the file may have been stored, only the word of it was lost.

    Attributes:
        outcome: why, for programs. The sentence is for people.
    """

    def __init__(self, outcome: Outcome, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


def deceives(character: str) -> bool:
    """Whether a character could do something to a terminal besides being shown."""
    return character in _BIDI or unicodedata.category(character) in _UNSHOWN


def printable(text: str) -> str:
    """Text from a stranger, safe to print: control characters become question marks."""
    return "".join("?" if deceives(character) else character for character in text)
