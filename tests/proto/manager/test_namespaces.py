"""Namespaces: what two tenants are called never makes them one (G7, S13)."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stt_proto.errors import ArgumentError
from stt_proto.manager import namespaces
from stt_proto.manager.namespaces import MAX_NAMESPACE, namespace_bytes, namespace_from_bytes, namespace_key

texts = st.text(st.characters(codec=None), max_size=200)
names = st.one_of(texts, st.binary(max_size=200))
# Names that differ only in what careless mappings replace, fold or cut off.
close = st.text(st.sampled_from("-_. /\\:*?aA\u00e9\u0301e\ud800\x00"), max_size=4)
long = st.builds(lambda tail: "x" * 100 + tail, close)


@given(st.lists(st.one_of(close, long, names), max_size=8, unique=True))
@example(["tenant-a.bot", "tenant_a_bot"])
@example(["a", b"a"])
@example(["\u00e9", "e\u0301"])
def test_injective(different: list[str | bytes]) -> None:
    """S13, K10: different names have different bytes and different keys."""
    assert len({namespaces.namespace_bytes(name) for name in different}) == len(different)
    assert len({namespaces.namespace_key(name) for name in different}) == len(different)


@given(st.one_of(names, close))
@example("\ud800 half of a pair")
def test_there_and_back(name: str | bytes) -> None:
    assert namespace_from_bytes(namespace_bytes(name)) == name


@given(st.binary(max_size=20))
def test_bytes_of_others(data: bytes) -> None:
    """What is no namespace is refused; what is one, is the bytes of no other."""
    try:
        name = namespace_from_bytes(data)
    except ArgumentError as error:
        assert error.argument == "name"
    else:
        assert namespace_bytes(name) == data


@given(names)
def test_a_key_can_stand_anywhere(name: str | bytes) -> None:
    key = namespace_key(name)
    assert len(key) == 64
    assert set(key) <= set("0123456789abcdef")


def test_bounds() -> None:
    assert namespace_bytes("x" * MAX_NAMESPACE)
    for name in ("x" * (MAX_NAMESPACE + 1), "\u00e9" * 513, bytes(MAX_NAMESPACE + 1), None, 7, bytearray(b"x")):
        with pytest.raises(ArgumentError) as caught:
            namespace_bytes(name)  # type: ignore[arg-type]
        assert caught.value.argument == "namespace"
    for data in (b"", b"x", b"t\xff", b"t" + bytes(MAX_NAMESPACE + 1), b"b" + bytes(MAX_NAMESPACE + 1)):
        with pytest.raises(ArgumentError):
            namespace_from_bytes(data)
