"""Have a Redis for the tests, where one can be had without asking anybody.

Usage: python .ci/redis.py

Where there is none, and this is root on a system with apt, Debian's package `redis-tools` is installed: it has the
server's program (as `redis-check-rdb`; `tests/anyio/redis_server.py` calls it by its right name), and no service, which
`redis-server` would start. Elsewhere nothing is done, and the tests that need a server are skipped and say so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

PROGRAMS = ("redis-server", "valkey-server", "redis-check-rdb", "valkey-check-rdb")
INSTALL = ("apt-get", "install", "-y", "-qq", "--no-install-recommends", "redis-tools")


def main() -> None:
    if any(map(shutil.which, PROGRAMS)):
        return
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("apt-get") is None:
        say("there is none, so the tests of the store in Redis are skipped (Debian, Ubuntu: apt install redis-tools)")
        return
    say("installing redis-tools, for the tests of the store in Redis")
    if not run(*INSTALL) and not (run("apt-get", "update", "-qq") and run(*INSTALL)):
        say("that failed, so these tests are skipped")


def run(*command: str) -> bool:
    """Whether a command worked; what it said is shown if not."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        say(f"{' '.join(command)}: {error}")
        return False
    if done.returncode:
        say(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.returncode == 0


def say(text: str) -> None:
    print(f"redis: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
