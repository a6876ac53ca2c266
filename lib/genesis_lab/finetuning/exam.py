"""Who is good enough, and is a student better than its base or was it luck? The same questions for all, asked once.

The unit is the group of near-duplicate concepts: runs of a question are averaged, then the questions of a group, and
what is left is independent. Counting runs or questions as independent makes false discoveries (``benchmarks/evaluation.py``).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genesis_lab.domains.base import Example, Role
from genesis_lab.errors import InvalidInput, MissingDependency, Rejected, Unavailable
from genesis_lab.files import resolve, shown, write_atomically
from genesis_lab.finetuning.ask import Answers, OnAsking, PromptProgram, Sampling, ask, shifted
from genesis_lab.providers import parse_spec
from genesis_lab.providers.base import Completion, Provider, Request
from genesis_lab.providers.identity import identity
from genesis_lab.providers.local import LocalProvider
from genesis_lab.providers.local_models import peak_memory_bytes
from genesis_lab.stats import (
    CANT_TELL,
    POWER,
    Paired,
    above,
    detectable_difference,
    holm,
    mean_interval,
    paired_power,
)

if TYPE_CHECKING:
    import pandas as pd

Connect = Callable[[str], Any]
"""From a provider spec such as ``ollama:llama3.1:8b`` to the model with `provider`, `call` and `close`, for example
`generation.teachers.connect`."""
FEWEST = 50
"""Concepts below which nothing is called significant."""
SPREAD = 0.37
"""Standard deviation of a concept's difference that is assumed before anything is known (scores lie in [0, 1])."""
_LONGEST = 2_000


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to get answers.

    Parameters
    ----------
    id, name : what it is known by, and what tables call it.
    model : provider spec.
    program : instruction and demonstrations to ask with; None asks as the examples are taught.
    constrained : its answers are held to the role's grammar, token by token.
    """

    id: str
    name: str
    model: str
    program: PromptProgram | None = None
    constrained: bool = False


def arms(base: str, *, student: str = "", program: PromptProgram | None = None, constrained: bool = True) -> list[Arm]:
    """Base and student, as taught and with an optimised prompt, free and (models of provider ``local``) constrained.

    Raises
    ------
    InvalidInput : `student` names no model: there is no finished student of that name.
    """
    if student:
        try:
            parse_spec(student)
        except InvalidInput:
            raise InvalidInput(
                f"There is no finished student {student!r} in outputs/models: teach it with notebook 52, or name a model "
                "as local:…, ollama:…, openai:…"
            ) from None
    found = [Arm("base", "baseline", base)]
    found += [Arm("base+prompt", "optimised prompt", base, program)] if program else []
    found += [Arm("student", "fine-tuned", student)] if student else []
    found += [Arm("student+prompt", "fine-tuned, optimised prompt", student, program)] if student and program else []
    twins = [each for each in found if constrained and each.program is None and each.model.startswith("local")]
    return found + [Arm(f"{a.id}+grammar", f"{a.name} (constrained)", a.model, constrained=True) for a in twins]


def pairs_of(arms: Sequence[Arm]) -> list[tuple[str, str]]:
    """What is held against what, by id: each against the first, the student against every other way, constrained ones too."""
    ids = [arm.id for arm in arms]
    more = [("student", "base+prompt"), ("student+prompt", "student"), ("student", "base+grammar")]
    more.append(("student+grammar", "base+grammar"))
    return [(id, ids[0]) for id in ids[1:]] + [pair for pair in more if set(pair) <= set(ids)]


def hold(
    arms: Sequence[Arm],
    examples: Sequence[Example],
    *,
    role: Role,
    connect: Connect,
    folder: Path,
    dataset: str,
    taught: Sequence[Example] = (),
    sampling: Sampling = Sampling(),
    margin: float = 0.05,
    limits: Mapping[str, Any] | None = None,
    worst: int = 5,
    on_progress: OnAsking | None = None,
) -> dict[str, Any]:
    """Ask every arm, compare them in pairs (`pairs_of`), and say what that shows.

    Parameters
    ----------
    folder : where answers are kept; a stopped run goes on, also in another notebook.
    taught : what the student learned and was chosen on; none of its groups may be examined.
    margin : the smallest difference in score that matters.
    limits : what made this a smoke run.

    Returns
    -------
    The report: a row per arm in ``cards``, one per pair in ``pairs`` (see `compare`), the pair that the ``verdict`` is
    about as ``headline``, the score of the ``teacher``'s own answers, and the questions answered ``worst``.

    Raises
    ------
    InvalidInput : fewer than two arms, two of the same name, a constrained one where nothing enforces a grammar, a
        model that can't be used as it is, or a concept that was taught is examined.
    ProviderError : a model refuses every question.
    """
    if len(arms) < 2:
        raise InvalidInput(f"A comparison needs at least two candidates, got {len(arms)}.")
    if leaked := {example.group for example in taught} & {example.group for example in examples}:
        raise InvalidInput(
            f"{len(leaked)} groups of concepts are both taught and examined, for example {min(leaked)!r}: "
            "an examination needs concepts that the student never saw."
        )
    answers, cards = _asked(arms, examples, role, connect, folder, sampling, on_progress)
    concepts, names = len({example.question for example in examples}), {arm.id: arm.name for arm in arms}
    held = pairs_of(arms)
    found = {(names[a], names[b]): answers[a].against(answers[b], margin=margin) for a, b in held}
    pairs = compare(found, concepts=concepts)
    about = pairs[held.index(("student", "base")) if ("student", "base") in held else 0]
    groups: dict[str, list[float]] = {}
    for example in examples:
        groups.setdefault(example.group, []).append(role.score(example.answer, example).total)
    d = about["difference"]
    said = (
        f"{about['a']} against {about['b']}: {about['verdict']} ({100 * d['estimate']:+.0f} points "
        f"[{100 * d['low']:+.0f} to {100 * d['high']:+.0f}], {concepts} concepts in {len(groups)} groups)."
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
        "teacher": mean_interval([sum(of) / len(of) for of in groups.values()]).to_dict(),
        "cards": cards,
        "pairs": pairs,
        "worst": _worst({names[id]: each.frame for id, each in answers.items()}, examples, names[judged], worst),
        "limits": dict(limits or {}),
        "verdict": f"Smoke run, no result: {said}" if limits else said.capitalize(),
        "headline": [about["a"], about["b"]],
    }


def headline(report: Mapping[str, Any]) -> dict[str, Any]:
    """The pair that the verdict of an examination is about."""
    return next(pair for pair in report["pairs"] if [pair["a"], pair["b"]] == list(report["headline"]))


def benchmark(
    arms: Sequence[Arm],
    examples: Sequence[Example],
    *,
    role: Role,
    connect: Connect,
    folder: Path,
    threshold: float = 0.8,
    sampling: Sampling = Sampling(),
    on_progress: OnAsking | None = None,
) -> dict[str, Any]:
    """Models side by side, and which of them is good enough by a rule set beforehand; see `hold` for errors.

    Of the model with the highest score and those that can't be told from it (each pair compared, corrected for all
    pairs: which one is best was seen first), those whose score is above the threshold beyond doubt are good enough; the
    quickest is picked. One that can't be asked (not installed, not reachable) does not stop the rest. An arm of
    provider ``offline`` is a yardstick: what a perfect student would score, not a model to choose.

    Parameters
    ----------
    threshold : the score from which a model is good enough; to be chosen before looking.

    Returns
    -------
    A row per arm in ``cards``; ``best``, ``as_good`` and ``picked`` by name, the ``verdict`` in one sentence, and
    ``not_measured``: what could not be asked, with why.
    """
    missing: dict[str, str] = {}
    answers, cards = _asked(arms, examples, role, connect, folder, sampling, on_progress, missing)
    models = sorted((c for c in cards if not c["yardstick"]), key=lambda card: -card["score"]["estimate"])
    pairs = {(a["id"], b["id"]): answers[a["id"]].against(answers[b["id"]]) for a, b in combinations(models, 2)}
    adjusted = zip(pairs.items(), holm([found.p for found in pairs.values()]), strict=True)
    compared = {b: d.corrected(p) for (a, b), d, p in ((*each, p) for each, p in adjusted) if a == models[0]["id"]}
    as_good = [c for c in models[1:] if not compared[c["id"]].verdict.startswith("better")]
    rivals = [*models[:1], *as_good]
    scored = {card["name"]: answers[card["id"]].score for card in rivals}
    enough = [card for card in rivals if above(scored[card["name"]], threshold)]
    picked = min(enough, key=lambda card: card["seconds_per_answer"] or math.inf, default=None)
    best, others = next(iter(scored), None), ", ".join(card["name"] for card in as_good)
    wanted = f"{threshold:.2f} was asked for"
    ranked = f"; the best, {best}, can't be told from {others}" if others else ""
    if best is None:
        verdict = "No model could be asked."
    elif picked:
        quick, name = picked["seconds_per_answer"], picked["name"]
        word = "and quickest" if others and quick else "and best"
        speed = "" if quick else ", speed not known"
        verdict = f"Good enough {word}: {name} (score {scored[name]}{speed}; {wanted}){ranked}."
    elif any(above(score, threshold) is None for score in scored.values()):
        told = f"{best} scores {scored[best]}, {wanted}{ranked}"
        verdict = f"Whether any is good enough can't be told: {told}: ask more questions."
    else:
        told = f"the best, {best}, scores {scored[best]}, and {wanted}"
        verdict = f"None is good enough: {told}: optimise its prompt, or teach it."
    return {
        "examples": len(examples),
        "groups": len({example.group for example in examples}),
        "sampling": asdict(sampling),
        "threshold": threshold,
        "cards": cards,
        "not_measured": missing,
        "verdict": verdict,
        "picked": picked["name"] if picked else None,
        "best": best,
        "as_good": [card["name"] for card in as_good],
    }


def compare(pairs: Mapping[tuple[str, str], Paired], *, concepts: int) -> list[dict[str, Any]]:
    """A row for each paired comparison of `a` with `b`, corrected for their number; `concepts` stand behind the groups.

    ``p`` is of the sign-flip test and ``p_holm`` corrected; ``detectable`` is the true difference that so many groups
    with such a spread find with 80 % power.
    """
    adjusted = holm([found.p for found in pairs.values()])
    return [
        {
            "a": a,
            "b": b,
            "difference": found.difference.to_dict(),
            "p": found.p,
            "p_holm": p_holm,
            "wins": found.wins,
            "ties": found.ties,
            "losses": found.losses,
            "detectable": detectable_difference(found.spread, found.difference.n, POWER),
            "verdict": verdict(found.corrected(p_holm), concepts=concepts),
        }
        for ((a, b), found), p_holm in zip(pairs.items(), adjusted, strict=True)
    ]


def verdict(found: Paired, *, concepts: int) -> str:
    """The word for a difference (`Paired.verdict`), and where it can't be told, about how many items it would need.

    With fewer than `FEWEST` concepts nothing can be told.
    """
    if concepts >= FEWEST and found.verdict != CANT_TELL:
        return found.verdict
    per_group = concepts / found.difference.n
    needed = max(found.needed() * per_group, FEWEST, concepts + 1)
    return f"{CANT_TELL}: needs about {10 * math.ceil(needed / 10):,} items"


def power_table(
    groups: int, *, spread: float = SPREAD, differences: Sequence[float] = (0.02, 0.05, 0.1, 0.2)
) -> pd.DataFrame:
    """What an examination can find, before it is held: the chance to find a true difference, by number of groups.

    ``detectable`` is the difference that is found with 80 % power. The examination's own row is marked in ``this one``.
    """
    import pandas as pd

    rows = [
        {"groups": n, "this one": n == groups, "detectable": detectable_difference(spread, n, POWER)}
        | {f"{100 * d:g} points": paired_power(d, spread, n) for d in differences}
        for n in sorted({30, 50, 100, 200, 400, 600, 1000, groups})
    ]
    return pd.DataFrame(rows)


def fingerprint(examples: Sequence[Example]) -> str:
    """A digest of all that an examination consists of: the same hash, the same examination."""
    content = [[e.id, e.group, e.language, e.system, e.question, e.answer, dict(e.facts)] for e in examples]
    text = json.dumps(sorted(content, key=lambda e: str(e[0])), sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def readable(spec: str) -> str:
    """How tables name a provider spec: a folder or file without the way to the project."""
    named = parse_spec(spec)
    return f"{named.provider}:{shown(resolve(named.model))}" if named.model and resolve(named.model).exists() else spec


def as_examined(provider: Provider, batch: int) -> Provider:
    """`provider` as every examination asks it: `batch` questions at once, and the model's own words, no penalty on them."""
    if isinstance(provider, LocalProvider):
        provider.batch_size = batch
        provider.repetition_penalty = None
    return provider


