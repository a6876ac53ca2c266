"""The smallest role there is, for tests of what asks and compares models."""

from genesis_lab.domains.base import Example, Score


class Share:
    """A role that scores how many of an answer's words are the teacher's."""

    name = "share"

    def score(self, text: str, example: Example) -> Score:
        wanted = set(example.answer.split())
        share = len(wanted & set(text.split())) / len(wanted)
        return Score(share, share > 0.5, {"words": share})

    def answer_grammar(self) -> str | None:
        return None
