"""The dataset's worth: how well does a model trained only on it do on real data, and how much real data equals that?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from genesis_lab.domains.conversations.opening import opening
from genesis_lab.domains.language import NAMES
from genesis_lab.errors import InvalidInput, MissingDependency, Unavailable
from genesis_lab.texts import normal
from genesis_lab.validation.embeddings import embed, embedder_name
from genesis_lab.validation.examination import StudentCard, examine, set_exam
from genesis_lab.validation.reference import Reference
from genesis_lab.validation.students import student

if TYPE_CHECKING:
    from genesis_lab.dataset import Dataset

OnProgress = Callable[[int, int, str], None]

K_SHOTS = (1, 2, 5, 10, 20)
STUDENTS = ("tfidf", "embedding")


@dataclass(frozen=True, slots=True)
class Scorecard:
    """What a dataset is worth, measured on a reference. What could not be measured is in `not_measured`, with why.

    `records` counts the openings trained on.
    """

    reference: dict[str, Any] | None
    pool: dict[str, Any] | None
    embedder: str | None
    records: int
    students: tuple[StudentCard, ...] = ()
    notes: tuple[str, ...] = ()
    not_measured: dict[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """The worth in one sentence, with the split it was measured on."""
        if not self.students or self.reference is None:
            return f"not measured: {self.not_measured.get('scorecard', 'no student could be trained')}"
        best = max(self.students, key=lambda card: card.accuracy.estimate)
        on = f"{self.reference['name']} {self.reference['split']} (n = {self.reference['n']:,})"
        if best.beats_floor is False:
            return (
                f"Worth nothing: on {on} the best student, {best.title}, reaches {best.accuracy}, "
                f"and with the label names alone {best.floor}."
            )
        worth = f": {best.equivalence}" if best.equivalence else ""
        open_ = (
            ""
            if best.beats_floor
            else f" Whether that is more than its label names alone ({best.floor}) can't be told."
        )
        return f"Accuracy {best.accuracy} on {on} with {best.title}{worth}.{open_}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe fields, with the sentences that reports show."""
        worth = {
            card.student: "worth nothing" if card.beats_floor is False else str(card.equivalence)
            for card in self.students
            if card.equivalence or card.beats_floor is False
        }
        return asdict(self) | {"verdict": self.verdict, "worth": worth}


def scorecard(
    dataset: Dataset,
    reference: Reference | None,
    *,
    pool: Reference | None = None,
    max_records: int = 20_000,
    rng: np.random.Generator | None = None,
    **options: Any,
) -> Scorecard:
    """The scorecard of a conversations dataset: its first customer utterances in the reference's language.

    Parameters
    ----------
    reference : real items to test on; None gives a scorecard that says it was not measured.
    pool : real items to train on, for the k-shot curve, label equivalence and gain.
    max_records : openings to train on at most, drawn at random; a note says so.
    rng : for every draw and bootstrap (default: seeded with 0).
    options : `students`, `embeddings`, `k_shots`, `draws`, `gain_draws`, `intents`, `on_progress` of `score_openings`.
    """
    rng = rng or np.random.default_rng(0)
    if reference is None:
        return Scorecard(None, None, None, 0, not_measured={"scorecard": "no reference"})
    texts, labels, notes = openings(dataset, reference.language)
    if len(texts) > max_records:
        notes.append(f"Trained on {max_records:,} of {len(texts):,} openings, drawn at random.")
        kept = np.sort(rng.choice(len(texts), max_records, replace=False))
        texts, labels = [texts[i] for i in kept], [labels[i] for i in kept]
    return score_openings(texts, labels, reference, pool=pool, rng=rng, notes=notes, **options)


def openings(dataset: Dataset, language: str) -> tuple[list[str], list[str], list[str]]:
    """First customer utterances in `language`, their intents, and notes on what was left out.

    Records that declare no language are taken to be in `language`.
    """
    rows = pd.DataFrame(
        [
            (opening(record["turns"]), normal(record["intent"]), record["language"])
            for batch in dataset.batches(columns=["turns", "intent", "language"])
            for record in batch.to_pylist()
        ],
        columns=["text", "intent", "language"],
        dtype=object,
    )
    mine = rows[rows["language"].isna() | (rows["language"] == language)]
    usable = mine[mine["text"].fillna("").str.strip().ne("") & mine["intent"].notna()]
    notes = []
    if len(usable) < len(mine):
        notes.append(f"{len(mine) - len(usable):,} records without an opening or an intent were left out.")
    for other, number in rows["language"].dropna().value_counts().items():
        if other != language:
            notes.append(
                f"{number:,} records in {_spelt(str(other))} were left out: the reference is in {_spelt(language)}."
            )
    return usable["text"].tolist(), usable["intent"].tolist(), notes


