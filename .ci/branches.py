"""The coverage rule: after `coverage run`, every branch of stt_proto was taken.

Counts branches alone; coverage's own `--fail-under` would mix them with lines.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = "stt_proto"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "coverage.json")
        command = [sys.executable, "-m", "coverage", "json", "-q", f"--include={PACKAGE}/*", "-o"]
        subprocess.run([*command, report], check=True)
        measured = json.loads(report.read_text())

    totals = measured["totals"]
    taken, branches = totals["covered_branches"], totals["num_branches"]
    if taken < branches:
        for name, file in sorted(measured["files"].items()):
            if file["missing_branches"]:
                arcs = ", ".join(f"{start}->{end}" for start, end in file["missing_branches"])
                print(f"{name}: not taken: {arcs}")
    print(f"{PACKAGE}: {taken} of {branches} branches taken (all are needed)")
    sys.exit(taken < branches)


if __name__ == "__main__":
    main()
