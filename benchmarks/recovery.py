"""What a run loses, and pays for twice, when it is killed (SIGKILL) again and again: counted on the server.

    python benchmarks/recovery.py                     # 2,000 records, 200 kills
    python benchmarks/recovery.py --records 200 --kills 20

The real engine with boto3 against `tests/bedrock_emulator`, in processes of its own that are killed at random moments.
*In flight* are requests that had been sent when a kill came and whose answers were not in the cache yet. Each process
starts as a copy of one that has its imports done.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))


def main() -> None:
    from generation.recovery import recover

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = recover(Path(folder), records=arguments.records, kills=arguments.kills, seed=arguments.seed)
    print(f"{found.kills} kills in {found.seconds:.0f} s; {found.records:,} records, {found.lost} lost")
    print(f"equal to the undisturbed run: {'yes' if found.same else 'NO'}")
    print(f"answers paid for: {found.paid:,}, of which the undisturbed run needed {found.needed:,}")
    print(f"requests paid for more than once: {found.twice:,}; in flight at a kill: {found.in_flight:,}")
    print(f"sent again although the answer had been saved before a kill: {found.saved_twice}")


if __name__ == "__main__":
    main()
