"""How long the scorecard of an offline dataset takes, and what it says. Target: 10,010 conversations in a minute.

    python benchmarks/scorecard.py
    python benchmarks/scorecard.py --total 400 --words --dry

Measured on Banking77, wherever `load_reference` finds it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import bench
from genesis_lab.dataset import open_dataset
from genesis_lab.domains.conversations.domain import Conversations, ConversationsConfig
from genesis_lab.generation.engine import generate
from genesis_lab.generation.plan import make_plan
from genesis_lab.providers.offline import OfflineProvider
from genesis_lab.stats import Interval
from genesis_lab.training.scorecard import worth
from genesis_lab.validation.reference import load_reference


def scored(path: Path, embeddings: bool) -> dict[str, Any]:
    """The measured part: the scorecard of a dataset."""
    return worth(open_dataset(path), load_reference(), pool=load_reference(split="train"), embeddings=embeddings)


def main() -> None:
    parser = bench.parser(__doc__)
    parser.add_argument("--total", type=int, default=10_010, help="conversations, half of them English")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--words", action="store_true", help="TF-IDF only, without sentence embeddings")
    options = parser.parse_args()
    reference, pool = load_reference(), load_reference(split="train")
    if reference is None:
        sys.exit("There is no reference: set GENESIS_REFERENCE_DIR or run `genesis reference fetch`.")
    domain = Conversations(ConversationsConfig(total=options.total, seed=options.seed))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dataset"
        generate(make_plan(domain, options.total, options.seed), domain, OfflineProvider(), path)
        found = bench.measured(scored, path, not options.words)
    card = found["result"]
    rows, facts = [], {"seconds": f"{found['seconds']:.0f}"}
    for one in card["students"]:
        name, accuracy, floor = one["student"], str(Interval(**one["accuracy"])), str(Interval(**one["floor"]))
        facts |= {name: accuracy, f"floor_{name}": floor}
        rows.append({
            "classifier": one["title"], "accuracy on real utterances": accuracy,
            "worth": card["worth"].get(name, "not measured"), "names alone": floor,
        })  # fmt: skip
    note = (
        f"{options.total:,} conversations, {card['records']:,} openings in English, on {reference} with {pool} as the pool: "
        f"{found['seconds']:.0f} s ({found['cpu_s']:.0f} CPU), {found['peak_mib']:,} MiB."
    )
    note += "".join(f" {what}: not measured, {why}." for what, why in card["not_measured"].items())
    bench.store("scorecard", "What offline conversations are worth in real data", rows, note=note, facts=facts)


if __name__ == "__main__":
    main()
