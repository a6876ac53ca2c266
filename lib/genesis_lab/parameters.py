"""A notebook's parameters: what its ``parameters`` cell declares, and what a user gives held against it by pydantic."""

from __future__ import annotations

import ast
import json
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from genesis_lab.errors import InvalidInput, expected, sentence
from genesis_lab.settings import credentials_in, found_in, looks_secret, secret_names

FROM_ENVIRONMENT = "secrets come from the environment only"


@dataclass(frozen=True)
class Parameter:
    """One line of a ``parameters`` cell: ``seed: int = 42  # same seed, same plan``."""

    name: str
    annotation: str
    type: Any
    default: Any
    help: str

    def check(self, value: Any, where: str) -> None:
        """Raise `InvalidInput` unless `value`, as YAML or JSON read it, is of the annotated type."""
        text, subject = json.dumps(value, default=str), f"Parameter {self.name} of {where}"
        for name in secret_names(value):
            raise InvalidInput(_secret_refused(f"{self.name}.{name}", where))
        if credentials_in(str(value)):
            said = f"{subject} holds an address with user and password"
            raise InvalidInput(f"{said}: leave them out, {FROM_ENVIRONMENT}.")
        if names := found_in(text):
            raise InvalidInput(f"{subject} holds the value of {names[0]}: {FROM_ENVIRONMENT}.")
        try:
            TypeAdapter(self.type).validate_json(text, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            inside = [p for p in first["loc"] if isinstance(p, int) or (isinstance(value, dict) and p in value)]
            subject = f"Parameter {self.name}{''.join(f'[{p!r}]' for p in inside)} of {where}"
            hint = expected("hint", first["type"]) or first["msg"]
            raise InvalidInput(f"{subject} must be {self.annotation}, got {value!r}: {hint}.") from None

    def parse(self, text: str, where: str) -> Any:
        """The value of a command-line ``name=text``: JSON where that fits the annotation, the text itself, or a list
        ``a,b`` or mapping ``a=1,b=2`` of such."""
        entries = [entry.strip() for entry in text.split(",") if entry.strip()]
        pairs = [entry.partition("=")[::2] for entry in entries]
        readings = [_plain(text), text, [_plain(entry) for entry in entries], entries]
        readings += [{name.strip(): _plain(value.strip()) for name, value in pairs}] if "=" in text else []
        value = next((reading for reading in readings if _takes(self.type, reading)), readings[0])
        self.check(value, where)
        return value


def read_parameters(notebook: Any, where: str) -> dict[str, Parameter]:
    """The parameters that `notebook` (an nbformat node) declares, in order; empty without a tagged cell.

    The cell is executed, as it is whenever the notebook runs.

    Raises
    ------
    InvalidInput : the cell can't be executed, or a name looks like a secret's.
    """
    return declared(next((c.source for c in notebook.cells if "parameters" in c.metadata.get("tags", ())), ""), where)


def declared(source: str, where: str) -> dict[str, Parameter]:
    """The parameters that the source of a cell declares; raises as `read_parameters`."""
    cell = ModuleType("parameters")
    cell.__dict__.update({name: getattr(typing, name) for name in typing.__all__}, Path=Path)
    try:
        statements = ast.parse(source).body
        exec(source, cell.__dict__)  # noqa: S102  (papermill would execute it a moment later)
        types = typing.get_type_hints(cell)
    except Exception as error:
        raise InvalidInput(f"The parameters cell of {where} can't be read: {type(error).__name__}: {error}.") from None
    lines, found = source.splitlines(), {}
    for statement in statements:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=node):
                annotation = ast.unparse(node)
            case ast.Assign(targets=[ast.Name(id=name)]):
                annotation = type(getattr(cell, name)).__name__
            case _:
                continue
        if looks_secret(name):
            raise InvalidInput(_secret_refused(name, where))
        default = getattr(cell, name, None)
        rest = lines[(statement.end_lineno or 1) - 1].encode()[statement.end_col_offset or 0 :].decode()
        within = re.search(r"# (.+)", "\n".join(lines[statement.lineno - 1 : statement.end_lineno]))
        rest = rest if "#" in rest or within is None else within[1]  # of a value in brackets, on lines of its own
        found[name] = Parameter(name, annotation, types.get(name, type(default)), default, rest.lstrip(" #").strip())
    return found


def _secret_refused(name: str, where: str) -> str:
    return f"Parameter {name} of {where} looks like a secret: {FROM_ENVIRONMENT}, remove it."


def _plain(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _takes(kind: Any, value: Any) -> bool:
    try:
        TypeAdapter(kind).validate_json(json.dumps(value), strict=True)
    except ValidationError:
        return False
    return True


Model = TypeVar("Model", bound=BaseModel)


def from_parameters(model: type[Model], namespace: Mapping[str, Any]) -> Model:
    """The configuration that a notebook's parameters make: each field is taken from the variable of its name.

    Raises
    ------
    InvalidInput : a value is impossible; one sentence with the field, the value and what was expected.
    """
    try:
        return model(**{name: namespace[name] for name in model.model_fields if name in namespace})
    except ValidationError as error:
        raise InvalidInput(sentence(error)) from None
