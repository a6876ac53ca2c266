"""What a report says, whatever is drawn of it. A report is the dict that whoever measured it wrote."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from genesis_lab.reporting.html import NotMeasured, interval_text

Report = Mapping[str, Any]
Rows = list[dict[str, Any]]


def best(card: Report | None) -> Report | None:
    """The learner of a scorecard that does best on real data: by accuracy, a forecaster by its error."""
    return max((card or {}).get("students") or (), key=accuracy_of, default=None)


def shown_as(kind: str, report: Report | None) -> str:
    """The kind whose views and cards a report is shown by: its own word for it, where it has one."""
    return str((report or {}).get("shown_as", kind))


def named(row: Report) -> list[str]:
    """The texts of a row in their order: the label; of a confusion the true one and the one it is taken for."""
    return [value for value in row.values() if isinstance(value, str)]


def points(value: Report) -> str:
    """A difference in points of 100."""
    return interval_text({end: 100 * value[end] for end in ("estimate", "low", "high")}, "+.1f")


def at(row: Any, path: str) -> Any:
    """The value at a dotted path; None where a part of it is missing."""
    for name in path.split("."):
        if isinstance(row, list):
            row = row[int(name)]
        else:
            row = row.get(name) if isinstance(row, Mapping) else None
    return row


def stand_in(report: Report) -> str:
    """What is said with every figure that was measured on texts that are no customer's; empty where they are."""
    made_up = at(report, "reference.kind") == "stand-in"
    return "stand-in: written by a language model, not by customers" if made_up else ""


def measured_on(report: Report) -> str:
    """``real`` or ``stand-in``: whose texts a scorecard was measured on."""
    return "stand-in" if stand_in(report) else "real"


def why(report: Report, key: str, other: str = "") -> NotMeasured:
    """Why `key` was not measured, as the report says it."""
    missing = report.get("not_measured") or {}
    return NotMeasured(str(missing.get(key) or missing.get("scorecard") or other or "there is nothing to measure"))


def accuracy_of(row: Report) -> float:
    return -float(row["mase"]["estimate"]) if "mase" in row else float(row["accuracy"]["estimate"])


def spoken(name: str) -> str:
    return name.replace("_", " ")


def offences(reports: Mapping[str, Any]) -> tuple[dict[int, dict[str, str]], dict[int, dict[str, str]]]:
    """Row to the checks that it fails and why, as the reports say; row to the groups of like ones that it is in."""
    failed: dict[int, dict[str, str]] = {}
    alike: dict[int, dict[str, str]] = {}

    def walk(node: Any) -> None:
        for inner in node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ():
            walk(inner)
        for one in node.get("offences", ()) if isinstance(node, Mapping) else ():
            row, why = int(one["row"]), str(one["reason"])
            failed.setdefault(row, {})[str(node.get("name"))] = why
            if other := re.search(r"\brow (\d+)$", why):
                for each in (row, int(other[1])):
                    alike.setdefault(each, {})[f"like row {int(other[1]) + 1}"] = "" if each == row else "the first"
        for one in node.get("issues", ()) if isinstance(node, Mapping) else ():
            failed.setdefault(int(one["row"]), {})[str(one["kind"])] = str(one["message"])

    walk({kind: report for kind, report in reports.items() if kind != "curation"})
    return failed, alike
