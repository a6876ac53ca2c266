"""A language model as judge: a sample of conversations scored by a rubric, and how far such scores can be trusted.

Known weaknesses of judges, and what is done about them. *Leniency*: most models give too much, so read differences
between datasets judged by the same model, not the values. *Position*: what is asked first colours the rest, so every
second record gets the criteria in reverse order. *Self-preference*: a model likes its own texts, so the report warns
where judge and writer are the same. *Blindness*: some models give the same scores to anything, so some records are
judged once more with another record's answers in them; a judge that does not score those lower is worth nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genesis_lab.domains.conversations.opening import role_of
from genesis_lab.domains.conversations.taxonomy import Taxonomy
from genesis_lab.errors import InvalidInput, ParseFailure, Rejected
from genesis_lab.providers.asking import in_threads
from genesis_lab.providers.base import Completion, Request, Usage, request_key
from genesis_lab.stats import Interval, mean_interval, proportion_interval
from genesis_lab.validation.agreement import Agreement, Labels, agreements
from genesis_lab.validation.rubric import SCALE, Criterion, Rubric, load_rubric, question, read_scores

if TYPE_CHECKING:
    from genesis_lab.dataset import Dataset
    from genesis_lab.providers.cache import CompletionCache

MAX_TOKENS = 600
CONTROLS = 10
"""Records that are judged again with another record's answers."""
WORST = 10

Call = Callable[[Request], Completion]


@dataclass(frozen=True)
class CriterionScore:
    """One criterion over the sample. `counts` are the records given each score."""

    name: str
    question: str
    mean: Interval
    counts: Mapping[int, int]


@dataclass(frozen=True)
class JudgedRecord:
    """What the judge gave one record, and why."""

    record_id: str
    intent: str
    language: str
    scores: Mapping[str, int]
    reason: str


@dataclass(frozen=True)
class Control:
    """Of `n` records judged again with another's answers in them, the share that was given less."""

    n: int
    lower: Interval
    reading: str


@dataclass(frozen=True)
class JudgeReport:
    """What a judge says about a dataset. What can't be measured is absent, with the reason in `not_measured`."""

    judge: str
    model: str
    rubric: str
    rubric_digest: str
    sample: int
    judged: int
    overall: Interval | None
    criteria: tuple[CriterionScore, ...]
    worst: tuple[JudgedRecord, ...]
    agreement: tuple[Agreement, ...]
    control: Control | None
    not_judged: Mapping[str, int]
    prompt_tokens: int | None
    completion_tokens: int | None
    cost_usd: float | None
    caveats: tuple[str, ...]
    not_measured: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe fields."""
        return asdict(self)


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
) -> JudgeReport:
    """Score a sample of conversations by a language model.

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
    model, answers, used = _asked(
        tasks, call, rubric, taxonomy, name, identity or name, seed, cache, concurrency, on_progress
    )
    scored = dict(zip(records, answers, strict=False))
    rng = np.random.default_rng(seed)
    good = [(records[row], found) for row in rows if isinstance(found := scored[row], tuple)]
    failed = Counter(str(scored[row]) for row in rows if isinstance(scored[row], str))
    control, why = _controlled(
        [(scored[row], answer) for row, answer in zip(spoiled, answers[len(records) :], strict=True)]
    )
    writer = (dataset.manifest.get("generation") or {}).get("model")
    missing = {"control": why} if why else {}
    if not good:
        missing["criteria"] = "no answer of the judge could be read"
    if not labels:
        missing["agreement"] = "no human labels were given"
    by_id = {
        str(records[row]["conversation_id"]): found[0] for row, found in scored.items() if isinstance(found, tuple)
    }
    return JudgeReport(
        judge=name,
        model=model,
        rubric=rubric.name,
        rubric_digest=rubric.digest,
        sample=len(rows),
        judged=len(good),
        overall=_mean([_average(scores) for _, (scores, _) in good]),
        criteria=tuple(_criterion(c, [scores[c.name] for _, (scores, _) in good]) for c in rubric.criteria if good),
        worst=_worst(good),
        agreement=tuple(agreements(rubric, labels, by_id, rng)),
        control=control,
        not_judged=dict(failed),
        prompt_tokens=used[0],
        completion_tokens=used[1],
        cost_usd=used[2],
        caveats=tuple(_caveats(model, writer)),
        not_measured=missing,
    )


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


