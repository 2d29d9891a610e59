"""The life of a session as a table (docs/protocol.md, section 11)."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_proto.events import SessionStateChanged
from stt_proto.session.states import TRANSITIONS, SessionInput
from stt_proto.types import SessionState
from tests.proto.worlds import session_pair

INIT, HANDSHAKING, ESTABLISHED, CLOSING, CLOSED = SessionState
PAIRS = list(product(SessionState, SessionInput))


def test_the_table_is_the_specification() -> None:
    """Section 11, row by row."""
    assert dict(TRANSITIONS) == {
        (INIT, SessionInput.DIAL): HANDSHAKING,
        (INIT, SessionInput.ACCEPT): HANDSHAKING,
        (HANDSHAKING, SessionInput.CONFIRM): ESTABLISHED,
        (HANDSHAKING, SessionInput.END): CLOSED,
        (ESTABLISHED, SessionInput.CLOSE): CLOSING,
        (ESTABLISHED, SessionInput.END): CLOSED,
        (CLOSING, SessionInput.END): CLOSED,
    }


@given(st.lists(st.sampled_from(SessionInput), max_size=12))
def test_walks(inputs: list[SessionInput]) -> None:
    """Every walk goes forward only, and what has ended never moves again."""
    order = list(SessionState)
    state = INIT
    for what in inputs:
        new = TRANSITIONS.get((state, what))
        if new is None:
            continue
        assert order.index(new) > order.index(state)
        assert state is not CLOSED
        assert (new is CLOSED) == (what is SessionInput.END)
        state = new


def test_everything_that_has_begun_can_end() -> None:
    """K-6: no state holds a session for ever."""
    for state in (HANDSHAKING, ESTABLISHED, CLOSING):
        assert TRANSITIONS[state, SessionInput.END] is CLOSED
    assert set(TRANSITIONS.values()) == set(SessionState) - {INIT}


@pytest.mark.parametrize(("state", "what"), PAIRS, ids=lambda value: value.value)
def test_what_is_not_in_the_table_is_an_error(state: SessionState, what: SessionInput) -> None:
    """A session moves as the table says, tells of it, and refuses everything else without moving."""
    pair = session_pair()
    session, events = pair.session, pair.client.endpoint.events
    session.state = state
    assert list(events()) == []
    if (state, what) in TRANSITIONS:
        session._move(what)
        assert session.state is TRANSITIONS[state, what]
        assert list(events()) == [(session, SessionStateChanged(state, session.state))]
    else:
        with pytest.raises(KeyError):
            session._move(what)
        assert session.state is state
        assert list(events()) == []


def test_a_life() -> None:
    """C2: each change of state is an event; both sides go through the same states."""
    pair = session_pair()
    pair.session.close(pair.now)
    pair.settle()
    changes = [
        SessionStateChanged(INIT, HANDSHAKING),
        SessionStateChanged(HANDSHAKING, ESTABLISHED),
        SessionStateChanged(ESTABLISHED, CLOSING),
        SessionStateChanged(CLOSING, CLOSED),
    ]
    assert pair.client.events(SessionStateChanged) == changes
    assert pair.server.events(SessionStateChanged) == [*changes[:2], SessionStateChanged(ESTABLISHED, CLOSED)]
