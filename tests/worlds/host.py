"""A host that gathers datagrams before it hands them in, as one does that reads its socket in batches."""

from __future__ import annotations

import random
from itertools import groupby

from stt_proto import NetworkPath
from stt_proto.testing import Node

MAX_RUN = 64
"""Datagrams in one run, as the system's segmentation offload gives them."""


class BatchingHost:
    """Takes the place of a node's `receive`.

    What comes from one address, in one size but for the last, and with equal ECN bits is handed in as a run.

    Args:
        node: whose host it is.
        seconds: for which datagrams are gathered.
        marks: the share of datagrams that get some ECN bits on their way.
    """

    def __init__(self, node: Node, seconds: float | None, marks: float) -> None:
        self.runs = 0
        self._node = node
        self._seconds = seconds
        self._marks = marks
        self._random = random.Random(f"{node.world.seed}/{node.name}/host")
        self._gathered: list[tuple[bytes, NetworkPath, int]] = []
        self._receive = node.receive
        node.receive = self.receive  # type: ignore[method-assign]

    def receive(self, data: bytes, path: NetworkPath, ecn: int = 0) -> None:
        """The network brings a datagram."""
        if self._marks and self._random.random() < self._marks:
            ecn = self._random.choice((1, 2, 3))
        if self._seconds is None or not self._node.awake:
            self._receive(data, path, ecn)
            return
        if not self._gathered:
            world = self._node.world
            world.at(world.now + self._seconds, self._hand_in)
        self._gathered.append((data, path, ecn))

    def _hand_in(self) -> None:
        node, gathered = self._node, self._gathered
        self._gathered = []
        if not node.awake:
            return
        for (path, ecn), group in groupby(gathered, lambda each: (each[1], each[2])):
            self._hand_in_runs([data for data, _, _ in group], path, ecn)
        node.pump()

    def _hand_in_runs(self, datagrams: list[bytes], path: NetworkPath, ecn: int) -> None:
        while datagrams:
            size = len(datagrams[0])
            count = 1
            most = min(len(datagrams), MAX_RUN)
            while count < most and len(datagrams[count - 1]) == size >= len(datagrams[count]) > 0:
                count += 1
            run, datagrams = datagrams[:count], datagrams[count:]
            self.runs += count > 1
            segment_size = size if count > 1 else None
            self._node.endpoint.receive(b"".join(run), path, self._node.now, segment_size, ecn)
