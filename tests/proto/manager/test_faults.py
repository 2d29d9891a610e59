"""The properties can fail: each of 19 faults that two other systems have is caught, by the property named for it."""

from __future__ import annotations

import pytest

from tests.proto.manager.checked import broken_by, run
from tests.proto.manager.faults import FAULTS, Fault


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.name}-{fault.caught_by}")
def test_a_fault_is_caught(fault: Fault) -> None:
    """H5, S1 to S17: nothing but the property is looked at, and it sees the fault."""
    looks_at = frozenset({fault.caught_by})
    name = broken_by(lambda: run(fault.machine, 1000, 40, looks_at=looks_at, **fault.attributes))
    assert name == fault.caught_by


def test_all_faults_are_there() -> None:
    """H5: M5 is two: what is in flight is dropped, and what is new is taken."""
    names = list(dict.fromkeys(fault.name for fault in FAULTS))
    assert names == [f"K{n}" for n in range(1, 13)] + [f"M{n}" for n in range(1, 8)]
