"""Tickets: those kept, those offered, and both messages of a resumption (docs/protocol.md, section 4.4).

The input is a row of steps between one responder and whoever comes to it: tickets given, changed, shown again; RESUME
from who they were given to, changed inside or outside its seal, or copied; RESUMED likewise; time, in either direction.
Only who a ticket was given to gets in, with that ticket, once. A good RESUMED is always taken, and only that. Nothing
raises but what is documented, and tables are bounded.
"""

from __future__ import annotations

from fuzz.harness import Choices, instrumented, main

with instrumented(__name__):
    from attrs import define, evolve, field

    from fuzz.peers import APPLICATION, LIMITS, OTHER, OURS, PARAMETERS, THEIRS, make_initiator, make_responder, path_of
    from stt_proto.clock import Clock
    from stt_proto.crypto import SUITES, channel_identifier
    from stt_proto.errors import ArgumentError, ChecksumError, HandshakeError
    from stt_proto.handshake import (
        Offered,
        Outcome,
        Reply,
        Responder,
        Resumer,
        SessionSecrets,
        Terms,
        TicketOffice,
        TicketTerms,
        ticket_secret,
    )
    from stt_proto.handshake.tickets import Grant
    from stt_proto.testing import SeededEntropy
    from stt_proto.tickets import Ticket, TicketRefusal
    from stt_proto.wire import (
        Message,
        MessageType,
        Resume,
        Resumed,
        decode_datagram_untrusted,
        encode_datagram,
    )

LIFETIME = 100
USED = 6
UNIX = 1_700_000_000.0
HOSTS = ("192.0.2.7", "198.51.100.9", "2001:db8::7")
JUMPS = (0.0, 0.3, 5.0, 11.0, 60.0, 99.0, 101.0)
MAX_STEPS = 60
SECRETS = {
    suite: SessionSecrets(SUITES[suite], *(bytes((number,)) * 32 for number in range(7)), b"session!")
    for suite in (1, 2)
}


@define
class Run:
    """One responder, and what it has given."""

    clock: Clock
    office: TicketOffice
    responder: Responder
    entropy: SeededEntropy
    now: float = 0.0
    tickets: list[Ticket] = field(factory=list)
    resumes: list[tuple[Resumer, bytes, int]] = field(factory=list)
    early: list[bytes] = field(factory=list)
    answers: dict[int, tuple[bytes, ...]] = field(factory=dict)
    let_in: dict[bytes, set[bytes]] = field(factory=dict)


def fuzz_one(data: bytes) -> None:
    """Carry out the steps."""
    choices = Choices(data)
    run = begin(choices)
    for _ in range(MAX_STEPS):
        if not choices:
            break
        choices.pick(STEPS)(run, choices)
        assert len(run.office.used) <= USED
        assert len(run.responder) <= LIMITS.half_open


def begin(choices: Choices) -> Run:
    """A responder that has given nothing yet, alone or one of a fleet."""
    clock, entropy = Clock(0.0, UNIX), SeededEntropy("tickets")
    channel = channel_identifier(APPLICATION.encode())
    terms = TicketTerms(
        lifetime=LIFETIME,
        fleet_secret=b"f" * 32 if choices.flag() else None,
        previous_fleet_secret=None,
        channel=channel,
        generation=3,
        suites=(1, 2),
        limit=USED,
    )
    office = TicketOffice(THEIRS.node_id, terms, clock, entropy)
    return Run(clock, office, make_responder(1, tickets=office, limits=LIMITS), entropy)


# -- steps ---------------------------------------------------------------------------------------------------------


def wait(run: Run, choices: Choices) -> None:
    """Time passes; now and then the wall clock is set, too."""
    run.now += choices.pick(JUMPS)
    if choices.byte() & 7 == 7:
        run.clock.set_unix(UNIX + choices.below(400) - 200, run.now)
    run.clock.advance(run.now)
    run.responder.expire(run.now)


