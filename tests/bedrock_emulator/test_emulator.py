"""The emulator itself, as unmodified boto3 sees it: what it takes, refuses, counts and remembers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError, ParamValidationError
from botocore.session import get_session

from bedrock_emulator.quota import Bucket
from bedrock_emulator.server import Batch, BedrockEmulator, Faults, Quota

MICRO = "amazon.nova-micro-v1:0"
HAIKU = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
ROLE = "arn:aws:iam::000000000000:role/emulated"


def client(server: BedrockEmulator, service: str = "bedrock-runtime", **config: Any) -> Any:
    return boto3.client(
        service,
        endpoint_url=server.s3_url if service == "s3" else server.url,
        region_name="us-east-1",
        aws_access_key_id="emulated",
        aws_secret_access_key="emulated",
        config=Config(retries={"total_max_attempts": 1}, max_pool_connections=64, **config),
    )


def ask(runtime: Any, text: str = "hello", model: str = MICRO, max_tokens: int = 100, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": [{"text": text}]}]
    return dict(runtime.converse(modelId=model, messages=messages, inferenceConfig={"maxTokens": max_tokens}, **more))


@pytest.fixture(scope="module")
def server() -> Iterator[BedrockEmulator]:
    with BedrockEmulator(answers="fixed") as started:
        yield started


@pytest.fixture(scope="module")
def runtime(server: BedrockEmulator) -> Any:
    return client(server)


# --- operations -------------------------------------------------------------------------------------------------------


def test_converse_answers_in_the_service_models_own_shape(runtime: Any) -> None:
    response = ask(runtime)
    output = get_session().get_service_model("bedrock-runtime").operation_model("Converse").output_shape
    assert set(output.required_members) <= response.keys() <= output.members.keys() | {"ResponseMetadata"}
    assert response["usage"]["totalTokens"] == response["usage"]["inputTokens"] + response["usage"]["outputTokens"]


def test_invoke_model_takes_each_makers_own_form(runtime: Any) -> None:
    anthropic = {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 99,
        "messages": [{"role": "user", "content": "hi"}],
    }
    answer = json.loads(runtime.invoke_model(modelId=HAIKU, body=json.dumps(anthropic))["body"].read())
    assert answer["type"] == "message" and answer["usage"]["output_tokens"] > 0
    nova = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}
    assert json.loads(runtime.invoke_model(modelId=MICRO, body=json.dumps(nova))["body"].read())["output"]
    with pytest.raises(ClientError, match="anthropic_version"):
        runtime.invoke_model(modelId=HAIKU, body=json.dumps(nova))


def test_count_tokens_counts_both_forms(runtime: Any) -> None:
    converse = {"messages": [{"role": "user", "content": [{"text": "x" * 40}]}]}
    assert runtime.count_tokens(modelId=MICRO, input={"converse": converse})["inputTokens"] == 10
    body = json.dumps(converse).encode()
    assert runtime.count_tokens(modelId=MICRO, input={"invokeModel": {"body": body}})["inputTokens"] == 10


def test_models_and_profiles_are_listed_in_pages(server: BedrockEmulator) -> None:
    bedrock = client(server, "bedrock")
    models = {m["modelId"]: m for m in bedrock.list_foundation_models(byProvider="amazon")["modelSummaries"]}
    assert MICRO in models and models[MICRO]["modelLifecycle"]["status"] == "ACTIVE"
    assert bedrock.get_foundation_model(modelIdentifier=MICRO)["modelDetails"]["modelId"] == MICRO
    pages = list(bedrock.get_paginator("list_inference_profiles").paginate(typeEquals="SYSTEM_DEFINED"))
    profiles = [p["inferenceProfileId"] for page in pages for p in page["inferenceProfileSummaries"]]
    assert len(pages) > 1 and HAIKU in profiles and len(profiles) == len(set(profiles))
    assert bedrock.get_inference_profile(inferenceProfileIdentifier=HAIKU)["type"] == "SYSTEM_DEFINED"


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"messages": []}, "messages field is required"),
        ({"messages": [{"role": "assistant", "content": [{"text": "hi"}]}]}, "start with a user"),
        ({"messages": [{"role": "user", "content": [{"text": " "}]}]}, "blank"),
        ({"messages": [{"role": "nobody", "content": [{"text": "hi"}]}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"text": "hi", "cachePoint": {"type": "default"}}]}]}, "union"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"inferenceConfig": {"maxTokens": 0}}, "at least 1"),
        ({"inferenceConfig": {"maxTokens": 10_001}}, "exceeds the model limit"),
        ({"inferenceConfig": {"maxTokens": "9"}}, "must be a integer"),
        ({"inferenceConfig": {"temperature": 1.5}}, "at most 1"),
        ({"requestMetadata": {"a!": "b"}}, "pattern"),
        ({"toolConfig": {"tools": []}}, "length"),
        ({"toolConfig": {"tools": [{"toolSpec": {"name": "x"}}]}}, "inputSchema"),
        ({"surprise": 1}, "not known to the service"),
    ],
)
def test_a_body_that_the_service_model_would_reject_is_rejected(
    server: BedrockEmulator, change: dict[str, Any], says: str
) -> None:
    # Sent raw, as boto3 itself would not let most of these through.
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    body = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]} | change
    url = f"{server.url}/model/amazon.nova-micro-v1%3A0/converse"
    with pytest.raises(HTTPError) as caught:
        urlopen(Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"}))
    assert caught.value.code == 400 and caught.value.headers["x-amzn-ErrorType"] == "ValidationException"
    assert says in json.loads(caught.value.read())["message"]


@pytest.mark.parametrize(
    ("model", "more", "code", "says"),
    [
        ("anthropic.claude-haiku-4-5-20251001-v1:0", {}, "ValidationException", "on-demand throughput isn’t supported"),
        ("amazon.nothing-v1:0", {}, "ValidationException", "identifier is invalid"),
        ("anthropic.claude-3-5-sonnet-20241022-v2:0", {}, "ResourceNotFoundException", "end of its life"),
        ("emulated.denied-v1:0", {}, "AccessDeniedException", "access"),
        ("emulated.plain-v1:0", {"system": [{"text": "s"}, {"cachePoint": {"type": "default"}}]}, "ValidationException", "caching"),
        ("us.anthropic.claude-haiku-5-5", {"toolConfig": {"tools": [{"toolSpec": {"name": "x", "inputSchema": {"json": {}}}}], "toolChoice": {"any": {}}}}, "ValidationException", "Thinking"),
    ],
)  # fmt: skip
def test_models_refuse_what_they_do_not_do(runtime: Any, model: str, more: Any, code: str, says: str) -> None:
    with pytest.raises(ClientError, match=says) as caught:
        ask(runtime, model=model, **more)
    assert caught.value.response["Error"]["Code"] == code


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ("{", "not JSON"),
        ('{"type": "object"}', "additionalProperties"),
        ('{"type": "string", "maxLength": 3}', "maxLength"),
    ],
)
def test_structured_output_takes_only_part_of_json_schema(runtime: Any, schema: str, says: str) -> None:
    output = {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": {"schema": schema}}}}
    with pytest.raises(ClientError, match=says):
        ask(runtime, model=HAIKU, outputConfig=output)


def test_boto3_itself_refuses_a_malformed_request(runtime: Any) -> None:
    with pytest.raises(ParamValidationError):
        runtime.converse(modelId=MICRO, messages=[{"role": "user", "content": [{"words": "hi"}]}])


# --- quota --------------------------------------------------------------------------------------------------------------


def test_a_bucket_reserves_settles_and_refills() -> None:
    bucket = Bucket(6000, Quota(), now=0.0)
    assert bucket.fits(6000, 0.0)
    window = bucket.take(6000)
    assert not bucket.fits(1, 0.0)
    bucket.give_back(6000 - 500, window, 0.0)  # used 500 of the 6,000 reserved
    assert bucket.fits(5500, 0.0) and not bucket.fits(5501, 0.0)
    assert bucket.fits(5600, 1.0)  # 100 a second
    bucket.give_back(-9000, window, 1.0)  # burndown: more than was reserved, so it goes below zero
    assert bucket.level < 0 and not bucket.fits(1, 2.0)
    bucket.change(600, 2.0)
    assert bucket.rate == 10


def test_a_second_of_burst_and_a_fixed_window() -> None:
    burst = Bucket(6000, Quota(burst="burst1s"), now=0.0)
    assert burst.fits(5000, 0.0)  # larger than the bucket: let in when it is full
    burst.take(5000)
    assert not burst.fits(100, 49.0) and burst.fits(100, 51.0)
    window = Bucket(6000, Quota(burst="window"), now=0.0)
    first = window.take(6000)
    assert not window.fits(1, 59.0) and window.fits(6000, 60.0)
    window.give_back(3000, first, 61.0)  # settled too late to be of use
    assert window.level == 6000
    aged = Bucket(6000, Quota(burst="window", window_age_s=40), now=0.0)
    aged.take(6000)
    assert not aged.fits(1, 19.0) and aged.fits(1, 20.0)


def test_throttling_reserves_max_tokens_and_settles_with_burndown() -> None:
    quota = Quota(tokens_per_minute=1000, burndown=5)
    with BedrockEmulator(quota=quota, answers="fixed", latency_s=0.1, output_tokens=50) as server:
        runtime = client(server)
        with ThreadPoolExecutor(2) as pool:  # both reserve 600 before either is settled
            outcomes = [f.exception() for f in [pool.submit(ask, runtime, max_tokens=600) for _ in range(2)]]
        refused = [e for e in outcomes if e]
        assert len(refused) == 1 and "Too many tokens" in str(refused[0])
        stats = server.stats()
        assert (stats.requests, stats.answered, stats.throttled) == (2, 1, 1)
        assert stats.settled_tokens == stats.prompt_tokens + 5 * 50
        server.change(tokens_per_minute=10)
        ask(runtime, max_tokens=20)  # larger than the bucket: let in while it is full
        with pytest.raises(ClientError, match="Too many tokens"):
            ask(runtime, max_tokens=20)


def test_each_model_has_a_quota_of_its_own() -> None:
    with BedrockEmulator(quota=Quota(requests_per_minute=1), answers="fixed") as server:
        runtime = client(server)
        ask(runtime)
        ask(runtime, model=HAIKU)
        with pytest.raises(ClientError, match="Too many requests"):
            ask(runtime)


# --- counters and faults ----------------------------------------------------------------------------------------------


def test_ids_are_counted_and_a_lost_answer_is_paid_for() -> None:
    with BedrockEmulator(faults=Faults(reset_after=1), answers="fixed") as server:
        runtime = client(server)
        with pytest.raises(HTTPClientError, match="Connection"):
            ask(runtime, requestMetadata={"request_key": "a"})
        server.service.faults = Faults()  # type: ignore[union-attr]
        ask(runtime, requestMetadata={"request_key": "a"})
        ask(runtime, requestMetadata={"request_key": "b"})
        stats = server.stats()
    assert stats.ids == {"a": 2, "b": 1} and stats.duplicated == 1 and stats.undelivered == 1


def test_faults_come_in_the_shares_asked_for() -> None:
    with BedrockEmulator(faults=Faults(internal=0.2, timeout=0.1, fail_first=2, seed=5), answers="fixed") as server:
        runtime = client(server)
        codes: list[str] = []
        for _ in range(200):
            try:
                ask(runtime)
                codes.append("")
            except ClientError as error:
                codes.append(error.response["Error"]["Code"])
        stats = server.stats()
    assert codes[:2] == ["ServiceUnavailableException"] * 2
    assert stats.faults["internal"] == codes.count("InternalServerException") and 25 <= stats.faults["internal"] <= 55
    assert stats.answered == codes.count("")


def test_a_grammar_answer_is_a_conversation_and_some_are_broken() -> None:
    prompt = "Write one chat.\nIntent: lost_or_stolen_card: x\nExactly 5 turns. Number {}"
    with BedrockEmulator(malformed=0.3) as server:
        runtime = client(server)
        texts = [
            ask(runtime, prompt.format(i), max_tokens=900)["output"]["message"]["content"][0]["text"] for i in range(60)
        ]
    good = 0
    for text in texts:
        try:
            turns = json.loads(text)["turns"]
            good += len(turns) == 5 and {t["speaker"] for t in turns} == {"customer", "agent"}
        except (ValueError, KeyError, TypeError):
            pass
    assert 30 <= good < 60 and len(set(texts)) > 50


def test_it_runs_in_a_process_of_its_own() -> None:
    with BedrockEmulator(quota=Quota(requests_per_minute=2), answers="fixed", process=True) as server:
        runtime = client(server)
        ask(runtime)
        ask(runtime)
        with pytest.raises(ClientError, match="Too many requests"):
            ask(runtime)
        assert (server.stats().answered, server.stats().throttled) == (2, 1)


# --- batch ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def batch_server() -> Iterator[BedrockEmulator]:
    with BedrockEmulator(answers="fixed", s3=True, batch=Batch(job_s=0.1, minimum=10, record_failures=0.1)) as started:
        client(started, "s3").create_bucket(Bucket="emulated-bucket")
        yield started


def submit(server: BedrockEmulator, records: int, token: str, **more: Any) -> str:
    lines = [
        json.dumps({"recordId": f"{token}{i:04d}", "modelInput": {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}})
        for i in range(records)
    ]  # fmt: skip
    client(server, "s3").put_object(Bucket="emulated-bucket", Key=f"in/{token}.jsonl", Body="\n".join(lines).encode())
    asked = {
        "jobName": f"job-{token}",
        "roleArn": ROLE,
        "clientRequestToken": token,
        "modelId": MICRO,
        "modelInvocationType": "Converse",
        "inputDataConfig": {"s3InputDataConfig": {"s3Uri": f"s3://emulated-bucket/in/{token}.jsonl"}},
        "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://emulated-bucket/out/"}},
    }
    return str(client(server, "bedrock").create_model_invocation_job(**asked | more)["jobArn"])


def finished(server: BedrockEmulator, arn: str) -> dict[str, Any]:
    bedrock = client(server, "bedrock")
    for _ in range(200):
        job = bedrock.get_model_invocation_job(jobIdentifier=arn)
        if "endTime" in job:
            return dict(job)
        time.sleep(0.05)
    raise AssertionError(f"{arn} did not end: {job['status']}")


def results(server: BedrockEmulator, arn: str, token: str) -> list[dict[str, Any]]:
    key = f"out/{arn.rsplit('/', 1)[-1]}/{token}.jsonl.out"
    body = client(server, "s3").get_object(Bucket="emulated-bucket", Key=key)["Body"].read()
    return [json.loads(line) for line in body.splitlines()]


def set_outcome(server: BedrockEmulator, outcome: str) -> None:
    jobs = server.service.jobs  # type: ignore[union-attr]
    before = ("Completed",) * len(jobs.all())
    jobs.batch = Batch(job_s=0.1, minimum=10, record_failures=0.1, outcomes=(*before, outcome))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("outcome", "status", "answered"),
    [
        ("Completed", "Completed", (150, 195)),
        ("AllFailed", "Completed", (0, 0)),
        ("PartiallyCompleted", "PartiallyCompleted", (90, 120)),
        ("Expired", "Expired", (90, 120)),
        ("Failed", "Failed", None),
    ],
)
def test_a_batch_job_ends_in_every_way_there_is(
    batch_server: BedrockEmulator, outcome: str, status: str, answered: tuple[int, int] | None
) -> None:
    set_outcome(batch_server, outcome)
    arn = submit(batch_server, 200, outcome)
    job = finished(batch_server, arn)
    assert job["status"] == status
    if answered is None:
        assert "S3 bucket" in job["message"]
        return
    lines = results(batch_server, arn, outcome)
    good = [line for line in lines if "modelOutput" in line]
    assert answered[0] <= len(good) <= answered[1] and len(good) == job["successRecordCount"]
    assert job["totalRecordCount"] == 200 and job["processedRecordCount"] == len(lines)
    assert [line["recordId"] for line in lines] != sorted(line["recordId"] for line in lines)
    assert all(line["error"]["errorCode"] for line in lines if "modelOutput" not in line)


def test_the_same_client_token_never_starts_a_second_job(batch_server: BedrockEmulator) -> None:
    arn = submit(batch_server, 20, "once")
    assert submit(batch_server, 20, "once") == arn
    with pytest.raises(ClientError, match="ConflictException"):
        submit(batch_server, 20, "once", jobName="another")
    assert finished(batch_server, arn)["status"] == "Completed"
    listed = client(batch_server, "bedrock").list_model_invocation_jobs(nameContains="job-once")
    assert [job["jobArn"] for job in listed["invocationJobSummaries"]] == [arn]
    ids = batch_server.stats().ids
    once = [n for key, n in ids.items() if key.startswith("once")]
    assert set(once) == {1}, "each record that did not fail was counted, and once"


def test_too_few_records_fail_the_validation(batch_server: BedrockEmulator) -> None:
    job = finished(batch_server, submit(batch_server, 9, "few"))
    assert job["status"] == "Failed" and "between 10 and 50000" in job["message"]


def test_a_job_can_be_stopped(batch_server: BedrockEmulator) -> None:
    jobs = batch_server.service.jobs  # type: ignore[union-attr]
    jobs.batch = Batch(job_s=20, minimum=10)
    bedrock = client(batch_server, "bedrock")
    arn = submit(batch_server, 20, "stop")
    bedrock.stop_model_invocation_job(jobIdentifier=arn)
    assert finished(batch_server, arn)["status"] == "Stopped"
    with pytest.raises(ClientError, match="ConflictException"):
        bedrock.stop_model_invocation_job(jobIdentifier=arn)
