"""Answers bought in batch jobs, which end up in the cache of answers. Each step is journalled before the next."""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from genesis_lab.errors import GenesisError, InvalidInput, ProviderError, QuotaExhausted
from genesis_lab.files import output_root
from genesis_lab.generation.journal import Journal
from genesis_lab.generation.teachers import Teacher
from genesis_lab.providers.base import Request
from genesis_lab.providers.bedrock_batch import NAMED, BatchService, Job, read_lines, record_line
from genesis_lab.providers.cache import CompletionCache
from genesis_lab.providers.models import base_model_id

FAILED_LOOKS = 20
"""Times in a row that the service may not be reached (a lid closed, a network gone) before waiting is given up."""

Shard = dict[str, Any]
"""One job of a run: `name`, the `token` it is created with, `records`; then its `arn`, and the `status` in which it was
joined with how many it `answered`."""


class Batches:
    """Answers many requests at once through batch jobs. What is bought goes into `cache`, under the request's key.

    Nothing is bought twice: a shard and its token are on disk, in ``jobs.jsonl`` of `folder`, before the job is made,
    the same token never starts a second job, and one that is not joined yet is waited for.
    """

    def __init__(self, teacher: Teacher, service: BatchService, cache: CompletionCache, work: Path) -> None:
        self.provider: Any = teacher.provider
        self.service, self.cache, self._stop = service, cache, threading.Event()
        place = f"{base_model_id(teacher.provider.model)} {service.settings.aws_region or ''}".strip()
        self.folder = work / f"batch-{re.sub(r'[^a-zA-Z0-9.-]+', '-', place)}"
        self._label = re.sub(r"[^a-zA-Z0-9]+", "-", work.stem)[:30].strip("-")
        self._running = [shard for shard in read_shards(self.folder) if "status" not in shard]

    @property
    def unfinished(self) -> bool:
        """Jobs were begun whose answers are not joined yet."""
        return bool(self._running)

    @property
    def running_on(self) -> str:
        return f"{self._jobs()} run on at AWS (`genesis jobs list` shows them)."

    def fill(self, requests: Iterable[Request], tell: Callable[[str], None] = lambda text: None) -> int:
        """Buy the answers that are not in the cache yet, and wait for them; returns the number of jobs.

        What is left over is fewer requests than a job must have, or was answered with an error. Raises `GenesisError`
        where the service can't be reached or `stop` was called (jobs run on, and the same call again takes them up), or
        where what is wrong with a job would be with another one too.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with Journal(self.folder / "jobs.jsonl", {}) as self._journal:
            awaited = {key for shard in self._running for key in self._keys(shard)}
            missing = (each for each in requests if each.key not in awaited and each.key not in self.cache)
            for shard in self._shards(missing):
                self._running.append(shard)
                self._submit(shard)
                tell(f"{self._jobs()} sent, sending more")
                if self._stop.is_set():
                    break
            return self._wait(tell) if self._running else 0

    def stop(self) -> None:
        """Make `fill` raise instead of waiting on."""
        self._stop.set()

    # --- sending ------------------------------------------------------------------------------------------------------

    def _shards(self, requests: Iterable[Request]) -> Iterator[Shard]:
        """Write requests into files of at most the size of a job, as they come; each is journalled when it is whole."""
        rest, held, settings = iter(requests), None, self.service.settings
        while True:
            name = f"{NAMED}{self._label}-{uuid.uuid4().hex[:12]}".replace("--", "-")
            shard: Shard = {"name": name, "token": uuid.uuid4().hex}
            count = size = 0
            with self._file(shard).open("wb") as lines:
                while count < settings.batch_max_records and (request := held or next(rest, None)):
                    line, held = record_line(self.provider, count + 1, request), None
                    if size + len(line) > settings.batch_max_bytes:
                        held = request
                        break
                    lines.write(line)
                    count, size = count + 1, size + len(line)
            if count < settings.batch_min_records:
                self._file(shard).unlink()
                return
            self._note("shard", shard, token=shard["token"], records=count)
            yield shard

    def _submit(self, shard: Shard) -> None:
        """Send a shard; where the account has too many jobs it is left for later, as long as some of ours run."""
        try:
            target = self.provider.target()
            shard["uri"] = shard.get("uri") or self.service.upload(self._file(shard))
            arn = self.service.create(shard["name"], shard["token"], target.call_id, shard["uri"])
            self._note("created", shard, arn=arn)
        except QuotaExhausted:
            if not any("arn" in other for other in self._running):
                raise

    # --- waiting and joining ------------------------------------------------------------------------------------------

    def _wait(self, tell: Callable[[str], None]) -> int:
        started, failed_looks, number, answered = time.monotonic(), 0, len(self._running), 0
        problems: list[str] = []
        seen: dict[str, Job] = {}
        while self._running:
            try:
                for shard in list(self._running):
                    if "arn" not in shard:
                        self._submit(shard)
                        continue
                    seen[shard["name"]] = job = self.service.get(shard["arn"])
                    if job.ended:
                        problems += filter(None, [self._join(shard, job)])
                        answered += shard["answered"]
                        self._running.remove(shard)
                failed_looks = 0
            except ProviderError as error:
                failed_looks += 1
                if not error.can_retry or failed_looks >= FAILED_LOOKS:
                    raise
            states = ", ".join(f"{n} {state}" for state, n in Counter(job.status for job in seen.values()).items())
            done, total = (sum(getattr(job, name) for job in seen.values()) for name in ("processed", "records"))
            minutes = (time.monotonic() - started) / 60
            counted = f"{states} · {done:,} of {total:,} records · {minutes:,.0f} min"
            tell(f"batch jobs, usually done within 24 hours: {counted}")
            if self._running and self._stop.wait(self.service.settings.batch_poll_s):
                raise GenesisError(f"Stopped waiting: {self.running_on}")
        if not problems and not answered:
            ends = ", ".join(sorted({job.status for job in seen.values()}))
            problems.append(f"No record of the batch jobs was answered ({ends}).")
        if problems:
            raise GenesisError(f"{problems[0]} What was answered is saved: run the same again to send the rest.")
        return number

    def _join(self, shard: Shard, job: Job) -> str:
        """Take a job's answers into the cache. Returns what is wrong with it that another job would run into too."""
        keys, file = self._keys(shard), self._file(shard, "out")
        wrong, answered, problem = Counter[str](), 0, ""
        if self.service.download(job, file):
            with file.open("rb") as lines:
                for number, answer in read_lines(self.provider, lines, job.ended_at or job.submitted_at):
                    if isinstance(answer, str):
                        wrong[answer] += 1
                    elif 1 <= number <= len(keys):
                        self.cache.put(keys[number - 1], answer)
                        answered += 1
        if job.status == "Failed":
            problem = f"Batch job {job.name} failed: {job.message or 'AWS does not say why'}"
        elif job.status == "Stopped":
            problem = f"Batch job {job.name} was stopped."
        elif wrong and not answered:
            message, count = wrong.most_common(1)[0]
            problem = f"Every record of batch job {job.name} failed, {count:,} of {shard['records']:,} with: {message}"
        self._note("joined", shard, status=job.status, answered=answered, message=problem or job.message)
        for ending in ("out", "jsonl"):
            self._file(shard, ending).unlink(missing_ok=True)
        return problem

    def _note(self, kind: str, shard: Shard, **facts: Any) -> None:
        """Journal what is new of a shard."""
        self._journal.append({"kind": kind, "name": shard["name"], **facts})
        shard |= facts

    def _jobs(self) -> str:
        there = [shard["records"] for shard in self._running if "arn" in shard]
        return f"{len(there)} batch job{'' if len(there) == 1 else 's'} of {sum(there):,} records"

    def _keys(self, shard: Shard) -> list[str]:
        with self._file(shard).open("rb") as lines:
            return [from_json(line)["modelInput"]["requestMetadata"]["request_key"] for line in lines]

    def _file(self, shard: Shard, ending: str = "jsonl") -> Path:
        return self.folder / f"{shard['name']}.{ending}"


