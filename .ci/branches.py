"""The coverage rule: after `coverage run`, at least 95 % of the branches of stt_proto were taken.

Counts branches alone; coverage's own `--fail-under` would mix them with lines.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = "stt_proto"
PERCENT = 95.0


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "coverage.json")
        command = [sys.executable, "-m", "coverage", "json", "-q", f"--include={PACKAGE}/*", "-o"]
        subprocess.run([*command, report], check=True)
        measured = json.loads(report.read_text())

    totals = measured["totals"]
    taken, branches = totals["covered_branches"], totals["num_branches"]
    percent = 100.0 * taken / branches if branches else 100.0
    if percent < PERCENT:
        for name, file in sorted(measured["files"].items()):
            if file["missing_branches"]:
                arcs = ", ".join(f"{start}->{end}" for start, end in file["missing_branches"])
                print(f"{name}: not taken: {arcs}")
    print(f"{PACKAGE}: {percent:.1f} % of {branches} branches taken (at least {PERCENT:g} % are needed)")
    sys.exit(percent < PERCENT)


if __name__ == "__main__":
    main()