def give(run: Run, choices: Choices) -> None:
    """A ticket, for one of two, of one of two suites."""
    suite, who = choices.pick((1, 2)), choices.pick((OURS, OTHER))
    frame = run.office.issue(SECRETS[suite], who.node_id, run.now)
    assert frame is not None
    secret = ticket_secret(SECRETS[suite].resumption, frame.nonce)
    ticket = Ticket(frame.sealed, secret, who.node_id, THEIRS.node_id, suite, run.clock.unix(run.now), frame.lifetime)
    run.tickets.append(Ticket.from_bytes(ticket.export()))


def take_back(run: Run, choices: Choices) -> None:
    """What somebody kept, damaged or not: the same or an error that quotes nothing."""
    if not run.tickets:
        return
    kept = choices.pick(run.tickets).export()
    shown = choices.damage(kept)
    try:
        assert Ticket.from_bytes(shown).export() == shown
        assert shown == kept
    except ArgumentError:
        assert shown != kept


def show(run: Run, choices: Choices) -> None:
    """A ticket, damaged or not, to the office alone."""
    sealed = choices.pick(run.tickets).sealed if run.tickets and choices.flag() else choices.chunk()
    shown = choices.damage(sealed) if choices.flag() else sealed
    verdict = run.office.examine(shown, run.now)
    if isinstance(verdict, Grant):
        assert shown in {ticket.sealed for ticket in run.tickets}
        assert verdict.responder == THEIRS.node_id
    else:
        assert isinstance(verdict, TicketRefusal)


def dial(run: Run, choices: Choices) -> None:
    """RESUME, from who the ticket was given to or from another; perhaps with another secret."""
    if not run.tickets:
        return
    ticket = choices.pick(run.tickets)
    identity = OURS if ticket.node_id == OURS.node_id else OTHER
    how = choices.below(4)
    if how == 1:
        identity = OTHER if identity is OURS else OURS
    elif how == 2:
        ticket = evolve(ticket, secret=bytes(32))
    elif how == 3:
        damaged = choices.damage(ticket.sealed)[:512] or b"x"
        how = 0 if damaged == ticket.sealed else how
        ticket = evolve(ticket, sealed=damaged)
    begun: list[float] = []
    early = choices.chunk() if choices.flag() else b""
    ticket = evolve(ticket, max_early_data=choices.pick((0, 40, 768)))
    cid = run.entropy(8)
    resumer = Resumer(
        ticket,
        identity=identity,
        application=APPLICATION,
        parameters=PARAMETERS,
        local_cid=cid,
        reliable=False,
        max_datagram=1200,
        entropy=run.entropy,
        now=run.now,
        handshake_timeout=10.0,
        early_data=early,
        begin_full=lambda now: begun.append(now) or make_initiator(1, "udp", local_cid=cid, now=now),  # type: ignore[func-returns-value]
    )
    (datagram,) = resumer.take(run.now)
    assert len(datagram) == 1200
    assert resumer.sent_early == (0 < len(early) <= ticket.max_early_data)
    run.early.append(early if resumer.sent_early else b"")
    run.resumes.append((resumer, datagram, how))


def resume(run: Run, choices: Choices) -> None:
    """A RESUME arrives: as it was, copied from elsewhere, damaged on the way, or changed by somebody who knows how."""
    if not run.resumes:
        return
    index = choices.below(len(run.resumes))
    _, datagram, how = run.resumes[index]
    genuine = datagram
    match choices.below(4):
        case 1:
            datagram = choices.damage(datagram)
        case 2:
            datagram = changed(datagram, choices)
        case _:
            pass
    try:
        message = decode_datagram_untrusted(datagram)
    except (ChecksumError, HandshakeError):
        return
    if not isinstance(message, Message) or message.type is not MessageType.RESUME:
        return
    path = path_of(choices.pick(HOSTS))
    outcome = run.responder.on_message(
        message,
        path,
        run.now,
        terms=Terms(False, 1200, PARAMETERS.encode()),
        size=len(datagram),
        issue=lambda: run.entropy(8),
    )
    check_outcome(outcome, len(datagram))
    if isinstance(outcome, Offered):
        accept(run, outcome, index, how, same_core(datagram, genuine))


