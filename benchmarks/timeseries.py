"""What generated series are worth in real ones, beside rivals from the literature, in one run on the same real series.

    python benchmarks/timeseries.py
    python benchmarks/timeseries.py --series 60 --splits 2 --dry

The real series are the reference ``electricity`` under GENESIS_REFERENCE_DIR (hourly, standardised). The priors named
``electricity_clients`` were tuned to a part of the same public data (development), so their figures flatter; those set by
hand never saw it. Rivals are written from their papers' descriptions: KernelSynth (Ansari et al. 2024, section 4.2: Gaussian
processes of random sums and products of kernels) and an hourly Gaussian process (one periodic kernel of a day times one of
a week, plus noise, as in Dooley et al. 2023 and Das et al. 2024 for hourly priors).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import bench
from genesis_lab.dataset.sources import real_records
from genesis_lab.domains import get_domain
from genesis_lab.files import use_output_root
from genesis_lab.generation import config_for, generate
from genesis_lab.stats import Interval
from genesis_lab.training import forecasts

LOADS = ("residential_consumption", "commercial_consumption", "industrial_load", "grid_demand")
PLAIN = {"quality_shares": {"clean": 1.0}, "anomaly_shares": {"0": 1.0}, "trend_shares": {"none": 1.0}}
PERIODS = (24, 48, 96, 168, 336)


def periodic(t: np.ndarray, period: float, length: float) -> np.ndarray:
    """Covariance of what repeats."""
    return np.exp(-2 * np.sin(np.pi * np.abs(t[:, None] - t) / period) ** 2 / length**2)


def squared(t: np.ndarray, length: float) -> np.ndarray:
    """Covariance of what changes smoothly."""
    return np.exp(-((t[:, None] - t) ** 2) / (2 * length**2))


def drawn(covariance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A series of a Gaussian process."""
    root = np.linalg.cholesky(covariance + 1e-6 * np.trace(covariance) / len(covariance) * np.eye(len(covariance)))
    return np.asarray(root @ rng.standard_normal(len(covariance)))


def kernel_synth(t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One to five kernels of the bank, each added to or multiplied with what there is."""
    n = len(t)
    bank = [
        lambda: np.ones((n, n)),
        lambda: np.eye(n) * rng.choice([0.1, 1.0]),
        lambda: np.outer(t / n, t / n),
        lambda: squared(t, n * rng.choice([0.1, 1.0, 10.0])),
        lambda: (1 + (t[:, None] - t) ** 2 / (2 * n**2 * (a := rng.choice([0.1, 1.0, 10.0])))) ** -a,
        lambda: periodic(t, rng.choice(PERIODS), 1.0),
        lambda: periodic(t, rng.choice(PERIODS), 1.0),
    ]
    found = bank[rng.integers(len(bank))]()
    for _ in range(rng.integers(5)):
        other = bank[rng.integers(len(bank))]()
        found = found + other if rng.random() < 0.5 else found * other
    return drawn(found, rng)


def hourly_process(t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A daily shape that changes over the week and slowly, with noise."""
    day = periodic(t, 24, rng.uniform(0.4, 1.5)) * squared(t, rng.uniform(100, 1000))
    week = periodic(t, 168, rng.uniform(0.2, 1.0))
    smooth = squared(t, rng.uniform(2, 12))
    noise = np.eye(len(t))
    parts = zip(rng.dirichlet([4, 2, 1, 0.5]), (day, week * periodic(t, 24, 1.0), smooth, noise), strict=True)
    return drawn(sum((weight * part for weight, part in parts), np.zeros_like(noise)), rng)


def hours(values: np.ndarray) -> Any:
    """Series of rivals as forecasters take them."""
    rows = [{"series_id": str(i), "target": row, "start": "2012-01-01"} for i, row in enumerate(values.tolist())]
    return forecasts.hours_of("timeseries", rows)


def generated(name: str, series: int, seed: int, **options: Any) -> Any:
    """A dataset of loads, as users make it."""
    config = config_for("timeseries")(
        dataset=name,
        total=series,
        seed=seed,
        series_types=LOADS,
        countries=("PT",),
        start="2012-01-01",
        **PLAIN,
        **options,
    )
    return forecasts.series_of(generate(config))[0]


def main() -> None:
    parser = bench.parser(__doc__)
    parser.add_argument("--series", type=int, default=1000)
    parser.add_argument("--splits", type=int, default=6)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--forecasters", nargs="+", default=["boosting", "ridge"])
    options = parser.parse_args()
    try:
        real = forecasts.hours_of("timeseries", real_records("electricity", get_domain("timeseries")).records)
    except forecasts.InvalidInput as error:
        sys.exit(f"{error} Set GENESIS_REFERENCE_DIR.")
    rows, facts, rng, t = [], {}, np.random.default_rng(options.seed), np.arange(forecasts.LENGTH, dtype=float)
    with tempfile.TemporaryDirectory() as folder:
        use_output_root(Path(folder))
        sets = {
            "hand-set priors": lambda: generated("hand", options.series, options.seed),
            "priors tuned to such series": lambda: generated(
                "tuned", options.series, options.seed, priors="electricity_clients"
            ),
            "hourly Gaussian process": lambda: hours(np.stack([hourly_process(t, rng) for _ in range(options.series)])),
            "KernelSynth": lambda: hours(np.stack([kernel_synth(t, rng) for _ in range(options.series)])),
        }
        for name, make in sets.items():
            found = forecasts.worth(make(), real, splits=options.splits, forecasters=options.forecasters)
            for one in found["students"]:
                rows.append({
                    "learned from": name, "forecaster": one["title"], "MASE 24 h": str(Interval(**one["mase"])),
                    "÷ 30 real": round(one["ratio_to_real"], 3), "÷ best rule": round(one["ratio_to_rule"], 3),
                    "worth, real series": forecasts.equivalence_sentence(one["equivalence"], of="series").removeprefix("worth "),
                    "5 real + it": one["gains"][0]["together"].removeprefix("worth "),
                    "quantile loss": str(Interval(**one["quantile_loss"])), "80 % band": str(Interval(**one["coverage"])),
                    "worst tenth": round(one["covered_of_the_worst"], 2),
                })  # fmt: skip
                facts[f"{name}, {one['student']}"] = str(Interval(**one["mase"]))
    rules = ", ".join(f"{rule} {Interval(**error)}" for rule, error in found["baselines"].items())
    note = (
        f"{options.series} series each; {found['series']} real ones (electricity, {found['constant']} more stand still), {options.splits} splits of "
        f"30 to learn from and the others to test on. MASE of what needs no training: {rules}. The tuned priors saw a part of "
        "the same public data (development figures); those set by hand saw none."
    )
    bench.store("timeseries", "What generated series are worth in real ones", rows, note=note, facts=facts)


if __name__ == "__main__":
    main()
