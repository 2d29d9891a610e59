"""AUTH_PROOF came again: the peer has not heard of its session yet (docs/protocol.md, K-7)."""

from __future__ import annotations

REPEATS = 32
"""Times that a session answers: more often than a dial repeats its AUTH_PROOF in 10 s."""
PAUSE = 0.005
"""Seconds between two answers; no dial repeats sooner (H-18)."""


class ProofRepeats:
    """Bounds the answers of one session to repetitions of its AUTH_PROOF, which whoever has seen it can send.

    Args:
        now: when the first one came.
    """

    __slots__ = ("_left", "_next_at")

    def __init__(self, now: float) -> None:
        self._left = REPEATS
        self._next_at = now + PAUSE

    def take(self, now: float) -> bool:
        """Whether to answer one that comes now."""
        if now < self._next_at or not self._left:
            return False
        self._left -= 1
        self._next_at = now + PAUSE
        return True
