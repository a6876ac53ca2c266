"""A teacher's part of a run: what is left to it, what came of it, and how that is told: while it runs, and for good."""

from __future__ import annotations

import math
import re
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from genesis_lab.domains.base import Answer, Domain, Message, Spec
from genesis_lab.errors import GenesisError, Incomplete
from genesis_lab.generation.batch import Batches
from genesis_lab.generation.plan import Plan
from genesis_lab.generation.teachers import Teacher
from genesis_lab.providers.asking import Asking
from genesis_lab.providers.base import Usage, request_key, total_cost

TOKENS = tuple(Usage.__dataclass_fields__)
"""What is counted of an answer, in the order in which the journal keeps it."""
REPAIRS = 2
"""Times a model is told what was wrong with its answer before a fresh candidate is tried."""
HOPELESS, HOPELESS_LATER = 20, 60
"""A teacher is stopped when so many requests in a row came to nothing: its first ones, or later ones, when single records
may be impossible."""


@dataclass(frozen=True)
class Task:
    """One request to be: for one record, or for a list of those of one `key` (None: not a list), beside those `known`.

    Every third of its `tries` begins anew, the others tell what was wrong (`dialogue`); it uses up so many fresh `candidates`.
    """

    specs: tuple[Spec, ...]
    tries: int = 0
    dialogue: tuple[Message, ...] = ()
    key: str | None = None
    known: tuple[Answer, ...] = ()
    candidates: int = 1


