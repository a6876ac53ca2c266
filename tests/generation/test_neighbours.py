from __future__ import annotations

from pathlib import Path

from genesis_lab.generation.limiter import ALIVE_S, LOOK_S, Neighbours


def test_a_process_counts_as_long_as_it_shows_itself(tmp_path: Path) -> None:
    now = [1_000.0]
    ours, other = (Neighbours(tmp_path / "quota", name, lambda: now[0]) for name in ("ours", "other"))
    now[0] += LOOK_S
    assert (ours.count(), other.count()) == (2, 2)
    for _ in range(int(ALIVE_S / LOOK_S) + 1):  # the other one was killed
        now[0] += LOOK_S
        ours.count()
    assert ours.count() == 1
    assert other.count() == 2  # or it had only nothing to send
    now[0] += LOOK_S
    assert ours.count() == 2


def test_where_nothing_can_be_written_a_process_is_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert Neighbours(tmp_path / "file" / "quota").count() == 1
