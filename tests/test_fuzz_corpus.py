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

from fuzz import harness
from fuzz.harness import OutOfBoundsError, peak_memory, within_bounds

FUZZ = Path(__file__).parents[1] / "fuzz"
NAMES = sorted(path.stem.removeprefix("fuzz_") for path in FUZZ.glob("fuzz_*.py"))
CORPUS = sorted(FUZZ.glob("corpus/*/*"))


def target(name: str) -> Callable[[bytes], None]:
    """What a run without atheris calls: it fails out of bounds of time and memory, too."""
    return within_bounds(import_module(f"fuzz.fuzz_{name}").fuzz_one)


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


def test_an_input_that_takes_too_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """G-2: it is kept like one that raises."""
    times = iter(range(0, 10_000, harness.SLOW + 1))
    monkeypatch.setattr("fuzz.harness.time.process_time", lambda: next(times))
    monkeypatch.setattr(harness, "FOUND", tmp_path)
    (corpus := tmp_path / "corpus").mkdir()
    (corpus / "slow").write_bytes(b"it takes its time")
    with pytest.raises(OutOfBoundsError, match="took 11"):
        harness._run_without_atheris("made-up", lambda data: None, corpus, [])
    assert (tmp_path / "made-up-failed").read_bytes() == b"it takes its time"


def test_inputs_that_take_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """G-2: all of them together, since what one leaves behind is there for the next."""
    held = [100.0]
    monkeypatch.setattr(harness, "peak_memory", lambda: held[-1])
    bounded = within_bounds(lambda data: held.append(held[-1] + len(data)), mebibytes=20)
    bounded(bytes(10))
    bounded(bytes(10))
    with pytest.raises(OutOfBoundsError, match="grew by 21"):
        bounded(b"1")


@pytest.mark.skipif(harness.resource is None, reason="this system does not tell")
def test_memory_is_told_in_mebibytes() -> None:
    assert 8 < peak_memory() < 1 << 16
