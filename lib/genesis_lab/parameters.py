"""A notebook's parameters: read from the annotations of its ``parameters`` cell, and held against what a user gives."""

from __future__ import annotations

import ast
import io
import json
import math
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, Literal, Optional, TypeVar, Union

from pydantic import BaseModel, TypeAdapter, ValidationError

from genesis_lab.errors import InvalidInput
from genesis_lab.secret_values import credentials_in, found_in, looks_secret, secret_names

_TYPES: dict[str, Any] = {
    "int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": dict, "tuple": tuple, "set": set,
    "None": None, "Any": Any, "Path": Path, "Literal": Literal, "Optional": Optional, "Union": Union,
    "List": list, "Dict": dict, "Tuple": tuple,
}  # fmt: skip


@dataclass(frozen=True)
class Parameter:
    """One line of a ``parameters`` cell: ``seed: int = 42  # same seed, same plan``."""

    name: str
    annotation: str
    type: Any
    default: Any
    help: str

    def check(self, value: Any, where: str) -> None:
        """Raise `InvalidInput` unless `value`, as YAML or JSON read it, is of the annotated type; nothing is converted.

        Parameters
        ----------
        where : what the value is for, as the message should name it (a notebook).
        """
        for name in secret_names(value):
            raise InvalidInput(_secret_refused(f"{self.name}.{name}", where))
        if credentials_in(str(value)):
            raise InvalidInput(
                f"Parameter {self.name} of {where} holds an address with user and password, which would end in files that "
                "are shared: leave them out, secrets come from the environment only."
            )
        try:
            text = json.dumps(value)
            TypeAdapter(self.type).validate_json(text, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            place = "".join(f"[{part!r}]" for part in first["loc"] if isinstance(part, int) or part in _keys(value))
            wanted = {str(other["type"]) for other in error.errors() if other["input"] == first["input"]}
            hint = _hint(first["input"], wanted, self.type)
            raise InvalidInput(
                f"Parameter {self.name}{place} of {where} must be {self.annotation}, got {value!r}"
                f"{hint or ': ' + first['msg'][0].lower() + first['msg'][1:]}."
            ) from None
        except (TypeError, ValueError):
            raise InvalidInput(f"Parameter {self.name} of {where} must be {self.annotation}, got {value!r}.") from None
        if names := found_in(text):
            raise InvalidInput(
                f"Parameter {self.name} of {where} holds the value of {names[0]}: secrets come from the environment only."
            )

    def parse(self, text: str, where: str) -> Any:
        """The value of a command-line ``name=text``: JSON where that fits the annotation, else the text itself."""
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        try:
            self.check(value, where)
        except InvalidInput:
            try:
                self.check(text, where)
            except InvalidInput:
                pass
            else:
                return text
            raise
        return value


def read_parameters(notebook: Any, where: str) -> dict[str, Parameter]:
    """The parameters that `notebook` (an nbformat node) declares, in order; empty without a tagged cell.

    Raises
    ------
    InvalidInput : the cell is not plain assignments, an annotation is unknown, or a name looks like a secret's.
    """
    tagged = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", ())]
    if not tagged:
        return {}
    source = tagged[0].source
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise InvalidInput(f"The parameters cell of {where} is not valid Python: {error.msg}.") from None
    comments = _trailing_comments(source)
    found = {}
    for statement in statements:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name, annotation = statement.target.id, ast.unparse(statement.annotation)
            default = _literal(statement.value)
            kind = _type_of(statement.annotation, name, where)
        elif (
            isinstance(statement, ast.Assign)
            and len(statement.targets) == 1
            and isinstance(statement.targets[0], ast.Name)
        ):
            name, default = statement.targets[0].id, _literal(statement.value)
            kind = Any if default is None else type(default)
            annotation = getattr(kind, "__name__", "Any")
        else:
            continue
        if looks_secret(name):
            raise InvalidInput(_secret_refused(name, where))
        found[name] = Parameter(name, annotation, kind, default, comments.get(statement.end_lineno or 0, ""))
    return found


def _secret_refused(name: str, where: str) -> str:
    return f"Parameter {name} of {where} looks like a secret: secrets come from the environment only, remove it."


def _type_of(node: ast.expr, name: str, where: str) -> Any:
    """The type an annotation stands for; only plain types and their unions are known, nothing is evaluated."""
    match node:
        case ast.Constant(value=None):
            return None
        case ast.Constant(value=str(text)):
            return _type_of(ast.parse(text, mode="eval").body, name, where)
        case ast.Name(id=known) | ast.Attribute(attr=known) if known in _TYPES:
            return _TYPES[known]
        case ast.BinOp(op=ast.BitOr(), left=left, right=right):
            return reduce(or_, (_type_of(side, name, where) or type(None) for side in (left, right)))
        case ast.Subscript(value=ast.Name(id="Literal") | ast.Attribute(attr="Literal"), slice=values):
            return Literal[ast.literal_eval(values)]
        case ast.Subscript(value=outer, slice=ast.Tuple(elts=inner)):
            return _type_of(outer, name, where)[tuple(_inner(each, name, where) for each in inner)]
        case ast.Subscript(value=outer, slice=inner):
            return _type_of(outer, name, where)[_type_of(inner, name, where)]
    raise InvalidInput(
        f"Parameter {name} of {where} is annotated {ast.unparse(node)}, which can't be checked: "
        "use int, float, str, bool, list, dict, Literal or a union of them."
    )


def _inner(node: ast.expr, name: str, where: str) -> Any:
    return ... if isinstance(node, ast.Constant) and node.value is ... else _type_of(node, name, where)


def _literal(node: ast.expr | None) -> Any:
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None


def _trailing_comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ").strip() for t in tokens if t.type == tokenize.COMMENT}


def _keys(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, dict) else ()


def _hint(value: Any, wanted: set[str], kind: Any) -> str | None:
    """What to write instead of `value`, refused by pydantic's errors `wanted`; never what would be refused again."""
    text = bool(wanted & {"string_type", "literal_error"})
    if isinstance(value, bool):
        word = "yes" if value else "no"
        why = f": YAML reads yes, no, on and off as true and false, so quote the word ('{word}')" if text else ""
        return f" (a boolean){why}"
    if isinstance(value, int | float) and text:
        return (
            f" (a number): YAML reads digits as a number, 0123 even as an octal one, so put them in quotes ('{value}')"
        )
    if value is None and text:
        return " (nothing): an empty text is written ''"
    if isinstance(value, str) and "bool_type" in wanted:
        return " (text): write true or false without quotes"
    if isinstance(value, str | float) and wanted & {"int_type", "float_type", "int_from_float"}:
        number = _number(value, "float_type" not in wanted)
        why = ": YAML reads a number without a dot before its exponent, or in quotes, as text, so" if number else ""
        if isinstance(value, str):
            return f" (text){why and f'{why} write {number}'}"
        return f": write {number}" if number else None
    if wanted & {"list_type", "tuple_type", "set_type"}:
        example = _as_list(value, kind)
        return f": write {example}" if example else ": a list is written [first, second, …]"
    if "dict_type" in wanted:
        return ": a mapping is written {name: value, …}"
    return None


def _number(value: str | float, whole: bool) -> str | None:
    """`value` as YAML and JSON read a number, None for what is none (or, if it must be `whole`, not an integer)."""
    try:
        if whole and isinstance(value, str) and value.strip().lstrip("+-").replace("_", "").isdigit():
            return str(int(value))
        number = float(value)
    except ValueError:
        return None
    if not math.isfinite(number) or (whole and not number.is_integer()):
        return None
    mantissa, e, exponent = repr(number).partition("e")
    return (
        str(int(number))
        if whole
        else f"{mantissa if '.' in mantissa else mantissa + '.0'}e{exponent}"
        if e
        else mantissa
    )


def _as_list(value: Any, kind: Any) -> str | None:
    """A list of `value`, or of its parts between commas, if it is what `kind` takes."""
    parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else [value]
    for text in (f"[{', '.join(map(str, parts))}]", json.dumps(parts, ensure_ascii=False)):
        try:
            TypeAdapter(kind).validate_json(text, strict=True)
        except ValidationError:
            continue
        return text
    return None


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
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        got = "" if first["type"] == "value_error" else f", got {first['input']!r}"
        raise InvalidInput(f"{place + ': ' if place else ''}{message}{got}.") from None
