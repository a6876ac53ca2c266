"""Options in, a dataset out: one configuration for every domain, and the call that carries it out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from functools import cache, cached_property
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator

from genesis_lab.dataset import Dataset, open_dataset, open_filled
from genesis_lab.domains import get_domain
from genesis_lab.domains.base import Domain
from genesis_lab.errors import Interrupted, InvalidInput
from genesis_lab.files import dataset_path, output_root, recovered, shown
from genesis_lab.generation.engine import Sampling, request_for
from genesis_lab.generation.engine import generate as fulfil
from genesis_lab.generation.estimate import Estimate, estimate, in_all
from genesis_lab.generation.journal import check_room
from genesis_lab.generation.plan import Plan, make_plan
from genesis_lab.generation.state import Task, run_header
from genesis_lab.generation.teachers import Teacher, connect
from genesis_lab.providers import ModelSpec, ProviderName, parse_spec
from genesis_lab.providers.asking import Asking
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


_DATASET = "name of the dataset, or a folder"
Shares = Annotated[dict[str, Annotated[float, Field(ge=0)]], BeforeValidator(_equal), AfterValidator(_of_one)]


class GenerationConfig(BaseModel):
    """What to generate, by whom, and under which name; `config_for` adds what a domain lets a user choose."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    domain_name: ClassVar[str]

    dataset: str = Field(min_length=1, description=_DATASET)
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
    first_stage_teachers: Shares = Field(
        {},
        description="who writes the first stage where there is one, e.g. the openings of conversations; none: the same",
    )
    tokens_per_minute: int = Field(0, ge=0, description="quota of each teacher; 0: not known, it is learned")
    requests_per_minute: int = Field(0, ge=0, description="quota of each teacher in requests; 0: none known")
    temperature: float | None = Field(None, ge=0, le=2, description="sampling temperature; none: the model's own")
    max_tokens: int = Field(2048, ge=64, le=32_768, description="longest answer, tokens")
    replace: bool = Field(False, description="replace a dataset of this name that was made with other settings")

    @model_validator(mode="after")
    def _each_teacher_once(self) -> GenerationConfig:
        for specs in ([spec for spec, _ in self.who()], map(parse_spec, self.first_stage_teachers)):
            if twice := [label for label, n in Counter(spec.label for spec in specs).items() if n > 1]:
                several = "several servers of one model as openai:<model>@<url>,<url>"
                raise InvalidInput(f"Teacher {twice[0]} is named twice: give it one share, and {several}.")
        return self

    def who(self) -> list[tuple[ModelSpec, float]]:
        """The models that write, each with its share; shares add up to 1."""
        if not self.teachers:
            return [(ModelSpec(self.provider, self.model, self.base_urls), 1.0)]
        return [(parse_spec(spec), share) for spec, share in self.teachers.items()]

    @cached_property
    def domain(self) -> Domain:
        """The domain with the options chosen here, and with the records that it works from."""
        return chosen_domain(self.domain_name, **self.model_dump())

    @cached_property
    def first_stage(self) -> GenerationConfig | None:
        """What a model writes first, whose records these are to continue; None where there is nothing such."""
        options = self.domain.first_stage(self.dataset)
        if options is None or all(spec.provider == "offline" for spec, _ in self.who()):
            return None
        same = self.model_dump(include=set(GenerationConfig.model_fields) - {"first_stage_teachers"})
        others = {"teachers": self.first_stage_teachers} if self.first_stage_teachers else {}
        return config_for(self.domain_name)(**same | options | others)  # type: ignore[no-any-return]

    @cached_property
    def plan(self) -> Plan:
        options: Any = self.domain.config
        return make_plan(self.domain, options.total, options.seed)

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, max_tokens=self.max_tokens)

    def connect(self) -> list[Teacher]:
        """The teachers, ready to be asked; close them. Raises what `teachers.connect` raises."""
        quota = {"tokens_per_minute": self.tokens_per_minute, "requests_per_minute": self.requests_per_minute}
        return [connect(spec, share=share, **quota) for spec, share in self.who()]

    def estimates(self) -> dict[str, Estimate]:
        """Requests, tokens, cost and time of each teacher, before anything runs; also of a first stage to come."""
        first = self.first_stage
        there = first is not None and recovered(dataset_path(first.dataset)).exists()
        if first and there:
            self._feed(open_dataset(dataset_path(first.dataset)))
        with ExitStack() as closing:
            teachers, kept = self._opened(closing, make=False)

            def known(teacher: Teacher, task: Task) -> bool:
                return kept is not None and request_for(self.domain, self.sampling, teacher, task).key in kept

            each = estimate(self.plan, self.domain, teachers, known)
        before = first.estimates() if first and not there else {}
        return {f"{name} for {first.dataset}": part for name, part in before.items() if first} | each

    def estimate(self) -> Estimate:
        """Requests, tokens, cost and time, before anything runs."""
        return in_all(self.estimates().values())

    def check_room(self) -> None:
        """Raise `InvalidInput` where the dataset's folder holds one of other settings, which is not to be replaced."""
        with ExitStack() as closing:
            header = run_header(self.plan, self.domain, self._opened(closing, make=False)[0], asdict(self.sampling))
        check_room(dataset_path(self.dataset), header, replace=self.replace)

    def _feed(self, first: Dataset) -> None:
        """Go on from the records of the first stage."""
        _feed(self.domain, first)
        self.__dict__.pop("plan", None)  # one that was made before, to be looked at

    def _opened(self, closing: ExitStack, *, make: bool = True) -> tuple[list[Teacher], CompletionCache | None]:
        """The teachers and the cache of paid answers: None where all are free, or there is none to open."""
        teachers = self.connect()
        for teacher in teachers:
            closing.callback(teacher.close)
        file = output_root() / "cache" / "completions.sqlite"
        if all(teacher.provider.free for teacher in teachers) or not (make or file.exists()):
            return teachers, None
        kept = CompletionCache(file)
        closing.callback(kept.close)
        return teachers, kept


