"""The bilingual prompts: a list of openings of one intent, and the rest of a chat. What many share comes first."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from genesis_lab.domains.base import Message, Prompt, Spec
from genesis_lab.domains.conversations.options import KINDS
from genesis_lab.domains.conversations.record import MAX_TEXT
from genesis_lab.domains.conversations.taxonomy import Taxonomy
from genesis_lab.domains.reading import object_schema
from genesis_lab.texts import fence
from genesis_lab.yamls import shipped

SCAFFOLD = Path(__file__).with_name("prompt.yaml")
FEW_SHOT = Path(__file__).with_name("few_shot.yaml")
_TOLD = {
    "sentiment": "sentiment",
    "arc": "emotion_arc",
    "complexity": "complexity",
    "resolution": "resolution_status",
    "time": "resolution_time",
}
"""What a prompt says of a chat, and the attribute that decides it."""
_EXAMPLES = 12
"""Of the taxonomy's own sentences of an intent, so many show its range."""
_NEIGHBOURS = 4
_OF_A_NEIGHBOUR = 2
_KNOWN = 40
"""Most earlier messages that a list is shown."""
_LONGEST = 20
"""Words of a sentence that is still short."""
_CHOICE = re.compile(r"\[([^\[\]|]*)\|[^\[\]]*\]")
_TEXT = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT}


def list_schema(n: int) -> dict[str, Any]:
    """JSON schema of a list of `n` messages."""
    return object_schema({"messages": {"type": "array", "items": _TEXT, "minItems": n, "maxItems": n}})


@lru_cache
def schema(turns: int, first: int = 0) -> dict[str, Any]:
    """JSON schema of exactly `turns` turns, taken in turn; `first` is 1 where the agent speaks first.

    Services that know no ``prefixItems`` or counts leave them out and are left with the shape of a turn.
    """
    speakers = [("customer", "agent")[(i + first) % 2] for i in range(turns)]
    turn = [object_schema({"speaker": {"const": speaker}, "text": _TEXT}) for speaker in speakers]
    either = object_schema({"speaker": {"type": "string", "enum": ["customer", "agent"]}, "text": _TEXT})
    return object_schema(
        {"turns": {"type": "array", "items": either, "prefixItems": turn, "minItems": turns, "maxItems": turns}}
    )


def chat_prompt(spec: Spec, opening: str, taxonomy: Taxonomy, tone: str, few_shot: int) -> Prompt:
    """Asks for the rest of a chat that begins with `opening`, in the record's language.

    Parameters
    ----------
    tone : how the agent writes, a key of ``prompt.yaml``.
    few_shot : number of worked examples, chosen by language, sentiment and complexity.
    """
    a = spec.attributes
    words = shipped(SCAFFOLD)[a["language"]]
    examples = _worked(a["language"], a["sentiment"], a["complexity"], few_shot)
    told = {name: words[name][a[attribute]] for name, attribute in _TOLD.items()}
    told |= {"description": taxonomy.intent(a["intent"]).description[a["language"]], "opening": _fenced(opening)}
    task = words["task"].format(intent=a["intent"], turns=a["turns"], further=a["turns"] - 1, **told)
    company = taxonomy.title[a["language"]]
    return Prompt(
        system=words["system"].format(company=company, tone=words["tone"][tone], max_text=MAX_TEXT),
        messages=(*examples, ("user", task)),
        schema=schema(a["turns"] - 1, first=1),
        schema_name="conversation",
        stable=len(examples),
    )


