"""The engine: a plan goes in, exactly that many accepted records come out. It survives faults, Ctrl-C and kill -9."""

from __future__ import annotations

import hashlib
import math
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from filelock import FileLock, Timeout

from genesis_lab.dataset import Dataset, DatasetWriter, open_dataset
from genesis_lab.dataset.folder import MANIFEST
from genesis_lab.domains.base import Domain, Provenance
from genesis_lab.errors import GenesisError, Incomplete, Interrupted, InvalidInput, ParseFailure, Rejected
from genesis_lab.files import shown, write_error
from genesis_lab.generation.account import (
    existing,
    is_begun,
    is_run,
    make_room,
    run_header,
    run_manifest,
    stopped,
    work_folder,
)
from genesis_lab.generation.batch import batches_for, check_batch
from genesis_lab.generation.journal import JOURNAL, Journal, read_header
from genesis_lab.generation.lane import REPAIRS, TOKENS, Lane, Progress, Task
from genesis_lab.generation.plan import Plan, split_of
from genesis_lab.generation.teachers import Teacher, divide, parts
from genesis_lab.providers.base import Completion, Message, Provider, Request, request_key
from genesis_lab.providers.cache import CompletionCache

_SAME = "it says the same as an earlier record: word it differently"
_LOOK_S = 1.0
"""How often those who look on are told, also while nothing comes."""
_PARTING_S = 0.5
"""How long answers in flight are waited for when a run is ended; later ones go into the cache while the process lives."""
_READ_BACK = 5_000
"""Records read back from the journal at once when the dataset is written."""


@dataclass(frozen=True)
class Sampling:
    """How a model is sampled; None leaves the model's own default."""

    temperature: float | None = None
    max_tokens: int = 2048


def generate(
    plan: Plan,
    domain: Domain,
    teachers: Provider | Sequence[Teacher],
    target: Path,
    *,
    sampling: Sampling = Sampling(),
    cache: CompletionCache | None = None,
    config: dict[str, Any] | None = None,
    candidate_budget: float = 1.5,
    replace_existing: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Dataset:
    """Generate the plan's records into the dataset folder `target`.

    Each answer is parsed and checked; a bad one is asked for again with what was wrong, at most `REPAIRS` times, then
    replaced by a fresh candidate. Everything is journalled beside the folder, so the same call after a crash goes on.

    Parameters
    ----------
    teachers : who writes, each its share of the plan at the same time; or a provider that writes everything.
    cache : where raw answers are kept; not used for free providers.
    config : what the user chose, for the manifest.
    candidate_budget : candidates each teacher tries in this session, as a multiple of its records (and 20 on top).
    replace_existing : a dataset of other settings is replaced when the new one is complete, an unfinished run at once.
    on_progress : called a few times a second.

    Returns
    -------
    The dataset, complete.

    Raises
    ------
    Incomplete : the candidate budget ran out, or nothing usable came any more: the dataset is there, without the missing
        records, its manifest says ``complete: false`` and why. Of no record at all there is no dataset.
    InvalidInput : `target` holds a dataset or an unfinished run with other settings, or another process is at it.
    GenesisError : a teacher can't go on (the others have done their part by then), the disk is full, or the run was
        interrupted; the journal keeps all so far.
    """
    who = list(teachers) if isinstance(teachers, Sequence) else [Teacher(teachers)]
    header = run_header(plan, domain, who, asdict(sampling))
    work, splits = work_folder(target), plan.splits()
    lock = work.with_name(work.name + ".lock")
    try:
        work.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=0):
            try:
                found = existing(target, header, replace=replace_existing)
                others = found is None and (target / MANIFEST).exists()
                if found and found.manifest["complete"]:
                    if read_header(work / JOURNAL) == found.manifest["generation"]:
                        shutil.rmtree(work)  # left by a kill just after the dataset was complete
                    return found
                make_room(work, header, replace=replace_existing)
                for name, records in parts(who, len(plan.specs)).items():
                    check_batch(next(teacher for teacher in who if teacher.name == name), records)
                with Journal(work / JOURNAL, header) as journal:
                    run = _Run(plan, domain, who, journal, sampling, cache, candidate_budget, on_progress)
                    try:
                        run.loop()
                    except KeyboardInterrupt:
                        raise Interrupted(
                            f"Interrupted with {len(run.accepted):,} of {len(plan.specs):,} records accepted and saved: "
                            "run the same again to go on." + run.jobs_left()
                        ) from None
                    manifest = run_manifest(header, config or {}, plan, run.lanes, run.drops, run.scores)
                    missing = manifest["missing"]
                    if not missing or not others:
                        dataset = run.write(target, manifest, splits, replace=bool(found) or others)
                if not missing:
                    shutil.rmtree(work)
            finally:
                if is_run(work) and not is_begun(work):  # nothing to go on with: the next run may have other settings
                    shutil.rmtree(work, ignore_errors=True)
                lock.unlink(missing_ok=True)
    except Timeout:
        raise InvalidInput(
            f"Another process is generating {shown(target)} right now: wait for it or choose another name."
        ) from None
    except OSError as error:
        raise write_error(error, target) from None
    if not missing:
        return dataset
    often = ", ".join(f"{reason} ({n:,} times)" for reason, n in run.drops.most_common(3))
    why = " ".join(str(lane.ended) for lane in run.lanes if lane.ended) or f"What came instead: {often}."
    where = f", so {shown(target)} was not replaced"
    if not others:
        where = f" in {shown(target)}, which holds the {dataset.total:,} that could be made"
    raise Incomplete(
        f"{missing:,} of {len(plan.specs):,} records are missing{where}. {why} Run the same again to try for the missing "
        "ones; with other settings (model, max_tokens) choose another name, or set replace to true."
    )


