"""Answers bought in batch jobs: requests go in, answers end up in the completion cache. Each step is journalled before the next."""

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
"""One job of a run: its `name`, the `token` that it is created with, `records`; then the `arn` of the job, and the `status`
in which it was joined with how many it `answered`."""


class Batches:
    """Answers many requests at once through batch jobs. What is bought goes into `cache`, under the request's key.

    Nothing is bought twice: a shard and the token of its job are on disk, in ``jobs.jsonl`` of `folder`, before the job is
    created, and a job that is not joined yet is waited for instead of being created again. `label` goes into their names.
    """

    def __init__(
        self, provider: Any, service: BatchService, cache: CompletionCache, folder: Path, *, label: str
    ) -> None:
        self.provider, self.service, self.cache, self.folder = provider, service, cache, folder
        self.settings, self._stop = service.settings, threading.Event()
        self._label = re.sub(r"[^a-zA-Z0-9]+", "-", label)[:30].strip("-")
        self._running = [shard for shard in read_shards(folder) if "status" not in shard]

    @property
    def unfinished(self) -> bool:
        """Jobs were begun whose answers are not joined yet."""
        return bool(self._running)

    @property
    def running_on(self) -> str:
        return f"{self._jobs()} run on at AWS (`genesis jobs list` shows them)."

    def fill(self, requests: Iterable[Request], tell: Callable[[str], None] = lambda text: None) -> int:
        """Buy the answers that are not in the cache yet, and wait for them; returns the number of jobs.

        What is left over is fewer requests than a job must have, or was answered with an error. Raises `GenesisError` where
        the service can't be reached or `stop` was called (jobs run on, and the same call again takes them up where they
        are), or where what is wrong with a job would be with another one too.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with Journal(self.folder / "jobs.jsonl", {}) as self._journal:
            self._take_up()
            awaited = {key for shard in self._running for key in self._keys(shard)}
            missing = (request for request in requests if request.key not in self.cache)
            for shard in self._shards(request for request in missing if request.key not in awaited):
                self._running.append(shard)
                self._submit(shard)
                tell(f"{self._jobs()} sent, sending more")
                if self._stop.is_set():
                    break
            return self._wait(tell) if self._running else 0

    def stop(self) -> None:
        """Make `fill` raise instead of waiting on."""
        self._stop.set()

    def _take_up(self) -> None:
        """What an earlier process left: half a shard is written anew, a job that it may have created is looked for."""
        whole = {shard["name"] for shard in self._running}
        for file in self.folder.glob(f"{NAMED}*"):
            if file.name.partition(".")[0] not in whole:
                file.unlink()
        for shard in [shard for shard in self._running if "arn" not in shard]:
            if job := self.service.find(shard["name"]):
                self._created(shard, job.arn)
            elif not self._file(shard, "jsonl").exists():
                self._note("joined", shard, status="Never sent", answered=0)
                self._running.remove(shard)

    # --- sending ------------------------------------------------------------------------------------------------------

    def _shards(self, requests: Iterable[Request]) -> Iterator[Shard]:
        """Write requests into files of at most the size of a job, as they come; each is journalled when it is whole."""
        rest, held = iter(requests), None
        while True:
            name = f"{NAMED}{self._label}-{uuid.uuid4().hex[:12]}".replace("--", "-")
            shard: Shard = {"name": name, "token": uuid.uuid4().hex}
            count = size = 0
            with self._file(shard, "jsonl").open("wb") as lines, self._file(shard, "keys").open("w") as keys:
                while count < self.settings.batch_max_records and (request := held or next(rest, None)):
                    line, held = record_line(self.provider, count + 1, request), None
                    if size + len(line) > self.settings.batch_max_bytes:
                        held = request
                        break
                    lines.write(line)
                    keys.write(request.key + "\n")
                    count, size = count + 1, size + len(line)
            if count < self.settings.batch_min_records:
                self._remove(shard, "jsonl", "keys")
                return
            self._note("shard", shard, token=shard["token"], records=count)
            yield shard

    def _submit(self, shard: Shard) -> None:
        """Send a shard; where the account has too many jobs it is left for later, as long as some of ours run."""
        try:
            target = self.provider.target()
            shard["uri"] = shard.get("uri") or self.service.upload(self._file(shard, "jsonl"))
            self._created(shard, self.service.create(shard["name"], shard["token"], target.call_id, shard["uri"]))
        except QuotaExhausted:
            if not any("arn" in other for other in self._running):
                raise

    def _created(self, shard: Shard, arn: str) -> None:
        self._note("created", shard, arn=arn)
        self._remove(shard, "jsonl")

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
            records = f" · {done:,} of {total:,} records" if total else ""
            minutes = (time.monotonic() - started) / 60
            tell(f"batch jobs, usually done within 24 hours: {states}{records} · {minutes:,.0f} min")
            if self._running and self._stop.wait(self.settings.batch_poll_s):
                raise GenesisError(f"Stopped waiting: {self.running_on}")
        if not problems and not answered:
            ends = ", ".join(sorted({job.status for job in seen.values()}))
            problems.append(f"No record of the batch jobs was answered ({ends}).")
        if problems:
            raise GenesisError(f"{problems[0]} What was answered is saved: run the same again to send the rest.")
        return number

    def _join(self, shard: Shard, job: Job) -> str:
        """Take a job's answers into the cache. Returns what is wrong with it that another job would run into as well."""
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
        self._remove(shard, "out", "keys")
        return problem

    def _note(self, kind: str, shard: Shard, **facts: Any) -> None:
        """Journal what is new of a shard."""
        self._journal.append({"kind": kind, "name": shard["name"], **facts})
        shard |= facts

    def _jobs(self) -> str:
        there = [shard["records"] for shard in self._running if "arn" in shard]
        return f"{len(there)} batch job{'' if len(there) == 1 else 's'} of {sum(there):,} records"

    def _keys(self, shard: Shard) -> list[str]:
        return self._file(shard, "keys").read_text(encoding="ascii").split()

    def _file(self, shard: Shard, ending: str) -> Path:
        return self.folder / f"{shard['name']}.{ending}"

    def _remove(self, shard: Shard, *endings: str) -> None:
        for ending in endings:
            self._file(shard, ending).unlink(missing_ok=True)