@dataclass
class Lane:
    """A teacher's part of a run.

    `later` are fresh candidates for records that failed, which wait till all others are done; `resumed` is what an earlier
    session had accepted. Of the answers are kept tokens (`usage`), how many were `uncounted`, what was `not_sent` and what is
    wrong with them (`notes`). `ended` says why the teacher stopped, `closed` that nothing more is asked of it, `fruitless` why
    each request since the last record came to nothing (`said`: in words); `note` is what its `batches` are at.
    """

    teacher: Teacher
    todo: deque[Task] = field(default_factory=deque)
    later: list[Task] = field(default_factory=list)
    total: int = 0
    candidates_left: int = 0
    in_flight: int = 0
    accepted: int = 0
    resumed: int = 0
    attempts: int = 0
    usage: list[int] = field(default_factory=lambda: [0] * len(TOKENS))
    uncounted: int = 0
    cost_usd: float | None = 0.0
    not_sent: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    ended: GenesisError | None = None
    closed: bool = False
    fruitless: Counter[str] = field(default_factory=Counter)
    said: dict[str, str] = field(default_factory=dict)
    in_a_row: int = 0
    batches: Batches | None = None
    note: str = ""

    def charge(self, line: Mapping[str, Any]) -> None:
        """One more answer, as the journal keeps it."""
        self.attempts += 1
        if usage := line.get("usage", ()):
            self.usage = [a + b for a, b in zip(self.usage, usage, strict=True)]
        self.uncounted += usage is None
        self.cost_usd = total_cost((self.cost_usd, line.get("cost_usd", 0.0)))
        self.not_sent.update(line.get("not_sent", ()))
        if note := line.get("note"):
            self.notes[re.sub(r"\d[\d,]*", "#", note)] += 1

    def next(self) -> Task | None:
        """The next task, unless there is none, the candidate budget is used up, or the teacher has stopped for good."""
        if self.ended or not self.todo or (self.candidates_left <= 0 and self.todo[0].candidates):
            return None
        task = self.todo.popleft()
        self.candidates_left -= task.candidates
        return task

    def put_back(self, task: Task) -> None:
        """The task was not answered, through no fault of its own."""
        self.todo.append(task)
        self.candidates_left += task.candidates

    def refill(self) -> bool:
        """Begin with the `later` ones; whether there are any."""
        waited, self.later = self.later, []
        self.todo.extend(sorted(waited, key=lambda task: task.specs[0].index))
        return bool(waited)

    @property
    def has_room(self) -> bool:
        """Whether another task is worth a thread."""
        scheduler, width = self.teacher.scheduler, self.teacher.provider.concurrency
        return self.in_flight < width and (scheduler is None or scheduler.ledger.wants_more(self.in_flight))

    def stop(self) -> None:
        """Let what is in flight finish; batch jobs run on."""
        self.teacher.stop()
        if self.batches:
            self.batches.stop()

    def end(self, error: GenesisError) -> None:
        """The teacher can't go on; what it has in flight is still taken."""
        self.ended = self.ended or error
        self.stop()

    def came(self, wrong: Mapping[str, str], *, used: bool) -> None:
        """A request was answered, of `used` or not, for reasons (kind to the full words); too many in a row end the teacher."""
        if used:
            self.fruitless.clear()
            self.in_a_row = 0
            return
        self.fruitless.update(list(wrong))
        self.said |= wrong
        self.in_a_row += 1
        if self.in_a_row < (HOPELESS_LATER if self.accepted else HOPELESS) or self.ended:
            return
        kind, times = self.fruitless.most_common(1)[0]
        which, advice = "first", " Mend that or choose another model, then run the same again."
        if self.accepted:
            which, advice = "last", ""
        said = f"The {which} {self.in_a_row} requests to {self.teacher.name} came to nothing"
        self.end(Incomplete(f"{said}, {times} of them because: {self.said[kind].rstrip('.')}.{advice}"))

    def rate(self, elapsed_s: float) -> float:
        """Records per second of this session."""
        return (self.accepted - self.resumed) / max(elapsed_s, 1e-9)

    def eta_s(self, elapsed_s: float) -> float | None:
        """Seconds until its part is done; None if unknown."""
        rate, left = self.rate(elapsed_s), self.total - self.accepted
        return left / rate if rate and not self.note else None if left else 0.0

    @property
    def quota(self) -> str:
        """What its jobs are at, what is wrong with its answers, or how its quota is used."""
        scheduler = self.teacher.scheduler
        return self.note or next(iter(self.notes), scheduler.standing if scheduler else "")

    def line(self, elapsed_s: float) -> str:
        """``bedrock:…: 412 of 770 · 97% of … · $0.12 · 3 min left``."""
        usd, eta_s = self.cost_usd, self.eta_s(elapsed_s)
        cost = "cost unknown" if usd is None else f"${usd:,.2f}" if usd >= 0.005 else ""
        left = "stopped" if self.ended else f"{math.ceil(eta_s / 60):,} min left" if eta_s else ""
        done = f"{self.teacher.name}: {self.accepted:,} of {self.total:,}"
        return " · ".join(filter(None, (done, self.quota, cost, left)))


def progress(lanes: Sequence[Lane], rejected: int, elapsed_s: float) -> Asking:
    """Where a run stands after `elapsed_s` seconds of this session; a line for each teacher, of a single one only its quota."""
    left = [lane.eta_s(elapsed_s) for lane in lanes if not lane.ended]
    cost_usd = total_cost(lane.cost_usd for lane in lanes)
    details = [lane.line(elapsed_s) for lane in lanes]
    if len(lanes) == 1:
        details = [" · ".join(filter(None, (lanes[0].quota, "" if cost_usd is not None else "cost unknown")))]
    return Asking(
        done=sum(lane.accepted for lane in lanes),
        total=sum(lane.total for lane in lanes),
        rejected=rejected,
        rate=sum(lane.rate(elapsed_s) for lane in lanes),
        eta_s=None if None in left else max(filter(None, left), default=0.0 if left else None),
        cost_usd=cost_usd,
        details=tuple(filter(None, details)),
    )


