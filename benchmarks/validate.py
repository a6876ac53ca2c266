"""How fast validation is, what memory it takes, how both grow, and whether the numbers depend on how the data is cut.

    python benchmarks/validate.py 1000 10000 100000 1000000
    python benchmarks/validate.py 1000 10000 --workers 2 --reference banking77
    python benchmarks/validate.py 10000 --same --evidently

Each size is measured in a process of its own: wall clock, processor seconds (which other work on the machine hardly
changes) and peak resident memory of that process and its children, imports included. Datasets are made once by the
offline grammar, without the engine's checks for repeated openings, and kept under ``outputs/benchmarks``. The growth
exponent is the slope of log seconds over log records.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genesis_lab.files import output_root


def main() -> None:
    arguments = _arguments()
    if arguments.measure:
        print(json.dumps(_measure(arguments.measure[0], Path(arguments.measure[1]), arguments)))
        return
    rows = []
    for size in arguments.sizes:
        path = _dataset(size, arguments.seed)
        rows.append(_in_a_process("validate", path, arguments))
        print(_line(size, rows[-1]), flush=True)
        if arguments.evidently:
            for what in ("descriptors", "evidently"):
                print(_line(size, _in_a_process(what, path, arguments)), flush=True)
    for (small, first), (large, second) in zip(
        zip(arguments.sizes, rows, strict=True), list(zip(arguments.sizes, rows, strict=True))[1:], strict=False
    ):
        wall, cpu = (math.log(second[k] / first[k]) / math.log(large / small) for k in ("seconds", "cpu_s"))
        print(f"growth exponent {small:,} → {large:,}: {wall:.2f} wall clock, {cpu:.2f} CPU")
    if arguments.same:
        _same(_dataset(arguments.sizes[0], arguments.seed))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", type=int, default=[1_000, 10_000], help="numbers of conversations")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--workers", type=int, default=1, help="processes (1: none besides the measured one)")
    parser.add_argument("--reference", help="name of a reference, e.g. banking77 (default: realism is not measured)")
    parser.add_argument("--same", action="store_true", help="compare 1, 3, 17 partitions, a process pool, local Dask")
    parser.add_argument("--evidently", action="store_true", help="text descriptors of all turns, ours and Evidently's")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def _dataset(size: int, seed: int) -> Path:
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


def _in_a_process(what: str, path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", what, str(path), "--workers", str(arguments.workers)]
    if arguments.reference:
        command += ["--reference", arguments.reference]
    workers = {"GENESIS_WORKERS": str(arguments.workers)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **workers})
    if done.returncode:
        sys.exit(f"{what} of {path.name} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _measure(what: str, path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    start = time.perf_counter()
    result = {"validate": _validate, "descriptors": _descriptors, "evidently": _evidently}[what](path, arguments)
    seconds = time.perf_counter() - start
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in (own, children))
    peak = own.ru_maxrss + arguments.workers * children.ru_maxrss
    return {"what": what, "seconds": seconds, "cpu_s": cpu, "peak_gb": peak / 2**20, "result": result}


def _validate(path: Path, arguments: argparse.Namespace) -> str:
    from genesis_lab.validation.reference import load_reference

    reference = load_reference(arguments.reference) if arguments.reference else None
    report = _report(path, "inline" if arguments.workers == 1 else "processes", reference=reference)
    return f"overall {report['overall']:.2f} {report['verdict']} ({report['turns']:,} turns)"


def _report(path: Path, executor: Any, **options: Any) -> Any:
    from genesis_lab.dataset import open_dataset
    from genesis_lab.domains.conversations.domain import Conversations
    from genesis_lab.validation.quality import validate

    return validate(open_dataset(path), domain=Conversations(), executor=executor, **options)


def _texts(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    from genesis_lab.dataset import open_dataset

    parts = [
        pc.struct_field(pc.list_flatten(b["turns"]), "text") for b in open_dataset(path).batches(columns=["turns"])
    ]
    return pa.concat_arrays(parts)


def _descriptors(path: Path, arguments: argparse.Namespace) -> str:
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


def _evidently(path: Path, arguments: argparse.Namespace) -> str:
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


def _same(path: Path) -> None:
    """Print whether every way of cutting and counting gives the very same report."""
    ways: list[tuple[str, Any, int | None]] = [(f"{n} partition(s), inline", "inline", n) for n in (1, 3, 17)]
    ways += [("5 partitions, processes", "processes", 5), ("5 partitions, local Dask", "dask", 5)]
    reports = {name: json.dumps(_report(path, how, partitions=n), sort_keys=True) for name, how, n in ways}
    first = next(iter(reports.values()))
    for name, report in reports.items():
        print(f"{name}: {'same' if report == first else 'DIFFERENT'}")
    if len(set(reports.values())) > 1:
        sys.exit(1)


def _line(size: int, row: dict[str, Any]) -> str:
    return (
        f"{row['what']:>11} {size:>9,} conversations  {row['seconds']:7.1f} s ({row['cpu_s']:.1f} CPU)  "
        f"{size / row['seconds']:7,.0f}/s  "
        f"{row['peak_gb']:5.2f} GB  {row['result']}"
    )


if __name__ == "__main__":
    main()
