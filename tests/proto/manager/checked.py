"""Properties with names (S1 to S17): a machine says which one broke, and can be told to look at some only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

ALL = frozenset(f"S{number}" for number in range(1, 18))


class Broken(Exception):
    """A property does not hold."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name}: {what}")
        self.name = name


class Checked(RuleBasedStateMachine):
    """A machine that knows the names of what it checks.

    A subject that differs from the model in something that nobody looks at goes its own way from then on, so nothing
    more is asked of it.
    """

    looks_at: ClassVar[frozenset[str]] = ALL

    def __init__(self) -> None:
        super().__init__()
        self.astray = False

    def expect(self, name: str, holds: bool, what: str = "") -> None:
        """Property `name` holds."""
        if not holds and not self.astray:
            self.break_(name, what)

    def break_(self, name: str, what: str) -> None:
        """Property `name` does not hold."""
        self.astray = True
        if name in self.looks_at:
            raise Broken(name, what)

    @contextmanager
    def unbroken(self, name: str) -> Iterator[None]:
        """Whatever is raised in here breaks the property, and the recursion too deep first of all."""
        try:
            yield
        except Broken:
            raise
        except RecursionError:
            self.break_("S17", "it calls itself without end")
        except Exception as error:
            self.break_(name, repr(error))


@contextmanager
def counted_calls() -> Iterator[list[int]]:
    """How many functions are called in here, ours and built-in ones."""
    calls = [0]

    def count(frame: Any, event: str, argument: Any) -> None:
        calls[0] += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def run(machine: type[Checked], examples: int, steps: int, **attributes: Any) -> None:
    """Run a machine, as the profile of hypothesis has it (tests/conftest.py); no failure is made smaller."""
    subject = type(machine.__name__, (machine,), attributes)
    profile = settings.default
    chosen = settings(
        profile,
        max_examples=examples if profile.derandomize else max(examples, profile.max_examples),
        stateful_step_count=steps,
        phases=(Phase.explicit, Phase.generate),
    )
    run_state_machine_as_test(subject, settings=chosen)  # type: ignore[no-untyped-call]


def broken_by(run_it: Callable[[], None]) -> str:
    """The name of the property that broke; empty when all held."""
    try:
        run_it()
    except Broken as broken:
        return broken.name
    return ""
