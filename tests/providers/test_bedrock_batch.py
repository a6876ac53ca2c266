"""Batch jobs through unmodified boto3, against the emulator and moto's S3."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bedrock_emulator import wire
from bedrock_emulator.faults import Faults
from bedrock_emulator.models import ACCOUNT, REGION
from bedrock_emulator.server import BedrockEmulator
from genesis_lab.errors import Fatal, InvalidInput, QuotaExhausted
from genesis_lab.providers.base import Completion, Request
from genesis_lab.providers.bedrock import Account, BedrockProvider
from genesis_lab.providers.bedrock_batch import BatchService, Job, read_lines, record_line
from genesis_lab.settings import get_settings
from providers.batch_place import BUCKET, MICRO, ROLE, set_batch, use_batch

SCHEMA = {"type": "object", "properties": {"turns": {"type": "array", "items": {"type": "string"}}}}
NOBODY = f"arn:aws:bedrock:{REGION}:{ACCOUNT}:model-invocation-job/nobody000000"


@pytest.fixture(scope="module")
def server() -> Iterator[BedrockEmulator]:
    with BedrockEmulator(answers="fixed", s3=True) as started:
        yield started


@pytest.fixture
def service(server: BedrockEmulator, monkeypatch: pytest.MonkeyPatch) -> BatchService:
    use_batch(monkeypatch, server)
    set_batch(server)
    return BatchService()


def ask(number: int) -> Request:
    return Request(f"key{number}", "You write chats.", (("user", f"Write number {number}."),), SCHEMA, "chat", 500, 0.7)


def shard(folder: Path, records: int, name: str = "shard") -> Path:
    provider, file = BedrockProvider(MICRO), folder / f"{name}.jsonl"
    file.write_bytes(b"".join(record_line(provider, n, ask(n)) for n in range(1, records + 1)))
    return file


def ended(service: BatchService, arn: str) -> Job:
    for _ in range(400):
        if (job := service.get(arn)).ended:
            return job
        time.sleep(0.02)
    raise AssertionError(f"{arn} did not end")


def submitted(service: BatchService, tmp_path: Path, name: str, records: int = 20) -> Job:
    arn = service.create(f"genesis-{name}", f"token{name}", MICRO, service.upload(shard(tmp_path, records, name)))
    return ended(service, arn)


def test_a_record_is_a_converse_body_with_the_schema_in_the_prompt() -> None:
    line = json.loads(record_line(BedrockProvider(MICRO), 7, ask(7)))
    body = line["modelInput"]
    assert line["recordId"] == "00000000007" and "turns" in body["system"][0]["text"]
    assert not {"toolConfig", "outputConfig"} & body.keys() and body["inferenceConfig"]["temperature"] == 0.7
    converse = next(o for o in wire.operations() if o.name == "Converse")
    assert wire.problem(converse, body) is None


def test_what_is_sent_comes_back_under_its_number_at_half_price(
    server: BedrockEmulator, service: BatchService, tmp_path: Path
) -> None:
    set_batch(server, record_failures=0.1)
    job = submitted(service, tmp_path, "half", 100)
    assert (job.status, job.records, job.processed, job.name) == ("Completed", 100, 100, "genesis-half")
    assert service.download(job, tmp_path / "out") and job.ended_at is not None
    provider = BedrockProvider(MICRO)
    lines = (tmp_path / "out").read_bytes().splitlines()
    answers = dict(read_lines(provider, [*lines, b"half a li", b'{"recordId": "GENERATED"}', b"{}"], job.ended_at))
    assert list(answers) != sorted(answers) and sorted(answers) == list(range(1, 101))
    good = [answer for answer in answers.values() if isinstance(answer, Completion)]
    assert len(good) == job.succeeded < 100 and job.failed == 100 - len(good)
    assert {a for a in answers.values() if isinstance(a, str)} == {"The model could not process this record."}
    first = good[0]
    on_demand = provider.info.cost_usd(first.usage)
    assert first.cost_usd == pytest.approx(on_demand * provider.info.batch_share)
    (asked,) = [j.asked for j in server.service.jobs.all() if j.arn == job.arn]  # type: ignore[union-attr]
    assert asked == {
        "jobName": "genesis-half",
        "roleArn": ROLE,
        "clientRequestToken": "tokenhalf",
        "modelId": MICRO,
        "modelInvocationType": "Converse",
        "inputDataConfig": {
            "s3InputDataConfig": {"s3InputFormat": "JSONL", "s3Uri": f"s3://{BUCKET}/some/prefix/input/half.jsonl"}
        },
        "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": f"s3://{BUCKET}/some/prefix/output/"}},
    }
    assert (first.model, first.stop_reason, first.created_at) == (MICRO, "end", job.ended_at)


def test_a_price_that_is_not_known_in_batch_is_not_made_up() -> None:
    provider = BedrockProvider("emulated.plain-v1:0")
    usage = {"inputTokens": 5, "outputTokens": 5}
    output = {"output": {"message": {"content": [{"text": "hi"}]}}, "stopReason": "end_turn", "usage": usage}
    line = json.dumps({"recordId": "1", "modelOutput": output}).encode()
    provider._target = Account().find("us.emulated.plain-v1:0")
    ((_, answer),) = read_lines(provider, [line], datetime.now(UTC))
    assert isinstance(answer, Completion) and answer.text == "hi" and answer.cost_usd is None


def test_an_answer_that_is_none_is_a_failure_and_does_not_stop_the_others() -> None:
    provider = BedrockProvider("emulated.plain-v1:0")
    provider._target = Account().find("us.emulated.plain-v1:0")
    outputs = [{"output": None}, {"output": {"message": {"content": [{"toolUse": {}}]}}}, {}, None, "text"]
    lines = [json.dumps({"recordId": "1", "modelOutput": output}).encode() for output in outputs]
    assert [answer for _, answer in read_lines(provider, lines, datetime.now(UTC))] == ["the model gave no answer"] * 5


def test_the_same_token_starts_one_job(service: BatchService, tmp_path: Path) -> None:
    uri = service.upload(shard(tmp_path, 20, "twice"))
    arns = {service.create("genesis-twice", "tokentwice", MICRO, uri) for _ in range(2)}
    assert len(arns) == 1
    assert [job.name for job in service.jobs("genesis-twice")] == ["genesis-twice"]


def test_all_pages_of_jobs_are_turned(service: BatchService, tmp_path: Path) -> None:
    uri = service.upload(shard(tmp_path, 10, "many"))
    for number in range(23):
        service.create(f"genesis-many-{number}", f"many{number}", MICRO, uri)
    names = [job.name for job in service.jobs("genesis-many")]
    assert len(names) == 23 and names[0] == "genesis-many-22"


def test_a_job_that_never_began_has_no_answers(server: BedrockEmulator, service: BatchService, tmp_path: Path) -> None:
    set_batch(server, outcomes=("Failed",))
    job = submitted(service, tmp_path, "failed")
    assert job.status == "Failed" and "S3 bucket" in job.message
    assert service.download(job, tmp_path / "out") is False and not list(tmp_path.glob("out*"))


def test_output_with_answers_missing_is_not_taken(service: BatchService, tmp_path: Path) -> None:
    job = submitted(service, tmp_path, "torn")
    key = f"some/prefix/output/{job.arn.rsplit('/', 1)[-1]}/torn.jsonl.out"
    s3 = service._client("s3")
    whole = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    s3.put_object(Bucket=BUCKET, Key=key, Body=whole[: len(whole) // 2])
    with pytest.raises(Fatal, match=r"holds 1?[0-9] answers of 20"):
        service.download(job, tmp_path / "out")
    s3.delete_object(Bucket=BUCKET, Key=key)
    with pytest.raises(Fatal, match="are not in the bucket"):
        service.download(job, tmp_path / "out")


def test_a_job_is_stopped_once(server: BedrockEmulator, service: BatchService, tmp_path: Path) -> None:
    set_batch(server, job_s=30)
    arn = service.create("genesis-stop", "tokenstop", MICRO, service.upload(shard(tmp_path, 20, "stop")))
    service.stop(arn)
    assert ended(service, arn).status == "Stopped"
    with pytest.raises(InvalidInput, match="has ended already"):
        service.stop(arn)


# --- one sentence for each thing that is wrong ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["batch_bucket", "batch_role_arn"])
def test_a_bucket_and_a_role_are_needed(server: BedrockEmulator, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    use_batch(monkeypatch, server, **{name: ""})
    with pytest.raises(InvalidInput, match=f"set GENESIS_{name.upper()}"):
        BatchService().check()


def test_a_bucket_that_is_not_there_is_named(
    server: BedrockEmulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_batch(monkeypatch, server, batch_bucket="no-such-bucket-here")
    for attempt in (BatchService().check, lambda: BatchService().upload(shard(tmp_path, 1))):
        with pytest.raises(Fatal, match="There is no bucket no-such-bucket-here"):
            attempt()


def test_a_bucket_name_and_a_role_that_aws_would_not_take(
    server: BedrockEmulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_batch(monkeypatch, server, batch_bucket="not a bucket")
    with pytest.raises(Fatal, match="not a bucket"):
        BatchService().check()
    use_batch(monkeypatch, server, batch_role_arn="batch")
    service = BatchService()
    with pytest.raises(Fatal, match=r"AWS refuses bedrock:CreateModelInvocationJob .*roleArn"):
        service.create("genesis-role", "tokenrole", MICRO, service.upload(shard(tmp_path, 20)))


def test_access_denied_names_the_action_and_where_the_policy_is(
    monkeypatch: pytest.MonkeyPatch, server: BedrockEmulator
) -> None:
    with BedrockEmulator(faults=Faults(deny="access"), s3=server.s3_url) as denying:
        use_batch(monkeypatch, denying)
        service = BatchService()
        for attempt, action in (
            (lambda: service.create("genesis-x", "x", MICRO, "s3://b/k.jsonl"), "CreateModelInvocationJob"),
            (lambda: service.get(NOBODY), "GetModelInvocationJob"),
            (lambda: list(service.jobs()), "ListModelInvocationJobs"),
            (lambda: service.stop(NOBODY), "StopModelInvocationJob"),
        ):
            with pytest.raises(Fatal, match=f"may not do bedrock:{action}.*batch_policies.yaml"):
                attempt()


@pytest.mark.parametrize(
    ("code", "status", "error", "says"),
    [
        ("AccessDenied", 403, Fatal, "may not do s3:PutObject on emulated-bucket"),
        ("PermanentRedirect", 301, Fatal, "in another region than us-east-1"),
        ("ExpiredToken", 400, Fatal, "session has expired"),
        ("ServiceQuotaExceededException", 400, QuotaExhausted, "as many batch jobs as it may have"),
    ],
)
def test_what_s3_and_the_quotas_say_becomes_a_sentence(
    service: BatchService, code: str, status: int, error: type[Exception], says: str
) -> None:
    from botocore.exceptions import ClientError

    told = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    with pytest.raises(error, match=says), service._said("s3:PutObject", BUCKET):
        raise ClientError(told, "PutObject")  # type: ignore[arg-type]


def test_a_job_that_is_not_there(service: BatchService) -> None:
    for attempt in (service.get, service.stop):
        with pytest.raises(InvalidInput, match=r"There is no batch job arn:.* in us-east-1"):
            attempt(NOBODY)


def test_limits_are_settings(server: BedrockEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    use_batch(monkeypatch, server, batch_max_records=777)
    assert get_settings().batch_max_records == 777
    fresh: Any = type(get_settings()).model_fields
    assert (fresh["batch_max_records"].default, fresh["batch_max_bytes"].default) == (50_000, 1_000_000_000)
