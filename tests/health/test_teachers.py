"""The health check of teachers, against the emulated account and a small server."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest

from bedrock_emulator.models import ACCOUNT
from bedrock_emulator.server import BedrockEmulator, Faults
from genesis_lab.cli import main
from genesis_lab.errors import InvalidInput
from genesis_lab.health import Check, check_teachers, learned_limits, run_checks, teachers, write_params
from genesis_lab.health.teachers import check_bedrock, check_bundled_model, check_servers, masked, providers_ready
from genesis_lab.settings import get_settings
from providers.openai_server import running

HAIKU = "anthropic.claude-haiku-4-5-20251001-v1:0"
Set = Callable[..., None]


@pytest.fixture
def set_(monkeypatch: pytest.MonkeyPatch) -> Set:
    def change(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        get_settings.cache_clear()

    return change


def lines(checks: list[Check]) -> dict[str, Check]:
    assert not [check for check in checks if check.status != "OK" and not check.todo]
    shown = "\n".join(map(str, checks))
    assert ACCOUNT not in shown and "arn:" not in shown and "emulated/" not in shown
    return {check.name: check for check in checks}


def test_without_credentials_bedrock_is_one_warning() -> None:
    (found,) = check_bedrock()
    assert (found.name, found.status) == ("aws", "WARN") and "only needed for provider bedrock" in found.detail


def test_each_provider_is_ready_or_says_what_it_lacks(set_: Set) -> None:
    ready = providers_ready()
    assert list(ready) == ["offline", "bedrock", "bedrock_batch", "openai", "local"]
    assert ready["offline"] == "ready" and ready["bedrock"] == "not set up: no credentials"
    set_(GENESIS_OPENAI_API_KEY="sk-obviously-fake")
    assert providers_ready()["openai"] == "ready"


def test_a_metadata_service_that_never_answers_holds_nobody_up(set_: Set) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        set_(AWS_EC2_METADATA_SERVICE_ENDPOINT=url, AWS_EC2_METADATA_DISABLED="false")
        started = time.monotonic()
        assert [check.status for check in check_bedrock()] == ["WARN"]
        assert time.monotonic() - started < 5


def test_an_account_that_works_says_so_line_by_line(emulator: BedrockEmulator) -> None:
    found = lines(check_bedrock(HAIKU))
    assert list(found) == ["aws", "region", "model", "profile", "batch"]
    assert {name: check.status for name, check in found.items()} == dict.fromkeys(found, "OK") | {"batch": "WARN"}
    assert found["aws"].detail == "signed in as an IAM user of the account that ends in 0000"
    assert found["profile"].detail == f"us.{HAIKU}, data stay in its geography"
    assert "GENESIS_BATCH_BUCKET" in found["batch"].todo


@pytest.mark.parametrize(
    ("model", "name", "status", "said"),
    [
        ("emulated.old-v1:0", "model", "WARN", "legacy"),
        ("amazon.nova-none-v1:0", "model", "FAIL", "is not offered in us-east-1"),
        ("emulated.global-only-v1:0", "model", "FAIL", "GENESIS_BEDROCK_ALLOW_GLOBAL"),
        ("anthropic.claude-3-5-sonnet-20241022-v2:0", "model", "FAIL", "no longer answers"),
    ],
)
def test_what_is_wrong_with_a_model_is_named(
    emulator: BedrockEmulator, model: str, name: str, status: str, said: str
) -> None:
    check = lines(check_bedrock(model))[name]
    assert check.status == status and said in check.detail


@pytest.mark.parametrize(
    ("deny", "said"),
    [
        ("swapped", "swapped"),
        ("expired", "sign in again"),
        ("secret", "secret access key does not belong"),
        ("key", "does not know this access key"),
        ("clock", "clock of this machine"),
    ],
)
def test_what_is_wrong_with_credentials_is_told_apart(credentials: None, set_: Set, deny: str, said: str) -> None:
    with BedrockEmulator(answers="fixed", faults=Faults(deny=deny)) as server:  # type: ignore[arg-type]
        set_(GENESIS_BEDROCK_ENDPOINT_URL=server.url, GENESIS_AWS_REGION="us-east-1")
        found = lines(check_bedrock())
    assert found["aws"].status == "FAIL" and said in str(found["aws"]) and list(found) == ["aws", "region"]


def test_region_and_profile_that_are_missing_or_unknown(emulator: BedrockEmulator, set_: Set) -> None:
    assert lines(check_bedrock(region="xx-north-1"))["region"].status == "WARN"
    set_(GENESIS_AWS_REGION="")
    assert lines(check_bedrock())["region"].status == "FAIL"
    set_(GENESIS_AWS_PROFILE="nobody")
    assert [check.status for check in check_bedrock()] == ["FAIL"]


def test_an_account_out_of_reach_is_a_warning(credentials: None, set_: Set) -> None:
    set_(GENESIS_BEDROCK_ENDPOINT_URL="http://127.0.0.1:9", GENESIS_AWS_REGION="us-east-1")
    assert lines(check_bedrock())["aws"].status == "WARN"


def test_bucket_and_role_of_batch_jobs(emulator: BedrockEmulator, set_: Set) -> None:
    set_(GENESIS_BATCH_BUCKET="results/batch")
    assert lines(check_bedrock())["batch"].status == "WARN"
    set_(GENESIS_BATCH_ROLE_ARN=f"arn:aws:iam::{ACCOUNT}:role/batch")
    found = lines(check_bedrock())["batch"]
    assert found.status == "FAIL" and "There is no bucket results" in found.detail
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="results")
    assert lines(check_bedrock())["batch"].detail == "results can be reached, jobs run as batch"


def test_what_the_newest_run_learned_of_a_quota_is_shown_and_written(
    tmp_path: Path, set_: Set, capsys: pytest.CaptureFixture[str]
) -> None:
    set_(GENESIS_OUTPUT_ROOT=str(tmp_path))
    other, older, newer, broken = (tmp_path / "datasets" / name / "manifest.json" for name in "abcd")
    for path, at, text in (
        (older, 1, {"learned": {f"bedrock:{HAIKU}": {"tokens_per_minute": 90_000.0}}}),
        (newer, 2, {"learned": {f"bedrock:{HAIKU}": {"tokens_per_minute": 179_412.7, "requests_per_minute": 61.2}}}),
        (other, 3, {"learned": {f"bedrock:{HAIKU}@eu-west-1": {"tokens_per_minute": 5_000.0}}}),
        (broken, 4, []),
    ):
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(text))
        os.utime(path, (at, at))
    limits = learned_limits(f"bedrock:{HAIKU}")
    assert limits == {"tokens_per_minute": 179_000, "requests_per_minute": 61}
    assert "tokens_per_minute: 179000 and requests_per_minute: 61" in str(teachers.check_quota(f"bedrock:{HAIKU}"))
    assert learned_limits(f"bedrock_batch:{HAIKU}") == limits and learned_limits("bedrock:other") == {}
    params = tmp_path / "mine.yaml"
    params.write_text('name: mine # yes\ntokens_per_minute: 0 # not known\nstages:\n  "10": {}\n')
    with pytest.raises(SystemExit):
        main(["health", f"bedrock:{HAIKU}", "--write", str(params)])
    assert "written to" in capsys.readouterr().out
    tokens, requests = (f"{name}: {value} # learned by a run" for name, value in limits.items())
    assert params.read_text() == f'name: mine # yes\n{tokens}\n{requests}\nstages:\n  "10": {{}}\n'


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--write", "none.yaml"], "needs the teacher"),
        (["bedrock:nobody-knows", "--write", "none.yaml"], "nothing to write"),
    ],
)
def test_nothing_is_written_where_nothing_was_learned(
    tmp_path: Path, set_: Set, capsys: pytest.CaptureFixture[str], given: list[str], said: str
) -> None:
    set_(GENESIS_OUTPUT_ROOT=str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        main(["health", *given])
    assert ended.value.code == 1 and said in capsys.readouterr().err
    with pytest.raises(InvalidInput, match="no params file"):
        write_params(tmp_path / "none.yaml", {"tokens_per_minute": 1})


def test_a_teacher_is_asked_one_question(emulator: BedrockEmulator, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["health", f"bedrock:{HAIKU}"])
    assert not ended.value.code and "answered in" in capsys.readouterr().out
    assert emulator.stats().requests
    with pytest.raises(SystemExit) as ended:
        main(["health", "bedrock:emulated.denied-v1:0"])
    assert ended.value.code == 1
    with pytest.raises(InvalidInput, match="names no model"):
        check_teachers("nobody:knows")


def test_servers_that_answer_are_listed_with_their_models() -> None:
    with running() as server:
        (found,) = check_servers({"mine": server.url})
        assert str(found) == "OK   server        mine: a, b"
        assert check_servers({"mine": server.url}, "c")[0].status == "FAIL"
        here, answer = check_teachers(f"openai:a@{server.url}")
        assert (here.status, answer.status) == ("OK", "OK") and "price not known" in answer.detail
    assert [check.status for check in check_servers({"gone": server.url})] == ["FAIL"]


def test_a_key_goes_to_a_server_that_was_named_and_to_no_other(set_: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    set_(GENESIS_OPENAI_API_KEY="sk-very-secret")
    with running() as server:
        monkeypatch.setattr("genesis_lab.health.teachers.LOCAL_SERVERS", {"vLLM": server.url})
        (found,) = check_servers()
        assert (found.status, found.detail) == ("OK", "vLLM: a, b")
        assert "very-secret" not in "".join(server.keys)
        server.wants_key = "sk-very-secret"
        (found,) = check_servers()
        assert found.status == "WARN" and found.detail == "vLLM wants a key"
        assert "very-secret" not in "".join(server.keys)
        assert check_teachers(f"openai:a@{server.url}")[0].status == "OK"
        assert "Bearer sk-very-secret" in server.keys


def test_something_else_on_a_servers_port_is_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teachers, "ANSWER_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        mute.listen()
        assert check_servers({"mute": f"http://127.0.0.1:{mute.getsockname()[1]}/v1"})[0].status == "FAIL"


def test_the_bundled_model_is_there() -> None:
    assert check_bundled_model().status == "OK"


def test_nobody_sees_whose_account_it_is() -> None:
    said = "arn:aws:iam::123456789012:user/bob (AKIAABCDEFGHIJKLMNOP) of 123456789012, arn:aws-us-gov:s3:::x"
    assert masked(said) == "(ARN) ((key id)) of (account), (ARN)"


def test_a_check_that_breaks_is_a_failed_check() -> None:
    def check_engine() -> Check:
        raise RuntimeError("it is\nbroken")

    assert run_checks([check_engine]) == [
        Check("engine", "FAIL", "it is broken", "report this: a check should not break")
    ]
