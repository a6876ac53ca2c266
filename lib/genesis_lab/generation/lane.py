"""A teacher's part of a run: what is left to it, what came of it, and how that is told while it runs."""

from __future__ import annotations

import math
import re
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from genesis_lab.domains.base import Answer, Message, Spec
from genesis_lab.errors import GenesisError, Incomplete
from genesis_lab.generation.batch import Batches
from genesis_lab.generation.teachers import Teacher
from genesis_lab.providers.base import Usage, total_cost

TOKENS = tuple(Usage.__dataclass_fields__)
"""What is counted of an answer, in the order in which the journal keeps it."""
REPAIRS = 2
"""Times a model is told what was wrong with its answer before a fresh candidate is tried."""
HOPELESS, HOPELESS_LATER = 20, 60
"""A teacher is stopped when so many requests in a row came to nothing: its first ones, or later ones, when single records
may be impossible."""


@dataclass(frozen=True)
class Task:
    """One request to be: for one record, or for a list of those of one `key` (empty: not a list).

    Parameters
    ----------
    tries : requests for the same before this one; every third begins anew, the others tell what was wrong.
    dialogue : what was said meanwhile.
    known : records of the key that are there already.
    candidates : how many fresh candidates it uses up.
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

    Attributes
    ----------
    later : fresh candidates for records that failed, which wait till all others are done.
    resumed : what an earlier session had accepted.
    usage, uncounted, not_sent, notes : tokens of the answers; how many were not counted; what the service does not take and
        what is wrong with answers, with how often.
    ended : why the teacher stopped; `closed`: nothing more is asked of it.
    fruitless : why each request since the last record came to nothing; `said` has the words.
    batches : there while it answers in batch jobs; `note` is what those are at.
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

    @property
    def free(self) -> bool:
        return self.teacher.provider.capabilities.free

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
        """Begin with the fresh candidates that waited till all others were done; whether there are any."""
        waited, self.later = self.later, []
        self.todo.extend(sorted(waited, key=lambda task: task.specs[0].index))
        return bool(waited)

    @property
    def has_room(self) -> bool:
        """Whether another task is worth a thread."""
        scheduler, width = self.teacher.scheduler, self.teacher.provider.capabilities.concurrency
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
        self.end(
            Incomplete(
                f"The {'last' if self.accepted else 'first'} {self.in_a_row} requests to {self.teacher.name} came to nothing, "
                f"{times} of them because: {self.said[kind].rstrip('.')}."
                + ("" if self.accepted else " Mend that or choose another model, then run the same again.")
            )
        )

    @property
    def hopeless(self) -> bool:
        """It can't go on, and has nothing to show."""
        return self.ended is not None and not (isinstance(self.ended, Incomplete) and self.accepted)

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
        """``bedrock:…@eu-west-1: 412 of 770 · 97% of … · $0.12 · 3 min left``."""
        usd, eta_s = self.cost_usd, self.eta_s(elapsed_s)
        cost = "cost unknown" if usd is None else f"${usd:,.2f}" if usd >= 0.005 else ""
        left = "stopped" if self.ended else f"{math.ceil(eta_s / 60):,} min left" if eta_s else ""
        done = f"{self.teacher.name}: {self.accepted:,} of {self.total:,}"
        return " · ".join(filter(None, (done, self.quota, cost, left)))


@dataclass(frozen=True)
class Progress:
    """Where a run stands. `rate` is accepted records per second of this session, `eta_s` and `cost_usd` None if unknown.

    `details` is what a person with a quota wants to see: a line for each teacher; of a single one only its quota.
    """

    done: int
    total: int
    rejected: int
    rate: float
    eta_s: float | None
    cost_usd: float | None
    details: tuple[str, ...]


def progress(lanes: Sequence[Lane], rejected: int, elapsed_s: float) -> Progress:
    """Where a run stands after `elapsed_s` seconds of this session."""
    left = [lane.eta_s(elapsed_s) for lane in lanes if not lane.ended]
    cost_usd = total_cost(lane.cost_usd for lane in lanes)
    if len(lanes) > 1:
        details = [lane.line(elapsed_s) for lane in lanes]
    else:
        details = [" · ".join(filter(None, (lanes[0].quota, "" if cost_usd is not None else "cost unknown")))]
    return Progress(
        done=sum(lane.accepted for lane in lanes),
        total=sum(lane.total for lane in lanes),
        rejected=rejected,
        rate=sum(lane.rate(elapsed_s) for lane in lanes),
        eta_s=None if None in left else max(filter(None, left), default=0.0 if left else None),
        cost_usd=cost_usd,
        details=tuple(filter(None, details)),
    )
