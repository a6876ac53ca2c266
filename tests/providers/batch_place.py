"""A bucket, a role and settings for batch jobs against the emulator."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
from botocore.loaders import JSONFileLoader

from bedrock_emulator.models import ACCOUNT
from bedrock_emulator.server import Batch, BedrockEmulator
from genesis_lab.settings import Settings, get_settings

BUCKET = "emulated-bucket"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/batch"
_load_file = JSONFileLoader.load_file
MICRO = "amazon.nova-micro-v1:0"


@lru_cache(maxsize=64)
def _service_model(path: str) -> Any:
    return _load_file(JSONFileLoader(), path)


def _read_once(loader: Any, path: str) -> Any:
    """Each new session reads the service models anew, a third of a second for each test."""
    return _service_model(path)


def use_batch(monkeypatch: pytest.MonkeyPatch, server: BedrockEmulator, **settings: Any) -> Settings:
    """Settings in the environment, as a user sets them; the bucket is made."""
    import boto3

    monkeypatch.setattr(JSONFileLoader, "load_file", _read_once)
    values = {"AWS_ACCESS_KEY_ID": "emulated", "AWS_SECRET_ACCESS_KEY": "emulated", "AWS_CONFIG_FILE": "/nowhere",
              "AWS_ENDPOINT_URL_S3": server.s3_url}  # fmt: skip
    ours = {"aws_region": "us-east-1", "bedrock_endpoint_url": server.url, "batch_bucket": f"{BUCKET}/some/prefix",
            "batch_role_arn": ROLE, "batch_min_records": 10}  # fmt: skip
    values |= {f"GENESIS_{name.upper()}": str(value) for name, value in (ours | settings).items()}
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket=BUCKET)
    get_settings.cache_clear()
    return get_settings()


def set_batch(server: BedrockEmulator, **batch: Any) -> None:
    """How the jobs that come now will go."""
    jobs = server.service.jobs  # type: ignore[union-attr]
    before = ("Completed",) * len(jobs.all())
    outcomes = (*before, *batch.pop("outcomes", ()))
    jobs.batch = Batch(**{"job_s": 0.05, "minimum": 10, "outcomes": outcomes} | batch)
