"""Cipher suites, header masks, key derivation, X25519: docs/protocol.md I-2, W-8, H-1, H-4, P-4, P-11."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_proto.crypto import (
    AES_256_GCM,
    CHACHA20_POLY1305,
    KEY_SIZE,
    MASK_SIZE,
    NONCE_SIZE,
    SAMPLE_SIZE,
    SUITES,
    TAG_SIZE,
    InvalidTag,
    PrivateKey,
    Suite,
    exchange,
    hkdf,
    hkdf_expand,
    hkdf_extract,
    is_canonical,
    public_key,
)
from stt_proto.crypto.x25519 import FIELD_PRIME, load_scalar
from stt_proto.errors import ArgumentError, EncryptionError

hexa = bytes.fromhex
suites = pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: suite.name)

# RFC 5869, appendix A.1 to A.3: SHA-256. (ikm, salt, info, prk, okm)
RFC_5869 = {
    "A.1": (
        hexa("0b" * 22),
        hexa("000102030405060708090a0b0c"),
        hexa("f0f1f2f3f4f5f6f7f8f9"),
        hexa("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"),
        hexa("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"),
    ),
    "A.2": (
        bytes(range(0x50)),
        bytes(range(0x60, 0xB0)),
        bytes(range(0xB0, 0x100)),
        hexa("06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244"),
        hexa(
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
            "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87"
        ),
    ),
    "A.3": (
        hexa("0b" * 22),
        b"",
        b"",
        hexa("19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04"),
        hexa("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"),
    ),
}

# RFC 7748, section 6.1.
ALICE = hexa("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
ALICE_PUBLIC = hexa("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
BOB = hexa("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
BOB_PUBLIC = hexa("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
SHARED = hexa("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")


class TestHkdf:
    @pytest.mark.parametrize("case", RFC_5869)
    def test_rfc_5869(self, case: str) -> None:
        ikm, salt, info, prk, okm = RFC_5869[case]
        assert hkdf_extract(salt, ikm) == prk
        assert hkdf_expand(prk, info, len(okm)) == okm
        assert hkdf(salt, ikm, info, len(okm)) == okm

    def test_a_shorter_output_is_the_beginning_of_a_longer_one(self) -> None:
        longest = hkdf_expand(bytes(32), b"info", 8160)
        assert all(hkdf_expand(bytes(32), b"info", n) == longest[:n] for n in (1, 12, 31, 32, 33, 8159))

    @pytest.mark.parametrize("length", [-1, 0, 8161])
    def test_length_out_of_range(self, length: int) -> None:
        for call in (lambda: hkdf_expand(bytes(32), b"", length), lambda: hkdf(b"", bytes(32), b"", length)):
            with pytest.raises(ArgumentError) as caught:
                call()
            assert caught.value.argument == "length"


class TestSuites:
    def test_numbers_and_names(self) -> None:
        """W-8, H-1."""
        assert dict(SUITES) == {1: AES_256_GCM, 2: CHACHA20_POLY1305}
        assert [(s.id, s.noise_name) for s in SUITES.values()] == [(1, "AESGCM"), (2, "ChaChaPoly")]

    def test_limits_of_use(self) -> None:
        """P-11."""
        assert [s.confidentiality_limit for s in SUITES.values()] == [2**23, 2**23]
        assert [s.integrity_limit for s in SUITES.values()] == [2**52, 2**36]

    def test_a_suite_never_changes(self) -> None:
        with pytest.raises(AttributeError):
            AES_256_GCM.id = 3  # type: ignore[misc]
        with pytest.raises(TypeError):
            SUITES[3] = AES_256_GCM  # type: ignore[index]

    @suites
    def test_what_was_sealed_opens_and_nothing_else(self, suite: Suite) -> None:
        aead = suite.aead(bytes(range(KEY_SIZE)))
        nonce = bytes(NONCE_SIZE)
        sealed = aead.encrypt(nonce, memoryview(b"plaintext"), bytearray(b"data"))
        assert len(sealed) == len(b"plaintext") + TAG_SIZE
        assert aead.decrypt(nonce, sealed, b"data") == b"plaintext"
        flipped = bytes([sealed[0] ^ 1]) + sealed[1:]
        for wrong in (
            (nonce, flipped, b"data"),
            (nonce, sealed[:-1], b"data"),
            (nonce, sealed, b"date"),
            (nonce, sealed, None),
            (bytes(11) + b"\1", sealed, b"data"),
            (nonce, b"", b"data"),
            (nonce, bytes(TAG_SIZE - 1), b"data"),
        ):
            with pytest.raises(InvalidTag):
                aead.decrypt(*wrong)

    def test_noise_nonces(self) -> None:
        """Noise revision 34, sections 12.3 and 12.4."""
        assert AES_256_GCM.noise_nonce(0x0102) == hexa("000000000000000000000102")
        assert CHACHA20_POLY1305.noise_nonce(0x0102) == hexa("000000000201000000000000")
        for suite in SUITES.values():
            assert suite.noise_nonce(2**64 - 2)[:4] == bytes(4)


class TestHeaderMasks:
    """P-4."""

    def test_aes(self) -> None:
        """FIPS 197, appendix C.3."""
        key = bytes(range(32))
        mask = AES_256_GCM.header_mask(key)
        sample = hexa("00112233445566778899aabbccddeeff")
        assert mask(sample) == hexa("8ea2b7ca51")

    def test_chacha(self) -> None:
        """RFC 9001, appendix A.5."""
        key = hexa("25a282b9e82f06f21f488917a4fc8f1b73573685608597d0efcb076b0ab7a7a4")
        mask = CHACHA20_POLY1305.header_mask(key)
        assert mask(hexa("5e5cd55c41f69080575d7999c25a5bfb")) == hexa("aefefe7d03")

    @suites
    def test_a_mask_depends_on_key_and_sample_alone(self, suite: Suite) -> None:
        """One long-lived context keeps nothing of the samples before."""
        mask = suite.header_mask(bytes(KEY_SIZE))
        samples = [bytes([i]) * SAMPLE_SIZE for i in (0, 1, 0xFF)]
        masks = [mask(sample) for sample in samples]
        assert len(set(masks)) == 3
        assert {len(m) for m in masks} == {MASK_SIZE}
        assert [mask(memoryview(sample)) for sample in reversed(samples)] == masks[::-1]
        assert [suite.header_mask(bytes(KEY_SIZE))(sample) for sample in samples] == masks
        assert suite.header_mask(b"\1" * KEY_SIZE)(samples[0]) != masks[0]

    @given(st.binary(min_size=SAMPLE_SIZE, max_size=SAMPLE_SIZE))
    def test_any_sample_gives_a_mask(self, sample: bytes) -> None:
        for suite in SUITES.values():
            assert len(suite.header_mask(bytes(KEY_SIZE))(sample)) == MASK_SIZE


class TestX25519:
    def test_rfc_7748(self) -> None:
        assert public_key(ALICE) == ALICE_PUBLIC
        alice, bob = PrivateKey(ALICE), PrivateKey(BOB)
        assert bob.public_bytes == BOB_PUBLIC
        assert alice.exchange(BOB_PUBLIC) == exchange(bob, ALICE_PUBLIC) == SHARED

    @pytest.mark.parametrize(
        "bad",
        [b"", bytes(31), bytes(33), bytes(32), b"\1" + bytes(31), FIELD_PRIME.to_bytes(32, "little")],
        ids=["empty", "short", "long", "zero", "one", "prime"],
    )
    def test_bad_public_keys(self, bad: bytes) -> None:
        """H-4."""
        with pytest.raises(EncryptionError):
            PrivateKey(ALICE).exchange(bad)

    @pytest.mark.parametrize("size", [0, 31, 33])
    def test_private_keys_have_32_bytes(self, size: int) -> None:
        for make in (PrivateKey, load_scalar):
            with pytest.raises(ArgumentError) as caught:
                make(bytes(size))
            assert caught.value.argument == "private_bytes"

    def test_canonical(self) -> None:
        """I-2."""
        p = FIELD_PRIME
        for value in (0, 9, p - 1):
            assert is_canonical(value.to_bytes(32, "little"))
        for value in (p, p + 1, 2**255 - 1, 2**255, 2**255 + 9, 2**256 - 1):
            assert not is_canonical(value.to_bytes(32, "little"))
        assert not is_canonical(bytes(31))
        assert not is_canonical(bytes(33))

    @given(st.binary(min_size=32, max_size=32))
    def test_public_keys_are_canonical(self, private: bytes) -> None:
        assert is_canonical(public_key(private))

    def test_a_private_key_stays_where_it_is(self) -> None:
        key = PrivateKey(ALICE)
        assert ALICE_PUBLIC.hex() in repr(key)
        assert ALICE.hex() not in repr(key)
        for leave in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="PrivateKey holds a secret"):
                leave(key)
