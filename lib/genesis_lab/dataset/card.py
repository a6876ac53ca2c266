"""The Hugging Face dataset card (``README.md``): a YAML header that the hub reads, and a page that people read."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_TASKS = {"conversations": ["text-classification"], "timeseries": ["time-series-forecasting"]}
_OTHER_TASK = ["text-generation"]


def dataset_card(manifest: Mapping[str, Any], schema: pa.Schema, languages: Sequence[str]) -> str:
    """The card of a dataset. It says nothing of the folder's name, and all that comes from data or users is escaped.

    Parameters
    ----------
    manifest : as in ``manifest.json``; ``generation`` says who made the records, ``import`` where they come from.
    languages : ISO codes found in the records.
    """
    counts: Mapping[str, int] = manifest["counts"]
    title = f"{manifest['domain']}: {sum(counts.values()):,} records"
    generated = isinstance(manifest.get("generation"), Mapping)
    header: dict[str, Any] = {
        "pretty_name": _plain(title),
        "task_categories": _TASKS.get(manifest["domain"], _OTHER_TASK),
        "size_categories": [_size(sum(counts.values()))],
        "tags": ["genesis-lab", *(["synthetic"] if generated else [])],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*.parquet"} for split in counts],
            }
        ],
    }
    if languages:
        header["language"] = list(languages)
    if generated:
        header["annotations_creators"] = ["machine-generated"]
    lines = ["---", _yaml(header).rstrip(), "---", "", f"# {_escaped(title)}", "", _origin(manifest), ""]
    lines += ["| split | records |", "|---|---|", *(f"| {_escaped(s)} | {n:,} |" for s, n in counts.items()), ""]
    lines += ["| column | type |", "|---|---|", *(f"| {f.name} | `{_type(f.type)}` |" for f in schema), ""]
    drops = manifest.get("drop_reasons") or {}
    if drops:
        lines += ["Answers that were not used:", ""]
        lines += ["| reason | times |", "|---|---|", *(f"| {_escaped(r)} | {n} |" for r, n in drops.items()), ""]
    lines += [f"{_escaped(note)} ({n:,} answers)\n" for note, n in (manifest.get("notes") or {}).items()]
    if not_sent := manifest.get("not_sent"):
        lines += [f"The service does not take {_escaped(', '.join(not_sent))}: asked for, but not sent.", ""]
    lines += [f"Content hash: `{manifest['content_hash']}`. The full account is in `manifest.json`.", ""]
    return "\n".join(lines)


def _origin(manifest: Mapping[str, Any]) -> str:
    generation, imported = manifest.get("generation"), manifest.get("import")
    sentences = []
    if isinstance(generation, Mapping):
        provider, model = _escaped(generation.get("provider")), _escaped(generation.get("model"))
        sentences.append(f"Synthetic records of domain {_escaped(manifest['domain'])}, made with Genesis Lab by")
        sentences.append(f"provider {provider}, model {model}.")
        if manifest.get("missing"):
            sentences.append(f"Incomplete: {manifest['missing']:,} planned records are missing.")
    elif isinstance(imported, Mapping):
        sentences.append(f"Imported into Genesis Lab from {_escaped(imported.get('source'))}.")
    else:
        sentences.append(f"Records of domain {_escaped(manifest['domain'])}, written with Genesis Lab.")
    return " ".join(sentences)


def _yaml(data: Mapping[str, Any]) -> str:
    from ruamel.yaml import YAML

    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.width = 10_000
    yaml.dump(dict(data), stream)
    return stream.getvalue()


def _plain(value: object) -> str:
    """One line without control characters."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", " ", str(value)).split())[:200]


def _escaped(value: object) -> str:
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", html.escape(_plain(value), quote=False))


def _size(n: int) -> str:
    return next((label for bound, label in _SIZES if n < bound), "1M<n<10M")


def _type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list<{_type(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return f"{{{', '.join(field.name for field in kind)}}}"
    return str(kind)
