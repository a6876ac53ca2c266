"""Notebook 10's call with real providers, against the emulator and a server that speaks OpenAI's protocol."""

from __future__ import annotations

from pathlib import Path

import pytest

from bedrock_emulator.server import BedrockEmulator, Faults, Quota
from genesis_lab import generation
from genesis_lab.domains.conversations.domain import Conversations, ConversationsConfig
from genesis_lab.errors import GenesisError, InvalidInput
from genesis_lab.generation import GenerationConfig, config_for, open_or_generate
from genesis_lab.generation.engine import Sampling, generate
from genesis_lab.generation.plan import make_plan
from genesis_lab.generation.teachers import connect
from genesis_lab.parameters import from_parameters
from genesis_lab.pipeline import load_pipeline
from genesis_lab.settings import get_settings

PARAMS = Path(__file__).resolve().parents[2] / "params"


@pytest.fixture
def bedrock(monkeypatch):
    """An account with a quota, whose model answers badly one time in five and whose service has faults."""
    faults = Faults(unavailable=0.03, reset=0.02)
    with BedrockEmulator(quota=Quota(tokens_per_minute=3_000_000), faults=faults, malformed=0.2) as server:
        for name, value in (
            ("AWS_ACCESS_KEY_ID", "emulated"),
            ("AWS_SECRET_ACCESS_KEY", "emulated"),
            ("GENESIS_AWS_REGION", "us-east-1"),
            ("GENESIS_BEDROCK_ENDPOINT_URL", server.url),
        ):
            monkeypatch.setenv(name, value)
        get_settings.cache_clear()
        yield server


def config(**options) -> GenerationConfig:
    return config_for()(
        provider="bedrock", model="amazon.nova-micro-v1:0", categories=("refunds",), total=60, seed=7,
        tokens_per_minute=3_000_000, **options,
    )  # fmt: skip


def test_bedrock_gives_exactly_n_records_and_nothing_is_paid_twice(bedrock):
    dataset = generation.generate(config(dataset="first"))
    assert dataset.total == 60 and dataset.manifest["complete"]
    assert dataset.manifest["drop_reasons"] and dataset.manifest["cost_usd"] > 0
    provenance = dataset.frame()["provenance"].iloc[0]
    assert provenance["provider"] == "bedrock" and provenance["prompt_tokens"] > 0 and provenance["generated_at"]
    paid = bedrock.stats().answered
    generation.generate(config(dataset="second").first_stage)
    assert bedrock.stats().answered == paid and config(dataset="second").estimate().cost_usd == 0.0
    assert config(dataset="second", temperature=0.5).estimate().cost_usd > 0
    again = generation.generate(config(dataset="second"))
    assert again.content_hash == dataset.content_hash and bedrock.stats().answered == paid


def test_interrupting_a_paid_run_ends_soon_and_loses_nothing(bedrock):
    def interrupt(progress):
        if progress.done >= 10:
            raise KeyboardInterrupt

    with pytest.raises(GenesisError, match="run the same again"):
        generation.generate(config(dataset="cut"), on_progress=interrupt)
    paid = bedrock.stats().answered
    dataset = generation.generate(config(dataset="cut"))
    assert dataset.total == 60 and 0 < paid <= bedrock.stats().answered
    assert bedrock.stats().duplicated == 0


def test_a_provider_without_its_model_is_one_sentence():
    with pytest.raises(InvalidInput, match="needs a model"):
        generation.generate(config_for()(provider="openai", total=10))


@pytest.mark.parametrize("path", sorted(PARAMS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_params_file_is_one_that_can_run(path):
    stages = {stage.notebook.stem: stage.parameters for stage in load_pipeline(path).stages}
    domains = {"10_generate_conversations": "conversations", "11_generate_timeseries": "timeseries"}
    made = [(domain, stages[stem]) for stem, domain in domains.items() if stem in stages]
    of_others = {"12_generate_teacher", "60_conversation_dashboard", "63_close_the_loop", "71_weekly_report"}
    assert made or of_others & stages.keys()
    for domain, parameters in made:
        config = from_parameters(config_for(domain), parameters)
        assert config.dataset != "conversations" and len(config.plan.specs) == config.total


def test_the_default_dataset_is_made_where_it_is_missing_and_others_are_asked_for(capsys):
    assert open_or_generate("conversations").total == config_for()().total
    assert "generating" in capsys.readouterr().out
    with pytest.raises(InvalidInput, match="nowhere"):
        open_or_generate("nowhere")


@pytest.mark.slow
def test_the_bundled_model_writes_records_that_are_accepted(tmp_path, smollm2):
    simple = {"simple": 1.0, "medium": 0.0, "complex": 0.0}
    domain = Conversations(
        ConversationsConfig(total=10, english_share=1.0, complexity_shares=simple, max_turns=2, few_shot=0)
    )
    teacher = connect(f"local:{smollm2}")
    sampling = Sampling(temperature=0.7, max_tokens=100)
    data = generate(make_plan(domain, 1, 5), domain, [teacher], tmp_path / "d", sampling=sampling)
    teacher.close()
    assert data.total == 1 and data.manifest["cost_usd"] == 0.0
    written = data.frame()["provenance"].iloc[0]
    assert written["provider"] == "local" and "SmolLM2" in written["model"] and written["completion_tokens"] > 10
