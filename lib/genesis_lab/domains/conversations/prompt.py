"""The bilingual prompt for one conversation. What many records share comes first, so that provider prompt caches pay."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from genesis_lab.domains.base import Message, Prompt, Spec
from genesis_lab.domains.conversations.record import MAX_TEXT
from genesis_lab.domains.conversations.taxonomy import Taxonomy
from genesis_lab.yamls import shipped

SCAFFOLD = Path(__file__).with_name("prompt.yaml")
FEW_SHOT = Path(__file__).with_name("few_shot.yaml")
_EXAMPLE_UTTERANCES = 3


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def schema(turns: int) -> dict[str, Any]:
    """JSON schema of a conversation of exactly `turns` turns, taken in turn.

    Services that know no ``prefixItems`` or counts leave them out and are left with the shape of a turn.
    """
    text = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT}
    turn = [_object({"speaker": {"const": ("customer", "agent")[i % 2]}, "text": text}) for i in range(turns)]
    either = _object({"speaker": {"type": "string", "enum": ["customer", "agent"]}, "text": text})
    return _object(
        {"turns": {"type": "array", "items": either, "prefixItems": turn, "minItems": turns, "maxItems": turns}}
    )


def build_prompt(spec: Spec, taxonomy: Taxonomy, *, tone: str, few_shot: int) -> Prompt:
    """System, worked examples chosen by language, sentiment and complexity, then the spec, all in the record's language.

    Parameters
    ----------
    tone : how the agent writes, a key of ``prompt.yaml``.
    few_shot : number of worked examples.
    """
    a = spec.attributes
    words = shipped(SCAFFOLD)[a["language"]]
    system = words["system"].format(company=taxonomy.title[a["language"]], tone=words["tone"][tone], max_text=MAX_TEXT)
    examples = _examples(a["language"], a["sentiment"], a["complexity"], few_shot)
    return Prompt(
        system=system,
        messages=(*examples, ("user", _task(spec, taxonomy, words))),
        schema=schema(a["turns"]),
        schema_name="conversation",
        stable=len(examples),
    )


def _task(spec: Spec, taxonomy: Taxonomy, words: dict[str, Any]) -> str:
    a = spec.attributes
    intent = next(i for i in taxonomy.intents if i.name == a["intent"])
    lines = taxonomy.script(a["intent"]).examples[a["language"]]
    start = spec.seed % len(lines)
    plain = [line for line in (*lines[start:], *lines[:start]) if "[" not in line and "{" not in line]
    return str(words["task"]).format(
        intent=intent.name,
        description=intent.description[a["language"]],
        utterances="\n".join(f"- {line}" for line in plain[:_EXAMPLE_UTTERANCES]),
        turns=a["turns"],
        sentiment=words["sentiment"][a["sentiment"]],
        arc=words["arc"][a["emotion_arc"]],
        complexity=words["complexity"][a["complexity"]],
        resolution=words["resolution"][a["resolution_status"]],
        time=words["time"][a["resolution_time"]],
        style=words["styles"][spec.seed % len(words["styles"])],
    )


@lru_cache
def _examples(language: str, sentiment: str, complexity: str, few_shot: int) -> tuple[Message, ...]:
    """The worked examples of a language, closest in sentiment and complexity first."""
    words = shipped(SCAFFOLD)[language]
    found = [e for e in shipped(FEW_SHOT) if e["language"] == language]
    found.sort(key=lambda e: (e["sentiment"] != sentiment) + (e["complexity"] != complexity))
    messages: list[Message] = []
    for example in found[:few_shot]:
        turns = [{"speaker": speaker, "text": text} for speaker, text in example["turns"]]
        ask = words["example"].format(turns=len(turns), sentiment=words["sentiment"][example["sentiment"]])
        messages += [("user", ask), ("assistant", json.dumps({"turns": turns}, ensure_ascii=False))]
    return tuple(messages)
