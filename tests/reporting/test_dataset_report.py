"""The page about a dataset: true to its reports, also where some are missing."""

from typing import Any

import pytest

from genesis_lab.reporting import pages
from genesis_lab.reporting.dataset_report import dataset_report, key_figures, next_steps, summary
from genesis_lab.reporting.markup import Html

COUNTS = {"language": {"es": 5, "en": 5}, "intent": {"refund": 10}, "category": {"refunds": 10}, "sentiment": {}}


def manifest(**facts: Any) -> dict[str, Any]:
    generation = {"provider": "offline", "model": "grammar", "plan_hash": "abc", "seed": 42}
    return {"counts": {"train": 10}, "content_hash": "f" * 64, "generation": generation, "cost_usd": 0.0} | facts


def interval(value: float, n: int = 100) -> dict[str, float]:
    return {"estimate": value, "low": value - 0.05, "high": value + 0.05, "n": n}


def card(**changes: Any) -> dict[str, Any]:
    worth = {
        "k": 3.7, "low": 2.6, "high": None, "smallest_k": 1, "largest_k": 10,
        "below": False, "low_below": False, "high_below": False,
    }  # fmt: skip
    student = {
        "student": "tfidf",
        "title": "TF-IDF",
        "accuracy": interval(0.75),
        "macro_f1": interval(0.74),
        "equivalence": worth,
        "floor": interval(0.5),
        "above_floor": interval(0.25),
        "beats_floor": True,
        "k_shots": [],
        "gains": [],
        "learning_curve": [
            {"records": 100, "accuracy": interval(0.6)},
            {"records": 200, "accuracy": interval(0.75)},
        ],
        "intents": [{"intent": "refund", "recall": 0.2, "low": 0.1, "high": 0.4, "n": 7}],
        "confusions": [{"intent": "refund", "taken_for": "charge", "count": 4, "n": 7}],
    } | changes
    return {"students": [student], "not_measured": {"k_shots": "no pool"}, "worth": {}}


def bias(severity: str = "none") -> dict[str, Any]:
    finding = {"severity": severity, "name": "language", "recommendation": "Generate 40 more es.", "sentence": "x"}
    return {"severity": severity, "findings": [finding], "associations": [], "not_measured": {}}


def test_the_key_figures_are_those_of_the_best_student_with_their_intervals() -> None:
    found = key_figures(manifest(), {"scorecard": card(), "bias": bias("low")})
    assert found["worth"] == ("3.7", "real labelled examples per intent [2.6–over 10]")
    assert found["accuracy on real data"] == ("75%", "[70%–80%] of 100 real messages")
    assert found["imbalance"] == ("low", "1 of 1 checks found something")


def test_what_has_no_report_is_not_measured_and_the_page_still_comes() -> None:
    page = dataset_report("mine", manifest(generation=None, cost_usd=None), {}, counts=COUNTS)
    html = pages.report_html(page)
    for why in (
        "no scorecard",
        "no quality report",
        "no bias report",
        "no classifier was trained",
        "no price is known",
    ):
        assert f"not measured: {why}" in html
    assert "not generated here" in page.summary
    assert page.status == ""


def test_a_scorecard_without_students_says_why() -> None:
    empty = {"students": [], "not_measured": {"scorecard": "no reference"}, "worth": {}}
    assert "not measured: no reference" in str(key_figures(manifest(), {"scorecard": empty})["worth"])
    assert "was not measured" in summary("mine", manifest(), {"scorecard": empty})


def test_a_check_that_had_nothing_to_check_does_not_say_balanced() -> None:
    reports = {"bias": bias() | {"findings": []}}
    assert "not measured: nothing to hold against a plan" in str(key_figures(manifest(), reports)["imbalance"])
    assert "balanced" not in summary("mine", manifest(), reports)


