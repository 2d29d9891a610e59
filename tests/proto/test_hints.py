"""RETRY, REFUSED and VERSION: what anybody who watches can say to a dial (docs/protocol.md, H-13, H-14)."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest

from stt_proto.config import Limits
from stt_proto.errors import (
    AuthenticationError,
    ConnectionRefusedError,
    SttError,
    TooManySessionsError,
    VersionError,
)
from stt_proto.handshake import Challenged, Initiator, InitiatorState, Outcome, Reply
from stt_proto.wire import Hello, Message, MessageType, Refused, Retry, VersionList, encode_datagram
from tests.proto.handshake_world import Entropy, World, in_grace, message_of
from tests.proto.test_initiator import answer, garbage, hello_of, run_until_it_rests, steady

HELLO_SENT, PROOF_SENT = InitiatorState.HELLO_SENT, InitiatorState.PROOF_SENT
FAILED = InitiatorState.FAILED


def cookie_of(initiator: Initiator, now: float) -> bytes:
    """The cookie in the HELLO that a dial sends now."""
    return Hello.decode_untrusted(message_of(initiator.take(now)).body).cookie


def repeated_cookie(initiator: Initiator) -> bytes:
    """The cookie in the next HELLO that the retransmission timer sends."""
    now = initiator.deadline
    initiator.tick(now)
    return cookie_of(initiator, now)


def retry(hello: Message, named: bytes, cookie: bytes) -> Message:
    return answer(hello, MessageType.RETRY, Retry(named, cookie).encode())


# -- cookies -------------------------------------------------------------------------------------------------------


def test_a_retry_is_acted_on() -> None:
    """H-14: the same HELLO with only the cookie changed (W-6), at once; heard again, the cookie is no news."""
    initiator = steady()
    hello, named = hello_of(initiator)
    for _ in range(5):
        initiator.on_message(retry(hello, named, bytes(17)), 0.1)
    (datagram,) = initiator.take(0.1)
    again = message_of((datagram,))
    assert len(datagram) == 1200
    before, after = Hello.decode_untrusted(hello.body), Hello.decode_untrusted(again.body)
    assert after == attrs.evolve(before, cookie=bytes(17))
    assert (again.dcid, again.scid) == (hello.dcid, hello.scid)
    assert initiator.take(0.1) == ()
    assert initiator.deadline == pytest.approx(0.1 + 0.25), "somebody is there"


def test_few_retries_are_answered_at_once() -> None:
    """H-14: the first 4 cookies of a dial; a RETRY that nobody asked for makes no more HELLOs than that."""
    initiator = steady()
    hello, named = hello_of(initiator)
    shown = []
    for number in range(50):
        initiator.on_message(retry(hello, named, b"%02d" % number), 0.1)
        while datagrams := initiator.take(0.1):
            shown.append(Hello.decode_untrusted(message_of(datagrams).body).cookie)
    assert shown == [b"00", b"01", b"02", b"03"]
    assert initiator.deadline == pytest.approx(0.35)
    assert repeated_cookie(initiator) == b"49", "the others wait for the timer"


def test_cookies_that_came_together_are_all_shown() -> None:
    """H-14: one HELLO for each of the first 4, whenever the host comes to send them."""
    initiator = steady()
    hello, named = hello_of(initiator)
    for number in range(6):
        initiator.on_message(retry(hello, named, b"%d" % number), 0.1)
    assert [cookie_of(initiator, 0.1) for _ in range(4)] == [b"0", b"1", b"2", b"3"]
    assert initiator.take(0.1) == ()


def test_cookies_are_shown_in_turn() -> None:
    """H-14: the newest 4, one with each repetition."""
    initiator = steady()
    hello, named = hello_of(initiator)
    for number in range(6):
        initiator.on_message(retry(hello, named, b"%d" % number), 0.1)
        initiator.take(0.1)
    shown = [repeated_cookie(initiator) for _ in range(8)]
    assert shown[0] == b"5"
    assert set(shown[:4]) == set(shown[4:8]) == {b"2", b"3", b"4", b"5"}


def test_the_cookie_that_was_heard_again_is_kept() -> None:
    """H-14: the responder repeats its cookie with every HELLO, so no crowd of others pushes it out."""
    initiator = steady()
    hello, named = hello_of(initiator)
    for number in range(20):
        initiator.on_message(retry(hello, named, b"genuine"), 0.1)
        initiator.on_message(retry(hello, named, b"%d" % number), 0.1)
        initiator.take(0.1)
    assert b"genuine" in {repeated_cookie(initiator) for _ in range(4)}


@pytest.mark.parametrize("forged", [1, 2, 3])
@pytest.mark.parametrize("first", [True, False])
def test_forged_cookies_do_not_end_a_dial(forged: int, first: bool) -> None:
    """H-14: beside each RETRY of the responder so many that somebody else has made up; its own is soon shown."""
    world = World(limits=Limits(failed_guesses_without_cookie=0))
    initiator = steady(world)
    sent, now = 0, 0.0
    while initiator.state is not PROOF_SENT:
        datagrams = initiator.take(now)
        if not datagrams:
            now = initiator.deadline
            initiator.tick(now)
            continue
        sent += 1
        assert sent <= 10, "the dial does not come through"
        hello = message_of(datagrams)
        named = Hello.decode_untrusted(hello.body).hello_hash(hello.dcid, hello.scid)
        lies = [encode_datagram(retry(hello, named, b"forged %d" % (3 * sent + number))) for number in range(forged)]
        outcome = world.hear(datagrams[0], now)
        answers = outcome.half_open.datagrams if isinstance(outcome, Challenged) else replies(outcome)
        world.tell(initiator, (*lies, *answers) if first else (*answers, *lies), now)
    assert now < 2.0


def replies(outcome: Outcome) -> tuple[bytes, ...]:
    assert isinstance(outcome, Reply)
    return outcome.datagrams


# -- REFUSED and VERSION -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "body", "error"),
    [
        (MessageType.REFUSED, lambda named: Refused(named, 0x0102).encode(), ConnectionRefusedError),
        (MessageType.REFUSED, lambda named: Refused(named, 0x0203).encode(), TooManySessionsError),
        (MessageType.REFUSED, lambda named: Refused(named, 0x0103).encode(), ConnectionRefusedError),
        (MessageType.VERSION, lambda named: VersionList(named, (7,), (1,)).encode(), VersionError),
    ],
)
def test_hints_become_the_error_after_the_grace(
    kind: MessageType, body: Callable[[bytes], bytes], error: type[SttError]
) -> None:
    """H-14: REFUSED and VERSION end nothing at once; no ABORT follows, and REFUSED is never AuthenticationError."""
    initiator = steady()
    hello, named = hello_of(initiator)
    initiator.on_message(answer(hello, kind, body(named)), 0.2)
    assert initiator.state is HELLO_SENT
    sent = run_until_it_rests(initiator)
    assert [(at, message_of(datagrams).type) for at, datagrams in sent] == [(0.25, MessageType.HELLO)]
    assert isinstance(initiator.error, error)


@pytest.mark.parametrize("lie", ["hint", "challenge"])
@pytest.mark.parametrize(
    ("reliable", "told", "over"),
    [(False, 0.0, 0.75), (False, 0.2, 0.95), (False, 1.0, 4.0), (True, 0.0, 0.3), (True, 0.05, 0.35), (True, 0.2, 0.8)],
)
def test_how_long_a_better_answer_is_waited_for(lie: str, reliable: bool, told: float, over: float) -> None:
    """H-13: 3 round trips, at least 0.75 s where addresses can be forged, and 0.3 s where they cannot."""
    initiator = steady(World(reliable=reliable))
    hello, named = hello_of(initiator)
    bad = garbage(hello, named, 1) if lie == "challenge" else answer(hello, *refused(named))
    initiator.on_message(bad, told)
    initiator.tick(over - 0.001)
    assert initiator.state is HELLO_SENT
    initiator.tick(over + 1e-9)
    assert initiator.state is FAILED


def test_a_crowd_that_is_refused_does_not_keep_step() -> None:
    """H-13, H-18: the repetition in the grace has its jitter, too."""
    waits = set()
    for number in range(50):
        initiator = World(reliable=True).dial(entropy=Entropy(number))
        hello, named = hello_of(initiator)
        initiator.on_message(answer(hello, *refused(named)), 0.0)
        waits.add(initiator.deadline)
    assert 0.1 * 0.875 <= min(waits) < 0.095
    assert 0.105 < max(waits) <= 0.1 * 1.125
    assert len(waits) > 30


def refused(named: bytes) -> tuple[MessageType, bytes]:
    return MessageType.REFUSED, Refused(named, 0x0102).encode()


def test_first_hint_is_remembered() -> None:
    """4.2; and a CHALLENGE that does not open says more than any hint."""
    initiator = steady()
    hello, named = hello_of(initiator)
    initiator.on_message(answer(hello, MessageType.REFUSED, Refused(named, 0x0203).encode()), 0.01)
    initiator.on_message(answer(hello, MessageType.REFUSED, Refused(named, 0x0102).encode()), 0.02)
    other = steady()
    hello, named = hello_of(other)
    other.on_message(answer(hello, MessageType.REFUSED, Refused(named, 0x0203).encode()), 0.01)
    other.on_message(garbage(hello, named, 1), 0.02)
    for dial in (initiator, other):
        dial.tick(0.25)
        dial.take(0.25)
        assert dial.deadline == pytest.approx(0.76), "the grace is that of the first"
        run_until_it_rests(dial)
    assert isinstance(initiator.error, TooManySessionsError)
    assert isinstance(other.error, AuthenticationError)


@pytest.mark.parametrize("kind", [MessageType.RETRY, MessageType.REFUSED, MessageType.VERSION])
def test_hints_must_name_our_hello(kind: MessageType) -> None:
    """H-14: with another hello hash, or other connection IDs (W-7), they are nothing."""
    initiator = World().dial()
    hello, named = hello_of(initiator)
    bodies = {
        MessageType.RETRY: lambda name: Retry(name, b"c").encode(),
        MessageType.REFUSED: lambda name: Refused(name, 0x0102).encode(),
        MessageType.VERSION: lambda name: VersionList(name, (7,), (7,)).encode(),
    }
    initiator.on_message(answer(hello, kind, bodies[kind](bytes(16))), 0.01)
    initiator.on_message(answer(hello, kind, bodies[kind](named))._replace(scid=bytes(8)), 0.01)
    assert not in_grace(initiator)
    assert initiator.take(0.01) == ()


def test_version_that_would_have_fitted_is_a_lie() -> None:
    """H-14: a responder that shares a version and a suite answers with CHALLENGE."""
    initiator = World().dial()
    hello, named = hello_of(initiator)
    initiator.on_message(answer(hello, MessageType.VERSION, VersionList(named, (1,), (2,)).encode()), 0.01)
    assert not in_grace(initiator)


def test_retry_in_the_grace() -> None:
    """H-13, H-14: a responder under load may ask for a cookie while somebody else lies; its answer is waited for."""
    world = World()
    initiator = steady(world)
    hello, named = hello_of(initiator)
    initiator.on_message(garbage(hello, named, 1), 0.01)
    initiator.tick(0.25)
    assert initiator.take(0.25), "HELLO is repeated once"
    assert initiator.deadline == pytest.approx(0.76)
    initiator.on_message(answer(hello, MessageType.RETRY, Retry(named, b"cookie").encode()), 0.5)
    (datagram,) = initiator.take(0.5)
    assert Hello.decode_untrusted(message_of((datagram,)).body).cookie == b"cookie"
    assert initiator.deadline == pytest.approx(1.0), "and once more, since the grace begins anew"
    initiator.tick(1.0)
    assert initiator.take(1.0)
    assert initiator.deadline == pytest.approx(2.0)
    outcome = world.hear(datagram, 3.0)
    assert isinstance(outcome, Challenged)
    world.tell(initiator, outcome.half_open.datagrams, 3.9)
    assert initiator.state is PROOF_SENT
