"""What botocore's service models say a request must look like: routes, and checks of every body."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, unquote

OPERATIONS = {
    "bedrock-runtime": ("Converse", "InvokeModel", "CountTokens"),
    "bedrock": (
        "ListFoundationModels",
        "GetFoundationModel",
        "ListInferenceProfiles",
        "GetInferenceProfile",
        "CreateModelInvocationJob",
        "GetModelInvocationJob",
        "ListModelInvocationJobs",
        "StopModelInvocationJob",
    ),
}

Check = Callable[[Any, str], Iterator[str]]
"""Yields what is wrong with a value found at a path."""


@dataclass(frozen=True)
class Operation:
    """One operation of a service: how it is recognised and what its input must be."""

    name: str
    method: str
    route: re.Pattern[str]
    query: dict[str, str]
    """Name in the query string to member name."""
    raw_body: bool
    check: Check

    def parameters(self, path: str, query: str) -> dict[str, Any] | None:
        """Members that are in the path and the query string, or None if this is not the operation's path."""
        found = self.route.fullmatch(path)
        if found is None:
            return None
        values = {name: unquote(value) for name, value in found.groupdict().items()}
        return values | {self.query[k]: v for k, v in parse_qsl(query) if k in self.query}


@lru_cache(maxsize=1)
def operations() -> tuple[Operation, ...]:
    """The emulated operations, from the service models that boto3 itself uses."""
    from botocore.session import get_session

    session = get_session()
    found = []
    for service, names in OPERATIONS.items():
        model = session.get_service_model(service)
        for name in names:
            operation = model.operation_model(name)
            shape = operation.input_shape
            parts = re.split(r"\{(\w+)\}", operation.http["requestUri"])
            route = "".join(f"(?P<{p}>[^/]+)" if i % 2 else re.escape(p) for i, p in enumerate(parts))
            query = {
                m.serialization.get("name", n): n
                for n, m in shape.members.items()
                if m.serialization.get("location") == "querystring"
            }
            raw = shape.serialization.get("payload") is not None
            check = _structure(shape, body_only=True, skip=shape.serialization.get("payload"))
            found.append(Operation(name, operation.http["method"], re.compile(route), query, raw, check))
    return tuple(found)


def problem(operation: Operation, body: Any) -> str | None:
    """What the service would say about this body, or None."""
    errors = list(operation.check(body, ""))
    if not errors:
        return None
    return f"{len(errors)} validation error{'s' if len(errors) > 1 else ''} detected: " + "; ".join(errors)


def _wrong(path: str, value: Any, constraint: str) -> str:
    return f"Value '{str(value)[:80]}' at '{path}' failed to satisfy constraint: {constraint}"


def _check_of(shape: Any) -> Check:
    """The check of a shape, made when it is first needed (shapes may contain themselves)."""
    made: list[Check] = []

    def check(value: Any, path: str) -> Iterator[str]:
        if not made:
            made.append(_made(shape))
        return made[0](value, path)

    return check


def _made(shape: Any) -> Check:
    if shape.type_name == "structure":
        return _anything if shape.metadata.get("document") else _structure(shape)
    if shape.type_name == "list":
        return _list(shape)
    if shape.type_name == "map":
        return _map(shape)
    return _scalar(shape)


def _anything(value: Any, path: str) -> Iterator[str]:
    return iter(())


def _structure(shape: Any, *, body_only: bool = False, skip: str | None = None) -> Check:
    members = {
        m.serialization.get("name", n): (n, _check_of(m))
        for n, m in shape.members.items()
        if n != skip and not (body_only and m.serialization.get("location"))
    }
    required = {k for k, (n, _) in members.items() if n in shape.required_members}
    union = bool(shape.metadata.get("union"))

    def check(value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield _wrong(path, value, "Member must be a structure")
            return
        for name in required - value.keys():
            yield _wrong(f"{path}.{name}".lstrip("."), None, "Member must not be null")
        if union and len(value) != 1:
            yield _wrong(path, sorted(value), "Exactly one member of the union must be set")
        for name, part in value.items():
            if name not in members:
                yield _wrong(f"{path}.{name}".lstrip("."), part, "Member is not known to the service")
            elif part is not None:
                yield from members[name][1](part, f"{path}.{name}".lstrip("."))

    return check


def _list(shape: Any) -> Check:
    member = _check_of(shape.member)
    low, high = shape.metadata.get("min", 0), shape.metadata.get("max")

    def check(value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, list):
            yield _wrong(path, value, "Member must be a list")
            return
        if len(value) < low or (high is not None and len(value) > high):
            yield _wrong(path, f"{len(value)} members", f"Member must have length from {low} to {high}")
        for index, part in enumerate(value):
            yield from member(part, f"{path}.{index}")

    return check


def _map(shape: Any) -> Check:
    key, member = _check_of(shape.key), _check_of(shape.value)
    low, high = shape.metadata.get("min", 0), shape.metadata.get("max")

    def check(value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield _wrong(path, value, "Member must be a map")
            return
        if len(value) < low or (high is not None and len(value) > high):
            yield _wrong(path, f"{len(value)} entries", f"Member must have length from {low} to {high}")
        for name, part in value.items():
            yield from key(name, path)
            yield from member(part, f"{path}.{name}")

    return check


_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "blob": (str,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "boolean": (bool,),
    "timestamp": (str, int, float),
}


def _scalar(shape: Any) -> Check:
    kinds, meta = _TYPES[shape.type_name], shape.metadata
    low, high = meta.get("min"), meta.get("max")
    enum = set(meta.get("enum", ()))
    pattern = re.compile(meta["pattern"]) if "pattern" in meta else None
    is_text = kinds == (str,)

    def check(value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            yield _wrong(path, value, f"Member must be a {shape.type_name}")
            return
        size = len(value) if is_text else value
        if low is not None and size < low:
            yield _wrong(path, value, f"Member must have {'length' if is_text else 'value'} of at least {low}")
        if high is not None and size > high:
            yield _wrong(path, value, f"Member must have {'length' if is_text else 'value'} of at most {high}")
        if enum and value not in enum:
            yield _wrong(path, value, f"Member must satisfy enum value set: {sorted(enum)}")
        if pattern and not pattern.fullmatch(value):
            yield _wrong(path, value, f"Member must satisfy regular expression pattern: {pattern.pattern}")

    return check
