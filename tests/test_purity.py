"""The core is pure: it opens no socket, reads no clock, draws no randomness, starts no thread.

Three gates. The source imports nothing but what an allow-list holds; it names nothing in there that reaches
outside; and all of it imports while every module that could reach outside is out of order. The layer contract
in pyproject.toml is a fourth, for what is imported by way of something else.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "stt_proto"
SOURCES = sorted(ROOT.rglob("*.py"))

# Everything here computes from its arguments alone. A name is added only when that holds for it too.
ALLOWED_MODULES = {
    "__future__", "abc", "array", "base64", "binascii", "bisect", "builtins", "collections", "contextlib",
    "copy", "enum", "functools", "hashlib", "heapq", "hmac", "ipaddress", "itertools", "json", "math",
    "operator", "re", "struct", "types", "typing", "unicodedata", "weakref",
    "attr", "attrs", "cryptography", "stt_proto",
}  # fmt: skip

# Builtins that reach outside, or around the gate of imports.
FORBIDDEN_BUILTINS = {"__import__", "breakpoint", "compile", "eval", "exec", "input", "open", "print"}

# Names by which an allowed module, or something that came with it, would draw randomness or read a clock.
FORBIDDEN_NAMES = {
    "SystemRandom", "generate", "generate_key", "generate_parameters", "generate_private_key", "getrandom",
    "monotonic", "monotonic_ns", "perf_counter", "time_ns", "token_bytes", "urandom", "utcnow", "uuid4",
}  # fmt: skip

# The modules that could reach outside. None of them may be imported while stt_proto is.
OUTSIDE = (
    "_asyncio", "_multiprocessing", "_posixsubprocess", "_queue", "_random", "_socket", "_ssl", "_thread",
    "_uuid", "anyio", "asyncio", "concurrent", "concurrent.futures", "ctypes", "curses", "datetime", "fcntl",
    "getpass", "http", "importlib.resources", "logging", "mmap", "multiprocessing", "pathlib", "platform",
    "pty", "queue", "random", "readline", "resource", "sched", "secrets", "select", "selectors", "shutil",
    "signal", "sniffio", "socket", "socketserver", "sqlite3", "ssl", "subprocess", "syslog", "tempfile",
    "threading", "time", "trio", "urllib.request", "uuid", "websockets",
)  # fmt: skip


def in_testing(path: Path) -> bool:
    return path.relative_to(ROOT).parts[0] == "testing"


def violations(source: str, *, testing: bool = False) -> list[str]:
    """Every place where a piece of the core's source reaches outside, as `line: what`."""
    tree = ast.parse(source)
    return [f"{line}: {what}" for line, what in sorted({*imports(tree, testing), *uses(tree, testing)})]


def imports(tree: ast.AST, testing: bool) -> Iterator[tuple[int, str]]:
    allowed = ALLOWED_MODULES | {"random"} if testing else ALLOWED_MODULES
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] not in allowed:
                    yield node.lineno, f"imports {alias.name}"
                if alias.name == "random" and alias.asname:
                    yield node.lineno, "hides random behind another name"
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            module = str(node.module)
            if module.partition(".")[0] not in allowed:
                yield node.lineno, f"imports {module}"
            for alias in node.names:
                if reaches_outside(module, alias.name):
                    yield node.lineno, f"imports {module}.{alias.name}"


def uses(tree: ast.AST, testing: bool) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = getattr(node.value, "id", "...")
            if reaches_outside(owner, node.attr):
                yield node.lineno, f"uses {owner}.{node.attr}"
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_BUILTINS:
                yield node.lineno, f"calls {node.func.id}"
            if called(node.func) == "Random" and not (node.args or node.keywords):
                yield node.lineno, "makes a Random without a seed"


def reaches_outside(owner: str, name: str) -> bool:
    return (
        name in FORBIDDEN_NAMES
        or (owner == "builtins" and name in FORBIDDEN_BUILTINS)
        or (owner == "random" and name != "Random")
    )


def called(function: ast.expr) -> str:
    """The last name of what is called: `Random` for `Random()` and for `random.Random()`."""
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_source_reaches_nothing_outside(path: Path) -> None:
    found = violations(path.read_text(encoding="utf-8"), testing=in_testing(path))
    assert not found, f"{path.name}: {found}"


def test_only_one_module_knows_the_kem_that_draws_its_own_randomness() -> None:
    """ML-KEM's encapsulation takes no entropy, so it hides behind `Endpoint(kem=)`, which tests replace."""
    modules = [
        path
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        and re.search(r"cryptography\b.*mlkem", ast.unparse(node), re.IGNORECASE)
    ]
    assert len(modules) <= 1


IMPORT_EVERYTHING = """
import importlib, sys

for name in {libraries!r}:
    importlib.import_module(name)
loaded = dict(sys.modules)
try:
    for name in {outside!r}:
        sys.modules[name] = None  # from here on, importing it is an ImportError
    for name in {modules!r}:
        importlib.import_module(name)
finally:
    sys.modules.update(loaded)  # the interpreter needs some of them to end
"""


def test_imports_with_the_outside_out_of_order() -> None:
    """In a fresh interpreter; the libraries that the core stands on import what they need first."""
    libraries = {name for path in SOURCES for name in imported(path) if not name.startswith("stt_proto")}
    program = IMPORT_EVERYTHING.format(
        libraries=sorted(libraries.difference(OUTSIDE)),
        outside=OUTSIDE,
        modules=[module_name(path) for path in SOURCES if not in_testing(path)],
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT.parent, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def imported(path: Path) -> Iterator[str]:
    """The modules that a file names in its absolute imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize(
    "source",
    [
        "import socket",
        "import os.path",
        "from time import monotonic",
        "def f():\n    import random",
        "if TYPE_CHECKING:\n    import asyncio",
        "import random as r",
        "from concurrent.futures import Future",
        "x = open('file')",
        "x = builtins.open('file')",
        "from builtins import open as o",
        "x = __import__('time')",
        "X25519PrivateKey.generate()",
        "AESGCM.generate_key(256)",
        "hashlib.os.urandom(32)",
    ],
)
def test_the_gate_sees(source: str) -> None:
    assert violations(source)


@pytest.mark.parametrize(
    "source", ["random.random()", "random.Random()", "from random import random", "random.seed(1)"]
)
def test_the_simulator_draws_only_from_a_seed(source: str) -> None:
    assert violations(source, testing=True)


def test_the_gate_lets_pass_what_is_pure() -> None:
    assert not violations("import hmac\nfrom .wire import varint\nx = hmac.new(key, data, 'sha256')")
    assert not violations("import random\nrng = random.Random(7)\nrng.getrandbits(8)", testing=True)
