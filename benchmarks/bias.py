"""How fast the bias check is, what memory it takes, how both grow, and whether the numbers depend on how the data is cut.

    python benchmarks/bias.py 1000 10000 100000 1000000
    python benchmarks/bias.py 10000 --same

Each size is measured in a process of its own, imports included. Datasets are the offline conversations of
``benchmarks/validate.py``, made once and kept; above `GENERATED` they are that many, over and over, as counting does not
depend on what repeats.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bench
import validate  # benchmarks/validate.py, beside this file
from genesis_lab.files import output_root

GENERATED = 10_000
"""Most conversations that are generated afresh."""


def main() -> None:
    parser = bench.parser(__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=[1_000, 10_000], help="numbers of conversations")
    parser.add_argument("--same", action="store_true", help="compare 1, 3, 17 partitions, a process pool, local Dask")
    arguments = parser.parse_args()
    rows = []
    for size in arguments.sizes:
        found = bench.measured(checked, dataset(size))
        rows.append(validate.row(size, found) | found["result"])
    note = validate.same(report, dataset(arguments.sizes[0])) if arguments.same else ""
    bench.store("bias", "Bias check of conversations", validate.grown(rows), note=note, facts=validate.facts(rows))


def dataset(size: int) -> Path:
    """`size` offline conversations, made once."""
    from genesis_lab.dataset import DatasetWriter, open_dataset

    if size <= GENERATED:
        return validate.dataset(size, 42)
    path = output_root() / "benchmarks" / f"repeated_{size}"
    if not path.exists():
        few = open_dataset(dataset(GENERATED)).frame().to_dict("records")
        for record in few:
            record["turns"] = [dict(turn) for turn in record["turns"]]
        with DatasetWriter(path, "conversations", {}) as writer:
            for start in range(0, size, len(few)):
                writer.write(few[: size - start])
    return path


def checked(path: Path) -> dict[str, str]:
    """The measured part: the worst finding of a dataset's report."""
    worst = report(path, "inline")["findings"][0]
    return {"worst finding": f"{worst['name']}: {worst['severity']}"}


def report(path: Path, where: Any, partitions: int | None = None) -> Any:
    from genesis_lab.bias import check_bias
    from genesis_lab.dataset import open_dataset
    from genesis_lab.domains.conversations.domain import Conversations

    targets = Conversations().targets()
    return check_bias(open_dataset(path), targets=targets, executor=where, partitions=partitions)


if __name__ == "__main__":
    main()