def test_data_that_does_not_beat_its_label_names_is_not_praised() -> None:
    reports = {"scorecard": card(beats_floor=False)}
    said = summary("mine", manifest(), reports)
    assert "no more than the names of the intents alone" in said
    assert "labelled examples" not in said
    assert key_figures(manifest(), reports)["worth"] == ("nothing", "the label names alone reach 50%")
    assert "can't be told" in summary("mine", manifest(), {"scorecard": card(beats_floor=None)})


@pytest.mark.parametrize(
    ("gain", "half", "advice"),
    [(0.15, 0.05, "Generate more"), (0.0, 0.008, "new ways of asking"), (0.03, 0.05, "can't be told")],
)
def test_more_records_are_advised_only_where_it_is_proven_that_they_pay(gain: float, half: float, advice: str) -> None:
    step = {"estimate": gain, "low": gain - half, "high": gain + half, "n": 100}
    curve = [
        {"records": 100, "accuracy": interval(0.6), "gain": None},
        {"records": 200, "accuracy": interval(0.6 + gain), "gain": step},
    ]
    assert advice in next_steps({"scorecard": card(learning_curve=curve)})[0]


def test_what_few_messages_show_is_no_advice() -> None:
    few = {"intent": "refund", "recall": 0.4, "low": 0.12, "high": 0.77, "n": 5}
    mixed = {"intent": "refund", "taken_for": "charge", "count": 1, "n": 5}
    steps = next_steps({"scorecard": card(intents=[few], confusions=[mixed], learning_curve=[])})
    assert steps == []


def test_the_page_leads_with_the_verdict_and_its_gates() -> None:
    def gate(name: str, outcome: str) -> dict[str, Any]:
        value = None if outcome == "not measured" else 0.31
        return {"name": name, "outcome": outcome, "value": value, "low": value, "high": value, "n": 100, "measures": "x",
                "threshold": "at least 1", "why": "y", "says": f"{name} says", "todo": f"mend {name}"}  # fmt: skip

    gates = [
        gate("language", "pass"),
        gate("fidelity", "warn"),
        gate("unique ids", "fail"),
        gate("worth", "not measured"),
    ]
    verdict = {"verdict": "FAIL", "sentence": "FAIL: unique ids (unique ids says).", "gates": gates}
    page = dataset_report("mine", manifest(), {"verdict": verdict}, counts=COUNTS)
    assert page.status == "FAIL" and page.summary.startswith("The verdict is FAIL: unique ids")
    assert page.figures["verdict"] == ("FAIL", "1 of 4 gates hold")
    assert page.sections[0].title == "The verdict"
    shown = page.sections[0].parts[0].text
    assert [shown.index(name) for name in ("unique ids", "fidelity", "worth", "language")] == sorted(
        shown.index(name) for name in ("unique ids", "fidelity", "worth", "language")
    )
    assert next_steps({"verdict": verdict}) == ["Mend unique ids: unique ids says.", "Mend fidelity: fidelity says."]
    assert '<b class="status fail">FAIL</b>' in pages.report_html(page)


def test_the_next_steps_name_intents_pairs_and_records_to_add() -> None:
    steps = " ".join(next_steps({"scorecard": card(), "bias": bias("medium")}))
    assert "Write better openings for refund" in steps
    assert "refund and charge apart: 4 of 7" in steps
    assert "Generate 40 more es." in steps
    assert "Generate 40" not in " ".join(next_steps({"bias": bias("none")}))


def test_the_footer_says_who_wrote_the_data_and_its_text_is_never_html() -> None:
    conversation = {"intent": "refund", "turns": [{"speaker": "customer", "text": "<script>alert(1)</script>"}]}
    page = dataset_report(
        "mine", manifest(), {"scorecard": card()}, counts=COUNTS, samples=[conversation], examples=Html("<p>ok</p>")
    )
    assert page.provenance["written by"] == "provider offline, model grammar"
    assert page.provenance["content hash"] == "f" * 64
    assert "<script>alert(1)" not in pages.report_html(page)
