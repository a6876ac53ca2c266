"""A role's teacher examples: their scores, every fault with its path, a copy in which only a person's work is left."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from genesis_lab.dataset import Dataset, DatasetWriter, open_dataset
from genesis_lab.domains import get_domain, recorded_domain
from genesis_lab.domains.base import Example
from genesis_lab.errors import InvalidInput
from genesis_lab.files import dataset_path
from genesis_lab.texts import same_words
from genesis_lab.validation.text import clusters, near_pairs, normalised, signatures

LISTED = 10_000
"""Most issues that are listed; all are counted."""
THRESHOLDS = tuple(n / 20 for n in range(10, 21))
"""Minimum scores that are compared."""
_NEVER_SCORED = ("split", "language", "group", "teacher", "score", "valid")

Issue = dict[str, Any]
"""One fault: row, split, record_id, kind, path, message, and whether it is ``mechanical``: `fix` repairs it."""


@dataclass(slots=True)
class _Row:
    row: int
    split: str
    record: dict[str, Any]
    example: Example

    def issue(self, kind: str, path: str, message: str, *, mechanical: bool = True) -> Issue:
        where = {"row": self.row, "split": self.split, "record_id": self.record.get("record_id")}
        return where | {"kind": kind, "path": path, "message": message, "mechanical": mechanical}

    @property
    def concept(self) -> str:
        return str(self.record.get("concept") or "")


def role_of(dataset: Dataset) -> Any:
    """The domain whose examples a dataset holds, a `domains.base.Role`; `InvalidInput` for anything else."""
    role = recorded_domain(dataset.manifest) or get_domain(dataset.domain)
    if role.facets.preview != "dialogue":
        raise InvalidInput(
            f"The audit reads teacher examples (requirements, vision), {dataset.name} is a dataset of "
            f"{dataset.domain}: validate it instead."
        )
    return role


def audit(dataset: Dataset) -> dict[str, Any]:
    """Everything that is wrong with a dataset of a role's examples, record by record and between records; JSON-safe.

    ``kinds`` counts the issues, ``summary`` says it in words, and ``issues`` lists the first ones in order.
    """
    role = role_of(dataset)
    rows = list(_rows(dataset, role))
    found = sorted((*_record_issues(rows, role), *_set_issues(rows)), key=lambda issue: int(issue["row"]))
    with_issues, mechanical = len({issue["row"] for issue in found}), sum(issue["mechanical"] for issue in found)
    told = f"{mechanical:,} issues can be fixed mechanically, {len(found) - mechanical:,} need a person"
    summary = f"{len(rows):,} records, {f'{with_issues:,} with issues: {told}' if found else 'no issue'}"
    return {
        "domain": dataset.domain,
        "records": len(rows),
        "records_with_issues": with_issues,
        "kinds": dict(Counter(issue["kind"] for issue in found).most_common()),
        "mechanical": mechanical,
        "for_a_person": len(found) - mechanical,
        "summary": summary,
        "issues": found[:LISTED],
    }


def fix(dataset: Dataset, target: str | Path, *, replace: bool = False) -> tuple[Dataset, dict[str, Any]]:
    """A copy in which everything mechanical is repaired, and its audit: answers in their plain form, concepts that
    several splits share gathered in one, repeated prompts dropped (the first stays), repeated ids renewed.
    """
    role, place = role_of(dataset), dataset_path(target)
    if place.resolve() == dataset.path.resolve():
        raise InvalidInput(f"{dataset.name} can't be repaired in place: give the repaired copy another name.")
    rows, changed = list(_rows(dataset, role)), Counter[str]()
    for row in rows:
        text, faults = row.record.get("answer"), _faults(row, role)
        better = role.mended(text) if faults else text
        if faults and len(role.faults(better, row.example)) < len(faults):
            row.record["answer"] = better
            changed["answers rewritten"] += 1
    for members, home in _straddling(rows):
        changed["records moved to another split"] += sum(row.split != home for row in members)
        for row in members:
            row.split = home
    seen, ids, kept = set(), set(), []
    for row in rows:
        prompt = same_words(row.example.question)
        if prompt in seen:
            changed["repeated prompts dropped"] += 1
            continue
        if row.record["record_id"] in ids:
            digest = hashlib.sha256(f"{row.row}\x1f{prompt}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
            row.record["record_id"] = f"{role.name[:3]}_{digest}"
            changed["ids renewed"] += 1
        seen.add(prompt)
        ids.add(row.record["record_id"])
        kept.append(row)
    manifest = {k: v for k, v in dataset.manifest.items() if k not in ("counts", "content_hash")}
    manifest |= {"parent": {"name": dataset.name, "content_hash": dataset.content_hash}, "fixed": dict(changed)}
    with DatasetWriter(place, dataset.domain, manifest, replace=replace) as writer:
        for split in dataset.counts:
            writer.write((row.record for row in kept if row.split == split), split)
    fixed = open_dataset(place)
    return fixed, audit(fixed)


def teaching_report(dataset: Dataset) -> dict[str, Any]:
    """What a user asks of teacher data before a student is taught with it: scores, splits, teachers, audit; JSON-safe.

    ``thresholds`` are the answers that each minimum score would have accepted, those the run turned away included.
    """
    role = role_of(dataset)
    scores = pd.DataFrame([_scored(row, role) for row in _rows(dataset, role)])
    away = {float(score): int(n) for score, n in dataset.manifest.get("rejected_scores", {}).items()}
    every = np.array([*scores.get("score", []), *np.repeat(list(away), list(away.values()))])
    measured = [name for name in scores.columns if name not in _NEVER_SCORED]
    means = {name: round(float(scores[name].mean()), 4) for name in ("score", "valid", *measured) if len(scores)}
    splits = [
        {"split": str(name), "examples": len(rows), "concept groups": int(rows["group"].nunique())}
        | {language: int(n) for language, n in sorted(rows["language"].value_counts().items())}
        for name, rows in (scores.groupby("split", sort=False) if len(scores) else ())
    ]
    return {
        "domain": dataset.domain,
        "records": len(scores),
        "min_score": (dataset.manifest.get("config") or {}).get("min_score"),
        "scores": {"mean": means.get("score"), "valid": means.get("valid"), "parts": {n: means[n] for n in measured}},
        "thresholds": [
            {"min_score": t, "accepted": int((every >= t - 1e-9).sum()), "answers": len(every)} for t in THRESHOLDS
        ],
        "splits": splits,
        "teachers": scores["teacher"].value_counts().to_dict() if len(scores) else {},
        "audit": audit(dataset),
    }


def _scored(row: _Row, role: Any) -> dict[str, Any]:
    example, made = row.example, row.record.get("provenance") or {}
    score = role.score(example.answer, example)
    teacher = f"{made.get('provider') or 'unknown'} ({made.get('model') or '?'})"
    found = {"split": row.split, "language": example.language, "group": example.group, "teacher": teacher}
    return found | {"score": score.total, "valid": score.valid} | dict(score.parts)


def _rows(dataset: Dataset, role: Any) -> Iterator[_Row]:
    split_of = [split for split, n in dataset.counts.items() for _ in range(n)]
    records = (record for batch in dataset.batches() for record in batch.to_pylist())
    for number, (split, record) in enumerate(zip(split_of, records, strict=True)):
        yield _Row(number, split, record, role.example(record))


def _faults(row: _Row, role: Any) -> list[Any]:
    """The faults of its answer; none where there is no answer at all."""
    text = row.record.get("answer")
    return list(role.faults(text, row.example)) if isinstance(text, str) and text.strip() else []


def _record_issues(rows: Sequence[_Row], role: Any) -> Iterator[Issue]:
    for row in rows:
        for name in ("concept", "answer"):
            if not str(row.record.get(name) or "").strip():
                yield row.issue("missing_field", name, f"{name} is missing", mechanical=False)
        if faults := _faults(row, role):
            mended = role.mended(row.record["answer"])
            left = Counter(fault.kind for fault in role.faults(mended, row.example))
            for fault in reversed(faults):
                mechanical = not left[fault.kind]
                left[fault.kind] -= not mechanical
                yield row.issue(fault.kind, fault.path, fault.message, mechanical=mechanical)


def _set_issues(rows: Sequence[_Row]) -> Iterator[Issue]:
    first: Mapping[str, dict[Any, _Row]] = {"prompt": {}, "answer": {}, "id": {}}
    for row in rows:
        prompt, answer = same_words(row.example.question), same_words(row.example.answer)
        other = first["prompt"].setdefault(prompt, row)
        if other is not row and other.split == row.split:
            yield row.issue("duplicate_prompt", "concept", f"the same prompt as in row {other.row}")
        other = first["answer"].setdefault(answer, row) if answer else row
        if other is not row and same_words(other.example.question) != prompt:
            yield row.issue("duplicate_answer", "answer", f"the same answer as in row {other.row}", mechanical=False)
        number = row.record.get("record_id")
        if number is not None and (other := first["id"].setdefault(number, row)) is not row:
            yield row.issue("duplicate_id_of_record", "record_id", f"the same id as in row {other.row}")
    for members, home in _straddling(rows):
        at_home = next(row for row in members if row.split == home)
        for row in (row for row in members if row.split != home):
            same = same_words(row.concept) == same_words(at_home.concept)
            kind, what = ("shared_concept", "the same") if same else ("near_concept", "nearly the same")
            yield row.issue(kind, "concept", f"{what} concept as in row {at_home.row} of split {home}")


def _straddling(rows: Sequence[_Row]) -> list[tuple[list[_Row], str]]:
    """Records that belong together (by group, or by nearly the same concept) but lie in several splits; its home."""
    if len({row.split for row in rows}) < 2:
        return []
    texts = [row.concept for row in rows]
    # What all prompts have in common (other people's instructions) says nothing about the concept.
    sides = texts, [text[::-1] for text in texts]
    begin, end = (len(os.path.commonprefix(side)) for side in sides)  # noqa: RUF071 - no paths
    words = normalised(text[begin : len(text) - end] for text in texts)
    near = near_pairs(signatures(words), pc.not_equal(words, "").to_numpy(zero_copy_only=False))
    pairs = list(zip(*near, strict=True))
    owner: dict[str, int] = {}
    for i, row in enumerate(rows):
        pairs += [(owner.setdefault(key, i), i) for key in (row.record.get("group"), same_words(texts[i])) if key]
    left, right = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    found: dict[int, list[_Row]] = defaultdict(list)
    for row, cluster in zip(rows, clusters(left, right, len(rows)).tolist(), strict=True):
        found[cluster].append(row)
    homes = [(members, Counter(row.split for row in members).most_common(1)[0]) for members in found.values()]
    return [(members, split) for members, (split, n) in homes if n < len(members)]
