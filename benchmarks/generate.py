"""How fast offline conversations are made: planned, written, checked, journalled, stored. ``python benchmarks/generate.py 10010``."""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

from genesis_lab.domains.conversations.domain import Conversations, ConversationsConfig
from genesis_lab.generation.engine import generate
from genesis_lab.generation.plan import make_plan
from genesis_lab.providers.offline import OfflineProvider


def measure(total: int) -> dict[str, object]:
    """Wall and processor seconds of each step, records per second of generation in all, peak memory."""
    domain = Conversations(ConversationsConfig.model_validate({"total": total}))
    first = domain.specs(10, 0)[0]
    domain.offline_text(first, 0)  # reads the grammar once
    started, used = time.perf_counter(), time.process_time()
    plan = make_plan(domain, total, 42)
    planned = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        dataset = generate(plan, domain, OfflineProvider(), Path(folder) / "d")
    done, cpu = time.perf_counter(), time.process_time() - used
    return {
        "records": dataset.total,
        "plan_s": round(planned - started, 2),
        "generate_s": round(done - planned, 2),
        "records_per_s": round(total / (done - started)),
        "records_per_cpu_s": round(total / cpu),
        "attempts": dataset.manifest["attempts"],
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("totals", type=int, nargs="*", default=[1_540, 10_010, 100_100])
    for total in parser.parse_args().totals:
        print(json.dumps(measure(total)), flush=True)
