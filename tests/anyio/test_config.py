"""Every parameter of a node is checked when it is made; presets and the environment."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from stt_anyio import BlockingNode, NodeConfig, STTNode
from stt_anyio.config import ENVIRONMENT
from stt_anyio.errors import ArgumentError
from stt_anyio.memory import MemoryNetwork
from stt_proto import Identity

SEED = bytes(range(32))

BAD: list[tuple[str, Any]] = [
    ("bind_address", ""),
    ("bind_address", "two words"),
    ("bind_address", 1),
    ("port", -1),
    ("port", 65_536),
    ("port", "80"),
    ("port", True),
    ("transport", "carrier pigeon"),
    ("reuse_port", 1),
    ("offload", 1),
    ("probe_udp", "now and then"),
    ("recv_buffer_size", 100),
    ("send_buffer_size", 1 << 31),
    ("datagram_size", 1199),
    ("datagram_size", 65_508),
    ("tls", True),
    ("tls_cert", "cert.pem"),
    ("tls_key", "key.pem"),
    ("proxy", "http://proxy"),
    ("proxy_auth", "user:password"),
    ("keep_alive_interval", 0),
    ("keep_alive_interval", float("nan")),
    ("keep_alive_timeout", 20),
    ("handshake_timeout", -1),
    ("max_concurrent_sessions", 0),
    ("max_concurrent_streams", -1),
    ("max_sessions_per_peer", 0),
    ("max_sessions_per_namespace", True),
    ("session_ttl", 0),
    ("session_ttl", float("inf")),
    ("session_ttl", None),
    ("session_sliding", 1),
    ("max_requests_per_session", 1 << 21),
    ("max_requests", 1.5),
    ("default_max_frame_size", 0),
    ("default_max_frame_size", 65_537),
    ("stream_recv_buffer", 0),
    ("stream_send_buffer", 1.5),
    ("session_recv_buffer", None),
    ("extension_frames", [0x24]),
    ("max_stream_recv_buffer", -1),
    ("max_stream_send_buffer", 1.5),
    ("max_session_recv_buffer", "16 MiB"),
    ("max_datagram_size", 65_536),
    ("ack_delay", 2),
    ("no_delay", "yes"),
    ("detach_timeout", -1),
    ("resumption_timeout", -1),
    ("fleet_secret", b"short"),
    ("previous_fleet_secret", "f" * 32),
    ("seed_generation", -1),
    ("max_early_data", 769),
    ("ticket_file", ""),
    ("ticket_store", "redis://localhost"),
    ("rotate_after_seconds", 0),
    ("rotate_after_bytes", 0),
    ("rotate_after_packets", 0),
    ("application", "x" * 256),
    ("suites", ()),
    ("suites", (3,)),
    ("suites", 1),
    ("allow_self", None),
    ("reset_key", b"short"),
    ("congestion", "none"),
    ("limits", {"half_open": 1}),
    ("broadcast", {"max_messages": 3}),
    ("log_level", "LOUD"),
    ("qlog_dir", ""),
    ("qlog_dir", b"bytes"),
    ("keylog_file", "a\0b"),
    ("keylog_file", 7),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_value_is_one_error_that_names_it(name: str, value: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        NodeConfig(**{name: value})
    assert caught.value.argument == name
    assert name in str(caught.value)
    assert "must be" in str(caught.value)
    if name in ("tls_key", "proxy", "proxy_auth", "reset_key"):
        assert str(value) not in str(caught.value)


def test_the_documented_defaults() -> None:
    config = NodeConfig()
    assert (config.bind_address, config.port, config.transport, config.reuse_port) == ("0.0.0.0", 0, "udp", False)
    assert config.recv_buffer_size == config.send_buffer_size == 2 << 20
    assert (config.keep_alive_interval, config.keep_alive_timeout, config.handshake_timeout) == (10, 30, 10)
    assert (config.max_concurrent_sessions, config.max_concurrent_streams) == (100, 256)
    assert config.default_max_frame_size == 16 << 10
    assert config.stream_recv_buffer == config.stream_send_buffer == 1 << 20
    assert (config.detach_timeout, config.resumption_timeout) == (120, 86_400)
    assert (config.session_ttl, config.session_sliding, config.max_requests_per_session) == (3600, True, 100)
    assert (config.rotate_after_seconds, config.rotate_after_bytes) == (3600, 1 << 30)


def test_every_parameter_has_a_bad_value_above() -> None:
    assert {name for name, _ in BAD} == {field.name for field in attrs.fields(NodeConfig)}


def test_secrets_are_not_shown() -> None:
    assert "0123456789" not in repr(NodeConfig(reset_key=b"0123456789" * 4))


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"transport": "tcp", "proxy": "http://proxy"}, "proxy"),
        ({"transport": "websocket", "tls": True}, "tls"),
        ({"transport": "websocket", "tls_cert": "cert.pem"}, "tls"),
        ({"transport": "websocket", "tls_key": "key.pem"}, "tls"),
        ({"transport": "websocket", "tls": "yes"}, "tls"),
        ({"transport": "websocket", "tls": True, "tls_cert": 5}, "tls_cert"),
        ({"transport": "websocket", "proxy": "ftp://user:hunter2@proxy"}, "proxy"),
        ({"transport": "websocket", "proxy_auth": "user:hunter2"}, "proxy"),
        ({"transport": "websocket", "proxy": "http://proxy", "proxy_auth": "hunter2"}, "proxy_auth"),
    ],
)
def test_what_goes_with_a_transport(parameters: dict[str, Any], name: str) -> None:
    """And no password is told."""
    with pytest.raises(ArgumentError) as caught:
        NodeConfig(**parameters)
    assert caught.value.argument == name
    assert "hunter2" not in str(caught.value)


def test_websockets_take_tls_and_a_proxy() -> None:
    config = NodeConfig(
        transport="websocket", tls=True, tls_cert="cert.pem", proxy="http://proxy", proxy_auth="user:hunter2"
    )
    assert "hunter2" not in repr(config)


def test_presets() -> None:
    fast, bulk, usual = NodeConfig.low_latency(), NodeConfig.high_throughput(port=4433), NodeConfig.balanced()
    assert fast.default_max_frame_size < usual.default_max_frame_size < bulk.default_max_frame_size
    assert fast.ack_delay < usual.ack_delay
    assert bulk.port == 4433
    assert bulk.session_recv_buffer > usual.session_recv_buffer
    assert usual == NodeConfig()
    assert NodeConfig.low_latency(ack_delay=0.02).ack_delay == 0.02


def test_the_core_gets_what_it_needs() -> None:
    config = NodeConfig.high_throughput(datagram_size=1452, application="chat")
    core = config.core_config(Identity.from_seed(SEED), "pass phrase", max_concurrent_sessions=7)
    assert core.stream_receive_window == core.session_receive_window == 8 << 20
    assert core.carriers["udp"].max_packet == 1452
    assert (core.application, core.max_concurrent_sessions) == ("chat", 7)


# -- the environment -----------------------------------------------------------------------------------------------

VALUES: dict[str, tuple[str, Any]] = {
    "STT_PORT": ("4433", 4433),
    "STT_TRANSPORT": ("udp", "udp"),
    "STT_LOG_LEVEL": ("debug", "DEBUG"),
    "STT_RECV_BUFFER_SIZE": ("65536", 65_536),
    "STT_KEEP_ALIVE_INTERVAL": ("2.5", 2.5),
}


@pytest.mark.parametrize("variable", ENVIRONMENT)
def test_the_environment_sets_what_is_not_given(variable: str) -> None:
    text, value = VALUES[variable]
    config = NodeConfig.from_environment({variable: text})
    assert getattr(config, ENVIRONMENT[variable]) == value


def test_what_is_given_comes_before_the_environment() -> None:
    assert NodeConfig.from_environment({"STT_PORT": "4433"}, port=1).port == 1


@pytest.mark.parametrize(("variable", "text"), [("STT_PORT", "http"), ("STT_PORT", "70000"), ("STT_TRANSPORT", "tin")])
def test_a_bad_variable_is_an_error_that_names_the_parameter(variable: str, text: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        NodeConfig.from_environment({variable: text})
    assert caught.value.argument == ENVIRONMENT[variable]
    assert text.lstrip("7") in str(caught.value)


@pytest.mark.parametrize("node_class", [STTNode, BlockingNode])
def test_nodes_read_the_environment(node_class: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STT_PORT", "4433")
    monkeypatch.setenv("STT_SHARED_SEED", "from the environment")
    assert node_class().config.port == 4433
    assert node_class(port=1).config.port == 1
    assert node_class(config=NodeConfig(port=2)).config.port == 2
    assert node_class(config=NodeConfig(port=2), port=3, keep_alive_interval=1.0).config.port == 3
    monkeypatch.delenv("STT_SHARED_SEED")
    with pytest.raises(ArgumentError) as caught:
        node_class()
    assert caught.value.argument == "shared_seed"


@pytest.mark.parametrize("node_class", [STTNode, BlockingNode])
def test_nodes_check_their_seeds_and_parameters(node_class: Any) -> None:
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("node_seed", {"node_seed": "text"}),
        ("node_seed", {"node_seed": b"short"}),
        ("node_seed", {"node_seed": SEED, "shared_seed": SEED}),
        ("shared_seed", {"shared_seed": ""}),
        ("port", {"port": -1}),
        ("keep_alive_timeout", {"keep_alive_interval": 20.0}),
        ("config", {"config": {"port": 1}}),
        ("server_mode", {"server_mode": "yes"}),
        ("admit", {"admit": "everybody"}),
    ]
    for argument, options in wrong:
        with pytest.raises(ArgumentError) as caught:
            node_class(**{"shared_seed": "x", **options})
        assert caught.value.argument == argument
    with pytest.raises(TypeError, match="prot"):
        node_class(shared_seed="x", prot=1)
    if node_class is STTNode:
        carrier = MemoryNetwork().carrier("here")
        for carriers in ((), ["udp"], [carrier, carrier], carrier):
            with pytest.raises(ArgumentError) as caught:
                STTNode(shared_seed="x", carriers=carriers)  # type: ignore[arg-type]
            assert caught.value.argument == "carriers"
    one, two = node_class(SEED, "x"), node_class(SEED, "y")
    assert one.node_id == two.node_id
    assert len(one.node_id) == 32
    assert node_class(shared_seed="x").node_id != one.node_id
