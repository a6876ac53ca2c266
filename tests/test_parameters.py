"""What a user reads who gave a notebook a value it can't take: what to write instead, and that is then taken."""

from __future__ import annotations

import re

import nbformat
import pytest
import yaml

from genesis_lab.errors import InvalidInput
from genesis_lab.parameters import Parameter, read_parameters


def declared(annotation: str) -> Parameter:
    cell = nbformat.v4.new_code_cell(f"x: {annotation} = None", metadata={"tags": ["parameters"]})
    return read_parameters(nbformat.v4.new_notebook(cells=[cell]), "10_make")["x"]


def from_yaml(annotation: str, written: str) -> str:
    with pytest.raises(InvalidInput) as caught:
        declared(annotation).check(yaml.safe_load(f"x: {written}")["x"], "10_make")
    return str(caught.value)


def from_command_line(annotation: str, written: str) -> str:
    with pytest.raises(InvalidInput) as caught:
        declared(annotation).parse(written, "10_make")
    return str(caught.value)


@pytest.mark.parametrize("annotation", ["str", "str | None", "Literal['no', '0123']", "list[str]", "dict[str, str]"])
@pytest.mark.parametrize("written", ["no", "0123", "1_000", "12", "1.50"])
def test_a_word_that_yaml_takes_for_something_else_is_to_be_quoted(annotation, written):
    inside = {"list[str]": f"[a, {written}]", "dict[str, str]": f"{{a: {written}}}"}.get(annotation, written)
    assert "quote" in from_yaml(annotation, inside)


@pytest.mark.parametrize("annotation", ["int", "float", "int | None", "list[int]"])
@pytest.mark.parametrize("written", ["1_000", "1e3", "'1000'", "'0123'", "1.0e3"])
def test_the_number_that_is_suggested_is_taken(annotation, written):
    value = yaml.safe_load(f"x: {written}")["x"]
    if annotation == "list[int]":
        written, value = f"[{written}]", [value]
    try:
        declared(annotation).check(value, "10_make")
    except InvalidInput as error:
        suggested = re.search(r"write (\S+?)\.?$", str(error))
        assert suggested, str(error)
        number = yaml.safe_load(suggested[1])
        declared(annotation).check([number] if annotation == "list[int]" else number, "10_make")
        assert number in (1000, 123)


@pytest.mark.parametrize("annotation", ["int", "float", "int | None"])
@pytest.mark.parametrize("written", ["1_000", "0123", "+7"])
def test_a_number_on_the_command_line_is_suggested_so_that_it_is_taken(annotation, written):
    sentence = from_command_line(annotation, written)
    suggested = re.search(r"write (\S+?)\.?$", sentence)
    assert suggested, sentence
    assert declared(annotation).parse(suggested[1], "10_make") == float(written.replace("_", ""))


@pytest.mark.parametrize(
    ("annotation", "written", "example"),
    [
        ("list[str]", "tfidf+sgd", '["tfidf+sgd"]'),
        ("list[str]", "a, b", '["a", "b"]'),
        ("list[float]", "0.5,1", "[0.5, 1]"),
        ("list[int] | None", "3", "[3]"),
        ("tuple[str, ...]", "a", '["a"]'),
    ],
)
def test_what_must_be_a_list_is_shown_as_one(annotation, written, example):
    for sentence in (from_command_line(annotation, written), from_yaml(annotation, written)):
        assert f"write {example}" in sentence
    assert declared(annotation).parse(example, "10_make") == yaml.safe_load(example)


def test_what_must_be_a_mapping_is_shown_as_one():
    assert "{name: value, …}" in from_yaml("dict[str, float]", "[0.5]")


@pytest.mark.parametrize(
    ("annotation", "written"), [("int", "many"), ("float", "'nan'"), ("int", "1.5"), ("bool", "3")]
)
def test_where_nothing_can_be_suggested_nothing_is(annotation, written):
    assert "write" not in from_yaml(annotation, written)


def test_an_empty_value_is_no_text():
    assert "''" in from_yaml("str", "")
    assert "''" not in from_yaml("int", "")


def test_what_is_wrong_elsewhere_does_not_decide_what_to_write_here():
    sentence = from_yaml("dict[str, list[str]]", "{a: 3, b: [no]}")
    assert "x['a']" in sentence and "a list is written" in sentence and "quotes" not in sentence
