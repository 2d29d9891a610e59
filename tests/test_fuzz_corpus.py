"""The fuzz targets over their committed corpora, and over a few inputs that hypothesis makes up.

What a target checks stands in its docstring; how to run one for longer, in docs/testing.md.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

FUZZ = Path(__file__).parents[1] / "fuzz"
NAMES = sorted(path.stem.removeprefix("fuzz_") for path in FUZZ.glob("fuzz_*.py"))
CORPUS = sorted(FUZZ.glob("corpus/*/*"))


def target(name: str) -> Callable[[bytes], None]:
    fuzz_one: Callable[[bytes], None] = import_module(f"fuzz.fuzz_{name}").fuzz_one
    return fuzz_one


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_corpus(file: Path) -> None:
    """G-2, G-3: nothing raises, and whatever else the target checks."""
    target(file.parent.name)(file.read_bytes())


@pytest.mark.parametrize("name", NAMES)
def test_any_input(name: str) -> None:
    """The same for any bytes: every target takes every input."""
    fuzz_one = target(name)

    @settings(max_examples=50)
    @given(st.binary(max_size=200))
    def check(data: bytes) -> None:
        fuzz_one(data)

    check()


def test_each_target_has_a_corpus() -> None:
    assert {file.parent.name for file in CORPUS} == set(NAMES)
