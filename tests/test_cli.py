"""The command `genesis` as a user meets it: one line for an error, exit codes, and help that the README shows."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from genesis_lab.cli import main
from genesis_lab.dataset import open_dataset, write_report
from genesis_lab.domains import get_domain
from genesis_lab.files import write_atomically
from genesis_lab.health import MACHINE, TEACHERS, run_checks
from genesis_lab.validation.quality import validate
from tiny_notebooks import write_notebook

ROOT = Path(__file__).resolve().parent.parent
Outcome = tuple[int, str, str]


@pytest.fixture
def genesis(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def call(*arguments: str) -> Outcome:
        with pytest.raises(SystemExit) as caught:
            main([str(a) for a in arguments])
        return (int(caught.value.code or 0), *capsys.readouterr())

    return call


@pytest.fixture
def params(tmp_path: Path) -> Path:
    code = "from genesis_lab.pipeline import record_metrics\nrecord_metrics({'half': total / 2})"
    parameters = "total: int = 10  # conversations to generate\nseed: int = 42\n"
    parameters += "provider: str = 'offline'\nintents: list[str] = []"
    write_notebook(tmp_path / "notebooks", "10_make", parameters, code)
    path = tmp_path / "params" / "small.yaml"
    path.parent.mkdir()
    path.write_text("name: small\ndescription: A small one\nstages: [10]\ntotal: 20\n")
    return path


def test_run_prints_a_line_a_stage_where_it_went_and_the_metrics(genesis: Callable[..., Outcome], params: Path) -> None:
    code, out, err = genesis("run", params, "-p", "total=30")
    assert (code, err) == (0, "")
    stage, completed, metrics = out.splitlines()
    assert stage.startswith("10_make  ") and completed.startswith("small completed in ")
    assert "outputs/runs/small-" in completed and metrics == "  10_make  half 15.0"


def test_what_is_suggested_after_a_failure_can_be_pasted(
    genesis: Callable[..., Outcome], params: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_notebook(params.parent.parent / "notebooks", "20_break", "seed: int = 1", "1 / (seed - 7)")
    (params := params.with_name("with blank.yaml")).write_text("name: two\nstages: [10, 20]\n")
    monkeypatch.chdir(tmp_path)
    code, _, err = genesis("run", params.relative_to(tmp_path), "-p", "seed=7", "-p", "intents=lost_or_stolen_card")
    assert code == 1 and "20_break.ipynb, cell 3: ZeroDivisionError" in err and err.count("\n") == 1
    command = re.search(r"\(go on with: genesis (.*)\)$", err.strip())
    assert command is not None
    code, _, again = genesis(*shlex.split(command[1]))
    assert (code, again.partition("(go")[0]) == (1, err.partition("(go")[0]) and "20_break.ipynb" in again


def test_lists_and_mappings_are_taken_as_people_type_them(genesis: Callable[..., Outcome], params: Path) -> None:
    assert (
        "intents=['card_arrival', 'lost_or_stolen_card']"
        in genesis("plan", params, "-p", "intents=card_arrival, lost_or_stolen_card")[1]
    )
    assert (
        "sentiment_shares={'positive': 0.5, 'negative': 0.5}"
        in genesis("plan", ROOT / "params/demo.yaml", "-p", "sentiment_shares=positive=0.5,negative=0.5")[1]
    )


def test_an_unfinished_run_is_thrown_away_by_name(genesis: Callable[..., Outcome], own_output_root: Path) -> None:
    assert genesis("dataset", "discard", "mine") == (
        1,
        "",
        "genesis: There is no unfinished run of mine: outputs/datasets/mine.run is none.\n",
    )
    work = own_output_root / "datasets" / "mine.run"
    work.mkdir(parents=True)
    (work / "journal.jsonl").write_text('{"kind":"header"}\n{"kind":"attempt","outcome":"accepted"}\n')
    assert genesis("dataset", "discard", "mine") == (0, "the unfinished run of mine is gone\n", "")
    assert not work.exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["run", "nowhere.yaml"],
            "genesis: nowhere.yaml does not exist: give the path of a params file, such as params/demo.yaml.\n",
        ),
        (
            ["run", "PARAMS", "-p", "totl=3"],
            "totl in the command line is not a parameter of 10_make: did you mean total?",
        ),
        (["run", "PARAMS", "-p", "total"], "A parameter must be given as name=value, got 'total'."),
        (["run", "PARAMS", "-p", "total=many"], "Parameter total of 10_make must be int, got 'many'"),
        (["run", "PARAMS", "--from", "10"], "There is no earlier run of small"),
        (["run", "PARAMS", "--sweep", "total=1", "--from", "10"], "leave out --from or --sweep"),
        (["plan", "PARAMS", "-p", "total=3"], "10_make: total must be at least 10, got 3."),
        (["plan", "PARAMS", "-p", "seed=x"], "Parameter seed of 10_make must be int, got 'x'"),
        (["plan", "PARAMS", "-p", "provider=opnai"], "got 'opnai': did you mean openai?"),
        (
            ["plan", "PARAMS", "-p", "intents=card_arrival,top_up_faild"],
            "no intent 'top_up_faild': did you mean top_up_failed?",
        ),
        (["run", "PARAMS", "-p", "total=5"], "genesis: 10_make: total must be at least 10, got 5."),
        (["notebook", "40", "-p", "preset=fats"], "40_train_intents: There is no preset 'fats': did you mean fast?"),
        (["notebook", "20", "-p", "dataset=nope"], "20_validate: There is no dataset"),
        (["notebook", "20", "-p", "rubric=mine.yaml"], "rubric must be a file that is there, got 'mine.yaml'"),
        (["notebook", "52", "-p", "rank=0"], "52_finetune_lora: rank must be at least 1, got 0."),
        (["notebook", "train_intent"], "did you mean 40_train_intents?"),
        (["notebook", "99"], "There is no notebook '99'"),
        (["dataset", "show", "nothing"], "nothing"),
        (["predict", "nothing", "hello"], "nothing"),
    ],
)
def test_an_error_is_one_line_and_exit_code_1(
    genesis: Callable[..., Outcome], params: Path, arguments: list[str], sentence: str
) -> None:
    code, _, err = genesis(*(str(params) if a == "PARAMS" else a for a in arguments))
    assert code == 1
    assert err.startswith("genesis: ") and sentence in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["run"], ["nonsense"], ["run", "x.yaml", "--workers", "0"], ["mlflow", "--port", "x"]]
)
def test_wrong_usage_is_exit_code_2(genesis: Callable[..., Outcome], arguments: list[str]) -> None:
    code, _, err = genesis(*arguments)
    assert code == 2 and "Usage: genesis" in err


def test_ctrl_c_is_one_line_and_exit_code_130(genesis: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("genesis_lab.dataset.open_dataset", stopped)
    assert genesis("dataset", "export", "mine", "mine.csv") == (130, "", "genesis: stopped.\n")


def test_plan_shows_counts_tokens_cost_and_time_and_runs_nothing(
    genesis: Callable[..., Outcome], params: Path, own_output_root: Path
) -> None:
    code, out, _ = genesis("plan", params)
    assert code == 0
    assert out.startswith("small: A small one\n  10_make  total=20\n20 conversations, plan ")
    assert "language: en 10, es 10" in out and "cost 0.00 USD" in out
    assert not own_output_root.exists()


def test_plan_adds_up_every_generating_stage_also_where_one_price_is_unknown(
    genesis: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENESIS_AWS_REGION", "us-east-1")
    file = tmp_path / "both.yaml"
    file.write_text("""