def _asked(
    arms: Sequence[Arm],
    examples: Sequence[Example],
    role: Role,
    connect: Connect,
    folder: Path,
    sampling: Sampling,
    on_progress: OnAsking | None,
    missing: dict[str, str] | None = None,
) -> tuple[dict[str, Answers], list[dict[str, Any]]]:
    """Every arm's answers by id, and its row. Each model is loaded once, and not at all when its answers are there.

    Where `missing` is given, it gets the arms that can't be asked, with why; else the first one ends it.
    """
    names = [arm.name for arm in arms]
    if not names or len(set(names)) < len(names):
        raise InvalidInput(f"Candidates need names of their own, got {', '.join(names) or 'none'}.")
    for arm in arms:
        if arm.constrained and parse_spec(arm.model).provider != "local":
            raise InvalidInput(f"{arm.name}: only models of provider local are held to a grammar, got {arm.model!r}.")
    answers: dict[str, Answers] = {}
    rows: dict[str, dict[str, Any]] = {}
    for spec in dict.fromkeys(arm.model for arm in arms):
        model = identity(spec)
        file = folder / f"{re.sub(r'[^A-Za-z0-9.]+', '-', model)}.json"
        with closing(_Lazily(spec, connect, sampling.batch, file)) as lazily:
            for arm in (each for each in arms if each.model == spec):
                try:
                    found = ask(
                        lazily.call, examples, role=role, model=model, sampling=sampling, program=arm.program,
                        constrained=arm.constrained, folder=folder, before=lazily.load,
                        on_progress=shifted(on_progress, len(rows) + len(missing or ()), len(arms)),
                    )  # fmt: skip
                except (MissingDependency, Unavailable, Rejected) as error:
                    if missing is None:
                        raise
                    missing[arm.name] = str(error)
                else:
                    answers[arm.id], rows[arm.id] = found, _row(arm, found, lazily.facts())
    return answers, [rows[arm.id] for arm in arms if arm.id in rows]


