"""A sweep: one pipeline run for every combination of parameter values, on this machine or on a Dask cluster."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from genesis_lab.errors import InvalidInput
from genesis_lab.files import isolated_root, write_atomically
from genesis_lab.parallel import spread
from genesis_lab.pipeline import load_pipeline, new_folder, read_run


@dataclass(frozen=True)
class Point:
    """One run of a sweep. `metrics` are those of all its notebooks; `error` is None unless it failed."""

    values: dict[str, str]
    status: str
    seconds: float | None
    metrics: dict[str, Any]
    error: str | None
    folder: str


@dataclass(frozen=True)
class Sweep:
    """All points of a sweep, in the order of the grid, and the folder that holds them."""

    folder: Path
    points: tuple[Point, ...]

    def table(self) -> list[dict[str, Any]]:
        """One row a point: its values, status, seconds and metrics."""
        names = list(dict.fromkeys(name for point in self.points for name in point.metrics))
        return [
            {**p.values, "status": p.status, "seconds": p.seconds, **{name: p.metrics.get(name) for name in names}}
            for p in self.points
        ]


def parse_grid(options: Sequence[str]) -> dict[str, list[str]]:
    """``["total=100,200", "preset=fast,best"]`` as lists of texts by parameter name."""
    grid = {}
    for option in options:
        name, equals, values = option.partition("=")
        parts = [part.strip() for part in values.split(",")]
        if not equals or not name or not all(parts) or len(set(parts)) < len(parts):
            raise InvalidInput(f"A sweep must be given as name=value,value,… with distinct values, got {option!r}.")
        grid[name.strip()] = parts
    return grid


def run_sweep(
    params: Path,
    grid: Mapping[str, Sequence[str]],
    *,
    overrides: Mapping[str, str] | None = None,
    workers: int = 1,
    dask_address: str | None = None,
    on_point: Callable[[Point], None] | None = None,
) -> Sweep:
    """Run the pipeline in `params` once for every combination in `grid`, each in a process and an output root of its own.

    The roots share caches with the present one, so a paid answer is not paid for again. ``sweep.json`` holds the table.

    Parameters
    ----------
    workers : runs at once on this machine.
    dask_address : scheduler to send the runs to instead; its workers must see the same files.
    on_point : called with each run as it ends.

    Raises
    ------
    InvalidInput : a combination is not valid; found before any runs.
    Unavailable : there is no scheduler at `dask_address`.
    """
    points = [dict(zip(grid, combination, strict=True)) for combination in product(*grid.values())]
    for values in points:
        pipeline = load_pipeline(params, {**(overrides or {}), **values})
    folder = new_folder(pipeline.name + "-sweep")
    jobs: list[_Job] = []
    for number, values in enumerate(points, 1):
        label = re.sub(r"[^\w.,=+-]", "_", ",".join(f"{name}={value}" for name, value in values.items()))
        short = label.encode()[:120].decode(errors="ignore")
        taken = any(Path(root).name.casefold() == short.casefold() for _, _, root, _ in jobs)
        root = isolated_root(folder / (f"{short}-{number}" if taken or short != label else short))
        jobs.append((str(params.resolve()), {**(overrides or {}), **values}, str(root.resolve()), values))
    done = []
    for point in spread(run_point, jobs, "dask" if dask_address else "threads", workers, dask_address, ordered=False):
        done.append(point)
        if on_point:
            on_point(point)
    sweep = Sweep(folder, tuple(sorted(done, key=lambda point: points.index(point.values))))
    text = json.dumps([asdict(point) for point in sweep.points], indent=2, ensure_ascii=False)
    write_atomically(folder / "sweep.json", text + "\n")
    return sweep


_Job = tuple[str, dict[str, str], str, dict[str, str]]


def run_point(params: str, overrides: dict[str, str], root: str, values: dict[str, str]) -> Point:
    """One run in a process of its own, with `root` as its output root."""
    command = [sys.executable, "-m", "genesis_lab.cli", "--output-root", root, "run", params]
    for name, value in overrides.items():
        command += ["-p", f"{name}={value}"]
    finished = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    (Path(root) / "log.txt").write_text(finished.stdout + finished.stderr, encoding="utf-8")
    found = sorted((Path(root) / "runs").glob("*/run.json"))
    if not found:
        last = (finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"])[-1]
        return Point(values, "failed", None, {}, last, root)
    run = read_run(found[-1].parent)
    metrics = {name: value for stage in run.metrics.values() for name, value in stage.items()}
    status = run.record["status"] if finished.returncode == 0 or run.record["status"] != "completed" else "failed"
    return Point(values, status, run.record["seconds"], metrics, run.record["error"], str(run.folder))
