"""Addresses as they are typed: `udp://host:port`, `tcp://host:port` or a WebSocket's URL, an IPv6 host in brackets."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import click
from attrs import frozen

from stt_anyio.links.hosts import is_host

_FORM = re.compile(
    r"(?P<scheme>udp|tcp|wss?)://(?:\[(?P<six>[^\[\]]+)\]|(?P<host>[^\[\]:/?#@\s]+))(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[\x21\x22\x24-\x7e]*)?"
)
_DEFAULT_PORTS = {"ws": 80, "wss": 443}


@frozen
class Address:
    """Where a node listens or is dialled.

    Attributes:
        host: name or number.
        port: 0 to 65,535.
        scheme: `"udp"`, `"tcp"`, `"ws"` or `"wss"`.
        path: of a WebSocket's URL, with its query.
    """

    host: str
    port: int
    scheme: str = "udp"
    path: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"

    @property
    def transport(self) -> str:
        """What `STTNode` and `connect` call it."""
        return "websocket" if self.scheme.startswith("ws") else self.scheme

    @property
    def target(self) -> Any:
        """What `connect` takes."""
        return str(self) if self.transport == "websocket" else (self.host, self.port)


def parse_address(text: str) -> Address:
    """Read an address such as `udp://example.org:4433`, `tcp://[::1]:4433` or `wss://example.org/stt`.

    Raises:
        ValueError: says what is wrong with it.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        scheme, separator, rest = text.partition("://")
        if separator and scheme not in ("udp", "tcp", "ws", "wss"):
            raise ValueError(f"{scheme}:// is not supported; use udp://, tcp://, ws:// or wss://")
        if not rest.startswith("[") and rest.count(":") > 1:
            raise ValueError("an IPv6 address stands in brackets: udp://[::1]:4433")
        raise ValueError("expected udp://HOST:PORT, tcp://HOST:PORT or ws://HOST[:PORT][/PATH]")
    scheme, path = match["scheme"], match["path"] or ""
    if scheme not in _DEFAULT_PORTS and (match["port"] is None or path.strip("/") or len(path) > 1):
        raise ValueError(f"expected {scheme}://HOST:PORT")
    port = int(match["port"] or _DEFAULT_PORTS[scheme])
    if port > 65_535:
        raise ValueError(f"port {port} is above 65535")
    if match["six"]:
        ipaddress.IPv6Address(match["six"])
    host = match["six"] or match["host"]
    if not is_host(host):
        raise ValueError(f"{host!r} cannot be the name of a host")
    return Address(host, port, scheme, path if scheme in _DEFAULT_PORTS else "")


# -- on the command line: callbacks of click -----------------------------------------------------------------------


def to_listen(ctx: click.Context, param: click.Parameter, value: str) -> Address:
    """An address to listen at; port 0 takes any."""
    address = _read(ctx, param, value)
    if address.scheme == "wss" or address.path not in ("", "/"):
        raise click.BadParameter(f"{value!r}: for TLS, or a path, put a web server in front of ws://", ctx, param)
    return address


def _read(ctx: click.Context, param: click.Parameter, value: str) -> Address:
    try:
        return parse_address(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: {error}", ctx, param) from None


def to_dial(ctx: click.Context, param: click.Parameter, value: str) -> Address:
    """An address to connect to."""
    address = _read(ctx, param, value)
    if not address.port:
        raise click.BadParameter(f"{value!r}: nobody listens on port 0", ctx, param)
    return address


def to_node_id(ctx: click.Context, param: click.Parameter, value: str | None) -> bytes | None:
    """A node id as `stt keygen` prints it."""
    if value is None:
        return None
    if re.fullmatch("[0-9a-fA-F]{64}", value) is None:
        raise click.BadParameter(f"{value!r} is not 64 hexadecimal digits", ctx, param)
    return bytes.fromhex(value)
