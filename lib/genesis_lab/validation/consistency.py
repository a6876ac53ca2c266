"""Consistency: do the labels of a record fit each other and its words?"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from genesis_lab.domains.conversations import record as r
from genesis_lab.domains.conversations.taxonomy import LANGUAGES, Taxonomy
from genesis_lab.domains.language import detect_many
from genesis_lab.validation.aggregate import LISTED, Aggregate, Check
from genesis_lab.validation.scores import Part, Score, mean_score, share, unmeasured
from genesis_lab.validation.view import View, present
from genesis_lab.yamls import read_yaml

_LONG = 80
"""Characters from which a turn in neither language counts as being in another one."""
_FEWEST_WORDS = 5
"""Words from which a turn's language is judged: "It's in Mexico." is English, but no detector can know."""
_LAST = 6
"""Turns at the end of a conversation in which an agent says how it ended."""

ENUMS: dict[str, tuple[str, ...]] = {
    "sentiment": get_args(r.Sentiment),
    "complexity": get_args(r.Complexity),
    "language": get_args(r.Language),
    "emotion_arc": get_args(r.EmotionArc),
    "resolution_time": get_args(r.ResolutionTime),
    "resolution_status": get_args(r.Resolution),
}

_MEANINGS = {
    "spelling": ("values", "share of label values (and speakers) spelt as the schema and the taxonomy spell them"),
    "category": ("records", "share whose category is the one the taxonomy gives their intent"),
    "turn_count": ("records", "share whose turn_count is the number of their turns"),
    "turn_order": ("records", f"share opened by the customer, with nobody speaking over {r.MAX_RUN} times in a row"),
    "turn_length": ("turns", f"share of turns of at most {r.MAX_TEXT:,} characters"),
    "language": ("turns", "share of turns in the declared language, of those long enough to tell (lingua)"),
    "complexity": ("records", "share whose number of turns is in their complexity's range"),
    "emotion_arc": ("records", "share whose emotion arc can go with their sentiment and resolution"),
    "resolution": ("records", "share whose last agent turns do not speak of another ending, of those that tell"),
}
_EMPTY = {
    "spelling": "no label has a value",
    "category": "no record has a category and an intent of the taxonomy",
    "turn_count": "no record has a turn_count and turns",
    "language": "no turn is long enough to tell, or no language is declared",
    "complexity": "no record has a complexity of the schema and turns",
    "emotion_arc": "no record has an arc, a sentiment and a resolution of the schema",
    "resolution": "no last turn says how the conversation ended",
}


def checks(view: View, taxonomy: Taxonomy | None) -> tuple[dict[str, Check], Counter[str]]:
    """The checks of one block, and how often each wrong spelling occurs."""
    spelling, wrong = _spelling(view, taxonomy)
    found = {
        "spelling": spelling,
        "category": _category(view, taxonomy),
        "turn_count": _turn_count(view),
        "turn_order": _turn_order(view),
        "turn_length": _turn_length(view),
        "language": _language(view),
        "complexity": _complexity(view),
        "emotion_arc": _arc(view),
        "resolution": _resolution(view),
    }
    return found, wrong


def finish(total: Aggregate, label_fidelity: Part) -> Score:
    """Mean of the parts of `checks`, of labels that contradict each other, and of `label_fidelity`."""
    parts = []
    for name, (unit, meaning) in _MEANINGS.items():
        check = total.checks[name]
        detail: dict[str, Any] = {}
        if name == "spelling":
            detail = {"values": dict(total.counts["spelling"].most_common(100))}
        if name in ("language", "resolution"):
            detail = {"judged": check.checked, "of": total.turns if name == "language" else total.n}
        empty = _EMPTY.get(name, "no record has turns")
        offences = total.offences(check.first)
        parts.append(
            share(name, check.checked, check.failed, unit, meaning, empty=empty, offences=offences, detail=detail)
        )
    parts += [_one_label(total), label_fidelity]
    return mean_score("consistency", total.n, parts, reason=None if total.n else "the dataset has no records")


