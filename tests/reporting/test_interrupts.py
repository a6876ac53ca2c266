"""A cell that is interrupted says so at once, whatever it is at, and the next cell works."""

import textwrap
from collections.abc import Iterator

import pytest

from watched_kernel import Kernel, kernel

SETUP = "from genesis_lab.reporting.frontend import answer_interrupts\nanswer_interrupts()"


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    folder = tmp_path_factory.mktemp("notebook")
    slow = "import time\nwith open('times', 'a') as file: file.write('x')\ntime.sleep(1.5)\nvalue = 1"
    (folder / "slow_one.py").write_text(slow)
    with kernel(folder, folder / "outputs") as started:
        assert not started.run(SETUP).said
        yield started


def cell(source: str) -> str:
    return textwrap.dedent(source).strip()


def test_the_sentence_does_not_wait_for_a_library(notebook: Kernel) -> None:
    seen = notebook.run(
        cell("""
            import hashlib
            try:
                hashlib.pbkdf2_hmac("sha256", b"a", b"b", 9_000_000)
            finally:
                print("came back")
        """),
        interrupt_after=0.2,
    )
    assert seen.said == ["error Interrupted: Stopped. Nothing was saved.", "came back\n"]


def test_what_an_interrupt_leaves_is_said(notebook: Kernel) -> None:
    seen = notebook.run(
        cell("""
            import time
            from genesis_lab.reporting.progress import progress
            with progress(None, "Asking", saved="Answers are kept."):
                time.sleep(60)
        """),
        interrupt_after=3,
    )
    assert seen.errors == ["Interrupted: Stopped. Answers are kept."]


@pytest.mark.parametrize("after", ["", "\nwhile True: pass"])
def test_an_interrupted_import_is_not_broken(notebook: Kernel, after: str) -> None:
    notebook.run("import sys; sys.modules.pop('slow_one', None); open('times', 'w').close()")
    assert notebook.run(f"import slow_one{after}", interrupt_after=0.5).errors == [
        "Interrupted: Stopped. Nothing was saved."
    ]
    again = notebook.run("import slow_one; print(slow_one.value, open('times').read())")
    assert again.said == ["1 x\n"], "it was imported whole, and once"


def test_an_interrupt_that_a_library_loses_is_made_again(notebook: Kernel) -> None:
    seen = notebook.run(
        cell("""
            import ctypes, time
            ctypes.CFUNCTYPE(None)(lambda: time.sleep(60))()
            time.sleep(60)
        """),
        interrupt_after=0.5,
    )
    assert seen.errors == ["Interrupted: Stopped. Nothing was saved."]


def test_errors_are_as_before(notebook: Kernel) -> None:
    assert notebook.run("1 / 0").errors == ["ZeroDivisionError: division by zero"]
    assert notebook.run("1 +").errors[0].startswith("SyntaxError")
    seen = notebook.run("from genesis_lab.errors import InvalidInput\nraise InvalidInput('No.')")
    assert seen.errors == ["InvalidInput: No."]
    assert notebook.run("print('and on')").said == ["and on\n"]
