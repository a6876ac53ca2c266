"""Answers bought in batch jobs: requests go in, answers end up in the completion cache. Each step is journalled before the next."""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genesis_lab.errors import GenesisError, InvalidInput, ProviderError, QuotaExhausted
from genesis_lab.files import output_root
from genesis_lab.generation.journal import Journal
from genesis_lab.generation.teachers import Teacher
from genesis_lab.providers.base import Request
from genesis_lab.providers.bedrock_batch import NAMED, BatchService, Failure, Job, read_lines, record_line
from genesis_lab.providers.cache import CompletionCache
from genesis_lab.providers.models import base_model_id

FAILED_LOOKS = 20
"""Times in a row that the service may not be reached (a lid closed, a network gone) before waiting is given up."""


@dataclass
class Shard:
    """One job of a run and how far it has come. `uri` is empty until it is uploaded by this process, `arn` until the job
    is known, `status` until it was joined."""

    name: str
    token: str
    records: int
    uri: str = ""
    arn: str = ""
    status: str = ""
    answered: int = 0
    message: str = ""


class Batches:
    """Answers many requests at once through batch jobs. What is bought goes into `cache`, under the request's key.

    Nothing is bought twice: a shard and the token of its job are on disk and in ``jobs.jsonl`` before the job is
    created, and a job that is not joined yet is waited for instead of being created again.

    Parameters
    ----------
    provider, service : the model, and where its jobs run.
    folder : where shards and ``jobs.jsonl`` are kept while the run is unfinished.
    label : goes into the names of the jobs.
    """

    def __init__(
        self, provider: Any, service: BatchService, cache: CompletionCache, folder: Path, *, label: str
    ) -> None:
        self.provider, self.service, self.cache, self.folder = provider, service, cache, folder
        self.settings = service.settings
        self._label = re.sub(r"[^a-zA-Z0-9]+", "-", label)[:30].strip("-")
        self._stop = threading.Event()
        self._running = [shard for shard in read_shards(folder) if not shard.status]
        self._journal: Journal

    @property
    def unfinished(self) -> bool:
        """Jobs were begun whose answers are not joined yet."""
        return bool(self._running)

    @property
    def running_on(self) -> str:
        """``3 batch jobs of 120,000 records run on at AWS …``"""
        return f"{_jobs(self._running)} run on at AWS (`genesis jobs list` shows them)."

    def fill(self, requests: Iterable[Request], tell: Callable[[str], None] = lambda text: None) -> int:
        """Buy the answers that are not in the cache yet, and wait for them; returns the number of jobs.

        What is left over is fewer requests than a job must have, or was answered with an error.

        Raises
        ------
        GenesisError : the service can't be reached or refuses, or `stop` was called: jobs run on, and the same call again
            takes them up where they are. Or what is wrong with a job would be with another one too.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with Journal(self.folder / "jobs.jsonl", {}) as self._journal:
            running = self._running
            self._take_up(running)
            awaited = {key for shard in running for key in self._keys(shard)}
            for shard in self._shards(self._unanswered(requests, awaited)):
                running.append(shard)
                self._submit(shard, running)
                tell(f"{_jobs(running)} sent, sending more")
                if self._stop.is_set():
                    break
            return self._wait(running, tell) if running else 0

    def stop(self) -> None:
        """Make `fill` raise instead of waiting on. The jobs run on."""
        self._stop.set()

    def _take_up(self, running: list[Shard]) -> None:
        """What an earlier process left: half a shard is written anew, a job that it may have created is looked for."""
        whole = {shard.name for shard in running}
        for file in self.folder.glob(f"{NAMED}*"):
            if file.name.partition(".")[0] not in whole:
                file.unlink()  # half a shard, left by a kill
        for shard in list(running):
            if shard.arn:
                continue
            if job := self.service.find(shard.name):
                self._created(shard, job.arn)
            elif not self._file(shard.name, "jsonl").exists():
                self._journal.append({"kind": "joined", "name": shard.name, "status": "Never sent", "answered": 0})
                running.remove(shard)

    def _unanswered(self, requests: Iterable[Request], awaited: set[str]) -> Iterator[Request]:
        for request in requests:
            if request.key not in awaited and request.key not in self.cache:
                awaited.add(request.key)
                yield request

    # --- sending ---------------------------------------------------------------------------------------------------

    def _shards(self, requests: Iterable[Request]) -> Iterator[Shard]:
        """Write requests into files of at most the size of a job, as they come; each is journalled when it is whole."""
        rest, held = iter(requests), None
        while True:
            name = f"{NAMED}{self._label}-{uuid.uuid4().hex[:12]}".replace("--", "-")
            lines, keys = self._file(name, "jsonl"), self._file(name, "keys")
            count = size = 0
            with lines.open("wb") as line_file, keys.open("w", encoding="ascii") as key_file:
                while count < self.settings.batch_max_records and (request := held or next(rest, None)):
                    line, held = record_line(self.provider, count + 1, request), None
                    if size + len(line) > self.settings.batch_max_bytes:
                        held = request
                        break
                    line_file.write(line)
                    key_file.write(request.key + "\n")
                    count, size = count + 1, size + len(line)
            if count < self.settings.batch_min_records:
                lines.unlink()
                keys.unlink()
                return
            shard = Shard(name, uuid.uuid4().hex, count)
            self._journal.append({"kind": "shard", "name": name, "token": shard.token, "records": count})
            yield shard

    def _submit(self, shard: Shard, running: list[Shard]) -> None:
        """Send a shard; where the account has too many jobs it is left for later, as long as some of ours run."""
        try:
            target = self.provider.target()
            shard.uri = shard.uri or self.service.upload(self._file(shard.name, "jsonl"))
            self._created(shard, self.service.create(shard.name, shard.token, target.call_id, shard.uri))
        except QuotaExhausted:
            if not any(other.arn for other in running):
                raise

    def _created(self, shard: Shard, arn: str) -> None:
        self._journal.append({"kind": "created", "name": shard.name, "arn": arn})
        shard.arn = arn
        self._file(shard.name, "jsonl").unlink(missing_ok=True)

    # --- waiting and joining ---------------------------------------------------------------------------------------

    def _wait(self, running: list[Shard], tell: Callable[[str], None]) -> int:
        started, failed_looks, number = time.monotonic(), 0, len(running)
        problems: list[str] = []
        answered = 0
        seen: dict[str, Job] = {}
        while running:
            try:
                for shard in list(running):
                    if not shard.arn:
                        self._submit(shard, running)
                        continue
                    job = self.service.get(shard.arn)
                    seen[shard.name] = job
                    if job.ended:
                        problems += filter(None, [self._join(shard, job)])
                        answered += shard.answered
                        running.remove(shard)
                failed_looks = 0
            except ProviderError as error:
                failed_looks += 1
                if not error.can_retry or failed_looks >= FAILED_LOOKS:
                    raise
            tell(_state(list(seen.values()), time.monotonic() - started))
            if running and self._stop.wait(self.settings.batch_poll_s):
                raise GenesisError(f"Stopped waiting: {self.running_on}")
        if not problems and not answered:
            states = ", ".join(sorted({job.status for job in seen.values()}))
            problems.append(f"No record of the batch jobs was answered ({states}).")
        if problems:
            raise GenesisError(f"{problems[0]} What was answered is saved: run the same again to send the rest.")
        return number

    def _join(self, shard: Shard, job: Job) -> str:
        """Take a job's answers into the cache. Returns what is wrong with it that another job would run into as well."""
        keys, file = self._keys(shard), self._file(shard.name, "out")
        wrong: Counter[str] = Counter()
        shard.answered = 0
        if self.service.download(job, file):
            with file.open("rb") as lines:
                for number, answer in read_lines(self.provider, lines, job.ended_at or job.submitted_at):
                    if isinstance(answer, Failure):
                        wrong[answer.message] += 1
                    elif 1 <= number <= len(keys):
                        self.cache.put(keys[number - 1], answer)
                        shard.answered += 1
        shard.status, shard.message = job.status, job.message
        problem = _problem(shard, wrong)
        self._journal.append({
            "kind": "joined", "name": shard.name, "status": job.status, "answered": shard.answered,
            "message": problem or job.message,
        })  # fmt: skip
        for ending in ("out", "keys"):
            self._file(shard.name, ending).unlink(missing_ok=True)
        return problem

    def _keys(self, shard: Shard) -> list[str]:
        return self._file(shard.name, "keys").read_text(encoding="ascii").split()

    def _file(self, name: str, ending: str) -> Path:
        return self.folder / f"{name}.{ending}"


