"""How fast the bias check is, what memory it takes, how both grow, and whether the numbers depend on how the data is cut.

    python benchmarks/bias.py 1000 10000 100000 1000000
    python benchmarks/bias.py 10000 --same

Each size is measured in a process of its own: wall clock, processor seconds (which other work on the machine hardly
changes) and peak resident memory, imports included. Datasets are the offline conversations of ``benchmarks/validate.py``,
made once and kept; above `GENERATED` they are that many, over and over, as counting does not depend on what repeats.
The growth exponent is the slope of log seconds over log records.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from genesis_lab.files import output_root

GENERATED = 10_000
"""Most conversations that are generated afresh."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", type=int, default=[1_000, 10_000], help="numbers of conversations")
    parser.add_argument("--same", action="store_true", help="compare 1, 3, 17 partitions, a process pool, local Dask")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(_measure(arguments.measure)))
        return
    rows = []
    for size in arguments.sizes:
        command = [sys.executable, __file__, "--measure", str(_dataset(size))]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        rows.append((size, row))
        print(
            f"{size:>9,} conversations  {row['seconds']:6.1f} s ({row['cpu_s']:.1f} CPU)  {size / row['seconds']:7,.0f}/s  "
            f"{row['peak_gb']:5.2f} GB  worst {row['severity']}: {row['worst']}",
            flush=True,
        )
    for (small, first), (large, second) in pairwise(rows):
        wall, cpu = (math.log(second[k] / first[k]) / math.log(large / small) for k in ("seconds", "cpu_s"))
        print(f"growth exponent {small:,} → {large:,}: {wall:.2f} wall clock, {cpu:.2f} CPU")
    if arguments.same:
        _same(_dataset(arguments.sizes[0]))


def _dataset(size: int) -> Path:
    """`size` offline conversations, made once."""
    import validate  # benchmarks/validate.py, beside this file
    from genesis_lab.dataset import DatasetWriter, open_dataset

    if size <= GENERATED:
        made: Path = validate._dataset(size, 42)
        return made
    path = output_root() / "benchmarks" / f"repeated_{size}"
    if not path.exists():
        few = open_dataset(_dataset(GENERATED)).frame().to_dict("records")
        for record in few:
            record["turns"] = [dict(turn) for turn in record["turns"]]
        with DatasetWriter(path, "conversations", {}) as writer:
            for start in range(0, size, len(few)):
                writer.write(few[: size - start])
    return path


def _measure(path: Path) -> dict[str, Any]:
    start = time.perf_counter()
    report = _report(path, "inline")
    seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_SELF)
    worst = report["findings"][0]
    return {
        "seconds": seconds,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_gb": used.ru_maxrss / 2**20,
        "severity": worst["severity"],
        "worst": worst["name"],
    }


def _report(path: Path, executor: Any, partitions: int | None = None) -> Any:
    from genesis_lab.bias import check_bias
    from genesis_lab.dataset import open_dataset
    from genesis_lab.domains.conversations.domain import Conversations

    targets = Conversations().targets()
    return check_bias(open_dataset(path), targets=targets, executor=executor, partitions=partitions)


def _same(path: Path) -> None:
    """Print whether every way of cutting and counting gives the very same report."""
    ways: list[tuple[str, Any, int]] = [(f"{n} partition(s), inline", "inline", n) for n in (1, 3, 17)]
    ways += [("5 partitions, processes", "processes", 5), ("5 partitions, local Dask", "dask", 5)]
    reports = {name: json.dumps(_report(path, how, n), sort_keys=True) for name, how, n in ways}
    first = next(iter(reports.values()))
    for name, report in reports.items():
        print(f"{name}: {'same' if report == first else 'DIFFERENT'}")
    if len(set(reports.values())) > 1:
        sys.exit(1)


if __name__ == "__main__":
    main()
