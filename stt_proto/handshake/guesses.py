"""Who guesses at the shared seed, and how often (H-23).

CPace gives one guess for each CHALLENGE. Whoever can have many is an attacker, and all that tells him from others is
where he comes from. So failures are counted by source: an IPv4 address, a /56 of IPv6, or whatever else a carrier calls
the other end.

Two accounts, since an address in a HELLO may be forged. Failures from an address that nobody has shown cost it little:
after 8 in a minute its HELLOs need a cookie. Failures behind a valid cookie are the source's own doing: they drain a
bucket of 64, refilled by one a second, and while it is empty the source is not heard.

Guesses under way must count before they fail, or a source could begin a thousand and have them judged when it is too
late. Those without a cookie count as failed until they succeed. Those with one may overdraw the bucket, and the debt
is worked off at the same one a second; so honest crowds behind one address are never held up, and in the long run k
addresses buy k guesses a second.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address

from stt_proto.types import NetworkPath

WINDOW = 60.0
"""Seconds for which a failure counts against an address that was not shown."""

_IPV6_PREFIX = 7  # bytes: a /56

Source = bytes | str
"""An IPv4 address (4 bytes), a /56 of IPv6 (7 bytes), or the text of an address that is neither."""


def source_of(path: NetworkPath) -> Source:
    """The source that what comes in on this path is counted under."""
    host = path.remote_host
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        return address.packed[:_IPV6_PREFIX] if mapped is None else mapped.packed
    return address.packed


class _Account:
    """What is known of one source."""

    __slots__ = ("balance", "failures", "settled_at", "under_way")

    def __init__(self, balance: float, now: float) -> None:
        self.failures: list[float] = []
        self.under_way = 0
        self.balance = balance
        self.settled_at = now


class GuessMeter:
    """The accounts of all sources that have guesses under way or failed lately.

    The table is bounded: beyond `sources` entries the longest unseen goes.
    """

    __slots__ = ("_accounts", "_burst", "_rate", "_sources", "_window")

    def __init__(self, *, without_cookie: int, burst: int, per_second: float, sources: int) -> None:
        """Set the limits.

        Args:
            without_cookie: failures in a minute after which a source needs a cookie.
            burst: the size of the bucket for failures behind a cookie.
            per_second: its refill.
            sources: how many sources are remembered.
        """
        self._window = without_cookie
        self._burst = float(burst)
        self._rate = per_second
        self._sources = sources
        self._accounts: OrderedDict[Source, _Account] = OrderedDict()

    def __len__(self) -> int:
        """Sources remembered."""
        return len(self._accounts)

    def needs_cookie(self, source: Source, now: float) -> bool:
        """Whether a HELLO from this source must show a cookie."""
        account = self._seen(source)
        if account is None:
            return self._window == 0
        return account.under_way + _recent(account, now) >= self._window

    def is_exhausted(self, source: Source, now: float) -> bool:
        """Whether a HELLO from this source is to be dropped."""
        account = self._seen(source)
        return account is not None and self._balance(account, now) < 1.0

    def begin(self, source: Source, proven: bool, now: float) -> None:
        """A CHALLENGE was sent; `proven` is whether the source has shown that it receives there."""
        if not proven:
            self._account(source, now).under_way += 1

    def succeed(self, source: Source, proven: bool, now: float) -> None:
        """A valid AUTH_PROOF followed."""
        account = self._end(source, proven)
        if account is not None and not account.under_way and self._is_forgotten(account, now):
            del self._accounts[source]

    def fail(self, source: Source, proven: bool, now: float) -> None:
        """None followed: it ended in silence, in ABORT, or had to make room."""
        account = self._end(source, proven) or self._account(source, now)
        account.failures.append(now)
        del account.failures[: -self._window or None]
        if proven:
            account.balance = self._balance(account, now) - 1.0
            account.settled_at = now

    def _seen(self, source: Source) -> _Account | None:
        account = self._accounts.get(source)
        if account is not None:
            self._accounts.move_to_end(source)
        return account

    def _account(self, source: Source, now: float) -> _Account:
        account = self._seen(source)
        if account is None:
            if len(self._accounts) >= self._sources:
                self._accounts.popitem(last=False)
            account = self._accounts[source] = _Account(self._burst, now)
        return account

    def _end(self, source: Source, proven: bool) -> _Account | None:
        """One guess is under way no more; its account may have been forgotten meanwhile."""
        account = self._accounts.get(source)
        if account is not None and account.under_way and not proven:
            account.under_way -= 1
        return account

    def _balance(self, account: _Account, now: float) -> float:
        return min(self._burst, account.balance + (now - account.settled_at) * self._rate)

    def _is_forgotten(self, account: _Account, now: float) -> bool:
        """Whether the account says nothing that a new one would not say."""
        return not _recent(account, now) and self._balance(account, now) >= self._burst


def _recent(account: _Account, now: float) -> int:
    """Failures in the last minute, as far as they are counted."""
    return sum(at > now - WINDOW for at in account.failures)
