"""CPace: docs/protocol.md H-3 and H-4.

The figures written out here are those of draft-irtf-cfrg-cpace (repository cfrg/draft-irtf-cfrg-cpace,
testvectors.json, commit 8fb4056, and the draft's section on low-order points), so that they are checked where
the directory of vectors is absent too.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from hashlib import sha512
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_proto.crypto import BLIND_SIZE, CPace, channel_identifier, hkdf, is_canonical
from stt_proto.crypto.cpace import (
    generator,
    generator_string,
    isk,
    lv_cat,
    map_to_curve,
    prepend_len,
    psk,
    share,
    shared_secret,
    transcript_ir,
)
from stt_proto.crypto.x25519 import FIELD_PRIME
from stt_proto.errors import ArgumentError, EncryptionError

hexa = bytes.fromhex
P, A = FIELD_PRIME, 486662

PRS, CI = b"Password", b"\x0bA_initiator\x0bB_responder"
SID = hexa("7e4b4791d6a8ef019b936c79fb7f2c57")
G = hexa("d04bf6d41f6a289632a2e929fa29bebd51092512a7829fdde7d314b62f05a73f")
YA_SCALAR = hexa("21b4f4bd9e64ed355c3eb676a28ebedaf6d8f17bdc365995b319097153044080")
YA = hexa("1d13c89278cdadd826f6d8d7f887701430f8380ddc17611cdd6dc989ce0c9f32")
YB_SCALAR = hexa("848b0779ff415f0af4ea14df9dd1d3c29ac41d836c7808896c4eba19c51ac40a")
YB = hexa("248cccf6d5cdc3646f0ad593f9e6cef4e69d4945f8372e623512ecea32185623")
K = hexa("5b067effbdc0b2a0e1d907b21ebb25cfedb96a852179a847c37e43ee71322c6b")
ISK = hexa(
    "6e19b875f7a561d6b3ca3dbb9ef42ac55de3e717881018204b8922b4d5e53bb2"
    "aa82c300bea7b65d2b671da71922ddf6472301b79bc270adfa8bf413285f2263"
)

POINT_SCALAR = hexa("af46e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449aff")
REFUSED = ["Y0", "Y1", "Y2", "Y3", "Y4", "Y5", "Y7"]
ACCEPTED = {  # the u-coordinate with bit 255 set, which is ignored, and its product with POINT_SCALAR
    "Y6": "d8e2c776bbacd510d09fd9278b7edcd25fc5ae9adfba3b6e040e8d3b71b21806",
    "Y8": "c85c655ebe8be44ba9c0ffde69f2fe10194458d137f09bbff725ce58803cdb38",
    "Y9": "db64dafa9b8fdd136914e61461935fe92aa372cb056314e1231bc4ec12417456",
    "Y10": "e062dcd5376d58297be2618c7498f55baa07d7e03184e8aada20bca28888bf7a",
    "Y11": "993c6ad11c4c29da9a56f7691fd0ff8d732e49de6250b6c2e80003ff4629a175",
}
POINTS = {
    "Y0": "0000000000000000000000000000000000000000000000000000000000000000",
    "Y1": "0100000000000000000000000000000000000000000000000000000000000000",
    "Y2": "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "Y3": "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "Y4": "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "Y5": "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "Y6": "daffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "Y7": "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "Y8": "dbffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "Y9": "d9ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "Y10": "cdeb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b880",
    "Y11": "4c9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f11d7",
}

BLIND = bytes(range(BLIND_SIZE))
blinds = st.binary(min_size=BLIND_SIZE, max_size=BLIND_SIZE)
elements = st.binary(min_size=32, max_size=32)


class TestDraft:
    """The case of the draft, step by step, through the same functions that the handshake runs on."""

    def test_generator(self) -> None:
        assert generator(PRS, CI, SID, BLIND) == G

    def test_shares(self) -> None:
        assert share(YA_SCALAR, G) == YA
        assert share(YB_SCALAR, G) == YB

    def test_key(self) -> None:
        assert shared_secret(YA_SCALAR, YB) == shared_secret(YB_SCALAR, YA) == K
        assert isk(SID, K, YA, YB, b"ADa", b"ADb") == ISK

    @pytest.mark.parametrize("name", REFUSED)
    def test_points_of_small_order_are_refused(self, name: str) -> None:
        """H-4."""
        with pytest.raises(EncryptionError):
            shared_secret(POINT_SCALAR, hexa(POINTS[name]))

    @pytest.mark.parametrize("name", ACCEPTED)
    def test_points_with_bit_255_set_are_valid(self, name: str) -> None:
        assert shared_secret(POINT_SCALAR, hexa(POINTS[name])).hex() == ACCEPTED[name]

    def test_the_published_file(self, vectors: Callable[[str], Any]) -> None:
        """Every figure of the file in the initiator-responder mode, and all of its points."""
        file = vectors("cpace_x25519")
        case = {name: hexa(value) for name, value in file["G_25519"].items()}
        g = generator(case["PRS"], case["CI"], case["sid"], BLIND)
        assert g == case["g"]
        assert share(case["ya"], g) == case["Ya"]
        assert share(case["yb"], g) == case["Yb"]
        k = shared_secret(case["ya"], case["Yb"])
        assert k == shared_secret(case["yb"], case["Ya"]) == case["K"]
        parts = case["Ya"], case["ADa"], case["Yb"], case["ADb"]
        assert isk(case["sid"], k, case["Ya"], case["Yb"], case["ADa"], case["ADb"]) == case["ISK_IR"]
        assert sha512(b"CPaceSidOutput" + transcript_ir(*parts)).digest() == case["sid_output_ir"]
        points = file["X25519_points"]
        assert {name.removeprefix("Invalid "): point.lower() for name, point in points.items()} == POINTS


class TestEncodings:
    def test_prepend_len(self) -> None:
        """The examples of the draft."""
        assert prepend_len(b"") == b"\0"
        assert prepend_len(b"1234") == b"\x041234"
        assert prepend_len(bytes(range(127))) == b"\x7f" + bytes(range(127))
        assert prepend_len(bytes(range(128))) == b"\x80\x01" + bytes(range(128))
        assert prepend_len(bytes(16384))[:4] == b"\x80\x80\x01\x00"

    def test_lv_cat(self) -> None:
        """The example of the draft; and the border between two parts cannot be moved."""
        assert lv_cat(b"1234", b"5", b"", b"678") == b"\x041234\x015\x00\x03678"
        assert lv_cat(b"ab", b"c") != lv_cat(b"a", b"bc")

    def test_channel_identifier(self) -> None:
        """H-3."""
        assert channel_identifier(b"chat") == b"\x04stt1\x04chat"

    def test_generator_string_fills_the_first_block(self) -> None:
        short = generator_string(PRS, CI, SID)
        assert short[:18] == b"\x08CPace255\x08Password"
        assert short[128:] == prepend_len(CI) + prepend_len(SID)
        long = generator_string(bytes(200), CI, SID)
        assert long == b"\x08CPace255" + prepend_len(bytes(200)) + b"\0" + prepend_len(CI) + prepend_len(SID)


class TestMap:
    """Elligator 2 against the definition in RFC 9380, 6.7.1, computed in the plain way."""

    @staticmethod
    def defined(element: bytes) -> bytes:
        u = int.from_bytes(element, "little") % 2**255 % P
        v = -A * pow(1 + 2 * u * u, P - 2, P) % P
        w = (v**3 + A * v**2 + v) % P
        x = v if pow(w, (P - 1) // 2, P) == 1 else -v - A
        return (x % P).to_bytes(32, "little")

    @given(elements, blinds)
    def test_is_elligator_2_whatever_the_blind(self, element: bytes, blind: bytes) -> None:
        point = map_to_curve(element, blind)
        assert point == self.defined(element)
        assert is_canonical(point)

    @pytest.mark.parametrize("u", [0, 1, 2, 9, P - 1, P, P + 1, 2**255 - 1, 2**255, 2**256 - 1, 2**240, 2**239])
    @pytest.mark.parametrize("blind", [bytes(64), b"\xff" * 64, bytes(32) + b"\xff" * 32, b"\xff" * 32 + bytes(32)])
    def test_at_the_edges(self, u: int, blind: bytes) -> None:
        element = u.to_bytes(32, "little")
        assert map_to_curve(element, blind) == self.defined(element)

    def test_u_and_minus_u_have_one_image(self) -> None:
        u = int.from_bytes(BLIND[:31], "little")
        negative = (P - u).to_bytes(32, "little")
        assert map_to_curve(u.to_bytes(32, "little"), BLIND) == map_to_curve(negative, BLIND)

    @pytest.mark.parametrize("size", [0, 63, 65])
    def test_blind_of_another_length(self, size: int) -> None:
        with pytest.raises(ArgumentError) as caught:
            map_to_curve(bytes(32), bytes(size))
        assert caught.value.argument == "blind"

    def test_each_run_tests_another_number(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the test for a square is given, and what it answers, follow the blind: a fresh coin a run."""
        from stt_proto.crypto import cpace

        seen: list[tuple[int, int]] = []
        original = cpace._is_non_square

        def spy(a: int) -> int:
            seen.append((a, original(a)))
            return seen[-1][1]

        monkeypatch.setattr(cpace, "_is_non_square", spy)
        for i in range(64):
            map_to_curve(bytes(32), sha512(bytes([i])).digest())
        assert len({a for a, _ in seen}) == 64
        assert 16 < sum(answer for _, answer in seen) < 48


