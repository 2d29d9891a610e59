"""What all targets share: how they are run, and how they read their decisions out of bytes.

Nothing in here imports what is fuzzed. Coverage is only seen in modules that were imported while `instrumented` was
in force, so a target imports this first and everything else under it.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

resource: ModuleType | None
try:
    import resource
except ImportError:  # Windows
    resource = None

FUZZ_FOLDER = Path(__file__).parent
ROOT = FUZZ_FOLDER.parent
CORPUS = FUZZ_FOLDER / "corpus"
FOUND = ROOT / "build" / "fuzz"
"""Where a run keeps the inputs that reached something new, and those that failed."""

MAX_INPUT = 4096
"""Bytes of the longest input that a run tries, unless told otherwise."""
SLOW = 10
"""Seconds after which one input counts as a failure: bounded time is part of what every target checks.

On the wall clock with atheris; of the processor without, so that a busy machine fails nothing.
"""
MEMORY = 1024
"""MiB that a run may take, likewise."""
RUNS_WITHOUT_ATHERIS = 20_000
"""Mutations tried where there is no atheris, unless told otherwise."""

MAX_NUMBER = (1 << 62) - 1
"""The largest number that `Choices` gives: that of a varint."""

T = TypeVar("T")


# -- running -------------------------------------------------------------------------------------------------------


def coverage_guide() -> Any:
    """The module atheris, or `None`: it has wheels for some Pythons only."""
    try:
        return import_module("atheris")
    except ImportError:
        return None


def instrumented(name: str, *packages: str) -> AbstractContextManager[Any]:
    """A context in which imports of `packages` (`stt_proto` if none are given) are made to report coverage.

    Args:
        name: `__name__` of the target: only as a program, and only with atheris, is anything different from usual.
        packages: names, their submodules included. As few as will do: each module costs time at the start.
    """
    if name != "__main__":
        return nullcontext()
    atheris = coverage_guide()
    if atheris is None:
        return nullcontext()
    context: AbstractContextManager[Any] = atheris.instrument_imports(include=[*(packages or ("stt_proto",))])
    return context


def main(fuzz_one: Callable[[bytes], None]) -> None:
    """Run a target with the options of libFuzzer that stand on the command line.

    What is found goes to `build/fuzz/<name>`; the committed corpus is read and never written.
    """
    name = Path(sys.argv[0]).stem.removeprefix("fuzz_")
    found = FOUND / name
    found.mkdir(parents=True, exist_ok=True)
    corpus = CORPUS / name
    atheris = coverage_guide()
    if atheris is None:
        print(f"{name}: no atheris for this Python, so no coverage to go by: the corpus, and mutations of it")
        _run_without_atheris(name, fuzz_one, corpus, sys.argv[1:])
        return
    options = {
        "max_len": MAX_INPUT,
        "len_control": 20,  # programs get long sooner than by default
        "timeout": SLOW,
        "rss_limit_mb": MEMORY,
        "artifact_prefix": f"{found}-",
    }
    arguments = [f"-{option}={value}" for option, value in options.items()]
    atheris.Setup([sys.argv[0], *arguments, *sys.argv[1:], str(found), str(corpus)], fuzz_one)
    atheris.Fuzz()


class OutOfBoundsError(AssertionError):
    """An input took too long, or too much."""


def within_bounds(
    fuzz_one: Callable[[bytes], None], *, seconds: float = SLOW, mebibytes: float = MEMORY
) -> Callable[[bytes], None]:
    """A target that fails as it does under libFuzzer: for an input that takes too long, or once memory grows too far.

    Args:
        fuzz_one: the target.
        seconds: of the processor that one input may take.
        mebibytes: by which the most that this process has held may grow from now on, all inputs taken together.
    """
    before = peak_memory()

    def bounded(data: bytes) -> None:
        began = time.process_time()
        fuzz_one(data)
        took, grown = time.process_time() - began, peak_memory() - before
        if took > seconds:
            raise OutOfBoundsError(f"one input took {took:.1f} s of the processor, more than {seconds:g}")
        if grown > mebibytes:
            raise OutOfBoundsError(f"memory grew by {grown:.0f} MiB, more than {mebibytes:g}")

    return bounded


def peak_memory() -> float:
    """MiB that this process has held at most so far; 0 where the system does not tell."""
    if resource is None:
        return 0.0
    most: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def _run_without_atheris(name: str, fuzz_one: Callable[[bytes], None], corpus: Path, arguments: list[str]) -> None:
    """The same without coverage: the corpus, then mutations of it that are the same in every run."""
    options = dict(argument.lstrip("-").split("=", 1) for argument in arguments if "=" in argument)
    seconds = float(options.get("max_total_time", "0")) or float("inf")
    runs = int(options.get("runs", "-1"))
    runs = runs if runs >= 0 else RUNS_WITHOUT_ATHERIS
    inputs = [file.read_bytes() for file in sorted(corpus.iterdir())]
    rng = random.Random(name)
    bounded = within_bounds(fuzz_one)
    began = time.monotonic()
    done = 0
    for number in range(len(inputs) + runs):
        data = inputs[number] if number < len(inputs) else mutate(rng.choice(inputs), inputs, rng)
        try:
            bounded(data)
        except BaseException:
            failed = FOUND / f"{name}-failed"
            failed.write_bytes(data)
            print(f"{name}: {failed} fails")
            raise
        done += 1
        if time.monotonic() - began > seconds:
            break
    print(f"{name}: {done} inputs in {time.monotonic() - began:.0f} s, nothing found")


def mutate(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Change an input here and there."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randint(0, len(changed))
        match rng.randrange(6):
            case 0 if changed:
                changed[at % len(changed)] ^= 1 << rng.randrange(8)
            case 1 if changed:
                changed[at % len(changed)] = rng.choice((0, 1, 0x3F, 0x40, 0x7F, 0x80, 0xC0, 0xFF))
            case 2:
                changed[at:at] = rng.randbytes(rng.randint(1, 8))
            case 3:
                del changed[at : at + rng.randint(1, 16)]
            case 4:
                end = rng.randint(at, len(changed))
                changed[at:at] = changed[at:end]
            case _:
                other = rng.choice(others)
                start = rng.randint(0, len(other))
                changed[at:] = other[start:]
    return bytes(changed[:MAX_INPUT])


# -- decisions out of bytes ----------------------------------------------------------------------------------------


class Choices:
    """Reads an input as a row of decisions. Past its end everything is zero, so every input is a whole program."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Whether something is left."""
        return self._at < len(self._data)

    def byte(self) -> int:
        """The next byte."""
        at = self._at
        self._at = at + 1
        return self._data[at] if at < len(self._data) else 0

    def below(self, count: int) -> int:
        """A number from 0 to `count - 1`; from one byte, or from two when there are more than 256."""
        value = self.byte()
        if count > 256:
            value = value << 8 | self.byte()
        return value % count

    def flag(self) -> bool:
        """Yes or no."""
        return self.byte() & 1 == 1

    def pick(self, options: Sequence[T]) -> T:
        """One of these."""
        return options[self.below(len(options))]

    def take(self, size: int) -> bytes:
        """The next bytes, fewer at the end."""
        start = self._at
        self._at = start + size
        return self._data[start : start + size]

    def chunk(self) -> bytes:
        """A length (one byte, or two when the first has its highest bit set) and as many bytes."""
        size = self.byte()
        if size & 0x80:
            size = (size & 0x7F) << 8 | self.byte()
        return self.take(size)

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))

    def number(self) -> int:
        """0 to 2^62 - 1, in the form of a varint: from 1, 2, 4 or 8 bytes."""
        first = self.byte()
        value = first & 0x3F
        for _ in range((1 << (first >> 6)) - 1):
            value = value << 8 | self.byte()
        return value

    def near(self, value: int) -> int:
        """A number at most 63 away from `value`, or any other: limits break at their edges."""
        step = self.byte()
        if step >= 0x80:
            return self.number()
        return min(max(0, value + (step & 0x3F) * (1 if step & 0x40 else -1)), MAX_NUMBER)

    def damage(self, data: bytes) -> bytes:
        """The same bytes, changed in one place: a bit, a byte, the length, or everything."""
        kind, at = self.below(6), self.below(max(1, len(data)) + 256)
        at %= len(data) + 1
        match kind:
            case 0:
                at = min(at, len(data) - 1)
                return data[:at] + bytes((data[at] ^ 1 << self.below(8),)) + data[at + 1 :] if data else b"\0"
            case 1:
                return data[:at]
            case 2:
                return data[:at] + self.chunk() + data[at:]
            case 3:
                new = self.chunk()
                return data[:at] + new + data[at + len(new) :]
            case 4:
                return data[:at] + bytes(len(data) - at)
            case _:
                return self.chunk()


# -- and back: how seeds are written -------------------------------------------------------------------------------

Seeds = dict[str, bytes]
"""Inputs by name."""
Part = int | bytes
"""What a program is made of: a number is one byte."""


def program(*parts: Part) -> bytes:
    """Decisions in a row."""
    return b"".join(bytes((part,)) if isinstance(part, int) else part for part in parts)


def packed(data: bytes) -> bytes:
    """What `Choices.chunk` reads as `data`: at most 32,767 bytes."""
    size = len(data)
    return (bytes((size,)) if size < 0x80 else (size | 0x8000).to_bytes(2)) + data