@cache
def config_for(domain: str = "conversations") -> type[Any]:
    """The configuration of everything that a user may choose when records of `domain` are generated."""
    chosen = get_domain(domain)
    config: Any = create_model(
        f"{domain.title()}Config",
        __base__=(GenerationConfig, type(chosen.config)),
        __doc__=GenerationConfig.__doc__,
        dataset=(str, Field(chosen.facets.dataset or domain, min_length=1, description=_DATASET)),
    )
    config.domain_name = domain  # type: ignore[attr-defined]  # the plugin does not see the base
    return config  # type: ignore[no-any-return]


def generate(config: GenerationConfig, *, on_progress: Callable[[Asking], None] | None = None) -> Dataset:
    """Generate, resume, or just open what the same configuration already made. See `engine.generate` for the errors.

    Where there is a first stage, that dataset is made, resumed or found before, and its records are fed to the domain.
    """
    if config.first_stage:
        config._feed(generate(config.first_stage, on_progress=on_progress))
    with ExitStack() as closing:
        teachers, kept = config._opened(closing)
        try:
            return fulfil(
                config.plan,
                config.domain,
                teachers,
                dataset_path(config.dataset),
                sampling=config.sampling,
                cache=kept,
                config={"domain": config.domain_name} | config.domain.config.model_dump(mode="json"),
                replace_existing=config.replace,
                on_progress=on_progress,
            )
        except Interrupted:
            closing.pop_all()  # what is in flight is paid for: it still goes into the cache if it comes
            raise


def open_or_generate(name: str, domain: str = "conversations", *, others: bool = False, **options: Any) -> Dataset:
    """The dataset of this name; where it is the default one and missing, it is generated offline with these options.

    Raises `InvalidInput` where there is none, it is empty, or it holds another kind than the domain's and not `others`.
    """
    config = config_for(domain)(**options)
    wanted = config.domain.facets.unit
    if name == config.dataset and not recovered(dataset_path(name)).exists():
        print(f"{shown(dataset_path(name))} does not exist yet: generating {config.total:,} {wanted} offline.")
        return generate(config)
    dataset = open_filled(name)
    unit = get_domain(dataset.domain).facets.unit
    if unit != wanted and not others:
        raise InvalidInput(
            f"{dataset.name} holds {unit} of {dataset.domain}, this step reads {wanted}: name another one."
        )
    return dataset


def chosen_domain(name: str, **options: Any) -> Domain:
    """The domain of these options, with the records that it works from where they name a dataset."""
    domain = get_domain(name, **options)
    if domain.needs:
        _feed(domain, open_dataset(domain.needs))
    return domain


def _feed(domain: Domain, source: Dataset) -> None:
    records = source.sql("SELECT * EXCLUDE (provenance) FROM data")  # its times would need pytz
    domain.feed(records.to_dict("records"), source.domain)