def score_openings(
    texts: Sequence[str],
    labels: Sequence[str],
    reference: Reference,
    *,
    pool: Reference | None = None,
    students: Sequence[str] = STUDENTS,
    embeddings: bool = True,
    k_shots: Sequence[int] = K_SHOTS,
    draws: int = 5,
    gain_draws: int = 2,
    intents: Sequence[str] | None = None,
    notes: Sequence[str] = (),
    rng: np.random.Generator | None = None,
    on_progress: OnProgress | None = None,
) -> Scorecard:
    """The scorecard of labelled texts.

    Parameters
    ----------
    texts, labels : the synthetic openings and their intents.
    students : of ``tfidf``, ``tfidf_words``, ``embedding``.
    embeddings : False leaves out the student that needs the embedding model, to be quick.
    k_shots : real examples per intent for the k-shot curve; the whole pool is added as the last point.
    draws, gain_draws : random draws of k real examples, for the curve and for the gain.
    intents : score these only, for a dataset that is meant to cover a part (default: all of the reference's).
    on_progress : called with models trained, models to train, and what was just done.
    """
    rng = rng or np.random.default_rng(0)
    if len(texts) != len(labels):
        raise InvalidInput(f"Every text needs a label, got {len(texts)} texts and {len(labels)} labels.")
    chosen = [student(name) for name in students]
    remarks, not_measured = list(notes), dict[str, str]()
    if intents is not None:
        reference = reference.select(intents)
        remarks.append(f"Scored on {len(reference.intents)} chosen intents of {reference.name} only.")
    known = set(reference.intents)
    texts, labels, about = _known_only(texts, labels, known)
    remarks += about
    if not texts:
        why = f"no record in {_spelt(reference.language)} has an intent of {reference.name}"
        return Scorecard(reference.to_dict(), None, None, 0, notes=tuple(remarks), not_measured={"scorecard": why})
    pool = pool and pool.select(tuple(known))
    if not pool:
        pool = None
        not_measured |= dict.fromkeys(
            ("k_shots", "equivalence", "gains"), "no real training data beside the test items"
        )
    embedded = "embedding" in students
    if embedded and (no_embedder := _no_embedder(texts, reference, pool, embeddings, on_progress)):
        not_measured["embedding"] = no_embedder
        embedded = False
        chosen = [one for one in chosen if one.name != "embedding"]
    exam = set_exam(texts, labels, reference, pool, k_shots=k_shots, draws=draws, gain_draws=gain_draws, rng=rng)
    done, total = count(1), exam.trainings * len(chosen)

    def tick(what: str) -> None:
        number = next(done)
        if on_progress:
            on_progress(number, total, what)

    return Scorecard(
        reference=reference.to_dict(),
        pool=pool.to_dict() if pool else None,
        embedder=embedder_name() if embedded else None,
        records=len(texts),
        students=tuple(examine(one, exam, rng=rng, tick=tick) for one in chosen),
        notes=tuple(remarks),
        not_measured=not_measured,
    )


def _known_only(texts: Sequence[str], labels: Sequence[str], known: set[str]) -> tuple[list[str], list[str], list[str]]:
    """The records whose intent the reference knows, and notes on intents that only one side has."""
    kept = [i for i, label in enumerate(labels) if label in known]
    notes = []
    if strangers := sorted(set(labels) - known):
        named = ", ".join(map(repr, strangers[:3])) + (" …" if len(strangers) > 3 else "")
        notes.append(
            f"{len(labels) - len(kept):,} records of {len(strangers)} intents unknown to the reference were left out: {named}."
        )
    covered = {labels[i] for i in kept}
    if missing := len(known - covered):
        notes.append(f"{missing} of the reference's {len(known)} intents have no record: their items count as errors.")
    return [texts[i] for i in kept], [labels[i] for i in kept], notes


def _no_embedder(
    texts: Sequence[str], reference: Reference, pool: Reference | None, wanted: bool, on_progress: OnProgress | None
) -> str | None:
    """Why there are no embeddings, or None; fills their cache on the way."""
    if not wanted:
        return "embeddings were switched off"

    def report(done: int, todo: int) -> None:
        if on_progress:
            on_progress(0, 0, f"embedded {done:,} of {todo:,} texts")

    try:
        embed([*reference.texts, *texts, *(pool.texts if pool else ())], on_progress=report)
    except (MissingDependency, Unavailable) as error:
        return str(error)
    return None


def _spelt(language: str) -> str:
    return NAMES.get(language, language)
