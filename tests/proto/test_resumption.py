"""Coming back with a ticket: from where, as whom, how often, and what becomes of those that are good for nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from attrs import evolve

from stt_proto import HandshakeStep, Identity, Limits, Session, Ticket
from stt_proto.errors import (
    ArgumentError,
    AuthenticationError,
    ConnectionRefusedError,
    ConnectionTimeoutError,
    StateError,
    TooManySessionsError,
)
from stt_proto.events import (
    Event,
    HandshakeFailed,
    HandshakeProgressed,
    ResumptionRefused,
    SessionClosed,
    SessionEstablished,
    TicketOffered,
    TicketReceived,
)
from stt_proto.handshake.schedule import hello_hash
from stt_proto.testing import Conditions, Node, World
from stt_proto.tickets import TicketRefusal
from stt_proto.types import NetworkPath
from stt_proto.wire import (
    Message,
    MessageType,
    Refused,
    Resume,
    Resumed,
    Retry,
    decode_datagram_untrusted,
    encode_datagram,
)
from stt_proto.wire import Ticket as TicketFrame
from tests.proto.comeback import (
    DELAY,
    FLEET,
    Stage,
    answering,
    assert_refused,
    assert_resumed,
    assert_works,
    copying,
    stage,
)
from tests.proto.worlds import assert_empty, back, is_handshake, session_pair

# -- a ticket is given ---------------------------------------------------------------------------------------------


def test_a_ticket_comes_with_the_first_packets() -> None:
    """C7, H-33: one for who dialled, good for a day, told once; the other side has none."""
    pair = session_pair()
    ticket = pair.session.ticket
    assert ticket is not None
    assert pair.client.events(TicketReceived) == [TicketReceived(ticket, ticket.expires_at)]
    assert ticket.lifetime == 86_400
    assert ticket.issued_at == pytest.approx(pair.world.unix_time + pair.now, abs=2.0)
    assert (ticket.node_id, ticket.peer_node_id) == (pair.peer.peer_node_id, pair.session.peer_node_id)
    assert pair.peer.ticket is None
    assert pair.server.events(TicketReceived) == []


def test_nothing_secret_of_a_ticket_is_shown() -> None:
    """MISSION, security: neither the secret nor what is sealed stands in any representation."""
    pair = session_pair()
    ticket = pair.session.ticket
    assert ticket is not None
    for shown in (repr(ticket), str(ticket), repr(pair.client.events(TicketReceived))):
        for secret in (ticket.secret, ticket.sealed):
            assert secret.hex() not in shown
            assert repr(secret)[2:-1] not in shown


@pytest.mark.parametrize("side", ["client", "server"])
def test_who_wants_no_tickets(side: str) -> None:
    """X-2, H-33: none is sent to who has not announced it, and none is given by who gives none."""
    pair = session_pair(**{side: {"resumption_timeout": 0.5}})
    assert pair.session.ticket is None
    assert pair.client.events(TicketReceived) == []


def test_a_ticket_that_is_lost_is_sent_again() -> None:
    """F section: kept until acknowledged."""
    world = World(3, Conditions(delay=DELAY))
    client, server = world.node("client"), world.node("server")
    packets: list[bytes] = []

    def lose(datagram: bytes, path: NetworkPath) -> bytes | None:
        if path.local == server.address and not is_handshake(datagram) and len(packets) < 3:
            packets.append(datagram)
            return None
        return datagram

    world.taps.append(lose)
    session = client.connect(server)
    world.run(5.0)
    assert len(packets) == 3
    assert session.ticket is not None


def test_an_initiator_gives_no_tickets() -> None:
    """H-33: a TICKET to the side that was dialled closes the session."""
    pair = session_pair()
    pair.inject(TicketFrame(60, bytes(16), b"ticket"))
    assert pair.peer.is_closed
    assert pair.peer.close_error is not None
    assert pair.peer.close_error.code == 0x0401


def test_more_tickets_replace_the_first() -> None:
    """F-5: the last one counts; all but the first are suspicious."""
    pair = session_pair()
    first = pair.session.ticket
    for number in range(20):
        pair.inject(TicketFrame(60 + number, bytes(16), b"ticket"), to=pair.session)
    assert pair.session.ticket is not first
    assert pair.session.ticket is not None
    assert pair.session.ticket.lifetime == 79
    for _ in range(60):
        pair.inject(*[TicketFrame(60, bytes(16), b"t")] * 20, to=pair.session)
    assert pair.session.is_closed
    assert pair.session.close_error is not None
    assert pair.session.close_error.code == 0x0603


# -- coming back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("carrier", ["udp", "ws", "stream", "memory"])
@pytest.mark.parametrize("before", ["udp", "ws"])
def test_one_round_trip(before: str, carrier: str) -> None:
    """C7, H-35: over the same carrier or another, established after one round trip, with fresh keys."""
    there = stage(carrier=before)
    began = there.world.now
    session = there.resume(carrier=carrier)
    assert there.world.now - began == pytest.approx(2 * DELAY, abs=0.001)
    assert_resumed(there, session)
    steps = [HandshakeProgressed(HandshakeStep.RESUME), HandshakeProgressed(HandshakeStep.RESUMED)]
    assert there.client.events(HandshakeProgressed) == steps
    assert there.server.events(HandshakeProgressed) == steps
    assert not there.sent(MessageType.HELLO)


def test_data_goes_with_the_confirmation() -> None:
    """H-35: what the initiator writes as soon as it is established is there after one and a half round trips."""
    there = stage()
    began = there.world.now
    session = there.resume()
    session.open_stream().write(b"x" * 500, there.world.now)
    there.client.pump()
    there.world.run_until(lambda: there.server.sessions and there.server.sessions[0].stream(0))
    assert there.world.now - began == pytest.approx(3 * DELAY, abs=0.001)


@pytest.mark.parametrize("behind", [0, 1, 6])
@pytest.mark.parametrize("forged", [False, True])
def test_what_comes_behind_the_confirmation_in_one_run(behind: int, forged: bool) -> None:
    """H-35, P-14: it is the session's, and no reset goes out: that would be the token of a live connection ID."""
    there = stage()
    world, server, flight = there.world, there.server, []

    def hold(datagram: bytes, path: NetworkPath) -> bytes | None:
        if path.local != there.client.address or datagram[0] & 0x80:
            return datagram
        flight.append((datagram, path))
        return None

    world.taps.append(hold)
    session = there.resume()
    stream = session.open_stream()
    stream.write(bytes(8000), world.now)
    there.client.pump()
    (_, path), *packets = (one for one in flight if len(one[0]) == 1200)
    first = packets[0][0]
    run = [first, *(d for d, _ in packets[1:])][: behind + 1]
    if forged:
        run[1:] = [first[:9] + bytes(1191)] * behind
    world.taps.remove(hold)
    server.endpoint.receive(b"".join(run), back(path), world.now, segment_size=1200)
    counters = server.endpoint.counters
    assert (counters.resets_sent, counters.misdirected) == (0, 0)
    peer = server.endpoint.sessions[session.session_id]
    assert peer.stats().packets_received == (1 if forged else len(run))


