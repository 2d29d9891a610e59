"""Cookies: how a responder under load has an address shown without keeping anything (H-22).

RETRY sends a cookie to the address that a HELLO claims to come from. Only who receives there can repeat the HELLO with
it. The cookie is a keyed hash of that address and of the HELLO, so it fits no other, and the responder remembers
nothing but one key, random for each endpoint and derived from no seed (I-5).

An initiator cannot tell a cookie that the responder made from one that somebody made up, so it keeps a few and shows
them in turn (H-14).
"""

from __future__ import annotations

import hmac

from stt_proto.crypto import Secret
from stt_proto.types import NetworkPath
from stt_proto.wire import encode_varint

TICK = 10.0
"""Seconds that a tick lasts. A cookie is good in the tick it was made in and in the next."""

COOKIE_SIZE = 17
"""Bytes of a cookie: the low byte of its tick, and 16 of keyed hash."""

COOKIE_KEY_SIZE = 32
"""Random bytes for the key of a jar."""

COOKIES_KEPT = 4
"""Cookies that a dial keeps: the newest (H-14)."""

SHOWN_AT_ONCE = 4
"""Cookies that a dial shows as soon as they come; the others wait for the next repetition (H-14)."""

_MAC_SIZE = COOKIE_SIZE - 1
_TICKS = (1 << 64) - 1


class CookieJar(Secret):
    """Makes cookies and knows its own again."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        """Take 32 fresh random bytes."""
        self._key = key

    def make(self, path: NetworkPath, hello_hash: bytes, now: float) -> bytes:
        """A cookie for the HELLO with this hash, from this path."""
        return self._cookie(_tick(now), path, hello_hash)

    def check(self, cookie: bytes, path: NetworkPath, hello_hash: bytes, now: float) -> bool:
        """Whether this is a cookie of ours for this HELLO and path, made in this tick or the one before."""
        if len(cookie) != COOKIE_SIZE:
            return False
        age = (_tick(now) - cookie[0]) & 0xFF
        return age <= 1 and hmac.compare_digest(cookie, self._cookie(_tick(now) - age, path, hello_hash))

    def _cookie(self, tick: int, path: NetworkPath, hello_hash: bytes) -> bytes:
        remote = path.remote
        port = str(remote[1]) if isinstance(remote, tuple) and len(remote) > 1 else ""
        # The whole tick is hashed: the byte of it that travels comes round again, and a cookie must not.
        whole = (tick & _TICKS).to_bytes(8)
        named = whole + _lv(path.remote_host) + _lv(port) + hello_hash
        return whole[-1:] + hmac.digest(self._key, named, "sha256")[:_MAC_SIZE]


class CookiePurse:
    """The newest different cookies that a dial was given, of which perhaps only one is good.

    The first few are shown as soon as they come. After that each has its turn, however many others keep coming.
    """

    __slots__ = ("_at_once", "_shown", "_urgent")

    def __init__(self) -> None:
        self._shown: dict[bytes, int] = {}  # how often each had its turn; the one heard last stands last
        self._urgent: list[bytes] = []
        self._at_once = SHOWN_AT_ONCE

    @property
    def urgent(self) -> int:
        """Cookies that are to be shown now."""
        return len(self._urgent)

    def add(self, cookie: bytes) -> bool:
        """Keep a cookie, in place of the one that was not heard for longest; whether it is new."""
        shown = self._shown
        new = cookie not in shown
        shown[cookie] = max(shown.values(), default=0) if new else shown.pop(cookie)
        if len(shown) > COOKIES_KEPT:
            del shown[next(iter(shown))]
        if new and self._at_once:
            self._at_once -= 1
            self._urgent.append(cookie)
        return new

    def show(self) -> bytes:
        """The cookie to show: an urgent one, or the one shown least; of equals the one heard last. Empty without any.

        A new one counts as shown as often as any other, so those that keep coming never keep one from its turn.
        """
        if self._urgent:
            return self._urgent.pop(0)
        shown = self._shown
        if not shown:
            return b""
        cookie = min(reversed(shown), key=shown.__getitem__)
        shown[cookie] += 1
        return cookie


def _tick(now: float) -> int:
    return int(now // TICK)


def _lv(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return encode_varint(len(data)) + data
