"""How long `make demo` takes, stage by stage, and what its dataset is worth: ``python benchmarks/demo.py``.

Runs params/demo.yaml into an output root of its own. Its worth is measured on the reference that is found (GENESIS_REFERENCE_DIR).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import bench

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "genesis_lab.cli", "--output-root", folder, "run", "params/demo.yaml"]
        subprocess.run(command, cwd=ROOT, check=True)
        run = json.loads(next(Path(folder).glob("runs/*/run.json")).read_text(encoding="utf-8"))
        card = json.loads((Path(folder) / "datasets/demo/reports/scorecard.json").read_text(encoding="utf-8"))
    rows = [{"notebook": stage["notebook"], "seconds": stage["seconds"]} for stage in run["stages"]]
    rows.append({"notebook": "all", "seconds": run["seconds"]})
    worth = card["worth"]
    bench.store(
        "demo",
        "make demo, from plan to report",
        rows,
        note="; ".join(f"{name} {said}" for name, said in worth.items()),  # real or stand-in: the sentence says so
        facts={"seconds": f"{run['seconds']:.0f} s", "worth": worth.get("embedding", "not measured")},
    )


if __name__ == "__main__":
    main()