def test_a_chain_of_tickets() -> None:
    """H-33: each resumed session gives another ticket, and none of them has keys of another."""
    there = stage()
    seen = {there.ticket.secret}
    for _ in range(5):
        session = there.resume()
        assert_resumed(there, session)
        ticket = session.ticket
        assert ticket is not None
        assert ticket.secret not in seen
        key = session.export_keying_material("x", 32)
        assert key not in seen
        seen |= {ticket.secret, key}
        there.ticket = ticket
        session.close(there.world.now)
        there.client.pump()
        there.world.run(1.0)


def test_from_another_address() -> None:
    """C7: the ticket is the node's, not the address's."""
    there = stage()
    elsewhere = there.world.node("elsewhere", config=there.client.config, address=("203.0.113.9", 9))
    assert_resumed(there, there.resume(elsewhere))


def test_in_another_process_and_on_another_device() -> None:
    """C7: exported, and taken up by a fresh endpoint that was made from the same node seed."""
    node_seed = b"n" * 32
    there = stage(client={"identity": Identity.from_seed(node_seed)})
    kept = there.ticket.export()
    other = there.world.node("other device", node_seed=node_seed, address=("192.0.2.200", 2))
    there.ticket = Ticket.from_bytes(kept)
    assert_resumed(there, there.resume(other))


def test_another_server_with_the_same_fleet_secret() -> None:
    """C7, H-34: one node, served by several processes that share a secret."""
    there = stage(server={"fleet_secret": FLEET})
    second = there.world.node("second", config=there.server.config, address=("second", 1))
    assert_resumed(there, there.resume(server=second), second)


def test_a_server_that_restarted_with_its_fleet_secret() -> None:
    """H-34: a ring that is derived is the same again."""
    there = stage(server={"fleet_secret": FLEET})
    there.server.restart()
    assert_resumed(there, there.resume())


def test_a_fleet_that_changes_its_secret() -> None:
    """H-34: tickets under the previous secret are taken, and new ones given under the current."""
    there = stage(server={"fleet_secret": FLEET})
    there.server.restart(fleet_secret=b"2" * 32, previous_fleet_secret=FLEET)
    session = there.resume()
    assert_resumed(there, session)
    assert session.ticket is not None
    there.ticket = session.ticket
    there.server.restart(fleet_secret=b"2" * 32, previous_fleet_secret=None)
    assert_resumed(there, there.resume())


def test_a_random_ring_changes_and_remembers_one() -> None:
    """H-34: a key is replaced after a lifetime, and opens for another one."""
    there = stage(server={"resumption_timeout": 100.0})
    there.world.run(80.0)
    session = there.resume()  # 95 s old
    assert_resumed(there, session)
    there.world.run(40.0)
    late = there.client.connect(there.server)  # given under the second key
    there.world.run(1.0)
    assert late.ticket is not None
    there.ticket = late.ticket
    there.world.run(98.0)
    assert_resumed(there, there.resume())


@pytest.mark.parametrize("suite", [1, 2])
def test_each_suite(suite: int) -> None:
    """H-34: a resumed session has the suite of the one before."""
    there = stage(client={"suites": (suite,)})
    assert there.ticket.suite == suite
    session = there.resume()
    assert_resumed(there, session)
    assert session.ticket is not None
    assert session.ticket.suite == suite


def test_nothing_is_left() -> None:
    """Resumed, closed: both endpoints are empty, and remember only what they must."""
    there = stage()
    session = there.resume()
    assert_resumed(there, session)
    session.close(there.world.now)
    there.client.pump()
    there.world.run(20.0)
    assert_empty(there.client, there.server)


# -- tickets that are good for nothing -----------------------------------------------------------------------------


def test_offered_twice() -> None:
    """H-36: an endpoint offers a ticket once."""
    there = stage()
    first = there.resume()
    assert_resumed(there, first)
    there.client.log.clear()
    session = there.resume()
    assert_refused(session, there.client, TicketRefusal.OFFERED)
    assert len(there.sent(MessageType.RESUME)) == 1


def test_used_twice() -> None:
    """H-36: at one server a ticket is good once, whoever comes with it."""
    there = stage()
    assert_resumed(there, there.resume())
    copy = there.world.node("copy", config=there.client.config, address=("copy", 1))
    session = there.resume(copy)
    assert_refused(session, copy, TicketRefusal.USED)


