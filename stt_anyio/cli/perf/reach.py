"""How the two ends of a measurement find each other, on each carrier."""

from __future__ import annotations

import datetime
import os
import ssl
from collections.abc import Callable
from ipaddress import ip_address
from tempfile import NamedTemporaryFile
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from stt_anyio.cli.perf.work import HOST, Work
from stt_anyio.links import WebSocketTarget

Listening = Callable[..., Any]


def where(work: Work, port: int) -> tuple[Any, str]:
    """What to dial, and over which transport."""
    match work.carrier:
        case "ws":
            return f"ws://{HOST}:{port}/", "websocket"
        case "wss":
            trusting = ssl.create_default_context()
            trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE  # our own process, made up just now
            return WebSocketTarget(url=f"wss://{HOST}:{port}/", ssl_context=trusting), "websocket"
    return (HOST, port), work.carrier


def listening(work: Work, tcp: Listening, websocket: Listening) -> Any:
    """Listen by one of these methods of a node; gives what it gives, or `None` for UDP, where a node always does."""
    match work.carrier:
        case "tcp":
            return tcp()
        case "ws":
            return websocket()
        case "wss":
            return websocket(ssl_context=_certified())
    return None


def _certified() -> ssl.SSLContext:
    """A context with a certificate for this machine, signed by itself and good for an hour."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    file = NamedTemporaryFile(delete=False)  # noqa: SIM115  # Windows lets nobody else read what is open
    try:
        with file:
            file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            file.write(certificate.public_bytes(Encoding.PEM))
        context.load_cert_chain(file.name)
    finally:
        os.unlink(file.name)
    return context
