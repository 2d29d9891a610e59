"""Worked examples of the handshake: fixed entropy in, exact bytes out (docs/protocol.md, section 14).

`tests/vectors/handshake.json` holds, for both suites, everything that goes into a handshake and everything that comes
out of it: all messages, all datagrams, and every value on the way. It is tested from two sides. Our engine must produce
it byte for byte; and so must the `Reference` below, a second implementation that was written from the page alone and
shares no line with ours.

    python -m tests.proto.test_vectors      writes the file anew

The one draw that no input decides is the KEM's encapsulation, so its ciphertext and secret are inputs, too; they are
drawn when the file does not exist.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from stt_proto.config import Limits
from stt_proto.crypto import MLKEM768
from stt_proto.handshake import Accepted, Challenged, Ended, Established, Initiator, Reply, Responder, Terms
from stt_proto.identity import Identity
from stt_proto.types import NetworkPath
from stt_proto.wire import Hello, Message, MessageType, Parameters, Retry, decode_datagram_untrusted, encode_datagram

FILE = Path(__file__).parents[1] / "vectors" / "handshake.json"
CASES = ("aes-256-gcm", "chacha20-poly1305", "wrong-seed")

ABOUT = (
    "A HELLO, CHALLENGE, AUTH_PROOF and what is derived from them; everything in hexadecimal but names and numbers. "
    "'inputs' are all random draws by their meaning, and what is configured; 'kem_ciphertext' and 'kem_secret' are one "
    "encapsulation for the key of 'kem_seed'. 'datagrams' are what is sent over UDP. 'chain' is ck and h of the "
    "SymmetricState after each token of H-2. In 'wrong-seed' the initiator has another shared seed and sends ABORT."
)

PARAMETERS = {
    "initiator": Parameters(max_data=1 << 20, max_stream_data=1 << 20, max_streams_bidi=256, connection_id_limit=4),
    "responder": Parameters(max_data=1 << 22, max_packet=65_535, max_segments=64, extension_frames=frozenset({0x80})),
}
SECRETS = {
    "initiator traffic": "initiator_traffic",
    "responder traffic": "responder_traffic",
    "initiator header": "initiator_header",
    "responder header": "responder_header",
    "exporter": "exporter",
    "resumption": "resumption",
    "rotation": "rotation",
    "session id": "session_id",
}


# -- our engine ----------------------------------------------------------------------------------------------------


def inputs_of(name: str, encapsulated: tuple[bytes, bytes]) -> dict[str, Any]:
    """What goes in: made from labels, so that nothing is hidden in it."""

    def draw(label: str, size: int) -> str:
        return hashlib.shake_256(f"stt1 vector {name} {label}".encode()).digest(size).hex()

    secret, ciphertext = encapsulated
    return {
        "application": "example",
        "initiator_shared_seed": (b"another" if name == "wrong-seed" else b"correct horse battery staple").hex(),
        "responder_shared_seed": b"correct horse battery staple".hex(),
        "versions": [1],
        "suites": [2] if name == "chacha20-poly1305" else [1, 2],
        "cookie": draw("cookie", 17),
        "initiator": {
            "node_seed": draw("initiator node seed", 32),
            "parameters": PARAMETERS["initiator"].encode().hex(),
            "connection_id": draw("initiator connection id", 8),
            "hello_dcid": draw("hello dcid", 8),
            "sid": draw("sid", 16),
            "e": draw("initiator e", 32),
            "cpace_scalar": draw("initiator cpace scalar", 32),
        },
        "responder": {
            "node_seed": draw("responder node seed", 32),
            "parameters": PARAMETERS["responder"].encode().hex(),
            "connection_id": draw("responder connection id", 8),
            "e": draw("responder e", 32),
            "cpace_scalar": draw("responder cpace scalar", 32),
            "kem_seed": KEM_SEED.hex(),
        },
        "kem_ciphertext": ciphertext.hex(),
        "kem_secret": secret.hex(),
    }


KEM_SEED = hashlib.shake_256(b"stt1 vector kem seed").digest(64)


class FixedKem(MLKEM768):
    """ML-KEM-768 whose encapsulation is known."""

    def __init__(self, inputs: dict[str, Any]) -> None:
        self._known = bytes.fromhex(inputs["kem_secret"]), bytes.fromhex(inputs["kem_ciphertext"])

    def encapsulate(self, public_bytes: bytes) -> tuple[bytes, bytes]:
        assert public_bytes == MLKEM768().public_bytes(KEM_SEED)
        return self._known


def scripted(*draws: bytes) -> Callable[[int], bytes]:
    """Entropy that gives just these, in order; each must be asked for with its size."""
    left = list(draws)

    def entropy(size: int) -> bytes:
        drawn = left.pop(0)
        assert len(drawn) == size
        return drawn

    return entropy


def hexed(*parts: str) -> bytes:
    return bytes.fromhex("".join(parts))


def run(inputs: dict[str, Any]) -> dict[str, Any]:
    """What our engine makes of the inputs."""
    ours, theirs = inputs["initiator"], inputs["responder"]
    blind = "77" * 64  # of no influence
    common: dict[str, Any] = {"application": inputs["application"], "versions": inputs["versions"]}
    path = NetworkPath("udp", ("192.0.2.1", 4433), ("198.51.100.7", 50_000))
    kem = FixedKem(inputs)
    initiator = Initiator(
        identity=Identity.from_seed(hexed(ours["node_seed"])),
        shared_seed=hexed(inputs["initiator_shared_seed"]),
        suites=inputs["suites"],
        parameters=PARAMETERS["initiator"],
        local_cid=hexed(ours["connection_id"]),
        reliable=False,
        max_datagram=1200,
        entropy=scripted(hexed(ours["sid"], ours["hello_dcid"], ours["e"], ours["cpace_scalar"], blind)),
        kem=kem,
        now=0.0,
        **common,
    )
    responder = Responder(
        identity=Identity.from_seed(hexed(theirs["node_seed"])),
        shared_seed=hexed(inputs["responder_shared_seed"]),
        suites=(1, 2),
        entropy=scripted(bytes(32), hexed(theirs["e"], theirs["cpace_scalar"], blind, theirs["kem_seed"])),
        limits=Limits(),
        kem=kem,
        **common,
    )
    terms = Terms(False, 1200, hexed(theirs["parameters"]))

    def hear(datagram: bytes, refusal: int | None = None) -> Any:
        message = decode_datagram_untrusted(datagram)
        assert isinstance(message, Message)
        return responder.on_message(
            message,
            path,
            0.0,
            terms=terms,
            size=len(datagram),
            issue=lambda: hexed(theirs["connection_id"]),
            refusal=refusal,
        )

    (hello,) = initiator.take(0.0)
    message = decode_datagram_untrusted(hello)
    assert isinstance(message, Message)
    fields = Hello.decode_untrusted(message.body)
    name = fields.hello_hash(message.dcid, message.scid)
    refused = hear(hello, refusal=0x0203)
    unknown = Hello((7,), fields.suites, fields.sid, fields.e, fields.share, fields.parameters)
    version = hear(encode_datagram(message._replace(body=unknown.encode()), 1200))
    assert isinstance(refused, Reply)
    assert isinstance(version, Reply)
    retry = Message(MessageType.RETRY, message.scid, message.dcid, Retry(name, hexed(inputs["cookie"])).encode())
    initiator.on_message(retry, 0.0)
    (hello_with_cookie,) = initiator.take(0.0)
    begun = hear(hello_with_cookie)
    assert isinstance(begun, Challenged)
    challenge = begun.half_open.datagrams
    collected = b"".join(datagram[37:] for datagram in challenge)
    reply = Message(MessageType.CHALLENGE, message.scid, hexed(theirs["connection_id"]), collected)
    initiator.on_message(reply, 0.0)
    found: dict[str, Any] = {
        "hello_hash": name.hex(),
        "datagrams": {
            "hello": [hello.hex()],
            "retry": [encode_datagram(retry).hex()],
            "hello_with_cookie": [hello_with_cookie.hex()],
            "refused": [datagram.hex() for datagram in refused.datagrams],
            "version_to_versions_7": [datagram.hex() for datagram in version.datagrams],
            "challenge": [datagram.hex() for datagram in challenge],
        },
    }
    if initiator.established is None:
        initiator.tick(initiator.deadline)
        initiator.take(1.0)
        initiator.tick(initiator.deadline)
        (abort,) = initiator.take(2.0)
        assert isinstance(hear(abort), Ended)
        found["datagrams"]["abort"] = [abort.hex()]
        return found
    (proof,) = initiator.take(0.0)
    accepted = hear(proof)
    assert isinstance(accepted, Accepted)
    found["datagrams"]["auth_proof"] = [proof.hex()]
    found["secrets"] = secrets_of(initiator.established)
    assert secrets_of(accepted.established) == found["secrets"]
    return found


def secrets_of(established: Established) -> dict[str, str]:
    return {label: getattr(established.secrets, name).hex() for label, name in SECRETS.items()}


# -- a second implementation, from the page alone --------------------------------------------------------------------


P = 2**255 - 19


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def mac(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha256).digest()


def expand(key: bytes, info: bytes, size: int) -> bytes:
    """HKDF-Expand, RFC 5869."""
    block, out = b"", b""
    for number in range(1, -(-size // 32) + 1):
        block = mac(key, block + info + bytes((number,)))
        out += block
    return out[:size]


def multiply(scalar: bytes, point: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(scalar).exchange(X25519PublicKey.from_public_bytes(point))


def public(scalar: bytes) -> bytes:
    return multiply(scalar, (9).to_bytes(32, "little"))


def lv_cat(*parts: bytes) -> bytes:
    assert all(len(part) < 128 for part in parts)
    return b"".join(bytes((len(part),)) + part for part in parts)


def generator(seed: bytes, channel: bytes, sid: bytes) -> bytes:
    """CPace's generator: a hash, then Elligator 2 as in RFC 9380, section 6.7.1, without any care for time."""
    padding = bytes(max(0, 128 - 1 - len(lv_cat(seed)) - len(lv_cat(b"CPace255"))))
    digest = hashlib.sha512(lv_cat(b"CPace255", seed, padding, channel, sid)).digest()
    u = int.from_bytes(digest[:32], "little") % 2**255 % P
    x = -486662 * pow(1 + 2 * u * u, -1, P) % P
    if pow(x**3 + 486662 * x**2 + x, (P - 1) // 2, P) == P - 1:
        x = (-x - 486662) % P
    return x.to_bytes(32, "little")


class Reference:
    """The handshake, written down in the order of sections 3 and 4."""

    def __init__(self, inputs: dict[str, Any]) -> None:
        self.inputs = inputs
        self.ours, self.theirs = inputs["initiator"], inputs["responder"]
        self.cid = {side: hexed(inputs[side]["connection_id"]) for side in ("initiator", "responder")}
        self.e = {side: hexed(inputs[side]["e"]) for side in ("initiator", "responder")}
        self.s = {side: self.private(hexed(inputs[side]["node_seed"])) for side in ("initiator", "responder")}
        self.g = {side: self.base(side) for side in ("initiator", "responder")}
        self.share = {side: multiply(hexed(inputs[side]["cpace_scalar"]), self.g[side]) for side in self.g}
        self.chain: dict[str, dict[str, str]] = {}

    @staticmethod
    def private(node_seed: bytes) -> bytes:
        """I-2."""
        return expand(mac(b"stt1 node", node_seed), b"stt1 node key", 32)

    def base(self, side: str) -> bytes:
        """H-3."""
        channel = lv_cat(b"stt1", self.inputs["application"].encode())
        return generator(hexed(self.inputs[f"{side}_shared_seed"]), channel, hexed(self.ours["sid"]))

    def psk(self, side: str) -> bytes:
        """H-3: as this side computes it."""
        peer = "responder" if side == "initiator" else "initiator"
        k = multiply(hexed(self.inputs[side]["cpace_scalar"]), self.share[peer])
        transcript = lv_cat(self.share["initiator"], b"") + lv_cat(self.share["responder"], b"")
        isk = hashlib.sha512(lv_cat(b"CPace255_ISK", hexed(self.ours["sid"]), k) + transcript).digest()
        self.isk = isk
        return expand(mac(bytes(32), isk), b"stt1 psk", 32)

    # -- section 3 -----------------------------------------------------------------------------------------------

    @staticmethod
    def datagram(message: bytes) -> str:
        """W-1: the message with its check."""
        return (message[:1] + sha(b"stt1 check" + message)[:8] + message[1:]).hex()

    def datagrams(self, message: bytes) -> list[str]:
        """W-3: whole, or in pieces."""
        if len(message) + 8 <= 1200:
            return [self.datagram(message)]
        head = bytes((message[0] | 0x20,)) + message[1:17] + sha(message)[:8]
        body = message[17:]
        parts = [(at, body[at : at + 1163]) for at in range(0, len(body), 1163)]
        return [self.datagram(head + len(body).to_bytes(2) + at.to_bytes(2) + part) for at, part in parts]

    def header(self, number: int, dcid: bytes, scid: bytes) -> bytes:
        return bytes((0xC0 | number,)) + dcid + scid

    def hello(self, versions: list[int]) -> bytes:
        """HELLO without cookie and padding: what W-6 hashes."""
        parameters = hexed(self.ours["parameters"])
        return b"".join(
            (
                self.header(1, hexed(self.ours["hello_dcid"]), self.cid["initiator"]),
                bytes((len(versions), *versions)),
                bytes((len(self.inputs["suites"]), *self.inputs["suites"])),
                hexed(self.ours["sid"]),
                public(self.e["initiator"]),
                self.share["initiator"],
                len(parameters).to_bytes(2) + parameters,
            )
        )

    def answer(self, number: int, name: bytes, rest: bytes) -> list[str]:
        """RETRY, REFUSED, VERSION (W-7)."""
        header = self.header(number, self.cid["initiator"], hexed(self.ours["hello_dcid"]))
        return [self.datagram(header + name + rest)]

    # -- section 4.1 -----------------------------------------------------------------------------------------------

    def start(self, hello: bytes, clear: bytes) -> None:
        """H-1, and the first two tokens of H-2."""
        cipher = {1: "AESGCM", 2: "ChaChaPoly"}[self.suite]
        self.ck = self.h = sha(f"STT1_25519+CPace+MLKEM768_{cipher}_SHA256".encode())
        self.mix_hash("HELLO", hello)
        self.mix_hash("CHALLENGE", clear)

    @property
    def suite(self) -> int:
        return int(self.inputs["suites"][0])

    def note(self, token: str) -> None:
        self.chain[token] = {"ck": self.ck.hex(), "h": self.h.hex()}

    def mix_hash(self, token: str, data: bytes) -> None:
        self.h = sha(self.h + data)
        self.note(token)

    def mix_key(self, token: str, secret: bytes) -> None:
        okm = expand(mac(self.ck, secret), b"", 64)
        self.ck, self.k, self.n = okm[:32], okm[32:], 0
        self.note(token)

    def mix_psk(self, psk: bytes) -> None:
        okm = expand(mac(self.ck, psk), b"", 96)
        self.ck, self.k, self.n = okm[:32], okm[64:], 0
        self.h = sha(self.h + okm[32:64])
        self.note("psk")

    def aead(self, key: bytes, number: int, plain: bytes, data: bytes) -> bytes:
        if self.suite == 1:
            return AESGCM(key).encrypt(number.to_bytes(12), plain, data)
        return ChaCha20Poly1305(key).encrypt(bytes(4) + number.to_bytes(8, "little"), plain, data)

    def seal(self, token: str, plain: bytes) -> bytes:
        sealed = self.aead(self.k, self.n, plain, self.h)
        self.n += 1
        self.mix_hash(token, sealed)
        return sealed

    def run(self) -> dict[str, Any]:
        hello = self.hello(self.inputs["versions"])
        name = sha(hello)[:16]
        cookie = hexed(self.inputs["cookie"])
        unknown = sha(self.hello([7]))[:16]
        header = self.header(2, self.cid["initiator"], self.cid["responder"])
        clear = name + bytes((1, self.suite)) + public(self.e["responder"]) + self.share["responder"]

        self.start(hello, header + clear)
        self.mix_key("ee", multiply(self.e["responder"], public(self.e["initiator"])))
        abort_key = expand(self.ck, b"stt1 abort" + self.h, 32)
        psk = self.psk("responder")
        self.mix_psk(psk)
        kem_key = MLKEM768PrivateKey.from_seed_bytes(hexed(self.theirs["kem_seed"]))
        body = clear + self.seal("{KEM key}", kem_key.public_key().public_bytes_raw())
        body += self.seal("{s} of the responder", public(self.s["responder"]))
        self.mix_key("es", multiply(self.s["responder"], public(self.e["initiator"])))
        body += self.seal("{parameters}", hexed(self.theirs["parameters"]))

        found: dict[str, Any] = {
            "hello_hash": name.hex(),
            "datagrams": {
                "hello": [self.datagram((hello + b"\0").ljust(1192, b"\0"))],
                "retry": self.answer(4, name, bytes((len(cookie),)) + cookie),
                "hello_with_cookie": [self.datagram((hello + bytes((len(cookie),)) + cookie).ljust(1192, b"\0"))],
                "refused": self.answer(5, name, b"\x02\x03"),
                "version_to_versions_7": self.answer(6, unknown, b"\x01\x01\x02\x01\x02"),
                "challenge": self.datagrams(header + body),
            },
        }
        if self.psk("initiator") != psk:
            abort = self.header(7, self.cid["responder"], self.cid["initiator"])
            sealed = self.aead(abort_key, 0, b"\x01\x03", abort)
            found["datagrams"]["abort"] = self.datagrams(abort + sealed)
            return found

        header = self.header(3, self.cid["responder"], self.cid["initiator"])
        self.mix_hash("AUTH_PROOF", header)
        ciphertext = hexed(self.inputs["kem_ciphertext"])
        proof = header + self.seal("{KEM ciphertext}", ciphertext)
        self.mix_key("KEM secret", kem_key.decapsulate(ciphertext))
        proof += self.seal("{s} of the initiator", public(self.s["initiator"]))
        self.mix_key("se", multiply(self.s["initiator"], public(self.e["responder"])))
        proof += self.seal("{}", b"")
        found["datagrams"]["auth_proof"] = self.datagrams(proof)
        drawn = expand(self.ck, b"stt1 secrets" + self.h, 232)
        found["secrets"] = {label: drawn[32 * at : 32 * at + 32].hex() for at, label in enumerate(SECRETS)}
        return found

    def steps(self) -> dict[str, Any]:
        """What lies between input and output, for who looks for his mistake."""
        return {
            "initiator_node_id": public(self.s["initiator"]).hex(),
            "responder_node_id": public(self.s["responder"]).hex(),
            "initiator_generator": self.g["initiator"].hex(),
            "responder_generator": self.g["responder"].hex(),
            "initiator_share": self.share["initiator"].hex(),
            "responder_share": self.share["responder"].hex(),
            "isk": self.isk.hex(),
            "psk": self.psk("initiator").hex(),
            "chain": self.chain,
        }


# -- the file ------------------------------------------------------------------------------------------------------


def generate(encapsulated: tuple[bytes, bytes]) -> dict[str, Any]:
    """The whole file, of our engine's making; what lies between comes from the reference."""
    cases = {}
    for name in CASES:
        inputs = inputs_of(name, encapsulated)
        reference = Reference(inputs)
        reference.run()
        cases[name] = {"inputs": inputs, "steps": reference.steps(), "outputs": run(inputs)}
    return {"about": ABOUT, "requirements": "W-1 to W-8, I-2, H-1 to H-6, H-10", "cases": cases}


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return loaded


@pytest.mark.parametrize("name", CASES)
def test_our_engine(recorded: dict[str, Any], name: str) -> None:
    """W-1 to W-8, H-1 to H-6, H-10: every datagram and secret, byte for byte."""
    case = recorded["cases"][name]
    assert run(case["inputs"]) == case["outputs"]


@pytest.mark.parametrize("name", CASES)
def test_a_second_implementation(recorded: dict[str, Any], name: str) -> None:
    """The page is enough: what is written from it alone gives the same bytes, and the same steps."""
    case = recorded["cases"][name]
    reference = Reference(case["inputs"])
    assert reference.run() == case["outputs"]
    assert reference.steps() == case["steps"]


def test_file_is_what_would_be_generated(recorded: dict[str, Any]) -> None:
    """A change of the protocol shows here; `python -m tests.proto.test_vectors` records it."""
    inputs = recorded["cases"][CASES[0]]["inputs"]
    assert generate((hexed(inputs["kem_secret"]), hexed(inputs["kem_ciphertext"]))) == recorded


def main() -> None:
    if FILE.exists():
        inputs = json.loads(FILE.read_text(encoding="utf-8"))["cases"][CASES[0]]["inputs"]
        encapsulated = hexed(inputs["kem_secret"]), hexed(inputs["kem_ciphertext"])
    else:
        encapsulated = MLKEM768().encapsulate(MLKEM768().public_bytes(KEM_SEED))
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(generate(encapsulated), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
