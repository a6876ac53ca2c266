"""A language model as judge: a sample of conversations scored by a rubric, and how far such scores can be trusted.

Judges are lenient (compare, don't read values), swayed by order (every second record gets the criteria reversed), fond
of their own texts (a caveat says so), and some see nothing: so some records are judged again with another's answers in
them.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from genesis_lab.dataset import Dataset
from genesis_lab.dataset.schema import arrow_schema
from genesis_lab.dataset.sources import read_rows
from genesis_lab.domains import get_domain
from genesis_lab.domains.base import Domain
from genesis_lab.domains.conversations.record import role_of
from genesis_lab.domains.reading import object_schema, read_json
from genesis_lab.errors import InvalidInput, ParseFailure, Rejected, sentence
from genesis_lab.files import resolve, shown
from genesis_lab.providers.asking import Call, ask_all
from genesis_lab.providers.base import Completion, Request, request_key
from genesis_lab.providers.cache import CompletionCache
from genesis_lab.stats import Interval, mean_interval, proportion_interval
from genesis_lab.texts import fence, indented
from genesis_lab.validation.checks import of_structs
from genesis_lab.yamls import read_yaml

SCALE = (1, 2, 3, 4, 5)
Codes = NDArray[np.int64]
MAX_TOKENS = 600
CONTROLS = 10
"""Records that are judged again with another record's answers."""
WORST = 10
ENOUGH = 30
"""Labels below which an agreement says little, however high."""

Labels = Mapping[tuple[str, str, str], int]
"""`(record id, criterion, rater)` to score."""
Words = str | dict[str, str]
"""A text, or one for each language."""
Case = dict[str, Any]
"""What the judge sees of a record: ``row``, ``id``, ``language``, ``label``, ``facts`` by name, who ``said`` what."""


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


def load_rubric(path: str | Path = "") -> Rubric:
    """The rubric in a YAML file (default: the package's, for customer service); `InvalidInput` if it is none."""
    source = resolve(path) if path else Path(__file__).with_name("rubric.yaml")
    if not source.is_file():
        raise InvalidInput(f"There is no rubric file {shown(source)}.")
    try:
        return Rubric.model_validate(read_yaml(source))
    except ValidationError as error:
        raise InvalidInput(f"The rubric {shown(source)} is not usable: {sentence(error)}") from None


