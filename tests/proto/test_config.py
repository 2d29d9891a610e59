"""The configuration: every parameter has a range, and one error names the parameter, the value and the range."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest
from attrs import evolve, fields
from attrs.exceptions import FrozenInstanceError

from stt_proto.config import CARRIERS, Config, Limits
from stt_proto.errors import ArgumentError, LocalError
from stt_proto.identity import Identity
from stt_proto.types import CarrierTraits

NODE_SEED = bytes(range(32))
IDENTITY = Identity.from_seed(NODE_SEED)
MIB = 1 << 20

WHOLE = {
    "max_concurrent_sessions": (1, 1 << 20),
    "max_concurrent_streams": (0, 1 << 20),
    "default_max_frame_size": (1, 65_536),
    "stream_receive_window": (1024, 1 << 30),
    "max_stream_receive_window": (0, 1 << 30),
    "stream_send_buffer": (1024, 1 << 30),
    "max_stream_send_buffer": (0, 1 << 30),
    "session_receive_window": (1024, 1 << 30),
    "max_session_receive_window": (0, 1 << 30),
    "max_datagram_size": (0, 65_535),
    "rotate_after_bytes": (1 << 16, 1 << 40),
    "rotate_after_packets": (1 << 8, 1 << 22),
    "seed_generation": (0, (1 << 32) - 1),
    "max_early_data": (0, 768),
}
SECONDS = {
    "keep_alive_interval": (0.05, 3600),
    "keep_alive_timeout": (0.1, 86_400),
    "handshake_timeout": (0.1, 600),
    "ack_delay": (0.0, 1.0),
    "detach_timeout": (0.0, 86_400),
    "resumption_timeout": (0.0, 604_800),
    "rotate_after_seconds": (1.0, 86_400),
}
LIMITS = {
    "half_open": (1, 1 << 20),
    "half_open_per_source": (1, 1 << 20),
    "half_open_without_cookie": (0, 1 << 20),
    "unfinished_without_cookie": (0, 1 << 20),
    "challenge_repeats": (1, 1000),
    "challenges_tried": (1, 16),
    "failed_guesses_without_cookie": (0, 1000),
    "failed_guesses_burst": (1, 10_000),
    "sources": (16, 1 << 20),
    "piece_groups": (4, 1024),
    "held_packets": (0, 100),
    "held_bytes": (0, MIB),
    "unsolicited_replies": (0, 10_000),
    "resets_per_second": (0, 10_000),
    "trains": (1, 1024),
    "train_bytes": (128 << 10, 256 * MIB),
    "train_bytes_in_all": (128 << 10, 4096 * MIB),
    "stream_pieces": (16, 65_536),
    "session_pieces": (16, 1 << 20),
    "grown_windows": (0, 1 << 40),
    "extension_frames": (1, 65_536),
    "extension_bytes": (2048, 256 * MIB),
    "datagrams": (1, 65_536),
    "detached_per_peer": (0, 1 << 20),
    "detached_bytes": (0, 1 << 40),
    "datagram_bytes": (64 << 10, 256 * MIB),
    "suspicious_burst": (10, 1 << 20),
    "failure_reports": (1, 1 << 20),
    "used_tickets": (0, 1 << 24),
}
RATES = {"failed_guesses_per_second": (0.001, 1000), "suspicious_per_second": (0.1, 1_000_000)}
OTHERS = {
    "identity", "shared_seed", "application", "versions", "suites", "no_delay", "congestion", "carriers",
    "reset_key", "allow_self", "limits", "extension_frames", "fleet_secret", "previous_fleet_secret", "ticket_check",
    "worker_ids",
}  # fmt: skip


def config(**changes: Any) -> Config:
    return Config(**{"identity": IDENTITY, "shared_seed": b"between us", **changes})


def refused(name: str, value: object, make: Any = config) -> ArgumentError:
    """The one error for a value; it names the parameter and is the caller's mistake."""
    with pytest.raises(ArgumentError) as caught:
        make(**{name: value})
    assert isinstance(caught.value, LocalError)
    assert caught.value.argument.startswith(name)
    assert name in caught.value.message
    return caught.value


def test_every_parameter_is_tested_here() -> None:
    assert {field.name for field in fields(Config)} == WHOLE.keys() | SECONDS.keys() | OTHERS
    assert {field.name for field in fields(Limits)} == LIMITS.keys() | RATES.keys()