def test_a_server_that_restarted_without_a_secret() -> None:
    """H-34: a ring that was random is gone."""
    there = stage()
    there.server.restart()
    began = there.world.now
    session = there.resume()
    assert_refused(session, there.client, TicketRefusal.UNKNOWN)
    assert there.world.now - began == pytest.approx(6 * DELAY, abs=0.001), "one round trip more than without a ticket"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fleet_secret": b"another secret of 32 bytes......"}, TicketRefusal.UNKNOWN),
        ({"seed_generation": 1}, TicketRefusal.GENERATION),
        ({"identity": Identity.from_seed(b"another server's seed" * 2)}, TicketRefusal.PEER),
        ({"resumption_timeout": 0}, TicketRefusal.UNKNOWN),
        ({"suites": (2,)}, TicketRefusal.REFUSED),
    ],
)
def test_a_server_that_is_another_now(changes: dict[str, Any], reason: TicketRefusal) -> None:
    """C7, H-34: the wrong secret, other seeds, another node, other suites: typed, and a full handshake instead.

    Another node is no full handshake either: the ticket says who was asked for.
    """
    there = stage(server={"fleet_secret": FLEET})
    there.server.restart(**changes)
    session = there.resume()
    if reason is TicketRefusal.PEER:
        assert isinstance(session.close_error, AuthenticationError)
        assert there.client.events(ResumptionRefused) == [ResumptionRefused(reason)]
    else:
        assert_refused(session, there.client, reason)


def test_another_application() -> None:
    """H-34, H-35: the name of the application is bound at either end, so its tickets open nothing at another's."""
    fleet = {"fleet_secret": FLEET, "application": "one"}
    there = stage(server=fleet, client={"application": "one"})
    there.server.restart(application="two")
    there.client.restart(application="two")
    assert_refused(there.resume(), there.client, TicketRefusal.UNKNOWN)
    there = stage(server=fleet, client={"application": "one"})
    there.client.restart(application="two")
    session = there.resume()
    assert isinstance(session.close_error, AuthenticationError)
    assert there.client.events(ResumptionRefused) == [ResumptionRefused(TicketRefusal.SILENCE)]


def test_expired_here() -> None:
    """H-37: who has the ticket sees that it has expired, and does not ask."""
    there = stage(server={"resumption_timeout": 60.0})
    there.world.run(60.0)
    assert_refused(there.resume(), there.client, TicketRefusal.EXPIRED)
    assert not there.sent(MessageType.RESUME)


def test_expired_there() -> None:
    """H-34: the server has the last word."""
    there = stage(server={"resumption_timeout": 60.0})
    there.world.run(60.0)
    there.ticket = evolve(there.ticket, lifetime=3600)
    assert_refused(there.resume(), there.client, TicketRefusal.EXPIRED)


def test_a_ticket_from_the_future() -> None:
    """H-34: beyond what clocks may differ, it is as if there were none."""
    there = stage(server={"fleet_secret": FLEET})
    there.server.restart()
    there.server.endpoint.set_unix_time(there.ticket.issued_at - 61.0, there.world.now)
    assert_refused(there.resume(), there.client, TicketRefusal.UNKNOWN)


def test_clocks_that_differ_a_little() -> None:
    """H-34: servers of a fleet need not agree to the second."""
    there = stage(server={"fleet_secret": FLEET})
    there.server.restart()
    there.server.endpoint.set_unix_time(there.ticket.issued_at - 59.0, there.world.now)
    assert_resumed(there, there.resume())


def test_a_clock_that_steps_back_makes_nothing_good_again() -> None:
    """H-36: what was forgotten because it had expired stays expired."""
    there = stage(server={"resumption_timeout": 60.0})
    used = there.ticket
    assert_resumed(there, there.resume())
    there.world.run(50.0)
    fresh = there.client.connect(there.server)
    there.world.run(1.0)
    assert fresh.ticket is not None
    there.ticket = fresh.ticket
    assert_resumed(there, there.resume())  # which forgets the first
    there.server.endpoint.set_unix_time(used.issued_at + 1.0, there.world.now)
    copy = there.world.node("copy", config=there.client.config, address=("copy", 1))
    there.ticket = evolve(used, issued_at=used.issued_at + 3600)
    assert_refused(there.resume(copy), copy, TicketRefusal.EXPIRED)


@pytest.mark.parametrize(
    "damage",
    [
        lambda sealed: sealed[:-1] + bytes((sealed[-1] ^ 1,)),
        lambda sealed: bytes((sealed[0] ^ 1,)) + sealed[1:],
        lambda sealed: sealed[:10] + bytes((sealed[10] ^ 1,)) + sealed[11:],
        lambda sealed: sealed[:-1],
        lambda sealed: sealed + b"\0",
        lambda sealed: b"t",
        lambda sealed: bytes(512),
    ],
    ids=["forged", "unknown key", "other salt", "truncated", "too long", "one byte", "zeros"],
)
def test_tickets_that_nobody_gave(damage: Callable[[bytes], bytes]) -> None:
    """H-34: as if there were none; and what is found out costs no multiplication."""
    there = stage()
    there.ticket = evolve(there.ticket, sealed=damage(there.ticket.sealed))
    assert_refused(there.resume(), there.client, TicketRefusal.UNKNOWN)


def test_who_is_asked_for_must_be_who_gave_it() -> None:
    """H-15, H-37: a pin that differs from the ticket counts, and the ticket does not."""
    there = stage()
    other = there.world.node("other")
    session = there.resume(server=other, peer_node_id=other.config.identity.node_id)
    assert_refused(session, there.client, TicketRefusal.PEER)
    assert not there.sent(MessageType.RESUME)
    there.client.log.clear()
    assert_resumed(there, there.resume(peer_node_id=there.server.config.identity.node_id))