class _Lazily:
    """A model that is loaded when there is something to ask it; `file` keeps what that took for when there is not."""

    def __init__(self, spec: str, connect: Connect, batch: int, file: Path) -> None:
        self._spec, self._connect, self._batch, self._file = spec, connect, batch, file
        self._connected: Any = None

    def load(self) -> None:
        if self._connected:
            return
        started = time.perf_counter()
        self._connected = self._connect(self._spec)
        provider = as_examined(self._connected.provider, self._batch)
        facts: dict[str, Any] = {"load_s": None, "memory_bytes": None}
        if isinstance(provider, LocalProvider):
            loaded = provider.load()
            weights = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
            peak = peak_memory_bytes(loaded.device) if loaded.device == "cuda" else None
            facts = {"load_s": time.perf_counter() - started, "memory_bytes": peak or weights}
        write_atomically(self._file, json.dumps(facts) + "\n")

    def call(self, request: Request) -> Completion:
        answer: Completion = self._connected.call(request)
        return answer

    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8")) if self._file.exists() else {}
        return found

    def close(self) -> None:
        if self._connected:
            self._connected.close()


def _row(arm: Arm, answers: Answers, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What an arm achieved. ``seconds_per_answer`` has many in flight at once, ``latency_s`` is what one of them waits."""
    frame, yardstick, cost = answers.frame, parse_spec(arm.model).provider == "offline", answers.cost_usd
    within = frame.groupby("example")["total"].var(ddof=1).mean()  # NaN with one run
    written = frame["completion_tokens"]
    busy_s = written.sum() / answers.tokens_per_s if answers.tokens_per_s else None
    return {
        "id": arm.id,
        "name": arm.name,
        "model": readable(arm.model),
        "prompt": "optimised" if arm.program else "as taught",
        "constrained": arm.constrained,
        "yardstick": yardstick,
        "answers": len(frame),
        "score": answers.score.to_dict(),
        "validity": answers.validity.to_dict(),
        "parts": answers.parts(),
        "run_sd": None if math.isnan(within) else math.sqrt(within),
        "tokens": None if written.isna().all() else float(written.mean()),
        "tokens_per_s": answers.tokens_per_s,
        "seconds_per_answer": float(busy_s) / len(frame) if busy_s else None,
        "latency_s": None if yardstick else float(frame["latency_s"].median()),
        "load_s": facts.get("load_s"),
        "cut_off": float(frame["stop_reason"].eq("max_tokens").mean()),
        "unanswered": answers.unanswered,
        "memory_bytes": facts.get("memory_bytes"),
        "cost_usd": None if cost is None else 1000 * cost / len(frame),
    }


def _worst(
    frames: Mapping[str, pd.DataFrame], examples: Sequence[Example], judged: str, most: int
) -> list[dict[str, Any]]:
    """The questions that arm `judged` answers worst, with what everyone said in the first run."""
    means = frames[judged].groupby("example", sort=False)["total"].mean()
    first = {name: frame[frame["run"] == 0].set_index("example") for name, frame in frames.items()}
    by_id = {example.id: example for example in examples}
    return [
        {
            "example": id,
            "question": by_id[id].question,
            "score": float(means[id]),
            "teacher": by_id[id].answer,
            "answers": {
                name: {
                    "text": frame.loc[id, "text"][:_LONGEST],
                    "score": float(frame.loc[id, "total"]),
                    "problems": list(frame.loc[id, "problems"])[:3],
                }
                for name, frame in first.items()
                if id in frame.index
            },
        }
        for id in means.sort_values(kind="stable").index[:most]
    ]
