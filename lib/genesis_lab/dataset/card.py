"""The Hugging Face dataset card (``README.md``): a YAML header that the hub reads, and a page that people read."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from genesis_lab.domains import get_domain

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def dataset_card(manifest: Mapping[str, Any], schema: pa.Schema, languages: Sequence[str]) -> str:
    """The card of a dataset with this manifest, and records in these languages (ISO codes).

    It says nothing of the folder's name, and all that comes from data or users is escaped.
    """
    from huggingface_hub import DatasetCardData

    counts: Mapping[str, int] = manifest["counts"]
    total, domain, made = sum(counts.values()), manifest["domain"], manifest.get("generation")
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in counts]
    header = DatasetCardData(
        pretty_name=f"{domain}: {total:,} records",
        task_categories=list(get_domain(domain).facets.task_categories) or None,
        size_categories=[next((label for bound, label in _SIZES if total < bound), "1M<n<10M")],
        tags=["genesis-lab", *(["synthetic"] if made else [])],
        configs=[{"config_name": "default", "data_files": files}],
        language=list(languages) or None,
        annotations_creators=["machine-generated"] if made else None,
    )
    page = "\n\n".join(_paragraphs(manifest, schema))
    return f"---\n{header.to_yaml()}\n---\n\n# {_escaped(header.pretty_name)}\n\n{page}\n"


def _paragraphs(manifest: Mapping[str, Any], schema: pa.Schema) -> Iterator[str]:
    domain = _escaped(manifest["domain"])
    if made := manifest.get("generation"):
        who = f"provider {_escaped(made.get('provider'))}, model {_escaped(made.get('model'))}"
        lacking = f" Incomplete: {n:,} planned records are missing." if (n := manifest.get("missing")) else ""
        yield f"Synthetic records of domain {domain}, made with Genesis Lab by {who}.{lacking}"
    elif source := manifest.get("import"):
        yield f"Imported into Genesis Lab from {_escaped(source.get('source'))}."
    else:
        yield f"Records of domain {domain}, written with Genesis Lab."
    yield _table("split", "records", {split: f"{n:,}" for split, n in manifest["counts"].items()})
    yield _table("column", "type", {field.name: f"`{_type(field.type)}`" for field in schema})
    if drops := manifest.get("drop_reasons"):
        yield "Answers that were not used:"
        yield _table("reason", "times", drops)
    for note, n in (manifest.get("notes") or {}).items():
        yield f"{_escaped(note)} ({n:,} answers)"
    if not_sent := manifest.get("not_sent"):
        yield f"The service does not take {_escaped(', '.join(not_sent))}: asked for, but not sent."
    yield f"Content hash: `{manifest['content_hash']}`. The full account is in `manifest.json`."


def _table(first: str, second: str, rows: Mapping[str, Any]) -> str:
    return "\n".join([f"| {first} | {second} |", "|---|---|", *(f"| {_escaped(k)} | {v} |" for k, v in rows.items())])


def _escaped(value: object) -> str:
    """One line of text without control characters and without a meaning in Markdown or HTML."""
    line = " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", " ", str(value)).split())[:200]
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", html.escape(line, quote=False))


def _type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list<{_type(kind.value_type)}>"
    return f"{{{', '.join(field.name for field in kind)}}}" if pa.types.is_struct(kind) else str(kind)
