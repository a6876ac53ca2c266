"""What is known of a dataset of any domain: the reports kept with it, those still missing, and the page about it."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from genesis_lab import __version__
from genesis_lab.dataset import Dataset, read_reports, remembered
from genesis_lab.domains import get_domain, recorded_domain
from genesis_lab.errors import InvalidInput
from genesis_lab.reporting.progress import progress

if TYPE_CHECKING:
    from genesis_lab.domains.base import Facets
    from genesis_lab.reporting.page import Page, Part

Reports = dict[str, dict[str, Any]]
TITLES = {
    "quality": "Quality",
    "teaching": "Scores and audit",
    "scorecard": "Worth",
    "bias": "Balance",
    "training": "Classifier",
}
"""Kind of report to what is said while it is made."""


def needed(dataset: Dataset) -> tuple[str, ...]:
    """The kinds of reports that the page about this dataset rests on, by what its records are."""
    facets = get_domain(dataset.domain).facets
    measured = facets.text or facets.preview == "series"
    asked = (measured, facets.preview == "dialogue", facets.worth, facets.attributes, facets.worth and facets.label)
    return tuple(kind for kind, wanted in zip(TITLES, asked, strict=True) if wanted)


def complete(
    dataset: Dataset,
    *,
    reference: str = "banking77",
    taxonomy: str = "banking77",
    embeddings: bool = True,
    seed: int = 0,
) -> Reports:
    """All that is known of the dataset, by kind. Reports of `needed` that are missing are made now, and kept with it.

    With conversations comes the ``verdict`` on them, with teacher examples what is known of their ``student`` and its
    ``export``, and under ``left_out`` which records of others could not be read. Nothing is saved but reports: a
    classifier is trained by the preset ``fast`` and forgotten. `reference` none: skip what needs real data; `taxonomy`
    is of conversations that were not generated here.
    """
    reports, wanted = kept(dataset), needed(dataset)
    settings: dict[str, Any] = {"reference": reference, "taxonomy": taxonomy, "embeddings": embeddings, "seed": seed}
    for kind in wanted:
        foreign = kind == "training" and (dataset.path / "reports" / "training.json").exists()
        if kind not in reports and not foreign:
            with progress(None, TITLES[kind]):
                made = partial(_make, kind, dataset, **settings)
                reports[kind] = made() if kind == "scorecard" else remembered(dataset, kind, settings, made)
    if "quality" in wanted:
        from genesis_lab.validation.gates import verdict_on

        reports["verdict"] = verdict_on(reports)
    if "teaching" in wanted:
        from genesis_lab.finetuning.checkpoints import students_of

        reports |= students_of(dataset, reports)
    return reports


def kept(dataset: Dataset) -> Reports:
    """The reports kept with the dataset.

    Not a classifier's that learned from other data, nor those of a version that did not decide by gates and intervals.
    """
    reports = read_reports(dataset)
    if "gates" not in reports.get("quality", {"gates": ()}):
        del reports["quality"]
    if not all("above_floor" in one for one in reports.get("scorecard", {"students": ()})["students"]):
        del reports["scorecard"]
    if [source["content_hash"] for source in reports.get("training", {}).get("sources", ())] != [dataset.content_hash]:
        reports.pop("training", None)
    return reports


def page(
    dataset: Dataset,
    reports: Reports,
    *,
    model: str = "intents",
    sentences: Sequence[str] = (),
    title: str = "",
    language: str = "en",
    seed: int = 0,
) -> Page:
    """The page about a dataset, from the reports that `complete` gives.

    The saved classifier `model` of these conversations shows what it makes of `sentences`; `seed` is of the samples;
    `language` is what the page is written in (`reporting.wording.languages`).
    """
    from genesis_lab.reporting.story import dataset_page

    made = {"dataset": dataset.path, "made with": f"Genesis Lab {__version__}"}
    if left_out := reports.get("left_out"):
        made["left out"] = "; ".join(f"{path}: {why}" for path, why in left_out.items())
    facets, kinds = get_domain(dataset.domain).facets, needed(dataset)
    frame = dataset.frame(columns=[name for name in facets.attributes if name in dataset.schema.names])
    return dataset_page(
        dataset.name,
        reports | {"manifest": dataset.manifest},
        unit=dataset.unit,
        needed=(*kinds, "verdict" if "quality" in kinds else "evaluation"),
        counts={name: frame[name].value_counts(sort=False).sort_index().to_dict() for name in frame},
        samples=_samples(dataset, facets, seed),
        sentences=_understood(dataset, model, sentences) if facets.worth and facets.label else None,
        title=title,
        date=datetime.date.today().isoformat(),
        language=language,
        provenance=made,
    )


def metrics(page: Page, reports: Reports) -> dict[str, float | int | str | None]:
    """The few values that pipelines and sweeps keep of a page; a worth on a stand-in goes by that name."""
    from genesis_lab.reporting.reading import stand_in
    from genesis_lab.reporting.views import headline

    bias = reports["bias"]["severity"]
    if "quality" in reports:
        quality, made_up = reports["quality"]["overall"], stand_in(reports.get("scorecard", {}))
        worth = page.figures.get("stand-in worth" if made_up else "worth")
        said = str(worth[0]) if isinstance(worth, tuple) else None
        named = {"stand_in_worth": said and f"{said} ({made_up})"} if made_up else {"worth": said}
        return {"quality": quality, "verdict": page.status or None, "bias": bias, **named}
    teaching, found = reports["teaching"], reports.get("evaluation")
    told = headline(found)["verdict"] if found and not found["limits"] else None
    issues = sum(teaching["audit"]["kinds"].values())
    return {"score": teaching["scores"]["mean"], "issues": issues, "bias": bias, "verdict": told}


def _make(kind: str, dataset: Dataset, *, reference: str, taxonomy: str, embeddings: bool, seed: int) -> dict[str, Any]:
    """The report of this kind on a dataset."""
    from genesis_lab.bias import check_bias
    from genesis_lab.training.config import train_config
    from genesis_lab.training.scorecard import real_data, scorecard
    from genesis_lab.training.train import train
    from genesis_lab.validation.embeddings import embedder_of
    from genesis_lab.validation.examples import teaching_report
    from genesis_lab.validation.quality import validate

    if kind == "bias":
        return check_bias(dataset, seed=seed)
    if kind == "training":
        return train(dataset, train_config("fast"), reference=real_data(dataset, reference)).rows
    if kind == "teaching":
        return teaching_report(dataset)
    whose: Any = recorded_domain(dataset.manifest) or get_domain(dataset.domain, taxonomy=taxonomy)
    if kind == "quality":
        real, embed = real_data(dataset, reference), embedder_of(dataset) if embeddings else None
        return validate(dataset, domain=whose, reference=real, embed=embed, seed=seed)
    return scorecard(dataset, reference=reference, taxonomy=taxonomy, embeddings=embeddings, seed=seed)


def _samples(dataset: Dataset, facets: Facets, seed: int) -> list[Part]:
    """Records picked at random, as people read them: short conversations, texts, series, one example a language."""
    from genesis_lab.reporting.html import chat, dialogue, side_by_side

    order = f"ORDER BY hash({facets.id} || '{seed}')"
    if facets.preview == "chat":
        records = dataset.sql(f"FROM data WHERE len({facets.texts}) <= 6 {order} LIMIT 15").to_dict("records")
        return [chat(records, facets, limit=3)] if records else []
    if facets.preview == "text":
        pairs = dataset.sql(f"SELECT {facets.label or facets.id}, {facets.text} FROM data {order} LIMIT 4")
        texts = [tuple(map(str, pair)) for pair in pairs.itertuples(index=False, name=None)]
        return [side_by_side(texts, (facets.label or "record", "text"))] if texts else []
    if facets.preview == "series":
        from genesis_lab.reporting.browser import preview_of

        rows = dataset.sql(f"SELECT * FROM data {order} LIMIT 3").to_dict("records")
        return list(map(preview_of(dataset, fields=False), rows))
    from genesis_lab.validation.examples import role_of

    one_each = f"QUALIFY row_number() OVER (PARTITION BY language {order}) = 1 ORDER BY language"
    picked = dataset.sql(f"SELECT * EXCLUDE split FROM data {one_each}").to_dict("records")
    examples = [role_of(dataset).example(record) for record in picked]
    return [dialogue([(example.question, example.answer) for example in examples])] if examples else []


def _understood(dataset: Dataset, model: str, sentences: Sequence[str]) -> Any:
    """What the saved classifier of this name makes of sentences, if it learned from this dataset."""
    from genesis_lab.reporting.html import NotMeasured
    from genesis_lab.reporting.views import predictions
    from genesis_lab.training.models import load_model

    try:
        saved = load_model(model)
    except InvalidInput as error:
        return NotMeasured(f"sentences were not read ({error})")
    if [source.content_hash for source in saved.card.sources] != [dataset.content_hash]:
        return NotMeasured(f"model {model!r} learned from other data")
    return predictions(saved.predict(sentences), sentences)
