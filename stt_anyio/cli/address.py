"""Addresses as they are typed: `udp://host:port`, with an IPv6 host in brackets."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

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


class AddressType(click.ParamType):
    """An address on the command line. Port 0, "any", is for those who listen."""

    name = "udp://HOST:PORT"

    def __init__(self, *, listening: bool = False) -> None:
        self._listening = listening

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        if isinstance(value, Address):
            return value
        try:
            address = parse_address(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)
        if not address.port and not self._listening:
            self.fail(f"{value!r}: nobody listens on port 0", param, ctx)
        return address


class NodeIdType(click.ParamType):
    """A node id on the command line: 64 hexadecimal digits, as `stt keygen` prints them."""

    name = "NODE_ID"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        if isinstance(value, bytes):
            return value
        if re.fullmatch("[0-9a-fA-F]{64}", value) is None:
            self.fail(f"{value!r} is not 64 hexadecimal digits", param, ctx)
        return bytes.fromhex(value)
