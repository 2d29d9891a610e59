"""Cookies and stateless resets: what strangers show to prove something (docs/protocol.md, H-22, P-14, C-5).

A cookie is good for the address and the HELLO that it was made for, in its tick and the next, and for nothing else. A
reset is taken only for the session whose token it ends in. Nothing raises.
"""

from __future__ import annotations

from fuzz.harness import Choices, instrumented, main

with instrumented(__name__):
    from stt_proto.handshake import CookieJar
    from stt_proto.packet import ExpectedResets, ResetTokens
    from stt_proto.testing import SeededEntropy
    from stt_proto.types import NetworkPath, source_of

HOSTS = (
    ("192.0.2.7", 5000),
    ("192.0.2.7", 5001),
    ("2001:db8::7", 5000),
    ("::ffff:192.0.2.7", 5000),
    "",
    "x",
    (),
    ("h",),
)
TICKS = (0.0, 9.9, 10.0, 19.9, 20.0, 2550.0, 2559.9)
PER_SECOND = 3
MAX_RESET = 42


def fuzz_one(data: bytes) -> None:
    """Make and show cookies, expect and receive resets."""
    choices = Choices(data)
    jar = CookieJar(b"k" * 32)
    tokens = ResetTokens(b"r" * 32, PER_SECOND)
    expected: ExpectedResets[int] = ExpectedResets(b"e" * 32)
    entropy = SeededEntropy("tokens")
    known: dict[bytes, int] = {}
    sent: list[float] = []
    now = 0.0
    while choices:
        match choices.below(8):
            case 0:
                now += choices.pick((0.0, 0.3, 1.0, 5.0, 60.0))
            case 1 | 2:
                check_cookie(choices, jar, now)
            case 3:
                cookie = choices.chunk()
                assert not jar.check(cookie, path_of(choices), choices.take(16), now)
            case 4:
                token, owner = tokens.token(choices.take(8)), choices.below(3)
                expected.add(token, owner)
                known[token] = owner
            case 5:
                token, owner = tokens.token(choices.take(8)), choices.below(3)
                expected.discard(token, owner)
                if known.get(token) == owner:
                    del known[token]
            case 6:
                datagram = choices.chunk() + (choices.pick([*known]) if known and choices.flag() else b"")
                owner_of = expected.owner_of(datagram)
                fits = len(datagram) >= 29 and datagram[0] & 0xE0 == 0x40
                assert owner_of == (known.get(datagram[-16:]) if fits else None)
            case _:
                check_reset(choices, tokens, expected, known, entropy, sent, now)
        assert len(expected) == len(known)


def path_of(choices: Choices) -> NetworkPath:
    """One of a few paths, or one from a text that is no address."""
    index = choices.below(len(HOSTS) + 1)
    remote = HOSTS[index] if index < len(HOSTS) else (choices.chunk().decode("utf-8", "surrogateescape"), 1)
    path = NetworkPath("udp", None, remote)
    source = source_of(path)
    assert isinstance(source, str) or len(source) in (4, 7)
    return path


def check_cookie(choices: Choices, jar: CookieJar, now: float) -> None:
    """A cookie, shown later, elsewhere, for something else, or damaged."""
    path, hello_hash = path_of(choices), choices.take(16).ljust(16, b"h")
    cookie = jar.make(path, hello_hash, now)
    assert jar.check(cookie, path, hello_hash, now)
    later = choices.pick(TICKS)
    ticks = int((now + later) // 10) - int(now // 10)
    assert jar.check(cookie, path, hello_hash, now + later) == (ticks <= 1)
    shown, shown_path, shown_hash = choices.damage(cookie), path_of(choices), choices.take(16).ljust(16, b"h")
    same = (shown, shown_hash, shown_path.remote) == (cookie, hello_hash, path.remote)
    assert jar.check(shown, shown_path, shown_hash, now) == same


def check_reset(
    choices: Choices,
    tokens: ResetTokens,
    expected: ExpectedResets[int],
    known: dict[bytes, int],
    entropy: SeededEntropy,
    sent: list[float],
    now: float,
) -> None:
    """A reset for a packet of some size: smaller than that, seldom, and understood."""
    connection_id, size = choices.take(8).ljust(8, b"c"), choices.below(100)
    reset = tokens.make_reset(connection_id, size, now, entropy)
    if reset is None:
        assert size <= MAX_RESET or len([at for at in sent if at > now - 1.0]) >= PER_SECOND
        return
    sent.append(now)
    assert len(reset) < size
    assert len(reset) <= MAX_RESET
    assert expected.owner_of(reset) == known.get(tokens.token(connection_id))


if __name__ == "__main__":
    main(fuzz_one)
