"""Batch jobs for the command line: those of unfinished runs on this machine together with those that AWS knows of."""

from __future__ import annotations

from dataclasses import dataclass, replace

from genesis_lab.errors import GenesisError, InvalidInput
from genesis_lab.files import output_root
from genesis_lab.generation.batch import Shard, read_shards
from genesis_lab.providers.bedrock_batch import BatchService, Job


@dataclass(frozen=True)
class KnownJob:
    """A job as far as it is known: by an unfinished run here (`dataset`, `shard`), by AWS (`job`), or both."""

    name: str
    dataset: str = ""
    shard: Shard | None = None
    job: Job | None = None

    @property
    def status(self) -> str:
        """What AWS says, else what the run last knew."""
        if self.job:
            return self.job.status
        return (self.shard and (self.shard.status or ("sent" if self.shard.arn else "not sent yet"))) or "unknown"

    @property
    def line(self) -> str:
        """``genesis-support-1f… InProgress 34,000 of 50,000 records, for support, joined``."""
        total = (self.job and self.job.records) or (self.shard.records if self.shard else 0)
        done = f"{self.job.processed:,} of {total:,} records" if self.job else f"{total:,} records"
        run = f", for {self.dataset}" if self.dataset else ""
        return f"{self.name}  {self.status}  {done}{run}" + (", joined" if self.shard and self.shard.status else "")


def recorded() -> dict[str, KnownJob]:
    """The jobs of unfinished runs under the output root, by name."""
    return {
        shard.name: KnownJob(shard.name, journal.parents[1].name.removesuffix(".run"), shard)
        for journal in sorted((output_root() / "datasets").glob("*.run/batch-*/jobs.jsonl"))
        for shard in read_shards(journal.parent)
    }


def known_jobs(service: BatchService) -> tuple[list[KnownJob], str]:
    """All jobs, the newest of AWS first; and why AWS could not be asked, empty if it could."""
    ours = recorded()
    try:
        told = list(service.jobs())
    except GenesisError as error:
        return list(ours.values()), str(error)
    there = [replace(ours.pop(job.name, KnownJob(job.name)), job=job) for job in told]
    return [*ours.values(), *there], ""


def find_job(service: BatchService, name: str) -> KnownJob:
    """The job of that name or ARN. Raises `InvalidInput` if nobody knows it."""
    ours = recorded()
    if name.startswith("arn:"):
        job: Job | None = service.get(name)
    else:
        shard = ours[name].shard if name in ours else None
        job = service.get(shard.arn) if shard and shard.arn else service.find(name)
        if job is None and shard is None:
            raise InvalidInput(f"There is no batch job {name}: `genesis jobs list` shows those there are.")
    name = job.name if job else name
    return replace(ours.get(name, KnownJob(name)), job=job)
