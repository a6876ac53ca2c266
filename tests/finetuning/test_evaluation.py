from collections import Counter
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from finetuning.simulated_scores import verdicts
from genesis_lab.domains.base import Example
from genesis_lab.errors import InvalidInput, MissingDependency, Rejected
from genesis_lab.finetuning.ask import PromptProgram, Sampling
from genesis_lab.finetuning.exam import (
    Arm,
    arms,
    as_examined,
    benchmark,
    compare,
    fingerprint,
    hold,
    pairs_of,
    power_table,
    verdict,
)
from genesis_lab.providers.local import LocalProvider
from genesis_lab.providers.offline import OfflineProvider
from genesis_lab.reporting.views import headline, kinds, view
from genesis_lab.stats import CANT_TELL, Interval, Paired, paired
from scripted import ScriptedProvider
from share_role import Share


class Asked:
    """A connected model that counts how often it was opened and closed."""

    opened: ClassVar[Counter[str]] = Counter()

    def __init__(self, spec: str) -> None:
        self.opened[spec] += 1
        if spec == "openai:missing":
            raise MissingDependency("x", "This model", "pip install x")
        answer = {"openai:good": "a b c d", "openai:poor": "a z", "openai:fair": "a b c z"}.get(spec, "a b c d")
        said = Rejected("too long") if spec == "openai:refusing" else answer
        self.provider: Any = OfflineProvider() if spec == "offline" else ScriptedProvider([said])
        took = {"openai:slow": 2.0, "offline": 0.0}.get(spec, 1.0)
        self.call = lambda request: replace(self.provider.complete(request), latency_s=took)

    def close(self) -> None:
        pass


def named(view: Any) -> set[str]:
    """The candidates that a figure or table names."""
    text = view.to_json() if hasattr(view, "to_json") else str(view)
    return {name for name in ("good", "poor", "fair", "baseline", "fine-tuned") if name in text}


def examples(n: int) -> list[Example]:
    return [Example(f"e{i}", f"g{i // 2}", "en", "Say.", f"Question {i}", "a b c d") for i in range(n)]


GOOD, POOR, FAIR = (Arm(name, name, f"openai:{name}") for name in ("good", "poor", "fair"))
ONCE = Sampling(runs=1)


def test_the_benchmark_picks_by_its_rule_and_goes_on_where_a_model_is_missing(tmp_path) -> None:
    missing, refusing = (Arm(name, name, f"openai:{name}") for name in ("missing", "refusing"))
    candidates = [POOR, missing, refusing, GOOD, Arm("teacher", "teacher", "offline")]
    report = benchmark(candidates, examples(60), role=Share(), connect=Asked, folder=tmp_path, sampling=ONCE)
    assert report["picked"] == "good" and "good" in report["verdict"]
    assert [card["yardstick"] for card in report["cards"]] == [False, False, True]
    assert "pip install x" in report["not_measured"]["missing"] and "too long" in report["not_measured"]["refusing"]
    strict = benchmark(
        candidates, examples(60), role=Share(), connect=Asked, folder=tmp_path, sampling=ONCE, threshold=1.1
    )
    assert strict["picked"] is None and "None is good enough" in strict["verdict"]
    for each in kinds()["benchmark"]["views"]:
        assert {"good", "poor"} <= named(view("benchmark", each, report)), each


def test_from_three_questions_nothing_is_picked(tmp_path) -> None:
    report = benchmark([POOR, GOOD], examples(6), role=Share(), connect=Asked, folder=tmp_path, sampling=ONCE)
    assert report["picked"] is None
    assert "the best, good, scores" in report["verdict"] and "can't be told from poor" in report["verdict"]


def test_models_that_can_not_be_told_from_the_best_are_named_and_the_quickest_is_picked(tmp_path) -> None:
    slow, quick = Arm("s", "slow", "openai:slow"), Arm("q", "quick", "openai:good")
    report = benchmark([slow, POOR, quick], examples(60), role=Share(), connect=Asked, folder=tmp_path, sampling=ONCE)
    assert report["picked"] == "quick" and "Good enough and quickest: quick" in report["verdict"]
    assert "can't be told from quick" in report["verdict"] and "poor" not in report["verdict"]
    alone = benchmark([slow, POOR], examples(60), role=Share(), connect=Asked, folder=tmp_path, sampling=ONCE)
    assert alone["picked"] == "slow" and "Good enough and best" in alone["verdict"]


def test_a_model_is_loaded_once_and_not_at_all_when_its_answers_are_there(tmp_path) -> None:
    Asked.opened.clear()
    both = [POOR, replace(POOR, id="told", name="told", program=PromptProgram("Do."))]
    benchmark(both, examples(4), role=Share(), connect=Asked, folder=tmp_path, sampling=ONCE)
    benchmark(both, examples(4), role=Share(), connect=Asked, folder=tmp_path, sampling=ONCE)
    assert Asked.opened["openai:poor"] == 1


def test_what_can_not_be_held_to_a_grammar_is_refused(tmp_path) -> None:
    with pytest.raises(InvalidInput, match="held to a grammar"):
        benchmark([replace(POOR, constrained=True)], examples(2), role=Share(), connect=Asked, folder=tmp_path)
    with pytest.raises(InvalidInput, match="names of their own"):
        benchmark([POOR, POOR], examples(2), role=Share(), connect=Asked, folder=tmp_path)


