"""From safetensors to GGUF: llama.cpp's own converter, its quantiser, and whether the tokenizer came through."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np

from genesis_lab.errors import GenesisError, InvalidInput, MissingDependency, Unavailable
from genesis_lab.files import output_root, placed, resolve, shown
from genesis_lab.providers.local_models import unpacked
from genesis_lab.settings import get_settings, project_root

Quantisation = Literal["f16", "q8_0", "q4_k_m"]

CONVERTER = "llama-cpp-python==0.3.36"
"""The release whose source package llama.cpp's converter is taken from; newer ones are tried before they stand here."""
_CONVERTER_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
_CONVERTER = "convert_hf_to_gguf.py"
_WANTED = (_CONVERTER, "conversion/", "gguf-py/gguf/", "LICENSE")
_FILE_TYPES: dict[Quantisation, int] = {"q8_0": 7, "q4_k_m": 15}  # llama.h, enum llama_ftype
_QUANTISE = """
import ctypes, sys
import llama_cpp
options = llama_cpp.llama_model_quantize_default_params()
options.ftype = int(sys.argv[3])
sys.exit(llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(options)))
"""


@dataclass(frozen=True, slots=True)
class Parity:
    """Whether two tokenizers agree: `n` texts compared, and those that differ."""

    n: int
    differing: tuple[str, ...]
    by: str
    """What read the GGUF file's tokenizer."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "n": self.n,
            "differing": list(self.differing[:20]),
            "differing_count": len(self.differing),
            "by": self.by,
        }


def llama_cpp_sources(checkout: str | Path | None = None) -> Path:
    """The folder with llama.cpp's converter.

    Parameters
    ----------
    checkout : a clone of llama.cpp; None takes ``GENESIS_LLAMA_CPP_DIR``, else the converter that travels in the
        source package of llama-cpp-python, one release of it, fetched once into ``outputs/cache/llama.cpp``.

    Raises
    ------
    InvalidInput : the checkout holds no converter.
    Unavailable : the source package can't be fetched.
    GenesisError : what was fetched is not that release by its SHA-256; nothing of it was run.
    """
    given = checkout or get_settings().llama_cpp_dir
    if given:
        folder = resolve(given)
        if not (folder / _CONVERTER).is_file():
            raise InvalidInput(f"{shown(folder)} holds no {_CONVERTER}: give the folder of a llama.cpp checkout.")
        return folder
    target = output_root() / "cache" / "llama.cpp" / _CONVERTER_SHA256[:12]
    if not target.is_dir():
        _fetch(target)
    return target


def convert(model: Path, target: Path, *, sources: Path, outtype: str) -> None:
    """Write the safetensors folder `model` as the GGUF file `target`.

    Raises
    ------
    MissingDependency : sentencepiece is not installed, which llama.cpp's converter needs.
    InvalidInput : llama.cpp does not know this architecture or tokenizer.
    """
    for package in ("sentencepiece", "torch", "transformers"):
        if find_spec(package) is None:
            raise MissingDependency(package, "llama.cpp's converter", f"pip install {package}")
    with placed(target) as temporary:
        _run(
            [str(sources / _CONVERTER), str(model), "--outfile", str(temporary), "--outtype", outtype],
            f"llama.cpp can't convert {shown(model)}",
        )


def quantise(source: Path, target: Path, kind: Quantisation) -> None:
    """Write the GGUF file `source` with fewer bits, by the library in llama-cpp-python."""
    with placed(target) as temporary:
        _run(
            ["-c", _QUANTISE, str(source), str(temporary), str(_FILE_TYPES[kind])],
            f"llama.cpp can't quantise {shown(source)} to {kind}",
        )


def weight_formats(gguf: Path) -> dict[str, float]:
    """Share of the weights in each number format, largest first.

    Q4_K needs rows of a multiple of 256 weights; where a small model's are not, llama.cpp takes Q5_0 and the like.
    """
    from gguf import GGUFReader

    counts: Counter[str] = Counter()
    for tensor in GGUFReader(gguf).tensors:
        counts[tensor.tensor_type.name] += int(tensor.n_elements)
    return {name: count / counts.total() for name, count in counts.most_common()}


def tokenizer_parity(tokenizer: Any, gguf: Path, texts: Sequence[str]) -> Parity:
    """Compare the ids that `tokenizer` (Hugging Face) and the GGUF file's own tokenizer give to `texts`.

    llama.cpp reads the file where its bindings are installed, else transformers does.

    Raises
    ------
    InvalidInput : transformers can't read it.
    """
    if find_spec("llama_cpp"):
        from llama_cpp import Llama

        with redirect_stderr(StringIO()):  # it warns that a vocabulary has no context
            vocabulary = Llama(str(gguf), vocab_only=True, verbose=False)
        theirs = [vocabulary.tokenize(text.encode(), add_bos=False, special=True) for text in texts]
        vocabulary.close()
        by = "llama.cpp"
    else:
        from transformers import AutoTokenizer

        other = AutoTokenizer.from_pretrained(unpacked(gguf, gguf.stem))
        theirs = [other(text, add_special_tokens=False)["input_ids"] for text in texts]
        by = "transformers"
    ours = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    return Parity(len(texts), tuple(t for t, a, b in zip(texts, ours, theirs, strict=True) if a != b), by)


def parity_texts(own: Sequence[str], n: int = 1000, seed: int = 42) -> list[str]:
    """`n` different texts to try a tokenizer on: `own`, English and Spanish, code, and characters from all over Unicode.

    English, Spanish and code are lines of this package's own files.
    """
    rng = np.random.default_rng(seed)
    package = Path(__file__).parents[1]
    lines = {ending: sorted(set(_lines(package, ending))) for ending in ("yaml", "py")}
    found = dict.fromkeys(own[: n // 4])
    for each in lines.values():
        found |= dict.fromkeys(str(line) for line in rng.choice(each, min(n // 3, len(each)), replace=False))
    while len(found) < n:
        found[_any_characters(rng)] = None
    return list(found)[:n]


def _lines(package: Path, ending: str) -> Iterator[str]:
    for path in sorted(package.rglob(f"*.{ending}")):
        yield from (line for line in path.read_text(encoding="utf-8").splitlines() if line.strip())


_BLOCKS = (
    (0x20, 0x7E), (0x20, 0x7E), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x52F), (0x590, 0x6FF), (0x900, 0x97F),
    (0x2000, 0x206F), (0x20A0, 0x23FF), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x1F300, 0x1FAFF),
)  # fmt: skip


def _any_characters(rng: np.random.Generator) -> str:
    """A few runs of characters, each from one block of Unicode, with white space of many kinds between."""
    parts = []
    for _ in range(rng.integers(1, 6)):
        low, high = _BLOCKS[rng.integers(len(_BLOCKS))]
        parts.append("".join(chr(c) for c in rng.integers(low, high + 1, rng.integers(1, 9))))
        parts.append(str(rng.choice([" ", "  ", "\n", "\t", "", "\r\n", "\n\n "])))
    return "".join(parts)


def _fetch(target: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        # pip compares the digest before it runs anything of a package, which it does even to read its name.
        wanted = Path(scratch) / "wanted.txt"
        wanted.write_text(f"{CONVERTER} --hash=sha256:{_CONVERTER_SHA256}\n", encoding="ascii")
        download = ["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python"]
        try:
            _run([*download, "--dest", scratch, "--requirement", str(wanted)], f"{CONVERTER} can't be fetched")
        except InvalidInput as error:
            raise Unavailable(
                f"llama.cpp's converter is not on this machine and can't be fetched: set GENESIS_LLAMA_CPP_DIR to a "
                f"checkout of llama.cpp ({error})"
            ) from None
        (package,) = Path(scratch).glob("*.tar.gz")
        with placed(target) as temporary, tarfile.open(package) as archive:
            for member in archive:
                _, _, path = member.name.partition("/vendor/llama.cpp/")
                if member.isfile() and path.startswith(_WANTED):
                    member.name = path
                    archive.extract(member, temporary, filter="data")


def _run(arguments: Sequence[str], failed: str) -> str:
    """Run Python with `arguments`; what it printed. Ctrl-C ends it too."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=project_root(),
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    said = done.stdout + done.stderr
    if done.returncode:
        if "No space left" in said:
            raise GenesisError(f"{failed}: the disk is full.")
        if "DO NOT MATCH THE HASHES" in said:
            raise GenesisError(
                f"{failed}: what came has another SHA-256 than the release that is known, so nothing of it was run. Set "
                "GENESIS_LLAMA_CPP_DIR to a checkout of llama.cpp that you trust."
            )
        last = [line.strip() for line in said.splitlines() if line.strip()][-1:] or ["no reason given"]
        raise InvalidInput(f"{failed}: {last[0][:300]}")
    return said
