"""What a link is like: plain values, checked when they are made, that print as the code which makes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import Attribute, AttrsInstance, field, fields, frozen
from attrs.validators import optional

from stt_proto.testing.checks import check_type, is_number, is_whole, refusal
from stt_proto.testing.trace import LinkTrace

_Validator = Callable[[Any, "Attribute[Any]", Any], None]


def _number(low: float, high: float, allowed: str) -> _Validator:
    def check(_: Any, attribute: Attribute[Any], value: Any) -> None:
        if not is_number(value, low, high):
            raise refusal(attribute.name, value, allowed)

    return check


def _instance(kind: type) -> _Validator:
    def check(_: Any, attribute: Attribute[Any], value: Any) -> None:
        check_type(attribute.name, value, kind)

    return check


def _bytes(_: Any, attribute: Attribute[Any], value: Any) -> None:
    if not is_whole(value):
        raise refusal(attribute.name, value, "a whole number of bytes, at least 0")


_chance = _number(0.0, 1.0, "a probability, from 0 to 1")
_seconds = _number(0.0, 1e6, "seconds, from 0 to 1,000,000")
_run = _number(1.0, 1e12, "a number of datagrams, at least 1")
_rate = _number(1.0, 1e15, "None or bits a second, at least 1")


def _brief(value: AttrsInstance) -> str:
    """Print what differs from the default, and nothing else."""
    told = ((item.name, getattr(value, item.name), item.default) for item in fields(type(value)))
    return f"{type(value).__name__}({', '.join(f'{name}={one!r}' for name, one, default in told if one != default)})"


@frozen(repr=False)
class GilbertElliott:
    """Loss in bursts: the link is good or bad, and changes at random from one datagram to the next.

    The model of E. N. Gilbert (1960) and E. O. Elliott (1963), told by the average lengths of its runs, which are
    1/p and 1/r of the transition probabilities in the literature.

    Attributes:
        good: datagrams from one burst to the next, on average; at least 1.
        bad: datagrams that a burst lasts, on average; at least 1.
        loss_good: probability of loss between bursts.
        loss_bad: probability of loss in a burst.
    """

    good: float = field(validator=_run)
    bad: float = field(validator=_run)
    loss_good: float = field(default=0.0, validator=_chance)
    loss_bad: float = field(default=1.0, validator=_chance)

    @property
    def mean_loss(self) -> float:
        """The share of all datagrams that is lost in the long run."""
        return (self.good * self.loss_good + self.bad * self.loss_bad) / (self.good + self.bad)

    def __repr__(self) -> str:
        return _brief(self)


@frozen(kw_only=True, repr=False)
class Conditions:
    """What a link is like. Probabilities are for each datagram, from 0 to 1.

    Attributes:
        delay: seconds that every datagram takes.
        jitter: up to so many seconds more, at random; the order is kept.
        rate: bits a second that fit through, `None` for no bound.
        trace: a recorded link, that decides instead of `rate` what fits through and when.
        queue: bytes that may wait for the rate or the trace; what comes on top is dropped.
        ecn_threshold: bytes waiting from which on a datagram that says it knows ECN is marked, `None` for never.
        loss: dropped at random, one by one.
        burst: dropped in bursts, besides.
        duplicate: delivered twice, the second time up to `reorder_delay` later.
        reorder: held back by `reorder_delay`, so that later ones overtake it.
        reorder_delay: seconds.
        corrupt: one bit flipped.
        truncate: cut at a random place.
        mtu: larger ones vanish without a word: a black hole, since nobody is told.

    Raises:
        ArgumentError: names the condition, its value and what is allowed.
    """

    delay: float = field(default=0.01, validator=_seconds)
    jitter: float = field(default=0.0, validator=_seconds)
    rate: float | None = field(default=None, validator=optional(_rate))
    trace: LinkTrace | None = field(default=None, validator=optional(_instance(LinkTrace)))
    queue: int = field(default=1 << 20, validator=_bytes)
    ecn_threshold: int | None = field(default=None, validator=optional(_bytes))
    loss: float = field(default=0.0, validator=_chance)
    burst: GilbertElliott | None = field(default=None, validator=optional(_instance(GilbertElliott)))
    duplicate: float = field(default=0.0, validator=_chance)
    reorder: float = field(default=0.0, validator=_chance)
    reorder_delay: float = field(default=0.01, validator=_seconds)
    corrupt: float = field(default=0.0, validator=_chance)
    truncate: float = field(default=0.0, validator=_chance)
    mtu: int = field(default=65_535, validator=_bytes)

    def __repr__(self) -> str:
        return _brief(self)
