"""A tunnel through an HTTP proxy (CONNECT, RFC 9110 section 9.3.6), and what is spoken in it.

Request and answer are made and read by the `websockets` library, whose parser needs no event loop and bounds what it
takes: 8 KiB a line, 128 lines.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from websockets.exceptions import InvalidProxy
from websockets.http11 import Response
from websockets.proxy import Proxy, parse_proxy, prepare_connect_request
from websockets.streams import StreamReader
from websockets.uri import WebSocketURI

from stt_anyio.errors import ArgumentError, ProxyError
from stt_anyio.links.base import Layer, Link, Sink
from stt_anyio.links.hosts import is_host
from stt_proto.types import Buffer


class ProxyLink(Layer):
    """The way through one proxy.

    Args:
        inner: what is spoken in the tunnel.
        proxy: the proxy, with credentials if it asks for some.
        target: where the tunnel leads.
    """

    def __init__(self, inner: Link, proxy: Proxy, target: WebSocketURI) -> None:
        super().__init__(inner)
        self._request: bytes | None = prepare_connect_request(proxy, target)
        self._reader = StreamReader()
        self._answer = Response.parse(
            self._reader.read_line, self._reader.read_exact, self._reader.read_to_eof, proxy=True
        )
        self._through = False

    def start(self) -> None:
        """The request waits for `take`."""

    def receive(self, data: Buffer, sink: Sink) -> None:
        if self._through:
            self.inner.receive(data, sink)
            return
        self._reader.feed_data(data)  # type: ignore[arg-type]
        response = self._step()
        if response is None:
            return
        if not 200 <= response.status_code < 300:
            self.fail(ProxyError.refused(response.status_code, response.reason_phrase))
            return
        self._through = True
        self.inner.start()
        if self._reader.buffer:
            self.inner.receive(self._reader.buffer, sink)

    def _step(self) -> Response | None:
        try:
            next(self._answer)
        except StopIteration as stop:
            response: Response = stop.value
            return response
        except Exception:  # whatever it is that the parser says of what is no answer
            self.fail(ProxyError("the proxy's answer is no HTTP"))
        return None

    def end(self) -> None:
        if not self._through:
            self.fail(ProxyError("the proxy closed the connection"))
        self.inner.end()

    def close(self) -> None:
        self.inner.close()

    def take(self) -> list[bytes | memoryview]:
        if self._request is not None:
            request, self._request = self._request, None
            return [request]
        return self.inner.take() if self._through else []


def proxy_of(url: str | None, auth: str | tuple[str, str] | None = None) -> Proxy:
    """Read the URL of a proxy.

    Args:
        url: `http://[USER:PASSWORD@]HOST[:PORT]`, or `https://` for one that is itself reached by TLS.
        auth: user and password, as a pair or with a colon in between; before those in the URL.

    Raises:
        ArgumentError: it is none. What it was is not told, since it may hold a password.
    """
    try:
        proxy: Proxy | None = parse_proxy(url)  # type: ignore[arg-type]  # whatever it is
        if urlsplit(url).port == 0:  # of which the parser makes the usual one
            proxy = None
    except (InvalidProxy, ValueError, TypeError, AttributeError):
        proxy = None
    if proxy is None or proxy.scheme not in ("http", "https") or not is_host(proxy.host):
        raise ArgumentError("proxy must be http://[USER:PASSWORD@]HOST[:PORT], or https://", argument="proxy") from None
    if auth is not None:
        pair = tuple(auth.split(":", 1)) if isinstance(auth, str) else auth
        if not (isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
            raise ArgumentError("proxy_auth must be USER:PASSWORD, or a pair of both", argument="proxy_auth")
        proxy.username, proxy.password = pair
    return proxy
