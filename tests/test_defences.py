"""The list of defences fits the code: what each takes out is there, and so are the tests that miss it."""

from __future__ import annotations

import re

from tests.defences import ROOT, defences

NAMED_IN = ("docs/testing.md", "tests/proto/test_incidents.py")
"""Where tables name the tests that show something."""


def test_the_tests_that_are_named_exist() -> None:
    """The tables of incidents, scenarios and defences."""
    files = [file for folder in ("tests", "fuzz") for file in (ROOT / folder).rglob("*.py")]
    known = {name for file in files for name in re.findall(r"\bdef (test_\w+)\(", file.read_text(encoding="utf-8"))}
    known |= {file.stem for file in files}
    for place in NAMED_IN:
        named = set(re.findall(r"(?<![\w/])test_\w+\b(?!\()", (ROOT / place).read_text(encoding="utf-8")))
        assert named <= known, f"{place} names {sorted(named - known)}"


def test_each_can_be_taken_out() -> None:
    """`make defences` takes them out, one after the other, and runs the tests named for each."""
    found = defences()
    assert len({defence.name for defence in found}) == len(found) > 110
    for defence in found:
        text = (ROOT / defence.path).read_text(encoding="utf-8")
        assert text.count(f"\n{defence.standing}") == 1, defence.name
        assert defence.standing != defence.removed, defence.name
        assert defence.tests, defence.name
        for node_id in defence.node_ids:
            file, _, test = node_id.partition("::")
            written = (ROOT / file).read_text(encoding="utf-8")
            assert f"\ndef {test}(" in written or f"\nasync def {test}(" in written, node_id
