"""The wrappers in `stt_proto.crypto` against Project Wycheproof (C2SP/wycheproof, testvectors_v1, commit
dac1dd4).

Each file is counted, so that a test cannot pass by running nothing. Cases outside what a suite ever does
(keys of other lengths than 32 bytes, nonces of other lengths than 12) are left to the library. Where the files are not
there those tests are skipped; a few of their cases are written out here, and always run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256, shake_256
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


# -- written out ---------------------------------------------------------------------------------------------------

AEAD = {
    AES_256_GCM: (
        "92ace3e348cd821092cd921aa3546374299ab46209691bc28b8752d17f123c20",
        "00112233445566778899aabb",
        "00000000ffffffff",
        "00010203040506070809",
        "e27abdd2d2a53d2f136b9a4a2579529301bcfb71c78d4060f52c",
    ),
    CHACHA20_POLY1305: (
        "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
        "000102030405060708090a0b",
        "00000000000000000000000000000000",
        "65b63bf074b7283992e24b1ac0df0d22b555dbe2254d94a43f1de748d3cc6f0d",
        "000000000000000000000000000000000000000000000000000000000000000039f4fce3026d83789ffd1ee6f2cd7c4f",
    ),
}
"""Key, nonce, associated data, message, and what is sealed: aes_gcm_test 91, chacha20_poly1305_test 122."""
FORGED = {
    AES_256_GCM: (
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "505152535455565758595a5b",
        "",
        "b2061457c0759fc1749f174ee1ccadfa9de8fef6d8ab1bf1bf887232eab590dd",
    ),
    CHACHA20_POLY1305: (
        "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f",
        "000102030405060708090a0b",
        "000102",
        "d03bcb3ca52d48d1d203b1e7b1a5995a28914007a6119dd3f109bba21ce9a7d6",
    ),
}
"""Key, nonce, associated data, and what has bit 0 of its tag flipped: cases 130 and 166."""
EXCHANGES = {
    "normal": (
        "c8a9d5a91091ad851c668b0736c1c9a02936c0d3ad62670858088047ba057475",
        "504a36999f489cd2fdbc08baff3d88fa00569ba986cba22548ffde80f9806829",
        "436a2c040cf45fea9b29a0cb81b1f41458f863d0d61b453d0a982720d6d61320",
    ),
    "public key on twist": (
        "d85d8c061a50804ac488ad774ac716c3f5ba714b2712e048491379a500211958",
        "63aa40c6e38346c5caf23a6df0a5e6c80889a08647e551b3563449befcfc9733",
        "279df67a7c4611db4708a0e8282b195e5ac0ed6f4b2f292c6fbd0acac30d1332",
    ),
    "non-canonical public key": (
        "88dd14e2711ebd0b0026c651264ca965e7e3da5082789fbab7e24425e7b4377e",
        "f1ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "6919992d6a591e77b3f2bacbd74caf3aea4be4802b18b2bc07eb09ade3ad6662",
    ),
}
"""x25519_test 1, 2 and 89."""
SMALL_ORDER = {
    "88227494038f2bb811d47805bcdf04a2ac585ada7f2f23389bfd4658f9ddd45e": "00" * 32,
    "e0f978dfcd3a8f1a5093418de54136a584c20b7b349afdf6c0520886f95b1272": (
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"
    ),
}
"""x25519_test 32 and 63."""
SEED = (
    "7c9935a0b07694aa0c6d10e4db6b1add2fd81a25ccb148032dcd739936737f2d"
    "8626ed79d451140800e03b59b956f8210e556067407d13dc90fa9e8b872bfb8f"
)
"""mlkem_768_keygen_seed_test 1; below is the SHA-256 of its public key."""
PUBLIC = "86adbca81f4fee893e2fb58fb98aa2fe188f501fed268d7f4056f8c05c4e53c4"

suites = pytest.mark.parametrize("suite", [AES_256_GCM, CHACHA20_POLY1305], ids=["AES-256-GCM", "ChaCha20-Poly1305"])


@suites
def test_aead_written_out(suite: Suite) -> None:
    """W-8: what is sealed opens, and with one bit changed anywhere nothing does."""
    key, nonce, aad, message, sealed = map(hexa, AEAD[suite])
    assert suite.aead(key).encrypt(nonce, message, aad) == sealed
    assert suite.aead(key).decrypt(nonce, sealed, aad) == message
    key, nonce, aad, forged = map(hexa, FORGED[suite])
    with pytest.raises(InvalidTag):
        suite.aead(key).decrypt(nonce, forged, aad)


def test_hkdf_written_out() -> None:
    """RFC 5869, A.1 (hkdf_sha256_test 1); and case 25, which asks for more than there is."""
    okm = hkdf(hexa("000102030405060708090a0b0c"), b"\x0b" * 22, hexa("f0f1f2f3f4f5f6f7f8f9"), 42)
    assert okm.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    with pytest.raises(ArgumentError):
        hkdf(hexa("d5efc88adf3d5afc"), hexa("db89f54af757f8c7"), hexa("134f085797b1ae2e"), 8161)


@pytest.mark.parametrize("name", EXCHANGES)
def test_x25519_written_out(name: str) -> None:
    """H-4."""
    private, public, shared = map(hexa, EXCHANGES[name])
    assert PrivateKey(private).exchange(public) == shared


@pytest.mark.parametrize("private", SMALL_ORDER)
def test_x25519_of_small_order_written_out(private: str) -> None:
    """H-4: the result would be zero."""
    with pytest.raises(EncryptionError):
        PrivateKey(hexa(private)).exchange(hexa(SMALL_ORDER[private]))


def test_kem_written_out() -> None:
    """H-5: the key of a seed; a ciphertext that nobody made gives SHAKE256(z || c) (FIPS 203, algorithm 18)."""
    kem, seed = MLKEM768(), hexa(SEED)
    public = kem.public_bytes(seed)
    assert sha256(public).hexdigest() == PUBLIC
    secret, ciphertext = kem.encapsulate(public)
    assert kem.decapsulate(seed, ciphertext) == secret
    changed = bytes((ciphertext[0] ^ 1,)) + ciphertext[1:]
    for made_up in (bytes(len(ciphertext)), changed):
        assert kem.decapsulate(seed, made_up) == shake_256(seed[32:] + made_up).digest(32)
    with pytest.raises(EncryptionError):
        kem.decapsulate(seed, ciphertext[:-1])
    with pytest.raises(ArgumentError):
        kem.decapsulate(seed[:-1], ciphertext)


# -- all of them ---------------------------------------------------------------------------------------------------


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
