"""No circle between modules, and no domain known by name outside ``domains/``: read off the code."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest
from pydantic import BaseModel

from genesis_lab.domains import DOMAINS, get_domain
from genesis_lab.domains.base import Domain

PACKAGE = Path(__file__).resolve().parent.parent / "lib" / "genesis_lab"
MODULES = {
    ".".join(part for part in path.relative_to(PACKAGE.parent).with_suffix("").parts if part != "__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
COMMON = {"text", "language", "split", "category", "context", "country", "description", "length", "missing", "resolution",
          "scale", "seed", "start", "target", "unit"}  # fmt: skip
"""Words that are a domain's column and much else: a column of Banking77's files, a kind of axis, a bias check's target."""
OF_RASA = {"intent"}
"""A domain's column that is also a word of Rasa's, whose messages are what `review` is about."""
LEFT = {}
"""What is still to be mended: module to what it knows of one domain. What has been mended leaves the list."""


def imported(name: str, path: Path) -> Iterator[str]:
    """The modules of the package that one imports anywhere, for type checkers too."""
    package = [*name.split("."), ""][: -1 if path.name == "__init__.py" else -2]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (full if (full := f"{base}.{alias.name}") in MODULES else base for alias in node.names)


def test_no_circle_of_modules() -> None:
    TopologicalSorter(
        {name: {*imported(name, path)} & MODULES.keys() - {name} for name, path in MODULES.items()}
    ).prepare()


@cache
def own_columns() -> set[str]:
    """Names of columns that exactly one domain has."""
    owners = Counter(name for domain in DOMAINS for name in get_domain(domain).record_type.model_fields)
    return {name for name, n in owners.items() if n == 1} - COMMON


def forks(path: Path) -> set[str]:
    """What a module knows of one domain, as it stands in its code."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    columns = own_columns() - (OF_RASA if "review" in path.parts else set())
    classes = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("genesis_lab.domains")
        for alias in node.names
        if isinstance(kind := getattr(import_module(node.module or ""), alias.name, None), type)
        and issubclass(kind, Domain | BaseModel)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare | ast.MatchValue):
            sides = [node.value] if isinstance(node, ast.MatchValue) else [node.left, *node.comparators]
            sides += [one for side in sides for one in getattr(side, "elts", ())]
            found |= {f"== {one.value}" for one in sides if isinstance(one, ast.Constant) and one.value in [*DOMAINS]}
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"isinstance", "issubclass"}:
            asked = {one.id for one in ast.walk(node.args[1]) if isinstance(one, ast.Name)}
            found |= {f"isinstance {name}" for name in asked & classes}
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in columns:
            found.add(node.value)
    return found


@pytest.mark.parametrize("code", [
    "if domain.name == 'vision': pass",
    "if name in ('requirements', 'x'): pass",
    "match name:\n    case 'conversations': pass",
    "from genesis_lab.domains.vision import Vision\nisinstance(x, Vision)",
    "from genesis_lab.domains.conversations.domain import ConversationsConfig as C\nisinstance(x, (int, C))",
    "frame['intent']",
])  # fmt: skip
def test_a_fork_is_seen(tmp_path: Path, code: str) -> None:
    (module := tmp_path / "module.py").write_text(code)
    assert forks(module)


def test_outside_domains_nobody_knows_one_domain_by_name() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix(): known
        for path in MODULES.values()
        if "domains" not in path.relative_to(PACKAGE).parts and (known := forks(path))
    }
    assert found == LEFT, "ask the domain's facets instead; what has been mended leaves the list"
