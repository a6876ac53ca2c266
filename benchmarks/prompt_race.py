"""How often the prompt race replaces the task's own prompt where none is better, and how often it finds one that is.

    python benchmarks/prompt_race.py                     # 2,000 races a row: some minutes
    python benchmarks/prompt_race.py --repeats 200       # a quick look

Every race has `--candidates` prompts, the task's own among them, on the same questions. With no true difference at most
2.5 % may replace it; with one prompt truly better by so many points, the share is the power. One thread: set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import numpy as np

import bench
from finetuning.simulated_race import KINDS, replacements

EFFECTS = (0.0, 0.1, 0.2, 0.3, 0.5)


def main() -> None:
    parser = bench.parser(__doc__)
    parser.add_argument("--repeats", type=int, default=2_000)
    parser.add_argument("--items", type=int, nargs="*", default=[24, 64])
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows = []
    for kind in KINDS:
        for items in options.items:
            row = {"scores": kind, "questions": items}
            for effect in EFFECTS:
                rng = np.random.default_rng([options.seed, items])
                found = replacements(
                    kind, items, candidates=options.candidates, repeats=options.repeats, rng=rng, effect=effect
                )
                row[f"{100 * effect:.0f} points"] = f"{found / options.repeats:.1%}"
            rows.append(row)
    note = f"Of {options.repeats:,} races among {options.candidates} prompts, by the true gain of the best in points."
    bench.store("prompt_race", "How often the race replaces the task's own prompt", rows, note=note)


if __name__ == "__main__":
    main()
