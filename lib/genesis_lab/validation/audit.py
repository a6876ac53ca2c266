"""Every fault of a set of teacher examples with its path, and a repaired copy in which only a person's work is left."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.compute as pc

from genesis_lab.dataset import Dataset, DatasetWriter, open_dataset
from genesis_lab.domains import get_domain, recorded_domain
from genesis_lab.domains.base import Example
from genesis_lab.domains.roles import YamlRole
from genesis_lab.errors import InvalidInput
from genesis_lab.files import dataset_path
from genesis_lab.texts import same_words
from genesis_lab.validation.text import clusters, near_pairs, normalised, signatures

LISTED = 10_000
"""Most issues that are listed; all are counted."""


@dataclass(frozen=True, slots=True)
class Issue:
    """One fault of one record. `mechanical` says whether `fix` repairs it; else it needs a person."""

    row: int
    split: str
    record_id: str | None
    kind: str
    path: str
    message: str
    mechanical: bool


@dataclass(frozen=True)
class AuditReport:
    """What an audit found. `issues` are the first ones in order, `kinds` counts all: kind to number of issues."""

    domain: str
    records: int
    records_with_issues: int
    kinds: Mapping[str, int]
    mechanical: int
    for_a_person: int
    issues: tuple[Issue, ...]

    @property
    def clean(self) -> bool:
        return not self.kinds

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe fields."""
        return asdict(self)

    def __str__(self) -> str:
        if self.clean:
            return f"{self.records:,} records, no issue"
        return (
            f"{self.records:,} records, {self.records_with_issues:,} with issues: {self.mechanical:,} issues can be fixed "
            f"mechanically, {self.for_a_person:,} need a person"
        )


@dataclass(slots=True)
class _Row:
    row: int
    split: str
    record: dict[str, Any]
    example: Example


def audit(dataset: Dataset) -> AuditReport:
    """Everything that is wrong with a dataset of a role's examples, record by record and between records.

    Raises
    ------
    InvalidInput : the dataset is not one of a role.
    """
    role = role_of(dataset)
    rows = list(_rows(dataset, role))
    found = [*_record_issues(rows, role), *_set_issues(rows)]
    found.sort(key=lambda issue: issue.row)
    mechanical = sum(issue.mechanical for issue in found)
    return AuditReport(
        domain=dataset.domain,
        records=len(rows),
        records_with_issues=len({issue.row for issue in found}),
        kinds=dict(Counter(issue.kind for issue in found).most_common()),
        mechanical=mechanical,
        for_a_person=len(found) - mechanical,
        issues=tuple(found[:LISTED]),
    )