def judged(n: int, folder: Any, **options: Any):
    candidates = [Arm("base", "baseline", "openai:poor"), Arm("student", "fine-tuned", "openai:good"), FAIR]
    return hold(
        candidates, examples(n), role=Share(), connect=Asked, folder=folder, dataset="d", sampling=ONCE, **options
    )


def test_a_gain_on_enough_concepts_is_called_better_and_shown(tmp_path) -> None:
    report = judged(60, tmp_path)
    pair = headline(report)
    assert pair["verdict"] == "better" and (report["concepts"], report["groups"]) == (60, 30)
    assert pair["difference"]["estimate"] == pytest.approx(0.75) and report["teacher"]["estimate"] == 1
    assert (pair["wins"], pair["ties"], pair["losses"]) == (30, 0, 0)
    assert "better (+75 points" in report["verdict"]
    for each in kinds()["evaluation"]["views"]:
        assert {"fine-tuned", "fair"} <= named(view("evaluation", each, report)), each


def test_under_50_concepts_nothing_is_significant_and_a_smoke_run_says_so(tmp_path) -> None:
    report = judged(48, tmp_path, limits={"test_limit": 48})
    assert {pair["verdict"] for pair in report["pairs"]} == {"can't be told: needs about 50 items"}
    assert report["verdict"].startswith("Smoke run, no result")


def test_a_concept_that_was_taught_is_not_examined(tmp_path) -> None:
    with pytest.raises(InvalidInput, match="never saw"):
        judged(4, tmp_path, taught=examples(1))


def test_the_hash_changes_with_anything_that_is_asked_or_scored() -> None:
    one = examples(3)
    assert fingerprint(one) == fingerprint(one[::-1])
    for change in ({"question": "?"}, {"system": "?"}, {"facts": {"id": 1}}, {"group": "?"}):
        assert fingerprint(one) != fingerprint([*one[:2], replace(one[2], **change)])


@pytest.mark.parametrize(
    ("low", "estimate", "high", "p", "concepts", "words"),
    [
        (0.02, 0.06, 0.10, 0.01, 100, "better"),
        (0.01, 0.03, 0.05, 0.01, 100, "better but small"),
        (-0.10, -0.06, -0.02, 0.01, 100, "worse"),
        (-0.03, 0.01, 0.04, 0.60, 100, "equivalent"),
        (-0.02, 0.04, 0.10, 0.20, 100, "can't be told: needs about 490 items"),
        (0.01, 0.06, 0.11, 0.06, 100, "can't be told: needs about 220 items"),
        (0.50, 0.60, 0.70, 0.01, 49, "can't be told: needs about 50 items"),
    ],
)
def test_the_words_follow_the_table(low, estimate, high, p, concepts, words) -> None:
    difference = Interval(estimate, low, high, concepts)
    assert verdict(Paired(difference, p, 0.316, 0, 0, 0, margin=0.05, fewest=10), concepts=concepts) == words


def test_few_groups_say_nothing_however_many_concepts() -> None:
    assert verdict(paired([1.0] * 9, [0.0] * 9), concepts=90).startswith(CANT_TELL)


def test_what_is_held_against_what() -> None:
    found = arms("local:smollm2", student="local:student", program=PromptProgram("Do."))
    assert [c.name for c in found if c.constrained] == ["baseline (constrained)", "fine-tuned (constrained)"]
    pairs = pairs_of(found)
    assert len(pairs) == len(set(pairs)) and ("student", "base") in pairs
    assert pairs_of(arms("openai:x", student="openai:y")) == [("student", "base")]


def test_more_pairs_make_each_harder_to_show() -> None:
    rng = np.random.default_rng(0)
    scores = {name: rng.normal(0, 0.1, 60) for name in "abcd"}
    pairs = {("a", name): paired(scores["a"], scores[name]) for name in "bcd"}
    alone = compare({("a", "b"): pairs["a", "b"]}, concepts=60)[0]
    among = compare(pairs, concepts=60)[0]
    assert among["p_holm"] >= alone["p_holm"] and alone["difference"] == among["difference"]


def test_the_power_table_marks_this_examination() -> None:
    table = power_table(600)
    row = table[table["this one"]].iloc[0]
    assert row["groups"] == 600 and row["5 points"] == pytest.approx(0.91, abs=0.005)
    assert table["detectable"].is_monotonic_decreasing


@pytest.mark.parametrize("kind", ["graded", "all or nothing"])
def test_without_a_difference_five_in_a_hundred_cry_wolf(kind: Any) -> None:
    _, real = verdicts(kind, 60, 700, np.random.default_rng(3), draws=499)
    assert 0.03 <= real["protocol"] <= 0.07  # ± 1.6 is the 95 % range of 700 draws at 5 %
    assert real["runs pooled"] > 0.12 and real["three runs"] == 0


def test_a_true_difference_is_found_and_named() -> None:
    words, _ = verdicts("graded", 150, 150, np.random.default_rng(4), effect=0.10, draws=199)
    assert words["better"] / words.total() > 0.95
    words, _ = verdicts("graded", 300, 150, np.random.default_rng(5), draws=199)
    assert words["equivalent"] / words.total() > 0.85


def test_an_examined_model_says_its_own_words() -> None:
    bundled = LocalProvider()
    assert bundled.repetition_penalty == 1.15  # as a teacher it would else say one sentence over and over
    assert as_examined(bundled, 5) is bundled and (bundled.repetition_penalty, bundled.batch_size) == (None, 5)


def test_a_student_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidInput, match="no finished student 'nobody' in outputs/models"):
        arms("local:smollm2", student="nobody")