def test_the_ticket_of_another_node() -> None:
    """C7: stolen, without the node's own key, it is good for nothing: the endpoint does not even ask."""
    there = stage()
    thief = there.world.node("thief")
    assert_refused(there.resume(thief), thief, TicketRefusal.NOT_OURS)
    assert not there.sent(MessageType.RESUME)


def test_a_thief_who_says_it_is_his() -> None:
    """C7, H-35: with the ticket and its secret, and another static key: no answer, no trace, and nothing is used up."""
    there = stage()
    thief = there.world.node("thief")
    genuine = there.ticket
    there.ticket = evolve(genuine, node_id=thief.config.identity.node_id)
    session = there.resume(thief)
    assert_refused(session, thief, TicketRefusal.SILENCE)
    assert not there.sent(MessageType.RESUMED)
    there.ticket = genuine
    assert_resumed(there, there.resume())


def test_a_suite_that_is_not_spoken_any_more() -> None:
    """H-37."""
    there = stage(client={"suites": (2, 1)})
    there.client.restart(suites=(1,))
    assert_refused(there.resume(), there.client, TicketRefusal.NOT_OURS)


def test_a_ticket_with_an_impossible_peer() -> None:
    """H-4: a node id of small order in what the application gives is no reason to raise."""
    there = stage()
    there.ticket = evolve(there.ticket, peer_node_id=bytes(32))
    session = there.resume()
    assert there.client.events(ResumptionRefused) == [ResumptionRefused(TicketRefusal.NOT_OURS)]
    assert isinstance(session.close_error, AuthenticationError)


def test_the_memory_of_what_was_used_is_full() -> None:
    """H-36: then resumption is refused, rather than that something is forgotten."""
    limits = Limits(used_tickets=1)
    there = stage(server={"limits": limits})
    assert_resumed(there, there.resume())
    second = there.client.connect(there.server)
    there.world.run(1.0)
    assert second.ticket is not None
    there.client.log.clear()
    used, there.ticket = there.ticket, second.ticket
    assert_refused(there.resume(), there.client, TicketRefusal.FULL)
    there.ticket = used
    copy = there.world.node("copy", config=there.client.config, address=("copy", 1))
    assert_refused(there.resume(copy), copy, TicketRefusal.USED)


def test_the_memory_of_what_was_offered_is_full() -> None:
    """H-36: the same on the side that offers."""
    limits = Limits(used_tickets=0)
    there = stage(client={"limits": limits})
    assert_refused(there.resume(), there.client, TicketRefusal.FULL)


def test_no_ticket_at_all() -> None:
    there = stage()
    for bad in (b"ticket", there.ticket.export(), "ticket", 5):
        with pytest.raises(ArgumentError) as caught:
            there.client.endpoint.connect(there.client.path_to(there.server), ticket=bad, now=there.world.now)  # type: ignore[arg-type]
        assert caught.value.argument == "ticket"
        assert "stt-ticket" not in str(caught.value)


# -- who may come in -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0x0102, 0x0103, 0x1234, 1 << 40])
def test_admit(code: int) -> None:
    """H-29, H-35: whom the application does not want gets in with no ticket either, and is told as ever."""
    there = stage(server={"fleet_secret": FLEET})
    asked: list[bytes] = []

    def admit(peer_node_id: bytes, path: NetworkPath, now: float) -> int | None:
        asked.append(peer_node_id)
        return code

    strict = there.world.node("strict", config=there.server.config, address=("strict", 1), admit=admit)
    session = there.resume(server=strict)
    assert session.is_closed
    assert session.close_error is not None
    assert session.close_error.code == code
    assert set(asked) == {there.client.config.identity.node_id}
    assert there.client.events(ResumptionRefused) == [ResumptionRefused(TicketRefusal.REFUSED)]
    assert not there.sent(MessageType.RESUMED)


def test_admitted_once() -> None:
    """H-35: it is asked once for each resumption."""
    there = stage(server={"fleet_secret": FLEET})
    asked: list[bytes] = []
    polite = there.world.node(
        "polite",
        config=there.server.config,
        address=("polite", 1),
        admit=lambda peer_node_id, path, now: asked.append(peer_node_id),
    )
    assert_resumed(there, there.resume(server=polite), polite)
    assert asked == [there.client.config.identity.node_id]


def test_admit_that_raises() -> None:
    """What comes out of `admit` comes out of `receive`; nobody is let in, and nothing is left."""
    there = stage(server={"fleet_secret": FLEET})

    def admit(peer_node_id: bytes, path: NetworkPath, now: float) -> int | None:
        raise RuntimeError("no idea")

    broken = there.world.node("broken", config=there.server.config, address=("broken", 1), admit=admit)
    session = there.client.connect(broken, ticket=there.ticket)
    with pytest.raises(RuntimeError, match="no idea"):
        there.world.run(1.0)
    assert_empty(broken)
    session.abort(there.world.now)


def test_a_server_that_accepts_nobody() -> None:
    """H-28: neither with a ticket nor without."""
    there = stage()
    there.server.endpoint.accepting = False
    session = there.resume()
    assert isinstance(session.close_error, ConnectionRefusedError)
    assert there.client.events(ResumptionRefused) == [ResumptionRefused(TicketRefusal.REFUSED)]


def test_a_server_that_is_full() -> None:
    """H-28: likewise; a ticket is no right to a place."""
    there = stage(server={"max_concurrent_sessions": 1})
    other = there.world.node("other")
    other.connect(there.server)
    there.world.run(1.0)
    session = there.resume()
    assert isinstance(session.close_error, TooManySessionsError)


