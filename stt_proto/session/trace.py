"""Sight: what an observer of the packets is told. Log formats, key logs and metrics hang here."""

from __future__ import annotations

from typing import Protocol


class Trace(Protocol):
    """One method for each trace point; what `Endpoint(..., trace=)` takes.

    It is told what happened and changes nothing. Its methods must not raise and must not call the core; without one,
    a packet costs a test for `None`. Sizes are bytes of datagrams, times are `now`.
    """

    def packet_sent(self, session_id: bytes, number: int, size: int, datagrams: int, now: float) -> None:
        """A packet was sealed and handed out."""

    def packet_received(self, session_id: bytes, number: int, size: int, datagrams: int, now: float) -> None:
        """A packet has opened."""

    def packet_lost(self, session_id: bytes, number: int, size: int, datagrams: int, now: float) -> None:
        """A packet of ours was declared lost."""