def test_the_defaults_are_those_of_the_text() -> None:
    """Section 13 and the mission's table of parameters."""
    default, limits = config(), Limits()
    assert (default.keep_alive_interval, default.keep_alive_timeout, default.handshake_timeout) == (10, 30, 10)
    assert (default.max_concurrent_sessions, default.max_concurrent_streams) == (100, 256)
    assert default.default_max_frame_size == 16 << 10
    assert (default.stream_receive_window, default.stream_send_buffer) == (MIB, MIB)
    assert (default.max_stream_receive_window, default.max_stream_send_buffer) == (10 * MIB, 10 * MIB)
    assert (default.session_receive_window, default.max_session_receive_window) == (MIB * 3 // 2, 16 * MIB)
    assert limits.grown_windows == 256 * MIB
    assert (limits.detached_per_peer, limits.detached_bytes) == (4, 64 * MIB)
    assert (default.detach_timeout, default.resumption_timeout) == (120, 86_400)
    assert (limits.half_open, limits.half_open_without_cookie, limits.unfinished_without_cookie) == (1024, 128, 1000)
    assert (limits.half_open_per_source, limits.challenge_repeats, limits.challenges_tried) == (256, 32, 4)
    assert (limits.failed_guesses_without_cookie, limits.failed_guesses_burst, limits.sources) == (8, 64, 4096)
    assert (limits.piece_groups, limits.held_packets, limits.held_bytes) == (64, 10, 16 << 10)
    assert (limits.unsolicited_replies, limits.resets_per_second) == (100, 10)
    assert (limits.trains, limits.train_bytes, limits.train_bytes_in_all) == (32, 2 * MIB, 64 * MIB)
    assert (limits.stream_pieces, limits.session_pieces) == (1024, 16_384)
    assert (limits.datagrams, limits.datagram_bytes) == (256, MIB)
    assert (limits.suspicious_burst, limits.suspicious_per_second) == (1000, 100)


@pytest.mark.parametrize(
    ("make", "name", "low", "high"),
    [(config, name, *bounds) for name, bounds in WHOLE.items()]
    + [(Limits, name, *bounds) for name, bounds in LIMITS.items()],
)
def test_whole_numbers(make: Any, name: str, low: int, high: int) -> None:
    for value in (low, high):
        assert getattr(make(**{name: value}), name) == value
    for value in (low - 1, high + 1, -1 << 70, 1 << 70, float(low), True, None, "12"):
        error = refused(name, value, make)
        assert f"{low:,}" in error.message
        assert f"{high:,}" in error.message
        assert repr(value) in error.message


@pytest.mark.parametrize(
    ("make", "name", "low", "high"),
    [(config, name, *bounds) for name, bounds in SECONDS.items()]
    + [(Limits, name, *bounds) for name, bounds in RATES.items()],
)
def test_numbers(make: Any, name: str, low: float, high: float) -> None:
    others = {
        "keep_alive_interval": {"keep_alive_timeout": 86_400},
        "keep_alive_timeout": {"keep_alive_interval": 0.05},
    }
    for value in (low, high):
        if (name, value) != ("keep_alive_timeout", 0.1):  # which is no more than twice the shortest interval
            assert getattr(make(**{name: value}, **others.get(name, {})), name) == value
    for value in (low - 0.001, high + 1, nan, inf, -inf, True, None, "12"):
        error = refused(name, value, make)
        assert f"{low:,}" in error.message
        assert f"{high:,}" in error.message
        assert repr(value) in error.message
        assert ("seconds" in error.message) == (name in SECONDS)


@pytest.mark.parametrize("name", ["no_delay", "allow_self"])
def test_flags(name: str) -> None:
    assert getattr(config(**{name: True}), name) is True
    assert "True or False" in refused(name, 1).message


@pytest.mark.parametrize(("interval", "timeout"), [(10.0, 20.0), (10.0, 5.0), (3600.0, 30.0)])
def test_keep_alive_needs_two_chances(interval: float, timeout: float) -> None:
    """K-4, K-5: the timeout is more than twice the interval."""
    with pytest.raises(ArgumentError, match="more than twice keep_alive_interval") as caught:
        config(keep_alive_interval=interval, keep_alive_timeout=timeout)
    assert caught.value.argument == "keep_alive_timeout"
    assert f"{interval:g}" in caught.value.message
    assert config(keep_alive_interval=10.0, keep_alive_timeout=20.1)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("versions", [(1,), [1]], [(), (2,), (1, 1), (1, 2), 1, "1", (True,), ([],), None]),
        ("suites", [(1,), (2,), [2, 1]], [(), (3,), (1, 1), (0,), 2, "12", (1.0,), (True,), None]),
    ],
)
def test_versions_and_suites(name: str, good: list[Any], bad: list[Any]) -> None:
    """W-8: those that exist, each once."""
    for value in good:
        assert getattr(config(**{name: value}), name) == tuple(value)
    for value in bad:
        assert "each once" in refused(name, value).message