def batches_for(teacher: Teacher, cache: CompletionCache | None, work: Path) -> Batches | None:
    """How `teacher` answers in batch jobs kept in the `work` folder of a run; None if it is not to, and has not begun to."""
    service = getattr(teacher.provider, "batch", None)
    if service is None or cache is None:
        return None
    place = f"{base_model_id(teacher.provider.model)} {service.settings.aws_region or ''}".strip()
    folder = work / f"batch-{re.sub(r'[^a-zA-Z0-9.-]+', '-', place)}"
    batches = Batches(teacher.provider, service, cache, folder, label=work.stem)
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


def known_jobs(service: BatchService) -> tuple[list[str], str]:
    """A line for each job, those that AWS does not know first, then its newest; and why AWS could not be asked, if so."""
    told, problem = {}, ""
    try:
        told = {job.name: job for job in service.jobs()}
    except GenesisError as error:
        problem = str(error)
    ours = _recorded()
    lines = []
    for name in [*(name for name in ours if name not in told), *told]:
        dataset, shard = ours.get(name, ("", {}))
        if job := told.get(name):
            status, total = job.status, job.records or shard.get("records", 0)
            done = f"{job.processed:,} of {total:,} records"
        else:
            status = shard.get("status") or ("sent" if "arn" in shard else "not sent yet")
            done = f"{shard['records']:,} records"
        joined = ", joined" if "status" in shard else ""
        lines.append(f"{name}  {status}  {done}" + (f", for {dataset}" if dataset else "") + joined)
    return lines, problem


def stop_job(service: BatchService, name: str) -> str:
    """Stop a job by name or ARN; what it has answered is kept. Returns its name. Raises `InvalidInput` where none runs."""
    _, shard = _recorded().get(name, ("", {}))
    arn = name if name.startswith("arn:") else shard.get("arn")
    job = service.get(arn) if arn else service.find(name)
    if job is None:
        why = f"{name} is not at AWS yet" if shard else f"There is no batch job {name}"
        raise InvalidInput(f"{why}: `genesis jobs list` shows those there are.")
    service.stop(job.arn)
    return job.name


def _recorded() -> dict[str, tuple[str, Shard]]:
    """Dataset and shard of the jobs of unfinished runs under the output root, by name."""
    return {
        shard["name"]: (journal.parents[1].name.removesuffix(".run"), shard)
        for journal in sorted((output_root() / "datasets").glob("*.run/batch-*/jobs.jsonl"))
        for shard in read_shards(journal.parent)
    }