def list_prompt(
    specs: Sequence[Spec], taxonomy: Taxonomy, neighbours: Sequence[str], texts: Mapping[str, Sequence[str]]
) -> Prompt:
    """Asks for one opening for each of `specs`, which share intent, language and the intent they are told apart from.

    Parameters
    ----------
    neighbours : other intents, closest first.
    texts : ``seeds``, real messages of the intent; ``across``, real ones of the intent that it is told apart from;
        ``contrast``, messages of the two that were mixed up, each with its intent; ``known``, earlier messages.
    """
    a = specs[0].attributes
    language, intent = a["language"], taxonomy.intent(a["intent"])
    words = shipped(SCAFFOLD)[language]["openings"]
    rng = np.random.default_rng(specs[0].seed)
    against = a.get("against", "")
    shown = [against, *(name for name in neighbours if name != against)] if against else neighbours

    def example(name: str, n: int) -> list[str]:
        lines = sentences(taxonomy, name, language)
        return [lines[i] for i in sorted(rng.permutation(len(lines))[:n])]

    def block(name: str, **more: str) -> str:
        said = texts.get(name, ())[-_KNOWN:]
        return words[name].format(texts=_fenced("\n".join(f"- {text}" for text in said)), **more) if said else ""

    def about(name: str) -> str:
        told = {"intent": name, "description": taxonomy.intent(name).description[language]}
        return str(words["neighbour"].format(examples=" / ".join(example(name, _OF_A_NEIGHBOUR)), **told))

    contrast = {"against": against, "intent": intent.name}
    if against:
        contrast["description"] = taxonomy.intent(against).description[language]
    told = {"neighbours": "\n".join(map(about, shown[:_NEIGHBOURS])) or "–"}
    task = words["task"].format(
        intent=intent.name,
        description=intent.description[language],
        examples="\n".join(f"- {line}" for line in example(intent.name, _EXAMPLES)),
        seeds=block("seeds"),
        contrast=block("across", **contrast) + block("contrast", **contrast) if against else "",
        known=block("known"),
        n=len(specs),
        lines="\n".join(f"{i}. {_kind(spec, words)}" for i, spec in enumerate(specs, 1)),
        **told,
    )
    return Prompt(
        system=words["system"].format(company=taxonomy.title[language]),
        messages=(("user", task),),
        schema=list_schema(len(specs)),
        schema_name="messages",
    )


def sentences(taxonomy: Taxonomy, intent: str, language: Any) -> list[str]:
    """What customers say by the taxonomy, patterns in their first wording; long ones and slots for want of others."""
    lines = [_CHOICE.sub(r"\1", line) for line in taxonomy.intent(intent).examples[language]]
    return [line for line in lines if "{" not in line and len(line.split()) <= _LONGEST] or lines


def closest(taxonomy: Taxonomy, language: Any) -> dict[str, list[str]]:
    """Each intent to the others, closest first: by the words of their sentences and descriptions (cosine of TF-IDF).

    The same category counts as a tenth more.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    names = taxonomy.names
    told = ([one.description[language], *sentences(taxonomy, one.name, language)] for one in taxonomy.intents)
    said = map(" ".join, told)
    vectors = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)).fit_transform(said)
    alike = (vectors @ vectors.T).toarray()
    category = np.array([taxonomy.category_of[name] for name in names])
    alike += 0.1 * (category[:, None] == category)
    order = np.argsort(-alike.round(9), axis=1, kind="stable")
    return {name: [names[j] for j in order[i] if j != i] for i, name in enumerate(names)}


def _kind(spec: Spec, words: Mapping[str, Any]) -> str:
    """What one line of a list asks for."""
    a = spec.attributes
    said = [words["words"].format(n=a["words"]), words["question" if a["question"] else "statement"]]
    said += [words[name] for name in KINDS[1:] if a[name]]
    return ", ".join([*said, *filter(None, [words["sentiment"][a["sentiment"]]])])


def _fenced(text: str) -> str:
    mark = fence(text)
    return f"{mark}\n{text}\n{mark}"


@lru_cache
def _worked(language: str, sentiment: str, complexity: str, few_shot: int) -> tuple[Message, ...]:
    """The worked examples of a language, closest in sentiment and complexity first."""
    words = shipped(SCAFFOLD)[language]
    found = [e for e in shipped(FEW_SHOT) if e["language"] == language]
    found.sort(key=lambda e: (e["sentiment"] != sentiment) + (e["complexity"] != complexity))
    messages: list[Message] = []
    for example in found[:few_shot]:
        turns = [{"speaker": speaker, "text": text} for speaker, text in example["turns"]]
        mood, opening = words["sentiment"][example["sentiment"]], _fenced(turns[0]["text"])
        ask = words["example"].format(turns=len(turns), sentiment=mood, opening=opening)
        messages += [("user", ask), ("assistant", json.dumps({"turns": turns[1:]}, ensure_ascii=False))]
    return tuple(messages)
