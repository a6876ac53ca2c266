"""Openings as people type them: real ones to learn from (seeds), their manner, and the reading of a written list."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from genesis_lab.domains.base import Spec
from genesis_lab.domains.conversations import record as r
from genesis_lab.domains.conversations.columns import assigned
from genesis_lab.domains.conversations.foreign import ChatReader
from genesis_lab.domains.conversations.grammar import GREETING
from genesis_lab.domains.conversations.taxonomy import Taxonomy
from genesis_lab.domains.language import detect
from genesis_lab.domains.reading import read_json
from genesis_lab.errors import InvalidInput, ParseFailure
from genesis_lab.files import dataset_path, digest, resolve
from genesis_lab.texts import same_words
from genesis_lab.yamls import shipped

_MANNER = Path(__file__).with_name("manner.yaml")
_LONGEST = 60
"""Words from which messages are planned as long as this."""
_SHOWN = 20
"""Seeds of an intent that one prompt shows."""
_COPY = 0.9
"""Similarity (difflib's ratio over characters) from which a message counts as a copy."""
_ASKS = re.compile(
    r".*\?|(how|what|when|where|why|which|who|can|could|do|does|is|are|will|qué|cómo|cuándo|dónde|cuánto|cuál)\b",
    re.IGNORECASE | re.DOTALL,
)
_NUMBERED = re.compile(r"^\s*(?:\(?\d{1,3}[.):]\s|[-*•–]\s)\s*")


def default_manner() -> dict[str, Any]:
    """How customers write where no real messages say it: word count to share, shares of kinds and moods."""
    known = dict(shipped(_MANNER))
    places = np.linspace(0, 1, len(known["words"]))
    words = np.interp((np.arange(200) + 0.5) / 200, places, known["words"]).round()
    return known | {"whose": "people's in short chats (documented default)", "words": _shares(words)}


def manner_of(texts: Sequence[str]) -> dict[str, Any]:
    """How these messages are written, in the form of `default_manner`; what can't be seen in them is the default's."""
    words = [min(len(text.split()), _LONGEST) for text in texts]
    kinds: dict[str, Callable[[str], Any]] = {
        "question": _ASKS.match,
        "lower_case": lambda text: text == text.lower(),
        "greeting": greets,
    }
    known = default_manner() | {"whose": f"those of the {len(words):,} messages given", "words": _shares(words)}
    return known | {name: float(np.mean([bool(fits(text)) for text in texts])) for name, fits in kinds.items()}


def greets(text: str) -> bool:
    """Whether a message begins with a greeting."""
    return bool(GREETING.match(text))


def _shares(words: Any) -> dict[str, float]:
    counts = Counter(int(n) for n in words)
    return {str(n): counts[n] / counts.total() for n in sorted(counts)}


class Seeds:
    """Real messages: `rows` with columns ``text``, ``intent`` and ``language``."""

    def __init__(self, rows: pd.DataFrame) -> None:
        self.rows = rows
        self._of = dict(iter(rows.groupby("intent")))

    def shown(self, intent: str, language: str, seed: int) -> list[str]:
        """At most 20 messages of an intent in a language, chosen by `seed`."""
        texts = self._of.get(intent, self.rows[:0]).query("language == @language")["text"].tolist()
        return [texts[i] for i in sorted(np.random.default_rng(seed).permutation(len(texts))[:_SHOWN])]

    def copied(self, text: str, intent: str) -> bool:
        """Whether a message says nearly the same as one of the intent's."""
        return intent in self._of and any(alike(text, seed) for seed in self._of[intent]["text"])


def alike(one: str, other: str) -> bool:
    """Whether two messages are the same but for a few letters."""
    one, other = same_words(one), same_words(other)
    matcher = difflib.SequenceMatcher(None, one, other, autojunk=False)
    return one == other or (matcher.quick_ratio() >= _COPY and matcher.ratio() >= _COPY)


def read_seeds(source: str, taxonomy: Taxonomy, *, labelled: bool = True) -> Seeds:
    """The real messages in a CSV, JSON, JSONL or Parquet file, or the openings of a dataset; each text once.

    Parameters
    ----------
    labelled : whether each must have an intent of the taxonomy.

    Raises
    ------
    InvalidInput : nothing can be read, a message lacks an intent or has an unknown one, none is in English or Spanish.
    """
    raws = _raw(source)
    known = {} if _path(source).is_dir() else assigned(raws[:1_000], {})[0]
    reader = ChatReader(tuple(r.Conversation.model_fields), known, taxonomy if labelled else None)
    found = []
    for number, raw in enumerate(raws, 1):
        record, _ = reader.read(raw)
        said = (turn["text"] for turn in record["turns"] or () if turn["speaker"] == "customer")
        if not (text := next((text for text in said if isinstance(text, str)), "").strip()):
            continue
        if labelled and (reasons := reader.derive(record) if record["intent"] else ["it has no label"]):
            raise InvalidInput(f"{source}, message {number}: {reasons[0]}.")
        language = str(record["language"] or detect(text) or "").lower()[:2] or None
        found.append({"text": text, "intent": record["intent"], "language": language})
    rows = pd.DataFrame(found, columns=["text", "intent", "language"]).drop_duplicates(["text", "intent"])
    if not len(rows):
        raise InvalidInput(f"{source} holds no messages: it needs columns text and label, or to be a dataset.")
    usual = rows["language"].mode()
    if not set(rows["language"]) & {"en", "es"}:
        raise InvalidInput(f"{source} holds no message that reads as English or Spanish.")
    rows["language"] = rows["language"].fillna(usual[0])  # too short to tell: in the language of the others
    return Seeds(rows)


def file_digest(source: str) -> str:
    """What changes whenever the messages of `source` do."""
    path = _path(source)
    return digest(*(sorted(path.glob("data/*.parquet")) if path.is_dir() else [path]))


def _path(source: str) -> Path:
    for path in (resolve(source), dataset_path(source)):
        if path.is_file() or (path / "manifest.json").is_file():
            return path
    raise InvalidInput(f"There is no file and no dataset {source!r} to take real messages from.")


def _raw(source: str) -> list[dict[str, Any]]:
    path = _path(source)
    try:
        if path.is_dir() or path.suffix == ".parquet":
            table = pd.read_parquet(path / "data" if path.is_dir() else path)
        elif path.suffix in (".json", ".jsonl"):
            table = pd.read_json(path, lines=path.suffix == ".jsonl", dtype=False)
        else:
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OSError, pd.errors.ParserError) as error:
        raise InvalidInput(f"{path.name} can't be read as a table: {str(error).splitlines()[0]}.") from None
    return [dict(row) for row in table.astype(object).where(table.notna(), None).to_dict("records")]


def messages_in(text: str, schema: Mapping[str, Any]) -> list[str]:
    """The messages of a list that a model wrote, as JSON or as lines, without numbers, bullets and quotes round."""
    try:
        items = read_json(text, schema)["messages"]
    except ParseFailure:
        if not (items := [line for line in text.splitlines() if _NUMBERED.match(line)]):
            raise
    texts = [item.get("text", item.get("message")) if isinstance(item, Mapping) else item for item in items]
    return [_NUMBERED.sub("", str(item or "")).strip().strip('"“”').strip() for item in texts]


def fault(text: str, spec: Spec) -> str:
    """Why a message can't stand for `spec`; empty where it can."""
    a, words = spec.attributes, len(text.split())
    fewest, most = max(1, a["words"] // 2), a["words"] + max(3, a["words"] // 2)
    if not fewest <= words <= most:
        return f"it has {words} words, about {a['words']} were asked for" if words else "the message is missing"
    found = detect(text) if words >= 5 else None
    return f"it must be in {a['language']!r}, it reads as {found!r}" if found not in (None, a["language"]) else ""
