"""Identities and seeds: docs/protocol.md I-1 to I-4."""

from __future__ import annotations

import copy
import pickle
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_proto.crypto import PrivateKey, hkdf, is_canonical
from stt_proto.errors import ArgumentError, EncryptionError
from stt_proto.identity import (
    Identity,
    check_seeds,
    decode_node_key_untrusted,
    encode_node_key,
    generate_node_seed,
    seed_from_file_bytes,
    shared_seed_bytes,
)

SEED = bytes(range(32))
OTHER = bytes(range(1, 33))
node_seeds = st.binary(min_size=32, max_size=80)


def argument_of(call: Any, *args: Any) -> str:
    """The argument that the call complains about; its message must not quote what was given."""
    with pytest.raises(ArgumentError) as caught:
        call(*args)
    assert isinstance(caught.value, ValueError)
    return caught.value.argument


class TestIdentity:
    def test_key_is_derived_as_specified(self) -> None:
        """I-2, recomputed from its text; and a fixed figure, so that it never changes by accident."""
        private = hkdf(b"stt1 node", SEED, b"stt1 node key", 32)
        identity = Identity.from_seed(SEED)
        assert identity.node_id == PrivateKey(private).public_bytes
        assert identity.node_id == identity.static_key.public_bytes
        assert identity.node_id.hex() == "8cfcb16e6834ca3ed317d2db1042b0fddde5696ebeec25014299c58b35ab0d7d"

    @given(node_seeds)
    def test_node_id_is_a_canonical_function_of_the_seed(self, seed: bytes) -> None:
        """I-2."""
        identity = Identity.from_seed(seed)
        assert is_canonical(identity.node_id)
        assert identity.node_id == Identity.from_seed(bytearray(seed)).node_id
        assert identity.node_id != Identity.from_seed(seed + b"\0").node_id

    def test_two_identities_agree(self) -> None:
        one, two = Identity.from_seed(SEED), Identity.from_seed(OTHER)
        assert one.exchange(two.node_id) == two.exchange(one.node_id)
        with pytest.raises(EncryptionError):
            one.exchange(bytes(32))

    def test_other_uses_have_keys_of_their_own(self) -> None:
        """I-3."""
        identity = Identity.from_seed(SEED)
        assert identity.derive("a", 40) == hkdf(b"stt1 node", SEED, b"stt1 use a", 40)
        assert identity.derive("a", 40)[:32] == identity.derive("a", 32) != identity.derive("b", 32)
        assert PrivateKey(identity.derive("node key", 32)).public_bytes != identity.node_id
        assert argument_of(identity.derive, "a", 0) == "length"

    def test_knows_its_seed_without_keeping_it(self) -> None:
        identity = Identity.from_seed(SEED)
        assert identity.made_from(SEED)
        assert not identity.made_from(OTHER)
        assert not identity.made_from(SEED + b"\0")
        assert not identity.made_from(b"")

    def test_shows_nothing_but_its_id(self) -> None:
        identity = Identity.from_seed(SEED)
        assert repr(identity) == str(identity) == f"<Identity {identity.node_id.hex()}>"
        assert not hasattr(identity, "__dict__")

    @pytest.mark.parametrize("leave", [pickle.dumps, copy.copy, copy.deepcopy])
    def test_stays_where_it_is(self, leave: Any) -> None:
        with pytest.raises(TypeError, match="Identity holds a secret"):
            leave(Identity.from_seed(SEED))


class TestNodeSeed:
    """I-1."""

    @pytest.mark.parametrize("bad", ["a" * 32, b"", bytes(31), memoryview(bytes(31)), None, 32, [0] * 32])
    def test_refused(self, bad: Any) -> None:
        assert argument_of(Identity.from_seed, bad) == "node_seed"
        assert argument_of(check_seeds, bad, b"shared") == "node_seed"
        assert argument_of(encode_node_key, bad) == "node_seed"

    @pytest.mark.parametrize("shared", [SEED, bytearray(SEED), SEED.decode()])
    def test_equal_to_the_shared_seed(self, shared: Any) -> None:
        assert argument_of(check_seeds, SEED, shared) == "node_seed"

    def test_accepted(self) -> None:
        check_seeds(SEED, OTHER)
        check_seeds(SEED, "passphrase")
        check_seeds(bytearray(SEED), SEED[:31])

    def test_made_from_entropy(self) -> None:
        asked = []

        def entropy(n: int) -> bytes:
            asked.append(n)
            return SEED[:n]

        assert generate_node_seed(entropy) == SEED
        assert asked == [32]


