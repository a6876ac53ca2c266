"""Where a bot's training data fall short of what people really say, and the plan that has the missing examples written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.compute as pc

from genesis_lab.files import findable, write_atomically
from genesis_lab.review.nlu import Row, read_data
from genesis_lab.review.nlu_check import taxonomy_from
from genesis_lab.stats import Interval, proportion_interval
from genesis_lab.texts import same_words
from genesis_lab.validation.text import clusters, near_pairs, normalised, signatures
from genesis_lab.yamls import dump_yaml, shipped


def gaps(
    data: Path, real: pd.DataFrame, taught: pd.DataFrame, *, examples: int = 0, broke: Sequence[Row] = ()
) -> dict[str, Any]:
    """Intents with few, confused or failing examples, and what people say that no example covers.

    Parameters
    ----------
    data : the bot's training data, with the approved messages in them.
    real : all messages (`approved.real_messages`); taught : those with an intent that are not held out (`approved.divided`).
    examples : that an intent should have at least (0: ``gaps.yaml``).
    broke : further texts that a regression test got wrong: ``text``, ``intent`` and ``said``.

    Returns
    -------
    ``intents`` with examples and the share of real texts missed; ``findings``: what is wrong with an intent, why, the real
    messages that show it, and how many examples to write (None: first a person has to say what it is); ``cells`` for the plan.
    """
    limits = dict(shipped(Path(__file__).with_name("gaps.yaml")))
    wanted, side = examples or int(limits["examples"]), int(limits["a_side"])
    own = {(row["intent"], same_words(row["text"])) for source in read_data(data) for row in source.examples}
    of, deployed = Counter(intent for intent, _ in own), set(real["said"])
    seen: list[Row] = [*taught.to_dict("records"), *broke]
    mixed: dict[tuple[str, str], dict[str, str]] = {}
    intents, findings, cells, asked = list[Row](), list[Row](), list[Row](), Counter[str]()
    for row in seen:
        if row["said"] != row["intent"] and row["said"] in of and row["intent"] in deployed:
            mixed.setdefault((row["intent"], row["said"]), {})[row["text"]] = row["intent"]
    for (intent, said), texts in sorted(mixed.items(), key=lambda one: (-len(one[1]), one[0])):
        shown = dict(list(texts.items())[: limits["shown"]])
        cells += [{"n": side, "intent": intent, "against": said, "mixed": shown}]
        cells += [{"n": side, "intent": said, "against": intent, "mixed": shown}]
        asked.update({intent: side, said: side})
        why = f"{len(texts)} real texts were taken for {said}: {side} of each are to tell them apart"
        findings.append({"finding": "confused", "intent": intent, "n": 2 * side, "why": why, "real": list(shown)})
    for intent in sorted({*of, *(row["intent"] for row in seen)}):
        mine = [row for row in seen if row["intent"] == intent]
        missed, n, lacking = sum(row["said"] != intent for row in mine), len(mine), wanted - of[intent] - asked[intent]
        share = Interval(missed / n, *proportion_interval(missed, n), n).to_dict() if n else None
        intents.append({"intent": intent, "examples": of[intent], "texts": n, "missed": share})
        if of[intent] < wanted:
            why = f"{of[intent]} examples, {wanted} are wanted"
            why += "" if intent in deployed else "; the deployed model never answers it"
            seen_of = [row["text"] for row in mine][: limits["shown"]]
            findings.append({"finding": "few", "intent": intent, "n": max(lacking, 0), "why": why, "real": seen_of})
        cells += [{"n": lacking, "intent": intent}] if lacking > 0 else []
    findings += _uncovered(real, {words for _, words in own}, float(limits["confidence"]))
    return {"examples": wanted, "intents": intents, "findings": findings, "cells": cells}


def _uncovered(real: pd.DataFrame, words: set[str], least: float) -> list[Row]:
    """Groups of alike texts that nobody has labelled, no example says and the bot was not sure of; the most frequent first."""
    unsure = real["fallback"] | (real["confidence"] < least)
    rows = real[(real["intents"] == 0) & unsure & ~real["text"].map(same_words).isin(words)]
    plain = normalised(rows["text"])
    usable = pc.not_equal(plain, "").to_numpy(zero_copy_only=False)
    group = clusters(*near_pairs(signatures(plain), usable), len(rows))
    found = [(int(one["messages"].sum()), one) for _, one in rows.groupby(group)]
    return [
        {
            "finding": "not covered", "intent": None, "n": None, "real": one["text"].tolist(),
            "why": f"said {n:,} times, {'fallback' if one['fallback'].any() else 'low confidence'}: what it is, a person has to say",
        }
        for n, one in sorted(found, key=lambda each: -each[0])
    ]  # fmt: skip


def write_plan(
    report: Row, data: Path, taught: pd.DataFrame, path: Path, *, language: str | None = None, **options: Any
) -> dict[str, Any]:
    """Write what `gaps` asks for as a params file, which ``genesis run`` and plain papermill run as it is; its parameters.

    Beside it stand the taxonomy, of the intents and examples of `data`, and the `taught` messages as seeds.
    """
    taxonomy = taxonomy_from(data, language)
    speaks = language or ("es" if "language es" in taxonomy["source"] else "en")
    files = {name: path.with_name(f"{path.stem}_{name}") for name in ("taxonomy.yaml", "seeds.jsonl")}
    write_atomically(files["taxonomy.yaml"], dump_yaml(taxonomy))
    known = {one["name"] for one in taxonomy["intents"]}
    seeds = taught[taught["intent"].isin(known)].rename(columns={"intent": "label"}).assign(language=speaks)
    rows = seeds[["text", "label", "language"]].to_dict("records")
    write_atomically(files["seeds.jsonl"], "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    cells = [cell | {"language": speaks} for cell in report["cells"] if cell["intent"] in known]
    plan: Row = {"records": "utterances", "taxonomy": findable(files["taxonomy.yaml"])}
    plan |= {"seeds": findable(files["seeds.jsonl"]), **options, "cells": cells}
    about = f"{sum(cell['n'] for cell in cells):,} examples that the gap report asks for"
    write_atomically(path, dump_yaml({"name": path.stem, "description": about, "stages": [10], **plan}))
    return plan
