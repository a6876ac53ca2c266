"""From safetensors to GGUF for llama.cpp and Ollama: converter, quantiser, parity of the tokenizer, Modelfile."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any, Literal

from genesis_lab.errors import GenesisError, InvalidInput, MissingDependency, Unavailable
from genesis_lab.files import output_root, placed, resolve, shown
from genesis_lab.providers.chat_templates import chat_text
from genesis_lab.settings import get_settings, project_root
from genesis_lab.yamls import read_yaml

Quantisation = Literal["f16", "q8_0", "q4_k_m"]
CONVERTER = "llama-cpp-python==0.3.36"
"""The release whose source package llama.cpp's converter is taken from; newer ones are tried before they stand here."""
_CONVERTER_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
_CONVERTER = "convert_hf_to_gguf.py"
_WANTED = (_CONVERTER, "conversion/", "gguf-py/gguf/", "LICENSE")
_QUANTISE = """
import ctypes, sys
import llama_cpp
options = llama_cpp.llama_model_quantize_default_params()
options.ftype = 15  # llama.h, LLAMA_FTYPE_MOSTLY_Q4_K_M
sys.exit(llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(options)))
"""
_KNOWN = Path(__file__).parent / "ollama.yaml"


def llama_cpp_sources(checkout: str | Path | None = None) -> Path:
    """The folder with llama.cpp's converter: a checkout of llama.cpp (None: ``GENESIS_LLAMA_CPP_DIR``), else the one
    that travels in the source package of llama-cpp-python, one release of it, fetched once and known by its SHA-256."""
    if given := checkout or get_settings().llama_cpp_dir:
        folder = resolve(given)
        if not (folder / _CONVERTER).is_file():
            raise InvalidInput(f"{shown(folder)} holds no {_CONVERTER}: give the folder of a llama.cpp checkout.")
        return folder
    target = output_root() / "cache" / "llama.cpp" / _CONVERTER_SHA256[:12]
    if not target.is_dir():
        _fetch(target)
    return target


def write(model: Path, target: Path, kind: Quantisation, *, sources: Path) -> None:
    """Write the safetensors folder `model` as a GGUF file; Q4_K_M by the library in llama-cpp-python.

    `InvalidInput` for a model that llama.cpp does not know.
    """
    if kind != "q4_k_m":
        return _convert(model, target, kind, sources)
    with tempfile.TemporaryDirectory(dir=model.parent) as scratch, placed(target) as temporary:
        whole = Path(scratch) / "whole.gguf"
        _convert(model, whole, "auto", sources)
        _run(["-c", _QUANTISE, str(whole), str(temporary)], f"llama.cpp can't quantise {shown(model)}")


def _convert(model: Path, target: Path, kind: str, sources: Path) -> None:
    if find_spec("sentencepiece") is None:
        raise MissingDependency("sentencepiece", "llama.cpp's converter", "pip install sentencepiece")
    with placed(target) as temporary:
        command = [str(sources / _CONVERTER), str(model), "--outfile", str(temporary), "--outtype", kind]
        _run(command, f"llama.cpp can't convert {shown(model)}")


def tokenizer_parity(tokenizer: Any, gguf: Path, own: Iterable[str] = ()) -> dict[str, Any]:
    """How many of `own` texts and 20 of many kinds become other tokens by the GGUF file than by `tokenizer`."""
    if find_spec("llama_cpp") is None:
        raise MissingDependency("llama-cpp-python", "Comparing tokenizers", "pip install llama-cpp-python")
    from llama_cpp import Llama

    texts = list(dict.fromkeys([*own, *read_yaml(_KNOWN)["texts"]]))
    with redirect_stderr(StringIO()):  # it warns that a vocabulary has no context
        vocabulary = Llama(str(gguf), vocab_only=True, verbose=False)
    theirs = [vocabulary.tokenize(text.encode(), add_bos=False, special=True) for text in texts]
    vocabulary.close()
    ours = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    differing = [text for text, a, b in zip(texts, ours, theirs, strict=True) if a != b]
    return {"n": len(texts), "differing_count": len(differing), "differing": differing[:20], "by": "llama.cpp"}


