"""The loss of a packed row: logits exist for the response tokens only, and for a few of them at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from genesis_lab.finetuning.packing import ALONE, TILED, Row
from genesis_lab.finetuning.student import Prepared

_LOGITS_AT_ONCE = 256
"""Response tokens whose logits exist at the same time."""


def row_loss(prepared: Prepared, row: Row) -> Any:
    """Cross-entropy summed over the response tokens of a row, in float32; logits exist for these tokens only."""
    import torch

    base, device = prepared.model.get_base_model(), prepared.loaded.device
    apart: dict[str, Any] = {"lengths": row.lengths, "shared": row.shared} if prepared.attention == TILED else {}
    if prepared.attention != ALONE:
        apart["position_ids"] = torch.tensor([row.positions], device=device)
    hidden = base.get_decoder()(
        input_ids=torch.tensor([row.ids], device=device),
        use_cache=False,
        **apart,
    ).last_hidden_state[0]
    at, labels = (torch.tensor(each, device=device) for each in (row.at, row.labels))
    return completion_loss(hidden[at], labels, _head(base))


def completion_loss(hidden: Any, labels: Any, head: Callable[[Any], Any]) -> Any:
    """Cross-entropy summed over tokens, from their hidden states; `head` makes logits of them and is not learned."""
    return _completion_loss().apply(hidden, labels, head)


def _head(base: Any) -> Callable[[Any], Any]:
    """From hidden states to logits, with what some families (Gemma, Granite, Cohere) do to them."""
    import torch

    layer, config = base.get_output_embeddings(), base.config.get_text_config()
    cap = getattr(config, "final_logit_softcapping", None)
    scale = (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)

    def logits(hidden: Any) -> Any:
        values = layer(hidden).float()
        values = values if scale == 1.0 else values * scale
        return torch.tanh(values / cap) * cap if cap else values

    return logits


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
