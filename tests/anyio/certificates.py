"""A certificate authority for tests, and what it signs."""

from __future__ import annotations

import datetime
import ssl
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

_DAY = datetime.timedelta(days=1)


def _certificate(name: str, key: ec.EllipticCurvePrivateKey, issuer: str, signs: ec.EllipticCurvePrivateKey) -> bytes:
    now = datetime.datetime.now(datetime.UTC)
    authority = name == issuer
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if not authority:
        names = [x509.DNSName(name), x509.IPAddress(ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signs, hashes.SHA256()).public_bytes(Encoding.PEM)


def files(folder: Path, name: str = "localhost") -> tuple[Path, Path, Path]:
    """A certificate, its key, and that of its authority, as files."""
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    contents = {
        "cert.pem": _certificate(name, key, "the authority", authority),
        "key.pem": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "root.pem": _certificate("the authority", authority, "the authority", authority),
    }
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    return folder / "cert.pem", folder / "key.pem", folder / "root.pem"


@cache
def contexts(name: str = "localhost") -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A context for a server of this name (and 127.0.0.1), and one for clients who trust its authority."""
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = _certificate("the authority", authority, "the authority", authority)
    leaf = _certificate(name, key, "the authority", authority)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with TemporaryDirectory() as folder:
        file = Path(folder, "chain.pem")
        file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + leaf)
        server.load_cert_chain(file)
    client = ssl.create_default_context()
    client.load_verify_locations(cadata=root.decode())
    return server, client
