"""The side that is dialled: one policy for all handshakes of an endpoint (4.3).

An attacker pays little for a HELLO and we pay much for an answer, so everything is asked in order of what the question
costs (H-19): size, form, a look into a table, a cookie, limits. Only a HELLO that has passed all of them makes the
endpoint compute keys, and then it becomes a `HalfOpen`.

Nothing here sends, stores callbacks or knows a socket. What a message leads to is returned, as one of the values of
`Outcome`; what time leads to, by `expire`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Container, Iterable
from math import inf

from attrs import evolve

from stt_proto.config import Limits
from stt_proto.crypto import Kem, Secret, channel_identifier
from stt_proto.errors import ConnectionRefusedError, EncryptionError, HandshakeError
from stt_proto.handshake.cookies import COOKIE_KEY_SIZE, CookieJar
from stt_proto.handshake.guesses import GuessMeter
from stt_proto.handshake.half_open import HalfOpen
from stt_proto.handshake.outcomes import Accepted, Challenged, Dropped, Ended, Offered, Outcome, Reason, Reply, Terms
from stt_proto.handshake.resumer import REFUSAL_CODES
from stt_proto.handshake.resumption import VERSION as RESUMED_VERSION
from stt_proto.handshake.resumption import Resuming
from stt_proto.handshake.schedule import hello_hash
from stt_proto.handshake.tickets import TicketOffice
from stt_proto.handshake.waiting import Answerer, Caller, Offer, Waiting
from stt_proto.identity import Identity
from stt_proto.tickets import TicketRefusal
from stt_proto.types import NetworkPath, Source, source_of
from stt_proto.wire import (
    Hello,
    Message,
    MessageType,
    Refused,
    Resume,
    Retry,
    VersionList,
    decode_parameters_untrusted,
    encode_datagram,
)

LEAST_HELLO = 1200
"""Bytes of the smallest datagram that a HELLO may come in where addresses can be forged (W-4)."""

REPLY_WINDOW = 0.1
"""Seconds in which RETRY, REFUSED and VERSION are limited, each by itself (H-28)."""

UNFINISHED_WINDOW = 10.0
"""Seconds in which handshakes that ended unfinished are counted (H-21)."""

LEAST_PLACE = 1.0
"""Seconds for which nobody who has shown his address is pushed out: an honest initiator has answered by then (H-21)."""

EXPANDED_KEYS = 8
"""The newest half-open handshakes keep their KEM key expanded, so that without a crowd it is expanded only once."""

_CODES = {reason: code for code, reason in REFUSAL_CODES.items()}
_REPLIES = (MessageType.RETRY, MessageType.REFUSED, MessageType.VERSION)

_HelloKey = tuple[NetworkPath, bytes]


# -- the responder -------------------------------------------------------------------------------------------------


class Responder(Secret):
    """All half-open handshakes of an endpoint, and the rules by which there come more."""

    __slots__ = (
        "_answerer",
        "_by_cid",
        "_by_hello",
        "_by_ticket",
        "_cookies",
        "_entropy",
        "_expanded",
        "_finished",
        "_guesses",
        "_limits",
        "_places",
        "_replies",
        "_suites",
        "_tickets",
        "_timeout",
        "_unfinished",
        "_unproven",
        "_versions",
    )

    def __init__(
        self,
        *,
        identity: Identity,
        shared_seed: bytes,
        application: str,
        versions: Iterable[int],
        suites: Iterable[int],
        kem: Kem,
        entropy: Callable[[int], bytes],
        limits: Limits,
        tickets: TicketOffice | None = None,
        allow_self: bool = False,
        handshake_timeout: float = 10.0,
    ) -> None:
        """Begin without any handshake; draws the key of the cookies.

        Args:
            identity: who we are.
            shared_seed: PRS of CPace.
            application: the name that both sides must share.
            versions: spoken.
            suites: spoken.
            kem: the key encapsulation.
            entropy: gives random bytes.
            limits: of the endpoint.
            tickets: judges those that come back; without it none is any good.
            allow_self: whether a peer may be ourselves.
            handshake_timeout: seconds.
        """
        self._answerer = Answerer(
            identity=identity,
            shared_seed=shared_seed,
            channel=channel_identifier(application.encode()),
            kem=kem,
            allow_self=allow_self,
            challenge_repeats=limits.challenge_repeats,
            held_packets=limits.held_packets,
            held_bytes=limits.held_bytes,
        )
        self._versions = tuple(versions)
        self._suites = tuple(suites)
        self._entropy = entropy
        self._limits = limits
        self._timeout = handshake_timeout
        self._cookies = CookieJar(entropy(COOKIE_KEY_SIZE))
        self._guesses = GuessMeter(
            without_cookie=limits.failed_guesses_without_cookie,
            burst=limits.failed_guesses_burst,
            per_second=limits.failed_guesses_per_second,
            sources=limits.sources,
        )
        self._tickets = tickets
        self._by_cid: OrderedDict[bytes, Waiting] = OrderedDict()  # by age, as all live equally long
        self._unproven: OrderedDict[bytes, Waiting] = OrderedDict()  # those of them without a cookie
        self._places: dict[Source, int] = {}  # how many of them each source has that has shown itself
        self._expanded: OrderedDict[bytes, HalfOpen] = OrderedDict()  # the newest of them
        self._by_hello: dict[_HelloKey, Waiting | None] = {}  # `None`: has ended well
        self._by_ticket: dict[bytes, Resuming] = {}
        self._finished: deque[tuple[float, _HelloKey]] = deque()  # until when that is remembered
        self._unfinished = _Recent(limits.unfinished_without_cookie, UNFINISHED_WINDOW)
        self._replies = {kind: _Recent(limits.unsolicited_replies, REPLY_WINDOW) for kind in _REPLIES}

    def __len__(self) -> int:
        """How many handshakes are half-open."""
        return len(self._by_cid)

    def get(self, local_cid: bytes) -> Waiting | None:
        """The half-open handshake with this connection ID of ours, to hold a packet for it."""
        return self._by_cid.get(local_cid)

    @property
    def deadline(self) -> float:
        """When `expire` wants to be called; `inf` when never."""
        return next(iter(self._by_cid.values())).deadline if self._by_cid else inf

    # -- in --------------------------------------------------------------------------------------------------------

    def on_message(
        self,
        message: Message,
        path: NetworkPath,
        now: float,
        *,
        terms: Terms,
        size: int,
        issue: Callable[[], bytes],
        refusal: int | None = None,
        live_keys: Container[bytes] = (),
    ) -> Outcome:
        """Take in a message that arrived undamaged.

        Args:
            message: a HELLO or RESUME, or one that names a connection ID of a half-open handshake.
            path: where it came from.
            now: seconds.
            terms: of the path's carrier.
            size: bytes of the datagram it came in.
            issue: gives a connection ID of ours; called only when all that is cheap has been checked.
            refusal: the code for which no HELLO is accepted at the moment (H-28), or `None`.
            live_keys: the ephemeral keys of our own live dials (H-27).
        """
        if message.type is MessageType.HELLO:
            return self._on_hello(message, path, now, terms, size, issue, refusal, live_keys)
        if message.type is MessageType.RESUME:
            return self._on_resume(message, path, now, terms, size, refusal)
        half_open = self._by_cid.get(message.dcid)
        if half_open is None or path not in half_open.paths:
            return Dropped(Reason.UNKNOWN)
        if not isinstance(half_open, HalfOpen):
            return Dropped(Reason.UNEXPECTED)
        if message.type is MessageType.AUTH_PROOF:
            return self._on_auth_proof(half_open, message, now)
        if message.type is not MessageType.ABORT:
            return Dropped(Reason.UNEXPECTED)
        if not half_open.on_abort(message):
            return Dropped(Reason.SHUT)
        return self._end(half_open, "auth_failure", now)

    def expire(self, now: float) -> list[Ended]:
        """End the handshakes whose time is over."""
        ended = []
        while self._by_cid:
            oldest = next(iter(self._by_cid.values()))
            if oldest.deadline > now:
                break
            ended.append(self._end(oldest, "timeout", now))
        self._forget_finished(now)
        return ended

    def path_closed(self, path: NetworkPath, now: float) -> list[Ended]:
        """End the handshakes of a carrier that is gone."""
        ended = []
        for half_open in [waiting for waiting in self._by_cid.values() if path in waiting.paths]:
            if half_open.leave(path):
                del self._by_hello[path, half_open.hello_hash]
            else:
                ended.append(self._end(half_open, "timeout", now))
        return ended

    # -- HELLO, in order of cost -----------------------------------------------------------------------------------

    def _on_hello(
        self,
        message: Message,
        path: NetworkPath,
        now: float,
        terms: Terms,
        size: int,
        issue: Callable[[], bytes],
        refusal: int | None,
        live_keys: Container[bytes],
    ) -> Outcome:
        if size < LEAST_HELLO and not terms.reliable:
            return Dropped(Reason.SMALL)
        try:
            hello = Hello.decode_untrusted(message.body)
        except HandshakeError:
            return Dropped(Reason.MALFORMED)
        transcript = message.prefix + hello.core()
        name = hello_hash(transcript)
        if (path, name) in self._by_hello:
            return self._repeat(path, name)
        version = _first_shared(hello.versions, self._versions)
        suite = _first_shared(hello.suites, self._suites)
        if version is None or suite is None:
            body = VersionList(name, self._versions, self._suites).encode()
            return self._unsolicited(MessageType.VERSION, message, body, now)

        source = source_of(path)
        proven = terms.reliable or self._cookies.check(hello.cookie, path, name, now)
        if self._guesses.is_exhausted(source, now):
            return Dropped(Reason.GUESSING)
        unwanted = self._screen(message, name, path, source, proven, refusal, now)
        if unwanted is not None:
            return unwanted
        if hello.e in live_keys and not self._answerer.allow_self:
            return Dropped(Reason.REFLECTED)
        try:
            offer = Offer(
                hello=hello,
                transcript=transcript,
                hello_hash=name,
                scid=message.scid,
                parameters=decode_parameters_untrusted(hello.parameters),
                path=path,
                source=source,
                proven=proven,
                version=version,
                suite=suite,
            )
            half_open = self._begin(offer, terms, now, issue)
        except (HandshakeError, EncryptionError):  # found late: it was as dear as a handshake that comes to nothing
            self._guesses.begin(source, proven, now)
            self._failed(source, proven, now)
            return Dropped(Reason.MALFORMED)
        ended = self._make_room(now)
        self._enter(half_open)
        if len(self._expanded) >= EXPANDED_KEYS:
            self._expanded.popitem(last=False)[1].shrink()
        self._expanded[half_open.local_cid] = half_open
        self._guesses.begin(source, proven, now)
        return Challenged(half_open, ended)

    def _screen(
        self,
        message: Message,
        name: bytes,
        path: NetworkPath,
        source: Source,
        proven: bool,
        refusal: int | None,
        now: float,
    ) -> Outcome | None:
        """What becomes of a first message for which there is no room or no welcome, before anything dear is done."""
        if not proven and (self._is_crowded(now) or self._guesses.needs_cookie(source, now)):
            body = Retry(name, self._cookies.make(path, name, now)).encode()
            return self._unsolicited(MessageType.RETRY, message, body, now)
        if refusal is not None:
            return self._unsolicited(MessageType.REFUSED, message, Refused(name, refusal).encode(), now)
        full = len(self._by_cid) >= self._limits.half_open
        if (full and not (proven and self._in_the_way(now))) or (proven and self._has_its_share(source)):
            return Dropped(Reason.FULL)
        return None

    def _repeat(self, path: NetworkPath, name: bytes) -> Outcome:
        """A HELLO that is known already gets what it got before (H-20)."""
        half_open = self._by_hello[path, name]
        datagrams = half_open.repeat() if half_open else ()
        return Reply(datagrams) if datagrams else Dropped(Reason.REPEATED)

    def _unsolicited(self, kind: MessageType, hello: Message, body: bytes, now: float) -> Outcome:
        """An answer without a handshake behind it; few of them in any tenth of a second (H-28)."""
        replies = self._replies[kind]
        if replies.is_full(now):
            return Dropped(Reason.REPLIES)
        replies.add(now)
        return Reply((encode_datagram(Message(kind, hello.scid, hello.dcid, body)),))

    def _is_crowded(self, now: float) -> bool:
        """Whether there are so many handshakes that new ones need a cookie (H-21)."""
        return len(self._by_cid) > self._limits.half_open_without_cookie or self._unfinished.is_full(now)

    def _has_its_share(self, source: Source) -> bool:
        """Whether a source that has shown itself has as many places as one may have (H-21)."""
        return self._places.get(source, 0) >= self._limits.half_open_per_source

    def _make_room(self, now: float) -> Ended | None:
        """End whoever is in the way of one that `_screen` has let pass."""
        in_the_way = self._in_the_way(now) if len(self._by_cid) >= self._limits.half_open else None
        return None if in_the_way is None else self._end(in_the_way, "timeout", now)

    def _in_the_way(self, now: float) -> Waiting | None:
        """Who makes room in a full table: the oldest without a cookie, or the oldest if it has had its time (H-21)."""
        if self._unproven:
            return next(iter(self._unproven.values()))
        oldest = next(iter(self._by_cid.values()))
        return oldest if now - oldest.began_at > LEAST_PLACE else None

    # -- the table -------------------------------------------------------------------------------------------------

    def _begin(self, offer: Offer, terms: Terms, now: float, issue: Callable[[], bytes]) -> HalfOpen:
        return HalfOpen(
            self._answerer,
            offer,
            terms.parameters,
            terms.max_datagram,
            now=now,
            timeout=self._timeout,
            entropy=self._entropy,
            issue=issue,
        )

    def _enter(self, half_open: Waiting) -> None:
        self._by_cid[half_open.local_cid] = half_open
        self._by_hello[half_open.path, half_open.hello_hash] = half_open
        if half_open.proven:
            self._places[half_open.source] = self._places.get(half_open.source, 0) + 1
        else:
            self._unproven[half_open.local_cid] = half_open

    def _leave(self, half_open: Waiting) -> None:
        del self._by_cid[half_open.local_cid]
        self._expanded.pop(half_open.local_cid, None)
        for path in half_open.paths:
            del self._by_hello[path, half_open.hello_hash]
        if isinstance(half_open, Resuming):
            del self._by_ticket[half_open.grant.ticket_id]
        if not half_open.proven:
            del self._unproven[half_open.local_cid]
            return
        self._places[half_open.source] -= 1
        if not self._places[half_open.source]:
            del self._places[half_open.source]

    def _end(self, half_open: Waiting, reason: str, now: float) -> Ended:
        """It failed: a guess, for all that we know, unless it was a resumption."""
        self._leave(half_open)
        if isinstance(half_open, Resuming):
            self._unfinished.add(now)
        else:
            self._failed(half_open.source, half_open.proven, now)
        return Ended(half_open, reason)

    def _failed(self, source: Source, proven: bool, now: float) -> None:
        """Count an answer, given or begun, that nothing came of."""
        self._guesses.fail(source, proven, now)
        self._unfinished.add(now)

    def _on_auth_proof(self, half_open: HalfOpen, message: Message, now: float) -> Outcome:
        established = half_open.on_auth_proof(message, now)
        if established is None:
            return Dropped(Reason.SHUT)
        self._leave(half_open)
        self._guesses.succeed(half_open.source, half_open.proven, now)
        self._remember_finished((half_open.path, half_open.hello_hash), now)
        return Accepted(established, half_open, tuple(half_open.held))

    # -- RESUME, in order of cost ----------------------------------------------------------------------------------

    @property
    def _office(self) -> TicketOffice:
        assert self._tickets is not None
        return self._tickets

    def _on_resume(
        self, message: Message, path: NetworkPath, now: float, terms: Terms, size: int, refusal: int | None
    ) -> Outcome:
        if size < LEAST_HELLO and not terms.reliable:
            return Dropped(Reason.SMALL)
        try:
            resume = Resume.decode_untrusted(message.body)
        except HandshakeError:
            return Dropped(Reason.MALFORMED)
        name = hello_hash(message.prefix + resume.core())
        if (path, name) in self._by_hello:
            return self._repeat(path, name)
        source = source_of(path)
        proven = terms.reliable or self._cookies.check(resume.cookie, path, name, now)
        if self._guesses.is_exhausted(source, now):
            return Dropped(Reason.GUESSING)
        unwanted = self._screen(message, name, path, source, proven, refusal, now)
        if unwanted is not None:
            return unwanted
        if self._tickets is None or resume.version not in self._versions or resume.version != RESUMED_VERSION:
            return self._refuse_ticket(TicketRefusal.UNKNOWN, message, name, now)
        grant = self._tickets.examine(resume.ticket, now)
        if isinstance(grant, TicketRefusal):
            return self._refuse_ticket(grant, message, name, now)
        waiting = self._by_ticket.get(grant.ticket_id)
        if waiting is not None and waiting.hello_hash == name and waiting.join(path):
            self._by_hello[path, name] = waiting
            return Reply(waiting.datagrams) if waiting.datagrams else Dropped(Reason.REPEATED)
        reason = self._tickets.check_use(grant, now)
        if reason is not None:
            return self._refuse_ticket(reason, message, name, now)
        caller = Caller(hello_hash=name, scid=message.scid, path=path, source=source, proven=proven)
        try:
            resuming = Resuming(self._answerer, caller, resume, message, grant, now=now, timeout=self._timeout)
        except (EncryptionError, HandshakeError):  # not who it was given to: as dear as a HELLO found bad so late
            self._guesses.begin(source, proven, now)
            self._failed(source, proven, now)
            return Dropped(Reason.SHUT)
        return Offered(resuming)

    def _refuse_ticket(self, reason: TicketRefusal, message: Message, name: bytes, now: float) -> Outcome:
        code = _CODES.get(reason, ConnectionRefusedError.code)
        return self._unsolicited(MessageType.REFUSED, message, Refused(name, code).encode(), now)

    def enter(self, resuming: Resuming, now: float, issue: Callable[[], bytes]) -> Ended | None:
        """Take in a resumption that was offered: its ticket is used from now on.

        Args:
            resuming: which.
            now: seconds.
            issue: gives a connection ID of ours.

        Returns:
            The handshake that had to make room, if any.
        """
        ended = self._make_room(now)
        resuming.local_cid = issue()
        self._enter(resuming)
        self._by_ticket[resuming.grant.ticket_id] = resuming
        self._office.use(resuming.grant, now)
        return ended

    def answer(self, resuming: Resuming, terms: Terms, *, take_early: bool = False, reset_token: bytes = b"") -> Reply:
        """Answer a resumption that was entered; see `Resuming.answer`."""
        size, entropy = terms.max_datagram, self._entropy
        return Reply(resuming.answer(terms.parameters, size, entropy, take_early=take_early, reset_token=reset_token))

    def withdraw(self, resuming: Resuming, now: float) -> Ended:
        """End a resumption that was entered and will not be answered; its ticket stays used."""
        return self._end(resuming, "refused", now)

    def refuse(self, resuming: Resuming, code: int, now: float) -> Outcome:
        """Say that a resumption is not wanted."""
        resume = Message(MessageType.RESUME, resuming.peer_dcid, resuming.peer_cid, b"")
        return self._unsolicited(MessageType.REFUSED, resume, Refused(resuming.hello_hash, code).encode(), now)

    def confirm(self, resuming: Resuming, path: NetworkPath, now: float) -> Accepted:
        """A packet has opened under the keys of a resumption: it is no repetition of what somebody overheard.

        Args:
            resuming: which.
            path: where that packet came from, one of its paths.
            now: seconds.
        """
        self._leave(resuming)
        for known in resuming.paths:
            self._remember_finished((known, resuming.hello_hash), now)
        assert resuming.established is not None
        established = evolve(resuming.established, rtt=resuming.round_trip(now))
        return Accepted(established, resuming, tuple(resuming.held), self._end_beside(resuming, path, now))

    def _end_beside(self, resuming: Resuming, path: NetworkPath, now: float) -> HalfOpen | None:
        """End the full handshake that the same dial began when it had lost patience: nothing comes of it, and no guess
        was made (H-37). One at most: whoever may resume has no more guesses for that than he has tickets.
        """
        for waiting in self._by_cid.values():
            if isinstance(waiting, HalfOpen) and waiting.path == path and waiting.peer_cid == resuming.peer_cid:
                self._leave(waiting)
                self._guesses.succeed(waiting.source, waiting.proven, now)
                return waiting
        return None

    # -- the handshakes that have ended well -----------------------------------------------------------------------

    def _remember_finished(self, key: _HelloKey, now: float) -> None:
        """Know a HELLO for a while after its handshake has ended well, so that a late copy begins no other."""
        self._forget_finished(now)
        if len(self._finished) >= self._limits.half_open:
            del self._by_hello[self._finished.popleft()[1]]
        self._by_hello[key] = None
        self._finished.append((now + self._timeout, key))

    def _forget_finished(self, now: float) -> None:
        finished = self._finished
        while finished and finished[0][0] <= now:
            del self._by_hello[finished.popleft()[1]]


class _Recent:
    """How often something happened within so many seconds, as far as `limit`."""

    __slots__ = ("_limit", "_seconds", "_times")

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds
        self._times: deque[float] = deque(maxlen=limit)

    def is_full(self, now: float) -> bool:
        times = self._times
        return len(times) == self._limit and (not times or now - times[0] < self._seconds)

    def add(self, now: float) -> None:
        self._times.append(now)


def _first_shared(offered: Iterable[int], ours: Container[int]) -> int | None:
    """The one that the initiator prefers of those that we have too."""
    return next((number for number in offered if number in ours), None)
