"""What teaching a small model gains, on concepts nobody taught it, and what it keeps on the way out.

python benchmarks/student.py                 # params/student_demo.yaml, then every exported form: a quarter of an hour
python benchmarks/student.py --items 4 --dry
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import bench
from genesis_lab.stats import Interval

ROOT = Path(__file__).resolve().parent.parent
NAME = "student_demo"


def genesis(root: str, *command: str) -> None:
    subprocess.run([sys.executable, "-m", "genesis_lab.cli", "--output-root", root, *command], cwd=ROOT, check=False)


def kept(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def main() -> None:
    parser = bench.parser(__doc__)
    parser.add_argument("--items", type=int, default=24, help="test items that every exported form answers")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        genesis(root, "run", f"params/{NAME}.yaml")
        exam = kept(Path(root) / "datasets" / NAME / "reports" / "evaluation.json")
        run = kept(next(Path(root).glob("runs/*/run.json")))
        out = Path(root) / "export" / NAME
        wanted = ("--dataset", NAME, "--items", str(arguments.items), "--max-tokens", "320")
        genesis(root, "export-student", NAME, str(out), *wanted)
        export = kept(out / "export.json")
    rows = [
        {
            "who": card["name"],
            "model": "SmolLM2-135M",
            "valid": str(Interval(**card["validity"])),
            "score": str(Interval(**card["score"])),
            **{part: f"{value:.2f}" for part, value in card["parts"].items() if part in ("content", "on_topic")},
        }
        for card in exam["cards"]
    ]
    rows.append({"who": "the offline teacher itself", "score": str(Interval(**exam["teacher"]))})
    bench.store(
        "student",
        "A student on concepts that nobody taught it",
        rows,
        note=f"{exam['verdict']} The whole run took {run['seconds'] / 60:.0f} minutes.",
        facts={"verdict": exam["verdict"]},
    )
    size = {each["form"]: each["bytes"] / 1e6 for each in export["files"]}
    differing = (export["parity"] or {}).get("differing_count")
    bench.store(
        "export",
        "The same student elsewhere",
        [
            {
                "form": each["form"],
                "MB": f"{size[each['form']]:.0f}" if each["form"] in size else "",
                "score": str(Interval(**each["score"])),
                "valid": f"{each['valid']:.2f}",
                "difference": str(Interval(**each["difference"])) if each["difference"] else "",
            }
            for each in export["gates"]
        ],
        note=f"{arguments.items} of the unseen questions; texts on which the tokenizers differ: {differing}.",
    )


if __name__ == "__main__":
    main()
