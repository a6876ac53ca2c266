"""What the modules of the command `genesis` share: a group of commands, options as pairs, lines of a list."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer
from typer import Option, echo

from genesis_lab.errors import InvalidInput

Replace = Annotated[bool, Option("--replace", help="Replace what is there.")]


def group(help_text: str) -> typer.Typer:
    return typer.Typer(
        help=help_text,
        no_args_is_help=True,
        rich_markup_mode=None,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


def lines(things: Iterable[object], limit: int | None = None, of: int = 0) -> None:
    """A line for each, at most `limit` where it is given, and how many `of` them all are not shown."""
    shown = [str(thing) for thing in things][:limit]
    for line in shown:
        echo(line)
    if limit is not None and of > len(shown):
        echo(f"  … and {of - len(shown):,} more")


def pairs(options: list[str]) -> dict[str, str]:
    """``["a=1"]`` as ``{"a": "1"}``."""
    pairs = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or not name:
            raise InvalidInput(f"A parameter must be given as name=value, got {option!r}.")
        pairs[name.strip()] = value
    return pairs