class _Run:
    """One generation run, taken up where its journal ends: what is accepted, what is in flight, what is left.

    Attributes
    ----------
    accepted : spec index to byte offset of its journal line.
    fingerprints : fingerprint to the spec index of the record that has it.
    drops : reason to how often.
    scores : score to answers that were not used, where the domain scores them.
    """

    def __init__(
        self,
        plan: Plan,
        domain: Domain,
        teachers: Sequence[Teacher],
        journal: Journal,
        sampling: Sampling,
        cache: CompletionCache | None,
        candidate_budget: float,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.plan, self.domain, self.journal, self.sampling, self.cache = plan, domain, journal, sampling, cache
        self.accepted: dict[int, int] = {}
        self.fingerprints: dict[bytes, int] = {}
        self.drops, self.scores = Counter[str](), Counter[float]()
        lanes = {teacher.name: Lane(teacher) for teacher in teachers}
        self.lanes = list(lanes.values())
        self._lane_of = [lanes[name] for name in divide(plan, teachers)]
        self._on_progress, self._started, self._shown = on_progress, time.monotonic(), 0.0
        tried: dict[int, Task] = {}
        for offset, entry in journal.entries():
            index, lane = entry["index"], self._lane_of[entry["index"]]
            if entry["kind"] == "revoked":
                self._take_back(index)
            else:
                lane.charge(entry)
            if entry["outcome"] == "accepted":
                lane.accepted += 1
                self.accepted[index] = offset
                self.fingerprints[bytes.fromhex(entry["fingerprint"])] = index
            else:
                self._count_drop(entry)
                tried[index] = self._task(entry)
        for spec, lane in zip(plan.specs, self._lane_of, strict=True):
            lane.total += 1
            if spec.index not in self.accepted:
                lane.todo.append(tried.get(spec.index) or Task(spec))
        for lane in self.lanes:
            lane.resumed = lane.accepted
            lane.candidates_left += math.ceil(lane.total * candidate_budget) + 20 - lane.accepted
            lane.batches = batches_for(lane.teacher, cache, journal.path.parent)

    def _task(self, entry: dict[str, Any]) -> Task:
        """The task that an entry of the journal tells of."""
        dialogue = tuple((who, text) for who, text in entry["dialogue"])
        return Task(self.plan.specs[entry["index"]], entry["candidate"], entry["repair"], dialogue)

    def jobs_left(self) -> str:
        """What runs on without us."""
        return "".join(f" {lane.batches.running_on}" for lane in self.lanes if lane.batches and lane.batches.unfinished)

    def loop(self) -> None:
        """Work until every spec has a record, the candidate budgets are used up, or no teacher can go on."""
        first, *more = self.lanes
        if not more and not first.batches and first.teacher.provider.capabilities.concurrency == 1:
            while (task := first.next()) or first.refill():
                if task:
                    self._settle(first, task, self._try(first.teacher, task))
        else:
            self._loop_in_threads()
        self._show(force=True)
        if any(lane.hopeless for lane in self.lanes):
            raise stopped(self.lanes)

    def _loop_in_threads(self) -> None:
        done: SimpleQueue[tuple[Lane, bool, Callable[[], None]]] = SimpleQueue()
        """Whose call, whether it has ended, and what to do about it here, where all is settled one by one."""

        def ask(lane: Lane, task: Task) -> None:
            done.put((lane, True, partial(self._settle, lane, task, self._try(lane.teacher, task))))

        def buy(lane: Lane, tasks: list[Task]) -> None:
            def tell(note: str) -> None:
                done.put((lane, False, partial(setattr, lane, "note", note)))

            done.put((lane, True, partial(self._settle_batch, lane, tasks, self._bought(lane, tasks, tell))))

        def start(call: Callable[..., None], lane: Lane, what: Any) -> None:
            # Nobody has to wait for a daemon, neither Ctrl-C nor the end of the process.
            lane.in_flight += 1
            threading.Thread(target=call, args=(lane, what), name="genesis", daemon=True).start()

        try:
            while True:
                for lane in self.lanes:
                    if lane.batches and not lane.in_flight and (tasks := list(iter(lane.next, None))):
                        start(buy, lane, tasks)
                    while not lane.batches and lane.has_room and (task := lane.next()):
                        start(ask, lane, task)
                if not any(lane.in_flight for lane in self.lanes):
                    # Fresh candidates start together: who gets those that are left is then no matter of who was quick.
                    refilled = [lane.refill() for lane in self.lanes]
                    if any(refilled):
                        continue
                    break
                try:
                    lane, ended, act = done.get(timeout=_LOOK_S)
                except Empty:
                    self._show(force=True)
                    continue
                lane.in_flight -= ended
                act()
                if not ended:
                    self._show(force=True)
        except BaseException:
            # What is in flight is paid for: what comes within a moment is journalled. Then it ends, whatever a server does.
            for lane in self.lanes:
                lane.stop()
            deadline = time.monotonic() + _PARTING_S
            with suppress(Empty):
                while any(lane.in_flight for lane in self.lanes):
                    lane, ended, act = done.get(timeout=max(deadline - time.monotonic(), 0))
                    lane.in_flight -= ended
                    if not lane.batches:
                        with suppress(Exception, KeyboardInterrupt):
                            act()
            raise

    def _request(self, teacher: Teacher, task: Task) -> Request:
        return request_for(self.domain, self.sampling, teacher, task)

    def _known(self, request: Request) -> Completion | None:
        return self.cache.get(request.key) if self.cache and request.key else None

    def _try(self, teacher: Teacher, task: Task) -> Completion | BaseException:
        try:
            request = self._request(teacher, task)
            completion = self._known(request)
            if completion is None:
                completion = teacher.call(request)
                if self.cache and request.key:
                    self.cache.put(request.key, completion)
            return _signed(completion, request)
        except BaseException as error:
            return error

    def _bought(self, lane: Lane, tasks: list[Task], tell: Callable[[str], None]) -> int | BaseException:
        """Have `tasks` answered in batch jobs, or only wait for those of an earlier session; answers go into the cache.

        Returns how many jobs there were, or why no further one can help.
        """
        assert lane.batches is not None
        try:
            requests = (self._request(lane.teacher, task) for task in tasks if lane.teacher.in_batch)
            return lane.batches.fill(requests, tell)
        except BaseException as error:
            return error

    def _settle_batch(self, lane: Lane, tasks: list[Task], bought: int | BaseException) -> None:
        """Settle what batch jobs answered; what they did not is asked in the next ones or, if it is too little, on demand."""
        lane.note, before = "", lane.attempts
        for task in tasks:
            request = self._request(lane.teacher, task)
            if completion := self._known(request):
                self._settle(lane, task, _signed(completion, request))
            else:
                lane.put_back(task)
        if isinstance(bought, GenesisError):
            lane.end(bought)
        elif isinstance(bought, BaseException):
            raise bought
        elif not bought and lane.attempts == before:
            lane.batches = None

    def _forget(self, teacher: Teacher, task: Task) -> None:
        """What can't be used is no result: the next run asks anew."""
        if self.cache and (key := self._request(teacher, task).key):
            self.cache.forget(key)

    def _settle(self, lane: Lane, task: Task, completion: Completion | BaseException) -> None:
        """Journal what came of a task, and put what must be tried again at the head of the teacher's queue."""
        entry: dict[str, Any] = {"kind": "attempt", "index": task.spec.index}
        if isinstance(completion, Rejected):
            lane.charge(entry)
            self._drop(lane, task, entry, (f"rejected by the provider: {completion}",), None)
            return
        if isinstance(completion, GenesisError):
            lane.end(completion)
            return
        if isinstance(completion, BaseException):
            raise completion
        usage = completion.usage
        entry |= {"usage": usage and [getattr(usage, name) for name in TOKENS], "cost_usd": completion.cost_usd}
        entry |= {"not_sent": completion.not_sent} if completion.not_sent else {}
        entry |= {"note": completion.note} if completion.note else {}
        lane.charge(entry)
        try:
            answer = self.domain.parse(completion.text, task.spec)
            words = self.domain.fingerprint(answer, task.spec).encode("utf-8", "surrogatepass")
            fingerprint = hashlib.blake2b(words, digest_size=10).digest()
            holder = self.fingerprints.get(fingerprint)
            if holder is not None and holder < task.spec.index:
                raise ParseFailure(_SAME)
        except ParseFailure as failure:
            reasons = failure.reasons
            if completion.stop_reason not in ("end", "stop_sequence"):
                reasons = (f"the model stopped early ({completion.stop_reason})", *reasons)
            if completion.note:
                reasons = (completion.note, *reasons)
            if failure.score is not None:
                entry["score"] = round(failure.score, 2)
            self._forget(lane.teacher, task)
            self._drop(lane, task, entry, reasons, completion.text)
            return
        if (
            holder is not None
        ):  # a record earlier in the plan came later and says the same: that one is worded differently
            old, before = self._take_back(holder), self._lane_of[holder]
            again = self._task(old)
            text = old.get("text") or self._request(before.teacher, again).offline_text
            self._drop(before, again, {"kind": "revoked", "index": holder}, (_SAME,), text)
        if self.cache and task.number > 1 and (key := self._request(lane.teacher, Task(task.spec)).key):
            # In the cache is what was accepted, under the first request for its record: it is not asked for in vain again.
            self._forget(lane.teacher, task)
            self.cache.put(key, replace(completion, attempts=task.number))
        made = {
            "provider": lane.teacher.provider.name,
            "model": completion.model,
            "request_key": completion.request_key,
            "attempts": completion.attempts or task.number,
            "generated_at": completion.created_at and completion.created_at.isoformat(),
        }
        entry |= {"outcome": "accepted", "fingerprint": fingerprint.hex(), **task.place}
        entry |= {"text": completion.text} if completion.request_key else {}  # else it can be had again for nothing
        self.accepted[task.spec.index] = self.journal.append(entry | {"made": made, "answer": answer})
        self.fingerprints[fingerprint] = task.spec.index
        lane.succeeded()
        self._show()

    def _take_back(self, index: int) -> dict[str, Any]:
        """Accepted no more; the journal's entry of it."""
        entry = next(self.journal.read([self.accepted.pop(index)]))
        del self.fingerprints[bytes.fromhex(entry["fingerprint"])]
        self._lane_of[index].accepted -= 1
        return entry

    def _drop(self, lane: Lane, task: Task, entry: dict[str, Any], reasons: tuple[str, ...], text: str | None) -> None:
        if text is None or task.repair >= REPAIRS:
            following = Task(task.spec, task.candidate + 1)
            lane.later.append(following)
        else:
            wrong = "\n".join(f"- {reason}" for reason in reasons)
            again: tuple[Message, ...] = (
                ("assistant", text or "(empty)"),
                ("user", f"That answer can't be used:\n{wrong}\nAnswer again with the corrected JSON only."),
            )
            following = Task(task.spec, task.candidate, task.repair + 1, task.dialogue + again)
            lane.todo.appendleft(following)
        # A reason without its particulars, so that reasons can be counted.
        kinds = {re.sub(r"\d+", "#", re.sub(r"(['\"]).*?\1", "…", reason))[:120]: reason for reason in reasons}
        lane.failed(kinds)
        entry |= {"outcome": "dropped", "reasons": list(kinds), **following.place}
        self.journal.append(entry)
        self._count_drop(entry)
        self._show()

    def _count_drop(self, entry: dict[str, Any]) -> None:
        self.drops.update(entry["reasons"])
        self.scores.update([entry["score"]] if "score" in entry else [])

    def _show(self, *, force: bool = False) -> None:
        if self._on_progress is None:
            return
        now = time.monotonic()
        if force or now - self._shown >= 0.25:
            self._shown = now
            rows = tuple(lane.standing(now - self._started) for lane in self.lanes)
            self._on_progress(Progress(rows, self.drops.total()))

    def write(self, target: Path, manifest: dict[str, Any], splits: Sequence[str], *, replace: bool) -> Dataset:
        """The dataset folder, rendered from the journal's answers, in the plan's order, split by split."""
        by_split: dict[str, list[int]] = {split: [] for split in splits}
        for index in sorted(self.accepted):
            by_split[split_of(self.plan.specs[index])].append(self.accepted[index])
        with DatasetWriter(target, self.domain.name, manifest, replace=replace) as writer:
            for split, offsets in by_split.items():
                for start in range(0, len(offsets), _READ_BACK):
                    writer.write(self._records(offsets[start : start + _READ_BACK]), split)
        return open_dataset(target)

    def _records(self, offsets: Sequence[int]) -> Iterator[dict[str, Any]]:
        for entry in self.journal.read(offsets):
            spec, usage = self.plan.specs[entry["index"]], entry["usage"]
            provenance = Provenance(
                **entry["made"],
                prompt_version=self.domain.prompt_version,
                spec_index=spec.index,
                spec_seed=spec.seed,
                prompt_tokens=usage and usage[0],
                completion_tokens=usage and usage[1],
            )
            yield self.domain.render(entry["answer"], spec, provenance).model_dump()


def request_for(domain: Domain, sampling: Sampling, teacher: Teacher, task: Task) -> Request:
    """What `teacher` is asked for a task; its key is the answer's place in the cache, empty for answers not worth it.

    Raises
    ------
    InvalidInput : a provider that only hands on the domain's own text is asked for what has none.
    """
    spec = task.spec
    if teacher.provider.capabilities.free:
        text = domain.offline_text(spec, task.number - 1)
        if text is None:
            raise InvalidInput(f"There is no offline text of {domain.name}: choose a model as provider.")
        return Request(key="", offline_text=text, seed=spec.seed)
    prompt = domain.prompt(spec)
    messages = (*prompt.messages, *task.dialogue)
    seed = (spec.seed + task.candidate) % 2**31
    key = request_key(
        domain.name, domain.prompt_version, prompt.system, messages, teacher.identity,
        vars(sampling), prompt.schema, seed,
    )  # fmt: skip
    return Request(
        key=key,
        system=prompt.system,
        messages=messages,
        schema=prompt.schema,
        schema_name=prompt.schema_name,
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        seed=seed,
        stable_messages=prompt.stable,
    )


def _signed(completion: Completion, request: Request) -> Completion:
    """With the key of the request that it answers, unless it carries one."""
    if completion.request_key or not request.key:
        return completion
    return replace(completion, request_key=request.key)
