"""The engine: a plan goes in, exactly that many accepted records come out. It survives faults, Ctrl-C and kill -9."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from filelock import FileLock, Timeout

from genesis_lab.dataset import Dataset, DatasetWriter, open_dataset
from genesis_lab.dataset.folder import MANIFEST
from genesis_lab.domains.base import Domain, Provenance
from genesis_lab.errors import (
    GenesisError,
    Incomplete,
    Interrupted,
    InvalidInput,
    ParseFailure,
    Rejected,
)
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
from genesis_lab.generation.batch import Round, batches_for, check_batch
from genesis_lab.generation.journal import JOURNAL, Journal, read_header
from genesis_lab.generation.lane import REPAIRS, Lane, Progress, Task
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


@dataclass
class _Tally:
    accepted: dict[int, int] = field(default_factory=dict)
    """Spec index to byte offset of its journal line."""
    fingerprints: dict[bytes, int] = field(default_factory=dict)
    """Fingerprint to the spec index of the record that has it."""
    drops: Counter[str] = field(default_factory=Counter)
    rejected_scores: Counter[float] = field(default_factory=Counter)
    """Score to answers that were not used, where the domain scores them."""


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
    counts = parts(who, len(plan.specs))
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
                for teacher in who:
                    if teacher.in_batch:
                        check_batch(teacher.provider, counts[teacher.name])
                with Journal(work / JOURNAL, header) as journal:
                    run = _Run(plan, domain, who, journal, sampling, cache, on_progress)
                    run.resume(candidate_budget)
                    run.use_batches(work)
                    try:
                        run.loop()
                    except KeyboardInterrupt:
                        raise Interrupted(
                            f"Interrupted with {len(run.tally.accepted):,} of {len(plan.specs):,} records accepted and saved: "
                            "run the same again to go on." + run.jobs_left()
                        ) from None
                    manifest = run_manifest(header, config or {}, plan, run.lanes, run.tally.drops)
                    if run.tally.rejected_scores:
                        manifest["rejected_scores"] = {
                            f"{s:g}": n for s, n in sorted(run.tally.rejected_scores.items())
                        }
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
    if missing:
        why = " ".join(str(lane.ended) for lane in run.lanes if lane.ended)
        if not why:
            often = ", ".join(f"{reason} ({n:,} times)" for reason, n in run.tally.drops.most_common(3))
            why = f"What came instead: {often}."
        raise Incomplete(
            f"{missing:,} of {len(plan.specs):,} records are missing"
            + (
                f", so {shown(target)} was not replaced"
                if others
                else f" in {shown(target)}, which holds the {dataset.total:,} that could be made"
            )
            + f". {why} Run the same again to try for the missing ones; with other "
            "settings (model, max_tokens) choose another name, or set replace to true."
        )
    return dataset


class _Run:
    """One generation run: what is accepted, what is in flight, what is left."""

    def __init__(
        self,
        plan: Plan,
        domain: Domain,
        teachers: Sequence[Teacher],
        journal: Journal,
        sampling: Sampling,
        cache: CompletionCache | None,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.plan, self.domain, self.journal, self.sampling, self.cache = plan, domain, journal, sampling, cache
        lanes = {teacher.name: Lane(teacher) for teacher in teachers}
        self.lanes = list(lanes.values())
        self._lane_of = [lanes[name] for name in divide(plan, teachers)]
        self.tally = _Tally()
        self._on_progress = on_progress
        self._started = time.monotonic()
        self._shown = 0.0

    def resume(self, candidate_budget: float) -> None:
        """Take over what an earlier session of the same run journalled; what is left becomes tasks."""
        tried: dict[int, Task] = {}
        for offset, entry in self.journal.entries():
            if entry["kind"] not in ("attempt", "revoked"):
                continue
            lane = self._lane_of[entry["index"]]
            if entry["kind"] == "revoked":
                self._take_back(entry["index"])
            else:
                lane.charge(entry)
            if entry["outcome"] == "accepted":
                lane.accepted += 1
                self.tally.accepted[entry["index"]] = offset
                self.tally.fingerprints[bytes.fromhex(entry["fingerprint"])] = entry["index"]
            else:
                self.tally.drops.update(entry["reasons"])
                self.tally.rejected_scores.update([entry["score"]] if "score" in entry else [])
                tried[entry["index"]] = self._task(entry)
        for spec, lane in zip(self.plan.specs, self._lane_of, strict=True):
            lane.total += 1
            if spec.index not in self.tally.accepted:
                lane.todo.append(tried.get(spec.index) or Task(spec))
        for lane in self.lanes:
            lane.resumed = lane.accepted
            lane.candidates_left += math.ceil(lane.total * candidate_budget) + 20 - lane.accepted

    def _task(self, entry: dict[str, Any]) -> Task:
        """The task that an entry of the journal tells of."""
        dialogue = tuple((who, text) for who, text in entry["dialogue"])
        return Task(self.plan.specs[entry["index"]], entry["candidate"], entry["repair"], dialogue)

    def use_batches(self, work: Path) -> None:
        """Let teachers answer in batch jobs, which are kept in `work`: those that are to, or have begun to."""
        for lane in self.lanes:
            lane.batches = batches = batches_for(lane.teacher.provider, self.cache, work)
            lane.buying = batches is not None and lane.teacher.in_batch

    def jobs_left(self) -> str:
        """What runs on without us."""
        return "".join(f" {lane.batches.running_on}" for lane in self.lanes if lane.batches and lane.batches.unfinished)

    def loop(self) -> None:
        """Work until every spec has a record, the candidate budgets are used up, or no teacher can go on."""
        if len(self.lanes) == 1 and self.lanes[0].teacher.provider.capabilities.concurrency == 1:
            lane = self.lanes[0]
            while (task := lane.next()) or lane.refill():
                if task:
                    self._settle(lane, task, self._try(lane, task))
        else:
            self._loop_in_threads()
        self._show(force=True)
        if any(lane.hopeless for lane in self.lanes):
            raise stopped(self.lanes)

    def _loop_in_threads(self) -> None:
        answers: SimpleQueue[tuple[Lane, Task | list[Task] | None, Any]] = SimpleQueue()

        def start(call: Callable[..., None], *what: Any) -> None:
            # Nobody has to wait for a daemon, neither Ctrl-C nor the end of the process.
            threading.Thread(target=call, args=what, name="genesis", daemon=True).start()

        def work(lane: Lane, task: Task) -> None:
            answers.put((lane, task, self._try(lane, task)))

        def buy(lane: Lane, tasks: list[Task]) -> None:
            answers.put((lane, tasks, self._buy(lane, tasks, lambda note: answers.put((lane, None, note)))))

        try:
            while True:
                for lane in self.lanes:
                    if tasks := lane.next_batch():
                        start(buy, lane, tasks)
                        lane.in_flight += 1
                    while not lane.awaits_jobs and lane.has_room and (task := lane.next()):
                        start(work, lane, task)
                        lane.in_flight += 1
                if not any(lane.in_flight for lane in self.lanes):
                    # Fresh candidates start together: who gets those that are left is then no matter of who was quick.
                    refilled = [lane.refill() for lane in self.lanes]
                    if any(refilled):
                        continue
                    break
                try:
                    lane, what, answer = answers.get(timeout=_LOOK_S)
                except Empty:
                    self._show(force=True)
                    continue
                if what is None:
                    lane.note = answer
                    self._show(force=True)
                    continue
                lane.in_flight -= 1
                if isinstance(what, Task):
                    self._settle(lane, what, answer)
                else:
                    self._settle_batch(lane, what, answer)
        except BaseException:
            # What is in flight is paid for: what comes within a moment is journalled. Then it ends, whatever a server does.
            for lane in self.lanes:
                lane.stop()
            deadline = time.monotonic() + _PARTING_S
            while any(lane.in_flight for lane in self.lanes):
                try:
                    lane, what, answer = answers.get(timeout=max(deadline - time.monotonic(), 0))
                except Empty:
                    break
                lane.in_flight -= what is not None
                if isinstance(what, Task) and isinstance(answer, Completion):
                    self._settle(lane, what, answer)
            raise

    def _request(self, teacher: Teacher, task: Task) -> Request:
        return request_for(self.domain, self.sampling, teacher, task)

    def _answer(self, teacher: Teacher, task: Task) -> Completion:
        request = self._request(teacher, task)
        cache = None if teacher.provider.capabilities.free else self.cache
        completion = cache.get(request.key) if cache else None
        if completion is None:
            completion = teacher.call(request)
            if cache:
                cache.put(request.key, completion)
        return _signed(completion, request)

    def _keep(self, teacher: Teacher, task: Task, completion: Completion) -> None:
        """In the cache is what was accepted, under the first request for its record: it is not asked for in vain again."""
        if self.cache and not teacher.provider.capabilities.free and task.number > 1:
            self._forget(teacher, task)
            self.cache.put(self._request(teacher, Task(task.spec)).key, replace(completion, attempts=task.number))

    def _forget(self, teacher: Teacher, task: Task) -> None:
        """What can't be used is no result: the next run asks anew."""
        if self.cache and not teacher.provider.capabilities.free:
            self.cache.forget(self._request(teacher, task).key)

    def _buy(self, lane: Lane, tasks: list[Task], tell: Callable[[str], None]) -> Round | BaseException:
        """Have `tasks` answered in batch jobs, or only wait for those of an earlier session. Answers go into the cache."""
        if lane.batches is None:
            return Round(0)
        requests = (self._request(lane.teacher, task) for task in tasks if lane.buying)
        try:
            return lane.batches.fill(requests, tell)
        except BaseException as error:
            return error

    def _settle_batch(self, lane: Lane, tasks: list[Task], outcome: Round | BaseException) -> None:
        """Settle what a round of batch jobs answered; what it did not stays to be asked: in the next or on demand."""
        lane.note, settled = "", 0
        for task in tasks:
            request = self._request(lane.teacher, task)
            if self.cache and (completion := self.cache.get(request.key)):
                self._settle(lane, task, _signed(completion, request))
                settled += 1
            else:
                lane.put_back(task)
        if isinstance(outcome, GenesisError):
            lane.end(outcome)
        elif isinstance(outcome, BaseException):
            raise outcome
        elif outcome.problem:
            lane.end(
                GenesisError(f"{outcome.problem} What was answered is saved: run the same again to send the rest.")
            )
        elif not outcome.jobs and not settled:
            lane.buying = False  # too few for a job

    def _try(self, lane: Lane, task: Task) -> Completion | BaseException:
        try:
            return self._answer(lane.teacher, task)
        except BaseException as error:
            return error

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
        entry["usage"] = completion.usage and astuple(completion.usage)
        entry["cost_usd"] = completion.cost_usd
        entry |= {"not_sent": completion.not_sent} if completion.not_sent else {}
        entry |= {"note": completion.note} if completion.note else {}
        lane.charge(entry)
        try:
            record, fingerprint = self._accept(lane.teacher.provider.name, task, completion)
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
        if (holder := self.tally.fingerprints.get(fingerprint)) is not None:
            self._give_way(holder)
        self._keep(lane.teacher, task, completion)
        entry |= {"outcome": "accepted", "fingerprint": fingerprint.hex(), "text": completion.text, **task.place}
        self.tally.accepted[task.spec.index] = self.journal.append(entry, record)
        self.tally.fingerprints[fingerprint] = task.spec.index
        lane.succeeded()
        self._show()

    def _accept(self, provider: str, task: Task, completion: Completion) -> tuple[str, bytes]:
        provenance = Provenance(
            provider=provider,
            model=completion.model,
            prompt_version=self.domain.prompt_version,
            spec_index=task.spec.index,
            spec_seed=task.spec.seed,
            request_key=completion.request_key,
            attempts=completion.attempts or task.number,
            prompt_tokens=completion.usage.prompt_tokens if completion.usage else None,
            completion_tokens=completion.usage.completion_tokens if completion.usage else None,
            generated_at=completion.created_at,
        )
        answer = self.domain.parse(completion.text, task.spec)
        words = self.domain.fingerprint(answer, task.spec)
        fingerprint = hashlib.blake2b(words.encode("utf-8", "surrogatepass"), digest_size=10).digest()
        if self.tally.fingerprints.get(fingerprint, task.spec.index) < task.spec.index:
            raise ParseFailure(_SAME)
        return self.domain.render(answer, task.spec, provenance).model_dump_json(), fingerprint

    def _give_way(self, index: int) -> None:
        """A record earlier in the plan came later and says the same: this one is worded differently."""
        entry = self._take_back(index)
        revoked = {"kind": "revoked", "index": index}
        self._drop(self._lane_of[index], self._task(entry), revoked, (_SAME,), entry["text"])

    def _take_back(self, index: int) -> dict[str, Any]:
        """Accepted no more; the journal's entry of it."""
        entry = self.journal.at(self.tally.accepted.pop(index))
        del self.tally.fingerprints[bytes.fromhex(entry["fingerprint"])]
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
        kinds = {_reason_kind(reason): reason for reason in reasons}
        lane.failed(kinds)
        self.journal.append(entry | {"outcome": "dropped", "reasons": list(kinds), **following.place})
        self.tally.drops.update(kinds.keys())
        self.tally.rejected_scores.update([entry["score"]] if "score" in entry else [])
        self._show()

    def _show(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if self._on_progress is None or (not force and now - self._shown < 0.25):
            return
        self._shown = now
        standing = tuple(lane.progress(now - self._started) for lane in self.lanes)
        self._on_progress(Progress(standing, sum(self.tally.drops.values())))

    def write(self, target: Path, manifest: dict[str, Any], splits: Sequence[str], *, replace: bool) -> Dataset:
        """The dataset folder, from the journal, in the plan's order, split by split."""
        by_split: dict[str, list[int]] = {split: [] for split in splits}
        for index in sorted(self.tally.accepted):
            by_split[split_of(self.plan.specs[index])].append(self.tally.accepted[index])
        with DatasetWriter(target, self.domain.name, manifest, replace=replace) as writer:
            for split, offsets in by_split.items():
                for batch in self._records(offsets):
                    writer.write(batch, split)
        return open_dataset(target)

    def _records(self, offsets: Sequence[int]) -> Iterator[list[dict[str, Any]]]:
        with self.journal.path.open("rb") as file:
            for start in range(0, len(offsets), _READ_BACK):
                batch = []
                for offset in offsets[start : start + _READ_BACK]:
                    file.seek(offset)
                    batch.append(json.loads(file.readline())["record"])
                yield batch


def request_for(domain: Domain, sampling: Sampling, teacher: Teacher, task: Task) -> Request:
    """What `teacher` is asked for a task; its key is the answer's place in the cache."""
    spec = task.spec
    if teacher.provider.capabilities.free:
        return Request(key="", offline_text=domain.offline_text(spec, task.number - 1), seed=spec.seed)
    prompt = domain.prompt(spec)
    messages = (*prompt.messages, *task.dialogue)
    seed = (spec.seed + task.candidate) % 2**31
    key = request_key(
        domain.name, domain.prompt_version, prompt.system, messages, teacher.identity,
        asdict(sampling), prompt.schema, seed,
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
    return replace(completion, request_key=completion.request_key or request.key or None)


def _reason_kind(reason: str) -> str:
    """A drop reason without the particulars, so that reasons can be counted."""
    return re.sub(r"\d+", "#", re.sub(r"(['\"]).*?\1", "…", reason))[:120]
