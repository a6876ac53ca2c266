"""How fast offline conversations are made: planned, written, checked, journalled, stored.

    python benchmarks/generate.py                   # 1,540, 10,010 and 100,100
    python benchmarks/generate.py 200 --dry

Each size is made in a process of its own, after 1,000 that load the grammar and the models of languages.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import bench
from genesis_lab.domains.conversations.domain import Conversations, ConversationsConfig
from genesis_lab.generation.engine import generate
from genesis_lab.generation.plan import make_plan
from genesis_lab.providers.offline import OfflineProvider


def made(total: int) -> dict[str, float]:
    """Wall and processor seconds of `total` conversations."""
    _make(1_000)
    return bench.side_by_side({"made": lambda: _make(total)}, repeats=1)["made"]


def _make(total: int) -> None:
    domain = Conversations(ConversationsConfig(total=total))
    with tempfile.TemporaryDirectory() as folder:
        generate(make_plan(domain, total, 42), domain, OfflineProvider(), Path(folder) / "dataset")


def main() -> None:
    parser = bench.parser(__doc__)
    parser.add_argument("totals", type=int, nargs="*", default=[1_540, 10_010, 100_100])
    rows, facts = [], {}
    for total in parser.parse_args().totals:
        found = bench.measured(made, total)
        taken = found["result"]
        row: dict[str, Any] = {
            "conversations": total,
            "seconds": taken["seconds"],
            "CPU seconds": taken["cpu_s"],
            "a second": round(total / taken["seconds"]),
            "a CPU second": round(total / taken["cpu_s"]),
            "peak MiB": found["peak_mib"],
        }
        rows.append(row)
        if total == 10_010:
            facts = {"per_s": f"{row['a second']:,}", "per_cpu_s": f"{row['a CPU second']:,}"}
    bench.store("generate", "Offline generation of conversations", rows, facts=facts)


if __name__ == "__main__":
    main()
