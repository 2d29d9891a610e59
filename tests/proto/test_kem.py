"""ML-KEM-768 behind the interface that tests can replace: docs/protocol.md H-4, H-5."""

from __future__ import annotations

import pickle

import pytest

from stt_proto.crypto import (
    KEM_CIPHERTEXT_SIZE,
    KEM_PUBLIC_SIZE,
    KEM_SECRET_SIZE,
    KEM_SEED_SIZE,
    MLKEM768,
    Kem,
)
from stt_proto.errors import ArgumentError, EncryptionError

SEED = bytes(range(KEM_SEED_SIZE))
KEM: Kem = MLKEM768()


def test_both_sides_agree() -> None:
    """H-5: the seed is all that the responder keeps between the two messages."""
    public = KEM.public_bytes(SEED)
    secret, ciphertext = KEM.encapsulate(public)
    assert (len(public), len(ciphertext), len(secret)) == (
        KEM_PUBLIC_SIZE,
        KEM_CIPHERTEXT_SIZE,
        KEM_SECRET_SIZE,
    )
    assert KEM.decapsulate(SEED, ciphertext) == secret


def test_an_expanded_key_is_the_same_key() -> None:
    key = KEM.private_key(SEED)
    assert key.public_bytes() == KEM.public_bytes(SEED)
    secret, ciphertext = KEM.encapsulate(key.public_bytes())
    assert key.decapsulate(ciphertext) == secret


def test_the_seed_decides() -> None:
    assert KEM.public_bytes(SEED) == MLKEM768().public_bytes(SEED)
    assert KEM.public_bytes(SEED) != KEM.public_bytes(SEED[::-1])


def test_every_encapsulation_is_fresh() -> None:
    public = KEM.public_bytes(SEED)
    assert KEM.encapsulate(public) != KEM.encapsulate(public)


def test_damage_gives_another_secret() -> None:
    """Implicit rejection: no error tells an attacker anything; what is sealed next does not open."""
    secret, ciphertext = KEM.encapsulate(KEM.public_bytes(SEED))
    damaged = bytes([ciphertext[0] ^ 1]) + ciphertext[1:]
    assert KEM.decapsulate(SEED, damaged) != secret
    assert KEM.decapsulate(SEED, damaged) == KEM.decapsulate(SEED, damaged)


@pytest.mark.parametrize("size", [0, 1, KEM_PUBLIC_SIZE - 1, KEM_PUBLIC_SIZE + 1])
def test_public_key_of_another_length(size: int) -> None:
    """H-4."""
    with pytest.raises(EncryptionError):
        KEM.encapsulate(bytes(size))


def test_public_key_with_a_coefficient_beyond_the_modulus() -> None:
    """H-4; FIPS 203, 7.2: the modulus check."""
    with pytest.raises(EncryptionError):
        KEM.encapsulate(b"\xff" * KEM_PUBLIC_SIZE)


@pytest.mark.parametrize("size", [0, 1, KEM_CIPHERTEXT_SIZE - 1, KEM_CIPHERTEXT_SIZE + 1])
def test_ciphertext_of_another_length(size: int) -> None:
    """H-4."""
    with pytest.raises(EncryptionError):
        KEM.decapsulate(SEED, bytes(size))


@pytest.mark.parametrize("size", [0, 32, 63, 65])
def test_seed_of_another_length(size: int) -> None:
    with pytest.raises(ArgumentError) as caught:
        KEM.public_bytes(bytes(size))
    assert caught.value.argument == "seed"


def test_a_private_key_stays_where_it_is() -> None:
    with pytest.raises(TypeError, match="holds a secret"):
        pickle.dumps(KEM.private_key(SEED))
