"""The quota diagnosis: what it measures of the emulator's buckets, what it costs at most, what it writes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from bedrock_emulator.quota import Quota
from bedrock_emulator.server import BedrockEmulator
from genesis_lab.cli import main
from genesis_lab.errors import Fatal, InvalidInput
from genesis_lab.health import quota as q
from health.simulated_line import SimulatedLine

HOW = {
    "bucket": "a minute's worth of it at once",
    "burst1s": "1 s of it at once",
    "window": "counted anew every minute",
}


def measured(quota: Quota, *, seed: int = 0, largest: int = 64_000, calls: int = 399, **line: object) -> q.Diagnosis:
    probe = q.Probe(SimulatedLine(quota, seed=seed, **line), largest, calls)  # type: ignore[arg-type]
    probe.run(q.MEASURE_S)
    return probe.diagnosis("bedrock:it", 0.0, 1.0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("burndown", [1, 5])
@pytest.mark.parametrize("per_minute", [30_000, 200_000, 2_000_000])
def test_tokens_per_minute_are_found_within_one_percent(per_minute: int, burndown: int, seed: int) -> None:
    found = measured(Quota(tokens_per_minute=per_minute, burndown=burndown), seed=seed)
    assert found.tokens.per_minute == pytest.approx(per_minute, rel=0.01) and found.requests is None
    assert found.params["tokens_per_minute"] == pytest.approx(per_minute, rel=0.01)
    assert found.tokens.how == HOW["bucket"] and found.params.keys() == {"tokens_per_minute"}
    assert found.calls <= 130 and f"{found.tokens.per_minute:,.0f} tokens a minute" in str(found)


@pytest.mark.parametrize("seed", range(3))
def test_requests_per_minute_are_found_within_one_percent(seed: int) -> None:
    found = measured(Quota(requests_per_minute=20), seed=seed)
    assert found.requests.per_minute == pytest.approx(20, rel=0.01) and found.tokens is None
    assert found.params == {"requests_per_minute": 20}


@pytest.mark.parametrize("kind", ["burst1s", "window"])
@pytest.mark.parametrize("seed", range(3))
def test_other_kinds_of_bucket_are_recognised(kind: str, seed: int) -> None:
    found = measured(Quota(tokens_per_minute=2_000_000, burst=kind), seed=seed).tokens  # type: ignore[arg-type]
    assert found.how == HOW[kind] and found.low <= 2_000_000 <= found.high * 1.001
    assert found.per_minute == pytest.approx(2_000_000, rel=0.1)


def test_a_model_with_short_answers_needs_more_calls_and_says_as_much() -> None:
    found = measured(Quota(tokens_per_minute=2_000_000), largest=10_000)
    assert found.tokens.per_minute == pytest.approx(2_000_000, rel=0.01) and 200 < found.calls <= 400


def test_a_limit_that_is_not_reached_is_a_lower_bound_and_not_written(tmp_path: Path) -> None:
    found = measured(Quota(), calls=60, largest=10_000)
    assert found.tokens.high == math.inf and found.tokens.low > 200_000 and found.calls == 61 and not found.refused
    assert found.params == {} and "no limit of tokens up to" in str(found)
    with pytest.raises(InvalidInput, match="nothing to write"):
        q.write_params(tmp_path / "x.yaml", found)


def test_neither_calls_nor_money_go_beyond_what_is_allowed() -> None:
    few = measured(Quota(tokens_per_minute=2_000_000), largest=10_000, calls=50)
    assert few.calls == 51
    line = SimulatedLine(Quota(tokens_per_minute=200_000))
    probe = q.Probe(line, 10_000, 399)
    probe.max_in_money = 12
    probe.run(q.MEASURE_S)
    assert probe.diagnosis("it", 0.0, 1.0).cost_usd == pytest.approx(12e-5)


def test_the_result_goes_into_a_params_file_and_nothing_else_changes(tmp_path: Path) -> None:
    path, found = tmp_path / "mine.yaml", measured(Quota(tokens_per_minute=200_000))
    value = found.params["tokens_per_minute"]
    path.write_text('name: mine # yes\ntokens_per_minute: 0 # not known\nstages:\n  "10": {}\n')
    q.write_params(path, found)
    line = f"tokens_per_minute: {value} # measured by genesis quota"
    assert path.read_text() == f'name: mine # yes\n{line}\nstages:\n  "10": {{}}\n'
    path.write_text('name: mine\nstages:\n  "10": {}\n')
    q.write_params(path, found)
    assert path.read_text() == f'name: mine\n{line}\nstages:\n  "10": {{}}\n'
    with pytest.raises(InvalidInput, match="no params file"):
        q.write_params(tmp_path / "none.yaml", found)


def test_models_of_this_machine_have_no_quota() -> None:
    with pytest.raises(InvalidInput, match="no quota"):
        q.diagnose_quota("local:smollm2")


def test_the_command_measures_through_boto3_and_writes(
    emulator: BedrockEmulator, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(q, "MEASURE_S", 1.0)
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ntokens_per_minute: 0\n")
    emulator.change(tokens_per_minute=20_000)
    try:
        with pytest.raises(SystemExit) as ended:
            main(["quota", "bedrock:amazon.nova-micro-v1:0", "--write", str(path), "--yes", "--max-calls", "60"])
    finally:
        emulator.change(tokens_per_minute=None)
    out = capsys.readouterr().out
    assert not ended.value.code and "At most 60 short calls, at most $0.0" in out and "allows" in out
    written = int(path.read_text().split("tokens_per_minute: ")[1].split(" ")[0])
    assert f"tokens_per_minute: {written}" in out and 10_000 < written < 40_000


def test_a_model_that_cannot_be_asked_is_an_error(emulator: BedrockEmulator) -> None:
    with pytest.raises(Fatal):
        q.diagnose_quota("bedrock:emulated.denied-v1:0")
