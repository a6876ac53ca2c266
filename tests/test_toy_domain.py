"""A domain that no room has heard of goes through all of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from genesis_lab import registry, reports
from genesis_lab.bias import check_bias
from genesis_lab.dataset import Dataset, export_dataset, import_dataset, open_dataset
from genesis_lab.dataset.curation import apply
from genesis_lab.domains import DOMAINS
from genesis_lab.generation import config_for, generate
from genesis_lab.reporting.browser import browser_of
from genesis_lab.reporting.page import page_html
from genesis_lab.validation.compare import compare
from genesis_lab.validation.quality import validate
from toy_domain import Reviews

SCENARIO = """
import os, signal, sys
from genesis_lab.domains import DOMAINS
from genesis_lab.generation import config_for, generate
from toy_domain import Reviews
class Mortal(Reviews):
    def parse(self, text, spec):
        if sys.argv[2] == "die" and spec.index == 1000:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().parse(text, spec)
sys.modules["toy_domain"].Mortal = Mortal
DOMAINS["reviews"] = "toy_domain:Mortal"
generate(config_for("reviews")(dataset=sys.argv[1], total=2000))
"""


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    config_for.cache_clear()
    monkeypatch.setitem(DOMAINS, "reviews", "toy_domain:Reviews")


@pytest.fixture
def made() -> Dataset:
    return generate(config_for("reviews")(total=90))


def part(report, name):
    return next(p for p in report["consistency"]["parts"] if p["name"] == name)


def test_a_plan_is_exact_and_says_what_it_costs() -> None:
    config = config_for("reviews")(total=90)
    assert config.plan.counts() == {
        "stars": {"fair": 27, "good": 45, "poor": 18},
        "product": {"kettle": 45, "lamp": 45},
    }
    assert config.estimate().requests == 90 and config.estimate().cost_usd == 0


def test_kill_9_then_the_same_command_equals_an_uninterrupted_run(tmp_path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    died = subprocess.run([sys.executable, "-c", SCENARIO, killed, "die"], env=env)
    assert died.returncode == -signal.SIGKILL and not killed.exists()
    journal = (tmp_path / "killed.run" / "journal.jsonl").read_text()
    assert 500 < journal.count("\n") < 1500, "it was killed in the middle"
    for target in (killed, whole):
        subprocess.run([sys.executable, "-c", SCENARIO, target, "live"], check=True, env=env)
    assert open_dataset(killed).total == 2000
    assert open_dataset(killed).content_hash == open_dataset(whole).content_hash


def test_a_dataset_holds_the_domains_columns_and_its_options(made) -> None:
    assert (made.name, made.domain, made.total) == ("reviews", "reviews", 90)
    assert made.schema.names == list(Reviews.record_type.model_fields)
    assert made.frame()["review_id"].is_unique and set(made.frame()["stars"]) == {"poor", "fair", "good"}
    assert "text-classification" in (made.path / "README.md").read_text()


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_what_is_exported_comes_back(made, tmp_path, ending) -> None:
    file = tmp_path / f"reviews.{ending}"
    export_dataset(made, file)
    back, report = import_dataset(file, "back", domain="reviews")
    assert (report.kept, report.problems) == (90, ())
    assert back.content_hash == made.content_hash


def test_other_peoples_reviews_are_read_by_their_names_and_faults_are_named(tmp_path) -> None:
    (file := tmp_path / "theirs.jsonl").write_text(
        "\n".join(
            map(
                json.dumps,
                [
                    {"review_id": "a", "rating": "good", "item": "lamp", "review": "The lamp shines"},
                    {"review_id": "a", "rating": "superb", "item": "lamp", "review": "Fine lamp"},
                ],
            )
        )
    )
    theirs, report = import_dataset(file, "theirs", domain="reviews", field_map={"product": "item"})
    assert theirs.frame()["said"].tolist() == ["The lamp shines", "Fine lamp"]
    assert {p.reason.split(":")[0] for p in report.problems} == {"review_id", "stars"}


def test_its_checks_find_the_record_that_is_wrong(made, tmp_path) -> None:
    good = validate(made)
    assert good["overall"] == 100 and part(good, "topic")["failed"] == 0
    assert "openings like people's" not in {gate["name"] for gate in good["gates"]}, "a review is no short chat"
    assert "how people write reviews is not documented" in good["not_measured"]["openings"]
    export_dataset(made, file := tmp_path / "r.jsonl")
    lines = file.read_text().splitlines()
    lines[3] = json.dumps(json.loads(lines[3]) | {"said": "No word about it"})
    file.write_text("\n".join(lines))
    wrong = validate(import_dataset(file, "wrong", domain="reviews")[0])
    assert part(wrong, "topic")["failed"] == 1
    assert made.frame()["product"].iloc[3] in str(part(wrong, "topic")["offences"])


def test_bias_is_held_against_its_plan(made, tmp_path) -> None:
    assert check_bias(made)["severity"] == "none"
    export_dataset(made, file := tmp_path / "r.jsonl")
    file.write_text("\n".join(line for line in file.read_text().splitlines() if '"lamp"' not in line))
    found = check_bias(import_dataset(file, "skewed", domain="reviews")[0])["findings"]
    assert found[0]["severity"] != "none" and "lamp" in str(found[0])


def test_two_of_its_datasets_are_compared(made) -> None:
    other = generate(config_for("reviews")(dataset="other", total=60, seed=2))
    found = compare(made, other, quality=(validate(made), validate(other)))
    assert {row["attribute"] for row in found["attributes"]} == {"stars", "product"}
    assert found["sizes"]["all"] == (90, 60) and found["quality"]["overall"] == (100, 100)


def test_it_has_a_page(made) -> None:
    known = reports.complete(made, reference="none", embeddings=False)
    page = reports.page(made, known)
    html = page_html(page)
    assert page.subtitle == "90 reviews · 3 stars · 2 products" and page.status.startswith("PASS")
    assert ", as my number " in html
    assert reports.metrics(page, known)["bias"] == "none"


def test_it_is_registered_with_its_reports(made) -> None:
    from mlflow import MlflowClient

    run_id = registry.register_dataset(made, reports={"bias": check_bias(made)})
    assert run_id == registry.register_dataset(made)
    run = MlflowClient(registry.tracking_uri()).get_run(run_id)
    assert (run.data.tags["genesis.domain"], run.data.metrics["records"]) == ("reviews", 90)


def test_its_records_are_looked_through_and_what_people_decide_is_a_new_version(made) -> None:
    one = browser_of(made, {"product": "lamp"})
    found = one.ask(one.where, "GOOD")
    assert 0 < found["total"] < one.ask()["total"] == 90 and found["rows"][0]["text"].startswith("A good lamp")
    row = found["rows"][0]["row"]
    assert one.open(row)["parts"].keys() == {"said"}
    assert one.act(row, "fix", {"said": "A lamp"})["mark"] == "fix" and one.act(row, "relabel", "poor")
    new = apply(made)
    assert new.sql("SELECT stars FROM data WHERE said = 'A lamp'")["stars"].tolist() == ["poor"]
