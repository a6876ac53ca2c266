"""Is this set of conversations good? Gates and their verdict, four scores, and what is wrong with which record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial, reduce
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from genesis_lab.domains.base import Target
from genesis_lab.domains.conversations.record import MAX_TEXT
from genesis_lab.domains.conversations.taxonomy import LANGUAGES, Taxonomy
from genesis_lab.errors import InvalidInput
from genesis_lab.parallel import map_reduce
from genesis_lab.validation import (
    completeness,
    consistency,
    contamination,
    diversity,
    gates,
    label_fidelity,
    personal_data,
    realism,
)
from genesis_lab.validation.aggregate import Aggregate, merge, trimmed
from genesis_lab.validation.duplicates import signatures
from genesis_lab.validation.scores import Offence, Part, Score
from genesis_lab.validation.view import View, hashed, present, read

if TYPE_CHECKING:
    from genesis_lab.dataset import Dataset

__all__ = ["Offence", "Part", "QualityReport", "Score", "aggregate", "finish", "validate"]

SAMPLE_PER_CELL = 40

_BLOCK = 25_000
"""Records flattened at a time: bounds memory whatever the partition's size."""
_UNKNOWN_CELL = 2_000
"""Records sampled of those without a known intent and language."""
_SAMPLED_TURNS = 40
"""Turns of a sampled conversation that are kept, so that one with ten thousand can't fill the memory."""


