"""The Noise engine: docs/protocol.md H-1, H-2, H-12, and the published vectors.

The handshake and resumption run on this same `SymmetricState`.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_proto.crypto import (
    AES_256_GCM,
    PATTERNS,
    SHA256,
    SHA512,
    SUITES,
    CipherState,
    HandshakePattern,
    HandshakeState,
    PrivateKey,
    Suite,
    SymmetricState,
)
from stt_proto.errors import ArgumentError, EncryptionError, StateError

hexa = bytes.fromhex
suites = pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: suite.name)
SUITE_NAMED = {suite.noise_name: suite for suite in SUITES.values()}
HASH_NAMED = {hash.name: hash for hash in (SHA256, SHA512)}

# haskell-cryptography/cacophony, vectors/cacophony.txt, commit 8ee9d41 (public domain): one exchange with
# XXpsk3 and one with KKpsk0 for each cipher, to be checked where the directory of vectors is absent too.
PROLOGUE = "4a6f686e2047616c74"
PSK = "54686973206973206d7920417573747269616e20706572737065637469766521"
KEYS = {
    "init_prologue": PROLOGUE,
    "init_psks": [PSK],
    "init_static": "e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1",
    "init_ephemeral": "893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a",
    "resp_prologue": PROLOGUE,
    "resp_psks": [PSK],
    "resp_static": "4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893",
    "resp_ephemeral": "bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b",
}
KNOWN = {
    "init_remote_static": "31e0303fd6418d2f8c0e78b91f22e8caed0fbe48656dcf4767e4834f701b8f62",
    "resp_remote_static": "6bc3822a2aa7f4e6981d6538692b3cdf3e6df9eea6ed269eb41d93c22757b75a",
}
PAYLOADS = [
    "4c756477696720766f6e204d69736573",
    "4d757272617920526f746862617264",
    "462e20412e20486179656b",
    "4361726c204d656e676572",
    "4a65616e2d426170746973746520536179",
    "457567656e2042f6686d20766f6e2042617765726b",
]
# name: (handshake hash, messages)
EXCHANGES: dict[str, tuple[str, list[str]]] = {
    "Noise_XXpsk3_25519_AESGCM_SHA256": (
        "033c8317037cb66a83308d5ae57ebbbea254e7ef2267f296c40baa4beaae4fcc",
        [
            (
                "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944ad6766e442bec99c94ff573cd5"
                "316da008cbcc1ebcf47fbe43991ed633bcbb75"
            ),
            (
                "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f14480884336a2439b0bafb5e97fee2c19b6"
                "f9f741125f810ad98e7e9659c48ca3e19652d316d1121073a281e0402b7bc1acb476caa1e7308faad7f75337b3"
                "0f12435c98303cac63cac1d69ac11f2e1971e138ac"
            ),
            (
                "2504a7905dbd6a56820581eb314085df196fda55aa5e77745d61c0b526355733d5ee67b9a4f345be7dc7c6583d"
                "3807626eb0f42c69388955ff0c9f35b03951129db18848a76f6a4d270022"
            ),
            "b20ca762013411bc55d65fc7137a2e719d432cd549cb037f5e9c84",
            "6b10e774950e93bc7cc50f225a105e656eb418310c00c374a81c1452b48cb12000",
            "6d617e8fd817a630755b8dffdee52ad3c39964bdca895a56847fd5f1edb49d14f555cc314b",
        ],
    ),
    "Noise_XXpsk3_25519_ChaChaPoly_SHA256": (
        "a477edf6a131bbdb54707f6ea30eab6cd935d9b560f0e5fd1f053a95a99669fb",
        [
            (
                "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944c9f5ff0e8079630cb7e270c20b"
                "bf480821b77a384a645c71a2fd9b3db1c16a5f"
            ),
            (
                "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843b123def17f71e6ae8e57e0e1de"
                "c5949c5f7415c6f33517398747d821a06dc23ad430aa1fd7381d46195c378a819fd574425462cbb2d4ca339e73"
                "8a0b7001dc91423fbf55a99af0c6f1df21012ceb2f"
            ),
            (
                "52187316111b118d4c060364f7b975dc0809b2590779aff2d63113c564f11744493384db7bf32d5ae6686df6ab"
                "06d508d2e07caaf1d6afc010b978735fc78900e71ae1d314130d042e729a"
            ),
            "eaedc672d4c21e0e2955758756fb98f194c4e90d5deb5b6cf30b27",
            "522d543c5fe799d09a3d9da7ff54d0dc03c8af1dc7751d2ff708339d2290943e98",
            "7d4e2c3873eef6a213b04e72f9df60a91666072d3544c5d96c34a09e2329b5030bee796741",
        ],
    ),
    "Noise_KKpsk0_25519_AESGCM_SHA256": (
        "574508da75f9e5a1c25707190adc49e63c754ec27a4183d9e6acc312e076613a",
        [
            (
                "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c79441f33bde990995eea7167375d6b"
                "68e2a7fa07887dd4f0f21023317d7b04fb0a67"
            ),
            (
                "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843e3502578269a63176a4e59632b"
                "20df3393996180e261048266e49c0c0d9240"
            ),
            "a08f4d4f142f605e9b30daa66784552576b30265889139b97f15cf",
            "5871e43af881754e8ba7def42a69c23bfc9f7d47c3c1009f8ed986",
            "9e20a696864cb0e321197abcd721538c2155073c14313c3fa243a65fef13eb0e79",
            "c4fa90a3f3e7524bdf5dce131ad0b67a0fa1eedd30f717a42596bef8f53d369b5dc94ce508",
        ],
    ),
    "Noise_KKpsk0_25519_ChaChaPoly_SHA256": (
        "32afcdbb63cf90f25409090bc11f7546c534dfb03f37c1626a0cf758881e746f",
        [
            (
                "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c794423f19812300a6051f02195db07"
                "22909fc920796814cfc886ab3a8083c66a5961"
            ),
            (
                "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f14480884320acfe866b4ede922f007d89db"
                "f507216d6aa8646c7fba098da374b1784d4b"
            ),
            "d213fdd768eeef05ee236c6d2983b2029bb472567a5831f4ff592c",
            "facf98016edcfc2566b16866935329b4da833dcd3bbb4173cf638e",
            "f46e7b19ebc94d697afc64b7f7d78d9b89276a6fbd438985d68c5d0261f4d4b774",
            "84119bc1a1a5f97a338c7affb30242cf3111e95c41a07d5e289b160015156a93cb70e8e73d",
        ],
    ),
}


def written_out(name: str) -> dict[str, Any]:
    """One of `EXCHANGES` in the form of the published file."""
    handshake_hash, messages = EXCHANGES[name]
    return {
        "protocol_name": name,
        **KEYS,
        **(KNOWN if "_KK" in name else {}),
        "handshake_hash": handshake_hash,
        "messages": [{"payload": p, "ciphertext": c} for p, c in zip(PAYLOADS, messages, strict=True)],
    }


def side(vector: dict[str, Any], prefix: str) -> HandshakeState:
    """One side of a vector, ready for the first message."""
    _, pattern, _, cipher, hash = vector["protocol_name"].split("_")
    static, remote = vector.get(f"{prefix}_static"), vector.get(f"{prefix}_remote_static")
    psks = vector.get(f"{prefix}_psks")
    return HandshakeState(
        PATTERNS[pattern],
        SUITE_NAMED[cipher],
        initiator=prefix == "init",
        prologue=hexa(vector[f"{prefix}_prologue"]),
        static=PrivateKey(hexa(static)) if static else None,
        remote_static=hexa(remote) if remote else None,
        psk=hexa(psks[0]) if psks else None,
        hash=HASH_NAMED[hash],
    )


def run(vector: dict[str, Any]) -> None:
    """Run a whole vector: each message written by one side, compared, and read by the other."""
    sides = [side(vector, "init"), side(vector, "resp")]
    ephemerals = [PrivateKey(hexa(vector[f"{prefix}_ephemeral"])) for prefix in ("init", "resp")]
    messages = [(hexa(m["payload"]), hexa(m["ciphertext"])) for m in vector["messages"]]
    handshake = len(sides[0].pattern.messages)
    for i, (payload, ciphertext) in enumerate(messages[:handshake]):
        writer, reader = sides[i % 2], sides[1 - i % 2]
        assert not writer.finished
        assert writer.write_message(payload, ephemerals[i % 2] if i < 2 else None) == ciphertext
        assert reader.read_message_untrusted(ciphertext) == payload
    assert all(s.finished for s in sides)
    assert sides[0].symmetric.h.hex() == sides[1].symmetric.h.hex() == vector["handshake_hash"]
    if "init_static" in vector:
        assert sides[0].remote_static == PrivateKey(hexa(vector["resp_static"])).public_bytes
        assert sides[1].remote_static == PrivateKey(hexa(vector["init_static"])).public_bytes
    ciphers = [s.split() for s in sides]
    for i, (payload, ciphertext) in enumerate(messages[handshake:], start=handshake):
        send, receive = ciphers[i % 2][0], ciphers[1 - i % 2][1]
        assert send.encrypt(payload, b"") == ciphertext
        assert receive.decrypt(ciphertext, b"") == payload


class TestVectors:
    @pytest.mark.parametrize("name", EXCHANGES)
    def test_exchanges_written_out(self, name: str) -> None:
        run(written_out(name))

    def test_every_published_exchange(self, vectors: Callable[[str], Any]) -> None:
        """All nine patterns, both ciphers, both hashes, and the transport messages after them."""
        published = vectors("noise")["vectors"]
        assert {v["protocol_name"].split("_")[1] for v in published} == set(PATTERNS)
        assert len(published) == len(PATTERNS) * len(SUITE_NAMED) * len(HASH_NAMED)
        for vector in published:
            run(vector)


def symmetric(suite: Suite = AES_256_GCM) -> SymmetricState:
    state = SymmetricState(b"Noise_test", suite)
    state.mix_key(bytes(32))
    return state


def snapshot(state: SymmetricState) -> tuple[bytes, bytes, int | None]:
    return state.h, state.ck, state.cipher.n if state.cipher is not None else None


class TestSymmetricState:
    @pytest.mark.parametrize("size", [31, 32, 33])
    def test_name(self, size: int) -> None:
        """A name of up to 32 bytes is padded, a longer one hashed."""
        name = bytes(range(1, size + 1))
        state = SymmetricState(name, AES_256_GCM)
        assert state.h == state.ck == (SHA256.new(name).digest() if size > 32 else name.ljust(32, b"\0"))

    def test_nothing_is_sealed_before_the_first_key(self) -> None:
        state = SymmetricState(b"name", AES_256_GCM)
        other = state.copy()
        assert not state.has_key
        assert state.encrypt_and_hash(b"in clear") == b"in clear"
        assert other.decrypt_and_hash(b"in clear") == b"in clear"
        assert state.h == other.h

    @suites
    def test_two_sides_that_mix_alike_understand_each_other(self, suite: Suite) -> None:
        one, two = symmetric(suite), symmetric(suite)
        for state in (one, two):
            state.mix_hash(b"header")
            state.mix_key_and_hash(b"psk")
        for text in (b"", b"second", bytes(2000)):
            assert two.decrypt_and_hash(one.encrypt_and_hash(text)) == text
        assert snapshot(one) == snapshot(two)
        send, receive = one.split()[0], two.split()[0]
        assert receive.decrypt(send.encrypt(b"x", b"ad"), b"ad") == b"x"

    @pytest.mark.parametrize(
        "mix",
        [
            lambda state: state.mix_hash(b""),
            lambda state: state.mix_key(b""),
            lambda state: state.mix_key_and_hash(b""),
            lambda state: state.encrypt_and_hash(b""),
        ],
        ids=["mix_hash", "mix_key", "mix_key_and_hash", "encrypt_and_hash"],
    )
    def test_every_step_counts(self, mix: Callable[[SymmetricState], object]) -> None:
        one, two = symmetric(), symmetric()
        mix(two)
        with pytest.raises(EncryptionError):
            two.decrypt_and_hash(one.encrypt_and_hash(b"text"))

    @suites
    @given(damage=st.integers(min_value=0, max_value=8 * 21 - 1))
    def test_what_does_not_open_changes_nothing(self, suite: Suite, damage: int) -> None:
        """H-12: and the genuine message still opens."""
        one, two = symmetric(suite), symmetric(suite)
        sealed = one.encrypt_and_hash(b"plain")
        flipped = (int.from_bytes(sealed, "big") ^ 1 << damage).to_bytes(len(sealed), "big")
        before = snapshot(two)
        for bad in (flipped, sealed[:-1], b"", sealed + b"\0"):
            with pytest.raises(EncryptionError):
                two.decrypt_and_hash(bad)
            assert snapshot(two) == before
        assert two.decrypt_and_hash(sealed) == b"plain"

    def test_candidates_can_be_tried_from_a_checkpoint(self) -> None:
        """H-12: a wrong candidate may go far before it fails, and leaves the checkpoint as it was."""
        one, two = symmetric(), symmetric()
        checkpoint = snapshot(two)
        sealed = one.encrypt_and_hash(b"plain")
        wrong = two.copy()
        wrong.encrypt_and_hash(b"elsewhere")
        wrong.mix_key_and_hash(b"wrong psk")
        with pytest.raises(EncryptionError):
            wrong.decrypt_and_hash(sealed)
        assert snapshot(two) == checkpoint
        right = two.copy()
        assert right.decrypt_and_hash(sealed) == b"plain"
        assert snapshot(right) == snapshot(one) != snapshot(two) == checkpoint

    def test_nonces_end(self) -> None:
        """Noise revision 34, 5.1: 2^64 - 1 is reserved."""
        state = symmetric()
        assert state.cipher is not None
        state.cipher.n = 2**64 - 2
        other = state.copy()
        assert other.decrypt_and_hash(state.encrypt_and_hash(b"last")) == b"last"
        before = snapshot(state)
        with pytest.raises(StateError):
            state.encrypt_and_hash(b"one too many")
        reserved = CipherState(AES_256_GCM, bytes(32))
        reserved.n = 2**64 - 1
        sealed = AES_256_GCM.aead(bytes(32)).encrypt(AES_256_GCM.noise_nonce(reserved.n), b"text", b"")
        with pytest.raises(EncryptionError):
            reserved.decrypt(sealed, b"")
        assert snapshot(state) == before

    @pytest.mark.parametrize("leave", [pickle.dumps, copy.copy, copy.deepcopy])
    def test_secrets_stay_where_they_are(self, leave: Callable[[object], object]) -> None:
        for secret in (
            SymmetricState(b"name", AES_256_GCM),
            symmetric(),
            CipherState(AES_256_GCM, bytes(32)),
        ):
            with pytest.raises(TypeError, match="holds a secret"):
                leave(secret)
            assert bytes(32).hex() not in repr(secret)


def key(number: int) -> PrivateKey:
    return PrivateKey(bytes([number]) * 32)


def pair(name: str, psks: tuple[bytes, bytes] = (b"p" * 32, b"p" * 32)) -> tuple[HandshakeState, HandshakeState]:
    """Both sides of a pattern; static keys are `key(1)` and `key(2)`."""
    pattern = PATTERNS[name]
    sides = []
    for initiator, own, other in ((True, key(1), key(2)), (False, key(2), key(1))):
        other_known = pattern.responder_known if initiator else pattern.initiator_known
        sides.append(
            HandshakeState(
                pattern,
                AES_256_GCM,
                initiator=initiator,
                static=own if pattern.needs_static(initiator) else None,
                remote_static=other.public_bytes if other_known else None,
                psk=psks[not initiator] if pattern.needs_psk else None,
            )
        )
    return sides[0], sides[1]


class TestHandshakeState:
    @pytest.mark.parametrize("name", PATTERNS)
    def test_a_bad_message_changes_nothing(self, name: str) -> None:
        """H-12: every truncation, a flipped bit in every byte, at each message; the genuine one then passes.

        A flip in a part that nothing seals, as the first message of XX, is noticed later by the transcript.
        """
        initiator, responder = pair(name)
        sides = [initiator, responder]
        for i, tokens in enumerate(initiator.pattern.messages):
            writer, reader = sides[i % 2], sides[1 - i % 2]
            message = writer.write_message(b"payload", key(3 + i) if "e" in tokens else None)
            sealed = writer.symmetric.has_key
            before = snapshot(reader.symmetric), reader.remote_static
            bad = [message[:n] for n in range(len(message) if sealed else 32)] + [bytes(65536)]
            if sealed:
                bad += [message[:n] + bytes([message[n] ^ 1]) + message[n + 1 :] for n in range(len(message))]
            if "ee" in tokens:
                bad.append(bytes(len(message)))
            for wrong in bad:
                with pytest.raises(EncryptionError):
                    reader.read_message_untrusted(wrong)
                assert (snapshot(reader.symmetric), reader.remote_static) == before
            assert reader.read_message_untrusted(message) == b"payload"
        assert initiator.finished
        assert initiator.symmetric.h == responder.symmetric.h

    @given(st.binary(max_size=200))
    def test_any_bytes_are_an_encryption_error(self, data: bytes) -> None:
        _, responder = pair("KKpsk0")
        with pytest.raises(EncryptionError):
            responder.read_message_untrusted(data)

    @pytest.mark.parametrize("name", [name for name in PATTERNS if "psk" in name])
    def test_another_psk(self, name: str) -> None:
        sides = pair(name, (b"p" * 32, b"q" * 32))

        def talk() -> None:
            for i, tokens in enumerate(sides[0].pattern.messages):
                message = sides[i % 2].write_message(b"", key(3 + i) if "e" in tokens else None)
                sides[1 - i % 2].read_message_untrusted(message)

        with pytest.raises(EncryptionError):
            talk()

    def test_prologues_must_agree(self) -> None:
        first, second = (
            HandshakeState(PATTERNS["NNpsk0"], AES_256_GCM, initiator=i, prologue=p, psk=bytes(32))
            for i, p in ((True, b"one"), (False, b"two"))
        )
        with pytest.raises(EncryptionError):
            second.read_message_untrusted(first.write_message(b"", key(3)))

    def test_a_peer_of_small_order_stops_the_writer_and_changes_nothing(self) -> None:
        """H-4: `es` is the first use of the key that the initiator sent."""
        _, responder = pair("XX")
        responder.read_message_untrusted(bytes(32))
        before = snapshot(responder.symmetric)
        with pytest.raises(EncryptionError):
            responder.write_message(b"", key(4))
        assert snapshot(responder.symmetric) == before

    def test_turns(self) -> None:
        initiator, responder = pair("NNpsk0")
        with pytest.raises(StateError):
            responder.write_message(b"", key(4))
        with pytest.raises(StateError):
            initiator.read_message_untrusted(bytes(48))
        with pytest.raises(StateError):
            initiator.split()
        responder.read_message_untrusted(initiator.write_message(b"", key(3)))
        with pytest.raises(StateError):
            initiator.write_message(b"", key(3))
        initiator.read_message_untrusted(responder.write_message(b"", key(4)))
        for state in (initiator, responder):
            with pytest.raises(StateError):
                state.write_message()
            with pytest.raises(StateError):
                state.read_message_untrusted(b"")

    def test_split_gives_each_side_its_own_order(self) -> None:
        initiator, responder = pair("NNpsk0")
        responder.read_message_untrusted(initiator.write_message(b"", key(3)))
        initiator.read_message_untrusted(responder.write_message(b"", key(4)))
        (send_i, receive_i), (send_r, receive_r) = initiator.split(), responder.split()
        assert receive_r.decrypt(send_i.encrypt(b"there", b""), b"") == b"there"
        assert receive_i.decrypt(send_r.encrypt(b"back", b""), b"") == b"back"
        with pytest.raises(EncryptionError):
            receive_i.decrypt(send_i.encrypt(b"reflected", b""), b"")

    def test_the_longest_message(self) -> None:
        initiator, responder = pair("NNpsk0")
        room = 65535 - 32 - 16
        with pytest.raises(ArgumentError) as caught:
            initiator.write_message(bytes(room + 1), key(3))
        assert caught.value.argument == "payload"
        message = initiator.write_message(bytes(room), key(3))
        assert len(message) == 65535
        assert responder.read_message_untrusted(message) == bytes(room)

    @pytest.mark.parametrize("ephemeral", [None, key(3)], ids=["missing", "not wanted"])
    def test_ephemeral_keys_come_from_outside_and_only_when_sent(self, ephemeral: PrivateKey | None) -> None:
        initiator, responder = pair("XX")
        if ephemeral is not None:
            responder.read_message_untrusted(initiator.write_message(b"", key(3)))
            initiator.read_message_untrusted(responder.write_message(b"", key(4)))
        with pytest.raises(ArgumentError) as caught:
            initiator.write_message(b"", ephemeral)
        assert caught.value.argument == "ephemeral"

    @pytest.mark.parametrize(
        ("pattern", "changes", "argument"),
        [
            ("KKpsk0", {"static": None}, "static"),
            ("KKpsk0", {"remote_static": None}, "remote_static"),
            ("KKpsk0", {"remote_static": bytes(31)}, "remote_static"),
            ("KKpsk0", {"psk": None}, "psk"),
            ("KKpsk0", {"psk": bytes(31)}, "psk"),
            ("KK", {}, "psk"),
            ("XXpsk3", {}, "remote_static"),
            ("NNpsk0", {}, "static"),
        ],
    )
    def test_keys_that_the_pattern_needs(self, pattern: str, changes: dict[str, Any], argument: str) -> None:
        keys = {"static": key(1), "remote_static": key(2).public_bytes, "psk": bytes(32)} | changes
        with pytest.raises(ArgumentError) as caught:
            HandshakeState(PATTERNS[pattern], AES_256_GCM, initiator=True, **keys)
        assert caught.value.argument == argument

    def test_what_a_pattern_needs(self) -> None:
        needs = {name: (p.needs_static(True), p.needs_static(False), p.needs_psk) for name, p in PATTERNS.items()}
        assert needs == {
            "NNpsk0": (False, False, True),
            "NNpsk2": (False, False, True),
            "KK": (True, True, False),
            "KKpsk0": (True, True, True),
            "KKpsk2": (True, True, True),
            "IK": (True, True, False),
            "IKpsk2": (True, True, True),
            "XX": (True, True, False),
            "XXpsk3": (True, True, True),
        }
        one_way = HandshakePattern("N", (("e", "es"),), responder_known=True)
        assert (one_way.needs_static(True), one_way.needs_static(False)) == (False, True)
