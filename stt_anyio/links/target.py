"""Where a WebSocket is dialled, and how: everything that `connect_websocket` can be told."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from attrs import Attribute, field, frozen
from websockets.exceptions import InvalidURI
from websockets.uri import WebSocketURI, parse_uri

from stt_anyio.errors import ArgumentError
from stt_anyio.links.base import Link
from stt_anyio.links.hosts import is_host
from stt_anyio.links.proxy import ProxyLink, proxy_of
from stt_anyio.links.tls import TlsLink
from stt_anyio.links.websocket import Origins, WebSocketClientLink, WebSocketServerLink

_RESERVED = frozenset({"upgrade", "connection", "origin", "content-length", "transfer-encoding"})
_NAME = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_RESOURCE = re.compile(r"[\x21-\x7e]+")


def _check_url(_: Any, attribute: Attribute[Any], value: Any) -> None:
    read_url(value)


def read_url(url: Any) -> WebSocketURI:
    """Read `ws://HOST[:PORT][/PATH]` or `wss://...`.

    Raises:
        ArgumentError: it is none. It is not quoted, since it may hold a password.
    """
    try:
        uri = parse_uri(url)
        given = urlsplit(url).port  # of port 0 the parser makes the usual one
        if is_host(uri.host) and given != 0 and 0 < uri.port <= 65_535 and _RESOURCE.fullmatch(uri.resource_name):
            return uri
    except (InvalidURI, ValueError, TypeError, AttributeError):
        pass
    raise ArgumentError("url must be ws://HOST[:PORT][/PATH] or wss://HOST[:PORT][/PATH]", argument="url") from None


def _pairs(value: Any) -> Any:
    items = value.items() if isinstance(value, Mapping) else value
    try:
        return tuple((name, text) for name, text in items)
    except (TypeError, ValueError):
        return value


def _check_headers(_: Any, attribute: Attribute[Any], value: Any) -> None:
    fits = isinstance(value, tuple)
    for name, text in value if fits else ():
        fits = fits and isinstance(name, str) and isinstance(text, str)
        fits = fits and _NAME.fullmatch(name) is not None and _VALUE.fullmatch(text) is not None
        fits = fits and name.lower() not in _RESERVED and not name.lower().startswith("sec-websocket-")
    if not fits:
        raise ArgumentError(
            "headers must be names and values of HTTP headers, none of them of the WebSocket handshake itself",
            argument="headers",
        )


def _check_origin(_: Any, attribute: Attribute[Any], value: Any) -> None:
    if value is not None and not (isinstance(value, str) and _RESOURCE.fullmatch(value)):
        raise ArgumentError(f"origin is {value!r}; it must be None or such as https://example.org", argument="origin")


def _check_context(value: Any, other_side: int, side: str) -> None:
    if value is not None and not (isinstance(value, ssl.SSLContext) and value.protocol != other_side):
        raise ArgumentError(
            f"ssl_context is {value!r}; it must be an ssl.SSLContext of a {side}", argument="ssl_context"
        )


def _check_client_context(_: Any, attribute: Attribute[Any], value: Any) -> None:
    _check_context(value, ssl.PROTOCOL_TLS_SERVER, "client")


@frozen(kw_only=True)
class WebSocketTarget:
    """A WebSocket to dial. `connect(target, transport="websocket")` takes one, or a URL alone.

    Attributes:
        url: `ws://HOST[:PORT][/PATH]` or `wss://...`; a user and password in it are sent as `Authorization`.
        headers: more headers for the request, a mapping or pairs.
        ssl_context: for `wss://`; one that checks the server's certificate and name when `None`.
        proxy: an HTTP proxy, `http://[USER:PASSWORD@]HOST[:PORT]` or `https://...`, through which the way leads.
        proxy_auth: user and password for the proxy: a pair, or text with a colon in between.
        origin: an `Origin` to send, which only browsers do.

    Raises:
        ArgumentError: names the attribute. No value that may hold a password is quoted.
    """

    url: str = field(validator=_check_url, repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), converter=_pairs, validator=_check_headers, repr=False)
    ssl_context: ssl.SSLContext | None = field(default=None, validator=_check_client_context)
    proxy: str | None = field(default=None, repr=False)
    proxy_auth: str | tuple[str, str] | None = field(default=None, repr=False)
    origin: str | None = field(default=None, validator=_check_origin)

    def __attrs_post_init__(self) -> None:
        if self.proxy is not None:
            proxy_of(self.proxy, self.proxy_auth)

    @property
    def uri(self) -> WebSocketURI:
        """The URL, taken apart."""
        return read_url(self.url)

    @property
    def next_hop(self) -> tuple[str, int]:
        """Host and port to connect to: those of the proxy, if there is one."""
        if self.proxy is not None:
            proxy = proxy_of(self.proxy, self.proxy_auth)
            return proxy.host, proxy.port
        return self.uri.host, self.uri.port

    def make_link(self) -> Link:
        """What is spoken on a connection to `next_hop`."""
        uri = self.uri
        link: Link = WebSocketClientLink(uri, self.headers, self.origin)
        if uri.secure:
            link = TlsLink(link, self.ssl_context or ssl.create_default_context(), uri.host)
        if self.proxy is not None:
            proxy = proxy_of(self.proxy, self.proxy_auth)
            link = ProxyLink(link, proxy, uri)
            if proxy.scheme == "https":
                link = TlsLink(link, ssl.create_default_context(), proxy.host)
        return link


def server_links(ssl_context: ssl.SSLContext | None, path: str | None, origins: Any) -> Callable[[], Link]:
    """What makes the links of a WebSocket server; the arguments are those of `listen_websocket`.

    Raises:
        ArgumentError: names the one that is wrong.
    """
    allowed = Origins.of(origins)
    _check_context(ssl_context, ssl.PROTOCOL_TLS_CLIENT, "server")
    if not (path is None or (isinstance(path, str) and path.startswith("/"))):
        raise ArgumentError(f"path is {path!r}; it must begin with a slash", argument="path")

    def make() -> Link:
        link: Link = WebSocketServerLink(allowed, path)
        return link if ssl_context is None else TlsLink(link, ssl_context, None)

    return make


def target_of(address: Any) -> WebSocketTarget:
    """A target, or a URL as one.

    Raises:
        ArgumentError: it is neither.
    """
    return address if isinstance(address, WebSocketTarget) else WebSocketTarget(url=address)
