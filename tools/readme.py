"""What README.md quotes: ``python tools/readme.py`` brings the commands and the measured figures up to date (``make readme``).

``<!-- genesis --help -->`` … holds the overview of commands; ``<!-- bench NAME -->`` … the table of benchmarks/results/NAME.json,
``<!-- bench NAME.FACT -->`` … one of its facts; each ends with ``<!-- / -->``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import bench  # noqa: E402  (benchmarks/bench.py, beside this folder)

BLOCK = re.compile(r"<!-- (genesis --help|bench [\w.]+) -->.*?<!-- / -->", re.DOTALL)


def help_text() -> str:
    """What ``genesis --help`` prints in a terminal of 100 columns."""
    command = [sys.executable, "-m", "genesis_lab.cli", "--help"]
    environment = {**os.environ, "COLUMNS": "100"}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()


def refreshed(readme: str) -> str:
    """`readme` with everything between its markers as it is now.

    Raises
    ------
    KeyError : it quotes a result or a fact that is not there.
    """
    return BLOCK.sub(lambda found: f"<!-- {found[1]} -->{_content(found[1])}<!-- / -->", readme)


def _content(what: str) -> str:
    if what == "genesis --help":
        return f"\n```text\n{help_text()}\n```\n"
    name, _, fact = what.removeprefix("bench ").partition(".")
    result = bench.results()[name]
    return str(result["facts"][fact]) if fact else f"\n{bench.table(result)}\n"


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(refreshed(path.read_text(encoding="utf-8")), encoding="utf-8")
