"""How often the verdict on a student is wrong where nothing is there, and how often it finds what is: by simulation.

    python benchmarks/evaluation.py                      # 4,000 evaluations a row: some minutes
    python benchmarks/evaluation.py --repeats 500        # a quick look

Scores are drawn with runs clustered in questions and questions in groups of near-duplicate concepts. *Protocol* is the
share of evaluations that call a difference real (better, better but small or worse); with no true difference it should
be 5 %. Beside it what other ways would give: the percentile cluster bootstrap, the sign-flip test alone, every question
or every run taken for independent, and Wilcoxon's test over the three runs' means. One thread: set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import math

import numpy as np

import bench
from finetuning.simulated_scores import KINDS, verdicts

COLUMNS = ("protocol", "above 0", "percentile bootstrap", "sign flip", "questions pooled", "runs pooled", "three runs")


def main() -> None:
    parser = bench.parser(__doc__)
    parser.add_argument("--repeats", type=int, default=4_000)
    parser.add_argument("--groups", type=int, nargs="*", default=[20, 50, 100, 200])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    error = 1.96 * math.sqrt(0.05 * 0.95 / options.repeats)
    rows = []
    for kind in KINDS:
        for groups in options.groups:
            _, real = verdicts(kind, groups, options.repeats, np.random.default_rng([options.seed, groups]))
            rows.append({"scores": kind, "groups": groups} | {name: f"{real[name]:.1%}" for name in COLUMNS})
    note = f"{options.repeats:,} evaluations a row: 5 % ± {100 * error:.1f} is what a sound test gives."
    bench.store("evaluation", "Differences called real where there is none", rows, note=note)
    words = ("better", "better but small", "equivalent", "worse", "can't be told")
    rows, repeats = [], max(options.repeats // 4, 1)
    for effect in (-0.10, 0.0, 0.02, 0.05, 0.10):
        for groups in options.groups:
            rng = np.random.default_rng([options.seed, groups])
            said, _ = verdicts("graded", groups, repeats, rng, effect=effect)
            shares = {word: f"{said[word] / said.total():.0%}" for word in words}
            rows.append({"true difference, points": f"{100 * effect:+.0f}", "groups": groups} | shares)
    note = f"Scores by degrees, {repeats:,} a row: how often each verdict is given."
    bench.store("evaluation_power", "Verdicts where there is a true difference", rows, note=note)


if __name__ == "__main__":
    main()
