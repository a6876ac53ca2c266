"""How long the notebooks take to say that they were stopped, at random moments, and whether they go on afterwards.

    python benchmarks/interrupts.py 10 40 --seed 1

Every cell is run in order in a kernel, as from JupyterLab. After a random time of work the kernel is interrupted, and the
seconds are counted to the sentence and to the end of the cell, which is then run again, at most twice interrupted.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import bench
from genesis_lab.notebooks import find_notebook, notebook_paths, read_notebook
from watched_kernel import Seen, kernel


def main() -> None:
    asked = bench.parser(__doc__)
    asked.add_argument("notebooks", nargs="*", help="numbers; none: all")
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--longest", type=float, default=6.0, help="seconds of work before an interrupt, at most")
    given = asked.parse_args()
    paths = [find_notebook(one) for one in given.notebooks] or notebook_paths()
    rows = [_row(path, interrupted(path, random.Random(given.seed), given.longest)) for path in paths]
    facts = {
        "interrupts": sum(row["interrupts"] for row in rows),
        "sentence_s": max(row["sentence, s"] or 0 for row in rows),
    }
    note = (
        "Seconds are each notebook's longest. A stopped cell is run again: failed afterwards are those that then broke."
    )
    bench.store("interrupts", "Interrupted at random moments", rows, note=note, facts=facts)


def _row(path: Path, found: list[tuple[Seen, bool]]) -> dict[str, Any]:
    said = [seen.sentence_s for seen, _ in found if seen.sentence_s is not None]
    return {
        "notebook": path.stem[:2],
        "interrupts": len(found),
        "sentence, s": round(max(said), 2) if said else None,
        "sentence, median s": round(statistics.median(said), 2) if said else None,
        "cell ended, s": round(max(seen.ended_s or 0.0 for seen, _ in found), 2) if found else None,
        "without the sentence": len(found) - len(said),
        "failed afterwards": sum(not went_on for _, went_on in found),
    }


def interrupted(path: Path, chance: random.Random, longest: float) -> list[tuple[Seen, bool]]:
    """What was seen of each interrupt, and whether the cell then ran."""
    found: list[tuple[Seen, bool]] = []
    cells = [cell for cell in read_notebook(path).cells if cell.cell_type == "code"]
    with tempfile.TemporaryDirectory() as outputs, kernel(path.parent, Path(outputs)) as started:
        wait = chance.uniform(0.1, longest)
        for number, cell in enumerate(cells):
            for attempt in range(3):
                began = time.monotonic()
                seen = started.run(cell.source, interrupt_after=max(wait, 0.0) if attempt < 2 else None)
                wait -= time.monotonic() - began
                stopped = seen.interrupted and seen.errors
                if stopped:
                    found.append((seen, True))
                    wait = chance.uniform(0.1, longest)
                    print(f"{path.stem} cell {number}: {seen}", file=sys.stderr)
                    continue
                if seen.errors:
                    print(f"{path.stem} cell {number} failed: {seen}", file=sys.stderr)
                    if not attempt:
                        return found
                    found[-1] = (found[-1][0], False)
                break
    return found


if __name__ == "__main__":
    main()
