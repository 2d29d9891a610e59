"""What all tests share: two event loops, reproducible examples, and the vectors that others made."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

VECTORS = Path(__file__).parents[2] / "shared" / "vectors"

# Machines that run tests are slow and busy, so no example is judged by its time; the seed decides every run.
hypothesis.settings.register_profile(
    "default",
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
# For searching: HYPOTHESIS_PROFILE=search draws new examples in every run, and many more of them.
hypothesis.settings.register_profile(
    "search",
    hypothesis.settings.get_profile("default"),
    derandomize=False,
    max_examples=5_000,
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


UNMEASURED = tuple(
    line for line in Path(__file__).with_name("unmeasured.txt").read_text().splitlines() if not line.startswith("#")
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Twice as many as there are cores: tests of the hosts wait for something half of the time."""
    return 2 * (os.cpu_count() or 1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Switch the measuring off for a while.

    pytest-cov's own marker does nothing in the processes of xdist: there it has begun twice, and ends once (7.1.0).
    """
    tracer, of_threads = sys.gettrace(), threading.gettrace()
    if tracer is None or not item.nodeid.removeprefix("tests/").startswith(UNMEASURED):
        return (yield)
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type]  # as it was before anybody set one
    try:
        return (yield)
    finally:
        sys.settrace(tracer)
        threading.settrace(of_threads)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Every async test runs on both event loops."""
    return str(request.param)


@pytest.fixture(scope="session")
def vectors() -> Callable[[str], Any]:
    """`vectors("noise")`: the parsed JSON of one file of test vectors made outside this project.

    They lie beside the project, in `../shared/vectors`; without them the test is skipped.
    """

    def load(name: str) -> Any:
        path = VECTORS / f"{name.removesuffix('.json')}.json"
        if not path.is_file():
            pytest.skip(f"test vectors not found: {path.name} is not in ../shared/vectors")
        return json.loads(path.read_text(encoding="utf-8"))

    return load
