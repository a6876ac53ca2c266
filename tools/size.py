"""How large the package is: ``python tools/size.py`` prints lines of Python per room beside the budget (``make size``)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "lib" / "genesis_lab"
BUDGETS = {
    "domains": 1_800,
    "providers": 1_300,
    "generation": 1_500,
    "dataset": 900,
    "validation": 1_500,
    "bias": 600,
    "training": 950,
    "finetuning": 1_700,
    "reporting": 1_700,
    "health": 300,
    "ground and edge": 1_700,
    "time series": 1_500,
    "browser and foreign data": 1_500,
    "review": 3_500,
}
"""Room to the physical lines it should have; modules beside the rooms are the ground and the edge."""
RESERVE = 1_050
"""For no room in particular."""
PARTS = {
    "time series": {"timeseries", "forecasts", "cli_series"},
    "review": {"cli_review", "review_reports"},
    "browser and foreign data": {
        "browser",
        "curation",
        "foreign",
        "columns",
        "asking_again",
        "reviewers",
        "cli_dataset",
    },
}
"""What stands inside other rooms and is counted apart: the names of its folders and modules."""
CEILINGS = {
    "domains": 3_228,
    "providers": 2_283,
    "generation": 2_412,
    "dataset": 1_315,
    "validation": 2_448,
    "bias": 998,
    "training": 1_733,
    "finetuning": 2_487,
    "reporting": 2_503,
    "health": 433,
    "ground and edge": 2_891,
    "time series": 2_280,
    "browser and foreign data": 2_208,
    "review": 4_897,
}
"""What a room that is still over its budget may have at most today; lowered whenever one shrinks."""
TOTAL = sum(BUDGETS.values()) + RESERVE


def sizes(package: Path = PACKAGE) -> dict[str, int]:
    """Physical lines of Python per room, largest budget first."""
    lines: Counter[str] = Counter()
    for module in package.rglob("*.py"):
        place = module.relative_to(package).parts
        room = place[0] if len(place) > 1 else "ground and edge"
        part = next((part for part, names in PARTS.items() if names & {*place, module.stem}), room)
        lines[part] += len(module.read_text(encoding="utf-8").splitlines())
    return {room: lines[room] for room in {**BUDGETS, **lines}}


def table(found: dict[str, int]) -> str:
    """Room, lines, budget."""
    rows = [(room, n, BUDGETS.get(room, 0)) for room, n in found.items()]
    rows.append(("all", sum(found.values()), TOTAL))
    return "\n".join(f"{room:16} {n:7,} of {most:7,}{'  over' if n > most else ''}" for room, n, most in rows)


if __name__ == "__main__":
    print(table(sizes()))
