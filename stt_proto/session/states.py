"""The life of a session, as a table.

A session is dialled or accepted, is confirmed once both sides are known to hold the keys, may spend a while closing,
and ends. The table *is* the protocol (docs/protocol.md, section 11): what does not stand in it is an error of this
library, not of a peer, since everything that a peer does is turned into one of the five inputs first.

Two things are easy to get wrong, so they are said here once. A session that *closes* still delivers what its streams
accepted, and everything works on it but opening and writing; one that has *ended* never moves again. And ending has a
single input, whatever the cause: the reason is data (`CloseReason`), not a state.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

from stt_proto.events import HandshakeProgressed, SessionStateChanged
from stt_proto.types import HandshakeStep, SessionState


class SessionInput(Enum):
    """What can happen to a session."""

    DIAL = "dial"
    ACCEPT = "accept"
    CONFIRM = "confirm"
    CLOSE = "close"
    END = "end"


TRANSITIONS: Mapping[tuple[SessionState, SessionInput], SessionState] = MappingProxyType(
    {
        (SessionState.INIT, SessionInput.DIAL): SessionState.HANDSHAKING,
        (SessionState.INIT, SessionInput.ACCEPT): SessionState.HANDSHAKING,
        (SessionState.HANDSHAKING, SessionInput.CONFIRM): SessionState.ESTABLISHED,
        (SessionState.HANDSHAKING, SessionInput.END): SessionState.CLOSED,
        (SessionState.ESTABLISHED, SessionInput.CLOSE): SessionState.CLOSING,
        (SessionState.ESTABLISHED, SessionInput.END): SessionState.CLOSED,
        (SessionState.CLOSING, SessionInput.END): SessionState.CLOSED,
    }
)
"""Every transition there is."""

# The same few values each time, so each is made once.
PROGRESSED = {step: HandshakeProgressed(step) for step in HandshakeStep}
FULL = (HandshakeStep.HELLO, HandshakeStep.CHALLENGE, HandshakeStep.AUTH_PROOF, HandshakeStep.FINAL)
SHORT = (HandshakeStep.RESUME, HandshakeStep.RESUMED)
CHANGED = {(old, what): SessionStateChanged(old, new) for (old, what), new in TRANSITIONS.items()}
