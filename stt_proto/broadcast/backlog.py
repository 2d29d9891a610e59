"""What waits for one receiver, and what of it has begun to leave: bounded in bytes and count."""

from __future__ import annotations

from collections import deque

from stt_proto.broadcast.delivery import Delivery
from stt_proto.broadcast.policy import BroadcastPolicy, SlowReceiver


class Backlog:
    """Deliveries to one receiver, the oldest first.

    Args:
        policy: the bounds, and who goes when they are reached.

    Attributes:
        policy: as given.
        size: bytes of all that is in it.
        begun: those that have begun to leave; they stay until `end`.
    """

    __slots__ = ("_begun_size", "_waiting", "begun", "policy", "size")

    def __init__(self, policy: BroadcastPolicy) -> None:
        self.policy = policy
        self.begun: dict[Delivery, None] = {}
        self.size = 0
        self._begun_size = 0
        self._waiting: deque[Delivery] = deque()

    def __len__(self) -> int:
        return len(self.begun) + len(self._waiting)

    @property
    def waits(self) -> bool:
        """Whether something has not begun to leave."""
        return bool(self._waiting)

    def put(self, delivery: Delivery) -> list[Delivery]:
        """Take one in, and give those that had to go for it; itself, if it has to."""
        policy, size = self.policy, delivery.size
        gone: list[Delivery] = []
        # What goes for it must make room for it, so first see whether there can be any.
        stays = policy.slow is not SlowReceiver.DROP_OLDEST
        fixed = (len(self), self.size) if stays else (len(self.begun), self._begun_size)
        if fixed[0] >= policy.max_messages or fixed[1] + size > policy.max_bytes:
            return [delivery]
        while len(self) >= policy.max_messages or self.size + size > policy.max_bytes:
            oldest = self._waiting.popleft()
            self.size -= oldest.size
            gone.append(oldest)
        self._waiting.append(delivery)
        self.size += size
        return gone

    def peek(self) -> Delivery | None:
        """The next that may begin to leave, if half of what the bounds allow is not on its way already."""
        if not self._waiting:
            return None
        delivery = self._waiting[0]
        if self.begun:
            policy = self.policy
            if len(self.begun) >= policy.max_messages // 2:
                return None
            if self._begun_size + delivery.size > policy.max_bytes // 2:
                return None
        return delivery

    def begin(self) -> Delivery:
        """The one that `peek` gave begins to leave."""
        delivery = self._waiting.popleft()
        self.begun[delivery] = None
        self._begun_size += delivery.size
        return delivery

    def end(self, delivery: Delivery) -> None:
        """One that had begun is through, one way or the other."""
        del self.begun[delivery]
        self._begun_size -= delivery.size
        self.size -= delivery.size

    def withdraw(self, delivery: Delivery) -> bool:
        """Take one out again that has not begun to leave; False when it has, or is not there."""
        if delivery not in self._waiting:
            return False
        self._waiting.remove(delivery)
        self.size -= delivery.size
        return True

    def clear_waiting(self) -> list[Delivery]:
        """Nothing more will begin to leave: give what has not."""
        left = list(self._waiting)
        self._waiting.clear()
        self.size = self._begun_size
        return left

    def clear(self) -> list[Delivery]:
        """Nothing will leave any more: give all there is."""
        left = [*self.begun, *self.clear_waiting()]
        self.begun.clear()
        self.size = self._begun_size = 0
        return left
