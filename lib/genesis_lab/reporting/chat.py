"""Sample conversations as chat bubbles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from genesis_lab.reporting.markup import Html, escape, plain
from genesis_lab.reporting.style import INK, LINE, MUTED

_LABELS = ("category", "sentiment", "complexity", "emotion_arc", "resolution_status")
_SPEAKERS = {
    "en": {"customer": "Customer", "agent": "Agent"},
    "es": {"customer": "Cliente", "agent": "Agente"},
}
_CSS = f"""
.gl .chat{{border:1px solid {LINE};border-radius:10px;padding:10px 14px;margin:8px 0;max-width:640px;
break-inside:avoid}}
.gl .chat header{{font-size:12px;color:{MUTED};margin-bottom:6px}} .gl .chat header b{{color:{INK}}}
.gl .chat p{{margin:5px 0;padding:7px 11px;border-radius:12px;width:fit-content;max-width:78%;overflow-wrap:anywhere;
white-space:pre-wrap;color:{INK};background:#eef1f4;border-bottom-left-radius:3px}}
.gl .chat p.agent{{margin-left:auto;background:#dbe8f5;border-radius:12px 12px 3px 12px}}
.gl .chat p i{{display:block;font-style:normal;font-size:11px;color:#4b5661}}
"""


def chat(conversations: Iterable[Mapping[str, Any]], *, limit: int = 4) -> Html:
    """The first `limit` conversations, the customer on the left and the agent on the right.

    A conversation is a mapping with ``turns`` (each a mapping with ``speaker`` and ``text``) and, where known,
    ``intent``, ``language`` and the other labels. Missing parts are left out: foreign data may lack any of them.
    """
    shown = list(islice(conversations, limit))
    style = f"<style>{_CSS.strip()}</style>"
    return Html(style + "".join(map(_bubbles, shown)), "\n\n".join(map(_transcript, shown)))


def _turns(conversation: Mapping[str, Any]) -> list[tuple[str, str]]:
    turns = conversation.get("turns")
    turns = [] if turns is None else list(turns)
    return [(plain(turn.get("speaker") or "?"), plain(turn.get("text") or "")) for turn in turns]


def _head(conversation: Mapping[str, Any]) -> tuple[str, list[str]]:
    labels = [plain(conversation[name]) for name in ("language", *_LABELS) if conversation.get(name)]
    return plain(conversation.get("intent") or "no intent"), [label.replace("_", " ") for label in labels]


def _bubbles(conversation: Mapping[str, Any]) -> str:
    intent, labels = _head(conversation)
    language = plain(conversation.get("language") or "")
    names = _SPEAKERS.get(language, _SPEAKERS["en"])
    bubbles = "".join(
        f'<p dir="auto" class="{"agent" if speaker == "agent" else "customer"}">'
        f"<i>{escape(names.get(speaker, speaker))}</i>{escape(text)}</p>"
        for speaker, text in _turns(conversation)
    )
    head = f"<header><b>{escape(intent)}</b> · {escape(' · '.join(labels))}</header>"
    return f'<section class="chat" lang="{escape(language)}">{head}{bubbles or "<p>no turns</p>"}</section>'


def _transcript(conversation: Mapping[str, Any]) -> str:
    intent, labels = _head(conversation)
    return "\n".join([f"{intent} · {' · '.join(labels)}", *(f"{who}: {text}" for who, text in _turns(conversation))])
