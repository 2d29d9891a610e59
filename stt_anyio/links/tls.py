"""TLS around a link: the `ssl` module's object in memory, which needs no event loop."""

from __future__ import annotations

import ssl
from typing import Any

from stt_anyio.errors import TlsError
from stt_anyio.links.base import Layer, Link, Sink
from stt_proto.types import Buffer

FEED_SIZE = 128 << 10
"""Bytes that are deciphered at once: what goes through three buffers had better stay in the processor's cache."""
READ_SIZE = 256 << 10
"""Bytes of plaintext that are handed on at once."""


class TlsLink(Layer):
    """One TLS connection, and what is spoken in it.

    Args:
        inner: what is spoken in it.
        context: certificates and rules; `ssl.create_default_context()` checks the server's certificate and name.
        server_hostname: whose certificate it must be; `None` on the server's side.
    """

    def __init__(self, inner: Link, context: ssl.SSLContext, server_hostname: str | None) -> None:
        super().__init__(inner)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_hostname is None, server_hostname=server_hostname
        )
        self._buffer: memoryview | None = None
        self._shaken = False
        self._closed = False

    def start(self) -> None:
        self._shake()

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLCertVerificationError as error:
            self.fail(TlsError(f"the certificate does not verify: {error.verify_message}"))
        except ssl.SSLError as error:
            self.fail(TlsError(f"the TLS handshake failed: {_told(error)}"))
        else:
            self._shaken = True
            self.inner.start()

    def receive(self, data: Buffer, sink: Sink) -> None:
        view = memoryview(data)
        for at in range(0, len(view), FEED_SIZE):
            if self._closed:
                return
            self._incoming.write(view[at : at + FEED_SIZE])
            if not self._shaken:
                self._shake()
            if self._shaken:
                self._read(sink)

    def _read(self, sink: Sink) -> None:
        """Hand on what can be read, as much as possible at once."""
        view = self._buffer = self._buffer or memoryview(bytearray(READ_SIZE))
        filled, ended = 0, False
        while not (ended or self.over):
            try:
                size = self._read_into(view[filled:])
                ended = not size
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                ended = True
                break
            except ssl.SSLError as error:
                self.fail(TlsError(f"TLS failed: {_told(error)}"))
                break
            filled += size
            if filled == READ_SIZE:
                self.inner.receive(view, sink)
                filled = 0
        if filled:
            self.inner.receive(view[:filled], sink)
        if ended:
            self.end()

    def _read_into(self, view: memoryview) -> int:
        size: Any = self._tls.read(len(view), view)
        return int(size)

    def end(self) -> None:
        if not self._shaken:
            self.fail(TlsError("the connection ended in the TLS handshake"))
        self._closed = True
        self.inner.end()

    def close(self) -> None:
        self.inner.close()

    def take(self) -> list[bytes | memoryview]:
        said = self.inner.take()
        if self._shaken:
            try:
                if said:
                    self._write(b"".join(said))  # or a header of 14 bytes has a record to itself
                if self.over and not self._closed:
                    self._closed = True
                    self._tls.unwrap()
            except ssl.SSLError:
                pass  # what the other side says next tells why
        sealed = self._outgoing.read()
        return [sealed] if sealed else []

    def _write(self, buffer: bytes | memoryview) -> None:
        while buffer:
            written = self._tls.write(buffer)
            if written == len(buffer):
                return
            buffer = memoryview(buffer)[written:]

    @property
    def pending(self) -> int:  # type: ignore[override]
        return self.inner.pending + self._outgoing.pending


def _told(error: ssl.SSLError) -> str:
    """What OpenSSL says, in words."""
    return (error.reason or str(error)).replace("_", " ").lower()
