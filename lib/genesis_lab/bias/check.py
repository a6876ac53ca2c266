"""Is a set of conversations balanced, and where not?"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from genesis_lab.bias import checks, counts, findings
from genesis_lab.bias.follow_up import additions
from genesis_lab.bias.report import SEVERITIES, Addition, BiasReport, Finding, Severity, Thresholds
from genesis_lab.domains import get_domain, recorded_domain
from genesis_lab.domains.base import Target
from genesis_lab.domains.conversations.domain import Conversations, ConversationsConfig
from genesis_lab.errors import GenesisError, InvalidInput
from genesis_lab.parallel import map_reduce

if TYPE_CHECKING:
    from genesis_lab.dataset import Dataset

Shares = Mapping[str, Mapping[str, float]]
FEWEST = 2
"""Records from which there is something to compare."""


def check_bias(
    dataset: Dataset,
    *,
    targets: Sequence[Target] | Shares | None = None,
    allowed: Collection[tuple[str, str]] = (),
    thresholds: Thresholds | None = None,
    seed: int = 0,
    split: str | None = None,
    partitions: int | None = None,
    executor: Any = None,
) -> BiasReport:
    """Hold a dataset, anyone's, against its plan and against independence.

    Of conversations everything is checked; of a role's teacher examples the attributes of their plan, since nobody
    appears in them and no plan for additions follows.

    Parameters
    ----------
    targets : attribute to the share each of its values should have; None: those of the plan in the dataset's manifest,
        if it has one. Attributes without a target are not held against any.
    allowed : pairs of attributes that may go together: measured, but never a finding.
    thresholds : from which effect a finding is low, medium or high.
    seed : of the Monte Carlo tests, which are only used where counts are small.
    partitions, executor : how the work is cut and who does it (`genesis_lab.parallel`); no number depends on it.

    Raises
    ------
    InvalidInput : the targets or the allowed pairs make no sense.
    """
    if dataset.domain != "conversations":
        return _check_attributes(
            dataset, targets, frozenset(map(frozenset, allowed)), thresholds or Thresholds(), seed, split
        )
    gaps: dict[str, str] = {}
    config = _planned_config(dataset, gaps)
    wanted = _checked_targets(Conversations(config).targets() if targets is None and config else targets or ())
    base = config or ConversationsConfig.model_validate({})
    pairs = _checked_pairs(allowed)
    present = set(dataset.schema.names)
    total: counts.Tally = map_reduce(
        dataset, counts.tally, counts.merge, partitions=partitions, executor=executor, split=split,
        columns=[name for name in counts.COLUMNS if name in present],
    )  # fmt: skip
    return finish(
        total, wanted, allowed=pairs, thresholds=thresholds or Thresholds(), seed=seed, config=base, gaps=gaps
    )


def finish(
    total: counts.Tally,
    targets: Shares,
    *,
    allowed: Collection[frozenset[str]] = (),
    thresholds: Thresholds = Thresholds(),
    seed: int = 0,
    config: ConversationsConfig | None = None,
    gaps: Mapping[str, str] | None = None,
) -> BiasReport:
    """The report of merged counts; parameters as for `check_bias`."""
    missing = dict(gaps or {})
    if total.records < FEWEST:
        return _too_few(total.records, counts.ATTRIBUTES, targets, missing, thresholds, config)
    joint, groups, words = (counts.frame(table) for table in (total.joint, total.groups, total.words))
    by_language = joint.groupby("language", dropna=False)[counts.RECORDS].sum()
    languages = {None if pd.isna(language) else str(language): int(n) for language, n in by_language.items()}
    if len(languages) > checks.MOST_VALUES:
        missing["appearance"] = f"more than {checks.MOST_VALUES} different languages"
        languages = {}
    fits = checks.fits(joint, targets, thresholds, seed, missing)
    covered = checks.coverage(joint, targets, thresholds, missing)
    facets = Conversations.facets
    related = checks.associations(joint, allowed, thresholds, seed, missing, derived=facets.derived)
    appear = checks.appearances(groups, words, languages, thresholds, seed, missing)
    options = config or ConversationsConfig.model_validate({})
    usual = {target.name: dict(target.shares) for target in _planned_targets(options)}
    besides = [name for name, shares in targets.items() if shares != usual.get(name) and name not in facets.derived]

    def adding(table: tuple[str, ...]) -> tuple[Addition, ...]:
        return additions(joint, targets, [table], derived=facets.derived)

    empty: dict[tuple[str, ...], tuple[tuple[str, str], ...]] = {}
    if covered and covered.missing:
        empty["intent", "language"] = covered.missing
    off: list[tuple[str, ...]] = [(fit.attribute,) for fit in fits if fit.severity != "none"]
    off += [one.attributes for one in related if one.severity != "none"]
    found = [*(findings.of_fit(fit, adding) for fit in fits)]
    found += [findings.of_coverage(covered, joint, additions(joint, targets, [], empty))] if covered else []
    found += [findings.of_association(one, thresholds, adding) for one in related]
    found += [finding for one in appear for finding in findings.of_appearance(one, thresholds)]
    found.sort(key=lambda finding: (-SEVERITIES.index(finding.severity), -finding.effect))
    return BiasReport(
        records=total.records,
        severity=_worst(found, missing),
        findings=tuple(found),
        fits=fits,
        coverage=covered,
        associations=related,
        appearances=appear,
        thresholds=thresholds,
        unreadable_columns=dict(sorted(total.unreadable.items())),
        not_measured=missing,
        additions=additions(joint, targets, off, empty, besides, facets.derived),
        config=options.model_dump(mode="json", exclude_none=True),
    )


def _check_attributes(
    dataset: Dataset,
    targets: Sequence[Target] | Shares | None,
    allowed: frozenset[frozenset[str]],
    thresholds: Thresholds,
    seed: int,
    split: str | None,
) -> BiasReport:
    """The attributes that the dataset's domain plans, each against its target, and pair by pair."""
    planned = get_domain(dataset.domain).targets()
    if targets is None:
        targets = domain.targets() if (domain := recorded_domain(dataset.manifest)) else ()
    names = tuple(target.name for target in planned)
    wanted = _checked_targets(targets, names)
    missing = dict.fromkeys(("coverage", "appearance"), f"{dataset.domain} are not conversations")
    joint = dataset.frame(split, columns=names).value_counts(dropna=False).rename(counts.RECORDS).reset_index()
    if (records := int(joint[counts.RECORDS].sum())) < FEWEST:
        return _too_few(records, names, wanted, missing, thresholds)
    fits = checks.fits(joint, wanted, thresholds, seed, missing, names)
    related = checks.associations(joint, allowed, thresholds, seed, missing, names)

    def adding(table: tuple[str, ...]) -> tuple[Addition, ...]:
        return additions(joint, wanted, [table])

    found = [*(findings.of_fit(fit, adding) for fit in fits)]
    found += [findings.of_association(one, thresholds, adding) for one in related]
    found.sort(key=lambda finding: (-SEVERITIES.index(finding.severity), -finding.effect))
    return BiasReport(
        records=records,
        severity=_worst(found, missing),
        findings=tuple(found),
        fits=fits,
        coverage=None,
        associations=related,
        appearances=(),
        thresholds=thresholds,
        unreadable_columns={},
        not_measured=missing,
        additions=(),
        config={},
    )


