"""The list of defences fits the code: what each takes out is there, and so are the tests that miss it."""

from __future__ import annotations

from tests.defences import ROOT, defences


def test_each_can_be_taken_out() -> None:
    """`make defences` takes them out, one after the other, and runs the tests named for each."""
    found = defences()
    assert len({defence.name for defence in found}) == len(found) > 70
    for defence in found:
        text = (ROOT / "stt_proto" / defence.file).read_text(encoding="utf-8")
        assert text.count(f"\n{defence.standing}") == 1, defence.name
        assert defence.standing != defence.removed, defence.name
        assert defence.tests, defence.name
        for node_id in defence.node_ids:
            file, _, test = node_id.partition("::")
            assert f"\ndef {test}(" in (ROOT / file).read_text(encoding="utf-8"), node_id
