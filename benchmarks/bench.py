"""One way to measure: time, count memory, compare side by side, store. Every benchmark here uses it.

    python benchmarks/bench.py          # writes benchmarks/README.md from results/*.json

A result is ``results/<name>.json``: title, command, date, machine, columns, rows, a note, and the facts that the front page
quotes. No figure in benchmarks/README.md is typed by hand, and a test holds README.md's against these files. Every
benchmark takes ``--dry``, which prints its table and keeps nothing.

The emulated service and the simulations are those of the tests: whoever imports this finds ``tests`` on its path.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
DRY = "--dry"
sys.path.insert(0, str(HERE.parent / "tests"))


def parser(about: str | None) -> argparse.ArgumentParser:
    """Of a benchmark's command line, with ``--dry``; `about` is the module's docstring."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(DRY, action="store_true", help="print what was found and keep nothing")
    return made


def measured(function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """What `function` (at the top of a module) does in a process of its own: wall and processor seconds, peak memory.

    Returns
    -------
    dict with ``seconds``, ``cpu_s`` (which other work on the machine hardly changes; children included), ``peak_mib``
    (of the process, or of its largest child if that is larger) and ``result``, what the function returned. What its
    module imports at the top is in the memory, but not in the seconds.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    try:
        found: dict[str, Any] = ours.recv()
    except EOFError:
        sys.exit(f"{function.__name__} failed.")
    process.join()
    return found


def _measure(pipe: Any, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
    started, used = time.perf_counter(), _cpu_s()
    result = function(*arguments)
    seconds = time.perf_counter() - started
    if loky := sys.modules.get("joblib.externals.loky"):  # its idle workers count when they end, and would hold us up
        loky.get_reusable_executor().shutdown()
    cpu_s = _cpu_s() - used
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = max(_peak_kib(own.ru_maxrss), children.ru_maxrss) // 1024
    pipe.send({"seconds": round(seconds, 2), "cpu_s": round(cpu_s, 2), "peak_mib": peak, "result": result})


def _cpu_s() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _peak_kib(otherwise: int) -> int:
    """The most this process held at once. Linux counts what the parent held as the child's in ``ru_maxrss``, not here."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), otherwise)


def timed(done: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds of all threads, which other work on the machine hardly changes."""
    started = time.process_time()
    result = done()
    return time.process_time() - started, result


def side_by_side(arms: Mapping[str, Callable[[], Any]], repeats: int = 3) -> dict[str, dict[str, float]]:
    """The median seconds of each arm, taken in turns so that all meet the same machine, and how often the first is as quick.

    Returns
    -------
    arm to ``seconds``, ``cpu_s`` and ``times``: its seconds over those of the first arm.
    """
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in arms}
    for _ in range(repeats):
        for name, arm in arms.items():
            wall, cpu = time.perf_counter(), time.process_time()
            arm()
            taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    medians = {
        name: [sorted(column)[repeats // 2] for column in zip(*runs, strict=True)] for name, runs in taken.items()
    }
    first = next(iter(medians.values()))[0]
    return {name: {"seconds": wall, "cpu_s": cpu, "times": wall / first} for name, (wall, cpu) in medians.items()}


def growth(small: int, large: int, before: float, after: float) -> float:
    """The growth exponent: slope of log seconds over log size."""
    return math.log(after / before) / math.log(large / small)


def store(
    name: str,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    note: str = "",
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Keep a table as ``results/<name>.json``, with the command that was given, the machine and the date, and print it.

    With ``--dry`` on the command line it is only printed.

    Parameters
    ----------
    rows : column to value, in the order of the page.
    note : what must be known to read it, as Markdown.
    facts : single figures that the front page quotes.
    """
    script = Path(sys.argv[0]).resolve()
    place = script.relative_to(HERE.parent) if script.is_relative_to(HERE.parent) else script.name
    found = {
        "title": title,
        "command": " ".join(["python", str(place), *sys.argv[1:]]),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "columns": list(dict.fromkeys(column for row in rows for column in row)),
        "rows": [dict(row) for row in rows],
        "note": note,
        "facts": dict(facts or {}),
    }
    if DRY not in sys.argv:
        RESULTS.mkdir(exist_ok=True)
        text = json.dumps(found, indent=1, ensure_ascii=False)
        (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print("\n\n".join(filter(None, [table(found), note])), end="\n\n", flush=True)


def machine() -> str:
    """Cores, memory, Python, and what else kept them busy."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}, load {load:.1f}"


def table(result: Mapping[str, Any]) -> str:
    """The rows of a stored result as a Markdown table."""
    columns = result["columns"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(column)) for column in columns) + " |" for row in result["rows"]]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def results() -> dict[str, dict[str, Any]]:
    """Every stored result by name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))}


def page() -> str:
    """benchmarks/README.md."""
    parts = [
        "# Measured\n\nMade by `python benchmarks/bench.py` from [results](results): each table names its command, machine and date.\n"
    ]
    for name, found in results().items():
        how = f"`{found['command']}` · {found['machine']} · {found['date']}"
        parts.append(
            "\n\n".join(filter(None, [f'## {found["title"]} <a id="{name}"></a>', table(found), found["note"], how]))
        )
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    (HERE / "README.md").write_text(page(), encoding="utf-8")
