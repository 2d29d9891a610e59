"""Addresses as they are typed: `udp://host:port`, with an IPv6 host in brackets."""

from __future__ import annotations

import ipaddress
import re

import click
from attrs import frozen

_FORM = re.compile(r"udp://(?:\[(?P<six>[^\[\]]+)\]|(?P<host>[^\[\]:/?#@\s]+)):(?P<port>[0-9]{1,5})/?")


@frozen
class Address:
    """Where a node listens or is dialled."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"udp://[{self.host}]:{self.port}" if ":" in self.host else f"udp://{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read an address such as `udp://example.org:4433` or `udp://[::1]:4433`.

    Raises:
        ValueError: says what is wrong with it.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        scheme, separator, rest = text.partition("://")
        if separator and scheme != "udp":
            raise ValueError(f"{scheme}:// is not supported; use udp://")
        if not rest.startswith("[") and rest.count(":") > 1:
            raise ValueError("an IPv6 address stands in brackets: udp://[::1]:4433")
        raise ValueError("expected udp://HOST:PORT")
    port = int(match["port"])
    if port > 65_535:
        raise ValueError(f"port {port} is above 65535")
    if match["six"]:
        ipaddress.IPv6Address(match["six"])
    return Address(match["six"] or match["host"], port)


# -- on the command line: callbacks of click -----------------------------------------------------------------------


def to_listen(ctx: click.Context, param: click.Parameter, value: str) -> Address:
    """An address to listen at; port 0 takes any."""
    try:
        return parse_address(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: {error}", ctx, param) from None


def to_dial(ctx: click.Context, param: click.Parameter, value: str) -> Address:
    """An address to connect to."""
    address = to_listen(ctx, param, value)
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
