"""The state of a run: what the lines of its journal say, what is to be asked of each teacher next, and the account."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from genesis_lab.domains.base import Answer, Domain, Message, Spec
from genesis_lab.errors import GenesisError, Incomplete
from genesis_lab.generation.batch import Batches
from genesis_lab.generation.journal import Journal
from genesis_lab.generation.plan import Plan
from genesis_lab.generation.teachers import Teacher, divide
from genesis_lab.providers.asking import Asking
from genesis_lab.providers.base import Usage, request_key, total_cost

TOKENS = tuple(Usage.__dataclass_fields__)
"""What is counted of an answer, in the order in which the journal keeps it."""
REPAIRS = 2
"""Times a model is told what was wrong with its answer before a fresh candidate is tried."""
HOPELESS, HOPELESS_LATER = 20, 60
"""A teacher is stopped when so many requests in a row came to nothing: its first ones, or later ones, when single
records may be impossible."""


@dataclass(frozen=True)
class Task:
    """One request to be: for one record, or for a list of those of one `key` (None: not a list), beside those `known`.

    Every third of its `tries` begins anew, the others tell what was wrong (`dialogue`). It uses up so many fresh
    `candidates`.
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

    `later` are fresh candidates for records that failed, which wait till all others are done; `resumed` is what an
    earlier session had accepted. Of the answers are kept tokens (`usage`), how many were `uncounted`, what was
    `not_sent` and what is wrong with them (`notes`). `ended` says why the teacher stopped, `closed` that nothing more
    is asked of it, `fruitless` why each request since the last record came to nothing (`said`: in words); `note` is what
    its `batches` are at.
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
        if (cost_usd := line.get("cost_usd", 0.0)) != 0.0:
            self.cost_usd = total_cost((self.cost_usd, cost_usd))
        for name in line.get("not_sent", ()):
            self.not_sent[name] += 1
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
        """A request was answered, `used` or not for what is `wrong` (kind to words); too many in a row end it."""
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

    @property
    def quota(self) -> str:
        """What its jobs are at, what is wrong with its answers, or how its quota is used."""
        scheduler = self.teacher.scheduler
        return self.note or next(iter(self.notes), scheduler.standing if scheduler else "")


