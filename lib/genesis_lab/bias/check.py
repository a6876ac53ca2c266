"""Is a dataset balanced, and where not? Every p-value is Holm-adjusted within its section."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from genesis_lab.bias import people, sentences
from genesis_lab.bias.follow_up import RECORDS, additions
from genesis_lab.bias.sentences import Row
from genesis_lab.bias.significance import association, cohens_w, fit_p, independence_p
from genesis_lab.domains import get_domain
from genesis_lab.domains.base import Domain, Facets, Target
from genesis_lab.errors import GenesisError, InvalidInput
from genesis_lab.parallel import map_reduce
from genesis_lab.stats import Interval, holm, proportion_interval, total_variation

if TYPE_CHECKING:
    from genesis_lab.dataset import Dataset

Shares = Mapping[str, Mapping[str, float]]
SEVERITIES = ("none", "low", "medium", "high")
FEWEST = 2
"""Records from which there is something to compare."""
FEWEST_MENTIONS = 100
"""Fewer records than this say nothing about who appears."""
MOST_VALUES = 500
"""More distinct values than this are no categories."""
_BLANK = " \t\r\n\u00a0"
_SHOWN = 10
"""Most cells and words of a row."""


@dataclass(frozen=True)
class Thresholds:
    """From which effect, on the scale of Cohen's w, a finding is low, medium and high; the defaults are Cohen's small,
    medium and large (1988, section 7.2.3). `alpha` is the adjusted p-value from which a difference may be chance.
    """

    low: float = 0.1
    medium: float = 0.3
    high: float = 0.5
    alpha: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.medium <= self.high:
            raise InvalidInput(
                f"Thresholds must rise from above 0, got low {self.low:g}, medium {self.medium:g}, high {self.high:g}."
            )
        if not 0 < self.alpha < 1:
            raise InvalidInput(f"alpha must lie between 0 and 1, got {self.alpha:g}.")

    def severity(self, effect: float, p: float = 0.0) -> str:
        """How severe an effect is; none when its adjusted `p` says that it may be chance."""
        if effect < self.low or p >= self.alpha:
            return "none"
        return "low" if effect < self.medium else "medium" if effect < self.high else "high"


def check_bias(
    dataset: Dataset,
    *,
    targets: Sequence[Target] | Shares | None = None,
    allowed: Collection[tuple[str, str]] = (),
    thresholds: Thresholds = Thresholds(),
    seed: int = 0,
    split: str | None = None,
    partitions: int | None = None,
    executor: Any = None,
) -> Row:
    """Hold a dataset, anyone's, against its plan and against independence, by what its domain's facets name.

    Parameters
    ----------
    targets : attribute to the share each of its values should have; None: those of the plan in the dataset's manifest,
        if it has one. Attributes without a target are not held against any.
    allowed : pairs of attributes that may go together: measured, but never a finding.
    thresholds : from which effect a finding is low, medium or high.
    seed : of the Monte Carlo tests, which are only used where counts are small.
    partitions, executor : how the work is cut and who does it (`genesis_lab.parallel`); no number depends on it.

    Returns
    -------
    records, severity : of the worst finding; None (and why under ``not_measured``) where nothing could be checked.
    findings : worst first: subject, name, severity, effect (Cohen's w), measure and its interval, n, sentence,
        recommendation, additions.
    fits : each attribute against its target: ``observed`` counts, ``intervals`` of the shares (Wilson), ``missing``
        records without a value, ``unplanned`` values; ``w`` is corrected for chance and taken over the planned values,
        ``total_variation`` is the share of records that would have to be of another value.
    coverage : planned cells: ``missing`` have no record, ``thin`` less than half of their share.
    associations : pairs that should not go together: bias-corrected Cramér's ``v``, the same as Cohen's ``w``, and the
        ``cells`` furthest from what independence would give.
    appearances : by kind and language, whom or what ``n`` records mention (one group alone; those with more are under
        ``several``), the most frequent words, the female share, and whether outcomes differ.
    additions : records to add in all, which serve every finding at once; ``config``: the plan they start from.
    not_measured : what has no value, to the reason.

    Raises
    ------
    InvalidInput : the targets or the allowed pairs make no sense.
    """
    gaps: dict[str, str] = {}
    domain, planned = _planned(dataset, gaps)
    facets = domain.facets
    wanted = _checked_targets(planned if targets is None else targets, facets.attributes)
    pairs = _checked_pairs(allowed, facets.attributes)
    present = dataset.schema.names
    needed = [name for name in present if name in facets.attributes or name in (facets.texts or "")]
    counted = map_reduce(
        dataset, partial(tally, facets=facets), merge, columns=needed, split=split, partitions=partitions, executor=executor
    )  # fmt: skip
    unreadable = dict.fromkeys((name for name in facets.attributes if name not in present), "there is no such column")
    if facets.texts and not _has_texts(dataset.schema.empty_table(), facets):
        unreadable["texts"] = f"no texts can be read by {facets.texts}"
    records = counted[0].total()
    report = {
        "domain": domain.name, "records": records, "severity": None, "findings": [], "fits": [], "coverage": None,
        "associations": [], "appearances": [], "thresholds": asdict(thresholds), "unreadable_columns": unreadable,
        "not_measured": gaps, "additions": [], "config": domain.config.model_dump(mode="json", exclude_none=True),
    }  # fmt: skip
    if records < FEWEST:
        why = f"{records} record{'' if records == 1 else 's'}"
        gaps |= {name: why if name in wanted else "no target" for name in facets.attributes}
        gaps |= dict.fromkeys(("coverage", "associations", "appearance", "severity"), why)
        return report
    joint = _frame(counted[0], facets.attributes)
    fits = _fits(joint, wanted, facets, thresholds, seed, gaps)
    covered, empty = _coverage(joint, wanted, facets, thresholds, gaps)
    related = _associations(joint, pairs, facets, thresholds, seed, gaps)
    appear = _appearances(joint, counted, facets, thresholds, seed, gaps)

    def adding(row: Row, *table: str) -> list[Row]:
        return [] if row["severity"] == "none" else additions(joint, wanted, [table], derived=facets.derived)

    found = [sentences.of_fit(fit, _fit_effect(fit), adding(fit, fit["attribute"])) for fit in fits]
    if covered:
        names = " and ".join(" × ".join(pair) for pair in facets.covered)
        effect = _coverage_effect(len(covered["missing"]), covered["planned"])
        found.append(sentences.of_coverage(covered, names, records, effect, additions(joint, wanted, [], empty)))
    found += [sentences.of_association(one, thresholds.low, adding(one, *one["attributes"])) for one in related]
    found += [row for one in appear for row in sentences.of_appearance(one, thresholds.low, facets.unit)]
    found.sort(key=lambda row: (-SEVERITIES.index(row["severity"]), -row["effect"]))
    if not found:
        gaps["severity"] = "there is nothing to hold the dataset against"
    usual = {target.name: dict(target.shares) for target in domain.targets()}
    besides = [name for name, shares in wanted.items() if shares != usual.get(name) and name not in facets.derived]
    off = [(fit["attribute"],) for fit in fits if fit["severity"] != "none"]
    off += [one["attributes"] for one in related if one["severity"] != "none"]
    return report | {
        "severity": found[0]["severity"] if found else None, "findings": found, "fits": fits, "coverage": covered,
        "associations": related, "appearances": appear,
        "additions": additions(joint, wanted, off, empty, besides, facets.derived),
    }  # fmt: skip


Counted = tuple[Counter[tuple[str | None, ...]], people.Groups, people.Words]
"""Records by their attributes, and who they mention: a few thousand numbers, however many records."""


def tally(table: pa.Table, *, facets: Facets) -> Counted:
    """The counts of one partition. Null or empty: the record has no value."""
    import duckdb

    def text(name: str | None) -> str:
        """The column as text, as Python writes its values."""
        if name not in table.column_names:
            return "NULL"
        if pa.types.is_boolean(table.schema.field(name).type):
            return f"CASE \"_{name}\" WHEN true THEN 'True' WHEN false THEN 'False' END"
        return f"nullif(trim(nfc_normalize(\"_{name}\"::VARCHAR), '{_BLANK}'), '')"

    known = [f'"{name}" AS "_{name}"' for name in facets.attributes if name in table.column_names]
    attributes = ", ".join(map(text, facets.attributes))
    outcomes = ", ".join(text(n if n in facets.attributes else None) for n in (facets.language, *facets.outcomes))
    with duckdb.connect() as connection:
        connection.register("data", table)
        texts = facets.texts if _has_texts(table, facets) else "[]"
        data = f"SELECT {', '.join([*known, f'{texts} AS _texts'])} FROM data"
        rows = connection.execute(f"SELECT {attributes}, count(*) FROM ({data}) GROUP BY ALL").fetchall()
        said = connection.execute(
            f"SELECT list_filter(list_transform(_texts, lambda t: nfc_normalize(lower(t))), "
            f"lambda t: regexp_matches(t, $${people.pattern()}$$)) AS said, {outcomes} FROM ({data}) WHERE len(said) > 0"
        ).fetchall()
    groups, words = people.mentions([row[1:] for row in said], [row[0] for row in said])
    return Counter({row[:-1]: row[-1] for row in rows}), groups, words


def _has_texts(table: pa.Table, facets: Facets) -> bool:
    """Whether a domain's texts can be read from the columns that are there."""
    import duckdb

    with duckdb.connect() as connection:
        try:
            connection.from_arrow(table).project(facets.texts or "")
        except duckdb.Error:
            return False
        return True


def merge(a: Counted, b: Counted) -> Counted:
    """The counts of both."""
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def _planned(dataset: Dataset, gaps: dict[str, str]) -> tuple[Domain, Sequence[Target]]:
    """The domain with the options that the dataset was planned with, and its targets; none if it was not planned here."""
    domain = get_domain(dataset.domain)
    written = dataset.manifest.get("config")
    if isinstance(written, Mapping) and not type(domain.config).model_fields.keys().isdisjoint(written):
        try:
            domain = get_domain(dataset.domain, **{k: v for k, v in written.items() if k != "domain"})
            return domain, domain.targets()
        except GenesisError as error:
            gaps["plan"] = f"the plan in the manifest can't be used: {' '.join(str(error).split())}"
            domain = get_domain(dataset.domain)
    return domain, ()


def _checked_targets(targets: Sequence[Target] | Shares, names: Sequence[str]) -> dict[str, dict[str, float]]:
    given = targets if isinstance(targets, Mapping) else {target.name: target.shares for target in targets}
    if isinstance(targets, Mapping) and (unknown := [name for name in given if name not in names]):
        raise InvalidInput(f"There can be no target for {unknown[0]!r}: expected {', '.join(names)}.")
    for name, shares in given.items():
        if not isinstance(shares, Mapping) or any(
            isinstance(s, bool) or not isinstance(s, int | float) or not 0 <= s <= 1 for s in shares.values()
        ):
            raise InvalidInput(f"The target of {name} must map each value to its share in 0–1, got {shares!r}.")
        if abs(sum(shares.values()) - 1) > 1e-6:
            raise InvalidInput(f"The target shares of {name} must add up to 1, got {sum(shares.values()):g}.")
    return {name: {str(v): float(s) for v, s in given[name].items()} for name in names if name in given}


def _checked_pairs(allowed: Collection[tuple[str, str]], names: Sequence[str]) -> set[frozenset[str]]:
    for pair in allowed:
        if len(set(pair)) != 2 or not set(pair) <= set(names):
            raise InvalidInput(f"An allowed pair must be two of {', '.join(names)}, got {tuple(pair)!r}.")
    return set(map(frozenset, allowed))


def _frame(counts: Counter[Any], columns: Sequence[str]) -> pd.DataFrame:
    """Counts as a frame, sorted, so that nothing depends on the order they came in."""
    rows = [(*values, n) for values, n in counts.items()]
    found = pd.DataFrame(rows, columns=[*columns, RECORDS]).astype(dict.fromkeys(columns, object) | {RECORDS: int})
    return found.sort_values([*columns], ignore_index=True, na_position="last")


def _adjusted(rows: list[Row], thresholds: Thresholds) -> list[Row]:
    """The rows with their p-values adjusted for being so many, and how severe each is."""
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        effect = row["w"] if "v" in row else max(_fit_effect(row), thresholds.low if row["unplanned"] else 0)
        row |= {"p_holm": p, "severity": "none" if row.get("allowed") else thresholds.severity(effect, p)}
    return rows


def _fits(
    joint: pd.DataFrame, targets: Shares, facets: Facets, thresholds: Thresholds, seed: int, gaps: dict[str, str]
) -> list[Row]:
    """Each attribute against its target."""
    found = []
    for place, attribute in enumerate(facets.attributes):
        counts = joint.groupby(attribute)[RECORDS].sum()
        n = int(counts.sum())
        if attribute not in targets or not n:
            gaps[attribute] = f"no record has a value in {attribute}" if attribute in targets else "no target"
            continue
        target = targets[attribute]
        unplanned = {str(value): int(count) for value, count in counts.items() if not target.get(str(value))}
        observed = {value: int(counts.get(value, 0)) for value in target} | unplanned
        planned = [value for value, share in target.items() if share]
        seen = np.array([observed[value] for value in planned], dtype=np.int64)
        wanted = np.array([target[value] for value in planned], dtype=float)
        wanted /= wanted.sum()
        p, test = 0.0, "exact: values that can't occur do"
        if not unplanned:
            p, test = fit_p(seen, wanted, np.random.default_rng([seed, place]))
        found.append({
            "attribute": attribute, "n": n, "missing": int(joint[RECORDS].sum()) - n, "target": dict(target),
            "observed": observed, "intervals": {v: list(proportion_interval(c, n)) for v, c in observed.items()},
            "unplanned": unplanned, "w": cohens_w(seen, wanted).to_dict(),
            "total_variation": total_variation(list(observed.values()), [target.get(v, 0.0) for v in observed]),
            "test": test, "p": p,
        })  # fmt: skip
    return _adjusted(found, thresholds)


def _fit_effect(fit: Row) -> float:
    """Cohen's w over the planned values, or twice the share of unplanned ones (as total variation is at most w / 2)."""
    return float(max(fit["w"]["estimate"], 2 * sum(fit["unplanned"].values()) / fit["n"]))


def _coverage(
    joint: pd.DataFrame, targets: Shares, facets: Facets, thresholds: Thresholds, gaps: dict[str, str]
) -> tuple[Row | None, dict[tuple[str, ...], list[tuple[str, ...]]]]:
    """Every planned cell of the pairs that should be filled, and the empty ones by pair."""
    missing: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    thin: list[tuple[str | int, ...]] = []
    planned = 0
    if not facets.covered:
        gaps["coverage"] = f"{facets.unit} have no attributes of which every pair of values should occur"
    for a, b in facets.covered:
        counts = joint.groupby([a, b])[RECORDS].sum()
        if unknown := [name for name in (a, b) if name not in targets]:
            gaps["coverage"] = f"no target for {' and '.join(unknown)}"
        elif counts.empty:
            gaps["coverage"] = f"no record has an {a} and a {b}"
        else:
            shares: dict[tuple[str, ...], float] = {
                (x, y): s * t for x, s in targets[a].items() for y, t in targets[b].items() if s and t
            }
            seen = {cell: int(counts.get(cell, 0)) for cell in shares}
            planned += len(shares)
            if lacking := [cell for cell, n in seen.items() if not n]:
                missing[a, b] = lacking
            thin += [(*cell, n) for cell, n in seen.items() if 0 < n < shares[cell] * int(counts.sum()) / 2]
    if not planned:
        return None, {}
    empty = [cell for cells in missing.values() for cell in cells]
    full = planned - len(empty)
    effect = _coverage_effect(len(empty), planned)
    covered = Interval(full / planned, *proportion_interval(full, planned), planned)
    return {
        "planned": planned, "covered": covered.to_dict(), "missing": empty, "thin": thin,
        "severity": thresholds.severity(max(effect, thresholds.low)) if empty else "none",
    }, missing  # fmt: skip


def _coverage_effect(missing: int, planned: int) -> float:
    """Cohen's w of records spread evenly over all but the missing cells: √(s / (1 − s)) for a missing share s.

    With every cell missing, half a cell counts as covered, to keep it finite.
    """
    return float(np.sqrt(missing / max(planned - missing, 0.5)))


def _associations(
    joint: pd.DataFrame, allowed: set[frozenset[str]], facets: Facets, thresholds: Thresholds, seed: int, gaps: dict[str, str]
) -> list[Row]:  # fmt: skip
    """Every pair of attributes but those of which one follows from the other."""
    found = []
    for place, (a, b) in enumerate(combinations(facets.attributes, 2)):
        if facets.derived.get(a) != b and facets.derived.get(b) != a:
            rows = _association(joint, a, b, None, np.random.default_rng([seed, 100 + place]), gaps, f"{a} × {b}")
            found += [row | {"allowed": frozenset((a, b)) in allowed} for row in rows]
    return _adjusted(found, thresholds)


def _association(
    counts: pd.DataFrame, a: str, b: str, within: str | None, rng: np.random.Generator, gaps: dict[str, str], name: str
) -> list[Row]:
    """The row of two attributes, of the records that have both; none, named in `gaps`, where it can't be measured."""
    sums = counts.groupby([a, b])[RECORDS].sum()
    values = [(one, sums.index.unique(one)) for one in (a, b)]
    if max(len(some) for _, some in values) > MOST_VALUES:
        gaps[name] = f"more than {MOST_VALUES} different values"
        return []
    for one, some in values:
        if len(some) < 2:
            gaps[name] = f"only one {one}: {some[0]}" if len(some) else f"no record has both {a} and {b}"
            return []
    frame = sums.unstack(fill_value=0)
    table = frame.to_numpy(dtype=np.int64)
    v, w = association(table)
    p, test = independence_p(table, rng)
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    furthest = np.argsort(-np.abs(table - expected), axis=None, kind="stable")[:_SHOWN]
    cells = [
        {"values": (str(frame.index[i]), str(frame.columns[j])), "observed": int(table[i, j]), "expected": float(expected[i, j])}
        for i, j in zip(*np.unravel_index(furthest, table.shape), strict=True)
    ]  # fmt: skip
    return [{
        "attributes": (a, b), "within": within, "n": int(table.sum()), "v": v.to_dict(), "w": w, "test": test, "p": p,
        "cells": cells, "allowed": False,
    }]  # fmt: skip


def _appearances(
    joint: pd.DataFrame, counted: Counted, facets: Facets, thresholds: Thresholds, seed: int, gaps: dict[str, str]
) -> list[Row]:
    """Who and where, by kind and language."""
    if not facets.texts:
        gaps["appearance"] = f"{facets.unit} have no texts in which people appear"
        return []
    groups = _frame(counted[1], ["kind", "group", "language", *facets.outcomes])
    words = _frame(counted[2], ["kind", "language", "group", "word"])
    by = joint[facets.language] if facets.language in joint else pd.Series([None] * len(joint), dtype=object)
    spoken = joint.groupby(by, dropna=False)[RECORDS].sum()
    if len(spoken) > MOST_VALUES:
        gaps["appearance"] = f"more than {MOST_VALUES} different languages"
        return []
    found = []
    for spoken_in, total in spoken.items():
        language = None if pd.isna(spoken_in) else str(spoken_in)
        for place, kind in enumerate(people.KINDS):
            here, said = (
                some[(some["kind"] == kind) & (some["language"].fillna("") == (language or ""))]
                for some in (groups, words)
            )
            name = f"{kind} in {language or 'records without a language'}"
            if here.empty:
                gaps[name] = "none is mentioned"
                continue
            rng = np.random.default_rng([seed, 200 + place])
            row: Row = {"kind": kind, "language": language, "records": int(total)}
            found.append(row | _appearance(kind, language, here, said, rng, name, facets, gaps))
    with_p = [row for row in found if row["p"] is not None]
    for row, p in zip(with_p, holm([row["p"] for row in with_p]), strict=True):
        row |= {"p_holm": p, "severity": thresholds.severity(abs(2 * row["parity"]["estimate"] - 1), p)}
    _adjusted([row for one in found for row in one["differences"]], thresholds)
    return found


def _appearance(
    kind: str, language: str | None, here: pd.DataFrame, said: pd.DataFrame, rng: np.random.Generator, name: str, facets: Facets, gaps: dict[str, str]
) -> Row:  # fmt: skip
    groups = {str(group): int(n) for group, n in here.groupby("group")[RECORDS].sum().items()}
    single = here[here["group"] != people.SEVERAL].rename(columns={"group": kind})
    n = int(single[RECORDS].sum())
    parity, p = None, None
    differences: list[Row] = []
    if n < FEWEST_MENTIONS:
        gaps[name] = f"only {n} {facets.unit} mention one group alone, {FEWEST_MENTIONS} are needed"
    else:
        if {*single[kind]} <= {"female", "male"}:
            from scipy.stats import binomtest

            female = groups.get("female", 0)
            parity = Interval(female / n, *proportion_interval(female, n), n).to_dict()
            p = float(binomtest(female, n).pvalue)
        for outcome in facets.outcomes:
            differences += _association(single, kind, outcome, language, rng, gaps, f"{name} × {outcome}")
    top = said.sort_values(["group", RECORDS, "word"], ascending=[True, False, True], kind="stable")
    words = {
        str(group): {word: int(n) for word, n in zip(some["word"].head(_SHOWN), some[RECORDS], strict=False)}
        for group, some in top.groupby("group")
    }
    return {
        "n": n, "groups": groups, "words": words, "parity": parity, "p": p, "p_holm": p, "severity": "none",
        "differences": differences,
    }  # fmt: skip