def judge(
    dataset: Dataset,
    call: Call,
    *,
    name: str,
    sample: int = 100,
    seed: int = 0,
    rubric: Rubric | None = None,
    taxonomy: Any = None,
    human_labels: Labels | None = None,
    controls: int = CONTROLS,
    cache: CompletionCache | None = None,
    identity: str = "",
    concurrency: int = 4,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score a sample of conversations by a language model; JSON-safe. ``not_measured`` says what can't be, and why.

    `call` answers a request; `name` and `identity` are who judges to the report and to the cache. `sample` records are
    drawn in proportion to label and language, those with a human label come on top; `controls` of them are judged
    again, spoiled.
    """
    if name.partition(":")[0] == "offline":
        raise InvalidInput("Provider offline can't judge, it is a grammar: name a language model as judge.")
    rubric, labels = rubric or load_rubric(), human_labels or {}
    rows, cases = drawn(dataset, sample, seed, {record_id for record_id, _, _ in labels})
    spoiled = {row: other for row in rows if (other := _spoiled(cases[row], [cases[each] for each in rows]))}
    tasks = {(row, False): one for row, one in cases.items()}
    tasks |= {(row, True): one for row, one in list(spoiled.items())[:controls]}
    heard = [key for key, task in tasks.items() if any(text for _, text in task["said"])]

    def request(case: Case) -> Request:
        system, message, schema = question(case, rubric, taxonomy)
        asked = Request("", system, (("user", message),), schema, "judgement", MAX_TOKENS, 0.0, seed=seed)
        return replace(asked, key=request_key(identity or name, system, asked.messages, schema, MAX_TOKENS, seed))

    asked = ask_all(
        call,
        [request(tasks[key]) for key in heard],
        cache,
        on_progress and (lambda at: on_progress(at.done, at.total)),
        width=concurrency,
        usable=lambda completion: isinstance(_read(completion, rubric), tuple),
    )
    answers = {key: _read(answer, rubric) for key, answer in zip(heard, asked.answers, strict=True)}
    found = {key: answer for key, answer in answers.items() if isinstance(answer, tuple)}
    why = Counter(
        str(answers.get((row, False), "the record has no turns")) for row in rows if (row, False) not in found
    )
    good = [(cases[row], found[row, False]) for row in rows if (row, False) in found]
    by_id = {cases[row]["id"]: scores for (row, spoilt), (scores, _) in found.items() if not spoilt}
    control = _controlled(
        [(found[row, False][0], b[0]) for (row, is_b), b in found.items() if is_b and (row, False) in found]
    )
    model, usage = (asked.completions[0].model if asked.completions else name), asked.usage
    caveats = ["Judges are lenient: compare datasets judged by the same model, don't read the values by themselves."]
    if model == (dataset.manifest.get("generation") or {}).get("model"):
        caveats.append(f"{model} judges its own texts here, which models are known to prefer: let another one judge.")
    missing = {
        "control": "" if control else "no record could be judged both as it is and with another's answers",
        "criteria": "" if good else "no answer of the judge could be read",
        "agreement": "" if labels else "no human labels were given",
    }
    return {
        "judge": name,
        "model": model,
        "rubric": rubric.name,
        "rubric_digest": rubric.digest,
        "sample": len(rows),
        "judged": len(good),
        "overall": _mean([_average(scores) for _, (scores, _) in good]),
        "criteria": [_given(one, [scores[one.name] for _, (scores, _) in good]) for one in rubric.criteria if good],
        "worst": _worst(good),
        "agreement": _agreements(rubric, labels, by_id),
        "control": control,
        "not_judged": dict(why),
        "prompt_tokens": usage and usage.prompt_tokens + usage.cache_read_tokens + usage.cache_write_tokens,
        "completion_tokens": usage and usage.completion_tokens,
        "cost_usd": asked.cost_usd,
        "caveats": caveats,
        "not_measured": {what: why for what, why in missing.items() if why},
    }


def case(record: Mapping[str, Any], row: int, domain: Domain) -> Case:
    """What the judge sees of a record of `domain`: label, outcomes, and the list in it that holds who says what."""
    facets = domain.facets
    label, language = facets.label or "", facets.language or ""
    talk = next(field.name for field in arrow_schema(domain.record_type) if of_structs(field.type))
    said = [(role_of(t["speaker"]) or t["speaker"] or "?", t["text"] or "") for t in record[talk] or ()]
    facts = {name: " ".join(record[name].split()) for name in (label, *facets.outcomes) if record[name]}
    found = {"row": row, "id": str(record[facets.id] or f"row {row + 1}"), "label": record[label] or ""}
    return found | {"language": record[language] or "", "facts": facts, "said": said}


def question(case: Case, rubric: Rubric, taxonomy: Any = None) -> tuple[str, str, dict[str, Any]]:
    """System prompt, message and JSON schema of the answer, in the record's language; odd rows: criteria reversed."""
    language = case["language"] or "en"
    criteria = rubric.criteria[:: -1 if case["row"] % 2 else 1]
    parts = [_in(rubric.instructions, language)]
    for one in criteria:
        anchors = "; ".join(f"{score}: {_in(text, language)}" for score, text in sorted(one.anchors.items()))
        parts.append(f"{one.name}: {_in(one.question, language)} ({anchors})")

    def word(text: str) -> str:
        return _in(rubric.words.get(text, text), language)

    facts = [f"{word(name)}: {value}" for name, value in case["facts"].items()]
    if meant := [intent.description for intent in taxonomy.intents if intent.name == case["label"]] if taxonomy else ():
        facts[0] += f" ({_in(meant[0], language)})"
    talk = "\n".join(f"{' '.join(word(speaker).split())}: {indented(text)}" for speaker, text in case["said"])
    dashes = fence("\n".join([*facts, talk]))
    return "\n\n".join(parts), "\n".join([*facts, dashes, talk, dashes]), answer_schema(criteria)


def answer_schema(criteria: Sequence[Criterion]) -> dict[str, Any]:
    """JSON schema of a judge's answer: the reason, then a score for each criterion."""
    properties: dict[str, Any] = {"reason": {"type": "string", "maxLength": 500}}
    properties |= {criterion.name: {"type": "integer", "enum": list(SCALE)} for criterion in criteria}
    return object_schema(properties)


def read_scores(text: str, rubric: Rubric) -> tuple[dict[str, int], str]:
    """Scores and reason in a judge's answer. Raises `ParseFailure`; a score is never guessed."""
    names = [criterion.name for criterion in rubric.criteria]
    data = read_json(text, answer_schema(rubric.criteria) | {"required": names})
    scores = {name: score_of(data.get(name)) for name in names}
    if none := [name for name, score in scores.items() if score is None]:
        raise ParseFailure(f"no score from 1 to 5 for {none[0]}")
    return {n: score for n, score in scores.items() if score}, " ".join(str(data.get("reason") or "").split())


def read_labels(path: str | Path, rubric: Rubric) -> dict[tuple[str, str, str], int]:
    """Scores that people gave: a CSV with ``record_id``, ``criterion``, ``score``, and ``rater`` where there are
    several; rows without a score are left out. Raises `InvalidInput`, which names the line, where one makes no sense.
    """
    source = resolve(path)
    if not source.is_file():
        raise InvalidInput(f"There is no file of human labels {shown(source)}.")
    names, wanted = sorted(criterion.name for criterion in rubric.criteria), {"record_id", "criterion", "score"}
    given: dict[tuple[str, str, str], int] = {}
    rows = list(read_rows(source))
    if not rows or not all(row.problem or wanted <= (row.value or {}).keys() for row in rows):
        raise InvalidInput(f"{shown(source)} must have rows with the columns record_id, criterion and score.")
    for row in rows:
        said, at = row.value or {}, f"Line {row.number + 1} of {shown(source)}"
        if row.problem:
            raise InvalidInput(f"{at} can't be read: {row.problem}.")
        if not (said["score"] or "").strip():
            continue
        key = str(said["record_id"] or ""), said["criterion"] or "", (said.get("rater") or "").strip()
        score = score_of(said["score"])
        if key[1] not in names or score is None:
            raise InvalidInput(
                f"{at} must give one of {', '.join(names)} a whole score from 1 to 5, got {key[1]!r} and "
                f"{said['score']!r}."
            )
        if key in given:
            raise InvalidInput(
                f"{at} scores {key[1]} of {key[0]} a second time: say in a column rater who gave which score."
            )
        given[key] = score
    return given


def score_of(value: object) -> int | None:
    """4, 4.0 and "4" as a score of the scale; anything else is none."""
    try:
        return next((score for score in SCALE if not isinstance(value, bool) and float(str(value)) == score), None)
    except ValueError:
        return None


def _read(answer: Completion | Rejected, rubric: Rubric) -> tuple[dict[str, int], str] | str:
    """Scores and reason, or why there are none."""
    if isinstance(answer, Rejected):
        return "the judge refused the request"
    try:
        return read_scores(answer.text, rubric)
    except ParseFailure:
        return answer.note or "the answer could not be read"


def drawn(dataset: Dataset, n: int, seed: int, labelled: set[str]) -> tuple[list[int], dict[int, Case]]:
    """Rows of a sample in proportion to label and language (systematic, from a random order); the cases of these and of
    the labelled.
    """
    from pyarrow.dataset import dataset as scanned

    domain = get_domain(dataset.domain)
    facets = domain.facets
    frame = dataset.frame(columns=[name for name in (facets.id, facets.language, facets.label) if name])
    if frame.empty:
        raise InvalidInput(f"{dataset.name} holds no records to judge.")
    rng, n = np.random.default_rng(seed), min(n, len(frame))
    strata = frame[facets.language].fillna("").astype(str) + "/" + frame[facets.label].fillna("").astype(str)
    shuffled = rng.permutation(len(frame))
    ordered = shuffled[np.argsort(strata.to_numpy(dtype=str)[shuffled], kind="stable")]
    rows = np.sort(ordered[((rng.random() + np.arange(n)) * len(frame) / max(n, 1)).astype(int)])
    wanted = np.union1d(rows, np.flatnonzero(frame[facets.id].isin(labelled)))
    records = scanned([str(part) for part in dataset.parts()]).take(wanted).to_pylist()
    return rows.tolist(), {row: case(record, row, domain) for row, record in zip(wanted.tolist(), records, strict=True)}


def _spoiled(one: Case, others: Sequence[Case]) -> Case | None:
    """The case with the agent's turns of another one in its language about something else."""
    for other in others:
        turns = [text for speaker, text in other["said"] if speaker == "agent"]
        if turns and other["language"] == one["language"] and other["label"] != one["label"]:
            theirs = itertools.cycle(turns)
            said = [(who, next(theirs) if who == "agent" else text) for who, text in one["said"]]
            return one | {"said": said} if any(who == "agent" for who, _ in said) else None
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


def _given(criterion: Criterion, scores: Sequence[int]) -> dict[str, Any]:
    counts = {score: scores.count(score) for score in SCALE}
    return {"name": criterion.name, "question": criterion.title, "mean": _mean(scores), "counts": counts}


def _worst(good: Sequence[tuple[Case, tuple[dict[str, int], str]]]) -> list[dict[str, Any]]:
    ranked = sorted(good, key=lambda pair: (_average(pair[1][0]), min(pair[1][0].values()), pair[0]["row"]))
    return [
        {"record_id": one["id"], "label": one["label"], "language": one["language"], "scores": scores, "reason": reason}
        for one, (scores, reason) in ranked[:WORST]
        if min(scores.values()) < SCALE[-1]
    ]


def _mean(values: Sequence[float]) -> dict[str, Any] | None:
    return mean_interval(values, scale=(SCALE[0], SCALE[-1])).to_dict() if len(values) else None


def _average(scores: Mapping[str, int]) -> float:
    return sum(scores.values()) / len(scores)


def _in(words: Words, language: str) -> str:
    return words if isinstance(words, str) else words.get(language) or next(iter(words.values()))


def _agreements(rubric: Rubric, labels: Labels, scored: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    """The judge against each person on every criterion: kappa, share of equal scores, how much more the judge gives."""
    found = []
    for criterion, rater in itertools.product(rubric.criteria, sorted({rater for _, _, rater in labels})):
        pairs = [
            (scored[record_id][name], score)
            for (record_id, name, who), score in labels.items()
            if (name, who) == (criterion.name, rater) and record_id in scored
        ]
        if pairs:
            model, human = np.array(pairs).T
            kappa, bias, n = weighted_kappa(model, human), float((model - human).mean()), len(pairs)
            same, reading = float((model == human).mean()), reading_of(kappa, n, bias)
            row = {"name": criterion.name, "rater": rater, "n": n, "kappa": kappa and kappa.to_dict()}
            found.append(row | {"same": same, "bias": bias, "reading": reading})
    return found


def weighted_kappa(model: Codes, human: Codes, weights: str | None = "quadratic") -> Interval | None:
    """Cohen's kappa with quadratic weights (Cohen 1968), without any for names from 1 on; None where both always gave
    one; interval by Fleiss, Cohen and Everitt (1969) with one more label given by chance: a few that all agree prove
    little.
    """
    from statsmodels.stats.inter_rater import cohens_kappa

    given = np.histogram2d(model, human, bins=np.arange(0.5, max(SCALE[-1], *model, *human) + 1))[0]
    n = len(model)
    with np.errstate(invalid="ignore", divide="ignore"):
        estimate = float(cohens_kappa(given, wt=weights, return_results=False))
        likely = cohens_kappa(given + np.outer(given.sum(axis=1), given.sum(axis=0)) / n**2, wt=weights)
    if not np.isfinite(estimate):
        return None
    return Interval(estimate, min(estimate, max(likely.kappa_low, -1.0)), max(estimate, min(likely.kappa_upp, 1.0)), n)


def reading_of(kappa: Interval | None, n: int, bias: float) -> str:
    if kappa is None:
        return "not defined: both always gave the same score"
    said = "agreement beyond chance" if kappa.low > 0 else "no agreement that could not be chance"
    if n < ENOUGH:
        said += f", but {n} labels are too few to be sure"
    if abs(bias) >= 0.5:
        said += f"; the judge gives {abs(bias):.1f} {'more' if bias > 0 else 'less'} than people"
    return said
