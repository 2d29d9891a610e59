"""A translator of addresses between some nodes and the rest of the world."""

from __future__ import annotations

from collections.abc import Hashable
from math import inf
from typing import TYPE_CHECKING

from attrs import define, field

from stt_proto.errors import ArgumentError
from stt_proto.testing.checks import check_seconds, check_type

if TYPE_CHECKING:
    from stt_proto.testing.world import World

FIRST_PORT = 40_000
"""The public port of the first mapping; each further one takes the next, so none is ever used twice."""


@define
class _Mapping:
    """A public address that stands for an address inside; `heard` are those outside to whom was sent, and when."""

    inside: Hashable
    public: tuple[str, int]
    heard: dict[Hashable, float] = field(factory=dict)
    used: float = 0.0


class Nat:
    """A network address translator, as RFC 4787 describes them. `World.nat` makes one and puts nodes behind it.

    Nodes behind it know nothing of it; to everybody else they are at a public address, `(host, port)`. What comes back
    to that address is let in as long as its mapping lives, and vanishes afterwards.

    Args:
        host: its public address.
        timeout: seconds after which a mapping by which nothing was sent is forgotten. RFC 4787 asks for 120 at least;
            many give UDP 30.
        symmetric: give each destination a mapping of its own, instead of one for all.
        filtering: let in only who was sent something by that mapping, address and port alike.
        world: the one that it is in; `None` for one that is looked at by itself.

    Attributes:
        host: its public address now.
        dropped: datagrams that nobody inside was to get.
        rebindings: how often it has forgotten everything.

    Raises:
        ArgumentError: an argument is of another type or out of range, or `host` is one that another has or had.
    """

    def __init__(
        self,
        host: str,
        *,
        timeout: float = inf,
        symmetric: bool = False,
        filtering: bool = True,
        world: World | None = None,
    ) -> None:
        check_seconds("timeout", timeout, endless=True)
        check_type("symmetric", symmetric, bool)
        check_type("filtering", filtering, bool)
        self._world = world
        self._hosts = {} if world is None else world.hosts
        self._move_to(host)
        self.timeout = timeout
        self.symmetric = symmetric
        self.filtering = filtering
        self.dropped = 0
        self.rebindings = 0
        self._next_port = FIRST_PORT
        self._outward: dict[Hashable, _Mapping] = {}
        self._inward: dict[Hashable, _Mapping] = {}
        self._owners: dict[Hashable, Hashable] = {}

    def rebind_port(self) -> None:
        """Forget all mappings, as after a restart: what is sent next comes from a new port of the same address."""
        self._forget()
        self._remark(f"{self.host} maps to other ports")

    def rebind_address(self, host: str | None = None) -> None:
        """Forget all mappings and move to another public address; made up from the old one when `None`.

        Raises:
            ArgumentError: another translator of the world has that address, or had it.
        """
        old = self.host
        if host is None:
            host = f"{old}'"
            while self._hosts.get(host, self) is not self:
                host = f"{host}'"
        self._move_to(host)
        self._forget()
        self._remark(f"{old} becomes {host}")

    def _move_to(self, host: str) -> None:
        check_type("host", host, str)
        if self._hosts.setdefault(host, self) is not self:  # their ports would be the same ones
            raise ArgumentError(f"host is {host!r}, which another nat has or had", argument="host")
        self.host = host

    def _forget(self) -> None:
        self._outward.clear()
        self._inward.clear()
        self.rebindings += 1

    def _remark(self, text: str) -> None:
        if self._world is not None:
            self._world.remark(text)

    def public_address(self, inside: Hashable, remote: Hashable = None) -> tuple[str, int] | None:
        """Where a node behind it can be reached now (for a symmetric one: by `remote`); `None` before it has sent."""
        mapping = self._outward.get((inside, remote) if self.symmetric else inside)
        return None if mapping is None else mapping.public

    def owner(self, public: Hashable) -> Hashable | None:
        """The node that has, or ever had, this public address: to it leads the wire, whatever comes of it."""
        return self._owners.get(public)

    def outbound(self, inside: Hashable, remote: Hashable, now: float) -> tuple[str, int]:
        """Something is sent from inside: give the address from which the world sees it come."""
        key = (inside, remote) if self.symmetric else inside
        mapping = self._outward.get(key)
        if mapping is None or now - mapping.used > self.timeout:
            mapping = self._outward[key] = self._open(inside)
        mapping.used = mapping.heard[remote] = now
        return mapping.public

    def _open(self, inside: Hashable) -> _Mapping:
        mapping = _Mapping(inside, (self.host, self._next_port))
        self._next_port += 1
        self._inward[mapping.public] = mapping
        self._owners[mapping.public] = inside
        return mapping

    def inbound(self, public: Hashable, remote: Hashable, now: float) -> Hashable | None:
        """Something arrives for a public address: give the one inside, or `None` when it is not let in."""
        mapping = self._inward.get(public)
        if mapping is not None and self._lets_in(mapping, remote, now):
            return mapping.inside
        self.dropped += 1
        return None

    def _lets_in(self, mapping: _Mapping, remote: Hashable, now: float) -> bool:
        sent_at = mapping.heard.get(remote) if self.filtering else mapping.used
        return sent_at is not None and now - sent_at <= self.timeout

    def __repr__(self) -> str:
        return f"<Nat {self.host}, {len(self._inward)} mappings>"
