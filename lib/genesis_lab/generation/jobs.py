"""Batch jobs for the command line: those of unfinished runs on this machine together with those that AWS knows of."""

from __future__ import annotations

from genesis_lab.errors import GenesisError, InvalidInput
from genesis_lab.files import output_root
from genesis_lab.generation.batch import Shard, read_shards
from genesis_lab.providers.bedrock_batch import BatchService


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
