"""The engine: a plan goes in, exactly that many accepted records come out. It survives faults, Ctrl-C and kill -9."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from filelock import FileLock, Timeout

from genesis_lab.dataset import Dataset, DatasetWriter, open_dataset
from genesis_lab.dataset.writing import write_error
from genesis_lab.domains.base import Domain, Provenance, Spec
from genesis_lab.errors import GenesisError, InvalidInput, ParseFailure, Rejected
from genesis_lab.generation.cache import CompletionCache
from genesis_lab.generation.journal import Journal
from genesis_lab.generation.plan import Plan
from genesis_lab.paths import shown
from genesis_lab.providers.base import Completion, Message, Provider, Request, Usage, request_key

REPAIRS = 2
"""Times a model is told what was wrong with its answer before a fresh candidate is tried."""
_READ_BACK = 5_000
"""Records read back from the journal at once when the dataset is written."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands. `rate` is accepted records per second of this session, `eta_s` and `cost_usd` None if unknown."""

    done: int
    total: int
    rejected: int
    rate: float
    eta_s: float | None
    cost_usd: float | None


@dataclass(frozen=True)
class Sampling:
    """How a model is sampled; None leaves the model's own default."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int = 2048


@dataclass
class _Task:
    spec: Spec
    candidate: int = 0
    repair: int = 0
    dialogue: tuple[Message, ...] = ()


@dataclass
class _Tally:
    accepted: dict[int, int] = field(default_factory=dict)
    """Spec index to byte offset of its journal line."""
    candidates: Counter[int] = field(default_factory=Counter)
    """Spec index to candidates given up."""
    fingerprints: set[bytes] = field(default_factory=set)
    drops: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    usage: Usage = field(default_factory=Usage)
    cost_usd: float | None = 0.0

    def charge(self, usage: Usage, cost_usd: float | None) -> None:
        self.attempts += 1
        self.usage = Usage(*(getattr(self.usage, n) + getattr(usage, n) for n in Usage.__dataclass_fields__))
        self.cost_usd = None if self.cost_usd is None or cost_usd is None else self.cost_usd + cost_usd


def generate(
    plan: Plan,
    domain: Domain,
    provider: Provider,
    target: Path,
    *,
    sampling: Sampling = Sampling(),
    call: Callable[[Request], Completion] | None = None,
    stop: Callable[[], None] | None = None,
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
    call : sends one request (a scheduler that waits and retries); default: the provider itself.
    stop : called when the run is given up, so that a `call` that waits for quota raises instead.
    cache : where raw answers are kept; not used for free providers.
    config : what the user chose, for the manifest.
    candidate_budget : candidates tried in all, as a multiple of the plan's size (and 20 on top).
    replace_existing : delete a dataset or an unfinished run that was made with other settings.
    on_progress : called a few times a second.

    Returns
    -------
    The dataset. Its manifest says ``complete: false`` and why, if the candidate budget ran out first.

    Raises
    ------
    InvalidInput : `target` holds a dataset or an unfinished run with other settings, or another process is at it.
    GenesisError : the provider can't go on, the disk is full, or the run was interrupted; the journal keeps all so far.
    """
    header = _header(plan, domain, provider, sampling)
    work = target.with_name(target.name + ".run")
    if replace_existing:
        _discard_other(target, work, header)
    if (target / "manifest.json").exists():
        dataset = _existing(target, header)
        shutil.rmtree(work, ignore_errors=True)  # left by a kill just after the dataset was complete
        return dataset
    lock = work.with_name(work.name + ".lock")
    try:
        work.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=0):
            with Journal(work / "journal.jsonl", header) as journal:
                run = _Run(plan, domain, provider, journal, sampling, call or provider.complete, cache, on_progress)
                run.stop = stop
                run.candidates_left = math.ceil(len(plan.specs) * candidate_budget) + 20
                run.resume()
                try:
                    run.loop()
                except KeyboardInterrupt:
                    raise GenesisError(
                        f"Interrupted with {len(run.tally.accepted):,} of {len(plan.specs):,} records accepted and saved: "
                        "run the same again to go on."
                    ) from None
                dataset = run.write(target, _manifest(run, header, config or {}))
            shutil.rmtree(work)
            lock.unlink(missing_ok=True)
    except Timeout:
        raise InvalidInput(
            f"Another process is generating {shown(target)} right now: wait for it or choose another name."
        ) from None
    except OSError as error:
        raise write_error(error, target) from None
    return dataset


