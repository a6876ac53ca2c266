"""Batch jobs at full size, counted on the server.

    python benchmarks/batch.py                                   # 120,000 records: minutes
    python benchmarks/batch.py --total 200 --per-job 100 --dry

120,000 records in three jobs against the Bedrock emulator and moto's S3, 3 % of the records fail and the second job
expires at 60 %. The service runs in this process, the measured run in one of its own, so its memory is its own.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

import bench
from genesis_lab.generation import config_for, generate

ROLE = "arn:aws:iam::123456789012:role/batch"
MODEL = "amazon.nova-micro-v1:0"


def made(total: int) -> dict[str, Any]:
    """The measured part: what one generation says of itself."""
    config = config_for()(dataset="batch", provider="bedrock_batch", model=MODEL, total=total, tokens_per_minute=10**9)
    dataset = generate(config)
    names = ("missing", "attempts", "drop_reasons", "cost_usd")
    return {"total": dataset.total} | {name: dataset.manifest[name] for name in names}


def main() -> None:
    import boto3

    from bedrock_emulator.server import Batch, BedrockEmulator

    parser = bench.parser(__doc__)
    parser.add_argument("--total", type=int, default=120_000)
    parser.add_argument("--per-job", type=int, default=50_000)
    given = parser.parse_args()
    batch = Batch(outcomes=("Completed", "Expired"), record_failures=0.03, job_s=2.0)
    os.environ |= {"AWS_ACCESS_KEY_ID": "emulated", "AWS_SECRET_ACCESS_KEY": "emulated", "AWS_CONFIG_FILE": os.devnull}
    with BedrockEmulator(batch=batch, s3=True) as server, tempfile.TemporaryDirectory() as folder:
        boto3.client("s3", endpoint_url=server.s3_url, region_name="us-east-1").create_bucket(Bucket="emulated")
        ours = {
            "OUTPUT_ROOT": folder, "AWS_REGION": "us-east-1", "BEDROCK_ENDPOINT_URL": server.url,
            "BATCH_BUCKET": "emulated", "BATCH_ROLE_ARN": ROLE, "BATCH_MAX_RECORDS": str(given.per_job),
            "BATCH_POLL_S": "1",
        }  # fmt: skip
        os.environ |= {f"GENESIS_{name}": value for name, value in ours.items()}
        os.environ["AWS_ENDPOINT_URL_S3"] = str(server.s3_url)
        measured = bench.measured(made, given.total)
        stats, jobs = server.stats(), server.service.jobs.all()  # type: ignore[union-attr]
    found = measured["result"]
    counts = {
        "records accepted": found["total"],
        "records missing": found["missing"],
        "answers used": found["attempts"],
        "rejected": ", ".join(f"{number:,} {why}" for why, number in found["drop_reasons"].items()) or 0,
        "cost, USD": found["cost_usd"],
        "jobs": "; ".join(f"{job.status}, {job.succeeded:,} of {job.total:,} answered" for job in jobs),
        "answered by the service": stats.answered,
        "of these on demand": stats.requests,
        "paid twice": stats.duplicated,
        "paid and not used": stats.answered - found["attempts"],
        "seconds": measured["seconds"],
        "CPU seconds": measured["cpu_s"],
        "peak MiB": measured["peak_mib"],
    }
    rows = [{"counted": what, "found": number} for what, number in counts.items()]
    bench.store("batch", "Batch jobs at full size", rows, facts=counts)


if __name__ == "__main__":
    main()