class TestExchange:
    @staticmethod
    def sides(prs_b: bytes = PRS, ci_b: bytes = CI, sid_b: bytes = SID) -> tuple[CPace, CPace]:
        initiator = CPace(PRS, CI, SID, scalar=YA_SCALAR, blind=BLIND)
        return initiator, CPace(prs_b, ci_b, sid_b, scalar=YB_SCALAR, blind=BLIND[::-1])

    def test_one_password_one_key(self) -> None:
        """H-3: with ADa and ADb empty; the key as its text defines it."""
        initiator, responder = self.sides()
        assert (initiator.share, responder.share) == (YA, YB)
        key = initiator.psk_as_initiator(responder.share)
        assert key == responder.psk_as_responder(initiator.share)
        assert key == psk(isk(SID, K, YA, YB)) == hkdf(b"", isk(SID, K, YA, YB), b"stt1 psk", 32)

    @pytest.mark.parametrize(
        "other",
        [{"prs_b": b"password"}, {"ci_b": CI[:-1]}, {"sid_b": SID[:-1] + b"\0"}],
        ids=["prs", "ci", "sid"],
    )
    def test_any_difference_gives_another_key(self, other: dict[str, bytes]) -> None:
        initiator, responder = self.sides(**other)
        assert responder.share != YB
        assert initiator.psk_as_initiator(responder.share) != responder.psk_as_responder(initiator.share)

    def test_the_roles_are_part_of_the_key(self) -> None:
        """Reflection: whoever sends a share back does not get the key of the two roles."""
        initiator, responder = self.sides()
        assert initiator.psk_as_responder(responder.share) != responder.psk_as_responder(initiator.share)

    @pytest.mark.parametrize("bad", [*(POINTS[name] for name in REFUSED), "", "09", "09" * 33])
    def test_bad_shares_are_refused_and_change_nothing(self, bad: str) -> None:
        """H-4, H-12."""
        initiator, responder = self.sides()
        for read in (initiator.psk_as_initiator, responder.psk_as_responder):
            with pytest.raises(EncryptionError):
                read(hexa(bad))
        assert initiator.psk_as_initiator(responder.share) == responder.psk_as_responder(initiator.share)

    def test_a_scalar_has_32_bytes(self) -> None:
        with pytest.raises(ArgumentError):
            CPace(PRS, CI, SID, scalar=bytes(31), blind=BLIND)

    def test_stays_where_it_is(self) -> None:
        with pytest.raises(TypeError, match="CPace holds a secret"):
            pickle.dumps(self.sides()[0])
