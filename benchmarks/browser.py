"""How long the record browser takes to open, filter, search and open one record, and its page to be written.

    python benchmarks/browser.py 1000 100000

Datasets are those of ``benchmarks/bias.py``. Each size is measured in a process of its own; a filter is the slowest of
a value, a range with a language, and words that are searched for, each with the counts beside all filters.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import bench
import bias  # benchmarks/bias.py, beside this file
from genesis_lab.domains import get_domain
from genesis_lab.files import output_root


def main() -> None:
    parser = bench.parser(__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=[1_000, 10_000], help="numbers of conversations")
    sizes = parser.parse_args().sizes
    rows = [{"conversations": n, **bench.measured(looked_through, bias.dataset(n))["result"]} for n in sizes]
    last = rows[-1]
    facts = {"records": last["conversations"], "open_s": last["open, s"], "filter_s": last["filter, s"]}
    note = "Processor seconds of all threads. The slowest of four filters and searches, with the counts beside every filter."
    bench.store("browser", "Record browser", rows, note=note, facts=facts)


def looked_through(path: Path) -> dict[str, float]:
    """The measured part: seconds by what was done."""
    from genesis_lab.dataset import open_dataset
    from genesis_lab.reporting.browser import browser_of

    dataset, page = open_dataset(path), output_root() / "benchmarks" / "browser.html"
    label, language = (getattr(get_domain(dataset.domain).facets, name) for name in ("label", "language"))
    opened, browser = bench.timed(lambda: browser_of(dataset))
    first, answer = bench.timed(browser.ask)
    names = {one["title"]: one["name"] for one in browser.about()["filters"]}
    value = answer["counts"][names[label]][0][0]
    filters: list[tuple[dict[str, Any], str]] = [
        ({names[label]: [value]}, ""),
        ({names["words"]: {"from": 20, "to": 60}, names[language]: ["es"]}, ""),
        ({}, "TARJETA"),
        ({}, '"my card" where'),
    ]
    slowest = max(bench.timed(partial(browser.ask, where, words))[0] for where, words in filters)
    one, _ = bench.timed(lambda: browser.open(browser.total // 2))
    written, _ = bench.timed(lambda: browser.write(page, replace=True))
    return {
        "open, s": round(opened + first, 2),
        "filter, s": round(slowest, 3),
        "one record, s": round(one, 3),
        "page written, s": round(written, 1),
        "page, MB": round(page.stat().st_size / 1e6, 1),
    }


if __name__ == "__main__":
    main()