@dataclass(frozen=True)
class QualityReport:
    """The quality of a dataset.

    `gates` decide the `verdict` (`gates.verdict`); what a dataset is worth is not asked here. `overall` is the mean of the
    scores that could be measured, times 100, and decides nothing; `overall_basis` says which those are.
    `not_measured` maps each score or ``score.part`` without a value to the reason. `personal_data` counts turns.
    """

    records: int
    turns: int
    verdict: str | None
    gates: tuple[gates.Gate, ...]
    overall: float | None
    overall_basis: str
    completeness: Score
    consistency: Score
    realism: Score
    diversity: Score
    contamination: Part
    personal_data: Mapping[str, Part]
    unreadable_columns: Mapping[str, str]
    sample_size: int
    sample_note: str
    not_measured: Mapping[str, str]

    @property
    def scores(self) -> tuple[Score, ...]:
        """The four scores."""
        return (self.completeness, self.consistency, self.realism, self.diversity)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe fields."""
        return asdict(self)


def validate(
    dataset: Dataset,
    *,
    taxonomy: Taxonomy | None,
    targets: Sequence[Target] | Mapping[str, Mapping[str, float]] = (),
    reference: realism.ReferenceTexts | None = None,
    embed: diversity.Embed | None = None,
    sample_per_cell: int = SAMPLE_PER_CELL,
    seed: int = 0,
    partitions: int | None = None,
    executor: Any = None,
) -> QualityReport:
    """Measure a dataset of conversations, anyone's and however broken. `InvalidInput` for any other dataset.

    Parameters
    ----------
    taxonomy : the intents that may occur, with their categories; None leaves those checks unmeasured.
    targets : the plan's target shares; only those of ``intent`` are used here.
    reference : real utterances; without them realism is not measured.
    embed : texts to vectors of shape (n, d), for duplicates in meaning and a better eye on labels; None does without.
    sample_per_cell : records of each intent × language in the sample on which classifiers and pairwise comparisons run.
    partitions, executor : how the work is cut and who does it (`genesis_lab.parallel`); no number depends on it.
    """
    if dataset.domain != "conversations":
        raise InvalidInput(
            f"The four quality scores are of conversations, {dataset.name} is a dataset of {dataset.domain}: "
            f"use genesis audit {dataset.name}."
        )
    shares = targets if isinstance(targets, Mapping) else {target.name: target.shares for target in targets}
    work = partial(aggregate, taxonomy=taxonomy, sample_per_cell=sample_per_cell, seed=seed)
    total: Aggregate = map_reduce(dataset, work, merge, partitions=partitions, executor=executor)
    return finish(total, targets=shares, reference=reference, embed=embed, sample_per_cell=sample_per_cell, seed=seed)


def finish(
    total: Aggregate,
    *,
    targets: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
    reference: realism.ReferenceTexts | None = None,
    embed: diversity.Embed | None = None,
    sample_per_cell: int = SAMPLE_PER_CELL,
    seed: int = 0,
) -> QualityReport:
    """The report of a merged aggregate; parameters as for `validate`."""
    scores = (
        completeness.finish(total),
        consistency.finish(total, label_fidelity.finish(total, seed, embed)),
        realism.finish(total, targets, reference, seed),
        diversity.finish(total, embed),
    )
    copies = contamination.finish(total, None if reference is None else reference.texts)
    overall, basis = _overall(scores)
    apart = label_fidelity.separation(total, seed)
    decided = gates.form_gates(total, scores, copies, apart, targets, reference)
    return QualityReport(
        records=total.n,
        turns=total.turns,
        verdict=gates.verdict(decided),
        gates=decided,
        overall=overall,
        overall_basis=basis,
        completeness=scores[0],
        consistency=scores[1],
        realism=scores[2],
        diversity=scores[3],
        contamination=copies,
        personal_data={kind: _personal(total, kind) for kind in personal_data.KINDS},
        unreadable_columns={entry.split(": ")[0]: entry.split(": ", 1)[1] for entry in total.counts["problems"]},
        sample_size=len(total.sample),
        sample_note=f"the {sample_per_cell} of each known intent and language, and the {_UNKNOWN_CELL:,} others, whose "
        f"id and opening have the smallest hash (seed {seed})",
        not_measured=_not_measured(scores, copies),
    )


def aggregate(
    table: pa.Table, *, taxonomy: Taxonomy | None, sample_per_cell: int = SAMPLE_PER_CELL, seed: int = 0
) -> Aggregate:
    """What `validate` needs of one partition."""
    starts = range(0, max(table.num_rows, 1), _BLOCK)
    return reduce(merge, (_block(table.slice(s, _BLOCK), taxonomy, sample_per_cell, seed) for s in starts))


def _block(table: pa.Table, taxonomy: Taxonomy | None, sample_per_cell: int, seed: int) -> Aggregate:
    view = read(table)
    consistent, spellings = consistency.checks(view, taxonomy)
    words, intent, language = view.opening_words, view.fields["intent"], view.fields["language"]
    ids = view.fields["conversation_id"]
    spoken = np.asarray(pc.not_equal(words, ""))
    opening = np.where(spoken, hashed(words) | np.uint64(1), np.uint64(0))
    intents = np.where(present(intent), hashed(intent) | np.uint64(1), np.uint64(0))
    columns = {
        "opening": opening,
        "intent": intents,
        "cell": intents ^ (hashed(language) >> np.uint64(1)),
        "language": hashed(language),
        "prefix": diversity.first_words(words),
        "signature": signatures(words),
    }
    problems = Counter(dict.fromkeys((f"{name}: {what}" for name, what in view.problems.items()), 1))
    return Aggregate(
        n=view.n,
        turns=len(view.turn_row),
        ids=(ids,),
        checks=completeness.checks(view) | consistent | personal_data.checks(view),
        counts={
            "spelling": spellings,
            "problems": problems,
            "intent": Counter({e["values"]: e["counts"] for e in intent.drop_null().value_counts().to_pylist()}),
        },
        columns={name: (array,) for name, array in columns.items()},
        sample=_sample(view, np.flatnonzero(spoken), taxonomy, sample_per_cell, seed),
    )


def _sample(view: View, rows: NDArray[np.int64], taxonomy: Taxonomy | None, per_cell: int, seed: int) -> pd.DataFrame:
    at = pa.array(rows)
    fields = {name: view.fields[name] for name in ("conversation_id", "intent", "language")}
    fields |= {"opening": view.opening, "words": view.opening_words}
    text = {name: array.take(at).fill_null("") for name, array in fields.items()}
    key = hashed(pc.binary_join_element_wise(text["words"], text.pop("conversation_id"), str(seed), "|"))
    columns = {name: pd.Series(array.to_pylist(), dtype=object) for name, array in text.items()}
    frame = pd.DataFrame({"row": rows, "key": key} | columns)
    known = frame["intent"].isin(taxonomy.names if taxonomy else ()) & frame["language"].isin(LANGUAGES)
    frame["cell"] = (frame["intent"] + "/" + frame["language"]).where(known, "")
    frame["limit"] = np.where(known, per_cell, _UNKNOWN_CELL)
    kept = trimmed(frame)
    return kept.assign(text=[_whole(view, row) for row in kept["row"]])


def _whole(view: View, row: int) -> str:
    turns = view.text.slice(int(view.starts[row]), int(view.lengths[row])).to_pylist()
    return " ".join(text[:MAX_TEXT] for text in turns[:_SAMPLED_TURNS] if text)


def _overall(scores: Sequence[Score]) -> tuple[float | None, str]:
    measured = [score for score in scores if score.value is not None]
    if not measured:
        return None, "none of the four scores could be measured"
    basis = f"mean of {', '.join(score.name for score in measured)} × 100"
    left_out = [f"{score.name} ({score.reason})" for score in scores if score.value is None]
    return 100 * float(np.mean([s.value for s in measured])), basis + (
        f"; left out: {', '.join(left_out)}" * bool(left_out)
    )


def _personal(total: Aggregate, kind: str) -> Part:
    check = total.checks[kind]
    what = personal_data.KINDS[kind]
    return Part(
        kind, None, check.checked, "turns", f"turns that hold {what}; counted, not scored", failed=check.failed,
        offences=total.offences(check.first), reason="counted, not scored",
    )  # fmt: skip


def _not_measured(scores: Sequence[Score], copies: Part) -> dict[str, str]:
    reasons = {score.name: score.reason for score in scores if score.reason}
    reasons |= {f"{s.name}.{p.name}": p.reason for s in scores for p in s.parts if p.reason}
    if copies.reason:
        reasons[copies.name] = copies.reason
    return reasons
