"""One message to many receivers: who is slow or dead delays nobody, costs a bounded amount, and is told apart."""

from stt_proto.broadcast.broadcaster import Broadcaster
from stt_proto.broadcast.delivery import Broadcast, BroadcastResult, Delivery, Fate, Receipt
from stt_proto.broadcast.outbox import Outbox, StreamOutbox
from stt_proto.broadcast.policy import BroadcastPolicy, SlowReceiver

__all__ = [
    "Broadcast",
    "BroadcastPolicy",
    "BroadcastResult",
    "Broadcaster",
    "Delivery",
    "Fate",
    "Outbox",
    "Receipt",
    "SlowReceiver",
    "StreamOutbox",
]
