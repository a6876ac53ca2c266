"""What a notebook shows of an error and of an interrupt: one sentence, the traceback folded."""

from collections.abc import Iterator

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from genesis_lab.reporting import frontend


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    shell = InteractiveShell.instance()
    yield shell
    InteractiveShell.clear_instance()


def test_an_error_is_its_sentence_and_the_traceback_is_folded(shell: InteractiveShell) -> None:
    code = (
        "from genesis_lab.errors import InvalidInput\ndef f():\n    raise InvalidInput('total: <b> is no number.')\nf()"
    )
    with capture_output() as seen:
        result = shell.run_cell(code)
        result.error_in_exec._render_traceback_()  # as ipykernel does once more
    assert str(result.error_in_exec) == "total: <b> is no number."
    assert seen.stdout.strip() == "InvalidInput: total: <b> is no number."
    (fold,) = seen.outputs
    page = fold.data["text/html"]
    assert page.startswith("<details>") and "in f" in page and "&lt;b&gt;" in page and "<b>" not in page


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("KeyboardInterrupt", "Stopped. Nothing was saved."),
        ("KeyboardInterrupt('Stopped. 3 are kept.')", "Stopped. 3 are kept."),
    ],
)
def test_an_interrupt_is_a_sentence(
    shell: InteractiveShell, raised: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frontend, "viewer", lambda: "notebook")
    frontend.answer_interrupts()
    with capture_output() as seen:
        result = shell.run_cell(f"raise {raised}")
    assert seen.stdout.strip() == f"Interrupted: {said}" and not result.success
