"""Bedrock batch inference: the operations on jobs and their files in S3. What to do next is not known here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cache, partial
from pathlib import Path

from pydantic import AliasPath, BaseModel, Field

from genesis_lab.errors import Fatal, InvalidInput, ProviderError, QuotaExhausted, Rejected
from genesis_lab.providers.base import Completion, Request, known
from genesis_lab.providers.bedrock import Account, BedrockProvider, as_provider_error, converse_body
from genesis_lab.settings import Settings

NAMED = "genesis-"
"""How the names of our jobs begin."""
POLICIES = Path(__file__).with_name("batch_policies.yaml")
"""The IAM policies, with placeholders for bucket, account, region and role."""
_POLICY = "batch_policies.yaml (`genesis jobs list` says where it is) has the policies"
_ENDED = frozenset({"Completed", "PartiallyCompleted", "Failed", "Expired", "Stopped"})
_ATTEMPTS = 5


class Job(BaseModel):
    """A batch job as the service tells it; its counts are 0 until it is under way."""

    name: str = Field("", alias="jobName")
    arn: str = Field(alias="jobArn")
    status: str = ""
    message: str = ""
    records: int = Field(0, alias="totalRecordCount")
    processed: int = Field(0, alias="processedRecordCount")
    succeeded: int = Field(0, alias="successRecordCount")
    failed: int = Field(0, alias="errorRecordCount")
    submitted_at: datetime = Field(alias="submitTime")
    ended_at: datetime | None = Field(None, alias="endTime")
    input_uri: str = Field(validation_alias=AliasPath("inputDataConfig", "s3InputDataConfig", "s3Uri"))
    output_uri: str = Field(validation_alias=AliasPath("outputDataConfig", "s3OutputDataConfig", "s3Uri"))

    @property
    def ended(self) -> bool:
        return self.status in _ENDED


class BatchService:
    """Batch jobs of one account and region, in the bucket and with the role of its settings."""

    def __init__(self, account: Account | None = None) -> None:
        self.account = account or Account(connections=4)
        self.settings: Settings = self.account.settings
        self._client = cache(partial(self.account.client, attempts=_ATTEMPTS))

    def place(self) -> tuple[str, str, str]:
        """Bucket, prefix (empty or ending in a slash) and role ARN. Raises `InvalidInput` where one is not set."""
        bucket, role = self.settings.batch_bucket, self.settings.batch_role_arn
        for value, name, what in ((bucket, "BUCKET", "an S3 bucket"), (role, "ROLE_ARN", "an IAM role")):
            if not value:
                raise InvalidInput(f"Batch jobs need {what}: set GENESIS_BATCH_{name}; {_POLICY} it needs.")
        name, _, prefix = str(bucket).removeprefix("s3://").strip("/").partition("/")
        return name, f"{prefix}/" if prefix else "", str(role)

    def check(self) -> None:
        """Ask whether the bucket is there and open to us. Raises `InvalidInput` or `Fatal` with what to do."""
        bucket, _, _ = self.place()
        with self._said("s3:ListBucket", bucket):
            self._client("s3").head_bucket(Bucket=bucket)

    def upload(self, file: Path) -> str:
        """Put a shard into the bucket; returns its URI. The same file again replaces itself."""
        bucket, prefix, _ = self.place()
        key = f"{prefix}input/{file.name}"
        with self._said("s3:PutObject", bucket):
            self._client("s3").upload_file(str(file), bucket, key)
        return f"s3://{bucket}/{key}"

    def create(self, name: str, token: str, model: str, input_uri: str) -> str:
        """Start a job; returns its ARN. The same `token` never starts a second one.

        Raises `QuotaExhausted` where the account has as many jobs as it may have.
        """
        bucket, prefix, role = self.place()
        with self._said("bedrock:CreateModelInvocationJob (and iam:PassRole on the role)", name):
            created = self._client("bedrock").create_model_invocation_job(
                jobName=name,
                roleArn=role,
                clientRequestToken=token,
                modelId=model,
                modelInvocationType="Converse",
                inputDataConfig={"s3InputDataConfig": {"s3InputFormat": "JSONL", "s3Uri": input_uri}},
                outputDataConfig={"s3OutputDataConfig": {"s3Uri": f"s3://{bucket}/{prefix}output/"}},
            )
        return str(created["jobArn"])

    def get(self, arn: str) -> Job:
        """Raises `InvalidInput` if there is no such job here."""
        with self._said("bedrock:GetModelInvocationJob", arn):
            return Job.model_validate(self._client("bedrock").get_model_invocation_job(jobIdentifier=arn))

    def jobs(self, name: str = NAMED) -> Iterator[Job]:
        """Jobs with `name` in their name, the newest first."""
        with self._said("bedrock:ListModelInvocationJobs", name):
            pages = self._client("bedrock").get_paginator("list_model_invocation_jobs")
            for page in pages.paginate(nameContains=name, sortBy="CreationTime", sortOrder="Descending"):
                yield from map(Job.model_validate, page["invocationJobSummaries"])

    def stop(self, name: str) -> None:
        """Stop the job of a name or ARN; what it has answered is kept. Raises `InvalidInput` where none of it runs."""
        arn = name if name.startswith("arn:") else next((job.arn for job in self.jobs(name) if job.name == name), "")
        if not arn:
            raise InvalidInput(f"There is no batch job {name}: `genesis jobs list` shows those there are.")
        with self._said("bedrock:StopModelInvocationJob", arn):
            self._client("bedrock").stop_model_invocation_job(jobIdentifier=arn)

    def download(self, job: Job, file: Path) -> bool:
        """The answers of a job that has ended, into `file`; False if there are none, as in one that never began.

        Raises `Fatal` where it holds fewer than the job says it has given.
        """
        bucket, _, prefix = job.output_uri.removeprefix("s3://").partition("/")
        name = f"{job.arn.rsplit('/', 1)[-1]}/{job.input_uri.rsplit('/', 1)[-1]}.out"
        key = f"{prefix.rstrip('/')}/{name}".lstrip("/")
        try:
            with self._said("s3:GetObject", bucket):
                self._client("s3").download_file(bucket, key, str(file))
        except Fatal as error:
            if error.code not in ("NoSuchKey", "404"):
                raise
            if job.succeeded:
                raise Fatal(f"The answers of {job.name} are not in the bucket: s3://{bucket}/{key}.") from None
            return False
        with file.open("rb") as lines:
            found = sum(b'"modelOutput"' in line for line in lines)
        if found < job.succeeded:
            raise Fatal(f"s3://{bucket}/{key} holds {found:,} answers of {job.succeeded:,}.")
        return True

    @contextmanager
    def _said(self, action: str, what: str) -> Iterator[None]:
        """Turn what the AWS SDK raises into one sentence."""
        try:
            yield
        except (ProviderError, InvalidInput):
            raise
        except Exception as raised:
            cause = raised.__context__ if type(raised).__name__ == "S3UploadFailedError" else raised
            error = as_provider_error(cause, "batch")  # type: ignore[arg-type]
            if error is cause:
                raise
            code = getattr(error, "code", "")
            for sign, sentence in known("bedrock")["batch"].items():
                if re.fullmatch(sign, f"{code} {action.split(' ')[0]}"):
                    said = sentence.format(action=action, what=what, region=self.account.region, policy=_POLICY)
                    ours = code in ("ResourceNotFoundException", "ConflictException")
                    raise (InvalidInput if ours else Fatal)(said) from raised
            if isinstance(error, QuotaExhausted):
                raise QuotaExhausted(f"The account has as many batch jobs as it may have ({error}).") from raised
            refused = Fatal(f"AWS refuses {action} on {what}: {error}", code=code)
            raise (refused if isinstance(error, Rejected) else error) from raised


def record_line(provider: BedrockProvider, number: int, request: Request) -> bytes:
    """The line of a shard for its `number`-th request.

    The schema is stated in the prompt: whether batch jobs take tools or structured output is contradictory in the
    documentation; there is no prompt cache in them.
    """
    body = converse_body(request, provider.info, {"json_schema", "tool", "cache"})
    line = {"recordId": f"{number:011d}", "modelInput": body}
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


def read_lines(
    provider: BedrockProvider, lines: Iterable[bytes], created_at: datetime
) -> Iterator[tuple[int, Completion | str]]:
    """Number of each line of an output file and its answer, or why there is none; lines not of ours are skipped."""
    for line in lines:
        try:
            record = json.loads(line)
            number = int(record["recordId"])
        except (ValueError, KeyError, TypeError):
            continue
        output, told = record.get("modelOutput"), record.get("error")
        answer: Completion | str = "the model gave no answer"
        if isinstance(told, dict):
            answer = str(told.get("errorMessage") or told)
        elif isinstance(output, dict) and output.get("output"):
            with suppress(AttributeError, KeyError, TypeError, ValueError):  # else not of the form of an answer
                read = provider.read(output, created_at, batch=True)
                answer = read if read.text or read.usage else answer
        yield number, answer
