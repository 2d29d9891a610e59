"""When a client dials again, in virtual time: waits, tickets, what is final (MISSION G9, J)."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_proto import Ticket, errors
from stt_proto.errors import ArgumentError, AuthenticationError, SessionClosedError, SttError
from stt_proto.reconnect import (
    Backoff,
    Connected,
    Detached,
    Dialing,
    Ended,
    GivenUp,
    Lost,
    Reconnector,
    ReconnectPolicy,
    State,
    Waiting,
    is_final,
)

REFUSED = errors.ConnectionRefusedError("nobody listens")
WRONG_SEED = AuthenticationError("another seed")
GONE = SessionClosedError("it has ended", reason="error")


def least(size: int) -> bytes:
    """Entropy of which nothing is taken off a wait."""
    return bytes(size)


def most(size: int) -> bytes:
    return b"\xff" * size


def seeded(seed: int) -> Callable[[int], bytes]:
    return Random(seed).randbytes


def ticket(number: int = 1) -> Ticket:
    return Ticket(b"sealed", bytes([number]) * 32, b"n" * 32, b"p" * 32, 1, 0.0, 60)


def reconnector(now: float = 0.0, **policy: Any) -> Reconnector:
    return Reconnector(ReconnectPolicy(**policy), now=now, entropy=least)


def state_of(engine: Reconnector) -> State:
    return engine.state


# -- waits ---------------------------------------------------------------------------------------------------------


def test_one_second_doubling_to_sixty() -> None:
    """G9: what is promised, without chance."""
    waits = Backoff(ReconnectPolicy(), least)
    assert [waits.next() for _ in range(9)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    waits.reset()
    assert waits.next() == 1


def test_jitter() -> None:
    """G9: a wait is never longer than it may be, and with the default at most a quarter shorter."""
    waits = Backoff(ReconnectPolicy(), most)
    for full in (1, 2, 4, 8, 16, 32, 60, 60):
        assert waits.next() == pytest.approx(0.75 * full, rel=1e-6)
    assert Backoff(ReconnectPolicy(jitter=0), most).next() == 1
    assert 0 < Backoff(ReconnectPolicy(jitter=1), most).next() < 1e-6


@given(
    first=st.floats(0.001, 100),
    factor=st.floats(1, 100),
    above=st.floats(1, 800),
    jitter=st.floats(0, 1),
    seed=st.integers(0, 9),
)
def test_every_wait_is_in_its_bounds(first: float, factor: float, above: float, jitter: float, seed: int) -> None:
    """G9: bounded below and above whatever the policy, after any number of tries."""
    longest = first * above
    waits = Backoff(ReconnectPolicy(first=first, factor=factor, most=longest, jitter=jitter), seeded(seed))
    full = first
    for _ in range(400):
        assert full * (1 - jitter) <= waits.next() <= full <= longest
        full = min(full * factor, longest)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("first", 0),
        ("first", "1"),
        ("first", 1e9),
        ("first", float("nan")),
        ("factor", 0.5),
        ("factor", inf),
        ("most", 0.5),
        ("jitter", -0.1),
        ("jitter", 1.1),
        ("jitter", True),
        ("attempts", 0),
        ("attempts", 1.5),
        ("give_up_after", -1),
        ("give_up_after", "never"),
        ("stable_after", -1),
    ],
)
def test_bad_policies(name: str, value: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        ReconnectPolicy(**{name: value})
    assert caught.value.argument == name


# -- when to dial --------------------------------------------------------------------------------------------------


def test_a_server_that_is_down_for_three_tries() -> None:
    """G9: at once, then after 1, 2 and 4 seconds; afterwards the waits begin anew."""
    engine, now = reconnector(100.0), 100.0
    assert state_of(engine) == Waiting(100.0)
    for attempt, wait in ((1, 1), (2, 2), (3, 4)):
        assert engine.next_dial == now
        assert engine.dial() is None
        assert state_of(engine) == Dialing(attempt)
        assert engine.next_dial == inf
        now += 0.5
        engine.failed(REFUSED, now)
        assert state_of(engine) == Waiting(now + wait, attempt, REFUSED)
        now += wait
    engine.dial()
    engine.connected(now, resumed=True)
    assert (state_of(engine), engine.next_dial) == (Connected(True), inf)
    now += 10
    engine.lost("timeout", GONE, now)
    assert state_of(engine) == Lost("timeout", GONE, now)
    engine.dial()
    engine.failed(REFUSED, now)
    assert state_of(engine) == Waiting(now + 1, 1, REFUSED)


def test_who_lets_in_and_drops() -> None:
    """Sessions that do not last count as tries: the second is dialled at once, the next ever later."""
    engine, now, waits = reconnector(), 0.0, []
    for _ in range(9):
        engine.dial()
        engine.connected(now)
        now += 9.9
        engine.lost("error", None, now)
        waits.append(engine.next_dial - now)
        now = engine.next_dial
    assert waits == pytest.approx([0, 1, 2, 4, 8, 16, 32, 60, 60])
    engine.dial()
    engine.connected(now)
    engine.lost("graceful", None, now + 10)
    assert engine.next_dial == now + 10


@pytest.mark.parametrize("error", [WRONG_SEED, errors.VersionError("none"), ArgumentError("no"), OSError("odd")])
def test_what_cannot_change_ends_it_at_once(error: Exception) -> None:
    """G9: a wrong seed, another peer, no version in common, a mistake of the caller."""
    engine = reconnector()
    engine.dial()
    engine.failed(error, 1.0)
    assert state_of(engine) == GivenUp(error)
    assert engine.is_over
    assert engine.next_dial == inf
    engine.close()
    assert state_of(engine) == GivenUp(error), "it keeps saying why"


def test_what_is_final() -> None:
    """G9: the error says it; that a session was closed before anybody had it is no reason, but for one."""
    for retried in (
        REFUSED,
        errors.ConnectionTimeoutError(),
        errors.UnreachableError(),
        errors.TooManySessionsError(),
        errors.SessionTimeoutError(),
        SessionClosedError(),
        GONE,
    ):
        assert not is_final(retried)
    for final in (
        WRONG_SEED,
        errors.HandshakeError(),
        errors.StateError(),
        SttError(),
        SessionClosedError(reason="auth_failure"),
        SessionClosedError(reason="error", code=0x1234),  # what `admit` of the peer said, which we do not know
        RuntimeError(),
    ):
        assert is_final(final)


@pytest.mark.parametrize("error", [WRONG_SEED, errors.VersionError("none"), errors.HandshakeError("nonsense")])
def test_somebody_else_answers_for_a_while(error: SttError) -> None:
    """G9, H-12: who stands on the way proves nothing when he answers wrongly, and ends no client that had a session."""
    engine = reconnector()
    engine.dial()
    engine.connected(0.0)
    engine.lost("timeout", GONE, 50.0)
    for now, until in ((50.0, 51.0), (51.0, 53.0), (53.0, 57.0)):
        engine.dial()
        engine.failed(error, now)
        assert state_of(engine).until == until  # type: ignore[union-attr]
        assert state_of(engine).error is error  # type: ignore[union-attr]
    engine.dial()
    engine.connected(57.0)
    assert state_of(engine) == Connected()


@pytest.mark.parametrize(
    "error",
    [
        ArgumentError("no"),
        errors.StateError("no"),
        RuntimeError("out of `prepare`"),
        SessionClosedError(reason="auth_failure"),
        SessionClosedError(reason="error", code=0x1234),
    ],
)
def test_what_is_final_after_a_session_too(error: Exception) -> None:
    """G9: mistakes of the caller, and what the peer has said in a session."""
    engine = reconnector()
    engine.dial()
    engine.connected(0.0)
    engine.lost("timeout", GONE, 50.0)
    engine.dial()
    engine.failed(error, 50.0)
    assert state_of(engine) == GivenUp(error)


def test_the_tries_of_a_policy_are_counted_whoever_answers() -> None:
    engine = reconnector(attempts=2)
    engine.dial()
    engine.connected(0.0)
    engine.lost("timeout", GONE, 50.0)
    for now in (50.0, 51.0):
        assert not engine.is_over
        engine.dial()
        engine.failed(WRONG_SEED, now)
    assert state_of(engine) == GivenUp(WRONG_SEED)


def test_a_peer_that_lets_us_in_no_longer() -> None:
    engine = reconnector()
    engine.dial()
    engine.connected(0.0)
    engine.lost("auth_failure", None, 50.0)
    assert isinstance(engine.state, GivenUp)
    assert isinstance(engine.state.error, SessionClosedError)
    assert engine.state.error.reason == "auth_failure"


def test_attempts() -> None:
    """A policy with a number of tries: the error of the last one is why."""
    engine = reconnector(attempts=2)
    engine.dial()
    engine.failed(REFUSED, 0.0)
    assert engine.next_dial == 1.0
    engine.dial()
    timeout = errors.ConnectionTimeoutError()
    engine.failed(timeout, 2.0)
    assert state_of(engine) == GivenUp(timeout)


def test_attempts_without_a_session_that_lasts() -> None:
    engine = reconnector(attempts=1)
    engine.dial()
    engine.connected(0.0)
    engine.lost("error", GONE, 1.0)
    assert state_of(engine) == GivenUp(GONE)
    engine = reconnector(attempts=1)
    engine.dial()
    engine.connected(0.0)
    engine.lost("error", GONE, 10.0)
    assert state_of(engine) == Lost("error", GONE, 10.0)


def test_give_up_after() -> None:
    """No try begins later than so many seconds after the loss."""
    engine = reconnector(give_up_after=3.0)
    engine.dial()
    engine.connected(0.0)
    engine.lost("timeout", GONE, 100.0)
    for now in (100.0, 101.0):
        assert engine.next_dial == now
        engine.dial()
        engine.failed(REFUSED, now)
    assert state_of(engine) == Waiting(103.0, 2, REFUSED)
    engine.dial()
    engine.failed(REFUSED, 103.0)
    assert state_of(engine) == GivenUp(REFUSED)


# -- tickets -------------------------------------------------------------------------------------------------------


def test_the_latest_ticket_first() -> None:
    """G9, C7: resumption first, with the latest ticket; none is shown after a session came of it."""
    first = ticket(1)
    engine = Reconnector(ReconnectPolicy(), now=0.0, entropy=least, ticket=first)
    assert engine.dial() is first
    engine.connected(0.0, resumed=True)
    engine.keep(None)
    engine.lost("timeout", None, 20.0)
    assert engine.dial() is None
    engine.connected(20.0)
    latest = ticket(2)
    engine.keep(latest)
    engine.keep(None)
    engine.lost("timeout", None, 50.0)
    assert engine.dial() is latest
    engine.failed(REFUSED, 50.0)
    assert engine.dial() is latest, "the core shows it once, and knows whether it has"


def test_another_node_in_its_place() -> None:
    """A ticket is for one node: where another answers, the next try is without it, at once, and that one is final."""
    engine = Reconnector(ReconnectPolicy(), now=0.0, entropy=least, ticket=ticket())
    assert engine.dial() is not None
    engine.failed(WRONG_SEED, 1.0)
    assert state_of(engine) == Waiting(1.0, 1, WRONG_SEED)
    assert engine.dial() is None
    engine.failed(WRONG_SEED, 2.0)
    assert state_of(engine) == GivenUp(WRONG_SEED)


# -- without a path ------------------------------------------------------------------------------------------------


def test_detached_and_back() -> None:
    """A session without a path is looked for at once, and the waits go on over what happens to it."""
    engine = reconnector()
    engine.dial()
    engine.connected(0.0)
    engine.detached(30.0)
    assert state_of(engine) == Detached(30.0)
    engine.dial()
    engine.failed(REFUSED, 30.0)
    assert engine.next_dial == 31.0
    engine.connected(30.5)
    assert engine.next_dial == inf
    engine.detached(31.0)
    assert state_of(engine) == Detached(31.0), "that was the first try since it had lasted"
    engine.dial()
    engine.failed(REFUSED, 31.0)
    engine.lost("timeout", GONE, 32.0)
    assert state_of(engine) == Lost("timeout", GONE, 33.0)


@pytest.mark.parametrize(("now", "until"), [(30.5, 31.0), (40.0, 40.0)])
def test_it_ends_while_it_is_detached(now: float, until: float) -> None:
    engine = reconnector()
    engine.dial()
    engine.connected(0.0)
    engine.detached(30.0)
    engine.dial()
    engine.failed(REFUSED, 30.0)
    engine.lost("timeout", GONE, now)
    assert engine.next_dial == until


def test_it_ends_while_it_is_dialled() -> None:
    engine = reconnector()
    engine.dial()
    engine.connected(0.0)
    engine.detached(30.0)
    engine.dial()
    engine.lost("timeout", GONE, 31.0)
    assert engine.next_dial == 31.0


def test_a_try_that_is_called_off() -> None:
    """It does not count, and the next is due at once."""
    engine = reconnector(attempts=1)
    engine.dial()
    engine.withdrawn(3.0)
    assert state_of(engine) == Waiting(3.0)
    engine.dial()
    assert state_of(engine) == Dialing(1)
    engine.connected(3.0)
    engine.withdrawn(4.0)
    assert state_of(engine) == Connected()


def test_the_application_closes_it() -> None:
    engine = reconnector()
    engine.close()
    assert state_of(engine) == Ended()
    assert engine.is_over
    assert engine.next_dial == inf
    assert engine.dial() is None
    engine.failed(REFUSED, 1.0)
    engine.connected(1.0)
    engine.detached(1.0)
    engine.lost("timeout", GONE, 1.0)
    assert state_of(engine) == Ended(), "what it is told later changes nothing"
