"""Who is good enough, and is a student better than its base or was it luck? The same questions for all, asked once. The
unit is the group of near-duplicate concepts: runs of a question are averaged, then the questions of a group. Counting
runs or questions as independent makes false discoveries (``benchmarks/evaluation.py``)."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from genesis_lab.domains.base import Example, Role
from genesis_lab.errors import InvalidInput, MissingDependency, Rejected, Unavailable
from genesis_lab.files import resolve, shown
from genesis_lab.finetuning.ask import Answers, OnAsking, PromptProgram, Sampling, ask, shifted
from genesis_lab.providers import parse_spec
from genesis_lab.providers.asking import Call
from genesis_lab.providers.base import Provider
from genesis_lab.providers.identity import identity
from genesis_lab.providers.local import LocalProvider
from genesis_lab.providers.local_models import peak_memory_bytes
from genesis_lab.stats import CANT_TELL, Paired, above, detectable_difference, holm, mean_interval, paired_power

Connect = Callable[[str], Any]
"""From a provider spec such as ``ollama:llama3.1:8b`` to the model with `provider`, `call` and `close`, for example
`generation.teachers.connect`."""
FEWEST = 50
"""Concepts below which nothing is called significant."""
SPREAD = 0.37
"""Standard deviation of a concept's difference that is assumed before anything is known (scores lie in [0, 1])."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to get answers: from the model of a provider spec, by a program (None: as the examples are taught), free
    or constrained to the role's grammar. Tables call it by its name."""

    id: str
    name: str
    model: str
    program: PromptProgram | None = None
    constrained: bool = False


def arms(base: str, *, student: str = "", program: PromptProgram | None = None, constrained: bool = True) -> list[Arm]:
    """Base and student, as taught and with an optimised prompt, free and (models of provider ``local``) constrained."""
    if student:
        try:
            parse_spec(student)
        except InvalidInput:
            advice = "teach it first, or name a model as local:…, ollama:…, openai:…"
            raise InvalidInput(f"There is no finished student {student!r} in outputs/models: {advice}") from None
    found = [Arm("base", "baseline", base)]
    found += [Arm("base+prompt", "optimised prompt", base, program)] if program else []
    found += [Arm("student", "fine-tuned", student)] if student else []
    found += [Arm("student+prompt", "fine-tuned, optimised prompt", student, program)] if student and program else []
    twins = [each for each in found if constrained and each.program is None and each.model.startswith("local")]
    return found + [Arm(f"{a.id}+grammar", f"{a.name} (constrained)", a.model, constrained=True) for a in twins]


