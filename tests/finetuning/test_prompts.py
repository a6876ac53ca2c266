import pytest

from genesis_lab.domains.base import Example
from genesis_lab.errors import InvalidInput
from genesis_lab.finetuning.ask import Demonstration, PromptProgram, load_program

EXAMPLE = Example("r1", "g1", "es", "Eres analista.", "Concepto: riego", "title: Riego")


def test_an_empty_program_asks_as_the_example_was_taught():
    program = PromptProgram()
    assert program.system(EXAMPLE) == "Eres analista."
    assert program.messages(EXAMPLE) == (("user", "Concepto: riego"),)


def test_demonstrations_come_first_in_the_examples_language_and_never_give_the_answer_away():
    program = PromptProgram(
        "Write YAML.",
        tuple(
            Demonstration(*each)
            for each in (("Q", "A"), ("P", "R", "es"), ("X", "Y", "en"), (EXAMPLE.question, "secret"))
        ),
    )
    roles = [role for role, _ in program.messages(EXAMPLE)]
    assert roles == ["user", "assistant", "user", "assistant", "user"]
    assert "secret" not in str(program.messages(EXAMPLE)) and "Y" not in str(program.messages(EXAMPLE))
    assert program.system(EXAMPLE) == "Write YAML."
    assert PromptProgram("Write YAML.", translations={"es": "Escribe YAML."}).system(EXAMPLE) == "Escribe YAML."


def test_a_program_comes_back_from_its_file_as_it_was(tmp_path):
    program = PromptProgram("Escríbelo: «ñ»", (Demonstration("q\n1", "a: 1", "es"),), {"en": "Write."})
    program.save(tmp_path / "prompt.json")
    assert load_program(tmp_path) == program


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"kind": "prompt_program"}', '{"kind": "prompt_program", "demonstrations": 3}']
)
def test_a_file_that_is_no_program_is_refused_in_one_sentence(tmp_path, text):
    (tmp_path / "prompt.json").write_text(text)
    with pytest.raises(InvalidInput, match="is no prompt"):
        load_program(tmp_path / "prompt.json")


def test_a_missing_program_is_named(tmp_path):
    with pytest.raises(InvalidInput, match="There is no prompt"):
        load_program(tmp_path)
