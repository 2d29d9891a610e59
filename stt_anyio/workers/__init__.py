"""Several processes on one UDP port: a node whose sessions are spread over workers (docs/workers.md)."""

from __future__ import annotations

from stt_anyio.workers.fleet import WorkerFleet, serve_workers
from stt_anyio.workers.handover import HandOverCounts
from stt_anyio.workers.ports import Routing
from stt_anyio.workers.statistics import FleetStats, WorkerStats

__all__ = ["FleetStats", "HandOverCounts", "Routing", "WorkerFleet", "WorkerStats", "serve_workers"]
