"""An emulated AWS account for health checks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bedrock_emulator.server import BedrockEmulator
from genesis_lab.settings import get_settings


@pytest.fixture(scope="module")
def emulated() -> Iterator[BedrockEmulator]:
    with BedrockEmulator(answers="fixed", latency_s=0.8, s3=True) as server:
        yield server


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "emulated")


@pytest.fixture
def emulator(emulated: BedrockEmulator, credentials: None, monkeypatch: pytest.MonkeyPatch) -> BedrockEmulator:
    """An account that works, and settings that lead to it."""
    monkeypatch.setenv("GENESIS_BEDROCK_ENDPOINT_URL", emulated.url)
    monkeypatch.setenv("GENESIS_AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", emulated.s3_url or "")
    monkeypatch.setenv("AWS_ENDPOINT_URL_IAM", emulated.s3_url or "")
    get_settings.cache_clear()
    return emulated


@pytest.fixture(autouse=True)
def no_aws(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """No account of the machine's own."""
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("PROFILE", "SESSION_TOKEN", "DEFAULT_REGION", "REGION", "BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    get_settings.cache_clear()
