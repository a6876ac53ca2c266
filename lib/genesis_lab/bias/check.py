"""Is a dataset balanced, and where not? Counted partition by partition, then measured and told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from genesis_lab.bias import measures, people, sentences
from genesis_lab.bias.follow_up import Shares, additions
from genesis_lab.bias.measures import Known, Thresholds
from genesis_lab.bias.sentences import Row
from genesis_lab.domains import get_domain
from genesis_lab.domains.base import Domain, Facets, Target
from genesis_lab.errors import GenesisError, InvalidInput
from genesis_lab.parallel import counting, map_reduce

if TYPE_CHECKING:
    from genesis_lab.dataset import Dataset

Counted = tuple[Counter[Any], Counter[Any], Counter[Any]]
"""Records by attributes; those that mention a group, by kind, group, language and outcomes; words by kind, language,
group and word: a few thousand numbers, however many records."""
FEWEST = 2
"""Records from which there is something to compare."""


def check_bias(
    dataset: Dataset,
    *,
    targets: Sequence[Target] | Shares | None = None,
    thresholds: Thresholds = Thresholds(),
    seed: int = 0,
    partitions: int | None = None,
    executor: Any = None,
) -> Row:
    """Hold a dataset, anyone's, against its plan and against independence, by what its domain's facets name; JSON-safe.

    `targets` (attribute to shares of its values) default to the plan in the manifest. In the report ``findings`` come
    worst first, ``additions`` serve all of them at once, ``not_measured`` says why something has no value, and every
    p-value is Holm-adjusted within its section. No number depends on how the work is cut.
    """
    gaps: dict[str, str] = {}
    domain, planned = _planned(dataset, gaps)
    facets, unit = domain.facets, thresholds.low
    wanted = _checked_targets(planned if targets is None else targets, facets.attributes)
    names = dataset.schema.names
    needed = [name for name in names if name in facets.attributes or name in (facets.texts or "")]
    texts = facets.texts if _has_texts(dataset.schema.empty_table(), facets) else None
    count = partial(tally, facets=facets, texts=texts)
    counted = map_reduce(dataset, count, merge, columns=needed, partitions=partitions, executor=executor)
    records = counted[0].total()
    report: Row = {
        "domain": domain.name,
        "config": domain.config.model_dump(mode="json", exclude_none=True),
        "records": records,
        "thresholds": asdict(thresholds),
        "not_measured": gaps,
        "severity": None,
        "coverage": None,
    }
    report |= {name: [] for name in ("findings", "fits", "associations", "appearances", "additions")}
    if records < FEWEST:
        why = f"{records} record{'s' * (records != 1)}"
        gaps |= {name: why if name in wanted else "no target" for name in facets.attributes}
        gaps |= dict.fromkeys(("coverage", "associations", "appearance", "severity"), why)
        return report
    joint = measures.frame(counted[0], facets.attributes)
    known = Known(facets, joint, wanted, thresholds, seed, gaps)
    fits, covered = measures.fits(known), measures.coverage(known)
    related, appear = measures.associations(known), measures.appearances(known, counted[1], counted[2])
    empty = covered.pop("empty") if covered else {}

    def adding(row: Row, *table: str) -> list[Row]:
        return [] if row["severity"] == "none" else additions(joint, wanted, [table], derived=facets.derived)

    found = [sentences.of_fit(fit, adding(fit, fit["attribute"])) for fit in fits]
    if covered:
        said = " and ".join(" × ".join(pair) for pair in facets.covered)
        found.append(sentences.of_coverage(covered, said, records, additions(joint, wanted, [], empty)))
    found += [sentences.of_association(one, unit, adding(one, *one["attributes"])) for one in related]
    found += [row for one in appear for row in sentences.of_appearance(one, unit, facets.unit)]
    found.sort(key=lambda row: (-measures.SEVERITIES.index(row["severity"]), -row["effect"]))
    if not found:
        gaps["severity"] = "there is nothing to hold the dataset against"
    usual = {target.name: dict(target.shares) for target in domain.targets()}
    besides = [name for name, shares in wanted.items() if shares != usual.get(name) and name not in facets.derived]
    off = [(fit["attribute"],) for fit in fits if fit["severity"] != "none"]
    off += [one["attributes"] for one in related if one["severity"] != "none"]
    return report | {
        "severity": found[0]["severity"] if found else None,
        "findings": found,
        "fits": fits,
        "coverage": covered,
        "associations": related,
        "appearances": appear,
        "additions": additions(joint, wanted, off, empty, besides, facets.derived),
    }


def tally(table: pa.Table, *, facets: Facets, texts: str | None = None) -> Counted:
    """The counts of one partition, values as they stand; `texts` is what its records say, as SQL."""

    def text(name: str | None) -> str:
        """The column as text, as Python writes its values; NULL where there is none."""
        if name not in table.column_names or name not in facets.attributes:
            return "NULL::VARCHAR"
        if pa.types.is_boolean(table.schema.field(name).type):
            return f"CASE \"{name}\" WHEN true THEN 'True' WHEN false THEN 'False' END"
        return f'"{name}"::VARCHAR'

    language, *outcomes = map(text, (facets.language, *facets.outcomes))
    with counting() as connection:

        def counted(query: str) -> Counter[Any]:
            return Counter({row[:-1]: row[-1] for row in connection.execute(query).fetchall()})

        connection.register("data", table.append_column("_row", pa.array(range(len(table)), pa.int64())))
        said = connection.sql(f"SELECT _row, unnest(({texts or '[]'})::VARCHAR[]) AS _text FROM data").to_arrow_table()
        some = said.filter(pc.match_substring_regex(said["_text"], people.pattern(), ignore_case=True))
        connection.register("said", some)
        connection.register("lexicon", people.meanings(pc.unique(some["_text"]).to_pylist()))
        mentions = "FROM said JOIN lexicon USING (_text) JOIN data USING (_row) "
        mentions += f"WHERE _only IS NULL OR _only = trim({language}) GROUP BY ALL"
        of_record = (
            f"SELECT _kind, min(_group) AS a, max(_group) AS z, {', '.join([language, *outcomes])}, _row {mentions}"
        )
        several = f"if(a = z, a, '{people.SEVERAL}')"
        return (
            counted(f"SELECT {', '.join(map(text, facets.attributes))}, count(*) FROM data GROUP BY ALL"),
            counted(
                f"SELECT _kind, {several}, * EXCLUDE (_kind, a, z, _row), count(*) FROM ({of_record}) GROUP BY ALL"
            ),
            counted(f"SELECT _kind, {language}, _group, _word, count(DISTINCT _row) {mentions}"),
        )


def _has_texts(table: pa.Table, facets: Facets) -> bool:
    """Whether a domain's texts can be read from the columns that are there."""
    with duckdb.connect() as connection:
        try:
            connection.from_arrow(table).project(facets.texts or "")
        except duckdb.Error:
            return False
        return True


