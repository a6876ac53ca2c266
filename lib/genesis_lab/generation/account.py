"""What a run says about itself: the header that a resumed run must agree with, and the manifest of what came of it."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from genesis_lab.dataset import Dataset, open_dataset
from genesis_lab.dataset.folder import MANIFEST, is_dataset
from genesis_lab.domains.base import Domain
from genesis_lab.errors import GenesisError, InvalidInput
from genesis_lab.files import check_free, recovered, shown, write_error
from genesis_lab.generation.journal import JOURNAL, read_header, what_changed
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
    scores: Counter[float],
) -> dict[str, Any]:
    """The account of a run, all in all and by teacher. ``learned``: what refusals told of quotas that nobody did."""
    missing = sum(lane.total - lane.accepted for lane in lanes)
    manifest = {
        "generation": header,
        "config": config,
        "config_hash": request_key(header),
        "plan": plan.counts(),
        "complete": not missing,
        "missing": missing,
        "attempts": sum(lane.attempts for lane in lanes),
        "drop_reasons": dict(sorted(drops.items(), key=lambda drop: (-drop[1], drop[0]))),
        **_counts(lanes),
    }
    if len(lanes) > 1:
        manifest["teachers"] = [
            {
                "teacher": lane.teacher.name,
                "share": header["teachers"][lane.teacher.name],
                "accepted": lane.accepted,
                "missing": lane.total - lane.accepted,
                "attempts": lane.attempts,
                **_counts([lane]),
            }
            for lane in lanes
        ]
    ledgers = {lane.teacher.name: lane.teacher.scheduler.ledger for lane in lanes if lane.teacher.scheduler}
    if learned := {name: found for name, ledger in ledgers.items() if (found := ledger.learned())}:
        manifest["learned"] = learned
    if scores:
        manifest["rejected_scores"] = {f"{score:g}": n for score, n in sorted(scores.items())}
    return manifest


def _counts(lanes: Sequence[Lane]) -> dict[str, Any]:
    """Tokens of the answers that were counted; what was not sent as asked, and what was wrong, with how often; the cost."""
    uncounted = sum(lane.uncounted for lane in lanes)
    usage = [sum(each) for each in zip(*(lane.usage for lane in lanes), strict=True)]
    said = {
        "answers_without_usage": uncounted,
        "not_sent": dict(sum((lane.not_sent for lane in lanes), Counter())),
        "notes": dict(sum((lane.notes for lane in lanes), Counter())),
    }
    return {
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


def existing(target: Path, header: dict[str, Any], *, replace: bool) -> Dataset | None:
    """The dataset that this very run made; None where there is none, or one that the run is to replace.

    Raises
    ------
    InvalidInput : a dataset of other settings is there and not to be replaced, or something that is no dataset.
    """
    there = (recovered(target) / MANIFEST).exists()
    check_free(target, replace=there, ours=is_dataset)
    if not there:
        return None
    try:
        dataset = open_dataset(target)
    except InvalidInput:  # damaged
        if replace:
            return None
        raise
    changed = what_changed(dataset.manifest.get("generation") or {}, header)
    if changed and not replace:
        raise InvalidInput(
            f"{shown(target)} already holds a dataset made with other settings ({changed}): "
            "choose another name, or set replace to true to have it replaced."
        )
    return None if changed else dataset


def make_room(work: Path, header: dict[str, Any], *, replace: bool) -> None:
    """See to it that what is in the work folder of a run is of this run; one of other settings goes on request.

    Raises
    ------
    InvalidInput : it holds what is not ours, or a run of other settings that has something to lose.
    """
    if not os.path.lexists(work):
        return
    if not is_run(work):
        raise InvalidInput(f"{shown(work)}, where the run is kept, holds other things: choose another name.")
    begun = read_header(work / JOURNAL)
    if not is_begun(work) or (replace and begun and what_changed(begun, header)):
        shutil.rmtree(work)


def is_run(work: Path) -> bool:
    """Whether a folder holds an unfinished run, and nothing else."""
    names = [file.name for file in work.iterdir()] if work.is_dir() and not work.is_symlink() else [""]
    return all(name == JOURNAL or name.startswith("batch-") for name in names)


def is_begun(work: Path) -> bool:
    """Whether an unfinished run has something to lose: an accepted record, or batch jobs."""
    if any(work.glob("batch-*")):
        return True
    try:
        with (work / JOURNAL).open("rb") as lines:
            return any(b'"outcome":"accepted"' in line for line in lines)
    except FileNotFoundError:
        return False


def discard(target: Path) -> None:
    """Throw away the unfinished run of the dataset in the folder `target`.

    Raises
    ------
    InvalidInput : there is no such run, or it is running right now.
    """
    work = work_folder(target)
    if not is_run(work):
        raise InvalidInput(f"There is no unfinished run of {target.name}: {shown(work)} is none.")
    lock = work.with_name(work.name + ".lock")
    try:
        with FileLock(lock, timeout=0):
            shutil.rmtree(work)
            lock.unlink(missing_ok=True)
    except Timeout:
        raise InvalidInput(f"Another process is generating {shown(target)} right now: stop it first.") from None
    except OSError as error:
        raise write_error(error, work) from None


def work_folder(target: Path) -> Path:
    """Where the run of a dataset is kept while it is unfinished."""
    return target.with_name(target.name + ".run")
