"""The documentation is true: its programs run as printed, and print what it says."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import stt_anyio
import stt_proto
import stt_proto.testing
from stt_proto.errors import SttError
from stt_proto.testing import Conditions, Inbox, World, send

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def blocks(page: Path, language: str) -> list[str]:
    """The code of one language on a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_on_every_page_compiles(page: Path) -> None:
    for number, code in enumerate(blocks(page, "python")):
        compile(code, f"{page.name}, block {number}", "exec")


@pytest.mark.parametrize(
    "name",
    [
        "carriers.md",
        "congestion.md",
        "integrating.md",
        "managed.md",
        "manager.md",
        "simulator.md",
        "stores.md",
        "tracing.md",
    ],
)
def test_programs_run_as_printed_and_print_what_the_page_says(name: str) -> None:
    """The blocks of a page are one program, from the first to the last."""
    page = ROOT / "docs" / name
    program = "\n".join(blocks(page, "python"))
    (output,) = blocks(page, "text")
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == output


def printed(page: Path) -> list[tuple[str, str]]:
    """The programs of a page that stand right above what they print, and what that is."""
    pattern = r"^```python\n((?:(?!^```).)*)^```\n\n```text\n(.*?)^```"
    return re.findall(pattern, page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def start(program: str) -> subprocess.Popen[str]:
    """A program, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


PRINTED = [(page, *both) for page in (ROOT / "README.md", ROOT / "docs" / "using.md") for both in printed(page)]


@pytest.mark.parametrize(("page", "program", "output"), PRINTED, ids=lambda value: getattr(value, "name", ""))
def test_a_program_prints_what_stands_under_it(page: Path, program: str, output: str) -> None:
    """One that is `client.py` needs the page's `server.py`, for which a free port stands in for 4433."""
    servers = [block for block in blocks(page, "python") if block.startswith("# server.py\n")]
    if not program.startswith("# client.py\n"):
        servers = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    server = start(servers[0].replace("4433", port)) if servers else None
    try:
        if server is not None and server.stdout is not None:
            assert server.stdout.readline() == f"listening on port {port}\n"
        told, complaints = start(program.replace("4433", port)).communicate(timeout=60)
    finally:
        if server is not None:
            server.kill()
            server.communicate()
    assert (told, complaints) == (output, "")


def test_the_reference_has_every_public_class() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\.\. autoclass:: (?:\w+\.)*(\w+)$", page, re.MULTILINE))
    public = [getattr(package, name) for package in (stt_anyio, stt_proto) for name in package.__all__]
    classes = {each for each in public if isinstance(each, type) and not issubclass(each, SttError)}
    assert {each.__name__ for each in classes} <= listed


def test_the_reference_has_the_whole_simulator() -> None:
    """`stt_proto.testing` is public: all of its names, and nothing that is none."""
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"^## The simulator\n(.*?)^## ", page, re.MULTILINE | re.DOTALL)
    listed = re.findall(r"^\.\. (?:auto(?:class|function|data)|py:data):: (\w+)$", section, re.MULTILINE)
    assert sorted(listed) == sorted(stt_proto.testing.__all__)
    for name, members in re.findall(r"autoclass:: (\w+)\n   :members: (.*)$", section, re.MULTILINE):
        assert all(hasattr(getattr(stt_proto.testing, name), member) for member in members.split(", ")), name


@pytest.mark.parametrize("back", [Conditions(rate=1e6, queue=3000), Conditions(delay=0.5, rate=1e5)])
def test_the_application_of_the_simulator_s_page_loses_nothing(back: Conditions) -> None:
    """It is there to be copied: where the way back is narrow, `write` takes a part of what it is given."""
    program, *_ = blocks(ROOT / "docs" / "simulator.md", "python")
    names: dict[str, Any] = {}
    exec(program, names)
    world = World(seed=1)
    client, server = world.node("client"), world.node("server", stream_send_buffer=4000)
    world.link(client, server, Conditions(), back)
    names["Shouter"](server)
    inbox = Inbox(client, keep=True)
    session = client.connect(server)
    send(client, session, b"can you hear me? " * 10_000)
    world.run_until(lambda: inbox.complete, timeout=600.0)
    inbox.complete[0].assert_is(b"CAN YOU HEAR ME? " * 10_000)
    session.close(client.now)
    world.assert_idle()


def test_the_programs_of_several_files(tmp_path: Path) -> None:
    """docs/workers.md: each block names the file that it is; some print what stands below them."""
    page = ROOT / "docs" / "workers.md"
    for block in blocks(page, "python"):
        name = block.partition("\n")[0].removeprefix("# ")
        (tmp_path / name).write_text(block, encoding="utf-8")
    programs = printed(page)
    assert [program.partition("\n")[0] for program, _ in programs] == ["# main.py", "# once.py"]
    for program, output in programs:
        done = subprocess.run(
            [sys.executable, program.partition("\n")[0].removeprefix("# ")],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stderr == ""
        assert done.stdout == output


def test_programs_with_output_are_found() -> None:
    assert [page.name for page, *_ in PRINTED] == ["README.md", *["using.md"] * 10]
