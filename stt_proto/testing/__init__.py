"""The simulator: whole worlds of nodes, links and faults, from one seed, in virtual time.

Time, network and randomness are inputs of the core, so a world is a function of its seed: the same seed gives the same
bytes on the wire, whatever happens. Use it to test your own application on a bad network; docs/simulator.md shows how.

    world = World(seed=1, conditions=CELLULAR)
    alice, bob = world.node("alice"), world.node("bob")
    inbox = Inbox(bob)
    upload = send(alice, alice.connect(bob), b"hello")
    world.run_until(lambda: upload.finished)
    assert inbox.digests == [upload.digest]
"""

from __future__ import annotations

from stt_proto.testing.apps import Inbox, Incoming, Outgoing, send, serve_echo
from stt_proto.testing.conditions import Conditions, GilbertElliott
from stt_proto.testing.entropy import DeterministicKem, SeededEntropy
from stt_proto.testing.explore import Scenario, Tally, explore, random_conditions
from stt_proto.testing.link import Arrival, Link, Traffic
from stt_proto.testing.nat import Nat
from stt_proto.testing.node import Listener, Node
from stt_proto.testing.presets import BROADBAND, CELLULAR, CONGESTED, PRESETS, SATELLITE, WIFI, WIFI_LOSSY
from stt_proto.testing.probe import held, tables
from stt_proto.testing.trace import LinkTrace
from stt_proto.testing.transcript import Entry, Transcript
from stt_proto.testing.world import SHARED_SEED, Tap, World

__all__ = [
    "BROADBAND",
    "CELLULAR",
    "CONGESTED",
    "PRESETS",
    "SATELLITE",
    "SHARED_SEED",
    "WIFI",
    "WIFI_LOSSY",
    "Arrival",
    "Conditions",
    "DeterministicKem",
    "Entry",
    "GilbertElliott",
    "Inbox",
    "Incoming",
    "Link",
    "LinkTrace",
    "Listener",
    "Nat",
    "Node",
    "Outgoing",
    "Scenario",
    "SeededEntropy",
    "Tally",
    "Tap",
    "Traffic",
    "Transcript",
    "World",
    "explore",
    "held",
    "random_conditions",
    "send",
    "serve_echo",
    "tables",
]
