from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from genesis_lab.domains.base import Example, Score
from genesis_lab.errors import Fatal, InvalidInput, Rejected
from genesis_lab.finetuning.ask import Demonstration, PromptProgram, Sampling, ask
from genesis_lab.providers.base import Completion, Usage
from genesis_lab.providers.offline import OfflineProvider
from scripted import ScriptedProvider


class Echo:
    """A role whose perfect answer is the teacher's."""

    name = "echo"

    def score(self, text: str, example: Example) -> Score:
        right = text == example.answer
        return Score(float(right), bool(text), {"same": float(right)}, () if right else ("not the teacher's answer",))

    def answer_grammar(self) -> str | None:
        return None


def examples(n: int) -> list[Example]:
    return [Example(f"e{i}", f"g{i // 2}", "en", "Answer.", f"Question {i}", f"Answer {i}") for i in range(n)]


def asked(call: Any, n: int = 4, **options: Any):
    sampling = {name: options.pop(name) for name in list(options) if name in Sampling.__dataclass_fields__}
    return ask(
        call, examples(n), role=Echo(), sampling=Sampling(**{"runs": 2, **sampling}), **{"model": "m", **options}
    )


def test_every_example_is_asked_in_every_run_with_a_seed_of_its_own():
    provider = ScriptedProvider(lambda request, _: request.messages[-1][1].replace("Question", "Answer"))
    frame = asked(provider.complete).frame
    assert len(frame) == len({request.seed for request in provider.requests}) == 8
    assert frame["total"].eq(1).all() and frame.groupby("group").size().eq(4).all()


def test_the_offline_provider_gives_the_teachers_answers():
    assert asked(OfflineProvider().complete).frame["total"].eq(1).all()


def test_a_question_that_is_refused_has_no_score_is_counted_and_is_asked_again_next_time(tmp_path):

    def picky(request, _):
        return Rejected("too long") if "3" in request.messages[-1][1] else "Answer 0"

    first = asked(ScriptedProvider(picky).complete, folder=tmp_path)
    assert first.unanswered == 2 and set(first.frame["example"]) == {"e0", "e1", "e2"}
    assert first.score.estimate == pytest.approx(0.25)  # group g0 half, g1 none: e3 is no failure of the model
    patient = ScriptedProvider(["Answer 3"])
    again = asked(patient.complete, folder=tmp_path)
    assert (
        len(patient.requests) == 2
        and again.unanswered == 0
        and again.frame.query("example == 'e3'")["total"].eq(1).all()
    )


def test_a_run_that_was_stopped_goes_on_and_one_that_ended_is_only_read(tmp_path):
    with pytest.raises(Fatal):
        asked(
            ScriptedProvider(["Answer 0", "Answer 1", "Answer 2", Fatal("bad key")]).complete, folder=tmp_path, batch=1
        )
    provider = ScriptedProvider(["x"])
    whole = asked(provider.complete, folder=tmp_path)
    assert len(provider.requests) == 8 - 3
    provider.requests.clear()
    assert asked(provider.complete, folder=tmp_path).frame.equals(whole.frame) and not provider.requests


@pytest.mark.parametrize(
    "change",
    [{"model": "other"}, {"temperature": 0.1}, {"max_tokens": 7}, {"program": PromptProgram("Do.")}, {"seed": 1}],
    ids=lambda change: next(iter(change)),
)
def test_answers_to_anything_else_are_not_mixed_in(tmp_path, change):
    asked(ScriptedProvider(["old"]).complete, folder=tmp_path)
    answers = asked(ScriptedProvider(["new"]).complete, folder=tmp_path, **change)
    assert answers.frame["text"].eq("new").all()
    assert asked(ScriptedProvider(["newest"]).complete, folder=tmp_path).frame["text"].eq("old").all()


