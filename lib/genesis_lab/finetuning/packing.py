"""Packing: several examples in one row, each as if it were alone. On a GPU transformers sees that from the positions;
on a CPU, where a mask over the row would cost more than padding, each one's attention is computed by itself, in tiles
that leave out the future, and words that all begin with (a role's instruction) are computed once, with the same
result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from genesis_lab.finetuning.tasks import Encoded

TILED = "genesis_tiled"
ALONE = "one by one"
"""Not an implementation of attention: a row for each example, for models that would mix those of a row."""
_TILE = 256
_BEGINNING = 16
"""Prompts that agree in so many tokens are looked at for a longer common beginning."""


@dataclass(frozen=True, slots=True)
class Row:
    """What goes through the model at once: `shared` tokens that all its examples begin with, then the rest of each.

    `lengths` are those of the rests (padding is the last of them); `at` is where each of the `labels`, the response
    tokens, is to be predicted. `tokens` counts every example whole."""

    ids: list[int]
    positions: list[int]
    lengths: list[int]
    shared: int
    at: list[int]
    labels: list[int]
    tokens: int


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Places in `lengths`, packed into bins of `capacity`: the longest first, each into the fullest bin that takes it
    (Johnson 1973: at most 11/9 of the fewest bins there could be)."""
    bins, room = list[list[int]](), list[int]()
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fits = [place for place, left in enumerate(room) if left >= lengths[i]]
        fullest = min(fits, key=room.__getitem__, default=len(bins))
        if not fits:
            bins.append([])
            room.append(capacity)
        bins[fullest].append(i)
        room[fullest] -= lengths[i]
    return bins


def rows(
    examples: Sequence[Encoded], capacity: int, *, share: bool = False, filled: bool = False, pad: int = 0
) -> list[Row]:
    """The examples in rows of at most `capacity` tokens, `filled` ones padded to one shape (for compiled models).

    With `share`, examples whose prompts begin alike share that beginning; only `TILED` attention can."""
    alike: dict[tuple[int, ...], list[Encoded]] = {}
    for example in examples:
        alike.setdefault(example.prompt[:_BEGINNING] if share else (), []).append(example)
    made = []
    for group in alike.values():
        shared = _common([example.prompt for example in group]) if share and len(group) > 1 else 0
        packed = best_fit([len(example) - shared for example in group], capacity - shared)
        made += [_row([group[i] for i in chosen], shared, capacity if filled else 0, pad) for chosen in packed]
    return made


def _common(prompts: Sequence[tuple[int, ...]]) -> int:
    """Tokens that all prompts begin with; at least one of each is its own."""
    first, last = min(prompts), max(prompts)  # if these begin alike, so do all between them
    most = min(len(prompt) for prompt in prompts) - 1
    return next((i for i in range(most) if first[i] != last[i]), most)


def _row(examples: Sequence[Encoded], shared: int, width: int, pad: int) -> Row:
    row = Row([*examples[0].prompt[:shared]], [*range(shared)], [], shared, [], [], sum(map(len, examples)))
    for example in examples:
        row.ids.extend((*example.prompt[shared:], *example.answer))
        row.positions.extend(range(shared, len(example)))
        row.lengths.append(len(example) - shared)
        end = len(row.ids) - 1
        row.at.extend(range(end - len(example.answer), end))  # the token before says what comes next
        row.labels.extend(example.answer)
    if empty := max(width - len(row.ids), 0):
        row.lengths.append(empty)
        row.positions.extend(range(empty))
        row.ids.extend([pad] * empty)
    return row


def row_loss(model: Any, row: Row, attention: str) -> Any:
    """Cross-entropy summed over the response tokens of a row, in float32; `attention` is what `isolate` said."""
    import torch
    from torch.nn.functional import cross_entropy

    ids, positions, at, labels = (
        torch.tensor(each, device=model.device) for each in (row.ids, row.positions, row.at, row.labels)
    )
    apart: dict[str, Any] = {} if attention == ALONE else {"position_ids": positions[None]}
    apart |= {"lengths": row.lengths, "shared": row.shared} if attention == TILED else {}
    logits = model(input_ids=ids[None], use_cache=False, logits_to_keep=at, **apart).logits[0]
    return cross_entropy(logits.float(), labels, reduction="sum")


def isolate(model: Any, device: str, max_length: int) -> str:
    """Set how `model` keeps the examples in a row apart: an attention implementation of transformers, or `ALONE`.

    On a CPU the tiles take what sdpa could compute: no soft caps, and no sliding window within `max_length`."""
    if not model._supports_attention_backend:
        return ALONE
    text = model.config.get_text_config()
    window = getattr(text, "sliding_window", None)
    plain = not (window and window < max_length) and not getattr(text, "attn_logit_softcapping", None)
    if device == "cuda" and find_spec("flash_attn") and model._supports_flash_attn:
        model.set_attn_implementation("flash_attention_2")
    elif device == "cpu" and plain and model._supports_sdpa:
        _register()
        model.set_attn_implementation(TILED)
    return str(model.config._attn_implementation)


@lru_cache(1)
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(TILED, _attend)
    AttentionMaskInterface.register(TILED, sdpa_mask)


def _attend(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    *,
    lengths: Sequence[int] = (),
    shared: int = 0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Any, None]:
    """Attention of each example by itself, shapes ``(1, heads, tokens, size)``; keys and values may have fewer heads.
    Without `lengths` nothing is packed: the student is answering, and sdpa does it."""
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if not lengths:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    heads, groups = query.shape[1], key.shape[1]
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    cuts = [shared, *lengths] if shared else list(lengths)
    q, k, v = (x[0].split(cuts, dim=1) for x in (query * scale, key, value))
    if shared:  # what all examples begin with comes before the words of each
        k, v = ((x[0], *(torch.cat([x[0], own], dim=1) for own in x[1:])) for x in (k, v))
    parts = [_causal(one.unflatten(0, (groups, heads // groups)), *seen) for one, *seen in zip(q, k, v, strict=True)]
    return torch.cat(parts, dim=2).flatten(0, 1).transpose(0, 1)[None], None


def _causal(q: Any, k: Any, v: Any) -> Any:
    """Causal attention by tiles of queries; q ``(groups, heads, n, size)``, k and v ``(groups, past + n, size)``."""
    import torch

    past, tiles = k.shape[1] - q.shape[2], []
    for tile in q.split(_TILE, dim=2):
        n, seen = tile.shape[2], past + tile.shape[2]
        future = torch.full((n, seen), float("-inf"), dtype=q.dtype).triu(past + 1)
        scores = (tile.flatten(1, 2) @ k[:, :seen].mT).unflatten(1, (-1, n)) + future
        tiles.append((scores.softmax(-1).flatten(1, 2) @ v[:, :seen]).unflatten(1, (-1, n)))
        past = seen
    return torch.cat(tiles, dim=2)
