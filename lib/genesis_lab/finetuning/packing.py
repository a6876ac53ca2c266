"""Packing: several examples in one row, each as if it were alone, and the loss of such a row.

Every example starts again at position 0 and attends to itself only. On a GPU transformers sees that from the
positions (flash-attention's variable lengths where it is installed, else a block-diagonal mask). On a CPU a mask over
the whole row would cost more than padding, so there each example's attention is computed by itself, in tiles that
leave out what lies in the future: half the work, and less than half the time of torch's own kernel in bfloat16. There,
too, words that all examples of a row begin with (a role's instruction) are computed once: each example attends to them as
if they were its own, and their gradient is the sum, so the result is the same.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from genesis_lab.finetuning.tasks import Encoded

TILED = "genesis_tiled"
ALONE = "one by one"
"""Not an implementation of attention: a row for each example, for models that would mix those of a row."""
_TILE = 128
_LOGITS_AT_ONCE = 256
"""Response tokens whose logits exist at the same time."""
_BEGINNING = 16
"""Prompts that agree in so many tokens are looked at for a longer common beginning."""


@dataclass(frozen=True, slots=True)
class Row:
    """What goes through the model at once.

    Parameters
    ----------
    ids, positions : one per token.
    lengths : tokens of each example, in order; padding, where there is some, is the last.
    shared : tokens that all examples begin with, which stand once, before the first; not part of `lengths`.
    at, labels : where a response token is to be predicted, and which; prompts and padding teach nothing.
    tokens : tokens of the examples, each counted whole.
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    lengths: tuple[int, ...]
    shared: int
    at: tuple[int, ...]
    labels: tuple[int, ...]
    tokens: int


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Places in `lengths`, packed into bins of `capacity`: the longest first, each into the fullest bin that takes it.

    Johnson (1973): at most 11/9 of the fewest bins there could be.
    """
    room: list[tuple[int, int]] = []  # what is left in each bin, and its place in `bins`
    bins: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fits = bisect_left(room, (lengths[i], -1))
        if fits < len(room):
            left, place = room.pop(fits)
        else:
            left, place = capacity, len(bins)
            bins.append([])
        bins[place].append(i)
        insort(room, (left - lengths[i], place))
    return bins


def rows(
    examples: Sequence[Encoded], capacity: int, *, share: bool = False, filled: bool = False, pad: int = 0
) -> list[Row]:
    """The examples in rows of at most `capacity` tokens.

    Parameters
    ----------
    share : let examples whose prompts begin alike share that beginning; only `TILED` attention can.
    filled : pad every row to `capacity` with the token `pad`, so that all have one shape (for compiled models).
    """
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
    ids = list(examples[0].prompt[:shared])
    positions = list(range(shared))
    at: list[int] = []
    labels: list[int] = []
    for example in examples:
        start = len(ids) + len(example.prompt) - shared
        ids += (*example.prompt[shared:], *example.answer)
        positions += range(shared, len(example))
        at += range(start - 1, len(ids) - 1)  # the token before says what comes next
        labels += example.answer
    lengths, empty = [len(example) - shared for example in examples], width - len(ids)
    if empty > 0:
        lengths.append(empty)
        positions += range(empty)
        ids += [pad] * empty
    tokens = sum(len(example) for example in examples)
    return Row(tuple(ids), tuple(positions), tuple(lengths), shared, tuple(at), tuple(labels), tokens)


def row_loss(model: Any, row: Row, attention: str) -> Any:
    """Cross-entropy summed over the response tokens of a row, in float32; `model` has its adapters, `attention` is `isolation`'s."""
    import torch

    base, device = model.get_base_model(), model.device
    apart: dict[str, Any] = {"lengths": row.lengths, "shared": row.shared} if attention == TILED else {}
    if attention != ALONE:
        apart["position_ids"] = torch.tensor([row.positions], device=device)
    ids, at, labels = (torch.tensor(each, device=device) for each in (row.ids, row.at, row.labels))
    hidden = base.get_decoder()(input_ids=ids[None], use_cache=False, **apart).last_hidden_state[0]
    layer, config = base.get_output_embeddings(), base.config.get_text_config()
    cap = getattr(config, "final_logit_softcapping", None)  # what Gemma, Granite and Cohere do to their logits
    scale = (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)

    def head(hidden: Any) -> Any:
        logits = layer(hidden).float() * scale
        return torch.tanh(logits / cap) * cap if cap else logits

    return completion_loss(hidden[at], labels, head)


def completion_loss(hidden: Any, labels: Any, head: Callable[[Any], Any]) -> Any:
    """Cross-entropy summed over tokens, from their hidden states; `head` makes logits of them and is not learned."""
    return _completion_loss().apply(hidden, labels, head)