def merge(a: Counted, b: Counted) -> Counted:
    """The counts of both, in `a`."""
    for ours, theirs in zip(a, b, strict=True):
        ours.update(theirs)
    return a


def _planned(dataset: Dataset, gaps: dict[str, str]) -> tuple[Domain, Sequence[Target]]:
    """The domain with the options that a dataset was planned with, and its targets; none if it wasn't planned here."""
    try:
        if written := dataset.manifest.get("config"):
            made = get_domain(dataset.domain, **{name: value for name, value in written.items() if name != "domain"})
            return made, made.targets()
    except GenesisError as error:
        gaps["plan"] = f"the plan in the manifest can't be used: {' '.join(str(error).split())}"
    return get_domain(dataset.domain), ()


def _checked_targets(targets: Sequence[Target] | Shares, names: Sequence[str]) -> dict[str, dict[str, float]]:
    given = targets if isinstance(targets, Mapping) else {t.name: t.shares for t in targets if t.name in names}
    for name, shares in given.items():
        if name not in names:
            raise InvalidInput(f"There can be no target for {name!r}: expected {', '.join(names)}.")
        if not isinstance(shares, Mapping) or any(
            isinstance(s, bool) or not isinstance(s, int | float) or not 0 <= s <= 1 for s in shares.values()
        ):
            raise InvalidInput(f"The target of {name} must map each value to its share in 0–1, got {shares!r}.")
        if abs(sum(shares.values()) - 1) > 1e-6:
            raise InvalidInput(f"The target shares of {name} must add up to 1, got {sum(shares.values()):g}.")
    return {name: {str(v): float(s) for v, s in given[name].items()} for name in names if name in given}
