"""Programs for the targets that read their input as one (see `harness.Choices`): seeds with which a run begins in the
middle of things, with handshakes that succeed and sessions that work. `seeds` writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from fuzz import fuzz_endpoint, fuzz_header, fuzz_initiator, fuzz_records, fuzz_responder, fuzz_session, fuzz_tickets
from fuzz.genuine import FRAMES
from fuzz.harness import Choices, Part, Seeds, packed, program
from stt_proto.types import CloseReason
from stt_proto.wire import (
    Frame,
    NewConnectionId,
    Ping,
    RetireConnectionId,
    SessionClose,
    Stream,
)

__all__ = ["endpoint", "header", "initiator", "records", "responder", "session", "tickets", "tokens"]


def step(steps: Sequence[Callable[..., object]], which: Callable[..., object], *parts: Part) -> bytes:
    """One step of a target: its number, then what it reads."""
    return program(steps.index(which), *parts)


def header() -> Seeds:
    """Packets and trains, in order, reversed, damaged, with holes."""
    target = fuzz_header
    seeds = {}

    def seal(plain: bytes, size: int, version: int = 0) -> bytes:
        return program(0, version, 1, 0, packed(plain), 0, target.SIZES.index(size))

    def receive(*picks: int, how: int = 8, extra: bytes = b"") -> bytes:
        return program(3, 1, len(picks) - 1, bytes(picks), how, extra)

    everything = program(3, 0, 8), program(3, 0, 0x88, 0, 64), program(3, 0, 0x88, 40 >> 8, 40)
    for suite in (0, 1):
        for name, all_of_it in zip(("one-by-one", "run-of-64", "run-of-40"), everything, strict=True):
            seeds[f"{suite}-packets-{name}"] = program(
                suite, seal(b"plain", 64), seal(b"x" * 33, 64), all_of_it, all_of_it
            )
            train = program(suite, seal(b"y" * 100, 64), all_of_it, receive(0, 1, 2), all_of_it)
            seeds[f"{suite}-train-{name}"] = train
            seeds[f"{suite}-train-of-40-{name}"] = program(suite, seal(b"y" * 100, 40), all_of_it)
    seeds["reversed"] = program(0, seal(b"z" * 120, 64), receive(2, 1, 0))
    seeds["hole"] = program(0, seal(b"z" * 120, 64), receive(0, 1), 7, 2, receive(2, 2, 0, 1))
    seeds["damaged"] = program(
        0, seal(b"z" * 120, 64), receive(0, 1, 2, how=9, extra=program(1, 0, 0, 20, 3)), receive(1)
    )
    seeds["strange"] = program(0, seal(b"z" * 20, 64), receive(0, 0, how=10, extra=b"\1"), receive(0))
    large = program(0, 0, 1, 0, packed(b"large" * 150), 61, target.SIZES.index(1200)), program(3, 0, 9, 1, 0, 0, 200, 1)
    seeds["large-trains"] = program(0, *large * 4)
    seeds["no-train"] = program(0, seal(b"z" * 120, 64), receive(0, 1, 2, how=0))
    seeds["marked"] = program(0, seal(b"z" * 120, 64), receive(0, 1, 2, how=0x68))
    seeds["other-path"] = program(0, seal(b"z" * 120, 64), receive(0, 1, how=8), receive(2, how=12))
    seeds["four-trains"] = program(0, *(seal(b"%d" % number * 120, 64) for number in range(5)), receive(0, 3, 6, 9, 12))
    for version in (1, 2, 5):
        seeds[f"version-{version}"] = program(1, 9, version, 1, seal(b"v", 64, version % 3), receive(0), 9, version, 0)
    for pick, far in enumerate(target.FAR):
        sealed = program(0, 0, 0, pick, packed(b"far"), 0, 3)
        seeds[f"far-{far}"] = program(0, seal(b"near", 64), receive(0), sealed, receive(1), receive(0))
    seeds["made-up"] = program(0, 6, 1, 0x60, 0, packed(b"\0\0\0\0\0\3" + b"p" * 30), 0x40, 1, packed(b"q" * 40), 3)
    seeds["numbers"] = program(0, 8, b"\xc0\0\0\1\0\0\0\0", b"\x80\0\0\0", 8, 0, b"\xbf\xff\xff\xff")
    return seeds


def records() -> Seeds:
    """Records taken back as they were, damaged, resealed, and at the wrong time."""

    def kept(name: bytes, state: int = 0, age: int = 0, extended: int = 0, ttl: int = 2, sliding: int = 1) -> bytes:
        return program(state, age, name.ljust(2, b"_"), b"p", 1, extended, ttl, sliding, b"xy", 50)

    def read(how: int, record: bytes, damage: Part, later: int = 0, swept: int = 0) -> bytes:
        return program(how, record, damage, later, swept)

    same = program(2, 0, 0, 0)  # of `Choices.damage`: nothing is put in between
    seeds = {
        "as-it-was": read(2, kept(b"a"), same),
        "five-of-them": b"".join(read(2, kept(bytes((name,))), same) for name in b"abcda"),
        "over": read(2, kept(b"a", state=2), same) + read(2, kept(b"b", age=3), same),
        "extended": read(2, kept(b"a", age=2, extended=1, ttl=0), same) + read(2, kept(b"b", age=1, extended=1), same),
        "from-the-future": read(2, kept(b"a", age=4), same, 3, 1) + read(2, kept(b"a", age=4), same, 4, 1),
        "expires": read(2, kept(b"a", ttl=1), same, 1) + read(2, kept(b"b", ttl=0), same, 2, 1),
        "no-record": program(0, packed(b"SR"), 0, 0, 0, packed(b""), 0, 0, 1, packed(b"\0" * 80), 0, 0),
    }
    for kind in range(6):
        for at in (0, 5, 45, 60, 80, 110, 150):
            damage = program(kind, 0, at, 3, b"\x01\xff\x7f", 0)
            seeds[f"damaged-{kind}-{at}"] = read(2, kept(b"a"), damage)
            seeds[f"resealed-{kind}-{at}"] = read(3, kept(b"a"), damage)
    body = fuzz_records.genuine(Choices(kept(b"a"))).to_bytes()[len(fuzz_records.MAGIC) : -8]
    forged = {
        "longer": body + b"\0",
        "shorter": body[:-1],
        "strange-state": body[:40] + b"\3" + body[41:],
        "strange-reason": body[:41] + b"\x63" + body[42:],
        "no-time": body[:42] + b"\x7f\xf8" + body[44:],
        "endless": body[:58] + b"\x7f\xf0" + bytes(6) + body[66:],
        "ages-ago": body[:42] + b"\xff\xef" + b"\xff" * 14 + body[58:],
        "for-ever": body[:58] + b"\x7f\xef" + b"\xff" * 6 + body[66:],
    }
    for name, data in forged.items():
        seeds[f"forged-{name}"] = program(1, packed(data), 1, 1) + read(2, kept(b"b"), same, 4, 1)
    return seeds


def tickets() -> Seeds:
    """Tickets given, shown, taken up; copies, damage, time."""
    target, seeds = fuzz_tickets, {}
    steps = target.STEPS

    def give(suite: int = 0, who: int = 0) -> bytes:
        return step(steps, target.give, suite, who)

    def dial(which: int = 0, how: int = 0, early: bytes = b"", most: int = 0) -> bytes:
        return step(steps, target.dial, which, how, *((1, packed(early)) if early else (0,)), most)

    def resume(which: int = 0, how: int = 0, *more: Part, host: int = 0) -> bytes:
        return step(steps, target.resume, which, how, *more, host)

    def answer(which: int = 0, *more: Part) -> bytes:
        return step(steps, target.answer, which, *(more or (0, 0)))

    def wait(index: int, *more: Part) -> bytes:
        return step(steps, target.wait, index, *(more or (0,)))

    for fleet in (0, 1):
        for suite in (0, 1):
            seeds[f"way-through-{fleet}-{suite}"] = program(fleet, give(suite, suite), dial(), resume(), answer())
        for how in (1, 2):
            seeds[f"thief-{fleet}-{how}"] = program(fleet, give(), dial(0, how), resume(), answer(0, packed(bytes(64))))
    seeds["damaged-ticket"] = program(0, give(), step(steps, target.dial, 0, 3, 0, 30, 3, 0, 0), resume())
    seeds["damaged-on-the-way"] = program(
        0, give(), dial(), resume(0, 1, 0, 60, 3), resume(), answer(0, 1, 0, 40, 1, 0)
    )
    seeds["changed-on-the-way"] = program(
        0, give(), dial(), resume(0, 2, 0, 200, 3, 1), resume(), answer(0, 0, 1, 0, 60)
    )
    seeds["copies"] = program(0, give(), dial(), *(resume(host=host) for host in (0, 1, 2, 0)), answer(), answer())
    for most, size in enumerate((5, 40, 768)):
        early = dial(early=b"e" * size, most=most)
        seeds[f"early-{size}"] = program(most & 1, give(), early, resume(), resume(host=1), answer())
    seeds["used"] = program(0, give(), dial(), dial(), resume(), resume(1), answer(), answer(1, packed(b"")))
    seeds["used-and-confirmed"] = program(0, give(), give(), dial(0), dial(1), resume(1), resume(1, host=1), answer(1))
    seeds["expired"] = program(0, give(), dial(), wait(6), resume())
    seeds["clock-set-back"] = program(
        0, give(), dial(), resume(), wait(6, 7, 0, 0), dial(), resume(1), wait(0, 7, 1, 0)
    )
    seeds["many"] = program(1, *(give() for _ in range(8)), *(dial(number) + resume(number) for number in range(8)))
    seeds["ring"] = program(0, give(), wait(5), give(), wait(5), give(), dial(0), dial(1), resume(), resume(1))
    seeds["doubt"] = program(0, give(), dial(), *(step(steps, target.tick, 0) for _ in range(6)), resume(), answer())
    seeds["kept"] = program(
        0, give(), *(step(steps, target.take_back, 0, how, at) for how in range(6) for at in (3, 90))
    )
    seeds["shown"] = program(0, give(), *(step(steps, target.show, 1, 0, 1, how, 20) for how in range(6)))
    resume_body = b"\1\0\6ticket" + b"e" * 32 + b"\0\x10" + b"p" * 16 + b"\0"
    seeds["bodies"] = program(
        0, step(steps, target.parse, packed(resume_body + bytes(9))), step(steps, target.parse, packed(b"r" * 70))
    )
    return seeds


def tokens() -> Seeds:
    """Cookies shown at once and later; resets sent, expected, given up."""
    seeds = {}
    for host in range(9):
        path = program(host, packed(b"[not an address]") if host == 8 else b"")
        for later in (0, 2, 6) if host < 3 else (1,):
            shown = program(path, b"h" * 16, later, 0, 0, 5, 0, path, b"h" * 16)
            seeds[f"cookie-{host}-{later}"] = program(1, shown, 0, 2, 2, shown)
        elsewhere = program((host + 1) % 8, b"h" * 16)
        seeds[f"cookie-{host}-elsewhere"] = program(1, path, b"h" * 16, 0, 2, 0, 0, 0, elsewhere)
    seeds["cookie-made-up"] = program(3, packed(b"\x00" + b"m" * 16), 0, b"h" * 16)
    seeds["reset"] = program(4, b"connctID", 1, 7, b"connctID", 60, 6, packed(b"\x40" + b"x" * 28), 1, 0)
    seeds["reset-other-owner"] = program(4, b"connctID", 1, 5, b"connctID", 2, 5, b"connctID", 1, 7, b"connctID", 99)
    seeds["reset-many"] = program(
        *(program(7, b"connctID", 43 + number) for number in range(6)), 0, 2, 7, b"connctID", 50
    )
    seeds["reset-train-bit"] = program(4, b"connctID", 1, 6, packed(b"\x60" + b"x" * 28), 1, 0)
    seeds["reset-short"] = program(4, b"connctID", 1, 6, packed(b"\x40" + b"x" * 11), 1, 0)
    return seeds


def responder() -> Seeds:
    """Handshakes in both suites, in all ways to go on."""
    target = fuzz_responder
    do = partial(step, target.STEPS)

    def hello(who: int = 0, path: int = 0, how: int = 0, *more: Part) -> bytes:
        return do(target.say_hello, who, path, how, *more)

    def prove(which: int = 0, how: int = 0, *more: Part) -> bytes:
        return do(target.prove, which, how, *more)

    def wait(index: int) -> bytes:
        return do(target.wait, index)

    seeds = {}
    for who in range(target.CALLERS):
        for path in (0, 2, 4):
            seeds[f"handshake-{who}-{path}"] = program(hello(who, path), prove())
    for change in target.Change:
        seeds[f"proof-{change.name.lower()}"] = program(hello(), prove(0, change.value, 0, 0, 9, 3), prove())
    for field in range(8):
        changed = program(field, packed(b"\1\2\3"), 1, 2, packed(b"c"))
        seeds[f"hello-{field}"] = program(hello(1, 0, 2, changed), prove(), hello(1))
    seeds["elsewhere"] = program(hello(), prove(0, 0x18, 1), prove())
    seeds["cookies"] = program(
        *(hello(who, 0) for who in (0, 1, 2, 3)), *(hello(who, 0, 1) for who in range(4)), prove(3)
    )
    seeds["forgotten"] = program(hello(), wait(5), prove(), hello(), prove(1))
    seeds["repeated"] = program(hello(), hello(), hello(), hello(), hello(), prove(), hello(), prove())
    seeds["full"] = program(
        *(program(hello(who, path), prove(who)) for who, path in enumerate((0, 1, 2, 4))), hello(0, 3), prove(4)
    )
    seeds["pieces"] = program(hello(0, 4, 16, 1, 0), prove())
    seeds["abort"] = program(hello(), do(target.abort, 0, 0, 1, 3, 0), hello())
    seeds["abort-damaged"] = program(hello(), do(target.abort, 0, 0, 1, 3, 1, 0, 0, 4, 1), prove())
    seeds["held"] = program(hello(), *(do(target.packet, 0, 1, 3, packed(b"p" * 40), 0) for _ in range(5)), prove())
    seeds["refused"] = program(do(target.change_terms, 1, 0), hello(), prove())
    others = (hello(0, 4, 2, 4, bytes((number,)) * 16) for number in range(12))
    seeds["crowd"] = program(*others, prove(0), prove(7))
    seeds["path-closed"] = program(hello(), do(target.change_terms, 0, 0), prove(), hello(), prove(1))
    seeds["replayed"] = program(hello(), prove(), do(target.repeat, 0, 0), do(target.repeat, 1, 0))
    seeds["damaged"] = program(hello(), do(target.repeat, 0, 1, 0, 0, 99, 2), do(target.repeat, 0, 3, 0, 0, 99, 2))
    seeds["other"] = program(
        hello(), *(do(target.other_message, 0, 0, kind, packed(b"b" * 60), 4, 0, 0) for kind in range(7))
    )
    return seeds


def initiator() -> Seeds:
    """Dials that succeed, that are misled, and that fail in every way."""
    target = fuzz_initiator
    do = partial(step, target.STEPS)

    def challenge(how: int = 0, *more: Part) -> bytes:
        return do(target.challenge, 0, how, *more)

    def hint(how: int, *more: Part) -> bytes:
        return do(target.hint, 0, how, *more)

    def wait(index: int) -> bytes:
        return do(target.wait, index)

    seeds = {}
    for path in range(3):
        for suite in (0, 1):
            seeds[f"dial-{path}-{suite}"] = program(path, 0, challenge(0, suite, b"s"), wait(3), wait(6))
    for change in target.Change:
        seeds[f"challenge-{change.name.lower()}"] = program(
            0, 0, challenge(change.value, 1, 2, b"s", 1), challenge(0, 1, b"t")
        )
    for pinned in (2, 3):
        seeds[f"pinned-{pinned}"] = program(0, pinned, challenge(0, 0, b"s"), challenge(0, 1, b"t"))
    wrong = target.Change.SEED.value
    seeds["four-guesses"] = program(
        0, 0, *(challenge(wrong, 0, bytes((65 + number,))) for number in range(4)), challenge()
    )
    seeds["grace"] = program(0, 0, challenge(wrong, 0, b"a"), wait(3), challenge(0, 0, b"s"), wait(6))
    seeds["grace-over"] = program(0, 0, challenge(wrong, 0, b"a"), wait(3), wait(4), wait(5))
    seeds["pieces"] = program(0, 0, challenge(0xC0, 2, 0, 0, b"s"))
    lists = packed(b"c"), 1, 2, packed(b"\2"), packed(b"\3"), b"a" * 18
    for kind in range(4):
        seeds[f"hint-{kind}"] = program(0, 0, hint(0, *lists, kind), wait(4), challenge(0, 0, b"s"))
        seeds[f"hint-{kind}-over"] = program(0, 0, hint(0, *lists, kind), wait(5), wait(5))
        seeds[f"hint-{kind}-wrong"] = program(0, 0, hint(7, 1, 0, 3, packed(b"x"), *lists, kind), wait(5))
    seeds["replayed"] = program(0, 0, challenge(0, 0, b"s"), do(target.repeat, 0, 0), do(target.repeat, 1, 0))
    seeds["damaged"] = program(
        0, 0, challenge(wrong, 0, b"a"), do(target.repeat, 0, 3, 0, 0, 60, 1), challenge(0, 0, b"s")
    )
    seeds["dials"] = program(0, 0, do(target.begin_dial, 1, 0), do(target.begin_dial, 2, 0), challenge(0, 0, b"s"))
    forged = do(target.repeat, 0, 7, 0, 0, 0, 100, 1)
    seeds["forged-piece"] = program(0, 0, challenge(0x30, 1, 0, b"s"), forged, challenge(0, 0, b"s"))
    for how in range(3):
        seeds[f"given-up-{how}"] = program(0, 0, challenge(0, 0, b"s"), do(target.end_dial, 0, how), wait(5))
    return seeds


_in_session = partial(step, fuzz_session.STEPS)
_listen, _acknowledge = _in_session(fuzz_session.listen), _in_session(fuzz_session.acknowledge)


def _frames(*made: bytes) -> bytes:
    """A packet with frames that the target makes."""
    return _in_session(fuzz_session.send_frames, len(made) - 1, *made)


def _plain(*frames: Frame) -> bytes:
    """A packet with these frames."""
    return _in_session(fuzz_session.send_plain, packed(b"".join(frame.encode() for frame in frames)))


def _use(what: int, *parts: Part, stream: int = 0) -> bytes:
    """The application does something, once there are streams."""
    return _in_session(fuzz_session.use, stream, what, *parts)


def _begin(what: int, *parts: Part) -> bytes:
    """The application does something before there are any."""
    return _in_session(fuzz_session.use, what, *parts)


def _wait(index: int) -> bytes:
    return _in_session(fuzz_session.wait, index)


def _size(count: int) -> bytes:
    return count.to_bytes(2)


_OPEN = _begin(0, 0, 1)
_READ = _use(13, _size(4000))


def session() -> Seeds:
    """Sessions of both roles and suites in which everything happens that a peer or an application can do."""
    return {**_transfers(), **_every_frame(), **_packets(), **_endings()}


def _transfers() -> Seeds:
    """Streams both ways, in order and with gaps, alone and together, and datagrams."""
    seeds = {}
    roles = {"accepted-1": 0, "dialled-1": 1, "accepted-2": 2, "dialled-2": 3, "memory": 12, "waiting": 0xC1}
    for name, how in roles.items():
        piece, end = (_frames(program(0, 4 if how & 1 == 0 else 5, fin, _size(900))) for fin in (0, 0x8C))
        upload = piece, piece, _listen, _use(13, _size(1000)), _READ, piece, end, _use(13, _size(4999))
        finish = _listen, _acknowledge, _use(9), _listen, _acknowledge
        seeds[f"{name}-upload"] = program(how, *upload, *finish)
        download = _OPEN, _use(7, _size(7000)), _listen, _acknowledge, *finish, _wait(5)
        seeds[f"{name}-download"] = program(how, *download)
        seeds[f"{name}-frames"] = program(how, _plain(*FRAMES[:10]), _listen, _acknowledge, _wait(3), _wait(4))
    gap = _frames(program(0, 4, 1, _size(40), 0x40 | 20), program(0, 4, 1, _size(30), 36))
    seeds["gaps"] = program(0, gap * 6, _frames(program(0, 4, 2, _size(900), 0)), _listen, _READ)
    seeds["many-gaps"] = program(0, *(_plain(Stream(4, 3 * number, b"x")) for number in range(1, 20)))
    many = (_frames(program(0, stream, 0, _size(1000))) for stream in (4, 8, 12, 16) for _ in range(4))
    seeds["more-than-allowed"] = program(0, *many)
    two = (_plain(Stream(stream, 3 * number, b"x")) for number in range(1, 15) for stream in (4, 8))
    seeds["gaps-of-two"] = program(0, *two)
    mixed = (_frames(program(0, 4, 2, _size(700), pick), program(0, 8, 0, _size(300))) for pick in (1, 0, 1, 0))
    seeds["two-streams"] = program(0, *mixed, _listen, _READ, _use(13, _size(4000), stream=1), _listen, _wait(4))
    writers = (_OPEN, _use(6, _size(3000)), _use(0, 0, 1), _use(6, _size(3000), stream=1), _use(0, 0, 0))
    answers = _listen, _wait(3), _acknowledge, _listen, _wait(4), _listen, _acknowledge, _wait(5)
    seeds["two-writers"] = program(0, *writers, *answers)
    lossy = _OPEN, _use(6, _size(7000)), _listen, _frames(program(5, 8, 0, 2)), _wait(4), _wait(4)
    seeds["lossy"] = program(1, *lossy, _listen, _acknowledge)
    datagrams = _begin(2, _size(500)) * 6, _listen, _frames(program(30, _size(90))) * 6, _begin(3)
    seeds["datagrams"] = program(0, *datagrams)
    return seeds


def _every_frame() -> Seeds:
    """Each frame, as it should be and as the target makes it, while a stream is open."""
    seeds = {}
    busy = _OPEN, _use(6, _size(900)), _listen
    for number, frame in enumerate(FRAMES):
        seeds[f"frame-{number:02}"] = program(number & 3, *busy, _plain(frame), _listen, _wait(3))
    for kind in range(32):
        made = program(kind, b"\1\2\3\4\5\6\7\x08\x09")
        seeds[f"made-{kind:02}"] = program(kind & 3, *busy, _frames(made), _wait(4))
    seeds["flood"] = program(0, _plain(*(Ping(),) * 12) * 5)
    ids = [NewConnectionId(number, number, bytes((number,)) * 8, b"t" * 16) for number in range(1, 80)]
    seeds["new-ids"] = program(0, *(_plain(*ids[start : start + 20]) for start in range(0, 80, 20)))
    seeds["resets"] = program(0, _OPEN, _use(10, 7), _listen, _wait(4), _acknowledge, _use(11, 7), _listen)
    return seeds


def _packets() -> Seeds:
    """Trains, numbers out of order, repetitions, damage, junk, connection IDs that are retired."""
    target, do = fuzz_session, _in_session
    seeds = {}
    for how in range(16):
        train = do(target.send_train, 1, 1, program(30, _size(800)), program(9), how, 0)
        seeds[f"train-{how:02}"] = program(how & 1, train, _wait(3), train, _listen)
    for pick in range(len(target.FAR)):
        numbers = do(target.send_number, pick, 0, 9), do(target.send_number, pick, 1, 9)
        seeds[f"number-{pick}"] = program(pick & 1, *numbers, _listen)
    again = do(target.send_again, 0, 0), do(target.send_again, 0, 1, 0, 0, 20, 1)
    seeds["replays"] = program(0, _plain(Ping()), *again)
    seeds["junk"] = program(0, do(target.send_junk, 0, 3, packed(b"j" * 50), 0), _wait(1))
    seeds["batch"] = program(0, do(target.send_batch, 3, program(12, b"k") * 5), _listen)
    retire = _listen, _plain(RetireConnectionId(0)), _listen, do(target.change_cid, 0, 9, 1), _wait(5)
    seeds["retired"] = program(0, *retire)
    return seeds


def _endings() -> Seeds:
    """Closed by either side, given up, and ended while the carrier took nothing."""
    block, unblock = (_in_session(fuzz_session.block_path, writable) for writable in (0, 1))
    busy = _OPEN, _use(6, _size(500))
    close = _use(4, 0, 0, _size(20))
    return {
        "blocked": program(0, block, *busy, _wait(4), unblock, _listen),
        "blocked-dial": program(0xC1, block, _wait(4), _begin(4, 0, 0, _size(0)), _wait(5)),
        "closed": program(0, *busy, close, _listen, _acknowledge, _wait(5), _plain(Ping())),
        "closed-by-peer": program(
            1, _plain(SessionClose(5, CloseReason.ERROR, "why")), _listen, _plain(Ping()), _listen
        ),
        "silence": program(0, *busy, _listen, _wait(6), _wait(6), _wait(7)),
    }


def endpoint() -> Seeds:
    """Runs of datagrams from the heap, and packets that the sessions want."""
    target = fuzz_endpoint
    do = partial(step, target.STEPS)
    seeds = {}
    for which in range(12):
        seeds[f"heap-{which:02}"] = program(12 | which & 3, do(target.receive_one, 5, which, which % 7, 0))
    for index in range(len(target.SIZES)):
        row = tuple(program(5, pick) for pick in (0, 2, 3, 6))
        seeds[f"run-{index}"] = program(12 | index & 1, do(target.receive_run, index, 3, *row, index & 1, 0))
    for pick in range(3):
        for peer in range(2):
            genuine = do(target.send_genuine, peer, 9, 1, pick, 0)
            seeds[f"genuine-{pick}-{peer}"] = program(peer, genuine, do(target.wait, 2), genuine)
    for which in range(2):
        noise = packed(b"n" * 20)
        seeds[f"reset-{which}"] = program(0, do(target.receive_reset, which, 0, 3, b"12345678", noise, 0))
        seeds[f"reset-damaged-{which}"] = program(
            0, do(target.receive_reset, which, 1, 3, b"12345678", noise, 0, 0, 9, 1, 0)
        )
    for which in range(4):
        made = program(4, which, 0x45, packed(b"p" * 50)), program(12, which, 0x45, packed(b"p" * 50))
        seeds[f"made-up-{which}"] = program(0, do(target.receive_run, 7, 1, *made, 1, which))
    hidden = program(4, 0, 1, packed(b"h" * 60)), program(12, 0, 0x45, packed(b"p" * 60))
    seeds["behind-a-handshake"] = program(0, do(target.receive_run, 6, 1, *hidden, 1, 0))
    for wrong in range(7):
        seeds[f"wrong-{wrong}"] = program(0, do(target.receive_arguments, 5, 0, wrong))
    for which in range(3):
        for how in range(2):
            seeds[f"close-{which}-{how}"] = program(12, do(target.close, 0, which, how), do(target.wait, 4))
    return seeds
