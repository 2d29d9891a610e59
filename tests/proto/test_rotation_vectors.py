"""Worked rotations (`tests/vectors/rotation.json`): a chain and four key pairs in, the next version's secrets out.

They are checked twice: by the engine, from both sides, and by a second, plain reading of docs/protocol.md V-2 in this
file that shares no code with it. `python -m tests.proto.test_rotation_vectors` writes them anew.
"""

from __future__ import annotations

import hmac
import json
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from stt_proto.crypto import PrivateKey
from stt_proto.errors import EncryptionError
from stt_proto.handshake import KeyChain, VersionSecrets, next_secrets

PAGE = Path(__file__).parents[1] / "vectors" / "rotation.json"

DRAWN = ("initiator_static", "responder_static", "initiator_ephemeral", "responder_ephemeral")
SECRETS = ("initiator_traffic", "responder_traffic", "rotation")


def draw(label: str) -> bytes:
    return sha256(f"stt1 vector rotation {label}".encode()).digest()


def plainly(chain: bytes, version: int, keys: dict[str, bytes]) -> dict[str, bytes]:
    """V-2, step by step, by somebody who knows all private keys."""
    private = {name: X25519PrivateKey.from_private_bytes(key) for name, key in keys.items()}
    public = {name: key.public_key() for name, key in private.items()}
    ee = private["initiator_ephemeral"].exchange(public["responder_ephemeral"])
    es = private["initiator_ephemeral"].exchange(public["responder_static"])
    se = private["initiator_static"].exchange(public["responder_ephemeral"])
    prk = hmac.new(chain, ee + es + se, "sha256").digest()
    info = b"stt1 rotate" + bytes(7) + bytes((version,))
    info += public["initiator_ephemeral"].public_bytes_raw() + public["responder_ephemeral"].public_bytes_raw()
    blocks = [b""]
    for counter in (1, 2, 3):
        blocks.append(hmac.new(prk, blocks[-1] + info + bytes((counter,)), "sha256").digest())
    return dict(zip(SECRETS, blocks[1:], strict=True))


def worked() -> list[dict[str, Any]]:
    """Three rotations, one after the other."""
    static = {name: draw(name) for name in DRAWN[:2]}
    chain, vectors = draw("chain"), []
    for version in (1, 2, 3):
        keys = static | {name: draw(f"{name} {version}") for name in DRAWN[2:]}
        secrets = plainly(chain, version, keys)
        vectors.append(
            {"version": version, "chain": chain.hex()}
            | {name: key.hex() for name, key in keys.items()}
            | {f"next_{name}": secret.hex() for name, secret in secrets.items()}
        )
        chain = secrets["rotation"]
    return vectors


