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
    try:
        from yaml import CSafeLoader as SafeLoader  # reads the grammar twenty times faster
    except ImportError:
        from yaml import SafeLoader  # type: ignore[assignment]  # a build without libyaml
    loader = SafeLoader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def read_yaml(path: Path) -> Any:
    """The content of a YAML file, by `parse_yaml`, its texts in their normal form; `InvalidInput` with line and column if it can't be read."""
    from yaml import YAMLError

    try:
        return normal(parse_yaml(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise InvalidInput(f"There is no file {path.name}: give the path of a YAML file.") from None
    except (YAMLError, UnicodeDecodeError) as error:
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
