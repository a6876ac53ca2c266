"""Records bought in batch jobs: every outcome, every step at which a run may die, and nothing paid for twice."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bedrock_emulator.faults import Faults
from bedrock_emulator.server import BedrockEmulator
from genesis_lab.cli import main
from genesis_lab.dataset import Dataset
from genesis_lab.errors import Fatal, GenesisError, InvalidInput, QuotaExhausted, Transient
from genesis_lab.files import dataset_path
from genesis_lab.generation import GenerationConfig, config_for, generate
from genesis_lab.generation import batch as batch_module
from genesis_lab.generation.batch import Batches, read_shards
from genesis_lab.generation.journal import Journal
from genesis_lab.providers.asking import Asking
from genesis_lab.providers.bedrock_batch import POLICIES, BatchService
from genesis_lab.providers.cache import CompletionCache
from genesis_lab.settings import get_settings
from genesis_lab.yamls import read_yaml
from providers.batch_place import MICRO, set_batch, use_batch

SCENARIO = Path(__file__).with_name("batch_scenario.py")
TOTAL = 60


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with BedrockEmulator(s3=True) as started:
        yield str(started.s3_url)


@pytest.fixture
def server(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[BedrockEmulator]:
    """A service of its own for each test, so that what it counted is the test's."""
    with BedrockEmulator(s3=s3) as started:
        set_batch(started)
        use_batch(monkeypatch, started, batch_poll_s=0.02)
        yield started


def config(total: int = TOTAL, **options: Any) -> GenerationConfig:
    given = {
        "dataset": "d",
        "provider": "bedrock_batch",
        "model": MICRO,
        "categories": ("refunds",),
        "temperature": 0.9,
        "records": "utterances",
        "list_size": 1,
    }
    given |= {"tokens_per_minute": 10_000_000}  # nothing to wait for on demand
    return config_for()(**given | {"total": total} | options)


def run(total: int = TOTAL, **options: Any) -> Dataset:
    return generate(config(total, **options))


def whole(dataset: Dataset, total: int = TOTAL) -> None:
    assert dataset.total == total and dataset.manifest["complete"]


def created(server: BedrockEmulator) -> int:
    return len(server.service.jobs.all())  # type: ignore[union-attr]


def paid_once(server: BedrockEmulator) -> None:
    stats = server.stats()
    assert stats.duplicated == 0 and stats.answered == len(stats.ids)


# --- the way there ----------------------------------------------------------------------------------------------------


def test_records_come_out_of_one_job_at_half_price(server: BedrockEmulator) -> None:
    dataset = run()
    whole(dataset)
    paid_once(server)
    stats = server.stats()
    assert created(server) == 1 and stats.answered == dataset.manifest["attempts"]
    usage = dataset.manifest["usage"]
    assert usage["completion_tokens"] == stats.completion_tokens
    full = (usage["prompt_tokens"] * 0.035 + usage["completion_tokens"] * 0.14) / 1e6
    assert stats.requests == 0 and dataset.manifest["cost_usd"] == pytest.approx(full / 2)
    assert set(dataset.frame()["provenance"].str["model"]) == {MICRO}
    assert not list(dataset.path.parent.glob("*.run*"))


def test_a_plan_costs_half_and_takes_a_day_at_most() -> None:
    batch, on_demand = config().estimate(), config(provider="bedrock").estimate()
    assert batch.cost_usd == pytest.approx(on_demand.cost_usd / 2)  # type: ignore[operator]
    assert batch.in_batch and batch.time_s is None and not on_demand.in_batch


def test_a_teacher_in_batch_is_named_in_one_line() -> None:
    options = config(provider="offline", teachers=(f"bedrock_batch:{MICRO}@eu-west-1", f"bedrock:{MICRO}@us-east-1"))
    first, second = options.connect()
    assert (first.in_batch, second.in_batch) == (True, False)
    assert first.provider.account.settings.aws_region == "eu-west-1"  # type: ignore[attr-defined]


