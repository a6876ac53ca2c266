"""A student for Ollama: its chat template in Go's syntax, a Modelfile, ``ollama create``."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from genesis_lab.errors import InvalidInput
from genesis_lab.providers.chat_templates import Chat, chat_text

_SYSTEM, _FIRST, _ANSWER, _LAST = "⟦system⟧", "⟦first⟧", "⟦answer⟧", "⟦last⟧"


@dataclass(frozen=True, slots=True)
class ChatForm:
    """What a chat template puts around the messages, each pair as the text before and after.

    Parameters
    ----------
    user, assistant : around the messages of the two.
    opening : what asks the model to speak.
    system : around the system text where it is a message of its own; else in `folded`.
    without_system : what stands there when no system text is given (a default one, with some models).
    folded : which user message opens with the system text where it is none of its own; `fold` comes between the two.
    """

    user: tuple[str, str]
    assistant: tuple[str, str]
    opening: str
    system: tuple[str, str] = ("", "")
    without_system: str = ""
    folded: Literal["first", "last"] | None = None
    fold: str = ""

    def text(self, chat: Chat) -> str:
        """The chat as the model reads it, ending with its turn to speak."""
        system = "".join(m["content"] for m in chat if m["role"] == "system")
        rest = [m for m in chat if m["role"] != "system"]
        asked = [i for i, m in enumerate(rest) if m["role"] == "user"]
        into = {"first": asked[0], "last": asked[-1]}.get(self.folded or "") if system else None
        text = "" if self.folded else (system.join(self.system) if system else self.without_system)
        for i, message in enumerate(rest):
            before, after = self.user if message["role"] == "user" else self.assistant
            text += before + (system + self.fold if i == into else "") + message["content"] + after
        return text + self.opening

    def go_template(self) -> str:
        """The same as an Ollama template (Go's text/template over ``.System`` and ``.Messages``)."""
        before, after = self.user
        if self.folded == "first":
            fold = f'{{{{ if $system }}}}{{{{ $system }}}}{self.fold}{{{{ $system = "" }}}}{{{{ end }}}}'
            head, loop = "{{ $system := .System }}", "{{ range .Messages }}"
        elif self.folded == "last":
            last = "(eq (len (slice $.Messages $i)) 1)"
            fold = f"{{{{ if and $.System {last} }}}}{{{{ $.System }}}}{self.fold}{{{{ end }}}}"
            head, loop = "", "{{ range $i, $message := .Messages }}"
        else:
            fold, loop = "", "{{ range .Messages }}"
            other = f"{{{{ else }}}}{self.without_system}" if self.without_system else ""
            head = f"{{{{ if .System }}}}{self.system[0]}{{{{ .System }}}}{self.system[1]}{other}{{{{ end }}}}"
        return (
            f'{head}{loop}{{{{ if eq .Role "user" }}}}{before}{fold}{{{{ .Content }}}}{after}'
            f'{{{{ else if eq .Role "assistant" }}}}{self.assistant[0]}{{{{ .Content }}}}{self.assistant[1]}'
            f"{{{{ end }}}}{{{{ end }}}}{self.opening}"
        )


def chat_form(tokenizer: Any) -> ChatForm | None:
    """The form of `tokenizer`'s chat template, found by rendering marked messages; None where it has another shape.

    Proven on several chats before it is returned: ChatML, Llama 3, Gemma and Mistral templates all have such a form.
    A template that drops or refuses a system message gets its text at the head of the first question, and one with
    today's date a fixed one, as in teaching (see `providers.chat_templates`).
    """
    system = [{"role": "system", "content": _SYSTEM}]
    first, answer, last = (
        {"role": role, "content": text} for role, text in (("user", _FIRST), ("assistant", _ANSWER), ("user", _LAST))
    )
    try:
        bare = _render(tokenizer, [first])
        unasked = _render(tokenizer, [first], asks=False)
        between, after_last = _render(tokenizer, [first, answer, last]).split(_FIRST)[1].split(_ANSWER)
        after_user = _within(unasked.split(_FIRST)[1], between, tokenizer)
        opening = bare.split(_FIRST)[1].removeprefix(after_user)
        closed = _render(tokenizer, [first, answer], asks=False)
        after_answer = _within(closed.split(_ANSWER)[1], after_last, tokenizer)
        before_user = after_last.split(_LAST)[0].removeprefix(after_answer)
        user, assistant = (before_user, after_user), (between.removeprefix(after_user), after_answer)
        opened, middle = _render(tokenizer, [*system, first]).split(_FIRST)[0].split(_SYSTEM)
        without = bare.split(_FIRST)[0].removesuffix(before_user)
    except (IndexError, ValueError, InvalidInput):
        return None
    candidates = [
        ChatForm(user, assistant, opening, (opened, middle.removesuffix(before_user)), without),
        ChatForm(user, assistant, opening, folded="first", fold=middle),
        ChatForm(user, assistant, opening, folded="last", fold=middle),
    ]
    question = [first, answer, last]
    chats: list[Chat] = [[first], [*system, first], question, [*system, *question], [*system, *question, answer, first]]
    wanted = [_render(tokenizer, chat) for chat in chats]
    fits = [form for form in candidates if [form.text(chat) for chat in chats] == wanted]
    return fits[0] if fits and "{{" not in "".join(wanted) else None


def stops(tokenizer: Any, eos_ids: Sequence[int]) -> list[str]:
    """The tokens that end an answer, as texts."""
    return list(dict.fromkeys(tokenizer.convert_ids_to_tokens(list(eos_ids))))


def modelfile(
    gguf: str,
    *,
    form: ChatForm | None,
    stop: Sequence[str],
    system: str = "",
    context_tokens: int = 4096,
    adapter: str | None = None,
) -> str:
    """A Modelfile (https://docs.ollama.com/modelfile) that asks as the student was taught.

    Ollama's own temperature (0.8) and repetition penalty (1.1) are set to what the evaluation used: 0 and none.

    Parameters
    ----------
    gguf, adapter : files, relative to the Modelfile.
    form : None leaves the template to Ollama, which knows many by the GGUF file's own.

    Raises
    ------
    InvalidInput : a text holds three double quotes, which the format can't carry.
    """
    lines = [f"FROM ./{gguf}"]
    if adapter:
        lines.append(f"ADAPTER ./{adapter}")
    if form:
        lines.append(f"TEMPLATE {_quoted(form.go_template())}")
    if system:
        lines.append(f"SYSTEM {_quoted(system)}")
    lines += [f"PARAMETER stop {_quoted(each)}" for each in stop]
    lines += ["PARAMETER temperature 0", "PARAMETER repeat_penalty 1", f"PARAMETER num_ctx {context_tokens}"]
    return "\n".join(lines) + "\n"


def ollama_create(name: str, file: Path) -> str | None:
    """Make the model known to the Ollama server on this machine; the reason where that did not work."""
    program = shutil.which("ollama")
    if program is None:
        return f"ollama is not installed here; where it is: ollama create {name} -f {file.name}"
    done = subprocess.run([program, "create", name, "-f", file.name], cwd=file.parent, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        return f"ollama create failed: {said[-1][:200] if said else 'no reason given'}"
    return None


def _render(tokenizer: Any, chat: Chat, *, asks: bool = True) -> str:
    text = chat_text(tokenizer, chat, asks=asks)
    if tokenizer.bos_token and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]:
        text = text.removeprefix(tokenizer.bos_token)  # llama.cpp adds it, as the tokenizer does
    return text


def _within(tail: str, goes_on: str, tokenizer: Any) -> str:
    """What closes a message: the chat's last words, without an end of text that only stands where nothing follows."""
    return tail if goes_on.startswith(tail) else tail.removesuffix(tokenizer.eos_token or "")


def _quoted(text: str) -> str:
    if '"""' in text:
        raise InvalidInput('A Modelfile can\'t hold a text with three double quotes (""") in it: leave them out.')
    return f'"""{text}"""'
