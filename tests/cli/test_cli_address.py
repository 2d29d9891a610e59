"""Addresses on the command line."""

from __future__ import annotations

import re

import click
import pytest

from stt_anyio.cli.address import Address, parse_address, to_dial, to_listen, to_node_id


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("tcp://[::1]:1", "::1", 1),
        ("ws://127.0.0.1:4433", "127.0.0.1", 4433),
        ("wss://example.org/a/b?c=d", "example.org", 443),
        ("ws://[::1]", "::1", 80),
        ("udp://127.0.0.1:4433", "127.0.0.1", 4433),
        ("udp://example.org:1", "example.org", 1),
        ("udp://localhost:65535/", "localhost", 65535),
        ("udp://[::1]:4433", "::1", 4433),
        ("udp://[fe80::1%eth0]:9", "fe80::1%eth0", 9),
        ("ws://bücher.example:9", "bücher.example", 9),
        ("udp://0.0.0.0:0", "0.0.0.0", 0),
    ],
)
def test_good(text: str, host: str, port: int) -> None:
    address = parse_address(text)
    assert (address.host, address.port) == (host, port)
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("quic://127.0.0.1:4433", "quic:// is not supported"),
        ("tcp://127.0.0.1", "expected tcp://HOST:PORT"),
        ("tcp://127.0.0.1:1/path", "expected tcp://HOST:PORT"),
        ("ws://host:1/#there", "expected"),
        ("udp://::1:4433", "brackets"),
        ("udp://[::g]:4433", "::g"),
        ("udp://127.0.0.1", "expected udp://HOST:PORT"),
        ("udp://127.0.0.1:65536", "above 65535"),
        ("udp://:4433", "expected"),
        ("udp://a b:1", "expected"),
        ("udp://user@host:1", "expected"),
        ("udp://a..b:1", "cannot be the name"),
        ("wss://\x0e\x17:1", "cannot be the name"),
        ("tcp://\udcff:1", "cannot be the name"),
        ("udp://host:1/path", "expected"),
        ("127.0.0.1:4433", "expected"),
        ("udp://host:٣", "expected"),
        ("", "expected"),
    ],
)
def test_bad(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        parse_address(text)


def test_as_an_argument() -> None:
    context, param = click.Context(click.Command("x")), click.Argument(["address"])
    assert to_listen(context, param, "udp://127.0.0.1:0") == Address("127.0.0.1", 0)
    assert to_dial(context, param, "udp://127.0.0.1:1") == Address("127.0.0.1", 1)
    assert to_dial(context, param, "wss://host/stt").target == "wss://host:443/stt"
    assert to_dial(context, param, "tcp://host:5").target == ("host", 5)
    for text in ("ws://127.0.0.1:0/stt", "wss://127.0.0.1:0"):
        with pytest.raises(click.BadParameter, match="web server"):
            to_listen(context, param, text)
    for text in ("udp://127.0.0.1:0", "nonsense"):
        with pytest.raises(click.BadParameter):
            to_dial(context, param, text)


def test_node_ids() -> None:
    context, param = click.Context(click.Command("x")), click.Option(["--peer"])
    assert to_node_id(context, param, None) is None
    assert to_node_id(context, param, "0aFf" * 16) == b"\x0a\xff" * 16
    for text in ("", "00" * 31, "00" * 33, "zz" * 32, " " + "00" * 32):
        with pytest.raises(click.BadParameter):
            to_node_id(context, param, text)