def _too_few(
    records: int,
    names: Sequence[str],
    targets: Shares,
    missing: dict[str, str],
    thresholds: Thresholds,
    config: ConversationsConfig | None = None,
) -> BiasReport:
    """The report of a dataset that says nothing about balance."""
    why = f"{records} record{'' if records == 1 else 's'}"
    missing |= {name: why if name in targets else "no target" for name in names}
    missing |= dict.fromkeys(("coverage", "associations", "appearance", "severity"), why)
    return BiasReport(
        records,
        None,
        (),
        (),
        None,
        (),
        (),
        thresholds,
        {},
        missing,
        (),
        config.model_dump(mode="json") if config else {},
    )


def _worst(found: Sequence[Finding], missing: dict[str, str]) -> Severity | None:
    """The severity of the worst finding, which is the first."""
    if not found:
        missing["severity"] = "there is nothing to hold the dataset against"
        return None
    return found[0].severity


def _planned_config(dataset: Dataset, gaps: dict[str, str]) -> ConversationsConfig | None:
    """What the dataset was planned with; None for one that was not planned here."""
    written = dataset.manifest.get("config")
    if not isinstance(written, Mapping):
        return None
    known = {name: value for name, value in written.items() if name in ConversationsConfig.model_fields}
    if not known:
        return None
    try:
        config = ConversationsConfig.model_validate(known)
        _ = Conversations(config).taxonomy
    except (ValueError, GenesisError) as error:
        gaps["plan"] = f"the plan in the manifest can't be used: {' '.join(str(error).split())}"
        return None
    return config


def _planned_targets(config: ConversationsConfig) -> Sequence[Target]:
    try:
        return Conversations(config).targets()
    except GenesisError:
        return ()


def _checked_targets(
    targets: Sequence[Target] | Shares, names: Sequence[str] = counts.ATTRIBUTES
) -> dict[str, dict[str, float]]:
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


def _checked_pairs(allowed: Collection[tuple[str, str]]) -> frozenset[frozenset[str]]:
    for pair in allowed:
        if len(set(pair)) != 2 or not set(pair) <= set(counts.ATTRIBUTES):
            raise InvalidInput(f"An allowed pair must be two of {', '.join(counts.ATTRIBUTES)}, got {tuple(pair)!r}.")
    return frozenset(frozenset(pair) for pair in allowed)
