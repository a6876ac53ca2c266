"""How fast validation is, what memory it takes, how both grow, and whether the numbers depend on how the data is cut.

    python benchmarks/validate.py 1000 10000 100000 1000000
    python benchmarks/validate.py 1000 10000 --workers 2 --reference banking77
    python benchmarks/validate.py 10000 --same --evidently

Each size is measured in a process of its own, imports included. Datasets are made once by the offline grammar, without
the engine's checks for repeated openings, and kept under ``outputs/benchmarks``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import bench
from genesis_lab.files import output_root


def main() -> None:
    parser = bench.parser(__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=[1_000, 10_000], help="numbers of conversations")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--workers", type=int, default=1, help="processes (1: none besides the measured one)")
    parser.add_argument("--reference", help="name of a reference, e.g. banking77 (default: realism is not measured)")
    parser.add_argument("--same", action="store_true", help="compare 1, 3, 17 partitions, a process pool, local Dask")
    parser.add_argument("--evidently", action="store_true", help="text descriptors of all turns, ours and Evidently's")
    arguments = parser.parse_args()
    os.environ["GENESIS_WORKERS"] = str(arguments.workers)
    where = "inline" if arguments.workers == 1 else "processes"
    rows, texts = [], []
    for size in arguments.sizes:
        path = dataset(size, arguments.seed)
        found = bench.measured(validated, path, where, arguments.reference)
        rows.append(row(size, found) | found["result"])
        for way in (descriptors, evidently) if arguments.evidently else ():
            found = bench.measured(way, path)
            texts.append({"way": way.__name__} | row(size, found) | {"means": found["result"]})
    note = same(report, dataset(arguments.sizes[0], arguments.seed)) if arguments.same else ""
    bench.store("validate", "Validation of conversations", grown(rows), note=note, facts=facts(rows))
    if texts:
        bench.store("descriptors", "Text descriptors of all turns: ours and Evidently's", texts)


def row(size: int, found: dict[str, Any]) -> dict[str, Any]:
    """What `bench.measured` found about so many conversations."""
    return {
        "conversations": size,
        "seconds": found["seconds"],
        "CPU seconds": found["cpu_s"],
        "a second": round(size / found["seconds"]),
        "peak MiB": found["peak_mib"],
    }


def grown(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each row with the growth exponent of its processor seconds since the row before."""
    grows = [
        bench.growth(a["conversations"], b["conversations"], a["CPU seconds"], b["CPU seconds"])
        for a, b in pairwise(rows)
    ]
    return [one | {"growth exponent": grow} for one, grow in zip(rows, [None, *grows], strict=True)]


