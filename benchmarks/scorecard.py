"""How long the scorecard of an offline dataset takes, and what it says. Target: 10,010 conversations in 2 minutes.

    python benchmarks/scorecard.py [--total 10010] [--embeddings] [--classifiers tfidf tfidf_words]

Measured on Banking77, wherever `load_reference` finds it. Prints one JSON line: seconds, peak memory and figures.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from genesis_lab.domains.conversations.domain import Conversations, ConversationsConfig
from genesis_lab.generation.engine import generate
from genesis_lab.generation.plan import make_plan
from genesis_lab.providers.offline import OfflineProvider
from genesis_lab.stats import Interval
from genesis_lab.training.worth import worth
from genesis_lab.validation.reference import load_reference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--total", type=int, default=10_010, help="conversations, half of them English")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--embeddings", action="store_true", help="with the embedding classifier")
    parser.add_argument("--classifiers", nargs="+", default=["tfidf", "embedding"])
    parser.add_argument("--report", type=Path, help="also write the scorecard to this JSON file")
    options = parser.parse_args()

    reference, pool = load_reference(), load_reference(split="train")
    if reference is None:
        sys.exit("There is no reference: set GENESIS_REFERENCE_DIR or run `genesis reference fetch`.")
    domain = Conversations(ConversationsConfig(total=options.total, seed=options.seed))
    with tempfile.TemporaryDirectory() as folder:
        plan = make_plan(domain, options.total, options.seed)
        dataset = generate(plan, domain, OfflineProvider(), Path(folder) / "dataset")
        started, processor = time.perf_counter(), time.process_time()
        card = worth(dataset, reference, pool=pool, classifiers=options.classifiers, embeddings=options.embeddings)
        seconds, processor = time.perf_counter() - started, time.process_time() - processor
    if options.report:
        options.report.write_text(json.dumps(card, indent=2), encoding="utf-8")
    print(
        json.dumps(
            {
                "conversations": options.total,
                "openings": card["records"],
                "reference": str(reference),
                "pool": str(pool),
                "wall_s": round(seconds, 1),
                "processor_s": round(processor, 1),
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                "accuracy": {one["student"]: str(Interval(**one["accuracy"])) for one in card["students"]},
                "worth": card["worth"],
                "floor": {one["student"]: str(Interval(**one["floor"])) for one in card["students"]},
            },
            ensure_ascii=False,
        )
    )


if __name__ == "__main__":
    main()