def batches_for(teacher: Teacher, cache: CompletionCache | None, work: Path) -> Batches | None:
    """How `teacher` answers in batch jobs, kept in the `work` folder of a run; None if it does not."""
    service = getattr(teacher.provider, "batch", None)
    if service is None or cache is None:
        return None
    batches = Batches(teacher, service, cache, work)
    return batches if teacher.in_batch or batches.unfinished else None


def check_batch(teacher: Teacher, requests: int) -> None:
    """Refuse what can't work before anything is paid for. Raises `InvalidInput` or `Fatal` with what to do."""
    if not teacher.in_batch:
        return
    service: BatchService = teacher.provider.batch  # type: ignore[attr-defined]
    if requests < (minimum := service.settings.batch_min_records):
        said = f"A batch job takes {minimum:,} records or more, and this run has {requests:,}"
        raise InvalidInput(f"{said}: ask on demand instead, with `-p provider=bedrock`.")
    service.check()


def read_shards(folder: Path) -> list[Shard]:
    """The jobs that ``jobs.jsonl`` in `folder` tells of, the oldest first; none where there is no such file."""
    path, shards = folder / "jobs.jsonl", dict[str, Shard]()
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            entry: Shard = from_json(line)
        except ValueError:
            continue  # torn by a kill
        if "name" in entry:
            shards.setdefault(entry["name"], {}).update(entry)
    return list(shards.values())


def known_jobs(service: BatchService) -> list[str]:
    """A line for each job of the account, the newest first, with the dataset of the unfinished run that it is for."""
    datasets = {
        shard["name"]: journal.parents[1].name.removesuffix(".run")
        for journal in (output_root() / "datasets").glob("*.run/batch-*/jobs.jsonl")
        for shard in read_shards(journal.parent)
    }
    return [
        f"{job.name}  {job.status}  {job.processed:,} of {job.records:,} records"
        + (f", for {datasets[job.name]}" if job.name in datasets else "")
        for job in service.jobs()
    ]