def test_a_server_that_fills_up_meanwhile() -> None:
    """H-29: between the answer and its confirmation the place has gone: the session is closed under its keys."""
    there = stage(server={"max_concurrent_sessions": 1})
    session = there.client.connect(there.server, ticket=there.ticket)
    there.world.run_until(lambda: there.sent(MessageType.RESUMED))
    there.server.endpoint.accepting = False
    there.world.run(1.0)
    assert session.is_closed
    assert session.close_error is not None
    assert session.close_error.code == ConnectionRefusedError.code
    assert there.server.sessions == []
    assert there.server.events(HandshakeFailed)[0].reason == "refused"


def test_a_client_that_gives_up() -> None:
    """Section 11: closed or aborted in the middle, it leaves nothing behind."""
    for end in ("close", "abort"):
        for moment in (0.5 * DELAY, 1.5 * DELAY):
            there = stage()
            session = there.client.connect(there.server, ticket=there.ticket)
            there.world.run(moment)
            getattr(session, end)(there.world.now)
            there.client.pump()
            assert session.is_closed
            there.world.run(30.0)
            assert_empty(there.client, there.server)


def test_nobody_there() -> None:
    """H-18: the handshake timeout is that of the dial as a whole."""
    there = stage()
    there.world.outage(there.client, there.server, 0.0)
    began = there.world.now
    session = there.resume()
    assert isinstance(session.close_error, ConnectionTimeoutError)
    assert there.world.now - began == pytest.approx(10.0, abs=0.01)
    assert there.client.events(ResumptionRefused) == [ResumptionRefused(TicketRefusal.SILENCE)]
    there.world.run(20.0)
    assert_empty(there.client, there.server)


# -- the host is asked ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0.0, 0.1, 0.6])
def test_the_host_says_yes(after: float) -> None:
    """DESIGN 3, "Accepting": the session that was asked about is the one that comes to be."""
    there = stage(server={"ticket_check": "host"})
    asked = answering(there.server, [True], after)
    session = there.resume()
    peer = assert_resumed(there, session)
    assert [event.expires_at for event in asked] == [pytest.approx(there.ticket.expires_at, abs=DELAY * 2)]
    assert len(asked[0].ticket_id) == 16
    assert [told for _, told, event in there.server.log if event is asked[0]] == [peer]


def test_the_host_says_no() -> None:
    """H-36: what others know is asked for, and counts."""
    there = stage(server={"ticket_check": "host"})
    answering(there.server, [False])
    assert_refused(there.resume(), there.client, TicketRefusal.USED)
    there.world.run(1.0)
    assert_works(there.world, there.client.sessions[0], there.server.sessions[0])


def test_the_host_says_nothing() -> None:
    """H-37: the full handshake begins all the same; what comes too late changes nothing."""
    there = stage(server={"ticket_check": "host"})
    asked = answering(there.server, [True], after=12.0)
    assert_refused(there.resume(), there.client, TicketRefusal.SILENCE)
    there.world.run(15.0)
    assert len(asked) == 1
    assert not there.sent(MessageType.RESUMED)
    assert len(there.server.sessions) == 1
    there.client.sessions[0].close(there.world.now)
    there.client.pump()
    there.world.run(20.0)
    assert_empty(there.client, there.server)


@pytest.mark.parametrize("early", [b"", b"early"])
@pytest.mark.parametrize("end", ["close", "abort"])
def test_the_host_says_yes_and_has_ended_it(end: str, early: bytes) -> None:
    """H-36: a session that the host was asked about and has ended does not begin; a full handshake makes another."""
    there = stage(server={"ticket_check": "host", "max_early_data": 700})

    def on_event(session: Session | None, event: Event) -> None:
        if isinstance(event, TicketOffered):
            assert session is not None
            getattr(session, end)(there.server.now)
            session.answer_ticket(True, there.server.now)
            assert session.is_closed

    there.server.listeners.append(on_event)
    session = there.resume(early_data=early)
    assert_refused(session, there.client, TicketRefusal.REFUSED)
    there.world.run(1.0)
    (peer,) = there.server.sessions
    assert not peer.resumed
    assert there.server.events(SessionClosed) == []


def test_the_host_ends_it_between_its_answer_and_the_first_packet() -> None:
    """H-29: it is over before it began, so the peer is told that it is not wanted."""
    there = stage(server={"ticket_check": "host"})
    answering(there.server, [True])
    session = there.client.connect(there.server, ticket=there.ticket)
    there.world.run(1.5 * DELAY)
    ((_, caller, _),) = there.server.log
    assert caller is not None
    caller.abort(there.server.now)
    there.world.run(1.0)
    assert session.close_error is not None
    assert session.close_error.code == ConnectionRefusedError.code
    assert there.server.events(SessionEstablished) == []
    assert [event.reason for event in there.server.events(HandshakeFailed)] == ["refused"]
    there.world.run(20.0)
    assert_empty(there.client, there.server)


def test_packets_that_come_while_the_host_thinks() -> None:
    """H-26, H-35: there are no keys yet, so they are held, as few as before AUTH_PROOF, and confirm nothing."""
    there = stage(server={"ticket_check": "host"})
    answering(there.server, [True], after=0.1)
    session = there.client.connect(there.server, ticket=there.ticket)
    there.world.run(1.5 * DELAY)
    cid = next(iter(there.server.endpoint._responder._by_cid))
    for _ in range(20):
        there.server.receive(b"\x40" + cid + bytes(100), back(session.path))
    assert there.server.endpoint.counters.overtaking == 10
    assert there.server.sessions == []
    there.world.run_until(session.is_active)
    assert_resumed(there, session)


def test_a_ticket_is_asked_about_once() -> None:
    """DESIGN 3: an answer is given once, and only where one was asked for."""
    there = stage(server={"ticket_check": "host"})
    answering(there.server, [True])
    peer = assert_resumed(there, there.resume())
    with pytest.raises(StateError):
        peer.answer_ticket(True, there.world.now)


