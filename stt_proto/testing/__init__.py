"""The simulator: whole worlds of nodes, links and faults, from one seed, in virtual time.

Time, network and randomness are inputs of the core, so a world is a function of its seed: the same seed gives the same
bytes on the wire, whatever happens. Use it to test your own application on a bad network.

    world = World(seed=1)
    alice, bob = world.node("alice"), world.node("bob")
    world.link(alice, bob, Conditions(delay=0.05, loss=0.1))
    session = alice.connect(bob)
    world.run_until(lambda: session.is_active())
"""

from __future__ import annotations

from stt_proto.testing.entropy import DeterministicKem, SeededEntropy
from stt_proto.testing.link import Conditions, Link, Traffic
from stt_proto.testing.world import Node, World

__all__ = ["Conditions", "DeterministicKem", "Link", "Node", "SeededEntropy", "Traffic", "World"]
