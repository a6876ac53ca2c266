"""A teacher's part of a run: what is left to it, what came of it, and how that is told while it runs."""

from __future__ import annotations

import math
import re
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from genesis_lab.domains.base import Message, Spec
from genesis_lab.errors import GenesisError, Incomplete
from genesis_lab.generation.batch import Batches
from genesis_lab.generation.teachers import Teacher
from genesis_lab.providers.base import Usage, total_cost

REPAIRS = 2
"""Times a model is told what was wrong with its answer before a fresh candidate is tried."""
HOPELESS = 20
"""A teacher is stopped when its first so many different requests came to nothing, rejected or with unusable answers."""
HOPELESS_LATER = 60
"""The same for requests in a row once it has a record: by then single records may be impossible."""


@dataclass(frozen=True)
class TeacherProgress:
    """Where one teacher stands. `eta_s` and `cost_usd` are None if unknown, `ledger` where there is no quota to wait for."""

    name: str
    done: int
    total: int
    rate: float
    eta_s: float | None
    cost_usd: float | None
    ledger: dict[str, Any] | None
    tokens_per_minute: float | None = None
    ended: bool = False
    note: str = ""
    waits: str = ""

    @property
    def quota(self) -> str:
        """``97% of 200,000 tokens/min · 3 throttled · 12 in flight, 20 waiting · no answer for 1:20``; of batch jobs what
        they are at."""
        if self.ledger is None or self.note:
            return self.note
        said, state = [], self.ledger
        if self.tokens_per_minute and self.tokens_per_minute < math.inf:
            used = state["used"] / self.tokens_per_minute
            said.append(f"{used:.0%} of {self.tokens_per_minute:,.0f} tokens used in the last minute")
        elif 0 < state["tokens_per_minute"] < math.inf:
            said.append(f"learning the quota: {state['tokens_per_minute']:,.0f} tokens/min so far")
        if state["refused"]:
            said.append(f"{state['refused']:,} throttled")
        said.append(
            f"{state['in_flight']:,} in flight" + (f", {state['waiting']:,} waiting" if state["waiting"] else "")
        )
        return " · ".join([*said, *filter(None, [self.waits])])

    @property
    def line(self) -> str:
        """``bedrock:…@eu-west-1: 412 of 770 · 97% of … · $0.12 · 3 min left``."""
        cost = "cost unknown" if self.cost_usd is None else f"${self.cost_usd:,.2f}" if self.cost_usd >= 0.005 else ""
        left = "stopped" if self.ended else f"{math.ceil(self.eta_s / 60):,} min left" if self.eta_s else ""
        return " · ".join(filter(None, (f"{self.name}: {self.done:,} of {self.total:,}", self.quota, cost, left)))


@dataclass(frozen=True)
class Progress:
    """Where a run stands. `rate` is accepted records per second of this session, `eta_s` and `cost_usd` None if unknown."""

    teachers: tuple[TeacherProgress, ...]
    rejected: int

    @property
    def done(self) -> int:
        return sum(t.done for t in self.teachers)

    @property
    def total(self) -> int:
        return sum(t.total for t in self.teachers)

    @property
    def rate(self) -> float:
        return sum(t.rate for t in self.teachers)

    @property
    def eta_s(self) -> float | None:
        left = [t.eta_s for t in self.teachers if not t.ended]
        return max((s for s in left if s is not None), default=None) if None not in left else None

    @property
    def cost_usd(self) -> float | None:
        return total_cost(t.cost_usd for t in self.teachers)

    @property
    def details(self) -> tuple[str, ...]:
        """What a person with a quota wants to see: a line for each teacher; of a single one only its quota."""
        if len(self.teachers) > 1:
            return tuple(t.line for t in self.teachers)
        one = " · ".join(filter(None, (self.teachers[0].quota, "" if self.cost_usd is not None else "cost unknown")))
        return (one,) if one else ()


@dataclass
class Task:
    """One record to be: which candidate it is, how often that was asked for again, and what was said meanwhile."""

    spec: Spec
    candidate: int = 0
    repair: int = 0
    dialogue: tuple[Message, ...] = ()

    @property
    def number(self) -> int:
        """Which answer for this record it asks for, from 1."""
        return self.candidate * (REPAIRS + 1) + self.repair + 1

    @property
    def place(self) -> dict[str, Any]:
        """What the journal keeps of it, besides the spec's index."""
        return {"candidate": self.candidate, "repair": self.repair, "dialogue": self.dialogue}