class State:
    """Where a run stands. A line is applied in the same way when it is written and when a run is taken up again.

    Where a domain lets a model write lists, the records of each key come about in a chain: one request asks for the
    first that are left of it and shows those that are there, and what comes of it decides the next. So a request hangs
    on nothing but earlier answers of its own key.

    `accepted` has the spec index with the byte offset of its journal line, `holders` fingerprint and spec index of the
    record that has it, `drops` and `scores` how often a reason, or the score of an answer, stood against its use.
    """

    def __init__(
        self, plan: Plan, domain: Domain, teachers: Sequence[Teacher], journal: Journal, candidate_budget: float
    ) -> None:
        self.plan, self.domain, self.journal = plan, domain, journal
        self.accepted: dict[int, int] = {}
        self.drops, self.scores = Counter[str](), Counter[float]()
        self.holders: dict[str, int] = {}
        self._tries: dict[int | str, tuple[int, Sequence[Message]]] = {}
        """Index or key of what came to nothing to `tries` and `dialogue` of its next task."""
        self._chains: dict[str, list[int]] = {}
        """Key to the indices of its records; `_answers` are those there, which the next list must not repeat."""
        self._answers: dict[int, Answer] = {}
        self.refused = Counter[int]()
        """Spec index to how often it was refused in a list of which other records were used."""
        lanes = {teacher.name: Lane(teacher) for teacher in teachers}
        self.lanes = list(lanes.values())
        self.lane_of = [lanes[name] for name in divide(plan, teachers)]
        self._key_of: list[str | None] = [None] * len(plan.specs)
        if domain.list_size > 1 and not all(teacher.provider.free for teacher in teachers):
            for spec in plan.specs:
                key = domain.list_key(spec)
                self._chains.setdefault(key, []).append(spec.index)
                self._key_of[spec.index] = None if self.lane_of[spec.index].teacher.provider.free else key
        for offset, line in journal.entries():
            self._apply(line, offset)
        for index, lane in enumerate(self.lane_of):
            lane.total += 1
            if index not in self.accepted and self._key_of[index] is None:
                lane.todo.append(self._task(index))
        for lane in self.lanes:
            lane.resumed = lane.accepted
            lane.candidates_left += math.ceil(lane.total * candidate_budget) + 20 - lane.accepted

    def item(self, task: Task, spec: Spec, answer: Answer, others: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        """What the journal keeps of an answer; None if it says the same as a record that goes before it.

        A list goes after all that is there and after `others`, its own earlier lines; else the plan's order counts.
        """
        words = self.domain.fingerprint(answer, spec).encode("utf-8", "surrogatepass")
        fingerprint = hashlib.blake2b(words, digest_size=10).hexdigest()
        holder = self.holders.get(fingerprint)
        if task.key is not None and (holder is not None or any(fingerprint == o.get("fingerprint") for o in others)):
            return None
        if holder is not None and holder < spec.index:
            return None
        return {"index": spec.index, "fingerprint": fingerprint, "answer": answer}

    def write(self, line: dict[str, Any]) -> None:
        """Journal a line, apply it, and put what follows from it into the teacher's queue."""
        name = self._apply(line, self.journal.append(line))
        if isinstance(name, str):
            self._follow(name)
        elif name not in self.accepted:
            task, lane = self._task(name), self.lane_of[name]
            (lane.later.append if task.candidates else lane.todo.appendleft)(task)

    def _apply(self, line: dict[str, Any], offset: int) -> int | str:
        """Take what a line of the journal says into account; returns the index or key that it is about."""
        items: list[dict[str, Any]] = line["specs"]
        first: int = items[0]["index"]
        lane, key = self.lane_of[first], self._key_of[first]
        name = first if key is None else key
        if line["kind"] == "attempt":
            lane.charge(line)
            if "score" in line:
                self.scores[line["score"]] += 1
        used = False
        for item in items:
            index = item["index"]
            if "answer" in item:
                used = True
                lane.accepted += 1
                self.accepted[index] = offset
                self.holders[item["fingerprint"]] = index
                if self._chains:
                    self._answers[index] = item["answer"]
                continue
            self.drops.update(item["reasons"])
            if "fingerprint" in item:  # it was accepted, and is no more
                lane.accepted -= 1
                del self.holders[item["fingerprint"]], self.accepted[index]
        if used:
            self._tries.pop(name, None)
            if len(items) > 1:
                self.refused.update(item["index"] for item in items if "reasons" in item)
        else:
            self._tries[name] = (line["tries"], [(who, text) for who, text in line["dialogue"]])
        return name

    def _task(self, index: int) -> Task:
        """The task of a record that is asked for on its own."""
        tries, dialogue = self._tries.get(index, (0, ()))
        return Task((self.plan.specs[index],), tries, tuple(dialogue), candidates=not tries % (REPAIRS + 1))

    def _follow(self, key: str) -> bool:
        """Ask for the next list of a chain, by the teacher of the first record that is left of it; whether one is."""
        left = [i for i in self._chains[key] if i not in self.accepted and self._key_of[i] is not None]
        first = next((self.lane_of[i] for i in left if not self.lane_of[i].closed), None)
        if first is None:
            return False
        asked = [i for i in left if self.lane_of[i] is first][: self.domain.list_size]
        known = tuple(self._answers[i] for i in self._chains[key] if i in self.accepted)
        tries, dialogue = self._tries.get(key, (0, ()))
        fresh = 0 if tries % (REPAIRS + 1) else sum(self.refused[i] % (REPAIRS + 1) == 0 for i in asked)
        first.todo.append(Task(tuple(self.plan.specs[i] for i in asked), tries, tuple(dialogue), key, known, fresh))
        return True

    def begin_lists(self) -> bool:
        """Ask for the next list of each chain, where nobody is at it: at first, and if its teacher can't go on."""
        for lane in self.lanes:
            if stuck := [task.key for task in lane.todo if task.key is not None]:
                lane.closed = True
                lane.todo.clear()
            for key in stuck:
                self._tries.pop(key, None)
        begun = [self._follow(key) for key in self._chains]
        return any(begun)


# --- the account of a run ---------------------------------------------------------------------------------------------


def progress(lanes: Sequence[Lane], rejected: int, elapsed_s: float) -> Asking:
    """Where a run stands after `elapsed_s` seconds of this session; a line for each teacher, of only one its quota."""
    details, rate, left_s = [], 0.0, list[float | None]()
    for lane in lanes:
        lane_rate, left = (lane.accepted - lane.resumed) / max(elapsed_s, 1e-9), lane.total - lane.accepted
        rate += lane_rate
        if left and not lane.ended:
            left_s.append(left / lane_rate if lane_rate and not lane.note else None)
        stood = f"{lane.teacher.name}: {lane.accepted:,} of {lane.total:,}" + ", stopped" * bool(lane.ended)
        cost = "cost unknown" if lane.cost_usd is None else ""
        details.append(" · ".join(filter(None, (stood if len(lanes) > 1 else "", lane.quota, cost))))
    return Asking(
        done=sum(lane.accepted for lane in lanes),
        total=sum(lane.total for lane in lanes),
        rejected=rejected,
        rate=rate,
        eta_s=None if None in left_s else max(filter(None, left_s), default=0.0),
        cost_usd=total_cost(lane.cost_usd for lane in lanes),
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
    """What is missing; tokens of answers that were counted; what was not sent as asked; what was wrong; the cost."""
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
        f"Teacher {lane.teacher.name} stopped with {lane.total - lane.accepted:,} of its {lane.total:,} records "
        f"missing: {str(lane.ended).rstrip('.')}."
        for lane in ended
    )
    others = "The others have done their part, and everything" if len(ended) < len(lanes) else "Everything"
    return GenesisError(f"{said} {others} so far is saved: run the same again to go on.")
