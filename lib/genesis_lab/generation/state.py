"""The state of a run: what the lines of its journal say, applied one after the other, and what is to be asked next."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from genesis_lab.domains.base import Answer, Domain, Message, Spec
from genesis_lab.generation.journal import Journal
from genesis_lab.generation.lane import REPAIRS, Lane, Task
from genesis_lab.generation.plan import Plan
from genesis_lab.generation.teachers import Teacher, divide


class State:
    """Where a run stands. A line is applied in the same way when it is written and when a run is taken up again.

    Where a domain lets a model write lists, the records of each key come about in a chain: one request asks for the first
    that are left of it and shows those that are there, and what comes of it decides the next. So a request depends on
    nothing but earlier answers of its own key.

    `accepted` has the spec index with the byte offset of its journal line, `holders` fingerprint and spec index of the record
    that has it, `drops` and `scores` how often a reason, or the score of an answer, stood against its use.
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
        """Key to the indices of its records; `_answers` are those that are there, which the next list must not repeat."""
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
            self.scores.update([line["score"]] if "score" in line else [])
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
