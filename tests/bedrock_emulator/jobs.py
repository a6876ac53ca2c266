"""Batch inference jobs: their life cycle, and the files they read from and write to S3."""

from __future__ import annotations

import json
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from bedrock_emulator.models import ACCOUNT, REGION

Outcome = Literal["Completed", "AllFailed", "PartiallyCompleted", "Failed", "Expired", "Stopped"]


@dataclass(frozen=True)
class Batch:
    """How batch jobs go.

    Parameters
    ----------
    outcomes : of the first, second … job; "Completed" beyond. "AllFailed" is Completed with every record failed.
    job_s : seconds from submission to the end.
    record_failures : share of records that fail in a job that completes.
    processed : share of records that a partially completed, expired or stopped job gets to.
    minimum, maximum : records per job; fewer or more fail the validation.
    message : of a failed job.
    """

    outcomes: tuple[Outcome, ...] = ()
    job_s: float = 0.2
    record_failures: float = 0.0
    processed: float = 0.6
    minimum: int = 100
    maximum: int = 50_000
    message: str = "The S3 bucket can't be read: check the role's permissions."
    seed: int = 0


class Job:
    """One job. Runs in a thread of its own."""

    def __init__(self, job_id: str, asked: dict[str, Any], outcome: Outcome, run: Callable[[Job], None]) -> None:
        self.job_id, self.asked, self.outcome = job_id, asked, outcome
        self.arn = f"arn:aws:bedrock:{REGION}:{ACCOUNT}:model-invocation-job/{job_id}"
        self.status, self.message = "Submitted", ""
        self.submitted = self.modified = time.time()
        self.ended: float | None = None
        self.total = self.processed = self.succeeded = self.failed = 0
        self.stop_wanted = threading.Event()
        self._thread = threading.Thread(target=run, args=(self,), daemon=True)
        self._thread.start()

    def enter(self, status: str) -> None:
        self.status, self.modified = status, time.time()
        if status in ("Completed", "PartiallyCompleted", "Failed", "Expired", "Stopped"):
            self.ended = self.modified

    def stop(self) -> bool:
        if self.ended is not None:
            return False
        self.stop_wanted.set()
        self.enter("Stopping")
        return True

    def describe(self) -> dict[str, Any]:
        """The job as GetModelInvocationJob shows it."""
        told = {
            "jobArn": self.arn,
            "jobName": self.asked["jobName"],
            "modelId": self.asked["modelId"],
            "clientRequestToken": self.asked.get("clientRequestToken", ""),
            "roleArn": self.asked["roleArn"],
            "status": self.status,
            "submitTime": _stamp(self.submitted),
            "lastModifiedTime": _stamp(self.modified),
            "inputDataConfig": self.asked["inputDataConfig"],
            "outputDataConfig": self.asked["outputDataConfig"],
            "timeoutDurationInHours": self.asked.get("timeoutDurationInHours", 24),
            "jobExpirationTime": _stamp(self.submitted + 86_400),
            "modelInvocationType": self.asked.get("modelInvocationType", "InvokeModel"),
            "totalRecordCount": self.total,
            "processedRecordCount": self.processed,
            "successRecordCount": self.succeeded,
            "errorRecordCount": self.failed,
        }
        if self.message:
            told["message"] = self.message
        if self.ended is not None:
            told["endTime"] = _stamp(self.ended)
        return told


