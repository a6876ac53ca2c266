"""The loop closed: what was generated for a bot's gaps is approved by a policy and goes into a copy of its training data."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from genesis_lab.dataset import Dataset
from genesis_lab.dataset.curation import keep_decisions, standing
from genesis_lab.dataset.folder import labelled
from genesis_lab.errors import InvalidInput
from genesis_lab.files import placed, shown
from genesis_lab.review.nlu import Row, read_data
from genesis_lab.review.nlu_merge import Merge, plan_merge, write
from genesis_lab.texts import same_words

POLICY = "policy: passed the checks"
"""Who approves examples where nobody is asked."""


def copied(data: Path, target: Path) -> Path:
    """A copy of the YAML files of a bot's data folder, or of the one file, in the folder `target`, which is replaced."""
    ours = target / ".copied"
    with placed(target, replace=True, ours=lambda _: ours.exists()) as folder:
        folder.mkdir()
        (folder / ours.name).write_text("a copy made by Genesis Lab: what is changed here is lost\n")
        for name in [source.name for source in read_data(data)]:
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(data / name if data.is_dir() else data, place)
    return target


def approve(dataset: Dataset, quality: Row, held: Iterable[str]) -> dict[str, Any]:
    """Decide on every record by the policy: kept unless a check of the quality report names it or it says what is `held` out.

    The decisions stand with the dataset as a person's would, by the name of the policy. Returns it, how many are ``kept``, and
    how many are ``dropped`` for which reason.
    """
    why, tested = dict[int, str](), set(map(same_words, held))
    for part in (part for score in ("completeness", "consistency", "diversity") for part in quality[score]["parts"]):
        why |= {one["row"]: f"{part['name'].replace('_', ' ')}: {one['reason']}" for one in part.get("offences") or ()}
    for row, text in enumerate(labelled(dataset)["text"]):
        if same_words(text) in tested:
            why[row] = "says what a message held out says"
    at = datetime.now(UTC).isoformat(timespec="seconds")
    keep_decisions(dataset, [
        {"row": row, "action": "drop" if row in why else "keep", "value": None, "why": why.get(row, ""), "by": POLICY, "at": at}
        for row in range(dataset.total)
    ])  # fmt: skip
    reasons = Counter(reason.partition(":")[0] for reason in why.values())
    return {"policy": POLICY, "kept": dataset.total - len(why), "dropped": dict(reasons.most_common())}


def add_synthetic(data: Path, dataset: Dataset) -> Merge:
    """Add the records that were decided to be kept to ``genesis_synthetic.yml`` of the data folder, entities marked.

    A word or number is an entity where an example of the same intent has that very text as one, or the bot's regex of that
    entity's name finds it: an example without its entities would teach that there are none.
    """
    verdicts = standing(dataset)
    rows = [
        row
        for i, row in enumerate(labelled(dataset).to_dict("records"))
        if verdicts.get(i, {}).get("verdict") == "keep"
    ]
    if not rows:
        raise InvalidInput(f"No record of {dataset.name} was approved: there is nothing to add to {shown(data)}.")
    known, regexes = dict[str, dict[str, Row]](), dict[str, str]()
    for source in read_data(data):
        for example in source.examples:
            of = known.setdefault(example["intent"], {})
            of |= {example["text"][one["start"] : one["end"]]: one for one in example["entities"]}
        regexes |= {term["name"]: term["text"] for term in source.terms if term["kind"] == "regex"}
    examples = [
        {
            "intent": row["label"],
            "text": row["text"],
            "entities": _marked(row["text"], known.get(row["label"], {}), regexes),
        }
        for row in rows
    ]
    merge = plan_merge(data, examples, run=dataset.name)
    write(merge, POLICY)
    return merge


def _marked(text: str, known: dict[str, Row], regexes: dict[str, str]) -> list[Row]:
    """The entities in a text, the longest first where they overlap."""
    names = {one["entity"] for one in known.values()}
    patterns = [(re.escape(said), one) for said, one in known.items()]
    patterns += [(regex, {"entity": name}) for name, regex in regexes.items() if name in names]
    found = [
        ({k: v for k, v in one.items() if k not in ("start", "end")}, *match.span())
        for pattern, one in patterns
        for match in re.finditer(rf"(?<!\w)(?:{pattern})(?!\w)", text, re.IGNORECASE)
        if match[0]
    ]
    marked: list[Row] = []
    for one, start, end in sorted(found, key=lambda each: each[1] - each[2]):
        if all(end <= other["start"] or start >= other["end"] for other in marked):
            marked.append({**one, "start": start, "end": end})
    return sorted(marked, key=lambda one: one["start"])