def facts(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Seconds and gigabytes of 100,000 and of 1,000,000 conversations, where they were measured."""
    found = {}
    for one in rows:
        if name := {100_000: "100k", 1_000_000: "1m"}.get(one["conversations"]):
            found[f"seconds_{name}"] = f"{one['seconds']:.0f}"
            found[f"gb_{name}"] = f"{one['peak MiB'] * 2**20 / 1e9:.1f}"
    return found


def same(report: Callable[[Path, Any, int], Any], path: Path) -> str:
    """A sentence that every way of cutting and counting gives the very same report; exits if one does not."""
    ways = [("inline", 1), ("inline", 3), ("inline", 17), ("processes", 5), ("dask", 5)]
    reports = {way: json.dumps(report(path, *way), sort_keys=True) for way in ways}
    different = [f"{n} partitions, {where}" for (where, n), found in reports.items() if found != reports[ways[0]]]
    if different:
        sys.exit(f"Another report than that of 1 partition, inline: {'; '.join(different)}.")
    return "The very same report from 1, 3 and 17 partitions, from 5 in processes and from 5 on a local Dask cluster."


def dataset(size: int, seed: int) -> Path:
    """`size` offline conversations, made once."""
    from genesis_lab.dataset import DatasetWriter

    path = output_root() / "benchmarks" / f"conversations_{size}_{seed}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with DatasetWriter(path, "conversations", {}) as writer:
            for block in _records(size, seed):
                writer.write(block)
    return path


def _records(size: int, seed: int) -> Iterator[list[dict[str, Any]]]:
    from genesis_lab.domains.base import Provenance
    from genesis_lab.domains.conversations.domain import Conversations, ConversationsConfig
    from genesis_lab.errors import ParseFailure

    domain = Conversations(ConversationsConfig(total=size, seed=seed))
    provenance = Provenance(provider="offline", model="grammar", prompt_version=domain.prompt_version)
    block = []
    for spec in domain.specs(size, seed):
        for attempt in range(8):
            try:
                block.append(
                    domain.render(domain.parse(domain.offline_text(spec, attempt), spec), spec, provenance).model_dump()
                )
                break
            except ParseFailure:
                continue
        if len(block) == 10_000:
            yield block
            block = []
    yield block


def validated(path: Path, where: str, reference: str | None) -> dict[str, str]:
    """The measured part: the verdict of a dataset's report."""
    from genesis_lab.validation.reference import load_reference

    found = report(path, where, reference=load_reference(reference) if reference else None)
    return {"verdict": f"{found['overall']:.2f} {found['verdict']}"}


def report(path: Path, where: Any, partitions: int | None = None, **options: Any) -> Any:
    from genesis_lab.dataset import open_dataset
    from genesis_lab.domains.conversations.domain import Conversations
    from genesis_lab.validation.quality import validate

    return validate(open_dataset(path), domain=Conversations(), executor=where, partitions=partitions, **options)


def _texts(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    from genesis_lab.dataset import open_dataset

    parts = [
        pc.struct_field(pc.list_flatten(b["turns"]), "text") for b in open_dataset(path).batches(columns=["turns"])
    ]
    return pa.concat_arrays(parts)


def descriptors(path: Path) -> str:
    """What Evidently measures below, by our means: length, words, share of non-letters, a word in the text."""
    import numpy as np
    import pyarrow.compute as pc

    texts = _texts(path)
    length = pc.utf8_length(texts)
    words = pc.count_substring_regex(pc.replace_substring_regex(texts, "[^A-Za-z0-9 ]+", ""), r"\S+")
    letters = pc.utf8_length(pc.replace_substring_regex(texts, r"[^\pL ]", ""))
    non_letters = 100 * (1 - letters.to_numpy(zero_copy_only=False) / np.maximum(length.to_numpy(), 1))
    card = pc.match_substring_regex(texts, r"card|tarjeta")
    means = pc.mean(length).as_py(), pc.mean(words).as_py(), non_letters.mean()
    return "means {:.2f} {:.2f} {:.2f} {:.4f}".format(*means, pc.mean(card).as_py())


def evidently(path: Path) -> str:
    try:
        from evidently import DataDefinition, Report
        from evidently import Dataset as EvidentlyDataset
        from evidently.descriptors import NonLetterCharacterPercentage, RegExp, TextLength, WordCount
        from evidently.presets import TextEvals
    except ModuleNotFoundError as error:
        return f"not measured: there is no {error.name} (pip install evidently)"
    except ImportError as error:
        return f"not measured: evidently is installed but can't be imported: {error}"
    import pandas as pd

    frame = pd.DataFrame({"text": _texts(path).to_pylist()})
    measured = [
        TextLength("text", alias="length"),
        WordCount("text", alias="words"),
        NonLetterCharacterPercentage("text", alias="non_letters"),
        RegExp("text", reg_exp=r".*(card|tarjeta).*", alias="card"),
    ]
    dataset = EvidentlyDataset.from_pandas(frame, DataDefinition(text_columns=["text"]), descriptors=measured)
    Report([TextEvals()]).run(dataset, None)
    means = dataset.as_dataframe()[["length", "words", "non_letters"]].mean()
    card = dataset.as_dataframe()["card"].astype(float).mean()
    return f"means {means['length']:.2f} {means['words']:.2f} {means['non_letters']:.2f} {card:.4f}"


if __name__ == "__main__":
    main()
