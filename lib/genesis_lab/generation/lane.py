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

TOKENS = tuple(Usage.__dataclass_fields__)
"""What is counted of an answer, in the order in which the journal keeps it."""
REPAIRS = 2
"""Times a model is told what was wrong with its answer before a fresh candidate is tried."""
HOPELESS = 20
"""A teacher is stopped when its first so many different requests came to nothing, rejected or with unusable answers."""
HOPELESS_LATER = 60
"""The same for requests in a row once it has a record: by then single records may be impossible."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands. `rate` is accepted records per second of this session, `eta_s` and `cost_usd` None if unknown.

    Parameters
    ----------
    teachers : a row of each, see `Lane.standing`.
    """

    teachers: tuple[Mapping[str, Any], ...]
    rejected: int

    @property
    def done(self) -> int:
        return sum(row["done"] for row in self.teachers)

    @property
    def total(self) -> int:
        return sum(row["total"] for row in self.teachers)

    @property
    def rate(self) -> float:
        return float(sum(row["rate"] for row in self.teachers))

    @property
    def eta_s(self) -> float | None:
        left = [row["eta_s"] for row in self.teachers if not row["ended"]]
        return None if None in left else max(left, default=None)

    @property
    def cost_usd(self) -> float | None:
        return total_cost(row["cost_usd"] for row in self.teachers)

    @property
    def details(self) -> tuple[str, ...]:
        """What a person with a quota wants to see: a line for each teacher; of a single one only its quota."""
        if len(self.teachers) > 1:
            return tuple(map(_line, self.teachers))
        one = " · ".join(filter(None, (self.teachers[0]["quota"], "" if self.cost_usd is not None else "cost unknown")))
        return (one,) if one else ()


def _line(row: Mapping[str, Any]) -> str:
    """``bedrock:…@eu-west-1: 412 of 770 · 97% of … · $0.12 · 3 min left``."""
    usd, eta_s = row["cost_usd"], row["eta_s"]
    cost = "cost unknown" if usd is None else f"${usd:,.2f}" if usd >= 0.005 else ""
    left = "stopped" if row["ended"] else f"{math.ceil(eta_s / 60):,} min left" if eta_s else ""
    return " · ".join(filter(None, (f"{row['name']}: {row['done']:,} of {row['total']:,}", row["quota"], cost, left)))


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
    fresh candidates for records that failed. `batches` is there while it answers in batch jobs, `note` what those are at.
    `uncounted` are answers without token counts, `not_sent` what the service does not take, `notes` what is wrong with
    answers, each with how often.
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
    fruitless: Counter[str] = field(default_factory=Counter)
    said: dict[str, str] = field(default_factory=dict)
    in_a_row: int = 0
    batches: Batches | None = None
    note: str = ""

    def charge(self, entry: Mapping[str, Any]) -> None:
        """One more answer, as the journal keeps it."""
        self.attempts += 1
        if usage := entry.get("usage", ()):
            self.usage = [sum(pair) for pair in zip(self.usage, usage, strict=True)]
        self.uncounted += usage is None
        cost_usd = entry.get("cost_usd", 0.0)
        self.cost_usd = None if self.cost_usd is None or cost_usd is None else self.cost_usd + cost_usd
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

    def put_back(self, task: Task) -> None:
        """The task was not answered, through no fault of its own."""
        self.todo.append(task)
        self.candidates_left += not task.repair

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

    def standing(self, elapsed_s: float) -> dict[str, Any]:
        """Where it stands after `elapsed_s` seconds of this session; `eta_s` and `cost_usd` are None if unknown."""
        rate, left = (self.accepted - self.resumed) / max(elapsed_s, 1e-9), self.total - self.accepted
        return {
            "name": self.teacher.name,
            "done": self.accepted,
            "total": self.total,
            "rate": rate,
            "eta_s": left / rate if rate and not self.note else None if left else 0.0,
            "cost_usd": self.cost_usd,
            "quota": self.note or self._quota(),
            "ended": self.ended is not None,
        }

    def _quota(self) -> str:
        """``97% of 200,000 tokens/min · 3 throttled · 12 in flight, 20 waiting · no answer for 1:20``."""
        scheduler, noticed = self.teacher.scheduler, next(iter(self.notes), "")
        if scheduler is None or noticed:
            return noticed
        said, state, quota = [], scheduler.ledger.state(), scheduler.ledger.limits.tokens_per_minute
        if quota and quota < math.inf:
            said.append(f"{state['used'] / quota:.0%} of {quota:,.0f} tokens used in the last minute")
        elif 0 < state["tokens_per_minute"] < math.inf:
            said.append(f"learning the quota: {state['tokens_per_minute']:,.0f} tokens/min so far")
        if state["refused"]:
            said.append(f"{state['refused']:,} throttled")
        said.append(
            f"{state['in_flight']:,} in flight" + (f", {state['waiting']:,} waiting" if state["waiting"] else "")
        )
        return " · ".join(filter(None, (*said, "" if self.ended else scheduler.waits)))
