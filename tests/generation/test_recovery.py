"""A run that is killed again and again: `benchmarks/recovery.py` does the same at full size."""

from __future__ import annotations

from pathlib import Path

from generation.recovery import recover


def test_killed_runs_lose_nothing_and_pay_again_only_for_what_was_in_flight(tmp_path: Path) -> None:
    found = recover(tmp_path, records=40, kills=4)
    assert found.lost == 0 and found.same
    assert found.saved_twice == 0
    assert found.paid - found.needed <= found.in_flight