def test_a_copy_while_the_host_thinks() -> None:
    """H-35: a RESUME that a watcher sends from elsewhere, and sooner, keeps the true one from nothing."""
    for after in (0.0, DELAY + 0.05):
        there = stage(server={"ticket_check": "host"})
        asked = answering(there.server, [True], after=0.1)
        copying(there, after)
        assert_resumed(there, there.resume())
        assert len(asked) == 1


# -- on the way ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MessageType.RESUME, MessageType.RESUMED])
@pytest.mark.parametrize("what", ["lost", "doubled", "damaged"])
def test_what_befalls_a_message(kind: MessageType, what: str) -> None:
    """H-20, W-1: once lost, doubled or damaged: there is a resumption all the same, and one session."""
    there = stage()
    seen: list[bytes] = []

    def befall(datagram: bytes, path: NetworkPath) -> bytes | None:
        if not is_handshake(datagram, kind) or seen:
            return datagram
        seen.append(datagram)
        if what == "doubled":
            there.world.send(datagram, path)
            return datagram
        return None if what == "lost" else datagram[:60] + bytes((datagram[60] ^ 4,)) + datagram[61:]

    there.world.taps.append(befall)
    session = there.resume()
    assert seen
    assert_resumed(there, session)
    assert len(there.server.sessions) == 1
    assert not there.sent(MessageType.HELLO)


def test_the_confirmation_is_lost() -> None:
    """H-35: the initiator repeats its first packet; until then the responder has no session."""
    there = stage()
    lost: list[bytes] = []

    def lose(datagram: bytes, path: NetworkPath) -> bytes | None:
        if path.local == there.client.address and not is_handshake(datagram) and len(lost) < 2:
            lost.append(datagram)
            return None
        return datagram

    there.world.taps.append(lose)
    session = there.resume()
    there.world.run(1.5 * DELAY)
    assert there.server.sessions == []
    assert_resumed(there, session)
    assert len(lost) == 2


@pytest.mark.parametrize("seed", range(30))
def test_through_bad_weather(seed: int) -> None:
    """H-37: 30 % loss, duplicates, damage: always a session, and never one that is half resumed."""
    weather = Conditions(delay=DELAY, loss=0.3, duplicate=0.1, corrupt=0.1, reorder=0.1)
    there = stage(seed)
    there.world.conditions = weather
    there.world.links.clear()
    session = there.resume()
    assert session.is_active()
    there.world.run_until(lambda: session.session_id in there.server.endpoint.sessions, timeout=20.0)
    assert there.server.endpoint.sessions[session.session_id].resumed == session.resumed
    assert bool(there.client.events(ResumptionRefused)) != session.resumed


def test_a_far_responder() -> None:
    """H-37: over a satellite one round trip is enough, without a full handshake beside it."""
    there = stage()
    there.world.conditions = Conditions(delay=0.3)
    there.world.links.clear()
    began = there.world.now
    assert there.resume().resumed
    assert there.world.now - began == pytest.approx(0.6, abs=0.001)
    assert not there.sent(MessageType.HELLO)


def test_a_responder_that_is_farther_than_patience() -> None:
    """H-37: the full handshake begins, and yet the resumption wins."""
    there = stage()
    there.world.conditions = Conditions(delay=0.6)
    there.world.links.clear()
    session = there.resume()
    assert there.sent(MessageType.HELLO)
    assert_resumed(there, session)
    there.world.run(30.0)
    assert there.client.events(ResumptionRefused) == []
    assert len(there.server.sessions) == 1


def test_a_responder_under_load_asks_for_a_cookie() -> None:
    """H-21, H-35: RETRY is for RESUME too; the same RESUME with the cookie is answered."""
    there = stage(server={"limits": Limits(half_open_without_cookie=0)})
    stranger = there.world.node("stranger")
    there.world.outage(stranger, there.server, there.world.now + 1.5 * DELAY)  # it never hears of its CHALLENGE
    stranger.connect(there.server)
    there.world.run(2 * DELAY)
    began = there.world.now
    session = there.resume()
    assert len(there.sent(MessageType.RETRY)) == 1
    assert there.world.now - began == pytest.approx(4 * DELAY, abs=0.001)
    assert_resumed(there, session)


# -- those who watch -----------------------------------------------------------------------------------------------


def test_a_watcher_who_copies_from_elsewhere() -> None:
    """H-35: a RESUME that arrives sooner, from elsewhere, keeps nobody from resuming; the copy comes to nothing."""
    there = stage()
    copying(there, 0.0)
    session = there.resume()
    peer = assert_resumed(there, session)
    assert len(there.sent(MessageType.RESUMED)) == 2
    assert len(set(there.sent(MessageType.RESUMED))) == 1, "one handshake, however many copies"
    assert peer.path == back(session.path)
    there.world.run(11.0)
    assert there.server.events(HandshakeFailed) == []
    assert len(there.server.sessions) == 1


def test_one_ticket_from_four_addresses() -> None:
    """H-35, H-36: a ticket is good for one session, even if its own client sends its RESUME from four addresses."""
    there = stage()
    session = there.client.connect(there.server, ticket=there.ticket)
    ((resume, _),) = there.wire
    elsewhere = [NetworkPath("udp", there.server.address, (f"home {number}", 1)) for number in range(3)]
    for path in elsewhere:
        there.server.receive(resume, path)
    flight: list[bytes] = []

    def copy(datagram: bytes, path: NetworkPath) -> bytes:
        if path.local == there.client.address and not is_handshake(datagram):
            flight.append(datagram)
        return datagram

    there.world.taps.append(copy)
    there.world.run_until(lambda: bool(flight))
    for path in (*elsewhere, back(session.path)):
        there.server.receive(flight[0], path)
    there.world.run(1.0)
    assert len(there.server.events(SessionEstablished)) == 1
    assert len(there.server.sessions) == 1
    assert_resumed(there, session)


