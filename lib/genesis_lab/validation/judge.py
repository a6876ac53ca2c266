"""A language model as judge: a sample of conversations scored by a rubric, and how far such scores can be trusted.

Known weaknesses of judges, and what is done about them. *Leniency*: most models give too much, so read differences
between datasets judged by the same model, not the values. *Position*: what is asked first colours the rest, so every
second record gets the criteria in reverse order. *Self-preference*: a model likes its own texts, so the report warns
where judge and writer are the same. *Blindness*: some models give the same scores to anything, so some records are
judged once more with another record's answers in them; a judge that does not score those lower is worth nothing.
"""

from __future__ import annotations

import hashlib
import itertools
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from genesis_lab.dataset.sources import read_rows
from genesis_lab.domains.conversations.opening import role_of
from genesis_lab.domains.conversations.taxonomy import Taxonomy
from genesis_lab.domains.reading import read_json
from genesis_lab.errors import InvalidInput, ParseFailure, Rejected, sentence
from genesis_lab.files import resolve, shown
from genesis_lab.providers.asking import Call, ask_all
from genesis_lab.providers.base import Completion, Request, request_key
from genesis_lab.stats import Interval, mean_interval, percentile_interval, proportion_interval
from genesis_lab.texts import fence, indented
from genesis_lab.yamls import read_yaml

if TYPE_CHECKING:
    from genesis_lab.dataset import Dataset
    from genesis_lab.providers.cache import CompletionCache

SCALE = (1, 2, 3, 4, 5)
MAX_TOKENS = 600
CONTROLS = 10
"""Records that are judged again with another record's answers."""
WORST = 10
ENOUGH = 30
"""Labels below which an agreement says little, however high."""
_LABELS = ("intent", "sentiment", "resolution_status")
"""Labels of a conversation that the judge is told."""
_DRAWS = 500

Labels = Mapping[tuple[str, str, str], int]
"""`(record id, criterion, rater)` to score."""
Words = str | dict[str, str]
"""A text, or one for each language."""
Answer = tuple[dict[str, int], str] | str
"""Scores and reason, or why there are none."""


class Criterion(BaseModel):
    """One thing to score. `anchors` say what some of the scores mean."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z_]*$")
    question: Words
    anchors: dict[int, Words]

    @property
    def title(self) -> str:
        """The question, in English if it is there."""
        return _in(self.question, "en")


class Rubric(BaseModel):
    """What a judge scores, see ``rubric.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    instructions: Words
    criteria: tuple[Criterion, ...] = Field(min_length=1)
    words: dict[str, Words] = {}

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]


