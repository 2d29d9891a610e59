"""How much may wait for one receiver of broadcasts, and what becomes of one that does not keep up."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from attrs import Attribute, field, frozen

from stt_proto.errors import ArgumentError

MAX_MESSAGES = 65_536
MAX_BYTES = 1 << 30


class SlowReceiver(StrEnum):
    """What to do when there is no room for one more message to a receiver.

    `DROP_OLDEST`: the messages that have waited longest go, as many as it takes. `DROP_NEWEST`: the new one goes.
    `CLOSE`: the receiver's session is aborted. What has begun to leave is never dropped: else one who is slow would
    never have anything whole.
    """

    DROP_OLDEST = "drop_oldest"
    DROP_NEWEST = "drop_newest"
    CLOSE = "close"


def _whole(high: int) -> Any:
    def check(_: Any, attribute: Attribute[Any], value: Any) -> None:
        if type(value) is not int or not 1 <= value <= high:
            raise ArgumentError(
                f"{attribute.name} is {value!r}; it must be a whole number from 1 to {high:,}", argument=attribute.name
            )

    return check


def _slow(value: Any) -> SlowReceiver:
    try:
        return SlowReceiver(value)
    except ValueError:
        allowed = ", ".join(repr(str(each)) for each in SlowReceiver)
        raise ArgumentError(f"slow is {value!r}; it must be one of {allowed}", argument="slow") from None


@frozen(kw_only=True)
class BroadcastPolicy:
    """Bounds for each receiver of broadcasts, and for each stream where a stream is named.

    A message counts from when it is sent until it is acknowledged. Half of what the bounds allow may be on its way at
    once; the rest waits, and can be dropped. All receivers together hold at most `max_bytes` for each, and far less
    where they wait for the same messages, of which there is one copy.

    Attributes:
        max_messages: messages for one receiver, 1 to 65,536.
        max_bytes: bytes of them, 1 to 2^30; a single message is no longer than that.
        slow: what happens to one more; a `SlowReceiver`, or its name.

    Raises:
        ArgumentError: names the attribute, its value and what is allowed.
    """

    max_messages: int = field(default=256, validator=_whole(MAX_MESSAGES))
    max_bytes: int = field(default=16 << 20, validator=_whole(MAX_BYTES))
    slow: SlowReceiver = field(default=SlowReceiver.DROP_OLDEST, converter=_slow)
