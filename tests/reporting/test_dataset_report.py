"""The page about a dataset: true to its reports, also where some are missing."""

import re
from typing import Any

import pytest

from genesis_lab.domains import get_domain
from genesis_lab.notebooks import notebook_paths, read_notebook
from genesis_lab.reporting import drawings
from genesis_lab.reporting.html import Html, chat
from genesis_lab.reporting.page import page_html
from genesis_lab.reporting.story import dataset_page, key_figures, next_steps
from genesis_lab.reporting.views import kinds, view, views

COUNTS = {"language": {"es": 5, "en": 5}, "intent": {"refund": 10}, "category": {"refunds": 10}, "sentiment": {}}


KINDS = ("verdict", "quality", "scorecard", "bias", "training")
FACETS = get_domain("conversations").facets


def page(given: dict[str, Any], made: dict[str, Any] | None = None, **options: Any) -> Any:
    reports = given | {"manifest": made or manifest()}
    return dataset_page("mine", reports, unit="conversations", needed=KINDS, counts=COUNTS, **options)


def manifest(**facts: Any) -> dict[str, Any]:
    generation = {"provider": "offline", "model": "grammar", "plan_hash": "abc", "seed": 42}
    return {"counts": {"train": 10}, "content_hash": "f" * 64, "generation": generation, "cost_usd": 0.0} | facts


def interval(value: float, n: int = 100) -> dict[str, float]:
    return {"estimate": value, "low": value - 0.05, "high": value + 0.05, "n": n}


def card(**changes: Any) -> dict[str, Any]:
    worth = {
        "k": 3.7,
        "low": 2.6,
        "high": None,
        "smallest_k": 1,
        "largest_k": 10,
        "below": False,
        "low_below": False,
        "high_below": False,
    }
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


def test_the_key_figures_are_those_of_the_best_learner_with_their_intervals() -> None:
    found = key_figures({"scorecard": card(), "bias": bias("low")})
    assert found["worth"] == ("3.7", "real labelled examples per label [2.6–over 10]")
    assert found["accuracy on real data"] == ("75%", "[70%–80%] of 100 real messages")
    assert found["imbalance"] == ("low", "1 of 1 checks found something")


def test_what_has_no_report_is_not_measured_and_the_page_still_comes() -> None:
    found = page({}, manifest(generation=None, cost_usd=None))
    html = page_html(found)
    why = ("no scorecard", "no quality report", "no bias report", "no classifier was trained", "no price is known")
    assert not [each for each in why if f"not measured: {each}" not in html]
    assert "not generated here" in str(found.provenance["written by"])
    assert found.status == ""


def test_a_report_that_lacks_something_says_so_and_the_page_still_comes() -> None:
    whole = {"scorecard": card(), "bias": bias("low"), "training": {"chosen": "x"}, "quality": {"records": 3}}
    html = page_html(page(whole, {"counts": {"train": 3}}))
    assert "not measured: the record that is kept of it is not whole" in html
    for kind, report in whole.items():
        for key in report:
            views(kind, {name: value for name, value in report.items() if name != key})


def test_a_fault_of_the_program_is_not_taken_for_a_report_that_lacks_something(monkeypatch) -> None:
    def broken(report: dict[str, Any]) -> Any:
        return report["findings"] + 1

    monkeypatch.setattr(drawings, "findings", broken)
    with pytest.raises(TypeError):
        view("bias", "findings", bias())
    assert "it lacks 'findings'" in str(view("bias", "findings", {"severity": "low"}))


def test_a_scorecard_without_learners_says_why() -> None:
    empty = {"students": [], "not_measured": {"scorecard": "no reference"}, "worth": {}}
    assert "not measured: no reference" in str(key_figures({"scorecard": empty})["worth"])
    names = ("real examples", "worth", "growth", "gains", "hardest", "mixed up")
    assert {str(view("scorecard", name, empty)) for name in names} == {"not measured: no reference"}


def test_a_check_that_had_nothing_to_check_does_not_say_balanced() -> None:
    nothing = bias() | {"findings": []}
    assert "not measured: nothing to hold against a plan" in str(key_figures({"bias": nothing})["imbalance"])
    assert str(view("bias", "findings", nothing)) == "not measured: nothing to hold against a plan"