class TestSharedSeed:
    """I-4."""

    def test_text_in_any_composition_is_one_seed(self) -> None:
        composed, decomposed = "caf\u00e9", "cafe\u0301"
        assert composed != decomposed
        assert shared_seed_bytes(composed) == shared_seed_bytes(decomposed) == b"caf\xc3\xa9"

    @given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
    def test_text_is_nfc_in_utf_8(self, text: str) -> None:
        assert shared_seed_bytes(text) == unicodedata.normalize("NFC", text).encode("utf-8")

    @given(st.binary(min_size=1))
    def test_bytes_stay_as_they_are(self, seed: bytes) -> None:
        assert shared_seed_bytes(seed) == shared_seed_bytes(bytearray(seed)) == seed

    @pytest.mark.parametrize("bad", ["", b"", bytearray(), None, 5, ["x"], "secret\udc80"])
    def test_refused(self, bad: Any) -> None:
        assert argument_of(shared_seed_bytes, bad) == "shared_seed"
        assert argument_of(check_seeds, SEED, bad) == "shared_seed"

    def test_text_that_cannot_be_encoded_is_not_quoted(self) -> None:
        with pytest.raises(ArgumentError) as caught:
            shared_seed_bytes("secret\udc80")
        assert "secret" not in str(caught.value)
        assert caught.value.__context__ is None

    @pytest.mark.parametrize(
        ("raw", "seed"),
        [
            (b"pass", b"pass"),
            (b"pass\n", b"pass"),
            (b"pass\r\n", b"pass"),
            (b"pass\n\n", b"pass\n"),
            (b"pass\r\n\r\n", b"pass\r\n"),
            (b"pass\r", b"pass\r"),
            (b" pass \n", b" pass "),
            (b"\n", b""),
            (b"", b""),
        ],
    )
    def test_a_file_loses_exactly_one_newline(self, raw: bytes, seed: bytes) -> None:
        assert seed_from_file_bytes(raw) == seed


class TestKeyFile:
    @given(node_seeds)
    def test_round_trip(self, seed: bytes) -> None:
        text = encode_node_key(seed)
        assert text.startswith("stt-node-seed-1 ")
        assert text.endswith("\n")
        assert text.count("\n") == 1
        for variant in (text, text.rstrip("\n"), text.replace("\n", "\r\n")):
            assert decode_node_key_untrusted(variant) == seed

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "\n",
            SEED.hex(),
            f"stt-node-seed-2 {SEED.hex()}\n",
            f"stt-node-seed-1  {SEED.hex()}\n",
            f"stt-node-seed-1 {SEED.hex()}\n\n",
            f" stt-node-seed-1 {SEED.hex()}\n",
            f"stt-node-seed-1 {SEED.hex()} \n",
            f"stt-node-seed-1 {SEED.hex().upper()}\n",
            f"stt-node-seed-1 {SEED.hex()}0\n",
            f"stt-node-seed-1 {SEED[:31].hex()}\n",
            f"stt-node-seed-1 {'zz' * 32}\n",
            "stt-node-seed-1 " + "\u0661" * 64,
        ],
    )
    def test_refused_in_a_message_that_shows_nothing(self, text: str) -> None:
        with pytest.raises(ArgumentError) as caught:
            decode_node_key_untrusted(text)
        assert caught.value.argument == "node_key"
        assert SEED.hex()[:8] not in str(caught.value).lower()

    @given(st.text())
    def test_any_text_is_a_key_or_an_argument_error(self, text: str) -> None:
        with pytest.raises(ArgumentError):
            decode_node_key_untrusted(text)
