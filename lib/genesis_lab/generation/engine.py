"""The engine: a plan goes in, exactly that many accepted records come out. It survives faults, Ctrl-C and kill -9."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from genesis_lab.dataset import Dataset, DatasetWriter, open_dataset
from genesis_lab.domains.base import Answer, Domain, Provenance, Spec
from genesis_lab.errors import GenesisError, Incomplete, Interrupted, InvalidInput, ParseFailure, Rejected
from genesis_lab.files import shown
from genesis_lab.generation.batch import Batches, batches_for, check_batch
from genesis_lab.generation.journal import JOURNAL, Journal, run_folder, work_folder
from genesis_lab.generation.plan import Plan, split_of
from genesis_lab.generation.state import REPAIRS, TOKENS, Lane, State, Task, progress, run_header, run_manifest, stopped
from genesis_lab.generation.teachers import Teacher, parts
from genesis_lab.providers.asking import Asking
from genesis_lab.providers.base import Completion, Provider, Request, request_key
from genesis_lab.providers.cache import CompletionCache

_SAME = "it says the same as an earlier record: word it differently"
_LOOK_S = 0.25
"""How often those who look on are told, also while nothing comes."""
_PARTING_S = 0.5
"""How long answers in flight are waited for when a run is ended; later ones still go into the cache."""


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
    on_progress: Callable[[Asking], None] | None = None,
) -> Dataset:
    """Generate the plan's records into the dataset folder `target`.

    Each answer is parsed and checked; a bad one is asked for again with what was wrong, at most `REPAIRS` times, then
    replaced by a fresh candidate. Everything is journalled beside the folder, so the same call after a crash goes on.

    The `teachers` write their shares at the same time, or one provider everything; each tries at most
    `candidate_budget` times its records (and 20 on top). The `cache` keeps raw answers of what is not free; `config` is
    what the user chose, for the manifest. With `replace_existing` a dataset of other settings goes when the new one is
    complete, a run at once.

    Raises
    ------
    Incomplete : candidates ran out, or nothing usable came any more. The dataset is there without the missing records,
        unless it would have none, and its manifest says why.
    InvalidInput : `target` holds other things, or another process is at it.
    GenesisError : a teacher can't go on, the disk is full, or it was interrupted; the journal keeps all.
    """
    who = list(teachers) if isinstance(teachers, Sequence) else [Teacher(teachers)]
    header, splits = run_header(plan, domain, who, asdict(sampling)), plan.splits()
    with run_folder(target, header, replace=replace_existing) as (found, others):
        if found and found.manifest["complete"]:
            return found
        counts = parts(who, len(plan.specs))
        for teacher in who:
            check_batch(teacher, counts[teacher.name])
        with Journal(work_folder(target) / JOURNAL, header) as journal:
            state = State(plan, domain, who, journal, candidate_budget)
            run = _Run(state, sampling, cache, on_progress)
            try:
                run.loop()
            except KeyboardInterrupt:
                jobs = [lane.batches.running_on for lane in state.lanes if lane.batches and lane.batches.unfinished]
                accepted = f"{len(state.accepted):,} of {len(plan.specs):,} records accepted and saved"
                raise Interrupted(
                    " ".join([f"Interrupted with {accepted}: run the same again to go on.", *jobs])
                ) from None
            manifest = run_manifest(header, config or {}, plan, state.lanes, state.drops, state.scores)
            missing = manifest["missing"]
            if not missing or not others:
                dataset = _written(state, target, manifest, splits, replace=bool(found) or others)
        if not missing:
            shutil.rmtree(work_folder(target))
            return dataset
    often = ", ".join(f"{reason} ({n:,} times)" for reason, n in state.drops.most_common(3))
    why = " ".join(str(lane.ended) for lane in state.lanes if lane.ended) or f"What came instead: {often}."
    where = f", so {shown(target)} was not replaced"
    if not others:
        where = f" in {shown(target)}, which holds the {dataset.total:,} that could be made"
    raise Incomplete(
        f"{missing:,} of {len(plan.specs):,} records are missing{where}. {why} Run the same again to try for the "
        "missing ones; with other settings (model, max_tokens) choose another name, or set replace to true."
    )


class _Run:
    """One generation run: asks the teachers, and settles what comes, always in the main thread."""

    def __init__(
        self,
        state: State,
        sampling: Sampling,
        cache: CompletionCache | None,
        on_progress: Callable[[Asking], None] | None,
    ) -> None:
        self.state, self.domain, self.lanes, self.cache = state, state.domain, state.lanes, cache
        self._request = partial(request_for, state.domain, sampling)
        self._calls: SimpleQueue[tuple[Lane, Callable[[], Any], Callable[[Any], None]] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[Lane, Callable[[], None]]] = SimpleQueue()
        self._threads = 0
        self._on_progress, self._started, self._shown = on_progress, time.monotonic(), 0.0
        for lane in self.lanes:
            lane.batches = batches_for(lane.teacher, cache, state.journal.path.parent)

    # --- asking -------------------------------------------------------------------------------------------------------

    def loop(self) -> None:
        """Work until every spec has a record, the candidate budgets are used up, or no teacher can go on."""
        try:
            while True:
                for lane in self.lanes:
                    if lane.batches and not lane.in_flight and (tasks := list(iter(lane.next, None))):
                        self._buy(lane, lane.batches, tasks)
                    while not lane.batches and lane.has_room and (task := lane.next()):
                        self._ask(lane, task)
                if not any(lane.in_flight for lane in self.lanes):
                    # Fresh candidates start together: who gets those that are left is then no matter of who was quick.
                    refilled = [lane.refill() for lane in self.lanes]
                    if any(refilled) or self.state.begin_lists():
                        continue
                    break
                with suppress(Empty):
                    lane, settle = self._done.get(timeout=_LOOK_S)
                    lane.in_flight -= 1
                    settle()
                self._show()
        except BaseException:
            # What is in flight is paid for: what comes within a moment is journalled. Then it ends.
            for lane in self.lanes:
                lane.stop()
            deadline = time.monotonic() + _PARTING_S
            with suppress(Empty):
                while any(lane.in_flight for lane in self.lanes):
                    lane, settle = self._done.get(timeout=max(deadline - time.monotonic(), 0))
                    lane.in_flight -= 1
                    if not lane.batches:
                        with suppress(Exception, KeyboardInterrupt):
                            settle()
            raise
        finally:
            for _ in range(self._threads):
                self._calls.put(None)
        self._shown = 0.0
        self._show()
        if any(lane.ended and not (isinstance(lane.ended, Incomplete) and lane.accepted) for lane in self.lanes):
            raise stopped(self.lanes)

    def _ask(self, lane: Lane, task: Task) -> None:
        """Settle a task whose answer is there, or costs nothing, at once, and any other when its answer has come."""
        request, settle = self._request(lane.teacher, task), partial(self._settle, lane, task)

        def call() -> Completion:
            completion = lane.teacher.call(request)
            if self.cache and request.key:
                self.cache.put(request.key, completion)
            return _signed(completion, request)

        if known := self._known(request):
            settle(_signed(known, request))
        elif lane.teacher.provider.free:
            settle(call())
        else:
            self._start(lane, call, settle)

    def _buy(self, lane: Lane, batches: Batches, tasks: list[Task]) -> None:
        """Have `tasks` answered in batch jobs, or only wait for those of an earlier session."""
        requests = (self._request(lane.teacher, task) for task in tasks if lane.teacher.in_batch)
        fill = partial(batches.fill, requests, partial(setattr, lane, "note"))
        self._start(lane, fill, partial(self._settle_batch, lane, tasks))

    def _start(self, lane: Lane, call: Callable[[], Any], settle: Callable[[Any], None]) -> None:
        """Have what `call` returns or raises settled when it is there. As many threads as calls were ever in flight
        take turns; they are daemons, so that neither Ctrl-C nor the end of the process waits for them."""
        lane.in_flight += 1
        if sum(each.in_flight for each in self.lanes) > self._threads:
            threading.Thread(target=self._work, name="genesis", daemon=True).start()
            self._threads += 1
        self._calls.put((lane, call, settle))

    def _work(self) -> None:
        """Make one call after the other, until there is a None."""
        while asked := self._calls.get():
            lane, call, settle = asked
            try:
                came = call()
            except BaseException as error:
                came = error
            self._done.put((lane, partial(settle, came)))

    def _known(self, request: Request) -> Completion | None:
        return self.cache.get(request.key) if self.cache and request.key else None

    # --- settling -----------------------------------------------------------------------------------------------------

    def _settle_batch(self, lane: Lane, tasks: list[Task], bought: int | BaseException) -> None:
        """Settle what batch jobs answered; the rest is asked in the next ones or, if it is too little, on demand."""
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

    def _settle(self, lane: Lane, task: Task, completion: Completion | BaseException) -> None:
        """Journal what came of a task, and put what follows from it into the teacher's queue."""
        line: dict[str, Any] = {"kind": "attempt"}
        if isinstance(completion, Completion):
            answer, usage = completion, completion.usage
            line |= {"usage": usage and [getattr(usage, name) for name in TOKENS], "cost_usd": completion.cost_usd}
            line |= {name: value for name in ("not_sent", "note") if (value := getattr(completion, name))}
            came = self._parsed(task, completion, line)
        elif isinstance(completion, Rejected):
            answer, came = None, [[f"rejected by the provider: {completion}"]] * len(task.specs)
        elif isinstance(completion, GenesisError):
            lane.end(completion)
            lane.put_back(task)
            return
        else:
            raise completion
        items: list[dict[str, Any]] = []
        wrong: dict[str, str] = {}
        for spec, one in zip(task.specs, came, strict=True):
            item = self.state.item(task, spec, one, items) if isinstance(one, dict) else None
            if item is None:
                kinds = {_kind(reason): reason for reason in (one if isinstance(one, list) else [_SAME])}
                wrong |= kinds
                item = {"index": spec.index, "reasons": list(kinds)}
            elif answer:
                if (holder := self.state.holders.get(item["fingerprint"])) is not None:
                    self._revoke(holder, item["fingerprint"])  # later in the plan, it came earlier
                item["attempts"] = (answer.attempts or task.tries + 1) + self.state.refused[spec.index]
            items.append(item)
        used = any("answer" in item for item in items)
        if answer and used:
            at, of = answer.created_at, {"provider": lane.teacher.provider.name, "model": answer.model}
            made = of | {"request_key": answer.request_key, "generated_at": at and at.isoformat()}
            line |= {"tries": task.tries, "dialogue": task.dialogue, "made": made}
            if task.key is None and answer.request_key:
                line["text"] = answer.text  # else it can be had again for nothing
        else:
            line |= _following(task, wrong.values(), answer.text if answer else None)
        if self.cache and answer and (task.tries or not used):
            self._keep(self.cache, lane, task, answer if used else None)
        lane.came(wrong, used=used)
        self.state.write(line | {"specs": items})
        self._show()

    def _parsed(self, task: Task, completion: Completion, line: dict[str, Any]) -> list[Answer | list[str]]:
        """For each record of a task its answer, or why it has none."""
        early = [completion.note] if completion.note else []
        if completion.stop_reason not in ("end", "stop_sequence"):
            early.append(f"the model stopped early ({completion.stop_reason})")
        try:
            if task.key is None:
                return [self.domain.parse(completion.text, task.specs[0])]
            found = self.domain.parse_list(completion.text, task.specs)
        except ParseFailure as failure:
            if failure.score is not None:
                line["score"] = round(failure.score, 2)
            return [[*early, *failure.reasons]] * len(task.specs)
        return [[*early, one] if isinstance(one, str) else one for one in found]

    def _revoke(self, index: int, fingerprint: str) -> None:
        """Take an accepted record back and have it worded differently."""
        lane, old = self.state.lane_of[index], next(self.state.journal.read([self.state.accepted[index]]))
        task = Task((self.state.plan.specs[index],), old["tries"], tuple(old["dialogue"]))
        text = old.get("text") or self._request(lane.teacher, task).offline_text
        lane.came({_kind(_SAME): _SAME}, used=False)
        revoked = {"index": index, "fingerprint": fingerprint, "reasons": [_SAME]}
        self.state.write({"kind": "revoked", **_following(task, [_SAME], text), "specs": [revoked]})

    def _keep(self, cache: CompletionCache, lane: Lane, task: Task, completion: Completion | None) -> None:
        """What can't be used is forgotten, so that the next run asks anew. What is used is kept under its first key."""
        if key := self._request(lane.teacher, task).key:
            cache.forget(key)
            if completion:
                first = self._request(lane.teacher, replace(task, tries=0, dialogue=()))
                cache.put(first.key, replace(completion, attempts=task.tries + 1))

    def _show(self) -> None:
        now = time.monotonic()
        if self._on_progress and now - self._shown >= _LOOK_S:
            self._shown = now
            self._on_progress(progress(self.lanes, self.state.drops.total(), now - self._started))