def load() -> list[dict[str, Any]]:
    return json.loads(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else []


def derived(vector: dict[str, Any], initiator: bool, **others: bytes) -> VersionSecrets:
    """What one side makes of it; `others` are keys that the other side is said to have."""
    ours, theirs = ("initiator", "responder") if initiator else ("responder", "initiator")
    keys = {name: PrivateKey(bytes.fromhex(vector[name])) for name in DRAWN}
    return next_secrets(
        bytes.fromhex(vector["chain"]),
        vector["version"],
        initiator=initiator,
        static=keys[f"{ours}_static"],
        ephemeral=keys[f"{ours}_ephemeral"],
        peer_static=others.get("static", keys[f"{theirs}_static"].public_bytes),
        peer_ephemeral=others.get("ephemeral", keys[f"{theirs}_ephemeral"].public_bytes),
    )


def values(secrets: VersionSecrets) -> list[str]:
    return [getattr(secrets, name).hex() for name in SECRETS]


def test_the_page_is_what_the_text_says() -> None:
    """V-2: the second reading gives the page."""
    assert load() == worked()


@pytest.mark.parametrize("initiator", [True, False])
@pytest.mark.parametrize("vector", load(), ids=lambda vector: f"version {vector['version']}")
def test_both_sides_derive_these_secrets(vector: dict[str, Any], initiator: bool) -> None:
    """V-2."""
    secrets = derived(vector, initiator)
    assert values(secrets) == [vector[f"next_{name}"] for name in SECRETS]
    assert vector["next_rotation"] not in repr(secrets)


@pytest.mark.parametrize("initiator", [True, False])
def test_versions_follow_from_each_other(initiator: bool) -> None:
    """V-2: each from the chain that the one before has left, and from keys that are drawn for it alone."""
    ours, theirs = ("initiator", "responder") if initiator else ("responder", "initiator")
    first, *_ = vectors = load()
    public = {name: PrivateKey(bytes.fromhex(first[name])).public_bytes for name in DRAWN[:2]}
    secrets: Any = SimpleNamespace(rotation=bytes.fromhex(first["chain"]))
    established: Any = SimpleNamespace(initiator=initiator, secrets=secrets, peer_node_id=public[f"{theirs}_static"])
    drawn = [bytes.fromhex(vector[f"{ours}_ephemeral"]) for vector in reversed(vectors)]
    chain = KeyChain(established, PrivateKey(bytes.fromhex(first[f"{ours}_static"])), lambda _: drawn.pop())
    for vector in vectors:
        chain.draw()
        peer_key = PrivateKey(bytes.fromhex(vector[f"{theirs}_ephemeral"])).public_bytes
        assert values(chain.advance(peer_key)) == [vector[f"next_{name}"] for name in SECRETS]
        assert chain.version == vector["version"]


@pytest.mark.parametrize("initiator", [True, False])
def test_a_thief_in_the_middle(initiator: bool) -> None:
    """V-2: whoever knows the chain and puts ephemeral keys of his own in the place of those of both sides lacks one
    Diffie-Hellman result with either: that of the side's static key, or of its ephemeral one with the other's static.
    """
    (vector, *_) = load()
    his = PrivateKey(draw("thief"))
    cheated = derived(vector, initiator, ephemeral=his.public_bytes)
    ours, theirs = ("initiator", "responder") if initiator else ("responder", "initiator")
    victim = {name: PrivateKey(bytes.fromhex(vector[f"{ours}_{name}"])) for name in ("static", "ephemeral")}
    other_static = PrivateKey(bytes.fromhex(vector[f"{theirs}_static"]))
    guess = next_secrets(  # all that he can do: he stands for the other side, with a static key of his own
        bytes.fromhex(vector["chain"]),
        vector["version"],
        initiator=not initiator,
        static=his,
        ephemeral=his,
        peer_static=victim["static"].public_bytes,
        peer_ephemeral=victim["ephemeral"].public_bytes,
    )
    assert not set(values(guess)) & set(values(cheated))
    owner = next_secrets(  # with the other side's static key he could
        bytes.fromhex(vector["chain"]),
        vector["version"],
        initiator=not initiator,
        static=other_static,
        ephemeral=his,
        peer_static=victim["static"].public_bytes,
        peer_ephemeral=victim["ephemeral"].public_bytes,
    )
    assert values(owner) == values(cheated)


def test_every_input_counts() -> None:
    """V-2: another chain, version, static or ephemeral key of either side, and nothing stays the same."""
    (vector, *_) = load()
    usual = values(derived(vector, True))
    for name in ("chain", *DRAWN):
        assert not set(values(derived(vector | {name: draw("another").hex()}, True))) & set(usual)
    assert not set(values(derived(vector | {"version": 2}, True))) & set(usual)


@pytest.mark.parametrize("initiator", [True, False])
def test_keys_of_small_order(initiator: bool) -> None:
    """V-9: they would make the result known to everybody."""
    (vector, *_) = load()
    for point in (bytes(32), b"\x01" + bytes(31)):
        with pytest.raises(EncryptionError):
            derived(vector, initiator, ephemeral=point)


if __name__ == "__main__":
    PAGE.write_text(json.dumps(worked(), indent=1) + "\n", encoding="utf-8")