name: both
stages:
  - 10: {dataset: free, total: 100}
  - 10: {dataset: paid, total: 10000, provider: bedrock, model: "amazon.nova-micro-v1:0"}
  - 12: {dataset: unpriced, total: 100, provider: openai, model: m, base_urls: ["http://localhost:1/v1"]}
  - 12: {dataset: visions, role: vision, requirements: unpriced, total: 100}
""")
    code, out, err = genesis("plan", file)
    assert code == 0, err
    assert "by offline: requests 100, 0 + 0 tokens, cost 0.00 USD" in out
    paid = re.search(r"in all: requests 1\d,\d+, .* cost (\S+) USD,", out)  # openings and conversations
    assert paid and float(paid[1]) > 0.1
    assert "not known before there is unpriced" in out
    assert re.search(rf"all stages: requests 1\d,\d+, .* cost {re.escape(paid[1])} USD \+ unknown, time unknown", out)
    assert "in the cache already cost nothing" in out


def test_notebook_lists_its_parameters(genesis: Callable[..., Outcome], params: Path) -> None:
    notebook = params.parent.parent / "notebooks/10_make.ipynb"
    code, out, _ = genesis("notebook", notebook, "--show", "-p", "seed=7")
    first, second, *_ = out.splitlines()
    assert code == 0 and first.split() == ["total:", "int", "=", "10", "conversations", "to", "generate"]
    assert second.split() == ["seed:", "int", "=", "7"]


def test_a_dataset_goes_in_is_shown_and_comes_out(genesis: Callable[..., Outcome], tmp_path: Path) -> None:
    source, target = tmp_path / "foreign.jsonl", tmp_path / "out.jsonl"
    rows = [
        {"text": "How do I top up?", "label": "topping_up_by_card"},
        {"text": "Where is my card?", "label": "card_arrival"},
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, _ = genesis("dataset", "import", source, "foreign", "--language", "en")
    assert code == 0 and out.startswith("2 of 2 records kept")
    code, out, _ = genesis("dataset", "show", "foreign", "--records", "1")
    assert code == 0 and "2 conversations" in out and "How do I top up?" in out and "Where is my card?" not in out
    code, _, _ = genesis("dataset", "export", "foreign", target)
    assert code == 0 and len(target.read_text().splitlines()) == 2


def test_show_leads_with_the_verdict_where_a_dataset_was_validated(
    genesis: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "chats.jsonl").write_text('{"text": "Where is my card?", "label": "card_arrival"}\n' * 2)
    genesis("dataset", "import", str(tmp_path / "chats.jsonl"), "foreign")
    data = open_dataset("foreign")
    write_report(data, "quality", validate(data, domain=get_domain(data.domain)))
    code, out, _ = genesis("dataset", "show", "foreign", "--records", "0")
    assert code == 0 and out.splitlines()[1].startswith(("WARN: ", "FAIL: "))
    assert "warn          enough examples per label" in out


def test_output_root_is_an_option(genesis: Callable[..., Outcome], params: Path, tmp_path: Path) -> None:
    code, _, _ = genesis("--output-root", tmp_path / "elsewhere", "run", params)
    assert code == 0 and len(list((tmp_path / "elsewhere/runs").glob("small-*"))) == 1


def test_version_is_shown(genesis: Callable[..., Outcome]) -> None:
    assert genesis("--version")[:2] == (0, "genesis-lab 0.1.0\n")


def test_health_is_one_line_a_check_and_says_what_to_do() -> None:
    lines = [str(check) for check in run_checks()]
    assert len(lines) >= len(MACHINE) + len(TEACHERS) and not [line for line in lines if "\n" in line]
    assert all(line.startswith(("OK ", "WARN ", "FAIL ")) for line in lines)
    assert all("→" in line for line in lines if not line.startswith("OK"))


def test_health_fails_on_outputs_that_cannot_be_written(genesis: Callable[..., Outcome], own_output_root: Path) -> None:
    own_output_root.write_text("a file where the folder should be")
    code, out, _ = genesis("health")
    assert code == 1 and "FAIL outputs" in out and "set GENESIS_OUTPUT_ROOT" in out


def test_writing_leaves_the_old_file_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_audit_lists_issues_writes_a_repaired_copy_and_fails_while_some_are_left(
    genesis: Callable[..., Outcome], tmp_path: Path
) -> None:
    from genesis_lab.generation import config_for, generate

    data = generate(config_for("requirements")(total=12))
    assert genesis("audit", "teacher") == (0, "12 records, no issue\n", "")
    pairs = [{"prompt": r["concept"], "response": r["answer"]} for r in data.frame().to_dict("records")]
    pairs[0]["response"] = pairs[0]["response"].replace("FR001", "FR01", 1)
    pairs[1]["response"] = pairs[1]["response"].replace("  priority: High\n", "", 1)
    source = tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    assert genesis("dataset", "import", source, "theirs", "--domain", "requirements")[0] == 0
    code, out, _ = genesis("audit", "theirs", "--fix", "ours")
    assert code == 1 and "1 issues can be fixed mechanically, 1 need a person" in out
    assert "\n  missing_priority 1\n" in out, "kinds and how many of each come before the list"
    assert "answers rewritten 1" in out and "missing_priority" in out and "must be like FR001" not in out