def _written(state: State, target: Path, manifest: dict[str, Any], splits: Sequence[str], *, replace: bool) -> Dataset:
    """The dataset folder, rendered from the journal's answers, in the plan's order, split by split."""
    by_split: dict[str, list[int]] = {split: [] for split in splits}
    for index in sorted(state.accepted):
        by_split[split_of(state.plan.specs[index])].append(index)
    with DatasetWriter(target, state.domain.name, manifest, replace=replace) as writer:
        for split, indices in by_split.items():
            writer.write(state.domain.render_all(_answered(state, indices)), split)
    return open_dataset(target)


def _answered(state: State, indices: Sequence[int]) -> Iterator[tuple[Answer, Spec, Provenance]]:
    for index, line in zip(indices, state.journal.read(map(state.accepted.__getitem__, indices)), strict=True):
        spec, n = state.plan.specs[index], len(line["specs"])
        place, item = next((p, item) for p, item in enumerate(line["specs"]) if item["index"] == index)
        # Each record of a list has its part of the tokens, and the parts add up.
        usage = [(place + 1) * tokens // n - place * tokens // n for tokens in line["usage"] or ()]
        provenance = Provenance(
            **line["made"],
            prompt_version=state.domain.prompt_version if line["made"]["request_key"] else state.domain.offline_version,
            spec_index=spec.index,
            spec_seed=spec.seed,
            attempts=item["attempts"],
            prompt_tokens=usage[0] if usage else None,
            completion_tokens=usage[1] if usage else None,
        )
        yield item["answer"], spec, provenance


def request_for(domain: Domain, sampling: Sampling, teacher: Teacher, task: Task) -> Request:
    """What `teacher` is asked for a task; its key is the answer's place in the cache, empty for answers not worth it.

    Raises `InvalidInput` where a free provider is asked for what the domain has no text of its own for.
    """
    spec = task.specs[0]
    if teacher.provider.free:
        if (text := domain.offline_text(spec, task.tries)) is None:
            raise InvalidInput(f"There is no offline text of {domain.name}: choose a model as provider.")
        return Request(key="", offline_text=text, seed=spec.seed)
    prompt = domain.prompt(spec) if task.key is None else domain.list_prompt(task.specs, task.known)
    messages = (*prompt.messages, *task.dialogue)
    seed = (spec.seed + task.tries // (REPAIRS + 1)) % 2**31
    made_of = (domain.name, domain.prompt_version, prompt.system, messages, teacher.identity, vars(sampling))
    key = request_key(*made_of, prompt.schema, seed)
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
    return completion if completion.request_key or not request.key else replace(completion, request_key=request.key)


def _following(task: Task, reasons: Iterable[str], text: str | None) -> dict[str, Any]:
    """`tries` and `dialogue` of the task that follows one that came to nothing: told why, or begun anew."""
    if text is None or task.tries % (REPAIRS + 1) == REPAIRS:
        return {"tries": (task.tries // (REPAIRS + 1) + 1) * (REPAIRS + 1), "dialogue": ()}
    wrong = "\n".join(f"- {reason}" for reason in reasons)
    again = (
        ("assistant", text or "(empty)"),
        ("user", f"That answer can't be used:\n{wrong}\nAnswer again with the corrected JSON only."),
    )
    return {"tries": task.tries + 1, "dialogue": (*task.dialogue, *again)}


def _kind(reason: str) -> str:
    """A reason without its particulars, so that reasons can be counted."""
    return re.sub(r"\d+", "#", re.sub(r"(['\"]).*?\1", "…", reason))[:120]
