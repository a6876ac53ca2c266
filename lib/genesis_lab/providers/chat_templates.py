"""What a model reads of a chat: its own template, mended where it leaves out what is said or depends on the day.

The mended template stays with the tokenizer, so teaching, examining, serving and an export all read the same text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from genesis_lab.errors import InvalidInput

DAY = date(2024, 7, 26)
"""Printed by every template that prints today's date: the day that Llama 3.1's falls back to."""

Chat = Sequence[Mapping[str, str]]
_SYSTEM, _ASKED, _ANSWERED, _ASKED_ON = (
    {"role": role, "content": f"zz{role}{number}zz"}
    for number, role in enumerate(("system", "user", "assistant", "user"))
)
"""Marked messages, by which it is seen what a template says."""
_MEND = "mend its chat_template.jinja, or choose another model"
_FOLD = (
    "{% if messages[0]['role'] == 'system' %}{% set messages = [{'role': 'user', 'content': "
    "messages[0]['content'] + '\\n\\n' + messages[1]['content']}] + messages[2:] %}{% endif %}\n"
)


def chat_text(tokenizer: Any, chat: Chat, *, asks: bool = True) -> str:
    """The chat as the model reads it, `asks`: up to where its answer begins. `InvalidInput` if its template can't."""
    mend(tokenizer)
    return _text(tokenizer, chat, asks)


def mend(tokenizer: Any) -> tuple[str, ...]:
    """Make the tokenizer's template say all that it is told, on every day the same; what was mended, in sentences.

    A system text that the template drops or refuses is put at the head of the first question; today's date becomes
    `DAY`. Raises `InvalidInput` where the template drops the user's words, or the system text even there.
    """
    if tokenizer.chat_template == getattr(tokenizer, "mended_template", None):
        return ()
    notes, turns = [], (_ASKED, _ANSWERED, _ASKED_ON)
    if not (_says(tokenizer, _ASKED) or _says(tokenizer, _SYSTEM, _ASKED)):
        _text(tokenizer, [_ASKED], True)
        raise InvalidInput(f"The model's chat template leaves out the user's words, so it can't be asked: {_MEND}.")
    if not _says(tokenizer, _SYSTEM, _ASKED) or (_says(tokenizer, *turns) and not _says(tokenizer, _SYSTEM, *turns)):
        _set(tokenizer, _FOLD + tokenizer.get_chat_template())
        place = "it stands at the head of the first question instead"
        notes.append(f"The chat template has no place for the system text: {place}.")
        if not _says(tokenizer, _SYSTEM, _ASKED):
            why = "leaves out the system text, at the head of a question too"
            raise InvalidInput(f"The model's chat template {why}: {_MEND}.")
    template = tokenizer.get_chat_template()
    if "strftime_now(" in template and "macro strftime_now(" not in template:
        formats = [form for _, form in re.findall(r"strftime_now\(\s*(['\"])(.*?)\1", template)]
        days = json.dumps({form: DAY.strftime(form) for form in formats}, ensure_ascii=False)
        fixed = f"{{% macro strftime_now(format) %}}{{{{ {days}.get(format, '{DAY}') }}}}{{% endmacro %}}\n"
        _set(tokenizer, fixed + template)
        always = f"it is always {DAY:%d %B %Y}, so that no answer depends on the day"
        notes.append(f"The chat template prints today's date: {always}.")
    tokenizer.mended_template = tokenizer.chat_template
    return tuple(notes)


def keeps_turns(tokenizer: Any) -> bool:
    """Whether earlier questions and answers stand in what the model reads."""
    return _says(tokenizer, _ASKED, _ANSWERED, _ASKED_ON)


def after_answer(tokenizer: Any) -> str:
    """What the template puts after an answer. Raises `InvalidInput` where it leaves out the answer."""
    mend(tokenizer)
    _, found, after = _tried(tokenizer, (_ASKED, _ANSWERED), False).rpartition(_ANSWERED["content"])
    if not found:
        why = "leaves out the assistant's words, so nothing says how an answer ends"
        raise InvalidInput(f"The model's chat template {why}: {_MEND}.")
    return after


def _says(tokenizer: Any, *chat: Mapping[str, str]) -> bool:
    text = _tried(tokenizer, chat, True)
    return all(message["content"] in text for message in chat)


def _tried(tokenizer: Any, chat: Chat, asks: bool) -> str:
    """The chat as the model reads it; empty where the template refuses it."""
    try:
        return _text(tokenizer, chat, asks)
    except InvalidInput:
        return ""


def _text(tokenizer: Any, chat: Chat, asks: bool) -> str:
    # Templates of reasoning models would open a long thought, which no schema has room for; others ignore the option.
    options = {"add_generation_prompt": asks, "tokenize": False, "enable_thinking": False}
    try:
        return str(tokenizer.apply_chat_template(list(chat), **options))
    except Exception as error:  # a template is a program of its own and raises what it likes
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InvalidInput(f"The model's chat template can't take this chat: {reason}.") from None


def _set(tokenizer: Any, template: str) -> None:
    several = tokenizer.chat_template
    tokenizer.chat_template = {**several, "default": template} if isinstance(several, dict) else template