def test_admit_is_asked_of_the_address_that_comes_in() -> None:
    """H-29, H-35: who sends RESUME from an address that is welcome and confirms from another one is asked again."""
    there = stage(server={"fleet_secret": FLEET})

    def admit(peer_node_id: bytes, path: NetworkPath, now: float) -> int | None:
        return None if path.remote == ("welcome", 1) else 0x1234

    strict = there.world.node("strict", config=there.server.config, address=("strict", 1), admit=admit)
    session = there.client.connect(strict, ticket=there.ticket)
    ((resume, _),) = there.wire
    strict.receive(resume, NetworkPath("udp", strict.address, ("welcome", 1)))
    there.world.run(1.0)
    assert session.is_closed
    assert session.close_error is not None
    assert session.close_error.code == 0x1234
    assert strict.events(SessionEstablished) == []


def test_a_watcher_who_copies_from_everywhere() -> None:
    """H-35: four half-open resumptions of one ticket, and no more."""
    there = stage()
    session = there.client.connect(there.server, ticket=there.ticket)
    ((resume, _),) = there.wire
    for number in range(10):
        there.server.receive(resume, NetworkPath("udp", there.server.address, (f"watcher {number}", 1)))
    assert len(there.sent(MessageType.RESUMED)) == 4
    there.world.run(1.0)
    assert session.is_active(), "at the price of a full handshake"


def test_two_come_with_one_ticket() -> None:
    """H-35, H-36: only copies of one RESUME are forgiven; another RESUME with the ticket is refused, even meanwhile."""
    there = stage()
    copy = there.world.node("copy", config=there.client.config, address=("copy", 1))
    there.client.connect(there.server, ticket=there.ticket)
    there.world.run_until(lambda: there.sent(MessageType.RESUMED))
    assert there.server.sessions == []
    there.server.receive(resume_of(there, copy), NetworkPath("udp", there.server.address, copy.address))
    assert there.sent(MessageType.REFUSED)
    assert len(there.sent(MessageType.RESUMED)) == 1


def resume_of(there: Stage, node: Node) -> bytes:
    """The RESUME of a node that never gets an answer."""
    node.endpoint.connect(node.path_to(there.server), ticket=there.ticket, now=there.world.now)
    (transmit,) = node.endpoint.transmits(there.world.now)
    return b"".join(transmit.buffers)


@pytest.mark.parametrize("check", ["memory", "host"])
def test_copies_that_end_one_after_the_other(check: str) -> None:
    """H-35, H-36: it lasts as long as one handshake, on whichever path; the ticket stays used."""
    there = stage(server={"ticket_check": check})
    there.world.outage(there.client, there.server, there.world.now)
    session = there.client.connect(there.server, ticket=there.ticket)
    ((resume, _),) = there.wire
    session.abort(there.world.now)
    there.client.pump()
    paths = [NetworkPath("udp", there.server.address, (f"watcher {number}", 1)) for number in range(2)]
    there.server.receive(resume, paths[0])
    there.world.run(5.0)
    there.server.receive(resume, paths[1])
    there.server.endpoint.path_closed(paths[0], there.world.now)
    there.server.receive(resume, paths[0])
    there.server.endpoint.path_closed(paths[1], there.world.now)
    there.world.run(4.0)
    assert there.server.events(HandshakeFailed) == []
    there.world.run(2.0)
    assert there.server.events(HandshakeFailed) == [HandshakeFailed(paths[0], "timeout")]
    assert len(there.server.events(TicketOffered)) == (check == "host")
    there.world.run(5.0)
    assert_empty(there.server)
    there.wire.clear()
    there.server.receive(resume, paths[0])
    assert there.sent(MessageType.REFUSED)


def test_a_resumption_takes_the_place_of_a_stranger() -> None:
    """H-21: in a full table one that has shown its address comes before one that has not."""
    there = stage(server={"limits": Limits(half_open=1)})
    stranger = there.world.node("stranger")
    there.world.outage(stranger, there.server, there.world.now + 1.5 * DELAY)
    stranger.connect(there.server)
    there.world.run(2 * DELAY)
    session = there.resume(carrier="memory")
    assert_resumed(there, session)
    assert there.server.events(HandshakeFailed)[0].path.remote == stranger.address


def test_the_carrier_ends_in_the_middle() -> None:
    """H-30: with it goes the half-open resumption, about which the host may have been asked."""
    for check in ("memory", "host"):
        there = stage(server={"ticket_check": check}, carrier="ws")
        session = there.client.connect(there.server, "ws", ticket=there.ticket)
        there.world.run(1.5 * DELAY)
        there.server.endpoint.path_closed(back(session.path), there.world.now)
        there.client.endpoint.path_closed(session.path, there.world.now)
        there.server.pump()
        there.client.pump()
        assert session.is_closed
        assert there.server.events(HandshakeFailed)[0].reason == "timeout"
        there.world.run(1.0)
        assert_empty(there.client, there.server)


def test_a_resume_is_replayed() -> None:
    """H-36: after it was confirmed a copy is refused, from wherever it comes, and a repetition is dropped."""
    there = stage()
    session = there.resume()
    assert_resumed(there, session)
    (resume,) = there.sent(MessageType.RESUME)
    there.wire.clear()
    there.server.receive(resume, back(session.path))
    assert not there.wire
    there.server.receive(resume, NetworkPath("udp", there.server.address, ("watcher", 1)))
    assert [len(datagram) < len(resume) for datagram in there.sent(MessageType.REFUSED)] == [True]
    assert not there.sent(MessageType.RESUMED)


