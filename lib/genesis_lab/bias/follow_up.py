"""The way back to balance: parameters of ``10_generate_conversations`` that generate what a bias report asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genesis_lab.bias.report import Addition, BiasReport
from genesis_lab.domains.conversations.domain import Conversations, ConversationsConfig
from genesis_lab.errors import GenesisError, InvalidInput
from genesis_lab.outputs import write_atomically

_FIELDS = {
    "sentiment": "sentiment_shares",
    "complexity": "complexity_shares",
    "resolution_status": "resolution_shares",
}
_NOTEBOOK = 10


def follow_up_plan(report: BiasReport) -> dict[str, Any]:
    """The most needed of `follow_up_plans`.

    Raises
    ------
    InvalidInput : nothing is to be generated, or nothing that the domain's options can express.
    """
    plans = follow_up_plans(report)
    if not plans:
        raise InvalidInput("The bias report asks for no records that could be generated: there is no follow-up plan.")
    return plans[0]


def follow_up_plans(report: BiasReport) -> list[dict[str, Any]]:
    """All fields of `ConversationsConfig`, once for each block of records to add; run all, then check again.

    `BiasReport.additions`, as far as the domain's options can express them: values it does not know (another language,
    say) are left out, and nothing smaller than the smallest plan can be generated.
    """
    plans: list[dict[str, Any]] = []
    for addition in report.additions:
        plan = _plan(addition, report.config, len(plans))
        if plan is not None:
            plans.append(plan)
    return plans


def write_follow_up(report: BiasReport, path: Path, *, dataset: str | None = None) -> Path:
    """Write the follow-up as a params file for ``genesis run``; plain papermill takes its first block.

    Parameters
    ----------
    dataset : name for the new datasets, numbered if there are several; None: what the notebook chooses.

    Raises
    ------
    InvalidInput : there is nothing to generate (`follow_up_plan`).
    GenesisError : `path` can't be written.
    """
    import yaml

    first = follow_up_plan(report)
    plans = follow_up_plans(report)
    if dataset is not None:
        plans = [plan | {"dataset": dataset if i == 1 else f"{dataset}_{i}"} for i, plan in enumerate(plans, 1)]
        first = plans[0]
    further = [{_NOTEBOOK: {k: v for k, v in plan.items() if v != first[k]}} for plan in plans[1:]]
    content = {
        "name": path.stem,
        "description": f"Records that the bias report of {report.records:,} conversations asks for",
        "stages": [_NOTEBOOK, *further],
        **first,
    }
    write_atomically(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return path


def _plan(addition: Addition, config: dict[str, Any], place: int) -> dict[str, Any] | None:
    fields = dict(config)
    for name, shares in addition.shares.items():
        if name == "language":
            known = {value: share for value, share in shares.items() if value in ("en", "es")}
            if not known:
                return None
            fields["english_share"] = known.get("en", 0.0) / sum(known.values())
        elif name in _FIELDS:
            fields[_FIELDS[name]] = shares
        else:
            fields |= {
                "intents": [],
                "categories": [],
                {"intent": "intents", "category": "categories"}[name]: list(shares),
            }
    limits = ConversationsConfig.model_fields["total"].metadata
    least = next(limit.ge for limit in limits if hasattr(limit, "ge"))
    fields |= {"total": max(least, addition.records), "seed": (fields["seed"] + 1 + place) % 2**31}
    try:
        checked = ConversationsConfig.model_validate(fields)
        _ = Conversations(checked).taxonomy
    except (ValueError, GenesisError):
        return None
    return checked.model_dump(mode="json")
