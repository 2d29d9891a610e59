"""docs/features.md tells the truth: every promise has its row, and every test it names exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "features.md"

SIZES = {"A": 11, "B": 6, "C": 10, "D": 9, "E": 8, "G": 9, "H": 9, "I": 3}
ROWS = ["F", "J", "K", *(f"{letter}{n}" for letter, size in SIZES.items() for n in range(1, size + 1))]
STATES = ("works", "partly", "not yet")


def features() -> list[tuple[str, str, str, list[str]]]:
    """The page's table: row, promise, state, tests."""
    found = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and re.fullmatch(r"[A-K]\d*", cells[0]):
            row, promise, state, tests = cells
            found.append((row, promise, state, re.findall(r"[^\s,`]+", tests)))
    return found


@cache
def defined_tests(path: Path) -> frozenset[str]:
    """The tests that a file defines, as pytest names them: `test_x`, `TestY`, `TestY::test_x`."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = (item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef))
            names.update(f"{node.name}::{method.name}" for method in methods)
    return frozenset(names)


def exists(test: str) -> bool:
    path, _, name = test.partition("::")
    file = ROOT / path
    pytest_name = re.fullmatch(r"(Test\w*)?(::)?(test_\w+)?", name)
    return path.startswith("tests/") and file.is_file() and bool(pytest_name) and name in defined_tests(file)


def test_every_promise_has_one_row() -> None:
    assert sorted(row for row, *_ in features()) == sorted(ROWS)


@pytest.mark.parametrize("feature", features(), ids=lambda feature: feature[0])
def test_row_is_true(feature: tuple[str, str, str, list[str]]) -> None:
    row, promise, state, tests = feature
    assert promise
    assert state in STATES
    assert tests or state == "not yet", f"{row} {state} and names no test"
    assert not [test for test in tests if not exists(test)]


def test_missing_tests_are_noticed() -> None:
    assert exists("tests/test_features.py::test_missing_tests_are_noticed")
    assert not exists("tests/test_features.py::test_that_nobody_wrote")
    assert not exists("tests/test_features.py")
    assert not exists("tests/test_features.py::features")
    assert not exists("tests/test_nothing.py::test_x")
    assert not exists("docs/conf.py::test_x")
