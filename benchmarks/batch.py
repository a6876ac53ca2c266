"""Figure 4: batch jobs at full size, counted on the server. ``python benchmarks/batch.py --total 120000``

120,000 records in three jobs against the Bedrock emulator and moto's S3, 3 % of the records fail and the second job
expires at 60 %. The service runs in this process, the measured run in one of its own, so its memory is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROLE = "arn:aws:iam::123456789012:role/batch"
MODEL = "amazon.nova-micro-v1:0"


def run(total: int) -> None:
    """The measured part: one generation, its figures on standard output."""
    from genesis_lab.generation import config_for, generate

    config = config_for()(dataset="batch", provider="bedrock_batch", model=MODEL, total=total, tokens_per_minute=10**9)
    started, used = time.perf_counter(), time.process_time()
    dataset = generate(config)
    figures = {
        "accepted": dataset.total,
        "missing": dataset.manifest["missing"],
        "answers_used": dataset.manifest["attempts"],
        "drop_reasons": dataset.manifest["drop_reasons"],
        "cost_usd": round(dataset.manifest["cost_usd"], 4),
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_s": round(time.process_time() - used, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(figures))


def measure(total: int, per_job: int) -> dict[str, object]:
    """The service here, the run in a process of its own; what the service counted beside what the run says."""
    import boto3

    from bedrock_emulator.server import Batch, BedrockEmulator

    batch = Batch(outcomes=("Completed", "Expired"), record_failures=0.03, job_s=2.0)
    keys = {"AWS_ACCESS_KEY_ID": "emulated", "AWS_SECRET_ACCESS_KEY": "emulated", "AWS_CONFIG_FILE": os.devnull}
    os.environ.update(keys)
    with BedrockEmulator(batch=batch, s3=True) as server, tempfile.TemporaryDirectory() as folder:
        boto3.client("s3", endpoint_url=server.s3_url, region_name="us-east-1").create_bucket(Bucket="emulated")
        ours = {
            "OUTPUT_ROOT": folder, "AWS_REGION": "us-east-1", "BEDROCK_ENDPOINT_URL": server.url,
            "BATCH_BUCKET": "emulated", "BATCH_ROLE_ARN": ROLE, "BATCH_MAX_RECORDS": str(per_job), "BATCH_POLL_S": "1",
        }  # fmt: skip
        environment = os.environ | {f"GENESIS_{name}": value for name, value in ours.items()}
        environment["AWS_ENDPOINT_URL_S3"] = str(server.s3_url)
        done = subprocess.run(
            [sys.executable, __file__, "--run", "--total", str(total)],
            env=environment,
            stdout=subprocess.PIPE,
            check=True,
        )
        stats, jobs = server.stats(), server.service.jobs.all()  # type: ignore[union-attr]
    return json.loads(done.stdout) | {
        "jobs": [f"{job.status}: {job.succeeded:,} of {job.total:,} answered" for job in jobs],
        "answered_by_the_service": stats.answered,
        "of_these_on_demand": stats.requests,
        "paid_twice": stats.duplicated,
        "paid_and_not_used": stats.answered - json.loads(done.stdout)["answers_used"],
    }


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--total", type=int, default=120_000)
    parser.add_argument("--per-job", type=int, default=50_000)
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        run(given.total)
    else:
        print(json.dumps(measure(given.total, given.per_job), indent=2))
