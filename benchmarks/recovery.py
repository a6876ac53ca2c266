"""What a run loses, and pays for twice, when it is killed (SIGKILL) again and again: counted on the server.

    python benchmarks/recovery.py                     # 2,000 records, 200 kills
    python benchmarks/recovery.py --records 200 --kills 20

The real engine with boto3 against `tests/bedrock_emulator`, in processes of its own that are killed at random moments.
*In flight* are requests that had been sent when a kill came and whose answers were not in the cache yet. Each process
starts as a copy of one that has its imports done.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import bench
from generation.recovery import recover


def recovered(records: int, kills: int, seed: int) -> dict[str, Any]:
    """The measured part: what came of a run that was killed."""
    with tempfile.TemporaryDirectory() as folder:
        return asdict(recover(Path(folder), records=records, kills=kills, seed=seed))


def main() -> None:
    parser = bench.parser(__doc__)
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    measured = bench.measured(recovered, arguments.records, arguments.kills, arguments.seed)
    found = measured["result"]
    counts = {
        "kills": found["kills"],
        "records": found["records"],
        "records lost": found["lost"],
        "equal to the undisturbed run": "yes" if found["same"] else "NO",
        "answers paid for": found["paid"],
        "of which the undisturbed run needed": found["needed"],
        "requests paid for more than once": found["twice"],
        "in flight at a kill": found["in_flight"],
        "sent again although the answer had been saved before a kill": found["saved_twice"],
        "seconds": measured["seconds"],
    }
    rows = [{"counted on the server": what, "number": number} for what, number in counts.items()]
    bench.store("recovery", "A run that is killed again and again", rows, facts=found)


if __name__ == "__main__":
    main()
