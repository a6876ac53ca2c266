"""How often the verdict on a student is wrong where nothing is there, and how often it finds what is: by simulation.

    python benchmarks/evaluation.py                      # 4,000 evaluations a row: some minutes
    python benchmarks/evaluation.py --repeats 500        # a quick look

Scores are drawn with runs clustered in questions and questions in groups of near-duplicate concepts. *Protocol* is the
share of evaluations that call a difference real (better, better but small or worse); with no true difference it should
be 5 %. Beside it what other ways would give: the percentile cluster bootstrap, the sign-flip test alone, every question
or every run taken for independent, and Wilcoxon's test over the three runs' means. One thread: set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from finetuning.simulated_scores import KINDS, verdicts

COLUMNS = ("protocol", "above 0", "percentile bootstrap", "sign flip", "questions pooled", "runs pooled", "three runs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=4_000)
    parser.add_argument("--groups", type=int, nargs="*", default=[20, 50, 100, 200])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.perf_counter()
    error = 1.96 * math.sqrt(0.05 * 0.95 / options.repeats)
    print(
        f"No true difference, {options.repeats:,} evaluations a row: 5 % ± {100 * error:.1f} is what a sound test gives.\n"
    )
    print(f"| scores | groups | {' | '.join(COLUMNS)} |\n|---|---|{'---|' * len(COLUMNS)}")
    for kind in KINDS:
        for groups in options.groups:
            _, real = verdicts(kind, groups, options.repeats, np.random.default_rng([options.seed, groups]))
            print(f"| {kind} | {groups} | {' | '.join(f'{real[name]:.1%}' for name in COLUMNS)} |", flush=True)
    print("\nWith a true difference (scores by degrees): how often each verdict is given.\n")
    words = ("better", "better but small", "equivalent", "worse", "can't be told")
    print(f"| points | groups | {' | '.join(words)} |\n|---|---|{'---|' * len(words)}")
    for effect in (-0.10, 0.0, 0.02, 0.05, 0.10):
        for groups in options.groups:
            rng = np.random.default_rng([options.seed, groups])
            said, _ = verdicts("graded", groups, max(options.repeats // 4, 1), rng, effect=effect)
            shares = (f"{said[word] / said.total():.0%}" for word in words)
            print(f"| {100 * effect:+.0f} | {groups} | {' | '.join(shares)} |", flush=True)
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
