"""The house itself: who may import whom, quick imports, and dependency files that agree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lock import locked

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "lib" / "genesis_lab"
MODULES = sorted(PACKAGE.rglob("*.py"))

EVERYTHING_ABOVE = {
    "dataset",
    "registry",
    "generation",
    "validation",
    "bias",
    "training",
    "finetuning",
    "review",
    "reporting",
}
COMMANDS = {"cli", "cli_dataset", "cli_review", "cli_series", "terminal"}
EDGE = {"reports", "review_reports", "rounds", "asking_again", "pipeline", "sweep", "notebooks", "health", *COMMANDS}
FORBIDDEN = {
    "domains": {"providers", *EVERYTHING_ABOVE, *EDGE},
    "providers": {"domains", *EVERYTHING_ABOVE, *EDGE},
    "generation": {"validation", "bias", "training", "finetuning", "review", "reporting", "registry", *EDGE},
    "dataset": {
        "generation",
        "providers",
        "validation",
        "bias",
        "training",
        "finetuning",
        "review",
        "reporting",
        *EDGE,
    },
    "validation": {"generation", "providers", "training", "finetuning", "review", "reporting", *EDGE},
    "bias": {"generation", "providers", "training", "finetuning", "review", "reporting", *EDGE},
    "training": {"generation", "providers", "finetuning", "review", "reporting", *EDGE},
    "finetuning": {"generation", "review", "reporting", *EDGE},
    "review": {"generation", "providers", "bias", "finetuning", "reporting", *EDGE},
    "reporting": {
        "generation",
        "providers",
        "validation",
        "bias",
        "training",
        "finetuning",
        "review",
        "registry",
        *EDGE,
    },
}
"""Room to the rooms it must not know."""
GROUND_FLOOR = {"errors", "settings", "files", "yamls", "hub", "texts"}
"""What rests on nothing but itself: all that `domains` and `providers` may know besides themselves."""
MAY_HOLD_A_PROVIDER = {"validation/judge.py"}
BELOW = {"errors", "settings", "files", "yamls", "parameters", "stats", "texts", ""}
HEAVY = {
    "torch", "transformers", "sentence_transformers", "datasets", "peft", "accelerate", "mlflow", "boto3", "botocore",
    "openai", "cleanlab", "weasyprint", "kaleido", "dask", "distributed", "xgboost", "lingua", "papermill", "nbclient",
    "huggingface_hub", "statsmodels", "skops", "gguf", "moto", "matplotlib",
}  # fmt: skip


@cache
def parsed(module: Path) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"))


def reached(node: ast.AST, top_level: bool) -> Iterator[ast.AST]:
    yield node
    hidden = node.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) else ()
    if not (top_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
        for child in ast.iter_child_nodes(node):
            if child not in hidden:
                yield from reached(child, top_level)


def imports(module: Path, *, top_level: bool = False) -> Iterator[str]:
    """Dotted names that a module imports; those for type checkers only are left out."""
    for node in reached(parsed(module), top_level):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.relative_to(PACKAGE.parent).with_suffix("").parts[: -node.level or None]
            base = ".".join((*package, node.module or "")) if node.level else node.module or ""
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def room(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def rooms_known_to(module: Path) -> set[str]:
    rooms = {p.name.removesuffix(".py") for p in PACKAGE.iterdir()}
    return {
        parts[1] for name in imports(module) if (parts := name.split("."))[0] == "genesis_lab" and len(parts) > 1
    } & rooms


@pytest.mark.parametrize("module", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_a_module_imports_only_from_the_rooms_it_may_know(module: Path) -> None:
    allowed = {"providers"} if module.relative_to(PACKAGE).as_posix() in MAY_HOLD_A_PROVIDER else set()
    assert not rooms_known_to(module) & FORBIDDEN.get(room(module), set()) - allowed


@pytest.mark.parametrize("name", ["domains", "providers"])
def test_domains_and_providers_rest_on_the_ground_floor_only(name: str) -> None:
    for module in (m for m in MODULES if room(m) == name):
        assert rooms_known_to(module) <= {name, *GROUND_FLOOR}, module.name


@pytest.mark.parametrize("module", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_heavy_packages_are_imported_where_they_are_needed(module: Path) -> None:
    assert not {name.split(".")[0] for name in imports(module, top_level=True)} & HEAVY


@pytest.mark.parametrize("module", [m for m in MODULES if m.name != "settings.py"], ids=lambda p: p.name)
def test_only_settings_reads_the_environment(module: Path) -> None:
    tree = parsed(module)
    written = {
        id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Subscript) and isinstance(n.ctx, ast.Store | ast.Del)
    }
    written |= {
        id(n.func.value) for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "os.environ.pop"
    }
    read = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n) in {"os.environ", "os.getenv"}]
    assert not [ast.unparse(n) for n in read if id(n) not in written]


def test_only_the_command_line_knows_every_room() -> None:
    for module in MODULES:
        if room(module) not in COMMANDS:
            assert not COMMANDS & rooms_known_to(module) and "typer" not in set(imports(module)), module.name


def test_the_package_names_no_notebook() -> None:
    names = [path.stem for path in (ROOT / "notebooks").glob("*.ipynb")]
    for module in MODULES:
        code = parsed(module)
        docs = {id(n.body[0].value) for n in ast.walk(code) if getattr(n, "body", None) and isinstance(n, ast.FunctionDef | ast.ClassDef | ast.Module) and isinstance(n.body[0], ast.Expr)}  # fmt: skip
        texts = [
            n.value
            for n in ast.walk(code)
            if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in docs
        ]
        assert not [name for name in names for text in texts if name in text], module.name


def modules_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "lib")
    return {name.split(".")[0] for name in found.stdout.splitlines()}


def test_importing_the_package_is_quick() -> None:
    assert not modules_after("import genesis_lab") & (
        HEAVY | {"numpy", "pandas", "pyarrow", "sklearn", "plotly", "pydantic", "typer"}
    )


def test_the_help_is_quick() -> None:
    show_help = "import genesis_lab.cli\ntry: genesis_lab.cli.main(['--help'])\nexcept SystemExit: pass"
    loaded = modules_after(show_help)
    assert not loaded & (
        HEAVY | {"numpy", "pandas", "pyarrow", "sklearn", "plotly", "duckdb", "nbformat", "pydantic_settings", "rich"}
    )


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs), "every line of the lock is name==version"
    return {canonicalize_name(name): number for name, number in pairs}


def test_the_lock_satisfies_everything_that_make_installs(project: dict, pins: dict[str, str]) -> None:
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["all"]]
    while wanted:
        requirement = Requirement(wanted.pop())
        if requirement.name == project["name"]:
            wanted += [each for extra in requirement.extras for each in extras[extra]]
        else:
            assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), str(requirement)


def test_floors_leave_room_above(project: dict) -> None:
    everything = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    assert {s.operator for r in everything for s in Requirement(r).specifier} <= {">="}


def test_the_lock_holds_versions_and_nothing_else() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in text and " @ " not in text and "--" not in text
    assert not re.search(r"^(nvidia|cuda|triton|xgboost==)", text, re.MULTILINE)
    assert locked(text.splitlines()) == text, "make lock writes it in this form"


def test_a_lock_leaves_out_builds_cuda_and_this_package() -> None:
    frozen = ["torch==2.13.0+cpu", "nvidia-nccl-cu12==2.21", "triton==3.1", "B==1", "a==2", "-e here", "x @ file:///y"]
    assert locked([*frozen, "genesis-lab==0.1.0"]).splitlines()[-3:] == ["a==2", "B==1", "torch==2.13.0"]


def test_conda_gets_the_same_python_and_the_same_lock(project: dict) -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, pip, rest = environment["dependencies"]
    assert (environment["name"], python, pip) == (project["name"], f"python{project['requires-python']}", "pip")
    assert rest["pip"] == ["-c requirements.lock", "-e .[all]"]


def test_data_files_are_part_of_the_package() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["genesis_lab"]
    data = [p for p in PACKAGE.rglob("*") if p.is_file() and p.suffix != ".py" and "__pycache__" not in p.parts]
    assert not [p.name for p in data if not any(p.match(pattern) for pattern in patterns)]


def test_a_path_under_outputs_is_read_back_from_wherever_it_was_shown_from(tmp_path, monkeypatch):
    from genesis_lab.files import output_root, resolve, shown
    from genesis_lab.settings import get_settings

    monkeypatch.setenv("GENESIS_OUTPUT_ROOT", str(tmp_path))
    get_settings.cache_clear()
    try:
        student = output_root() / "models" / "student"
        assert shown(student) == "outputs/models/student" and resolve(shown(student)) == student
        assert resolve("params/demo.yaml") == ROOT / "params" / "demo.yaml" and resolve(tmp_path) == tmp_path
    finally:
        get_settings.cache_clear()
