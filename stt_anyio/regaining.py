"""Back to UDP: a session that had to begin on a WebSocket asks now and then whether UDP passes (MISSION E6).

A question is one `add_path`: it proves that the peer is there, and the session goes over by itself since UDP is the
better kind (docs/protocol.md, M-8). Nothing is asked while the session is on UDP, nor while it is where the application
has put it with `migrate`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import anyio

from stt_anyio.errors import SttError
from stt_anyio.session import Session
from stt_anyio.session_base import SessionBase
from stt_proto.reconnect import Backoff, ReconnectPolicy

PROBES = ReconnectPolicy(first=10.0, most=600.0)
"""When UDP is tried: after 10 s, then ever more seldom."""
PATIENCE = 5.0
"""Seconds that one try may take."""


def backoff() -> Backoff:
    """The waits between tries of one session."""
    return Backoff(PROBES, os.urandom)


def is_elsewhere(session: SessionBase[Any], carrier: str) -> bool:
    """Whether a session would rather be on another carrier than the one that it is on."""
    return session.transport_type != carrier and session.chosen is None


async def regain(session: Session, address: Any, transport: str | None, carrier: str) -> None:
    """Look for a better carrier whenever a session is not on it, until the session is over."""
    waits = backoff()
    while not session.is_closed:
        if not is_elsewhere(session, carrier):
            waits.reset()
            await session.wait_until(lambda: is_elsewhere(session, carrier))
            continue
        with anyio.move_on_after(waits.next()):
            await session.wait_until(lambda: not is_elsewhere(session, carrier))
        if is_elsewhere(session, carrier) and not session.is_closed:
            with suppress(SttError, OSError):
                await session.add_path(address, transport, PATIENCE)