def batches_for(teacher: Teacher, cache: CompletionCache | None, work: Path) -> Batches | None:
    """How `teacher` answers in batch jobs that are kept in the work folder of a run; None if it is not to, and has not
    begun to."""
    service = getattr(teacher.provider, "batch", None)
    if service is None or cache is None:
        return None
    place = f"{base_model_id(teacher.provider.model)} {service.settings.aws_region or ''}".strip()
    folder = work / f"batch-{re.sub(r'[^a-zA-Z0-9.-]+', '-', place)}"
    batches = Batches(teacher.provider, service, cache, folder, label=work.stem)
    return batches if teacher.in_batch or batches.unfinished else None


def check_batch(teacher: Teacher, records: int) -> None:
    """Refuse what can't work before anything is paid for. Raises `InvalidInput` or `Fatal` with what to do."""
    if not teacher.in_batch:
        return
    service: BatchService = teacher.provider.batch  # type: ignore[attr-defined]
    if records < (minimum := service.settings.batch_min_records):
        raise InvalidInput(
            f"A batch job takes {minimum:,} records or more, and this run has {records:,}: ask on demand instead, with "
            "`-p provider=bedrock`."
        )
    service.check()


def read_shards(folder: Path) -> list[Shard]:
    """The jobs that ``jobs.jsonl`` in `folder` tells of, the oldest first; none where there is no such file."""
    path = folder / "jobs.jsonl"
    shards: dict[str, Shard] = {}
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            entry: dict[str, Any] = json.loads(line)
        except ValueError:
            continue  # torn by a kill
        kind, name = entry.pop("kind"), entry.get("name", "")
        if kind == "shard":
            shards[name] = Shard(**entry)
        elif name in shards:
            shards[name] = replace(shards[name], **entry)
    return list(shards.values())