def _spelling(view: View, taxonomy: Taxonomy | None) -> tuple[Check, Counter[str]]:
    allowed: dict[str, Sequence[str]] = dict(ENUMS)
    if taxonomy is not None:
        allowed |= {"intent": taxonomy.names, "category": tuple(taxonomy.categories)}
    columns = [(name, view.fields[name], np.arange(view.n), values) for name, values in allowed.items()]
    columns.append(("speaker", view.speaker, view.turn_row, get_args(r.Speaker)))
    checked, failures, wrong = 0, [], Counter[str]()
    for name, array, rows, values in columns:
        given = present(array)
        checked += int(given.sum())
        bad = np.flatnonzero(given & ~_in(array, values))
        if not len(bad):
            continue
        spellings = array.take(pa.array(bad)).to_pylist()
        meant = {spelling: _meant(spelling, values) for spelling in set(spellings)}
        wrong.update(f"{name}: {spelling[:60]}" for spelling in spellings)
        failures += [
            (int(rows[i]), f"{name} {spelling[:60]!r} is no value of the schema{meant[spelling]}")
            for i, spelling in zip(bad, spellings, strict=True)
        ]
    failures.sort(key=lambda failure: failure[0])
    rows_of = np.array([row for row, _ in failures], dtype=np.int64)
    return Check.of(checked, rows_of, lambda k: failures[k][1]), wrong


def _meant(spelling: str, values: Sequence[str]) -> str:
    plain = {value.casefold(): value for value in values}
    tidy = "_".join(spelling.casefold().replace("-", " ").split())
    close = [tidy] if tidy in plain else difflib.get_close_matches(tidy, plain, n=1, cutoff=0.8)
    return f", did you mean {plain[close[0]]!r}?" if close else ""


def _category(view: View, taxonomy: Taxonomy | None) -> Check:
    if taxonomy is None:
        return Check(0, 0)
    intent, category = view.fields["intent"], view.fields["category"]
    place = pc.index_in(intent, value_set=pa.array(taxonomy.names, pa.string()))
    right = pa.array([taxonomy.category_of[name] for name in taxonomy.names], pa.string()).take(place)
    known = present(right) & present(category)
    rows = np.flatnonzero(known & ~_true(pc.equal(right, category)))
    return Check.of(
        int(known.sum()), rows, lambda k: f"category is {category[rows[k]]}, {intent[rows[k]]} is in {right[rows[k]]}"
    )


def _turn_count(view: View) -> Check:
    import pandas as pd

    declared = view.fields["turn_count"]
    numbers = pd.to_numeric(pd.Series(declared.to_pylist(), dtype=object), errors="coerce").to_numpy(float)
    known = present(declared) & (view.lengths > 0)
    rows = np.flatnonzero(known & (numbers != view.lengths))
    return Check.of(
        int(known.sum()), rows, lambda k: f"turn_count is {declared[rows[k]]}, there are {view.lengths[rows[k]]} turns"
    )


def _turn_order(view: View) -> Check:
    who, row = view.who, view.turn_row
    wrong = np.zeros(view.n, dtype=bool)
    filled = view.lengths > 0
    wrong[filled] = who[view.starts[filled]] != 0
    run = (who[2:] == who[1:-1]) & (who[1:-1] == who[:-2]) & (row[2:] == row[:-2])
    wrong[row[2:][run]] = True
    rows = np.flatnonzero(wrong)

    def reason(k: int) -> str:
        start, length = int(view.starts[rows[k]]), int(view.lengths[rows[k]])
        names = [("customer", "agent", "unknown speaker")[code] for code in who[start : start + length]]
        return "; ".join(r.turn_problems(names))

    return Check.of(int(filled.sum()), rows, reason)


def _turn_length(view: View) -> Check:
    sizes = pc.utf8_length(view.text).fill_null(0).to_numpy(zero_copy_only=False)
    turns = np.flatnonzero(sizes > r.MAX_TEXT)
    return Check.of(
        len(sizes),
        view.turn_row[turns],
        lambda k: f"turn {view.position[turns[k]] + 1} has {sizes[turns[k]]:,} characters, over {r.MAX_TEXT:,}",
    )


def _language(view: View) -> Check:
    declared = view.fields["language"].take(pa.array(view.turn_row))
    words = pc.count_substring_regex(view.text, r"\S+").fill_null(0).to_numpy(zero_copy_only=False)
    judged = _in(declared, LANGUAGES) & (words >= _FEWEST_WORDS)
    turns = np.flatnonzero(judged)
    coded = view.text.take(pa.array(turns)).dictionary_encode()
    texts = coded.dictionary.to_pylist()
    found = np.array(
        [f or ("" if len(t) <= _LONG else "another language") for t, f in zip(texts, detect_many(texts), strict=True)]
    )
    reads = found[coded.indices.to_numpy(zero_copy_only=False)] if len(turns) else np.empty(0, dtype=str)
    told = reads != ""
    turns, reads = turns[told], reads[told]
    wrong = np.flatnonzero(reads != np.asarray(declared.take(pa.array(turns)).to_pylist(), dtype=object))
    return Check.of(
        len(turns),
        view.turn_row[turns[wrong]],
        lambda k: (
            f"turn {view.position[turns[wrong[k]]] + 1} reads as "
            f"{reads[wrong[k]]}, declared {declared[turns[wrong[k]]]}"
        ),
    )