def accept(run: Run, offered: Offered, index: int, how: int, same: bool) -> None:
    """It has opened: then it is what somebody sealed who the ticket was given to."""
    resuming = offered.resuming
    assert same
    assert how == 0
    grant = resuming.grant
    run.responder.enter(resuming, run.now, lambda: run.entropy(8))
    names = run.let_in.setdefault(grant.ticket_id, set())
    names.add(resuming.hello_hash)
    assert len(names) == 1, "a ticket is good for one RESUME"
    assert resuming.early_data == run.early[index], "as it was sent, or not at all"
    terms = Terms(False, 1200, PARAMETERS.encode())
    take_early = bool(resuming.early_data)
    run.answers[index] = run.responder.answer(resuming, terms, take_early=take_early).datagrams
    if grant.lifetime & 1 == 0 and index & 1:
        run.responder.confirm(resuming, resuming.path, run.now)


def answer(run: Run, choices: Choices) -> None:
    """RESUMED arrives, as it was or changed; or something else that somebody made up."""
    if not run.resumes:
        return
    index = choices.below(len(run.resumes))
    resumer, datagram, _ = run.resumes[index]
    sent = run.answers.get(index)
    if sent is None:
        name = Resume.decode_untrusted(message_of(datagram).body)
        assert name.version == 1
        message = Message(MessageType.RESUMED, resumer.local_cid, b"somebody", choices.chunk())
        resumer.on_message(message, run.now)
        assert resumer.established is None
        return
    shown = choices.damage(sent[0]) if choices.flag() else sent[0]
    if choices.flag():
        shown = changed(shown, choices)
    before = resumer.established
    try:
        message = message_of(shown)
    except (ChecksumError, HandshakeError, AssertionError):
        return
    resumer.on_message(message, run.now)
    if resumer.established is not before:
        assert shown == sent[0], "only what the responder has sealed opens"
        assert resumer.established is not None
        assert resumer.established.peer_node_id == THEIRS.node_id
        assert resumer.established.peer_parameters.early_data_taken == len(run.early[index])
    elif shown == sent[0] and before is None:
        assert resumer._tried, "a good one is tried"


def tick(run: Run, choices: Choices) -> None:
    """A dial is driven on."""
    if run.resumes:
        resumer = choices.pick(run.resumes)[0]
        at = min(resumer.deadline, run.now + 20.0)
        resumer.tick(at)
        assert len(resumer.take(at)) <= 8


def parse(run: Run, choices: Choices) -> None:
    """The bodies of both messages: the same bytes when encoded again, or the documented error."""
    body = choices.chunk()
    for cls in (Resume, Resumed):
        try:
            decoded = cls.decode_untrusted(body)
        except HandshakeError:
            continue
        encoded = decoded.encode()
        assert body.startswith(encoded)
        assert not any(body[len(encoded) :])


STEPS = (wait, give, take_back, show, dial, resume, answer, tick, parse, dial, resume, answer)


# -- what they share -----------------------------------------------------------------------------------------------


def message_of(datagram: bytes) -> Message:
    message = decode_datagram_untrusted(datagram)
    assert isinstance(message, Message)
    return message


def changed(datagram: bytes, choices: Choices) -> bytes:
    """The same message with another body, and the check that fits."""
    try:
        message = message_of(datagram)
    except (ChecksumError, HandshakeError, AssertionError):
        return datagram
    if message.type not in (MessageType.RESUME, MessageType.RESUMED):
        return datagram
    body = choices.damage(message.body)[:1100]
    padded = 1200 if message.type is MessageType.RESUME and choices.flag() else 0
    return encode_datagram(message._replace(body=body), padded)


def same_core(datagram: bytes, genuine: bytes) -> bool:
    """Whether two RESUMEs differ in nothing but cookie and padding."""
    one, other = message_of(datagram), message_of(genuine)
    ours, theirs = Resume.decode_untrusted(one.body), Resume.decode_untrusted(other.body)
    return one.prefix == other.prefix and ours.core() == theirs.core()


def check_outcome(outcome: Outcome, size: int) -> None:
    """No answer amplifies."""
    if isinstance(outcome, Reply):
        assert sum(map(len, outcome.datagrams)) < size


if __name__ == "__main__":
    main(fuzz_one)
