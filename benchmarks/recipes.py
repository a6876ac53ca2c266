"""What recipes of series that a strong language model wrote are worth, beside those drawn from the priors.

    GENESIS_REFERENCE_DIR=<folder> python benchmarks/recipes.py

The answers are recorded in ``recordings/recipes.jsonl`` and replayed through provider ``openai``; a model is not asked. The
loads among them (32 of 64) are rendered ten times each with other seeds; so are as many recipes of the priors.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import bench
from genesis_lab.domains.timeseries.kinds import families
from genesis_lab.domains.timeseries.realism import features, mean_ks
from genesis_lab.domains.timeseries.render import render
from genesis_lab.generation import config_for, generate
from genesis_lab.training.evaluation import equivalence_sentence
from genesis_lab.training.forecasts import hours_of, worth
from providers.openai_server import Reply, running, said

RECORDED = Path(__file__).with_name("recordings") / "recipes.jsonl"
START = "2012-01-01T01:00:00"
PLAN = {
    "total": 64, "seed": 13, "length": 500, "start": START, "quality_shares": {"clean": 1}, "anomaly_shares": {"0": 1},
    "trend_shares": {"none": 0.8, "upward": 0.1, "downward": 0.1},
}  # fmt: skip
TIMES = 10


def main() -> None:
    parser = bench.parser(__doc__)
    parser.add_argument("--reference", default="electricity", help="real series, by the name of the folder")
    options = parser.parse_args()
    real, start = reference(options.reference)
    found = {"written by a strong model": replayed()}
    for name, priors in (
        ("priors set by hand", ""),
        ("priors electricity_clients, tuned to this reference", "electricity_clients"),
    ):
        domain = config_for("timeseries")(dataset="unused", priors=priors, **PLAN).domain
        plan = domain.specs(PLAN["total"], PLAN["seed"])
        found[name] = domain, [(domain.parse(domain.offline_text(spec, 0), spec), spec) for spec in plan], 1.0
    rows = []
    for name, (domain, recipes, accepted) in found.items():
        values = loads(domain, recipes, real.shape[1], start)
        mine, theirs = (
            hours_of("timeseries", [{"target": row.tolist(), "start": start} for row in each])
            for each in (values, real)
        )
        card = {row["student"]: row for row in worth(mine, theirs, splits=2)["students"]}
        rows.append({
            "recipes": name, "accepted at first": f"{accepted:.0%}", "series": len(values),
            "mean KS": round(mean_ks(features(values), features(real)), 3),
            "HGB worth": equivalence_sentence(card["boosting"]["equivalence"], of="series"), "HGB ÷ 30 real": round(card["boosting"]["ratio_to_real"], 3),
            "ridge worth": equivalence_sentence(card["ridge"]["equivalence"], of="series"), "ridge ÷ 30 real": round(card["ridge"]["ratio_to_real"], 3),
        })  # fmt: skip
    bench.store(
        "recipes", "Recipes of series: a strong model's beside the priors'", rows,
        note="32 recipes of the electricity kinds, each rendered ten times; trained on nothing else. How the answers were recorded: "
        "[recordings](recordings).",
    )  # fmt: skip


def reference(name: str) -> tuple[Any, str]:
    """Real hourly series that are not constant, and their first stamp."""
    folder = Path(os.environ.get("GENESIS_REFERENCE_DIR", "")) / name
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise SystemExit("There is no reference: set GENESIS_REFERENCE_DIR to a folder with electricity/*.jsonl.")
    records = [json.loads(line) for line in files[0].read_text(encoding="utf-8").splitlines()]
    real = np.array([record["values"] for record in records], dtype=float)
    return real[np.ptp(real, axis=1) > 0], records[0]["start"]


def replayed() -> tuple[Any, list[Any], float]:
    """The recorded answers through provider openai: domain, recipes with their specs, share accepted at the first attempt."""
    recorded = [json.loads(line) for line in RECORDED.read_text(encoding="utf-8").splitlines()]
    with tempfile.TemporaryDirectory() as folder, running() as server:
        config = config_for("timeseries")(
            dataset=f"{folder}/made", provider="openai", model="recorded", base_urls=(server.url,), **PLAN
        )
        specs = config.plan.specs
        answers = {config.domain.prompt(specs[one["number"]]).messages[-1][1]: one["answer"] for one in recorded}

        def script(body: dict[str, Any]) -> Reply:
            return said({"role": "assistant", "content": json.dumps(answers[body["messages"][-1]["content"]])})

        server.script = script
        made = generate(config)
        first = made.total / len(server.requests)
        frame = made.frame()
    by_seed = {spec.seed: spec for spec in specs}
    recipes = [(json.loads(recipe), by_seed[seed]) for recipe, seed in zip(frame["recipe"], frame["seed"], strict=True)]
    return config.domain, recipes, first


def loads(domain: Any, recipes: list[Any], length: int, start: str) -> Any:
    """The loads among the recipes, each rendered with `TIMES` seeds on the clock of the reference."""
    values = []
    for name, kind in domain.kinds.items():
        chosen = [(recipe, spec) for recipe, spec in recipes if spec.attributes["series_type"] == name] * TIMES
        if kind.sector == "electricity":
            seeds = [spec.seed + 1000 * i for i, (_, spec) in enumerate(chosen)]
            numbers = {
                key: np.array([recipe[key] for recipe, _ in chosen]) for key in ("level", *families()[kind.family])
            }
            values.append(render(kind, numbers, [(start, "UTC", "", 40.0)] * len(chosen), "1h", length, seeds))
    return np.concatenate(values)


if __name__ == "__main__":
    main()
