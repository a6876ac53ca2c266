"""What a run says about itself: the header that a resumed run must agree with, and the manifest of what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from genesis_lab.domains.base import Domain
from genesis_lab.errors import GenesisError
from genesis_lab.generation.lane import TOKENS, Lane
from genesis_lab.generation.plan import Plan
from genesis_lab.generation.teachers import Teacher
from genesis_lab.providers.base import request_key, total_cost


def run_header(plan: Plan, domain: Domain, teachers: Sequence[Teacher], sampling: dict[str, Any]) -> dict[str, Any]:
    """What must be the same for a run to go on. Several teachers are named with their shares; their order is no matter."""
    teachers = sorted(teachers, key=lambda teacher: teacher.name)
    header = {
        "domain": domain.name,
        "schema_version": domain.version,
        "prompt_version": domain.prompt_version,
        "total": len(plan.specs),
        "seed": plan.seed,
        "provider": ", ".join(dict.fromkeys(t.provider.name for t in teachers)),
        "model": ", ".join(dict.fromkeys(t.provider.model for t in teachers)),
        "sampling": sampling,
        "plan_hash": plan.hash,
    }
    if weights := [t.identity for t in teachers if t.provider.name == "local"]:
        header["weights"] = ", ".join(weights)
    header["knowledge"] = knowledge = dict(domain.knowledge())
    options = domain.config.model_dump(mode="json", exclude=set(knowledge))
    header["options"] = {name: value for name, value in options.items() if header.get(name) != value}
    if len(teachers) > 1:
        whole = sum(t.share for t in teachers)
        header["teachers"] = {t.name: round(t.share / whole, 6) for t in teachers}
    return header


def run_manifest(
    header: dict[str, Any],
    config: dict[str, Any],
    plan: Plan,
    lanes: Sequence[Lane],
    drops: Counter[str],
    scores: Mapping[float, int],
) -> dict[str, Any]:
    """The account of a run, all in all and by teacher. ``learned``: what refusals told of quotas that nobody did."""
    manifest = {
        "generation": header,
        "config": config,
        "config_hash": request_key(header),
        "plan": plan.counts(),
        "complete": all(lane.accepted == lane.total for lane in lanes),
        "drop_reasons": dict(sorted(drops.items(), key=lambda drop: (-drop[1], drop[0]))),
        **_counts(lanes),
    }
    if len(lanes) > 1:
        manifest["teachers"] = [
            {"teacher": lane.teacher.name, "share": header["teachers"][lane.teacher.name], "accepted": lane.accepted}
            | _counts([lane])
            for lane in lanes
        ]
    learned = {lane.teacher.name: lane.teacher.scheduler.ledger.learned() for lane in lanes if lane.teacher.scheduler}
    if any(learned.values()):
        manifest["learned"] = {name: found for name, found in learned.items() if found}
    if scores:
        manifest["rejected_scores"] = {f"{score:g}": n for score, n in sorted(scores.items())}
    return manifest


def _counts(lanes: Sequence[Lane]) -> dict[str, Any]:
    """What is missing; tokens of the answers that were counted; what was not sent as asked, and what was wrong; the cost."""
    uncounted = sum(lane.uncounted for lane in lanes)
    usage = [sum(each) for each in zip(*(lane.usage for lane in lanes), strict=True)]
    said = {
        "answers_without_usage": uncounted,
        "not_sent": dict(sum((lane.not_sent for lane in lanes), Counter())),
        "notes": dict(sum((lane.notes for lane in lanes), Counter())),
    }
    return {
        "missing": sum(lane.total - lane.accepted for lane in lanes),
        "attempts": sum(lane.attempts for lane in lanes),
        "usage": None if uncounted and not any(usage) else dict(zip(TOKENS, usage, strict=True)),
        **{name: value for name, value in said.items() if value},
        "cost_usd": total_cost(lane.cost_usd for lane in lanes),
    }


def stopped(lanes: Sequence[Lane]) -> GenesisError:
    """The error that ends a run in which teachers stopped for good."""
    ended = [lane for lane in lanes if lane.ended]
    if len(lanes) == 1 and ended[0].ended:
        return ended[0].ended
    said = " ".join(
        f"Teacher {lane.teacher.name} stopped with {lane.total - lane.accepted:,} of its {lane.total:,} records missing: "
        f"{str(lane.ended).rstrip('.')}."
        for lane in ended
    )
    others = "The others have done their part, and everything" if len(ended) < len(lanes) else "Everything"
    return GenesisError(f"{said} {others} so far is saved: run the same again to go on.")
