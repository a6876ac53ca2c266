"""The command overview in README.md: ``python tools/readme.py README.md`` brings it up to date (``make readme``)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

BEGIN, END = "<!-- genesis --help -->", "<!-- /genesis --help -->"


def help_text() -> str:
    """What ``genesis --help`` prints in a terminal of 100 columns."""
    command = [sys.executable, "-m", "genesis_lab.cli", "--help"]
    environment = {**os.environ, "COLUMNS": "100"}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()


def refreshed(readme: str) -> str:
    """`readme` with the present help between the two markers."""
    if BEGIN not in readme or END not in readme:
        raise SystemExit(f"README.md must hold the lines {BEGIN} and {END}.")
    block = f"{BEGIN}\n```text\n{help_text()}\n```\n{END}"
    return re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: block, readme, count=1, flags=re.DOTALL)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(refreshed(path.read_text(encoding="utf-8")), encoding="utf-8")