def test_a_replay_at_another_server_ends_half_open() -> None:
    """H-35: where single use is each server's own, a copy gets an answer that it can do nothing with."""
    there = stage(server={"fleet_secret": FLEET})
    second = there.world.node("second", config=there.server.config, address=("second", 1))
    assert_resumed(there, there.resume())
    (resume,) = there.sent(MessageType.RESUME)
    there.wire.clear()
    second.receive(resume, NetworkPath("udp", second.address, ("watcher", 1)))
    assert there.sent(MessageType.RESUMED)
    second.receive(b"\x40" + bytes(1000), NetworkPath("udp", second.address, ("watcher", 1)))
    there.world.run(30.0)
    assert second.events(SessionEstablished) == []
    assert_empty(second)


def test_a_full_handshake_beside_it_is_no_guess() -> None:
    """H-23, H-37: the CHALLENGE of the dial whose resumption has won is forgotten with that, and nobody has guessed."""
    there = stage(server={"limits": Limits(failed_guesses_without_cookie=1)})
    there.world.conditions = Conditions(delay=0.6)
    there.world.links.clear()
    session = there.resume()
    there.world.run(0.3)
    assert len(there.server.endpoint._responder) == 2, "a resumption and a full handshake"
    assert_resumed(there, session)
    assert len(there.server.endpoint._responder) == 0
    there.world.run(15.0)
    assert there.server.events(HandshakeFailed) == []
    there.wire.clear()
    there.client.connect(there.server)
    there.world.run(5.0)
    assert len(there.server.sessions) == 2
    assert not there.sent(MessageType.RETRY)


@pytest.mark.parametrize("kind", ["refused", "resumed", "retry"])
def test_forged_answers_end_nothing(kind: str) -> None:
    """H-14, H-37: whoever merely watches cannot end a resumption; the true answer wins, whatever came before it."""
    there = stage()
    forged: list[bytes] = []

    def forge(datagram: bytes, path: NetworkPath) -> bytes:
        if is_handshake(datagram, MessageType.RESUME) and not forged:
            for number in range(8):
                forged.append(forgery(kind, datagram, number))
                there.world.at(there.world.now, partial(there.client.receive, forged[-1], path))
        return datagram

    there.world.taps.append(forge)
    session = there.resume()
    assert len(forged) == 8
    assert_resumed(there, session)
    assert there.client.events(ResumptionRefused) == []
    there.world.run(30.0)
    assert len(there.server.sessions) == 1


def forgery(kind: str, resume: bytes, number: int) -> bytes:
    """An answer to RESUME by somebody who has seen it."""
    message = decode_datagram_untrusted(resume)
    assert isinstance(message, Message)
    name = hello_hash(message.prefix + Resume.decode_untrusted(message.body).core())
    if kind == "resumed":
        body = Resumed(name, bytes((9 + number,)) + bytes(31), bytes(40)).encode()
        return encode_datagram(Message(MessageType.RESUMED, message.scid, b"whatever", body))
    if kind == "retry":
        body = Retry(name, b"cookie %d" % number).encode()
        return encode_datagram(Message(MessageType.RETRY, message.scid, message.dcid, body))
    body = Refused(name, 0x0205 + number).encode()
    return encode_datagram(Message(MessageType.REFUSED, message.scid, message.dcid, body))


def test_junk_before_the_confirmation() -> None:
    """G-3, H-35: packets under a half-open resumption's connection ID that do not open confirm nothing."""
    there = stage()
    session = there.client.connect(there.server, ticket=there.ticket)
    there.world.run_until(lambda: there.sent(MessageType.RESUMED))
    (resumed,) = there.sent(MessageType.RESUMED)
    junk = b"\x40" + resumed[17:25] + bytes(100)
    for number in range(50):
        there.server.receive(junk + bytes((number,)), back(session.path))
        there.server.receive(junk, NetworkPath("udp", there.server.address, ("watcher", 1)))
    assert there.server.sessions == []
    there.world.run_until(session.is_active)
    assert_resumed(there, session)


def test_identities_stay_hidden() -> None:
    """H-35: nothing on the wire names anybody, and nothing in it comes a second time."""
    there = stage()
    session = there.resume()
    assert_resumed(there, session)
    wire = b"".join(datagram for datagram, _ in there.wire)
    for node in (there.client, there.server):
        assert node.config.identity.node_id not in wire
    assert session.ticket is not None
    assert session.ticket.sealed not in wire
    assert there.ticket.secret not in wire


def test_no_amplification() -> None:
    """W-4: on carriers that are not reliable each answer is smaller than its RESUME, which fills 1,200 bytes."""
    there = stage()
    assert_resumed(there, there.resume())
    (resume,), (resumed,) = there.sent(MessageType.RESUME), there.sent(MessageType.RESUMED)
    assert len(resume) == 1200
    assert len(resumed) < 400
    small = there.world.node("small")
    there.wire.clear()
    there.server.receive(resume[:1199], NetworkPath("udp", there.server.address, small.address))
    assert not there.wire


def test_parameters_are_those_of_this_time() -> None:
    """Section 5: both sides announce themselves anew, sealed."""
    there = stage(server={"fleet_secret": FLEET})
    there.server.restart(max_datagram_size=901)
    there.client.restart(max_datagram_size=902)
    session = there.resume()
    peer = assert_resumed(there, session)
    assert (session.max_datagram_size, peer.max_datagram_size) == (901, 902)


def test_events_of_a_resumed_session_end_as_ever() -> None:
    there = stage()
    session = there.resume()
    assert_resumed(there, session)
    session.close(there.world.now)
    there.client.pump()
    there.world.run(5.0)
    assert [event.reason for event in there.server.events(SessionClosed)] == ["graceful"]
