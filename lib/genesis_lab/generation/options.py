"""Who writes a dataset, and how: the options that every kind of generation shares, and the call that carries them out."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from genesis_lab.dataset import Dataset, open_dataset
from genesis_lab.domains import get_domain
from genesis_lab.domains.base import Domain
from genesis_lab.errors import Interrupted, InvalidInput
from genesis_lab.files import dataset_path, output_root
from genesis_lab.generation.engine import Sampling, generate, request_for
from genesis_lab.generation.estimate import Estimate, estimate
from genesis_lab.generation.lane import Progress, Task
from genesis_lab.generation.plan import Plan, make_plan
from genesis_lab.generation.teachers import Teacher, connect
from genesis_lab.providers import ModelSpec, ProviderName, parse_spec
from genesis_lab.providers.cache import CompletionCache


def _equal(teachers: Any) -> Any:
    """Teachers without shares get equal ones."""
    names = [teachers] if isinstance(teachers, str) and teachers else teachers or ()
    return dict.fromkeys(names, 1.0) if isinstance(names, list | tuple) else names


def _of_one(shares: dict[str, float]) -> dict[str, float]:
    """Shares that add up to 1, without those of nothing."""
    whole = sum(shares.values())
    if shares and not whole:
        raise ValueError("at least one must have a share above 0")
    return {spec: share / whole for spec, share in shares.items() if share}


Shares = Annotated[dict[str, Annotated[float, Field(ge=0)]], BeforeValidator(_equal), AfterValidator(_of_one)]


class GenerationOptions(BaseModel):
    """Under which name a dataset is kept, who writes it, and how they are asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str = Field("conversations", min_length=1, description="name of the dataset, or a folder")
    provider: ProviderName = Field(
        "offline",
        description="who writes: offline (a grammar: no model, free), bedrock, bedrock_batch (within 24 hours, at half "
        "price), openai (any such server), local",
    )
    model: str = Field("", description="which model; empty: the provider's default")
    base_urls: tuple[str, ...] = Field(
        (), description="addresses of OpenAI-compatible servers, e.g. Ollama's or vLLM's"
    )
    teachers: Shares = Field(
        {},
        description="several models at once, instead of provider and model, each with its share: ollama:llama3.1:8b, "
        "bedrock:<model>@<region> …",
    )
    tokens_per_minute: int = Field(0, ge=0, description="quota of each teacher; 0: not known, it is learned")
    requests_per_minute: int = Field(0, ge=0, description="quota of each teacher in requests; 0: none known")
    divert_to_batch: bool = Field(
        False, description="when the daily quota of bedrock is used up, the rest goes through batch jobs"
    )
    temperature: float | None = Field(None, ge=0, le=2, description="sampling temperature; none: the model's own")
    max_tokens: int = Field(2048, ge=64, le=32_768, description="longest answer, tokens")
    replace: bool = Field(False, description="replace a dataset of this name that was made with other settings")

    @model_validator(mode="after")
    def _each_teacher_once(self) -> GenerationOptions:
        labels = [spec.label for spec, _ in self.who()]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice:
            raise InvalidInput(
                f"Teacher {twice} is named twice: give it one share, and several servers of one model as openai:<model>@<url>,<url>."
            )
        return self

    def who(self) -> list[tuple[ModelSpec, float]]:
        """The models that write, each with its share; shares add up to 1."""
        if not self.teachers:
            return [(ModelSpec(self.provider, self.model, self.base_urls), 1.0)]
        return [(parse_spec(spec), share) for spec, share in self.teachers.items()]

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, max_tokens=self.max_tokens)

    def connect(self) -> list[Teacher]:
        """The teachers, ready to be asked; close them. Raises what `teachers.connect` raises."""
        return [
            connect(
                spec,
                share=share,
                tokens_per_minute=self.tokens_per_minute,
                requests_per_minute=self.requests_per_minute,
                divert_to_batch=self.divert_to_batch,
            )
            for spec, share in self.who()
        ]


def generate_with(
    options: GenerationOptions,
    domain: Domain,
    plan: Plan,
    config: dict[str, Any],
    *,
    on_progress: Callable[[Progress], None] | None = None,
) -> Dataset:
    """Generate, resume, or just open what the same options already made.

    Parameters
    ----------
    config : what the user chose of the domain, for the manifest: ``{"domain": name, **options}``, see `recorded_domain`.

    Raises
    ------
    GenesisError : see `engine.generate`.
    """
    with ExitStack() as closing:
        teachers = options.connect()
        for teacher in teachers:
            closing.callback(teacher.close)
        cache = None
        if not all(teacher.provider.capabilities.free for teacher in teachers):
            cache = CompletionCache(_cache_file())
            closing.callback(cache.close)
        try:
            return generate(
                plan,
                domain,
                teachers,
                dataset_path(options.dataset),
                sampling=options.sampling,
                cache=cache,
                config=config,
                again={
                    "options": options.model_dump(mode="json", include=set(GenerationOptions.model_fields)),
                    "config": config,
                    "total": len(plan.specs),
                    "seed": plan.seed,
                },
                replace_existing=options.replace,
                on_progress=on_progress,
            )
        except Interrupted:
            closing.pop_all()  # what is in flight is paid for: it still goes into the cache if it comes
            raise


def go_on(name: str, *, on_progress: Callable[[Progress], None] | None = None) -> Dataset:
    """Go on with the unfinished run of the dataset `name`, with the options it was begun with.

    Raises
    ------
    InvalidInput : there is no unfinished run of that name.
    """
    target = dataset_path(name)
    try:
        again = json.loads((target.with_name(f"{target.name}.run") / "again.json").read_text(encoding="utf-8"))
    except OSError:
        raise InvalidInput(f"There is no unfinished run of {name}.") from None
    chosen = {name: value for name, value in again["config"].items() if name != "domain"}
    domain = chosen_domain(again["config"]["domain"], **chosen)
    plan = make_plan(domain, again["total"], again["seed"])
    return generate_with(GenerationOptions(**again["options"]), domain, plan, again["config"], on_progress=on_progress)


def chosen_domain(name: str, **options: Any) -> Domain:
    """The domain of these options, with the records that it works from where they name a dataset.

    Raises
    ------
    InvalidInput : see `get_domain`; or the dataset does not hold what the domain works from.
    """
    domain = get_domain(name, **options)
    if domain.needs:
        source = open_dataset(domain.needs)
        domain.feed(source.sql("SELECT * FROM data").to_dict("records"), source.domain)
    return domain


def estimate_with(options: GenerationOptions, domain: Domain, plan: Plan) -> dict[str, Estimate]:
    """What each teacher's part of the plan will take, by name; see `estimate.in_all` for the whole."""
    with ExitStack() as closing:
        teachers = options.connect()
        for teacher in teachers:
            closing.callback(teacher.close)
        if not (file := _cache_file()).exists():
            return estimate(plan, domain, teachers)
        cache = CompletionCache(file)
        closing.callback(cache.close)
        sampling = options.sampling
        return estimate(
            plan,
            domain,
            teachers,
            lambda teacher, spec: request_for(domain, sampling, teacher, Task(spec)).key in cache,
        )


def _cache_file() -> Path:
    return output_root() / "cache" / "completions.sqlite"
