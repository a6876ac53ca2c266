"""The bilingual prompts: a list of openings of one intent, and the rest of a chat. What many share comes first, for prompt caches."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from genesis_lab.domains.base import Message, Prompt, Spec
from genesis_lab.domains.conversations.neighbours import intent_named, sentences
from genesis_lab.domains.conversations.plan import KINDS
from genesis_lab.domains.conversations.record import MAX_TEXT
from genesis_lab.domains.conversations.taxonomy import Taxonomy
from genesis_lab.domains.reading import object_schema
from genesis_lab.texts import fence
from genesis_lab.yamls import shipped

SCAFFOLD = Path(__file__).with_name("prompt.yaml")
FEW_SHOT = Path(__file__).with_name("few_shot.yaml")
_EXAMPLES = 12
"""Of the taxonomy's own sentences of an intent, so many show its range."""
_NEIGHBOURS = 4
_OF_A_NEIGHBOUR = 2
_KNOWN = 40
"""Most earlier messages that a list is shown."""


_TEXT = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT}


def list_schema(n: int) -> dict[str, Any]:
    """JSON schema of a list of `n` messages."""
    return object_schema({"messages": {"type": "array", "items": _TEXT, "minItems": n, "maxItems": n}})


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


def chat_prompt(spec: Spec, opening: str, taxonomy: Taxonomy, *, tone: str, few_shot: int) -> Prompt:
    """Asks for the rest of a chat that begins with `opening`, in the record's language.

    Parameters
    ----------
    tone : how the agent writes, a key of ``prompt.yaml``.
    few_shot : number of worked examples, chosen by language, sentiment and complexity.
    """
    a = spec.attributes
    words = shipped(SCAFFOLD)[a["language"]]
    examples = _worked(a["language"], a["sentiment"], a["complexity"], few_shot)
    task = words["task"].format(
        intent=a["intent"],
        description=intent_named(taxonomy, a["intent"]).description[a["language"]],
        turns=a["turns"],
        further=a["turns"] - 1,
        opening=_fenced(opening),
        sentiment=words["sentiment"][a["sentiment"]],
        arc=words["arc"][a["emotion_arc"]],
        complexity=words["complexity"][a["complexity"]],
        resolution=words["resolution"][a["resolution_status"]],
        time=words["time"][a["resolution_time"]],
    )
    return Prompt(
        system=words["system"].format(
            company=taxonomy.title[a["language"]], tone=words["tone"][tone], max_text=MAX_TEXT
        ),
        messages=(*examples, ("user", task)),
        schema=schema(a["turns"] - 1, first=1),
        schema_name="conversation",
        stable=len(examples),
    )


def list_prompt(
    specs: Sequence[Spec],
    taxonomy: Taxonomy,
    neighbours: Sequence[str],
    *,
    seeds: Sequence[str] = (),
    across: Sequence[str] = (),
    mixed: Sequence[str] = (),
    known: Sequence[str] = (),
) -> Prompt:
    """Asks for one opening for each of `specs`, which share intent, language and the intent they are told apart from.

    Parameters
    ----------
    neighbours : other intents, closest first.
    seeds : real messages of the intent.
    across : real messages of the intent that this one is told apart from.
    mixed : messages of the two intents that were mixed up, each with the one that it has.
    known : messages that were written before.
    """
    a = specs[0].attributes
    language, intent = a["language"], intent_named(taxonomy, a["intent"])
    words = shipped(SCAFFOLD)[language]["openings"]
    rng = np.random.default_rng(specs[0].seed)
    against = a.get("against", "")
    shown = [against, *(name for name in neighbours if name != against)] if against else neighbours

    def example(name: str, n: int) -> list[str]:
        lines = sentences(taxonomy, name, language)
        return [lines[i] for i in sorted(rng.permutation(len(lines))[:n])]

    def block(name: str, texts: Sequence[str], **more: str) -> str:
        return words[name].format(texts=_fenced("\n".join(f"- {text}" for text in texts)), **more) if texts else ""

    described = [
        words["neighbour"].format(
            intent=name,
            description=intent_named(taxonomy, name).description[language],
            examples=" / ".join(example(name, _OF_A_NEIGHBOUR)),
        )
        for name in shown[:_NEIGHBOURS]
    ]
    contrast = {"against": against, "intent": intent.name}
    if against:
        contrast["description"] = intent_named(taxonomy, against).description[language]
    task = words["task"].format(
        intent=intent.name,
        description=intent.description[language],
        examples="\n".join(f"- {line}" for line in example(intent.name, _EXAMPLES)),
        neighbours="\n".join(described) or "–",
        seeds=block("seeds", seeds),
        contrast=block("across", across, **contrast) + block("contrast", mixed, **contrast) if against else "",
        known=block("known", known[-_KNOWN:]),
        n=len(specs),
        lines="\n".join(f"{i}. {_kind(spec, words)}" for i, spec in enumerate(specs, 1)),
    )
    return Prompt(
        system=words["system"].format(company=taxonomy.title[language]),
        messages=(("user", task),),
        schema=list_schema(len(specs)),
        schema_name="messages",
    )


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