class Jobs:
    """All jobs of the emulated account.

    Parameters
    ----------
    answer : (model id, invocation type, model input, record id) to model output; raises for a record that can't work.
    paid : (record id, prompt tokens, completion tokens), called for every answered record.
    """

    def __init__(
        self,
        batch: Batch,
        s3_url: str | None,
        credentials: tuple[str, str],
        answer: Callable[[str, str, dict[str, Any], str], dict[str, Any]],
        paid: Callable[[str, int, int], None],
    ) -> None:
        self.batch, self.s3_url, self._credentials = batch, s3_url, credentials
        self._answer, self._paid = answer, paid
        self._jobs: dict[str, Job] = {}
        self._tokens: dict[str, Job] = {}
        self._lock = threading.Lock()

    def create(self, asked: dict[str, Any]) -> str | None:
        """The ARN of the job, an earlier one if the token was seen with the same request; None if with another."""
        token = asked.get("clientRequestToken")
        with self._lock:
            if token in self._tokens:
                return self._tokens[token].arn if self._tokens[token].asked == asked else None
            number = len(self._jobs)
            outcome = self.batch.outcomes[number] if number < len(self.batch.outcomes) else "Completed"
            job = Job(f"emulated{number:04d}", asked, outcome, self._run)
            self._jobs[job.job_id] = job
            if token:
                self._tokens[token] = job
            return job.arn

    def get(self, identifier: str) -> Job | None:
        return self._jobs.get(identifier.rsplit("/", 1)[-1])

    def all(self) -> list[Job]:
        return list(self._jobs.values())

    def _run(self, job: Job) -> None:
        try:
            self._live(job)
        except Exception as error:
            job.message = f"{type(error).__name__}: {error}"[:2000]
            job.enter("Failed")

    def _live(self, job: Job) -> None:
        step_s = self.batch.job_s / 4
        job.stop_wanted.wait(step_s)
        if self._stopped(job):
            return
        job.enter("Validating")
        if job.outcome == "Failed":
            job.message = self.batch.message
            job.stop_wanted.wait(step_s)
            job.enter("Failed")
            return
        s3 = self._s3()
        files = {key: sum(1 for _ in _lines(s3, bucket, key)) for bucket, key in self._inputs(s3, job)}
        job.total = sum(files.values())
        if not self.batch.minimum <= job.total <= self.batch.maximum:
            job.message = (
                f"The number of records {job.total} must be between {self.batch.minimum} and {self.batch.maximum}."
            )
            job.enter("Failed")
            return
        for status in ("Scheduled", "InProgress"):
            job.enter(status)
            job.stop_wanted.wait(step_s)
            if self._stopped(job):
                return
        self._process(s3, job)
        if not self._stopped(job):
            ends = {"AllFailed": "Completed"}
            job.enter(ends.get(job.outcome, job.outcome))
            if job.outcome == "Expired":
                job.message = "The job was not finished before its timeout."

    def _stopped(self, job: Job) -> bool:
        if job.stop_wanted.is_set():
            job.enter("Stopped")
            return True
        return False

    def _process(self, s3: Any, job: Job) -> None:
        kind = job.asked.get("modelInvocationType", "InvokeModel")
        draw = random.Random(f"{self.batch.seed}/{job.job_id}")
        reached = job.total
        if job.outcome in ("PartiallyCompleted", "Expired", "Stopped"):
            reached = int(job.total * self.batch.processed)
        bucket, prefix = _split(job.asked["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"])
        folder = f"{prefix.rstrip('/')}/{job.job_id}".lstrip("/")
        tokens = {"inputTokenCount": 0, "outputTokenCount": 0}
        for in_bucket, key in self._inputs(s3, job):
            out: list[str] = []
            for line in _lines(s3, in_bucket, key):
                if job.processed >= reached or job.stop_wanted.is_set():
                    break
                failing = job.outcome == "AllFailed" or draw.random() < self.batch.record_failures
                out.append(self._record(job, kind, line, failing, tokens))
            draw.shuffle(out)
            _upload(s3, bucket, f"{folder}/{key.rsplit('/', 1)[-1]}.out", out)
        counts = {
            "totalRecordCount": job.total,
            "processedRecordCount": job.processed,
            "successRecordCount": job.succeeded,
            "errorRecordCount": job.failed,
        }
        _upload(s3, bucket, f"{folder}/manifest.json.out", [json.dumps(counts | tokens)])

    def _record(self, job: Job, kind: str, line: str, failing: bool, tokens: dict[str, int]) -> str:
        job.processed += 1
        record: dict[str, Any] = {}
        try:
            record = json.loads(line)
            if failing:
                raise ValueError("The model could not process this record.")
            record_id = record.get("recordId") or f"GENERATED{job.processed:08d}"
            given = record["modelInput"]
            output = self._answer(job.asked["modelId"], kind, given, record_id)
        except Exception as error:
            job.failed += 1
            wrong = {"errorCode": getattr(error, "status", 400), "errorMessage": str(error), "expired": False}
            return json.dumps(record | {"error": wrong})
        job.succeeded += 1
        usage = output.get("usage", {})
        prompt = usage.get("inputTokens", usage.get("input_tokens", 0))
        completion = usage.get("outputTokens", usage.get("output_tokens", 0))
        tokens["inputTokenCount"] += prompt
        tokens["outputTokenCount"] += completion
        key = given.get("requestMetadata", {}).get("request_key") if isinstance(given, dict) else None
        self._paid(key or record_id, prompt, completion)
        return json.dumps({"modelInput": given, "modelOutput": output, "recordId": record_id})

    def _s3(self) -> Any:
        import boto3

        key, secret = self._credentials
        return boto3.client(
            "s3", endpoint_url=self.s3_url, region_name=REGION, aws_access_key_id=key, aws_secret_access_key=secret
        )

    def _inputs(self, s3: Any, job: Job) -> list[tuple[str, str]]:
        bucket, key = _split(job.asked["inputDataConfig"]["s3InputDataConfig"]["s3Uri"])
        listed = s3.list_objects_v2(Bucket=bucket, Prefix=key).get("Contents", [])
        found = [(bucket, o["Key"]) for o in listed if o["Key"].endswith(".jsonl")]
        if not found:
            raise FileNotFoundError(f"No .jsonl file at s3://{bucket}/{key}.")
        return found


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def _lines(s3: Any, bucket: str, key: str) -> Iterator[str]:
    for line in s3.get_object(Bucket=bucket, Key=key)["Body"].iter_lines():
        if line.strip():
            yield line.decode()


def _upload(s3: Any, bucket: str, key: str, lines: list[str]) -> None:
    with tempfile.TemporaryFile() as file:
        for line in lines:
            file.write(line.encode() + b"\n")
        file.seek(0)
        s3.put_object(Bucket=bucket, Key=key, Body=file)


def _stamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