def listed(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """A row for each way to get answers, as a table shows it."""
    return [
        {
            "candidate": arm.name,
            "model": readable(arm.model),
            "prompt": "optimised" if arm.program else "as taught",
            "held to a grammar": arm.constrained,
        }
        for arm in arms
    ]


def pairs_of(arms: Sequence[Arm]) -> list[tuple[str, str]]:
    """What is held against what, by id: each against the first, the student against every other way."""
    ids = [arm.id for arm in arms]
    more = [("student", "base+prompt"), ("student+prompt", "student"), ("student", "base+grammar")]
    more.append(("student+grammar", "base+grammar"))
    return [(id, ids[0]) for id in ids[1:]] + [pair for pair in more if set(pair) <= set(ids)]


def hold(
    arms: Sequence[Arm],
    examples: Sequence[Example],
    *,
    role: Role,
    dataset: str,
    sampling: Sampling = Sampling(),
    taught: Sequence[Example] = (),
    margin: float = 0.05,
    limits: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Ask every arm, compare them in pairs (`pairs_of`), and say what that shows: the report.

    No group of what was `taught` may be examined; `margin` is the smallest difference in score that matters, `limits`
    what made this a smoke run; `options` are those of `asked`.
    """
    if len(arms) < 2:
        raise InvalidInput(f"A comparison needs at least two candidates, got {len(arms)}.")
    if leaked := {example.group for example in taught} & {example.group for example in examples}:
        said = f"{len(leaked)} groups of concepts are both taught and examined, for example {min(leaked)!r}"
        raise InvalidInput(f"{said}: an examination needs concepts that the student never saw.")
    answers, cards = asked(arms, examples, role=role, sampling=sampling, **options)
    concepts, names = len({example.question for example in examples}), {arm.id: arm.name for arm in arms}
    held = pairs_of(arms)
    found = {(names[a], names[b]): answers[a].against(answers[b], margin=margin) for a, b in held}
    pairs = compare(found, concepts=concepts)
    about = pairs[held.index(("student", "base")) if ("student", "base") in held else 0]
    groups: dict[str, list[float]] = {}
    for example in examples:
        groups.setdefault(example.group, []).append(role.score(example.answer, example).total)
    points = {end: 100 * value for end, value in about["difference"].items()}
    said = (
        f"{about['a']} against {about['b']}: {about['verdict']} ({points['estimate']:+.0f} points "
        f"[{points['low']:+.0f} to {points['high']:+.0f}], {concepts} concepts in {len(groups)} groups)."
    )
    judged = "student" if "student" in answers else arms[-1].id
    return {
        "dataset": dataset,
        "test_hash": fingerprint(examples),
        "examples": len(examples),
        "concepts": concepts,
        "groups": len(groups),
        "sampling": asdict(sampling),
        "margin": margin,
        "cards": cards,
        "pairs": pairs,
        "teacher": mean_interval([sum(of) / len(of) for of in groups.values()]).to_dict(),
        "worst": _worst({names[id]: each.frame for id, each in answers.items()}, examples, names[judged]),
        "limits": dict(limits or {}),
        "headline": [about["a"], about["b"]],
        "verdict": f"Smoke run, no result: {said}" if limits else said.capitalize(),
    }


def benchmark(
    arms: Sequence[Arm], examples: Sequence[Example], *, threshold: float = 0.8, **options: Any
) -> dict[str, Any]:
    """Models side by side, and which is good enough by a rule set beforehand.

    That is, of the best and those that can't be told from it (corrected for all pairs), the quickest whose score is
    above the `threshold` beyond doubt. One that can't be asked does not stop the rest; provider ``offline`` is a
    yardstick, what a perfect student would score. `options` are those of `asked`.
    """
    missing: dict[str, str] = {}
    answers, cards = asked(arms, examples, missing=missing, **options)
    models = sorted((c for c in cards if not c["yardstick"]), key=lambda card: -card["score"]["estimate"])
    pairs = {(a["id"], b["id"]): answers[a["id"]].against(answers[b["id"]]) for a, b in combinations(models, 2)}
    adjusted = zip(pairs.items(), holm([found.p for found in pairs.values()]), strict=True)
    verdicts = {pair: found.corrected(p).verdict for (pair, found), p in adjusted}
    rivals = [c for c in models if c is models[0] or not verdicts[models[0]["id"], c["id"]].startswith("better")]
    reach = [above(answers[c["id"]].score, threshold) for c in rivals]
    enough = [card for card, is_above in zip(rivals, reach, strict=True) if is_above]
    picked = min(enough, key=lambda card: card["seconds_per_answer"] or math.inf, default=None)
    said = {c["name"]: f"{c['name']}, scores {answers[c['id']].score}, {threshold:.2f} was asked for" for c in rivals}
    told, as_good = next((f"the best, {each}" for each in said.values()), ""), [*said][1:]
    ranked = f"; {told}, and can't be told from {', '.join(as_good)}" if as_good else ""
    if not rivals:
        verdict = "No model could be asked."
    elif picked:
        speed = "quickest" if as_good else "best"
        verdict = f"Good enough and {speed}: {said[picked['name']]}{ranked}."
    elif None in reach:
        verdict = f"Whether any is good enough can't be told{ranked or f': {told}'}: ask more questions."
    else:
        verdict = f"None is good enough: {told}: optimise its prompt, or teach it."
    return {
        "threshold": threshold,
        "cards": cards,
        "not_measured": missing,
        "verdict": verdict,
        "picked": picked and picked["name"],
    }


def compare(pairs: Mapping[tuple[str, str], Paired], *, concepts: int) -> list[dict[str, Any]]:
    """A row for each paired comparison, corrected for their number; `concepts` stand behind the groups."""
    adjusted = holm([found.p for found in pairs.values()])
    return [
        {name: getattr(found, name) for name in ("p", "wins", "ties", "losses")}
        | {"a": a, "b": b, "difference": found.difference.to_dict(), "p_holm": p_holm}
        | {"verdict": verdict(found.corrected(p_holm), concepts=concepts)}
        for ((a, b), found), p_holm in zip(pairs.items(), adjusted, strict=True)
    ]


def verdict(found: Paired, *, concepts: int) -> str:
    """The word for a difference (`Paired.verdict`), and where it can't be told (always with fewer than `FEWEST`
    concepts), about how many items it would need."""
    if concepts >= FEWEST and found.verdict != CANT_TELL:
        return found.verdict
    needed = max(found.needed() * concepts / found.difference.n, FEWEST, concepts + 1)
    return f"{CANT_TELL}: needs about {10 * math.ceil(needed / 10):,} items"


def power_table(groups: int) -> pd.DataFrame:
    """The chance to find a true difference, by number of groups, before anything is asked; ``detectable`` is the one
    that is found with 80 % power, and the examination's own row is marked in ``this one``."""
    rows = [
        {"groups": n, "this one": n == groups, "detectable": detectable_difference(SPREAD, n)}
        | {f"{points} points": paired_power(points / 100, SPREAD, n) for points in (2, 5, 10, 20)}
        for n in sorted({30, 50, 100, 200, 400, 600, 1000, groups})
    ]
    return pd.DataFrame(rows)


def fingerprint(examples: Sequence[Example]) -> str:
    """A digest of all that an examination consists of: the same hash, the same examination."""
    content = sorted(([*asdict(example).values()] for example in examples), key=str)
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def readable(spec: str) -> str:
    """How tables name a provider spec: a folder or file without the way to the project."""
    named = parse_spec(spec)
    return f"{named.provider}:{shown(resolve(named.model))}" if named.model and resolve(named.model).exists() else spec


def as_examined(provider: Provider, batch: int) -> Provider:
    """`provider` as every examination asks it: `batch` questions at once, and no penalty on the model's own words."""
    if isinstance(provider, LocalProvider):
        provider.batch_size, provider.repetition_penalty = batch, None
    return provider


def asked(
    arms: Sequence[Arm],
    examples: Sequence[Example],
    *,
    role: Role,
    connect: Connect,
    folder: Path,
    sampling: Sampling = Sampling(),
    on_progress: OnAsking | None = None,
    missing: dict[str, str] | None = None,
) -> tuple[dict[str, Answers], list[dict[str, Any]]]:
    """Every arm's answers by id, and its row. Each model is loaded once, and not at all when its answers are there.

    `folder` keeps the answers, so a stopped run goes on. Where `missing` is given, it gets the arms that can't be
    asked, with why; else the first one ends it.
    """
    names = [arm.name for arm in arms]
    if not names or len(set(names)) < len(names):
        raise InvalidInput(f"Candidates need names of their own, got {', '.join(names) or 'none'}.")
    for arm in arms:
        if arm.constrained and parse_spec(arm.model).provider != "local":
            raise InvalidInput(f"{arm.name}: only models of provider local are held to a grammar, got {arm.model!r}.")
    answers: dict[str, Answers] = {}
    rows: dict[str, dict[str, Any]] = {}
    each = len(examples) * sampling.runs
    put = partial(ask, examples=examples, role=role, sampling=sampling, folder=folder)
    for spec in dict.fromkeys(arm.model for arm in arms):
        model = identity(spec)
        with _on_demand(spec, connect, sampling.batch) as (call, load, took):
            for arm in (one for one in arms if one.model == spec):
                told = shifted(on_progress, each * (len(rows) + len(missing or ())), each * len(arms))
                own = partial(put, program=arm.program, constrained=arm.constrained)
                try:
                    found = own(call, model=model, before=load, on_progress=told)
                except (MissingDependency, Unavailable, Rejected) as error:
                    if missing is None:
                        raise
                    missing[arm.name] = str(error)
                else:
                    answers[arm.id], rows[arm.id] = found, _row(arm, found) | took
    return answers, [rows[arm.id] for arm in arms if arm.id in rows]


@contextmanager
def _on_demand(spec: str, connect: Connect, batch: int) -> Iterator[tuple[Call, Callable[[], Any], dict[str, Any]]]:
    """What asks a model, what connects it, once and not before it is needed, and what that took."""
    took: dict[str, Any] = {"load_s": None, "memory_bytes": None}
    with ExitStack() as opened:

        @cache
        def load() -> Any:
            started, connected = time.perf_counter(), opened.enter_context(closing(connect(spec)))
            if isinstance(provider := as_examined(connected.provider, batch), LocalProvider):
                loaded = provider.load()
                weights = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
                most = peak_memory_bytes(loaded.device) if loaded.device == "cuda" else None
                took.update(load_s=time.perf_counter() - started, memory_bytes=most or weights)
            return connected

        yield (lambda request: load().call(request)), load, took


def _row(arm: Arm, answers: Answers) -> dict[str, Any]:
    """What an arm achieved. ``seconds_per_answer`` has many in flight at once; ``latency_s`` is the wait of one."""
    frame, yardstick, cost = answers.frame, parse_spec(arm.model).provider == "offline", answers.total("cost_usd")
    within = frame.groupby("example")["total"].var(ddof=1).mean()  # NaN with one run
    written, busy_s = frame["completion_tokens"], answers.busy_s
    return {
        "id": arm.id,
        "name": arm.name,
        "model": readable(arm.model),
        "yardstick": yardstick,
        "score": answers.score.to_dict(),
        "validity": answers.validity.to_dict(),
        "parts": answers.parts(),
        "run_sd": None if math.isnan(within) else math.sqrt(within),
        "tokens": None if written.isna().all() else float(written.mean()),
        "tokens_per_s": answers.tokens_per_s,
        "seconds_per_answer": busy_s / len(frame) if busy_s else None,
        "latency_s": None if yardstick else float(frame["latency_s"].median()),
        "cut_off": float(frame["stop_reason"].eq("max_tokens").mean()),
        "unanswered": answers.unanswered,
        "cost_usd": None if cost is None else 1000 * cost / len(frame),
    }


def _worst(frames: Mapping[str, pd.DataFrame], examples: Sequence[Example], judged: str) -> list[dict[str, Any]]:
    """The question that arm `judged` answers worst, with what everyone said in the first run."""
    means = frames[judged].groupby("example", sort=False)["total"].mean()
    of, answers = next(example for example in examples if example.id == means.idxmin()), dict[str, Any]()
    for name, frame in frames.items():
        for row in frame[frame["example"].eq(of.id) & frame["run"].eq(0)].to_dict("records"):
            answers[name] = {"text": row["text"][:2_000], "score": row["total"], "problems": [*row["problems"]][:3]}
    asked = {"example": of.id, "question": of.question, "score": float(means.min()), "teacher": of.answer}
    return [asked | {"answers": answers}]