class _Run:
    """One generation run: what is accepted, what is in flight, what is left."""

    def __init__(
        self,
        plan: Plan,
        domain: Domain,
        provider: Provider,
        journal: Journal,
        sampling: Sampling,
        call: Callable[[Request], Completion],
        cache: CompletionCache | None,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.plan, self.domain, self.provider = plan, domain, provider
        self.journal, self.sampling, self.call = journal, sampling, call
        self.cache = None if provider.capabilities.free else cache
        self.tally = _Tally()
        self.candidates_left = len(plan.specs)
        self.stop: Callable[[], None] | None = None
        self._on_progress = on_progress
        self._started = time.monotonic()
        self._shown = 0.0
        self._resumed = 0

    def resume(self) -> None:
        """Take over what an earlier session of the same run journalled."""
        for offset, entry in self.journal.entries():
            if entry["kind"] != "attempt":
                continue
            self.tally.charge(Usage(*entry.get("usage", (0, 0, 0, 0))), entry.get("cost_usd", 0.0))
            if entry["outcome"] == "accepted":
                self.tally.accepted[entry["index"]] = offset
                self.tally.fingerprints.add(bytes.fromhex(entry["fingerprint"]))
            else:
                self.tally.drops.update(entry["reasons"])
                if entry["last"]:
                    self.tally.candidates[entry["index"]] += 1
        self._resumed = len(self.tally.accepted)
        self.candidates_left -= self._resumed + sum(self.tally.candidates.values())

    def loop(self) -> None:
        """Work until every spec has a record or the candidate budget is used up."""
        todo = deque(
            _Task(spec, self.tally.candidates[spec.index])
            for spec in self.plan.specs
            if spec.index not in self.tally.accepted
        )
        width = self.provider.capabilities.concurrency
        if width == 1:
            while todo and self._may_try(todo[0]):
                task = todo.popleft()
                self._settle(todo, task, self._try(task))
            self._show(force=True)
            return
        answers: SimpleQueue[tuple[_Task, Completion | BaseException]] = SimpleQueue()
        in_flight = 0

        def work(task: _Task) -> None:
            answers.put((task, self._try(task)))

        pool = ThreadPoolExecutor(width, thread_name_prefix="genesis")
        try:
            while True:
                while todo and in_flight < width and self._may_try(todo[0]):
                    pool.submit(work, todo.popleft())
                    in_flight += 1
                if not in_flight:
                    break
                task, answer = answers.get()
                in_flight -= 1
                self._settle(todo, task, answer)
        except BaseException:
            # What is in flight is paid for: let it finish and journal it, then stop.
            if self.stop:
                self.stop()
            while in_flight:
                task, answer = answers.get()
                in_flight -= 1
                if isinstance(answer, Completion):
                    self._settle(deque(), task, answer)
            raise
        finally:
            pool.shutdown(wait=True)
        self._show(force=True)

    def _may_try(self, task: _Task) -> bool:
        if task.repair:
            return True
        if self.candidates_left <= 0:
            return False
        self.candidates_left -= 1
        return True

    def _request(self, task: _Task) -> Request:
        spec, free = task.spec, self.provider.capabilities.free
        if free:
            attempt = task.candidate * (REPAIRS + 1) + task.repair
            return Request(key="", offline_text=self.domain.offline_text(spec, attempt), seed=spec.seed)
        prompt = self.domain.prompt(spec)
        messages = (*prompt.messages, *task.dialogue)
        seed = (spec.seed + task.candidate) % 2**31
        key = request_key(
            self.domain.name, self.domain.prompt_version, prompt.system, messages, self.provider.name,
            self.provider.model, _sampling(self.sampling), prompt.schema, seed,
        )  # fmt: skip
        return Request(
            key=key,
            system=prompt.system,
            messages=messages,
            schema=prompt.schema,
            schema_name=prompt.schema_name,
            max_tokens=self.sampling.max_tokens,
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
            seed=seed,
            stable_messages=prompt.stable,
        )

    def _answer(self, task: _Task) -> Completion:
        request = self._request(task)
        completion = self.cache.get(request.key) if self.cache else None
        if completion is None:
            completion = self.call(request)
            if self.cache:
                self.cache.put(request.key, completion)
        return replace(completion, request_key=request.key) if request.key else completion

    def _try(self, task: _Task) -> Completion | BaseException:
        try:
            return self._answer(task)
        except BaseException as error:
            return error

    def _settle(self, todo: deque[_Task], task: _Task, completion: Completion | BaseException) -> None:
        """Journal what came of a task, and put what must be tried again at the head of the queue."""
        entry: dict[str, Any] = {"kind": "attempt", "index": task.spec.index}
        if isinstance(completion, Rejected):
            self._drop(todo, task, entry, (f"rejected by the provider: {completion}",), None)
            return
        if isinstance(completion, BaseException):
            raise completion
        u = completion.usage
        entry["usage"] = (u.prompt_tokens, u.completion_tokens, u.cache_read_tokens, u.cache_write_tokens)
        entry["cost_usd"] = completion.cost_usd
        self.tally.charge(u, completion.cost_usd)
        try:
            record, fingerprint = self._accept(task, completion)
        except ParseFailure as failure:
            reasons = failure.reasons
            if completion.stop_reason not in ("end", "stop_sequence"):
                reasons = (f"the model stopped early ({completion.stop_reason})", *reasons)
            self._drop(todo, task, entry, reasons, completion.text)
            return
        entry |= {"outcome": "accepted", "fingerprint": fingerprint.hex()}
        self.tally.accepted[task.spec.index] = self.journal.append(entry, record)
        self.tally.fingerprints.add(fingerprint)
        self._show()

    def _accept(self, task: _Task, completion: Completion) -> tuple[str, bytes]:
        provenance = Provenance(
            provider=self.provider.name,
            model=completion.model,
            prompt_version=self.domain.prompt_version,
            spec_index=task.spec.index,
            spec_seed=task.spec.seed,
            request_key=completion.request_key,
            attempts=task.candidate * (REPAIRS + 1) + task.repair + 1,
            prompt_tokens=completion.usage.prompt_tokens,
            completion_tokens=completion.usage.completion_tokens,
            generated_at=completion.created_at,
        )
        record = self.domain.parse(completion.text, task.spec, provenance)
        words = self.domain.fingerprint(record)
        fingerprint = hashlib.blake2b(words.encode("utf-8", "surrogatepass"), digest_size=10).digest()
        if fingerprint in self.tally.fingerprints:
            raise ParseFailure("it says the same as an earlier record: word it differently")
        return record.model_dump_json(), fingerprint

    def _drop(
        self, todo: deque[_Task], task: _Task, entry: dict[str, Any], reasons: tuple[str, ...], text: str | None
    ) -> None:
        last = text is None or task.repair >= REPAIRS
        self.journal.append(entry | {"outcome": "dropped", "reasons": [_reason_kind(r) for r in reasons], "last": last})
        self.tally.drops.update(_reason_kind(reason) for reason in reasons)
        if last:
            self.tally.candidates[task.spec.index] += 1
            todo.append(_Task(task.spec, task.candidate + 1))
        else:
            wrong = "\n".join(f"- {reason}" for reason in reasons)
            again: tuple[Message, ...] = (
                ("assistant", text or "(empty)"),
                ("user", f"That answer can't be used:\n{wrong}\nAnswer again with the corrected JSON only."),
            )
            todo.appendleft(_Task(task.spec, task.candidate, task.repair + 1, task.dialogue + again))
        self._show()

    def _show(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if self._on_progress is None or (not force and now - self._shown < 0.25):
            return
        self._shown = now
        done, total = len(self.tally.accepted), len(self.plan.specs)
        rate = (done - self._resumed) / max(now - self._started, 1e-9)
        eta_s = (total - done) / rate if rate else None
        self._on_progress(Progress(done, total, sum(self.tally.drops.values()), rate, eta_s, self.tally.cost_usd))

    def write(self, target: Path, manifest: dict[str, Any]) -> Dataset:
        """The dataset folder, from the journal, in the plan's order."""
        with DatasetWriter(target, self.domain.name, manifest) as writer:
            for batch in self._accepted_records():
                writer.write(batch)
        return open_dataset(target)

    def _accepted_records(self) -> Iterator[list[dict[str, Any]]]:
        offsets = [self.tally.accepted[index] for index in sorted(self.tally.accepted)]
        with self.journal.path.open("rb") as file:
            for start in range(0, len(offsets), _READ_BACK):
                batch = []
                for offset in offsets[start : start + _READ_BACK]:
                    file.seek(offset)
                    batch.append(json.loads(file.readline())["record"])
                yield batch


def _sampling(sampling: Sampling) -> dict[str, Any]:
    return {name: getattr(sampling, name) for name in Sampling.__dataclass_fields__}


def _reason_kind(reason: str) -> str:
    """A drop reason without the particulars, so that reasons can be counted."""
    return re.sub(r"\d+", "#", re.sub(r"(['\"]).*?\1", "…", reason))[:120]


def _header(plan: Plan, domain: Domain, provider: Provider, sampling: Sampling) -> dict[str, Any]:
    return {
        "domain": domain.name,
        "schema_version": domain.version,
        "prompt_version": domain.prompt_version,
        "total": len(plan.specs),
        "seed": plan.seed,
        "provider": provider.name,
        "model": provider.model,
        "sampling": _sampling(sampling),
        "plan_hash": plan.hash,
    }


def _manifest(run: _Run, header: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    tally, total = run.tally, len(run.plan.specs)
    missing = total - len(tally.accepted)
    return {
        "generation": header,
        "config": config,
        "config_hash": request_key(header),
        "plan": run.plan.counts(),
        "complete": not missing,
        "missing": missing,
        "attempts": tally.attempts,
        "drop_reasons": dict(tally.drops.most_common()),
        "usage": {name: getattr(tally.usage, name) for name in Usage.__dataclass_fields__},
        "cost_usd": tally.cost_usd,
    }


def _existing(target: Path, header: dict[str, Any]) -> Dataset:
    """The dataset that is already there, if this very run made it."""
    dataset = open_dataset(target)
    found = dataset.manifest.get("generation")
    if found != json.loads(json.dumps(header)):
        known = found or {}
        changed = ", ".join(f"{k} was {known.get(k)!r}, now {v!r}" for k, v in header.items() if known.get(k) != v)
        raise InvalidInput(
            f"{shown(target)} already holds a dataset made with other settings ({changed}): "
            "choose another name, or set replace to true to delete it."
        )
    return dataset


def _discard_other(target: Path, work: Path, header: dict[str, Any]) -> None:
    """Delete a dataset and an unfinished run that other settings made."""
    wanted = json.loads(json.dumps(header))
    manifest, journal = target / "manifest.json", work / "journal.jsonl"
    if manifest.exists() and json.loads(manifest.read_text(encoding="utf-8")).get("generation") != wanted:
        shutil.rmtree(target)
    if journal.exists():
        with journal.open("rb") as file:
            first = file.readline()
        try:
            same = {k: v for k, v in json.loads(first).items() if k != "kind"} == wanted
        except ValueError:
            same = False
        if not same:
            shutil.rmtree(work)
