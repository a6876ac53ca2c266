"""The package gets smaller: no room grows, by the table of `tools/size.py`, until all are within their budgets."""

from __future__ import annotations

from pathlib import Path

from size import BUDGETS, CEILINGS, TOTAL, sizes, table


def test_no_room_grows_beyond_what_it_has_today() -> None:
    found = sizes()
    print(table(found))
    over = [room for room, most in CEILINGS.items() if found[room] > max(most, BUDGETS[room])]
    assert not over, table(found)


def test_every_room_has_a_budget_and_all_together_one() -> None:
    assert set(sizes()) == set(BUDGETS) == set(CEILINGS) and sum(BUDGETS.values()) <= TOTAL


def test_a_room_over_its_budget_is_marked(tmp_path: Path) -> None:
    (tmp_path / "bias").mkdir()
    (tmp_path / "bias" / "check.py").write_text("1\n" * (BUDGETS["bias"] + 1))
    (tmp_path / "cli.py").write_text("1\n")
    rows = table(sizes(tmp_path)).splitlines()
    assert [row.split()[0] for row in rows if row.endswith("over")] == ["bias"]
