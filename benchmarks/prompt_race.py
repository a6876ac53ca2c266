"""How often the prompt race replaces the task's own prompt where none is better, and how often it finds one that is.

    python benchmarks/prompt_race.py                     # 2,000 races a row: some minutes
    python benchmarks/prompt_race.py --repeats 200       # a quick look

Every race has `--candidates` prompts, the task's own among them, on the same questions. With no true difference at most
2.5 % may replace it; with one prompt truly better by so many points, the share is the power. One thread: set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from finetuning.simulated_race import KINDS, replacements

EFFECTS = (0.0, 0.1, 0.2, 0.3, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2_000)
    parser.add_argument("--items", type=int, nargs="*", default=[24, 64])
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"Replaced, of {options.repeats:,} races among {options.candidates} prompts, by true gain in points.\n")
    print(f"| scores | questions | {' | '.join(f'{100 * effect:.0f}' for effect in EFFECTS)} |")
    print(f"|---|---|{'---|' * len(EFFECTS)}")
    for kind in KINDS:
        for items in options.items:
            shares = []
            for effect in EFFECTS:
                rng = np.random.default_rng([options.seed, items])
                found = replacements(
                    kind, items, candidates=options.candidates, repeats=options.repeats, rng=rng, effect=effect
                )
                shares.append(f"{found / options.repeats:.1%}")
            print(f"| {kind} | {items} | {' | '.join(shares)} |", flush=True)


if __name__ == "__main__":
    main()
