"""Is the peer at the other end of this path? The question, and how long to wait for the answer (RFC 9000, 8.2).

A challenge is 8 random bytes, sealed like everything else, so only the peer can repeat them, and only if it got them.
The same bytes are repeated while there is no answer: whichever copy arrives, the way there is open.
"""

from __future__ import annotations

from math import inf

from attrs import field, frozen

from stt_proto.wire import Move, Padding, PathChallenge, PathResponse

PROBING = frozenset({PathChallenge, PathResponse, Move, Padding})
"""Frames that a peer sends over a path that it does not use."""
CHALLENGE_SIZE = 8
"""Bytes of the data of PATH_CHALLENGE."""


@frozen
class Patience:
    """How often a question is repeated before there is no answer to be expected.

    Attributes:
        share: of the PTO of the path that is waited first.
        least: seconds that is waited at least.
        most: seconds between two of them at most.
        growth: factor from one wait to the next.
        tries: times that it is asked.
    """

    share: float = field(default=1.0, kw_only=True)
    least: float
    most: float
    growth: float
    tries: float


NEW = Patience(least=0.1, most=2.0, growth=2.0, tries=6)
"""For a path that is not in use (M-2): 5 s on a fast network, 8 s on one that nothing is known of."""
DOUBTED = Patience(share=0.5, least=0.01, most=1.0, growth=1.0, tries=4)
"""For the active path, while another one is there (M-5): four times, half a PTO apart, so two PTO in all."""
REGAIN = Patience(least=1.0, most=10.0, growth=2.0, tries=inf)
"""For the path that a detached session had (M-10): as long as it is detached."""


class Challenge:
    """One question on one path.

    Args:
        data: 8 random bytes.
        patience: how often it is repeated.
        pto: probe timeout of the path, seconds.
        now: seconds.

    Attributes:
        data: as given.
        asked: how often it was sent.
        due_at: when it is to be sent again or, when it was sent often enough, to be given up.
        last_at: when it was sent last.
    """

    __slots__ = ("_patience", "_wait", "_was_put_off", "asked", "data", "due_at", "last_at")

    def __init__(self, data: bytes, patience: Patience, pto: float, now: float) -> None:
        self.data = data
        self.asked = 0
        self.due_at = now
        self.last_at = now
        self._patience = patience
        self._was_put_off = False
        self._wait = min(max(patience.share * pto, patience.least), patience.most)

    def wants_to_ask(self, now: float) -> bool:
        """Whether it is to be sent now."""
        return self.due_at <= now and self.asked < self._patience.tries

    def go_on(self) -> None:
        """There is another sign of life: ask as often as in the beginning."""
        self.asked = 0

    def is_over(self, now: float) -> bool:
        """Whether it stayed without an answer for too long."""
        return self.due_at <= now and self.asked >= self._patience.tries

    def put_off(self, now: float) -> bool:
        """It cannot be sent now: try again after a wait. Gives whether this is the first time."""
        first, self._was_put_off = not self._was_put_off, True
        self.due_at = now + self._wait
        return first

    def on_asked(self, now: float) -> None:
        """It was sent, or would have been, had the carrier had room."""
        self.asked += 1
        self.last_at = now
        self.due_at = now + self._wait
        self._wait = min(self._wait * self._patience.growth, self._patience.most)
