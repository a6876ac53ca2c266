"""`genesis run`: what it refuses, what it writes, how it stops and goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genesis_lab.errors import GenesisError, InvalidInput, StageFailed, Unavailable
from genesis_lab.pipeline import Run, load_pipeline, read_run, run_pipeline
from genesis_lab.sweep import parse_grid, run_sweep, table
from tiny_notebooks import write_notebook

SECRET = 'hf_"quoted"\\and-long-enough'


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """Three notebooks: one counts, one divides, one asks for its run folder."""
    folder = tmp_path / "notebooks"
    write_notebook(
        folder,
        "10_count",
        "total: int = 3  # how many\nlr: float = 0.1\nlabel: str = 'a'\nfast: bool = True\n"
        "shares: dict[str, float] = {}",
        "from genesis_lab.pipeline import record_metrics\nrecord_metrics({'counted': total, 'rate': lr / 3})",
    )
    write_notebook(folder, "20_divide", "total: int = 3\nby: int = 1", "# a comment\nprint(total // by)")
    write_notebook(
        folder,
        "70_report",
        "run_folder: str = ''",
        "from pathlib import Path\nPath(run_folder, 'report.html').write_text('<p>fine</p>')",
    )
    (tmp_path / "params").mkdir()
    return tmp_path


@pytest.fixture(autouse=True)
def package_for_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))


def pipeline_file(house: Path, text: str) -> Path:
    path = house / "params" / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def run(house: Path, text: str, start: str | None = None, **overrides: str) -> Run:
    return run_pipeline(load_pipeline(pipeline_file(house, text), overrides), start=start)


def refused(house: Path, text: str, **overrides: str) -> str:
    with pytest.raises(InvalidInput) as caught:
        load_pipeline(pipeline_file(house, text), overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


ALL = "name: all\nstages:\n  10_count: {lr: 0.5}\n  divide:\n  70_report: {}\ntotal: 12\n"


def test_a_run_writes_executed_notebooks_what_was_run_and_the_metrics(house: Path) -> None:
    finished = run(house, ALL)
    assert sorted(p.name for p in finished.folder.iterdir()) == [
        "10_count.ipynb",
        "20_divide.ipynb",
        "70_report.ipynb",
        "metrics.json",
        "report.html",
        "run.json",
    ]
    again = read_run(finished.folder)
    assert again.record["status"] == "completed" and again.record["parameters"] == {"total": 12}
    assert [(s["notebook"], s["status"]) for s in again.record["stages"]] == [
        ("10_count", "completed"),
        ("20_divide", "completed"),
        ("70_report", "completed"),
    ]
    assert again.record["stages"][0]["parameters"] == {"total": 12, "lr": 0.5}
    assert all(s["seconds"] > 0 for s in again.record["stages"])
    assert again.record["versions"]["papermill"] and again.record["versions"]["python"]
    assert again.metrics["10_count"] == {"counted": 12, "rate": 0.1667}


def test_plain_papermill_takes_the_same_file(house: Path) -> None:
    path = pipeline_file(house, ALL)
    out = house / "out.ipynb"
    command = [sys.executable, "-m", "papermill", house / "notebooks/10_count.ipynb", out, "-f", path]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    assert "counted 12" in out.read_text()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("stages: [10]\ntotl: 3", "totl in x.yaml is not a parameter of 10_count: did you mean total?"),
        (
            "stages: {10: {by: 2}}",
            "by in x.yaml is not a parameter of 10_count: there are fast, label, lr, shares, total.",
        ),
        ("stages: [10]\ntotal: '3'", "Parameter total of 10_count must be int, got '3': write a whole number"),
        ("stages: [10]\nlr: 1e-4", "with a dot before its exponent"),
        ("stages: [10]\ntotal: yes", "must be int, got True"),
        ("stages: [10]\nlabel: no", "put words in quotes"),
        ("stages: [10]\nfast: 'true'", "must be bool, got 'true': write true or false"),
        ("stages: [10]\ntotal: 3.5", "Parameter total of 10_count must be int, got 3.5"),
        ("stages: [10]\nshares: {en: x}", "Parameter shares['en'] of 10_count must be dict[str, float]"),
        ("stages: [10]\nshares: {api_key: 1.0}", "looks like a secret"),
        ("stages: [10]\nlabel: https://me:hunter2@host/v1", "Parameter label of 10_count holds an address with user"),
        ("stages: [10]\nlabel: 'openai:m@me:hunter2@host:8000/v1'", "holds an address with user and password"),
        ("stages: [10]\nlabel: [https://hunter2@host/v1]", "holds an address with user and password"),
        ("stages: [10]\nhf_token: abc", "hf_token in x.yaml looks like a secret"),
        ("stages: [10]\ntotal: 1\ntotal: 2", "gives 'total' twice"),
        ("stages: [99]", "There is no notebook '99': there are 10_count, 20_divide, 70_report."),
        ("stages: 10", "must list notebooks by number or name"),
        ("stages: []", "must list notebooks by number or name"),
        ("stages: {10: {}, divide: {}}", "must be all numbers or all names"),
        ("total: 3", "must list notebooks by number or name"),
        ("name: a b\nstages: [10]", "name in x.yaml must be letters"),
        ("stages: [10", "is not valid YAML"),
        ("- 10", "must hold 'name: value' lines"),
    ],
)
def test_a_bad_params_file_is_refused_in_one_sentence(house: Path, text: str, sentence: str) -> None:
    said = refused(house, text)
    assert sentence in said and "hunter2" not in said


def test_an_address_with_a_port_is_no_password(house: Path) -> None:
    label = "openai:llama3.1:8b@http://a:8000/v1,http://b:8000/v1"
    assert load_pipeline(pipeline_file(house, f"stages: [10]\nlabel: '{label}'")).stages[0].parameters["label"] == label


def test_a_missing_params_file_is_named(house: Path) -> None:
    with pytest.raises(InvalidInput, match=r"nowhere\.yaml does not exist"):
        load_pipeline(house / "nowhere.yaml")


def test_a_notebook_must_not_declare_a_secret(house: Path) -> None:
    write_notebook(house / "notebooks", "50_ask", "api_key: str = ''\nmax_tokens: int = 10", "1")
    assert "Parameter api_key of 50_ask looks like a secret" in refused(house, "stages: [50]")


def test_a_parameter_must_not_hold_a_secret_value(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh12345678")
    assert "holds the value of HF_TOKEN" in refused(house, "stages: [10]\nlabel: hf_abcdefgh12345678")


def test_the_command_line_wins_and_is_read_by_type(house: Path) -> None:
    pipeline = load_pipeline(
        pipeline_file(house, "stages: {10: {total: 1}}\nlr: 0.5"),
        {"total": "7", "label": "123", "lr": "1e-4", "fast": "false"},
    )
    assert pipeline.stages[0].parameters == {"total": 7, "label": "123", "lr": 1e-4, "fast": False}
    assert "must be bool, got 'yes'" in refused(house, "stages: [10]", fast="yes")
    assert "by in the command line is not a parameter" in refused(house, "stages: [10]", by="1")


def test_the_first_failure_stops_the_run_and_from_goes_on(house: Path) -> None:
    with pytest.raises(StageFailed) as caught:
        run(house, "name: all\nstages: {10: , 20: {by: 0}, 70: }\ntotal: 12")
    sentence = str(caught.value)
    assert sentence.startswith("20_divide.ipynb, cell 3: ZeroDivisionError: integer division or modulo")
    assert "--from 20" in sentence and "\n" not in sentence
    folder = next((house / "outputs/runs").iterdir())
    record = read_run(folder).record
    assert [s["status"] for s in record["stages"]] == ["completed", "failed", "pending"]
    assert record["status"] == "failed" and "ZeroDivisionError" in record["error"]
    assert (folder / "20_divide.ipynb").exists(), "the failed notebook is there to be looked at"

    resumed = run(house, "name: all\nstages: {10: , 20: {by: 2}, 70: }\ntotal: 12", start="20")
    assert resumed.folder == folder and resumed.record["status"] == "completed" and resumed.record["error"] is None
    assert resumed.metrics["10_count"]["counted"] == 12, "metrics of what was not run again are kept"


def test_from_refuses_to_mix_runs(house: Path) -> None:
    with pytest.raises(InvalidInput, match="There is no earlier run of all"):
        run(house, ALL, start="20")
    with pytest.raises(StageFailed):
        run(house, "name: all\nstages: {10: , 20: {by: 0}, 70: }\ntotal: 12")
    with pytest.raises(InvalidInput, match=r"10_count in .* was run with another total: run without --from"):
        run(house, "name: all\nstages: [10, 20, 70]\ntotal: 13", start="20")
    with pytest.raises(InvalidInput, match=r"20_divide in .* has not completed"):
        run(house, "name: all\nstages: [10, 20, 70]\ntotal: 12", start="70")
    with pytest.raises(InvalidInput, match=r"70_report is not a stage"):
        run(house, "name: all\nstages: [10, 20]\ntotal: 12", start="70")


def test_leaving_a_notebook_by_exit_is_a_failure(house: Path) -> None:
    write_notebook(house / "notebooks", "30_exit", "x: int = 1", "import sys\nsys.exit(0)", "print('never')")
    with pytest.raises(StageFailed, match=r"30_exit\.ipynb, cell \d: SystemExit"):
        run(house, "stages: [30]")


def test_a_killed_kernel_is_a_failure(house: Path) -> None:
    write_notebook(house / "notebooks", "30_die", "x: int = 1", "import os\nos.kill(os.getpid(), 9)")
    with pytest.raises(StageFailed, match=r"30_die\.ipynb: its kernel died"):
        run(house, "stages: [30]")


@pytest.mark.parametrize("code", ["print(value)", "{'k': value}", "raise ValueError(value)"])
def test_a_secret_in_the_output_fails_the_run_and_is_left_nowhere(
    house: Path, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_API_KEY", SECRET)
    write_notebook(house / "notebooks", "30_leak", "x: int = 1", f"import os\nvalue = os.environ['MY_API_KEY']\n{code}")
    with pytest.raises(StageFailed, match=r"30_leak\.ipynb shows the value of MY_API_KEY") as caught:
        run(house, "stages: [30]")
    assert "long-enough" not in str(caught.value)
    assert not [p for p in (house / "outputs").rglob("*") if p.is_file() and b"long-enough" in p.read_bytes()]
    assert not list((house / "outputs").rglob("*.ipynb"))


@pytest.mark.parametrize(("kill", "status"), [(signal.SIGKILL, "unfinished"), (signal.SIGTERM, "interrupted")])
def test_after_a_kill_run_json_tells_the_truth_and_the_run_can_go_on(house: Path, kill: int, status: str) -> None:
    flag = house / "started"
    wait = f"import time\nfrom pathlib import Path\nPath({str(flag)!r}).touch()\nif total == 12: time.sleep(60)"
    slow = write_notebook(house / "notebooks", "40_slow", "total: int = 3", wait)
    path = pipeline_file(house, "name: all\nstages: [10, 40]\ntotal: 12")
    command = [sys.executable, "-m", "genesis_lab.cli", "run", str(path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not flag.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(kill)
    message = process.communicate()[1]
    assert process.returncode == (130 if kill == signal.SIGTERM else -kill), message
    assert message.count("\n") == (kill == signal.SIGTERM), message
    record = read_run(next((house / "outputs/runs").iterdir())).record
    assert record["status"] == status
    assert [s["status"] for s in record["stages"]] == [
        "completed",
        "started" if kill == signal.SIGKILL else "interrupted",
    ]

    slow.write_text(slow.read_text().replace("sleep(60)", "sleep(0)"))
    assert run(house, "name: all\nstages: [10, 40]\ntotal: 12", start="40").record["status"] == "completed"


def test_a_read_only_output_root_is_one_sentence(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = house / "outputs"
    blocked.write_text("a file where the folder should be")
    with pytest.raises(GenesisError, match="can't be written"):
        run(house, "stages: [10]")


def test_a_folder_with_braces_is_no_template(house: Path) -> None:
    braces = house / "a {b} c"
    write_notebook(braces / "notebooks", "10_count", "total: int = 3", "print(total)")
    (braces / "params").mkdir()
    assert run(braces, "stages: [10]").record["status"] == "completed"


def test_a_sweep_runs_every_combination_apart_and_gives_one_table(house: Path) -> None:
    path = pipeline_file(house, "name: all\nstages: [10]\ntotal: 4")
    grid = parse_grid(["lr=0.3,0.6", "label=a"])
    folder, points = run_sweep(path, grid, workers=2)
    assert [(r["lr"], r["label"], r["status"], r["counted"], r["rate"]) for r in table(points)] == [
        ("0.3", "a", "completed", 4, 0.1),
        ("0.6", "a", "completed", 4, 0.2),
    ]
    assert len({point["folder"] for point in points}) == 2
    assert len(json.loads((folder / "sweep.json").read_text())) == 2


def test_points_of_a_sweep_whose_names_look_alike_keep_apart(house: Path) -> None:
    path = pipeline_file(house, "name: all\nstages: [10]")
    _, points = run_sweep(path, {"label": ["a/b", "A_b"]}, workers=2)
    assert [point["status"] for point in points] == ["completed"] * 2
    assert len({Path(point["folder"]).parents[1].name.casefold() for point in points}) == 2


def test_a_broken_run_folder_of_somebody_else_stops_nobody(house: Path) -> None:
    run(house, "name: all\nstages: [10, 20]")
    for name, text in (("all-99991231-000000", "{"), ("all-99991231-000001", "[]")):
        folder = house / "outputs" / "runs" / name
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(text)
    assert run(house, "name: all\nstages: [10, 20]", start="20").record["status"] == "completed"


def test_a_sweep_says_which_run_failed_on_a_dask_cluster_given_by_address(house: Path) -> None:
    distributed = pytest.importorskip("distributed")
    path = pipeline_file(house, "name: all\nstages: [20]")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    ) as cluster:
        _, points = run_sweep(path, {"by": ["1", "0"]}, dask_address=cluster.scheduler_address)
    assert [(row["by"], row["status"]) for row in table(points)] == [("1", "completed"), ("0", "failed")]
    assert "ZeroDivisionError" in (points[1]["error"] or "")


def test_a_sweep_is_checked_before_anything_runs(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genesis_lab.parallel.CONNECT", "1s")
    path = pipeline_file(house, "name: all\nstages: [10]")
    with pytest.raises(InvalidInput, match="must be int, got 'x'"):
        run_sweep(path, {"total": ["4", "x"]})
    for wrong in ("total", "total=", "total=1,1", "=1,2"):
        with pytest.raises(InvalidInput, match="name=value,value"):
            parse_grid([wrong])
    with pytest.raises(Unavailable, match=r"Dask scheduler at tcp://127.0.0.1:1 can\'t be reached"):
        run_sweep(path, {"total": ["4"]}, dask_address="tcp://127.0.0.1:1")
    assert not list((house / "outputs/runs").glob("*/*/runs"))