def test_data_that_does_not_beat_its_label_names_is_not_praised() -> None:
    shots = [{"k": 1.0, "accuracy": interval(0.5)}, {"k": 10.0, "accuracy": interval(0.9)}]
    found = card(beats_floor=False, k_shots=shots)
    assert key_figures({"scorecard": found})["worth"] == ("nothing", "the label names alone reach 50%")
    title = view("scorecard", "real examples", found).layout.title.text
    assert "no more than the label names alone" in title and "Worth" not in title
    assert "can't be told" in str(key_figures({"scorecard": card(beats_floor=None)})["worth"])
    assert "Worth 3.7" in view("scorecard", "real examples", card(k_shots=shots)).layout.title.text


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
        return {
            "name": name,
            "outcome": outcome,
            "value": value,
            "low": value,
            "high": value,
            "n": 100,
            "measures": "x",
            "threshold": "at least 1",
            "why": "y",
            "says": f"{name} says",
            "todo": f"mend {name}",
        }

    gates = [
        gate("language", "pass"),
        gate("fidelity", "warn"),
        gate("unique ids", "fail"),
        gate("worth", "not measured"),
    ]
    verdict = {"verdict": "FAIL", "sentence": "FAIL: unique ids (unique ids says).", "gates": gates}
    found = page({"verdict": verdict})
    assert found.status == "FAIL" and found.summary.startswith("The verdict is FAIL: unique ids")
    assert next(iter(found.figures.items())) == ("verdict", ("FAIL", "1 of 4 gates hold"))
    assert [section.title for section in found.sections[:2]] == ["What to do next", "The verdict"]
    shown = found.sections[1].parts[0].text
    assert [shown.index(name) for name in ("unique ids", "fidelity", "worth", "language")] == sorted(
        shown.index(name) for name in ("unique ids", "fidelity", "worth", "language")
    )
    assert next_steps({"verdict": verdict}) == ["Mend unique ids: unique ids says.", "Mend fidelity: fidelity says."]
    assert '<b class="status fail">FAIL</b>' in page_html(found)


def test_the_next_steps_name_intents_pairs_and_records_to_add() -> None:
    steps = " ".join(next_steps({"scorecard": card(), "bias": bias("medium")}))
    assert "Write better openings for refund" in steps
    assert "refund and charge apart: 4 of 7" in steps
    assert "Generate 40 more es." in steps
    assert "Generate 40" not in " ".join(next_steps({"bias": bias("none")}))


def test_the_footer_says_who_wrote_the_data_and_its_text_is_never_html() -> None:
    conversation = {"intent": "refund", "turns": [{"speaker": "customer", "text": "<script>alert(1)</script>"}]}
    found = page({"scorecard": card()}, samples=[chat([conversation], FACETS)], sentences=Html("<p>ok</p>"))
    assert found.provenance["written by"] == "provider offline, model grammar"
    assert found.provenance["content hash"] == "f" * 64
    html = page_html(found)
    assert "&lt;script&gt;alert(1)" in html and "<script>alert(1)" not in html


def test_a_learning_curve_says_that_it_rises_only_where_that_is_proven() -> None:
    def title(gain: dict[str, float]) -> str:
        curve = [{"records": n, "accuracy": interval(0.6), "gain": gain} for n in (100, 200)]
        return str(view("scorecard", "growth", card(learning_curve=curve)).layout.title.text)

    assert "rises: +10.0 [+5.0 to +15.0] points" in title(interval(0.1))
    assert "can't be told" in title(interval(0.01))


def test_a_classifier_is_called_too_sure_only_where_the_interval_shows_it() -> None:
    def title(confidence: float) -> str:
        exam = {"accuracy": interval(0.6), "reliability": [{"confidence": confidence, "accuracy": interval(0.6)}]}
        return str(view("training", "calibration", {"reference": exam}).layout.title.text)

    assert "surer than it is right" in title(0.7)
    assert "as far as can be told" in title(0.63)


def test_every_view_that_a_notebook_shows_is_in_the_list_that_the_page_uses() -> None:
    code = "".join(cell.source for path in notebook_paths() for cell in read_notebook(path).cells)
    named = set(re.findall(r'\bview\("([^"]+)", "([^"]+)"', code))
    assert len(named) > 35
    every = {f"{kind}.{name}": how for kind, one in kinds().items() for name, how in one["views"].items()}
    assert {".".join(pair) for pair in named} <= set(every)
    assert all(callable(getattr(drawings, how["draw"])) for how in every.values() if "draw" in how)
    assert not [each for each, how in every.items() if not {"draw", "rows", "facts", "text", "lines"} & set(how)]


