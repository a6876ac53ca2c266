"""What a user reads who gave a notebook a value it can't take: what to write instead, and that is then taken."""

from __future__ import annotations

import nbformat
import pytest
import yaml

from genesis_lab.errors import InvalidInput
from genesis_lab.parameters import Parameter, read_parameters
from genesis_lab.parameters import declared as declared_in


def declared(annotation: str) -> Parameter:
    cell = nbformat.v4.new_code_cell(f"x: {annotation} = None", metadata={"tags": ["parameters"]})
    return read_parameters(nbformat.v4.new_notebook(cells=[cell]), "10_make")["x"]


def from_yaml(annotation: str, written: str) -> str:
    with pytest.raises(InvalidInput) as caught:
        declared(annotation).check(yaml.safe_load(f"x: {written}")["x"], "10_make")
    return str(caught.value)


@pytest.mark.parametrize("annotation", ["str", "str | None", "Literal['no', '0123']", "list[str]", "dict[str, str]"])
@pytest.mark.parametrize("written", ["no", "0123", "1_000", "12", "1.50"])
def test_a_word_that_yaml_takes_for_something_else_is_to_be_quoted(annotation, written):
    inside = {"list[str]": f"[a, {written}]", "dict[str, str]": f"{{a: {written}}}"}.get(annotation, written)
    assert "quote" in from_yaml(annotation, inside)


@pytest.mark.parametrize(
    ("annotation", "written", "hint"),
    [
        ("int", "1e3", "write a whole number without quotes and _"),
        ("int | None", "'1000'", "write a whole number"),
        ("list[int]", "[1.5]", "write a whole number"),
        ("float", "1e-4", "with a dot before its exponent"),
        ("bool", "'yes'", "write true or false"),
        ("list[str]", "a", "a list is written [first, second]"),
        ("tuple[str, ...]", "a", "a list is written"),
        ("dict[str, float]", "[0.5]", "a mapping is written {name: value}"),
        ("str", "", "put words in quotes"),
    ],
)
def test_what_to_write_instead_is_said(annotation, written, hint):
    assert hint in from_yaml(annotation, written)


def test_a_value_on_the_command_line_is_read_by_type():
    for annotation, written, value in [
        ("str", "123", "123"),
        ("float", "1e-4", 1e-4),
        ("bool", "false", False),
        ("list[str]", '["a"]', ["a"]),
    ]:
        assert declared(annotation).parse(written, "10_make") == value
    with pytest.raises(InvalidInput, match="Parameter x of 10_make must be int, got 'many'"):
        declared("int").parse("many", "10_make")


def test_what_is_wrong_elsewhere_does_not_decide_what_to_write_here():
    sentence = from_yaml("dict[str, list[str]]", "{a: 3, b: [no]}")
    assert "x['a']" in sentence and "a list is written" in sentence and "quotes" not in sentence


def test_a_cell_that_can_not_be_executed_is_named():
    cell = nbformat.v4.new_code_cell("x: nonsense = 1", metadata={"tags": ["parameters"]})
    with pytest.raises(InvalidInput, match="The parameters cell of 10_make can't be read: NameError"):
        read_parameters(nbformat.v4.new_notebook(cells=[cell]), "10_make")


def test_a_comment_within_a_value_on_lines_of_its_own_is_its_help() -> None:
    source = 'judge: str = (\n    ""  # who scores a sample\n)\nn: int = 1  # how many\nplain: int = 2'
    assert {name: p.help for name, p in declared_in(source, "x").items()} == {
        "judge": "who scores a sample",
        "n": "how many",
        "plain": "",
    }