def recorded() -> dict[str, tuple[str, Shard]]:
    """Dataset and shard of the jobs of unfinished runs under the output root, by name."""
    return {
        shard.name: (journal.parents[1].name.removesuffix(".run"), shard)
        for journal in sorted((output_root() / "datasets").glob("*.run/batch-*/jobs.jsonl"))
        for shard in read_shards(journal.parent)
    }


def known_jobs(service: BatchService) -> tuple[list[str], str]:
    """A line for each job, those that AWS does not know first, then its newest; and why AWS could not be asked, if so."""
    ours, told, problem = recorded(), {}, ""
    try:
        told = {job.name: job for job in service.jobs()}
    except GenesisError as error:
        problem = str(error)
    lines = []
    for name in [*(name for name in ours if name not in told), *told]:
        dataset, shard = ours.get(name, ("", None))
        job = told.get(name)
        status = job.status if job else shard and (shard.status or ("sent" if shard.arn else "not sent yet"))
        total = (job and job.records) or (shard.records if shard else 0)
        done = f"{job.processed:,} of {total:,} records" if job else f"{total:,} records"
        joined = ", joined" if shard and shard.status else ""
        lines.append(f"{name}  {status}  {done}" + (f", for {dataset}" if dataset else "") + joined)
    return lines, problem


def stop_job(service: BatchService, name: str) -> str:
    """Stop a job by name or ARN; what it has answered is kept. Returns its name.

    Raises
    ------
    InvalidInput : nobody knows it, it is not at AWS yet, or it has ended.
    """
    shard = recorded().get(name, ("", None))[1]
    if name.startswith("arn:"):
        job = service.get(name)
    elif shard and shard.arn:
        job = service.get(shard.arn)
    else:
        found = service.find(name)
        if found is None:
            why = f"{name} is not at AWS yet" if shard else f"There is no batch job {name}"
            raise InvalidInput(f"{why}: `genesis jobs list` shows those there are.")
        job = found
    service.stop(job.arn)
    return job.name


def _problem(shard: Shard, wrong: Counter[str]) -> str:
    if shard.status == "Failed":
        return f"Batch job {shard.name} failed: {shard.message or 'AWS does not say why'}"
    if shard.status == "Stopped":
        return f"Batch job {shard.name} was stopped."
    if wrong and not shard.answered:
        message, count = wrong.most_common(1)[0]
        return f"Every record of batch job {shard.name} failed, {count:,} of {shard.records:,} with: {message}"
    return ""


def _jobs(running: list[Shard]) -> str:
    there = [shard for shard in running if shard.arn]
    return f"{len(there)} batch job{'' if len(there) == 1 else 's'} of {sum(s.records for s in there):,} records"


def _state(seen: list[Job], waited_s: float) -> str:
    states = ", ".join(f"{count} {status}" for status, count in Counter(job.status for job in seen).items())
    done, total = sum(job.processed for job in seen), sum(job.records for job in seen)
    records = f" · {done:,} of {total:,} records" if total else ""
    return f"batch jobs, usually done within 24 hours: {states}{records} · {waited_s / 60:,.0f} min"
