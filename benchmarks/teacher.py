"""What messages that a strong language model wrote are worth in real ones, by how it was asked.

    GENESIS_REFERENCE_DIR=<folder> python benchmarks/teacher.py --reference banking77

The answers are recorded in ``recordings/``; a model is not asked.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from scipy.stats import ks_2samp

import bench
from genesis_lab.stats import Interval
from genesis_lab.training.examples import make_examples
from genesis_lab.training.scorecard import worth
from genesis_lab.validation.reference import load_reference

RECORDINGS = Path(__file__).with_name("recordings")


def main() -> None:
    parser = bench.parser(__doc__)
    parser.add_argument("--reference", default="banking77", help="real messages to test on, by the name of the folder")
    options = parser.parse_args()
    real, pool = load_reference(options.reference), load_reference(options.reference, split="train")
    if real is None or pool is None:
        raise SystemExit("There is no reference: set GENESIS_REFERENCE_DIR or run `genesis reference fetch`.")
    recorded = {path.stem: pd.read_csv(path) for path in sorted(RECORDINGS.glob("*.csv"))}
    shots = pd.DataFrame({"text": pool.texts, "label": pool.labels}).groupby("label").head(5)
    sets = {
        "version 1, 10 per intent": recorded["version_1"],
        "plain list, 10 per intent": recorded["list"].groupby("label").head(10),
        "plain list, 24 per intent": recorded["list"],
        "version 2, 10 per intent": recorded["planned"].groupby("label").head(10),
        "version 2, 24 per intent": recorded["planned"],
        "version 2 with 5 real in each prompt, 24 per intent": recorded["seeded"],
        "5 real": shots,
        "5 real + version 2, 24 per intent": pd.concat([shots, recorded["planned"]]),
        "… + a contrast round of 240": pd.concat([shots, recorded["planned"], recorded["round_seeded"]]),
        "… + a contrast round of 480": pd.concat([shots, recorded["planned"], recorded["contrast"]]),
        "… + another one of 480": pd.concat([shots, recorded["planned"], recorded["round_planned"]]),
        "… + the plain list, 24 per intent": pd.concat([shots, recorded["planned"], recorded["list"]]),
    }
    rows, words = [], pd.Series(real.texts).str.split().str.len()
    for name, messages in sets.items():
        card = worth(make_examples(messages["text"].tolist(), messages["label"].tolist()), real)
        found = {one["student"]: str(Interval(**one["accuracy"])) for one in card["students"]}
        length = messages["text"].str.split().str.len()
        rows.append({
            "messages": name, "MiniLM": found["embedding"], "TF-IDF": found["tfidf"],
            "median words": int(length.median()), "KS of lengths": round(float(ks_2samp(length, words).statistic), 2),
        })  # fmt: skip
    bench.store(
        "teacher", "What a strong model's messages are worth, by how it was asked", rows,
        note=f"Accuracy on {real} of standard classifiers trained on nothing else; how the answers were recorded: [recordings](recordings).",
        facts={
            "version_1": rows[0]["MiniLM"], "list": rows[2]["MiniLM"], "planned": rows[4]["MiniLM"],
            "real_5": rows[6]["MiniLM"], "real_5_planned": rows[7]["MiniLM"],
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
