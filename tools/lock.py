"""From ``pip freeze`` on standard input to requirements.lock on standard output: exact versions, nothing else."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

HEADER = """\
# Exact versions that were tested together on Python 3.11; made by `make lock`.
# Used as constraints: pip install -c requirements.lock -e ".[all]"
# No CUDA packages: torch's CPU build needs none, and a GPU machine's torch brings its own.
"""
_CUDA = re.compile(r"^(nvidia|cuda|triton|pytorch-triton|cupy)", re.IGNORECASE)
_PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)==([^+@\s]+)(\+[\w.]+)?$")


def locked(lines: Iterable[str]) -> str:
    """The lock's text: ``name==version`` lines, sorted, without builds (``+cpu``), CUDA packages and installers."""
    pins = {}
    for line in lines:
        match = _PIN.match(line.strip())
        if (
            match
            and not _CUDA.match(match[1])
            and match[1].lower() not in {"pip", "setuptools", "wheel", "genesis-lab"}
        ):
            pins[match[1].lower()] = f"{match[1]}=={match[2]}"
    return HEADER + "".join(f"{pins[name]}\n" for name in sorted(pins))


if __name__ == "__main__":
    sys.stdout.write(locked(sys.stdin))
