"""A network of the test's own: namespaces of the kernel with cables between them, which nobody else sees.

A namespace lives as long as a process in it, and here that is one which waits for the end of its input. So nothing is
left of it, nor of its cables and addresses, whatever becomes of the test: no name in the system stands for it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from attrs import asdict

from tests.anyio.bulk import Address, Job, Result

ROOT = Path(__file__).parents[2]
LIMIT = 20.0
"""Seconds that no command of these needs."""
_PLACES = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
_TOOLS = ("ip", "nsenter", "tc", "timeout", "unshare")


class NotPermittedError(Exception):
    """Such a network cannot be made here."""


class Namespace:
    """A network namespace, for as long as the block lasts.

    Args:
        beside: another one, whose owner is to own this one too; the user of the test, or a user namespace, if not told.
        rights: whether to try without a user namespace first.

    Attributes:
        pid: of the process that holds it.

    Raises:
        NotPermittedError: on entering.
    """

    def __init__(self, beside: Namespace | None = None, *, rights: bool = True) -> None:
        self._beside, self._rights = beside, rights
        self._user: tuple[str, ...] = ()
        self._stack = ExitStack()
        self.pid = 0

    def __enter__(self) -> Namespace:
        if self._beside is not None:
            self._user = self._beside._user
            self._hold((*self._beside.enter(net=False), tool("unshare"), "--net"))
            return self
        try:
            if not self._rights:
                raise NotPermittedError("not even tried")
            self._hold((tool("unshare"), "--net"))
        except NotPermittedError:
            self._hold((tool("unshare"), "--user", "--map-root-user", "--net"))
            self._user = ("--user", "--preserve-credentials")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def _hold(self, words: tuple[str, ...]) -> None:
        """Start the process that stays inside; each of these tools becomes the next, so its id is the one we know."""
        holder = subprocess.Popen(
            [*words, "sh", "-c", "echo inside && exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert holder.stdout is not None
        if holder.stdout.readline() != "inside\n":
            _, complaint = holder.communicate(timeout=LIMIT)
            raise NotPermittedError(complaint.strip())
        self._stack.callback(holder.communicate, timeout=LIMIT)
        self.pid = holder.pid

    def enter(self, *, net: bool = True) -> tuple[str, ...]:
        """The words that let a command run inside."""
        if not net and not self._user:
            return ()
        return (tool("nsenter"), f"--target={self.pid}", *self._user, *(("--net",) if net else ()))

    def run(self, *words: object) -> None:
        """A command, inside.

        Raises:
            NotPermittedError: it fails.
        """
        name, *rest = map(str, words)
        done = subprocess.run(
            [*self.enter(), tool(name), *rest],
            env={**os.environ, "PATH": _PLACES},
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        if done.returncode:
            raise NotPermittedError(f"{name} {' '.join(rest)}: {done.stderr.strip()}")

    def cable(self, other: Namespace, name: str, mbit: int) -> None:
        """An interface of this name on both sides, and a cable between them that carries so much each way."""
        self.run("ip", "link", "add", name, "type", "veth", "peer", "name", name, "netns", other.pid)
        for end in (self, other):
            end.run("ip", "link", "set", name, "up")
            end.run("tc", "qdisc", "add", "dev", name, *f"root tbf rate {mbit}mbit burst 64kb latency 20ms".split())

    def sent(self, name: str) -> int:
        """Bytes that have left through an interface."""
        for line in Path(f"/proc/{self.pid}/net/dev").read_text().splitlines():
            interface, _, counts = line.strip().partition(":")
            if interface == name:
                return int(counts.split()[8])
        raise AssertionError(f"there is no interface {name}")


class Program:
    """One end of `tests.anyio.bulk`, in a process of its own inside a namespace; it does not outlive the block.

    Args:
        place: where.
        host: one of `bulk.HOSTS`.
        job: what to do.
        address: whom to dial; the side that is dialled when `None`.
    """

    def __init__(self, place: Namespace, host: str, job: Job, address: Address | None = None) -> None:
        words = json.dumps({"host": host, "job": asdict(job), "address": address})
        limit = [tool("timeout"), "--kill-after=5", str(2 * job.seconds)]  # should the test die first
        self._process = subprocess.Popen(
            [*place.enter(), *limit, sys.executable, "-m", "tests.anyio.bulk", words],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()  # `timeout` hands it on
        self._process.communicate(timeout=LIMIT)

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def told(self) -> Any:
        """The next thing that it has to tell."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self._process.communicate(timeout=LIMIT)[1]
        return json.loads(line)

    def result(self) -> Result:
        return Result(**self.told())


def tool(name: str) -> str:
    """Where it is."""
    found = shutil.which(name, path=_PLACES)
    if found is None:
        raise NotPermittedError(f"there is no {name}")
    return found


@contextmanager
def namespaces(count: int, mbit: int, *, rights: bool = True) -> Iterator[list[Namespace]]:
    """So many, each with a cable to the next, `link0` from the first to the second; skips where that may not be.

    Only what makes them skips. A command that fails later is a failure. Without `rights` those of the user of the test
    are not used: the namespaces belong to one of the user's own.
    """
    if sys.platform != "linux":
        pytest.skip("network namespaces are Linux's")
    with ExitStack() as stack:
        try:
            for name in _TOOLS:
                tool(name)
            made = [stack.enter_context(Namespace(rights=rights))]
            while len(made) < count:
                made.append(stack.enter_context(Namespace(made[0])))
            for number in range(count - 1):
                made[number].cable(made[number + 1], f"link{number}", mbit)
        except NotPermittedError as error:
            pytest.skip(f"no network namespaces of our own here: {error}")
        yield made
