"""The wrappers in `stt_proto.crypto` against Project Wycheproof (C2SP/wycheproof, testvectors_v1, commit
dac1dd4).

Each file is counted, so that a test cannot pass by running nothing. Cases outside what a suite ever does
(keys of other lengths than 32 bytes, nonces of other lengths than 12) are left to the library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from stt_proto.crypto import (
    AES_256_GCM,
    CHACHA20_POLY1305,
    MLKEM768,
    InvalidTag,
    PrivateKey,
    Suite,
    hkdf,
    hkdf_expand,
    hkdf_extract,
)
from stt_proto.errors import ArgumentError, EncryptionError

Load = Callable[[str], Any]
hexa = bytes.fromhex


def cases(file: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every case with its group."""
    for group in file["testGroups"]:
        for case in group["tests"]:
            yield group, case


@pytest.mark.parametrize(
    ("suite", "name", "valid", "invalid"),
    [(AES_256_GCM, "aes_gcm_test", 39, 27), (CHACHA20_POLY1305, "chacha20_poly1305_test", 256, 60)],
    ids=["AES-256-GCM", "ChaCha20-Poly1305"],
)
def test_aead(vectors: Load, suite: Suite, name: str, valid: int, invalid: int) -> None:
    """W-8: a valid case seals and opens; an invalid one is `InvalidTag` and nothing else."""
    ran = {"valid": 0, "invalid": 0}
    for group, case in cases(vectors(f"wycheproof/{name}")):
        if (group["keySize"], group["ivSize"]) != (256, 96):
            continue
        aead = suite.aead(hexa(case["key"]))
        nonce, aad, message = hexa(case["iv"]), hexa(case["aad"]), hexa(case["msg"])
        sealed = hexa(case["ct"] + case["tag"])
        if case["result"] == "valid":
            assert aead.encrypt(nonce, message, aad) == sealed, case["tcId"]
            assert aead.decrypt(nonce, sealed, aad) == message, case["tcId"]
        else:
            with pytest.raises(InvalidTag):
                aead.decrypt(nonce, sealed, aad)
        ran[case["result"]] += 1
    assert ran == {"valid": valid, "invalid": invalid}


def test_hkdf(vectors: Load) -> None:
    ran = {"valid": 0, "invalid": 0}
    for _, case in cases(vectors("wycheproof/hkdf_sha256_test")):
        ikm, salt, info, size = hexa(case["ikm"]), hexa(case["salt"]), hexa(case["info"]), case["size"]
        if case["result"] == "valid":
            assert hkdf(salt, ikm, info, size) == hexa(case["okm"]), case["tcId"]
            assert hkdf_expand(hkdf_extract(salt, ikm), info, size) == hexa(case["okm"]), case["tcId"]
        else:
            with pytest.raises(ArgumentError):
                hkdf(salt, ikm, info, size)
        ran[case["result"]] += 1
    assert ran == {"valid": 83, "invalid": 3}


def test_x25519(vectors: Load) -> None:
    """H-4: a result of zero is refused; all else agrees, canonical or not, on curve or twist."""
    agreed = refused = 0
    for _, case in cases(vectors("wycheproof/x25519_test")):
        private = PrivateKey(hexa(case["private"]))
        public, shared = hexa(case["public"]), hexa(case["shared"])
        if any(shared):
            assert private.exchange(public) == shared, case["tcId"]
            agreed += 1
        else:
            assert "ZeroSharedSecret" in case["flags"]
            with pytest.raises(EncryptionError):
                private.exchange(public)
            refused += 1
    assert (agreed, refused) == (487, 31)


def test_kem_keys(vectors: Load) -> None:
    """H-5: the public key that a seed stands for."""
    kem = MLKEM768()
    ran = 0
    for _, case in cases(vectors("wycheproof/mlkem_768_keygen_seed_test")):
        assert kem.public_bytes(hexa(case["seed"])) == hexa(case["ek"]), case["tcId"]
        ran += 1
    assert ran == 100


def test_kem_decapsulation(vectors: Load) -> None:
    """H-5: a seed of a wrong length is our mistake, a ciphertext of a wrong length the peer's."""
    kem = MLKEM768()
    ran = {"valid": 0, "Private key": 0, "Ciphertext": 0}
    for _, case in cases(vectors("wycheproof/mlkem_768_test")):
        seed, ciphertext = hexa(case["seed"]), hexa(case["c"])
        if case["result"] == "valid":
            assert kem.decapsulate(seed, ciphertext) == hexa(case["K"]), case["tcId"]
            ran["valid"] += 1
        else:
            what = case["comment"].rpartition(" too ")[0]
            with pytest.raises(ArgumentError if what == "Private key" else EncryptionError):
                kem.decapsulate(seed, ciphertext)
            ran[what] += 1
    assert ran == {"valid": 153, "Private key": 20, "Ciphertext": 20}