def judge(
    dataset: Dataset,
    call: Call,
    *,
    name: str,
    sample: int = 100,
    seed: int = 0,
    rubric: Rubric | None = None,
    taxonomy: Taxonomy | None = None,
    human_labels: Labels | None = None,
    controls: int = CONTROLS,
    cache: CompletionCache | None = None,
    identity: str = "",
    concurrency: int = 4,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score a sample of conversations by a language model; JSON-safe. What can't be measured is in ``not_measured``, with why.

    Parameters
    ----------
    call : answers a request: a provider's ``complete``, or a teacher's ``call``.
    name : who judges, as the report names it: ``bedrock:amazon.nova-lite-v1:0``.
    sample : records to score, drawn in proportion to intent and language; those with a human label come on top and
        count for the agreement only.
    taxonomy : tells the judge what an intent means.
    human_labels : what people gave, see `agreement.read_labels`.
    controls : how many of the sample are judged again with another record's answers.
    cache : keeps answers, so that nothing is paid for twice; the caller closes it.
    identity : what the judge is, see `providers.identity`: the cache holds the answers of this model apart from those
        of another that has the same name. Empty takes the name.
    on_progress : called with the number of answers and of all requests.

    Raises
    ------
    InvalidInput : provider offline is to be the judge, or the dataset is empty.
    ProviderError : the judge can't be asked at all; what it has answered is in the cache.
    """
    if name.partition(":")[0] == "offline":
        raise InvalidInput("Provider offline can't judge, it is a grammar: name a language model as judge.")
    rubric, labels = rubric or load_rubric(), human_labels or {}
    rows, labelled = _drawn(dataset, sample, seed, {record_id for record_id, _, _ in labels})
    records = _records(dataset, np.union1d(rows, labelled))
    chosen = [records[row] for row in rows]
    spoiled: dict[int, dict[str, Any]] = {}
    for record in chosen:
        if len(spoiled) < controls and (other := _spoiled(record, chosen)):
            spoiled[record["row"]] = other
    tasks = [*records.values(), *spoiled.values()]
    spoken = [any(turn["text"] for turn in record["turns"] or ()) for record in tasks]
    asked = ask_all(
        call,
        [
            request_for(record, rubric, taxonomy, identity or name, seed)
            for record, said in zip(tasks, spoken, strict=True)
            if said
        ],
        cache,
        on_progress and (lambda at: on_progress(at.done, at.total)),
        width=concurrency,
        usable=lambda completion: isinstance(_read(completion, rubric), tuple),
    )
    told = iter(asked.answers)
    answers = [_read(next(told), rubric) if said else "the record has no turns" for said in spoken]
    scored = dict(zip(records, answers, strict=False))
    good = [(records[row], found) for row in rows if isinstance(found := scored[row], tuple)]
    pairs = [(scored[row], answer) for row, answer in zip(spoiled, answers[len(records) :], strict=True)]
    control = _controlled([(one[0], two[0]) for one, two in pairs if isinstance(one, tuple) and isinstance(two, tuple)])
    model, usage = (asked.completions[0].model if asked.completions else name), asked.usage
    caveats = ["Judges are lenient: compare datasets judged by the same model, don't read the values by themselves."]
    if model == (dataset.manifest.get("generation") or {}).get("model"):
        caveats.append(f"{model} judges its own texts here, which models are known to prefer: let another one judge.")
    missing = {
        "control": "" if control else "no record could be judged both as it is and with another's answers",
        "criteria": "" if good else "no answer of the judge could be read",
        "agreement": "" if labels else "no human labels were given",
    }
    by_id = {
        str(records[row]["conversation_id"]): found[0] for row, found in scored.items() if isinstance(found, tuple)
    }
    return {
        "judge": name,
        "model": model,
        "rubric": rubric.name,
        "rubric_digest": rubric.digest,
        "sample": len(rows),
        "judged": len(good),
        "overall": _mean([_average(scores) for _, (scores, _) in good]),
        "criteria": [_criterion(c, [scores[c.name] for _, (scores, _) in good]) for c in rubric.criteria if good],
        "worst": _worst(good),
        "agreement": _agreements(rubric, labels, by_id, np.random.default_rng(seed)),
        "control": control,
        "not_judged": dict(Counter(str(scored[row]) for row in rows if isinstance(scored[row], str))),
        "prompt_tokens": usage and usage.prompt_tokens + usage.cache_read_tokens + usage.cache_write_tokens,
        "completion_tokens": usage and usage.completion_tokens,
        "cost_usd": asked.cost_usd,
        "caveats": caveats,
        "not_measured": {what: why for what, why in missing.items() if why},
    }


def request_for(
    record: Mapping[str, Any], rubric: Rubric, taxonomy: Taxonomy | None, identity: str, seed: int
) -> Request:
    """The question to the judge about one record."""
    system, message, schema = question(record, rubric, taxonomy)
    request = Request(
        key="",
        system=system,
        messages=(("user", message),),
        schema=schema,
        schema_name="judgement",
        max_tokens=MAX_TOKENS,
        temperature=0.0,
        seed=seed,
    )
    return replace(request, key=request_key(identity, system, request.messages, schema, MAX_TOKENS, seed))


def _read(answer: Completion | Rejected, rubric: Rubric) -> Answer:
    if isinstance(answer, Rejected):
        return "the judge refused the request"
    try:
        return read_scores(answer.text, rubric)
    except ParseFailure:
        return answer.note or "the answer could not be read"


def _drawn(dataset: Dataset, n: int, seed: int, labelled: set[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of a sample in proportion to intent and language (systematic, from a random order), and the labelled rows."""
    frame = dataset.frame(columns=["conversation_id", "intent", "language"])
    if frame.empty:
        raise InvalidInput(f"{dataset.name} holds no records to judge.")
    rng = np.random.default_rng(seed)
    strata = frame["language"].fillna("").astype(str) + "/" + frame["intent"].fillna("").astype(str)
    shuffled = rng.permutation(len(frame))
    ordered = shuffled[np.argsort(strata.to_numpy(dtype=str)[shuffled], kind="stable")]
    n = min(n, len(frame))
    places = ((rng.random() + np.arange(n)) * len(frame) / n).astype(int) if n else np.array([], dtype=int)
    has_label = frame["conversation_id"].isin(labelled).to_numpy(dtype=bool)
    return np.sort(ordered[places]), np.flatnonzero(has_label)


def _records(dataset: Dataset, rows: NDArray[np.int64]) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    start = 0
    for batch in dataset.batches():
        wanted = rows[(rows >= start) & (rows < start + batch.num_rows)]
        for row, record in zip(wanted.tolist(), batch.take(wanted - start).to_pylist(), strict=True):
            found[row] = record | {"row": row, "conversation_id": record["conversation_id"] or f"row {row + 1}"}
        start += batch.num_rows
    return found


def _spoiled(record: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The record with the agent's turns of another one in its language about something else."""
    for other in others:
        said = [turn["text"] for turn in other["turns"] or () if role_of(turn["speaker"]) == "agent"]
        if said and other["language"] == record["language"] and other["intent"] != record["intent"]:
            turns, count = [], 0
            for turn in record["turns"] or ():
                if role_of(turn["speaker"]) == "agent":
                    turn, count = turn | {"text": said[count % len(said)]}, count + 1
                turns.append(turn)
            return {**record, "turns": turns} if count else None
    return None


def _controlled(both: Sequence[tuple[Mapping[str, int], Mapping[str, int]]]) -> dict[str, Any] | None:
    """Of records judged again with another's answers in them, the share that was given less."""
    if not both:
        return None
    lower, n = sum(_average(b) < _average(a) for a, b in both), len(both)
    interval = Interval(lower / n, *proportion_interval(lower, n), n)
    sees = interval.low > 0.5
    reading = f"with another record's answers in them, {'' if sees else 'only '}{lower} of {n} were given less: " + (
        "the judge sees what it judges" if sees else "don't rely on this judge"
    )
    return {"n": n, "lower": interval.to_dict(), "reading": reading}


def _criterion(criterion: Criterion, scores: Sequence[int]) -> dict[str, Any]:
    counts = {score: scores.count(score) for score in SCALE}
    return {"name": criterion.name, "question": criterion.title, "mean": _mean(scores), "counts": counts}


def _worst(good: Sequence[tuple[Mapping[str, Any], tuple[dict[str, int], str]]]) -> list[dict[str, Any]]:
    ranked = sorted(good, key=lambda pair: (_average(pair[1][0]), min(pair[1][0].values()), pair[0]["row"]))
    return [
        {
            "record_id": str(r["conversation_id"]), "intent": r["intent"] or "", "language": r["language"] or "",
            "scores": scores, "reason": reason,
        }
        for r, (scores, reason) in ranked[:WORST] if min(scores.values()) < SCALE[-1]
    ]  # fmt: skip


def _mean(values: Sequence[float]) -> dict[str, Any] | None:
    return mean_interval(values, scale=(SCALE[0], SCALE[-1])).to_dict() if len(values) else None


def _average(scores: Mapping[str, int]) -> float:
    return sum(scores.values()) / len(scores)


def load_rubric(path: str | Path = "") -> Rubric:
    """The rubric in a YAML file; default: the one for customer service that comes with the package.

    Raises
    ------
    InvalidInput : no such file, or it has not the form of ``rubric.yaml``.
    """
    source = resolve(path) if path else Path(__file__).with_name("rubric.yaml")
    if not source.is_file():
        raise InvalidInput(f"There is no rubric file {shown(source)}.")
    try:
        return Rubric.model_validate(read_yaml(source))
    except ValidationError as error:
        raise InvalidInput(f"The rubric {shown(source)} is not usable: {sentence(error)}") from None


def question(record: Mapping[str, Any], rubric: Rubric, taxonomy: Taxonomy | None) -> tuple[str, str, dict[str, Any]]:
    """System prompt, message and JSON schema of the answer, in the record's language.

    What is asked first colours the rest, so records with an odd ``row`` get the criteria in reverse order.
    """
    language = record["language"] or "en"
    criteria = rubric.criteria[:: -1 if record["row"] % 2 else 1]
    parts = [_in(rubric.instructions, language)]
    for criterion in criteria:
        anchors = "; ".join(f"{score}: {_in(text, language)}" for score, text in sorted(criterion.anchors.items()))
        parts.append(f"{criterion.name}: {_in(criterion.question, language)} ({anchors})")

    def word(text: str) -> str:
        return _in(rubric.words.get(text, text), language)

    facts = [f"{word(label)}: {' '.join(record[label].split())}" for label in _LABELS if record[label]]
    if taxonomy and record["intent"] in taxonomy.names:
        described = next(intent for intent in taxonomy.intents if intent.name == record["intent"]).description
        facts[0] += f" ({described['es' if language == 'es' else 'en']})"
    said = [(role_of(turn["speaker"]) or turn["speaker"] or "?", turn["text"] or "") for turn in record["turns"]]
    turns = "\n".join(f"{' '.join(word(speaker).split())}: {indented(text)}" for speaker, text in said)
    dashes = fence("\n".join([*facts, turns]))
    return "\n\n".join(parts), "\n".join([*facts, dashes, turns, dashes]), answer_schema(criteria)


def answer_schema(criteria: Sequence[Criterion]) -> dict[str, Any]:
    """JSON schema of a judge's answer: the reason, then a score for each criterion."""
    properties: dict[str, Any] = {"reason": {"type": "string", "maxLength": 500}}
    properties |= {criterion.name: {"type": "integer", "enum": list(SCALE)} for criterion in criteria}
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def read_scores(text: str, rubric: Rubric) -> tuple[dict[str, int], str]:
    """Scores and reason in a judge's answer. Raises `ParseFailure`; a score is never guessed."""
    wanted = answer_schema(rubric.criteria)
    data = read_json(text, wanted | {"required": [criterion.name for criterion in rubric.criteria]})
    scores = {}
    for criterion in rubric.criteria:
        value = as_number(data.get(criterion.name))
        if value not in SCALE:
            raise ParseFailure(f"no score from 1 to 5 for {criterion.name}")
        scores[criterion.name] = int(value)
    return scores, " ".join(str(data.get("reason") or "").split())


def as_number(value: object) -> float | None:
    """4, 4.0 and "4" as a number; anything else is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _in(words: Words, language: str) -> str:
    return words if isinstance(words, str) else words.get(language) or next(iter(words.values()))


def read_labels(path: str | Path, rubric: Rubric) -> dict[tuple[str, str, str], int]:
    """Scores that people gave: a CSV with ``record_id``, ``criterion``, ``score``, and ``rater`` where there are several.

    Rows without a score are left out.

    Raises
    ------
    InvalidInput : no such file, columns are missing, an unknown criterion, a score that is none of 1 to 5, or a second
        score by the same rater.
    """
    source = resolve(path)
    if not source.is_file():
        raise InvalidInput(f"There is no file of human labels {shown(source)}.")
    names = {criterion.name for criterion in rubric.criteria}
    given: dict[tuple[str, str, str], int] = {}
    rows = list(read_rows(source))
    if not rows:
        raise InvalidInput(f"{shown(source)} holds no rows: it must have the columns record_id, criterion and score.")
    for row in rows:
        said, at = row.value or {}, f"Line {row.number + 1} of {shown(source)}"
        if row.problem:
            raise InvalidInput(f"{at} can't be read: {row.problem}.")
        if not {"record_id", "criterion", "score"} <= said.keys():
            raise InvalidInput(f"{shown(source)} must have the columns record_id, criterion and score.")
        if not (said["score"] or "").strip():
            continue
        score = as_number(said["score"])
        if said["criterion"] not in names or score not in SCALE:
            raise InvalidInput(
                f"{at} must give one of {', '.join(sorted(names))} a whole score from 1 to 5, got "
                f"{said['criterion'] or ''!r} and {said['score']!r}."
            )
        key = str(said["record_id"] or ""), str(said["criterion"]), (said.get("rater") or "").strip()
        if key in given:
            raise InvalidInput(
                f"{at} scores {key[1]} of {key[0]} a second time: say in a column rater who gave which score."
            )
        given[key] = int(score)
    return given


def _agreements(
    rubric: Rubric, labels: Labels, scored: Mapping[str, Mapping[str, int]], rng: np.random.Generator
) -> list[dict[str, Any]]:
    """The judge against each person on every criterion: Cohen's kappa with quadratic weights (Cohen 1968), None where one of
    both always gave one score; share of equal scores; how much more the judge gives.
    """
    found = []
    for criterion, rater in itertools.product(rubric.criteria, sorted({rater for _, _, rater in labels})):
        pairs = [
            (scored[record_id][name], score)
            for (record_id, name, who), score in labels.items()
            if (name, who) == (criterion.name, rater) and record_id in scored
        ]
        if pairs:
            model, human = np.array(pairs).T
            kappa, bias, n = _kappa(model, human, rng), float((model - human).mean()), len(pairs)
            found.append(
                {
                    "name": criterion.name, "rater": rater, "n": n, "kappa": kappa and kappa.to_dict(),
                    "same": float((model == human).mean()), "bias": bias, "reading": _reading(kappa, n, bias),
                }
            )  # fmt: skip
    return found


def _kappa(model: NDArray[np.int64], human: NDArray[np.int64], rng: np.random.Generator) -> Interval | None:
    """Percentile bootstrap of the table of both's scores, with one more label given by chance (Efron and Tibshirani 1993):
    a few that all agree do not prove that the next will.
    """
    from sklearn.metrics import cohen_kappa_score

    given = np.zeros((len(SCALE), len(SCALE)))
    np.add.at(given, (model - SCALE[0], human - SCALE[0]), 1)
    rows, columns = (axis.ravel() for axis in np.meshgrid(SCALE, SCALE, indexing="ij"))

    def kappa(counts: NDArray[Any]) -> float:
        with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
            warnings.simplefilter("ignore")  # where it is not defined it is left out
            found = cohen_kappa_score(rows, columns, labels=SCALE, weights="quadratic", sample_weight=counts.ravel())
        return float(found)

    estimate, n = kappa(given), len(model)
    if not np.isfinite(estimate):
        return None
    likely = given + np.outer(given.sum(axis=1), given.sum(axis=0)) / n**2
    drawn = [kappa(rng.multinomial(n, (likely / likely.sum()).ravel())) for _ in range(_DRAWS)]
    return percentile_interval(estimate, [each for each in drawn if np.isfinite(each)], n)


def _reading(kappa: Interval | None, n: int, bias: float) -> str:
    if kappa is None:
        return "not defined: both always gave the same score"
    said = "agreement beyond chance" if kappa.low > 0 else "no agreement that could not be chance"
    if n < ENOUGH:
        said += f", but {n} labels are too few to be sure"
    if abs(bias) >= 0.5:
        said += f"; the judge gives {abs(bias):.1f} {'more' if bias > 0 else 'less'} than people"
    return said