def test_a_plan_larger_than_a_job_is_cut_into_shards_that_run_side_by_side(
    server: BedrockEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_batch(monkeypatch, server, batch_max_records=40, batch_poll_s=0.02)
    set_batch(server, job_s=2.0)  # all are sent long before the first is done
    whole(run(100), 100)
    jobs = server.service.jobs.all()  # type: ignore[union-attr]
    assert [job.total for job in jobs[:3]] == [40, 40, 20]
    assert max(job.submitted for job in jobs[:3]) < min(job.ended for job in jobs[:3] if job.ended)
    assert (
        len({job.asked["jobName"] for job in jobs})
        == len({job.asked["clientRequestToken"] for job in jobs})
        == len(jobs)
    )
    paid_once(server)


def test_each_round_of_jobs_asks_for_the_next_list_of_every_key(server: BedrockEmulator) -> None:
    intents = tuple(config(categories=("top_up",)).domain.taxonomy.names[:6])
    dataset = run(list_size=3, categories=(), intents=intents)
    whole(dataset)
    first, second = server.service.jobs.all()[:2]  # type: ignore[union-attr]
    assert (first.total, second.total) == (12, 12)
    paid_once(server)


def test_a_shard_holds_no_more_bytes_than_a_file_may_have(
    server: BedrockEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_batch(monkeypatch, server, batch_max_bytes=150_000, batch_poll_s=0.02)
    sizes: list[int] = []
    upload = BatchService.upload
    monkeypatch.setattr(
        BatchService, "upload", lambda self, file: sizes.append(file.stat().st_size) or upload(self, file)
    )
    whole(run())
    assert len(sizes) > 1 and max(sizes) <= 150_000
    paid_once(server)


def test_failed_records_and_bad_answers_are_asked_again_in_batch_and_the_last_few_on_demand(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    with BedrockEmulator(s3=s3, malformed=0.3) as server:
        set_batch(server, record_failures=0.2)
        use_batch(monkeypatch, server, batch_poll_s=0.02)
        dataset = run(100)
        whole(dataset, 100)
        jobs = server.service.jobs.all()  # type: ignore[union-attr]
        assert len(jobs) > 1 and jobs[1].total < 70
        assert all(job.total >= 10 for job in jobs)
        assert server.stats().requests > 0 and server.stats().answered == dataset.manifest["attempts"]
        paid_once(server)


def test_too_few_records_are_refused_before_anything_is_paid_for(server: BedrockEmulator) -> None:
    get_settings.cache_clear()
    os.environ["GENESIS_BATCH_MIN_RECORDS"] = "100"  # put back by the fixture
    with pytest.raises(InvalidInput, match=r"100 records or more, and this run has 60: .*provider=bedrock"):
        run()
    assert not server.stats().calls.get("CreateModelInvocationJob") and not dataset_path("d.run").exists()


def test_a_bucket_that_is_not_there_stops_the_run_before_it_begins(
    server: BedrockEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_batch(monkeypatch, server, batch_bucket="not-there-at-all")
    with pytest.raises(Fatal, match="There is no bucket not-there-at-all"):
        run()
    assert not dataset_path("d.run").exists()


def test_progress_tells_what_the_jobs_are_at(server: BedrockEmulator) -> None:
    set_batch(server, job_s=1.2)
    seen: list[Asking] = []
    generate(config(), on_progress=seen.append)
    notes = [detail for progress in seen for detail in progress.details]
    assert any("usually done within 24 hours: 1 InProgress" in note for note in notes)
    assert all(progress.eta_s is None for progress in seen if progress.details and "24 hours" in progress.details[0])
    assert (seen[-1].done, seen[-1].total) == (TOTAL, TOTAL)


def test_two_teachers_in_batch_work_side_by_side(server: BedrockEmulator) -> None:
    lite = "amazon.nova-lite-v1:0"
    dataset = run(100, teachers=(f"bedrock_batch:{MICRO}", f"bedrock_batch:{lite}"))
    whole(dataset, 100)
    assert [part["accepted"] for part in dataset.manifest["teachers"]] == [50, 50]
    assert {job.asked["modelId"] for job in server.service.jobs.all()} == {MICRO, lite}  # type: ignore[union-attr]
    paid_once(server)


# --- how a job may end ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["PartiallyCompleted", "Expired"])
def test_what_a_job_did_not_get_to_is_sent_again_and_nothing_else(server: BedrockEmulator, outcome: str) -> None:
    set_batch(server, outcomes=(outcome,))
    whole(run())
    first, second, *_ = server.service.jobs.all()  # type: ignore[union-attr]
    assert first.status == outcome and first.total == TOTAL and second.total >= TOTAL - first.succeeded
    paid_once(server)


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        ({"outcomes": ("Failed",)}, r"failed: The S3 bucket can't be read: check the role's permissions"),
        ({"outcomes": ("AllFailed",)}, r"Every record of batch job .* failed, 60 of 60 with: The model could not"),
        ({"outcomes": ("Expired",), "processed": 0.0}, r"No record of the batch jobs was answered \(Expired\)"),
    ],
)
def test_what_another_job_would_run_into_as_well_stops_the_run_until_it_is_called_again(
    server: BedrockEmulator, batch: dict[str, Any], says: str
) -> None:
    set_batch(server, **batch)
    with pytest.raises(GenesisError, match=says) as stopped:
        run()
    assert "run the same again to send the rest" in str(stopped.value) and created(server) == 1
    whole(run())
    paid_once(server)


def test_a_stopped_job_stops_the_run_and_what_it_answered_is_kept(server: BedrockEmulator) -> None:
    set_batch(server, outcomes=("Stopped",))
    with pytest.raises(GenesisError, match=r"was stopped\..*run the same again"):
        run()
    whole(run())
    _, second, *_ = server.service.jobs.all()  # type: ignore[union-attr]
    assert second.total < TOTAL / 2
    paid_once(server)


def test_one_bad_job_of_three_does_not_cost_the_others(
    server: BedrockEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_batch(monkeypatch, server, batch_max_records=20, batch_poll_s=0.02)
    set_batch(server, outcomes=("Completed", "Failed", "Completed"))
    with pytest.raises(GenesisError, match="failed: The S3 bucket"):
        run()
    whole(run())
    assert server.service.jobs.all()[3].total >= 20  # type: ignore[union-attr]
    paid_once(server)


def test_more_jobs_than_the_account_may_have_are_sent_one_after_the_other(
    server: BedrockEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_batch(monkeypatch, server, batch_max_records=20, batch_poll_s=0.02)
    create = BatchService.create

    def one_at_a_time(self: BatchService, *given: Any) -> str:
        if any(job.ended is None for job in server.service.jobs.all()):  # type: ignore[union-attr]
            raise QuotaExhausted("too many jobs")
        return create(self, *given)

    monkeypatch.setattr(BatchService, "create", one_at_a_time)
    whole(run())
    paid_once(server)


def test_a_network_that_is_gone_for_a_while_is_waited_for(
    server: BedrockEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    get, looks = BatchService.get, iter(range(100))

    def flaky(self: BatchService, arn: str) -> Any:
        if next(looks) < 5:
            raise Transient("The connection to Bedrock failed.")
        return get(self, arn)

    monkeypatch.setattr(BatchService, "get", flaky)
    whole(run())
    monkeypatch.setattr(batch_module, "FAILED_LOOKS", 3)
    monkeypatch.setattr(BatchService, "get", lambda self, arn: (_ for _ in ()).throw(Transient("still gone")))
    with pytest.raises(GenesisError, match="still gone"):
        run(dataset="e", seed=8)
    monkeypatch.setattr(BatchService, "get", get)
    whole(run(dataset="e", seed=8))
    paid_once(server)


# --- death at every step ----------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def dies(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, *, after: bool = False, call: int = 1) -> None:
    """Die before or after the `call`-th call of ``owner.name``, and of all later ones."""
    whole_method: Callable[..., Any] = getattr(owner, name)
    calls = iter(range(1, 1_000_000))

    def method(*given: Any, **more: Any) -> Any:
        late = next(calls) >= call
        if late and not after:
            raise Killed
        answer = whole_method(*given, **more)
        if late:
            raise Killed
        return answer

    monkeypatch.setattr(owner, name, method)


STEPS: dict[str, tuple[type, str, dict[str, Any]]] = {
    "while a shard is written": (Batches, "_submit", {}),
    "before the upload": (BatchService, "upload", {}),
    "after the upload": (BatchService, "upload", {"after": True}),
    "before the job is created": (BatchService, "create", {}),
    "after it is created": (BatchService, "create", {"after": True}),
    "after its ARN is written": (Batches, "_submit", {"after": True}),
    "at the first look": (BatchService, "get", {}),
    "at the third look": (BatchService, "get", {"call": 3}),
    "before the download": (BatchService, "download", {}),
    "after the download": (BatchService, "download", {"after": True}),
    "in the middle of joining": (CompletionCache, "put", {"call": 30}),
    "after joining": (Batches, "_join", {"after": True}),
    "in the middle of accepting": (Journal, "append", {"call": 25}),
}


@pytest.mark.parametrize("step", STEPS)
def test_death_at_any_step_costs_no_second_job(server: BedrockEmulator, step: str) -> None:
    owner, name, when = STEPS[step]
    with pytest.MonkeyPatch.context() as monkeypatch:
        dies(monkeypatch, owner, name, **when)
        with pytest.raises(Killed):
            run()
    before = created(server)
    dataset = run()
    whole(dataset)
    big = [job for job in server.service.jobs.all() if job.total == TOTAL]  # type: ignore[union-attr]
    assert len(big) == 1 and before <= created(server)
    paid_once(server)


@pytest.mark.parametrize("entry", ["shard", "created", "joined"])
def test_kill_9_and_the_same_command_again(server: BedrockEmulator, entry: str) -> None:
    set_batch(server, job_s=0.0 if entry == "joined" else 0.5)
    process = subprocess.Popen(
        [sys.executable, str(SCENARIO), json.dumps(config().model_dump(mode="json"))],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    folder = dataset_path("d.run")
    while not any(f'"kind":"{entry}"' in p.read_text() for p in folder.glob("batch-*/jobs.jsonl")):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (jobs,) = folder.glob("batch-*")
    assert len(read_shards(jobs)) >= 1 and not (dataset_path("d") / "manifest.json").exists()
    dataset = run()
    whole(dataset)
    big = [job for job in server.service.jobs.all() if job.total == TOTAL]  # type: ignore[union-attr]
    assert len(big) == 1
    paid_once(server)


def test_ctrl_c_leaves_the_jobs_running_and_says_so(server: BedrockEmulator) -> None:
    set_batch(server, job_s=0.5)

    def interrupt(progress: Asking) -> None:
        if any("InProgress" in detail for detail in progress.details):
            raise KeyboardInterrupt

    with pytest.raises(GenesisError, match=r"run the same again to go on\. 1 batch job of 60 records run"):
        generate(config(), on_progress=interrupt)
    whole(run())
    assert sum(job.total == TOTAL for job in server.service.jobs.all()) == 1  # type: ignore[union-attr]
    paid_once(server)


def test_a_run_goes_on_on_demand_only_after_its_jobs_are_joined(server: BedrockEmulator) -> None:
    set_batch(server, job_s=0.4)
    with pytest.MonkeyPatch.context() as monkeypatch:
        dies(monkeypatch, BatchService, "get")
        with pytest.raises(Killed):
            run()
    whole(run(provider="bedrock"))
    assert created(server) == 1
    paid_once(server)


# --- the daily quota --------------------------------------------------------------------------------------------------


def test_what_the_daily_quota_does_not_allow_goes_through_batch_as_the_error_says(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BedrockEmulator(s3=s3, faults=Faults(daily_quota_after=20)) as server:
        set_batch(server)
        use_batch(monkeypatch, server, batch_poll_s=0.02)
        with pytest.raises(QuotaExhausted, match="provider: bedrock_batch"):
            run(provider="bedrock")
        assert created(server) == 0
        try:
            dataset = run()
        except QuotaExhausted:  # a bad answer or two were left for on demand
            server.service.faults = Faults()  # type: ignore[union-attr]  # the next day
            dataset = run()
        whole(dataset)
        assert created(server) >= 1 and server.service.jobs.all()[0].total <= TOTAL - 15  # type: ignore[union-attr]
        paid_once(server)


# --- genesis jobs -----------------------------------------------------------------------------------------------------


@pytest.fixture
def genesis(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(["jobs", *arguments])
        return (int(caught.value.code or 0), *capsys.readouterr())

    return call


def test_jobs_are_listed_by_name(
    server: BedrockEmulator, genesis: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = genesis("list")
    assert code == 0 and out.startswith("no batch jobs; the IAM policies") and out.endswith("batch_policies.yaml\n")
    with pytest.MonkeyPatch.context() as patch:
        dies(patch, BatchService, "get")
        with pytest.raises(Killed):
            run()
    (job,) = server.service.jobs.all()  # type: ignore[union-attr]
    name = job.asked["jobName"]
    code, out, _ = genesis("list")
    assert code == 0 and out.startswith(f"{name}  ") and out.endswith("of 60 records, for d\n")
    whole(run())
    assert genesis("list")[1] == f"{name}  Completed  60 of 60 records\n"
    monkeypatch.setenv("GENESIS_BEDROCK_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("genesis_lab.providers.bedrock_batch._ATTEMPTS", 1)
    get_settings.cache_clear()
    code, out, err = genesis("list")
    assert (code, out) == (1, "") and "can't be reached" in err


def test_a_job_is_stopped_by_name(server: BedrockEmulator, genesis: Callable[..., tuple[int, str, str]]) -> None:
    set_batch(server, job_s=60)
    with pytest.MonkeyPatch.context() as patch:
        dies(patch, BatchService, "get")
        with pytest.raises(Killed):
            run()
    (job,) = server.service.jobs.all()  # type: ignore[union-attr]
    name = job.asked["jobName"]
    assert genesis("stop", name) == (0, f"stopping {name}\n", "")
    assert job.stop_wanted.is_set()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("stop", "genesis-nobody"),
            "There is no batch job genesis-nobody: `genesis jobs list` shows those there are.",
        ),
        (
            ("stop", "arn:aws:bedrock:us-east-1:123456789012:model-invocation-job/nobody000000"),
            "There is no batch job arn",
        ),
        (("stop", "not a name"), "not a name"),
    ],
)
def test_what_is_not_there_is_one_line(
    server: BedrockEmulator, genesis: Callable[..., tuple[int, str, str]], arguments: tuple[str, ...], sentence: str
) -> None:
    code, _, err = genesis(*arguments)
    assert code == 1 and sentence in err and err.splitlines()[-1].startswith("genesis: ")


def test_the_policies_that_ship_have_placeholders_for_what_is_private() -> None:
    policies = [entry["policy"] for entry in read_yaml(POLICIES)]
    assert "arn:aws:s3:::<BUCKET>/*" in str(policies) and not re.search(r"\d{12}", str(policies))
    actions = {a for p in policies for s in p["Statement"] for a in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])}  # fmt: skip
    assert len(policies) == 5
    assert {"bedrock:InvokeModel", "bedrock:CreateModelInvocationJob", "iam:PassRole", "s3:PutObject"} <= actions