def run_header(plan: Plan, domain: Domain, teachers: Sequence[Teacher], sampling: dict[str, Any]) -> dict[str, Any]:
    """What must be the same for a run to go on; the order of teachers is no matter."""
    teachers = sorted(teachers, key=lambda teacher: teacher.name)
    header = {
        "domain": domain.name,
        "schema_version": domain.version,
        "prompt_version": domain.prompt_version,
        "total": len(plan.specs),
        "seed": plan.seed,
        "provider": ", ".join(dict.fromkeys(t.provider.name for t in teachers)),
        "model": ", ".join(dict.fromkeys(t.provider.model for t in teachers)),
        "sampling": sampling,
        "plan_hash": plan.hash,
    }
    if weights := [t.identity for t in teachers if t.provider.name == "local"]:
        header["weights"] = ", ".join(weights)
    header["knowledge"] = knowledge = dict(domain.knowledge())
    options = domain.config.model_dump(mode="json", exclude=set(knowledge))
    header["options"] = {name: value for name, value in options.items() if header.get(name) != value}
    if len(teachers) > 1:
        whole = sum(t.share for t in teachers)
        header["teachers"] = {t.name: round(t.share / whole, 6) for t in teachers}
    return header


def run_manifest(
    header: dict[str, Any],
    config: dict[str, Any],
    plan: Plan,
    lanes: Sequence[Lane],
    drops: Counter[str],
    scores: Mapping[float, int],
) -> dict[str, Any]:
    """The account of a run, in all and by teacher; ``learned`` is what refusals told of quotas that nobody did."""
    manifest = {
        "generation": header,
        "config": config,
        "config_hash": request_key(header),
        "plan": plan.counts(),
        "complete": all(lane.accepted == lane.total for lane in lanes),
        "drop_reasons": dict(sorted(drops.items(), key=lambda drop: (-drop[1], drop[0]))),
        **_counts(lanes),
    }
    if len(lanes) > 1:
        manifest["teachers"] = [
            {"teacher": lane.teacher.name, "share": header["teachers"][lane.teacher.name], "accepted": lane.accepted}
            | _counts([lane])
            for lane in lanes
        ]
    learned = {lane.teacher.name: lane.teacher.scheduler.ledger.learned() for lane in lanes if lane.teacher.scheduler}
    if any(learned.values()):
        manifest["learned"] = {name: found for name, found in learned.items() if found}
    if scores:
        manifest["rejected_scores"] = {f"{score:g}": n for score, n in sorted(scores.items())}
    return manifest


def _counts(lanes: Sequence[Lane]) -> dict[str, Any]:
    """What is missing; tokens of the answers that were counted; what was not sent as asked, and what was wrong; the cost."""
    uncounted = sum(lane.uncounted for lane in lanes)
    usage = [sum(each) for each in zip(*(lane.usage for lane in lanes), strict=True)]
    not_sent, notes = (dict(sum((getattr(lane, what) for lane in lanes), Counter())) for what in ("not_sent", "notes"))
    said = {"answers_without_usage": uncounted, "not_sent": not_sent, "notes": notes}
    return {
        "missing": sum(lane.total - lane.accepted for lane in lanes),
        "attempts": sum(lane.attempts for lane in lanes),
        "usage": None if uncounted and not any(usage) else dict(zip(TOKENS, usage, strict=True)),
        **{name: value for name, value in said.items() if value},
        "cost_usd": total_cost(lane.cost_usd for lane in lanes),
    }


def stopped(lanes: Sequence[Lane]) -> GenesisError:
    """The error that ends a run in which teachers stopped for good."""
    ended = [lane for lane in lanes if lane.ended]
    if len(lanes) == 1 and ended[0].ended:
        return ended[0].ended
    said = " ".join(
        f"Teacher {lane.teacher.name} stopped with {lane.total - lane.accepted:,} of its {lane.total:,} records missing: "
        f"{str(lane.ended).rstrip('.')}."
        for lane in ended
    )
    others = "The others have done their part, and everything" if len(ended) < len(lanes) else "Everything"
    return GenesisError(f"{said} {others} so far is saved: run the same again to go on.")