def ollama_template(tokenizer: Any) -> str | None:
    """The template of ``ollama.yaml`` that writes five chats as `tokenizer`'s own (see `providers.chat_templates`)
    does; None where none does."""
    from jinja2 import Environment

    said = (("system", "Be brief."), ("user", "What?"), ("assistant", "That."), ("user", "And now?"))
    system, user, answer, again = ({"role": role, "content": text} for role, text in said)
    asked = [user, answer, again]
    chats = [[user], [system, user], asked, [system, *asked], [system, *asked, answer, user]]
    try:
        wanted = [chat_text(tokenizer, chat) for chat in chats]
    except InvalidInput:
        return None
    if tokenizer.bos_token and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]:
        wanted = [text.removeprefix(tokenizer.bos_token) for text in wanted]  # llama.cpp adds it, as the tokenizer does
    for form in read_yaml(_KNOWN)["templates"]:
        found = re.match(form["default"], wanted[0], re.S) if "default" in form else None
        default = found[1] if found else ""
        render = Environment(keep_trailing_newline=True).from_string(form["jinja"]).render
        if ("default" not in form or default) and [render(messages=chat, default=default) for chat in chats] == wanted:
            return str(form["go"]).replace("{default}", default)
    return None


def modelfile(
    gguf: str, *, template: str | None, stop: Sequence[str], system: str = "", context_tokens: int = 4096
) -> str:
    """A Modelfile (https://docs.ollama.com/modelfile) for the file `gguf` beside it that asks as the student was
    taught, at temperature 0 without repetition penalty, as in the evaluation. Without a template Ollama takes the one
    it knows."""
    texts = [("TEMPLATE", template), ("SYSTEM", system), *(("PARAMETER stop", each) for each in stop)]
    if any('"""' in (text or "") for _, text in texts):
        raise InvalidInput('A Modelfile can\'t hold a text with three double quotes (""") in it: leave them out.')
    lines = [f"FROM ./{gguf}", *(f'{name} """{text}"""' for name, text in texts if text)]
    lines += ["PARAMETER temperature 0", "PARAMETER repeat_penalty 1", f"PARAMETER num_ctx {context_tokens}"]
    return "\n".join(lines) + "\n"


def ollama_create(name: str, file: Path) -> str | None:
    """Make the model known to the Ollama server on this machine; the reason where that did not work."""
    program = shutil.which("ollama")
    if program is None:
        return f"ollama is not installed here; where it is: ollama create {name} -f {file.name}"
    done = subprocess.run([program, "create", name, "-f", file.name], cwd=file.parent, capture_output=True, text=True)
    said = (done.stderr or done.stdout).strip().splitlines()
    return f"ollama create failed: {said[-1][:200] if said else 'no reason given'}" if done.returncode else None


def _fetch(target: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        # pip compares the digest before it runs anything of a package, which it does even to read its name.
        wanted = Path(scratch) / "wanted.txt"
        wanted.write_text(f"{CONVERTER} --hash=sha256:{_CONVERTER_SHA256}\n", encoding="ascii")
        download = ["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python"]
        try:
            _run([*download, "--dest", scratch, "--requirement", str(wanted)], f"{CONVERTER} can't be fetched")
        except InvalidInput as error:
            said = "llama.cpp's converter is not on this machine and can't be fetched"
            raise Unavailable(f"{said}: set GENESIS_LLAMA_CPP_DIR to a checkout of llama.cpp ({error})") from None
        (package,) = Path(scratch).glob("*.tar.gz")
        with placed(target) as temporary, tarfile.open(package) as archive:
            for member in archive:
                member.name = member.name.partition("/vendor/llama.cpp/")[2]
                if member.isfile() and member.name.startswith(_WANTED):
                    archive.extract(member, temporary, filter="data")


def _run(arguments: Sequence[str], failed: str) -> None:
    """Run Python with `arguments`. Ctrl-C ends it too."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=project_root(), capture_output=True, encoding="utf-8", errors="replace")
    said = done.stdout + done.stderr
    if done.returncode and "DO NOT MATCH THE HASHES" in said:
        raise GenesisError(
            f"{failed}: what came has another SHA-256 than the release that is known, so nothing of it was run. Set "
            "GENESIS_LLAMA_CPP_DIR to a checkout of llama.cpp that you trust."
        )
    if done.returncode:
        last = [line.strip() for line in said.splitlines() if line.strip()][-1:] or ["no reason given"]
        raise InvalidInput(f"{failed}: {last[0][:300]}")
