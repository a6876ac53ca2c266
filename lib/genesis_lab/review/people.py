"""What people did and how far they agree, as a report of plain data: who annotated how much, how fast, and how well."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from statistics import median
from typing import Any

import sqlalchemy as sa

from genesis_lab.review.nlu import words_of
from genesis_lab.review.numbers import rate
from genesis_lab.review.store import Store, records
from genesis_lab.review.tables import activity, labels, messages
from genesis_lab.validation.reviewers import named_alike

_LISTED = 20


def people(store: Store, *, since: float = 0.0, until: float = 1e18, seed: int = 0) -> dict[str, Any]:
    """The report ``people``, of labels made from `since` to `until` (seconds since 1970).

    ``people``: ``annotations``, ``days`` on which there were any (UTC), ``a_day``, ``seconds`` (median of an annotation) and the
    share ``approved`` of those decided; None where none was timed or decided. ``rejections`` with their reasons;
    ``agreement`` on texts that several labelled (`named_alike`), and where they did not agree. ``stages``: how far labels have
    come, in use as soon as a model is seen that came after their export; ``log``: what people did last, newest first.
    """
    both = labels.join(messages, messages.c.key == labels.c.message)
    query = sa.select(*labels.c, messages.c.text).select_from(both).order_by(labels.c.id)
    made = records(store, query.where(labels.c.created_at.between(since, until)))
    acts = sa.select(activity).where(activity.c.created_at.between(since, until), activity.c.seconds.is_not(None))
    timed, whose, given = (defaultdict[str, Any](of) for of in (list, list, dict))
    for row in records(store, acts):
        timed[row["author"]].append(row["seconds"])
    made = [row | {"label": row["intent"] or row["note"]} for row in made if row["intent"] or row["note"]]
    for row in made:
        whose[row["author"]].append(row)
        given[words_of(row["text"] or "") or row["message"]][row["author"]] = row["label"]
    rows = []
    for author, own in sorted(whose.items()):
        days = len({datetime.fromtimestamp(row["created_at"], UTC).date() for row in own})
        decided = [row["status"] == "approved" for row in own if row["status"] != "pending"]
        rows.append({"person": author, "annotations": len(own), "days": days, "a_day": len(own) / days, "approved": rate(sum(decided), len(decided)),
                     "seconds": median(timed[author]) if timed[author] else None})  # fmt: skip
    apart = [{"text": words, "said": [": ".join(one) for one in said.items()]} for words, said in given.items() if len({*said.values()}) > 1]  # fmt: skip
    rejected = [{name: row[name] for name in ("text", "label", "author", "decided_by", "reason")} for row in made if row["status"] == "rejected"]  # fmt: skip
    came = sa.select(sa.func.min(messages.c.timestamp).label("at")).where(messages.c.model.is_not(None))
    newest = max((row["at"] or 0.0 for row in records(store, came.group_by(messages.c.model))), default=0.0)
    exported = [row["exported_at"] for row in made if row["exported_at"]]
    stages = {name: sum(row["status"] == name for row in made) for name in ("pending", "approved", "rejected")}
    stages |= {"exported": len(exported), "in use": sum(at < newest for at in exported)}
    log = sa.select(*activity.c, messages.c.text).outerjoin(messages, messages.c.key == activity.c.message)
    log = log.where(activity.c.created_at.between(since, until)).order_by(activity.c.id.desc()).limit(_LISTED)
    done = [
        row | {"at": datetime.fromtimestamp(row["created_at"], UTC).isoformat(" ", "minutes")}
        for row in records(store, log)
    ]
    return {"stages": stages, "log": done, "people": rows, "labels": sum(map(len, whose.values())), "agreement": named_alike(given, seed),
            "disagreements": apart[:_LISTED], "rejections": rejected[-_LISTED:]}  # fmt: skip
