"""Make `.venv` hold the project and the dependency groups named on the command line.

Usage: python .ci/environment.py [GROUP...]

Needs nothing but Python 3.11 and a package index: where the interpreter brings no `ensurepip` (Debian
packages it apart), pip's wheel is fetched from the configured index and checked against the hash below,
by any pip that this machine has or else without one.

`.venv/stamp.json` is written last, so an environment without it is half made and is built anew. It holds what
the environment was made from; while that is unchanged and covers the groups asked for, nothing is done.
"""

from __future__ import annotations

import base64
import configparser
import hashlib
import html.parser
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import tomllib
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "stamp.json"
PYTHON = VENV / "bin/python"
BASE: str = sys._base_executable  # type: ignore[attr-defined]  # never `.venv`'s own, which is to be made anew

PIP_VERSION, PIP_PYTHON = "26.3", "3.11"
PIP_WHEEL = f"pip-{PIP_VERSION}-py3-none-any.whl"
PIP_SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"


def main(groups: list[str]) -> None:
    pyproject = (ROOT / "pyproject.toml").read_bytes()
    requirements = tomllib.loads(pyproject.decode())["dependency-groups"]
    unknown = [group for group in groups if group not in requirements]
    if unknown:
        fail(f"no dependency group {unknown[0]!r} in pyproject.toml; there are {', '.join(requirements)}")

    wanted = {
        "made": [sys.version.split()[0], str(Path(BASE).resolve()), str(VENV)],
        "inputs": hashlib.sha256(pyproject + Path(__file__).read_bytes()).hexdigest(),
        "groups": sorted(groups),
    }
    stamp = read_stamp()
    if stamp.get("made") != wanted["made"]:
        make_venv()
    else:
        wanted["groups"] = sorted({*groups, *stamp["groups"]} & requirements.keys())
        if stamp == wanted:
            return
        STAMP.unlink()

    say(f"installing the project{''.join(f', {group}' for group in wanted['groups'])}")
    packages = [package for group in wanted["groups"] for package in requirements[group]]
    run(PYTHON, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-input",
        "--editable", f"{ROOT}[cli,redis,trio]", *packages)  # fmt: skip
    STAMP.write_text(json.dumps(wanted, indent=1) + "\n")


def read_stamp() -> dict[str, Any]:
    try:
        return json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}


def make_venv() -> None:
    """Make an empty environment with pip in it, whether or not this interpreter has `ensurepip`."""
    say(f"making {VENV.name} with Python {sys.version.split()[0]}")
    shutil.rmtree(VENV, ignore_errors=True)
    run(BASE, "-m", "venv", "--without-pip", VENV)
    bundled = subprocess.run([PYTHON, "-m", "ensurepip", "--default-pip"], capture_output=True, cwd=ROOT, check=False)
    if bundled.returncode == 0:
        return
    say("this Python has no ensurepip; fetching pip from the package index")
    with tempfile.TemporaryDirectory() as folder:
        wheel = fetch_pip(Path(folder))
        run(PYTHON, wheel / "pip", "install", "-qq", "--disable-pip-version-check", "--no-index", wheel)


# --- pip without pip ---------------------------------------------------------------------------------------


def fetch_pip(folder: Path) -> Path:
    """Fetch pip's wheel into an empty folder, and check it against the hash in this file."""
    wheel = folder / PIP_WHEEL
    for pip in ((BASE, "-m", "pip"), ("pip3",), ("pip",)):
        if shutil.which(pip[0]):
            command = [*pip, "download", "--no-deps", "--only-binary=:all:", f"--python-version={PIP_PYTHON}",
                       f"--dest={folder}", f"pip=={PIP_VERSION}"]  # fmt: skip
            subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
        if wheel.exists():
            break
    else:
        wheel.write_bytes(download_pip())
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != PIP_SHA256:
        fail(f"the package index gave another {PIP_WHEEL} than the one expected: its SHA-256 differs")
    return wheel


def download_pip() -> bytes:
    """Return pip's wheel from the configured index (PEP 503)."""
    index = setting("index-url")
    if not index:
        fail(
            "this Python has no ensurepip, and no package index is configured to fetch pip from: install"
            " ensurepip (Debian, Ubuntu: apt install python3-venv) or set PIP_INDEX_URL to an index's address"
        )
    page_url = index.rstrip("/") + "/pip/" + ("index.html" if index.startswith("file:") else "")
    try:
        page = Links(page_url)
        page.feed(download(page_url).decode("utf-8", "replace"))
        if PIP_WHEEL not in page.found:
            fail(f"{without_login(index)} does not offer {PIP_WHEEL}")
        return download(page.found[PIP_WHEEL])
    except (OSError, ValueError) as error:
        fail(f"cannot fetch {PIP_WHEEL} from {without_login(index)}: {error}")


class Links(html.parser.HTMLParser):
    """The files that a page of a package index links to: file name -> absolute address."""

    def __init__(self, page_url: str) -> None:
        super().__init__()
        self.page_url = page_url
        self.found: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        if tag == "a" and href:
            url = urllib.parse.urldefrag(urllib.parse.urljoin(self.page_url, href)).url
            self.found[urllib.parse.unquote(url.rpartition("/")[2])] = with_login(url, self.page_url)


def download(url: str) -> bytes:
    parts = urllib.parse.urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(parts._replace(netloc=host).geturl())
    if login:
        token = base64.b64encode(urllib.parse.unquote(login).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    context = ssl.create_default_context(cafile=setting("cert"))
    with urllib.request.urlopen(request, timeout=60, context=context) as response:
        return response.read()


def with_login(url: str, page_url: str) -> str:
    """Carry the index's user name and password over to a file on the same host, as pip does."""
    page, file = urllib.parse.urlsplit(page_url), urllib.parse.urlsplit(url)
    if "@" in page.netloc and page.netloc.endswith("@" + file.netloc):
        return file._replace(netloc=page.netloc).geturl()
    return url


def without_login(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def setting(name: str) -> str | None:
    """One of pip's settings: from the environment, else from its configuration files, the nearest first."""
    value = os.environ.get("PIP_" + name.upper().replace("-", "_"))
    if value:
        return value
    home = Path.home()
    files = [
        Path("/etc/pip.conf"),
        home / ".pip/pip.conf",
        Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config", "pip/pip.conf"),
        Path(os.environ.get("PIP_CONFIG_FILE", os.devnull)),
    ]
    config = configparser.RawConfigParser()
    config.read(files)
    return config.get("global", name, fallback=None)


# --- talking -----------------------------------------------------------------------------------------------


def run(*command: str | Path) -> None:
    done = subprocess.run(command, cwd=ROOT, check=False)
    if done.returncode:
        fail("this failed: " + " ".join(str(word) for word in command))


def say(text: str) -> None:
    print(f"environment: {text}", flush=True)


def fail(text: str) -> NoReturn:
    sys.exit(f"environment: {text}")


if __name__ == "__main__":
    main(sys.argv[1:])