def _complexity(view: View) -> Check:
    complexity = view.fields["complexity"]
    place = (
        pc.index_in(complexity, value_set=pa.array(list(r.TURN_RANGES))).fill_null(-1).to_numpy(zero_copy_only=False)
    )
    ranges = np.array([*r.TURN_RANGES.values(), (0, 0)])[place]
    known = (place >= 0) & (view.lengths > 0)
    rows = np.flatnonzero(known & ((view.lengths < ranges[:, 0]) | (view.lengths > ranges[:, 1])))
    return Check.of(
        int(known.sum()),
        rows,
        lambda k: (
            f"{complexity[rows[k]]} means {ranges[rows[k]][0]} to {ranges[rows[k]][1]} turns, "
            f"there are {view.lengths[rows[k]]}"
        ),
    )


def _arc(view: View) -> Check:
    names = ("emotion_arc", "sentiment", "resolution_status")
    columns = [view.fields[name] for name in names]
    known = np.logical_and.reduce([_in(c, ENUMS[name]) for c, name in zip(columns, names, strict=True)])
    fitting = [
        f"{arc}|{sentiment}|{resolution}"
        for arc, (sentiments, resolutions) in r.ARC_FITS.items()
        for sentiment in sentiments
        for resolution in resolutions
    ]
    triples = pc.binary_join_element_wise(*columns, "|")
    rows = np.flatnonzero(known & ~_in(triples, fitting))
    return Check.of(
        int(known.sum()),
        rows,
        lambda k: "arc {} does not go with {} and {}".format(*(column[rows[k]] for column in columns)),
    )


def _resolution(view: View) -> Check:
    late = np.flatnonzero((view.position >= view.lengths[view.turn_row] - _LAST) & (view.who == 1))
    texts = view.text.take(pa.array(late))
    patterns = _cues()
    says = np.zeros((view.n, len(patterns)), dtype=bool)
    for column, pattern in enumerate(patterns.values()):
        hit = _true(pc.match_substring_regex(texts, pattern, ignore_case=True))
        says[view.turn_row[late[hit]], column] = True
    declared = view.fields["resolution_status"]
    tells = (says.sum(axis=1) == 1) & _in(declared, ENUMS["resolution_status"])
    ending = np.array(list(patterns))[says.argmax(axis=1)]
    rows = np.flatnonzero(tells & (ending != np.asarray(declared.to_pylist(), dtype=object)))
    return Check.of(
        int(tells.sum()), rows, lambda k: f"declared {declared[rows[k]]}, the last turns read as {ending[rows[k]]}"
    )


def _one_label(total: Aggregate) -> Part:
    """Records whose opening also occurs under another intent."""
    import pandas as pd

    frame = pd.DataFrame({"opening": total.column("opening"), "intent": total.column("intent")})
    told = frame[(frame["opening"] != 0) & (frame["intent"] != 0)]
    intents = told.groupby("opening")["intent"].transform("nunique")
    rows = told.index[intents > 1].to_numpy()
    unit, meaning = "records", "share whose opening does not occur under another intent as well"
    if not len(told):
        return unmeasured("one_label", unit, meaning, "no record has an intent and an opening")
    offences = total.offences(
        tuple((int(row), "the same opening has another intent elsewhere") for row in rows[:LISTED])
    )
    return share("one_label", len(told), len(rows), unit, meaning, empty="", offences=offences)


def _in(array: pa.Array, values: Sequence[str]) -> NDArray[np.bool_]:
    return _true(pc.is_in(array, value_set=pa.array(list(values), pa.string()), skip_nulls=True))


def _true(mask: pa.BooleanArray) -> NDArray[np.bool_]:
    return np.asarray(mask.fill_null(False).to_numpy(zero_copy_only=False), dtype=bool)


@lru_cache(maxsize=1)
def _cues() -> dict[str, str]:
    """Ending to the pattern of what is said then."""
    cues = read_yaml(Path(__file__).with_name("resolution_cues.yaml"))
    return {ending: "|".join(f"(?:{cue})" for cue in patterns) for ending, patterns in cues.items()}