def test_worth_on_a_stand_in_is_never_called_plain_worth() -> None:
    label = "stand-in: written by a language model, not by customers"
    shots = [{"k": 1.0, "accuracy": interval(0.5)}, {"k": 10.0, "accuracy": interval(0.9)}]
    found = card(k_shots=shots) | {"reference": {"name": "stand-in", "kind": "stand-in", "language": "en"}}
    cards = key_figures({"scorecard": found})
    assert list(cards) == ["stand-in worth", "accuracy on a stand-in"]
    assert all(label in str(note) for _, note in cards.values())
    title = view("scorecard", "real examples", found).layout.title.text.replace("<br>", " ")
    assert title == f"S{label[1:]}. Worth 3.7 stand-in labelled examples per label (TF-IDF)"
    assert "tested on stand-in utterances" in view("scorecard", "worth", found).html
    section = next(s for s in page({"scorecard": found}).sections if s.title.startswith("What it is worth"))
    assert section.title.endswith("(stand-in)") and label in str(section.parts[0]).lower()
    measure, *steps = next_steps({"scorecard": found})
    assert measure.startswith("Measure its worth on real messages") and "→ genesis reference fetch" in measure
    assert "real" not in " ".join(step.partition(" → ")[0] for step in steps) and "stand-in messages" in steps[0]
    real = found | {"reference": found["reference"] | {"kind": "real"}}
    assert "stand-in" not in page_html(page({"scorecard": real})).lower()


def test_openings_are_shown_beside_what_is_expected_of_them() -> None:
    openings = {
        "against": "short chat messages (documented default)",
        "n": 770,
        "distance": 0.45,
        "rows": [
            {"name": "words, median", "measured": 32.0, "expected": 10.0, "ratio": 3.2},
            {
                "name": "questions",
                "measured": {"estimate": 0.1, "low": 0.05, "high": 0.15},
                "expected": 0.45,
                "ratio": None,
            },
        ],
        "lengths": {"this dataset": {"1–5": 0.0, "over 30": 0.6}, "people": {"1–5": 0.1, "over 30": 0.02}},
    }
    shown = view("quality", "openings", {"openings": openings})
    assert "documented default" in shown.text and "words, median  32  10  3.20" in shown.text
    assert "questions  0.10 [0.05–0.15]  0.45" in shown.text
    figure = view("quality", "lengths", {"openings": openings})
    assert [trace.name for trace in figure.data] == ["this dataset", "people"]
    nothing = {"not_measured": {"openings": "a review is no short chat"}}
    assert str(view("quality", "openings", nothing)) == "not measured: a review is no short chat"
    assert view("quality", "lengths", nothing) == []


def test_contrast_rounds_are_a_table_and_a_line() -> None:
    rows = [
        {
            "round": 0,
            "records": 770,
            "requests": 77,
            "cost_usd": 0.4,
            "accuracy": interval(0.8),
            "gain": None,
            "verdict": "the first",
        },
        {
            "round": 1,
            "records": 1000,
            "requests": 12,
            "cost_usd": 0.1,
            "accuracy": interval(0.84),
            "gain": interval(0.06),
            "verdict": "better",
        },
    ]
    report = {"rounds": rows, "stopped": "3 rounds are made", "seeds": {"accuracy_alone": interval(0.7)}}
    shown, figure = (view("rounds", name, report) for name in ("rounds", "growth"))
    assert "3 rounds are made" in shown.text and "the shown seeds alone 0.70" in figure.layout.title.subtitle.text
    assert "1  1,000  12  0.10  0.84 [0.79–0.89]  100  +6.0 [+1.0 to +11.0]  better" in shown.text
    assert "from 0.80 [0.75–0.85] to 0.84 [0.79–0.89]" in figure.layout.title.text.replace("<br>", " ")
    unpriced = [row | {"cost_usd": None} for row in rows]
    assert "price unknown" in view("rounds", "rounds", {"rounds": unpriced}).text
    assert str(view("rounds", "rounds", None)) == "not measured: no contrast round was made"


def test_every_part_of_a_score_is_shown() -> None:
    part = {"value": 1.0, "interval": None, "n": 3, "failed": 0, "unit": "records", "worst": "", "weight": 1.0}
    score = {"value": 1.0, "parts": [part | {"name": name} for name in ("first thing", "second thing")]}
    assert [row["name"] for row in drawings.parts({"coherence": score})] == ["first thing", "second thing"]
