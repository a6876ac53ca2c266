"""How long the record browser takes to open, filter, search and open one record, and its page to be written.

    python benchmarks/browser.py 1000 100000

Datasets are those of ``benchmarks/bias.py``. Each size is measured in a process of its own; a filter is the slowest of
three kinds (a value, a range, words that are searched for), each with the counts beside all filters.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench
import bias  # benchmarks/bias.py, beside this file
from genesis_lab.files import output_root


def main() -> None:
    parser = bench.parser(__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=[1_000, 10_000], help="numbers of conversations")
    sizes = parser.parse_args().sizes
    rows = [{"conversations": n, **bench.measured(looked_through, bias.dataset(n))["result"]} for n in sizes]
    last = rows[-1]
    facts = {"records": last["conversations"], "open_s": last["open, s"], "filter_s": last["filter, s"]}
    note = "Processor seconds and wall seconds differ where DuckDB uses several cores; these are wall seconds."
    bench.store("browser", "Record browser", rows, note=note, facts=facts)


def looked_through(path: Path) -> dict[str, float]:
    """The measured part: seconds by what was done."""
    from genesis_lab.dataset import open_dataset
    from genesis_lab.reporting.browser import browser_of

    dataset = open_dataset(path)
    opened, browser = timed(lambda: browser_of(dataset))
    first, _ = timed(browser.ask)
    label = next(iter(browser.about()["filters"]))["name"]
    words = next(one["name"] for one in browser.about()["filters"] if one["title"] == "words")
    value = browser.ask()["counts"][label][0][0]
    filters = [{label: [value]}, {words: {"from": 20, "to": 60}}]
    searches = ["tarjeta", '"my card" where', "niño"]
    slowest = max(*(timed(lambda w=w: browser.ask(w))[0] for w in filters), *(timed(lambda s=s: browser.ask({}, s))[0] for s in searches))  # fmt: skip
    one, _ = timed(lambda: browser.open(browser.total // 2))
    page = output_root() / "benchmarks" / "browser.html"
    written, _ = timed(lambda: browser.write(page, replace=True))
    return {
        "open, s": round(opened + first, 3),
        "filter, s": round(slowest, 3),
        "one record, s": round(one, 3),
        "page written, s": round(written, 1),
        "page, MB": round(page.stat().st_size / 1e6, 1),
    }


def timed(done: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = done()
    return time.perf_counter() - started, result


if __name__ == "__main__":
    main()
