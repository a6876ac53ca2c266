"""The one reader and writer of YAML."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from genesis_lab.errors import InvalidInput
from genesis_lab.texts import normal


def parse_yaml(text: str) -> Any:
    """What a YAML text says, constructed by the safe loader; ``yaml.YAMLError`` if it is none."""
    import yaml

    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  (libyaml, where it is)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file, its texts in their normal form and dates as texts, no key given twice.

    Raises
    ------
    InvalidInput : it can't be read; with line and column.
    """
    from yaml import YAMLError, load

    try:
        return normal(load(path.read_text(encoding="utf-8"), Loader=_strict_loader()))  # noqa: S506  (a safe loader)
    except FileNotFoundError:
        raise InvalidInput(f"There is no file {path.name}: give the path of a YAML file.") from None
    except (YAMLError, UnicodeDecodeError, OSError) as error:
        raise InvalidInput(f"{path.name} is not valid YAML: {' '.join(str(error).split())}") from None


@cache
def shipped(path: Path) -> Any:
    """The content of a YAML file of the package, read once and not to be changed."""
    return read_yaml(path)


def dump_yaml(value: Any) -> str:
    """`value` as YAML in the order it has, one line a text, as people write it: plain, or in double quotes."""
    from yaml import dump

    return str(dump(value, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=10**6))


@cache
def _strict_loader() -> Any:
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # chosen at run time
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
            keys = [self.construct_object(key, deep=True) for key in own]
            if twice := [key for key in keys if keys.count(key) > 1]:
                raise yaml.constructor.ConstructorError(None, None, f"it gives {twice[0]!r} twice", node.start_mark)
            return super().construct_mapping(node, deep)

    resolvers = Loader.yaml_implicit_resolvers.items()  # dates stay texts, as papermill reads them
    Loader.yaml_implicit_resolvers = {k: [r for r in v if "timestamp" not in r[0]] for k, v in resolvers}
    return Loader


@cache
def _dumper() -> Any:
    from yaml import SafeDumper

    class Dumper(SafeDumper):  # type: ignore[misc]  # untyped
        def ignore_aliases(self, data: Any) -> bool:
            return True

        def choose_scalar_style(self) -> str:
            style = super().choose_scalar_style()  # type: ignore[no-untyped-call]
            return '"' if style in ("'", "|", ">") else style

    return Dumper


_digests: dict[Path, str] = {}


def file_digests(*paths: Path) -> dict[str, str]:
    """A digest of each of these files of the package, by name.

    Raises
    ------
    InvalidInput : one was edited since this process first looked: what was read of it before is still in use.
    """
    found = {path: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in sorted(paths)}
    for path, digest in found.items():
        if _digests.setdefault(path, digest) != digest:
            raise InvalidInput(f"{path.name} was edited while it was in use: restart the kernel or the program.")
    return {path.name: digest for path, digest in found.items()}