def test_demonstrations_of_a_program_come_before_the_question():
    provider = ScriptedProvider(["a"])
    asked(provider.complete, n=1, runs=1, program=PromptProgram("Do.", (Demonstration("Q", "A"),)))
    request = provider.requests[0]
    assert request.system == "Do." and request.messages == (("user", "Q"), ("assistant", "A"), ("user", "Question 0"))
    assert request.stable_messages == 2


def test_validity_counts_each_group_once() -> None:
    provider = ScriptedProvider(lambda request, _: "Answer 0" if "0" in request.messages[-1][1] else "")
    answers = asked(provider.complete)
    assert answers.validity.n == 2 and answers.validity.estimate == 0.25  # groups g0 (half) and g1 (none)
    assert answers.validity.low <= 0.25 <= answers.validity.high
    assert answers.total("cost_usd") == 0 and answers.parts() == {"same": 0.25}


def test_speed_counts_the_time_in_which_anything_was_being_answered_in_all_sessions(tmp_path):
    def at(minute, second, seconds):
        ended = datetime(2026, 1, 1, 12, minute, second, tzinfo=UTC)
        return Completion("Answer 0", "m", Usage(5, 30), latency_s=seconds, created_at=ended)

    first = [at(0, 10, 4.0), at(0, 12, 4.0), Fatal("no more")]  # two at once, from 12:00:06 to 12:00:12
    with pytest.raises(Fatal):
        asked(ScriptedProvider(first).complete, folder=tmp_path, n=3, runs=1, batch=1)
    answers = asked(ScriptedProvider([at(30, 0, 3.0)]).complete, folder=tmp_path, n=3, runs=1)
    assert answers.busy_s == pytest.approx(9.0) and answers.tokens_per_s == pytest.approx(10.0)
    offline = asked(OfflineProvider().complete)
    assert offline.busy_s is None and offline.tokens_per_s is None


def test_what_can_not_be_asked_is_refused():
    call = ScriptedProvider(["a"]).complete
    with pytest.raises(InvalidInput, match="no grammar"):
        asked(call, constrained=True)
    with pytest.raises(InvalidInput, match="got 0"):
        asked(call, n=0)
    with pytest.raises(InvalidInput, match="double"):
        ask(call, [replace(examples(1)[0])] * 2, role=Echo(), model="m")


def test_two_models_are_compared_on_what_both_answered():
    def picky(request, _):
        number = request.messages[-1][1].split()[-1]
        return Rejected("too long") if number < "4" else f"Answer {number}"

    some = asked(ScriptedProvider(picky).complete, n=24, runs=1)
    none = asked(ScriptedProvider(["x"]).complete, n=24, runs=1)
    found = none.against(some)
    answered = set(some.frame["group"])
    assert some.unanswered > 0 and found.losses == found.difference.n == len(answered) < 12
    assert found.difference.estimate == -1 == -some.against(none).difference.estimate


def test_a_model_that_answers_nothing_is_no_model_that_scores_0():
    with pytest.raises(Rejected, match="answered none of 8 questions: too long"):
        asked(ScriptedProvider([Rejected("too long")]).complete)


def test_a_part_that_an_answer_does_not_have_is_not_0():
    class Sometimes(Echo):
        def score(self, text: str, example: Example) -> Score:
            return Score(1.0, True, {"same": 1.0} if example.id == "e0" else {})

    answers = ask(ScriptedProvider(["a"]).complete, examples(4), role=Sometimes(), model="m", sampling=Sampling(runs=1))
    assert answers.parts() == {"same": 1.0}


def test_what_is_wrong_with_answers_is_named_and_tokens_that_nobody_counts_are_unknown(tmp_path):
    cut = Completion("", "m", None, stop_reason="max_tokens", note="Thinking used it up: raise max_tokens.")
    for _ in range(2):  # the second time from the file
        answers = asked(ScriptedProvider([cut]).complete, folder=tmp_path)
        assert all("raise max_tokens" in problems[0] for problems in answers.frame["problems"])
        assert answers.tokens_per_s is None and answers.frame["completion_tokens"].isna().all()