@lru_cache(1)
def _completion_loss() -> Any:
    import torch
    from torch.nn.functional import cross_entropy

    class CompletionLoss(torch.autograd.Function):
        """Logits come and go a chunk at a time, and their gradient is taken at once: the vocabulary never fills memory."""

        @staticmethod
        def forward(ctx: Any, hidden: Any, labels: Any, head: Callable[[Any], Any]) -> Any:
            learning, total, grads = hidden.requires_grad, torch.zeros((), device=hidden.device), []
            for part, label in zip(hidden.split(_LOGITS_AT_ONCE), labels.split(_LOGITS_AT_ONCE), strict=True):
                with torch.set_grad_enabled(learning):
                    part = part.detach().requires_grad_(learning)
                    loss = cross_entropy(head(part), label, reduction="sum")
                total += loss.detach()
                if learning:
                    grads.append(torch.autograd.grad(loss, part)[0])
            if learning:
                ctx.save_for_backward(torch.cat(grads))
            return total

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            return (ctx.saved_tensors[0] * grad).to(ctx.saved_tensors[0].dtype), None, None

    return CompletionLoss


def isolation(model: Any, device: str, max_length: int) -> str:
    """How examples in a row are kept apart: the name of an attention implementation of transformers, or `ALONE`.

    Parameters
    ----------
    model : as it was loaded; whether it leaves attention to transformers, which implementations it knows, and what it
        says of sliding windows and soft caps decide, besides the device.
    """
    if not model._supports_attention_backend:
        return ALONE
    loaded = str(model.config._attn_implementation)
    if device == "cuda":
        return "flash_attention_2" if find_spec("flash_attn") and model._supports_flash_attn else loaded
    text = model.config.get_text_config()
    window = getattr(text, "sliding_window", None)
    plain = not (window and window < max_length) and not getattr(text, "attn_logit_softcapping", None)
    if plain and device == "cpu" and model._supports_sdpa:  # what sdpa can compute needs nothing that tiles lack
        _register()
        return TILED
    return loaded


@lru_cache(1)
def _register() -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(TILED, _attend)


def _attend(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, *, lengths: Sequence[int], shared: int,
    scaling: float | None = None, **_: Any,
) -> tuple[Any, None]:  # fmt: skip
    """Attention of each example by itself, shapes ``(1, heads, tokens, size)``; keys and values may have fewer heads."""
    import torch

    heads, groups = query.shape[1], key.shape[1]
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    cuts = [shared, *lengths] if shared else list(lengths)
    q, k, v = (x[0].split(cuts, dim=1) for x in (query, key, value))
    if shared:  # what all examples begin with comes before the words of each
        k = (k[0], *(torch.cat([k[0], own], dim=1) for own in k[1:]))
        v = (v[0], *(torch.cat([v[0], own], dim=1) for own in v[1:]))
    parts = [
        _tiled().apply(one.unflatten(0, (groups, heads // groups)), ks, vs, scale)
        for one, ks, vs in zip(q, k, v, strict=True)
    ]
    out = torch.cat([part.flatten(0, 1) for part in parts], dim=1)
    return out.transpose(0, 1)[None], None


@lru_cache(1)
def _tiled() -> Any:
    import torch

    class Tiled(torch.autograd.Function):
        """Causal attention, tile by tile of queries; q ``(groups, heads, n, size)``, k and v ``(groups, past + n, size)``."""

        @staticmethod
        def forward(ctx: Any, q: Any, k: Any, v: Any, scale: float) -> Any:
            n, past, q, out, weights = q.shape[2], k.shape[1] - q.shape[2], q * scale, torch.empty_like(q), []
            future = torch.full((_TILE, _TILE), float("-inf"), dtype=q.dtype).triu(1)
            for a in range(0, n, _TILE):
                b = min(a + _TILE, n)
                scores = (q[:, :, a:b].flatten(1, 2) @ k[:, : past + b].mT).view(*q.shape[:2], b - a, past + b)
                scores[..., past + a :] += future[: b - a, : b - a]
                weights.append(scores.softmax(-1))
                out[:, :, a:b] = (weights[-1].flatten(1, 2) @ v[:, : past + b]).view(*q.shape[:2], b - a, -1)
            ctx.save_for_backward(q, k, v, out, *weights)
            ctx.scale = scale
            return out

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            q, k, v, out, *weights = ctx.saved_tensors
            dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
            for i, weight in enumerate(weights):
                a, b, seen = i * _TILE, i * _TILE + weight.shape[2], weight.shape[3]
                g, w = grad[:, :, a:b].flatten(1, 2), weight.flatten(1, 2)
                dv[:, :seen] += w.mT @ g
                ds = g @ v[:, :seen].mT
                ds = ds.sub_((g * out[:, :, a:b].flatten(1, 2)).sum(-1, keepdim=True)).mul_(w)
                dq[:, :, a:b] = (ds @ k[:, :seen]).view(*q.shape[:2], b - a, -1)
                dk[:, :seen] += ds.mT @ q[:, :, a:b].flatten(1, 2)
            return dq.mul_(ctx.scale), dk, dv, None

    return Tiled
