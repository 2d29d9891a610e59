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

The accounts are few, and who fills a table pushes others out of it. So those who failed behind a cookie have a table
of their own, which forged addresses do not reach. And while accounts that still count are pushed out, a newcomer may be
one of them: it begins with one guess left.
"""

from __future__ import annotations

from collections import OrderedDict

from stt_proto.types import Source

WINDOW = 60.0
"""Seconds for which a failure counts against an address that was not shown."""


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

    There are two tables, and both are bounded: beyond `sources` entries the longest unseen goes.
    """

    __slots__ = ("_burst", "_claimed", "_rate", "_shown", "_sources", "_window")

    def __init__(self, *, without_cookie: int, burst: int, per_second: float, sources: int) -> None:
        """Set the limits.

        Args:
            without_cookie: failures in a minute after which a source needs a cookie.
            burst: the size of the bucket for failures behind a cookie.
            per_second: its refill.
            sources: how many sources each table remembers.
        """
        self._window = without_cookie
        self._burst = float(burst)
        self._rate = per_second
        self._sources = sources
        self._shown: OrderedDict[Source, _Account] = OrderedDict()  # who has failed behind a cookie
        self._claimed: OrderedDict[Source, _Account] = OrderedDict()  # all others, whose addresses may be forged

    def __len__(self) -> int:
        """Sources remembered."""
        return len(self._shown) + len(self._claimed)

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
        if account is not None and not self._counts(account, now):
            self._shown.pop(source, None)
            self._claimed.pop(source, None)

    def fail(self, source: Source, proven: bool, now: float) -> None:
        """None followed: it ended in silence, in ABORT, or had to make room."""
        self._end(source, proven)
        account = self._shown_account(source, now) if proven else self._account(source, now)
        account.failures.append(now)
        del account.failures[: -self._window or None]
        if proven:
            account.balance = self._balance(account, now) - 1.0
            account.settled_at = now

    def _seen(self, source: Source) -> _Account | None:
        for table in (self._shown, self._claimed):
            account = table.get(source)
            if account is not None:
                table.move_to_end(source)
                return account
        return None

    def _account(self, source: Source, now: float) -> _Account:
        """The account of a source, wherever it is."""
        account = self._seen(source)
        if account is None:
            account = _Account(self._burst, now)
            if self._make_room(self._claimed, now):
                account.failures = [now] * (self._window - 1)
            self._claimed[source] = account
        return account

    def _shown_account(self, source: Source, now: float) -> _Account:
        """The account of a source that has shown its address; it moves to where forged ones do not push it out."""
        account = self._shown.get(source)
        if account is None:
            account = self._claimed.pop(source, None) or _Account(self._burst, now)
            if self._make_room(self._shown, now):
                account.balance, account.settled_at = 1.0, now
            self._shown[source] = account
        self._shown.move_to_end(source)
        return account

    def _make_room(self, table: OrderedDict[Source, _Account], now: float) -> bool:
        """Let the longest unseen go, if the table is full; whether it still counted."""
        return len(table) >= self._sources and self._counts(table.popitem(last=False)[1], now)

    def _end(self, source: Source, proven: bool) -> _Account | None:
        """One guess is under way no more; its account may have been forgotten meanwhile."""
        account = self._shown.get(source) or self._claimed.get(source)
        if account is not None and account.under_way and not proven:
            account.under_way -= 1
        return account

    def _balance(self, account: _Account, now: float) -> float:
        return min(self._burst, account.balance + (now - account.settled_at) * self._rate)

    def _counts(self, account: _Account, now: float) -> bool:
        """Whether the account says anything that a new one would not say."""
        return bool(account.under_way or _recent(account, now) or self._balance(account, now) < self._burst)


def _recent(account: _Account, now: float) -> int:
    """Failures in the last minute, as far as they are counted."""
    return sum(at > now - WINDOW for at in account.failures)
