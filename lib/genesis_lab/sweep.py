"""A sweep: one pipeline run for every combination of parameter values, on this machine or on a Dask cluster."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from genesis_lab.errors import InvalidInput
from genesis_lab.files import isolated_root, write_atomically
from genesis_lab.parallel import spread
from genesis_lab.pipeline import load_pipeline, new_folder, read_run
from genesis_lab.settings import get_settings

Point = dict[str, Any]
"""One run of a sweep: values, status, seconds, metrics of all its notebooks, error (None unless it failed), folder."""


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
    workers: int | None = None,
    dask_address: str | None = None,
    on_point: Callable[[Point], None] | None = None,
) -> tuple[Path, list[Point]]:
    """Run the pipeline in `params` once for each combination in `grid`, in a process and an output root of its own.

    The roots share caches with the present one, so a paid answer is not paid for again. All combinations are checked
    before any runs. `workers` runs at once here, or the scheduler at `dask_address` (whose workers see the same files).
    Returns the folder of all roots and ``sweep.json``, and the points in the order of the grid.
    """
    points = [dict(zip(grid, combination, strict=True)) for combination in product(*grid.values())]
    given = [{**(overrides or {}), **values} for values in points]
    names = [load_pipeline(params, values).name for values in given]
    folder, jobs = new_folder(f"{names[0]}-sweep"), []
    for number, (values, point) in enumerate(zip(given, points, strict=True), 1):
        label = re.sub(r"[^\w.,=+-]", "_", ",".join(f"{name}={value}" for name, value in point.items()))
        root = isolated_root(folder / f"{number:03d}-{label.encode()[:120].decode(errors='ignore')}")
        jobs.append((str(params.resolve()), values, str(root.resolve()), point))
    settings, done = get_settings(), []
    workers, dask_address = workers or settings.workers, dask_address or settings.dask_address
    for result in spread(run_point, jobs, "dask" if dask_address else "threads", workers, dask_address, ordered=False):
        done.append(result)
        if on_point:
            on_point(result)
    done.sort(key=lambda result: points.index(result["values"]))
    write_atomically(folder / "sweep.json", json.dumps(done, indent=2, ensure_ascii=False) + "\n")
    return folder, done


def table(points: Sequence[Point]) -> list[dict[str, Any]]:
    """One row a point: its values, status, seconds and the metrics that it has."""
    return [{**p["values"], "status": p["status"], "seconds": p["seconds"], **p["metrics"]} for p in points]


def run_point(params: str, overrides: dict[str, str], root: str, values: dict[str, str]) -> Point:
    """One run in a process of its own, with `root` as its output root."""
    command = [sys.executable, "-m", "genesis_lab.cli", "--output-root", root, "run", params]
    command += [part for name, value in overrides.items() for part in ("-p", f"{name}={value}")]
    finished = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    (Path(root) / "log.txt").write_text(finished.stdout + finished.stderr, encoding="utf-8")
    found = sorted((Path(root) / "runs").glob("*/run.json"))
    if not found:
        error = (finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"])[-1]
        return {"values": values, "status": "failed", "seconds": None, "metrics": {}, "error": error, "folder": root}
    run = read_run(found[-1].parent)
    record, metrics = run.record, {name: value for stage in run.metrics.values() for name, value in stage.items()}
    kept = {"seconds": record["seconds"], "metrics": metrics, "error": record["error"], "folder": str(run.folder)}
    status = "failed" if finished.returncode and record["status"] == "completed" else record["status"]
    return {"values": values, "status": status, **kept}