def fix(dataset: Dataset, target: str | Path, *, replace: bool = False) -> tuple[Dataset, AuditReport]:
    """A copy in which everything mechanical is repaired, and its audit: what is left there needs a person.

    Answers are brought into their plain form, numbered and spelt as they must be; concepts that several splits share
    are gathered in one of them; repeated prompts are dropped (the first stays), repeated ids renewed. The original is
    not touched.

    Raises
    ------
    InvalidInput : the dataset is not one of a role, or `target` exists or is the dataset itself.
    """
    role = role_of(dataset)
    place = dataset_path(target)
    if place.resolve() == dataset.path.resolve():
        raise InvalidInput(f"{dataset.name} can't be repaired in place: give the repaired copy another name.")
    rows = list(_rows(dataset, role))
    changed: Counter[str] = Counter()
    for row in rows:
        text = row.record.get("answer")
        if isinstance(text, str) and role.faults(text, row.example):
            better = role.mended(text, row.example)
            if len(role.faults(better, row.example)) < len(role.faults(text, row.example)):
                row.record["answer"] = better
                changed["answers rewritten"] += 1
    for members in _straddling(rows):
        home = Counter(row.split for row in members).most_common(1)[0][0]
        changed["records moved to another split"] += sum(row.split != home for row in members)
        for row in members:
            row.split = home
    seen, ids, kept = set(), set(), []
    for row in rows:
        prompt = same_words(row.example.question)
        if prompt in seen:
            changed["repeated prompts dropped"] += 1
            continue
        seen.add(prompt)
        if row.record["record_id"] in ids:
            digest = hashlib.sha256(f"{row.row}\x1f{prompt}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
            row.record["record_id"] = f"{role.name[:3]}_{digest}"
            changed["ids renewed"] += 1
        ids.add(row.record["record_id"])
        kept.append(row)
    manifest = {k: v for k, v in dataset.manifest.items() if k not in ("counts", "content_hash")}
    manifest |= {"parent": {"name": dataset.name, "content_hash": dataset.content_hash}, "fixed": dict(changed)}
    with DatasetWriter(place, dataset.domain, manifest, replace=replace) as writer:
        for split in dataset.counts:
            writer.write((row.record for row in kept if row.split == split), split)
    fixed = open_dataset(place)
    return fixed, audit(fixed)


def role_of(dataset: Dataset) -> YamlRole:
    """The role whose examples a dataset holds; `InvalidInput` for a dataset of anything else."""
    role = recorded_domain(dataset.manifest) or get_domain(dataset.domain)
    if role.facets.preview != "dialogue":
        raise InvalidInput(
            f"The audit reads teacher examples (requirements, vision), {dataset.name} is a dataset of {dataset.domain}: "
            "validate it instead."
        )
    return cast("YamlRole", role)


def _rows(dataset: Dataset, role: YamlRole) -> Iterator[_Row]:
    number = 0
    for split in dataset.counts:
        for batch in dataset.batches(split=split):
            for record in batch.to_pylist():
                yield _Row(number, split, record, role.example(record))
                number += 1


def _record_issues(rows: Sequence[_Row], role: YamlRole) -> Iterator[Issue]:
    for row in rows:
        text = row.record.get("answer")
        for name in ("concept", "answer"):
            if not str(row.record.get(name) or "").strip():
                yield _issue(row, "missing_field", name, f"{name} is missing", mechanical=False)
        if not isinstance(text, str) or not text.strip():
            continue
        faults = role.faults(text, row.example)
        left: Counter[str] = Counter()
        if faults:
            left.update(fault.kind for fault in role.faults(role.mended(text, row.example), row.example))
        for fault in reversed(faults):
            mechanical = not left[fault.kind]
            left[fault.kind] -= not mechanical
            yield _issue(row, fault.kind, fault.path, fault.message, mechanical=mechanical)


def _set_issues(rows: Sequence[_Row]) -> Iterator[Issue]:
    prompts: dict[str, _Row] = {}
    ids: dict[str, _Row] = {}
    answers: dict[str, _Row] = {}
    for row in rows:
        prompt, answer = same_words(row.example.question), same_words(row.example.answer)
        first = prompts.setdefault(prompt, row)
        if first is not row and first.split == row.split:
            yield _issue(row, "duplicate_prompt", "concept", f"the same prompt as in row {first.row}")
        other = answers.setdefault(answer, row)
        if other is not row and answer and same_words(other.example.question) != prompt:
            yield _issue(row, "duplicate_answer", "answer", f"the same answer as in row {other.row}", mechanical=False)
        number = row.record.get("record_id")
        if number is not None and (owner := ids.setdefault(number, row)) is not row:
            yield _issue(row, "duplicate_id_of_record", "record_id", f"the same id as in row {owner.row}")
    for members in _straddling(rows):
        home = Counter(row.split for row in members).most_common(1)[0][0]
        at_home = next(row for row in members if row.split == home)
        for row in members:
            if row.split != home:
                same = same_words(_concept(row)) == same_words(_concept(at_home))
                kind = "shared_concept" if same else "near_concept"
                what = "the same concept" if same else "nearly the same concept"
                yield _issue(row, kind, "concept", f"{what} as in row {at_home.row} of split {home}")


def _straddling(rows: Sequence[_Row]) -> list[list[_Row]]:
    """Groups of records that belong together (same declared group, same or nearly same concept) in several splits."""
    if len({row.split for row in rows}) < 2:
        return []
    texts = [_concept(row) for row in rows]
    # What all prompts have in common (other people's instructions) says nothing about the concept.
    begin, end = (len(os.path.commonprefix(side)) for side in (texts, [t[::-1] for t in texts]))  # noqa: RUF071 - no paths
    cut = [text[begin : len(text) - end] for text in texts]
    words = normalised(cut)
    first, second = near_pairs(signatures(words), pc.not_equal(words, "").to_numpy(zero_copy_only=False))
    pairs = list(zip(first.tolist(), second.tolist(), strict=True))
    owner: dict[str, int] = {}
    for i, row in enumerate(rows):
        for shared in (row.record.get("group"), same_words(texts[i])):
            if shared:
                pairs.append((owner.setdefault(shared, i), i))
    left, right = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    together = clusters(left, right, len(rows))
    found: dict[int, list[_Row]] = defaultdict(list)
    for row, cluster in zip(rows, together.tolist(), strict=True):
        found[cluster].append(row)
    return [members for members in found.values() if len({row.split for row in members}) > 1]


def _concept(row: _Row) -> str:
    return str(row.record.get("concept") or "")


def _issue(row: _Row, kind: str, path: str, message: str, *, mechanical: bool = True) -> Issue:
    return Issue(row.row, row.split, cast(str | None, row.record.get("record_id")), kind, path, message, mechanical)
