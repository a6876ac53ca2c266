"""The package stays small: each room within its budget of lines, by the table of `tools/size.py`."""

from __future__ import annotations

from pathlib import Path

from size import BUDGETS, TOTAL, sizes, table

KEPT: set[str] = set()
"""Rooms that are within their budget. One that has got there joins, and none leaves."""


def test_rooms_that_are_within_their_budget_stay_there() -> None:
    found = sizes()
    print(table(found))
    over = [room for room in KEPT if found[room] > BUDGETS[room]]
    assert not over, table(found)


def test_every_room_has_a_budget_and_all_together_one() -> None:
    assert set(sizes()) == set(BUDGETS) and sum(BUDGETS.values()) <= TOTAL


def test_a_room_over_its_budget_is_marked(tmp_path: Path) -> None:
    (tmp_path / "bias").mkdir()
    (tmp_path / "bias" / "check.py").write_text("1\n" * (BUDGETS["bias"] + 1))
    (tmp_path / "cli.py").write_text("1\n")
    rows = table(sizes(tmp_path)).splitlines()
    assert [row.split()[0] for row in rows if row.endswith("over")] == ["bias"]