def test_extension_frames() -> None:
    """X-2: types of the application, however they are listed."""
    assert config().extension_frames == frozenset()
    for good in ([0x80, 0xFF], range(0x80, 0x100), {0x90: "anything"}, (0x80, 0x80)):
        assert config(extension_frames=good).extension_frames == frozenset(good)
    for bad in ([0x7F], [0x100], [-1], ["128"], [True], 0x80, "abc", None, [[0x80]], [0x80, 0x24]):
        assert "0x80 to 0xff" in refused("extension_frames", bad).message


def test_application() -> None:
    """H-3: it goes into CI of CPace as UTF-8, with a length of one byte."""
    assert config(application="é" * 127).application
    for bad in ("é" * 128, "\ud800", b"bytes", None):
        assert "255 bytes" in refused("application", bad).message


@pytest.mark.parametrize("name", ["fleet_secret", "previous_fleet_secret"])
def test_fleet_secrets(name: str) -> None:
    """I-5, H-34: 32 bytes, and neither of the seeds."""
    secret = b"f" * 32
    assert getattr(config(), name) is None
    made = config(**{name: secret})
    assert getattr(made, name) == secret
    assert "ffff" not in repr(made)
    for bad in (b"f" * 31, b"f" * 33, "f" * 32, bytearray(secret)):
        assert "fff" not in refused(name, bad).message
    for seeds in ({"shared_seed": secret}, {"identity": Identity.from_seed(secret)}):
        with pytest.raises(ArgumentError, match="neither of the seeds"):
            config(**{name: secret, **seeds})


def test_ticket_check() -> None:
    assert config().ticket_check == "memory"
    assert config(ticket_check="host").ticket_check == "host"
    assert config(ticket_check="shared").ticket_check == "shared"
    for bad in ("file", "", None, 1):
        refused("ticket_check", bad)


def test_reset_key() -> None:
    """C-5: at least 32 bytes; the error does not quote it."""
    key = b"k" * 32
    assert config(reset_key=key).reset_key == key
    for bad in (b"secret" * 5, "s" * 32, 7):
        error = refused("reset_key", bad)
        assert "32 bytes" in error.message
        assert repr(bad) not in error.message


def test_carriers() -> None:
    """`config.carriers` adds to the four that every configuration knows, or replaces one of them."""
    pigeon = CarrierTraits(reliable=False, framed=True, max_packet=1200, overhead=0)
    assert config(carriers={"pigeon": pigeon}).carriers == {**CARRIERS, "pigeon": pigeon}
    wide = evolve(CARRIERS["udp"], max_packet=1452)
    assert config(carriers={"udp": wide}).carriers["udp"].max_packet == 1452
    assert evolve(config(carriers={"udp": wide}), ack_delay=0.0).carriers["udp"] == wide
    for size in (1199, 65_536, 1200.0, None):
        error = refused("carriers", {"udp": evolve(wide, max_packet=size)})
        assert error.argument == "carriers['udp'].max_packet"
        assert "1,200 to 65,535" in error.message
    for bad in ([], None, {"udp": 1200}, {7: pigeon}):
        assert "CarrierTraits" in refused("carriers", bad).message


def test_carriers_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        CARRIERS["udp"] = CARRIERS["ws"]  # type: ignore[index]
    with pytest.raises(TypeError):
        config().carriers["udp"] = CARRIERS["ws"]  # type: ignore[index]


def test_things_in_the_wrong_place() -> None:
    """An error must not quote what may be a secret that was handed over as something else."""
    for name, value in [("identity", NODE_SEED), ("congestion", 7), ("limits", None), ("identity", None)]:
        error = refused(name, value)
        assert f"is of type {type(value).__name__}" in error.message
        assert repr(value) not in error.message or value is None
        assert "\\x01" not in error.message


def test_seeds() -> None:
    """I-1, I-4: text is taken as UTF-8; what is empty, or is the node's own seed, is refused."""
    assert config(shared_seed="Pfefferkuchen").shared_seed == b"Pfefferkuchen"
    for bad in ("", b"", 7, None):
        assert refused("shared_seed", bad).argument == "shared_seed"
    with pytest.raises(ArgumentError) as caught:
        config(shared_seed=NODE_SEED)
    assert caught.value.argument == "node_seed"
    assert NODE_SEED.hex() not in caught.value.message
    with pytest.raises(TypeError):
        Config()  # type: ignore[call-arg]


def test_no_secret_in_a_repr() -> None:
    """No secrets in reprs, of the configuration or of what is in it."""
    shown = repr(config(shared_seed=b"between us", reset_key=b"r" * 32))
    assert "between us" not in shown
    assert "r" * 32 not in shown
    assert NODE_SEED.hex() not in shown
    assert repr(NODE_SEED)[2:-1] not in shown
    assert IDENTITY.node_id.hex() in shown


def test_configurations_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        config().ack_delay = 0.0  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        Limits().half_open = 1  # type: ignore[misc]
