"""What workers have seen and moved, each and all together."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Self

from attrs import asdict, frozen

from stt_anyio.node import STTNode
from stt_anyio.node_base import NodeStats, TransportStats
from stt_anyio.workers.handover import HandOverCounts
from stt_anyio.workers.ports import Routing
from stt_proto.types import CloseReason

_NO_NODE = NodeStats(
    active=0, established=0, closed=dict.fromkeys(map(str, CloseReason), 0), handshakes_failed=0, handler_errors=0
)
_NO_TRANSPORT = TransportStats(
    bytes_sent=0,
    bytes_received=0,
    packets_sent=0,
    packets_received=0,
    packets_lost=0,
    loss_rate=0.0,
    rtt=None,
    datagrams_dropped=0,
)


@frozen(kw_only=True)
class WorkerStats:
    """One worker, since it was started last.

    Attributes:
        index: which.
        pid: of its process; `None` when it is down.
        restarts: how often it was started again.
        node: counts of its sessions.
        transport: what they moved.
        hand_over: datagrams that it handed to other workers, and was handed.
        cpu_seconds: processor time that its process has used.
    """

    index: int
    pid: int | None
    restarts: int
    node: NodeStats
    transport: TransportStats
    hand_over: HandOverCounts
    cpu_seconds: float

    @classmethod
    def of_node(cls, node: STTNode) -> Self:
        """The one process that there is."""
        return cls(index=0, pid=None, restarts=0, **_parsed(figures_of(node, HandOverCounts())))


@frozen(kw_only=True)
class FleetStats:
    """All workers of a port.

    Attributes:
        routing: how a datagram gets to its worker.
        workers: each of them, by index.
        node: the sums of their counts.
        transport: likewise; `rtt` is the mean over all sessions that are active.
    """

    routing: Routing
    workers: tuple[WorkerStats, ...]
    node: NodeStats
    transport: TransportStats


def figures_of(node: STTNode, hand_over: HandOverCounts) -> dict[str, Any]:
    """What a worker tells of itself, as JSON takes it."""
    return {
        "node": asdict(node.get_stats()),
        "transport": asdict(node.get_transport_stats()),
        "hand_over": asdict(hand_over),
        "cpu_seconds": time.process_time(),
    }


def _parsed(figures: dict[str, Any]) -> dict[str, Any]:
    return {
        "node": NodeStats(**figures["node"]),
        "transport": TransportStats(**figures["transport"]),
        "hand_over": HandOverCounts(**figures["hand_over"]),
        "cpu_seconds": figures["cpu_seconds"],
    }


def worker_stats(index: int, pid: int | None, restarts: int, figures: dict[str, Any]) -> WorkerStats:
    """The statistics of a worker, from what it told last; `figures` are empty when it never did."""
    told = figures or {
        "node": asdict(_NO_NODE),
        "transport": asdict(_NO_TRANSPORT),
        "hand_over": asdict(HandOverCounts()),
        "cpu_seconds": 0.0,
    }
    return WorkerStats(index=index, pid=pid, restarts=restarts, **_parsed(told))


def summed(routing: Routing, workers: Sequence[WorkerStats]) -> FleetStats:
    """The sums over all workers."""
    nodes = [worker.node for worker in workers]
    carried = [worker.transport for worker in workers]
    closed: Counter[str] = Counter()
    for node in nodes:
        closed.update(node.closed)
    totals = {
        name: sum(getattr(each, name) for each in carried)
        for name in asdict(_NO_TRANSPORT)
        if name not in ("rtt", "loss_rate")
    }
    timed = [(each.rtt, node.active) for each, node in zip(carried, nodes, strict=True) if each.rtt is not None]
    sessions = sum(active for _, active in timed)
    return FleetStats(
        routing=routing,
        workers=tuple(workers),
        node=NodeStats(
            active=sum(node.active for node in nodes),
            established=sum(node.established for node in nodes),
            closed=dict(closed),
            handshakes_failed=sum(node.handshakes_failed for node in nodes),
            handler_errors=sum(node.handler_errors for node in nodes),
            tickets_in_doubt=sum(node.tickets_in_doubt for node in nodes),
        ),
        transport=TransportStats(
            **totals,
            loss_rate=totals["packets_lost"] / max(1, totals["packets_sent"]),
            rtt=sum(rtt * active for rtt, active in timed) / sessions if sessions else None,
        ),
    )
