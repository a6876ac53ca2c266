"""What is known of a dataset, whatever its domain: the reports kept with it, those still missing, and the page about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from genesis_lab import __version__
from genesis_lab.dataset import Dataset, read_reports, remembered
from genesis_lab.domains import get_domain, recorded_domain
from genesis_lab.reporting.progress import progress

if TYPE_CHECKING:
    from genesis_lab.domains.base import Facets
    from genesis_lab.reporting.page import Page

Reports = dict[str, dict[str, Any]]


def needed(dataset: Dataset) -> tuple[str, ...]:
    """The kinds of reports that the page about this dataset rests on, by what its records are."""
    facets = get_domain(dataset.domain).facets
    asked = {
        "quality": facets.text,
        "teaching": facets.preview == "dialogue",
        "scorecard": facets.worth,
        "bias": facets.attributes,
        "training": facets.worth,
    }
    return tuple(kind for kind, wanted in asked.items() if wanted)


def complete(
    dataset: Dataset,
    *,
    reference: str = "banking77",
    taxonomy: str = "banking77",
    embeddings: bool = True,
    seed: int = 0,
) -> Reports:
    """All that is known of the dataset, by kind. Reports of `needed` that are missing are made now, and kept with it.

    With conversations comes the ``verdict`` on them, with teacher examples what is known of a student that they taught:
    ``student`` and ``export``, and under ``left_out`` which records of others could not be read. Nothing is saved but
    reports: where no classifier of this data was examined, one is trained by the preset ``fast`` and forgotten.

    Parameters
    ----------
    reference : real data to hold conversations against; none: skip what needs it.
    taxonomy : intents of conversations that were not generated here.
    embeddings : whether to measure conversations with sentence embeddings too.

    Raises
    ------
    InvalidInput : the dataset holds neither conversations nor examples of a role, or a name is unknown.
    """
    reports, wanted = kept(dataset), needed(dataset)
    makers = _makers(dataset, reference, taxonomy, embeddings, seed)
    settings = {"reference": reference, "taxonomy": taxonomy, "embeddings": embeddings, "seed": seed}
    for kind in wanted:
        foreign = kind == "training" and (dataset.path / "reports" / "training.json").exists()
        if kind not in reports and not foreign:
            label, make = makers[kind]
            with progress(None, label):
                reports[kind] = remembered(dataset, kind, settings, make)
    if "quality" in wanted:
        from genesis_lab.validation.gates import verdict_on

        reports["verdict"] = verdict_on(reports)
    if "teaching" in wanted:
        from genesis_lab.finetuning.checkpoints import students_of

        reports |= students_of(dataset, reports)
    return reports


def kept(dataset: Dataset) -> Reports:
    """The reports kept with the dataset, without one of a classifier that learned from other data.

    Nor those of a version that did not decide by gates and intervals: they are made anew.
    """
    reports = read_reports(dataset)
    if "gates" not in reports.get("quality", {"gates": ()}):
        del reports["quality"]
    if not all("above_floor" in one for one in reports.get("scorecard", {"students": ()})["students"]):
        del reports["scorecard"]
    if not _of_this((s["content_hash"] for s in reports.get("training", {}).get("sources", ())), dataset):
        reports.pop("training", None)
    return reports


def page(
    dataset: Dataset,
    reports: Reports,
    *,
    model: str = "intents",
    sentences: Sequence[str] = (),
    title: str = "",
    seed: int = 0,
) -> Page:
    """The page about a dataset, from the reports that `complete` gives.

    Parameters
    ----------
    model : name of a saved classifier of these conversations that shows what it makes of `sentences`.
    title : the headline; empty: the page's own.
    seed : of the samples that are shown.
    """
    made = {"dataset": dataset.path, "made with": f"Genesis Lab {__version__}"}
    if left_out := reports.get("left_out"):
        made["left out"] = "; ".join(f"{path}: {why}" for path, why in left_out.items())
    from genesis_lab.reporting.story import dataset_page

    facets, kinds = get_domain(dataset.domain).facets, needed(dataset)
    frame = dataset.frame(columns=[name for name in facets.attributes if name in dataset.schema.names])
    return dataset_page(
        dataset.name,
        reports | {"manifest": dataset.manifest},
        unit=facets.unit,
        needed=(*kinds, "verdict" if "quality" in kinds else "evaluation"),
        counts={name: frame[name].value_counts(sort=False).sort_index().to_dict() for name in frame},
        samples=_picked(dataset, facets, seed),
        facets=facets,
        sentences=_understood(dataset, model, sentences) if facets.worth else None,
        title=title,
        provenance=made,
    )


def metrics(page: Page, reports: Reports) -> dict[str, float | int | str | None]:
    """The few values that pipelines and sweeps keep of a page."""
    from genesis_lab.reporting.views import headline

    bias = reports["bias"]["severity"]
    if "quality" in reports:
        worth = page.figures.get("worth")
        said = str(worth[0]) if isinstance(worth, tuple) else None
        return {
            "quality": reports["quality"]["overall"],
            "verdict": reports["verdict"]["verdict"],
            "bias": bias,
            "worth": said,
        }
    teaching, found = reports["teaching"], reports.get("evaluation")
    return {
        "score": teaching["scores"]["mean"],
        "issues": sum(teaching["audit"]["kinds"].values()),
        "bias": bias,
        "verdict": headline(found)["verdict"] if found and not found["limits"] else None,
    }


def _makers(
    dataset: Dataset, reference: str, taxonomy: str, embeddings: bool, seed: int
) -> dict[str, tuple[str, Callable[[], dict[str, Any]]]]:
    """Kind of report to its title while it is made, and who makes it."""
    import numpy as np

    from genesis_lab.bias import check_bias
    from genesis_lab.training.config import train_config
    from genesis_lab.training.train import train
    from genesis_lab.training.worth import worth
    from genesis_lab.validation.embeddings import embedder_of
    from genesis_lab.validation.examples import teaching_report
    from genesis_lab.validation.quality import validate
    from genesis_lab.validation.reference import Reference, load_reference

    whose: Any = recorded_domain(dataset.manifest) or get_domain(dataset.domain, taxonomy=taxonomy)

    def real(split: Literal["train"] | None = None) -> Reference | None:
        return load_reference(reference, split=split) if reference != "none" else None

    def quality() -> dict[str, Any]:
        vectors = embedder_of(dataset) if embeddings else None
        return validate(dataset, domain=whose, reference=real(), embed=vectors, seed=seed)

    def worth_report() -> dict[str, Any]:
        items, labels = real(), whose.taxonomy.names
        part = labels if items and len(labels) < len(items.intents) else None
        rng = np.random.default_rng(seed)
        return worth(dataset, items, pool=real("train"), intents=part, embeddings=embeddings, rng=rng)

    return {
        "quality": ("Quality", quality),
        "scorecard": ("Worth", worth_report),
        "bias": ("Balance", lambda: check_bias(dataset, seed=seed)),
        "training": ("Classifier", lambda: train(dataset, train_config("fast"), reference=real()).rows),
        "teaching": ("Scores and audit", lambda: teaching_report(dataset)),
    }


def _of_this(hashes: Iterable[str], dataset: Dataset) -> bool:
    """Whether this dataset, as it is now, and no other is what was learned from."""
    return list(hashes) == [dataset.content_hash]


def _picked(dataset: Dataset, facets: Facets, seed: int) -> list[Any]:
    """Records to show: short conversations, label and text, or a question and its answer in each language."""
    order = f"ORDER BY hash({facets.id} || '{seed}')"
    if facets.preview == "chat":
        chats = dataset.sql(f"SELECT * FROM data WHERE len({facets.texts}) <= 6 {order} LIMIT 2")
        return list(chats.to_dict("records"))
    if facets.preview == "text":
        pairs = dataset.sql(f"SELECT {facets.label or facets.id}, {facets.text} FROM data {order} LIMIT 4")
        return [tuple(map(str, pair)) for pair in pairs.itertuples(index=False, name=None)]
    from genesis_lab.validation.examples import role_of

    one_each = f"QUALIFY row_number() OVER (PARTITION BY language {order}) = 1 ORDER BY language"
    picked = dataset.sql(f"SELECT * EXCLUDE split FROM data {one_each}").to_dict("records")
    examples = [role_of(dataset).example(record) for record in picked]
    return [(example.question, example.answer) for example in examples]


def _understood(dataset: Dataset, model: str, sentences: Sequence[str]) -> Any:
    """What the saved classifier of this name makes of sentences, if it learned from this dataset."""
    from genesis_lab.errors import InvalidInput
    from genesis_lab.reporting.html import NotMeasured
    from genesis_lab.reporting.views import predictions
    from genesis_lab.training.models import load_model

    try:
        saved = load_model(model)
    except InvalidInput as error:
        return NotMeasured(f"sentences were not read ({error})")
    if not _of_this((source.content_hash for source in saved.card.sources), dataset):
        return NotMeasured(f"model {model!r} learned from other data")
    return predictions(saved.predict(sentences), sentences)