@dataclass
class Lane:
    """A teacher's part of a run. `resumed` is what an earlier session had accepted, `ended` why the teacher stopped.

    `fruitless` counts why each request since the last record came to nothing, `said` has the words. `later` holds
    fresh candidates for records that failed. `batches` is how it answers in batch jobs, `buying` whether what is next
    goes into them, `note` what the jobs are at. `uncounted` are answers without token counts,
    `not_sent` what the service does not take, `notes` what is wrong with answers, each with how often.
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
    usage: Usage = field(default_factory=Usage)
    uncounted: int = 0
    cost_usd: float | None = 0.0
    not_sent: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    ended: GenesisError | None = None
    fruitless: Counter[str] = field(default_factory=Counter)
    said: dict[str, str] = field(default_factory=dict)
    in_a_row: int = 0
    batches: Batches | None = None
    buying: bool = False
    note: str = ""

    def charge(self, entry: Mapping[str, Any]) -> None:
        """One more answer, as the journal keeps it."""
        self.attempts += 1
        usage = entry.get("usage", ())
        self.uncounted += usage is None
        self.usage += Usage(*usage or ())
        self.cost_usd = total_cost([self.cost_usd, entry.get("cost_usd", 0.0)])
        self.not_sent.update(entry.get("not_sent", ()))
        if note := entry.get("note"):
            self.notes[re.sub(r"\d[\d,]*", "#", note)] += 1

    def next(self) -> Task | None:
        """The next task, unless there is none, the candidate budget is used up, or the teacher has stopped for good."""
        if self.ended or not self.todo or (self.candidates_left <= 0 and not self.todo[0].repair):
            return None
        task = self.todo.popleft()
        self.candidates_left -= not task.repair
        return task

    def refill(self) -> bool:
        """Begin with the fresh candidates that waited till all others were done; whether there are any."""
        waited, self.later = self.later, []
        self.todo.extend(sorted(waited, key=lambda task: task.spec.index))
        return bool(waited)

    @property
    def has_room(self) -> bool:
        """Whether another task is worth a thread."""
        scheduler = self.teacher.scheduler
        width = self.teacher.provider.capabilities.concurrency
        return self.in_flight < width and (scheduler is None or scheduler.ledger.wants_more(self.in_flight))

    def put_back(self, task: Task) -> None:
        """The task was not answered, through no fault of its own."""
        self.todo.append(task)
        self.candidates_left += not task.repair

    @property
    def awaits_jobs(self) -> bool:
        """What is next goes into batch jobs, or jobs of an earlier session are not joined yet."""
        return self.batches is not None and (self.buying or self.batches.unfinished)

    def next_batch(self) -> list[Task]:
        """All tasks there are, if batch jobs are their turn."""
        return list(iter(self.next, None)) if self.awaits_jobs and not self.in_flight else []

    def stop(self) -> None:
        """Let what is in flight finish; batch jobs run on."""
        self.teacher.stop()
        if self.batches:
            self.batches.stop()

    def end(self, error: GenesisError) -> None:
        """The teacher can't go on; what it has in flight is still taken."""
        self.ended = self.ended or error
        self.stop()

    def failed(self, reasons: Mapping[str, str]) -> None:
        """One more request came to nothing, for `reasons` (kind to the full words); too many in a row end the teacher."""
        self.fruitless.update(list(reasons))
        self.said |= reasons
        self.in_a_row += 1
        if self.in_a_row < (HOPELESS_LATER if self.accepted else HOPELESS) or self.ended:
            return
        kind, times = self.fruitless.most_common(1)[0]
        self.end(
            Incomplete(
                f"The {'last' if self.accepted else 'first'} {self.in_a_row} requests to {self.teacher.name} came to nothing, "
                f"{times} of them because: {self.said[kind].rstrip('.')}."
                + ("" if self.accepted else " Mend that or choose another model, then run the same again.")
            )
        )

    def succeeded(self) -> None:
        """One more record."""
        self.accepted += 1
        self.fruitless.clear()
        self.in_a_row = 0

    @property
    def hopeless(self) -> bool:
        """It can't go on, and has nothing to show."""
        return self.ended is not None and not (isinstance(self.ended, Incomplete) and self.accepted)

    def progress(self, elapsed_s: float) -> TeacherProgress:
        """Where it stands after `elapsed_s` seconds of this session."""
        rate = (self.accepted - self.resumed) / max(elapsed_s, 1e-9)
        left = self.total - self.accepted
        scheduler = self.teacher.scheduler
        return TeacherProgress(
            name=self.teacher.name,
            done=self.accepted,
            total=self.total,
            rate=rate,
            eta_s=left / rate if rate and not self.note else None if left else 0.0,
            cost_usd=self.cost_usd,
            ledger=scheduler.ledger.state() if scheduler else None,
            tokens_per_minute=scheduler.ledger.limits.tokens_per_minute if scheduler else None,
            ended=self.ended is not None,
            note=self.note or next(iter(self.notes), ""),
            waits=scheduler.waits if scheduler and not self.ended else "",
        )