Answer = tuple[dict[str, int], str] | str
"""Scores and reason, or why there are none."""


def _asked(
    tasks: Sequence[Mapping[str, Any]],
    call: Call,
    rubric: Rubric,
    taxonomy: Taxonomy | None,
    name: str,
    identity: str,
    seed: int,
    cache: CompletionCache | None,
    concurrency: int,
    on_progress: Callable[[int, int], None] | None,
) -> tuple[str, list[Answer], tuple[int | None, int | None, float | None]]:
    """The model that answered, an answer to every task, and tokens and cost of all of them, cached ones included."""

    def ask(record: Mapping[str, Any]) -> Completion | str:
        if not any(turn["text"] for turn in record["turns"] or ()):
            return "the record has no turns"
        request = request_for(record, rubric, taxonomy, identity, seed)
        if cache and (kept := cache.get(request.key)) and isinstance(_read(kept, rubric), tuple):
            return kept
        try:
            completion = call(request)
        except Rejected:
            return "the judge refused the request"
        if cache and isinstance(_read(completion, rubric), tuple):
            cache.put(request.key, completion)
        return completion

    told: dict[int, Completion | str] = {}
    for number, answer in in_threads(ask, tasks, concurrency):
        told[number] = answer
        if on_progress:
            on_progress(len(told), len(tasks))
    in_order = [told[number] for number in range(len(tasks))]
    answers = [answer if isinstance(answer, str) else _read(answer, rubric) for answer in in_order]
    completions = [answer for answer in in_order if not isinstance(answer, str)]
    costs = [completion.cost_usd for completion in completions]
    known = [cost for cost in costs if cost is not None]
    counted = [completion.usage for completion in completions if completion.usage]
    usage, all_counted = sum(counted, Usage()), len(counted) == len(completions)
    used = (
        usage.prompt_tokens + usage.cache_read_tokens + usage.cache_write_tokens if all_counted else None,
        usage.completion_tokens if all_counted else None,
        sum(known) if len(known) == len(costs) else None,
    )
    return (completions[0].model if completions else name), answers, used


def _read(completion: Completion, rubric: Rubric) -> Answer:
    try:
        return read_scores(completion.text, rubric)
    except ParseFailure:
        return completion.note or "the answer could not be read"


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


def _controlled(pairs: Sequence[tuple[Answer, Answer]]) -> tuple[Control | None, str]:
    both = [(a[0], b[0]) for a, b in pairs if isinstance(a, tuple) and isinstance(b, tuple)]
    if not both:
        return None, "no record could be judged both as it is and with another's answers"
    lower = sum(_average(b) < _average(a) for a, b in both)
    interval = Interval(lower / len(both), *proportion_interval(lower, len(both)), len(both))
    reading = (
        f"with another record's answers in them, {lower} of {len(both)} were given less: the judge sees what it judges"
        if interval.low > 0.5
        else f"with another record's answers in them, only {lower} of {len(both)} were given less: don't rely on this judge"
    )
    return Control(len(both), interval, reading), ""


def _criterion(criterion: Criterion, scores: Sequence[int]) -> CriterionScore:
    mean = _mean(scores)
    assert mean is not None
    counts = Counter(scores)
    return CriterionScore(criterion.name, criterion.title, mean, {s: counts[s] for s in SCALE})


def _worst(good: Sequence[tuple[Mapping[str, Any], tuple[dict[str, int], str]]]) -> tuple[JudgedRecord, ...]:
    ranked = sorted(good, key=lambda pair: (_average(pair[1][0]), min(pair[1][0].values()), pair[0]["row"]))
    return tuple(
        JudgedRecord(str(r["conversation_id"]), r["intent"] or "", r["language"] or "", scores, reason)
        for r, (scores, reason) in ranked[:WORST]
        if min(scores.values()) < SCALE[-1]
    )


def _caveats(model: str, writer: object) -> Iterator[str]:
    yield "Judges are lenient: compare datasets judged by the same model, don't read the values by themselves."
    if model == writer:
        yield f"{model} judges its own texts here, which models are known to prefer: let another one judge."


def _mean(values: Sequence[float]) -> Interval | None:
    return mean_interval(values, scale=(SCALE[0], SCALE[-1])) if len(values) else None


def _average(scores: Mapping[str, int]) -> float:
    return sum(scores.values()) / len(scores)
