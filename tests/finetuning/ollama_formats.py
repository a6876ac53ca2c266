"""What Ollama reads, as documented: the grammar of a Modelfile, and what our templates use of Go's text/template."""

from __future__ import annotations

import re

INSTRUCTIONS = {"FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "ADAPTER", "LICENSE", "MESSAGE"}
PARAMETERS = {
    "num_ctx": int,
    "repeat_last_n": int,
    "repeat_penalty": float,
    "temperature": float,
    "seed": int,
    "stop": str,
    "num_predict": int,
    "top_k": int,
    "top_p": float,
    "min_p": float,
}


def parse_modelfile(text: str) -> list[tuple[str, str]]:
    """Its instructions; raises `ValueError` at what docs.ollama.com/modelfile does not allow."""
    found, place = [], 0
    while place < len(text):
        if blank := re.match(r"[ \t]*(#[^\n]*)?(\n|\Z)", text[place:]):
            place += blank.end() or 1
            continue
        match = re.match(r"([A-Za-z]+)[ \t]+", text[place:])
        if not match or match[1].upper() not in INSTRUCTIONS:
            raise ValueError(f"no instruction at {text[place : place + 40]!r}")
        name, place = match[1].upper(), place + match.end()
        if name == "PARAMETER":
            key = re.match(r"(\w+)[ \t]+", text[place:])
            if not key or key[1] not in PARAMETERS:
                raise ValueError(f"unknown parameter at {text[place : place + 40]!r}")
            name, place = f"PARAMETER {key[1]}", place + key.end()
        value = re.match(
            r'"""(.*?)"""[ \t]*(?:\n|\Z)|"([^"\n]*)"[ \t]*(?:\n|\Z)|([^\s"][^\n]*)(?:\n|\Z)', text[place:], re.S
        )
        if not value:
            raise ValueError(f"{name}: unclosed or empty value at {text[place : place + 40]!r}")
        argument = next(group for group in value.groups() if group is not None)
        if name.startswith("PARAMETER"):
            PARAMETERS[name.split()[1]](argument)
        found.append((name, argument))
        place += value.end()
    if [name for name, _ in found].count("FROM") != 1:
        raise ValueError("exactly one FROM is required")
    return found


def render_go(template: str, messages: list[dict[str, str]]) -> str:
    """The prompt that Ollama makes of `messages`: its collating, then the template."""
    collated: list[dict[str, str]] = []
    for message in messages:
        if collated and collated[-1]["role"] == message["role"]:
            collated[-1] = message | {"content": f"{collated[-1]['content']}\n\n{message['content']}"}
        else:
            collated.append(message)
    system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
    root = {"System": system, "Messages": [{"Role": m["role"], "Content": m["content"]} for m in collated]}
    pieces = re.split(r"\{\{ (.*?) \}\}", template)
    nodes, rest = _block(pieces, 0)
    assert rest == len(pieces)
    return _run(nodes, root, {"$": root})


def _block(pieces, i):
    """Nodes up to the `else` or `end` that closes the block; odd pieces are actions."""
    nodes = []
    while i < len(pieces):
        piece = pieces[i]
        if i % 2 == 0:
            nodes.append(("text", piece))
        elif piece == "end" or piece.startswith("else"):
            return nodes, i
        elif piece.split()[0] in ("if", "range"):
            kind, _, condition = piece.partition(" ")
            branches = []
            while True:
                inner, i = _block(pieces, i + 1)
                branches.append((condition, inner))
                if pieces[i] == "end":
                    break
                condition = pieces[i].removeprefix("else").strip().removeprefix("if ").strip() or None
            nodes.append((kind, branches))
        else:
            nodes.append(("action", piece))
        i += 1
    return nodes, i


def _run(nodes, dot, scope) -> str:
    text = ""
    for kind, node in nodes:
        if kind == "text":
            text += node
        elif kind == "action" and (bound := re.fullmatch(r"(\$\w+) :?= (.+)", node)):
            scope[bound[1]] = _value(bound[2], dot, scope)
        elif kind == "action":
            text += _value(node, dot, scope)
        elif kind == "if":
            chosen = next((b for condition, b in node if condition is None or _value(condition, dot, scope)), [])
            text += _run(chosen, dot, scope)
        else:
            ((over, body),) = node
            names, _, source = over.rpartition(" := ")
            for i, item in enumerate(_value(source, dot, scope)):
                if names:
                    index, element = names.split(", ")
                    scope |= {index: i, element: item}
                text += _run(body, item, scope)
    return text


def _value(expression, dot, scope):
    tokens = re.findall(r'"[^"]*"|\(|\)|[^\s()]+', expression)
    value, rest = _call(tokens, dot, scope)
    assert not rest, rest
    return value


def _call(tokens, dot, scope):
    values = []
    while tokens and tokens[0] != ")":
        token, tokens = tokens[0], tokens[1:]
        if token == "(":
            value, tokens = _call(tokens, dot, scope)
            values.append(value)
            tokens = tokens[1:]
        elif token.startswith('"'):
            values.append(token[1:-1])
        elif token.isdigit():
            values.append(int(token))
        elif token.startswith("."):
            values.append(dot[token[1:]])
        elif token.startswith("$"):
            name, _, field = token.partition(".")
            values.append(scope[name][field] if field else scope[name])
        else:
            values.append(
                {"eq": lambda a, b: a == b, "and": lambda a, b: a and b, "len": len, "slice": lambda a, i: a[i:]}[token]
            )
    return (values[0](*values[1:]) if callable(values[0]) else values[0]), tokens
